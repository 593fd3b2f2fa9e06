//! One partition: where it stands, where it is read from, when it may be asked.

use std::time::Duration;

use uuid::Uuid;

use crate::clock::Instant;
use crate::config::consumer::IsolationLevel;
use crate::consumer::lag::PartitionLag;
use crate::error::Error;
use crate::fetched::{PartEpoch, Position};
use crate::types::{BrokerId, TimeLag, TopicPartition};

/// Where a reset goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResetTo {
    Earliest,
    Latest,
    /// The first record not older than this.
    Ago(Duration),
}

/// Where a partition can be read, as metadata says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) broker: BrokerId,
    pub(crate) epoch: i32,
}

/// Which of the two requests that may be under way to a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// In the broker's session.
    First,
    /// Outside of it.
    Second,
}

/// How many damaged answers in a row are asked for again at once before the application gets the
/// error.
pub(super) const TRIES: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The group's committed offset is wanted.
    AwaitingCommitted,
    /// An offset from the log's bounds or by time is wanted.
    AwaitingReset(ResetTo),
    /// There is a position.
    Active,
    /// There is no position and no reset policy. The application got an error and has to seek.
    NoPosition,
}

#[derive(Debug)]
pub(super) struct Part {
    pub(super) epoch: PartEpoch,
    /// The epoch in which the position was set: what was handed out since is of the present run of
    /// records.
    pub(super) since: PartEpoch,
    pub(super) state: State,
    pub(super) topic_id: Uuid,
    /// The assignment named the topic by id: another id is another topic, not ours.
    pub(super) pinned: bool,
    pub(super) leader: Option<Leader>,
    pub(super) preferred: Option<(BrokerId, Instant)>,
    pub(super) paused: bool,
    pub(super) revoking: bool,
    /// Memory was short and nobody took of it for a while, so that what was fetched of it was
    /// dropped. It is not fetched until its stream asks for more, or partitions have no streams.
    pub(super) evicted: bool,
    /// An offset lookup is under way.
    pub(super) asking: bool,
    /// The broker on whose planner it is, which request of that asks for it, and the timer it has
    /// there.
    pub(super) home: Option<BrokerId>,
    pub(super) asked: Option<Slot>,
    pub(super) due: Option<Instant>,
    pub(super) failures: u32,
    /// Answers in a row whose bytes are damaged.
    pub(super) damaged: u32,
    pub(super) not_before: Option<Instant>,
    /// Its topic seems to be deleted: what was read of it is not to be committed, lest a new topic
    /// of the same name starts there.
    pub(super) gone: bool,
    /// Why the last answer or lookup made it wait.
    pub(super) trouble: Option<Error>,
    pub(super) fetch: Position,
    pub(super) position: Position,
    pub(super) finished: Position,
    /// Handed out more than is finished.
    pub(super) unfinished: bool,
    /// What is not finished is read again when the application asks for more, unless it says before
    /// that it has finished with it: a `RecordStream` was dropped there.
    pub(super) left: bool,
    /// The `PartitionStream` that reads it, by its serial number.
    pub(super) reader: Option<u64>,
    /// How many of its streams were dropped before they had ended.
    pub(super) attempts: u32,
    /// Something was handed out since the position was set.
    pub(super) given: bool,
    pub(super) committed: Option<i64>,
    /// The committed offset that the position was set to, until the log proves to have it.
    pub(super) unproven: Option<Position>,
    /// The committed offset that the log does not have: it counts if it is found again.
    pub(super) outside: Option<Position>,
    pub(super) high_watermark: i64,
    pub(super) last_stable: i64,
    /// Since when an open transaction is known to hold back what lies behind `last_stable`.
    pub(super) held_since: Option<Instant>,
    pub(super) log_start: i64,
    /// When the end of the log was learnt.
    pub(super) measured_at: Option<Instant>,
    /// The timestamp of the first record to be read from this offset on.
    pub(super) head: Option<(i64, i64)>,
}

impl Part {
    pub(super) fn new(epoch: PartEpoch, topic_id: Uuid) -> Self {
        let nowhere = Position::new(-1);
        Self {
            epoch,
            since: epoch,
            state: State::NoPosition,
            topic_id,
            pinned: !topic_id.is_nil(),
            leader: None,
            preferred: None,
            paused: false,
            revoking: false,
            evicted: false,
            asking: false,
            home: None,
            asked: None,
            due: None,
            failures: 0,
            damaged: 0,
            not_before: None,
            gone: false,
            trouble: None,
            fetch: nowhere,
            position: nowhere,
            finished: nowhere,
            unfinished: false,
            left: false,
            reader: None,
            attempts: 0,
            given: false,
            committed: None,
            unproven: None,
            outside: None,
            high_watermark: -1,
            last_stable: -1,
            held_since: None,
            log_start: -1,
            measured_at: None,
            head: None,
        }
    }

    /// The end of what can be read; -1 if unknown.
    pub(super) fn end(&self, isolation: IsolationLevel) -> i64 {
        match isolation {
            IsolationLevel::ReadUncommitted => self.high_watermark,
            IsolationLevel::ReadCommitted => self.last_stable,
        }
    }

    pub(super) fn may_commit(&self) -> bool {
        self.is_placed() && !self.gone
    }

    /// Whether it is, or will be when it is finished with, further than what the group has
    /// committed.
    pub(super) fn is_ahead(&self) -> bool {
        let offsets = [self.position.offset, self.finished.offset];
        self.is_placed() && offsets.iter().any(|offset| self.committed != Some(*offset))
    }

    pub(super) fn is_placed(&self) -> bool {
        self.state == State::Active
    }

    /// Whether a lookup is wanted and there is somebody to ask.
    pub(super) fn awaits(&self) -> bool {
        match self.state {
            State::AwaitingCommitted => true,
            State::AwaitingReset(_) => self.leader.is_some(),
            State::Active | State::NoPosition => false,
        }
    }

    /// Whether there is no position yet and one is to be looked up.
    pub(super) fn awaits_position(&self) -> bool {
        matches!(
            self.state,
            State::AwaitingCommitted | State::AwaitingReset(_)
        )
    }

    pub(super) fn read_from(&self) -> Option<BrokerId> {
        let leader = self.leader?.broker;
        Some(self.preferred.map_or(leader, |(replica, _)| replica))
    }

    /// Sets the leader. Another one ends what the old leader decided: the replica to read from and
    /// the back-off.
    pub(super) fn set_leader(&mut self, leader: Option<Leader>) {
        if self.leader != leader {
            self.preferred = None;
            if leader.is_some() && !self.asking {
                self.not_before = None;
            }
            self.leader = leader;
        }
    }

    pub(super) fn forget_log(&mut self) {
        self.high_watermark = -1;
        self.last_stable = -1;
        self.held_since = None;
        self.log_start = -1;
        self.measured_at = None;
        self.head = None;
        self.committed = None;
    }

    pub(super) fn may_ask(&self, now: Instant) -> bool {
        !self.asking && !self.revoking && self.not_before.is_none_or(|at| at <= now)
    }

    pub(super) fn answered(&mut self) {
        self.asking = false;
        self.gone = false;
        self.trouble = None;
        self.failures = 0;
        self.damaged = 0;
        self.not_before = None;
        self.unproven = None;
    }

    /// Whether damaged bytes are still taken for damage on their way, to be asked for again.
    pub(super) fn tries_again(&mut self) -> bool {
        self.damaged = self.damaged.saturating_add(1);
        self.damaged <= TRIES
    }

    pub(super) fn back_off(&mut self, now: Instant, base: Duration, max: Duration) {
        let factor = 1_u32 << self.failures.min(16);
        self.not_before = Some(now + base.saturating_mul(factor).min(max));
        self.failures = self.failures.saturating_add(1);
    }

    /// Starts a new epoch: buffered data and answers under way are dropped.
    pub(super) fn live_again(&mut self, epoch: PartEpoch) {
        self.epoch = epoch;
        self.asked = None;
    }

    /// Starts a new epoch for a position that is set anew: buffered data and answers under way are
    /// dropped, and back-off and errors of the old position are forgotten.
    pub(super) fn renew(&mut self, epoch: PartEpoch) {
        self.live_again(epoch);
        self.since = epoch;
        self.left = false;
        self.asking = false;
        self.failures = 0;
        self.damaged = 0;
        self.not_before = None;
        self.gone = false;
        self.trouble = None;
        self.unproven = None;
        self.outside = None;
    }

    /// The application has finished with all it was given.
    pub(super) fn finish(&mut self) {
        self.finished = self.position;
        self.unfinished = false;
        self.left = false;
    }

    /// The application has finished with what is before.
    pub(super) fn finish_to(&mut self, at: Position) {
        if (self.finished.offset..=self.position.offset).contains(&at.offset) {
            self.finished = at;
        }
    }

    pub(super) fn start(&mut self, at: Position) {
        self.state = State::Active;
        self.fetch = at;
        self.position = at;
        self.finished = at;
        self.given = false;
    }

    pub(super) fn lag(
        &self,
        tp: &TopicPartition,
        isolation: IsolationLevel,
        now: Instant,
        wall_millis: i64,
    ) -> PartitionLag {
        let position = self.is_placed().then_some(self.position.offset);
        let head = self.head.filter(|(at, _)| Some(*at) == position);
        let next_timestamp = head.map(|(_, timestamp)| timestamp);
        let end = self.end(isolation);
        let end_offset = (end >= 0).then_some(end);
        let records = match (position, end_offset) {
            (Some(position), Some(end)) => {
                Some(u64::try_from(end.saturating_sub(position)).unwrap_or(0))
            }
            _ => None,
        };
        let time = match (records, next_timestamp) {
            (Some(0), _) => TimeLag::CaughtUp,
            (Some(_), Some(at)) if at >= 0 => {
                let age = u64::try_from(wall_millis.saturating_sub(at)).unwrap_or(0);
                TimeLag::Behind(Duration::from_millis(age))
            }
            _ => TimeLag::Unknown,
        };
        PartitionLag {
            topic_partition: tp.clone(),
            position,
            committed: self.committed,
            end_offset,
            records,
            time,
            behind_newest: match records {
                Some(0) => TimeLag::CaughtUp,
                _ => TimeLag::Unknown,
            },
            measured: self.measured_at.map(|at| now.saturating_duration_since(at)),
        }
    }
}
