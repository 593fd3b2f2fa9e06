//! The batches of one partition, from the first record to the last answer.
//!
//! A batch is *open* (records are added), *compressing* (taken out by whoever filled it; its place is kept), *waiting*
//! (sealed; new or to be sent again), *in flight* (a request carries it), and done. All of them stand in one line in the
//! order in which they were opened, so that a retry needs no re-insertion: it just is first again.
//!
//! This is a machine: no clock, no I/O, no locks, no randomness. `O` is what an open batch is made of and `S` a sealed
//! one, so that the sequence rules are tested against a model of a broker with batches that are lists of numbers.
//!
//! Invariants, with idempotence:
//!
//! - Sequences are given when a batch is first sent, in the order of the line, and belong to one identity. A batch whose
//!   outcome under one identity is unknown is never sent under another: that could write it twice. It is either answered
//!   under its own identity or fails as [`Certainty::MaybeWritten`].
//! - A batch is sent again only when it is the oldest without an answer, and while a repeated batch is under way nothing
//!   else is sent: one in flight until resolved.
//! - At most five batches are without an answer, since a broker remembers five per producer to tell duplicates.
//! - Before an identity's first acknowledgement only one batch is in flight: a broker that does not know a producer
//!   takes *any* first sequence, so that the second batch could be accepted without the first. The same holds after a
//!   while of silence, for a broker forgets who has been silent for `producer.id.expiration.ms` (a day by default).
//! - A batch given up after its sequence was used leaves a *hole*. If it may have been written, the batches behind it
//!   settle under the old identity first (they succeed if it was); then a new identity is asked for and sequences start
//!   at 0 (KIP-360). If it certainly was not and it was the last one used, the sequence is simply used again.
//! - Nothing goes to a new leader while something is in flight to the old one.
//!
//! Without idempotence a batch is sent again as soon as it is at the front, with later ones possibly under way: order then
//! holds only with one request in flight, as with other Kafka clients.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Instant;
use crate::error::Certainty;
use crate::producer::identity::Identity;
use crate::types::BrokerId;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

/// What every partition of a producer has in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) idempotent: bool,
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

/// The name of a batch within its partition. Grows in the order of the line, but for the pieces of a split batch.
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
    hole: Option<Hole>,
    /// An identity that left a hole here and must not be used again, and whether its producer id is of no use either.
    spent: Option<Spent>,
    closed: bool,
}

#[derive(Debug)]
#[repr(C)]
struct Open<O> {
    batch: O,
    created: Instant,
}

#[derive(Debug)]
struct Entry<S> {
    id: BatchId,
    created: Instant,
    /// How many requests have carried it.
    attempts: u32,
    stamp: Option<Stamp>,
    /// Whether some attempt ended without an answer that says it was not written. Never becomes false again while
    /// the stamp lasts.
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
struct Hole {
    /// The last batch given up.
    last: BatchId,
    /// Certainly not in the log: everything behind it will be refused.
    certain: bool,
    /// The broker does not take this producer id at its epoch any more.
    fenced: bool,
}

/// An identity not to be used again in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spent {
    pub(crate) identity: Identity,
    /// Ask for another producer id instead of the next epoch.
    pub(crate) fenced: bool,
}

/// What a partition has to send.
#[derive(Debug)]
pub(crate) enum Next<'a, S> {
    /// Send this one now; it counts as in flight from here on.
    Send {
        id: BatchId,
        batch: &'a mut S,
        stamp: Option<Stamp>,
    },
    /// The open batch is due and may go at once: take it, seal it, ask again.
    SealOpen,
    /// A batch is ready but does not fit into what is left of the request.
    NoRoom,
    /// A batch is ready but needs an identity other than this.
    NeedsIdentity(Option<Spent>),
    /// Nothing now; see [`PartitionQueue::wake_at`].
    Nothing,
}

/// How a request ended for one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// In the log, now or by an earlier attempt.
    Written,
    /// May be sent again: no answer, or a refusal that passes. Says what this attempt did.
    Again(Certainty),
    /// The sequence does not follow the log's last one, or the broker forgot the producer.
    OutOfSequence,
    /// The epoch is too old.
    StaleEpoch,
    /// The batch is too large and was not written.
    TooLarge,
    /// No further attempt would help.
    Refused(Certainty),
}

/// A batch that left the line.
#[derive(Debug)]
pub(crate) struct Finished<S> {
    pub(crate) batch: S,
    pub(crate) end: End,
}

/// How a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Written,
    Failed(Certainty, Why),
}

/// What made a batch fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The answer at hand.
    Answer,
    /// `delivery.timeout.ms` passed.
    Expired,
    /// A batch before it was lost, and whether it was itself written cannot be found out.
    Gap,
    /// The producer was closed or failed.
    Closed,
    /// The application dropped it.
    Purged,
}

/// What became of one answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// The batch left the line (see the list of finished ones).
    Done,
    /// The batch will be sent again.
    Again,
    /// The batch is too large and has several records: [`PartitionQueue::take_oversized`] may split it.
    Oversized,
    /// It had been given up before.
    Late,
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

    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Batches in line, the open one included.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() + usize::from(self.open.is_some())
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
        });
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

    /// Puts a sealed batch into the place kept for it; gives it back if the place is gone (the queue was closed or purged).
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

    /// The partition's log is another one (its topic was made anew, KIP-516): the broker knows no producer there, and takes
    /// any sequence as the first.
    pub(crate) fn new_log(&mut self) {
        self.confirmed = false;
        for entry in &mut self.entries {
            // An acknowledgement by the old log says nothing of the new one.
            entry.old_log = matches!(entry.state, State::InFlight { .. });
        }
    }

    /// Forgets back-offs, since the cluster changed in a way that may have cured what they wait for.
    pub(crate) fn retry_now(&mut self) {
        for entry in &mut self.entries {
            if let State::Waiting { not_before } = &mut entry.state {
                *not_before = None;
            }
        }
    }

    // Sending.

    /// The next batch for `broker`, if the rules let one go now.
    ///
    /// `due` makes the open batch ready before its linger is over (flush, close, memory needed).
    pub(crate) fn next(
        &mut self,
        rules: &Rules,
        now: Instant,
        broker: BrokerId,
        identity: Option<Identity>,
        room: usize,
        due: bool,
    ) -> Next<'_, S> {
        let Some(index) = self.candidate(rules, now, broker) else {
            return Next::Nothing;
        };
        let Some(entry) = self.entries.get(index) else {
            // Everything in line is under way; the open batch comes next.
            return match &self.open {
                Some(open) if due || open.created + rules.linger <= now => {
                    match self.adoptable(rules, identity) {
                        Adopt::Wait => Next::Nothing,
                        Adopt::Needed(spent) => Next::NeedsIdentity(spent),
                        Adopt::Keep | Adopt::New(_) => Next::SealOpen,
                    }
                }
                _ => Next::Nothing,
            };
        };
        if entry.stamp.is_none() {
            match self.adoptable(rules, identity) {
                Adopt::Keep => {}
                Adopt::Wait => return Next::Nothing,
                Adopt::Needed(spent) => return Next::NeedsIdentity(spent),
                Adopt::New(identity) => {
                    self.identity = Some(identity);
                    self.next_sequence = 0;
                    self.confirmed = false;
                    self.spent = None;
                }
            }
        }
        if entry_bytes(&self.entries[index]) > room {
            return Next::NoRoom;
        }
        if rules.idempotent
            && self.entries[index].stamp.is_none()
            && let Some(identity) = self.identity
        {
            let sequence = self.next_sequence;
            self.next_sequence = advance(sequence, self.entries[index].records);
            self.entries[index].stamp = Some(Stamp { identity, sequence });
        }
        let silent = self.last_sent.is_some_and(|at| at + SILENCE <= now);
        self.confirmed &= !(silent && self.in_flight == 0);
        self.last_sent = Some(now);
        self.in_flight += 1;
        let entry = &mut self.entries[index];
        entry.attempts += 1;
        entry.old_log = false;
        entry.state = State::InFlight { broker };
        match &mut entry.payload {
            Some(batch) => Next::Send {
                id: entry.id,
                batch,
                stamp: entry.stamp,
            },
            // `candidate` never names a batch without a payload.
            None => Next::Nothing,
        }
    }

    /// Whether a batch in line is in no request; the open one does not count.
    pub(crate) fn has_unsent(&self) -> bool {
        let unsent = |entry: &Entry<S>| !matches!(entry.state, State::InFlight { .. });
        self.entries.iter().any(unsent)
    }

    /// When [`next`](Self::next) may have something although nothing happened until then: the end of a back-off or linger.
    /// `None` if only an event can bring something.
    pub(crate) fn wake_at(&self, rules: &Rules) -> Option<Instant> {
        let first = self
            .entries
            .iter()
            .find(|entry| !matches!(entry.state, State::InFlight { .. }));
        match first.map(|entry| entry.state) {
            Some(State::Waiting { not_before }) => not_before,
            Some(_) => None,
            None => self.open.as_ref().map(|open| open.created + rules.linger),
        }
    }

    /// When the oldest batch must have ended.
    pub(crate) fn expires_at(&self, rules: &Rules) -> Option<Instant> {
        let oldest = self.entries.iter().find(|entry| entry.payload.is_some());
        oldest
            .map(|entry| entry.created)
            .or_else(|| self.open.as_ref().map(|open| open.created))
            .map(|created| created + rules.delivery_timeout)
    }

    // Answers.

    /// Takes the answer for a batch in flight. `retry_at` is when it may be sent again, if it is to be.
    ///
    /// Batches that end because of it are added to `out`; there may be others than the one answered.
    pub(crate) fn settle(
        &mut self,
        rules: &Rules,
        id: BatchId,
        answer: Answer,
        retry_at: Instant,
        out: &mut Vec<Finished<S>>,
    ) -> Settled {
        let Some(index) = self.position(id) else {
            return Settled::Late;
        };
        if !matches!(self.entries[index].state, State::InFlight { .. }) {
            debug_assert!(false, "an answer for a batch that is not in flight");
            return Settled::Late;
        }
        self.in_flight -= 1;
        let entry = &mut self.entries[index];
        entry.state = State::Waiting { not_before: None };
        if let Answer::Again(Certainty::MaybeWritten) | Answer::Refused(Certainty::MaybeWritten) =
            answer
        {
            entry.maybe_written = true;
        }
        let gone = entry.payload.is_none();
        let exhausted = entry.attempts > rules.retries;
        let several = entry.records > 1;
        let sure = !entry.maybe_written;
        let settled = match answer {
            Answer::Written => {
                self.acknowledged(index, out);
                Settled::Done
            }
            Answer::TooLarge if several && sure && !gone => {
                // Not before it was taken out and split: `retry_at` only guards against a shell that does not.
                self.entries[index].state = State::Waiting {
                    not_before: Some(retry_at),
                };
                return Settled::Oversized;
            }
            Answer::TooLarge | Answer::Refused(_) => {
                self.give_up(index, Why::Answer, out);
                Settled::Done
            }
            Answer::OutOfSequence | Answer::StaleEpoch => {
                let stale = answer == Answer::StaleEpoch;
                if rules.idempotent && (index == 0 || stale) {
                    self.dig(id, true, stale);
                }
                if gone || exhausted || !rules.idempotent {
                    self.give_up(index, Why::Answer, out);
                    Settled::Done
                } else {
                    self.entries[index].state = State::Waiting {
                        not_before: Some(retry_at),
                    };
                    Settled::Again
                }
            }
            Answer::Again(_) if gone || exhausted => {
                self.give_up(index, Why::Answer, out);
                Settled::Done
            }
            Answer::Again(_) => {
                self.entries[index].state = State::Waiting {
                    not_before: Some(retry_at),
                };
                Settled::Again
            }
        };
        self.fill_hole(out);
        if gone { Settled::Late } else { settled }
    }

    /// How many requests have carried a batch.
    pub(crate) fn attempts(&self, id: BatchId) -> u32 {
        self.position(id)
            .map_or(0, |index| self.entries[index].attempts)
    }

    /// Takes out a batch that the broker called too large; its place is kept until [`put_pieces`](Self::put_pieces).
    pub(crate) fn take_oversized(&mut self, id: BatchId) -> Option<S> {
        let index = self.position(id)?;
        let entry = &mut self.entries[index];
        entry.state = State::Compressing;
        entry.payload.take()
    }

    /// Puts the pieces of a split batch where it was. They are new batches: sequences are given when they are sent.
    /// Gives the pieces back if the place is gone.
    pub(crate) fn put_pieces(
        &mut self,
        id: BatchId,
        pieces: Vec<S>,
        out: &mut Vec<Finished<S>>,
    ) -> Result<(), Vec<S>> {
        let Some(index) = self.position(id) else {
            return Err(pieces);
        };
        let created = self.entries[index].created;
        self.remove_unwritten(index);
        for (offset, piece) in pieces.into_iter().enumerate() {
            let id = self.fresh_id();
            self.entries.insert(
                index + offset,
                Entry {
                    id,
                    created,
                    attempts: 0,
                    stamp: None,
                    maybe_written: false,
                    old_log: false,
                    state: State::Waiting { not_before: None },
                    records: piece.records(),
                    payload: Some(piece),
                },
            );
        }
        self.fill_hole(out);
        Ok(())
    }

    // The end.

    /// Ends every batch whose delivery time is over. The open batch is returned: it has no payload to finish.
    pub(crate) fn expire(
        &mut self,
        rules: &Rules,
        now: Instant,
        out: &mut Vec<Finished<S>>,
    ) -> Option<O> {
        let over = |created: Instant| created + rules.delivery_timeout <= now;
        let mut index = 0;
        while let Some(entry) = self.entries.get(index) {
            if !over(entry.created) {
                break;
            }
            // Compressing ones come back at once and expire then.
            if entry.payload.is_none() || !self.give_up(index, Why::Expired, out) {
                index += 1;
            }
        }
        self.fill_hole(out);
        match &self.open {
            Some(open) if over(open.created) => self.open.take().map(|open| open.batch),
            _ => None,
        }
    }

    /// Ends what no request has carried yet and, if `sent`, everything else too; goes on with what comes. The open batch
    /// is returned: it has no payload to finish.
    ///
    /// What was never sent has no sequence, and leaves no trace. For what was, the rules for batches given up hold.
    pub(crate) fn purge(&mut self, sent: bool, out: &mut Vec<Finished<S>>) -> Option<O> {
        let before = out.len();
        // From the back, so that sequences certainly not written are used again one after the other.
        for index in (0..self.entries.len()).rev() {
            if sent || self.entries[index].attempts == 0 {
                self.give_up(index, Why::Purged, out);
            }
        }
        out[before..].reverse();
        self.fill_hole(out);
        self.open.take().map(|open| open.batch)
    }

    /// Ends everything and takes nothing more.
    pub(crate) fn close(&mut self, out: &mut Vec<Finished<S>>) -> Option<O> {
        self.closed = true;
        for mut entry in self.entries.drain(..) {
            let in_flight = matches!(entry.state, State::InFlight { .. });
            let certainty = certainty(entry.maybe_written || in_flight);
            if let Some(batch) = entry.payload.take() {
                out.push(Finished {
                    batch,
                    end: End::Failed(certainty, Why::Closed),
                });
            }
        }
        self.in_flight = 0;
        self.hole = None;
        self.open.take().map(|open| open.batch)
    }

    // Below: how the rules are kept.

    fn fresh_id(&mut self) -> BatchId {
        self.next_id += 1;
        BatchId(self.next_id)
    }

    fn position(&self, id: BatchId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.id == id)
    }

    /// The place of the first batch not in flight if it may go to `broker` now; the line's length if all are in flight
    /// and another may join them.
    fn candidate(&self, rules: &Rules, now: Instant, broker: BrokerId) -> Option<usize> {
        if self.leader != Some(broker) || self.in_flight >= rules.max_in_flight {
            return None;
        }
        let mut repeated = false;
        let mut index = 0;
        while let Some(entry) = self.entries.get(index) {
            match entry.state {
                State::InFlight { broker: at } if at != broker => return None,
                State::InFlight { .. } => repeated |= entry.attempts > 1,
                State::Compressing => return None,
                State::Waiting { not_before } => {
                    if not_before.is_some_and(|at| at > now) {
                        return None;
                    }
                    break;
                }
            }
            index += 1;
        }
        // Those behind the candidate can be in flight only if it is to be sent again.
        let moved = |entry: &Entry<S>| matches!(entry.state, State::InFlight { broker: at } if at != broker);
        if self.entries.iter().skip(index).any(moved) {
            return None;
        }
        if !rules.idempotent {
            return Some(index);
        }
        let again = self
            .entries
            .get(index)
            .is_some_and(|entry| entry.stamp.is_some());
        let allowed = match &self.hole {
            Some(hole) if hole.certain => false,
            _ if again => index == 0,
            Some(_) => false,
            None => !repeated && (self.confirmed || self.in_flight == 0),
        };
        allowed.then_some(index)
    }

    /// Whether a new batch can be stamped with what is offered.
    fn adoptable(&self, rules: &Rules, offered: Option<Identity>) -> Adopt {
        if !rules.idempotent {
            return Adopt::Keep;
        }
        let Some(offered) = offered else {
            return Adopt::Needed(self.spent);
        };
        if self.identity == Some(offered) {
            return Adopt::Keep;
        }
        let older = |than: Identity| than.id == offered.id && offered.epoch < than.epoch;
        if self.identity.is_some_and(older)
            || self.entries.iter().any(|entry| entry.stamp.is_some())
        {
            return Adopt::Wait;
        }
        match self.spent {
            // An older epoch would be refused: the newer one has been used here.
            Some(spent) if spent.identity == offered || older(spent.identity) => {
                Adopt::Needed(Some(spent))
            }
            _ => Adopt::New(offered),
        }
    }

    fn acknowledged(&mut self, index: usize, out: &mut Vec<Finished<S>>) {
        let Some(entry) = self.entries.remove(index) else {
            return;
        };
        self.confirmed |= !entry.old_log;
        if let Some(hole) = &self.hole
            && !hole.certain
            && entry.id > hole.last
        {
            // A broker takes no batch before those with lower sequences: what was given up had been written.
            self.hole = None;
        }
        if let Some(batch) = entry.payload {
            out.push(Finished {
                batch,
                end: End::Written,
            });
        }
    }

    /// Ends a batch without success. Returns whether it left the line; one in flight keeps its place for the answer.
    fn give_up(&mut self, index: usize, why: Why, out: &mut Vec<Finished<S>>) -> bool {
        let entry = &mut self.entries[index];
        let in_flight = matches!(entry.state, State::InFlight { .. });
        if let Some(batch) = entry.payload.take() {
            let end = End::Failed(certainty(entry.maybe_written || in_flight), why);
            out.push(Finished { batch, end });
        }
        if in_flight {
            return false;
        }
        if entry.maybe_written {
            if entry.stamp.is_some() {
                let id = entry.id;
                self.dig(id, false, false);
            }
            self.entries.remove(index);
        } else {
            self.remove_unwritten(index);
        }
        true
    }

    /// Removes a batch that is certainly not in the log. Its sequence is used again if nothing was stamped after it.
    fn remove_unwritten(&mut self, index: usize) {
        let Some(entry) = self.entries.remove(index) else {
            return;
        };
        let Some(stamp) = entry.stamp else { return };
        let last = !self
            .entries
            .iter()
            .skip(index)
            .any(|entry| entry.stamp.is_some());
        if last && self.hole.is_none() {
            self.next_sequence = stamp.sequence;
        } else {
            self.dig(entry.id, true, false);
        }
    }

    fn dig(&mut self, id: BatchId, certain: bool, fenced: bool) {
        let hole = self.hole.get_or_insert(Hole {
            last: id,
            certain,
            fenced,
        });
        hole.last = hole.last.max(id);
        hole.certain |= certain;
        hole.fenced |= fenced;
    }

    /// Leaves an identity behind once everything sent under it is answered or cannot be.
    fn fill_hole(&mut self, out: &mut Vec<Finished<S>>) {
        let Some(hole) = self.hole else { return };
        let stamped = self.entries.iter().any(|entry| entry.stamp.is_some());
        if self.in_flight > 0 || (stamped && !hole.certain) {
            return;
        }
        self.hole = None;
        self.spent = self.identity.map(|identity| Spent {
            identity,
            fenced: hole.fenced,
        });
        // Those certainly not written go again under the next identity; for the others that could be a second time.
        let mut index = 0;
        while let Some(entry) = self.entries.get_mut(index) {
            if entry.maybe_written {
                if let Some(batch) = entry.payload.take() {
                    let end = End::Failed(Certainty::MaybeWritten, Why::Gap);
                    out.push(Finished { batch, end });
                }
                self.entries.remove(index);
            } else {
                entry.stamp = None;
                index += 1;
            }
        }
        self.identity = None;
    }
}

/// After so long a silence a producer makes sure that the broker still knows it: one round trip, and far less than the time
/// after which a broker may forget it.
const SILENCE: Duration = Duration::from_secs(60);

/// What to do about the identity offered for a new batch.
enum Adopt {
    Keep,
    New(Identity),
    /// Batches under the old one are still without an answer.
    Wait,
    Needed(Option<Spent>),
}

fn entry_bytes<S: Payload>(entry: &Entry<S>) -> usize {
    entry.payload.as_ref().map_or(0, Payload::bytes)
}

fn certainty(maybe_written: bool) -> Certainty {
    if maybe_written {
        Certainty::MaybeWritten
    } else {
        Certainty::NotSent
    }
}

/// The sequence after `records` more: after `i32::MAX` comes 0.
pub(crate) fn advance(sequence: i32, records: u32) -> i32 {
    let sum = (i64::from(sequence) + i64::from(records)) % (i64::from(i32::MAX) + 1);
    i32::try_from(sum).unwrap_or(0)
}
