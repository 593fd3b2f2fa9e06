//! Many producers, groups, readers and admin calls on one client: none stands behind another.
//! Against the mock cluster on a paused clock, so that only waiting takes time.
#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

use std::time::Duration;

use ottla::mock::{Api, MockCluster};
use ottla::{Client, Consumer, ErrorKind, OffsetReset, Record, TopicPartition};
use tokio::time::{Instant, sleep, timeout};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

async fn reader(client: &Client, topic: &str) -> Consumer {
    let partition = TopicPartition::new(topic, 0);
    let reader = client.reader().assign([partition]);
    reader.offset_reset(OffsetReset::Earliest).build().unwrap()
}

/// Keeps polling what has no records.
fn keep_polling(mut consumer: Consumer) {
    tokio::spawn(async move { while let Ok(Some(_)) = consumer.poll().await {} });
}

/// Connections lost or closed so far.
fn closed(client: &Client) -> u64 {
    client.metrics().connections_closed
}

/// Writes a record every 10 ms and says how long the slowest took to come.
async fn slowest(client: &Client, records: u32) -> Duration {
    let producer = client.producer().linger(Duration::ZERO).build();
    let producer = producer.unwrap();
    let mut busy = reader(client, "busy").await;
    let writer = producer.clone();
    let writing = tokio::spawn(async move {
        for _ in 0..records {
            drop(
                writer
                    .enqueue(Record::to("busy").with_value("x"))
                    .await
                    .unwrap(),
            );
            sleep(10 * MILLI).await;
        }
    });
    let mut slowest = Duration::ZERO;
    let mut left = records;
    while left > 0 {
        let batches = timeout(60 * SECOND, busy.poll()).await;
        let batches = batches.unwrap().unwrap().unwrap();
        let time = wall_millis();
        for record in batches.iter().flatten() {
            let sent = record.unwrap().timestamp().as_millis();
            let took = u64::try_from(time - sent).unwrap();
            slowest = slowest.max(Duration::from_millis(took));
            left -= 1;
        }
    }
    writing.await.unwrap();
    slowest
}

/// The time by the clock that gives records their timestamps: the mock's begins with the runtime's.
fn wall_millis() -> i64 {
    START.with(|start| {
        let (at, millis) = start.get().unwrap();
        millis + i64::try_from(at.elapsed().as_millis()).unwrap()
    })
}

thread_local! {
    static START: std::cell::Cell<Option<(Instant, i64)>> = const { std::cell::Cell::new(None) };
}

/// Learns what the mock's clock shows, by a record.
async fn set_clock(client: &Client) {
    let producer = client.producer().linger(Duration::ZERO).build();
    let record = Record::to("clock").with_value("x");
    let metadata = producer.unwrap().send(record).await.unwrap();
    let millis = metadata.timestamp.as_millis();
    START.with(|start| start.set(Some((Instant::now(), millis))));
}

async fn cluster(brokers: u8) -> MockCluster {
    let mut mock = MockCluster::builder()
        .brokers(brokers)
        .topic("busy", 1)
        .topic("clock", 1);
    for number in 0..200 {
        mock = mock.topic(format!("empty-{number}"), 1);
    }
    let mock = mock.in_memory().auto_create(false).seed(1);
    mock.start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn idle_readers_do_not_hold_back_a_busy_one() {
    for idle in [0, 1, 4, 70] {
        let mock = cluster(1).await;
        let client = mock.client();
        set_clock(&client).await;
        for number in 0..idle {
            keep_polling(reader(&client, &format!("empty-{number}")).await);
        }
        sleep(SECOND).await;
        let before = closed(&client);
        let slowest = slowest(&client, 200).await;
        assert!(
            slowest < 20 * MILLI,
            "{slowest:?} beside {idle} idle readers"
        );
        assert_eq!(
            closed(&client),
            before,
            "but for those of roles that have ended"
        );
        client.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_an_admin_call_costs_no_member_its_connection() {
    let mock = cluster(1).await;
    let client = mock.client();
    set_clock(&client).await;
    let member = client.consumer("members").subscribe(["empty-0"]);
    let mut member = member.build().unwrap();
    timeout(20 * SECOND, async {
        while member.assignment().is_empty() {
            member.poll_timeout(SECOND).await.unwrap();
        }
    })
    .await
    .unwrap();
    let before = closed(&client);
    let slow = mock.on(Api::OffsetFetch).delay(300 * MILLI);
    let also = mock.on(Api::ListGroups).delay(300 * MILLI);
    let impatient = client.admin().with_timeout(100 * MILLI);
    for _ in 0..5 {
        let error = impatient.group_offsets("others").await.unwrap_err();
        assert_eq!(
            (error.kind(), error.certainty()),
            (ErrorKind::Timeout, None)
        );
        let told = error.to_string();
        assert!(
            !told.contains("request.timeout.ms") && !told.contains("written"),
            "{told}"
        );
        assert!(told.contains("deadline of the call"), "{told}");
        let error = impatient.list_groups().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
    member.poll_timeout(30 * SECOND).await.unwrap();
    assert_eq!(closed(&client), before);
    let heartbeats = client.metrics();
    assert_eq!(heartbeats.api("ConsumerGroupHeartbeat").unwrap().failed, 0);
    slow.remove();
    also.remove();
    client.admin().group_offsets("others").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_creation_of_topics_holds_back_no_questions() {
    let mock = cluster(1).await;
    let client = mock.client();
    set_clock(&client).await;
    let _slow = mock.on(Api::CreateTopics).delay(20 * SECOND);
    let admin = client.admin();
    let creating = tokio::spawn(async move {
        let new = ottla::admin::NewTopic::new("new").partitions(1);
        admin.create_topics([new]).await.unwrap().all().unwrap();
    });
    sleep(SECOND).await;
    let start = Instant::now();
    let described = client.admin().describe_topics(["busy"]).await;
    described.unwrap().all().unwrap();
    client.admin().list_groups().await.unwrap();
    assert!(start.elapsed() < SECOND);
    creating.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn connections_grow_with_roles_and_go_with_them() {
    let mut table = String::new();
    for roles in [1_usize, 20, 200] {
        let mock = cluster(3).await;
        let client = mock.client();
        set_clock(&client).await;
        sleep(SECOND).await;
        let shared = client.metrics().connections;
        let mut consumers = Vec::new();
        let mut producers = Vec::new();
        for number in 0..roles {
            if number % 4 == 3 {
                let producer = client.producer().build().unwrap();
                producer
                    .send(Record::to("busy").with_value("x"))
                    .await
                    .unwrap();
                producers.push(producer);
            } else {
                let group = client.consumer(format!("group-{number}"));
                let topic = format!("empty-{number}");
                let consumer = group.subscribe([topic]).build().unwrap();
                consumers.push(consumer);
            }
        }
        for consumer in &mut consumers {
            while consumer.assignment().is_empty() {
                consumer.poll_timeout(SECOND).await.unwrap();
            }
        }
        sleep(5 * SECOND).await;
        let all = client.metrics().connections;
        // A member has one for its group and one to fetch by, a producer of one partition one.
        let own = u64::try_from(2 * consumers.len() + producers.len()).unwrap();
        assert!(
            all <= own + 3 + shared,
            "{all} connections for {roles} roles"
        );
        table += &format!("{roles} roles: {all} connections to 3 brokers\n");
        for consumer in consumers {
            consumer.close_timeout(10 * SECOND).await.unwrap();
        }
        for producer in producers {
            producer.close_timeout(10 * SECOND).await.unwrap();
        }
        sleep(SECOND).await;
        let left = client.metrics().connections;
        assert!(
            left <= shared + 3 + 3,
            "{left} connections are left of {roles} roles"
        );
        client.close().await.unwrap();
    }
    println!("{table}");
}
