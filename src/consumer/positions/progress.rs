//! What the application was given, has finished with, and gives back.

use super::part::{Part, State};
use super::{PartEpoch, Position, Positions};
use crate::clock::Instant;
use crate::types::TopicPartition;

impl Positions {
    /// Whether data of this epoch may be handed out now.
    pub(crate) fn may_hand_out(&self, tp: &TopicPartition, epoch: PartEpoch) -> bool {
        self.parts.get(tp).is_some_and(|part| {
            part.epoch == epoch
                && (!part.paused || crate::planted("paused-is-handed-out"))
                && !part.revoking
                && part.state == State::Active
        })
    }

    /// The next offset to hand out, if the epoch is the present one.
    pub(crate) fn position_under(&self, tp: &TopicPartition, epoch: PartEpoch) -> Option<i64> {
        let part = self.parts.get(tp).filter(|part| part.epoch == epoch)?;
        Some(part.position.offset)
    }

    /// The application is being given everything before `next`; `false` (and nothing happens) if
    /// the data is stale. Whether the partition may be handed out was asked when its data was taken:
    /// a pause since then counts from the next time on.
    pub(crate) fn hand_out(
        &mut self,
        tp: &TopicPartition,
        epoch: PartEpoch,
        next: Position,
    ) -> bool {
        let Some(part) = self.current(tp, epoch).filter(|part| part.is_placed()) else {
            return false;
        };
        part.given |= next.offset > part.position.offset;
        if next.offset > part.position.offset {
            part.position = next;
            if crate::planted("a-record-is-skipped") {
                part.position.offset += 1;
            }
            if !std::mem::replace(&mut part.unfinished, true) {
                self.unfinished.insert(tp.clone());
            }
            self.book(tp);
        }
        true
    }

    /// The application asks for more: it has finished with all it was given.
    pub(crate) fn finish(&mut self) {
        for tp in self.unfinished.drain(..) {
            if let Some(part) = self.parts.get_mut(&tp) {
                part.finished = part.position;
                part.unfinished = false;
            }
        }
    }

    /// The application has finished with all it was given of one partition.
    pub(crate) fn finish_one(&mut self, tp: &TopicPartition) {
        if let Some(part) = self.parts.get_mut(tp).filter(|part| part.unfinished) {
            part.finished = part.position;
            part.unfinished = false;
            self.unfinished.swap_remove(tp);
        }
    }

    /// What was handed out so far and is not known as committed: what the application's own commit
    /// covers.
    pub(crate) fn handed_out(&self) -> Vec<(TopicPartition, Position)> {
        let active = self
            .booked()
            .filter(|(_, part)| part.committed != Some(part.position.offset));
        active
            .map(|(tp, part)| (tp.clone(), part.position))
            .collect()
    }

    /// A partition of which something was handed out that cannot be committed, for its topic seems to be deleted.
    pub(crate) fn forlorn(&self) -> Option<&TopicPartition> {
        let mut ahead = self.ahead.iter();
        ahead.find(|tp| {
            let part = self.parts.get(*tp);
            part.is_some_and(|part| {
                let behind = part.committed != Some(part.position.offset);
                part.gone && part.is_placed() && part.given && behind
            })
        })
    }

    /// What is finished and not known as committed. If the application committed more of what it
    /// was handed out, that stands.
    pub(crate) fn uncommitted(&self) -> Vec<(TopicPartition, Position)> {
        let changed = self.booked().filter(|(_, part)| {
            let covered = part.finished.offset..=part.position.offset;
            part.committed
                .is_none_or(|committed| !covered.contains(&committed))
        });
        changed
            .map(|(tp, part)| (tp.clone(), part.finished))
            .collect()
    }

    /// Notes what the group has committed.
    pub(crate) fn note_committed(&mut self, tp: &TopicPartition, offset: i64) {
        if let Some(part) = self.parts.get_mut(tp) {
            part.committed = Some(offset);
        }
        self.book(tp);
    }

    /// Notes whether there may be something to commit of the partition.
    pub(super) fn book(&mut self, tp: &TopicPartition) {
        if self.parts.get(tp).is_some_and(Part::is_ahead) {
            if !self.ahead.contains(tp) {
                self.ahead.insert(tp.clone());
            }
        } else {
            self.ahead.swap_remove(tp);
        }
    }

    fn booked(&self) -> impl Iterator<Item = (&TopicPartition, &Part)> {
        let ahead = self.ahead.iter();
        let parts = ahead.filter_map(|tp| self.parts.get_key_value(tp));
        parts.filter(|(_, part)| part.may_commit())
    }

    /// Goes back to the position and fetches again from there, after a back-off if `now` is given:
    /// what was buffered turned out damaged, or its memory is needed.
    pub(crate) fn rewind(&mut self, tp: &TopicPartition, now: Option<Instant>) {
        let renewed = self.new_epoch();
        let max = self.rules.backoff_max;
        if let Some(part) = self.parts.get_mut(tp) {
            part.live_again(renewed);
            part.fetch = part.position;
            if let Some(now) = now {
                part.back_off(now, max, max);
            }
        }
        self.touch(tp);
    }

    /// What was handed out from `offset` on comes back unread; false if that is stale.
    pub(crate) fn hand_back(&mut self, tp: &TopicPartition, epoch: PartEpoch, offset: i64) -> bool {
        let renewed = self.new_epoch();
        let Some(part) = self.current(tp, epoch).filter(|part| part.is_placed()) else {
            return false;
        };
        if !(part.finished.offset..part.position.offset).contains(&offset) {
            return false;
        }
        part.live_again(renewed);
        part.position = Position::new(offset);
        part.fetch = part.position;
        self.touch(tp);
        true
    }
}
