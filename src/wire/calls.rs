//! The table of requests that the client sends, and in which versions.

use super::{Call, check};

/// The generated messages, but for those that are written by hand here.
mod kp {
    pub(super) use crate::wire::offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse};
    pub(super) use crate::wire::offsets::{
        OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
    };
    pub(super) use kafka_protocol::messages::*;
}

/// What is particular to a request, for the table below.
enum Kind {
    Write,
    Fetch,
}

impl Kind {
    const fn writes(self) -> bool {
        matches!(self, Self::Write)
    }

    const fn carries_records(self) -> bool {
        matches!(self, Self::Fetch)
    }
}

macro_rules! calls {
    ($($key:literal $request:ident => $response:ident, $name:literal $min:literal..=$max:literal $(throttle $throttle:ident)? $(error $error:ident)? $(is $kind:ident)? $(check $check:ident)?;)*) => {$(
        impl Call for kp::$request {
            type Response = kp::$response;
            const KEY: i16 = $key;
            const NAME: &'static str = $name;
            const SPOKEN: (i16, i16) = ($min, $max);
            const WRITES: bool = false $(|| Kind::$kind.writes())?;
            const CARRIES_RECORDS: bool = false $(|| Kind::$kind.carries_records())?;

            fn throttle_ms(response: &Self::Response) -> i32 {
                let _ = response;
                0 $(+ response.$throttle)?
            }

            fn error_code(response: &Self::Response) -> i16 {
                let _ = response;
                0 $(+ response.$error)?
            }

            fn check(response: &Self::Response) -> Result<(), &'static str> {
                let _ = response;
                $(check::$check(response)?;)?
                Ok(())
            }
        }
    )*

    /// API key, lowest and highest version of every request above.
    #[cfg(feature = "unstable-internals")]
    pub(super) const SPOKEN: &[(i16, i16, i16)] = &[$(($key, $min, $max)),*];

    /// Whether the frame can be read as the answer to the request of this key; `None` for other
    /// keys.
    #[cfg(feature = "unstable-internals")]
    pub(super) fn decode_any(key: i16, version: i16, frame: bytes::Bytes) -> Option<bool> {
        match key {
            $($key => Some(super::codec::decode::<kp::$request>(frame, version).is_ok()),)*
            _ => None,
        }
    }
    };
}

// The lowest versions are those of Kafka 2.8 or the first flexible ones, whichever is higher: only
// flexible encodings pass the guard against hostile lengths (`wire/guard.rs`).
calls! {
    3 MetadataRequest => MetadataResponse, "Metadata" 9..=13 throttle throttle_time_ms check metadata;
    0 ProduceRequest => ProduceResponse, "Produce" 9..=13 throttle throttle_time_ms is Write check produce;
    1 FetchRequest => FetchResponse, "Fetch" 12..=17 throttle throttle_time_ms error error_code is Fetch check fetch;
    2 ListOffsetsRequest => ListOffsetsResponse, "ListOffsets" 6..=10 throttle throttle_time_ms check list_offsets;
    23 OffsetForLeaderEpochRequest => OffsetForLeaderEpochResponse, "OffsetForLeaderEpoch" 4..=4 throttle throttle_time_ms;
    22 InitProducerIdRequest => InitProducerIdResponse, "InitProducerId" 2..=5 throttle throttle_time_ms error error_code is Write check init_producer_id;
    24 AddPartitionsToTxnRequest => AddPartitionsToTxnResponse, "AddPartitionsToTxn" 3..=3 throttle throttle_time_ms is Write;
    25 AddOffsetsToTxnRequest => AddOffsetsToTxnResponse, "AddOffsetsToTxn" 3..=4 throttle throttle_time_ms error error_code is Write;
    28 TxnOffsetCommitRequest => TxnOffsetCommitResponse, "TxnOffsetCommit" 3..=5 throttle throttle_time_ms is Write;
    26 EndTxnRequest => EndTxnResponse, "EndTxn" 3..=5 throttle throttle_time_ms error error_code is Write check end_txn;
    10 FindCoordinatorRequest => FindCoordinatorResponse, "FindCoordinator" 3..=6 throttle throttle_time_ms error error_code;
    8 OffsetCommitRequest => OffsetCommitResponse, "OffsetCommit" 8..=10 throttle throttle_time_ms is Write check offset_commit;
    9 OffsetFetchRequest => OffsetFetchResponse, "OffsetFetch" 6..=10 throttle throttle_time_ms check offset_fetch;
    11 JoinGroupRequest => JoinGroupResponse, "JoinGroup" 6..=9 throttle throttle_time_ms error error_code;
    14 SyncGroupRequest => SyncGroupResponse, "SyncGroup" 4..=5 throttle throttle_time_ms error error_code;
    12 HeartbeatRequest => HeartbeatResponse, "Heartbeat" 4..=4 throttle throttle_time_ms error error_code;
    13 LeaveGroupRequest => LeaveGroupResponse, "LeaveGroup" 4..=5 throttle throttle_time_ms error error_code is Write;
    15 DescribeGroupsRequest => DescribeGroupsResponse, "DescribeGroups" 5..=6 throttle throttle_time_ms check describe_groups;
    16 ListGroupsRequest => ListGroupsResponse, "ListGroups" 3..=5 throttle throttle_time_ms error error_code;
    69 ConsumerGroupDescribeRequest => ConsumerGroupDescribeResponse, "ConsumerGroupDescribe" 0..=1 throttle throttle_time_ms check describe_new_groups;
    68 ConsumerGroupHeartbeatRequest => ConsumerGroupHeartbeatResponse, "ConsumerGroupHeartbeat" 0..=1 throttle throttle_time_ms error error_code check heartbeat;
    19 CreateTopicsRequest => CreateTopicsResponse, "CreateTopics" 5..=7 throttle throttle_time_ms is Write;
    20 DeleteTopicsRequest => DeleteTopicsResponse, "DeleteTopics" 4..=6 throttle throttle_time_ms is Write check delete_topics;
    21 DeleteRecordsRequest => DeleteRecordsResponse, "DeleteRecords" 2..=2 throttle throttle_time_ms is Write;
    32 DescribeConfigsRequest => DescribeConfigsResponse, "DescribeConfigs" 4..=4 throttle throttle_time_ms;
    37 CreatePartitionsRequest => CreatePartitionsResponse, "CreatePartitions" 2..=3 throttle throttle_time_ms is Write;
    42 DeleteGroupsRequest => DeleteGroupsResponse, "DeleteGroups" 2..=2 throttle throttle_time_ms is Write;
    44 IncrementalAlterConfigsRequest => IncrementalAlterConfigsResponse, "IncrementalAlterConfigs" 1..=1 throttle throttle_time_ms is Write;
    27 WriteTxnMarkersRequest => WriteTxnMarkersResponse, "WriteTxnMarkers" 1..=1 is Write;
    61 DescribeProducersRequest => DescribeProducersResponse, "DescribeProducers" 0..=0 throttle throttle_time_ms;
    65 DescribeTransactionsRequest => DescribeTransactionsResponse, "DescribeTransactions" 0..=0 throttle throttle_time_ms;
    66 ListTransactionsRequest => ListTransactionsResponse, "ListTransactions" 0..=2 throttle throttle_time_ms error error_code;
    47 OffsetDeleteRequest => OffsetDeleteResponse, "OffsetDelete" 0..=0 throttle throttle_time_ms error error_code is Write;
}
