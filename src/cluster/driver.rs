//! The metadata task: runs the machine, asks brokers, publishes snapshots.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::sleep;

use super::metadata::{Ask, Ended};
use super::{Cluster, Endpoint};
use crate::clock::now;
use crate::error::{Error, ErrorKind, Result};
use crate::net::Lane;
use crate::types::BrokerId;

/// A broker that has not answered for so long gets company: the next one is asked too.
const HEDGE: Duration = Duration::from_secs(1);
/// REBOOTSTRAP_REQUIRED (KIP-1102): what we know of the cluster is worthless.
const REBOOTSTRAP_REQUIRED: i16 = 129;

/// Runs until the client is closed.
pub(super) async fn run(cluster: Cluster) {
    loop {
        let ask = cluster.metadata().machine.poll(now());
        match ask {
            Some(ask) => round(&cluster, &ask).await,
            None => {
                let due = cluster.metadata().machine.next_timeout();
                let sleep = async {
                    match due {
                        Some(due) => tokio::time::sleep_until(due).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = cluster.inner.wishes.notified() => {}
                    () = sleep => {}
                }
            }
        }
    }
}

/// One round: at most one request for topics of either kind, and one for the list of all.
async fn round(cluster: &Cluster, ask: &Ask) {
    let mut outcome = Ok(());
    if !ask.creatable.is_empty() {
        outcome = request(cluster, Some(&ask.creatable), true).await;
    }
    let nothing_else = ask.creatable.is_empty() && !ask.all;
    if outcome.is_ok() && (nothing_else || !ask.existing.is_empty()) {
        outcome = request(cluster, Some(&ask.existing), false).await;
    }
    if outcome.is_ok() && ask.all {
        outcome = request(cluster, None, false).await;
    }
    let snapshot = cluster.snapshot();
    let ended = match &outcome {
        Err(_) => Ended::Failed,
        Ok(()) => Ended::Answered {
            left: ask
                .creatable
                .iter()
                .chain(&ask.existing)
                .filter(|topic| !snapshot.resolves([*topic]))
                .cloned()
                .collect(),
        },
    };
    let spread = 0.8 + 0.4 * cluster.clock().unit();
    let mut metadata = cluster.metadata();
    let everything = metadata.machine.ended(now(), ended, spread);
    metadata.rounds += 1;
    metadata.full_rounds += u64::from(everything);
    if outcome.is_ok() {
        metadata.last_success = now();
    }
    metadata.failure = outcome.err();
    let failure = metadata.failure.clone();
    drop(metadata);
    let failures = &cluster.inner.failures;
    match failure {
        Some(failure) => match failures.pass(now()) {
            Some(untold) => tracing::warn!(%failure, untold, "no broker gave metadata"),
            None => tracing::debug!(%failure, "no broker gave metadata"),
        },
        None if failures.reset() => tracing::info!("there is metadata again"),
        None => {}
    }
    cluster.inner.published.notify_waiters();
}

/// Asks one broker after the other, the next one also when the last is silent, until one answers.
/// As long as one is silent, those that failed are asked again: they may be back long before the
/// silent one is given up. Without topics it asks which there are.
async fn request(cluster: &Cluster, topics: Option<&[Arc<str>]>, auto_create: bool) -> Result<()> {
    let mut candidates = candidates(cluster).into_iter();
    let mut failed = VecDeque::new();
    let mut asked = FuturesUnordered::new();
    let mut failure = None;
    let ask = |endpoint: Endpoint| async move {
        let answer = ask_one(cluster, &endpoint, topics, auto_create).await;
        (endpoint, answer)
    };
    loop {
        if asked.is_empty() {
            match candidates.next() {
                Some(endpoint) => asked.push(ask(endpoint)),
                None => return Err(failure.unwrap_or_else(no_brokers)),
            }
        }
        tokio::select! {
            biased;
            Some((endpoint, answer)) = asked.next() => match answer {
                Ok(response) => {
                    accept(cluster, &response, topics.is_none());
                    return Ok(());
                }
                Err(error) => {
                    // What says that the settings are wrong is worth more than a broken connection.
                    let keep = failure.as_ref().is_some_and(|first: &Error| !first.is_retriable());
                    if !keep {
                        failure = Some(error);
                    }
                    failed.push_back(endpoint);
                }
            },
            () = sleep(HEDGE) => {
                if let Some(endpoint) = candidates.next().or_else(|| failed.pop_front()) {
                    asked.push(ask(endpoint));
                }
            }
        }
    }
}

/// Brokers to ask, best first: connected ones, then those not in back-off, then the rest; last the
/// bootstrap addresses, for when every known broker is gone (KIP-899), or first when nobody
/// answered for `metadata.recovery.rebootstrap.trigger.ms` (KIP-1102).
fn candidates(cluster: &Cluster) -> Vec<Endpoint> {
    let snapshot = cluster.snapshot();
    let time = now();
    let mut known: Vec<_> = snapshot
        .brokers
        .keys()
        .map(|id| {
            let connected = cluster.is_connected(*id, Lane::Metadata);
            let in_backoff = cluster.inner.pool.retry_at(*id).is_some_and(|at| at > time);
            (
                (!connected, in_backoff, cluster.clock().below(1 << 20)),
                *id,
            )
        })
        .collect();
    known.sort();
    let stale = cluster.metadata().last_success + cluster.config().rebootstrap_trigger <= time;
    let rebootstrap = cluster.config().rebootstrap || known.is_empty();
    let known = known.into_iter().filter_map(|(_, id)| cluster.endpoint(id));
    let mut bootstrap = cluster.inner.bootstrap.clone();
    bootstrap.sort_by_key(|_| cluster.clock().below(1 << 20));
    let bootstrap = bootstrap.into_iter().filter(|_| rebootstrap);
    match stale {
        true => bootstrap.chain(known).collect(),
        false => known.chain(bootstrap).collect(),
    }
}

async fn ask_one(
    cluster: &Cluster,
    endpoint: &Endpoint,
    topics: Option<&[Arc<str>]>,
    auto_create: bool,
) -> Result<MetadataResponse> {
    let deadline = now() + cluster.config().request_timeout;
    let link = cluster.link_to(endpoint, Lane::Metadata, deadline).await?;
    let version = link.version::<MetadataRequest>()?;
    let topic = |name: &Arc<str>| {
        MetadataRequestTopic::default()
            .with_name(Some(TopicName(StrBytes::from_string(name.to_string()))))
    };
    let request = MetadataRequest::default()
        .with_topics(topics.map(|topics| topics.iter().map(topic).collect()))
        .with_allow_auto_topic_creation(auto_create);
    let response = link.send(version, &request).await?;
    if response.error_code == REBOOTSTRAP_REQUIRED {
        return Err(Error::from_code(
            response.error_code,
            format_args!("metadata from {link:?}"),
        ));
    }
    if response.brokers.is_empty() {
        // A broker that is still starting knows nobody.
        return Err(Error::new(
            ErrorKind::Connection,
            format!("{link:?} knows no brokers (yet)"),
        ));
    }
    Ok(response)
}

fn accept(cluster: &Cluster, response: &MetadataResponse, all: bool) {
    let before = cluster.snapshot();
    cluster.update(|machine, snapshot| {
        snapshot.merge(response);
        if all {
            snapshot.list(response);
        }
        snapshot.retain(|topic| machine.is_watched(topic));
        true
    });
    let after = cluster.snapshot();
    if let (Some(before), Some(after)) = (&before.cluster_id, &after.cluster_id)
        && before != after
    {
        tracing::warn!(%before, %after, "the addresses now lead to another cluster");
    }
    // Bootstrap connections have served; links to brokers that left the cluster end too.
    let brokers = after.brokers.clone();
    cluster
        .inner
        .pool
        .retain(|id: BrokerId| brokers.contains_key(&id));
}

fn no_brokers() -> Error {
    Error::new(ErrorKind::Connection, "there is no broker to ask")
}
