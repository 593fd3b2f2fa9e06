//! An async Apache Kafka client.
#![forbid(unsafe_code)]
#![allow(dead_code, clippy::todo)] // while the parts are put together

mod clock;
mod cluster;
mod config;
mod consumer;
mod error;
mod net;
mod producer;
#[allow(unused_imports)]
mod record;
mod tasks;
mod types;
mod wire;

pub use consumer::{IsolationLevel, Lag, OffsetReset, PartitionLag, TimeLag};
pub use error::{BrokerCode, Certainty, Class, Error, ErrorKind, Result};
pub use producer::Acks;
#[cfg(feature = "unstable-internals")]
#[doc(hidden)]
pub use record::internals;
pub use record::{
    Codec, Compression, Header, Headers, InvalidCompression, OwnedRecord, Record, RecordView,
    TimestampType,
};
pub use types::{BrokerId, OffsetAndMetadata, Timestamp, TopicPartition};
