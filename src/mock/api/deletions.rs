//! DeleteRecords and OffsetDelete.

use std::collections::BTreeSet;

use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::super::groups::{Group, Members};
use super::super::state::State;
use super::Context;
use crate::group::subscription::decode_subscription;
use crate::wire::codes;
use crate::wire::offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse};

/// Stands for the high watermark.
const ALL: i64 = -1;

pub(in super::super) fn records(
    state: &mut State,
    context: &Context,
    request: &DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let answer =
                DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
            let deleted = match context.forced {
                Some(code) => Err(code),
                None => delete_before(
                    state,
                    context,
                    &topic.name,
                    asked.partition_index,
                    asked.offset,
                ),
            };
            match deleted {
                Ok(start) => answer.with_low_watermark(start),
                Err(code) => answer.with_error_code(code).with_low_watermark(-1),
            }
        });
        DeleteRecordsTopicResult::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

fn delete_before(
    state: &mut State,
    context: &Context,
    name: &str,
    partition: i32,
    offset: i64,
) -> Result<i64, i16> {
    state.led(name, partition, context.broker, -1)?;
    let topic = state.topics.get_mut(name);
    let topic = topic.ok_or(codes::UNKNOWN_TOPIC_OR_PARTITION)?;
    if !topic.config("cleanup.policy").contains("delete") {
        return Err(codes::POLICY_VIOLATION);
    }
    let index = usize::try_from(partition).unwrap_or(usize::MAX);
    let partition = topic.partitions.get_mut(index);
    let partition = partition.ok_or(codes::UNKNOWN_TOPIC_OR_PARTITION)?;
    let log = &mut partition.log;
    let offset = match offset {
        ALL => log.end(),
        offset => offset,
    };
    if !(0..=log.end()).contains(&offset) {
        return Err(codes::OFFSET_OUT_OF_RANGE);
    }
    log.delete_before(offset);
    Ok(log.start())
}

pub(in super::super) fn offsets(
    state: &mut State,
    context: &Context,
    request: &OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let refused = |error_code| OffsetDeleteResponse {
        error_code,
        ..OffsetDeleteResponse::default()
    };
    let id = &*request.group_id;
    if let Some(code) = context.code_or(|| state.not_coordinator(id, context.broker)) {
        return refused(code);
    }
    let now = state.now();
    let State { groups, topics, .. } = state;
    let Some(group) = groups.get_mut(id) else {
        return refused(codes::GROUP_ID_NOT_FOUND);
    };
    group.expire(now);
    if !group.is_empty() && group.protocol_type() != "consumer" {
        return refused(codes::NON_EMPTY_GROUP);
    }
    let subscribed = subscribed(group);
    let asked = request.topics.iter().map(|(name, partitions)| {
        let partitions = partitions.iter().map(|partition| {
            let topic = topics.get(&**name);
            let code = match topic.and_then(|topic| topic.partition(*partition)) {
                None => codes::UNKNOWN_TOPIC_OR_PARTITION,
                Some(_) if subscribed.contains(&**name) => codes::GROUP_SUBSCRIBED_TO_TOPIC,
                Some(_) => {
                    group.offsets.remove(&(name.to_string(), *partition));
                    codes::NONE
                }
            };
            (*partition, code)
        });
        (name.clone(), partitions.collect())
    });
    OffsetDeleteResponse {
        topics: asked.collect(),
        ..OffsetDeleteResponse::default()
    }
}

/// The topics that members have subscribed to.
fn subscribed(group: &Group) -> BTreeSet<String> {
    match &group.members {
        Members::Consumer(group) => {
            let members = group.members.values();
            members
                .flat_map(|member| member.subscribed.clone())
                .collect()
        }
        Members::Classic(group) => {
            let protocol = group.stable_protocol().unwrap_or_default();
            let members = group.members.values();
            let read = members.filter_map(|member| {
                let metadata = member.metadata(protocol)?;
                decode_subscription(metadata).ok()
            });
            read.flat_map(|member| member.topics)
                .map(|topic| topic.to_string())
                .collect()
        }
    }
}
