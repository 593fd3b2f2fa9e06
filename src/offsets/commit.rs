//! Committing: OffsetCommit, as often as it takes.

use std::collections::BTreeMap;

use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::coordinator::{Identity, ask_coordinator, doubt_coordinator, nameable, named};
use crate::clock::{Instant, now};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::net::backoff::Backoff;
use crate::types::{OffsetAndMetadata, TopicPartition};
use crate::wire::offsets::{CommitPartition, CommitTopic, OffsetCommitRequest};
use crate::wire::{codes, str_bytes};

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

/// Commits; `identity` is asked for each attempt, since a member's epoch moves on and its
/// membership may end, and `behind` of a refusal whether it was made because the member has yet to
/// learn of that. Retries each offset until its deadline. `committed` is what was done. The
/// error of the first partition that was refused, or that of the last attempt where everything else
/// was too late; whoever asked for an offset whose deadline has passed knows that by itself.
pub(crate) async fn commit(
    cluster: &Cluster,
    identity: impl Fn() -> Result<Identity> + Send + Sync,
    behind: impl Fn(i16) -> bool + Send + Sync,
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
                    let behind = who.member.is_some() && behind(code);
                    if behind || commit_again(cluster, code, &one) {
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

/// Whether the same commit may work later, whoever makes it.
fn commit_again(cluster: &Cluster, code: i16, of: &ToCommit) -> bool {
    match code {
        // The coordinator has not heard of a new topic, or the topic is gone; its id is nobody
        // else's.
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
        // A topic that is gone: trying until there is one of its name would give that one the
        // offsets of the old. Not being a member does not mend. A group that rebalances, an
        // offset too large to keep ...: the caller's.
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
pub(crate) fn not_a_member(group: &str) -> Error {
    let doing = format!("committing to group '{group}', of which the consumer is not a member");
    Error::from_code(codes::UNKNOWN_MEMBER_ID, doing)
}
