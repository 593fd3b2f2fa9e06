//! What a producer can be told.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::record::Compression;

/// How many replicas must have a record before it counts as written (`acks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Acks {
    /// `0`: none; the broker does not answer and offsets stay unknown.
    None,
    /// `1`: the leader alone.
    Leader,
    /// `all`: every in-sync replica (at least `min.insync.replicas`).
    All,
}

impl Acks {
    /// The value in a Produce request.
    pub(crate) fn code(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// Settings of a producer, by Kafka's names and with Java's defaults.
#[derive(Clone, Debug)]
pub(crate) struct ProducerConfig {
    /// `acks`
    pub(crate) acks: Acks,
    /// `enable.idempotence`: `None` (not set) means on wherever the other settings allow it.
    pub(crate) idempotence: Option<bool>,
    /// `linger.ms`
    pub(crate) linger: Duration,
    /// `batch.size`, bytes
    pub(crate) batch_size: usize,
    /// `buffer.memory`, bytes
    pub(crate) buffer_memory: usize,
    /// `max.block.ms`
    pub(crate) max_block: Duration,
    /// `metadata.max.idle.ms`
    pub(crate) metadata_max_idle: Duration,
    /// `max.request.size`, bytes
    pub(crate) max_request_size: usize,
    /// `delivery.timeout.ms`
    pub(crate) delivery_timeout: Duration,
    /// `retries`
    pub(crate) retries: u32,
    /// `max.in.flight.requests.per.connection`
    pub(crate) max_in_flight: usize,
    /// `compression.type` and the levels
    pub(crate) compression: Compression,
    /// The same for certain topics.
    pub(crate) topic_compression: BTreeMap<String, Compression>,
    /// `partitioner.ignore.keys`
    pub(crate) ignore_keys: bool,
    /// `partitioner.adaptive.partitioning.enable` (KIP-794)
    pub(crate) adaptive_partitioning: bool,
    /// `partitioner.availability.timeout.ms` (KIP-794); zero: off
    pub(crate) availability_timeout: Duration,
    /// `transactional.id`
    pub(crate) transactional_id: Option<String>,
    /// `transaction.timeout.ms`
    pub(crate) transaction_timeout: Duration,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotence: None,
            linger: Duration::from_millis(5),
            batch_size: 16_384,
            buffer_memory: 33_554_432,
            max_block: Duration::from_secs(60),
            metadata_max_idle: Duration::from_secs(300),
            max_request_size: 1_048_576,
            delivery_timeout: Duration::from_secs(120),
            retries: i32::MAX as u32,
            max_in_flight: 5,
            compression: Compression::None,
            topic_compression: BTreeMap::new(),
            ignore_keys: false,
            adaptive_partitioning: true,
            availability_timeout: Duration::ZERO,
            transactional_id: None,
            transaction_timeout: Duration::from_secs(60),
        }
    }
}
