//! Where codecs write to, and what they say of bytes that they cannot read.

use std::fmt;

use crate::record::codec_id::Codec;
use crate::record::error::RecordError;

/// A growing buffer with an end.
pub(super) struct Output {
    /// The decompressed bytes and, behind them, what is left of an older output: memory that need
    /// not be filled again before a codec writes to it.
    pub(super) bytes: Vec<u8>,
    pub(super) len: usize,
    pub(super) limit: usize,
}

/// What a buffer grows by at least, and the most a first guess may be.
#[cfg(any(feature = "gzip", feature = "zstd"))]
const MIN_GROWTH: usize = 4 << 10;
const MAX_FIRST_GUESS: usize = 1 << 20;

impl Output {
    pub(super) fn new(used: Option<Vec<u8>>, input_len: usize, limit: usize) -> Self {
        // Records compress to a third or a quarter; a guess only, bounded in itself and by the
        // limit.
        let guess = input_len.saturating_mul(4).min(MAX_FIRST_GUESS).min(limit);
        Self {
            bytes: used.unwrap_or_else(|| Vec::with_capacity(guess)),
            len: 0,
            limit,
        }
    }

    pub(super) fn too_large(&self) -> RecordError {
        RecordError::TooLarge { limit: self.limit }
    }

    /// How much more may come.
    pub(super) fn room(&self) -> usize {
        self.limit.saturating_sub(self.len)
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) -> Result<(), RecordError> {
        if bytes.len() > self.room() {
            return Err(self.too_large());
        }
        self.split(bytes.len()).1.copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }

    /// Returns what there is, and so many bytes behind it to be written to; the caller adds what it
    /// wrote to `len`.
    pub(super) fn split(&mut self, more: usize) -> (&[u8], &mut [u8]) {
        let end = self.len.saturating_add(more);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let front = self.bytes.get_mut(..end).unwrap_or_default();
        let (done, room) = front.split_at_mut_checked(self.len).unwrap_or_default();
        (done, room)
    }

    /// For codecs that append to a vector: has it end where the output does. They say what they
    /// have added by [`Output::grew`].
    pub(super) fn vec(&mut self) -> &mut Vec<u8> {
        self.bytes.truncate(self.len);
        &mut self.bytes
    }

    pub(super) fn grew(&mut self) {
        self.len = self.bytes.len();
    }

    /// Makes sure that there is spare capacity, and never more than one byte past the limit: that
    /// byte is how a stream that goes on is told from one that ends there. Fails once it has been
    /// written.
    #[cfg(any(feature = "gzip", feature = "zstd"))]
    pub(super) fn make_spare(&mut self) -> Result<(), RecordError> {
        if self.len > self.limit {
            return Err(self.too_large());
        }
        let growth = self.len.max(MIN_GROWTH).min(self.room().saturating_add(1));
        let bytes = self.vec();
        if bytes.len() == bytes.capacity() {
            bytes.reserve_exact(growth);
        }
        Ok(())
    }

    /// The decompressed bytes, without much spare capacity: they may live as long as the records
    /// made of them. A little is left, so that the memory is large enough for the next batch of
    /// about that size.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.truncate(self.len);
        if self.bytes.capacity() - self.len > self.len / 8 {
            self.bytes.shrink_to(self.len + self.len / 8);
        }
        self.bytes
    }
}

/// Splits `len` bytes off the front.
#[cfg(any(feature = "snappy", feature = "lz4"))]
pub(super) fn take<'a>(
    input: &mut &'a [u8],
    len: usize,
    codec: Codec,
) -> Result<&'a [u8], RecordError> {
    let (front, rest) = input
        .split_at_checked(len)
        .ok_or_else(|| truncated(codec))?;
    *input = rest;
    Ok(front)
}

/// Splits an array off the front.
#[cfg(any(feature = "snappy", feature = "lz4"))]
pub(super) fn take_array<const N: usize>(
    input: &mut &[u8],
    codec: Codec,
) -> Result<[u8; N], RecordError> {
    let (front, rest) = input.split_first_chunk().ok_or_else(|| truncated(codec))?;
    *input = rest;
    Ok(*front)
}

pub(super) fn truncated(codec: Codec) -> RecordError {
    RecordError::Decompress {
        codec,
        message: "the compressed data ends early".into(),
    }
}

pub(super) fn corrupt(codec: Codec, message: &(impl fmt::Display + ?Sized)) -> RecordError {
    RecordError::Decompress {
        codec,
        message: message.to_string(),
    }
}
