//! What the application was given, has finished with, and gives back.

use std::collections::BTreeMap;

use super::part::{Part, State};
use super::{PartEpoch, Position, Positions};
use crate::clock::Instant;
use crate::types::TopicPartition;

/// A place in each of some partitions, and the epoch in which what is there was handed out.
pub(crate) type Held = BTreeMap<TopicPartition, (PartEpoch, Position)>;

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
    /// the data is stale. Whether the partition may be handed out was asked when its data was
    /// taken: a pause since then counts from the next time on.
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

    /// The application says that it has finished with all it was given, except for what the streams
    /// of single partitions have.
    pub(crate) fn finish(&mut self) {
        let parts = &mut self.parts;
        self.unfinished.retain(|tp| {
            let Some(part) = parts.get_mut(tp) else {
                return false;
            };
            if part.reader.is_none() {
                part.finish();
            }
            part.unfinished
        });
    }

    /// The application asks for more: it has finished with all it was given, except for what the
    /// streams of single partitions have, and for what is from the `held` position of a partition
    /// on. Where a stream of records was dropped, what is not finished is read again: these
    /// partitions are returned, and what is buffered of them is void.
    pub(crate) fn ask(&mut self, held: &Held) -> Vec<TopicPartition> {
        let mut again = Vec::new();
        let parts = &mut self.parts;
        self.unfinished.retain(|tp| {
            let Some(part) = parts.get_mut(tp) else {
                return false;
            };
            if part.reader.is_some() {
                return true;
            }
            if part.left {
                again.push(tp.clone());
            } else if let Some((_, at)) = held.get(tp).filter(|(epoch, _)| *epoch >= part.since) {
                part.finish_to(*at);
            } else {
                part.finish();
            }
            part.unfinished
        });
        for tp in &again {
            self.unfinished.swap_remove(tp);
            self.read_again(tp);
        }
        for tp in held.keys() {
            self.book(tp);
        }
        again
    }

    /// A stream of records is dropped: it has finished with what it gave out, up to the `held`
    /// position of a partition.
    pub(crate) fn leave(&mut self, held: &Held) {
        // Nothing is left there yet, or the stream would not have been given anything.
        self.ask(held);
        for tp in held.keys() {
            let part = self.parts.get_mut(tp);
            if let Some(part) = part.filter(|part| part.unfinished && part.reader.is_none()) {
                part.left = part.finished.offset != part.position.offset;
            }
        }
    }

    /// The application wants again what it was given and has not finished with, except for what the
    /// streams of single partitions have: these partitions are returned, and what is buffered of
    /// them is void.
    pub(crate) fn give_back(&mut self) -> Vec<TopicPartition> {
        let mut again = Vec::new();
        let parts = &self.parts;
        self.unfinished.retain(|tp| {
            let Some(part) = parts.get(tp) else {
                return false;
            };
            if part.reader.is_none() {
                again.push(tp.clone());
            }
            part.reader.is_some()
        });
        for tp in &again {
            self.read_again(tp);
        }
        again
    }

    /// Goes back to what is not finished, and fetches from there.
    fn read_again(&mut self, tp: &TopicPartition) {
        let renewed = self.new_epoch();
        if let Some(part) = self.parts.get_mut(tp).filter(|part| part.is_placed()) {
            part.live_again(renewed);
            part.position = part.finished;
            part.fetch = part.finished;
            part.finish();
        }
        self.touch(tp);
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

    /// A partition whose records were handed out and cannot be committed, because its topic seems
    /// to be deleted.
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

    /// Notes what the application has committed itself: it has finished with what is before.
    pub(crate) fn finish_committed(&mut self, tp: &TopicPartition, offset: i64) {
        if let Some(part) = self.parts.get_mut(tp) {
            part.finish_to(match offset == part.position.offset {
                true => part.position,
                false => Position::new(offset),
            });
        }
        self.note_committed(tp, offset);
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
    /// what was buffered turned out damaged, or was dropped.
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

    /// What is buffered of the partition is dropped because memory is short. It is fetched again
    /// when it is resumed if it is paused, and else when its stream asks for more.
    pub(crate) fn evict(&mut self, tp: &TopicPartition) {
        if let Some(part) = self.parts.get_mut(tp) {
            part.evicted = !part.paused;
        }
        self.rewind(tp, None);
    }

    /// The partition may be fetched again if it was [evicted](Self::evict). Whether it was.
    pub(crate) fn wanted_again(&mut self, tp: &TopicPartition) -> bool {
        let part = self.parts.get_mut(tp);
        let evicted = part.is_some_and(|part| std::mem::take(&mut part.evicted));
        if evicted {
            self.touch(tp);
        }
        evicted
    }

    /// What was handed out from `offset` on comes back unread; false if that is stale.
    pub(crate) fn hand_back(&mut self, tp: &TopicPartition, epoch: PartEpoch, offset: i64) -> bool {
        let renewed = self.new_epoch();
        let part = self.parts.get_mut(tp);
        let Some(part) = part.filter(|part| part.is_placed() && epoch >= part.since) else {
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

/// The streams of single partitions.
impl Positions {
    /// The stream that reads the partition, by its serial number.
    pub(crate) fn reader(&self, tp: &TopicPartition) -> Option<u64> {
        self.parts.get(tp)?.reader
    }

    /// From now on this stream reads the partition. How many before it were dropped before they had
    /// ended.
    pub(crate) fn give_to(&mut self, tp: &TopicPartition, reader: u64) -> u32 {
        self.parts.get_mut(tp).map_or(0, |part| {
            part.reader = Some(reader);
            part.attempts
        })
    }

    /// Whether the stream has something in hand that it has not finished with.
    pub(crate) fn has_in_hand(&self, tp: &TopicPartition, reader: u64) -> bool {
        let part = self.parts.get(tp);
        part.is_some_and(|part| part.reader == Some(reader) && part.unfinished)
    }

    /// The stream asks for more, or ends: it has finished with all it was given. Whether the
    /// partition, which was [evicted](Self::evict), may be fetched again.
    pub(crate) fn finish_one(&mut self, tp: &TopicPartition, reader: u64) -> bool {
        let part = self.parts.get_mut(tp);
        let Some(part) = part.filter(|part| part.reader == Some(reader)) else {
            return false;
        };
        if part.unfinished {
            part.finish();
            self.unfinished.swap_remove(tp);
        }
        self.wanted_again(tp)
    }

    /// The stream does not read the partition any more.
    pub(crate) fn take_from(&mut self, tp: &TopicPartition, reader: u64) {
        let part = self.parts.get_mut(tp);
        if let Some(part) = part.filter(|part| part.reader == Some(reader)) {
            part.reader = None;
            self.wanted_again(tp);
        }
    }

    /// The stream was dropped: what it has not finished with is read again. Where that begins, and
    /// how many streams were dropped so; `None` if it does not read the partition any more.
    pub(crate) fn dropped(&mut self, tp: &TopicPartition, reader: u64) -> Option<(i64, u32)> {
        let part = self.parts.get_mut(tp);
        let part = part.filter(|part| part.reader == Some(reader))?;
        part.reader = None;
        part.attempts = part.attempts.saturating_add(1);
        let (at, attempts) = (part.finished.offset, part.attempts);
        if std::mem::take(&mut part.unfinished) {
            self.unfinished.swap_remove(tp);
            self.read_again(tp);
        }
        self.wanted_again(tp);
        Some((at, attempts))
    }
}
