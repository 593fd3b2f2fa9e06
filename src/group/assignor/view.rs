//! What an assignor sees of the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::Snapshot;
use crate::types::BrokerId;

/// Topics and their partitions as an [`Assignor`](crate::Assignor) sees them.
///
/// ```
/// let cluster = ottla::ClusterView::new()
///     .with_topic("orders", 2)
///     .with_racks("orders", 0, ["east", "west"]);
/// assert_eq!(cluster.partitions("orders").len(), 2);
/// assert_eq!(cluster.partitions("orders")[0].racks().count(), 2);
/// assert!(cluster.partitions("no such topic").is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterView {
    topics: BTreeMap<Arc<str>, Vec<PartitionView>>,
}

impl ClusterView {
    /// A cluster without topics, to fill in tests of an assignor.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a topic with so many partitions, of whose leaders and racks nothing is known.
    #[must_use]
    pub fn with_topic(mut self, topic: impl Into<Arc<str>>, partitions: usize) -> Self {
        let partitions = vec![PartitionView::default(); partitions];
        self.topics.insert(topic.into(), partitions);
        self
    }

    /// Says in which racks the replicas of a partition are; nothing if there is no such partition.
    #[must_use]
    pub fn with_racks<R: Into<Arc<str>>>(
        mut self,
        topic: &str,
        partition: usize,
        racks: impl IntoIterator<Item = R>,
    ) -> Self {
        let partitions = self.topics.get_mut(topic);
        if let Some(partition) = partitions.and_then(|all| all.get_mut(partition)) {
            let racks = racks.into_iter().map(Into::into).collect();
            *partition = PartitionView::new(partition.leader, racks);
        }
        self
    }

    /// Those of the given topics that exist, as the client knows them.
    pub(crate) fn of<'a>(snapshot: &Snapshot, topics: impl Iterator<Item = &'a str>) -> Self {
        let topics = topics.filter_map(|name| snapshot.topic(name));
        let topics = topics.map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                let brokers = partition.replicas.iter();
                let racks = brokers.filter_map(|id| snapshot.brokers.get(id)?.rack.clone());
                PartitionView::new(partition.leader, racks.collect())
            });
            (Arc::clone(&topic.name), partitions.collect())
        });
        Self {
            topics: topics.collect(),
        }
    }

    /// All topics by name, each with its partitions by number.
    pub fn topics(&self) -> impl Iterator<Item = (&str, &[PartitionView])> {
        self.topics
            .iter()
            .map(|(name, partitions)| (&**name, &**partitions))
    }

    /// A topic's partitions by number, from 0; none if the topic does not exist.
    #[must_use]
    pub fn partitions(&self, topic: &str) -> &[PartitionView] {
        self.topics.get(topic).map_or(&[], |partitions| partitions)
    }

    /// Topics that have partitions, with their shared names.
    pub(super) fn named(&self) -> impl Iterator<Item = (&Arc<str>, &[PartitionView])> {
        let topics = self.topics.iter().map(|(name, all)| (name, &**all));
        topics.filter(|(_, partitions)| !partitions.is_empty())
    }
}

/// A partition as an [`Assignor`](crate::Assignor) sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionView {
    leader: Option<BrokerId>,
    /// In order, each once.
    racks: Vec<Arc<str>>,
}

impl PartitionView {
    /// The broker that leads it; `None` while there is none.
    #[must_use]
    pub fn leader(&self) -> Option<BrokerId> {
        self.leader
    }

    /// The racks (`broker.rack`) of the brokers with a replica, in order, each once (KIP-881).
    /// Brokers without a rack are left out.
    pub fn racks(&self) -> impl Iterator<Item = &str> {
        self.racks.iter().map(|rack| &**rack)
    }

    /// Whether a broker in this rack has a replica.
    #[must_use]
    pub fn is_in(&self, rack: &str) -> bool {
        self.racks().any(|own| own == rack)
    }

    fn new(leader: Option<BrokerId>, mut racks: Vec<Arc<str>>) -> Self {
        racks.sort_unstable();
        racks.dedup();
        Self { leader, racks }
    }
}

/// Whether racks make a difference: some are on both sides, and not all partitions are everywhere
/// (KIP-881).
pub(super) fn racks_matter<'a>(
    members: impl Iterator<Item = &'a str>,
    partitions: impl Iterator<Item = &'a PartitionView> + Clone,
) -> bool {
    let mut all: Vec<&str> = Vec::new();
    let mut members = members.peekable();
    if members.peek().is_none() {
        return false;
    }
    for partition in partitions.clone() {
        if !partition.racks().eq(all.iter().copied()) {
            all.extend(partition.racks());
            all.sort_unstable();
            all.dedup();
        }
    }
    members.any(|rack| all.binary_search(&rack).is_ok())
        && partitions
            .into_iter()
            .any(|partition| partition.racks.len() != all.len())
}
