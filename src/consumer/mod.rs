//! The consumer: members of groups, and readers of given partitions.
//!
//! The life of a fetched batch: `fetcher.rs` (a task per broker) asks what `positions.rs` plans,
//! through the session of `session.rs`; the answer goes through `positions.rs` again, which drops
//! what is stale, into `fetched/buffer.rs`. A poll takes it from there and decodes it on the caller's task
//! into the [`Batches`] of `fetched/batch.rs`. `control/` is the task that runs the membership
//! (`group/`), looks up and commits offsets (`offsets/`), and ends it all.

mod builder;
#[cfg(test)]
mod cancel_tests;
mod close;
mod commands;
mod commit;
#[cfg(test)]
#[cfg(feature = "mock")]
mod commit_tests;
mod control;
mod event;
mod explain;
mod fetchable;
mod fetcher;
pub(crate) mod group;
mod handle;
mod interceptor;
mod lag;
pub(crate) mod meter;
mod metrics;
#[cfg(test)]
#[cfg(feature = "mock")]
mod mock_tests;
mod pattern;
#[cfg(test)]
mod poison_tests;
mod polling;
mod positions;
#[cfg(test)]
#[cfg(feature = "mock")]
mod presence_tests;
mod refresh;
mod session;
mod shared;
mod split;
mod splits;
mod stream;
mod subscription;
#[cfg(test)]
mod test_brokers;
#[cfg(test)]
mod tests;
mod unsent;
mod wanted;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use crate::config::consumer::{IsolationLevel, OffsetReset};
pub use crate::fetched::batch::{BatchRecords, Batches, PartitionBatch};
pub use crate::types::TimeLag;
pub use builder::ConsumerBuilder;
pub use close::CloseOptions;
pub use commands::GroupMembershipOperation;
pub use commit::PendingCommit;
pub use event::{Event, Revoking};
pub use explain::Explanation;
pub use handle::{ConsumerHandle, GroupMetadata};
pub use interceptor::ConsumerInterceptor;
pub use lag::{Lag, PartitionLag};
pub use metrics::{BrokerFetches, ConsumerMetrics, Rebalances};
pub use pattern::TopicPattern;
pub use refresh::LagStream;
pub use split::{PartitionStream, PartitionStreams};
pub use stream::RecordStream;
pub use wanted::Subscription;

use crate::cluster::describe::PartitionDescription;
use crate::error::Result;
#[cfg(doc)]
use crate::error::{Error, ErrorKind};
#[cfg(doc)]
use crate::record::OwnedRecord;
use crate::types::{OffsetAndMetadata, Timestamp, TopicPartition};
use commands::News;
use polling::{By, Turn, next_turn, poll};
use shared::Shared;

/// Reads records: as a member of a group, which shares the partitions of topics among its members,
/// or from given partitions.
///
/// Records are fetched ahead in the background.
///
/// **What was not finished is never committed by the library**: with auto-commit, which is the
/// default for groups, finished records are committed, and every record is processed at least once.
/// Finished is what the application shows that it is done with:
///
/// - with [`poll`](Self::poll) and [`next_event`](Self::next_event), what was handed out, when
///   more is asked for;
/// - with [`stream`](Self::stream), a record, when a later one is asked for while neither it nor an
///   earlier one of its partition is kept;
/// - with these three, all that was handed out so far, when [`finish`](Self::finish) or
///   [`commit`](Self::commit) is called;
/// - with [`split_by_partition`](Self::split_by_partition), what the stream of a partition handed
///   out, when it is asked for more.
///
/// Leaving in any other way finishes nothing: an error and then `?`, a panic,
/// [`close`](Self::close), dropping the stream or the consumer. Those records are read again.
///
/// ```no_run
/// # async fn example(client: ottla::Client) -> ottla::Result<()> {
/// let mut consumer = client.consumer("billing").subscribe(["orders"]).build().await?;
/// while let Some(batches) = consumer.poll().await? {
///     for batch in &batches {
///         for record in batch.records() {
///             let record = record?;
///             println!("{}@{}", batch.topic_partition(), record.offset());
///         }
///     }
///     consumer.commit().await?; // or leave it to auto-commit
/// }
/// # Ok(())
/// # }
/// ```
pub struct Consumer {
    shared: Arc<Shared>,
    closed: bool,
}

impl Consumer {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            closed: false,
        }
    }

    /// Waits for records and returns up to `max.poll.records` of them. `None` when the client was
    /// closed. The batches are empty only after [`ConsumerHandle::wakeup`].
    ///
    /// A partition is taken from this member only inside of `poll` (or of
    /// [`next_event`](Self::next_event)), after what was finished is committed, if auto-commit is on.
    /// A member that does not poll for `max.poll.interval.ms` leaves its group and joins again at its
    /// next poll.
    ///
    /// # Errors
    ///
    /// Whether to poll on is what [`Error::is_fatal`] tells, and nothing else: after a fatal error every poll
    /// returns it, and after any other the consumer goes on, whether or not the trouble may pass by itself
    /// ([`Error::is_retriable`]).
    ///
    /// After an error of the application's own, do not poll on, for that would say that the records
    /// are finished: process them again, write them elsewhere, [`seek`](Self::seek) back to where
    /// it failed, or [`close`](Self::close) the consumer, which does not commit them.
    ///
    /// An error about one partition ([`Error::topic_partition`]) does not stop the others. Damaged records
    /// are fetched and reported again, at most once a second; to leave them out, [`seek`](Self::seek) to the
    /// end of [`Error::unreadable`]. Without a position and with `auto.offset.reset=none`
    /// ([`ErrorKind::Offset`]), a partition waits for a [`seek`](Self::seek).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is taken unless it is returned, so `tokio::time::timeout(d, consumer.poll())`
    /// loses nothing.
    pub async fn poll(&mut self) -> Result<Option<Batches>> {
        poll(&self.shared, By::Poll).await
    }

    /// As [`poll`](Self::poll), with empty batches if there is nothing within `timeout`.
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, as [`poll`](Self::poll).
    pub async fn poll_timeout(&mut self, timeout: Duration) -> Result<Option<Batches>> {
        match tokio::time::timeout(timeout, self.poll()).await {
            Ok(outcome) => outcome,
            Err(_) => Ok(Some(Batches::default())),
        }
    }

    /// As [`poll`](Self::poll), telling in order with the records which partitions come and go.
    /// `None` when the client was closed.
    ///
    /// ```no_run
    /// # async fn example(mut consumer: ottla::Consumer) -> ottla::Result<()> {
    /// use ottla::Event;
    /// while let Some(event) = consumer.next_event().await? {
    ///     match event {
    ///         Event::Records(batches) => println!("{} records", batches.record_count()),
    ///         Event::Assigned(partitions) => println!("mine: {partitions:?}"),
    ///         Event::Revoking(revoking) => {
    ///             consumer.commit().await?; // still mine until `revoking` is done or dropped
    ///             revoking.done();
    ///         }
    ///         Event::Lost(partitions) => println!("gone: {partitions:?}"),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, as [`poll`](Self::poll).
    pub async fn next_event(&mut self) -> Result<Option<Event>> {
        Ok(match next_turn(&self.shared, By::Events).await? {
            Turn::Records(batches) => Some(Event::Records(batches)),
            Turn::Woken => Some(Event::Records(Batches::default())),
            Turn::News(News::Assigned(partitions)) => Some(Event::Assigned(partitions)),
            Turn::News(News::Lost(partitions)) => Some(Event::Lost(partitions)),
            Turn::News(News::Revoking(id, partitions)) => {
                let shared = Arc::clone(&self.shared);
                Some(Event::Revoking(Revoking::new(shared, id, partitions)))
            }
            Turn::End => None,
        })
    }

    /// Everything that was handed out so far is finished, as a further [`poll`](Self::poll) would
    /// say: for ending cleanly, since [`close`](Self::close) commits only what is finished. What
    /// streams of [`split_by_partition`](Self::split_by_partition) have in hand is theirs to
    /// finish.
    ///
    /// ```no_run
    /// # async fn example(mut consumer: ottla::Consumer) -> ottla::Result<()> {
    /// if let Some(batches) = consumer.poll().await? {
    ///     println!("{} records processed", batches.record_count());
    ///     consumer.finish();
    /// }
    /// consumer.close(std::time::Duration::from_secs(30)).await
    /// # }
    /// ```
    pub fn finish(&mut self) {
        self.shared.lock().positions.finish();
    }

    /// Commits everything that was handed out so far of what is assigned, the last poll included,
    /// and that is finished then: do not call it after an error, unless what was handed out is done
    /// with all the same. Records that could not be read do not count as handed out. Returns when
    /// the group's coordinator has it; if there is nothing that it does not have, at once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownTopic`] when something was handed out of a topic that seems to be deleted: that is
    /// not committed, so that a topic made anew under its name does not begin there. It names one such partition, and the others
    /// are committed. (Once the group has taken the partition back, or the new topic is read, there is nothing
    /// left of the old one to commit.) [`ErrorKind::Group`] when this member was thrown out of its group: others have its partitions
    /// and will process the records again. [`ErrorKind::Timeout`] and the like after
    /// `default.api.timeout.ms` of retries. [`ErrorKind::InvalidArgument`] without a group.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the commit, once begun, goes on in the background; commits never overtake each
    /// other.
    pub async fn commit(&mut self) -> Result<()> {
        self.shared.commit_position().await
    }

    /// The same without waiting: the commit is on its way, and the future tells what came of it.
    /// One commit is under way at a time. Those that are asked for meanwhile, by whatever call, are
    /// made as one when it is over, and have one outcome: of each partition the offset that was
    /// asked for last is committed. So a commit after every poll costs a request per round trip to
    /// the coordinator, however often one polls.
    ///
    /// Each future ends within `default.api.timeout.ms`. One that is dropped does not take its
    /// commit back.
    ///
    /// ```no_run
    /// # async fn example(mut consumer: ottla::Consumer) -> ottla::Result<()> {
    /// while let Some(batches) = consumer.poll().await? {
    ///     println!("{} records", batches.record_count());
    ///     let commit = consumer.commit_async();
    ///     tokio::spawn(async move {
    ///         if let Err(error) = commit.await {
    ///             eprintln!("not committed: {error}");
    ///         }
    ///     });
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The future's: as [`commit`](Self::commit).
    pub fn commit_async(&mut self) -> PendingCommit {
        self.shared.commit_position()
    }

    /// Commits these offsets: of each partition that of the next record to read. They need not be of
    /// partitions that are assigned.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, as [`commit`](Self::commit).
    pub async fn commit_offsets(
        &mut self,
        offsets: impl IntoIterator<Item = (TopicPartition, OffsetAndMetadata)>,
    ) -> Result<()> {
        self.shared.commit_offsets(offsets).await
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
        self.handle().committed(partitions).await
    }

    /// The first offset that each log still has.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownTopic`], [`ErrorKind::UnknownPartition`], [`ErrorKind::Authorization`], or
    /// what kept the leaders from answering within `default.api.timeout.ms`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn beginning_offsets(
        &self,
        partitions: impl IntoIterator<Item = impl Borrow<TopicPartition>>,
    ) -> Result<BTreeMap<TopicPartition, i64>> {
        self.handle().beginning_offsets(partitions).await
    }

    /// The offset after the last record of each log that this consumer's isolation level can see: the
    /// high watermark, or for `read_committed` the last stable offset.
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
        self.handle().end_offsets(partitions).await
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
        self.handle().offsets_for_times(times).await
    }

    /// The offset of the next record to be handed out; `None` for a partition that is not assigned or
    /// whose start is not known yet. After a [`stream`](Self::stream) was dropped, that is behind
    /// the last record that it gave out, until reading goes on where it was left.
    #[must_use]
    pub fn position(&self, tp: &TopicPartition) -> Option<i64> {
        self.handle().position(tp)
    }

    /// The partitions assigned at present, in no particular order.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.shared.lock().positions.assigned().cloned().collect()
    }

    /// Goes on with this offset. What was fetched already is dropped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if the partition is not assigned or the offset is negative. An
    /// offset outside of the log is noticed by the next fetch and treated by `auto.offset.reset`.
    pub fn seek(&mut self, tp: &TopicPartition, offset: i64) -> Result<()> {
        self.handle().seek(tp, offset)
    }

    /// As [`seek`](Self::seek), to an offset that was kept together with its leader epoch: if the log was cut
    /// before that offset meanwhile (an unclean election), that is noticed (KIP-320) and treated as by
    /// `auto.offset.reset`. For positions kept elsewhere, such as beside the results in a database.
    ///
    /// ```no_run
    /// # fn example(consumer: &mut ottla::Consumer, tp: &ottla::TopicPartition) -> ottla::Result<()> {
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
    pub fn seek_to_offset(&mut self, tp: &TopicPartition, to: &OffsetAndMetadata) -> Result<()> {
        self.handle().seek_to_offset(tp, to)
    }

    /// Goes on with the first record that the log still has.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if a partition is not assigned.
    pub fn seek_to_beginning(
        &mut self,
        partitions: impl IntoIterator<Item = impl Borrow<TopicPartition>>,
    ) -> Result<()> {
        self.handle().seek_to_beginning(partitions)
    }

    /// Goes on with what is written from now on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if a partition is not assigned.
    pub fn seek_to_end(
        &mut self,
        partitions: impl IntoIterator<Item = impl Borrow<TopicPartition>>,
    ) -> Result<()> {
        self.handle().seek_to_end(partitions)
    }

    /// Hands out nothing of these partitions until [`resume`](Self::resume). The membership goes on,
    /// provided that `poll` is called.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if a partition is not assigned.
    pub fn pause(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.shared.set_paused(partitions, true)
    }

    /// Ends [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if a partition is not assigned.
    pub fn resume(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.shared.set_paused(partitions, false)
    }

    /// The partitions of a topic with their leaders and replicas, as a broker knows them now: whether they are
    /// assigned to this consumer or not. Java calls it `partitionsFor`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownTopic`], [`ErrorKind::Authorization`], or what kept brokers from answering within
    /// `default.api.timeout.ms`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn partitions_for(&self, topic: &str) -> Result<Vec<PartitionDescription>> {
        self.shared.cluster.partitions_for(topic).await
    }

    /// How many records a poll returns at most at present.
    #[must_use]
    pub fn max_poll_records(&self) -> usize {
        self.shared.lock().max_poll_records
    }

    /// Changes how many records a poll returns at most (`max.poll.records`), from the next poll on: so
    /// a consumer can take a given number of records exactly. With 0 nothing is handed out, of
    /// partitions assigned later neither, while the membership goes on and lag stays known, provided
    /// that `poll` is called.
    ///
    /// ```no_run
    /// # async fn example(mut consumer: ottla::Consumer) -> ottla::Result<()> {
    /// let (mut left, usual) = (1000, consumer.max_poll_records());
    /// while left > 0 {
    ///     consumer.set_max_poll_records(usual.min(left));
    ///     let Some(batches) = consumer.poll().await? else { break };
    ///     left -= batches.record_count();
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_max_poll_records(&mut self, records: usize) {
        self.shared.lock().max_poll_records = records;
    }

    /// The partitions paused at present.
    #[must_use]
    pub fn paused(&self) -> Vec<TopicPartition> {
        self.handle().paused()
    }

    /// How far behind this consumer is, from what it has fetched so far; no request is made.
    #[must_use]
    pub fn lag(&self) -> Lag {
        self.shared.lag()
    }

    /// How far behind this consumer is, with the ends of the logs as their leaders tell them now, the ages of
    /// first unread records that were not fetched yet (as of paused partitions), and how much younger the
    /// newest records are: a partition that is behind costs fetches of one to three batches. An age that
    /// cannot be learnt is [`TimeLag::Unknown`].
    ///
    /// # Errors
    ///
    /// As [`end_offsets`](Self::end_offsets).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn fetch_lag(&self) -> Result<Lag> {
        self.handle().fetch_lag().await
    }

    /// The lag, at once and then every `interval`. Only partitions of which no fetch told the end within
    /// the interval are asked about. Ends when the consumer does; a broker that does not answer leaves its
    /// partitions as they were ([`PartitionLag::measured`]). Whoever looks seldom gets the latest only.
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
        self.handle().watch_lag(interval)
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

    /// What this consumer did so far: fetching, polling, committing, rebalances. Costs a copy of some counters, and a look
    /// at each partition assigned.
    #[must_use]
    pub fn metrics(&self) -> ConsumerMetrics {
        self.shared.metrics()
    }

    /// Who this consumer is in its group at present: for sending its offsets in a transaction.
    #[must_use]
    pub fn group_metadata(&self) -> GroupMetadata {
        GroupMetadata::of(&self.shared)
    }

    /// A handle by which other tasks can look at and steer this consumer.
    #[must_use]
    pub fn handle(&self) -> ConsumerHandle {
        ConsumerHandle::new(Arc::clone(&self.shared))
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("group", &self.shared.config.group_id)
            .field("assignment", &self.assignment())
            .finish_non_exhaustive()
    }
}
