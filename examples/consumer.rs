//! Prints the records of topics: as a member of a group, or every partition by itself.
//!
//! ```text
//! cargo run --release --example consumer -- --bootstrap localhost:9092 --topic numbers --group g --from-beginning
//! ```

#[path = "support/logs.rs"]
mod logs;

use std::error::Error;
use std::io::{self, BufWriter, Write};
use std::time::{Duration, Instant};

use clap::Parser;
use ottla::{Client, Consumer, Headers, OffsetReset, PartitionBatch, TopicPartition};

#[derive(Parser)]
#[command(about = "Prints the records of topics")]
struct Options {
    /// Addresses of some brokers: HOST:PORT[,HOST:PORT…]
    #[arg(long, value_name = "ADDRESSES", default_value = "localhost:9092")]
    bootstrap: String,
    #[arg(long = "topic", required = true)]
    topics: Vec<String>,
    /// Share the partitions with the other members of this group, and commit
    #[arg(long)]
    group: Option<String>,
    /// Where there is no committed offset, start at the beginning rather than the end
    #[arg(long)]
    from_beginning: bool,
    /// End after so many records
    #[arg(long, value_name = "COUNT", default_value_t = u64::MAX)]
    max_messages: u64,
    /// End when nothing came for so long
    #[arg(long, value_name = "MILLISECONDS")]
    timeout_ms: Option<u64>,
    /// Print partition, offset, timestamp, key and headers in front of the value
    #[arg(long)]
    verbose: bool,
    /// Count records rather than print them
    #[arg(long)]
    quiet: bool,
    /// One of Kafka's consumer settings, such as isolation.level=read_committed; may be given
    /// several times
    #[arg(long = "property", short = 'P', value_name = "NAME=VALUE", value_parser = pair)]
    properties: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    logs::to_stderr("error");
    let options = Options::parse();
    let mut properties = vec![("bootstrap.servers".to_owned(), options.bootstrap.clone())];
    properties.extend(options.properties.clone());
    let client = Client::from_properties(properties)?.connect().await?;
    let mut consumer = open(&client, &options).await?;
    let outcome = tokio::select! {
        outcome = print(&mut consumer, &options) => outcome,
        _ = tokio::signal::ctrl_c() => {
            eprintln!("interrupted: leaving in order");
            Ok(())
        }
    };
    consumer.close_timeout(Duration::from_secs(30)).await?;
    client.close().await?;
    outcome
}

async fn open(client: &Client, options: &Options) -> Result<Consumer, Box<dyn Error>> {
    let reset = match options.from_beginning {
        true => OffsetReset::Earliest,
        false => OffsetReset::Latest,
    };
    if let Some(group) = &options.group {
        let consumer = client
            .consumer(group.clone())
            .subscribe(options.topics.iter().map(String::as_str));
        return Ok(consumer.offset_reset(reset).build()?);
    }
    let topics = client
        .admin()
        .describe_topics(&options.topics)
        .await?
        .all()?;
    let partitions = topics.iter().flat_map(|topic| {
        let numbers = topic.partitions.iter().map(|partition| partition.partition);
        numbers.map(|number| TopicPartition::new(topic.name.as_str(), number))
    });
    Ok(client
        .reader()
        .assign(partitions)
        .offset_reset(reset)
        .build()?)
}

async fn print(consumer: &mut Consumer, options: &Options) -> Result<(), Box<dyn Error>> {
    let mut out = BufWriter::new(io::stdout().lock());
    let patience = options
        .timeout_ms
        .map_or(Duration::MAX, Duration::from_millis);
    let (start, mut told, mut count) = (Instant::now(), Instant::now(), 0);
    let usual = consumer.max_poll_records();
    while count < options.max_messages {
        let left = usize::try_from(options.max_messages - count);
        consumer.set_max_poll_records(left.map_or(usual, |left| usual.min(left)));
        let Ok(polled) = tokio::time::timeout(patience, consumer.poll()).await else {
            break;
        };
        let Some(batches) = polled? else { break };
        if let Some(error) = batches.errors().first() {
            return Err(error.clone().into()); // of one partition: a service would go on
        }
        for batch in &batches {
            for record in batch.records() {
                let record = record?;
                count += 1;
                if options.quiet {
                    continue;
                }
                if options.verbose {
                    prefix(&mut out, batch, &record)?;
                }
                out.write_all(record.value().unwrap_or(b"null"))?;
                out.write_all(b"\n")?;
            }
        }
        out.flush()?;
        consumer.finish(); // and so committed, however this ends
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            let lag = consumer.lag();
            eprintln!(
                "{count} records; lag: {} records, {:?}",
                lag.records(),
                lag.time()
            );
        }
    }
    out.flush()?;
    let seconds = start.elapsed().as_secs_f64();
    eprintln!(
        "{count} records in {seconds:.3} s ({:.0}/s)",
        count as f64 / seconds
    );
    Ok(())
}

fn prefix(
    out: &mut impl Write,
    batch: &PartitionBatch,
    record: &ottla::RecordView<'_>,
) -> io::Result<()> {
    write!(
        out,
        "{}@{} {:?}:{} ",
        batch.topic_partition(),
        record.offset(),
        record.timestamp_type(),
        record.timestamp().as_millis()
    )?;
    out.write_all(record.key().unwrap_or(b"null"))?;
    out.write_all(b" [")?;
    headers(out, record.headers())?;
    out.write_all(b"] ")
}

fn headers(out: &mut impl Write, headers: Headers<'_>) -> io::Result<()> {
    for (index, header) in headers.enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        out.write_all(header.name())?;
        out.write_all(b":")?;
        out.write_all(header.value().unwrap_or(b"null"))?;
    }
    Ok(())
}
