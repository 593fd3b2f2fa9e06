//! Counts what a consumer allocates, and how much memory it holds at most, on the mock cluster: all
//! on one thread, which is what is counted.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use futures::StreamExt;
use ottla::mock::MockCluster;
use ottla::{Compression, Consumer, ConsumerBuilder, OffsetReset, Record, TopicPartition};
use tokio::runtime::Runtime;

const SECOND: Duration = Duration::from_secs(1);
const MIB: usize = 1 << 20;

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap()
}

/// A topic of `partitions` with so many records of so many zeros each, in batches of 1 MiB.
async fn zeros(partitions: i32, records: usize, size: usize, compression: &str) -> MockCluster {
    let mock = MockCluster::builder()
        .topic("t", partitions as u32)
        .in_memory();
    let mock = mock.start().await.unwrap();
    let producer = mock
        .client()
        .producer()
        .batch_size(MIB)
        .linger(SECOND)
        .compression(compression.parse::<Compression>().unwrap())
        .build()
        .unwrap();
    let value = vec![0; size];
    for partition in 0..partitions {
        let record = || {
            Record::to("t")
                .with_partition(partition)
                .with_value(&value[..])
        };
        let sent = producer.enqueue_all((0..records).map(|_| record())).await;
        sent.unwrap().await.unwrap();
    }
    let _ = producer.close_timeout(SECOND).await;
    mock
}

fn reader(mock: &MockCluster, partitions: i32) -> ConsumerBuilder {
    let assigned = (0..partitions).map(|partition| TopicPartition::new("t", partition));
    let reader = mock.client().reader().assign(assigned);
    reader.offset_reset(OffsetReset::Earliest)
}

const BUDGET: usize = 4 * MIB;
const PARTITIONS: i32 = 3;
/// Per partition; about 105 in a batch.
const RECORDS: usize = 1000;

/// Reads 30 MiB of zeros, stalling after each poll so that all that can be fetched is there.
fn read_slowly(compression: &str, max_poll_records: usize) -> AllocationInfo {
    let runtime = runtime();
    let mock = runtime.block_on(zeros(PARTITIONS, RECORDS, 10_000, compression));
    measure(|| {
        runtime.block_on(async {
            let mut consumer = reader(&mock, PARTITIONS)
                .fetch_max_bytes(BUDGET as i32)
                .max_partition_fetch_bytes(MIB as i32)
                .max_poll_records(max_poll_records)
                .build()
                .unwrap();
            let mut seen = 0;
            while seen < RECORDS * PARTITIONS as usize {
                let batches = consumer.poll().await.unwrap().unwrap();
                for record in batches.iter().flatten() {
                    assert_eq!(record.unwrap().value().unwrap().len(), 10_000);
                    seen += 1;
                }
                tokio::time::sleep(SECOND).await;
                let metrics = consumer.metrics();
                let counted = metrics.buffered_bytes + metrics.requested_bytes;
                assert!(counted <= (BUDGET + MIB + MIB / 8) as u64, "{counted}");
            }
            consumer.close_timeout(SECOND).await.unwrap();
        });
    })
}

/// Thousands of times smaller on the wire than in memory, so that a budget of fetched bytes would
/// be none.
#[test]
fn memory_stays_within_the_budget_however_well_data_is_compressed() {
    for compression in ["zstd", "lz4", "gzip"] {
        // Many batches per poll; a part of one.
        for max_poll_records in [100_000, 10] {
            let used = read_slowly(compression, max_poll_records);
            // One batch beyond it, and the buffer that one is decompressed into as it grows;
            // connections.
            let bound = BUDGET + 3 * MIB;
            assert!(used.bytes_max <= bound as u64, "{compression}: {used:?}");
        }
    }
}

#[test]
fn records_are_read_without_allocations() {
    let runtime = runtime();
    let _inside = runtime.enter();
    let mock = runtime.block_on(zeros(1, 5000, 100, "none"));
    let mut consumer: Consumer = reader(&mock, 1).max_poll_records(1000).build().unwrap();
    let batches = runtime.block_on(consumer.poll()).unwrap().unwrap();
    assert_eq!(batches.record_count(), 1000);
    let mut bytes = 0;
    let borrowed = measure(|| {
        for record in batches.iter().flatten() {
            bytes += record.unwrap().value().unwrap().len();
        }
    });
    let owned = measure(|| {
        for record in batches.iter().flat_map(|batch| batch.owned_records()) {
            bytes += record.unwrap().value().unwrap().len();
        }
    });
    assert_eq!((borrowed.count_total, owned.count_total), (0, 0));
    assert_eq!(bytes, 2 * 1000 * 100);

    // Through a stream: for each poll, not for each record.
    let streamed = measure(|| {
        let stream = consumer.stream().take(4000);
        let count = runtime.block_on(
            stream
                .filter(|record| std::future::ready(record.is_ok()))
                .count(),
        );
        assert_eq!(count, 4000);
    });
    assert!(streamed.count_total < 400, "{streamed:?}");
}
