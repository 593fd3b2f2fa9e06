//! Transactions on the mock cluster, with both protocols, on a paused clock.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::error::{Class, ErrorKind, Result};
use crate::mock::{Api, MockCluster};
use crate::producer::transaction::{CommitError, TransactionOutcome, TransactionalProducer};
use crate::types::{OffsetAndMetadata, TopicPartition};
use crate::{Error, GroupMetadata, GroupProtocol, OffsetReset, Record};

const SECOND: Duration = Duration::from_secs(1);
const PARTITIONS: i32 = 6;

async fn mock(version: u8) -> MockCluster {
    let builder = MockCluster::builder()
        .brokers(3)
        .topic("t", PARTITIONS as u32)
        .transaction_version(version)
        .in_memory()
        .seed(7);
    builder.start().await.unwrap()
}

async fn producer(mock: &MockCluster) -> TransactionalProducer {
    let builder = mock.client().transactional_producer("tx");
    builder.build().await.unwrap()
}

fn record(partition: i32, value: &str) -> Record<'_> {
    Record::to("t").with_partition(partition).with_value(value)
}

/// What `read_committed` sees, partition by partition.
fn seen(mock: &MockCluster) -> BTreeMap<i32, Vec<String>> {
    let partitions = 0..PARTITIONS;
    let read = partitions.map(|partition| {
        let records = mock.committed_records("t", partition);
        let values = records.iter().map(|record| {
            let value = record.value().unwrap_or_default();
            String::from_utf8_lossy(value).into_owned()
        });
        (partition, values.collect())
    });
    read.filter(|(_, values): &(_, Vec<_>)| !values.is_empty())
        .collect()
}

fn values(partition: i32, values: &[&str]) -> BTreeMap<i32, Vec<String>> {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    BTreeMap::from([(partition, values)])
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_seen_whole_or_not_at_all() {
    for version in [1, 2] {
        let mock = mock(version).await;
        let mut producer = producer(&mock).await;
        for round in 0..10 {
            let transaction = producer.begin().await.unwrap();
            let value = format!("{round}");
            for partition in 0..PARTITIONS {
                for _ in 0..3 {
                    let record = record(partition, &value);
                    drop(transaction.enqueue(record).await.unwrap());
                }
            }
            assert!(seen(&mock).values().all(|values| !values.contains(&value)));
            match round % 3 {
                0 => transaction.commit().await.unwrap(),
                1 => transaction.abort().await.unwrap(),
                _ => drop(transaction),
            }
        }
        let expected = ["0", "0", "0", "3", "3", "3", "6", "6", "6", "9", "9", "9"];
        let seen = seen(&mock);
        assert_eq!(seen.len(), PARTITIONS as usize, "protocol {version}");
        for values in seen.values() {
            assert_eq!(*values, expected, "protocol {version}");
        }
        producer.close().await.unwrap();
        assert_ne!(mock.transaction("tx").unwrap().state, "Ongoing");
    }
}

#[tokio::test(start_paused = true)]
async fn all_forms_of_sending_are_of_the_transaction() {
    let mock = mock(2).await;
    let mut producer = producer(&mock).await;
    let transaction = producer.begin().await.unwrap();
    let written = transaction.send(record(0, "send")).await.unwrap();
    assert_eq!(written.offset, Some(0));
    drop(transaction.try_enqueue(record(0, "try")).unwrap());
    let many = ["all", "of", "them"].map(|value| record(0, value));
    drop(transaction.enqueue_all(many).await.unwrap());
    let topic = transaction.topic("t");
    let record = Record::new().with_partition(0).with_value("topic");
    drop(topic.enqueue(record).await.unwrap());
    assert!(seen(&mock).is_empty());
    transaction.commit().await.unwrap();
    let expected = values(0, &["send", "try", "all", "of", "them", "topic"]);
    assert_eq!(seen(&mock), expected);
}

/// Each answer of each request is lost, or refused in passing, at each of its first places.
#[tokio::test(start_paused = true)]
async fn whatever_answer_is_lost_what_is_committed_is_seen_once() {
    const COORDINATOR_NOT_AVAILABLE: i16 = 15;
    const CONCURRENT_TRANSACTIONS: i16 = 51;
    let apis = [
        Api::FindCoordinator,
        Api::InitProducerId,
        Api::AddPartitionsToTxn,
        Api::AddOffsetsToTxn,
        Api::TxnOffsetCommit,
        Api::EndTxn,
        Api::Produce,
    ];
    for version in [1, 2] {
        for api in apis {
            for fault in 0..4 {
                for place in 0..4 {
                    let mock = mock(version).await;
                    let rule = mock.on(api).skip(place).times(1);
                    let rule = match fault {
                        0 => rule.drop_connection(),
                        1 => rule.apply_then_drop(),
                        2 => rule.fail(COORDINATOR_NOT_AVAILABLE),
                        _ => rule.fail(CONCURRENT_TRANSACTIONS),
                    };
                    let case = format!("protocol {version}, {api:?}, fault {fault}, {place}");
                    let mut producer = producer(&mock).await;
                    let mut expected = Vec::new();
                    for round in 0..4 {
                        let value = format!("{round}");
                        let done = one_transaction(&mut producer, &value, round % 2 == 0).await;
                        match done {
                            Ok(true) => expected.push(value),
                            Ok(false) => {}
                            Err(error) => panic!("{case}, round {round}: {error:#?}"),
                        }
                    }
                    rule.remove();
                    assert_eq!(expected.len(), 2, "{case}");
                    for partition in 0..2 {
                        let seen = seen(&mock).remove(&partition).unwrap_or_default();
                        assert_eq!(seen, expected, "{case}");
                    }
                    let committed = mock.group("g").unwrap().offsets;
                    let expected = vec![(TopicPartition::new("t", 5), 2)];
                    assert_eq!(committed, expected, "{case}");
                    producer.close().await.unwrap();
                }
            }
        }
    }
}

/// Whether it committed.
async fn one_transaction(
    producer: &mut TransactionalProducer,
    value: &str,
    commits: bool,
) -> Result<bool> {
    let transaction = producer.begin().await?;
    drop(transaction.enqueue(record(0, value)).await?);
    drop(transaction.enqueue(record(1, value)).await?);
    let next = value.parse::<i64>().unwrap();
    let offset = (TopicPartition::new("t", 5), OffsetAndMetadata::new(next));
    let group = GroupMetadata::of_group("g");
    transaction.send_offsets([offset], &group).await?;
    match commits {
        true => transaction.commit().await?,
        false => transaction.abort().await?,
    }
    Ok(commits)
}

#[tokio::test(start_paused = true)]
async fn a_record_that_fails_makes_the_transaction_one_to_be_aborted() {
    const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
    for version in [1, 2] {
        let mock = mock(version).await;
        let mut producer = producer(&mock).await;
        for round in 0..3 {
            let rule = mock.on(Api::Produce).times(1);
            let rule = rule.fail(TOPIC_AUTHORIZATION_FAILED);
            let transaction = producer.begin().await.unwrap();
            drop(transaction.enqueue(record(0, "kept?")).await.unwrap());
            let failed = transaction.send(record(1, "refused")).await;
            let failed = match failed {
                // Whichever of the two is refused.
                Err(error) => error,
                Ok(_) => loop {
                    match transaction.enqueue(record(2, "later")).await {
                        Ok(_) => tokio::time::sleep(SECOND).await,
                        Err(error) => break error,
                    }
                },
            };
            assert_eq!(failed.class(), Class::Abortable, "{failed:#?}");
            if round == 1 {
                transaction.abort().await.unwrap();
            } else {
                let error = transaction.commit().await.unwrap_err();
                assert_eq!(error.outcome(), TransactionOutcome::Aborted);
                let error = error.error();
                assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
                assert!(error.topic_partition().is_some(), "{error:#?}");
            }
            assert_eq!(rule.hits(), 1);
            let transaction = producer.begin().await.unwrap();
            drop(transaction.enqueue(record(3, "next")).await.unwrap());
            transaction.commit().await.unwrap();
        }
        let expected = values(3, &["next", "next", "next"]);
        assert_eq!(seen(&mock), expected, "protocol {version}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_owners_the_older_one_is_shut_out() {
    for version in [1, 2] {
        let mock = mock(version).await;
        let mut old = producer(&mock).await;
        let transaction = old.begin().await.unwrap();
        drop(transaction.send(record(0, "old")).await.unwrap());
        let mut new = producer(&mock).await;
        assert_eq!(mock.transaction("tx").unwrap().state, "Empty");
        let fresh = new.begin().await.unwrap();
        drop(fresh.enqueue(record(0, "new")).await.unwrap());
        let error = transaction.commit().await.unwrap_err();
        assert_eq!(error.outcome(), TransactionOutcome::Aborted);
        assert!(error.error().is_fatal(), "{error:?}");
        assert_eq!(error.error().kind(), ErrorKind::Fenced);
        let error = old.begin().await.unwrap_err();
        assert!(error.is_fatal() && error.kind() == ErrorKind::Fenced);
        fresh.commit().await.unwrap();
        assert_eq!(seen(&mock), values(0, &["new"]));
        let error = old.close().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced);
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_is_open_for_too_long_is_gone() {
    for version in [1, 2] {
        let mock = mock(version).await;
        let builder = mock.client().transactional_producer("tx");
        let builder = builder.transaction_timeout(10 * SECOND);
        let mut producer = builder.build().await.unwrap();
        let transaction = producer.begin().await.unwrap();
        drop(transaction.send(record(0, "late")).await.unwrap());
        tokio::time::sleep(11 * SECOND).await;
        let error = transaction.commit().await.unwrap_err();
        assert_eq!(error.outcome(), TransactionOutcome::Aborted, "{error:?}");
        assert!(error.error().is_fatal());
        assert!(seen(&mock).is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_out_that_the_broker_does_not_allow_is_an_error_of_the_settings() {
    let mock = mock(2).await;
    let builder = mock.client().transactional_producer("tx");
    let builder = builder.transaction_timeout(3600 * SECOND);
    let error = builder.build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("transaction.timeout.ms"));
    let unnamed = mock.client().producer().transactional().build().await;
    assert_eq!(unnamed.unwrap_err().kind(), ErrorKind::Config);
    let client = crate::Client::from_properties([
        ("bootstrap.servers", "localhost:9092"),
        ("transactional.id", "tx"),
    ]);
    let client = client.unwrap().build().unwrap();
    let error = client.producer().build().unwrap_err();
    assert!(error.to_string().contains("transactional.id"));
}

#[tokio::test(start_paused = true)]
async fn refused_rights_are_told_and_recover_when_they_are_given() {
    const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
    let mock = mock(2).await;
    let refuse = || {
        let rule = mock.on(Api::InitProducerId);
        rule.fail(TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    };
    let rule = refuse();
    let builder = || mock.client().transactional_producer("tx");
    let error = builder().build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authorization, "{error:#?}");
    rule.remove();
    builder().build().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn begin_twice_is_an_error_for_owned_transactions() {
    let mock = mock(2).await;
    let producer = producer(&mock).await;
    let first = producer.begin_owned().await.unwrap();
    let error = producer.begin_owned().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transaction);
    drop(first.enqueue(record(0, "a")).await.unwrap());
    first.commit().await.unwrap();
    let second = producer.begin_owned().await.unwrap();
    drop(second.enqueue(record(0, "b")).await.unwrap());
    producer.close().await.unwrap();
    let error = second.commit().await.unwrap_err();
    assert_eq!(error.outcome(), TransactionOutcome::Aborted);
    assert_eq!(seen(&mock), values(0, &["a"]));
}

/// The next one begins although the markers of the last are still to be written.
#[tokio::test(start_paused = true)]
async fn the_end_of_the_transaction_before_is_waited_for() {
    for version in [1, 2] {
        let builder = MockCluster::builder().topic("t", 2).in_memory().seed(3);
        let builder = builder.transaction_version(version);
        let mock = builder.marker_delay(SECOND / 20).start().await.unwrap();
        let mut producer = producer(&mock).await;
        let began = tokio::time::Instant::now();
        for round in 0..20 {
            let value = format!("{round}");
            let transaction = producer.begin().await.unwrap();
            drop(transaction.send(record(0, &value)).await.unwrap());
            transaction.commit().await.unwrap();
        }
        let took = began.elapsed();
        tokio::time::sleep(SECOND).await;
        assert_eq!(mock.committed_records("t", 0).len(), 20);
        // Far less than the back-off of 100 ms would cost.
        assert!(took < 20 * SECOND / 10, "protocol {version}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_changes_the_protocol_loses_nothing() {
    let mock = mock(1).await;
    let mut producer = producer(&mock).await;
    let mut expected = Vec::new();
    for round in 0..30 {
        if round % 10 == 5 {
            mock.set_transaction_version(if round < 10 { 2 } else { 1 });
            // Clients learn of it with new connections.
            for broker in 1..=3 {
                mock.kill(broker);
                mock.restart(broker).await.unwrap();
            }
        }
        let value = format!("{round}");
        let transaction = producer.begin().await.unwrap();
        for partition in 0..2 {
            let record = record(partition, &value);
            drop(transaction.enqueue(record).await.unwrap());
        }
        match round % 3 {
            0 => transaction.abort().await.unwrap(),
            _ => {
                transaction.commit().await.unwrap();
                expected.push(value);
            }
        }
    }
    for partition in 0..2 {
        assert_eq!(seen(&mock)[&partition], expected);
    }
}

#[tokio::test(start_paused = true)]
async fn offsets_of_a_generation_that_is_over_are_refused() {
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        for version in [1, 2] {
            let mock = mock(version).await;
            let mut producer = producer(&mock).await;
            let consumer = mock.client().consumer("g").subscribe(["t"]);
            let consumer = consumer.group_protocol(protocol).auto_commit(false);
            let consumer = consumer.offset_reset(OffsetReset::Earliest);
            let mut consumer = consumer.build().unwrap();
            while consumer.group_metadata().member_epoch() < 1 {
                let _ = consumer.poll_timeout(SECOND).await.unwrap();
            }
            let group = consumer.group_metadata();
            let offset = || [(TopicPartition::new("t", 0), OffsetAndMetadata::new(3))];
            let transaction = producer.begin().await.unwrap();
            transaction.send_offsets(offset(), &group).await.unwrap();
            transaction.commit().await.unwrap();
            consumer.close().await.unwrap();

            let other = mock.client().consumer("g").subscribe(["t"]);
            let mut other = other.group_protocol(protocol).build().unwrap();
            while other.group_metadata().member_epoch() < 1 {
                let _ = other.poll_timeout(SECOND).await.unwrap();
            }
            let transaction = producer.begin().await.unwrap();
            let refused = transaction.send_offsets(offset(), &group).await;
            let error = refused.unwrap_err();
            assert_eq!(error.class(), Class::Abortable, "{error:#?}");
            assert_eq!(error.kind(), ErrorKind::Group, "{error:#?}");
            let error = transaction.commit().await.unwrap_err();
            assert_eq!(error.outcome(), TransactionOutcome::Aborted);
            // The producer goes on.
            let transaction = producer.begin().await.unwrap();
            let own = other.group_metadata();
            transaction.send_offsets(offset(), &own).await.unwrap();
            transaction.commit().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn offsets_that_nobody_waited_for_are_committed_or_fail_the_commit() {
    let mock = mock(2).await;
    let mut producer = producer(&mock).await;
    let group = GroupMetadata::of_group("g");
    let offset = |offset| [(TopicPartition::new("t", 0), OffsetAndMetadata::new(offset))];
    let transaction = producer.begin().await.unwrap();
    transaction.try_send_offsets(offset(3), &group).unwrap();
    transaction.commit().await.unwrap();
    let committed = |mock: &MockCluster| mock.group("g").unwrap().offsets[0].1;
    assert_eq!(committed(&mock), 3);

    const GROUP_AUTHORIZATION_FAILED: i16 = 30;
    let rule = mock.on(Api::TxnOffsetCommit).times(1);
    let rule = rule.fail(GROUP_AUTHORIZATION_FAILED);
    let transaction = producer.begin().await.unwrap();
    transaction.try_send_offsets(offset(4), &group).unwrap();
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.error().kind(), ErrorKind::Authorization);
    assert_eq!((rule.hits(), committed(&mock)), (1, 3));
}

/// Given up after so many polls.
async fn give_up_after<T>(polls: usize, call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    let mut left = polls;
    std::future::poll_fn(|cx| match left.checked_sub(1) {
        None => Poll::Ready(None),
        Some(fewer) => {
            left = fewer;
            call.as_mut().poll(cx).map(Some)
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn calls_given_up_at_any_await_leave_an_outcome_and_the_next_transaction_works() {
    for version in [1, 2] {
        for polls in 0..12 {
            for call in 0..4 {
                let mock = mock(version).await;
                let mut producer = producer(&mock).await;
                let case = format!("protocol {version}, call {call}, {polls} polls");
                // So that the end takes some time.
                mock.on(Api::EndTxn).times(1).delay(SECOND);
                mock.on(Api::TxnOffsetCommit).times(1).delay(SECOND);
                let transaction = producer.begin().await.unwrap();
                drop(transaction.enqueue(record(0, "first")).await.unwrap());
                let offset = (TopicPartition::new("t", 1), OffsetAndMetadata::new(9));
                let group = GroupMetadata::of_group("g");
                let known = match call {
                    0 => {
                        let ended = give_up_after(polls, transaction.commit()).await;
                        ended.map(|ended| ended.map(|()| TransactionOutcome::Committed))
                    }
                    1 => {
                        let ended = give_up_after(polls, transaction.abort()).await;
                        ended.map(|ended| {
                            ended.unwrap();
                            Ok(TransactionOutcome::Aborted)
                        })
                    }
                    2 => {
                        let sent = transaction.send_offsets([offset], &group);
                        drop(give_up_after(polls, sent).await);
                        let ended = transaction.commit().await;
                        Some(ended.map(|()| TransactionOutcome::Committed))
                    }
                    _ => {
                        drop(transaction);
                        drop(give_up_after(polls, producer.begin()).await);
                        None
                    }
                };
                let outcome = producer.settle().await.unwrap();
                if let Some(known) = known {
                    assert_eq!(Some(known.unwrap()), outcome, "{case}");
                }
                let transaction = producer.begin().await.unwrap();
                drop(transaction.enqueue(record(0, "next")).await.unwrap());
                transaction.commit().await.unwrap();
                let expected = match outcome {
                    Some(TransactionOutcome::Committed) => values(0, &["first", "next"]),
                    _ => values(0, &["next"]),
                };
                assert_eq!(seen(&mock), expected, "{case}: {outcome:?}");
                if call == 2 && polls > 0 {
                    let committed = mock.group("g").map(|group| group.offsets.len());
                    assert_eq!(committed, Some(1), "{case}");
                }
            }
        }
    }
}

/// A commit that nobody answers is unknown after `max.block.ms`, and can be asked for again.
#[tokio::test(start_paused = true)]
async fn an_unknown_commit_can_be_settled() {
    for version in [1, 2] {
        let mock = mock(version).await;
        let builder = mock.client().transactional_producer("tx");
        let mut producer = builder.max_block(5 * SECOND).build().await.unwrap();
        let rule = mock.on(Api::EndTxn).apply_then_drop();
        let transaction = producer.begin().await.unwrap();
        drop(transaction.enqueue(record(0, "there")).await.unwrap());
        let error = transaction.commit().await.unwrap_err();
        assert!(matches!(error, CommitError::Unknown(_)), "{error:?}");
        let as_error = Error::from(error);
        assert!(as_error.is_maybe_written() && as_error.is_timeout());
        assert!(producer.settle().await.unwrap_err().is_timeout());
        assert!(producer.try_begin().unwrap_err().is_timeout());
        rule.remove();
        let outcome = producer.settle().await.unwrap();
        assert_eq!(outcome, Some(TransactionOutcome::Committed));
        assert_eq!(seen(&mock), values(0, &["there"]));
    }
}

#[tokio::test(start_paused = true)]
async fn coordinators_and_leaders_may_move_and_die_meanwhile() {
    for version in [1, 2] {
        let mock = mock(version).await;
        let mut producer = producer(&mock).await;
        let mut expected = Vec::new();
        for round in 0..24 {
            let value = format!("{round}");
            let transaction = producer.begin().await.unwrap();
            drop(transaction.enqueue(record(0, &value)).await.unwrap());
            let coordinator = mock.transaction_coordinator("tx").unwrap();
            let next = coordinator % 3 + 1;
            match round % 4 {
                0 => mock.move_transaction_coordinator("tx", next).unwrap(),
                1 => mock.kill(coordinator),
                2 => mock.move_leader("t", 0, next).unwrap(),
                _ => {}
            }
            drop(transaction.enqueue(record(0, &value)).await.unwrap());
            transaction.commit().await.unwrap();
            expected.extend([value.clone(), value]);
            if round % 4 == 1 {
                mock.restart(coordinator).await.unwrap();
            }
        }
        assert_eq!(seen(&mock)[&0], expected, "protocol {version}");
    }
}

/// Dropped with a transaction under way, the producer still ends it.
#[tokio::test(start_paused = true)]
async fn a_dropped_producer_leaves_nothing_open() {
    for version in [1, 2] {
        let mock = mock(version).await;
        let mut producer = producer(&mock).await;
        let transaction = producer.begin().await.unwrap();
        drop(transaction.send(record(0, "given up")).await.unwrap());
        drop(transaction);
        drop(producer);
        tokio::time::sleep(SECOND).await;
        let state = mock.transaction("tx").unwrap().state;
        assert_eq!(state, "CompleteAbort", "protocol {version}");
    }
}
