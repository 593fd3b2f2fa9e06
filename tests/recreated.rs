//! Topics that are deleted and made anew under a consumer: what was committed or read of the old
//! one is no place in the new one. Against the mock cluster on a paused clock.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use ottla::admin::{Admin, NewTopic};
use ottla::mock::{Api, MockCluster, RequestInfo};
use ottla::{Client, Consumer, ErrorKind, OffsetReset, Record, TopicPartition};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep, timeout};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

async fn delete(admin: &Admin) {
    admin.delete_topics(["t"]).await.unwrap().all().unwrap();
}

async fn create(admin: &Admin) {
    let again = admin.create_topics([NewTopic::new("t").partitions(1)]);
    again.await.unwrap().all().unwrap();
}

async fn recreate(admin: &Admin) {
    delete(admin).await;
    create(admin).await;
}

/// Appends records that say of which topic they are.
async fn produce(client: &Client, generation: u32, count: u32) {
    let producer = client.producer().build().unwrap();
    for number in 0..count {
        let value = format!("{generation} {number}");
        let record = Record::to("t").with_value(&value);
        producer.send(record).await.unwrap();
    }
}

/// What the group has committed of the topic that there is.
fn committed(mock: &MockCluster) -> i64 {
    let group = mock.group("g");
    let offset = group.and_then(|group| Some(group.offsets.first()?.1));
    offset.unwrap_or(0)
}

/// Polls once; the highest offset after the records of this generation.
async fn poll(consumer: &mut Consumer, generation: u32, wait: Duration) -> i64 {
    let mut seen = 0;
    // An error of the old topic does no harm.
    if let Ok(Ok(batches)) = timeout(wait, consumer.poll()).await {
        for batch in &batches.unwrap() {
            for record in batch.records() {
                let record = record.unwrap();
                let value = std::str::from_utf8(record.value().unwrap()).unwrap();
                let (of, number) = value.split_once(' ').unwrap();
                if of.parse::<u32>().unwrap() == generation {
                    assert_eq!(number.parse::<i64>().unwrap(), record.offset());
                    seen = record.offset() + 1;
                }
            }
        }
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn a_late_commit_goes_to_the_topic_it_was_read_from() {
    for by_id in [true, false] {
        let version = if by_id { 10 } else { 9 };
        let builder = MockCluster::builder().topic("t", 1).seed(5);
        let builder = builder.max_version(Api::OffsetCommit, version);
        let mock = builder.start().await.unwrap();
        let client = mock.named_client_builder("late").build().unwrap();
        let other = mock.client();
        produce(&other, 0, 20).await;
        let tp = TopicPartition::new("t", 0);
        let builder = client.consumer("g").assign([tp.clone()]);
        let builder = builder.offset_reset(OffsetReset::Earliest);
        let mut consumer = builder.auto_commit(false).build().unwrap();
        while poll(&mut consumer, 0, SECOND).await < 20 {}
        // Nobody tells it: no fetch is under way, and no metadata come.
        consumer.pause(std::slice::from_ref(&tp)).unwrap();
        sleep(SECOND).await;
        let late = |request: &RequestInfo<'_>| request.client_id == "late";
        mock.on(Api::Metadata).when(late).delay(60 * SECOND);
        recreate(&other.admin()).await;
        produce(&other, 1, 30).await;
        let late = consumer.commit().await;
        match by_id {
            true => {
                assert_eq!(late.unwrap_err().kind(), ErrorKind::UnknownTopic);
                assert_eq!(committed(&mock), 0);
            }
            // By name brokers cannot tell them apart.
            false => assert_eq!(committed(&mock), 20),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_says_that_what_was_read_of_a_deleted_topic_is_not_in_it() {
    let mock = MockCluster::builder().topic("t", 1).topic("u", 1).seed(6);
    let mock = mock.auto_create(false).start().await.unwrap();
    let (client, other) = (mock.client(), mock.client());
    let at = |topic: &str| {
        let offsets = mock.group("g").unwrap().offsets.into_iter();
        let mut of = offsets.filter(|(tp, _)| tp.topic() == topic);
        of.next().map(|(_, offset)| offset)
    };
    let (t, u) = (TopicPartition::new("t", 0), TopicPartition::new("u", 0));
    let builder = client.consumer("g").assign([t.clone(), u.clone()]);
    let builder = builder.offset_reset(OffsetReset::Earliest);
    let mut consumer = builder.auto_commit(false).build().unwrap();
    consumer.poll_timeout(SECOND).await.unwrap();
    // Nothing was read of it, so nothing is missing.
    delete(&other.admin()).await;
    consumer.poll_timeout(10 * SECOND).await.unwrap();
    consumer.commit().await.unwrap();
    create(&other.admin()).await;
    produce(&other, 1, 20).await;
    while poll(&mut consumer, 1, SECOND).await < 20 {}
    let producer = other.producer().build().unwrap();
    for to in 1..3 {
        producer
            .send(Record::to("u").with_value("1 0"))
            .await
            .unwrap();
        while consumer.position(&u) != Some(to) {
            consumer.poll_timeout(SECOND).await.unwrap();
        }
        if to == 1 {
            delete(&other.admin()).await;
            consumer.poll_timeout(10 * SECOND).await.unwrap();
        }
        // Said as long as it is so; the other is committed.
        let error = match to {
            1 => consumer.commit().await.unwrap_err(),
            _ => consumer.commit_async().await.unwrap_err(),
        };
        assert_eq!(error.kind(), ErrorKind::UnknownTopic, "{error}");
        assert_eq!(error.topic_partition(), Some(&t));
        assert!(!error.is_fatal());
        assert_eq!(at("u"), Some(to));
    }
    create(&other.admin()).await;
    while consumer.position(&t) != Some(0) {
        consumer.poll_timeout(SECOND).await.unwrap();
    }
    consumer.commit().await.unwrap();
    assert_eq!(at("t"), Some(0), "where the new one begins");
}

/// One run: a member polls and commits as it comes, while its topic is made anew again and again.
async fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let builder = MockCluster::builder().brokers(2).topic("t", 1).seed(seed);
    let mock = builder.auto_create(false).start().await.unwrap();
    let (client, other) = (mock.client(), mock.client());
    let builder = client.consumer("g").subscribe(["t"]);
    let builder = builder.offset_reset(OffsetReset::Earliest);
    let builder = match rng.random_bool(0.5) {
        true => builder.auto_commit_interval(100 * MILLI),
        false => builder.auto_commit(false),
    };
    let mut consumer = builder.build().unwrap();
    for generation in 0..6 {
        let count = rng.random_range(1..40);
        produce(&other, generation, count).await;
        let mut seen = 0;
        for _ in 0..rng.random_range(0..12) {
            let wait = rng.random_range(1..400) * MILLI;
            seen = seen.max(poll(&mut consumer, generation, wait).await);
            match rng.random_range(0..6) {
                0 => drop(consumer.commit().await),
                1 => drop(consumer.commit_async()),
                2 => sleep(wait).await,
                _ => {}
            }
            let committed = committed(&mock);
            assert!(committed <= seen, "seed {seed}: {committed}, {seen} read");
        }
        if generation < 5 {
            recreate(&other.admin()).await;
            continue;
        }
        let until = Instant::now() + 120 * SECOND;
        while seen < i64::from(count) {
            assert!(Instant::now() < until, "seed {seed}: {seen} of {count}");
            seen = seen.max(poll(&mut consumer, generation, SECOND).await);
            assert!(committed(&mock) <= seen, "seed {seed}: {seen} read");
        }
        consumer.commit().await.unwrap();
        assert_eq!(committed(&mock), seen, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_a_new_topic_is_read_from_its_beginning() {
    for seed in 0..40 {
        run(seed).await;
    }
}
