//! What is written to a partition, and what can be read and asked of it.

use std::fmt::Write as _;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use uuid::Uuid;

use super::groups::LOADING;
use super::topics::{fresh, fresh_with, named};
use super::wire::{Batch, PLAIN, Result, Wire, batch};

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

pub(super) async fn sequences(wire: &mut Wire, topic: &str) -> Result<String> {
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
pub(super) async fn produce_by_id(wire: &mut Wire, topic: &str) -> Result<String> {
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

pub(super) async fn refused(wire: &mut Wire, topic: &str) -> Result<String> {
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

pub(super) async fn latest(wire: &mut Wire, topic: &str, epoch: i32, time: i64) -> Result<String> {
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

pub(super) async fn by_time(wire: &mut Wire, topic: &str) -> Result<String> {
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

pub(super) async fn epochs(wire: &mut Wire, topic: &str) -> Result<String> {
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

pub(super) async fn fetch(wire: &mut Wire, topic: &str) -> Result<String> {
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
