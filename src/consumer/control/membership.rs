//! The member of the group: heartbeats, what comes and goes, and the end of the membership.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI16, Ordering};

use uuid::Uuid;

use super::state::{CloseState, GroupSender, Unsubscribing};
use super::{Answer, Control, Revoking};
use crate::clock::{Instant, now};
use crate::cluster::{CoordinatorKey, Snapshot};
use crate::consumer::commands::{PendingUnsubscribe, RebalanceEvent};
use crate::consumer::metrics::Rebalance;
use crate::consumer::shared::Shared;
use crate::consumer::unsent::Purpose;
use crate::error::classify::{self, Refresh};
use crate::error::{Certainty, Result};
use crate::group::{Effect, GroupCall, GroupRequest, GroupResponse, Token};
use crate::net::Lane;
use crate::net::pool::closed;
use crate::offsets;
use crate::types::TopicPartition;
use crate::wire::Call;

impl GroupSender {
    fn send(&mut self, shared: Arc<Shared>, token: Token, request: GroupRequest) {
        let heard_of = Arc::clone(&self.heard_of);
        if request.waits_for_others() {
            // An earlier one does not count any more.
            self.waiting = Some(Box::pin(async move {
                let answer = send(&shared, &request, &heard_of).await;
                Answer::Group(token, answer)
            }));
            return;
        }
        let before = self.under_way.take().filter(|_| request.keeps_order());
        if request.is_farewell() {
            self.waiting = None;
            if !heard_of.load(Ordering::Relaxed) {
                let nobody_knows = std::future::ready(Answer::Group(token, Err(closed())));
                self.under_way = Some(Box::pin(nobody_knows));
                return;
            }
        }
        self.under_way = Some(Box::pin(async move {
            if let Some(before) = before {
                before.await;
            }
            let answer = send(&shared, &request, &heard_of).await;
            Answer::Group(token, answer)
        }));
    }
}

impl Control {
    /// Leaves the group when the application does not poll, comes back when it does. Who waits in a
    /// poll is woken before the time is over, so as to say that it is still there.
    pub(super) fn presence(&mut self, time: Instant) {
        let (Some(membership), CloseState::NotYet) = (&mut self.membership, self.end) else {
            return;
        };
        let polled_at = self.shared.lock().polled_at;
        let absent = time >= polled_at + self.shared.config.max_poll_interval;
        if !absent {
            membership.resume(time);
        } else if membership.is_in() {
            tracing::warn!(
                group = self.group.as_deref(),
                "no poll within max.poll.interval.ms: leaving the group until the next poll"
            );
            membership.absent(time);
        }
        if membership.is_in() && time >= self.next_wake(polled_at) {
            self.woken_at = time;
            self.shared.ready.notify_waiters();
        }
    }

    /// When those who wait in a poll are to be woken.
    pub(super) fn next_wake(&self, polled_at: Instant) -> Instant {
        polled_at.max(self.woken_at) + self.shared.config.max_poll_interval / 3
    }

    pub(super) fn revocation(&mut self, time: Instant) {
        let Some(revoking) = &mut self.revoking else {
            return;
        };
        let inner = self.shared.lock();
        let released =
            inner.revocation == Some((revoking.id, true)) || crate::planted("revoked-while-in-use");
        if !released || revoking.committing {
            return;
        }
        revoking.committing = true;
        drop(inner);
        let id = revoking.id;
        let deadline = time + self.shared.cluster.config().request_timeout;
        // Even if there is nothing to commit: commits asked for before must not come after the
        // partitions have gone to others.
        self.commit_finished(Purpose::Revocation(id), deadline);
    }

    /// The revocation is complete.
    pub(super) fn revoked(&mut self) {
        let Some(revoking) = self.revoking.take() else {
            return;
        };
        let mut inner = self.shared.lock();
        // The application may have assigned some of them to itself meanwhile.
        let mut left = revoking.partitions;
        left.retain(|tp| inner.positions.is_revoking(tp));
        inner.remove(&left);
        inner.revocation = None;
        drop(inner);
        self.shared.fetchable.notify_waiters();
        if let Some(membership) = &mut self.membership {
            membership.revoked();
        }
    }

    pub(super) fn membership(&mut self, time: Instant) {
        let snapshot = self.shared.cluster.snapshot();
        while let Some(membership) = &mut self.membership
            && let Some(effect) = membership.poll(time, &snapshot)
        {
            self.carry_out(effect, &snapshot);
        }
        if let Some(membership) = &self.membership {
            let mut inner = self.shared.lock();
            let before = inner.life;
            inner.set_member(membership.identity(), membership.life());
            if before != inner.life {
                let ended = inner.unsent.end_of(before);
                drop(inner);
                self.commits_of_another_life(ended);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect, snapshot: &Snapshot) {
        match effect {
            Effect::Send(token, request) => {
                self.group_sender
                    .send(Arc::clone(&self.shared), token, request);
            }
            Effect::Revoke(partitions) => self.revoke(partitions),
            Effect::Assign(partitions) => self.assign(partitions, snapshot),
            Effect::Lost(partitions) => self.lose(partitions),
            Effect::Fail(error) if error.is_fatal() => {
                let mut inner = self.shared.lock();
                inner.fatal.get_or_insert(error);
                inner.split.wake_all();
                drop(inner);
                self.shared.ready.notify_waiters();
            }
            Effect::Fail(error) => self.shared.tell(error),
            Effect::WatchGroup(topics) => {
                let watched =
                    (!topics.is_empty()).then(|| self.shared.cluster.watch(&topics, false));
                self.group_interest = watched;
            }
            Effect::RefreshMetadata => {
                self.match_topics(snapshot);
                self.shared.cluster.refresh();
            }
            Effect::Left => {
                if self.end == CloseState::Leaving {
                    self.end = CloseState::Over;
                } else if self.unsubscribing == Some(Unsubscribing::Leaving) {
                    self.parted();
                }
            }
        }
    }
}

impl Control {
    /// The group protocol in use, for the log.
    fn protocol(&self) -> Option<String> {
        let membership = self.membership.as_ref()?;
        Some(membership.protocol().to_string())
    }

    fn revoke(&mut self, partitions: Vec<TopicPartition>) {
        let mut inner = self.shared.lock();
        if inner.unsubscribing.is_some() {
            // All is given up.
            return;
        }
        let id = inner.new_revocation();
        for tp in &partitions {
            inner.positions.set_revoking(tp);
        }
        inner
            .events
            .push_back(RebalanceEvent::Revoking(id, partitions.clone()));
        inner.revocation = Some((id, false));
        drop(inner);
        let count = partitions.len();
        let group = self.group.as_deref();
        tracing::info!(
            group,
            protocol = self.protocol(),
            count,
            ?partitions,
            "revoking"
        );
        self.shared.stats.rebalanced(Rebalance::Revoked);
        self.revoking = Some(Revoking {
            id,
            partitions,
            committing: false,
        });
        self.shared.ready.notify_waiters();
    }

    fn assign(&mut self, partitions: Vec<(TopicPartition, Uuid)>, snapshot: &Snapshot) {
        let names: Vec<_> = partitions.iter().map(|(tp, _)| tp.clone()).collect();
        let mut inner = self.shared.lock();
        if inner.unsubscribing.is_some() {
            // The application wants nothing of this group any more.
            return;
        }
        inner.positions.assign(partitions);
        inner
            .events
            .push_back(RebalanceEvent::Assigned(names.clone()));
        drop(inner);
        let count = names.len();
        let group = self.group.as_deref();
        tracing::info!(group, protocol = self.protocol(), count, partitions = ?names, "assigned");
        self.shared.stats.rebalanced(Rebalance::Assigned);
        self.shared.follow(snapshot);
    }

    fn lose(&mut self, mut partitions: Vec<TopicPartition>) {
        self.revoking = None;
        let mut inner = self.shared.lock();
        inner.revocation = None;
        match inner.unsubscribing {
            // What is assigned now is not of this group, but for the rest of a revocation.
            Some(PendingUnsubscribe::GivenUp) => {
                partitions.retain(|tp| inner.positions.is_revoking(tp));
                if partitions.is_empty() {
                    return;
                }
            }
            Some(PendingUnsubscribe::Told(..)) => self.shared.end(&mut inner, &[]),
            None => {}
        }
        inner.remove(&partitions);
        inner
            .events
            .retain(|news| !matches!(news, RebalanceEvent::Revoking(..)));
        inner
            .events
            .push_back(RebalanceEvent::Lost(partitions.clone()));
        drop(inner);
        let count = partitions.len();
        let group = self.group.as_deref();
        tracing::warn!(
            group,
            protocol = self.protocol(),
            count,
            ?partitions,
            "lost"
        );
        self.shared.stats.rebalanced(Rebalance::Lost);
        self.shared.control.notify_one();
        self.shared.ready.notify_waiters();
    }
}

async fn send(
    shared: &Shared,
    request: &GroupRequest,
    heard_of: &AtomicBool,
) -> Result<GroupResponse> {
    use GroupRequest as R;
    use GroupResponse as A;
    let lane = match request.waits_for_others() {
        true => Lane::Join,
        false => Lane::Coordinator,
    };
    match request {
        R::ConsumerHeartbeat(it) => ask(shared, lane, it, heard_of)
            .await
            .map(A::ConsumerHeartbeat),
        R::Join(it) => ask(shared, lane, it, heard_of).await.map(A::Join),
        R::Sync(it) => ask(shared, lane, it, heard_of).await.map(A::Sync),
        R::Heartbeat(it) => ask(shared, lane, it, heard_of).await.map(A::Heartbeat),
        R::Leave(it) => ask(shared, lane, it, heard_of).await.map(|()| A::Leave),
    }
}

/// In the place of the version of a request.
const NOT_SENT: i16 = -1;

async fn ask<R: GroupCall>(
    shared: &Shared,
    lane: Lane,
    request: &R,
    heard_of: &AtomicBool,
) -> Result<R::Answer> {
    let group = shared.config.group_id.as_deref().unwrap_or_default();
    let cluster = &shared.cluster;
    let wait = request.wait();
    let deadline = now() + cluster.config().request_timeout;
    let sent = AtomicI16::new(NOT_SENT);
    let build = |version| {
        let message = request.build(group, version)?;
        sent.store(version, Ordering::Relaxed);
        heard_of.store(true, Ordering::Relaxed);
        Ok((version, message))
    };
    let place = (lane, wait);
    let answer =
        offsets::ask_coordinator_on::<R::Wire>(place, cluster, group, deadline, build).await;
    let (broker, response) = answer.map_err(|error| {
        match lane == Lane::Join && sent.load(Ordering::Relaxed) == NOT_SENT {
            true => error.with_certainty(Certainty::NotSent),
            false => error,
        }
    })?;
    let code = R::Wire::error_code(&response);
    if classify::classify(code).refresh == Refresh::Coordinator {
        cluster.forget_coordinator(CoordinatorKey::Group(group), broker);
    }
    request.read(sent.into_inner(), response)
}
