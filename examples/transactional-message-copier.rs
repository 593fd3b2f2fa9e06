//! Copies records in transactions that commit the input's offsets, too, as Kafka's own
//! TransactionalMessageCopier does: what read_committed consumers see of the output is the input,
//! once.
//!
//! ```text
//! cargo run --release --example transactional-message-copier -- --broker-list localhost:9092 \
//!     --input-topic in --output-topic out --input-partition 0 --transactional-id tx0
//! ```

mod support;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use ottla::{
    Batches, CommitError, Consumer, Event, GroupMetadata, OffsetAndMetadata, Record,
    TopicPartition, TransactionalProducer,
};
use serde_json::json;
use support::{PATIENCE, Result, Settings, Signals};

#[derive(Parser)]
#[command(
    name = "transactional-message-copier",
    about = "Copies records from one topic to another in transactions",
    arg_required_else_help = true
)]
#[command(allow_negative_numbers = true, args_override_self = true)]
struct Options {
    /// Addresses of some brokers: HOST:PORT[,HOST:PORT…]
    #[arg(long, value_name = "LIST")]
    broker_list: String,
    #[arg(long)]
    input_topic: String,
    #[arg(long)]
    output_topic: String,
    /// Ignored with --group-mode
    #[arg(long)]
    input_partition: i32,
    #[arg(long)]
    transactional_id: String,
    /// The group under which the input's offsets are committed
    #[arg(long, default_value = "-1")]
    consumer_group: String,
    /// At most so many, and at most to the input's end at the start; negative: to that end
    #[arg(long, default_value_t = -1)]
    max_messages: i64,
    /// At most so many records per transaction
    #[arg(long, default_value_t = 200)]
    transaction_size: usize,
    /// Milliseconds
    #[arg(long, default_value_t = 60_000)]
    transaction_timeout: u64,
    /// Abort about one transaction of three
    #[arg(long)]
    enable_random_aborts: bool,
    /// Share the topic with other members of the group
    #[arg(long)]
    group_mode: bool,
    /// Send the member's place in the group with the offsets
    #[arg(long)]
    use_group_metadata: bool,
}

/// How long a poll waits.
const POLL: Duration = Duration::from_millis(200);

fn main() {
    if std::env::args_os().len() <= 1 {
        eprintln!("without arguments there is nothing to copy: see --help");
        std::process::exit(1);
    }
    support::run(copy)
}

async fn copy(options: Options) -> Result<i32> {
    let signals = Signals::take(|| {})?;
    let mut copier = Copier::start(options, &signals).await?;
    let outcome = tokio::select! {
        biased;
        () = signals.first() => Ok(()),
        outcome = copier.run() => outcome,
    };
    if outcome.is_ok() {
        copier.status("ShutdownComplete")?;
    }
    copier.close().await;
    outcome?;
    Ok(signals.status().unwrap_or(0))
}

struct Copier {
    options: Options,
    client: ottla::Client,
    producer: TransactionalProducer,
    consumer: Consumer,
    /// Where the input of the assigned partitions ended when they were assigned.
    ends: BTreeMap<TopicPartition, i64>,
    /// The next offset of each to be copied, as committed.
    committed: BTreeMap<TopicPartition, i64>,
    total: i64,
    consumed: i64,
    chance: u64,
}

impl Copier {
    async fn start(options: Options, signals: &Signals) -> Result<Self> {
        let mut settings = Settings::read(None)?;
        settings.set("bootstrap.servers", &options.broker_list);
        settings.set("batch.size", "512");
        settings.set("enable.auto.commit", "false");
        settings.set("isolation.level", "read_committed");
        settings.set("auto.offset.reset", "earliest");
        settings.set("max.poll.interval.ms", "180000");
        settings.set("max.poll.records", &options.transaction_size);
        if options.group_mode {
            settings.set("group.protocol", "classic");
            settings.set("session.timeout.ms", "10000");
            settings.set("heartbeat.interval.ms", "3000");
        }
        let client = settings.client()?;
        let building = client
            .transactional_producer(&options.transactional_id)
            .transaction_timeout(Duration::from_millis(options.transaction_timeout))
            .build();
        let producer = tokio::select! {
            biased;
            () = signals.first() => return Err("ended before it began".into()),
            built = building => built?,
        };
        let consumer = client.consumer(&options.consumer_group);
        let input = TopicPartition::new(options.input_topic.as_str(), options.input_partition);
        let consumer = match options.group_mode {
            true => consumer.subscribe([options.input_topic.as_str()]),
            false => consumer.assign([input.clone()]),
        };
        let mut copier = Self {
            consumer: consumer.build()?,
            client,
            producer,
            ends: BTreeMap::new(),
            committed: BTreeMap::new(),
            total: 0,
            consumed: 0,
            chance: RandomState::new().build_hasher().finish() | 1,
            options,
        };
        if !copier.options.group_mode {
            copier.take(vec![input]).await?;
        }
        Ok(copier)
    }

    async fn run(&mut self) -> Result {
        while self.remaining() > 0 || (self.options.group_mode && self.ends.is_empty()) {
            self.status("ProcessLoop")?;
            let event = tokio::time::timeout(POLL, self.consumer.next_event()).await;
            match event {
                Err(_) => {}
                Ok(event) => match event? {
                    Some(Event::Records(batches)) => {
                        support::tell(batches.errors())?;
                        if !batches.is_empty() {
                            self.copy_batch(&batches).await?;
                        }
                    }
                    Some(Event::Assigned(_)) if self.options.group_mode => {
                        let assigned = self.consumer.assignment();
                        self.take(assigned).await?;
                        self.consumed = 0;
                        self.status("RebalanceComplete")?;
                    }
                    Some(Event::Revoking(revoking)) => {
                        self.give_up(revoking.partitions());
                        revoking.done();
                    }
                    Some(Event::Lost(partitions)) => self.give_up(&partitions),
                    Some(_) => {}
                    None => return Ok(()),
                },
            }
        }
        Ok(())
    }

    /// Copies what was polled in one transaction.
    async fn copy_batch(&mut self, batches: &Batches) -> Result {
        let aborts = self.options.enable_random_aborts && self.one_in_three();
        let left = match self.options.max_messages {
            most @ 0.. => usize::try_from(most - self.total).unwrap_or(0),
            _ => usize::MAX,
        };
        let transaction = self.producer.begin().await?;
        let output = transaction.topic(self.options.output_topic.as_str());
        let mut next: BTreeMap<TopicPartition, i64> = BTreeMap::new();
        let mut copied = 0;
        let mut sent = Ok(());
        'all: for batch in batches {
            let tp = batch.topic_partition();
            let Some(end) = self.ends.get(tp).copied() else {
                continue; // not ours any more
            };
            for record in batch {
                let record = record?;
                if copied == left || record.offset() >= end {
                    continue 'all;
                }
                let mut copy = Record::new().with_partition(tp.partition());
                if let Some(key) = record.key() {
                    copy = copy.with_key(key);
                }
                if let Some(value) = record.value() {
                    copy = copy.with_value(value);
                }
                if let Err(error) = output.enqueue(copy).await {
                    sent = Err(error);
                    break 'all;
                }
                copied += 1;
                next.insert(tp.clone(), record.offset() + 1);
            }
        }
        drop(output);
        if sent.is_ok() {
            let offsets = next.iter();
            let offsets = offsets.map(|(tp, next)| (tp.clone(), OffsetAndMetadata::new(*next)));
            let group = match self.options.use_group_metadata {
                true => self.consumer.group_metadata(),
                false => GroupMetadata::of_group(&self.options.consumer_group),
            };
            sent = transaction.send_offsets(offsets, &group).await;
        }
        let committed = match sent {
            Ok(()) if !aborts => match transaction.commit().await {
                Ok(()) => true,
                Err(CommitError::Unknown(error)) => {
                    eprintln!("{error}");
                    let outcome = self.producer.settle().await?;
                    outcome == Some(ottla::TransactionOutcome::Committed)
                }
                Err(error) if error.error().is_fatal() => return Err(error.into()),
                Err(error) => {
                    eprintln!("{error}");
                    false
                }
            },
            Ok(()) => {
                transaction.abort().await?;
                false
            }
            Err(error) if error.is_fatal() => return Err(error.into()),
            Err(error) => {
                eprintln!("{error}");
                transaction.abort().await?;
                false
            }
        };
        if committed {
            let copied = i64::try_from(copied)?;
            self.total += copied;
            self.consumed += copied;
            self.committed.extend(next);
            // What was polled and not copied is past the end that is copied to.
            return Ok(());
        }
        let mine = self.ends.keys().cloned().collect();
        self.go_back(mine).await
    }

    /// Takes partitions: where they begin, and where they end now.
    async fn take(&mut self, partitions: Vec<TopicPartition>) -> Result {
        self.ends = self.consumer.end_offsets(&partitions).await?;
        self.go_back(partitions).await
    }

    /// Goes on at the committed offsets, or at the beginnings.
    async fn go_back(&mut self, partitions: Vec<TopicPartition>) -> Result {
        let committed = self.consumer.committed(&partitions).await?;
        let beginnings = self.consumer.beginning_offsets(&partitions).await?;
        self.committed.clear();
        for tp in partitions {
            let known = committed.get(&tp);
            let begins = beginnings.get(&tp).copied().unwrap_or(0);
            let offset = known.map_or(begins, |known| known.offset());
            // A partition that was taken away meanwhile is not this consumer's to read.
            if self.consumer.seek(&tp, offset).is_ok() {
                self.committed.insert(tp, offset);
            }
        }
        Ok(())
    }

    fn give_up(&mut self, partitions: &[TopicPartition]) {
        for tp in partitions {
            self.ends.remove(tp);
            self.committed.remove(tp);
        }
    }

    /// How many offsets are still to be copied.
    fn remaining(&self) -> i64 {
        let left = self.ends.iter().map(|(tp, end)| {
            let next = self.position(tp);
            (end - next).max(0)
        });
        let left: i64 = left.sum();
        match self.options.max_messages {
            most @ 0.. => left.min(most - self.total),
            _ => left,
        }
    }

    /// The next offset to be copied. What is no record (the markers of transactions) is passed.
    fn position(&self, tp: &TopicPartition) -> i64 {
        let committed = self.committed.get(tp).copied().unwrap_or(0);
        committed.max(self.consumer.position(tp).unwrap_or(0))
    }

    fn one_in_three(&mut self) -> bool {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance.is_multiple_of(3)
    }

    fn status(&self, stage: &str) -> Result {
        let status = json!({
            "transactionalId": self.options.transactional_id,
            "stage": stage,
            "time": clock_time(SystemTime::now()),
            "totalProcessed": self.total,
            "consumed": self.consumed,
            "remaining": self.remaining(),
        });
        let line = format!("{status}\n");
        let mut out = std::io::stdout().lock();
        out.write_all(line.as_bytes())?;
        Ok(out.flush()?)
    }

    async fn close(self) {
        if let Err(error) = self.producer.close_timeout(PATIENCE / 2).await {
            eprintln!("{error}");
        }
        if let Err(error) = self.consumer.close_timeout(PATIENCE / 4).await {
            eprintln!("{error}");
        }
        let _ = self.client.close_timeout(PATIENCE / 4).await;
    }
}

/// A time (UTC) as `2026/11/22 19:22:42:401`.
fn clock_time(time: SystemTime) -> String {
    let millis = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    let (seconds, millis) = (millis / 1000, millis % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March, so that the day that some have more comes last.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u128::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}/{month:02}/{day:02} {hour:02}:{minute:02}:{second:02}:{millis:03}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_dates() {
        for (millis, shown) in [
            (0, "1970/01/01 00:00:00:000"),
            (951_782_399_999, "2000/02/28 23:59:59:999"),
            (951_868_799_000, "2000/02/29 23:59:59:000"),
            (951_868_800_001, "2000/03/01 00:00:00:001"),
            (1_795_461_762_401, "2026/11/23 19:22:42:401"),
        ] {
            let time = UNIX_EPOCH + Duration::from_millis(millis);
            assert_eq!(clock_time(time), shown);
        }
    }
}
