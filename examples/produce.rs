//! Produces numbered records and reports what became of them.
//!
//! ```text
//! cargo run --release --example produce -- --bootstrap localhost:9092 --topic numbers --records 100000
//! ```

use std::collections::VecDeque;
use std::error::Error;
use std::time::{Duration, Instant};

use clap::Parser;
use ottla::{Certainty, Client, Record};

#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "localhost:9092")]
    bootstrap: String,
    #[arg(long)]
    topic: String,
    #[arg(long, default_value_t = 1000)]
    records: u64,
    /// Bytes per value, at least as many as the number takes.
    #[arg(long, default_value_t = 20)]
    size: usize,
    /// Different keys; 0 for none.
    #[arg(long, default_value_t = 0)]
    keys: u64,
    /// Records per second; 0 for as many as possible.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Any Kafka property of a client or producer, as `name=value`.
    #[arg(long = "set")]
    properties: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    let mut properties = vec![("bootstrap.servers", args.bootstrap.as_str())];
    for property in &args.properties {
        properties.push(property.split_once('=').ok_or("--set wants name=value")?);
    }
    let client = Client::from_properties(properties)?.connect().await?;
    let producer = client.producer().build().await?;

    let begin = Instant::now();
    let mut report = Report::default();
    let mut under_way = VecDeque::new();
    for number in 0..args.records {
        let value = format!("{number:0width$}", width = args.size);
        let key = (number % args.keys.max(1)).to_string();
        let mut record = Record::to(&args.topic).value(&value);
        if args.keys > 0 {
            record = record.key(&key);
        }
        match producer.send(record).await {
            Ok(delivery) => under_way.push_back((number, delivery)),
            Err(error) => report.failed(number, &error),
        }
        if under_way.len() > 50_000
            && let Some((number, delivery)) = under_way.pop_front()
        {
            report.ended(number, delivery.await);
        }
        if args.rate > 0 && number % 10 == 9 {
            let due = Duration::from_secs_f64(number as f64 / args.rate as f64);
            tokio::time::sleep(due.saturating_sub(begin.elapsed())).await;
        }
    }
    producer.flush().await?;
    for (number, delivery) in under_way {
        report.ended(number, delivery.await);
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{} written, {} not sent, {} maybe written; {:.0} records/s",
        report.written,
        report.not_sent,
        report.maybe,
        args.records as f64 / seconds
    );
    let left = producer.buffered_bytes();
    println!("{:?}, {left} bytes left", producer.close(Duration::from_secs(10)).await);
    client.close().await;
    Ok(())
}

#[derive(Default)]
struct Report {
    written: u64,
    not_sent: u64,
    maybe: u64,
}

impl Report {
    fn ended(&mut self, number: u64, end: ottla::Result<ottla::RecordMetadata>) {
        match end {
            Ok(_) => self.written += 1,
            Err(error) => self.failed(number, &error),
        }
    }

    fn failed(&mut self, number: u64, error: &ottla::Error) {
        match error.certainty() {
            Some(Certainty::NotSent) => self.not_sent += 1,
            _ => self.maybe += 1,
        }
        if self.not_sent + self.maybe <= 5 {
            eprintln!("{number}: {error}");
        }
    }
}
