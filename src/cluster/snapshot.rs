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
    /// How many answers in a row went back behind what is known of a topic.
    behind: HashMap<Arc<str>, u32>,
}

/// Brokers learn of changes at different times, and one that is late goes back behind what another
/// has said. So a topic that is gone, smaller or another one is asked for once more; an older
/// leader epoch counts when nobody says anything else, for then the one that is known never was.
const GOES_BACK: u32 = 2;
const OLDER_EPOCH: u32 = 5;

/// After how many answers that go back like this one does it counts; `None` if it does not go back.
fn goes_back(topic: &MetadataResponseTopic, known: &Topic) -> Option<u32> {
    if another_id(topic.topic_id, known.id) || topic.partitions.len() < known.partitions.len() {
        return Some(GOES_BACK);
    }
    let older = topic.partitions.iter().any(|partition| {
        usize::try_from(partition.partition_index)
            .ok()
            .and_then(|index| known.partitions.get(index))
            .is_some_and(|known| known.leader_epoch > partition.leader_epoch)
    });
    older.then_some(OLDER_EPOCH)
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

    /// Partitions that are led by another broker in a later snapshot, or by none: their topic and
    /// number, from whom, to whom.
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
        if GONE.contains(&topic.error_code) && self.topics.contains_key(name) {
            if !self.is_told(name, GOES_BACK) {
                return;
            }
            let gone = self.topics.swap_remove(name);
            gone.map(|topic| self.by_id.remove(&topic.id));
        }
        if topic.error_code != 0 {
            self.errors.insert(Arc::from(name), topic.error_code);
            return;
        }
        self.errors.swap_remove(name);
        let mut before = self.topics.get(name).cloned();
        match before.as_deref().and_then(|known| goes_back(topic, known)) {
            None => _ = self.behind.remove(name),
            Some(times) if self.is_told(name, times) => before = None,
            Some(OLDER_EPOCH) => {} // what is newer in it counts
            Some(_) => return,
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

    /// Takes in the answer about all topics. One that is being made, or has no leader, is there.
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
        if self.all.as_deref() != Some(&listed[..]) {
            self.all = Some(listed.into());
        }
    }

    /// Whether so many answers in a row, this one included, went back behind what is known of a
    /// topic.
    fn is_told(&mut self, name: &str, times: u32) -> bool {
        let behind = self.behind.entry(Arc::from(name)).or_default();
        *behind += 1;
        let told = *behind >= times;
        if told {
            self.behind.remove(name);
        }
        told
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
        self.behind.retain(|name, _| watched(name));
    }

    /// Whether every one of these topics is described, by nobody older since, and led.
    pub(crate) fn resolves<'a>(&self, topics: impl IntoIterator<Item = &'a Arc<str>>) -> bool {
        topics.into_iter().all(|name| {
            let topic = self.topics.get(name);
            let topic = topic
                .filter(|_| !self.behind.contains_key(name) && !self.errors.contains_key(name));
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

/// Codes by which brokers refuse a topic. Any other, retriable or not of Metadata at all, may be
/// another the next time.
const REFUSED: [i16; 5] = [17, 29, 37, 38, 44];

/// Whether a topic's error code is worth telling at once: INVALID_TOPIC_EXCEPTION,
/// TOPIC_AUTHORIZATION_FAILED, and INVALID_PARTITIONS, INVALID_REPLICATION_FACTOR and
/// POLICY_VIOLATION of an automatic creation.
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
