//! Who coordinates a group or a transactional id.

use std::sync::{Arc, PoisonError};

use kafka_protocol::messages::{
    BrokerId as WireBrokerId, FindCoordinatorRequest, FindCoordinatorResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::coordinators::CoordinatorKey;
use super::snapshot::Broker;
use super::{Cluster, Target};
use crate::clock::{Instant, now};
use crate::error::{Class, Error, ErrorKind, Result, classify};
use crate::net::Lane;
use crate::net::backoff::Backoff;
use crate::types::BrokerId;

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
        let mut backoff =
            Backoff::new(self.config().retry_backoff, self.config().retry_backoff_max);
        loop {
            let (kind, id) = key.parts();
            let build = |version| {
                let id = StrBytes::from_string(id.to_owned());
                let request = FindCoordinatorRequest::default().with_key_type(kind);
                Ok(match version {
                    MANY_KEYS.. => request.with_coordinator_keys(vec![id]),
                    _ => request.with_key(id),
                })
            };
            let response = self
                .call(Target::Any, Lane::Metadata, deadline, build)
                .await?;
            let found = Found::read(&response, key)?;
            if found.code == 0 {
                self.learn(&[], std::slice::from_ref(&found.broker));
                self.inner.coordinators.put(key, found.broker.id);
                return Ok(found.broker.id);
            }
            let error =
                Error::from_code(found.code, format_args!("finding the coordinator of {key}"));
            if !classify::classify(found.code).is_retriable() {
                return Err(error);
            }
            let wait = backoff.fail(self.clock());
            if now() + wait >= deadline {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
        }
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

/// One coordinator out of an answer of either shape.
pub(super) struct Found {
    code: i16,
    broker: Broker,
}

impl Found {
    pub(super) fn read(
        response: &FindCoordinatorResponse,
        key: CoordinatorKey<'_>,
    ) -> Result<Self> {
        // Either an error or a broker; both or neither is damaged.
        let read = |code, id: WireBrokerId, host: &StrBytes, port| {
            let there = id.0 >= 0 && !host.is_empty() && (1..=0xffff).contains(&port);
            (there != (code != 0)).then(|| Self {
                code,
                broker: Broker {
                    id: BrokerId(id.0),
                    host: Arc::from(host.as_str()),
                    port: u16::try_from(port).unwrap_or(0),
                    rack: None,
                },
            })
        };
        let unclear = || {
            let message = format!("the FindCoordinator answer does not tell who coordinates {key}");
            Error::new(ErrorKind::Protocol, message).with_class(Class::Retriable)
        };
        let (_, id) = key.parts();
        if let Some(found) = response
            .coordinators
            .iter()
            .find(|found| found.key.as_str() == id)
        {
            let (node, host) = (found.node_id, &found.host);
            return read(found.error_code, node, host, found.port).ok_or_else(unclear);
        }
        if !response.coordinators.is_empty() {
            return Err(unclear());
        }
        let (node, host) = (response.node_id, &response.host);
        read(response.error_code, node, host, response.port).ok_or_else(unclear)
    }
}
