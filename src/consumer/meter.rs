//! The handles of a consumer for the `metrics` facade.

use std::collections::HashMap;

use super::lag::Lag;
use crate::metrics::handle::{Counter, Distribution, Labels, Level, Share};
use crate::metrics::table;
use crate::types::{TimeLag, TopicPartition};

pub(crate) struct ConsumerMeter {
    pub(crate) records: Counter,
    pub(crate) batches: Counter,
    pub(crate) bytes: Counter,
    pub(crate) fetches: Counter,
    pub(crate) fetches_failed: Counter,
    pub(crate) fetch_latency: Distribution,
    pub(crate) fetch_size: Distribution,
    pub(crate) throttle: Distribution,
    pub(crate) assigned: Counter,
    pub(crate) revoked: Counter,
    pub(crate) lost: Counter,
    pub(crate) commits: Counter,
    pub(crate) commits_failed: Counter,
    pub(crate) commit_latency: Distribution,
    pub(crate) poll_wait: Distribution,
    pub(crate) poll_interval: Distribution,
}

impl ConsumerMeter {
    pub(crate) fn new(client_id: &str) -> Self {
        let labels = &Labels::client(client_id);
        let rebalances = |event| Counter::new(&table::REBALANCES, &labels.with("event", event));
        Self {
            records: Counter::new(&table::RECORDS_CONSUMED, labels),
            batches: Counter::new(&table::BATCHES_CONSUMED, labels),
            bytes: Counter::new(&table::FETCHED_BYTES, labels),
            fetches: Counter::new(&table::FETCHES, labels),
            fetches_failed: Counter::new(&table::FETCHES_FAILED, labels),
            fetch_latency: Distribution::new(&table::FETCH_LATENCY, labels),
            fetch_size: Distribution::new(&table::FETCH_SIZE, labels),
            throttle: Distribution::new(&table::FETCH_THROTTLE, labels),
            assigned: rebalances("assigned"),
            revoked: rebalances("revoked"),
            lost: rebalances("lost"),
            commits: Counter::new(&table::COMMITS, labels),
            commits_failed: Counter::new(&table::COMMITS_FAILED, labels),
            commit_latency: Distribution::new(&table::COMMIT_LATENCY, labels),
            poll_wait: Distribution::new(&table::POLL_WAIT, labels),
            poll_interval: Distribution::new(&table::POLL_INTERVAL, labels),
        }
    }
}

/// The gauges of a consumer, which a task updates now and then. The gauges of a partition go to 0
/// when it is given up, and all gauges when the consumer ends.
pub(crate) struct Gauges {
    labels: Labels,
    assigned: Share,
    buffered: Share,
    partitions: HashMap<TopicPartition, Behind>,
}

struct Behind {
    labels: Labels,
    /// Made when it is known first.
    records: Option<Level>,
    time: Level,
}

impl Gauges {
    pub(crate) fn new(client_id: &str, group: &str) -> Self {
        let labels = Labels::client(client_id);
        Self {
            assigned: Share::new(&table::ASSIGNED, &labels),
            buffered: Share::new(&table::BUFFERED_BYTES, &labels),
            labels: labels.with("group", group),
            partitions: HashMap::new(),
        }
    }

    pub(crate) fn update(&mut self, lag: &Lag, buffered: usize) {
        self.assigned.set(lag.partitions().len());
        self.buffered.set(buffered);
        let mut before = std::mem::take(&mut self.partitions);
        for partition in lag.partitions() {
            let tp = &partition.topic_partition;
            let mut behind = before.remove(tp).unwrap_or_else(|| self.behind(tp));
            if let Some(records) = partition.records {
                behind
                    .records
                    .get_or_insert_with(|| Level::new(&table::RECORDS_LAG, &behind.labels))
                    .set(records as f64);
            }
            behind.time.set(match partition.time {
                TimeLag::CaughtUp => 0.0,
                TimeLag::Behind(age) => age.as_secs_f64(),
                TimeLag::Unknown => f64::NAN,
            });
            self.partitions.insert(tp.clone(), behind);
        }
    }

    fn behind(&self, tp: &TopicPartition) -> Behind {
        let labels = self.labels.with("topic", tp.topic());
        let labels = labels.with("partition", &tp.partition().to_string());
        Behind {
            records: None,
            time: Level::new(&table::TIME_LAG, &labels),
            labels,
        }
    }
}
