//! Records one by one.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::batch::{Batches, PartitionBatch, corrupt};
use super::{Consumer, poll};
use crate::error::Result;
use crate::record::{OwnedRecord, RecordCursor};

/// The records of a [`Consumer`], one by one; see [`Consumer::stream`].
pub struct RecordStream<'a> {
    consumer: &'a mut Consumer,
    #[allow(clippy::type_complexity)]
    waiting: Option<Pin<Box<dyn Future<Output = Result<Option<Batches>>> + Send>>>,
    batches: VecDeque<PartitionBatch>,
    /// Where in the front batch: its segment, the place in it, the records left of it.
    at: Option<(usize, RecordCursor, usize)>,
    /// The offset after the last record given out of the front batch.
    given: Option<i64>,
}

impl<'a> RecordStream<'a> {
    pub(super) fn new(consumer: &'a mut Consumer) -> Self {
        Self {
            consumer,
            waiting: None,
            batches: VecDeque::new(),
            at: None,
            given: None,
        }
    }

    /// The next record that is here.
    fn next_here(&mut self) -> Option<Result<OwnedRecord>> {
        loop {
            let front = self.batches.front()?;
            let (index, cursor, left) = match self.at {
                Some(at) => at,
                None => {
                    let first = front.segments.first()?;
                    (0, first.from, first.count)
                }
            };
            let Some(segment) = front.segments.get(index) else {
                self.batches.pop_front();
                (self.at, self.given) = (None, None);
                continue;
            };
            let mut records = segment.batch.records_from(cursor);
            let record = if left > 0 { records.next() } else { None };
            match record {
                Some(Ok(record)) => {
                    self.at = Some((index, records.cursor(), left - 1));
                    self.given = Some(record.offset() + 1);
                    return Some(Ok(record.to_owned()));
                }
                other => {
                    let next = front.segments.get(index + 1);
                    let from = next.map_or_else(RecordCursor::default, |next| next.from);
                    self.at = Some((index + 1, from, next.map_or(0, |next| next.count)));
                    if let Some(Err(error)) = other {
                        return Some(Err(corrupt(&front.tp, &error)));
                    }
                }
            }
        }
    }
}

impl Stream for RecordStream<'_> {
    type Item = Result<OwnedRecord>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(record) = this.next_here() {
                return Poll::Ready(Some(record));
            }
            let waiting = this.waiting.get_or_insert_with(|| {
                let shared = Arc::clone(&this.consumer.shared);
                Box::pin(async move { poll(&shared).await })
            });
            let outcome = ready!(waiting.as_mut().poll(cx));
            this.waiting = None;
            match outcome {
                Ok(Some(batches)) => this.batches = batches.parts.into(),
                Ok(None) => return Poll::Ready(None),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

impl Drop for RecordStream<'_> {
    /// What was not given out goes back.
    fn drop(&mut self) {
        let mut inner = self.consumer.shared.lock();
        // From the front: the first batch of a partition takes those behind it along.
        let mut given = self.given;
        for batch in self.batches.drain(..) {
            let first = batch.segments.first();
            let first = first
                .and_then(|segment| segment.batch.records_from(segment.from).next()?.ok())
                .map(|record| record.offset());
            if let Some(offset) = given.take().or(first) {
                inner.give_back(&batch.tp, batch.epoch, offset);
            }
        }
        drop(inner);
        self.consumer.shared.fetchable.notify_waiters();
    }
}

impl fmt::Debug for RecordStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordStream").finish_non_exhaustive()
    }
}
