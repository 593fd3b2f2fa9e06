//! What a consumer reads and when it stops: unsubscribing, reading something else, and how it
//! closes. Against the mock cluster on a paused clock.
#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use ottla::admin::NewTopic;
use ottla::mock::{Api, MockCluster, MockGroup};
use ottla::{
    Client, CloseOptions, Consumer, ConsumerBuilder, ErrorKind, Event, GroupMembershipOperation,
    OffsetAndMetadata, OffsetReset, Record, Revoking, Subscription, TopicPartition, TopicPattern,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep, timeout};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const SESSION: Duration = Duration::from_secs(45);
const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
const UNKNOWN_MEMBER_ID: i16 = 25;
const FENCED_MEMBER_EPOCH: i16 = 110;

/// Topics `t` and `u` of two partitions, with one record in each partition: where it is from.
async fn cluster() -> MockCluster {
    let mock = MockCluster::builder()
        .brokers(2)
        .topic("t", 2)
        .topic("u", 2);
    let mock = mock.auto_create(false).seed(4).start().await.unwrap();
    let producer = mock.client().producer().build().unwrap();
    for topic in ["t", "u"] {
        for partition in 0..2 {
            let value = format!("{topic}-{partition}");
            let record = Record::to(topic)
                .with_partition(partition)
                .with_value(&value);
            producer.send(record).await.unwrap();
        }
    }
    mock
}

fn subscriber(client: &Client) -> ConsumerBuilder {
    let builder = client.consumer("g").subscribe(["t"]);
    builder.offset_reset(OffsetReset::Earliest)
}

fn group(mock: &MockCluster) -> MockGroup {
    mock.group("g").unwrap()
}

fn members(mock: &MockCluster) -> usize {
    mock.group("g").map_or(0, |group| group.members.len())
}

fn tp(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

/// Polls until so many records came.
async fn read(consumer: &mut Consumer, count: usize) -> BTreeSet<String> {
    let mut values = BTreeSet::new();
    while values.len() < count {
        let polled = timeout(60 * SECOND, consumer.poll()).await.unwrap();
        for record in polled.unwrap().unwrap().iter().flatten() {
            let record = record.unwrap();
            values.insert(String::from_utf8(record.value().unwrap().to_vec()).unwrap());
        }
    }
    assert_eq!(values.len(), count);
    consumer.finish();
    values
}

async fn nothing_comes(consumer: &mut Consumer) {
    let batches = consumer.poll_timeout(5 * SECOND).await.unwrap();
    assert!(batches.unwrap().is_empty());
}

/// The next event that is no records.
async fn news(consumer: &mut Consumer) -> Event {
    loop {
        let event = timeout(400 * SECOND, consumer.next_event()).await.unwrap();
        match event.unwrap().unwrap() {
            Event::Records(_) => {}
            event => return event,
        }
    }
}

async fn revoking(consumer: &mut Consumer) -> Revoking {
    match news(consumer).await {
        Event::Revoking(revoking) => revoking,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn unsubscribing_commits_leaves_at_once_and_another_subscription_begins_anew() {
    let mock = cluster().await;
    let mut consumer = subscriber(&mock.client()).build().unwrap();
    let handle = consumer.handle();
    let names =
        |names: &[&str]| Subscription::Topics(names.iter().map(|name| (*name).into()).collect());
    assert_eq!(consumer.subscription(), names(&["t"]));
    assert_eq!(
        read(&mut consumer, 2).await,
        BTreeSet::from(["t-0", "t-1"].map(str::to_owned))
    );
    let membership = group(&mock).members[0].membership;
    let mut other = subscriber(&mock.client()).build().unwrap();
    other.set_max_poll_records(0);
    sleep(SECOND).await;

    consumer.unsubscribe();
    assert_eq!(consumer.subscription(), Subscription::Nothing);
    assert_eq!(handle.subscription(), Subscription::Nothing);
    assert_eq!(consumer.assignment(), []);
    assert_eq!(consumer.position(&tp("t", 0)), None);
    // It is done though nobody polls.
    sleep(SECOND / 2).await;
    let left = group(&mock);
    assert_eq!(left.members.len(), 1);
    assert_ne!(left.members[0].membership, membership);
    assert_eq!(left.offsets, [(tp("t", 0), 1), (tp("t", 1), 1)]);
    assert_eq!(consumer.group_metadata().member_epoch(), -1);
    let until = Instant::now() + 10 * SECOND;
    while other.assignment().len() < 2 {
        assert!(Instant::now() < until);
        other.poll_timeout(SECOND / 10).await.unwrap();
    }
    nothing_comes(&mut consumer).await;
    consumer.unsubscribe();
    nothing_comes(&mut consumer).await;
    assert_eq!(members(&mock), 1);

    consumer.subscribe(["u", "u"]).unwrap();
    assert_eq!(handle.subscription(), names(&["u"]));
    assert_eq!(
        read(&mut consumer, 2).await,
        BTreeSet::from(["u-0", "u-1"].map(str::to_owned))
    );
    other.close_timeout(60 * SECOND).await.unwrap();
    // What was committed is not read again.
    consumer.unsubscribe();
    consumer.subscribe(["u", "t"]).unwrap();
    assert_eq!(handle.subscription(), names(&["t", "u"]));
    while consumer.assignment().len() < 4 {
        let batches = consumer.poll_timeout(SECOND).await.unwrap().unwrap();
        assert!(batches.is_empty());
    }
    nothing_comes(&mut consumer).await;
    let pattern = || TopicPattern::client_side("t|u").unwrap();
    consumer.subscribe_pattern(pattern()).unwrap();
    assert_eq!(consumer.subscription(), Subscription::Pattern(pattern()));
    assert_ne!(
        consumer.subscription(),
        Subscription::Pattern(TopicPattern::broker_side("t|u"))
    );
    consumer.unsubscribe();
    sleep(60 * SECOND).await;
    assert_eq!(members(&mock), 0, "topics that match do not bring it back");
    consumer.close_timeout(60 * SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_that_was_fetched_is_handed_out_after_unsubscribing() {
    let mock = cluster().await;
    let mut consumer = subscriber(&mock.client()).build().unwrap();
    consumer.set_max_poll_records(1);
    read(&mut consumer, 1).await;
    consumer.set_max_poll_records(500);
    consumer.unsubscribe();
    nothing_comes(&mut consumer).await;
    consumer.subscribe(["t"]).unwrap();
    read(&mut consumer, 1).await;
    nothing_comes(&mut consumer).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_subscribed_next_waits_until_the_group_was_left() {
    let mock = cluster().await;
    let mut consumer = subscriber(&mock.client()).build().unwrap();
    read(&mut consumer, 2).await;
    let before = group(&mock).members[0].clone();
    consumer.unsubscribe();
    consumer.subscribe(["u"]).unwrap();
    read(&mut consumer, 2).await;
    let after = group(&mock).members[0].clone();
    assert_eq!(before.id, after.id);
    assert_ne!(before.membership, after.membership);
    // The last word counts.
    consumer.unsubscribe();
    consumer.subscribe(["t"]).unwrap();
    consumer.unsubscribe();
    sleep(20 * SECOND).await;
    assert_eq!(members(&mock), 0);
    nothing_comes(&mut consumer).await;
}

#[tokio::test(start_paused = true)]
async fn subscriptions_and_assignments_take_each_others_place() {
    let mock = cluster().await;
    let mut consumer = subscriber(&mock.client()).build().unwrap();
    read(&mut consumer, 2).await;
    let refused = consumer.assign([tp("t", 1)]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    consumer.unsubscribe();
    consumer
        .assign([tp("t", 1), tp("u", 1), tp("t", 1)])
        .unwrap();
    let assigned = Subscription::Partitions(vec![tp("t", 1), tp("u", 1)]);
    assert_eq!(consumer.subscription(), assigned);
    // At once, though the member is still on its way out.
    consumer.seek(&tp("t", 1), 0).unwrap();
    assert_eq!(
        read(&mut consumer, 2).await,
        BTreeSet::from(["t-1", "u-1"].map(str::to_owned))
    );
    assert_eq!(members(&mock), 0);
    assert_eq!(consumer.assignment().len(), 2);
    let refused = consumer.subscribe(["t"]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");

    consumer.unsubscribe();
    assert_eq!(consumer.assignment(), []);
    nothing_comes(&mut consumer).await;
    assert!(group(&mock).offsets.contains(&(tp("u", 1), 1)));
    consumer.subscribe(["u"]).unwrap();
    assert_eq!(
        read(&mut consumer, 1).await,
        BTreeSet::from(["u-0".to_owned()])
    );
    assert_eq!(members(&mock), 1);
    // Each before the one before is over.
    consumer.unsubscribe();
    consumer.assign([tp("t", 0)]).unwrap();
    consumer.unsubscribe();
    consumer.subscribe(["t"]).unwrap();
    consumer.unsubscribe();
    consumer.assign([tp("u", 0)]).unwrap();
    consumer.seek(&tp("u", 0), 0).unwrap();
    assert_eq!(
        read(&mut consumer, 1).await,
        BTreeSet::from(["u-0".to_owned()])
    );
    assert_eq!(members(&mock), 0);

    let reader = mock.client().reader().assign([tp("t", 0)]);
    let mut reader = reader.build().unwrap();
    reader.unsubscribe();
    let refused = reader.subscribe(["t"]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    reader.assign([tp("t", 1)]).unwrap();
    reader.seek(&tp("t", 1), 0).unwrap();
    read(&mut reader, 1).await;
}

#[tokio::test(start_paused = true)]
async fn who_reads_by_events_lets_go_as_in_any_revocation() {
    let mock = cluster().await;
    let builder = subscriber(&mock.client()).auto_commit(false);
    let mut consumer = builder.max_poll_records(1).build().unwrap();
    let Event::Assigned(all) = news(&mut consumer).await else {
        panic!("not assigned");
    };
    while !matches!(
        consumer.next_event().await.unwrap(),
        Some(Event::Records(_))
    ) {}
    consumer.unsubscribe();
    assert_eq!(consumer.subscription(), Subscription::Nothing);
    consumer.subscribe(["u"]).unwrap();
    let revoking = revoking(&mut consumer).await;
    let revoked: BTreeSet<_> = revoking.partitions().iter().cloned().collect();
    assert_eq!(revoked, all.into_iter().collect());
    // Of the record that is left nothing is handed out.
    assert!(timeout(10 * SECOND, consumer.next_event()).await.is_err());
    // Still a member, that may commit.
    assert_eq!(group(&mock).members[0].partitions.len(), 2);
    assert_eq!(consumer.assignment().len(), 2);
    consumer.commit().await.unwrap();
    assert!(!group(&mock).offsets.is_empty());
    let membership = group(&mock).members[0].membership;
    revoking.done();
    assert_eq!(consumer.assignment(), []);
    let Event::Assigned(next) = news(&mut consumer).await else {
        panic!("not assigned");
    };
    assert!(next.iter().all(|tp| tp.topic() == "u"), "{next:?}");
    assert_ne!(group(&mock).members[0].membership, membership);

    // By any other way of reading it is let go at once.
    consumer.poll_timeout(SECOND).await.unwrap();
    consumer.unsubscribe();
    sleep(SECOND).await;
    assert_eq!(members(&mock), 0);
    let more = timeout(SECOND, consumer.next_event()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_told_and_not_let_go_of_is_given_up_by_another_assignment() {
    let mock = cluster().await;
    let mut consumer = subscriber(&mock.client()).build().unwrap();
    news(&mut consumer).await;
    while !matches!(
        consumer.next_event().await.unwrap(),
        Some(Event::Records(_))
    ) {}
    consumer.unsubscribe();
    let revoking = revoking(&mut consumer).await;
    consumer.assign([tp("t", 0)]).unwrap();
    consumer.seek(&tp("t", 0), 0).unwrap();
    sleep(SECOND).await;
    assert_eq!(members(&mock), 0);
    assert!(!group(&mock).offsets.is_empty());
    revoking.done();
    assert_eq!(consumer.assignment(), [tp("t", 0)]);
    read(&mut consumer, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_under_way_ends_before_the_group_is_left() {
    let mock = cluster().await;
    for all in [false, true] {
        let builder = subscriber(&mock.client()).auto_commit(false);
        let mut consumer = builder.build().unwrap();
        news(&mut consumer).await;
        let other = match all {
            // Another topic takes all of them.
            true => {
                consumer.subscribe(["u"]).unwrap();
                None
            }
            false => Some(subscriber(&mock.client()).build().unwrap()),
        };
        let first = revoking(&mut consumer).await;
        consumer.unsubscribe();
        if !all {
            let second = revoking(&mut consumer).await;
            assert_eq!(
                (first.partitions().len(), second.partitions().len()),
                (1, 1)
            );
            assert_ne!(first.partitions(), second.partitions());
            second.done();
        }
        sleep(10 * SECOND).await;
        assert_eq!(consumer.assignment(), first.partitions());
        let at = first.partitions().iter().cloned();
        let at = at.map(|tp| (tp, OffsetAndMetadata::new(0)));
        consumer.commit_offsets(at).await.unwrap();
        first.done();
        sleep(SECOND).await;
        assert_eq!(consumer.assignment(), []);
        assert_eq!(consumer.group_metadata().member_epoch(), -1);
        if let Some(other) = other {
            other.close_timeout(60 * SECOND).await.unwrap();
        }
        assert_eq!(members(&mock), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_before_it_is_let_go_of_ends_the_subscription_all_the_same() {
    let mock = cluster().await;
    for fenced in [true, false] {
        let mut consumer = subscriber(&mock.client()).build().unwrap();
        news(&mut consumer).await;
        consumer.unsubscribe();
        let revoking = revoking(&mut consumer).await;
        if fenced {
            let fence = mock.on(Api::ConsumerGroupHeartbeat).times(1);
            fence.fail(FENCED_MEMBER_EPOCH);
        } else {
            // Longer than max.poll.interval.ms.
            sleep(301 * SECOND).await;
        }
        let Event::Lost(lost) = news(&mut consumer).await else {
            panic!("not lost");
        };
        assert_eq!(lost.len(), 2);
        assert!(timeout(10 * SECOND, consumer.next_event()).await.is_err());
        // The mock did not throw out whom the rule fenced.
        sleep(SESSION).await;
        assert_eq!(members(&mock), 0);
        consumer.subscribe(["u"]).unwrap();
        assert!(matches!(news(&mut consumer).await, Event::Assigned(_)));
        // It comes too late to mean anything.
        revoking.done();
        assert_eq!(consumer.assignment().len(), 2);
        consumer.close_timeout(60 * SECOND).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_assigned_meanwhile_is_not_what_the_group_speaks_of() {
    for fenced in [false, true] {
        let mock = cluster().await;
        let mut consumer = subscriber(&mock.client()).build().unwrap();
        read(&mut consumer, 2).await;
        let commits = mock.on(Api::OffsetCommit).delay(10 * SECOND);
        if !fenced {
            // A revocation whose commit takes its time.
            consumer.subscribe(["u"]).unwrap();
            while commits.hits() == 0 {
                consumer.poll_timeout(SECOND / 10).await.unwrap();
            }
        }
        consumer.unsubscribe();
        consumer.assign([tp("t", 0)]).unwrap();
        consumer.seek(&tp("t", 0), 0).unwrap();
        read(&mut consumer, 1).await;
        if fenced {
            let fence = mock.on(Api::ConsumerGroupHeartbeat).times(1);
            let fence = fence.fail(FENCED_MEMBER_EPOCH);
            while fence.hits() == 0 {
                sleep(SECOND).await;
            }
        }
        consumer.seek(&tp("t", 0), 0).unwrap();
        sleep(30 * SECOND).await;
        assert_eq!(consumer.assignment(), [tp("t", 0)]);
        read(&mut consumer, 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_what_is_let_go_of_is_not_made_once_it_is_lost() {
    let mock = cluster().await;
    let builder = subscriber(&mock.client()).auto_commit(false);
    let mut consumer = builder.build().unwrap();
    news(&mut consumer).await;
    consumer.unsubscribe();
    let _revoking = revoking(&mut consumer).await;
    let rule = mock
        .on(Api::OffsetCommit)
        .fail(COORDINATOR_LOAD_IN_PROGRESS);
    let commit = consumer.commit_offsets([(tp("t", 0), OffsetAndMetadata::new(1))]);
    assert!(timeout(SECOND, commit).await.is_err());
    let commit = consumer.handle();
    let commit = tokio::spawn(async move {
        let offsets = [(tp("t", 0), OffsetAndMetadata::new(1))];
        commit.commit_offsets(offsets).await
    });
    sleep(SECOND).await;
    let fence = mock.on(Api::ConsumerGroupHeartbeat).times(1);
    fence.fail(FENCED_MEMBER_EPOCH);
    assert!(matches!(news(&mut consumer).await, Event::Lost(_)));
    // Now a broker would take it for an administrator's.
    sleep(SESSION).await;
    assert_eq!(members(&mock), 0);
    rule.remove();
    let error = commit.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Group, "{error}");
    assert_eq!(group(&mock).offsets, []);
}

#[tokio::test(start_paused = true)]
async fn topics_that_match_do_not_bring_back_who_is_leaving() {
    let mock = cluster().await;
    let client = mock.client_builder().metadata_max_age(SECOND);
    let client = client.build().unwrap();
    let builder = client.consumer("g").offset_reset(OffsetReset::Earliest);
    let pattern = TopicPattern::client_side("t|v.*").unwrap();
    let mut consumer = builder.subscribe_pattern(pattern).build().unwrap();
    read(&mut consumer, 2).await;
    let rule = mock
        .on(Api::OffsetCommit)
        .fail(COORDINATOR_LOAD_IN_PROGRESS);
    consumer.unsubscribe();
    sleep(SECOND).await;
    let new = mock
        .client()
        .admin()
        .create_topics([NewTopic::new("v")])
        .await;
    new.unwrap().all().unwrap();
    sleep(10 * SECOND).await;
    rule.remove();
    nothing_comes(&mut consumer).await;
    assert_eq!(members(&mock), 0);
    let fetches = mock.on(Api::Fetch).delay(MILLI);
    nothing_comes(&mut consumer).await;
    assert_eq!(fetches.hits(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_on_its_way_before_is_not_told_afterwards() {
    let mock = cluster().await;
    let mut consumer = subscriber(&mock.client()).build().unwrap();
    read(&mut consumer, 2).await;
    // A revocation that nobody takes notice of.
    consumer.subscribe(["u"]).unwrap();
    sleep(20 * SECOND).await;
    consumer.unsubscribe();
    sleep(SECOND).await;
    assert_eq!(members(&mock), 0);
    consumer.subscribe(["u"]).unwrap();
    assert!(matches!(news(&mut consumer).await, Event::Assigned(_)));

    let reader = mock.client().reader().assign([tp("nowhere", 0)]);
    let mut reader = reader.build().unwrap();
    reader.poll_timeout(SECOND).await.unwrap();
    reader.unsubscribe();
    let batches = reader.poll_timeout(300 * SECOND).await.unwrap().unwrap();
    assert!(batches.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_revocation_under_way_that_is_lost_is_over_too() {
    let mock = cluster().await;
    let builder = subscriber(&mock.client()).auto_commit(false);
    let mut consumer = builder.build().unwrap();
    news(&mut consumer).await;
    consumer.subscribe(["u"]).unwrap();
    let revoking = revoking(&mut consumer).await;
    consumer.unsubscribe();
    let fence = mock.on(Api::ConsumerGroupHeartbeat).times(1);
    fence.fail(FENCED_MEMBER_EPOCH);
    assert!(matches!(news(&mut consumer).await, Event::Lost(lost) if lost.len() == 2));
    assert_eq!(consumer.assignment(), []);
    revoking.done();
    sleep(SESSION).await;
    consumer.subscribe(["u"]).unwrap();
    assert!(matches!(news(&mut consumer).await, Event::Assigned(_)));
    consumer.close_timeout(60 * SECOND).await.unwrap();
    assert_eq!(members(&mock), 0);
}

#[tokio::test(start_paused = true)]
async fn the_group_is_left_only_after_the_commit() {
    let mock = cluster().await;
    let mut consumer = subscriber(&mock.client()).build().unwrap();
    read(&mut consumer, 2).await;
    let rule = mock
        .on(Api::OffsetCommit)
        .fail(COORDINATOR_LOAD_IN_PROGRESS);
    consumer.unsubscribe();
    let said = [(tp("t", 0), OffsetAndMetadata::new(0))];
    let later = consumer.commit_offsets(said);
    assert!(timeout(10 * SECOND, later).await.is_err());
    assert_eq!(group(&mock).members[0].partitions.len(), 2);
    assert_eq!(consumer.assignment(), []);
    rule.remove();
    sleep(2 * SECOND).await;
    assert_eq!(members(&mock), 0);
    // What was asked for later came later.
    assert_eq!(group(&mock).offsets, [(tp("t", 0), 0), (tp("t", 1), 1)]);

    // A commit that cannot be made does not hold it back for long, nor does being thrown out bring
    // it back.
    consumer.subscribe(["u"]).unwrap();
    read(&mut consumer, 2).await;
    let rule = mock
        .on(Api::OffsetCommit)
        .fail(COORDINATOR_LOAD_IN_PROGRESS);
    consumer.unsubscribe();
    sleep(SECOND).await;
    assert_eq!(members(&mock), 1);
    let fence = mock.on(Api::ConsumerGroupHeartbeat).times(1);
    let fence = fence.apply_then_fail(UNKNOWN_MEMBER_ID);
    while fence.hits() == 0 {
        sleep(SECOND).await;
    }
    let beats = mock.on(Api::ConsumerGroupHeartbeat).delay(MILLI);
    sleep(60 * SECOND).await;
    assert_eq!(beats.hits(), 0);
    assert_eq!(members(&mock), 0);
    rule.remove();
    consumer.subscribe(["u"]).unwrap();
    read(&mut consumer, 2).await;
    consumer.close_timeout(60 * SECOND).await.unwrap();
    assert_eq!(members(&mock), 0);
}

#[tokio::test(start_paused = true)]
async fn who_unsubscribes_and_closes_has_left() {
    for unsubscribed in [true, false] {
        let mock = cluster().await;
        let builder = subscriber(&mock.client()).max_poll_interval(10 * SECOND);
        let mut consumer = builder.build().unwrap();
        read(&mut consumer, 2).await;
        mock.on(Api::ConsumerGroupHeartbeat).delay(SECOND);
        if unsubscribed {
            consumer.unsubscribe();
            let remain = GroupMembershipOperation::RemainInGroup;
            let options = CloseOptions::new().group_membership_operation(remain);
            consumer.close_with(options).await.unwrap();
        } else {
            // It is about to leave because nobody polls.
            sleep(10 * SECOND + SECOND / 2).await;
            consumer.close_timeout(60 * SECOND).await.unwrap();
        }
        assert_eq!(members(&mock), 0);
        let committed = group(&mock).offsets.into_iter().map(|(_, offset)| offset);
        assert_eq!(committed.sum::<i64>(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_static_member_that_unsubscribes_keeps_its_place() {
    let mock = cluster().await;
    let builder = subscriber(&mock.client()).group_instance_id("i");
    let mut consumer = builder.build().unwrap();
    read(&mut consumer, 2).await;
    consumer.unsubscribe();
    sleep(10 * SECOND).await;
    let kept = &group(&mock).members[0];
    assert_eq!((kept.epoch, kept.partitions.len()), (-2, 2));
    consumer.subscribe(["t"]).unwrap();
    while consumer.assignment().len() < 2 {
        consumer.poll_timeout(SECOND).await.unwrap();
    }
    consumer.unsubscribe();
    sleep(SESSION + SECOND).await;
    assert_eq!(members(&mock), 0);
}

/// A member that has read all; closes it so, with auto-commit.
async fn closed(mock: &MockCluster, instance: Option<&str>, operation: GroupMembershipOperation) {
    let mut builder = subscriber(&mock.client());
    if let Some(instance) = instance {
        builder = builder.group_instance_id(instance);
    }
    let mut consumer = builder.build().unwrap();
    while consumer.assignment().len() < 2 {
        consumer.poll_timeout(SECOND).await.unwrap();
    }
    let options = CloseOptions::new().timeout(20 * SECOND);
    let options = options.group_membership_operation(operation);
    consumer.close_with(options).await.unwrap();
    assert_eq!(group(mock).offsets.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_closed_consumer_leaves_or_remains_as_it_is_told() {
    let epochs = |mock: &MockCluster| -> Vec<i32> {
        let members = group(mock).members.into_iter();
        members.map(|member| member.epoch).collect()
    };
    for (instance, operation, left) in [
        (None, GroupMembershipOperation::Default, vec![]),
        (None, GroupMembershipOperation::LeaveGroup, vec![]),
        (None, GroupMembershipOperation::RemainInGroup, vec![1]),
        (Some("i"), GroupMembershipOperation::Default, vec![-2]),
        (Some("i"), GroupMembershipOperation::LeaveGroup, vec![]),
        (Some("i"), GroupMembershipOperation::RemainInGroup, vec![-2]),
    ] {
        let mock = cluster().await;
        closed(&mock, instance, operation).await;
        assert_eq!(epochs(&mock), left, "{instance:?}, {operation:?}");
        sleep(SESSION - 10 * SECOND).await;
        assert_eq!(epochs(&mock), left, "{instance:?}, {operation:?}");
        sleep(11 * SECOND).await;
        assert_eq!(epochs(&mock), [0; 0], "{instance:?}, {operation:?}");
    }
}

/// One run: consumers that change their minds as they like, each reading all there is in the end.
async fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mock = cluster().await;
    mock.on(Api::OffsetCommit)
        .delay(rng.random_range(0..300) * MILLI);
    mock.on(Api::ConsumerGroupHeartbeat)
        .delay(rng.random_range(0..300) * MILLI);
    let builder = subscriber(&mock.client()).auto_commit(rng.random_bool(0.5));
    let mut consumer = builder.build().unwrap();
    let mut other = subscriber(&mock.client()).build().unwrap();
    let mut held = None;
    for _ in 0..40 {
        let wait = rng.random_range(0..1000) * MILLI;
        match rng.random_range(0..9) {
            0 => consumer.unsubscribe(),
            1 => drop(consumer.subscribe(["t"])),
            2 => drop(consumer.subscribe(["u", "t"])),
            3 => drop(consumer.assign([tp("t", 0), tp("u", 1)])),
            4 => drop(consumer.poll_timeout(wait).await.unwrap()),
            5 => held = None,
            6 => drop(other.poll_timeout(wait).await.unwrap()),
            _ => match timeout(wait, consumer.next_event()).await {
                Ok(event) => {
                    if let Some(Event::Revoking(revoking)) = event.unwrap() {
                        held = Some(revoking);
                    }
                }
                Err(_) => sleep(wait).await,
            },
        }
        if consumer.subscription() == Subscription::Nothing && rng.random_ratio(1, 3) {
            let batches = consumer.poll_timeout(MILLI).await.unwrap().unwrap();
            assert!(batches.is_empty(), "seed {seed}");
        }
        if let Subscription::Partitions(partitions) = consumer.subscription() {
            let assigned: BTreeSet<_> = consumer.assignment().into_iter().collect();
            assert_eq!(assigned, partitions.into_iter().collect(), "seed {seed}");
        }
    }
    drop(held);
    other.close_timeout(60 * SECOND).await.unwrap();
    consumer.unsubscribe();
    nothing_comes(&mut consumer).await;
    assert_eq!(members(&mock), 0, "seed {seed}");
    consumer.subscribe(["t", "u"]).unwrap();
    let until = Instant::now() + 60 * SECOND;
    let all = ["t", "u"]
        .map(|topic| [tp(topic, 0), tp(topic, 1)])
        .concat();
    while all.iter().any(|tp| consumer.position(tp) != Some(1)) {
        assert!(
            Instant::now() < until,
            "seed {seed}: {:?}",
            consumer.assignment()
        );
        consumer.poll_timeout(SECOND).await.unwrap();
    }
    consumer.commit().await.unwrap();
    assert!(
        all.iter()
            .all(|tp| group(&mock).offsets.contains(&(tp.clone(), 1)))
    );
    consumer.close_timeout(60 * SECOND).await.unwrap();
    assert_eq!(members(&mock), 0, "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn whatever_is_wanted_in_whichever_order_the_last_word_counts() {
    for seed in 0..60 {
        run(seed).await;
    }
}
