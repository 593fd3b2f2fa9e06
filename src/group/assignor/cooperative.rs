//! Sticky assignment without stopping everybody.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::group::{GroupAssignment, GroupSubscription};
use super::member::{MemberSubscription, MemberView};
use super::sticky::{Claim, Input, NO_GENERATION, assign};
use super::view::ClusterView;
use super::{Assignor, RebalanceProtocol};

/// Shares out partitions like [`StickyAssignor`](crate::StickyAssignor), and members keep reading
/// what they keep: `cooperative-sticky` (KIP-429).
///
/// A partition that goes from one member to another is left out at first. Its owner gives it up,
/// and the rebalance that follows at once gives it to the other.
///
/// ```
/// use ottla::{Assignor, ClusterView, CooperativeStickyAssignor, GroupSubscription};
/// use ottla::{MemberSubscription, TopicPartition};
///
/// let orders = |number| TopicPartition::new("orders", number);
/// let all = [orders(0), orders(1), orders(2), orders(3)];
/// let old = MemberSubscription::new(["orders"]).with_owned(all, 3);
/// let group = GroupSubscription::from_iter([("old", old), ("new", ["orders"].into())]);
/// let cluster = ClusterView::new().with_topic("orders", 4);
/// let assignment = CooperativeStickyAssignor.assign(&cluster, &group);
/// assert_eq!(assignment.of("old"), [orders(0), orders(1)]);
/// assert!(assignment.of("new").is_empty(), "2 and 3 are still the other's");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct CooperativeStickyAssignor;

impl Assignor for CooperativeStickyAssignor {
    fn name(&self) -> &'static str {
        "cooperative-sticky"
    }

    fn assign(&self, cluster: &ClusterView, group: &GroupSubscription) -> GroupAssignment {
        let input = Input::new(cluster, group, claim);
        let result = assign(&input);
        let mut owners = result.owners;
        let moving = result.moving;
        for partition in moving.unwrap_or_else(|| moving_from_others(&input, &owners)) {
            owners[partition] = None;
        }
        input.answer(group, &owners)
    }

    fn subscription_user_data(&self, member: &MemberView<'_>) -> Option<Bytes> {
        let mut out = BytesMut::new();
        out.put_i32(member.generation.unwrap_or(NO_GENERATION));
        Some(out.freeze())
    }

    fn rebalance_protocol(&self) -> RebalanceProtocol {
        RebalanceProtocol::Cooperative
    }
}

/// What a member has. Its generation is in its subscription since version 2 of that, and before in
/// its user data.
fn claim(member: &MemberSubscription) -> Claim {
    let told = member.user_data.as_ref();
    let told = told.map(|data| (&data[..]).try_get_i32().unwrap_or(NO_GENERATION));
    Claim {
        partitions: member.owned_partitions.clone(),
        generation: member.generation.or(told),
    }
}

/// The partitions that others own than those that are to get them.
fn moving_from_others(input: &Input<'_>, owners: &[Option<usize>]) -> Vec<usize> {
    let mut owned_by_others = vec![false; owners.len()];
    let mut stays = vec![false; owners.len()];
    for (place, member) in input.members.iter().enumerate() {
        let owned = member.subscription.owned_partitions.iter();
        for partition in owned.filter_map(|tp| input.partition(tp)) {
            owned_by_others[partition] = true;
            stays[partition] |= owners[partition] == Some(place);
        }
    }
    let all = 0..owners.len();
    all.filter(|partition| owned_by_others[*partition] && !stays[*partition])
        .collect()
}
