//! The partitions of one broker that its next request looks at, and the times at which it looks at
//! others. `plan.rs` puts them here and takes them out.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::{IndexMap, IndexSet};

use super::part::{Part, Slot, State};
use crate::clock::Instant;
use crate::fetched::PartitionFetch;
use crate::types::{BrokerId, TopicPartition};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct FetchPlanner {
    /// How many partitions are to be read from it.
    pub(super) homes: usize,
    /// Partitions that changed, in the order of their changes.
    pub(super) changed: IndexSet<TopicPartition>,
    /// Partitions that the first request looks at besides, mostly to remove them from the session:
    /// they were given up, are read from another broker, or were looked at for the second request.
    pub(super) left: IndexSet<TopicPartition>,
    /// Partitions that requests leave out because enough of them is buffered.
    pub(super) full: IndexSet<TopicPartition>,
    /// When a request looks at a partition again though nothing changed ([`Part::due`]).
    pub(super) timers: BTreeSet<(Instant, TopicPartition)>,
}

impl FetchPlanner {
    /// The partition is not this broker's any more.
    fn leave(&mut self, tp: &TopicPartition, part: &mut Part) {
        self.homes -= 1;
        self.unlist(tp, part);
        self.changed.swap_remove(tp);
        self.left.insert(tp.clone());
    }

    /// Looks at it again when its back-off is over, or the time that a follower is read for.
    pub(super) fn set_timer(
        &mut self,
        tp: &TopicPartition,
        part: &mut Part,
        not_before: Option<Instant>,
    ) {
        let preferred_until = part.preferred.map(|(_, until)| until);
        part.due = not_before.into_iter().chain(preferred_until).min();
        if let Some(due) = part.due {
            self.timers.insert((due, tp.clone()));
        }
    }

    fn unlist(&mut self, tp: &TopicPartition, part: &mut Part) {
        self.full.swap_remove(tp);
        if let Some(due) = part.due.take() {
            self.timers.remove(&(due, tp.clone()));
        }
    }
}

/// The partition is not to be read any more from where it was.
pub(super) fn leave(
    agendas: &mut BTreeMap<BrokerId, FetchPlanner>,
    tp: &TopicPartition,
    part: &mut Part,
) {
    if let Some(planner) = part.home.and_then(|home| agendas.get_mut(&home)) {
        planner.leave(tp, part);
    }
}

/// How the partition is to be asked for, if it is; what there is to be noted for when it is not.
pub(super) fn look(
    parts: &mut IndexMap<TopicPartition, Part>,
    planner: &mut FetchPlanner,
    (broker, tp): (BrokerId, &TopicPartition),
    now: Instant,
    full: impl Fn(&TopicPartition) -> bool,
) -> Option<PartitionFetch> {
    let part = parts.get_mut(tp).filter(|part| part.home == Some(broker))?;
    planner.unlist(tp, part);
    let fetchable = part.state == State::Active
        && !part.paused
        && !part.revoking
        && !part.evicted
        && part.asked != Some(Slot::Second);
    let not_before = part.not_before.filter(|at| fetchable && *at > now);
    planner.set_timer(tp, part, not_before);
    if !fetchable || not_before.is_some() {
        return None;
    }
    if full(tp) {
        planner.full.insert(tp.clone());
        return None;
    }
    Some(PartitionFetch {
        tp: tp.clone(),
        topic_id: part.topic_id,
        epoch: part.epoch,
        offset: part.fetch.offset,
        leader_epoch: part.leader.map_or(-1, |leader| leader.epoch),
        last_fetched_epoch: part.fetch.leader_epoch,
        log_start: -1,
    })
}
