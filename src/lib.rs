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
mod record;
mod tasks;
mod types;
mod wire;

pub use consumer::{IsolationLevel, OffsetReset};
pub use error::{BrokerCode, Certainty, Class, Error, ErrorKind, Result};
pub use producer::Acks;
pub use record::Compression;
pub use types::{BrokerId, OffsetAndMetadata, Timestamp, TopicPartition};
