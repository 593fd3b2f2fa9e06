//! Calls given up at every await, and the end, against scripted brokers on a paused clock.

use std::sync::{Arc, Mutex};
use std::task::Poll;

use kafka_protocol::messages as kp;
use kafka_protocol::messages::fetch_response::PartitionData;

use super::test_brokers::{self, SECOND, coordinator, fetched, metadata, offset};
use std::future::Future;

use super::*;
use crate::cluster::Cluster;
use crate::config::consumer::ConsumerConfig;
use crate::net::scripted::{Far, all_committed, body, nothing_committed};
use crate::types::{OffsetAndMetadata, Timestamp, TopicPartition};
use std::pin::pin;

/// Brokers `one`, which leads the empty partition `t-0` and names a follower to read it from, and
/// `two`, that follower.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Seen>>);

/// What the brokers were asked besides, and what they say.
#[derive(Default)]
struct Seen {
    /// The end of the log.
    end: i64,
    commits: usize,
    /// Fetch sessions that were ended.
    ended: Vec<(String, i32)>,
}

impl Script {
    fn start(&self) -> Cluster {
        let script = self.clone();
        test_brokers::start(move |host, far| script.clone().broker(host, far))
    }

    async fn broker(self, host: String, mut far: Far) {
        far.shake_hands().await;
        while let Some(asked) = far.asked().await {
            match asked.key {
                1 => {
                    let request: kp::FetchRequest = body(&asked);
                    if request.session_epoch == -1 && request.session_id != 0 {
                        let mut seen = self.0.lock().unwrap();
                        seen.ended.push((host.clone(), request.session_id));
                        continue;
                    }
                    tokio::time::sleep(SECOND / 2).await;
                    let follower = if host == "one" { 2 } else { -1 };
                    let end = self.0.lock().unwrap().end;
                    far.answer(&asked, &empty(follower, end)).await;
                }
                2 => {
                    let end = self.0.lock().unwrap().end;
                    far.answer(&asked, &offset(1, end)).await;
                }
                8 => {
                    self.0.lock().unwrap().commits += 1;
                    far.answer(&asked, &all_committed(&body(&asked))).await;
                }
                9 => {
                    far.answer(&asked, &nothing_committed(&asked)).await;
                }
                10 => far.answer(&asked, &coordinator()).await,
                3 => far.answer(&asked, &metadata(&["one", "two"], 1)).await,
                other => panic!("api {other}"),
            }
        }
    }
}

fn empty(follower: i32, end: i64) -> kp::FetchResponse {
    let partition = PartitionData::default()
        .with_preferred_read_replica(follower.into())
        .with_high_watermark(end)
        .with_last_stable_offset(end);
    fetched(vec![partition]).with_session_id(9)
}

#[tokio::test(start_paused = true)]
async fn closing_ends_the_fetch_sessions() {
    let script = Script::default();
    let cluster = script.start();
    let builder = ConsumerBuilder::new(cluster.clone(), ConsumerConfig::default());
    let assigned = [TopicPartition::new("t", 0)];
    let mut consumer = builder.assign(assigned).build().unwrap();
    consumer.poll_timeout(3 * SECOND).await.unwrap();
    consumer.close_timeout(SECOND).await.unwrap();
    tokio::time::sleep(SECOND).await;
    let mut ended = script.0.lock().unwrap().ended.clone();
    ended.sort();
    assert_eq!(ended, [("one".to_owned(), 9), ("two".to_owned(), 9)]);
}

/// Polls the future so often and gives it up then, unless it was ready before.
async fn give_up_after<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

/// A consumer of `t-0` with a group, at offset 0 of a log that ends at 5.
async fn behind(script: &Script) -> (Cluster, Consumer) {
    let config = ConsumerConfig {
        group_id: Some("g".to_owned()),
        auto_commit: false,
        ..ConsumerConfig::default()
    };
    let cluster = script.start();
    let builder = ConsumerBuilder::new(cluster.clone(), config);
    let assigned = [TopicPartition::new("t", 0)];
    let mut consumer = builder.assign(assigned).build().unwrap();
    // Nothing is committed, and the log ends at 0.
    consumer.poll_timeout(SECOND).await.unwrap();
    assert_eq!(consumer.position(&TopicPartition::new("t", 0)), Some(0));
    script.0.lock().unwrap().end = 5;
    // The end that the last fetch told is not the latest any more.
    tokio::time::sleep(SECOND / 10).await;
    (cluster, consumer)
}

#[tokio::test(start_paused = true)]
async fn questions_given_up_at_any_await_leave_the_consumer_as_it_was() {
    let script = Script::default();
    let tp = TopicPartition::new("t", 0);
    for question in 0..6 {
        let mut given_up = 0;
        for polls in 1.. {
            // Nothing is connected yet for the question: as many awaits as there can be.
            let (_cluster, consumer) = behind(&script).await;
            let asking = async {
                match question {
                    0 => consumer.fetch_lag().await.map(|lag| lag.records()),
                    1 => consumer
                        .end_offsets([&tp])
                        .await
                        .map(|ends| ends[&tp] as u64),
                    2 => consumer
                        .committed([&tp])
                        .await
                        .map(|found| 5 + found.len() as u64),
                    3 => consumer
                        .beginning_offsets([&tp])
                        .await
                        .map(|starts| starts[&tp] as u64),
                    4 => consumer
                        .offsets_for_times([(tp.clone(), Timestamp::from_millis(1))])
                        .await
                        .map(|found| found[&tp].0 as u64),
                    _ => {
                        let mut lags = consumer.watch_lag(SECOND / 1000);
                        let lag = std::future::poll_fn(|cx| {
                            futures_core::Stream::poll_next(std::pin::Pin::new(&mut lags), cx)
                        });
                        Ok(lag.await.map_or(0, |lag| lag.records()))
                    }
                }
            };
            let outcome = give_up_after(asking, polls).await;
            assert_eq!(consumer.position(&tp), Some(0));
            assert_eq!(consumer.fetch_lag().await.unwrap().records(), 5);
            assert_eq!(consumer.lag().partitions()[0].time, TimeLag::Unknown);
            assert!(consumer.committed([&tp]).await.unwrap().is_empty());
            consumer.close_timeout(SECOND).await.unwrap();
            script.0.lock().unwrap().end = 0;
            if let Some(outcome) = outcome {
                assert_eq!(outcome.unwrap(), 5);
                break;
            }
            given_up += 1;
        }
        assert!(given_up > 0, "question {question}");
    }
}

#[tokio::test(start_paused = true)]
async fn commits_and_closing_given_up_at_any_await_are_done_all_the_same() {
    let tp = TopicPartition::new("t", 0);
    for closing in [false, true] {
        for polls in 1.. {
            let script = Script::default();
            let (_cluster, consumer) = behind(&script).await;
            let offsets = [(tp.clone(), OffsetAndMetadata::new(3))];
            let tasks = consumer.shared.tasks.clone();
            let done = if closing {
                let done = give_up_after(consumer.close_timeout(SECOND), polls).await;
                done.map(|outcome| outcome.unwrap()).is_some()
            } else {
                let done = give_up_after(consumer.commit_offsets(offsets), polls).await;
                tokio::time::sleep(SECOND).await;
                assert_eq!(script.0.lock().unwrap().commits, 1);
                let again = [(tp.clone(), OffsetAndMetadata::new(4))];
                consumer.commit_offsets(again).await.unwrap();
                assert_eq!(script.0.lock().unwrap().commits, 2);
                drop(consumer);
                done.map(|outcome| outcome.unwrap()).is_some()
            };
            tokio::time::sleep(6 * SECOND).await;
            assert_eq!(tasks.running(), 0);
            if done {
                assert!(polls > 1);
                break;
            }
        }
    }
}
