//! A buffer that refuses impossible lengths before anything is allocated for them.
//!
//! The generated decoders reserve room for as many array elements as the wire claims, so a broken
//! or hostile answer of a few bytes could ask for hundreds of gigabytes and abort the process. In
//! the flexible encodings (the only ones this client speaks, see `wire/mod.rs`) every length and
//! count is an unsigned varint, read byte by byte through `try_get_u8`. [`Guarded`] puts those
//! bytes together again and fails once a varint exceeds what is left of the frame.
//!
//! # Non-obvious
//! - Booleans are read through `try_get_u8` too. A hostile boolean of 0x80 or more would look like
//!   the first byte of a varint and hide the real one behind it. That is harmless as long as the
//!   whole chain is checked: dropping the first byte of a chain only makes its value smaller.
//! - A chain of four continuation bytes is refused outright: only lengths of 256 MiB and more need
//!   five bytes, and no frame may be so large.
//! - Tags and the sizes of tagged fields are varints too. [`SLACK`] lets small tag numbers pass
//!   close to the end of a frame.

use std::ops::Range;

use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::protocol::buf::ByteBuf;

/// Values up to this much above the bytes that remain pass: tag numbers near the end of a frame.
const SLACK: usize = 64;
/// A varint of more continuation bytes than this is refused (256 MiB and more).
const MAX_CONTINUATION: u32 = 3;

/// [`Bytes`] with the check; zero-copy like it.
#[derive(Debug)]
pub(crate) struct Guarded {
    bytes: Bytes,
    /// The varint being read: value so far and how many continuation bytes it had.
    value: usize,
    continued: u32,
}

impl Guarded {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self {
            bytes,
            value: 0,
            continued: 0,
        }
    }

    fn check(&mut self, byte: u8) -> Result<(), TryGetError> {
        self.value |= usize::from(byte & 0x7f) << (7 * self.continued);
        if byte >= 0x80 {
            self.continued += 1;
            if self.continued > MAX_CONTINUATION {
                return Err(self.refusal(usize::MAX));
            }
            return Ok(());
        }
        let value = std::mem::take(&mut self.value);
        self.continued = 0;
        if value > self.bytes.len() + SLACK {
            return Err(self.refusal(value));
        }
        Ok(())
    }

    fn refusal(&self, requested: usize) -> TryGetError {
        TryGetError {
            requested,
            available: self.bytes.len(),
        }
    }
}

impl Buf for Guarded {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        // Anything that is not read byte by byte ends a chain.
        self.value = 0;
        self.continued = 0;
        self.bytes.advance(count);
    }

    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        let byte = self.bytes.try_get_u8()?;
        self.check(byte)?;
        Ok(byte)
    }
}

impl ByteBuf for Guarded {
    fn peek_bytes(&mut self, range: Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.value = 0;
        self.continued = 0;
        self.bytes.split_to(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::MetadataResponse;
    use kafka_protocol::protocol::Decodable;

    fn read(bytes: &'static [u8]) -> Result<Vec<u8>, TryGetError> {
        let mut guarded = Guarded::new(Bytes::from_static(bytes));
        (0..bytes.len()).map(|_| guarded.try_get_u8()).collect()
    }

    #[test]
    fn a_length_beyond_the_frame_is_refused() {
        assert!(read(&[3, 1, 2, 3]).is_ok());
        assert!(read(&[0x80, 0x01]).is_err(), "128 with nothing left");
        assert!(read(&[0xff, 0xff, 0xff, 0x7f]).is_err());
    }

    #[test]
    fn no_chain_of_five_bytes_passes_whatever_its_value() {
        assert!(read(&[0x80, 0x80, 0x80, 0x80, 0x00]).is_err());
    }

    #[test]
    fn a_hostile_boolean_cannot_hide_a_length() {
        // Boolean 0x80, then a varint of 2^21: the chain's value is 2^28.
        assert!(read(&[0x80, 0x80, 0x80, 0x80, 0x01]).is_err());
        assert!(read(&[0xff, 0x80, 0x80, 0x01]).is_err());
    }

    #[test]
    fn wider_reads_end_a_chain() {
        let mut guarded = Guarded::new(Bytes::from_static(&[0x80, 0, 0, 0, 1, 0x01, 0]));
        assert_eq!(guarded.try_get_u8().ok(), Some(0x80));
        assert_eq!(guarded.try_get_i32().ok(), Some(1));
        assert_eq!(guarded.try_get_u8().ok(), Some(1));
    }

    #[test]
    fn a_metadata_answer_with_four_billion_brokers_is_an_error() {
        let mut body = vec![0, 0, 0, 0];
        body.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        body.extend_from_slice(&[0; 16]);
        let decoded = MetadataResponse::decode(&mut Guarded::new(Bytes::from(body)), 12);
        assert!(decoded.is_err());
    }
}
