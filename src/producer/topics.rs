//! The topics that a producer sends to: how they are found and kept. How they follow the cluster's
//! metadata is in `metadata.rs`.
//!
//! All of them stand in one map behind a lock. Records find theirs in a copy without a lock, which
//! is made anew when as many have missed it as there are topics: so a new topic costs what it
//! costs, however many there are, and one that is used is soon in the copy. Whatever gives slots a
//! home happens under the lock, so that nobody goes back to an older snapshot than another has
//! taken over, and no sender ends while a slot comes to it.
//!
//! A topic to which nothing was sent for `metadata.max.idle.ms` is forgotten: its entry, its slots,
//! and its place in metadata requests. Its slots take no more records, and who meets one looks the
//! topic up anew. What brokers expect next of its sequences is forgotten with them; so the identity
//! under which they ran is noted, one for all topics, and slots made from then on ask for another:
//! the next epoch, under which sequences start at 0 (KIP-360).

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use indexmap::IndexMap;

use crate::clock::Instant;
use crate::cluster::{Interest, Topic};
use crate::producer::identity::ExhaustedEpoch;
use crate::producer::slot::Slot;
use crate::producer::sticky::Sticky;

pub(super) type Entries = IndexMap<Arc<str>, Arc<TopicEntry>>;

/// See the module.
#[derive(Default)]
pub(crate) struct Topics {
    known: Mutex<Known>,
    cached: ArcSwap<Entries>,
}

#[derive(Default)]
pub(super) struct Known {
    pub(super) entries: Entries,
    /// How often one was looked for that is not in the copy, since that was made.
    misses: usize,
    /// Sequences of forgotten topics ran under this identity.
    pub(super) spent: Option<ExhaustedEpoch>,
}

/// A topic that is produced to.
pub(crate) struct TopicEntry {
    pub(super) sticky: Arc<Sticky>,
    /// Changed under the lock of the topics.
    pub(super) state: ArcSwap<TopicState>,
    made: Instant,
    /// Shared with the handles of this topic, which keep it.
    handles: Arc<()>,
    _interest: Interest,
}

/// A topic's name, and the topic once it is known.
pub(crate) struct CachedTopic {
    pub(crate) name: Arc<str>,
    /// A topic stays where it is for as long as a handle of it lives, a deleted one too.
    pub(crate) held: OnceLock<Held>,
}

/// What a handle of a topic keeps.
pub(crate) struct Held {
    pub(super) entry: Arc<TopicEntry>,
    _handle: Arc<()>,
}

pub(crate) struct TopicState {
    pub(super) topic: Arc<Topic>,
    /// By partition number; may be longer than the topic's list if that shrank (the topic was made
    /// anew).
    pub(super) slots: Vec<Arc<Slot>>,
}

impl TopicState {
    #[inline]
    pub(super) fn slot(&self, partition: i32) -> Option<&Arc<Slot>> {
        let index = usize::try_from(partition).ok()?;
        let slot = self.slots.get(index)?;
        (index < self.topic.partitions.len()).then_some(slot)
    }
}

impl Topics {
    /// The topics that are found without a lock, which need not be all.
    #[inline]
    pub(super) fn cached(&self) -> Guard<Arc<Entries>> {
        self.cached.load()
    }

    /// A topic, if it is known.
    pub(super) fn get(&self, name: &str) -> Option<Arc<TopicEntry>> {
        let cached = self.cached.load().get(name).cloned();
        cached.or_else(|| self.find(name))
    }

    /// One that is not found without a lock.
    #[cold]
    pub(super) fn find(&self, name: &str) -> Option<Arc<TopicEntry>> {
        let mut known = self.lock();
        let entry = Arc::clone(known.entries.get(name)?);
        self.missed(&mut known);
        Some(entry)
    }

    /// Has a handle keep its topic, if that is known.
    #[cold]
    pub(super) fn hold<'a>(&self, place: &'a CachedTopic) -> Option<&'a Held> {
        // Under the lock: it is not being forgotten.
        let known = self.lock();
        let entry = known.entries.get(&place.name)?;
        Some(place.held.get_or_init(|| Held {
            entry: Arc::clone(entry),
            _handle: Arc::clone(&entry.handles),
        }))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().entries.len()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One was looked for that is not in the copy.
    pub(super) fn missed(&self, known: &mut Known) {
        known.misses += 1;
        if known.misses >= known.entries.len() {
            self.publish(known);
        }
    }

    /// Makes the copy anew.
    pub(super) fn publish(&self, known: &mut Known) {
        known.misses = 0;
        self.cached.store(Arc::new(known.entries.clone()));
    }
}

impl Known {
    pub(super) fn slots(&self) -> Vec<Arc<Slot>> {
        let states = self.entries.values().map(|entry| entry.state.load_full());
        states.flat_map(|state| state.slots.clone()).collect()
    }
}

impl TopicEntry {
    /// A topic as yet without partitions, made at this time.
    pub(super) fn new(
        topic: &Topic,
        batch_size: usize,
        made: Instant,
        interest: Interest,
    ) -> Arc<Self> {
        let empty = Topic {
            partitions: Vec::new(),
            ..Topic::clone(topic)
        };
        Arc::new(Self {
            sticky: Arc::new(Sticky::new(batch_size)),
            state: ArcSwap::from_pointee(TopicState {
                topic: Arc::new(empty),
                slots: Vec::new(),
            }),
            made,
            handles: Arc::default(),
            _interest: interest,
        })
    }

    /// Whether nothing was sent to it for so long, nothing is left of that, and no handle keeps it.
    /// Its slots take no more records then.
    pub(super) fn retires(&self, time: Instant, idle: Duration) -> bool {
        let state = self.state.load();
        let slots = &state.slots;
        if self.made + idle > time
            || Arc::strong_count(&self.handles) > 1
            || !slots.iter().all(|slot| slot.is_idle(time, idle))
        {
            return false;
        }
        let retired = slots.iter().take_while(|slot| slot.retire(time, idle));
        let retired = retired.count();
        if retired < slots.len() {
            // One is in use again.
            for slot in &slots[..retired] {
                slot.lock().retired = false;
            }
        }
        retired == slots.len()
    }
}
