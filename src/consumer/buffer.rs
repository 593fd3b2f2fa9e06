//! Fetched data that waits to be handed out.
//!
//! Invariants: partitions take turns; a partition is in line at most once; what was decoded is not
//! decoded again when a poll takes only a part of it; data of an older epoch never leaves.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use indexmap::IndexMap;

use super::batch::{PartitionBatch, Segment, corrupt, topic_of};
use super::positions::{PartEpoch, Position, Survey};
use crate::error::Error;
use crate::record::{
    BatchHeader, Codec, CodecPool, ControlType, DecodeLimits, DecodedBatch, RawBatch,
    RecordBatches, RecordCursor, RecordError,
};
use crate::types::TopicPartition;

/// The most that the records of one batch may take decompressed: far above what brokers accept by
/// default (1 MiB compressed), far below what a forged batch could claim.
const MAX_DECOMPRESSED: usize = 512 << 20;

/// How batches are read.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) check_crcs: bool,
    pub(crate) read_committed: bool,
    pub(crate) pool: CodecPool,
}

/// What one Fetch answer had for one partition.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) tp: TopicPartition,
    pub(crate) epoch: PartEpoch,
    /// What it keeps in memory, as far as the budget is concerned: the fetched bytes, and the
    /// decompressed ones of a batch that was handed out in part.
    pub(crate) bytes: usize,
    fetched: usize,
    raw: RecordBatches,
    /// A decoded batch, from its next record on.
    current: Option<(DecodedBatch, RecordCursor)>,
    aborted: Aborted,
    failed: Option<Error>,
    high_watermark: i64,
    last_stable: i64,
}

/// The aborted transactions within a chunk, as Java's `CompletedFetch` follows them.
#[derive(Clone, Debug, Default)]
struct Aborted {
    /// (first offset, producer id), by offset.
    coming: VecDeque<(i64, i64)>,
    /// Producers whose open transaction is void.
    open: BTreeSet<i64>,
}

/// What a poll takes from a chunk.
#[derive(Debug)]
pub(crate) struct Taken {
    /// `None` if there was nothing for the application (control batches, aborted records).
    pub(crate) batch: Option<PartitionBatch>,
    /// The position afterwards.
    pub(crate) next: Position,
}

/// Judges fetched bytes by the headers of their batches, without touching records.
pub(crate) fn survey(bytes: &Bytes) -> Survey {
    if bytes.is_empty() {
        return Survey::Empty;
    }
    let mut last: Option<BatchHeader> = None;
    for batch in RecordBatches::new(bytes.clone()) {
        match batch {
            // Offsets stand outside of the checksum: that they grow is all that can be seen of them here.
            Ok(batch)
                if last.is_some_and(|last| batch.header().base_offset < last.next_offset()) =>
            {
                return Survey::Corrupt;
            }
            Ok(batch) => last = Some(*batch.header()),
            // What comes before is handed out first; reading on reports the rest.
            Err(_) if last.is_some() => break,
            Err(_) => return Survey::Corrupt,
        }
    }
    match last {
        Some(header) => Survey::Batches {
            next_offset: header.next_offset(),
            leader_epoch: header.partition_leader_epoch,
        },
        None => Survey::Partial,
    }
}

impl Chunk {
    pub(crate) fn new(
        tp: TopicPartition,
        epoch: PartEpoch,
        records: Bytes,
        mut aborted: Vec<(i64, i64)>,
        (high_watermark, last_stable): (i64, i64),
    ) -> Self {
        aborted.sort_unstable();
        Self {
            tp,
            epoch,
            bytes: records.len(),
            fetched: records.len(),
            raw: RecordBatches::new(records),
            current: None,
            aborted: Aborted {
                coming: aborted.into(),
                open: BTreeSet::new(),
            },
            failed: None,
            high_watermark,
            last_stable,
        }
    }

    /// Up to `max` records from `position` on. Of a chunk that is damaged in the middle, what comes
    /// before the damage is taken first; then it is the error, again and again.
    pub(crate) fn take(
        &mut self,
        max: usize,
        position: Position,
        reading: &Reading,
    ) -> Result<Taken, Error> {
        let mut segments = Vec::new();
        let mut next = position;
        let mut left = max;
        while left > 0 && self.failed.is_none() {
            match self.advance(&mut next, reading) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.failed = Some(corrupt(&self.tp, &error));
                    break;
                }
            }
            let Some((batch, from)) = self.current.take() else {
                break;
            };
            match cut(&batch, from, left) {
                Ok((count, Some((cursor, offset)))) => {
                    next = Position {
                        offset,
                        leader_epoch: batch.header().partition_leader_epoch,
                    };
                    left -= count;
                    self.current = Some((batch.clone(), cursor));
                    segments.push(Segment { batch, from, count });
                }
                Ok((count, None)) => {
                    next = after(&batch);
                    left -= count;
                    segments.push(Segment { batch, from, count });
                }
                Err(error) => self.failed = Some(corrupt(&self.tp, &error)),
            }
        }
        if segments.is_empty()
            && let Some(error) = &self.failed
        {
            return Err(error.clone());
        }
        // An uncompressed batch is a slice of the fetched bytes.
        let current = self.current.as_ref().map(|(batch, _)| batch);
        let apart = current.filter(|batch| batch.header().attributes.codec() != Some(Codec::None));
        let decoded = apart.map_or(0, |batch| batch.body().len());
        self.bytes = self.fetched + decoded;
        let batch = (!segments.is_empty()).then(|| PartitionBatch {
            tp: self.tp.clone(),
            epoch: self.epoch,
            segments,
            next,
            high_watermark: self.high_watermark,
            last_stable: self.last_stable,
        });
        Ok(Taken { batch, next })
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
                self.failed = Some(corrupt(&self.tp, &error));
                return None;
            }
        }
        let (batch, from) = self.current.as_ref()?;
        let record = batch.records_from(*from).next()?.ok()?;
        Some((record.offset(), record.timestamp().as_millis()))
    }

    /// Makes `current` start at the first record for the application that is not below `next`;
    /// false if the chunk has none. `next` moves over what is skipped.
    fn advance(&mut self, next: &mut Position, reading: &Reading) -> Result<bool, RecordError> {
        loop {
            if let Some((batch, cursor)) = self.current.take() {
                let mut cursor = cursor;
                loop {
                    let mut records = batch.records_from(cursor);
                    match records.next().transpose()? {
                        None => break,
                        Some(record) if record.offset() >= next.offset => {
                            self.current = Some((batch, cursor));
                            return Ok(true);
                        }
                        Some(_) => cursor = records.cursor(),
                    }
                }
                next.pass(&batch);
            }
            let Some(raw) = self.raw.next().transpose()? else {
                return Ok(false);
            };
            if raw.header().next_offset() <= next.offset {
                continue;
            }
            if reading.check_crcs {
                raw.verify_crc()?;
            }
            self.current = self
                .open(raw, next, reading)?
                .map(|batch| (batch, RecordCursor::default()));
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
                && self.aborted.open.contains(&header.producer_id);
            if void && !control {
                next.pass_to(header.next_offset(), header.partition_leader_epoch);
                return Ok(None);
            }
        }
        let limits = DecodeLimits {
            max_decompressed: MAX_DECOMPRESSED,
        };
        let batch = raw.decode(topic_of(&self.tp), self.tp.partition, limits, &reading.pool)?;
        if !control {
            return Ok(Some(batch));
        }
        if reading.read_committed && batch.control_type()? == Some(ControlType::Abort) {
            self.aborted.open.remove(&header.producer_id);
        }
        next.pass(&batch);
        Ok(None)
    }
}

impl Aborted {
    /// Transactions that begin up to this offset are open from here on, until their marker.
    fn reach(&mut self, last_offset: i64) {
        while let Some(&(first, producer)) = self.coming.front() {
            if first > last_offset {
                return;
            }
            self.coming.pop_front();
            self.open.insert(producer);
        }
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
    let mut last = -1;
    for _ in 0..max {
        if let Some(record) = records.next().transpose()? {
            last = record.offset();
        }
    }
    Ok((max, Some((records.cursor(), last + 1))))
}

/// Chunks by partition; see the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct FetchBuffer {
    parts: IndexMap<TopicPartition, Queue>,
    ready: VecDeque<TopicPartition>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// Its name is in `ready`.
    queued: bool,
}

impl FetchBuffer {
    pub(crate) fn push(&mut self, chunk: Chunk) {
        self.put(chunk, false);
    }

    /// Puts the rest of a chunk back in front of its partition, which goes to the end of the line.
    pub(crate) fn put_back(&mut self, chunk: Chunk) {
        self.put(chunk, true);
    }

    fn put(&mut self, chunk: Chunk, front: bool) {
        self.bytes += chunk.bytes;
        let tp = chunk.tp.clone();
        let queue = self.parts.entry(tp.clone()).or_default();
        queue.bytes += chunk.bytes;
        if front {
            queue.chunks.push_front(chunk);
        } else {
            queue.chunks.push_back(chunk);
        }
        if !std::mem::replace(&mut queue.queued, true) {
            self.ready.push_back(tp);
        }
    }

    /// The oldest chunk of the partition whose turn it is. Partitions that may not be handed out
    /// leave the line until `ready_again`.
    pub(crate) fn take(&mut self, may: impl Fn(&Chunk) -> Taking) -> Option<Chunk> {
        while let Some(tp) = self.ready.pop_front() {
            let Some(queue) = self.parts.get_mut(&tp) else {
                continue;
            };
            queue.queued = false;
            while let Some(front) = queue.chunks.front() {
                match may(front) {
                    Taking::Yes => {
                        let chunk = queue.chunks.pop_front();
                        let bytes = chunk.as_ref().map_or(0, |chunk| chunk.bytes);
                        queue.bytes -= bytes;
                        self.bytes -= bytes;
                        if !queue.chunks.is_empty() {
                            queue.queued = true;
                            self.ready.push_back(tp);
                        }
                        return chunk;
                    }
                    Taking::Later => break,
                    Taking::Never => {
                        let bytes = front.bytes;
                        queue.chunks.pop_front();
                        queue.bytes -= bytes;
                        self.bytes -= bytes;
                    }
                }
            }
        }
        None
    }

    /// The oldest chunk of this partition.
    pub(crate) fn take_of(
        &mut self,
        tp: &TopicPartition,
        may: impl Fn(&Chunk) -> Taking,
    ) -> Option<Chunk> {
        let queue = self.parts.get_mut(tp)?;
        while let Some(front) = queue.chunks.front() {
            let verdict = may(front);
            if verdict == Taking::Later {
                return None;
            }
            let chunk = queue.chunks.pop_front()?;
            queue.bytes -= chunk.bytes;
            self.bytes -= chunk.bytes;
            if verdict == Taking::Yes {
                return Some(chunk);
            }
        }
        None
    }

    /// The partition may be handed out again.
    pub(crate) fn ready_again(&mut self, tp: &TopicPartition) {
        if let Some(queue) = self.parts.get_mut(tp)
            && !queue.chunks.is_empty()
            && !std::mem::replace(&mut queue.queued, true)
        {
            self.ready.push_back(tp.clone());
        }
    }

    /// Drops what is buffered for a partition.
    pub(crate) fn discard(&mut self, tp: &TopicPartition) {
        if let Some(queue) = self.parts.shift_remove(tp) {
            self.bytes -= queue.bytes;
            if queue.queued {
                self.ready.retain(|ready| ready != tp);
            }
        }
    }

    pub(crate) fn bytes_of(&self, tp: &TopicPartition) -> usize {
        self.parts.get(tp).map_or(0, |queue| queue.bytes)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies of what is buffered for the partition (sharing its bytes), to be looked into elsewhere.
    pub(crate) fn chunks_of(&self, tp: &TopicPartition) -> Vec<Chunk> {
        let queue = self.parts.get(tp);
        queue.map_or_else(Vec::new, |queue| queue.chunks.iter().cloned().collect())
    }
}

/// Whether a chunk may be handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taking {
    Yes,
    /// Its partition is paused.
    Later,
    /// It is stale.
    Never,
}

#[cfg(test)]
mod tests;
