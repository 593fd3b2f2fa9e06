//! An async Apache Kafka client.
#![forbid(unsafe_code)]

pub mod admin;
mod client;
mod clock;
mod cluster;
mod config;
mod consumer;
mod error;
#[cfg(feature = "mock")]
pub mod mock;
mod net;
mod producer;
#[allow(unused_imports)]
mod record;
mod tasks;
mod types;
mod wire;

pub use client::{Client, ClientBuilder};
pub use config::properties;
pub use consumer::{
    BatchRecords, Batches, Consumer, ConsumerBuilder, ConsumerHandle, Event, GroupMetadata,
    IsolationLevel, Lag, OffsetReset, PartitionBatch, PartitionLag, RecordStream, Revoking,
    TimeLag,
};
pub use error::{BrokerCode, Certainty, Class, Error, ErrorKind, Result};
pub use producer::{
    Acks, Choice, CloseReport, Deliveries, Delivery, KeyPartitioner, Partitioner, Producer,
    ProducerBuilder, RecordMetadata, RoundRobin, TopicView,
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

#[doc = include_str!("config/REFERENCE.md")]
pub mod config_reference {}
