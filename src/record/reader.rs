//! The batches of a Fetch answer: headers, checksums, decompression.
//!
//! Invariants: a batch is handed out only if all its bytes are there; a corrupt header ends the
//! iteration, since nothing after it can be found; no length is used before it is checked against
//! what is left.

use std::iter::FusedIterator;
use std::sync::Arc;

use bytes::Bytes;

use super::codec::CodecPool;
use super::codec_id::Codec;
use super::decoded::DecodedBatch;
use super::error::RecordError;
use super::header::{BatchHeader, CRC_FROM, HEADER_LEN, LENGTH_OVERHEAD, MAGIC, MAGIC_AT};
use super::sealed::crc32c;

/// The batches in the record bytes of one partition of a Fetch answer.
///
/// Brokers cut the bytes off at the limit asked for, so an incomplete batch at the end is normal:
/// it ends the iteration without an error and is fetched again. [`RecordBatches::truncated`] tells.
#[derive(Clone, Debug)]
pub(crate) struct RecordBatches {
    rest: Bytes,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    More,
    Truncated,
    Failed,
}

impl RecordBatches {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self {
            rest: bytes,
            state: State::More,
        }
    }

    /// Whether the iteration has ended at a batch that is not all there.
    #[cfg(any(test, feature = "mock"))]
    pub(crate) fn truncated(&self) -> bool {
        self.state == State::Truncated
    }

    /// How many bytes have not been handed out; after the end, those of the incomplete batch.
    pub(crate) fn remaining_bytes(&self) -> usize {
        self.rest.len()
    }

    /// How long the batch in front is, as far as its first bytes tell.
    fn next_len(&self) -> Result<Option<usize>, RecordError> {
        let Some(&magic) = self.rest.get(MAGIC_AT) else {
            return Ok(None);
        };
        let (base_offset, length) = match self.rest.split_first_chunk::<8>() {
            Some((offset, rest)) => (i64::from_be_bytes(*offset), rest.first_chunk::<4>()),
            None => return Ok(None),
        };
        let Some(length) = length else {
            return Ok(None);
        };
        let magic = magic as i8;
        if magic != MAGIC {
            return Err(RecordError::BadMagic { magic });
        }
        let len = usize::try_from(i32::from_be_bytes(*length))
            .ok()
            .and_then(|length| length.checked_add(LENGTH_OVERHEAD));
        match len {
            Some(len) if len >= HEADER_LEN => Ok((len <= self.rest.len()).then_some(len)),
            _ => Err(RecordError::Corrupt {
                what: "the batch is shorter than its header",
                offset: base_offset,
            }),
        }
    }

    fn take_batch(&mut self) -> Result<Option<RawBatch>, RecordError> {
        let Some(len) = self.next_len()? else {
            return Ok(None);
        };
        let Some(header) = self.rest.first_chunk().map(BatchHeader::decode) else {
            return Ok(None);
        };
        header.check()?;
        Ok(Some(RawBatch {
            header,
            bytes: self.rest.split_to(len),
        }))
    }
}

impl Iterator for RecordBatches {
    type Item = Result<RawBatch, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state != State::More || self.rest.is_empty() {
            return None;
        }
        match self.take_batch() {
            Ok(Some(batch)) => Some(Ok(batch)),
            Ok(None) => {
                self.state = State::Truncated;
                None
            }
            Err(error) => {
                self.state = State::Failed;
                Some(Err(error))
            }
        }
    }
}

impl FusedIterator for RecordBatches {}

/// A whole batch, its records still as they came: a slice of the fetched bytes.
#[derive(Clone, Debug)]
pub(crate) struct RawBatch {
    header: BatchHeader,
    bytes: Bytes,
}

/// Bounds on what reading a batch may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DecodeLimits {
    /// The most bytes that the records of one batch may take once decompressed.
    pub(crate) max_decompressed: usize,
}

impl RawBatch {
    pub(crate) fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The batch as it was fetched, header included.
    #[cfg(feature = "mock")]
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Compares the checksum with the bytes.
    pub(crate) fn verify_crc(&self) -> Result<(), RecordError> {
        let computed = crc32c(self.bytes.get(CRC_FROM..).unwrap_or_default());
        let expected = self.header.crc;
        if computed == expected {
            return Ok(());
        }
        Err(RecordError::CrcMismatch {
            expected,
            computed,
            base_offset: self.header.base_offset,
        })
    }

    /// Decompresses the records, if need be; otherwise they stay where they are. Does not check the
    /// checksum.
    pub(crate) fn decode(
        self,
        topic: Arc<str>,
        partition: i32,
        limits: DecodeLimits,
        pool: &CodecPool,
    ) -> Result<DecodedBatch, RecordError> {
        let header = self.header;
        let codec = header
            .attributes
            .codec()
            .ok_or_else(|| RecordError::UnknownCodec {
                id: header.attributes.codec_id(),
                offset: header.base_offset,
            })?;
        // `RecordBatches` hands out no batch shorter than its header, so this does not panic.
        let body = self.bytes.slice(HEADER_LEN.min(self.bytes.len())..);
        let body = if codec == Codec::None || body.is_empty() {
            body
        } else {
            pool.decompress(codec, &body, limits.max_decompressed)?
        };
        DecodedBatch::new(header, body, topic, partition)
    }
}
