//! The fetch task of one broker: plan, ask, take in, again; one request under way at a time.
//!
//! Invariants:
//! - What is buffered and what requests under way may bring stay within the budget
//!   (`fetch.max.bytes` over all brokers), but for one oversized batch per request, which brokers
//!   send whole so that it can be read at all.
//! - A request waits at the broker only if nothing of that broker was left out because enough of it
//!   is buffered. Otherwise it is answered at once, and pauses are made here, where the application
//!   can end them by taking records: a long poll for idle partitions does not hold back busy ones.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use indexmap::IndexMap;
use kafka_protocol::messages as kp;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::protocol::StrBytes;
use tokio::time::{sleep_until, timeout_at};
use tracing::Instrument as _;
use tracing::field::Empty;
use uuid::Uuid;

use super::buffer::{Chunk, survey};
use super::config::IsolationLevel;
use super::positions::{Answer, Planned};
use super::session::{FetchSession, Request, Verdict};
use super::shared::{Inner, Shared};
use crate::clock::{Instant, now};
use crate::cluster::LeaderHint;
use crate::cluster::snapshot::Broker;
use crate::error::{Error, Result};
use crate::net::Lane;
use crate::net::backoff::Backoff;
use crate::quiet::Gate;
use crate::types::{BrokerId, TopicPartition};

/// With topic ids from this version on (KIP-516); before it topics go by name.
pub(super) const BY_ID: i16 = 13;
pub(super) const BY_NAME: i16 = 12;
/// The first pause while some partitions have enough buffered.
const PAUSE: Duration = Duration::from_millis(5);
/// The epoch that ends a session (KIP-227).
const FINAL: i32 = -1;
/// What ending the sessions may take.
const GOODBYE: Duration = Duration::from_millis(100);
/// The longest: what a partition whose records nobody takes may hold back the others of its broker.
const MAX_PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn run(shared: Arc<Shared>, broker: BrokerId) {
    let config = shared.cluster.config();
    let mut fetcher = Fetcher {
        backoff: Backoff::new(config.retry_backoff, config.retry_backoff_max),
        shared: Arc::clone(&shared),
        broker,
        session: FetchSession::default(),
        pause: PAUSE,
        idle: false,
        restarted: false,
    };
    let failures = Gate::default();
    loop {
        let turn = fetcher.next().await;
        let span = tracing::debug_span!(
            "fetch",
            broker = broker.get(),
            partitions = turn.parts.len(),
            bytes = Empty,
            took_ms = Empty,
            error = Empty,
        );
        match fetcher.fetch(turn).instrument(span.clone()).await {
            Ok(()) => {
                fetcher.backoff.succeed();
                failures.reset();
            }
            Err(error) => {
                span.record("error", tracing::field::display(&error));
                span.in_scope(|| match failures.pass(now()) {
                    Some(untold) => tracing::warn!(%broker, %error, untold, "fetch failed"),
                    None => tracing::debug!(%broker, %error, "fetch failed"),
                });
                drop(span);
                fetcher.session.failed();
                shared.unreachable(broker, error);
                shared.fetchable.notify_waiters();
                shared.cluster.refresh();
                let pause = fetcher.backoff.fail(shared.cluster.clock());
                tokio::time::sleep(pause).await;
            }
        }
    }
}

struct Fetcher {
    shared: Arc<Shared>,
    broker: BrokerId,
    session: FetchSession,
    backoff: Backoff,
    /// How long to wait for the application before partitions that have room are asked alone.
    pause: Duration,
    /// The last answer had nothing new: the next one had better not be asked for at once.
    idle: bool,
    /// The last answer was that the session is unknown.
    restarted: bool,
}

/// What to ask now.
struct Turn {
    parts: Vec<Planned>,
    max_bytes: i32,
    max_wait: Duration,
    _reserved: Reserved,
}

/// Gives the reserved bytes back, however the request ends.
struct Reserved {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.shared.lock().reserved -= self.bytes;
        self.shared.fetchable.notify_waiters();
    }
}

/// What to do before the next request.
enum Next {
    Ask(Turn),
    /// Wait for a change, or until then.
    Wait(Option<Instant>),
}

impl Fetcher {
    /// Waits until there is something to ask.
    async fn next(&mut self) -> Turn {
        let mut paused_until = None;
        loop {
            let shared = Arc::clone(&self.shared);
            let mut change = pin!(shared.fetchable.notified());
            change.as_mut().enable();
            match self.plan(&mut paused_until) {
                Next::Ask(turn) => return turn,
                Next::Wait(Some(until)) => {
                    tokio::select! {
                        biased;
                        () = change => {}
                        () = sleep_until(until) => {}
                    }
                }
                Next::Wait(None) => change.await,
            }
        }
    }

    fn plan(&mut self, paused_until: &mut Option<Instant>) -> Next {
        let time = now();
        let mut inner = self.shared.lock();
        let Inner {
            positions, buffer, ..
        } = &mut *inner;
        let plan = positions.plan(self.broker, time, |tp| buffer.bytes_of(tp));
        if plan.parts.is_empty() {
            return Next::Wait(plan.next_at);
        }
        let max_wait = if plan.full == 0 {
            self.pause = PAUSE;
            self.shared.config.fetch_max_wait
        } else if !self.idle {
            Duration::ZERO
        } else {
            let until = *paused_until.get_or_insert_with(|| time + self.pause);
            if until > time {
                return Next::Wait(Some(plan.next_at.map_or(until, |at| at.min(until))));
            }
            self.pause = (self.pause * 2).min(MAX_PAUSE);
            Duration::ZERO
        };
        let budget = usize::try_from(self.shared.config.fetch_max_bytes).unwrap_or(0);
        let allowance = (budget / inner.fetchers.len().max(1)).max(1);
        let used = inner.buffer.bytes() + inner.reserved;
        let free = budget.saturating_sub(used).min(allowance);
        let bytes = if free >= allowance.div_ceil(2) {
            free
        } else if inner.buffer.bytes() == 0 || inner.evict_paused() {
            allowance
        } else {
            return Next::Wait(plan.next_at);
        };
        inner.reserved += bytes;
        drop(inner);
        Next::Ask(Turn {
            parts: plan.parts,
            max_bytes: i32::try_from(bytes).unwrap_or(i32::MAX),
            max_wait,
            _reserved: Reserved {
                shared: Arc::clone(&self.shared),
                bytes,
            },
        })
    }

    async fn fetch(&mut self, turn: Turn) -> Result<()> {
        let config = self.shared.cluster.config();
        let deadline = now() + config.connection_setup_timeout_max;
        let link = self
            .shared
            .cluster
            .link(self.broker, Lane::Fetch, deadline)
            .await?;
        let newest = link.version::<kp::FetchRequest>()?;
        let limit = self.shared.config.max_partition_fetch_bytes;
        let request = self.session.build(turn.parts, limit, newest >= BY_ID);
        let version = if request.by_id { newest } else { BY_NAME };
        let by_id = request.by_id;
        let message = self.message(request, version, turn.max_bytes, turn.max_wait);
        let deadline = now() + config.request_timeout + turn.max_wait;
        let asked_at = now();
        let sent = link.send(version, &message, deadline);
        let response = timeout_at(deadline, sent).await.unwrap_or_else(|_| {
            Err(Error::new(
                crate::ErrorKind::Timeout,
                "a fetch was not answered in time",
            ))
        })?;
        match self
            .session
            .accept(response.error_code, response.session_id)
        {
            Verdict::Take => {
                self.restarted = false;
                self.take_in(response, by_id, asked_at);
            }
            // At once, but not over and over.
            Verdict::Restart if !std::mem::replace(&mut self.restarted, true) => {}
            Verdict::Restart | Verdict::Refresh => {
                self.shared.cluster.refresh();
                let doing = format!("fetching from broker {}", self.broker);
                return Err(Error::from_code(response.error_code, doing));
            }
            Verdict::Fail(code) => {
                let doing = format!("fetching from broker {}", self.broker);
                return Err(Error::from_code(code, doing));
            }
        }
        Ok(())
    }

    fn message(
        &self,
        request: Request,
        version: i16,
        max_bytes: i32,
        max_wait: Duration,
    ) -> kp::FetchRequest {
        let config = &self.shared.config;
        let by_id = request.by_id;
        // The broker takes partitions in this order; topics keep the order of their first partition.
        let mut topics: IndexMap<(Arc<str>, Uuid), Vec<FetchPartition>> = IndexMap::new();
        for (planned, max_bytes) in request.send {
            let partition = FetchPartition::default()
                .with_partition(planned.tp.partition)
                .with_current_leader_epoch(planned.leader_epoch)
                .with_fetch_offset(planned.offset)
                .with_last_fetched_epoch(planned.last_fetched_epoch)
                .with_log_start_offset(planned.log_start)
                .with_partition_max_bytes(max_bytes);
            let topic = (Arc::clone(&planned.tp.topic), planned.topic_id);
            topics.entry(topic).or_default().push(partition);
        }
        let mut forgotten: IndexMap<(Arc<str>, Uuid), Vec<i32>> = IndexMap::new();
        for (tp, id) in request.forget {
            let topic = (Arc::clone(&tp.topic), id);
            forgotten.entry(topic).or_default().push(tp.partition);
        }
        let topics = topics.into_iter().map(|((name, id), partitions)| {
            let topic = FetchTopic::default().with_partitions(partitions);
            match by_id {
                true => topic.with_topic_id(id),
                false => topic.with_topic(topic_name(&name)),
            }
        });
        let forgotten = forgotten.into_iter().map(|((name, id), partitions)| {
            let topic = ForgottenTopic::default().with_partitions(partitions);
            match by_id {
                true => topic.with_topic_id(id),
                false => topic.with_topic(topic_name(&name)),
            }
        });
        debug_assert!((version >= BY_ID) == by_id);
        let rack = config.client_rack.as_deref().unwrap_or_default();
        let min_bytes = match max_wait.is_zero() {
            true => 0,
            false => config.fetch_min_bytes,
        };
        kp::FetchRequest::default()
            .with_max_wait_ms(i32::try_from(max_wait.as_millis()).unwrap_or(i32::MAX))
            .with_min_bytes(min_bytes)
            .with_max_bytes(max_bytes)
            .with_isolation_level(isolation(config.isolation))
            .with_session_id(request.session_id)
            .with_session_epoch(request.session_epoch)
            .with_topics(topics.collect())
            .with_forgotten_topics_data(forgotten.collect())
            .with_rack_id(StrBytes::from_string(rack.to_owned()))
    }

    fn take_in(&mut self, response: kp::FetchResponse, by_id: bool, asked_at: Instant) {
        let names = if by_id {
            self.session.names()
        } else {
            IndexMap::new()
        };
        let mut hints = Vec::new();
        let mut refresh = false;
        let time = now();
        let mut news = false;
        let mut bytes = 0;
        let throttle = Duration::from_millis(u64::try_from(response.throttle_time_ms).unwrap_or(0));
        let mut inner = self.shared.lock();
        for topic in response.responses {
            let name = match by_id {
                true => names.get(&topic.topic_id).cloned(),
                false => Some(Arc::from(topic.topic.as_str())),
            };
            // A topic that the session does not have (any more): forgotten meanwhile.
            let Some(name) = name else { continue };
            for part in topic.partitions {
                let tp = TopicPartition::new(Arc::clone(&name), part.partition_index);
                let Some(asked) = self.session.asked(&tp) else {
                    continue;
                };
                let records = part.records.unwrap_or_default();
                bytes += records.len();
                let answer = Answer {
                    code: part.error_code,
                    high_watermark: part.high_watermark,
                    last_stable: part.last_stable_offset,
                    log_start: part.log_start_offset,
                    diverging: (part.diverging_epoch.epoch >= 0
                        && part.diverging_epoch.end_offset >= 0)
                        .then_some((part.diverging_epoch.epoch, part.diverging_epoch.end_offset)),
                    preferred: (part.preferred_read_replica.0 >= 0)
                        .then_some(BrokerId(part.preferred_read_replica.0)),
                    data: survey(&records),
                };
                let leader = part.current_leader;
                if leader.leader_id.0 >= 0 && leader.leader_epoch >= 0 && part.error_code != 0 {
                    hints.push(LeaderHint {
                        topic: Arc::clone(&name),
                        partition: tp.partition,
                        leader: BrokerId(leader.leader_id.0),
                        leader_epoch: leader.leader_epoch,
                    });
                }
                let outcome = inner.positions.accept(self.broker, asked, &answer, time);
                refresh |= outcome.refresh;
                if answer.preferred.is_some() {
                    // It may be a broker that has no fetch task yet.
                    self.shared.control.notify_one();
                }
                if outcome.discard {
                    inner.buffer.discard(&tp);
                    self.shared.control.notify_one();
                }
                if outcome.buffer {
                    let aborted = part.aborted_transactions.unwrap_or_default();
                    let aborted = aborted
                        .iter()
                        .map(|aborted| (aborted.first_offset, aborted.producer_id.0));
                    let ends = (answer.high_watermark, answer.last_stable);
                    let chunk = Chunk::new(tp, asked.epoch, records, aborted.collect(), ends);
                    inner.buffer.push(chunk);
                    news = true;
                }
                if let Some(error) = outcome.error {
                    inner.tell(error);
                    news = true;
                }
            }
        }
        inner
            .fetches
            .answered(self.broker, bytes, (asked_at, time), throttle);
        self.idle = bytes == 0;
        if !self.idle {
            self.pause = PAUSE;
        }
        inner.fetches.note_session(self.broker, response.session_id);
        drop(inner);
        let took = time.saturating_duration_since(asked_at);
        self.shared.ledger.fetched(bytes, took, throttle);
        let span = tracing::Span::current();
        span.record("bytes", bytes);
        span.record("took_ms", took.as_millis());
        if news {
            self.shared.ready.notify_waiters();
        }
        if !hints.is_empty() {
            self.shared
                .cluster
                .learn(&hints, &endpoints(&response.node_endpoints));
        }
        if refresh {
            self.shared.cluster.refresh();
        }
    }
}

/// Tells the brokers that the sessions are over, so that they need not keep them until others want their
/// place. The consumer does not wait for the answers.
pub(super) async fn end_sessions(shared: &Shared) {
    let sessions = shared.lock().fetches.sessions();
    let until = now() + GOODBYE;
    let ends = sessions.into_iter().map(|(broker, session)| async move {
        let link = shared.cluster.link(broker, Lane::Fetch, until).await?;
        let version = link.version::<kp::FetchRequest>()?;
        let request = kp::FetchRequest::default()
            .with_session_id(session)
            .with_session_epoch(FINAL);
        let deadline = now() + shared.cluster.config().request_timeout;
        let sent = link.send(version, &request, deadline);
        // Only a request that somebody waits for is sure to be written.
        let tasks = shared.cluster.tasks();
        tasks.spawn("end of a fetch session", async move {
            let _ = sent.await;
        });
        Ok::<_, Error>(())
    });
    // What cannot be reached at once forgets the session by itself.
    let _ = timeout_at(until, join_all(ends)).await;
}

fn endpoints(nodes: &[kp::fetch_response::NodeEndpoint]) -> Vec<Broker> {
    let nodes = nodes.iter().filter_map(|node| {
        Some(Broker {
            id: BrokerId(node.node_id.0),
            host: Arc::from(node.host.as_str()),
            port: u16::try_from(node.port).ok()?,
            rack: node.rack.as_ref().map(|rack| Arc::from(rack.as_str())),
        })
    });
    let nodes: BTreeMap<_, _> = nodes.map(|node| (node.id, node)).collect();
    nodes.into_values().collect()
}

pub(super) fn isolation(level: IsolationLevel) -> i8 {
    match level {
        IsolationLevel::ReadUncommitted => 0,
        IsolationLevel::ReadCommitted => 1,
    }
}

pub(super) fn topic_name(name: &str) -> kp::TopicName {
    kp::TopicName(StrBytes::from_string(name.to_owned()))
}
