//! Brokers that die, freeze and come back while records flow.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla::{OffsetReset, Record};
use ottla_testcontainers::Cluster;
use tokio::time::timeout;

use crate::support::{LONG, Result, client, partitions, text};

const RECORDS: usize = 60_000;
const PARTITIONS: i32 = 6;

/// Each acknowledged record is there exactly once, in the order in which it was accepted.
#[tokio::test]
async fn idempotent_records_survive_a_kill_a_freeze_and_a_restart_exactly_once() -> Result {
    let cluster = Cluster::builder().brokers(3).start().await?;
    let topic = "faults";
    cluster.create_topic(topic, PARTITIONS as u32, 3).await?;
    let client = client(&cluster).await?;
    let producer = client.producer().build().await?;
    let produce = async {
        let mut deliveries = Vec::with_capacity(RECORDS);
        for number in 0..RECORDS {
            let value = number.to_string();
            let record = Record::to(topic)
                .partition(number as i32 % PARTITIONS)
                .value(&value);
            deliveries.push(producer.send(record).await?);
            if number % 200 == 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let mut offsets: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        for delivery in deliveries {
            let metadata = delivery.await?;
            if let Some(offset) = metadata.offset {
                offsets.entry(metadata.partition).or_default().push(offset);
            }
        }
        Result::<BTreeMap<i32, Vec<i64>>>::Ok(offsets)
    };
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
        cluster.broker(3).stop().await?;
        cluster.broker(3).start().await?;
        Result::Ok(())
    };
    let (offsets, ()) = tokio::try_join!(produce, break_things)?;
    for (partition, offsets) in &offsets {
        assert!(
            offsets.windows(2).all(|pair| pair[0] < pair[1]),
            "partition {partition}: offsets out of order"
        );
    }
    let mut consumer = client
        .reader()
        .assign(partitions(topic, PARTITIONS))
        .offset_reset(OffsetReset::Earliest)
        .build()
        .await?;
    let mut read: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    let mut seen = 0;
    while seen < RECORDS {
        let batches = timeout(LONG, consumer.poll())
            .await
            .map_err(|_| format!("{seen} of {RECORDS} came"))??;
        for batch in &batches.ok_or("closed")? {
            for record in batch.records() {
                read.entry(batch.partition())
                    .or_default()
                    .push(text(record?.value()).parse()?);
                seen += 1;
            }
        }
    }
    for (partition, numbers) in read {
        let expected: Vec<usize> = (0..RECORDS)
            .filter(|number| *number as i32 % PARTITIONS == partition)
            .collect();
        assert!(
            numbers == expected,
            "partition {partition}: {} records, {} expected",
            numbers.len(),
            expected.len()
        );
    }
    let report = producer.close(LONG).await;
    assert!(report.is_complete(), "{report:?}");
    Ok(())
}
