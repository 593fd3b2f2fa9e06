//! `BatchDone`: whoever awaits a record hears of its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use shuttle::future::block_on;
use shuttle::thread;

use crate::delivery::{BatchDone, Delivery, Outcome};
use crate::types::TopicPartition;

const WRITTEN: Outcome = Outcome::Written {
    base_offset: Some(100),
    append_time: None,
};

fn batch() -> Arc<BatchDone> {
    BatchDone::new(TopicPartition::new("t", 0))
}

fn poll_once(delivery: &mut Delivery) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    matches!(Pin::new(delivery).poll(&mut context), Poll::Ready(_))
}

fn awaits(delivery: Delivery, offset: i64) -> thread::JoinHandle<()> {
    thread::spawn(move || assert_eq!(block_on(delivery).unwrap().offset, Some(offset)))
}

/// The batch ends while two records of it begin to be awaited.
pub fn all_are_woken() {
    let batch = batch();
    let waiting = [0, 1].map(|index| awaits(batch.delivery(index, 0), 100 + i64::from(index)));
    batch.complete(WRITTEN);
    for waiting in waiting {
        waiting.join().unwrap();
    }
}

/// A delivery that was polled is dropped while the batch ends.
pub fn a_drop_leaves_the_others() {
    let batch = batch();
    let mut dropped = batch.delivery(0, 0);
    let _ = poll_once(&mut dropped);
    let waiting = awaits(batch.delivery(1, 0), 101);
    let dropping = thread::spawn(move || drop(dropped));
    batch.complete(WRITTEN);
    waiting.join().unwrap();
    dropping.join().unwrap();
}

/// Polled by one task and then by another: the last one is woken.
pub fn a_moved_delivery_is_woken() {
    let batch = batch();
    let mut delivery = batch.delivery(3, 0);
    let ending = {
        let batch = Arc::clone(&batch);
        thread::spawn(move || batch.complete(WRITTEN))
    };
    let _ = poll_once(&mut delivery);
    awaits(delivery, 103).join().unwrap();
    ending.join().unwrap();
}

/// The batch is split, and its pieces end, while records are awaited.
pub fn pieces_wake_theirs() {
    let (whole, left, right) = (batch(), batch(), batch());
    let waiting =
        [(1, 101), (2, 100)].map(|(index, offset)| awaits(whole.delivery(index, 0), offset));
    let pieces = vec![(0, Arc::clone(&left)), (2, Arc::clone(&right))];
    whole.complete(Outcome::Split(pieces));
    let ending = thread::spawn(move || right.complete(WRITTEN));
    left.complete(WRITTEN);
    for waiting in waiting {
        waiting.join().unwrap();
    }
    ending.join().unwrap();
}
