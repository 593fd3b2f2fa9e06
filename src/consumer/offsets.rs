//! Requests about offsets: what is committed, where a log begins and ends, and committing.

mod bounds;

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

pub(crate) use self::bounds::{EARLIEST, Found, LATEST, NEWEST, list, list_once, no_partition};
use super::codes;
use crate::clock::{Instant, now};
use crate::cluster::{Cluster, CoordinatorKey};
use crate::error::{Error, Result, classify};
use crate::net::Lane;
use crate::net::backoff::Backoff;
use crate::types::{BrokerId, OffsetAndMetadata, TopicPartition};
use crate::wire::Call;
use crate::wire::offsets::{
    BY_TOPIC_ID, CommitPartition, CommitTopic, FetchTopic, FetchedOffset, OffsetCommitRequest,
    OffsetFetchRequest, OffsetFetchResponse,
};

/// The group and, for members, the id and epoch that requests carry.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) group: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) member: Option<(Arc<str>, i32)>,
}

/// What is to be committed, by partition.
pub(crate) type Offsets = BTreeMap<TopicPartition, ToCommit>;

/// An offset to be committed.
#[derive(Clone, Debug)]
pub(crate) struct ToCommit {
    /// The topic that the offset is of; nil where that is not known, so that its name has to do.
    pub(crate) topic_id: Uuid,
    pub(crate) offset: OffsetAndMetadata,
    /// After this it is not sent, nor sent again.
    pub(crate) deadline: Instant,
}

/// What the group has committed of a partition (`None`: nothing), or why that is not known.
pub(crate) type Lookup = Result<Option<OffsetAndMetadata>, i16>;

/// One request to the group's coordinator, and one only: members judge failures themselves. `build`
/// may choose a lower version than it is offered.
pub(crate) async fn ask_coordinator<R: Call>(
    cluster: &Cluster,
    group: &str,
    deadline: Instant,
    build: impl Fn(i16) -> Result<(i16, R)> + Send + Sync,
) -> Result<(BrokerId, R::Response)> {
    let key = CoordinatorKey::Group(group);
    let broker = cluster.coordinator(key, deadline).await?;
    let doubt = || {
        cluster.forget_coordinator(key, broker);
        cluster.refresh();
    };
    let link = cluster
        .link(broker, Lane::Coordinator, deadline)
        .await
        .inspect_err(|_| doubt())?;
    let (version, request) = build(link.version::<R>()?)?;
    let response = link
        .ask(version, &request, deadline)
        .await
        .inspect_err(|_| doubt())?;
    Ok((broker, response))
}

/// The committed offsets of partitions (absent: none is committed); retries until the deadline.
pub(super) async fn committed(
    cluster: &Cluster,
    identity: &Identity,
    partitions: &[TopicPartition],
    deadline: Instant,
) -> Result<BTreeMap<TopicPartition, OffsetAndMetadata>> {
    let mut backoff = Backoff::new(
        cluster.config().retry_backoff,
        cluster.config().retry_backoff_max,
    );
    loop {
        // Anew for each attempt: the topic may have been made anew.
        let snapshot = cluster.snapshot();
        let id = |tp: &TopicPartition| snapshot.topic(&tp.topic).map(|topic| topic.id);
        let asked = partitions.iter().map(|tp| (tp.clone(), id(tp)));
        let asked: Vec<_> = asked.map(|(tp, id)| (tp, id.unwrap_or_default())).collect();
        let found = committed_once(cluster, identity, &asked, deadline).await;
        let error = match found.and_then(|found| settle(found, &identity.group)) {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        if error
            .code()
            .is_some_and(|code| code.get() == codes::UNKNOWN_TOPIC_ID)
        {
            cluster.refresh();
        }
        let pause = backoff.fail(cluster.clock());
        if !error.is_retriable() || now() + pause >= deadline {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
    }
}

/// All that is known, if everything is.
pub(crate) fn settle(
    found: BTreeMap<TopicPartition, Lookup>,
    group: &str,
) -> Result<BTreeMap<TopicPartition, OffsetAndMetadata>> {
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
pub(super) fn lookup_error(code: i16, group: &str) -> Error {
    Error::from_code(
        code,
        format_args!("looking up committed offsets of group '{group}'"),
    )
}

/// The same, one attempt, with an outcome for every partition that was asked about.
pub(super) async fn committed_once(
    cluster: &Cluster,
    identity: &Identity,
    partitions: &[(TopicPartition, Uuid)],
    deadline: Instant,
) -> Result<BTreeMap<TopicPartition, Lookup>> {
    let mut topics: BTreeMap<&str, FetchTopic> = BTreeMap::new();
    for (tp, id) in partitions {
        let topic = topics.entry(&tp.topic).or_insert_with(|| FetchTopic {
            name: str_bytes(&tp.topic),
            id: *id,
            partitions: Vec::new(),
        });
        topic.partitions.push(tp.partition);
    }
    let names: BTreeMap<Uuid, &str> = topics
        .iter()
        .map(|(name, topic)| (topic.id, *name))
        .collect();
    let request = OffsetFetchRequest {
        group_id: str_bytes(&identity.group),
        member: identity
            .member
            .as_ref()
            .map(|(id, epoch)| (str_bytes(id), *epoch)),
        topics: Some(topics.values().cloned().collect()),
        // Offsets still pending in a transaction are waited for (KIP-447).
        require_stable: true,
    };
    let version = |offered| nameable(offered, topics.values().map(|topic| topic.id));
    let mut answers = offset_fetch(cluster, request, version, deadline).await?;
    let mut found = BTreeMap::new();
    for topic in std::mem::take(&mut answers.topics) {
        let Some(name) = named(&topic.name, topic.id, &names) else {
            continue;
        };
        for (partition, answer) in topic.partitions {
            let tp = TopicPartition::new(name, partition);
            if found.insert(tp.clone(), lookup(answer)).is_some() {
                // Which of the two is its own nobody knows.
                found.insert(tp, Err(codes::CORRUPT_MESSAGE));
            }
        }
    }
    // What is left out is not known: taking it for "nothing committed" would start anew.
    for (tp, _) in partitions {
        found
            .entry(tp.clone())
            .or_insert(Err(codes::CORRUPT_MESSAGE));
    }
    Ok(found)
}

/// Everything that a group has committed, with an outcome for every partition; one attempt.
pub(crate) async fn all_committed(
    cluster: &Cluster,
    group: &str,
    deadline: Instant,
) -> Result<BTreeMap<TopicPartition, Lookup>> {
    let request = OffsetFetchRequest {
        group_id: str_bytes(group),
        require_stable: true,
        ..OffsetFetchRequest::default()
    };
    // By name: those of topics that were deleted have no other that is known here.
    let version = |offered: i16| offered.min(BY_TOPIC_ID - 1);
    let answer = offset_fetch(cluster, request, version, deadline).await?;
    let topics = answer.topics.into_iter();
    let each = topics.flat_map(|topic| {
        let name: Arc<str> = Arc::from(topic.name.as_str());
        let partitions = topic.partitions.into_iter();
        partitions.map(move |(partition, answer)| {
            let tp = TopicPartition::new(Arc::clone(&name), partition);
            (tp, lookup(answer))
        })
    });
    Ok(each.collect())
}

/// What is committed where nothing is.
const NO_OFFSET: i64 = -1;

fn lookup(answer: FetchedOffset) -> Lookup {
    if answer.error_code != codes::NONE {
        return Err(answer.error_code);
    }
    let metadata = answer.metadata.unwrap_or_default();
    let epoch = answer.leader_epoch;
    Ok((answer.offset != NO_OFFSET).then(|| {
        OffsetAndMetadata::new(answer.offset)
            .with_metadata(metadata.as_str())
            .with_leader_epoch((epoch >= 0).then_some(epoch))
    }))
}

async fn offset_fetch(
    cluster: &Cluster,
    request: OffsetFetchRequest,
    version: impl Fn(i16) -> i16 + Send + Sync,
    deadline: Instant,
) -> Result<OffsetFetchResponse> {
    let group = request.group_id.clone();
    let build = |offered| Ok((version(offered), request.clone()));
    let (broker, response) = ask_coordinator(cluster, &group, deadline, build).await?;
    if response.error_code != codes::NONE {
        doubt_coordinator(cluster, response.error_code, &group, broker);
        return Err(lookup_error(response.error_code, &group));
    }
    Ok(response)
}

/// The highest version in which all topics can be named: by id only where every id is known.
fn nameable(offered: i16, mut ids: impl Iterator<Item = Uuid>) -> i16 {
    match ids.any(|id| id.is_nil()) {
        true => offered.min(BY_TOPIC_ID - 1),
        false => offered,
    }
}

/// The name of a topic in an answer; `None` for one that was not asked about.
fn named<'a>(name: &'a str, id: Uuid, names: &BTreeMap<Uuid, &'a str>) -> Option<&'a str> {
    match id.is_nil() {
        true => Some(name),
        false => names.get(&id).copied(),
    }
}

fn doubt_coordinator(cluster: &Cluster, code: i16, group: &str, broker: BrokerId) {
    if classify::classify(code).refresh == classify::Refresh::Coordinator {
        cluster.forget_coordinator(CoordinatorKey::Group(group), broker);
    }
}

/// Commits; `identity` is asked for each attempt, since a member's epoch moves on and its
/// membership may end. Retries each offset until its deadline. `committed` is what was done. The
/// error of the first partition that was refused, or that of the last attempt where everything else
/// was too late; whoever asked for an offset whose deadline has passed knows that by itself.
pub(crate) async fn commit(
    cluster: &Cluster,
    identity: impl Fn() -> Result<Identity> + Send + Sync,
    offsets: Offsets,
    committed: &mut Offsets,
) -> Result<()> {
    let mut backoff = Backoff::new(
        cluster.config().retry_backoff,
        cluster.config().retry_backoff_max,
    );
    let mut left = offsets;
    let mut refused = None;
    while let Some(deadline) = left.values().map(|one| one.deadline).max() {
        let who = identity()?;
        let trying = std::mem::take(&mut left);
        let mut again = None;
        match commit_once(cluster, &who, &trying, deadline).await {
            Ok(failed) => {
                for (tp, one) in trying {
                    let Some(code) = failed.get(&tp).copied() else {
                        committed.insert(tp, one);
                        continue;
                    };
                    let doing = format!("committing to group '{}'", who.group);
                    let error = Error::from_code(code, doing).with_topic_partition(tp.clone());
                    if commit_again(cluster, code, &who, &one) {
                        again.get_or_insert(error);
                        left.insert(tp, one);
                    } else {
                        refused.get_or_insert(error);
                    }
                }
            }
            Err(error) if error.is_retriable() => {
                again = Some(error);
                left = trying;
            }
            Err(error) => return Err(error),
        }
        let Some(error) = again else { break };
        let next = now() + backoff.fail(cluster.clock());
        left.retain(|_, one| one.deadline > next);
        if left.is_empty() {
            return Err(refused.unwrap_or(error));
        }
        tokio::time::sleep_until(next).await;
    }
    refused.map_or(Ok(()), Err)
}

/// Whether the same commit may work later. A stale epoch means that the member's next heartbeat is
/// on its way (KIP-848); not being a member at all does not mend.
fn commit_again(cluster: &Cluster, code: i16, who: &Identity, of: &ToCommit) -> bool {
    match code {
        codes::STALE_MEMBER_EPOCH => who.member.is_some(),
        codes::UNKNOWN_MEMBER_ID | codes::FENCED_MEMBER_EPOCH => false,
        // The coordinator has not heard of a new topic, or the topic is gone; its id is nobody else's.
        codes::UNKNOWN_TOPIC_ID => {
            cluster.refresh();
            cluster.snapshot().topic_by_id(of.topic_id).is_some()
        }
        codes::COORDINATOR_LOAD_IN_PROGRESS
        | codes::COORDINATOR_NOT_AVAILABLE
        | codes::NOT_COORDINATOR
        | codes::REQUEST_TIMED_OUT
        | codes::NOT_LEADER_OR_FOLLOWER
        | codes::CORRUPT_MESSAGE
        | codes::UNSTABLE_OFFSET_COMMIT => true,
        // A topic that is gone: trying until there is one of its name would give that one the offsets of
        // the old. A group that rebalances, an offset too large to keep ...: the caller's.
        _ => false,
    }
}

/// One attempt; the partitions that were not committed, each with its code.
async fn commit_once(
    cluster: &Cluster,
    who: &Identity,
    offsets: &Offsets,
    deadline: Instant,
) -> Result<BTreeMap<TopicPartition, i16>> {
    let ids = || offsets.values().map(|one| one.topic_id);
    let build = |offered| Ok((nameable(offered, ids()), offset_commit(who, offsets)));
    let (broker, response) = ask_coordinator(cluster, &who.group, deadline, build).await?;
    let names: BTreeMap<Uuid, &str> = offsets
        .iter()
        .map(|(tp, one)| (one.topic_id, &*tp.topic))
        .collect();
    // What an answer leaves out was not committed, as far as anybody knows.
    let mut failed: BTreeMap<TopicPartition, i16> = offsets
        .keys()
        .map(|tp| (tp.clone(), codes::CORRUPT_MESSAGE))
        .collect();
    for topic in &response.topics {
        let Some(name) = named(&topic.name, topic.id, &names) else {
            continue;
        };
        for (partition, code) in &topic.partitions {
            let tp = TopicPartition::new(name, *partition);
            match *code {
                codes::NONE => drop(failed.remove(&tp)),
                code => {
                    doubt_coordinator(cluster, code, &who.group, broker);
                    failed.entry(tp).and_modify(|told| *told = code);
                }
            }
        }
    }
    Ok(failed)
}

fn offset_commit(who: &Identity, offsets: &Offsets) -> OffsetCommitRequest {
    let mut topics: BTreeMap<(&str, Uuid), CommitTopic> = BTreeMap::new();
    for (tp, one) in offsets {
        let topic = topics
            .entry((&tp.topic, one.topic_id))
            .or_insert_with(|| CommitTopic {
                name: str_bytes(&tp.topic),
                id: one.topic_id,
                partitions: Vec::new(),
            });
        topic.partitions.push(CommitPartition {
            partition: tp.partition,
            offset: one.offset.offset + i64::from(crate::planted("one-too-many-is-committed")),
            leader_epoch: one.offset.leader_epoch.unwrap_or(-1),
            metadata: str_bytes(&one.offset.metadata),
        });
    }
    let (member_id, member_epoch) = match &who.member {
        Some((id, epoch)) => (str_bytes(id), *epoch),
        None => (StrBytes::default(), -1),
    };
    let instance_id = who.instance_id.as_ref().filter(|_| who.member.is_some());
    OffsetCommitRequest {
        group_id: str_bytes(&who.group),
        member_epoch,
        member_id,
        instance_id: instance_id.map(|id| str_bytes(id)),
        topics: topics.into_values().collect(),
    }
}

/// What a broker would say to a commit by somebody who is not in the group.
pub(super) fn not_a_member(group: &str) -> Error {
    let doing = format!("committing to group '{group}', of which the consumer is not a member");
    Error::from_code(codes::UNKNOWN_MEMBER_ID, doing)
}

pub(crate) fn str_bytes(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
