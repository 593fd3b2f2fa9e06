//! What is committed: OffsetFetch, asked of the group's coordinator.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::coordinator::{Identity, ask_coordinator, doubt_coordinator, nameable, named};
use crate::clock::{Instant, now};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::net::backoff::Backoff;
use crate::types::{OffsetAndMetadata, TopicPartition};
use crate::wire::codes;
use crate::wire::offsets::{
    BY_TOPIC_ID, FetchTopic, FetchedOffset, OffsetFetchRequest, OffsetFetchResponse,
};
use crate::wire::str_bytes;

/// What the group has committed of a partition (`None`: nothing), or why that is not known.
pub(crate) type Lookup = Result<Option<OffsetAndMetadata>, i16>;

/// The committed offsets of partitions (absent: none is committed); retries until the deadline.
pub(crate) async fn committed(
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
pub(crate) fn lookup_error(code: i16, group: &str) -> Error {
    Error::from_code(
        code,
        format_args!("looking up committed offsets of group '{group}'"),
    )
}

/// The same, one attempt, with an outcome for every partition that was asked about.
pub(crate) async fn committed_once(
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
