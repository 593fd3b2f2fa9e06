//! The classic group protocol: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, DescribeGroups.

use std::sync::OnceLock;
use std::time::Duration;

use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    DescribeGroupsRequest, DescribeGroupsResponse, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use uuid::Uuid;

use super::super::groups::{Asker, Group, Members, Reply};
use super::super::state::State;
use super::groups::with_group;
use super::{Context, wire};
use crate::wire::codes;

/// From this version of SyncGroup on, members say which protocol they mean (KIP-559).
const SYNC_NAMES_PROTOCOL: i16 = 5;

pub(in super::super) fn join(
    state: &mut State,
    context: &Context,
    request: &JoinGroupRequest,
) -> Reply<JoinGroupResponse> {
    let refused = |code| {
        done(
            JoinGroupResponse::default()
                .with_error_code(code)
                .with_protocol_name(None)
                .with_member_id(request.member_id.clone()),
        )
    };
    if let Some(code) = refuses(state, context, &request.group_id) {
        return refused(code);
    }
    let (shortest, longest) = state.defaults.classic_sessions;
    let session = u64::try_from(request.session_timeout_ms).map(Duration::from_millis);
    if !session.is_ok_and(|session| (shortest..=longest).contains(&session)) {
        return refused(codes::INVALID_SESSION_TIMEOUT);
    }
    let now = state.now();
    let asker = Asker {
        client_id: &context.client_id,
        version: context.version,
        random: Uuid::from_u128(state.clock.bits()).to_string(),
        initial_delay: state.defaults.initial_rebalance_delay,
        max_size: state.defaults.group_max_size,
    };
    let id = &**request.group_id;
    if !state.groups.contains_key(id) && request.member_id.is_empty() {
        state.groups.insert(id.to_owned(), Group::default());
    }
    let reply = with_group(state, id, |group, around| {
        // An empty group changes to the protocol of whoever comes.
        if matches!(group.members, Members::Consumer(_)) && group.is_empty() {
            if !request.member_id.is_empty() {
                return refused(codes::UNKNOWN_MEMBER_ID);
            }
            group.members = Members::default();
        }
        match &mut group.members {
            Members::Classic(group) => group.join(request, &asker, now),
            Members::Consumer(group) => done(match group.join(request, &asker, around) {
                Ok(joined) => joined,
                Err((code, id)) => JoinGroupResponse::default()
                    .with_error_code(code)
                    .with_protocol_name(None)
                    .with_member_id(wire(id)),
            }),
        }
    });
    reply.unwrap_or_else(|| refused(codes::UNKNOWN_MEMBER_ID))
}

/// An answer that waits for nobody.
fn done<T>(answer: T) -> Reply<T> {
    Reply::from(OnceLock::from(answer))
}

/// An answer without a protocol has an empty name before version 7.
pub(in super::super) fn fit_to_version(joined: &mut JoinGroupResponse, version: i16) {
    if version < 7 {
        joined.protocol_name.get_or_insert_default();
    }
}

/// The code to refuse any of these requests with, before the group is looked at.
fn refuses(state: &mut State, context: &Context, group: &str) -> Option<i16> {
    context.code_or(|| match group.is_empty() {
        true => Some(codes::INVALID_GROUP_ID),
        false => state.not_coordinator(group, context.broker),
    })
}

pub(in super::super) fn sync(
    state: &mut State,
    context: &Context,
    request: &SyncGroupRequest,
) -> Reply<SyncGroupResponse> {
    let refused = |code| done(SyncGroupResponse::default().with_error_code(code));
    let names = request.protocol_type.is_some() && request.protocol_name.is_some();
    if context.forced.is_none() && context.version >= SYNC_NAMES_PROTOCOL && !names {
        return refused(codes::INCONSISTENT_GROUP_PROTOCOL);
    }
    if let Some(code) = refuses(state, context, &request.group_id) {
        return refused(code);
    }
    let now = state.now();
    let State { groups, topics, .. } = state;
    let Some(group) = groups.get_mut(&*request.group_id.0) else {
        return refused(codes::UNKNOWN_MEMBER_ID);
    };
    group.expire(now);
    match &mut group.members {
        Members::Classic(group) => group.sync(request, now),
        Members::Consumer(group) => {
            let name_of = |id| {
                let mut topics = topics.iter();
                let found = topics.find(|(_, topic)| topic.id == id);
                found.map(|(name, _)| name.as_str())
            };
            match group.sync(request, now, name_of) {
                Ok(synced) => done(synced),
                Err(code) => refused(code),
            }
        }
    }
}

pub(in super::super) fn heartbeat(
    state: &mut State,
    context: &Context,
    request: &HeartbeatRequest,
) -> HeartbeatResponse {
    let refused = refuses(state, context, &request.group_id);
    let now = state.now();
    let code = match (refused, state.groups.get_mut(&*request.group_id.0)) {
        (Some(code), _) => code,
        (None, None) => codes::UNKNOWN_MEMBER_ID,
        (None, Some(group)) => {
            group.expire(now);
            let instance = request.group_instance_id.as_deref();
            let (id, generation) = (&*request.member_id, request.generation_id);
            match &mut group.members {
                Members::Classic(group) => group.heartbeat(id, instance, generation, now),
                Members::Consumer(group) => group.classic_heartbeat(id, instance, generation, now),
            }
        }
    };
    HeartbeatResponse::default().with_error_code(code)
}

pub(in super::super) fn leave(
    state: &mut State,
    context: &Context,
    request: &LeaveGroupRequest,
) -> LeaveGroupResponse {
    let answer = LeaveGroupResponse::default();
    if let Some(code) = refuses(state, context, &request.group_id) {
        return answer.with_error_code(code);
    }
    let now = state.now();
    let left = with_group(state, &request.group_id, |group, _| {
        match &mut group.members {
            Members::Classic(group) => group.leave(&request.members, now),
            Members::Consumer(group) => group.leave_all(&request.members),
        }
    });
    let codes = left.unwrap_or_else(|| vec![codes::UNKNOWN_MEMBER_ID; request.members.len()]);
    let members = request.members.iter().zip(codes).map(|(member, code)| {
        MemberResponse::default()
            .with_member_id(member.member_id.clone())
            .with_group_instance_id(member.group_instance_id.clone())
            .with_error_code(code)
    });
    answer.with_members(members.collect())
}

pub(in super::super) fn describe(
    state: &mut State,
    context: &Context,
    request: &DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let now = state.now();
    let mut groups = Vec::new();
    for id in &request.groups {
        let answer = DescribedGroup::default()
            .with_group_id(id.clone())
            .with_authorized_operations(i32::MIN);
        let refused = context.code_or(|| state.not_coordinator(id, context.broker));
        groups.push(match (refused, state.groups.get_mut(&*id.0)) {
            (Some(code), _) => answer.with_error_code(code),
            (None, Some(group)) => {
                group.expire(now);
                describe_one(answer, group, context)
            }
            (None, None) => not_found(answer, format!("Group {} not found.", &***id), context),
        });
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

fn describe_one(answer: DescribedGroup, group: &Group, context: &Context) -> DescribedGroup {
    let Members::Classic(classic) = &group.members else {
        let why = format!("Group {} is not a classic group.", &**answer.group_id);
        return not_found(answer, why, context);
    };
    let protocol = classic.stable_protocol();
    let members = classic.members.iter().map(|(id, member)| {
        let known = DescribedGroupMember::default()
            .with_member_id(wire(id))
            .with_group_instance_id(member.instance_id.as_deref().map(wire))
            .with_client_id(wire(member.client_id.as_str()))
            .with_client_host(wire("/127.0.0.1"))
            .with_member_assignment(member.assignment.clone());
        match protocol {
            Some(protocol) => {
                known.with_member_metadata(member.metadata(protocol).cloned().unwrap_or_default())
            }
            None => known,
        }
    });
    answer
        .with_group_state(wire(group.state()))
        .with_protocol_type(wire(group.protocol_type()))
        .with_protocol_data(wire(protocol.unwrap_or_default()))
        .with_members(members.collect())
}

fn not_found(answer: DescribedGroup, why: String, context: &Context) -> DescribedGroup {
    let answer = answer.with_group_state(wire("Dead"));
    match context.version {
        6.. => answer
            .with_error_code(codes::GROUP_ID_NOT_FOUND)
            .with_error_message(Some(wire(why))),
        _ => answer,
    }
}
