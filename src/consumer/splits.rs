//! Which partitions have a stream of their own, and how these stand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Instant;
use crate::types::TopicPartition;

/// How the partitions are split at present; part of what a consumer's tasks share.
#[derive(Debug, Default)]
pub(super) struct Split {
    /// Which split, counted; 0 if there was none.
    pub(super) id: u64,
    pub(super) on: bool,
    /// Partitions whose stream was not given out yet.
    pub(super) new: BTreeSet<TopicPartition>,
    /// Partitions whose stream was dropped, and when they are offered again.
    pub(super) again: BTreeMap<TopicPartition, Instant>,
    /// Streams that live. By serial number: the old stream of a partition may still be about when
    /// there is a new one.
    pub(super) live: BTreeMap<u64, Live>,
    pub(super) serial: u64,
    /// The newest stream of each partition.
    pub(super) newest: BTreeMap<TopicPartition, u64>,
    /// The revocation under way and the streams that it waits for.
    pub(super) revoking: Option<(u64, BTreeSet<u64>)>,
}

#[derive(Debug)]
pub(super) struct Live {
    pub(super) tp: TopicPartition,
    /// Whether it may go on.
    pub(super) on: bool,
    /// There may be something for it.
    pub(super) news: Arc<Notify>,
    /// When it was asked for more.
    pub(super) asked: Instant,
    /// It was asked for more, and nothing is here.
    pub(super) waits: bool,
}

/// A stream that is not asked for more for so long is taken to stand still.
pub(super) const STALLED: Duration = Duration::from_secs(1);

impl Split {
    pub(super) fn add(&mut self, tp: &TopicPartition) {
        let going_on = self.newest(tp).is_some_and(|live| live.on);
        self.again.remove(tp);
        if self.on && !going_on {
            self.new.insert(tp.clone());
        }
    }

    pub(super) fn newest(&self, tp: &TopicPartition) -> Option<&Live> {
        self.live.get(self.newest.get(tp)?)
    }

    /// There may be something for the stream of this partition.
    pub(super) fn wake(&self, tp: &TopicPartition) {
        if let Some(live) = self.newest(tp) {
            live.news.notify_one();
        }
    }

    pub(super) fn wake_all(&self) {
        self.live.values().for_each(|live| live.news.notify_one());
    }

    /// Notes whether the stream waits for data.
    pub(super) fn set_waits(&mut self, serial: u64, waits: bool) {
        if let Some(live) = self.live.get_mut(&serial) {
            live.waits = waits;
        }
    }

    /// Partitions whose streams wait for data.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &TopicPartition> {
        let live = self.live.values();
        live.filter(|live| live.on && live.waits)
            .map(|live| &live.tp)
    }

    /// Whether the partition's stream was not asked for more for a while, or nobody has it.
    pub(super) fn is_stalled(&self, tp: &TopicPartition, now: Instant) -> bool {
        self.newest(tp)
            .is_none_or(|live| !live.waits && live.asked + STALLED <= now)
    }

    /// Ends the streams of these partitions. Returns the streams that are still alive.
    pub(super) fn end(&mut self, partitions: &[TopicPartition]) -> Vec<(u64, TopicPartition)> {
        let partitions: BTreeSet<_> = partitions.iter().collect();
        self.new.retain(|tp| !partitions.contains(tp));
        self.again.retain(|tp, _| !partitions.contains(tp));
        let mut alive = Vec::new();
        for (serial, live) in &mut self.live {
            if partitions.contains(&live.tp) {
                live.on = false;
                live.news.notify_one();
                alive.push((*serial, live.tp.clone()));
            }
        }
        alive
    }

    /// Whether the partition waits for its stream to be taken; until when it is not offered.
    pub(super) fn offers(&self, tp: &TopicPartition) -> Option<Option<Instant>> {
        match self.again.get(tp).filter(|_| self.on) {
            Some(until) => Some(Some(*until)),
            None => self.new.contains(tp).then_some(None),
        }
    }

    pub(super) fn goes_on(&self, serial: u64) -> bool {
        self.live.get(&serial).is_some_and(|live| live.on)
    }

    /// Removes a stream that has ended or was dropped. Returns the revocation that waited for it,
    /// if that waits for no other stream.
    pub(super) fn gone(&mut self, serial: u64) -> Option<u64> {
        if let Some(live) = self.live.remove(&serial)
            && self.newest.get(&live.tp) == Some(&serial)
        {
            self.newest.remove(&live.tp);
        }
        let (id, waited) = self.revoking.as_mut()?;
        waited.remove(&serial);
        let done = waited.is_empty().then_some(*id);
        if done.is_some() {
            self.revoking = None;
        }
        done
    }
}
