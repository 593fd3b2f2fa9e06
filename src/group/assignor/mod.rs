//! Assignors: who of a group gets which partitions, where a member decides that (the classic group
//! protocol). One member, the leader, runs the assignor and the coordinator hands the result on.

use bytes::Bytes;

mod cooperative;
mod group;
mod member;
mod order;
mod range;
mod round_robin;
mod sticky;
mod view;

pub use cooperative::CooperativeStickyAssignor;
pub use group::{GroupAssignment, GroupSubscription};
pub use member::{MemberAssignment, MemberSubscription, MemberView};
pub use range::RangeAssignor;
pub use round_robin::RoundRobinAssignor;
pub use sticky::StickyAssignor;
pub use view::{ClusterView, PartitionView};

/// Shares out the partitions of a group of the classic protocol among its members
/// (`partition.assignment.strategy`).
///
/// All members of a group must have an assignor of the same [`name`](Self::name). The group's
/// leader, which is one of them, runs [`assign`](Self::assign) whenever members, subscriptions or
/// numbers of partitions change. It should be quick: the whole group waits for it.
///
/// Ready-made are [`RangeAssignor`], [`RoundRobinAssignor`], [`StickyAssignor`] and
/// [`CooperativeStickyAssignor`]. Their names, user data and results are those of Kafka's Java
/// client, so that members of both kinds can be in one group.
///
/// One assignor may serve several consumers. What a member has to remember from one rebalance to
/// the next is in the [`MemberView`] that it is given.
///
/// ```
/// use ottla::{Assignor, ClusterView, GroupAssignment, GroupSubscription, TopicPartition};
///
/// /// Every topic goes as a whole to the first of its subscribers.
/// struct FirstTakesAll;
///
/// impl Assignor for FirstTakesAll {
///     fn name(&self) -> &str {
///         "first-takes-all"
///     }
///
///     fn assign(&self, cluster: &ClusterView, group: &GroupSubscription) -> GroupAssignment {
///         let mut assignment = GroupAssignment::for_group(group);
///         for (topic, partitions) in cluster.topics() {
///             if let Some((first, _)) = group.subscribers(topic).next() {
///                 for number in 0..partitions.len() {
///                     assignment.assign(first, TopicPartition::new(topic, number as i32));
///                 }
///             }
///         }
///         assignment
///     }
/// }
///
/// let cluster = ClusterView::new().with_topic("orders", 2);
/// let group = GroupSubscription::from_iter([("a", ["orders"]), ("b", ["orders"])]);
/// let assignment = FirstTakesAll.assign(&cluster, &group);
/// assert_eq!(assignment.of("a").len(), 2);
/// assert!(assignment.of("b").is_empty());
/// ```
pub trait Assignor: Send + Sync + 'static {
    /// The name by which members agree on it. Other programs that call theirs the same must read
    /// and write the same user data.
    fn name(&self) -> &str;

    /// Who gets what.
    ///
    /// `cluster` has the topics of all subscriptions that exist, with all of their partitions.
    /// Every member of `group` is in the result, if with nothing
    /// ([`GroupAssignment::for_group`]). A partition that two members get, a member that is not in
    /// the group, and a partition that does not exist or to whose topic the member is not
    /// subscribed make the rebalance fail.
    fn assign(&self, cluster: &ClusterView, group: &GroupSubscription) -> GroupAssignment;

    /// What to tell the leader about this member beside its topics, in the assignor's own format
    /// ([`MemberSubscription::user_data`]). Nothing by default.
    fn subscription_user_data(&self, member: &MemberView<'_>) -> Option<Bytes> {
        let _ = member;
        None
    }

    /// The highest rebalance protocol that its results keep to: [`RebalanceProtocol::Eager`] by
    /// default. A group uses the lowest of those of all assignors that its members are given.
    fn rebalance_protocol(&self) -> RebalanceProtocol {
        RebalanceProtocol::Eager
    }

    /// Called on every member when it gets an assignment from the leader, with the generation of
    /// the group that it belongs to. Does nothing by default.
    fn on_assignment(&self, assignment: &MemberAssignment, generation: i32) {
        let _ = (assignment, generation);
    }
}

/// What members do with their partitions while the group rebalances (KIP-429). The lower of two is
/// the one that both can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RebalanceProtocol {
    /// Each gives up everything before it joins, so that the assignor is free.
    #[default]
    Eager,
    /// Each keeps what it owns. An assignor does not give away at once what another member owns
    /// ([`MemberSubscription::owned_partitions`]): it leaves it out, its owner gives it up, and
    /// the rebalance that follows at once gives it to the other. Such an assignor can be used
    /// eagerly as well.
    Cooperative,
}

#[cfg(test)]
mod java_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod speed_tests;
#[cfg(test)]
mod tests;
