//! Promises of the events while brokers die and come back.

use std::collections::BTreeSet;
use std::time::Duration;

use ottla_testcontainers::Cluster;

use super::process::Tool;
use super::promises::{self, consumed, owned};
use crate::support::{LONG, Result};

#[tokio::test]
async fn promises_hold_while_brokers_die() -> Result {
    let cluster = Cluster::builder().brokers(3).start().await?;
    let bootstrap = cluster.bootstrap();
    cluster.create_topic("t", 6, 3).await?;
    let config = std::env::temp_dir().join(format!("ottla-{}-idempotent", std::process::id()));
    std::fs::write(&config, "enable.idempotence=true\nretries=2147483647\n")?;
    let common = ["--bootstrap-server", &bootstrap, "--topic", "t"];
    let config = config.to_string_lossy();
    let produce = [
        &common[..],
        &[
            "--throughput",
            "1000",
            "--repeating-keys",
            "60",
            "--command-config",
            &config,
        ],
    ]
    .concat();
    let member = [
        &common[..],
        &["--group-id", "g", "--group-protocol", "consumer"],
    ]
    .concat();
    let consumers = [
        Tool::start("verifiable-consumer", &member)?,
        Tool::start("verifiable-consumer", &member)?,
    ];
    for consumer in &consumers {
        consumer
            .wait_for("its share", |events| owned(events) == 3)
            .await?;
    }
    let producer = Tool::start("verifiable-producer", &produce)?;
    let pause = || tokio::time::sleep(Duration::from_secs(3));
    for id in [1, 2] {
        pause().await;
        cluster.broker(id).kill().await?;
        pause().await;
        cluster.broker(id).start().await?;
        cluster.wait_until_in_sync(LONG).await?;
    }
    cluster.broker(3).pause().await?;
    pause().await;
    cluster.broker(3).unpause().await?;
    pause().await;
    producer.signal("TERM").await?;
    let producer = producer.end(LONG).await?;
    assert_eq!(producer.status, 143, "{}", producer.stderr);
    let acked = promises::producer(&producer.events);
    assert_eq!(
        acked.len() + 3,
        producer.events.len(),
        "no record failed: {}",
        producer.stderr
    );
    let all = acked.len() as i64;
    let end = tokio::time::Instant::now() + LONG;
    while consumers
        .iter()
        .map(|consumer| consumed(&consumer.events()))
        .sum::<i64>()
        < all
    {
        assert!(
            tokio::time::Instant::now() < end,
            "not all of {all} records were consumed"
        );
        pause().await;
    }
    let mut members = Vec::new();
    for consumer in consumers {
        consumer.signal("TERM").await?;
        let ended = consumer.end(LONG).await?;
        assert_eq!(ended.status, 143, "{}", ended.stderr);
        promises::ended(&ended.events);
        members.push(ended.events);
    }
    promises::group(&members.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let read: BTreeSet<(i64, i64)> = members
        .iter()
        .flat_map(|events| promises::consumer(events))
        .flat_map(|(partition, offsets)| offsets.into_iter().map(move |offset| (partition, offset)))
        .collect();
    let written: BTreeSet<(i64, i64)> = acked.into_values().collect();
    assert_eq!(
        read, written,
        "what was acknowledged was consumed, and nothing else is there"
    );
    Ok(())
}
