//! Commits: one after the other. What is asked for while one is under way is merged into the next.

use std::sync::Arc;

use super::state::{CloseState, Unsubscribing};
use super::{Answer, Control};
use crate::clock::{Instant, now};
use crate::consumer::commands::{MAYBE, timed_out};
use crate::consumer::unsent::{Purpose, Waiter, to_commit};
use crate::error::{Class, Error, Result};
use crate::group::{MemberIdentity, Verdict};
use crate::offsets::{self, Identity, Offsets};

impl Control {
    /// Asks for the commit that is due every `auto.commit.interval.ms`.
    pub(super) fn commit_at_interval(&mut self, time: Instant) {
        if self.end != CloseState::NotYet || self.next_commit.is_none_or(|at| at > time) {
            return;
        }
        self.next_commit = Some(time + self.shared.config.auto_commit_interval);
        if self.shared.lock().held {
            // A stream that waits for records looks whether those that it gave out are still in
            // use.
            self.shared.ready.notify_waiters();
        }
        // One of them at a time.
        if !std::mem::replace(&mut self.at_interval, true) {
            let deadline = time + self.shared.cluster.config().api_timeout;
            self.commit_finished(Purpose::Interval, deadline);
        }
    }

    /// Asks for a commit of what is finished, if that is this consumer's to do, and in any case for
    /// word when the commits asked for before are over.
    pub(super) fn commit_finished(&self, purpose: Purpose, deadline: Instant) {
        let mut inner = self.shared.lock();
        let life = inner.assigned_in();
        let waiter = Waiter { purpose, deadline };
        inner.unsent.ask(life, Some(waiter), []);
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        let member = self.shared.lock().member.clone().map(pair);
        let instance_id = self.shared.config.group_instance_id.as_deref();
        self.group.as_ref().map(|group| Identity {
            group: Arc::clone(group),
            instance_id: instance_id.map(Arc::from),
            member,
        })
    }

    /// Sends the next commit, if none is under way.
    pub(super) fn commit(&mut self, time: Instant) {
        while !self.committing {
            let mut inner = self.shared.lock();
            let Some((life, mut next)) = inner.unsent.take() else {
                return;
            };
            let late = next.expire(time);
            if let Some(deadline) = next.wants_finished()
                && self.next_commit.is_some()
                && inner.assigned_in() == life
            {
                let finished = inner.positions.uncommitted();
                next.add_finished(to_commit(&inner.positions, finished, deadline));
            }
            drop(inner);
            for waiter in late {
                let group = self.group.as_deref().unwrap_or_default();
                let error = timed_out(group, "those before it took so long that it was not made");
                self.answer(waiter, Err(error));
            }
            let Some(identity) = self.identity().filter(|_| !next.offsets.is_empty()) else {
                self.committed(time, next.waiters, &Offsets::new(), &Ok(()));
                continue;
            };
            self.committing = true;
            let shared = Arc::clone(&self.shared);
            self.answers.push(Box::pin(async move {
                let who = || {
                    let inner = shared.lock();
                    let member = inner.member.clone();
                    // Without an id a broker takes it for an administrator's, if nobody else is in
                    // the group now. And a member that was thrown out and is in again has lost what
                    // it had: others may be further.
                    if life.is_some_and(|life| member.is_none() || inner.life != life) {
                        return Err(offsets::not_a_member(&identity.group));
                    }
                    Ok(Identity {
                        member: member.map(pair),
                        ..identity.clone()
                    })
                };
                let began = now();
                let seen = !shared.interceptors.is_empty();
                let seen = seen.then(|| next.offsets.clone());
                let mut committed = Offsets::new();
                let behind = |code| Verdict::of(code) == Verdict::Behind;
                let (cluster, offsets) = (&shared.cluster, next.offsets);
                let outcome = offsets::commit(cluster, who, behind, offsets, &mut committed).await;
                let outcome = outcome.map_err(told_in_a_rebalance);
                let took = now().saturating_duration_since(began);
                shared.stats.committed(took, outcome.is_ok());
                if let Some(seen) = seen {
                    let offsets = seen.into_iter().map(|(tp, one)| (tp, one.offset));
                    let told = outcome.as_ref().copied();
                    let interceptors = &shared.interceptors;
                    interceptors.on_commit(&offsets.collect::<Vec<_>>(), told);
                }
                Answer::Commit(next.waiters, committed, outcome)
            }));
        }
    }

    /// Commits that were asked for in a membership that is over are nobody's to make.
    pub(super) fn commits_of_another_life(&mut self, waiters: Vec<Waiter>) {
        let Some(group) = self.group.clone().filter(|_| !waiters.is_empty()) else {
            return;
        };
        for waiter in waiters {
            self.answer(waiter, Err(offsets::not_a_member(&group)));
        }
        self.shared.control.notify_one();
    }

    pub(super) fn committed(
        &mut self,
        time: Instant,
        waiters: Vec<Waiter>,
        committed: &Offsets,
        outcome: &Result<()>,
    ) {
        if !committed.is_empty() {
            let mut inner = self.shared.lock();
            for (tp, one) in committed {
                inner.positions.finish_committed(tp, one.offset.offset);
            }
        }
        for waiter in waiters {
            // Of one that is late nobody knows whether its offsets were among those that were given
            // up.
            let late = waiter.deadline <= time && outcome.is_ok() && !committed.is_empty();
            let outcome = match late {
                true => Err(timed_out(self.group.as_deref().unwrap_or_default(), MAYBE)),
                false => outcome.clone(),
            };
            self.answer(waiter, outcome);
        }
    }

    fn answer(&mut self, waiter: Waiter, outcome: Result<()>) {
        match waiter.purpose {
            Purpose::Application(reply) => {
                // Nobody waiting any more is fine.
                let _ = reply.send(outcome);
            }
            Purpose::Interval => {
                self.at_interval = false;
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
                self.unsubscribing = Some(Unsubscribing::Committed);
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

/// What a group refuses because it rebalances can be committed when it has: what is still owned.
fn told_in_a_rebalance(error: Error) -> Error {
    let code = error.code().map(|code| code.get());
    match code.map(Verdict::of) {
        Some(Verdict::Rebalancing) => error.with_class(Class::Retriable),
        _ => error,
    }
}

/// As requests about offsets take it.
fn pair(member: MemberIdentity) -> (Arc<str>, i32) {
    (member.id, member.epoch)
}
