//! What has moved while a group is being balanced, so that no two partitions of a topic change
//! places: the one that came comes back instead of another that would follow.

use std::collections::HashMap;

use super::super::order::{hash, partition_hash, place};
use super::input::Topic;

/// Topic, from whom, to whom.
type Way = (usize, usize, usize);

pub(super) struct Movements {
    /// By partition.
    ways: HashMap<usize, Way>,
    moved: HashMap<Way, Moved>,
    /// By topic: the hash of its name and the place of its first partition.
    topics: Vec<(u32, usize)>,
}

/// Partitions that moved one way, in the order in which they did.
#[derive(Default)]
struct Moved {
    partitions: Vec<usize>,
    /// The most there ever were.
    most: usize,
}

impl Movements {
    pub(super) fn new(topics: &[Topic<'_>]) -> Self {
        let topics = topics.iter().map(|topic| (hash(topic.name), topic.first));
        Self {
            ways: HashMap::new(),
            moved: HashMap::new(),
            topics: topics.collect(),
        }
    }

    /// The partition of the topic to move in place of this one.
    pub(super) fn instead_of(
        &self,
        topic: usize,
        partition: usize,
        from: usize,
        to: usize,
    ) -> usize {
        let from = self.ways.get(&partition).map_or(from, |way| way.1);
        let Some(back) = self.moved.get(&(topic, to, from)) else {
            return partition;
        };
        // Which of several is as Java's: the first of a hash set.
        let (hash, first) = self.topics[topic];
        let place = |partition: &&usize| place(partition_hash(hash, *partition - first), back.most);
        *back
            .partitions
            .iter()
            .min_by_key(place)
            .unwrap_or(&partition)
    }

    /// Notes that a partition moves.
    pub(super) fn note(&mut self, topic: usize, partition: usize, from: usize, to: usize) {
        let mut origin = from;
        if let Some(way) = self.ways.remove(&partition) {
            origin = way.1;
            if let Some(moved) = self.moved.get_mut(&way) {
                moved.partitions.retain(|moved| *moved != partition);
                if moved.partitions.is_empty() {
                    self.moved.remove(&way);
                }
            }
            if origin == to {
                return; // it is back where it was
            }
        }
        let way = (topic, origin, to);
        self.ways.insert(partition, way);
        let moved = self.moved.entry(way).or_default();
        moved.partitions.push(partition);
        moved.most = moved.most.max(moved.partitions.len());
    }
}
