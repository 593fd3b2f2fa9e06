//! Changes of the assignment, in order with the records.

use std::fmt;
use std::sync::Arc;

use super::shared::Shared;
use crate::fetched::batch::Batches;
use crate::types::TopicPartition;

/// What [`Consumer::next_event`](super::Consumer::next_event) returns.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Records of partitions that are assigned, and what went wrong with others
    /// ([`Batches::errors`]). Neither after a wake-up.
    Records(Batches),
    /// These partitions were added to the assignment; their records follow. Empty for the first
    /// assignment of a member for which nothing is left.
    Assigned(Vec<TopicPartition>),
    /// These partitions are about to go to another member: the time to commit.
    Revoking(Revoking),
    /// These partitions are gone: the member was thrown out of the group, or left it because it did
    /// not poll in time. Others may be reading them already.
    Lost(Vec<TopicPartition>),
}

/// Holds a revocation up until it is done or dropped.
///
/// Until then the partitions still belong to this member; no more of their records are handed out.
/// With auto-commit, what was finished is committed afterwards. A member that holds on for longer
/// than `max.poll.interval.ms` is thrown out.
pub struct Revoking {
    shared: Arc<Shared>,
    id: u64,
    partitions: Vec<TopicPartition>,
}

impl Revoking {
    pub(super) fn new(shared: Arc<Shared>, id: u64, partitions: Vec<TopicPartition>) -> Self {
        Self {
            shared,
            id,
            partitions,
        }
    }

    /// The partitions to be given up.
    #[must_use]
    pub fn partitions(&self) -> &[TopicPartition] {
        &self.partitions
    }

    /// Gives them up; dropping does the same.
    pub fn done(self) {}
}

impl Drop for Revoking {
    fn drop(&mut self) {
        self.shared.let_go_of(self.id, &self.partitions);
    }
}

impl fmt::Debug for Revoking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Revoking").field(&self.partitions).finish()
    }
}
