//! Leaving a group and remaining in it, as the coordinator sees it: unsubscribing, and the ways to
//! close (KIP-1092).

use std::collections::BTreeSet;
use std::time::Duration;

use ottla::{
    Client, CloseOptions, Consumer, Event, GroupMembershipOperation, OffsetReset, Record,
    Subscription, TopicPartition,
};
use ottla_testcontainers::Cluster;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{LONG, Result, client, eventually, lag_by_tool, one, take, unique};

const CLOSE: Duration = Duration::from_secs(20);
/// The brokers' default for `group.consumer.session.timeout.ms`.
const SESSION: Duration = Duration::from_secs(45);

async fn create(cluster: &Cluster, client: &Client, name: &str, records: usize) -> Result<String> {
    let topic = unique(name);
    cluster.create_topic(&topic, 2, 1).await?;
    let producer = client.producer().build()?;
    for number in 0..records {
        let partition = (number % 2) as i32;
        eventually(async || {
            let record = Record::to(&topic).with_partition(partition).with_value("v");
            Ok(producer.send(record).await?)
        })
        .await?;
    }
    Ok(topic)
}

async fn member(
    client: &Client,
    group: &str,
    topic: &str,
    instance: Option<&str>,
) -> Result<Consumer> {
    let mut builder = client.consumer(group).subscribe([topic.to_owned()]);
    if let Some(instance) = instance {
        builder = builder.group_instance_id(instance);
    }
    Ok(builder.offset_reset(OffsetReset::Earliest).build()?)
}

/// The members, each with the number of its partitions.
async fn members(client: &Client, group: &str) -> Result<Vec<usize>> {
    let described = client.admin().describe_group(group).await?;
    let members = described.members.iter();
    Ok(members.map(|member| member.partitions.len()).collect())
}

/// The same, as Kafka's tool tells it.
async fn members_by_tool(cluster: &Cluster, group: &str) -> Result<usize> {
    let args = ["--describe", "--members", "--group", group];
    let output = cluster.tool("kafka-consumer-groups.sh", &args).await?;
    let rows = output.stdout.lines();
    Ok(rows
        .filter(|row| row.split_whitespace().next() == Some(group))
        .count())
}

#[tokio::test]
async fn unsubscribing_leaves_at_once_and_other_topics_can_be_subscribed() -> Result {
    let cluster = one().await?;
    let client = client(cluster).await?;
    let group = unique("group");
    let first = create(cluster, &client, "first", 10).await?;
    let second = create(cluster, &client, "second", 6).await?;
    let mut consumer = member(&client, &group, &first, None).await?;
    take(&mut consumer, 10).await?;
    assert_eq!(members(&client, &group).await?, [2]);

    consumer.unsubscribe();
    assert_eq!(consumer.subscription(), Subscription::Nothing);
    // Long before the session is over, and with what was read committed.
    let began = Instant::now();
    while !members(&client, &group).await?.is_empty() {
        assert!(began.elapsed() < SESSION / 3);
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(members_by_tool(cluster, &group).await?, 0);
    let rows = lag_by_tool(cluster, &group).await?;
    assert_eq!(rows.len(), 2);
    for [_, committed, end, lag, member] in rows {
        assert_eq!([&*committed, &*end, &*lag, &*member], ["5", "5", "0", "-"]);
    }
    let batches = consumer.poll_timeout(Duration::from_secs(2)).await?;
    assert!(batches.ok_or("closed")?.is_empty());

    consumer.subscribe([second.clone()])?;
    take(&mut consumer, 6).await?;
    assert_eq!(members_by_tool(cluster, &group).await?, 1);
    // To partitions of its own, and back to the group, without waiting in between.
    let tp = TopicPartition::new(first.as_str(), 1);
    consumer.unsubscribe();
    consumer.assign([tp.clone()])?;
    consumer.seek(&tp, 2)?;
    assert_eq!(take(&mut consumer, 3).await?[&1][0].offset(), 2);
    eventually(async || match members(&client, &group).await?.len() {
        0 => Ok(()),
        members => Err(format!("{members} members").into()),
    })
    .await?;
    consumer.unsubscribe();
    consumer.subscribe([first.clone(), second.clone()])?;
    let deadline = Instant::now() + LONG;
    while consumer.assignment().len() < 4 {
        assert!(Instant::now() < deadline, "{:?}", consumer.assignment());
        let batches = consumer.poll_timeout(Duration::from_millis(200)).await?;
        assert!(
            batches.ok_or("closed")?.is_empty(),
            "all of it is committed"
        );
    }
    consumer.close_timeout(CLOSE).await?;
    Ok(())
}

#[tokio::test]
async fn who_reads_by_events_stays_a_member_until_it_lets_go() -> Result {
    let cluster = one().await?;
    let client = client(cluster).await?;
    let group = unique("group");
    let topic = create(cluster, &client, "events", 4).await?;
    let mut consumer = member(&client, &group, &topic, None).await?;
    let mut read = 0;
    while read < 4 {
        let event = timeout(LONG, consumer.next_event()).await??;
        if let Some(Event::Records(batches)) = event {
            read += batches.record_count();
        }
    }
    consumer.unsubscribe();
    let Some(Event::Revoking(revoking)) = timeout(LONG, consumer.next_event()).await?? else {
        return Err("no revocation".into());
    };
    assert_eq!(revoking.partitions().len(), 2);
    sleep(Duration::from_secs(6)).await;
    assert_eq!(members(&client, &group).await?, [2]);
    consumer.commit().await?;
    revoking.done();
    eventually(async || match members(&client, &group).await?.len() {
        0 => Ok(()),
        members => Err(format!("{members} members").into()),
    })
    .await?;
    consumer.close_timeout(CLOSE).await?;
    Ok(())
}

#[tokio::test]
async fn a_static_member_that_unsubscribed_gets_its_place_back() -> Result {
    let cluster = one().await?;
    let client = client(cluster).await?;
    let group = unique("group");
    let topic = create(cluster, &client, "static", 4).await?;
    let mut consumer = member(&client, &group, &topic, Some("i")).await?;
    take(&mut consumer, 4).await?;
    for _ in 0..2 {
        consumer.unsubscribe();
        sleep(Duration::from_secs(5)).await;
        assert_eq!(
            members(&client, &group).await?.len(),
            1,
            "its place is kept"
        );
        consumer.subscribe([topic.clone()])?;
        let deadline = Instant::now() + SESSION / 3;
        while consumer.assignment().len() < 2 {
            assert!(Instant::now() < deadline, "{:?}", consumer.assignment());
            consumer.poll_timeout(Duration::from_millis(100)).await?;
        }
    }
    consumer.close_timeout(CLOSE).await?;
    Ok(())
}

/// Closes a member so; tells when it was gone, if it ever was, counted from then.
async fn gone_after(
    instance: Option<&str>,
    operation: GroupMembershipOperation,
) -> Result<Duration> {
    let cluster = one().await?;
    let client = client(cluster).await?;
    let group = unique("group");
    let topic = create(cluster, &client, "close", 4).await?;
    let mut consumer = member(&client, &group, &topic, instance).await?;
    take(&mut consumer, 4).await?;
    let options = CloseOptions::new().timeout(CLOSE);
    let options = options.group_membership_operation(operation);
    let closed = Instant::now();
    consumer.close_with(options).await?;
    while !members(&client, &group).await?.is_empty() {
        assert!(closed.elapsed() < 2 * SESSION, "{instance:?} {operation:?}");
        sleep(Duration::from_millis(200)).await;
    }
    let after = closed.elapsed();
    assert_eq!(members_by_tool(cluster, &group).await?, 0);
    let committed = lag_by_tool(cluster, &group).await?;
    let committed: BTreeSet<_> = committed.into_iter().map(|row| row[1].clone()).collect();
    assert_eq!(committed, BTreeSet::from(["2".to_owned()]));
    Ok(after)
}

#[tokio::test]
async fn a_closed_consumer_leaves_at_once_or_remains_until_its_session_is_over() -> Result {
    use GroupMembershipOperation::{Default, LeaveGroup, RemainInGroup};
    let (a, b, c, d, e, f) = tokio::try_join!(
        gone_after(None, Default),
        gone_after(None, LeaveGroup),
        gone_after(Some("i"), LeaveGroup),
        gone_after(None, RemainInGroup),
        gone_after(Some("i"), RemainInGroup),
        gone_after(Some("i"), Default),
    )?;
    for left in [a, b, c] {
        assert!(left < SESSION / 2, "{left:?}");
    }
    for remained in [d, e, f] {
        // The session may have begun a heartbeat's interval before.
        assert!(remained > SESSION - Duration::from_secs(6), "{remained:?}");
    }
    Ok(())
}
