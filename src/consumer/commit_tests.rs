//! Many commits at a time, on the mock cluster and a paused clock.

use std::time::Duration;

use tokio::task::JoinSet;

use super::*;
use crate::clock::now;
use crate::mock::{Api, MockCluster};
use crate::types::{OffsetAndMetadata, TopicPartition};
use crate::{Client, ErrorKind, Record};

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(10);
/// A commit takes so long.
const ROUND_TRIP: Duration = Duration::from_millis(100);
const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
const GROUP_AUTHORIZATION_FAILED: i16 = 30;
const FENCED_MEMBER_EPOCH: i16 = 110;

async fn mock() -> MockCluster {
    let builder = MockCluster::builder().brokers(1).topic("t", 2);
    builder.in_memory().seed(3).start().await.unwrap()
}

async fn member(client: &Client) -> Consumer {
    let builder = client.consumer("g").subscribe(["t"]).auto_commit(false);
    let builder = builder.offset_reset(OffsetReset::Earliest);
    builder.build().unwrap()
}

fn committed(mock: &MockCluster, partition: i32) -> Option<i64> {
    let tp = TopicPartition::new("t", partition);
    let offsets = mock.group("g")?.offsets;
    let found = offsets.into_iter().find(|(of, _)| *of == tp);
    found.map(|(_, offset)| offset)
}

/// Writes a record, has it read and a commit of it asked for, every 10 ms for a time.
async fn load(
    client: &Client,
    consumer: &mut Consumer,
    commits: &mut JoinSet<Result<()>>,
    time: Duration,
) {
    let producer = client.producer().build().unwrap();
    let until = now() + time;
    while now() < until {
        let record = Record::to("t").with_partition(0).with_value("v");
        producer.send(record).await.unwrap();
        while let Some(Event::Records(batches)) = consumer.next_event().await.unwrap()
            && batches.is_empty()
        {}
        commits.spawn(consumer.commit_async());
        let waiting = consumer.shared.lock().unsent.len();
        assert!(waiting <= 1, "{waiting}");
        tokio::time::sleep(TICK).await;
    }
}

async fn joined(consumer: &mut Consumer) {
    loop {
        if let Some(Event::Assigned(partitions)) = consumer.next_event().await.unwrap()
            && !partitions.is_empty()
        {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn commits_asked_for_faster_than_they_are_made_are_merged() {
    let mock = mock().await;
    let client = mock.client();
    let mut consumer = member(&client).await;
    joined(&mut consumer).await;
    let slow = mock.on(Api::OffsetCommit).delay(ROUND_TRIP);
    let membership = |mock: &MockCluster| mock.group("g").unwrap().members[0].membership;
    let before = (client.metrics().connections_closed, membership(&mock));
    let began = now();
    let mut commits = JoinSet::new();
    load(&client, &mut consumer, &mut commits, 70 * SECOND).await;
    let asked = commits.len();
    for outcome in commits.join_all().await {
        outcome.unwrap();
    }
    let trips = (now() - began).as_millis() / ROUND_TRIP.as_millis();
    let made = u128::from(slow.hits());
    assert!(
        asked > 4_000 && (600..=trips + 1).contains(&made),
        "{made} for {asked}"
    );
    let (_, end) = mock.offsets("t", 0).unwrap();
    assert_eq!(committed(&mock, 0), Some(end));
    assert_eq!(consumer.metrics().commits, slow.hits());
    let metrics = client.metrics();
    // But for the connection of the producer that has ended.
    let (closed, membership) = (metrics.connections_closed - 1, membership(&mock));
    assert_eq!((closed, membership), before);
    let heartbeats = metrics.api("ConsumerGroupHeartbeat").unwrap();
    assert!(heartbeats.requests > 5 && heartbeats.failed == 0);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_waits_for_the_commit_under_way_and_one_more() {
    let mock = mock().await;
    let client = mock.client();
    let mut consumer = member(&client).await;
    joined(&mut consumer).await;
    mock.on(Api::OffsetCommit).delay(ROUND_TRIP);
    let mut commits = JoinSet::new();
    load(&client, &mut consumer, &mut commits, 10 * SECOND).await;
    let _other = member(&mock.client()).await;
    let revoking = loop {
        match consumer.next_event().await.unwrap() {
            Some(Event::Revoking(revoking)) => break revoking,
            _ => commits.spawn(consumer.commit_async()),
        };
    };
    load_without_reading(&mut consumer, &mut commits).await;
    let let_go = now();
    revoking.done();
    while consumer.assignment().len() == 2 {
        commits.spawn(consumer.commit_async());
        tokio::time::sleep(TICK).await;
    }
    let took = now() - let_go;
    assert!(took <= 2 * ROUND_TRIP + 2 * TICK, "{took:?}");
    for outcome in commits.join_all().await {
        outcome.unwrap();
    }
}

/// Commits of what was read, over and over.
async fn load_without_reading(consumer: &mut Consumer, commits: &mut JoinSet<Result<()>>) {
    for back in 0..50 {
        let tp = TopicPartition::new("t", 0);
        let offsets = [(tp, OffsetAndMetadata::new(back))];
        commits.spawn(consumer.shared.commit_offsets(offsets));
        tokio::time::sleep(TICK).await;
    }
}

/// Offsets that the application names may go back.
#[tokio::test(start_paused = true)]
async fn what_was_asked_for_last_is_committed_even_if_it_is_less() {
    let mock = mock().await;
    let client = mock.client();
    let mut consumer = member(&client).await;
    joined(&mut consumer).await;
    let slow = mock.on(Api::OffsetCommit).delay(ROUND_TRIP);
    let tp = |partition| TopicPartition::new("t", partition);
    let ask = |partition, offset| {
        let offsets = [(tp(partition), OffsetAndMetadata::new(offset))];
        consumer.shared.commit_offsets(offsets)
    };
    let first = ask(0, 1);
    tokio::time::sleep(TICK).await;
    let rest = [ask(0, 90), ask(1, 5), ask(0, 80), ask(0, 7)];
    first.await.unwrap();
    assert_eq!(committed(&mock, 0), Some(1));
    for one in rest {
        one.await.unwrap();
    }
    assert_eq!(
        (committed(&mock, 0), committed(&mock, 1)),
        (Some(7), Some(5))
    );
    assert_eq!(slow.hits(), 2);
}

#[tokio::test(start_paused = true)]
async fn futures_that_are_dropped_leave_nothing_behind_and_their_commit_is_made() {
    let mock = mock().await;
    let client = mock.client();
    let mut consumer = member(&client).await;
    joined(&mut consumer).await;
    let slow = mock.on(Api::OffsetCommit).delay(10 * SECOND);
    let tp = TopicPartition::new("t", 0);
    for offset in 0..10_000 {
        let offsets = [(tp.clone(), OffsetAndMetadata::new(offset))];
        drop(consumer.shared.commit_offsets(offsets));
        if offset == 0 {
            tokio::time::sleep(TICK).await;
        }
        assert!(consumer.shared.lock().unsent.waiters() < 50);
    }
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!((committed(&mock, 0), slow.hits()), (Some(9_999), 2));
}

/// Each in its own time, and not that of those with which it is merged; what is late is not sent.
#[tokio::test(start_paused = true)]
async fn who_waits_too_long_for_a_commit_is_told_in_time() {
    let mock = mock().await;
    let client = mock
        .client_builder()
        .api_timeout(10 * SECOND)
        .request_timeout(10 * SECOND)
        .build()
        .unwrap();
    let mut consumer = member(&client).await;
    joined(&mut consumer).await;
    let loading = mock
        .on(Api::OffsetCommit)
        .fail(COORDINATOR_LOAD_IN_PROGRESS);
    let began = now();
    let ask = |partition, offset| {
        let tp = TopicPartition::new("t", partition);
        let offsets = [(tp, OffsetAndMetadata::new(offset))];
        consumer.shared.commit_offsets(offsets)
    };
    let under_way = tokio::spawn(ask(0, 1));
    tokio::time::sleep(SECOND).await;
    // They wait for it, and then go as one.
    let early = tokio::spawn(ask(0, 2));
    tokio::time::sleep(8 * SECOND).await;
    let late = tokio::spawn(ask(1, 3));
    let error = under_way.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Coordinator, "{error}");
    assert!(now() <= began + 10 * SECOND);
    let error = early.await.unwrap().unwrap_err();
    let kinds = [ErrorKind::Timeout, ErrorKind::Coordinator];
    assert!(kinds.contains(&error.kind()), "{error}");
    assert!(now() <= began + 11 * SECOND, "{:?}", now() - began);
    // From now on it could be done.
    loading.remove();
    late.await.unwrap().unwrap();
    assert_eq!((committed(&mock, 0), committed(&mock, 1)), (None, Some(3)));
}

/// Here the end of a subscription: it waits for the commits before it, but its own is then too
/// late.
#[tokio::test(start_paused = true)]
async fn a_commit_that_could_not_be_sent_in_time_is_not_sent_afterwards() {
    let mock = mock().await;
    let client = mock.client_builder().request_timeout(5 * SECOND);
    let client = client.api_timeout(20 * SECOND).build().unwrap();
    let builder = client.consumer("g").assign([TopicPartition::new("t", 0)]);
    let builder = builder.offset_reset(OffsetReset::Earliest);
    let builder = builder.auto_commit_interval(3_600 * SECOND);
    let mut consumer = builder.build().unwrap();
    let producer = client.producer().build().unwrap();
    let record = Record::to("t").with_partition(0).with_value("v");
    producer.send(record).await.unwrap();
    while consumer.poll().await.unwrap().unwrap().is_empty() {}
    let loading = mock
        .on(Api::OffsetCommit)
        .fail(COORDINATOR_LOAD_IN_PROGRESS);
    let offsets = [(TopicPartition::new("t", 1), OffsetAndMetadata::new(0))];
    let first = tokio::spawn(consumer.shared.commit_offsets(offsets));
    tokio::time::sleep(TICK).await;
    consumer.unsubscribe();
    assert!(first.await.unwrap().is_err());
    loading.remove();
    let sent = mock.on(Api::OffsetCommit).delay(Duration::ZERO);
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!((sent.hits(), committed(&mock, 0)), (0, None));
    let group = mock.group("g");
    assert!(
        group.is_none_or(|group| group.members.is_empty()),
        "it left"
    );
}

#[tokio::test(start_paused = true)]
async fn commits_end_with_the_membership_in_which_they_were_asked_for() {
    let mock = mock().await;
    let client = mock.client();
    let mut consumer = member(&client).await;
    joined(&mut consumer).await;
    let tp = TopicPartition::new("t", 0);
    let ask = |offset| {
        let offsets = [(tp.clone(), OffsetAndMetadata::new(offset))];
        consumer.shared.commit_offsets(offsets)
    };
    let loading = mock
        .on(Api::OffsetCommit)
        .fail(COORDINATOR_LOAD_IN_PROGRESS);
    let under_way = tokio::spawn(ask(1));
    tokio::time::sleep(TICK).await;
    let waits = tokio::spawn(ask(2));
    let fence = mock.on(Api::ConsumerGroupHeartbeat).times(1);
    let fence = fence.fail(FENCED_MEMBER_EPOCH);
    while fence.hits() == 0 {
        tokio::time::sleep(TICK).await;
    }
    for commit in [waits, under_way] {
        let error = commit.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Group, "{error}");
    }
    loading.remove();
    joined(&mut consumer).await;
    let offsets = [(tp.clone(), OffsetAndMetadata::new(3))];
    consumer.commit_offsets(offsets).await.unwrap();
    assert_eq!(committed(&mock, 0), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_refused_is_not_made_twice() {
    let mock = mock().await;
    let client = mock.client();
    let mut consumer = member(&client).await;
    joined(&mut consumer).await;
    let refused = mock.on(Api::OffsetCommit).fail(GROUP_AUTHORIZATION_FAILED);
    let offsets = [(TopicPartition::new("t", 0), OffsetAndMetadata::new(1))];
    let error = consumer.commit_offsets(offsets).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
    assert_eq!(refused.hits(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_automatic_commit_does_not_go_behind_what_the_application_committed() {
    let mock = mock().await;
    let client = mock.client();
    let builder = client.consumer("g").subscribe(["t"]);
    let builder = builder.offset_reset(OffsetReset::Earliest);
    let mut consumer = builder.auto_commit_interval(SECOND).build().unwrap();
    let producer = client.producer().build().unwrap();
    for _ in 0..2 {
        let record = Record::to("t").with_partition(0).with_value("v");
        producer.send(record).await.unwrap();
        while consumer.poll().await.unwrap().unwrap().is_empty() {}
    }
    // The second is not finished with.
    consumer.commit().await.unwrap();
    for _ in 0..5 {
        assert_eq!(committed(&mock, 0), Some(2));
        tokio::time::sleep(SECOND).await;
    }
    let slow = mock.on(Api::OffsetCommit).delay(3 * SECOND);
    let record = Record::to("t").with_partition(0).with_value("v");
    producer.send(record).await.unwrap();
    while consumer.poll().await.unwrap().unwrap().is_empty() {}
    consumer.commit().await.unwrap();
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(committed(&mock, 0), Some(3));
    drop(slow);
    drop(consumer);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(committed(&mock, 0), Some(3), "the last commit, too");
}

#[tokio::test(start_paused = true)]
async fn an_automatic_commit_follows_a_seek_back() {
    let mock = mock().await;
    let client = mock.client();
    let builder = client.consumer("g").subscribe(["t"]);
    let builder = builder.offset_reset(OffsetReset::Earliest);
    let mut consumer = builder.auto_commit_interval(SECOND).build().unwrap();
    let producer = client.producer().build().unwrap();
    for _ in 0..5 {
        let record = Record::to("t").with_partition(0).with_value("v");
        producer.send(record).await.unwrap();
        while consumer.poll().await.unwrap().unwrap().is_empty() {}
    }
    consumer.commit().await.unwrap();
    assert_eq!(committed(&mock, 0), Some(5));
    consumer.seek(&TopicPartition::new("t", 0), 1).unwrap();
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(committed(&mock, 0), Some(1));
}
