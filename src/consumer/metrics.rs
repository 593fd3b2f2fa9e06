//! Numbers about a consumer's fetching, polling and committing, and what they say of its brokers.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::meter::ConsumerMeter;
use crate::clock::Instant;
use crate::config::consumer::GroupProtocol;
use crate::error::Error;
use crate::fetched::batch::PartitionBatch;
use crate::metrics::histogram::{Histogram, SizeHistogram};
use crate::types::BrokerId;

/// What a consumer did so far, and what it holds now; see
/// [`Consumer::metrics`](super::ConsumerHandle::metrics). Counters start with the consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerMetrics {
    /// The fetches of each broker, ordered by its id.
    pub brokers: Vec<BrokerFetches>,
    /// Records handed out.
    pub records: u64,
    /// Batches of one partition handed out.
    pub batches: u64,
    /// Bytes of records fetched, compressed as they were.
    pub bytes: u64,
    /// Sizes of answers in bytes of records, compressed as they were.
    pub fetch_size: SizeHistogram,
    /// How long answered fetches took, the broker's waiting for records (`fetch.max.wait.ms`)
    /// included.
    pub fetch_latency: Histogram,
    /// Memory of what waits to be handed out: whole answers as long as a part of them waits, and
    /// batches that are decompressed and were handed out in part.
    pub buffered_bytes: u64,
    /// Bytes that fetches under way may bring at most.
    pub requested_bytes: u64,
    /// The group protocol that the consumer speaks, while it is a member.
    pub group_protocol: Option<GroupProtocol>,
    /// Partitions assigned now.
    pub assigned: usize,
    /// The largest lag in records over the partitions assigned; `None` while it is known of none.
    pub max_lag: Option<u64>,
    /// Commits that the coordinator took, those in the background included.
    pub commits: u64,
    /// Commits that failed after all retries.
    pub failed_commits: u64,
    /// How long commits took, retries included.
    pub commit_latency: Histogram,
    /// How often the group gave partitions to this member, took some in order, and took all away
    /// without asking.
    pub rebalances: Rebalances,
    /// How long the application was inside of polls. A poll that is under way does not count yet.
    pub poll_wait: Histogram,
    /// How long the application was away between two polls: what `max.poll.interval.ms` bounds.
    pub poll_interval: Histogram,
}

impl ConsumerMetrics {
    /// The part of its time that the application spent waiting for records (Java's
    /// `poll-idle-ratio`): near 1 it keeps up easily, near 0 it is the bottleneck. `None` before
    /// the second poll.
    #[must_use]
    pub fn poll_idle_ratio(&self) -> Option<f64> {
        let (inside, away) = (self.poll_wait.sum(), self.poll_interval.sum());
        let all = (inside + away).as_secs_f64();
        (all > 0.0).then(|| inside.as_secs_f64() / all)
    }
}

/// How often an assignment changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rebalances {
    /// Partitions were assigned.
    pub assigned: u64,
    /// Partitions were given up in order, after a commit.
    pub revoked: u64,
    /// Partitions were lost: the member was thrown out of the group, or did not poll in time.
    pub lost: u64,
}

/// The fetches sent to one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerFetches {
    /// The broker.
    pub broker: BrokerId,
    /// Requests answered.
    pub requests: u64,
    /// Requests that failed as a whole: no connection, no answer in time, an error code.
    pub failures: u64,
    /// Bytes of records in the answers, compressed as they were.
    pub bytes: u64,
    /// How long the last answer took, the broker's waiting for records (`fetch.max.wait.ms`)
    /// included.
    pub latency: Duration,
    /// How long the broker asked to be left alone, added up (quotas, KIP-219).
    pub throttled: Duration,
}

/// The numbers of all brokers, and how each of them is at present.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    brokers: BTreeMap<BrokerId, State>,
}

/// Where one consumer's numbers are written down that do not concern a single broker. Apart from
/// what the consumer's lock guards, so that no recorder's code runs under that.
pub(super) struct ConsumerStats {
    counts: Mutex<Counts>,
    meter: ConsumerMeter,
}

#[derive(Default)]
struct Counts {
    metrics: ConsumerMetrics,
    /// When the last poll ended.
    left_at: Option<Instant>,
}

/// What the group did to the assignment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rebalance {
    Assigned,
    Revoked,
    Lost,
}

#[derive(Debug)]
struct State {
    counts: BrokerFetches,
    trouble: Option<Error>,
    throttled_until: Option<Instant>,
}

impl ConsumerStats {
    pub(super) fn new(client_id: &str) -> Self {
        Self {
            counts: Mutex::default(),
            meter: ConsumerMeter::new(client_id),
        }
    }

    /// What is known here of all that the metrics say.
    pub(super) fn snapshot(&self) -> ConsumerMetrics {
        self.counts().metrics.clone()
    }

    pub(super) fn handed_out(&self, batches: &[PartitionBatch]) {
        let records = batches.iter().map(PartitionBatch::record_count);
        let (records, batches) = (records.sum::<usize>() as u64, batches.len() as u64);
        let mut counts = self.counts();
        counts.metrics.records += records;
        counts.metrics.batches += batches;
        drop(counts);
        self.meter.records.add(records);
        self.meter.batches.add(batches);
    }

    pub(super) fn fetched(&self, bytes: usize, took: Duration, throttled: Duration) {
        let mut counts = self.counts();
        counts.metrics.bytes += bytes as u64;
        counts.metrics.fetch_size.add(bytes as u64);
        counts.metrics.fetch_latency.add(took);
        drop(counts);
        let meter = &self.meter;
        meter.fetches.add(1);
        meter.bytes.add(bytes as u64);
        meter.fetch_size.size(bytes);
        meter.fetch_latency.time(took);
        meter.throttle.some_time(throttled);
    }

    pub(super) fn not_fetched(&self) {
        self.meter.fetches_failed.add(1);
    }

    pub(super) fn committed(&self, took: Duration, ok: bool) {
        let mut counts = self.counts();
        if ok {
            counts.metrics.commits += 1;
            counts.metrics.commit_latency.add(took);
        } else {
            counts.metrics.failed_commits += 1;
        }
        drop(counts);
        if ok {
            self.meter.commits.add(1);
            self.meter.commit_latency.time(took);
        } else {
            self.meter.commits_failed.add(1);
        }
    }

    pub(super) fn rebalanced(&self, what: Rebalance) {
        let mut counts = self.counts();
        let count = &mut counts.metrics.rebalances;
        let (count, counter) = match what {
            Rebalance::Assigned => (&mut count.assigned, &self.meter.assigned),
            Rebalance::Revoked => (&mut count.revoked, &self.meter.revoked),
            Rebalance::Lost => (&mut count.lost, &self.meter.lost),
        };
        *count += 1;
        drop(counts);
        counter.add(1);
    }

    /// A poll that began then has ended.
    pub(super) fn polled(&self, began: Instant, ended: Instant) {
        let wait = ended.saturating_duration_since(began);
        let mut counts = self.counts();
        let away = counts.left_at.replace(ended);
        let away = away.map(|left| began.saturating_duration_since(left));
        counts.metrics.poll_wait.add(wait);
        if let Some(away) = away {
            counts.metrics.poll_interval.add(away);
        }
        drop(counts);
        self.meter.poll_wait.time(wait);
        if let Some(away) = away {
            self.meter.poll_interval.time(away);
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetches {
    pub(super) fn answered(
        &mut self,
        broker: BrokerId,
        bytes: usize,
        (sent, now): (Instant, Instant),
        throttle: Duration,
    ) {
        let state = self.of(broker);
        state.trouble = None;
        state.throttled_until = (!throttle.is_zero()).then(|| now + throttle);
        let counts = &mut state.counts;
        counts.requests += 1;
        counts.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
        counts.latency = now.saturating_duration_since(sent);
        counts.throttled += throttle;
    }

    /// The broker left the cluster.
    pub(super) fn forget(&mut self, broker: BrokerId) {
        self.brokers.remove(&broker);
    }

    pub(super) fn failed(&mut self, broker: BrokerId, error: Error) {
        let state = self.of(broker);
        state.counts.failures += 1;
        state.trouble = Some(error);
    }

    /// Why the last request to the broker failed, if it did.
    pub(super) fn trouble(&self, broker: BrokerId) -> Option<&Error> {
        self.brokers.get(&broker)?.trouble.as_ref()
    }

    pub(super) fn throttled_until(&self, broker: BrokerId) -> Option<Instant> {
        self.brokers.get(&broker)?.throttled_until
    }

    pub(super) fn counts(&self) -> Vec<BrokerFetches> {
        let states = self.brokers.values();
        states.map(|state| state.counts.clone()).collect()
    }

    fn of(&mut self, broker: BrokerId) -> &mut State {
        self.brokers.entry(broker).or_insert_with(|| State {
            counts: BrokerFetches {
                broker,
                requests: 0,
                failures: 0,
                bytes: 0,
                latency: Duration::ZERO,
                throttled: Duration::ZERO,
            },
            trouble: None,
            throttled_until: None,
        })
    }
}
