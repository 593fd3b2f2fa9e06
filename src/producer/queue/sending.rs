//! Which batch goes next, when, and under which identity and sequence.
//!
//! Everything of the [invariants](super) that holds a batch back is here: one in flight until an
//! identity is confirmed, a repeated batch alone, nothing to a new leader while the old one has
//! something, nothing new over a hole.

use std::time::Duration;

use super::{BatchId, Entry, ExhaustedEpoch, PartitionQueue, Payload, Rules, Stamp, State};
use crate::clock::Instant;
use crate::producer::identity::Identity;
use crate::types::BrokerId;

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
    NeedsIdentity(Option<ExhaustedEpoch>),
    /// Nothing now; see [`PartitionQueue::wake_at`].
    Nothing,
}

impl<O, S: Payload> PartitionQueue<O, S> {
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
            return match self.open_due_at(rules) {
                Some(at) if due || at <= now => match self.adoptable(rules, identity) {
                    Adopt::Wait => Next::Nothing,
                    Adopt::Needed(spent) => Next::NeedsIdentity(spent),
                    Adopt::Keep | Adopt::New(_) => Next::SealOpen,
                },
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
                    if !crate::planted("sequences-go-on-under-another-epoch") {
                        self.next_sequence = 0;
                    }
                    self.confirmed = false;
                    self.spent = None;
                }
            }
        }
        if entry_bytes(&self.entries[index]) > room {
            return Next::NoRoom;
        }
        if rules.idempotent
            && (self.entries[index].stamp.is_none()
                || crate::planted("new-sequence-when-sent-again"))
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

    /// When [`next`](Self::next) may have something although nothing happened until then: the end
    /// of a back-off or linger. In the past if it may have something already. `None` if only an
    /// event can bring something.
    pub(crate) fn wake_at(&self, rules: &Rules) -> Option<Instant> {
        let first = self
            .entries
            .iter()
            .find(|entry| !matches!(entry.state, State::InFlight { .. }));
        match first.map(|entry| entry.state) {
            Some(State::Waiting { not_before }) => not_before,
            Some(_) => None,
            None => self.open_due_at(rules),
        }
    }

    /// The place of the first batch not in flight if it may go to `broker` now; the line's length
    /// if all are in flight and another may join them.
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
        if self.identity.is_some_and(older) {
            // The sender that offers this identity read it before the queue took the newer one.
            return Adopt::Needed(None);
        }
        if self.entries.iter().any(|entry| entry.stamp.is_some()) {
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
}

/// After so long a silence a producer makes sure that the broker still knows it: one round trip,
/// and far less than the time after which a broker may forget it.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

/// What to do about the identity offered for a new batch.
enum Adopt {
    Keep,
    New(Identity),
    /// Batches under the old one are still without an answer.
    Wait,
    Needed(Option<ExhaustedEpoch>),
}

fn entry_bytes<S: Payload>(entry: &Entry<S>) -> usize {
    entry.payload.as_ref().map_or(0, Payload::bytes)
}

/// The sequence after `records` more: after `i32::MAX` comes 0.
pub(super) fn advance(sequence: i32, records: u32) -> i32 {
    let sum = (i64::from(sequence) + i64::from(records)) % (i64::from(i32::MAX) + 1);
    i32::try_from(sum).unwrap_or(0)
}
