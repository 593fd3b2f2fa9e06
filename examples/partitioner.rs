//! A partitioner of one's own: tenants named on the command line have a partition each, the others
//! share the rest.
//!
//! ```text
//! cargo run --release --example partitioner -- --bootstrap localhost:9092 --topic orders --own acme --own globex
//! ```

use std::collections::BTreeMap;
use std::error::Error;

use clap::Parser;
use ottla::{BatchReport, Choice, Client, KeyPartitioner, Partitioner, Record, TopicView};

#[derive(Parser)]
#[command(about = "Sends a few records, some tenants to partitions of their own")]
struct Options {
    /// Addresses of some brokers: HOST:PORT[,HOST:PORT…]
    #[arg(long, value_name = "ADDRESSES", default_value = "localhost:9092")]
    bootstrap: String,
    #[arg(long)]
    topic: String,
    /// A tenant with a partition of its own; may be given several times
    #[arg(long = "own", value_name = "TENANT")]
    own: Vec<String>,
}

/// The first partitions belong to one tenant each.
struct ByTenant(Vec<String>);

impl Partitioner for ByTenant {
    fn partition(&self, record: &Record<'_>, topic: &TopicView<'_>) -> Choice {
        let own = i32::try_from(self.0.len()).unwrap_or(i32::MAX);
        let shared = topic.partitions() - own;
        let Some(key) = record.key() else {
            return Choice::Sticky;
        };
        // Pure and quick: it is called for every record.
        match self.0.iter().position(|tenant| tenant.as_bytes() == key) {
            Some(index) if shared > 0 => Choice::Partition(index as i32),
            None if shared > 0 => {
                Choice::Partition(own + KeyPartitioner::partition_of(key, shared))
            }
            // Too few partitions to set any apart.
            _ => Choice::Partition(KeyPartitioner::partition_of(key, topic.partitions())),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let client = Client::builder()
        .bootstrap(options.bootstrap.split(','))
        .connect()
        .await?;
    let producer = client
        .producer()
        .partitioner(ByTenant(options.own.clone()))
        .on_batch(|batch: &BatchReport| match &batch.error {
            None => println!("{}: {} records", batch.partition, batch.records),
            Some(error) => eprintln!("{}: {error}", batch.partition),
        })
        .build()?;
    let topic = producer.topic(options.topic.as_str());
    let others = ["initech", "hooli", "umbrella"].map(str::to_owned);
    let mut partitions = BTreeMap::new();
    for tenant in options.own.iter().chain(&others) {
        for number in 0..10 {
            let value = format!("order {number}");
            let delivery = topic
                .enqueue(Record::new().with_key(tenant).with_value(&value))
                .await?;
            partitions.insert(tenant, delivery.partition());
        }
    }
    producer.flush().await?;
    for (tenant, partition) in partitions {
        println!("{tenant} is in partition {partition}");
    }
    println!("{:#?}", producer.metrics());
    Ok(())
}
