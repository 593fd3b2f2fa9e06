//! gzip by zlib-rs.

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};

use super::output::{Output, corrupt, truncated};
use crate::record::codec_id::Codec;
use crate::record::error::RecordError;

/// log2 of the window: the largest, as in every gzip file.
const WINDOW_BITS: u8 = 15;

pub(super) struct Compressor {
    context: Compress,
    level: i32,
}

impl Compressor {
    pub(super) fn new(level: i32) -> Self {
        let levels = match u32::try_from(level) {
            Ok(level) => flate2::Compression::new(level),
            Err(_) => flate2::Compression::default(),
        };
        Self {
            context: Compress::new_gzip(levels, WINDOW_BITS),
            level,
        }
    }

    pub(super) fn level(&self) -> i32 {
        self.level
    }

    pub(super) fn compress(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), RecordError> {
        let failed = |message: String| RecordError::Compress {
            codec: Codec::Gzip,
            message,
        };
        self.context.reset();
        let mut rest = input;
        loop {
            // Half is what most batches need; incompressible ones come around again.
            output.reserve((rest.len() / 2).max(1 << 10));
            let before = (self.context.total_in(), output.len());
            let status = self
                .context
                .compress_vec(rest, output, FlushCompress::Finish)
                .map_err(|error| failed(error.to_string()))?;
            let used = self.context.total_in().saturating_sub(before.0);
            rest = usize::try_from(used)
                .ok()
                .and_then(|used| rest.get(used..))
                .unwrap_or_default();
            match status {
                Status::StreamEnd => return Ok(()),
                _ if used == 0 && output.len() == before.1 => {
                    return Err(failed("the encoder makes no progress".into()));
                }
                _ => {}
            }
        }
    }
}

pub(super) struct Decompressor {
    context: Decompress,
    used: bool,
}

impl Decompressor {
    pub(super) fn new() -> Self {
        Self {
            context: Decompress::new_gzip(WINDOW_BITS),
            used: false,
        }
    }

    /// Decompresses one or more gzip members.
    pub(super) fn decompress(
        &mut self,
        input: &[u8],
        output: &mut Output,
    ) -> Result<(), RecordError> {
        let mut rest = input;
        loop {
            self.member(&mut rest, output)?;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    fn member(&mut self, rest: &mut &[u8], output: &mut Output) -> Result<(), RecordError> {
        if std::mem::replace(&mut self.used, true) {
            self.context.reset(true);
        }
        loop {
            output.make_spare()?;
            let before = (self.context.total_in(), output.len);
            let status = self
                .context
                .decompress_vec(rest, output.vec(), FlushDecompress::None)
                .map_err(|error| corrupt(Codec::Gzip, &error))?;
            output.grew();
            let used = self.context.total_in().saturating_sub(before.0);
            *rest = usize::try_from(used)
                .ok()
                .and_then(|used| rest.get(used..))
                .unwrap_or_default();
            if output.len > output.limit {
                return Err(output.too_large());
            }
            match status {
                Status::StreamEnd => return Ok(()),
                _ if used == 0 && output.len == before.1 => {
                    return Err(truncated(Codec::Gzip));
                }
                _ => {}
            }
        }
    }
}
