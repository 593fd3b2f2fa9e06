use std::time::Duration;

use kafka_protocol::messages::metadata_response::{
    MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{MetadataResponse, TopicName};

use super::*;
use crate::group::assignor::{Assignor, GroupAssignment};
use crate::group::classic::{Code, JoinAnswer, JoinGroup, JoinedMember, SyncAnswer, SyncGroup};
use crate::group::messages::GroupRequest;
use crate::wire::{codes, str_bytes};

/// Gives the first subscriber of a topic all of it.
struct First(RebalanceProtocol);

impl Assignor for First {
    fn name(&self) -> &str {
        "first"
    }

    fn rebalance_protocol(&self) -> RebalanceProtocol {
        self.0
    }

    fn assign(&self, cluster: &ClusterView, group: &GroupSubscription) -> GroupAssignment {
        let mut assignment = GroupAssignment::for_group(group);
        for (topic, partitions) in cluster.topics() {
            if let Some((id, _)) = group.subscribers(topic).next() {
                for number in 0..partitions.len() {
                    let number = i32::try_from(number).unwrap();
                    assignment.assign(id, TopicPartition::new(topic, number));
                }
            }
        }
        assignment
    }
}

/// Topics with their numbers of partitions; those with none do not exist.
fn cluster(topics: &[(&str, i32)]) -> Snapshot {
    let topics = topics.iter().map(|(name, count)| {
        let partitions = (0..*count).map(|number| {
            MetadataResponsePartition::default()
                .with_partition_index(number)
                .with_leader_id(1.into())
        });
        MetadataResponseTopic::default()
            .with_name(Some(TopicName(str_bytes(name))))
            .with_error_code(if *count == 0 { 3 } else { 0 })
            .with_partitions(partitions.collect())
    });
    let mut snapshot = Snapshot::default();
    snapshot.merge(&MetadataResponse::default().with_topics(topics.collect()));
    snapshot
}

fn partitions(names: &[(&str, i32)]) -> Vec<TopicPartition> {
    let names = names.iter();
    names
        .map(|(topic, number)| TopicPartition::new(*topic, *number))
        .collect()
}

struct Rig {
    machine: ClassicConsumer,
    now: Instant,
    cluster: Snapshot,
}

impl Rig {
    fn new(protocol: RebalanceProtocol) -> Self {
        Self::with(First(protocol))
    }

    fn with(assignor: impl Assignor) -> Self {
        let settings = Settings {
            classic: classic::Settings {
                instance_id: None,
                protocol_type: PROTOCOL_TYPE,
                session_timeout: Duration::from_secs(45),
                heartbeat_interval: Duration::from_secs(3),
                rebalance_timeout: Duration::from_secs(300),
                backoff: Duration::from_millis(100),
                backoff_max: Duration::from_secs(1),
            },
            rack: Some("east".into()),
            assignors: Assignors::new([Arc::new(assignor) as Arc<dyn Assignor>]),
        };
        let mut machine = ClassicConsumer::new(settings);
        machine.subscribe(names(&["t", "u"]));
        Self {
            machine,
            now: crate::clock::now(),
            cluster: cluster(&[("t", 3), ("u", 1)]),
        }
    }

    /// In a generation with these partitions.
    fn owning(protocol: RebalanceProtocol, owned: &[(&str, i32)]) -> Self {
        let mut rig = Self::new(protocol);
        rig.rebalance(1, owned);
        assert_eq!(rig.assigned(), partitions(owned));
        rig
    }

    fn next(&mut self) -> Option<Effect> {
        self.machine.poll(self.now, &self.cluster)
    }

    #[track_caller]
    fn quiet(&mut self) {
        let next = self.next();
        assert!(next.is_none(), "{next:?}");
    }

    #[track_caller]
    fn join(&mut self) -> (Token, JoinGroup) {
        match self.next() {
            Some(Effect::Send(token, GroupRequest::Join(join))) => (token, join),
            other => panic!("expected JoinGroup, got {other:?}"),
        }
    }

    #[track_caller]
    fn sync(&mut self) -> (Token, SyncGroup) {
        match self.next() {
            Some(Effect::Send(token, GroupRequest::Sync(sync))) => (token, sync),
            other => panic!("expected SyncGroup, got {other:?}"),
        }
    }

    fn joined(&mut self, token: Token, generation: i32, members: Option<Vec<JoinedMember>>) {
        let answer = JoinAnswer {
            generation,
            protocol: "first".into(),
            leader: if members.is_some() { "m" } else { "other" }.into(),
            member_id: "m".into(),
            members: members.unwrap_or_default(),
            ..JoinAnswer::default()
        };
        self.machine
            .handle(self.now, token, Ok(GroupResponse::Join(answer)));
    }

    fn synced(&mut self, token: Token, gets: &[(&str, i32)]) {
        let assignment = encode_assignment(&MemberAssignment::new(partitions(gets)));
        self.synced_with(token, assignment);
    }

    fn synced_with(&mut self, token: Token, assignment: Bytes) {
        let answer = SyncAnswer {
            assignment,
            ..SyncAnswer::default()
        };
        self.machine
            .handle(self.now, token, Ok(GroupResponse::Sync(answer)));
    }

    /// Joins as a follower, and gets these.
    fn rebalance(&mut self, generation: i32, gets: &[(&str, i32)]) -> MemberSubscription {
        let (token, join) = self.join();
        self.joined(token, generation, None);
        let (token, _) = self.sync();
        self.synced(token, gets);
        decode_subscription(&join.protocols[0].1).unwrap()
    }

    /// A heartbeat says that the group rebalances.
    fn disturb(&mut self) {
        self.beat(codes::REBALANCE_IN_PROGRESS);
    }

    fn beat(&mut self, code: i16) {
        self.now += Duration::from_secs(3);
        let Some(Effect::Send(token, GroupRequest::Heartbeat(_))) = self.next() else {
            panic!("no heartbeat");
        };
        let answer = GroupResponse::Heartbeat(Code(code));
        self.machine.handle(self.now, token, Ok(answer));
    }

    #[track_caller]
    fn assigned(&mut self) -> Vec<TopicPartition> {
        match self.next() {
            Some(Effect::Assign(parts)) => parts.into_iter().map(|(tp, _)| tp).collect(),
            other => panic!("expected an assignment, got {other:?}"),
        }
    }

    #[track_caller]
    fn revokes(&mut self) -> Vec<TopicPartition> {
        match self.next() {
            Some(Effect::Revoke(parts)) => parts,
            other => panic!("expected a revocation, got {other:?}"),
        }
    }

    #[track_caller]
    fn lost(&mut self) -> Vec<TopicPartition> {
        match self.next() {
            Some(Effect::Lost(parts)) => parts,
            other => panic!("expected a loss, got {other:?}"),
        }
    }

    #[track_caller]
    fn fails(&mut self) -> Error {
        match self.next() {
            Some(Effect::Fail(error)) => error,
            other => panic!("expected an error, got {other:?}"),
        }
    }

    #[track_caller]
    fn watches(&mut self) -> Vec<Arc<str>> {
        match self.next() {
            Some(Effect::WatchGroup(topics)) => topics,
            other => panic!("expected to watch, got {other:?}"),
        }
    }
}

fn names(topics: &[&str]) -> Subscription {
    Subscription::Names(topics.iter().map(|topic| Arc::from(*topic)).collect())
}

fn member(id: &str, topics: &[&str]) -> JoinedMember {
    let subscription = MemberSubscription::new(topics.iter().copied());
    JoinedMember {
        id: id.into(),
        instance_id: None,
        metadata: encode_subscription(&subscription),
    }
}

use RebalanceProtocol::{Cooperative, Eager};

#[test]
fn eagerly_all_is_given_up_before_the_member_joins_again() {
    let mut rig = Rig::owning(Eager, &[("t", 0), ("t", 1)]);
    rig.disturb();
    assert_eq!(rig.revokes(), partitions(&[("t", 0), ("t", 1)]));
    rig.quiet();
    rig.beat(codes::REBALANCE_IN_PROGRESS);
    rig.quiet();
    rig.machine.revoked();
    let said = rig.rebalance(2, &[("t", 1)]);
    assert!(said.owned_partitions.is_empty());
    assert_eq!(said.rack.as_deref(), Some("east"));
    assert_eq!(rig.assigned(), partitions(&[("t", 1)]));
    rig.quiet();
}

#[test]
fn cooperatively_only_what_goes_is_given_up_and_then_it_joins_again() {
    let mut rig = Rig::owning(Cooperative, &[("t", 0), ("t", 1)]);
    rig.disturb();
    // Nothing stops.
    let said = rig.rebalance(2, &[("t", 1), ("u", 0)]);
    assert_eq!(said.owned_partitions, partitions(&[("t", 0), ("t", 1)]));
    assert_eq!(said.generation, Some(1));
    assert_eq!(rig.revokes(), partitions(&[("t", 0)]));
    rig.quiet();
    rig.machine.revoked();
    assert_eq!(rig.assigned(), partitions(&[("u", 0)]));
    let said = rig.rebalance(3, &[("t", 1), ("u", 0)]);
    assert_eq!(said.owned_partitions, partitions(&[("t", 1), ("u", 0)]));
    assert_eq!(said.generation, Some(2));
    rig.quiet();
}

#[test]
fn a_rebalance_during_a_revocation_is_joined_when_that_is_over() {
    let mut rig = Rig::owning(Cooperative, &[("t", 0), ("t", 1)]);
    rig.disturb();
    rig.rebalance(2, &[("t", 1), ("u", 0)]);
    assert_eq!(rig.revokes(), partitions(&[("t", 0)]));
    rig.disturb();
    rig.quiet();
    rig.machine.revoked();
    assert_eq!(rig.assigned(), partitions(&[("u", 0)]));
    let said = rig.rebalance(3, &[("t", 1)]);
    assert_eq!(said.owned_partitions, partitions(&[("t", 1), ("u", 0)]));
    assert_eq!(rig.revokes(), partitions(&[("u", 0)]));
}

#[test]
fn topics_that_are_not_subscribed_to_any_more_are_given_up_first() {
    let mut rig = Rig::owning(Cooperative, &[("t", 0), ("u", 0)]);
    rig.machine.subscribe(names(&["t"]));
    assert_eq!(rig.revokes(), partitions(&[("u", 0)]));
    rig.quiet();
    rig.machine.revoked();
    let said = rig.rebalance(2, &[("t", 0), ("u", 0)]);
    assert_eq!(said.topics.len(), 1);
    assert_eq!(said.owned_partitions, partitions(&[("t", 0)]));
    // What is assigned of another topic all the same is not taken.
    rig.quiet();
}

#[test]
fn what_is_lost_is_told_and_not_waited_for() {
    for protocol in [Eager, Cooperative] {
        let mut rig = Rig::owning(protocol, &[("t", 0), ("u", 0)]);
        rig.machine.subscribe(names(&["t"]));
        let going = rig.revokes();
        assert!(going.contains(&TopicPartition::new("u", 0)));
        rig.beat(codes::UNKNOWN_MEMBER_ID);
        assert_eq!(rig.lost(), partitions(&[("t", 0), ("u", 0)]));
        let said = rig.rebalance(1, &[("t", 2)]);
        assert_eq!((said.owned_partitions.len(), said.generation), (0, None));
        assert_eq!(rig.assigned(), partitions(&[("t", 2)]));
    }
}

#[test]
fn the_leader_looks_all_topics_up_before_it_assigns() {
    let mut rig = Rig::new(Eager);
    let (token, _) = rig.join();
    let members = vec![member("m", &["t", "u"]), member("n", &["v", "w"])];
    rig.joined(token, 1, Some(members));
    let all = ["t", "u", "v", "w"].map(Arc::from);
    assert_eq!(rig.watches(), all);
    rig.quiet();
    // One of them does not exist.
    rig.cluster = cluster(&[("t", 3), ("u", 1), ("v", 2), ("w", 0)]);
    rig.machine.metadata_changed();
    let (token, sync) = rig.sync();
    let of = |id: &str| {
        let (_, bytes) = sync.assignments.iter().find(|(to, _)| &**to == id).unwrap();
        decode_assignment(bytes).unwrap().partitions
    };
    assert_eq!(of("m").len(), 4);
    assert_eq!(of("n"), partitions(&[("v", 0), ("v", 1)]));
    rig.synced(token, &[("t", 0), ("t", 1), ("t", 2), ("u", 0)]);
    assert_eq!(rig.assigned().len(), 4);
    rig.machine.metadata_changed();
    rig.quiet();
    // It does now, which concerns another member.
    rig.cluster = cluster(&[("t", 3), ("u", 1), ("v", 2), ("w", 1)]);
    rig.machine.metadata_changed();
    assert_eq!(rig.revokes().len(), 4);
    rig.machine.revoked();
    let (token, _) = rig.join();
    // Another one leads now.
    rig.joined(token, 2, None);
    let (token, _) = rig.sync();
    rig.synced(token, &[]);
    assert_eq!(rig.watches(), [] as [Arc<str>; 0]);
    rig.quiet();
    rig.cluster = cluster(&[("t", 9)]);
    rig.machine.metadata_changed();
    rig.quiet();
}

#[test]
fn a_topic_of_which_nothing_is_heard_does_not_hold_the_group_up() {
    let mut rig = Rig::new(Eager);
    let (token, _) = rig.join();
    rig.joined(token, 1, Some(vec![member("m", &["t", "no word"])]));
    rig.watches();
    let began = rig.now;
    loop {
        match rig.next() {
            None => rig.now = rig.machine.next_timeout().unwrap(),
            Some(Effect::Send(token, GroupRequest::Heartbeat(_))) => {
                let answer = GroupResponse::Heartbeat(Code(codes::NONE));
                rig.machine.handle(rig.now, token, Ok(answer));
            }
            Some(Effect::Send(_, GroupRequest::Sync(_))) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rig.now - began, Duration::from_secs(15));
}

#[test]
fn a_static_leader_that_returns_assigns_nothing() {
    let mut rig = Rig::new(Eager);
    let (token, _) = rig.join();
    let answer = JoinAnswer {
        generation: 4,
        protocol: "first".into(),
        leader: "m".into(),
        member_id: "m".into(),
        members: vec![member("m", &["t", "u"])],
        skip_assignment: true,
        ..JoinAnswer::default()
    };
    let answer = GroupResponse::Join(answer);
    rig.machine.handle(rig.now, token, Ok(answer));
    rig.watches();
    let (token, sync) = rig.sync();
    assert!(sync.assignments.is_empty(), "KIP-814");
    rig.synced(token, &[("t", 0)]);
    assert_eq!(rig.assigned(), partitions(&[("t", 0)]));
    // It watches the topics all the same.
    rig.cluster = cluster(&[("t", 4), ("u", 1)]);
    rig.machine.metadata_changed();
    assert_eq!(rig.revokes(), partitions(&[("t", 0)]));
}

#[test]
fn a_cooperative_assignor_moves_nothing_in_one_step() {
    let mut rig = Rig::new(Cooperative);
    let (token, _) = rig.join();
    let mut owner = MemberSubscription::new(["t"]);
    owner.owned_partitions = partitions(&[("t", 0)]);
    let owner = JoinedMember {
        metadata: encode_subscription(&owner),
        ..member("n", &[])
    };
    rig.joined(token, 1, Some(vec![member("m", &["t"]), owner]));
    rig.watches();
    let error = rig.fails();
    assert_eq!(error.kind(), ErrorKind::Group);
    let text = error.to_string();
    assert!(text.contains("t-0, which 'n' still has"), "{text}");
    rig.quiet();
}

enum Bad {
    Panics,
    Twice,
    UnknownMember,
    UnknownPartition,
    NotSubscribed,
}

impl Assignor for Bad {
    fn name(&self) -> &str {
        "first"
    }

    fn subscription_user_data(&self, _: &MemberView<'_>) -> Option<Bytes> {
        assert!(!matches!(self, Self::Panics), "a bug");
        None
    }

    fn assign(&self, _: &ClusterView, group: &GroupSubscription) -> GroupAssignment {
        let mut assignment = GroupAssignment::for_group(group);
        let (id, topic, number) = match self {
            Self::Panics => panic!("a bug"),
            Self::Twice => ("m", "t", 0),
            Self::UnknownMember => ("nobody", "t", 0),
            Self::UnknownPartition => ("m", "t", 3),
            Self::NotSubscribed => ("n", "t", 0),
        };
        for _ in 0..2 {
            assignment.assign(id, TopicPartition::new(topic, number));
        }
        assignment
    }

    fn on_assignment(&self, _: &MemberAssignment, _: i32) {
        assert!(!matches!(self, Self::Panics), "a bug");
    }
}

#[test]
fn a_bad_assignor_is_told_and_does_not_make_the_member_spin() {
    for (bad, says) in [
        (Bad::Panics, "panicked"),
        (Bad::Twice, "twice"),
        (Bad::UnknownMember, "'nobody'"),
        (Bad::UnknownPartition, "does not exist"),
        (Bad::NotSubscribed, "not subscribed"),
    ] {
        let panics = matches!(bad, Bad::Panics);
        let mut rig = Rig::with(bad);
        for _ in 0..3 {
            if panics {
                assert!(rig.fails().to_string().contains(says));
            }
            let (token, _) = rig.join();
            let members = vec![member("m", &["t"]), member("n", &["u"])];
            rig.joined(token, 1, Some(members));
            rig.watches();
            let error = rig.fails();
            assert_eq!(error.kind(), ErrorKind::Group);
            assert!(
                !error.is_fatal() && error.to_string().contains(says),
                "{error}"
            );
            assert!(error.to_string().contains("partition.assignment.strategy"));
            if panics {
                assert!(rig.fails().to_string().contains(says));
                rig.now += Duration::from_secs(3);
                let (token, _) = rig.join();
                rig.joined(token, 2, None);
                let (token, _) = rig.sync();
                rig.synced(token, &[("t", 0)]);
                assert!(rig.fails().to_string().contains(says), "on_assignment");
                break;
            }
            rig.quiet();
            rig.now += Duration::from_secs(3);
        }
    }
}

#[test]
fn what_cannot_be_read_is_told_and_asked_for_again_after_a_pause() {
    let mut rig = Rig::new(Eager);
    let (token, _) = rig.join();
    let bad = JoinedMember {
        metadata: Bytes::from_static(b"\x00"),
        ..member("n", &[])
    };
    rig.joined(token, 1, Some(vec![member("m", &["t"]), bad]));
    let error = rig.fails();
    assert!(
        error.to_string().contains("'n'") && !error.is_fatal(),
        "{error}"
    );
    rig.quiet();
    rig.now += Duration::from_secs(3);
    let (token, _) = rig.join();
    rig.joined(token, 2, None);
    let (token, _) = rig.sync();
    rig.synced_with(token, Bytes::from_static(b"\x00\x03\x7f"));
    assert_eq!(rig.fails().kind(), ErrorKind::Protocol);
    rig.quiet();
    rig.now += Duration::from_secs(3);
    rig.join();
}

#[test]
fn who_retires_keeps_what_it_has_and_does_not_join_again() {
    let mut rig = Rig::owning(Eager, &[("t", 0)]);
    assert!(rig.machine.retire());
    rig.disturb();
    rig.quiet();
    assert!(rig.machine.identity().is_some());
    rig.machine.leave(GroupMembershipOperation::Default);
    let Some(Effect::Send(token, GroupRequest::Leave(_))) = rig.next() else {
        panic!("does not leave");
    };
    rig.machine.handle(rig.now, token, Ok(GroupResponse::Leave));
    assert!(matches!(rig.next(), Some(Effect::Left)));
    rig.machine.resume();
    rig.quiet();
    rig.machine.subscribe(names(&["t"]));
    rig.join();
}

#[test]
fn an_absent_application_loses_its_place_until_it_comes_back() {
    let mut rig = Rig::owning(Cooperative, &[("t", 0)]);
    rig.machine.absent();
    assert_eq!(rig.lost(), partitions(&[("t", 0)]));
    let Some(Effect::Send(token, GroupRequest::Leave(_))) = rig.next() else {
        panic!("does not leave");
    };
    rig.machine.resume();
    rig.quiet();
    rig.machine.handle(rig.now, token, Ok(GroupResponse::Leave));
    assert!(matches!(rig.next(), Some(Effect::Left)));
    rig.quiet();
    rig.machine.resume();
    let said = rig.rebalance(9, &[]);
    assert!(said.owned_partitions.is_empty());
    assert_eq!(rig.assigned(), [], "the first is told, though empty");
}

#[test]
fn a_pattern_is_not_for_classic_brokers_to_match() {
    let mut rig = Rig::owning(Eager, &[("t", 0)]);
    rig.machine.subscribe(Subscription::Regex("t.*".into()));
    let error = rig.fails();
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
}
