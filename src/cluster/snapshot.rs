//! An immutable view of the cluster.

use std::sync::Arc;

use indexmap::IndexMap;
use uuid::Uuid;

use crate::types::{BrokerId, TopicPartition};

/// What the client knows of the cluster at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// Grows with every published snapshot.
    pub(crate) version: u64,
    pub(crate) cluster_id: Option<Arc<str>>,
    pub(crate) controller: Option<BrokerId>,
    pub(crate) brokers: IndexMap<BrokerId, Arc<Broker>>,
    pub(crate) topics: IndexMap<Arc<str>, Arc<Topic>>,
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
        self.topics
            .values()
            .find(|topic| topic.id == id && !id.is_nil())
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
}
