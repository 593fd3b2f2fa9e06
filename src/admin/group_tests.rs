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

/// A group in each of the six names, with one offset committed.
async fn six_groups(mock: &MockCluster) -> [String; 6] {
    let tp = TopicPartition::new("t", 1);
    let groups = [0, 1, 2, 3, 4, 5].map(|number| format!("group-{number}"));
    for (group, offset) in groups.iter().zip(0..) {
        let client = mock.client();
        let consumer = client.consumer(group).assign([tp.clone()]);
        let consumer = consumer.auto_commit(false).build().unwrap();
        let offset = OffsetAndMetadata::new(offset);
        let committed = consumer.commit_offsets([(tp.clone(), offset)]).await;
        committed.unwrap();
    }
    groups
}

#[tokio::test(start_paused = true)]
async fn groups_of_one_coordinator_share_a_request() {
    let mock = behind().await;
    let groups = six_groups(&mock).await;
    let client = mock.client();
    let seen = [
        Api::FindCoordinator,
        Api::OffsetFetch,
        Api::ConsumerGroupDescribe,
        Api::ListOffsets,
    ]
    .map(|api| mock.on(api).delay(Duration::ZERO));
    let lags = client.admin().group_lags(groups.clone()).await.unwrap();
    let order: Vec<_> = lags.iter().map(|(group, _)| group.clone()).collect();
    assert_eq!(order, groups, "in the order of the call");
    for (group, lag) in &lags {
        let partitions = lag.as_ref().unwrap().partitions();
        assert_eq!(partitions.len(), 1, "{group}");
    }
    let [found, fetched, described, listed] = seen.map(|rule| rule.hits());
    // Committed offsets and members are asked for side by side: each looks for the coordinators.
    assert_eq!(found, 2, "all coordinators in one request");
    assert!((2..=3).contains(&fetched), "one to each broker: {fetched}");
    assert!((2..=3).contains(&described), "one to each: {described}");
    assert_eq!(
        listed, 2,
        "the partition's end and its newest record, once for all groups"
    );
}

#[tokio::test(start_paused = true)]
async fn groups_whose_coordinator_moved_are_asked_for_there() {
    let mock = behind().await;
    let groups = six_groups(&mock).await;
    let client = mock.client();
    let admin = client.admin();
    let lags = admin.group_lags(groups.clone()).await.unwrap();
    assert_eq!(lags.errors().count(), 0);
    let at = mock.coordinator(&groups[0]).unwrap();
    mock.move_coordinator(&groups[0], (at + 1) % 3).unwrap();
    let found = mock.on(Api::FindCoordinator).delay(Duration::ZERO);
    let lags = admin.group_lags(groups.clone()).await.unwrap();
    assert_eq!(lags.errors().count(), 0);
    let lag = lags.get(&groups[0]).unwrap().as_ref().unwrap();
    assert_eq!(lag.partitions().len(), 1);
    assert!((1..=2).contains(&found.hits()), "for offsets and members");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_answer_holds_back_its_groups_alone() {
    let mock = behind().await;
    let groups = six_groups(&mock).await;
    let client = mock.client();
    let admin = client.admin().with_timeout(5 * SECOND);
    let slow = mock.coordinator(&groups[0]).unwrap();
    mock.on(Api::OffsetFetch).broker(slow).delay(3600 * SECOND);
    let lags = admin.group_lags(groups).await.unwrap();
    for (group, lag) in &lags {
        let expected = (mock.coordinator(group) == Some(slow)).then_some(ErrorKind::Timeout);
        assert_eq!(lag.as_ref().err().map(|error| error.kind()), expected);
    }
    let errors = lags.errors().count();
    assert!((1..6).contains(&errors), "{errors}");
}
