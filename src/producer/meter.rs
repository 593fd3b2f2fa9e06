//! The handles of a producer for the `metrics` facade.

use crate::metrics::handle::{Counter, Distribution, Labels, Share};
use crate::metrics::table;

pub(crate) struct ProducerMeter {
    pub(crate) records_sent: Counter,
    pub(crate) records_failed: Counter,
    pub(crate) batches_sent: Counter,
    pub(crate) batches_failed: Counter,
    pub(crate) batches_retried: Counter,
    pub(crate) batches_split: Counter,
    pub(crate) batches_refused: Counter,
    pub(crate) batch_bytes: Counter,
    pub(crate) uncompressed_bytes: Counter,
    pub(crate) batch_size: Distribution,
    pub(crate) queue_time: Distribution,
    pub(crate) batch_latency: Distribution,
    pub(crate) requests: Counter,
    pub(crate) requests_failed: Counter,
    pub(crate) request_latency: Distribution,
    pub(crate) throttle: Distribution,
    pub(crate) buffer_wait: Distribution,
    pub(crate) buffer_used: Share,
    pub(crate) buffer_total: Share,
}

impl ProducerMeter {
    pub(crate) fn new(client_id: &str) -> Self {
        let labels = &Labels::client(client_id);
        Self {
            records_sent: Counter::new(&table::RECORDS_SENT, labels),
            records_failed: Counter::new(&table::RECORDS_FAILED, labels),
            batches_sent: Counter::new(&table::BATCHES_SENT, labels),
            batches_failed: Counter::new(&table::BATCHES_FAILED, labels),
            batches_retried: Counter::new(&table::BATCHES_RETRIED, labels),
            batches_split: Counter::new(&table::BATCHES_SPLIT, labels),
            batches_refused: Counter::new(&table::BATCHES_REFUSED, labels),
            batch_bytes: Counter::new(&table::BATCH_BYTES, labels),
            uncompressed_bytes: Counter::new(&table::UNCOMPRESSED_BYTES, labels),
            batch_size: Distribution::new(&table::BATCH_SIZE, labels),
            queue_time: Distribution::new(&table::QUEUE_TIME, labels),
            batch_latency: Distribution::new(&table::BATCH_LATENCY, labels),
            requests: Counter::new(&table::PRODUCE_REQUESTS, labels),
            requests_failed: Counter::new(&table::PRODUCE_REQUESTS_FAILED, labels),
            request_latency: Distribution::new(&table::PRODUCE_LATENCY, labels),
            throttle: Distribution::new(&table::PRODUCE_THROTTLE, labels),
            buffer_wait: Distribution::new(&table::BUFFER_WAIT, labels),
            buffer_used: Share::new(&table::BUFFER_USED, labels),
            buffer_total: Share::new(&table::BUFFER_TOTAL, labels),
        }
    }
}
