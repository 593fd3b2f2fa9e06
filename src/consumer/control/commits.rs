//! Commits: one after the other, in the order they were asked for.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::parting::{End, Parting};
use super::{Answer, Control};
use crate::clock::{Instant, now};
use crate::consumer::offsets::{self, Identity, ToCommit};
use crate::consumer::positions::{Position, Positions};
use crate::consumer::shared::CommitWish;
use crate::error::Result;
use crate::types::TopicPartition;

/// A commit that waits for its turn.
pub(super) struct Pending {
    pub(super) purpose: Purpose,
    pub(super) offsets: Vec<ToCommit>,
    pub(super) deadline: Instant,
    /// The membership that it belongs to, if to any; in another one it has nothing to say.
    pub(super) life: Option<u64>,
}

/// Why a commit is made, and who waits for it.
pub(in crate::consumer) enum Purpose {
    Application(tokio::sync::oneshot::Sender<Result<()>>),
    Interval,
    Revocation(u64),
    Unsubscribe,
    Close,
}

impl Purpose {
    /// Nobody waits for it.
    pub(in crate::consumer) fn nobody() -> Self {
        Self::Application(tokio::sync::oneshot::channel().0)
    }

    fn is_abandoned(&self) -> bool {
        matches!(self, Self::Application(reply) if reply.is_closed())
    }
}

impl Control {
    /// Takes up what the application wants committed, and what is due.
    pub(super) fn take_wishes(&mut self, time: Instant) {
        let mut inner = self.shared.lock();
        let life = inner.assigned_in();
        for CommitWish {
            purpose,
            offsets,
            life,
            deadline,
        } in inner.commits.drain(..)
        {
            // Who gives up again and again would fill the queue; a later commit says it all.
            if self.commits.iter().any(|old| old.purpose.is_abandoned()) {
                let new: BTreeSet<_> = offsets.iter().map(|one| &one.tp).collect();
                self.commits.retain(|old| {
                    !old.purpose.is_abandoned()
                        || old.offsets.iter().any(|one| !new.contains(&one.tp))
                });
            }
            self.commits.push_back(Pending {
                purpose,
                offsets,
                deadline,
                life,
            });
        }
        let due = self.next_commit.filter(|at| *at <= time);
        if due.is_some() && self.end == End::NotYet {
            let offsets = finished(&inner.positions);
            self.next_commit = Some(time + self.shared.config.auto_commit_interval);
            if inner.held {
                // A stream that waits for records looks whether those that it gave out are still in
                // use.
                self.shared.ready.notify_waiters();
            }
            if !offsets.is_empty() && !self.committing {
                self.commits.push_back(Pending {
                    purpose: Purpose::Interval,
                    offsets,
                    deadline: time + self.shared.cluster.config().api_timeout,
                    life,
                });
            }
        }
    }

    /// A commit of what is finished, if that is this consumer's to do.
    pub(super) fn commit_finished(
        &mut self,
        purpose: Purpose,
        deadline: Instant,
        of: impl Fn(&TopicPartition) -> bool,
    ) {
        let inner = self.shared.lock();
        let mut offsets = match self.next_commit {
            Some(_) => finished(&inner.positions),
            None => Vec::new(),
        };
        offsets.retain(|one| of(&one.tp));
        let life = inner.assigned_in();
        drop(inner);
        self.commits.push_back(Pending {
            purpose,
            offsets,
            deadline,
            life,
        });
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        let member = self.shared.lock().member.clone();
        let instance_id = self.shared.config.group_instance_id.as_deref();
        self.group.as_ref().map(|group| Identity {
            group: Arc::clone(group),
            instance_id: instance_id.map(Arc::from),
            member,
        })
    }

    pub(super) fn commit(&mut self, time: Instant) {
        while !self.committing {
            let Some(next) = self.commits.pop_front() else {
                return;
            };
            let Some(identity) = self.identity().filter(|_| !next.offsets.is_empty()) else {
                self.committed(next.purpose, &[], Ok(()));
                continue;
            };
            if next.purpose.is_abandoned() && next.deadline < time {
                continue;
            }
            self.committing = true;
            let shared = Arc::clone(&self.shared);
            self.answers.push(Box::pin(async move {
                let Pending {
                    purpose,
                    offsets,
                    deadline,
                    life,
                } = next;
                let who = || {
                    let inner = shared.lock();
                    let member = inner.member.clone();
                    // Without an id a broker takes it for an administrator's, if nobody else is in the
                    // group now. And a member that was thrown out and is in again has lost what it had:
                    // others may be further.
                    if life.is_some_and(|life| member.is_none() || inner.life != life) {
                        return Err(offsets::not_a_member(&identity.group));
                    }
                    Ok(Identity {
                        member,
                        ..identity.clone()
                    })
                };
                let began = now();
                let outcome =
                    offsets::commit(&shared.cluster, who, offsets.clone(), deadline).await;
                let took = now().saturating_duration_since(began);
                Answer::Commit(purpose, offsets, took, outcome)
            }));
        }
    }

    pub(super) fn committed(
        &mut self,
        purpose: Purpose,
        offsets: &[ToCommit],
        outcome: Result<()>,
    ) {
        if outcome.is_ok() {
            let mut inner = self.shared.lock();
            let own = matches!(purpose, Purpose::Application(_));
            for one in offsets {
                let (tp, offset) = (&one.tp, one.offset.offset);
                match own {
                    true => inner.positions.finish_committed(tp, offset),
                    false => inner.positions.note_committed(tp, offset),
                }
            }
        }
        match purpose {
            Purpose::Application(reply) => {
                // Nobody waiting any more is fine.
                let _ = reply.send(outcome);
            }
            Purpose::Interval => {
                if let Err(error) = outcome {
                    tracing::warn!(%error, "auto-commit failed; tried again at the next interval");
                }
            }
            Purpose::Revocation(id) => {
                if let Err(error) = outcome {
                    tracing::warn!(%error, "commit before revocation failed; records will be read again");
                }
                let revoking = self.revoking.as_ref();
                if revoking.is_some_and(|revoking| revoking.id == id) {
                    self.revoked();
                }
            }
            Purpose::Unsubscribe => {
                if let Err(error) = outcome {
                    tracing::warn!(%error, "commit at the end of the subscription failed; records will be read again");
                }
                self.parting = Some(Parting::Committed);
            }
            Purpose::Close => {
                if let Err(error) = outcome {
                    tracing::warn!(%error, "last commit failed; records will be read again");
                }
                self.leave();
            }
        }
    }
}

fn finished(positions: &Positions) -> Vec<ToCommit> {
    to_commit(positions, positions.uncommitted())
}

/// Positions as they are committed, each with the topic that it is of.
pub(in crate::consumer) fn to_commit(
    positions: &Positions,
    at: Vec<(TopicPartition, Position)>,
) -> Vec<ToCommit> {
    let at = at.into_iter();
    at.map(|(tp, at)| ToCommit {
        topic_id: positions.topic_id(&tp),
        tp,
        offset: at.to_commit(),
    })
    .collect()
}
