//! `Budget`: who waits for memory gets it, in the order of arrival.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use shuttle::future::block_on;
use shuttle::thread;

use crate::budget::{Acquire, Budget, BudgetClosed, Charge};

fn poll_once(acquire: std::pin::Pin<&mut Acquire>) -> Option<Result<Charge, BudgetClosed>> {
    match acquire.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(charge) => Some(charge),
        Poll::Pending => None,
    }
}

/// Several want more than there is, with and without waiting.
pub fn all_get_it() {
    let budget = Budget::new(10);
    let takers = [7, 6, 3].map(|bytes| {
        let budget = budget.clone();
        thread::spawn(move || {
            let charge = match budget.try_acquire(bytes) {
                Some(charge) => charge,
                None => block_on(budget.acquire(bytes)).unwrap(),
            };
            assert!(budget.charged() >= bytes && budget.charged() <= 10);
            drop(charge);
        })
    });
    for taker in takers {
        taker.join().unwrap();
    }
    assert_eq!((budget.charged(), budget.is_waited_for()), (0, false));
    assert!(budget.try_acquire(10).is_some());
}

/// One who does not wait comes while those in line are served.
pub fn nobody_overtakes() {
    let budget = Budget::new(10);
    let held = budget.try_acquire(10).unwrap();
    let mut first = pin!(budget.acquire(9));
    let mut second = pin!(budget.acquire(1));
    assert!(poll_once(first.as_mut()).is_none());
    assert!(poll_once(second.as_mut()).is_none());
    let impatient = {
        let budget = budget.clone();
        thread::spawn(move || budget.try_acquire(1).is_some())
    };
    let releasing = thread::spawn(move || drop(held));
    let first = block_on(first).unwrap();
    let second = block_on(second).unwrap();
    assert!(!impatient.join().unwrap());
    releasing.join().unwrap();
    drop((first, second));
    assert_eq!(budget.charged(), 0);
}

/// One in line goes away, before or after it was given its bytes.
pub fn who_goes_away_passes_on() {
    let budget = Budget::new(10);
    let held = budget.try_acquire(10).unwrap();
    let mut leaving = Box::pin(budget.acquire(8));
    assert!(poll_once(leaving.as_mut()).is_none());
    let staying = {
        let budget = budget.clone();
        thread::spawn(move || drop(block_on(budget.acquire(5)).unwrap()))
    };
    let releasing = thread::spawn(move || drop(held));
    drop(leaving);
    staying.join().unwrap();
    releasing.join().unwrap();
    assert_eq!((budget.charged(), budget.is_waited_for()), (0, false));
}

/// The producer ends while some wait, and more come.
pub fn closing_wakes_all() {
    let budget = Budget::new(10);
    let held = budget.try_acquire(10).unwrap();
    let waiting = [4, 10].map(|bytes| {
        let budget = budget.clone();
        thread::spawn(move || block_on(budget.acquire(bytes)).is_err())
    });
    budget.close();
    for waiting in waiting {
        assert!(waiting.join().unwrap());
    }
    drop(held);
    assert_eq!(budget.charged(), 0);
}
