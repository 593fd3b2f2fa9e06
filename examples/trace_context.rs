//! Interceptors: a trace context that travels with each record, and an audit of what was written
//! and read.
//!
//! The trace context is W3C's `traceparent`, here from a task-local variable; with OpenTelemetry it
//! would be that of the current span, and the consumer's would become the parent of the span in
//! which the record is processed.
//!
//! ```text
//! cargo run --example trace_context                                 (on a cluster inside the process)
//! cargo run --example trace_context -- --bootstrap localhost:9092
//! ```

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use ottla::mock::MockCluster;
use ottla::{
    AddedHeaders, BatchReport, Client, ConsumerInterceptor, OffsetReset, PartitionBatch,
    ProducerInterceptor, Record, RecordView,
};

#[derive(Parser)]
#[command(about = "Sends and reads records that carry a trace context")]
struct Options {
    /// Addresses of some brokers (HOST:PORT[,HOST:PORT…]); without it: a cluster inside the process
    #[arg(long)]
    bootstrap: Option<String>,
    #[arg(long, default_value = "traced")]
    topic: String,
}

tokio::task_local! {
    /// What the task works on.
    static TRACE: String;
}

/// Puts the context of the task that sends on each record: `on_send` runs there.
struct TraceContext;

impl ProducerInterceptor for TraceContext {
    fn on_send(&self, _: &Record<'_>, headers: &mut AddedHeaders) {
        // A task without a context sends records without one.
        let _ = TRACE.try_with(|trace| headers.add("traceparent", trace));
    }
}

/// The context that a record came with.
fn trace_of(record: &RecordView<'_>) -> Option<String> {
    let header = record.headers().last_named("traceparent")?;
    String::from_utf8(header.value()?.to_vec()).ok()
}

/// Counts both ways; one batch at a time, so that it costs next to nothing.
#[derive(Clone, Default)]
struct Audit(Arc<Counts>);

#[derive(Default)]
struct Counts {
    written: AtomicU64,
    failed: AtomicU64,
    read: AtomicU64,
}

impl ProducerInterceptor for Audit {
    fn on_acknowledgement(&self, batch: &BatchReport) {
        let count = match batch.error {
            None => &self.0.written,
            Some(_) => &self.0.failed,
        };
        count.fetch_add(batch.records.into(), Ordering::Relaxed);
    }
}

impl ConsumerInterceptor for Audit {
    fn on_consume(&self, batch: &PartitionBatch) {
        let records = batch.record_count() as u64;
        self.0.read.fetch_add(records, Ordering::Relaxed);
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let Some(bootstrap) = &options.bootstrap else {
        let mock = MockCluster::builder().topic(&options.topic, 3).start();
        return run(&mock.await?.client(), &options.topic).await;
    };
    let client = Client::builder().bootstrap(bootstrap.split(','));
    run(&client.connect().await?, &options.topic).await
}

async fn run(client: &Client, topic: &str) -> Result<(), Box<dyn Error>> {
    let audit = Audit::default();
    let producer = client.producer().interceptor(TraceContext);
    let producer = producer.interceptor(audit.clone()).build()?;
    let mut traces = Vec::new();
    for number in 1..=3 {
        let trace = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{number:016x}-01");
        let record = Record::to(topic).with_value("an order");
        TRACE.scope(trace.clone(), producer.send(record)).await?;
        traces.push(trace);
    }

    let consumer = client.consumer("trace_context").subscribe([topic]);
    let consumer = consumer.offset_reset(OffsetReset::Earliest);
    let mut consumer = consumer.interceptor(audit.clone()).build()?;
    while !traces.is_empty() {
        let batches = consumer.poll().await?.ok_or("the client was closed")?;
        for batch in &batches {
            for record in batch {
                let record = record?;
                let trace = trace_of(&record);
                println!("{}@{}: {trace:?}", batch.topic_partition(), record.offset());
                traces.retain(|known| Some(known) != trace.as_ref());
            }
        }
        consumer.finish();
    }
    let Counts {
        written,
        failed,
        read,
    } = &*audit.0;
    println!("written {written:?}, failed {failed:?}, read {read:?}");
    consumer.close_timeout(Duration::from_secs(10)).await?;
    producer.close().await?;
    Ok(())
}
