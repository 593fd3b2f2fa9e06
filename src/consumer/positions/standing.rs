//! What is known of the partitions, for lag and explanations.

use super::part::{Part, State};
use super::{Leader, PartEpoch, PartitionFetch, Position, Positions};
use crate::clock::Instant;
use crate::config::consumer::IsolationLevel;
use crate::consumer::lag::PartitionLag;
use crate::error::Error;
use crate::types::{BrokerId, TopicPartition};

/// How a partition stands; see `Positions::standing`.
#[derive(Clone, Debug)]
pub(crate) struct PartitionStatus {
    pub(crate) stage: FetchState,
    pub(crate) paused: bool,
    pub(crate) revoking: bool,
    pub(crate) evicted: bool,
    /// A stream of its own reads it.
    pub(crate) streamed: bool,
    /// How many of those were dropped before they had ended.
    pub(crate) attempts: u32,
    pub(crate) read_from: Option<BrokerId>,
    pub(crate) not_before: Option<Instant>,
    pub(crate) trouble: Option<Error>,
    pub(crate) position: Position,
    pub(crate) high_watermark: i64,
    pub(crate) last_stable: i64,
    pub(crate) held_since: Option<Instant>,
}

/// How far a partition is on the way to a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FetchState {
    AwaitingCommitted,
    AwaitingReset,
    Active,
    NoPosition,
}

impl Positions {
    /// Notes where the log ends, as a lookup begun at `asked` found it. If a fetch was answered
    /// since, that may be newer, and the broker will not say it again (KIP-227).
    pub(crate) fn note_end(&mut self, tp: &TopicPartition, end: i64, asked: Instant, now: Instant) {
        let isolation = self.rules.isolation;
        let older = |part: &&mut Part| part.measured_at.is_none_or(|at| at < asked);
        if let Some(part) = self.parts.get_mut(tp).filter(older) {
            part.measured_at = Some(now);
            match isolation {
                IsolationLevel::ReadUncommitted => part.high_watermark = end,
                IsolationLevel::ReadCommitted => part.last_stable = end,
            }
        }
    }

    /// All that decides whether records of the partition come.
    pub(crate) fn standing(&self, tp: &TopicPartition) -> Option<PartitionStatus> {
        let part = self.parts.get(tp)?;
        Some(PartitionStatus {
            stage: match part.state {
                State::AwaitingCommitted => FetchState::AwaitingCommitted,
                State::AwaitingReset(_) => FetchState::AwaitingReset,
                State::Active => FetchState::Active,
                State::NoPosition => FetchState::NoPosition,
            },
            paused: part.paused,
            revoking: part.revoking,
            evicted: part.evicted,
            streamed: part.reader.is_some(),
            attempts: part.attempts,
            read_from: part.read_from(),
            not_before: part.not_before,
            trouble: part.trouble.clone(),
            position: part.position,
            high_watermark: part.high_watermark,
            last_stable: part.last_stable,
            held_since: part.held_since,
        })
    }

    /// Partitions with records to be read whose first timestamp is not known: what to fetch, and
    /// from whom, to learn it.
    pub(crate) fn headless(&self) -> Vec<(BrokerId, PartitionFetch)> {
        let isolation = self.rules.isolation;
        let headless = self.parts.iter().filter_map(|(tp, part)| {
            let leader = part.leader?;
            let offset = part.position.offset;
            let behind = part.is_placed() && part.end(isolation) > offset;
            let known = part.head.is_some_and(|(at, _)| at == offset);
            (behind && !known).then(|| {
                let planned = PartitionFetch {
                    tp: tp.clone(),
                    topic_id: part.topic_id,
                    epoch: part.epoch,
                    offset,
                    leader_epoch: leader.epoch,
                    last_fetched_epoch: -1,
                    log_start: -1,
                };
                (leader.broker, planned)
            })
        });
        headless.collect()
    }

    /// Notes the timestamp of the first record to be read from the offset on.
    pub(crate) fn note_head(
        &mut self,
        tp: &TopicPartition,
        epoch: PartEpoch,
        offset: i64,
        timestamp: i64,
    ) {
        if let Some(part) = self.current(tp, epoch) {
            part.head = Some((offset, timestamp));
        }
    }

    /// Partitions with a leader whose end was not learnt since `since`.
    pub(crate) fn unmeasured(&self, since: Instant) -> Vec<(TopicPartition, Leader)> {
        let old = |part: &&Part| part.measured_at.is_none_or(|at| at < since);
        let unmeasured = self.parts.iter().filter(|(_, part)| old(part));
        unmeasured
            .filter_map(|(tp, part)| Some((tp.clone(), part.leader?)))
            .collect()
    }

    /// Lag of every partition; `wall_millis` is the present time.
    pub(crate) fn lag(&self, now: Instant, wall_millis: i64) -> Vec<PartitionLag> {
        let mut lags: Vec<_> = self
            .parts
            .iter()
            .map(|(tp, part)| part.lag(tp, self.rules.isolation, now, wall_millis))
            .collect();
        lags.sort_by(|a, b| a.topic_partition.cmp(&b.topic_partition));
        lags
    }
}
