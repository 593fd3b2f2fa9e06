//! The producer without any broker: what is decided before one is needed.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{InitProducerIdResponse, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::net::TcpListener;

use super::*;
use crate::clock::Clock;
use crate::cluster::snapshot::Partition;
use crate::cluster::{Cluster, Topic};
use crate::config::ClientConfig;
use crate::config::producer::ProducerConfig;
use crate::error::{Certainty, ErrorKind};
use crate::net::connector::Tcp;
use crate::net::scripted::{Far, Scripted};
use crate::tasks::Tasks;
use crate::types::BrokerId;

/// A producer that knows a topic `t` of three partitions, of a cluster that never answers.
async fn producer(change: impl FnOnce(&mut ProducerConfig)) -> Producer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cluster = Cluster::new(
        ClientConfig::default(),
        vec![("127.0.0.1".to_owned(), address.port())],
        Clock::seeded(1, 1_700_000_000_000),
        Arc::new(Tcp {
            send_buffer: None,
            receive_buffer: None,
        }),
        Tasks::new().unwrap(),
    );
    let mut config = ProducerConfig::default();
    change(&mut config);
    let producer = ProducerBuilder::new(cluster, config).build().unwrap();
    let partition = Partition {
        leader: Some(BrokerId(1)),
        leader_epoch: 0,
        replicas: Vec::new(),
        isr: Vec::new(),
        offline: Vec::new(),
    };
    let topic = Topic {
        name: "t".into(),
        id: uuid::Uuid::nil(),
        internal: false,
        partitions: vec![partition; 3],
    };
    producer.shared().add_topic(&Arc::new(topic));
    producer
}

/// A producer whose topic `t` is led by a broker that takes no connections, as another one says.
async fn cut_off() -> Producer {
    let (connector, mut accepting) = Scripted::new();
    connector
        .refused
        .lock()
        .unwrap()
        .push_back("two".to_owned());
    tokio::spawn(async move {
        while let Some((_, stream)) = accepting.recv().await {
            tokio::spawn(witness(Far { stream }));
        }
    });
    let cluster = Cluster::new(
        ClientConfig::default(),
        vec![("one".to_owned(), 9092)],
        Clock::seeded(1, 1_700_000_000_000),
        connector,
        Tasks::new().unwrap(),
    );
    let config = ProducerConfig::default();
    ProducerBuilder::new(cluster, config).build().unwrap()
}

async fn witness(mut far: Far) {
    far.shake_hands().await;
    while let Some(asked) = far.asked().await {
        let text = StrBytes::from_static_str;
        let partition = MetadataResponsePartition::default().with_leader_id(2.into());
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName(text("t"))))
            .with_partitions(vec![partition]);
        let brokers = [(1, "one"), (2, "two")].map(|(id, host)| {
            MetadataResponseBroker::default()
                .with_node_id(id.into())
                .with_host(text(host))
                .with_port(9092)
        });
        match asked.key {
            3 => {
                let response = MetadataResponse::default()
                    .with_brokers(brokers.to_vec())
                    .with_topics(vec![topic]);
                far.answer(&asked, &response).await;
            }
            _ => {
                let response = InitProducerIdResponse::default().with_producer_id(7.into());
                far.answer(&asked, &response).await;
            }
        }
    }
}

fn record<'a>(value: &'a [u8]) -> Record<'a> {
    Record::to("t").with_partition(0).with_value(value)
}

#[tokio::test]
async fn sending_allocates_nothing_per_record() {
    const VALUE: [u8; 100] = [7; 100];
    let producer = producer(|config| config.batch_size = 1 << 20).await;
    let topic = producer.topic("t");
    fn record(key: &[u8]) -> Record<'_> {
        Record::to("t").with_key(key).with_value(&VALUE)
    }
    let numbers: Vec<_> = (0..2500_u32).map(u32::to_le_bytes).collect();
    let send = |key: &[u8]| {
        drop(
            producer
                .enqueue(record(key))
                .now_or_never()
                .unwrap()
                .unwrap(),
        );
    };
    // Until every partition has a buffer with room.
    numbers.iter().for_each(|key| send(key));
    type Send<'a> = &'a dyn Fn(&[u8]);
    let forms: [(&str, Send<'_>); 4] = [
        ("send", &send),
        ("try_enqueue", &|key| {
            drop(producer.try_enqueue(record(key)).unwrap())
        }),
        ("topic.send", &|key| {
            drop(topic.enqueue(record(key)).now_or_never().unwrap().unwrap());
        }),
        ("topic.try_enqueue", &|key| {
            drop(topic.try_enqueue(record(key)).unwrap());
        }),
    ];
    for (name, send) in forms {
        send(b"the first looks the topic up");
        let count = allocation_counter::measure(|| {
            numbers.iter().take(100).for_each(|key| send(key));
        });
        assert_eq!(count.count_total, 0, "{name}");
    }
    let many = |records| {
        let records =
            (0..records).map(|at| Record::to("t").with_partition(at % 3).with_value(&VALUE));
        let count = allocation_counter::measure(|| {
            let sent = producer.enqueue_all(records).now_or_never();
            drop(sent.unwrap().unwrap());
        });
        count.count_total
    };
    // For the list of batches and which of them is whose.
    let few = many(3);
    assert!(few <= 2, "{few}");
    assert_eq!(many(300), few, "enqueue_all");
}

#[tokio::test]
async fn futures_are_small() {
    let producer = producer(|_| {}).await;
    let topic = producer.topic("t");
    let none = std::iter::empty::<Record<'_>>;
    let sizes = [
        ("enqueue", size_of_val(&producer.enqueue(record(b""))), 704),
        ("send", size_of_val(&producer.send(record(b""))), 832),
        (
            "enqueue_all",
            size_of_val(&producer.enqueue_all(none())),
            960,
        ),
        (
            "topic.enqueue",
            size_of_val(&topic.enqueue(record(b""))),
            704,
        ),
        ("Delivery", size_of::<Delivery>(), 32),
    ];
    for (name, size, most) in sizes {
        assert!(size <= most, "{name}: {size} bytes");
    }
}

#[tokio::test]
async fn what_cannot_be_accepted_is_refused_with_the_reason() {
    let producer = producer(|config| {
        config.max_request_size = 1000;
        config.max_block = Duration::from_millis(20);
    })
    .await;
    let error = producer.enqueue(record(&[0; 2000])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RecordTooLarge);
    assert!(
        error.to_string().contains("1000 of max.request.size"),
        "{error}"
    );
    let error = producer
        .enqueue(record(b"x").with_partition(3))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownPartition);
    assert!(error.to_string().contains("it has 3"), "{error}");
    assert_eq!(error.certainty(), Some(Certainty::NotSent));
    let error = producer
        .enqueue(record(b"x").with_timestamp(crate::Timestamp::from_millis(-5)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let error = producer
        .try_enqueue(Record::to("new").with_value("x"))
        .unwrap_err();
    assert!(error.is_full(), "{error}");
    assert_eq!(producer.buffered_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_refuses_or_waits_and_a_wait_can_be_given_up() {
    let producer = producer(|config| {
        config.buffer_memory = 3000;
        config.max_block = Duration::from_secs(1);
    })
    .await;
    let value = [0; 1000];
    let mut accepted = 0;
    while producer.try_enqueue(record(&value)).is_ok() {
        accepted += 1;
    }
    assert_eq!(accepted, 2);
    assert!(producer.try_enqueue(record(&value)).unwrap_err().is_full());
    for _ in 0..3 {
        assert!(producer.enqueue(record(&value)).now_or_never().is_none());
    }
    assert!(!producer.shared().budget.is_waited_for(), "given up");
    let error = producer.enqueue(record(&value)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("max.block.ms"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_no_broker_takes_ends_in_time() {
    let producer = producer(|_| {}).await;
    let accepted = crate::clock::now();
    let error = producer.send(record(b"x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.certainty(), Some(Certainty::NotSent));
    assert!(error.to_string().contains("delivery.timeout.ms"), "{error}");
    let took = accepted.elapsed();
    let timeout = ProducerConfig::default().delivery_timeout;
    assert!(took >= timeout && took < timeout + Duration::from_secs(1));
    assert_eq!(producer.buffered_bytes(), 0);
    producer.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_record_accepted_after_others_expired_ends_in_time_too() {
    let producer = cut_off().await;
    let timeout = ProducerConfig::default().delivery_timeout;
    // The slot stays in the hands of its sender, which never gets to look at it, when it is empty.
    for value in [b"x", b"y"] {
        let accepted = crate::clock::now();
        let delivery = tokio::time::timeout(2 * timeout, producer.send(record(value)));
        let error = delivery.await.expect("an end").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        let took = accepted.elapsed();
        assert!(took >= timeout && took < timeout + Duration::from_secs(1));
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn closing_tells_what_was_not_delivered() {
    let producer = producer(|_| {}).await;
    let other = producer.clone();
    let delivery = producer.enqueue(record(b"x")).await.unwrap();
    let all = (0..4).map(|_| record(b"y"));
    let deliveries = producer.enqueue_all(all).await.unwrap();
    let began = now();
    let error = producer.close().await.unwrap_err();
    assert_eq!(began.elapsed().as_secs(), 30);
    assert_eq!(
        (error.kind(), error.certainty()),
        (ErrorKind::Closed, Some(Certainty::NotSent))
    );
    assert!(error.to_string().contains("5 records"), "{error}");
    let error = delivery.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.certainty()),
        (ErrorKind::Closed, Some(Certainty::NotSent))
    );
    assert!(deliveries.await.is_err());
    let error = other.enqueue(record(b"z")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(other.buffered_bytes(), 0);
    assert_eq!(other.shared().tasks.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_ends_everything_soon() {
    let producer = producer(|_| {}).await;
    let tasks = producer.shared().tasks.clone();
    let budget = producer.shared().budget.clone();
    let delivery = producer.enqueue(record(b"x")).await.unwrap();
    drop(producer.clone());
    assert!(!tasks.is_stopping());
    drop(producer);
    assert_eq!(delivery.await.unwrap_err().kind(), ErrorKind::Closed);
    tasks.idle().await;
    assert_eq!(budget.charged(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_client_ends_deliveries_and_waits() {
    let producer = producer(|config| config.buffer_memory = 3000).await;
    let first = producer.enqueue(record(&[0; 1400])).await.unwrap();
    let second = producer.enqueue(record(&[0; 1400])).await.unwrap();
    let mut waiting = Box::pin(producer.enqueue(record(&[0; 1400])));
    assert!((&mut waiting).now_or_never().is_none());
    producer.shared().cluster.tasks().stop();
    assert_eq!(waiting.await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(first.await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(second.await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn sticky_records_fill_one_partition_and_then_another() {
    let producer = producer(|config| config.batch_size = 1000).await;
    let mut runs: Vec<(i32, u32)> = Vec::new();
    for _ in 0..100 {
        let delivery = producer
            .try_enqueue(Record::to("t").with_value(&[0; 80]))
            .unwrap();
        let partition = delivery.partition();
        match runs.last_mut() {
            Some((last, count)) if *last == partition => *count += 1,
            _ => runs.push((partition, 1)),
        }
    }
    assert!(runs.len() > 2, "{runs:?}");
    // About a batch each; a partition may be drawn twice in a row.
    assert!(
        runs.iter().rev().skip(1).all(|(_, count)| *count >= 9),
        "{runs:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_time_without_limit_is_taken() {
    let producer = producer(|_| {}).await;
    producer.close_timeout(Duration::MAX).await.unwrap();
}
