//! Reading, processing and writing in one transaction, by a consumer and a producer together.

#[cfg(test)]
#[cfg(feature = "mock")]
mod tests;

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use crate::clock::{FOREVER, Instant, now};
use crate::config::consumer::IsolationLevel;
use crate::consumer::{Consumer, ConsumerBuilder, ConsumerHandle};
use crate::error::{Error, ErrorKind, Result};
use crate::fetched::batch::Batches;
use crate::group::GroupMetadata;
use crate::net::backoff::Backoff;
use crate::producer::{CommitError, Transaction, TransactionOutcome, TransactionalProducer};
use crate::types::OffsetAndMetadata;

/// Processes what a group reads exactly once: the records of each poll, what is written because of
/// them, and the offsets up to which was read are one transaction (KIP-98, KIP-447). Kafka calls
/// it *consume, transform, produce*.
///
/// ```no_run
/// # async fn example(client: ottla::Client) -> ottla::Result<()> {
/// use ottla::{Record, TransactionalBatches, TransactionalConsumer};
///
/// async fn bill(orders: &TransactionalBatches<'_>) -> ottla::Result<()> {
///     for record in orders.batches().iter().flatten() {
///         let order = record?;
///         let bill = Record::to("bills").with_value(order.value().unwrap_or_default());
///         orders.enqueue(bill).await?;
///     }
///     Ok(())
/// }
///
/// let producer = client.transactional_producer("billing-1").build().await?;
/// let consumer = client.consumer("billing").subscribe(["orders"]);
/// let mut consumer = TransactionalConsumer::new(consumer, producer)?;
/// while let Some(orders) = consumer.poll().await? {
///     let outcome = bill(&orders).await;
///     orders.end(outcome).await?; // commits, or aborts: then the records come again
/// }
/// # Ok(())
/// # }
/// ```
///
/// `read_committed` consumers see what was written once for each record read, whatever happens:
///
/// - **Aborted**, because something could not be written, because the application failed, or
///   because [`TransactionalBatches`] was dropped: the same records come again, with the next
///   [`poll`](Self::poll), after a pause that grows while this goes on (`retry.backoff.ms` to
///   `retry.backoff.max.ms`).
/// - **Not known** whether it was committed: the next poll waits until the coordinator has told.
/// - **Rebalanced**: partitions are taken from this member only inside of `poll`, when the
///   transaction has ended. A member that was thrown out of the group meanwhile, because it did not
///   poll in time (`max.poll.interval.ms`) or was cut off, cannot commit what it had read then: the
///   coordinator refuses its offsets.
/// - **Restarted**: a new process with the same `transactional.id` ends what the one before left
///   open, and shuts that out; then it reads from what was committed. Each process that runs at the
///   same time needs an id of its own.
///
/// What else the application does (calls to other services, files) is done again when the records
/// come again. A poll returns `max.poll.records` at most, which is the size of a transaction; it
/// has `transaction.timeout.ms` to be processed.
///
/// What other tasks may do as well (look at lag, pause) are the methods of [`ConsumerHandle`],
/// which this has, too. For telling what comes and goes, or several polls per transaction, use a
/// [`Consumer`] and a [`TransactionalProducer`] by themselves, with
/// [`Transaction::send_offsets`] and [`Consumer::rewind`].
pub struct TransactionalConsumer {
    consumer: Consumer,
    producer: TransactionalProducer,
    /// What was polled and has no transaction yet.
    polled: Option<Batches>,
    /// The transaction of what was handed out last has not been found to have ended.
    open: bool,
    backoff: Backoff,
    /// Not before this are records tried again.
    again_at: Instant,
}

/// What one poll of a [`TransactionalConsumer`] returned, and the transaction to process it in.
/// Dropped without an end, the transaction is aborted, and the records come again.
///
/// Records are sent by the methods of [`Transaction`], which this has, too.
#[must_use = "a transaction that is dropped is aborted"]
pub struct TransactionalBatches<'c> {
    consumer: &'c mut TransactionalConsumer,
    transaction: Transaction<'static>,
    batches: Batches,
    group: GroupMetadata,
}

impl TransactionalConsumer {
    /// Builds the consumer beside a producer that is built: in this order, so that what an earlier
    /// process left open has ended before the consumer asks where to begin. It reads what is
    /// committed (`isolation.level=read_committed`) and commits by transactions alone
    /// (`enable.auto.commit=false`), whatever the builder says.
    ///
    /// # Errors
    ///
    /// As [`ConsumerBuilder::build`]; [`ErrorKind::Config`] without a group (`group.id`).
    pub fn new(consumer: ConsumerBuilder, producer: TransactionalProducer) -> Result<Self> {
        let consumer = consumer
            .isolation_level(IsolationLevel::ReadCommitted)
            .auto_commit(false)
            .build()?;
        if consumer.group_metadata().group_id().is_empty() {
            let message = "group.id: offsets are committed to a group, and there is none: \
                           use Client::consumer(\"group\")";
            return Err(Error::new(ErrorKind::Config, message));
        }
        let config = producer.cluster().config();
        let backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
        Ok(Self {
            consumer,
            producer,
            polled: None,
            open: false,
            backoff,
            again_at: now(),
        })
    }

    /// Waits for records, and begins a transaction for them; `None` when the client was closed.
    /// What went wrong with single partitions comes beside the records of others
    /// ([`Batches::errors`]).
    ///
    /// # Errors
    ///
    /// What ends the consumer or the producer ([`Error::is_fatal`]): [`ErrorKind::Fenced`] if
    /// another process has the `transactional.id` now. [`ErrorKind::Timeout`] if the coordinator
    /// has not ended the transaction before within `max.block.ms`; poll again to go on waiting.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was polled is returned by the next call.
    pub async fn poll(&mut self) -> Result<Option<TransactionalBatches<'_>>> {
        self.settle().await?;
        if self.polled.is_none() {
            self.polled = self.consumer.poll().await?;
        }
        if self.polled.is_none() {
            return Ok(None);
        }
        let group = self.consumer.group_metadata();
        let transaction = self.producer.begin_owned().await?;
        let batches = self.polled.take().unwrap_or_default();
        self.open = true;
        Ok(Some(TransactionalBatches {
            consumer: self,
            transaction,
            batches,
            group,
        }))
    }

    /// Learns what became of the last transaction, and goes on behind it or does it again.
    async fn settle(&mut self) -> Result<()> {
        if self.open {
            match self.producer.settle().await? {
                Some(TransactionOutcome::Committed) => self.done(),
                _ => {
                    self.consumer.rewind();
                    self.open = false;
                    self.again_at = now() + self.backoff.fail(self.producer.cluster().clock());
                }
            }
        }
        let wait = self.again_at.saturating_duration_since(now());
        if !wait.is_zero() {
            self.producer.cluster().pause(wait).await;
        }
        Ok(())
    }

    fn done(&mut self) {
        self.consumer.finish();
        self.open = false;
        self.backoff.succeed();
    }

    /// A handle by which other tasks can look at and steer the consumer.
    #[must_use]
    pub fn handle(&self) -> ConsumerHandle {
        self.consumer.handle()
    }

    /// Waits until the last transaction has ended, leaves the group and ends; for 30 s at most.
    ///
    /// # Errors
    ///
    /// As [`TransactionalProducer::close`] and [`Consumer::close`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it goes on in the background.
    pub async fn close(self) -> Result<()> {
        self.close_timeout(Duration::from_secs(30)).await
    }

    /// As [`close`](Self::close), with another limit.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn close_timeout(self, timeout: Duration) -> Result<()> {
        let deadline = now() + timeout.min(FOREVER);
        let Self {
            consumer, producer, ..
        } = self;
        // Its successor must not read what this one is about to commit.
        let ended = producer.close_timeout(timeout).await;
        consumer
            .close_timeout(deadline.saturating_duration_since(now()))
            .await?;
        ended.map(drop)
    }
}

impl Deref for TransactionalConsumer {
    type Target = ConsumerHandle;

    fn deref(&self) -> &ConsumerHandle {
        &self.consumer
    }
}

impl TransactionalBatches<'_> {
    /// The records, and what went wrong with other partitions.
    #[must_use]
    pub fn batches(&self) -> &Batches {
        &self.batches
    }

    /// Commits what was sent together with the offsets after these records. Records that could not
    /// be read hold back the offset of their partition.
    ///
    /// [`TransactionOutcome::Aborted`] if something could not be written or this member has lost
    /// its place in the group: a warning in the log says why, and what is still this member's comes
    /// again.
    ///
    /// # Errors
    ///
    /// What ends the producer ([`Error::is_fatal`]). Else it is not known yet what became of the
    /// transaction: the next [`poll`](TransactionalConsumer::poll) waits for that.
    ///
    /// # Cancel safety
    ///
    /// As [`Transaction::commit`]: the next [`poll`](TransactionalConsumer::poll) waits for what
    /// becomes of it.
    pub async fn commit(self) -> Result<TransactionOutcome> {
        let Self {
            consumer,
            transaction,
            batches,
            group,
        } = self;
        let mut offsets = batches.offsets();
        for (tp, offset) in &mut offsets {
            // Where a record could not be read, the position went back to it.
            let position = consumer.consumer.position(tp);
            if let Some(position) = position.filter(|position| *position < offset.offset()) {
                *offset = OffsetAndMetadata::new(position);
            }
        }
        // A transaction that failed before says so when it is committed.
        let _ = transaction.try_send_offsets(offsets, &group);
        let error = match transaction.commit().await {
            Ok(()) => {
                consumer.done();
                return Ok(TransactionOutcome::Committed);
            }
            Err(CommitError::Aborted(error)) => error,
            Err(CommitError::Unknown(error)) => {
                if consumer.producer.settle().await? == Some(TransactionOutcome::Committed) {
                    consumer.done();
                    return Ok(TransactionOutcome::Committed);
                }
                error
            }
        };
        consumer.aborted(&error)
    }

    /// Gives up what was sent; the records come again.
    ///
    /// # Errors
    ///
    /// As [`Transaction::abort`].
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn abort(self) -> Result<()> {
        self.transaction.abort().await
    }

    /// Ends the transaction by what came of processing it: [commits](Self::commit) if that is
    /// `Ok`, and else aborts. An error that the transaction itself was the cause of (a record that
    /// could not be written) is in the log, and the records come again, as after
    /// [`TransactionOutcome::Aborted`]; any other is returned, and they come again if the
    /// application polls on.
    ///
    /// # Errors
    ///
    /// That of the application; those of [`commit`](Self::commit).
    ///
    /// # Cancel safety
    ///
    /// As [`commit`](Self::commit).
    pub async fn end<E: From<Error>>(
        self,
        outcome: Result<(), E>,
    ) -> Result<TransactionOutcome, E> {
        let Err(error) = outcome else {
            return Ok(self.commit().await?);
        };
        let Self {
            consumer,
            transaction,
            ..
        } = self;
        let cause = transaction.failure();
        // The next poll waits for it if it takes long.
        let _ = transaction.abort().await;
        match cause {
            Some(cause) => Ok(consumer.aborted(&cause)?),
            None => Err(error),
        }
    }
}

impl TransactionalConsumer {
    fn aborted(&self, error: &Error) -> Result<TransactionOutcome> {
        if let Some(fatal) = self.producer.failure() {
            return Err(fatal);
        }
        let id = self.producer.transactional_id();
        tracing::warn!(target: "ottla::producer", id, %error, "a transaction was aborted");
        Ok(TransactionOutcome::Aborted)
    }
}

impl<'c> Deref for TransactionalBatches<'c> {
    type Target = Transaction<'static>;

    fn deref(&self) -> &Transaction<'static> {
        &self.transaction
    }
}

impl fmt::Debug for TransactionalConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionalConsumer")
            .field("consumer", &self.consumer)
            .field("producer", &self.producer)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TransactionalBatches<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionalBatches")
            .field("transaction", &self.transaction)
            .field("records", &self.batches.record_count())
            .finish_non_exhaustive()
    }
}
