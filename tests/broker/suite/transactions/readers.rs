//! Readers of logs that are full of aborted transactions, from any place on.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use ottla::{Client, Consumer, IsolationLevel, OffsetReset, Record, TopicPartition};
use tokio::time::{Instant, timeout};

use crate::support::{LONG, Result, client, old, one, partitions, text, unique};

const PRODUCERS: usize = 3;
const ROUNDS: usize = 5;
const RECORDS: usize = 30;
/// Two of them fill a batch, so that producers come in turns in the log.
const SIZE: usize = 20_000;
const BATCH: usize = 45_000;

/// What was written to one partition: the fate of the record at each offset.
type Written = BTreeMap<i64, String>;

fn is_committed(fate: &str) -> bool {
    fate.starts_with("yes")
}

/// Producers write to two partitions at once, each round in transactions that together are longer
/// than a segment; two thirds of them are aborted.
async fn write(client: &Client, topic: &str) -> Result<[Written; 2]> {
    let mut producers = Vec::new();
    for _ in 0..PRODUCERS {
        let producer = client.transactional_producer(unique("tx-readers"));
        producers.push(producer.batch_size(BATCH).build().await?);
    }
    let mut written = [Written::new(), Written::new()];
    for round in 0..ROUNDS {
        let mut open = Vec::new();
        for producer in &mut producers {
            open.push(producer.begin().await?);
        }
        let commits = |place: usize| (round + place).is_multiple_of(3);
        let mut deliveries = Vec::new();
        for number in 0..RECORDS * 2 {
            for (place, transaction) in open.iter().enumerate() {
                let fate = match commits(place) {
                    true => format!("yes {round} {place} {number}"),
                    false => format!("no {round} {place} {number}"),
                };
                let value = format!("{fate} {}", "x".repeat(SIZE));
                let record = Record::to(topic).with_partition((number % 2) as i32);
                let delivery = transaction.enqueue(record.with_value(&value)).await?;
                deliveries.push((number % 2, fate, delivery));
            }
        }
        for (partition, fate, delivery) in deliveries {
            let offset = delivery.await?.offset.ok_or("no offset")?;
            assert_eq!(written[partition].insert(offset, fate), None);
        }
        for (place, transaction) in open.into_iter().enumerate() {
            match commits(place) {
                true => transaction.commit().await?,
                false => transaction.abort().await?,
            }
        }
    }
    Ok(written)
}

fn reader(client: &Client, topic: &str, isolation: IsolationLevel) -> Result<Consumer> {
    let reader = client.reader().assign(partitions(topic, 2));
    let reader = reader
        .isolation_level(isolation)
        .offset_reset(OffsetReset::Earliest);
    // An aborted range takes many fetches.
    Ok(reader.max_partition_fetch_bytes(100_000).build()?)
}

/// The first record at or behind an offset, and its fate.
async fn first(reader: &mut Consumer, tp: &TopicPartition, from: i64) -> Result<(i64, String)> {
    reader.seek(tp, from)?;
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < LONG, "nothing of {tp} behind {from}");
        let polled = reader.poll_timeout(Duration::from_secs(1)).await?;
        for batch in &polled.ok_or("closed")? {
            if batch.partition() != tp.partition() {
                continue;
            }
            if let Some(record) = batch.into_iter().next() {
                let record = record?;
                return Ok((record.offset(), fate(record.value())));
            }
        }
    }
}

fn fate(value: Option<&[u8]>) -> String {
    text(value).trim_end_matches('x').trim_end().to_owned()
}

/// What comes of a partition's stream until `last`.
async fn until(mut stream: ottla::PartitionStream, last: i64) -> Result<Written> {
    let mut seen = Written::new();
    while seen.last_key_value().is_none_or(|(at, _)| *at < last) {
        let batch = timeout(LONG, stream.next()).await?.ok_or("it ended")??;
        for record in &batch {
            let record = record?;
            let before = seen.insert(record.offset(), fate(record.value()));
            assert_eq!(before, None, "{} came twice", record.offset());
        }
    }
    Ok(seen)
}

#[tokio::test]
async fn seeks_and_splits_find_what_is_committed() -> Result {
    for cluster in [one().await?, old().await?] {
        let topic = unique("tx-readers");
        let settings = [("segment.bytes", "1048576")];
        cluster.create_topic_with(&topic, 2, 1, &settings).await?;
        let client = client(cluster).await?;
        let written = write(&client, &topic).await?;
        let all = partitions(&topic, 2);

        // A task for each partition.
        let mut consumer = reader(&client, &topic, IsolationLevel::ReadCommitted)?;
        let mut streams = consumer.split_by_partition();
        let mut tasks = Vec::new();
        for _ in &all {
            let (tp, stream) = timeout(LONG, streams.next()).await?.ok_or("closed")??;
            let of = &written[tp.partition() as usize];
            let committed = of.iter().filter(|(_, fate)| is_committed(fate));
            let expected: Written = committed.map(|(at, fate)| (*at, fate.clone())).collect();
            let (last, _) = expected.last_key_value().ok_or("nothing is committed")?;
            tasks.push((tokio::spawn(until(stream, *last)), expected));
        }
        for (task, expected) in tasks {
            let seen = task.await??;
            assert!(seen == expected, "{} of {}", seen.len(), expected.len());
        }
        drop(streams);

        // From anywhere, also from where all is aborted.
        let mut uncommitted = reader(&client, &topic, IsolationLevel::ReadUncommitted)?;
        let mut inside = 0;
        for (tp, of) in all.iter().zip(&written) {
            for (from, there) in of.iter().step_by(17) {
                let told = first(&mut uncommitted, tp, *from).await?;
                assert_eq!(told, (*from, there.clone()));
                let next = of.range(from..).find(|(_, fate)| is_committed(fate));
                if let Some((at, fate)) = next {
                    inside += usize::from(at != from);
                    let told = first(&mut consumer, tp, *from).await?;
                    assert_eq!(told, (*at, fate.clone()), "from {from}");
                }
            }
        }
        assert!(
            inside > 10,
            "{inside} of the places were in what is aborted"
        );
    }
    Ok(())
}
