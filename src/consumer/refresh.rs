//! Lag of partitions that are not fetched at present: their ends and first records, asked for
//! apart.
//!
//! None of this touches positions, buffers or fetch sessions, so that it can be dropped at any
//! await.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use futures_util::future::join_all;
use tokio::time::sleep_until;

use super::lag::Lag;
use super::meter::Gauges;
use super::shared::Shared;
use crate::clock::{Instant, now};
use crate::fetched::PartitionFetch;
use crate::metrics::SAMPLE;
use crate::offsets::peek::{Peek, place};
use crate::offsets::{self, LATEST, NEWEST};
use crate::types::{BrokerId, TimeLag};

/// What a round of the watch may take at least.
const ROUND: Duration = Duration::from_secs(5);

/// Learns the timestamps of the first records to be read where they are not known: one small fetch
/// for each partition, leaders side by side. Whatever fails stays unknown.
pub(super) async fn heads(shared: &Shared, deadline: Instant) {
    let headless = shared.lock().positions.headless();
    let mut by_leader: BTreeMap<BrokerId, Vec<PartitionFetch>> = BTreeMap::new();
    for (broker, planned) in headless {
        by_leader.entry(broker).or_default().push(planned);
    }
    let peek = &Peek {
        cluster: &shared.cluster,
        reading: &shared.reading,
        level: shared.config.isolation,
        deadline,
    };
    let leaders = by_leader.into_iter().map(|(broker, parts)| async move {
        for at in parts {
            match peek.first(broker, &at).await {
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

/// How far what was read is behind the newest records, by their timestamps; whatever fails stays
/// unknown.
pub(super) async fn newest(shared: &Shared, lag: &mut Lag, deadline: Instant) {
    let mut by_leader: BTreeMap<BrokerId, Vec<PartitionFetch>> = BTreeMap::new();
    {
        let positions = &shared.lock().positions;
        // All that have a leader.
        for (tp, leader) in positions.unmeasured(now() + ROUND) {
            let behind = lag.get(&tp).filter(|lag| lag.records > Some(0));
            if let Some(position) = behind.and_then(|lag| lag.position) {
                let id = positions.topic_id(&tp);
                let planned = place(tp, id, leader.epoch, position);
                by_leader.entry(leader.broker).or_default().push(planned);
            }
        }
    }
    let peek = &Peek {
        cluster: &shared.cluster,
        reading: &shared.reading,
        level: shared.config.isolation,
        deadline,
    };
    let leaders = by_leader.into_iter().map(|(broker, parts)| async move {
        let asked = parts.iter();
        let asked = asked.map(|at| (at.tp.clone(), at.leader_epoch, NEWEST));
        let asked: Vec<_> = asked.collect();
        let found = offsets::list_once(peek.cluster, broker, &asked, peek.level, deadline).await;
        let Ok(found) = found else {
            return Vec::new();
        };
        let mut known = Vec::new();
        for at in parts {
            let newest = found.get(&at.tp).and_then(|found| found.as_ref().ok());
            let newest = newest.map(|newest| newest.timestamp);
            let last = peek.last_before(broker, &at).await.unwrap_or_default();
            known.push((at.tp, TimeLag::between(last, newest)));
        }
        known
    });
    let known: BTreeMap<_, _> = join_all(leaders).await.into_iter().flatten().collect();
    for lag in &mut lag.partitions {
        if let Some(behind) = known.get(&lag.topic_partition) {
            lag.behind_newest = *behind;
        }
    }
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

/// The lag now and then; see [`Consumer::watch_lag`](super::ConsumerHandle::watch_lag).
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

/// Publishes now and then what nothing tells of: lag, from what is here, and memory in use. Asks no
/// broker.
pub(super) async fn sample(shared: Arc<Shared>) {
    let group = shared.config.group_id.as_deref().unwrap_or_default();
    let mut gauges = Gauges::new(&shared.cluster.config().client_id, group);
    loop {
        let lag = shared.lag();
        let buffered = shared.lock().buffer.bytes();
        gauges.update(&lag, buffered);
        tokio::time::sleep(SAMPLE).await;
    }
}
