//! What `poll` hands out: batches of records, decoded where they lie.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Damage, PartEpoch, Position};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{DecodedBatch, OwnedRecord, RecordCursor, RecordError, RecordView, Records};
use crate::types::{OffsetAndMetadata, TopicPartition};

/// The records of one poll, grouped by partition, and what went wrong with other partitions.
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
    pub(crate) parts: Vec<PartitionBatch>,
    pub(crate) errors: Vec<Error>,
}

impl Batches {
    /// How many records there are, as the headers of their stored batches say.
    #[must_use]
    pub fn record_count(&self) -> usize {
        self.parts.iter().map(PartitionBatch::record_count).sum()
    }

    /// Why nothing comes of some partitions, which the error names ([`Error::topic_partition`]), or
    /// of a topic: each is told when it begins, and again when it is tried again in vain. The log
    /// has them, too (as warnings, while they go on one in 30 s, the others for debugging). They do
    /// not end the consumer, nor hold other partitions back:
    ///
    /// - [`ErrorKind::CorruptRecord`]: damaged records are fetched and reported again, at most once
    ///   a second. To leave them out, [`seek`](crate::ConsumerHandle::seek) to the end of
    ///   [`Error::unreadable`].
    /// - [`ErrorKind::Offset`]: without a position and with `auto.offset.reset=none`, a partition
    ///   waits for a seek.
    /// - [`ErrorKind::Authorization`], [`ErrorKind::UnknownTopic`],
    ///   [`ErrorKind::UnknownPartition`]: it goes on once the partition may be read.
    ///
    /// ```no_run
    /// # async fn example(mut consumer: ottla::Consumer) -> ottla::Result<()> {
    /// while let Some(batches) = consumer.poll().await? {
    ///     if let Some(error) = batches.errors().first() {
    ///         return Err(error.clone()); // for those who would rather stop than go on without it
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn errors(&self) -> &[Error] {
        &self.errors
    }

    /// Whether there are no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// One batch after the other; a partition may have several, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, PartitionBatch> {
        self.parts.iter()
    }

    /// For each partition the offset after its last record here: what to commit once all is done.
    /// Where a record cannot be read ([`PartitionBatch::records`]), commit up to that one instead.
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
    pub(crate) tp: TopicPartition,
    pub(crate) epoch: PartEpoch,
    pub(crate) segments: Vec<Segment>,
    pub(crate) next: Position,
    pub(crate) high_watermark: i64,
    pub(crate) last_stable: i64,
    pub(crate) damage: Arc<Damage>,
}

/// Some consecutive records of one stored batch.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) batch: DecodedBatch,
    pub(crate) from: RecordCursor,
    pub(crate) count: usize,
    /// The position before its first record.
    pub(crate) start: Position,
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

    /// How many records there are, as the headers of their stored batches say; at least one. Where
    /// a record cannot be read ([`records`](Self::records)), there are fewer.
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

    /// The end of what `read_committed` can see when these records were fetched: the first offset
    /// of the oldest open transaction, or the high watermark.
    #[must_use]
    pub fn last_stable_offset(&self) -> i64 {
        self.last_stable
    }

    /// The records in order, borrowed: no allocation per record.
    ///
    /// An item is an error if the bytes of a record contradict themselves though the batch's
    /// checksum is right (or was not checked). It is the last item, [`Error::unreadable`] says
    /// which offsets cannot be read, and the partition stops there: nothing from there on counts as
    /// handed out or is committed, and polls return the error again, at most once a second, while
    /// other partitions go on. To leave those offsets out, [`seek`](crate::ConsumerHandle::seek) to
    /// the range's end.
    #[must_use]
    pub fn records(&self) -> BatchRecords<'_> {
        BatchRecords {
            batch: self,
            segments: self.segments.iter(),
            current: None,
            left: 0,
        }
    }

    /// A record of this segment cannot be read. Notes that the partition stops there; the error
    /// says which offsets cannot be read: those up to the end of the stored batch, as far as what
    /// follows agrees.
    #[cold]
    pub(crate) fn unreadable(&self, index: usize, error: &RecordError) -> Error {
        let error = corrupt(&self.tp, error);
        let Some(Segment {
            batch, from, start, ..
        }) = self.segments.get(index)
        else {
            return error;
        };
        let sound = batch.records_from(*from).map_while(std::result::Result::ok);
        let from = sound.last().map_or(start.offset, |last| last.offset() + 1);
        let following = self.segments.get(index + 1);
        let bound = following.map_or(self.high_watermark, |next| next.batch.header().base_offset);
        let end = batch.header().next_offset();
        let end = if end <= bound { end } else { from };
        self.damage.note(&self.tp, self.epoch, from);
        error.with_unreadable(from..end.max(from.saturating_add(1)))
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
    batch: &'a PartitionBatch,
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
    /// Ends, and says where.
    #[cold]
    fn fail(&mut self, error: &RecordError) -> Error {
        // The segment that is being read is the one before the rest.
        let index = self.batch.segments.len() - self.segments.len() - 1;
        self.left = 0;
        self.segments = [].iter();
        self.batch.unreadable(index, error)
    }
}

impl std::fmt::Debug for BatchRecords<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchRecords")
            .field("partition", &self.batch.tp)
            .finish_non_exhaustive()
    }
}

/// The error for bytes that are not records.
pub(crate) fn corrupt(tp: &TopicPartition, error: &RecordError) -> Error {
    let kind = match error {
        RecordError::UnsupportedCodec { .. } => ErrorKind::Config,
        RecordError::TooLarge { .. } => ErrorKind::RecordTooLarge,
        _ => ErrorKind::CorruptRecord,
    };
    Error::new(kind, error.to_string()).with_topic_partition(tp.clone())
}
