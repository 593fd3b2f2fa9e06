//! A peer in memory whose every byte a test decides.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    ApiVersionsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest,
    OffsetFetchResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use super::connector::{BoxStream, Connecting, Connector};
use crate::clock::Instant;
use crate::error::{Error, ErrorKind};

/// Hands the far ends of connections to the test; an address can be made to refuse.
#[derive(Debug)]
pub(crate) struct Scripted {
    accepted: mpsc::UnboundedSender<(String, DuplexStream)>,
    pub(crate) refused: Mutex<VecDeque<String>>,
}

impl Scripted {
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<(String, DuplexStream)>) {
        let (accepted, accepting) = mpsc::unbounded_channel();
        let connector = Self {
            accepted,
            refused: Mutex::default(),
        };
        (Arc::new(connector), accepting)
    }
}

impl Connector for Scripted {
    fn connect<'a>(&'a self, host: &'a str, _: u16, _: Instant) -> Connecting<'a> {
        Box::pin(async move {
            if self
                .refused
                .lock()
                .unwrap()
                .iter()
                .any(|refused| refused == host)
            {
                return Err(Error::new(ErrorKind::Connection, format!("{host} refuses")));
            }
            let (near, far) = tokio::io::duplex(1 << 20);
            self.accepted
                .send((host.to_owned(), far))
                .map_err(|_| Error::new(ErrorKind::Connection, "the test is over"))?;
            Ok(Box::new(near) as BoxStream)
        })
    }
}

/// The far end of a connection.
pub(crate) struct Far {
    pub(crate) stream: DuplexStream,
}

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) key: i16,
    pub(crate) version: i16,
    pub(crate) correlation: i32,
    /// Header rest and body.
    pub(crate) rest: Bytes,
}

impl Far {
    pub(crate) async fn accept(
        accepting: &mut mpsc::UnboundedReceiver<(String, DuplexStream)>,
    ) -> Self {
        Self {
            stream: accepting.recv().await.unwrap().1,
        }
    }

    /// The next request; `None` when the client hung up.
    pub(crate) async fn asked(&mut self) -> Option<Asked> {
        let length = self.stream.read_u32().await.ok()?;
        let mut frame = vec![0; length as usize];
        self.stream.read_exact(&mut frame).await.ok()?;
        let mut rest = Bytes::from(frame);
        Some(Asked {
            key: rest.get_i16(),
            version: rest.get_i16(),
            correlation: rest.get_i32(),
            rest,
        })
    }

    pub(crate) async fn answer<T: Encodable + HeaderVersion>(
        &mut self,
        asked: &Asked,
        response: &T,
    ) {
        let mut body = BytesMut::new();
        response.encode(&mut body, asked.version).unwrap();
        let tags: &[u8] = if T::header_version(asked.version) > 0 {
            &[0]
        } else {
            &[]
        };
        self.answer_raw(asked.correlation, &[tags, &body].concat())
            .await;
    }

    pub(crate) async fn answer_raw(&mut self, correlation: i32, rest: &[u8]) {
        self.stream.write_u32(rest.len() as u32 + 4).await.unwrap();
        self.stream.write_i32(correlation).await.unwrap();
        self.stream.write_all(rest).await.unwrap();
    }

    /// Answers the handshake as a current broker that speaks everything.
    pub(crate) async fn shake_hands(&mut self) {
        let asked = self.asked().await.unwrap();
        assert_eq!((asked.key, asked.version), (18, 4));
        self.answer(&asked, &everything()).await;
    }
}

/// The body behind the rest of the header (client id, tags).
pub(crate) fn body<T: Decodable>(asked: &Asked) -> T {
    let mut rest = asked.rest.clone();
    let client_id = rest.get_i16().max(0);
    rest.advance(usize::try_from(client_id).unwrap() + 1);
    T::decode(&mut rest, asked.version).unwrap()
}

/// Says to an OffsetCommit that all of it is done.
pub(crate) fn all_committed(request: &OffsetCommitRequest) -> OffsetCommitResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            OffsetCommitResponsePartition::default().with_partition_index(asked.partition_index)
        });
        OffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// Says to an OffsetFetch that nothing is committed.
pub(crate) fn nothing_committed(asked: &Asked) -> OffsetFetchResponse {
    let request: OffsetFetchRequest = body(asked);
    let groups = request.groups.iter().map(|group| {
        let topics = group.topics.iter().flatten().map(|topic| {
            let partitions = topic.partition_indexes.iter().map(|index| {
                OffsetFetchResponsePartitions::default()
                    .with_partition_index(*index)
                    .with_committed_offset(-1)
            });
            OffsetFetchResponseTopics::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        OffsetFetchResponseGroup::default()
            .with_group_id(group.group_id.clone())
            .with_topics(topics.collect())
    });
    OffsetFetchResponse::default().with_groups(groups.collect())
}

/// Every API in every version.
pub(crate) fn everything() -> ApiVersionsResponse {
    let keys = (0..90).map(|key| {
        ApiVersion::default()
            .with_api_key(key)
            .with_min_version(0)
            // Offsets by topic names, so that the generated messages can read and answer requests.
            .with_max_version(if matches!(key, 8 | 9) { 9 } else { 20 })
    });
    ApiVersionsResponse::default().with_api_keys(keys.collect())
}
