//! Clusters come up, keep their data over a crash, suffer faults, and leave nothing behind.
//! Run with `testcontainers/run cargo test -p ottla-testcontainers`.

use std::process::Command;
use std::time::Duration;

use ottla_testcontainers::{Cluster, Error, Output};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const MINUTE: Duration = Duration::from_secs(60);

async fn produce(cluster: &Cluster, topic: &str, lines: &str) -> Result {
    let tool = cluster
        .tool_command("kafka-console-producer.sh")
        .args(["--topic", topic]);
    tool.stdin(lines).run().await?.success()?;
    Ok(())
}

async fn consume(cluster: &Cluster, topic: &str, count: usize) -> Result<Vec<String>> {
    let count = count.to_string();
    let args = [
        "--topic",
        topic,
        "--from-beginning",
        "--max-messages",
        &count,
    ];
    let output = cluster.tool("kafka-console-consumer.sh", &args).await?;
    let mut lines: Vec<String> = output.stdout.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

#[tokio::test]
async fn one_broker_takes_and_gives_records() -> Result {
    let cluster = Cluster::builder()
        .config("auto.create.topics.enable", "false")
        .start()
        .await?;
    cluster.create_topic("t", 1, 1).await?;
    produce(&cluster, "t", "a\nb\nc\n").await?;
    assert_eq!(consume(&cluster, "t", 3).await?, ["a", "b", "c"]);

    let offsets = cluster
        .tool("kafka-get-offsets.sh", &["--topic", "t"])
        .await?
        .stdout;
    let end: i64 = offsets
        .lines()
        .filter_map(|line| line.rsplit(':').next()?.parse::<i64>().ok())
        .sum();
    assert_eq!(end, 3, "{offsets}");

    let topics = cluster.tool("kafka-topics.sh", &["--list"]).await?.stdout;
    assert!(!topics.contains("unknown"), "{topics}");
    let missing = cluster
        .tool("kafka-topics.sh", &["--describe", "--topic", "unknown"])
        .await;
    assert!(
        matches!(missing, Err(Error::Tool { status: 1, .. })),
        "{missing:?}"
    );

    let dump = [
        "--files",
        "/var/lib/kafka/data/t-0/00000000000000000000.log",
    ];
    let dump = cluster.tool("kafka-dump-log.sh", &dump).await?.stdout;
    assert!(
        dump.contains("baseOffset") || dump.contains("Starting offset: 0"),
        "{dump}"
    );
    Ok(())
}

#[tokio::test]
async fn a_tool_that_hangs_is_ended() -> Result {
    let cluster = Cluster::start(1).await?;
    cluster.create_topic("t", 1, 1).await?;
    let waiting = cluster
        .tool_command("kafka-console-consumer.sh")
        .args(["--topic", "t"]);
    let result = timeout(MINUTE, waiting.timeout(Duration::from_secs(3)).run()).await?;
    assert!(matches!(result, Err(Error::TimedOut { .. })), "{result:?}");
    Ok(())
}

#[tokio::test]
async fn groups_of_the_new_protocol_work_on_every_version() -> Result {
    let cluster = Cluster::start(1).await?;
    cluster.create_topic("t", 1, 1).await?;
    let client = cluster
        .java_client("kafka-console-consumer.sh")
        .property("group.protocol", "consumer");
    let client = client
        .args(["--topic", "t", "--group", "new", "--from-beginning"])
        .start()
        .await?;
    produce(&cluster, "t", "x\n").await?;
    client
        .wait_for(MINUTE, |output| output.stdout.contains('x'))
        .await?;

    let group = ["--describe", "--group", "new", "--state"];
    let state = cluster
        .tool("kafka-consumer-groups.sh", &group)
        .await?
        .stdout;
    assert!(state.contains("Stable"), "{state}");
    client.stop().await?;
    let ended = client.wait(MINUTE).await?;
    assert!(
        ended.stderr.contains("Processed a total of 1 messages"),
        "{ended:?}"
    );
    Ok(())
}

#[tokio::test]
async fn java_clients_can_be_counted_and_killed() -> Result {
    let cluster = Cluster::start(1).await?;
    cluster.create_topic("t", 2, 1).await?;
    let consumer = cluster.java_client("kafka-verifiable-consumer.sh");
    let consumer = consumer.args([
        "--topic",
        "t",
        "--group-id",
        "g",
        "--reset-policy",
        "earliest",
    ]);
    let consumer = consumer.start().await?;

    let producer = cluster.java_client("kafka-verifiable-producer.sh");
    let producer = producer.args(["--topic", "t", "--max-messages", "50"]);
    let sent = producer.start().await?.wait(MINUTE).await?.success()?;
    assert!(sent.stdout.contains("\"acked\":50"), "{sent:?}");
    let perf = cluster.java_client("kafka-producer-perf-test.sh");
    let perf = perf.args(["--topic", "t", "--num-records", "50", "--record-size", "10"]);
    let perf = perf.args(["--throughput", "-1"]);
    perf.start().await?.wait(MINUTE).await?.success()?;

    let all_read = |output: &Output| {
        let counts = output.stdout.split("\"name\":\"records_consumed\"").skip(1);
        let counts = counts.filter_map(|rest| rest.split("\"count\":").nth(1));
        let digits = |text: &str| {
            text.chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
        };
        counts
            .filter_map(|text| digits(text).parse::<u32>().ok())
            .sum::<u32>()
            == 100
    };
    consumer.wait_for(MINUTE, all_read).await?;
    consumer.kill().await?;
    assert_eq!(consumer.output().await?.status, 137);
    Ok(())
}

#[tokio::test]
async fn a_killed_broker_comes_back_with_its_data_at_its_port() -> Result {
    let cluster = Cluster::start(1).await?;
    let address = cluster.bootstrap();
    cluster.create_topic("t", 1, 1).await?;
    produce(&cluster, "t", "kept\n").await?;

    cluster.broker(1).kill().await?;
    assert!(
        TcpStream::connect(&address).await.is_err(),
        "the port is closed"
    );
    assert!(matches!(
        cluster.tool("kafka-topics.sh", &["--list"]).await,
        Err(Error::Usage(_))
    ));
    cluster.broker(1).start().await?;
    assert_eq!(cluster.bootstrap(), address);
    assert_eq!(consume(&cluster, "t", 1).await?, ["kept"]);

    cluster.broker(1).stop().await?;
    cluster.broker(1).start().await?;
    assert_eq!(consume(&cluster, "t", 1).await?, ["kept"]);
    Ok(())
}

#[tokio::test]
async fn three_brokers_survive_faults_of_one() -> Result {
    let cluster = Cluster::start(3).await?;
    assert_eq!(cluster.bootstrap().split(',').count(), 3);
    cluster
        .create_topic_with("t", 3, 3, &[("min.insync.replicas", "2")])
        .await?;
    produce(&cluster, "t", "a\n").await?;

    cluster.broker(2).kill().await?;
    produce(&cluster, "t", "b\n").await?;
    cluster.broker(2).start().await?;
    cluster.wait_until_in_sync(MINUTE).await?;

    cluster.broker(3).pause().await?;
    TcpStream::connect(cluster.broker(3).addr()).await?; // but nothing answers
    produce(&cluster, "t", "c\n").await?;
    cluster.broker(3).unpause().await?;
    cluster.wait_until_in_sync(MINUTE).await?;

    cluster.broker(1).cut_peers().await?;
    let left_alone = async {
        while cluster.broker(2).live_brokers().await?.contains(&1) {
            sleep(Duration::from_millis(200)).await;
        }
        Ok::<(), Error>(())
    };
    timeout(MINUTE, left_alone).await??;
    cluster.broker(1).heal().await?;
    cluster.wait_until_in_sync(MINUTE).await?;
    assert_eq!(consume(&cluster, "t", 3).await?, ["a", "b", "c"]);
    Ok(())
}

#[tokio::test]
async fn clients_can_be_cut_off() -> Result {
    let cluster = Cluster::start(1).await?;
    let broker = cluster.broker(1);
    broker.wait_until_ready().await?;
    broker.cut_clients().await?;
    assert!(
        timeout(Duration::from_secs(3), broker.wait_until_ready())
            .await
            .is_err(),
        "clients get no answer"
    );
    cluster.tool("kafka-topics.sh", &["--list"]).await?; // the inner listener still works
    broker.heal().await?;
    broker.wait_until_ready().await?;
    Ok(())
}

/// What Docker still has of a cluster: containers and networks.
fn left_of(name: &str) -> Result<String> {
    let filter = format!("name={name}");
    let mut left = String::new();
    for list in [["ps", "-aq"], ["network", "ls"]] {
        let output = Command::new("docker")
            .args(list)
            .args(["--filter", &filter])
            .output()?;
        assert!(output.status.success(), "{output:?}");
        left += &String::from_utf8(output.stdout)?;
    }
    Ok(left
        .lines()
        .filter(|line| !line.starts_with("NETWORK"))
        .collect())
}

/// The part of a container's name that all things of its cluster share.
fn cluster_name(cluster: &Cluster) -> String {
    let name = cluster.broker(1).container();
    name.rsplit_once('-')
        .map_or(name, |(cluster, _)| cluster)
        .to_owned()
}

#[tokio::test]
async fn dropping_removes_everything() -> Result {
    let cluster = Cluster::start(1).await?;
    let name = cluster_name(&cluster);
    assert!(left_of(&name)?.len() > 12, "a container and a network");
    drop(cluster);
    assert_eq!(left_of(&name)?, "");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_removes_everything() -> Result {
    let cluster = Cluster::start(1).await?;
    let name = cluster_name(&cluster);
    let task = tokio::spawn(async move {
        let _cluster = cluster;
        panic!("as a failing test does");
    });
    assert!(task.await.is_err());
    assert_eq!(left_of(&name)?, "");
    Ok(())
}

#[tokio::test]
async fn what_cannot_start_says_why() -> Result {
    let unknown = Cluster::builder()
        .version("1.1")
        .start()
        .await
        .err()
        .map(|e| e.to_string());
    assert!(unknown.is_some_and(|why| why.contains("not a Kafka version")));
    let broken = Cluster::builder()
        .config("num.io.threads", "none")
        .start()
        .await
        .err()
        .map(|e| e.to_string());
    assert!(
        broken
            .as_ref()
            .is_some_and(|why| why.contains("num.io.threads")),
        "{broken:?}"
    );
    Ok(())
}
