//! Whether an application that waits, or has stopped waiting, counts as polling
//! (`max.poll.interval.ms`). On the mock cluster and a paused clock.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt, poll};

use super::*;
use crate::clock::now;
use crate::mock::MockCluster;

const SECOND: Duration = Duration::from_secs(1);

/// A way to wait for something of a consumer.
#[derive(Clone, Copy, Debug)]
enum Way {
    Poll,
    Event,
    Records,
    Partitions,
}

const WAYS: [Way; 4] = [Way::Poll, Way::Event, Way::Records, Way::Partitions];

type Waiting<'a> = Pin<Box<dyn Stream<Item = ()> + Send + 'a>>;

impl Way {
    /// Every item is an end of a wait, which is kept from one look at the stream to the next.
    fn of(self, consumer: &mut Consumer) -> Waiting<'_> {
        match self {
            Self::Poll => Box::pin(futures::stream::unfold(consumer, async |consumer| {
                consumer.poll().await.unwrap();
                Some(((), consumer))
            })),
            Self::Event => Box::pin(futures::stream::unfold(consumer, async |consumer| {
                consumer.next_event().await.unwrap();
                Some(((), consumer))
            })),
            Self::Records => Box::pin(consumer.stream().map(|record| drop(record.unwrap()))),
            Self::Partitions => {
                let streams = consumer.split_by_partition();
                Box::pin(streams.map(|partition| drop(partition.unwrap())))
            }
        }
    }
}

async fn member() -> (MockCluster, Consumer) {
    let builder = MockCluster::builder().brokers(1).topic("t", 2);
    let mock = builder.in_memory().seed(3).start().await.unwrap();
    let builder = mock.client().consumer("g").subscribe(["t"]);
    let mut consumer = builder.max_poll_interval(SECOND).build().unwrap();
    while consumer.assignment().is_empty() {
        consumer.poll_timeout(SECOND / 10).await.unwrap();
    }
    (mock, consumer)
}

/// The number of the membership, if there is one.
fn membership(mock: &MockCluster) -> Option<u64> {
    Some(mock.group("g")?.members.first()?.membership)
}

#[tokio::test(start_paused = true)]
async fn who_keeps_a_wait_and_does_not_look_at_it_is_absent_and_comes_back() {
    for way in WAYS {
        let (mock, mut consumer) = member().await;
        let handle = consumer.handle();
        let before = membership(&mock);
        assert!(before.is_some());
        let mut waiting = way.of(&mut consumer);
        // What there is now, such as the partitions.
        while poll!(waiting.next()).is_ready() {}
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!(membership(&mock), None, "{way:?}");
        assert_eq!(handle.assignment(), []);
        let until = now() + 60 * SECOND;
        while membership(&mock).is_none() {
            assert!(now() < until, "{way:?}");
            let _ = tokio::time::timeout(SECOND / 10, waiting.next()).await;
        }
        assert_ne!(membership(&mock), before, "{way:?}");
        // Neither is it a poll to give the wait up.
        tokio::time::sleep(10 * SECOND).await;
        drop(waiting);
        tokio::time::sleep(SECOND / 2).await;
        assert_eq!(membership(&mock), None, "{way:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_without_anything_to_read_is_present() {
    for way in WAYS {
        let (mock, mut consumer) = member().await;
        let before = membership(&mock);
        {
            let mut waiting = way.of(&mut consumer);
            let for_ever = async { while waiting.next().await.is_some() {} };
            let waited = tokio::time::timeout(30 * SECOND, for_ever).await;
            waited.unwrap_err();
            assert_eq!(membership(&mock), before, "{way:?}");
            // Given up and taken up again, as by `select!`.
            for _ in 0..100 {
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(SECOND / 4) => {}
                    _ = waiting.next() => {}
                }
            }
            assert_eq!(membership(&mock), before, "{way:?}");
            // Looked at in time, but by its own clock: it does not run when it is woken.
            for _ in 0..20 {
                while poll!(waiting.next()).is_ready() {}
                tokio::time::sleep(SECOND * 9 / 10).await;
            }
            assert_eq!(membership(&mock), before, "{way:?}");
        }
    }
}
