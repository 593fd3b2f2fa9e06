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

use super::part::{Part, Slot};
use super::planner::{leave, look};
use super::{PartEpoch, PartitionFetch, Positions};
use crate::clock::Instant;
use crate::types::{BrokerId, TopicPartition};

/// What a request is to do otherwise than the one before.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Partitions that changed: how requests ask for them from now on, or that they do not. For the
    /// second request only partitions that it asks for.
    pub(crate) changes: Vec<(TopicPartition, Option<PartitionFetch>)>,
    /// Partitions left out because enough of them is buffered.
    pub(crate) full: usize,
    /// When there may be more to ask for, by time alone.
    pub(crate) next_at: Option<Instant>,
    /// A partition is to be read from another broker now; see [`Positions::ended`].
    pub(crate) moved: bool,
}

impl Positions {
    /// Has the next request to the partition's broker look at the partition again.
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

    /// Returns the partitions that a request asks for otherwise than the one before; `full` says of
    /// which enough is buffered. If the second request is not made, its partitions go
    /// [back](Self::put_off).
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
