//! Zstandard, decoding only, by the pure-Rust `ruzstd`: for builds without the C library.

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::zstd_frame::{check_header, skippable_len};
use super::{Output, corrupt, truncated};
use crate::record::compress::Codec;
use crate::record::error::RecordError;

/// This decoder keeps a whole window of output to itself before it gives any away, so unlike in the C library the limit of
/// the output is a limit of the window as well. But windows of 8 MiB, which the format asks every decoder to support, are
/// read always: writers that do not know the length of a batch claim them for small ones.
const MIN_MAX_WINDOW: u64 = 8 << 20;
/// The window of level 22.
const MAX_WINDOW: u64 = 128 << 20;

pub(super) struct Decompressor {
    context: FrameDecoder,
    small: bool,
}

impl Decompressor {
    pub(super) fn new() -> Self {
        Self {
            context: FrameDecoder::new(),
            small: true,
        }
    }

    /// Decompresses one or more frames.
    pub(super) fn decompress(
        &mut self,
        mut input: &[u8],
        output: &mut Output,
    ) -> Result<(), RecordError> {
        let limit = (output.limit as u64).clamp(MIN_MAX_WINDOW, MAX_WINDOW);
        // Rounded up: a window is what a frame may need, not what it has.
        let window = limit.checked_next_power_of_two().unwrap_or(MAX_WINDOW);
        self.context.set_max_window_size(window);
        loop {
            match skippable_len(input)? {
                Some(len) => input = input.get(len..).ok_or_else(|| truncated(Codec::Zstd))?,
                None => self.frame(&mut input, output)?,
            }
            if input.is_empty() {
                return Ok(());
            }
        }
    }

    fn frame(&mut self, input: &mut &[u8], output: &mut Output) -> Result<(), RecordError> {
        let failed = |error| corrupt(Codec::Zstd, &error);
        self.small &= check_header(input, output)?.window <= MIN_MAX_WINDOW;
        self.context.reset(&mut *input).map_err(failed)?;
        loop {
            let finished = self.context.is_finished();
            if !finished {
                self.context
                    .decode_blocks(&mut *input, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(failed)?;
            }
            if self.context.can_collect() > output.room() {
                return Err(output.too_large());
            }
            self.context
                .collect_to_writer(&mut output.bytes)
                .map_err(|error| corrupt(Codec::Zstd, &error))?;
            if finished {
                return Ok(());
            }
        }
    }

    /// Whether the buffer inside is small enough to be kept.
    pub(super) fn is_small(&self) -> bool {
        self.small
    }
}
