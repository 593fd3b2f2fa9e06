//! Sends lines of standard input to a topic, one record a line.
//!
//! ```text
//! seq 1000 | cargo run --release --example producer -- --bootstrap localhost:9092 --topic numbers
//! ```

#[path = "support/logs.rs"]
mod logs;

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use ottla::{Client, Delivery, Producer, Record};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::sync::mpsc;

#[derive(Parser)]
#[command(about = "Sends lines of standard input to a topic, one record a line")]
struct Options {
    /// Addresses of some brokers: HOST:PORT[,HOST:PORT…]
    #[arg(long, value_name = "ADDRESSES", default_value = "localhost:9092")]
    bootstrap: String,
    #[arg(long)]
    topic: String,
    /// Send to this partition rather than by key
    #[arg(long)]
    partition: Option<i32>,
    /// What separates key and value in a line; without it there are no keys
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// A key or value that is exactly this is sent as null
    #[arg(long, value_name = "TEXT")]
    null_marker: Option<String>,
    /// A header NAME=VALUE of every record; may be given several times
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = pair)]
    headers: Vec<(String, String)>,
    /// One of Kafka's producer settings, such as compression.type=zstd; may be given several times
    #[arg(long = "property", short = 'P', value_name = "NAME=VALUE", value_parser = pair)]
    properties: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    logs::to_stderr("error");
    let options = Options::parse();
    let mut properties = vec![("bootstrap.servers".to_owned(), options.bootstrap.clone())];
    properties.extend(options.properties.clone());
    let client = Client::from_properties(properties)?.connect().await?;
    let producer = client.producer().build()?;

    // Deliveries are awaited beside the reading, so that it never waits for a broker.
    let (sent, deliveries) = mpsc::unbounded_channel();
    let watch = tokio::spawn(watch(deliveries));
    let reading = tokio::select! {
        reading = read(&options, &producer, &sent) => reading,
        _ = tokio::signal::ctrl_c() => {
            eprintln!("interrupted: sending what was read");
            Ok(())
        }
    };
    drop(sent);
    let closed = producer.close().await;
    let failed = watch.await?;
    client.close().await?;
    reading?;
    closed?;
    Ok(match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

async fn read(
    options: &Options,
    producer: &Producer,
    sent: &mpsc::UnboundedSender<Delivery>,
) -> Result<(), Box<dyn Error>> {
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let (key, value) = match &options.key_separator {
            None => (None, line.as_str()),
            Some(separator) => match line.split_once(separator) {
                Some((key, value)) => (Some(key), value),
                None => return Err(format!("no {separator:?} in the line {line:?}").into()),
            },
        };
        let not_null = |text: &&str| Some(*text) != options.null_marker.as_deref();
        let mut record = Record::to(&options.topic);
        if let Some(key) = key.filter(not_null) {
            record = record.with_key(key);
        }
        if let Some(value) = Some(value).filter(not_null) {
            record = record.with_value(value);
        }
        if let Some(partition) = options.partition {
            record = record.with_partition(partition);
        }
        for (name, value) in &options.headers {
            record = record.with_header(name, value);
        }
        // Waits while the producer's buffer is full.
        sent.send(producer.enqueue(record).await?)?;
    }
    Ok(())
}

/// Awaits every delivery; says how it goes once a second. Returns how many failed.
async fn watch(mut deliveries: mpsc::UnboundedReceiver<Delivery>) -> u64 {
    let start = Instant::now();
    let (mut written, mut failed, mut told) = (0_u64, 0_u64, Instant::now());
    while let Some(delivery) = deliveries.recv().await {
        match delivery.await {
            Ok(_) => written += 1,
            Err(error) => {
                failed += 1;
                eprintln!("{error}");
            }
        }
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            eprintln!("{written} written, {failed} failed");
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    eprintln!(
        "{written} written, {failed} failed in {seconds:.3} s ({:.0}/s)",
        written as f64 / seconds
    );
    failed
}
