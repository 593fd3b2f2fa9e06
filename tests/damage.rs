//! Answers with flipped bits, on their way from the cluster: nothing gives up, nothing acknowledged is lost.
//!
//! Codes, offsets, epochs, ids and times of answers stand outside of every checksum, so what is told during the damage may be
//! wrong in ways that nobody can see (an offset, say). What must hold all the same: every delivery ends, what was
//! acknowledged is in a log, no consumer gives up, and once the damage is over everything that is sent is written.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ottla::mock::MockCluster;
use ottla::{Client, ErrorKind, OffsetReset, Producer, Record};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);
const PARTITIONS: i32 = 4;
const RECORDS: usize = 400;

type Seen = Arc<Mutex<BTreeSet<String>>>;

#[test]
fn the_world_goes_on_under_damage() {
    let seeds = std::env::var("OTTLA_DAMAGE_SEEDS");
    let seeds = seeds.as_deref().unwrap_or("0..24");
    let (first, end) = seeds.split_once("..").unwrap();
    for seed in first.parse().unwrap()..end.parse::<u64>().unwrap() {
        let next = seed + 1;
        eprintln!("again: OTTLA_DAMAGE_SEEDS={seed}..{next} cargo test --test damage");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(world(seed));
    }
}

async fn world(seed: u64) {
    let cluster = MockCluster::builder()
        .brokers(3)
        .topic("t", PARTITIONS as u32)
        .in_memory()
        .seed(seed)
        .start()
        .await
        .unwrap();
    let seen = Seen::default();
    let client = client(&cluster, "reader");
    let writer = self::client(&cluster, "writer");
    // Of the clients that there are by now.
    let network = cluster.network();
    network.delay(Duration::from_millis(1), Duration::from_millis(4));
    // From a flip in every tenth answer or so to one in hundreds.
    network.damage_answers([1_000, 5_000, 20_000, 50_000][seed as usize % 4]);
    let members = [(); 2].map(|()| tokio::spawn(read(client.clone(), Arc::clone(&seen))));
    let producer = writer.producer().build().await.unwrap();
    let acknowledged = produce(&producer, 0..RECORDS, 30 * SECOND).await;
    let share = acknowledged.len() * 100 / RECORDS;
    assert!(
        share >= 97,
        "{share} % acknowledged: damage is no reason to give up"
    );

    network.damage_answers(0);
    let after = RECORDS..RECORDS + 40;
    let acknowledged_after = produce(&producer, after.clone(), 20 * SECOND).await;
    assert_eq!(
        acknowledged_after.len(),
        after.len(),
        "the producer has recovered"
    );
    let log = values(&cluster);
    let lost: Vec<_> = acknowledged.difference(&log).collect();
    assert!(lost.is_empty(), "acknowledged and in no log: {lost:?}");
    for member in &members {
        assert!(!member.is_finished(), "a member gave up");
        member.abort();
    }
    client.close().await;
    writer.close().await;
}

/// All that was written.
fn values(cluster: &MockCluster) -> BTreeSet<String> {
    let records = (0..PARTITIONS).flat_map(|partition| cluster.records("t", partition));
    records
        .map(|record| text(record.value().unwrap()))
        .collect()
}

fn client(cluster: &MockCluster, name: &str) -> Client {
    // What was damaged so that it never comes is given up soon.
    let builder = cluster.named_client_builder(name);
    builder.request_timeout(5 * SECOND).build().unwrap()
}

/// Sends these numbers in turn over some time; returns what was acknowledged.
async fn produce(producer: &Producer, numbers: Range<usize>, time: Duration) -> BTreeSet<String> {
    let pause = time / u32::try_from(numbers.len()).unwrap();
    let mut deliveries: Vec<JoinHandle<Option<String>>> = Vec::new();
    for number in numbers {
        let value = number.to_string();
        if let Ok(delivery) = producer.send(Record::to("t").value(&value)).await {
            deliveries.push(tokio::spawn(
                async move { delivery.await.ok().map(|_| value) },
            ));
        }
        sleep(pause).await;
    }
    let mut acknowledged = BTreeSet::new();
    for delivery in deliveries {
        let ended = timeout(200 * SECOND, delivery).await;
        acknowledged.extend(ended.expect("every delivery ends").unwrap());
    }
    acknowledged
}

/// A member that polls whatever happens, and ends only when its consumer does.
async fn read(client: Client, seen: Seen) {
    let consumer = client.consumer("g").subscribe(["t"]);
    let consumer = consumer.offset_reset(OffsetReset::Earliest);
    let mut consumer = consumer.build().await.unwrap();
    loop {
        match consumer.poll().await {
            Ok(Some(batches)) => {
                for record in batches.iter().flatten() {
                    let record = record.unwrap();
                    seen.lock().unwrap().insert(text(record.value().unwrap()));
                }
            }
            Ok(None) => return,
            Err(error) if error.is_fatal() || error.kind() == ErrorKind::Authorization => {
                eprintln!("a member ends: {error}");
                return;
            }
            Err(_) => sleep(SECOND / 10).await,
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
