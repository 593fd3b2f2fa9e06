//! How rules are made.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
#[cfg(test)]
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};

use super::MockCluster;
use super::requests::Api;
#[cfg(test)]
use super::rules::Rewrite;
use super::rules::{Action, Predicate, RequestInfo, Rule};

impl MockCluster {
    /// Starts a rule about requests of a kind.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// use ottla::mock::{Api, MockCluster};
    ///
    /// const NOT_ENOUGH_REPLICAS: i16 = 19;
    /// let mock = MockCluster::builder().topic("orders", 1).start().await?;
    /// let rule = mock.on(Api::Produce).broker(1).times(2).fail(NOT_ENOUGH_REPLICAS);
    /// let producer = mock.client().producer().build()?;
    /// producer.send(ottla::Record::to("orders").with_value("v")).await?;
    /// assert_eq!(rule.hits(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn on(&self, api: Api) -> RuleBuilder<'_> {
        RuleBuilder::new(self, Some(api))
    }

    /// Starts a rule about requests of every kind.
    pub fn on_any(&self) -> RuleBuilder<'_> {
        RuleBuilder::new(self, None)
    }
}

/// A rule being made, by [`MockCluster::on`]; what it does ends it.
#[must_use = "a rule needs an action, such as `fail`"]
pub struct RuleBuilder<'a> {
    mock: &'a MockCluster,
    api: Option<Api>,
    broker: Option<i32>,
    when: Option<Predicate>,
    skip: u64,
    times: u64,
}

impl<'a> RuleBuilder<'a> {
    pub(super) fn new(mock: &'a MockCluster, api: Option<Api>) -> Self {
        Self {
            mock,
            api,
            broker: None,
            when: None,
            skip: 0,
            times: u64::MAX,
        }
    }

    /// Only requests to this broker. Default: to any.
    pub fn broker(mut self, broker: i32) -> Self {
        self.broker = Some(broker);
        self
    }

    /// Only so many requests. Default: all, until the rule is removed.
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Lets so many matching requests pass before the rule applies. Default: none.
    pub fn skip(mut self, requests: u64) -> Self {
        self.skip = requests;
        self
    }

    /// Only requests for which the predicate is true. It is called under the mock's lock and must
    /// not call the mock.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # use ottla::mock::{Api, MockCluster};
    /// let mock = MockCluster::builder().topic("orders", 1).start().await?;
    /// let rule = mock
    ///     .on(Api::Produce)
    ///     .when(|request| request.client_id == "victim")
    ///     .times(1)
    ///     .fail(19);
    /// let client = mock.named_client_builder("bystander").build()?;
    /// let producer = client.producer().build()?;
    /// producer.send(ottla::Record::to("orders").with_value("v")).await?;
    /// assert_eq!(rule.hits(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn when(
        mut self,
        predicate: impl Fn(&RequestInfo<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.when = Some(Arc::new(predicate));
        self
    }

    /// Answers with an error code, such as 6 for `NOT_LEADER_OR_FOLLOWER`, for every item of the
    /// request, and does nothing else.
    pub fn fail(self, code: i16) -> RuleHandle {
        self.add(Action::Fail(code))
    }

    /// Waits before the request is looked at.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # use ottla::mock::{Api, MockCluster};
    /// let mock = MockCluster::builder().topic("orders", 1).start().await?;
    /// let rule = mock.on(Api::Metadata).times(1).delay(std::time::Duration::from_millis(5));
    /// let producer = mock.client().producer().build()?;
    /// producer.send(ottla::Record::to("orders").with_value("v")).await?;
    /// assert_eq!(rule.hits(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn delay(self, delay: Duration) -> RuleHandle {
        self.add(Action::Delay(delay))
    }

    /// Closes the connection without doing anything.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # use ottla::mock::{Api, MockCluster};
    /// let mock = MockCluster::builder().topic("orders", 1).start().await?;
    /// mock.on(Api::Produce).times(1).drop_connection();
    /// let producer = mock.client().producer().build()?;
    /// producer.send(ottla::Record::to("orders").with_value("v")).await?;
    /// assert_eq!(mock.records("orders", 0).len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn drop_connection(self) -> RuleHandle {
        self.add(Action::Drop)
    }

    /// Does what was asked and closes the connection instead of answering.
    pub fn apply_then_drop(self) -> RuleHandle {
        self.add(Action::ApplyThenDrop)
    }

    /// Does what was asked and answers with an error code all the same, as a leader that has the
    /// batch in its log and waits in vain for its replicas: 7 for `REQUEST_TIMED_OUT`, or 20 for
    /// `NOT_ENOUGH_REPLICAS_AFTER_APPEND`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # use ottla::mock::{Api, MockCluster};
    /// let mock = MockCluster::builder().topic("orders", 1).start().await?;
    /// mock.on(Api::Produce).times(1).apply_then_fail(20);
    /// let producer = mock.client().producer().build()?;
    /// // Sent twice, written once: the second attempt is known as a duplicate.
    /// let written = producer.send(ottla::Record::to("orders").with_value("v")).await?;
    /// assert_eq!(written.offset, Some(0));
    /// assert_eq!(mock.records("orders", 0).len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn apply_then_fail(self, code: i16) -> RuleHandle {
        self.add(Action::ApplyThenFail(code))
    }

    /// Answers with these bytes, as they are: no length, no correlation id are added.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # use ottla::mock::{Api, MockCluster};
    /// let mock = MockCluster::builder().topic("orders", 1).start().await?;
    /// mock.on(Api::Produce).times(1).garbage("HTTP/1.1 400 Bad Request");
    /// let producer = mock.client().producer().build()?;
    /// producer.send(ottla::Record::to("orders").with_value("v")).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn garbage(self, bytes: impl Into<Bytes>) -> RuleHandle {
        self.add(Action::Garbage(bytes.into()))
    }

    /// Does what was asked and flips one bit of the answer, as it may happen on the way: that of
    /// this number, where bits beyond the last byte are counted from the first again.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # use ottla::mock::{Api, MockCluster};
    /// let mock = MockCluster::builder().topic("orders", 1).start().await?;
    /// // Of the correlation id.
    /// mock.on(Api::Produce).times(1).flip_bit(33);
    /// let producer = mock.client().producer().build()?;
    /// producer.send(ottla::Record::to("orders").with_value("v")).await?;
    /// assert_eq!(mock.records("orders", 0).len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn flip_bit(self, bit: usize) -> RuleHandle {
        self.add(Action::FlipBit(bit))
    }

    /// Does what was asked and changes what is answered.
    #[cfg(test)]
    pub(crate) fn rewrite<T>(self, change: impl Fn(&mut T) + Send + Sync + 'static) -> RuleHandle
    where
        T: Decodable + Encodable + HeaderVersion,
    {
        self.add(Action::Rewrite(Rewrite(Arc::new(
            move |answer, version| {
                let header = 8 + usize::from(T::header_version(version) >= 1);
                let (header, mut body) = answer.split_at(header);
                let mut answer = T::decode(&mut body, version).unwrap();
                change(&mut answer);
                let mut bytes = header.to_vec();
                answer.encode(&mut bytes, version).unwrap();
                let length = u32::try_from(bytes.len() - 4).unwrap();
                bytes[..4].copy_from_slice(&length.to_be_bytes());
                bytes.into()
            },
        ))))
    }

    fn add(self, action: Action) -> RuleHandle {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let hits = Arc::new(AtomicU64::new(0));
        let rule = Rule {
            id,
            api: self.api,
            broker: self.broker,
            when: self.when,
            skip: self.skip,
            left: self.times,
            action,
            hits: Arc::clone(&hits),
        };
        self.mock.shared.state().rules.push(rule);
        RuleHandle {
            mock: self.mock.clone(),
            id,
            hits,
        }
    }
}

impl fmt::Debug for RuleBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleBuilder")
            .field("api", &self.api)
            .field("broker", &self.broker)
            .field("times", &self.times)
            .finish_non_exhaustive()
    }
}

/// A rule that is in force until it is used up or removed. Dropping the handle leaves it in force.
#[derive(Debug)]
pub struct RuleHandle {
    mock: MockCluster,
    id: u64,
    hits: Arc<AtomicU64>,
}

impl RuleHandle {
    /// How many requests it applied to.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Ends the rule.
    pub fn remove(self) {
        self.mock
            .shared
            .state()
            .rules
            .retain(|rule| rule.id != self.id);
    }
}
