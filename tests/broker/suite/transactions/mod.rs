//! Transactions on real brokers: what `read_committed` sees is all of a transaction or nothing.

mod admin;
mod copies;
mod errors;
mod faults;
mod java;
mod readers;

use std::collections::BTreeMap;
use std::time::Duration;

use ottla::{Client, IsolationLevel, OffsetReset, Record};
use tokio::time::Instant;

use crate::support::{LONG, Result, partitions, text};

/// Writes the numbers from 0 on to each partition of a topic.
async fn fill(client: &Client, topic: &str, partitions: i32, count: usize) -> Result {
    let producer = client.producer().build()?;
    for number in 0..count {
        let value = number.to_string();
        for partition in 0..partitions {
            let record = Record::to(topic).with_partition(partition);
            drop(producer.enqueue(record.with_value(&value)).await?);
        }
    }
    producer.close().await?;
    Ok(())
}

/// What a consumer sees of each partition, up to the end that it may see now.
async fn seen(
    client: &Client,
    topic: &str,
    count: i32,
    isolation: IsolationLevel,
) -> Result<BTreeMap<i32, Vec<String>>> {
    let all = partitions(topic, count);
    let mut reader = client
        .reader()
        .assign(all.clone())
        .isolation_level(isolation)
        .offset_reset(OffsetReset::Earliest)
        .max_partition_fetch_bytes(5_000)
        .build()?;
    let ends = reader.end_offsets(&all).await?;
    let began = Instant::now();
    let mut seen: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    while !all
        .iter()
        .all(|tp| reader.position(tp).unwrap_or(0) >= ends[tp])
    {
        // What comes last are markers, of which a poll tells nothing.
        let polled = reader.poll_timeout(Duration::from_millis(200)).await?;
        assert!(began.elapsed() < LONG, "{seen:?}");
        for batch in &polled.ok_or("closed")? {
            for record in batch {
                let value = text(record?.value());
                seen.entry(batch.partition()).or_default().push(value);
            }
        }
    }
    reader.close().await?;
    Ok(seen)
}

/// Whether each partition of the topic shows the numbers from 0 on, in order and once.
async fn assert_copied(client: &Client, topic: &str, partitions: i32, count: usize) -> Result {
    let seen = seen(client, topic, partitions, IsolationLevel::ReadCommitted).await?;
    for partition in 0..partitions {
        let values = seen.get(&partition).map_or(&[][..], Vec::as_slice);
        let expected = (0..count).map(|number| number.to_string());
        let wrong = values
            .iter()
            .zip(expected)
            .position(|(one, other)| *one != other);
        assert!(
            wrong.is_none() && values.len() == count,
            "{topic}-{partition}: {} of {count}, the first that differs is {wrong:?}",
            values.len()
        );
    }
    Ok(())
}
