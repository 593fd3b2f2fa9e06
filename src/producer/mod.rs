//! The producer: sends records, in batches, to the leaders of their partitions.
//!
//! The life of a record: [`Producer::enqueue`] chooses the partition and appends the record to the
//! open batch in the partition's slot (`slot.rs`), on the caller's task and under one short lock. A
//! batch that is full is compressed by the caller that found it so; one whose linger is over, by
//! the sender. The sender of the partition's leader (`sender.rs`) stamps batches with the
//! producer's identity (`identity.rs`) and sequence, sends them, and settles the answers; the order
//! of batches and what may be sent again is decided by `queue.rs`. The control task (`control.rs`)
//! gets the identity and moves slots when leaders move (`metadata.rs`).

mod batch;
mod batch_report;
mod budget;
mod builder;
mod control;
mod delivery;
mod flush;
mod identity;
mod interceptor;
mod metadata;
pub(crate) mod meter;
#[cfg(test)]
#[cfg(feature = "mock")]
mod mock_tests;
mod partitioner;
#[cfg(test)]
mod peer_tests;
mod produce_error;
mod purge;
mod queue;
mod ready;
mod report;
mod sender;
mod shared;
mod slot;
mod sticky;
#[cfg(test)]
mod tests;
#[cfg(test)]
#[cfg(feature = "mock")]
mod thread_tests;
mod topic;
mod topics;
mod transaction;
mod untold;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout_at;

pub use self::batch_report::BatchReport;
use self::budget::Charge;
pub use self::builder::ProducerBuilder;
pub use self::delivery::{Deliveries, Delivery, RecordMetadata};
pub use self::interceptor::{AddedHeaders, ProducerInterceptor};
pub use self::partitioner::{Choice, KeyPartitioner, Partitioner, RoundRobin, TopicView};
pub use self::purge::{Purge, PurgeReport};
pub use self::report::ProducerMetrics;
use self::shared::{BulkEnqueue, NotAccepted, Shared};
pub use self::topic::TopicProducer;
use self::topics::CachedTopic;
pub use self::transaction::{
    CommitError, Transaction, TransactionOutcome, TransactionTopic, TransactionalProducer,
};
use crate::clock::{Instant, now};
use crate::cluster::describe::PartitionDescription;
pub use crate::config::producer::Acks;
use crate::error::{Certainty, Error, ErrorKind, Result};
use crate::hooks::Chain;
use crate::record::Record;

/// Sends records. Cheap to clone; all clones are the same producer.
///
/// | method | gives | waits for |
/// |---|---|---|
/// | [`send`](Self::send) | [`RecordMetadata`] | the acknowledgement |
/// | [`enqueue`](Self::enqueue) | a [`Delivery`], a future of the acknowledgement | room in `buffer.memory`, and a new topic's metadata |
/// | [`try_enqueue`](Self::try_enqueue) | a [`Delivery`] | nothing |
/// | [`enqueue_all`](Self::enqueue_all) | [`Deliveries`] of many records | as `enqueue` |
/// | [`flush`](Self::flush) | an error if records failed and nobody was told | the end of everything accepted so far |
/// | [`close`](Self::close) | the same | the same, and takes no more records |
///
/// [`topic`](Self::topic) makes a handle of one topic, which has the first four.
///
/// By default it is idempotent and waits for all in-sync replicas: each record is written once, in
/// the order in which it was accepted per partition, or its delivery fails and says whether it may
/// have been written.
///
/// Before a program ends it calls [`flush`](Self::flush) or [`close`](Self::close): both wait until
/// what was accepted has been written, and tell what was not. Dropping the last clone goes on
/// sending in the background for up to 5 seconds, but only while the tokio runtime lives. At the
/// end of `main` the runtime goes first, and everything that was not acknowledged by then fails,
/// with one warning in the log that counts it.
#[derive(Clone)]
pub struct Producer {
    handle: Arc<Handle>,
}

/// Tells the control task when the last clone goes.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Release);
        self.shared.control.notify_one();
    }
}

/// What became of a producer's records, for [`Producer::close`]: of failures that the application
/// was not told of, `close` is an error instead, which says how many they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReport {
    /// How many records failed in the producer's life, as their deliveries told. Those that the
    /// application dropped ([`Producer::purge`]) do not count.
    pub failed: u64,
}

impl Producer {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            handle: Arc::new(Handle { shared }),
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// Sends a record and waits until it is acknowledged.
    ///
    /// A loop of it goes as fast as the broker answers: what is waited for does not linger (see
    /// [`linger`](ProducerBuilder::linger)). Many tasks that call it at once share requests.
    ///
    /// # Errors
    ///
    /// Those of [`enqueue`](Self::enqueue), and what its [`Delivery`] gives; [`Error::certainty`]
    /// says whether the record may have been written.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, the record may or may not have been accepted. An accepted record is
    /// not taken back: it is sent, and retried, all the same.
    pub async fn send(&self, record: Record<'_>) -> Result<RecordMetadata> {
        self.enqueue(record).await?.await
    }

    /// Accepts a record and fixes its place in its partition. The [`Delivery`] tells what became of
    /// it.
    ///
    /// Waits only while the topic is not known yet or `buffer.memory` is used up, or to look
    /// whether a partition that is not known has been added; at most `max.block.ms`.
    ///
    /// ```no_run
    /// # async fn example(producer: ottla::Producer) -> ottla::Result<()> {
    /// # use ottla::Record;
    /// let first = producer.enqueue(Record::to("orders").with_value("1")).await?;
    /// let second = producer.enqueue(Record::to("orders").with_value("2")).await?;
    /// println!("{:?} and {:?}", first.await?.offset, second.await?.offset);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Nothing was accepted then: [`ErrorKind::RecordTooLarge`], [`ErrorKind::UnknownTopic`],
    /// [`ErrorKind::UnknownPartition`], [`ErrorKind::Timeout`] (`max.block.ms` passed),
    /// [`ErrorKind::Closed`], or what ended the producer.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it returns, nothing was accepted. Afterwards the record is the producer's:
    /// dropping the [`Delivery`] gives up only the observation.
    pub async fn enqueue(&self, record: Record<'_>) -> Result<Delivery> {
        if let Some(chain) = &self.shared().interceptors {
            let mut wall = None;
            let sent = Box::pin(self.enqueue_intercepted(chain, None, &record, &mut wall));
            return sent.await.map_err(not_sent);
        }
        match self.shared().accept(None, &record, &mut None, &mut None) {
            Ok(delivery) => Ok(delivery),
            Err(obstacle) => {
                self.enqueue_slowly(None, &record, &mut None, obstacle)
                    .await
            }
        }
        .map_err(not_sent)
    }

    /// Accepts a record if that needs no waiting.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::BufferFull`] if it would have to wait: for memory, for which batches that
    /// linger are then sent at once, or for the topic's metadata, which is then looked up in the
    /// background. Otherwise as [`enqueue`](Self::enqueue).
    #[allow(clippy::needless_pass_by_value)] // as `enqueue`
    pub fn try_enqueue(&self, record: Record<'_>) -> Result<Delivery> {
        self.try_enqueue_to(None, &record)
    }

    #[inline]
    fn try_enqueue_to(&self, place: Option<&CachedTopic>, record: &Record<'_>) -> Result<Delivery> {
        if let Some(chain) = &self.shared().interceptors {
            let added = chain.on_send(record);
            return self.try_accept(place, &added.put_on(record));
        }
        self.try_accept(place, record)
    }

    #[inline]
    fn try_accept(&self, place: Option<&CachedTopic>, record: &Record<'_>) -> Result<Delivery> {
        match self.shared().accept(place, record, &mut None, &mut None) {
            Ok(delivery) => Ok(delivery),
            Err(NotAccepted::Error(error)) => Err(error),
            Err(NotAccepted::UnknownPartition(error)) => {
                // It may have been added since.
                self.shared().cluster.refresh();
                Err(error)
            }
            Err(NotAccepted::NeedsBytes(bytes)) => {
                // This caller does not wait, but its next attempt should not have to wait for
                // lingers to end. Once is enough: until bytes come back, nothing lingers.
                if self.shared().budget.refuse() {
                    self.shared().urge();
                }
                Err(Error::new(
                    ErrorKind::BufferFull,
                    format!("buffer.memory has no {bytes} bytes left"),
                ))
            }
            Err(NotAccepted::UnknownTopic) => {
                let refusal = self.shared().want(record.topic());
                Err(refusal.unwrap_or_else(|| {
                    Error::new(
                        ErrorKind::BufferFull,
                        format!(
                            "topic '{}' is not known yet and is being looked up",
                            record.topic()
                        ),
                    )
                }))
            }
        }
        .map_err(not_sent)
    }

    /// Accepts many records, in their order, and reads the clock once for all of them. Cheaper than
    /// as many calls of [`enqueue`](Self::enqueue).
    ///
    /// # Errors
    ///
    /// Those of [`enqueue`](Self::enqueue), for the first record that was not accepted; those
    /// before it have been. The number of records accepted is in the error's message.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it returns, a prefix of the records has been accepted.
    pub async fn enqueue_all<'a, I>(&self, records: I) -> Result<Deliveries>
    where
        I: IntoIterator<Item = Record<'a>>,
        I::IntoIter: Send,
    {
        self.enqueue_all_to(None, records.into_iter().map(Ok)).await
    }

    async fn enqueue_all_to<'a>(
        &self,
        place: Option<&CachedTopic>,
        mut records: impl Iterator<Item = Result<Record<'a>>> + Send,
    ) -> Result<Deliveries> {
        let shared = self.shared();
        let mut many = BulkEnqueue::default();
        loop {
            let sent = if let Some(chain) = &shared.interceptors {
                let Some(record) = records.next() else { break };
                let wall = &mut many.wall;
                match record {
                    Err(error) => Err(error),
                    Ok(record) => {
                        Box::pin(self.enqueue_intercepted(chain, place, &record, wall)).await
                    }
                }
            } else {
                let accepted = shared.accept_all(place, &mut records, &mut many);
                let Some((record, obstacle)) = accepted else {
                    break;
                };
                let wall = &mut many.wall;
                self.enqueue_slowly(place, &record, wall, obstacle).await
            };
            match sent {
                Ok(delivery) => many.accepted.push(&delivery),
                Err(error) => {
                    let before = many.accepted.len();
                    return Err(not_sent(error)
                        .context(format_args!("after {before} records that were accepted")));
                }
            }
        }
        Ok(many.accepted.into_deliveries())
    }

    /// Sends everything accepted so far without lingering, and waits until each of these records
    /// has ended: written or failed. Records accepted meanwhile are not waited for.
    ///
    /// ```no_run
    /// # async fn example(producer: ottla::Producer) -> ottla::Result<()> {
    /// # use ottla::Record;
    /// for number in 0..1000 {
    ///     let value = format!("order {number}");
    ///     producer.enqueue(Record::to("orders").with_value(&value)).await?;
    /// }
    /// producer.flush().await?; // An error if any of them was not written.
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If records failed since the last flush (or since the producer was built) and the application
    /// was not told: their [`Delivery`] was dropped, or has not been awaited to its end yet. It is
    /// the error of the first of them, with its kind, code and partition, and how many they are;
    /// [`Error::certainty`] is [`Certainty::MaybeWritten`] if that holds for any of them. One flush
    /// tells of a record, those after it do not. A record whose delivery has given its error, one
    /// that [`purge`](Self::purge) dropped, and one that `enqueue` refused, do not count.
    ///
    /// What ended the producer, if it cannot go on.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing but the wait.
    pub async fn flush(&self) -> Result<()> {
        self.shared().flush().await;
        self.untold()
    }

    /// What ended the producer, or failed without the application having been told.
    fn untold(&self) -> Result<()> {
        let shared = self.shared();
        let failure = shared.identity().failure().cloned();
        let failure = failure.or_else(|| shared.tasks.failure());
        let untold = shared.batch_config.stats.failures.take();
        // What became of a transaction says it of each of its records.
        let untold = untold.filter(|_| shared.config.transactional_id.is_none());
        let failure = failure.or(untold);
        failure.map_or(Ok(()), Err)
    }

    /// Drops records that were accepted and have not ended: those never sent, or all. Their
    /// deliveries end at once, with [`ErrorKind::Purged`] and the truth about whether they may have
    /// been written; their memory is free again.
    ///
    /// The producer goes on: what is sent afterwards is written once, in the order of its
    /// acceptance, or fails and says whether it may have been written; [`Purge::All`] can make the
    /// latter more likely, as is said there. A call of [`enqueue`](Self::enqueue) that waits for
    /// memory or metadata has accepted nothing yet and is not concerned; nor need be a record that
    /// another task sends at this moment. Not counted in the report, but dropped all the same, is a
    /// batch that another task is compressing.
    ///
    /// ```no_run
    /// # fn example(producer: ottla::Producer) {
    /// use ottla::Purge;
    ///
    /// // Prices that have not left by now are out of date.
    /// let dropped = producer.purge(Purge::Unsent);
    /// println!("{} prices were never sent", dropped.not_sent);
    /// # }
    /// ```
    pub fn purge(&self, what: Purge) -> PurgeReport {
        self.shared().purge(what)
    }

    /// Accepts nothing more, sends what was accepted, waits for its end as [`flush`](Self::flush)
    /// does, and ends the producer, for all its clones. What has not ended after 30 s fails (Java's
    /// client waits for it without limit; by default a record ends within `delivery.timeout.ms`,
    /// 120 s): [`close_timeout`](Self::close_timeout) sets another limit.
    ///
    /// # Errors
    ///
    /// Those of [`flush`](Self::flush): records failed, now or since the last flush, and the
    /// application was not told. Those left at the end of the time are among them. Or what had
    /// ended the producer before.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, the producer takes no more records, and the rest of the closing
    /// happens in the background once all clones are gone.
    pub async fn close(self) -> Result<CloseReport> {
        self.close_timeout(CLOSE_TIMEOUT).await
    }

    /// As [`close`](Self::close), with another time after which the rest fails.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn close_timeout(self, timeout: Duration) -> Result<CloseReport> {
        let shared = self.shared();
        shared.close(timeout).await;
        // They end at their next await, unless nobody drives the client's runtime.
        let _ = tokio::time::timeout(LAST_STEPS, shared.tasks.idle()).await;
        let failed = shared.batch_config.stats.failures.failed();
        self.untold().map(|()| CloseReport { failed })
    }

    /// How this producer, all its clones together, has fared so far. Costs a copy of some counters.
    ///
    /// ```no_run
    /// # fn example(producer: ottla::Producer) {
    /// let metrics = producer.metrics();
    /// println!("{} records, {:?} slowest request", metrics.records, metrics.request_latency.max());
    /// println!("p99 from send to acknowledgement: {:?}", metrics.batch_latency.quantile(0.99));
    /// # }
    /// ```
    #[must_use]
    pub fn metrics(&self) -> ProducerMetrics {
        let budget = &self.shared().budget;
        ProducerMetrics {
            buffer_used: budget.charged(),
            buffer_total: budget.total(),
            ..self.shared().batch_config.stats.snapshot()
        }
    }

    /// The partitions of a topic with their leaders and replicas, as a broker knows them now: for
    /// choosing [partitions](Record::with_partition) by number. Java calls it `partitionsFor`. It
    /// does not create topics.
    ///
    /// ```no_run
    /// # async fn example(producer: ottla::Producer) -> ottla::Result<()> {
    /// let partitions = producer.partitions_for("orders").await?.len();
    /// println!("{partitions} partitions");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownTopic`], [`ErrorKind::Authorization`], or what kept brokers from
    /// answering within `default.api.timeout.ms`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn partitions_for(&self, topic: &str) -> Result<Vec<PartitionDescription>> {
        self.shared().cluster.partitions_for(topic).await
    }

    /// Bytes of `buffer.memory` in use.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.shared().budget.charged()
    }

    /// Accepts a record with what the interceptors add to it.
    async fn enqueue_intercepted(
        &self,
        chain: &Chain<dyn ProducerInterceptor>,
        place: Option<&CachedTopic>,
        record: &Record<'_>,
        wall: &mut Option<i64>,
    ) -> Result<Delivery> {
        let added = chain.on_send(record);
        let record = added.put_on(record);
        match self.shared().accept(place, &record, wall, &mut None) {
            Ok(delivery) => Ok(delivery),
            Err(obstacle) => self.enqueue_slowly(place, &record, wall, obstacle).await,
        }
    }

    /// Accepts a record for which something must be waited for.
    async fn enqueue_slowly(
        &self,
        place: Option<&CachedTopic>,
        record: &Record<'_>,
        wall: &mut Option<i64>,
        mut obstacle: NotAccepted,
    ) -> Result<Delivery> {
        let shared = self.shared();
        let deadline = now() + shared.config.max_block;
        let mut looked = false;
        loop {
            let mut charge = None;
            match obstacle {
                NotAccepted::Error(error) => return Err(error),
                NotAccepted::UnknownTopic => {
                    Box::pin(shared.look_up(record.topic(), deadline)).await?;
                }
                NotAccepted::UnknownPartition(error) => {
                    if std::mem::replace(&mut looked, true) {
                        return Err(error);
                    }
                    Box::pin(shared.look_again(deadline)).await;
                }
                NotAccepted::NeedsBytes(bytes) => {
                    charge = Some(self.charge(bytes, deadline).await?)
                }
            }
            obstacle = match shared.accept(place, record, wall, &mut charge) {
                Ok(delivery) => return Ok(delivery),
                Err(obstacle) => obstacle,
            };
        }
    }

    async fn charge(&self, bytes: usize, deadline: Instant) -> Result<Charge> {
        let shared = self.shared();
        let mut acquire = shared.budget.acquire(bytes);
        // The first poll stands in line; from then on open batches are urgent.
        let first = std::future::poll_fn(|cx| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut acquire).poll(cx))
        })
        .await;
        let charge = match first {
            std::task::Poll::Ready(charge) => Ok(charge),
            std::task::Poll::Pending => {
                let stats = &shared.batch_config.stats;
                let began = now();
                stats.waits();
                shared.urge();
                let charge = timeout_at(deadline, acquire).await;
                stats.waited(now().saturating_duration_since(began));
                charge
            }
        };
        match charge {
            Ok(Ok(charge)) => Ok(charge),
            Ok(Err(_closed)) => Err(shared.end()),
            Err(_elapsed) => Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "buffer.memory ({} bytes) stayed full for {} ms (max.block.ms)",
                    shared.budget.total(),
                    shared.config.max_block.as_millis()
                ),
            )),
        }
    }
}

/// How long a close waits for what was accepted.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a close waits for tasks that were told to stop.
const LAST_STEPS: Duration = Duration::from_secs(1);

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("config", &self.shared().config)
            .field("budget", &self.shared().budget)
            .finish_non_exhaustive()
    }
}

fn not_sent(error: Error) -> Error {
    error.with_certainty(Certainty::NotSent)
}
