//! LZ4 frames around the block codec of `lz4_flex`.
//!
//! The frame layer is here because it is small, and because it lets blocks be decompressed into
//! their final place, with the output itself as the dictionary of linked blocks, and memory bounded
//! by what can come instead of by the block size that the frame claims (4 MiB for a batch of 200
//! bytes is common).

use lz4_flex::block::{
    CompressTable, DecompressError, compress_into_with_table, decompress_into,
    decompress_into_with_dict, get_maximum_output_size,
};

use super::output::{Output, corrupt, take, take_array};
use crate::record::codec_id::Codec;
use crate::record::error::RecordError;

const MAGIC: u32 = 0x184d_2204;
/// Skippable frames have this magic but for the last four bits.
const SKIPPABLE_MAGIC: u32 = 0x184d_2a50;
/// What Kafka's Java client writes: version 1, independent blocks of 64 KiB, no checksums, no
/// content size; the last byte is the header checksum, a constant for constant flags.
const HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
const BLOCK: usize = 64 << 10;
const UNCOMPRESSED: u32 = 1 << 31;
/// How far back a linked block may refer.
const WINDOW: usize = 64 << 10;
/// No block grows by more than this when decompressed: every byte of a length adds at most 255.
const MAX_RATIO: usize = 256;

pub(super) struct Compressor {
    table: CompressTable,
}

impl Compressor {
    pub(super) fn new() -> Self {
        Self {
            table: CompressTable::large(),
        }
    }

    pub(super) fn compress(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), RecordError> {
        output.extend_from_slice(&HEADER);
        for block in input.chunks(BLOCK) {
            let start = output.len();
            let data = start.saturating_add(4);
            output.resize(data.saturating_add(get_maximum_output_size(block.len())), 0);
            let room = output.get_mut(data..).unwrap_or_default();
            let mut len =
                compress_into_with_table(block, room, &mut self.table).map_err(|error| {
                    RecordError::Compress {
                        codec: Codec::Lz4,
                        message: error.to_string(),
                    }
                })?;
            let mut flag = 0;
            if len >= block.len() {
                (len, flag) = (block.len(), UNCOMPRESSED);
                if let Some(room) = output.get_mut(data..data.saturating_add(len)) {
                    room.copy_from_slice(block);
                }
            }
            // At most BLOCK, so it fits.
            let prefix_le = (len as u32 | flag).to_le_bytes();
            if let Some(prefix) = output.get_mut(start..data) {
                prefix.copy_from_slice(&prefix_le);
            }
            output.truncate(data.saturating_add(len));
        }
        output.extend_from_slice(&[0; 4]);
        Ok(())
    }
}

/// Decompresses one or more frames.
pub(super) fn decompress(mut input: &[u8], output: &mut Output) -> Result<(), RecordError> {
    loop {
        let magic = u32::from_le_bytes(take_array(&mut input, Codec::Lz4)?);
        if magic & !0xf == SKIPPABLE_MAGIC {
            let len = u32::from_le_bytes(take_array(&mut input, Codec::Lz4)?);
            take(&mut input, len as usize, Codec::Lz4)?;
        } else if magic == MAGIC {
            frame(&mut input, output)?;
        } else {
            return Err(corrupt(
                Codec::Lz4,
                &format_args!("unknown frame magic {magic:#010x}"),
            ));
        }
        if input.is_empty() {
            return Ok(());
        }
    }
}

struct Descriptor {
    linked_blocks: bool,
    block_checksums: bool,
    content_checksum: bool,
    max_block: usize,
}

fn descriptor(input: &mut &[u8]) -> Result<Descriptor, RecordError> {
    let [flags, sizes] = take_array(input, Codec::Lz4)?;
    if flags >> 6 != 1 {
        return Err(corrupt(
            Codec::Lz4,
            &format_args!("unknown frame version {}", flags >> 6),
        ));
    }
    let max_block = match (sizes >> 4) & 7 {
        4 => 64 << 10,
        5 => 256 << 10,
        6 => 1 << 20,
        7 => 4 << 20,
        other => {
            return Err(corrupt(
                Codec::Lz4,
                &format_args!("unknown block size {other}"),
            ));
        }
    };
    if flags & 1 << 3 != 0 {
        let _content_size: [u8; 8] = take_array(input, Codec::Lz4)?;
    }
    if flags & 1 != 0 {
        return Err(corrupt(Codec::Lz4, "the frame needs a dictionary"));
    }
    let _header_checksum: [u8; 1] = take_array(input, Codec::Lz4)?;
    Ok(Descriptor {
        linked_blocks: flags & 1 << 5 == 0,
        block_checksums: flags & 1 << 4 != 0,
        content_checksum: flags & 1 << 2 != 0,
        max_block,
    })
}

fn frame(input: &mut &[u8], output: &mut Output) -> Result<(), RecordError> {
    let descriptor = descriptor(input)?;
    let frame_start = output.len;
    loop {
        let prefix = u32::from_le_bytes(take_array(input, Codec::Lz4)?);
        if prefix == 0 {
            break;
        }
        let len = (prefix & !UNCOMPRESSED) as usize;
        if len > descriptor.max_block {
            return Err(corrupt(
                Codec::Lz4,
                "a block is larger than the frame allows",
            ));
        }
        let data = take(input, len, Codec::Lz4)?;
        if prefix & UNCOMPRESSED != 0 {
            output.extend(data)?;
        } else {
            let window = if descriptor.linked_blocks { WINDOW } else { 0 };
            block(data, output, frame_start, window, descriptor.max_block)?;
        }
        if descriptor.block_checksums {
            let _checksum: [u8; 4] = take_array(input, Codec::Lz4)?;
        }
    }
    if descriptor.content_checksum {
        let _checksum: [u8; 4] = take_array(input, Codec::Lz4)?;
    }
    Ok(())
}

fn block(
    data: &[u8],
    output: &mut Output,
    frame_start: usize,
    window: usize,
    max_block: usize,
) -> Result<(), RecordError> {
    let start = output.len;
    let possible = data.len().saturating_mul(MAX_RATIO).min(max_block);
    let allowed = possible.min(output.room());
    let (done, room) = output.split(allowed);
    let dictionary = done
        .get(start.saturating_sub(window).max(frame_start)..)
        .unwrap_or_default();
    let written = if dictionary.is_empty() {
        decompress_into(data, room)
    } else {
        decompress_into_with_dict(data, room, dictionary)
    };
    match written {
        Ok(written) => output.len = start.saturating_add(written),
        Err(DecompressError::OutputTooSmall { .. }) if allowed < possible => {
            return Err(output.too_large());
        }
        Err(error) => return Err(corrupt(Codec::Lz4, &error)),
    }
    Ok(())
}
