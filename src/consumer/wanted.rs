//! What a consumer is to read.

use std::sync::Arc;

use super::pattern::TopicPattern;
use crate::types::TopicPartition;

/// What a consumer reads; see [`Consumer::subscription`](crate::Consumer::subscription).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subscription {
    /// Nothing, since [`Consumer::unsubscribe`](crate::Consumer::unsubscribe).
    Nothing,
    /// Topics of these names, as a member of the group: ordered, each once.
    Topics(Vec<Arc<str>>),
    /// All topics that match, as a member of the group.
    Pattern(TopicPattern),
    /// Partitions that the application named ([`Consumer::assign`](crate::Consumer::assign)),
    /// whatever the group does: ordered, each once.
    Partitions(Vec<TopicPartition>),
}

impl Subscription {
    pub(super) fn topics<T: Into<Arc<str>>>(topics: impl IntoIterator<Item = T>) -> Self {
        Self::Topics(each_once(topics.into_iter().map(Into::into)))
    }

    pub(super) fn partitions(partitions: impl IntoIterator<Item = TopicPartition>) -> Self {
        Self::Partitions(each_once(partitions))
    }

    /// The topics that are known by their names.
    pub(super) fn named(&self) -> Vec<Arc<str>> {
        match self {
            Self::Topics(topics) => topics.clone(),
            Self::Partitions(parts) => each_once(parts.iter().map(|tp| Arc::clone(&tp.topic))),
            Self::Pattern(_) | Self::Nothing => Vec::new(),
        }
    }

    /// Whether it makes the consumer a member of its group.
    pub(super) fn is_of_group(&self) -> bool {
        matches!(self, Self::Topics(_) | Self::Pattern(_))
    }
}

pub(super) fn each_once<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<_> = items.into_iter().collect();
    items.sort_unstable();
    items.dedup();
    items
}
