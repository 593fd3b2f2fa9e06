//! Heartbeats, commits, and what is asked about groups.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::consumer_group_describe_response as described;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions as OwnedPartitions;
use kafka_protocol::messages::consumer_group_heartbeat_response::{
    Assignment, TopicPartitions as AssignedPartitions,
};
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, DeleteGroupsRequest, DeleteGroupsResponse,
    DescribeGroupsRequest, DescribeGroupsResponse, ListGroupsRequest, ListGroupsResponse,
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
};

use super::super::assign::Parts;
use super::super::codes;
use super::super::groups::{Around, Committed, Group, Heartbeat};
use super::super::state::State;
use super::{Context, topic_name, wire};

/// `offset.metadata.max.bytes`.
const MOST_METADATA: usize = 4096;

pub(in super::super) fn heartbeat(
    state: &mut State,
    context: &Context,
    request: &ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let interval = i32::try_from(state.defaults.heartbeat_interval.as_millis()).unwrap_or(i32::MAX);
    let mut beat = beat_of(request, context);
    if beat.member_id.is_empty() && beat.epoch == 0 && context.version == 0 {
        // Before version 1 brokers chose the id.
        beat.member_id = super::super::state::id_text(uuid::Uuid::from_u128(state.clock.bits()));
    }
    match try_heartbeat(state, context, request, &beat) {
        Ok((epoch, assigned)) => {
            let assignment = assigned.map(|parts| {
                Assignment::default().with_topic_partitions(
                    parts
                        .into_iter()
                        .map(|(id, partitions)| {
                            AssignedPartitions::default()
                                .with_topic_id(id)
                                .with_partitions(partitions.into_iter().collect())
                        })
                        .collect(),
                )
            });
            ConsumerGroupHeartbeatResponse::default()
                .with_member_id(Some(wire(beat.member_id)))
                .with_member_epoch(epoch)
                .with_heartbeat_interval_ms(if epoch < 0 { 0 } else { interval })
                .with_assignment(assignment)
        }
        Err((code, why)) => ConsumerGroupHeartbeatResponse::default()
            .with_error_code(code)
            .with_error_message((!why.is_empty()).then(|| wire(why))),
    }
}

fn try_heartbeat(
    state: &mut State,
    context: &Context,
    request: &ConsumerGroupHeartbeatRequest,
    beat: &Heartbeat,
) -> Result<(i32, Option<Parts>), (i16, &'static str)> {
    if let Some(code) = context.code_or(|| None) {
        return Err((code, ""));
    }
    if request.group_id.trim().is_empty() {
        return Err((codes::INVALID_REQUEST, "GroupId can't be empty."));
    }
    if request
        .subscribed_topic_regex
        .as_ref()
        .is_some_and(|regex| !regex.is_empty())
    {
        tracing::warn!("the mock has no subscriptions by regular expression: refused");
        return Err((
            codes::INVALID_REQUEST,
            "The mock has no subscriptions by regular expression.",
        ));
    }
    Group::check(beat)?;
    if let Some(code) = state.not_coordinator(&request.group_id, context.broker) {
        return Err((code, ""));
    }
    let now = state.now();
    let State {
        groups,
        topics,
        defaults,
        ..
    } = state;
    let topic = |name: &str| {
        let topic = topics.get(name)?;
        Some((topic.id, topic.partitions.len() as i32))
    };
    let around = Around {
        now,
        session_timeout: defaults.session_timeout,
        topic: &topic,
    };
    let known = groups.contains_key(&*request.group_id.0);
    if !known && beat.epoch != 0 {
        return Err((codes::GROUP_ID_NOT_FOUND, ""));
    }
    let group = groups.entry(request.group_id.to_string()).or_default();
    let told = group.heartbeat(beat, &around).map_err(|code| (code, ""))?;
    Ok((told.epoch, told.assigned))
}

fn beat_of(request: &ConsumerGroupHeartbeatRequest, context: &Context) -> Heartbeat {
    let owned = |parts: &Vec<OwnedPartitions>| -> Parts {
        let parts = parts.iter().filter(|part| !part.partitions.is_empty());
        parts
            .map(|part| (part.topic_id, part.partitions.iter().copied().collect()))
            .collect()
    };
    let timeout = u64::try_from(request.rebalance_timeout_ms).ok();
    Heartbeat {
        member_id: request.member_id.to_string(),
        epoch: request.member_epoch,
        instance_id: request.instance_id.as_ref().map(ToString::to_string),
        rack: request.rack_id.as_ref().map(ToString::to_string),
        client_id: context.client_id.clone(),
        rebalance_timeout: timeout.map(Duration::from_millis),
        topics: request
            .subscribed_topic_names
            .as_ref()
            .map(|names| names.iter().map(|name| name.to_string()).collect()),
        assignor: request.server_assignor.as_ref().map(ToString::to_string),
        owned: request.topic_partitions.as_ref().map(owned),
    }
}

pub(in super::super) fn commit(
    state: &mut State,
    context: &Context,
    request: &OffsetCommitRequest,
) -> OffsetCommitResponse {
    let refused = context.code_or(|| check_commit(state, context, request).err());
    let mut topics = Vec::new();
    for topic in &request.topics {
        let mut partitions = Vec::new();
        for asked in &topic.partitions {
            let code = match refused {
                Some(code) => code,
                None => commit_one(state, &request.group_id, &topic.name, asked),
            };
            partitions.push(
                OffsetCommitResponsePartition::default()
                    .with_partition_index(asked.partition_index)
                    .with_error_code(code),
            );
        }
        topics.push(
            OffsetCommitResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions),
        );
    }
    OffsetCommitResponse::default().with_topics(topics)
}

fn check_commit(
    state: &mut State,
    context: &Context,
    request: &OffsetCommitRequest,
) -> Result<(), i16> {
    if request.group_id.is_empty() {
        return Err(codes::INVALID_GROUP_ID);
    }
    if let Some(code) = state.not_coordinator(&request.group_id, context.broker) {
        return Err(code);
    }
    let now = state.now();
    let epoch = request.generation_id_or_member_epoch;
    let Some(group) = state.groups.get_mut(&*request.group_id.0) else {
        // A commit without membership makes the group.
        return match (epoch < 0, context.version) {
            (true, _) => Ok(()),
            (false, 9..) => Err(codes::GROUP_ID_NOT_FOUND),
            (false, _) => Err(codes::ILLEGAL_GENERATION),
        };
    };
    group.expire(now);
    if context.version < 9 && !group.members.is_empty() {
        return Err(codes::UNSUPPORTED_VERSION);
    }
    group.check_commit(&request.member_id, epoch)
}

fn commit_one(
    state: &mut State,
    group: &str,
    topic: &str,
    asked: &OffsetCommitRequestPartition,
) -> i16 {
    let known = state
        .topics
        .get(topic)
        .and_then(|topic| topic.partition(asked.partition_index));
    if known.is_none() {
        return codes::UNKNOWN_TOPIC_OR_PARTITION;
    }
    let metadata = asked.committed_metadata.as_deref().unwrap_or_default();
    if metadata.len() > MOST_METADATA {
        return codes::OFFSET_METADATA_TOO_LARGE;
    }
    let committed = Committed {
        offset: asked.committed_offset,
        leader_epoch: asked.committed_leader_epoch,
        metadata: metadata.to_owned(),
    };
    let group = state.groups.entry(group.to_owned()).or_default();
    group
        .offsets
        .insert((topic.to_owned(), asked.partition_index), committed);
    codes::NONE
}

pub(in super::super) fn fetch_offsets(
    state: &mut State,
    context: &Context,
    request: &OffsetFetchRequest,
) -> OffsetFetchResponse {
    type Asked = Option<Vec<(String, Vec<i32>)>>;
    if context.version >= 8 {
        let mut groups = Vec::new();
        for group in &request.groups {
            let asked: Asked = group.topics.as_ref().map(|topics| {
                let each = topics
                    .iter()
                    .map(|topic| (topic.name.to_string(), topic.partition_indexes.clone()));
                each.collect()
            });
            let member = match context.version {
                9.. => group
                    .member_id
                    .as_ref()
                    .map(|id| (id.to_string(), group.member_epoch)),
                _ => None,
            };
            let response =
                OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
            groups.push(
                match offsets_of(state, context, &group.group_id, member, asked) {
                    Ok(found) => response.with_topics(found.into_iter().map(to_topics).collect()),
                    Err(code) => response.with_error_code(code),
                },
            );
        }
        return OffsetFetchResponse::default().with_groups(groups);
    }
    let asked: Asked = request.topics.as_ref().map(|topics| {
        let each = topics
            .iter()
            .map(|topic| (topic.name.to_string(), topic.partition_indexes.clone()));
        each.collect()
    });
    match offsets_of(state, context, &request.group_id, None, asked) {
        Ok(found) => {
            OffsetFetchResponse::default().with_topics(found.into_iter().map(to_topic).collect())
        }
        Err(code) => OffsetFetchResponse::default().with_error_code(code),
    }
}

type Offsets = (String, Vec<(i32, Option<Committed>)>);

fn offsets_of(
    state: &mut State,
    context: &Context,
    id: &str,
    member: Option<(String, i32)>,
    asked: Option<Vec<(String, Vec<i32>)>>,
) -> Result<Vec<Offsets>, i16> {
    if let Some(code) = context.code_or(|| None) {
        return Err(code);
    }
    if let Some(code) = state.not_coordinator(id, context.broker) {
        return Err(code);
    }
    let now = state.now();
    if let Some(group) = state.groups.get_mut(id) {
        group.expire(now);
        if let Some((member, epoch)) = member {
            let known = group.members.get(&member).ok_or(codes::UNKNOWN_MEMBER_ID)?;
            if known.epoch != epoch {
                return Err(codes::STALE_MEMBER_EPOCH);
            }
        }
    }
    let group = state.groups.get(id);
    let offset = |topic: &str, partition: i32| {
        let key = (topic.to_owned(), partition);
        (
            partition,
            group.and_then(|group| group.offsets.get(&key)).cloned(),
        )
    };
    if let Some(asked) = asked {
        let each = asked.into_iter().map(|(topic, partitions)| {
            let found = partitions
                .into_iter()
                .map(|partition| offset(&topic, partition))
                .collect();
            (topic, found)
        });
        return Ok(each.collect());
    }
    let mut all: BTreeMap<String, Vec<(i32, Option<Committed>)>> = BTreeMap::new();
    for ((topic, partition), committed) in group.iter().flat_map(|group| &group.offsets) {
        all.entry(topic.clone())
            .or_default()
            .push((*partition, Some(committed.clone())));
    }
    Ok(all.into_iter().collect())
}

const NO_OFFSET: Committed = Committed {
    offset: -1,
    leader_epoch: -1,
    metadata: String::new(),
};

fn to_topics((topic, partitions): Offsets) -> OffsetFetchResponseTopics {
    let partitions = partitions.into_iter().map(|(index, committed)| {
        let committed = committed.unwrap_or(NO_OFFSET);
        OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(Some(wire(committed.metadata)))
    });
    OffsetFetchResponseTopics::default()
        .with_name(topic_name(topic))
        .with_partitions(partitions.collect())
}

fn to_topic((topic, partitions): Offsets) -> OffsetFetchResponseTopic {
    let partitions = partitions.into_iter().map(|(index, committed)| {
        let committed = committed.unwrap_or(NO_OFFSET);
        OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(Some(wire(committed.metadata)))
    });
    OffsetFetchResponseTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(partitions.collect())
}

pub(in super::super) fn list(
    state: &mut State,
    context: &Context,
    request: &ListGroupsRequest,
) -> ListGroupsResponse {
    let names: Vec<String> = state.groups.keys().cloned().collect();
    let now = state.now();
    let mut groups = Vec::new();
    for name in names {
        // Each broker lists the groups that it coordinates.
        if state.not_coordinator(&name, context.broker).is_some() {
            continue;
        }
        let Some(group) = state.groups.get_mut(&name) else {
            continue;
        };
        group.expire(now);
        let kind = kind(group);
        let wanted = |filter: &[kafka_protocol::protocol::StrBytes], value: &str| {
            filter.is_empty() || filter.iter().any(|one| one.eq_ignore_ascii_case(value))
        };
        if !wanted(&request.states_filter, group.state()) || !wanted(&request.types_filter, kind) {
            continue;
        }
        let mut listed = ListedGroup::default()
            .with_group_id(wire(name).into())
            .with_protocol_type(wire(if group.has_had_members {
                "consumer"
            } else {
                ""
            }));
        if context.version >= 4 {
            listed.group_state = wire(group.state());
        }
        if context.version >= 5 {
            listed.group_type = wire(kind);
        }
        groups.push(listed);
    }
    ListGroupsResponse::default()
        .with_error_code(context.forced.unwrap_or(codes::NONE))
        .with_groups(groups)
}

/// A group that only ever had offsets is one of the old kind.
fn kind(group: &Group) -> &'static str {
    match group.has_had_members {
        true => "consumer",
        false => "classic",
    }
}

pub(in super::super) fn describe(
    state: &mut State,
    context: &Context,
    request: &ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let mut groups = Vec::new();
    for id in &request.group_ids {
        let mut answer = described::DescribedGroup::default()
            .with_group_id(id.clone())
            .with_authorized_operations(i32::MIN);
        let refused = context.code_or(|| state.not_coordinator(id, context.broker));
        let now = state.now();
        let State {
            groups: known,
            topics,
            ..
        } = &mut *state;
        let group = known.get_mut(&*id.0).filter(|group| group.has_had_members);
        match (refused, group) {
            (Some(code), _) => answer.error_code = code,
            (None, None) => {
                answer.error_code = codes::GROUP_ID_NOT_FOUND;
                answer.error_message = Some(wire(format!("Group {} not found.", &***id)));
            }
            (None, Some(group)) => {
                group.expire(now);
                let name_of = |id| {
                    topics
                        .iter()
                        .find(|(_, topic)| topic.id == id)
                        .map(|(name, _)| name.as_str())
                };
                answer = answer
                    .with_group_state(wire(group.state()))
                    .with_group_epoch(group.epoch)
                    .with_assignment_epoch(group.target_epoch)
                    .with_assignor_name(wire(group.assignor()))
                    .with_members(members_of(group, context, &name_of));
            }
        }
        groups.push(answer);
    }
    ConsumerGroupDescribeResponse::default().with_groups(groups)
}

fn members_of<'a>(
    group: &Group,
    context: &Context,
    name_of: &dyn Fn(uuid::Uuid) -> Option<&'a str>,
) -> Vec<described::Member> {
    let parts = |parts: &Parts| {
        let each = parts.iter().filter_map(|(id, partitions)| {
            Some(
                described::TopicPartitions::default()
                    .with_topic_id(*id)
                    .with_topic_name(topic_name(name_of(*id)?))
                    .with_partitions(partitions.iter().copied().collect()),
            )
        });
        described::Assignment::default().with_topic_partitions(each.collect())
    };
    let none = Parts::new();
    let member = |(id, member): (&String, &super::super::groups::Member)| {
        let mut answer = described::Member::default()
            .with_member_id(wire(id.as_str()))
            .with_instance_id(member.instance_id.as_deref().map(wire))
            .with_rack_id(member.rack.as_deref().map(wire))
            .with_member_epoch(member.epoch)
            .with_client_id(wire(member.client_id.as_str()))
            .with_client_host(wire("/127.0.0.1"))
            .with_subscribed_topic_names(
                member
                    .subscribed
                    .iter()
                    .map(|name| topic_name(name.as_str()))
                    .collect(),
            )
            .with_assignment(parts(&member.assigned))
            .with_target_assignment(parts(group.target.get(id).unwrap_or(&none)));
        if context.version >= 1 {
            answer.member_type = 1;
        }
        answer
    };
    group.members.iter().map(member).collect()
}

/// Groups of the old kind: those that only have offsets.
pub(in super::super) fn describe_classic(
    state: &mut State,
    context: &Context,
    request: &DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let mut groups = Vec::new();
    for id in &request.groups {
        let answer = DescribedGroup::default()
            .with_group_id(id.clone())
            .with_authorized_operations(i32::MIN);
        let refused = context.code_or(|| state.not_coordinator(id, context.broker));
        let found = state
            .groups
            .get(&*id.0)
            .filter(|group| !group.has_had_members);
        groups.push(match (refused, found) {
            (Some(code), _) => answer.with_error_code(code),
            (None, Some(_)) => answer.with_group_state(wire("Empty")),
            (None, None) => {
                let answer = answer.with_group_state(wire("Dead"));
                match context.version {
                    6.. => answer
                        .with_error_code(codes::GROUP_ID_NOT_FOUND)
                        .with_error_message(Some(wire(format!("Group {} not found.", &***id)))),
                    _ => answer,
                }
            }
        });
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

pub(in super::super) fn delete(
    state: &mut State,
    context: &Context,
    request: &DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut results = Vec::new();
    for id in &request.groups_names {
        let now = state.now();
        let refused = context.code_or(|| state.not_coordinator(id, context.broker));
        let code = match (refused, state.groups.get_mut(&*id.0)) {
            (Some(code), _) => code,
            (None, None) => codes::GROUP_ID_NOT_FOUND,
            (None, Some(group)) => {
                group.expire(now);
                match group.members.is_empty() {
                    true => codes::NONE,
                    false => codes::NON_EMPTY_GROUP,
                }
            }
        };
        if code == codes::NONE {
            state.groups.remove(&*id.0);
        }
        results.push(
            DeletableGroupResult::default()
                .with_group_id(id.clone())
                .with_error_code(code),
        );
    }
    DeleteGroupsResponse::default().with_results(results)
}
