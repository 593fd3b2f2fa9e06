//! Members of classic groups: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, and their commits.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;

use super::groups::{LOADING, NOT_COORDINATOR, coordinator};
use super::topics::{fresh, named};
use super::wire::{Result, Wire, text};

/// Long enough for a request to reach the group before the next one does.
const MOMENT: Duration = Duration::from_millis(300);
const NOBODY: &str = "nobody";

/// One that may be a member, with a connection of its own.
struct Member {
    wire: Wire,
    group: String,
    topic: String,
    id: String,
    instance: Option<&'static str>,
    /// Where it is not `consumer`.
    kind: &'static str,
    session: i32,
    version: i16,
}

impl Member {
    async fn new(bootstrap: &str, group: &str) -> Result<Self> {
        Ok(Self {
            wire: Wire::connect(bootstrap).await?,
            group: group.to_owned(),
            topic: group.to_owned(),
            id: String::new(),
            instance: None,
            kind: "consumer",
            session: 45_000,
            version: 9,
        })
    }

    /// Joins, and keeps the id that it is told.
    async fn join(&mut self, protocols: &[(&str, &str)]) -> Result<String> {
        let one = |(name, metadata): &(&str, &str)| {
            JoinGroupRequestProtocol::default()
                .with_name(text(name))
                .with_metadata(Bytes::from((*metadata).to_owned()))
        };
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_session_timeout_ms(self.session)
            .with_rebalance_timeout_ms(60_000)
            .with_member_id(text(&self.id))
            .with_group_instance_id(self.instance.map(text))
            .with_protocol_type(text(self.kind))
            .with_protocols(protocols.iter().map(one).collect());
        let mut answer: JoinGroupResponse = self.wire.ask(11, self.version, &request).await?;
        while matches!(answer.error_code, LOADING..=NOT_COORDINATOR) {
            tokio::time::sleep(MOMENT).await;
            answer = self.wire.ask(11, self.version, &request).await?;
        }
        if !answer.member_id.is_empty() {
            self.id = answer.member_id.to_string();
        }
        let mut members: Vec<String> = answer
            .members
            .iter()
            .map(|member| {
                let instance = member.group_instance_id.as_deref();
                format!("{:?} {instance:?} {}", member.metadata, &*member.member_id)
            })
            .collect();
        members.sort();
        Ok(format!(
            "join {} generation {} {:?} {:?} leader <{}> skip {} id <{}> {members:?}",
            answer.error_code,
            answer.generation_id,
            answer.protocol_type.as_deref(),
            answer.protocol_name.as_deref(),
            &*answer.leader,
            answer.skip_assignment,
            &*answer.member_id
        ))
    }

    /// With an id that it is given first.
    async fn come(&mut self, protocols: &[(&str, &str)]) -> Result<String> {
        let given = self.join(protocols).await?;
        Ok(format!("{given}\n{}", self.join(protocols).await?))
    }

    async fn sync(&mut self, generation: i32, assignments: &[(&str, &str)]) -> Result<String> {
        self.sync_of(generation, Some(self.kind), Some("range"), assignments)
            .await
    }

    async fn sync_of(
        &mut self,
        generation: i32,
        kind: Option<&str>,
        protocol: Option<&str>,
        assignments: &[(&str, &str)],
    ) -> Result<String> {
        let one = |(id, assignment): &(&str, &str)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(text(id))
                .with_assignment(Bytes::from((*assignment).to_owned()))
        };
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id(generation)
            .with_member_id(text(&self.id))
            .with_group_instance_id(self.instance.map(text))
            .with_protocol_type(kind.map(text))
            .with_protocol_name(protocol.map(text))
            .with_assignments(assignments.iter().map(one).collect());
        let answer: SyncGroupResponse = self.wire.ask(14, 5, &request).await?;
        Ok(format!(
            "sync {} {:?} {:?} {:?}",
            answer.error_code,
            answer.protocol_type.as_deref(),
            answer.protocol_name.as_deref(),
            answer.assignment
        ))
    }

    async fn beat(&mut self, generation: i32) -> Result<String> {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id(generation)
            .with_member_id(text(&self.id))
            .with_group_instance_id(self.instance.map(text));
        let answer: HeartbeatResponse = self.wire.ask(12, 4, &request).await?;
        Ok(format!("heartbeat {}", answer.error_code))
    }

    async fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Result<String> {
        let one = |(id, instance): &(&str, Option<&str>)| {
            MemberIdentity::default()
                .with_member_id(text(id))
                .with_group_instance_id(instance.map(text))
        };
        let request = LeaveGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_members(members.iter().map(one).collect());
        let answer: LeaveGroupResponse = self.wire.ask(13, 5, &request).await?;
        let members = answer.members.iter().map(|member| {
            let instance = member.group_instance_id.as_deref();
            format!(
                "<{}> {instance:?} {}",
                &*member.member_id, member.error_code
            )
        });
        let members: Vec<String> = members.collect();
        Ok(format!("leave {} {members:?}", answer.error_code))
    }

    async fn commit(&mut self, generation: i32) -> Result<String> {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(5)
            .with_committed_metadata(Some(text("")));
        let topic = OffsetCommitRequestTopic::default()
            .with_name(named(&self.topic))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_member_id(text(&self.id))
            .with_group_instance_id(self.instance.map(text))
            .with_generation_id_or_member_epoch(generation)
            .with_topics(vec![topic]);
        let answer: OffsetCommitResponse = self.wire.ask(8, 9, &request).await?;
        Ok(format!(
            "commit {}",
            answer.topics[0].partitions[0].error_code
        ))
    }

    /// What a member of the protocol of KIP-848 is told. Epochs differ between versions.
    async fn modern(&mut self, id: &str, epoch: i32) -> Result<String> {
        let joins = epoch == 0;
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_member_id(text(id))
            .with_member_epoch(epoch)
            .with_rebalance_timeout_ms(if joins { 60_000 } else { -1 })
            .with_subscribed_topic_names(joins.then(|| vec![named(&self.topic)]))
            .with_topic_partitions(joins.then(Vec::new));
        let answer: ConsumerGroupHeartbeatResponse = self.wire.ask(68, 1, &request).await?;
        let why = answer.error_message.as_deref();
        Ok(format!("modern {} {why:?}", answer.error_code))
    }

    /// As what the group is listed, and what both kinds of descriptions say.
    async fn kinds(&mut self) -> Result<String> {
        let group = GroupId(text(&self.group));
        let listed: ListGroupsResponse =
            self.wire.ask(16, 5, &ListGroupsRequest::default()).await?;
        let mut listed = listed.groups.iter().filter(|one| one.group_id == group);
        let listed = listed
            .next()
            .map(|one| (&*one.protocol_type, &*one.group_type));
        let request = DescribeGroupsRequest::default().with_groups(vec![group.clone()]);
        let classic: DescribeGroupsResponse = self.wire.ask(15, 6, &request).await?;
        let (classic, why) = (
            &classic.groups[0],
            classic.groups[0].error_message.as_deref(),
        );
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group]);
        let modern: ConsumerGroupDescribeResponse = self.wire.ask(69, 1, &request).await?;
        let modern = &modern.groups[0];
        Ok(format!(
            "listed {listed:?} classic {} {why:?} modern {} {:?} {:?}",
            classic.error_code,
            modern.error_code,
            modern.error_message.as_deref(),
            modern
                .members
                .iter()
                .map(|member| member.member_type)
                .collect::<Vec<_>>()
        ))
    }

    async fn described(&mut self) -> Result<String> {
        let request =
            DescribeGroupsRequest::default().with_groups(vec![GroupId(text(&self.group))]);
        let mut answer: DescribeGroupsResponse = self.wire.ask(15, 5, &request).await?;
        if &*answer.groups[0].group_state == "Dead" {
            // Brokers describe what their log has committed, and a group that was made just now
            // may come a moment later.
            tokio::time::sleep(MOMENT).await;
            answer = self.wire.ask(15, 5, &request).await?;
        }
        let group = &answer.groups[0];
        let mut members: Vec<String> = group
            .members
            .iter()
            .map(|member| {
                format!(
                    "{:?} {:?} {:?} {:?}",
                    member.group_instance_id.as_deref(),
                    &*member.client_id,
                    member.member_metadata,
                    member.member_assignment
                )
            })
            .collect();
        members.sort();
        let request = ListGroupsRequest::default();
        let listed: ListGroupsResponse = self.wire.ask(16, 4, &request).await?;
        let mut listed = listed
            .groups
            .iter()
            .filter(|one| *one.group_id.0 == *self.group);
        let listed = listed
            .next()
            .map(|one| format!("{:?} {:?}", &*one.protocol_type, &*one.group_state));
        Ok(format!(
            "described {} {:?} {:?} {:?} {members:?} listed {listed:?}",
            group.error_code, &*group.group_state, &*group.protocol_type, &*group.protocol_data,
        ))
    }
}

/// Says of which type the errors before it are.
fn fine(said: String) -> Result<String> {
    Ok(said)
}

/// Ids as numbers in the order in which they appear: what is random in them differs each time.
fn numbered(said: &str) -> String {
    const LENGTH: usize = 36;
    let is_id = |at: usize| {
        said.as_bytes().get(at..at + LENGTH).is_some_and(|id| {
            id.iter().enumerate().all(|(index, byte)| match index {
                8 | 13 | 18 | 23 => *byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            })
        })
    };
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut out, mut at) = (String::new(), 0);
    while at < said.len() {
        if is_id(at) {
            let next = numbers.len() + 1;
            let number = *numbers.entry(&said[at..at + LENGTH]).or_insert(next);
            out.push_str(&format!("#{number}"));
            at += LENGTH;
        } else {
            out.push(char::from(said.as_bytes()[at]));
            at += 1;
        }
    }
    out
}

const A: &[(&str, &str)] = &[("range", "a"), ("sticky", "as")];
const B: &[(&str, &str)] = &[("range", "b")];

/// One member, in every state of the group, and what is refused there.
pub(super) async fn alone(bootstrap: &str, topic: &str) -> Result<String> {
    let mut said = String::new();
    let mut a = Member::new(bootstrap, topic).await?;
    fresh(&mut a.wire, topic, 2).await?;
    coordinator(&mut a.wire, topic).await?;
    for session in [45_000, 10, i32::MAX] {
        // The first refusal is that of a group that is not there.
        a.session = session;
        a.id = NOBODY.to_owned();
        writeln!(said, "session {session}: {}", a.join(A).await?)?;
    }
    a.session = 45_000;
    a.id = NOBODY.to_owned();
    writeln!(said, "{}", a.sync(1, &[]).await?)?;
    writeln!(said, "{}", a.beat(1).await?)?;
    writeln!(said, "{}", a.leave(&[(NOBODY, None)]).await?)?;
    // What is left of the group by then, Kafka 3.9 forgets whenever it cleans up.
    writeln!(said, "{}", a.commit(1).await?)?;
    a.id = String::new();
    writeln!(said, "no protocols: {}", a.join(&[]).await?)?;
    let group = std::mem::take(&mut a.group);
    writeln!(said, "no group: {}", a.join(A).await?)?;
    writeln!(said, "{}", a.beat(1).await?)?;
    writeln!(said, "{}", a.sync(1, &[]).await?)?;
    writeln!(said, "{}", a.leave(&[(NOBODY, None)]).await?)?;
    a.group = group;

    writeln!(said, "given: {}", a.join(A).await?)?;
    writeln!(said, "{}", a.described().await?)?;
    writeln!(said, "pending: {}", a.beat(0).await?)?;
    writeln!(said, "{}", a.sync(0, &[]).await?)?;
    writeln!(said, "{}", a.commit(0).await?)?;
    writeln!(said, "{}", a.commit(-1).await?)?;
    writeln!(said, "joined: {}", a.join(A).await?)?;
    writeln!(said, "{}", a.described().await?)?;
    writeln!(said, "again: {}", a.join(A).await?)?;
    writeln!(said, "{} {}", a.beat(1).await?, a.beat(2).await?)?;
    writeln!(said, "{} {}", a.commit(1).await?, a.commit(2).await?)?;
    writeln!(said, "{}", a.sync(2, &[]).await?)?;
    for (kind, protocol) in [
        (None, None),
        (Some("consumer"), None),
        (Some("connect"), Some("range")),
        (Some("consumer"), Some("sticky")),
    ] {
        writeln!(said, "{}", a.sync_of(1, kind, protocol, &[]).await?)?;
    }
    let id = a.id.clone();
    writeln!(
        said,
        "synced: {}",
        a.sync(1, &[(&id, "all"), (NOBODY, "x")]).await?
    )?;
    writeln!(said, "{}", a.described().await?)?;
    writeln!(said, "again: {}", a.sync(1, &[(&id, "other")]).await?)?;
    for generation in [1, 0, -1] {
        writeln!(
            said,
            "{} {}",
            a.beat(generation).await?,
            a.commit(generation).await?
        )?;
    }
    for other in [NOBODY, ""] {
        a.id = other.to_owned();
        writeln!(said, "stranger: {}", a.commit(1).await?)?;
        writeln!(said, "{}", a.commit(-1).await?)?;
        writeln!(said, "{}", a.beat(1).await?)?;
        writeln!(said, "{}", a.sync(1, &[]).await?)?;
        writeln!(said, "{}", a.leave(&[(other, None)]).await?)?;
    }
    a.id = NOBODY.to_owned();
    writeln!(said, "{}", a.join(A).await?)?;
    a.id = String::new();
    writeln!(said, "none of theirs: {}", a.join(&[("own", "")]).await?)?;
    a.kind = "connect";
    writeln!(said, "another type: {}", a.join(A).await?)?;
    a.kind = "consumer";
    a.id = id.clone();
    writeln!(said, "the leader again: {}", a.join(A).await?)?;
    writeln!(said, "changed: {}", a.join(&[("sticky", "s")]).await?)?;
    writeln!(said, "lacking: {}", a.join(&[("own", "")]).await?)?;
    writeln!(
        said,
        "{}",
        a.leave(&[(&id, Some("i")), (&id, None), (&id, None)])
            .await?
    )?;
    writeln!(said, "{}", a.described().await?)?;
    for generation in [3, 4, -1] {
        writeln!(
            said,
            "{} {}",
            a.beat(generation).await?,
            a.commit(generation).await?
        )?;
    }
    writeln!(said, "{}", a.join(A).await?)?;
    a.id = String::new();
    writeln!(said, "{}", a.commit(-1).await?)?;
    a.kind = "connect";
    writeln!(said, "anew: {}", a.come(&[("default", "w")]).await?)?;
    writeln!(said, "{}", a.described().await?)?;
    Ok(numbered(&said))
}

/// Several members: who waits for whom.
pub(super) async fn together(bootstrap: &str, topic: &str) -> Result<String> {
    let mut said = String::new();
    let mut a = Member::new(bootstrap, topic).await?;
    let mut b = Member::new(bootstrap, topic).await?;
    let mut c = Member::new(bootstrap, topic).await?;
    fresh(&mut a.wire, topic, 2).await?;
    coordinator(&mut a.wire, topic).await?;
    writeln!(said, "{}", a.come(A).await?)?;
    writeln!(said, "{}", a.sync(1, &[]).await?)?;
    // The second member waits for the first.
    let (joined, before) = tokio::join!(b.come(B), async {
        tokio::time::sleep(MOMENT).await;
        let mut said = String::new();
        writeln!(said, "{}", a.described().await?)?;
        writeln!(said, "{} {}", a.beat(1).await?, a.beat(2).await?)?;
        writeln!(said, "{}", a.sync(1, &[]).await?)?;
        writeln!(said, "{}", a.commit(1).await?)?;
        writeln!(said, "{}", a.join(A).await?)?;
        fine(said)
    });
    writeln!(said, "{}{}", before?, joined?)?;
    // Its assignment waits for the leader's; the leader's beats go on.
    let (ids, own) = ((a.id.clone(), b.id.clone()), [(0, "x"), (1, "y")]);
    let assigned = [(&*ids.0, own[0].1), (&*ids.1, own[1].1)];
    let (synced, before) = tokio::join!(b.sync(2, &[]), async {
        tokio::time::sleep(MOMENT).await;
        let mut said = String::new();
        writeln!(said, "{} {}", a.beat(2).await?, a.commit(2).await?)?;
        writeln!(said, "{}", a.described().await?)?;
        writeln!(said, "{}", a.sync(2, &assigned).await?)?;
        fine(said)
    });
    writeln!(said, "{}{}", before?, synced?)?;
    writeln!(said, "{}", a.described().await?)?;
    writeln!(said, "the other again: {}", b.join(B).await?)?;
    writeln!(said, "{}", b.sync(2, &[]).await?)?;
    writeln!(said, "{} {}", b.beat(2).await?, b.commit(2).await?)?;

    // An id that is only given out changes nothing, until it joins or another rebalance begins.
    writeln!(said, "{}", c.join(B).await?)?;
    writeln!(said, "{} {}", a.beat(2).await?, c.beat(2).await?)?;
    let third = c.id.clone();
    writeln!(
        said,
        "{}",
        a.leave(&[(&third, None), (&third, None)]).await?
    )?;
    writeln!(said, "{}", a.beat(2).await?)?;
    c.id = String::new();
    // A rebalance while one waits for its assignment.
    let changed: &[(&str, &str)] = &[("range", "b2")];
    let (joined, leaders) = tokio::join!(b.join(changed), async {
        tokio::time::sleep(MOMENT).await;
        a.join(A).await
    });
    writeln!(said, "{}\n{}", leaders?, joined?)?;
    let (synced, others) = tokio::join!(b.sync(3, &[]), async {
        tokio::time::sleep(MOMENT).await;
        let given = c.join(B).await?;
        let (joined, again) = tokio::join!(c.join(B), async {
            tokio::time::sleep(MOMENT).await;
            let mut said = String::new();
            writeln!(said, "{}", a.sync(3, &[]).await?)?;
            writeln!(said, "{}", a.leave(&[(&ids.0, None)]).await?)?;
            writeln!(
                said,
                "{}",
                a.leave(&[(&ids.1, None), (NOBODY, None)]).await?
            )?;
            fine(said)
        });
        fine(format!("{given}\n{}{}", again?, joined?))
    });
    writeln!(said, "{}\n{}", synced?, others?)?;
    writeln!(said, "{} {}", c.beat(4).await?, b.beat(4).await?)?;
    writeln!(said, "{}", c.described().await?)?;
    Ok(numbered(&said))
}

/// Static members (KIP-345), which come back under another id.
pub(super) async fn statics(bootstrap: &str, topic: &str) -> Result<String> {
    let mut said = String::new();
    let mut old = Member::new(bootstrap, topic).await?;
    let mut new = Member::new(bootstrap, topic).await?;
    let mut b = Member::new(bootstrap, topic).await?;
    (old.instance, new.instance) = (Some("i"), Some("i"));
    fresh(&mut b.wire, topic, 2).await?;
    coordinator(&mut b.wire, topic).await?;
    writeln!(said, "{}", old.join(A).await?)?;
    let id = old.id.clone();
    writeln!(said, "{}", old.sync(1, &[(&id, "all")]).await?)?;
    writeln!(said, "{}", new.join(A).await?)?;
    writeln!(said, "{}", new.described().await?)?;
    for generation in [1, 2] {
        writeln!(
            said,
            "{} {}",
            old.beat(generation).await?,
            old.commit(generation).await?
        )?;
    }
    writeln!(said, "{}", old.sync(1, &[]).await?)?;
    writeln!(said, "{}", old.join(A).await?)?;
    writeln!(said, "{}", old.leave(&[(&id, Some("i"))]).await?)?;
    writeln!(said, "{}", new.sync(1, &[]).await?)?;
    writeln!(said, "{} {}", new.beat(1).await?, new.commit(1).await?)?;
    new.instance = Some("j");
    writeln!(
        said,
        "not its own: {} {}",
        new.beat(1).await?,
        new.commit(1).await?
    )?;
    writeln!(said, "{}", new.join(A).await?)?;
    new.instance = None;
    writeln!(
        said,
        "without: {} {}",
        new.beat(1).await?,
        new.commit(1).await?
    )?;
    new.instance = Some("i");

    // An older one is not told to skip the assignment.
    (new.id, new.version) = (String::new(), 8);
    writeln!(said, "{}", new.join(A).await?)?;
    new.version = 9;
    writeln!(said, "{}", new.described().await?)?;
    // With another best protocol there is a rebalance.
    new.id = String::new();
    writeln!(
        said,
        "{}",
        new.join(&[("sticky", "s"), ("range", "r")]).await?
    )?;
    let second = new.id.clone();
    writeln!(
        said,
        "{}",
        new.sync_of(2, Some("consumer"), Some("sticky"), &[])
            .await?
    )?;

    // One that is replaced while it waits is fenced at once.
    b.instance = Some("k");
    let mut twin = Member::new(bootstrap, topic).await?;
    twin.instance = Some("k");
    let with: &[(&str, &str)] = &[("range", "b"), ("sticky", "bs")];
    let (first, (then, last)) = tokio::join!(b.join(with), async {
        tokio::time::sleep(MOMENT).await;
        tokio::join!(twin.join(with), async {
            tokio::time::sleep(MOMENT).await;
            new.join(A).await
        })
    });
    writeln!(said, "{}\n{}\n{}", first?, last?, then?)?;
    // So is one that waits for its assignment.
    (b.id, b.instance) = (String::new(), Some("k"));
    let (synced, (joined, leaders)) = tokio::join!(twin.sync(3, &[]), async {
        tokio::time::sleep(MOMENT).await;
        tokio::join!(b.join(with), async {
            tokio::time::sleep(MOMENT).await;
            new.join(A).await
        })
    });
    writeln!(said, "{}\n{}\n{}", synced?, leaders?, joined?)?;
    writeln!(
        said,
        "{}",
        b.leave(&[
            ("", Some("k")),
            ("", Some("k")),
            (&second, Some("k")),
            (&second, Some("i"))
        ])
        .await?
    )?;
    writeln!(said, "{}", b.described().await?)?;
    Ok(numbered(&said))
}

/// What an empty group is, and what it becomes by whoever comes (KIP-848).
pub(super) async fn conversions(bootstrap: &str, topic: &str) -> Result<String> {
    let mut said = String::new();
    let mut a = Member::new(bootstrap, topic).await?;
    fresh(&mut a.wire, topic, 2).await?;
    coordinator(&mut a.wire, topic).await?;
    writeln!(said, "{} {}", a.commit(-1).await?, a.kinds().await?)?;
    writeln!(
        said,
        "{} {}",
        a.modern("m", 5).await?,
        a.modern("m", -1).await?
    )?;
    writeln!(said, "{} {}", a.modern("m", 0).await?, a.kinds().await?)?;
    a.id = NOBODY.to_owned();
    writeln!(said, "{} {}", a.beat(1).await?, a.sync(1, &[]).await?)?;
    writeln!(said, "{}", a.leave(&[(NOBODY, None)]).await?)?;
    writeln!(said, "{} {}", a.modern("m", -1).await?, a.kinds().await?)?;
    writeln!(said, "{} {}", a.beat(1).await?, a.sync(1, &[]).await?)?;
    writeln!(said, "{}", a.leave(&[(NOBODY, None)]).await?)?;
    writeln!(said, "{} {}", a.join(A).await?, a.kinds().await?)?;
    a.id = String::new();
    a.kind = "connect";
    writeln!(said, "{}", a.come(A).await?)?;
    writeln!(said, "{}", a.sync(1, &[]).await?)?;
    writeln!(said, "{} {}", a.kinds().await?, a.described().await?)?;
    for epoch in [0, 1, -1] {
        writeln!(said, "{}", a.modern("m", epoch).await?)?;
    }
    let id = a.id.clone();
    writeln!(said, "{}", a.leave(&[(&id, None)]).await?)?;
    writeln!(said, "{} {}", a.modern("m", 0).await?, a.kinds().await?)?;
    Ok(numbered(&said).replace(topic, "<group>"))
}
