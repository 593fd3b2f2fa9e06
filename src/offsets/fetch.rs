//! What is committed: OffsetFetch, asked of the groups' coordinators.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use uuid::Uuid;

use super::coordinator::{Identity, ask_coordinator, doubt_coordinator, nameable};
use crate::clock::Instant;
use crate::cluster::ask::{Answers, Asking, Operation, Refusal, Route};
use crate::cluster::per_key::PerKey;
use crate::cluster::{Cluster, CoordinatorKey, Snapshot};
use crate::error::{Error, Result, classify};
use crate::types::{BrokerId, OffsetAndMetadata, TopicPartition};
use crate::wire::codes;
use crate::wire::offsets::{
    Answered, BY_TOPIC_ID, FetchGroup, FetchTopic, FetchedGroup, FetchedOffset, MANY_GROUPS,
    OffsetFetchRequest, OffsetFetchResponse,
};
use crate::wire::str_bytes;

/// What the group has committed of a partition (`None`: nothing), or why that is not known.
pub(crate) type Lookup = Result<Option<OffsetAndMetadata>, i16>;

/// What groups have committed, by partition.
pub(crate) type CommittedOffsets = BTreeMap<TopicPartition, OffsetAndMetadata>;

/// The partitions to look up of each group; of one without a list, all that it has committed.
pub(crate) type GroupsToLookUp = IndexMap<String, Option<Vec<TopicPartition>>>;

/// The committed offsets of a group's partitions (absent: none is committed).
pub(crate) async fn committed(
    cluster: &Cluster,
    group: &str,
    partitions: Vec<TopicPartition>,
    deadline: Instant,
) -> Result<CommittedOffsets> {
    let groups = IndexMap::from([(group.to_owned(), Some(partitions))]);
    committed_of(cluster, groups, deadline).await?.only()
}

/// The same of several groups.
pub(crate) async fn committed_of(
    cluster: &Cluster,
    groups: GroupsToLookUp,
    deadline: Instant,
) -> Result<PerKey<String, CommittedOffsets>> {
    let asked = PerKey::awaiting(groups.keys().cloned());
    let look_up = LookUp { cluster, groups };
    cluster.ask_each(&look_up, deadline, asked).await
}

struct LookUp<'a> {
    cluster: &'a Cluster,
    groups: GroupsToLookUp,
}

impl Operation for LookUp<'_> {
    type Key = String;
    type Request = OffsetFetchRequest;
    type Value = CommittedOffsets;

    const DOING: &'static str = "looking up committed offsets of group";
    const MANY_KEYS: i16 = MANY_GROUPS;

    fn route<'a>(&'a self, group: &'a String) -> Route<'a> {
        Route::Coordinator(CoordinatorKey::Group(group))
    }

    fn version(&self, offered: i16, groups: &[String], snapshot: &Snapshot) -> Result<i16> {
        let asked = || groups.iter().filter_map(|group| self.groups.get(group));
        if asked().any(Option::is_none) {
            // By name: those of topics that were deleted have no other that is known here.
            return Ok(offered.min(BY_TOPIC_ID - 1));
        }
        let topics = asked().flatten().flatten().map(|tp| &tp.topic);
        let ids = topics.map(|topic| id_of(snapshot, topic));
        Ok(nameable(offered, ids))
    }

    fn request(&self, groups: &[String], asking: &Asking<'_>) -> OffsetFetchRequest {
        let groups = groups.iter().map(|group| {
            let asked = self.groups.get(group).and_then(Option::as_ref);
            let topics = asked.map(|asked| {
                let asked = asked.iter();
                let asked = asked.map(|tp| (tp, id_of(asking.snapshot, &tp.topic)));
                topics(asked).into_values().collect()
            });
            FetchGroup {
                group_id: str_bytes(group),
                member: None,
                topics,
            }
        });
        stable(groups.collect())
    }

    fn read(
        &self,
        groups: &[String],
        _: BrokerId,
        mut response: OffsetFetchResponse,
    ) -> Answers<Self> {
        let snapshot = self.cluster.snapshot();
        let name = |id| snapshot.topic_by_id(id).map(|topic| &*topic.name);
        let answers = groups.iter().filter_map(|group| {
            let told = take(&mut response, group)?;
            let answer = Refusal::check(told.error_code, None).and_then(|()| {
                let mut found = lookups(&told.topics, name);
                if let Some(Some(asked)) = self.groups.get(group) {
                    complete(&mut found, asked.iter());
                }
                settle(found, group).map_err(|error| {
                    if error.code().map(|code| code.get()) == Some(codes::UNKNOWN_TOPIC_ID) {
                        self.cluster.refresh();
                    }
                    Refusal::Error(error)
                })
            });
            Some((group.clone(), answer))
        });
        answers.collect()
    }

    fn may_pass(&self, code: i16) -> bool {
        classify::classify(code).is_retriable()
    }
}

/// All that is known, if everything is.
fn settle(found: BTreeMap<TopicPartition, Lookup>, group: &str) -> Result<CommittedOffsets> {
    let mut settled = BTreeMap::new();
    for (tp, found) in found {
        match found {
            Ok(Some(offset)) => drop(settled.insert(tp, offset)),
            Ok(None) => {}
            Err(code) => return Err(lookup_error(code, group).with_topic_partition(tp)),
        }
    }
    Ok(settled)
}

/// Why a committed offset could not be looked up.
pub(crate) fn lookup_error(code: i16, group: &str) -> Error {
    Error::from_code(code, format_args!("{} '{group}'", LookUp::DOING))
}

/// The committed offsets of a consumer's partitions, which carry the ids of their topics: one
/// attempt, with an outcome for every partition, since the consumer judges failures itself.
pub(crate) async fn committed_once(
    cluster: &Cluster,
    identity: &Identity,
    partitions: &[(TopicPartition, Uuid)],
    deadline: Instant,
) -> Result<BTreeMap<TopicPartition, Lookup>> {
    let topics = topics(partitions.iter().map(|(tp, id)| (tp, *id)));
    let names: BTreeMap<Uuid, &str> = topics
        .iter()
        .map(|(name, topic)| (topic.id, *name))
        .collect();
    let group = &identity.group;
    let member = identity.member.as_ref();
    let request = stable(vec![FetchGroup {
        group_id: str_bytes(group),
        member: member.map(|(id, epoch)| (str_bytes(id), *epoch)),
        topics: Some(topics.values().cloned().collect()),
    }]);
    let version = |offered| nameable(offered, topics.values().map(|topic| topic.id));
    let build = |offered| Ok((version(offered), request.clone()));
    let (broker, mut response) = ask_coordinator(cluster, group, deadline, build).await?;
    let Some(told) = take(&mut response, group) else {
        return Err(lookup_error(codes::CORRUPT_MESSAGE, group));
    };
    if told.error_code != codes::NONE {
        doubt_coordinator(cluster, told.error_code, group, broker);
        return Err(lookup_error(told.error_code, group));
    }
    let mut found = lookups(&told.topics, |id| names.get(&id).copied());
    complete(&mut found, partitions.iter().map(|(tp, _)| tp));
    Ok(found)
}

/// Offsets still pending in a transaction are waited for (KIP-447).
fn stable(groups: Vec<FetchGroup>) -> OffsetFetchRequest {
    OffsetFetchRequest {
        groups,
        require_stable: true,
    }
}

fn topics<'a>(
    asked: impl Iterator<Item = (&'a TopicPartition, Uuid)>,
) -> BTreeMap<&'a str, FetchTopic> {
    let mut topics: BTreeMap<&str, FetchTopic> = BTreeMap::new();
    for (tp, id) in asked {
        let topic = topics.entry(&tp.topic).or_insert_with(|| FetchTopic {
            name: str_bytes(&tp.topic),
            id,
            partitions: Vec::new(),
        });
        topic.partitions.push(tp.partition);
    }
    topics
}

fn id_of(snapshot: &Snapshot, topic: &str) -> Uuid {
    snapshot.topic(topic).map_or(Uuid::nil(), |topic| topic.id)
}

/// What is said about a group, which goes without a name where it is the only one.
fn take(response: &mut OffsetFetchResponse, group: &str) -> Option<FetchedGroup> {
    let groups = &mut response.groups;
    let only = groups.len() == 1;
    let told = |told: &FetchedGroup| *told.group_id == *group || only && told.group_id.is_empty();
    let place = groups.iter().position(told)?;
    Some(groups.swap_remove(place))
}

fn lookups<'a>(
    topics: &[Answered<FetchedOffset>],
    name: impl Fn(Uuid) -> Option<&'a str>,
) -> BTreeMap<TopicPartition, Lookup> {
    let mut found = BTreeMap::new();
    for topic in topics {
        let name = match topic.id.is_nil() {
            true => Some(&*topic.name),
            false => name(topic.id),
        };
        let Some(name) = name.map(Arc::<str>::from) else {
            continue;
        };
        for (partition, answer) in &topic.partitions {
            let tp = TopicPartition::new(Arc::clone(&name), *partition);
            if found.insert(tp.clone(), lookup(answer)).is_some() {
                // Which of the two is its own nobody knows.
                found.insert(tp, Err(codes::CORRUPT_MESSAGE));
            }
        }
    }
    found
}

/// What is left out is not known: taking it for "nothing committed" would start anew.
fn complete<'a>(
    found: &mut BTreeMap<TopicPartition, Lookup>,
    asked: impl Iterator<Item = &'a TopicPartition>,
) {
    for tp in asked {
        found
            .entry(tp.clone())
            .or_insert(Err(codes::CORRUPT_MESSAGE));
    }
}

/// What is committed where nothing is.
const NO_OFFSET: i64 = -1;

fn lookup(answer: &FetchedOffset) -> Lookup {
    if answer.error_code != codes::NONE {
        return Err(answer.error_code);
    }
    let metadata = answer.metadata.as_deref().unwrap_or_default();
    let epoch = answer.leader_epoch;
    Ok((answer.offset != NO_OFFSET).then(|| {
        OffsetAndMetadata::new(answer.offset)
            .with_metadata(metadata)
            .with_leader_epoch((epoch >= 0).then_some(epoch))
    }))
}
