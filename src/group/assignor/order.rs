//! The members of a group in the orders in which Java's assignors go through them.

use super::group::GroupSubscription;
use super::member::MemberSubscription;

pub(super) struct Member<'a> {
    pub(super) id: &'a str,
    pub(super) subscription: &'a MemberSubscription,
}

impl<'a> Member<'a> {
    pub(super) fn rack(&self) -> Option<&'a str> {
        self.subscription.rack()
    }
}

/// Those with a name that they keep over restarts come first, by it, so that a restart moves
/// nothing (KIP-345); then the others by id.
pub(super) fn by_name(group: &GroupSubscription) -> Vec<Member<'_>> {
    let members = group.members();
    let mut members: Vec<_> = members
        .map(|(id, subscription)| Member { id, subscription })
        .collect();
    members.sort_by_key(|member| {
        let name = member.subscription.instance_id.as_deref();
        (name.is_none(), name.unwrap_or(member.id))
    });
    members
}
