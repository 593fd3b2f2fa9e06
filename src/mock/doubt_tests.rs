//! Answers that cannot be right, or that one damaged bit could have made: the client asks again,
//! and nobody notices. On a paused clock. Whether it believed one shows in what it reads and
//! writes, and in what brokers refuse it afterwards.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kafka_protocol::messages::fetch_response::{EpochEndOffset, PartitionData};
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{FetchResponse, MetadataResponse, ProduceResponse};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::*;
use crate::client::Client;
use crate::clock::now;
use crate::{OffsetReset, Record, TopicPartition};

const SECOND: Duration = Duration::from_secs(1);
const COUNT: usize = 200;
const OFFSET_OUT_OF_RANGE: i16 = 1;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

/// Partition 0 of topic `t` is led by broker 2 in epoch 1, and was led by broker 1 before.
async fn mock() -> MockCluster {
    let builder = MockCluster::builder().brokers(3).topic("t", 3);
    let mock = builder.in_memory().seed(9).start().await.unwrap();
    assert_eq!(mock.leader("t", 0), Some((1, 0)));
    mock.move_leader("t", 0, 2).unwrap();
    mock
}

/// A client that asks for metadata every two seconds.
fn client(mock: &MockCluster, name: &str) -> Client {
    let builder = mock.named_client_builder(name);
    builder.metadata_max_age(2 * SECOND).build().unwrap()
}

#[derive(Clone, Copy)]
enum Lie {
    /// In the description of the topic.
    Topic(fn(&mut MetadataResponseTopic)),
    /// In an answer to Metadata.
    Cluster(fn(&mut MetadataResponse)),
    /// In an answer to Fetch that has records.
    Fetch(fn(&mut FetchResponse)),
    /// About the partition with these records.
    Records(fn(&mut PartitionData)),
}

/// What a client called `victim` is told, once.
struct Liar {
    lie: Lie,
    armed: AtomicBool,
    told: AtomicU64,
    /// Fetches and batches that brokers refused, the lie not included.
    refused: AtomicU64,
}

impl Liar {
    fn new(mock: &MockCluster, lie: Lie) -> Arc<Self> {
        let liar = Arc::new(Self {
            lie,
            armed: AtomicBool::new(false),
            told: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let of = |api| mock.on(api).when(|request| request.client_id == "victim");
        let metadata = Arc::clone(&liar);
        of(Api::Metadata).rewrite(move |answer| metadata.metadata(answer));
        let fetch = Arc::clone(&liar);
        of(Api::Fetch).rewrite(move |answer| fetch.fetch(answer));
        let produce = Arc::clone(&liar);
        of(Api::Produce).rewrite(move |answer: &mut ProduceResponse| {
            let parts = answer.responses.iter();
            let mut parts = parts.flat_map(|topic| &topic.partition_responses);
            produce.count(parts.any(|part| part.error_code != 0));
        });
        liar
    }

    fn arm(&self) {
        self.armed.store(true, Ordering::Relaxed);
    }

    fn count(&self, refused: bool) {
        self.refused.fetch_add(refused.into(), Ordering::Relaxed);
    }

    fn may_lie(&self) -> bool {
        self.armed.load(Ordering::Relaxed) && self.told.load(Ordering::Relaxed) == 0
    }

    fn lied(&self) {
        self.told.fetch_add(1, Ordering::Relaxed);
    }

    fn metadata(&self, answer: &mut MetadataResponse) {
        if !self.may_lie() {
            return;
        }
        match self.lie {
            Lie::Cluster(lie) => {
                lie(answer);
                self.lied();
            }
            Lie::Topic(lie) => {
                if let Some(topic) = answer.topics.iter_mut().find(|topic| topic.error_code == 0) {
                    lie(topic);
                    self.lied();
                }
            }
            Lie::Fetch(_) | Lie::Records(_) => {}
        }
    }

    fn fetch(&self, answer: &mut FetchResponse) {
        let parts = answer.responses.iter();
        let mut parts = parts.flat_map(|topic| &topic.partitions);
        let refused = parts.any(|part| part.error_code != 0 || part.diverging_epoch.epoch >= 0);
        self.count(refused || answer.error_code != 0);
        let parts = answer.responses.iter_mut();
        let mut parts = parts.flat_map(|topic| &mut topic.partitions);
        let with_records = parts.find(|part| part.records.as_ref().is_some_and(|r| !r.is_empty()));
        let Some(part) = with_records.filter(|_| self.may_lie()) else {
            return;
        };
        match self.lie {
            Lie::Records(lie) => lie(part),
            Lie::Fetch(lie) => lie(answer),
            Lie::Topic(_) | Lie::Cluster(_) => return,
        }
        self.lied();
    }

    #[track_caller]
    fn assert_not_believed(&self, what: &str) {
        assert_eq!(self.told.load(Ordering::Relaxed), 1, "{what}");
        let refused = self.refused.load(Ordering::Relaxed);
        assert_eq!(refused, 0, "{what}: brokers refused something afterwards");
    }
}

fn another_id(topic: &mut MetadataResponseTopic) {
    topic.topic_id = Uuid::from_u128(77);
}

fn fewer_partitions(topic: &mut MetadataResponseTopic) {
    topic.partitions.retain(|one| one.partition_index < 2);
}

/// As it was before partition 0 moved.
fn older_epoch(topic: &mut MetadataResponseTopic) {
    for partition in &mut topic.partitions {
        if partition.partition_index == 0 {
            partition.leader_epoch = 0;
            partition.leader_id = 1.into();
        }
    }
}

fn gone(topic: &mut MetadataResponseTopic) {
    topic.error_code = UNKNOWN_TOPIC_OR_PARTITION;
    topic.partitions.clear();
}

const OF_TOPICS: [(&str, Lie); 4] = [
    ("another id", Lie::Topic(another_id)),
    ("fewer partitions", Lie::Topic(fewer_partitions)),
    ("an older epoch", Lie::Topic(older_epoch)),
    ("gone", Lie::Topic(gone)),
];

/// Replaces what stands at this place of the first batch.
fn put<const N: usize>(part: &mut PartitionData, at: usize, change: fn([u8; N]) -> [u8; N]) {
    let mut records = part.records.take().unwrap().to_vec();
    let place = &mut records[at..at + N];
    let before = <[u8; N]>::try_from(&*place).unwrap();
    place.copy_from_slice(&change(before));
    part.records = Some(records.into());
}

const OF_FETCHES: [(&str, Lie); 8] = [
    (
        "an error beside records",
        Lie::Records(|part| part.error_code = OFFSET_OUT_OF_RANGE),
    ),
    (
        "the log parted in a later epoch",
        Lie::Records(|part| {
            let later = EpochEndOffset::default().with_epoch(40);
            part.diverging_epoch = later.with_end_offset(0);
        }),
    ),
    (
        "a part of a batch",
        Lie::Records(|part| part.records.as_mut().unwrap().truncate(30)),
    ),
    ("no batch", Lie::Records(|part| put(part, 16, |[_]| [9]))),
    (
        "a batch before the offset",
        Lie::Records(|part| {
            put(part, 0, |offset| {
                (i64::from_be_bytes(offset) - 9).to_be_bytes()
            });
        }),
    ),
    (
        "a batch beyond the end",
        Lie::Records(|part| {
            put(part, 0, |offset| {
                (i64::from_be_bytes(offset) + 1_000).to_be_bytes()
            });
        }),
    ),
    (
        "a batch of a leader to come",
        Lie::Records(|part| put(part, 12, |_| 40_i32.to_be_bytes())),
    ),
    (
        "another session",
        Lie::Fetch(|answer| answer.session_id ^= 1 << 9),
    ),
];

#[tokio::test(start_paused = true)]
async fn a_reader_asks_again_what_metadata_says_once() {
    for (what, lie) in OF_TOPICS {
        reads_on(what, lie).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_fetches_again_what_cannot_be() {
    for (what, lie) in OF_FETCHES {
        reads_on(what, lie).await;
    }
}

/// Reads partition 0 while it is written to and one answer lies.
async fn reads_on(what: &str, lie: Lie) {
    let mock = mock().await;
    let liar = Liar::new(&mock, lie);
    let (reader, writer) = (client(&mock, "victim"), client(&mock, "writer"));
    let producer = writer.producer().build().unwrap();
    let writes = tokio::spawn(async move {
        for number in 0..COUNT {
            let value = number.to_string();
            let record = Record::to("t").with_partition(0).with_value(&value);
            producer.send(record).await.unwrap();
            sleep(SECOND / 20).await;
        }
    });
    let consumer = reader.reader().assign([TopicPartition::new("t", 0)]);
    let consumer = consumer.offset_reset(OffsetReset::Earliest);
    let mut consumer = consumer.build().unwrap();
    let mut seen = Vec::new();
    let until = now() + 60 * SECOND;
    // Nothing comes after the last one.
    while now() < until {
        let polled = consumer.poll_timeout(SECOND).await;
        let batches = polled.unwrap_or_else(|error| panic!("{what}: {error}"));
        for record in batches.unwrap().iter().flatten() {
            let record = record.unwrap();
            let value = String::from_utf8(record.value().unwrap().to_vec()).unwrap();
            seen.push((record.offset(), value));
        }
        if seen.len() > 20 {
            liar.arm();
        }
    }
    writes.await.unwrap();
    let all: Vec<_> = (0..COUNT).map(|n| (n as i64, n.to_string())).collect();
    assert_eq!(seen, all, "{what}");
    liar.assert_not_believed(what);
}

#[tokio::test(start_paused = true)]
async fn a_producer_asks_again_what_metadata_says_once() {
    for (what, lie) in OF_TOPICS {
        writes_on(what, lie).await;
    }
}

/// Writes records with keys while one answer lies: they go where they went before, and without
/// delay.
async fn writes_on(what: &str, lie: Lie) {
    let mock = mock().await;
    let liar = Liar::new(&mock, lie);
    // It has no reason of its own to ask again.
    let client = mock.named_client_builder("victim").build().unwrap();
    let producer = client.producer().linger(Duration::ZERO);
    let producer = producer.build().unwrap();
    let mut places = Vec::new();
    for round in 0..100 {
        for key in ["a", "b", "c", "d", "e", "f"] {
            let record = Record::to("t").with_key(key).with_value("v");
            let sent = producer.enqueue(record).await.unwrap();
            // At first there is an identity to be asked for.
            let soon = if round == 0 { SECOND } else { SECOND / 50 };
            let sent = timeout(soon, sent).await;
            let sent = sent.unwrap_or_else(|_| panic!("{what}: nothing goes"));
            places.push(sent.unwrap().partition);
        }
        if round == 0 {
            liar.arm();
            // There may be more of them than are known.
            producer
                .enqueue(Record::to("t").with_partition(9))
                .await
                .unwrap_err();
        }
        sleep(SECOND / 20).await;
    }
    let (first, rest) = places.split_at(6);
    assert!(rest.chunks(6).all(|places| places == first), "{what}");
    let written: usize = (0..3).map(|number| mock.records("t", number).len()).sum();
    assert_eq!(written, places.len(), "{what}");
    liar.assert_not_believed(what);
}

/// Brokers 1 and 2 where the other one is.
fn swapped(answer: &mut MetadataResponse) {
    let [one, two, _] = &mut answer.brokers[..] else {
        panic!("{:?}", answer.brokers);
    };
    std::mem::swap(&mut one.host, &mut two.host);
    std::mem::swap(&mut one.port, &mut two.port);
}

/// Broker 2 where broker 1 is.
fn mistaken(answer: &mut MetadataResponse) {
    let one = answer.brokers[0].clone();
    answer.brokers[1].host = one.host;
    answer.brokers[1].port = one.port;
}

/// Who connected to a wrong address would ask the wrong broker for ever, since that answers.
#[tokio::test(start_paused = true)]
async fn links_to_wrong_addresses_are_given_up() {
    let mut connections = Vec::new();
    for name in ["bystander", "victim"] {
        let mock = mock().await;
        let liar = Liar::new(&mock, Lie::Cluster(swapped));
        liar.arm();
        let client = client(&mock, name);
        let producer = client.producer().build().unwrap();
        let consumer = client.reader().assign([TopicPartition::new("t", 0)]);
        let consumer = consumer.offset_reset(OffsetReset::Earliest);
        let mut consumer = consumer.build().unwrap();
        let record = Record::to("t").with_partition(0).with_value("v");
        let sent = timeout(10 * SECOND, producer.send(record)).await;
        sent.unwrap_or_else(|_| panic!("{name}: not written"))
            .unwrap();
        let polled = timeout(10 * SECOND, consumer.poll()).await;
        let polled = polled.unwrap_or_else(|_| panic!("{name}: not read"));
        assert_eq!(polled.unwrap().unwrap().record_count(), 1);
        sleep(5 * SECOND).await;
        assert_eq!(
            liar.told.load(Ordering::Relaxed),
            u64::from(name == "victim")
        );
        connections.push(client.metrics().connections);
    }
    assert_eq!(connections[0], connections[1], "some are left");
}

#[tokio::test(start_paused = true)]
async fn a_link_made_while_its_broker_moves_is_given_up() {
    let mock = mock().await;
    let liar = Liar::new(&mock, Lie::Cluster(mistaken));
    let client = mock.named_client_builder("victim").build().unwrap();
    let producer = client.producer().build().unwrap();
    let record = |partition| Record::to("t").with_partition(partition).with_value("v");
    producer.send(record(2)).await.unwrap();
    liar.arm();
    mock.on(Api::ApiVersions).broker(1).delay(4 * SECOND);
    // Asks for metadata.
    producer.enqueue(record(9)).await.unwrap_err();
    let sent = producer.enqueue(record(0)).await.unwrap();
    producer.enqueue(record(9)).await.unwrap_err();
    assert_eq!(liar.told.load(Ordering::Relaxed), 1);
    let sent = timeout(30 * SECOND, sent).await;
    sent.expect("the link leads to the wrong broker").unwrap();
}
