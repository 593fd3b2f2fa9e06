//! What is said on a new connection before requests flow: ApiVersions (KIP-35, KIP-511).

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, RequestHeader};
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connector::BoxStream;
use super::frame::{self, Front, Peer};
use crate::error::{Class, Error, ErrorKind, Result};
use crate::wire::versions::{ApiVersionsAnswer, Features, Versions};

/// The newest ApiVersions that this client speaks.
const NEWEST: i16 = 4;
/// UNSUPPORTED_VERSION
const UNSUPPORTED: i16 = 35;
/// No handshake answer is larger.
const MAX_ANSWER: usize = 1 << 20;
/// `client.software.name` and version as brokers count them (KIP-511).
const SOFTWARE: (&str, &str) = ("ottla", env!("CARGO_PKG_VERSION"));

/// Negotiates versions: the newest ApiVersions first, then the newest one the broker names, then 0.
pub(crate) async fn negotiate(
    stream: &mut BoxStream,
    peer: &Peer,
    client_id: &StrBytes,
) -> Result<(Versions, Features)> {
    let mut version = NEWEST;
    loop {
        let body = exchange(stream, peer, client_id, version).await?;
        let answer = ApiVersionsAnswer::decode(body, version).map_err(|error| peer.name(error))?;
        match answer.error_code {
            0 => return Ok((answer.versions, answer.features)),
            UNSUPPORTED if version > 0 => {
                version = answer.api_versions(version - 1).unwrap_or(0);
            }
            // Brokers have no other error here.
            code => {
                let error = Error::from_code(code, "ApiVersions");
                return Err(peer.name(error.with_class(Class::Retriable)));
            }
        }
    }
}

/// One request and its answer, the correlation id checked and taken off.
async fn exchange(
    stream: &mut BoxStream,
    peer: &Peer,
    client_id: &StrBytes,
    version: i16,
) -> Result<Bytes> {
    const KEY: i16 = 18;
    let correlation = i32::from(version);
    let request = ApiVersionsRequest::default();
    let request = match version {
        3.. => request
            .with_client_software_name(StrBytes::from_static_str(SOFTWARE.0))
            .with_client_software_version(StrBytes::from_static_str(SOFTWARE.1)),
        _ => request,
    };
    let mut body = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(client_id.clone()));
    header
        .encode(&mut body, ApiVersionsRequest::header_version(version))
        .and_then(|()| request.encode(&mut body, version))
        .map_err(|error| Error::new(ErrorKind::InvalidArgument, format!("ApiVersions: {error}")))?;
    let lost = |error: std::io::Error| {
        peer.name(
            Error::new(
                ErrorKind::Connection,
                format!(
                    "the connection ended before it was set up ({error}): \
                     is this a Kafka listener, and does it want TLS (security.protocol)?"
                ),
            )
            .with_source(error),
        )
    };
    let length = (body.len() as u32).to_be_bytes();
    stream
        .write_all(&[&length, &body[..]].concat())
        .await
        .map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    let mut buf = BytesMut::with_capacity(4096);
    loop {
        match frame::split(&mut buf, MAX_ANSWER, peer)? {
            Front::Frame(frame) => return frame::body(frame, correlation, peer),
            Front::Part(len) => buf.reserve(len - buf.len()),
        }
        if stream.read_buf(&mut buf).await.map_err(lost)? == 0 {
            return Err(lost(std::io::ErrorKind::UnexpectedEof.into()));
        }
    }
}
