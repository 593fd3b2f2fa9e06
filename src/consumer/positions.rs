//! Where the consumer stands in each assigned partition, and what to ask next.
//!
//! A machine: it takes the time and what happened, and says what to fetch, look up or report.
//!
//! Invariants:
//! - A partition has up to three offsets: `finished <= position <= fetch`. `fetch` is where the
//!   next request reads, `position` the next record for the application, `finished` what the
//!   application had been given before it last asked for more. Only `finished` is committed
//!   automatically.
//! - Whatever makes buffered or awaited data worthless (seek, reset, removal, rewinding) gives the
//!   partition another [`PartEpoch`]; answers and buffered data of an older one are dropped.
//! - An answer counts only if it was asked at the present `fetch` offset, so that two brokers
//!   answering for one partition (the leader moved) never deliver twice.
//! - A partition whose answers are errors waits before it is asked again: no busy loop.

use std::collections::BTreeMap;
use std::time::Duration;

use indexmap::IndexMap;
use uuid::Uuid;

use super::codes;
use super::config::{IsolationLevel, OffsetReset};
use super::lag::{PartitionLag, TimeLag};
use crate::clock::Instant;
use crate::error::{Error, ErrorKind};
use crate::types::{BrokerId, OffsetAndMetadata, TopicPartition};

/// A place in a log: the next offset, and the leader epoch of the record before it (-1 if unknown).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
}

impl Position {
    pub(crate) fn new(offset: i64) -> Self {
        Self {
            offset,
            leader_epoch: -1,
        }
    }

    /// What to commit for this position.
    pub(crate) fn to_commit(self) -> OffsetAndMetadata {
        let epoch = (self.leader_epoch >= 0).then_some(self.leader_epoch);
        OffsetAndMetadata::new(self.offset).with_leader_epoch(epoch)
    }
}

/// Which life of a partition's position an answer belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartEpoch(u64);

/// Where a reset goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResetTo {
    Earliest,
    Latest,
    /// The first record not older than this.
    Ago(Duration),
}

/// The settings that positions depend on.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) reset: OffsetReset,
    pub(crate) isolation: IsolationLevel,
    /// Whether there is a group whose commits are where a new partition starts.
    pub(crate) has_group: bool,
    pub(crate) backoff: Duration,
    pub(crate) backoff_max: Duration,
    /// A partition with at least this much buffered is not asked for more.
    pub(crate) prefetch: usize,
    /// How long a follower named by the leader is read from (KIP-392).
    pub(crate) preferred_for: Duration,
}

/// Where a partition can be read, as metadata says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) broker: BrokerId,
    pub(crate) epoch: i32,
}

/// What metadata says of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) topic_id: Uuid,
    pub(crate) leader: Option<Leader>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The group's committed offset is wanted.
    AwaitingCommitted,
    /// An offset from the log's bounds or by time is wanted.
    AwaitingReset(ResetTo),
    /// There is a position.
    Active,
    /// No position, no policy: the application was told and has to seek.
    NoPosition,
}

#[derive(Debug)]
struct Part {
    epoch: PartEpoch,
    state: State,
    topic_id: Uuid,
    /// The assignment named the topic by id: another id is another topic, not ours.
    pinned: bool,
    leader: Option<Leader>,
    preferred: Option<(BrokerId, Instant)>,
    paused: bool,
    revoking: bool,
    /// An offset lookup is under way.
    asking: bool,
    failures: u32,
    not_before: Option<Instant>,
    /// Its topic seems to be deleted: what was read of it is not to be committed, lest a new topic of
    /// the same name starts there.
    gone: bool,
    /// Why the last answer or lookup made it wait.
    trouble: Option<Error>,
    fetch: Position,
    position: Position,
    finished: Position,
    /// Handed out more than is finished.
    unfinished: bool,
    /// The application does not know yet that there is no position.
    untold: bool,
    committed: Option<i64>,
    high_watermark: i64,
    last_stable: i64,
    log_start: i64,
    /// When the end of the log was learnt.
    measured_at: Option<Instant>,
    /// The timestamp of the first record to be read from this offset on.
    head: Option<(i64, i64)>,
}

/// One partition of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) tp: TopicPartition,
    pub(crate) topic_id: Uuid,
    pub(crate) epoch: PartEpoch,
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) last_fetched_epoch: i32,
    pub(crate) log_start: i64,
}

/// What to fetch from one broker.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) parts: Vec<Planned>,
    /// Partitions left out because enough of them is buffered.
    pub(crate) full: usize,
    /// When a partition that waits for its back-off can be asked again.
    pub(crate) next_at: Option<Instant>,
}

/// What a broker answered for one partition.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) code: i16,
    pub(crate) high_watermark: i64,
    pub(crate) last_stable: i64,
    pub(crate) log_start: i64,
    /// The log parted from what was read: the largest common epoch and where it ends (KIP-320).
    pub(crate) diverging: Option<(i32, i64)>,
    pub(crate) preferred: Option<BrokerId>,
    pub(crate) data: Survey,
}

/// What the fetched bytes of a partition hold, judged by the headers of the batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survey {
    /// No bytes.
    Empty,
    /// Whole batches (what follows them may be cut off).
    Batches {
        /// The offset after the last whole batch.
        next_offset: i64,
        /// The leader epoch of the last whole batch.
        leader_epoch: i32,
    },
    /// Bytes, but not one whole batch.
    Partial,
    /// The first header cannot be one of a batch.
    Corrupt,
}

/// What to do after an answer.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The bytes belong to the buffer.
    pub(crate) buffer: bool,
    /// What is buffered for the partition is worthless.
    pub(crate) discard: bool,
    /// Metadata proved wrong.
    pub(crate) refresh: bool,
    /// To be told to the application.
    pub(crate) error: Option<Error>,
}

/// An offset to be looked up by ListOffsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResetAsk {
    pub(crate) tp: TopicPartition,
    pub(crate) epoch: PartEpoch,
    pub(crate) to: ResetTo,
    pub(crate) leader: Leader,
}

/// How a partition stands; see `Positions::standing`.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) stage: Stage,
    pub(crate) paused: bool,
    pub(crate) revoking: bool,
    pub(crate) read_from: Option<BrokerId>,
    pub(crate) not_before: Option<Instant>,
    pub(crate) trouble: Option<Error>,
    pub(crate) position: Position,
    pub(crate) high_watermark: i64,
    pub(crate) last_stable: i64,
}

/// How far a partition is on the way to a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    AwaitingCommitted,
    AwaitingReset,
    Active,
    NoPosition,
}

/// The machine; see the module's documentation.
#[derive(Debug)]
pub(crate) struct Positions {
    rules: Rules,
    parts: IndexMap<TopicPartition, Part>,
    next_epoch: u64,
    /// Partitions with `unfinished` set.
    dirty: Vec<TopicPartition>,
    /// Where in `parts` the partitions are that may be read from a broker, as their leader or as a
    /// replica named by it; `None` when that may have changed.
    by_broker: Option<BTreeMap<BrokerId, Vec<usize>>>,
}

impl Positions {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            parts: IndexMap::new(),
            next_epoch: 0,
            dirty: Vec::new(),
            by_broker: None,
        }
    }

    /// Takes partitions in. A nil id means that the assignment named the topic only.
    pub(crate) fn assign(&mut self, parts: impl IntoIterator<Item = (TopicPartition, Uuid)>) {
        self.by_broker = None;
        for (tp, topic_id) in parts {
            let epoch = self.new_epoch();
            let mut part = Part::new(epoch, topic_id);
            part.state = if self.rules.has_group {
                State::AwaitingCommitted
            } else {
                match policy(self.rules.reset) {
                    Some(to) => State::AwaitingReset(to),
                    None => State::NoPosition,
                }
            };
            part.untold = part.state == State::NoPosition;
            self.parts.insert(tp, part);
        }
    }

    /// Gives a partition up. Whatever is awaited for it will be stale.
    pub(crate) fn remove(&mut self, tp: &TopicPartition) -> bool {
        self.by_broker = None;
        self.dirty.retain(|dirty| dirty != tp);
        self.parts.shift_remove(tp).is_some()
    }

    pub(crate) fn assigned(&self) -> impl Iterator<Item = &TopicPartition> {
        self.parts.keys()
    }

    /// Neither fetches nor hands out from now on: the partition is about to be given up.
    pub(crate) fn set_revoking(&mut self, tp: &TopicPartition) {
        if let Some(part) = self.parts.get_mut(tp) {
            part.revoking = true;
        }
    }

    /// Takes over what metadata says. Returns the partitions whose topic was made anew under its
    /// name (their buffered data is worthless) and the errors to be told.
    pub(crate) fn update(
        &mut self,
        known: impl Fn(&TopicPartition) -> Option<Known>,
    ) -> (Vec<TopicPartition>, Vec<Error>) {
        let mut recreated = Vec::new();
        self.by_broker = None;
        for (tp, part) in &mut self.parts {
            let Some(known) = known(tp) else {
                part.leader = None;
                part.gone = part.is_placed();
                continue;
            };
            let same = known.topic_id == part.topic_id || known.topic_id.is_nil();
            if same || part.topic_id.is_nil() {
                if part.topic_id.is_nil() {
                    part.topic_id = known.topic_id;
                }
                part.set_leader(known.leader);
            } else if part.pinned {
                part.leader = None;
                part.gone = true;
            } else {
                part.topic_id = known.topic_id;
                part.set_leader(known.leader);
                part.forget_log();
                recreated.push(tp.clone());
            }
        }
        let mut errors = Vec::new();
        for tp in &recreated {
            errors.extend(self.reset_by_policy(tp, "the topic was deleted and made again"));
        }
        (recreated, errors)
    }

    /// The brokers that fetches go to at present.
    pub(crate) fn brokers(&self, now: Instant) -> Vec<BrokerId> {
        let mut brokers: Vec<_> = self
            .parts
            .values()
            .filter_map(|part| part.read_from(now))
            .collect();
        brokers.sort_unstable();
        brokers.dedup();
        brokers
    }

    /// A broker does not answer: what it was to be read from as a follower goes back to the leader
    /// (KIP-392), which may name another.
    pub(crate) fn unreachable(&mut self, broker: BrokerId) {
        for part in self.parts.values_mut() {
            part.preferred.take_if(|(replica, _)| *replica == broker);
        }
    }

    /// Partitions whose committed offset is to be looked up; they count as asked from now on.
    pub(crate) fn wanted_committed(&mut self, now: Instant) -> Vec<(TopicPartition, PartEpoch)> {
        let mut wanted = Vec::new();
        for (tp, part) in &mut self.parts {
            if part.state == State::AwaitingCommitted && part.may_ask(now) {
                part.asking = true;
                wanted.push((tp.clone(), part.epoch));
            }
        }
        wanted
    }

    /// Partitions whose reset is to be looked up; they count as asked from now on.
    pub(crate) fn wanted_resets(&mut self, now: Instant) -> Vec<ResetAsk> {
        let mut wanted = Vec::new();
        for (tp, part) in &mut self.parts {
            if let (State::AwaitingReset(to), Some(leader), true) =
                (part.state, part.leader, part.may_ask(now))
            {
                part.asking = true;
                wanted.push(ResetAsk {
                    tp: tp.clone(),
                    epoch: part.epoch,
                    to,
                    leader,
                });
            }
        }
        wanted
    }

    /// The group's committed offset of a partition, or that there is none.
    pub(crate) fn committed_found(
        &mut self,
        tp: &TopicPartition,
        epoch: PartEpoch,
        committed: Option<&OffsetAndMetadata>,
    ) -> Option<Error> {
        let part = self.current(tp, epoch)?;
        if part.state != State::AwaitingCommitted {
            return None;
        }
        part.asked();
        match committed {
            Some(found) => {
                part.committed = Some(found.offset);
                part.start(Position {
                    offset: found.offset,
                    leader_epoch: found.leader_epoch.unwrap_or(-1),
                });
                None
            }
            None => self.reset_by_policy(tp, "no offset is committed"),
        }
    }

    /// What a ListOffsets lookup found; a negative offset says that no record is that young, so that
    /// only those to come are.
    pub(crate) fn reset_found(&mut self, tp: &TopicPartition, epoch: PartEpoch, at: Position) {
        if let Some(part) = self.current(tp, epoch)
            && matches!(part.state, State::AwaitingReset(_))
        {
            part.asked();
            match at.offset {
                0.. => part.start(at),
                _ => part.state = State::AwaitingReset(ResetTo::Latest),
            }
        }
    }

    /// A lookup failed: it is tried again after a while.
    pub(crate) fn lookup_failed(
        &mut self,
        tp: &TopicPartition,
        epoch: PartEpoch,
        error: Option<Error>,
        now: Instant,
    ) {
        let (base, max) = (self.rules.backoff, self.rules.backoff_max);
        if let Some(part) = self.current(tp, epoch) {
            part.asking = false;
            part.trouble = error;
            part.back_off(now, base, max);
        }
    }

    /// An error for a partition that has no position and of which the application was not told.
    pub(crate) fn untold(&mut self) -> Option<Error> {
        let (tp, part) = self.parts.iter_mut().find(|(_, part)| part.untold)?;
        part.untold = false;
        Some(no_position(tp, "there is no group"))
    }

    /// When a lookup that waits for its back-off, and for nothing else, is due.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.parts
            .values()
            .filter(|part| !part.asking && !part.revoking && part.awaits())
            .filter_map(|part| part.not_before)
            .min()
    }

    /// Moves to an offset; `false` if the partition is not assigned.
    pub(crate) fn seek(&mut self, tp: &TopicPartition, to: Position) -> bool {
        let epoch = self.new_epoch();
        let Some(part) = self.parts.get_mut(tp) else {
            return false;
        };
        part.renew(epoch);
        part.start(to);
        true
    }

    /// Moves to one end of the log, or by time; `false` if the partition is not assigned.
    pub(crate) fn seek_to(&mut self, tp: &TopicPartition, to: ResetTo) -> bool {
        let epoch = self.new_epoch();
        let Some(part) = self.parts.get_mut(tp) else {
            return false;
        };
        part.renew(epoch);
        part.state = State::AwaitingReset(to);
        true
    }

    /// Stops or starts handing out (and fetching); `false` if the partition is not assigned. What is
    /// buffered or under way keeps its worth.
    pub(crate) fn set_paused(&mut self, tp: &TopicPartition, paused: bool) -> bool {
        match self.parts.get_mut(tp) {
            Some(part) => {
                part.paused = paused;
                true
            }
            None => false,
        }
    }

    pub(crate) fn paused(&self) -> impl Iterator<Item = &TopicPartition> {
        let paused = self.parts.iter().filter(|(_, part)| part.paused);
        paused.map(|(tp, _)| tp)
    }

    /// What to fetch from a broker, given how much of each partition is buffered.
    pub(crate) fn plan(
        &mut self,
        broker: BrokerId,
        now: Instant,
        buffered: impl Fn(&TopicPartition) -> usize,
    ) -> Plan {
        let mut plan = Plan::default();
        let parts = &self.parts;
        let by_broker = self.by_broker.get_or_insert_with(|| index(parts));
        let at_broker = by_broker.get(&broker).into_iter().flatten();
        for (tp, part) in at_broker.filter_map(|place| parts.get_index(*place)) {
            if part.state != State::Active
                || part.paused
                || part.revoking
                || part.read_from(now) != Some(broker)
            {
                continue;
            }
            if let Some(at) = part.not_before.filter(|at| *at > now) {
                plan.next_at = Some(plan.next_at.map_or(at, |next| next.min(at)));
            } else if buffered(tp) >= self.rules.prefetch {
                plan.full += 1;
            } else {
                plan.parts.push(Planned {
                    tp: tp.clone(),
                    topic_id: part.topic_id,
                    epoch: part.epoch,
                    offset: part.fetch.offset,
                    leader_epoch: part.leader.map_or(-1, |leader| leader.epoch),
                    last_fetched_epoch: part.fetch.leader_epoch,
                    log_start: -1,
                });
            }
        }
        plan
    }

    /// Takes a broker's answer for a partition in.
    pub(crate) fn accept(
        &mut self,
        from: BrokerId,
        asked: &Planned,
        answer: &Answer,
        now: Instant,
    ) -> Outcome {
        let (base, max, keep) = (
            self.rules.backoff,
            self.rules.backoff_max,
            self.rules.preferred_for,
        );
        if answer.preferred.is_some() {
            self.by_broker = None;
        }
        let Some(part) = self.current(&asked.tp, asked.epoch) else {
            return Outcome::default();
        };
        if part.revoking || part.state != State::Active || part.fetch.offset != asked.offset {
            return Outcome::default();
        }
        if answer.code != codes::NONE {
            return self.refused(from, asked, answer.code, now);
        }
        if let Some((epoch, end)) = answer.diverging {
            return self.diverged(&asked.tp, epoch, end, now);
        }
        if answer.high_watermark >= 0 {
            part.high_watermark = answer.high_watermark;
        }
        part.last_stable = answer.last_stable;
        part.log_start = answer.log_start;
        part.measured_at = Some(now);
        if let Some(replica) = answer.preferred {
            part.preferred = Some((replica, now + keep));
        }
        match answer.data {
            Survey::Empty => {
                part.asked();
                Outcome::default()
            }
            Survey::Batches {
                next_offset,
                leader_epoch,
            } if next_offset > part.fetch.offset => {
                part.asked();
                part.fetch = Position {
                    offset: next_offset,
                    leader_epoch,
                };
                Outcome {
                    buffer: true,
                    ..Outcome::default()
                }
            }
            Survey::Partial => {
                part.back_off(now, base, max);
                Outcome::error(
                    &asked.tp,
                    Error::new(
                        ErrorKind::RecordTooLarge,
                        format!(
                            "the batch at offset {} does not fit into max.partition.fetch.bytes, and the broker does not send it whole; raise the setting",
                            asked.offset
                        ),
                    ),
                )
            }
            Survey::Batches { .. } | Survey::Corrupt => {
                part.back_off(now, max, max);
                Outcome::error(
                    &asked.tp,
                    Error::new(
                        ErrorKind::CorruptRecord,
                        format!(
                            "what the broker sent for offset {} is not a batch of records that holds it",
                            asked.offset
                        ),
                    )
                    .with_unreadable(asked.offset..asked.offset.saturating_add(1)),
                )
            }
        }
    }

    fn refused(&mut self, from: BrokerId, asked: &Planned, code: i16, now: Instant) -> Outcome {
        let (base, max) = (self.rules.backoff, self.rules.backoff_max);
        let Some(part) = self.parts.get_mut(&asked.tp) else {
            return Outcome::default();
        };
        let from_follower = part
            .preferred
            .take()
            .is_some_and(|(replica, _)| replica == from);
        match code {
            codes::OFFSET_OUT_OF_RANGE if from_follower => Outcome::default(),
            codes::OFFSET_OUT_OF_RANGE => {
                let cause = format!("offset {} is outside the log", asked.offset);
                Outcome {
                    discard: true,
                    error: self.reset_by_policy(&asked.tp, &cause),
                    ..Outcome::default()
                }
            }
            codes::NOT_LEADER_OR_FOLLOWER
            | codes::LEADER_NOT_AVAILABLE
            | codes::REPLICA_NOT_AVAILABLE
            | codes::KAFKA_STORAGE_ERROR
            | codes::FENCED_LEADER_EPOCH
            | codes::UNKNOWN_LEADER_EPOCH
            | codes::OFFSET_NOT_AVAILABLE
            | codes::UNKNOWN_TOPIC_OR_PARTITION
            | codes::UNKNOWN_TOPIC_ID
            | codes::INCONSISTENT_TOPIC_ID => {
                part.gone |= matches!(
                    code,
                    codes::UNKNOWN_TOPIC_ID | codes::UNKNOWN_TOPIC_OR_PARTITION
                );
                part.back_off(now, base, max);
                part.trouble = Some(Error::from_code(code, "fetching"));
                Outcome {
                    refresh: true,
                    ..Outcome::default()
                }
            }
            codes::UNKNOWN_SERVER_ERROR | codes::REQUEST_TIMED_OUT | codes::NETWORK_EXCEPTION => {
                part.back_off(now, base, max);
                part.trouble = Some(Error::from_code(code, "fetching"));
                Outcome::default()
            }
            other => {
                part.back_off(now, max, max);
                let doing = format!("fetching from {} at offset {}", asked.tp, asked.offset);
                let error = Error::from_code(other, doing);
                part.trouble = Some(error.clone());
                let mut outcome = Outcome::error(&asked.tp, error);
                outcome.refresh = other == codes::TOPIC_AUTHORIZATION_FAILED;
                outcome
            }
        }
    }

    /// The log was cut behind what was read (KIP-320): what was read beyond is gone.
    fn diverged(&mut self, tp: &TopicPartition, epoch: i32, end: i64, now: Instant) -> Outcome {
        let reset = self.rules.reset;
        let (base, max) = (self.rules.backoff, self.rules.backoff_max);
        let renewed = self.new_epoch();
        let Some(part) = self.parts.get_mut(tp) else {
            return Outcome::default();
        };
        let lost = part.position.offset > end;
        if lost && reset == OffsetReset::None {
            let at = part.position.offset;
            part.renew(renewed);
            part.state = State::NoPosition;
            return Outcome {
                discard: true,
                ..Outcome::error(
                    tp,
                    Error::new(
                        ErrorKind::Offset,
                        format!(
                            "the log was truncated: records from offset {end} to {at} that were read are gone (auto.offset.reset is none)"
                        ),
                    ),
                )
            };
        }
        let target = Position {
            offset: part.position.offset.min(end),
            leader_epoch: epoch,
        };
        if lost {
            tracing::warn!(partition = %tp, position = part.position.offset, end, "log truncated behind the position; going back");
        }
        let finished = part.finished;
        part.renew(renewed);
        part.start(target);
        if !lost {
            part.finished = finished;
        }
        part.back_off(now, base, max);
        Outcome {
            discard: true,
            ..Outcome::default()
        }
    }

    /// Whether data of this epoch may be handed out now.
    pub(crate) fn may_hand_out(&self, tp: &TopicPartition, epoch: PartEpoch) -> bool {
        self.parts.get(tp).is_some_and(|part| {
            part.epoch == epoch && !part.paused && !part.revoking && part.state == State::Active
        })
    }

    /// The next offset to hand out, if the epoch is the present one.
    pub(crate) fn position_under(&self, tp: &TopicPartition, epoch: PartEpoch) -> Option<i64> {
        let part = self.parts.get(tp).filter(|part| part.epoch == epoch)?;
        Some(part.position.offset)
    }

    /// The application is being given everything before `next`; `false` (and nothing happens) if
    /// the data is stale. Whether the partition may be handed out was asked when its data was taken:
    /// a pause since then counts from the next time on.
    pub(crate) fn hand_out(
        &mut self,
        tp: &TopicPartition,
        epoch: PartEpoch,
        next: Position,
    ) -> bool {
        let Some(part) = self.current(tp, epoch).filter(|part| part.is_placed()) else {
            return false;
        };
        if next.offset > part.position.offset {
            part.position = next;
            if !std::mem::replace(&mut part.unfinished, true) {
                self.dirty.push(tp.clone());
            }
        }
        true
    }

    /// The application asks for more: it has finished with all it was given.
    pub(crate) fn finish(&mut self) {
        for tp in self.dirty.drain(..) {
            if let Some(part) = self.parts.get_mut(&tp) {
                part.finished = part.position;
                part.unfinished = false;
            }
        }
    }

    /// The application has finished with all it was given of one partition.
    pub(crate) fn finish_one(&mut self, tp: &TopicPartition) {
        if let Some(part) = self.parts.get_mut(tp).filter(|part| part.unfinished) {
            part.finished = part.position;
            part.unfinished = false;
            self.dirty.retain(|dirty| dirty != tp);
        }
    }

    /// What was handed out so far and is not known as committed: what the application's own commit
    /// covers.
    pub(crate) fn handed_out(&self) -> Vec<(TopicPartition, Position)> {
        let active = self
            .parts
            .iter()
            .filter(|(_, part)| part.may_commit() && part.committed != Some(part.position.offset));
        active
            .map(|(tp, part)| (tp.clone(), part.position))
            .collect()
    }

    /// What is finished and not known as committed.
    pub(crate) fn uncommitted(&self) -> Vec<(TopicPartition, Position)> {
        let changed = self
            .parts
            .iter()
            .filter(|(_, part)| part.may_commit() && part.committed != Some(part.finished.offset));
        changed
            .map(|(tp, part)| (tp.clone(), part.finished))
            .collect()
    }

    /// Notes what the group has committed.
    pub(crate) fn note_committed(&mut self, tp: &TopicPartition, offset: i64) {
        if let Some(part) = self.parts.get_mut(tp) {
            part.committed = Some(offset);
        }
    }

    /// Goes back to the position and fetches again from there, after a back-off if `now` is given:
    /// what was buffered turned out damaged, or its memory is needed.
    pub(crate) fn rewind(&mut self, tp: &TopicPartition, now: Option<Instant>) {
        let renewed = self.new_epoch();
        let max = self.rules.backoff_max;
        if let Some(part) = self.parts.get_mut(tp) {
            part.epoch = renewed;
            part.fetch = part.position;
            if let Some(now) = now {
                part.back_off(now, max, max);
            }
        }
    }

    /// What was handed out from `offset` on comes back unread; false if that is stale.
    pub(crate) fn hand_back(&mut self, tp: &TopicPartition, epoch: PartEpoch, offset: i64) -> bool {
        let renewed = self.new_epoch();
        let Some(part) = self.current(tp, epoch).filter(|part| part.is_placed()) else {
            return false;
        };
        if !(part.finished.offset..part.position.offset).contains(&offset) {
            return false;
        }
        part.epoch = renewed;
        part.position = Position::new(offset);
        part.fetch = part.position;
        true
    }

    /// Notes where the log ends, as a lookup found it.
    pub(crate) fn note_end(&mut self, tp: &TopicPartition, end: i64, now: Instant) {
        let isolation = self.rules.isolation;
        if let Some(part) = self.parts.get_mut(tp) {
            part.measured_at = Some(now);
            match isolation {
                IsolationLevel::ReadUncommitted => part.high_watermark = end,
                IsolationLevel::ReadCommitted => part.last_stable = end,
            }
        }
    }

    /// The next offset to be handed out, where there is one.
    pub(crate) fn position(&self, tp: &TopicPartition) -> Option<Position> {
        let part = self.parts.get(tp).filter(|part| part.is_placed())?;
        Some(part.position)
    }

    /// The topic that the partition's position is of; nil where that is not known.
    pub(crate) fn topic_id(&self, tp: &TopicPartition) -> Uuid {
        self.parts.get(tp).map_or(Uuid::nil(), |part| part.topic_id)
    }

    /// All that decides whether records of the partition come.
    pub(crate) fn standing(&self, tp: &TopicPartition, now: Instant) -> Option<Standing> {
        let part = self.parts.get(tp)?;
        Some(Standing {
            stage: match part.state {
                State::AwaitingCommitted => Stage::AwaitingCommitted,
                State::AwaitingReset(_) => Stage::AwaitingReset,
                State::Active => Stage::Active,
                State::NoPosition => Stage::NoPosition,
            },
            paused: part.paused,
            revoking: part.revoking,
            read_from: part.read_from(now),
            not_before: part.not_before,
            trouble: part.trouble.clone(),
            position: part.position,
            high_watermark: part.high_watermark,
            last_stable: part.last_stable,
        })
    }

    /// Partitions with records to be read whose first timestamp is not known: what to fetch, and from
    /// whom, to learn it.
    pub(crate) fn headless(&self) -> Vec<(BrokerId, Planned)> {
        let isolation = self.rules.isolation;
        let headless = self.parts.iter().filter_map(|(tp, part)| {
            let leader = part.leader?;
            let offset = part.position.offset;
            let behind = part.is_placed() && part.end(isolation) > offset;
            let known = part.head.is_some_and(|(at, _)| at == offset);
            (behind && !known).then(|| {
                let planned = Planned {
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

    /// Goes where the policy says. Gives the partition a new epoch.
    fn reset_by_policy(&mut self, tp: &TopicPartition, cause: &str) -> Option<Error> {
        let reset = self.rules.reset;
        let epoch = self.new_epoch();
        let part = self.parts.get_mut(tp)?;
        part.renew(epoch);
        if let Some(to) = policy(reset) {
            part.state = State::AwaitingReset(to);
            return None;
        }
        part.state = State::NoPosition;
        Some(no_position(tp, cause))
    }

    fn current(&mut self, tp: &TopicPartition, epoch: PartEpoch) -> Option<&mut Part> {
        self.parts.get_mut(tp).filter(|part| part.epoch == epoch)
    }

    fn new_epoch(&mut self) -> PartEpoch {
        self.next_epoch += 1;
        PartEpoch(self.next_epoch)
    }
}

fn no_position(tp: &TopicPartition, cause: &str) -> Error {
    let message = format!("{cause}, and auto.offset.reset is none; seek to where to go on");
    Error::new(ErrorKind::Offset, message).with_topic_partition(tp.clone())
}

/// Partitions by the brokers that they may be read from; see `Positions::by_broker`.
fn index(parts: &IndexMap<TopicPartition, Part>) -> BTreeMap<BrokerId, Vec<usize>> {
    let mut index: BTreeMap<BrokerId, Vec<usize>> = BTreeMap::new();
    for (place, part) in parts.values().enumerate() {
        let leader = part.leader.map(|leader| leader.broker);
        let named = part.preferred.map(|(replica, _)| replica);
        let named = named.filter(|named| Some(*named) != leader);
        for broker in leader.into_iter().chain(named) {
            index.entry(broker).or_default().push(place);
        }
    }
    index
}

fn policy(reset: OffsetReset) -> Option<ResetTo> {
    match reset {
        OffsetReset::Earliest => Some(ResetTo::Earliest),
        OffsetReset::Latest => Some(ResetTo::Latest),
        OffsetReset::ByDuration(age) => Some(ResetTo::Ago(age)),
        OffsetReset::None => None,
    }
}

impl Part {
    fn new(epoch: PartEpoch, topic_id: Uuid) -> Self {
        let nowhere = Position::new(-1);
        Self {
            epoch,
            state: State::NoPosition,
            topic_id,
            pinned: !topic_id.is_nil(),
            leader: None,
            preferred: None,
            paused: false,
            revoking: false,
            asking: false,
            failures: 0,
            not_before: None,
            gone: false,
            trouble: None,
            fetch: nowhere,
            position: nowhere,
            finished: nowhere,
            unfinished: false,
            untold: false,
            committed: None,
            high_watermark: -1,
            last_stable: -1,
            log_start: -1,
            measured_at: None,
            head: None,
        }
    }

    /// The end of what can be read; -1 if unknown.
    fn end(&self, isolation: IsolationLevel) -> i64 {
        match isolation {
            IsolationLevel::ReadUncommitted => self.high_watermark,
            IsolationLevel::ReadCommitted => self.last_stable,
        }
    }

    fn may_commit(&self) -> bool {
        self.is_placed() && !self.gone
    }

    fn is_placed(&self) -> bool {
        self.state == State::Active
    }

    /// Whether a lookup is wanted and there is somebody to ask.
    fn awaits(&self) -> bool {
        match self.state {
            State::AwaitingCommitted => true,
            State::AwaitingReset(_) => self.leader.is_some(),
            State::Active | State::NoPosition => false,
        }
    }

    fn read_from(&self, now: Instant) -> Option<BrokerId> {
        match self.preferred {
            Some((replica, until)) if until > now && self.leader.is_some() => Some(replica),
            _ => self.leader.map(|leader| leader.broker),
        }
    }

    /// Another leader ends what was said by the old one: its replica to read from, its back-off.
    fn set_leader(&mut self, leader: Option<Leader>) {
        if self.leader != leader {
            self.preferred = None;
            if leader.is_some() && !self.asking {
                self.not_before = None;
            }
            self.leader = leader;
        }
    }

    fn forget_log(&mut self) {
        self.high_watermark = -1;
        self.last_stable = -1;
        self.log_start = -1;
        self.measured_at = None;
        self.head = None;
        self.committed = None;
    }

    fn may_ask(&self, now: Instant) -> bool {
        !self.asking && !self.revoking && self.not_before.is_none_or(|at| at <= now)
    }

    fn asked(&mut self) {
        self.asking = false;
        self.gone = false;
        self.trouble = None;
        self.failures = 0;
        self.not_before = None;
    }

    fn back_off(&mut self, now: Instant, base: Duration, max: Duration) {
        let factor = 1_u32 << self.failures.min(16);
        self.not_before = Some(now + base.saturating_mul(factor).min(max));
        self.failures = self.failures.saturating_add(1);
    }

    /// Another life: what is buffered, awaited or known of the old position counts no more.
    fn renew(&mut self, epoch: PartEpoch) {
        self.epoch = epoch;
        self.asking = false;
        self.failures = 0;
        self.not_before = None;
        self.gone = false;
        self.trouble = None;
        self.untold = false;
    }

    fn start(&mut self, at: Position) {
        self.state = State::Active;
        self.fetch = at;
        self.position = at;
        self.finished = at;
    }

    fn lag(
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
            (Some(position), Some(end)) => Some(u64::try_from(end - position).unwrap_or(0)),
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

impl Outcome {
    fn error(tp: &TopicPartition, error: Error) -> Self {
        Self {
            error: Some(error.with_topic_partition(tp.clone())),
            ..Self::default()
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
