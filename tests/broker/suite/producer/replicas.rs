//! Replicas that are missing, and brokers that are frozen.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use ottla::{Acks, Certainty, Client, ErrorKind, Purge, Record};
use ottla_testcontainers::Cluster;
use tokio::time::{Instant, sleep, timeout};

use super::{SECOND, code, numbers, placed};
use crate::proxy::{PRODUCE, Proxy};
use crate::support::{LONG, Result, client, eventually, one, unique};

async fn hasty(cluster: &Cluster, timeout: Duration) -> Result<Client> {
    let client = Client::builder().bootstrap(cluster.bootstrap().split(','));
    Ok(client.request_timeout(timeout).connect().await?)
}

/// Waits until the leader, on broker 1, has given up the other replica.
async fn alone(cluster: &Cluster, topic: &str) -> Result {
    eventually(async || {
        let describe = cluster.tool_command("kafka-topics.sh").on(1);
        let described = describe
            .args(["--describe", "--topic", topic])
            .run()
            .await?;
        match described.stdout.contains("Isr: 1\t") || described.stdout.contains("Isr: 1\n") {
            true => Ok(()),
            false => Err(described.stdout.into()),
        }
    })
    .await
}

#[tokio::test]
async fn a_shortage_of_replicas_is_waited_out_or_fails_with_the_truth() -> Result {
    let cluster = Cluster::builder()
        .brokers(3)
        .config("replica.lag.time.max.ms", "3000")
        .start()
        .await?;
    for topic in ["before", "after"] {
        placed(&cluster, topic, "1:2", &["min.insync.replicas=2"]).await?;
    }
    let client = client(&cluster).await?;
    // Longer than brokers need to notice, which share their processors with other tests.
    let lasting = client.producer().delivery_timeout(600 * SECOND).build()?;
    let hasty = hasty(&cluster, 5 * SECOND).await?;
    let hasty = hasty.producer().delivery_timeout(12 * SECOND);
    let hasty = hasty.build()?;
    for topic in ["before", "after"] {
        lasting.send(Record::to(topic).with_value("0")).await?;
        hasty.send(Record::to(topic).with_value("1")).await?;
    }
    // The leader appends, waits for the other replica, and then goes without it.
    cluster.broker(2).pause().await?;
    let unsure = hasty.enqueue(Record::to("after").with_value("2")).await?;
    let written = lasting.enqueue(Record::to("after").with_value("3")).await?;
    alone(&cluster, "after").await?;
    alone(&cluster, "before").await?;
    // From now on nothing is appended.
    let sure = hasty.enqueue(Record::to("before").with_value("2")).await?;
    let later = lasting
        .enqueue(Record::to("before").with_value("3"))
        .await?;
    let leader = client.producer().acks(Acks::Leader).build()?;
    timeout(LONG, leader.send(Record::to("before").with_value("4"))).await??;

    let error = timeout(LONG, unsure).await?.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(error.certainty(), Some(Certainty::MaybeWritten), "{error}");
    let error = timeout(LONG, sure).await?.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(error.certainty(), Some(Certainty::NotSent), "{error}");
    assert_eq!(code(&error), Some("NOT_ENOUGH_REPLICAS"), "{error}");
    assert!(error.to_string().contains("delivery.timeout.ms"), "{error}");
    assert!(hasty.metrics().refused_batches > 5);

    cluster.broker(2).unpause().await?;
    timeout(LONG, written).await??;
    timeout(LONG, later).await??;
    // And who failed goes on.
    hasty.send(Record::to("before").with_value("5")).await?;
    hasty.send(Record::to("after").with_value("5")).await?;
    // What may have been written was, and once; what certainly was not is not there.
    for (topic, expected) in [("after", [0, 1, 2, 3, 5]), ("before", [0, 1, 3, 4, 5])] {
        let mut log = numbers(&client, topic, 5, 1).await?.remove(&0).unwrap();
        log.sort_unstable();
        assert_eq!(log, expected, "{topic}");
    }
    Ok(())
}

/// A broker that has appended and then finds too few replicas says so, after the fact. From 3.7 on
/// none does any more (its high watermark waits for the replicas, KIP-966): so the answers of one
/// that has appended are made to say it.
#[tokio::test]
async fn a_shortage_found_after_the_append_is_tried_again_and_costs_no_copies() -> Result {
    const AFTER_APPEND: i16 = 20;
    let (cluster, topic) = (one().await?, unique("after-append"));
    let again = format!("{topic}-again");
    for topic in [&topic, &again] {
        cluster.create_topic(topic, 1, 1).await?;
    }
    let lies = Arc::new(AtomicUsize::new(0));
    let left = Arc::clone(&lies);
    let proxy = Proxy::start(cluster, move |asked, answer| {
        let less = |left: usize| left.checked_sub(1);
        if asked.api == PRODUCE && left.fetch_update(SeqCst, SeqCst, less).is_ok() {
            assert_eq!(asked.version, 13);
            // Behind header, topic and partition, of one each: the code and the offset.
            answer[27..29].copy_from_slice(&AFTER_APPEND.to_be_bytes());
            answer[29..37].copy_from_slice(&(-1_i64).to_be_bytes());
        }
        Duration::ZERO
    });
    let proxy = proxy.await?;
    let direct = client(cluster).await?;
    let client = Client::builder().bootstrap([proxy.bootstrap()]);
    let client = client.connect().await?;
    let producer = client.producer().linger(Duration::ZERO);
    let producer = producer.delivery_timeout(60 * SECOND).build()?;
    producer.send(Record::to(&topic).with_value("0")).await?;
    // Several in flight, of which the first ones are refused, again and again.
    lies.store(12, SeqCst);
    let mut deliveries = Vec::new();
    for number in 1..10 {
        let value = number.to_string();
        let delivery = producer
            .enqueue(Record::to(&topic).with_value(&value))
            .await?;
        deliveries.push(delivery);
        sleep(Duration::from_millis(5)).await;
    }
    for (delivery, offset) in deliveries.into_iter().zip(1..) {
        assert_eq!(timeout(LONG, delivery).await??.offset, Some(offset));
    }
    assert_eq!(lies.load(SeqCst), 0);
    assert!(producer.metrics().retries > 0);

    // Where it goes on until the deadline, the truth is that nobody knows.
    lies.store(usize::MAX, SeqCst);
    let hasty = Client::builder().bootstrap([proxy.bootstrap()]);
    let hasty = hasty.request_timeout(2 * SECOND).connect().await?;
    let hasty = hasty.producer().delivery_timeout(4 * SECOND);
    let hasty = hasty.linger(Duration::ZERO);
    let hasty = hasty.build()?;
    let error = hasty.send(Record::to(&topic).with_value("10")).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(error.certainty(), Some(Certainty::MaybeWritten), "{error}");
    let told = code(&error);
    assert_eq!(told, Some("NOT_ENOUGH_REPLICAS_AFTER_APPEND"), "{error}");
    let log = numbers(&direct, &topic, 11, 1).await?.remove(&0).unwrap();
    assert_eq!(log, (0..11).collect::<Vec<_>>());

    // Without sequences every attempt is another copy, as with Java's producer.
    lies.store(3, SeqCst);
    let plain = client.producer().idempotence(false).build()?;
    let told = plain.send(Record::to(&again).with_value("7")).await?;
    assert_eq!(told.offset, Some(3));
    let log = numbers(&direct, &again, 4, 1).await?.remove(&0).unwrap();
    assert_eq!(log, [7; 4]);
    Ok(())
}

/// Three partitions with one replica each, the second on a broker that freezes.
#[tokio::test]
async fn a_frozen_broker_costs_only_its_own_records_and_each_ends_in_time() -> Result {
    let cluster = Cluster::builder().brokers(3).start().await?;
    placed(&cluster, "frozen", "1,2,3", &[]).await?;
    let client = hasty(&cluster, 3 * SECOND).await?;
    let (limit, block) = (10 * SECOND, 2 * SECOND);
    let producer = client.producer();
    let producer = producer.delivery_timeout(limit).max_block(block);
    let producer = producer.buffer_memory(400_000).build()?;
    let to = |partition| Record::to("frozen").with_partition(partition);
    for partition in 0..3 {
        producer.send(to(partition).with_value("0")).await?;
    }
    cluster.broker(2).pause().await?;
    let lost: Vec<_> = producer
        .enqueue_all((0..20).map(|_| to(1).with_value("1")))
        .await
        .into_iter()
        .collect();
    // While these wait, the others go on.
    for number in 0..200 {
        let value = number.to_string();
        for partition in [0, 2] {
            let delivery = producer.send(to(partition).with_value(&value));
            timeout(LONG, delivery).await??;
        }
        sleep(Duration::from_millis(10)).await;
    }
    for deliveries in lost {
        let error = timeout(limit + LONG, deliveries).await?.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(error.certainty().is_some(), "{error}");
    }

    // Memory full of what cannot be sent: who does not wait is refused, and who waits gets an
    // answer by its deadline.
    let value = [b'1'; 10_000];
    let mut stuck = Vec::new();
    let full = loop {
        match producer.try_enqueue(to(1).with_value(&value)) {
            Ok(delivery) => stuck.push(delivery),
            Err(error) => break error,
        }
    };
    assert!(full.is_full(), "{full}");
    let start = Instant::now();
    let error = producer
        .enqueue(to(0).with_value(&value))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("max.block.ms"), "{error}");
    assert!(start.elapsed() < limit + 20 * SECOND);
    let dropped = producer.purge(Purge::All);
    assert_eq!(
        dropped.not_sent + dropped.maybe_written,
        stuck.len() as u64,
        "{dropped:?}"
    );
    for delivery in stuck {
        let error = delivery.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Purged, "{error}");
    }
    assert_eq!(producer.buffered_bytes(), 0);
    producer.send(to(0).with_value("9")).await?;

    cluster.broker(2).unpause().await?;
    let alive = eventually(async || Ok(producer.send(to(1).with_value("2")).await?));
    alive.await?;
    for value in ["3", "4"] {
        producer.send(to(1).with_value(value)).await?;
    }
    Ok(())
}
