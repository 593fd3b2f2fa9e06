//! Tells how far behind a consumer is, in records and in time: on the terminal, and to Prometheus.
//!
//! Without arguments it runs on a cluster inside the process, with a producer that is faster than
//! the consumer, so that there is something to see:
//!
//! ```text
//! cargo run --release --example lag_exporter
//! curl http://127.0.0.1:9898/metrics
//! ```
//!
//! On a real cluster it is a member of a group of its own that reads the topic as fast as it can:
//! `-- --bootstrap HOST:PORT --topic TOPIC --group GROUP`. In a service, put `watch_lag` beside the
//! consumer that does the work, or use the feature `metrics`, which publishes the same with
//! everything else.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Parser;
use futures_util::StreamExt;
use ottla::mock::MockCluster;
use ottla::{Client, Consumer, Lag, LagStream, OffsetReset, PartitionLag, Record, TimeLag};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

#[derive(Clone, Parser)]
#[command(
    name = "lag_exporter",
    about = "Shows a consumer's lag and serves it to Prometheus"
)]
struct Options {
    /// Addresses of some brokers (HOST:PORT[,HOST:PORT…]); without it: a cluster inside the process
    #[arg(long)]
    bootstrap: Option<String>,
    #[arg(long, default_value = "orders")]
    topic: String,
    #[arg(long, default_value = "lag-exporter")]
    group: String,
    /// Where Prometheus finds it
    #[arg(long, default_value = "127.0.0.1:9898")]
    listen: String,
    /// How often the lag is measured, in milliseconds
    #[arg(long, default_value_t = 1000)]
    interval: u64,
}

#[tokio::main]
async fn main() -> Result {
    let options = Options::parse();
    let listener = TcpListener::bind(&options.listen).await?;
    println!("serving http://{}/metrics", listener.local_addr()?);
    let Some(bootstrap) = &options.bootstrap else {
        let mock = MockCluster::builder()
            .topic(&options.topic, 3)
            .start()
            .await?;
        let pause = Duration::from_millis(20); // half as fast as the producer
        let client = mock.client();
        return tokio::select! {
            ended = produce(mock.client(), &options.topic) => ended,
            ended = run(&client, &options, pause, listener) => ended,
        };
    };
    let client = Client::builder().bootstrap(bootstrap.split(','));
    let client = client.client_id("lag_exporter").connect().await?;
    run(&client, &options, Duration::ZERO, listener).await
}

/// Consumes until ctrl-c, and tells of it meanwhile. After each batch it rests.
async fn run(client: &Client, options: &Options, rest: Duration, listener: TcpListener) -> Result {
    let consumer = client.consumer(&options.group).subscribe([&*options.topic]);
    let consumer = consumer
        .offset_reset(OffsetReset::Earliest)
        .max_poll_records(10);
    let mut consumer = consumer.build()?;
    let latest = Arc::new(Mutex::new(Lag::default()));
    let lags = consumer.watch_lag(Duration::from_millis(options.interval.max(1)));
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended?,
        ended = consume(&mut consumer, rest) => ended?,
        () = watch(lags, &latest) => {}
        ended = serve(listener, &options.group, &latest) => ended?,
    }
    consumer.close_timeout(Duration::from_secs(10)).await?;
    Ok(())
}

/// A hundred records a second.
async fn produce(client: Client, topic: &str) -> Result {
    let producer = client.producer().build()?;
    loop {
        producer
            .enqueue(Record::to(topic).with_value("an order"))
            .await?
            .await?;
        sleep(Duration::from_millis(10)).await;
    }
}

async fn consume(consumer: &mut Consumer, rest: Duration) -> Result {
    while let Some(batches) = consumer.poll().await? {
        for error in batches.errors() {
            eprintln!("{error}"); // of one partition; the others go on
        }
        sleep(rest * batches.record_count() as u32).await;
    }
    Ok(())
}

async fn watch(mut lags: LagStream, latest: &Mutex<Lag>) {
    while let Some(lag) = lags.next().await {
        for partition in lag.partitions() {
            println!("{}", line(partition));
        }
        *latest.lock().unwrap_or_else(PoisonError::into_inner) = lag;
    }
}

/// As `orders-0    12 records, 3.401 s behind`.
fn line(lag: &PartitionLag) -> String {
    let records = lag
        .records
        .map_or_else(|| "?".to_owned(), |records| records.to_string());
    let time = match lag.time {
        TimeLag::CaughtUp => "caught up".to_owned(),
        TimeLag::Behind(age) => format!("{:.3} s behind", age.as_secs_f64()),
        _ => "time not known".to_owned(),
    };
    format!(
        "{:<20} {records:>8} records, {time}",
        lag.topic_partition.to_string()
    )
}

/// Answers one scrape after the other.
async fn serve(listener: TcpListener, group: &str, latest: &Mutex<Lag>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let text = {
            let lag = latest.lock().unwrap_or_else(PoisonError::into_inner);
            exposition(group, &lag)
        };
        // Who is slow or hangs up is not waited for.
        if let Ok(Err(error)) = timeout(Duration::from_secs(2), answer(stream, &text)).await {
            eprintln!("a scrape failed: {error}");
        }
    }
}

async fn answer(mut stream: TcpStream, text: &str) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && request.len() < 8192 {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let (status, body) = match request.starts_with(b"GET /metrics ") {
        true => ("200 OK", text),
        false => ("404 Not Found", "GET /metrics\n"),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// Prometheus' text format. What is not known is left out; a time that is not known is NaN.
fn exposition(group: &str, lag: &Lag) -> String {
    type Value = fn(&PartitionLag) -> Option<f64>;
    let metrics: [(&str, &str, Value); 5] = [
        (
            "ottla_consumer_records_lag",
            "Offsets between the position and the end of the log.",
            |lag| lag.records.map(|records| records as f64),
        ),
        (
            "ottla_consumer_time_lag_seconds",
            "The age of the first record not read yet; 0 when caught up.",
            |lag| {
                Some(
                    lag.time
                        .duration()
                        .map_or(f64::NAN, |age| age.as_secs_f64()),
                )
            },
        ),
        (
            "ottla_consumer_position",
            "The offset of the next record to be read.",
            |lag| lag.position.map(|offset| offset as f64),
        ),
        (
            "ottla_consumer_committed_offset",
            "What the group has committed.",
            |lag| lag.committed.map(|offset| offset as f64),
        ),
        ("ottla_consumer_end_offset", "The end of the log.", |lag| {
            lag.end_offset.map(|offset| offset as f64)
        }),
    ];
    let group = group
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    let mut text = String::new();
    for (name, help, value) in metrics {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for partition in lag.partitions() {
            let tp = &partition.topic_partition;
            let (topic, number) = (tp.topic(), tp.partition());
            if let Some(value) = value(partition) {
                let labels = format!("group=\"{group}\",topic=\"{topic}\",partition=\"{number}\"");
                let _ = writeln!(text, "{name}{{{labels}}} {value}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    fn value(response: &str, name: &str, partition: i32) -> Option<f64> {
        let labels =
            format!("{{group=\"g \\\"1\\\"\",topic=\"orders\",partition=\"{partition}\"}} ");
        let mut lines = response.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(&labels))?;
        value.parse().ok()
    }

    #[tokio::test]
    async fn a_scrape_has_the_lag_of_every_partition() -> Result {
        let mock = MockCluster::builder().topic("orders", 2).start().await?;
        let client = mock.client();
        let producer = client.producer().build()?;
        for _ in 0..15 {
            let record = Record::to("orders").with_partition(0).with_value("v");
            producer.send(record).await?;
        }
        let options = Options {
            bootstrap: None,
            topic: "orders".to_owned(),
            group: "g \"1\"".to_owned(),
            listen: String::new(),
            interval: 20,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        // It takes ten records and then rests for longer than the test lasts.
        let long = Duration::from_secs(600);
        let running = run(&client, &options, long, listener);
        let scraping = async {
            loop {
                let response = get(address, "/metrics").await;
                let lag = value(&response, "ottla_consumer_records_lag", 0);
                if lag == Some(5.0) {
                    return response;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        let response = tokio::select! {
            ended = running => return ended,
            response = timeout(Duration::from_secs(60), scraping) => response?,
        };
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        let of = |name, partition| value(&response, name, partition);
        assert!(of("ottla_consumer_time_lag_seconds", 0).is_some_and(|age| age > 0.0));
        assert_eq!(of("ottla_consumer_position", 0), Some(10.0));
        assert_eq!(of("ottla_consumer_end_offset", 0), Some(15.0));
        assert_eq!(of("ottla_consumer_records_lag", 1), Some(0.0));
        assert_eq!(of("ottla_consumer_time_lag_seconds", 1), Some(0.0));
        let (_, body) = response.split_once("\r\n\r\n").unwrap_or_default();
        for line in body.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(
                name.ends_with('}') && value.parse::<f64>().is_ok(),
                "{line}"
            );
        }
        Ok(())
    }

    #[tokio::test]
    async fn other_paths_are_not_found() -> Result {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let latest = Mutex::default();
        tokio::select! {
            ended = serve(listener, "g", &latest) => ended?,
            response = get(address, "/") => assert!(response.starts_with("HTTP/1.1 404"), "{response}"),
        }
        Ok(())
    }
}
