//! The batches of one partition, from the first record to the last answer.
//!
//! A batch is *open* (records are added), *compressing* (taken out by whoever filled it; its place
//! is kept), *waiting* (sealed; new or to be sent again), *in flight* (a request carries it), and
//! done. All of them stand in one line in the order in which they were opened, so that a retry
//! needs no re-insertion: it just is first again.
//!
//! Here is the line itself: what stands in it, the open batch, the leader. `queue/sending.rs`
//! decides which batch goes when and under which sequence, `queue/ending.rs` takes answers and
//! decides how batches leave the line.
//!
//! This is a machine: no clock, no I/O, no locks, no randomness. `O` is what an open batch is made
//! of and `S` a sealed one, so that the sequence rules are tested against a model of a broker with
//! batches that are lists of numbers.
//!
//! Invariants, with idempotence:
//!
//! - Sequences are given when a batch is first sent, in the order of the line, and belong to one
//!   identity. A batch whose outcome under one identity is unknown is never sent under another:
//!   that could write it twice. It is either answered under its own identity or fails as
//!   [`Certainty::MaybeWritten`].
//! - A batch is sent again only when it is the oldest without an answer, and while a repeated batch
//!   is under way nothing else is sent: one in flight until resolved.
//! - At most five batches are without an answer, since a broker remembers five per producer to tell
//!   duplicates.
//! - Before an identity's first acknowledgement only one batch is in flight: a broker that does not
//!   know a producer takes *any* first sequence, so that the second batch could be accepted without
//!   the first. The same holds after a while of silence, for a broker forgets who has been silent
//!   for `producer.id.expiration.ms` (a day by default).
//! - A batch given up after its sequence was used leaves a *hole*. If it may have been written, the
//!   batches behind it settle under the old identity first (they succeed if it was); then a new
//!   identity is asked for and sequences start at 0 (KIP-360). So it is for one that was refused: a
//!   refusal may be a damaged acknowledgement. The sequence is used again only if it was the last
//!   one used and, in a transaction or after a time-out, the batch certainly was not written.
//! - Nothing goes to a new leader while something is in flight to the old one.
//!
//! Without idempotence a batch is sent again as soon as it is at the front, with later ones
//! possibly under way: order then holds only with one request in flight, as with other Kafka
//! clients.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Instant;
use crate::producer::identity::{ExhaustedEpoch, Identity};
use crate::types::BrokerId;

mod ending;
#[cfg(test)]
mod model;
mod sending;
#[cfg(test)]
mod tests;

pub(crate) use self::ending::{Answer, BatchOutcome, Finished, Settled, Why};
pub(crate) use self::sending::Next;

/// What every partition of a producer has in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) idempotent: bool,
    /// What is refused for its sequence or epoch ends, and with it the transaction: it must not go
    /// again under another identity.
    pub(crate) transactional: bool,
    /// Batches of one partition in flight at once.
    pub(crate) max_in_flight: usize,
    pub(crate) linger: Duration,
    pub(crate) delivery_timeout: Duration,
    /// How often a batch may be sent again.
    pub(crate) retries: u32,
}

/// A sealed batch, as far as its place in line needs it.
pub(crate) trait Payload {
    /// The number of records.
    fn records(&self) -> u32;
    /// The size in a request.
    fn bytes(&self) -> usize;
}

/// The name of a batch within its partition. Grows in the order of the line, but for the pieces of
/// a split batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BatchId(u64);

/// An identity and the sequence number of a batch's first record under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) identity: Identity,
    pub(crate) sequence: i32,
}

/// The line of batches of one partition.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct PartitionQueue<O, S> {
    /// First, for it is what is touched by each record.
    open: Option<Open<O>>,
    leader: Option<BrokerId>,
    entries: VecDeque<Entry<S>>,
    next_id: u64,
    in_flight: usize,
    /// Whose sequences run in this partition.
    identity: Option<Identity>,
    next_sequence: i32,
    /// Whether the broker acknowledged anything under `identity`.
    confirmed: bool,
    /// When a batch was last sent.
    last_sent: Option<Instant>,
    hole: Option<SequenceGap>,
    /// An identity that left a hole here and must not be used again, and whether its producer id is
    /// of no use either.
    spent: Option<ExhaustedEpoch>,
    closed: bool,
}

#[derive(Debug)]
#[repr(C)]
struct Open<O> {
    batch: O,
    created: Instant,
    /// Somebody waits for one of its records.
    awaited: bool,
}

#[derive(Debug)]
struct Entry<S> {
    id: BatchId,
    created: Instant,
    /// How many requests have carried it.
    attempts: u32,
    stamp: Option<Stamp>,
    /// Whether some attempt ended without an answer that says it was not written. Never becomes
    /// false again while the stamp lasts.
    maybe_written: bool,
    /// In flight to a log that is not the partition's any more.
    old_log: bool,
    state: State,
    /// `None` while it is compressed, and once it was given up while still in flight.
    payload: Option<S>,
    records: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Compressing,
    Waiting { not_before: Option<Instant> },
    InFlight { broker: BrokerId },
}

/// Sequence numbers that were used and given up.
#[derive(Clone, Copy, Debug)]
struct SequenceGap {
    /// The last batch given up.
    last: BatchId,
    /// Certainly not in the log: everything behind it will be refused.
    certain: bool,
    /// The broker does not take this producer id at its epoch any more.
    fenced: bool,
}

impl<O, S: Payload> PartitionQueue<O, S> {
    pub(crate) fn new() -> Self {
        Self {
            open: None,
            leader: None,
            entries: VecDeque::new(),
            next_id: 0,
            in_flight: 0,
            identity: None,
            next_sequence: 0,
            confirmed: false,
            last_sent: None,
            hole: None,
            spent: None,
            closed: false,
        }
    }

    /// A queue that does not go on under an identity used before.
    pub(crate) fn after(spent: Option<ExhaustedEpoch>) -> Self {
        Self {
            spent,
            ..Self::new()
        }
    }

    // What is there.

    pub(crate) fn leader(&self) -> Option<BrokerId> {
        self.leader
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.open.is_none()
    }

    /// Whether nothing is in line, and nothing was sent for so long.
    pub(crate) fn is_idle(&self, now: Instant, idle: Duration) -> bool {
        self.is_empty() && self.last_sent.is_none_or(|at| at + idle <= now)
    }

    /// The identity under which a queue that comes after this one must not go on.
    pub(crate) fn spent(&self) -> Option<ExhaustedEpoch> {
        let own = self.identity.map(|identity| ExhaustedEpoch {
            identity,
            fenced: false,
        });
        own.or(self.spent)
    }

    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Batches in line, the open one included.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() + usize::from(self.open.is_some())
    }

    /// How many requests have carried a batch.
    pub(crate) fn attempts(&self, id: BatchId) -> u32 {
        self.position(id)
            .map_or(0, |index| self.entries[index].attempts)
    }

    // The open batch.

    pub(crate) fn open_mut(&mut self) -> Option<&mut O> {
        self.open.as_mut().map(|open| &mut open.batch)
    }

    /// Opens a batch; there must be none.
    pub(crate) fn set_open(&mut self, now: Instant, batch: O) {
        debug_assert!(self.open.is_none() && !self.closed);
        self.open = Some(Open {
            created: now,
            batch,
            awaited: false,
        });
    }

    /// Somebody waits for the open batch: it is due as soon as nothing is before it in line.
    /// Returns whether it is now.
    pub(crate) fn await_open(&mut self) -> bool {
        if let Some(open) = &mut self.open {
            open.awaited = true;
        }
        self.open.is_some() && self.entries.is_empty()
    }

    /// When the open batch is due, as things are: at the end of its linger; if somebody waits for
    /// it and nothing is before it in line, at once. What comes meanwhile gathers behind a batch
    /// that is under way.
    fn open_due_at(&self, rules: &Rules) -> Option<Instant> {
        let open = self.open.as_ref()?;
        Some(match open.awaited && self.entries.is_empty() {
            true => open.created,
            false => open.created + rules.linger,
        })
    }

    /// Takes the open batch out to be sealed and keeps its place in line.
    pub(crate) fn take_open(&mut self) -> Option<(BatchId, O)> {
        let open = self.open.take()?;
        let id = self.fresh_id();
        self.entries.push_back(Entry {
            id,
            created: open.created,
            attempts: 0,
            stamp: None,
            maybe_written: false,
            old_log: false,
            state: State::Compressing,
            payload: None,
            records: 0,
        });
        Some((id, open.batch))
    }

    /// Seals the open batch in its place in line.
    pub(crate) fn seal_open(&mut self, seal: impl FnOnce(O) -> S) {
        if let Some((id, open)) = self.take_open() {
            let gone = self.seal(id, seal(open)).is_err();
            debug_assert!(!gone, "its place was made just now");
        }
    }

    /// Puts a sealed batch into the place kept for it; gives it back if the place is gone (the
    /// queue was closed or purged).
    pub(crate) fn seal(&mut self, id: BatchId, batch: S) -> Result<(), S> {
        match self.position(id) {
            Some(index) => {
                let entry = &mut self.entries[index];
                entry.records = batch.records();
                entry.payload = Some(batch);
                entry.state = State::Waiting { not_before: None };
                Ok(())
            }
            None => Err(batch),
        }
    }

    /// Gives up the place of a batch that could not be sealed.
    pub(crate) fn abandon(&mut self, id: BatchId) {
        if let Some(index) = self.position(id) {
            self.entries.remove(index);
        }
    }

    // The leader.

    /// Changes the leader; says whether it is another one.
    pub(crate) fn set_leader(&mut self, leader: Option<BrokerId>) -> bool {
        let changed = self.leader != leader;
        self.leader = leader;
        changed
    }

    /// The partition's log is another one (its topic was made anew, KIP-516): the broker knows no
    /// producer there, and takes any sequence as the first.
    pub(crate) fn new_log(&mut self) {
        self.confirmed = false;
        for entry in &mut self.entries {
            // An acknowledgement by the old log says nothing of the new one.
            entry.old_log = matches!(entry.state, State::InFlight { .. });
        }
    }

    /// Forgets back-offs, since the cluster changed in a way that may have cured what they wait
    /// for.
    pub(crate) fn retry_now(&mut self) {
        for entry in &mut self.entries {
            if let State::Waiting { not_before } = &mut entry.state {
                *not_before = None;
            }
        }
    }

    // Below: places in line.

    fn fresh_id(&mut self) -> BatchId {
        self.next_id += 1;
        BatchId(self.next_id)
    }

    fn position(&self, id: BatchId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.id == id)
    }
}
