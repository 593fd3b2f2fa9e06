//! The producer where things go wrong: topics that go and come, replicas that are missing, brokers
//! that are frozen, permissions and quotas.

mod adaptive;
mod refusals;
mod replicas;
mod topics;

use std::collections::BTreeMap;
use std::time::Duration;

use ottla::{Client, Error, OffsetReset};
use ottla_testcontainers::Cluster;

use crate::support::{Result, partitions, take, text};

const SECOND: Duration = Duration::from_secs(1);

/// The numbers in a topic's records, by partition in the order of the log.
async fn numbers(
    client: &Client,
    topic: &str,
    count: usize,
    among: i32,
) -> Result<BTreeMap<i32, Vec<usize>>> {
    let mut consumer = client
        .reader()
        .assign(partitions(topic, among))
        .offset_reset(OffsetReset::Earliest)
        .build()?;
    let mut numbers = BTreeMap::new();
    for (partition, records) in take(&mut consumer, count).await? {
        let parsed: Result<Vec<usize>, _> = records
            .iter()
            .map(|record| text(record.value()).parse())
            .collect();
        numbers.insert(partition, parsed?);
    }
    Ok(numbers)
}

/// How many records a topic holds.
async fn held(cluster: &Cluster, topic: &str) -> Result<usize> {
    let args = ["--topic", topic];
    let offsets = cluster.tool("kafka-get-offsets.sh", &args).await?.stdout;
    let counts = offsets
        .lines()
        .filter_map(|line| line.rsplit(':').next()?.parse::<usize>().ok());
    Ok(counts.sum())
}

/// A topic with these replicas, the first of each partition its leader.
pub(crate) async fn placed(
    cluster: &Cluster,
    topic: &str,
    replicas: &str,
    settings: &[&str],
) -> Result {
    let mut args = vec!["--create", "--topic", topic];
    args.extend(["--replica-assignment", replicas]);
    args.extend(settings.iter().flat_map(|setting| ["--config", setting]));
    cluster.tool("kafka-topics.sh", &args).await?;
    Ok(())
}

/// The broker's code in an error or in what caused it.
fn code(error: &Error) -> Option<&'static str> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let code = error.downcast_ref::<Error>().and_then(Error::code);
        if let Some(code) = code {
            return Some(code.name());
        }
        cause = error.source();
    }
    None
}
