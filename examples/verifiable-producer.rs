//! Sends the integers 0, 1, 2 … to a topic and reports what became of each, as Kafka's own
//! VerifiableProducer does.
//!
//! ```text
//! cargo run --release --example verifiable-producer -- --bootstrap-server localhost:9092 --topic t --max-messages 10
//! ```

mod support;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use ottla::{Delivery, Record, Timestamp};
use serde_json::json;
use support::{PATIENCE, Result, Settings, Signals, emit, now_millis};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::task::JoinSet;

#[derive(Parser)]
#[command(
    name = "verifiable-producer",
    about = "Sends increasing integers to a topic and reports the fate of each"
)]
#[command(allow_negative_numbers = true, args_override_self = true)]
struct Options {
    /// Addresses of some brokers: HOST:PORT[,HOST:PORT…]
    #[arg(long, value_name = "LIST")]
    bootstrap_server: String,
    #[arg(long)]
    topic: String,
    /// How many to send; negative: until told to end
    #[arg(long, default_value_t = -1)]
    max_messages: i64,
    /// Records per second on average; negative: as fast as possible
    #[arg(long, default_value_t = -1)]
    throughput: i64,
    /// How many replicas must have a record: 0, 1 or -1 for all in-sync ones
    #[arg(long, default_value_t = -1, value_parser = clap::value_parser!(i64).range(-1..=1))]
    acks: i64,
    /// Timestamp of the first record, in milliseconds; those after it grow with the time run
    #[arg(long, default_value_t = -1)]
    message_create_time: i64,
    /// Values become PREFIX.N
    #[arg(long)]
    value_prefix: Option<i64>,
    /// Keys "0" to "K-1" in turn
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    repeating_keys: Option<u64>,
    /// Client settings, which win over the options
    #[arg(long, value_name = "FILE")]
    command_config: Option<PathBuf>,
    /// The old name of --command-config
    #[arg(
        long = "producer.config",
        value_name = "FILE",
        conflicts_with = "command_config"
    )]
    producer_config: Option<PathBuf>,
}

/// Records that are sent and not reported yet, for a reader of the events that is slow.
const UNREPORTED: usize = 1 << 20;

fn main() {
    support::run(produce)
}

async fn produce(options: Options) -> Result<i32> {
    let signals = Signals::take(|| ())?;
    if options.producer_config.is_some() {
        eprintln!("--producer.config is deprecated: use --command-config");
    }
    let file = options
        .command_config
        .as_ref()
        .or(options.producer_config.as_ref());
    let mut settings = Settings::read(file)?;
    settings.set_default("bootstrap.servers", &options.bootstrap_server);
    settings.set_default("acks", &options.acks);
    if settings
        .get("enable.idempotence")
        .is_none_or(|on| !on.eq_ignore_ascii_case("true"))
    {
        settings.set_default("retries", &0);
    }
    let client = settings.client()?;
    let producer = client.producer().build()?;
    let options = Arc::new(options);
    emit("startup_complete", json!({}))?;

    let (start, started_at) = (Instant::now(), now_millis());
    let unreported = Arc::new(Semaphore::new(UNREPORTED));
    let mut reporters = JoinSet::new();
    let mut partitions: HashMap<i32, mpsc::UnboundedSender<(u64, Delivery)>> = HashMap::new();
    let mut sent = 0;
    let mut fatal = None;
    while fatal.is_none() && u64::try_from(options.max_messages).map_or(true, |max| sent < max) {
        let (key, value) = (options.key(sent), options.value(sent));
        let mut record = Record::to(&options.topic).with_value(&value);
        if let Some(key) = &key {
            record = record.with_key(key);
        }
        if options.message_create_time >= 0 {
            let time = options.message_create_time + now_millis() - started_at;
            record = record.with_timestamp(Timestamp::from_millis(time));
        }
        let accepted = async {
            pace(start, sent, options.throughput).await;
            // The reporter gives it back.
            let _ = unreported.acquire().await.map(SemaphorePermit::forget);
            producer.enqueue(record).await
        };
        let accepted = tokio::select! {
            biased;
            () = signals.first() => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok(delivery) => {
                let queue = partitions.entry(delivery.partition()).or_insert_with(|| {
                    let (queue, deliveries) = mpsc::unbounded_channel();
                    reporters.spawn(report(
                        Arc::clone(&options),
                        deliveries,
                        Arc::clone(&unreported),
                    ));
                    queue
                });
                if queue.send((sent, delivery)).is_err() {
                    break; // nobody reads the events: the reporter says so below
                }
            }
            Err(error) => {
                options.failed(sent, &error)?;
                unreported.add_permits(1);
                fatal = error.is_fatal().then_some(error);
            }
        }
        sent += 1;
    }

    // Every record ends within delivery.timeout.ms; after a signal there is less time.
    tokio::select! {
        _ = producer.flush() => {} // failures are told record by record
        () = signals.first() => {}
    }
    let _ = producer.close_timeout(PATIENCE).await;
    partitions.clear();
    let mut acked = 0;
    while let Some(reported) = reporters.join_next().await {
        acked += reported??;
    }
    client.close().await?;
    emit("shutdown_complete", json!({}))?;
    let tool_data = json!({
        "sent": sent,
        "acked": acked,
        "target_throughput": options.throughput,
        "avg_throughput": acked as f64 / start.elapsed().as_secs_f64(),
    });
    emit("tool_data", tool_data)?;
    if let Some(error) = fatal {
        return Err(error.into());
    }
    Ok(signals.status().unwrap_or(0))
}

/// Waits until record `number` is due: late ones are sent at once, so that the average is kept.
async fn pace(start: Instant, number: u64, throughput: i64) {
    match throughput {
        0 if number > 0 => std::future::pending().await,
        1.. => {
            let due = start + Duration::from_secs_f64(number as f64 / throughput as f64);
            if due > Instant::now() {
                tokio::time::sleep_until(due.into()).await;
            }
        }
        _ => {}
    }
}

/// Reports the records of one partition in the order in which they were sent; returns how many were
/// written.
async fn report(
    options: Arc<Options>,
    mut deliveries: mpsc::UnboundedReceiver<(u64, Delivery)>,
    unreported: Arc<Semaphore>,
) -> Result<u64> {
    let mut acked = 0;
    while let Some((number, delivery)) = deliveries.recv().await {
        match delivery.await {
            Ok(written) => {
                let fields = json!({
                    "key": options.key(number),
                    "value": options.value(number),
                    "topic": options.topic,
                    "partition": written.partition,
                    "offset": written.offset.unwrap_or(-1),
                });
                emit("producer_send_success", fields)?;
                acked += 1;
            }
            Err(error) => options.failed(number, &error)?,
        }
        unreported.add_permits(1);
    }
    Ok(acked)
}

impl Options {
    fn key(&self, number: u64) -> Option<String> {
        self.repeating_keys.map(|keys| (number % keys).to_string())
    }

    fn value(&self, number: u64) -> String {
        match self.value_prefix {
            Some(prefix) => format!("{prefix}.{number}"),
            None => number.to_string(),
        }
    }

    fn failed(&self, number: u64, error: &ottla::Error) -> std::io::Result<()> {
        let kind = || format!("{:?}", error.kind());
        let fields = json!({
            "key": self.key(number),
            "value": self.value(number),
            "topic": self.topic,
            "exception": error.code().map_or_else(kind, |code| code.name().to_owned()),
            "message": error.to_string(),
        });
        emit("producer_send_error", fields)
    }
}
