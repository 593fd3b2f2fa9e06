//! What the application and the control task tell each other.

use crate::clock::Instant;
use crate::error::{Error, ErrorKind};
use crate::types::TopicPartition;

/// A change of the assignment, in order with the records.
#[derive(Debug)]
pub(super) enum RebalanceEvent {
    Assigned(Vec<TopicPartition>),
    Revoking(u64, Vec<TopicPartition>),
    Lost(Vec<TopicPartition>),
}

/// The application unsubscribed, and the control task has not left the group yet.
pub(super) enum PendingUnsubscribe {
    /// The application is told by this revocation what is given up, and has not let go.
    Told(u64, Vec<TopicPartition>),
    /// What was assigned is given up, and the last commit in line.
    GivenUp,
}

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

/// The end was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closing {
    pub(super) deadline: Instant,
    /// Until when streams of single partitions are waited for.
    pub(super) patience: Instant,
    pub(super) operation: GroupMembershipOperation,
}

/// What is known of a commit under way.
pub(super) const MAYBE: &str = "it may have been made";

/// A commit whose time is over.
pub(super) fn timed_out(group: &str, what_is_known: &str) -> Error {
    let message = format!(
        "the commit to group '{group}' was not over within default.api.timeout.ms: {what_is_known}"
    );
    Error::new(ErrorKind::Timeout, message)
}
