//! Topics made, grown, deleted and described.

use std::fmt::Write as _;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::*;
use uuid::Uuid;

use super::logs::latest;
use super::wire::{Result, Wire, text};

pub(super) fn named(name: &str) -> TopicName {
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

pub(super) async fn fresh_with(
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

pub(super) async fn topics(wire: &mut Wire, topic: &str) -> Result<String> {
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

pub(super) async fn metadata(wire: &mut Wire, topic: &str) -> Result<String> {
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
