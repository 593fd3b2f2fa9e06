//! Who commits offsets in a group.

/// Who a consumer is in its group: what a transaction needs to commit the consumer's offsets
/// (KIP-447). Made by [`Consumer::group_metadata`](crate::ConsumerHandle::group_metadata), or by
/// [`of_group`](Self::of_group) for offsets of nobody who is a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    pub(crate) group_id: String,
    /// Empty where the consumer is not (yet) a member.
    pub(crate) member_id: String,
    /// The member's epoch or generation; -1 where it is not a member.
    pub(crate) epoch: i32,
    pub(crate) instance_id: Option<String>,
}

impl GroupMetadata {
    /// A group whose offsets are committed by whoever may, member or not: the coordinator takes
    /// them without looking whether another member owns the partitions by now. For consumers that
    /// were assigned their partitions by hand. Java's `new ConsumerGroupMetadata(groupId)`.
    ///
    /// ```
    /// let group = ottla::GroupMetadata::of_group("billing");
    /// assert_eq!((group.group_id(), group.member_epoch()), ("billing", -1));
    /// ```
    #[must_use]
    pub fn of_group(group_id: impl Into<String>) -> Self {
        Self {
            group_id: group_id.into(),
            member_id: String::new(),
            epoch: -1,
            instance_id: None,
        }
    }

    /// The group's name (`group.id`).
    #[must_use]
    pub fn group_id(&self) -> &str {
        &self.group_id
    }

    /// The member's id; empty where the consumer is not a member.
    #[must_use]
    pub fn member_id(&self) -> &str {
        &self.member_id
    }

    /// The epoch that the member has reached (KIP-848), or the generation that it is in
    /// (`group.protocol=classic`); -1 where the consumer is not a member. Java calls it
    /// `generationId`.
    #[must_use]
    pub fn member_epoch(&self) -> i32 {
        self.epoch
    }

    /// The name that the member keeps over restarts (`group.instance.id`), if it has one.
    #[must_use]
    pub fn instance_id(&self) -> Option<&str> {
        self.instance_id.as_deref()
    }
}
