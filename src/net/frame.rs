//! Taking answers off a stream of bytes.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

use crate::error::{Class, Error, ErrorKind, Result};

/// Who is at the other end, for messages.
#[derive(Clone, Debug)]
pub(crate) struct Peer(pub(crate) String);

impl Peer {
    /// Puts the peer's name in front of an error.
    pub(crate) fn name(&self, error: Error) -> Error {
        error.context(self)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The bytes of a frame's length.
const PREFIX: usize = 4;

/// What is in front of a stream of bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// A whole frame, with its length in front; it was taken off.
    Frame(Bytes),
    /// A frame that has so many bytes in all, as far as is known, and is not all there.
    Part(usize),
}

/// Takes one whole frame off the front, if it is there. A length that is impossible is an error, so
/// that nothing is reserved for it.
pub(crate) fn split(buf: &mut BytesMut, max: usize, peer: &Peer) -> Result<Front> {
    let Some(prefix) = buf.first_chunk::<PREFIX>() else {
        return Ok(Front::Part(PREFIX));
    };
    let claimed = i32::from_be_bytes(*prefix);
    let length = match usize::try_from(claimed) {
        // The shortest answer is a correlation id.
        Ok(length) if (4..=max).contains(&length) => length,
        _ => return Err(peer.name(not_a_frame(*prefix, claimed, max))),
    };
    let whole = PREFIX + length;
    if buf.len() < whole {
        return Ok(Front::Part(whole));
    }
    Ok(Front::Frame(buf.split_to(whole).freeze()))
}

/// What is behind the length and the correlation id of a frame; the latter is checked.
pub(crate) fn body(mut frame: Bytes, expected: i32, peer: &Peer) -> Result<Bytes> {
    frame.advance(PREFIX.min(frame.len()));
    match frame.try_get_i32() {
        Ok(correlation) if correlation == expected => Ok(frame),
        Ok(other) => Err(peer.name(
            Error::new(
                ErrorKind::Protocol,
                format!(
                    "the answer has correlation id {other} where {expected} was due: \
                 the peer does not speak Kafka's protocol, or its bytes are damaged"
                ),
            )
            .with_class(Class::Retriable),
        )),
        Err(_) => Err(peer.name(Error::new(ErrorKind::Protocol, "the answer has no header"))),
    }
}

/// What impossible first bytes tell about the peer.
fn not_a_frame(prefix: [u8; 4], claimed: i32, max: usize) -> Error {
    let (class, message) = match prefix {
        [b'H', b'T', b'T', b'P'] => (
            Class::Caller,
            "an HTTP server answers here, not a Kafka broker: check the port".to_owned(),
        ),
        [0x15, 3, _, _] => (
            Class::Caller,
            "the peer speaks TLS and this client plaintext: set security.protocol to SSL or SASL_SSL, or use the plaintext port"
                .to_owned(),
        ),
        _ => (
            Class::Retriable,
            format!(
                "the answer claims a length of {claimed} bytes, allowed are 4 to {max}: \
                 the peer does not speak Kafka's protocol, or its bytes are damaged"
            ),
        ),
    };
    Error::new(ErrorKind::Protocol, message).with_class(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer("broker 1".to_owned())
    }

    #[test]
    fn frames_come_off_whole_and_in_order() {
        let mut buf = BytesMut::from(&[0, 0, 0, 4, 1, 2, 3, 4, 0, 0, 0, 5, 9, 9, 9, 9][..]);
        let mut next = |more: &[u8]| {
            buf.extend_from_slice(more);
            split(&mut buf, 100, &peer()).unwrap()
        };
        let first = Bytes::from_static(&[0, 0, 0, 4, 1, 2, 3, 4]);
        assert_eq!(next(&[]), Front::Frame(first));
        assert_eq!(next(&[]), Front::Part(9));
        let second = Bytes::from_static(&[0, 0, 0, 5, 9, 9, 9, 9, 8]);
        assert_eq!(next(&[8]), Front::Frame(second));
        assert_eq!(next(&[0, 0]), Front::Part(PREFIX));
    }

    #[test]
    fn impossible_lengths_are_errors() {
        for length in [-1, 0, 3, 101, i32::MAX, i32::MIN] {
            let mut buf = BytesMut::from(&length.to_be_bytes()[..]);
            let error = split(&mut buf, 100, &peer()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol);
        }
    }

    #[test]
    fn other_protocols_are_recognised() {
        let told = |bytes: &[u8]| {
            split(&mut BytesMut::from(bytes), 1 << 20, &peer())
                .unwrap_err()
                .to_string()
        };
        assert!(told(b"HTTP/1.1 400 Bad Request").contains("HTTP server"));
        assert!(told(&[0x15, 3, 3, 0, 2, 2, 80]).contains("security.protocol"));
    }

    #[test]
    fn a_wrong_correlation_id_is_told() {
        let frame = Bytes::from_static(&[0, 0, 0, 5, 0, 0, 0, 9, 1]);
        assert_eq!(body(frame.clone(), 9, &peer()).unwrap()[..], [1]);
        let error = body(frame, 8, &peer()).unwrap_err();
        assert!(error.to_string().contains("correlation id 9 where 8"));
    }
}
