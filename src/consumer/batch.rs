//! What `poll` hands out: batches of records, decoded where they lie.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::positions::{PartEpoch, Position};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{DecodedBatch, OwnedRecord, RecordCursor, RecordError, RecordView, Records};
use crate::types::{OffsetAndMetadata, TopicPartition};

/// The records of one poll, grouped by partition.
///
/// ```
/// # fn handle(batches: &ottla::Batches) -> ottla::Result<()> {
/// for batch in batches {
///     for record in batch.records() {
///         let record = record?;
///         println!("{}@{}: {:?}", batch.topic_partition(), record.offset(), record.value());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Batches {
    pub(super) parts: Vec<PartitionBatch>,
}

impl Batches {
    /// How many records there are.
    #[must_use]
    pub fn record_count(&self) -> usize {
        self.parts.iter().map(PartitionBatch::record_count).sum()
    }

    /// Whether there are none: the poll was ended by a wake-up or its time-out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// One batch after the other; a partition may have several, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, PartitionBatch> {
        self.parts.iter()
    }

    /// For each partition the offset after its last record here: what to commit once all is done.
    #[must_use]
    pub fn offsets(&self) -> BTreeMap<TopicPartition, OffsetAndMetadata> {
        let offsets = self.parts.iter();
        offsets
            .map(|batch| (batch.tp.clone(), batch.next.to_commit()))
            .collect()
    }
}

impl<'a> IntoIterator for &'a Batches {
    type Item = &'a PartitionBatch;
    type IntoIter = std::slice::Iter<'a, PartitionBatch>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Batches {
    type Item = PartitionBatch;
    type IntoIter = std::vec::IntoIter<PartitionBatch>;

    fn into_iter(self) -> Self::IntoIter {
        self.parts.into_iter()
    }
}

/// Consecutive records of one partition.
///
/// It owns (a share of) the bytes that were fetched, so that records can be read from it without
/// copying or allocating. Keep it no longer than needed: the memory lives as long as it does.
#[derive(Debug)]
pub struct PartitionBatch {
    pub(super) tp: TopicPartition,
    pub(super) epoch: PartEpoch,
    pub(super) segments: Vec<Segment>,
    pub(super) next: Position,
    pub(super) high_watermark: i64,
    pub(super) last_stable: i64,
}

/// Some consecutive records of one stored batch.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) batch: DecodedBatch,
    pub(super) from: RecordCursor,
    pub(super) count: usize,
}

impl PartitionBatch {
    /// The partition.
    #[must_use]
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.tp
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.tp.topic()
    }

    /// The partition's number.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.tp.partition()
    }

    /// How many records there are; at least one.
    #[must_use]
    pub fn record_count(&self) -> usize {
        self.segments.iter().map(|segment| segment.count).sum()
    }

    /// Where to go on once all of them are done: the offset after the last record, and after what
    /// follows it and holds nothing for the application (transaction markers, aborted records).
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.next.offset
    }

    /// The end of the log when these records were fetched: the offset after the last record that
    /// all in-sync replicas have.
    #[must_use]
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// The end of what `read_committed` can see when these records were fetched: the first offset of
    /// the oldest open transaction, or the high watermark.
    #[must_use]
    pub fn last_stable_offset(&self) -> i64 {
        self.last_stable
    }

    /// The records in order, borrowed: no allocation per record.
    ///
    /// An item is an error if the bytes of a record contradict themselves though the batch's checksum
    /// is right (or was not checked). Nothing after it can be read from its stored batch.
    #[must_use]
    pub fn records(&self) -> BatchRecords<'_> {
        BatchRecords {
            tp: &self.tp,
            segments: self.segments.iter(),
            current: None,
            left: 0,
        }
    }

    /// The records in order, each on its own: keys and values share the batch's bytes.
    pub fn owned_records(&self) -> impl Iterator<Item = Result<OwnedRecord>> + '_ {
        self.records().map(|record| Ok(record?.to_owned()))
    }
}

impl<'a> IntoIterator for &'a PartitionBatch {
    type Item = Result<RecordView<'a>>;
    type IntoIter = BatchRecords<'a>;

    fn into_iter(self) -> BatchRecords<'a> {
        self.records()
    }
}

/// Iterator over the records of a [`PartitionBatch`].
#[derive(Clone)]
pub struct BatchRecords<'a> {
    tp: &'a TopicPartition,
    segments: std::slice::Iter<'a, Segment>,
    current: Option<Records<'a>>,
    left: usize,
}

impl<'a> Iterator for BatchRecords<'a> {
    type Item = Result<RecordView<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.left > 0
                && let Some(record) = self.current.as_mut().and_then(Iterator::next)
            {
                self.left -= 1;
                return Some(record.map_err(|error| self.fail(&error)));
            }
            let segment = self.segments.next()?;
            self.current = Some(segment.batch.records_from(segment.from));
            self.left = segment.count;
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let rest: usize = self.segments.clone().map(|segment| segment.count).sum();
        (0, Some(self.left + rest))
    }
}

impl BatchRecords<'_> {
    #[cold]
    fn fail(&mut self, error: &RecordError) -> Error {
        self.left = 0;
        corrupt(self.tp, error)
    }
}

impl std::fmt::Debug for BatchRecords<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchRecords")
            .field("partition", self.tp)
            .finish_non_exhaustive()
    }
}

/// The error for bytes that are not records.
pub(super) fn corrupt(tp: &TopicPartition, error: &RecordError) -> Error {
    let kind = match error {
        RecordError::UnsupportedCodec { .. } => ErrorKind::Config,
        RecordError::TooLarge { .. } => ErrorKind::RecordTooLarge,
        _ => ErrorKind::CorruptRecord,
    };
    Error::new(kind, error.to_string()).with_topic_partition(tp.clone())
}

/// A partition's name, shared.
pub(super) fn topic_of(tp: &TopicPartition) -> Arc<str> {
    Arc::clone(&tp.topic)
}
