//! Snappy, in the framing of xerial's `snappy-java`, which Kafka's Java client writes; bare blocks
//! are read as well, since other clients have written them.

use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

use super::output::{Output, corrupt, take, take_array, truncated};
use crate::record::codec_id::Codec;
use crate::record::error::RecordError;

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const VERSION: u32 = 1;
const COMPATIBLE_VERSION: u32 = 1;
/// The block size of `SnappyOutputStream`.
const BLOCK: usize = 32 << 10;
/// No block grows by more than this when decompressed: the densest element is a copy of 64 bytes in
/// 3.
const MAX_RATIO: usize = 22;

pub(super) struct Compressor {
    context: Encoder,
}

impl Compressor {
    pub(super) fn new() -> Self {
        Self {
            context: Encoder::new(),
        }
    }

    pub(super) fn compress(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), RecordError> {
        let failed = |message: String| RecordError::Compress {
            codec: Codec::Snappy,
            message,
        };
        output.extend_from_slice(&MAGIC);
        output.extend_from_slice(&VERSION.to_be_bytes());
        output.extend_from_slice(&COMPATIBLE_VERSION.to_be_bytes());
        for block in input.chunks(BLOCK) {
            let start = output.len();
            let data = start.saturating_add(4);
            output.resize(data.saturating_add(max_compress_len(block.len())), 0);
            let room = output.get_mut(data..).unwrap_or_default();
            let len = self
                .context
                .compress(block, room)
                .map_err(|error| failed(error.to_string()))?;
            let len_be = u32::try_from(len)
                .map_err(|error| failed(error.to_string()))?
                .to_be_bytes();
            if let Some(prefix) = output.get_mut(start..data) {
                prefix.copy_from_slice(&len_be);
            }
            output.truncate(data.saturating_add(len));
        }
        Ok(())
    }
}

pub(super) fn decompress(mut input: &[u8], output: &mut Output) -> Result<(), RecordError> {
    if !input.starts_with(&MAGIC) {
        return block(input, output);
    }
    while !input.is_empty() {
        // Again in front of every part of a concatenation; as a length it would be negative.
        if input.starts_with(&MAGIC) {
            take(&mut input, MAGIC.len(), Codec::Snappy)?;
            let _version: [u8; 4] = take_array(&mut input, Codec::Snappy)?;
            let compatible = u32::from_be_bytes(take_array(&mut input, Codec::Snappy)?);
            if compatible > VERSION {
                return Err(corrupt(
                    Codec::Snappy,
                    &format_args!("framing of version {compatible}, only 1 is known"),
                ));
            }
            continue;
        }
        let len = u32::from_be_bytes(take_array(&mut input, Codec::Snappy)?);
        let len = usize::try_from(len).map_err(|_| truncated(Codec::Snappy))?;
        block(take(&mut input, len, Codec::Snappy)?, output)?;
    }
    Ok(())
}

fn block(input: &[u8], output: &mut Output) -> Result<(), RecordError> {
    let len = decompress_len(input).map_err(|error| corrupt(Codec::Snappy, &error))?;
    if len > input.len().saturating_mul(MAX_RATIO) {
        return Err(corrupt(
            Codec::Snappy,
            "a block claims more than it can hold",
        ));
    }
    if len > output.room() {
        return Err(output.too_large());
    }
    let (_, room) = output.split(len);
    let written = Decoder::new()
        .decompress(input, room)
        .map_err(|error| corrupt(Codec::Snappy, &error))?;
    output.len = output.len.saturating_add(written);
    Ok(())
}
