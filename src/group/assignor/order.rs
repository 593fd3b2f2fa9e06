//! The orders in which Java's assignors go through members, and its hash maps through their keys.
//!
//! Where a result depends on an order it is the same as in Java, so that little moves when the
//! leader of a group is once a member of one kind and once of the other.

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

pub(super) fn by_id(group: &GroupSubscription) -> Vec<Member<'_>> {
    let members = group.members();
    members
        .map(|(id, subscription)| Member { id, subscription })
        .collect()
}

/// Those with a name that they keep over restarts come first, by it, so that a restart moves
/// nothing (KIP-345); then the others by id.
pub(super) fn by_name(group: &GroupSubscription) -> Vec<Member<'_>> {
    let mut members = by_id(group);
    members.sort_by_key(|member| {
        let name = member.subscription.instance_id.as_deref();
        (name.is_none(), name.unwrap_or(member.id))
    });
    members
}

/// Java's hash of a string.
pub(super) fn hash(text: &str) -> u32 {
    let units = text.encode_utf16();
    units.fold(0, |hash: u32, unit| {
        hash.wrapping_mul(31).wrapping_add(unit.into())
    })
}

/// Java's hash of a partition, of that of its topic.
pub(super) fn partition_hash(topic: u32, partition: usize) -> u32 {
    let partition = u32::try_from(partition).unwrap_or(u32::MAX);
    let hash = partition.wrapping_add(31).wrapping_mul(31);
    hash.wrapping_add(topic)
}

/// Where a Java hash map that has grown to so many entries has the key of a hash. It goes through
/// its keys by places, and at one place in the order in which they were put.
pub(super) fn place(hash: u32, entries: usize) -> u32 {
    let mut slots: u32 = 16;
    while entries > slots as usize / 4 * 3 && slots < 1 << 30 {
        slots *= 2;
    }
    (hash ^ (hash >> 16)) & (slots - 1)
}

/// Keys that were `put` in their order, as a Java hash map goes through them.
pub(super) fn sort_as_put<T>(keys: &mut [T], hash: impl Fn(&T) -> u32) {
    let entries = keys.len();
    keys.sort_by_cached_key(|key| place(hash(key), entries));
}

/// Keys that `computeIfAbsent` added in their order: it puts what it adds before what is at the
/// same place, and lets the map grow only when it is called again.
pub(super) fn sort_as_computed<T>(keys: &mut [T], again: bool, hash: impl Fn(&T) -> u32) {
    let entries = keys.len() - usize::from(!again && !keys.is_empty());
    keys.reverse();
    keys.sort_by_cached_key(|key| place(hash(key), entries));
}
