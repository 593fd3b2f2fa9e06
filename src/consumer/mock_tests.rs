//! The consumer on the mock cluster: memberships that end at bad moments, patterns, and commits
//! that come late. On a paused clock.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::admin::NewTopic;
use crate::clock::now;
use crate::mock::{Api, MockCluster};
use crate::types::{OffsetAndMetadata, Timestamp, TopicPartition};
use crate::{Client, ErrorKind, Record};

const SECOND: Duration = Duration::from_secs(1);
const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
const NOT_COORDINATOR: i16 = 16;
const FENCED_MEMBER_EPOCH: i16 = 110;

async fn mock(brokers: u8) -> MockCluster {
    let builder = MockCluster::builder()
        .brokers(brokers)
        .topic("t", 2)
        .in_memory()
        .seed(3);
    builder.start().await.unwrap()
}

fn subscriber(client: &Client) -> ConsumerBuilder {
    client
        .consumer("g")
        .subscribe(["t"])
        .offset_reset(OffsetReset::Earliest)
        .auto_commit(false)
}

fn members(mock: &MockCluster) -> usize {
    mock.group("g").map_or(0, |group| group.members.len())
}

async fn produce(client: &Client, topic: &str, value: &str) {
    let producer = client.producer().build().unwrap();
    let record = Record::to(topic).with_partition(0).with_value(value);
    producer.send(record).await.unwrap();
}

/// Polls until the assignment is of these topics.
async fn settle(consumer: &mut Consumer, topics: &[&str]) {
    let until = now() + 60 * SECOND;
    loop {
        let mut assigned: Vec<_> = consumer.assignment();
        assigned.sort_unstable();
        assigned.dedup_by(|a, b| a.topic == b.topic);
        let assigned: Vec<_> = assigned.iter().map(TopicPartition::topic).collect();
        if assigned == topics {
            return;
        }
        assert!(now() < until, "{assigned:?}, not {topics:?}");
        consumer.poll_timeout(SECOND / 10).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_never_reached_a_broker_is_closed_at_once() {
    let mock = mock(1).await;
    mock.kill(1);
    let consumer = subscriber(&mock.client()).build().unwrap();
    tokio::time::sleep(SECOND).await;
    let before = now();
    consumer.close_timeout(60 * SECOND).await.unwrap();
    assert!(now() - before < SECOND, "{:?}", now() - before);
}

/// Work per request and poll is for what changed, not for what is assigned.
#[tokio::test(start_paused = true)]
async fn idle_partitions_cost_nothing_beside_busy_ones() {
    const ALL: u16 = 2_000;
    let builder = MockCluster::builder().brokers(1).topic("t", ALL.into());
    let mock = builder.in_memory().start().await.unwrap();
    let client = mock.client();
    let assigned = (0..ALL).map(|partition| TopicPartition::new("t", partition.into()));
    let reader = client.reader().assign(assigned);
    let reader = reader.offset_reset(OffsetReset::Earliest);
    let mut consumer = reader.build().unwrap();
    assert!(
        consumer
            .poll_timeout(2 * SECOND)
            .await
            .unwrap()
            .unwrap()
            .is_empty()
    );
    let shared = Arc::clone(&consumer.shared);
    let before = shared.lock().positions.looks;
    assert!(before >= ALL.into(), "{before}");
    let producer = client.producer().build().unwrap();
    for round in 0..50 {
        let record = Record::to("t").with_partition(round % 3).with_value("v");
        producer.send(record).await.unwrap();
        while consumer.poll().await.unwrap().unwrap().is_empty() {}
    }
    let looks = shared.lock().positions.looks - before;
    // Some for each answer, and some for each poll.
    assert!((50..500).contains(&looks), "{looks}");
}

/// Whichever bit of the answer is damaged that names the committed offset: no records are passed
/// over because of an offset that the log does not have.
#[tokio::test(start_paused = true)]
async fn a_committed_offset_that_was_damaged_on_its_way_skips_nothing() {
    let mock = mock(1).await;
    let client = mock.client();
    let producer = client.producer().build().unwrap();
    let record = || Record::to("t").with_partition(0).with_value("v");
    for _ in 0..10 {
        producer.send(record()).await.unwrap();
    }
    let tp = TopicPartition::new("t", 0);
    let reader = || {
        let reader = client.reader().group_id("g").assign([tp.clone()]);
        let reader = reader.offset_reset(OffsetReset::Latest).auto_commit(false);
        reader.build().unwrap()
    };
    let committed = OffsetAndMetadata::new(5).with_leader_epoch(Some(0));
    let commits = reader();
    let offsets = [(tp.clone(), committed)];
    commits.commit_offsets(offsets).await.unwrap();
    let mut elsewhere = BTreeSet::new();
    for bit in 0..8 * 80 {
        let rule = mock.on(Api::OffsetFetch).times(1).flip_bit(bit);
        let mut consumer = reader();
        let mut first = None;
        while first.is_none() {
            let polled = consumer.poll_timeout(120 * SECOND).await;
            let batches = polled.unwrap().unwrap();
            assert!(
                !batches.is_empty() || !batches.errors().is_empty(),
                "bit {bit}"
            );
            let mut records = batches.iter().flatten();
            first = records.next().map(|record| record.unwrap().offset());
        }
        assert_eq!(rule.hits(), 1);
        elsewhere.extend(first.filter(|offset| *offset != 5));
    }
    // An offset that the log has cannot be told from what was committed.
    assert_eq!(elsewhere, BTreeSet::from([4, 7, 1]));
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_has_moved_is_looked_for() {
    let mock = mock(1).await;
    let consumer = subscriber(&mock.client()).build().unwrap();
    tokio::time::sleep(SECOND).await;
    let looked_for = mock.on(Api::FindCoordinator).delay(Duration::ZERO);
    let moved = mock
        .on(Api::ConsumerGroupHeartbeat)
        .times(1)
        .fail(NOT_COORDINATOR);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!((moved.hits(), looked_for.hits()), (1, 1));
    assert_eq!(members(&mock), 1);
    drop(consumer);
}

#[tokio::test(start_paused = true)]
async fn a_farewell_does_not_overtake_the_greeting() {
    // The consumer is closed after every so many milliseconds of its first three seconds.
    for after in (0..3000).step_by(50) {
        let mock = mock(2).await;
        mock.on(Api::FindCoordinator).delay(SECOND);
        mock.on(Api::ConsumerGroupHeartbeat).times(1).delay(SECOND);
        let consumer = subscriber(&mock.client()).build().unwrap();
        tokio::time::sleep(Duration::from_millis(after)).await;
        consumer.close_timeout(20 * SECOND).await.unwrap();
        tokio::time::sleep(5 * SECOND).await;
        assert_eq!(members(&mock), 0, "closed after {after} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_a_lost_membership_is_not_made_by_the_next() {
    let mock = mock(1).await;
    let client = mock.client();
    produce(&client, "t", "one").await;
    let mut consumer = subscriber(&client).build().unwrap();
    while consumer.poll().await.unwrap().unwrap().is_empty() {}
    let handle = consumer.handle();
    // The commit is tried again and again; meanwhile the member is thrown out and comes back.
    let rule = mock
        .on(Api::OffsetCommit)
        .fail(COORDINATOR_LOAD_IN_PROGRESS);
    let committing = tokio::spawn(async move { (consumer.commit().await, consumer) });
    while rule.hits() < 2 {
        tokio::time::sleep(SECOND / 10).await;
    }
    let fence = mock
        .on(Api::ConsumerGroupHeartbeat)
        .times(1)
        .fail(FENCED_MEMBER_EPOCH);
    while fence.hits() == 0 || handle.assignment().is_empty() {
        tokio::time::sleep(SECOND / 10).await;
    }
    rule.remove();
    let (outcome, _consumer) = committing.await.unwrap();
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Group, "{error}");
    assert!(mock.group("g").unwrap().offsets.is_empty());
}

#[tokio::test(start_paused = true)]
async fn partitions_do_not_go_to_others_before_commits_that_were_asked_for() {
    let mock = mock(1).await;
    let client = mock.client();
    produce(&client, "t", "one").await;
    let mut consumer = subscriber(&client).build().unwrap();
    while consumer.poll().await.unwrap().unwrap().is_empty() {}
    let rule = mock
        .on(Api::OffsetCommit)
        .fail(COORDINATOR_LOAD_IN_PROGRESS);
    // Given up by the application, and still under way.
    let given_up = tokio::time::timeout(SECOND, consumer.commit()).await;
    assert!(given_up.is_err() && rule.hits() > 0);
    let mut other = subscriber(&mock.client()).build().unwrap();
    for _ in 0..100 {
        consumer.poll_timeout(SECOND / 10).await.unwrap();
        other.poll_timeout(SECOND / 10).await.unwrap();
    }
    assert_eq!(other.assignment(), [], "the commit is not over");
    rule.remove();
    while other.assignment().len() != 1 {
        consumer.poll_timeout(SECOND / 10).await.unwrap();
        other.poll_timeout(SECOND / 10).await.unwrap();
    }
    let committed = mock.group("g").unwrap().offsets;
    assert!(committed.contains(&(TopicPartition::new("t", 0), 1)));
}

#[tokio::test(start_paused = true)]
async fn commits_that_nobody_waits_for_do_not_pile_up() {
    let mock = mock(1).await;
    let client = mock.client();
    produce(&client, "t", "one").await;
    let mut consumer = subscriber(&client).build().unwrap();
    while consumer.poll().await.unwrap().unwrap().is_empty() {}
    let rule = mock
        .on(Api::OffsetCommit)
        .fail(COORDINATOR_LOAD_IN_PROGRESS);
    for _ in 0..500 {
        let given_up = tokio::time::timeout(SECOND / 100, consumer.commit()).await;
        assert!(given_up.is_err());
    }
    rule.remove();
    let counted = mock.on(Api::OffsetCommit).delay(Duration::ZERO);
    consumer.commit().await.unwrap();
    assert!(counted.hits() <= 4, "{} commits", counted.hits());
}

#[tokio::test(start_paused = true)]
async fn a_pattern_follows_topics_that_come_and_go() {
    let mock = mock(1).await;
    let client = mock
        .client_builder()
        .metadata_max_age(5 * SECOND)
        .build()
        .unwrap();
    let admin = client.admin();
    let pattern = TopicPattern::client_side("eu-.*").unwrap();
    let builder = client.consumer("g").subscribe_pattern(pattern);
    let builder = builder.offset_reset(OffsetReset::Earliest);
    let mut consumer = builder.build().unwrap();
    consumer.poll_timeout(10 * SECOND).await.unwrap();
    assert_eq!(consumer.assignment(), []);
    assert_eq!(members(&mock), 1, "it is a member all the same");
    let names = ["eu-a", "us-a", "eu-b"];
    let created = admin.create_topics(names.map(NewTopic::new)).await.unwrap();
    created.all().unwrap();
    settle(&mut consumer, &["eu-a", "eu-b"]).await;
    produce(&client, "eu-b", "salut").await;
    while consumer.poll().await.unwrap().unwrap().is_empty() {}
    admin.delete_topics(["eu-a"]).await.unwrap().all().unwrap();
    settle(&mut consumer, &["eu-b"]).await;
    // Nobody asked for it so that it is there again.
    tokio::time::sleep(20 * SECOND).await;
    assert!(mock.topics().iter().all(|(name, _)| name != "eu-a"));

    let pattern = TopicPattern::client_side("us-.*|t").unwrap();
    consumer.subscribe_pattern(pattern).unwrap();
    settle(&mut consumer, &["t", "us-a"]).await;
    consumer.subscribe(["eu-b"]).unwrap();
    settle(&mut consumer, &["eu-b"]).await;
    consumer.close_timeout(20 * SECOND).await.unwrap();
}

/// Its coordinator knows topics that metadata has not been asked for yet.
#[tokio::test(start_paused = true)]
async fn partitions_are_taken_as_soon_as_metadata_knows_their_topic() {
    let mock = mock(1).await;
    let pattern = TopicPattern::broker_side("t.*");
    let builder = mock.client().consumer("g").subscribe_pattern(pattern);
    let mut consumer = builder.build().unwrap();
    let began = now();
    settle(&mut consumer, &["t"]).await;
    let took = now() - began;
    // The pattern is resolved with the second heartbeat, and the third would be 5 s later.
    assert!(took < 8 * SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_is_assigned_partitions_has_no_pattern() {
    let mock = mock(1).await;
    let reader = mock.client().reader().assign([TopicPartition::new("t", 0)]);
    let pattern = || TopicPattern::client_side("t").unwrap();
    let both = reader.clone().subscribe_pattern(pattern()).build();
    assert_eq!(both.unwrap_err().kind(), ErrorKind::Config);
    let mut consumer = reader.build().unwrap();
    let error = consumer.subscribe_pattern(pattern()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn what_one_has_that_does_not_poll_goes_to_others_until_it_polls_again() {
    let mock = mock(1).await;
    let idle = subscriber(&mock.client()).max_poll_interval(10 * SECOND);
    let mut idle = idle.build().unwrap();
    let mut busy = subscriber(&mock.client()).build().unwrap();
    let both =
        |idle: &Consumer, busy: &Consumer| (idle.assignment().len(), busy.assignment().len());
    for expected in [(1, 1), (0, 2), (1, 1)] {
        let polls = expected.0 > 0;
        let until = now() + 60 * SECOND;
        while both(&idle, &busy) != expected {
            assert!(now() < until, "{:?}, not {expected:?}", both(&idle, &busy));
            if polls {
                idle.poll_timeout(SECOND / 10).await.unwrap();
            }
            busy.poll_timeout(SECOND / 10).await.unwrap();
        }
        assert_eq!(members(&mock), if polls { 2 } else { 1 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_not_waited_for_goes_on_beside_polls_and_tells_what_came_of_it() {
    let mock = mock(1).await;
    let client = mock.client();
    produce(&client, "t", "one").await;
    let mut consumer = subscriber(&client).build().unwrap();
    while consumer.poll().await.unwrap().unwrap().is_empty() {}
    let slow = mock.on(Api::OffsetCommit).delay(2 * SECOND);
    let mut first = consumer.commit_async();
    produce(&client, "t", "two").await;
    let more = consumer.poll_timeout(SECOND).await.unwrap().unwrap();
    assert_eq!(more.record_count(), 1, "meanwhile");
    assert!(futures::poll!(&mut first).is_pending());
    let tp = TopicPartition::new("t", 0);
    let second = consumer.commit_async();
    let handle = consumer.handle();
    let noted = OffsetAndMetadata::new(1).with_metadata("back");
    let third = tokio::spawn(async move { handle.commit_offsets([(tp, noted)]).await });
    first.await.unwrap();
    second.await.unwrap();
    third.await.unwrap().unwrap();
    assert_eq!(
        slow.hits(),
        2,
        "those that waited for the first are made as one"
    );
    let committed = mock.group("g").unwrap().offsets;
    assert_eq!(committed[0].1, 1, "the last word, as asked");
    mock.on(Api::OffsetCommit).fail(29);
    let refused = consumer.commit_async().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Authorization, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn how_much_younger_the_newest_record_is_is_asked_for_when_wanted() {
    let mock = mock(1).await;
    let client = mock.client();
    let producer = client.producer().build().unwrap();
    for second in 0..4 {
        let record = Record::to("t").with_partition(0).with_value("v");
        let record = record.with_timestamp(Timestamp::from_millis(1000 * second));
        producer.send(record).await.unwrap();
    }
    let tp = TopicPartition::new("t", 0);
    let reader = client.reader().assign([tp.clone()]).max_poll_records(2);
    let reader = reader.offset_reset(OffsetReset::Earliest);
    let mut reader = reader.build().unwrap();
    while reader.position(&tp) != Some(2) {
        reader.poll().await.unwrap();
    }
    assert_eq!(
        reader.lag().get(&tp).unwrap().behind_newest,
        TimeLag::Unknown
    );
    let lag = reader.fetch_lag().await.unwrap();
    let lag = lag.get(&tp).unwrap();
    assert_eq!(lag.behind_newest, TimeLag::Behind(2 * SECOND), "{lag:?}");
    assert_eq!(lag.records, Some(2));
    while reader.position(&tp) != Some(4) {
        reader.poll().await.unwrap();
    }
    let lag = reader.fetch_lag().await.unwrap();
    assert_eq!(lag.get(&tp).unwrap().behind_newest, TimeLag::CaughtUp);
}

#[tokio::test(start_paused = true)]
async fn fetch_tasks_end_with_their_brokers() {
    let mock = MockCluster::builder()
        .brokers(3)
        .topic("wide", 3)
        .in_memory();
    let mock = mock.seed(3).start().await.unwrap();
    let client = mock.client_builder().metadata_max_age(SECOND).build();
    let partitions = (0..3).map(|partition| TopicPartition::new("wide", partition));
    let reader = client.unwrap().reader().assign(partitions);
    let mut reader = reader.offset_reset(OffsetReset::Earliest).build().unwrap();
    reader.poll_timeout(3 * SECOND).await.unwrap();
    let fetchers = |reader: &Consumer| reader.shared.lock().fetchers.len();
    let tasks = reader.shared.tasks.running();
    assert_eq!(fetchers(&reader), 3);
    for round in 0..3 {
        mock.kill(3);
        reader.poll_timeout(10 * SECOND).await.unwrap();
        assert_eq!(
            (fetchers(&reader), reader.shared.tasks.running()),
            (2, tasks - 1)
        );
        mock.restart(3).await.unwrap();
        mock.move_leader("wide", round, 3).unwrap();
        produce_to(&mock.client(), "wide", round).await;
        let batches = reader.poll_timeout(20 * SECOND).await.unwrap().unwrap();
        assert_eq!(
            batches.record_count(),
            1,
            "read from the broker that is back"
        );
        assert_eq!(
            (fetchers(&reader), reader.shared.tasks.running()),
            (3, tasks)
        );
    }
}

async fn produce_to(client: &Client, topic: &str, partition: i32) {
    let producer = client.producer().build().unwrap();
    let record = Record::to(topic).with_partition(partition).with_value("x");
    producer.send(record).await.unwrap();
}

/// Another live consumer has its name now, and its partitions.
#[tokio::test(start_paused = true)]
async fn a_fenced_static_member_hands_out_nothing_more() {
    const FENCED_INSTANCE_ID: i16 = 82;
    let mock = mock(1).await;
    let client = mock.client();
    let builder = subscriber(&client).group_instance_id("i");
    let mut consumer = builder.build().unwrap();
    settle(&mut consumer, &["t"]).await;
    let fence = mock.on(Api::ConsumerGroupHeartbeat).times(1);
    let fence = fence.fail(FENCED_INSTANCE_ID);
    while fence.hits() == 0 {
        consumer.poll_timeout(SECOND / 100).await.ok();
    }
    produce(&client, "t", "for the other").await;
    let error = consumer.poll().await.unwrap_err();
    assert!(
        error.is_fatal() && error.kind() == ErrorKind::Fenced,
        "{error}"
    );
    assert_eq!(consumer.assignment(), []);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_at_once() {
    const GROUP_AUTHORIZATION_FAILED: i16 = 30;
    let mock = mock(1).await;
    let client = mock.client();
    produce(&client, "t", "one").await;
    let refused = |api| mock.on(api).fail(GROUP_AUTHORIZATION_FAILED);
    let rule = refused(Api::OffsetFetch);
    let mut consumer = subscriber(&client).build().unwrap();
    let batches = consumer.poll().await.unwrap().unwrap();
    let [error] = batches.errors() else {
        panic!("{batches:?}");
    };
    assert_eq!(
        (error.kind(), rule.hits()),
        (ErrorKind::Authorization, 1),
        "{error}"
    );
    rule.remove();
    while consumer.poll().await.unwrap().unwrap().is_empty() {}
    // And so are questions from outside.
    let rule = refused(Api::OffsetFetch);
    client.admin().group_offsets("g").await.unwrap_err();
    let tp = TopicPartition::new("t", 0);
    consumer.committed(&[tp]).await.unwrap_err();
    assert_eq!(rule.hits(), 2);
    let rule = refused(Api::ListGroups);
    client.admin().list_groups().await.unwrap_err();
    assert_eq!(rule.hits(), 1);
}
