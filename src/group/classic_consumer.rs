//! A consumer in a group of the protocol `classic`: what it says about itself there, what it gives
//! up when the group rebalances, and what it assigns when it leads.
//!
//! A machine around that of the protocol. Assignors run here: in whatever task drives it, under no
//! lock.
//!
//! Invariants:
//! - Eagerly, everything is given up before the member joins again. Cooperatively (KIP-429), only
//!   topics that it does not subscribe to any more are; what the new assignment lacks is given up
//!   when that is known, and then the member joins again, so that others get it.
//! - New partitions are taken after those that go were given up.
//! - What is lost is told as such, and what was to be given up then is not waited for.
//! - The leader assigns when all topics that anybody subscribes to were looked up, and joins again
//!   when one of them has another number of partitions.
//! - What another member says, or an assignor answers, cannot make this one spin: after nonsense it
//!   waits before it joins again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::GroupMembershipOperation;
use super::assignor::{
    ClusterView, GroupSubscription, MemberAssignment, MemberSubscription, MemberView,
    RebalanceProtocol,
};
use super::assignors::Assignors;
use super::classic::{self, Assigned, Election, Event};
use super::messages::{Effect, GroupResponse, MemberIdentity, Subscription, Token};
use super::subscription::{
    decode_assignment, decode_subscription, encode_assignment, encode_subscription,
};
use crate::clock::Instant;
use crate::cluster::Snapshot;
use crate::error::{Error, ErrorKind, Result};
use crate::types::TopicPartition;

pub(crate) const PROTOCOL_TYPE: &str = "consumer";

/// What a consumer needs to know of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) classic: classic::Settings,
    pub(crate) rack: Option<Arc<str>>,
    pub(crate) assignors: Assignors,
}

type Partitions = BTreeSet<TopicPartition>;

/// The machine; see the module's documentation.
#[derive(Debug)]
pub(crate) struct ClassicConsumer {
    member: classic::Member,
    settings: Settings,
    protocol: RebalanceProtocol,
    /// In order; `None` where there is no subscription.
    topics: Option<Vec<Arc<str>>>,
    owned: Partitions,
    /// The last one, for assignors, and its generation.
    assignment: Option<(MemberAssignment, i32)>,
    /// The first assignment of this life was told, though it may be empty.
    told_in: u64,
    /// What the application is giving up, and what it gets then.
    revoking: Option<(Partitions, Option<Partitions>)>,
    /// The group waits for this member to join.
    preparing: bool,
    electing: Option<Electing>,
    /// The leader's: numbers of partitions by which it assigned, of all topics of the group.
    counts: Option<BTreeMap<Arc<str>, usize>>,
    /// The topics of the whole group are watched.
    watching: bool,
    metadata_changed: bool,
    effects: VecDeque<Effect>,
}

#[derive(Debug)]
struct Electing {
    election: Election,
    group: GroupSubscription,
    topics: Vec<Arc<str>>,
    /// Topics of which nothing is known by then do not exist, as far as the group is concerned.
    until: Instant,
}

impl ClassicConsumer {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            member: classic::Member::new(settings.classic.clone()),
            protocol: settings.assignors.protocol(),
            settings,
            topics: None,
            owned: Partitions::new(),
            assignment: None,
            told_in: 0,
            revoking: None,
            preparing: false,
            electing: None,
            counts: None,
            watching: false,
            metadata_changed: false,
            effects: VecDeque::new(),
        }
    }

    /// A member whose memberships count on from that number, and which tells first what became of
    /// the last one.
    pub(crate) fn after(life: u64, effects: VecDeque<Effect>, settings: Settings) -> Self {
        let mut consumer = Self::new(settings);
        consumer.member.count_on(life);
        consumer.told_in = life;
        consumer.effects = effects;
        consumer
    }

    pub(crate) fn subscribe(&mut self, subscription: Subscription) {
        let mut topics = match subscription {
            Subscription::Names(topics) => topics,
            Subscription::Regex(_) => {
                self.effects.push_back(Effect::Fail(no_patterns()));
                return;
            }
        };
        topics.sort_unstable();
        topics.dedup();
        if self.topics.as_ref() != Some(&topics) {
            self.topics = Some(topics);
            self.member.rejoin("the subscription has changed");
        }
        self.resume();
    }

    pub(crate) fn metadata_changed(&mut self) {
        self.metadata_changed = true;
    }

    pub(crate) fn life(&self) -> u64 {
        self.member.life()
    }

    pub(crate) fn resume(&mut self) {
        if self.topics.is_some() {
            self.member.join();
        }
    }

    pub(crate) fn absent(&mut self) {
        if self.member.is_in() {
            self.lose_all();
            let reason = "the application did not poll within max.poll.interval.ms";
            self.member.leave(GroupMembershipOperation::Default, reason);
        }
    }

    pub(crate) fn retire(&mut self) -> bool {
        self.topics = None;
        self.member.is_in() && !self.owned.is_empty()
    }

    pub(crate) fn leave(&mut self, operation: GroupMembershipOperation) {
        self.owned.clear();
        self.forget();
        self.member
            .leave(operation, "the consumer is closed or unsubscribes");
    }

    pub(crate) fn revoked(&mut self) {
        // Else the membership has ended meanwhile, and with it what was to be given up.
        let Some((given_up, then)) = self.revoking.take() else {
            return;
        };
        self.owned.retain(|tp| !given_up.contains(tp));
        if let Some(assigned) = then.filter(|_| self.topics.is_some()) {
            self.take(&assigned);
            self.member.rejoin("partitions were given up for others");
        }
        if self.preparing {
            self.prepare();
        }
    }

    pub(crate) fn is_in(&self) -> bool {
        self.member.is_in()
    }

    pub(crate) fn identity(&self) -> Option<MemberIdentity> {
        self.member.identity()
    }

    pub(crate) fn handle(&mut self, now: Instant, token: Token, answer: Result<GroupResponse>) {
        self.member.handle(now, token, answer);
    }

    pub(crate) fn poll(&mut self, now: Instant, snapshot: &Snapshot) -> Option<Effect> {
        loop {
            if let Some(effect) = self.effects.pop_front() {
                return Some(effect);
            }
            if std::mem::take(&mut self.metadata_changed) && self.counts_changed(snapshot) {
                self.counts = None;
                self.member
                    .rejoin("topics have another number of partitions");
            }
            self.elect_if_known(now, snapshot);
            match self.member.poll(now)? {
                Event::Send(token, request) => return Some(Effect::Send(token, request)),
                Event::Prepare => {
                    self.preparing = true;
                    self.electing = None;
                    if self.revoking.is_none() {
                        self.prepare();
                    }
                }
                Event::Elect(election) => self.begin_election(now, election),
                Event::Assigned(assigned) => self.assigned(now, &assigned),
                Event::Lost => self.lose_all(),
                Event::Fail(error) => return Some(Effect::Fail(error)),
                Event::Left => return Some(Effect::Left),
            }
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let election = self.electing.as_ref().map(|electing| electing.until);
        election.into_iter().chain(self.member.next_timeout()).min()
    }

    /// The group waits: gives up what is not to be kept, and then says what the member joins with.
    fn prepare(&mut self) {
        // One without a subscription is about to leave.
        let Some(topics) = &self.topics else {
            return;
        };
        let mut surplus = self.owned.clone();
        if self.protocol == RebalanceProtocol::Cooperative {
            surplus.retain(|tp| topics.binary_search(&tp.topic).is_err());
        }
        if !surplus.is_empty() && !crate::planted("kept-through-an-eager-join") {
            return self.revoke(surplus, None);
        }
        self.preparing = false;
        let last = self.assignment.as_ref();
        let mut view = MemberView::new(topics);
        if let Some((assignment, generation)) = last {
            view = view.with_assignment(assignment, *generation);
        }
        let mut subscription = MemberSubscription::new(topics.iter().cloned());
        subscription.rack.clone_from(&self.settings.rack);
        subscription.owned_partitions = self.owned.iter().cloned().collect();
        subscription.generation = self.member.identity().map(|member| member.epoch);
        let mut protocols = Vec::new();
        for (name, data) in self.settings.assignors.user_data(&view) {
            subscription.user_data = data.unwrap_or_else(|error| {
                self.effects.push_back(Effect::Fail(error));
                None
            });
            protocols.push((name, encode_subscription(&subscription)));
        }
        self.member.prepared(protocols);
    }

    fn revoke(&mut self, partitions: Partitions, then: Option<Partitions>) {
        let told = partitions.iter().cloned().collect();
        self.effects.push_back(Effect::Revoke(told));
        self.revoking = Some((partitions, then));
    }

    fn begin_election(&mut self, now: Instant, election: Election) {
        match read_group(&election) {
            Ok(group) => {
                let topics: Vec<Arc<str>> = group.topics().into_iter().map(Arc::from).collect();
                self.effects.push_back(Effect::WatchGroup(topics.clone()));
                self.watching = true;
                self.electing = Some(Electing {
                    election,
                    group,
                    topics,
                    until: now + self.settings.classic.session_timeout / 3,
                });
            }
            Err(error) => self.member.elected(now, election.generation, Err(error)),
        }
    }

    fn elect_if_known(&mut self, now: Instant, snapshot: &Snapshot) {
        let known = |topic: &Arc<str>| {
            snapshot.topic(topic).is_some() || snapshot.errors.contains_key(topic)
        };
        let ready =
            |electing: &mut Electing| electing.until <= now || electing.topics.iter().all(known);
        let Some(electing) = self.electing.take_if(ready) else {
            return;
        };
        let count = |topic: &Arc<str>| (Arc::clone(topic), count(snapshot, topic));
        self.counts = Some(electing.topics.iter().map(count).collect());
        let Election {
            generation,
            protocol,
            skip,
            ..
        } = electing.election;
        let assignments = match skip {
            true => Ok(Vec::new()),
            false => {
                let topics = electing.topics.iter().map(|topic| &**topic);
                let cluster = ClusterView::of(snapshot, topics);
                self.assign(&protocol, &cluster, &electing.group)
            }
        };
        self.member.elected(now, generation, assignments);
    }

    fn assign(
        &self,
        assignor: &str,
        cluster: &ClusterView,
        group: &GroupSubscription,
    ) -> Result<Vec<(Arc<str>, Bytes)>> {
        let assignment = self.settings.assignors.assign(assignor, cluster, group)?;
        let members = assignment.members();
        let members = members.map(|(id, gets)| (Arc::from(id), encode_assignment(gets)));
        Ok(members.collect())
    }

    fn counts_changed(&self, snapshot: &Snapshot) -> bool {
        let mut counts = self.counts.iter().flatten();
        counts.any(|(topic, before)| count(snapshot, topic) != *before)
    }

    fn assigned(&mut self, now: Instant, assigned: &Assigned) {
        let Some(topics) = &self.topics else {
            return;
        };
        let Ok(assignment) = decode_assignment(&assigned.assignment) else {
            let message = "the group's leader assigned something that cannot be read: all members \
                           need assignors of the same format (partition.assignment.strategy)";
            let error = Error::new(ErrorKind::Protocol, message);
            self.effects.push_back(Effect::Fail(error));
            self.member
                .rejoin_later(now, "the assignment cannot be read");
            return;
        };
        let generation = assigned.generation;
        let told =
            self.settings
                .assignors
                .on_assignment(&assigned.protocol, &assignment, generation);
        if let Err(error) = told {
            self.effects.push_back(Effect::Fail(error));
        }
        let partitions = assignment.partitions.iter();
        let partitions: Partitions = partitions
            .filter(|tp| tp.partition >= 0 && topics.binary_search(&tp.topic).is_ok())
            .cloned()
            .collect();
        self.assignment = Some((assignment, generation));
        if self.member.leads() {
            self.metadata_changed = true;
        } else {
            self.stop_watching();
        }
        let surplus: Partitions = self.owned.difference(&partitions).cloned().collect();
        match surplus.is_empty() {
            true => self.take(&partitions),
            false => self.revoke(surplus, Some(partitions)),
        }
    }

    /// These are the member's now, of which it has some already.
    fn take(&mut self, partitions: &Partitions) {
        let added: Vec<_> = partitions.difference(&self.owned).cloned().collect();
        let first = std::mem::replace(&mut self.told_in, self.member.life()) != self.member.life();
        if added.is_empty() && !first {
            return;
        }
        self.owned.extend(added.iter().cloned());
        // The protocol knows topics by their names: one that is made again is the same to it.
        let added = added.into_iter().map(|tp| (tp, uuid::Uuid::nil()));
        self.effects.push_back(Effect::Assign(added.collect()));
    }

    fn lose_all(&mut self) {
        let lost: Vec<_> = std::mem::take(&mut self.owned).into_iter().collect();
        if !lost.is_empty() {
            self.effects.push_back(Effect::Lost(lost));
        }
        self.forget();
    }

    fn forget(&mut self) {
        self.revoking = None;
        self.electing = None;
        self.preparing = false;
        self.stop_watching();
    }

    fn stop_watching(&mut self) {
        self.counts = None;
        if std::mem::take(&mut self.watching) {
            self.effects.push_back(Effect::WatchGroup(Vec::new()));
        }
    }
}

fn count(snapshot: &Snapshot, topic: &str) -> usize {
    snapshot
        .topic(topic)
        .map_or(0, |topic| topic.partitions.len())
}

/// What all members have said about themselves.
fn read_group(election: &Election) -> Result<GroupSubscription> {
    let members = election.members.iter().map(|member| {
        let mut subscription = decode_subscription(&member.metadata).map_err(|_| {
            let id = &member.id;
            let message = format!("the subscription of the member '{id}' cannot be read");
            Error::new(ErrorKind::Protocol, message)
        })?;
        subscription.instance_id.clone_from(&member.instance_id);
        Ok((Arc::clone(&member.id), subscription))
    });
    members.collect()
}

fn no_patterns() -> Error {
    let message = "brokers match no topics by a pattern for members of the classic protocol: use a \
                   pattern that is matched by the client, or group.protocol=consumer";
    Error::new(ErrorKind::UnsupportedVersion, message)
}

#[cfg(test)]
mod tests;
