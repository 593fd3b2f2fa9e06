//! Zig-zag variable-length integers, as in record batches of format v2.
//!
//! Invariants: readers never look past their slice and never read more than 5 (32 bit) or 10 (64
//! bit) bytes; an encoding that does not fit its type is an error, it is not cut off.

/// Longest encoding of a 32-bit value.
pub(crate) const MAX_LEN_32: usize = 5;
/// Longest encoding of a 64-bit value.
pub(crate) const MAX_LEN_64: usize = 10;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum VarintError {
    /// The slice ended inside the number.
    Truncated,
    /// The number does not fit its type.
    Overflow,
}

/// Reads a zig-zag `i32` and moves `input` past it. On error `input` is left as it was.
#[inline(always)]
pub(crate) fn take_i32(input: &mut &[u8]) -> Result<i32, VarintError> {
    match **input {
        [a, ref rest @ ..] if a < 0x80 => {
            *input = rest;
            Ok(unzigzag_32(u32::from(a)))
        }
        [a, b, ref rest @ ..] if b < 0x80 => {
            *input = rest;
            Ok(unzigzag_32(u32::from(a & 0x7f) | u32::from(b) << 7))
        }
        // Offsets within a large batch, values of 8 KiB and more.
        [a, b, c, ref rest @ ..] if c < 0x80 => {
            *input = rest;
            let low = u32::from(a & 0x7f) | u32::from(b & 0x7f) << 7;
            Ok(unzigzag_32(low | u32::from(c) << 14))
        }
        _ => take_u32_slow(input).map(unzigzag_32),
    }
}

/// Reads a zig-zag `i64` and moves `input` past it. On error `input` is left as it was.
#[inline(always)]
pub(crate) fn take_i64(input: &mut &[u8]) -> Result<i64, VarintError> {
    match **input {
        [a, ref rest @ ..] if a < 0x80 => {
            *input = rest;
            Ok(unzigzag_64(u64::from(a)))
        }
        [a, b, ref rest @ ..] if b < 0x80 => {
            *input = rest;
            Ok(unzigzag_64(u64::from(a & 0x7f) | u64::from(b) << 7))
        }
        _ => take_u64_slow(input).map(unzigzag_64),
    }
}

#[cold]
fn take_u32_slow(input: &mut &[u8]) -> Result<u32, VarintError> {
    let (value, used) = take_bounded(input, MAX_LEN_32)?;
    let value = u32::try_from(value).map_err(|_| VarintError::Overflow)?;
    *input = input.get(used..).unwrap_or_default();
    Ok(value)
}

#[cold]
fn take_u64_slow(input: &mut &[u8]) -> Result<u64, VarintError> {
    let (value, used) = take_bounded(input, MAX_LEN_64)?;
    *input = input.get(used..).unwrap_or_default();
    Ok(value)
}

fn take_bounded(input: &[u8], max_len: usize) -> Result<(u64, usize), VarintError> {
    let mut value = 0_u64;
    for (at, &byte) in input.iter().take(max_len).enumerate() {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * at as u32;
        if bits.leading_zeros() < shift {
            return Err(VarintError::Overflow);
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok((value, at + 1));
        }
    }
    Err(if input.len() < max_len {
        VarintError::Truncated
    } else {
        VarintError::Overflow
    })
}

/// How many bytes [`Stack::put_i32`] writes for `value`.
#[inline]
pub(crate) const fn len_i32(value: i32) -> usize {
    len_u64(zigzag_32(value) as u64)
}

/// How many bytes [`Stack::put_i64`] writes for `value`.
#[inline]
pub(crate) const fn len_i64(value: i64) -> usize {
    len_u64(zigzag_64(value))
}

#[inline]
const fn len_u64(value: u64) -> usize {
    // ceil(bits / 7) without a division: exact for 1..=64 bits.
    let bits = 64 - (value | 1).leading_zeros() as usize;
    (bits * 9 + 64) / 64
}

#[inline]
const fn zigzag_32(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

#[inline]
const fn zigzag_64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[inline]
const fn unzigzag_32(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

#[inline]
const fn unzigzag_64(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// A few bytes on the stack in which the numbers of a record are put together before one copy into
/// the batch.
///
/// `N` is chosen by the caller so that everything fits; a byte that does not is dropped, and
/// asserted in debug builds.
pub(crate) struct Stack<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Stack<N> {
    #[inline(always)]
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; N],
            len: 0,
        }
    }

    #[inline(always)]
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    #[inline(always)]
    pub(crate) fn put_u8(&mut self, byte: u8) {
        debug_assert!(self.len < N);
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
    }

    #[inline(always)]
    pub(crate) fn put_i32(&mut self, value: i32) {
        let mut rest = zigzag_32(value);
        while rest >= 0x80 {
            self.put_u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.put_u8(rest as u8);
    }

    #[inline(always)]
    pub(crate) fn put_i64(&mut self, value: i64) {
        let mut rest = zigzag_64(value);
        while rest >= 0x80 {
            self.put_u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.put_u8(rest as u8);
    }
}

/// Up to 16 bytes of numbers, put together in a register: most records need no more in front of
/// their key.
///
/// Faster than [`Stack`], which is written by the byte and then read as a whole, which processors
/// stall on.
#[derive(Clone, Copy)]
pub(crate) struct Packed {
    bytes: u128,
    len: u32,
}

/// The most bytes of a number in a [`Packed`].
const PACKED_NUMBER_LEN: u32 = 2;

impl Packed {
    pub(crate) const CAPACITY: usize = 16;
    pub(crate) const EMPTY: Self = Self { bytes: 0, len: 0 };

    #[inline(always)]
    pub(crate) const fn with_u8(self, byte: u8) -> Self {
        Self {
            bytes: self.bytes | (byte as u128) << (8 * self.len),
            len: self.len + 1,
        }
    }

    /// Adds a number of at most two bytes; `None` for longer ones.
    #[inline(always)]
    pub(crate) const fn with_i64(self, value: i64) -> Option<Self> {
        let value = zigzag_64(value);
        if value >= 1 << (7 * PACKED_NUMBER_LEN) {
            return None;
        }
        let long = (value >= 0x80) as u64;
        let bytes = (value & 0x7f) | (long << 7) | (value >> 7) << 8;
        Some(Self {
            bytes: self.bytes | (bytes as u128) << (8 * self.len),
            len: self.len + 1 + long as u32,
        })
    }

    /// Appends the bytes. All 16 are written, and the excess cut off, where there is room.
    #[inline(always)]
    pub(crate) fn append_to(self, buffer: &mut Vec<u8>) {
        let bytes = self.bytes.to_le_bytes();
        let end = buffer.len() + self.len as usize;
        if buffer.capacity() - buffer.len() >= Self::CAPACITY {
            buffer.extend_from_slice(&bytes);
            buffer.truncate(end);
        } else {
            buffer.extend(bytes.into_iter().take(self.len as usize));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_i32(value: i32) -> Vec<u8> {
        let mut stack = Stack::<MAX_LEN_32>::new();
        stack.put_i32(value);
        stack.as_slice().to_vec()
    }

    fn bytes_i64(value: i64) -> Vec<u8> {
        let mut stack = Stack::<MAX_LEN_64>::new();
        stack.put_i64(value);
        stack.as_slice().to_vec()
    }

    #[test]
    fn known_encodings() {
        for (value, expected) in [
            (0, &[0x00][..]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (8191, &[0xfe, 0x7f]),
            (8192, &[0x80, 0x80, 0x01]),
            (i32::MAX, &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i32::MIN, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ] {
            assert_eq!(bytes_i32(value), expected, "{value}");
            assert_eq!(bytes_i64(i64::from(value)), expected, "{value}");
        }
        assert_eq!(
            bytes_i64(i64::MIN),
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]
        );
    }

    #[test]
    fn overflow_is_an_error_and_moves_nothing() {
        let mut over_32 = &[0xff, 0xff, 0xff, 0xff, 0x10][..];
        assert_eq!(take_i32(&mut over_32), Err(VarintError::Overflow));
        assert_eq!(over_32.len(), 5);
        let mut endless = &[0x80; 20][..];
        assert_eq!(take_i32(&mut endless), Err(VarintError::Overflow));
        assert_eq!(take_i64(&mut endless), Err(VarintError::Overflow));
        let mut over_64 = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02][..];
        assert_eq!(take_i64(&mut over_64), Err(VarintError::Overflow));
    }

    #[test]
    fn truncated_is_an_error() {
        let whole = bytes_i64(i64::MIN);
        for cut in 0..whole.len() {
            assert_eq!(take_i64(&mut &whole[..cut]), Err(VarintError::Truncated));
        }
        assert_eq!(
            take_i32(&mut &[0x80, 0x80][..]),
            Err(VarintError::Truncated)
        );
    }

    proptest! {
        #[test]
        fn round_trip_32(value: i32, tail: [u8; 3]) {
            let mut bytes = bytes_i32(value);
            prop_assert_eq!(bytes.len(), len_i32(value));
            bytes.extend(tail);
            let mut input = &bytes[..];
            prop_assert_eq!(take_i32(&mut input), Ok(value));
            prop_assert_eq!(input, &tail[..]);
        }

        #[test]
        fn round_trip_64(value: i64, shift in 0_u32..64, tail: [u8; 3]) {
            let value = value >> shift;
            let mut bytes = bytes_i64(value);
            prop_assert_eq!(bytes.len(), len_i64(value));
            bytes.extend(tail);
            let mut input = &bytes[..];
            prop_assert_eq!(take_i64(&mut input), Ok(value));
            prop_assert_eq!(input, &tail[..]);
        }

        #[test]
        fn packed_is_the_same_in_a_register(values: [i16; 4], room in 0_usize..40) {
            let mut packed = Packed::EMPTY.with_u8(7);
            let mut stack = Stack::<16>::new();
            stack.put_u8(7);
            for value in values {
                let value = i64::from(value);
                match packed.with_i64(value) {
                    Some(more) => {
                        packed = more;
                        stack.put_i64(value);
                    }
                    None => prop_assert!(len_i64(value) > 2),
                }
            }
            let mut buffer = Vec::with_capacity(room);
            packed.append_to(&mut buffer);
            prop_assert_eq!(&buffer[..], stack.as_slice());
        }

        #[test]
        fn any_bytes_are_safe(bytes: [u8; 12], len in 0_usize..12) {
            let _ = take_i32(&mut &bytes[..len]);
            let _ = take_i64(&mut &bytes[..len]);
        }
    }
}
