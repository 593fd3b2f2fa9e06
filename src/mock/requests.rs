//! The requests that the mock takes, and in which versions.

use kafka_protocol::messages::RequestHeader;
use kafka_protocol::protocol::{Decodable, HeaderVersion};

use crate::wire::guard::Guarded;

/// The generated messages, but for those that are written by hand here.
mod kp {
    pub(super) use crate::wire::offset_delete::OffsetDeleteRequest;
    pub(super) use crate::wire::offsets::OffsetCommitRequest;
    pub(super) use crate::wire::offsets::OffsetFetchRequest;
    pub(super) use kafka_protocol::messages::*;
}

macro_rules! apis {
    ($($name:ident = $key:literal, $min:literal..=$max:literal, $request:ident;)*) => {
        /// A kind of request, by Kafka's name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Api {$(
            #[doc = concat!("`", stringify!($name), "` (API key ", stringify!($key), ").")]
            $name = $key,
        )*}

        impl Api {
            /// The API key on the wire.
            #[must_use]
            pub fn key(self) -> i16 {
                self as i16
            }

            pub(super) fn from_key(key: i16) -> Option<Self> {
                match key {
                    $($key => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Lowest and highest version that the mock knows.
            pub(super) fn versions(self) -> (i16, i16) {
                match self {
                    $(Self::$name => ($min, $max),)*
                }
            }

            pub(super) const ALL: &'static [Self] = &[$(Self::$name),*];

            pub(super) fn header_version(self, version: i16) -> i16 {
                match self {
                    $(Self::$name => kp::$request::header_version(version),)*
                }
            }
        }

        /// A request that could be read. Not all of them have something that answers depend on.
        #[derive(Clone, Debug)]
        #[allow(dead_code)]
        pub(super) enum Request {$(
            $name(Box<kp::$request>),
        )*}

        impl Request {
            fn decode_body(api: Api, version: i16, buf: &mut Guarded) -> Result<Self, String> {
                match api {
                    $(Api::$name => kp::$request::decode(buf, version)
                        .map(|request| Self::$name(Box::new(request)))
                        .map_err(|error| error.to_string()),)*
                }
            }
        }
    };
}

// The lowest versions are the first flexible ones: only there the guard sees every length.
apis! {
    Produce = 0, 9..=13, ProduceRequest;
    Fetch = 1, 12..=17, FetchRequest;
    ListOffsets = 2, 6..=10, ListOffsetsRequest;
    Metadata = 3, 9..=13, MetadataRequest;
    OffsetCommit = 8, 8..=10, OffsetCommitRequest;
    OffsetFetch = 9, 6..=10, OffsetFetchRequest;
    FindCoordinator = 10, 3..=6, FindCoordinatorRequest;
    JoinGroup = 11, 6..=9, JoinGroupRequest;
    Heartbeat = 12, 4..=4, HeartbeatRequest;
    LeaveGroup = 13, 4..=5, LeaveGroupRequest;
    SyncGroup = 14, 4..=5, SyncGroupRequest;
    DescribeGroups = 15, 5..=6, DescribeGroupsRequest;
    ListGroups = 16, 3..=5, ListGroupsRequest;
    ApiVersions = 18, 0..=4, ApiVersionsRequest;
    CreateTopics = 19, 5..=7, CreateTopicsRequest;
    DeleteTopics = 20, 4..=6, DeleteTopicsRequest;
    DeleteRecords = 21, 2..=2, DeleteRecordsRequest;
    InitProducerId = 22, 2..=5, InitProducerIdRequest;
    AddPartitionsToTxn = 24, 3..=3, AddPartitionsToTxnRequest;
    AddOffsetsToTxn = 25, 3..=4, AddOffsetsToTxnRequest;
    EndTxn = 26, 3..=5, EndTxnRequest;
    WriteTxnMarkers = 27, 1..=1, WriteTxnMarkersRequest;
    TxnOffsetCommit = 28, 3..=5, TxnOffsetCommitRequest;
    OffsetForLeaderEpoch = 23, 4..=4, OffsetForLeaderEpochRequest;
    DescribeConfigs = 32, 4..=4, DescribeConfigsRequest;
    CreatePartitions = 37, 2..=3, CreatePartitionsRequest;
    DeleteGroups = 42, 2..=2, DeleteGroupsRequest;
    IncrementalAlterConfigs = 44, 1..=1, IncrementalAlterConfigsRequest;
    ListPartitionReassignments = 46, 0..=0, ListPartitionReassignmentsRequest;
    OffsetDelete = 47, 0..=0, OffsetDeleteRequest;
    DescribeCluster = 60, 0..=2, DescribeClusterRequest;
    DescribeProducers = 61, 0..=0, DescribeProducersRequest;
    DescribeTransactions = 65, 0..=0, DescribeTransactionsRequest;
    ListTransactions = 66, 0..=2, ListTransactionsRequest;
    ConsumerGroupHeartbeat = 68, 0..=1, ConsumerGroupHeartbeatRequest;
    ConsumerGroupDescribe = 69, 0..=1, ConsumerGroupDescribeRequest;
    DescribeTopicPartitions = 75, 0..=0, DescribeTopicPartitionsRequest;
}

impl Request {
    /// Reads header and body; never panics and never reserves more than the frame holds.
    pub(super) fn decode(
        api: Api,
        version: i16,
        buf: &mut Guarded,
    ) -> Result<(RequestHeader, Self), String> {
        let header = RequestHeader::decode(buf, api.header_version(version))
            .map_err(|error| error.to_string())?;
        let request = Self::decode_body(api, version, buf)?;
        let left = bytes::Buf::remaining(buf);
        match left {
            0 => Ok((header, request)),
            _ => Err(format!("{left} bytes after the request's end")),
        }
    }

    /// The topics it names, for rules; `name_of` knows those that go by id.
    pub(super) fn topics(&self, name_of: impl Fn(uuid::Uuid) -> Option<String>) -> Vec<String> {
        let named = |name: &str, id: uuid::Uuid| match name.is_empty() {
            false => Some(name.to_string()),
            true => name_of(id),
        };
        match self {
            Self::Produce(request) => request
                .topic_data
                .iter()
                .filter_map(|topic| named(&topic.name, topic.topic_id))
                .collect(),
            Self::Fetch(request) => request
                .topics
                .iter()
                .filter_map(|topic| named(&topic.topic, topic.topic_id))
                .collect(),
            Self::ListOffsets(request) => request
                .topics
                .iter()
                .map(|topic| topic.name.to_string())
                .collect(),
            Self::OffsetCommit(request) => request
                .topics
                .iter()
                .filter_map(|topic| named(&topic.name, topic.id))
                .collect(),
            Self::OffsetFetch(request) => {
                let topics = request.groups.iter().flat_map(|group| &group.topics);
                topics
                    .flatten()
                    .filter_map(|topic| named(&topic.name, topic.id))
                    .collect()
            }
            Self::AddPartitionsToTxn(request) => request
                .v3_and_below_topics
                .iter()
                .map(|topic| topic.name.to_string())
                .collect(),
            Self::TxnOffsetCommit(request) => request
                .topics
                .iter()
                .map(|topic| topic.name.to_string())
                .collect(),
            Self::CreateTopics(request) => request
                .topics
                .iter()
                .map(|topic| topic.name.to_string())
                .collect(),
            Self::DeleteRecords(request) => request
                .topics
                .iter()
                .map(|topic| topic.name.to_string())
                .collect(),
            Self::CreatePartitions(request) => request
                .topics
                .iter()
                .map(|topic| topic.name.to_string())
                .collect(),
            Self::OffsetForLeaderEpoch(request) => request
                .topics
                .iter()
                .map(|topic| topic.topic.to_string())
                .collect(),
            Self::Metadata(request) => {
                let topics = request.topics.iter().flatten();
                topics
                    .filter_map(|topic| Some(topic.name.as_ref()?.to_string()))
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// The group it concerns, for rules.
    pub(super) fn group(&self) -> Option<&str> {
        match self {
            Self::OffsetCommit(request) => Some(&request.group_id),
            Self::ConsumerGroupHeartbeat(request) => Some(&request.group_id),
            Self::JoinGroup(request) => Some(&request.group_id),
            Self::Heartbeat(request) => Some(&request.group_id),
            Self::LeaveGroup(request) => Some(&request.group_id),
            Self::SyncGroup(request) => Some(&request.group_id),
            Self::OffsetDelete(request) => Some(&request.group_id),
            Self::AddOffsetsToTxn(request) => Some(&request.group_id),
            Self::TxnOffsetCommit(request) => Some(&request.group_id),
            Self::OffsetFetch(request) => request.groups.first().map(|group| &*group.group_id),
            _ => None,
        }
    }
}
