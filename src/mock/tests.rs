//! The client on the mock, and the mock against what no client sends.

use std::time::Duration;

use kafka_protocol::messages::ProduceRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::admin::NewTopic;
use crate::client::Client;
use crate::wire::Call;
use crate::{Error, ErrorKind, OffsetReset, Record, Result, TopicPattern};

const MINUTE: Duration = Duration::from_secs(60);

fn builder() -> MockClusterBuilder {
    MockCluster::builder().brokers(3).topic("t", 3)
}

async fn mock() -> Result<MockCluster> {
    builder().seed(1).start().await
}

async fn produce(client: &Client, count: usize) -> Result<()> {
    let producer = client.producer().build()?;
    for number in 0..count {
        let value = number.to_string();
        drop(
            producer
                .enqueue(
                    Record::to("t")
                        .with_partition((number % 3) as i32)
                        .with_value(&value),
                )
                .await?,
        );
    }
    producer.flush().await?;
    producer.close_timeout(MINUTE).await.unwrap();
    Ok(())
}

async fn consume(client: &Client, group: &str, count: usize) -> Result<Vec<String>> {
    let mut consumer = client
        .consumer(group)
        .subscribe(["t"])
        .offset_reset(OffsetReset::Earliest)
        .build()?;
    let mut values = Vec::new();
    while values.len() < count {
        let batches = consumer
            .poll()
            .await?
            .ok_or_else(|| Error::new(ErrorKind::Closed, "closed"))?;
        for batch in &batches {
            for record in batch.records() {
                values.push(
                    String::from_utf8_lossy(record?.value().unwrap_or_default()).into_owned(),
                );
            }
        }
        consumer.commit().await?;
    }
    consumer.close_timeout(MINUTE).await?;
    Ok(values)
}

#[tokio::test(start_paused = true)]
async fn what_is_produced_is_consumed_by_a_group() -> Result<()> {
    let mock = mock().await?;
    let client = mock.client();
    produce(&client, 30).await?;
    assert_eq!(mock.records("t", 1).len(), 10);
    let mut values = consume(&client, "g", 30).await?;
    values.sort_unstable();
    let mut all: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    all.sort_unstable();
    assert_eq!(values, all);
    let group = mock.group("g").unwrap();
    assert_eq!(group.state, "Empty");
    let committed: Vec<i64> = group.offsets.iter().map(|(_, offset)| *offset).collect();
    assert_eq!(committed, [10, 10, 10]);
    client.close().await?;
    Ok(())
}

#[tokio::test]
async fn the_same_over_tcp() -> Result<()> {
    let mock = builder().start().await?;
    let bootstrap = mock.bootstrap();
    let client = Client::builder()
        .bootstrap(bootstrap.split(','))
        .connect()
        .await?;
    produce(&client, 9).await?;
    mock.kill(1);
    mock.restart(1).await?;
    assert_eq!(mock.bootstrap(), bootstrap);
    assert_eq!(consume(&client, "g", 9).await?.len(), 9);
    client.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_doubled_by_faults() -> Result<()> {
    let mock = mock().await?;
    let client = mock.client();
    let lost = mock.on(Api::Produce).times(2).apply_then_drop();
    let garbage = mock
        .on(Api::Produce)
        .skip(3)
        .times(1)
        .garbage("HTTP/1.1 400 Bad Request");
    mock.on(Api::InitProducerId).times(1).fail(14);
    mock.on(Api::Metadata)
        .times(1)
        .delay(Duration::from_secs(2));
    produce(&client, 60).await?;
    assert_eq!(lost.hits(), 2);
    let _ = garbage.hits();
    for partition in 0..3 {
        let records = mock.records("t", partition);
        let values: Vec<usize> = records
            .iter()
            .map(|record| {
                std::str::from_utf8(record.value().unwrap())
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect();
        let expected: Vec<usize> = (0..20)
            .map(|number| number * 3 + partition as usize)
            .collect();
        assert_eq!(values, expected);
    }
    client.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn leaders_move_and_brokers_die() -> Result<()> {
    let mock = mock().await?;
    let client = mock.client();
    let producer = client.producer().build()?;
    for round in 0..6 {
        let value = format!("{round}");
        let _ = producer
            .send(Record::to("t").with_partition(0).with_value(&value))
            .await?;
        match round {
            0 | 1 => {
                let (leader, epoch) = mock.leader("t", 0).unwrap();
                mock.move_leader("t", 0, leader % 3 + 1)?;
                assert_eq!(mock.leader("t", 0).unwrap(), (leader % 3 + 1, epoch + 1));
            }
            2 => mock.kill(mock.leader("t", 0).unwrap().0),
            3 => {
                for broker in 1..=3 {
                    mock.restart(broker).await?;
                }
            }
            _ => mock.network().reset(),
        }
    }
    assert_eq!(mock.records("t", 0).len(), 6);
    producer.close_timeout(MINUTE).await.unwrap();
    client.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_cut_network_holds_back_and_a_paused_broker_waits() -> Result<()> {
    let mock = MockCluster::builder().topic("t", 3).seed(2).start().await?;
    let client = mock.named_client_builder("c").build()?;
    mock.network()
        .delay(Duration::from_millis(5), Duration::from_millis(50));
    let producer = client.producer().build()?;
    producer.send(Record::to("t").with_value("1")).await?;
    mock.network().client("c").broker(1).cut_answers();
    let delivery = producer
        .enqueue(Record::to("t").with_partition(0).with_value("2"))
        .await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let there: usize = (0..3)
        .map(|partition| mock.records("t", partition).len())
        .sum();
    assert_eq!(there, 2, "the request came through");
    mock.network().heal();
    delivery.await?;
    mock.pause(1);
    let delivery = producer
        .enqueue(Record::to("t").with_partition(0).with_value("3"))
        .await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let there: usize = (0..3)
        .map(|partition| mock.records("t", partition).len())
        .sum();
    assert_eq!(there, 2);
    mock.resume(1);
    delivery.await?;
    client.close().await?;
    Ok(())
}

/// Half-open: only a time-out of the client finds out.
#[tokio::test(start_paused = true)]
async fn a_stranded_connection_says_nothing_and_a_new_one_works() -> Result<()> {
    let mock = MockCluster::builder().topic("t", 1).seed(2).start().await?;
    let client = mock.named_client_builder("c").build()?;
    let producer = client.producer().build()?;
    producer.send(Record::to("t").with_value("1")).await?;
    mock.network().client("c").strand();
    let sent = tokio::time::Instant::now();
    let delivery = producer.enqueue(Record::to("t").with_value("2")).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    mock.network().heal();
    assert_eq!(mock.records("t", 0).len(), 1, "it was swallowed");
    delivery.await?;
    let request_timeout = Duration::from_secs(30);
    assert!(sent.elapsed() >= request_timeout, "{:?}", sent.elapsed());
    assert_eq!(mock.records("t", 0).len(), 2);
    client.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_a_leader_has_in_its_log_is_not_written_again() -> Result<()> {
    let mock = MockCluster::builder().topic("t", 1).seed(2).start().await?;
    let client = mock.client();
    for code in [7, 20] {
        let rule = mock.on(Api::Produce).times(2).apply_then_fail(code);
        let before = mock.records("t", 0).len();
        let producer = client.producer().build()?;
        let at = producer.send(Record::to("t").with_value("v")).await?;
        assert_eq!(at.offset, Some(before as i64));
        assert_eq!((mock.records("t", 0).len(), rule.hits()), (before + 1, 2));
        producer.close_timeout(MINUTE).await.unwrap();
    }
    client.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn partitions_are_added_and_found_by_the_group() -> Result<()> {
    let mock = mock().await?;
    let client = mock.client_builder();
    let client = client.metadata_max_age(Duration::from_secs(1)).build()?;
    let mut consumer = client
        .consumer("g")
        .subscribe(["t"])
        .offset_reset(OffsetReset::Earliest)
        .build()?;
    let _ = consumer.poll_timeout(Duration::from_secs(5)).await?;
    assert_eq!(consumer.assignment().len(), 3);
    let membership = mock.group("g").unwrap().members[0].membership;
    assert!(mock.add_partitions("t", 2).is_err() && mock.add_partitions("u", 2).is_err());
    mock.add_partitions("t", 5)?;
    let _ = consumer.poll_timeout(Duration::from_secs(20)).await?;
    assert_eq!(consumer.assignment().len(), 5);
    assert_eq!(mock.group("g").unwrap().members[0].membership, membership);
    (1..=3).for_each(|broker| mock.kill(broker));
    assert!(!mock.is_alive(1) && mock.add_partitions("t", 6).is_err());
    client.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn members_that_are_silent_are_thrown_out() -> Result<()> {
    let mock = mock().await?;
    let client = mock.named_client_builder("silent").build()?;
    let mut consumer = client.consumer("g").subscribe(["t"]).build()?;
    let _ = tokio::time::timeout(Duration::from_secs(5), consumer.poll()).await;
    let group = mock.group("g").unwrap();
    assert_eq!(
        (group.state.as_str(), group.members[0].partitions.len()),
        ("Stable", 3)
    );
    mock.network().cut();
    mock.advance(MINUTE);
    assert_eq!(mock.group("g").unwrap().members.len(), 0);
    Ok(())
}

#[tokio::test]
async fn hostile_requests_are_refused_and_harm_nobody() -> Result<()> {
    let mock = builder().start().await?;
    let address = mock.bootstrap().split(',').next().unwrap().to_owned();
    let send = async |frame: Vec<u8>| {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(&frame).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    };
    let framed = |body: &[u8]| [&(body.len() as i32).to_be_bytes()[..], body].concat();
    // Impossible lengths, no header, an unknown key, an old version, a body that ends early, a huge
    // count.
    for frame in [
        vec![0x7f, 0xff, 0xff, 0xff, 0],
        vec![0xff; 4],
        framed(&[0, 0]),
        framed(&[0x7f, 0, 0, 0, 0, 0, 0, 1]),
        framed(&[0, 3, 0, 1, 0, 0, 0, 1, 0, 0]),
        framed(&[0, 3, 0, 12, 0, 0, 0, 1, 0, 0, 0]),
        framed(&[0, 3, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f]),
        framed(&[
            0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0x0f,
        ]),
    ] {
        assert_eq!(send(frame.clone()).await, b"", "{frame:?}");
    }
    assert_eq!(ProduceRequest::KEY, Api::Produce.key());
    // Every request of every key with a body of noise ends the connection or is answered.
    for api in Api::ALL {
        let (low, high) = api.versions();
        for version in low..=high {
            let mut body = [api.key().to_be_bytes(), version.to_be_bytes()].concat();
            body.extend([0, 0, 0, 1, 0xff, 0xff, 0]);
            body.extend((0..200_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8));
            let mut stream = TcpStream::connect(&address).await.unwrap();
            stream.write_all(&framed(&body)).await.unwrap();
            stream.shutdown().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }
    assert!(mock.shared.tasks.failure().is_none(), "nothing panicked");
    let client = mock.client();
    produce(&client, 3).await
}

#[tokio::test(start_paused = true)]
async fn a_newer_api_versions_is_answered_in_version_0() -> Result<()> {
    let mock = mock().await?;
    let at = broker::At {
        broker: 1,
        life: 1,
        listener: state::Listener::Memory,
    };
    let frame = bytes::Bytes::from_static(&[0, 18, 0, 9, 0, 0, 0, 5, 0xff, 0xff, 0]);
    let broker::Outcome::Answer(answer) = broker::handle(&mock.shared, &at, frame).await else {
        unreachable!("it is answered");
    };
    assert_eq!(
        answer[4..],
        [0, 0, 0, 5, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4]
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_cluster_leaves_nothing_behind() -> Result<()> {
    let mock = mock().await?;
    let client = mock.client();
    produce(&client, 3).await?;
    client.close().await?;
    let tasks = mock.shared.tasks.clone();
    drop(mock);
    tasks.idle().await;
    assert!(tasks.failure().is_none());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_pattern_of_the_brokers_finds_topics_that_are_there_and_that_come() -> Result<()> {
    let builder = MockCluster::builder().topic("eu-1", 1).topic("eu-1-old", 1);
    let mock = builder.auto_create(false).seed(4).start().await?;
    let client = mock.client();
    let builder = client.consumer("g");
    let builder = builder.subscribe_pattern(TopicPattern::broker_side("eu-."));
    let mut consumer = builder.build()?;
    let until = tokio::time::Instant::now() + Duration::from_secs(60);
    for expected in [&["eu-1"][..], &["eu-1", "eu-2"]] {
        let mut topics = Vec::new();
        while topics != expected {
            assert!(tokio::time::Instant::now() < until, "{topics:?}");
            consumer.poll_timeout(Duration::from_millis(100)).await?;
            let assigned = consumer.assignment().into_iter();
            topics = assigned.map(|tp| tp.topic().to_owned()).collect();
            topics.sort();
        }
        let topics = ["eu-2", "us"].map(|name| NewTopic::new(name).partitions(1));
        // The second time they are there.
        let _ = client.admin().create_topics(topics).await?;
    }
    consumer.subscribe_pattern(TopicPattern::broker_side("("))?;
    let error = loop {
        let batches = consumer.poll().await?.unwrap();
        if let [error] = batches.errors() {
            break error.clone();
        }
    };
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("`(`"), "{error}");
    Ok(())
}
