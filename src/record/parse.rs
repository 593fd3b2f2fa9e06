//! The fields of a record, as they lie.

use super::varint::{VarintError, take_i32};

/// What is wrong with the bytes.
pub(super) type Malformed = &'static str;

impl From<VarintError> for Malformed {
    #[cold]
    fn from(error: VarintError) -> Self {
        match error {
            VarintError::Truncated => "a number goes past the end",
            VarintError::Overflow => "a number is out of range",
        }
    }
}

/// Headers as in the batch, known to be well-formed.
#[derive(Clone, Copy)]
pub(super) struct RawHeaders<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) count: u32,
}

impl RawHeaders<'_> {
    pub(super) const EMPTY: Self = Self {
        bytes: &[],
        count: 0,
    };
}

/// What comes after the record in front of `bytes`.
#[inline]
pub(super) fn pass(mut bytes: &[u8]) -> Result<&[u8], Malformed> {
    let len = length(take_i32(&mut bytes)?).ok_or("negative record length")?;
    bytes.get(len..).ok_or("a record goes past the end")
}

#[inline(always)]
pub(super) fn length(len: i32) -> Option<usize> {
    usize::try_from(len).ok()
}

/// A length and as many bytes, or -1 for null.
#[inline(always)]
pub(super) fn take_bytes<'a>(input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
    let len = take_i32(input)?;
    let Some(len) = length(len) else {
        return if len == -1 {
            Ok(None)
        } else {
            Err("negative length of a key or value")
        };
    };
    let (bytes, rest) = input
        .split_at_checked(len)
        .ok_or("a key or value goes past its record")?;
    *input = rest;
    Ok(Some(bytes))
}

/// Checks that `bytes` are exactly `count` headers.
pub(super) fn check_headers(bytes: &[u8], count: i32) -> Result<RawHeaders<'_>, Malformed> {
    let count = u32::try_from(count).map_err(|_| "negative number of headers")?;
    let mut rest = bytes;
    for _ in 0..count {
        take_header(&mut rest)?;
    }
    if !rest.is_empty() {
        return Err("bytes after the last field of a record");
    }
    Ok(RawHeaders { bytes, count })
}

/// Name and value of one header.
pub(super) fn take_header<'a>(
    input: &mut &'a [u8],
) -> Result<(&'a [u8], Option<&'a [u8]>), Malformed> {
    let name = take_bytes(input)?.ok_or("a header without a name")?;
    Ok((name, take_bytes(input)?))
}
