//! What assignors are given and what they may answer.

use std::sync::Arc;

use super::*;
use crate::ErrorKind;
use crate::cluster::Snapshot;
use crate::types::TopicPartition;

fn tp(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

/// What a member gets, as text.
fn of(assignment: &GroupAssignment, member: &str) -> String {
    let partitions = assignment.of(member).iter().map(ToString::to_string);
    partitions.collect::<Vec<_>>().join(" ")
}

#[test]
fn an_answer_that_members_cannot_act_upon_is_refused_and_named() {
    let cluster = ClusterView::new().with_topic("t", 2).with_topic("u", 1);
    let group = GroupSubscription::from_iter([("a", ["t"]), ("b", ["t"])]);
    let given = |partitions: &[(&str, TopicPartition)]| {
        let mut assignment = GroupAssignment::for_group(&group);
        for (member, partition) in partitions {
            assignment.assign(member, partition.clone());
        }
        assignment.check("mine", &cluster, &group)
    };
    given(&[("a", tp("t", 0)), ("b", tp("t", 1))]).unwrap();
    given(&[]).unwrap();
    for (partitions, told) in [
        (&[("c", tp("t", 0))][..], "names 'c', which is not a member"),
        (&[("a", tp("t", 2))], "gives 'a' t-2, which does not exist"),
        (
            &[("a", tp("t", -1))],
            "gives 'a' t--1, which does not exist",
        ),
        (&[("a", tp("v", 0))], "gives 'a' v-0, which does not exist"),
        (&[("b", tp("u", 0))], "u-0, to which it is not subscribed"),
        (&[("a", tp("t", 0)), ("b", tp("t", 0))], "t-0 away twice"),
        (&[("a", tp("t", 0)), ("a", tp("t", 0))], "t-0 away twice"),
    ] {
        let error = given(partitions).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Group);
        let text = error.to_string();
        assert!(text.contains(told) && text.contains("'mine'"), "{text}");
    }
}

#[test]
fn user_data_goes_to_its_member() {
    let group = GroupSubscription::from_iter([("a", ["t"]), ("b", ["t"])]);
    let mut assignment = GroupAssignment::for_group(&group);
    assignment.set_user_data("b", &b"x"[..]);
    assignment.set_user_data("c", &b"y"[..]);
    let data = assignment.members().map(|(id, member)| {
        let data = member.user_data.as_deref();
        (id, data)
    });
    let expected = [("a", None), ("b", Some(&b"x"[..])), ("c", Some(b"y"))];
    assert_eq!(data.collect::<Vec<_>>(), expected);
}

#[test]
fn the_view_is_of_the_topics_asked_for_with_the_racks_of_their_replicas() {
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };
    use kafka_protocol::messages::{MetadataResponse, TopicName};
    use kafka_protocol::protocol::StrBytes;

    let text = StrBytes::from_static_str;
    let broker = |id: i32, rack: Option<&'static str>| {
        MetadataResponseBroker::default()
            .with_node_id(id.into())
            .with_host(text("h"))
            .with_port(9092)
            .with_rack(rack.map(text))
    };
    let partition = |number, replicas: &[i32]| {
        MetadataResponsePartition::default()
            .with_partition_index(number)
            .with_leader_id(replicas[0].into())
            .with_replica_nodes(replicas.iter().map(|id| (*id).into()).collect())
    };
    let topic = |name: &'static str| {
        MetadataResponseTopic::default()
            .with_name(Some(TopicName(text(name))))
            .with_partitions(vec![partition(0, &[2, 3, 1]), partition(1, &[4, 9])])
    };
    let brokers = [Some("b"), Some("a"), Some("b"), None];
    let brokers = (1..).zip(brokers).map(|(id, rack)| broker(id, rack));
    let mut snapshot = Snapshot::default();
    let response = MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_topics(vec![topic("t"), topic("u")]);
    snapshot.merge(&response);
    let view = ClusterView::of(&snapshot, ["t", "gone"].into_iter());
    let topics: Vec<_> = view.topics().map(|(name, _)| name).collect();
    assert_eq!(topics, ["t"]);
    let partitions = view.partitions("t");
    assert_eq!(partitions.len(), 2);
    assert_eq!(partitions[0].racks().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(partitions[0].leader().map(crate::BrokerId::get), Some(2));
    assert_eq!(
        partitions[1].racks().count(),
        0,
        "one has none, one is unknown"
    );
}

#[test]
fn one_assignor_can_be_shared_behind_a_pointer() {
    let assignor: Arc<dyn Assignor> = Arc::new(RangeAssignor);
    let cluster = ClusterView::new().with_topic("t", 3).with_topic("u", 1);
    let named = MemberSubscription::new(["t", "u", "gone"]).with_instance_id("x");
    let mut group = GroupSubscription::from_iter([("b", named)]);
    assert_eq!(
        of(&assignor.assign(&cluster, &group), "b"),
        "t-0 t-1 t-2 u-0"
    );
    // Members with a name come first.
    let members = group
        .members()
        .map(|(id, member)| (id.to_owned(), member.clone()));
    let unnamed = ("a".to_owned(), MemberSubscription::new(["t", "u"]));
    group = members.chain([unnamed]).collect();
    let assignment = assignor.assign(&cluster, &group);
    assert_eq!(of(&assignment, "b"), "t-0 t-1 u-0");
    assert_eq!(of(&assignment, "a"), "t-2");
    assert_eq!(assignor.rebalance_protocol(), RebalanceProtocol::Eager);
    assert!(RebalanceProtocol::Eager < RebalanceProtocol::Cooperative);
    assert_eq!(assignor.subscription_user_data(&MemberView::new(&[])), None);
    let nothing = assignor.assign(&ClusterView::new(), &GroupSubscription::default());
    assert_eq!(nothing.members().len(), 0);
}

#[test]
fn ranges_keep_to_racks_and_topics_alike_together() {
    let mut cluster = ClusterView::new().with_topic("t", 4).with_topic("u", 4);
    for (number, racks) in [["y", "z"], ["x", "z"], ["y", "z"], ["x", "y"]]
        .iter()
        .enumerate()
    {
        cluster = cluster.with_racks("t", number, *racks);
        cluster = cluster.with_racks("u", number, *racks);
    }
    let member = |rack: &str| MemberSubscription::new(["t", "u"]).with_rack(rack);
    let group = GroupSubscription::from_iter([("a", member("x")), ("b", member("y"))]);
    let assignment = RangeAssignor.assign(&cluster, &group);
    assert_eq!(of(&assignment, "a"), "t-1 t-3 u-1 u-3");
    assert_eq!(of(&assignment, "b"), "t-0 t-2 u-0 u-2");
}

/// A member that subscribes to nothing, since its pattern matches nothing, is no subscriber of
/// what others subscribe to, whoever comes first.
#[test]
fn who_subscribes_to_nothing_gets_nothing() {
    let cluster = ClusterView::new().with_topic("t", 4);
    let all: [&dyn Assignor; 4] = [
        &RangeAssignor,
        &RoundRobinAssignor,
        &StickyAssignor,
        &CooperativeStickyAssignor,
    ];
    for assignor in all {
        for id in ["a", "m", "z"] {
            let some = ("n", MemberSubscription::new(["t"]));
            let none = (id, MemberSubscription::default());
            let group = GroupSubscription::from_iter([some, none]);
            let assignment = assignor.assign(&cluster, &group);
            assert_eq!(assignment.of("n").len(), 4, "{}", assignor.name());
            assert!(assignment.of(id).is_empty(), "{}", assignor.name());
        }
    }
}

/// Who had a partition and does not subscribe to its topic any more does not get it back.
#[test]
fn an_earlier_owner_that_has_unsubscribed_gets_nothing_back() {
    let cluster = ClusterView::new().with_topic("t", 6).with_topic("u", 1);
    let had = |partitions: std::ops::Range<i32>| partitions.map(|number| tp("t", number));
    let group = GroupSubscription::from_iter([
        ("a", MemberSubscription::new(["t"]).with_owned(had(0..6), 5)),
        ("b", MemberSubscription::new(["t"])),
        ("c", MemberSubscription::new(["u"]).with_owned(had(0..6), 4)),
    ]);
    let assignment = CooperativeStickyAssignor.assign(&cluster, &group);
    assert_eq!(assignment.of("a").len(), 3);
    assert!(assignment.of("b").is_empty(), "they are still of another");
    assert_eq!(of(&assignment, "c"), "u-0");
}

/// A topic that was made anew with fewer partitions.
#[test]
fn what_is_not_there_any_more_is_not_kept() {
    let cluster = ClusterView::new().with_topic("t", 2);
    let owned = [tp("t", 0), tp("t", 3), tp("gone", 0)];
    let owner = MemberSubscription::new(["t", "gone"]).with_owned(owned, 5);
    let other = MemberSubscription::new(["t", "gone"]);
    let group = GroupSubscription::from_iter([("a", owner), ("b", other)]);
    let assignment = CooperativeStickyAssignor.assign(&cluster, &group);
    assert_eq!(of(&assignment, "a"), "t-0");
    assert_eq!(of(&assignment, "b"), "t-1");
}

/// Two members that claim one partition: the later generation is right.
#[test]
fn the_latest_claim_counts_and_of_two_alike_none() {
    let cluster = ClusterView::new().with_topic("t", 2);
    let assigned = |a: i32, b: i32| {
        let member =
            |generation| MemberSubscription::new(["t"]).with_owned([tp("t", 1)], generation);
        let group = GroupSubscription::from_iter([("a", member(a)), ("b", member(b))]);
        let assignment = CooperativeStickyAssignor.assign(&cluster, &group);
        [of(&assignment, "a"), of(&assignment, "b")]
    };
    assert_eq!(assigned(4, 5), ["t-0", "t-1"]);
    assert_eq!(assigned(5, 4), ["t-1", "t-0"]);
    // Both give it up before one of them gets it.
    assert_eq!(assigned(5, 5), ["t-0", ""]);
}

#[test]
fn cooperatively_nothing_moves_in_one_step() {
    let tp = TopicPartition::new("t", 0);
    let member = |owned: &[TopicPartition], generation| {
        let mut member = MemberSubscription::new(["t"]);
        member.owned_partitions = owned.to_vec();
        member.generation = Some(generation);
        member
    };
    let owner = std::slice::from_ref(&tp);
    let group = |second| -> GroupSubscription {
        let members = [("a", member(owner, 5)), ("b", member(second, 4))];
        members.into_iter().collect()
    };
    let gives = |to: &str| {
        let mut assignment = GroupAssignment::for_group(&group(&[][..]));
        assignment.assign(to, tp.clone());
        assignment
    };
    // Also if another says that it had it, in a generation before.
    for second in [&[][..], owner] {
        gives("a").check_moves("own", &group(second)).unwrap();
        let error = gives("b").check_moves("own", &group(second)).unwrap_err();
        assert!(error.to_string().contains("'a'"), "{error}");
    }
}
