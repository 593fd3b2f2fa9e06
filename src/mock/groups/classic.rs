//! One group of the classic protocol as its coordinator sees it: a machine.
//!
//! The rules are those of Kafka's `ClassicGroup` and of the `classicGroup` methods of its
//! `GroupMetadataManager`: KIP-62 (rebalance time-out), KIP-134 (initial delay), KIP-345 (static
//! members), KIP-394 (ids before joining), KIP-559 (protocols in answers), KIP-814 (static leaders
//! that skip the assignment). What members say about themselves and what they are assigned are
//! bytes to it.
//!
//! Invariants: an assignment is only handed to who asked for that of the present generation;
//! generations go up, but for those that another broker does not know of when it takes over; the
//! leader is a member; and who waits gets an answer, unless it asked again or was put out
//! meanwhile.

mod member;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use indexmap::IndexMap;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::{
    JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

pub(in crate::mock) use self::member::{Member, Reply};
use self::member::{TICK, answer, join_refused, protocols, session_timeout, sync_refused, text};
use crate::clock::Instant;
use crate::wire::codes;

/// From this version of JoinGroup on, a static leader is told to skip the assignment.
const SKIPS_ASSIGNMENT: i16 = 9;
/// From this version of JoinGroup on, dynamic members get their id before they join.
const ID_REQUIRED: i16 = 4;

/// Who joins, and what holds for its group.
#[derive(Clone, Debug)]
pub(in crate::mock) struct Asker<'a> {
    pub(in crate::mock) client_id: &'a str,
    /// The version of the request.
    pub(in crate::mock) version: i16,
    /// What its id ends with if it has none yet.
    pub(in crate::mock) random: String,
    /// `group.initial.rebalance.delay.ms`.
    pub(in crate::mock) initial_delay: Duration,
    /// `group.max.size`.
    pub(in crate::mock) max_size: usize,
}

#[derive(Clone, Debug, Default)]
pub(in crate::mock) struct ClassicGroup {
    state: State,
    pub(in crate::mock) generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    /// In the order in which they came.
    pub(in crate::mock) members: IndexMap<String, Member>,
    /// The ids that nobody has joined with yet, and until when they may.
    pending: BTreeMap<String, Instant>,
    /// The end of waiting for joins while preparing, and for syncs after that.
    timer: Option<Instant>,
    /// What another coordinator would read.
    written: Option<Box<Self>>,
    /// Memberships begun so far.
    memberships: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Empty,
    Preparing(Option<Initial>),
    Completing,
    Stable,
}

/// The first rebalance of an empty group, which waits for more members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Initial {
    /// Somebody came since the last look.
    grown: bool,
    delay: Duration,
    /// By how much it may be put off in all.
    left: Duration,
}

impl ClassicGroup {
    /// Answers a JoinGroup, at once or when the rebalance is complete.
    pub(in crate::mock) fn join(
        &mut self,
        request: &JoinGroupRequest,
        asker: &Asker<'_>,
        now: Instant,
    ) -> Reply<JoinGroupResponse> {
        self.expire(now);
        let reply = Reply::default();
        if let Err((code, id)) = self.try_join(request, asker, &reply, now) {
            let _ = reply.set(join_refused(code, &id));
        }
        reply
    }

    fn try_join(
        &mut self,
        request: &JoinGroupRequest,
        asker: &Asker<'_>,
        reply: &Reply<JoinGroupResponse>,
        now: Instant,
    ) -> Result<(), (i16, String)> {
        let id = request.member_id.to_string();
        let refused = |code| Err((code, id.clone()));
        if !self.has_room_for(&id, asker.max_size) {
            self.remove(&id);
            return Err((codes::GROUP_MAX_SIZE_REACHED, String::new()));
        }
        if !self.supports(request) {
            return refused(codes::INCONSISTENT_GROUP_PROTOCOL);
        }
        let instance = request.group_instance_id.as_deref();
        if id.is_empty() {
            let new = format!("{}-{}", instance.unwrap_or(asker.client_id), asker.random);
            if let Some(old) = instance.and_then(|instance| self.static_member(instance)) {
                self.replace(&old, &new, request, asker, reply, now);
            } else if instance.is_none() && asker.version >= ID_REQUIRED {
                self.pending
                    .insert(new.clone(), now + session_timeout(request));
                return Err((codes::MEMBER_ID_REQUIRED, new));
            } else {
                self.add(new, request, asker, reply, now);
            }
            return Ok(());
        }
        if self.pending.contains_key(&id) {
            self.add(id, request, asker, reply, now);
            return Ok(());
        }
        if let Err(code) = self.check_member(&id, instance) {
            return refused(code);
        }
        let unchanged = self
            .members
            .get(&id)
            .is_some_and(|member| member.protocols == protocols(request));
        let current = match self.state {
            State::Empty => return refused(codes::UNKNOWN_MEMBER_ID),
            State::Preparing(_) => false,
            // The answer may have been lost.
            State::Completing => unchanged,
            // A leader that comes again knows of something that its metadata does not say.
            State::Stable => unchanged && !self.is_leader(&id),
        };
        if current {
            let _ = reply.set(self.joined(&id));
            return Ok(());
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.update(request, reply);
        }
        self.rebalance(asker.initial_delay, now);
        Ok(())
    }

    /// Whether `group.max.size` lets the member in.
    fn has_room_for(&self, id: &str, max_size: usize) -> bool {
        let member = self.members.get(id);
        match self.state {
            State::Empty => true,
            State::Preparing(_) => {
                let mut all = self.members.values();
                member.is_some_and(|member| member.join.is_some())
                    || all.by_ref().filter(|member| member.join.is_some()).count() < max_size
            }
            State::Completing | State::Stable => member.is_some() || self.members.len() < max_size,
        }
    }

    /// Whether the member can do what all others can.
    fn supports(&self, request: &JoinGroupRequest) -> bool {
        let mut named = request.protocols.iter();
        if self.state == State::Empty {
            return !request.protocol_type.is_empty() && named.len() > 0;
        }
        self.protocol_type.as_deref() == Some(&*request.protocol_type)
            && named.any(|protocol| self.is_common(&protocol.name))
    }

    fn is_common(&self, protocol: &str) -> bool {
        let mut members = self.members.values();
        members.all(|member| member.metadata(protocol).is_some())
    }

    fn static_member(&self, instance: &str) -> Option<String> {
        let mut members = self.members.iter();
        let found = members.find(|(_, member)| member.instance_id.as_deref() == Some(instance));
        found.map(|(id, _)| id.clone())
    }

    fn is_leader(&self, id: &str) -> bool {
        self.leader.as_deref() == Some(id)
    }

    /// Whether there is such a member, and if it is static, no newer one (KIP-345).
    fn check_member(&self, id: &str, instance: Option<&str>) -> Result<(), i16> {
        if let Some(instance) = instance {
            match self.static_member(instance) {
                None => return Err(codes::UNKNOWN_MEMBER_ID),
                Some(holder) if holder != id => return Err(codes::FENCED_INSTANCE_ID),
                Some(_) => {}
            }
        }
        match self.members.contains_key(id) {
            true => Ok(()),
            false => Err(codes::UNKNOWN_MEMBER_ID),
        }
    }

    fn add(
        &mut self,
        id: String,
        request: &JoinGroupRequest,
        asker: &Asker<'_>,
        reply: &Reply<JoinGroupResponse>,
        now: Instant,
    ) {
        if let State::Preparing(Some(initial)) = &mut self.state {
            initial.grown = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.to_string());
        }
        self.pending.remove(&id);
        self.leader.get_or_insert_with(|| id.clone());
        self.memberships += 1;
        let mut member = Member::new(request, asker.client_id, self.memberships, now);
        member.update(request, reply);
        self.members.insert(id, member);
        self.rebalance(asker.initial_delay, now);
    }

    /// A static member that has forgotten its id gets another one; whoever has the old one is
    /// fenced.
    fn replace(
        &mut self,
        old: &str,
        new: &str,
        request: &JoinGroupRequest,
        asker: &Asker<'_>,
        reply: &Reply<JoinGroupResponse>,
        now: Instant,
    ) {
        let Some((index, _, mut member)) = self.members.shift_remove_full(old) else {
            return;
        };
        answer(
            &mut member.join,
            join_refused(codes::FENCED_INSTANCE_ID, old),
        );
        answer(&mut member.sync, sync_refused(codes::FENCED_INSTANCE_ID));
        let former = self.leader.clone().unwrap_or_default();
        if self.is_leader(old) {
            self.leader = Some(new.to_owned());
        }
        member.is_new = false;
        member.renew(now);
        member.update(request, reply);
        self.members.shift_insert(index, new.to_owned(), member);
        match self.state {
            State::Stable if self.protocol == self.select() => {
                let mut joined = self.joined(new);
                if asker.version >= SKIPS_ASSIGNMENT {
                    joined.skip_assignment = self.is_leader(new);
                } else {
                    // It must not take itself for the leader: the others would have to join too.
                    joined.leader = text(&former);
                    joined.members.clear();
                }
                if let Some(member) = self.members.get_mut(new) {
                    answer(&mut member.join, joined);
                }
                self.write();
            }
            State::Preparing(_) => self.complete_if_all_joined(now),
            // The leader may have the old id in its assignment.
            _ => self.prepare(asker.initial_delay, now),
        }
    }

    /// Takes a member out, without any more consequences.
    fn remove(&mut self, id: &str) {
        self.pending.remove(id);
        self.members.shift_remove(id);
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// A member came, went or is another: begins a rebalance, or goes on with the one under way.
    fn rebalance(&mut self, initial_delay: Duration, now: Instant) {
        match self.state {
            State::Preparing(_) => self.complete_if_all_joined(now),
            _ => self.prepare(initial_delay, now),
        }
    }

    fn prepare(&mut self, initial_delay: Duration, now: Instant) {
        if self.state == State::Completing {
            for member in self.members.values_mut() {
                member.assignment = Bytes::new();
                if answer(&mut member.sync, sync_refused(codes::REBALANCE_IN_PROGRESS)) {
                    member.renew(now);
                }
            }
        }
        if self.state == State::Empty {
            let left = self.rebalance_timeout().saturating_sub(initial_delay);
            self.state = State::Preparing(Some(Initial {
                grown: false,
                delay: initial_delay,
                left,
            }));
            self.timer = Some(now + initial_delay);
            self.expire(now);
            return;
        }
        self.state = State::Preparing(None);
        self.timer = Some(now + self.rebalance_timeout());
        self.complete_if_all_joined(now);
    }

    fn complete_if_all_joined(&mut self, now: Instant) {
        let mut members = self.members.values();
        if self.state == State::Preparing(None)
            && self.pending.is_empty()
            && members.all(|member| member.join.is_some())
        {
            self.complete(now);
        }
    }

    /// That of the slowest member.
    fn rebalance_timeout(&self) -> Duration {
        let members = self.members.values();
        let slowest = members.map(|member| member.rebalance_timeout).max();
        slowest.unwrap_or_default().max(TICK)
    }

    /// Ends the waiting for joins.
    fn complete(&mut self, now: Instant) {
        let late = |member: &Member| member.join.is_none() && member.instance_id.is_none();
        let late: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| late(member))
            .map(|(id, _)| id.clone())
            .collect();
        for id in late {
            tracing::info!(member = %id, "a member did not join the mock's group again");
            self.remove(&id);
        }
        if !self.elect() && !self.members.is_empty() {
            // Static members that are away: until their sessions end.
            self.timer = Some(now + self.rebalance_timeout());
            return;
        }
        self.generation += 1;
        if self.members.is_empty() {
            self.state = State::Empty;
            self.protocol = None;
            self.timer = None;
            self.write();
            return;
        }
        self.state = State::Completing;
        self.protocol = self.select();
        self.timer = Some(now + self.rebalance_timeout());
        for index in 0..self.members.len() {
            let Some((id, _)) = self.members.get_index(index) else {
                continue;
            };
            let joined = self.joined(&id.clone());
            if let Some((_, member)) = self.members.get_index_mut(index) {
                member.is_new = false;
                member.unsynced = true;
                member.renew(now);
                answer(&mut member.join, joined);
            }
        }
    }

    /// Sees to it that the leader has joined; false if nobody has.
    fn elect(&mut self) -> bool {
        let joined = |id: &String| self.members.get(id).is_some_and(|m| m.join.is_some());
        if self.leader.as_ref().is_some_and(joined) {
            return true;
        }
        let next = self.members.keys().find(|id| joined(id)).cloned();
        match next {
            Some(next) => {
                self.leader = Some(next);
                true
            }
            None => false,
        }
    }

    /// The protocol that most members want, of those that all support.
    fn select(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let mut names = member.protocols.iter().map(|(name, _)| name.as_str());
            if let Some(best) = names.find(|name| self.is_common(name)) {
                *votes.entry(best).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        let winner = votes.iter().find(|(_, count)| **count == most)?;
        Some((*winner.0).to_owned())
    }

    /// What a member of the present generation is told about it.
    fn joined(&self, id: &str) -> JoinGroupResponse {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let one = |(id, member): (&String, &Member)| {
            JoinGroupResponseMember::default()
                .with_member_id(text(id))
                .with_group_instance_id(member.instance_id.as_deref().map(text))
                .with_metadata(member.metadata(protocol).cloned().unwrap_or_default())
        };
        let members = match self.is_leader(id) {
            true => self.members.iter().map(one).collect(),
            false => Vec::new(),
        };
        JoinGroupResponse::default()
            .with_generation_id(self.generation)
            .with_protocol_type(self.protocol_type.as_deref().map(text))
            .with_protocol_name(Some(text(protocol)))
            .with_leader(text(self.leader.as_deref().unwrap_or_default()))
            .with_member_id(text(id))
            .with_members(members)
    }

    /// Answers a SyncGroup, at once or when the leader's has come.
    pub(in crate::mock) fn sync(
        &mut self,
        request: &SyncGroupRequest,
        now: Instant,
    ) -> Reply<SyncGroupResponse> {
        self.expire(now);
        let reply = Reply::default();
        if let Err(code) = self.try_sync(request, &reply, now) {
            let _ = reply.set(sync_refused(code));
        }
        reply
    }

    fn try_sync(
        &mut self,
        request: &SyncGroupRequest,
        reply: &Reply<SyncGroupResponse>,
        now: Instant,
    ) -> Result<(), i16> {
        let id: &str = &request.member_id;
        self.check_member(id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(codes::ILLEGAL_GENERATION);
        }
        let differs = |asked: &Option<StrBytes>, own: &Option<String>| match (asked, own) {
            (Some(asked), Some(own)) => **asked != **own,
            _ => false,
        };
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol_name, &self.protocol)
        {
            return Err(codes::INCONSISTENT_GROUP_PROTOCOL);
        }
        match self.state {
            State::Empty => return Err(codes::UNKNOWN_MEMBER_ID),
            State::Preparing(_) => return Err(codes::REBALANCE_IN_PROGRESS),
            State::Completing | State::Stable => {}
        }
        if let Some(member) = self.members.get_mut(id) {
            member.sync = Some(Arc::clone(reply));
            member.unsynced = false;
            member.asked = request.generation_id;
        }
        if self.state == State::Completing && self.is_leader(id) {
            for (id, member) in &mut self.members {
                let mut assignments = request.assignments.iter();
                let own = assignments.find(|assignment| *assignment.member_id == **id);
                member.assignment = own.map(|own| own.assignment.clone()).unwrap_or_default();
            }
            self.state = State::Stable;
            self.write();
            self.hand_out(|member| member.renew(now));
        } else if self.state == State::Stable {
            self.hand_out(|_| {});
        }
        let mut members = self.members.values();
        if members.all(|member| !member.unsynced) {
            self.timer = None;
        }
        Ok(())
    }

    /// Gives their assignments to those who wait for them.
    fn hand_out(&mut self, mut also: impl FnMut(&mut Member)) {
        for member in self.members.values_mut() {
            let synced = SyncGroupResponse::default()
                .with_protocol_type(self.protocol_type.as_deref().map(text))
                .with_protocol_name(self.protocol.as_deref().map(text))
                .with_assignment(member.assignment.clone());
            if answer(&mut member.sync, synced) {
                debug_assert_eq!(member.asked, self.generation, "of another generation");
                also(member);
            }
        }
    }

    /// The code to answer a Heartbeat with.
    pub(in crate::mock) fn heartbeat(
        &mut self,
        id: &str,
        instance: Option<&str>,
        generation: i32,
        now: Instant,
    ) -> i16 {
        self.expire(now);
        if let Err(code) = self.check_member(id, instance) {
            return code;
        }
        if generation != self.generation {
            return codes::ILLEGAL_GENERATION;
        }
        if let Some(member) = self.members.get_mut(id) {
            member.renew(now);
        }
        match self.state {
            State::Empty => codes::UNKNOWN_MEMBER_ID,
            State::Preparing(_) => codes::REBALANCE_IN_PROGRESS,
            State::Completing | State::Stable => codes::NONE,
        }
    }

    /// Takes members out, by id or by instance id alone; a code for each.
    pub(in crate::mock) fn leave(&mut self, leaving: &[MemberIdentity], now: Instant) -> Vec<i16> {
        self.expire(now);
        let codes: Vec<i16> = leaving.iter().map(|one| self.leave_one(one)).collect();
        if codes.contains(&codes::NONE) {
            match self.state {
                State::Empty => {}
                // No member that leaves makes an empty group start a rebalance.
                _ => self.rebalance(Duration::ZERO, now),
            }
        }
        codes
    }

    fn leave_one(&mut self, leaving: &MemberIdentity) -> i16 {
        let instance = leaving.group_instance_id.as_deref();
        let id = match (leaving.member_id.is_empty(), instance) {
            (true, instance) => {
                let Some(id) = instance.and_then(|instance| self.static_member(instance)) else {
                    return codes::UNKNOWN_MEMBER_ID;
                };
                id
            }
            (false, _) => leaving.member_id.to_string(),
        };
        if !self.pending.contains_key(&id)
            && let Err(code) = self.check_member(&id, instance)
        {
            return code;
        }
        self.put_out(&id);
        codes::NONE
    }

    /// Removes a member, which may join anew if it still waits.
    fn put_out(&mut self, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            answer(&mut member.join, join_refused(codes::UNKNOWN_MEMBER_ID, ""));
        }
        self.remove(id);
    }

    /// The code to refuse a commit with. One that is fine is a sign of life.
    pub(in crate::mock) fn check_commit(
        &mut self,
        id: &str,
        instance: Option<&str>,
        generation: i32,
        now: Instant,
    ) -> Result<(), i16> {
        let outside = id.is_empty() && instance.is_none() && generation < 0;
        if self.state == State::Empty && generation < 0 {
            return Ok(());
        }
        if outside {
            return Err(codes::UNKNOWN_MEMBER_ID);
        }
        self.check_member(id, instance)?;
        if generation != self.generation {
            return Err(codes::ILLEGAL_GENERATION);
        }
        if self.state == State::Completing {
            return Err(codes::REBALANCE_IN_PROGRESS);
        }
        if let Some(member) = self.members.get_mut(id) {
            member.renew(now);
        }
        Ok(())
    }

    /// When something happens by itself.
    pub(in crate::mock) fn next_deadline(&self) -> Option<Instant> {
        let members = self.members.values();
        let sessions = members.filter_map(|member| member.session_end);
        let pending = self.pending.values().copied();
        sessions.chain(pending).chain(self.timer).min()
    }

    /// Lets happen in order what was to happen until now.
    pub(in crate::mock) fn expire(&mut self, now: Instant) {
        while let Some(at) = self.next_deadline().filter(|at| *at <= now) {
            if self.timer == Some(at) {
                self.timer_over(at);
                continue;
            }
            if let Some(id) = first(self.pending.iter().filter(|(_, end)| **end == at)) {
                self.remove(&id);
                self.complete_if_all_joined(at);
            }
            let members = self.members.iter_mut();
            let Some((id, member)) = members
                .into_iter()
                .find(|(_, member)| member.session_end == Some(at))
            else {
                continue;
            };
            member.session_end = None;
            // Who waits is alive, but a new member may have given up.
            let waits = member.join.is_some() || member.sync.is_some();
            if waits && !member.is_new {
                continue;
            }
            let id = id.clone();
            tracing::info!(member = %id, "the mock's coordinator throws out a member");
            self.put_out(&id);
            self.rebalance(Duration::ZERO, at);
        }
    }

    fn timer_over(&mut self, at: Instant) {
        self.timer = None;
        match &mut self.state {
            State::Preparing(Some(initial)) if initial.grown && !initial.left.is_zero() => {
                let delay = initial.delay.min(initial.left);
                initial.grown = false;
                initial.left -= delay;
                self.timer = Some(at + delay.max(TICK));
            }
            State::Preparing(_) => self.complete(at),
            State::Completing | State::Stable => {
                let late = self.members.iter().filter(|(_, member)| member.unsynced);
                let late: Vec<String> = late.map(|(id, _)| id.clone()).collect();
                if late.is_empty() {
                    return;
                }
                for id in late {
                    tracing::info!(member = %id, "a member of the mock's group did not sync");
                    self.remove(&id);
                }
                self.prepare(Duration::ZERO, at);
            }
            State::Empty => {}
        }
    }

    /// What a group of KIP-848 becomes (KIP-848, "downgrade"): its members are to join again.
    pub(in crate::mock) fn resumed(
        generation: i32,
        members: IndexMap<String, Member>,
        now: Instant,
    ) -> Self {
        let mut group = Self {
            state: State::Stable,
            generation,
            protocol_type: Some("consumer".to_owned()),
            leader: members.keys().next().cloned(),
            memberships: members
                .values()
                .map(|member| member.membership)
                .max()
                .unwrap_or(0),
            members,
            ..Self::default()
        };
        group.protocol = group.select();
        for member in group.members.values_mut() {
            member.renew(now);
        }
        group.write();
        group.prepare(Duration::ZERO, now);
        group
    }

    /// Tells those who wait that a rebalance begins, in another kind of group.
    pub(in crate::mock) fn disband(&mut self) {
        for (id, member) in &mut self.members {
            answer(
                &mut member.join,
                join_refused(codes::REBALANCE_IN_PROGRESS, id),
            );
            answer(&mut member.sync, sync_refused(codes::REBALANCE_IN_PROGRESS));
        }
    }

    /// Keeps what a coordinator writes to its log.
    fn write(&mut self) {
        let mut copy = self.clone();
        copy.written = None;
        copy.timer = None;
        copy.pending.clear();
        for member in copy.members.values_mut() {
            member.join = None;
            member.sync = None;
            member.is_new = false;
            member.unsynced = false;
        }
        self.written = Some(Box::new(copy));
    }

    /// Another broker becomes coordinator: rebalances under way are forgotten.
    pub(in crate::mock) fn reload(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            answer(&mut member.join, join_refused(codes::NOT_COORDINATOR, ""));
            answer(&mut member.sync, sync_refused(codes::NOT_COORDINATOR));
        }
        let memberships = self.memberships;
        let written = self.written.take();
        *self = written.map_or_else(Self::default, |written| *written);
        self.memberships = memberships;
        for member in self.members.values_mut() {
            member.renew(now);
        }
        self.write();
    }

    /// The group's state by Kafka's names.
    pub(in crate::mock) fn state(&self) -> &'static str {
        match self.state {
            State::Empty => "Empty",
            State::Preparing(_) => "PreparingRebalance",
            State::Completing => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }

    pub(in crate::mock) fn protocol_type(&self) -> &str {
        self.protocol_type.as_deref().unwrap_or_default()
    }

    /// The protocol that was chosen and holds, as long as the group is stable.
    pub(in crate::mock) fn stable_protocol(&self) -> Option<&str> {
        match self.state {
            State::Stable => self.protocol.as_deref(),
            _ => None,
        }
    }
}

fn first<'a, V>(mut found: impl Iterator<Item = (&'a String, V)>) -> Option<String> {
    found.next().map(|(id, _)| id.clone())
}

#[cfg(test)]
mod tests;
