//! Measures the client: records per second, CPU time and memory, as one line of JSON.
//!
//! ```text
//! cargo run --release --example bench -- --mode produce --bootstrap localhost:9092 --topic t --partitions 6
//! ```
//!
//! `--mode roles --roles 40 --seconds 10` (with `--mock`, on a mock cluster) measures how long
//! records take where many roles share a client.
//!
//! `--api batch` is the cheapest form (`enqueue_all`; borrowed records), `--api each` that of one
//! awaitable per record (a `Delivery` each; owned records through a stream).

use std::collections::VecDeque;
use std::error::Error;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use futures_util::StreamExt;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use ottla::admin::NewTopic;
use ottla::mock::MockCluster;
use ottla::{Acks, Client, Consumer, OffsetReset, Producer, Record, TopicPartition};

type Failure = Box<dyn Error + Send + Sync>;
type Result<T = (), E = Failure> = std::result::Result<T, E>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Produce,
    Consume,
    /// One producer at a fixed rate, and the time from the send to the acknowledgement and to the
    /// consumer.
    Latency,
    /// Tasks that each send a record and wait for its acknowledgement.
    Conc,
    /// Many roles on one client: half of them group members, a quarter producers, the rest readers
    /// of an empty topic. Each producer has a topic of its own and writes a record every 10 ms.
    Roles,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Api {
    Batch,
    Each,
    /// As `each`, through a handle of the topic.
    Topic,
    /// Acknowledgements by reports of batches.
    Report,
}

#[derive(Clone, Debug, Parser)]
struct Options {
    #[arg(long, value_enum, default_value = "produce")]
    mode: Mode,
    #[arg(long, value_enum, default_value = "batch")]
    api: Api,
    #[arg(long, default_value = "127.0.0.1:9092")]
    bootstrap: String,
    #[arg(long, default_value = "t-p6")]
    topic: String,
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    size: usize,
    #[arg(long, default_value = "all")]
    acks: String,
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    idempotent: bool,
    #[arg(long, default_value = "none")]
    compression: String,
    #[arg(long, default_value_t = 5)]
    linger_ms: u64,
    #[arg(long, default_value_t = 1_000_000)]
    batch_bytes: usize,
    #[arg(long, default_value_t = 6)]
    partitions: i32,
    /// Records per second of the latency mode.
    #[arg(long, default_value_t = 2000)]
    rate: u64,
    /// Tasks of the conc mode.
    #[arg(long, default_value_t = 64)]
    concurrency: u64,
    /// Records of one `enqueue_all`; a quarter of what may be outstanding at the most.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    bulk: u64,
    /// Bytes of values that may be outstanding before the oldest deliveries are awaited.
    #[arg(long, default_value_t = 32 << 20)]
    window_bytes: usize,
    /// Roles of the roles mode, and how long they write.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(4..))]
    roles: u32,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The roles mode: a mock cluster of three brokers in this process, instead of `--bootstrap`.
    #[arg(long)]
    mock: bool,
    /// False: the library's defaults, and its own choice of partitions.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    tuned: bool,
}

/// Deliveries that may be outstanding before the oldest are awaited.
const WINDOW: usize = 200_000;

#[tokio::main]
async fn main() -> Result {
    let options = Options::parse();
    match options.mode {
        Mode::Produce => produce(&options).await,
        Mode::Consume => consume(&options).await,
        Mode::Latency => latency(&options).await,
        Mode::Conc => concurrent(&options).await,
        Mode::Roles => roles(options).await,
    }
}

async fn client(options: &Options) -> Result<Client> {
    Ok(Client::builder()
        .bootstrap(options.bootstrap.split(','))
        .client_id("bench")
        .connect()
        .await?)
}

async fn producer(options: &Options) -> Result<Producer> {
    let builder = client(options)
        .await?
        .producer()
        .compression(options.compression.parse()?);
    let builder = match options.tuned {
        false => builder,
        true => builder
            .acks(match options.acks.as_str() {
                "0" => Acks::None,
                "1" => Acks::Leader,
                _ => Acks::All,
            })
            .idempotence(options.idempotent)
            .batch_size(options.batch_bytes)
            .linger(Duration::from_millis(options.linger_ms))
            .buffer_memory(256 << 20),
    };
    Ok(builder.build()?)
}

fn record<'a>(options: &'a Options, pool: &'a Pool, number: u64) -> Record<'a> {
    let record = Record::to(&options.topic).with_value(pool.get(number));
    match options.tuned {
        true => record.with_partition((number % options.partitions as u64) as i32),
        false => record,
    }
}

async fn produce(options: &Options) -> Result {
    let pool = Pool::new(options.size);
    let producer = producer(options).await?;
    warm(&producer, options).await?;
    let topic = producer.topic(options.topic.as_str());
    let window = WINDOW.min(options.window_bytes / options.size.max(1));
    let run = Run::start(options.records);
    let mut acknowledged = 0;
    match options.api {
        Api::Report => {
            for number in 0..options.records {
                topic.enqueue(record(options, &pool, number)).await?;
            }
            producer.flush().await?;
            acknowledged = producer.metrics().records;
            run.passed(0, acknowledged);
        }
        Api::Each | Api::Topic => {
            let mut deliveries = VecDeque::with_capacity(window);
            for number in 0..options.records {
                let record = record(options, &pool, number);
                deliveries.push_back(match options.api {
                    Api::Topic => topic.enqueue(record).await?,
                    _ => producer.enqueue(record).await?,
                });
                if deliveries.len() == window {
                    for delivery in deliveries.drain(..window / 2) {
                        delivery.await?;
                        acknowledged += 1;
                        run.passed(acknowledged - 1, acknowledged);
                    }
                }
            }
            for delivery in deliveries {
                delivery.await?;
                acknowledged += 1;
                run.passed(acknowledged - 1, acknowledged);
            }
        }
        Api::Batch => {
            let mut deliveries = VecDeque::new();
            let bulk = options.bulk.min(window as u64 / 4).max(1);
            let mut first = 0;
            while first < options.records {
                let last = (first + bulk).min(options.records);
                let records = (first..last).map(|number| record(options, &pool, number));
                deliveries.push_back((last - first, producer.enqueue_all(records).await?));
                first = last;
                if deliveries.len() * bulk as usize >= window {
                    let (count, oldest) = deliveries.pop_front().ok_or("nothing to await")?;
                    oldest.await?;
                    acknowledged += count;
                    run.passed(acknowledged - count, acknowledged);
                }
            }
            for (count, delivery) in deliveries {
                delivery.await?;
                acknowledged += count;
                run.passed(acknowledged - count, acknowledged);
            }
        }
    }
    assert_eq!(acknowledged, options.records);
    run.finish(options, &[])
}

/// Has the topic's metadata and the producer's identity there before the clock starts.
async fn warm(producer: &Producer, options: &Options) -> Result {
    let empty = Record::to(&options.topic).with_partition(i32::MAX);
    // A partition that does not exist: looked up, refused, nothing sent.
    match producer.enqueue(empty).await {
        Err(error) if error.kind() == ottla::ErrorKind::UnknownPartition => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err("the topic has too many partitions".into()),
    }
}

async fn concurrent(options: &Options) -> Result {
    let pool = Arc::new(Pool::new(options.size));
    let producer = producer(options).await?;
    warm(&producer, options).await?;
    let run = Arc::new(Run::start(options.records));
    let (next, acknowledged) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..options.concurrency)
        .map(|_| {
            let (options, pool, producer) = (options.clone(), Arc::clone(&pool), producer.clone());
            let (run, next, acknowledged) = (
                Arc::clone(&run),
                Arc::clone(&next),
                Arc::clone(&acknowledged),
            );
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= options.records {
                        return Ok::<_, ottla::Error>(());
                    }
                    producer.send(record(&options, &pool, number)).await?;
                    let before = acknowledged.fetch_add(1, Ordering::Relaxed);
                    run.passed(before, before + 1);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    run.finish(options, &[])
}

async fn consumer(options: &Options) -> Result<Consumer> {
    let partitions = (0..options.partitions)
        .map(|partition| TopicPartition::new(options.topic.as_str(), partition));
    let builder = client(options)
        .await?
        .reader()
        .assign(partitions)
        .offset_reset(OffsetReset::Earliest);
    let builder = match options.tuned {
        true => builder.max_poll_records(10_000),
        false => builder,
    };
    Ok(builder.build()?)
}

async fn consume(options: &Options) -> Result {
    let run = Run::start(options.records);
    let mut consumer = consumer(options).await?;
    let (mut count, mut bytes) = (0, 0);
    match options.api {
        Api::Batch => {
            while count < options.records {
                let batches = consumer.poll().await?.ok_or("the consumer was closed")?;
                let before = count;
                for batch in &batches {
                    for record in batch.records() {
                        bytes += record?.value().map_or(0, <[u8]>::len);
                        count += 1;
                    }
                }
                run.passed(before, count);
            }
        }
        _ => {
            let mut stream = consumer.stream();
            while count < options.records {
                let record = stream.next().await.ok_or("the stream ended")??;
                bytes += record.value().map_or(0, <[u8]>::len);
                count += 1;
                run.passed(count - 1, count);
            }
        }
    }
    run.finish(options, &[("value_bytes", bytes.to_string())])
}

async fn latency(options: &Options) -> Result {
    let pool = Pool::new(options.size.max(8));
    let start = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let reading = tokio::spawn({
        let (options, stop) = (options.clone(), Arc::clone(&stop));
        async move {
            let mut consumer = consumer(&options).await?;
            let tps = consumer.assignment();
            consumer.seek_to_end(&tps)?;
            let _ = consumer.poll_timeout(Duration::from_millis(500)).await?;
            let _ = ready.send(());
            let mut times = Vec::new();
            while !stop.load(Ordering::Relaxed) && (times.len() as u64) < options.records {
                let Some(batches) = consumer.poll_timeout(Duration::from_millis(100)).await? else {
                    break;
                };
                for batch in &batches {
                    for record in batch.records() {
                        let record = record?;
                        let stamp = record
                            .value()
                            .and_then(<[u8]>::first_chunk)
                            .ok_or("no stamp")?;
                        times.push(start.elapsed().as_nanos() as u64 - u64::from_le_bytes(*stamp));
                    }
                }
            }
            Ok::<_, Failure>(times)
        }
    });
    let producer = producer(options).await?;
    warm(&producer, options).await?;
    is_ready.await?;
    let acks = Arc::new(Mutex::new(Vec::new()));
    let run = Run::start(options.records);
    let options_ = options.clone();
    let sending = tokio::task::spawn_blocking({
        let (producer, acks, runtime) = (
            producer.clone(),
            Arc::clone(&acks),
            tokio::runtime::Handle::current(),
        );
        move || {
            let first = Instant::now();
            for number in 0..options_.records {
                let due = first + Duration::from_nanos(number * 1_000_000_000 / options_.rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let mut value = pool.get(number).to_vec();
                let sent = start.elapsed().as_nanos() as u64;
                if let Some(stamp) = value.first_chunk_mut() {
                    *stamp = sent.to_le_bytes();
                }
                let partition = (number % options_.partitions as u64) as i32;
                let record = Record::to(&options_.topic)
                    .with_partition(partition)
                    .with_value(&value);
                let delivery = runtime.block_on(producer.enqueue(record))?;
                let acks = Arc::clone(&acks);
                runtime.spawn(async move {
                    if delivery.await.is_ok() {
                        let time = start.elapsed().as_nanos() as u64 - sent;
                        acks.lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner)
                            .push(time);
                    }
                });
            }
            Ok::<_, ottla::Error>(())
        }
    });
    sending.await??;
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    let mut ends = reading.await??;
    let mut acks = std::mem::take(
        &mut *acks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner),
    );
    if acks.len() as u64 != options.records {
        return Err(format!(
            "{} of {} records were acknowledged",
            acks.len(),
            options.records
        )
        .into());
    }
    let (warm_acks, warm_ends) = (acks.len() / 5, ends.len() / 5);
    let mut fields = quantiles(
        ["ack_p50_us", "ack_p99_us", "ack_p999_us", "ack_max_us"],
        &mut acks[warm_acks..],
    );
    fields.extend(quantiles(
        ["e2e_p50_us", "e2e_p99_us", "e2e_p999_us", "e2e_max_us"],
        &mut ends[warm_ends..],
    ));
    run.finish(options, &fields)
}

/// A member of a group of its own that has got its partitions.
async fn joined(client: &Client, group: String, topic: &str) -> Result<Consumer> {
    let builder = client.consumer(group).subscribe([topic]);
    let builder = builder.offset_reset(OffsetReset::Earliest);
    let mut consumer = builder.build()?;
    while consumer.assignment().is_empty() {
        consumer.poll_timeout(Duration::from_millis(100)).await?;
    }
    Ok(consumer)
}

async fn roles(mut options: Options) -> Result {
    let mock = match options.mock {
        true => Some(MockCluster::builder().brokers(3).start().await?),
        false => None,
    };
    if let Some(mock) = &mock {
        options.bootstrap = mock.bootstrap();
    }
    let client = client(&options).await?;
    let writers = (options.roles / 4).max(1) as usize;
    let members = (options.roles / 2) as usize;
    let id = std::process::id();
    let topics: Vec<_> = (0..=writers).map(|n| format!("roles-{id}-{n}")).collect();
    let (empty, written) = topics.split_last().ok_or("no topics")?;
    let new = topics.iter().map(|topic| NewTopic::new(topic.as_str()));
    client.admin().create_topics(new).await?.all()?;
    let starting = (0..members).map(|n| {
        let topic = &written[n % writers];
        joined(&client, format!("roles-{id}-{n}"), topic)
    });
    let consumers = futures_util::future::try_join_all(starting).await?;
    let idle = options.roles as usize - members - writers;
    let mut readers = tokio::task::JoinSet::<Result>::new();
    for _ in 0..idle {
        let reader = client
            .reader()
            .assign([TopicPartition::new(empty.as_str(), 0)]);
        let mut reader = reader.build()?;
        readers.spawn(async move {
            while reader.poll().await?.is_some() {}
            Ok(())
        });
    }
    let (start, cpu_before) = (Instant::now(), cpu_sum());
    let times = Arc::new(Mutex::new(Vec::<u64>::new()));
    for mut consumer in consumers {
        let times = Arc::clone(&times);
        readers.spawn(async move {
            while let Some(batches) = consumer.poll().await? {
                let now = start.elapsed().as_nanos() as u64;
                let stamps = batches.iter().flatten().map(|record| {
                    let record = record?;
                    let stamp = record.value().and_then(<[u8]>::first_chunk);
                    Ok::<_, Failure>(u64::from_le_bytes(*stamp.ok_or("no stamp")?))
                });
                let took: Vec<_> = stamps
                    .map(|sent| Ok::<_, Failure>(now - sent?))
                    .collect::<Result<_>>()?;
                times
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .extend(took);
            }
            Ok(())
        });
    }
    let mut sending = tokio::task::JoinSet::<Result<(u64, u64)>>::new();
    for (number, topic) in written.iter().enumerate() {
        let (producer, topic) = (client.producer().build()?, topic.clone());
        // How many read it.
        let reads = (members / writers + usize::from(number < members % writers)) as u64;
        let until = start + Duration::from_secs(options.seconds);
        sending.spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(10));
            let mut sent = 0;
            while Instant::now() < until {
                tick.tick().await;
                let stamp = start.elapsed().as_nanos() as u64;
                drop(
                    producer
                        .enqueue(Record::to(&topic).with_value(&stamp.to_le_bytes()))
                        .await?,
                );
                sent += 1;
            }
            producer.flush().await?;
            let failed = producer.metrics().failed_records;
            if failed > 0 {
                return Err(format!("{failed} records were not acknowledged").into());
            }
            Ok((sent, sent * reads))
        });
    }
    let (mut sent, mut expected) = (0, 0);
    for outcome in sending.join_all().await {
        let (written, read) = outcome?;
        sent += written;
        expected += read;
    }
    let locked = || {
        times
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    };
    let patience = Instant::now() + Duration::from_secs(30);
    while (locked().len() as u64) < expected && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (metrics, cpu) = (client.metrics(), cpu_sum() - cpu_before);
    let mut took = std::mem::take(&mut *locked());
    took.sort_unstable();
    let at = |share: f64| {
        let last = took.len().checked_sub(1)?;
        let nanos = took[((took.len() as f64 * share) as usize).min(last)];
        Some(format!("{:.2}", nanos as f64 / 1e6))
    };
    let ms = |share| at(share).unwrap_or_else(|| "null".to_owned());
    println!(
        "{{\"mode\":\"roles\",\"roles\":{},\"connections\":{},\"connections_closed\":{},\"cpu_s\":{cpu:.3},\
         \"sent\":{sent},\"expected\":{expected},\"received\":{},\"p50_ms\":{},\"p99_ms\":{},\"max_ms\":{}}}",
        options.roles,
        metrics.connections,
        metrics.connections_closed,
        took.len(),
        ms(0.5),
        ms(0.99),
        ms(1.0),
    );
    readers.abort_all();
    client.close().await?;
    Ok(())
}

/// p50, p99, p99.9 and the largest, in microseconds.
fn quantiles(names: [&'static str; 4], times: &mut [u64]) -> Vec<(&'static str, String)> {
    times.sort_unstable();
    let Some(last) = times.len().checked_sub(1) else {
        return Vec::new();
    };
    let at = |share: f64| times[((times.len() as f64 * share) as usize).min(last)] as f64 / 1000.0;
    names
        .into_iter()
        .zip([at(0.5), at(0.99), at(0.999), at(1.0)])
        .map(|(name, us)| (name, format!("{us:.1}")))
        .collect()
}

/// User and system CPU seconds of this process.
fn cpu() -> (f64, f64) {
    getrusage(UsageWho::RUSAGE_SELF).map_or((0.0, 0.0), |usage| {
        let seconds = |time: nix::sys::time::TimeVal| time.num_microseconds() as f64 / 1e6;
        (seconds(usage.user_time()), seconds(usage.system_time()))
    })
}

fn cpu_sum() -> f64 {
    let (user, system) = cpu();
    user + system
}

/// The largest resident size so far, MiB.
fn peak_rss() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<f64>().ok())
        .unwrap_or(0.0)
        / 1024.0
}

/// Clocks of one run: its start, the moment a fifth was done, its end.
struct Run {
    records: u64,
    start: Instant,
    cpu: f64,
    fifth: Mutex<Option<(Instant, f64)>>,
}

impl Run {
    fn start(records: u64) -> Self {
        Self {
            records,
            cpu: cpu_sum(),
            fifth: Mutex::new(None),
            start: Instant::now(),
        }
    }

    fn mark(&self) -> u64 {
        (self.records / 5).max(1)
    }

    /// So many records are done.
    #[inline]
    fn passed(&self, before: u64, after: u64) {
        if before < self.mark() && after >= self.mark() {
            *self
                .fifth
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner) =
                Some((Instant::now(), cpu_sum()));
        }
    }

    fn finish(&self, options: &Options, extra: &[(&str, String)]) -> Result {
        let (end, cpu_end) = (Instant::now(), cpu_sum());
        let (user, system) = cpu();
        let wall = (end - self.start).as_secs_f64();
        let records = self.records as f64;
        let per_record = |seconds: f64, records: f64| format!("{:.4}", seconds * 1e6 / records);
        let mut fields = vec![
            ("client", "\"ottla\"".to_owned()),
            ("version", format!("\"{}\"", env!("CARGO_PKG_VERSION"))),
            ("mode", format!("\"{:?}\"", options.mode).to_lowercase()),
            ("records", self.records.to_string()),
            ("size", options.size.to_string()),
            ("wall_s", format!("{wall:.4}")),
            ("records_per_s", format!("{:.0}", records / wall)),
            (
                "mb_per_s",
                format!("{:.2}", records * options.size as f64 / wall / 1e6),
            ),
            ("cpu_s", format!("{cpu_end:.4}")),
            ("cpu_user_s", format!("{user:.4}")),
            ("cpu_sys_s", format!("{system:.4}")),
            ("cpu_us_per_record", per_record(cpu_end, records)),
            (
                "cpu_us_per_record_run",
                per_record(cpu_end - self.cpu, records),
            ),
        ];
        if let Some((time, cpu)) = *self
            .fifth
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
        {
            let rest = records - self.mark() as f64;
            fields.push((
                "steady_records_per_s",
                format!("{:.0}", rest / (end - time).as_secs_f64()),
            ));
            fields.push(("steady_cpu_us_per_record", per_record(cpu_end - cpu, rest)));
        }
        fields.push(("peak_rss_mb", format!("{:.1}", peak_rss())));
        let settings = format!(
            "{{\"topic\":\"{}\",\"acks\":\"{}\",\"idempotent\":{},\"compression\":\"{}\",\"linger_ms\":{},\"batch_bytes\":{},\
             \"partitions\":{},\"rate\":{},\"concurrency\":{},\"tuned\":{},\"api\":\"{}\"}}",
            options.topic,
            options.acks,
            options.idempotent,
            options.compression,
            options.linger_ms,
            options.batch_bytes,
            options.partitions,
            options.rate,
            options.concurrency,
            options.tuned,
            format!("{:?}", options.api).to_lowercase()
        );
        fields.push(("settings", settings));
        let extra = extra.iter().map(|(name, value)| (*name, value.clone()));
        let line: Vec<_> = fields
            .into_iter()
            .chain(extra)
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        println!("{{{}}}", line.join(","));
        Ok(())
    }
}

/// About 8 MiB of distinct values that look like JSON, the same in every run and every language.
struct Pool {
    data: Vec<u8>,
    count: u64,
    size: usize,
}

impl Pool {
    fn new(size: usize) -> Self {
        let mut count = (8 << 20) / size.max(1) as u64;
        // No common divisor with the usual numbers of partitions.
        while [2, 3, 5]
            .iter()
            .any(|divisor| count.is_multiple_of(*divisor))
        {
            count += 1;
        }
        let mut data = Vec::with_capacity(count as usize * size + 4096);
        for index in 0..count {
            value(index, size, &mut data);
        }
        Self { data, count, size }
    }

    fn get(&self, number: u64) -> &[u8] {
        let at = (number % self.count) as usize * self.size;
        self.data.get(at..at + self.size).unwrap_or_default()
    }
}

fn value(index: u64, size: usize, out: &mut Vec<u8>) {
    const EVENTS: [&str; 8] = [
        "page_view",
        "click",
        "purchase",
        "login",
        "logout",
        "add_to_cart",
        "search",
        "refund",
    ];
    const PATHS: [&str; 8] = [
        "products",
        "cart",
        "checkout",
        "account",
        "orders",
        "help",
        "search/results",
        "promo",
    ];
    let mut state = 0x9E37_79B9_7F4A_7C15 ^ (index + 1).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mut next = move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        u64::wrapping_mul(state, 0x2545_F491_4F6C_DD1D)
    };
    let start = out.len();
    while out.len() - start < size {
        let id = next();
        let mut below = |bound: u64| (next() >> 33) % bound;
        let time = 1_700_000_000_000 + below(1_000_000_000);
        let user = below(10_000);
        let event = EVENTS[below(8) as usize];
        let path = PATHS[below(8) as usize];
        let item = below(100_000);
        let millis = below(1000);
        let ok = below(2) == 0;
        let _ = write!(
            out,
            "{{\"id\":\"{id:016x}\",\"ts\":{time},\"user\":\"user-{user}\",\"event\":\"{event}\",\
             \"path\":\"/{path}/{item}\",\"ms\":{millis},\"ok\":{ok},\"tag\":\""
        );
        for _ in 0..12 {
            out.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[below(36) as usize]);
        }
        out.extend_from_slice(b"\"}");
    }
    out.truncate(start + size);
}
