//! Streams: what they give back when they are dropped, what waits for them, and what they hold
//! back. Against the mock cluster on a paused clock.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use futures::StreamExt;
use ottla::mock::MockCluster;
use ottla::{
    Client, Consumer, Explanation, OffsetReset, OwnedRecord, PartitionBatch, PartitionStream,
    Record, TopicPartition,
};
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

async fn cluster(records: usize) -> MockCluster {
    let mock = MockCluster::builder().topic("t", 1).in_memory().seed(6);
    let mock = mock.start().await.unwrap();
    write(&mock, records).await;
    mock
}

/// Each in a batch of its own.
async fn write(mock: &MockCluster, records: usize) {
    let producer = mock.client().producer().build().unwrap();
    for _ in 0..records {
        let record = Record::to("t").with_partition(0).with_value("v");
        producer.send(record).await.unwrap();
    }
}

fn tp() -> TopicPartition {
    TopicPartition::new("t", 0)
}

async fn consumer(client: &Client) -> Consumer {
    let builder = client.consumer("g").subscribe(["t"]);
    let builder = builder
        .offset_reset(OffsetReset::Earliest)
        .auto_commit_interval(50 * MILLI)
        .max_poll_records(10);
    builder.build().unwrap()
}

fn committed(mock: &MockCluster) -> i64 {
    let offsets = mock.group("g").unwrap().offsets;
    offsets.first().map_or(0, |(_, offset)| *offset)
}

fn offsets(batch: &PartitionBatch) -> Vec<i64> {
    let records = batch.records();
    records.map(|record| record.unwrap().offset()).collect()
}

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(30 * SECOND, future).await.unwrap()
}

async fn next_batch(batches: &mut PartitionStream) -> PartitionBatch {
    soon(batches.next()).await.unwrap().unwrap()
}

async fn next_record(records: &mut ottla::RecordStream<'_>) -> OwnedRecord {
    soon(records.next()).await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_partition_whose_task_failed_is_offered_again_from_where_it_failed() {
    let mock = cluster(30).await;
    let mut consumer = consumer(&mock.client()).await;
    let handle = consumer.handle();
    let mut partitions = consumer.split_by_partition();
    let (_, mut batches) = soon(partitions.next()).await.unwrap().unwrap();
    assert_eq!(batches.attempt(), 0);
    assert_eq!(
        offsets(&next_batch(&mut batches).await),
        (0..10).collect::<Vec<_>>()
    );
    assert_eq!(
        offsets(&next_batch(&mut batches).await),
        (10..20).collect::<Vec<_>>()
    );
    let explained = handle.explain(&tp());
    assert!(
        matches!(explained, Explanation::ReadyForStream { attempt: 0, .. }),
        "{explained}"
    );
    drop(batches);
    let mut pauses = Vec::new();
    for attempt in 1..7 {
        let dropped = Instant::now();
        match handle.explain(&tp()) {
            Explanation::StreamDropped {
                offset: 10,
                attempt: told,
                ..
            } => assert_eq!(told, attempt),
            other => panic!("{other}"),
        }
        assert_eq!(handle.position(&tp()), Some(10));
        let (_, mut batches) = soon(partitions.next()).await.unwrap().unwrap();
        pauses.push(dropped.elapsed().as_millis());
        assert_eq!(batches.attempt(), attempt);
        assert_eq!(
            offsets(&next_batch(&mut batches).await),
            (10..20).collect::<Vec<_>>()
        );
    }
    assert!(
        pauses.is_sorted() && pauses[0] >= 100 && pauses[5] <= 1010,
        "{pauses:?}"
    );
    sleep(SECOND).await;
    assert_eq!(committed(&mock), 10);
    // One that was asked for more has nothing to give back.
    let (_, mut batches) = soon(partitions.next()).await.unwrap().unwrap();
    next_batch(&mut batches).await;
    next_batch(&mut batches).await;
    assert!(timeout(SECOND, batches.next()).await.is_err());
    drop(batches);
    let (_, mut batches) = soon(partitions.next()).await.unwrap().unwrap();
    assert_eq!(batches.attempt(), 8);
    write(&mock, 1).await;
    assert_eq!(offsets(&next_batch(&mut batches).await), [30]);
    assert_eq!(committed(&mock), 30);
}

#[tokio::test(start_paused = true)]
async fn what_an_old_stream_has_in_hand_nobody_else_is_given() {
    for polled in [true, false] {
        for finished in [true, false] {
            let mock = cluster(20).await;
            let mut consumer = consumer(&mock.client()).await;
            let mut partitions = consumer.split_by_partition();
            let (_, mut old) = soon(partitions.next()).await.unwrap().unwrap();
            let batch = next_batch(&mut old).await;
            drop(partitions);
            // Neither by a poll nor by another split, for as long as the old one works on it.
            if polled {
                let nothing = consumer.poll_timeout(5 * SECOND).await.unwrap().unwrap();
                assert!(nothing.is_empty());
            } else {
                let mut partitions = consumer.split_by_partition();
                assert!(timeout(5 * SECOND, partitions.next()).await.is_err());
            }
            consumer.finish();
            sleep(SECOND).await;
            assert_eq!(
                committed(&mock),
                0,
                "it is for the old one to finish with it"
            );
            assert_eq!(offsets(&batch).len(), 10);
            if finished {
                assert!(soon(old.next()).await.is_none(), "it ends");
            }
            drop(old);
            let next = if finished { 10 } else { 0 };
            let first = if polled {
                let batches = soon(consumer.poll()).await.unwrap().unwrap();
                offsets(&batches.into_iter().next().unwrap())[0]
            } else {
                let mut partitions = consumer.split_by_partition();
                let (_, mut batches) = soon(partitions.next()).await.unwrap().unwrap();
                assert_eq!(batches.attempt(), u32::from(!finished));
                offsets(&next_batch(&mut batches).await)[0]
            };
            assert_eq!(first, next, "polled {polled}, finished {finished}");
            sleep(SECOND).await;
            assert_eq!(committed(&mock), next);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_waits_for_an_old_stream_though_its_consumer_polls() {
    let mock = cluster(20).await;
    let mut first = consumer(&mock.client()).await;
    let mut partitions = first.split_by_partition();
    let (_, mut old) = soon(partitions.next()).await.unwrap().unwrap();
    next_batch(&mut old).await;
    drop(partitions);
    // Another topic's subscriber gives the partition up.
    first.subscribe(["u"]).unwrap();
    let mut second = consumer(&mock.client()).await;
    for _ in 0..100 {
        first.poll_timeout(MILLI * 100).await.unwrap();
        let batches = second.poll_timeout(MILLI * 100).await.unwrap().unwrap();
        assert!(batches.is_empty(), "the old stream still has it");
    }
    assert!(soon(old.next()).await.is_none());
    let mut mine = Vec::new();
    while mine.is_empty() {
        first.poll_timeout(MILLI * 100).await.unwrap();
        let batches = second.poll_timeout(MILLI * 100).await.unwrap().unwrap();
        mine.extend(batches.iter().flat_map(offsets));
    }
    assert_eq!(mine[0], 10);
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_streams_that_have_something_in_hand_but_not_for_ever() {
    for (work, end) in [(2, 10), (4, 0)] {
        let mock = cluster(20).await;
        let mut consumer = consumer(&mock.client()).await;
        let mut partitions = consumer.split_by_partition();
        let (_, mut batches) = soon(partitions.next()).await.unwrap().unwrap();
        let (taken, has_it) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let batch = batches.next().await.unwrap().unwrap();
            taken.send(()).unwrap();
            sleep(work * SECOND).await;
            drop(batch);
            assert!(batches.next().await.is_none());
        });
        has_it.await.unwrap();
        drop(partitions);
        let before = Instant::now();
        consumer.close_timeout(6 * SECOND).await.unwrap();
        assert!(before.elapsed() >= SECOND * work.min(3) && before.elapsed() < 4 * SECOND);
        assert_eq!(committed(&mock), end, "{work} s of work");
        assert_eq!(mock.group("g").unwrap().members.len(), 0);
        soon(task).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn records_in_use_hold_back_the_commits_of_their_partition_and_nothing_else_does() {
    let mock = cluster(100).await;
    let mut consumer = consumer(&mock.client()).await;
    let handle = consumer.handle();
    let mut records = consumer.stream();
    let first = next_record(&mut records).await;
    for offset in 1..100 {
        assert_eq!(next_record(&mut records).await.offset(), offset);
    }
    // All others are done, and more is asked for.
    assert!(timeout(5 * SECOND, records.next()).await.is_err());
    assert_eq!(committed(&mock), 0);
    // A clone is a use, too.
    let clone = first.clone();
    drop(first);
    assert!(timeout(5 * SECOND, records.next()).await.is_err());
    assert_eq!(committed(&mock), 0);
    // It is noticed though nothing comes and nobody asks anew.
    let waiting = async {
        sleep(SECOND).await;
        drop(clone);
        sleep(SECOND).await;
        committed(&mock)
    };
    let committed_then = tokio::select! {
        committed = waiting => committed,
        _ = records.next() => panic!("nothing comes"),
    };
    assert_eq!(committed_then, 100);
    // One that is kept in the middle holds back what is from it on.
    write(&mock, 20).await;
    let mut kept = Vec::new();
    for offset in 100..120 {
        let record = next_record(&mut records).await;
        if offset == 105 || offset == 110 {
            kept.push(record);
        }
    }
    assert!(timeout(SECOND, records.next()).await.is_err());
    assert_eq!(committed(&mock), 105);
    kept.remove(0);
    assert!(timeout(SECOND, records.next()).await.is_err());
    assert_eq!(committed(&mock), 110);
    // It counts as in use when the stream is dropped; what comes after it is given out again.
    drop(records);
    drop(kept);
    assert_eq!(handle.position(&tp()), Some(120));
    let mut records = consumer.stream();
    assert_eq!(next_record(&mut records).await.offset(), 110);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_waits_notices_that_records_are_not_in_use_any_more() {
    let mock = cluster(2).await;
    let mut consumer = consumer(&mock.client()).await;
    let (give, given) = tokio::sync::oneshot::channel();
    let waiting = tokio::spawn(async move {
        let mut records = consumer.stream();
        let both = [
            next_record(&mut records).await,
            next_record(&mut records).await,
        ];
        assert!(give.send(both).is_ok());
        records.next().await
    });
    let both = given.await.unwrap();
    sleep(SECOND).await;
    assert_eq!(committed(&mock), 0);
    drop(both);
    sleep(SECOND).await;
    assert_eq!(committed(&mock), 2);
    waiting.abort();
}

#[test]
fn closing_keeps_its_time_though_nobody_runs_the_clients_runtime() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    let stopped = runtime();
    let (_mock, consumer) = stopped.block_on(async {
        let mock = cluster(1).await;
        let consumer = consumer(&mock.client()).await;
        (mock, consumer)
    });
    let closed = runtime().block_on(soon(consumer.close_timeout(SECOND)));
    assert_eq!(closed.unwrap_err().kind(), ottla::ErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn the_record_at_which_a_stream_was_left_comes_again_unless_the_application_is_done_with_it()
{
    for (way, next, end) in [(0, 4, 4), (1, 5, 5), (2, 5, 5)] {
        let mock = cluster(20).await;
        let mut consumer = consumer(&mock.client()).await;
        let mut records = consumer.stream();
        for offset in 0..5 {
            assert_eq!(next_record(&mut records).await.offset(), offset);
        }
        drop(records);
        match way {
            0 => {}
            1 => consumer.finish(),
            _ => consumer.commit().await.unwrap(),
        }
        sleep(SECOND).await;
        assert_eq!(committed(&mock), end);
        let first = match way {
            1 => {
                let batches = soon(consumer.poll()).await.unwrap().unwrap();
                offsets(&batches.into_iter().next().unwrap())[0]
            }
            _ => next_record(&mut consumer.stream()).await.offset(),
        };
        assert_eq!(first, next, "way {way}");
    }
    // One that was never asked for anything changes nothing.
    let mock = cluster(20).await;
    let mut consumer = consumer(&mock.client()).await;
    soon(consumer.poll()).await.unwrap();
    drop(consumer.stream());
    assert_eq!(next_record(&mut consumer.stream()).await.offset(), 10);
}

#[test]
fn whoever_waits_when_the_clients_runtime_ends_is_told() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    for way in 0..9 {
        let first = runtime();
        let (mock, mut consumer) = first.block_on(async {
            let mock = cluster(10).await;
            let mut consumer = consumer(&mock.client()).await;
            soon(consumer.poll()).await.unwrap();
            (mock, consumer)
        });
        drop(first);
        let error = runtime().block_on(soon(async {
            match way {
                0 => consumer.poll().await.map(|_| ()),
                1 => consumer.next_event().await.map(|_| ()),
                2 => consumer.stream().next().await.unwrap().map(|_| ()),
                3 => {
                    let mut partitions = consumer.split_by_partition();
                    partitions.next().await.unwrap().map(|_| ())
                }
                4 => consumer.commit().await,
                5 => consumer.commit_async().await,
                6 => consumer.fetch_lag().await.map(|_| ()),
                7 => {
                    assert!(consumer.watch_lag(SECOND).next().await.is_none());
                    consumer.close_timeout(SECOND).await
                }
                _ => consumer.close_timeout(Duration::MAX).await,
            }
        }));
        let error = error.unwrap_err();
        assert!(error.to_string().contains("runtime"), "way {way}: {error}");
        assert!(error.is_fatal());
        assert_eq!(committed(&mock), 0);
    }
}

/// An offset in the middle of a batch is kept with the leader epoch of that batch (KIP-320): with
/// an older one a broker would take the records since for a log that was cut off.
#[tokio::test(start_paused = true)]
async fn what_a_stream_finished_within_a_batch_has_the_epoch_of_the_batch() {
    let mock = MockCluster::builder().brokers(2).topic("t", 1).in_memory();
    let mock = mock.seed(6).start().await.unwrap();
    write(&mock, 2).await;
    let (leader, before) = mock.leader("t", 0).unwrap();
    mock.move_leader("t", 0, 3 - leader).unwrap();
    let (_, epoch) = mock.leader("t", 0).unwrap();
    assert!(epoch > before);
    let producer = mock.client().producer().linger(SECOND).build();
    let producer = producer.unwrap();
    let records = (0..4).map(|_| Record::to("t").with_partition(0).with_value("v"));
    drop(producer.enqueue_all(records).await.unwrap());
    producer.flush().await.unwrap();
    let mut consumer = consumer(&mock.client()).await;
    let mut records = consumer.stream();
    for expected in 0..4 {
        assert_eq!(next_record(&mut records).await.offset(), expected);
    }
    drop(records);
    consumer.close_timeout(10 * SECOND).await.unwrap();
    let offsets = mock.client().admin().group_offsets("g").await.unwrap();
    let kept = &offsets[&tp()];
    // The last one was not finished: nothing was asked for after it.
    assert_eq!((kept.offset(), kept.leader_epoch()), (3, Some(epoch)));
}
