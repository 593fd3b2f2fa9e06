//! Heartbeats, and what is asked about groups.

use std::collections::BTreeSet;
use std::time::Duration;

use kafka_protocol::messages::consumer_group_describe_response as described;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions as OwnedPartitions;
use kafka_protocol::messages::consumer_group_heartbeat_response::{
    Assignment, TopicPartitions as AssignedPartitions,
};
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, DeleteGroupsRequest, DeleteGroupsResponse, ListGroupsRequest,
    ListGroupsResponse,
};

use regex_lite::Regex;

use super::super::assign::Parts;
use super::super::groups::{Around, Catalogue, ConsumerGroup, Group, Heartbeat, Member, Members};
use super::super::state::State;
use super::{Context, topic_name, wire};
use crate::wire::codes;

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
) -> Result<(i32, Option<Parts>), (i16, String)> {
    let refused = |code| (code, String::new());
    if let Some(code) = context.code_or(|| None) {
        return Err(refused(code));
    }
    if request.group_id.trim().is_empty() {
        let why = "GroupId can't be empty.".to_owned();
        return Err((codes::INVALID_REQUEST, why));
    }
    ConsumerGroup::check(beat).map_err(|(code, why)| (code, why.to_owned()))?;
    if let Some(code) = state.not_coordinator(&request.group_id, context.broker) {
        return Err(refused(code));
    }
    let migration = state.defaults.migration;
    let id = &**request.group_id;
    if !state.groups.contains_key(id) {
        if beat.epoch != 0 {
            let why = format!("Group {id} not found.");
            return Err((codes::GROUP_ID_NOT_FOUND, why));
        }
        state.groups.insert(id.to_owned(), Group::default());
    }
    let told = with_group(state, id, |group, around| {
        let group = consumer(group, beat.epoch, id, migration, around)?;
        group.downgrades = migration.1;
        let told = group.heartbeat(beat, around).map_err(|code| match code {
            codes::INVALID_REGULAR_EXPRESSION => {
                let regex = beat.regex.as_deref().unwrap_or_default();
                let why =
                    format!("SubscribedTopicRegex `{regex}` is not a valid regular expression.");
                (code, why)
            }
            code => refused(code),
        })?;
        Ok((told.epoch, told.assigned))
    });
    told.unwrap_or_else(|| Err(refused(codes::GROUP_ID_NOT_FOUND)))
}

/// Does something with a group and what it needs to know of the cluster; None if it is not there.
pub(super) fn with_group<T>(
    state: &mut State,
    id: &str,
    act: impl FnOnce(&mut Group, &Around<'_>) -> T,
) -> Option<T> {
    let now = state.now();
    let State {
        groups,
        topics,
        defaults,
        made,
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
        catalogue: Catalogue {
            matching: &|regex| matching(regex, topics.keys()),
            made: *made,
        },
    };
    let group = groups.get_mut(id)?;
    group.expire(now);
    let done = act(group, &around);
    // It may have lost its last member of a protocol.
    group.expire(now);
    Some(done)
}

/// The group as one of KIP-848, if it is one or becomes one by a member that joins.
fn consumer<'a>(
    group: &'a mut Group,
    epoch: i32,
    id: &str,
    (upgrades, _): (bool, bool),
    around: &Around<'_>,
) -> Result<&'a mut ConsumerGroup, (i16, String)> {
    let (is_empty, kind) = (group.is_empty(), group.protocol_type().to_owned());
    if let Members::Classic(classic) = &mut group.members {
        let cannot = |why: &str| {
            let why = format!("Cannot upgrade classic group {id} to consumer group because {why}");
            (codes::GROUP_ID_NOT_FOUND, why)
        };
        let upgraded = match epoch {
            0 if is_empty => ConsumerGroup::default(),
            0 if kind != "consumer" => {
                return Err(cannot(
                    "the group does not use the consumer embedded protocol.",
                ));
            }
            0 if !upgrades => return Err(cannot("the online upgrade is disabled.")),
            0 => {
                let upgraded = ConsumerGroup::upgraded(classic, around);
                upgraded.ok_or_else(|| cannot("its members' protocol cannot be read."))?
            }
            _ => {
                let why = format!("Group {id} is not a consumer group.");
                return Err((codes::GROUP_ID_NOT_FOUND, why));
            }
        };
        classic.disband();
        group.members = Members::Consumer(upgraded);
    }
    match &mut group.members {
        Members::Consumer(group) => Ok(group),
        Members::Classic(_) => Err((codes::GROUP_ID_NOT_FOUND, String::new())),
    }
}

/// The names that an expression matches as a whole; None if it is no expression.
fn matching<'a>(regex: &str, names: impl Iterator<Item = &'a String>) -> Option<BTreeSet<String>> {
    // Alone first: what is only an expression within the brackets is none.
    Regex::new(regex).ok()?;
    let whole = Regex::new(&format!("^(?:{regex})$")).ok()?;
    let names = names.filter(|name| whole.is_match(name));
    Some(names.cloned().collect())
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
        regex: request
            .subscribed_topic_regex
            .as_ref()
            .map(ToString::to_string),
        assignor: request.server_assignor.as_ref().map(ToString::to_string),
        owned: request.topic_partitions.as_ref().map(owned),
    }
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
        let kind = group.kind();
        let wanted = |filter: &[kafka_protocol::protocol::StrBytes], value: &str| {
            filter.is_empty() || filter.iter().any(|one| one.eq_ignore_ascii_case(value))
        };
        if !wanted(&request.states_filter, group.state()) || !wanted(&request.types_filter, kind) {
            continue;
        }
        let mut listed = ListedGroup::default()
            .with_group_id(wire(name).into())
            .with_protocol_type(wire(group.protocol_type()));
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
        let (group, why) = match known.get_mut(&*id.0).map(|group| &mut group.members) {
            Some(Members::Consumer(group)) => (Some(group), ""),
            Some(Members::Classic(_)) => (None, "is not a consumer group"),
            None => (None, "not found"),
        };
        match (refused, group) {
            (Some(code), _) => answer.error_code = code,
            (None, None) => {
                answer.error_code = codes::GROUP_ID_NOT_FOUND;
                answer.error_message = Some(wire(format!("Group {} {why}.", &***id)));
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
    group: &ConsumerGroup,
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
    let member = |(id, member): (&String, &Member)| {
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
            .with_subscribed_topic_regex(member.regex.as_deref().map(wire))
            .with_assignment(parts(&member.assigned))
            .with_target_assignment(parts(group.target.get(id).unwrap_or(&none)));
        if context.version >= 1 {
            answer.member_type = i8::from(member.classic.is_none());
        }
        answer
    };
    group.members.iter().map(member).collect()
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
                match group.is_empty() {
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
