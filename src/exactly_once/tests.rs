//! Reading, processing and writing on the mock cluster, on a paused clock.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::{TransactionalBatches, TransactionalConsumer};
use crate::error::{Error, ErrorKind, Result};
use crate::mock::{Api, MockCluster};
use crate::producer::TransactionOutcome;
use crate::{Client, GroupProtocol, OffsetReset, Record, TopicPartition};

const SECOND: Duration = Duration::from_secs(1);
const SESSION: Duration = Duration::from_secs(6);
const PARTITIONS: i32 = 3;
const RECORDS: i64 = 40;
const REQUEST_TIMED_OUT: i16 = 7;
const MESSAGE_TOO_LARGE: i16 = 10;

/// A cluster with records in the topic `in`.
async fn mock() -> MockCluster {
    let builder = MockCluster::builder()
        .brokers(2)
        .topic("in", PARTITIONS as u32)
        .topic("out", PARTITIONS as u32)
        .group_timeouts(SESSION, SECOND)
        .in_memory()
        .seed(11);
    let mock = builder.start().await.unwrap();
    let producer = mock.client().producer().build().unwrap();
    for number in 0..RECORDS {
        for partition in 0..PARTITIONS {
            let value = number.to_string();
            let record = Record::to("in").with_partition(partition);
            drop(producer.enqueue(record.with_value(&value)).await.unwrap());
        }
    }
    producer.close().await.unwrap();
    mock
}

async fn consumer_of(client: &Client, id: &str, records: usize) -> TransactionalConsumer {
    let producer = client.transactional_producer(id).build().await.unwrap();
    let consumer = client
        .consumer("g")
        .subscribe(["in"])
        .offset_reset(OffsetReset::Earliest)
        .max_poll_records(records)
        .max_poll_interval(20 * SECOND);
    TransactionalConsumer::new(consumer, producer).unwrap()
}

async fn copy(read: &TransactionalBatches<'_>) -> Result<()> {
    for batch in read.batches() {
        for record in batch {
            let copy = Record::to("out").with_partition(batch.partition());
            let value = record?.value().unwrap_or_default().to_vec();
            drop(read.enqueue(copy.with_value(&value)).await?);
        }
    }
    Ok(())
}

/// How many records were copied, if they were, in order and once.
fn copied(mock: &MockCluster) -> i64 {
    let mut all = 0;
    for partition in 0..PARTITIONS {
        let records = mock.committed_records("out", partition);
        let values = records
            .iter()
            .map(|record| record.value().unwrap().to_vec());
        let values: Vec<_> = values.collect();
        let count = i64::try_from(values.len()).unwrap();
        let expected: Vec<_> = (0..count)
            .map(|number| number.to_string().into_bytes())
            .collect();
        assert_eq!(values, expected, "out-{partition}");
        all += count;
    }
    all
}

/// What the group has committed.
fn committed(mock: &MockCluster) -> i64 {
    let offsets = mock.group("g").map(|group| group.offsets);
    offsets.iter().flatten().map(|(_, offset)| offset).sum()
}

async fn copy_all(consumer: &mut TransactionalConsumer, mock: &MockCluster) {
    while committed(mock) < RECORDS * i64::from(PARTITIONS) {
        let read = consumer.poll().await.unwrap().unwrap();
        let outcome = copy(&read).await;
        read.end(outcome).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn however_a_round_ends_what_is_seen_is_the_input_once() {
    let mock = mock().await;
    let client = mock.client();
    let mut consumer = consumer_of(&client, "tx", 7).await;
    let mut round = 0;
    while copied(&mock) < RECORDS * i64::from(PARTITIONS) {
        round += 1;
        let before = copied(&mock);
        let read = consumer.poll().await.unwrap().unwrap();
        let records = read.batches().record_count() as i64;
        assert!(records <= 7);
        let sent = copy(&read).await;
        match round % 6 {
            0 => {
                let outcome = read.commit().await.unwrap();
                assert_eq!(outcome, TransactionOutcome::Committed);
                assert_eq!(copied(&mock), before + records);
            }
            1 => drop(read),
            2 => read.abort().await.unwrap(),
            3 => {
                let failed = Err(AnyError::from(std::io::Error::other("the application's")));
                let failed = read.end(failed).await.unwrap_err();
                assert_eq!(failed.0, "the application's");
            }
            4 => {
                // A record that cannot be written is no error of the application.
                let rule = mock.on(Api::Produce).fail(MESSAGE_TOO_LARGE);
                let big = Record::to("out").with_partition(0).with_value("big");
                let refused = read.send(big).await.map(drop);
                assert!(refused.is_err());
                let outcome = read.end(refused).await.unwrap();
                assert_eq!(outcome, TransactionOutcome::Aborted);
                rule.remove();
            }
            _ => {
                assert_eq!(read.end(sent).await.unwrap(), TransactionOutcome::Committed);
                assert_eq!(copied(&mock), before + records);
            }
        }
        assert_eq!(committed(&mock), copied(&mock), "round {round}");
    }
    consumer.close().await.unwrap();
}

/// An error of the application.
#[derive(Debug)]
struct AnyError(String);

impl<E: std::error::Error> From<E> for AnyError {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

#[tokio::test(start_paused = true)]
async fn lost_answers_abort_or_commit_and_copy_nothing_twice() {
    for api in [
        Api::AddOffsetsToTxn,
        Api::TxnOffsetCommit,
        Api::EndTxn,
        Api::Produce,
        Api::InitProducerId,
    ] {
        for skip in 0..3 {
            let mock = mock().await;
            mock.on(api).skip(skip).times(1).apply_then_drop();
            mock.on(api).skip(skip + 4).times(1).drop_connection();
            mock.on(api).skip(skip + 7).times(1).fail(REQUEST_TIMED_OUT);
            let mut consumer = consumer_of(&mock.client(), "tx", 9).await;
            copy_all(&mut consumer, &mock).await;
            assert_eq!(copied(&mock), committed(&mock), "{api:?} {skip}");
            consumer.close().await.unwrap();
        }
    }
}

/// Each call is dropped after so many looks at it, of which there are the more the longer it runs.
#[tokio::test(start_paused = true)]
async fn whatever_is_cancelled_what_is_seen_is_the_input_once() {
    let mock = mock().await;
    let mut consumer = consumer_of(&mock.client(), "tx", 5).await;
    let mut patience = 0;
    while copied(&mock) < RECORDS * i64::from(PARTITIONS) {
        patience += 1;
        let Some(read) = within(patience % 17, consumer.poll()).await else {
            continue;
        };
        let read = read.unwrap().unwrap();
        copy(&read).await.unwrap();
        match patience % 3 {
            0 => drop(within(patience % 23, read.abort()).await),
            1 => drop(within(patience % 29, read.end(Ok::<_, Error>(()))).await),
            _ => drop(within(patience % 31, read.commit()).await),
        }
        // What was committed in the background is found by the next poll.
        assert!(copied(&mock) >= committed(&mock));
    }
    assert!(patience > 30, "{patience}");
    consumer.close().await.unwrap();
    assert_eq!(committed(&mock), copied(&mock));
}

/// The outcome of a future that is looked at so often at most.
async fn within<F: Future>(looks: u32, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = looks;
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn who_was_thrown_out_and_came_back_commits_nothing_of_before() {
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let mock = mock().await;
        let client = mock.named_client_builder("slow").build().unwrap();
        let producer = client.transactional_producer("one").build().await.unwrap();
        let consumer = client
            .consumer("g")
            .subscribe(["in"])
            .group_protocol(protocol)
            .offset_reset(OffsetReset::Earliest)
            .max_poll_records(10);
        let consumer = match protocol {
            GroupProtocol::Classic => consumer.session_timeout(SESSION),
            _ => consumer,
        };
        let mut slow = TransactionalConsumer::new(consumer, producer).unwrap();
        let handle = slow.handle();
        let read = slow.poll().await.unwrap().unwrap();
        let before = handle.group_metadata();
        copy(&read).await.unwrap();
        // It is cut off from the coordinator; another member copies everything, and leaves.
        let apis = [Api::Heartbeat, Api::JoinGroup, Api::ConsumerGroupHeartbeat];
        let cut = apis.map(|api| {
            let rule = mock.on(api).when(|request| request.client_id == "slow");
            rule.drop_connection()
        });
        tokio::time::sleep(2 * SESSION).await;
        let mut other = consumer_of(&mock.client(), "two", 500).await;
        copy_all(&mut other, &mock).await;
        other.close().await.unwrap();
        // It is a member again, and does not know yet that what it holds is not its own.
        for rule in cut {
            rule.remove();
        }
        tokio::time::sleep(SESSION).await;
        while handle.assignment().len() < PARTITIONS as usize {
            tokio::time::sleep(SECOND).await;
        }
        assert_eq!(handle.group_metadata(), before);
        // Nor does it go back to where it was.
        let error = handle.seek(&TopicPartition::new("in", 0), 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Group, "{error}");
        let outcome = read.commit().await.unwrap();
        assert_eq!(outcome, TransactionOutcome::Aborted, "{protocol}");
        assert_eq!(copied(&mock), RECORDS * i64::from(PARTITIONS));
        // It goes on where the other one was.
        let producer = client.producer().build().unwrap();
        let more = Record::to("in").with_partition(1).with_value("40");
        producer.send(more).await.unwrap();
        while copied(&mock) == RECORDS * i64::from(PARTITIONS) {
            let read = slow.poll().await.unwrap().unwrap();
            let outcome = copy(&read).await;
            read.end(outcome).await.unwrap();
        }
        assert_ne!(handle.group_metadata(), before);
    }
}

/// Only the client takes the membership for lost: the group takes the offsets all the same.
#[tokio::test(start_paused = true)]
async fn what_is_committed_after_a_loss_is_not_read_again() {
    let mock = mock().await;
    // Who leads the group joins first: others that come back change nothing.
    let other = mock.client().consumer("g").subscribe(["in"]);
    let range = || [std::sync::Arc::new(crate::RangeAssignor) as _];
    let other = other.session_timeout(SESSION).auto_commit(false);
    let other = other.partition_assignment_strategy(range());
    let mut other = other.build().unwrap();
    let others = other.handle();
    tokio::spawn(async move { while other.poll().await.unwrap().is_some() {} });
    while others.assignment().len() < PARTITIONS as usize {
        tokio::time::sleep(SECOND).await;
    }
    let client = mock.named_client_builder("slow").build().unwrap();
    let producer = client.transactional_producer("tx").build().await.unwrap();
    let consumer = client.consumer("g").subscribe(["in"]).max_poll_records(10);
    let consumer = consumer.offset_reset(OffsetReset::Earliest);
    let consumer = consumer.session_timeout(SESSION);
    let consumer = consumer.partition_assignment_strategy(range());
    let mut slow = TransactionalConsumer::new(consumer, producer).unwrap();
    let handle = slow.handle();
    let read = slow.poll().await.unwrap().unwrap();
    copy(&read).await.unwrap();
    let before = handle.group_metadata();
    let deaf = mock.on(Api::Heartbeat);
    let deaf = deaf.when(|request| request.client_id == "slow");
    let deaf = deaf.apply_then_drop();
    tokio::time::sleep(2 * SESSION).await;
    deaf.remove();
    tokio::time::sleep(SESSION).await;
    let mine = handle.assignment();
    assert!(!mine.is_empty());
    let outcome = read.commit().await.unwrap();
    assert_eq!(outcome, TransactionOutcome::Committed);
    assert_eq!(handle.group_metadata(), before);
    while committed(&mock) < RECORDS * mine.len() as i64 {
        let read = slow.poll().await.unwrap().unwrap();
        let outcome = copy(&read).await;
        read.end(outcome).await.unwrap();
    }
    assert_eq!(copied(&mock), committed(&mock));
}

#[tokio::test(start_paused = true)]
async fn a_successor_goes_on_and_the_one_before_is_shut_out() {
    let mock = mock().await;
    let client = mock.client();
    let mut one = consumer_of(&client, "tx", 10).await;
    for _ in 0..3 {
        let read = one.poll().await.unwrap().unwrap();
        let outcome = copy(&read).await;
        read.end(outcome).await.unwrap();
    }
    let read = one.poll().await.unwrap().unwrap();
    copy(&read).await.unwrap();
    let mut two = consumer_of(&mock.client(), "tx", 10).await;
    let error = read.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    let error = one.poll().await.unwrap_err();
    assert!(error.is_fatal(), "{error}");
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    drop(one);
    copy_all(&mut two, &mock).await;
    assert_eq!(copied(&mock), committed(&mock));
}

#[tokio::test(start_paused = true)]
async fn partitions_of_ones_own_choice_need_a_group() {
    let mock = mock().await;
    let client = mock.client();
    let partitions = || (0..PARTITIONS).map(|partition| TopicPartition::new("in", partition));
    let producer = client.transactional_producer("tx").build().await.unwrap();
    let reader = client.reader().assign(partitions());
    let error = TransactionalConsumer::new(reader, producer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("group.id"), "{error}");

    let producer = client.transactional_producer("tx").build().await.unwrap();
    let consumer = client.consumer("g").assign(partitions());
    let consumer = consumer.offset_reset(OffsetReset::Earliest);
    let mut consumer = TransactionalConsumer::new(consumer, producer).unwrap();
    copy_all(&mut consumer, &mock).await;
    consumer.close().await.unwrap();
    let read: BTreeMap<_, _> = mock.group("g").unwrap().offsets.into_iter().collect();
    assert_eq!(read.len(), PARTITIONS as usize);
}
