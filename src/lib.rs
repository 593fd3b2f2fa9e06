//! An async Apache Kafka client in pure Rust, on tokio.
//!
//! # Produce
//!
//! ```no_run
//! # async fn example() -> ottla::Result<()> {
//! use ottla::{Client, Record};
//!
//! let client = Client::builder().bootstrap(["localhost:9092"]).connect().await?;
//! let producer = client.producer().build()?;
//! let written = producer.send(Record::to("orders").with_key("customer-7").with_value("2 apples")).await?;
//! println!("{}-{} at {:?}", written.topic, written.partition, written.offset);
//! # Ok(())
//! # }
//! ```
//!
//! # Consume
//!
//! ```no_run
//! # async fn example(client: ottla::Client) -> ottla::Result<()> {
//! let mut consumer = client.consumer("billing").subscribe(["orders"]).build()?;
//! while let Some(batches) = consumer.poll().await? {
//!     for batch in &batches {
//!         for record in batch.records() {
//!             let record = record?; // borrowed: nothing is allocated per record
//!             println!("{:?} = {:?}", record.key(), record.value());
//!         }
//!     }
//!     consumer.commit().await?; // or leave it to auto-commit: polling on says that these are done
//!     println!("{} records behind, {:?}", consumer.lag().records(), consumer.lag().time());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! | promise | under which settings |
//! |---|---|
//! | An acknowledged record is written once, in the order of its acceptance per partition | the defaults: `acks=all`, `enable.idempotence=true` |
//! | A failed record says whether it may have been written ([`Error::certainty`]) | always |
//! | Every call and delivery ends by its deadline (`max.block.ms`, `delivery.timeout.ms`) | always |
//! | Memory for records on their way stays within `buffer.memory`, and an eighth of it in empty buffers | always |
//! | Fetched data waiting to be handed out stays within `fetch.max.bytes` | always, but that a batch larger than that is still read, alone, and that data left of an answer keeps the whole answer alive |
//! | A group processes every record at least once: what was not finished (see [`Consumer`]) is never committed by the library | auto-commit, or commits after processing |
//! | A transaction is seen whole or not at all, and once, by `read_committed` consumers; its commit says what became of it, or that it is not known ([`CommitError`]) | [`TransactionalProducer`] |
//! | What is read, what is written because of it, and the offsets are one transaction | [`TransactionalConsumer`] |
//! | Dropping any future loses nothing but what its *Cancel safety* section says | always |
//! | Bytes from a broker never panic, abort or allocate without bound | always |
//!
//! # Coming from Java or librdkafka
//!
//! | there | here |
//! |---|---|
//! | `producer.send(record, callback)` | [`Producer::enqueue`] and its [`Delivery`], or [`ProducerBuilder::on_batch`] |
//! | `initTransactions`, `beginTransaction`, `commitTransaction` | [`Client::transactional_producer`], [`TransactionalProducer::begin`], [`Transaction::commit`] |
//! | `sendOffsetsToTransaction` | [`Transaction::send_offsets`], or [`TransactionalConsumer`] for the whole loop |
//! | `kafka-transactions.sh` | [`admin::Admin::list_transactions`] and what stands beside it |
//! | `partitionsFor` | [`Producer::partitions_for`], [`Consumer::partitions_for`] |
//! | `abort`, `rd_kafka_purge` | [`Producer::purge`] |
//! | `rd_kafka_outq_len` | [`Producer::buffered_bytes`], [`Producer::metrics`] |
//! | `ConsumerRebalanceListener` | [`Consumer::next_event`] |
//! | `position(partition)`, which waits | [`Consumer::position`](ConsumerHandle::position), `None` until it is known |
//! | `seek(partition, OffsetAndMetadata)` | [`Consumer::seek_to_offset`](ConsumerHandle::seek_to_offset) |
//! | `currentLag`, `rd_kafka_get_watermark_offsets` | [`Consumer::lag`](ConsumerHandle::lag) |
//! | `rd_kafka_query_watermark_offsets` | [`Consumer::beginning_offsets`](ConsumerHandle::beginning_offsets), [`Consumer::end_offsets`](ConsumerHandle::end_offsets) |
//! | `wakeup`, calls from other threads | [`ConsumerHandle`] |
//! | `listTopics` | [`admin::Admin::list_topics`] |
//! | `alterConsumerGroupOffsets` | [`admin::Admin::alter_group_offsets`] |
//! | `kafka-consumer-groups.sh --reset-offsets` | [`admin::Admin::reset_group_offsets`] |
//! | `unsubscribe` | [`Consumer::unsubscribe`], which does not wait |
//! | `subscription()` | [`Consumer::subscription`] |
//! | `close()`, which commits the position | [`Consumer::close`] commits only what is finished: call [`Consumer::finish`] or [`Consumer::commit`] before |
//! | `close(CloseOptions)` | [`Consumer::close_with`] |
//!
//! # Settings
//!
//! Builders have a setter for each; [`Client::from_properties`] takes Kafka's own names. Defaults
//! are those of Kafka's Java client. All of them: [`config_reference`].
//!
//! # Errors
//!
//! There is one [`Error`]. [`Error::class`] says whose move it is, [`Error::kind`] what happened.
//!
//! # Map
//!
//! - [`Client`], [`ClientBuilder`]: the connection to a cluster, shared by what is made from it
//! - [`Producer`], [`TopicProducer`], [`Record`], [`Delivery`], [`Purge`], [`Partitioner`],
//!   [`Compression`], [`ProducerMetrics`]
//! - [`TransactionalProducer`], [`Transaction`], [`TransactionalConsumer`]: transactions
//! - [`Consumer`], [`Subscription`], [`Batches`], [`RecordView`], [`RecordStream`], [`Event`],
//!   [`Lag`], [`CloseOptions`]
//! - [`Assignor`]: who of a group gets which partitions, where members decide that
//! - [`admin`]: topics, groups, transactions, configurations and the cluster
//! - [`ProducerInterceptor`], [`ConsumerInterceptor`]: trace contexts, audits
//! - [`ProducerMetrics`], [`ConsumerMetrics`], [`ClientMetrics`]: numbers, as snapshots
//! - [`properties`]: Kafka's property files
//!
//! How it works inside is in `DESIGN.md`.
//!
//! # Features
//!
//! `gzip`, `snappy`, `lz4` (default, pure Rust) and `zstd` (the C library; without it zstd is read
//! by a pure-Rust decoder and not written). `mock`: a Kafka cluster inside the process, for tests.
//! `metrics`: the numbers of the snapshots through the facade of that name, for Prometheus and
//! others; names, units and labels are in `metrics_reference`.
//!
//! # Logs and spans
//!
//! Through [`tracing`], per request and batch and never per record, under these targets (a filter
//! such as `ottla::consumer=debug` takes all that begin so):
//!
//! | target | what |
//! |---|---|
//! | `ottla::net` | connections: made (debug), lost (info), not made (warn) |
//! | `ottla::cluster` | metadata: leaders that moved (info), no broker answers (warn) |
//! | `ottla::producer` | span `produce` per request (debug: broker, batches, records, bytes, took_ms, refused, error); batches written (trace), repeated or failed (warn) |
//! | `ottla::consumer` | span `fetch` per request (debug: broker, partitions, bytes, took_ms, error); partitions assigned and revoked (info), lost (warn); commits in the background that failed (warn) |
//!
//! `ottla::interceptor` tells of one that panicked (error). What happens over and over, such as a
//! broker that is away, is a warning at first and then once in 30 seconds, with the number of those
//! `untold` (which are told for debugging); an operator's log does not fill. Keys, values, headers
//! and settings are in none of it.
#![forbid(unsafe_code)]

pub mod admin;
mod client;
mod clock;
mod cluster;
mod config;
mod consumer;
mod error;
mod exactly_once;
mod fetched;
mod group;
mod hooks;
mod log_throttle;
mod metrics;
#[cfg(feature = "mock")]
pub mod mock;
mod net;
#[cfg(test)]
#[cfg(feature = "mock")]
mod observe_tests;
mod offsets;
mod planted;
mod producer;
mod record;
mod sync;
mod tasks;
mod types;
mod wire;

pub use client::{Client, ClientBuilder};
pub use config::properties;
pub use consumer::{
    BatchRecords, Batches, BrokerFetches, CloseOptions, Consumer, ConsumerBuilder, ConsumerHandle,
    ConsumerInterceptor, ConsumerMetrics, Event, Explanation, GroupMembershipOperation,
    GroupProtocol, IsolationLevel, Lag, LagStream, OffsetReset, PartitionBatch, PartitionLag,
    PartitionStream, PartitionStreams, PendingCommit, Rebalances, RecordStream, Revoking,
    Subscription, TimeLag, TopicPattern,
};
pub use error::{BrokerCode, Certainty, Class, Error, ErrorKind, Result};
pub use exactly_once::{TransactionalBatches, TransactionalConsumer};
pub use group::GroupMetadata;
pub use group::assignor::{
    Assignor, ClusterView, CooperativeStickyAssignor, GroupAssignment, GroupSubscription,
    MemberAssignment, MemberSubscription, MemberView, PartitionView, RangeAssignor,
    RebalanceProtocol, RoundRobinAssignor, StickyAssignor,
};
pub use metrics::histogram::{Histogram, SizeHistogram};
pub use net::traffic::{ApiMetrics, ClientMetrics};
pub(crate) use planted::planted;
pub use producer::{
    Acks, AddedHeaders, BatchReport, Choice, CloseReport, CommitError, Deliveries, Delivery,
    KeyPartitioner, Partitioner, Producer, ProducerBuilder, ProducerInterceptor, ProducerMetrics,
    Purge, PurgeReport, RecordMetadata, RoundRobin, TopicProducer, TopicView, Transaction,
    TransactionOutcome, TransactionTopic, TransactionalProducer,
};
/// What benchmarks, fuzz targets and memory tests reach; outside of semver.
#[cfg(feature = "unstable-internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::record::internals::*;
    pub use crate::wire::internals::*;
}
pub use record::{
    Codec, Compression, Header, Headers, InvalidCompression, OwnedRecord, Record, RecordView,
    TimestampType,
};
pub use types::{BrokerId, OffsetAndMetadata, Timestamp, TopicPartition};

#[cfg(feature = "metrics")]
#[doc = include_str!("metrics/REFERENCE.md")]
pub mod metrics_reference {}

#[doc = include_str!("config/REFERENCE.md")]
pub mod config_reference {}
