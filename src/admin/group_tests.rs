//! Groups as the mock cluster knows them, on a paused clock.

use std::time::Duration;

use crate::admin::NewTopic;
use crate::mock::{Api, MockCluster};
use crate::{ErrorKind, OffsetAndMetadata, Record, TimeLag, Timestamp, TopicPartition};

const SECOND: Duration = Duration::from_secs(1);
const UNKNOWN_SERVER_ERROR: i16 = -1;
const NOT_LEADER_OR_FOLLOWER: i16 = 6;
const NOT_COORDINATOR: i16 = 16;

/// Four records in `t-0`, a second apart in their timestamps; the group `g` has committed 2 of
/// them.
async fn behind() -> MockCluster {
    let builder = MockCluster::builder().brokers(3).topic("t", 2).seed(3);
    let mock = builder.start().await.unwrap();
    let client = mock.client();
    let producer = client.producer().build().unwrap();
    for second in 0..4 {
        let record = Record::to("t").with_partition(0).with_value("v");
        let record = record.with_timestamp(Timestamp::from_millis(1000 * second));
        producer.send(record).await.unwrap();
    }
    let tp = TopicPartition::new("t", 0);
    let consumer = client.consumer("g").assign([tp.clone()]).auto_commit(false);
    let consumer = consumer.build().unwrap();
    let two = OffsetAndMetadata::new(2);
    consumer.commit_offsets([(tp, two)]).await.unwrap();
    mock
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_asked_for_again() {
    let mock = behind().await;
    for api in [Api::OffsetFetch, Api::ConsumerGroupDescribe] {
        mock.on(api).times(2).fail(NOT_COORDINATOR);
    }
    mock.on(Api::ListOffsets)
        .times(2)
        .fail(NOT_LEADER_OR_FOLLOWER);
    let lag = mock.client().admin().group_lag("g").await.unwrap();
    let lag = lag.get(&TopicPartition::new("t", 0)).unwrap();
    assert!(lag.error.is_none(), "{lag:?}");
    assert_eq!((lag.end_offset, lag.records), (Some(4), Some(2)));
    assert_eq!(lag.behind_newest, TimeLag::Behind(2 * SECOND));
    assert!(lag.time.duration() > Some(3600 * SECOND), "since 1970");
}

#[tokio::test(start_paused = true)]
async fn one_partition_that_is_gone_hides_nothing_about_the_others() {
    let mock = behind().await;
    let client = mock.client();
    let admin = client.admin();
    let gone = TopicPartition::new("gone", 0);
    let created = admin.create_topics([NewTopic::new("gone")]).await.unwrap();
    created.all().unwrap();
    let consumer = client.consumer("g").assign([gone.clone()]);
    let consumer = consumer.auto_commit(false).build().unwrap();
    let one = OffsetAndMetadata::new(1);
    consumer
        .commit_offsets([(gone.clone(), one)])
        .await
        .unwrap();
    admin.delete_topics(["gone"]).await.unwrap().all().unwrap();
    let lag = admin.group_lag("g").await.unwrap();
    assert_eq!(lag.records(), 2);
    // Kafka's coordinator forgets the offset, the mock may keep it.
    if let Some(lag) = lag.get(&gone) {
        let error = lag.error.as_ref().unwrap();
        assert_eq!(error.kind(), ErrorKind::UnknownTopic, "{error}");
        assert_eq!((lag.records, lag.time), (None, TimeLag::Unknown));
    }
}

#[tokio::test(start_paused = true)]
async fn ages_that_cannot_be_learnt_are_unknown_and_records_are_told_all_the_same() {
    let mock = behind().await;
    mock.on(Api::Fetch).fail(UNKNOWN_SERVER_ERROR);
    let lag = mock.client().admin().group_lag("g").await.unwrap();
    assert_eq!(lag.records(), 2);
    assert_eq!(lag.time(), TimeLag::Unknown);
}

#[tokio::test(start_paused = true)]
async fn what_retention_took_does_not_make_the_age_unknown() {
    let mock = behind().await;
    mock.delete_records("t", 0, 3).unwrap();
    let lag = mock.client().admin().group_lag("g").await.unwrap();
    let lag = lag.get(&TopicPartition::new("t", 0)).unwrap();
    assert_eq!(lag.records, Some(2), "as Kafka's tool counts");
    assert!(matches!(lag.time, TimeLag::Behind(_)), "{lag:?}");
    assert_eq!(lag.behind_newest, TimeLag::Unknown);
}

#[tokio::test(start_paused = true)]
async fn groups_of_all_brokers_are_listed_and_one_that_is_none_is_an_error() {
    let mock = behind().await;
    let client = mock.client();
    let mut members = Vec::new();
    for group in ["a", "b", "c", "d"] {
        let member = client.consumer(group).subscribe(["t"]);
        let mut member = member.build().unwrap();
        while member.assignment().is_empty() {
            member.poll_timeout(SECOND / 10).await.unwrap();
        }
        members.push(member);
    }
    let admin = client.admin();
    let listed = admin.list_groups().await.unwrap();
    let names: Vec<_> = listed.iter().map(|listed| listed.group.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d", "g"]);
    let described = admin.describe_group("b").await.unwrap();
    assert_eq!(described.members.len(), 1);
    assert_eq!(described.members[0].partitions.len(), 2);
    let error = admin.describe_group("nobody").await.unwrap_err();
    assert_eq!(error.code().map(|code| code.get()), Some(69), "{error}");
}
