//! The producer against a broker whose answers a test decides, on a paused clock.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize};
use std::sync::{Mutex, OnceLock};
use std::task::Poll;

use bytes::{Buf, Bytes};
use futures::FutureExt;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    InitProducerIdResponse, MetadataResponse, ProduceRequest, ProduceResponse, TopicName,
};
use kafka_protocol::protocol::{Decodable, StrBytes};

use super::*;
use crate::BatchReport;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::config::ClientConfig;
use crate::config::producer::ProducerConfig;
use crate::net::scripted::{Asked, Far, Scripted};
use crate::record::Compression;
use crate::tasks::Tasks;

/// What the broker `one` does. `two` takes no connections.
#[derive(Default)]
struct Script {
    /// The leader of every partition, as metadata has it.
    leader: AtomicU32,
    metadata_requests: AtomicUsize,
    /// How often the topics were deleted and made anew.
    made_anew: AtomicU32,
    /// Partitions beyond the first three.
    added: AtomicI32,
    /// The partition that `two` leads whatever `leader` says.
    lost_partition: AtomicI32,
    /// Producer ids given out.
    identities: AtomicU32,
    throttle_millis: AtomicU32,
    /// Answers to Produce wait while this is set.
    silent: AtomicBool,
    /// Error codes of the batches to come; then they are written.
    codes: Mutex<VecDeque<i16>>,
    /// Offsets that the next answers tell instead of the true ones.
    lies: Mutex<VecDeque<i64>>,
    /// The batches that were written, as their bytes, by topic and partition.
    written: Mutex<BTreeMap<(String, i32), Vec<Bytes>>>,
}

impl Script {
    fn batches(&self, topic: &str, partition: i32) -> Vec<Bytes> {
        let written = self.written.lock().unwrap();
        let batches = written.get(&(topic.to_owned(), partition)).cloned();
        batches.unwrap_or_default()
    }

    /// Records written.
    fn records(&self) -> u64 {
        let written = self.written.lock().unwrap();
        written.values().flatten().map(|batch| records(batch)).sum()
    }

    /// Every sequence follows the one before.
    fn assert_in_sequence(&self) {
        for (partition, batches) in &*self.written.lock().unwrap() {
            let (mut next, mut identity) = (0, &batches[0][43..53]);
            for batch in batches {
                if batch[43..53] != *identity {
                    (next, identity) = (0, &batch[43..53]);
                }
                let sequence = (&batch[53..57]).get_i32();
                assert_eq!(sequence, next, "{partition:?}");
                next += records(batch) as i32;
            }
        }
    }
}

fn records(batch: &[u8]) -> u64 {
    (&batch[57..61]).get_i32() as u64
}

const ID: u128 = 0x77;

/// A cluster of three partitions per topic.
fn cluster() -> (Cluster, Arc<Script>) {
    let (connector, mut accepting) = Scripted::new();
    connector
        .refused
        .lock()
        .unwrap()
        .push_back("two".to_owned());
    let script = Arc::new(Script {
        leader: AtomicU32::new(1),
        lost_partition: AtomicI32::new(-1),
        ..Script::default()
    });
    let broker = Arc::clone(&script);
    tokio::spawn(async move {
        while let Some((_, stream)) = accepting.recv().await {
            tokio::spawn(serve(Far { stream }, Arc::clone(&broker)));
        }
    });
    let cluster = Cluster::new(
        ClientConfig::default(),
        vec![("one".to_owned(), 9092)],
        Clock::seeded(1, 1_700_000_000_000),
        connector,
        Tasks::new().unwrap(),
    );
    (cluster, script)
}

async fn producer(
    change: impl FnOnce(ProducerBuilder) -> ProducerBuilder,
) -> (Producer, Arc<Script>) {
    let (cluster, script) = cluster();
    let builder = ProducerBuilder::new(cluster, ProducerConfig::default());
    (change(builder).build().unwrap(), script)
}

async fn serve(mut far: Far, script: Arc<Script>) {
    far.shake_hands().await;
    while let Some(mut asked) = far.asked().await {
        match asked.key {
            0 => {
                let response = produced(&mut asked, &script);
                while script.silent.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                far.answer(&asked, &response).await;
            }
            3 => {
                script.metadata_requests.fetch_add(1, Ordering::Relaxed);
                far.answer(&asked, &metadata(&script)).await;
            }
            22 => {
                let id = 7 + i64::from(script.identities.fetch_add(1, Ordering::Relaxed));
                let response = InitProducerIdResponse::default().with_producer_id(id.into());
                far.answer(&asked, &response).await;
            }
            other => panic!("request {other}"),
        }
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topics(script: &Script) -> [(&'static str, uuid::Uuid); 2] {
    let anew = 2 * u128::from(script.made_anew.load(Ordering::Relaxed));
    [("t", ID + anew), ("packed", ID + anew + 1)]
        .map(|(name, id)| (name, uuid::Uuid::from_u128(id)))
}

fn metadata(script: &Script) -> MetadataResponse {
    let leader = script.leader.load(Ordering::Relaxed) as i32;
    let lost = script.lost_partition.load(Ordering::Relaxed);
    let count = 3 + script.added.load(Ordering::Relaxed);
    let partitions = (0..count).map(|number| {
        let leader = if number == lost { 2 } else { leader };
        MetadataResponsePartition::default()
            .with_partition_index(number)
            .with_leader_id(leader.into())
            .with_leader_epoch(if leader == 1 { 2 } else { 1 })
    });
    let partitions: Vec<_> = partitions.collect();
    let topics = topics(script).map(|(name, id)| {
        MetadataResponseTopic::default()
            .with_name(Some(TopicName(text(name))))
            .with_topic_id(id)
            .with_partitions(partitions.clone())
    });
    let brokers = [(1, "one"), (2, "two")].map(|(id, host)| {
        MetadataResponseBroker::default()
            .with_node_id(id.into())
            .with_host(text(host))
            .with_port(9092)
    });
    MetadataResponse::default()
        .with_brokers(brokers.to_vec())
        .with_topics(topics.to_vec())
}

fn produced(asked: &mut Asked, script: &Script) -> ProduceResponse {
    // The rest of the header: the client's name and tags.
    let name = asked.rest.get_i16().max(0) as usize;
    asked.rest.advance(name + 1);
    let request = ProduceRequest::decode(&mut asked.rest, asked.version).unwrap();
    assert_eq!(asked.version, 13, "by topic id");
    let known = topics(script);
    let topics = request.topic_data.into_iter().map(|topic| {
        let name = known.iter().find(|(_, id)| *id == topic.topic_id);
        let partitions = topic.partition_data.into_iter().map(|partition| {
            // UNKNOWN_TOPIC_ID
            let code = match name {
                None => 100,
                Some(_) => script.codes.lock().unwrap().pop_front().unwrap_or(0),
            };
            let batch = partition.records.unwrap();
            let mut offset = -1;
            if let (0, Some((name, _))) = (code, name) {
                let mut written = script.written.lock().unwrap();
                let log = written
                    .entry(((*name).to_owned(), partition.index))
                    .or_default();
                let sent_again = log.last() == Some(&batch);
                if sent_again {
                    log.pop();
                }
                offset = log.iter().map(|batch| records(batch)).sum::<u64>() as i64;
                log.push(batch);
                offset = script.lies.lock().unwrap().pop_front().unwrap_or(offset);
            }
            PartitionProduceResponse::default()
                .with_index(partition.index)
                .with_error_code(code)
                .with_base_offset(offset)
        });
        TopicProduceResponse::default()
            .with_partition_responses(partitions.collect())
            .with_name(topic.name)
            .with_topic_id(topic.topic_id)
    });
    ProduceResponse::default()
        .with_throttle_time_ms(script.throttle_millis.load(Ordering::Relaxed) as i32)
        .with_responses(topics.collect())
}

fn to_first(value: &str) -> Record<'_> {
    Record::to("t").with_partition(0).with_value(value)
}

fn record<'a>(value: &'a [u8]) -> Record<'a> {
    Record::new().with_partition(0).with_value(value)
}

#[tokio::test(start_paused = true)]
async fn a_topic_handle_does_what_the_producer_does() {
    let (producer, script) = producer(|builder| builder).await;
    let topic = producer.topic("t");
    let refused = topic.try_enqueue(record(b"unknown yet")).unwrap_err();
    assert!(refused.is_full());
    let first = topic.send(record(b"a")).await.unwrap();
    assert_eq!((&*first.topic, first.offset), ("t", Some(0)));
    // Its own name is fine, and the order is one with that of the producer.
    let second = topic.enqueue(to_first("b")).await.unwrap();
    let third = producer.enqueue(to_first("c")).await.unwrap();
    let fourth = topic.clone().try_enqueue(record(b"d")).unwrap();
    let mut all = topic
        .enqueue_all((0..3).map(|_| record(b"e")))
        .await
        .unwrap();
    let offsets = [second.await, third.await, fourth.await].map(|done| done.unwrap().offset);
    assert_eq!(offsets, [Some(1), Some(2), Some(3)]);
    assert_eq!((&mut all).await.unwrap(), 3);
    script.assert_in_sequence();

    let foreign = || Record::to("other").with_value("x");
    for error in [
        topic.enqueue(foreign()).await.unwrap_err(),
        topic.try_enqueue(foreign()).unwrap_err(),
        producer.enqueue(record(b"x")).await.unwrap_err(),
        producer.try_enqueue(record(b"x")).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(error.certainty(), Some(Certainty::NotSent));
    }
    let mixed = [record(b"f"), foreign()];
    let error = topic.enqueue_all(mixed).await.unwrap_err();
    assert!(error.to_string().contains("after 1 records"), "{error}");
    producer.flush().await.unwrap();
    assert_eq!(script.records(), 8);
}

#[tokio::test(start_paused = true)]
async fn every_batch_is_reported_once_before_its_deliveries_end() {
    let reports: Arc<Mutex<Vec<BatchReport>>> = Arc::default();
    let own: Arc<OnceLock<TopicProducer>> = Arc::default();
    let (seen, inner) = (Arc::clone(&reports), Arc::clone(&own));
    let (producer, script) = producer(|builder| {
        builder.on_batch(move |report| {
            let first = seen.lock().unwrap().is_empty();
            seen.lock().unwrap().push(report.clone());
            if first {
                // No lock is held: the producer may be used.
                let producer = inner.get().unwrap();
                drop(
                    producer.try_enqueue(Record::new().with_partition(report.partition.partition)),
                );
                assert_eq!(producer.producer().metrics().records, 2);
                panic!("planted");
            }
        })
    })
    .await;
    assert!(own.set(producer.topic("t")).is_ok());
    // NOT_ENOUGH_REPLICAS once
    script.codes.lock().unwrap().extend([19]);
    let (first, second) = (
        Record::to("t").with_partition(1).with_value("a"),
        Record::to("t").with_partition(1),
    );
    let deliveries = producer.enqueue_all([first, second]).await.unwrap();
    assert_eq!(deliveries.await.unwrap(), 2);
    let report = reports.lock().unwrap()[0].clone();
    assert_eq!(report.partition.to_string(), "t-1");
    assert_eq!(
        (report.records, report.base_offset, report.attempts),
        (2, Some(0), 2)
    );
    assert!(report.error.is_none() && report.bytes == report.uncompressed_bytes);
    assert!(report.queued.unwrap() >= ProducerConfig::default().linger);
    assert!(report.latency > report.queued.unwrap());
    producer.flush().await.unwrap();
    assert_eq!(
        reports.lock().unwrap().len(),
        2,
        "that of the callback itself"
    );

    // TOPIC_AUTHORIZATION_FAILED
    script.codes.lock().unwrap().extend([29]);
    let error = producer
        .send(Record::to("t").with_partition(2))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authorization);
    let report = reports.lock().unwrap().pop().unwrap();
    assert_eq!((report.attempts, report.base_offset), (1, None));
    let error = report.error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Authorization);
    assert_eq!(error.certainty(), Some(Certainty::NotSent));

    let metrics = producer.metrics();
    assert_eq!((metrics.records, metrics.failed_records), (3, 1));
    assert_eq!((metrics.batches, metrics.failed_batches), (2, 1));
    assert_eq!((metrics.requests, metrics.failed_requests), (4, 0));
    assert_eq!((metrics.refused_batches, metrics.retries), (2, 1));
    assert_eq!(
        (metrics.batch_latency.count(), metrics.queue_time.count()),
        (3, 3)
    );
    assert_eq!(metrics.request_latency.count(), 4);
    assert_eq!((metrics.buffer_used, metrics.buffer_waits), (0, 0));
    assert_eq!(metrics.compression_ratio(), Some(1.0));
    drop(own);
}

#[cfg(feature = "lz4")]
#[tokio::test(start_paused = true)]
async fn a_topic_can_have_a_compression_of_its_own() {
    let (producer, script) =
        producer(|builder| builder.topic_compression("packed", Compression::lz4())).await;
    let value = vec![b'x'; 5000];
    for topic in ["t", "packed"] {
        let record = Record::to(topic).with_partition(0).with_value(&value);
        producer.send(record).await.unwrap();
    }
    let codec = |topic| script.batches(topic, 0)[0][22] & 7;
    assert_eq!((codec("t"), codec("packed")), (0, 3));
    let metrics = producer.metrics();
    assert!(metrics.compression_ratio().unwrap() < 0.6, "{metrics:?}");
    let bytes = script.batches("t", 0)[0].len() + script.batches("packed", 0)[0].len();
    assert_eq!(metrics.bytes, bytes as u64);
}

#[tokio::test(start_paused = true)]
async fn batches_go_when_their_linger_ends_or_at_once_when_flushed() {
    let linger = Duration::from_secs(60);
    let (producer, script) = producer(|builder| builder.linger(linger).max_in_flight(1)).await;
    // Of the first batch the sender is told at once, of the others when their linger ends.
    for sent in 1..4 {
        let _unwatched = producer.enqueue(to_first("x")).await.unwrap();
        tokio::time::sleep(linger - linger / 10).await;
        assert_eq!(producer.metrics().records, sent - 1);
        tokio::time::sleep(linger / 2).await;
        assert_eq!(producer.metrics().records, sent);
    }
    let began = now();
    for _ in 0..3 {
        let delivery = producer.enqueue(to_first("x")).await.unwrap();
        producer.flush().await.unwrap();
        assert!(delivery.now_or_never().unwrap().is_ok());
    }
    flush_behind_another(&producer, &script).await;
    assert!(began.elapsed() < linger / 2, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_flush_takes_what_waits_for_the_first_acknowledgement() {
    let linger = Duration::from_secs(60);
    let (producer, script) = producer(|builder| builder.linger(linger)).await;
    let began = now();
    flush_behind_another(&producer, &script).await;
    assert!(began.elapsed() < linger / 2, "{:?}", began.elapsed());
}

/// Flushes a batch that lingers while the one before it is not answered yet.
async fn flush_behind_another(producer: &Producer, script: &Script) {
    script.silent.store(true, Ordering::Relaxed);
    let first = producer.enqueue(to_first("x")).await.unwrap();
    let mut flush = pin!(producer.flush());
    assert!(polled(flush.as_mut(), 1).await.is_none());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = producer.enqueue(to_first("x")).await.unwrap();
    let mut flush_second = pin!(producer.flush());
    assert!(polled(flush_second.as_mut(), 1).await.is_none());
    tokio::time::sleep(Duration::from_secs(1)).await;
    script.silent.store(false, Ordering::Relaxed);
    flush.await.unwrap();
    flush_second.await.unwrap();
    assert!(first.now_or_never().unwrap().is_ok());
    assert!(second.now_or_never().unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_lay_with_a_dead_broker_goes_to_the_new_leader() {
    let (producer, script) = producer(|builder| builder).await;
    script.leader.store(2, Ordering::Relaxed);
    let delivery = producer.enqueue(to_first("a")).await.unwrap();
    // Its sender has it, and no connection.
    tokio::time::sleep(Duration::from_secs(5)).await;
    script.leader.store(1, Ordering::Relaxed);
    let moved = now();
    assert_eq!(delivery.await.unwrap().offset, Some(0));
    assert!(
        moved.elapsed() < Duration::from_secs(10),
        "{:?}",
        moved.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_purged_ends_at_once_and_what_follows_is_written_in_order() {
    let (producer, script) = producer(|builder| builder).await;
    let topic = producer.topic("t");
    topic.send(record(b"before")).await.unwrap();
    script.silent.store(true, Ordering::Relaxed);
    let sent = topic.enqueue(record(b"sent")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let unsent = topic.enqueue(record(b"unsent")).await.unwrap();
    let report = producer.purge(Purge::Unsent);
    assert_eq!((report.not_sent, report.maybe_written), (1, 0));
    let error = unsent.now_or_never().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Purged);
    assert_eq!(error.certainty(), Some(Certainty::NotSent));
    assert_eq!(error.topic_partition().unwrap().partition, 0);

    let report = producer.purge(Purge::All);
    assert_eq!((report.not_sent, report.maybe_written), (0, 1));
    let error = sent.now_or_never().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Purged);
    assert_eq!(error.certainty(), Some(Certainty::MaybeWritten));
    assert_eq!(producer.buffered_bytes(), 0);
    producer.flush().now_or_never().unwrap().unwrap();

    let after = topic.enqueue(record(b"after")).await.unwrap();
    script.silent.store(false, Ordering::Relaxed);
    assert_eq!(after.await.unwrap().offset, Some(2));
    script.assert_in_sequence();
    assert_eq!(producer.metrics().failed_records, 2);
}

#[tokio::test(start_paused = true)]
async fn a_batch_purged_while_it_is_compressed_ends_as_purged() {
    let (producer, script) = producer(|builder| builder).await;
    let topic = producer.topic("t");
    topic.send(record(b"before")).await.unwrap();
    let delivery = topic.enqueue(record(b"x")).await.unwrap();
    let slot = Arc::clone(&producer.shared().slots()[0]);
    let sealing = slot.lock().take_open(&slot).unwrap();
    producer.purge(Purge::Unsent);
    sealing.seal(&producer.shared().codecs);
    let error = delivery.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Purged);
    assert_settled(&producer, &script, 1..=1).await;
}

#[tokio::test(start_paused = true)]
async fn a_slot_made_while_everything_is_ended_is_ended_too() {
    let (producer, _) = producer(|builder| builder).await;
    let shared = Arc::clone(producer.shared());
    shared.fail_all(&shared.end());
    // As a call of `enqueue` does that learns of the topic only now.
    shared
        .look_up("t", now() + Duration::from_secs(1))
        .await
        .unwrap();
    let slots = shared.slots();
    assert_eq!(slots.len(), 3);
    assert!(slots.iter().all(|slot| slot.lock().queue.is_closed()));
}

#[tokio::test(start_paused = true)]
async fn a_topic_made_anew_gets_what_its_predecessor_did_not() {
    let (producer, script) = producer(|builder| builder).await;
    let topic = producer.topic("t");
    topic.send(record(b"old")).await.unwrap();
    script.made_anew.store(1, Ordering::Relaxed);
    script.written.lock().unwrap().clear();
    let deliveries = topic.enqueue_all((0..3).map(|_| record(b"new"))).await;
    assert_eq!(deliveries.unwrap().await.unwrap(), 3);
    assert_eq!(script.records(), 3);
    assert!(producer.metrics().refused_batches > 0, "by its old id");
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_not_known_is_looked_for_once() {
    let (producer, script) = producer(|builder| builder).await;
    let topic = producer.topic("t");
    topic.send(record(b"a")).await.unwrap();
    script.added.store(2, Ordering::Relaxed);
    let added = Record::new().with_partition(4);
    topic.send(added).await.unwrap();
    let (before, start) = (script.metadata_requests.load(Ordering::Relaxed), now());
    let error = topic
        .enqueue(Record::new().with_partition(5))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownPartition, "{error}");
    assert_eq!(error.certainty(), Some(Certainty::NotSent));
    assert!(error.to_string().contains("it has 5"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(1));
    let asked = script.metadata_requests.load(Ordering::Relaxed) - before;
    assert_eq!(asked, 1);
    // Who does not wait has it looked for in the background.
    script.added.store(3, Ordering::Relaxed);
    let refused = topic
        .try_enqueue(Record::new().with_partition(5))
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::UnknownPartition);
    tokio::time::sleep(Duration::from_secs(2)).await;
    topic
        .try_enqueue(Record::new().with_partition(5))
        .unwrap()
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_fenced_producer_goes_on_under_another_id() {
    // INVALID_PRODUCER_EPOCH, PRODUCER_FENCED
    for code in [47, 90] {
        let (producer, script) = producer(|builder| builder).await;
        let topic = producer.topic("t");
        topic.send(record(b"a")).await.unwrap();
        script.codes.lock().unwrap().push_back(code);
        topic.send(record(b"b")).await.unwrap();
        topic.send(record(b"c")).await.unwrap();
        script.assert_in_sequence();
        let ids: Vec<_> = script
            .batches("t", 0)
            .iter()
            .map(|batch| (&batch[43..51]).get_i64())
            .collect();
        assert_eq!(ids, [7, 8, 8]);
        // Where it cannot be tried again, the error says what it was.
        let (producer, script) = self::producer(|builder| builder.retries(1)).await;
        script.codes.lock().unwrap().extend([code; 2]);
        let error = producer.send(Record::to("t")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
        assert_eq!(error.certainty(), Some(Certainty::NotSent));
    }
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_is_taken_at_its_word() {
    let (producer, script) = producer(|builder| builder).await;
    let topic = producer.topic("t");
    // Others wrote millions of records in between, or the log was cut by an unclean election.
    for offset in [0, 1 << 30, (1 << 30) + (1 << 20), 3] {
        script.lies.lock().unwrap().push_back(offset);
        let written = topic.send(record(b"x")).await.unwrap();
        assert_eq!(written.offset, Some(offset));
    }
    let metrics = producer.metrics();
    assert_eq!(
        (metrics.retries, metrics.requests),
        (0, 4),
        "each is sent once"
    );
    script.assert_in_sequence();
}

#[tokio::test(start_paused = true)]
async fn a_throttled_producer_is_slower_and_says_so() {
    let (producer, script) = producer(|builder| builder).await;
    let topic = producer.topic("t");
    topic.send(record(b"warm")).await.unwrap();
    script.throttle_millis.store(700, Ordering::Relaxed);
    let start = now();
    for _ in 0..4 {
        topic.send(record(b"x")).await.unwrap();
    }
    assert!(start.elapsed() >= Duration::from_millis(3 * 700));
    let metrics = producer.metrics();
    assert_eq!((metrics.throttle_time.count(), metrics.retries), (4, 0));
    assert_eq!(metrics.throttle_time.max(), Duration::from_millis(700));
}

#[tokio::test(start_paused = true)]
async fn records_without_keys_avoid_a_broker_that_takes_nothing() {
    let second = Duration::from_secs(1);
    let sent = |timeout| async move {
        let builder =
            |builder: ProducerBuilder| builder.availability_timeout(timeout).batch_size(100);
        let (producer, script) = producer(builder).await;
        // Partition 1 is led by a broker that takes no connections.
        script.lost_partition.store(1, Ordering::Relaxed);
        let topic = producer.topic("t");
        let lost = topic
            .enqueue(Record::new().with_partition(1))
            .await
            .unwrap();
        tokio::time::sleep(3 * second).await;
        let mut partitions = [0; 3];
        for _ in 0..60 {
            let delivery = topic
                .enqueue(Record::new().with_value(&[0; 60]))
                .await
                .unwrap();
            partitions[delivery.partition() as usize] += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drop(lost);
        partitions
    };
    let [first, lost, last] = sent(2 * second).await;
    assert!(
        lost == 0 && first > 10 && last > 10,
        "{first} {lost} {last}"
    );
    let [_, lost, _] = sent(Duration::ZERO).await;
    assert!(lost > 0, "only because of the setting");
}

/// Polls so many times; what is still pending then is dropped.
async fn polled<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = times;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Nothing is held, nothing is missing, and what was written is whole.
async fn assert_settled(
    producer: &Producer,
    script: &Script,
    records: std::ops::RangeInclusive<u64>,
) {
    producer.flush().await.unwrap();
    assert_eq!(producer.buffered_bytes(), 0);
    assert!(!producer.shared().budget.is_waited_for());
    assert_eq!(producer.shared().flushing.batches(), 0);
    assert_eq!(producer.shared().flushes.load(Ordering::Relaxed), 0);
    script.assert_in_sequence();
    assert!(records.contains(&script.records()), "{}", script.records());
    assert_eq!(producer.metrics().records, script.records());
}

#[tokio::test(start_paused = true)]
async fn a_send_given_up_while_the_topic_is_looked_up_sends_nothing() {
    let mut ended = [false; 6];
    for times in 0..120 {
        let (producer, script) = producer(|builder| builder).await;
        let topic = producer.topic("t");
        let (way, polls) = (times % 6, times / 6);
        let named = || Record::to("t").with_value("a");
        let done = match way {
            0 => polled(topic.enqueue(record(b"a")), polls).await.is_some(),
            1 => polled(producer.enqueue(named()), polls).await.is_some(),
            2 => polled(topic.enqueue_all([record(b"a")]), polls)
                .await
                .is_some(),
            3 => polled(producer.enqueue_all([named()]), polls)
                .await
                .is_some(),
            4 => polled(topic.send(record(b"a")), polls).await.is_some(),
            _ => polled(producer.send(named()), polls).await.is_some(),
        };
        ended[way] |= done;
        // Who waits for the end of a record as well may have had it accepted.
        let most = if way < 4 { done.into() } else { 1 };
        assert_settled(&producer, &script, done.into()..=most).await;
        // What was begun does not get in the way of what follows.
        producer
            .send(Record::to("t").with_value("b"))
            .await
            .unwrap();
    }
    assert_eq!(ended, [true; 6]);
}

#[tokio::test(start_paused = true)]
async fn calls_given_up_while_memory_is_waited_for_hold_none_of_it() {
    let mut ended = [false; 3];
    for times in 0..36 {
        let (producer, script) = producer(|builder| builder.buffer_memory(4000)).await;
        let topic = producer.topic("t");
        topic.send(record(b"warm")).await.unwrap();
        let value = [7; 1500];
        let mut before = 1;
        while topic.try_enqueue(record(&value)).is_ok() {
            before += 1;
        }
        let polls = times / 3;
        let records = match times % 3 {
            0 => {
                let sent = polled(topic.enqueue(record(&value)), polls).await;
                ended[0] |= sent.is_some();
                before + u64::from(sent.is_some())..=before + u64::from(sent.is_some())
            }
            1 => {
                let all = (0..4).map(|_| record(&value));
                let sent = polled(topic.enqueue_all(all), polls).await;
                ended[1] |= sent.is_some();
                let least = if sent.is_some() { 4 } else { 0 };
                before + least..=before + 4
            }
            _ => {
                let sent = polled(topic.send(record(&value)), polls).await;
                ended[2] |= sent.is_some();
                before + u64::from(sent.is_some())..=before + 1
            }
        };
        assert_settled(&producer, &script, records).await;
        assert!(producer.metrics().buffer_waits > 0 || polls == 0);
    }
    assert_eq!(ended, [true; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_flush_or_delivery_given_up_loses_only_the_wait() {
    let mut ended = [false; 3];
    for times in 0..30 {
        let (producer, script) = producer(|builder| builder).await;
        let mut delivery = producer
            .enqueue(Record::to("t").with_value("a"))
            .await
            .unwrap();
        let both = [1, 2].map(|partition| Record::to("t").with_partition(partition));
        let mut deliveries = producer.enqueue_all(both).await.unwrap();
        match times % 3 {
            0 => ended[0] |= polled(producer.flush(), times / 3).await.is_some(),
            1 => {
                let done = polled(&mut delivery, times / 3).await;
                ended[1] |= done.is_some();
                if done.is_none() {
                    assert!(delivery.await.is_ok());
                }
            }
            _ => {
                let done = polled(&mut deliveries, times / 3).await;
                ended[2] |= done.is_some();
                if done.is_none() {
                    assert_eq!(deliveries.await.unwrap(), 2);
                }
            }
        }
        assert_settled(&producer, &script, 3..=3).await;
    }
    assert_eq!(ended, [true; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_close_given_up_is_finished_in_the_background() {
    let mut ended = false;
    for times in 0..10 {
        let (producer, script) = producer(|builder| builder).await;
        let shared = Arc::clone(producer.shared());
        let delivery = producer.enqueue(to_first("a")).await.unwrap();
        let end = polled(producer.close(), times).await;
        ended |= end.is_some_and(|end| end.is_ok());
        delivery.await.unwrap();
        shared.tasks.idle().await;
        assert_eq!(script.records(), 1);
        assert_eq!((shared.budget.charged(), shared.flushing.batches()), (0, 0));
    }
    assert!(ended);
}
