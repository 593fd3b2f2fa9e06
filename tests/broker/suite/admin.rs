//! Topics made by `ottla` as Kafka's own tool sees them, and the reverse.

use ottla::ErrorKind;
use ottla::admin::{NewTopic, PartitionDescription};

use crate::support::{Result, client, eventually, three, unique};

#[tokio::test]
async fn topics_are_made_described_listed_and_deleted() -> Result {
    let cluster = three().await?;
    let client = client(cluster).await?;
    let admin = client.admin();
    let (mine, theirs) = (unique("mine"), unique("theirs"));
    let new = NewTopic::new(&mine)
        .partitions(4)
        .replication(3)
        .config("cleanup.policy", "compact");
    let created = admin.create_topics([new.clone()]).await?.all()?;
    assert_eq!(
        (created[0].partitions, created[0].replication),
        (Some(4), Some(3))
    );
    let described = cluster
        .tool("kafka-topics.sh", &["--describe", "--topic", &mine])
        .await?
        .stdout;
    assert!(
        described.contains("PartitionCount: 4") && described.contains("cleanup.policy=compact"),
        "{described}"
    );

    cluster.create_topic(&theirs, 2, 3).await?;
    let topic = eventually(async || {
        let topic = admin.describe_topics([&theirs]).await?.all()?.remove(0);
        let whole = |partition: &PartitionDescription| {
            partition.leader.is_some() && partition.in_sync.len() == 3
        };
        match topic.partitions.iter().all(whole) {
            true => Ok(topic),
            false => Err("not in sync yet".into()),
        }
    })
    .await?;
    assert_eq!(topic.partitions.len(), 2);
    eventually(async || {
        let listed = admin.list_topics().await?;
        let all = [&mine, &theirs]
            .iter()
            .all(|name| listed.iter().any(|topic| topic.name == **name));
        all.then_some(())
            .ok_or_else(|| format!("{listed:?}").into())
    })
    .await?;

    // One topic's error leaves the others alone.
    let mut outcome = admin
        .create_topics([new, NewTopic::new(unique("other"))])
        .await?;
    let error = outcome
        .remove(&mine)
        .expect("asked for")
        .expect_err("it exists");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(outcome.errors().count(), 0);

    admin.delete_topics([&mine, &theirs]).await?.all()?;
    eventually(async || {
        let listed = cluster.tool("kafka-topics.sh", &["--list"]).await?.stdout;
        let left = listed.lines().any(|name| name == mine || name == theirs);
        (!left).then_some(()).ok_or_else(|| listed.into())
    })
    .await?;
    let missing = eventually(async || {
        let described = admin
            .describe_topics([&mine])
            .await?
            .remove(&mine)
            .expect("asked for");
        described.err().ok_or_else(|| "still there".into())
    })
    .await?;
    assert_eq!(missing.kind(), ErrorKind::UnknownTopic);

    let description = admin.describe_cluster().await?;
    assert_eq!(description.brokers.len(), 3);
    assert!(description.controller.is_some());
    Ok(())
}
