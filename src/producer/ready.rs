//! The slots that have something for a sender to do.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::clock::Instant;
use crate::producer::slot::Slot;
use crate::types::BrokerId;

/// The slots that have work for one broker, or for none (they only expire).
#[derive(Debug)]
pub(crate) struct ReadyList {
    pub(crate) broker: Option<BrokerId>,
    slots: Mutex<VecDeque<Arc<Slot>>>,
    pub(crate) notify: Notify,
    /// Since when the broker has been handed nothing although something waits for it or for its answer. Kept only with
    /// `partitioner.availability.timeout.ms`.
    blocked_since: Mutex<Option<Instant>>,
}

impl ReadyList {
    pub(crate) fn new(broker: Option<BrokerId>) -> Arc<Self> {
        Arc::new(Self {
            broker,
            slots: Mutex::default(),
            notify: Notify::new(),
            blocked_since: Mutex::default(),
        })
    }

    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        *self.blocked()
    }

    pub(crate) fn set_blocked_since(&self, since: Option<Instant>) {
        *self.blocked() = since;
    }

    fn blocked(&self) -> MutexGuard<'_, Option<Instant>> {
        let blocked = self.blocked_since.lock();
        blocked.unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, slot: Arc<Slot>) {
        self.slots().push_back(slot);
        self.notify.notify_one();
    }

    /// Moves everything out.
    pub(crate) fn drain_into(&self, work: &mut VecDeque<Arc<Slot>>) {
        work.append(&mut self.slots());
    }

    fn slots(&self) -> MutexGuard<'_, VecDeque<Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
