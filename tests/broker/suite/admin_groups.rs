//! Administration of groups, configurations and logs by `ottla` as Kafka's own tools see it, and
//! beside what these would do.

use std::time::Duration;

use ottla::admin::{
    ConfigChange, ConfigResource, ConfigSource, GroupMember, MembersToRemove, OffsetSpec,
    RecordsToDelete, ResetGroupOffsets, ResetTo,
};
use ottla::{
    Client, ErrorKind, GroupProtocol, IsolationLevel, OffsetAndMetadata, Record, Timestamp,
    TopicPartition,
};
use ottla_testcontainers::Cluster;

use crate::support::{Result, client, eventually, one, three, unique};

const TICK: Duration = Duration::from_millis(200);

/// A topic of two partitions with ten records in the first, a second apart.
async fn filled(cluster: &Cluster, client: &Client) -> Result<String> {
    let topic = unique("topic");
    cluster.create_topic(&topic, 2, 1).await?;
    // The times of the records are long ago.
    let keep = ConfigChange::set("retention.ms", "-1");
    let keep = [(ConfigResource::topic(topic.as_str()), keep)];
    client
        .admin()
        .incremental_alter_configs(keep)
        .await?
        .all()?;
    let producer = client.producer().build()?;
    for second in 0..10 {
        let time = Timestamp::from_millis(1_700_000_000_000 + 1000 * second);
        let record = Record::to(topic.as_str()).with_partition(0).with_value("v");
        producer.send(record.with_timestamp(time)).await?;
    }
    Ok(topic)
}

/// The new offsets of a dry run of Kafka's tool, by partition.
async fn planned_by_tool(
    cluster: &Cluster,
    group: &str,
    topic: &str,
    how: &[&str],
) -> Result<Vec<(i32, i64)>> {
    let mut args = vec![
        "--reset-offsets",
        "--group",
        group,
        "--topic",
        topic,
        "--dry-run",
    ];
    args.extend(how);
    let output = cluster.tool("kafka-consumer-groups.sh", &args).await?;
    let mut plan = Vec::new();
    for line in output.stdout.lines() {
        let columns: Vec<&str> = line.split_whitespace().collect();
        if columns.get(1) == Some(&topic) {
            plan.push((columns[2].parse()?, columns[3].parse()?));
        }
    }
    plan.sort_unstable();
    Ok(plan)
}

#[tokio::test]
async fn offsets_are_reset_to_where_kafkas_tool_resets_them() -> Result {
    let cluster = one().await?;
    let client = client(cluster).await?;
    let admin = client.admin();
    let topic = filled(cluster, &client).await?;
    let group = unique("group");
    let first = TopicPartition::new(topic.as_str(), 0);
    let second = TopicPartition::new(topic.as_str(), 1);
    let deleted = admin
        .delete_records([(first.clone(), RecordsToDelete::Before(2))])
        .await?;
    assert_eq!(deleted.all()?, [2]);
    let offsets = [
        (first.clone(), OffsetAndMetadata::new(5)),
        (second, OffsetAndMetadata::new(0)),
    ];
    admin.alter_group_offsets(&group, offsets).await?.all()?;

    let seven = Timestamp::from_millis(1_700_000_007_000);
    let late = Timestamp::from_millis(1_800_000_000_000);
    for (to, how) in [
        (ResetTo::Earliest, &["--to-earliest"][..]),
        (ResetTo::Latest, &["--to-latest"]),
        (ResetTo::Offset(8), &["--to-offset", "8"]),
        (ResetTo::Offset(800), &["--to-offset", "800"]),
        (ResetTo::ShiftBy(3), &["--shift-by", "3"]),
        (ResetTo::ShiftBy(-100), &["--shift-by", "-100"]),
        (
            ResetTo::Time(seven),
            &["--to-datetime", "2023-11-14T22:13:27.000"],
        ),
        (
            ResetTo::Time(late),
            &["--to-datetime", "2027-01-15T08:00:00.000"],
        ),
    ] {
        let reset = ResetGroupOffsets::new(to)
            .topics([topic.as_str()])
            .dry_run(true);
        let mine = admin.reset_group_offsets(&group, reset).await?;
        let mut plan = Vec::new();
        for (tp, reset) in mine {
            plan.push((tp.partition(), reset?.after));
        }
        let theirs = planned_by_tool(cluster, &group, &topic, how).await?;
        assert_eq!(plan, theirs, "{to:?}");
    }
    let reset = ResetGroupOffsets::new(ResetTo::ShiftBy(2));
    admin.reset_group_offsets(&group, reset).await?.all()?;
    let offsets = admin.group_offsets(&group).await?;
    assert_eq!(offsets[&first].offset(), 7);

    admin
        .delete_group_offsets(&group, [first.clone()])
        .await?
        .all()?;
    assert!(!admin.group_offsets(&group).await?.contains_key(&first));
    let nobody = unique("nobody");
    let deleted = admin.delete_groups([&group, &nobody]).await?;
    assert_eq!(deleted.errors().count(), 1);
    let error = deleted
        .get(&nobody)
        .expect("asked for")
        .as_ref()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Group, "{error}");
    let listed = admin.list_groups().await?;
    assert!(listed.iter().all(|listed| listed.group != group));
    Ok(())
}

#[tokio::test]
async fn groups_with_members_keep_their_offsets_and_classic_members_can_be_removed() -> Result {
    let cluster = three().await?;
    let client = client(cluster).await?;
    let admin = client.admin();
    let topic = filled(cluster, &client).await?;
    let first = TopicPartition::new(topic.as_str(), 0);
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let group = unique("group");
        let consumer = client.consumer(&group).subscribe([topic.as_str()]);
        let consumer = consumer.group_protocol(protocol).group_instance_id("one");
        let mut consumer = consumer.build()?;
        while consumer.assignment().is_empty() {
            consumer.poll_timeout(TICK).await?;
        }
        let altered = admin
            .alter_group_offsets(&group, [(first.clone(), OffsetAndMetadata::new(1))])
            .await?;
        let error = altered.all().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Group, "{error}");
        let deleted = admin.delete_group_offsets(&group, [first.clone()]).await?;
        let error = deleted.all().unwrap_err();
        assert_eq!(error.code().map(|code| code.get()), Some(86), "{error}");
        let reset = ResetGroupOffsets::new(ResetTo::Earliest).topics([topic.as_str()]);
        let error = admin
            .reset_group_offsets(&group, reset.dry_run(true))
            .await
            .unwrap_err();
        assert_eq!(error.code().map(|code| code.get()), Some(68), "{error}");
        let deleted = admin.delete_groups([&group]).await?;
        let error = deleted.all().unwrap_err();
        assert_eq!(error.code().map(|code| code.get()), Some(68), "{error}");

        if protocol == GroupProtocol::Classic {
            let all = MembersToRemove::all().reason("a test is over");
            let removed = admin.remove_members_from_group(&group, all).await?;
            let one = GroupMember::Instance("one".to_owned());
            let one = removed.get(&one).expect("it is the only member");
            assert!(one.is_ok(), "{one:?}");
        }
        drop(consumer);
    }
    Ok(())
}

#[tokio::test]
async fn configurations_and_partitions_change_as_kafkas_tools_tell() -> Result {
    let cluster = three().await?;
    let client = client(cluster).await?;
    let admin = client.admin();
    let topic = filled(cluster, &client).await?;
    let resource = ConfigResource::topic(topic.as_str());
    let changes = || {
        [
            (
                resource.clone(),
                ConfigChange::set("retention.ms", "86400000"),
            ),
            (
                resource.clone(),
                ConfigChange::append("cleanup.policy", "compact"),
            ),
        ]
    };
    admin.validate_configs(changes()).await?.all()?;
    admin.incremental_alter_configs(changes()).await?.all()?;
    eventually(async || {
        let config = admin
            .describe_configs([resource.clone()])
            .await?
            .all()?
            .remove(0);
        let entry = config.get("retention.ms").expect("every topic has it");
        match (entry.value.as_deref(), entry.source) {
            (Some("86400000"), ConfigSource::Topic) => Ok(()),
            _ => Err(format!("{entry:?}").into()),
        }
    })
    .await?;
    let args = [
        "--describe",
        "--entity-type",
        "topics",
        "--entity-name",
        &topic,
    ];
    let told = cluster.tool("kafka-configs.sh", &args).await?.stdout;
    assert!(told.contains("cleanup.policy=delete,compact"), "{told}");
    let wrong = [(
        resource.clone(),
        ConfigChange::set("retention.ms", "for ever"),
    )];
    let error = admin
        .incremental_alter_configs(wrong)
        .await?
        .all()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    let back = [(
        resource,
        ConfigChange::subtract("cleanup.policy", "compact"),
    )];
    admin.incremental_alter_configs(back).await?.all()?;

    let brokers = admin.describe_cluster().await?.brokers;
    let resources = brokers
        .iter()
        .map(|broker| ConfigResource::Broker(broker.id));
    for (resource, config) in admin.describe_configs(resources).await? {
        let config = config?;
        let id = config.get("node.id").and_then(|entry| entry.value.clone());
        assert_eq!(
            Some(format!("broker {}", id.unwrap_or_default())),
            Some(resource.to_string())
        );
    }

    admin
        .validate_partitions([(topic.as_str(), 4)])
        .await?
        .all()?;
    admin
        .create_partitions([(topic.as_str(), 4)])
        .await?
        .all()?;
    let error = admin
        .create_partitions([(topic.as_str(), 3)])
        .await?
        .all()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    let partitions = [0, 3].map(|number| TopicPartition::new(topic.as_str(), number));
    let wanted = partitions.map(|tp| (tp, OffsetSpec::Latest));
    let ends = eventually(async || {
        let level = IsolationLevel::ReadCommitted;
        Ok(admin.list_offsets(wanted.clone(), level).await?.all()?)
    });
    let ends: Vec<_> = ends.await?.iter().map(|end| end.offset).collect();
    assert_eq!(ends, [Some(10), Some(0)]);
    Ok(())
}
