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

/// Takes one whole frame off the front, without its length, if it is there. Nothing is reserved
/// for a frame whose length is impossible.
pub(crate) fn split(buf: &mut BytesMut, max: usize, peer: &Peer) -> Result<Option<Bytes>> {
    let Some(prefix) = buf.first_chunk::<4>() else {
        return Ok(None);
    };
    let claimed = i32::from_be_bytes(*prefix);
    let length = match usize::try_from(claimed) {
        // The shortest answer is a correlation id.
        Ok(length) if (4..=max).contains(&length) => length,
        _ => return Err(peer.name(not_a_frame(*prefix, claimed, max))),
    };
    let whole = 4 + length;
    if buf.len() < whole {
        let missing = whole - buf.len();
        if buf.capacity() - buf.len() < missing {
            buf.reserve(missing);
        }
        return Ok(None);
    }
    let mut frame = buf.split_to(whole);
    frame.advance(4);
    Ok(Some(frame.freeze()))
}

/// Takes the correlation id off a frame and checks it.
pub(crate) fn expect_correlation(frame: &mut Bytes, expected: i32, peer: &Peer) -> Result<()> {
    match frame.try_get_i32() {
        Ok(correlation) if correlation == expected => Ok(()),
        Ok(other) => Err(peer.name(Error::new(
            ErrorKind::Protocol,
            format!(
                "the answer has correlation id {other} where {expected} was due: \
                 the peer does not speak Kafka's protocol, or bytes were lost"
            ),
        ))),
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
        assert_eq!(
            split(&mut buf, 100, &peer()).unwrap().unwrap()[..],
            [1, 2, 3, 4]
        );
        assert_eq!(split(&mut buf, 100, &peer()).unwrap(), None);
        buf.extend_from_slice(&[8]);
        assert_eq!(
            split(&mut buf, 100, &peer()).unwrap().unwrap()[..],
            [9, 9, 9, 9, 8]
        );
    }

    #[test]
    fn impossible_lengths_reserve_nothing() {
        for length in [-1, 0, 3, 101, i32::MAX, i32::MIN] {
            let mut buf = BytesMut::from(&length.to_be_bytes()[..]);
            let error = split(&mut buf, 100, &peer()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol);
            assert!(buf.capacity() < 1000);
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
        let mut frame = Bytes::from_static(&[0, 0, 0, 9]);
        let error = expect_correlation(&mut frame, 8, &peer()).unwrap_err();
        assert!(error.to_string().contains("correlation id 9 where 8"));
    }
}
