//! Sticky assignment: as balanced as can be, and of the partitions that members had as few as
//! possible move (KIP-54, KIP-341, KIP-881).
//!
//! As in Java there are two ways to get there. If all members subscribe to the same topics each
//! gets as many partitions, or one more, and one pass over them is enough (`equal.rs`). Otherwise
//! partitions are moved one by one for as long as that makes the group more balanced
//! (`general.rs`).

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};

use super::super::subscription::{by_topic, partitions, put_topics};
use super::Assignor;
use super::group::{GroupAssignment, GroupSubscription};
use super::member::{MemberSubscription, MemberView};
use super::order::{hash, sort_as_computed};
use super::view::ClusterView;

mod equal;
mod general;
mod input;
mod movements;

pub(super) use input::{Claim, Input, NO_GENERATION};

/// Shares out partitions as evenly as subscriptions allow and leaves with each member as much of
/// what it had as that allows: `sticky`.
///
/// Members give up everything before they join all the same, since its rebalance protocol is eager.
/// What moves little without stopping everybody is
/// [`CooperativeStickyAssignor`](crate::CooperativeStickyAssignor). Partitions go to members in a
/// rack of one of their replicas (`client.rack`) as far as that keeps the balance (KIP-881).
///
/// ```
/// use ottla::{Assignor, ClusterView, GroupSubscription, MemberAssignment, MemberSubscription};
/// use ottla::{MemberView, StickyAssignor, TopicPartition};
///
/// // A member that had two partitions of three in the third generation, and a new one.
/// let orders = |number| TopicPartition::new("orders", number);
/// let had = MemberAssignment::new([orders(1), orders(2)]);
/// let topics = ["orders".into()];
/// let view = MemberView::new(&topics).with_assignment(&had, 3);
/// let told = StickyAssignor.subscription_user_data(&view).unwrap();
///
/// let old = MemberSubscription::new(["orders"]).with_user_data(told);
/// let group = GroupSubscription::from_iter([("old", old), ("new", ["orders"].into())]);
/// let cluster = ClusterView::new().with_topic("orders", 3);
/// let assignment = StickyAssignor.assign(&cluster, &group);
/// assert_eq!(assignment.of("old"), had.partitions);
/// assert_eq!(assignment.of("new"), [orders(0)]);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct StickyAssignor;

impl Assignor for StickyAssignor {
    fn name(&self) -> &'static str {
        "sticky"
    }

    fn assign(&self, cluster: &ClusterView, group: &GroupSubscription) -> GroupAssignment {
        let input = Input::new(cluster, group, claim);
        let owners = assign(&input).owners;
        input.answer(group, &owners)
    }

    fn subscription_user_data(&self, member: &MemberView<'_>) -> Option<Bytes> {
        let partitions = &member.assignment?.partitions;
        let mut topics = by_topic(partitions);
        let last = topics.last().zip(partitions.last());
        let again =
            last.is_some_and(|((topic, all), last)| all.len() > 1 || last.topic() != *topic);
        sort_as_computed(&mut topics, again, |(topic, _)| hash(topic));
        let mut out = BytesMut::new();
        put_topics(&mut out, &topics);
        out.put_i32(member.generation.unwrap_or(NO_GENERATION));
        Some(out.freeze())
    }
}

/// What a member had, from its user data. The owned partitions of its subscription do not count:
/// an eager member has given them up.
fn claim(member: &MemberSubscription) -> Claim {
    let Some(data) = member.user_data.as_ref().filter(|data| !data.is_empty()) else {
        return Claim::default();
    };
    // What cannot be read is as if it were not there.
    decode(data).unwrap_or(Claim {
        partitions: Vec::new(),
        generation: Some(NO_GENERATION),
    })
}

/// Version 1; version 0 lacks the generation.
fn decode(mut data: &[u8]) -> Result<Claim, TryGetError> {
    let partitions = partitions(&mut data)?;
    let generation = data.try_get_i32().ok();
    Ok(Claim {
        partitions,
        generation,
    })
}

#[derive(Default)]
pub(super) struct Owners {
    /// By partition: who gets it.
    pub(super) owners: Vec<Option<usize>>,
    /// Partitions that go from a member that may still own them to another, where that is known.
    pub(super) moving: Option<Vec<usize>>,
}

pub(super) fn assign(input: &Input<'_>) -> Owners {
    let mut members = input.members.iter();
    let Some(first) = members.next() else {
        return Owners::default(); // nobody: nothing that anybody could want
    };
    let topics = &first.subscription.topics;
    if members.all(|member| member.subscription.topics == *topics) {
        let (owners, moving) = equal::assign(input);
        let moving = Some(moving);
        Owners { owners, moving }
    } else {
        let owners = general::assign(input);
        let moving = None;
        Owners { owners, moving }
    }
}
