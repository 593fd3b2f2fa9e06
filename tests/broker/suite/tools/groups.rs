//! Members that die, come back and change the group protocol while records come: none is passed
//! over, and no partition has two owners.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ottla_testcontainers::Cluster;
use serde_json::Value;

use super::process::{Ended, Tool, parse};
use super::promises::{self, consumed, integer, owned};
use crate::support::{LONG, Result, one, unique};

const PARTITIONS: u32 = 6;
const CLASSIC: &[&str] = &[
    "--group-protocol",
    "classic",
    "--assignment-strategy",
    "cooperative-sticky",
];
const CONSUMER: &[&str] = &["--group-protocol", "consumer"];

struct World {
    bootstrap: String,
    topic: String,
    group: String,
}

impl World {
    async fn new(cluster: &Cluster, name: &str) -> Result<Self> {
        let (topic, group) = (unique(name), unique("group"));
        cluster.create_topic(&topic, PARTITIONS, 1).await?;
        Ok(Self {
            bootstrap: cluster.bootstrap(),
            topic,
            group,
        })
    }

    fn member(&self, more: &[&str]) -> Result<Tool> {
        let args = ["--bootstrap-server", &self.bootstrap];
        let group = ["--topic", &self.topic, "--group-id", &self.group];
        Tool::start("verifiable-consumer", &[&args, &group[..], more].concat())
    }

    /// Writes a record every 5 ms until it is told to end.
    fn producer(&self) -> Result<Tool> {
        let args = [
            "--bootstrap-server",
            &self.bootstrap,
            "--topic",
            &self.topic,
            "--throughput",
            "200",
            "--repeating-keys",
            "60",
        ];
        Tool::start("verifiable-producer", &args)
    }
}

async fn owns(tool: &Tool, partitions: usize) -> Result {
    let what = format!("{partitions} partitions");
    tool.wait_for(&what, |events| owned(events) == partitions)
        .await
}

async fn stop(tool: Tool, signal: &str) -> Result<Ended> {
    tool.signal(signal).await?;
    tool.end(LONG).await
}

/// Waits until what was acknowledged was also consumed by the last member, which then is to end.
async fn finish(producer: Tool, last: Tool, others: &[Vec<Value>]) -> Result {
    let acked = promises::producer(&stop(producer, "TERM").await?.events);
    let wanted: BTreeSet<(i64, i64)> = acked.into_values().collect();
    assert!(wanted.len() > 500, "{}", wanted.len());
    let seen = |events: &[Value]| -> BTreeMap<(i64, i64), usize> {
        let mut seen = BTreeMap::new();
        for events in others.iter().map(Vec::as_slice).chain([events]) {
            for (partition, offsets) in promises::consumer(events) {
                for offset in offsets {
                    *seen.entry((partition, offset)).or_default() += 1;
                }
            }
        }
        seen
    };
    let all = |events: &[Value]| {
        let seen = seen(events);
        wanted.iter().all(|at| seen.contains_key(at))
    };
    last.wait_for("all records", all).await?;
    let last = stop(last, "TERM").await?;
    promises::ended(&last.events);
    let members = others.iter().map(Vec::as_slice).chain([&last.events[..]]);
    let members: Vec<&[Value]> = members.collect();
    promises::group(&members);
    // What comes twice had not been committed: a commit failed, or its member was killed.
    let seen = seen(&last.events);
    let twice = seen.values().filter(|times| **times > 1).count();
    let failed = |events: &&[Value]| {
        let commits = promises::named(events, "offsets_committed");
        let failed = commits.filter(|commit| commit["success"] == false).count();
        failed > 0
            || promises::named(events, "shutdown_complete")
                .next()
                .is_none()
    };
    assert!(
        twice == 0 || members.iter().any(failed),
        "{twice} came twice"
    );
    Ok(())
}

#[tokio::test]
async fn a_group_moves_from_one_protocol_to_the_other_and_back_while_records_come() -> Result {
    let cluster = one().await?;
    let world = World::new(cluster, "moves").await?;
    let producer = world.producer()?;
    let first = world.member(CLASSIC)?;
    owns(&first, 6).await?;
    let class = "org.apache.kafka.clients.consumer.CooperativeStickyAssignor";
    let java = ["--topic", &world.topic, "--group-id", &world.group];
    let java = cluster
        .java_client("kafka-verifiable-consumer.sh")
        .args(java)
        .args(["--group-protocol", "classic"])
        .args(["--assignment-strategy", class])
        .start()
        .await?;
    java.wait_for(LONG, |output| owned(&parse(&output.stdout)) == 3)
        .await?;
    // The group becomes one of KIP-848, with two classic members in it.
    let modern = world.member(CONSUMER)?;
    owns(&modern, 2).await?;
    let first = stop(first, "TERM").await?.events;
    java.stop().await?;
    let java = parse(&java.wait(LONG).await?.stdout);
    owns(&modern, 6).await?;
    modern
        .wait_for("records", |events| consumed(events) > 100)
        .await?;
    // And a classic one again, when the last member of KIP-848 has gone.
    let last = world.member(CLASSIC)?;
    owns(&last, 3).await?;
    let modern = stop(modern, "TERM").await?.events;
    owns(&last, 6).await?;
    let described = cluster.tool("kafka-groups.sh", &["--list"]).await?.stdout;
    let row = described.lines().find(|row| row.contains(&world.group));
    assert!(
        row.is_some_and(|row| row.contains("Classic")),
        "{row:?} in {described}"
    );
    finish(producer, last, &[first, java, modern]).await
}

/// One of two members is killed, and one comes back that has the same name.
async fn dies_and_returns(strategy: &str) -> Result {
    let world = World::new(one().await?, "dies").await?;
    let producer = world.producer()?;
    let session = Duration::from_secs(6);
    let args = [
        "--assignment-strategy",
        strategy,
        "--session-timeout",
        "6000",
    ];
    let first = world.member(&args)?;
    owns(&first, 6).await?;
    let second = world.member(&args)?;
    owns(&second, 3).await?;
    owns(&first, 3).await?;
    second
        .wait_for("records", |events| consumed(events) > 50)
        .await?;
    let killed_at = promises::integer(&first.events().last().ok_or("no event")?["timestamp"]);
    let second = stop(second, "KILL").await?.events;
    owns(&first, 6).await?;
    let events = first.events();
    let assigned = promises::named(&events, "partitions_assigned").last();
    let took = integer(&assigned.ok_or("not assigned")?["timestamp"]) - killed_at;
    let longest = (session + Duration::from_secs(5)).as_millis();
    assert!(took as u128 <= longest, "{took} ms");
    let mut gone = vec![at_its_end(second, &events)];
    // A static member keeps its place while it restarts, and nothing is assigned anew.
    let named = [&args[..], &["--group-instance-id", "i"]].concat();
    let third = world.member(&named)?;
    owns(&third, 3).await?;
    owns(&first, 3).await?;
    let before = promises::named(&first.events(), "partitions_assigned").count();
    gone.push(stop(third, "TERM").await?.events);
    let third = world.member(&named)?;
    owns(&third, 3).await?;
    let after = promises::named(&first.events(), "partitions_assigned").count();
    assert_eq!(before, after, "a static member came back");
    gone.push(stop(third, "KILL").await?.events);
    let last = gone.pop().ok_or("no member")?;
    owns(&first, 6).await?;
    gone.push(at_its_end(last, &first.events()));
    finish(producer, first, &gone).await
}

/// The events of a member that was killed: it lost its partitions before the other got them.
fn at_its_end(mut events: Vec<Value>, heir: &[Value]) -> Vec<Value> {
    let assigned = promises::named(heir, "partitions_assigned").last();
    let mut lost = assigned.cloned().unwrap_or_default();
    let mut left: Vec<Value> = Vec::new();
    for event in &events {
        let Some(partitions) = event["partitions"].as_array() else {
            continue;
        };
        match promises::name(event) {
            "partitions_assigned" => left.extend(partitions.iter().cloned()),
            "partitions_revoked" => left.retain(|at| !partitions.contains(at)),
            _ => {}
        }
    }
    lost["name"] = "partitions_revoked".into();
    lost["partitions"] = left.into();
    events.push(lost);
    events
}

#[tokio::test]
async fn classic_members_die_and_return_by_ranges() -> Result {
    dies_and_returns("range").await
}

#[tokio::test]
async fn classic_members_die_and_return_in_turns() -> Result {
    dies_and_returns("roundrobin").await
}

#[tokio::test]
async fn classic_members_die_and_return_stickily() -> Result {
    dies_and_returns("sticky").await
}

#[tokio::test]
async fn classic_members_die_and_return_cooperatively() -> Result {
    dies_and_returns("cooperative-sticky").await
}
