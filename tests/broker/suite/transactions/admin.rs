//! Transactions as administrators see and end them, beside Kafka's own tool.

use std::time::Duration;

use ottla::admin::{AbortTransaction, TransactionFilter};
use ottla::{ErrorKind, IsolationLevel, Record, TopicPartition};

use super::seen;
use crate::support::{Result, client, old, one, unique};

#[tokio::test]
async fn what_is_told_is_what_kafkas_tool_tells() -> Result {
    for cluster in [one().await?, old().await?] {
        let (topic, id) = (unique("tx-admin"), unique("tx"));
        cluster.create_topic(&topic, 2, 1).await?;
        let client = client(cluster).await?;
        let admin = client.admin();
        let mut producer = client.transactional_producer(&id).build().await?;
        let open = producer.begin().await?;
        let record = || {
            Record::to(&topic)
                .with_partition(1)
                .with_value("never seen")
        };
        open.send(record()).await?;

        let tool = async |args: &[&str]| {
            let tool = cluster.tool_command("kafka-transactions.sh").args(args);
            let output = tool.run().await?.success()?;
            let lines = output.stdout.lines().skip(1);
            let rows: Vec<Vec<String>> = lines
                .map(|line| line.split_whitespace().map(str::to_owned).collect())
                .collect();
            let rows: Result<_> = Ok(rows);
            rows
        };
        let described = admin.describe_transactions([id.as_str()]).await?;
        let ours = described.into_iter().next().ok_or("nothing")?.1?;
        let theirs = tool(&["describe", "--transactional-id", &id]).await?;
        let row = theirs.first().ok_or("no row")?;
        assert_eq!(row[0], ours.coordinator.to_string(), "{row:?}");
        assert_eq!(row[2], ours.producer_id.to_string(), "{row:?}");
        assert_eq!(row[3], ours.producer_epoch.to_string(), "{row:?}");
        assert_eq!(row[4], ours.state, "{row:?}");
        assert_eq!(row[5], ours.timeout.as_millis().to_string(), "{row:?}");
        assert_eq!(ours.partitions, [TopicPartition::new(topic.as_str(), 1)]);
        assert_eq!(row.last(), Some(&format!("{topic}-1")), "{row:?}");

        let filter = TransactionFilter::all().states(["Ongoing"]);
        let listed = admin.list_transactions(filter).await?;
        let ours = listed.iter().find(|listed| listed.transactional_id == id);
        let ours = ours.ok_or("not listed")?;
        let theirs = tool(&["list"]).await?;
        let row = theirs.iter().find(|row| row[0] == id).ok_or("not listed")?;
        assert_eq!(row[2], ours.producer_id.to_string(), "{row:?}");
        assert_eq!(row[3], ours.state, "{row:?}");
        let filter = TransactionFilter::all().longer_than(Duration::from_secs(3_600));
        let listed = admin.list_transactions(filter).await?;
        assert!(listed.iter().all(|listed| listed.transactional_id != id));

        let partition = TopicPartition::new(topic.as_str(), 1);
        let producers = admin.describe_producers([partition.clone()]).await?;
        let producers = producers.all()?.concat();
        let args = ["describe-producers", "--topic", &topic, "--partition", "1"];
        let theirs = tool(&args).await?;
        assert_eq!((producers.len(), theirs.len()), (1, 1), "{theirs:?}");
        let (ours, row) = (&producers[0], &theirs[0]);
        assert_eq!(row[0], ours.producer_id.to_string(), "{row:?}");
        assert_eq!(row[1], ours.producer_epoch.to_string(), "{row:?}");
        assert_eq!(ours.transaction_start, Some(0));
        assert_eq!(row.last(), Some(&"0".to_owned()), "{row:?}");

        // Nothing hangs, for the coordinator knows it.
        let none = admin
            .find_hanging_transactions([partition.clone()], Duration::ZERO)
            .await?;
        assert!(none.is_empty(), "{none:?}");

        // A partition alone gives it up, and readers get on.
        let marker = AbortTransaction::of(partition.clone(), ours)?;
        admin.abort_transaction(marker).await?;
        let producers = admin.describe_producers([partition.clone()]).await?;
        let producers = producers.all()?.concat();
        assert_eq!(producers[0].transaction_start, None);
        open.abort().await?;

        // Another one is ended with its owner.
        let open = producer.begin().await?;
        open.send(record()).await?;
        let fenced = admin
            .fence_producers([id.as_str(), &unique("tx-new")])
            .await?;
        fenced.all()?;
        let error = open.commit().await.unwrap_err();
        assert_eq!(error.error().kind(), ErrorKind::Fenced, "{error}");
        let mut other = client.transactional_producer(&id).build().await?;
        let transaction = other.begin().await?;
        let record = Record::to(&topic).with_partition(1).with_value("seen");
        transaction.send(record).await?;
        transaction.commit().await?;
        let seen = seen(&client, &topic, 2, IsolationLevel::ReadCommitted).await?;
        assert_eq!(seen[&1], ["seen"]);
        let missing = admin.describe_transactions([unique("tx-none")]).await?;
        assert_eq!(
            missing.all().unwrap_err().code().map(|code| code.get()),
            Some(105)
        );
    }
    Ok(())
}
