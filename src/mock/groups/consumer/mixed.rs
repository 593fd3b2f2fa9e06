//! Members of the classic protocol in a group of KIP-848, while the group migrates: its rounds of
//! JoinGroup, SyncGroup and Heartbeat take the place of heartbeats that tell an assignment.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::{
    JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use uuid::Uuid;

use super::{
    Around, Classic, ConsumerGroup, Heartbeat, LEAVE_STATIC, Member, MemberState, intersect,
    without,
};
use crate::clock::Instant;
use crate::mock::assign::Parts;
use crate::mock::consumer_protocol;
use crate::mock::groups::classic::{self, Asker, ClassicGroup};
use crate::types::TopicPartition;
use crate::wire::codes;

/// The protocol type that can migrate.
const CONSUMER: &str = "consumer";

impl ConsumerGroup {
    /// The members of a classic group go on where they were; None if what they say about
    /// themselves is not what consumers say.
    pub(in crate::mock) fn upgraded(old: &ClassicGroup, around: &Around<'_>) -> Option<Self> {
        let mut group = Self {
            epoch: old.generation,
            target_epoch: old.generation,
            ..Self::default()
        };
        for (id, one) in &old.members {
            let (_, metadata) = one.protocols.first()?;
            let said = consumer_protocol::subscription(metadata)?;
            let assigned = consumer_protocol::assigned(&one.assignment)?;
            group.memberships += 1;
            let mut member = Member::new(&Heartbeat {
                instance_id: one.instance_id.clone(),
                client_id: one.client_id.clone(),
                rack: said.rack,
                rebalance_timeout: Some(one.rebalance_timeout),
                ..Heartbeat::default()
            });
            member.membership = group.memberships;
            member.epoch = old.generation;
            member.previous_epoch = old.generation;
            member.subscribed = said.topics.into_iter().collect();
            member.assigned = by_id(&assigned, around);
            member.session_end = Some(around.now + one.session_timeout);
            member.classic = Some(Classic {
                session_timeout: one.session_timeout,
                protocols: one.protocols.clone(),
                join_end: None,
                sync_end: None,
            });
            group.target.insert(id.clone(), member.assigned.clone());
            group.members.insert(id.clone(), member);
        }
        group.topics = group.subscribed_topics(around);
        group.names = group.subscribed_names(around);
        Some(group)
    }

    /// The classic group that it becomes when the last member of KIP-848 is gone; None as long as
    /// it is to remain what it is.
    pub(in crate::mock) fn downgraded(&self, now: Instant) -> Option<ClassicGroup> {
        if !self.downgrades || self.members.is_empty() {
            return None;
        }
        let members = self.members.iter().map(|(id, member)| {
            let spoken = member.classic.as_ref()?;
            let (_, metadata) = spoken.protocols.first()?;
            // What it was to have: where the group is upgraded before all have joined again, that
            // is still theirs.
            let parts = self.target.get(id).into_iter().flatten();
            let named = parts.filter_map(|(id, parts)| Some((self.names.get(id)?.as_str(), parts)));
            let known = classic::Member::resumed(
                member.instance_id.clone(),
                member.client_id.clone(),
                (member.rebalance_timeout, spoken.session_timeout),
                spoken.protocols.clone(),
                consumer_protocol::assignment(metadata, named),
                member.membership,
            );
            Some((id.clone(), known))
        });
        let members = members.collect::<Option<_>>()?;
        // The epoch that its members know: that one left begins no other.
        Some(ClassicGroup::resumed(self.target_epoch, members, now))
    }

    /// Answers a JoinGroup; a code and an id to refuse it with.
    pub(in crate::mock) fn join(
        &mut self,
        request: &JoinGroupRequest,
        asker: &Asker<'_>,
        around: &Around<'_>,
    ) -> Result<JoinGroupResponse, (i16, String)> {
        let given = request.member_id.to_string();
        let instance = request.group_instance_id.as_deref();
        let new = given.is_empty();
        let refused = |code| Err((code, given.clone()));
        let said = match request.protocols.first() {
            Some(first) if self.supports(request) => {
                consumer_protocol::subscription(&first.metadata)
            }
            _ => None,
        };
        let Some(said) = said else {
            return Err((codes::INCONSISTENT_GROUP_PROTOCOL, String::new()));
        };
        let id = match new {
            true => asker.random.clone(),
            false => given.clone(),
        };
        if new && instance.is_none() {
            return Err((codes::MEMBER_ID_REQUIRED, id));
        }
        match instance.map(|instance| self.static_member(instance)) {
            Some(Some(holder)) if holder != id => match self.members.get_mut(&holder) {
                // Its place is free for whoever comes without an id.
                Some(member) if new => member.epoch = LEAVE_STATIC,
                _ => return refused(codes::FENCED_INSTANCE_ID),
            },
            Some(None) if !new => return refused(codes::UNKNOWN_MEMBER_ID),
            _ => {}
        }
        let timeout = u64::try_from(request.rebalance_timeout_ms).unwrap_or(0);
        let session = u64::try_from(request.session_timeout_ms).unwrap_or(0);
        let timeout = Duration::from_millis(timeout);
        let session = Duration::from_millis(session);
        let former = self.members.get(&id).map(|member| member.membership);
        let beat = Heartbeat {
            member_id: id.clone(),
            instance_id: instance.map(str::to_owned),
            rack: said.rack,
            client_id: asker.client_id.to_owned(),
            rebalance_timeout: Some(timeout),
            topics: Some(said.topics),
            owned: Some(by_id(&said.owned, around)),
            ..Heartbeat::default()
        };
        let told = self.heartbeat(&beat, around);
        let told = told.map_err(|code| (code, given.clone()))?;
        let protocols: Vec<(String, Bytes)> = request
            .protocols
            .iter()
            .map(|protocol| (protocol.name.to_string(), protocol.metadata.clone()))
            .collect();
        if let Some(member) = self.members.get_mut(&id) {
            member.membership = former.unwrap_or(member.membership);
            member.session_end = Some(around.now + session);
            member.classic = Some(Classic {
                session_timeout: session,
                protocols,
                join_end: None,
                sync_end: Some(around.now + timeout),
            });
        }
        Ok(JoinGroupResponse::default()
            .with_member_id(text(&id))
            .with_generation_id(told.epoch)
            .with_protocol_type(Some(text(CONSUMER)))
            .with_protocol_name(request.protocols.first().map(|first| first.name.clone())))
    }

    /// Whether it names a protocol that all classic members, itself among them, have.
    fn supports(&self, request: &JoinGroupRequest) -> bool {
        let classic = || {
            let members = self.members.values();
            members.filter_map(|member| member.classic.as_ref())
        };
        *request.protocol_type == *CONSUMER
            && request.protocols.iter().any(|protocol| {
                let knows = |one: &Classic| one.protocols.iter().any(|(n, _)| *n == *protocol.name);
                classic().all(knows)
            })
    }

    fn static_member(&self, instance: &str) -> Option<String> {
        let mut members = self.members.iter();
        let found = members.find(|(_, member)| member.instance_id.as_deref() == Some(instance));
        found.map(|(id, _)| id.clone())
    }

    /// The member if it is one, speaks the classic protocol, and no newer one took its place.
    fn classic_member(&self, id: &str, instance: Option<&str>) -> Result<&Member, i16> {
        if let Some(instance) = instance {
            let holder = self.static_member(instance);
            if holder.ok_or(codes::UNKNOWN_MEMBER_ID)? != id {
                return Err(codes::FENCED_INSTANCE_ID);
            }
        }
        let member = self.members.get(id);
        let member = member.filter(|member| member.classic.is_some());
        member.ok_or(codes::UNKNOWN_MEMBER_ID)
    }

    /// Answers a SyncGroup, always at once.
    pub(in crate::mock) fn sync<'a>(
        &mut self,
        request: &SyncGroupRequest,
        now: Instant,
        name_of: impl Fn(Uuid) -> Option<&'a str>,
    ) -> Result<SyncGroupResponse, i16> {
        let id: &str = &request.member_id;
        let member = self.classic_member(id, request.group_instance_id.as_deref())?;
        if member.epoch != request.generation_id {
            return Err(codes::ILLEGAL_GENERATION);
        }
        let protocols = member.classic.iter().flat_map(|classic| &classic.protocols);
        let Some((first, metadata)) = protocols.into_iter().next() else {
            return Err(codes::INCONSISTENT_GROUP_PROTOCOL);
        };
        let kind = request.protocol_type.as_deref();
        let name = request.protocol_name.as_deref();
        if kind.is_some_and(|kind| kind != CONSUMER) || name.is_some_and(|name| *name != **first) {
            return Err(codes::INCONSISTENT_GROUP_PROTOCOL);
        }
        if self.epoch > member.epoch && member.state != MemberState::Unrevoked {
            self.is_to_join(id, now);
            return Err(codes::REBALANCE_IN_PROGRESS);
        }
        let parts = member.assigned.iter();
        let named = parts.filter_map(|(id, partitions)| Some((name_of(*id)?, partitions)));
        let assignment = consumer_protocol::assignment(metadata, named);
        self.renew(id, now, |classic| classic.sync_end = None);
        Ok(SyncGroupResponse::default()
            .with_protocol_type(request.protocol_type.clone())
            .with_protocol_name(request.protocol_name.clone())
            .with_assignment(assignment))
    }

    /// The code to answer a Heartbeat of a classic member with.
    pub(in crate::mock) fn classic_heartbeat(
        &mut self,
        id: &str,
        instance: Option<&str>,
        generation: i32,
        now: Instant,
    ) -> i16 {
        let member = match self.classic_member(id, instance) {
            Ok(member) => member,
            Err(code) => return code,
        };
        if member.epoch != generation {
            return codes::ILLEGAL_GENERATION;
        }
        let behind = member.epoch < self.epoch
            || match member.state {
                MemberState::Stable => false,
                MemberState::Unrevoked => true,
                MemberState::Unreleased => !self.is_waiting(id, member),
            };
        self.renew(id, now, |_| {});
        if behind {
            self.is_to_join(id, now);
            return codes::REBALANCE_IN_PROGRESS;
        }
        codes::NONE
    }

    /// Whether others still have what the member is to get.
    fn is_waiting(&self, id: &str, member: &Member) -> bool {
        let empty = Parts::new();
        let coming = without(self.target.get(id).unwrap_or(&empty), &member.assigned);
        let others = self.members.iter().filter(|(other, _)| *other != id);
        let mut held = others.flat_map(|(_, other)| [&other.assigned, &other.revoking]);
        held.any(|parts| intersect(parts, &coming))
    }

    fn is_to_join(&mut self, id: &str, now: Instant) {
        if let Some(member) = self.members.get_mut(id)
            && let Some(classic) = &mut member.classic
        {
            let end = now + member.rebalance_timeout;
            classic.join_end.get_or_insert(end);
        }
    }

    fn renew(&mut self, id: &str, now: Instant, also: impl FnOnce(&mut Classic)) {
        if let Some(member) = self.members.get_mut(id)
            && let Some(classic) = &mut member.classic
        {
            member.session_end = Some(now + classic.session_timeout);
            also(classic);
        }
    }

    /// Takes members out, by id or by instance id alone, whatever they speak; a code for each.
    pub(in crate::mock) fn leave_all(&mut self, leaving: &[MemberIdentity]) -> Vec<i16> {
        let found: Vec<Result<String, i16>> = leaving.iter().map(|one| self.leaver(one)).collect();
        let epoch = self.epoch;
        for id in found.iter().flatten() {
            self.remove(id);
        }
        // However many leave by one request.
        self.epoch = self.epoch.min(epoch + 1);
        let codes = found.into_iter().map(|found| found.err());
        codes.map(|code| code.unwrap_or(codes::NONE)).collect()
    }

    fn leaver(&self, leaving: &MemberIdentity) -> Result<String, i16> {
        let id: &str = &leaving.member_id;
        let holder = match leaving.group_instance_id.as_deref() {
            None if self.members.contains_key(id) => return Ok(id.to_owned()),
            None => None,
            Some(instance) => self.static_member(instance),
        };
        let holder = holder.ok_or(codes::UNKNOWN_MEMBER_ID)?;
        match id.is_empty() || *holder == *id {
            true => Ok(holder),
            false => Err(codes::FENCED_INSTANCE_ID),
        }
    }
}

fn by_id(partitions: &[TopicPartition], around: &Around<'_>) -> Parts {
    let mut parts = Parts::new();
    for partition in partitions {
        if let Some((id, _)) = (around.topic)(&partition.topic) {
            let known: &mut BTreeSet<i32> = parts.entry(id).or_default();
            known.insert(partition.partition);
        }
    }
    parts
}

fn text(text: &str) -> kafka_protocol::protocol::StrBytes {
    kafka_protocol::protocol::StrBytes::from_string(text.to_owned())
}
