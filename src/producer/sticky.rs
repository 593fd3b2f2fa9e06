//! Which partition takes the records that have no key.

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

/// The partition that records without a key go to at present (KIP-480, KIP-794).
#[derive(Debug)]
pub(crate) struct Sticky {
    /// -1: choose another.
    partition: AtomicI32,
    /// What went to it so far, counted per batch.
    bytes: AtomicUsize,
    limit: usize,
}

impl Sticky {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            partition: AtomicI32::new(-1),
            bytes: AtomicUsize::new(0),
            limit: limit.max(1),
        }
    }

    pub(crate) fn current(&self) -> Option<i32> {
        let partition = self.partition.load(Ordering::Relaxed);
        (partition >= 0).then_some(partition)
    }

    /// Settles on a partition unless somebody did meanwhile; returns the one that holds.
    pub(crate) fn choose(&self, partition: i32) -> i32 {
        let order = Ordering::Relaxed;
        match self.partition.compare_exchange(-1, partition, order, order) {
            Ok(_) => {
                self.bytes.store(0, order);
                partition
            }
            Err(other) => other,
        }
    }

    /// Stays no longer with this partition.
    pub(crate) fn leave(&self, partition: i32) {
        let order = Ordering::Relaxed;
        let _ = self.partition.compare_exchange(partition, -1, order, order);
    }

    pub(crate) fn filled(&self, partition: i32, bytes: usize) {
        if self.current() == Some(partition)
            && self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= self.limit
        {
            self.leave(partition);
        }
    }
}
