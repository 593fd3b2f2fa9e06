//! ListOffsets and OffsetForLeaderEpoch.

use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
};

use super::super::state::State;
use super::Context;
use crate::wire::codes;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// Whether brokers know the time in this version of the request.
fn is_known(time: i64, version: i16) -> bool {
    match time {
        0.. | LATEST | EARLIEST => true,
        MAX_TIMESTAMP => version >= 7,
        EARLIEST_LOCAL => version >= 8,
        LATEST_TIERED => version >= 9,
        _ => false,
    }
}

pub(in super::super) fn list(
    state: &State,
    context: &Context,
    request: &ListOffsetsRequest,
) -> ListOffsetsResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let answer = ListOffsetsPartitionResponse::default()
                .with_partition_index(asked.partition_index)
                .with_offset(-1)
                .with_timestamp(-1)
                .with_leader_epoch(-1);
            let found = match context.forced {
                Some(code) => Err(code),
                None => find(
                    state,
                    context,
                    &topic.name,
                    asked.partition_index,
                    asked.current_leader_epoch,
                    asked.timestamp,
                    request.isolation_level == 1,
                ),
            };
            match found {
                Ok(Some((timestamp, offset, epoch))) => answer
                    .with_timestamp(timestamp)
                    .with_offset(offset)
                    .with_leader_epoch(epoch),
                Ok(None) => answer,
                Err(code) => answer.with_error_code(code),
            }
        });
        ListOffsetsTopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

type Found = Option<(i64, i64, i32)>;

fn find(
    state: &State,
    context: &Context,
    topic: &str,
    index: i32,
    epoch: i32,
    time: i64,
    read_committed: bool,
) -> Result<Found, i16> {
    if !is_known(time, context.version) {
        return Err(codes::UNSUPPORTED_VERSION);
    }
    let partition = state.led(topic, index, context.broker, epoch)?;
    let log = &partition.log;
    Ok(match time {
        LATEST if read_committed => Some((-1, log.last_stable(), log.last_epoch())),
        LATEST => Some((-1, log.end(), log.last_epoch())),
        EARLIEST | EARLIEST_LOCAL => Some((-1, log.start(), log.first_epoch())),
        MAX_TIMESTAMP => log.at_max_time(&state.pool),
        LATEST_TIERED => None,
        time => log.at_time(time, &state.pool),
    })
}

pub(in super::super) fn for_leader_epoch(
    state: &State,
    context: &Context,
    request: &OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let answer = EpochEndOffset::default().with_partition(asked.partition);
            let led = match context.forced {
                Some(code) => Err(code),
                None => state.led(
                    &topic.topic,
                    asked.partition,
                    context.broker,
                    asked.current_leader_epoch,
                ),
            };
            match led {
                Ok(partition) => {
                    let (epoch, end) = partition.log.end_of_epoch(asked.leader_epoch);
                    answer.with_leader_epoch(epoch).with_end_offset(end)
                }
                Err(code) => answer
                    .with_error_code(code)
                    .with_leader_epoch(-1)
                    .with_end_offset(-1),
            }
        });
        OffsetForLeaderTopicResult::default()
            .with_topic(topic.topic.clone())
            .with_partitions(partitions.collect())
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}
