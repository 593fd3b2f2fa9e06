//! Transactions of which the cluster ends what the producer does not: time-outs, and replicas that
//! are missing.

use std::time::Duration;

use ottla::{Client, ErrorKind, IsolationLevel, Record, TransactionOutcome};
use ottla_testcontainers::Cluster;

use super::seen;
use crate::producer::placed;
use crate::support::{Result, client, eventually, partitions};

const SECOND: Duration = Duration::from_secs(1);

/// A producer that sleeps longer than `transaction.timeout.ms` has lost its transaction: what it
/// sends and commits later is refused.
#[tokio::test]
async fn nothing_is_seen_of_a_transaction_that_takes_too_long() -> Result {
    for version in [None, Some("3.9")] {
        let cluster = Cluster::builder().config(
            "transaction.abort.timed.out.transaction.cleanup.interval.ms",
            "500",
        );
        let cluster = match version {
            Some(version) => cluster.version(version),
            None => cluster,
        };
        let cluster = cluster.start().await?;
        cluster.create_topic("late", 1, 1).await?;
        let client = client(&cluster).await?;
        let late = |id: &str| {
            client
                .transactional_producer(id)
                .transaction_timeout(2 * SECOND)
        };
        let mut commits = late("commits").build().await?;
        let mut writes = late("writes").build().await?;
        let commit = commits.begin().await?;
        commit.send(Record::to("late").with_value("no")).await?;
        let write = writes.begin().await?;
        write.send(Record::to("late").with_value("no")).await?;
        // Both records and their markers.
        eventually(async || readable(&client, "late", 4).await).await?;

        let error = commit.commit().await.unwrap_err();
        assert_eq!(error.outcome(), TransactionOutcome::Aborted, "{error}");
        // With the second protocol the coordinator does not tell who ended it.
        let told = match (error.error().kind(), version) {
            (ErrorKind::Transaction, None) => error.to_string().contains("transaction.timeout.ms"),
            (kind, _) => kind == ErrorKind::Fenced,
        };
        assert!(told, "{error}");
        assert!(commits.begin().await.unwrap_err().is_fatal());

        let record = Record::to("late").with_value("no");
        let error = write.send(record).await.unwrap_err();
        let refused = write.commit().await.unwrap_err();
        assert_eq!(refused.outcome(), TransactionOutcome::Aborted, "{refused}");
        println!("{}: {error}; then {refused}", cluster.version());

        let mut next = late("commits").build().await?;
        let transaction = next.begin().await?;
        transaction
            .send(Record::to("late").with_value("yes"))
            .await?;
        transaction.commit().await?;
        let seen = seen(&client, "late", 1, IsolationLevel::ReadCommitted).await?;
        assert_eq!(seen[&0], ["yes"]);
    }
    Ok(())
}

/// Whether the last stable offset is that.
async fn readable(client: &Client, topic: &str, end: i64) -> Result {
    let all = partitions(topic, 1);
    let reader = client.reader().assign(all.clone());
    let reader = reader
        .isolation_level(IsolationLevel::ReadCommitted)
        .build()?;
    let ends = reader.end_offsets(&all).await?;
    reader.close().await?;
    match ends[&all[0]] == end {
        true => Ok(()),
        false => Err(format!("read up to {ends:?}").into()),
    }
}

/// Fewer replicas than `min.insync.replicas`: the transaction fails with the reason, and the
/// producer goes on when they are back.
#[tokio::test]
async fn a_shortage_of_replicas_costs_a_transaction_and_not_its_producer() -> Result {
    let cluster = Cluster::builder().brokers(3).start().await?;
    placed(&cluster, "scarce", "1:2", &["min.insync.replicas=2"]).await?;
    let client = Client::builder().bootstrap(cluster.bootstrap().split(','));
    let client = client.request_timeout(4 * SECOND).connect().await?;
    let producer = client.transactional_producer("scarce");
    let producer = producer.delivery_timeout(6 * SECOND);
    let mut producer = producer.build().await?;
    let transaction = producer.begin().await?;
    transaction
        .send(Record::to("scarce").with_value("1"))
        .await?;
    transaction.commit().await?;

    // The marker, too.
    eventually(async || readable(&client, "scarce", 2).await).await?;
    cluster.broker(2).stop().await?;
    let transaction = producer.begin().await?;
    drop(
        transaction
            .enqueue(Record::to("scarce").with_value("no"))
            .await?,
    );
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.outcome(), TransactionOutcome::Aborted, "{error}");
    let text = error.to_string();
    // The broker's last answer was NOT_ENOUGH_REPLICAS or CONCURRENT_TRANSACTIONS.
    assert!(
        text.contains("scarce-0") && text.contains("delivery.timeout.ms"),
        "{text}"
    );
    assert!(!error.error().is_fatal(), "{text}");
    println!("{text}");

    cluster.broker(2).start().await?;
    eventually(async || {
        let transaction = producer.begin().await?;
        transaction
            .send(Record::to("scarce").with_value("2"))
            .await?;
        transaction.commit().await?;
        Ok(())
    })
    .await?;
    let seen = seen(&client, "scarce", 1, IsolationLevel::ReadCommitted).await?;
    assert_eq!(seen[&0], ["1", "2"]);
    Ok(())
}
