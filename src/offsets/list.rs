//! Where logs begin and end, and where a time is in them: ListOffsets, asked of the leaders.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use kafka_protocol::messages as kp;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};

use crate::clock::Instant;
use crate::cluster::ask::{Answers, Asking, Operation, Refusal, Route};
use crate::cluster::per_key::PerKey;
use crate::cluster::{Cluster, Snapshot};
use crate::config::consumer::IsolationLevel;
use crate::error::{Error, ErrorKind, Result, classify};
use crate::net::Lane;
use crate::types::{BrokerId, TopicPartition};
use crate::wire::{codes, topic_name};

/// Kafka's timestamp for the end of the log.
pub(crate) const LATEST: i64 = -1;
/// Kafka's timestamp for the record with the largest timestamp (KIP-734).
pub(crate) const NEWEST: i64 = -3;
/// Kafka's timestamp for the beginning of the log.
pub(crate) const EARLIEST: i64 = -2;

/// The first version of ListOffsets that knows it.
const WITH_NEWEST: i16 = 7;

/// What ListOffsets found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// -1 if no record has the timestamp.
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) leader_epoch: i32,
}

/// Asks one leader, once, since consumers judge failures themselves. Partitions with an error come
/// with its code.
pub(crate) async fn list_once(
    cluster: &Cluster,
    broker: BrokerId,
    asked: &[(TopicPartition, i32, i64)],
    level: IsolationLevel,
    deadline: Instant,
) -> Result<IndexMap<TopicPartition, Result<Found, i16>>> {
    let link = cluster.link(broker, Lane::Log, deadline).await?;
    let version = link.version::<kp::ListOffsetsRequest>()?;
    let timeout_ms = cluster.config().request_timeout.as_millis();
    let timeout_ms = i32::try_from(timeout_ms).unwrap_or(i32::MAX);
    let parts = asked
        .iter()
        .map(|(tp, epoch, timestamp)| (tp, *epoch, *timestamp));
    let request = request(parts, level, version, timeout_ms);
    let response = link.ask(version, &request, deadline).await?;
    Ok(read(asked.iter().map(|(tp, ..)| tp), &response))
}

/// Offsets by timestamp ([`LATEST`] and its like included), asked of the leaders; the first
/// partition's error if there is one.
pub(crate) async fn list(
    cluster: &Cluster,
    wanted: Vec<(TopicPartition, i64)>,
    level: IsolationLevel,
    deadline: Instant,
) -> Result<BTreeMap<TopicPartition, Found>> {
    let found = list_each(cluster, wanted, level, deadline).await?;
    let found = found.into_iter();
    found
        .map(|(tp, found)| found.map(|found| (tp, found)))
        .collect()
}

/// The same, with the partitions' errors. A topic that is not known is waited for.
pub(crate) async fn list_each(
    cluster: &Cluster,
    wanted: impl IntoIterator<Item = (TopicPartition, i64)>,
    level: IsolationLevel,
    deadline: Instant,
) -> Result<PerKey<TopicPartition, Found>> {
    let wanted: IndexMap<_, _> = wanted.into_iter().collect();
    let asked = PerKey::awaiting(wanted.keys().cloned());
    let list = List { wanted, level };
    cluster.ask_each(&list, deadline, asked).await
}

struct List {
    wanted: IndexMap<TopicPartition, i64>,
    level: IsolationLevel,
}

impl Operation for List {
    type Key = TopicPartition;
    type Request = kp::ListOffsetsRequest;
    type Value = Found;

    const DOING: &'static str = "looking up offsets";
    const LANE: Lane = Lane::Log;

    fn route<'a>(&'a self, tp: &'a TopicPartition) -> Route<'a> {
        Route::Leader(tp)
    }

    fn version(&self, offered: i16, asked: &[TopicPartition], _: &Snapshot) -> Result<i16> {
        let mut asked = asked.iter().filter_map(|tp| self.wanted.get(tp));
        match offered < WITH_NEWEST && asked.any(|which| *which == NEWEST) {
            // It would be taken for a time.
            true => Err(Error::new(
                ErrorKind::UnsupportedVersion,
                "the broker cannot look up the newest record's offset; Kafka 3.0 or newer is needed",
            )),
            false => Ok(offered),
        }
    }

    fn request(
        &self,
        partitions: &[TopicPartition],
        asking: &Asking<'_>,
    ) -> kp::ListOffsetsRequest {
        let parts = partitions.iter().map(|tp| {
            let epoch = asking.snapshot.leader(tp).map_or(-1, |(_, epoch)| epoch);
            let timestamp = self.wanted.get(tp).copied();
            (tp, epoch, timestamp.unwrap_or(LATEST))
        });
        request(parts, self.level, asking.version, asking.timeout_ms)
    }

    fn read(
        &self,
        partitions: &[TopicPartition],
        _: BrokerId,
        response: kp::ListOffsetsResponse,
    ) -> Answers<Self> {
        let mut found = read(partitions.iter(), &response);
        for tp in partitions {
            found
                .entry(tp.clone())
                .or_insert(Err(codes::CORRUPT_MESSAGE));
        }
        let found = found.into_iter();
        found
            .map(|(tp, found)| (tp, found.map_err(|code| Refusal::Code(code, None))))
            .collect()
    }

    /// The leader may not have heard of a new topic.
    fn may_pass(&self, code: i16) -> bool {
        classify::classify(code).is_retriable()
    }
}

fn request<'a>(
    asked: impl Iterator<Item = (&'a TopicPartition, i32, i64)>,
    level: IsolationLevel,
    version: i16,
    timeout_ms: i32,
) -> kp::ListOffsetsRequest {
    let mut topics: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for (tp, leader_epoch, timestamp) in asked {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(tp.partition)
            .with_current_leader_epoch(leader_epoch)
            .with_timestamp(timestamp);
        topics.entry(&tp.topic).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        ListOffsetsTopic::default()
            .with_name(topic_name(name))
            .with_partitions(partitions)
    });
    let request = kp::ListOffsetsRequest::default()
        .with_replica_id(kp::BrokerId(-1))
        .with_isolation_level(level.code())
        .with_topics(topics.collect());
    match version {
        10.. => request.with_timeout_ms(timeout_ms),
        _ => request,
    }
}

fn read<'a>(
    asked: impl Iterator<Item = &'a TopicPartition>,
    response: &kp::ListOffsetsResponse,
) -> IndexMap<TopicPartition, Result<Found, i16>> {
    let mut found = IndexMap::new();
    let mut left: BTreeSet<_> = asked.collect();
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
    found
}
