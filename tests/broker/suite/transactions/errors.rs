//! What cannot be done in a transaction, and transactions that readers come across.

use std::time::Duration;

use ottla::{
    Class, CommitError, ErrorKind, GroupMetadata, IsolationLevel, OffsetAndMetadata, Record,
    TopicPartition, TransactionOutcome,
};

use super::seen;
use crate::support::{Result, client, old, one, unique};

#[tokio::test]
async fn refusals_name_what_to_do_and_the_producer_goes_on() -> Result {
    for cluster in [one().await?, old().await?] {
        let (topic, id) = (unique("tx-errors"), unique("tx"));
        let settings = [("max.message.bytes", "2000")];
        cluster.create_topic_with(&topic, 1, 1, &settings).await?;
        let client = client(cluster).await?;

        let long = Duration::from_secs(3_600);
        let producer = client.transactional_producer(&id).transaction_timeout(long);
        let error = producer.build().await.unwrap_err();
        assert!(
            error.to_string().contains("transaction.timeout.ms"),
            "{error}"
        );

        let producer = client
            .transactional_producer(&id)
            .max_block(Duration::from_secs(5));
        let mut producer = producer.build().await?;
        let value = "x".repeat(5_000);
        let transaction = producer.begin().await?;
        let small = Record::to(&topic).with_value("never seen");
        drop(transaction.enqueue(small).await?);
        let large = Record::to(&topic).with_value(&value);
        let error = transaction.send(large).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RecordTooLarge, "{error}");
        let error = transaction.commit().await.unwrap_err();
        assert_eq!(error.outcome(), TransactionOutcome::Aborted);
        let text = error.to_string();
        assert!(
            text.contains(&topic) && text.contains("max.message.bytes"),
            "{text}"
        );
        assert!(!error.error().is_fatal(), "{text}");

        // A topic that does not exist concerns its record alone.
        let transaction = producer.begin().await?;
        let nowhere = Record::to("tx-nowhere").with_value("v");
        let error = transaction.send(nowhere).await.unwrap_err();
        assert!(error.to_string().contains("tx-nowhere"), "{error}");
        let record = Record::to(&topic).with_value("seen");
        transaction.send(record).await?;
        transaction.commit().await?;

        // A group of which this is no member.
        let mut consumer = client.consumer(&id).subscribe([topic.as_str()]).build()?;
        while consumer.group_metadata().member_epoch() < 1 {
            consumer.poll_timeout(Duration::from_millis(200)).await?;
        }
        let stale = consumer.group_metadata();
        consumer.close().await?;
        let mut consumer = client.consumer(&id).subscribe([topic.as_str()]).build()?;
        while consumer.group_metadata().member_epoch() < 1 {
            consumer.poll_timeout(Duration::from_millis(200)).await?;
        }
        let offset = || {
            [(
                TopicPartition::new(topic.as_str(), 0),
                OffsetAndMetadata::new(1),
            )]
        };
        let transaction = producer.begin().await?;
        let error = transaction
            .send_offsets(offset(), &stale)
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.class()),
            (ErrorKind::Group, Class::Abortable),
            "{error}"
        );
        let error = transaction.commit().await.unwrap_err();
        assert!(matches!(error, CommitError::Aborted(_)), "{error}");
        let own = consumer.group_metadata();
        let transaction = producer.begin().await?;
        transaction.send_offsets(offset(), &own).await?;
        transaction.commit().await?;
        let transaction = producer.begin().await?;
        transaction
            .send_offsets(offset(), &GroupMetadata::of_group(format!("{id}-2")))
            .await?;
        transaction.commit().await?;

        // Another owner.
        let transaction = producer.begin().await?;
        drop(
            transaction
                .enqueue(Record::to(&topic).with_value("never seen"))
                .await?,
        );
        let mut other = client.transactional_producer(&id).build().await?;
        let error = transaction.commit().await.unwrap_err();
        assert_eq!(error.error().kind(), ErrorKind::Fenced, "{error}");
        assert!(producer.begin().await.unwrap_err().is_fatal());
        let transaction = other.begin().await?;
        drop(
            transaction
                .enqueue(Record::to(&topic).with_value("seen, too"))
                .await?,
        );
        transaction.commit().await?;
        let seen = seen(&client, &topic, 1, IsolationLevel::ReadCommitted).await?;
        assert_eq!(seen[&0], ["seen", "seen, too"]);
    }
    Ok(())
}

/// Transactions of several producers lie across each other, in many small segments; a third of
/// them is aborted.
#[tokio::test]
async fn readers_see_what_is_committed_however_transactions_lie() -> Result {
    for cluster in [one().await?, old().await?] {
        let topic = unique("tx-mixed");
        let settings = [("segment.bytes", "1048576")];
        cluster.create_topic_with(&topic, 2, 1, &settings).await?;
        let client = client(cluster).await?;
        let mut producers = Vec::new();
        for _ in 0..4 {
            let producer = client.transactional_producer(unique("tx"));
            producers.push(producer.batch_size(1_000).build().await?);
        }
        let mut expected = [0, 0];
        for round in 0..60 {
            let mut open = Vec::new();
            for producer in &mut producers {
                open.push(producer.begin().await?);
            }
            for number in 0..120_usize {
                let place = number % open.len();
                let fate = if (round + place) % 3 == 0 {
                    "no"
                } else {
                    "yes"
                };
                let value = format!("{fate} {}", "x".repeat(number * 10));
                let partition = (number / 7 % 2) as i32;
                let record = Record::to(&topic)
                    .with_partition(partition)
                    .with_value(&value);
                drop(open[place].enqueue(record).await?);
                expected[partition as usize] += usize::from(fate == "yes");
            }
            // Those that come later end first, every other time.
            if round % 2 == 0 {
                open.reverse();
            }
            let count = open.len();
            for (place, transaction) in open.into_iter().enumerate() {
                let place = if round % 2 == 0 {
                    count - 1 - place
                } else {
                    place
                };
                match (round + place) % 3 {
                    0 => transaction.abort().await?,
                    _ => transaction.commit().await?,
                }
            }
        }
        let seen = seen(&client, &topic, 2, IsolationLevel::ReadCommitted).await?;
        for partition in 0..2 {
            let values = &seen[&partition];
            assert!(values.iter().all(|value| value.starts_with("yes")));
            assert_eq!(values.len(), expected[partition as usize]);
        }
    }
    Ok(())
}
