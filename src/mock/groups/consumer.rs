//! One group of the protocol of KIP-848 as its coordinator sees it: a machine.
//!
//! The rules are those of Kafka's `GroupMetadataManager`, `TargetAssignmentBuilder` and
//! `CurrentAssignmentBuilder`. Time is only looked at when a request comes: nobody can tell when
//! between two requests a member was thrown out.
//!
//! Invariants: a partition is a member's from when it is in `assigned` until it is out of both
//! `assigned` and `revoking`, and nobody else gets it in between; epochs only go up.

mod mixed;
mod patterns;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

pub(in crate::mock) use self::patterns::Catalogue;
use self::patterns::Patterns;
use crate::clock::Instant;
use crate::mock::assign::{self, Parts, Subscriber};
use crate::wire::codes;

#[derive(Clone, Debug, Default)]
pub(in crate::mock) struct ConsumerGroup {
    pub(in crate::mock) epoch: i32,
    pub(in crate::mock) target_epoch: i32,
    pub(in crate::mock) target: BTreeMap<String, Parts>,
    pub(in crate::mock) members: BTreeMap<String, Member>,
    /// Partition counts of the topics that the last group epoch was made for.
    topics: BTreeMap<Uuid, i32>,
    /// The names of what is in the target.
    names: BTreeMap<Uuid, String>,
    patterns: Patterns,
    /// Memberships begun so far.
    memberships: u64,
    /// Whether it becomes a classic group when all members left are classic ones.
    pub(in crate::mock) downgrades: bool,
}

#[derive(Clone, Debug)]
pub(in crate::mock) struct Member {
    pub(in crate::mock) instance_id: Option<String>,
    pub(in crate::mock) rack: Option<String>,
    pub(in crate::mock) client_id: String,
    pub(in crate::mock) epoch: i32,
    /// Another one after each (re-)joining: what was its own before may be somebody else's since.
    pub(in crate::mock) membership: u64,
    previous_epoch: i32,
    rebalance_timeout: Duration,
    pub(in crate::mock) subscribed: BTreeSet<String>,
    /// A regular expression of topics, beside those that it names.
    pub(in crate::mock) regex: Option<String>,
    assignor: Option<String>,
    pub(in crate::mock) assigned: Parts,
    revoking: Parts,
    state: MemberState,
    session_end: Option<Instant>,
    rebalance_end: Option<Instant>,
    /// What there is to a member that speaks the classic protocol.
    pub(in crate::mock) classic: Option<Classic>,
}

#[derive(Clone, Debug)]
pub(in crate::mock) struct Classic {
    session_timeout: Duration,
    /// Names with what it says about itself, the best first.
    protocols: Vec<(String, Bytes)>,
    /// Until when it is to join again.
    join_end: Option<Instant>,
    /// Until when it is to ask for its assignment.
    sync_end: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MemberState {
    Stable,
    /// It has not said yet that it gave partitions up.
    Unrevoked,
    /// Others have not given up what it is to get.
    Unreleased,
}

/// A ConsumerGroupHeartbeat; `None` is "unchanged".
#[derive(Clone, Debug, Default)]
pub(in crate::mock) struct Heartbeat {
    pub(in crate::mock) member_id: String,
    pub(in crate::mock) epoch: i32,
    pub(in crate::mock) instance_id: Option<String>,
    pub(in crate::mock) rack: Option<String>,
    pub(in crate::mock) client_id: String,
    pub(in crate::mock) rebalance_timeout: Option<Duration>,
    pub(in crate::mock) topics: Option<Vec<String>>,
    /// Empty: none any more.
    pub(in crate::mock) regex: Option<String>,
    pub(in crate::mock) assignor: Option<String>,
    pub(in crate::mock) owned: Option<Parts>,
}

/// What the member is told; `assigned` is `None` for "unchanged".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::mock) struct Told {
    pub(in crate::mock) epoch: i32,
    pub(in crate::mock) assigned: Option<Parts>,
}

/// What a group needs to know of the cluster.
pub(in crate::mock) struct Around<'a> {
    pub(in crate::mock) now: Instant,
    pub(in crate::mock) session_timeout: Duration,
    /// Id and number of partitions of a topic.
    pub(in crate::mock) topic: &'a dyn Fn(&str) -> Option<(Uuid, i32)>,
    pub(in crate::mock) catalogue: Catalogue<'a>,
}

const LEAVE: i32 = -1;
const LEAVE_STATIC: i32 = -2;
/// The assignors that brokers have; the first is taken if nobody wants another.
const ASSIGNORS: [&str; 2] = ["uniform", "range"];

impl ConsumerGroup {
    /// Checks a heartbeat by itself; brokers answer INVALID_REQUEST with the message.
    pub(in crate::mock) fn check(beat: &Heartbeat) -> Result<(), (i16, &'static str)> {
        let invalid = |why| Err((codes::INVALID_REQUEST, why));
        if beat.member_id.is_empty() {
            return invalid("MemberId can't be empty.");
        }
        if beat.epoch < LEAVE_STATIC {
            return invalid("MemberEpoch is invalid.");
        }
        if beat.epoch == LEAVE_STATIC && beat.instance_id.is_none() {
            return invalid("InstanceId can't be null.");
        }
        if beat.epoch == 0 {
            if beat.rebalance_timeout.is_none() {
                return invalid("RebalanceTimeoutMs must be provided in first request.");
            }
            if beat.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
                return invalid("TopicPartitions must be empty when (re-)joining.");
            }
            if beat.topics.is_none() && beat.regex.is_none() {
                return invalid(
                    "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
                );
            }
        }
        match &beat.assignor {
            Some(name) if !ASSIGNORS.contains(&name.as_str()) => Err((
                codes::UNSUPPORTED_ASSIGNOR,
                "ServerAssignor is not supported. Supported assignors: uniform, range.",
            )),
            _ => Ok(()),
        }
    }

    /// Throws out whoever was silent, or kept what it should have given up, for too long.
    pub(in crate::mock) fn expire(&mut self, now: Instant) {
        let over = |end: Option<Instant>| end.is_some_and(|end| end <= now);
        let gone: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| {
                let classic = member.classic.as_ref();
                let late = |classic: &Classic| over(classic.join_end) || over(classic.sync_end);
                over(member.session_end) || over(member.rebalance_end) || classic.is_some_and(late)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            tracing::info!(member = %id, "the mock's coordinator throws out a member");
            self.remove(&id);
        }
    }

    /// The sessions of all members begin anew, as when another broker becomes coordinator.
    pub(in crate::mock) fn renew_sessions(&mut self, now: Instant, session_timeout: Duration) {
        for member in self.members.values_mut() {
            if member.epoch >= 0 {
                let classic = member.classic.as_ref();
                let own = classic.map(|classic| classic.session_timeout);
                member.session_end = Some(now + own.unwrap_or(session_timeout));
            }
            if member.rebalance_end.is_some() {
                member.rebalance_end = Some(now + member.rebalance_timeout);
            }
        }
    }

    fn remove(&mut self, id: &str) {
        if self.members.remove(id).is_some() {
            self.target.remove(id);
            self.epoch += 1;
        }
    }

    /// A heartbeat that passed [`ConsumerGroup::check`].
    pub(in crate::mock) fn heartbeat(
        &mut self,
        beat: &Heartbeat,
        around: &Around<'_>,
    ) -> Result<Told, i16> {
        self.expire(around.now);
        if beat.epoch < 0 {
            return self.leave(beat, around);
        }
        if !self.accepts(beat, around) {
            // Who may not speak here is told that first.
            self.clone().enter(beat)?;
            return Err(codes::INVALID_REGULAR_EXPRESSION);
        }
        let wanted = expressions(&self.members);
        if self.patterns.look(around.now, &wanted, &around.catalogue) {
            self.topics = self.subscribed_topics(around);
            self.epoch += 1;
        }
        self.enter(beat)?;
        if beat.epoch == 0
            && let Some(member) = self.members.get_mut(&beat.member_id)
        {
            self.memberships += 1;
            member.membership = self.memberships;
        }
        let new = self.is_new(beat);
        let changed = self.update(beat);
        let topics = self.subscribed_topics(around);
        // A member that wants nothing, or nothing known, changes nothing; but no group stays at 0.
        if changed || topics != self.topics || self.epoch == 0 {
            self.topics = topics;
            self.epoch += 1;
        }
        if self.epoch > self.target_epoch {
            self.assign(around);
        }
        let wanted = expressions(&self.members);
        let made = around.catalogue.made;
        self.patterns.plan(around.now, &wanted, new, made);
        let before = self
            .members
            .get(&beat.member_id)
            .map(|member| member.assigned.clone());
        self.reconcile(&beat.member_id, beat.owned.as_ref());
        let Some(member) = self.members.get_mut(&beat.member_id) else {
            return Err(codes::UNKNOWN_MEMBER_ID);
        };
        member.session_end = Some(around.now + around.session_timeout);
        member.rebalance_end = match member.state {
            MemberState::Unrevoked => member
                .rebalance_end
                .or(Some(around.now + member.rebalance_timeout)),
            _ => None,
        };
        let full = beat.epoch == 0
            || beat.rebalance_timeout.is_some() && beat.topics.is_some() && beat.owned.is_some();
        let tell = full || before.as_ref() != Some(&member.assigned);
        Ok(Told {
            epoch: member.epoch,
            assigned: tell.then(|| member.assigned.clone()),
        })
    }

    /// Whether the regular expression is one, if there is any.
    fn accepts(&self, beat: &Heartbeat, around: &Around<'_>) -> bool {
        let regex = beat.regex.as_deref().unwrap_or_default();
        regex.is_empty() || (around.catalogue.matching)(regex).is_some()
    }

    /// Whether nobody in the group has the member's regular expression so far.
    fn is_new(&self, beat: &Heartbeat) -> bool {
        let regex = beat.regex.as_deref().unwrap_or_default();
        !regex.is_empty() && !expressions(&self.members).contains(regex)
    }

    fn leave(&mut self, beat: &Heartbeat, around: &Around<'_>) -> Result<Told, i16> {
        let Some(member) = self.members.get_mut(&beat.member_id) else {
            return Err(codes::UNKNOWN_MEMBER_ID);
        };
        if beat.instance_id.is_some() && member.instance_id != beat.instance_id {
            return Err(codes::FENCED_INSTANCE_ID);
        }
        if beat.epoch == LEAVE_STATIC {
            // Its place is kept until the session ends; what it had it gave up.
            self.memberships += 1;
            member.membership = self.memberships;
            member.epoch = LEAVE_STATIC;
            member.revoking.clear();
            member.rebalance_end = None;
            member.session_end = Some(around.now + around.session_timeout);
        } else {
            debug_assert_eq!(beat.epoch, LEAVE);
            self.remove(&beat.member_id);
        }
        Ok(Told {
            epoch: beat.epoch,
            assigned: None,
        })
    }

    /// Finds the member, or takes it in.
    fn enter(&mut self, beat: &Heartbeat) -> Result<(), i16> {
        if let Some(instance) = &beat.instance_id {
            return self.enter_static(beat, instance);
        }
        match self.members.get(&beat.member_id) {
            Some(member) if beat.epoch > 0 => member.check_epoch(beat),
            Some(_) => Ok(()),
            None if beat.epoch > 0 => Err(codes::UNKNOWN_MEMBER_ID),
            None => {
                self.members
                    .insert(beat.member_id.clone(), Member::new(beat));
                Ok(())
            }
        }
    }

    fn enter_static(&mut self, beat: &Heartbeat, instance: &str) -> Result<(), i16> {
        let holder = self
            .members
            .iter()
            .find(|(_, member)| member.instance_id.as_deref() == Some(instance))
            .map(|(id, member)| (id.clone(), member.epoch));
        match holder {
            None if beat.epoch > 0 => Err(codes::UNKNOWN_MEMBER_ID),
            None => {
                self.members
                    .insert(beat.member_id.clone(), Member::new(beat));
                Ok(())
            }
            Some((id, _)) if beat.epoch > 0 => {
                if id != beat.member_id {
                    return Err(codes::FENCED_INSTANCE_ID);
                }
                self.members
                    .get(&id)
                    .ok_or(codes::UNKNOWN_MEMBER_ID)?
                    .check_epoch(beat)
            }
            Some((id, epoch)) => {
                if epoch != LEAVE_STATIC && id != beat.member_id {
                    return Err(codes::UNRELEASED_INSTANCE_ID);
                }
                // The new member takes the old one's place, and what it was to have.
                if let Some(old) = self.members.remove(&id) {
                    let mut member = Member::new(beat);
                    member.subscribed = old.subscribed;
                    member.regex = old.regex;
                    member.assignor = old.assignor;
                    member.assigned = old.assigned;
                    self.members.insert(beat.member_id.clone(), member);
                }
                if let Some(parts) = self.target.remove(&id) {
                    self.target.insert(beat.member_id.clone(), parts);
                }
                Ok(())
            }
        }
    }

    /// Takes in what the member said about itself. True if the group must be assigned anew.
    fn update(&mut self, beat: &Heartbeat) -> bool {
        let Some(member) = self.members.get_mut(&beat.member_id) else {
            return false;
        };
        if let Some(timeout) = beat.rebalance_timeout {
            member.rebalance_timeout = timeout;
        }
        member.client_id.clone_from(&beat.client_id);
        member.classic = None;
        let mut changed = false;
        if let Some(topics) = &beat.topics {
            let topics: BTreeSet<String> = topics.iter().cloned().collect();
            changed |= member.subscribed != topics;
            member.subscribed = topics;
        }
        if let Some(regex) = &beat.regex {
            let regex = Some(regex).filter(|regex| !regex.is_empty()).cloned();
            if member.regex != regex {
                // One that is new to the group counts when its topics were found.
                changed |= regex
                    .as_ref()
                    .is_none_or(|regex| self.patterns.is_known(regex));
                member.regex = regex;
            }
        }
        if beat.assignor.is_some() && member.assignor != beat.assignor {
            member.assignor.clone_from(&beat.assignor);
            changed = true;
        }
        if beat.rack.is_some() {
            member.rack.clone_from(&beat.rack);
        }
        changed
    }

    /// The topics that a member wants, by name and by expression.
    fn topics_of<'a>(&'a self, member: &'a Member) -> impl Iterator<Item = &'a String> {
        let regex = member.regex.iter();
        let matching = regex.flat_map(|regex| self.patterns.topics(regex));
        member.subscribed.iter().chain(matching)
    }

    fn subscribed_topics(&self, around: &Around<'_>) -> BTreeMap<Uuid, i32> {
        let members = self.members.values();
        let names: BTreeSet<&String> = members.flat_map(|member| self.topics_of(member)).collect();
        names
            .into_iter()
            .filter_map(|name| (around.topic)(name))
            .collect()
    }

    fn subscribed_names(&self, around: &Around<'_>) -> BTreeMap<Uuid, String> {
        let members = self.members.values();
        let names = members.flat_map(|member| self.topics_of(member));
        names
            .filter_map(|name| Some(((around.topic)(name)?.0, name.clone())))
            .collect()
    }

    /// The assignor that most members want.
    pub(in crate::mock) fn assignor(&self) -> &'static str {
        let wanted = |name: &str| {
            let mut votes = self
                .members
                .values()
                .filter_map(|member| member.assignor.as_deref());
            votes.by_ref().filter(|vote| *vote == name).count()
        };
        if wanted(ASSIGNORS[1]) > wanted(ASSIGNORS[0]) {
            return ASSIGNORS[1];
        }
        ASSIGNORS[0]
    }

    fn assign(&mut self, around: &Around<'_>) {
        let subscriber = |id: &String, member: &Member| Subscriber {
            topics: self
                .topics_of(member)
                .filter_map(|name| (around.topic)(name))
                .map(|(id, _)| id)
                .collect(),
            current: self.target.get(id).cloned().unwrap_or_default(),
        };
        let members = self
            .members
            .iter()
            .map(|(id, member)| (id.clone(), subscriber(id, member)))
            .collect();
        self.target = match self.assignor() {
            "range" => assign::range(&members, &self.topics),
            _ => assign::uniform(&members, &self.topics),
        };
        self.names = self.subscribed_names(around);
        self.target_epoch = self.epoch;
    }

    /// Brings one member a step closer to its target.
    fn reconcile(&mut self, id: &str, owned: Option<&Parts>) {
        let Some(mut member) = self.members.remove(id) else {
            return;
        };
        let go_on = match member.state {
            MemberState::Stable => member.epoch != self.target_epoch,
            MemberState::Unrevoked => {
                owned.is_some_and(|owned| !intersect(owned, &member.revoking))
            }
            MemberState::Unreleased => true,
        };
        if go_on {
            self.next_assignment(id, &mut member, owned);
        }
        self.members.insert(id.to_owned(), member);
    }

    fn next_assignment(&self, id: &str, member: &mut Member, owned: Option<&Parts>) {
        let empty = Parts::new();
        let target = self.target.get(id).unwrap_or(&empty);
        let kept = common(&member.assigned, target);
        let revoking = without(&member.assigned, &kept);
        let mut coming = without(target, &kept);
        let held = self
            .members
            .values()
            .flat_map(|other| [&other.assigned, &other.revoking]);
        let before = count(&coming);
        for parts in held {
            if crate::planted("broker-gives-away-what-is-in-use") {
                break;
            }
            coming = without(&coming, parts);
        }
        let unreleased = count(&coming) < before;
        let still_owns = owned.is_none_or(|owned| intersect(owned, &revoking));
        if !revoking.is_empty() && still_owns {
            member.assigned = kept;
            member.revoking = revoking;
            member.state = MemberState::Unrevoked;
            return;
        }
        member.assigned = kept;
        for (topic, partitions) in coming {
            member.assigned.entry(topic).or_default().extend(partitions);
        }
        member.revoking.clear();
        member.state = match unreleased {
            true => MemberState::Unreleased,
            false => MemberState::Stable,
        };
        if member.epoch != self.target_epoch {
            member.previous_epoch = member.epoch;
            member.epoch = self.target_epoch;
        }
    }

    /// The group's state by Kafka's names.
    pub(in crate::mock) fn state(&self) -> &'static str {
        let reconciled = |member: &Member| {
            member.state == MemberState::Stable && member.epoch == self.target_epoch
        };
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.target_epoch {
            "Assigning"
        } else if !self.members.values().all(reconciled) {
            "Reconciling"
        } else {
            "Stable"
        }
    }

    /// Whether the member, or if there is none of this id anybody, is no classic one.
    pub(in crate::mock) fn speaks_kip_848(&self, member: &str) -> bool {
        match self.members.get(member) {
            Some(member) => member.classic.is_none(),
            None => !self.members.is_empty(),
        }
    }

    /// The code to refuse a commit with (`api_version` 9 knows member epochs).
    pub(in crate::mock) fn check_commit(&self, member: &str, epoch: i32) -> Result<(), i16> {
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        let member = self.members.get(member).ok_or(codes::UNKNOWN_MEMBER_ID)?;
        member.check_offsets(epoch)
    }
}

impl Member {
    fn new(beat: &Heartbeat) -> Self {
        Self {
            instance_id: beat.instance_id.clone(),
            rack: beat.rack.clone(),
            client_id: beat.client_id.clone(),
            epoch: 0,
            membership: 0,
            previous_epoch: -1,
            rebalance_timeout: beat.rebalance_timeout.unwrap_or_default(),
            subscribed: BTreeSet::new(),
            regex: None,
            assignor: None,
            assigned: Parts::new(),
            revoking: Parts::new(),
            state: MemberState::Stable,
            session_end: None,
            rebalance_end: None,
            classic: None,
        }
    }

    /// Whether it may commit or look offsets up with this epoch.
    pub(in crate::mock) fn check_offsets(&self, epoch: i32) -> Result<(), i16> {
        match (self.epoch == epoch, &self.classic) {
            (true, _) => Ok(()),
            (false, None) => Err(codes::STALE_MEMBER_EPOCH),
            (false, Some(_)) => Err(codes::ILLEGAL_GENERATION),
        }
    }

    /// An answer may be lost, so that a member comes with its previous epoch; it is fine if what it
    /// has is still its own.
    fn check_epoch(&self, beat: &Heartbeat) -> Result<(), i16> {
        let subset = |owned: &Parts| without(owned, &self.assigned).is_empty();
        let fine = beat.epoch == self.epoch
            || beat.epoch < self.epoch
                && beat.epoch == self.previous_epoch
                && beat.owned.as_ref().is_some_and(subset);
        match fine {
            true => Ok(()),
            false => Err(codes::FENCED_MEMBER_EPOCH),
        }
    }
}

/// The regular expressions of all members.
fn expressions(members: &BTreeMap<String, Member>) -> BTreeSet<&str> {
    let each = members
        .values()
        .filter_map(|member| member.regex.as_deref());
    each.collect()
}

fn common(a: &Parts, b: &Parts) -> Parts {
    combine(a, b, |partition, other| {
        other.is_some_and(|other| other.contains(partition))
    })
}

fn without(a: &Parts, b: &Parts) -> Parts {
    combine(a, b, |partition, other| {
        !other.is_some_and(|other| other.contains(partition))
    })
}

fn combine(a: &Parts, b: &Parts, keep: impl Fn(&i32, Option<&BTreeSet<i32>>) -> bool) -> Parts {
    let parts = a.iter().map(|(topic, partitions)| {
        let other = b.get(topic);
        let kept = partitions
            .iter()
            .copied()
            .filter(|partition| keep(partition, other));
        (*topic, kept.collect::<BTreeSet<i32>>())
    });
    parts
        .filter(|(_, partitions)| !partitions.is_empty())
        .collect()
}

fn intersect(a: &Parts, b: &Parts) -> bool {
    !common(a, b).is_empty()
}

fn count(parts: &Parts) -> usize {
    parts.values().map(BTreeSet::len).sum()
}

#[cfg(test)]
mod tests;
