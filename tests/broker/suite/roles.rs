//! Many roles on one client: they share its brokers, and none waits for another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use ottla::{Client, Consumer, ErrorKind, OffsetReset, Producer, Record};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{LONG, Result, client, partitions, three, unique};

const PRODUCERS: usize = 20;
const MEMBERS: usize = 20;
const IDLE_READERS: usize = 10;
const TOPICS: usize = 4;
/// Of each producer, one in so much time.
const RECORDS: usize = 200;
const PAUSE: Duration = Duration::from_millis(20);
/// Generous, and yet far less than readers of empty topics make each other wait for on one
/// connection.
const SLOW: Duration = Duration::from_secs(5);

/// Reads what all producers of its topic write; how long each record took to come.
async fn member(
    client: Client,
    topic: String,
    begun: Instant,
    ready: tokio::sync::mpsc::Sender<()>,
) -> Result<(Vec<Duration>, Consumer)> {
    let group = unique("roles");
    let builder = client.consumer(group).subscribe([topic]);
    let builder = builder.offset_reset(OffsetReset::Earliest);
    let mut consumer = builder.build()?;
    while consumer.assignment().is_empty() {
        consumer.poll_timeout(PAUSE).await?;
    }
    ready.send(()).await?;
    let mut lags = consumer.watch_lag(Duration::from_millis(500));
    let watching = tokio::spawn(async move { while lags.next().await.is_some() {} });
    let expected = PRODUCERS / TOPICS * RECORDS;
    let mut took = Vec::with_capacity(expected);
    while took.len() < expected {
        let polled = timeout(LONG, consumer.poll()).await;
        let polled = polled.map_err(|_| format!("{} of {expected} records came", took.len()))?;
        let batches = polled?.ok_or("the client was closed")?;
        for batch in &batches {
            for record in batch.records() {
                let record = record?;
                let stamp = record.value().and_then(<[u8]>::first_chunk);
                let sent = u64::from_le_bytes(*stamp.ok_or("no stamp")?);
                took.push(begun.elapsed().saturating_sub(Duration::from_nanos(sent)));
            }
        }
    }
    consumer.commit().await?;
    watching.abort();
    Ok((took, consumer))
}

async fn produce(client: Client, topic: String, begun: Instant) -> Result<Producer> {
    let producer = client.producer().build()?;
    for _ in 0..RECORDS {
        let stamp = begun.elapsed().as_nanos() as u64;
        producer
            .send(Record::to(&topic).with_value(&stamp.to_le_bytes()))
            .await?;
        sleep(PAUSE).await;
    }
    Ok(producer)
}

/// Reads what nobody writes to.
async fn read_nothing(client: Client, topic: String, stop: Arc<AtomicBool>) -> Result {
    let reader = client.reader().assign(partitions(&topic, 3));
    let mut reader = reader.build()?;
    while !stop.load(Ordering::Relaxed) {
        let batches = reader.poll_timeout(PAUSE * 10).await?;
        assert!(batches.is_some_and(|batches| batches.is_empty()));
    }
    Ok(())
}

/// Asks with so little time that some questions end without an answer.
async fn ask(client: Client, stop: Arc<AtomicBool>) -> Result {
    let admin = client.admin().with_timeout(Duration::from_millis(100));
    while !stop.load(Ordering::Relaxed) {
        let outcomes = [
            admin.list_topics().await.map(drop),
            admin.list_groups().await.map(drop),
            admin.describe_cluster().await.map(drop),
            admin.group_offsets("roles-1").await.map(drop),
        ];
        for error in outcomes.into_iter().filter_map(Result::err) {
            let passes = error.is_retriable() || error.kind() == ErrorKind::Timeout;
            assert!(passes, "{error}");
        }
        let _ = client.metrics();
        sleep(PAUSE).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_roles_on_one_client_do_not_wait_for_each_other() -> Result {
    let cluster = three().await?;
    let client = client(cluster).await?;
    let topics: Vec<_> = (0..TOPICS).map(|_| unique("roles")).collect();
    let empty: Vec<_> = (0..IDLE_READERS).map(|_| unique("empty")).collect();
    for topic in topics.iter().chain(&empty) {
        cluster.create_topic(topic, 3, 1).await?;
    }
    let (begun, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let (ready, mut are_ready) = tokio::sync::mpsc::channel(MEMBERS);
    let mut members = JoinSet::new();
    for topic in topics.iter().cycle().take(MEMBERS) {
        let ready = ready.clone();
        members.spawn(member(client.clone(), topic.clone(), begun, ready));
    }
    drop(ready);
    let mut others = JoinSet::new();
    for topic in empty {
        others.spawn(read_nothing(client.clone(), topic, Arc::clone(&stop)));
    }
    for _ in 0..MEMBERS {
        let one = timeout(LONG, are_ready.recv()).await?;
        one.ok_or("a member did not join")?;
    }
    // All connections are made, and those by which brokers were first looked for closed.
    sleep(Duration::from_secs(2)).await;
    let before = client.metrics().connections_closed;
    others.spawn(ask(client.clone(), Arc::clone(&stop)));
    let mut producers = JoinSet::new();
    for topic in topics.iter().cycle().take(PRODUCERS) {
        producers.spawn(produce(client.clone(), topic.clone(), begun));
    }
    // Roles that end may close connections of theirs, so that all are kept until those are counted.
    let producers: Result<Vec<_>> = producers.join_all().await.into_iter().collect();
    let mut consumers = Vec::new();
    for outcome in members.join_all().await {
        let (mut took, consumer) = outcome?;
        consumers.push(consumer);
        assert_eq!(took.len(), PRODUCERS / TOPICS * RECORDS);
        took.sort_unstable();
        let p99 = took[took.len() * 99 / 100];
        assert!(p99 < SLOW, "a member starves: {p99:?}");
    }
    let metrics = client.metrics();
    assert_eq!(metrics.connections_closed, before, "connections were lost");
    let heartbeats = metrics.api("ConsumerGroupHeartbeat").ok_or("none")?;
    assert_eq!(heartbeats.failed, 0, "of {}", heartbeats.requests);
    for producer in producers? {
        producer.close_timeout(LONG).await.unwrap();
    }
    for consumer in consumers {
        consumer.close_timeout(LONG).await?;
    }
    stop.store(true, Ordering::Relaxed);
    for outcome in others.join_all().await {
        outcome?;
    }
    Ok(())
}
