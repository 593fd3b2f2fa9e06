//! What a member of a group knows, tells and gets.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::types::TopicPartition;

/// What a member of a group has told about itself.
///
/// Everything but the instance comes from the member itself, which may be any program: an
/// assignor believes none of it.
///
/// ```
/// let member = ottla::MemberSubscription::new(["orders"]).with_rack("east");
/// assert!(member.topics.contains("orders"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberSubscription {
    /// The topics that it subscribes to, whether they exist or not.
    pub topics: BTreeSet<Arc<str>>,
    /// What its assignor adds
    /// ([`Assignor::subscription_user_data`](crate::Assignor::subscription_user_data)).
    pub user_data: Option<Bytes>,
    /// What it owns while it joins (KIP-429). Empty where the rebalance protocol is eager: then
    /// members have given up everything before.
    pub owned_partitions: Vec<TopicPartition>,
    /// The generation of the group in which it got what it owns (KIP-792); `None` from members
    /// that do not tell or have never been in the group.
    pub generation: Option<i32>,
    /// The name that it keeps over restarts (`group.instance.id`), if it has one.
    pub instance_id: Option<Arc<str>>,
    /// Where it is (`client.rack`), if it tells (KIP-881).
    pub rack: Option<Arc<str>>,
}

impl MemberSubscription {
    /// A new member with these topics.
    #[must_use]
    pub fn new<T: Into<Arc<str>>>(topics: impl IntoIterator<Item = T>) -> Self {
        Self {
            topics: topics.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Adds what the member's assignor tells.
    #[must_use]
    pub fn with_user_data(mut self, user_data: impl Into<Bytes>) -> Self {
        self.user_data = Some(user_data.into());
        self
    }

    /// Adds what the member owns and since which generation of the group.
    #[must_use]
    pub fn with_owned(
        mut self,
        partitions: impl IntoIterator<Item = TopicPartition>,
        generation: impl Into<Option<i32>>,
    ) -> Self {
        self.owned_partitions = partitions.into_iter().collect();
        self.generation = generation.into();
        self
    }

    /// Adds the name that the member keeps over restarts (`group.instance.id`).
    #[must_use]
    pub fn with_instance_id(mut self, instance_id: impl Into<Arc<str>>) -> Self {
        self.instance_id = Some(instance_id.into());
        self
    }

    /// Adds where the member is (`client.rack`).
    #[must_use]
    pub fn with_rack(mut self, rack: impl Into<Arc<str>>) -> Self {
        self.rack = Some(rack.into());
        self
    }

    /// Its rack, if it is one that can be compared.
    pub(super) fn rack(&self) -> Option<&str> {
        self.rack.as_deref().filter(|rack| !rack.is_empty())
    }
}

impl<T: Into<Arc<str>>, const N: usize> From<[T; N]> for MemberSubscription {
    fn from(topics: [T; N]) -> Self {
        Self::new(topics)
    }
}

/// What a member gets.
///
/// ```
/// use ottla::{MemberAssignment, TopicPartition};
///
/// let assignment = MemberAssignment::new([TopicPartition::new("orders", 1)]);
/// assert_eq!(assignment.partitions.len(), 1);
/// assert!(assignment.user_data.is_none());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberAssignment {
    /// The partitions to read.
    pub partitions: Vec<TopicPartition>,
    /// What the leader's assignor adds
    /// ([`GroupAssignment::set_user_data`](super::GroupAssignment::set_user_data)).
    pub user_data: Option<Bytes>,
}

impl MemberAssignment {
    /// These partitions, without user data.
    #[must_use]
    pub fn new(partitions: impl IntoIterator<Item = TopicPartition>) -> Self {
        Self {
            partitions: partitions.into_iter().collect(),
            user_data: None,
        }
    }
}

/// What a member knows of itself when it is about to join a group; see
/// [`Assignor::subscription_user_data`](crate::Assignor::subscription_user_data).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MemberView<'a> {
    /// The topics that it subscribes to, in order.
    pub topics: &'a [Arc<str>],
    /// What it was assigned last, whether it has given that up meanwhile or not; `None` if nothing
    /// ever was.
    pub assignment: Option<&'a MemberAssignment>,
    /// The generation of the group that [`assignment`](Self::assignment) was of.
    pub generation: Option<i32>,
}

impl<'a> MemberView<'a> {
    /// A member that was assigned nothing yet.
    #[must_use]
    pub fn new(topics: &'a [Arc<str>]) -> Self {
        Self {
            topics,
            assignment: None,
            generation: None,
        }
    }

    /// Adds what it was assigned last, and in which generation of the group.
    #[must_use]
    pub fn with_assignment(mut self, assignment: &'a MemberAssignment, generation: i32) -> Self {
        self.assignment = Some(assignment);
        self.generation = Some(generation);
        self
    }
}
