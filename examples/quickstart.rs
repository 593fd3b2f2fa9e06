//! Makes a topic, produces, consumes in a group, and prints records and lag: on a cluster of three
//! brokers inside this process, or on yours.
//!
//! ```text
//! cargo run --release --example quickstart
//! cargo run --release --example quickstart -- --bootstrap localhost:9092
//! ```

use std::error::Error;
use std::time::Duration;

use clap::Parser;
use ottla::admin::NewTopic;
use ottla::mock::MockCluster;
use ottla::{Client, OffsetReset, Record};

const RECORDS: usize = 12;

#[derive(Parser)]
struct Options {
    /// Addresses of some brokers: HOST:PORT[,HOST:PORT…]. Default: a mock cluster in this process.
    #[arg(long, value_delimiter = ',')]
    bootstrap: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let mut bootstrap = options.bootstrap;
    let mut mock = None;
    if bootstrap.is_empty() {
        let cluster = MockCluster::builder().brokers(3).start().await?;
        bootstrap = cluster.bootstrap().split(',').map(str::to_owned).collect();
        println!("started a mock cluster at {}", bootstrap.join(","));
        mock = Some(cluster);
    }
    let client = Client::builder()
        .bootstrap(bootstrap)
        .client_id("quickstart")
        .connect()
        .await?;

    // A topic of its own, so that every run starts from nothing.
    let topic = format!("quickstart-{}", std::process::id());
    let admin = client.admin();
    admin
        .create_topics([NewTopic::new(&topic).partitions(3)])
        .await?
        .all()?;
    println!("created topic {topic} with 3 partitions");

    // `enqueue` fixes the order and does not wait for the broker; the delivery tells what became of
    // the record.
    let producer = client.producer().build()?;
    let mut deliveries = Vec::new();
    for number in 0..RECORDS {
        let key = format!("customer-{}", number % 4);
        let value = format!("order {number}");
        deliveries.push(
            producer
                .enqueue(Record::to(&topic).with_key(&key).with_value(&value))
                .await?,
        );
    }
    for delivery in deliveries {
        delivery.await?;
    }
    println!("produced {RECORDS} records, each acknowledged by all in-sync replicas");

    let mut consumer = client
        .consumer(format!("{topic}-group"))
        .subscribe([topic.clone()])
        .offset_reset(OffsetReset::Earliest)
        .max_poll_records(5)
        .build()?;
    let mut seen = 0;
    while seen < RECORDS {
        let Some(batches) = consumer.poll().await? else {
            break;
        };
        for batch in &batches {
            for record in batch.records() {
                let record = record?;
                let text = |bytes: Option<&[u8]>| {
                    String::from_utf8_lossy(bytes.unwrap_or(b"-")).into_owned()
                };
                println!(
                    "  partition {} offset {}: {} = {}",
                    batch.partition(),
                    record.offset(),
                    text(record.key()),
                    text(record.value())
                );
            }
        }
        seen += batches.record_count();
        consumer.commit().await?;
        let lag = consumer.lag();
        println!("lag: {} records, {:?}", lag.records(), lag.time());
    }

    consumer.close_timeout(Duration::from_secs(10)).await?;
    producer.close().await?;
    admin.delete_topics([&topic]).await?.all()?;
    client.close().await?;
    drop(mock);
    Ok(())
}
