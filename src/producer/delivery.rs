//! What becomes of a record after it was accepted.
//!
//! All records of a batch share one cell; a [`Delivery`] is a reference to it and an index. Nothing is allocated per
//! record, and a waker is kept only for a delivery that is polled before its batch is done.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::{Error, Result};
use crate::types::{Timestamp, TopicPartition};

/// Where a record was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordMetadata {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The record's offset; `None` if the broker did not say: with `acks=0`, or when it only knew that the record had
    /// been written before.
    pub offset: Option<i64>,
    /// The record's timestamp: that of the append where the topic has `message.timestamp.type=LogAppendTime`.
    pub timestamp: Timestamp,
}

/// The outcome of a record that was accepted: a future of its [`RecordMetadata`].
///
/// It is optional to await it: the record is sent and retried all the same, and dropping a delivery only gives up the
/// observation. Every delivery ends by `delivery.timeout.ms`, and a failed one says by
/// [`Error::certainty`] whether the record may have been written.
///
/// # Cancel safety
///
/// Awaiting `&mut delivery` and dropping that future loses nothing.
#[must_use = "errors of the delivery are seen only by awaiting it; drop it explicitly if they do not matter"]
pub struct Delivery {
    batch: Arc<BatchDone>,
    index: u32,
    timestamp: i64,
    /// Where the waker is kept, if it is.
    place: Option<usize>,
}

/// The outcome of many records: ends when all of them have ended, with how many were written or the first error.
///
/// # Cancel safety
///
/// As for [`Delivery`].
#[must_use = "errors of the deliveries are seen only by awaiting them; drop it explicitly if they do not matter"]
#[derive(Default)]
pub struct Deliveries {
    /// The last delivery of each batch and how many came before it in the same batch, itself included.
    batches: Vec<(Delivery, u64)>,
    next: usize,
    written: u64,
    error: Option<Error>,
}

/// The shared cell of a batch.
pub(crate) struct BatchDone {
    partition: TopicPartition,
    outcome: OnceLock<Outcome>,
    wakers: Mutex<Vec<Option<Waker>>>,
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
    pub(crate) fn new(partition: TopicPartition) -> Arc<Self> {
        Arc::new(Self {
            partition,
            outcome: OnceLock::new(),
            wakers: Mutex::default(),
        })
    }

    pub(crate) fn delivery(self: &Arc<Self>, index: u32, timestamp: i64) -> Delivery {
        Delivery {
            batch: Arc::clone(self),
            index,
            timestamp,
            place: None,
        }
    }

    pub(crate) fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// Ends the batch; only the first end counts.
    pub(crate) fn complete(&self, outcome: Outcome) {
        if self.outcome.set(outcome).is_ok() {
            let wakers = std::mem::take(&mut *self.wakers());
            for waker in wakers.into_iter().flatten() {
                waker.wake();
            }
        }
    }

    fn wakers(&self) -> MutexGuard<'_, Vec<Option<Waker>>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Delivery {
    /// The topic and partition that the record goes to.
    #[must_use]
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.batch.partition
    }

    /// The partition that the record goes to.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.batch.partition.partition
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let piece = match self.batch.outcome.get() {
                Some(Outcome::Written {
                    base_offset,
                    append_time,
                }) => {
                    let partition = &self.batch.partition;
                    return Poll::Ready(Ok(RecordMetadata {
                        topic: Arc::clone(&partition.topic),
                        partition: partition.partition,
                        offset: base_offset.map(|base| base.saturating_add(i64::from(self.index))),
                        timestamp: Timestamp::from_millis(append_time.unwrap_or(self.timestamp)),
                    }));
                }
                Some(Outcome::Failed(error)) => return Poll::Ready(Err(error.clone())),
                Some(Outcome::Split(pieces)) => {
                    let holding = pieces.iter().rev().find(|(first, _)| *first <= self.index);
                    holding.map(|(first, batch)| (*first, Arc::clone(batch)))
                }
                None => {
                    let batch = Arc::clone(&self.batch);
                    let mut wakers = batch.wakers();
                    if batch.outcome.get().is_some() {
                        continue;
                    }
                    let waker = Some(cx.waker().clone());
                    match self.place.and_then(|place| wakers.get_mut(place)) {
                        Some(place) => *place = waker,
                        None => {
                            self.place = Some(wakers.len());
                            wakers.push(waker);
                        }
                    }
                    return Poll::Pending;
                }
            };
            // The first piece starts at 0, so there always is one.
            let Some((first, batch)) = piece else {
                return Poll::Pending;
            };
            self.index -= first;
            self.batch = batch;
            self.place = None;
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(place) = self.place
            && let Some(waker) = self.batch.wakers().get_mut(place)
        {
            *waker = None;
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("partition", &self.batch.partition)
            .field("done", &self.batch.outcome.get().is_some())
            .finish_non_exhaustive()
    }
}

impl Deliveries {
    pub(crate) fn push(&mut self, delivery: Delivery) {
        if let Some((last, count)) = self.batches.last_mut()
            && Arc::ptr_eq(&last.batch, &delivery.batch)
        {
            *last = delivery;
            *count += 1;
            return;
        }
        self.batches.push((delivery, 1));
    }

    /// How many records were accepted.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.batches.iter().map(|(_, count)| count).sum()
    }

    /// Whether no record was accepted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }
}

impl Future for Deliveries {
    type Output = Result<u64>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // One after the other: all have to end anyway.
        while let Some((delivery, count)) = this.batches.get_mut(this.next) {
            match Pin::new(delivery).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(_)) => this.written += *count,
                Poll::Ready(Err(error)) => {
                    this.error.get_or_insert(error);
                }
            }
            this.next += 1;
        }
        Poll::Ready(match this.error.take() {
            None => Ok(this.written),
            Some(error) => Err(error),
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
        assert_eq!(batch.wakers().len(), 1);
        drop((polled, untouched));
        assert!(batch.wakers().iter().all(Option::is_none));
        batch.complete(WRITTEN);
        assert_eq!(Arc::strong_count(&batch), 1);
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
        let mut all = Deliveries::default();
        all.push(good.delivery(0, 0));
        all.push(good.delivery(1, 0));
        all.push(bad.delivery(0, 0));
        assert_eq!(all.len(), 3);
        good.complete(WRITTEN);
        assert!(poll(&mut all).is_none());
        bad.complete(Outcome::Failed(Error::new(ErrorKind::Timeout, "late")));
        assert_eq!(
            poll(&mut all).unwrap().unwrap_err().kind(),
            ErrorKind::Timeout
        );
    }
}
