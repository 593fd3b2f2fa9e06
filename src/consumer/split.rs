//! A stream for each partition, so that each can have a task of its own.
//!
//! Invariants:
//! - What a stream handed out counts as finished when it is asked for more (which may end it). A
//!   stream that is dropped before gives back what it had, and its partition is offered again,
//!   after a pause.
//! - A revocation, and the end of the consumer, wait for the streams that have something in hand.
//! - One stream reads a partition at a time ([`Positions::reader`]), and no poll does meanwhile:
//!   what one has in hand, nobody else is handed until it has finished with it or given it back.
//!
//! [`Positions::reader`]: super::positions::Positions::reader

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::sync::Notify;

use super::Consumer;
use super::commands::RebalanceEvent;
use super::polling::Polling;
use super::shared::{Inner, Shared};
use super::splits::Live;
use crate::clock::{Instant, now, sleep_at};
use crate::error::Result;
use crate::fetched::batch::PartitionBatch;
use crate::types::TopicPartition;

/// A stream of the partitions assigned, each with the stream of its records; see
/// [`Consumer::split_by_partition`].
pub struct PartitionStreams<'a> {
    consumer: &'a mut Consumer,
    id: u64,
    #[allow(clippy::type_complexity)]
    waiting: Option<Pin<Box<dyn Future<Output = Option<Result<Given>>> + Send>>>,
}

type Given = (TopicPartition, PartitionStream);

impl Consumer {
    /// The partitions assigned, each with a stream of its batches: for a task per partition. The
    /// streams of partitions that are given up end, and a revocation is complete when they have: a
    /// task that loops over its stream finishes the batch it has, and with auto-commit that is
    /// committed.
    ///
    /// A stream that is dropped before it has ended, because its task failed or panicked, gives
    /// back the batch that it had: that is not committed, and the partition is offered again, from
    /// that batch on, after a pause that grows (`retry.backoff.ms` up to `retry.backoff.max.ms`).
    /// [`PartitionStream::attempt`] says how often that was so.
    ///
    /// When the [`PartitionStreams`] are dropped, all streams end as soon as they are asked for
    /// more. Whatever reads next (a poll, another split) goes on from the first record that is not
    /// finished; partitions of which an old stream still has a batch in hand wait until it asks for
    /// more or is dropped. So does [`close`](Self::close), for half of its time.
    ///
    /// Keep asking for the next partition while the streams are in use: that is where revocations
    /// come in, and it counts as polling (`max.poll.interval.ms` does not watch over the tasks).
    /// Its errors are fatal ones; the stream of a partition tells what is wrong with that partition
    /// ([`Batches::errors`](crate::Batches::errors)), and the log also what is wrong with
    /// partitions or topics that have no stream. A partition whose task is slow stops being fetched
    /// once about `max.partition.fetch.bytes` of it wait; the others go on. If memory is short
    /// (`fetch.max.bytes`), what waits of streams that nobody asked for a second is dropped, and
    /// fetched again when they are asked.
    ///
    /// ```no_run
    /// # async fn example(mut consumer: ottla::Consumer) -> ottla::Result<()> {
    /// use futures::StreamExt;
    /// let mut partitions = consumer.split_by_partition();
    /// while let Some(next) = partitions.next().await {
    ///     let (partition, mut batches) = next?;
    ///     tokio::spawn(async move {
    ///         while let Some(batch) = batches.next().await {
    ///             println!("{partition}: {} records", batch?.record_count());
    ///         }
    ///         Ok::<_, ottla::Error>(())
    ///     });
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn split_by_partition(&mut self) -> PartitionStreams<'_> {
        PartitionStreams::new(self)
    }
}

impl<'a> PartitionStreams<'a> {
    pub(super) fn new(consumer: &'a mut Consumer) -> Self {
        let mut inner = consumer.shared.lock();
        inner.listens = false;
        let Inner {
            positions, split, ..
        } = &mut *inner;
        split.id += 1;
        split.on = true;
        split.wake_all();
        let assigned = positions.assigned();
        let offered = assigned.filter(|tp| !split.again.contains_key(*tp));
        split.new = offered.cloned().collect();
        let id = split.id;
        drop(inner);
        Self {
            consumer,
            id,
            waiting: None,
        }
    }
}

/// Waits for the next partition. Cancel safe: it is taken only if it is returned.
async fn next_partition(shared: Arc<Shared>, id: u64) -> Option<Result<Given>> {
    // What was polled before is finished.
    let mut polling = Polling::enter(&shared, |inner| shared.ask(inner));
    loop {
        let mut ready = pin!(shared.ready.notified());
        ready.as_mut().enable();
        let given = match shared.next_split(id) {
            Ok(Next::Given(given)) => Some(Ok(given)),
            Err(error) => Some(Err(error)),
            Ok(Next::Later(_)) if shared.tasks.is_stopping() => None,
            Ok(Next::Later(due)) => {
                tokio::select! {
                    biased;
                    () = polling.wait(ready) => {}
                    () = sleep_at(due) => {}
                }
                continue;
            }
        };
        polling.leave();
        return given;
    }
}

/// What there is of partitions to be given out.
enum Next {
    Given(Given),
    /// None now; when there may be one by time alone.
    Later(Option<Instant>),
}

impl Shared {
    fn next_split(self: &Arc<Self>, id: u64) -> Result<Next> {
        let mut released = Vec::new();
        let mut inner = self.lock();
        if let Some(error) = inner.fatal.clone().or_else(|| self.tasks.failure()) {
            return Err(error);
        }
        inner.wakeup = false;
        while let Some(news) = inner.events.pop_front() {
            match news {
                RebalanceEvent::Assigned(partitions) => {
                    partitions.iter().for_each(|tp| inner.split.add(tp));
                }
                RebalanceEvent::Revoking(revocation, partitions) => {
                    let busy = inner.end_streams(&partitions);
                    if busy.is_empty() {
                        released.push(revocation);
                    } else {
                        inner.split.revoking = Some((revocation, busy));
                    }
                }
                RebalanceEvent::Lost(partitions) => {
                    inner.split.end(&partitions);
                    inner.split.revoking = None;
                    // As for polls (`polling.rs`).
                    self.control.notify_one();
                }
            }
        }
        let given = self.offer(&mut inner, id);
        let due = inner.split.again.values().min().copied();
        drop(inner);
        released.into_iter().for_each(|id| self.release(id));
        Ok(given.map_or(Next::Later(due), Next::Given))
    }

    /// A stream of the first partition that may have one now.
    fn offer(self: &Arc<Self>, inner: &mut Inner, id: u64) -> Option<Given> {
        let Inner {
            positions, split, ..
        } = inner;
        let time = now();
        split.again.retain(|tp, at| {
            let later = *at > time;
            if !later {
                split.new.insert(tp.clone());
            }
            later
        });
        split.new.retain(|tp| positions.is_assigned(tp));
        // An older stream that still has something of it in hand comes first.
        let free = split.new.iter().find(|tp| positions.reader(tp).is_none());
        let tp = free.cloned()?;
        split.new.remove(&tp);
        split.serial += 1;
        let serial = split.serial;
        let news = Arc::new(Notify::new());
        let live = Live {
            tp: tp.clone(),
            on: true,
            news: Arc::clone(&news),
            asked: time,
            waits: false,
        };
        split.live.insert(serial, live);
        split.newest.insert(tp.clone(), serial);
        let stream = PartitionStream {
            shared: Arc::clone(self),
            tp: tp.clone(),
            split: id,
            serial,
            attempt: positions.give_to(&tp, serial),
            news,
            waiting: None,
        };
        Some((tp, stream))
    }

    /// A stream has ended, or was dropped.
    fn stream_gone(&self, tp: &TopicPartition, split: u64, serial: u64, ended: bool) {
        let mut inner = self.lock();
        let Inner {
            positions,
            split: all,
            buffer,
            ..
        } = &mut *inner;
        if !all.live.contains_key(&serial) {
            return;
        }
        let has_in_hand = positions.has_in_hand(tp, serial);
        let goes_on = all.goes_on(serial) && all.id == split && !self.tasks.is_stopping();
        if crate::planted("a-dropped-stream-has-finished") {
            positions.finish_one(tp, serial);
        }
        if ended {
            positions.take_from(tp, serial);
        } else if let Some((offset, attempt)) = positions.dropped(tp, serial) {
            if has_in_hand {
                buffer.discard(tp);
            }
            if goes_on {
                let config = self.cluster.config();
                let doubled = 1_u32 << (attempt - 1).min(16);
                let pause = config.retry_backoff.saturating_mul(doubled);
                let pause = pause.min(config.retry_backoff_max);
                all.again.insert(tp.clone(), now() + pause);
                tracing::warn!(
                    partition = %tp,
                    offset,
                    attempt,
                    again_in = ?pause,
                    "the stream of a partition was dropped before it ended: it is offered \
                     again from this offset on"
                );
            }
        }
        buffer.ready_again(tp);
        let done = all.gone(serial);
        drop(inner);
        if let Some(revocation) = done {
            self.release(revocation);
        }
        self.ready.notify_waiters();
        self.fetchable.notify_waiters();
        self.control.notify_one();
    }
}

impl Stream for PartitionStreams<'_> {
    type Item = Result<Given>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let id = this.id;
        let waiting = this
            .waiting
            .get_or_insert_with(|| Box::pin(next_partition(Arc::clone(&this.consumer.shared), id)));
        let next = ready!(waiting.as_mut().poll(cx));
        this.waiting = None;
        Poll::Ready(next)
    }
}

impl Drop for PartitionStreams<'_> {
    /// Ends the streams of all partitions, when they are asked for more.
    fn drop(&mut self) {
        self.waiting = None;
        let mut inner = self.consumer.shared.lock();
        let Inner {
            positions,
            split,
            buffer,
            ..
        } = &mut *inner;
        split.on = false;
        let without = std::mem::take(&mut split.new);
        for tp in without.iter().chain(split.again.keys()) {
            positions.wanted_again(tp);
        }
        for (serial, live) in &mut split.live {
            live.on = false;
            // Nobody waits for a stream that has nothing in hand.
            if !positions.has_in_hand(&live.tp, *serial) {
                positions.take_from(&live.tp, *serial);
                buffer.ready_again(&live.tp);
            }
        }
        split.wake_all();
        drop(inner);
        self.consumer.shared.fetchable.notify_waiters();
    }
}

impl fmt::Debug for PartitionStreams<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionStreams").finish_non_exhaustive()
    }
}

/// The batches of one partition, in order; see [`Consumer::split_by_partition`].
///
/// It ends when the partition is given up, and when the [`PartitionStreams`] it came from or the
/// consumer do. What it handed out counts as finished when it is asked for more. Dropped before it
/// has ended, it gives back what it handed out last, which is not committed, and its partition is
/// offered again ([`attempt`](Self::attempt)).
pub struct PartitionStream {
    shared: Arc<Shared>,
    tp: TopicPartition,
    split: u64,
    serial: u64,
    attempt: u32,
    news: Arc<Notify>,
    #[allow(clippy::type_complexity)]
    waiting: Option<Pin<Box<dyn Future<Output = Option<Result<PartitionBatch>>> + Send>>>,
}

impl PartitionStream {
    /// The partition.
    #[must_use]
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.tp
    }

    /// How many streams of this partition were dropped before they had ended, since the partition
    /// was assigned: 0 for the first stream. Each of them stopped at records that this one begins
    /// with, so that the application can give up or write them elsewhere after so many.
    ///
    /// ```no_run
    /// # async fn example(mut batches: ottla::PartitionStream) -> ottla::Result<()> {
    /// use futures::StreamExt;
    /// # async fn process(record: &ottla::OwnedRecord) -> Result<(), String> { Ok(()) }
    /// # async fn write_to_dead_letters(record: &ottla::OwnedRecord) {}
    /// let last_attempt = batches.attempt() >= 5;
    /// while let Some(batch) = batches.next().await {
    ///     for record in batch?.owned_records() {
    ///         let record = record?;
    ///         match process(&record).await {
    ///             Ok(()) => {}
    ///             Err(_) if last_attempt => write_to_dead_letters(&record).await,
    ///             // Dropping the stream has the partition offered again from this batch on.
    ///             Err(_) => return Ok(()),
    ///         }
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}

/// Waits for the next batch. Cancel safe: what is taken is returned at once.
async fn next_batch(
    shared: Arc<Shared>,
    tp: TopicPartition,
    split: u64,
    serial: u64,
    news: Arc<Notify>,
) -> Option<Result<PartitionBatch>> {
    tokio::task::coop::consume_budget().await;
    loop {
        let mut more = pin!(news.notified());
        more.as_mut().enable();
        if !shared.goes_on(&tp, split, serial) {
            shared.stream_gone(&tp, split, serial, true);
            return None;
        }
        if let Some(batch) = shared.take_of(&tp, serial).transpose() {
            return Some(batch);
        }
        tokio::select! {
            biased;
            () = more => {}
            () = shared.tasks.stopped() => {}
        }
    }
}

impl Shared {
    /// What the stream had is finished; whether there may be more.
    fn goes_on(&self, tp: &TopicPartition, split: u64, serial: u64) -> bool {
        let mut inner = self.lock();
        let again = inner.positions.finish_one(tp, serial);
        let wanted = again.then(|| inner.positions.read_from(tp)).flatten();
        let present = inner.split.id == split && inner.fatal.is_none();
        let on = inner.split.live.get_mut(&serial).is_some_and(|live| {
            live.asked = now();
            live.on
        });
        drop(inner);
        self.fetchable.wake(wanted);
        on && present && !self.tasks.is_stopping()
    }

    /// What can be handed out of one partition now, decoded outside of the lock.
    fn take_of(&self, tp: &TopicPartition, serial: u64) -> Result<Option<PartitionBatch>> {
        loop {
            let mut portion = self.portion(|_| self.config.max_poll_records);
            let mut inner = self.lock();
            let Some((mut chunk, position)) = inner.next_chunk_of(tp, serial) else {
                if let Some(error) = inner.error_of(tp) {
                    return Err(error);
                }
                inner.split.set_waits(serial, true);
                let wanted = std::mem::take(&mut inner.starved);
                drop(inner);
                self.fetchable.wake(wanted);
                return Ok(None);
            };
            inner.split.set_waits(serial, false);
            let before = chunk.unread() + inner.buffer.unread(tp);
            drop(inner);
            let taken = chunk.take(&mut portion, position, &self.reading);
            let mut inner = self.lock();
            inner.positions.touch(tp);
            let taken = match taken {
                Ok(taken) => taken,
                Err(error) => {
                    inner.buffer.discard(tp);
                    inner.positions.rewind(tp, Some(now()));
                    return Err(error);
                }
            };
            if !inner.split.goes_on(serial) || inner.positions.reader(tp) != Some(serial) {
                // The stream ended meanwhile: the next reader of the partition fetches this again.
                inner.buffer.discard(tp);
                inner.positions.rewind(tp, None);
                return Ok(None);
            }
            if !inner.positions.hand_out(tp, chunk.epoch, taken.next) {
                continue;
            }
            if taken.batch.is_none() {
                // What was passed over is nothing that it could have in hand.
                inner.positions.finish_one(tp, serial);
            }
            if !chunk.is_done() {
                inner.buffer.put_back(chunk);
            }
            let mut wanted = std::mem::take(&mut inner.starved);
            if self.is_wanted_again(before, inner.buffer.unread(tp)) {
                wanted.extend(inner.positions.read_from(tp));
            }
            drop(inner);
            self.fetchable.wake(wanted);
            if let Some(batch) = taken.batch {
                self.show(std::slice::from_ref(&batch));
                return Ok(Some(batch));
            }
        }
    }
}

impl Stream for PartitionStream {
    type Item = Result<PartitionBatch>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let (split, serial) = (this.split, this.serial);
        let waiting = this.waiting.get_or_insert_with(|| {
            let (shared, tp) = (Arc::clone(&this.shared), this.tp.clone());
            let news = Arc::clone(&this.news);
            Box::pin(next_batch(shared, tp, split, serial, news))
        });
        let next = ready!(waiting.as_mut().poll(cx));
        this.waiting = None;
        Poll::Ready(next)
    }
}

impl Drop for PartitionStream {
    fn drop(&mut self) {
        self.waiting = None;
        let (tp, split, serial) = (&self.tp, self.split, self.serial);
        self.shared.stream_gone(tp, split, serial, false);
    }
}

impl fmt::Debug for PartitionStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PartitionStream").field(&self.tp).finish()
    }
}
