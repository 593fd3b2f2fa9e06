//! Measures transactions, one after the other: how many a second, and how long one takes. A line of
//! JSON for each number of partitions and of records.
//!
//! ```text
//! cargo run --release --example bench_transactions -- --bootstrap localhost:9092 --partitions 1,10 --records 1,100
//! ```
//!
//! `benches/transactions/run` runs it beside Kafka's Java client.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use ottla::admin::NewTopic;
use ottla::{Client, Record, TransactionalProducer};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T = (), E = Failure> = std::result::Result<T, E>;

#[derive(Debug, Parser)]
struct Options {
    #[arg(long, default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// Of the topics that are created: one topic for each number.
    #[arg(long, default_value = "1,10,100", value_delimiter = ',')]
    partitions: Vec<u32>,
    /// In a transaction, in turns to the partitions.
    #[arg(long, default_value = "1,100", value_delimiter = ',')]
    records: Vec<usize>,
    /// Of measuring each case, after one that does not count.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    size: usize,
}

/// What is written, and where the next record goes.
struct Load<'a> {
    topic: &'a str,
    partitions: u32,
    records: usize,
    value: &'a [u8],
    next: usize,
}

impl Load<'_> {
    async fn write(&mut self, producer: &mut TransactionalProducer) -> Result {
        let transaction = producer.begin().await?;
        for _ in 0..self.records {
            let partition = (self.next % self.partitions as usize) as i32;
            self.next += 1;
            let record = Record::to(self.topic).with_partition(partition);
            drop(transaction.enqueue(record.with_value(self.value)).await?);
        }
        transaction.commit().await?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result {
    let options = Options::parse();
    let client = Client::builder()
        .bootstrap(options.bootstrap.split(','))
        .client_id("bench")
        .connect()
        .await?;
    let value = vec![0; options.size];
    for &partitions in &options.partitions {
        let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let topic = format!("ottla-{partitions}-{at}");
        let new = NewTopic::new(topic.as_str()).partitions(partitions);
        client.admin().create_topics([new]).await?.all()?;
        for &records in &options.records {
            let load = Load {
                topic: &topic,
                partitions,
                records,
                value: &value,
                next: 0,
            };
            measure(&client, load, Duration::from_secs_f64(options.seconds)).await?;
        }
    }
    Ok(())
}

async fn measure(client: &Client, mut load: Load<'_>, time: Duration) -> Result {
    let id = format!("{}-{}", load.topic, load.records);
    let mut producer = client.transactional_producer(id).build().await?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        load.write(&mut producer).await?;
    }
    let mut took = Vec::new();
    let began = Instant::now();
    let mut now = began;
    while now - began < time {
        load.write(&mut producer).await?;
        let after = Instant::now();
        took.push(after - now);
        now = after;
    }
    producer.close().await?;
    took.sort_unstable();
    let ms = |percent: usize| took[took.len() * percent / 100].as_secs_f64() * 1e3;
    println!(
        "{{\"client\":\"ottla\",\"partitions\":{},\"records\":{},\"transactions_per_s\":{:.0},\
         \"p50_ms\":{:.2},\"p99_ms\":{:.2}}}",
        load.partitions,
        load.records,
        took.len() as f64 / (now - began).as_secs_f64(),
        ms(50),
        ms(99),
    );
    Ok(())
}
