use super::*;
use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
use kafka_protocol::protocol::StrBytes;

fn answer(id: u128, epochs: &[(i32, i32)]) -> MetadataResponse {
    let partitions = epochs
        .iter()
        .enumerate()
        .map(|(index, (leader, epoch))| {
            MetadataResponsePartition::default()
                .with_partition_index(index as i32)
                .with_leader_id((*leader).into())
                .with_leader_epoch(*epoch)
        })
        .collect();
    let brokers = (1..=3).map(|id| {
        MetadataResponseBroker::default()
            .with_node_id(id.into())
            .with_host(StrBytes::from_static_str("h"))
            .with_port(9092)
    });
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_topics(vec![
            MetadataResponseTopic::default()
                .with_name(Some(TopicName(StrBytes::from_static_str("t"))))
                .with_topic_id(Uuid::from_u128(id))
                .with_partitions(partitions),
        ])
}

fn leader(snapshot: &Snapshot, partition: i32) -> Option<(i32, i32)> {
    let tp = TopicPartition::new("t", partition);
    snapshot
        .leader(&tp)
        .map(|(broker, epoch)| (broker.0, epoch))
}

#[test]
fn leader_epochs_never_go_back_for_one_topic_id() {
    let mut snapshot = Snapshot::default();
    snapshot.merge(&answer(7, &[(1, 5), (2, 5)]));
    snapshot.merge(&answer(7, &[(2, 4), (3, 6)]));
    assert_eq!(
        (leader(&snapshot, 0), leader(&snapshot, 1)),
        (Some((1, 5)), Some((3, 6)))
    );
}

#[test]
fn a_recreated_topic_starts_anew() {
    let mut snapshot = Snapshot::default();
    snapshot.merge(&answer(7, &[(1, 5), (1, 5)]));
    snapshot.merge(&answer(8, &[(2, 0)]));
    assert_eq!(
        (leader(&snapshot, 0), leader(&snapshot, 1)),
        (Some((1, 5)), Some((1, 5))),
        "the broker may be late"
    );
    assert!(!snapshot.resolves([&"t".into()]), "and is asked for again");
    snapshot.merge(&answer(8, &[(2, 0)]));
    assert_eq!(
        (leader(&snapshot, 0), leader(&snapshot, 1)),
        (Some((2, 0)), None)
    );
    assert!(snapshot.resolves([&"t".into()]));
    let found = |snapshot: &Snapshot, id| {
        let topic = snapshot.topic_by_id(Uuid::from_u128(id));
        topic.map(|topic| topic.name.to_string())
    };
    assert_eq!(
        (found(&snapshot, 7), found(&snapshot, 8)),
        (None, Some("t".into()))
    );
    snapshot.retain(|_| false);
    assert_eq!(found(&snapshot, 8), None);
}

#[test]
fn a_broker_that_is_late_changes_no_topic() {
    let mut snapshot = Snapshot::default();
    snapshot.merge(&answer(7, &[(1, 5), (1, 5)]));
    for late in [answer(9, &[(1, 5), (1, 5)]), answer(7, &[(1, 5)])] {
        snapshot.merge(&late);
        snapshot.merge(&answer(7, &[(1, 5), (1, 5)]));
        snapshot.merge(&late);
        assert_eq!(
            leader(&snapshot, 1),
            Some((1, 5)),
            "twice, but not in a row"
        );
        snapshot.merge(&answer(7, &[(1, 5), (1, 5)]));
        assert!(snapshot.resolves([&"t".into()]));
    }
}

#[test]
fn an_epoch_that_never_was_is_given_up() {
    let mut snapshot = Snapshot::default();
    snapshot.merge(&answer(7, &[(1, 5)]));
    snapshot.merge(&answer(7, &[(1, 5 + (1 << 24))])); // a bit of it was flipped on its way
    for _ in 0..4 {
        snapshot.merge(&answer(7, &[(1, 5)]));
        assert_eq!(leader(&snapshot, 0), Some((1, 5 + (1 << 24))));
        assert!(!snapshot.resolves([&"t".into()]));
    }
    snapshot.merge(&answer(7, &[(1, 5)]));
    assert_eq!(leader(&snapshot, 0), Some((1, 5)));
    assert!(snapshot.resolves([&"t".into()]));
}

#[test]
fn a_topic_that_is_gone_is_removed_and_its_error_kept() {
    let mut snapshot = Snapshot::default();
    snapshot.merge(&answer(7, &[(1, 5)]));
    let mut gone = answer(7, &[]);
    gone.topics[0].error_code = 3;
    snapshot.merge(&gone);
    assert!(snapshot.topic("t").is_some() && !snapshot.resolves([&"t".into()]));
    snapshot.merge(&gone);
    assert_eq!(
        (snapshot.topics.len(), snapshot.errors.get("t")),
        (0, Some(&3))
    );
    assert!(snapshot.topic_by_id(Uuid::from_u128(7)).is_none());
    snapshot.merge(&answer(7, &[(1, 5)]));
    assert!(snapshot.errors.is_empty());
    assert!(snapshot.resolves([&"t".into()]));
    assert!(!snapshot.resolves([&"u".into()]));
}

#[test]
fn hints_move_leaders_forward_only_and_only_to_known_brokers() {
    let mut snapshot = Snapshot::default();
    snapshot.merge(&answer(7, &[(1, 5)]));
    let hint = |leader, epoch| {
        [LeaderHint {
            topic: "t".into(),
            partition: 0,
            leader: BrokerId(leader),
            leader_epoch: epoch,
        }]
    };
    assert!(!snapshot.learn(&hint(2, 5), &[]));
    assert!(!snapshot.learn(&hint(9, 6), &[]));
    assert!(snapshot.learn(&hint(2, 6), &[]));
    assert_eq!(leader(&snapshot, 0), Some((2, 6)));
    let nine = Broker {
        id: BrokerId(9),
        host: "n".into(),
        port: 1,
        rack: None,
    };
    assert!(snapshot.learn(&hint(9, 7), &[nine]));
    assert_eq!(leader(&snapshot, 0), Some((9, 7)));
}

#[test]
fn a_broker_named_without_its_rack_is_no_news() {
    let mut snapshot = Snapshot::default();
    let mut response = answer(7, &[(1, 5)]);
    response.brokers[0].rack = Some(StrBytes::from_static_str("east"));
    snapshot.merge(&response);
    let (id, known) = snapshot.brokers.first().unwrap();
    let (id, known) = (*id, Arc::clone(known));
    // As FindCoordinator names it.
    let named = Broker {
        rack: None,
        ..(*known).clone()
    };
    assert!(!snapshot.learn(&[], std::slice::from_ref(&named)));
    assert_eq!(snapshot.brokers[&id], known);
    let moved = Broker { port: 1, ..named };
    assert!(snapshot.learn(&[], &[moved]));
    assert_eq!(snapshot.brokers[&id].rack.as_deref(), Some("east"));
}

#[test]
fn the_list_of_all_topics_knows_what_is_gone() {
    let mut snapshot = Snapshot::default();
    let mut response = answer(7, &[(1, 5)]);
    response.topics[0].is_internal = true;
    for (name, code) in [("gone", 3), ("young", 5), ("secret", 29)] {
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_static_str(name))))
            .with_error_code(code);
        response.topics.push(topic);
    }
    snapshot.list(&response);
    let first = snapshot.all.clone().unwrap();
    let names: Vec<_> = first.iter().map(|listed| &*listed.name).collect();
    assert_eq!(names, ["t", "young"]);
    assert!(first[0].internal && first[0].id == Uuid::from_u128(7));
    snapshot.list(&response);
    assert!(
        Arc::ptr_eq(&first, snapshot.all.as_ref().unwrap()),
        "no news"
    );
}

#[test]
fn a_refusal_is_told_at_once() {
    let mut snapshot = Snapshot::default();
    let mut refused = answer(7, &[]);
    refused.topics[0].error_code = 29;
    snapshot.merge(&refused);
    assert_eq!(snapshot.errors.get("t"), Some(&29));
    assert!(!snapshot.resolves([&"t".into()]));
}

#[test]
fn gaps_in_partition_numbers_do_not_shift_them() {
    let mut snapshot = Snapshot::default();
    let mut gap = answer(7, &[(1, 5), (1, 5)]);
    gap.topics[0].partitions.remove(0);
    snapshot.merge(&gap);
    assert!(snapshot.topic("t").is_none());
    assert_eq!(snapshot.errors.get("t"), Some(&LEADER_NOT_AVAILABLE));
}
