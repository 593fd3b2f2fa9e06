//! Records without keys where one broker is slow (KIP-794), beside Java's producer.

use std::time::Duration;

use ottla::{Client, Record};
use ottla_testcontainers::Cluster;
use tokio::time::{MissedTickBehavior, interval};

use super::placed;
use crate::proxy::{PRODUCE, Proxy};
use crate::support::{LONG, Result, client, partitions};

const RECORDS: usize = 60_000;
const PER_SECOND: usize = 10_000;

/// The percentage of a topic's records that is in partition 2, which is on the slow broker.
async fn share(client: &Client, topic: &str) -> Result<f64> {
    let mut reader = client.reader().assign(partitions(topic, 3)).build()?;
    reader.set_max_poll_records(0);
    let ends = reader.end_offsets(partitions(topic, 3)).await?;
    let counts: Vec<i64> = ends.values().copied().collect();
    assert_eq!(counts.iter().sum::<i64>(), RECORDS as i64, "{counts:?}");
    Ok(counts[2] as f64 * 100.0 / RECORDS as f64)
}

async fn ours(cluster: &Cluster, proxy: &Proxy, topic: &str, adaptive: bool) -> Result<f64> {
    placed(cluster, topic, "1,2,3", &[]).await?;
    let through = Client::builder().bootstrap(proxy.bootstrap().split(','));
    let through = through.connect().await?;
    let producer = through.producer().adaptive_partitioning(adaptive);
    let producer = producer.build()?;
    let value = [7; 100];
    let mut ticks = interval(Duration::from_millis(10));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for _ in 0..RECORDS * 100 / PER_SECOND {
        ticks.tick().await;
        for _ in 0..PER_SECOND / 100 {
            drop(
                producer
                    .enqueue(Record::to(topic).with_value(&value))
                    .await?,
            );
        }
    }
    producer.close_timeout(LONG).await.unwrap();
    share(&client(cluster).await?, topic).await
}

async fn javas(cluster: &Cluster, proxy: &Proxy, topic: &str) -> Result<f64> {
    placed(cluster, topic, "1,2,3", &[]).await?;
    let (records, throughput) = (RECORDS.to_string(), PER_SECOND.to_string());
    let bootstrap = format!("bootstrap.servers={}", proxy.bootstrap());
    let java = cluster.java_client("kafka-producer-perf-test.sh");
    let java = java.args(["--topic", topic, "--num-records", &records]);
    let java = java.args(["--record-size", "100", "--throughput", &throughput]);
    let java = java.args(["--producer-props", &bootstrap]).start().await?;
    let output = java.wait(LONG).await?;
    assert!(output.stdout.contains("records sent"), "{output:?}");
    share(&client(cluster).await?, topic).await
}

#[tokio::test]
async fn a_slow_broker_gets_fewer_of_the_records_that_may_go_anywhere() -> Result {
    let cluster = Cluster::builder().brokers(3).start().await?;
    let slow = |asked: crate::proxy::Asked, _: &mut [u8]| match (asked.broker, asked.api) {
        (3, PRODUCE) => Duration::from_millis(500),
        _ => Duration::ZERO,
    };
    let proxy = Proxy::start(&cluster, slow).await?;
    let fixed = ours(&cluster, &proxy, "fixed", false).await?;
    let adaptive = ours(&cluster, &proxy, "adaptive", true).await?;
    let java = javas(&cluster, &proxy, "java").await?;
    println!("to the slow broker: {adaptive:.1} %, Java's {java:.1} %, without it {fixed:.1} %");
    // A third, give or take what some hundred draws do by chance.
    assert!(fixed > 24.0, "{fixed}");
    assert!(adaptive < fixed * 0.7, "{adaptive}, {fixed}");
    Ok(())
}
