//! One partition to each member in turn.

use std::sync::Arc;

use super::Assignor;
use super::group::{GroupAssignment, GroupSubscription};
use super::order::by_name;
use super::view::ClusterView;
use crate::types::TopicPartition;

/// Deals out all partitions, topic by topic, to one member after the other: `roundrobin`.
///
/// Members (by `group.instance.id`, then by id) that do not subscribe to a topic are passed over.
/// Where all subscribe to the same topics, nobody has more than one partition more than anybody
/// else.
///
/// ```
/// use ottla::{Assignor, ClusterView, GroupSubscription, RoundRobinAssignor};
///
/// let cluster = ClusterView::new().with_topic("orders", 3).with_topic("returns", 3);
/// let both = ["orders", "returns"];
/// let group = GroupSubscription::from_iter([("a", both), ("b", both)]);
/// let assignment = RoundRobinAssignor.assign(&cluster, &group);
/// assert_eq!(assignment.of("a").len(), 3, "orders-0, orders-2, returns-1");
/// assert_eq!(assignment.of("b").len(), 3, "orders-1, returns-0, returns-2");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobinAssignor;

impl Assignor for RoundRobinAssignor {
    fn name(&self) -> &'static str {
        "roundrobin"
    }

    fn assign(&self, cluster: &ClusterView, group: &GroupSubscription) -> GroupAssignment {
        let members = by_name(group);
        let mut assignment = GroupAssignment::for_group(group);
        let mut turn = 0;
        for (topic, partitions) in cluster.named() {
            let subscribe = members.iter().enumerate();
            let subscribe = subscribe.filter(|(_, m)| m.subscription.topics.contains(topic));
            let subscribers: Vec<usize> = subscribe.map(|(place, _)| place).collect();
            for (partition, _) in (0..).zip(partitions) {
                // The next of them that subscribes; behind the last comes the first again.
                let next = subscribers.partition_point(|place| *place < turn);
                let Some(place) = subscribers.get(next).or_else(|| subscribers.first()) else {
                    break;
                };
                let tp = TopicPartition::new(Arc::clone(topic), partition);
                assignment.assign(members[*place].id, tp);
                turn = (place + 1) % members.len();
            }
        }
        assignment
    }
}
