//! Commits that the application asks for.

use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::commands::{MAYBE, timed_out};
use super::shared::{Inner, Shared};
use super::unsent::{Purpose, Waiter, to_commit};
use crate::clock::{Instant, now};
use crate::error::{Error, ErrorKind, Result};
use crate::offsets::{Offsets, ToCommit};
use crate::types::{OffsetAndMetadata, TopicPartition};

/// A commit under way: a future of its outcome, from
/// [`Consumer::commit_async`](super::Consumer::commit_async).
///
/// Dropping it does not take the commit back.
#[must_use = "it tells whether the commit worked; the commit is made all the same"]
pub struct PendingCommit(Pin<Box<dyn Future<Output = Result<()>> + Send>>);

impl Future for PendingCommit {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for PendingCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingCommit").finish_non_exhaustive()
    }
}

impl PendingCommit {
    fn over(outcome: Result<()>) -> Self {
        Self(Box::pin(ready(outcome)))
    }
}

impl Shared {
    /// Commits all that was handed out.
    pub(super) fn commit_position(self: &Arc<Self>) -> PendingCommit {
        let mut forlorn = None;
        let commit = self.commit(|inner, deadline| {
            let positions = &mut inner.positions;
            forlorn = positions.forlorn().cloned();
            positions.finish();
            to_commit(positions, positions.handed_out(), deadline)
        });
        let Some(tp) = forlorn else {
            return commit;
        };
        // The others are committed all the same.
        PendingCommit(Box::pin(async move {
            commit.await?;
            let message = "what was read is not committed, because the topic seems to be deleted: one made anew \
                           would go on from there";
            Err(Error::new(ErrorKind::UnknownTopic, message).with_topic_partition(tp))
        }))
    }

    /// Commits what the application says.
    pub(super) fn commit_offsets(
        self: &Arc<Self>,
        offsets: impl IntoIterator<Item = (TopicPartition, OffsetAndMetadata)>,
    ) -> PendingCommit {
        // The application's iterator is not run under the lock.
        let offsets: Vec<_> = offsets.into_iter().collect();
        if let Some((tp, bad)) = offsets.iter().find(|(_, offset)| offset.offset < 0) {
            let message = format!("cannot commit offset {}: offsets start at 0", bad.offset);
            let error = Error::new(ErrorKind::InvalidArgument, message);
            return PendingCommit::over(Err(error.with_topic_partition(tp.clone())));
        }
        let snapshot = self.cluster.snapshot();
        self.commit(|inner, deadline| {
            // An offset of what is assigned is of the topic that is read, which may be gone; any
            // other, of that which has the name now.
            let topic_id = |tp: &TopicPartition| match inner.positions.topic_id(tp) {
                id if id.is_nil() => snapshot.topic(&tp.topic).map_or(id, |topic| topic.id),
                id => id,
            };
            let offsets = offsets.into_iter().map(|(tp, offset)| {
                let topic_id = topic_id(&tp);
                let one = ToCommit {
                    topic_id,
                    offset,
                    deadline,
                };
                (tp, one)
            });
            offsets.collect()
        })
    }

    fn commit(
        self: &Arc<Self>,
        what: impl FnOnce(&mut Inner, Instant) -> Offsets,
    ) -> PendingCommit {
        let group = match self.group() {
            Ok(group) => group,
            Err(error) => return PendingCommit::over(Err(error)),
        };
        let deadline = now() + self.cluster.config().api_timeout;
        let (reply, outcome) = tokio::sync::oneshot::channel();
        {
            let mut inner = self.lock();
            // Under one lock: what was handed out belongs to the membership of this moment.
            let (offsets, life) = (what(&mut inner, deadline), inner.assigned_in());
            if offsets.is_empty() {
                return PendingCommit::over(Ok(()));
            }
            let purpose = Purpose::Application(reply);
            let waiter = Waiter { purpose, deadline };
            inner.unsent.ask(life, Some(waiter), offsets);
        }
        self.control.notify_one();
        let shared = Arc::clone(self);
        PendingCommit(Box::pin(async move {
            let closed = || {
                let closed = || Error::new(ErrorKind::Closed, "the client was closed");
                Err(shared.tasks.failure().unwrap_or_else(closed))
            };
            tokio::select! {
                biased;
                outcome = outcome => outcome.unwrap_or_else(|_| closed()),
                () = shared.tasks.stopped() => closed(),
                // It was merged with others, whose deadlines are later.
                () = tokio::time::sleep_until(deadline) => Err(timed_out(&group, MAYBE)),
            }
        }))
    }

    /// The group to commit to.
    pub(super) fn group(&self) -> Result<Arc<str>> {
        let group = self.config.group_id.as_deref();
        group.map(Arc::from).ok_or_else(|| {
            let message = "this consumer has no group (group.id), so there is nothing to commit to";
            Error::new(ErrorKind::InvalidArgument, message)
        })
    }
}
