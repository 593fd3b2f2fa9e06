//! The control task of one consumer: membership, offset lookups, commits, and the end.
//!
//! Invariants:
//! - Commits go out one after the other, in the order they were asked for: an older position never
//!   overtakes a newer one.
//! - A revocation is reported as complete only after the application let go (it polls again, or drops
//!   the guard) and what it has finished is committed.
//! - The end is bounded: whatever hangs, the tasks stop at the deadline.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use kafka_protocol::messages as kp;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use tokio::time::sleep_until;

use super::fetcher::{self, topic_name};
use super::group::kip848::{
    Effect, Heartbeat, HeartbeatAnswer, Membership, Parts, Settings, Token,
};
use super::metrics::Rebalance;
use super::offsets::{self, EARLIEST, Found, Identity, LATEST, str_bytes};
use super::positions::{PartEpoch, Position, ResetAsk, ResetTo};
use super::shared::{Closing, CommitWish, News, Shared};
use crate::clock::{Instant, now};
use crate::cluster::{Changes, Cluster, CoordinatorKey, Interest, Snapshot};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{BrokerId, OffsetAndMetadata, TopicPartition};

type Offsets = Vec<(TopicPartition, OffsetAndMetadata)>;

/// What the consumer reads.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    Topics(Vec<Arc<str>>),
    Partitions(Vec<TopicPartition>),
}

impl Wanted {
    fn topics(&self) -> Vec<Arc<str>> {
        let mut topics: Vec<Arc<str>> = match self {
            Self::Topics(topics) => topics.clone(),
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
        Result<BTreeMap<TopicPartition, OffsetAndMetadata>>,
    ),
    Listed(
        Vec<ResetAsk>,
        Result<indexmap::IndexMap<TopicPartition, Result<Found, i16>>>,
    ),
    Commit(Purpose, Offsets, Duration, Result<()>),
    Exists(Option<Error>),
}

/// Why a commit is made, and who waits for it.
enum Purpose {
    Application(tokio::sync::oneshot::Sender<Result<()>>),
    Interval,
    Revocation(u64),
    Close,
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
    /// Interests of earlier subscriptions, until their partitions are given up.
    former: Vec<Interest>,
    /// The existence of assigned partitions is being looked at; true: and is to be, again.
    checking: Option<bool>,
    changes: Changes,
    membership: Option<Membership>,
    answers: Answers,
    commits: VecDeque<(Purpose, Offsets, Instant)>,
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
        let topics = wanted.topics();
        let changes = shared.cluster.changes();
        let interest = shared
            .cluster
            .watch(&topics, config.allow_auto_create_topics);
        let membership = match wanted {
            Wanted::Topics(_) => {
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
                let mut membership = Membership::new(settings, id.into_uuid().to_string().into());
                membership.subscribe(now(), topics);
                Some(membership)
            }
            Wanted::Partitions(_) => None,
        };
        let auto_commit = config.auto_commit && group.is_some();
        let next_commit = auto_commit.then(|| now() + config.auto_commit_interval);
        Self {
            group,
            wanted,
            interest,
            former: Vec::new(),
            checking: None,
            changes,
            membership,
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
        self.check_existence();
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
                answer = next_answer(&mut self.answers) => self.take(answer),
                snapshot = self.changes.changed() => self.follow(&snapshot),
                () = wish => {}
                () = sleep_at(timeout) => {}
            }
        }
    }

    /// Does everything that can be done now.
    fn work(&mut self) {
        let time = now();
        self.wishes(time);
        self.presence(time);
        self.revocation(time);
        self.closing(time);
        // Commits that need no request end at once, and the membership goes on from there.
        self.commit(time);
        self.membership(time);
        self.lookups(time);
        self.fetchers(time);
    }

    /// Other topics or partitions, as the application wants.
    fn want(&mut self, wanted: Wanted, time: Instant) {
        let topics = wanted.topics();
        let cluster = &self.shared.cluster;
        let interest = cluster.watch(&topics, self.shared.config.allow_auto_create_topics);
        let former = std::mem::replace(&mut self.interest, interest);
        if self.membership.is_some() {
            self.former.push(former);
        }
        self.missed.clear();
        self.wanted = wanted;
        match &mut self.membership {
            Some(membership) => membership.subscribe(time, topics),
            None => self.check_existence(),
        }
    }

    /// Looks after assigned partitions that do not exist, once at a time.
    fn check_existence(&mut self) {
        if let Some(again) = &mut self.checking {
            *again = true;
        } else if let Wanted::Partitions(parts) = &self.wanted {
            self.checking = Some(false);
            let check = existence(Arc::clone(&self.shared), parts.clone());
            self.answers.push(Box::pin(check));
        }
    }

    fn wishes(&mut self, time: Instant) {
        let rewanted = self.shared.lock().rewanted.take();
        if let Some(wanted) = rewanted {
            self.want(wanted, time);
        }
        let mut inner = self.shared.lock();
        for CommitWish {
            offsets,
            deadline,
            reply,
        } in inner.commits.drain(..)
        {
            self.commits
                .push_back((Purpose::Application(reply), offsets, deadline));
        }
        let due = self.next_commit.filter(|at| *at <= time);
        if due.is_some() && self.end == End::NotYet {
            let offsets = to_commit(inner.positions.uncommitted());
            self.next_commit = Some(time + self.shared.config.auto_commit_interval);
            if !offsets.is_empty() && !self.committing {
                let deadline = time + self.shared.cluster.config().api_timeout;
                self.commits
                    .push_back((Purpose::Interval, offsets, deadline));
            }
        }
    }

    /// Leaves the group when the application does not poll, comes back when it does.
    fn presence(&mut self, time: Instant) {
        let (Some(membership), End::NotYet) = (&mut self.membership, self.end) else {
            return;
        };
        let inner = self.shared.lock();
        let (polling, last) = (inner.polling, inner.polled_at);
        drop(inner);
        let absent = !polling && time >= last + self.shared.config.max_poll_interval;
        if absent && membership.is_in() {
            tracing::warn!(
                group = self.group.as_deref(),
                "no poll within max.poll.interval.ms: leaving the group until the next poll"
            );
            membership.absent(time);
        } else if !absent {
            membership.resume(time);
        }
    }

    fn revocation(&mut self, time: Instant) {
        let Some(revoking) = &mut self.revoking else {
            return;
        };
        let inner = self.shared.lock();
        let released = inner.revocation == Some((revoking.id, true));
        if !released || revoking.committing {
            return;
        }
        let mut offsets = match self.next_commit {
            Some(_) => to_commit(inner.positions.uncommitted()),
            None => Vec::new(),
        };
        offsets.retain(|(tp, _)| revoking.partitions.contains(tp));
        drop(inner);
        if offsets.is_empty() {
            self.revoked();
        } else {
            revoking.committing = true;
            let deadline = time + self.shared.cluster.config().request_timeout;
            self.commits
                .push_back((Purpose::Revocation(revoking.id), offsets, deadline));
        }
    }

    /// The revocation is complete.
    fn revoked(&mut self) {
        let Some(revoking) = self.revoking.take() else {
            return;
        };
        let mut inner = self.shared.lock();
        inner.remove(&revoking.partitions);
        inner.revocation = None;
        drop(inner);
        self.former.clear();
        self.shared.fetchable.notify_waiters();
        if let Some(membership) = &mut self.membership {
            membership.revoked();
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
        let offsets = match self.next_commit {
            Some(_) => to_commit(inner.positions.uncommitted()),
            None => Vec::new(),
        };
        let all: Vec<_> = inner.positions.assigned().cloned().collect();
        for tp in &all {
            inner.positions.set_revoking(tp);
        }
        drop(inner);
        self.end = End::Committing;
        self.commits.push_back((Purpose::Close, offsets, deadline));
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

    fn membership(&mut self, time: Instant) {
        let snapshot = self.shared.cluster.snapshot();
        while let Some(effect) = self.membership.as_mut().and_then(|membership| {
            membership.poll(time, |id| {
                snapshot
                    .topic_by_id(id)
                    .map(|topic| Arc::clone(&topic.name))
            })
        }) {
            self.carry_out(effect, &snapshot);
        }
        if let Some(membership) = &self.membership {
            self.shared.lock().member = membership.member();
        }
    }

    fn carry_out(&mut self, effect: Effect, snapshot: &Snapshot) {
        match effect {
            Effect::Call(token, heartbeat) => {
                let shared = Arc::clone(&self.shared);
                self.answers.push(Box::pin(async move {
                    let answer = beat(&shared, &heartbeat).await;
                    Answer::Heartbeat(token, answer)
                }));
            }
            Effect::Revoke(partitions) => {
                let count = partitions.len();
                tracing::info!(
                    group = self.group.as_deref(),
                    count,
                    ?partitions,
                    "revoking"
                );
                self.shared.ledger.rebalanced(Rebalance::Revoked);
                self.revocations += 1;
                let id = self.revocations;
                let mut inner = self.shared.lock();
                for tp in &partitions {
                    inner.positions.set_revoking(tp);
                }
                inner
                    .events
                    .push_back(News::Revoking(id, partitions.clone()));
                inner.revocation = Some((id, false));
                drop(inner);
                self.revoking = Some(Revoking {
                    id,
                    partitions,
                    committing: false,
                });
                self.shared.ready.notify_waiters();
            }
            Effect::Assign(partitions) => {
                let names: Vec<_> = partitions.iter().map(|(tp, _)| tp.clone()).collect();
                let count = names.len();
                tracing::info!(group = self.group.as_deref(), count, partitions = ?names, "assigned");
                self.shared.ledger.rebalanced(Rebalance::Assigned);
                let mut inner = self.shared.lock();
                inner.positions.assign(partitions);
                inner.events.push_back(News::Assigned(names));
                drop(inner);
                self.shared.follow(snapshot);
            }
            Effect::Lost(partitions) => {
                let count = partitions.len();
                tracing::warn!(group = self.group.as_deref(), count, ?partitions, "lost");
                self.shared.ledger.rebalanced(Rebalance::Lost);
                self.revoking = None;
                self.former.clear();
                let mut inner = self.shared.lock();
                inner.remove(&partitions);
                inner.revocation = None;
                inner
                    .events
                    .retain(|news| !matches!(news, News::Revoking(..)));
                inner.events.push_back(News::Lost(partitions));
                drop(inner);
                self.shared.ready.notify_waiters();
            }
            Effect::Fail(error) if error.is_fatal() => {
                self.shared.lock().fatal.get_or_insert(error);
                self.shared.ready.notify_waiters();
            }
            Effect::Fail(error) => self.shared.tell(error),
            Effect::RefreshMetadata => self.shared.cluster.refresh(),
            Effect::ForgetCoordinator => {}
            Effect::Left => {
                if self.end == End::Leaving {
                    self.end = End::Over;
                }
            }
        }
    }

    fn lookups(&mut self, time: Instant) {
        if self.end != End::NotYet {
            return;
        }
        let mut inner = self.shared.lock();
        let wanted = match self.group {
            Some(_) => inner.positions.wanted_committed(time),
            None => Vec::new(),
        };
        let resets = inner.positions.wanted_resets(time);
        if let Some(error) = inner.positions.untold() {
            inner.tell(error);
            self.shared.ready.notify_waiters();
        }
        drop(inner);
        if let (false, Some(identity)) = (wanted.is_empty(), self.identity()) {
            let cluster = self.shared.cluster.clone();
            self.answers.push(Box::pin(async move {
                let partitions: Vec<_> = wanted.iter().map(|(tp, _)| tp.clone()).collect();
                let deadline = now() + cluster.config().request_timeout;
                let found =
                    offsets::committed_once(&cluster, &identity, &partitions, deadline).await;
                Answer::Committed(wanted, found)
            }));
        }
        let mut by_leader: BTreeMap<BrokerId, Vec<ResetAsk>> = BTreeMap::new();
        for ask in resets {
            by_leader.entry(ask.leader.broker).or_default().push(ask);
        }
        for (broker, asks) in by_leader {
            let shared = Arc::clone(&self.shared);
            self.answers.push(Box::pin(async move {
                let wall = shared.cluster.clock().wall_millis();
                let asked: Vec<_> = asks
                    .iter()
                    .map(|ask| (ask.tp.clone(), ask.leader.epoch, timestamp(ask.to, wall)))
                    .collect();
                let deadline = now() + shared.cluster.config().request_timeout;
                let level = shared.config.isolation;
                let found = offsets::list_once(&shared, broker, &asked, level, deadline).await;
                Answer::Listed(asks, found)
            }));
        }
    }

    fn identity(&self) -> Option<Identity> {
        let member = self.shared.lock().member.clone();
        self.group.as_ref().map(|group| Identity {
            group: Arc::clone(group),
            instance_id: self
                .shared
                .config
                .group_instance_id
                .as_deref()
                .map(Arc::from),
            member,
        })
    }

    fn commit(&mut self, time: Instant) {
        while !self.committing {
            let Some((purpose, offsets, deadline)) = self.commits.pop_front() else {
                return;
            };
            if offsets.is_empty() || self.group.is_none() {
                self.committed(purpose, &[], Ok(()));
                continue;
            }
            if let Purpose::Application(reply) = &purpose
                && reply.is_closed()
                && deadline < time
            {
                continue;
            }
            self.committing = true;
            let shared = Arc::clone(&self.shared);
            let Some(identity) = self.identity() else {
                continue;
            };
            let subscribed = self.membership.is_some();
            self.answers.push(Box::pin(async move {
                let who = || {
                    let member = shared.lock().member.clone();
                    if subscribed && member.is_none() {
                        // Without an id a broker takes it for an administrator's, if nobody else is in the group now.
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

    fn committed(
        &mut self,
        purpose: Purpose,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        outcome: Result<()>,
    ) {
        if outcome.is_ok() {
            let mut inner = self.shared.lock();
            for (tp, offset) in offsets {
                inner.positions.note_committed(tp, offset.offset);
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
                if self
                    .revoking
                    .as_ref()
                    .is_some_and(|revoking| revoking.id == id)
                {
                    self.revoked();
                }
            }
            Purpose::Close => {
                if let Err(error) = outcome {
                    tracing::warn!(%error, "last commit failed; records will be read again");
                }
                self.leave();
            }
        }
    }

    fn fetchers(&mut self, time: Instant) {
        let mut inner = self.shared.lock();
        let new: Vec<_> = inner
            .positions
            .brokers(time)
            .into_iter()
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
                let told = outcome.as_ref().copied();
                self.shared.interceptors.on_commit(&offsets, told);
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

    fn take_committed(
        &mut self,
        time: Instant,
        asked: &[(TopicPartition, PartEpoch)],
        found: Result<BTreeMap<TopicPartition, OffsetAndMetadata>>,
    ) {
        let mut inner = self.shared.lock();
        match found {
            Ok(found) => {
                for (tp, epoch) in asked {
                    let error = inner.positions.committed_found(tp, *epoch, found.get(tp));
                    if let Some(error) = error {
                        inner.tell(error);
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%error, "committed offsets not found yet");
                for (tp, epoch) in asked {
                    let trouble = Some(error.clone());
                    inner.positions.lookup_failed(tp, *epoch, trouble, time);
                }
                if !error.is_retriable() && error.kind() == ErrorKind::Authorization {
                    inner.tell(error);
                }
            }
        }
        drop(inner);
        self.shared.fetchable.notify_waiters();
        self.shared.ready.notify_waiters();
    }

    fn take_listed(
        &mut self,
        time: Instant,
        asks: &[ResetAsk],
        found: Result<indexmap::IndexMap<TopicPartition, Result<Found, i16>>>,
    ) {
        let (found, trouble) = match found {
            Ok(found) => (found, None),
            Err(error) => (indexmap::IndexMap::new(), Some(error)),
        };
        let mut refresh = false;
        let mut inner = self.shared.lock();
        for ask in asks {
            match found.get(&ask.tp) {
                Some(Ok(at)) => {
                    let at = Position {
                        offset: at.offset,
                        leader_epoch: at.leader_epoch,
                    };
                    inner.positions.reset_found(&ask.tp, ask.epoch, at);
                }
                Some(Err(code)) => {
                    refresh = true;
                    let error = Error::from_code(*code, "looking up where to start");
                    let trouble = Some(error.clone());
                    inner
                        .positions
                        .lookup_failed(&ask.tp, ask.epoch, trouble, time);
                    if !error.is_retriable() {
                        inner.tell(error.with_topic_partition(ask.tp.clone()));
                    }
                }
                None => {
                    refresh = true;
                    inner
                        .positions
                        .lookup_failed(&ask.tp, ask.epoch, trouble.clone(), time);
                }
            }
        }
        drop(inner);
        if refresh {
            self.shared.cluster.refresh();
        }
        self.shared.fetchable.notify_waiters();
        self.shared.ready.notify_waiters();
    }

    fn follow(&mut self, snapshot: &Snapshot) {
        self.shared.follow(snapshot);
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
            if error.is_retriable() {
                tracing::warn!(%error, "subscribed topic cannot be read yet");
            } else {
                self.shared.tell(error);
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

fn to_commit(positions: Vec<(TopicPartition, Position)>) -> Offsets {
    let positions = positions.into_iter();
    positions.map(|(tp, at)| (tp, at.to_commit())).collect()
}

fn timestamp(to: ResetTo, wall_millis: i64) -> i64 {
    match to {
        ResetTo::Earliest => EARLIEST,
        ResetTo::Latest => LATEST,
        ResetTo::Ago(age) => {
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            wall_millis.saturating_sub(age).max(0)
        }
    }
}

async fn sleep_at(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The first of the answers that is there; the rest stay. Cancel safe.
async fn next_answer(answers: &mut Answers) -> Answer {
    poll_fn(|cx| {
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

/// Whether assigned partitions exist, after the time that a call may take.
async fn existence(shared: Arc<Shared>, partitions: Vec<TopicPartition>) -> Answer {
    let cluster = &shared.cluster;
    let deadline = now() + cluster.config().api_timeout;
    for tp in partitions {
        let create = shared.config.allow_auto_create_topics;
        match cluster.topic(&tp.topic, create, deadline).await {
            Ok(topic) => {
                let number = usize::try_from(tp.partition).ok();
                if number.is_none_or(|number| number >= topic.partitions.len()) {
                    let error = offsets::no_partition(&tp, topic.partitions.len());
                    // More partitions may be added; until then it is said now and then.
                    sleep_until(deadline).await;
                    return Answer::Exists(Some(error));
                }
            }
            Err(error) => {
                if now() < deadline {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                return Answer::Exists(Some(error.with_topic_partition(tp)));
            }
        }
    }
    Answer::Exists(None)
}

async fn beat(shared: &Shared, heartbeat: &Heartbeat) -> Result<HeartbeatAnswer> {
    let group = shared.config.group_id.as_deref().unwrap_or_default();
    let cluster: &Cluster = &shared.cluster;
    let deadline = now() + cluster.config().request_timeout;
    let build = |version| Ok(message(group, heartbeat, version));
    let (broker, response) = offsets::ask_coordinator::<kp::ConsumerGroupHeartbeatRequest>(
        cluster, group, deadline, build,
    )
    .await?;
    let code = response.error_code;
    if crate::error::classify::classify(code).refresh
        == crate::error::classify::Refresh::Coordinator
    {
        cluster.forget_coordinator(CoordinatorKey::Group(group), broker);
    }
    let interval = u64::try_from(response.heartbeat_interval_ms).unwrap_or(0);
    let assignment = response.assignment.map(|assignment| {
        let topics = assignment.topic_partitions.into_iter();
        topics
            .map(|topic| (topic.topic_id, topic.partitions.into_iter().collect()))
            .collect::<Parts>()
    });
    Ok(HeartbeatAnswer {
        code,
        message: response.error_message.map(|text| text.to_string()),
        member_id: response.member_id.map(|id| Arc::from(id.as_str())),
        member_epoch: response.member_epoch,
        interval: Duration::from_millis(interval),
        assignment,
    })
}

fn message(group: &str, beat: &Heartbeat, version: i16) -> kp::ConsumerGroupHeartbeatRequest {
    let millis = |time: Duration| i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
    // In version 0 the broker chooses the id.
    let member_id = match version {
        0 if !beat.id_confirmed => "",
        _ => &beat.member_id,
    };
    let owned = beat.owned.as_ref().map(|owned| {
        let owned = owned.iter().map(|(id, partitions)| {
            TopicPartitions::default()
                .with_topic_id(*id)
                .with_partitions(partitions.iter().copied().collect())
        });
        owned.collect()
    });
    let topics = beat
        .topics
        .as_ref()
        .map(|topics| topics.iter().map(|name| topic_name(name)).collect());
    let text = |text: &Arc<str>| str_bytes(text);
    kp::ConsumerGroupHeartbeatRequest::default()
        .with_group_id(kp::GroupId(str_bytes(group)))
        .with_member_id(str_bytes(member_id))
        .with_member_epoch(beat.member_epoch)
        .with_instance_id(beat.instance_id.as_ref().map(text))
        .with_rack_id(beat.rack.as_ref().map(text))
        .with_rebalance_timeout_ms(beat.rebalance_timeout.map_or(-1, millis))
        .with_subscribed_topic_names(topics)
        .with_server_assignor(beat.assignor.as_ref().map(text))
        .with_topic_partitions(owned)
}
