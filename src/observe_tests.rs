//! What operators see, on the mock: spans, the log, interceptors.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures::StreamExt;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::mock::{Api, MockCluster};
use crate::{
    AddedHeaders, BatchReport, ConsumerInterceptor, Error, ErrorKind, OffsetAndMetadata,
    OffsetReset, PartitionBatch, ProducerInterceptor, Record, Result, TopicPartition,
};

const MINUTE: Duration = Duration::from_secs(60);
const INVALID_RECORD: i16 = 87;

type Fields = BTreeMap<String, String>;

/// Spans by their number, and events, of this crate without the mock.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    spans: BTreeMap<u64, (&'static str, Fields)>,
    events: Vec<(Level, &'static str, Option<&'static str>, Fields)>,
}

struct Write<'a>(&'a mut Fields);

impl Visit for Write<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        write!(text, "{value:?}").unwrap();
        self.0.insert(field.name().to_owned(), text);
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Log {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut fields = Fields::new();
        attributes.record(&mut Write(&mut fields));
        let name = attributes.metadata().name();
        self.lines().spans.insert(id.into_u64(), (name, fields));
    }

    fn on_record(&self, id: &Id, values: &tracing::span::Record<'_>, _: Context<'_, S>) {
        if let Some((_, fields)) = self.lines().spans.get_mut(&id.into_u64()) {
            values.record(&mut Write(fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let target = event.metadata().target();
        if !target.starts_with("ottla::") || target.starts_with("ottla::mock") {
            return;
        }
        let mut fields = Fields::new();
        event.record(&mut Write(&mut fields));
        let span = context.lookup_current().map(|span| span.name());
        let line = (*event.metadata().level(), target, span, fields);
        self.lines().events.push(line);
    }
}

impl Log {
    /// Takes in what this thread does from now on.
    fn start() -> (Self, DefaultGuard) {
        // While there is a single subscriber, tracing asks that of the thread which comes by a
        // place in the code first, and other tests' threads have none: the place would be switched
        // off for all.
        static SECOND: OnceLock<Dispatch> = OnceLock::new();
        SECOND.get_or_init(|| Dispatch::new(Registry::default()));
        let log = Self::default();
        let subscriber = Registry::default().with(log.clone());
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.0.lock().unwrap()
    }

    fn spans(&self, name: &str) -> Vec<Fields> {
        let lines = self.lines();
        let named = lines.spans.values().filter(|(known, _)| *known == name);
        named.map(|(_, fields)| fields.clone()).collect()
    }

    /// Level, span and fields of the events with this message.
    fn events(&self, message: &str) -> Vec<(Level, Option<&'static str>, Fields)> {
        let lines = self.lines();
        let told = lines.events.iter();
        told.filter(|(.., fields)| fields["message"] == message)
            .map(|(level, _, span, fields)| (*level, *span, fields.clone()))
            .collect()
    }

    /// How many lines someone sees who looks at warnings and what is worth knowing, by message.
    fn visible(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (level, .., fields) in &self.lines().events {
            if *level <= Level::INFO {
                *counts.entry(fields["message"].clone()).or_default() += 1;
            }
        }
        counts
    }
}

async fn mock() -> Result<MockCluster> {
    let mock = MockCluster::builder().brokers(1).topic("t", 1).seed(3);
    mock.in_memory().start().await
}

#[tokio::test(start_paused = true)]
async fn a_produce_request_is_a_span_and_its_records_are_none() -> Result<()> {
    let (log, _guard) = Log::start();
    let mock = mock().await?;
    let producer = mock.client().producer().build()?;
    let records = (0..100).map(|_| Record::to("t").with_value("v"));
    producer.enqueue_all(records).await?.await?;
    let spans = log.spans("produce");
    assert_eq!(spans.len(), 1);
    let span = &spans[0];
    assert_eq!(
        (&*span["broker"], &*span["batches"], &*span["records"]),
        ("1", "1", "100")
    );
    assert_eq!((&*span["refused"], span.get("error")), ("0", None));
    assert!(span["bytes"].parse::<usize>().unwrap() > 100 && span.contains_key("took_ms"));
    // One line for the batch, in its span.
    let written = log.events("a batch was written");
    assert_eq!(written.len(), 1);
    assert_eq!(
        (written[0].0, written[0].1),
        (Level::TRACE, Some("produce"))
    );
    assert_eq!(written[0].2["records"], "100");
    let all = log.lines().events.len();
    assert!(all < 50, "{all} lines for a hundred records");

    let _ = mock.on(Api::Produce).times(1).drop_connection();
    producer.send(Record::to("t").with_value("v")).await?;
    let spans = log.spans("produce");
    assert_eq!(spans.len(), 3);
    assert!(spans[1].contains_key("error") && !spans[2].contains_key("error"));
    assert_eq!(log.events("connection lost").len(), 1);
    Ok(())
}

#[test]
fn what_is_lost_with_the_runtime_is_counted_in_one_line() {
    let (log, _guard) = Log::start();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mock = mock().await.unwrap();
        let producer = mock.client().producer().max_in_flight(1);
        let producer = producer.build().unwrap();
        let record = || Record::to("t").with_value("v");
        producer.send(record()).await.unwrap();
        let _ = mock.on(Api::Produce).delay(10 * MINUTE);
        for records in [2, 3] {
            let records = (0..records).map(|_| record());
            drop(producer.enqueue_all(records).await.unwrap());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // Nobody flushes nor closes: `main` ends.
    });
    drop(runtime);
    let lost = log.events("a producer ended with records that were not acknowledged");
    assert_eq!(lost.len(), 1);
    let (level, _, fields) = &lost[0];
    assert_eq!(*level, Level::WARN);
    assert_eq!(
        (&*fields["not_sent"], &*fields["maybe_written"]),
        ("3", "2")
    );
    assert!(fields["error"].contains("runtime"), "{fields:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_is_a_span() -> Result<()> {
    let (log, _guard) = Log::start();
    let mock = mock().await?;
    let client = mock.client();
    let producer = client.producer().build()?;
    producer.send(Record::to("t").with_value("v")).await?;
    let consumer = client.consumer("g").subscribe(["t"]);
    let mut consumer = consumer.offset_reset(OffsetReset::Earliest).build()?;
    consumer.poll().await?;
    let _ = mock.on(Api::Fetch).times(1).drop_connection();
    consumer.poll_timeout(MINUTE).await?;
    let spans = log.spans("fetch");
    let first = &spans[0];
    assert_eq!((&*first["broker"], &*first["partitions"]), ("1", "1"));
    assert!(first["bytes"].parse::<usize>().unwrap() > 60 && first.contains_key("took_ms"));
    assert_eq!(
        spans
            .iter()
            .filter(|span| span.contains_key("error"))
            .count(),
        1
    );
    let failed = log.events("fetch failed");
    assert_eq!(failed.len(), 1);
    assert_eq!((failed[0].0, failed[0].1), (Level::WARN, Some("fetch")));
    let assigned = log.events("assigned");
    assert_eq!(assigned.len(), 1);
    assert_eq!(assigned[0].0, Level::INFO);
    assert!(assigned[0].2["partitions"].contains("t-0") && assigned[0].2["group"].contains('g'));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn each_failed_batch_is_told_once_and_the_first_as_a_warning() -> Result<()> {
    let (log, _guard) = Log::start();
    let mock = mock().await?;
    let producer = mock.client().producer().build()?;
    let _ = mock.on(Api::Produce).times(4).fail(INVALID_RECORD);
    for number in 0..4 {
        if number == 3 {
            tokio::time::sleep(MINUTE).await;
        }
        let record = Record::to("t").with_value("secret");
        producer.send(record).await.unwrap_err();
    }
    let failed = log.events("a batch failed");
    let levels: Vec<Level> = failed.iter().map(|(level, ..)| *level).collect();
    assert_eq!(
        levels,
        [Level::WARN, Level::DEBUG, Level::DEBUG, Level::WARN]
    );
    let (.., fields) = &failed[3];
    assert_eq!((&*fields["untold"], &*fields["partition"]), ("2", "t-0"));
    assert_eq!((&*fields["records"], &*fields["attempts"]), ("1", "1"));
    assert!(fields["error"].contains("INVALID_RECORD"), "{fields:?}");
    for (.., fields) in &log.lines().events {
        assert!(!format!("{fields:?}").contains("secret"), "{fields:?}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn brokers_that_are_away_do_not_fill_the_log() -> Result<()> {
    let (log, _guard) = Log::start();
    let mock = MockCluster::builder().brokers(3).topic("t", 6).seed(3);
    let mock = mock.in_memory().start().await?;
    let client = mock.client();
    let producer = client.producer().build()?;
    let consumer = client.consumer("g").subscribe(["t"]);
    let mut consumer = consumer.build()?;
    consumer.poll_timeout(MINUTE).await?;
    producer.send(Record::to("t").with_value("v")).await?;
    (1..=3).for_each(|broker| mock.kill(broker));
    let before = log.visible();
    for _ in 0..20 {
        let records =
            (0..6).map(|partition| Record::to("t").with_partition(partition).with_value("v"));
        producer.enqueue_all(records).await?;
        let deadline = tokio::time::Instant::now() + MINUTE / 2;
        while let Ok(outcome) = tokio::time::timeout_at(deadline, consumer.poll()).await {
            drop(outcome);
        }
    }
    // Ten minutes, and each trouble twice a minute at most.
    let visible = log.visible();
    for (message, count) in &visible {
        let count = count - before.get(message).unwrap_or(&0);
        let places = match message.as_str() {
            "cannot connect" => 12, // brokers and lanes
            "fetch failed" | "connection lost" => 3,
            _ => 1,
        };
        assert!(count <= places * 21, "{count} times: {message}");
    }
    for message in [
        "cannot connect",
        "no broker gave metadata",
        "a batch failed",
    ] {
        assert!(visible.contains_key(message), "{message}: {visible:?}");
    }
    let all = log.lines().events.len();
    assert!(
        all > 1_500,
        "the test sees that there is something to keep quiet about: {all}"
    );

    for broker in 1..=3 {
        mock.restart(broker).await?;
    }
    producer.send(Record::to("t").with_value("v")).await?;
    tokio::time::sleep(MINUTE).await;
    assert!(log.visible().contains_key("there is metadata again"));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn leaders_that_move_are_one_line() -> Result<()> {
    let (log, _guard) = Log::start();
    let mock = MockCluster::builder().brokers(2).topic("t", 4).seed(3);
    let mock = mock.in_memory().start().await?;
    let producer = mock.client().producer().build()?;
    let records =
        || (0..4).map(|partition| Record::to("t").with_partition(partition).with_value("v"));
    producer.enqueue_all(records()).await?.await?;
    assert!(log.events("leaders moved").is_empty());
    mock.kill(2);
    producer.enqueue_all(records()).await?.await?;
    let moved = log.events("leaders moved");
    let count = |(.., fields): &(_, _, Fields)| fields["count"].parse::<usize>().unwrap();
    assert_eq!(moved.iter().map(count).sum::<usize>(), 2, "{moved:?}");
    assert!(moved.len() <= 2);
    assert_eq!((&*moved[0].2["from"], &*moved[0].2["to"]), ("2", "Some(1)"));
    Ok(())
}

/// Where a batch went, its records, why it failed.
type Ended = (String, u32, Option<ErrorKind>);

/// Adds a trace parent, and keeps account of what came of it all.
#[derive(Clone, Default)]
struct Audit {
    sent: Arc<AtomicU64>,
    ended: Arc<Mutex<Vec<Ended>>>,
    consumed: Arc<Mutex<Vec<(i64, String)>>>,
    committed: Arc<Mutex<Vec<(i64, bool)>>>,
}

impl ProducerInterceptor for Audit {
    fn on_send(&self, record: &Record<'_>, headers: &mut AddedHeaders) {
        assert_eq!(record.topic(), "t");
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        headers.add("traceparent", format!("trace-{number}"));
    }

    fn on_acknowledgement(&self, batch: &BatchReport) {
        let kind = batch.error.as_ref().map(Error::kind);
        let line = (batch.partition.to_string(), batch.records, kind);
        self.ended.lock().unwrap().push(line);
    }
}

impl ConsumerInterceptor for Audit {
    fn on_consume(&self, batch: &PartitionBatch) {
        for record in batch.records() {
            let record = record.unwrap();
            let header = record.headers().last_named("traceparent").unwrap();
            let value = String::from_utf8_lossy(header.value().unwrap()).into_owned();
            self.consumed.lock().unwrap().push((record.offset(), value));
        }
    }

    fn on_commit(
        &self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        outcome: std::result::Result<(), &Error>,
    ) {
        let line = (offsets[0].1.offset, outcome.is_ok());
        self.committed.lock().unwrap().push(line);
    }
}

struct Panics;

impl ProducerInterceptor for Panics {
    fn on_send(&self, _: &Record<'_>, headers: &mut AddedHeaders) {
        headers.add("half", "done");
        panic!("planted");
    }

    fn on_acknowledgement(&self, _: &BatchReport) {
        panic!("planted");
    }
}

impl ConsumerInterceptor for Panics {
    fn on_consume(&self, _: &PartitionBatch) {
        panic!("planted");
    }

    fn on_commit(
        &self,
        _: &[(TopicPartition, OffsetAndMetadata)],
        _: std::result::Result<(), &Error>,
    ) {
        panic!("planted");
    }
}

#[tokio::test(start_paused = true)]
async fn interceptors_see_everything_once_and_their_panics_harm_nobody() -> Result<()> {
    const GROUP_AUTHORIZATION_FAILED: i16 = 30;
    let (log, _guard) = Log::start();
    let mock = mock().await?;
    let client = mock.client();
    let audit = Audit::default();
    let producer = client.producer().interceptor(Panics);
    let producer = producer.interceptor(audit.clone()).build()?;
    // Every way to send; the first has to wait for metadata, and is seen once all the same.
    let record = || Record::to("t").with_value("v").with_header("own", "x");
    producer.send(record()).await?;
    producer.try_enqueue(record())?.await?;
    producer.enqueue_all([record(), record()]).await?.await?;
    let topic = producer.topic("t");
    topic.enqueue(Record::new().with_value("v")).await?.await?;
    topic.try_enqueue(Record::new().with_value("v"))?.await?;
    topic
        .enqueue_all([Record::new().with_value("v")])
        .await?
        .await?;
    let _ = mock.on(Api::Produce).times(1).fail(INVALID_RECORD);
    producer.send(record()).await.unwrap_err();
    assert_eq!(audit.sent.load(Ordering::Relaxed), 8);
    let ended = audit.ended.lock().unwrap().clone();
    assert_eq!(ended.iter().map(|(_, records, _)| records).sum::<u32>(), 8);
    let failed: Vec<_> = ended.iter().filter(|(.., kind)| kind.is_some()).collect();
    assert_eq!(
        failed,
        [&("t-0".to_owned(), 1, Some(ErrorKind::InvalidRecord))]
    );
    let stored = mock.records("t", 0);
    let names: Vec<_> = stored[0]
        .headers()
        .map(|header| header.name().to_owned())
        .collect();
    assert_eq!(names, [&b"own"[..], b"traceparent"]);

    let consumer = client.consumer("g").subscribe(["t"]).interceptor(Panics);
    let consumer = consumer.interceptor(audit.clone()).auto_commit(false);
    let consumer = consumer
        .max_poll_records(3)
        .offset_reset(OffsetReset::Earliest);
    let mut consumer = consumer.build()?;
    consumer.poll().await?;
    consumer.commit().await?;
    let mut stream = consumer.stream();
    for _ in 0..3 {
        stream.next().await.unwrap()?;
    }
    drop(stream);
    consumer.finish();
    let mut partitions = consumer.split_by_partition();
    let (_, mut batches) = partitions.next().await.unwrap()?;
    batches.next().await.unwrap()?;
    drop((batches, partitions));
    let consumed = audit.consumed.lock().unwrap().clone();
    let expected: Vec<_> = (0..7)
        .map(|offset| (offset, format!("trace-{offset}")))
        .collect();
    assert_eq!(consumed, expected);
    let _ = mock
        .on(Api::OffsetCommit)
        .times(2)
        .fail(GROUP_AUTHORIZATION_FAILED);
    consumer.commit().await.unwrap_err();
    // The stream of the partition gave its batch back.
    assert_eq!(*audit.committed.lock().unwrap(), [(3, true), (6, false)]);

    let told = log
        .events("an interceptor panicked; it is called all the same, and this is not said again");
    let methods: Vec<&str> = told.iter().map(|(.., fields)| &*fields["method"]).collect();
    let expected = ["on_send", "on_acknowledgement", "on_consume", "on_commit"];
    assert_eq!(methods, expected.map(|method| format!("\"{method}\"")));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn operators_are_told_what_holds_back_commits_and_which_tasks_failed() -> Result<()> {
    let (log, _guard) = Log::start();
    let mock = MockCluster::builder().topic("t", 1).in_memory();
    let mock = mock.start().await?;
    let client = mock.client();
    let producer = client.producer().build()?;
    for _ in 0..3 {
        producer.send(Record::to("t").with_value("v")).await?;
    }
    let consumer = client.consumer("g").subscribe(["t"]);
    let consumer = consumer.offset_reset(OffsetReset::Earliest);
    let mut consumer = consumer.max_poll_interval(MINUTE).build()?;
    let mut records = consumer.stream();
    drop(records.next().await.unwrap()?);
    let kept = records.next().await.unwrap()?;
    drop(records.next().await.unwrap()?);
    let message = "auto-commit is held back because records given out by the stream from this \
                   offset on are still kept: drop them when they are done, copy what is to stay";
    for (minutes, told) in [(1, false), (5, true)] {
        let nothing = tokio::time::timeout(minutes * MINUTE - MINUTE / 4, records.next());
        assert!(nothing.await.is_err());
        assert_eq!(!log.events(message).is_empty(), told, "{minutes}");
    }
    let events = log.events(message);
    assert!(events.len() <= 10, "each half minute: {}", events.len());
    let (level, _, fields) = &events[0];
    assert_eq!(*level, Level::WARN);
    assert_eq!((&*fields["partition"], &*fields["offset"]), ("t-0", "1"));
    drop((records, kept));

    let mut partitions = consumer.split_by_partition();
    for attempt in ["1", "2"] {
        let (_, mut batches) = partitions.next().await.unwrap()?;
        batches.next().await.unwrap()?;
        drop(batches);
        let events = log.events(
            "the stream of a partition was dropped before it ended: it is offered again from this \
             offset on",
        );
        let (level, _, fields) = events.last().unwrap();
        assert_eq!(*level, Level::WARN);
        assert_eq!((&*fields["partition"], &*fields["offset"]), ("t-0", "1"));
        assert_eq!(fields["attempt"], attempt);
    }
    Ok(())
}
