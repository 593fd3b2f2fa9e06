//! Changes to groups, their offsets, logs and configurations of the mock cluster, on a paused
//! clock.

use std::time::Duration;

use super::*;
use crate::mock::{Api, MockCluster};
use crate::{
    Client, Consumer, ErrorKind, GroupProtocol, IsolationLevel, OffsetAndMetadata, Record,
    Timestamp, TopicPartition,
};

const SECOND: Duration = Duration::from_secs(1);
const UNKNOWN_MEMBER_ID: i16 = 25;
const NON_EMPTY_GROUP: i16 = 68;
const GROUP_ID_NOT_FOUND: i16 = 69;
const GROUP_SUBSCRIBED_TO_TOPIC: i16 = 86;
const NOT_COORDINATOR: i16 = 16;

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

/// Ten records in `t-0`, a second apart, of which the first two are gone, and none in `t-1`.
async fn mock() -> (MockCluster, Client) {
    let builder = MockCluster::builder().brokers(3).topic("t", 2).seed(3);
    let mock = builder.start().await.unwrap();
    let client = mock.client();
    let producer = client.producer().build().unwrap();
    for second in 0..10 {
        let record = Record::to("t").with_partition(0).with_value("v");
        let record = record.with_timestamp(Timestamp::from_millis(1000 * second));
        producer.send(record).await.unwrap();
    }
    mock.delete_records("t", 0, 2).unwrap();
    (mock, client)
}

async fn member(client: &Client, group: &str, protocol: GroupProtocol) -> Consumer {
    let consumer = client.consumer(group).subscribe(["t"]);
    let mut consumer = consumer.group_protocol(protocol).build().unwrap();
    while consumer.assignment().is_empty() {
        consumer.poll_timeout(SECOND / 10).await.unwrap();
    }
    consumer
}

fn code<T>(result: Option<&crate::Result<T>>) -> Option<i16> {
    let error = result.unwrap().as_ref().err()?;
    Some(error.code().unwrap().get())
}

fn at(offset: i64) -> OffsetAndMetadata {
    OffsetAndMetadata::new(offset)
}

async fn committed(admin: &Admin, group: &str) -> Vec<(i32, i64)> {
    let offsets = admin.group_offsets(group).await.unwrap();
    let offsets = offsets.iter();
    offsets
        .map(|(tp, found)| (tp.partition(), found.offset()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn offsets_of_groups_are_committed_listed_and_deleted_from_outside() {
    let (mock, client) = mock().await;
    let admin = client.admin();
    let offsets = [(tp(0), at(4).with_metadata("by hand")), (tp(1), at(0))];
    let altered = admin.alter_group_offsets("g", offsets).await.unwrap();
    altered.all().unwrap();
    admin
        .alter_group_offsets("h", [(tp(0), at(7))])
        .await
        .unwrap()
        .all()
        .unwrap();
    let listed = admin.list_group_offsets(["h", "g", "nobody"]).await;
    let listed = listed.unwrap();
    let groups: Vec<_> = listed.iter().map(|(group, _)| group.as_str()).collect();
    assert_eq!(groups, ["h", "g", "nobody"]);
    let of = |group: &str| listed.get(group).unwrap().as_ref().unwrap();
    assert_eq!(of("g")[&tp(0)].metadata(), "by hand");
    assert_eq!(
        (of("g").len(), of("h").len(), of("nobody").len()),
        (2, 1, 0)
    );

    // What may pass is tried again, for the partition that is not there it is no use.
    mock.on(Api::OffsetCommit).times(2).fail(NOT_COORDINATOR);
    mock.on(Api::OffsetDelete).times(2).fail(NOT_COORDINATOR);
    let altered = admin
        .alter_group_offsets("g", [(tp(7), at(1)), (tp(1), at(3))])
        .await
        .unwrap();
    assert_eq!(code(altered.get(&tp(7))), Some(3));
    assert_eq!(code(altered.get(&tp(1))), None);
    assert_eq!(committed(&admin, "g").await, [(0, 4), (1, 3)]);

    let deleted = admin
        .delete_group_offsets("g", [tp(0), tp(7)])
        .await
        .unwrap();
    assert_eq!(code(deleted.get(&tp(0))), None);
    assert_eq!(code(deleted.get(&tp(7))), Some(3));
    assert_eq!(committed(&admin, "g").await, [(1, 3)]);
    let deleted = admin.delete_group_offsets("nobody", [tp(0)]).await.unwrap();
    assert_eq!(code(deleted.get(&tp(0))), Some(GROUP_ID_NOT_FOUND));
}

#[tokio::test(start_paused = true)]
async fn a_group_with_members_keeps_its_offsets() {
    let (_mock, client) = mock().await;
    let admin = client.admin();
    for protocol in [GroupProtocol::Consumer, GroupProtocol::Classic] {
        let group = format!("{protocol:?}");
        let consumer = member(&client, &group, protocol).await;
        let altered = admin.alter_group_offsets(&group, [(tp(0), at(5))]).await;
        let altered = altered.unwrap();
        let error = altered.errors().next().unwrap().1;
        assert_eq!(error.kind(), ErrorKind::Group, "{error}");
        assert!(error.to_string().contains("must be stopped"), "{error}");
        let deleted = admin.delete_group_offsets(&group, [tp(0)]).await.unwrap();
        assert_eq!(code(deleted.get(&tp(0))), Some(GROUP_SUBSCRIBED_TO_TOPIC));
        for dry_run in [true, false] {
            let reset = ResetGroupOffsets::new(ResetTo::Earliest).dry_run(dry_run);
            let error = admin.reset_group_offsets(&group, reset.topics(["t"])).await;
            let error = error.unwrap_err();
            let code = error.code().map(|code| code.get());
            assert_eq!(code, Some(NON_EMPTY_GROUP), "{error}");
        }
        let deleted = admin.delete_groups([&group]).await.unwrap();
        assert_eq!(code(deleted.get(&group)), Some(NON_EMPTY_GROUP));
        drop(consumer);
    }
}

#[tokio::test(start_paused = true)]
async fn offsets_are_reset_within_the_logs_and_a_dry_run_commits_nothing() {
    let (mock, client) = mock().await;
    let admin = client.admin();
    let start = [(tp(0), at(5))];
    admin
        .alter_group_offsets("g", start)
        .await
        .unwrap()
        .all()
        .unwrap();
    let commits = mock.on(Api::OffsetCommit).delay(Duration::ZERO);
    let whole = |to| ResetGroupOffsets::new(to).topics(["t"]);
    let time = |seconds: i64| ResetTo::Time(Timestamp::from_millis(1000 * seconds));
    for (to, expected) in [
        (ResetTo::Earliest, [2, 0]),
        (ResetTo::Latest, [10, 0]),
        (time(7), [7, 0]),
        (time(70), [10, 0]),
        (ResetTo::Offset(8), [8, 0]),
        (ResetTo::Offset(-8), [2, 0]),
        (ResetTo::Offset(800), [10, 0]),
    ] {
        let plan = admin
            .reset_group_offsets("g", whole(to).dry_run(true))
            .await;
        let plan = plan.unwrap();
        let before: Vec<_> = plan
            .iter()
            .map(|(_, reset)| reset.as_ref().unwrap().before)
            .collect();
        assert_eq!(before, [Some(5), None]);
        let after: Vec<_> = plan
            .iter()
            .map(|(_, reset)| reset.as_ref().unwrap().after)
            .collect();
        assert_eq!(after, expected, "{to:?}");
    }
    assert_eq!(commits.hits(), 0);
    assert_eq!(committed(&admin, "g").await, [(0, 5)]);

    // What nothing is committed of cannot be shifted; the rest is.
    let shifted = admin
        .reset_group_offsets("g", whole(ResetTo::ShiftBy(2)))
        .await;
    let shifted = shifted.unwrap();
    assert_eq!(shifted.errors().next().unwrap().0, &tp(1));
    assert_eq!(shifted.errors().next().unwrap().1.kind(), ErrorKind::Offset);
    assert_eq!(committed(&admin, "g").await, [(0, 7)]);
    // By default what is committed.
    let reset = ResetGroupOffsets::new(ResetTo::Latest);
    let reset = admin.reset_group_offsets("g", reset).await.unwrap();
    assert_eq!(reset.len(), 1);
    assert_eq!(committed(&admin, "g").await, [(0, 10)]);
    let reset = ResetGroupOffsets::new(ResetTo::Earliest).partitions([tp(1)]);
    admin
        .reset_group_offsets("g", reset)
        .await
        .unwrap()
        .all()
        .unwrap();
    assert_eq!(committed(&admin, "g").await, [(0, 10), (1, 0)]);
    // A group that nobody has seen begins there.
    let reset = admin
        .reset_group_offsets("new", whole(ResetTo::Earliest))
        .await;
    reset.unwrap().all().unwrap();
    assert_eq!(committed(&admin, "new").await, [(0, 2), (1, 0)]);
    let negative = whole(ResetTo::Time(Timestamp::from_millis(-1)));
    let error = admin.reset_group_offsets("g", negative).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn groups_are_deleted_and_a_lost_answer_is_told() {
    let (mock, client) = mock().await;
    let admin = client.admin();
    for group in ["a", "b", "c"] {
        let altered = admin.alter_group_offsets(group, [(tp(0), at(1))]).await;
        altered.unwrap().all().unwrap();
    }
    let deleted = admin.delete_groups(["a", "nobody"]).await.unwrap();
    assert_eq!(code(deleted.get("a")), None);
    assert_eq!(code(deleted.get("nobody")), Some(GROUP_ID_NOT_FOUND));
    let text = deleted.errors().next().unwrap().1.to_string();
    assert!(!text.contains("earlier attempt"), "{text}");
    mock.on(Api::DeleteGroups).times(1).apply_then_drop();
    let deleted = admin.delete_groups(["b"]).await.unwrap();
    let text = deleted.errors().next().unwrap().1.to_string();
    assert!(text.contains("earlier attempt may have deleted"), "{text}");
    assert!(mock.group("b").is_none());
    let listed = admin.list_groups().await.unwrap();
    let names: Vec<_> = listed.iter().map(|group| group.group.as_str()).collect();
    assert_eq!(names, ["c"]);
}

#[tokio::test(start_paused = true)]
async fn members_of_a_classic_group_are_removed_one_by_one_or_all() {
    let (mock, client) = mock().await;
    let admin = client.admin();
    let first = client.consumer("g").subscribe(["t"]);
    let first = first.group_protocol(GroupProtocol::Classic);
    let mut first = first.group_instance_id("one").build().unwrap();
    while first.assignment().is_empty() {
        first.poll_timeout(SECOND / 10).await.unwrap();
    }
    let nobody = GroupMember::Id("nobody".to_owned());
    let one = GroupMember::Instance("one".to_owned());
    let these = MembersToRemove::these([one.clone(), nobody.clone()]).reason("it hangs");
    let removed = admin.remove_members_from_group("g", these).await.unwrap();
    assert_eq!(code(removed.get(&one)), None);
    assert_eq!(code(removed.get(&nobody)), Some(UNKNOWN_MEMBER_ID));
    assert!(mock.group("g").unwrap().members.is_empty());
    drop(first);

    // All of them: who has a name that it keeps goes by that.
    let named = client.consumer("h").subscribe(["t"]);
    let named = named.group_protocol(GroupProtocol::Classic);
    let mut named = named.group_instance_id("two").build().unwrap();
    while named.assignment().is_empty() {
        named.poll_timeout(SECOND / 10).await.unwrap();
    }
    let removed = admin
        .remove_members_from_group("h", MembersToRemove::all())
        .await;
    let removed = removed.unwrap();
    let two = GroupMember::Instance("two".to_owned());
    assert_eq!((removed.len(), code(removed.get(&two))), (1, None));
    let _running = member(&client, "i", GroupProtocol::Classic).await;
    let removed = admin
        .remove_members_from_group("i", MembersToRemove::all())
        .await;
    let removed = removed.unwrap();
    assert_eq!(removed.len(), 1);
    removed.all().unwrap();
}

#[tokio::test(start_paused = true)]
async fn offsets_of_logs_are_listed_and_records_deleted_at_the_leaders() {
    let (mock, client) = mock().await;
    let admin = client.admin();
    let level = IsolationLevel::ReadUncommitted;
    let list = async |spec| {
        let listed = admin.list_offsets([(tp(0), spec)], level).await.unwrap();
        listed.all().unwrap().remove(0)
    };
    assert_eq!(list(OffsetSpec::Earliest).await.offset, Some(2));
    let latest = list(OffsetSpec::Latest).await;
    assert_eq!((latest.offset, latest.timestamp), (Some(10), None));
    let newest = list(OffsetSpec::MaxTimestamp).await;
    let time = Some(Timestamp::from_millis(9000));
    assert_eq!((newest.offset, newest.timestamp), (Some(9), time));
    let time = OffsetSpec::Time(Timestamp::from_millis(4500));
    assert_eq!(list(time).await.offset, Some(5));
    let late = OffsetSpec::Time(Timestamp::from_millis(45_000));
    assert_eq!(list(late).await.offset, None);
    let negative = OffsetSpec::Time(Timestamp::from_millis(-1));
    let wanted = [
        (tp(0), negative),
        (tp(1), OffsetSpec::Latest),
        (tp(9), negative),
    ];
    let listed = admin.list_offsets(wanted, level).await.unwrap();
    let kinds: Vec<_> = listed
        .iter()
        .map(|(_, listed)| listed.as_ref().err().map(|error| error.kind()))
        .collect();
    let invalid = Some(ErrorKind::InvalidArgument);
    assert_eq!(kinds, [invalid, None, invalid]);

    let (leader, _) = mock.leader("t", 0).unwrap();
    mock.move_leader("t", 0, leader % 3 + 1).unwrap();
    let before = |offset| (tp(0), RecordsToDelete::Before(offset));
    let deleted = admin
        .delete_records([before(6), (tp(9), RecordsToDelete::All)])
        .await;
    let deleted = deleted.unwrap();
    assert_eq!(deleted.get(&tp(0)).unwrap().as_ref().unwrap(), &6);
    let error = deleted.get(&tp(9)).unwrap().as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownPartition);
    let deleted = admin.delete_records([before(11)]).await.unwrap();
    assert_eq!(deleted.errors().next().unwrap().1.kind(), ErrorKind::Offset);
    let all = [(tp(0), RecordsToDelete::All)];
    assert_eq!(
        admin.delete_records(all).await.unwrap().all().unwrap(),
        [10]
    );
    assert_eq!(mock.offsets("t", 0), Some((10, 10)));
}

#[tokio::test(start_paused = true)]
async fn old_brokers_do_not_take_the_newest_record_for_a_time() {
    let builder = MockCluster::builder().topic("t", 2).seed(3);
    let mock = builder.max_version(Api::ListOffsets, 6).start().await;
    let mock = mock.unwrap();
    let client = mock.client();
    let admin = client.admin();
    let level = IsolationLevel::ReadUncommitted;
    let wanted = [(tp(0), OffsetSpec::MaxTimestamp)];
    let error = admin.list_offsets(wanted, level).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion, "{error}");
    let wanted = [(tp(0), OffsetSpec::Latest)];
    let listed = admin.list_offsets(wanted, level).await.unwrap();
    assert_eq!(listed.all().unwrap()[0].offset, Some(0));
}

#[tokio::test(start_paused = true)]
async fn configurations_are_described_and_changed_one_by_one() {
    let (mock, client) = mock().await;
    let admin = client.admin();
    let topic = ConfigResource::topic("t");
    let get = async |resource: &ConfigResource, name: &str| {
        let configs = admin.describe_configs([resource.clone()]).await.unwrap();
        let config = configs.all().unwrap().remove(0);
        let entry = config.get(name).cloned();
        entry.map(|entry| (entry.value.unwrap_or_default(), entry.source))
    };
    let week = Some(("604800000".to_owned(), ConfigSource::Default));
    assert_eq!(get(&topic, "retention.ms").await, week);
    let changes = || {
        [
            (topic.clone(), ConfigChange::set("retention.ms", "1000")),
            (
                topic.clone(),
                ConfigChange::append("cleanup.policy", "compact"),
            ),
        ]
    };
    admin
        .validate_configs(changes())
        .await
        .unwrap()
        .all()
        .unwrap();
    assert_eq!(get(&topic, "retention.ms").await, week);
    admin
        .incremental_alter_configs(changes())
        .await
        .unwrap()
        .all()
        .unwrap();
    let second = Some(("1000".to_owned(), ConfigSource::Topic));
    assert_eq!(get(&topic, "retention.ms").await, second);
    let both = Some(("delete,compact".to_owned(), ConfigSource::Topic));
    assert_eq!(get(&topic, "cleanup.policy").await, both);
    let back = [
        (topic.clone(), ConfigChange::delete("retention.ms")),
        (
            topic.clone(),
            ConfigChange::subtract("cleanup.policy", "delete"),
        ),
    ];
    admin
        .incremental_alter_configs(back)
        .await
        .unwrap()
        .all()
        .unwrap();
    assert_eq!(get(&topic, "retention.ms").await, week);
    let compact = Some(("compact".to_owned(), ConfigSource::Topic));
    assert_eq!(get(&topic, "cleanup.policy").await, compact);

    // One broker, all brokers, a group; each broker is asked about itself.
    let cluster = admin.describe_cluster().await.unwrap();
    let ids: Vec<_> = cluster.brokers.iter().map(|broker| broker.id).collect();
    let (one, two) = (
        ConfigResource::Broker(ids[0]),
        ConfigResource::Broker(ids[1]),
    );
    let threads = |value| ConfigChange::set("log.cleaner.threads", value);
    let group = ConfigResource::group("g");
    let timeout = ConfigChange::set("consumer.session.timeout.ms", "50000");
    let changes = [
        (ConfigResource::AllBrokers, threads("2")),
        (one.clone(), threads("3")),
        (group.clone(), timeout),
        (ConfigResource::topic("gone"), threads("3")),
    ];
    let changed = admin.incremental_alter_configs(changes).await.unwrap();
    assert_eq!(changed.errors().count(), 1);
    let error = changed.errors().next().unwrap().1;
    assert_eq!(error.kind(), ErrorKind::UnknownTopic, "{error}");
    let asked = mock
        .on(Api::DescribeConfigs)
        .broker(ids[1].get())
        .delay(Duration::ZERO);
    let three = Some(("3".to_owned(), ConfigSource::DynamicBroker));
    assert_eq!(get(&one, "log.cleaner.threads").await, three);
    assert_eq!(asked.hits(), 0);
    let default = Some(("2".to_owned(), ConfigSource::DynamicDefaultBroker));
    assert_eq!(get(&two, "log.cleaner.threads").await, default);
    assert_eq!(asked.hits(), 1);
    let timeout = Some(("50000".to_owned(), ConfigSource::Group));
    assert_eq!(get(&group, "consumer.session.timeout.ms").await, timeout);

    let wrong = [(topic.clone(), ConfigChange::set("retention.ms", "for ever"))];
    let changed = admin.incremental_alter_configs(wrong).await.unwrap();
    let error = changed.errors().next().unwrap().1;
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

#[tokio::test(start_paused = true)]
async fn topics_grow_and_a_lost_answer_is_told() {
    let (mock, client) = mock().await;
    let admin = client.admin();
    admin
        .validate_partitions([("t", 4)])
        .await
        .unwrap()
        .all()
        .unwrap();
    assert_eq!(mock.topics(), [("t".to_owned(), 2)]);
    admin
        .create_partitions([("t", 4)])
        .await
        .unwrap()
        .all()
        .unwrap();
    assert_eq!(mock.topics(), [("t".to_owned(), 4)]);
    let grown = admin
        .create_partitions([("t", 3), ("gone", 3)])
        .await
        .unwrap();
    let kind = |topic: &str| grown.get(topic).unwrap().as_ref().unwrap_err().kind();
    assert_eq!(kind("t"), ErrorKind::InvalidArgument);
    assert_eq!(kind("gone"), ErrorKind::UnknownTopic);
    mock.on(Api::CreatePartitions).times(1).apply_then_drop();
    let grown = admin.create_partitions([("t", 6)]).await.unwrap();
    let text = grown.errors().next().unwrap().1.to_string();
    assert!(text.contains("earlier attempt may have added"), "{text}");
    assert_eq!(mock.topics(), [("t".to_owned(), 6)]);
}
