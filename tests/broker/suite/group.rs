//! Groups (KIP-848): sharing, moving on, committing, and lag as Kafka's own tool sees it.

use std::collections::BTreeSet;
use std::time::Duration;

use ottla::{Client, Consumer, OffsetReset, Record, TimeLag};
use tokio::time::{Instant, timeout};

use crate::support::{LONG, Result, client, one, take, text, unique};

const CLOSE: Duration = Duration::from_secs(20);

async fn member(client: &Client, group: &str, topic: &str) -> Result<Consumer> {
    let builder = client
        .consumer(group)
        .subscribe([topic.to_owned()])
        .offset_reset(OffsetReset::Earliest);
    Ok(builder.auto_commit(false).build()?)
}

async fn produce(client: &Client, topic: &str, values: std::ops::Range<usize>) -> Result {
    let producer = client.producer().build()?;
    for number in values {
        drop(
            producer
                .enqueue(
                    Record::to(topic)
                        .with_key(&number.to_string())
                        .with_value(&number.to_string()),
                )
                .await?,
        );
    }
    producer.flush().await?;
    producer.close_timeout(CLOSE).await.unwrap();
    Ok(())
}

/// Polls until the assignment has so many partitions; records are not expected.
async fn settle(consumer: &mut Consumer, partitions: usize) -> Result {
    let deadline = Instant::now() + LONG;
    while consumer.assignment().len() != partitions {
        assert!(
            Instant::now() < deadline,
            "{:?}, not {partitions} partitions",
            consumer.assignment()
        );
        let _ = timeout(Duration::from_millis(200), consumer.poll()).await;
    }
    Ok(())
}

#[tokio::test]
async fn what_is_committed_is_not_read_again() -> Result {
    let (cluster, topic, group) = (one().await?, unique("resume"), unique("group"));
    cluster.create_topic(&topic, 3, 1).await?;
    let client = client(cluster).await?;
    produce(&client, &topic, 0..300).await?;
    let mut first = member(&client, &group, &topic).await?;
    let read = take(&mut first, 300).await?;
    first.commit().await?;
    first.close_timeout(CLOSE).await?;
    produce(&client, &topic, 300..400).await?;
    let mut second = member(&client, &group, &topic).await?;
    let again = take(&mut second, 100).await?;
    let values =
        |records: &std::collections::BTreeMap<i32, Vec<ottla::OwnedRecord>>| -> BTreeSet<String> {
            records
                .values()
                .flatten()
                .map(|record| text(record.value()))
                .collect()
        };
    assert_eq!(values(&read).len(), 300);
    assert_eq!(
        values(&again),
        (300..400).map(|number| number.to_string()).collect()
    );
    second.close_timeout(CLOSE).await?;
    Ok(())
}

#[tokio::test]
async fn members_share_the_partitions_and_take_over_from_those_that_leave() -> Result {
    let (cluster, topic, group) = (one().await?, unique("share"), unique("group"));
    cluster.create_topic(&topic, 6, 1).await?;
    let client = client(cluster).await?;
    let mut first = member(&client, &group, &topic).await?;
    settle(&mut first, 6).await?;
    let mut second = member(&client, &group, &topic).await?;
    tokio::try_join!(settle(&mut first, 3), settle(&mut second, 3))?;
    let mut owned = first.assignment();
    owned.extend(second.assignment());
    owned.sort();
    owned.dedup();
    assert_eq!(owned.len(), 6, "no partition has two owners");
    second.close_timeout(CLOSE).await?;
    settle(&mut first, 6).await?;
    first.close_timeout(CLOSE).await?;
    Ok(())
}

#[tokio::test]
async fn a_java_member_shares_the_group() -> Result {
    let (cluster, topic, group) = (one().await?, unique("mixed"), unique("group"));
    cluster.create_topic(&topic, 4, 1).await?;
    let client = client(cluster).await?;
    let mut mine = member(&client, &group, &topic).await?;
    settle(&mut mine, 4).await?;
    let java = cluster
        .java_client("kafka-console-consumer.sh")
        .args([
            "--topic",
            &topic,
            "--group",
            &group,
            "--consumer-property",
            "group.protocol=consumer",
            // Its partitions come a heartbeat after ours are gone: records are there before.
            "--consumer-property",
            "auto.offset.reset=earliest",
        ])
        .start()
        .await?;
    settle(&mut mine, 2).await?;
    produce(&client, &topic, 0..400).await?;
    let deadline = Instant::now() + LONG;
    let mut seen = BTreeSet::new();
    loop {
        if let Ok(polled) = timeout(Duration::from_millis(300), mine.poll()).await {
            for batch in &polled?.ok_or("closed")? {
                for record in batch.records() {
                    seen.insert(text(record?.value()));
                }
            }
        }
        let output = java.output().await?;
        let numbers = output
            .stdout
            .lines()
            .filter(|line| line.parse::<u32>().is_ok());
        let theirs: BTreeSet<String> = numbers.map(str::to_owned).collect();
        if seen.len() + theirs.len() >= 400 {
            assert!(seen.is_disjoint(&theirs));
            assert!(!seen.is_empty() && !theirs.is_empty());
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{} here, {} there\n{}",
            seen.len(),
            theirs.len(),
            output.stderr
        );
    }
    java.stop().await?;
    settle(&mut mine, 4).await?;
    mine.close_timeout(CLOSE).await?;
    Ok(())
}

#[tokio::test]
async fn lag_is_what_kafkas_own_tool_says() -> Result {
    let (cluster, topic, group) = (one().await?, unique("lag"), unique("group"));
    cluster.create_topic(&topic, 2, 1).await?;
    let client = client(cluster).await?;
    produce(&client, &topic, 0..1000).await?;
    let builder = client
        .consumer(&group)
        .subscribe([topic.clone()])
        .offset_reset(OffsetReset::Earliest);
    let mut consumer = builder.auto_commit(false).max_poll_records(100).build()?;
    let mut read = 0;
    while read < 300 {
        read += timeout(LONG, consumer.poll())
            .await??
            .ok_or("closed")?
            .record_count();
    }
    consumer.commit().await?;
    let lag = consumer.fetch_lag().await?;
    assert_eq!(lag.records(), 1000 - read as u64);
    assert!(matches!(lag.time(), TimeLag::Behind(_)), "{lag:?}");
    let described = cluster
        .tool(
            "kafka-consumer-groups.sh",
            &["--describe", "--group", &group],
        )
        .await?
        .stdout;
    for partition in lag.partitions() {
        let number = partition.topic_partition.partition().to_string();
        let columns: Vec<&str> = described
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|columns| {
                columns.get(1) == Some(&topic.as_str()) && columns.get(2) == Some(&number.as_str())
            })
            .ok_or_else(|| format!("partition {number} is not in\n{described}"))?;
        let told =
            |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let committed = partition.committed.or(partition.position);
        assert_eq!(
            [columns[3], columns[4]],
            [
                told(committed).as_str(),
                told(partition.end_offset).as_str()
            ],
            "{described}"
        );
        assert_eq!(
            columns[5],
            told(partition.records.map(|records| records as i64)),
            "{described}"
        );
    }
    while read < 1000 {
        read += timeout(LONG, consumer.poll())
            .await??
            .ok_or("closed")?
            .record_count();
    }
    let lag = consumer.fetch_lag().await?;
    assert_eq!((lag.records(), lag.time()), (0, TimeLag::CaughtUp));
    consumer.close_timeout(CLOSE).await?;
    Ok(())
}

#[tokio::test]
async fn seeking_goes_back_and_forth() -> Result {
    let (cluster, topic) = (one().await?, unique("seek"));
    cluster.create_topic(&topic, 1, 1).await?;
    let client = client(cluster).await?;
    produce(&client, &topic, 0..50).await?;
    let tp = ottla::TopicPartition::new(topic.as_str(), 0);
    let mut consumer = client
        .reader()
        .assign([tp.clone()])
        .offset_reset(OffsetReset::Earliest)
        .build()?;
    take(&mut consumer, 50).await?;
    consumer.seek(&tp, 40)?;
    let again = take(&mut consumer, 10).await?;
    assert_eq!(again[&0][0].offset(), 40);
    consumer.seek_to_beginning([&tp])?;
    assert_eq!(take(&mut consumer, 50).await?[&0][0].offset(), 0);
    consumer.seek_to_end([&tp])?;
    assert!(
        timeout(Duration::from_secs(2), consumer.poll())
            .await
            .is_err(),
        "nothing is left to read"
    );
    assert_eq!(consumer.end_offsets([tp.clone()]).await?[&tp], 50);
    assert_eq!(consumer.beginning_offsets([tp.clone()]).await?[&tp], 0);
    Ok(())
}
