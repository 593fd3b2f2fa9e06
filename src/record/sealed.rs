//! A full batch: compressed once, stamped whenever it is sent.
//!
//! Invariants: compression and stamping are apart, since the one is the work of the task that
//! filled the batch and the other needs the producer's identity and the sequence, which may change
//! before a retry; a batch that goes out again under the same stamp is the same bytes, not a copy.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::codec::CodecPool;
use super::codec_id::Codec;
use super::decoded::DecodedBatch;
use super::error::RecordError;
use super::header::{
    Attributes, BatchHeader, CRC_AT, CRC_FROM, HEADER_LEN, LENGTH_OVERHEAD, MAGIC,
};

/// Who sends a batch and as which part of its stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ProducerStamp {
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    /// The sequence of the first record.
    pub(crate) base_sequence: i32,
    pub(crate) transactional: bool,
}

impl ProducerStamp {
    /// Without idempotence.
    pub(crate) const NONE: Self = Self {
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        transactional: false,
    };
}

/// A closed batch: header and records in one buffer.
#[derive(Debug)]
pub(crate) struct SealedBatch {
    buffer: Buffer,
    codec: Codec,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    uncompressed_len: usize,
}

enum Buffer {
    /// The header is still to be written.
    Unstamped(Vec<u8>),
    Stamped(ProducerStamp, Bytes),
}

impl SealedBatch {
    pub(super) fn new(
        buffer: Vec<u8>,
        codec: Codec,
        count: u32,
        base_timestamp: i64,
        max_timestamp: i64,
        uncompressed_len: usize,
    ) -> Self {
        let buffer = Buffer::Unstamped(buffer);
        Self {
            buffer,
            codec,
            count,
            base_timestamp,
            max_timestamp,
            uncompressed_len,
        }
    }

    /// The batch as it goes into a Produce request: with header and checksum.
    ///
    /// Under the stamp it already has this costs a reference count. Under another it is written
    /// again: in place if no request holds the old bytes any more, in a copy otherwise.
    pub(crate) fn stamp(&mut self, stamp: ProducerStamp) -> Bytes {
        let bytes = match std::mem::replace(&mut self.buffer, Buffer::Unstamped(Vec::new())) {
            Buffer::Stamped(present, bytes) if present == stamp => bytes,
            Buffer::Stamped(_, bytes) => {
                let mut bytes = bytes
                    .try_into_mut()
                    .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
                self.write_header(&mut bytes, stamp);
                bytes.freeze()
            }
            Buffer::Unstamped(mut buffer) => {
                self.write_header(&mut buffer, stamp);
                Bytes::from(buffer)
            }
        };
        self.buffer = Buffer::Stamped(stamp, bytes.clone());
        bytes
    }

    /// The buffer, for another batch; `None` if a request still holds it.
    pub(crate) fn into_buffer(self) -> Option<Vec<u8>> {
        match self.buffer {
            Buffer::Unstamped(buffer) => Some(buffer),
            Buffer::Stamped(_, bytes) => bytes.is_unique().then(|| Vec::from(bytes)),
        }
    }

    fn write_header(&self, bytes: &mut [u8], stamp: ProducerStamp) {
        let header = self.header(bytes.len(), stamp).encode();
        if let Some(front) = bytes.first_chunk_mut() {
            *front = header;
        }
        let crc = crc32c(bytes.get(CRC_FROM..).unwrap_or_default());
        if let Some(place) = bytes.get_mut(CRC_AT..CRC_FROM) {
            place.copy_from_slice(&crc.to_be_bytes());
        }
    }

    /// All but the checksum. The lengths fit: the writer refuses records beyond `i32::MAX` bytes in
    /// all.
    fn header(&self, len: usize, stamp: ProducerStamp) -> BatchHeader {
        BatchHeader {
            base_offset: 0,
            batch_length: len.saturating_sub(LENGTH_OVERHEAD) as i32,
            partition_leader_epoch: -1,
            magic: MAGIC,
            crc: 0,
            attributes: Attributes::new(self.codec, stamp.transactional),
            last_offset_delta: self.count.saturating_sub(1) as i32,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: stamp.producer_id,
            producer_epoch: stamp.producer_epoch,
            base_sequence: stamp.base_sequence,
            records_count: self.count as i32,
        }
    }

    /// The records again, uncompressed, under offsets from 0.
    pub(super) fn decode(&self, pool: &CodecPool) -> Result<DecodedBatch, RecordError> {
        let bytes = match &self.buffer {
            Buffer::Unstamped(buffer) => Bytes::copy_from_slice(buffer),
            Buffer::Stamped(_, bytes) => bytes.clone(),
        };
        let header = self.header(bytes.len(), ProducerStamp::NONE);
        let body = bytes.slice(HEADER_LEN.min(bytes.len())..);
        let body = match self.codec {
            Codec::None => body,
            codec => pool.decompress(codec, &body, self.uncompressed_len)?,
        };
        DecodedBatch::new(header, body, Arc::from(""), -1)
    }

    /// Records in it.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Bytes as sent, header included.
    pub(crate) fn len(&self) -> usize {
        match &self.buffer {
            Buffer::Unstamped(buffer) => buffer.len(),
            Buffer::Stamped(_, bytes) => bytes.len(),
        }
    }

    /// Bytes before compression, header included.
    pub(crate) fn uncompressed_len(&self) -> usize {
        self.uncompressed_len
    }

    /// The codec that was used: none if the one asked for did not help.
    #[cfg(test)]
    pub(crate) fn codec(&self) -> Codec {
        self.codec
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unstamped(buffer) => write!(f, "{} B, not stamped", buffer.len()),
            Self::Stamped(stamp, bytes) => write!(f, "{} B, {stamp:?}", bytes.len()),
        }
    }
}

/// The batch as one of control records, which say how transactions ended.
#[cfg(feature = "mock")]
pub(crate) fn as_control(batch: &[u8]) -> Bytes {
    const ATTRIBUTES_LOW: usize = 22;
    const CONTROL: u8 = 1 << 5;
    let mut bytes = BytesMut::from(batch);
    if let Some(attributes) = bytes.get_mut(ATTRIBUTES_LOW) {
        *attributes |= CONTROL;
    }
    let crc = crc32c(bytes.get(CRC_FROM..).unwrap_or_default());
    if let Some(place) = bytes.get_mut(CRC_AT..CRC_FROM) {
        place.copy_from_slice(&crc.to_be_bytes());
    }
    bytes.freeze()
}

/// The checksum of batches.
///
/// `crc-fast` against `crc32c`, measured on one x86-64 core with AVX-512 (`benches/record.rs`): 42
/// and 60 ns for 1 KiB, 0.30 and 0.73 µs for 16 KiB, 1.2 and 2.9 µs for 64 KiB, 21 and 52 µs for 1
/// MiB. At 100 bytes a record the difference is 2.5 ns of each, on either side, which is more than
/// a tenth of reading one.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}
