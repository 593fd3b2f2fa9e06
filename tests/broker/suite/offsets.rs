//! Where consumers start, what they commit, and what others see of it.

use std::time::{Duration, SystemTime};

use ottla::{
    Client, ErrorKind, OffsetAndMetadata, OffsetReset, Record, TimeLag, Timestamp, TopicPartition,
};

use crate::support::{
    Result, client, eventually, lag_by_admin, lag_by_tool, one, partition_error, take, unique,
};

const CLOSE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);

fn age(age: Duration) -> Timestamp {
    Timestamp::from(SystemTime::now() - age)
}

async fn produce(client: &Client, topic: &str, partition: i32, ages: &[Duration]) -> Result {
    let producer = client.producer().build()?;
    for at in ages {
        let record = Record::to(topic).with_partition(partition).with_value("v");
        eventually(async || {
            Ok(producer
                .send(record.clone().with_timestamp(age(*at)))
                .await?)
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn every_way_to_start_starts_where_it_says() -> Result {
    let (cluster, topic) = (one().await?, unique("start"));
    cluster.create_topic(&topic, 2, 1).await?;
    let client = client(cluster).await?;
    produce(
        &client,
        &topic,
        0,
        &[2 * HOUR, 2 * HOUR, HOUR / 2, HOUR / 4],
    )
    .await?;
    // No record of this one is young enough: those to come are read.
    produce(&client, &topic, 1, &[2 * HOUR]).await?;
    let (tp, old) = (
        TopicPartition::new(topic.as_str(), 0),
        TopicPartition::new(topic.as_str(), 1),
    );
    for (reset, expected) in [
        (OffsetReset::Earliest, [0, 0]),
        (OffsetReset::ByDuration(HOUR), [2, 1]),
        (OffsetReset::Latest, [4, 1]),
    ] {
        let reader = client.reader().assign([tp.clone(), old.clone()]);
        let mut reader = reader.offset_reset(reset).build()?;
        let found = eventually(async || {
            reader.poll_timeout(Duration::from_millis(1)).await?;
            match (reader.lag().get(&tp), reader.lag().get(&old)) {
                (Some(a), Some(b)) if a.end_offset.is_some() && b.end_offset.is_some() => {}
                _ => return Err("nothing was fetched yet".into()),
            }
            Ok(())
        });
        found.await?;
        let reader = client.consumer(unique("group"));
        let reader = reader.assign([tp.clone(), old.clone()]).auto_commit(false);
        // Nothing is handed out, so that the position stays where it began.
        let mut reader = reader.offset_reset(reset).build()?;
        reader.set_max_poll_records(0);
        let found = eventually(async || {
            reader.poll_timeout(Duration::from_millis(1)).await?;
            match (reader.position(&tp), reader.position(&old)) {
                (Some(a), Some(b)) => Ok([a, b]),
                _ => Err("no position yet".into()),
            }
        });
        assert_eq!(found.await?, expected, "{reset:?}");
    }

    let reader = client.reader().assign([tp.clone()]);
    let mut reader = reader.offset_reset(OffsetReset::None).build()?;
    let error = partition_error(&mut reader).await?;
    assert_eq!(error.kind(), ErrorKind::Offset);
    assert_eq!(error.topic_partition(), Some(&tp));
    reader.seek(&tp, 3)?;
    assert_eq!(take(&mut reader, 1).await?[&0][0].offset(), 3);
    // Beyond the log: the policy is asked again.
    reader.seek(&tp, 100)?;
    let error = partition_error(&mut reader).await?;
    assert_eq!(error.topic_partition(), Some(&tp));
    reader.seek_to_beginning([&tp])?;
    assert_eq!(take(&mut reader, 4).await?[&0].len(), 4);

    let times = [(tp.clone(), age(HOUR)), (old.clone(), age(HOUR))];
    let found = reader.offsets_for_times(times).await?;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[&tp].0, 2);
    let both = [&tp, &old];
    let ends = reader.end_offsets(both).await?;
    assert_eq!((ends[&tp], ends[&old]), (4, 1));
    let beginnings = reader.beginning_offsets(both).await?;
    assert_eq!((beginnings[&tp], beginnings[&old]), (0, 0));
    Ok(())
}

#[tokio::test]
async fn a_commit_keeps_its_note_and_the_leader_epoch() -> Result {
    let (cluster, topic, group) = (one().await?, unique("note"), unique("group"));
    cluster.create_topic(&topic, 2, 1).await?;
    let client = client(cluster).await?;
    produce(&client, &topic, 0, &[Duration::ZERO; 3]).await?;
    let tp = |partition| TopicPartition::new(topic.as_str(), partition);
    let builder = client.consumer(&group).assign([tp(0)]).auto_commit(false);
    let mut consumer = builder.offset_reset(OffsetReset::Earliest).build()?;
    take(&mut consumer, 3).await?;
    consumer.commit().await?;
    let committed = consumer.committed([tp(0), tp(1)]).await?;
    assert_eq!(committed.len(), 1);
    assert_eq!(committed[&tp(0)].offset(), 3);
    assert_eq!(committed[&tp(0)].leader_epoch(), Some(0));
    // Of a partition that is not assigned, too.
    let noted = OffsetAndMetadata::new(2).with_metadata("so far");
    consumer.commit_offsets([(tp(1), noted)]).await?;
    let committed = client.admin().group_offsets(&group).await?;
    assert_eq!(committed[&tp(1)].offset(), 2);
    assert_eq!(committed[&tp(1)].metadata(), "so far");
    assert_eq!(committed[&tp(0)].offset(), 3);
    consumer.close_timeout(CLOSE).await?;
    Ok(())
}

#[tokio::test]
async fn a_topic_made_anew_does_not_inherit_a_late_commit() -> Result {
    let (cluster, topic, group) = (one().await?, unique("anew"), unique("group"));
    cluster.create_topic(&topic, 1, 1).await?;
    let client = client(cluster).await?;
    let tp = TopicPartition::new(topic.as_str(), 0);
    produce(&client, &topic, 0, &[Duration::ZERO; 20]).await?;
    let builder = client.consumer(&group).assign([tp.clone()]);
    let builder = builder.allow_auto_create_topics(false).auto_commit(false);
    let mut consumer = builder.offset_reset(OffsetReset::Earliest).build()?;
    take(&mut consumer, 20).await?;
    // What is not fetched is not found out about.
    consumer.pause(std::slice::from_ref(&tp))?;
    let admin = crate::support::client(cluster).await?.admin();
    let before = admin.describe_topics([&topic]).await?.all()?[0].id;
    admin.delete_topics([&topic]).await?.all()?;
    eventually(async || Ok(cluster.create_topic(&topic, 1, 1).await?)).await?;
    let after =
        eventually(async || Ok(admin.describe_topics([&topic]).await?.all()?[0].id)).await?;
    assert_ne!(before, after);
    let late = consumer.commit().await;
    let committed = admin.group_offsets(&group).await?;
    // Refused, or nothing: if metadata told in time, what was read of the old topic is nobody's.
    // Or, if the new beginning was looked up as well, that one; the 20 of the old topic in no case.
    let inherited = committed.get(&tp).filter(|at| at.offset() != 0);
    assert_eq!(inherited, None, "{late:?}");
    if let Err(error) = late {
        assert_eq!(error.kind(), ErrorKind::UnknownTopic, "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn the_lag_of_a_group_is_known_without_joining_it() -> Result {
    let (cluster, topic, group) = (one().await?, unique("outside"), unique("group"));
    cluster.create_topic(&topic, 4, 1).await?;
    let client = client(cluster).await?;
    let admin = client.admin();
    assert_eq!(
        admin.group_lag(&group).await.unwrap_err().kind(),
        ErrorKind::Group,
        "there is no such group"
    );
    // 0 is behind, 1 is caught up, 2 is committed at the end of nothing, 3 is not committed at all.
    produce(&client, &topic, 0, &[3 * HOUR, 2 * HOUR, HOUR, HOUR / 2]).await?;
    produce(&client, &topic, 1, &[HOUR; 2]).await?;
    let tp = |partition| TopicPartition::new(topic.as_str(), partition);
    let committer = client.consumer(&group).assign([tp(0)]).auto_commit(false);
    let committer = committer.build()?;
    let at = |partition, offset| (tp(partition), OffsetAndMetadata::new(offset));
    committer
        .commit_offsets([at(0, 2), at(1, 2), at(2, 0)])
        .await?;
    committer.close_timeout(CLOSE).await?;

    let lag = admin.group_lag(&group).await?;
    assert_eq!(lag.partitions().len(), 3);
    assert_eq!(lag.records(), 2);
    let near = |lag: TimeLag, expected: Duration| {
        let slack = Duration::from_secs(300);
        let age = lag.duration().unwrap_or_default();
        assert!(age >= expected && age < expected + slack, "{lag:?}");
    };
    near(lag.time(), HOUR);
    let first = lag.get(&tp(0)).ok_or("not there")?;
    // Read up to the one two hours old; the newest is half an hour old.
    let behind = first.behind_newest.duration().unwrap_or_default();
    let expected = 2 * HOUR - HOUR / 2;
    assert!(
        behind.abs_diff(expected) < Duration::from_secs(60),
        "{behind:?}"
    );
    assert_eq!(lag.get(&tp(1)).ok_or("not there")?.time, TimeLag::CaughtUp);
    assert_eq!(
        lag_by_admin(&client, &group).await?,
        lag_by_tool(cluster, &group).await?
    );

    // With a member, whose partitions count even where nothing is committed.
    let member = client.consumer(&group).subscribe([topic.clone()]);
    let mut member = member.auto_commit(false).build()?;
    member.set_max_poll_records(0);
    eventually(async || {
        member.poll_timeout(Duration::from_millis(100)).await?;
        match member.assignment().len() {
            4 => Ok(()),
            _ => Err("not assigned yet".into()),
        }
    })
    .await?;
    let rows = eventually(async || {
        member.poll_timeout(Duration::from_millis(100)).await?;
        let rows = lag_by_admin(&client, &group).await?;
        match rows.iter().all(|row| row[4] != "-") {
            true => Ok(rows),
            false => Err("the coordinator has not heard of it yet".into()),
        }
    })
    .await?;
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[3][1..4], ["-", "0", "-"]);
    assert_eq!(rows, lag_by_tool(cluster, &group).await?);
    let description = admin.describe_group(&group).await?;
    assert_eq!(description.members.len(), 1);
    assert_eq!(description.members[0].partitions.len(), 4);
    let listed = admin.list_groups().await?;
    assert!(listed.iter().any(|listed| listed.group == group));
    member.close_timeout(CLOSE).await?;
    Ok(())
}

#[tokio::test]
async fn the_lag_of_a_classic_java_group_is_what_kafkas_tool_says() -> Result {
    let (cluster, topic, group) = (one().await?, unique("classic"), unique("group"));
    cluster.create_topic(&topic, 2, 1).await?;
    let client = client(cluster).await?;
    produce(&client, &topic, 0, &[HOUR; 3]).await?;
    let java = cluster
        .java_client("kafka-console-consumer.sh")
        .args(["--topic", &topic, "--group", &group, "--from-beginning"])
        .args(["--consumer-property", "auto.commit.interval.ms=100"])
        .start()
        .await?;
    eventually(async || {
        let rows = lag_by_admin(&client, &group).await?;
        let read = rows.iter().any(|row| row[1] == "3");
        match read && rows.iter().all(|row| row[4] != "-") {
            true => Ok(()),
            false => Err(format!("{rows:?}").into()),
        }
    })
    .await?;
    assert_eq!(
        lag_by_admin(&client, &group).await?,
        lag_by_tool(cluster, &group).await?
    );
    java.stop().await?;
    // Its group is left behind.
    produce(&client, &topic, 0, &[HOUR; 2]).await?;
    let rows = lag_by_admin(&client, &group).await?;
    assert_eq!(rows[0][1..4], ["3", "5", "2"]);
    Ok(())
}
