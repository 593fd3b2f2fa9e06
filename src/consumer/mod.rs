//! The consumer: members of groups, and readers of given partitions.
//!
//! The life of a fetched batch: `fetcher.rs` (a task per broker) asks what `positions.rs` plans,
//! through the session of `session.rs`; the answer goes through `positions.rs` again, which drops
//! what is stale, into `fetched/buffer.rs`. A poll takes it from there and decodes it on the
//! caller's task into the [`Batches`] of `fetched/batch.rs`. `control/` is the task that runs the
//! membership (`group/`), looks up and commits offsets (`offsets/`), and ends it all.

mod builder;
#[cfg(test)]
mod cancel_tests;
#[cfg(test)]
#[cfg(feature = "mock")]
mod classic_tests;
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

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

pub use crate::config::consumer::{GroupProtocol, IsolationLevel, OffsetReset};
pub use crate::fetched::batch::{BatchRecords, Batches, PartitionBatch};
pub use crate::group::GroupMembershipOperation;
pub use crate::types::TimeLag;
pub use builder::ConsumerBuilder;
pub use close::CloseOptions;
pub use commit::PendingCommit;
pub use event::{Event, Revoking};
pub use explain::Explanation;
pub use handle::ConsumerHandle;
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
use commands::RebalanceEvent;
use polling::{By, PollOutcome, next_turn, poll};
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
/// let mut consumer = client.consumer("billing").subscribe(["orders"]).build()?;
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
///
/// What other tasks may do as well (seek, pause, look at lag and offsets) are the methods of
/// [`ConsumerHandle`], which a consumer has, too.
pub struct Consumer {
    handle: ConsumerHandle,
    closed: bool,
}

impl Deref for Consumer {
    type Target = ConsumerHandle;

    fn deref(&self) -> &ConsumerHandle {
        &self.handle
    }
}

impl Consumer {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            handle: ConsumerHandle::new(shared),
            closed: false,
        }
    }

    /// Waits for records and returns up to `max.poll.records` of them. `None` when the client was
    /// closed.
    ///
    /// What went wrong with single partitions comes beside the records of the others
    /// ([`Batches::errors`]). There are neither only after [`ConsumerHandle::wakeup`].
    ///
    /// A partition is taken from this member only inside of `poll` (or of
    /// [`next_event`](Self::next_event)), after what was finished is committed, if auto-commit is
    /// on. A member that does not poll for `max.poll.interval.ms` leaves its group and joins again
    /// at its next poll.
    ///
    /// After an error of the application's own, do not poll on, for that would say that the records
    /// are finished: process them again, write them elsewhere, [`seek`](ConsumerHandle::seek) back
    /// to where it failed, or [`close`](Self::close) the consumer, which does not commit them.
    ///
    /// # Errors
    ///
    /// Only what ends the consumer ([`Error::is_fatal`]): every poll after it returns the same.
    /// Trouble that may pass by itself is waited out.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is taken unless it is returned, so
    /// `tokio::time::timeout(d, consumer.poll())` loses nothing.
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
            PollOutcome::Records(batches) => Some(Event::Records(batches)),
            PollOutcome::Woken => Some(Event::Records(Batches::default())),
            PollOutcome::RebalanceEvent(RebalanceEvent::Assigned(partitions)) => {
                Some(Event::Assigned(partitions))
            }
            PollOutcome::RebalanceEvent(RebalanceEvent::Lost(partitions)) => {
                Some(Event::Lost(partitions))
            }
            PollOutcome::RebalanceEvent(RebalanceEvent::Revoking(id, partitions)) => {
                let shared = Arc::clone(&self.shared);
                Some(Event::Revoking(Revoking::new(shared, id, partitions)))
            }
            PollOutcome::End => None,
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
    /// consumer.close_timeout(std::time::Duration::from_secs(30)).await
    /// # }
    /// ```
    pub fn finish(&mut self) {
        self.shared.lock().positions.finish();
    }

    /// Gives back everything that was handed out so far and is not finished: the next poll returns
    /// it again, of what is still assigned. So a transaction is done again after it was aborted, or
    /// records after an error that may pass. What streams of
    /// [`split_by_partition`](Self::split_by_partition) have in hand remains theirs.
    ///
    /// ```no_run
    /// # async fn write(_: &ottla::Batches) -> std::io::Result<()> { Ok(()) }
    /// # async fn example(mut consumer: ottla::Consumer) -> ottla::Result<()> {
    /// while let Some(batches) = consumer.poll().await? {
    ///     if let Err(error) = write(&batches).await {
    ///         eprintln!("not written, to be tried again: {error}");
    ///         consumer.rewind();
    ///         tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn rewind(&mut self) {
        if self.shared.lock().rewind() {
            self.shared.fetchable.notify_waiters();
        }
    }

    /// Commits everything that was handed out so far of what is assigned, the last poll included,
    /// and that is finished then: do not call it after an error, unless what was handed out is done
    /// with all the same. Records that could not be read do not count as handed out. Returns when
    /// the group's coordinator has it; if there is nothing that it does not have, at once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownTopic`] when something was handed out of a topic that seems to be
    /// deleted: that is not committed, so that a topic made anew under its name does not begin
    /// there. It names one such partition, and the others are committed. (Once the group has taken
    /// the partition back, or the new topic is read, there is nothing left of the old one to
    /// commit.) [`ErrorKind::Group`] when this member was thrown out of its group: others have its
    /// partitions and will process the records again. [`ErrorKind::Timeout`] and the like after
    /// `default.api.timeout.ms` of retries. [`ErrorKind::InvalidArgument`] without a group.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the commit, once begun, goes on in the background; commits never overtake each
    /// other.
    pub async fn commit(&mut self) -> Result<()> {
        self.shared.commit_position().await
    }

    /// Commits as [`commit`](Self::commit) does, without waiting: the commit is on its way, and the
    /// future returns its outcome. One commit is under way at a time. The consumer merges all that
    /// are asked for meanwhile, by whatever call, into one that follows and has one outcome: of
    /// each partition it commits the offset that was asked for last. So a commit after every poll
    /// costs one request per round trip to the coordinator, however often the application polls.
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

    /// The partitions of a topic with their leaders and replicas, as a broker knows them now:
    /// whether they are assigned to this consumer or not. Java calls it `partitionsFor`.
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
        self.shared.cluster.partitions_for(topic).await
    }

    /// How many records a poll returns at most at present.
    #[must_use]
    pub fn max_poll_records(&self) -> usize {
        self.shared.lock().max_poll_records
    }

    /// Changes how many records a poll returns at most (`max.poll.records`), from the next poll on:
    /// so a consumer can take a given number of records exactly. With 0 nothing is handed out, of
    /// partitions assigned later neither, while the membership goes on and lag stays known,
    /// provided that `poll` is called.
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

    /// A handle by which other tasks can look at and steer this consumer.
    #[must_use]
    pub fn handle(&self) -> ConsumerHandle {
        self.handle.clone()
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
