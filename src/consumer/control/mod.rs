//! The control task of one consumer: membership, offset lookups, commits, and the end.
//!
//! Invariants:
//! - One commit is under way at a time, and what is asked for meanwhile is merged into the next: an
//!   older position never overtakes a newer one.
//! - A revocation is reported as complete only after the application let go (it polls again, or
//!   drops the guard) and what it has finished is committed.
//! - The end is bounded: whatever hangs, the tasks stop at the deadline.

mod commits;
mod lookups;
mod membership;
mod state;
mod unsubscribing;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use self::state::{Answer, Answers, CloseState, Control, GroupSender, Revoking};
use super::fetcher;
use super::pattern::Matching;
use super::shared::Shared;
use super::wanted::Subscription;
use crate::clock::{Instant, now, sleep_at};
use crate::cluster::Snapshot;
use crate::cluster::snapshot::{Listed, is_refusal};
use crate::error::Error;
use crate::group::{self, Membership};
use crate::types::TopicPartition;

pub(super) async fn run(shared: Arc<Shared>, membership: group::Settings) {
    let control = Control::new(Arc::clone(&shared), membership);
    control.run().await;
    // Ends the fetch tasks and this one.
    shared.tasks.stop();
    shared.cluster.end_role();
    shared.ready.notify_waiters();
}

impl Control {
    fn new(shared: Arc<Shared>, settings: group::Settings) -> Self {
        let config = &shared.config;
        let group: Option<Arc<str>> = config.group_id.as_deref().map(Arc::from);
        let changes = shared.cluster.changes();
        let interest = shared.cluster.watch(&[], false);
        let auto_commit = config.auto_commit && group.is_some();
        let next_commit = auto_commit.then(|| now() + config.auto_commit_interval);
        Self {
            group,
            wanted: Subscription::Nothing,
            interest,
            former: None,
            all: None,
            matched: None,
            checking: None,
            changes,
            membership: None,
            membership_settings: settings,
            group_interest: None,
            group_sender: GroupSender::default(),
            woken_at: now(),
            answers: Vec::new(),
            committing: false,
            next_commit,
            at_interval: false,
            revoking: None,
            missed: Vec::new(),
            unsubscribing: None,
            end: CloseState::NotYet,
            shared,
        }
    }

    async fn run(mut self) {
        let wanted = self.shared.lock().wanted.clone();
        self.want(wanted, now());
        let snapshot = self.shared.cluster.snapshot();
        self.shared.follow(&snapshot);
        loop {
            self.work();
            if self.end == CloseState::Over {
                return;
            }
            let timeout = self.next_timeout();
            let shared = Arc::clone(&self.shared);
            let wish = pin!(shared.control.notified());
            tokio::select! {
                biased;
                answer = next_answer(&mut self.group_sender, &mut self.answers) => self.take(answer),
                snapshot = self.changes.changed() => self.follow(&snapshot),
                () = wish => {}
                () = sleep_at(timeout) => {}
            }
        }
    }

    /// Does everything that can be done now.
    fn work(&mut self) {
        let time = now();
        self.begin_parting(time);
        if self.unsubscribing.is_none() {
            self.take_up(time);
        }
        self.commit_at_interval(time);
        self.presence(time);
        self.revocation(time);
        self.closing(time);
        // Commits that need no request end at once, and the membership goes on from there.
        self.commit(time);
        self.part(time);
        self.membership(time);
        self.lookups(time);
        self.fetchers();
    }

    /// Other topics or partitions, if the application changed its mind.
    fn take_up(&mut self, time: Instant) {
        let mut inner = self.shared.lock();
        if std::mem::take(&mut inner.rewanted) {
            let wanted = inner.wanted.clone();
            drop(inner);
            self.want(wanted, time);
        }
    }

    fn want(&mut self, wanted: Subscription, time: Instant) {
        self.missed.clear();
        self.matched = None;
        let by_pattern = matches!(wanted, Subscription::Pattern(_));
        self.all = by_pattern.then(|| self.shared.cluster.watch_all());
        if wanted.is_of_group() && self.membership.is_none() {
            self.membership = Some(Membership::new(self.membership_settings.clone()));
        }
        self.wanted = wanted;
        if let Subscription::Pattern(pattern) = &self.wanted {
            if let Matching::Broker(regex) = pattern.matching() {
                let subscription = group::Subscription::Regex(Arc::clone(regex));
                if let Some(membership) = &mut self.membership {
                    membership.subscribe(time, subscription);
                }
            }
            self.match_topics(&self.shared.cluster.snapshot());
            return;
        }
        let topics = self.wanted.named();
        self.take_interest(&topics, self.shared.config.allow_auto_create_topics);
        match (&self.wanted, &mut self.membership) {
            (Subscription::Topics(_), Some(membership)) => {
                membership.subscribe(time, group::Subscription::Names(topics));
            }
            (Subscription::Partitions(_), _) => self.check_existence(),
            _ => {}
        }
    }

    /// Has metadata ask for these topics; for those of partitions that are still assigned, too.
    fn take_interest(&mut self, topics: &[Arc<str>], auto_create: bool) {
        let cluster = &self.shared.cluster;
        let before = std::mem::replace(&mut self.interest, cluster.watch(topics, auto_create));
        let left = self.uncovered();
        self.former = (!left.is_empty()).then(|| self.shared.cluster.watch(&left, false));
        // Not earlier, or metadata would forget what both are about.
        drop(before);
    }

    /// The topics of assigned partitions that the subscription is not about.
    fn uncovered(&self) -> Vec<Arc<str>> {
        let inner = self.shared.lock();
        let assigned = inner.positions.assigned();
        let left = assigned.filter(|tp| !self.interest.covers(&tp.topic));
        let mut left: Vec<_> = left.map(|tp| Arc::clone(&tp.topic)).collect();
        left.dedup();
        left
    }

    /// Finds out which topics a pattern is about, from all that there are.
    fn match_topics(&mut self, snapshot: &Snapshot) {
        let (Subscription::Pattern(pattern), Some(all), Some(membership)) =
            (&self.wanted, &snapshot.all, &mut self.membership)
        else {
            return;
        };
        let seen = self
            .matched
            .as_ref()
            .is_some_and(|seen| Arc::ptr_eq(seen, all));
        if seen && matches!(pattern.matching(), Matching::Client(..)) {
            return;
        }
        self.matched = Some(Arc::clone(all));
        let internal = !self.shared.config.exclude_internal_topics;
        let of = |listed: &&Listed| match pattern.matching() {
            Matching::Client(_, regex) => {
                (internal || !listed.internal) && regex.is_match(&listed.name)
            }
            // The broker matches and tells ids.
            Matching::Broker(_) => membership.knows(listed.id),
        };
        let matched = all.iter().filter(of);
        let matched: Vec<_> = matched.map(|listed| Arc::clone(&listed.name)).collect();
        if matches!(pattern.matching(), Matching::Client(..)) {
            membership.subscribe(now(), group::Subscription::Names(matched.clone()));
        }
        if !self.interest.is(&matched) {
            tracing::debug!(?matched, "topics of the pattern");
            // They exist; a topic that is deleted is not to come back because somebody asked for
            // it.
            self.take_interest(&matched, false);
        }
    }

    /// Looks after assigned partitions that do not exist, once at a time.
    fn check_existence(&mut self) {
        if let Some(again) = &mut self.checking {
            *again = true;
        } else if let Subscription::Partitions(parts) = &self.wanted {
            self.checking = Some(false);
            let check = lookups::existence(Arc::clone(&self.shared), parts.clone());
            self.answers.push(Box::pin(check));
        }
    }

    fn fetchers(&mut self) {
        let mut inner = self.shared.lock();
        let new: Vec<_> = inner
            .positions
            .brokers()
            .filter(|broker| !inner.fetchers.contains(broker))
            .collect();
        inner.fetchers.extend(&new);
        drop(inner);
        for broker in new {
            let task = fetcher::run(Arc::clone(&self.shared), broker);
            self.shared.tasks.spawn("fetcher", task);
        }
    }

    fn take(&mut self, answer: Answer) {
        let time = now();
        match answer {
            Answer::Group(token, answer) => {
                if let Some(membership) = &mut self.membership {
                    membership.handle(time, token, answer);
                }
            }
            Answer::Committed(asked, found) => self.take_committed(time, &asked, found),
            Answer::Listed(asks, found) => self.take_listed(time, &asks, found),
            Answer::Commit(waiters, committed, outcome) => {
                self.committing = false;
                self.committed(time, waiters, &committed, &outcome);
            }
            Answer::Exists(missing) => {
                let again = self.checking.take() == Some(true);
                // Those given up meanwhile are nobody's business.
                let missing = missing.filter(|error| self.wants(error.topic_partition()));
                if again || missing.is_some() {
                    self.check_existence();
                }
                if let Some(error) = missing {
                    self.shared.tell(error);
                }
            }
        }
    }

    fn wants(&self, partition: Option<&TopicPartition>) -> bool {
        match &self.wanted {
            Subscription::Partitions(parts) => partition.is_none_or(|tp| parts.contains(tp)),
            _ => false,
        }
    }

    fn follow(&mut self, snapshot: &Snapshot) {
        self.shared.follow(snapshot);
        if let Some(membership) = &mut self.membership {
            membership.metadata_changed();
        }
        self.match_topics(snapshot);
        if self.former.is_some() && self.uncovered().is_empty() {
            self.former = None;
        }
        let Subscription::Topics(topics) = &self.wanted else {
            return;
        };
        for topic in topics {
            let Some(code) = snapshot.errors.get(topic).copied() else {
                self.missed.retain(|missed| missed != topic);
                continue;
            };
            if self.missed.contains(topic) {
                continue;
            }
            self.missed.push(Arc::clone(topic));
            let error = Error::from_code(code, format_args!("topic '{topic}'"));
            if is_refusal(code) {
                self.shared.tell(error);
            } else {
                tracing::warn!(%error, "subscribed topic cannot be read yet");
            }
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        let inner = self.shared.lock();
        let membership = self.membership.as_ref();
        let absent = membership
            .filter(|membership| membership.is_in() && self.end == CloseState::NotYet)
            .map(|_| {
                let absent = inner.polled_at + self.shared.config.max_poll_interval;
                absent.min(self.next_wake(inner.polled_at))
            });
        [
            membership.and_then(Membership::next_timeout),
            absent,
            // Nothing is looked up any more at the end.
            inner
                .positions
                .next_timeout()
                .filter(|_| self.end == CloseState::NotYet),
            self.next_commit.filter(|_| self.end == CloseState::NotYet),
            inner.closing.map(|closing| match self.end {
                CloseState::NotYet | CloseState::Waiting => closing.patience.min(closing.deadline),
                _ => closing.deadline,
            }),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// The first of the answers that is there; the rest stay. Cancel safe.
async fn next_answer(sender: &mut GroupSender, answers: &mut Answers) -> Answer {
    poll_fn(|cx| {
        for place in [&mut sender.under_way, &mut sender.waiting] {
            if let Some(request) = place
                && let Poll::Ready(answer) = request.as_mut().poll(cx)
            {
                *place = None;
                return Poll::Ready(answer);
            }
        }
        for index in 0..answers.len() {
            if let Poll::Ready(answer) = answers[index].as_mut().poll(cx) {
                drop(answers.swap_remove(index));
                return Poll::Ready(answer);
            }
        }
        Poll::Pending
    })
    .await
}
