//! Where partitions start: committed offsets, the bounds of logs, and whether partitions exist.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use tokio::time::sleep_until;
use uuid::Uuid;

use super::{Answer, CloseState, Control};
use crate::clock::{Instant, now};
use crate::consumer::positions::{ResetAsk, ResetTo};
use crate::consumer::shared::Shared;
use crate::error::{Error, Result};
use crate::fetched::{PartEpoch, Position};
use crate::group::Verdict;
use crate::offsets::{self, EARLIEST, Found, LATEST, Lookup};
use crate::types::{BrokerId, TopicPartition};
use crate::wire::codes;

impl Control {
    pub(super) fn lookups(&mut self, time: Instant) {
        if self.end != CloseState::NotYet {
            return;
        }
        let mut inner = self.shared.lock();
        // What was read before a loss may be about to be committed, in a transaction that the
        // group still takes: only then the committed offset is where to go on.
        let wanted = match self.group {
            Some(_) if !inner.has_untold_loss() => inner.positions.wanted_committed(time),
            _ => Vec::new(),
        };
        let asked = wanted.iter().map(|(tp, _)| tp.clone());
        let asked: Vec<(TopicPartition, Uuid)> = asked
            .map(|tp| (tp.clone(), inner.positions.topic_id(&tp)))
            .collect();
        let resets = inner.positions.wanted_resets(time);
        if let Some(error) = inner.positions.untold() {
            inner.tell(error);
            self.shared.ready.notify_waiters();
        }
        drop(inner);
        if let (false, Some(identity)) = (wanted.is_empty(), self.identity()) {
            let cluster = self.shared.cluster.clone();
            self.answers.push(Box::pin(async move {
                let deadline = now() + cluster.config().request_timeout;
                let found = offsets::committed_once(&cluster, &identity, &asked, deadline).await;
                Answer::Committed(wanted, found)
            }));
        }
        let mut by_leader: BTreeMap<BrokerId, Vec<ResetAsk>> = BTreeMap::new();
        for ask in resets {
            by_leader.entry(ask.leader.broker).or_default().push(ask);
        }
        for (broker, asks) in by_leader {
            let shared = Arc::clone(&self.shared);
            self.answers.push(Box::pin(async move {
                let cluster = &shared.cluster;
                let wall = cluster.clock().wall_millis();
                let asked: Vec<_> = asks
                    .iter()
                    .map(|ask| (ask.tp.clone(), ask.leader.epoch, timestamp(ask.to, wall)))
                    .collect();
                let deadline = now() + cluster.config().request_timeout;
                let level = shared.config.isolation;
                let found = offsets::list_once(cluster, broker, &asked, level, deadline).await;
                Answer::Listed(asks, found)
            }));
        }
    }

    pub(super) fn take_committed(
        &mut self,
        time: Instant,
        asked: &[(TopicPartition, PartEpoch)],
        found: Result<BTreeMap<TopicPartition, Lookup>>,
    ) {
        let group = self.group.as_deref().unwrap_or_default();
        let (found, trouble) = match found {
            Ok(found) => (found, None),
            Err(error) => (BTreeMap::new(), Some(error)),
        };
        let mut refresh = false;
        let mut any_wanted = false;
        let mut inner = self.shared.lock();
        for (tp, epoch) in asked {
            let error = match (found.get(tp), &trouble) {
                (Some(Ok(committed)), _) => {
                    let error =
                        inner
                            .positions
                            .committed_found(tp, *epoch, committed.as_ref(), time);
                    if let Some(error) = error {
                        inner.tell(error);
                    }
                    continue;
                }
                (Some(Err(code)), _) => {
                    refresh |= *code == codes::UNKNOWN_TOPIC_ID;
                    offsets::lookup_error(*code, group).with_topic_partition(tp.clone())
                }
                (None, Some(error)) => error.clone(),
                (None, None) => offsets::lookup_error(codes::UNKNOWN_SERVER_ERROR, group),
            };
            tracing::debug!(partition = %tp, %error, "committed offset not found yet");
            let told = (trouble.is_none() && !may_pass(&error)).then(|| error.clone());
            let wanted = inner.positions.lookup_failed(tp, *epoch, Some(error), time);
            if let Some(error) = told.filter(|_| wanted) {
                inner.tell(error);
            }
            any_wanted |= wanted;
        }
        if let Some(error) = trouble.filter(|error| any_wanted && !may_pass(error)) {
            inner.tell(error);
        }
        drop(inner);
        if refresh {
            self.shared.cluster.refresh();
        }
        self.shared.fetchable.notify_waiters();
        self.shared.ready.notify_waiters();
    }

    pub(super) fn take_listed(
        &mut self,
        time: Instant,
        asks: &[ResetAsk],
        found: Result<IndexMap<TopicPartition, Result<Found, i16>>>,
    ) {
        let (found, trouble) = match found {
            Ok(found) => (found, None),
            Err(error) => (IndexMap::new(), Some(error)),
        };
        let mut refresh = false;
        let mut inner = self.shared.lock();
        for ask in asks {
            match found.get(&ask.tp) {
                Some(Ok(at)) => {
                    let at = Position {
                        offset: at.offset,
                        leader_epoch: at.leader_epoch,
                    };
                    inner.positions.reset_found(&ask.tp, ask.epoch, at);
                }
                Some(Err(code)) => {
                    refresh = true;
                    let error = Error::from_code(*code, "looking up where to start");
                    let trouble = Some(error.clone());
                    let wanted = inner
                        .positions
                        .lookup_failed(&ask.tp, ask.epoch, trouble, time);
                    if wanted && !error.is_retriable() {
                        inner.tell(error.with_topic_partition(ask.tp.clone()));
                    }
                }
                None => {
                    refresh = true;
                    inner
                        .positions
                        .lookup_failed(&ask.tp, ask.epoch, trouble.clone(), time);
                }
            }
        }
        drop(inner);
        if refresh {
            self.shared.cluster.refresh();
        }
        self.shared.fetchable.notify_waiters();
        self.shared.ready.notify_waiters();
    }
}

/// Whether the next attempt may end otherwise without anybody doing something: a member whose epoch
/// has moved on, or that was thrown out, hears of it by its heartbeats.
fn may_pass(error: &Error) -> bool {
    let code = error.code().map_or(codes::NONE, |code| code.get());
    error.is_retriable()
        || code == codes::UNKNOWN_SERVER_ERROR
        || Verdict::of(code) != Verdict::Other
}

fn timestamp(to: ResetTo, wall_millis: i64) -> i64 {
    match to {
        ResetTo::Earliest => EARLIEST,
        ResetTo::Latest => LATEST,
        ResetTo::Ago(age) => {
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            wall_millis.saturating_sub(age).max(0)
        }
    }
}

/// Whether assigned partitions exist, after the time that a call may take.
pub(super) async fn existence(shared: Arc<Shared>, partitions: Vec<TopicPartition>) -> Answer {
    let cluster = &shared.cluster;
    let deadline = now() + cluster.config().api_timeout;
    for tp in partitions {
        let create = shared.config.allow_auto_create_topics;
        match cluster.topic(&tp.topic, create, deadline).await {
            Ok(topic) => {
                let number = usize::try_from(tp.partition).ok();
                if number.is_none_or(|number| number >= topic.partitions.len()) {
                    let error = offsets::no_partition(&tp, topic.partitions.len());
                    // More partitions may be added; until then it is said now and then.
                    sleep_until(deadline).await;
                    return Answer::Exists(Some(error));
                }
            }
            Err(error) => {
                if now() < deadline {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                return Answer::Exists(Some(error.with_topic_partition(tp)));
            }
        }
    }
    Answer::Exists(None)
}
