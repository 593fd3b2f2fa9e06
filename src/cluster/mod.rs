//! The cluster as a client sees it: who leads what, and how to reach them.

pub(crate) mod ask;
mod call;
mod coordinator;
mod coordinators;
pub(crate) mod describe;
mod driver;
mod metadata;
pub(crate) mod per_key;
pub(crate) mod snapshot;
mod start;

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::timeout_at;

use crate::clock::{Clock, Instant, now};
use crate::config::ClientConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::log_throttle::LogThrottle;
use crate::net::link::{Driver, Link};
use crate::net::pool::{Endpoint, Pool, closed};
use crate::net::traffic::Traffic;
use crate::net::{Lane, Owner};
use crate::tasks::Tasks;
use crate::types::BrokerId;
use crate::wire::versions::Features;
pub(crate) use coordinators::CoordinatorKey;
use coordinators::Coordinators;
use metadata::MetadataMachine;
pub(crate) use snapshot::{LeaderHint, Snapshot, Topic};

/// The shared handle to metadata and connections. Cheap to clone; when the last clone outside of
/// the cluster's own tasks is dropped, those tasks end.
#[derive(Clone)]
pub(crate) struct Cluster {
    inner: Arc<Inner>,
    /// Whose connections it uses.
    role: Arc<Role>,
    #[allow(dead_code, reason = "held for its drop")]
    stop: Option<Arc<StopOnDrop>>,
}

struct StopOnDrop(Tasks);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A producer or a consumer with connections of its own, which end with it; or all the rest, which
/// shares its connections.
struct Role {
    pool: Arc<Pool>,
    owner: Owner,
}

impl Drop for Role {
    fn drop(&mut self) {
        self.pool.retire(self.owner);
    }
}

struct Inner {
    config: Arc<ClientConfig>,
    clock: Clock,
    tasks: Tasks,
    pool: Arc<Pool>,
    bootstrap: Vec<Endpoint>,
    snapshot: ArcSwap<Snapshot>,
    published: Notify,
    metadata: Mutex<Metadata>,
    /// Told when the metadata task has something to look at.
    wishes: Notify,
    coordinators: Coordinators,
    /// Rounds of metadata that failed.
    failures: LogThrottle,
}

/// What the metadata task and its users share.
struct Metadata {
    machine: MetadataMachine,
    /// Rounds of requests so far, those about everything, and why the last one failed.
    rounds: u64,
    full_rounds: u64,
    failure: Option<Error>,
    /// When a broker last gave metadata, or the start.
    last_success: Instant,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target<'a> {
    /// Whichever broker is connected or can be.
    Any,
    Controller,
    Broker(BrokerId),
    #[cfg_attr(not(test), allow(dead_code, reason = "transactions go this way"))]
    Coordinator(CoordinatorKey<'a>),
}

/// Topics that metadata keeps asking for while this is alive.
pub(crate) struct Interest {
    cluster: Cluster,
    topics: Vec<Arc<str>>,
    auto_create: bool,
}

/// Metadata keeps asking which topics there are while this is alive.
pub(crate) struct AllTopics(Cluster);

/// Tells of new snapshots, in order, missing none that matters (level-triggered: several changes
/// may be told as one).
///
/// Not tokio's `watch`: that draws from a random generator of its own when several tasks wait,
/// which would make simulated runs differ from each other.
pub(crate) struct Changes {
    cluster: Cluster,
    seen: u64,
}

impl Cluster {
    /// A handle for one producer or consumer: on the lanes where requests may wait at a broker it
    /// has connections of its own, until its last clone is dropped.
    pub(crate) fn for_role(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            role: Arc::new(Role {
                pool: Arc::clone(&self.inner.pool),
                owner: self.inner.pool.new_owner(),
            }),
            stop: self.stop.clone(),
        }
    }

    /// The role has ended, though handles of it may be kept: its connections end.
    pub(crate) fn end_role(&self) {
        self.inner.pool.retire(self.role.owner);
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// The client's tasks; roles make a `child` of it.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.inner.tasks
    }

    /// What its connections did.
    pub(crate) fn traffic(&self) -> &Traffic {
        self.inner.pool.traffic()
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.snapshot.load_full()
    }

    pub(crate) fn changes(&self) -> Changes {
        Changes {
            cluster: self.clone(),
            seen: self.snapshot().version,
        }
    }

    /// Keeps topics in every metadata request until the guard is dropped.
    pub(crate) fn watch(&self, topics: &[Arc<str>], auto_create: bool) -> Interest {
        let mut metadata = self.metadata();
        for topic in topics {
            metadata.machine.watch(topic, auto_create);
        }
        drop(metadata);
        self.inner.wishes.notify_one();
        Interest {
            cluster: self.clone(),
            topics: topics.to_vec(),
            auto_create,
        }
    }

    /// Keeps the list of all topics in every round of metadata until the guard is dropped.
    pub(crate) fn watch_all(&self) -> AllTopics {
        self.metadata().machine.watch_all();
        self.inner.wishes.notify_one();
        AllTopics(self.clone())
    }

    /// The topic, asking for it until the deadline while the cluster does not know it. An
    /// authorization failure or a forbidden name ends it at once. Cancel safe.
    pub(crate) async fn topic(
        &self,
        name: &str,
        auto_create: bool,
        deadline: Instant,
    ) -> Result<Arc<Topic>> {
        if let Some(topic) = self.inner.snapshot.load().topic(name) {
            return Ok(Arc::clone(topic));
        }
        let name: Arc<str> = name.into();
        let rounds = self.metadata().rounds;
        let _interest = self.watch(std::slice::from_ref(&name), auto_create);
        loop {
            let mut published = pin!(self.inner.published.notified());
            published.as_mut().enable();
            let snapshot = self.snapshot();
            if let Some(topic) = snapshot.topic(&name) {
                return Ok(Arc::clone(topic));
            }
            let code = snapshot.errors.get(&name).copied();
            let answered = self.metadata().rounds > rounds;
            if let Some(code) = code.filter(|code| answered && snapshot::is_refusal(*code)) {
                return Err(Error::from_code(code, format_args!("topic '{name}'")));
            }
            if self.inner.tasks.is_stopping() {
                return Err(self.closed());
            }
            if self.is_over(published, deadline).await {
                return Err(self.not_found(&name, code));
            }
        }
    }

    /// Waits for so long, or until the client ends. Cancel safe.
    pub(crate) async fn pause(&self, wait: Duration) {
        self.is_over(std::future::pending(), now() + wait).await;
    }

    /// What the cluster has switched on, as far as connections were told.
    pub(crate) fn features(&self) -> Features {
        self.inner.pool.features()
    }

    /// Waits for news, or for the end of the tasks that would bring them; whether the deadline
    /// passed.
    async fn is_over(&self, news: impl Future<Output = ()>, deadline: Instant) -> bool {
        tokio::select! {
            biased;
            () = self.inner.tasks.stopped() => false,
            told = timeout_at(deadline, news) => told.is_err(),
        }
    }

    /// Why a topic was not found by the deadline.
    fn not_found(&self, name: &str, code: Option<i16>) -> Error {
        const UNKNOWN_TOPIC: i16 = 3;
        match (code, self.metadata().failure.clone()) {
            (Some(UNKNOWN_TOPIC), _) => Error::new(
                ErrorKind::UnknownTopic,
                format!(
                    "topic '{name}' does not exist, and the cluster does not create it: \
                     create it, or check its name (auto.create.topics.enable is off, or creation was not asked for)"
                ),
            ),
            (Some(code), _) => Error::from_code(code, format_args!("topic '{name}'")),
            (None, Some(failure)) => {
                let timeout = Error::new(
                    ErrorKind::Timeout,
                    format!("topic '{name}' could not be looked up within the deadline: {failure}"),
                );
                timeout.with_source(failure)
            }
            (None, None) => Error::new(
                ErrorKind::Timeout,
                format!("topic '{name}' could not be looked up within the deadline"),
            ),
        }
    }

    /// Waits until metadata was received once. An error that waiting cannot mend (not Kafka, TLS
    /// expected, too old, refused credentials) ends it at once. Cancel safe.
    pub(crate) async fn ready(&self, deadline: Instant) -> Result<()> {
        loop {
            let mut published = pin!(self.inner.published.notified());
            published.as_mut().enable();
            if self.inner.tasks.is_stopping() {
                return Err(self.closed());
            }
            if self.snapshot().version > 0 {
                return Ok(());
            }
            let failure = self.metadata().failure.clone();
            if let Some(failure) = failure.as_ref().filter(|failure| !failure.is_retriable()) {
                return Err(failure.clone());
            }
            if self.is_over(published, deadline).await {
                let timeout = |why: &dyn fmt::Display| {
                    Error::new(
                        ErrorKind::Timeout,
                        format!("no broker of bootstrap.servers could be reached: {why}"),
                    )
                };
                return Err(match failure {
                    Some(failure) => timeout(&failure).with_source(failure),
                    None => timeout(&"none answered within the deadline"),
                });
            }
        }
    }

    /// Asks for fresh metadata soon; requests coalesce and back off.
    pub(crate) fn refresh(&self) {
        self.metadata().machine.refresh();
        self.inner.wishes.notify_one();
    }

    /// Waits until a round of metadata requests about everything that was not begun yet has ended,
    /// well or not, or the deadline passed. Cancel safe.
    pub(crate) async fn renewed(&self, deadline: Instant) {
        let round = {
            let mut metadata = self.metadata();
            metadata.machine.refresh();
            metadata.full_rounds + 1 + u64::from(metadata.machine.is_asking_everything())
        };
        self.inner.wishes.notify_one();
        loop {
            let mut published = pin!(self.inner.published.notified());
            published.as_mut().enable();
            let over = self.metadata().full_rounds >= round || self.inner.tasks.is_stopping();
            if over || self.is_over(published, deadline).await {
                return;
            }
        }
    }

    /// Takes over leaders named in an answer, if newer than what is known (KIP-951). Where they are
    /// not, a broker that does not lead was asked all the same: what is known is wrong, and asked
    /// for.
    pub(crate) fn learn(&self, leaders: &[LeaderHint], brokers: &[snapshot::Broker]) {
        let mut news = false;
        self.update(|_, snapshot| {
            news = snapshot.learn(leaders, brokers);
            news
        });
        if !news && !leaders.is_empty() {
            self.refresh();
        }
    }

    /// An open link to a broker, or the outcome of one attempt to open one (after the back-off that
    /// earlier failures ask for). A broker that metadata no longer names is an error; whatever the
    /// error, metadata is asked whether the broker is elsewhere. Cancel safe.
    pub(crate) async fn link(
        &self,
        broker: BrokerId,
        lane: Lane,
        deadline: Instant,
    ) -> Result<Link> {
        let link = async {
            let endpoint = self.known(broker)?;
            self.link_to(&endpoint, lane, deadline).await
        };
        link.await.inspect_err(|_| self.refresh())
    }

    /// The same with the driver, for fetching: the caller's task moves the bytes.
    pub(crate) async fn driven_link(
        &self,
        broker: BrokerId,
        lane: Lane,
        deadline: Instant,
    ) -> Result<(Link, Driver)> {
        let link = async {
            let endpoint = self.known(broker)?;
            let owner = lane.owner(self.role.owner);
            let pool = &self.inner.pool;
            pool.driven_link(&endpoint, lane, owner, deadline).await
        };
        link.await.inspect_err(|_| self.refresh())
    }

    /// The same, to an address.
    async fn link_to(&self, endpoint: &Endpoint, lane: Lane, deadline: Instant) -> Result<Link> {
        let owner = lane.owner(self.role.owner);
        self.inner.pool.link(endpoint, lane, owner, deadline).await
    }

    /// Whether there is an open connection of this lane.
    fn is_connected(&self, broker: BrokerId, lane: Lane) -> bool {
        let owner = lane.owner(self.role.owner);
        self.inner.pool.is_connected(broker, lane, owner)
    }

    /// Whether metadata names the broker.
    pub(crate) fn knows(&self, broker: BrokerId) -> bool {
        self.inner.snapshot.load().brokers.contains_key(&broker)
    }

    fn known(&self, broker: BrokerId) -> Result<Endpoint> {
        self.endpoint(broker).ok_or_else(|| {
            let message = format!("broker {broker} is not part of the cluster (any more)");
            Error::new(ErrorKind::Connection, message)
        })
    }

    fn endpoint(&self, broker: BrokerId) -> Option<Endpoint> {
        if broker.0 < 0 {
            return self
                .inner
                .bootstrap
                .iter()
                .find(|endpoint| endpoint.id == broker)
                .cloned();
        }
        let snapshot = self.inner.snapshot.load();
        snapshot
            .brokers
            .get(&broker)
            .map(|broker| endpoint_of(broker))
    }

    /// Publishes a changed snapshot; nothing happens if `change` says that nothing changed.
    fn update(&self, change: impl FnOnce(&MetadataMachine, &mut Snapshot) -> bool) {
        // The metadata lock makes writers take turns; readers never wait.
        let metadata = self.metadata();
        let before = self.snapshot();
        let mut snapshot = Snapshot::clone(&before);
        let changed = change(&metadata.machine, &mut snapshot);
        if changed {
            for (id, broker) in &snapshot.brokers {
                if before.brokers.get(id).is_some_and(|known| known != broker) {
                    self.inner.pool.moved(&endpoint_of(broker));
                }
            }
            snapshot.version += 1;
            self.inner.snapshot.store(Arc::new(snapshot));
        }
        drop(metadata);
        self.inner.published.notify_waiters();
        if changed && tracing::enabled!(tracing::Level::INFO) {
            tell_moves(&before, &self.snapshot());
        }
    }

    fn metadata(&self) -> MutexGuard<'_, Metadata> {
        self.inner
            .metadata
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the client does not work any more.
    fn closed(&self) -> Error {
        self.inner.tasks.failure().unwrap_or_else(closed)
    }

    /// Stops every task of the client and waits for their end.
    pub(crate) async fn close(&self) {
        self.inner.tasks.stop();
        self.inner.published.notify_waiters();
        self.inner.tasks.idle().await;
    }
}

fn endpoint_of(broker: &snapshot::Broker) -> Endpoint {
    Endpoint {
        id: broker.id,
        host: Arc::clone(&broker.host),
        port: broker.port,
    }
}

/// One line for all leaders that moved, since a broker's end moves thousands.
fn tell_moves(before: &Snapshot, after: &Snapshot) {
    let mut moved = before.moved(after);
    if let Some((topic, partition, from, to)) = moved.next() {
        let count = 1 + moved.count();
        let first = format_args!("{topic}-{partition}");
        tracing::info!(count, %first, %from, to = ?to.map(BrokerId::get), "leaders moved");
    }
}

impl Changes {
    /// Waits for a snapshot newer than the last one seen by this watcher. Cancel safe.
    pub(crate) async fn changed(&mut self) -> Arc<Snapshot> {
        loop {
            let mut published = pin!(self.cluster.inner.published.notified());
            published.as_mut().enable();
            let snapshot = self.cluster.snapshot();
            if snapshot.version > self.seen {
                self.seen = snapshot.version;
                return snapshot;
            }
            published.await;
        }
    }
}

impl Interest {
    pub(crate) fn covers(&self, topic: &str) -> bool {
        self.topics.iter().any(|known| **known == *topic)
    }

    /// Whether it is about these topics, in this order.
    pub(crate) fn is(&self, topics: &[Arc<str>]) -> bool {
        self.topics == topics
    }
}

impl Drop for AllTopics {
    fn drop(&mut self) {
        self.0.metadata().machine.unwatch_all();
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut metadata = self.cluster.metadata();
        for topic in &self.topics {
            metadata.machine.unwatch(topic, self.auto_create);
        }
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Interest").field(&self.topics).finish()
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("bootstrap", &self.inner.config.bootstrap)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
