//! One kind of request about several keys (topics, groups, partitions, brokers), each of which has
//! its place: keys of one place share a request, and are asked for again, wherever they belong by
//! then, until each has a result that another attempt would not change, or the deadline passes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kafka_protocol::protocol::StrBytes;

use super::per_key::PerKey;
use super::{Cluster, CoordinatorKey, Snapshot, Target};
use crate::clock::{Instant, now};
use crate::error::classify::{self, Refresh};
use crate::error::{Certainty, Class, Error, ErrorKind, Result};
use crate::net::Lane;
use crate::net::backoff::Backoff;
use crate::types::{BrokerId, TopicPartition};
use crate::wire::{Call, codes};

/// What is asked about: a topic, a group, a partition, a broker.
pub(crate) trait Key: Clone + Eq + Hash + Send + Sync {
    /// What is being done to it, for messages: `creating topic 'orders'`.
    fn doing(&self, doing: &str) -> String;

    /// Notes the key in an error that has a place for it.
    fn mark(&self, error: Error) -> Error {
        error
    }
}

impl Key for String {
    fn doing(&self, doing: &str) -> String {
        format!("{doing} '{self}'")
    }
}

impl Key for BrokerId {
    fn doing(&self, doing: &str) -> String {
        format!("{doing} {self}")
    }
}

impl Key for TopicPartition {
    fn doing(&self, doing: &str) -> String {
        doing.to_owned()
    }

    fn mark(&self, error: Error) -> Error {
        error.with_topic_partition(self.clone())
    }
}

/// Who answers for a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Route<'a> {
    /// Whichever broker is connected or can be.
    Any,
    Controller,
    Broker(BrokerId),
    Leader(&'a TopicPartition),
    Coordinator(CoordinatorKey<'a>),
}

/// Why there is no value for a key.
pub(crate) enum Refusal {
    /// The broker's code, and what it said beside.
    Code(i16, Option<StrBytes>),
    /// The answer makes no sense; it is asked for again if the error is retriable.
    Error(Error),
}

impl Refusal {
    /// `Ok` for code 0.
    pub(crate) fn check(code: i16, message: Option<StrBytes>) -> Result<(), Self> {
        match code {
            codes::NONE => Ok(()),
            code => Err(Self::Code(code, message)),
        }
    }
}

pub(crate) type Answers<O> = Vec<(
    <O as Operation>::Key,
    Result<<O as Operation>::Value, Refusal>,
)>;

/// What a request is made from, beside its keys.
pub(crate) struct Asking<'a> {
    pub(crate) version: i16,
    pub(crate) snapshot: &'a Snapshot,
    /// How long the broker may take.
    pub(crate) timeout_ms: i32,
}

/// A kind of request about several keys.
pub(crate) trait Operation: Sync {
    type Key: Key;
    type Request: Call;
    type Value: Send;

    /// What is being done, for messages: `creating topic`.
    const DOING: &'static str;
    /// The code that answers a request for what is done already, and what then may have done it.
    const DONE_ALREADY: Option<(i16, &'static str)> = None;
    /// What changes something waits at the broker until it is done.
    const LANE: Lane = match <Self::Request as Call>::WRITES {
        true => Lane::Admin,
        false => Lane::Metadata,
    };
    /// The first version that takes several keys; up to there each has a request of its own.
    const MANY_KEYS: i16 = 0;

    fn route<'a>(&'a self, key: &'a Self::Key) -> Route<'a>;

    /// What is being done to a key, for messages.
    fn doing(&self, key: &Self::Key) -> String {
        key.doing(Self::DOING)
    }

    /// The version to be used, where the highest one cannot say what is to be said.
    fn version(&self, offered: i16, _: &[Self::Key], _: &Snapshot) -> Result<i16> {
        Ok(offered)
    }

    fn request(&self, keys: &[Self::Key], asking: &Asking<'_>) -> Self::Request;

    /// The answers for the keys that were asked about; others count for nothing.
    fn read(
        &self,
        keys: &[Self::Key],
        broker: BrokerId,
        response: <Self::Request as Call>::Response,
    ) -> Answers<Self>
    where
        Self: Sized;

    /// Whether another attempt may go otherwise. That a topic is unknown is an answer here, though
    /// for producers and consumers it is a state that passes.
    fn may_pass(&self, code: i16) -> bool {
        let meaning = classify::classify(code);
        meaning.is_retriable() && meaning.kind != ErrorKind::UnknownTopic
    }
}

/// Keys that are asked for together, and what became of earlier attempts.
struct Trial<K> {
    keys: Vec<K>,
    backoff: Backoff,
    sent: u32,
}

/// What is known after a step of a trial.
enum Step<K, R> {
    /// The keys can be routed, as far as it depended on this step.
    Go(Trial<K>),
    /// The coordinators are known, but for these.
    Coordinators(Trial<K>, HashMap<(i8, String), Error>),
    /// Another attempt makes no difference.
    Refused(Trial<K>, Error),
    /// There was no answer.
    Failed(Trial<K>, Error),
    /// The broker's answer for the keys of the trial; the others are to be asked for yet.
    Answered(Trial<K>, Vec<K>, BrokerId, R),
}

type Pending<'a, K, R> = Pin<Box<dyn Future<Output = Step<K, R>> + Send + 'a>>;

/// A call that is under way.
struct Run<'a, O: Operation> {
    cluster: &'a Cluster,
    operation: &'a O,
    deadline: Instant,
    results: PerKey<O::Key, O::Value>,
    steps: FuturesUnordered<Pending<'a, O::Key, <O::Request as Call>::Response>>,
    /// Keys of which an attempt may have been carried out though nobody said so.
    doubted: HashSet<O::Key>,
    /// Whether anything is known about any key, and why not.
    heard: bool,
    failure: Option<Error>,
}

impl Cluster {
    /// Asks until every key has a result that another attempt would not change, or the deadline is
    /// there. It fails as a whole only if nothing was heard about any key.
    ///
    /// `results` awaits each of the keys asked about, and may have results of others already.
    ///
    /// Cancel safe: nothing is left but answers that nobody reads.
    pub(crate) async fn ask_each<O: Operation>(
        &self,
        operation: &O,
        deadline: Instant,
        results: PerKey<O::Key, O::Value>,
    ) -> Result<PerKey<O::Key, O::Value>> {
        let keys = results.unsettled();
        if keys.is_empty() {
            return Ok(results);
        }
        let topics: BTreeSet<Arc<str>> = keys
            .iter()
            .filter_map(|key| match operation.route(key) {
                Route::Leader(tp) => Some(Arc::clone(&tp.topic)),
                _ => None,
            })
            .collect();
        // Refreshed as long as leaders of theirs are looked for.
        let topics: Vec<_> = topics.into_iter().collect();
        let _interest = (!topics.is_empty()).then(|| self.watch(&topics, false));
        let config = self.config();
        let heard = keys.len() < results.len();
        let mut run = Run {
            cluster: self,
            operation,
            deadline,
            results,
            steps: FuturesUnordered::new(),
            doubted: HashSet::new(),
            heard,
            failure: None,
        };
        run.route(Trial {
            keys,
            backoff: Backoff::new(config.retry_backoff, config.retry_backoff_max),
            sent: 0,
        });
        while let Some(step) = run.steps.next().await {
            run.take(step);
        }
        match run.failure {
            Some(error) if !run.heard => Err(error),
            _ => Ok(run.results),
        }
    }

    /// One attempt to ask about keys, of which the request may take the first only; the error has
    /// a certainty if it may have been carried out.
    pub(super) async fn attempt_each<'k, O: Operation>(
        &self,
        operation: &O,
        keys: &'k [O::Key],
        target: Target<'_>,
        deadline: Instant,
    ) -> Result<(&'k [O::Key], BrokerId, <O::Request as Call>::Response)> {
        let used = AtomicI32::new(0);
        let taken = |version: i16| match version >= O::MANY_KEYS {
            true => keys,
            false => &keys[..keys.len().min(1)],
        };
        let build = |offered| {
            let keys = taken(offered);
            let snapshot = &self.snapshot();
            let version = operation.version(offered, keys, snapshot)?;
            used.store(offered.into(), Ordering::Relaxed);
            let left = deadline.saturating_duration_since(now());
            let asking = Asking {
                version,
                snapshot,
                timeout_ms: millis(left.min(self.config().request_timeout)),
            };
            Ok((version, operation.request(keys, &asking)))
        };
        let (broker, response) = self.attempt(target, O::LANE, deadline, &build).await?;
        let offered = i16::try_from(used.into_inner()).unwrap_or(i16::MAX);
        Ok((taken(offered), broker, response))
    }
}

impl<'a, O: Operation> Run<'a, O> {
    /// Sends each of the keys where it belongs, or finds out where that is.
    fn route(&mut self, trial: Trial<O::Key>) {
        let (cluster, deadline) = (self.cluster, self.deadline);
        let snapshot = cluster.snapshot();
        let mut by_target: BTreeMap<Target<'static>, Vec<O::Key>> = BTreeMap::new();
        let mut by_topic: BTreeMap<Arc<str>, Vec<O::Key>> = BTreeMap::new();
        let mut lost = Vec::new();
        let mut leaderless = Vec::new();
        let mut sought = BTreeSet::new();
        for key in trial.keys {
            let target = match self.operation.route(&key) {
                Route::Any => Target::Any,
                Route::Controller => Target::Controller,
                Route::Broker(broker) => Target::Broker(broker),
                Route::Coordinator(whose) => match cluster.inner.coordinators.get(whose) {
                    Some(broker) => Target::Broker(broker),
                    None => {
                        sought.insert(whose.owned());
                        lost.push(key);
                        continue;
                    }
                },
                Route::Leader(tp) => {
                    let Some(topic) = snapshot.topic(&tp.topic) else {
                        by_topic.entry(Arc::clone(&tp.topic)).or_default().push(key);
                        continue;
                    };
                    let number = usize::try_from(tp.partition).ok();
                    let partition = number.and_then(|number| topic.partitions.get(number));
                    match partition.map(|partition| partition.leader) {
                        Some(Some(broker)) => Target::Broker(broker),
                        Some(None) => {
                            leaderless.push(key);
                            continue;
                        }
                        None => {
                            let error = no_partition(tp, topic.partitions.len());
                            self.settle(key, Err(error));
                            continue;
                        }
                    }
                }
            };
            by_target.entry(target).or_default().push(key);
        }
        let (backoff, sent) = (trial.backoff, trial.sent);
        let part = |keys| Trial {
            keys,
            backoff,
            sent,
        };
        let operation = self.operation;
        for (target, keys) in by_target {
            let trial = part(keys);
            self.steps
                .push(Box::pin(ask(cluster, operation, trial, target, deadline)));
        }
        for (topic, keys) in by_topic {
            let trial = part(keys);
            self.steps.push(Box::pin(async move {
                match cluster.topic(&topic, false, deadline).await {
                    Ok(_) => Step::Go(trial),
                    Err(error) => Step::Refused(trial, error),
                }
            }));
        }
        if !lost.is_empty() {
            let trial = part(lost);
            let sought: Vec<_> = sought.into_iter().collect();
            self.steps.push(Box::pin(async move {
                match cluster.find_coordinators(&sought, deadline).await {
                    Ok(failed) => Step::Coordinators(trial, failed),
                    Err(error) => Step::Failed(trial, error),
                }
            }));
        }
        if !leaderless.is_empty() {
            cluster.refresh();
            let error = Error::new(
                ErrorKind::NotLeader,
                "the partition has no leader at present",
            );
            self.again(part(leaderless), &error);
        }
    }

    fn take(&mut self, step: Step<O::Key, <O::Request as Call>::Response>) {
        match step {
            Step::Go(trial) => self.route(trial),
            Step::Refused(trial, error) => {
                for key in trial.keys {
                    let error = key.mark(error.clone());
                    self.settle(key, Err(error));
                }
            }
            Step::Coordinators(mut trial, failed) => {
                let mut again = Vec::new();
                let mut found = Vec::new();
                for key in std::mem::take(&mut trial.keys) {
                    let error = match self.operation.route(&key) {
                        Route::Coordinator(whose) => failed.get(&whose.owned()),
                        _ => None,
                    };
                    match error {
                        None => found.push(key),
                        Some(error) => {
                            self.settle(key.clone(), Err(key.mark(error.clone())));
                            if error.is_retriable() {
                                again.push(key);
                            }
                        }
                    }
                }
                let part = |keys| Trial { keys, ..trial };
                if !again.is_empty() {
                    let error = Error::new(ErrorKind::Coordinator, "no coordinator");
                    self.again(part(again), &error);
                }
                self.route(part(found));
            }
            Step::Failed(trial, error) => {
                if error.certainty() == Some(Certainty::MaybeWritten) {
                    self.doubted.extend(trial.keys.iter().cloned());
                }
                match error.is_retriable() {
                    true => self.again(trial, &error),
                    false => self.give_up(&trial.keys, &error),
                }
            }
            Step::Answered(trial, rest, broker, response) => {
                self.heard = true;
                let (backoff, sent) = (trial.backoff, trial.sent);
                if !rest.is_empty() {
                    self.route(Trial {
                        keys: rest,
                        backoff,
                        sent: sent - 1,
                    });
                }
                self.answered(trial, broker, response);
            }
        }
    }

    fn answered(
        &mut self,
        mut trial: Trial<O::Key>,
        broker: BrokerId,
        response: <O::Request as Call>::Response,
    ) {
        let code = O::Request::error_code(&response);
        if code != codes::NONE {
            for key in &trial.keys {
                let error = Error::from_code(code, self.operation.doing(key));
                self.results.fill([key], &key.mark(error));
            }
            return;
        }
        let mut left: HashSet<O::Key> = trial.keys.iter().cloned().collect();
        let mut again = Vec::new();
        for (key, answer) in self.operation.read(&trial.keys, broker, response) {
            if !left.remove(&key) {
                continue;
            }
            let (code, message) = match answer {
                Ok(value) => {
                    self.settle(key, Ok(value));
                    continue;
                }
                Err(Refusal::Error(error)) => {
                    if error.is_retriable() {
                        again.push(key.clone());
                    }
                    let error = key.mark(error);
                    self.settle(key, Err(error));
                    continue;
                }
                Err(Refusal::Code(code, message)) => (code, message),
            };
            match classify::classify(code).refresh {
                Refresh::Nothing => {}
                Refresh::Metadata | Refresh::Rebootstrap => self.cluster.refresh(),
                Refresh::Coordinator => self.forget(&key, broker),
            }
            let error = refused(self.operation, &key, code, message, trial.sent > 1);
            if error.certainty().is_some() {
                self.doubted.insert(key.clone());
            }
            if self.operation.may_pass(code) {
                again.push(key.clone());
            }
            self.settle(key, Err(error));
        }
        // What an answer leaves out it would leave out again.
        for key in trial.keys.iter().filter(|key| left.contains(*key)) {
            let doing = self.operation.doing(key);
            let text = format!("{doing}: the broker's answer leaves it out");
            let error = key.mark(Error::new(ErrorKind::Protocol, text));
            self.settle(key.clone(), Err(error));
        }
        if !again.is_empty() {
            // They keep what was said about them if nothing else is said in time.
            let error = Error::new(ErrorKind::Timeout, "the deadline passed");
            trial.keys = again;
            self.again(trial, &error);
        }
    }

    /// Tries again after a pause, if there is time for that.
    fn again(&mut self, mut trial: Trial<O::Key>, error: &Error) {
        let wait = trial.backoff.fail(self.cluster.clock());
        if self.cluster.inner.tasks.is_stopping() {
            let closed = self.cluster.closed();
            self.give_up(&trial.keys, &closed);
            return;
        }
        if now() + wait >= self.deadline {
            self.give_up(&trial.keys, error);
            return;
        }
        tracing::debug!(api = O::Request::NAME, %error, "trying again");
        let cluster = self.cluster;
        self.steps.push(Box::pin(async move {
            cluster.is_over(std::future::pending(), now() + wait).await;
            Step::Go(trial)
        }));
    }

    /// Ends with what was said last about the keys, or with the error.
    fn give_up(&mut self, keys: &[O::Key], error: &Error) {
        let error = error.clone().context(O::Request::NAME);
        for key in keys {
            self.results.fill([key], &key.mark(error.clone()));
            if self.doubted.contains(key) {
                self.results.doubt(key);
            }
        }
        let error = match keys.iter().any(|key| self.doubted.contains(key)) {
            true => error.with_certainty(Certainty::MaybeWritten),
            false => error,
        };
        self.failure.get_or_insert(error);
    }

    fn settle(&mut self, key: O::Key, result: Result<O::Value>) {
        self.heard = true;
        self.results.put(key, result);
    }

    /// The broker does not coordinate the key's group.
    fn forget(&self, key: &O::Key, broker: BrokerId) {
        if let Route::Coordinator(whose) = self.operation.route(key) {
            self.cluster.forget_coordinator(whose, broker);
        }
    }
}

/// One attempt to ask about the keys of a trial.
async fn ask<O: Operation>(
    cluster: &Cluster,
    operation: &O,
    mut trial: Trial<O::Key>,
    target: Target<'static>,
    deadline: Instant,
) -> Step<O::Key, <O::Request as Call>::Response> {
    trial.sent += 1;
    let asked = cluster.attempt_each(operation, &trial.keys, target, deadline);
    match asked.await {
        Ok((taken, broker, response)) => {
            let taken = taken.len();
            let rest = trial.keys.split_off(taken);
            Step::Answered(trial, rest, broker, response)
        }
        Err(error) => {
            if let Target::Broker(broker) = target {
                for key in &trial.keys {
                    if let Route::Coordinator(whose) = operation.route(key) {
                        cluster.forget_coordinator(whose, broker);
                    }
                }
            }
            Step::Failed(trial, error)
        }
    }
}

/// The error that a broker's code means for a key.
pub(super) fn refused<O: Operation>(
    operation: &O,
    key: &O::Key,
    code: i16,
    message: Option<StrBytes>,
    repeated: bool,
) -> Error {
    let mut text = operation.doing(key);
    if let Some(message) = message.filter(|message| !message.is_empty()) {
        text = format!("{text}: {}", message.trim_end_matches('.'));
    }
    match O::DONE_ALREADY {
        Some((done, note)) if done == code && repeated => text = format!("{text} ({note})"),
        _ => {}
    }
    let error = key.mark(Error::from_code(code, text));
    let error =
        match O::Request::WRITES && classify::write_certainty(code) == Certainty::MaybeWritten {
            true => error.with_certainty(Certainty::MaybeWritten),
            false => error,
        };
    if error.is_retriable() && !operation.may_pass(code) {
        // It was not tried again, and would not help.
        return error.with_class(Class::Caller);
    }
    error
}

pub(crate) fn no_partition(tp: &TopicPartition, count: usize) -> Error {
    let message = format!("the topic has {count} partitions, numbered from 0");
    Error::new(ErrorKind::UnknownPartition, message).with_topic_partition(tp.clone())
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
