//! Zstandard, decoding only, by the pure-Rust `ruzstd`: for builds without the C library.

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::output::{Output, corrupt, truncated};
use super::zstd_frame::{check_header, skippable_len};
use crate::record::codec_id::Codec;
use crate::record::error::RecordError;

/// A context whose buffer is larger than this is not kept.
const MAX_IDLE_WINDOW: u64 = 8 << 20;
/// Magic, descriptor, window, dictionary, content size.
const MAX_HEADER_LEN: usize = 4 + 1 + 1 + 4 + 8;
/// Where the window is, and the smallest and the largest power of two that it can be.
const WINDOW_AT: usize = 5;
const MIN_WINDOW_LOG: u32 = 10;
const MAX_WINDOW_LOG: u32 = 41;

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
        self.small = true;
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
        let Some(header) = check_header(input, output)? else {
            return Err(corrupt(Codec::Zstd, "not a frame"));
        };
        let (front, rest) = input
            .split_at_checked(header.len)
            .ok_or_else(|| truncated(Codec::Zstd))?;
        *input = rest;

        // The decoder keeps a whole window of output to itself before it gives any away, and
        // writers that do not know how long a batch is claim large ones: 128 MiB at level 22. But
        // nothing refers further back than to the start of the output, which is limited, so a
        // window of that limit serves as well.
        let mut patched = [0; MAX_HEADER_LEN];
        let patched = patched.get_mut(..header.len).unwrap_or_default();
        patched.copy_from_slice(front);
        let window = (output.limit as u64)
            .clamp(1 << MIN_WINDOW_LOG, 1 << MAX_WINDOW_LOG)
            .next_power_of_two();
        if header.window > window
            && let Some(byte) = patched.get_mut(WINDOW_AT)
        {
            *byte = ((window.trailing_zeros() - MIN_WINDOW_LOG) << 3) as u8;
        }
        let window = window.min(header.window);
        self.small &= window <= MAX_IDLE_WINDOW;
        self.context
            .set_max_window_size(window.max(1 << MIN_WINDOW_LOG));
        self.context.reset(&*patched).map_err(failed)?;
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
                .collect_to_writer(output.vec())
                .map_err(|error| corrupt(Codec::Zstd, &error))?;
            output.grew();
            if finished {
                return Ok(());
            }
        }
    }

    /// Whether the buffer inside is small enough to be kept.
    #[cfg_attr(feature = "zstd", allow(dead_code))]
    pub(super) fn is_small(&self) -> bool {
        self.small
    }
}
