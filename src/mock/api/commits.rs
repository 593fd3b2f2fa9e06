//! OffsetCommit and OffsetFetch.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::super::groups::{Committed, Members};
use super::super::state::State;
use super::{Context, wire};
use crate::wire::codes;
use crate::wire::offsets::{
    Answered, BY_TOPIC_ID, CommitPartition, FetchGroup, FetchTopic, FetchedGroup, FetchedOffset,
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
};

/// `offset.metadata.max.bytes`.
const MOST_METADATA: usize = 4096;

/// What a topic is called that goes by its name or its id; None for an id that nobody has.
fn name_of(state: &State, context: &Context, name: &str, id: Uuid) -> Option<String> {
    match context.version {
        BY_TOPIC_ID.. => state.topic_by_id(id).map(|(name, _)| name.clone()),
        _ => Some(name.to_owned()),
    }
}

pub(in super::super) fn commit(
    state: &mut State,
    context: &Context,
    request: &OffsetCommitRequest,
) -> OffsetCommitResponse {
    let refused = check_commit(state, context, request).err();
    let topics = request.topics.iter().map(|topic| {
        let name = name_of(state, context, &topic.name, topic.id);
        let mut one = |asked: &CommitPartition| {
            if let Some(code) = context.forced {
                return code;
            }
            let Some(name) = &name else {
                return codes::UNKNOWN_TOPIC_ID;
            };
            // Topics are looked at before the group is.
            let topic = state.topics.get(name);
            match topic.and_then(|topic| topic.partition(asked.partition)) {
                None => codes::UNKNOWN_TOPIC_OR_PARTITION,
                Some(_) => match refused {
                    Some(code) => code,
                    None => commit_one(state, &request.group_id, name, asked),
                },
            }
        };
        Answered {
            name: topic.name.clone(),
            id: topic.id,
            partitions: topic
                .partitions
                .iter()
                .map(|asked| (asked.partition, one(asked)))
                .collect(),
        }
    });
    let mut topics: Vec<_> = topics.collect();
    // Brokers set aside first what nobody knows.
    let unknown = |topic: &Answered<i16>| {
        let mut partitions = topic.partitions.iter();
        partitions.any(|(_, code)| *code == codes::UNKNOWN_TOPIC_ID)
    };
    topics.sort_by_key(|topic| !unknown(topic));
    OffsetCommitResponse {
        topics,
        ..OffsetCommitResponse::default()
    }
}

fn check_commit(
    state: &mut State,
    context: &Context,
    request: &OffsetCommitRequest,
) -> Result<(), i16> {
    if let Some(code) = state.not_coordinator(&request.group_id, context.broker) {
        return Err(code);
    }
    let now = state.now();
    let epoch = request.member_epoch;
    let Some(group) = state.groups.get_mut(&*request.group_id) else {
        // A commit without membership makes the group.
        return match (epoch < 0, context.version) {
            (true, _) => Ok(()),
            (false, 9..) => Err(codes::GROUP_ID_NOT_FOUND),
            (false, _) => Err(codes::ILLEGAL_GENERATION),
        };
    };
    group.expire(now);
    match &mut group.members {
        Members::Classic(group) => {
            let instance = request.instance_id.as_deref();
            group.check_commit(&request.member_id, instance, epoch, now)
        }
        Members::Consumer(group)
            if context.version < 9 && group.speaks_kip_848(&request.member_id) =>
        {
            Err(codes::UNSUPPORTED_VERSION)
        }
        Members::Consumer(group) => group.check_commit(&request.member_id, epoch),
    }
}

fn commit_one(state: &mut State, group: &str, topic: &str, asked: &CommitPartition) -> i16 {
    if asked.metadata.len() > MOST_METADATA {
        return codes::OFFSET_METADATA_TOO_LARGE;
    }
    let committed = Committed {
        offset: asked.offset,
        leader_epoch: asked.leader_epoch,
        metadata: asked.metadata.to_string(),
    };
    let group = state.groups.entry(group.to_owned()).or_default();
    group
        .offsets
        .insert((topic.to_owned(), asked.partition), committed);
    codes::NONE
}

pub(in super::super) fn fetch(
    state: &mut State,
    context: &Context,
    request: &OffsetFetchRequest,
) -> OffsetFetchResponse {
    let groups = request.groups.iter().map(|asked| {
        let (error_code, topics) = match check_fetch(state, context, asked) {
            Ok(()) => {
                let stable = request.require_stable;
                (codes::NONE, offsets_of(state, context, asked, stable))
            }
            Err(code) => (code, Vec::new()),
        };
        FetchedGroup {
            group_id: asked.group_id.clone(),
            error_code,
            topics,
        }
    });
    OffsetFetchResponse {
        throttle_time_ms: 0,
        groups: groups.collect(),
    }
}

fn check_fetch(state: &mut State, context: &Context, asked: &FetchGroup) -> Result<(), i16> {
    if let Some(code) = context.code_or(|| state.not_coordinator(&asked.group_id, context.broker)) {
        return Err(code);
    }
    let now = state.now();
    if let Some(group) = state.groups.get_mut(&*asked.group_id) {
        group.expire(now);
        if let Some((member, epoch)) = &asked.member
            && let Members::Consumer(group) = &group.members
        {
            let known = group.members.get(&**member);
            known
                .ok_or(codes::UNKNOWN_MEMBER_ID)?
                .check_offsets(*epoch)?;
        }
    }
    Ok(())
}

fn offsets_of(
    state: &State,
    context: &Context,
    asked: &FetchGroup,
    require_stable: bool,
) -> Vec<Answered<FetchedOffset>> {
    let pending = |place: &(String, i32)| {
        let mut transactions = state.transactions.values();
        require_stable && transactions.any(|one| one.holds(&asked.group_id, place))
    };
    let offsets = state
        .groups
        .get(&*asked.group_id)
        .map(|group| &group.offsets);
    if let Some(topics) = &asked.topics {
        let one = |topic: &FetchTopic| {
            let name = name_of(state, context, &topic.name, topic.id);
            let found = |partition: &i32| {
                let answer = match &name {
                    Some(name) => {
                        let key = (name.clone(), *partition);
                        match pending(&key) {
                            true => FetchedOffset {
                                error_code: codes::UNSTABLE_OFFSET_COMMIT,
                                ..answer_of(None)
                            },
                            false => answer_of(offsets.and_then(|offsets| offsets.get(&key))),
                        }
                    }
                    None => FetchedOffset {
                        error_code: codes::UNKNOWN_TOPIC_ID,
                        ..answer_of(None)
                    },
                };
                (*partition, answer)
            };
            Answered {
                name: topic.name.clone(),
                id: topic.id,
                partitions: topic.partitions.iter().map(found).collect(),
            }
        };
        let mut found: Vec<_> = topics.iter().map(one).collect();
        // Brokers add last what nobody knows.
        let unknown = |topic: &Answered<FetchedOffset>| {
            let mut partitions = topic.partitions.iter();
            partitions.any(|(_, found)| found.error_code == codes::UNKNOWN_TOPIC_ID)
        };
        found.sort_by_key(unknown);
        return found;
    }
    let mut all: BTreeMap<&str, Vec<(i32, FetchedOffset)>> = BTreeMap::new();
    for ((topic, partition), committed) in offsets.into_iter().flatten() {
        let found = all.entry(topic).or_default();
        found.push((*partition, answer_of(Some(committed))));
    }
    let named = all.into_iter().map(|(name, partitions)| Answered {
        name: wire(name),
        id: state.topics.get(name).map_or(Uuid::nil(), |topic| topic.id),
        partitions,
    });
    named.collect()
}

fn answer_of(committed: Option<&Committed>) -> FetchedOffset {
    FetchedOffset {
        offset: committed.map_or(-1, |committed| committed.offset),
        leader_epoch: committed.map_or(-1, |committed| committed.leader_epoch),
        metadata: Some(wire(committed.map_or("", |committed| &committed.metadata))),
        error_code: codes::NONE,
    }
}
