//! What the handles and the tasks of one producer share: settings, topics, ready lists, and how it
//! ends.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indexmap::{IndexMap, IndexSet};
use tokio::sync::Notify;

use crate::clock::{FOREVER, now};
use crate::cluster::Cluster;
use crate::config::producer::ProducerConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::SAMPLE;
use crate::producer::batch::{BatchConfig, Parts};
use crate::producer::budget::{Budget, Charge};
use crate::producer::delivery::{Accepted, BatchDone, Delivery};
use crate::producer::flush::Flushing;
use crate::producer::identity::IdentityMachine;
use crate::producer::partitioner::{Choice, Partitioner, TopicView};
use crate::producer::queue::Rules;
use crate::producer::ready::ReadyList;
use crate::producer::report::{Interceptors, ProducerStats};
use crate::producer::slot::{Appended, Appending, Slot, closed};
use crate::producer::sticky::{WEIGHED, weigh};
use crate::producer::topics::{CachedTopic, TopicEntry, TopicState, Topics};
use crate::producer::transaction::{TransactionMachine, Transactions};
use crate::record::{BatchWriter, CodecPool, Record};
use crate::tasks::Tasks;
use crate::types::{BrokerId, Timestamp};

/// See the module.
pub(crate) struct Shared {
    pub(crate) cluster: Cluster,
    pub(crate) tasks: Tasks,
    pub(crate) config: ProducerConfig,
    pub(crate) rules: Rules,
    pub(crate) batch_config: BatchConfig,
    pub(crate) partitioner: Box<dyn Partitioner>,
    pub(crate) interceptors: Option<Interceptors>,
    pub(crate) codecs: CodecPool,
    pub(crate) budget: Budget,
    pub(crate) flushing: Flushing,
    /// Of a transactional producer.
    pub(crate) transactions: Option<Arc<Transactions>>,
    identity: Mutex<IdentityMachine>,
    pub(super) topics: Topics,
    /// One ready list, and one sender task, per broker; `None` for partitions without a leader.
    pub(super) homes: Mutex<IndexMap<Option<BrokerId>, Arc<ReadyList<Slot>>>>,
    /// Topics that calls which do not wait asked for, and until when they are looked for.
    pub(super) wanted: Mutex<IndexSet<Arc<str>>>,
    /// Told when the control task has something to look at.
    pub(crate) control: Notify,
    /// Grows when lingering batches are to go at once.
    pub(crate) urges: AtomicU64,
    /// Requests so far.
    pub(crate) requests: AtomicU64,
    /// Flushes under way.
    pub(crate) flushes: AtomicUsize,
    /// Why no records are accepted: [`CLOSED`], [`NO_TRANSACTION`], or 0.
    refuses: AtomicU8,
    /// Why everything was ended, once it was. Whoever makes a slot after that ends it.
    ended: Mutex<Option<Error>>,
    /// Every handle is gone.
    pub(crate) abandoned: AtomicBool,
}

/// What a producer promises about duplicates.
pub(crate) enum Kind {
    Plain,
    Idempotent,
    Transactional(Arc<Transactions>),
}

/// What the records of one call have in common: read and looked up once.
#[derive(Default)]
pub(crate) struct BulkEnqueue<'a> {
    pub(crate) wall: Option<i64>,
    topic: Option<Found<'a>>,
    pub(crate) accepted: Accepted,
}

/// The topic of the last record.
struct Found<'a> {
    /// Most often not only equal to that of the next record, but the same.
    name: &'a str,
    entry: Arc<TopicEntry>,
    state: Arc<TopicState>,
    /// Records until it is looked up again: it may have got partitions.
    left: u32,
}

const LOOK_UP_EVERY: u32 = 256;

/// Why a record could not be accepted at once.
pub(crate) enum NotAccepted {
    UnknownTopic,
    /// Not in the metadata at hand; the error is for when it is not in newer metadata either.
    UnknownPartition(Error),
    NeedsBytes(usize),
    Error(Error),
}

impl From<Error> for NotAccepted {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Shared {
    pub(crate) fn new(
        cluster: &Cluster,
        config: ProducerConfig,
        kind: Kind,
        partitioner: Box<dyn Partitioner>,
        stats: Arc<ProducerStats>,
    ) -> Arc<Self> {
        let idempotent = !matches!(kind, Kind::Plain);
        let transactions = match kind {
            Kind::Transactional(transactions) => Some(transactions),
            Kind::Plain | Kind::Idempotent => None,
        };
        let rules = Rules {
            idempotent,
            transactional: transactions.is_some(),
            max_in_flight: config.max_in_flight,
            linger: config.linger,
            delivery_timeout: config.delivery_timeout
                * (1 + 2 * u32::from(crate::planted("a-delivery-gets-too-much-time"))),
            retries: config.retries,
        };
        let batch_config = BatchConfig {
            // A batch may not be larger than a request; what a request adds to it is left free.
            batch_size: config
                .batch_size
                .min(config.max_request_size)
                .min(config.buffer_memory),
            max_request_size: config.max_request_size,
            linger: config.linger,
            stats,
        };
        Arc::new(Self {
            tasks: cluster.tasks().child(),
            cluster: cluster.for_role(),
            rules,
            interceptors: batch_config.stats.interceptors(),
            batch_config,
            partitioner,
            codecs: CodecPool::new(8),
            budget: Budget::new(config.buffer_memory),
            flushing: Flushing::default(),
            identity: Mutex::new(match &transactions {
                Some(_) => IdentityMachine::transactional(),
                None => IdentityMachine::new(idempotent),
            }),
            topics: Topics::default(),
            homes: Mutex::default(),
            wanted: Mutex::default(),
            control: Notify::new(),
            urges: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            flushes: AtomicUsize::new(0),
            refuses: AtomicU8::new(match &transactions {
                Some(_) => NO_TRANSACTION,
                None => 0,
            }),
            transactions,
            ended: Mutex::default(),
            abandoned: AtomicBool::new(false),
            config,
        })
    }

    pub(crate) fn identity(&self) -> MutexGuard<'_, IdentityMachine> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Accepting records.

    /// Accepts a record if that needs no waiting. `place` is its topic's, if that is looked up once
    /// for many records; `wall` keeps the wall clock's reading for several.
    pub(crate) fn accept(
        self: &Arc<Self>,
        place: Option<&CachedTopic>,
        record: &Record<'_>,
        wall: &mut Option<i64>,
        charge: &mut Option<Charge>,
    ) -> Result<Delivery, NotAccepted> {
        self.check(record)?;
        let (topics, found);
        let entry = match place {
            Some(place) => self.entry_of(place)?,
            None => {
                topics = self.topics.cached();
                match topics.get(record.topic()) {
                    Some(entry) => entry,
                    None => {
                        found = self.topics.find(record.topic());
                        found.as_ref().ok_or(NotAccepted::UnknownTopic)?
                    }
                }
            }
        };
        let state = entry.state.load();
        let timestamp = self.timestamp(record, wall)?;
        let note = |_: i32, batch: &Arc<BatchDone>, index| batch.delivery(index, timestamp);
        self.accept_in(entry, &state, record, timestamp, charge, note)
    }

    /// Accepts records until one must wait or is refused: gives that one, and why.
    ///
    /// There is no await in here, since in a future each record would be copied through memory;
    /// reading back what was just written in other pieces waits for all stores before it, which are
    /// those of the last record.
    pub(crate) fn accept_all<'a>(
        self: &Arc<Self>,
        place: Option<&CachedTopic>,
        records: &mut impl Iterator<Item = Result<Record<'a>>>,
        many: &mut BulkEnqueue<'a>,
    ) -> Option<(Record<'a>, NotAccepted)> {
        for record in records {
            match record {
                Err(error) => return Some((Record::new(), error.into())),
                Ok(record) => {
                    if let Err(obstacle) = self.accept_next(place, &record, many) {
                        return Some((record, obstacle));
                    }
                }
            }
        }
        None
    }

    #[inline]
    fn accept_next<'a>(
        self: &Arc<Self>,
        place: Option<&CachedTopic>,
        record: &Record<'a>,
        many: &mut BulkEnqueue<'a>,
    ) -> Result<(), NotAccepted> {
        self.check(record)?;
        let BulkEnqueue {
            wall,
            topic,
            accepted,
        } = many;
        let topic = match topic {
            Some(topic)
                if topic.left > 0
                    && (std::ptr::eq(topic.name, record.topic())
                        || topic.name == record.topic()) =>
            {
                topic
            }
            _ => {
                let entry = match place {
                    Some(place) => Arc::clone(self.entry_of(place)?),
                    None => {
                        let entry = self.topics.get(record.topic());
                        entry.ok_or(NotAccepted::UnknownTopic)?
                    }
                };
                topic.insert(Found {
                    name: record.topic(),
                    state: entry.state.load_full(),
                    entry,
                    left: LOOK_UP_EVERY,
                })
            }
        };
        topic.left -= 1;
        let timestamp = self.timestamp(record, wall)?;
        let note = |partition, batch: &Arc<BatchDone>, index| accepted.add(partition, batch, index);
        let (entry, state) = (&topic.entry, &topic.state);
        let taken = self.accept_in(entry, state, record, timestamp, &mut None, note);
        if let Err(NotAccepted::UnknownTopic) = taken {
            // It was forgotten meanwhile, and is looked up anew.
            topic.left = 0;
        }
        taken
    }

    #[inline]
    fn check(&self, record: &Record<'_>) -> Result<()> {
        if self.refuses.load(Ordering::Relaxed) != 0 {
            return Err(self.refusal());
        }
        let size = BATCH_OVERHEAD
            + BatchWriter::upper_bound(record.key(), record.value(), record.headers());
        match size > self.batch_config.max_request_size.min(self.budget.total()) {
            false => Ok(()),
            true => Err(self.too_large(record, size)),
        }
    }

    fn entry_of<'a>(&self, place: &'a CachedTopic) -> Result<&'a Arc<TopicEntry>, NotAccepted> {
        let held = match place.held.get() {
            Some(held) => held,
            None => self.topics.hold(place).ok_or(NotAccepted::UnknownTopic)?,
        };
        Ok(&held.entry)
    }

    fn timestamp(&self, record: &Record<'_>, wall: &mut Option<i64>) -> Result<i64> {
        match record.timestamp().map(Timestamp::as_millis) {
            Some(timestamp) if timestamp < 0 => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("the timestamp {timestamp} is negative"),
            )),
            Some(timestamp) => Ok(timestamp),
            None => Ok(*wall.get_or_insert_with(|| self.cluster.clock().wall_millis())),
        }
    }

    /// What can be in a register is not returned in memory here, nor taken from there: while a
    /// record's stores wait for cold cache lines, those to the stack wait behind them, and the next
    /// record with them.
    #[inline(always)]
    fn accept_in<T>(
        self: &Arc<Self>,
        entry: &TopicEntry,
        state: &TopicState,
        record: &Record<'_>,
        timestamp: i64,
        charge: &mut Option<Charge>,
        note: impl FnOnce(i32, &Arc<BatchDone>, u32) -> T,
    ) -> Result<T, NotAccepted> {
        let partition = match record.partition() {
            Some(partition) => partition,
            None => self.choose(record, entry, state),
        };
        let Some(slot) = state.slot(partition) else {
            return Err(unknown_partition(record, partition, state));
        };
        let note = |batch: &Arc<BatchDone>, index| note(partition, batch, index);
        let parts = Parts {
            timestamp,
            key: record.key(),
            value: record.value(),
            headers: record.headers(),
        };
        // Nearly always there is a batch, and room in it.
        let note = match slot.append_at_once(self.batch_config.batch_size, &parts, note) {
            Ok(taken) => return Ok(taken),
            Err(note) => note,
        };
        let producer = Appending {
            config: &self.batch_config,
            budget: &self.budget,
            codecs: &self.codecs,
            flushing: &self.flushing,
        };
        match slot.append(&producer, parts, charge, note) {
            Appended::Accepted(taken) => Ok(taken),
            Appended::NeedsBytes(bytes) => Err(NotAccepted::NeedsBytes(bytes)),
            Appended::Forgotten => Err(NotAccepted::UnknownTopic),
            Appended::Refused(error) if error.kind() == ErrorKind::Closed => Err(self.end().into()),
            Appended::Refused(error) => Err(error.with_topic_partition(slot.tp.clone()).into()),
        }
    }

    #[cold]
    fn refusal(&self) -> Error {
        let of_transaction = self.transactions.as_ref().filter(|_| {
            // Told by the transaction if both are the case: it says what became of it.
            self.refuses.load(Ordering::Relaxed) & CLOSED == 0
        });
        let why = of_transaction.and_then(|state| state.machine().intake().err());
        why.unwrap_or_else(|| self.end())
    }

    /// Takes over from the transaction whether records are accepted.
    pub(crate) fn note_intake(&self) {
        let Some(transactions) = &self.transactions else {
            return;
        };
        let machine = transactions.machine();
        match machine.intake() {
            Ok(()) => self.refuses.fetch_and(!NO_TRANSACTION, Ordering::AcqRel),
            Err(_) => self.refuses.fetch_or(NO_TRANSACTION, Ordering::AcqRel),
        };
    }

    #[cold]
    fn too_large(&self, record: &Record<'_>, size: usize) -> Error {
        let limits = [
            ("max.request.size", self.batch_config.max_request_size),
            ("buffer.memory", self.budget.total()),
        ];
        let (setting, limit) = match size > limits[0].1 {
            true => limits[0],
            false => limits[1],
        };
        Error::new(
            ErrorKind::RecordTooLarge,
            format!(
                "a record for topic '{}' takes up to {size} bytes, more than the {limit} of {setting}",
                record.topic()
            ),
        )
    }

    /// The partition of a record that names none.
    fn choose(&self, record: &Record<'_>, entry: &TopicEntry, state: &TopicState) -> i32 {
        let view = TopicView {
            topic: &state.topic,
        };
        match self.partitioner.partition(record, &view) {
            Choice::Partition(partition) => partition,
            Choice::Sticky => entry
                .sticky
                .current()
                .unwrap_or_else(|| self.choose_sticky(entry, state)),
        }
    }

    /// One of a few random partitions with a leader, the likelier the less it has to send
    /// (KIP-794), as Java chooses among all of them. Leaders that take no data are left out, unless
    /// that leaves none.
    fn choose_sticky(&self, entry: &TopicEntry, state: &TopicState) -> i32 {
        let clock = self.cluster.clock();
        let count = state.topic.partitions.len();
        let blocked = self.blocked_brokers();
        let leader = |index: usize| state.topic.partitions.get(index)?.leader;
        let led = |index: &usize| leader(*index).is_some();
        let takes = |index: &usize| leader(*index).is_some_and(|leader| !blocked.contains(&leader));
        let among = |suits: &dyn Fn(&usize) -> bool| {
            let some = (0..8).map(|_| clock.below(count)).find(suits);
            some.or_else(|| (0..count).find(suits))
        };
        let draw = || among(&takes).or_else(|| among(&led));
        let load = |index: usize| state.slots.get(index).map_or(0, |slot| slot.backlog());
        let chosen = match draw() {
            Some(first) if self.config.adaptive_partitioning => {
                let mut drawn = [first; WEIGHED];
                for other in &mut drawn[1..] {
                    *other = draw().unwrap_or(first);
                }
                let loads = drawn.map(|index| (index, load(index)));
                weigh(&loads, |bound| clock.below(bound))
            }
            Some(only) => only,
            None => clock.below(count),
        };
        entry.sticky.choose(i32::try_from(chosen).unwrap_or(0))
    }

    /// Brokers that have taken no data for `partitioner.availability.timeout.ms`.
    fn blocked_brokers(&self) -> Vec<BrokerId> {
        let timeout = self.config.availability_timeout;
        if timeout.is_zero() || !self.config.adaptive_partitioning {
            return Vec::new();
        }
        let time = now();
        let homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
        let blocked = homes.values().filter(|home| {
            let since = home.blocked_since();
            since.is_some_and(|since| time.saturating_duration_since(since) > timeout)
        });
        blocked.filter_map(|home| home.broker).collect()
    }

    // Senders.

    pub(crate) fn wake_senders(&self) {
        let homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
        for home in homes.values() {
            home.notify.notify_one();
        }
    }

    /// Has lingering batches sent at once: somebody waits for them, or for their memory.
    pub(crate) fn urge(&self) {
        self.urges.fetch_add(1, Ordering::AcqRel);
        self.wake_senders();
    }

    /// Whether open batches go without waiting for more records.
    pub(crate) fn is_urgent(&self) -> bool {
        self.flushes.load(Ordering::Acquire) > 0 || self.budget.is_short()
    }

    /// Ends the sender that asks, if its broker has left the cluster and no slot is there.
    pub(crate) fn end_home(&self, home: &Arc<ReadyList<Slot>>) -> bool {
        let topics = self.topics.lock();
        if !home.has_left() || topics.slots().iter().any(|slot| slot.lock().is_at(home)) {
            return false;
        }
        let mut homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
        homes.swap_remove(&home.broker);
        true
    }

    /// Sends everything accepted so far and waits for its end.
    pub(crate) async fn flush(&self) {
        let _urgent = Urgent::new(&self.flushes);
        let all = self.flushing.wait();
        let mut all = std::pin::pin!(all);
        // The first poll closes the generation; the senders may be woken only after that.
        let mut told = false;
        std::future::poll_fn(|cx| {
            let ended = all.as_mut().poll(cx);
            if !std::mem::replace(&mut told, true) {
                self.urge();
            }
            ended
        })
        .await;
    }

    /// Publishes now and then how much memory is in use.
    pub(crate) async fn sample(self: Arc<Self>) {
        loop {
            let stats = &self.batch_config.stats;
            stats.note_buffer(self.budget.charged(), self.budget.total());
            tokio::time::sleep(SAMPLE).await;
        }
    }

    // The end.

    /// Every slot there is at this moment.
    pub(crate) fn slots(&self) -> Vec<Arc<Slot>> {
        self.topics.lock().slots()
    }

    pub(super) fn ended(&self) -> MutexGuard<'_, Option<Error>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stop_intake(&self) {
        self.refuses.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// The error that calls return after the end.
    pub(crate) fn end(&self) -> Error {
        self.tasks
            .failure()
            .or_else(|| self.identity().failure().cloned())
            .unwrap_or_else(closed)
    }

    /// Ends everything that is left. Tells the log how many records certainly were not written and
    /// how many may have been.
    pub(crate) fn fail_all(&self, error: &Error) {
        self.stop_intake();
        self.budget.close();
        self.ended().get_or_insert_with(|| error.clone());
        let mut counts = (0, 0);
        for slot in self.slots() {
            let (not_sent, maybe) = slot.close(error);
            counts.0 += not_sent;
            counts.1 += maybe;
        }
        // A list and the slots on it hold each other.
        let homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut listed = Vec::new();
        for home in homes.values() {
            let mut notices = Vec::new();
            home.swap(&mut notices);
            listed.push(notices);
        }
        drop(homes);
        let (not_sent, maybe_written) = counts;
        if not_sent + maybe_written > 0 {
            tracing::warn!(
                not_sent,
                maybe_written,
                %error,
                "a producer ended with records that were not acknowledged"
            );
        }
    }

    /// Stops intake, flushes until the time is over, ends the rest, stops the tasks.
    pub(crate) async fn close(&self, timeout: Duration) {
        self.stop_intake();
        let deadline = now() + timeout.min(FOREVER);
        let _ = tokio::time::timeout_at(deadline, self.flush()).await;
        if let Some(transactions) = &self.transactions {
            let settled = |machine: &mut TransactionMachine| machine.is_settled().then_some(());
            transactions.until(deadline, settled).await;
        }
        self.fail_all(&self.end());
        self.tasks.stop();
    }
}

/// Counts a flush for as long as it lives.
struct Urgent<'a>(&'a AtomicUsize);

impl<'a> Urgent<'a> {
    fn new(flushes: &'a AtomicUsize) -> Self {
        flushes.fetch_add(1, Ordering::AcqRel);
        Self(flushes)
    }
}

impl Drop for Urgent<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cold]
fn unknown_partition(record: &Record<'_>, partition: i32, state: &TopicState) -> NotAccepted {
    let count = state.topic.partitions.len();
    NotAccepted::UnknownPartition(Error::new(
        ErrorKind::UnknownPartition,
        format!(
            "topic '{}' has no partition {partition}: it has {count}, numbered from 0",
            record.topic()
        ),
    ))
}

/// The producer takes no more records.
const CLOSED: u8 = 1;
/// No transaction is open that could take them.
const NO_TRANSACTION: u8 = 2;

/// The header of a batch.
const BATCH_OVERHEAD: usize = 61;
