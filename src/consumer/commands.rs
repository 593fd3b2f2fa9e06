//! What the application and the control task tell each other.

use crate::clock::Instant;
use crate::error::{Error, ErrorKind};
use crate::group::GroupMembershipOperation;
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
    /// The application gets this revocation, which says what is given up, and has not let go yet.
    Told(u64, Vec<TopicPartition>),
    /// What was assigned is given up, and the last commit in line.
    GivenUp,
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
