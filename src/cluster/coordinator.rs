//! Who coordinates a group or a transactional id.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{
    BrokerId as WireBrokerId, FindCoordinatorRequest, FindCoordinatorResponse,
};

use super::ask::{Answers, Asking, Key, Operation, Refusal, Route, refused};
use super::coordinators::CoordinatorKey;
use super::per_key::PerKey;
use super::snapshot::Broker;
use super::{Cluster, Target};
use crate::clock::{Instant, now};
use crate::error::{Class, Error, ErrorKind, Result};
use crate::net::Lane;
use crate::types::BrokerId;
use crate::wire::{Call, str_bytes};

/// The first version that asks for several keys at once, and answers so.
const MANY_KEYS: i16 = 4;

impl Cluster {
    /// The broker that coordinates a group or transactional id, from the cache or by asking.
    /// Cancel safe.
    pub(crate) async fn coordinator(
        &self,
        key: CoordinatorKey<'_>,
        deadline: Instant,
    ) -> Result<BrokerId> {
        if let Some(broker) = self.inner.coordinators.get(key) {
            return Ok(broker);
        }
        let asked = PerKey::awaiting([key.owned()]);
        self.ask_each(&Find(self), deadline, asked).await?.only()
    }

    /// One request to a coordinator, and one only: members and transactions judge failures
    /// themselves. It may wait for `wait` at the broker: the deadline is that of finding the
    /// coordinator and connecting to it, and the answer may come when that time is over. `build`
    /// may choose a lower version than it is offered. Cancel safe.
    pub(crate) async fn ask_coordinator<R: Call>(
        &self,
        key: CoordinatorKey<'_>,
        (lane, wait): (Lane, Duration),
        deadline: Instant,
        build: impl Fn(i16) -> Result<(i16, R)> + Send + Sync,
    ) -> Result<(BrokerId, R::Response)> {
        let broker = self.coordinator(key, deadline).await?;
        let doubt = || {
            self.forget_coordinator(key, broker);
            self.refresh();
        };
        let link = self
            .link(broker, lane, deadline)
            .await
            .inspect_err(|_| doubt())?;
        let (version, request) = build(link.version::<R>()?)?;
        let answered = deadline.max(now() + wait);
        let response = link
            .ask_waiting(version, &request, wait, answered)
            .await
            .inspect_err(|_| doubt())?;
        Ok((broker, response))
    }

    /// Looks once for coordinators that are not known; those that were not told, and why. Brokers
    /// that tell one at a time are asked about the first.
    pub(super) async fn find_coordinators(
        &self,
        keys: &[(i8, String)],
        deadline: Instant,
    ) -> Result<HashMap<(i8, String), Error>> {
        let find = Find(self);
        let (keys, broker, response) = self
            .attempt_each(&find, keys, Target::Any, deadline)
            .await?;
        let answers = find.read(keys, broker, response).into_iter();
        Ok(answers
            .filter_map(|(key, found)| {
                let error = match found.err()? {
                    Refusal::Code(code, message) => refused(&find, &key, code, message, false),
                    Refusal::Error(error) => error,
                };
                Some((key, error))
            })
            .collect())
    }

    /// Drops a cached coordinator that proved wrong, unless another is known by now.
    pub(crate) fn forget_coordinator(&self, key: CoordinatorKey<'_>, broker: BrokerId) {
        let mut found = self
            .inner
            .coordinators
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let key = key.owned();
        if found.get(&key) == Some(&broker) && !crate::planted("the-coordinator-is-never-forgotten")
        {
            found.remove(&key);
        }
    }
}

/// FindCoordinator, which notes what it is told.
pub(super) struct Find<'a>(pub(super) &'a Cluster);

impl Key for (i8, String) {
    fn doing(&self, doing: &str) -> String {
        format!("{doing} {}", CoordinatorKey::of(self))
    }
}

impl Operation for Find<'_> {
    type Key = (i8, String);
    type Request = FindCoordinatorRequest;
    type Value = BrokerId;

    const DOING: &'static str = "finding the coordinator of";
    const MANY_KEYS: i16 = MANY_KEYS;

    fn route<'a>(&'a self, _: &'a (i8, String)) -> Route<'a> {
        Route::Any
    }

    /// All keys are of one kind.
    fn request(&self, keys: &[(i8, String)], asking: &Asking<'_>) -> FindCoordinatorRequest {
        let kind = keys.first().map_or(0, |(kind, _)| *kind);
        let request = FindCoordinatorRequest::default().with_key_type(kind);
        let mut ids = keys.iter().map(|(_, id)| str_bytes(id));
        match asking.version {
            MANY_KEYS.. => request.with_coordinator_keys(ids.collect()),
            _ => request.with_key(ids.next().unwrap_or_default()),
        }
    }

    fn read(
        &self,
        keys: &[(i8, String)],
        _: BrokerId,
        response: FindCoordinatorResponse,
    ) -> Answers<Self> {
        let told: HashMap<&str, &Coordinator> = response
            .coordinators
            .iter()
            .map(|found| (found.key.as_str(), found))
            .collect();
        let answers = keys.iter().map(|key| {
            // Up to version 3 the answer is about the one key.
            let found = match told.is_empty() {
                true => read(
                    response.error_code,
                    response.node_id,
                    &response.host,
                    response.port,
                ),
                false => told.get(&*key.1).and_then(|found| {
                    read(found.error_code, found.node_id, &found.host, found.port)
                }),
            };
            let whose = CoordinatorKey::of(key);
            let answer = match found {
                None => Err(Refusal::Error(unclear(whose))),
                Some(Err(code)) => Err(Refusal::Code(code, None)),
                Some(Ok(broker)) => {
                    let id = broker.id;
                    self.0.learn(&[], &[broker]);
                    self.0.inner.coordinators.put(whose, id);
                    Ok(id)
                }
            };
            (key.clone(), answer)
        });
        answers.collect()
    }
}

/// Either an error or a broker; both or neither is damaged.
fn read(code: i16, id: WireBrokerId, host: &str, port: i32) -> Option<Result<Broker, i16>> {
    let there = id.0 >= 0 && !host.is_empty() && (1..=0xffff).contains(&port);
    match (code, there) {
        (0, true) => Some(Ok(Broker {
            id: BrokerId(id.0),
            host: Arc::from(host),
            port: u16::try_from(port).unwrap_or(0),
            rack: None,
        })),
        (0, false) | (_, true) => None,
        (code, false) => Some(Err(code)),
    }
}

fn unclear(key: CoordinatorKey<'_>) -> Error {
    let message = format!("the FindCoordinator answer does not tell who coordinates {key}");
    Error::new(ErrorKind::Protocol, message).with_class(Class::Retriable)
}
