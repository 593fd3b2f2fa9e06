//! Lag of partitions that are not fetched at present: their ends and first records, asked for apart.
//!
//! None of this touches positions, buffers or fetch sessions, so that it can be dropped at any await.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use futures_util::future::join_all;
use kafka_protocol::messages as kp;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use tokio::time::sleep_until;

use super::buffer::{Chunk, survey};
use super::fetcher::{BY_ID, BY_NAME, isolation, topic_name};
use super::lag::Lag;
use super::offsets::{self, LATEST};
use super::positions::{Planned, Position, Survey};
use super::shared::Shared;
use crate::clock::{Instant, now};
use crate::error::{Error, Result};
use crate::net::Lane;
use crate::types::BrokerId;

/// The epoch of a fetch outside of any session (KIP-227).
const SESSIONLESS: i32 = -1;
/// How many batches without a record for the application are looked past.
const ROUNDS: usize = 8;
/// What a round of the watch may take at least.
const ROUND: Duration = Duration::from_secs(5);

/// Learns the timestamps of the first records to be read where they are not known: one small fetch for
/// each partition, leaders side by side. Whatever fails stays unknown.
pub(super) async fn heads(shared: &Shared, deadline: Instant) {
    let headless = shared.lock().positions.headless();
    let mut by_leader: BTreeMap<BrokerId, Vec<Planned>> = BTreeMap::new();
    for (broker, planned) in headless {
        by_leader.entry(broker).or_default().push(planned);
    }
    let leaders = by_leader.into_iter().map(|(broker, parts)| async move {
        for at in parts {
            match head(shared, broker, &at, deadline).await {
                Ok(Some(timestamp)) => {
                    let positions = &mut shared.lock().positions;
                    positions.note_head(&at.tp, at.epoch, at.offset, timestamp);
                }
                Ok(None) => {}
                Err(error) if error.topic_partition().is_some() => {
                    tracing::debug!(%error, "the age of the first unread record is not known");
                }
                Err(error) => {
                    tracing::debug!(%broker, %error, "ages of unread records are not known");
                    return;
                }
            }
        }
    });
    join_all(leaders).await;
}

async fn head(
    shared: &Shared,
    broker: BrokerId,
    at: &Planned,
    deadline: Instant,
) -> Result<Option<i64>> {
    let link = shared.cluster.link(broker, Lane::Admin, deadline).await?;
    let newest = link.version::<kp::FetchRequest>()?;
    let by_id = newest >= BY_ID && !at.topic_id.is_nil();
    let version = if by_id { newest } else { BY_NAME };
    let mut from = at.offset;
    for _ in 0..ROUNDS {
        // The limit of one byte still brings one whole batch.
        let partition = FetchPartition::default()
            .with_partition(at.tp.partition)
            .with_current_leader_epoch(at.leader_epoch)
            .with_fetch_offset(from)
            .with_partition_max_bytes(1);
        let topic = FetchTopic::default().with_partitions(vec![partition]);
        let topic = match by_id {
            true => topic.with_topic_id(at.topic_id),
            false => topic.with_topic(topic_name(&at.tp.topic)),
        };
        let request = kp::FetchRequest::default()
            .with_max_bytes(1)
            .with_isolation_level(isolation(shared.config.isolation))
            .with_session_epoch(SESSIONLESS)
            .with_topics(vec![topic]);
        let limit = now() + shared.cluster.config().request_timeout;
        let response = link.send(version, &request, deadline.min(limit)).await?;
        let parts = response.responses.into_iter();
        let Some(part) = parts.flat_map(|topic| topic.partitions).next() else {
            return Ok(None);
        };
        for code in [response.error_code, part.error_code] {
            if code != 0 {
                let error = Error::from_code(code, "looking at the first unread record");
                return Err(error.with_topic_partition(at.tp.clone()));
            }
        }
        let records = part.records.unwrap_or_default();
        let Survey::Batches { next_offset, .. } = survey(&records) else {
            return Ok(None);
        };
        let aborted = part.aborted_transactions.unwrap_or_default().into_iter();
        let aborted = aborted.map(|aborted| (aborted.first_offset, aborted.producer_id.0));
        let ends = (part.high_watermark, part.last_stable_offset);
        let mut chunk = Chunk::new(at.tp.clone(), at.epoch, records, aborted.collect(), ends);
        let found = chunk.timestamp_at(Position::new(from), &shared.reading);
        if found.is_some() || next_offset <= from {
            return Ok(found);
        }
        from = next_offset;
    }
    Ok(None)
}

/// The lag, with the ends of partitions that were not learnt since `since` asked for. A broker that
/// does not answer leaves its partitions as they were.
async fn measure(shared: &Shared, since: Instant, deadline: Instant) -> Lag {
    let mut by_leader: BTreeMap<BrokerId, Vec<_>> = BTreeMap::new();
    for (tp, leader) in shared.lock().positions.unmeasured(since) {
        let asked = (tp, leader.epoch, LATEST);
        by_leader.entry(leader.broker).or_default().push(asked);
    }
    let leaders = by_leader.into_iter().map(|(broker, asked)| async move {
        let level = shared.config.isolation;
        let began = now();
        match offsets::list_once(&shared.cluster, broker, &asked, level, deadline).await {
            Ok(found) => {
                let positions = &mut shared.lock().positions;
                for (tp, found) in found {
                    if let Ok(found) = found {
                        positions.note_end(&tp, found.offset, began, now());
                    }
                }
            }
            Err(error) => tracing::debug!(%broker, %error, "ends of logs are not known"),
        }
    });
    join_all(leaders).await;
    drop(shared.lag());
    heads(shared, deadline).await;
    shared.lag()
}

/// The lag now and then; see [`Consumer::watch_lag`](super::Consumer::watch_lag).
pub struct LagStream {
    shared: Arc<Shared>,
    interval: Duration,
    /// When the next lag is due.
    at: Instant,
    waiting: Option<Pin<Box<dyn Future<Output = Option<Lag>> + Send>>>,
}

impl LagStream {
    pub(super) fn new(shared: Arc<Shared>, interval: Duration) -> Self {
        Self {
            shared,
            interval: interval.max(Duration::from_millis(1)),
            at: now(),
            waiting: None,
        }
    }
}

async fn next(shared: Arc<Shared>, at: Instant, interval: Duration) -> Option<Lag> {
    let lag = async {
        sleep_until(at).await;
        let time = now();
        let since = time.checked_sub(interval).unwrap_or(time);
        measure(&shared, since, time + interval.max(ROUND)).await
    };
    tokio::select! {
        biased;
        () = shared.tasks.stopped() => None,
        lag = lag => Some(lag),
    }
}

impl Stream for LagStream {
    type Item = Lag;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Lag>> {
        let this = self.get_mut();
        let (at, interval) = (this.at, this.interval);
        let waiting = this
            .waiting
            .get_or_insert_with(|| Box::pin(next(Arc::clone(&this.shared), at, interval)));
        let lag = ready!(waiting.as_mut().poll(cx));
        this.waiting = None;
        this.at = (this.at + interval).max(now());
        Poll::Ready(lag)
    }
}

impl fmt::Debug for LagStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LagStream")
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}
