//! Links by broker and lane: opened when first asked for, again after they end, with back-off.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kafka_protocol::protocol::StrBytes;
use tokio::sync::Notify;
use tokio::time::timeout_at;

use super::Lane;
use super::backoff::Backoff;
use super::connector::Connector;
use super::frame::Peer;
use super::handshake::{self, Offers};
use super::link::{Link, LinkConfig};
use crate::clock::{Clock, Instant, now};
use crate::config::ClientConfig;
use crate::error::{Class, Error, ErrorKind, Result};
use crate::metrics::client::Traffic;
use crate::quiet::Gate;
use crate::tasks::Tasks;
use crate::types::BrokerId;
use crate::wire::codec;

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
    doors: Mutex<HashMap<(BrokerId, Lane), Arc<Door>>>,
    offers: Offers,
    traffic: Arc<Traffic>,
}

/// The way to one broker on one lane.
struct Door {
    endpoint: Endpoint,
    lane: Lane,
    state: Mutex<State>,
    /// Told after every attempt.
    attempted: Notify,
    failures: Gate,
    losses: Arc<Gate>,
}

struct State {
    link: Option<Link>,
    connecting: bool,
    /// Attempts that have ended, and how the last one did.
    attempts: u64,
    failure: Option<Error>,
    backoff: Backoff,
    retry_at: Option<Instant>,
    /// The broker is elsewhere: an attempt under way is in vain.
    left: bool,
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
            doors: Mutex::default(),
            offers: Offers::default(),
        })
    }

    /// An open link, or the outcome of one attempt to open it, made after the back-off that earlier
    /// failures ask for. Cancel safe: the attempt goes on for the next who asks.
    pub(crate) async fn link(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        lane: Lane,
        deadline: Instant,
    ) -> Result<Link> {
        let door = self.door(endpoint, lane);
        let attempts = match self.try_open(&door)? {
            Ok(link) => return Ok(link),
            Err(attempts) => attempts,
        };
        loop {
            let mut attempted = pin!(door.attempted.notified());
            attempted.as_mut().enable();
            {
                let state = door.state();
                if let Some(link) = state.link.as_ref().filter(|link| link.is_open()) {
                    return Ok(link.clone());
                }
                if state.attempts > attempts {
                    return Err(state.failure.clone().unwrap_or_else(|| {
                        door.peer().name(Error::new(
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
                let failure = door.state().failure.clone();
                let error = Error::new(ErrorKind::Timeout, "no connection within the deadline");
                let error = door.peer().name(error);
                return Err(match failure {
                    Some(failure) => error.context(failure.to_string()).with_source(failure),
                    None => error,
                });
            }
        }
    }

    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// An open link if there is one already.
    pub(crate) fn existing(&self, id: BrokerId, lane: Lane) -> Option<Link> {
        let door = Arc::clone(self.doors().get(&(id, lane))?);
        let link = door.state().link.clone();
        link.filter(Link::is_open)
    }

    /// When the broker may be tried again, if its last attempt failed.
    pub(crate) fn retry_at(&self, id: BrokerId, lane: Lane) -> Option<Instant> {
        let door = Arc::clone(self.doors().get(&(id, lane))?);
        let state = door.state();
        state.failure.as_ref().and(state.retry_at)
    }

    /// Closes, once answered, the links to brokers that are not among these.
    pub(crate) fn retain(&self, keep: impl Fn(BrokerId) -> bool) {
        self.doors().retain(|(id, _), door| {
            let kept = keep(*id);
            if !kept && let Some(link) = &door.state().link {
                link.close();
            }
            kept
        });
    }

    /// Closes, once answered, the links to a broker that lead elsewhere than where it is, those being made included. Who
    /// holds one asks for another then.
    pub(crate) fn moved(&self, to: &Endpoint) {
        for door in self.doors().values() {
            if door.endpoint.id == to.id {
                door.leave(door.endpoint != *to);
            }
        }
    }

    fn doors(&self) -> MutexGuard<'_, HashMap<(BrokerId, Lane), Arc<Door>>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The door, a new one if the broker moved to another address.
    fn door(&self, endpoint: &Endpoint, lane: Lane) -> Arc<Door> {
        let mut doors = self.doors();
        if let Some(door) = doors.get(&(endpoint.id, lane)) {
            if door.endpoint == *endpoint {
                return Arc::clone(door);
            }
            door.leave(true);
        }
        let door = Arc::new(Door {
            endpoint: endpoint.clone(),
            lane,
            state: Mutex::new(State {
                link: None,
                connecting: false,
                attempts: 0,
                failure: None,
                backoff: Backoff::new(
                    self.config.reconnect_backoff,
                    self.config.reconnect_backoff_max,
                ),
                retry_at: None,
                left: false,
            }),
            attempted: Notify::new(),
            failures: Gate::default(),
            losses: Arc::default(),
        });
        doors.insert((endpoint.id, lane), Arc::clone(&door));
        door
    }

    /// The open link, or the number of attempts made so far, with another one under way.
    fn try_open(self: &Arc<Self>, door: &Arc<Door>) -> Result<Result<Link, u64>> {
        if self.tasks.is_stopping() {
            return Err(self.tasks.failure().unwrap_or_else(closed));
        }
        let mut state = door.state();
        if let Some(link) = state.link.as_ref().filter(|link| link.is_open()) {
            return Ok(Ok(link.clone()));
        }
        if !state.connecting {
            state.connecting = true;
            let pool = Arc::clone(self);
            let opening = Arc::clone(door);
            self.tasks
                .spawn("connect", async move { pool.attempt(&opening).await });
        }
        Ok(Err(state.attempts))
    }

    /// One attempt, after the back-off.
    async fn attempt(&self, door: &Door) {
        let retry_at = door.state().retry_at;
        if let Some(at) = retry_at {
            tokio::time::sleep_until(at).await;
        }
        let failures = door.state().backoff.failures();
        let setup = self.setup_timeout(failures);
        let opened = match timeout_at(now() + setup, self.open(door, now() + setup)).await {
            Ok(opened) => opened,
            Err(_) => Err(door.peer().name(Error::new(
                ErrorKind::Connection,
                format!(
                    "the connection was not set up within {} ms (socket.connection.setup.timeout.ms): \
                     the peer accepted it and then said nothing; is it a Kafka listener without TLS?",
                    setup.as_millis()
                ),
            ))),
        };
        let mut state = door.state();
        let opened = match opened {
            Ok(link) if state.left => {
                // Whoever waits would ask the wrong broker, which answers: nothing would ever end this link.
                link.close();
                let error = Error::new(ErrorKind::Connection, "the broker has another address now");
                Err(door.peer().name(error))
            }
            opened => opened,
        };
        state.connecting = false;
        state.attempts += 1;
        match &opened {
            Ok(link) => {
                state.backoff.succeed();
                state.failure = None;
                state.link = Some(link.clone());
                // A broker that accepts and hangs up at once must not be asked in a tight loop.
                state.retry_at = Some(now() + self.config.reconnect_backoff);
            }
            Err(error) => {
                state.failure = Some(error.clone());
                state.link = None;
                state.retry_at = Some(now() + state.backoff.fail(&self.clock));
            }
        }
        drop(state);
        self.tell(door, &opened);
        door.attempted.notify_waiters();
    }

    /// A broker that is away is a warning now and then, not one for each attempt.
    fn tell(&self, door: &Door, opened: &Result<Link>) {
        let (peer, lane) = (door.peer(), door.lane);
        match opened {
            Ok(_) if door.failures.reset() => tracing::info!(%peer, ?lane, "connected again"),
            Ok(_) => tracing::debug!(%peer, ?lane, "connected"),
            Err(error) => {
                self.traffic.not_connected();
                match door.failures.pass(now()) {
                    Some(untold) => tracing::warn!(%peer, ?lane, %error, untold, "cannot connect"),
                    None => tracing::debug!(%peer, ?lane, %error, "cannot connect"),
                }
            }
        }
    }

    async fn open(&self, door: &Door, deadline: Instant) -> Result<Link> {
        let Endpoint { id, host, port } = &door.endpoint;
        let peer = door.peer();
        let mut stream = self
            .connector
            .connect(host, *port, deadline)
            .await
            .map_err(|error| peer.name(error))?;
        let versions = handshake::negotiate(&mut stream, &peer, &self.client_id, &self.offers)
            .await
            .map_err(|error| match (error.kind(), id.0) {
                // The cluster itself named this address: a broker is there, and the answer was damaged.
                (ErrorKind::Protocol, 0..) => error.with_class(Class::Retriable),
                _ => error,
            })?;
        let max_frame = match door.lane {
            // Its size is bounded by what each request asks for.
            Lane::Fetch => codec::MAX_FRAME,
            _ => self.config.max_control_frame.min(codec::MAX_FRAME),
        };
        let config = LinkConfig {
            broker: *id,
            peer,
            client_id: self.client_id.clone(),
            max_frame,
            max_idle: self.config.connections_max_idle,
            max_mute: self.config.request_timeout,
            traffic: Arc::clone(&self.traffic),
            losses: Arc::clone(&door.losses),
        };
        let (link, task) = Link::open(stream, versions, config);
        self.tasks.spawn("link", task);
        Ok(link)
    }

    /// Doubles with each failure up to the most (`socket.connection.setup.timeout.max.ms`).
    fn setup_timeout(&self, failures: u32) -> Duration {
        let first = self.config.connection_setup_timeout;
        let most = self.config.connection_setup_timeout_max.max(first);
        first.saturating_mul(1 << failures.min(16)).min(most)
    }
}

impl Door {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether the broker is elsewhere; if it is, the link here ends once answered.
    fn leave(&self, left: bool) {
        let mut state = self.state();
        state.left = left;
        if let Some(link) = state.link.as_ref().filter(|_| left) {
            link.close();
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

/// What is said when a closed client is used.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the client is closed")
}
