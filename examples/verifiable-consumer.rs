//! A member of a consumer group that reports what it reads, commits and owns, as Kafka's own
//! VerifiableConsumer does.
//!
//! ```text
//! cargo run --release --example verifiable-consumer -- --bootstrap-server localhost:9092 --topic t --group-id g
//! ```

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use ottla::{Batches, Consumer, Event, OffsetAndMetadata, TopicPartition};
use serde_json::{Value, json};
use support::{PATIENCE, Result, Settings, Signals, emit};

#[derive(Parser)]
#[command(
    name = "verifiable-consumer",
    about = "Consumes a topic as a member of a group and reports what happens"
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
    /// The broker's assignor; only with the consumer protocol
    #[arg(long, value_parser = ["uniform", "range"])]
    group_remote_assignor: Option<String>,
    /// The name of a static member
    #[arg(long)]
    group_instance_id: Option<String>,
    /// End after exactly so many records; negative: never
    #[arg(long, default_value_t = -1)]
    max_messages: i64,
    /// Milliseconds; only with the classic protocol
    #[arg(long)]
    session_timeout: Option<i32>,
    /// Print every record
    #[arg(long)]
    verbose: bool,
    /// Leave committing to the consumer
    #[arg(long)]
    enable_autocommit: bool,
    /// earliest, latest, none or by_duration:…
    #[arg(long, default_value = "earliest")]
    reset_policy: String,
    /// range, roundrobin, sticky, cooperative-sticky, or the names of Java's classes: several with
    /// commas, the preferred one first; only with the classic protocol
    #[arg(long, default_value = "range")]
    assignment_strategy: String,
    /// Client settings; the options win over them
    #[arg(long, value_name = "FILE")]
    command_config: Option<PathBuf>,
    /// The old name of --command-config
    #[arg(
        long = "consumer.config",
        value_name = "FILE",
        conflicts_with = "command_config"
    )]
    consumer_config: Option<PathBuf>,
}

/// How long a commit under way may still take after a signal.
const LAST_COMMIT: Duration = Duration::from_secs(8);

fn main() {
    support::run(consume)
}

async fn consume(options: Options) -> Result<i32> {
    let requested = || {
        // Without a reader the loop ends by itself.
        let _ = emit("shutdown_requested", json!({}));
    };
    let signals = Signals::take(requested)?;
    let client = options.settings()?.client()?;
    let consumer = client
        .consumer(&options.group_id)
        .subscribe([options.topic.as_str()]);
    let mut consumer = consumer.build()?;
    emit("startup_complete", json!({}))?;

    let mut owned = BTreeSet::new();
    let outcome = follow(&mut consumer, &options, &signals, &mut owned).await;
    if !owned.is_empty() {
        emit("partitions_revoked", json!({ "partitions": list(&owned) }))?;
    }
    if let Err(error) = consumer.close_timeout(PATIENCE).await {
        eprintln!("{error}");
    }
    client.close().await?;
    emit("shutdown_complete", json!({}))?;
    outcome?;
    Ok(signals.status().unwrap_or(0))
}

impl Options {
    fn settings(&self) -> Result<Settings> {
        let protocol = support::group_protocol(&self.group_protocol)?;
        let classic = protocol == "classic";
        if !classic && self.session_timeout.is_some() {
            return Err("--session-timeout is for --group-protocol classic alone".into());
        }
        if classic && self.group_remote_assignor.is_some() {
            return Err("--group-remote-assignor is for --group-protocol consumer alone".into());
        }
        if self.consumer_config.is_some() {
            eprintln!("--consumer.config is deprecated: use --command-config");
        }
        let file = self
            .command_config
            .as_ref()
            .or(self.consumer_config.as_ref());
        let mut settings = Settings::read(file)?;
        settings.set("bootstrap.servers", &self.bootstrap_server);
        settings.set_group_protocol(&protocol);
        if classic {
            settings.set("partition.assignment.strategy", &self.assignment_strategy);
        }
        if let Some(millis) = self.session_timeout {
            settings.set("session.timeout.ms", &millis);
        }
        settings.set("enable.auto.commit", &self.enable_autocommit);
        settings.set("auto.offset.reset", &self.reset_policy);
        if let Some(id) = &self.group_instance_id {
            settings.set("group.instance.id", id);
        }
        if let Some(assignor) = &self.group_remote_assignor {
            settings.set("group.remote.assignor", assignor);
        }
        Ok(settings)
    }
}

/// Reads and reports until enough was read, a signal came, or the consumer cannot go on.
async fn follow(
    consumer: &mut Consumer,
    options: &Options,
    signals: &Signals,
    owned: &mut BTreeSet<TopicPartition>,
) -> Result {
    let mut left = u64::try_from(options.max_messages).unwrap_or(u64::MAX);
    let usual = consumer.max_poll_records();
    while left > 0 {
        consumer.set_max_poll_records(usize::try_from(left).map_or(usual, |left| usual.min(left)));
        let event = tokio::select! {
            biased;
            () = signals.first() => return Ok(()),
            event = consumer.next_event() => event,
        };
        match event {
            Ok(Some(Event::Records(batches))) => {
                support::tell(batches.errors())?;
                if batches.is_empty() {
                    continue;
                }
                left = left.saturating_sub(batches.record_count() as u64);
                let offsets = report(&batches, options.verbose)?;
                if options.enable_autocommit {
                    consumer.finish();
                } else {
                    commit(consumer, offsets, signals).await?;
                }
            }
            Ok(Some(Event::Assigned(partitions))) => {
                emit(
                    "partitions_assigned",
                    json!({ "partitions": list(&partitions) }),
                )?;
                owned.extend(partitions);
            }
            Ok(Some(Event::Revoking(revoking))) => {
                take_away(owned, revoking.partitions())?;
                revoking.done();
            }
            Ok(Some(Event::Lost(partitions))) => take_away(owned, &partitions)?,
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Prints a poll's records; returns of each partition the offset after its last one.
fn report(batches: &Batches, verbose: bool) -> Result<BTreeMap<TopicPartition, i64>> {
    // Of each partition: how many, the first and the last offset.
    let mut read: BTreeMap<TopicPartition, (u64, i64, i64)> = BTreeMap::new();
    for batch in batches {
        let tp = batch.topic_partition();
        for record in batch {
            let record = record?;
            let offset = record.offset();
            let (count, _, last) = read.entry(tp.clone()).or_insert((0, offset, offset));
            (*count, *last) = (*count + 1, offset);
            if verbose {
                let fields = json!({
                    "key": record.key().map(String::from_utf8_lossy),
                    "value": record.value().map(String::from_utf8_lossy),
                    "topic": tp.topic(),
                    "partition": tp.partition(),
                    "offset": offset,
                });
                emit("record_data", fields)?;
            }
        }
    }
    let partitions = read.iter().map(|(tp, (count, first, last))| {
        let mut fields = place(tp);
        fields["count"] = json!(count);
        fields["minOffset"] = json!(first);
        fields["maxOffset"] = json!(last);
        fields
    });
    let partitions: Vec<Value> = partitions.collect();
    let count: u64 = read.values().map(|(count, ..)| count).sum();
    emit(
        "records_consumed",
        json!({ "count": count, "partitions": partitions }),
    )?;
    Ok(read
        .into_iter()
        .map(|(tp, (_, _, last))| (tp, last + 1))
        .collect())
}

/// Commits, and prints how it went.
async fn commit(
    consumer: &mut Consumer,
    offsets: BTreeMap<TopicPartition, i64>,
    signals: &Signals,
) -> Result {
    let wanted = offsets
        .iter()
        .map(|(tp, offset)| (tp.clone(), OffsetAndMetadata::new(*offset)));
    let outcome = tokio::select! {
        biased;
        outcome = consumer.commit_offsets(wanted) => outcome.map_err(|error| error.to_string()),
        () = signals.overdue(LAST_COMMIT) => Err("not answered before the end".to_owned()),
    };
    let offsets = offsets.iter().map(|(tp, offset)| {
        let mut fields = place(tp);
        fields["offset"] = json!(offset);
        fields
    });
    let mut fields = json!({ "offsets": offsets.collect::<Vec<_>>(), "success": outcome.is_ok() });
    if let Err(error) = outcome {
        fields["error"] = json!(error);
    }
    Ok(emit("offsets_committed", fields)?)
}

fn take_away(owned: &mut BTreeSet<TopicPartition>, partitions: &[TopicPartition]) -> Result {
    owned.retain(|tp| !partitions.contains(tp));
    Ok(emit(
        "partitions_revoked",
        json!({ "partitions": list(partitions) }),
    )?)
}

fn list<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> Vec<Value> {
    partitions.into_iter().map(place).collect()
}

fn place(tp: &TopicPartition) -> Value {
    json!({ "topic": tp.topic(), "partition": tp.partition() })
}
