//! The table against what is published, by a recorder that remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::metrics::{
    CounterFn, GaugeFn, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString,
    with_local_recorder,
};

use super::table::{ALL, Kind, Unit};
use crate::mock::{Api, MockCluster};
use crate::{Client, OffsetAndMetadata, OffsetReset, Record, TopicPartition};

const MINUTE: Duration = Duration::from_secs(60);

type Labels = BTreeMap<String, String>;

/// Everything that was registered, by name and labels.
#[derive(Clone, Default)]
struct Remembers(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    described: BTreeMap<String, (Kind, Option<::metrics::Unit>, String)>,
    registered: BTreeMap<(String, Labels), (Kind, Arc<Cell>)>,
}

#[derive(Default)]
struct Cell(Mutex<(u64, f64)>);

impl Cell {
    fn change(&self, change: impl FnOnce(f64) -> f64) {
        let mut cell = self.0.lock().unwrap();
        cell.0 += 1;
        cell.1 = change(cell.1);
    }
}

impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        self.change(|before| before + value as f64);
    }

    fn absolute(&self, _: u64) {
        panic!("counters of several producers add up");
    }
}

impl GaugeFn for Cell {
    fn increment(&self, value: f64) {
        self.change(|before| before + value);
    }

    fn decrement(&self, value: f64) {
        self.change(|before| before - value);
    }

    fn set(&self, value: f64) {
        self.change(|_| value);
    }
}

impl HistogramFn for Cell {
    fn record(&self, value: f64) {
        assert!(value >= 0.0);
        self.change(|before| before + value);
    }
}

impl Remembers {
    fn cell(&self, key: &Key, kind: Kind) -> Arc<Cell> {
        let labels = key.labels();
        let labels = labels.map(|label| (label.key().to_owned(), label.value().to_owned()));
        let key = (key.name().to_owned(), labels.collect());
        let mut seen = self.0.lock().unwrap();
        let (known, cell) = seen
            .registered
            .entry(key)
            .or_insert_with(|| (kind, Arc::default()));
        assert_eq!(*known, kind);
        Arc::clone(cell)
    }

    fn describe(
        &self,
        name: &KeyName,
        unit: Option<::metrics::Unit>,
        help: SharedString,
        of: Kind,
    ) {
        let said = (of, unit, help.into_owned());
        let mut seen = self.0.lock().unwrap();
        seen.described.insert(name.as_str().to_owned(), said);
    }

    /// How often, and with what sum, over all labels that contain these.
    fn of(&self, name: &str, labels: &[(&str, &str)]) -> (u64, f64) {
        let seen = self.0.lock().unwrap();
        let matching = seen.registered.iter().filter(|((known, has), _)| {
            let all = labels.iter();
            known == name
                && all
                    .clone()
                    .all(|(label, value)| has.get(*label).is_some_and(|found| found == value))
        });
        matching.fold((0, 0.0), |sum, (_, (_, cell))| {
            let cell = cell.0.lock().unwrap();
            (sum.0 + cell.0, sum.1 + cell.1)
        })
    }

    fn value(&self, name: &str) -> f64 {
        self.of(name, &[]).1
    }
}

impl Recorder for Remembers {
    fn describe_counter(&self, key: KeyName, unit: Option<::metrics::Unit>, help: SharedString) {
        self.describe(&key, unit, help, Kind::Counter);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<::metrics::Unit>, help: SharedString) {
        self.describe(&key, unit, help, Kind::Gauge);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<::metrics::Unit>, help: SharedString) {
        self.describe(&key, unit, help, Kind::Histogram);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> ::metrics::Counter {
        ::metrics::Counter::from_arc(self.cell(key, Kind::Counter))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> ::metrics::Gauge {
        ::metrics::Gauge::from_arc(self.cell(key, Kind::Gauge))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> ::metrics::Histogram {
        ::metrics::Histogram::from_arc(self.cell(key, Kind::Histogram))
    }
}

/// Runs on a paused clock with a recorder that everything made meanwhile is published by.
fn recorded<F: Future<Output = crate::Result<()>>>(run: impl FnOnce(Remembers) -> F) -> Remembers {
    let recorder = Remembers::default();
    with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(recorder.clone())).unwrap();
    });
    recorder
}

/// A producer to which happens what can happen.
async fn produce(mock: &MockCluster, client: &Client) -> crate::Result<crate::ProducerMetrics> {
    const NOT_LEADER: i16 = 6;
    const MESSAGE_TOO_LARGE: i16 = 10;
    const INVALID_RECORD: i16 = 87;
    let producer = client.producer().buffer_memory(4096).batch_size(1024);
    let producer = producer.build()?;
    let record = || Record::to("t").with_partition(0).with_value("v");
    producer.send(record()).await?;
    let _ = mock.on(Api::Produce).times(1).fail(NOT_LEADER);
    producer.send(record()).await?;
    let _ = mock.on(Api::Produce).times(1).drop_connection();
    producer.send(record()).await?;
    let _ = mock.on(Api::Produce).times(1).fail(MESSAGE_TOO_LARGE);
    let written = producer.enqueue_all([record(), record()]).await?.await?;
    assert_eq!(written, 2);
    let _ = mock.on(Api::Produce).times(1).fail(INVALID_RECORD);
    producer.send(record()).await.unwrap_err();
    // More than there is memory for.
    let slow = mock.on(Api::Produce).delay(Duration::from_millis(20));
    let value = [0; 900];
    let large = (0..20).map(|_| Record::to("t").with_partition(0).with_value(&value));
    producer.enqueue_all(large).await?.await?;
    slow.remove();
    let metrics = producer.metrics();
    producer.close_timeout(MINUTE).await?;
    Ok(metrics)
}

async fn poll_for(consumer: &mut crate::Consumer, time: Duration) {
    let deadline = tokio::time::Instant::now() + time;
    while let Ok(event) = tokio::time::timeout_at(deadline, consumer.next_event()).await {
        // An error of the planted kind.
        drop(event);
    }
}

async fn consume(
    recorder: &Remembers,
    mock: &MockCluster,
    client: &Client,
) -> crate::Result<crate::ConsumerMetrics> {
    const FENCED_MEMBER_EPOCH: i16 = 110;
    const GROUP_AUTHORIZATION_FAILED: i16 = 30;
    let build = || {
        let consumer = client.consumer("g").subscribe(["t"]).auto_commit(false);
        consumer.offset_reset(OffsetReset::Earliest).build()
    };
    let mut first = build()?;
    poll_for(&mut first, MINUTE).await;
    let _ = mock.on(Api::Fetch).times(1).drop_connection();
    poll_for(&mut first, MINUTE).await;
    first.commit().await?;
    let refused = mock.on(Api::OffsetCommit).times(1);
    let refused = refused.fail(GROUP_AUTHORIZATION_FAILED);
    let offset = (TopicPartition::new("t", 0), OffsetAndMetadata::new(1));
    first.commit_offsets([offset]).await.unwrap_err();
    assert_eq!(refused.hits(), 1);

    // Nobody takes these.
    first.set_max_poll_records(0);
    let producer = client.producer().build()?;
    for partition in [0, 0, 0, 1] {
        let record = Record::to("t")
            .with_partition(partition)
            .with_value("unread");
        producer.send(record).await?;
    }
    poll_for(&mut first, MINUTE).await;
    let partition = |number| [("group", "g"), ("topic", "t"), ("partition", number)];
    assert_eq!(
        recorder.of("ottla_consumer_records_lag", &partition("0")).1,
        3.0
    );
    assert_eq!(
        recorder.of("ottla_consumer_records_lag", &partition("1")).1,
        1.0
    );
    let age = recorder.of("ottla_consumer_time_lag_seconds", &partition("0"));
    assert!(age.1 > 30.0 && age.1 < 120.0, "{age:?}");
    assert_eq!(recorder.value("ottla_consumer_assigned_partitions"), 2.0);
    assert_eq!(first.metrics().max_lag, Some(3));

    let mut second = build()?;
    let both = async { tokio::join!(poll_for(&mut first, MINUTE), poll_for(&mut second, MINUTE)) };
    both.await;
    assert_eq!(recorder.value("ottla_consumer_assigned_partitions"), 2.0);
    assert_eq!(
        (first.assignment().len(), second.assignment().len()),
        (1, 1)
    );
    let _ = mock
        .on(Api::ConsumerGroupHeartbeat)
        .times(1)
        .fail(FENCED_MEMBER_EPOCH);
    let lost = async { tokio::join!(poll_for(&mut first, MINUTE), poll_for(&mut second, MINUTE)) };
    lost.await;
    let mut metrics = first.metrics();
    let other = second.metrics();
    metrics.records += other.records;
    metrics.rebalances.assigned += other.rebalances.assigned;
    metrics.rebalances.revoked += other.rebalances.revoked;
    metrics.rebalances.lost += other.rebalances.lost;
    metrics.commits += other.commits;
    drop(producer);
    first.close_timeout(MINUTE).await?;
    second.close_timeout(MINUTE).await?;
    Ok(metrics)
}

#[test]
fn the_table_is_what_is_published() {
    let recorder = recorded(|recorder| async move {
        let mock = MockCluster::builder().brokers(2).topic("t", 2);
        let mock = mock.in_memory().seed(7).start().await?;
        let client = mock.named_client_builder("metered").build()?;
        let produced = produce(&mock, &client).await?;
        assert!(produced.retries > 0 && produced.splits == 1 && produced.refused_batches > 0);
        assert!(produced.failed_requests > 0 && produced.failed_batches == 1);
        assert!(produced.buffer_waits > 0 && !produced.buffer_wait_time.is_zero());
        assert_eq!(produced.batch_size.count(), produced.batches);
        assert_eq!(produced.batch_size.sum(), produced.bytes);
        let same = [
            ("records_sent", produced.records),
            ("records_failed", produced.failed_records),
            ("batches_sent", produced.batches),
            ("batches_failed", produced.failed_batches),
            ("batches_retried", produced.retries),
            ("batches_split", produced.splits),
            ("batches_refused", produced.refused_batches),
            ("batch_bytes", produced.bytes),
            ("uncompressed_bytes", produced.uncompressed_bytes),
            ("requests", produced.requests),
            ("requests_failed", produced.failed_requests),
        ];
        for (name, expected) in same {
            let name = format!("ottla_producer_{name}_total");
            assert_eq!(recorder.value(&name), expected as f64, "{name}");
        }

        let consumed = consume(&recorder, &mock, &client).await?;
        assert!(consumed.rebalances.lost > 0 && consumed.rebalances.revoked > 0);
        let same = [
            ("records_consumed", "", consumed.records),
            ("rebalances", "assigned", consumed.rebalances.assigned),
            ("rebalances", "revoked", consumed.rebalances.revoked),
            ("rebalances", "lost", consumed.rebalances.lost),
            ("commits", "", consumed.commits),
            ("commits_failed", "", consumed.failed_commits),
        ];
        for (name, event, expected) in same {
            let name = format!("ottla_consumer_{name}_total");
            let labels = [("event", event)];
            let labels = if event.is_empty() { &[][..] } else { &labels };
            assert_eq!(recorder.of(&name, labels).1, expected as f64, "{name}");
        }
        assert!(consumed.poll_idle_ratio().is_some_and(|ratio| ratio > 0.9));
        assert!(consumed.fetch_latency.count() > 0 && consumed.bytes > 18_000);

        // A connection that cannot be made.
        mock.kill(1);
        tokio::time::sleep(MINUTE).await;
        let other = mock.named_client_builder("metered").build()?;
        let _ = other.ready(MINUTE).await;
        for broker in other.admin().describe_cluster().await?.brokers {
            drop(broker);
        }
        let metrics = client.metrics();
        let produce = metrics.api("Produce").unwrap();
        assert!(produce.requests >= produced.requests && produce.failed > 0);
        let labels = [("api", "Produce"), ("client_id", "metered")];
        let published = recorder.of("ottla_client_requests_total", &labels);
        assert_eq!(published.1, produce.requests as f64);
        client.close().await.unwrap();
        other.close().await.unwrap();
        Ok(())
    });
    let seen = recorder.0.lock().unwrap();

    let expected: BTreeSet<_> = ALL
        .iter()
        .map(|metric| {
            let labels = metric.labels.iter().chain(&["client_id"]);
            let labels: BTreeSet<String> = labels.map(|label| (*label).to_owned()).collect();
            (metric.name.to_owned(), labels, metric.kind as u8)
        })
        .collect();
    let found: BTreeSet<_> = seen
        .registered
        .iter()
        .map(|((name, labels), (kind, _))| {
            (name.clone(), labels.keys().cloned().collect(), *kind as u8)
        })
        .collect();
    assert_eq!(found, expected);
    for (name, labels) in seen.registered.keys() {
        assert_eq!(labels["client_id"], "metered", "{name}");
    }

    // The mock has no quotas.
    let unused = |name: &str| name.ends_with("throttle_seconds");
    for metric in ALL.iter().filter(|metric| !unused(metric.name)) {
        let of_it = seen.registered.iter();
        let touched = of_it
            .filter(|((name, _), _)| name == metric.name)
            .any(|(_, (_, cell))| cell.0.lock().unwrap().0 > 0);
        assert!(touched, "nothing was ever told to {}", metric.name);
        let (kind, unit, help) = &seen.described[metric.name];
        assert_eq!((*kind, help.as_str()), (metric.kind, metric.help));
        let expected = match metric.unit {
            Unit::Count => ::metrics::Unit::Count,
            Unit::Bytes => ::metrics::Unit::Bytes,
            Unit::Seconds => ::metrics::Unit::Seconds,
        };
        assert_eq!(*unit, Some(expected), "{}", metric.name);
    }
    // All is closed, and nobody is left with what nobody has.
    for ((name, labels), (kind, cell)) in &seen.registered {
        if *kind == Kind::Gauge {
            assert_eq!(cell.0.lock().unwrap().1, 0.0, "{name} {labels:?}");
        }
    }
}

#[test]
fn names_say_what_they_are() {
    let names: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), ALL.len());
    for metric in ALL {
        let name = metric.name;
        assert_eq!(
            name.ends_with("_total"),
            metric.kind == Kind::Counter,
            "{name}"
        );
        let unit = match (metric.kind, metric.unit) {
            (Kind::Counter, Unit::Bytes) => "_bytes_total",
            (_, Unit::Bytes) => "_bytes",
            (_, Unit::Seconds) => "_seconds",
            (_, Unit::Count) => "",
        };
        assert!(name.ends_with(unit), "{name}");
    }
}

/// The reference that users read is the table: set `OTTLA_WRITE_REFERENCE=1` to write it anew.
#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/metrics/REFERENCE.md");
    let expected = reference();
    if std::env::var_os("OTTLA_WRITE_REFERENCE").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == expected,
        "src/metrics/REFERENCE.md is not what the table says; run the tests once with OTTLA_WRITE_REFERENCE=1"
    );
}

fn reference() -> String {
    let mut text = "\
What is published through the [`metrics`](https://docs.rs/metrics) facade with the feature `metrics`. Install a recorder\n\
(such as that of `metrics-exporter-prometheus`) before clients are built: handles are made once, with the client, producer\n\
or consumer. Names, units and labels are stable.\n\
\n\
Every metric has the label `client_id` (`client.id`); what several producers or consumers of one client id count adds\n\
up, that of gauges too. Counters and histograms are fed when a batch, request, poll or commit ends; gauges of buffers,\n\
assignment and lag every 5 seconds, lag from what has been fetched and without a request of its own. The gauges of a partition\n\
that is given up, and all of them when their owner ends, go to 0. The same numbers without a recorder:\n\
[`Client::metrics`](crate::Client::metrics), [`Producer::metrics`](crate::Producer::metrics),\n\
[`Consumer::metrics`](crate::ConsumerHandle::metrics), [`Consumer::lag`](crate::ConsumerHandle::lag).\n"
        .to_owned();
    for (prefix, title) in [
        ("ottla_client_", "Clients"),
        ("ottla_producer_", "Producers"),
        ("ottla_consumer_", "Consumers"),
    ] {
        let head = "| metric | kind | further labels | meaning | nearest in Java |\n|---|---|---|---|---|\n";
        write!(text, "\n## {title}\n\n{head}").unwrap();
        for metric in ALL.iter().filter(|metric| metric.name.starts_with(prefix)) {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let labels: Vec<String> = metric
                .labels
                .iter()
                .map(|label| format!("`{label}`"))
                .collect();
            let java = match metric.java {
                "" => String::new(),
                name => format!("`{name}`"),
            };
            let (name, help, labels) = (metric.name, metric.help, labels.join(", "));
            writeln!(text, "| `{name}` | {kind} | {labels} | {help} | {java} |").unwrap();
        }
    }
    text
}
