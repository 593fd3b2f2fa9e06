//! What is said on the wire: which requests the client knows and in which versions.

mod check;
pub(crate) mod codec;
pub(crate) mod guard;
#[cfg(feature = "unstable-internals")]
pub(crate) mod internals;
pub(crate) mod offsets;
pub(crate) mod produce;
pub(crate) mod versions;

use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};

/// The generated messages, but for those that are written by hand here.
mod kp {
    pub(super) use super::offsets::{
        OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
    };
    pub(super) use kafka_protocol::messages::*;
}

/// A request that the client sends, with what every answer has in common.
pub(crate) trait Call: Encodable + HeaderVersion + Send + Sync + 'static {
    /// What the broker answers.
    type Response: Decodable + HeaderVersion + Default + Send + 'static;
    /// The API key.
    const KEY: i16;
    /// The request's name in messages.
    const NAME: &'static str;
    /// Lowest and highest version that this client speaks; each must be fully supported.
    const SPOKEN: (i16, i16);

    /// Whether it changes something at the broker, so that its outcome is in doubt when no answer
    /// comes. A question has no outcome.
    const WRITES: bool;
    /// Whether the answer carries records, so that what was asked for bounds its size.
    const CARRIES_RECORDS: bool;

    /// How long the broker asks the client to be silent (KIP-219), milliseconds.
    fn throttle_ms(response: &Self::Response) -> i32;

    /// The error that concerns the answer as a whole, 0 for none or where there is none.
    fn error_code(response: &Self::Response) -> i16;

    /// What in the answer contradicts itself (`wire/check.rs`).
    fn check(response: &Self::Response) -> Result<(), &'static str>;
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
    const SPOKEN: &[(i16, i16, i16)] = &[$(($key, $min, $max)),*];

    /// Whether the frame can be read as the answer to the request of this key; `None` for other keys.
    #[cfg(feature = "unstable-internals")]
    fn decode_any(key: i16, version: i16, frame: bytes::Bytes) -> Option<bool> {
        match key {
            $($key => Some(codec::decode::<kp::$request>(frame, version).is_ok()),)*
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
    10 FindCoordinatorRequest => FindCoordinatorResponse, "FindCoordinator" 3..=6 throttle throttle_time_ms error error_code;
    8 OffsetCommitRequest => OffsetCommitResponse, "OffsetCommit" 8..=10 throttle throttle_time_ms is Write check offset_commit;
    9 OffsetFetchRequest => OffsetFetchResponse, "OffsetFetch" 6..=10 throttle throttle_time_ms error error_code check offset_fetch;
    15 DescribeGroupsRequest => DescribeGroupsResponse, "DescribeGroups" 5..=6 throttle throttle_time_ms check describe_groups;
    16 ListGroupsRequest => ListGroupsResponse, "ListGroups" 3..=5 throttle throttle_time_ms error error_code;
    69 ConsumerGroupDescribeRequest => ConsumerGroupDescribeResponse, "ConsumerGroupDescribe" 0..=1 throttle throttle_time_ms check describe_new_groups;
    68 ConsumerGroupHeartbeatRequest => ConsumerGroupHeartbeatResponse, "ConsumerGroupHeartbeat" 0..=1 throttle throttle_time_ms error error_code check heartbeat;
    19 CreateTopicsRequest => CreateTopicsResponse, "CreateTopics" 5..=7 throttle throttle_time_ms is Write;
    20 DeleteTopicsRequest => DeleteTopicsResponse, "DeleteTopics" 4..=6 throttle throttle_time_ms is Write check delete_topics;
}
