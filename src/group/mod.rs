//! Group membership: who owns which partitions.

pub(crate) mod assignor;
pub(crate) mod kip848;
pub(crate) mod subscription;

/// What becomes of a consumer's place in its group when it is closed (KIP-1092).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupMembershipOperation {
    /// A member with a name of its own (`group.instance.id`) remains, any other leaves.
    #[default]
    Default,
    /// The member leaves for good, whether it has a name or not: others get its partitions at once.
    LeaveGroup,
    /// The place is kept for the group's session time-out (`group.consumer.session.timeout.ms`), so
    /// that nothing moves if the application comes back until then. A member with a name is told
    /// off for that time and finds its partitions again. One without is not told off at all: the
    /// coordinator throws it out when the time is over, and the consumer that comes back is another
    /// member, to which partitions go only then.
    RemainInGroup,
}
