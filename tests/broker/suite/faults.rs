//! Brokers that die, freeze and come back while records flow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ottla::{Client, OffsetReset, Producer, Record};
use ottla_testcontainers::Cluster;
use tokio::time::timeout;

use crate::support::{LONG, Result, client, partitions, text};

const RECORDS: usize = 200_000;
const PARTITIONS: i32 = 6;

/// Each acknowledged record of an idempotent producer is there exactly once, in the order in which
/// it was accepted; of one that is not idempotent, none is missing.
#[tokio::test]
async fn records_survive_kills_a_freeze_and_a_roll() -> Result {
    let cluster = Cluster::builder().brokers(3).start().await?;
    let topics = ["exactly-once", "at-least-once"];
    for topic in topics {
        cluster.create_topic(topic, PARTITIONS as u32, 3).await?;
    }
    let client = client(&cluster).await?;
    let idempotent = client.producer().build()?;
    let plain = client.producer().idempotence(false).build()?;
    let break_things = async {
        let pause = || tokio::time::sleep(Duration::from_secs(2));
        pause().await;
        cluster.broker(1).kill().await?;
        pause().await;
        cluster.broker(1).start().await?;
        pause().await;
        cluster.broker(2).pause().await?;
        pause().await;
        cluster.broker(2).unpause().await?;
        pause().await;
        for broker in cluster.brokers() {
            broker.stop().await?;
            broker.start().await?;
        }
        cluster.broker(3).kill().await?;
        cluster.broker(3).start().await?;
        Result::Ok(())
    };
    // A tenth of the records without idempotence.
    let (offsets, _, ()) = tokio::try_join!(
        produce(&idempotent, topics[0], RECORDS),
        produce(&plain, topics[1], RECORDS / 10),
        break_things,
    )?;
    for (partition, offsets) in &offsets {
        assert!(
            offsets.windows(2).all(|pair| pair[0] < pair[1]),
            "partition {partition}: offsets out of order"
        );
    }
    for (partition, numbers) in read(&client, topics[0]).await? {
        let expected: Vec<usize> = mine(partition, RECORDS).collect();
        assert!(
            numbers == expected,
            "partition {partition}: {} records, {} expected",
            numbers.len(),
            expected.len()
        );
    }
    for (partition, numbers) in read(&client, topics[1]).await? {
        let there: BTreeSet<usize> = numbers.into_iter().collect();
        let missing = mine(partition, RECORDS / 10).filter(|number| !there.contains(number));
        assert_eq!(missing.count(), 0, "partition {partition}");
    }
    for producer in [idempotent, plain] {
        producer.close_timeout(LONG).await.unwrap();
    }
    Ok(())
}

/// Those of the first `count` numbers that go to a partition.
fn mine(partition: i32, count: usize) -> impl Iterator<Item = usize> {
    (0..count).filter(move |number| *number as i32 % PARTITIONS == partition)
}

/// Sends numbers in half a minute; returns the offsets that were acknowledged, in the order of
/// sending.
async fn produce(
    producer: &Producer,
    topic: &str,
    count: usize,
) -> Result<BTreeMap<i32, Vec<i64>>> {
    let mut deliveries = Vec::with_capacity(count);
    for number in 0..count {
        let value = number.to_string();
        let record = Record::to(topic)
            .with_partition(number as i32 % PARTITIONS)
            .with_value(&value);
        deliveries.push(producer.enqueue(record).await?);
        if number % (count / 1000) == 0 {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    let mut offsets: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    for delivery in deliveries {
        let metadata = delivery.await?;
        if let Some(offset) = metadata.offset {
            offsets.entry(metadata.partition).or_default().push(offset);
        }
    }
    Ok(offsets)
}

/// The numbers in a topic, by partition in the order of the log.
async fn read(client: &Client, topic: &str) -> Result<BTreeMap<i32, Vec<usize>>> {
    let partitions = partitions(topic, PARTITIONS);
    let mut consumer = client
        .reader()
        .assign(partitions.clone())
        .offset_reset(OffsetReset::Earliest)
        .build()?;
    let mut read: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    let ends = consumer.end_offsets(&partitions).await?;
    let count: i64 = ends.values().sum();
    let mut seen = 0;
    while seen < count {
        let batches = timeout(LONG, consumer.poll())
            .await
            .map_err(|_| format!("{seen} of {count} came"))??;
        for batch in &batches.ok_or("closed")? {
            for record in batch.records() {
                let numbers = read.entry(batch.partition()).or_default();
                numbers.push(text(record?.value()).parse()?);
                seen += 1;
            }
        }
    }
    Ok(read)
}
