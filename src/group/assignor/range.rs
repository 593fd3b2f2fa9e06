//! Ranges of partitions, topic by topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Assignor;
use super::group::{GroupAssignment, GroupSubscription};
use super::order::{Member, by_name};
use super::view::{ClusterView, PartitionView, racks_matter};
use crate::types::TopicPartition;

/// Gives each subscriber of a topic a range of its partitions: `range`, Kafka's default.
///
/// Topics with the same subscribers and as many partitions are shared out alike, so that one
/// member has the partitions of the same number of all of them. The first members (by
/// `group.instance.id`, then by id) get one partition of each topic more where the division leaves
/// a rest. Partitions go to members in a rack of one of their replicas (`client.rack`) as far as
/// that changes neither (KIP-881).
///
/// ```
/// use ottla::{Assignor, ClusterView, GroupSubscription, RangeAssignor};
///
/// let cluster = ClusterView::new().with_topic("orders", 3).with_topic("returns", 3);
/// let both = ["orders", "returns"];
/// let group = GroupSubscription::from_iter([("a", both), ("b", both)]);
/// let assignment = RangeAssignor.assign(&cluster, &group);
/// assert_eq!(assignment.of("a").len(), 4, "0 and 1 of each");
/// assert_eq!(assignment.of("b").len(), 2, "2 of each");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct RangeAssignor;

impl Assignor for RangeAssignor {
    fn name(&self) -> &'static str {
        "range"
    }

    fn assign(&self, cluster: &ClusterView, group: &GroupSubscription) -> GroupAssignment {
        let members = by_name(group);
        let topics = cluster.named();
        let mut topics: Vec<_> = topics
            .map(|(topic, partitions)| Topic::new(topic, partitions, &members))
            .collect();
        if topics.iter().any(|topic| topic.racks_matter) {
            match_racks(&mut topics, &members);
        }
        let mut assignment = GroupAssignment::for_group(group);
        for topic in &mut topics {
            topic.assign_rest();
            for (partition, owner) in (0..).zip(&topic.owners) {
                // Everything is owned now, unless nobody subscribes to the topic.
                let Some(owner) = owner else { continue };
                let tp = TopicPartition::new(Arc::clone(topic.name), partition);
                assignment.assign(members[topic.subscribers[*owner]].id, tp);
            }
        }
        assignment
    }
}

/// A topic that is being shared out.
struct Topic<'a> {
    name: &'a Arc<str>,
    partitions: &'a [PartitionView],
    /// Places among the members, in their order. Other fields name a subscriber by its place here.
    subscribers: Vec<usize>,
    /// By partition.
    owners: Vec<Option<usize>>,
    /// By subscriber: how many it has.
    counts: Vec<usize>,
    /// How many each subscriber gets at least, and how many subscribers may still get one more.
    quota: usize,
    extra: usize,
    racks_matter: bool,
}

impl<'a> Topic<'a> {
    fn new(name: &'a Arc<str>, partitions: &'a [PartitionView], members: &[Member<'a>]) -> Self {
        let places = 0..members.len();
        let subscribes = |place: &usize| members[*place].subscription.topics.contains(name);
        let subscribers: Vec<_> = places.filter(subscribes).collect();
        let racks = subscribers
            .iter()
            .filter_map(|place| members[*place].rack());
        Self {
            name,
            partitions,
            racks_matter: racks_matter(racks, partitions.iter()),
            owners: vec![None; partitions.len()],
            counts: vec![0; subscribers.len()],
            quota: partitions.len().checked_div(subscribers.len()).unwrap_or(0),
            extra: partitions.len().checked_rem(subscribers.len()).unwrap_or(0),
            subscribers,
        }
    }

    /// How many more the subscriber can get.
    fn room(&self, subscriber: usize) -> usize {
        (self.quota + usize::from(self.extra > 0)).saturating_sub(self.counts[subscriber])
    }

    fn assign(&mut self, subscriber: usize, partitions: &[usize]) {
        for partition in partitions {
            self.owners[*partition] = Some(subscriber);
        }
        self.counts[subscriber] += partitions.len();
        if !partitions.is_empty() && self.counts[subscriber] > self.quota {
            self.extra = self.extra.saturating_sub(1);
        }
    }

    fn unassigned(&self) -> Vec<usize> {
        let all = 0..self.owners.len();
        all.filter(|partition| self.owners[*partition].is_none())
            .collect()
    }

    /// Whether a replica is in the member's rack. One without a rack is at home everywhere.
    fn is_near(&self, member: &Member<'_>, partition: usize) -> bool {
        let rack = member.rack();
        rack.is_none_or(|rack| self.partitions[partition].is_in(rack))
    }

    /// Gives each subscriber, up to its quota, what has a replica in its rack.
    fn assign_near(&mut self, members: &[Member<'_>]) {
        let mut left = self.unassigned();
        for subscriber in 0..self.subscribers.len() {
            let member = &members[self.subscribers[subscriber]];
            let mut room = self.room(subscriber);
            let mut near = Vec::new();
            left.retain(|partition| {
                let takes = room > 0 && self.is_near(member, *partition);
                if takes {
                    room -= 1;
                    near.push(*partition);
                }
                !takes
            });
            self.assign(subscriber, &near);
        }
    }

    fn assign_rest(&mut self) {
        let left = self.unassigned();
        let mut left = &left[..];
        for subscriber in 0..self.subscribers.len() {
            let (range, rest) = left.split_at(self.room(subscriber).min(left.len()));
            self.assign(subscriber, range);
            left = rest;
        }
    }
}

/// Assigns what can be assigned within racks, partitions of the same number of all topics that
/// have the same subscribers and as many partitions together.
fn match_racks(topics: &mut [Topic<'_>], members: &[Member<'_>]) {
    let mut alike: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (place, topic) in topics.iter().enumerate() {
        let key = (topic.subscribers.clone(), topic.partitions.len());
        alike.entry(key).or_default().push(place);
    }
    for ((subscribers, partitions), places) in alike {
        if let [only] = places[..] {
            if topics[only].racks_matter {
                topics[only].assign_near(members);
            }
            continue;
        }
        if subscribers.iter().all(|s| members[*s].rack().is_none()) {
            continue; // nothing to be near to
        }
        let mut open: Vec<usize> = (0..subscribers.len()).collect();
        for partition in 0..partitions {
            let found = open.iter().position(|subscriber| {
                let member = &members[subscribers[*subscriber]];
                places.iter().all(|place| {
                    let topic = &topics[*place];
                    topic.room(*subscriber) > 0 && topic.is_near(member, partition)
                })
            });
            let Some(found) = found else { continue };
            let subscriber = open[found];
            for place in &places {
                topics[*place].assign(subscriber, &[partition]);
            }
            // Topics that are alike have as much room.
            if topics[places[0]].room(subscriber) == 0 {
                open.remove(found);
            }
        }
    }
}
