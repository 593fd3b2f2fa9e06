//! What a consumer reads: topics of its group or given partitions, other ones later, or nothing
//! more.
//!
//! An unsubscription is done in two places. Here, on the application's side, what is assigned is
//! given up under the lock, so that nothing of it is handed out from then on and something else can
//! be assigned at once; the commit of what is finished is put in line. The control task makes that
//! commit, leaves the group, and only then takes up what the application wants next
//! (`control/unsubscribing.rs`).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Consumer;
use super::commands::{PendingUnsubscribe, RebalanceEvent};
use super::pattern::TopicPattern;
use super::shared::{Inner, Shared, by_name};
use super::unsent::{Purpose, Waiter, to_commit};
use super::wanted::{Subscription, each_once};
use crate::clock::now;
use crate::error::{Error, ErrorKind, Result};
use crate::offsets::Offsets;
use crate::types::TopicPartition;

impl Consumer {
    /// Reads these topics of the group from now on, instead of what it was built with. Partitions
    /// of topics that are not among them are given up as in any rebalance. After an
    /// [`unsubscribe`](Self::unsubscribe) the consumer joins the group anew.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if there are none, if this consumer reads partitions by
    /// [`assign`](Self::assign) (unsubscribe first), or if it has no group.
    pub fn subscribe<T: Into<Arc<str>>>(
        &mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<()> {
        self.shared.subscribe(Subscription::topics(topics))
    }

    /// Subscribes to the topics that match a pattern, now and later.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Self::subscribe).
    pub fn subscribe_pattern(&mut self, pattern: TopicPattern) -> Result<()> {
        self.shared.subscribe(Subscription::Pattern(pattern))
    }

    /// Reads these partitions from now on, instead of those it was built with. Partitions that stay
    /// keep their positions; with auto-commit, what is finished of the others is committed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if this consumer reads topics by
    /// [`subscribe`](Self::subscribe) (unsubscribe first).
    pub fn assign(&mut self, partitions: impl IntoIterator<Item = TopicPartition>) -> Result<()> {
        self.shared.assign(each_once(partitions))
    }

    /// Ends the subscription or assignment and leaves the group, as Java's `unsubscribe`; the
    /// consumer can [`subscribe`](Self::subscribe) or [`assign`](Self::assign) again, to something
    /// of either kind.
    ///
    /// It does not wait, and there is nothing to give up half-way: from now on nothing is handed
    /// out of what was assigned, and in the background what is finished ([`finish`](Self::finish))
    /// is committed, if auto-commit is on (for at most `request.timeout.ms`), and then the group is
    /// told at once, so that others get the partitions. A static member (`group.instance.id`) keeps
    /// its place for the session time-out, as at [`close`](Self::close). What is subscribed
    /// afterwards waits for that. Until there is something to read again, polls wait.
    ///
    /// An application that reads by [`next_event`](Self::next_event) gets an
    /// [`Event::Revoking`](super::Event::Revoking) as for any revocation, and the partitions are
    /// given up when it is done with that (or assigns something else). With any other way of
    /// reading, this call gives them up.
    ///
    /// ```no_run
    /// # async fn example(mut consumer: ottla::Consumer) -> ottla::Result<()> {
    /// consumer.unsubscribe();
    /// assert_eq!(consumer.subscription(), ottla::Subscription::Nothing);
    /// // Some time later:
    /// consumer.subscribe(["returns"])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn unsubscribe(&mut self) {
        self.shared.unsubscribe();
    }

    /// What this consumer subscribed to or was assigned last: topics by name or by pattern,
    /// partitions, or nothing. [`assignment`](super::ConsumerHandle::assignment) returns the
    /// partitions that it reads at present.
    #[must_use]
    pub fn subscription(&self) -> Subscription {
        self.shared.lock().wanted.clone()
    }
}

impl Shared {
    fn subscribe(&self, wanted: Subscription) -> Result<()> {
        let refused = |message| Err(Error::new(ErrorKind::InvalidArgument, message));
        if matches!(&wanted, Subscription::Topics(topics) if topics.is_empty()) {
            return refused("nothing to subscribe to");
        }
        if self.config.group_id.is_none() {
            return refused("`subscribe` needs a group: set group.id, or use `assign`");
        }
        let mut inner = self.lock();
        if matches!(inner.wanted, Subscription::Partitions(_)) {
            return refused("this consumer reads partitions by `assign`: `unsubscribe` first");
        }
        inner.wanted = wanted;
        inner.rewanted = true;
        drop(inner);
        self.control.notify_one();
        Ok(())
    }

    /// Reads other partitions (ordered, each once). Partitions that it read before keep their
    /// positions.
    fn assign(&self, partitions: Vec<TopicPartition>) -> Result<()> {
        let mut inner = self.lock();
        if inner.wanted.is_of_group() {
            let message = "the group assigns the partitions of this consumer: use `subscribe`, or \
                           `unsubscribe` first";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        if matches!(inner.unsubscribing, Some(PendingUnsubscribe::Told(..))) {
            // The application was to let go, and goes on to something else instead.
            let all: Vec<_> = inner.positions.assigned().cloned().collect();
            self.end(&mut inner, &all);
        }
        let positions = &inner.positions;
        let stays = |tp: &TopicPartition| {
            partitions.binary_search(tp).is_ok() && !positions.is_revoking(tp)
        };
        let gone = positions.assigned().filter(|tp| !stays(tp));
        let gone: Vec<_> = gone.cloned().collect();
        let new = partitions
            .iter()
            .filter(|tp| !positions.is_assigned(tp) || !stays(tp));
        let new: Vec<_> = new.cloned().collect();
        self.give_up(&mut inner, &gone, None, None);
        inner.positions.assign(by_name(&new));
        for tp in &new {
            inner.split.add(tp);
        }
        inner.wanted = Subscription::Partitions(partitions);
        inner.rewanted = true;
        drop(inner);
        self.follow(&self.cluster.snapshot());
        self.control.notify_one();
        Ok(())
    }

    fn unsubscribe(&self) {
        let mut inner = self.lock();
        if inner.wanted == Subscription::Nothing {
            return;
        }
        let all: Vec<_> = inner.positions.assigned().cloned().collect();
        let is_member = inner.wanted.is_of_group();
        match (&inner.unsubscribing, is_member) {
            (None, true) if inner.listens => self.tell_and_end(&mut inner),
            (None, true) => {
                if let Some((_, released)) = &mut inner.revocation {
                    *released = true;
                }
                // Nobody looks at what happened.
                inner.events.clear();
                self.end(&mut inner, &all);
            }
            (None, false) => self.end(&mut inner, &all),
            // Nobody has joined for it: the subscription before is not over.
            (Some(_), true) => {}
            (Some(_), false) => self.give_up(&mut inner, &all, None, None),
        }
        inner.wanted = Subscription::Nothing;
        inner.rewanted = true;
        drop(inner);
        self.fetchable.notify_waiters();
        self.ready.notify_waiters();
        self.control.notify_one();
    }

    /// Has the application let go of what is assigned, before that is given up.
    fn tell_and_end(&self, inner: &mut Inner) {
        // It knows already of a revocation under way.
        let assigned = inner.positions.assigned();
        let rest = assigned.filter(|tp| !inner.positions.is_revoking(tp));
        let rest: Vec<_> = rest.cloned().collect();
        if rest.is_empty() {
            return self.end(inner, &[]);
        }
        for tp in &rest {
            inner.positions.set_revoking(tp);
        }
        let id = inner.new_revocation();
        inner
            .events
            .push_back(RebalanceEvent::Revoking(id, rest.clone()));
        inner.unsubscribing = Some(PendingUnsubscribe::Told(id, rest));
    }

    /// The application has let go of what the end of its subscription takes.
    pub(super) fn let_go(&self, inner: &mut Inner, revocation: u64) {
        if let Some(PendingUnsubscribe::Told(id, partitions)) = &mut inner.unsubscribing
            && *id == revocation
        {
            let partitions = std::mem::take(partitions);
            self.end(inner, &partitions);
        }
    }

    /// Gives up what is assigned, so that the control task leaves the group when the commit is
    /// made.
    pub(super) fn end(&self, inner: &mut Inner, partitions: &[TopicPartition]) {
        let life = inner.assigned_in();
        inner.unsubscribing = Some(PendingUnsubscribe::GivenUp);
        self.give_up(inner, partitions, Some(Purpose::Unsubscribe), life);
    }

    /// Gives partitions up, once what is finished of them is in line to be committed.
    fn give_up(
        &self,
        inner: &mut Inner,
        partitions: &[TopicPartition],
        purpose: Option<Purpose>,
        life: Option<u64>,
    ) {
        let config = self.cluster.config();
        let patience = match purpose {
            Some(_) => config.request_timeout,
            None => config.api_timeout,
        };
        let deadline = now() + patience;
        let mut offsets = Offsets::new();
        if self.config.auto_commit && self.config.group_id.is_some() {
            let gone: BTreeSet<_> = partitions.iter().collect();
            let mut finished = inner.positions.uncommitted();
            finished.retain(|(tp, _)| gone.contains(tp));
            offsets = to_commit(&inner.positions, finished, deadline);
        }
        let waiter = purpose.map(|purpose| Waiter { purpose, deadline });
        if waiter.is_some() || !offsets.is_empty() {
            inner.unsent.ask(life, waiter, offsets);
        }
        inner.remove(partitions);
        inner.split.end(partitions);
    }
}

impl Inner {
    /// The membership that what is assigned belongs to; `None` where the application named it.
    pub(super) fn assigned_in(&self) -> Option<u64> {
        let of_group = match self.wanted {
            Subscription::Topics(_) | Subscription::Pattern(_) => true,
            Subscription::Partitions(_) => false,
            // What is left is about to be given up.
            Subscription::Nothing => {
                let told = matches!(self.unsubscribing, Some(PendingUnsubscribe::Told(..)));
                told || self.revocation.is_some()
            }
        };
        of_group.then_some(self.life)
    }

    pub(super) fn new_revocation(&mut self) -> u64 {
        self.revocations += 1;
        self.revocations
    }
}
