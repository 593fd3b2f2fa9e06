//! What is said on a new connection before requests flow: ApiVersions (KIP-35, KIP-511).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, RequestHeader};
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connector::BoxStream;
use super::frame::{self, Front, Peer};
use crate::error::{Class, Error, ErrorKind, Result};
use crate::wire::Call;
use crate::wire::versions::{ApiVersionsAnswer, Versions};

/// The newest ApiVersions that this client speaks.
const NEWEST: i16 = 4;
/// UNSUPPORTED_VERSION
const UNSUPPORTED: i16 = 35;
/// So many answers are looked at on one connection.
const MOST_ASKS: usize = 6;
/// So many different offers are remembered: a cluster is upgraded broker by broker.
const MOST_OFFERS: usize = 8;
/// No handshake answer is larger.
const MAX_ANSWER: usize = 1 << 20;
/// `client.software.name` and version as brokers count them (KIP-511).
const SOFTWARE: (&str, &str) = ("ottla", env!("CARGO_PKG_VERSION"));

/// What brokers offered on earlier connections of the client.
#[derive(Default)]
pub(crate) struct Offers(Mutex<VecDeque<Versions>>);

impl Offers {
    /// Whether it needs no second answer. A wrong one would hold as long as its connection, and look as if the broker were too
    /// old; so what is new is asked for again, but for the first offer of all that has everything.
    fn believes(&self, offer: &Versions) -> bool {
        let known = self.known();
        known.contains(offer) || known.is_empty() && offer.suffice()
    }

    /// Whether a request was offered on any connection.
    pub(crate) fn any_has<R: Call>(&self) -> bool {
        self.known().iter().any(|offer| offer.pick::<R>().is_ok())
    }

    fn keep(&self, offer: &Versions) {
        let mut known = self.known();
        if !known.contains(offer) {
            known.truncate(MOST_OFFERS - 1);
            known.push_front(offer.clone());
        }
    }

    fn known(&self) -> MutexGuard<'_, VecDeque<Versions>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Negotiates versions: the newest ApiVersions first, then the newest one the broker names, then 0. What was not offered
/// before counts once it was said twice in a row.
pub(crate) async fn negotiate(
    stream: &mut BoxStream,
    peer: &Peer,
    client_id: &StrBytes,
    offers: &Offers,
) -> Result<Versions> {
    let mut version = NEWEST;
    let mut last = None;
    for _ in 0..MOST_ASKS {
        let body = exchange(stream, peer, client_id, version).await?;
        let answer = ApiVersionsAnswer::decode(body, version).map_err(|error| peer.name(error))?;
        match answer.error_code {
            0 if last.as_ref() == Some(&answer.versions) || offers.believes(&answer.versions) => {
                offers.keep(&answer.versions);
                return Ok(answer.versions);
            }
            0 => last = Some(answer.versions),
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
    let message =
        "the versions that the broker offers are others each time: its answers are damaged";
    let error = Error::new(ErrorKind::Protocol, message);
    Err(peer.name(error.with_class(Class::Retriable)))
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
