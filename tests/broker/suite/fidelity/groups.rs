//! Committed offsets, and members of groups that name their topics.

use std::fmt::Write as _;

use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::*;
use uuid::Uuid;

use super::topics::{fresh, named};
use super::wire::{Result, Wire, text};

/// COORDINATOR_LOAD_IN_PROGRESS: a broker that just started says so for a while.
pub(super) const LOADING: i16 = 14;
pub(super) const NOT_COORDINATOR: i16 = 16;

pub(super) async fn commits(wire: &mut Wire, topic: &str) -> Result<String> {
    let mut said = String::new();
    fresh(wire, topic, 2).await?;
    coordinator(wire, topic).await?;
    for (what, name, partition, member, epoch, note) in [
        ("plain", topic, 0, "", -1, "note".to_owned()),
        ("no such partition", topic, 9, "", -1, String::new()),
        ("no such topic", "not-there", 0, "", -1, String::new()),
        ("long note", topic, 1, "", -1, "x".repeat(5_000)),
        ("a stranger", topic, 1, "me", 3, String::new()),
    ] {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(5)
            .with_committed_leader_epoch(0)
            .with_committed_metadata(Some(text(&note)));
        let group = match what {
            "a stranger" => format!("{topic}-unknown"),
            _ => topic.to_owned(),
        };
        let name = OffsetCommitRequestTopic::default()
            .with_name(named(name))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(&group)))
            .with_member_id(text(member))
            .with_generation_id_or_member_epoch(epoch)
            .with_topics(vec![name]);
        let mut answer: OffsetCommitResponse = wire.ask(8, 9, &request).await?;
        while matches!(
            answer.topics[0].partitions[0].error_code,
            LOADING..=NOT_COORDINATOR
        ) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            answer = wire.ask(8, 9, &request).await?;
        }
        writeln!(
            said,
            "{what}: {}",
            answer.topics[0].partitions[0].error_code
        )?;
    }
    for group in [topic, "nobody-knows-it"] {
        let asked = OffsetFetchRequestTopics::default()
            .with_name(named(topic))
            .with_partition_indexes(vec![0, 1]);
        let asked = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(group)))
            .with_member_id(None)
            .with_member_epoch(-1)
            .with_topics(Some(vec![asked]));
        let request = OffsetFetchRequest::default()
            .with_groups(vec![asked])
            .with_require_stable(true);
        let answer: OffsetFetchResponse = wire.ask(9, 9, &request).await?;
        let found = &answer.groups[0];
        write!(said, "found {}", found.error_code)?;
        for partition in found.topics.iter().flat_map(|topic| &topic.partitions) {
            write!(
                said,
                ", {} offset {} epoch {} {:?} code {}",
                partition.partition_index,
                partition.committed_offset,
                partition.committed_leader_epoch,
                partition.metadata,
                partition.error_code
            )?;
        }
        writeln!(said)?;
    }
    Ok(said)
}

/// A broker makes the topic of committed offsets when somebody asks for a coordinator.
pub(super) async fn coordinator(wire: &mut Wire, group: &str) -> Result {
    for _ in 0..200 {
        let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
        let answer: FindCoordinatorResponse = wire.ask(10, 4, &request).await?;
        if answer.coordinators[0].error_code == 0 {
            // A coordinator hears of a new topic a moment after the leader does.
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Err("no coordinator".into())
}

#[derive(Clone, Copy, Default)]
struct Beat<'a> {
    member: &'a str,
    epoch: i32,
    instance: Option<&'a str>,
    assignor: Option<&'a str>,
    full: bool,
    owned: Option<&'a [i32]>,
}

/// The first epoch of a group with a member is 1, and 2 since Kafka 4.3: epochs are told and
/// written down as if it were 1. `shift` is how much more it was.
async fn beat(
    wire: &mut Wire,
    topic: &str,
    id: Uuid,
    beat: Beat<'_>,
    shift: &mut Option<i32>,
) -> Result<String> {
    let owned = beat.owned.map(|owned| match owned {
        [] => Vec::new(),
        some => vec![
            TopicPartitions::default()
                .with_topic_id(id)
                .with_partitions(some.to_vec()),
        ],
    });
    let request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text(topic)))
        .with_member_id(text(beat.member))
        .with_member_epoch(match beat.epoch {
            told @ 1.. => told + shift.unwrap_or(0),
            special => special,
        })
        .with_instance_id(beat.instance.map(text))
        .with_server_assignor(beat.assignor.map(text))
        .with_rebalance_timeout_ms(if beat.full { 60_000 } else { -1 })
        .with_subscribed_topic_names(beat.full.then(|| vec![named(topic)]))
        .with_topic_partitions(owned);
    let mut answer: ConsumerGroupHeartbeatResponse = wire.ask(68, 1, &request).await?;
    while matches!(answer.error_code, LOADING..=NOT_COORDINATOR) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        answer = wire.ask(68, 1, &request).await?;
    }
    let assigned = answer.assignment.map(|assignment| {
        let parts = assignment
            .topic_partitions
            .iter()
            .flat_map(|topic| &topic.partitions);
        let mut parts: Vec<i32> = parts.copied().collect();
        parts.sort_unstable();
        parts
    });
    let epoch = match answer.member_epoch {
        told @ 1.. => told - *shift.get_or_insert(told - 1),
        special => special,
    };
    Ok(format!(
        "code {} epoch {epoch} has {assigned:?}",
        answer.error_code
    ))
}

pub(super) async fn heartbeats(wire: &mut Wire, topic: &str) -> Result<String> {
    let mut said = String::new();
    let id = fresh(wire, topic, 4).await?;
    let mut shift = None;
    coordinator(wire, topic).await?;
    let joins = |member| Beat {
        member,
        full: true,
        owned: Some(&[]),
        ..Beat::default()
    };
    let says = |member, epoch, owned| Beat {
        member,
        epoch,
        owned,
        ..Beat::default()
    };
    for (what, one) in [
        ("a stranger", says("x", 4, None)),
        ("nothing said", says("x", 0, None)),
        (
            "unknown assignor",
            Beat {
                assignor: Some("best"),
                ..joins("x")
            },
        ),
        (
            "a joins",
            Beat {
                assignor: Some("range"),
                ..joins("a")
            },
        ),
        ("a again", says("a", 1, None)),
        ("a owns", says("a", 1, Some(&[0, 1, 2, 3]))),
        ("a stranger", says("x", 4, None)),
        ("a of the future", says("a", 9, None)),
        ("b joins", joins("b")),
        ("b waits", says("b", 2, None)),
        ("a is told", says("a", 1, None)),
        ("b waits", says("b", 2, None)),
        ("a gives up", says("a", 1, Some(&[0, 1]))),
        ("b gets", says("b", 2, None)),
        ("a of the past", says("a", 1, Some(&[0, 1]))),
        ("a of the past, greedy", says("a", 1, Some(&[0, 1, 2]))),
        ("a of the past, silent", says("a", 1, None)),
        ("b leaves", says("b", -1, None)),
        ("a gets all", says("a", 2, None)),
        ("b left", says("b", 2, None)),
        ("a leaves", says("a", -1, None)),
        ("a left", says("a", -1, None)),
    ] {
        let answer = beat(wire, topic, id, one, &mut shift).await?;
        writeln!(said, "{what}: {answer}")?;
    }
    Ok(said)
}

pub(super) async fn statics(wire: &mut Wire, topic: &str) -> Result<String> {
    let mut said = String::new();
    let id = fresh(wire, topic, 2).await?;
    let mut shift = None;
    coordinator(wire, topic).await?;
    let fixed = |member, epoch| Beat {
        member,
        epoch,
        instance: Some("i"),
        ..Beat::default()
    };
    let joins = |member| Beat {
        full: true,
        owned: Some(&[]),
        ..fixed(member, 0)
    };
    for (what, one) in [
        ("a joins", joins("a")),
        ("b too early", joins("b")),
        ("a goes for a while", fixed("a", -2)),
        ("b takes its place", joins("b")),
        ("a is fenced", fixed("a", 1)),
        ("b goes on", fixed("b", 1)),
        (
            "no instance",
            Beat {
                instance: None,
                ..fixed("b", -2)
            },
        ),
        ("b leaves", fixed("b", -1)),
    ] {
        let answer = beat(wire, topic, id, one, &mut shift).await?;
        writeln!(said, "{what}: {answer}")?;
    }
    Ok(said)
}
