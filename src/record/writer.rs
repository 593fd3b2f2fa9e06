//! Appends records to one buffer, as a batch of format v2.
//!
//! Invariants: a record is in the buffer whole or not at all; the first 61 bytes stay free for the
//! header; offsets within the batch are 0, 1, 2, …, in the order of the appends.

use super::Header;
use super::codec::CodecPool;
use super::codec_id::Codec;
use super::compress::Compression;
use super::error::RecordError;
use super::header::HEADER_LEN;
use super::sealed::SealedBatch;
use super::varint::{MAX_LEN_32, MAX_LEN_64, Packed, Stack, len_i32, len_i64};

/// A batch that is still open. It needs no clock, no identity and no lock: all of that is its
/// caller's.
#[derive(Debug)]
pub(crate) struct BatchWriter {
    buffer: Vec<u8>,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
}

/// The most bytes a batch can have: its length is an `i32`.
const MAX_BATCH_LEN: usize = i32::MAX as usize;

/// Everything in front of a key: length, attributes, timestamp delta, offset delta, key length.
const MAX_HEAD_LEN: usize = MAX_LEN_32 + 1 + MAX_LEN_64 + MAX_LEN_32 + MAX_LEN_32;

/// The attributes of single records, which the format reserves.
const RECORD_ATTRIBUTES: u8 = 0;

/// The numbers of a record that depend on its place in the batch.
struct Shape {
    timestamp_delta: i64,
    offset_delta: i32,
    /// Of what follows the length.
    body_len: i32,
    /// With the length.
    total_len: usize,
}

impl Shape {
    /// What comes before the key, with the length of the key: as is usual, in 9 bytes at most.
    #[inline(always)]
    fn packed_head(&self, key: Option<&[u8]>) -> Option<Packed> {
        Packed::EMPTY
            .with_i64(i64::from(self.body_len))?
            .with_u8(RECORD_ATTRIBUTES)
            .with_i64(self.timestamp_delta)?
            .with_i64(i64::from(self.offset_delta))?
            .with_i64(bytes_or_null_len(key))
    }

    /// What comes before the length of the key.
    fn head(&self) -> Stack<MAX_HEAD_LEN> {
        let mut head = Stack::new();
        head.put_i32(self.body_len);
        head.put_u8(RECORD_ATTRIBUTES);
        head.put_i64(self.timestamp_delta);
        head.put_i32(self.offset_delta);
        head
    }
}

impl BatchWriter {
    /// An empty batch with room for `capacity` bytes, header included.
    pub(crate) fn new(capacity: usize) -> Self {
        Self::with_buffer(Vec::with_capacity(capacity.max(HEADER_LEN)))
    }

    /// An empty batch in a buffer that has been used before.
    pub(crate) fn with_buffer(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.resize(HEADER_LEN, 0);
        Self {
            buffer,
            count: 0,
            base_timestamp: 0,
            max_timestamp: 0,
        }
    }

    /// How many bytes [`BatchWriter::append`] would add for this record now.
    pub(crate) fn size_of(
        &self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<usize, RecordError> {
        self.shape(timestamp, key, value, headers)
            .map(|shape| shape.total_len)
    }

    /// At least as many bytes as this record takes in any batch.
    pub(crate) fn upper_bound(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> usize {
        let bytes_len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        headers.iter().fold(
            (MAX_HEAD_LEN + 2 * MAX_LEN_32)
                .saturating_add(bytes_len(key))
                .saturating_add(bytes_len(value)),
            |sum, header| {
                sum.saturating_add(2 * MAX_LEN_32)
                    .saturating_add(header.name().len())
                    .saturating_add(bytes_len(header.value()))
            },
        )
    }

    /// Appends a record and gives its index in the batch. The timestamp of the first becomes that
    /// of the batch.
    ///
    /// Grows the buffer if the record does not fit: callers who bound it ask
    /// [`BatchWriter::size_of`] first.
    #[inline]
    pub(crate) fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<u32, RecordError> {
        let shape = self.shape(timestamp, key, value, headers)?;
        Ok(self.put(&shape, timestamp, key, value, headers))
    }

    /// Appends a record if the batch is not larger than `limit` bytes then; `None` if it would be,
    /// or if the record does not go into this batch at all.
    #[inline(always)]
    pub(crate) fn append_within(
        &mut self,
        limit: usize,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Option<u32> {
        let shape = self.shape(timestamp, key, value, headers).ok()?;
        let fits = self.buffer.len().saturating_add(shape.total_len) <= limit;
        fits.then(|| self.put(&shape, timestamp, key, value, headers))
    }

    #[inline(always)]
    fn put(
        &mut self,
        shape: &Shape,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> u32 {
        let index = self.count;
        if index == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        } else {
            self.max_timestamp = self.max_timestamp.max(timestamp);
        }
        self.count += 1;

        // All growth is here; what follows never reallocates.
        self.buffer.reserve(shape.total_len);
        match shape.packed_head(key) {
            Some(head) => {
                head.append_to(&mut self.buffer);
                self.buffer.extend_from_slice(key.unwrap_or_default());
            }
            None => {
                self.buffer.extend_from_slice(shape.head().as_slice());
                put_bytes(&mut self.buffer, key);
            }
        }
        put_bytes(&mut self.buffer, value);
        put_headers(&mut self.buffer, headers);
        index
    }

    #[inline(always)]
    fn shape(
        &self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<Shape, RecordError> {
        let too_large = RecordError::TooLarge {
            limit: MAX_BATCH_LEN,
        };
        let base_timestamp = if self.count == 0 {
            timestamp
        } else {
            self.base_timestamp
        };
        let Some(timestamp_delta) = timestamp.checked_sub(base_timestamp) else {
            return Err(RecordError::TimestampOutOfRange {
                timestamp,
                base_timestamp,
            });
        };
        let Ok(offset_delta) = i32::try_from(self.count) else {
            return Err(too_large);
        };
        // Slices are at most half of the address space, so two of them and a few bytes do not
        // overflow; headers may.
        let body_len = (1 + len_i64(timestamp_delta) + len_i32(offset_delta))
            .saturating_add(bytes_len(key))
            .saturating_add(bytes_len(value))
            .saturating_add(headers_len(headers));
        if body_len > MAX_BATCH_LEN {
            return Err(too_large);
        }
        let body_len_i32 = body_len as i32; // fits: checked above
        let total_len = len_i32(body_len_i32).saturating_add(body_len);
        if total_len > MAX_BATCH_LEN.saturating_sub(self.buffer.len()) {
            return Err(too_large);
        }
        Ok(Shape {
            timestamp_delta,
            offset_delta,
            body_len: body_len_i32,
            total_len,
        })
    }

    /// Closes the batch, which has records, and leaves them as they are.
    pub(crate) fn seal_plain(self) -> SealedBatch {
        debug_assert!(self.count > 0);
        let len = self.buffer.len();
        self.sealed(Codec::None, len)
    }

    /// A batch of what the buffer holds now.
    fn sealed(self, codec: Codec, uncompressed_len: usize) -> SealedBatch {
        SealedBatch::new(
            self.buffer,
            codec,
            self.count,
            self.base_timestamp,
            self.max_timestamp,
            uncompressed_len,
        )
    }

    /// Closes the batch and compresses its records.
    ///
    /// If they do not get smaller they stay as they are, and the batch says so: Java sends the
    /// larger form, but this one costs less on the wire and saves every reader the work, and what
    /// was measured against `max.request.size` before stays true.
    pub(crate) fn seal(
        self,
        compression: Compression,
        pool: &CodecPool,
    ) -> Result<SealedBatch, RecordError> {
        self.seal_into(compression, pool, Vec::with_capacity)
            .map(|(batch, _)| batch)
    }

    /// Seals the batch, compressed into the buffer that `buffer_for` gives for so many bytes.
    /// Returns the writer's own buffer too if it is not needed any more.
    pub(crate) fn seal_into(
        mut self,
        compression: Compression,
        pool: &CodecPool,
        buffer_for: impl FnOnce(usize) -> Vec<u8>,
    ) -> Result<(SealedBatch, Option<Vec<u8>>), RecordError> {
        if self.count == 0 {
            return Err(RecordError::Empty);
        }
        let uncompressed_len = self.buffer.len();
        let records = self.buffer.get(HEADER_LEN..).unwrap_or_default();
        let compressed = match compression {
            Compression::None => None,
            _ => pool.compress(compression, records, HEADER_LEN, buffer_for)?,
        };
        let (codec, spare) = match compressed {
            Some(buffer) => {
                let spare = std::mem::replace(&mut self.buffer, buffer);
                (compression.codec(), Some(spare))
            }
            None => (Codec::None, None),
        };
        Ok((self.sealed(codec, uncompressed_len), spare))
    }

    /// Bytes so far, header included: what the batch takes uncompressed.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes that fit without growing the buffer, those so far included.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Goes on in another buffer; gives the old one.
    pub(crate) fn move_to(&mut self, mut buffer: Vec<u8>) -> Vec<u8> {
        buffer.clear();
        buffer.extend_from_slice(&self.buffer);
        std::mem::replace(&mut self.buffer, buffer)
    }

    /// Records so far.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The timestamp of the first record.
    #[cfg(test)]
    pub(crate) fn base_timestamp(&self) -> Option<i64> {
        (self.count > 0).then_some(self.base_timestamp)
    }

    /// The latest timestamp so far.
    #[cfg(test)]
    pub(crate) fn max_timestamp(&self) -> Option<i64> {
        (self.count > 0).then_some(self.max_timestamp)
    }
}

/// What [`put_bytes`] writes for them.
#[inline]
fn bytes_len(bytes: Option<&[u8]>) -> usize {
    match bytes {
        // Beyond `i32` the sum is refused, so a length cut off here is never written.
        Some(bytes) => len_i32(bytes.len() as i32).saturating_add(bytes.len()),
        None => 1,
    }
}

#[inline]
fn headers_len(headers: &[Header<'_>]) -> usize {
    if headers.is_empty() {
        return 1;
    }
    headers
        .iter()
        .fold(len_i32(headers.len() as i32), |sum, header| {
            sum.saturating_add(bytes_len(Some(header.name())))
                .saturating_add(bytes_len(header.value()))
        })
}

/// A length as it is written: -1 for null.
#[inline(always)]
fn bytes_or_null_len(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(-1, |bytes| bytes.len() as i64)
}

/// Writes the bytes behind their length, or -1 for null.
#[inline(always)]
fn put_bytes(buffer: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_number(buffer, bytes_or_null_len(bytes));
    buffer.extend_from_slice(bytes.unwrap_or_default());
}

#[inline(always)]
fn put_number(buffer: &mut Vec<u8>, value: i64) {
    match Packed::EMPTY.with_i64(value) {
        Some(packed) => packed.append_to(buffer),
        None => {
            let mut stack = Stack::<MAX_LEN_64>::new();
            stack.put_i64(value);
            buffer.extend_from_slice(stack.as_slice());
        }
    }
}

#[inline]
fn put_headers(buffer: &mut Vec<u8>, headers: &[Header<'_>]) {
    if headers.is_empty() {
        buffer.push(0);
        return;
    }
    put_number(buffer, headers.len() as i64);
    for header in headers {
        put_bytes(buffer, Some(header.name()));
        put_bytes(buffer, header.value());
    }
}
