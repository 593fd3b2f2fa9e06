//! Topics that are deleted, made anew or enlarged while records flow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ottla::admin::NewTopic;
use ottla::{Certainty, Client, ErrorKind, Record};
use ottla_testcontainers::Cluster;
use tokio::time::{Instant, sleep, timeout};

use super::{SECOND, held, numbers};
use crate::support::{LONG, Result, client, eventually, old, one, unique};

/// A client that gives up early.
async fn hasty(cluster: &Cluster) -> Result<Client> {
    let client = Client::builder()
        .bootstrap(cluster.bootstrap().split(','))
        .request_timeout(4 * SECOND);
    Ok(client.connect().await?)
}

#[tokio::test]
async fn records_for_a_topic_deleted_under_way_end_in_time_and_others_go_on() -> Result {
    let (cluster, doomed, other) = (one().await?, unique("doomed"), unique("other"));
    for topic in [&doomed, &other] {
        cluster.create_topic(topic, 3, 1).await?;
    }
    let client = hasty(cluster).await?;
    let limit = 8 * SECOND;
    let producer = client.producer().delivery_timeout(limit).build()?;
    let mut ends = Vec::new();
    for number in 0..300_usize {
        if number == 100 {
            let deleted = client.admin().delete_topics([doomed.as_str()]).await?;
            deleted.all()?;
        }
        for topic in [&doomed, &other] {
            let value = number.to_string();
            let record = Record::to(topic)
                .with_partition(number as i32 % 3)
                .with_value(&value);
            let delivery = producer.enqueue(record).await?;
            let sent = Instant::now();
            // A machine under load is late.
            let end = timeout(limit + 20 * SECOND, delivery);
            ends.push(tokio::spawn(async move { (end.await, sent.elapsed()) }));
        }
        sleep(Duration::from_millis(10)).await;
    }
    let mut failed = 0;
    for (index, end) in ends.into_iter().enumerate() {
        let (end, took) = end.await?;
        let end = end.map_err(|_| format!("record {index} has no end after {took:?}"))?;
        match end {
            Ok(_) => assert!(index % 2 == 1 || index < 2 * 200, "{index} was written"),
            Err(error) => {
                assert_eq!(index % 2, 0, "of the other topic: {error}");
                assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                assert!(error.certainty().is_some(), "{error}");
                assert!(took > limit / 2, "{took:?}: {error}");
                failed += 1;
            }
        }
    }
    assert!(failed >= 150, "{failed}");
    producer.close_timeout(LONG).await?;
    Ok(())
}

/// By topic id (4.3) and by name (3.9).
#[tokio::test]
async fn a_topic_made_anew_under_way_holds_the_rest_once_and_in_order() -> Result {
    for cluster in [one().await?, old().await?] {
        made_anew(cluster).await?;
    }
    Ok(())
}

async fn made_anew(cluster: &Cluster) -> Result {
    const PARTITIONS: i32 = 3;
    let topic = unique("anew");
    cluster.create_topic(&topic, PARTITIONS as u32, 1).await?;
    let client = client(cluster).await?;
    let producer = client.producer().build()?;
    let (mut number, mut deliveries) = (0_usize, Vec::new());
    let mut send = async |times: usize| {
        for _ in 0..times {
            let value = number.to_string();
            let partition = number as i32 % PARTITIONS;
            let record = Record::to(&topic)
                .with_partition(partition)
                .with_value(&value);
            deliveries.push((number, partition, producer.enqueue(record).await?));
            number += 1;
        }
        sleep(Duration::from_millis(5)).await;
        Ok::<(), ottla::Error>(())
    };
    for _ in 0..100 {
        send(30).await?;
    }
    let admin = client.admin();
    let anew = async {
        admin.delete_topics([topic.as_str()]).await?.all()?;
        eventually(async || {
            let topic = NewTopic::new(topic.as_str()).partitions(PARTITIONS as u32);
            admin.create_topics([topic]).await?.all()?;
            Ok(())
        })
        .await
    };
    let mut anew = std::pin::pin!(anew);
    let mut made = false;
    for _ in 0..2000 {
        if !made {
            tokio::select! {
                biased;
                outcome = &mut anew => made = outcome.map(|()| true)?,
                sent = send(30) => sent?,
            }
        } else {
            break;
        }
    }
    assert!(made, "the topic was not made anew in time");
    for _ in 0..100 {
        send(30).await?;
    }
    let sent = number;
    let mut acknowledged: BTreeMap<i32, BTreeMap<usize, i64>> = BTreeMap::new();
    let mut impossible = BTreeSet::new();
    for (number, partition, delivery) in deliveries {
        match timeout(LONG, delivery).await? {
            Ok(metadata) => {
                let offset = metadata.offset.ok_or(format!("{number}: no offset"))?;
                acknowledged
                    .entry(partition)
                    .or_default()
                    .insert(number, offset);
            }
            Err(error) if error.certainty() == Some(Certainty::NotSent) => {
                impossible.insert(number);
            }
            Err(_) => {}
        }
    }
    let count = held(cluster, &topic).await?;
    assert!(count >= 3000, "{count} of {sent} in the new topic");
    for (partition, log) in numbers(&client, &topic, count, PARTITIONS).await? {
        assert!(
            log.windows(2).all(|pair| pair[0] < pair[1]),
            "partition {partition}: twice or out of order: {log:?}"
        );
        // What was acknowledged is here where the broker said, or went to the old log, from the
        // first on without a gap.
        let here: BTreeSet<_> = log.iter().copied().collect();
        for (number, offset) in &acknowledged[&partition] {
            let offset = usize::try_from(*offset)?;
            assert!(
                log.get(offset) == Some(number)
                    || (*number < log[0] && offset == number / PARTITIONS as usize),
                "partition {partition}: {number} was acknowledged as {offset}"
            );
        }
        assert!(here.is_disjoint(&impossible), "partition {partition}");
    }
    producer.close_timeout(LONG).await?;
    Ok(())
}

#[tokio::test]
async fn partitions_added_under_way_are_used() -> Result {
    let (cluster, topic) = (one().await?, unique("grows"));
    cluster.create_topic(&topic, 1, 1).await?;
    let slow = client(cluster).await?;
    let quick = Client::builder()
        .bootstrap(cluster.bootstrap().split(','))
        .metadata_max_age(SECOND);
    let (named, spread) = (
        slow.producer().build()?,
        quick.connect().await?.producer().build()?,
    );
    for producer in [&named, &spread] {
        producer.send(Record::to(&topic).with_value("v")).await?;
    }
    let more = ["--alter", "--topic", &topic, "--partitions", "3"];
    cluster.tool("kafka-topics.sh", &more).await?;
    // Who names a partition that is not known yet is refused, and has it looked for.
    let end = eventually(async || {
        let record = Record::to(&topic).with_partition(2).with_value("v");
        Ok(named.send(record).await?)
    });
    assert_eq!(end.await?.partition, 2);
    // Without keys they are found when metadata is old enough.
    let (mut seen, start) = (BTreeSet::new(), Instant::now());
    while seen.len() < 3 {
        assert!(start.elapsed() < LONG, "{seen:?}");
        let value = [7; 10_000];
        let metadata = spread.send(Record::to(&topic).with_value(&value)).await?;
        seen.insert(metadata.partition);
    }
    Ok(())
}
