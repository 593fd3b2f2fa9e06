//! A batch of a partition, from its first record to its end: open, then sealed.

use std::sync::Arc;

use crate::clock::{Instant, now};
use crate::error::{Certainty, Error};
use crate::producer::budget::{Budget, Charge};
use crate::producer::delivery::{BatchDone, Home, Outcome};
use crate::producer::flush::{Flushing, Outstanding};
use crate::producer::queue::Payload;
use crate::producer::report::{BatchLog, Contents};
use crate::producer::slot::{Slot, SlotConfig};
use crate::record::pool::LEAST_ROUNDED;
use crate::record::{BatchWriter, CodecPool, Compression, Header, RecordError, SealedBatch};
use crate::types::TopicPartition;

/// A batch that takes records.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct OpenBatch {
    pub(crate) writer: BatchWriter,
    pub(crate) charge: Charge,
    pub(crate) done: Arc<BatchDone>,
    pub(crate) log: BatchLog,
    pub(crate) outstanding: Outstanding,
}

/// A batch that takes no more.
#[derive(Debug)]
pub(crate) struct ReadyBatch {
    pub(crate) sealed: SealedBatch,
    pub(crate) done: Arc<BatchDone>,
    pub(crate) charge: Charge,
    pub(crate) log: BatchLog,
    pub(crate) outstanding: Outstanding,
}

impl Payload for ReadyBatch {
    fn records(&self) -> u32 {
        self.sealed.count()
    }

    fn bytes(&self) -> usize {
        self.sealed.len()
    }
}

/// The parts of a record that are written.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) timestamp: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a [Header<'a>],
}

/// What an open batch says to a record.
pub(crate) enum Fit {
    /// With this index.
    Appended(u32),
    Full,
    NeedsBytes(usize),
    Refused(RecordError),
}

impl OpenBatch {
    /// A new batch with room for a record at least; an error is the number of bytes to be charged
    /// for it.
    pub(crate) fn open(
        slot: &Arc<Slot>,
        config: &SlotConfig,
        budget: &Budget,
        flushing: &Flushing,
        parts: Parts<'_>,
        last_len: usize,
        charge: &mut Option<Charge>,
    ) -> Result<Self, usize> {
        let needed = HEADER_LEN + BatchWriter::upper_bound(parts.key, parts.value, parts.headers);
        // As large as the last one was; a partition that is seldom used does not hold a whole
        // `batch.size`.
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
        // Without linger it goes at once in any case.
        let lingers = !config.linger.is_zero();
        let home = lingers.then(|| Arc::clone(slot) as Home);
        Ok(Self {
            writer: BatchWriter::with_buffer(taken.buffer()),
            done: BatchDone::open(slot.tp.clone(), home),
            charge: taken,
            log: config.stats.open(now()),
            outstanding: flushing.outstanding(),
        })
    }

    /// Appends a record if there is room.
    #[inline(always)]
    pub(crate) fn append_within(&mut self, batch_size: usize, parts: &Parts<'_>) -> Option<u32> {
        let room = self.charge.bytes().min(batch_size);
        let key = match parts.key {
            Some(_) if self.writer.is_empty() && crate::planted("the-wrong-key") => Some(&b"x"[..]),
            key => key,
        };
        self.writer
            .append_within(room, parts.timestamp, key, parts.value, parts.headers)
    }

    pub(crate) fn append(
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
        if let Some(index) = self.append_within(config.batch_size, &parts) {
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
            self.charge.keep([small]);
        }
        match self.writer.append(timestamp, key, value, headers) {
            Ok(index) => Fit::Appended(index),
            Err(error) => Fit::Refused(error),
        }
    }

    /// Takes no more records, and has them as they are.
    pub(crate) fn seal(self) -> ReadyBatch {
        let Self {
            writer,
            done,
            charge,
            log,
            outstanding,
        } = self;
        ReadyBatch {
            sealed: writer.seal_plain(),
            done,
            charge,
            log,
            outstanding,
        }
    }

    pub(crate) fn fail(self, tp: &TopicPartition, error: &Error) {
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
        log.end(now(), &done, contents(&writer), Err(&error));
        drop(writer);
        done.complete(Outcome::Failed(error));
        drop(outstanding);
    }
}

/// Gives the memory of batches back, reports, tells whoever waits, and counts them as flushed, in
/// this order. All of a request at once, for callers that open batches meanwhile want the same
/// cache lines.
pub(crate) fn end_all(batches: &mut Vec<(ReadyBatch, Outcome)>, now: Instant) {
    let mut memory: Option<Charge> = None;
    let mut buffers = Vec::with_capacity(batches.len());
    let mut ended = Vec::with_capacity(batches.len());
    for (batch, outcome) in batches.drain(..) {
        let ReadyBatch {
            sealed,
            done,
            charge,
            log,
            outstanding,
        } = batch;
        let contents = Contents {
            records: sealed.count(),
            bytes: sealed.len(),
            uncompressed_bytes: sealed.uncompressed_len(),
        };
        // Small compressed ones have a size of their own each, and would serve nobody.
        let compressed = contents.bytes != contents.uncompressed_bytes;
        if !compressed || contents.bytes >= LEAST_ROUNDED {
            buffers.extend(sealed.into_buffer());
        }
        match &mut memory {
            Some(memory) => memory.absorb(charge),
            None => memory = Some(charge),
        }
        ended.push((done, log, outstanding, contents, outcome));
    }
    if let Some(memory) = memory {
        memory.keep(buffers);
    }
    let mut flushed: Option<Outstanding> = None;
    for (done, log, outstanding, contents, outcome) in ended {
        match &outcome {
            Outcome::Written { base_offset, .. } => {
                log.end(now, &done, contents, Ok(*base_offset));
            }
            Outcome::Failed(error) => log.end(now, &done, contents, Err(error)),
            Outcome::Split(_) => log.split(),
        }
        done.complete(outcome);
        match &mut flushed {
            Some(flushed) => flushed.with(outstanding),
            None => flushed = Some(outstanding),
        }
    }
}

impl ReadyBatch {
    pub(crate) fn end(self, outcome: Outcome, now: Instant) {
        end_all(&mut vec![(self, outcome)], now);
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
                    outstanding: self.outstanding.piece(),
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

pub(crate) fn contents(writer: &BatchWriter) -> Contents {
    Contents {
        records: writer.count(),
        bytes: writer.len(),
        uncompressed_bytes: writer.len(),
    }
}

const HEADER_LEN: usize = 61;
/// What a partition's first buffer holds.
const FIRST_BUFFER: usize = 1024;
