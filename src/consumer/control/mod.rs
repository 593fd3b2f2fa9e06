//! The control task of one consumer: membership, offset lookups, commits, and the end.
//!
//! Invariants:
//! - Commits go out one after the other, in the order they were asked for: an older position never
//!   overtakes a newer one.
//! - A revocation is reported as complete only after the application let go (it polls again, or drops
//!   the guard) and what it has finished is committed.
//! - The end is bounded: whatever hangs, the tasks stop at the deadline.

mod commits;
mod lookups;
mod membership;

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use indexmap::IndexMap;
use tokio::time::sleep_until;

pub(super) use self::commits::to_commit;
use self::commits::{Pending, Purpose};
use self::membership::Heart;
use super::fetcher;
use super::group::kip848::{HeartbeatAnswer, Membership, Settings, Subscription, Token};
use super::offsets::{Found, Lookup, ToCommit};
use super::pattern::{Matching, TopicPattern};
use super::positions::{PartEpoch, ResetAsk};
use super::shared::{Closing, Shared};
use crate::clock::{Instant, now};
use crate::cluster::snapshot::{Listed, is_refusal};
use crate::cluster::{AllTopics, Changes, Interest, Snapshot};
use crate::error::{Error, Result};
use crate::types::TopicPartition;

/// What the consumer reads.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    Topics(Vec<Arc<str>>),
    Pattern(TopicPattern),
    Partitions(Vec<TopicPartition>),
}

impl Wanted {
    /// The topics that are known by their names.
    fn topics(&self) -> Vec<Arc<str>> {
        let mut topics: Vec<Arc<str>> = match self {
            Self::Topics(topics) => topics.clone(),
            Self::Pattern(_) => Vec::new(),
            Self::Partitions(parts) => parts.iter().map(|tp| Arc::clone(&tp.topic)).collect(),
        };
        topics.sort_unstable();
        topics.dedup();
        topics
    }
}

/// Something that was waited for.
enum Answer {
    Heartbeat(Token, Result<HeartbeatAnswer>),
    Committed(
        Vec<(TopicPartition, PartEpoch)>,
        Result<BTreeMap<TopicPartition, Lookup>>,
    ),
    Listed(
        Vec<ResetAsk>,
        Result<IndexMap<TopicPartition, Result<Found, i16>>>,
    ),
    Commit(Purpose, Vec<ToCommit>, Duration, Result<()>),
    Exists(Option<Error>),
}

type Answers = Vec<Pin<Box<dyn Future<Output = Answer> + Send>>>;

pub(super) async fn run(shared: Arc<Shared>, wanted: Wanted) {
    let control = Control::new(Arc::clone(&shared), wanted);
    control.run().await;
    fetcher::end_sessions(&shared).await;
    // Ends the fetch tasks and this one.
    shared.tasks.stop();
    shared.ready.notify_waiters();
}

struct Control {
    shared: Arc<Shared>,
    group: Option<Arc<str>>,
    wanted: Wanted,
    interest: Interest,
    /// Topics of earlier subscriptions, as long as partitions of them are assigned.
    former: Option<Interest>,
    /// For subscriptions by pattern, and the topics that were matched last.
    all: Option<AllTopics>,
    matched: Option<Arc<[Listed]>>,
    /// The existence of assigned partitions is being looked at; true: and is to be, again.
    checking: Option<bool>,
    changes: Changes,
    membership: Option<Membership>,
    heart: Heart,
    answers: Answers,
    commits: VecDeque<Pending>,
    committing: bool,
    next_commit: Option<Instant>,
    /// The revocation under way: its partitions, and whether its commit was made.
    revoking: Option<Revoking>,
    revocations: u64,
    /// Topics of whose absence there was a word in the log.
    missed: Vec<Arc<str>>,
    end: End,
}

struct Revoking {
    id: u64,
    partitions: Vec<TopicPartition>,
    committing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotYet,
    Committing,
    Leaving,
    Over,
}

impl Control {
    fn new(shared: Arc<Shared>, wanted: Wanted) -> Self {
        let config = &shared.config;
        let group: Option<Arc<str>> = config.group_id.as_deref().map(Arc::from);
        let changes = shared.cluster.changes();
        let interest = shared.cluster.watch(&[], false);
        let membership = match wanted {
            Wanted::Topics(_) | Wanted::Pattern(_) => {
                let client = shared.cluster.config();
                let settings = Settings {
                    instance_id: config.group_instance_id.as_deref().map(Arc::from),
                    rack: config.client_rack.as_deref().map(Arc::from),
                    assignor: config.group_remote_assignor.as_deref().map(Arc::from),
                    rebalance_timeout: config.max_poll_interval,
                    backoff: client.retry_backoff,
                    backoff_max: client.retry_backoff_max,
                };
                let id =
                    uuid::Builder::from_random_bytes(shared.cluster.clock().bits().to_be_bytes());
                Some(Membership::new(settings, id.into_uuid().to_string().into()))
            }
            Wanted::Partitions(_) => None,
        };
        let auto_commit = config.auto_commit && group.is_some();
        let next_commit = auto_commit.then(|| now() + config.auto_commit_interval);
        Self {
            group,
            wanted,
            interest,
            former: None,
            all: None,
            matched: None,
            checking: None,
            changes,
            membership,
            heart: Heart::default(),
            answers: Vec::new(),
            commits: VecDeque::new(),
            committing: false,
            next_commit,
            revoking: None,
            revocations: 0,
            missed: Vec::new(),
            end: End::NotYet,
            shared,
        }
    }

    async fn run(mut self) {
        self.want(self.wanted.clone(), now());
        let snapshot = self.shared.cluster.snapshot();
        self.shared.follow(&snapshot);
        loop {
            self.work();
            if self.end == End::Over {
                return;
            }
            let timeout = self.next_timeout();
            let shared = Arc::clone(&self.shared);
            let wish = pin!(shared.control.notified());
            tokio::select! {
                biased;
                answer = next_answer(&mut self.heart, &mut self.answers) => self.take(answer),
                snapshot = self.changes.changed() => self.follow(&snapshot),
                () = wish => {}
                () = sleep_at(timeout) => {}
            }
        }
    }

    /// Does everything that can be done now.
    fn work(&mut self) {
        let time = now();
        let rewanted = self.shared.lock().rewanted.take();
        if let Some(wanted) = rewanted {
            self.want(wanted, time);
        }
        self.take_wishes(time);
        self.presence(time);
        self.revocation(time);
        self.closing(time);
        // Commits that need no request end at once, and the membership goes on from there.
        self.commit(time);
        self.membership(time);
        self.lookups(time);
        self.fetchers();
    }

    /// Other topics or partitions, as the application wants.
    fn want(&mut self, wanted: Wanted, time: Instant) {
        self.missed.clear();
        self.matched = None;
        self.all = matches!(wanted, Wanted::Pattern(_)).then(|| self.shared.cluster.watch_all());
        self.wanted = wanted;
        if let Wanted::Pattern(pattern) = &self.wanted {
            if let Matching::Broker(regex) = pattern.matching() {
                let subscription = Subscription::Regex(Arc::clone(regex));
                if let Some(membership) = &mut self.membership {
                    membership.subscribe(time, subscription);
                }
            }
            self.match_topics(&self.shared.cluster.snapshot());
            return;
        }
        let topics = self.wanted.topics();
        self.take_interest(&topics, self.shared.config.allow_auto_create_topics);
        match &mut self.membership {
            Some(membership) => membership.subscribe(time, Subscription::Names(topics)),
            None => self.check_existence(),
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
        let (Wanted::Pattern(pattern), Some(all), Some(membership)) =
            (&self.wanted, &snapshot.all, &mut self.membership)
        else {
            return;
        };
        let seen = self
            .matched
            .as_ref()
            .is_some_and(|seen| Arc::ptr_eq(seen, all));
        if seen && matches!(pattern.matching(), Matching::Client(_)) {
            return;
        }
        self.matched = Some(Arc::clone(all));
        let internal = !self.shared.config.exclude_internal_topics;
        let of = |listed: &&Listed| match pattern.matching() {
            Matching::Client(regex) => {
                (internal || !listed.internal) && regex.is_match(&listed.name)
            }
            // The broker matches and tells ids.
            Matching::Broker(_) => membership.knows(listed.id),
        };
        let matched = all.iter().filter(of);
        let matched: Vec<_> = matched.map(|listed| Arc::clone(&listed.name)).collect();
        if matches!(pattern.matching(), Matching::Client(_)) {
            membership.subscribe(now(), Subscription::Names(matched.clone()));
        }
        if !self.interest.is(&matched) {
            tracing::debug!(?matched, "topics of the pattern");
            // They exist; a topic that is deleted is not to come back because somebody asked for it.
            self.take_interest(&matched, false);
        }
    }

    /// Looks after assigned partitions that do not exist, once at a time.
    fn check_existence(&mut self) {
        if let Some(again) = &mut self.checking {
            *again = true;
        } else if let Wanted::Partitions(parts) = &self.wanted {
            self.checking = Some(false);
            let check = lookups::existence(Arc::clone(&self.shared), parts.clone());
            self.answers.push(Box::pin(check));
        }
    }

    fn closing(&mut self, time: Instant) {
        let Some(Closing { deadline, finished }) = self.shared.lock().closing else {
            return;
        };
        if time >= deadline {
            self.end = End::Over;
            return;
        }
        if self.end != End::NotYet {
            return;
        }
        let mut inner = self.shared.lock();
        if finished {
            inner.positions.finish();
        }
        let all: Vec<_> = inner.positions.assigned().cloned().collect();
        for tp in &all {
            inner.positions.set_revoking(tp);
        }
        drop(inner);
        self.end = End::Committing;
        self.commit_finished(Purpose::Close, deadline, |_| true);
    }

    /// The last commit is done: leaves the group.
    fn leave(&mut self) {
        self.end = End::Leaving;
        let mut inner = self.shared.lock();
        let all: Vec<_> = inner.positions.assigned().cloned().collect();
        inner.remove(&all);
        inner.revocation = None;
        drop(inner);
        self.revoking = None;
        match &mut self.membership {
            Some(membership) => membership.leave(now()),
            None => self.end = End::Over,
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
            Answer::Heartbeat(token, answer) => {
                if let Some(membership) = &mut self.membership {
                    membership.handle_heartbeat(time, token, answer);
                }
            }
            Answer::Committed(asked, found) => self.take_committed(time, &asked, found),
            Answer::Listed(asks, found) => self.take_listed(time, &asks, found),
            Answer::Commit(purpose, offsets, took, outcome) => {
                self.committing = false;
                self.shared.ledger.committed(took, outcome.is_ok());
                if !self.shared.interceptors.is_empty() {
                    let offsets = offsets
                        .iter()
                        .map(|one| (one.tp.clone(), one.offset.clone()));
                    let told = outcome.as_ref().copied();
                    self.shared
                        .interceptors
                        .on_commit(&offsets.collect::<Vec<_>>(), told);
                }
                self.committed(purpose, &offsets, outcome);
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
        match (&self.wanted, partition) {
            (Wanted::Partitions(parts), Some(tp)) => parts.contains(tp),
            _ => true,
        }
    }

    fn follow(&mut self, snapshot: &Snapshot) {
        self.shared.follow(snapshot);
        self.match_topics(snapshot);
        if self.former.is_some() && self.uncovered().is_empty() {
            self.former = None;
        }
        let Wanted::Topics(topics) = &self.wanted else {
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
            .filter(|membership| membership.is_in() && !inner.polling && self.end == End::NotYet)
            .map(|_| inner.polled_at + self.shared.config.max_poll_interval);
        [
            membership.and_then(Membership::next_timeout),
            absent,
            // Nothing is looked up any more at the end.
            inner
                .positions
                .next_timeout()
                .filter(|_| self.end == End::NotYet),
            self.next_commit.filter(|_| self.end == End::NotYet),
            inner.closing.map(|closing| closing.deadline),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

async fn sleep_at(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The first of the answers that is there; the rest stay. Cancel safe.
async fn next_answer(heart: &mut Heart, answers: &mut Answers) -> Answer {
    poll_fn(|cx| {
        if let Some(beat) = &mut heart.beat
            && let Poll::Ready(answer) = beat.as_mut().poll(cx)
        {
            heart.beat = None;
            return Poll::Ready(answer);
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
