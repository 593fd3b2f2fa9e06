//! The Produce request's body, written by hand so that batches are never copied.

use bytes::Bytes;
use uuid::Uuid;

/// The batches of one request, grouped by topic.
#[derive(Debug, Default)]
pub(crate) struct ProduceBody {
    pub(crate) topics: Vec<ProduceTopic>,
}

/// The batches for one topic: one per partition.
#[derive(Debug)]
pub(crate) struct ProduceTopic {
    pub(crate) name: std::sync::Arc<str>,
    /// Used instead of the name from version 13 on (KIP-516); nil when unknown.
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<(i32, Bytes)>,
}
