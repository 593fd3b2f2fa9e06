//! What the application's handle, the fetch tasks and the control task of one consumer share.
//!
//! Invariant: the lock is held for bookkeeping only, per request, answer or poll; never over an
//! await, never while records are decoded for hand-out, never while user code runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

use super::commands::{Closing, PendingUnsubscribe, RebalanceEvent};
use super::fetchable::{Fetchable, enough};
use super::interceptor::ConsumerInterceptor;
use super::lag::Lag;
use super::metrics::{ConsumerMetrics, ConsumerStats, Fetches};
use super::positions::{Held, Known, Leader, Positions, ResetTo};
use super::splits::Split;
use super::unsent::UnsentCommits;
use super::wanted::Subscription;
use crate::clock::{Instant, now};
use crate::cluster::{Cluster, Snapshot};
use crate::config::consumer::ConsumerConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::fetched::batch::{Batches, PartitionBatch};
use crate::fetched::buffer::{FetchBuffer, Taking};
use crate::fetched::chunk::{Chunk, Portion};
use crate::fetched::{PartEpoch, Position, Reading};
use crate::group::MemberIdentity;
use crate::hooks::Chain;
use crate::log_throttle::LogThrottle;
use crate::tasks::Tasks;
use crate::types::{BrokerId, TopicPartition};

pub(super) struct Shared {
    pub(super) cluster: Cluster,
    pub(super) config: ConsumerConfig,
    pub(super) tasks: Tasks,
    pub(super) reading: Reading,
    pub(super) stats: ConsumerStats,
    pub(super) interceptors: Chain<dyn ConsumerInterceptor>,
    /// For auto-commits held back by records in use.
    pub(super) held_gate: LogThrottle,
    inner: Mutex<Inner>,
    /// There may be something for the application; now and then, whether it is still there.
    pub(super) ready: Notify,
    /// There may be something to fetch.
    pub(super) fetchable: Fetchable,
    /// There may be something for the control task.
    pub(super) control: Notify,
}

pub(super) struct Inner {
    pub(super) positions: Positions,
    pub(super) buffer: FetchBuffer,
    /// Bytes that fetches under way may bring, by broker.
    reserved: BTreeMap<BrokerId, usize>,
    /// Decompressed bytes that the last poll was given.
    given: usize,
    /// Brokers that are not asked because there is no room.
    pub(super) starved: BTreeSet<BrokerId>,
    pub(super) fetchers: BTreeSet<BrokerId>,
    pub(super) fetches: Fetches,
    pub(super) events: VecDeque<RebalanceEvent>,
    pub(super) errors: VecDeque<Error>,
    /// Keeps an error that comes again and again from filling the log.
    errors_gate: LogThrottle,
    /// The consumer cannot go on.
    pub(super) fatal: Option<Error>,
    pub(super) wakeup: bool,
    /// A stream of records waits for records while such that it gave out are in use.
    pub(super) held: bool,
    /// `max.poll.records`, as it is now.
    pub(super) max_poll_records: usize,
    pub(super) unsent: UnsentCommits,
    pub(super) closing: Option<Closing>,
    /// When the application was last seen inside of a poll.
    pub(super) polled_at: Instant,
    /// The revocation under way, and whether the application has let go.
    pub(super) revocation: Option<(u64, bool)>,
    /// Revocations so far, by which they are numbered.
    pub(super) revocations: u64,
    /// The application reads by events, the last time that it did: it lets go of partitions itself.
    pub(super) listens: bool,
    /// What the application wants to read, and whether the control task has yet to take that up.
    pub(super) wanted: Subscription,
    pub(super) rewanted: bool,
    pub(super) unsubscribing: Option<PendingUnsubscribe>,
    pub(super) split: Split,
    /// The group member, for commits.
    pub(super) member: Option<MemberIdentity>,
    /// Who the member was when the application was last given something, in which membership, and
    /// at which epoch since: in that name its transactions commit what it was given. Another
    /// membership must not vouch for what was read in an earlier one.
    pub(super) reader: (u64, Option<MemberIdentity>),
    /// Which membership it is: with each, what was assigned before is lost.
    pub(super) life: u64,
}

impl Shared {
    pub(super) fn new(
        cluster: &Cluster,
        config: ConsumerConfig,
        reading: Reading,
        positions: Positions,
        wanted: Subscription,
        interceptors: Chain<dyn ConsumerInterceptor>,
    ) -> Self {
        let cluster = cluster.for_role();
        let tasks = cluster.tasks().child();
        let stats = ConsumerStats::new(&cluster.config().client_id);
        let max_poll_records = config.max_poll_records;
        Self {
            cluster,
            config,
            tasks,
            reading,
            stats,
            interceptors,
            held_gate: LogThrottle::default(),
            inner: Mutex::new(Inner {
                positions,
                buffer: FetchBuffer::default(),
                reserved: BTreeMap::new(),
                given: 0,
                starved: BTreeSet::new(),
                fetchers: BTreeSet::new(),
                fetches: Fetches::default(),
                events: VecDeque::new(),
                errors: VecDeque::new(),
                errors_gate: LogThrottle::default(),
                fatal: None,
                wakeup: false,
                held: false,
                max_poll_records,
                unsent: UnsentCommits::default(),
                closing: None,
                polled_at: now(),
                revocation: None,
                revocations: 0,
                listens: false,
                wanted,
                rewanted: false,
                unsubscribing: None,
                split: Split::default(),
                member: None,
                reader: (0, None),
                life: 0,
            }),
            ready: Notify::new(),
            fetchable: Fetchable::default(),
            control: Notify::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if self.reading.damage.is_noted() {
            self.stop_at_damage(&mut inner);
        }
        inner
    }

    /// The application found records that cannot be read. Their partitions stop there and fetch
    /// them again after a pause, so that the error is returned again.
    #[cold]
    fn stop_at_damage(&self, inner: &mut Inner) {
        for (tp, epoch, offset) in self.reading.damage.take() {
            if inner.give_back(&tp, epoch, offset) {
                inner.positions.rewind(&tp, Some(now()));
            }
        }
        self.fetchable.notify_waiters();
    }

    pub(super) fn auto_commits(&self) -> bool {
        self.config.auto_commit && self.config.group_id.is_some()
    }

    /// The application asks for more: what it was given before is finished.
    pub(super) fn ask(&self, inner: &mut Inner) {
        if inner.ask(&Held::new()) {
            self.fetchable.notify_waiters();
        }
    }

    /// The application lets go of the partitions of a revocation, which waits for the streams of
    /// single partitions that still have something of them in hand.
    pub(super) fn let_go_of(&self, revocation: u64, partitions: &[TopicPartition]) {
        let mut inner = self.lock();
        let busy = inner.end_streams(partitions);
        if !busy.is_empty() {
            inner.split.revoking = Some((revocation, busy));
            return;
        }
        drop(inner);
        self.release(revocation);
    }

    /// The application polls.
    pub(super) fn polls(&self, mut inner: MutexGuard<'_, Inner>, now: Instant) {
        let absent = now >= inner.polled_at + self.config.max_poll_interval;
        inner.polled_at = now;
        drop(inner);
        if absent {
            self.control.notify_one();
        }
    }

    /// Tells the log and the application of an error.
    pub(super) fn tell(&self, error: Error) {
        self.lock().tell(error);
        self.ready.notify_waiters();
    }

    /// The application gave the partitions of a revocation up.
    pub(super) fn release(&self, revocation: u64) {
        let mut inner = self.lock();
        if let Some((id, released)) = &mut inner.revocation
            && *id == revocation
        {
            *released = true;
        }
        self.let_go(&mut inner, revocation);
        drop(inner);
        self.control.notify_one();
    }

    /// Takes over leaders and topic ids from metadata.
    pub(super) fn follow(&self, snapshot: &Snapshot) {
        let mut inner = self.lock();
        let (recreated, errors) = inner.positions.update(|tp| known(snapshot, tp));
        for tp in &recreated {
            tracing::warn!(partition = %tp, "the topic was deleted and made again; its positions are void");
            inner.buffer.discard(tp);
        }
        for error in errors {
            inner.tell(error);
        }
        drop(inner);
        self.fetchable.notify_waiters();
        self.ready.notify_waiters();
    }

    /// What can be handed out now: up to `max.poll.records`, decoded outside of the lock.
    pub(super) fn take(&self) -> Option<Batches> {
        let mut parts: Vec<PartitionBatch> = Vec::new();
        let mut portion = self.portion(|inner| inner.max_poll_records);
        // Brokers that may be asked for more.
        let mut wanted = BTreeSet::new();
        while portion.is_open() {
            let mut inner = self.lock();
            let Some((mut chunk, position)) = inner.next_chunk() else {
                break;
            };
            let before = chunk.unread() + inner.buffer.unread(&chunk.tp);
            drop(inner);
            let taken = chunk.take(&mut portion, position, &self.reading);
            let mut inner = self.lock();
            let tp = chunk.tp.clone();
            inner.positions.touch(&tp);
            match taken {
                Ok(taken) => {
                    if !inner.positions.hand_out(&tp, chunk.epoch, taken.next) {
                        wanted.extend(inner.positions.read_from(&tp));
                        continue;
                    }
                    if let Some(batch) = taken.batch {
                        parts.push(batch);
                    }
                    if !chunk.is_done() {
                        inner.buffer.put_back(chunk);
                    }
                }
                Err(error) => {
                    inner.buffer.discard(&tp);
                    inner.positions.rewind(&tp, Some(now()));
                    inner.tell(error);
                    break;
                }
            }
            if self.is_wanted_again(before, inner.buffer.unread(&tp)) {
                wanted.extend(inner.positions.read_from(&tp));
            }
        }
        let mut inner = self.lock();
        inner.given = portion.given;
        wanted.append(&mut inner.starved);
        let errors = Vec::from(std::mem::take(&mut inner.errors));
        drop(inner);
        self.fetchable.wake(wanted);
        if parts.is_empty() && errors.is_empty() {
            return None;
        }
        self.show(&parts);
        Some(Batches { parts, errors })
    }

    /// These batches are about to be handed out.
    pub(super) fn show(&self, batches: &[PartitionBatch]) {
        self.stats.handed_out(batches);
        for batch in batches {
            self.interceptors.on_consume(batch);
        }
    }

    /// What may be taken now. What the last poll was given decompressed is done with.
    pub(super) fn portion(&self, records: impl FnOnce(&Inner) -> usize) -> Portion {
        let least = usize::try_from(self.config.max_partition_fetch_bytes).unwrap_or(0);
        let budget = usize::try_from(self.config.fetch_max_bytes).unwrap_or(0);
        let mut inner = self.lock();
        inner.read_as_member();
        let room_again = match std::mem::take(&mut inner.given) {
            0 => BTreeSet::new(),
            _ => std::mem::take(&mut inner.starved),
        };
        if inner.buffer.inflated() > budget {
            inner.buffer.close_opened();
        }
        // The last batch may go beyond it.
        let room = budget.saturating_sub(inner.used() + least).max(least);
        let portion = Portion::new(records(&inner), room);
        drop(inner);
        self.fetchable.wake(room_again);
        portion
    }

    /// Whether a partition may be asked for more now and was not before.
    pub(super) fn is_wanted_again(&self, before: usize, unread: usize) -> bool {
        let limit = usize::try_from(self.config.max_partition_fetch_bytes).unwrap_or(0);
        let crossed = |enough| before >= enough && unread < enough;
        crossed(enough(limit, false)) || crossed(enough(limit, true))
    }

    /// The lag, from what is here. Buffered batches are decoded outside of the lock.
    pub(super) fn lag(&self) -> Lag {
        let inner = self.lock();
        let headless = inner.positions.headless().into_iter();
        let probes: Vec<_> = headless
            .map(|(_, at)| (inner.buffer.chunks_of(&at.tp), at))
            .collect();
        drop(inner);
        // What is decompressed for one is gone before the next: it is beyond the budget.
        let heads: Vec<_> = probes
            .into_iter()
            .filter_map(|(chunks, at)| {
                let from = Position::new(at.offset);
                let mut chunks = chunks.into_iter().filter(|chunk| chunk.epoch == at.epoch);
                let found = chunks.find_map(|mut chunk| chunk.timestamp_at(from, &self.reading))?;
                Some((at, found))
            })
            .collect();
        let wall = self.cluster.clock().wall_millis();
        let mut inner = self.lock();
        for (at, timestamp) in heads {
            let positions = &mut inner.positions;
            positions.note_head(&at.tp, at.epoch, at.offset, timestamp);
        }
        let partitions = inner.positions.lag(now(), wall);
        Lag { partitions }
    }

    /// A fetch failed as a whole.
    pub(super) fn unreachable(&self, broker: BrokerId, error: Error) {
        let mut inner = self.lock();
        inner.positions.unreachable(broker);
        inner.fetches.failed(broker, error);
        drop(inner);
        self.stats.not_fetched();
    }

    pub(super) fn metrics(&self) -> ConsumerMetrics {
        let stats = self.stats.snapshot();
        let inner = self.lock();
        let bytes = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        let lags = inner.positions.lag(now(), 0).into_iter();
        ConsumerMetrics {
            brokers: inner.fetches.counts(),
            group_protocol: inner.member.as_ref().map(|member| member.protocol),
            assigned: inner.positions.assigned().count(),
            max_lag: lags.filter_map(|lag| lag.records).max(),
            buffered_bytes: bytes(inner.buffer.bytes()),
            requested_bytes: bytes(inner.reserved.values().sum()),
            ..stats
        }
    }

    pub(super) fn set_paused(&self, partitions: &[TopicPartition], paused: bool) -> Result<()> {
        let mut inner = self.lock();
        for tp in partitions {
            if !inner.positions.set_paused(tp, paused) {
                return Err(not_assigned(tp));
            }
            if !paused {
                inner.buffer.ready_again(tp);
                inner.split.wake(tp);
            }
        }
        drop(inner);
        self.fetchable.notify_waiters();
        self.ready.notify_waiters();
        Ok(())
    }

    pub(super) fn seek(&self, tp: &TopicPartition, to: Position) -> Result<()> {
        if to.offset < 0 {
            let message = format!("cannot seek to offset {}: offsets start at 0", to.offset);
            return Err(
                Error::new(ErrorKind::InvalidArgument, message).with_topic_partition(tp.clone())
            );
        }
        self.moved(tp, |positions| positions.seek(tp, to))
    }

    pub(super) fn seek_to(&self, tp: &TopicPartition, to: ResetTo) -> Result<()> {
        self.moved(tp, |positions| positions.seek_to(tp, to))
    }

    fn moved(&self, tp: &TopicPartition, seek: impl FnOnce(&mut Positions) -> bool) -> Result<()> {
        let mut inner = self.lock();
        if inner.untold_losses().any(|lost| lost.contains(tp)) {
            // The application means what it had; others may have read on since.
            let message = "the partition was lost, even if it is assigned again: poll before";
            let error = Error::new(ErrorKind::Group, message);
            return Err(error.with_topic_partition(tp.clone()));
        }
        if !seek(&mut inner.positions) {
            return Err(not_assigned(tp));
        }
        inner.buffer.discard(tp);
        // What was wrong where it was is no matter any more.
        inner
            .errors
            .retain(|error| error.topic_partition() != Some(tp));
        drop(inner);
        self.fetchable.notify_waiters();
        self.control.notify_one();
        Ok(())
    }
}

impl Inner {
    /// Whether partitions were lost of which the application does not know yet: it may still be
    /// busy with what it was given of them.
    pub(super) fn has_untold_loss(&self) -> bool {
        self.untold_losses().next().is_some()
    }

    fn untold_losses(&self) -> impl Iterator<Item = &[TopicPartition]> {
        self.events.iter().filter_map(|event| match event {
            RebalanceEvent::Lost(lost) => Some(&lost[..]),
            _ => None,
        })
    }

    /// Who the member is now, after it had news.
    pub(super) fn set_member(&mut self, member: Option<MemberIdentity>, life: u64) {
        self.life = life;
        if self.reader.0 == life && member.is_some() {
            self.reader.1.clone_from(&member);
        }
        self.member = member;
    }

    /// The application is about to be given something.
    pub(super) fn read_as_member(&mut self) {
        if self.reader.0 != self.life {
            self.reader.0 = self.life;
            if self.member.is_some() {
                self.reader.1.clone_from(&self.member);
            }
        }
    }

    pub(super) fn tell(&mut self, error: Error) {
        match self.errors_gate.pass(now()) {
            Some(untold) => tracing::warn!(%error, untold, "not everything can be read"),
            None => tracing::debug!(%error, "not everything can be read"),
        }
        self.keep(error);
    }

    /// Keeps an error until the application asks for it, unless it is there already: an application
    /// that does not ask collects one of each kind and partition.
    pub(super) fn keep(&mut self, error: Error) {
        let known = self.errors.iter().any(|known| {
            known.kind() == error.kind() && known.topic_partition() == error.topic_partition()
        });
        if known {
            return;
        }
        if let Some(tp) = error.topic_partition() {
            self.split.wake(tp);
        }
        self.errors.push_back(error);
    }

    /// Takes the oldest error of a partition, for its stream.
    pub(super) fn error_of(&mut self, tp: &TopicPartition) -> Option<Error> {
        let errors = &mut self.errors;
        let index = errors
            .iter()
            .position(|error| error.topic_partition() == Some(tp))?;
        errors.remove(index)
    }

    fn next_chunk(&mut self) -> Option<(Chunk, Position)> {
        let positions = &self.positions;
        let chunk = self.buffer.take(|chunk| taking(positions, chunk, None))?;
        let position = positions.position(&chunk.tp)?;
        Some((chunk, position))
    }

    /// The next chunk of one partition and the position in it, for the partition's stream.
    pub(super) fn next_chunk_of(
        &mut self,
        tp: &TopicPartition,
        reader: u64,
    ) -> Option<(Chunk, Position)> {
        let positions = &self.positions;
        let taking = |chunk: &Chunk| taking(positions, chunk, Some(reader));
        let chunk = self.buffer.take_of(tp, taking)?;
        let position = positions.position(tp)?;
        Some((chunk, position))
    }

    /// Takes partitions out: nothing of them is handed out or committed from now on.
    pub(super) fn remove(&mut self, partitions: &[TopicPartition]) {
        for tp in partitions {
            self.positions.remove(tp);
            self.buffer.discard(tp);
        }
    }

    /// Records from `offset` on were handed out and come back unread; false if that is stale.
    pub(super) fn give_back(&mut self, tp: &TopicPartition, epoch: PartEpoch, offset: i64) -> bool {
        let back = self.positions.hand_back(tp, epoch, offset);
        if back {
            self.buffer.discard(tp);
        }
        back
    }

    /// The application asks for more: see [`Positions::ask`]. Whether something is to be fetched
    /// again.
    pub(super) fn ask(&mut self, held: &Held) -> bool {
        let again = self.positions.ask(held);
        for tp in &again {
            self.buffer.discard(tp);
        }
        !again.is_empty()
    }

    /// What was handed out and is not finished is read again; whether there is any.
    pub(super) fn rewind(&mut self) -> bool {
        let again = self.positions.give_back();
        for tp in &again {
            self.buffer.discard(tp);
        }
        !again.is_empty()
    }

    /// Ends the streams of these partitions. Returns the streams that have something in hand.
    pub(super) fn end_streams(&mut self, partitions: &[TopicPartition]) -> BTreeSet<u64> {
        let mut alive = self.split.end(partitions);
        alive.retain(|(serial, tp)| self.positions.has_in_hand(tp, *serial));
        alive.into_iter().map(|(serial, _)| serial).collect()
    }

    /// What counts against the budget at present.
    fn used(&self) -> usize {
        let reserved: usize = self.reserved.values().sum();
        self.buffer.bytes() + reserved + self.given
    }

    /// Room for what a broker may send: as much as is wished, or as is left if that is worth a
    /// request.
    pub(super) fn reserve(
        &mut self,
        broker: BrokerId,
        wish: usize,
        budget: usize,
    ) -> Option<usize> {
        let share = (budget / self.positions.brokers().count().max(1)).max(1);
        let wish = wish.clamp(1, share);
        let least = wish.min(share.div_ceil(4));
        let bytes = loop {
            let mine = self.reserved.get(&broker).copied().unwrap_or(0) + self.buffer.held(broker);
            let free = budget.saturating_sub(self.used());
            let free = free.min(share.saturating_sub(mine));
            if free >= least {
                break free.min(wish);
            }
            if self.evict(broker) {
                continue;
            }
            if mine == 0 {
                break least;
            }
            self.starved.insert(broker);
            return None;
        };
        *self.reserved.entry(broker).or_default() += bytes;
        Some(bytes)
    }

    /// Whether the broker left the cluster and nothing is to be read from it, so that its fetch
    /// task ends; there will be another one if it comes back.
    pub(super) fn end_fetcher(&mut self, shared: &Shared, broker: BrokerId) -> bool {
        if self.positions.is_read(broker) || shared.cluster.knows(broker) {
            return false;
        }
        self.fetchers.remove(&broker);
        self.starved.remove(&broker);
        self.positions.forget_broker(broker);
        self.fetches.forget(broker);
        self.buffer.forget(broker);
        shared.fetchable.remove(broker);
        true
    }

    pub(super) fn unreserve(&mut self, broker: BrokerId, bytes: usize) {
        if let Some(reserved) = self.reserved.get_mut(&broker) {
            *reserved -= bytes;
        }
    }

    /// Whether a stream of one partition waits for this broker.
    pub(super) fn is_awaited(&self, broker: BrokerId) -> bool {
        let mut waiting = self.split.waiting();
        waiting.any(|tp| self.positions.read_from(tp) == Some(broker))
    }

    /// Drops what is buffered and nobody takes: of all partitions that are paused, or else of one
    /// whose stream stands still, if another stream waits for this broker. Whether there was any.
    fn evict(&mut self, broker: BrokerId) -> bool {
        let (positions, split) = (&self.positions, &self.split);
        let mut idle = Vec::new();
        if positions.paused_count() > 0 {
            let buffered = self.buffer.partitions();
            idle.extend(buffered.filter(|tp| positions.is_paused(tp)).cloned());
        }
        if idle.is_empty() && self.is_awaited(broker) {
            let time = now();
            let mut buffered = self.buffer.partitions_from(broker);
            idle.extend(buffered.find(|tp| split.is_stalled(tp, time)).cloned());
        }
        for tp in &idle {
            self.buffer.discard(tp);
            self.positions.evict(tp);
        }
        !idle.is_empty()
    }
}

fn taking(positions: &Positions, chunk: &Chunk, reader: Option<u64>) -> Taking {
    let tp = &chunk.tp;
    if positions.may_hand_out(tp, chunk.epoch) && positions.reader(tp) == reader {
        Taking::Yes
    } else if positions.position_under(tp, chunk.epoch).is_some() {
        Taking::Later
    } else {
        Taking::Never
    }
}

fn known(snapshot: &Snapshot, tp: &TopicPartition) -> Option<Known> {
    let topic = snapshot.topic(&tp.topic)?;
    let leader = snapshot.leader(tp);
    Some(Known {
        topic_id: topic.id,
        leader: leader.map(|(broker, epoch)| Leader { broker, epoch }),
    })
}

pub(super) fn not_assigned(tp: &TopicPartition) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        "the partition is not assigned to this consumer",
    )
    .with_topic_partition(tp.clone())
}

/// Partitions of an assignment that named them without topic ids.
pub(super) fn by_name(
    partitions: &[TopicPartition],
) -> impl Iterator<Item = (TopicPartition, Uuid)> + '_ {
    partitions.iter().map(|tp| (tp.clone(), Uuid::nil()))
}
