//! Kafka 3.9 as it comes: without groups of KIP-848. Members are those of classic groups there.

use std::time::Duration;

use ottla::admin::NewTopic;
use ottla::{
    ErrorKind, GroupProtocol, OffsetAndMetadata, OffsetReset, Record, TimeLag, TopicPartition,
};
use ottla_testcontainers::Cluster;
use tokio::time::timeout;

use crate::support::{LONG, Result, client, eventually, lag_by_admin, lag_by_tool, take};

const CLOSE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn topics_classic_groups_and_plain_offsets_of_an_old_broker() -> Result {
    let cluster = Cluster::builder()
        .version("3.9")
        .config("group.coordinator.rebalance.protocols", "classic")
        .config("auto.create.topics.enable", "false")
        .start()
        .await?;
    let client = client(&cluster).await?;
    let admin = client.admin();
    let topic = "old";
    let create = || admin.create_topics([NewTopic::new(topic).partitions(2)]);
    let created = create().await?.all()?;
    assert_eq!(created[0].partitions, Some(2));
    let error = create().await?.all().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    let described_topic = eventually(async || Ok(admin.describe_topics([topic]).await?.all()?));
    let described_topic = described_topic.await?;
    assert_eq!(described_topic[0].partitions.len(), 2);
    assert!(described_topic[0].id.is_some());
    let listed = admin.list_topics().await?;
    assert!(listed.iter().any(|listed| listed.name == topic));

    let producer = client.producer().build()?;
    for _ in 0..5 {
        let record = Record::to(topic).with_partition(0).with_value("v");
        eventually(async || Ok(producer.send(record.clone()).await?)).await?;
    }
    let tp = TopicPartition::new(topic, 0);

    // Partitions that a consumer chooses itself, whose commits make a group without members.
    let plain = client.consumer("plain").assign([tp.clone()]);
    let plain = plain.auto_commit(false).offset_reset(OffsetReset::Earliest);
    let mut plain = plain.build()?;
    take(&mut plain, 5).await?;
    let at = (tp.clone(), OffsetAndMetadata::new(3).with_metadata("note"));
    plain.commit_offsets([at]).await?;
    let committed = plain.committed([&tp]).await?;
    let committed = &committed[&tp];
    assert_eq!((committed.offset(), committed.metadata()), (3, "note"));
    plain.close_timeout(CLOSE).await?;
    let rows = lag_by_admin(&client, "plain").await?;
    assert_eq!(rows, lag_by_tool(&cluster, "plain").await?);
    assert_eq!(rows[0][1..4], ["3", "5", "2"]);
    let lag = admin.group_lag("plain").await?;
    assert!(lag.time().duration().is_some(), "{lag:?}");
    let empty = admin.describe_group("plain").await?;
    assert_eq!((&*empty.state, empty.members.len()), ("Empty", 0));

    // A group of Java's.
    let java = cluster.java_client("kafka-console-consumer.sh");
    let java = java.args(["--topic", topic, "--group", "java", "--from-beginning"]);
    let quick = ["--consumer-property", "auto.commit.interval.ms=100"];
    let java = java.args(quick).start().await?;
    eventually(async || {
        let rows = lag_by_admin(&client, "java").await?;
        let read = rows.iter().any(|row| row[1] == "5");
        match read && rows.iter().all(|row| row[4] != "-") {
            true => Ok(()),
            false => Err(format!("{rows:?}").into()),
        }
    })
    .await?;
    assert_eq!(
        lag_by_admin(&client, "java").await?,
        lag_by_tool(&cluster, "java").await?
    );
    assert_eq!(admin.group_lag("java").await?.time(), TimeLag::CaughtUp);
    let described_group = admin.describe_group("java").await?;
    assert_eq!(described_group.state, "Stable");
    assert_eq!(described_group.members[0].partitions.len(), 2);
    let groups = admin.list_groups().await?;
    for name in ["java", "plain"] {
        let listed = groups.iter().find(|listed| listed.group == name);
        let kind = listed.ok_or("not listed")?.kind.as_deref();
        assert_eq!(kind, Some("classic"), "{name}");
    }
    java.stop().await?;
    let nobody = admin.describe_group("nobody").await.unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::Group, "{nobody}");

    // Members are members of a classic group.
    let subscribed = |group| client.consumer(group).subscribe([topic]);
    let mut member = subscribed("member")
        .offset_reset(OffsetReset::Earliest)
        .build()?;
    take(&mut member, 5).await?;
    member.commit().await?;
    assert_eq!(
        member.metrics().group_protocol,
        Some(GroupProtocol::Classic)
    );
    let rows = lag_by_admin(&client, "member").await?;
    assert_eq!(rows, lag_by_tool(&cluster, "member").await?);
    assert_eq!(rows[0][1..4], ["5", "5", "0"]);
    member.close_timeout(CLOSE).await?;

    // Who wants nothing but the new protocol is told what is missing.
    let member = subscribed("modern").group_protocol(GroupProtocol::Consumer);
    let mut member = member.build()?;
    let error = timeout(LONG, member.poll()).await?.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion, "{error}");
    assert!(error.is_fatal(), "{error}");

    admin.delete_topics([topic]).await?.all()?;
    let error = admin.delete_topics(["never"]).await?.all().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopic, "{error}");
    Ok(())
}
