//! Fetched data of a partition, and what a poll takes of it. Where it waits is `buffer.rs`.
//!
//! Invariants: what was decoded is not decoded again when a poll takes only a part of it (unless
//! its memory is needed for others); a poll opens one compressed batch in any case, and more only
//! while what they take decompressed stays within its portion.

use std::sync::Arc;

use bytes::Bytes;

use super::aborted::Aborted;
use super::batch::{PartitionBatch, Segment, corrupt};
use super::{PartEpoch, Position, Reading};
use crate::error::Error;
use crate::record::{
    Codec, ControlType, DecodeLimits, DecodedBatch, RawBatch, RecordBatches, RecordCursor,
    RecordError,
};
use crate::types::{BrokerId, TopicPartition};

/// The most that the records of one batch may take decompressed: far above what brokers accept by
/// default (1 MiB compressed), far below what a forged batch could claim.
const MAX_DECOMPRESSED: usize = 512 << 20;

/// The broker of a chunk that is not a part of a frame yet.
const NOBODY: BrokerId = BrokerId(-1);

/// A frame in memory: its number and how many bytes it has. Number 0 stands for memory of the
/// chunk's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameId {
    pub(super) number: u64,
    pub(super) broker: BrokerId,
    pub(super) len: usize,
}

impl FrameId {
    pub(super) fn own(broker: BrokerId, len: usize) -> Self {
        Self {
            number: 0,
            broker,
            len,
        }
    }
}

/// What one Fetch answer had for one partition.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) tp: TopicPartition,
    pub(crate) epoch: PartEpoch,
    /// The frame whose memory its bytes are.
    pub(super) frame: FrameId,
    raw: RecordBatches,
    /// A batch that is handed out in part.
    current: Option<Open>,
    aborted: Aborted,
    failed: Option<Error>,
    /// The checksums were compared already.
    checked: bool,
    /// Where the batch that was opened last ends, as its header says.
    opened: i64,
    high_watermark: i64,
    last_stable: i64,
}

/// A decoded batch, from its next record on.
#[derive(Clone, Debug)]
struct Open {
    batch: DecodedBatch,
    from: RecordCursor,
    /// The bytes from this batch on, to open it again.
    reopen: RecordBatches,
}

impl Open {
    /// Bytes of its own; an uncompressed batch is a slice of the frame.
    fn inflated(&self) -> usize {
        inflated(&self.batch)
    }
}

/// What a poll may take.
#[derive(Debug)]
pub(crate) struct Portion {
    /// Records.
    pub(crate) records: usize,
    /// Bytes of compressed batches, decompressed.
    bytes: usize,
    /// Something was taken: a further batch is opened only if there are bytes left.
    any: bool,
    /// Decompressed bytes taken that nobody but the application holds.
    pub(crate) given: usize,
}

impl Portion {
    pub(crate) fn new(records: usize, bytes: usize) -> Self {
        Self {
            records,
            bytes,
            any: false,
            given: 0,
        }
    }

    /// Whether more may be taken.
    pub(crate) fn is_open(&self) -> bool {
        self.records > 0 && !(self.any && self.bytes == 0)
    }
}

/// What a poll takes from a chunk.
#[derive(Debug)]
pub(crate) struct Taken {
    /// `None` if there was nothing for the application (control batches, aborted records).
    pub(crate) batch: Option<PartitionBatch>,
    /// The position afterwards.
    pub(crate) next: Position,
}

impl Chunk {
    pub(crate) fn new(
        tp: TopicPartition,
        epoch: PartEpoch,
        records: Bytes,
        aborted: Vec<(i64, i64)>,
        (high_watermark, last_stable): (i64, i64),
    ) -> Self {
        Self {
            tp,
            epoch,
            frame: FrameId::own(NOBODY, records.len()),
            raw: RecordBatches::new(records),
            current: None,
            aborted: Aborted::new(aborted),
            failed: None,
            checked: false,
            opened: -1,
            high_watermark,
            last_stable,
        }
    }

    /// Says whether [`survey`](super::survey::survey) has compared the checksums and found them
    /// right.
    pub(crate) fn checked(mut self, checked: bool) -> Self {
        self.checked = checked;
        self
    }

    /// Says that its bytes are a part of a frame.
    pub(crate) fn in_frame(mut self, frame: FrameId) -> Self {
        self.frame = frame;
        self
    }

    /// Records of the portion from `position` on. Of a chunk that is damaged in the middle, what
    /// comes before the damage is taken first; then it is the error, again and again.
    pub(crate) fn take(
        &mut self,
        portion: &mut Portion,
        position: Position,
        reading: &Reading,
    ) -> Result<Taken, Error> {
        let mut segments = Vec::new();
        let mut next = position;
        while self.failed.is_none() && (self.current.is_some() || portion.is_open()) {
            if portion.records == 0 {
                break;
            }
            match self.advance(&mut next, reading) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.fail(&error, next.offset);
                    break;
                }
            }
            let Some(Open {
                batch,
                from,
                reopen,
            }) = self.current.take()
            else {
                break;
            };
            let inflated = inflated(&batch);
            let (count, rest) = match cut(&batch, from, portion.records) {
                Ok(cut) => cut,
                Err(error) => {
                    self.fail(&error, next.offset);
                    break;
                }
            };
            let start = next;
            portion.any = true;
            portion.records -= count;
            portion.bytes = portion.bytes.saturating_sub(inflated);
            match rest {
                Some((from, offset)) => {
                    next = Position {
                        offset,
                        leader_epoch: batch.header().partition_leader_epoch,
                    };
                    self.current = Some(Open {
                        batch: batch.clone(),
                        from,
                        reopen,
                    });
                }
                None => {
                    next = after(&batch);
                    portion.given += inflated;
                }
            }
            segments.push(Segment {
                batch,
                from,
                count,
                start,
            });
        }
        if segments.is_empty()
            && let Some(error) = &self.failed
        {
            return Err(error.clone());
        }
        let batch = (!segments.is_empty()).then(|| PartitionBatch {
            tp: self.tp.clone(),
            epoch: self.epoch,
            segments,
            next,
            high_watermark: self.high_watermark,
            last_stable: self.last_stable,
            damage: Arc::clone(&reading.damage),
        });
        Ok(Taken { batch, next })
    }

    /// Nothing can be read from this offset on. How far that goes is the word of a header that may
    /// be damaged itself: it counts as far as it agrees with what comes after.
    fn fail(&mut self, error: &RecordError, from: i64) {
        let bound = match self.raw.clone().next() {
            Some(Ok(next)) => next.header().base_offset,
            _ => self.high_watermark,
        };
        let told = from < self.opened && self.opened <= bound;
        let end = if told {
            self.opened
        } else {
            from.saturating_add(1)
        };
        self.failed = Some(corrupt(&self.tp, error).with_unreadable(from..end));
    }

    /// Fetched bytes that were not handed out yet.
    pub(crate) fn unread(&self) -> usize {
        let rest = self
            .current
            .as_ref()
            .map_or(0, |open| match open.inflated() {
                0 => open.batch.remaining_bytes(open.from),
                _ => 0,
            });
        self.raw.remaining_bytes() + rest
    }

    /// Decompressed bytes of a batch that was handed out in part.
    pub(super) fn inflated(&self) -> usize {
        self.current.as_ref().map_or(0, Open::inflated)
    }

    /// Gives up what is decompressed; the next poll decompresses it again.
    pub(super) fn close(&mut self) {
        if let Some(open) = self.current.take_if(|open| open.inflated() > 0) {
            self.raw = open.reopen;
        }
    }

    /// Whether everything was taken.
    pub(crate) fn is_done(&self) -> bool {
        self.current.is_none() && self.failed.is_none() && {
            let mut rest = self.raw.clone();
            rest.next().is_none()
        }
    }

    /// The timestamp of the first record not below `position` that the application will see.
    pub(crate) fn timestamp_at(&mut self, position: Position, reading: &Reading) -> Option<i64> {
        self.record_at(position, reading)
            .map(|(_, timestamp)| timestamp)
    }

    /// Its offset and timestamp.
    pub(crate) fn record_at(
        &mut self,
        position: Position,
        reading: &Reading,
    ) -> Option<(i64, i64)> {
        let mut next = position;
        if self.failed.is_some() {
            return None;
        }
        match self.advance(&mut next, reading) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                self.fail(&error, next.offset);
                return None;
            }
        }
        let Open { batch, from, .. } = self.current.as_ref()?;
        let record = batch.records_from(*from).next()?.ok()?;
        Some((record.offset(), record.timestamp().as_millis()))
    }

    /// Makes `current` start at the first record for the application that is not below `next`;
    /// false if the chunk has none. `next` moves over what is skipped.
    fn advance(&mut self, next: &mut Position, reading: &Reading) -> Result<bool, RecordError> {
        loop {
            if let Some(mut open) = self.current.take() {
                let mut records = open.batch.records_from(open.from);
                while let Some(record) = records.next().transpose()? {
                    if record.offset() >= next.offset {
                        self.current = Some(open);
                        return Ok(true);
                    }
                    open.from = records.cursor();
                }
                next.pass(&open.batch);
            }
            let reopen = self.raw.clone();
            let Some(raw) = self.raw.next().transpose()? else {
                return Ok(false);
            };
            if raw.header().next_offset() <= next.offset {
                continue;
            }
            self.opened = raw.header().next_offset();
            if reading.check_crcs && !self.checked {
                raw.verify_crc()?;
            }
            self.current = self.open(raw, next, reading)?.map(|batch| Open {
                batch,
                from: RecordCursor::default(),
                reopen,
            });
        }
    }

    /// Decodes a batch; `None` (and `next` passes it) if the application does not see it.
    fn open(
        &mut self,
        raw: RawBatch,
        next: &mut Position,
        reading: &Reading,
    ) -> Result<Option<DecodedBatch>, RecordError> {
        let header = *raw.header();
        let control = header.attributes.is_control();
        if reading.read_committed && header.producer_id >= 0 {
            self.aborted.reach(header.last_offset());
            let void = header.attributes.is_transactional()
                && self.aborted.is_open(header.producer_id)
                && !crate::planted("aborted-records-are-handed-out");
            if void && !control {
                next.pass_to(header.next_offset(), header.partition_leader_epoch);
                return Ok(None);
            }
        }
        let limits = DecodeLimits {
            max_decompressed: MAX_DECOMPRESSED,
        };
        let batch = raw.decode(
            Arc::clone(&self.tp.topic),
            self.tp.partition,
            limits,
            &reading.pool,
        )?;
        if !control {
            return Ok(Some(batch));
        }
        if reading.read_committed && batch.control_type()? == Some(ControlType::Abort) {
            self.aborted.end(header.producer_id);
        }
        next.pass(&batch);
        Ok(None)
    }
}

impl Position {
    fn pass(&mut self, batch: &DecodedBatch) {
        let header = batch.header();
        self.pass_to(header.next_offset(), header.partition_leader_epoch);
    }

    fn pass_to(&mut self, offset: i64, leader_epoch: i32) {
        if offset > self.offset {
            *self = Self {
                offset,
                leader_epoch,
            };
        }
    }
}

/// What a batch takes besides the bytes that were fetched.
fn inflated(batch: &DecodedBatch) -> usize {
    match batch.header().attributes.codec() {
        Some(Codec::None) => 0,
        _ => batch.body().len(),
    }
}

fn after(batch: &DecodedBatch) -> Position {
    let header = batch.header();
    Position {
        offset: header.next_offset(),
        leader_epoch: header.partition_leader_epoch,
    }
}

/// How many records there are from the cursor on, at most `max`; and, if that is not all of them,
/// where the next starts and the offset after the last one taken.
#[allow(clippy::type_complexity)]
fn cut(
    batch: &DecodedBatch,
    from: RecordCursor,
    max: usize,
) -> Result<(usize, Option<(RecordCursor, i64)>), RecordError> {
    let total = usize::try_from(batch.header().records_count).unwrap_or(0);
    let all = total.saturating_sub(usize::try_from(from.index()).unwrap_or(usize::MAX));
    if all <= max {
        return Ok((all, None));
    }
    let mut records = batch.records_from(from);
    records.skip_records(max.saturating_sub(1))?;
    let last = records.next().transpose()?;
    let next = last.map_or(0, |last| last.offset() + 1);
    Ok((max, Some((records.cursor(), next))))
}
