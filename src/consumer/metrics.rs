//! Numbers about a consumer's fetching, and what they say of its brokers.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Instant;
use crate::error::Error;
use crate::types::BrokerId;

/// What a consumer did so far, and what it holds now; see
/// [`Consumer::metrics`](super::Consumer::metrics). Counters start with the consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerMetrics {
    /// The fetches of each broker, ordered by its id.
    pub brokers: Vec<BrokerFetches>,
    /// Records handed out.
    pub records: u64,
    /// Memory of what waits to be handed out: whole answers as long as a part of them waits, and batches
    /// that are decompressed and were handed out in part.
    pub buffered_bytes: u64,
    /// Bytes that fetches under way may bring at most.
    pub requested_bytes: u64,
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
    /// How long the last answer took, the broker's waiting for records (`fetch.max.wait.ms`) included.
    pub latency: Duration,
    /// How long the broker asked to be left alone, added up (quotas, KIP-219).
    pub throttled: Duration,
}

/// The numbers of all brokers, and how each of them is at present.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    brokers: BTreeMap<BrokerId, State>,
    pub(super) records: u64,
}

#[derive(Debug)]
struct State {
    counts: BrokerFetches,
    trouble: Option<Error>,
    throttled_until: Option<Instant>,
    /// The fetch session that the broker keeps for this consumer; 0: none (KIP-227).
    session: i32,
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

    pub(super) fn note_session(&mut self, broker: BrokerId, session: i32) {
        self.of(broker).session = session;
    }

    /// The sessions that brokers keep for this consumer.
    pub(super) fn sessions(&self) -> Vec<(BrokerId, i32)> {
        let kept = self.brokers.iter().filter(|(_, state)| state.session != 0);
        kept.map(|(broker, state)| (*broker, state.session))
            .collect()
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
            session: 0,
        })
    }
}
