//! What a user is told who asks for the impossible.

use std::time::{Duration, Instant};

use ottla::{Certainty, Class, Client, ErrorKind, OffsetReset, Record, TopicPartition};

use crate::support::{Result, client, one, partition_error, unique};

const BLOCK: Duration = Duration::from_secs(2);

async fn refusal(client: &Client, record: Record<'_>) -> Result<ottla::Error> {
    let producer = client.producer().max_block(BLOCK).build()?;
    let start = Instant::now();
    let error = producer
        .send(record)
        .await
        .expect_err("the record is impossible");
    assert!(
        start.elapsed() < BLOCK + Duration::from_secs(2),
        "{:?}: {error}",
        start.elapsed()
    );
    assert_eq!(error.certainty(), Some(Certainty::NotSent), "{error}");
    Ok(error)
}

#[tokio::test]
async fn a_topic_that_nobody_creates() -> Result {
    let client = client(one().await?).await?;
    let error = refusal(&client, Record::to("no-such-topic").with_value("v")).await?;
    assert_eq!(error.kind(), ErrorKind::UnknownTopic);
    assert!(error.to_string().contains("no-such-topic"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_forbidden_name_is_refused_at_once() -> Result {
    let client = client(one().await?).await?;
    let start = Instant::now();
    let error = refusal(&client, Record::to("not/allowed").with_value("v")).await?;
    assert_eq!(error.kind(), ErrorKind::InvalidTopic);
    assert!(start.elapsed() < Duration::from_secs(1), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_partition_that_does_not_exist() -> Result {
    let (cluster, topic) = (one().await?, unique("few"));
    cluster.create_topic(&topic, 2, 1).await?;
    let client = client(cluster).await?;
    let error = refusal(
        &client,
        Record::to(&topic).with_partition(2).with_value("v"),
    )
    .await?;
    assert_eq!(error.kind(), ErrorKind::UnknownPartition);
    assert!(error.to_string().contains("it has 2"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_record_larger_than_a_request_may_be() -> Result {
    let (cluster, topic) = (one().await?, unique("large"));
    cluster.create_topic(&topic, 1, 1).await?;
    let client = client(cluster).await?;
    let large = vec![b'x'; 2 << 20];
    let error = refusal(&client, Record::to(&topic).with_value(&large)).await?;
    assert_eq!(
        (error.kind(), error.class()),
        (ErrorKind::RecordTooLarge, Class::Caller)
    );
    assert!(error.to_string().contains("max.request.size"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_header_larger_than_a_request_may_be() -> Result {
    let (cluster, topic) = (one().await?, unique("headers"));
    cluster.create_topic(&topic, 1, 1).await?;
    let client = client(cluster).await?;
    let name = "n".repeat(2 << 20);
    let error = refusal(&client, Record::to(&topic).with_header(&name, "v")).await?;
    assert_eq!(error.kind(), ErrorKind::RecordTooLarge);
    // One that fits is written as it is.
    let name = "n".repeat(500_000);
    let producer = client.producer().build()?;
    let record = Record::to(&topic).with_header(&name, "v");
    assert_eq!(producer.send(record).await?.offset, Some(0));
    Ok(())
}

#[tokio::test]
async fn a_time_before_1970_is_refused() -> Result {
    let (cluster, topic) = (one().await?, unique("times"));
    cluster.create_topic(&topic, 1, 1).await?;
    let client = client(cluster).await?;
    for millis in [-1, i64::MIN] {
        let record = Record::to(&topic).with_timestamp(ottla::Timestamp::from_millis(millis));
        let error = refusal(&client, record).await?;
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(&millis.to_string()), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_closed_producer_takes_nothing() -> Result {
    let (cluster, topic) = (one().await?, unique("closed"));
    cluster.create_topic(&topic, 1, 1).await?;
    let client = client(cluster).await?;
    let producer = client.producer().build()?;
    let clone = producer.clone();
    producer.close_timeout(BLOCK).await.unwrap();
    let record = || Record::to(&topic).with_value("v");
    for error in [
        clone.enqueue(record()).await.unwrap_err(),
        clone.try_enqueue(record()).unwrap_err(),
        clone.send(record()).await.unwrap_err(),
        clone.enqueue_all([record()]).await.unwrap_err(),
        clone
            .topic(topic.as_str())
            .enqueue(record())
            .await
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        assert_eq!(error.certainty(), Some(Certainty::NotSent), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_record_larger_than_the_topic_takes_fails_alone() -> Result {
    let (cluster, topic) = (one().await?, unique("small"));
    cluster
        .create_topic_with(&topic, 1, 1, &[("max.message.bytes", "10000")])
        .await?;
    let client = client(cluster).await?;
    let producer = client.producer().build()?;
    let large = vec![b'x'; 20_000];
    let before = producer
        .enqueue(Record::to(&topic).with_value("before"))
        .await?;
    let refused = producer
        .enqueue(Record::to(&topic).with_value(&large))
        .await?;
    let after = producer
        .enqueue(Record::to(&topic).with_value("after"))
        .await?;
    let error = refused.await.expect_err("it is too large");
    assert_eq!(
        (error.kind(), error.certainty()),
        (ErrorKind::RecordTooLarge, Some(Certainty::NotSent))
    );
    assert_eq!(before.await?.offset, Some(0));
    assert_eq!(after.await?.offset, Some(1));
    Ok(())
}

#[tokio::test]
async fn without_acks_the_offset_is_unknown_and_the_record_arrives() -> Result {
    let (cluster, topic) = (one().await?, unique("acks"));
    cluster.create_topic(&topic, 1, 1).await?;
    let client = client(cluster).await?;
    for (acks, offset) in [
        (ottla::Acks::None, None),
        (ottla::Acks::Leader, Some(1)),
        (ottla::Acks::All, Some(2)),
    ] {
        let producer = client.producer().acks(acks).build()?;
        assert_eq!(
            producer
                .send(Record::to(&topic).with_value("v"))
                .await?
                .offset,
            offset,
            "{acks:?}"
        );
        producer.close_timeout(BLOCK).await.unwrap();
    }
    Ok(())
}

#[tokio::test]
async fn no_position_and_no_reset_is_a_typed_error() -> Result {
    let (cluster, topic) = (one().await?, unique("none"));
    cluster.create_topic(&topic, 1, 1).await?;
    let client = client(cluster).await?;
    let mut consumer = client
        .consumer(unique("group"))
        .assign([TopicPartition::new(topic.as_str(), 0)])
        .offset_reset(OffsetReset::None)
        .build()?;
    let error = partition_error(&mut consumer).await?;
    assert_eq!(error.kind(), ErrorKind::Offset);
    assert!(error.to_string().contains("auto.offset.reset"), "{error}");
    Ok(())
}
