//! What applications hold: the transactional producer, and a transaction while it is open.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::machine::{TransactionMachine, TransactionOutcome};
use super::state::Transactions;
use crate::clock::{FOREVER, now};
use crate::cluster::Cluster;
use crate::cluster::describe::PartitionDescription;
#[cfg(doc)]
use crate::error::Class;
use crate::error::{Certainty, Error, ErrorKind, Result};
use crate::group::GroupMetadata;
use crate::producer::delivery::{Deliveries, Delivery, RecordMetadata};
use crate::producer::report::ProducerMetrics;
use crate::producer::topic::TopicProducer;
use crate::producer::{CloseReport, Producer};
use crate::record::Record;
use crate::types::{OffsetAndMetadata, TopicPartition};

/// Sends records and commits offsets in transactions (KIP-98): all of a transaction become visible
/// to `read_committed` consumers, or none.
///
/// Made by [`Client::transactional_producer`](crate::Client::transactional_producer). There is one
/// owner of a `transactional.id` at a time: building a producer of the same id ends the transaction
/// that an earlier owner left open, and shuts that owner out.
///
/// A transaction is a value. While it lives no other one can begin, records are sent through it
/// alone, and it ends by [`commit`](Transaction::commit), by [`abort`](Transaction::abort), or, if
/// it is dropped, by an abort in the background.
///
/// ```no_run
/// # async fn example(client: ottla::Client) -> ottla::Result<()> {
/// use ottla::Record;
///
/// let mut producer = client.transactional_producer("orders-1").build().await?;
/// let transaction = producer.begin().await?;
/// transaction.enqueue(Record::to("orders").with_value("2 apples")).await?;
/// transaction.enqueue(Record::to("stock").with_value("-2")).await?;
/// transaction.commit().await?;
/// # Ok(())
/// # }
/// ```
///
/// Which protocol is used depends on the cluster: the second (KIP-890) where `transaction.version`
/// 2 is finalized, as on new clusters of Kafka 4, else the first.
pub struct TransactionalProducer {
    producer: Producer,
    state: Arc<Transactions>,
}

/// An open transaction. Dropped without an end, it is aborted in the background, before the next
/// one begins.
///
/// | method | gives | waits for |
/// |---|---|---|
/// | [`enqueue`](Self::enqueue), [`enqueue_all`](Self::enqueue_all) | deliveries | room in `buffer.memory`, and a new topic's metadata |
/// | [`try_enqueue`](Self::try_enqueue) | a [`Delivery`] | nothing |
/// | [`send`](Self::send) | [`RecordMetadata`] | the acknowledgement |
/// | [`send_offsets`](Self::send_offsets) | | the group's coordinator |
/// | [`try_send_offsets`](Self::try_send_offsets) | | nothing |
/// | [`commit`](Self::commit) | an error that says what became of it | everything |
///
/// No delivery needs to be awaited: a commit waits for all records and offsets, and fails if one of
/// them did. An acknowledged record is in the log, and visible only after the commit.
///
/// Once a record or an offset could not be written, the transaction can only be aborted
/// ([`Class::Abortable`]): it takes no more records.
#[must_use = "a transaction that is dropped is aborted"]
pub struct Transaction<'p> {
    producer: Producer,
    state: Arc<Transactions>,
    number: u64,
    ended: bool,
    of: PhantomData<&'p mut TransactionalProducer>,
}

/// Sends records of one topic in a transaction, without a look-up per record. Made by
/// [`Transaction::topic`].
pub struct TransactionTopic<'t> {
    topic: TopicProducer,
    of: PhantomData<&'t ()>,
}

/// Why [`Transaction::commit`] did not commit.
///
/// It converts to an [`Error`], so that `?` works where functions return that.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CommitError {
    /// None of the transaction will be visible: it is being aborted. The error is the first cause:
    /// which record or partition, and why. Unless it [is fatal](Error::is_fatal) another
    /// transaction can begin.
    Aborted(Error),
    /// It may become visible or not: the coordinator has not told yet. The producer goes on asking
    /// in the background; [`TransactionalProducer::settle`] waits for the answer.
    Unknown(Error),
}

impl CommitError {
    /// What became of the transaction, as far as it is known.
    #[must_use]
    pub fn outcome(&self) -> TransactionOutcome {
        match self {
            Self::Aborted(_) => TransactionOutcome::Aborted,
            Self::Unknown(_) => TransactionOutcome::Unknown,
        }
    }

    /// The cause.
    #[must_use]
    pub fn error(&self) -> &Error {
        match self {
            Self::Aborted(error) | Self::Unknown(error) => error,
        }
    }
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aborted(error) => write!(f, "the transaction was not committed: {error}"),
            Self::Unknown(error) => {
                write!(
                    f,
                    "it is not known whether the transaction was committed: {error}"
                )
            }
        }
    }
}

impl std::error::Error for CommitError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.error())
    }
}

impl From<CommitError> for Error {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Aborted(error) => error
                .context("the transaction was not committed")
                .with_certainty(Certainty::NotSent),
            CommitError::Unknown(error) => error
                .context("it is not known whether the transaction was committed")
                .with_certainty(Certainty::MaybeWritten),
        }
    }
}

impl TransactionalProducer {
    /// Gets an identity of the coordinator, which ends what an earlier owner of the id left.
    pub(crate) async fn start(producer: Producer, state: Arc<Transactions>) -> Result<Self> {
        let this = Self { producer, state };
        let settled = |machine: &mut TransactionMachine| match machine.is_settled() {
            true => Some(machine.refusal()),
            false => None,
        };
        let refused = this.until("getting a producer id", settled).await?;
        refused.map_or(Ok(this), Err)
    }

    /// The `transactional.id`.
    #[must_use]
    pub fn transactional_id(&self) -> &str {
        let id = self.producer.shared().config.transactional_id.as_deref();
        id.unwrap_or_default()
    }

    /// Begins a transaction. Nothing is asked of the cluster; it waits only while the one before is
    /// being ended, for `max.block.ms` at most.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] if the one before is still being ended; what ended the producer
    /// ([`ErrorKind::Fenced`] if it was another owner of the id).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn begin(&mut self) -> Result<Transaction<'_>> {
        let number = self.next().await?;
        Ok(self.transaction(number))
    }

    /// As [`begin`](Self::begin), if that needs no waiting.
    ///
    /// # Errors
    ///
    /// As there, with [`ErrorKind::Timeout`] while the one before is being ended.
    pub fn try_begin(&mut self) -> Result<Transaction<'_>> {
        let begun = self.state.machine().begin();
        let number = begun.unwrap_or_else(|| Err(self.busy()))?;
        self.begun();
        Ok(self.transaction(number))
    }

    /// As [`begin`](Self::begin), for a transaction that is kept apart from its producer. That no
    /// other one is open is then checked when the next one begins.
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::Transaction`] if another one is open.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn begin_owned(&self) -> Result<Transaction<'static>> {
        let number = self.next().await?;
        Ok(self.transaction(number))
    }

    /// What became of the last transaction, when that is known; `None` before the first. Waits for
    /// `max.block.ms` at most.
    ///
    /// [`TransactionOutcome::Unknown`] is for good: the producer was shut out before it heard of
    /// its commit.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] if the coordinator has still not told.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn settle(&mut self) -> Result<Option<TransactionOutcome>> {
        self.until("the end of the transaction", |machine| {
            let outcome = machine.ended().map(|ended| (ended.number, ended.outcome));
            match outcome {
                Some((number, outcome)) if number == machine.number() => Some(Some(outcome)),
                _ if machine.is_settled() => Some(None),
                _ => None,
            }
        })
        .await
    }

    /// As [`Producer::partitions_for`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn partitions_for(&self, topic: &str) -> Result<Vec<PartitionDescription>> {
        self.producer.partitions_for(topic).await
    }

    /// As [`Producer::metrics`].
    #[must_use]
    pub fn metrics(&self) -> ProducerMetrics {
        self.producer.metrics()
    }

    /// Waits until the last transaction has ended, and ends the producer; for 30 s at most. A
    /// transaction that is still open is aborted.
    ///
    /// # Errors
    ///
    /// What ended the producer before, or records that failed and nobody was told of.
    ///
    /// # Cancel safety
    ///
    /// As [`Producer::close`].
    pub async fn close(self) -> Result<CloseReport> {
        self.abort_open();
        self.producer.clone().close().await
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
    pub async fn close_timeout(self, timeout: Duration) -> Result<CloseReport> {
        self.abort_open();
        self.producer.clone().close_timeout(timeout).await
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.producer.shared().cluster
    }

    /// Why the producer cannot go on.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.state.machine().failure()
    }

    fn abort_open(&self) {
        let mut machine = self.state.machine();
        let number = machine.number();
        machine.abort(number);
        drop(machine);
        self.state.work.notify_one();
    }

    fn transaction<'p>(&self, number: u64) -> Transaction<'p> {
        Transaction {
            producer: self.producer.clone(),
            state: Arc::clone(&self.state),
            number,
            ended: false,
            of: PhantomData,
        }
    }

    async fn next(&self) -> Result<u64> {
        let mut retried = false;
        let begun = self
            .until("the end of the transaction before", |machine| {
                if !std::mem::replace(&mut retried, true) && machine.refusal().is_some() {
                    machine.start();
                    self.state.work.notify_one();
                }
                machine.begin()
            })
            .await?;
        let number = begun?;
        self.begun();
        Ok(number)
    }

    fn begun(&self) {
        self.producer.shared().note_intake();
        self.state.work.notify_one();
    }

    async fn until<T>(
        &self,
        what: &str,
        look: impl FnMut(&mut TransactionMachine) -> Option<T>,
    ) -> Result<T> {
        until(&self.producer, &self.state, what, look).await
    }

    fn busy(&self) -> Error {
        let message = format!(
            "the transaction before of '{}' is still being ended",
            self.transactional_id()
        );
        Error::new(ErrorKind::Timeout, message)
    }
}

/// Waits for `max.block.ms`.
async fn until<T>(
    producer: &Producer,
    state: &Transactions,
    what: &str,
    look: impl FnMut(&mut TransactionMachine) -> Option<T>,
) -> Result<T> {
    let shared = producer.shared();
    let max_block = shared.config.max_block;
    tokio::select! {
        biased;
        found = state.until(now() + max_block, look) => found.ok_or_else(|| {
            let id = shared.config.transactional_id.as_deref().unwrap_or_default();
            Error::new(
                ErrorKind::Timeout,
                format!(
                    "{what} of '{id}' took longer than {} ms (max.block.ms)",
                    max_block.as_millis()
                ),
            )
        }),
        () = shared.tasks.stopped() => Err(shared.end()),
    }
}

impl Transaction<'_> {
    /// Sends a record and waits until it is acknowledged, as [`Producer::send`].
    ///
    /// # Errors
    ///
    /// As there. Any but those of the record itself ([`ErrorKind::RecordTooLarge`],
    /// [`ErrorKind::UnknownTopic`] ...) make the transaction one that can only be aborted.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn send(&self, record: Record<'_>) -> Result<RecordMetadata> {
        self.producer.send(record).await
    }

    /// Accepts a record, as [`Producer::enqueue`].
    ///
    /// # Errors
    ///
    /// As there, and why the transaction can only be aborted ([`Class::Abortable`]).
    ///
    /// # Cancel safety
    ///
    /// As there: dropped before it returns, nothing was accepted.
    pub async fn enqueue(&self, record: Record<'_>) -> Result<Delivery> {
        self.producer.enqueue(record).await
    }

    /// Accepts a record if that needs no waiting, as [`Producer::try_enqueue`].
    ///
    /// # Errors
    ///
    /// As there, and why the transaction can only be aborted ([`Class::Abortable`]).
    pub fn try_enqueue(&self, record: Record<'_>) -> Result<Delivery> {
        self.producer.try_enqueue(record)
    }

    /// Accepts many records, as [`Producer::enqueue_all`].
    ///
    /// # Errors
    ///
    /// As there, and why the transaction can only be aborted ([`Class::Abortable`]).
    ///
    /// # Cancel safety
    ///
    /// As there: dropped before it returns, a prefix of the records has been accepted.
    pub async fn enqueue_all<'a, I>(&self, records: I) -> Result<Deliveries>
    where
        I: IntoIterator<Item = Record<'a>>,
        I::IntoIter: Send,
    {
        self.producer.enqueue_all(records).await
    }

    /// This transaction for one topic, as [`Producer::topic`].
    #[must_use]
    pub fn topic(&self, name: impl Into<Arc<str>>) -> TransactionTopic<'_> {
        TransactionTopic {
            topic: self.producer.topic(name),
            of: PhantomData,
        }
    }

    /// Commits offsets of a group with the transaction: each is that of the next record to read.
    /// With the metadata of a member (KIP-447) the coordinator refuses them once the member has
    /// lost its place in the group; [`GroupMetadata::of_group`] stands for the group alone.
    ///
    /// ```no_run
    /// # async fn example(mut producer: ottla::TransactionalProducer, mut consumer: ottla::Consumer) -> ottla::Result<()> {
    /// use ottla::Record;
    ///
    /// while let Some(batches) = consumer.poll().await? {
    ///     let transaction = producer.begin().await?;
    ///     for record in batches.iter().flat_map(|batch| batch.records()) {
    ///         let record = record?;
    ///         let copy = Record::to("copy").with_value(record.value().unwrap_or_default());
    ///         transaction.enqueue(copy).await?;
    ///     }
    ///     transaction.send_offsets(batches.offsets(), &consumer.group_metadata()).await?;
    ///     transaction.commit().await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The transaction can only be aborted then: [`ErrorKind::Group`] if the group has moved on
    /// without the member, [`ErrorKind::Authorization`], or why it had to be aborted before.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, the offsets are part of the transaction all the same: the commit
    /// waits for them and fails if they could not be written.
    pub async fn send_offsets(
        &self,
        offsets: impl IntoIterator<Item = (TopicPartition, OffsetAndMetadata)>,
        group: &GroupMetadata,
    ) -> Result<()> {
        let Some(waiting) = self.add_offsets(offsets, group)? else {
            return Ok(());
        };
        let shared = self.producer.shared();
        tokio::select! {
            biased;
            told = waiting => told.unwrap_or_else(|_| Err(shared.end())),
            () = shared.tasks.stopped() => Err(shared.end()),
        }
    }

    /// As [`send_offsets`](Self::send_offsets), without waiting: the commit waits for them, and
    /// fails if they could not be written.
    ///
    /// # Errors
    ///
    /// Why the transaction can only be aborted ([`Class::Abortable`]).
    pub fn try_send_offsets(
        &self,
        offsets: impl IntoIterator<Item = (TopicPartition, OffsetAndMetadata)>,
        group: &GroupMetadata,
    ) -> Result<()> {
        self.add_offsets(offsets, group).map(drop)
    }

    fn add_offsets(
        &self,
        offsets: impl IntoIterator<Item = (TopicPartition, OffsetAndMetadata)>,
        group: &GroupMetadata,
    ) -> Result<Option<tokio::sync::oneshot::Receiver<Result<()>>>> {
        let offsets: Vec<_> = offsets.into_iter().collect();
        if let Some((tp, offset)) = offsets.iter().find(|(_, offset)| offset.offset < 0) {
            let message = format!("{} is no offset", offset.offset);
            let error = Error::new(ErrorKind::InvalidArgument, message);
            return Err(error.with_topic_partition(tp.clone()));
        }
        if offsets.is_empty() {
            return Ok(None);
        }
        let mut machine = self.state.machine();
        let id = machine.send_offsets(group.clone(), offsets)?;
        let waiting = self.state.wait_for_offsets(id);
        drop(machine);
        self.state.work.notify_one();
        Ok(Some(waiting))
    }

    /// Waits until all records and offsets are acknowledged, and commits; for `max.block.ms` at
    /// most, of which the wait for records is not a part: each ends by `delivery.timeout.ms`.
    ///
    /// ```no_run
    /// # async fn example(transaction: ottla::Transaction<'_>) -> ottla::Result<()> {
    /// use ottla::CommitError;
    ///
    /// match transaction.commit().await {
    ///     Ok(()) => println!("visible"),
    ///     Err(CommitError::Aborted(error)) if error.is_fatal() => return Err(error),
    ///     Err(CommitError::Aborted(error)) => println!("do it again: {error}"),
    ///     Err(CommitError::Unknown(error)) => println!("see TransactionalProducer::settle: {error}"),
    ///     Err(other) => return Err(other.into()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`CommitError`] says what became of the transaction, and why.
    ///
    /// # Cancel safety
    ///
    /// From the first poll on the transaction is being committed, in the background if this is
    /// dropped; [`TransactionalProducer::settle`] tells what became of it, and the next transaction
    /// begins after it.
    pub async fn commit(mut self) -> Result<(), CommitError> {
        self.end(TransactionMachine::commit);
        let number = self.number;
        let shared = Arc::clone(self.producer.shared());
        // Records end by themselves.
        let asked = self.state.until(now() + FOREVER, |machine| {
            let flushing = machine.is_flushing(number);
            (!flushing).then_some(())
        });
        tokio::select! {
            biased;
            _ = asked => {}
            () = shared.tasks.stopped() => {}
        }
        let ended = until(&self.producer, &self.state, "the commit", |machine| {
            if let Some(cause) = machine.cause(number) {
                return Some(Err(CommitError::Aborted(cause.clone())));
            }
            let ended = machine.ended().filter(|ended| ended.number >= number)?;
            let cause = || ended.cause.clone().unwrap_or_else(|| shared.end());
            Some(match ended.outcome {
                TransactionOutcome::Committed => Ok(()),
                TransactionOutcome::Aborted => Err(CommitError::Aborted(cause())),
                TransactionOutcome::Unknown => Err(CommitError::Unknown(cause())),
            })
        });
        ended
            .await
            .unwrap_or_else(|error| Err(CommitError::Unknown(error)))
    }

    /// Gives up what was sent: records that have not ended fail, and none of the transaction will
    /// be visible. Waits for the coordinator, for `max.block.ms` at most.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] if the coordinator has not answered: the abort goes on in the
    /// background, and the next transaction begins after it. What ended the producer.
    ///
    /// # Cancel safety
    ///
    /// From the first poll on the transaction is being aborted, in the background if this is
    /// dropped.
    pub async fn abort(mut self) -> Result<()> {
        self.end(TransactionMachine::abort);
        let number = self.number;
        until(&self.producer, &self.state, "the abort", |machine| {
            let over = machine.ended().is_some_and(|ended| ended.number >= number);
            over.then(|| machine.failure().map_or(Ok(()), Err))
        })
        .await?
    }

    /// Why it can only be aborted, if that is so.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.state.machine().broken(self.number)
    }

    fn end(&mut self, how: impl FnOnce(&mut TransactionMachine, u64)) {
        self.ended = true;
        how(&mut self.state.machine(), self.number);
        self.producer.shared().note_intake();
        self.state.work.notify_one();
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.end(TransactionMachine::abort);
        }
    }
}

impl TransactionTopic<'_> {
    /// As [`Transaction::send`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::InvalidArgument`] for a record of another topic.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn send(&self, record: Record<'_>) -> Result<RecordMetadata> {
        self.topic.send(record).await
    }

    /// As [`Transaction::enqueue`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::InvalidArgument`] for a record of another topic.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn enqueue<'a>(&'a self, record: Record<'a>) -> Result<Delivery> {
        self.topic.enqueue(record).await
    }

    /// As [`Transaction::try_enqueue`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::InvalidArgument`] for a record of another topic.
    pub fn try_enqueue(&self, record: Record<'_>) -> Result<Delivery> {
        self.topic.try_enqueue(record)
    }

    /// As [`Transaction::enqueue_all`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::InvalidArgument`] for a record of another topic.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn enqueue_all<'a, I>(&'a self, records: I) -> Result<Deliveries>
    where
        I: IntoIterator<Item = Record<'a>>,
        I::IntoIter: Send,
    {
        self.topic.enqueue_all(records).await
    }
}

impl fmt::Debug for TransactionalProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionalProducer")
            .field("transactional_id", &self.transactional_id())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TransactionTopic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TransactionTopic")
            .field(&self.topic.name())
            .finish()
    }
}
