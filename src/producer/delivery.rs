//! What becomes of a record after it was accepted.
//!
//! All records of a batch share one cell; a [`Delivery`] is a reference to it and an index. Nothing
//! is allocated per record, and a waker is kept only for a delivery that is polled before its batch
//! is done.
//!
//! As long as a batch is open its cell knows the slot: the first wait for any of its records tells
//! the slot, which then need not wait for the linger to end. Later waits, and those for a sealed
//! batch, tell nobody anything.

use std::fmt;
use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use crate::error::{Error, Result};
use crate::sync::{Arc, AtomicU32, Mutex, MutexGuard, OnceLock, Ordering, PoisonError};
use crate::types::{Timestamp, TopicPartition};

/// Where a record was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordMetadata {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The record's offset; `None` if the broker did not say: with `acks=0`, or when it only knew
    /// that the record had been written before.
    pub offset: Option<i64>,
    /// The record's timestamp: that of the append where the topic has
    /// `message.timestamp.type=LogAppendTime`.
    pub timestamp: Timestamp,
}

/// The outcome of a record that was accepted: a future of its [`RecordMetadata`].
///
/// Awaiting it is optional: the producer sends and retries the record all the same, and dropping a
/// delivery only gives up its outcome. Every delivery ends by `delivery.timeout.ms`, and the
/// [`Error::certainty`] of a failed one says whether the record may have been written.
/// [`flush`](crate::Producer::flush) and [`close`](crate::Producer::close) return an error for
/// records that failed and whose deliveries were not awaited.
///
/// Waiting for a delivery (or only polling it) makes its batch due before `linger.ms` is over, if
/// nothing of the partition is on its way; see [`linger`](crate::ProducerBuilder::linger).
///
/// # Cancel safety
///
/// Awaiting `&mut delivery` and dropping that future loses nothing.
pub struct Delivery {
    batch: Watch,
    timestamp: i64,
}

/// The outcome of many records: ends when all of them have ended, with how many were written or the
/// first error.
///
/// # Cancel safety
///
/// As for [`Delivery`].
#[derive(Default)]
pub struct Deliveries {
    runs: Vec<Run>,
    /// All open batches know that somebody waits for them.
    waiting: bool,
    next: usize,
    written: u64,
    error: Option<Error>,
}

/// Records that follow each other in one batch.
struct Run {
    /// At the first of them.
    batch: Watch,
    count: u32,
}

/// The deliveries of a call that still accepts records.
#[derive(Default)]
pub(crate) struct Accepted {
    deliveries: Deliveries,
    /// By partition: which run its last record went to. Where two topics take turns it is wrong at
    /// times, and a run more is all that comes of it.
    places: Vec<usize>,
}

/// A record of a batch.
struct Watch {
    batch: Arc<BatchDone>,
    /// Where in the batch the waker is kept, if it is: its number plus one. [`TOLD`] once the
    /// application was told that the record failed.
    place: Option<NonZeroU32>,
    /// The record's.
    index: u32,
}

/// No place of a waker: there are as many as records in a batch at most.
const TOLD: NonZeroU32 = NonZeroU32::MAX;

/// The shared cell of a batch.
pub(crate) struct BatchDone {
    partition: TopicPartition,
    outcome: OnceLock<Outcome>,
    /// Failed records whose deliveries have not returned the error.
    untold: AtomicU32,
    waits: Mutex<Waits>,
}

/// Who waits for a batch.
#[derive(Default)]
struct Waits {
    wakers: Vec<Option<Waker>>,
    /// Where the batch is open: hears of the first wait.
    home: Option<Home>,
}

/// Where a batch is open.
pub(crate) type Home = std::sync::Arc<dyn Awaited>;

/// Where a batch is open, which hears of the first wait for it.
pub(crate) trait Awaited: Send + Sync {
    /// Called without any lock.
    fn awaited(self: std::sync::Arc<Self>);
}

/// How a batch ended.
pub(crate) enum Outcome {
    Written {
        base_offset: Option<i64>,
        append_time: Option<i64>,
    },
    Failed(Error),
    /// It was split: the index of each piece's first record, and its cell.
    Split(Vec<(u32, Arc<BatchDone>)>),
}

impl BatchDone {
    /// A batch that is not open, or lingers for nobody's sake.
    pub(crate) fn new(partition: TopicPartition) -> Arc<Self> {
        Self::open(partition, None)
    }

    /// A batch that is open; `home` is told of the first wait for it, until [`seal`](Self::seal).
    pub(crate) fn open(partition: TopicPartition, home: Option<Home>) -> Arc<Self> {
        Arc::new(Self {
            partition,
            outcome: OnceLock::new(),
            untold: AtomicU32::new(0),
            waits: Mutex::new(Waits {
                wakers: Vec::new(),
                home,
            }),
        })
    }

    /// It takes no more records: whether somebody waits makes no difference from now on.
    pub(crate) fn seal(&self) {
        self.waits().home = None;
    }

    /// Somebody waits.
    fn announce(&self) {
        let home = self.waits().home.take();
        if let Some(home) = home {
            home.awaited();
        }
    }

    pub(crate) fn delivery(self: &Arc<Self>, index: u32, timestamp: i64) -> Delivery {
        Delivery {
            batch: Watch::new(self, index),
            timestamp,
        }
    }

    pub(crate) fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// Ends the batch; only the first end counts.
    pub(crate) fn complete(&self, outcome: Outcome) {
        if self.outcome.set(outcome).is_ok() {
            let waits = std::mem::take(&mut *self.waits());
            for waker in waits.wakers.into_iter().flatten() {
                waker.wake();
            }
        }
    }

    /// So many records are about to fail.
    pub(crate) fn fails(&self, records: u32) {
        self.untold.store(records, Ordering::Release);
    }

    /// Why it failed, if it did.
    pub(crate) fn failure(&self) -> Option<&Error> {
        match self.outcome.get() {
            Some(Outcome::Failed(error)) => Some(error),
            _ => None,
        }
    }

    /// How many failed records have deliveries that have not returned the error.
    pub(crate) fn untold(&self) -> u32 {
        self.untold.load(Ordering::Acquire)
    }

    /// Returns [`untold`](Self::untold) and sets it to 0.
    pub(crate) fn take_untold(&self) -> u32 {
        self.untold.swap(0, Ordering::AcqRel)
    }

    fn told(&self, records: u32) {
        let less = |untold: u32| Some(untold.saturating_sub(records));
        let _ = self
            .untold
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for BatchDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "BatchDone({}, {})",
            self.partition,
            self.outcome.get().is_some()
        )
    }
}

impl Watch {
    fn new(batch: &Arc<BatchDone>, index: u32) -> Self {
        Self {
            batch: Arc::clone(batch),
            place: None,
            index,
        }
    }

    /// How the batch ended; wakes the task when it has.
    fn poll(&mut self, cx: &Context<'_>) -> Poll<&Outcome> {
        if self.batch.outcome.get().is_none() {
            let mut waits = self.batch.waits();
            let mut home = None;
            // It may have ended before the lock was held.
            if self.batch.outcome.get().is_none() {
                home = waits.home.take();
                let wakers = &mut waits.wakers;
                let waker = Some(cx.waker().clone());
                let known = self.place.map(|place| place.get() as usize - 1);
                match known.and_then(|place| wakers.get_mut(place)) {
                    Some(place) => *place = waker,
                    None => {
                        wakers.push(waker);
                        // As many as records in a batch at most.
                        self.place = u32::try_from(wakers.len()).ok().and_then(NonZeroU32::new);
                    }
                }
            }
            drop(waits);
            if let Some(home) = home {
                home.awaited();
            }
        }
        self.batch.outcome.get().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Watch {
    /// The application gets the error of this many records, from this one on.
    fn tell(&mut self, records: u32) {
        if self.place.replace(TOLD) != Some(TOLD) {
            self.batch.told(records);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(place) = self.place
            && self.batch.outcome.get().is_none()
            && let Some(waker) = self.batch.waits().wakers.get_mut(place.get() as usize - 1)
        {
            *waker = None;
        }
    }
}

impl Delivery {
    /// The topic and partition that the record goes to.
    #[must_use]
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.batch.batch.partition
    }

    /// The partition that the record goes to.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.topic_partition().partition
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            let index = this.batch.index;
            let piece = match ready!(this.batch.poll(cx)) {
                Outcome::Written {
                    base_offset,
                    append_time,
                } => {
                    let (offset, timestamp) = (
                        base_offset.map(|base| base.saturating_add(i64::from(index))),
                        append_time.unwrap_or(this.timestamp),
                    );
                    let partition = this.topic_partition();
                    return Poll::Ready(Ok(RecordMetadata {
                        topic: Arc::clone(&partition.topic),
                        partition: partition.partition,
                        offset,
                        timestamp: Timestamp::from_millis(timestamp),
                    }));
                }
                Outcome::Failed(error) => {
                    let error = error.clone();
                    this.batch.tell(1);
                    return Poll::Ready(Err(error));
                }
                Outcome::Split(pieces) => {
                    match pieces.iter().rev().find(|(first, _)| *first <= index) {
                        Some((first, batch)) => Watch::new(batch, index - first),
                        // The first piece starts at 0, so there always is one.
                        None => return Poll::Pending,
                    }
                }
            };
            this.batch = piece;
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("partition", self.topic_partition())
            .field("done", &self.batch.batch.outcome.get().is_some())
            .finish_non_exhaustive()
    }
}

impl Accepted {
    pub(crate) fn push(&mut self, delivery: &Delivery) {
        self.add(
            delivery.partition(),
            &delivery.batch.batch,
            delivery.batch.index,
        );
    }

    /// Counts a record that went to this place of a batch of the partition. Nothing of the batch is
    /// read unless a run begins: with many partitions that would be a cache miss.
    #[inline]
    pub(crate) fn add(&mut self, partition: i32, batch: &Arc<BatchDone>, index: u32) {
        let partition = usize::try_from(partition).unwrap_or(0);
        let runs = &mut self.deliveries.runs;
        let last = self.places.get(partition).and_then(|at| runs.get_mut(*at));
        if let Some(run) = last
            && Arc::ptr_eq(&run.batch.batch, batch)
            && run.batch.index + run.count == index
        {
            run.count += 1;
            return;
        }
        if self.places.len() <= partition {
            self.places.resize(partition + 1, usize::MAX);
        }
        if let Some(place) = self.places.get_mut(partition) {
            *place = runs.len();
        }
        runs.push(Run {
            batch: Watch::new(batch, index),
            count: 1,
        });
    }

    /// How many records there are so far.
    pub(crate) fn len(&self) -> u64 {
        self.deliveries.len()
    }

    pub(crate) fn into_deliveries(self) -> Deliveries {
        self.deliveries
    }
}

impl Run {
    /// The `count` records from `first` on, in the pieces of their batch.
    fn split(first: u32, count: u32, pieces: &[(u32, Arc<BatchDone>)]) -> Vec<Self> {
        let end = first + count;
        let ends = pieces.iter().skip(1).map(|(start, _)| *start).chain([end]);
        let starts = pieces.iter().map(|(start, batch)| (*start, batch));
        let overlap = |((start, batch), piece_end): ((u32, &Arc<BatchDone>), u32)| {
            let (from, to) = (first.max(start), end.min(piece_end));
            (from < to).then(|| Self {
                batch: Watch::new(batch, from - start),
                count: to - from,
            })
        };
        starts.zip(ends).filter_map(overlap).collect()
    }
}

impl Deliveries {
    #[cfg(test)]
    pub(crate) fn of(runs: &[(&Arc<BatchDone>, u32)]) -> Self {
        let mut all = Accepted::default();
        for (partition, (batch, count)) in (0..).zip(runs) {
            (0..*count).for_each(|index| all.add(partition, batch, index));
        }
        all.into_deliveries()
    }

    /// How many records were accepted.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.count)).sum()
    }

    /// Whether no record was accepted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

impl Future for Deliveries {
    type Output = Result<u64>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if !std::mem::replace(&mut this.waiting, true) {
            for run in &this.runs {
                run.batch.batch.announce();
            }
        }
        // One after the other: all have to end anyway.
        while let Some(run) = this.runs.get_mut(this.next) {
            let (first, count) = (run.batch.index, run.count);
            match ready!(run.batch.poll(cx)) {
                Outcome::Written { .. } => this.written += u64::from(count),
                Outcome::Failed(error) => {
                    this.error.get_or_insert_with(|| error.clone());
                }
                Outcome::Split(pieces) => {
                    let pieces = Run::split(first, count, pieces);
                    this.runs.splice(this.next..=this.next, pieces);
                    continue;
                }
            }
            this.next += 1;
        }
        Poll::Ready(match this.error.take() {
            None => Ok(this.written),
            Some(error) => {
                for run in &mut this.runs {
                    if run.batch.batch.failure().is_some() {
                        run.batch.tell(run.count);
                    }
                }
                Err(error)
            }
        })
    }
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Deliveries({} records)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Certainty, ErrorKind};

    fn poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        match Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    fn batch() -> Arc<BatchDone> {
        BatchDone::new(TopicPartition::new("t", 2))
    }

    const WRITTEN: Outcome = Outcome::Written {
        base_offset: Some(100),
        append_time: None,
    };

    #[test]
    fn an_impossible_offset_does_no_harm() {
        let batch = batch();
        batch.complete(Outcome::Written {
            base_offset: Some(i64::MAX),
            append_time: None,
        });
        let metadata = poll(&mut batch.delivery(1, 5)).unwrap().unwrap();
        assert_eq!(metadata.offset, Some(i64::MAX));
    }

    #[tokio::test]
    async fn a_delivery_polled_early_is_woken() {
        let batch = batch();
        let delivery = batch.delivery(3, 77);
        let (metadata, ()) = tokio::join!(delivery, async { batch.complete(WRITTEN) });
        let metadata = metadata.unwrap();
        assert_eq!(metadata.offset, Some(103));
        assert_eq!(metadata.timestamp.as_millis(), 77);
        assert_eq!((&*metadata.topic, metadata.partition), ("t", 2));
    }

    #[test]
    fn only_early_polls_keep_wakers_and_drops_give_them_up() {
        let batch = batch();
        let mut polled = batch.delivery(0, 0);
        let untouched = batch.delivery(1, 0);
        assert!(poll(&mut polled).is_none() && poll(&mut polled).is_none());
        assert_eq!(batch.waits().wakers.len(), 1);
        drop((polled, untouched));
        assert!(batch.waits().wakers.iter().all(Option::is_none));
        batch.complete(WRITTEN);
        assert_eq!(Arc::strong_count(&batch), 1);
    }

    #[derive(Default)]
    struct Waited(std::sync::atomic::AtomicUsize);

    impl Awaited for Waited {
        fn awaited(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_slot_hears_of_the_first_wait_for_an_open_batch() {
        let waited = std::sync::Arc::new(Waited::default());
        let open = |slot: &std::sync::Arc<Waited>| {
            BatchDone::open(
                TopicPartition::new("t", 2),
                Some(std::sync::Arc::clone(slot) as Home),
            )
        };
        let told = || waited.0.swap(0, Ordering::Relaxed);
        let batch = open(&waited);
        let (mut one, mut other) = (batch.delivery(0, 0), batch.delivery(1, 0));
        assert_eq!(told(), 0);
        assert!(poll(&mut one).is_none() && poll(&mut one).is_none() && poll(&mut other).is_none());
        assert_eq!(told(), 1);
        // Many are waited for one after the other, and all are told at once.
        let (first, second, sealed) = (open(&waited), open(&waited), open(&waited));
        sealed.seal();
        let mut all = Deliveries::of(&[(&first, 1), (&second, 2), (&sealed, 1)]);
        assert!(poll(&mut all).is_none() && poll(&mut all).is_none());
        assert_eq!(told(), 2);
        assert!(poll(&mut sealed.delivery(0, 0)).is_none());
        assert_eq!(told(), 0);
        assert_eq!(std::sync::Arc::strong_count(&waited), 1, "it is let go of");
    }

    #[test]
    fn the_append_time_wins_and_the_first_end_counts() {
        let batch = batch();
        batch.complete(Outcome::Written {
            base_offset: None,
            append_time: Some(5),
        });
        let error = Error::new(ErrorKind::Timeout, "late").with_certainty(Certainty::NotSent);
        batch.complete(Outcome::Failed(error));
        let metadata = poll(&mut batch.delivery(1, 9)).unwrap().unwrap();
        assert_eq!((metadata.offset, metadata.timestamp.as_millis()), (None, 5));
    }

    #[test]
    fn records_of_a_split_batch_follow_their_piece() {
        let (whole, left, right) = (batch(), batch(), batch());
        let mut early = whole.delivery(2, 0);
        assert!(poll(&mut early).is_none());
        whole.complete(Outcome::Split(vec![
            (0, Arc::clone(&left)),
            (2, Arc::clone(&right)),
        ]));
        assert!(poll(&mut early).is_none());
        right.complete(WRITTEN);
        assert_eq!(poll(&mut early).unwrap().unwrap().offset, Some(100));
        left.complete(Outcome::Failed(Error::new(ErrorKind::RecordTooLarge, "x")));
        assert!(poll(&mut whole.delivery(1, 0)).unwrap().is_err());
    }

    #[test]
    fn many_deliveries_end_together_with_the_first_error() {
        let (good, bad) = (batch(), batch());
        let mut all = Accepted::default();
        all.add(2, &good, 0);
        all.add(2, &good, 1);
        all.push(&bad.delivery(0, 0));
        let mut all = all.into_deliveries();
        assert_eq!(all.len(), 3);
        good.complete(WRITTEN);
        assert!(poll(&mut all).is_none());
        bad.complete(Outcome::Failed(Error::new(ErrorKind::Timeout, "late")));
        assert_eq!(
            poll(&mut all).unwrap().unwrap_err().kind(),
            ErrorKind::Timeout
        );
    }

    #[test]
    fn records_in_turn_over_partitions_are_one_run_per_batch() {
        let batches: Vec<_> = (0..6)
            .map(|partition| BatchDone::new(TopicPartition::new("t", partition)))
            .collect();
        let mut all = Accepted::default();
        for index in 0..100 {
            for (partition, batch) in (0..).zip(&batches) {
                all.add(partition, batch, index);
            }
        }
        // Somebody else's record came between.
        all.add(0, &batches[0], 101);
        // Another batch of the same partition.
        let next = BatchDone::new(TopicPartition::new("t", 0));
        all.add(0, &next, 0);
        all.add(0, &next, 1);
        let all = all.into_deliveries();
        assert_eq!((all.runs.len(), all.len()), (8, 603));
    }

    #[test]
    fn many_deliveries_follow_all_pieces_of_a_split_batch() {
        // Pieces of two records each; the deliveries are of records 1 to 4.
        for failing in 0..4 {
            let whole = batch();
            let mut all = Accepted::default();
            for index in 1..5 {
                all.add(2, &whole, index);
            }
            let mut all = all.into_deliveries();
            assert!(poll(&mut all).is_none());
            let pieces: Vec<_> = (0..4).map(|piece| (piece * 2, batch())).collect();
            whole.complete(Outcome::Split(pieces.clone()));
            assert!(poll(&mut all).is_none());
            assert_eq!(all.len(), 4);
            for (number, (_, piece)) in (0..).zip(&pieces) {
                piece.complete(match number == failing {
                    true => Outcome::Failed(Error::new(ErrorKind::Timeout, "late")),
                    false => WRITTEN,
                });
            }
            let ended = poll(&mut all).unwrap();
            // Records 6 and 7 are not among them.
            assert_eq!(ended.ok(), (failing == 3).then_some(4), "piece {failing}");
        }
    }
}
