//! How fetching goes on over time, against the mock cluster on a paused clock: simulated time is
//! exact, so that "not slowed down" can be counted.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures::StreamExt;
use ottla::mock::MockCluster;
use ottla::{
    Batches, Client, Compression, Consumer, ConsumerBuilder, OffsetReset, Record, TopicPartition,
};
use tokio::time::{Instant, sleep, timeout};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// Bytes of a value, and of its record as it is stored.
const VALUE: usize = 1000;
const RECORD: usize = VALUE + 9;

/// One record per value and about `batch` bytes per batch, in partitions `0..partitions` of `t`.
async fn fill(client: &Client, partitions: i32, values: usize, batch: usize) {
    let producer = client
        .producer()
        .batch_size(batch)
        .linger(5 * MILLI)
        .max_in_flight(1)
        .build()
        .unwrap();
    let value = [7; VALUE];
    for partition in 0..partitions {
        let records = (0..values).map(|_| {
            Record::to("t")
                .with_partition(partition)
                .with_value(&value[..])
        });
        producer.enqueue_all(records).await.unwrap().await.unwrap();
    }
    let _ = producer.close_timeout(SECOND).await;
}

fn reader(client: &Client, partitions: i32) -> ConsumerBuilder {
    let assigned = (0..partitions).map(|partition| TopicPartition::new("t", partition));
    let reader = client.reader().assign(assigned);
    reader.offset_reset(OffsetReset::Earliest)
}

fn count_by_partition(batches: &Batches, counts: &mut BTreeMap<i32, usize>) {
    for batch in batches {
        *counts.entry(batch.partition()).or_default() +=
            batch.records().map(Result::unwrap).count();
    }
}

/// Reads `total` records, `work` long for each poll that has some; how long it takes from the first
/// on.
async fn drain(consumer: &mut Consumer, total: usize, work: Duration) -> Duration {
    let mut seen = 0;
    let mut since = None;
    while seen < total {
        let batches = consumer.poll().await.unwrap().unwrap();
        let start = *since.get_or_insert_with(Instant::now);
        seen += batches.record_count();
        if seen == total {
            return start.elapsed();
        }
        sleep(work).await;
    }
    Duration::ZERO
}

const LIMIT: usize = 32 << 10;

/// A broker 50 ms away, and how long it takes to read 6 partitions of `values` records.
async fn far_away(values: usize, work: Duration) -> Duration {
    let mock = MockCluster::builder()
        .topic("t", 6)
        .in_memory()
        .start()
        .await
        .unwrap();
    fill(&mock.client(), 6, values, 4 << 10).await;
    let client = mock.named_client_builder("far").build().unwrap();
    mock.network().client("far").delay(25 * MILLI, 25 * MILLI);
    let builder = reader(&client, 6).max_partition_fetch_bytes(LIMIT as i32);
    let mut consumer = builder.max_poll_records(LIMIT / RECORD).build().unwrap();
    let took = drain(&mut consumer, 6 * values, work).await;
    consumer.close_timeout(SECOND).await.unwrap();
    took
}

#[tokio::test(start_paused = true)]
async fn a_long_round_trip_costs_no_more_than_the_limits_of_a_request() {
    let values = 600;
    // Batches are sent whole: of 4 KiB each, so that up to one less than the limit comes.
    let per_answer = LIMIT - (4 << 10);
    let rounds = (values * RECORD).div_ceil(per_answer) as u32;
    let took = far_away(values, Duration::ZERO).await;
    assert!(
        took <= 50 * MILLI * rounds,
        "{took:?} for {rounds} round trips"
    );
    assert!(
        took >= 50 * MILLI * (rounds / 2),
        "{took:?}: the delay is not there"
    );
}

#[tokio::test(start_paused = true)]
async fn an_application_that_is_slower_than_the_round_trip_never_waits_for_it() {
    let values = 600;
    // 8 ms for what a request may bring of one partition: 48 ms for the six.
    let work = 8 * MILLI;
    let took = far_away(values, work).await;
    let polls = (6 * values).div_ceil(LIMIT / RECORD) as u32;
    assert!(took >= polls * work);
    // The first round trips find it waiting: from afar is not known yet.
    assert!(
        took <= polls * work * 5 / 4 + 100 * MILLI,
        "{took:?} for {polls} polls"
    );
}

#[tokio::test(start_paused = true)]
async fn what_becomes_wanted_during_a_long_poll_does_not_wait_for_its_end() {
    let mock = MockCluster::builder()
        .topic("t", 3)
        .in_memory()
        .start()
        .await
        .unwrap();
    fill(&mock.client(), 3, 10, 4 << 10).await;
    let builder = reader(&mock.client(), 3).fetch_max_wait(20 * SECOND);
    let mut consumer = builder.build().unwrap();
    drain(&mut consumer, 30, Duration::ZERO).await;
    // The fetch that waits for more is under way.
    assert!(timeout(SECOND, consumer.poll()).await.is_err());
    let start = Instant::now();
    consumer.seek(&TopicPartition::new("t", 1), 5).unwrap();
    let batches = consumer.poll().await.unwrap().unwrap();
    assert_eq!(batches.record_count(), 5);
    assert!(start.elapsed() < 20 * MILLI, "{:?}", start.elapsed());
    // And back to one request that waits, with all partitions, once both have ended.
    assert!(timeout(60 * SECOND, consumer.poll()).await.is_err());
    let before = mock.requests();
    assert!(timeout(200 * SECOND, consumer.poll()).await.is_err());
    let requests = mock.requests() - before;
    assert!(requests <= 30, "{requests} requests in 200 s");
    consumer.close_timeout(SECOND).await.unwrap();
}

/// Reads partition 0 of 2, while the broker of the other does nothing, or worse.
async fn beside(trouble: impl Fn(&MockCluster, i32)) -> (Duration, usize) {
    let values = 600;
    let mock = MockCluster::builder()
        .brokers(2)
        .topic("t", 2)
        .in_memory()
        .start()
        .await
        .unwrap();
    fill(&mock.client(), 1, values, 4 << 10).await;
    let other = mock.leader("t", 1).unwrap().0;
    assert_ne!(mock.leader("t", 0).unwrap().0, other);
    let client = mock.named_client_builder("reader").build().unwrap();
    mock.network().client("reader").delay(5 * MILLI, 5 * MILLI);
    let mut consumer = reader(&client, 2)
        .max_partition_fetch_bytes(LIMIT as i32)
        .fetch_max_bytes(4 * LIMIT as i32)
        .build()
        .unwrap();
    let first = consumer.poll().await.unwrap().unwrap().record_count();
    trouble(&mock, other);
    let took = drain(&mut consumer, values - first, MILLI).await;
    let requests = mock.requests() as usize;
    consumer.close_timeout(SECOND).await.unwrap();
    (took, requests)
}

#[tokio::test(start_paused = true)]
async fn an_idle_or_frozen_broker_does_not_slow_the_others() {
    let (idle, _) = beside(|_, _| {}).await;
    let (frozen, _) = beside(|mock, other| mock.pause(other)).await;
    let (cut, _) = beside(|mock, other| mock.network().broker(other).cut()).await;
    // 600 records in 19 answers of 10 ms each, and 600/500 polls of 1 ms.
    assert!(idle < 300 * MILLI, "{idle:?}");
    assert_eq!((frozen, cut), (idle, idle));
}

/// With a budget that two untaken partitions of one broker use up.
#[tokio::test(start_paused = true)]
async fn partitions_that_nobody_takes_do_not_hold_back_another_broker() {
    let mock = MockCluster::builder()
        .brokers(2)
        .topic("t", 4)
        .in_memory()
        .start()
        .await
        .unwrap();
    let values = 400;
    fill(&mock.client(), 4, values, 4 << 10).await;
    let leader = |partition| mock.leader("t", partition).unwrap().0;
    let mut consumer = reader(&mock.client(), 4)
        .max_partition_fetch_bytes(LIMIT as i32)
        .fetch_max_bytes(LIMIT as i32)
        .build()
        .unwrap();
    let mut split = consumer.split_by_partition();
    let (mut taken, mut stalled) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let (tp, stream) = split.next().await.unwrap().unwrap();
        match leader(tp.partition()) == leader(0) {
            true => stalled.push(stream),
            false => taken.push(stream),
        }
    }
    assert_eq!((taken.len(), stalled.len()), (2, 2));
    // All that may be fetched of those that are not taken is here.
    sleep(SECOND).await;
    let taking = taken.into_iter().map(|mut stream| async move {
        let mut seen = 0;
        while seen < values {
            let batch = timeout(10 * SECOND, stream.next()).await;
            seen += batch.unwrap().unwrap().unwrap().record_count();
        }
    });
    futures::future::join_all(taking).await;
    drop(stalled);
}

/// Nor those of their own broker, whose share they use up; and what was dropped of them comes
/// again.
#[tokio::test(start_paused = true)]
async fn partitions_that_nobody_takes_do_not_hold_back_the_others_of_their_broker() {
    let mock = MockCluster::builder()
        .topic("t", 8)
        .in_memory()
        .start()
        .await
        .unwrap();
    let values = 400;
    fill(&mock.client(), 8, values, 4 << 10).await;
    let budget = 2 * LIMIT;
    let mut consumer = reader(&mock.client(), 8)
        .max_partition_fetch_bytes(LIMIT as i32)
        .fetch_max_bytes(budget as i32)
        .build()
        .unwrap();
    let handle = consumer.handle();
    let mut split = consumer.split_by_partition();
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(split.next().await.unwrap().unwrap().1);
    }
    // All that may be fetched of those that are not taken is here.
    sleep(SECOND).await;
    let before = Instant::now();
    for mut stream in streams {
        let mut next = 0;
        while next < values as i64 {
            let batch = timeout(10 * SECOND, stream.next()).await;
            for record in batch.unwrap().unwrap().unwrap().records() {
                assert_eq!(record.unwrap().offset(), next);
                next += 1;
            }
            let metrics = handle.metrics();
            let held = metrics.buffered_bytes + metrics.requested_bytes;
            assert!(held <= (budget + LIMIT) as u64, "{held} bytes");
        }
    }
    // A second each, after which one that is not asked for counts as standing still.
    assert!(before.elapsed() < 8 * SECOND, "{:?}", before.elapsed());
}

/// Beside a partition that nobody takes fetches do not wait at the broker, and the pauses between
/// them are short for the others and not all too many requests.
#[tokio::test(start_paused = true)]
async fn beside_a_partition_that_nobody_takes_records_come_soon() {
    let mock = MockCluster::builder()
        .topic("t", 2)
        .in_memory()
        .start()
        .await
        .unwrap();
    fill(&mock.client(), 1, 400, 4 << 10).await;
    let builder = reader(&mock.client(), 2).max_partition_fetch_bytes(LIMIT as i32);
    let mut consumer = builder.build().unwrap();
    let mut split = consumer.split_by_partition();
    let (_, _stalled) = split.next().await.unwrap().unwrap();
    let (tp, mut stream) = split.next().await.unwrap().unwrap();
    assert_eq!(tp.partition(), 1);
    let client = mock.client();
    let producer = client.producer().build().unwrap();
    for number in 0..100 {
        // At any moment of a pause.
        sleep(SECOND + MILLI * (number % 17)).await;
        let record = Record::to("t").with_partition(1).with_value("v");
        producer.send(record).await.unwrap();
        let sent = Instant::now();
        let batch = timeout(SECOND, stream.next()).await.unwrap();
        assert_eq!(batch.unwrap().unwrap().record_count(), 1);
        assert!(sent.elapsed() <= 12 * MILLI, "{:?}", sent.elapsed());
    }
    let before = mock.requests();
    sleep(10 * SECOND).await;
    let requests = mock.requests() - before;
    assert!((900..1_010).contains(&requests), "{requests} in 10 s");
}

#[tokio::test(start_paused = true)]
async fn partitions_get_their_turn_where_a_request_has_room_for_one_only() {
    let mock = MockCluster::builder()
        .topic("t", 5)
        .in_memory()
        .start()
        .await
        .unwrap();
    fill(&mock.client(), 5, 400, 8 << 10).await;
    // Less than a batch: one batch comes all the same, of the partition that is first in line.
    let builder = reader(&mock.client(), 5).fetch_max_bytes(1000);
    let mut consumer = builder.max_partition_fetch_bytes(1000).build().unwrap();
    let mut counts = BTreeMap::new();
    for _ in 0..100 {
        let batches = consumer.poll().await.unwrap().unwrap();
        count_by_partition(&batches, &mut counts);
    }
    let (least, most) = (
        counts.values().min().unwrap(),
        counts.values().max().unwrap(),
    );
    assert_eq!(counts.len(), 5);
    assert!(most - least <= 16, "{counts:?}");
    consumer.close_timeout(SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_record_larger_than_every_limit_comes() {
    let mock = MockCluster::builder()
        .topic("t", 2)
        .in_memory()
        .start()
        .await
        .unwrap();
    let client = mock.client();
    let producer = client
        .producer()
        .compression(Compression::none())
        .build()
        .unwrap();
    let large = vec![1; 300_000];
    for value in [&large[..], b"small"] {
        for partition in 0..2 {
            let record = Record::to("t").with_partition(partition).with_value(value);
            producer.send(record).await.unwrap();
        }
    }
    let builder = reader(&client, 2)
        .fetch_max_bytes(100)
        .max_partition_fetch_bytes(10);
    let mut consumer = builder.build().unwrap();
    let mut lengths = BTreeMap::<_, Vec<_>>::new();
    while lengths.values().map(Vec::len).sum::<usize>() < 4 {
        for batch in &consumer.poll().await.unwrap().unwrap() {
            for record in batch.records() {
                let lengths = lengths.entry(batch.partition()).or_default();
                lengths.push(record.unwrap().value().unwrap().len());
            }
        }
    }
    assert!(
        lengths.values().all(|lengths| *lengths == [300_000, 5]),
        "{lengths:?}"
    );
    consumer.close_timeout(SECOND).await.unwrap();
}

/// Polls a future so often and gives it up then, unless it was ready before.
async fn give_up_after<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

/// Every way to ask for records, given up after every number of polls: each record comes once, in
/// order.
#[tokio::test(start_paused = true)]
async fn asking_for_records_can_be_given_up_at_any_await() {
    let mock = MockCluster::builder()
        .topic("t", 1)
        .in_memory()
        .start()
        .await
        .unwrap();
    fill(&mock.client(), 1, 100, 2 << 10).await;
    for way in 0..5 {
        for polls in 1..5 {
            let builder = reader(&mock.client(), 1).max_partition_fetch_bytes(5000);
            let mut consumer = builder.max_poll_records(7).build().unwrap();
            let (mut offsets, mut given_up) = (Vec::new(), 0);
            let mut take = |batches: Option<Batches>| {
                let batches = batches.into_iter().flatten();
                let records = batches.flat_map(|batch| batch.owned_records().collect::<Vec<_>>());
                offsets.extend(records.map(|record| record.unwrap().offset()));
                offsets.len()
            };
            let mut had = 0;
            let mut stream_offsets = Vec::new();
            while had < 100 {
                let outcome = match way {
                    0 => give_up_after(consumer.poll(), polls)
                        .await
                        .map(|some| some.unwrap()),
                    1 => give_up_after(consumer.poll_timeout(SECOND), polls)
                        .await
                        .map(|some| some.unwrap()),
                    2 => give_up_after(consumer.next_event(), polls)
                        .await
                        .map(|event| match event.unwrap() {
                            Some(ottla::Event::Records(batches)) => Some(batches),
                            _ => None,
                        }),
                    3 => {
                        // A stream that is dropped gives back what it did not hand out, and what it
                        // handed out last unless the application is done with that.
                        let mut stream = consumer.stream();
                        let next = give_up_after(stream.next(), polls).await;
                        drop(stream);
                        if next.is_some() {
                            consumer.finish();
                        }
                        stream_offsets.extend(
                            next.iter()
                                .flatten()
                                .map(|record| record.as_ref().unwrap().offset()),
                        );
                        next.map(|_| None)
                    }
                    _ => {
                        let mut split = consumer.split_by_partition();
                        let next = give_up_after(split.next(), polls).await;
                        if let Some(Some(Ok((_, mut batches)))) = next {
                            let batch = give_up_after(batches.next(), polls).await.flatten();
                            let records = batch
                                .iter()
                                .flat_map(|batch| batch.as_ref().unwrap().records());
                            stream_offsets.extend(records.map(|record| record.unwrap().offset()));
                            // Nobody offers more: it ends, and is done with what it had.
                            drop(split);
                            assert!(batches.next().await.is_none());
                        }
                        None
                    }
                };
                if outcome.is_none() {
                    given_up += 1;
                    sleep(MILLI).await;
                }
                had = take(outcome.flatten()).max(stream_offsets.len());
                assert!(given_up < 10_000, "way {way}, {polls} polls: {had} records");
            }
            offsets.append(&mut stream_offsets);
            assert_eq!(
                offsets,
                (0..100).collect::<Vec<i64>>(),
                "way {way}, {polls} polls"
            );
            consumer.close_timeout(SECOND).await.unwrap();
        }
    }
}
