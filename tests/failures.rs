//! What a producer could not write is told by `flush` and `close`, unless its delivery told it.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use ottla::mock::{Api, MockCluster};
use ottla::{Certainty, Client, ErrorKind, Producer, Purge, Record};

const SECOND: Duration = Duration::from_secs(1);
const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
const UNKNOWN_SERVER_ERROR: i16 = -1;

async fn cluster() -> (MockCluster, Client) {
    let mock = MockCluster::builder()
        .topic("orders", 3)
        .in_memory()
        .seed(3);
    let mock = mock.start().await.unwrap();
    let client = mock.client();
    (mock, client)
}

async fn producer() -> (MockCluster, Producer) {
    let (mock, client) = cluster().await;
    (mock, client.producer().build().unwrap())
}

fn record<'a>() -> Record<'a> {
    Record::to("orders").with_partition(0).with_value("v")
}

/// The body of the first program in the README.
#[rustfmt::skip]
async fn first_program(client: Client) -> ottla::Result<()> {
    let producer = client.producer().build()?;
    for number in 0..1000 {
        let value = format!("order {number}");
        let record = Record::to("orders").with_key("customer-7").with_value(&value);
        producer.enqueue(record).await?; // sent, retried, in order
    }
    producer.flush().await?; // an error if any was not written; or await each `enqueue`'s delivery
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_first_program_of_the_readme_fails_if_nothing_is_written() {
    let body = |text: &'static str, from: &str| {
        let lines = text.lines().skip_while(|line| !line.starts_with(from));
        lines
            .skip(1)
            .take_while(|line| *line != "}")
            .collect::<Vec<_>>()
    };
    let shown = body(include_str!("../README.md"), "async fn main");
    let run = body(include_str!("failures.rs"), "async fn first_program");
    assert_eq!(shown[1..], run, "the program is that of the README");
    let (mock, client) = cluster().await;
    first_program(client.clone()).await.unwrap();
    mock.on(Api::Produce).fail(TOPIC_AUTHORIZATION_FAILED);
    let error = first_program(client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authorization);
    assert_eq!(error.code().unwrap().get(), TOPIC_AUTHORIZATION_FAILED);
    assert_eq!(error.certainty(), Some(Certainty::NotSent));
    assert_eq!(error.topic_partition().unwrap().topic(), "orders");
    assert!(error.to_string().contains("1000 records"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_flush_tells_once_of_what_nobody_was_told() {
    let (mock, producer) = producer().await;
    mock.on(Api::Produce)
        .times(1)
        .fail(TOPIC_AUTHORIZATION_FAILED);
    let kept = producer.enqueue(record()).await.unwrap();
    drop(producer.enqueue(record()).await.unwrap());
    let error = producer.flush().await.unwrap_err();
    assert!(error.to_string().contains("2 records"), "{error}");
    producer.flush().await.unwrap();
    // A delivery tells the truth whatever a flush said.
    kept.await.unwrap_err();
    // One outcome that is not known makes that of all unknown.
    mock.on(Api::Produce)
        .times(1)
        .fail(TOPIC_AUTHORIZATION_FAILED);
    drop(producer.enqueue(record()).await.unwrap());
    tokio::time::sleep(SECOND).await;
    mock.on(Api::Produce).times(1).fail(UNKNOWN_SERVER_ERROR);
    drop(producer.enqueue(record()).await.unwrap());
    let error = producer.flush().await.unwrap_err();
    assert_eq!(error.code().unwrap().get(), TOPIC_AUTHORIZATION_FAILED);
    assert_eq!(error.certainty(), Some(Certainty::MaybeWritten));
    producer.send(record()).await.unwrap();
    producer.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_delivery_told_is_not_told_by_a_flush_but_counted_by_a_close() {
    let (mock, producer) = producer().await;
    let topic = producer.topic("orders");
    mock.on(Api::Produce).fail(TOPIC_AUTHORIZATION_FAILED);
    producer.send(record()).await.unwrap_err();
    topic.send(record()).await.unwrap_err();
    producer.enqueue(record()).await.unwrap().await.unwrap_err();
    producer.try_enqueue(record()).unwrap().await.unwrap_err();
    let many = (0..30).map(|number| Record::to("orders").with_partition(number % 3));
    producer
        .enqueue_all(many.clone())
        .await
        .unwrap()
        .await
        .unwrap_err();
    topic.enqueue_all(many).await.unwrap().await.unwrap_err();
    producer.flush().await.unwrap();
    // What the application dropped itself is no news to it.
    let purged = producer.enqueue(record()).await.unwrap();
    assert_eq!(producer.purge(Purge::Unsent).not_sent, 1);
    drop(purged);
    producer.flush().await.unwrap();
    let report = producer.close_timeout(SECOND).await.unwrap();
    assert_eq!(report.failed, 64);
}

#[tokio::test(start_paused = true)]
async fn a_close_tells_what_was_left() {
    let (mock, producer) = producer().await;
    let other = producer.clone();
    producer.send(record()).await.unwrap();
    mock.on(Api::Produce).delay(1_000 * SECOND);
    drop(producer.enqueue(record()).await.unwrap());
    tokio::time::sleep(SECOND).await;
    drop(producer.enqueue(record()).await.unwrap());
    let error = producer.close_timeout(SECOND).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    assert_eq!(error.certainty(), Some(Certainty::MaybeWritten));
    assert!(error.to_string().contains("2 records"), "{error}");
    other.flush().await.unwrap();

    let (_mock, producer) = self::producer().await;
    let other = producer.clone();
    producer.send(record()).await.unwrap();
    producer.close_timeout(SECOND).await.unwrap();
    other.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_code_that_nobody_knows_ends_its_batch_at_once() {
    let (mock, producer) = producer().await;
    producer.send(record()).await.unwrap();
    // One of the future, and one that says nothing about batches: OFFSET_OUT_OF_RANGE.
    for code in [9999, 1] {
        mock.on(Api::Produce).times(1).fail(code);
        let error = producer.send(record()).await.unwrap_err();
        assert_eq!(error.code().unwrap().get(), code);
        assert!(error.to_string().contains(&code.to_string()), "{error}");
        assert_eq!(error.certainty(), Some(Certainty::MaybeWritten));
    }
    let metrics = producer.metrics();
    assert_eq!((metrics.retries, metrics.requests), (0, 3));
    // The producer goes on.
    producer.send(record()).await.unwrap();
}
