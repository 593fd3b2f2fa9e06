//! An immutable view of the cluster.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;
use kafka_protocol::messages::MetadataResponse;
use kafka_protocol::messages::metadata_response::{
    MetadataResponsePartition, MetadataResponseTopic,
};
use uuid::Uuid;

use crate::types::{BrokerId, TopicPartition};

/// A newer leader that a broker named in a Produce or Fetch answer (KIP-951).
#[derive(Clone, Debug)]
pub(crate) struct LeaderHint {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) leader: BrokerId,
    pub(crate) leader_epoch: i32,
}

/// What the client knows of the cluster at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// Grows with every published snapshot.
    pub(crate) version: u64,
    pub(crate) cluster_id: Option<Arc<str>>,
    pub(crate) controller: Option<BrokerId>,
    pub(crate) brokers: IndexMap<BrokerId, Arc<Broker>>,
    pub(crate) topics: IndexMap<Arc<str>, Arc<Topic>>,
    /// The names of those whose ids are known.
    by_id: HashMap<Uuid, Arc<str>>,
    /// Error codes of topics that were asked for and not described.
    pub(crate) errors: IndexMap<Arc<str>, i16>,
    /// Which topics there are, as of the last time that all were asked for.
    pub(crate) all: Option<Arc<[Listed]>>,
    /// What answers said of topics against what is known, until it is believed or taken back.
    doubts: IndexMap<Arc<str>, Doubt>,
    /// The list of all topics as it came last, and how many lists in a row were other ones than the one before.
    heard: Option<Arc<[Listed]>>,
    differed: u32,
}

/// A description of a topic that contradicts what is known. One answer may be damaged or out of date, and believing it
/// would cost positions, sequences or partitions; so it is asked for again, and believed once it was said often enough.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Doubt {
    claim: Claim,
    times: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// The topic was made anew under this id.
    Id(Uuid),
    /// It has only so many partitions, fewer than were known.
    Partitions(usize),
    /// A leader epoch went back: a broker is behind, or the one known never was.
    OlderEpoch,
    /// It is gone, or refused.
    Code(i16),
}

impl Claim {
    fn of(topic: &MetadataResponseTopic, known: &Topic) -> Option<Self> {
        if another_id(topic.topic_id, known.id) {
            return Some(Self::Id(topic.topic_id));
        }
        if topic.partitions.len() < known.partitions.len() {
            return Some(Self::Partitions(topic.partitions.len()));
        }
        let older = topic.partitions.iter().any(|partition| {
            usize::try_from(partition.partition_index)
                .ok()
                .and_then(|index| known.partitions.get(index))
                .is_some_and(|known| known.leader_epoch > partition.leader_epoch)
        });
        older.then_some(Self::OlderEpoch)
    }

    /// How often it has to be said.
    fn believed_after(self) -> u32 {
        match self {
            Self::Id(_) | Self::Partitions(_) | Self::Code(_) => 2,
            Self::OlderEpoch => 5,
        }
    }
}

/// A topic among all that there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: Arc<str>,
    pub(crate) id: Uuid,
    pub(crate) internal: bool,
}

/// A broker's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broker {
    pub(crate) id: BrokerId,
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
    pub(crate) rack: Option<Arc<str>>,
}

/// A topic as the cluster last described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    /// Nil where brokers have no topic ids. Another id under the same name is another topic
    /// (KIP-516): positions, sequences and leader epochs of the old one mean nothing for it.
    pub(crate) id: Uuid,
    pub(crate) internal: bool,
    /// By partition number, without gaps.
    pub(crate) partitions: Vec<Partition>,
}

/// A partition as the cluster last described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// `None` while there is no leader.
    pub(crate) leader: Option<BrokerId>,
    /// -1 where unknown; never goes back for one topic id.
    pub(crate) leader_epoch: i32,
    pub(crate) replicas: Vec<BrokerId>,
    pub(crate) isr: Vec<BrokerId>,
    pub(crate) offline: Vec<BrokerId>,
}

impl Snapshot {
    pub(crate) fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    pub(crate) fn topic_by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        let topic = self.topics.get(self.by_id.get(&id)?)?;
        (topic.id == id).then_some(topic)
    }

    pub(crate) fn partition(&self, tp: &TopicPartition) -> Option<&Partition> {
        let index = usize::try_from(tp.partition).ok()?;
        self.topic(&tp.topic)?.partitions.get(index)
    }

    /// The partition's leader and its epoch, if it has one.
    pub(crate) fn leader(&self, tp: &TopicPartition) -> Option<(BrokerId, i32)> {
        let partition = self.partition(tp)?;
        Some((partition.leader?, partition.leader_epoch))
    }

    /// Partitions that are led by another broker in a later snapshot, or by none: their topic and number, from whom, to
    /// whom.
    pub(crate) fn moved<'a>(
        &'a self,
        after: &'a Self,
    ) -> impl Iterator<Item = (&'a str, usize, BrokerId, Option<BrokerId>)> {
        let topics = self.topics.iter();
        let both =
            topics.filter_map(|(name, before)| Some((name, before, after.topics.get(name)?)));
        let changed = both.filter(|(_, before, after)| !Arc::ptr_eq(before, after));
        changed.flat_map(|(name, before, after)| {
            let partitions = before.partitions.iter().zip(&after.partitions);
            partitions.enumerate().filter_map(|(number, (was, is))| {
                let from = was.leader?;
                (is.leader != Some(from)).then_some((&**name, number, from, is.leader))
            })
        })
    }
}

/// UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID: the topic is gone.
const GONE: [i16; 2] = [3, 100];

impl Snapshot {
    /// Takes in a Metadata answer. Topics that it does not mention stay as they are.
    pub(crate) fn merge(&mut self, response: &MetadataResponse) {
        self.cluster_id = response
            .cluster_id
            .as_ref()
            .map(|id| Arc::from(id.as_str()));
        self.controller = known_broker(response.controller_id.0);
        if !response.brokers.is_empty() {
            self.brokers = response
                .brokers
                .iter()
                .filter_map(|broker| {
                    let id = known_broker(broker.node_id.0)?;
                    let broker = Broker {
                        id,
                        host: Arc::from(broker.host.as_str()),
                        port: u16::try_from(broker.port).ok()?,
                        rack: broker.rack.as_ref().map(|rack| Arc::from(rack.as_str())),
                    };
                    Some((id, Arc::new(broker)))
                })
                .collect();
        }
        for topic in &response.topics {
            self.merge_topic(topic);
        }
    }

    fn merge_topic(&mut self, topic: &MetadataResponseTopic) {
        let Some(name) = topic.name.as_ref().map(|name| name.0.as_str()) else {
            return;
        };
        if topic.error_code != 0 {
            let code = topic.error_code;
            let news = self.errors.get(name) != Some(&code);
            let weighs = self.topics.contains_key(name) || is_refusal(code);
            if news && weighs && !self.believes(name, Claim::Code(code)) {
                return;
            }
            if GONE.contains(&topic.error_code) {
                let gone = self.topics.swap_remove(name);
                gone.map(|topic| self.by_id.remove(&topic.id));
            }
            self.errors.insert(Arc::from(name), topic.error_code);
            return;
        }
        self.errors.swap_remove(name);
        let mut before = self.topics.get(name).cloned();
        let claim = before
            .as_deref()
            .and_then(|before| Claim::of(topic, before));
        match claim {
            None => _ = self.doubts.swap_remove(name),
            Some(claim) if self.believes(name, claim) => before = None,
            Some(Claim::OlderEpoch) => {} // what is newer in it counts
            Some(Claim::Id(_) | Claim::Partitions(_) | Claim::Code(_)) => return,
        }
        let before = before.as_ref();
        let Some(partitions) =
            partitions(&topic.partitions, before.map(|topic| &topic.partitions[..]))
        else {
            // A gap in the numbers: the broker is still making the topic.
            self.errors.insert(Arc::from(name), LEADER_NOT_AVAILABLE);
            return;
        };
        let name = before.map_or_else(|| Arc::from(name), |before| Arc::clone(&before.name));
        let merged = Topic {
            name: Arc::clone(&name),
            id: topic.topic_id,
            internal: topic.is_internal,
            partitions,
        };
        if before.is_none_or(|before| **before != merged) {
            if !merged.id.is_nil() {
                self.by_id.insert(merged.id, Arc::clone(&name));
            }
            let old = self.topics.insert(name, Arc::new(merged));
            if let Some(old) = old.filter(|old| old.id != topic.topic_id) {
                self.by_id.remove(&old.id);
            }
        }
    }

    /// Takes in the answer about all topics. One that is being made, or has no leader, is there. What is not in a list any more
    /// is gone when the next one says so, too.
    pub(crate) fn list(&mut self, response: &MetadataResponse) {
        let there = response.topics.iter().filter(|topic| {
            topic.error_code == 0
                || !GONE.contains(&topic.error_code)
                    && crate::error::classify::classify(topic.error_code).is_retriable()
        });
        let mut listed: Vec<Listed> = there
            .filter_map(|topic| {
                Some(Listed {
                    name: Arc::from(topic.name.as_ref()?.0.as_str()),
                    id: topic.topic_id,
                    internal: topic.is_internal,
                })
            })
            .collect();
        listed.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        if self.heard.as_deref() == Some(&listed[..]) {
            self.differed = 0;
        } else {
            self.heard = Some(listed.into());
            self.differed = self.differed.saturating_add(1);
        }
        let listed = self.heard.as_deref().unwrap_or_default();
        let all = self.all.as_deref().unwrap_or_default();
        let more = all.iter().all(|known| {
            let at = listed.binary_search_by(|one| one.name.cmp(&known.name));
            at.is_ok_and(|at| listed.get(at) == Some(known))
        });
        if (more || self.is_listed()) && self.all != self.heard {
            self.all = self.heard.clone();
        }
    }

    /// Whether the list of all topics was heard twice; on a cluster where it changes all the time that is not waited for.
    pub(crate) fn is_listed(&self) -> bool {
        self.differed == 0 || self.differed >= MOST_LISTS
    }

    /// Whether what contradicts the known was said often enough, this time included.
    fn believes(&mut self, name: &str, claim: Claim) -> bool {
        let doubt = self
            .doubts
            .entry(Arc::from(name))
            .or_insert(Doubt { claim, times: 0 });
        if doubt.claim != claim {
            *doubt = Doubt { claim, times: 0 };
        }
        doubt.times += 1;
        let believed = doubt.times >= claim.believed_after();
        if believed {
            self.doubts.swap_remove(name);
        }
        believed
    }

    /// Takes in leaders that a broker named beside an error (KIP-951). True if anything was new.
    pub(crate) fn learn(&mut self, leaders: &[LeaderHint], brokers: &[Broker]) -> bool {
        let mut changed = false;
        for broker in brokers {
            let known = self.brokers.get(&broker.id);
            let mut broker = broker.clone();
            // Not every answer has racks.
            broker.rack = broker.rack.or_else(|| known?.rack.clone());
            if known.is_none_or(|known| **known != broker) {
                self.brokers.insert(broker.id, Arc::new(broker));
                changed = true;
            }
        }
        for hint in leaders {
            let Ok(index) = usize::try_from(hint.partition) else {
                continue;
            };
            let Some(topic) = self.topics.get_mut(&hint.topic) else {
                continue;
            };
            let Some(partition) = topic.partitions.get(index) else {
                continue;
            };
            if partition.leader_epoch >= hint.leader_epoch
                || !self.brokers.contains_key(&hint.leader)
            {
                continue;
            }
            if let Some(partition) = Arc::make_mut(topic).partitions.get_mut(index) {
                partition.leader = Some(hint.leader);
                partition.leader_epoch = hint.leader_epoch;
                changed = true;
            }
        }
        changed
    }

    /// Forgets topics that nobody watches.
    pub(crate) fn retain(&mut self, watched: impl Fn(&str) -> bool) {
        self.topics.retain(|name, _| watched(name));
        self.by_id.retain(|_, name| watched(name));
        self.errors.retain(|name, _| watched(name));
        self.doubts.retain(|name, _| watched(name));
    }

    /// Whether every one of these topics is described, without contradiction, and led.
    pub(crate) fn resolves<'a>(&self, topics: impl IntoIterator<Item = &'a Arc<str>>) -> bool {
        topics.into_iter().all(|name| {
            let topic = self.topics.get(name);
            let topic = topic
                .filter(|_| !self.doubts.contains_key(name) && !self.errors.contains_key(name));
            topic.is_some_and(|topic| {
                topic
                    .partitions
                    .iter()
                    .all(|partition| partition.leader.is_some())
            })
        })
    }
}

const LEADER_NOT_AVAILABLE: i16 = 5;
/// After so many lists in a row that are all different the last one is believed.
const MOST_LISTS: u32 = 5;

/// Codes by which brokers refuse a topic. Any other, retriable or not of Metadata at all, may be another the next time.
const REFUSED: [i16; 5] = [17, 29, 37, 38, 44];

/// Whether a topic's error code is worth telling at once: INVALID_TOPIC_EXCEPTION, TOPIC_AUTHORIZATION_FAILED, and
/// INVALID_PARTITIONS, INVALID_REPLICATION_FACTOR and POLICY_VIOLATION of an automatic creation.
pub(crate) fn is_refusal(code: i16) -> bool {
    REFUSED.contains(&code)
}

/// Another id under a name is another topic, of which nothing old is true.
fn another_id(one: Uuid, other: Uuid) -> bool {
    one != other && !one.is_nil() && !other.is_nil()
}

fn known_broker(id: i32) -> Option<BrokerId> {
    (id >= 0).then_some(BrokerId(id))
}

/// The partitions by number, each the newer of the answer and what was known; `None` with gaps.
fn partitions(
    answer: &[MetadataResponsePartition],
    before: Option<&[Partition]>,
) -> Option<Vec<Partition>> {
    let mut sorted: Vec<_> = answer.iter().collect();
    sorted.sort_by_key(|partition| partition.partition_index);
    let numbered = sorted
        .iter()
        .enumerate()
        .all(|(index, partition)| usize::try_from(partition.partition_index) == Ok(index));
    let brokers =
        |ids: &[kafka_protocol::messages::BrokerId]| ids.iter().map(|id| BrokerId(id.0)).collect();
    numbered.then(|| {
        sorted
            .iter()
            .enumerate()
            .map(|(index, partition)| {
                let known = before.and_then(|before| before.get(index));
                match known {
                    // A broker that is behind must not send us back to an old leader.
                    Some(known) if known.leader_epoch > partition.leader_epoch => known.clone(),
                    _ => Partition {
                        leader: known_broker(partition.leader_id.0),
                        leader_epoch: partition.leader_epoch,
                        replicas: brokers(&partition.replica_nodes),
                        isr: brokers(&partition.isr_nodes),
                        offline: brokers(&partition.offline_replicas),
                    },
                }
            })
            .collect()
    })
}

#[cfg(test)]
mod tests;
