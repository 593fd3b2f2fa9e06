//! Knows which batches were there when a flush was asked for.
//!
//! Batches are counted by generation; a flush begins a new generation and waits until no batch of
//! the old ones is left. This costs two short locks per batch and nothing per record, whatever the
//! number of partitions.

use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The batches of one producer that have not ended.
#[derive(Clone, Default)]
pub(crate) struct Flushing(Arc<Inner>);

#[derive(Default)]
struct Inner {
    counts: Mutex<Counts>,
    ended: Notify,
}

#[derive(Default)]
struct Counts {
    /// The generation at the front of `batches`.
    first: u64,
    /// Batches per generation; the last is the present one.
    batches: VecDeque<usize>,
}

/// Counts as one batch, or several, until it is dropped.
pub(crate) struct Outstanding {
    flushing: Flushing,
    generation: u64,
    batches: usize,
}

impl Flushing {
    /// Counts one batch more.
    pub(crate) fn outstanding(&self) -> Outstanding {
        let mut counts = self.counts();
        let generation = counts.present();
        counts.add(generation);
        drop(counts);
        Outstanding {
            flushing: self.clone(),
            generation,
            batches: 1,
        }
    }

    /// How many batches have not ended.
    #[cfg(test)]
    pub(crate) fn batches(&self) -> usize {
        self.counts().batches.iter().sum()
    }

    /// Waits for the end of every batch counted before this call. Cancel safe.
    pub(crate) async fn wait(&self) {
        let last = self.counts().begin();
        loop {
            let mut ended = pin!(self.0.ended.notified());
            ended.as_mut().enable();
            if self.counts().oldest() > last {
                return;
            }
            ended.await;
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn present(&mut self) -> u64 {
        if self.batches.is_empty() {
            self.batches.push_back(0);
        }
        self.first + self.batches.len() as u64 - 1
    }

    /// Begins another generation; returns the one before.
    fn begin(&mut self) -> u64 {
        let last = self.present();
        self.batches.push_back(0);
        last
    }

    fn add(&mut self, generation: u64) {
        let index = generation.saturating_sub(self.first) as usize;
        if let Some(count) = self.batches.get_mut(index) {
            *count += 1;
        }
    }

    /// Returns whether a generation came to its end.
    fn remove(&mut self, generation: u64, batches: usize) -> bool {
        let index = generation.saturating_sub(self.first) as usize;
        if let Some(count) = self.batches.get_mut(index) {
            *count -= batches;
        }
        let before = self.first;
        self.oldest() > before
    }

    /// The oldest generation with batches, or the present one.
    fn oldest(&mut self) -> u64 {
        while self.batches.len() > 1 && self.batches.front() == Some(&0) {
            self.batches.pop_front();
            self.first += 1;
        }
        self.first
    }
}

impl Outstanding {
    /// One more, for a piece of the batch.
    pub(crate) fn piece(&self) -> Self {
        self.flushing.counts().add(self.generation);
        Self {
            flushing: self.flushing.clone(),
            generation: self.generation,
            batches: 1,
        }
    }

    /// Counts for another as well, that both end at once. One of another generation ends now.
    pub(crate) fn with(&mut self, mut other: Self) {
        if self.generation == other.generation {
            self.batches += std::mem::take(&mut other.batches);
        }
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        if self.batches == 0 {
            return;
        }
        let ended = self.flushing.counts().remove(self.generation, self.batches);
        if ended {
            self.flushing.0.ended.notify_waiters();
        }
    }
}

impl fmt::Debug for Outstanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outstanding({} of {})", self.batches, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_ready(future: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
        matches!(
            future.poll(&mut Context::from_waker(Waker::noop())),
            Poll::Ready(())
        )
    }

    #[test]
    fn a_flush_waits_for_what_was_there_and_no_longer() {
        let flushing = Flushing::default();
        let old = flushing.outstanding();
        let piece = old.piece();
        let mut first = pin!(flushing.wait());
        assert!(!is_ready(first.as_mut()));
        let new = flushing.outstanding();
        let mut second = pin!(flushing.wait());
        assert!(!is_ready(second.as_mut()));
        drop(old);
        assert!(!is_ready(first.as_mut()));
        drop(piece);
        assert!(is_ready(first.as_mut()));
        assert!(!is_ready(second.as_mut()));
        drop(new);
        assert!(is_ready(second.as_mut()));
        assert!(is_ready(pin!(flushing.wait())));
        assert_eq!(flushing.batches(), 0);
    }

    #[test]
    fn several_end_at_once_if_they_are_of_one_generation() {
        let flushing = Flushing::default();
        let mut all = flushing.outstanding();
        all.with(flushing.outstanding());
        let mut first = pin!(flushing.wait());
        assert!(!is_ready(first.as_mut()));
        let last = flushing.outstanding();
        all.with(flushing.outstanding());
        assert_eq!(flushing.batches(), 3, "the later one ended");
        drop(all);
        assert!(is_ready(first.as_mut()));
        drop(last);
        assert_eq!(flushing.batches(), 0);
    }

    #[test]
    fn a_later_generation_that_ends_first_does_not_end_an_earlier_flush() {
        let flushing = Flushing::default();
        let old = flushing.outstanding();
        let mut first = pin!(flushing.wait());
        assert!(!is_ready(first.as_mut()));
        drop(flushing.outstanding());
        assert!(!is_ready(first.as_mut()));
        drop(old);
        assert!(is_ready(first.as_mut()));
    }
}
