//! The cluster as a client sees it: who leads what, and how to reach them.

pub(crate) mod snapshot;

use std::sync::Arc;

use crate::clock::{Clock, Instant};
use crate::config::ClientConfig;
use crate::error::Result;
use crate::net::Lane;
use crate::net::link::Link;
use crate::tasks::Tasks;
use crate::types::BrokerId;
use crate::wire::Call;
pub(crate) use snapshot::{Snapshot, Topic};

/// The shared handle to metadata and connections. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cluster {}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    /// Whichever broker is connected or can be.
    Any,
    Broker(BrokerId),
    Controller,
    Coordinator(CoordinatorKey<'a>),
}

/// Whom a coordinator is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CoordinatorKey<'a> {
    Group(&'a str),
    Transaction(&'a str),
}

/// A newer leader that a broker named in a Produce or Fetch answer (KIP-951).
#[derive(Clone, Debug)]
pub(crate) struct LeaderHint {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) leader: BrokerId,
    pub(crate) leader_epoch: i32,
}

/// Topics that metadata keeps asking for while this is alive.
#[derive(Debug)]
pub(crate) struct Interest {}

/// Tells of new snapshots, in order, missing none that matters (level-triggered: several changes
/// may be told as one).
#[derive(Debug)]
pub(crate) struct Changes {}

impl Changes {
    /// Waits for a snapshot newer than the last one seen by this watcher. Cancel safe.
    pub(crate) async fn changed(&mut self) -> Arc<Snapshot> {
        todo!()
    }
}

impl Cluster {
    pub(crate) fn config(&self) -> &ClientConfig {
        todo!()
    }

    pub(crate) fn clock(&self) -> &Clock {
        todo!()
    }

    /// The client's tasks; roles make a `child` of it.
    pub(crate) fn tasks(&self) -> &Tasks {
        todo!()
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        todo!()
    }

    pub(crate) fn changes(&self) -> Changes {
        todo!()
    }

    /// Keeps topics in every metadata request until the guard is dropped.
    pub(crate) fn watch(&self, topics: &[Arc<str>], auto_create: bool) -> Interest {
        let _ = (topics, auto_create);
        todo!()
    }

    /// The topic, asking for it until the deadline while the cluster does not know it. An
    /// authorization failure or a forbidden name ends it at once. Cancel safe.
    pub(crate) async fn topic(
        &self,
        name: &str,
        auto_create: bool,
        deadline: Instant,
    ) -> Result<Arc<Topic>> {
        let _ = (name, auto_create, deadline);
        todo!()
    }

    /// Asks for fresh metadata soon; requests coalesce and back off.
    pub(crate) fn refresh(&self) {
        todo!()
    }

    /// Takes over leaders named in an answer, if newer than what is known (KIP-951).
    pub(crate) fn learn(&self, leaders: &[LeaderHint], brokers: &[snapshot::Broker]) {
        let _ = (leaders, brokers);
        todo!()
    }

    /// An open link to a broker, connecting with back-off until the deadline. Cancel safe.
    pub(crate) async fn link(
        &self,
        broker: BrokerId,
        lane: Lane,
        deadline: Instant,
    ) -> Result<Link> {
        let _ = (broker, lane, deadline);
        todo!()
    }

    /// Sends one request where it belongs and retries by the class of the error until the
    /// deadline: connection failures, and answers whose top-level code is retriable (metadata or
    /// coordinator are refreshed as the code says). Item-level codes are the caller's. Cancel safe.
    pub(crate) async fn call<R: Call>(
        &self,
        target: Target<'_>,
        lane: Lane,
        deadline: Instant,
        build: impl Fn(i16) -> Result<R> + Send + Sync,
    ) -> Result<R::Response> {
        let _ = (target, lane, deadline, build);
        todo!()
    }

    /// The broker that coordinates a group or transactional id, from the cache or by asking.
    pub(crate) async fn coordinator(
        &self,
        key: CoordinatorKey<'_>,
        deadline: Instant,
    ) -> Result<BrokerId> {
        let _ = (key, deadline);
        todo!()
    }

    /// Drops a cached coordinator that proved wrong, unless another is known by now.
    pub(crate) fn forget_coordinator(&self, key: CoordinatorKey<'_>, broker: BrokerId) {
        let _ = (key, broker);
        todo!()
    }
}
