//! The protocol `classic`: members join, one of them assigns, all are told (JoinGroup, SyncGroup,
//! Heartbeat, LeaveGroup).
//!
//! A machine that knows of bytes only: what a member says about itself, what the leader assigns and
//! what a member is assigned are its owner's business, so that it serves any protocol type.
//!
//! Invariants:
//! - One JoinGroup, SyncGroup or LeaveGroup is under way at a time, and one Heartbeat beside it; an
//!   answer to an older request is dropped.
//! - A member joins with what its owner has just said about itself, after it gave up what it is not
//!   to keep ([`Event::Prepare`]). Meanwhile it is heard of by heartbeats.
//! - No heartbeat is sent while JoinGroup waits at the coordinator, which counts it as one, and an
//!   answer to an earlier one says nothing: the generation may be over.
//! - A member that nobody has answered for `session.timeout.ms` is thrown out, so it takes itself
//!   for that, and loses all that it was assigned. That is also so when the coordinator says so.
//! - Whatever the coordinator answers, the next JoinGroup waits longer until a rebalance succeeds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub(crate) use self::messages::{
    Code, Heartbeat, JoinAnswer, JoinGroup, JoinedMember, LeaveGroup, Sender, SyncAnswer, SyncGroup,
};
use super::messages::{GroupRequest, GroupResponse, MemberIdentity, Token};
use crate::clock::Instant;
use crate::config::consumer::GroupProtocol;
use crate::error::{Certainty, Class, Error, ErrorKind, Result};
use crate::group::GroupMembershipOperation;
use crate::wire::codes;

mod messages;

const NO_GENERATION: i32 = -1;

/// What the protocol needs to know of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) instance_id: Option<Arc<str>>,
    /// `consumer`, `connect`, ...: members of one group have the same.
    pub(crate) protocol_type: &'static str,
    pub(crate) session_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    /// How long the others wait for this member when the group rebalances.
    pub(crate) rebalance_timeout: Duration,
    pub(crate) backoff: Duration,
    pub(crate) backoff_max: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not a member, and does not want to be.
    Idle,
    /// The owner gives up what it is not to keep, and says what the member joins with.
    Preparing,
    /// Asks to be in the next generation.
    Joining,
    /// The leader, while its owner assigns.
    Electing,
    /// Asks what it is assigned.
    Syncing,
    /// In a generation, and knows its assignment.
    Stable,
    Leaving,
    /// Refused for good.
    Failed,
}

/// What the owner is to do.
#[derive(Debug)]
pub(crate) enum Event {
    /// Send the request; hand its answer in with the token.
    Send(Token, GroupRequest),
    /// The group rebalances: give up what is not to be kept, then call `prepared`.
    Prepare,
    /// The member leads the group: assign, then call `elected`.
    Elect(Election),
    /// What the leader has assigned to this member.
    Assigned(Assigned),
    /// All that was assigned is gone already: others may have it.
    Lost,
    /// Tell the application; whether the membership is over is the error's class.
    Fail(Error),
    /// The group was left.
    Left,
}

/// What a leader is to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Election {
    pub(crate) generation: i32,
    /// The one that the group has chosen of those that all members can do.
    pub(crate) protocol: Arc<str>,
    pub(crate) members: Vec<JoinedMember>,
    /// A static leader has come back, and all remains as it was (KIP-814): nothing is to be
    /// assigned, but what would call for a rebalance is to be watched.
    pub(crate) skip: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assigned {
    pub(crate) generation: i32,
    pub(crate) protocol: Arc<str>,
    pub(crate) assignment: Bytes,
}

/// The machine; see the module's documentation.
#[derive(Debug)]
pub(crate) struct Member {
    settings: Settings,
    state: State,
    /// Empty until the coordinator has given one.
    id: Arc<str>,
    generation: i32,
    /// Those of the generation.
    protocol: Arc<str>,
    leads: bool,
    /// What the next JoinGroup says.
    protocols: Vec<(Arc<str>, Bytes)>,
    reason: &'static str,
    /// How often it began with nothing: with each time, what was assigned before is lost.
    life: u64,
    /// JoinGroup, SyncGroup or LeaveGroup.
    in_flight: Option<Token>,
    beating: Option<Token>,
    serial: u64,
    next_join: Option<Instant>,
    next_heartbeat: Option<Instant>,
    sent_heartbeat: Option<Instant>,
    /// Without an answer until then, the coordinator will have thrown the member out.
    session_ends: Option<Instant>,
    /// Since the last rebalance that succeeded.
    failures: u32,
    beats_failed: u32,
    /// Joins again as soon as this rebalance is over.
    rejoins: Option<&'static str>,
    events: VecDeque<Event>,
}

impl Member {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: State::Idle,
            id: Arc::default(),
            generation: NO_GENERATION,
            protocol: Arc::default(),
            leads: false,
            protocols: Vec::new(),
            reason: "",
            life: 0,
            in_flight: None,
            beating: None,
            serial: 0,
            next_join: None,
            next_heartbeat: None,
            sent_heartbeat: None,
            session_ends: None,
            failures: 0,
            beats_failed: 0,
            rejoins: None,
            events: VecDeque::new(),
        }
    }

    /// Its memberships are counted on from there.
    pub(crate) fn count_on(&mut self, life: u64) {
        self.life = life;
    }

    /// Wants to be in the group; nothing if it does already.
    pub(crate) fn join(&mut self) {
        if self.state == State::Idle {
            self.life += 1;
            self.next_join = None;
            self.failures = 0;
            self.prepare("the consumer subscribes");
        }
    }

    /// What the member says about itself is another thing now, or its group has to be assigned
    /// anew.
    pub(crate) fn rejoin(&mut self, reason: &'static str) {
        match self.state {
            State::Stable => self.prepare(reason),
            State::Joining if self.in_flight.is_none() => self.prepare(reason),
            State::Joining | State::Electing | State::Syncing => self.rejoins = Some(reason),
            State::Idle | State::Preparing | State::Leaving | State::Failed => {}
        }
    }

    fn prepare(&mut self, reason: &'static str) {
        self.state = State::Preparing;
        self.reason = reason;
        self.rejoins = None;
        self.events.retain(|event| !matches!(event, Event::Prepare));
        self.events.push_back(Event::Prepare);
    }

    /// The owner has given up what is not to be kept, and this is what the member joins with: what
    /// it can do, in order of preference, with what it says about itself for each.
    pub(crate) fn prepared(&mut self, protocols: Vec<(Arc<str>, Bytes)>) {
        if self.state == State::Preparing {
            self.protocols = protocols;
            self.state = State::Joining;
        }
    }

    /// What the leader's owner has decided for each member of that generation, or that it could
    /// not: then the group rebalances once more, after a pause.
    pub(crate) fn elected(
        &mut self,
        now: Instant,
        generation: i32,
        assignments: Result<Vec<(Arc<str>, Bytes)>>,
    ) {
        if self.state != State::Electing || self.generation != generation {
            return;
        }
        match assignments {
            Ok(assignments) => self.sync(assignments),
            Err(error) => {
                self.events.push_back(Event::Fail(error));
                self.rejoin_later(now, "the leader could not assign");
            }
        }
    }

    /// The rebalance came to nothing: asks for another one after a pause, so that members that
    /// cannot agree do not keep the group busy.
    pub(crate) fn rejoin_later(&mut self, now: Instant, reason: &'static str) {
        if matches!(self.state, State::Electing | State::Stable) {
            self.next_join = Some(now + self.settings.heartbeat_interval);
            self.prepare(reason);
        }
    }

    /// Whether it leads the generation.
    pub(crate) fn leads(&self) -> bool {
        self.leads
    }

    /// Leaves, and says by [`Event::Left`] when that is over.
    pub(crate) fn leave(&mut self, operation: GroupMembershipOperation, reason: &'static str) {
        if self.state == State::Leaving {
            return;
        }
        let is_static = self.settings.instance_id.is_some();
        let tells = match operation {
            GroupMembershipOperation::LeaveGroup => true,
            GroupMembershipOperation::Default => !is_static,
            GroupMembershipOperation::RemainInGroup => false,
        };
        // A static member is known by its name, any other by the id that it was given.
        let known = !self.id.is_empty() || is_static && self.serial > 0;
        let sender = self.sender();
        let in_group = self.is_in();
        self.out();
        if !in_group || !tells || !known {
            if self.state != State::Failed {
                self.state = State::Idle;
            }
            self.events.push_back(Event::Left);
            return;
        }
        self.state = State::Leaving;
        self.in_flight = Some(self.send(GroupRequest::Leave(LeaveGroup { sender, reason })));
    }

    /// Forgets the membership, but for its number and what became of it.
    fn out(&mut self) {
        self.events.retain(|event| {
            let of_group = matches!(event, Event::Prepare | Event::Elect(_) | Event::Assigned(_));
            !of_group
        });
        self.id = Arc::default();
        self.generation = NO_GENERATION;
        self.in_flight = None;
        self.beating = None;
        self.rejoins = None;
    }

    /// Whether the member wants to be in the group.
    pub(crate) fn is_in(&self) -> bool {
        !matches!(self.state, State::Idle | State::Leaving | State::Failed)
    }

    /// See [`Member`]'s field.
    pub(crate) fn life(&self) -> u64 {
        self.life
    }

    /// While it has a generation.
    pub(crate) fn identity(&self) -> Option<MemberIdentity> {
        let valid = self.is_in() && self.generation > NO_GENERATION;
        valid.then(|| MemberIdentity {
            protocol: GroupProtocol::Classic,
            id: Arc::clone(&self.id),
            epoch: self.generation,
        })
    }

    /// An answer, or the failure to get one, to the request of that token.
    pub(crate) fn handle(&mut self, now: Instant, token: Token, answer: Result<GroupResponse>) {
        if self.beating == Some(token) {
            self.beating = None;
            let code = answer.and_then(|answer| match answer {
                GroupResponse::Heartbeat(Code(code)) => Ok(code),
                _ => Err(another_answer()),
            });
            return self.beaten(now, code);
        }
        if self.in_flight != Some(token) {
            return;
        }
        self.in_flight = None;
        match (self.state, answer) {
            (State::Leaving, _) => {
                // Whatever came of it: the session time-out does the rest.
                self.state = State::Idle;
                self.events.push_back(Event::Left);
            }
            (State::Joining, Ok(GroupResponse::Join(answer))) => self.joined(now, answer),
            (State::Syncing, Ok(GroupResponse::Sync(answer))) => self.synced(now, answer),
            (_, Ok(_)) => self.again(now, another_answer()),
            (_, Err(error)) => self.again(now, error),
        }
    }

    fn joined(&mut self, now: Instant, answer: JoinAnswer) {
        match answer.code {
            codes::NONE => {
                let of_type = |own| answer.protocol_type.as_deref().is_none_or(|it| it == own);
                let known = self
                    .protocols
                    .iter()
                    .any(|(name, _)| *name == answer.protocol);
                if answer.generation <= NO_GENERATION
                    || answer.member_id.is_empty()
                    || !known
                    || !of_type(self.settings.protocol_type)
                {
                    return self.again(now, senseless("a JoinGroup answer"));
                }
                self.id = answer.member_id;
                self.generation = answer.generation;
                self.protocol = answer.protocol;
                self.heard(now);
                self.next_heartbeat = Some(now + self.settings.heartbeat_interval);
                self.leads = answer.leader == self.id;
                if !self.leads {
                    return self.sync(Vec::new());
                }
                self.state = State::Electing;
                self.events.push_back(Event::Elect(Election {
                    generation: self.generation,
                    protocol: Arc::clone(&self.protocol),
                    members: answer.members,
                    skip: answer.skip_assignment,
                }));
            }
            // KIP-394: so that members whose first answer is lost do not add up.
            codes::MEMBER_ID_REQUIRED if !answer.member_id.is_empty() => {
                // Its id is kept for `session.timeout.ms`, which a pause might outlast.
                let pause = self.pause();
                self.next_join = (!self.id.is_empty()).then(|| now + pause);
                self.id = answer.member_id;
            }
            code => self.refused(now, code, "joining"),
        }
    }

    fn sync(&mut self, assignments: Vec<(Arc<str>, Bytes)>) {
        self.state = State::Syncing;
        let sync = SyncGroup {
            sender: self.sender(),
            protocol_type: self.settings.protocol_type,
            protocol: Arc::clone(&self.protocol),
            assignments,
        };
        self.in_flight = Some(self.send(GroupRequest::Sync(sync)));
    }

    fn synced(&mut self, now: Instant, answer: SyncAnswer) {
        if answer.code != codes::NONE {
            return self.refused(now, answer.code, "asking for the assignment");
        }
        if answer
            .protocol
            .is_some_and(|protocol| protocol != self.protocol)
        {
            return self.again(now, senseless("a SyncGroup answer"));
        }
        // Nobody knows how old the answer is: the session goes on from the request, if not from a
        // heartbeat since.
        self.state = State::Stable;
        self.failures = 0;
        self.events.push_back(Event::Assigned(Assigned {
            generation: self.generation,
            protocol: Arc::clone(&self.protocol),
            assignment: answer.assignment,
        }));
        if let Some(reason) = self.rejoins.take() {
            self.prepare(reason);
        }
    }

    fn beaten(&mut self, now: Instant, code: Result<i16>) {
        let heard = matches!(code, Ok(codes::NONE | codes::REBALANCE_IN_PROGRESS));
        if heard {
            self.beats_failed = 0;
            let sent = self.sent_heartbeat.unwrap_or(now);
            self.session_ends = Some(sent + self.settings.session_timeout);
            self.next_heartbeat = Some(sent + self.settings.heartbeat_interval);
        }
        match code {
            Ok(codes::NONE) => {}
            // Else it is about to join, or hears so by the answer that it waits for.
            Ok(codes::REBALANCE_IN_PROGRESS) => {
                if self.state == State::Stable {
                    self.prepare("the group rebalances");
                }
            }
            Ok(code) if is_passing(code) => self.beat_again(now),
            Ok(code) => self.refused(now, code, "heartbeat"),
            Err(error) if error.is_retriable() => self.beat_again(now),
            Err(error) => self.fail(error),
        }
    }

    fn beat_again(&mut self, now: Instant) {
        self.next_heartbeat = Some(now + self.back_off(self.beats_failed));
        self.beats_failed = self.beats_failed.saturating_add(1);
    }

    /// The coordinator has refused a request.
    fn refused(&mut self, now: Instant, code: i16, doing: &str) {
        let doing = format!("{doing} in the group");
        match code {
            codes::UNKNOWN_MEMBER_ID | codes::ILLEGAL_GENERATION => {
                tracing::info!(member = %self.id, code, "thrown out of the group; joining again");
                if code == codes::UNKNOWN_MEMBER_ID {
                    self.id = Arc::default();
                }
                self.next_join = Some(now + self.pause());
                self.lose();
                self.prepare("the coordinator did not know the member or its generation");
            }
            codes::REBALANCE_IN_PROGRESS => {
                self.next_join = Some(now + self.pause());
                self.prepare("the group rebalances again");
            }
            code if is_passing(code) => self.again(now, Error::from_code(code, doing)),
            code => self.fail(Error::from_code(code, doing)),
        }
    }

    /// A JoinGroup or SyncGroup went wrong: joins again, if that may help.
    fn again(&mut self, now: Instant, error: Error) {
        let unheard_of = error.certainty() == Some(Certainty::NotSent);
        let error = error.without_certainty();
        if !error.is_retriable() && !error.code().is_some_and(|code| is_passing(code.get())) {
            return self.fail(error);
        }
        tracing::debug!(member = %self.id, %error, "joining the group again");
        if self.failures == 0 && self.state == State::Joining {
            // The coordinator had it on its list until just now, if it has heard of it.
            if !unheard_of {
                self.heard(now);
            }
        }
        self.next_join = Some(now + self.back_off(self.failures));
        self.failures = self.failures.saturating_add(1);
        match self.state {
            State::Joining => {}
            _ => self.prepare("a request about the last rebalance failed"),
        }
    }

    fn heard(&mut self, now: Instant) {
        self.session_ends = Some(now + self.settings.session_timeout);
        self.beats_failed = 0;
    }

    /// None at first, then growing.
    fn pause(&mut self) -> Duration {
        let failures = self.failures;
        self.failures = self.failures.saturating_add(1);
        match failures {
            0 => Duration::ZERO,
            failures => self.back_off(failures - 1),
        }
    }

    fn back_off(&self, failures: u32) -> Duration {
        let factor = 1_u32 << failures.min(16);
        let pause = self.settings.backoff.saturating_mul(factor);
        pause.min(self.settings.backoff_max)
    }

    fn lose(&mut self) {
        self.in_flight = None;
        self.beating = None;
        if self.generation > NO_GENERATION {
            self.generation = NO_GENERATION;
            self.life += 1;
            self.events.push_back(Event::Lost);
        }
    }

    fn fail(&mut self, error: Error) {
        self.lose();
        self.out();
        self.state = State::Failed;
        self.events
            .push_back(Event::Fail(error.with_class(Class::Fatal)));
    }

    /// What to do next; call until `None`.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Event> {
        if self.events.is_empty() && self.is_in() {
            if self.session_end().is_some_and(|at| at <= now) {
                tracing::warn!(
                    member = %self.id,
                    "no answer from the coordinator within session.timeout.ms: out of the group"
                );
                self.lose();
                self.prepare("the coordinator did not answer within session.timeout.ms");
            } else if self.joins() && self.next_join.is_none_or(|at| at <= now) {
                self.send_join();
            } else if self.beats() && self.next_heartbeat.is_none_or(|at| at <= now) {
                self.send_heartbeat(now);
            }
        }
        self.events.pop_front()
    }

    /// When `poll` has something to do without anything else happening.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let join = self.next_join.filter(|_| self.joins());
        let heartbeat = self.next_heartbeat.filter(|_| self.beats());
        [join, heartbeat, self.session_end()]
            .into_iter()
            .flatten()
            .min()
    }

    /// While JoinGroup waits at the coordinator, the session does not end.
    fn session_end(&self) -> Option<Instant> {
        let waits = self.state == State::Joining && self.in_flight.is_some();
        let counts = self.is_in() && self.generation > NO_GENERATION && !waits;
        self.session_ends.filter(|_| counts)
    }

    fn joins(&self) -> bool {
        self.state == State::Joining && self.in_flight.is_none()
    }

    fn beats(&self) -> bool {
        self.beating.is_none() && self.session_end().is_some()
    }

    fn send_join(&mut self) {
        let join = JoinGroup {
            sender: self.sender(),
            session_timeout: self.settings.session_timeout,
            rebalance_timeout: self.settings.rebalance_timeout,
            protocol_type: self.settings.protocol_type,
            protocols: self.protocols.clone(),
            reason: self.reason,
        };
        self.beating = None;
        self.in_flight = Some(self.send(GroupRequest::Join(join)));
    }

    fn send_heartbeat(&mut self, now: Instant) {
        let heartbeat = Heartbeat {
            sender: self.sender(),
        };
        self.sent_heartbeat = Some(now);
        self.beating = Some(self.send(GroupRequest::Heartbeat(heartbeat)));
    }

    fn send(&mut self, request: GroupRequest) -> Token {
        self.serial += 1;
        let token = Token(self.serial);
        self.events.push_back(Event::Send(token, request));
        token
    }

    fn sender(&self) -> Sender {
        Sender {
            member_id: Arc::clone(&self.id),
            instance_id: self.settings.instance_id.clone(),
            generation: self.generation,
        }
    }
}

/// Whether the same request may be answered otherwise later.
fn is_passing(code: i16) -> bool {
    matches!(
        code,
        codes::NOT_COORDINATOR
            | codes::COORDINATOR_NOT_AVAILABLE
            | codes::COORDINATOR_LOAD_IN_PROGRESS
            | codes::REQUEST_TIMED_OUT
            | codes::NETWORK_EXCEPTION
            | codes::UNKNOWN_SERVER_ERROR
            | codes::MEMBER_ID_REQUIRED
    )
}

fn senseless(what: &str) -> Error {
    let message = format!(
        "{what} is about another protocol than was asked for, or has no member or generation"
    );
    Error::new(ErrorKind::Protocol, message).with_class(Class::Retriable)
}

fn another_answer() -> Error {
    let message = "a member's request was answered as if it were another one";
    Error::new(ErrorKind::Protocol, message).with_class(Class::Retriable)
}

#[cfg(test)]
mod tests;
