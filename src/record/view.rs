//! Records as they are read: borrowed from their batch, or owned by sharing its buffer.

use std::fmt;
use std::iter::FusedIterator;
use std::ops::Range;

use bytes::Bytes;

use super::decoded::DecodedBatch;
use super::parse::{RawHeaders, take_header};
use super::{Blob, Header, TimestampType};
use crate::types::Timestamp;

/// A record that was read, borrowed from its batch: nothing is copied or allocated for it.
///
/// ```
/// fn print(record: &ottla::RecordView<'_>) {
///     println!("{}-{} @ {}: {:?}", record.topic(), record.partition(), record.offset(), record.value());
/// }
/// ```
#[derive(Clone, Copy)]
pub struct RecordView<'a> {
    batch: &'a DecodedBatch,
    offset: i64,
    timestamp: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: RawHeaders<'a>,
}

impl<'a> RecordView<'a> {
    #[inline(always)]
    pub(super) fn new(
        batch: &'a DecodedBatch,
        offset: i64,
        timestamp: i64,
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
        headers: RawHeaders<'a>,
    ) -> Self {
        Self {
            batch,
            offset,
            timestamp,
            key,
            value,
            headers,
        }
    }

    /// The topic it was read from.
    ///
    /// ```
    /// fn is_order(record: &ottla::RecordView<'_>) -> bool {
    ///     record.topic() == "orders"
    /// }
    /// ```
    pub fn topic(&self) -> &'a str {
        self.batch.topic()
    }

    /// The partition it was read from.
    ///
    /// ```
    /// fn place(record: &ottla::RecordView<'_>) -> (i32, i64) {
    ///     (record.partition(), record.offset())
    /// }
    /// ```
    pub fn partition(&self) -> i32 {
        self.batch.partition()
    }

    /// Its offset in the partition.
    ///
    /// ```
    /// fn resume_at(last: &ottla::RecordView<'_>) -> i64 {
    ///     last.offset() + 1
    /// }
    /// ```
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Its timestamp; -1 ms if it has none.
    ///
    /// ```
    /// fn age_millis(record: &ottla::RecordView<'_>, now: i64) -> i64 {
    ///     now - record.timestamp().as_millis()
    /// }
    /// ```
    pub fn timestamp(&self) -> Timestamp {
        Timestamp::from_millis(self.timestamp)
    }

    /// Who set the timestamp.
    ///
    /// ```
    /// fn is_set_by_broker(record: &ottla::RecordView<'_>) -> bool {
    ///     record.timestamp_type() == ottla::TimestampType::LogAppendTime
    /// }
    /// ```
    pub fn timestamp_type(&self) -> TimestampType {
        self.batch.header().attributes.timestamp_type()
    }

    /// The key; `None` is Kafka's null.
    ///
    /// ```
    /// fn id(record: &ottla::RecordView<'_>) -> Option<u64> {
    ///     Some(u64::from_be_bytes(record.key()?.try_into().ok()?))
    /// }
    /// ```
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// The value; `None` is Kafka's null, which deletes its key from a compacted topic.
    ///
    /// ```
    /// fn is_tombstone(record: &ottla::RecordView<'_>) -> bool {
    ///     record.value().is_none()
    /// }
    /// ```
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// The headers, parsed as they are asked for.
    ///
    /// ```
    /// fn trace<'a>(record: &ottla::RecordView<'a>) -> Option<&'a [u8]> {
    ///     record.headers().last_named("trace")?.value()
    /// }
    /// ```
    pub fn headers(&self) -> Headers<'a> {
        Headers {
            rest: self.headers.bytes,
            left: self.headers.count,
        }
    }

    /// The epoch of the leader that wrote it, if the broker knows.
    ///
    /// ```
    /// fn epoch(record: &ottla::RecordView<'_>) -> i32 {
    ///     record.leader_epoch().unwrap_or(-1)
    /// }
    /// ```
    pub fn leader_epoch(&self) -> Option<i32> {
        Some(self.batch.header().partition_leader_epoch).filter(|&epoch| epoch >= 0)
    }

    /// The record as a value of its own. It shares the buffer of its batch instead of copying, and
    /// keeps all of it alive.
    ///
    /// ```
    /// fn keep(record: &ottla::RecordView<'_>, kept: &mut Vec<ottla::OwnedRecord>) {
    ///     kept.push(record.to_owned());
    /// }
    /// ```
    #[inline]
    pub fn to_owned(&self) -> OwnedRecord {
        let body = self.batch.body();
        OwnedRecord {
            batch: self.batch.clone(),
            offset: self.offset,
            timestamp: self.timestamp,
            key: Span::of(self.key, body),
            value: Span::of(self.value, body),
            headers: Span::of(Some(self.headers.bytes), body),
            headers_count: self.headers.count,
        }
    }
}

/// A place in the body of a batch, which is shorter than 2 GiB; or null.
#[derive(Clone, Copy)]
struct Span {
    start: u32,
    /// -1 for null.
    len: i32,
}

impl Span {
    #[inline]
    fn of(part: Option<&[u8]>, body: &[u8]) -> Self {
        match part {
            None => Self { start: 0, len: -1 },
            Some([]) => Self { start: 0, len: 0 },
            Some(part) => Self {
                start: (part.as_ptr() as usize).wrapping_sub(body.as_ptr() as usize) as u32,
                len: part.len() as i32,
            },
        }
    }

    #[inline]
    fn range(self) -> Option<Range<usize>> {
        let len = usize::try_from(self.len).ok()?;
        let start = self.start as usize;
        Some(start..start + len)
    }
}

impl fmt::Debug for RecordView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordView")
            .field("topic", &self.topic())
            .field("partition", &self.partition())
            .field("offset", &self.offset)
            .field("timestamp", &self.timestamp)
            .field("key", &Blob(self.key))
            .field("value", &Blob(self.value))
            .field("headers", &self.headers())
            .finish()
    }
}

/// The headers of a record that was read, in order, with duplicates: an iterator of [`Header`].
///
/// ```
/// fn names<'a>(record: &ottla::RecordView<'a>) -> Vec<&'a [u8]> {
///     record.headers().map(|header| header.name()).collect()
/// }
/// ```
#[derive(Clone)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: u32,
}

impl<'a> Headers<'a> {
    /// The last header of this name, which is the one that counts where one is expected.
    ///
    /// ```
    /// fn content_type<'a>(record: &'a ottla::OwnedRecord) -> Option<&'a [u8]> {
    ///     record.headers().last_named("content-type")?.value()
    /// }
    /// ```
    pub fn last_named(&self, name: &str) -> Option<Header<'a>> {
        self.clone()
            .filter(|header| header.name() == name.as_bytes())
            .last()
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        self.left = self.left.checked_sub(1)?;
        // Checked when the record was parsed, so there is no error to lose.
        let (name, value) = take_header(&mut self.rest).ok()?;
        Some(Header::from_parts(name, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Headers<'_> {}
impl FusedIterator for Headers<'_> {}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

/// A record that was read and stands on its own. Cloning it copies no bytes.
///
/// Its bytes are slices of the buffer of its batch, which stays in memory for as long as any of
/// them; what is to be kept for long is better copied out.
///
/// ```
/// fn shout(record: &ottla::OwnedRecord) {
///     let text = String::from_utf8_lossy(record.value().unwrap_or_default());
///     println!("{}: {}", record.offset(), text.to_uppercase());
/// }
/// ```
#[derive(Clone)]
pub struct OwnedRecord {
    batch: DecodedBatch,
    offset: i64,
    timestamp: i64,
    key: Span,
    value: Span,
    /// As in the batch, checked when the record was parsed.
    headers: Span,
    headers_count: u32,
}

impl OwnedRecord {
    #[inline]
    fn part(&self, span: Span) -> Option<&[u8]> {
        self.batch.body().get(span.range()?)
    }

    fn shared(&self, span: Span) -> Option<Bytes> {
        let part = self.part(span)?;
        Some(self.batch.body().slice_ref(part))
    }

    /// The topic it was read from.
    ///
    /// ```
    /// fn topic_of(record: &ottla::OwnedRecord) -> &str {
    ///     record.topic()
    /// }
    /// ```
    pub fn topic(&self) -> &str {
        self.batch.topic()
    }

    /// The partition it was read from.
    ///
    /// ```
    /// fn place(record: &ottla::OwnedRecord) -> (i32, i64) {
    ///     (record.partition(), record.offset())
    /// }
    /// ```
    pub fn partition(&self) -> i32 {
        self.batch.partition()
    }

    /// Its offset in the partition.
    ///
    /// ```
    /// fn resume_at(last: &ottla::OwnedRecord) -> i64 {
    ///     last.offset() + 1
    /// }
    /// ```
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Its timestamp; -1 ms if it has none.
    ///
    /// ```
    /// fn age_millis(record: &ottla::OwnedRecord, now: i64) -> i64 {
    ///     now - record.timestamp().as_millis()
    /// }
    /// ```
    pub fn timestamp(&self) -> Timestamp {
        Timestamp::from_millis(self.timestamp)
    }

    /// Who set the timestamp.
    ///
    /// ```
    /// fn is_set_by_broker(record: &ottla::OwnedRecord) -> bool {
    ///     record.timestamp_type() == ottla::TimestampType::LogAppendTime
    /// }
    /// ```
    pub fn timestamp_type(&self) -> TimestampType {
        self.batch.header().attributes.timestamp_type()
    }

    /// The epoch of the leader that wrote it, if the broker knows.
    ///
    /// ```
    /// fn epoch(record: &ottla::OwnedRecord) -> i32 {
    ///     record.leader_epoch().unwrap_or(-1)
    /// }
    /// ```
    pub fn leader_epoch(&self) -> Option<i32> {
        Some(self.batch.header().partition_leader_epoch).filter(|&epoch| epoch >= 0)
    }

    /// The key; `None` is Kafka's null.
    ///
    /// ```
    /// fn id(record: &ottla::OwnedRecord) -> Option<u64> {
    ///     Some(u64::from_be_bytes(record.key()?.try_into().ok()?))
    /// }
    /// ```
    pub fn key(&self) -> Option<&[u8]> {
        self.part(self.key)
    }

    /// The value; `None` is Kafka's null.
    ///
    /// ```
    /// fn is_tombstone(record: &ottla::OwnedRecord) -> bool {
    ///     record.value().is_none()
    /// }
    /// ```
    pub fn value(&self) -> Option<&[u8]> {
        self.part(self.value)
    }

    /// The key as a shared buffer.
    ///
    /// ```
    /// fn key_of(record: &ottla::OwnedRecord) -> Option<bytes::Bytes> {
    ///     record.key_bytes()
    /// }
    /// ```
    pub fn key_bytes(&self) -> Option<Bytes> {
        self.shared(self.key)
    }

    /// The value as a shared buffer.
    ///
    /// ```
    /// fn value_of(record: &ottla::OwnedRecord) -> Option<bytes::Bytes> {
    ///     record.value_bytes()
    /// }
    /// ```
    pub fn value_bytes(&self) -> Option<Bytes> {
        self.shared(self.value)
    }

    /// The headers, parsed as they are asked for.
    ///
    /// ```
    /// fn trace(record: &ottla::OwnedRecord) -> Option<&[u8]> {
    ///     record.headers().last_named("trace")?.value()
    /// }
    /// ```
    pub fn headers(&self) -> Headers<'_> {
        Headers {
            rest: self.part(self.headers).unwrap_or_default(),
            left: self.headers_count,
        }
    }
}

impl fmt::Debug for OwnedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedRecord")
            .field("topic", &self.topic())
            .field("partition", &self.partition())
            .field("offset", &self.offset)
            .field("timestamp", &self.timestamp)
            .field("key", &Blob(self.key()))
            .field("value", &Blob(self.value()))
            .field("headers", &self.headers())
            .finish()
    }
}
