//! The bytes that a producer may hold for records on their way (`buffer.memory`).
//!
//! Invariants: what is charged never exceeds the total; whoever waits is served strictly in the
//! order of arrival, and nobody overtakes by not waiting; a waiter that goes away passes on what it
//! was given; no wake-up is lost, since who gives back looks for waiters after adding, and who
//! waits looks for bytes after standing in line.
//!
//! The empty buffers of batches that ended are not charged. They come to an eighth of the total at
//! most.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::record::pool::BufferPool;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, PoisonError};

/// A bounded number of bytes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Budget(Arc<Inner>);

struct Inner {
    total: usize,
    /// Free bytes times two, plus one while somebody waits.
    state: AtomicUsize,
    /// Somebody who does not wait was refused bytes, and none have come back since.
    refused: AtomicBool,
    line: Mutex<Line>,
    /// Buffers that nobody uses.
    idle: BufferPool,
}

#[derive(Default)]
struct Line {
    waiters: VecDeque<Arc<Waiter>>,
    closed: bool,
}

struct Waiter {
    bytes: usize,
    state: Mutex<WaiterState>,
}

#[derive(Default)]
struct WaiterState {
    granted: bool,
    waker: Option<Waker>,
}

/// Bytes taken from a budget; they go back when this is dropped.
pub(crate) struct Charge {
    budget: Budget,
    bytes: usize,
}

/// The budget was closed while bytes were waited for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BudgetClosed;

const WAITED_FOR: usize = 1;

impl Budget {
    pub(crate) fn new(total: usize) -> Self {
        let total = total.min(usize::MAX / 2);
        Self(Arc::new(Inner {
            total,
            state: AtomicUsize::new(total * 2),
            refused: AtomicBool::new(false),
            line: Mutex::default(),
            idle: BufferPool::new(total / 8),
        }))
    }

    pub(crate) fn total(&self) -> usize {
        self.0.total
    }

    pub(crate) fn charged(&self) -> usize {
        self.0.total - self.0.state.load(Ordering::Acquire) / 2
    }

    pub(crate) fn is_waited_for(&self) -> bool {
        self.0.state.load(Ordering::Acquire) & WAITED_FOR != 0
    }

    /// Whether there are fewer bytes than somebody wants: who waits, or who was refused and may
    /// come again.
    pub(crate) fn is_short(&self) -> bool {
        self.is_waited_for() || self.0.refused.load(Ordering::Acquire)
    }

    /// Says that somebody who does not wait got no bytes. Whether nobody else was refused since
    /// bytes last came back.
    pub(crate) fn refuse(&self) -> bool {
        !self.0.refused.swap(true, Ordering::AcqRel)
    }

    /// Takes bytes if they are free and nobody waits.
    pub(crate) fn try_acquire(&self, bytes: usize) -> Option<Charge> {
        let taken = self
            .0
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
                (state & WAITED_FOR == 0 && state / 2 >= bytes).then(|| state - bytes * 2)
            });
        taken.is_ok().then(|| Charge {
            budget: self.clone(),
            bytes,
        })
    }

    /// Takes bytes, waiting in line for them. More than the total is never granted: callers check
    /// before.
    ///
    /// Cancel safe: dropped while waiting it leaves the line and holds nothing.
    pub(crate) fn acquire(&self, bytes: usize) -> Acquire {
        Acquire {
            budget: self.clone(),
            bytes,
            waiter: None,
        }
    }

    /// Sends everybody who waits away, and who comes later too.
    pub(crate) fn close(&self) {
        let mut line = self.line();
        line.closed = true;
        let waiters = std::mem::take(&mut line.waiters);
        self.0.state.fetch_and(!WAITED_FOR, Ordering::AcqRel);
        drop(line);
        for waiter in waiters {
            let waker = waiter.state().waker.take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn release(&self, bytes: usize) {
        let before = self.0.state.fetch_add(bytes * 2, Ordering::AcqRel);
        if self.0.refused.load(Ordering::Acquire) {
            self.0.refused.store(false, Ordering::Release);
        }
        if before & WAITED_FOR != 0 {
            self.serve(self.line());
        }
    }

    /// Grants bytes to the front of the line as far as they go.
    fn serve(&self, mut line: MutexGuard<'_, Line>) {
        let mut woken = Vec::new();
        while let Some(waiter) = line.waiters.front() {
            let bytes = waiter.bytes;
            let taken = self
                .0
                .state
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
                    (state / 2 >= bytes).then(|| state - bytes * 2)
                });
            if taken.is_err() {
                break;
            }
            let mut state = waiter.state();
            state.granted = true;
            woken.extend(state.waker.take());
            drop(state);
            line.waiters.pop_front();
        }
        if line.waiters.is_empty() {
            self.0.state.fetch_and(!WAITED_FOR, Ordering::AcqRel);
        }
        drop(line);
        for waker in woken {
            waker.wake();
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Budget({} of {})", self.charged(), self.0.total)
    }
}

impl Waiter {
    fn state(&self) -> MutexGuard<'_, WaiterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Charge {
    /// An empty buffer for what is charged.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        self.buffer_of(self.bytes)
    }

    /// The same for a part of what is charged.
    pub(crate) fn buffer_of(&self, bytes: usize) -> Vec<u8> {
        self.budget.0.idle.take(bytes)
    }

    /// Keeps buffers that are not needed any more for [`Charge::buffer`].
    pub(crate) fn keep(&self, buffers: impl IntoIterator<Item = Vec<u8>>) {
        self.budget.0.idle.keep(buffers);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds what another holds.
    pub(crate) fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Gives back all but `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        if let Some(excess) = self.bytes.checked_sub(bytes) {
            self.bytes = bytes;
            self.budget.release(excess);
        }
    }

    /// Passes on `bytes` of it (all, if it has less).
    pub(crate) fn split_off(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self {
            budget: self.budget.clone(),
            bytes,
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let kept = self.bytes < 300 && crate::planted("small-charges-are-kept");
        if self.bytes > 0 && !kept {
            self.budget.release(self.bytes);
        }
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Charge({})", self.bytes)
    }
}

/// See [`Budget::acquire`].
#[must_use = "nothing is taken unless this is awaited"]
pub(crate) struct Acquire {
    budget: Budget,
    bytes: usize,
    waiter: Option<Arc<Waiter>>,
}

impl Future for Acquire {
    type Output = Result<Charge, BudgetClosed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let budget = self.budget.clone();
        let waiter = match &self.waiter {
            Some(waiter) => Arc::clone(waiter),
            None => {
                if let Some(charge) = budget.try_acquire(self.bytes) {
                    return Poll::Ready(Ok(charge));
                }
                let waiter = Arc::new(Waiter {
                    bytes: self.bytes,
                    state: Mutex::default(),
                });
                let mut line = budget.line();
                if line.closed {
                    return Poll::Ready(Err(BudgetClosed));
                }
                line.waiters.push_back(Arc::clone(&waiter));
                budget.0.state.fetch_or(WAITED_FOR, Ordering::AcqRel);
                // Bytes may have come back before the flag was up.
                budget.serve(line);
                self.waiter = Some(Arc::clone(&waiter));
                waiter
            }
        };
        let line = budget.line();
        let mut state = waiter.state();
        if state.granted {
            drop((state, line));
            self.waiter = None;
            return Poll::Ready(Ok(Charge {
                budget,
                bytes: self.bytes,
            }));
        }
        if line.closed {
            drop((state, line));
            self.waiter = None;
            return Poll::Ready(Err(BudgetClosed));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else {
            return;
        };
        let mut line = self.budget.line();
        let granted = waiter.state().granted;
        if granted {
            drop(line);
            self.budget.release(self.bytes);
        } else {
            line.waiters.retain(|other| !Arc::ptr_eq(other, &waiter));
            // The next one may need less.
            self.budget.serve(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn poll<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[test]
    fn nobody_overtakes_who_waits() {
        let budget = Budget::new(10);
        let held = budget.try_acquire(8).unwrap();
        let mut large = pin!(budget.acquire(9));
        let mut small = pin!(budget.acquire(1));
        assert!(poll(large.as_mut()).is_none());
        assert!(poll(small.as_mut()).is_none(), "behind the large one");
        assert!(budget.try_acquire(1).is_none(), "behind both");
        drop(held);
        let large = poll(large.as_mut()).unwrap().unwrap();
        let small = poll(small.as_mut()).unwrap().unwrap();
        assert_eq!((large.bytes(), small.bytes(), budget.charged()), (9, 1, 10));
        drop((large, small));
        assert!(budget.try_acquire(10).is_some());
    }

    #[test]
    fn who_goes_away_passes_on() {
        let budget = Budget::new(10);
        let held = budget.try_acquire(10).unwrap();
        let mut first = Box::pin(budget.acquire(10));
        let mut second = Box::pin(budget.acquire(5));
        let mut third = Box::pin(budget.acquire(5));
        assert!(poll(first.as_mut()).is_none());
        assert!(poll(second.as_mut()).is_none());
        assert!(poll(third.as_mut()).is_none());
        drop(held); // granted to the first, which never looks
        drop(first);
        drop(second);
        assert_eq!(poll(third.as_mut()).unwrap().unwrap().bytes(), 5);
        assert_eq!(budget.charged(), 0);
    }

    #[test]
    fn bytes_are_short_from_a_refusal_until_some_come_back() {
        let budget = Budget::new(10);
        let held = budget.try_acquire(8).unwrap();
        assert!(budget.try_acquire(3).is_none() && !budget.is_short());
        assert!(budget.refuse() && !budget.refuse());
        let more = budget.try_acquire(2).unwrap();
        assert!(budget.is_short() && !budget.is_waited_for());
        drop(more);
        assert!(!budget.is_short());
        let mut waiting = pin!(budget.acquire(3));
        assert!(poll(waiting.as_mut()).is_none() && budget.is_short());
        drop(held);
        assert!(!budget.is_short());
    }

    #[test]
    fn closing_sends_waiters_away() {
        let budget = Budget::new(4);
        let held = budget.try_acquire(4).unwrap();
        let mut waiting = pin!(budget.acquire(1));
        assert!(poll(waiting.as_mut()).is_none());
        budget.close();
        assert_eq!(poll(waiting.as_mut()).unwrap().err(), Some(BudgetClosed));
        let mut late = pin!(budget.acquire(1));
        assert_eq!(poll(late.as_mut()).unwrap().err(), Some(BudgetClosed));
        drop(held);
        assert_eq!(budget.charged(), 0);
    }

    #[test]
    fn random_use_never_exceeds_the_total_nor_forgets_a_waiter() {
        for seed in 0..500 {
            let mut rng = StdRng::seed_from_u64(seed);
            let budget = Budget::new(100);
            let mut held: Vec<Charge> = Vec::new();
            let mut waiting: VecDeque<Pin<Box<Acquire>>> = VecDeque::new();
            for _ in 0..200 {
                match rng.random_range(0..5) {
                    0 => held.extend(budget.try_acquire(rng.random_range(1..60))),
                    1 => waiting.push_back(Box::pin(budget.acquire(rng.random_range(1..100)))),
                    2 if !held.is_empty() => {
                        let index = rng.random_range(0..held.len());
                        held.swap_remove(index);
                    }
                    3 if !waiting.is_empty() => {
                        let index = rng.random_range(0..waiting.len());
                        waiting.remove(index);
                    }
                    _ => waiting.retain_mut(|waiter| match poll(waiter.as_mut()) {
                        Some(charge) => {
                            held.push(charge.unwrap());
                            false
                        }
                        None => true,
                    }),
                }
                assert!(held.iter().map(Charge::bytes).sum::<usize>() <= 100);
            }
            // With everything given back, all get their turn.
            while !waiting.is_empty() {
                held.clear();
                let before = waiting.len();
                waiting.retain_mut(|waiter| poll(waiter.as_mut()).is_none());
                assert!(waiting.len() < before, "seed {seed}: nobody was served");
            }
            held.clear();
            assert_eq!(budget.charged(), 0);
            assert!(!budget.is_waited_for());
        }
    }
}
