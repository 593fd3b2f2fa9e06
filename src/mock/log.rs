//! The log of one partition: a machine.
//!
//! Invariants: batches are kept as they came, but for base offset and leader epoch, which the
//! checksum does not cover; offsets have no gaps; a batch is appended whole or not at all; the high
//! watermark is the log end, since the mock's replicas are always in sync.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::sequences::{Appended, KnownProducer, Sequences};
use crate::record::{
    BatchHeader, BatchWriter, CodecPool, Compression, DecodeLimits, DecodedBatch, ProducerStamp,
    RawBatch, RecordBatches, RecordError, as_control,
};
use crate::wire::codes;

/// What one batch may take uncompressed.
const LIMITS: DecodeLimits = DecodeLimits {
    max_decompressed: 128 << 20,
};
/// `message.timestamp.after.max.ms`: how far in the future a timestamp may be.
const FUTURE_MILLIS: i64 = 60 * 60 * 1000;

/// What appending depends on besides the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct AppendRules {
    pub(super) leader_epoch: i32,
    pub(super) now_millis: i64,
    /// `max.message.bytes`.
    pub(super) max_message_bytes: usize,
    /// `cleanup.policy` has `compact`: records need keys.
    pub(super) compacted: bool,
}

/// A refusal: the code and, where brokers send one, the message.
#[derive(Debug)]
pub(super) struct Refused(pub(super) i16, pub(super) &'static str);

impl Refused {
    /// Whether the answer tells where the log starts: it does if the log itself refused.
    pub(super) fn tells_start(&self) -> bool {
        match self.0 {
            codes::INVALID_RECORD => !self.1.starts_with(PRODUCE),
            codes::NOT_ENOUGH_REPLICAS
            | codes::INVALID_TIMESTAMP
            | codes::OUT_OF_ORDER_SEQUENCE_NUMBER
            | codes::INVALID_PRODUCER_EPOCH
            | codes::INVALID_TXN_STATE => true,
            _ => false,
        }
    }
}

/// How the messages begin that concern the request rather than the batch.
const PRODUCE: &str = "Produce requests";

#[derive(Debug, Default)]
pub(super) struct Log {
    batches: Vec<Stored>,
    start: i64,
    end: i64,
    /// Each leader epoch with the offset of its first record.
    epochs: Vec<(i32, i64)>,
    sequences: Sequences,
    transactions: OpenTransactions,
}

#[derive(Debug)]
struct Stored {
    header: BatchHeader,
    bytes: Bytes,
    /// Whether it says that a transaction was committed, or aborted.
    marker: Option<bool>,
}

impl Log {
    pub(super) fn start(&self) -> i64 {
        self.start
    }

    /// The offset of the next record: log end and high watermark.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// A leader starts its term.
    pub(super) fn begin_epoch(&mut self, epoch: i32) {
        // A term without records leaves no trace once the next begins.
        while self.epochs.last().is_some_and(|last| last.1 >= self.end) {
            self.epochs.pop();
        }
        self.epochs.push((epoch, self.end));
    }

    /// Appends the batch of a Produce request, or finds that it is there already.
    pub(super) fn append(
        &mut self,
        records: Option<Bytes>,
        rules: AppendRules,
        pool: &CodecPool,
    ) -> Result<Appended, Refused> {
        let batch = only_batch(records)?;
        check(&batch, rules, pool)?;
        let header = *batch.header();
        if let Some(present) = self.sequences.duplicate(&header) {
            return Ok(present);
        }
        self.sequences
            .check(&header)
            .map_err(|code| Refused(code, ""))?;
        let base_offset = self.end;
        let bytes = place(batch.bytes(), base_offset, rules.leader_epoch);
        let stored = BatchHeader {
            base_offset,
            partition_leader_epoch: rules.leader_epoch,
            ..header
        };
        self.push(Stored {
            header: stored,
            bytes,
            marker: None,
        });
        Ok(Appended {
            base_offset,
            log_append_time: -1,
        })
    }

    fn push(&mut self, stored: Stored) {
        self.learn(&stored);
        self.end = stored.header.next_offset();
        self.batches.push(stored);
    }

    fn learn(&mut self, stored: &Stored) {
        match stored.marker {
            None => self.sequences.appended(&stored.header),
            Some(_) => self.sequences.marked(&stored.header),
        }
        self.transactions.appended(&stored.header, stored.marker);
    }

    /// Writes the end of a producer's transaction.
    pub(super) fn mark(
        &mut self,
        producer: i64,
        epoch: i16,
        commits: bool,
        leader_epoch: i32,
        time: i64,
    ) {
        let Some(bytes) = control_batch(producer, epoch, commits, time) else {
            return;
        };
        let bytes = place(&bytes, self.end, leader_epoch);
        let Some(Ok(batch)) = RecordBatches::new(bytes.clone()).next() else {
            return;
        };
        self.push(Stored {
            header: *batch.header(),
            bytes,
            marker: Some(commits),
        });
    }

    /// The producers that wrote here, by id.
    pub(super) fn producers(&self) -> impl Iterator<Item = KnownProducer> {
        self.sequences.known().map(|known| KnownProducer {
            open: self.transactions.open.get(&known.id).map(|open| open.first),
            ..known
        })
    }

    /// Whether the producer has another epoch by now.
    pub(super) fn is_newer(&self, producer: i64, epoch: i16) -> bool {
        let mut known = self.sequences.known();
        known.any(|known| known.id == producer && known.epoch > epoch)
    }

    /// Whether a transaction of the producer is open here under this epoch.
    pub(super) fn is_open(&self, producer: i64, epoch: i16) -> bool {
        self.transactions
            .open
            .get(&producer)
            .is_some_and(|open| open.epoch == epoch)
    }

    /// Up to where `read_committed` reads: the first offset of an open transaction, or the end.
    pub(super) fn last_stable(&self) -> i64 {
        let open = self.transactions.open.values();
        open.map(|open| open.first).min().unwrap_or(self.end)
    }

    /// Producer and first offset of the transactions that were aborted and have records from this
    /// offset on and before that one, in the order of their ends.
    pub(super) fn aborted(&self, from: i64, to: i64) -> Vec<(i64, i64)> {
        let aborted = self.transactions.aborted.iter();
        let within = aborted.filter(|aborted| aborted.last >= from && aborted.first < to);
        within
            .map(|aborted| (aborted.producer, aborted.first))
            .collect()
    }

    /// Whole batches from the one that holds `offset`, up to `max_bytes`; with `at_least_one` the
    /// first comes however large it is (KIP-74). What begins at `end` or after it is left out.
    pub(super) fn read(
        &self,
        offset: i64,
        end: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Bytes {
        let from = self
            .batches
            .partition_point(|batch| batch.header.next_offset() <= offset);
        let mut len = 0;
        let mut taken = 0;
        for batch in &self.batches[from..] {
            let fits = len + batch.bytes.len() <= max_bytes || (at_least_one && taken == 0);
            if batch.header.base_offset >= end || !fits {
                break;
            }
            len += batch.bytes.len();
            taken += 1;
        }
        match &self.batches[from..from + taken] {
            [] => Bytes::new(),
            [one] => one.bytes.clone(),
            many => {
                let mut bytes = BytesMut::with_capacity(len);
                for batch in many {
                    bytes.extend_from_slice(&batch.bytes);
                }
                bytes.freeze()
            }
        }
    }

    /// Every batch with records of applications, decoded; or those of which `read_committed` reads.
    pub(super) fn decoded(
        &self,
        topic: &Arc<str>,
        partition: i32,
        committed: bool,
        pool: &CodecPool,
    ) -> Vec<DecodedBatch> {
        let stable = self.last_stable();
        let aborted = |header: &BatchHeader| {
            let mut aborted = self.transactions.aborted.iter();
            aborted.any(|aborted| {
                let within = aborted.first..aborted.last;
                aborted.producer == header.producer_id && within.contains(&header.base_offset)
            })
        };
        let seen = |header: &BatchHeader| {
            let hidden = header.attributes.is_transactional() && aborted(header);
            !committed || (header.base_offset < stable && !hidden)
        };
        let raw = self
            .batches
            .iter()
            .filter(|batch| batch.marker.is_none() && seen(&batch.header))
            .flat_map(|batch| RecordBatches::new(batch.bytes.clone()).filter_map(Result::ok));
        raw.filter_map(|batch| {
            batch
                .decode(Arc::clone(topic), partition, LIMITS, pool)
                .ok()
        })
        .collect()
    }

    /// Timestamp, offset and leader epoch of the first record at or after a time.
    pub(super) fn at_time(&self, time: i64, pool: &CodecPool) -> Option<(i64, i64, i32)> {
        let batch = self.batches.iter().find(|batch| {
            batch.header.max_timestamp >= time && batch.header.next_offset() > self.start
        })?;
        self.records_of(batch, pool)
            .into_iter()
            .find(|record| record.0 >= time && record.1 >= self.start)
    }

    /// Timestamp, offset and leader epoch of the record with the largest timestamp (KIP-734).
    pub(super) fn at_max_time(&self, pool: &CodecPool) -> Option<(i64, i64, i32)> {
        let max = self
            .batches
            .iter()
            .map(|batch| batch.header.max_timestamp)
            .max()?;
        self.at_time(max, pool)
    }

    fn records_of(&self, batch: &Stored, pool: &CodecPool) -> Vec<(i64, i64, i32)> {
        let epoch = batch.header.partition_leader_epoch;
        let decoded = RecordBatches::new(batch.bytes.clone())
            .filter_map(Result::ok)
            .filter_map(|raw| raw.decode(Arc::from(""), 0, LIMITS, pool).ok());
        let mut records = Vec::new();
        for batch in decoded {
            let read = batch.records().filter_map(Result::ok);
            records.extend(
                read.map(|record| (record.timestamp().as_millis(), record.offset(), epoch)),
            );
        }
        records
    }

    /// The epoch under which the first record was or will be written.
    pub(super) fn first_epoch(&self) -> i32 {
        self.epochs.first().map_or(-1, |first| first.0)
    }

    pub(super) fn last_epoch(&self) -> i32 {
        self.epochs.last().map_or(-1, |last| last.0)
    }

    /// Where an epoch ends: the largest epoch not above it, and the offset after its last record;
    /// (-1, -1) if unknown (KIP-101, KIP-279).
    pub(super) fn end_of_epoch(&self, epoch: i32) -> (i32, i64) {
        const UNDEFINED: (i32, i64) = (-1, -1);
        match self.epochs.last() {
            None => UNDEFINED,
            Some(_) if epoch == UNDEFINED.0 => UNDEFINED,
            Some(last) if last.0 == epoch => (epoch, self.end),
            Some(_) => {
                let higher = self.epochs.partition_point(|entry| entry.0 <= epoch);
                match (self.epochs.get(higher), higher.checked_sub(1)) {
                    (None, _) => UNDEFINED,
                    (Some(above), None) => (epoch, above.1),
                    (Some(above), Some(floor)) => (self.epochs[floor].0, above.1),
                }
            }
        }
    }

    /// Cuts the end off, as an unclean election does, at a boundary of batches.
    pub(super) fn truncate(&mut self, offset: i64) {
        self.batches
            .retain(|batch| batch.header.next_offset() <= offset);
        self.end = match self.batches.last() {
            Some(last) => last.header.next_offset(),
            None => self.start.min(offset),
        };
        let end = self.end;
        self.epochs.retain(|entry| entry.1 <= end);
        self.sequences = Sequences::default();
        self.transactions = OpenTransactions::default();
        for stored in std::mem::take(&mut self.batches) {
            self.learn(&stored);
            self.batches.push(stored);
        }
    }

    /// Removes what is before an offset, as retention does.
    pub(super) fn delete_before(&mut self, offset: i64) {
        self.start = offset.clamp(self.start, self.end);
        let start = self.start;
        self.batches
            .retain(|batch| batch.header.next_offset() > start);
        while self.epochs.get(1).is_some_and(|next| next.1 <= start) {
            self.epochs.remove(0);
        }
        if let Some(first) = self.epochs.first_mut() {
            first.1 = first.1.max(start);
        }
    }
}

/// The transactions of one log.
#[derive(Debug, Default)]
struct OpenTransactions {
    /// By producer.
    open: BTreeMap<i64, Open>,
    aborted: Vec<Aborted>,
}

#[derive(Debug)]
struct Open {
    epoch: i16,
    first: i64,
}

#[derive(Debug)]
struct Aborted {
    producer: i64,
    first: i64,
    last: i64,
}

impl OpenTransactions {
    fn appended(&mut self, header: &BatchHeader, marker: Option<bool>) {
        let producer = header.producer_id;
        match marker {
            None if header.attributes.is_transactional() => {
                let open = Open {
                    epoch: header.producer_epoch,
                    first: header.base_offset,
                };
                self.open.entry(producer).or_insert(open);
            }
            None => {}
            Some(commits) => {
                let open = self.open.remove(&producer).filter(|_| !commits);
                self.aborted.extend(open.map(|open| Aborted {
                    producer,
                    first: open.first,
                    last: header.base_offset,
                }));
            }
        }
    }
}

/// The bytes of a batch at its place in the log, which the checksum does not cover.
fn place(batch: &[u8], base_offset: i64, leader_epoch: i32) -> Bytes {
    let mut bytes = BytesMut::from(batch);
    if let Some(place) = bytes.get_mut(..8) {
        place.copy_from_slice(&base_offset.to_be_bytes());
    }
    if let Some(place) = bytes.get_mut(12..16) {
        place.copy_from_slice(&leader_epoch.to_be_bytes());
    }
    bytes.freeze()
}

/// The batch that ends a producer's transaction, as brokers write it.
fn control_batch(producer: i64, epoch: i16, commits: bool, time: i64) -> Option<Bytes> {
    // Version and type; then version and the coordinator's epoch.
    let key = [0, 0, 0, u8::from(commits)];
    let value = [0; 6];
    let mut writer = BatchWriter::new(128);
    writer.append(time, Some(&key), Some(&value), &[]).ok()?;
    let mut sealed = writer.seal(Compression::None, &CodecPool::new(0)).ok()?;
    let bytes = sealed.stamp(ProducerStamp {
        producer_id: producer,
        producer_epoch: epoch,
        base_sequence: -1,
        transactional: true,
    });
    Some(as_control(&bytes))
}

/// A Produce request has one batch per partition since the record format 2.
fn only_batch(records: Option<Bytes>) -> Result<RawBatch, Refused> {
    let bytes = records.unwrap_or_default();
    if bytes.is_empty() {
        return Err(Refused(
            codes::INVALID_RECORD,
            "Produce requests with version 9 must have at least one record batch per partition",
        ));
    }
    let mut batches = RecordBatches::new(bytes);
    let batch = match batches.next() {
        Some(Ok(batch)) => batch,
        Some(Err(RecordError::BadMagic { .. })) => {
            return Err(Refused(
                codes::INVALID_RECORD,
                "Produce requests with version 9 are only allowed to contain record batches with magic version 2",
            ));
        }
        _ => {
            return Err(Refused(
                codes::CORRUPT_MESSAGE,
                "the batch's header is damaged",
            ));
        }
    };
    if batches.next().is_some() || batches.truncated() {
        return Err(Refused(
            codes::INVALID_RECORD,
            "Produce requests with version 9 are only allowed to contain exactly one record batch per partition",
        ));
    }
    Ok(batch)
}

fn check(batch: &RawBatch, rules: AppendRules, pool: &CodecPool) -> Result<(), Refused> {
    let header = batch.header();
    if batch.bytes().len() > rules.max_message_bytes {
        return Err(Refused(codes::MESSAGE_TOO_LARGE, ""));
    }
    if batch.verify_crc().is_err() {
        return Err(Refused(
            codes::CORRUPT_MESSAGE,
            "Record is corrupt (stored crc differs)",
        ));
    }
    let invalid = |why| Err(Refused(codes::INVALID_RECORD, why));
    if header.base_offset != 0 {
        return invalid("The baseOffset of the record batch should be 0");
    }
    if header.records_count < 1 || header.last_offset_delta + 1 != header.records_count {
        return invalid("The record count does not match the offsets of the batch");
    }
    if header.attributes.is_control() {
        return invalid("Clients are not allowed to write control records");
    }
    if header.producer_id >= 0 && header.base_sequence < 0 {
        return invalid("Invalid sequence number in a batch with a producer id");
    }
    if header.max_timestamp > rules.now_millis.saturating_add(FUTURE_MILLIS) {
        return Err(Refused(
            codes::INVALID_TIMESTAMP,
            "One or more records have been rejected due to invalid timestamp",
        ));
    }
    let Ok(decoded) = batch.clone().decode(Arc::from(""), 0, LIMITS, pool) else {
        return Err(Refused(
            codes::CORRUPT_MESSAGE,
            "the records cannot be decompressed",
        ));
    };
    for (delta, record) in decoded.records().enumerate() {
        let Ok(record) = record else {
            return invalid("a record is malformed");
        };
        if record.offset() != delta as i64 {
            return invalid("Inner records have offsets that are not consecutive");
        }
        if rules.compacted && record.key().is_none() {
            return Err(Refused(
                codes::INVALID_RECORD,
                "One or more records have been rejected: compacted topic cannot accept message without key",
            ));
        }
    }
    Ok(())
}
