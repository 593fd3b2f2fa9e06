//! Zstandard by the C library.

use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective, compress_bound,
};

use super::output::{Output, corrupt, truncated};
use super::zstd_frame::check_header;
use crate::record::codec_id::Codec;
use crate::record::error::RecordError;

/// The largest window read, that of level 22: 128 MiB. It is allocated for frames that ask for it
/// but touched only as far as they really go, which is checked against the limit of the output all
/// along.
const WINDOW_LOG_MAX: u32 = 27;
/// A context that had to grow past this (windows above 8 MiB, levels above 19) is not kept.
const MAX_IDLE_CONTEXT: usize = 10 << 20;

pub(super) struct Compressor {
    context: CCtx<'static>,
}

impl Compressor {
    pub(super) fn new() -> Self {
        Self {
            context: CCtx::create(),
        }
    }

    pub(super) fn compress(
        &mut self,
        level: i32,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), RecordError> {
        let failed = |code| RecordError::Compress {
            codec: Codec::Zstd,
            message: error_name(code).into(),
        };
        self.context
            .set_parameter(CParameter::CompressionLevel(level))
            .map_err(failed)?;
        output.reserve(compress_bound(input.len()));
        self.context.compress2(output, input).map_err(failed)?;
        Ok(())
    }

    pub(super) fn is_small(&self) -> bool {
        self.context.sizeof() <= MAX_IDLE_CONTEXT
    }
}

pub(super) struct Decompressor {
    context: DCtx<'static>,
}

impl Decompressor {
    pub(super) fn new() -> Self {
        Self {
            context: DCtx::create(),
        }
    }

    /// Decompresses one or more frames.
    pub(super) fn decompress(
        &mut self,
        input: &[u8],
        output: &mut Output,
    ) -> Result<(), RecordError> {
        let failed = |code| corrupt(Codec::Zstd, error_name(code));
        self.context
            .reset(ResetDirective::SessionOnly)
            .map_err(failed)?;
        self.context
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .map_err(failed)?;
        check_header(input, output)?;
        let mut source = InBuffer::around(input);
        loop {
            output.make_spare()?;
            let end = output.len;
            let before = (source.pos(), end);
            let more = {
                let mut target = OutBuffer::around_pos(output.vec(), end);
                self.context
                    .decompress_stream(&mut target, &mut source)
                    .map_err(failed)?
            };
            output.grew();
            if output.len > output.limit {
                return Err(output.too_large());
            }
            if more == 0 && source.pos() >= input.len() {
                return Ok(());
            }
            if before == (source.pos(), output.len) {
                return Err(truncated(Codec::Zstd));
            }
        }
    }

    pub(super) fn is_small(&self) -> bool {
        self.context.sizeof() <= MAX_IDLE_CONTEXT
    }
}

fn error_name(code: usize) -> &'static str {
    zstd::zstd_safe::get_error_name(code)
}
