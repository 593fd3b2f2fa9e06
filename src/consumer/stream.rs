//! Records one by one.
//!
//! Invariant: a record is finished when the application asks for a later one while it keeps neither
//! this record nor an earlier one of the partition. Every owned record holds a share of its stored
//! batch, so the stream reads the share counters: that of the present segment whenever a record is
//! asked for, those of all other segments when that takes a poll. A stream that is dropped does not
//! read them, because a record that nobody keeps any more may have failed.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::Consumer;
use super::polling::{By, poll};
use super::positions::Held;
use crate::clock::{Instant, now};
use crate::error::{Error, Result};
use crate::fetched::batch::{Batches, PartitionBatch, Segment};
use crate::fetched::{PartEpoch, Position};
use crate::record::{DecodedBatch, OwnedRecord, RecordCursor};
use crate::types::TopicPartition;

/// The records of a [`Consumer`], one by one; see [`Consumer::stream`].
pub struct RecordStream<'a> {
    consumer: &'a mut Consumer,
    #[allow(clippy::type_complexity)]
    waiting: Option<Pin<Box<dyn Future<Output = Result<Option<Batches>>> + Send>>>,
    /// Something was asked for.
    asked: bool,
    batches: VecDeque<PartitionBatch>,
    /// What went wrong with partitions: told after the records that came with it.
    errors: VecDeque<Error>,
    /// Which segment of the front batch is being given out, and where in it.
    index: usize,
    current: Option<Current>,
    /// Segments that were given out, in order, and how many of the first are known not to be in
    /// use.
    given: VecDeque<Given>,
    free: usize,
}

/// A segment that is being given out.
struct Current {
    /// Shared with nothing but records that the application keeps.
    batch: DecodedBatch,
    at: RecordCursor,
    left: usize,
    /// The position after the last record given out.
    next: Position,
    /// What is before it was not in use when something was asked for.
    finished: Position,
}

struct Given {
    tp: TopicPartition,
    epoch: PartEpoch,
    batch: DecodedBatch,
    /// What is before it is finished, as far as this segment goes.
    start: Position,
    /// Since when it is known to be in use while there is nothing else to give out.
    since: Option<Instant>,
}

impl Current {
    fn new(segment: &Segment) -> Self {
        Self {
            batch: segment.batch.apart(),
            at: segment.from,
            left: segment.count,
            next: segment.start,
            finished: segment.start,
        }
    }
}

impl Consumer {
    /// The records one by one.
    ///
    /// A record is finished when a later one is asked for while neither it nor an earlier one of
    /// its partition is still in use, that is, while the application keeps no [`OwnedRecord`] of
    /// them. So records may be worked on side by side:
    ///
    /// ```no_run
    /// # async fn process(record: &ottla::OwnedRecord) -> ottla::Result<()> { Ok(()) }
    /// # async fn example(mut consumer: ottla::Consumer) -> ottla::Result<()> {
    /// use futures::{StreamExt, TryStreamExt};
    /// let records = consumer.stream();
    /// let work = records.map(|record| async move {
    ///     let record = record?; // kept until this has ended
    ///     process(&record).await
    /// });
    /// work.buffer_unordered(16).try_for_each(|()| async { Ok(()) }).await
    /// # }
    /// ```
    ///
    /// - A record that is kept for long, as in a cache, holds back the commits of its partition
    ///   (after `max.poll.interval.ms` there is a warning in the log), and what comes behind it may
    ///   be read again: copy what you keep. [`Bytes`](bytes::Bytes) taken from a record do not
    ///   count.
    /// - The record at which the stream was left, the last one given out, is not finished unless
    ///   more was asked for after it. It and what is behind it are handed out again by the next
    ///   poll or stream of this consumer, and not committed by [`close`](Self::close). Whoever is
    ///   done with it says so, when the stream is dropped, by [`finish`](Self::finish) or
    ///   [`commit`](Self::commit). So a loop that makes a stream for each record has to call
    ///   `finish` after each, or it gets the same one again.
    /// - What failed must be kept, or nothing more be asked for: a record that was dropped while
    ///   more was asked for counts as finished. With `buffer_unordered` and `for_each_concurrent`,
    ///   an error that ends the loop comes before more is asked for. Adapters that keep order
    ///   (`buffered`) and tasks that were spawned ask for more while an error waits to be seen:
    ///   return the record with the error there.
    ///
    /// Errors are those of [`poll`](Self::poll), and those of single partitions
    /// ([`Batches::errors`]), which come behind the records that are here and do not end the stream
    /// ([`Error::is_fatal`]).
    pub fn stream(&mut self) -> RecordStream<'_> {
        RecordStream::new(self)
    }
}

impl<'a> RecordStream<'a> {
    pub(super) fn new(consumer: &'a mut Consumer) -> Self {
        Self {
            consumer,
            waiting: None,
            asked: false,
            batches: VecDeque::new(),
            errors: VecDeque::new(),
            index: 0,
            current: None,
            given: VecDeque::new(),
            free: 0,
        }
    }

    /// Something is asked for: what was given out and is not in use is finished.
    fn ask(&mut self) {
        self.asked = true;
        let given = &self.given;
        while given
            .get(self.free)
            .is_some_and(|given| !given.batch.is_shared())
        {
            self.free += 1;
        }
        if let Some(current) = &mut self.current
            && !current.batch.is_shared()
        {
            current.finished = current.next;
        }
    }

    /// The next record that is here.
    fn next_here(&mut self) -> Option<Result<OwnedRecord>> {
        loop {
            let front = self.batches.front()?;
            let Some(segment) = front.segments.get(self.index) else {
                self.batches.pop_front();
                self.index = 0;
                continue;
            };
            let current = self.current.get_or_insert_with(|| Current::new(segment));
            let mut records = current.batch.records_from(current.at);
            let record = match current.left {
                0 => None,
                _ => records.next(),
            };
            if let Some(Ok(record)) = record {
                current.at = records.cursor();
                current.left -= 1;
                current.next = Position {
                    offset: record.offset() + 1,
                    leader_epoch: current.batch.header().partition_leader_epoch,
                };
                return Some(Ok(record.to_owned()));
            }
            let error = match record {
                Some(Err(error)) => Some(front.unreadable(self.index, &error)),
                _ => None,
            };
            let tp = front.tp.clone();
            if let Some(current) = self.current.take() {
                self.given.push_back(Given {
                    tp: tp.clone(),
                    epoch: front.epoch,
                    batch: current.batch,
                    start: current.finished,
                    since: None,
                });
            }
            self.index += 1;
            if let Some(error) = error {
                // The partition stops there.
                self.index = 0;
                self.batches.retain(|batch| batch.tp != tp);
                return Some(Err(error));
            }
        }
    }

    /// All that is here was given out, and more is asked for: what is not in use is finished.
    fn settle(&mut self) {
        if self.waiting.is_some() && self.given.is_empty() {
            return;
        }
        self.given.retain(|given| given.batch.is_shared());
        self.free = 0;
        let mut held = Held::new();
        for given in &self.given {
            let at = (given.epoch, given.start);
            held.entry(given.tp.clone()).or_insert(at);
        }
        let shared = &self.consumer.shared;
        let mut inner = shared.lock();
        if inner.ask(&held) {
            shared.fetchable.notify_waiters();
        }
        inner.listens = false;
        inner.held = !held.is_empty();
        drop(inner);
        if !held.is_empty() && shared.auto_commits() {
            self.warn();
        }
    }

    /// Says so if records have been in use for so long that something is wrong.
    fn warn(&mut self) {
        let shared = &self.consumer.shared;
        let (time, patience) = (now(), shared.config.max_poll_interval);
        let mut oldest: Option<(Instant, &Given)> = None;
        for given in &mut self.given {
            let since = *given.since.get_or_insert(time);
            if since + patience <= time && oldest.is_none_or(|(oldest, _)| since < oldest) {
                oldest = Some((since, given));
            }
        }
        if let Some((since, given)) = oldest
            && let Some(untold) = shared.held_gate.pass(time)
        {
            tracing::warn!(
                partition = %given.tp,
                offset = given.start.offset,
                held = ?time.saturating_duration_since(since),
                untold,
                "auto-commit is held back because records given out by the stream from this \
                 offset on are still kept: drop them when they are done, copy what is to stay"
            );
        }
    }
}

impl Stream for RecordStream<'_> {
    type Item = Result<OwnedRecord>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.ask();
        loop {
            if let Some(record) = this.next_here() {
                return Poll::Ready(Some(record));
            }
            if let Some(error) = this.errors.pop_front() {
                return Poll::Ready(Some(Err(error)));
            }
            this.settle();
            let waiting = this.waiting.get_or_insert_with(|| {
                let shared = Arc::clone(&this.consumer.shared);
                Box::pin(async move { poll(&shared, By::Stream).await })
            });
            let outcome = ready!(waiting.as_mut().poll(cx));
            this.waiting = None;
            match outcome {
                Ok(Some(batches)) => {
                    this.batches = batches.parts.into();
                    this.errors = batches.errors.into();
                }
                Ok(None) => return Poll::Ready(None),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

impl Drop for RecordStream<'_> {
    /// What was not given out goes back.
    fn drop(&mut self) {
        self.waiting = None;
        if !self.asked {
            return;
        }
        let mut held = Held::new();
        let errors = std::mem::take(&mut self.errors);
        for given in self.given.drain(..).skip(self.free) {
            held.entry(given.tp).or_insert((given.epoch, given.start));
        }
        let mut inner = self.consumer.shared.lock();
        errors.into_iter().for_each(|error| inner.keep(error));
        let mut index = self.index;
        // From the front: the first batch of a partition takes those behind it along.
        for batch in self.batches.drain(..) {
            let start = batch.segments.get(index).map(|segment| segment.start);
            index = 0;
            let from = match self.current.take() {
                Some(current) => {
                    let finished = (batch.epoch, current.finished);
                    held.entry(batch.tp.clone()).or_insert(finished);
                    Some(current.next)
                }
                None => start,
            };
            if let Some(from) = from {
                inner.give_back(&batch.tp, batch.epoch, from.offset);
            }
        }
        inner.positions.leave(&held);
        inner.held = false;
        drop(inner);
        self.consumer.shared.fetchable.notify_waiters();
    }
}

impl fmt::Debug for RecordStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordStream").finish_non_exhaustive()
    }
}
