//! Answers with flipped bits, on their way from the cluster: nothing stops, nothing is lost.
//!
//! Codes, offsets, epochs, ids and times of answers stand outside of every checksum, so what is told during the damage may be
//! wrong in ways that nobody can see (an offset, say). What must hold all the same: every delivery ends, what was
//! acknowledged is in a log, a consumer never gives up, and once the damage is over the group gets everything there is.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ottla::mock::MockCluster;
use ottla::{Client, ErrorKind, OffsetReset, Record};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);
const PARTITIONS: i32 = 4;
const RECORDS: usize = 400;

type Seen = Arc<Mutex<BTreeSet<String>>>;

#[test]
fn the_world_goes_on_under_damage() {
    let seeds = std::env::var("OTTLA_DAMAGE_SEEDS").unwrap_or("0..24".to_owned());
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
    let network = cluster.network();
    network.delay(Duration::from_millis(1), Duration::from_millis(4));
    // Between a flip in nearly every answer and one in a few hundred.
    network.damage_answers([200, 1_000, 5_000, 20_000][seed as usize % 4]);

    let seen = Seen::default();
    let client = client(&cluster, "reader");
    let members = [(); 2].map(|()| tokio::spawn(read(client.clone(), Arc::clone(&seen))));
    let acknowledged = produce(&cluster).await;
    network.damage_answers(0);

    let mut log = BTreeSet::new();
    for partition in 0..PARTITIONS {
        for record in cluster.records("t", partition) {
            log.insert(text(record.value().unwrap()));
        }
    }
    let lost: Vec<_> = acknowledged.difference(&log).collect();
    assert!(lost.is_empty(), "acknowledged and in no log: {lost:?}");
    let everything = async {
        while !log.is_subset(&seen.lock().unwrap()) {
            sleep(SECOND).await;
        }
    };
    let reached = timeout(300 * SECOND, everything).await;
    let missing: Vec<_> = log.difference(&seen.lock().unwrap()).cloned().collect();
    assert!(reached.is_ok(), "never read: {missing:?}");
    for member in &members {
        assert!(!member.is_finished(), "a member gave up");
        member.abort();
    }
    client.close().await;
}

fn client(cluster: &MockCluster, name: &str) -> Client {
    // What was damaged so that it never comes is given up soon.
    let builder = cluster.named_client_builder(name);
    builder.request_timeout(5 * SECOND).build().unwrap()
}

/// Sends over thirty seconds; returns what was acknowledged.
async fn produce(cluster: &MockCluster) -> BTreeSet<String> {
    let client = client(cluster, "writer");
    let producer = client.producer().build().await.unwrap();
    let mut deliveries: Vec<JoinHandle<Option<String>>> = Vec::new();
    for number in 0..RECORDS {
        let value = number.to_string();
        // A topic's metadata may be damaged beyond use for as long as a send waits.
        if let Ok(delivery) = producer.send(Record::to("t").value(&value)).await {
            deliveries.push(tokio::spawn(
                async move { delivery.await.ok().map(|_| value) },
            ));
        }
        sleep(30 * SECOND / RECORDS as u32).await;
    }
    let mut acknowledged = BTreeSet::new();
    for delivery in deliveries {
        let ended = timeout(200 * SECOND, delivery).await;
        acknowledged.extend(ended.expect("every delivery ends").unwrap());
    }
    assert!(
        acknowledged.len() > RECORDS / 2,
        "{} of {RECORDS}",
        acknowledged.len()
    );
    client.close().await;
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
