//! How batches end: answers, expiry, purge, close; and what a batch that was given up leaves
//! behind.
//!
//! Everything of the [invariants](super) about certainty and holes is here: what may have been
//! written stays so, sequences given up without leaving a trace are used again, and otherwise
//! everything settles before the next identity.

use super::{BatchId, Entry, ExhaustedEpoch, PartitionQueue, Payload, Rules, SequenceGap, State};
use crate::clock::Instant;
use crate::error::Certainty;

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
    pub(crate) end: BatchOutcome,
}

/// How a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchOutcome {
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
    /// The batch is too large and has several records: [`PartitionQueue::take_oversized`] may split
    /// it.
    Oversized,
    /// It had been given up before.
    Late,
}

impl<O, S: Payload> PartitionQueue<O, S> {
    // Answers.

    /// Takes the answer for a batch in flight. `retry_at` is when it may be sent again, if it is to
    /// be.
    ///
    /// Batches that end because of it are added to `out`; there may be others than the one
    /// answered.
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
            entry.maybe_written = !crate::planted("unanswered-counts-as-not-sent");
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
                // Not before it was taken out and split: `retry_at` only guards against a shell
                // that does not.
                self.entries[index].state = State::Waiting {
                    not_before: Some(retry_at),
                };
                return Settled::Oversized;
            }
            Answer::TooLarge | Answer::Refused(_) => {
                self.give_up(index, Why::Answer, out);
                // A damaged acknowledgement looks like a refusal: under the same sequence the
                // broker would take the next batch for this one. Java's producer asks for another
                // epoch, too. In a transaction it is the abort that does.
                if rules.idempotent && !rules.transactional {
                    self.dig(id, false, false);
                }
                Settled::Done
            }
            Answer::OutOfSequence | Answer::StaleEpoch => {
                let stale = answer == Answer::StaleEpoch;
                if rules.idempotent && (index == 0 || stale) {
                    self.dig(id, true, stale);
                }
                let ends = rules.transactional && (index == 0 || stale);
                if gone || exhausted || !rules.idempotent || ends {
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

    /// Takes out a batch that the broker called too large; its place is kept until
    /// [`put_pieces`](Self::put_pieces).
    pub(crate) fn take_oversized(&mut self, id: BatchId) -> Option<S> {
        let index = self.position(id)?;
        let entry = &mut self.entries[index];
        entry.state = State::Compressing;
        entry.payload.take()
    }

    /// Puts the pieces of a split batch where it was. They are new batches: sequences are given
    /// when they are sent. Gives the pieces back if the place is gone.
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

    /// When the oldest batch must have ended.
    pub(crate) fn expires_at(&self, rules: &Rules) -> Option<Instant> {
        let oldest = self.entries.iter().find(|entry| entry.payload.is_some());
        oldest
            .map(|entry| entry.created)
            .or_else(|| self.open.as_ref().map(|open| open.created))
            .map(|created| created + rules.delivery_timeout)
    }

    /// Ends every batch whose delivery time is over. The open batch is returned: it has no payload
    /// to finish.
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

    /// Ends what no request has carried yet and, if `sent`, everything else too; goes on with what
    /// comes. The open batch is returned: it has no payload to finish.
    ///
    /// What was never sent has no sequence, and leaves no trace. For what was, the rules for
    /// batches given up hold.
    pub(crate) fn purge(&mut self, sent: bool, out: &mut Vec<Finished<S>>) -> Option<O> {
        let before = out.len();
        // From the back, so that sequences certainly not written are used again one after the
        // other.
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
                    end: BatchOutcome::Failed(certainty, Why::Closed),
                });
            }
        }
        self.in_flight = 0;
        self.hole = None;
        self.open.take().map(|open| open.batch)
    }

    // Below: what is left behind.

    fn acknowledged(&mut self, index: usize, out: &mut Vec<Finished<S>>) {
        let Some(entry) = self.entries.remove(index) else {
            return;
        };
        self.confirmed |= !entry.old_log;
        if let Some(hole) = &self.hole
            && !hole.certain
            && entry.id > hole.last
        {
            // A broker takes no batch before those with lower sequences: what was given up had been
            // written.
            self.hole = None;
        }
        if let Some(batch) = entry.payload {
            out.push(Finished {
                batch,
                end: BatchOutcome::Written,
            });
        }
    }

    /// Ends a batch without success. Returns whether it left the line; one in flight keeps its
    /// place for the answer.
    fn give_up(&mut self, index: usize, why: Why, out: &mut Vec<Finished<S>>) -> bool {
        let entry = &mut self.entries[index];
        let in_flight = matches!(entry.state, State::InFlight { .. });
        if let Some(batch) = entry.payload.take() {
            let end = BatchOutcome::Failed(certainty(entry.maybe_written || in_flight), why);
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

    /// Removes a batch that is certainly not in the log. Its sequence is used again if nothing was
    /// stamped after it.
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
        let hole = self.hole.get_or_insert(SequenceGap {
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
        self.spent = self.identity.map(|identity| ExhaustedEpoch {
            identity,
            fenced: hole.fenced,
        });
        // Those certainly not written go again under the next identity; for the others that could
        // be a second time.
        let mut index = 0;
        while let Some(entry) = self.entries.get_mut(index) {
            if entry.maybe_written && !crate::planted("maybe-written-goes-under-another-identity") {
                if let Some(batch) = entry.payload.take() {
                    let end = BatchOutcome::Failed(Certainty::MaybeWritten, Why::Gap);
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

fn certainty(maybe_written: bool) -> Certainty {
    if maybe_written {
        Certainty::MaybeWritten
    } else {
        Certainty::NotSent
    }
}
