//! A stream for each partition, so that each can have a task of its own.
//!
//! Invariants: a revocation is complete only after every stream of its partitions has ended (or was
//! dropped); what a stream handed out counts as finished when it is asked for more, or has ended by
//! itself, but not when it is dropped before.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::Notify;

use super::batch::PartitionBatch;
use super::shared::{Inner, News, Shared};
use super::{Consumer, Polling};
use crate::clock::{Instant, now};
use crate::error::Result;
use crate::types::TopicPartition;

/// How the partitions are split at present; part of what a consumer's tasks share.
#[derive(Debug, Default)]
pub(super) struct Split {
    /// Which split, counted; 0 if there was none.
    id: u64,
    on: bool,
    /// Partitions whose stream was not given out yet.
    new: BTreeSet<TopicPartition>,
    /// Streams that live. By serial number: the old stream of a partition may still be about when there
    /// is a new one.
    live: BTreeMap<u64, Live>,
    serial: u64,
    /// The newest stream of each partition.
    newest: BTreeMap<TopicPartition, u64>,
    /// Partitions of which nothing is here and whose stream waits.
    hungry: BTreeSet<TopicPartition>,
    /// The revocation under way and the streams that it waits for.
    revoking: Option<(u64, BTreeSet<u64>)>,
}

#[derive(Debug)]
struct Live {
    tp: TopicPartition,
    /// Whether it may go on.
    on: bool,
    /// There may be something for it.
    news: Arc<Notify>,
    /// When it was asked for more.
    asked: Instant,
}

/// A stream that is not asked for so long is taken to stand still.
pub(super) const STALLED: Duration = Duration::from_secs(1);

impl Split {
    pub(super) fn add(&mut self, tp: &TopicPartition) {
        let going_on = self.newest(tp).is_some_and(|live| live.on);
        if self.on && !going_on {
            self.new.insert(tp.clone());
        }
    }

    fn newest(&self, tp: &TopicPartition) -> Option<&Live> {
        self.live.get(self.newest.get(tp)?)
    }

    /// There may be something for the stream of this partition.
    pub(super) fn wake(&self, tp: &TopicPartition) {
        if let Some(live) = self.newest(tp) {
            live.news.notify_one();
        }
    }

    pub(super) fn wake_all(&self) {
        self.live.values().for_each(|live| live.news.notify_one());
    }

    /// Partitions whose streams wait for data.
    pub(super) fn hungry(&self) -> impl Iterator<Item = &TopicPartition> {
        self.hungry.iter()
    }

    /// Whether nobody has asked for this partition for a while.
    pub(super) fn is_stalled(&self, tp: &TopicPartition, now: Instant) -> bool {
        let asked = self.newest(tp).map(|live| live.asked + STALLED);
        !self.hungry.contains(tp) && asked.is_none_or(|until| until <= now)
    }

    /// Ends the streams of these partitions; what is still alive of them.
    pub(super) fn end(&mut self, partitions: &[TopicPartition]) -> BTreeSet<u64> {
        let partitions: BTreeSet<_> = partitions.iter().collect();
        self.new.retain(|tp| !partitions.contains(tp));
        let mut alive = BTreeSet::new();
        for (serial, live) in &mut self.live {
            if partitions.contains(&live.tp) {
                live.on = false;
                live.news.notify_one();
                alive.insert(*serial);
            }
        }
        alive
    }

    /// A stream is no more; the revocation that waited for it, and for no other.
    fn gone(&mut self, serial: u64) -> Option<u64> {
        if let Some(live) = self.live.remove(&serial)
            && self.newest.get(&live.tp) == Some(&serial)
        {
            self.newest.remove(&live.tp);
            self.hungry.remove(&live.tp);
        }
        let (id, waited) = self.revoking.as_mut()?;
        waited.remove(&serial);
        let done = waited.is_empty().then_some(*id);
        if done.is_some() {
            self.revoking = None;
        }
        done
    }
}

/// A stream of the partitions assigned, each with the stream of its records; see
/// [`Consumer::split_by_partition`].
pub struct PartitionStreams<'a> {
    consumer: &'a mut Consumer,
    id: u64,
    #[allow(clippy::type_complexity)]
    waiting: Option<Pin<Box<dyn Future<Output = Option<Result<Given>>> + Send>>>,
}

type Given = (TopicPartition, PartitionStream);

impl<'a> PartitionStreams<'a> {
    pub(super) fn new(consumer: &'a mut Consumer) -> Self {
        let mut inner = consumer.shared.lock();
        // What was polled before is finished.
        inner.positions.finish();
        inner.listens = false;
        let Inner {
            positions, split, ..
        } = &mut *inner;
        split.id += 1;
        split.on = true;
        split.wake_all();
        split.new = positions.assigned().cloned().collect();
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
    let mut polling = Polling::enter(&shared, |_| {});
    loop {
        let mut ready = pin!(shared.ready.notified());
        ready.as_mut().enable();
        let given = shared.next_split(id).transpose();
        if given.is_some() || shared.tasks.is_stopping() {
            polling.leave();
            return given;
        }
        polling.wait(ready).await;
    }
}

impl Shared {
    fn next_split(self: &Arc<Self>, id: u64) -> Result<Option<Given>> {
        let mut released = Vec::new();
        let mut inner = self.lock();
        if let Some(error) = inner.fatal.clone().or_else(|| self.tasks.failure()) {
            return Err(error);
        }
        inner.wakeup = false;
        while let Some(news) = inner.events.pop_front() {
            match news {
                News::Assigned(partitions) => {
                    partitions.iter().for_each(|tp| inner.split.add(tp));
                }
                News::Revoking(revocation, partitions) => {
                    let alive = inner.split.end(&partitions);
                    if alive.is_empty() {
                        released.push(revocation);
                    } else {
                        inner.split.revoking = Some((revocation, alive));
                    }
                }
                News::Lost(partitions) => {
                    inner.split.end(&partitions);
                    inner.split.revoking = None;
                }
            }
        }
        if let Some(error) = inner.errors.pop_front() {
            drop(inner);
            released.into_iter().for_each(|id| self.release(id));
            return Err(error);
        }
        let mut given = None;
        while let Some(tp) = inner.split.new.pop_first() {
            if inner.positions.is_assigned(&tp) {
                let split = &mut inner.split;
                split.serial += 1;
                let serial = split.serial;
                let news = Arc::new(Notify::new());
                let live = Live {
                    tp: tp.clone(),
                    on: true,
                    news: Arc::clone(&news),
                    asked: now(),
                };
                split.live.insert(serial, live);
                split.newest.insert(tp.clone(), serial);
                given = Some((tp, serial, news));
                break;
            }
        }
        drop(inner);
        released.into_iter().for_each(|id| self.release(id));
        Ok(given.map(|(tp, serial, news)| {
            let stream = PartitionStream {
                shared: Arc::clone(self),
                tp: tp.clone(),
                split: id,
                serial,
                news,
                waiting: None,
            };
            (tp, stream)
        }))
    }

    fn stream_gone(&self, serial: u64) {
        let done = self.lock().split.gone(serial);
        if let Some(revocation) = done {
            self.release(revocation);
        }
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
    /// Ends the streams of all partitions.
    fn drop(&mut self) {
        self.waiting = None;
        let mut inner = self.consumer.shared.lock();
        inner.positions.unpark_all();
        let split = &mut inner.split;
        split.on = false;
        split.new.clear();
        split.hungry.clear();
        split.live.values_mut().for_each(|live| live.on = false);
        split.wake_all();
        let waiting = split.revoking.take();
        drop(inner);
        if let Some((revocation, _)) = waiting {
            self.consumer.shared.release(revocation);
        }
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
/// It ends when the partition is given up, and when the [`PartitionStreams`] it came from or the consumer
/// do. What it handed out counts as finished when it is asked for more.
pub struct PartitionStream {
    shared: Arc<Shared>,
    tp: TopicPartition,
    split: u64,
    serial: u64,
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
            shared.stream_gone(serial);
            return None;
        }
        if let Some(batch) = shared.take_of(&tp).transpose() {
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
        if inner.split.newest.get(tp) == Some(&serial) {
            inner.positions.finish_one(tp);
        }
        let Some(live) = inner.split.live.get_mut(&serial) else {
            return false;
        };
        live.asked = now();
        live.on && inner.split.id == split && inner.fatal.is_none() && !self.tasks.is_stopping()
    }

    /// What can be handed out of one partition now, decoded outside of the lock.
    fn take_of(&self, tp: &TopicPartition) -> Result<Option<PartitionBatch>> {
        loop {
            let mut portion = self.portion(|_| self.config.max_poll_records);
            let mut inner = self.lock();
            let Some((mut chunk, position)) = inner.next_chunk_of(tp) else {
                inner.split.hungry.insert(tp.clone());
                let mut wanted = std::mem::take(&mut inner.starved);
                if inner.positions.unpark(tp) {
                    wanted.extend(inner.positions.read_from(tp));
                }
                self.fetchable.wake(wanted);
                return Ok(None);
            };
            inner.split.hungry.remove(tp);
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
            if !inner.positions.hand_out(tp, chunk.epoch, taken.next) {
                continue;
            }
            if !chunk.is_done() {
                inner.buffer.put_back(chunk);
            }
            let mut wanted = std::mem::take(&mut inner.starved);
            if self.is_wanted_again(before, inner.buffer.unread(tp)) {
                wanted.extend(inner.positions.read_from(tp));
            }
            self.fetchable.wake(wanted);
            drop(inner);
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
        self.shared.stream_gone(self.serial);
    }
}

impl fmt::Debug for PartitionStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PartitionStream").field(&self.tp).finish()
    }
}
