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
//!
//! `part.rs` is one partition, and `planner.rs` says which ones of a broker are to be looked at.
//! Here are the assignment, metadata, lookups and moves. Above lie `plan.rs` (what to ask brokers),
//! `fetching.rs` (what their answers change), `progress.rs` (what the application has) and
//! `standing.rs` (what lag and explanations look at).

use std::collections::BTreeMap;
use std::time::Duration;

use indexmap::{IndexMap, IndexSet};
use uuid::Uuid;

use self::part::{Part, State};
use crate::clock::Instant;
use crate::config::consumer::{IsolationLevel, OffsetReset};
use crate::error::{Error, ErrorKind};
use crate::fetched::{PartEpoch, PartitionFetch, Position};
use crate::types::{BrokerId, OffsetAndMetadata, TopicPartition};

mod fetching;
mod part;
mod plan;
mod planner;
mod progress;
mod standing;

pub(crate) use self::fetching::Answer;
pub(crate) use self::part::{Leader, ResetTo, Slot};
pub(crate) use self::plan::Plan;
use self::planner::FetchPlanner;
pub(crate) use self::progress::Held;
pub(crate) use self::standing::FetchState;

/// The settings that positions depend on.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) reset: OffsetReset,
    pub(crate) isolation: IsolationLevel,
    /// Whether there is a group whose commits are where a new partition starts.
    pub(crate) has_group: bool,
    pub(crate) backoff: Duration,
    pub(crate) backoff_max: Duration,
    /// How long a follower named by the leader is read from (KIP-392).
    pub(crate) preferred_for: Duration,
}

/// What metadata says of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) topic_id: Uuid,
    pub(crate) leader: Option<Leader>,
}

/// An offset to be looked up by ListOffsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResetAsk {
    pub(crate) tp: TopicPartition,
    pub(crate) epoch: PartEpoch,
    pub(crate) to: ResetTo,
    pub(crate) leader: Leader,
}

/// The machine; see the module's documentation.
#[derive(Debug)]
pub(crate) struct Positions {
    rules: Rules,
    parts: IndexMap<TopicPartition, Part>,
    next_epoch: u64,
    /// Partitions with `unfinished` set.
    unfinished: IndexSet<TopicPartition>,
    /// Partitions that are further than what is known as committed.
    ahead: IndexSet<TopicPartition>,
    /// Partitions whose position is to be looked up.
    awaiting: IndexSet<TopicPartition>,
    /// Partitions without a position whose error the application has not been given.
    untold: IndexSet<TopicPartition>,
    /// The partitions that each broker's next request has to look at.
    agendas: BTreeMap<BrokerId, FetchPlanner>,
    /// A partition came to another broker's planner; see [`ended`](Self::ended).
    moved: bool,
    paused_count: usize,
    /// How often a partition was looked at for a request.
    #[cfg(test)]
    pub(crate) looks: usize,
}

impl Positions {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            parts: IndexMap::new(),
            next_epoch: 0,
            unfinished: IndexSet::new(),
            ahead: IndexSet::new(),
            awaiting: IndexSet::new(),
            untold: IndexSet::new(),
            agendas: BTreeMap::new(),
            moved: false,
            paused_count: 0,
            #[cfg(test)]
            looks: 0,
        }
    }

    /// Takes partitions in. A nil id means that the assignment named the topic only.
    pub(crate) fn assign(&mut self, parts: impl IntoIterator<Item = (TopicPartition, Uuid)>) {
        for (tp, topic_id) in parts {
            self.remove(&tp);
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
            if part.state == State::NoPosition {
                self.untold.insert(tp.clone());
            }
            self.parts.insert(tp.clone(), part);
            self.touch(&tp);
        }
    }

    /// Gives a partition up. Whatever is awaited for it will be stale.
    pub(crate) fn remove(&mut self, tp: &TopicPartition) -> bool {
        self.unfinished.swap_remove(tp);
        self.untold.swap_remove(tp);
        let removed = self.parts.swap_remove(tp);
        let removed = removed.map(|mut part| {
            self.paused_count -= usize::from(part.paused);
            self.forget(tp, &mut part);
        });
        removed.is_some()
    }

    pub(crate) fn assigned(&self) -> impl Iterator<Item = &TopicPartition> {
        self.parts.keys()
    }

    /// Neither fetches nor hands out from now on: the partition is about to be given up.
    pub(crate) fn set_revoking(&mut self, tp: &TopicPartition) {
        if let Some(part) = self.parts.get_mut(tp) {
            part.revoking = true;
        }
        self.touch(tp);
    }

    /// Whether the partition is about to be given up.
    pub(crate) fn is_revoking(&self, tp: &TopicPartition) -> bool {
        self.parts.get(tp).is_some_and(|part| part.revoking)
    }

    /// Takes over what metadata says. Returns the partitions whose topic was made anew under its
    /// name (their buffered data is worthless) and the errors to be told.
    pub(crate) fn update(
        &mut self,
        known: impl Fn(&TopicPartition) -> Option<Known>,
    ) -> (Vec<TopicPartition>, Vec<Error>) {
        let mut recreated = Vec::new();
        let mut changed = Vec::new();
        for (tp, part) in &mut self.parts {
            let known = known(tp);
            let before = (part.topic_id, part.leader);
            if known.is_none_or(|known| before != (known.topic_id, known.leader)) {
                changed.push(tp.clone());
            }
            let Some(known) = known else {
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
        for tp in &changed {
            self.touch(tp);
        }
        let mut errors = Vec::new();
        for tp in &recreated {
            errors.extend(self.reset_by_policy(tp, "the topic was deleted and made again"));
        }
        (recreated, errors)
    }

    /// A broker does not answer: what it was to be read from as a follower goes back to the leader
    /// (KIP-392), which may name another.
    pub(crate) fn unreachable(&mut self, broker: BrokerId) {
        let mut changed = Vec::new();
        for (tp, part) in &mut self.parts {
            let preferred = &mut part.preferred;
            if preferred
                .take_if(|(replica, _)| *replica == broker)
                .is_some()
            {
                changed.push(tp.clone());
            }
        }
        for tp in &changed {
            self.touch(tp);
        }
    }

    /// Partitions whose committed offset is to be looked up; they count as asked from now on.
    pub(crate) fn wanted_committed(&mut self, now: Instant) -> Vec<(TopicPartition, PartEpoch)> {
        let mut wanted = Vec::new();
        for tp in &self.awaiting {
            let part = self.parts.get_mut(tp);
            if let Some(part) = part.filter(|part| part.may_ask(now))
                && part.state == State::AwaitingCommitted
            {
                part.asking = true;
                wanted.push((tp.clone(), part.epoch));
            }
        }
        wanted
    }

    /// Partitions whose reset is to be looked up; they count as asked from now on.
    pub(crate) fn wanted_resets(&mut self, now: Instant) -> Vec<ResetAsk> {
        let mut wanted = Vec::new();
        for tp in &self.awaiting {
            let part = self.parts.get_mut(tp);
            if let Some(part) = part.filter(|part| part.may_ask(now))
                && let (State::AwaitingReset(to), Some(leader)) = (part.state, part.leader)
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
        now: Instant,
    ) -> Option<Error> {
        let part = self.current(tp, epoch)?;
        if part.state != State::AwaitingCommitted {
            return None;
        }
        part.answered();
        match committed {
            Some(found) => {
                let at = Position {
                    offset: found.offset,
                    leader_epoch: found.leader_epoch.unwrap_or(-1),
                };
                part.committed = Some(at.offset);
                let again = part.outside.take() == Some(at);
                if at.offset >= 0 {
                    part.start(at);
                    part.unproven = (!again).then_some(at);
                    self.touch(tp);
                    return None;
                }
                // No log has it, whoever committed it.
                if !again {
                    self.look_up_again(tp, at, now);
                    return None;
                }
                self.reset_by_policy(tp, "the committed offset is negative")
            }
            None => self.reset_by_policy(tp, "no offset is committed"),
        }
    }

    /// What a ListOffsets lookup found; a negative offset says that no record is that young, so
    /// that only those to come are.
    pub(crate) fn reset_found(&mut self, tp: &TopicPartition, epoch: PartEpoch, at: Position) {
        if let Some(part) = self.current(tp, epoch)
            && matches!(part.state, State::AwaitingReset(_))
        {
            part.answered();
            match at.offset {
                0.. => part.start(at),
                _ => part.state = State::AwaitingReset(ResetTo::Latest),
            }
        }
        self.touch(tp);
    }

    /// A lookup failed: it is tried again after a while. Whether it is still wanted.
    pub(crate) fn lookup_failed(
        &mut self,
        tp: &TopicPartition,
        epoch: PartEpoch,
        error: Option<Error>,
        now: Instant,
    ) -> bool {
        let (base, max) = (self.rules.backoff, self.rules.backoff_max);
        let Some(part) = self.current(tp, epoch) else {
            return false;
        };
        part.asking = false;
        part.trouble = error;
        part.back_off(now, base, max);
        true
    }

    /// The error of a partition that has no position, once for each partition.
    pub(crate) fn untold(&mut self) -> Option<Error> {
        while let Some(tp) = self.untold.pop() {
            let part = self.parts.get(&tp);
            if part.is_some_and(|part| part.state == State::NoPosition) {
                return Some(no_position(&tp, "there is no group"));
            }
        }
        None
    }

    /// When a lookup that waits for its back-off, and for nothing else, is due.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let awaiting = self.awaiting.iter();
        awaiting
            .filter_map(|tp| self.parts.get(tp))
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
        self.touch(tp);
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
        self.touch(tp);
        true
    }

    /// Stops or starts handing out (and fetching); `false` if the partition is not assigned. What
    /// is buffered or under way keeps its worth.
    pub(crate) fn set_paused(&mut self, tp: &TopicPartition, paused: bool) -> bool {
        match self.parts.get_mut(tp) {
            Some(part) => {
                let before = std::mem::replace(&mut part.paused, paused);
                self.paused_count += usize::from(paused);
                self.paused_count -= usize::from(before);
                self.touch(tp);
                true
            }
            None => false,
        }
    }

    pub(crate) fn is_paused(&self, tp: &TopicPartition) -> bool {
        self.parts.get(tp).is_some_and(|part| part.paused)
    }

    /// How many partitions are paused.
    pub(crate) fn paused_count(&self) -> usize {
        self.paused_count
    }

    pub(crate) fn is_assigned(&self, tp: &TopicPartition) -> bool {
        self.parts.contains_key(tp)
    }

    pub(crate) fn paused(&self) -> impl Iterator<Item = &TopicPartition> {
        let paused = self.parts.iter().filter(|(_, part)| part.paused);
        paused.map(|(tp, _)| tp)
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

    /// The log does not have the committed offset that the position was set to. An answer that was
    /// damaged on its way may have named it, so the offset is looked up once more before the
    /// records that the reset policy passes over are lost to the group.
    fn look_up_again(&mut self, tp: &TopicPartition, outside: Position, now: Instant) {
        let offset = outside.offset;
        tracing::warn!(partition = %tp, offset, "the log does not have the committed offset: it is looked up again");
        let (base, max) = (self.rules.backoff, self.rules.backoff_max);
        let epoch = self.new_epoch();
        if let Some(part) = self.parts.get_mut(tp) {
            part.renew(epoch);
            part.state = State::AwaitingCommitted;
            part.outside = Some(outside);
            let message = format!("the log does not have the committed offset {offset}");
            part.trouble = Some(Error::new(ErrorKind::Offset, message));
            part.back_off(now, base, max);
        }
        self.touch(tp);
    }

    /// Goes where the policy says. Gives the partition a new epoch.
    fn reset_by_policy(&mut self, tp: &TopicPartition, cause: &str) -> Option<Error> {
        let reset = self.rules.reset;
        let epoch = self.new_epoch();
        let part = self.parts.get_mut(tp)?;
        part.renew(epoch);
        let to = policy(reset);
        part.state = to.map_or(State::NoPosition, State::AwaitingReset);
        self.touch(tp);
        to.is_none().then(|| no_position(tp, cause))
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

fn policy(reset: OffsetReset) -> Option<ResetTo> {
    match reset {
        OffsetReset::Earliest => Some(ResetTo::Earliest),
        OffsetReset::Latest => Some(ResetTo::Latest),
        OffsetReset::ByDuration(age) => Some(ResetTo::Ago(age)),
        OffsetReset::None => None,
    }
}

#[cfg(test)]
pub(crate) mod tests;
