//! Records in and out of a topic, byte for byte, as lines of JSON.
//!
//! ```text
//! echo '{"id":1,"codec":"lz4","partition":null,"timestamp":null,"key":"aw==","value":null,"headers":[["n",null]]}' |
//!   cargo run --release --example roundtrip -- produce --bootstrap-server localhost:9092 --topic t
//! cargo run --release --example roundtrip -- consume --bootstrap-server localhost:9092 --topic t
//! ```

mod support;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Parser};
use ottla::{
    Client, Compression, Consumer, Delivery, Header, Producer, Record, RecordView, Timestamp,
    TopicPartition,
};
use serde_json::{Value, json};
use support::{PATIENCE, Result, Settings, Signals, emit};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::sync::mpsc;

#[derive(Parser)]
#[command(
    name = "roundtrip",
    about = "Records in and out of a topic, byte for byte, as lines of JSON"
)]
enum Options {
    /// Produces the records on standard input
    Produce {
        #[command(flatten)]
        common: Common,
    },
    /// Prints every record of a topic
    Consume {
        #[command(flatten)]
        common: Common,
        /// read_uncommitted or read_committed
        #[arg(long, value_parser = ["read_uncommitted", "read_committed"])]
        isolation_level: Option<String>,
        /// End after this time, complete or not
        #[arg(long, default_value_t = 60_000)]
        timeout_ms: u64,
    },
}

#[derive(Args)]
struct Common {
    /// Addresses of some brokers: HOST:PORT[,HOST:PORT…]
    #[arg(long, value_name = "LIST")]
    bootstrap_server: String,
    #[arg(long)]
    topic: String,
    /// Client settings; the options win over them
    #[arg(long, value_name = "FILE")]
    command_config: Option<PathBuf>,
}

fn main() {
    support::run(async |options| match options {
        Options::Produce { common } => produce(&common).await,
        Options::Consume {
            common,
            isolation_level,
            timeout_ms,
        } => consume(&common, isolation_level, Duration::from_millis(timeout_ms)).await,
    })
}

impl Common {
    fn settings(&self) -> Result<Settings> {
        let mut settings = Settings::read(self.command_config.as_ref())?;
        settings.set("bootstrap.servers", &self.bootstrap_server);
        Ok(settings)
    }
}

/// A line of the input.
struct Line {
    codec: Compression,
    partition: Option<i32>,
    timestamp: Option<i64>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Line {
    fn parse(line: &Value) -> Result<Self> {
        let number = |name: &str| match &line[name] {
            Value::Null => Ok(None),
            value => value
                .as_i64()
                .map(Some)
                .ok_or_else(|| format!("{name} is not an integer")),
        };
        let headers = line["headers"]
            .as_array()
            .ok_or("headers is not a list")?
            .iter();
        let headers = headers.map(|header| match header[0].as_str() {
            Some(name) => Ok((name.to_owned(), bytes(&header[1])?)),
            None => Err("a header has no name".into()),
        });
        Ok(Self {
            codec: line["codec"]
                .as_str()
                .ok_or("codec is not a string")?
                .parse()?,
            partition: number("partition")?.map(i32::try_from).transpose()?,
            timestamp: number("timestamp")?,
            key: bytes(&line["key"])?,
            value: bytes(&line["value"])?,
            headers: headers.collect::<Result<_>>()?,
        })
    }

    fn record<'a>(&'a self, topic: &'a str) -> Record<'a> {
        let mut record = Record::to(topic);
        if let Some(partition) = self.partition {
            record = record.with_partition(partition);
        }
        if let Some(timestamp) = self.timestamp {
            record = record.with_timestamp(Timestamp::from_millis(timestamp));
        }
        if let Some(key) = &self.key {
            record = record.with_key(key);
        }
        if let Some(value) = &self.value {
            record = record.with_value(value);
        }
        for (name, value) in &self.headers {
            record = record.push_header(Header::from_parts(name.as_bytes(), value.as_deref()));
        }
        record
    }
}

fn bytes(text: &Value) -> Result<Option<Vec<u8>>> {
    match text {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(STANDARD.decode(text)?)),
        _ => Err("neither base64 nor null".into()),
    }
}

fn base64(bytes: Option<&[u8]>) -> Option<String> {
    bytes.map(|bytes| STANDARD.encode(bytes))
}

async fn produce(common: &Common) -> Result<i32> {
    let signals = Signals::take(|| ())?;
    let mut settings = common.settings()?;
    settings.set("acks", "all");
    let client = settings.client()?;
    client.producer().build()?; // so that settings which do not fit together are told at once
    let mut producers = HashMap::new();
    let (outcomes, queue) = mpsc::unbounded_channel();
    let reporter = tokio::spawn(report(queue));
    let reading = tokio::select! {
        biased;
        () = signals.first() => Ok(()),
        reading = send_lines(&client, &mut producers, &common.topic, &outcomes) => reading,
    };
    drop(outcomes);
    let producers: Vec<Producer> = producers.into_values().collect();
    for producer in &producers {
        tokio::select! {
            _ = producer.flush() => {} // failures are told record by record
            () = signals.first() => {}
        }
    }
    let closing = producers
        .into_iter()
        .map(|producer| producer.close_timeout(PATIENCE));
    futures_util::future::join_all(closing).await;
    let (produced, failed) = reporter.await??;
    client.close().await?;
    emit("done", json!({ "produced": produced, "failed": failed }))?;
    reading?;
    Ok(signals.status().unwrap_or_else(|| i32::from(failed > 0)))
}

type Outcome = (Value, Result<Delivery>);

/// Sends each line of the input with a producer for its codec.
async fn send_lines(
    client: &Client,
    producers: &mut HashMap<String, Producer>,
    topic: &str,
    outcomes: &mpsc::UnboundedSender<Outcome>,
) -> Result {
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(text) = lines.next_line().await? {
        if text.trim().is_empty() {
            continue;
        }
        let input: Value =
            serde_json::from_str(&text).map_err(|error| format!("{error} in {text}"))?;
        let sent = async {
            let line = Line::parse(&input)?;
            let codec = line.codec.to_string();
            if !producers.contains_key(&codec) {
                let producer = client.producer().compression(line.codec).build()?;
                producers.insert(codec.clone(), producer);
            }
            Ok(producers[&codec].enqueue(line.record(topic)).await?)
        };
        let sent = sent.await;
        outcomes.send((input["id"].clone(), sent))?;
    }
    Ok(())
}

/// Prints what became of each record; returns how many were written and how many failed.
async fn report(mut outcomes: mpsc::UnboundedReceiver<Outcome>) -> Result<(u64, u64)> {
    let (mut produced, mut failed) = (0, 0);
    while let Some((id, sent)) = outcomes.recv().await {
        let outcome = match sent {
            Ok(delivery) => delivery.await.map_err(support::Failure::from),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(written) => {
                let fields = json!({
                    "id": id,
                    "partition": written.partition,
                    "offset": written.offset.unwrap_or(-1),
                    "record_timestamp": written.timestamp.as_millis(),
                });
                emit("record_produced", fields)?;
                produced += 1;
            }
            Err(error) => {
                emit(
                    "record_error",
                    json!({ "id": id, "error": error.to_string() }),
                )?;
                failed += 1;
            }
        }
    }
    Ok((produced, failed))
}

async fn consume(common: &Common, isolation: Option<String>, limit: Duration) -> Result<i32> {
    let signals = Signals::take(|| ())?;
    let mut settings = common.settings()?;
    settings.remove("group.id");
    settings.remove("group.instance.id");
    settings.set("auto.offset.reset", "earliest");
    if let Some(level) = isolation {
        settings.set("isolation.level", &level);
    }
    let client = settings.client()?;
    let mut count = 0;
    let outcome = tokio::select! {
        biased;
        () = signals.first() => Err("ended by a signal".into()),
        outcome = tokio::time::timeout(limit, read_all(&client, &common.topic, &mut count)) => {
            outcome.unwrap_or_else(|_| Err("the time ran out".into()))
        }
    };
    client.close().await?;
    emit(
        "done",
        json!({ "count": count, "complete": outcome.is_ok() }),
    )?;
    if let Err(error) = outcome {
        eprintln!("{error}");
        return Ok(signals.status().unwrap_or(1));
    }
    Ok(0)
}

/// Prints every record that the topic has now.
async fn read_all(client: &Client, topic: &str, count: &mut u64) -> Result {
    let topics = client.admin().describe_topics([topic]).await?.all()?;
    let numbers = topics.iter().flat_map(|topic| &topic.partitions);
    let partitions: Vec<_> = numbers
        .map(|partition| TopicPartition::new(topic, partition.partition))
        .collect();
    let mut consumer = client.reader().assign(partitions.clone()).build()?;
    let starts = consumer.beginning_offsets(&partitions).await?;
    let mut ends = consumer.end_offsets(&partitions).await?;
    ends.retain(|tp, end| *end > starts[tp]);
    loop {
        // A position passes what holds no record for the application, too.
        ends.retain(|tp, end| consumer.position(tp).is_none_or(|position| position < *end));
        if ends.is_empty() {
            consumer.close_timeout(PATIENCE).await?;
            return Ok(());
        }
        print(&mut consumer, &ends, count).await?;
    }
}

async fn print(
    consumer: &mut Consumer,
    ends: &BTreeMap<TopicPartition, i64>,
    count: &mut u64,
) -> Result {
    let batches = consumer.poll_timeout(Duration::from_millis(100)).await?;
    let batches = batches.ok_or("the consumer was closed")?;
    support::tell(batches.errors())?;
    for batch in &batches {
        for record in batch {
            let record = record?;
            if ends
                .get(batch.topic_partition())
                .is_some_and(|end| record.offset() < *end)
            {
                emit("record", fields(&record))?;
                *count += 1;
            }
        }
    }
    Ok(())
}

fn fields(record: &RecordView<'_>) -> Value {
    let headers = record.headers().map(|header| {
        json!([
            String::from_utf8_lossy(header.name()),
            base64(header.value())
        ])
    });
    json!({
        "partition": record.partition(),
        "offset": record.offset(),
        "record_timestamp": record.timestamp().as_millis(),
        "timestamp_type": format!("{:?}", record.timestamp_type()),
        "key": base64(record.key()),
        "value": base64(record.value()),
        "headers": headers.collect::<Vec<_>>(),
    })
}
