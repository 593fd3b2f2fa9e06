//! The same invocations of Kafka's verifiable producer and consumer and of ours.

use std::collections::BTreeSet;

use ottla_testcontainers::Cluster;
use serde_json::Value;

use super::process::{Tool, parse, run};
use super::promises::{self, consumed, name, named, owned, shape};
use crate::support::{LONG, Result, one, unique};

/// Every field that Kafka's tool prints, ours prints with the same type.
fn alike(java: &[Value], ours: &[Value]) {
    let (java, ours) = (shape(java), shape(ours));
    assert_eq!(
        java.keys().collect::<Vec<_>>(),
        ours.keys().collect::<Vec<_>>(),
        "the same kinds of events"
    );
    for (event, fields) in java {
        let missing: Vec<_> = fields.difference(&ours[&event]).collect();
        assert!(missing.is_empty(), "{event} has no {missing:?}");
    }
}

async fn java(cluster: &Cluster, tool: &str, args: &[&str]) -> Result<Vec<Value>> {
    let output = cluster
        .tool_command(tool)
        .args(args)
        .run()
        .await?
        .success()?;
    Ok(parse(&output.stdout))
}

/// What does not differ from run to run.
fn fates(events: &[Value]) -> BTreeSet<String> {
    let keyed = |event: &Value| event["key"].is_string();
    let of = |event: &Value| format!("{}: {} {}", name(event), event["key"], event["value"]);
    events
        .iter()
        .map(|event| match keyed(event) {
            // The key decides on the partition.
            true => format!("{} at {}", of(event), event["partition"]),
            false => of(event),
        })
        .collect()
}

#[tokio::test]
async fn the_producer_tells_what_kafkas_tells() -> Result {
    let cluster = one().await?;
    let bootstrap = cluster.bootstrap();
    for extra in [
        &["--max-messages", "50"][..],
        &[
            "--max-messages",
            "40",
            "--repeating-keys",
            "7",
            "--value-prefix",
            "3",
            "--throughput",
            "1000",
        ],
        &["--max-messages", "20", "--acks", "0"],
        &[
            "--max-messages",
            "20",
            "--acks",
            "1",
            "--message-create-time",
            "1700000000000",
        ],
        &["--max-messages", "0"],
    ] {
        let (theirs, mine) = (unique("verifiable-java"), unique("verifiable"));
        cluster.create_topic(&theirs, 3, 1).await?;
        cluster.create_topic(&mine, 3, 1).await?;
        let java = java(
            cluster,
            "kafka-verifiable-producer.sh",
            &[&["--topic", &theirs], extra].concat(),
        )
        .await?;
        let args = ["--bootstrap-server", &bootstrap, "--topic", &mine];
        let ours = run("verifiable-producer", &[&args, extra].concat()).await?;
        assert_eq!(ours.status, 0, "{}", ours.stderr);
        alike(&java, &ours.events);
        assert_eq!(fates(&java), fates(&ours.events), "{extra:?}");
        let acked = promises::producer(&java);
        assert_eq!(acked.len(), promises::producer(&ours.events).len());
    }
    Ok(())
}

#[tokio::test]
async fn the_consumer_tells_what_kafkas_tells() -> Result {
    let (cluster, topic) = (one().await?, unique("verifiable"));
    let bootstrap = cluster.bootstrap();
    cluster.create_topic(&topic, 1, 1).await?;
    let args = ["--bootstrap-server", &bootstrap, "--topic", &topic];
    run(
        "verifiable-producer",
        &[
            &args[..],
            &["--max-messages", "50", "--repeating-keys", "2"],
        ]
        .concat(),
    )
    .await?;
    for extra in [
        &["--verbose", "--max-messages", "30"][..],
        &["--enable-autocommit", "--max-messages", "50"],
    ] {
        let (theirs, mine) = (unique("java"), unique("ours"));
        let common = [&["--topic", &topic, "--group-protocol", "consumer"], extra].concat();
        let java_args = [&["--group-id", &theirs], &common[..]].concat();
        let java = java(cluster, "kafka-verifiable-consumer.sh", &java_args).await?;
        // Kafka's tool asks for its own end.
        let java: Vec<Value> = java
            .into_iter()
            .filter(|event| name(event) != "shutdown_requested")
            .collect();
        let ours_args = [
            &["--bootstrap-server", &bootstrap, "--group-id", &mine],
            &common[..],
        ]
        .concat();
        let ours = run("verifiable-consumer", &ours_args).await?;
        assert_eq!(ours.status, 0, "{}", ours.stderr);
        alike(&java, &ours.events);
        promises::ended(&ours.events);
        assert_eq!(
            promises::consumer(&ours.events),
            promises::consumer(&java),
            "{extra:?}"
        );
        let last = |events: &[Value]| {
            named(events, "offsets_committed")
                .last()
                .map(|event| event["offsets"].clone())
        };
        assert_eq!(last(&ours.events), last(&java));
        let records = |events: &[Value]| -> Vec<Value> {
            let records = named(events, "record_data").cloned();
            records
                .map(|mut record| (record["timestamp"] = Value::Null, record).1)
                .collect()
        };
        assert_eq!(records(&ours.events), records(&java));
    }
    Ok(())
}

/// Automatic commits end exactly where the count ended.
#[tokio::test]
async fn a_count_is_exact_with_automatic_commits_too() -> Result {
    let (cluster, topic, group) = (one().await?, unique("exact"), unique("group"));
    let bootstrap = cluster.bootstrap();
    cluster.create_topic(&topic, 1, 1).await?;
    let common = ["--bootstrap-server", &bootstrap, "--topic", &topic];
    run(
        "verifiable-producer",
        &[&common[..], &["--max-messages", "100"]].concat(),
    )
    .await?;
    let member = [
        "--group-id",
        &group,
        "--group-protocol",
        "consumer",
        "--enable-autocommit",
    ];
    let args = [&common[..], &member].concat();
    let first = run(
        "verifiable-consumer",
        &[&args[..], &["--max-messages", "33"]].concat(),
    )
    .await?;
    assert_eq!(
        promises::consumer(&first.events)[&0],
        (0..33).collect::<Vec<_>>()
    );
    let second = run(
        "verifiable-consumer",
        &[&args[..], &["--max-messages", "67"]].concat(),
    )
    .await?;
    assert_eq!(
        promises::consumer(&second.events)[&0],
        (33..100).collect::<Vec<_>>()
    );
    Ok(())
}

/// A member of ours and one of Java's share six partitions, a second of ours comes and goes; which
/// of the first two comes first leads a classic group.
async fn share(protocol: &[&str], java_first: bool) -> Result {
    let (cluster, topic, group) = (one().await?, unique("both"), unique("group"));
    let bootstrap = cluster.bootstrap();
    cluster.create_topic(&topic, 6, 1).await?;
    let member = [&["--topic", &topic, "--group-id", &group], protocol].concat();
    let args = [&["--bootstrap-server", &bootstrap], &member[..]].concat();
    let theirs = cluster
        .java_client("kafka-verifiable-consumer.sh")
        .args(&member);
    let (first, theirs) = if java_first {
        let theirs = theirs.start().await?;
        let has = |number| move |output: &str| owned(&parse(output)) == number;
        theirs
            .wait_for(LONG, |output| has(6)(&output.stdout))
            .await?;
        let first = Tool::start("verifiable-consumer", &args)?;
        theirs
            .wait_for(LONG, |output| has(3)(&output.stdout))
            .await?;
        (first, theirs)
    } else {
        let first = Tool::start("verifiable-consumer", &args)?;
        first
            .wait_for("assignment", |events| owned(events) == 6)
            .await?;
        let theirs = theirs.start().await?;
        theirs
            .wait_for(LONG, |output| owned(&parse(&output.stdout)) == 3)
            .await?;
        (first, theirs)
    };
    first
        .wait_for("sharing", |events| owned(events) == 3)
        .await?;
    let second = Tool::start("verifiable-consumer", &args)?;
    second
        .wait_for("its share", |events| owned(events) == 2)
        .await?;
    let common = ["--bootstrap-server", &bootstrap, "--topic", &topic];
    let produce = [
        &common[..],
        &[
            "--max-messages",
            "900",
            "--throughput",
            "300",
            "--repeating-keys",
            "60",
        ],
    ]
    .concat();
    let produced = run("verifiable-producer", &produce).await?;
    assert_eq!(promises::producer(&produced.events).len(), 900);
    second
        .wait_for("records", |events| consumed(events) > 0)
        .await?;
    theirs
        .wait_for(LONG, |output| consumed(&parse(&output.stdout)) > 0)
        .await?;
    second.signal("TERM").await?;
    let second = second.end(LONG).await?;
    assert_eq!(second.status, 143);
    theirs.stop().await?;
    let theirs = parse(&theirs.wait(LONG).await?.stdout);
    let rest = 900 - consumed(&theirs) - consumed(&second.events);
    first
        .wait_for("the rest", |events| {
            owned(events) == 6 && consumed(events) >= rest
        })
        .await?;
    first.signal("INT").await?;
    let first = first.end(LONG).await?;
    assert_eq!(first.status, 130);
    let members = [&first.events[..], &second.events, &theirs];
    promises::group(&members);
    let mut seen = BTreeSet::new();
    for events in members {
        promises::ended(events);
        assert!(consumed(events) > 0);
        for (partition, offsets) in promises::consumer(events) {
            for offset in offsets {
                assert!(
                    seen.insert((partition, offset)),
                    "{partition}@{offset} came twice"
                );
            }
        }
    }
    assert_eq!(seen.len(), 900);
    Ok(())
}

#[tokio::test]
async fn members_of_both_kinds_share_a_group() -> Result {
    share(&["--group-protocol", "consumer"], false).await
}

/// Of Java's assignors, by the names of its classes, as Java's tool takes them.
async fn share_by(assignor: &str) -> Result {
    let class = format!("org.apache.kafka.clients.consumer.{assignor}");
    let args = [
        "--group-protocol",
        "classic",
        "--assignment-strategy",
        &class,
    ];
    share(&args, false).await?;
    share(&args, true).await
}

#[tokio::test]
async fn members_of_both_kinds_share_a_classic_group_by_ranges() -> Result {
    share_by("RangeAssignor").await
}

#[tokio::test]
async fn members_of_both_kinds_share_a_classic_group_in_turns() -> Result {
    share_by("RoundRobinAssignor").await
}

#[tokio::test]
async fn members_of_both_kinds_share_a_classic_group_stickily() -> Result {
    share_by("StickyAssignor").await
}

#[tokio::test]
async fn members_of_both_kinds_share_a_classic_group_cooperatively() -> Result {
    share_by("CooperativeStickyAssignor").await
}
