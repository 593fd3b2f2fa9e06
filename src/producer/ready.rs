//! The slots (`S`) that have something for a sender to do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::clock::Instant;
use crate::types::BrokerId;

/// A message to a sender about a slot.
#[derive(Debug)]
pub(crate) enum Notice<S> {
    /// The sender has to look at the slot: there may be something to do.
    Look {
        slot: Arc<S>,
        /// No timer ends its batches yet.
        endless: bool,
    },
    /// The slot has nothing to send before this linger is over.
    Linger(Instant, Arc<S>),
}

/// The slots that have work for one broker, or for none (they only expire).
#[derive(Debug)]
pub(crate) struct ReadyList<S> {
    pub(crate) broker: Option<BrokerId>,
    notices: Mutex<Vec<Notice<S>>>,
    pub(crate) notify: Notify,
    /// Since when the broker has been handed nothing although something waits for it or for its
    /// answer. Kept only with `partitioner.availability.timeout.ms`.
    blocked_since: Mutex<Option<Instant>>,
    /// The broker is not of the cluster any more: its sender ends when no slot is here.
    left: AtomicBool,
}

impl<S> ReadyList<S> {
    pub(crate) fn new(broker: Option<BrokerId>) -> Arc<Self> {
        Arc::new(Self {
            broker,
            notices: Mutex::default(),
            notify: Notify::new(),
            blocked_since: Mutex::default(),
            left: AtomicBool::new(false),
        })
    }

    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        *self.blocked()
    }

    pub(crate) fn set_blocked_since(&self, since: Option<Instant>) {
        *self.blocked() = since;
    }

    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    pub(crate) fn set_left(&self, left: bool) {
        self.left.store(left, Ordering::Release);
        if left {
            self.notify.notify_one();
        }
    }

    fn blocked(&self) -> MutexGuard<'_, Option<Instant>> {
        let blocked = self.blocked_since.lock();
        blocked.unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, notice: Notice<S>) {
        let mut notices = self.notices();
        let first = notices.is_empty();
        notices.push(notice);
        drop(notices);
        // The wake-up for the first notice has the sender take all of them.
        if first {
            self.notify.notify_one();
        }
    }

    /// Takes everything, in exchange for an empty list.
    pub(crate) fn swap(&self, empty: &mut Vec<Notice<S>>) {
        debug_assert!(empty.is_empty());
        std::mem::swap(&mut *self.notices(), empty);
    }

    fn notices(&self) -> MutexGuard<'_, Vec<Notice<S>>> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
