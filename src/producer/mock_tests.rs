//! The producer on the mock cluster: buffers that are full, topics and brokers that come and go. On
//! a paused clock.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use futures::StreamExt;

use super::*;
use crate::mock::{Api, MockCluster};

const SECOND: Duration = Duration::from_secs(1);
const LINGER: Duration = Duration::from_secs(600);
const VALUE: [u8; 3_000] = [7; 3_000];

async fn mock() -> MockCluster {
    let builder = MockCluster::builder()
        .brokers(3)
        .topic("t", 40)
        .in_memory()
        .seed(5);
    builder.start().await.unwrap()
}

/// It lingers long, its buffer holds a batch that is not full for every second partition, and it
/// has talked to all brokers.
async fn producer(mock: &MockCluster) -> Producer {
    let builder = mock.client().producer();
    let builder = builder.linger(LINGER).delivery_timeout(4 * LINGER);
    let producer = builder.buffer_memory(80 << 10).build().unwrap();
    for partition in 0..40 {
        let record = Record::to("t")
            .with_partition(partition)
            .with_value("first");
        drop(producer.enqueue(record).await.unwrap());
    }
    producer.flush().await.unwrap();
    assert_eq!(producer.buffered_bytes(), 0);
    producer
}

fn record<'a>(partition: i32) -> Record<'a> {
    Record::to("t").with_partition(partition).with_value(&VALUE)
}

/// However often it is refused, those who send are urged once until bytes come back.
#[tokio::test(start_paused = true)]
async fn a_spinning_caller_urges_the_senders_once() {
    let mock = mock().await;
    let producer = producer(&mock).await;
    mock.on(Api::Produce).delay(LINGER);
    let urges = || producer.shared().urges.load(Ordering::Relaxed);
    let before = urges();
    let mut refused = 0;
    for number in 0..1_000 {
        refused += u32::from(producer.try_enqueue(record(number % 40)).is_err());
    }
    assert!(refused > 900);
    assert_eq!(urges() - before, 1);
}

/// Open batches go although nobody waits for memory, and linger again when there is some.
#[tokio::test(start_paused = true)]
async fn a_refusal_for_want_of_memory_sends_what_lingers() {
    let mock = mock().await;
    let producer = producer(&mock).await;
    let began = now();
    let mut deliveries = Vec::new();
    let mut refusals = 0;
    for partition in 0..40 {
        loop {
            match producer.try_enqueue(record(partition)) {
                Ok(delivery) => break deliveries.push(delivery),
                Err(error) => assert!(error.is_full(), "{error}"),
            }
            refusals += 1;
            tokio::time::sleep(SECOND / 1_000).await;
            assert!(now() - began < LINGER / 10, "{refusals} refusals");
        }
    }
    assert!(refusals > 0, "the buffer is too large for this test");
    // What came last lingers: there has been room since.
    let before = mock.records("t", 39).len();
    assert_eq!(before, 1);
    tokio::time::sleep(LINGER / 2).await;
    assert_eq!(mock.records("t", 39).len(), before, "it lingers no more");
    tokio::time::sleep(LINGER).await;
    assert_eq!(mock.records("t", 39).len(), before + 1);
    for delivery in deliveries {
        delivery.await.unwrap();
    }
}

/// Who waits for each record is not ruled by the linger, however long it is.
#[tokio::test(start_paused = true)]
async fn what_is_awaited_does_not_linger() {
    let mock = mock().await;
    let producer = producer(&mock).await;
    let began = now();
    for _ in 0..10 {
        producer.send(record(0)).await.unwrap();
    }
    let many = (0..40).map(|_| Record::to("t").with_partition(1));
    producer.enqueue_all(many).await.unwrap().await.unwrap();
    // Of several partitions, too: all that lingers goes when the first of them is awaited.
    let spread = (0..10).map(|partition| Record::to("t").with_partition(partition));
    let spread = producer.enqueue_all(spread).await.unwrap();
    let mut requests = producer.metrics().requests;
    spread.await.unwrap();
    requests = producer.metrics().requests - requests;
    assert!(requests <= 3, "{requests} requests to three brokers");
    assert!(now() - began < SECOND);
}

/// What nobody waits for lingers, until somebody does.
#[tokio::test(start_paused = true)]
async fn an_open_batch_goes_when_somebody_begins_to_wait() {
    let mock = mock().await;
    let producer = producer(&mock).await;
    let delivery = producer.enqueue(record(0)).await.unwrap();
    tokio::time::sleep(LINGER / 2).await;
    assert_eq!(mock.records("t", 0).len(), 1);
    let began = now();
    delivery.await.unwrap();
    assert!(now() - began < SECOND);
}

/// Many tasks that wait for their records share a request: they gather behind the one under
/// way.
#[tokio::test(start_paused = true)]
async fn awaited_records_gather_behind_the_request_under_way() {
    const ROUNDS: u64 = 10;
    let mock = mock().await;
    let producer = producer(&mock).await;
    mock.on(Api::Produce).delay(SECOND);
    let before = producer.metrics().requests;
    let began = now();
    let tasks = (0..64).map(|_| {
        let producer = producer.clone();
        tokio::spawn(async move {
            for _ in 0..ROUNDS {
                let record = Record::to("t").with_partition(0).with_value("v");
                producer.send(record).await.unwrap();
            }
        })
    });
    let ends = futures::future::join_all(tasks).await;
    assert!(ends.iter().all(Result::is_ok));
    let requests = producer.metrics().requests - before;
    assert!(requests <= ROUNDS + 2, "{requests} requests");
    assert!(now() - began < 20 * SECOND);
}

const IDLE: Duration = Duration::from_secs(300);

fn known_topics(producer: &Producer) -> usize {
    producer.shared().topics.len()
}

/// Ten thousand topics, each used once: each is asked for once, and forgotten after a while.
#[tokio::test(start_paused = true)]
async fn topics_that_are_not_used_are_forgotten() {
    const TOPICS: usize = 10_000;
    let builder = MockCluster::builder().brokers(1).in_memory().seed(5);
    let mock = builder.default_partitions(1).start().await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    // It never applies, and sees every request.
    let counting = mock.on(Api::Metadata).when(move |request| {
        counter.fetch_add(request.topics.len(), Ordering::Relaxed);
        false
    });
    counting.fail(0);
    let client = mock.client();
    let producer = client.producer().build().unwrap();
    let sends = futures::stream::iter(0..TOPICS).map(|number| {
        let producer = &producer;
        async move {
            let name = format!("topic-{number}");
            producer
                .send(Record::to(&name).with_value("v"))
                .await
                .unwrap();
        }
    });
    sends.buffer_unordered(1_000).collect::<()>().await;
    assert_eq!(known_topics(&producer), TOPICS);
    let names = asked.load(Ordering::Relaxed);
    // Twice, for it has no leader yet when it is just being made.
    assert!(names <= 2 * TOPICS, "{names} names in metadata requests");
    let kept = producer.topic("kept");
    kept.send(Record::new().with_value("v")).await.unwrap();
    tokio::time::sleep(2 * IDLE).await;
    assert_eq!(known_topics(&producer), 1, "the handle's");
    asked.store(0, Ordering::Relaxed);
    tokio::time::sleep(2 * IDLE).await;
    let names = asked.load(Ordering::Relaxed);
    assert!(
        (1..10).contains(&names),
        "{names} names are still asked for"
    );
    kept.send(Record::new().with_value("v")).await.unwrap();
    drop(kept);
    tokio::time::sleep(2 * IDLE).await;
    assert_eq!(known_topics(&producer), 0);
}

/// The broker remembers the sequences of a forgotten topic.
#[tokio::test(start_paused = true)]
async fn a_topic_that_was_forgotten_is_written_to_as_before() {
    let mock = mock().await;
    let client = mock.client();
    let producer = client.producer().build().unwrap();
    let busy = producer.topic("busy");
    for round in 0..3 {
        let old = Record::to("t").with_partition(0).with_value("v");
        let metadata = producer.send(old).await.unwrap();
        assert_eq!(metadata.offset, Some(round));
        // A topic in use goes on meanwhile.
        for _ in 0..20 {
            busy.send(Record::new().with_partition(0).with_value("v"))
                .await
                .unwrap();
            tokio::time::sleep(IDLE / 10).await;
        }
        assert_eq!(known_topics(&producer), 1);
    }
    let metrics = producer.metrics();
    assert_eq!((metrics.retries, metrics.refused_batches), (0, 0));
    assert_eq!(mock.records("t", 0).len(), 3);
    assert_eq!(mock.records("busy", 0).len(), 60);
}

/// What is in line keeps its topic, and what is sent meanwhile too.
#[tokio::test(start_paused = true)]
async fn a_topic_with_work_is_not_forgotten() {
    let mock = mock().await;
    let builder = mock.client().producer().delivery_timeout(20 * IDLE);
    let producer = builder.build().unwrap();
    producer.send(record(0)).await.unwrap();
    for broker in 1..=3 {
        mock.kill(broker);
    }
    let delivery = producer.enqueue(record(0)).await.unwrap();
    tokio::time::sleep(3 * IDLE).await;
    assert_eq!(known_topics(&producer), 1);
    for broker in 1..=3 {
        mock.restart(broker).await.unwrap();
    }
    delivery.await.unwrap();
    assert_eq!(mock.records("t", 0).len(), 2);
}

/// The sender of a broker that has left ends, and another one starts when it is back.
#[tokio::test(start_paused = true)]
async fn the_sender_of_a_broker_that_left_ends() {
    let mock = mock().await;
    let client = mock.client();
    let producer = client.producer().build().unwrap();
    let all = || (0..40).map(record);
    producer.enqueue_all(all()).await.unwrap().await.unwrap();
    let senders = || {
        let homes = producer.shared().homes.lock().unwrap();
        homes
            .keys()
            .flatten()
            .map(|id| id.get())
            .collect::<Vec<_>>()
    };
    let running = || producer.shared().tasks.running();
    let (mut before, count) = (senders(), running());
    before.sort_unstable();
    assert_eq!(before, [1, 2, 3]);
    mock.kill(2);
    producer.enqueue_all(all()).await.unwrap().await.unwrap();
    client.cluster.refresh();
    tokio::time::sleep(10 * SECOND).await;
    assert!(!senders().contains(&2) && running() < count);
    mock.restart(2).await.unwrap();
    for partition in 0..40 {
        mock.move_leader("t", partition, 2).unwrap();
    }
    producer.enqueue_all(all()).await.unwrap().await.unwrap();
    assert!(senders().contains(&2));
    for partition in 0..40 {
        assert_eq!(mock.records("t", partition).len(), 3);
    }
}

/// The timers of a sender that ended are others' now.
#[tokio::test(start_paused = true)]
async fn records_of_a_broker_that_left_expire() {
    let mock = mock().await;
    let client = mock.client();
    let producer = client.producer().build().unwrap();
    let all = || (0..40).map(record);
    producer.enqueue_all(all()).await.unwrap().await.unwrap();
    mock.kill(2);
    client.cluster.refresh();
    tokio::time::sleep(10 * SECOND).await;
    assert!(
        !producer
            .shared()
            .homes
            .lock()
            .unwrap()
            .contains_key(&Some(crate::BrokerId(2)))
    );
    for broker in [1, 3] {
        mock.kill(broker);
    }
    let mut all: Vec<_> =
        futures::future::join_all(all().map(|record| producer.enqueue(record))).await;
    let began = now();
    for delivery in all.drain(..) {
        let end = tokio::time::timeout(LINGER, delivery.unwrap()).await;
        let error = end.expect("an end").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    }
    assert!(began.elapsed() < 130 * SECOND, "{:?}", began.elapsed());
}

/// Who meets a slot whose topic was just forgotten looks the topic up anew, whichever way it sends.
#[tokio::test(start_paused = true)]
async fn a_slot_of_a_forgotten_topic_is_left_alone() {
    let mock = mock().await;
    let producer = mock.client().producer().build().unwrap();
    producer
        .enqueue_all((0..40).map(record))
        .await
        .unwrap()
        .await
        .unwrap();
    let shared = producer.shared();
    let before = shared.slots();
    let later = Duration::ZERO;
    for slot in &before {
        assert!(slot.retire(now(), later));
    }
    assert!(producer.try_enqueue(record(0)).unwrap_err().is_full());
    shared.forget_topic("t");
    producer.send(record(0)).await.unwrap();
    let after = shared.slots();
    assert!(
        !before
            .iter()
            .any(|slot| after.iter().any(|other| Arc::ptr_eq(slot, other)))
    );
    // In the middle of a call.
    let records = (0..40).map(|number| {
        if number == 20 {
            shared.forget_topic("t");
            after.iter().for_each(|slot| slot.lock().retired = true);
        }
        record(number)
    });
    producer.enqueue_all(records).await.unwrap().await.unwrap();
    let written = (0..40).map(|partition| mock.records("t", partition).len());
    assert_eq!(written.sum::<usize>(), 81);
}

/// The batches of a broker that is too old end at once, and the producer goes on.
#[tokio::test(start_paused = true)]
async fn a_broker_that_is_too_old_ends_its_batches_and_not_the_producer() {
    let builder = MockCluster::builder().topic("t", 1).in_memory().seed(5);
    let mock = builder.max_version(Api::Produce, 3).start().await.unwrap();
    let producer = mock.client().producer().build().unwrap();
    for _ in 0..3 {
        let error = producer.send(record(0)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedVersion, "{error}");
        assert_eq!(error.certainty(), Some(Certainty::NotSent));
        assert!(!error.is_fatal());
    }
    assert!(producer.shared().identity().failure().is_none());
}
