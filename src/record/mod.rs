//! Records and the batches that carry them: Kafka's record format v2, written and read in one pass.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`Record`], [`Header`]: what an application sends |
//! | `view.rs` | [`RecordView`], [`OwnedRecord`], [`Headers`]: what it reads |
//! | `writer.rs` | `BatchWriter`: appends records to one buffer |
//! | `sealed.rs`, `split.rs` | `SealedBatch`: a full batch; stamped with the producer's identity, split when too large |
//! | `header.rs` | the 61 bytes in front of every batch |
//! | `reader.rs` | `RecordBatches`, `RawBatch`: the batches of a Fetch answer |
//! | `decoded.rs`, `records.rs`, `parse.rs` | `DecodedBatch`, `Records`: the records of one batch, and their fields |
//! | `codec_id.rs`, `compress.rs`, `codec/` | [`Compression`] and the four codecs, with bounded output and reused contexts |
//! | `pool.rs` | `BufferPool`: the buffers of batches that ended, for those to come |
//! | `varint.rs`, `error.rs` | numbers, errors |
//!
//! Invariants:
//!
//! - *One copy.* A record's bytes are copied once when sent (into the batch) and not at all when
//!   read: keys, values and headers are slices of the fetched or decompressed buffer.
//! - *No allocation per record*, neither on append into a buffer with room nor on reading by
//!   reference.
//! - *Nothing is lost.* Order and duplicates of headers, null and empty, names that are not UTF-8,
//!   offsets left out by compaction: all of it survives a round trip.
//! - *No byte is trusted.* Lengths and counts are checked against what is there before they are
//!   used; decompression is bounded while it runs.
#![deny(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used
)]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used,
        clippy::expect_used
    )
)]

mod codec;
mod codec_id;
mod compress;
mod decoded;
mod error;
mod header;
#[cfg(feature = "unstable-internals")]
pub(crate) mod internals;
mod parse;
pub(crate) mod pool;
mod reader;
mod records;
mod sealed;
mod split;
#[cfg(test)]
mod tests;
mod varint;
mod view;
mod writer;

use std::fmt;
use std::str::Utf8Error;

use crate::types::Timestamp;

pub(crate) use self::codec::CodecPool;
pub use self::codec_id::Codec;
pub use self::compress::{Compression, InvalidCompression};
pub(crate) use self::decoded::DecodedBatch;
pub(crate) use self::error::RecordError;
pub(crate) use self::header::BatchHeader;
#[cfg(test)]
pub(crate) use self::header::HEADER_LEN;
pub(crate) use self::reader::{DecodeLimits, RawBatch, RecordBatches};
pub(crate) use self::records::{ControlType, RecordCursor, Records};
#[cfg(feature = "mock")]
pub(crate) use self::sealed::as_control;
pub(crate) use self::sealed::{ProducerStamp, SealedBatch};
pub use self::view::{Headers, OwnedRecord, RecordView};
pub(crate) use self::writer::BatchWriter;

/// A record to send. It borrows all its bytes, since they are copied into a batch at once.
///
/// Only the topic is needed. A record without a key is spread over the partitions by the
/// partitioner, one without a value is a *tombstone* in a compacted topic, one without a timestamp
/// gets the time at which it is sent.
///
/// ```
/// use ottla::Record;
///
/// let payload = vec![1, 2, 3];
/// let record = Record::to("orders").with_key("customer-7").with_value(&payload).with_header("trace", "4bf92f35");
/// assert_eq!(record.topic(), "orders");
/// assert_eq!(record.headers().len(), 1);
/// ```
#[derive(Clone)]
pub struct Record<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: Option<i32>,
    pub(crate) timestamp: Option<i64>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Vec<Header<'a>>,
}

impl<'a> Record<'a> {
    /// A record for `topic` with neither key nor value.
    ///
    /// ```
    /// let tombstone = ottla::Record::to("customers").with_key("customer-7");
    /// assert!(tombstone.value().is_none());
    /// ```
    pub fn to(topic: &'a str) -> Self {
        Self {
            topic,
            partition: None,
            timestamp: None,
            key: None,
            value: None,
            headers: Vec::new(),
        }
    }

    /// A record without a topic, for a [`TopicProducer`](crate::TopicProducer).
    ///
    /// ```
    /// let record = ottla::Record::new().with_key("customer-7").with_value("2 apples");
    /// assert_eq!(record.topic(), "");
    /// ```
    #[allow(clippy::new_without_default)] // an empty record is nobody's default
    pub fn new() -> Self {
        Self::to("")
    }

    /// Sets the key.
    ///
    /// ```
    /// let id = 42_u64.to_be_bytes();
    /// let record = ottla::Record::to("orders").with_key(&id);
    /// assert_eq!(record.key().map(<[u8]>::len), Some(8));
    /// ```
    pub fn with_key<B: AsRef<[u8]> + ?Sized>(mut self, key: &'a B) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// Sets the value.
    ///
    /// ```
    /// let record = ottla::Record::to("orders").with_value("paid");
    /// assert_eq!(record.value(), Some(&b"paid"[..]));
    /// ```
    pub fn with_value<B: AsRef<[u8]> + ?Sized>(mut self, value: &'a B) -> Self {
        self.value = Some(value.as_ref());
        self
    }

    /// Sends to this partition instead of the one the partitioner would choose.
    ///
    /// ```
    /// assert_eq!(ottla::Record::to("orders").with_partition(3).partition(), Some(3));
    /// ```
    pub fn with_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the timestamp; without one it is the time of sending.
    ///
    /// ```
    /// use ottla::{Record, Timestamp};
    /// let time = Timestamp::from_millis(1_700_000_000_000);
    /// assert_eq!(Record::to("orders").with_timestamp(time).timestamp(), Some(time));
    /// ```
    pub fn with_timestamp(mut self, time: impl Into<Timestamp>) -> Self {
        self.timestamp = Some(time.into().as_millis());
        self
    }

    /// Adds a header. Names may repeat; order is kept.
    ///
    /// ```
    /// let record = ottla::Record::to("orders").with_header("via", "a").with_header("via", "b");
    /// let values: Vec<_> = record.headers().iter().map(|header| header.value()).collect();
    /// assert_eq!(values, [Some(&b"a"[..]), Some(&b"b"[..])]);
    /// ```
    pub fn with_header<B: AsRef<[u8]> + ?Sized>(self, name: &'a str, value: &'a B) -> Self {
        self.push_header(Header::new(name, value))
    }

    /// Adds a header whose value is null, which Kafka tells apart from empty.
    ///
    /// ```
    /// let record = ottla::Record::to("orders").with_null_header("retried");
    /// assert_eq!(record.headers()[0].value(), None);
    /// ```
    pub fn with_null_header(self, name: &'a str) -> Self {
        self.push_header(Header::null(name))
    }

    /// Adds a header as it was read, for forwarding without loss.
    ///
    /// ```
    /// let header = ottla::Header::from_parts(b"not utf-8: \xff", Some(b"x"));
    /// let record = ottla::Record::to("mirror").push_header(header);
    /// assert_eq!(record.headers(), [header]);
    /// ```
    pub fn push_header(mut self, header: Header<'a>) -> Self {
        self.headers.push(header);
        self
    }

    /// The topic.
    ///
    /// ```
    /// assert_eq!(ottla::Record::to("orders").topic(), "orders");
    /// ```
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The partition asked for.
    ///
    /// ```
    /// assert_eq!(ottla::Record::to("orders").partition(), None);
    /// ```
    pub fn partition(&self) -> Option<i32> {
        self.partition
    }

    /// The timestamp set.
    ///
    /// ```
    /// assert_eq!(ottla::Record::to("orders").timestamp(), None);
    /// ```
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.timestamp.map(Timestamp::from_millis)
    }

    /// The key.
    ///
    /// ```
    /// assert_eq!(ottla::Record::to("orders").with_key("k").key(), Some(&b"k"[..]));
    /// ```
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// The value.
    ///
    /// ```
    /// assert_eq!(ottla::Record::to("orders").with_value("").value(), Some(&b""[..]));
    /// ```
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// The headers, in the order in which they were added.
    ///
    /// ```
    /// assert!(ottla::Record::to("orders").headers().is_empty());
    /// ```
    pub fn headers(&self) -> &[Header<'a>] {
        &self.headers
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("timestamp", &self.timestamp)
            .field("key", &Blob(self.key))
            .field("value", &Blob(self.value))
            .field("headers", &self.headers)
            .finish()
    }
}

/// One header of a record: a name and a value that may be null.
///
/// Kafka sends names as UTF-8, but brokers do not check it, so a name that was read is bytes.
///
/// ```
/// use ottla::Header;
///
/// let header = Header::new("content-type", "text/plain");
/// assert_eq!(header.name(), b"content-type");
/// assert_eq!(header.name_str(), Ok("content-type"));
/// assert_eq!(header.value(), Some(&b"text/plain"[..]));
/// ```
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Header<'a> {
    name: &'a [u8],
    value: Option<&'a [u8]>,
}

impl<'a> Header<'a> {
    /// A header with a value.
    ///
    /// ```
    /// assert_eq!(ottla::Header::new("n", "v").value(), Some(&b"v"[..]));
    /// ```
    pub fn new<B: AsRef<[u8]> + ?Sized>(name: &'a str, value: &'a B) -> Self {
        Self {
            name: name.as_bytes(),
            value: Some(value.as_ref()),
        }
    }

    /// A header whose value is null.
    ///
    /// ```
    /// assert_eq!(ottla::Header::null("n").value(), None);
    /// ```
    pub fn null(name: &'a str) -> Self {
        Self {
            name: name.as_bytes(),
            value: None,
        }
    }

    /// A header of any bytes.
    ///
    /// ```
    /// assert!(ottla::Header::from_parts(b"\xff", None).name_str().is_err());
    /// ```
    pub fn from_parts(name: &'a [u8], value: Option<&'a [u8]>) -> Self {
        Self { name, value }
    }

    /// The name's bytes.
    ///
    /// ```
    /// assert_eq!(ottla::Header::null("n").name(), b"n");
    /// ```
    pub fn name(&self) -> &'a [u8] {
        self.name
    }

    /// The name as text.
    ///
    /// # Errors
    ///
    /// If the name, as it was read, is not UTF-8.
    ///
    /// ```
    /// assert_eq!(ottla::Header::null("n").name_str(), Ok("n"));
    /// ```
    pub fn name_str(&self) -> Result<&'a str, Utf8Error> {
        std::str::from_utf8(self.name)
    }

    /// The value; `None` is Kafka's null.
    ///
    /// ```
    /// assert_eq!(ottla::Header::new("n", "").value(), Some(&b""[..]));
    /// ```
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }
}

impl fmt::Debug for Header<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}: {:?}",
            String::from_utf8_lossy(self.name),
            Blob(self.value)
        )
    }
}

/// Who set the timestamp of a record.
///
/// ```
/// assert_ne!(ottla::TimestampType::CreateTime, ottla::TimestampType::LogAppendTime);
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum TimestampType {
    /// The producer (`message.timestamp.type=CreateTime`, the default of topics).
    CreateTime,
    /// The broker, when it appended the batch (`message.timestamp.type=LogAppendTime`).
    LogAppendTime,
}

/// Shows bytes by their length: a log line with a record in it must not become megabytes, nor leak
/// what is in it.
struct Blob<'a>(Option<&'a [u8]>);

impl fmt::Debug for Blob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{} B", bytes.len()),
            None => f.write_str("null"),
        }
    }
}
