//! One partition as the producer holds it: a [`PartitionQueue`] behind a mutex, and the list of those with work.
//!
//! Invariants:
//!
//! - One slot lock at a time, never across an await, never calling user code. A ready list's lock may be taken inside a
//!   slot's, never the other way round.
//! - Every change that may give a slot something to do ends in [`SlotState::schedule`], which puts it on its leader's ready
//!   list unless it is there. Nothing is edge-triggered: whoever takes a slot from a list looks at all of it.
//! - A batch that is full is sealed (compressed) by the caller who found it full, outside the lock; its place in line is
//!   kept meanwhile.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::clock::{Instant, now};
use crate::error::{Certainty, Error, ErrorKind};
use crate::producer::budget::{Budget, Charge, LEAST_ROUNDED, rounded};
use crate::producer::delivery::{BatchDone, Outcome};
use crate::producer::flush::{Flushing, Outstanding};
use crate::producer::queue::{BatchId, End, Finished, PartitionQueue, Payload, Why};
use crate::producer::report::{BatchLog, Contents, Ledger};
use crate::record::{BatchWriter, CodecPool, Compression, Header, RecordError, SealedBatch};
use crate::types::{BrokerId, TopicPartition};

/// What all slots of a producer use.
#[derive(Debug)]
pub(crate) struct SlotConfig {
    pub(crate) batch_size: usize,
    pub(crate) max_request_size: usize,
    pub(crate) ledger: Arc<Ledger>,
}

/// A batch that takes records.
#[derive(Debug)]
pub(crate) struct OpenBatch {
    writer: BatchWriter,
    done: Arc<BatchDone>,
    charge: Charge,
    log: BatchLog,
    outstanding: Outstanding,
}

/// A batch that takes no more.
#[derive(Debug)]
pub(crate) struct ReadyBatch {
    pub(crate) sealed: SealedBatch,
    pub(crate) done: Arc<BatchDone>,
    charge: Charge,
    pub(crate) log: BatchLog,
    outstanding: Outstanding,
}

impl Payload for ReadyBatch {
    fn records(&self) -> u32 {
        self.sealed.count()
    }

    fn bytes(&self) -> usize {
        self.sealed.len()
    }
}

pub(crate) type Queue = PartitionQueue<OpenBatch, ReadyBatch>;

/// A partition's place in the producer.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) tp: TopicPartition,
    pub(crate) sticky: Arc<Sticky>,
    compression: Compression,
    state: Mutex<SlotState>,
    /// Batches in line, as of the last change: read without the lock when a sticky partition is chosen.
    backlog: AtomicUsize,
}

#[derive(Debug)]
pub(crate) struct SlotState {
    pub(crate) queue: Queue,
    /// Where the slot goes when it has work.
    home: Arc<ReadyList>,
    /// Whether it is on the ready list of `home`, or in the hands of its sender, which will look at it.
    pub(crate) queued: bool,
    /// The last request that took a batch, as numbered by the producer: a request may have one per partition.
    pub(crate) request: u64,
    /// For when a sender's timers have it: its linger or back-off, and its expiry.
    pub(crate) wake_armed: Option<Instant>,
    pub(crate) expiry_armed: bool,
    /// What the last batch came to: the next buffer starts as large.
    last_len: usize,
    /// Why the last attempt failed, for the message of an expired batch.
    pub(crate) last_error: Option<Error>,
    /// The offset after the last acknowledged record; -1 before the first.
    acknowledged_to: i64,
    /// The batch whose offset was not believed.
    doubted: Option<BatchId>,
}

/// A partition on which others write so much between two acknowledgements is asked once more.
const LEAP: i64 = 1 << 20;

/// The slots that have work for one broker, or for none (they only expire).
#[derive(Debug)]
pub(crate) struct ReadyList {
    pub(crate) broker: Option<BrokerId>,
    slots: Mutex<VecDeque<Arc<Slot>>>,
    pub(crate) notify: Notify,
    /// Since when the broker has been handed nothing although something waits for it or for its answer. Kept only with
    /// `partitioner.availability.timeout.ms`.
    blocked_since: Mutex<Option<Instant>>,
}

impl ReadyList {
    pub(crate) fn new(broker: Option<BrokerId>) -> Arc<Self> {
        Arc::new(Self {
            broker,
            slots: Mutex::default(),
            notify: Notify::new(),
            blocked_since: Mutex::default(),
        })
    }

    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        *self.blocked()
    }

    pub(crate) fn set_blocked_since(&self, since: Option<Instant>) {
        *self.blocked() = since;
    }

    fn blocked(&self) -> MutexGuard<'_, Option<Instant>> {
        let blocked = self.blocked_since.lock();
        blocked.unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, slot: Arc<Slot>) {
        self.slots().push_back(slot);
        self.notify.notify_one();
    }

    /// Moves everything out.
    pub(crate) fn drain_into(&self, work: &mut VecDeque<Arc<Slot>>) {
        work.append(&mut self.slots());
    }

    fn slots(&self) -> MutexGuard<'_, VecDeque<Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The partition that records without a key go to at present (KIP-480, KIP-794).
#[derive(Debug)]
pub(crate) struct Sticky {
    /// -1: choose another.
    partition: AtomicI32,
    /// What went to it so far, counted per batch.
    bytes: AtomicUsize,
    limit: usize,
}

impl Sticky {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            partition: AtomicI32::new(-1),
            bytes: AtomicUsize::new(0),
            limit: limit.max(1),
        }
    }

    pub(crate) fn current(&self) -> Option<i32> {
        let partition = self.partition.load(Ordering::Relaxed);
        (partition >= 0).then_some(partition)
    }

    /// Settles on a partition unless somebody did meanwhile; returns the one that holds.
    pub(crate) fn choose(&self, partition: i32) -> i32 {
        let order = Ordering::Relaxed;
        match self.partition.compare_exchange(-1, partition, order, order) {
            Ok(_) => {
                self.bytes.store(0, order);
                partition
            }
            Err(other) => other,
        }
    }

    /// Stays no longer with this partition.
    pub(crate) fn leave(&self, partition: i32) {
        let order = Ordering::Relaxed;
        let _ = self.partition.compare_exchange(partition, -1, order, order);
    }

    fn filled(&self, partition: i32, bytes: usize) {
        if self.current() == Some(partition)
            && self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= self.limit
        {
            self.leave(partition);
        }
    }
}

/// What an append came to.
pub(crate) enum Appended<T> {
    Accepted(T),
    /// So many bytes must be charged first.
    NeedsBytes(usize),
    Refused(Error),
}

/// What of the producer an append may need.
#[derive(Clone, Copy)]
pub(crate) struct Appending<'a> {
    pub(crate) config: &'a SlotConfig,
    pub(crate) budget: &'a Budget,
    pub(crate) codecs: &'a CodecPool,
    pub(crate) flushing: &'a Flushing,
}

/// The parts of a record that are written.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) timestamp: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a [Header<'a>],
}

/// A batch taken out of its slot to be sealed. Dropped without that, it gives up its place and fails.
pub(crate) struct Sealing<'a> {
    slot: &'a Arc<Slot>,
    id: BatchId,
    batch: Option<OpenBatch>,
}

impl Slot {
    pub(crate) fn new(
        tp: TopicPartition,
        sticky: Arc<Sticky>,
        home: Arc<ReadyList>,
        compression: Compression,
    ) -> Arc<Self> {
        let mut queue = Queue::new();
        queue.set_leader(home.broker);
        Arc::new(Self {
            tp,
            sticky,
            compression,
            state: Mutex::new(SlotState {
                queue,
                home,
                queued: false,
                request: 0,
                wake_armed: None,
                expiry_armed: false,
                last_len: 0,
                last_error: None,
                acknowledged_to: -1,
                doubted: None,
            }),
            backlog: AtomicUsize::new(0),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn compression(&self) -> Compression {
        self.compression
    }

    pub(crate) fn backlog(&self) -> usize {
        self.backlog.load(Ordering::Relaxed)
    }

    pub(crate) fn note_backlog(&self, state: &SlotState) {
        self.backlog.store(state.queue.len(), Ordering::Relaxed);
    }

    /// Adds a record to the open batch, opening one or sealing a full one as needed.
    ///
    /// `charge` holds bytes that the caller waited for; what is not needed of it stays. `note` is given the partition,
    /// the batch that the record went to and its index in it, under the lock.
    #[inline]
    pub(crate) fn append<T>(
        self: &Arc<Self>,
        producer: &Appending<'_>,
        parts: Parts<'_>,
        charge: &mut Option<Charge>,
        note: impl FnOnce(i32, &Arc<BatchDone>, u32) -> T,
    ) -> Appended<T> {
        let mut state = self.lock();
        // Nearly always there is a batch, and room in it.
        if let Some(open) = state.queue.open_mut()
            && let Some(index) = open.append_within(producer.config, parts)
        {
            return Appended::Accepted(note(self.tp.partition, &open.done, index));
        }
        self.append_slowly(state, producer, parts, charge, note)
    }

    #[cold]
    fn append_slowly<T>(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, SlotState>,
        producer: &Appending<'_>,
        parts: Parts<'_>,
        charge: &mut Option<Charge>,
        note: impl FnOnce(i32, &Arc<BatchDone>, u32) -> T,
    ) -> Appended<T> {
        let Appending {
            config,
            budget,
            codecs,
            flushing,
        } = *producer;
        let mut sealing = None;
        let appended = loop {
            if state.queue.is_closed() {
                break Appended::Refused(closed());
            }
            let last_len = state.last_len;
            let Some(open) = state.queue.open_mut() else {
                match OpenBatch::open(self, config, budget, flushing, parts, last_len, charge) {
                    Ok(batch) => {
                        let opened = batch.log.opened();
                        state.queue.set_open(opened, batch);
                        self.note_backlog(&state);
                        state.schedule(self);
                        continue;
                    }
                    Err(bytes) => break Appended::NeedsBytes(bytes),
                }
            };
            match open.append(config, budget, parts, charge) {
                Fit::Appended(index) => {
                    break Appended::Accepted(note(self.tp.partition, &open.done, index));
                }
                // A second full one cannot follow: the batch opened meanwhile has room for this record.
                Fit::Full if sealing.is_none() => sealing = state.take_open(self),
                Fit::Full => break Appended::Refused(too_large(config.batch_size)),
                Fit::NeedsBytes(bytes) => {
                    // What is in it is what will free memory.
                    if sealing.is_none() {
                        sealing = state.take_open(self);
                    }
                    break Appended::NeedsBytes(bytes);
                }
                Fit::Refused(error) => break Appended::Refused(invalid(&error)),
            }
        };
        drop(state);
        if let Some(sealing) = sealing {
            sealing.seal(codecs);
        }
        appended
    }

    /// Ends batches outside of the lock.
    pub(crate) fn finish(
        &self,
        finished: impl IntoIterator<Item = Finished<ReadyBatch>>,
        now: Instant,
        written: impl Fn() -> Outcome,
        failed: impl Fn(Certainty, Why) -> Error,
    ) {
        for Finished { batch, end } in finished {
            let outcome = match end {
                End::Written => written(),
                End::Failed(certainty, why) => Outcome::Failed(
                    failed(certainty, why)
                        .with_certainty(certainty)
                        .with_topic_partition(self.tp.clone()),
                ),
            };
            batch.end(outcome, now);
        }
    }

    /// Ends everything in line; returns how many records certainly were not and how many may have been written.
    pub(crate) fn close(&self, error: &Error) -> (u64, u64) {
        let mut finished = Vec::new();
        let mut state = self.lock();
        let open = state.queue.close(&mut finished);
        self.note_backlog(&state);
        drop(state);
        self.give_up(finished, open, error)
    }

    /// Ends what was never sent and, if `sent`, everything else in line too. Counts as `close` does.
    pub(crate) fn purge(self: &Arc<Self>, sent: bool, error: &Error) -> (u64, u64) {
        let mut finished = Vec::new();
        let mut state = self.lock();
        let open = state.queue.purge(sent, &mut finished);
        self.note_backlog(&state);
        state.schedule(self);
        drop(state);
        self.give_up(finished, open, error)
    }

    /// Ends batches outside of the lock; returns how many of their records certainly were not and how many may have been
    /// written.
    fn give_up(
        &self,
        finished: Vec<Finished<ReadyBatch>>,
        open: Option<OpenBatch>,
        error: &Error,
    ) -> (u64, u64) {
        let mut counts = (0, 0);
        for Finished { batch, end } in &finished {
            let records = u64::from(batch.records());
            match end {
                End::Failed(Certainty::MaybeWritten, _) => counts.1 += records,
                _ => counts.0 += records,
            }
        }
        self.finish(finished, now(), unknown_offset, |_, _| error.clone());
        if let Some(open) = open {
            counts.0 += u64::from(open.writer.count());
            open.fail(&self.tp, error);
        }
        counts
    }

    /// Ends what is overdue.
    pub(crate) fn expire(self: &Arc<Self>, rules: &crate::producer::queue::Rules, now: Instant) {
        let mut finished = Vec::new();
        let mut state = self.lock();
        state.expiry_armed = false;
        let open = state.queue.expire(rules, now, &mut finished);
        self.note_backlog(&state);
        state.schedule(self);
        let cause = state.last_error.clone();
        let led = state.queue.leader().is_some();
        drop(state);
        if finished.is_empty() && open.is_none() {
            return;
        }
        let error = expired(rules.delivery_timeout, led, cause);
        self.finish(finished, now, unknown_offset, |_, _| error.clone());
        if let Some(open) = open {
            open.fail(&self.tp, &error);
        }
    }

    /// Changes who leads the partition.
    pub(crate) fn set_home(self: &Arc<Self>, home: &Arc<ReadyList>, new_log: bool) {
        let mut state = self.lock();
        if new_log {
            state.queue.new_log();
            state.acknowledged_to = -1;
        }
        if state.queue.set_leader(home.broker) {
            state.home = Arc::clone(home);
            // Being in the hands of the old sender means nothing any more: it may have no connection, and never look.
            state.queued = false;
            state.queue.retry_now();
            state.schedule(self);
            if home.broker.is_none() {
                drop(state);
                self.sticky.leave(self.tp.partition);
            }
        }
    }
}

impl SlotState {
    /// Whether the slot belongs to this list's sender.
    pub(crate) fn is_at(&self, home: &Arc<ReadyList>) -> bool {
        Arc::ptr_eq(&self.home, home)
    }

    /// Takes the slot into the hands of its sender if there is anything in line and nobody has it.
    pub(crate) fn take(&mut self) -> bool {
        let taken = !self.queued && !self.queue.is_empty();
        self.queued |= taken;
        taken
    }

    /// Whether an acknowledgement's offset is to be told. No checksum covers it, so one that goes back or leaps is asked
    /// for again, once.
    pub(crate) fn believes(&mut self, id: BatchId, offset: i64, records: u32) -> bool {
        let least = self.acknowledged_to;
        let fits = least < 0 || (least..least.saturating_add(LEAP)).contains(&offset);
        // Without any offset it may have been an error.
        if (offset < 0 || !fits) && self.doubted != Some(id) {
            self.doubted = Some(id);
            return false;
        }
        if offset >= 0 {
            self.acknowledged_to = match fits {
                true => offset.saturating_add(i64::from(records)),
                // Told twice: so it is, or this is an older batch than the last acknowledged one.
                false => least.min(offset.saturating_add(i64::from(records))),
            };
        }
        true
    }

    /// Puts the slot on its leader's ready list if there is anything in line.
    pub(crate) fn schedule(&mut self, slot: &Arc<Slot>) {
        if self.take() {
            self.home.push(Arc::clone(slot));
        }
    }

    /// Why a batch does not find its place any more.
    pub(crate) fn why_gone(&self) -> fn() -> Error {
        match self.queue.is_closed() {
            true => closed,
            false => purged,
        }
    }

    /// Takes the open batch out to be sealed.
    pub(crate) fn take_open<'a>(&mut self, slot: &'a Arc<Slot>) -> Option<Sealing<'a>> {
        let (id, batch) = self.queue.take_open()?;
        self.last_len = batch.writer.len();
        slot.sticky.filled(slot.tp.partition, batch.writer.len());
        Some(Sealing {
            slot,
            id,
            batch: Some(batch),
        })
    }
}

impl Sealing<'_> {
    /// Compresses the batch and puts it in its place.
    pub(crate) fn seal(mut self, codecs: &CodecPool) {
        let Some(batch) = self.batch.take() else {
            return;
        };
        let OpenBatch {
            writer,
            done,
            mut charge,
            log,
            outstanding,
        } = batch;
        let contents = contents(&writer);
        let mut held = charge.bytes();
        let sealed = writer.seal_into(self.slot.compression, codecs, |len| {
            // Never more than is charged: compressed records are smaller.
            held = rounded(len).min(held).max(len);
            charge.buffer_of(held)
        });
        match sealed {
            Ok((sealed, spare)) => {
                if let Some(spare) = spare {
                    charge.keep(spare);
                    charge.shrink_to(held);
                }
                let batch = ReadyBatch {
                    sealed,
                    done,
                    charge,
                    log,
                    outstanding,
                };
                let mut state = self.slot.lock();
                let refused = state.queue.seal(self.id, batch).err();
                let why = state.why_gone();
                state.schedule(self.slot);
                drop(state);
                if let Some(batch) = refused {
                    let error = why()
                        .with_certainty(Certainty::NotSent)
                        .with_topic_partition(self.slot.tp.clone());
                    batch.end(Outcome::Failed(error), now());
                }
            }
            Err(error) => {
                self.give_up_place();
                let error = invalid(&error)
                    .with_certainty(Certainty::NotSent)
                    .with_topic_partition(self.slot.tp.clone());
                log.end(now(), &self.slot.tp, contents, Err(&error));
                done.complete(Outcome::Failed(error));
            }
        }
    }

    fn give_up_place(&self) {
        let mut state = self.slot.lock();
        state.queue.abandon(self.id);
        self.slot.note_backlog(&state);
        state.schedule(self.slot);
    }
}

impl Drop for Sealing<'_> {
    fn drop(&mut self) {
        // Only if compression panicked or nobody sealed it.
        if let Some(batch) = self.batch.take() {
            self.give_up_place();
            batch.fail(
                &self.slot.tp,
                &Error::new(ErrorKind::Fatal, "the batch was not sealed"),
            );
        }
    }
}

/// What an open batch says to a record.
enum Fit {
    /// With this index.
    Appended(u32),
    Full,
    NeedsBytes(usize),
    Refused(RecordError),
}

impl OpenBatch {
    /// A new batch with room for a record at least; an error is the number of bytes to be charged for it.
    fn open(
        slot: &Slot,
        config: &SlotConfig,
        budget: &Budget,
        flushing: &Flushing,
        parts: Parts<'_>,
        last_len: usize,
        charge: &mut Option<Charge>,
    ) -> Result<Self, usize> {
        let needed = HEADER_LEN + BatchWriter::upper_bound(parts.key, parts.value, parts.headers);
        // As large as the last one was; a partition that is seldom used does not hold a whole `batch.size`.
        let usual = last_len.max(FIRST_BUFFER).next_power_of_two();
        let capacity = needed.max(usual.min(config.batch_size));
        let taken = match charge.take() {
            Some(held) if held.bytes() >= needed => Some(held),
            held => {
                *charge = held;
                None
            }
        };
        let taken = match taken {
            Some(held) => held,
            None => budget
                .try_acquire(capacity)
                .or_else(|| budget.try_acquire(needed))
                .ok_or(needed)?,
        };
        Ok(Self {
            writer: BatchWriter::with_buffer(taken.buffer()),
            done: BatchDone::new(slot.tp.clone()),
            charge: taken,
            log: config.ledger.open(now()),
            outstanding: flushing.outstanding(),
        })
    }

    /// Appends a record if there is room.
    #[inline]
    fn append_within(&mut self, config: &SlotConfig, parts: Parts<'_>) -> Option<u32> {
        let room = self.charge.bytes().min(config.batch_size);
        self.writer
            .append_within(room, parts.timestamp, parts.key, parts.value, parts.headers)
    }

    fn append(
        &mut self,
        config: &SlotConfig,
        budget: &Budget,
        parts: Parts<'_>,
        charge: &mut Option<Charge>,
    ) -> Fit {
        let Parts {
            timestamp,
            key,
            value,
            headers,
        } = parts;
        if let Some(index) = self.append_within(config, parts) {
            return Fit::Appended(index);
        }
        let size = match self.writer.size_of(timestamp, key, value, headers) {
            Ok(size) => size,
            // Another batch has another base timestamp and its own room.
            Err(_) if !self.writer.is_empty() => return Fit::Full,
            Err(error) => return Fit::Refused(error),
        };
        let len = self.writer.len() + size;
        if len > config.batch_size && !self.writer.is_empty() {
            return Fit::Full;
        }
        if len > self.charge.bytes() {
            let held = self.charge.bytes();
            let grown = (held * 2 + 1).next_power_of_two();
            let grown = grown.min(config.batch_size).max(len);
            let taken =
                take(budget, charge, grown - held).or_else(|| take(budget, charge, len - held));
            let Some(taken) = taken else {
                // The record will start a batch of its own.
                return Fit::NeedsBytes(HEADER_LEN + BatchWriter::upper_bound(key, value, headers));
            };
            self.charge.absorb(taken);
            let small = self.writer.move_to(self.charge.buffer());
            self.charge.keep(small);
        }
        match self.writer.append(timestamp, key, value, headers) {
            Ok(index) => Fit::Appended(index),
            Err(error) => Fit::Refused(error),
        }
    }

    fn fail(self, tp: &TopicPartition, error: &Error) {
        let Self {
            writer,
            done,
            charge,
            log,
            outstanding,
        } = self;
        drop(charge);
        let error = error
            .clone()
            .with_certainty(Certainty::NotSent)
            .with_topic_partition(tp.clone());
        log.end(now(), tp, contents(&writer), Err(&error));
        drop(writer);
        done.complete(Outcome::Failed(error));
        drop(outstanding);
    }
}

impl ReadyBatch {
    /// Gives the memory back, reports, tells whoever waits, and counts as flushed, in this order.
    pub(crate) fn end(self, outcome: Outcome, now: Instant) {
        let Self {
            sealed,
            done,
            charge,
            log,
            outstanding,
        } = self;
        let contents = Contents {
            records: sealed.count(),
            bytes: sealed.len(),
            uncompressed_bytes: sealed.uncompressed_len(),
        };
        // Small compressed ones have a size of their own each, and would serve nobody.
        let compressed = contents.bytes != contents.uncompressed_bytes;
        if (!compressed || contents.bytes >= LEAST_ROUNDED)
            && let Some(buffer) = sealed.into_buffer()
        {
            charge.keep(buffer);
        }
        drop(charge);
        match &outcome {
            Outcome::Written { base_offset, .. } => {
                log.end(now, done.partition(), contents, Ok(*base_offset));
            }
            Outcome::Failed(error) => log.end(now, done.partition(), contents, Err(error)),
            Outcome::Split(_) => log.split(),
        }
        done.complete(outcome);
        drop(outstanding);
    }

    /// Two or more batches with the same records, if there are several and they can be told apart.
    pub(crate) fn split(
        mut self,
        compression: Compression,
        codecs: &CodecPool,
    ) -> Result<Vec<Self>, Box<(Self, RecordError)>> {
        let max = (self.sealed.uncompressed_len() / 2).max(1);
        let pieces = self.sealed.split(max, codecs).and_then(|writers| {
            writers
                .into_iter()
                .map(|writer| writer.seal(compression, codecs))
                .collect::<Result<Vec<_>, _>>()
        });
        let pieces = match pieces {
            Ok(pieces) => pieces,
            Err(error) => return Err(Box::new((self, error))),
        };
        let mut first = 0;
        let mut cells = Vec::with_capacity(pieces.len());
        let pieces = pieces
            .into_iter()
            .map(|sealed| {
                let done = BatchDone::new(self.done.partition().clone());
                cells.push((first, Arc::clone(&done)));
                first += sealed.count();
                Self {
                    charge: self.charge.split_off(sealed.len()),
                    outstanding: self.outstanding.clone(),
                    log: self.log.piece(),
                    sealed,
                    done,
                }
            })
            .collect();
        self.end(Outcome::Split(cells), now());
        Ok(pieces)
    }
}

/// Bytes from what the caller holds, or else from the budget.
fn take(budget: &Budget, held: &mut Option<Charge>, bytes: usize) -> Option<Charge> {
    match held {
        Some(held) if held.bytes() >= bytes => Some(held.split_off(bytes)),
        _ => budget.try_acquire(bytes),
    }
}

fn contents(writer: &BatchWriter) -> Contents {
    Contents {
        records: writer.count(),
        bytes: writer.len(),
        uncompressed_bytes: writer.len(),
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the producer is closed")
}

pub(crate) fn purged() -> Error {
    Error::new(
        ErrorKind::Purged,
        "the application dropped the record (Producer::purge)",
    )
}

pub(crate) fn unknown_offset() -> Outcome {
    Outcome::Written {
        base_offset: None,
        append_time: None,
    }
}

fn too_large(limit: usize) -> Error {
    Error::new(
        ErrorKind::RecordTooLarge,
        format!("the record does not fit into a batch of {limit} bytes (batch.size)"),
    )
}

fn invalid(error: &RecordError) -> Error {
    let kind = match error {
        RecordError::TooLarge { .. } => ErrorKind::RecordTooLarge,
        RecordError::UnsupportedCodec { .. } => ErrorKind::Config,
        _ => ErrorKind::InvalidRecord,
    };
    Error::new(kind, error.to_string()).with_source(error.clone())
}

fn expired(after: std::time::Duration, led: bool, cause: Option<Error>) -> Error {
    let millis = after.as_millis();
    let why = match &cause {
        Some(cause) => format!("; the last attempt: {cause}"),
        None if !led => "; the partition has no leader".to_owned(),
        None => String::new(),
    };
    let error = Error::new(
        ErrorKind::Timeout,
        format!("the record was not delivered within {millis} ms (delivery.timeout.ms){why}"),
    );
    match cause {
        Some(cause) => error.with_source(cause),
        None => error,
    }
}

const HEADER_LEN: usize = 61;
/// What a partition's first buffer holds.
const FIRST_BUFFER: usize = 1024;
