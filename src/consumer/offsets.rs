//! Requests about offsets: what is committed, where a log begins and ends, and committing.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use kafka_protocol::messages as kp;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::protocol::StrBytes;

use super::codes;
use super::config::IsolationLevel;
use super::fetcher::{isolation, topic_name};
use super::shared::Shared;
use crate::clock::{Instant, now};
use crate::cluster::{Cluster, CoordinatorKey};
use crate::error::{Error, ErrorKind, Result, classify};
use crate::net::Lane;
use crate::net::backoff::Backoff;
use crate::types::{BrokerId, OffsetAndMetadata, TopicPartition};
use crate::wire::Call;

/// Kafka's timestamp for the end of the log.
pub(super) const LATEST: i64 = -1;
/// Kafka's timestamp for the beginning of the log.
pub(super) const EARLIEST: i64 = -2;

/// The group and, for members, the id and epoch that requests carry.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) group: Arc<str>,
    pub(super) instance_id: Option<Arc<str>>,
    pub(super) member: Option<(Arc<str>, i32)>,
}

/// What ListOffsets found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// -1 if no record has the timestamp.
    pub(super) offset: i64,
    pub(super) timestamp: i64,
    pub(super) leader_epoch: i32,
}

/// One request to the group's coordinator, and one only: members judge failures themselves.
pub(super) async fn ask_coordinator<R: Call>(
    cluster: &Cluster,
    group: &str,
    deadline: Instant,
    build: impl Fn(i16) -> Result<R> + Send + Sync,
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
    let version = link.version::<R>()?;
    let request = build(version)?;
    let deadline = deadline.min(now() + cluster.config().request_timeout);
    let response = link
        .send(version, &request, deadline)
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
        let error = match committed_once(cluster, identity, partitions, deadline).await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        let pause = backoff.fail(cluster.clock());
        if !error.is_retriable() || now() + pause >= deadline {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
    }
}

/// The same, one attempt.
pub(super) async fn committed_once(
    cluster: &Cluster,
    identity: &Identity,
    partitions: &[TopicPartition],
    deadline: Instant,
) -> Result<BTreeMap<TopicPartition, OffsetAndMetadata>> {
    let group = &identity.group;
    let build = |version| Ok(offset_fetch(identity, partitions, version));
    let (broker, response) =
        ask_coordinator::<kp::OffsetFetchRequest>(cluster, group, deadline, build).await?;
    let doing = || format!("looking up committed offsets of group '{group}'");
    let mut code = response.error_code;
    let mut found = BTreeMap::new();
    let mut take = |topic: &str, partition: i32, part: (i64, i32, Option<&str>, i16)| {
        let tp = TopicPartition::new(topic, partition);
        let (offset, epoch, metadata, part_code) = part;
        if part_code != codes::NONE {
            return Err(Error::from_code(part_code, doing()).with_topic_partition(tp));
        }
        if offset >= 0 {
            let offset = OffsetAndMetadata::new(offset)
                .with_metadata(metadata.unwrap_or_default())
                .with_leader_epoch((epoch >= 0).then_some(epoch));
            found.insert(tp, offset);
        }
        Ok(())
    };
    for topic in &response.topics {
        for part in &topic.partitions {
            let metadata = part.metadata.as_ref().map(StrBytes::as_str);
            let of = (
                part.committed_offset,
                part.committed_leader_epoch,
                metadata,
                part.error_code,
            );
            take(&topic.name, part.partition_index, of)?;
        }
    }
    for answer in &response.groups {
        if answer.error_code != codes::NONE {
            code = answer.error_code;
        }
        for topic in &answer.topics {
            for part in &topic.partitions {
                let metadata = part.metadata.as_ref().map(StrBytes::as_str);
                let of = (
                    part.committed_offset,
                    part.committed_leader_epoch,
                    metadata,
                    part.error_code,
                );
                take(&topic.name, part.partition_index, of)?;
            }
        }
    }
    if code != codes::NONE {
        if classify::classify(code).refresh == classify::Refresh::Coordinator {
            cluster.forget_coordinator(CoordinatorKey::Group(group), broker);
        }
        return Err(Error::from_code(code, doing()));
    }
    Ok(found)
}

fn offset_fetch(
    identity: &Identity,
    partitions: &[TopicPartition],
    version: i16,
) -> kp::OffsetFetchRequest {
    let group = kp::GroupId(str_bytes(&identity.group));
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for tp in partitions {
        topics.entry(&tp.topic).or_default().push(tp.partition);
    }
    let request = kp::OffsetFetchRequest::default();
    if version < 8 {
        let topics = topics.into_iter().map(|(name, partitions)| {
            OffsetFetchRequestTopic::default()
                .with_name(topic_name(name))
                .with_partition_indexes(partitions)
        });
        let request = request
            .with_group_id(group)
            .with_topics(Some(topics.collect()));
        return match version {
            7.. => request.with_require_stable(true),
            _ => request,
        };
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        OffsetFetchRequestTopics::default()
            .with_name(topic_name(name))
            .with_partition_indexes(partitions)
    });
    let mut asked = OffsetFetchRequestGroup::default()
        .with_group_id(group)
        .with_topics(Some(topics.collect()));
    if let Some((id, epoch)) = identity.member.as_ref().filter(|_| version >= 9) {
        asked = asked
            .with_member_id(Some(str_bytes(id)))
            .with_member_epoch(*epoch);
    }
    // Offsets still pending in a transaction are waited for (KIP-447).
    request.with_groups(vec![asked]).with_require_stable(true)
}

/// Commits; `identity` is asked for each attempt, since a member's epoch moves on and its membership may
/// end. Retries until the deadline. The error of the first partition that failed for good, if any.
pub(super) async fn commit(
    cluster: &Cluster,
    identity: impl Fn() -> Result<Identity> + Send + Sync,
    offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
    deadline: Instant,
) -> Result<()> {
    let mut backoff = Backoff::new(
        cluster.config().retry_backoff,
        cluster.config().retry_backoff_max,
    );
    let mut left = offsets;
    while !left.is_empty() {
        let who = identity()?;
        let outcome = commit_once(cluster, &who, &left, deadline).await;
        let error = match outcome {
            Ok((broker, failed)) => {
                left.retain(|(tp, _)| failed.contains_key(tp));
                let Some((tp, code)) = failed.into_iter().next() else {
                    return Ok(());
                };
                if classify::classify(code).refresh == classify::Refresh::Coordinator {
                    cluster.forget_coordinator(CoordinatorKey::Group(&who.group), broker);
                }
                let doing = format!("committing to group '{}'", who.group);
                let error = Error::from_code(code, doing).with_topic_partition(tp);
                if !commit_again(code, &who) {
                    return Err(error);
                }
                error
            }
            Err(error) if error.is_retriable() => error,
            Err(error) => return Err(error),
        };
        let pause = backoff.fail(cluster.clock());
        if now() + pause >= deadline {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

/// Whether the same commit may work later. A stale epoch means that the member's next heartbeat is
/// on its way (KIP-848); not being a member at all does not mend.
fn commit_again(code: i16, who: &Identity) -> bool {
    match code {
        codes::STALE_MEMBER_EPOCH => who.member.is_some(),
        codes::UNKNOWN_MEMBER_ID | codes::FENCED_MEMBER_EPOCH => false,
        codes::COORDINATOR_LOAD_IN_PROGRESS
        | codes::COORDINATOR_NOT_AVAILABLE
        | codes::NOT_COORDINATOR
        | codes::REQUEST_TIMED_OUT
        | codes::NOT_LEADER_OR_FOLLOWER
        | codes::UNSTABLE_OFFSET_COMMIT => true,
        // A topic that is gone: trying until there is one of its name would give that one the offsets of
        // the old. A group that rebalances, an offset too large to keep ...: the caller's.
        _ => false,
    }
}

async fn commit_once(
    cluster: &Cluster,
    who: &Identity,
    offsets: &[(TopicPartition, OffsetAndMetadata)],
    deadline: Instant,
) -> Result<(BrokerId, BTreeMap<TopicPartition, i16>)> {
    let build = |_| Ok(offset_commit(who, offsets));
    let (broker, response) =
        ask_coordinator::<kp::OffsetCommitRequest>(cluster, &who.group, deadline, build).await?;
    let mut failed = BTreeMap::new();
    for topic in &response.topics {
        for part in &topic.partitions {
            if part.error_code != codes::NONE {
                let tp = TopicPartition::new(topic.name.as_str(), part.partition_index);
                failed.insert(tp, part.error_code);
            }
        }
    }
    Ok((broker, failed))
}

fn offset_commit(
    who: &Identity,
    offsets: &[(TopicPartition, OffsetAndMetadata)],
) -> kp::OffsetCommitRequest {
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for (tp, offset) in offsets {
        let metadata = (!offset.metadata.is_empty()).then(|| str_bytes(&offset.metadata));
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(tp.partition)
            .with_committed_offset(offset.offset)
            .with_committed_leader_epoch(offset.leader_epoch.unwrap_or(-1))
            .with_committed_metadata(Some(metadata.unwrap_or_default()));
        topics.entry(&tp.topic).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        OffsetCommitRequestTopic::default()
            .with_name(topic_name(name))
            .with_partitions(partitions)
    });
    let (member, epoch) = match &who.member {
        Some((id, epoch)) => (str_bytes(id), *epoch),
        None => (StrBytes::default(), -1),
    };
    let instance_id = who.instance_id.as_ref().filter(|_| who.member.is_some());
    kp::OffsetCommitRequest::default()
        .with_group_id(kp::GroupId(str_bytes(&who.group)))
        .with_generation_id_or_member_epoch(epoch)
        .with_member_id(member)
        .with_group_instance_id(instance_id.map(|id| str_bytes(id)))
        .with_topics(topics.collect())
}

/// Asks one leader, once. Partitions with an error come with its code.
pub(super) async fn list_once(
    shared: &Shared,
    broker: BrokerId,
    asked: &[(TopicPartition, i32, i64)],
    level: IsolationLevel,
    deadline: Instant,
) -> Result<IndexMap<TopicPartition, Result<Found, i16>>> {
    let mut topics: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for (tp, leader_epoch, timestamp) in asked {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(tp.partition)
            .with_current_leader_epoch(*leader_epoch)
            .with_timestamp(*timestamp);
        topics.entry(&tp.topic).or_default().push(partition);
    }
    let topics: Vec<_> = topics
        .into_iter()
        .map(|(name, partitions)| {
            ListOffsetsTopic::default()
                .with_name(topic_name(name))
                .with_partitions(partitions)
        })
        .collect();
    let request = kp::ListOffsetsRequest::default()
        .with_replica_id(kp::BrokerId(-1))
        .with_isolation_level(isolation(level))
        .with_topics(topics);
    let cluster = &shared.cluster;
    let link = cluster.link(broker, Lane::Admin, deadline).await?;
    let version = link.version::<kp::ListOffsetsRequest>()?;
    let timeout = cluster.config().request_timeout;
    let request = match version {
        10.. => request.with_timeout_ms(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)),
        _ => request,
    };
    let deadline = deadline.min(now() + timeout);
    let response = link.send(version, &request, deadline).await?;
    let mut found = IndexMap::new();
    for topic in &response.topics {
        for part in &topic.partitions {
            let tp = TopicPartition::new(topic.name.as_str(), part.partition_index);
            let outcome = match part.error_code {
                codes::NONE => Ok(Found {
                    offset: part.offset,
                    timestamp: part.timestamp,
                    leader_epoch: part.leader_epoch,
                }),
                code => Err(code),
            };
            found.insert(tp, outcome);
        }
    }
    Ok(found)
}

/// Offsets by timestamp ([`LATEST`] and [`EARLIEST`] included), asking the leaders until each has
/// answered or the deadline passes.
pub(super) async fn list(
    shared: &Shared,
    wanted: Vec<(TopicPartition, i64)>,
    level: IsolationLevel,
    deadline: Instant,
) -> Result<BTreeMap<TopicPartition, Found>> {
    let cluster = &shared.cluster;
    let config = cluster.config();
    let mut backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
    let mut found = BTreeMap::new();
    let mut left = wanted;
    let mut last: Option<Error> = None;
    loop {
        let mut by_leader: BTreeMap<BrokerId, Vec<(TopicPartition, i32, i64)>> = BTreeMap::new();
        for (tp, timestamp) in &left {
            let topic = cluster.topic(&tp.topic, false, deadline).await?;
            let number = usize::try_from(tp.partition).ok();
            let Some(partition) = number.and_then(|number| topic.partitions.get(number)) else {
                return Err(no_partition(tp, topic.partitions.len()));
            };
            if let Some(leader) = partition.leader {
                let asked = (tp.clone(), partition.leader_epoch, *timestamp);
                by_leader.entry(leader).or_default().push(asked);
            }
        }
        for (broker, asked) in by_leader {
            match list_once(shared, broker, &asked, level, deadline).await {
                Ok(answers) => {
                    for (tp, answer) in answers {
                        match answer {
                            Ok(answer) => {
                                found.insert(tp, answer);
                            }
                            Err(code) => {
                                let error = Error::from_code(code, "looking up offsets")
                                    .with_topic_partition(tp);
                                if !error.is_retriable() {
                                    return Err(error);
                                }
                                last = Some(error);
                            }
                        }
                    }
                }
                Err(error) if error.is_retriable() => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        left.retain(|(tp, _)| !found.contains_key(tp));
        if left.is_empty() {
            return Ok(found);
        }
        cluster.refresh();
        let pause = backoff.fail(cluster.clock());
        if now() + pause >= deadline {
            return Err(last.unwrap_or_else(|| {
                let message = "offsets could not be looked up within the deadline: no leader";
                Error::new(ErrorKind::Timeout, message).with_topic_partition(left[0].0.clone())
            }));
        }
        tokio::time::sleep(pause).await;
    }
}

/// What a broker would say to a commit by somebody who is not in the group.
pub(super) fn not_a_member(group: &str) -> Error {
    let doing = format!("committing to group '{group}', of which the consumer is not a member");
    Error::from_code(codes::UNKNOWN_MEMBER_ID, doing)
}

pub(super) fn no_partition(tp: &TopicPartition, count: usize) -> Error {
    let message = format!("the topic has {count} partitions, numbered from 0");
    Error::new(ErrorKind::UnknownPartition, message).with_topic_partition(tp.clone())
}

pub(super) fn str_bytes(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
