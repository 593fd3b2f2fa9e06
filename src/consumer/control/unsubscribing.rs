//! Ends: of a subscription, after which the consumer can read something else, and of the consumer.
//!
//! Both commit what is finished before the group is left. What the application wants to read after
//! a subscription is taken up when that has ended, so that it joins as anybody who comes.

use super::state::{CloseState, Control, Unsubscribing};
use crate::clock::{Instant, now};
use crate::consumer::commands::Closing;
use crate::consumer::metrics::Rebalance;
use crate::consumer::unsent::Purpose;
use crate::consumer::wanted::Subscription;
use crate::group::GroupMembershipOperation;

impl Control {
    /// From now on the group gives this member nothing more, nor takes it anything but all it has.
    pub(super) fn begin_parting(&mut self, time: Instant) {
        if self.unsubscribing.is_some() || self.shared.lock().unsubscribing.is_none() {
            return;
        }
        self.unsubscribing = Some(Unsubscribing::Waiting);
        tracing::info!(group = self.group.as_deref(), "unsubscribed");
        let membership = self.membership.as_mut();
        if membership.is_some_and(|membership| membership.retire()) {
            self.shared.stats.rebalanced(Rebalance::Revoked);
        }
        self.want(Subscription::Nothing, time);
    }

    /// Leaves the group when all was committed, that of a revocation under way too.
    pub(super) fn part(&mut self, time: Instant) {
        if self.unsubscribing != Some(Unsubscribing::Committed) || self.revoking.is_some() {
            return;
        }
        self.unsubscribing = Some(Unsubscribing::Leaving);
        match &mut self.membership {
            Some(membership) => membership.leave(time, GroupMembershipOperation::Default),
            None => self.parted(),
        }
    }

    /// What the application wants next can begin.
    pub(super) fn parted(&mut self) {
        self.unsubscribing = None;
        self.former = None;
        self.shared.lock().unsubscribing = None;
        self.shared.control.notify_one();
    }

    pub(super) fn closing(&mut self, time: Instant) {
        let mut inner = self.shared.lock();
        let Some(Closing {
            deadline, patience, ..
        }) = inner.closing
        else {
            return;
        };
        if time >= deadline {
            self.end = CloseState::Over;
            return;
        }
        if !matches!(self.end, CloseState::NotYet | CloseState::Waiting) {
            return;
        }
        let all: Vec<_> = inner.positions.assigned().cloned().collect();
        if self.end == CloseState::NotYet {
            for tp in &all {
                inner.positions.set_revoking(tp);
            }
        }
        let busy = inner.end_streams(&all);
        drop(inner);
        if !busy.is_empty() && time < patience {
            self.end = CloseState::Waiting;
            return;
        }
        self.end = CloseState::Committing;
        self.commit_finished(Purpose::Close, deadline);
    }

    /// The last commit is done: leaves the group.
    pub(super) fn leave(&mut self) {
        self.end = CloseState::Leaving;
        let mut inner = self.shared.lock();
        let all: Vec<_> = inner.positions.assigned().cloned().collect();
        inner.remove(&all);
        inner.revocation = None;
        let operation = match (self.unsubscribing, inner.closing) {
            (None, Some(closing)) => closing.operation,
            // What was begun goes on.
            _ => GroupMembershipOperation::Default,
        };
        drop(inner);
        self.revoking = None;
        match &mut self.membership {
            Some(membership) => membership.leave(now(), operation),
            None => self.end = CloseState::Over,
        }
    }
}
