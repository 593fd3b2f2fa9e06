//! What is told of a batch that ended.

use std::time::Duration;

use crate::error::Error;
use crate::types::TopicPartition;

/// How a batch of records ended; see
/// [`ProducerBuilder::on_batch`](crate::ProducerBuilder::on_batch).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BatchReport {
    /// Where its records went.
    pub partition: TopicPartition,
    /// The offset of the first record; the others follow it one by one. `None` if the batch failed
    /// or the broker did not say, as with `acks=0`.
    pub base_offset: Option<i64>,
    /// How many records it held.
    pub records: u32,
    /// Its bytes as sent: compressed, with the batch's header.
    pub bytes: usize,
    /// Its bytes before compression, with the batch's header.
    pub uncompressed_bytes: usize,
    /// How many requests carried it: 1 unless it was repeated, 0 if it never was sent.
    pub attempts: u32,
    /// From the acceptance of its first record to its first request; `None` if it never was sent.
    pub queued: Option<Duration>,
    /// From the acceptance of its first record to its end.
    pub latency: Duration,
    /// Why it failed, if it did. [`Error::certainty`] says whether its records may have been
    /// written.
    pub error: Option<Error>,
}
