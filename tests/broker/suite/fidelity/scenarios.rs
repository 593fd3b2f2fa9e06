//! The list: each scenario is a conversation, and what is compared is written down as text.

use std::fmt::Write as _;

use bytes::Bytes;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use uuid::Uuid;

use super::by_id;
use super::patterns::patterns;
use super::wire::{Batch, PLAIN, Result, Wire, batch, text};

/// COORDINATOR_LOAD_IN_PROGRESS: a broker that just started says so for a while.
pub(super) const LOADING: i16 = 14;
pub(super) const NOT_COORDINATOR: i16 = 16;

pub(crate) const NAMES: &[&str] = &[
    "topics",
    "metadata",
    "sequences",
    "refused batches",
    "produce by id",
    "offsets by time",
    "epochs",
    "fetch",
    "commits",
    "heartbeats",
    "static members",
    "patterns",
];

/// Those that need versions which 4.1 does not offer yet.
pub(crate) const NEWER: &[&str] = &["commits by id"];

/// Runs a scenario with names that begin so; what was answered.
pub(crate) async fn run(name: &str, bootstrap: &str, prefix: &str) -> Result<String> {
    let mut wire = Wire::connect(bootstrap).await?;
    let topic = format!("{prefix}-{}", name.replace(' ', "-"));
    match name {
        "topics" => topics(&mut wire, &topic).await,
        "metadata" => metadata(&mut wire, &topic).await,
        "sequences" => sequences(&mut wire, &topic).await,
        "produce by id" => produce_by_id(&mut wire, &topic).await,
        "refused batches" => refused(&mut wire, &topic).await,
        "offsets by time" => by_time(&mut wire, &topic).await,
        "epochs" => epochs(&mut wire, &topic).await,
        "fetch" => fetch(&mut wire, &topic).await,
        "commits" => commits(&mut wire, &topic).await,
        "heartbeats" => heartbeats(&mut wire, &topic).await,
        "static members" => statics(&mut wire, &topic).await,
        "patterns" => patterns(&mut wire, &topic).await,
        "commits by id" => by_id::commits(&mut wire, &topic).await,
        other => Err(format!("no scenario {other}").into()),
    }
}

fn named(name: &str) -> TopicName {
    TopicName(text(name))
}

async fn create(
    wire: &mut Wire,
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> Result<(i16, Uuid)> {
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    });
    let topic = CreatableTopic::default()
        .with_name(named(name))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default()
        .with_timeout_ms(30_000)
        .with_topics(vec![topic]);
    let answer: CreateTopicsResponse = wire.ask(19, 7, &request).await?;
    let topic = answer.topics.first().ok_or("no topic")?;
    Ok((topic.error_code, topic.topic_id))
}

/// Creates a topic and waits until it can be used.
pub(super) async fn fresh(wire: &mut Wire, name: &str, partitions: i32) -> Result<Uuid> {
    fresh_with(wire, name, partitions, &[]).await
}

async fn fresh_with(
    wire: &mut Wire,
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> Result<Uuid> {
    let (_, id) = create(wire, name, partitions, configs).await?;
    for _ in 0..100 {
        let answer = latest(wire, name, -1, -1).await?;
        if answer.starts_with("code 0") {
            return Ok(id);
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Err(format!("{name} does not come").into())
}

async fn topics(wire: &mut Wire, topic: &str) -> Result<String> {
    let mut said = String::new();
    for (name, partitions, configs) in [
        (topic, 3, &[][..]),
        (topic, 3, &[]),
        ("bad name", 1, &[]),
        ("..", 1, &[]),
        ("other", 0, &[]),
        ("other", 1, &[("no.such.config", "1")]),
        ("other", 1, &[("retention.ms", "x")]),
    ] {
        writeln!(
            said,
            "create {}: {}",
            name.replace(topic, "it"),
            create(wire, name, partitions, configs).await?.0
        )?;
    }
    let far = CreatableTopic::default()
        .with_name(named("other"))
        .with_num_partitions(1)
        .with_replication_factor(50);
    let request = CreateTopicsRequest::default()
        .with_timeout_ms(30_000)
        .with_topics(vec![far]);
    let answer: CreateTopicsResponse = wire.ask(19, 7, &request).await?;
    writeln!(said, "50 replicas: {}", answer.topics[0].error_code)?;
    for (name, count) in [(topic, 2), (topic, 3), (topic, 5), ("missing-topic", 5)] {
        let grown = CreatePartitionsTopic::default()
            .with_name(named(name))
            .with_count(count)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default()
            .with_timeout_ms(30_000)
            .with_topics(vec![grown]);
        let answer: CreatePartitionsResponse = wire.ask(37, 3, &request).await?;
        writeln!(said, "grow to {count}: {}", answer.results[0].error_code)?;
    }
    for name in [topic, "missing-topic"] {
        writeln!(said, "delete: {}", remove(wire, name).await?)?;
    }
    let gone = DeleteTopicState::default()
        .with_name(None)
        .with_topic_id(Uuid::from_u128(77));
    let request = DeleteTopicsRequest::default()
        .with_timeout_ms(30_000)
        .with_topics(vec![gone]);
    let answer: DeleteTopicsResponse = wire.ask(20, 6, &request).await?;
    writeln!(said, "delete by id: {}", answer.responses[0].error_code)?;
    Ok(said)
}

/// Deletes a topic; the code.
pub(super) async fn remove(wire: &mut Wire, topic: &str) -> Result<i16> {
    let gone = DeleteTopicState::default().with_name(Some(named(topic)));
    let request = DeleteTopicsRequest::default()
        .with_timeout_ms(30_000)
        .with_topics(vec![gone]);
    let answer: DeleteTopicsResponse = wire.ask(20, 6, &request).await?;
    Ok(answer.responses[0].error_code)
}

async fn metadata(wire: &mut Wire, topic: &str) -> Result<String> {
    let mut said = String::new();
    let id = fresh(wire, topic, 2).await?;
    let by_name = |name: &str| MetadataRequestTopic::default().with_name(Some(named(name)));
    let by_id = |id: Uuid| {
        MetadataRequestTopic::default()
            .with_name(None)
            .with_topic_id(id)
    };
    for asked in [
        by_name(topic),
        by_id(id),
        by_name("not-there"),
        by_name("bad name"),
        by_id(Uuid::from_u128(7)),
    ] {
        let request = MetadataRequest::default()
            .with_allow_auto_topic_creation(false)
            .with_topics(Some(vec![asked]));
        let answer: MetadataResponse = wire.ask(3, 12, &request).await?;
        for found in &answer.topics {
            let name = found.name.as_ref().map(|name| name.replace(topic, "it"));
            write!(
                said,
                "{name:?} {} known id {}",
                found.error_code,
                found.topic_id == id
            )?;
            // Brokers give them in no particular order.
            let mut partitions = found.partitions.clone();
            partitions.sort_by_key(|partition| partition.partition_index);
            for partition in &partitions {
                write!(
                    said,
                    ", {} leader {} epoch {} replicas {:?} isr {:?} code {}",
                    partition.partition_index,
                    partition.leader_id.0,
                    partition.leader_epoch,
                    partition.replica_nodes,
                    partition.isr_nodes,
                    partition.error_code
                )?;
            }
            writeln!(said)?;
        }
    }
    Ok(said)
}

async fn produce(
    wire: &mut Wire,
    topic: &str,
    acks: i16,
    records: Option<Bytes>,
) -> Result<String> {
    let data = PartitionProduceData::default()
        .with_index(0)
        .with_records(records);
    let data = TopicProduceData::default()
        .with_name(named(topic))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![data]);
    let answer: ProduceResponse = wire.ask(0, 11, &request).await?;
    let answer = &answer.responses[0].partition_responses[0];
    Ok(format!(
        "code {} offset {} time {} start {}",
        answer.error_code, answer.base_offset, answer.log_append_time_ms, answer.log_start_offset
    ))
}

async fn sequences(wire: &mut Wire, topic: &str) -> Result<String> {
    let mut said = String::new();
    fresh(wire, topic, 1).await?;
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(i32::MAX)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let mut answer: InitProducerIdResponse = wire.ask(22, 4, &request).await?;
    while answer.error_code == LOADING {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        answer = wire.ask(22, 4, &request).await?;
    }
    writeln!(
        said,
        "id: {} epoch {}",
        answer.error_code, answer.producer_epoch
    )?;
    let producer = answer.producer_id.0;
    for (epoch, sequence, count) in [
        (0, 0, 2),
        (0, 0, 2),
        (0, 2, 1),
        (0, 4, 1),
        (0, 1, 1),
        (0, 3, 1),
        (0, 4, 1),
        (0, 5, 1),
        (0, 6, 1),
        (0, 2, 1),
        (0, 0, 2),
        (1, 3, 1),
        (1, 0, 1),
        (0, 7, 1),
        (1, 0, 1),
        (1, 1, 3),
    ] {
        let records = batch(Batch {
            producer,
            epoch,
            sequence,
            count,
            ..PLAIN
        })?;
        let answer = produce(wire, topic, -1, Some(records)).await?;
        writeln!(
            said,
            "epoch {epoch} sequence {sequence} of {count}: {answer}"
        )?;
    }
    // A producer that is not known may start anywhere.
    let records = batch(Batch {
        producer: producer + 1_000_000,
        epoch: 5,
        sequence: 9,
        ..PLAIN
    })?;
    writeln!(
        said,
        "unknown: {}",
        produce(wire, topic, -1, Some(records)).await?
    )?;
    Ok(said)
}

/// Version 13 names topics by id and by nothing else (KIP-516).
async fn produce_by_id(wire: &mut Wire, topic: &str) -> Result<String> {
    let mut said = String::new();
    let id = fresh(wire, topic, 1).await?;
    let stranger = Uuid::from_u128(99);
    for (what, asked, partition, acks) in [
        ("first", id, 0, -1),
        ("second", id, 0, 1),
        ("no partition", id, 5, -1),
        ("no topic", stranger, 0, -1),
        ("no id", Uuid::nil(), 0, -1),
        ("acks 2", id, 0, 2),
    ] {
        let data = PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(batch(PLAIN)?));
        let data = TopicProduceData::default()
            .with_topic_id(asked)
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(acks)
            .with_timeout_ms(10_000)
            .with_topic_data(vec![data]);
        let answer: ProduceResponse = wire.ask(0, 13, &request).await?;
        let topic = &answer.responses[0];
        let answered = &topic.partition_responses[0];
        writeln!(
            said,
            "{what}: id {} partition {} code {} offset {} start {}",
            topic.topic_id == asked,
            answered.index,
            answered.error_code,
            answered.base_offset,
            answered.log_start_offset
        )?;
    }
    Ok(said)
}

async fn refused(wire: &mut Wire, topic: &str) -> Result<String> {
    let mut said = String::new();
    fresh(wire, topic, 1).await?;
    let good = batch(PLAIN)?;
    let mut damaged = good.to_vec();
    *damaged.last_mut().ok_or("empty")? ^= 1;
    let twice = [&good[..], &good[..]].concat();
    let old = {
        let mut bytes = good.to_vec();
        bytes[16] = 1;
        bytes
    };
    let future = 4_000_000_000_000;
    for (what, records) in [
        ("good", Some(good.clone())),
        ("damaged", Some(Bytes::from(damaged))),
        ("two", Some(Bytes::from(twice))),
        ("magic 1", Some(Bytes::from(old))),
        (
            "control",
            Some(batch(Batch {
                control: true,
                ..PLAIN
            })?),
        ),
        (
            "future",
            Some(batch(Batch {
                timestamp: future,
                ..PLAIN
            })?),
        ),
        (
            "large",
            Some(batch(Batch {
                size: 1_100_000,
                ..PLAIN
            })?),
        ),
    ] {
        writeln!(said, "{what}: {}", produce(wire, topic, 1, records).await?)?;
    }
    writeln!(
        said,
        "acks 2: {}",
        produce(wire, topic, 2, Some(good.clone())).await?
    )?;
    writeln!(
        said,
        "no topic: {}",
        produce(wire, "not-there", 1, Some(good)).await?
    )?;
    let compacted = format!("{topic}-compacted");
    fresh_with(wire, &compacted, 1, &[("cleanup.policy", "compact")]).await?;
    let keyless = batch(Batch {
        key: false,
        ..PLAIN
    })?;
    writeln!(
        said,
        "no key: {}",
        produce(wire, &compacted, 1, Some(keyless)).await?
    )?;
    Ok(said)
}

async fn latest(wire: &mut Wire, topic: &str, epoch: i32, time: i64) -> Result<String> {
    at_time(wire, 8, topic, epoch, time).await
}

async fn at_time(
    wire: &mut Wire,
    version: i16,
    topic: &str,
    epoch: i32,
    time: i64,
) -> Result<String> {
    let partition = ListOffsetsPartition::default()
        .with_partition_index(0)
        .with_current_leader_epoch(epoch)
        .with_timestamp(time);
    let asked = ListOffsetsTopic::default()
        .with_name(named(topic))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![asked]);
    let answer: ListOffsetsResponse = wire.ask(2, version, &request).await?;
    let answer = &answer.topics[0].partitions[0];
    Ok(format!(
        "code {} offset {} time {} epoch {}",
        answer.error_code, answer.offset, answer.timestamp, answer.leader_epoch
    ))
}

async fn by_time(wire: &mut Wire, topic: &str) -> Result<String> {
    let mut said = String::new();
    fresh(wire, topic, 1).await?;
    let base = PLAIN.timestamp;
    for time in [-1, -2, -3, base] {
        writeln!(
            said,
            "empty, {time}: {}",
            latest(wire, topic, -1, time).await?
        )?;
    }
    for (timestamp, count) in [(base, 3), (base + 100, 2), (base + 50, 2)] {
        let records = batch(Batch {
            timestamp,
            count,
            ..PLAIN
        })?;
        produce(wire, topic, -1, Some(records)).await?;
    }
    for time in [
        -1,
        -2,
        -3,
        -4,
        base - 1,
        base + 2,
        base + 3,
        base + 101,
        base + 102,
    ] {
        writeln!(
            said,
            "{}: {}",
            if time > 0 { time - base } else { time },
            latest(wire, topic, -1, time).await?
        )?;
    }
    for epoch in [0, 1] {
        writeln!(
            said,
            "epoch {epoch}: {}",
            latest(wire, topic, epoch, -1).await?
        )?;
    }
    // The special times came one by one, and most negative numbers mean nothing.
    for (version, time) in [
        (6, -1),
        (6, -3),
        (7, -3),
        (7, -4),
        (8, -5),
        (9, -5),
        (9, -6),
        (10, -6),
        (10, -100),
    ] {
        writeln!(
            said,
            "{time} in version {version}: {}",
            at_time(wire, version, topic, -1, time).await?
        )?;
    }
    writeln!(
        said,
        "no topic, no time: {}",
        latest(wire, "not-there", -1, -100).await?
    )?;
    writeln!(
        said,
        "no topic: {}",
        latest(wire, "not-there", -1, -1).await?
    )?;
    Ok(said)
}

async fn epochs(wire: &mut Wire, topic: &str) -> Result<String> {
    let mut said = String::new();
    fresh(wire, topic, 1).await?;
    produce(wire, topic, -1, Some(batch(PLAIN)?)).await?;
    for (current, asked) in [(-1, 0), (0, 0), (0, 5), (3, 0), (-1, -1), (-1, -7), (3, -1)] {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(0)
            .with_current_leader_epoch(current)
            .with_leader_epoch(asked);
        let topic = OffsetForLeaderTopic::default()
            .with_topic(named(topic))
            .with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![topic]);
        let answer: OffsetForLeaderEpochResponse = wire.ask(23, 4, &request).await?;
        let answer = &answer.topics[0].partitions[0];
        writeln!(
            said,
            "{current} {asked}: {} {} {}",
            answer.error_code, answer.leader_epoch, answer.end_offset
        )?;
    }
    Ok(said)
}

async fn fetch(wire: &mut Wire, topic: &str) -> Result<String> {
    let mut said = String::new();
    let id = fresh(wire, topic, 1).await?;
    for _ in 0..3 {
        produce(wire, topic, -1, Some(batch(PLAIN)?)).await?;
    }
    let asks = |id, partition, offset, epoch, last_epoch, session, session_epoch, bytes| {
        let partition = FetchPartition::default()
            .with_partition(partition)
            .with_last_fetched_epoch(last_epoch)
            .with_current_leader_epoch(epoch)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(bytes);
        let topic = FetchTopic::default()
            .with_topic_id(id)
            .with_partitions(vec![partition]);
        FetchRequest::default()
            .with_max_wait_ms(100)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_session_id(session)
            .with_session_epoch(session_epoch)
            .with_topics(if bytes == 0 { Vec::new() } else { vec![topic] })
    };
    let ask = |id, offset, epoch, session, session_epoch, bytes| {
        asks(id, 0, offset, epoch, -1, session, session_epoch, bytes)
    };
    let mut session = 0;
    for (what, id, offset, epoch, session_epoch, bytes) in [
        ("from 0", id, 0, -1, -1, 10_000),
        ("from 1, small", id, 1, 0, -1, 1),
        ("at the end", id, 3, -1, -1, 10_000),
        ("beyond", id, 4, -1, -1, 10_000),
        ("newer epoch", id, 0, 9, -1, 10_000),
        ("no topic", Uuid::from_u128(9), 0, -1, -1, 10_000),
        ("session", id, 0, -1, 0, 10_000),
        ("session, nothing new", id, 3, -1, 1, 10_000),
        ("session, again", id, 0, -1, 2, 0),
        ("session, wrong epoch", id, 0, -1, 7, 0),
        ("session, moved", id, 1, -1, 3, 10_000),
    ] {
        let request = ask(id, offset, epoch, session, session_epoch, bytes);
        let answer: FetchResponse = wire.ask(1, 15, &request).await?;
        write!(
            said,
            "{what}: {} session {}",
            answer.error_code,
            answer.session_id != 0
        )?;
        if answer.session_id != 0 {
            session = answer.session_id;
        }
        for partition in answer.responses.iter().flat_map(|topic| &topic.partitions) {
            write!(
                said,
                ", code {} end {} stable {} start {} bytes {}",
                partition.error_code,
                partition.high_watermark,
                partition.last_stable_offset,
                partition.log_start_offset,
                partition.records.as_ref().map_or(0, Bytes::len)
            )?;
        }
        writeln!(said)?;
    }
    for (what, partition, offset, last_epoch) in [
        ("before the start", 0, -1, -1),
        ("far beyond", 0, i64::MAX, -1),
        ("no partition", 7, 0, -1),
        ("last epoch 0", 0, 2, 0),
        ("last epoch 0, at the end", 0, 3, 0),
        ("last epoch 0, beyond", 0, 4, 0),
        ("last epoch 5", 0, 2, 5),
    ] {
        let request = asks(id, partition, offset, -1, last_epoch, 0, -1, 10_000);
        let answer: FetchResponse = wire.ask(1, 17, &request).await?;
        let found = &answer.responses[0].partitions[0];
        writeln!(
            said,
            "{what}: code {} end {} stable {} start {} bytes {} ends {} at {} leader {} {}",
            found.error_code,
            found.high_watermark,
            found.last_stable_offset,
            found.log_start_offset,
            found.records.as_ref().map_or(0, Bytes::len),
            found.diverging_epoch.epoch,
            found.diverging_epoch.end_offset,
            found.current_leader.leader_id.0,
            found.current_leader.leader_epoch
        )?;
    }
    let answer: FetchResponse = wire.ask(1, 15, &ask(id, 0, -1, 1_234_567, 5, 0)).await?;
    writeln!(said, "unknown session: {}", answer.error_code)?;
    Ok(said)
}

async fn commits(wire: &mut Wire, topic: &str) -> Result<String> {
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

/// The first epoch of a group with a member is 1, and 2 since Kafka 4.3: epochs are told and written down
/// as if it were 1. `shift` is how much more it was.
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

async fn heartbeats(wire: &mut Wire, topic: &str) -> Result<String> {
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

async fn statics(wire: &mut Wire, topic: &str) -> Result<String> {
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
