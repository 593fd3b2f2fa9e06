//! Links by broker, lane and owner: opened when first asked for, again after they end, with
//! back-off.
//!
//! Whoever asks, a broker that cannot be reached is tried by one attempt at a time: all links to it
//! share the back-off and the outcome, or two hundred roles would be two hundred attempts.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kafka_protocol::protocol::StrBytes;
use tokio::sync::Notify;
use tokio::time::timeout_at;

use super::backoff::Backoff;
use super::connector::Connector;
use super::frame::Peer;
use super::handshake;
use super::link::{Driver, Link, LinkConfig};
use super::traffic::Traffic;
use super::{Lane, Owner};
use crate::clock::{Clock, Instant, now};
use crate::config::ClientConfig;
use crate::error::{Class, Error, ErrorKind, Result};
use crate::log_throttle::LogThrottle;
use crate::tasks::Tasks;
use crate::types::BrokerId;
use crate::wire::codec;
use crate::wire::versions::{Features, Versions};

/// Where a broker is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint {
    /// Negative for addresses from `bootstrap.servers`, whose broker is not known yet.
    pub(crate) id: BrokerId,
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
}

/// All connections of a client.
pub(crate) struct Pool {
    config: Arc<ClientConfig>,
    clock: Clock,
    tasks: Tasks,
    connector: Arc<dyn Connector>,
    client_id: StrBytes,
    brokers: Mutex<BTreeMap<BrokerId, Arc<Broker>>>,
    traffic: Arc<Traffic>,
    /// Owners so far.
    owners: AtomicU64,
    /// The newest that a broker told.
    features: Mutex<Features>,
}

/// One broker at one address, and the links to it.
struct Broker {
    endpoint: Endpoint,
    /// In an order, so that the simulation closes them in the same one every time.
    links: Mutex<BTreeMap<(Lane, Owner), Arc<PoolEntry>>>,
    reach: Mutex<Reach>,
    /// Told when an attempt to reach a broker that could not be reached has ended.
    tried: Notify,
    failures: LogThrottle,
    losses: Arc<LogThrottle>,
    /// What it offered on the last connection.
    offered: Mutex<Option<Versions>>,
}

/// Whether the broker can be reached.
struct Reach {
    backoff: Backoff,
    /// Why it could not be reached last, and when it may be tried again.
    failure: Option<(Error, Instant)>,
    /// Attempts that have ended.
    tries: u64,
    /// An attempt is under way although the last one failed: all others wait for it.
    trying: bool,
    /// The broker is elsewhere: an attempt under way is in vain.
    left: bool,
}

/// The way to one broker on one lane for one owner.
struct PoolEntry {
    lane: Lane,
    state: Mutex<State>,
    /// Told after every attempt.
    attempted: Notify,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    /// On lanes whose user drives: until the user takes it.
    driver: Option<Driver>,
    connecting: bool,
    /// Attempts that have ended, and why the last one failed.
    attempts: u64,
    failure: Option<Error>,
    /// Not before then: a broker that accepts and hangs up at once is not asked in a tight loop.
    retry_at: Option<Instant>,
}

impl Pool {
    pub(crate) fn new(
        config: Arc<ClientConfig>,
        clock: Clock,
        tasks: Tasks,
        connector: Arc<dyn Connector>,
    ) -> Arc<Self> {
        let client_id = StrBytes::from_string(config.client_id.clone());
        Arc::new(Self {
            traffic: Traffic::new(&config.client_id),
            config,
            clock,
            tasks,
            connector,
            client_id,
            brokers: Mutex::default(),
            owners: AtomicU64::new(0),
            features: Mutex::new(Features::UNKNOWN),
        })
    }

    /// What the cluster has switched on, as the newest connection or an earlier one was told.
    pub(crate) fn features(&self) -> Features {
        *self.features.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, told: Features) {
        let mut known = self.features.lock().unwrap_or_else(PoisonError::into_inner);
        if told.epoch > known.epoch {
            *known = told;
        }
    }

    /// A number for a role, under which it has connections of its own until
    /// [`retire`](Self::retire).
    pub(crate) fn new_owner(&self) -> Owner {
        Owner(1 + self.owners.fetch_add(1, Ordering::Relaxed))
    }

    /// Closes, once answered, the links of a role that has ended. Those that it drives end when it
    /// drops their drivers.
    pub(crate) fn retire(&self, owner: Owner) {
        for broker in self.brokers().values() {
            broker.links().retain(|(lane, of), door| {
                let kept = *of != owner;
                if !kept
                    && !lane.is_driven_by_user()
                    && let Some(link) = &door.state().link
                {
                    link.close();
                }
                kept
            });
        }
    }

    /// An open link, or the outcome of one attempt to open it, made after the back-off that earlier
    /// failures ask for. Cancel safe: the attempt goes on for the next who asks.
    pub(crate) async fn link(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        lane: Lane,
        owner: Owner,
        deadline: Instant,
    ) -> Result<Link> {
        let (link, _) = self.door_to(endpoint, lane, owner, deadline).await?;
        Ok(link)
    }

    async fn door_to(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        lane: Lane,
        owner: Owner,
        deadline: Instant,
    ) -> Result<(Link, Arc<PoolEntry>)> {
        let broker = self.broker(endpoint);
        let door = &broker.door(lane, owner);
        let attempts = match self.try_open(&broker, door)? {
            Ok(link) => return Ok((link, Arc::clone(door))),
            Err(attempts) => attempts,
        };
        loop {
            let mut attempted = pin!(door.attempted.notified());
            attempted.as_mut().enable();
            {
                let state = door.state();
                if let Some(link) = state.link.as_ref().filter(|link| link.is_open()) {
                    return Ok((link.clone(), Arc::clone(door)));
                }
                if state.attempts > attempts {
                    return Err(state.failure.clone().unwrap_or_else(|| {
                        broker.peer().name(Error::new(
                            ErrorKind::Connection,
                            "the connection ended as soon as it was made",
                        ))
                    }));
                }
            }
            let over = tokio::select! {
                biased;
                // The attempt ended with the tasks and tells nobody.
                () = self.tasks.stopped() => {
                    return Err(self.tasks.failure().unwrap_or_else(closed));
                }
                told = timeout_at(deadline, attempted) => told.is_err(),
            };
            if over {
                let failure = broker.reach().failure.clone();
                let error = Error::new(ErrorKind::Timeout, "no connection within the deadline");
                let error = broker.peer().name(error);
                return Err(match failure {
                    Some((failure, _)) => error.context(failure.to_string()).with_source(failure),
                    None => error,
                });
            }
        }
    }

    /// As [`link`](Self::link), with the driver, for a lane whose user drives. Whoever asks has let
    /// go of the last one: a connection whose driver was dropped is closed.
    pub(crate) async fn driven_link(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        lane: Lane,
        owner: Owner,
        deadline: Instant,
    ) -> Result<(Link, Driver)> {
        debug_assert!(lane.is_driven_by_user());
        let (link, door) = self.door_to(endpoint, lane, owner, deadline).await?;
        let driver = door.state().driver.take();
        let taken = || Error::new(ErrorKind::Connection, "another task uses this connection");
        Ok((link, driver.ok_or_else(taken)?))
    }

    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Whether there is an open link already.
    pub(crate) fn is_connected(&self, id: BrokerId, lane: Lane, owner: Owner) -> bool {
        let Some(broker) = self.brokers().get(&id).cloned() else {
            return false;
        };
        let door = broker.links().get(&(lane, owner)).cloned();
        door.is_some_and(|door| door.state().link.as_ref().is_some_and(Link::is_open))
    }

    /// When the broker may be tried again, if the last attempt to reach it failed.
    pub(crate) fn retry_at(&self, id: BrokerId) -> Option<Instant> {
        let broker = self.brokers().get(&id).cloned()?;
        let reach = broker.reach();
        reach.failure.as_ref().map(|(_, at)| *at)
    }

    /// Closes, once answered, the links to brokers that are not among these.
    pub(crate) fn retain(&self, keep: impl Fn(BrokerId) -> bool) {
        self.brokers().retain(|id, broker| {
            let kept = keep(*id);
            if !kept {
                broker.leave(true);
            }
            kept
        });
    }

    /// Closes, once answered, the links to a broker that lead elsewhere than where it is, those
    /// being made included. Who holds one asks for another then.
    pub(crate) fn moved(&self, to: &Endpoint) {
        if let Some(broker) = self.brokers().get(&to.id) {
            broker.leave(broker.endpoint != *to);
        }
    }

    fn brokers(&self) -> MutexGuard<'_, BTreeMap<BrokerId, Arc<Broker>>> {
        self.brokers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The broker, a new one if it moved to another address.
    fn broker(&self, endpoint: &Endpoint) -> Arc<Broker> {
        let mut brokers = self.brokers();
        if let Some(broker) = brokers.get(&endpoint.id) {
            if broker.endpoint == *endpoint {
                return Arc::clone(broker);
            }
            broker.leave(true);
        }
        let config = &self.config;
        let broker = Arc::new(Broker {
            endpoint: endpoint.clone(),
            links: Mutex::default(),
            reach: Mutex::new(Reach {
                backoff: Backoff::new(config.reconnect_backoff, config.reconnect_backoff_max),
                failure: None,
                tries: 0,
                trying: false,
                left: false,
            }),
            tried: Notify::new(),
            failures: LogThrottle::default(),
            losses: Arc::default(),
            offered: Mutex::default(),
        });
        brokers.insert(endpoint.id, Arc::clone(&broker));
        broker
    }

    /// The open link, or the number of attempts made so far, with another one under way.
    fn try_open(
        self: &Arc<Self>,
        broker: &Arc<Broker>,
        door: &Arc<PoolEntry>,
    ) -> Result<Result<Link, u64>> {
        if self.tasks.is_stopping() {
            return Err(self.tasks.failure().unwrap_or_else(closed));
        }
        let mut state = door.state();
        if let Some(link) = state.link.as_ref().filter(|link| link.is_open()) {
            return Ok(Ok(link.clone()));
        }
        if !state.connecting {
            state.connecting = true;
            let (pool, broker) = (Arc::clone(self), Arc::clone(broker));
            let door = Arc::clone(door);
            self.tasks
                .spawn("connect", async move { pool.attempt(&broker, &door).await });
        }
        Ok(Err(state.attempts))
    }

    /// One attempt, after the back-off.
    async fn attempt(&self, broker: &Broker, door: &PoolEntry) {
        let retry_at = door.state().retry_at;
        if let Some(at) = retry_at {
            tokio::time::sleep_until(at).await;
        }
        let opened = match broker.turn().await {
            Turn::Try { alone } => self.try_once(broker, door, alone).await,
            Turn::Failed(error) => Err(error),
        };
        // A role that has ended took its door away: nobody would ever close the link.
        let opened = opened.inspect(|(link, _)| {
            if !broker.has(door) {
                link.close();
            }
        });
        let opened = opened.map(|(link, driver)| {
            let kept = match door.lane.is_driven_by_user() {
                true => Some(driver),
                false => {
                    self.tasks.spawn("link", driver);
                    None
                }
            };
            (link, kept)
        });
        let mut state = door.state();
        state.connecting = false;
        state.attempts += 1;
        state.retry_at = opened
            .is_ok()
            .then(|| now() + self.config.reconnect_backoff);
        state.failure = opened.as_ref().err().cloned();
        (state.link, state.driver) = match opened {
            Ok((link, driver)) => (Some(link), driver),
            Err(_) => (None, None),
        };
        drop(state);
        door.attempted.notify_waiters();
    }

    async fn try_once(
        &self,
        broker: &Broker,
        door: &PoolEntry,
        alone: bool,
    ) -> Result<(Link, Driver)> {
        let failures = broker.reach().backoff.failures();
        let setup = self.setup_timeout(failures);
        let opened = self.open(broker, door.lane, now() + setup);
        let opened = timeout_at(now() + setup, opened).await.unwrap_or_else(|_| {
            Err(broker.peer().name(Error::new(
                ErrorKind::Connection,
                format!(
                    "the connection was not set up within {} ms (socket.connection.setup.timeout.ms): \
                     the peer accepted it and then said nothing; is it a Kafka listener without TLS?",
                    setup.as_millis()
                ),
            )))
        });
        let mut reach = broker.reach();
        let opened = match opened {
            Ok((link, _)) if reach.left => {
                // Whoever waits would ask the wrong broker, which answers: nothing would ever end
                // this link.
                link.close();
                let message = "the broker has another address now, or left the cluster";
                let error = Error::new(ErrorKind::Connection, message);
                Err(broker.peer().name(error))
            }
            opened => opened,
        };
        reach.tries += 1;
        reach.trying &= !alone;
        match &opened {
            Ok(_) => {
                reach.backoff.succeed();
                reach.failure = None;
            }
            // Attempts that were begun together fail together, which is one failure.
            Err(_) if !alone && reach.failure.is_some() => {}
            Err(error) => {
                let pause = reach.backoff.fail(&self.clock);
                reach.failure = Some((error.clone(), now() + pause));
            }
        }
        drop(reach);
        broker.tried.notify_waiters();
        self.tell(broker, door.lane, opened.as_ref().err());
        opened
    }

    /// A broker that is away is a warning now and then, not one for each attempt.
    fn tell(&self, broker: &Broker, lane: Lane, failure: Option<&Error>) {
        let peer = broker.peer();
        match failure {
            None if broker.failures.reset() => tracing::info!(%peer, ?lane, "connected again"),
            None => tracing::debug!(%peer, ?lane, "connected"),
            Some(error) => {
                self.traffic.not_connected();
                match broker.failures.pass(now()) {
                    Some(untold) => tracing::warn!(%peer, ?lane, %error, untold, "cannot connect"),
                    None => tracing::debug!(%peer, ?lane, %error, "cannot connect"),
                }
            }
        }
    }

    async fn open(&self, broker: &Broker, lane: Lane, deadline: Instant) -> Result<(Link, Driver)> {
        let Endpoint { id, host, port } = &broker.endpoint;
        let peer = broker.peer();
        let mut stream = self
            .connector
            .connect(host, *port, deadline)
            .await
            .map_err(|error| peer.name(error))?;
        let (versions, features) = handshake::negotiate(&mut stream, &peer, &self.client_id)
            .await
            .map_err(|error| match (error.kind(), id.0) {
                // The cluster itself named this address: a broker is there, and the answer was
                // damaged.
                (ErrorKind::Protocol, 0..) => error.with_class(Class::Retriable),
                _ => error,
            })?;
        self.learn(features);
        let mut last = broker
            .offered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let offered = last.replace(versions.clone());
        drop(last);
        let config = LinkConfig {
            broker: *id,
            peer,
            client_id: self.client_id.clone(),
            lane,
            max_frame: self.config.max_control_frame.min(codec::MAX_FRAME),
            request_timeout: self.config.request_timeout,
            max_idle: self.config.connections_max_idle,
            traffic: Arc::clone(&self.traffic),
            confirmed: offered.as_ref() == Some(&versions),
            losses: Arc::clone(&broker.losses),
        };
        Ok(Link::open(stream, versions, config))
    }

    /// Doubles with each failure up to the most (`socket.connection.setup.timeout.max.ms`).
    fn setup_timeout(&self, failures: u32) -> Duration {
        let first = self.config.connection_setup_timeout;
        let most = self.config.connection_setup_timeout_max.max(first);
        first.saturating_mul(1 << failures.min(16)).min(most)
    }
}

/// Whose turn it is to reach a broker.
enum Turn {
    /// Alone if the last attempt failed.
    Try { alone: bool },
    /// Another attempt was made meanwhile and failed.
    Failed(Error),
}

impl Broker {
    fn links(&self) -> MutexGuard<'_, BTreeMap<(Lane, Owner), Arc<PoolEntry>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self) -> MutexGuard<'_, Reach> {
        self.reach.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn door(&self, lane: Lane, owner: Owner) -> Arc<PoolEntry> {
        let mut links = self.links();
        let door = links.entry((lane, owner)).or_insert_with(|| {
            Arc::new(PoolEntry {
                lane,
                state: Mutex::default(),
                attempted: Notify::new(),
            })
        });
        Arc::clone(door)
    }

    /// Whether the door is still one of this broker's.
    fn has(&self, door: &PoolEntry) -> bool {
        self.links()
            .values()
            .any(|known| std::ptr::eq(&**known, door))
    }

    /// Waits until the broker may be tried: at once if it could be reached last. After a failure
    /// one attempt is made when the back-off is over, and its outcome is that of all that wait.
    async fn turn(&self) -> Turn {
        let before = self.reach().tries;
        loop {
            let mut tried = pin!(self.tried.notified());
            tried.as_mut().enable();
            let retry_at = {
                let mut reach = self.reach();
                match &reach.failure {
                    None => return Turn::Try { alone: false },
                    Some((error, _)) if reach.tries > before => return Turn::Failed(error.clone()),
                    Some((_, at)) => {
                        let at = *at;
                        if at <= now() && !std::mem::replace(&mut reach.trying, true) {
                            return Turn::Try { alone: true };
                        }
                        at
                    }
                }
            };
            match retry_at > now() {
                true => tokio::time::sleep_until(retry_at).await,
                false => tried.await,
            }
        }
    }

    /// Says whether the broker is elsewhere; if it is, the links here end once answered.
    fn leave(&self, left: bool) {
        self.reach().left = left;
        if left {
            self.close_links();
        }
    }

    fn close_links(&self) {
        for door in self.links().values() {
            if let Some(link) = &door.state().link {
                link.close();
            }
        }
    }

    fn peer(&self) -> Peer {
        let Endpoint { id, host, port } = &self.endpoint;
        Peer(match id.0 {
            0.. => format!("broker {id} ({host}:{port})"),
            _ => format!("bootstrap server {host}:{port}"),
        })
    }
}

impl PoolEntry {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is said when a closed client is used.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the client is closed")
}
