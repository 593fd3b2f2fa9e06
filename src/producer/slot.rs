//! One partition as the producer holds it: a [`PartitionQueue`] behind a mutex.
//!
//! Invariants:
//!
//! - One slot lock at a time, never across an await, never calling user code. A ready list's lock
//!   may be taken inside a slot's, never the other way round.
//! - Every change that may give a slot something to do ends in [`SlotState::schedule`], which puts
//!   it on its leader's ready list unless it is there. Nothing is edge-triggered: a sender that
//!   takes a slot from a list looks at all of it. If a slot has nothing but a batch that lingers,
//!   its sender gets only the time at which the linger is over.
//! - A batch that is full is sealed (compressed) by the caller who found it full, outside the lock;
//!   its place in line is kept meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Instant, now};
use crate::error::{Certainty, Class, Error, ErrorKind};
use crate::producer::batch::{BatchConfig, Fit, OpenBatch, Parts, ReadyBatch, contents, end_all};
use crate::producer::budget::{Budget, Charge};
use crate::producer::delivery::{Awaited, BatchDone, Home, Outcome};
use crate::producer::flush::Flushing;
use crate::producer::identity::ExhaustedEpoch;
use crate::producer::queue::{
    BatchId, BatchOutcome, Finished, PartitionQueue, Payload, Rules, Why,
};
use crate::producer::ready::{Notice, ReadyList};
use crate::producer::sticky::Sticky;
use crate::record::pool::rounded;
use crate::record::{Codec, CodecPool, Compression, RecordError};
use crate::types::TopicPartition;

pub(crate) type Queue = PartitionQueue<OpenBatch, ReadyBatch>;

/// A partition's place in the producer.
///
/// What appending a record takes (the lock, the open batch's buffer and count) lies in the first
/// two cache lines: of each of `Slot`, [`SlotState`], [`PartitionQueue`] and [`OpenBatch`] it is
/// the beginning. With hundreds of partitions a record costs little else than these lines and those
/// at the end of the buffer.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    state: Mutex<SlotState>,
    /// Batches in line, as of the last change: read without the lock when a sticky partition is
    /// chosen.
    backlog: AtomicUsize,
    pub(crate) tp: TopicPartition,
    pub(crate) sticky: Arc<Sticky>,
    compression: Compression,
}

#[derive(Debug)]
#[repr(C)]
pub(crate) struct SlotState {
    pub(crate) queue: Queue,
    /// Where the slot goes when it has work.
    home: Arc<ReadyList<Slot>>,
    /// Its topic was forgotten: it takes no more records.
    pub(crate) retired: bool,
    /// Whether it is on the ready list of `home`, or in the hands of its sender, which will look at
    /// it.
    pub(crate) queued: bool,
    /// The last request that took a batch, as numbered by the producer: a request may have one per
    /// partition.
    pub(crate) request: u64,
    /// For when a sender's timers have it: its linger or back-off, and its expiry.
    pub(crate) wake_armed: Option<Instant>,
    pub(crate) expiry_armed: bool,
    /// What the last batch came to: the next buffer starts as large.
    last_len: usize,
    /// Why the last attempt failed, for the message of an expired batch.
    pub(crate) last_error: Option<Error>,
}

/// What is left of a slot for its sender.
pub(crate) enum AfterPoll {
    /// It may have something for the next request.
    More,
    /// Nothing before then: a timer is to be set.
    At(Instant),
    Nothing,
}

/// What an append came to.
pub(crate) enum Appended<T> {
    Accepted(T),
    /// So many bytes must be charged first.
    NeedsBytes(usize),
    /// The topic is to be looked up anew.
    Forgotten,
    Refused(Error),
}

/// What of the producer an append may need.
#[derive(Clone, Copy)]
pub(crate) struct Appending<'a> {
    pub(crate) config: &'a BatchConfig,
    pub(crate) budget: &'a Budget,
    pub(crate) codecs: &'a CodecPool,
    pub(crate) flushing: &'a Flushing,
}

/// A batch taken out of its slot to be sealed. Dropped without that, it gives up its place and
/// fails.
pub(crate) struct Sealing<'a> {
    slot: &'a Arc<Slot>,
    id: BatchId,
    batch: Option<OpenBatch>,
}

impl Slot {
    pub(crate) fn new(
        tp: TopicPartition,
        sticky: Arc<Sticky>,
        home: Arc<ReadyList<Self>>,
        compression: Compression,
        spent: Option<ExhaustedEpoch>,
    ) -> Arc<Self> {
        let mut queue = Queue::after(spent);
        queue.set_leader(home.broker);
        Arc::new(Self {
            tp,
            sticky,
            compression,
            state: Mutex::new(SlotState {
                queue,
                home,
                retired: false,
                queued: false,
                request: 0,
                wake_armed: None,
                expiry_armed: false,
                last_len: 0,
                last_error: None,
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

    /// Adds a record to the open batch, if there is one that has room. `note` is given the batch
    /// that the record went to and its index in it, under the lock; it comes back if there is none.
    #[inline(always)]
    pub(crate) fn append_at_once<T, N>(
        &self,
        batch_size: usize,
        parts: &Parts<'_>,
        note: N,
    ) -> Result<T, N>
    where
        N: FnOnce(&Arc<BatchDone>, u32) -> T,
    {
        let mut state = self.lock();
        let Some(open) = state.queue.open_mut() else {
            return Err(note);
        };
        match open.append_within(batch_size, parts) {
            Some(index) => Ok(note(&open.done, index)),
            None => Err(note),
        }
    }

    /// Adds a record to the open batch, opening one or sealing a full one as needed.
    ///
    /// `charge` holds bytes that the caller waited for; what is not needed of it stays.
    #[cold]
    pub(crate) fn append<T>(
        self: &Arc<Self>,
        producer: &Appending<'_>,
        parts: Parts<'_>,
        charge: &mut Option<Charge>,
        note: impl FnOnce(&Arc<BatchDone>, u32) -> T,
    ) -> Appended<T> {
        let mut state = self.lock();
        let Appending {
            config,
            budget,
            codecs,
            flushing,
        } = *producer;
        let mut sealing = None;
        let mut filled = false;
        let appended = loop {
            if state.queue.is_closed() {
                break Appended::Refused(closed());
            }
            if state.retired {
                break Appended::Forgotten;
            }
            let last_len = state.last_len;
            let Some(open) = state.queue.open_mut() else {
                let done = || {
                    // Without linger it goes at once in any case.
                    let lingers = !config.linger.is_zero();
                    let home = lingers.then(|| Arc::clone(self) as Home);
                    BatchDone::open(self.tp.clone(), home)
                };
                match OpenBatch::open(config, budget, flushing, parts, last_len, charge, done) {
                    Ok(batch) => {
                        let opened = batch.log.opened();
                        state.queue.set_open(opened, batch);
                        self.note_backlog(&state);
                        state.schedule_lingering(self, opened, config.linger);
                        continue;
                    }
                    Err(bytes) => break Appended::NeedsBytes(bytes),
                }
            };
            match open.append(config, budget, parts, charge) {
                Fit::Appended(index) => {
                    break Appended::Accepted(note(&open.done, index));
                }
                // A second full one cannot follow: the batch opened meanwhile has room for this
                // record.
                Fit::Full if filled => break Appended::Refused(too_large(config.batch_size)),
                Fit::Full => {
                    filled = true;
                    sealing = state.close_open(self);
                }
                Fit::NeedsBytes(bytes) => {
                    // What is in it is what will free memory.
                    if !filled {
                        sealing = state.close_open(self);
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
        let mut ended = Vec::new();
        self.sort(finished, &mut ended, written, failed);
        end_all(&mut ended, now);
    }

    /// Adds to `ended` how each batch ended; the caller ends all of them at once.
    pub(crate) fn sort(
        &self,
        finished: impl IntoIterator<Item = Finished<ReadyBatch>>,
        ended: &mut Vec<(ReadyBatch, Outcome)>,
        written: impl Fn() -> Outcome,
        failed: impl Fn(Certainty, Why) -> Error,
    ) {
        for Finished { batch, end } in finished {
            let outcome = match end {
                BatchOutcome::Written => written(),
                BatchOutcome::Failed(certainty, why) => Outcome::Failed(
                    failed(certainty, why)
                        .with_certainty(certainty)
                        .with_topic_partition(self.tp.clone()),
                ),
            };
            ended.push((batch, outcome));
        }
    }

    /// Ends everything in line; returns how many records certainly were not and how many may have
    /// been written.
    pub(crate) fn close(&self, error: &Error) -> (u64, u64) {
        let mut finished = Vec::new();
        let mut state = self.lock();
        let open = state.queue.close(&mut finished);
        self.note_backlog(&state);
        drop(state);
        self.give_up(finished, open, error)
    }

    /// Ends what was never sent and, if `sent`, everything else in line too. Counts as `close`
    /// does.
    pub(crate) fn purge(self: &Arc<Self>, sent: bool, error: &Error) -> (u64, u64) {
        let mut finished = Vec::new();
        let mut state = self.lock();
        let open = state.queue.purge(sent, &mut finished);
        self.note_backlog(&state);
        state.schedule(self);
        drop(state);
        self.give_up(finished, open, error)
    }

    /// Ends batches outside of the lock; returns how many of their records certainly were not and
    /// how many may have been written.
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
                BatchOutcome::Failed(Certainty::MaybeWritten, _) => counts.1 += records,
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
    pub(crate) fn expire(self: &Arc<Self>, rules: &Rules, now: Instant) {
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
        let mut error = expired(rules.delivery_timeout, led, cause);
        if rules.transactional {
            error = error.with_class(Class::Abortable);
        }
        self.finish(finished, now, unknown_offset, |_, _| error.clone());
        if let Some(open) = open {
            open.fail(&self.tp, &error);
        }
    }

    /// Whether nothing is in line, and nothing was sent for so long.
    pub(crate) fn is_idle(&self, time: Instant, idle: Duration) -> bool {
        self.lock().queue.is_idle(time, idle)
    }

    /// Retires the slot if it is idle, so that it takes no more records. Whether it is idle.
    pub(crate) fn retire(&self, time: Instant, idle: Duration) -> bool {
        let mut state = self.lock();
        state.retired = state.queue.is_idle(time, idle);
        state.retired
    }

    /// Has the present sender set a timer for the expiry of the batches, because the sender that
    /// had one ends.
    pub(crate) fn hand_over_expiry(self: &Arc<Self>) {
        let mut state = self.lock();
        state.expiry_armed = false;
        if state.queued || !state.queue.is_empty() {
            state.queued = true;
            state.home.push(Notice::Look {
                slot: Arc::clone(self),
                endless: true,
            });
        }
    }

    /// Changes who leads the partition.
    pub(crate) fn set_home(self: &Arc<Self>, home: &Arc<ReadyList<Self>>, new_log: bool) {
        let mut state = self.lock();
        if new_log {
            state.queue.new_log();
        }
        if state.queue.set_leader(home.broker) {
            state.home = Arc::clone(home);
            // The old sender may never look at this slot again, neither now (it may have no
            // connection) nor when a linger is over. So the slot goes to the new sender as one that
            // is not queued.
            state.queued = false;
            state.wake_armed = None;
            state.queue.retry_now();
            state.schedule(self);
            if home.broker.is_none() {
                drop(state);
                self.sticky.leave(self.tp.partition);
            }
        }
    }
}

impl Awaited for Slot {
    fn awaited(self: Arc<Self>) {
        let mut state = self.lock();
        // Should another batch be open by now, it goes early once.
        if state.queue.await_open() {
            state.schedule(&self);
        }
    }
}

impl SlotState {
    /// Whether the slot belongs to this list's sender.
    pub(crate) fn is_at(&self, home: &Arc<ReadyList<Slot>>) -> bool {
        Arc::ptr_eq(&self.home, home)
    }

    /// Takes the slot into the hands of its sender if there is anything in line and nobody has it.
    pub(crate) fn take(&mut self) -> bool {
        let taken = !self.queued && !self.queue.is_empty();
        self.queued |= taken;
        taken
    }

    /// Puts the slot on its leader's ready list if there is anything in line.
    pub(crate) fn schedule(&mut self, slot: &Arc<Slot>) {
        if self.take() {
            self.home.push(Notice::Look {
                slot: Arc::clone(slot),
                endless: !self.expiry_armed,
            });
        }
    }

    /// Schedules the slot after a batch was opened. If the slot has nothing else, the sender gets
    /// the end of the linger only: a look now would find nothing to send.
    fn schedule_lingering(&mut self, slot: &Arc<Slot>, opened: Instant, linger: Duration) {
        if linger.is_zero() || !self.expiry_armed || self.queue.has_unsent() {
            return self.schedule(slot);
        }
        let at = opened + linger;
        if !self.queued && self.wake_armed.is_none_or(|armed| at < armed) {
            self.wake_armed = Some(at);
            self.home.push(Notice::Linger(at, Arc::clone(slot)));
        }
    }

    /// Whether there is nothing but an open batch, and a timer for the end of its linger.
    pub(crate) fn only_lingers(&self, rules: &Rules, time: Instant) -> bool {
        let timed = |at| at > time && self.wake_armed.is_some_and(|armed| armed <= at);
        !self.queue.has_unsent() && self.queue.wake_at(rules).is_some_and(timed)
    }

    /// Its sender, which took a batch, puts it down unless there is more to send.
    pub(crate) fn after_sending(&mut self, rules: &Rules, time: Instant, due: bool) -> AfterPoll {
        let lingers = self.queue.wake_at(rules);
        if self.queue.has_unsent() || lingers.is_some_and(|at| due || at <= time) {
            return AfterPoll::More;
        }
        self.put_down(rules, time)
            .map_or(AfterPoll::Nothing, AfterPoll::At)
    }

    /// Its sender, which has nothing to send of it, puts it down; gives when to look again, if a
    /// timer is to be set for that.
    pub(crate) fn put_down(&mut self, rules: &Rules, time: Instant) -> Option<Instant> {
        self.queued = false;
        let at = self.queue.wake_at(rules).filter(|at| *at > time)?;
        let sooner = self.wake_armed.is_none_or(|armed| at < armed);
        if sooner {
            self.wake_armed = Some(at);
        }
        sooner.then_some(at)
    }

    /// The sender looks at the slot: it counts as queued from now on, and timers that are over as
    /// not set.
    pub(crate) fn looked_at(&mut self, time: Instant) {
        self.queued = true;
        if self.wake_armed.is_some_and(|at| at <= time) {
            self.wake_armed = None;
        }
    }

    /// Why a batch does not find its place any more.
    pub(crate) fn why_gone(&self) -> fn() -> Error {
        match self.queue.is_closed() {
            true => closed,
            false => purged,
        }
    }

    /// Seals the open batch where it is, and makes it known. If it is to be compressed, takes it
    /// out to be sealed.
    fn close_open<'a>(&mut self, slot: &'a Arc<Slot>) -> Option<Sealing<'a>> {
        match self.seal_open(slot) {
            true => {
                self.schedule(slot);
                None
            }
            false => self.take_open(slot),
        }
    }

    /// Seals the open batch where it is, if there is one and nothing to compress.
    pub(crate) fn seal_open(&mut self, slot: &Slot) -> bool {
        let open = self.queue.open_mut();
        let Some(open) = open.filter(|open| !open.writer.is_empty()) else {
            return false;
        };
        let len = open.writer.len();
        if slot.compression.codec() != Codec::None {
            return false;
        }
        open.done.seal();
        self.closes(slot, len);
        self.queue.seal_open(OpenBatch::seal);
        true
    }

    /// Takes the open batch out to be sealed.
    pub(crate) fn take_open<'a>(&mut self, slot: &'a Arc<Slot>) -> Option<Sealing<'a>> {
        let (id, batch) = self.queue.take_open()?;
        batch.done.seal();
        self.closes(slot, batch.writer.len());
        Some(Sealing {
            slot,
            id,
            batch: Some(batch),
        })
    }

    /// The open batch, of this size, is about to take no more.
    fn closes(&mut self, slot: &Slot, len: usize) {
        self.last_len = len;
        slot.sticky.filled(slot.tp.partition, len);
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
                    charge.keep([spare]);
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
                log.end(now(), &done, contents, Err(&error));
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
