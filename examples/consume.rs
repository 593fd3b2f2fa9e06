//! Prints the records of topics, as a member of a group or of all partitions on its own.
//!
//! `cargo run --example consume -- --bootstrap localhost:9092 --topic orders --group billing`

use std::time::Duration;

use clap::Parser;
use ottla::{Client, Event, IsolationLevel, OffsetReset, TopicPartition};

#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "localhost:9092")]
    bootstrap: String,
    #[arg(long)]
    topic: Vec<String>,
    /// Without it all partitions given are read.
    #[arg(long)]
    group: Option<String>,
    #[arg(long, value_delimiter = ',')]
    partitions: Vec<i32>,
    #[arg(long)]
    committed_only: bool,
    #[arg(long)]
    manual_commit: bool,
    /// Print only counts.
    #[arg(long)]
    quiet: bool,
    /// End after so many records.
    #[arg(long)]
    max: Option<usize>,
    /// End when nothing came for so many seconds.
    #[arg(long)]
    idle: Option<u64>,
    #[arg(long, default_value_t = 500)]
    max_poll_records: usize,
}

#[tokio::main]
async fn main() -> ottla::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    let client = Client::builder()
        .bootstrap(args.bootstrap.split(','))
        .connect()
        .await?;
    let mut builder = client
        .reader()
        .offset_reset(OffsetReset::Earliest)
        .max_poll_records(args.max_poll_records)
        .auto_commit(!args.manual_commit);
    if args.committed_only {
        builder = builder.isolation_level(IsolationLevel::ReadCommitted);
    }
    builder = match &args.group {
        Some(group) => builder
            .group_id(group.as_str())
            .subscribe(args.topic.iter().map(String::as_str)),
        None => builder.assign(args.topic.iter().flat_map(|topic| {
            let partitions = args.partitions.iter();
            partitions.map(|partition| TopicPartition::new(topic.as_str(), *partition))
        })),
    };
    let mut consumer = builder.build().await?;
    let idle = Duration::from_secs(args.idle.unwrap_or(u64::MAX / 4));
    let start = std::time::Instant::now();
    let (mut count, mut bytes) = (0, 0);
    loop {
        let event = tokio::select! {
            event = tokio::time::timeout(idle, consumer.next_event()) => event,
            _ = tokio::signal::ctrl_c() => break,
        };
        let Ok(event) = event else { break };
        match event? {
            None => break,
            Some(Event::Records(batches)) => {
                for batch in &batches {
                    for record in batch.records() {
                        let record = record?;
                        count += 1;
                        bytes += record.value().map_or(0, <[u8]>::len);
                        if !args.quiet {
                            let value = String::from_utf8_lossy(record.value().unwrap_or_default());
                            println!("{} {} {value}", batch.topic_partition(), record.offset());
                        }
                    }
                }
                if args.manual_commit {
                    consumer.commit().await?;
                }
                if args.max.is_some_and(|max| count >= max) {
                    break;
                }
            }
            Some(other) => println!("# {other:?}"),
        }
    }
    let took = start.elapsed();
    println!("# {count} records, {bytes} bytes in {took:?}");
    for lag in consumer.lag().partitions() {
        println!(
            "# lag {}: position {:?} end {:?} committed {:?} behind {:?} {:?}",
            lag.topic_partition, lag.position, lag.end_offset, lag.committed, lag.records, lag.time
        );
    }
    consumer.close(Duration::from_secs(10)).await
}
