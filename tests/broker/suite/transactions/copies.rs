//! Topics copied in transactions while copiers, brokers and the protocol come and go.

use std::time::{Duration, Instant};

use ottla::admin::Admin;
use ottla::{
    Client, OffsetReset, Record, Result as Ours, TransactionalBatches, TransactionalConsumer,
};
use ottla_testcontainers::Cluster;
use tokio::time::{sleep, timeout};

use super::{assert_copied, fill};
use crate::support::{LONG, Result, client, one, unique};
use crate::tools::process::Tool;

const COPIERS: usize = 4;
const RECORDS: usize = 2_500;
const COPIER: &str = "transactional-message-copier";
const SETTINGS: [&str; 5] = [
    "--enable-random-aborts",
    "--transaction-size",
    "50",
    "--transaction-timeout",
    "20000",
];

/// For blocks whose error is told by nothing else.
fn done() -> Result {
    Ok(())
}

fn args<'a>(bootstrap: &'a str, id: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let common = [
        "--broker-list",
        bootstrap,
        "--input-topic",
        "in",
        "--output-topic",
        "out",
        "--input-partition",
        "0",
        "--transactional-id",
        id,
        "--consumer-group",
        "copiers",
    ];
    [&common[..], more].concat()
}

/// How much of the input the group has committed.
async fn committed(admin: &Admin, group: &str) -> Result<i64> {
    let offsets = admin.list_group_offsets([group]).await?;
    let offsets = offsets.into_iter().next().ok_or("no group")?.1?;
    Ok(offsets.values().map(|offset| offset.offset()).sum())
}

/// The protocol of transactions that is used, where that can be chosen.
async fn finalize(cluster: &Cluster, version: u8) -> Result {
    let change = match version {
        2 => "upgrade",
        _ => "downgrade",
    };
    let feature = format!("transaction.version={version}");
    let args = [change, "--feature", &feature];
    cluster
        .tool_command("kafka-features.sh")
        .args(args)
        .run()
        .await?
        .success()?;
    Ok(())
}

/// Processes copy a partition each with random aborts. They are killed again and again, and so are
/// brokers. Where the cluster can, it goes back to the first protocol meanwhile, and returns.
#[tokio::test]
async fn copiers_and_brokers_that_die_lose_and_double_nothing() -> Result {
    let cluster = Cluster::builder().brokers(3).start().await?;
    let changes = cluster.version().is_at_least(4, 1);
    let breaking = async {
        for id in [1, 2] {
            sleep(Duration::from_secs(3)).await;
            cluster.broker(id).kill().await?;
            sleep(Duration::from_secs(1)).await;
            cluster.broker(id).start().await?;
            if changes {
                finalize(&cluster, id as u8).await?;
            }
        }
        done()
    };
    let each = |partition: usize| vec![("--input-partition", partition.to_string())];
    copied_by(&cluster, each, Duration::from_millis(1_500), breaking).await
}

/// Brokers of Kafka 3.9, which knows only the first protocol, are restarted one by one.
#[tokio::test]
async fn copiers_go_on_while_brokers_of_3_9_are_restarted_in_turn() -> Result {
    let cluster = Cluster::builder().brokers(3).version("3.9").start().await?;
    let breaking = async {
        for id in [1, 2, 3] {
            cluster.broker(id).stop().await?;
            cluster.broker(id).start().await?;
            cluster.wait_until_in_sync(LONG).await?;
        }
        done()
    };
    let each = |partition: usize| vec![("--input-partition", partition.to_string())];
    copied_by(&cluster, each, Duration::from_secs(3), breaking).await
}

/// They share the topic as a group; it hears late of members that are killed.
#[tokio::test]
async fn a_group_of_copiers_some_of_which_die_loses_and_doubles_nothing() -> Result {
    let cluster = Cluster::builder().start().await?;
    let group = |_| {
        let (on, none) = ("--group-mode", String::new());
        vec![(on, none.clone()), ("--use-group-metadata", none)]
    };
    copied_by(&cluster, group, Duration::from_secs(8), async { done() }).await
}

async fn copied_by(
    cluster: &Cluster,
    mode: impl Fn(usize) -> Vec<(&'static str, String)>,
    between_kills: Duration,
    breaking: impl Future<Output = Result>,
) -> Result {
    let replicas = cluster.brokers().len() as u16;
    for topic in ["in", "out"] {
        cluster
            .create_topic(topic, COPIERS as u32, replicas)
            .await?;
    }
    let client = client(cluster).await?;
    fill(&client, "in", COPIERS as i32, RECORDS).await?;
    let bootstrap = cluster.bootstrap();
    let ids: Vec<String> = (0..COPIERS)
        .map(|number| format!("copier-{number}"))
        .collect();
    let start = |number: usize| {
        let mode = mode(number);
        let mode = mode.iter().flat_map(|(name, value)| [*name, value]);
        let mut args = args(&bootstrap, &ids[number], &SETTINGS);
        args.extend(mode.filter(|arg| !arg.is_empty()));
        Tool::start(COPIER, &args)
    };
    let mut copiers: Vec<Tool> = (0..COPIERS).map(start).collect::<Result<_>>()?;
    let copying = async {
        let admin = client.admin();
        let all = (RECORDS * COPIERS) as i64;
        let began = Instant::now();
        let mut kills = 0;
        while committed(&admin, "copiers").await.unwrap_or(0) < all {
            let so_far = committed(&admin, "copiers").await;
            assert!(began.elapsed() < 2 * LONG, "{so_far:?} of {all}");
            sleep(between_kills).await;
            // Dropped, it is killed; one that has ended is begun anew, too.
            copiers[kills % COPIERS] = start(kills % COPIERS)?;
            kills += 1;
        }
        println!("{all} copied in {:?}, with {kills} kills", began.elapsed());
        done()
    };
    tokio::try_join!(copying, breaking)?;
    for (number, copier) in copiers.into_iter().enumerate() {
        drop(copier);
        // What it left open holds readers back.
        client.transactional_producer(&ids[number]).build().await?;
    }
    assert_copied(&client, "out", COPIERS as i32, RECORDS).await
}

/// A process that stands still in a transaction is replaced. The successor goes on at once, and the
/// zombie ends when it wakes up, with nothing written.
#[tokio::test]
async fn a_zombie_is_shut_out_and_its_successor_goes_on_at_once() -> Result {
    for kind in ["STOP", "KILL"] {
        let cluster = Cluster::builder().start().await?;
        for topic in ["in", "out"] {
            cluster.create_topic(topic, 1, 1).await?;
        }
        let client = client(&cluster).await?;
        fill(&client, "in", 1, 30_000).await?;
        let bootstrap = cluster.bootstrap();
        let zombie = Tool::start(COPIER, &args(&bootstrap, "id", &[]))?;
        let copied = |events: &[serde_json::Value]| {
            let last = events
                .last()
                .and_then(|event| event["totalProcessed"].as_i64());
            last.unwrap_or(0)
        };
        zombie
            .wait_for("copies", |events| copied(events) > 1_000)
            .await?;
        zombie.signal(kind).await?;
        let began = Instant::now();
        let successor = Tool::start(COPIER, &args(&bootstrap, "id", &[]))?;
        successor
            .wait_for("copies", |events| copied(events) > 0)
            .await?;
        println!(
            "after {kind} the successor committed {:?} after its start",
            began.elapsed()
        );
        if kind == "STOP" {
            zombie.signal("CONT").await?;
            let ended = zombie.end(LONG).await?;
            assert_eq!(ended.status, 1, "{}", ended.stderr);
            let why = ["a newer producer", "another producer uses"];
            let told = why.iter().any(|why| ended.stderr.contains(why));
            assert!(told, "{}", ended.stderr);
        }
        let ended = successor.end(LONG).await?;
        assert_eq!(ended.status, 0, "{}", ended.stderr);
        assert_copied(&client, "out", 1, 30_000).await?;
    }
    Ok(())
}

async fn copy(read: &TransactionalBatches<'_>, to: &str) -> Ours<()> {
    for batch in read.batches() {
        for record in batch {
            let record = record?;
            let copy = Record::to(to).with_partition(batch.partition());
            let copy = copy.with_value(record.value().unwrap_or_default());
            drop(read.enqueue(copy).await?);
        }
    }
    Ok(())
}

fn member(client: &Client, group: &str, from: &str) -> ottla::ConsumerBuilder {
    let consumer = client.consumer(group).subscribe([from.to_owned()]);
    consumer
        .offset_reset(OffsetReset::Earliest)
        .max_poll_records(100)
}

/// Members join and leave a group of consumers that process in transactions.
#[tokio::test]
async fn consumers_in_transactions_share_a_group() -> Result {
    let cluster = one().await?;
    let (from, to, group) = (unique("tx-in"), unique("tx-out"), unique("tx-group"));
    for topic in [&from, &to] {
        cluster.create_topic(topic, 4, 1).await?;
    }
    let client = client(cluster).await?;
    fill(&client, &from, 4, 2_000).await?;
    let live = async |number: usize, rounds: usize| {
        let producer = client.transactional_producer(format!("{group}-{number}"));
        let consumer = member(&client, &group, &from);
        let mut consumer = TransactionalConsumer::new(consumer, producer.build().await?)?;
        for round in 0..rounds {
            let Ok(read) = timeout(Duration::from_secs(2), consumer.poll()).await else {
                if committed(&client.admin(), &group).await.unwrap_or(0) == 8_000 {
                    break;
                }
                continue;
            };
            let read = read?.ok_or("closed")?;
            let sent = copy(&read, &to).await;
            match round % 7 {
                3 => drop(read),
                5 => read.abort().await?,
                _ => drop(read.end(sent).await?),
            }
        }
        consumer.close().await?;
        done()
    };
    tokio::try_join!(live(1, 1_000), live(2, 20), live(3, 5))?;
    assert_copied(&client, &to, 4, 2_000).await
}
