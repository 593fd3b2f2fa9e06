//! Frames: length, header, body; and back.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::RequestHeader;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

use super::Call;
use super::guard::Guarded;
use crate::error::{Error, ErrorKind, Result};

/// No frame is larger, whatever the settings say: lengths inside it must fit four varint bytes.
pub(crate) const MAX_FRAME: usize = (256 << 20) - 1;

/// A request as it goes over the wire: segments written one after the other, never joined.
pub(crate) type Segments = Vec<Bytes>;

/// Frame length and request header, room for the length left at the front.
fn start<R: Call>(
    version: i16,
    correlation: i32,
    client_id: &StrBytes,
    room: usize,
) -> Result<BytesMut> {
    let mut buf = BytesMut::with_capacity(64 + client_id.len() + room);
    buf.put_i32(0);
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(client_id.clone()));
    header
        .encode(&mut buf, R::header_version(version))
        .map_err(|error| unencodable::<R>(version, &error))?;
    Ok(buf)
}

/// Writes the frame's length, now known, into its first four bytes.
fn set_length<R: Call>(buf: &mut BytesMut, total: usize) -> Result<()> {
    let length = i32::try_from(total - 4)
        .ok()
        .filter(|length| *length as usize <= MAX_FRAME)
        .ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "a {} request of {total} bytes is larger than any frame may be",
                    R::NAME
                ),
            )
        })?;
    if let Some(front) = buf.first_chunk_mut::<4>() {
        *front = length.to_be_bytes();
    }
    Ok(())
}

/// A whole request from its generated type.
pub(crate) fn encode<R: Call>(
    request: &R,
    version: i16,
    correlation: i32,
    client_id: &StrBytes,
) -> Result<Segments> {
    let room = request
        .compute_size(version)
        .map_err(|error| unencodable::<R>(version, &error))?;
    let mut buf = start::<R>(version, correlation, client_id, room)?;
    request
        .encode(&mut buf, version)
        .map_err(|error| unencodable::<R>(version, &error))?;
    let total = buf.len();
    set_length::<R>(&mut buf, total)?;
    Ok(vec![buf.freeze()])
}

/// A request whose body was written by hand as segments.
pub(crate) fn encode_segments<R: Call>(
    body: Segments,
    version: i16,
    correlation: i32,
    client_id: &StrBytes,
) -> Result<Segments> {
    let mut buf = start::<R>(version, correlation, client_id, 0)?;
    let total = buf.len() + body.iter().map(Bytes::len).sum::<usize>();
    set_length::<R>(&mut buf, total)?;
    let mut segments = Vec::with_capacity(1 + body.len());
    segments.push(buf.freeze());
    segments.extend(body);
    Ok(segments)
}

/// The answer's body, header included as far as the correlation id was not yet taken off.
///
/// Never panics and never reserves more than the frame holds, whatever the bytes say. What
/// contradicts itself is an error like what cannot be read.
pub(crate) fn decode<R: Call>(frame: Bytes, version: i16) -> Result<R::Response> {
    let mut guarded = Guarded::new(frame);
    let damaged = |error: &dyn std::fmt::Display| {
        Error::new(
            ErrorKind::Protocol,
            format!("a {} v{version} answer cannot be read: {error}", R::NAME),
        )
        .with_class(crate::Class::Retriable)
    };
    if <R::Response as HeaderVersion>::header_version(version) >= 1 {
        skip_tags(&mut guarded).map_err(|error| damaged(&error))?;
    }
    let response = R::Response::decode(&mut guarded, version).map_err(|error| damaged(&error))?;
    // A damaged length or mark of absence rarely leaves the rest in place.
    match guarded.remaining() {
        0 => {}
        rest => return Err(damaged(&format_args!("{rest} bytes are left over"))),
    }
    R::check(&response).map_err(|why| damaged(&why))?;
    Ok(response)
}

/// Skips a tagged-field section (KIP-482).
fn skip_tags(buf: &mut Guarded) -> Result<(), bytes::TryGetError> {
    let varint = |buf: &mut Guarded| -> Result<usize, bytes::TryGetError> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = buf.try_get_u8()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        Ok(value)
    };
    for _ in 0..varint(buf)? {
        varint(buf)?;
        let size = varint(buf)?;
        if size > buf.remaining() {
            return Err(bytes::TryGetError {
                requested: size,
                available: buf.remaining(),
            });
        }
        buf.advance(size);
    }
    Ok(())
}

fn unencodable<R: Call>(version: i16, error: &dyn std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!(
            "a {} v{version} request cannot be written: {error}",
            R::NAME
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::{MetadataRequest, MetadataResponse};

    #[test]
    fn a_request_starts_with_its_length_and_header() {
        let request = MetadataRequest::default().with_topics(None);
        let client = StrBytes::from_static_str("me");
        let segments = encode(&request, 12, 7, &client).unwrap();
        let frame = segments.concat();
        assert_eq!(frame[..4], (frame.len() as i32 - 4).to_be_bytes());
        assert_eq!(frame[4..8], [0, 3, 0, 12]);
        assert_eq!(frame[8..12], 7_i32.to_be_bytes());
        assert_eq!(frame[12..16], [0, 2, b'm', b'e']);
    }

    #[test]
    fn damaged_answers_are_errors_that_name_the_request() {
        let error = decode::<MetadataRequest>(Bytes::from_static(&[0, 0, 0]), 12).unwrap_err();
        assert!(error.to_string().contains("Metadata v12"), "{error}");
        let empty: Result<MetadataResponse> = decode::<MetadataRequest>(Bytes::new(), 12);
        assert_eq!(empty.unwrap_err().kind(), ErrorKind::Protocol);
    }

    #[test]
    fn an_answer_fills_its_frame() {
        let mut body = vec![0];
        MetadataResponse::default().encode(&mut body, 12).unwrap();
        assert!(decode::<MetadataRequest>(Bytes::from(body.clone()), 12).is_ok());
        body.push(0);
        let error = decode::<MetadataRequest>(Bytes::from(body), 12).unwrap_err();
        assert!(
            error.to_string().contains("1 bytes are left over"),
            "{error}"
        );
    }
}
