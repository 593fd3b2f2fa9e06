//! Commits that are asked for while one is under way, merged into one.
//!
//! Invariants:
//! - Of each partition the offset that was asked for last is committed, as if all commits had been
//!   made in turn.
//! - An offset is not sent after the deadline of the commit that asked for it.
//! - A commit has offsets of one membership alone.
//! - What waits is bounded: an entry per partition named, and one per future that the application
//!   keeps (those dropped are removed before their number doubles).

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::positions::Positions;
use crate::clock::Instant;
use crate::error::Result;
use crate::fetched::Position;
use crate::offsets::{Offsets, ToCommit};
use crate::types::TopicPartition;

/// Why a commit is made, and which callers wait for its outcome.
#[derive(Debug)]
pub(super) enum Purpose {
    Application(oneshot::Sender<Result<()>>),
    Interval,
    Revocation(u64),
    Unsubscribe,
    Close,
}

impl Purpose {
    /// Whether what the application has finished with is to be committed, as it is when the commit
    /// is sent.
    fn wants_finished(&self) -> bool {
        matches!(self, Self::Interval | Self::Revocation(_) | Self::Close)
    }

    fn is_dropped(&self) -> bool {
        matches!(self, Self::Application(reply) if reply.is_closed())
    }
}

/// Who waits for a commit, and until when.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) purpose: Purpose,
    pub(super) deadline: Instant,
}

/// All commits that were asked for since the last one was sent.
#[derive(Debug, Default)]
pub(super) struct UnsentCommit {
    pub(super) waiters: Vec<Waiter>,
    pub(super) offsets: Offsets,
    /// Dropped waiters are removed when there are so many.
    sweep_at: usize,
}

/// A dozen waiters are not worth a look at each.
const FEW: usize = 16;

impl UnsentCommit {
    fn wait(&mut self, waiter: Waiter) {
        if self.waiters.len() >= self.sweep_at.max(FEW) {
            self.waiters.retain(|waiter| !waiter.purpose.is_dropped());
            self.sweep_at = 2 * self.waiters.len();
        }
        self.waiters.push(waiter);
    }

    /// Until when what is finished is to be committed; `None` if nobody wants that.
    pub(super) fn wants_finished(&self) -> Option<Instant> {
        let library = self.waiters.iter();
        let library = library.filter(|waiter| waiter.purpose.wants_finished());
        library.map(|waiter| waiter.deadline).max()
    }

    /// Adds what is finished. What the application itself wants committed beyond that stays.
    pub(super) fn add_finished(&mut self, offsets: Offsets) {
        for (tp, finished) in offsets {
            let asked = self.offsets.get(&tp);
            if asked.is_none_or(|asked| asked.offset.offset < finished.offset.offset) {
                self.offsets.insert(tp, finished);
            }
        }
    }

    /// Removes offsets that are too late to be sent. Returns the callers that wait for them.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Waiter> {
        self.offsets.retain(|_, one| one.deadline > now);
        let late = |waiter: &mut Waiter| waiter.deadline <= now;
        self.waiters.extract_if(.., late).collect()
    }
}

/// The commits that wait for the one under way.
#[derive(Debug, Default)]
pub(super) struct UnsentCommits {
    /// By the membership in which they were asked for; `None`: for partitions that the application
    /// chose itself. There are two at most: those of a membership that is over are answered when
    /// the next begins.
    by_life: BTreeMap<Option<u64>, UnsentCommit>,
}

impl UnsentCommits {
    pub(super) fn ask(
        &mut self,
        life: Option<u64>,
        waiter: Option<Waiter>,
        offsets: impl IntoIterator<Item = (TopicPartition, ToCommit)>,
    ) {
        let mut unsent = self.by_life.remove(&life).unwrap_or_default();
        for (tp, offset) in offsets {
            for earlier in self.by_life.values_mut() {
                earlier.offsets.remove(&tp);
            }
            unsent.offsets.insert(tp, offset);
        }
        if let Some(waiter) = waiter {
            unsent.wait(waiter);
        }
        self.by_life.insert(life, unsent);
    }

    /// The next commit to send, with the membership that it belongs to. That of a member goes
    /// first: its group waits for it.
    pub(super) fn take(&mut self) -> Option<(Option<u64>, UnsentCommit)> {
        self.by_life.pop_last()
    }

    /// Who waits in vain, since this membership is over.
    pub(super) fn end_of(&mut self, life: u64) -> Vec<Waiter> {
        let ended = self.by_life.remove(&Some(life));
        ended.map(|unsent| unsent.waiters).unwrap_or_default()
    }

    /// How many requests it takes to make them all, but for retries.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_life.len()
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiters(&self) -> usize {
        let unsent = self.by_life.values();
        unsent.map(|unsent| unsent.waiters.len()).sum()
    }
}

/// Positions as they are committed, each with the topic that it is of.
pub(super) fn to_commit(
    positions: &Positions,
    at: Vec<(TopicPartition, Position)>,
    deadline: Instant,
) -> Offsets {
    let at = at.into_iter();
    at.map(|(tp, at)| {
        let one = ToCommit {
            topic_id: positions.topic_id(&tp),
            offset: at.to_commit(),
            deadline,
        };
        (tp, one)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use crate::clock::now;
    use crate::types::OffsetAndMetadata;

    #[tokio::test(start_paused = true)]
    async fn what_is_late_is_left_out() {
        let (mut unsent, began) = (UnsentCommits::default(), now());
        for partition in 0..3 {
            let deadline = began + Duration::from_secs(partition);
            let waiter = Waiter {
                purpose: Purpose::Unsubscribe,
                deadline,
            };
            let one = ToCommit {
                topic_id: Uuid::nil(),
                offset: OffsetAndMetadata::new(1),
                deadline,
            };
            let tp = TopicPartition::new("t", i32::try_from(partition).unwrap());
            unsent.ask(None, Some(waiter), [(tp, one)]);
        }
        let (_, mut next) = unsent.take().unwrap();
        assert_eq!(next.expire(began + Duration::from_secs(1)).len(), 2);
        let left: Vec<_> = next.offsets.keys().map(|tp| tp.partition).collect();
        assert_eq!((left, next.waiters.len()), (vec![2], 1));
    }
}
