//! What was fetched: how its bytes are judged, where they wait, and how records are taken out of
//! them.
//!
//! `survey.rs` looks at what an answer had for a partition, `chunk.rs` is that data and what a poll
//! takes of it (`aborted.rs`: without aborted records), `buffer.rs` where it waits, `batch.rs` what
//! is handed out.

mod aborted;
pub(crate) mod batch;
pub(crate) mod buffer;
pub(crate) mod chunk;
pub(crate) mod survey;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use crate::record::CodecPool;
use crate::types::{OffsetAndMetadata, TopicPartition};

/// A place in a log: the next offset, and the leader epoch of the record before it (-1 if unknown).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
}

impl Position {
    pub(crate) fn new(offset: i64) -> Self {
        Self {
            offset,
            leader_epoch: -1,
        }
    }

    /// What to commit for this position.
    pub(crate) fn to_commit(self) -> OffsetAndMetadata {
        let epoch = (self.leader_epoch >= 0).then_some(self.leader_epoch);
        OffsetAndMetadata::new(self.offset).with_leader_epoch(epoch)
    }
}

/// Which life of a partition's position an answer belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartEpoch(pub(crate) u64);

/// One partition of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionFetch {
    pub(crate) tp: TopicPartition,
    pub(crate) topic_id: Uuid,
    pub(crate) epoch: PartEpoch,
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) last_fetched_epoch: i32,
    pub(crate) log_start: i64,
}

/// How batches are read.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) check_crcs: bool,
    pub(crate) read_committed: bool,
    pub(crate) pool: CodecPool,
    /// Of the batches that are handed out.
    pub(crate) damage: Arc<Damage>,
}

/// Where the application found records that cannot be read: nothing from there on counts as handed
/// out. The iterator that meets one notes it; whoever takes the consumer's lock next has the
/// partition go back there.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    any: AtomicBool,
    found: Mutex<Vec<(TopicPartition, PartEpoch, i64)>>,
}

impl Damage {
    #[cold]
    pub(crate) fn note(&self, tp: &TopicPartition, epoch: PartEpoch, offset: i64) {
        let found = (tp.clone(), epoch, offset);
        let mut noted = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if !noted.contains(&found) {
            noted.push(found);
        }
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn is_noted(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    pub(crate) fn take(&self) -> Vec<(TopicPartition, PartEpoch, i64)> {
        let mut noted = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        self.any.store(false, Ordering::Release);
        std::mem::take(&mut noted)
    }
}
