//! Which records of a chunk belong to transactions that were aborted.

use std::collections::{BTreeSet, VecDeque};

/// The aborted transactions within a chunk, as Java's `CompletedFetch` follows them.
#[derive(Clone, Debug, Default)]
pub(super) struct Aborted {
    /// (first offset, producer id), by offset.
    coming: VecDeque<(i64, i64)>,
    /// Producers whose open transaction is void.
    open: BTreeSet<i64>,
}

impl Aborted {
    pub(super) fn new(mut aborted: Vec<(i64, i64)>) -> Self {
        aborted.sort_unstable();
        Self {
            coming: aborted.into(),
            open: BTreeSet::new(),
        }
    }

    /// Whether what the producer writes here is void.
    pub(super) fn is_open(&self, producer: i64) -> bool {
        self.open.contains(&producer)
    }

    /// The marker of a producer's transaction was reached.
    pub(super) fn end(&mut self, producer: i64) {
        self.open.remove(&producer);
    }

    /// Transactions that begin up to this offset are open from here on, until their marker.
    pub(super) fn reach(&mut self, last_offset: i64) {
        while let Some(&(first, producer)) = self.coming.front() {
            if first > last_offset {
                return;
            }
            self.coming.pop_front();
            self.open.insert(producer);
        }
    }
}
