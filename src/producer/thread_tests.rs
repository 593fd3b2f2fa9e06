//! The producer used by tasks on several threads, in real time, for many rounds: slots, ready
//! lists, the budget and forgotten topics. What each type promises by itself is modelled in
//! `tests/models/`; slots hold too much for that.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::mock::MockCluster;

/// Who waits so long waits for ever: nothing here takes a second.
const PATIENCE: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 6;
const TASKS: usize = 8;

async fn mock() -> MockCluster {
    let builder = MockCluster::builder().brokers(3).in_memory();
    let builder = builder.topic("t", PARTITIONS as u32);
    builder.start().await.unwrap()
}

fn patient(mock: &MockCluster) -> ProducerBuilder {
    let builder = mock.client().producer().delivery_timeout(4 * PATIENCE);
    builder.max_block(4 * PATIENCE)
}

/// Sends numbers to partitions in turn; awaits every record, some, or none.
async fn sends(producer: Producer, task: usize, records: usize) {
    let mut last = None;
    for number in 0..records {
        let value = format!("{task}:{number}");
        let partition = (task + number) as i32 % PARTITIONS;
        let record = Record::to("t").with_partition(partition).with_value(&value);
        let sent = timeout(PATIENCE, producer.enqueue(record)).await;
        let delivery = sent.expect("send waits for ever").unwrap();
        if number % (task + 1) == 0 {
            let end = timeout(PATIENCE, delivery).await;
            end.expect("nobody looks at a batch").unwrap();
        } else {
            last = Some(delivery);
        }
    }
    if let Some(delivery) = last {
        let end = timeout(PATIENCE, delivery).await;
        end.expect("nobody looks at the last batch").unwrap();
    }
}

/// Each task's records are in each partition once, in their order.
fn assert_written(mock: &MockCluster, tasks: usize, records: usize) {
    let mut count = 0;
    for partition in 0..PARTITIONS {
        let mut last = BTreeMap::new();
        for record in mock.records("t", partition) {
            let text = std::str::from_utf8(record.value().unwrap()).unwrap();
            let (task, number) = text.split_once(':').unwrap();
            let (task, number): (usize, usize) = (task.parse().unwrap(), number.parse().unwrap());
            let before = last.insert(task, number);
            assert!(
                before < Some(number),
                "{text} after {before:?} in {partition}"
            );
            count += 1;
        }
    }
    assert_eq!(count, tasks * records);
}

async fn all(producer: &Producer, records: usize) {
    let tasks = (0..TASKS).map(|task| tokio::spawn(sends(producer.clone(), task, records)));
    let tasks: Vec<_> = tasks.collect();
    for task in tasks {
        task.await.unwrap();
    }
    let flushed = timeout(PATIENCE, producer.flush()).await;
    flushed.expect("flush waits for ever").unwrap();
    assert_eq!(producer.buffered_bytes(), 0);
}

/// Batches of every size, with lingers and without, while memory is short and leaders move.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_batch_is_left_without_a_look() {
    const RECORDS: usize = 150;
    for round in 0..12 {
        let mock = mock().await;
        let builder = patient(&mock).linger(Duration::from_micros(700 * (round % 3)));
        let builder = builder.batch_size([60, 200, 4_000][round as usize / 3 % 3]);
        let producer = builder.buffer_memory(3_000).build().unwrap();
        let moving = tokio::spawn({
            let mock = mock.clone();
            async move {
                for turn in 0.. {
                    mock.move_leader("t", turn % PARTITIONS, 1 + turn % 3)
                        .unwrap();
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
        all(&producer, RECORDS).await;
        moving.abort();
        assert_written(&mock, TASKS, RECORDS);
        producer.close_timeout(PATIENCE).await.unwrap();
    }
}

/// A record opens a batch at the moment at which its sender looks because a linger is over that a
/// flush cut short.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_batch_that_lingers_is_not_left_alone() {
    const ROUNDS: u64 = 400;
    let mock = mock().await;
    let linger = Duration::from_millis(1);
    let partitions = (0..PARTITIONS).map(|partition| {
        let builder = patient(&mock).linger(linger);
        tokio::spawn(async move {
            let producer = builder.build().unwrap();
            let record = || Record::to("t").with_partition(partition).with_value("v");
            producer.send(record()).await.unwrap();
            for round in 0..ROUNDS {
                let cut_short = producer.enqueue(record()).await.unwrap();
                producer.flush().await.unwrap();
                // From another moment on in each round, within the two milliseconds in which the
                // timer fires.
                let until = std::time::Duration::from_micros(round * 37 % 2_000);
                let began = now();
                while began.elapsed() < until {
                    tokio::task::yield_now().await;
                }
                let end = timeout(PATIENCE / 4, producer.send(record())).await;
                end.expect("a batch is left alone").unwrap();
                cut_short.await.unwrap();
            }
        })
    });
    for partition in futures::future::join_all(partitions).await {
        partition.unwrap();
    }
}

/// A topic is forgotten whenever nothing of it is in line, by which every slot is replaced again
/// and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_topic_may_be_forgotten_at_any_moment() {
    const RECORDS: usize = 400;
    let mut forgotten = 0;
    for _ in 0..6 {
        let mock = mock().await;
        let producer = patient(&mock).linger(Duration::ZERO).build().unwrap();
        let forgetting = std::thread::spawn({
            let shared = Arc::clone(producer.shared());
            move || {
                let mut times = 0;
                while !shared.tasks.is_stopping() {
                    times += shared.forget_idle(Duration::ZERO);
                    std::thread::sleep(Duration::from_micros(200));
                }
                times
            }
        });
        // Two, each with one record at a time: often there is nothing in line.
        let tasks = [0, 1].map(|task| {
            let producer = producer.clone();
            tokio::spawn(async move {
                for number in 0..RECORDS {
                    let value = format!("{task}:{number}");
                    let partition = (task + number) as i32 % PARTITIONS;
                    let record = Record::to("t").with_partition(partition).with_value(&value);
                    let end = timeout(PATIENCE, producer.send(record)).await;
                    end.expect("nobody looks at a record").unwrap();
                }
            })
        });
        for task in tasks {
            task.await.unwrap();
        }
        assert_written(&mock, 2, RECORDS);
        producer.close_timeout(PATIENCE).await.unwrap();
        forgotten += forgetting.join().unwrap();
    }
    assert!(forgotten > 0, "it was always in use");
}
