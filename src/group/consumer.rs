//! The protocol `consumer`: heartbeats alone, the broker assigns, the member follows (KIP-848).
//!
//! A machine: it takes answers and wishes with the time they happened, and says what to do next.
//!
//! Invariants:
//! - One heartbeat is under way at a time; an answer to an older one is dropped.
//! - What the broker hears as owned is what the application has or may still be using: a partition
//!   leaves `owned` only when its revocation is complete, and is in `owned` before it is given out.
//! - Partitions to be revoked are revoked before new ones are taken, and then the broker is told at
//!   once, since others wait for it.
//! - A member that was thrown out gives up all it has before it joins again with epoch 0.
//! - Fields that the broker knows are not sent again (null means unchanged), except after a
//!   failure, when nobody knows what it heard, and once a minute: a broker tells an assignment
//!   once, unless a heartbeat has all fields, so what was damaged on its way, there or back, would
//!   stay for ever.
//! - What the broker says counts at once, as in Java's client.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use self::heartbeat::JOIN;
pub(crate) use self::heartbeat::{Heartbeat, HeartbeatAnswer, Parts};
use super::messages::{Effect, GroupRequest, MemberIdentity, Subscription, Token};
use crate::clock::Instant;
use crate::config::consumer::GroupProtocol;
use crate::error::{Class, Error};
use crate::group::GroupMembershipOperation;
use crate::types::TopicPartition;
use crate::wire::codes;

mod heartbeat;

/// With this epoch a member leaves for good.
const LEAVE: i32 = -1;
/// With this epoch a static member leaves for a while: its place is kept for the session time-out.
const LEAVE_STATIC: i32 = -2;
/// The longest pause between heartbeats: brokers allow no more unless told to
/// (`group.consumer.max.heartbeat.interval.ms`), coming earlier harms nobody, and a damaged answer
/// must not make a member forget the group.
const MAX_INTERVAL: Duration = Duration::from_secs(15);
/// So often a heartbeat has all fields in any case. It costs some hundred bytes, and nothing is
/// written because of it.
const RETELL: Duration = Duration::from_secs(60);

/// What the group protocol needs to know of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) rack: Option<Arc<str>>,
    pub(crate) assignor: Option<Arc<str>>,
    /// How long the application may take between polls, and so to give partitions up.
    pub(crate) rebalance_timeout: Duration,
    pub(crate) backoff: Duration,
    pub(crate) backoff_max: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Not a member, and does not want to be.
    Idle,
    /// Asks to be taken in.
    Joining,
    /// A member that does as the broker said, as far as it can.
    Member,
    /// A member whose application is giving these up.
    Revoking(Parts),
    /// Says good-bye; afterwards not a member.
    Leaving,
    /// Refused for good.
    Failed,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Sent {
    rack: Option<Arc<str>>,
    rebalance_timeout: Option<Duration>,
    topics: Option<Vec<Arc<str>>>,
    regex: Option<Arc<str>>,
    assignor: Option<Arc<str>>,
    owned: Option<Parts>,
}

/// The machine; see the module's documentation.
#[derive(Debug)]
pub(crate) struct Member {
    settings: Settings,
    state: State,
    member_id: Arc<str>,
    id_confirmed: bool,
    epoch: i32,
    /// How often it joined: with each time, what was lost before is somebody else's.
    life: u64,
    /// There is a subscription that the broker has not refused.
    subscribed: bool,
    topics: Vec<Arc<str>>,
    /// `None` until there is one; then empty where there is none any more.
    regex: Option<Arc<str>>,
    target: Parts,
    owned: Parts,
    names: BTreeMap<Uuid, Arc<str>>,
    /// Ids whose names metadata was asked for.
    asked_names: BTreeSet<Uuid>,
    /// The first assignment of this membership was told, though it may be empty.
    assigned_once: bool,
    sent: Sent,
    /// When everything is told again at the latest.
    retell_at: Option<Instant>,
    in_flight: Option<Token>,
    serial: u64,
    interval: Duration,
    next_heartbeat: Option<Instant>,
    sent_at: Option<Instant>,
    /// There is something to tell the broker at once.
    urgent: bool,
    /// Something changed that `reconcile` looks at.
    changed: bool,
    /// The target changed, and what is owned was not told since.
    tell_owned: bool,
    failures: u32,
    effects: VecDeque<Effect>,
}

impl Member {
    /// `member_id` is made by the client (version 1 of the heartbeat) and kept for its whole life.
    pub(crate) fn new(settings: Settings, member_id: Arc<str>) -> Self {
        Self {
            settings,
            state: State::Idle,
            member_id,
            id_confirmed: false,
            epoch: JOIN,
            life: 0,
            subscribed: false,
            topics: Vec::new(),
            regex: None,
            target: Parts::new(),
            owned: Parts::new(),
            names: BTreeMap::new(),
            asked_names: BTreeSet::new(),
            assigned_once: false,
            sent: Sent::default(),
            retell_at: None,
            in_flight: None,
            serial: 0,
            interval: Duration::ZERO,
            next_heartbeat: None,
            sent_at: None,
            urgent: false,
            changed: false,
            tell_owned: false,
            failures: 0,
            effects: VecDeque::new(),
        }
    }

    /// What is wanted from now on; joins if need be. No topic at all is a subscription, too.
    pub(crate) fn subscribe(&mut self, now: Instant, subscription: Subscription) {
        let (mut topics, regex) = match subscription {
            Subscription::Names(topics) => (topics, self.regex.as_ref().map(|_| Arc::from(""))),
            Subscription::Regex(regex) => (Vec::new(), Some(regex)),
        };
        topics.sort_unstable();
        topics.dedup();
        if (&self.topics, &self.regex) != (&topics, &regex) {
            self.topics = topics;
            self.regex = regex;
            self.urgent = true;
        }
        self.changed |= !std::mem::replace(&mut self.subscribed, true);
        self.join_if_wanted(now);
    }

    /// There is news about topics.
    pub(crate) fn metadata_changed(&mut self) {
        self.changed = true;
    }

    /// Whether partitions of the topic are assigned, or to be.
    pub(crate) fn knows(&self, topic: Uuid) -> bool {
        self.target.contains_key(&topic) || self.owned.contains_key(&topic)
    }

    /// Which membership this is: another one has lost all that this one had.
    pub(crate) fn life(&self) -> u64 {
        self.life
    }

    /// The coordinator does not serve this protocol any more: what is to be told before another
    /// membership begins.
    pub(crate) fn end(&mut self) -> VecDeque<Effect> {
        self.lose_all();
        std::mem::take(&mut self.effects)
    }

    /// The application polls again after it was absent too long: joins again.
    pub(crate) fn resume(&mut self, now: Instant) {
        self.join_if_wanted(now);
    }

    fn join_if_wanted(&mut self, now: Instant) {
        if self.state == State::Idle && self.subscribed {
            self.join(now);
        }
    }

    /// The application did not poll in time: leaves, so that others can have its partitions.
    pub(crate) fn absent(&mut self, now: Instant) {
        if self.is_in() {
            self.lose_all();
            self.leave(now, GroupMembershipOperation::Default);
        }
    }

    /// The application unsubscribed: nothing is taken in or given up any more, nor joined again.
    /// `leave` is to follow when what is owned was given up; whether there is any.
    pub(crate) fn retire(&mut self) -> bool {
        self.subscribed = false;
        self.is_in() && !self.owned.is_empty()
    }

    /// Leaves, and says by [`Effect::Left`] when that is over. The partitions must have been given
    /// up before.
    pub(crate) fn leave(&mut self, now: Instant, operation: GroupMembershipOperation) {
        if self.state == State::Leaving {
            return;
        }
        let unheard_of = self.state == State::Joining && self.serial == 0;
        let is_static = self.settings.instance_id.is_some();
        let silent = operation == GroupMembershipOperation::RemainInGroup && !is_static;
        self.target.clear();
        self.owned.clear();
        if !self.is_in() || unheard_of || silent {
            self.state = match self.state {
                State::Failed => State::Failed,
                _ => State::Idle,
            };
            self.effects.push_back(Effect::Left);
            return;
        }
        self.state = State::Leaving;
        // One that leaves for good is known by its name all the same (KIP-1092).
        let for_good = operation == GroupMembershipOperation::LeaveGroup || !is_static;
        self.epoch = if for_good { LEAVE } else { LEAVE_STATIC };
        self.call(now, Sent::default());
    }

    /// The revocation asked for by [`Effect::Revoke`] is complete.
    pub(crate) fn revoked(&mut self) {
        // Else the membership has ended meanwhile, and with it what was to be given up.
        if let State::Revoking(given_up) = &self.state {
            subtract(&mut self.owned, given_up);
            self.state = State::Member;
            self.urgent = true;
            self.changed = true;
        }
    }

    pub(crate) fn is_revoking(&self) -> bool {
        matches!(self.state, State::Revoking(_))
    }

    /// Whether the member wants to be heard of: joining, in, or leaving.
    pub(crate) fn is_in(&self) -> bool {
        matches!(
            self.state,
            State::Joining | State::Member | State::Revoking(_)
        )
    }

    /// The id and epoch to commit with, while there is a valid epoch.
    pub(crate) fn identity(&self) -> Option<MemberIdentity> {
        let valid = self.epoch > 0 && self.is_in();
        valid.then(|| MemberIdentity {
            protocol: GroupProtocol::Consumer,
            id: Arc::clone(&self.member_id),
            epoch: self.epoch,
        })
    }

    /// An answer, or the failure to get one, to the heartbeat of that token.
    pub(crate) fn handle_heartbeat(
        &mut self,
        now: Instant,
        token: Token,
        answer: Result<HeartbeatAnswer, Error>,
    ) {
        if self.in_flight != Some(token) {
            return;
        }
        self.in_flight = None;
        if self.state == State::Leaving {
            // Whatever came of it: the session time-out does the rest.
            self.state = State::Idle;
            self.effects.push_back(Effect::Left);
            return;
        }
        match answer {
            Ok(answer) if answer.code != codes::NONE => self.refused(now, &answer),
            // No member has such an epoch: the answer is damaged.
            Ok(answer) if answer.member_epoch <= JOIN => self.retry(now),
            Ok(answer) => self.heard(now, answer),
            Err(error) if error.is_retriable() => self.retry(now),
            Err(error) => self.fail(error),
        }
    }

    fn heard(&mut self, now: Instant, answer: HeartbeatAnswer) {
        self.failures = 0;
        self.interval = answer
            .interval
            .clamp(Duration::from_millis(1), MAX_INTERVAL);
        self.next_heartbeat = Some(self.sent_at.unwrap_or(now) + self.interval);
        if let Some(id) = answer.member_id.filter(|id| !id.is_empty()) {
            self.member_id = id;
        }
        self.id_confirmed = true;
        self.epoch = answer.member_epoch;
        if self.state == State::Joining {
            self.state = State::Member;
            self.changed = true;
        }
        // Names that are missing are asked for again.
        self.changed |= !self.asked_names.is_empty();
        if let Some(target) = answer.assignment.filter(|target| *target != self.target) {
            self.changed = true;
            self.tell_owned = true;
            self.urgent |= target == self.owned;
            self.target = target;
        }
        self.asked_names.clear();
    }

    fn refused(&mut self, now: Instant, answer: &HeartbeatAnswer) {
        let error = || {
            let doing = match &answer.message {
                Some(message) => format!("heartbeat to the group ({message})"),
                None => "heartbeat to the group".to_owned(),
            };
            Error::from_code(answer.code, doing)
        };
        match answer.code {
            codes::FENCED_MEMBER_EPOCH | codes::UNKNOWN_MEMBER_ID | codes::GROUP_ID_NOT_FOUND
                if !self.subscribed =>
            {
                // It was about to leave.
                self.lose_all();
                self.state = State::Idle;
            }
            // A coordinator that has lost the group (its log was cut) takes whoever joins.
            codes::FENCED_MEMBER_EPOCH | codes::UNKNOWN_MEMBER_ID | codes::GROUP_ID_NOT_FOUND
                if !crate::planted("thrown-out-for-good") =>
            {
                tracing::info!(member = %self.member_id, code = answer.code, "thrown out of the group; joining again");
                self.lose_all();
                if answer.code == codes::GROUP_ID_NOT_FOUND
                    && self.epoch == JOIN
                    && self.failures == 0
                {
                    let message = "the group has classic members that the broker does not convert \
                                   (group.consumer.migration.policy): use group.protocol=auto";
                    let error = Error::from_code(answer.code, message);
                    self.effects.push_back(Effect::Fail(error));
                }
                // At once the first time, and then with growing pauses.
                let pause = match self.failures {
                    0 => Duration::ZERO,
                    failures => self.back_off(failures - 1),
                };
                self.failures += 1;
                self.join(now);
                self.next_heartbeat = Some(now + pause);
            }
            // The shell looks for another coordinator.
            codes::NOT_COORDINATOR
            | codes::COORDINATOR_NOT_AVAILABLE
            | codes::COORDINATOR_LOAD_IN_PROGRESS
            | codes::REQUEST_TIMED_OUT
            | codes::NETWORK_EXCEPTION
            | codes::UNKNOWN_SERVER_ERROR => self.retry(now),
            codes::TOPIC_AUTHORIZATION_FAILED => {
                // May be allowed later: stays in line, tells the application.
                self.effects.push_back(Effect::Fail(error()));
                self.retry(now);
                let slow = now + self.settings.backoff_max;
                self.next_heartbeat = self.next_heartbeat.map(|next| next.max(slow));
            }
            // Who subscribes to no pattern is not meant by this.
            codes::INVALID_REGULAR_EXPRESSION
                if self.regex.as_ref().is_none_or(|regex| regex.is_empty()) =>
            {
                self.retry(now);
            }
            codes::INVALID_REGULAR_EXPRESSION => {
                // The caller's to mend, by another subscription.
                self.effects.push_back(Effect::Fail(error()));
                self.subscribed = false;
                self.lose_all();
                match self.epoch {
                    JOIN => self.state = State::Idle,
                    _ => self.leave(now, GroupMembershipOperation::Default),
                }
            }
            _ => self.fail(error()),
        }
    }

    fn retry(&mut self, now: Instant) {
        self.sent = Sent::default();
        self.next_heartbeat = Some(now + self.back_off(self.failures));
        self.failures = self.failures.saturating_add(1);
    }

    fn back_off(&self, failures: u32) -> Duration {
        let factor = 1_u32 << failures.min(16);
        let pause = self.settings.backoff.saturating_mul(factor);
        pause.min(self.settings.backoff_max)
    }

    fn fail(&mut self, error: Error) {
        self.lose_all();
        self.state = State::Failed;
        self.next_heartbeat = None;
        self.effects
            .push_back(Effect::Fail(error.with_class(Class::Fatal)));
    }

    fn join(&mut self, now: Instant) {
        self.state = State::Joining;
        self.epoch = JOIN;
        self.life += 1;
        self.target.clear();
        self.owned.clear();
        self.assigned_once = false;
        self.sent = Sent::default();
        self.in_flight = None;
        self.next_heartbeat = Some(now);
    }

    fn lose_all(&mut self) {
        let lost: Vec<_> = self
            .named(&self.owned)
            .into_iter()
            .map(|(tp, _)| tp)
            .collect();
        if !lost.is_empty() {
            self.effects.push_back(Effect::Lost(lost));
        }
        self.owned.clear();
        self.target.clear();
        if self.is_revoking() {
            self.state = State::Member;
        }
    }

    /// What to do next; call until `None`. `names` is metadata.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        names: impl Fn(Uuid) -> Option<Arc<str>>,
    ) -> Option<Effect> {
        let reconciles = self.state == State::Member && self.subscribed;
        if self.effects.is_empty() && reconciles && std::mem::take(&mut self.changed) {
            self.reconcile(names);
        }
        if self.effects.is_empty() {
            self.heartbeat_if_due(now);
        }
        self.effects.pop_front()
    }

    /// When `poll` has something to do without anything else happening.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let waits = self.in_flight.is_none() && self.is_in();
        self.next_heartbeat.filter(|_| waits)
    }

    /// Goes one step from what is owned towards what the broker wants.
    fn reconcile(&mut self, names: impl Fn(Uuid) -> Option<Arc<str>>) {
        let mut wanted = Parts::new();
        let mut unknown = BTreeSet::new();
        for (id, parts) in &self.target {
            if let Some(name) = self.names.get(id).cloned().or_else(|| names(*id)) {
                self.names.insert(*id, name);
                wanted.insert(*id, parts.clone());
            } else {
                unknown.insert(*id);
            }
        }
        let gone = self.owned.keys().filter(|id| names(**id).is_none());
        unknown.extend(gone.copied());
        if !unknown.is_subset(&self.asked_names) {
            self.asked_names = unknown;
            self.effects.push_back(Effect::RefreshMetadata);
        }
        let mut surplus = self.owned.clone();
        subtract(&mut surplus, &wanted);
        if !surplus.is_empty() {
            let parts = self.named(&surplus).into_iter().map(|(tp, _)| tp).collect();
            self.effects.push_back(Effect::Revoke(parts));
            self.state = State::Revoking(surplus);
            return;
        }
        if std::mem::take(&mut self.tell_owned) {
            // Said again even if nothing changes by it: what was given and taken back before it was
            // owned goes to nobody else until the coordinator has heard that this member does not
            // own it.
            self.sent.owned = None;
        }
        let mut added = wanted;
        subtract(&mut added, &self.owned);
        let first = !self.assigned_once && self.epoch > 0 && self.asked_names.is_empty();
        if added.is_empty() && !first {
            return;
        }
        self.assigned_once = true;
        if !added.is_empty() {
            self.urgent = true;
        }
        let parts = self.named(&added);
        for (id, partitions) in added {
            self.owned.entry(id).or_default().extend(partitions);
        }
        self.names.retain(|id, _| self.owned.contains_key(id));
        self.effects.push_back(Effect::Assign(parts));
    }

    fn heartbeat_if_due(&mut self, now: Instant) {
        if self.in_flight.is_some() || !self.is_in() {
            return;
        }
        let due = self.next_heartbeat.is_none_or(|at| at <= now);
        // RebalanceEvent do not wait for the interval, only for the back-off after a failure.
        let news = self.urgent && self.failures == 0 && self.state != State::Joining;
        if due || news {
            let current = self.current();
            self.call(now, current);
        }
    }

    fn current(&self) -> Sent {
        let assignor = self.settings.assignor.clone();
        Sent {
            rack: self.settings.rack.clone(),
            rebalance_timeout: Some(self.settings.rebalance_timeout),
            topics: Some(self.topics.clone()),
            regex: self.regex.clone(),
            assignor,
            owned: Some(self.owned.clone()),
        }
    }

    fn call(&mut self, now: Instant, current: Sent) {
        fn changed<T: Clone + PartialEq>(now: &Option<T>, sent: &Option<T>) -> Option<T> {
            now.clone().filter(|_| now != sent)
        }
        if self.state == State::Member && self.retell_at.is_none_or(|at| at <= now) {
            self.sent = Sent::default();
        }
        if self.sent == Sent::default() {
            self.retell_at = Some(now + RETELL);
        }
        self.serial += 1;
        let token = Token(self.serial);
        let heartbeat = Heartbeat {
            member_id: Arc::clone(&self.member_id),
            id_confirmed: self.id_confirmed,
            member_epoch: self.epoch,
            instance_id: self.settings.instance_id.clone(),
            rack: changed(&current.rack, &self.sent.rack),
            rebalance_timeout: changed(&current.rebalance_timeout, &self.sent.rebalance_timeout),
            topics: changed(&current.topics, &self.sent.topics),
            regex: changed(&current.regex, &self.sent.regex),
            assignor: changed(&current.assignor, &self.sent.assignor),
            owned: changed(&current.owned, &self.sent.owned),
        };
        self.sent = current;
        self.in_flight = Some(token);
        self.urgent = false;
        self.next_heartbeat = Some(now + self.interval);
        self.sent_at = Some(now);
        let request = GroupRequest::ConsumerHeartbeat(heartbeat);
        self.effects.push_back(Effect::Send(token, request));
    }

    fn named(&self, parts: &Parts) -> Vec<(TopicPartition, Uuid)> {
        let named = parts.iter().filter_map(|(id, partitions)| {
            let name = self.names.get(id)?;
            Some(
                partitions
                    .iter()
                    .map(|partition| (TopicPartition::new(Arc::clone(name), *partition), *id)),
            )
        });
        named.flatten().collect()
    }
}

/// Takes `less` out of `from`; topics without partitions vanish.
fn subtract(from: &mut Parts, less: &Parts) {
    from.retain(|id, partitions| {
        if let Some(less) = less.get(id) {
            partitions.retain(|partition| !less.contains(partition));
        }
        !partitions.is_empty()
    });
}

#[cfg(test)]
mod tests;
