//! Where logs begin and end, and where a time is in them: ListOffsets, asked of the leaders.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use kafka_protocol::messages as kp;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};

use crate::clock::{Instant, now};
use crate::cluster::Cluster;
use crate::config::consumer::IsolationLevel;
use crate::error::{Error, ErrorKind, Result};
use crate::net::Lane;
use crate::net::backoff::Backoff;
use crate::types::{BrokerId, TopicPartition};
use crate::wire::{codes, topic_name};

/// Kafka's timestamp for the end of the log.
pub(crate) const LATEST: i64 = -1;
/// Kafka's timestamp for the record with the largest timestamp (KIP-734).
pub(crate) const NEWEST: i64 = -3;
/// Kafka's timestamp for the beginning of the log.
pub(crate) const EARLIEST: i64 = -2;

/// What ListOffsets found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// -1 if no record has the timestamp.
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) leader_epoch: i32,
}

/// Asks one leader, once. Partitions with an error come with its code.
pub(crate) async fn list_once(
    cluster: &Cluster,
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
        .with_isolation_level(level.code())
        .with_topics(topics);
    let link = cluster.link(broker, Lane::Log, deadline).await?;
    let version = link.version::<kp::ListOffsetsRequest>()?;
    let timeout = cluster.config().request_timeout;
    let request = match version {
        10.. => request.with_timeout_ms(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)),
        _ => request,
    };
    let response = link.ask(version, &request, deadline).await?;
    let mut found = IndexMap::new();
    let mut left: BTreeSet<_> = asked.iter().map(|(tp, ..)| tp).collect();
    for topic in &response.topics {
        for part in &topic.partitions {
            let tp = TopicPartition::new(topic.name.as_str(), part.partition_index);
            let outcome = match (left.remove(&tp), part.error_code) {
                (true, codes::NONE) => Ok(Found {
                    offset: part.offset,
                    timestamp: part.timestamp,
                    leader_epoch: part.leader_epoch,
                }),
                (true, code) => Err(code),
                // Which of the two is its own nobody knows.
                (false, _) if found.contains_key(&tp) => Err(codes::CORRUPT_MESSAGE),
                (false, _) => continue,
            };
            found.insert(tp, outcome);
        }
    }
    Ok(found)
}

/// Offsets by timestamp ([`LATEST`] and [`EARLIEST`] included), asking the leaders until each has
/// answered or the deadline passes.
pub(crate) async fn list(
    cluster: &Cluster,
    wanted: Vec<(TopicPartition, i64)>,
    level: IsolationLevel,
    deadline: Instant,
) -> Result<BTreeMap<TopicPartition, Found>> {
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
            match list_once(cluster, broker, &asked, level, deadline).await {
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

pub(crate) fn no_partition(tp: &TopicPartition, count: usize) -> Error {
    let message = format!("the topic has {count} partitions, numbered from 0");
    Error::new(ErrorKind::UnknownPartition, message).with_topic_partition(tp.clone())
}
