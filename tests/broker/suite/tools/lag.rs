//! Lag as Kafka's own tool tells it, while a member holds and the log grows.

use serde_json::Value;

use super::process::{Tool, run};
use super::promises::{integer, name, named};
use crate::support::{LONG, Result, one, unique};

/// The sum of a field over the partitions of the latest report.
fn latest(events: &[Value], field: &str) -> Option<i64> {
    let report = named(events, "lag").last()?;
    let partitions = report["partitions"].as_array()?.iter();
    partitions.map(|partition| partition[field].as_i64()).sum()
}

fn holds(events: &[Value]) -> bool {
    named(events, "lag")
        .last()
        .is_some_and(|report| report["holding"] == true)
}

#[tokio::test]
async fn a_holding_member_tells_what_kafkas_tool_tells() -> Result {
    let (cluster, topic, group) = (one().await?, unique("hold"), unique("group"));
    let bootstrap = cluster.bootstrap();
    cluster.create_topic(&topic, 3, 1).await?;
    let common = ["--bootstrap-server", &bootstrap, "--topic", &topic];
    let produce = async |count: &str| {
        run(
            "verifiable-producer",
            &[
                &common[..],
                &["--max-messages", count, "--repeating-keys", "50"],
            ]
            .concat(),
        )
        .await
    };
    produce("1000").await?;
    let member = [
        "--group-id",
        &group,
        "--group-protocol",
        "consumer",
        "--interval-ms",
        "200",
    ];
    let holder = Tool::start(
        "lag",
        &[&common[..], &member, &["--max-messages", "700"]].concat(),
    )?;
    holder.wait_for("hold", holds).await?;
    produce("500").await?;
    holder
        .wait_for("growth", |events| {
            latest(events, "end_offset") == Some(1500)
        })
        .await?;
    let events = holder.events();
    let report = named(&events, "lag").last().ok_or("no report")?;
    assert_eq!(report["consumed"], 700);
    assert_eq!(latest(&events, "position"), Some(700));
    assert_eq!(latest(&events, "records_lag"), Some(800));
    let described = cluster
        .tool(
            "kafka-consumer-groups.sh",
            &["--describe", "--group", &group],
        )
        .await?
        .stdout;
    let rows: Vec<Vec<&str>> = described
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    for partition in report["partitions"].as_array().ok_or("no partitions")? {
        let number = partition["partition"].to_string();
        let row = rows.iter().find(|row| row.get(2) == Some(&number.as_str()));
        let row = row.ok_or_else(|| format!("no partition {number} in\n{described}"))?;
        let told = |field: &str| match &partition[field] {
            Value::Null => "-".to_owned(),
            value => value.to_string(),
        };
        let told = [told("committed"), told("end_offset"), told("committed_lag")];
        assert_eq!(row[3..6], told, "{described}\n{partition}");
        let behind = integer(&partition["records_lag"]) > 0;
        assert_eq!(
            integer(&partition["time_lag_ms"]) > 0,
            behind,
            "{partition}"
        );
    }
    // Partitions that come later are held, too: the other one takes what it has been given.
    let other = Tool::start("lag", &[&common[..], &member].concat())?;
    other
        .wait_for("its share", |events| {
            latest(events, "records_lag") == Some(0)
        })
        .await?;
    other.signal("TERM").await?;
    let other = other.end(LONG).await?;
    assert_eq!(other.status, 143);
    assert_eq!(other.events.last().map(name), Some("shutdown_complete"));
    produce("100").await?;
    holder
        .wait_for("all partitions", |events| {
            latest(events, "end_offset") == Some(1600)
        })
        .await?;
    let events = holder.events();
    assert_eq!(
        named(&events, "lag")
            .last()
            .map(|report| report["consumed"].clone()),
        Some(700.into())
    );
    holder.signal("INT").await?;
    assert_eq!(holder.end(LONG).await?.status, 130);
    Ok(())
}
