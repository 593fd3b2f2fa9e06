//! Looking at and steering a consumer from other tasks.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::explain::Explanation;
use super::lag::Lag;
use super::metrics::ConsumerMetrics;
use super::positions::ResetTo;
use super::refresh::{self, LagStream};
use super::shared::Shared;
use super::wanted::Subscription;
use crate::clock::{Instant, now};
use crate::error::{Error, ErrorKind, Result};
use crate::fetched::Position;
use crate::group::GroupMetadata;
use crate::offsets::{self, EARLIEST, Found, LATEST};
use crate::types::{OffsetAndMetadata, Timestamp, TopicPartition};

/// Looks at and steers a [`Consumer`](super::Consumer), from any task. Cheap to clone.
///
/// ```no_run
/// # fn example(consumer: &ottla::Consumer) -> ottla::Result<()> {
/// let handle = consumer.handle();
/// // In another task, such as one that serves an operator: all of it once more.
/// handle.seek_to_beginning(handle.assignment())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ConsumerHandle {
    pub(super) shared: Arc<Shared>,
}

impl ConsumerHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Makes the poll under way, or else the next one, return at once with what there is.
    pub fn wakeup(&self) {
        self.shared.lock().wakeup = true;
        self.shared.ready.notify_waiters();
    }

    /// Hands out nothing of these partitions until [`resume`](Self::resume). The membership goes
    /// on, provided that `poll` is called. A poll under way may still return records.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if a partition is not assigned.
    pub fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.shared.set_paused(partitions, true)
    }

    /// Ends [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if a partition is not assigned.
    pub fn resume(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.shared.set_paused(partitions, false)
    }

    /// Goes on with this offset. What was fetched already is dropped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if the partition is not assigned or the offset is negative,
    /// [`ErrorKind::Group`] if it was lost and the application has not polled since.
    /// An offset outside of the log is noticed by the next fetch and treated by
    /// `auto.offset.reset`.
    pub fn seek(&self, tp: &TopicPartition, offset: i64) -> Result<()> {
        self.shared.seek(tp, Position::new(offset))
    }

    /// As [`seek`](Self::seek), to an offset that was kept together with its leader epoch: if the
    /// log was cut before that offset meanwhile (an unclean election), that is noticed (KIP-320)
    /// and treated as by `auto.offset.reset`. For positions kept elsewhere, such as beside the
    /// results in a database.
    ///
    /// ```no_run
    /// # fn example(consumer: &ottla::Consumer, tp: &ottla::TopicPartition) -> ottla::Result<()> {
    /// use ottla::OffsetAndMetadata;
    ///
    /// let kept = OffsetAndMetadata::new(4711).with_leader_epoch(Some(3));
    /// consumer.seek_to_offset(tp, &kept)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`seek`](Self::seek).
    pub fn seek_to_offset(&self, tp: &TopicPartition, to: &OffsetAndMetadata) -> Result<()> {
        let to = Position {
            offset: to.offset,
            leader_epoch: to.leader_epoch.unwrap_or(-1),
        };
        self.shared.seek(tp, to)
    }

    /// Goes on with the first record that the log still has.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if a partition is not assigned.
    pub fn seek_to_beginning(
        &self,
        partitions: impl IntoIterator<Item = impl Borrow<TopicPartition>>,
    ) -> Result<()> {
        let mut partitions = partitions.into_iter();
        partitions.try_for_each(|tp| self.shared.seek_to(tp.borrow(), ResetTo::Earliest))
    }

    /// Goes on with what is written from now on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if a partition is not assigned.
    pub fn seek_to_end(
        &self,
        partitions: impl IntoIterator<Item = impl Borrow<TopicPartition>>,
    ) -> Result<()> {
        let mut partitions = partitions.into_iter();
        partitions.try_for_each(|tp| self.shared.seek_to(tp.borrow(), ResetTo::Latest))
    }

    /// The offset of the next record to be handed out; `None` for a partition that is not assigned
    /// or whose start is not known yet. After a [`stream`](super::Consumer::stream) was dropped,
    /// that is behind the last record that it gave out, until reading goes on where it was left.
    #[must_use]
    pub fn position(&self, tp: &TopicPartition) -> Option<i64> {
        let inner = self.shared.lock();
        let late = i64::from(crate::planted("the-position-is-told-too-late"));
        inner.positions.position(tp).map(|at| at.offset - late)
    }

    /// The partitions paused at present.
    #[must_use]
    pub fn paused(&self) -> Vec<TopicPartition> {
        self.shared.lock().positions.paused().cloned().collect()
    }

    /// What the group has committed for these partitions; those without a commit are left out.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Authorization`], or what kept the coordinator from answering within
    /// `default.api.timeout.ms`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn committed(
        &self,
        partitions: impl IntoIterator<Item = impl Borrow<TopicPartition>>,
    ) -> Result<BTreeMap<TopicPartition, OffsetAndMetadata>> {
        let group = self.shared.group()?;
        let partitions: Vec<_> = owned(partitions).collect();
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let deadline = self.deadline();
        offsets::committed(&self.shared.cluster, &group, partitions, deadline).await
    }

    /// The first offset that each log still has.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownTopic`], [`ErrorKind::UnknownPartition`], [`ErrorKind::Authorization`],
    /// or what kept the leaders from answering within `default.api.timeout.ms`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn beginning_offsets(
        &self,
        partitions: impl IntoIterator<Item = impl Borrow<TopicPartition>>,
    ) -> Result<BTreeMap<TopicPartition, i64>> {
        self.bounds(partitions, EARLIEST).await
    }

    /// The offset after the last record of each log that this consumer's isolation level can see:
    /// the high watermark, or for `read_committed` the last stable offset.
    ///
    /// # Errors
    ///
    /// As [`beginning_offsets`](Self::beginning_offsets).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn end_offsets(
        &self,
        partitions: impl IntoIterator<Item = impl Borrow<TopicPartition>>,
    ) -> Result<BTreeMap<TopicPartition, i64>> {
        self.bounds(partitions, LATEST).await
    }

    async fn bounds(
        &self,
        partitions: impl IntoIterator<Item = impl Borrow<TopicPartition>>,
        which: i64,
    ) -> Result<BTreeMap<TopicPartition, i64>> {
        let wanted = owned(partitions).map(|tp| (tp, which)).collect();
        let found = self.list(wanted).await?;
        let found = found.into_iter().map(|(tp, found)| (tp, found.offset));
        Ok(found.collect())
    }

    /// The first offset whose record is not older than the timestamp, with that record's timestamp;
    /// partitions without such a record are left out.
    ///
    /// # Errors
    ///
    /// As [`beginning_offsets`](Self::beginning_offsets).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn offsets_for_times(
        &self,
        times: impl IntoIterator<Item = (TopicPartition, Timestamp)>,
    ) -> Result<BTreeMap<TopicPartition, (i64, Timestamp)>> {
        let mut wanted = Vec::new();
        for (tp, time) in times {
            if time.as_millis() < 0 {
                let error = Error::new(ErrorKind::InvalidArgument, "negative timestamp");
                return Err(error.with_topic_partition(tp));
            }
            wanted.push((tp, time.as_millis()));
        }
        let found = self.list(wanted).await?.into_iter();
        let found = found.filter(|(_, found)| found.offset >= 0);
        Ok(found
            .map(|(tp, found)| (tp, (found.offset, Timestamp::from_millis(found.timestamp))))
            .collect())
    }

    async fn list(
        &self,
        wanted: Vec<(TopicPartition, i64)>,
    ) -> Result<BTreeMap<TopicPartition, Found>> {
        let level = self.shared.config.isolation;
        offsets::list(&self.shared.cluster, wanted, level, self.deadline()).await
    }

    fn deadline(&self) -> Instant {
        now() + self.shared.cluster.config().api_timeout
    }

    /// Commits these offsets: of each partition that of the next record to read. They need not be
    /// of partitions that are assigned.
    ///
    /// # Errors
    ///
    /// As [`commit`](super::Consumer::commit).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, as [`commit`](super::Consumer::commit).
    pub async fn commit_offsets(
        &self,
        offsets: impl IntoIterator<Item = (TopicPartition, OffsetAndMetadata)>,
    ) -> Result<()> {
        self.shared.commit_offsets(offsets).await
    }

    /// The partitions assigned at present, in no particular order.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.shared.lock().positions.assigned().cloned().collect()
    }

    /// As [`Consumer::subscription`](super::Consumer::subscription).
    #[must_use]
    pub fn subscription(&self) -> Subscription {
        self.shared.lock().wanted.clone()
    }

    /// How far behind this consumer is, from what it has fetched so far; no request is made.
    #[must_use]
    pub fn lag(&self) -> Lag {
        self.shared.lag()
    }

    /// How far behind this consumer is, with the ends of the logs as their leaders tell them now,
    /// the ages of first unread records that were not fetched yet (as of paused partitions), and
    /// how much younger the newest records are: a partition that is behind costs fetches of one to
    /// three batches. An age that cannot be learnt is
    /// [`TimeLag::Unknown`](crate::TimeLag::Unknown).
    ///
    /// # Errors
    ///
    /// As [`end_offsets`](Self::end_offsets).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn fetch_lag(&self) -> Result<Lag> {
        let assigned = self.assignment().into_iter();
        let wanted = assigned.map(|tp| (tp, LATEST)).collect::<Vec<_>>();
        if !wanted.is_empty() {
            let deadline = self.deadline();
            let began = now();
            let found = self.list(wanted).await?;
            for (tp, found) in &found {
                let positions = &mut self.shared.lock().positions;
                positions.note_end(tp, found.offset, began, now());
            }
            // Takes timestamps from what is buffered; the others are asked for.
            drop(self.shared.lag());
            refresh::heads(&self.shared, deadline).await;
            let mut lag = self.shared.lag();
            refresh::newest(&self.shared, &mut lag, deadline).await;
            return Ok(lag);
        }
        Ok(self.shared.lag())
    }

    /// The lag, at once and then every `interval`. Only partitions of which no fetch told the end
    /// within the interval are asked about. Ends when the consumer does; a broker that does not
    /// answer leaves its partitions as they were
    /// ([`PartitionLag::measured`](crate::PartitionLag::measured)). Whoever looks seldom gets the
    /// latest only.
    ///
    /// ```no_run
    /// # async fn example(consumer: &ottla::Consumer) {
    /// use futures::StreamExt;
    /// let mut lags = consumer.watch_lag(std::time::Duration::from_secs(10));
    /// tokio::spawn(async move {
    ///     while let Some(lag) = lags.next().await {
    ///         println!("{} records, {:?} behind", lag.records(), lag.time().duration());
    ///     }
    /// });
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The stream can be dropped, and its `next()` given up, at any time.
    #[must_use]
    pub fn watch_lag(&self, interval: Duration) -> LagStream {
        LagStream::new(Arc::clone(&self.shared), interval)
    }

    /// Why no records of this partition come at this moment. For people and logs: print it when a
    /// partition stands still.
    ///
    /// ```no_run
    /// # fn example(consumer: &ottla::Consumer) {
    /// for partition in consumer.assignment() {
    ///     println!("{partition}: {}", consumer.explain(&partition));
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn explain(&self, tp: &TopicPartition) -> Explanation {
        self.shared.explain(tp)
    }

    /// What this consumer did so far: fetching, polling, committing, rebalances. Costs a copy of
    /// some counters, and a look at each partition assigned.
    #[must_use]
    pub fn metrics(&self) -> ConsumerMetrics {
        self.shared.metrics()
    }

    /// Who this consumer is in its group: for sending the offsets of what it was given in a
    /// transaction ([`Transaction::send_offsets`](crate::Transaction::send_offsets)).
    ///
    /// It follows the member's epoch, but a consumer that was thrown out of its group remains who
    /// it was until it is polled again, even if it has joined anew meanwhile: so the coordinator
    /// refuses offsets of what others may have read since. Ask for it before the next poll.
    #[must_use]
    pub fn group_metadata(&self) -> GroupMetadata {
        let inner = self.shared.lock();
        let member = match inner.wanted {
            Subscription::Topics(_) | Subscription::Pattern(_) => inner.reader.1.clone(),
            Subscription::Nothing => inner.member.clone(),
            Subscription::Partitions(_) => None,
        };
        drop(inner);
        let config = &self.shared.config;
        let mut metadata = GroupMetadata::of_group(config.group_id.clone().unwrap_or_default());
        metadata.instance_id.clone_from(&config.group_instance_id);
        if let Some(member) = member {
            metadata.member_id = member.id.to_string();
            metadata.epoch = member.epoch;
        }
        metadata
    }
}

fn owned(
    partitions: impl IntoIterator<Item = impl Borrow<TopicPartition>>,
) -> impl Iterator<Item = TopicPartition> {
    let partitions = partitions.into_iter();
    partitions.map(|tp| tp.borrow().clone())
}

impl fmt::Debug for ConsumerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerHandle").finish_non_exhaustive()
    }
}
