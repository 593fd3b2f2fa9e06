//! What other tasks can do with a consumer through its handle, and what is asked about topics
//! besides. Against the mock cluster on a paused clock.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use ottla::mock::MockCluster;
use ottla::{
    Consumer, ErrorKind, OffsetAndMetadata, OffsetReset, Record, Timestamp, TopicPartition,
};
use tokio::time::timeout;

const SECOND: Duration = Duration::from_secs(1);

async fn cluster() -> MockCluster {
    let mock = MockCluster::builder().brokers(2).topic("t", 2).seed(8);
    let mock = mock.auto_create(false).start().await.unwrap();
    let producer = mock.client().producer().build().unwrap();
    for number in 0..10 {
        let record = Record::to("t").with_partition(0).with_value("v");
        let record = record.with_timestamp(Timestamp::from_millis(1000 + number));
        producer.send(record).await.unwrap();
    }
    mock
}

/// The offsets of the next poll that has any.
async fn offsets(consumer: &mut Consumer) -> Vec<i64> {
    let mut offsets = Vec::new();
    while offsets.is_empty() {
        let batches = timeout(60 * SECOND, consumer.poll()).await.unwrap();
        for record in batches.unwrap().unwrap().iter().flatten() {
            offsets.push(record.unwrap().offset());
        }
    }
    offsets
}

#[tokio::test(start_paused = true)]
async fn a_handle_looks_and_moves_from_other_tasks() {
    let mock = cluster().await;
    let client = mock.client();
    let builder = client.consumer("g").subscribe(["t"]);
    let builder = builder
        .offset_reset(OffsetReset::Earliest)
        .auto_commit(false);
    let mut consumer = builder.group_instance_id("i").build().unwrap();
    assert_eq!(consumer.group_metadata().member_epoch(), -1);
    assert_eq!(offsets(&mut consumer).await.len(), 10);
    consumer.commit().await.unwrap();
    let handle = consumer.handle();
    let (tp, other) = (TopicPartition::new("t", 0), TopicPartition::new("t", 1));
    let looked = tokio::spawn(async move {
        assert!(handle.group_metadata().member_epoch() > 0);
        assert_eq!(handle.group_metadata().instance_id(), Some("i"));
        assert_eq!(handle.position(&tp), Some(10));
        assert_eq!(handle.position(&TopicPartition::new("t", 7)), None);
        let committed = handle.committed([&tp]).await.unwrap();
        assert_eq!(committed[&tp].offset(), 10);
        let both = [&tp, &other];
        let beginnings = handle.beginning_offsets(both).await.unwrap();
        assert_eq!((beginnings[&tp], beginnings[&other]), (0, 0));
        let ends = handle.end_offsets(both).await.unwrap();
        assert_eq!((ends[&tp], ends[&other]), (10, 0));
        let at = Timestamp::from_millis(1007);
        let times = [(tp.clone(), at), (other.clone(), at)];
        let found = handle.offsets_for_times(times).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[&tp], (7, at));
        let wrong = [(tp.clone(), Timestamp::from_millis(-1))];
        let error = handle.offsets_for_times(wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        handle.pause(std::slice::from_ref(&other)).unwrap();
        assert_eq!(handle.paused(), [other]);
        handle.seek_to_beginning([&tp]).unwrap();
        let strange = TopicPartition::new("t", 7);
        for refused in [
            handle.seek_to_beginning([&strange]),
            handle.seek_to_end([&strange]),
            handle.seek_to_offset(&strange, &OffsetAndMetadata::new(0)),
        ] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert_eq!(error.topic_partition(), Some(&strange));
        }
        (handle, tp)
    });
    let (handle, tp) = looked.await.unwrap();
    assert_eq!(offsets(&mut consumer).await[0], 0);
    handle.seek_to_end([&tp]).unwrap();
    while handle.position(&tp) != Some(10) {
        consumer.poll_timeout(SECOND).await.unwrap();
    }
    let to = OffsetAndMetadata::new(6).with_leader_epoch(Some(0));
    handle.seek_to_offset(&tp, &to).unwrap();
    assert_eq!(offsets(&mut consumer).await, [6, 7, 8, 9]);
    consumer.close_timeout(60 * SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_offset_with_its_epoch_notices_that_the_log_was_cut() {
    let mock = cluster().await;
    // Another leader, which lacks what the first one had from 5 on, and has gone on otherwise.
    let (leader, _) = mock.leader("t", 0).unwrap();
    mock.truncate("t", 0, 5).unwrap();
    mock.move_leader("t", 0, 3 - leader).unwrap();
    let client = mock.client();
    let producer = client.producer().build().unwrap();
    for _ in 0..10 {
        let record = Record::to("t").with_partition(0).with_value("other");
        producer.send(record).await.unwrap();
    }
    let tp = TopicPartition::new("t", 0);
    let reader = client.reader().assign([tp.clone()]);
    let reader = reader.offset_reset(OffsetReset::None);
    let mut reader = reader.build().unwrap();
    reader.seek(&tp, 8).unwrap();
    assert_eq!(offsets(&mut reader).await[0], 8, "nobody can tell");
    let kept = OffsetAndMetadata::new(8).with_leader_epoch(Some(0));
    reader.seek_to_offset(&tp, &kept).unwrap();
    let batches = timeout(60 * SECOND, reader.poll()).await.unwrap();
    let batches = batches.unwrap().unwrap();
    let error = &batches.errors()[0];
    assert_eq!(error.kind(), ErrorKind::Offset, "{error}");
    assert_eq!(error.topic_partition(), Some(&tp));
}

#[tokio::test(start_paused = true)]
async fn producers_and_consumers_tell_the_partitions_of_a_topic() {
    let mock = cluster().await;
    let client = mock.client();
    let producer = client.producer().build().unwrap();
    let reader = client.reader().assign([TopicPartition::new("t", 0)]);
    let reader = reader.build().unwrap();
    let told = producer.partitions_for("t").await.unwrap();
    assert_eq!(told, reader.partitions_for("t").await.unwrap());
    assert_eq!(told.len(), 2);
    let leader = told[1].leader.map(ottla::BrokerId::get);
    assert_eq!(leader, mock.leader("t", 1).map(|(broker, _)| broker));
    let error = producer.partitions_for("u").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopic, "{error}");
    assert_eq!(mock.topics().len(), 1, "and makes none");
}
