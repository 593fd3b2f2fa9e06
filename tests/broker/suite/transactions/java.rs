//! Transactions of Kafka's Java client beside ours.

use ottla::{ErrorKind, IsolationLevel, Record};

use super::{fill, seen};
use crate::support::{Result, client, old, one, unique};

#[tokio::test]
async fn java_reads_our_transactions_and_we_read_javas() -> Result {
    for cluster in [one().await?, old().await?] {
        let (topic, id) = (unique("tx-java"), unique("tx"));
        cluster.create_topic(&topic, 1, 1).await?;
        let client = client(cluster).await?;
        let mut producer = client.transactional_producer(&id).build().await?;
        for (value, commits) in [("one", true), ("two", false), ("three", true)] {
            let transaction = producer.begin().await?;
            drop(
                transaction
                    .enqueue(Record::to(&topic).with_value(value))
                    .await?,
            );
            match commits {
                true => transaction.commit().await?,
                false => transaction.abort().await?,
            }
        }
        let args = [
            "--topic",
            &topic,
            "--from-beginning",
            "--max-messages",
            "2",
            "--isolation-level",
            "read_committed",
        ];
        let output = cluster.tool("kafka-console-consumer.sh", &args).await?;
        let lines: Vec<_> = output.stdout.lines().map(str::trim).collect();
        assert!(lines.ends_with(&["one", "three"]), "{lines:?}");

        // Java takes the id over, while a transaction is open.
        let transaction = producer.begin().await?;
        drop(
            transaction
                .enqueue(Record::to(&topic).with_value("never seen"))
                .await?,
        );
        let args = [
            "--topic",
            &topic,
            "--num-records",
            "500",
            "--record-size",
            "10",
            "--throughput",
            "-1",
            "--transactional-id",
            &id,
            "--transaction-duration-ms",
            "20",
            "--producer-props",
            "bootstrap.servers=localhost:9094",
        ];
        let tool = cluster
            .tool_command("kafka-producer-perf-test.sh")
            .args(args);
        tool.run().await?.success()?;
        let error = transaction.commit().await.unwrap_err();
        assert_eq!(error.error().kind(), ErrorKind::Fenced, "{error}");
        let seen = seen(&client, &topic, 1, IsolationLevel::ReadCommitted).await?;
        assert_eq!(seen[&0].len(), 502);
        assert!(
            !seen[&0]
                .iter()
                .any(|value| value == "never seen" || value == "two")
        );
    }
    Ok(())
}

/// A group of Java's takes up where ours has committed in a transaction.
#[tokio::test]
async fn java_goes_on_at_our_offsets() -> Result {
    let cluster = one().await?;
    let (from, to, group) = (unique("tx-from"), unique("tx-to"), unique("tx-group"));
    for topic in [&from, &to] {
        cluster.create_topic(topic, 1, 1).await?;
    }
    let client = client(cluster).await?;
    fill(&client, &from, 1, 10).await?;
    let producer = client.transactional_producer(unique("tx")).build().await?;
    let consumer = client.consumer(&group).subscribe([from.as_str()]);
    let consumer = consumer
        .offset_reset(ottla::OffsetReset::Earliest)
        .max_poll_records(4);
    let mut consumer = ottla::TransactionalConsumer::new(consumer, producer)?;
    let read = consumer.poll().await?.ok_or("closed")?;
    drop(read.enqueue(Record::to(&to).with_value("sum")).await?);
    read.commit().await?;
    let read = consumer.poll().await?.ok_or("closed")?;
    drop(
        read.enqueue(Record::to(&to).with_value("never seen"))
            .await?,
    );
    read.abort().await?;
    consumer.close().await?;
    let args = ["--topic", &from, "--group", &group, "--max-messages", "6"];
    let output = cluster.tool("kafka-console-consumer.sh", &args).await?;
    let lines: Vec<_> = output.stdout.lines().map(str::trim).collect();
    assert!(
        lines.ends_with(&["4", "5", "6", "7", "8", "9"]),
        "{lines:?}"
    );
    let seen = seen(&client, &to, 1, IsolationLevel::ReadCommitted).await?;
    assert_eq!(seen[&0], ["sum"]);
    Ok(())
}
