//! Kafka's own Java tools against the mock cluster.

use std::time::Duration;

use ottla::mock::MockCluster;
use ottla::{OffsetReset, Record};

use crate::support::{Result, one, take};

/// Runs a tool in a container that shares this machine's network, against the mock.
async fn tool(mock: &MockCluster, tool: &str, args: &[&str]) -> Result<String> {
    let cluster = one().await?;
    let mut all = vec!["--bootstrap-server".to_owned(), mock.bootstrap()];
    all.extend(args.iter().map(|arg| (*arg).to_owned()));
    let output = cluster
        .java_client(tool)
        .args(&all)
        .property("bootstrap.servers", mock.bootstrap())
        .property("group.protocol", "consumer")
        .start()
        .await?
        .wait(Duration::from_secs(60))
        .await?;
    Ok(output.stdout + &output.stderr)
}

#[tokio::test]
async fn javas_tools_work_on_the_mock() -> Result {
    let mock = MockCluster::builder().brokers(3).start().await?;
    let create = [
        "--create",
        "--topic",
        "java",
        "--partitions",
        "3",
        "--replication-factor",
        "2",
    ];
    let said = tool(&mock, "kafka-topics.sh", &create).await?;
    assert!(said.contains("Created topic java"), "{said}");
    let said = tool(&mock, "kafka-topics.sh", &["--describe", "--topic", "java"]).await?;
    assert!(
        said.contains("PartitionCount: 3") && said.contains("ReplicationFactor: 2"),
        "{said}"
    );

    let client = mock.client();
    let producer = client.producer().build()?;
    for number in 0..5 {
        let value = format!("value-{number}");
        producer.send(Record::to("java").with_value(&value)).await?;
    }
    let consume = [
        "--topic",
        "java",
        "--from-beginning",
        "--max-messages",
        "5",
        "--group",
        "tools",
    ];
    let said = tool(&mock, "kafka-console-consumer.sh", &consume).await?;
    assert!(
        (0..5).all(|number| said.contains(&format!("value-{number}"))),
        "{said}"
    );
    let said = tool(
        &mock,
        "kafka-consumer-groups.sh",
        &["--describe", "--group", "tools"],
    )
    .await?;
    assert!(said.contains("LAG") && said.contains("java"), "{said}");
    let said = tool(&mock, "kafka-consumer-groups.sh", &["--list"]).await?;
    assert!(said.contains("tools"), "{said}");

    // Its producer, idempotent by default, writes what this crate reads.
    let args = [
        "--topic",
        "perf",
        "--num-records",
        "50",
        "--record-size",
        "20",
        "--throughput",
        "-1",
    ];
    let perf = ["--producer-props", "acks=all"];
    let said = tool(
        &mock,
        "kafka-producer-perf-test.sh",
        &[&args[..], &perf].concat(),
    )
    .await?;
    let mut consumer = client
        .consumer("rust")
        .subscribe(["perf"])
        .offset_reset(OffsetReset::Earliest)
        .build()?;
    assert_eq!(
        take(&mut consumer, 50)
            .await?
            .values()
            .map(Vec::len)
            .sum::<usize>(),
        50,
        "{said}"
    );
    Ok(())
}
