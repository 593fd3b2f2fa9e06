//! The producer on the mock cluster: buffers that are full. On a paused clock.

use std::time::Duration;

use super::*;
use crate::mock::MockCluster;

const SECOND: Duration = Duration::from_secs(1);
const LINGER: Duration = Duration::from_secs(600);
const VALUE: [u8; 3_000] = [7; 3_000];

async fn mock() -> MockCluster {
    let builder = MockCluster::builder()
        .brokers(3)
        .topic("t", 40)
        .in_memory()
        .seed(5);
    builder.start().await.unwrap()
}

/// It lingers long, its buffer holds a batch that is not full for every second partition, and it has talked to all brokers.
async fn producer(mock: &MockCluster) -> Producer {
    let builder = mock.client().producer();
    let builder = builder.linger(LINGER).delivery_timeout(4 * LINGER);
    let producer = builder.buffer_memory(80 << 10).build().await.unwrap();
    for partition in 0..40 {
        let record = Record::to("t").partition(partition).value("first");
        drop(producer.send(record).await.unwrap());
    }
    producer.flush().await.unwrap();
    assert_eq!(producer.buffered_bytes(), 0);
    producer
}

fn record<'a>(partition: i32) -> Record<'a> {
    Record::to("t").partition(partition).value(&VALUE)
}

/// Open batches go although nobody waits for memory, and linger again when there is some.
#[tokio::test(start_paused = true)]
async fn a_refusal_for_want_of_memory_sends_what_lingers() {
    let mock = mock().await;
    let producer = producer(&mock).await;
    let began = now();
    let mut deliveries = Vec::new();
    let mut refusals = 0;
    for partition in 0..40 {
        loop {
            match producer.try_send(record(partition)) {
                Ok(delivery) => break deliveries.push(delivery),
                Err(error) => assert!(error.is_full(), "{error}"),
            }
            refusals += 1;
            tokio::time::sleep(SECOND / 1_000).await;
            assert!(now() - began < LINGER / 10, "{refusals} refusals");
        }
    }
    assert!(refusals > 0, "the buffer is too large for this test");
    // What came last lingers: there has been room since.
    let before = mock.records("t", 39).len();
    assert_eq!(before, 1);
    tokio::time::sleep(LINGER / 2).await;
    assert_eq!(mock.records("t", 39).len(), before, "it lingers no more");
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    let took = now() - began;
    assert!((LINGER..2 * LINGER).contains(&took), "{took:?}");
}
