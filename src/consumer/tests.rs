//! The consumer against scripted brokers, on a paused clock.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages as kp;
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;

use super::test_brokers::{self, SECOND, coordinator, fetched, metadata, offset};
use super::*;
use crate::cluster::Cluster;
use crate::config::consumer::ConsumerConfig;
use crate::net::scripted::{Far, all_committed, body, nothing_committed};
use crate::record::{BatchWriter, CodecPool, Compression, ProducerStamp};
use crate::types::{OffsetAndMetadata, TopicPartition};

/// Brokers `one`, which leads the partition `t-0` and coordinates groups, and `two`, a follower.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Says>>);

#[derive(Default)]
struct Says {
    /// The partition is empty, and `one` names `two` to read it from; else it has one record.
    empty: bool,
    /// Hosts in the order in which they were asked for records.
    fetched: Vec<String>,
    /// Answers about offsets say nothing about any partition.
    terse: bool,
    /// Offsets as they were committed.
    committed: Vec<i64>,
}

impl Script {
    fn start(&self) -> Cluster {
        let script = self.clone();
        test_brokers::start(move |host, far| script.clone().broker(host, far))
    }

    fn says(&self) -> MutexGuard<'_, Says> {
        self.0.lock().unwrap()
    }

    async fn broker(self, host: String, mut far: Far) {
        far.shake_hands().await;
        while let Some(asked) = far.asked().await {
            match asked.key {
                1 => {
                    let first = {
                        let mut says = self.says();
                        says.fetched.push(host.clone());
                        !says.empty && says.fetched.len() == 1
                    };
                    let partition = match first {
                        true => PartitionData::default()
                            .with_high_watermark(1)
                            .with_preferred_read_replica((-1).into())
                            .with_records(Some(one_record())),
                        false => {
                            tokio::time::sleep(SECOND / 2).await;
                            let named = self.says().empty && host == "one";
                            let follower = if named { 2 } else { -1 };
                            PartitionData::default().with_preferred_read_replica(follower.into())
                        }
                    };
                    far.answer(&asked, &fetched(vec![partition])).await;
                }
                2 => far.answer(&asked, &offset(1, 0)).await,
                3 => far.answer(&asked, &metadata(&["one", "two"], 1)).await,
                8 => {
                    let request: kp::OffsetCommitRequest = body(&asked);
                    let offset = request.topics[0].partitions[0].committed_offset;
                    self.says().committed.push(offset);
                    let response = match self.says().terse {
                        true => kp::OffsetCommitResponse::default(),
                        false => all_committed(&request),
                    };
                    far.answer(&asked, &response).await;
                }
                9 => {
                    let response = match self.says().terse {
                        true => kp::OffsetFetchResponse::default()
                            .with_groups(vec![OffsetFetchResponseGroup::default()]),
                        false => nothing_committed(&asked),
                    };
                    far.answer(&asked, &response).await;
                }
                10 => far.answer(&asked, &coordinator()).await,
                // COORDINATOR_LOAD_IN_PROGRESS: nobody gets in.
                68 => {
                    let response = kp::ConsumerGroupHeartbeatResponse::default();
                    far.answer(&asked, &response.with_error_code(14)).await;
                }
                other => panic!("api {other}"),
            }
        }
    }
}

fn one_record() -> Bytes {
    let mut writer = BatchWriter::new(100);
    writer.append(0, None, Some(b"x"), &[]).unwrap();
    let sealed = writer.seal(Compression::None, &CodecPool::new(1));
    sealed.unwrap().stamp(ProducerStamp::NONE)
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_the_leader_names_is_read_from_at_once() {
    let script = Script::default();
    script.says().empty = true;
    let builder = ConsumerBuilder::new(script.start(), ConsumerConfig::default());
    let assigned = [TopicPartition::new("t", 0)];
    let mut consumer = builder.assign(assigned).build().unwrap();
    let batches = consumer.poll_timeout(3 * SECOND).await.unwrap();
    assert!(batches.is_some_and(|batches| batches.is_empty()));
    let fetched = script.says().fetched.clone();
    assert_eq!(fetched[..3], ["one", "two", "two"], "{fetched:?}");
}

#[tokio::test(start_paused = true)]
async fn a_time_without_limit_is_taken() {
    let cluster = Script::default().start();
    let builder = ConsumerBuilder::new(cluster, ConsumerConfig::default());
    let assigned = [TopicPartition::new("t", 0)];
    let mut consumer = builder.assign(assigned).build().unwrap();
    consumer.poll_timeout(SECOND).await.unwrap();
    consumer.close_timeout(Duration::MAX).await.unwrap();
}

/// A consumer of `t-0` with a group for its offsets, that was given the one record there.
async fn given_one(script: &Script) -> Consumer {
    let builder = ConsumerBuilder::new(script.start(), ConsumerConfig::default());
    let assigned = [TopicPartition::new("t", 0)];
    let builder = builder.group_id("g").assign(assigned);
    let mut consumer = builder.offset_reset(OffsetReset::Earliest).build().unwrap();
    let batches = consumer.poll_timeout(3 * SECOND).await.unwrap().unwrap();
    assert_eq!(batches.record_count(), 1);
    consumer
}

#[tokio::test(start_paused = true)]
async fn consumers_that_are_closed_or_dropped_commit_what_is_finished() {
    let script = Script::default();
    given_one(&script)
        .await
        .close_timeout(3 * SECOND)
        .await
        .unwrap();
    assert_eq!(script.says().committed, [0], "where it began");

    let script = Script::default();
    let mut consumer = given_one(&script).await;
    consumer.finish();
    consumer.close_timeout(3 * SECOND).await.unwrap();
    assert_eq!(script.says().committed, [1]);

    let script = Script::default();
    let consumer = given_one(&script).await;
    let tasks = consumer.shared.tasks.clone();
    // As an error or a panic while the record is processed does.
    drop(consumer);
    tasks.idle().await;
    assert_eq!(script.says().committed, [0], "where it began");

    let script = Script::default();
    let mut consumer = given_one(&script).await;
    let tasks = consumer.shared.tasks.clone();
    consumer.poll_timeout(SECOND).await.unwrap();
    drop(consumer);
    tasks.idle().await;
    assert_eq!(script.says().committed, [1]);
}

#[tokio::test(start_paused = true)]
async fn who_is_not_a_member_does_not_commit_in_the_name_of_the_group() {
    let script = Script::default();
    let builder = ConsumerBuilder::new(script.start(), ConsumerConfig::default());
    let mut consumer = builder.group_id("g").subscribe(["t"]).build().unwrap();
    consumer.poll_timeout(SECOND).await.unwrap();
    let offset = (TopicPartition::new("t", 0), OffsetAndMetadata::new(5));
    let error = consumer.commit_offsets([offset]).await.unwrap_err();
    assert_eq!(error.code().map(|code| code.get()), Some(25), "{error}");
    assert_eq!(script.says().committed, [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_an_answer_about_offsets_leaves_out_is_not_known() {
    let script = Script::default();
    let mut consumer = given_one(&script).await;
    script.says().terse = true;
    let error = consumer.commit().await.unwrap_err();
    assert_eq!(
        error.topic_partition(),
        Some(&TopicPartition::new("t", 0)),
        "{error}"
    );

    // Nor does a partition start anew because nothing was said about its commit.
    let script = Script::default();
    script.says().terse = true;
    let builder = ConsumerBuilder::new(script.start(), ConsumerConfig::default());
    let builder = builder
        .group_id("g")
        .assign([TopicPartition::new("t", 0)])
        .offset_reset(OffsetReset::Earliest);
    let mut consumer = builder.build().unwrap();
    let batches = consumer.poll_timeout(10 * SECOND).await.unwrap().unwrap();
    assert!(batches.is_empty());
    assert_eq!(consumer.position(&TopicPartition::new("t", 0)), None);
    script.says().terse = false;
    let batches = consumer.poll_timeout(10 * SECOND).await.unwrap().unwrap();
    assert_eq!(batches.record_count(), 1);
}
