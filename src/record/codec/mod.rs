//! The codecs of record batches, with reused contexts and bounded output.
//!
//! A context is worth keeping: that of zstd is over a megabyte, that of gzip a quarter of one, and
//! setting one up costs more than compressing a small batch. Batches are compressed by whichever
//! task filled them, so contexts are kept in a pool of a few per kind instead of per thread: memory
//! is bounded by the pool, not by the number of runtime threads, and goes away with the client. The
//! pool's lock is taken for a push or a pop, twice per batch.
//!
//! Invariants:
//!
//! - Output never grows past the limit by more than a byte (gzip, zstd) or at all (snappy, lz4),
//!   and its buffer grows with the data: no length that the input claims is allocated before it is
//!   known to be possible.
//! - The memory of an output is used again only when nobody has a slice of it.
//! - A context whose last use failed is dropped, not put back.
//! - Checksums inside compressed data (lz4, zstd) are not verified: the CRC-32C of the batch covers
//!   the same bytes.

#[cfg(feature = "gzip")]
mod gzip;
#[cfg(feature = "lz4")]
mod lz4;
mod output;
#[cfg(feature = "snappy")]
mod snappy;
#[cfg(feature = "zstd")]
mod zstd;
// The C library reads frames by itself; only the pure-Rust decoder needs all of a header.
#[cfg_attr(all(feature = "zstd", not(test)), allow(dead_code))]
mod zstd_frame;
#[cfg(any(test, not(feature = "zstd")))]
mod zstd_pure;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::codec_id::Codec;
use super::compress::Compression;
use super::error::RecordError;
use output::Output;

/// Contexts of all codecs, kept for the next batch. Shared by everything in a client that
/// compresses or decompresses.
pub(crate) struct CodecPool {
    scratch: Idle<Vec<u8>>,
    outputs: Outputs,
    #[cfg(feature = "gzip")]
    deflate: Idle<gzip::Compressor>,
    #[cfg(feature = "gzip")]
    inflate: Idle<gzip::Decompressor>,
    #[cfg(feature = "snappy")]
    snappy: Idle<snappy::Compressor>,
    #[cfg(feature = "lz4")]
    lz4: Idle<lz4::Compressor>,
    #[cfg(feature = "zstd")]
    zstd_compress: Idle<zstd::Compressor>,
    #[cfg(feature = "zstd")]
    zstd_decompress: Idle<zstd::Decompressor>,
    #[cfg(not(feature = "zstd"))]
    zstd_decompress: Idle<zstd_pure::Decompressor>,
}

/// A scratch buffer larger than this is not kept.
const MAX_IDLE_SCRATCH: usize = 2 << 20;

impl CodecPool {
    /// A pool that keeps at most `max_idle` contexts of each kind; more may be in use at once.
    pub(crate) const fn new(max_idle: usize) -> Self {
        Self {
            scratch: Idle::new(max_idle),
            outputs: Outputs::new(MAX_KEPT),
            #[cfg(feature = "gzip")]
            deflate: Idle::new(max_idle),
            #[cfg(feature = "gzip")]
            inflate: Idle::new(max_idle),
            #[cfg(feature = "snappy")]
            snappy: Idle::new(max_idle),
            #[cfg(feature = "lz4")]
            lz4: Idle::new(max_idle),
            #[cfg(feature = "zstd")]
            zstd_compress: Idle::new(max_idle),
            zstd_decompress: Idle::new(max_idle),
        }
    }

    /// Keeps so many bytes of what was decompressed, at most, for the next batches.
    pub(crate) fn keeping(mut self, bytes: usize) -> Self {
        self.outputs.max = bytes;
        self
    }

    /// Compresses `input` and returns it behind `front` zero bytes, in the buffer that `buffer_for`
    /// gives for that size.
    ///
    /// `None` if the result would not be smaller than the input.
    pub(crate) fn compress(
        &self,
        compression: Compression,
        input: &[u8],
        front: usize,
        buffer_for: impl FnOnce(usize) -> Vec<u8>,
    ) -> Result<Option<Vec<u8>>, RecordError> {
        let mut scratch = self.scratch.take_or(Vec::new);
        scratch.clear();
        self.compress_into(compression, input, &mut scratch)?;
        // The scratch buffer is as large as the worst case; the batch that waits for its broker
        // should not be.
        let smaller = (scratch.len() < input.len()).then(|| {
            let mut buffer = buffer_for(front.saturating_add(scratch.len()));
            buffer.clear();
            buffer.resize(front, 0);
            buffer.extend_from_slice(&scratch);
            buffer
        });
        if scratch.capacity() <= MAX_IDLE_SCRATCH {
            self.scratch.put(scratch);
        }
        Ok(smaller)
    }

    fn compress_into(
        &self,
        compression: Compression,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), RecordError> {
        compression.check_available()?;
        match compression {
            Compression::None => output.extend_from_slice(input),
            #[cfg(feature = "gzip")]
            Compression::Gzip { level } => {
                let mut context = match self.deflate.take() {
                    Some(context) if context.level() == level => context,
                    _ => gzip::Compressor::new(level),
                };
                context.compress(input, output)?;
                self.deflate.put(context);
            }
            #[cfg(feature = "snappy")]
            Compression::Snappy => {
                let mut context = self.snappy.take_or(snappy::Compressor::new);
                context.compress(input, output)?;
                self.snappy.put(context);
            }
            #[cfg(feature = "lz4")]
            Compression::Lz4 => {
                let mut context = self.lz4.take_or(lz4::Compressor::new);
                context.compress(input, output)?;
                self.lz4.put(context);
            }
            #[cfg(feature = "zstd")]
            Compression::Zstd { level } => {
                let mut context = self.zstd_compress.take_or(zstd::Compressor::new);
                context.compress(level, input, output)?;
                if context.is_small() {
                    self.zstd_compress.put(context);
                }
            }
            // A codec without its feature, which `check_available` has refused.
            #[allow(unreachable_patterns)]
            _ => {}
        }
        Ok(())
    }

    /// Decompresses `input` into at most `limit` bytes.
    pub(crate) fn decompress(
        &self,
        codec: Codec,
        input: &[u8],
        limit: usize,
    ) -> Result<Bytes, RecordError> {
        let used = self.outputs.take(limit);
        let mut output = Output::new(used, input.len(), limit);
        match codec {
            Codec::None => output.extend(input)?,
            #[cfg(feature = "gzip")]
            Codec::Gzip => {
                let mut context = self.inflate.take_or(gzip::Decompressor::new);
                context.decompress(input, &mut output)?;
                self.inflate.put(context);
            }
            #[cfg(feature = "snappy")]
            Codec::Snappy => snappy::decompress(input, &mut output)?,
            #[cfg(feature = "lz4")]
            Codec::Lz4 => lz4::decompress(input, &mut output)?,
            #[cfg(feature = "zstd")]
            Codec::Zstd => {
                let mut context = self.zstd_decompress.take_or(zstd::Decompressor::new);
                context.decompress(input, &mut output)?;
                if context.is_small() {
                    self.zstd_decompress.put(context);
                }
            }
            #[cfg(not(feature = "zstd"))]
            Codec::Zstd => {
                let mut context = self.zstd_decompress.take_or(zstd_pure::Decompressor::new);
                context.decompress(input, &mut output)?;
                if context.is_small() {
                    self.zstd_decompress.put(context);
                }
            }
            #[cfg(not(feature = "gzip"))]
            Codec::Gzip => {
                return Err(RecordError::UnsupportedCodec {
                    codec,
                    feature: "gzip",
                });
            }
            #[cfg(not(feature = "snappy"))]
            Codec::Snappy => {
                return Err(RecordError::UnsupportedCodec {
                    codec,
                    feature: "snappy",
                });
            }
            #[cfg(not(feature = "lz4"))]
            Codec::Lz4 => {
                return Err(RecordError::UnsupportedCodec {
                    codec,
                    feature: "lz4",
                });
            }
        }
        let output = Bytes::from(output.finish());
        self.outputs.keep(&output);
        Ok(output)
    }
}

impl fmt::Debug for CodecPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodecPool")
            .field("max_idle", &self.scratch.max)
            .finish_non_exhaustive()
    }
}

/// Idle contexts of one kind, last used first.
struct Idle<T> {
    items: Mutex<Vec<T>>,
    max: usize,
}

impl<T> Idle<T> {
    const fn new(max: usize) -> Self {
        Self {
            items: Mutex::new(Vec::new()),
            max,
        }
    }

    fn take(&self) -> Option<T> {
        self.items
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    fn take_or(&self, create: impl FnOnce() -> T) -> T {
        self.take().unwrap_or_else(create)
    }

    fn put(&self, item: T) {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        if items.len() < self.max {
            items.push(item);
            return;
        }
        drop(items);
        drop(item); // outside the lock: freeing a context takes a while
    }
}

/// The memory of the last decompressed batches, for the next ones: fresh memory of their size comes
/// from the system page by page, which costs about as much as decompressing fast codecs.
struct Outputs {
    /// The most bytes to keep.
    max: usize,
    kept: Mutex<Kept>,
}

struct Kept {
    /// Outputs that were given out, in that order.
    given: VecDeque<Bytes>,
    /// Outputs that nobody has a slice of any more. The last one was in use last: it is the
    /// likeliest to be in a cache.
    free: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// What is kept of outputs unless said otherwise, and the least and the most that is worth it.
const MAX_KEPT: usize = 4 << 20;
const MIN_OUTPUT: usize = 64 << 10;
const MAX_OUTPUT: usize = 2 << 20;

impl Outputs {
    const fn new(max: usize) -> Self {
        Self {
            max,
            kept: Mutex::new(Kept {
                given: VecDeque::new(),
                free: VecDeque::new(),
                bytes: 0,
            }),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An old output that nobody has a slice of any more; never one larger than the limit.
    fn take(&self, limit: usize) -> Option<Vec<u8>> {
        let mut kept = self.kept();
        // Faster than they are taken, or else they would pile up there.
        for _ in 0..2 {
            if !kept.given.front().is_some_and(Bytes::is_unique) {
                break;
            }
            match kept.given.pop_front()?.try_into_mut() {
                Ok(free) => kept.free.push_back(Vec::from(free)),
                Err(held) => kept.bytes -= held.len(),
            }
        }
        let bytes = kept.free.pop_back()?;
        kept.bytes -= bytes.len();
        Some(bytes).filter(|bytes| bytes.capacity() <= limit)
    }

    fn keep(&self, output: &Bytes) {
        if !(MIN_OUTPUT..=MAX_OUTPUT).contains(&output.len()) {
            return;
        }
        let mut kept = self.kept();
        kept.bytes += output.len();
        kept.given.push_back(output.clone());
        while kept.bytes > self.max {
            let free = kept.free.pop_front().map(|bytes| bytes.len());
            let oldest = free.or_else(|| kept.given.pop_front().map(|bytes| bytes.len()));
            kept.bytes -= oldest.unwrap_or(kept.bytes);
        }
    }
}

#[cfg(test)]
mod tests;
