//! What the header of a Zstandard frame promises (RFC 8878, section 3.1.1.1), read before a decoder
//! may act on it.

use super::output::{Output, truncated};
use crate::record::codec_id::Codec;
use crate::record::error::RecordError;

const MAGIC: u32 = 0xfd2f_b528;
/// Skippable frames have this magic but for the last four bits.
const SKIPPABLE_MAGIC: u32 = 0x184d_2a50;

/// What one frame says of itself.
#[derive(Clone, Copy)]
pub(super) struct FrameHeader {
    /// Of the header, magic included.
    pub(super) len: usize,
    /// How much of the output a decoder must keep at hand.
    pub(super) window: u64,
    pub(super) content_size: Option<u64>,
}

/// Reads the header in front of `frame` and refuses a frame that says itself that it is too large,
/// before anything is allocated for it. `None` for what is no frame, or not a whole header.
pub(super) fn check_header(
    frame: &[u8],
    output: &Output,
) -> Result<Option<FrameHeader>, RecordError> {
    let header = header(frame);
    match header.and_then(|header| header.content_size) {
        Some(size) if size > output.room() as u64 => Err(output.too_large()),
        _ => Ok(header),
    }
}

/// The length of the skippable frame in front, if there is one.
pub(super) fn skippable_len(input: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some((magic, rest)) = input.split_first_chunk() else {
        return Err(truncated(Codec::Zstd));
    };
    if u32::from_le_bytes(*magic) & !0xf != SKIPPABLE_MAGIC {
        return Ok(None);
    }
    let (len, _) = rest
        .split_first_chunk()
        .ok_or_else(|| truncated(Codec::Zstd))?;
    Ok(Some((u32::from_le_bytes(*len) as usize).saturating_add(8)))
}

fn header(frame: &[u8]) -> Option<FrameHeader> {
    let (magic, rest) = frame.split_first_chunk()?;
    if u32::from_le_bytes(*magic) != MAGIC {
        return None;
    }
    let (&descriptor, mut rest) = rest.split_first()?;
    let single_segment = descriptor & 1 << 5 != 0;
    let mut window = 0;
    if !single_segment {
        let (&byte, after) = rest.split_first()?;
        let base = 1_u64 << (10 + (byte >> 3));
        window = base + base / 8 * u64::from(byte & 7);
        rest = after;
    }
    let dictionary_len = match descriptor & 3 {
        0 => 0,
        1 => 1,
        2 => 2,
        _ => 4,
    };
    let rest = rest.get(dictionary_len..)?;
    let (size_len, content_size) = match descriptor >> 6 {
        0 if single_segment => (1, Some(u64::from(*rest.first()?))),
        0 => (0, None),
        1 => (
            2,
            Some(u64::from(u16::from_le_bytes(*rest.first_chunk()?)) + 256),
        ),
        2 => (4, Some(u64::from(u32::from_le_bytes(*rest.first_chunk()?)))),
        _ => (8, Some(u64::from_le_bytes(*rest.first_chunk()?))),
    };
    if single_segment {
        window = content_size.unwrap_or_default();
    }
    let len = frame.len() - rest.len() + size_len;
    Some(FrameHeader {
        len,
        window,
        content_size,
    })
}
