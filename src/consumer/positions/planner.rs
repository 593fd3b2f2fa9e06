//! Which partitions the fetch tasks of a broker look at again, so that no request looks at all of
//! them.
//!
//! Invariants:
//! - Whatever changes a partition ends with [`Positions::touch`], which puts it on the planner of
//!   the broker it is to be read from, and has the one it was read from before drop it. What was
//!   not touched is wanted, or not, as it was when it was last looked at.
//! - What changes with time alone has a timer there.
//! - The first request of a broker asks for all that is wanted until told otherwise, as a fetch
//!   session does (KIP-227); the second for what it is given once, and the first leaves that out
//!   meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::{IndexMap, IndexSet};

use super::part::{Part, State};
use super::{PartEpoch, PartitionFetch, Positions};
use crate::clock::Instant;
use crate::types::{BrokerId, TopicPartition};

/// Which of the two requests that may be under way to a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// In the broker's session.
    First,
    /// Outside of it.
    Second,
}

/// What a request is to do otherwise than the one before.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Partitions that changed: asked for so from now on, or no more. The second request is told
    /// only what to ask for.
    pub(crate) changes: Vec<(TopicPartition, Option<PartitionFetch>)>,
    /// Partitions left out because enough of them is buffered.
    pub(crate) full: usize,
    /// When there may be more to ask for, by time alone.
    pub(crate) next_at: Option<Instant>,
    /// A partition is to be read from another broker now; see [`Positions::ended`].
    pub(crate) moved: bool,
}

/// The partitions of one broker; see the module's documentation.
#[derive(Debug, Default)]
pub(super) struct FetchPlanner {
    /// How many partitions are to be read from it.
    homes: usize,
    /// Those that changed, the first one first.
    changed: IndexSet<TopicPartition>,
    /// Those that the first request has to look at besides: given up, read from elsewhere, or
    /// looked at for the second request.
    left: IndexSet<TopicPartition>,
    /// Those left out because enough of them is buffered.
    full: IndexSet<TopicPartition>,
    /// When to look at one again, whatever happens ([`Part::due`]).
    timers: BTreeSet<(Instant, TopicPartition)>,
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
    fn set_timer(&mut self, tp: &TopicPartition, part: &mut Part, not_before: Option<Instant>) {
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

impl Positions {
    /// The partition is to be looked at again.
    pub(crate) fn touch(&mut self, tp: &TopicPartition) {
        self.book(tp);
        let Some(part) = self.parts.get_mut(tp) else {
            return;
        };
        match part.awaits_position() {
            true => self.awaiting.insert(tp.clone()),
            false => self.awaiting.swap_remove(tp),
        };
        let home = part.read_from();
        if home != part.home {
            leave(&mut self.agendas, tp, part);
            part.asked = None;
            part.home = home;
            if let Some(home) = home {
                let planner = self.agendas.entry(home).or_default();
                planner.homes += 1;
                planner.set_timer(tp, part, None);
                self.moved = true;
            }
        }
        if let Some(home) = home {
            let planner = self.agendas.entry(home).or_default();
            planner.changed.insert(tp.clone());
        }
    }

    /// The partition is given up.
    pub(super) fn forget(&mut self, tp: &TopicPartition, part: &mut Part) {
        self.awaiting.swap_remove(tp);
        self.ahead.swap_remove(tp);
        leave(&mut self.agendas, tp, part);
    }

    /// What to ask a broker for otherwise than before, given of which partitions enough is
    /// buffered. If the second request is not made, what it was told goes [back](Self::put_off).
    pub(crate) fn plan(
        &mut self,
        broker: BrokerId,
        slot: Slot,
        now: Instant,
        full: impl Fn(&TopicPartition) -> bool,
    ) -> Plan {
        self.ring(broker, now);
        let planner = self.agendas.entry(broker).or_default();
        let mut changed = std::mem::take(&mut planner.changed);
        if slot == Slot::First {
            changed.extend(std::mem::take(&mut planner.left));
        }
        let mut plan = Plan::default();
        for tp in changed {
            let wanted = look(&mut self.parts, planner, (broker, &tp), now, &full);
            #[cfg(test)]
            {
                self.looks += 1;
            }
            match slot {
                Slot::First => {
                    let part = self.parts.get_mut(&tp);
                    if let Some(part) = part.filter(|part| part.home == Some(broker))
                        && part.asked != Some(Slot::Second)
                    {
                        part.asked = wanted.is_some().then_some(Slot::First);
                    }
                    plan.changes.push((tp, wanted));
                }
                Slot::Second => {
                    let asked = self.parts.get(&tp).and_then(|part| part.asked);
                    match wanted {
                        Some(_) if asked.is_none() => plan.changes.push((tp, wanted)),
                        _ => {
                            planner.left.insert(tp);
                        }
                    }
                }
            }
        }
        plan.moved = std::mem::take(&mut self.moved);
        plan.full = planner.full.len();
        plan.next_at = planner.timers.first().map(|(at, _)| *at);
        plan
    }

    /// The second request is not made now.
    pub(crate) fn put_off(&mut self, broker: BrokerId, asked: Vec<(TopicPartition, PartEpoch)>) {
        let planner = self.agendas.entry(broker).or_default();
        planner.changed.extend(asked.into_iter().map(|(tp, _)| tp));
    }

    /// The second request asks for these partitions, until [`ended`](Self::ended).
    pub(crate) fn begun(&mut self, broker: BrokerId, asked: &[(TopicPartition, PartEpoch)]) {
        let planner = self.agendas.entry(broker).or_default();
        for (tp, epoch) in asked {
            let part = self.parts.get_mut(tp);
            if let Some(part) = part.filter(|part| part.epoch == *epoch) {
                part.asked = Some(Slot::Second);
                planner.left.insert(tp.clone());
            }
        }
    }

    /// A request to this broker is over, answered or not; what it asked for if it was the second.
    /// True if a partition is now to be read from another broker, whose fetch task does not know: a
    /// follower was named (KIP-392), gave up, or its time is over.
    pub(crate) fn ended(
        &mut self,
        broker: BrokerId,
        asked: &[(TopicPartition, PartEpoch)],
        now: Instant,
    ) -> bool {
        for (tp, epoch) in asked {
            let part = self.parts.get_mut(tp).filter(|part| {
                part.epoch == *epoch
                    && part.home == Some(broker)
                    && part.asked == Some(Slot::Second)
            });
            if let Some(part) = part {
                part.asked = None;
                self.touch(tp);
            }
        }
        self.ring(broker, now);
        std::mem::take(&mut self.moved)
    }

    /// The broker that the partition is read from.
    pub(crate) fn read_from(&self, tp: &TopicPartition) -> Option<BrokerId> {
        self.parts.get(tp)?.home
    }

    /// What counts as enough buffered is not the same any more.
    pub(crate) fn recheck(&mut self, broker: BrokerId) {
        if let Some(planner) = self.agendas.get_mut(&broker) {
            planner.changed.extend(planner.full.iter().cloned());
        }
    }

    /// Whether anything is to be read from the broker.
    pub(crate) fn is_read(&self, broker: BrokerId) -> bool {
        let planner = self.agendas.get(&broker);
        planner.is_some_and(|planner| planner.homes > 0)
    }

    /// The broker left the cluster; nothing is to be read from it.
    pub(crate) fn forget_broker(&mut self, broker: BrokerId) {
        self.agendas.remove(&broker);
    }

    /// The brokers that fetches go to at present.
    pub(crate) fn brokers(&self) -> impl Iterator<Item = BrokerId> {
        let agendas = self.agendas.iter();
        agendas.filter_map(|(broker, planner)| (planner.homes > 0).then_some(*broker))
    }

    /// Looks after the timers.
    fn ring(&mut self, broker: BrokerId, now: Instant) {
        while let Some(planner) = self.agendas.get_mut(&broker)
            && planner.timers.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, tp)) = planner.timers.pop_first()
        {
            if let Some(part) = self.parts.get_mut(&tp) {
                part.due = None;
                part.preferred.take_if(|(_, until)| *until <= now);
            }
            self.touch(&tp);
        }
    }
}

fn leave(agendas: &mut BTreeMap<BrokerId, FetchPlanner>, tp: &TopicPartition, part: &mut Part) {
    if let Some(planner) = part.home.and_then(|home| agendas.get_mut(&home)) {
        planner.leave(tp, part);
    }
}

/// How the partition is to be asked for, if it is; what there is to be noted for when it is not.
fn look(
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
