//! Clusters shared by the tests of this binary, and names that do not collide.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ottla::{Client, Consumer, Error, OffsetAndMetadata, OwnedRecord, TopicPartition};
use ottla_testcontainers::Cluster;
use tokio::sync::OnceCell;
use tokio::time::timeout;

pub(crate) type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> =
    std::result::Result<T, E>;

/// Longer than anything here takes when it works.
pub(crate) const LONG: Duration = Duration::from_secs(90);

static ONE: OnceCell<Cluster> = OnceCell::const_new();
static OLD: OnceCell<Cluster> = OnceCell::const_new();
static THREE: OnceCell<Cluster> = OnceCell::const_new();

/// One broker that nobody breaks, without automatic creation of topics, with TLS.
pub(crate) async fn one() -> Result<&'static Cluster> {
    Ok(ONE
        .get_or_try_init(|| {
            Cluster::builder()
                .config("auto.create.topics.enable", "false")
                .tls()
                .start()
        })
        .await?)
}

/// One broker of Kafka 3.9, the oldest that is tested, without automatic creation of topics.
pub(crate) async fn old() -> Result<&'static Cluster> {
    Ok(OLD
        .get_or_try_init(|| {
            Cluster::builder()
                .version("3.9")
                .config("auto.create.topics.enable", "false")
                .start()
        })
        .await?)
}

/// Three brokers that nobody breaks.
pub(crate) async fn three() -> Result<&'static Cluster> {
    Ok(THREE
        .get_or_try_init(|| Cluster::builder().brokers(3).start())
        .await?)
}

/// A name that no other test uses.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) async fn client(cluster: &Cluster) -> Result<Client> {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    Ok(Client::builder()
        .bootstrap(cluster.bootstrap().split(','))
        .client_id("broker-tests")
        .connect()
        .await?)
}

/// Every partition of a topic, 0 to `partitions`.
pub(crate) fn partitions(topic: &str, partitions: i32) -> Vec<TopicPartition> {
    (0..partitions)
        .map(|partition| TopicPartition::new(topic, partition))
        .collect()
}

/// The next `count` records, per partition in the order in which they came.
pub(crate) async fn take(
    consumer: &mut Consumer,
    count: usize,
) -> Result<BTreeMap<i32, Vec<OwnedRecord>>> {
    let mut records: BTreeMap<i32, Vec<OwnedRecord>> = BTreeMap::new();
    let mut seen = 0;
    while seen < count {
        let polled = timeout(LONG, consumer.poll())
            .await
            .map_err(|_| format!("{seen} of {count} records came"))?;
        let batches = polled?.ok_or("the consumer was closed")?;
        if let Some(error) = batches.errors().first() {
            return Err(error.clone().into());
        }
        for batch in &batches {
            for record in batch.owned_records() {
                records.entry(batch.partition()).or_default().push(record?);
                seen += 1;
            }
        }
    }
    assert_eq!(seen, count, "more records than were sent");
    consumer.finish();
    Ok(records)
}

/// Why a partition cannot be read, as the next polls tell it.
pub(crate) async fn partition_error(consumer: &mut Consumer) -> Result<Error> {
    loop {
        let polled = timeout(LONG, consumer.poll()).await??;
        if let Some(error) = polled.ok_or("the consumer was closed")?.errors().first() {
            return Ok(error.clone());
        }
    }
}

/// The text of a value or key.
pub(crate) fn text(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(
        || "null".to_owned(),
        |bytes| String::from_utf8_lossy(bytes).into_owned(),
    )
}

/// Tries until it works: what one broker did another hears of a moment later.
pub(crate) async fn eventually<T>(mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let start = tokio::time::Instant::now();
    loop {
        match attempt().await {
            Err(_) if start.elapsed() < LONG => {
                tokio::time::sleep(Duration::from_millis(200)).await
            }
            outcome => return outcome,
        }
    }
}

/// Partition, committed, end, lag and member of a group, as Kafka's tool tells them.
pub(crate) async fn lag_by_tool(cluster: &Cluster, group: &str) -> Result<Vec<[String; 5]>> {
    let args = ["--describe", "--group", group];
    let output = cluster.tool("kafka-consumer-groups.sh", &args).await?;
    let lines = output.stdout.lines();
    let rows = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut rows: Vec<_> = rows
        .filter(|row| row.first() == Some(&group) && row.len() > 6)
        .map(|row| [row[2], row[3], row[4], row[5], row[6]].map(str::to_owned))
        .collect();
    rows.sort();
    Ok(rows)
}

/// The same, as this client tells them.
pub(crate) async fn lag_by_admin(client: &Client, group: &str) -> Result<Vec<[String; 5]>> {
    fn or_dash(value: Option<impl ToString>) -> String {
        value.map_or_else(|| "-".to_owned(), |value| value.to_string())
    }
    let lag = client.admin().group_lag(group).await?;
    let rows = lag.partitions().iter().map(|lag| {
        [
            lag.topic_partition.partition().to_string(),
            or_dash(lag.committed.as_ref().map(OffsetAndMetadata::offset)),
            or_dash(lag.end_offset),
            or_dash(lag.records),
            or_dash(lag.member.as_ref()),
        ]
    });
    Ok(rows.collect())
}
