//! A member of a consumer group that reports how far behind it is, in records and in time.
//!
//! ```text
//! cargo run --release --example lag -- --bootstrap-server localhost:9092 --topic t --group-id g
//! ```

mod support;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use ottla::{Batches, Consumer, ErrorKind, Event, PartitionLag};
use serde_json::{Value, json};
use support::{PATIENCE, Result, Settings, Signals, emit};
use tokio::time::{MissedTickBehavior, interval, timeout};

#[derive(Parser)]
#[command(
    name = "lag",
    about = "Consumes a topic as a member of a group and reports its lag"
)]
#[command(allow_negative_numbers = true, args_override_self = true)]
struct Options {
    /// Addresses of some brokers: HOST:PORT[,HOST:PORT…]
    #[arg(long, value_name = "LIST")]
    bootstrap_server: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    group_id: String,
    /// classic or consumer (KIP-848)
    #[arg(long, default_value = "classic")]
    group_protocol: String,
    /// Take exactly so many records, commit them, and hold; negative: go on
    #[arg(long, default_value_t = -1)]
    max_messages: i64,
    /// How often the lag is reported
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    interval_ms: u64,
    #[arg(long)]
    client_id: Option<String>,
    /// Client settings; the options win over them
    #[arg(long, value_name = "FILE")]
    command_config: Option<PathBuf>,
}

fn main() {
    support::run(consume)
}

async fn consume(options: Options) -> Result<i32> {
    let signals = Signals::take(|| ())?;
    let protocol = support::group_protocol(&options.group_protocol)?;
    let mut settings = Settings::read(options.command_config.as_ref())?;
    settings.set("bootstrap.servers", &options.bootstrap_server);
    settings.set_group_protocol(&protocol);
    settings.set("enable.auto.commit", &false);
    settings.set("auto.offset.reset", "earliest");
    if let Some(id) = &options.client_id {
        settings.set("client.id", id);
    }
    let client = settings.client()?;
    let consumer = client
        .consumer(&options.group_id)
        .subscribe([options.topic.as_str()]);
    let mut consumer = consumer.build()?;
    emit("startup_complete", json!({}))?;

    let outcome = tokio::select! {
        biased;
        () = signals.first() => Ok(()),
        outcome = follow(&mut consumer, &options) => outcome,
    };
    if let Err(error) = consumer.close_timeout(PATIENCE).await {
        eprintln!("{error}");
    }
    client.close().await?;
    emit("shutdown_complete", json!({}))?;
    outcome?;
    Ok(signals.status().unwrap_or(0))
}

async fn follow(consumer: &mut Consumer, options: &Options) -> Result {
    let period = Duration::from_millis(options.interval_ms);
    let mut reports = interval(period);
    reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let most = u64::try_from(options.max_messages).unwrap_or(u64::MAX);
    let usual = consumer.max_poll_records();
    let mut consumed = 0;
    loop {
        // At 0 the member lives on and is given nothing more.
        let left = usize::try_from(most - consumed);
        consumer.set_max_poll_records(left.map_or(usual, |left| usual.min(left)));
        let event = tokio::select! {
            event = consumer.next_event() => event,
            _ = reports.tick() => {
                report(consumer, consumed, consumed == most, period).await?;
                continue;
            }
        };
        match event {
            Ok(Some(Event::Records(batches))) => {
                support::tell(batches.errors())?;
                consumed += batches.record_count() as u64;
                commit(consumer, &batches).await;
            }
            Ok(Some(_)) => {} // partitions come and go, and the report shows it
            Ok(None) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Commits what a poll returned, until it is there or others have the partitions.
async fn commit(consumer: &mut Consumer, batches: &Batches) {
    while let Err(error) = consumer.commit_offsets(batches.offsets()).await {
        eprintln!("{error}");
        if error.kind() == ErrorKind::Group || !error.is_retriable() {
            return;
        }
    }
}

async fn report(consumer: &Consumer, consumed: u64, holding: bool, patience: Duration) -> Result {
    let lag = match timeout(patience.max(Duration::from_secs(1)), consumer.fetch_lag()).await {
        Ok(Ok(lag)) => lag,
        Ok(Err(error)) => {
            eprintln!("{error}");
            return Ok(());
        }
        Err(_) => {
            eprintln!("the ends of the logs cannot be had at present");
            return Ok(());
        }
    };
    // A partition just assigned has no position yet; the next report will have it.
    let partitions: Option<Vec<Value>> = lag.partitions().iter().map(partition).collect();
    match partitions {
        Some(partitions) if !partitions.is_empty() => {
            let fields =
                json!({ "consumed": consumed, "holding": holding, "partitions": partitions });
            Ok(emit("lag", fields)?)
        }
        _ => Ok(()),
    }
}

fn partition(lag: &PartitionLag) -> Option<Value> {
    let (position, end) = (lag.position?, lag.end_offset?);
    let time = lag.time.duration().map_or(-1, |age| age.as_millis() as i64);
    Some(json!({
        "topic": lag.topic_partition.topic(),
        "partition": lag.topic_partition.partition(),
        "position": position,
        "end_offset": end,
        "records_lag": lag.records,
        "time_lag_ms": time,
        "committed": lag.committed,
        "committed_lag": lag.committed.map(|committed| (end - committed).max(0)),
    }))
}
