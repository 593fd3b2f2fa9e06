//! Connections and requests of a client.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::clock::{Instant, now};
use crate::metrics::handle::{Counter, Distribution, Labels, Share, describe};
use crate::metrics::histogram::Histogram;
use crate::metrics::table;
use crate::wire::Call;

/// What the connections of a [`Client`](crate::Client) have done since it was built, for everything
/// made from it together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientMetrics {
    /// Connections open now.
    pub connections: u64,
    /// Connections whose versions were negotiated.
    pub connections_made: u64,
    /// Attempts to connect that failed.
    pub connections_failed: u64,
    /// Connections that ended, for whatever reason.
    pub connections_closed: u64,
    /// Bytes of requests, as written to sockets.
    pub sent_bytes: u64,
    /// Bytes of answers, as read from sockets.
    pub received_bytes: u64,
    /// Requests in line or on their way.
    pub requests_in_flight: u64,
    /// Requests by API, those that were used, in the order of Kafka's API keys.
    pub requests: Vec<ApiMetrics>,
}

impl ClientMetrics {
    /// The requests of one API, such as `"Produce"` or `"Fetch"`, if there were any.
    #[must_use]
    pub fn api(&self, name: &str) -> Option<&ApiMetrics> {
        self.requests.iter().find(|api| api.api == name)
    }
}

/// The requests of one API.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApiMetrics {
    /// Kafka's name of the API.
    pub api: &'static str,
    /// Requests that ended, with an answer or without.
    pub requests: u64,
    /// Requests that ended without an answer.
    pub failed: u64,
    /// From a request's place in line to its answer.
    pub latency: Histogram,
    /// How long answers asked this client to be silent, added up (quotas, KIP-219).
    pub throttled: Duration,
}

/// Where the connections and requests of one client are written down.
pub(crate) struct Traffic {
    labels: Labels,
    made: AtomicU64,
    failed: AtomicU64,
    closed: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    in_flight: AtomicU64,
    /// By API key.
    apis: [OnceLock<Box<Api>>; APIS],
    handles: Handles,
}

/// More than there are API keys.
const APIS: usize = 128;

struct Handles {
    connections: Share,
    made: Counter,
    failed: Counter,
    closed: Counter,
    in_flight: Share,
    sent: Counter,
    received: Counter,
}

struct Api {
    metrics: Mutex<ApiMetrics>,
    requests: Counter,
    failed: Counter,
    latency: Distribution,
    throttle: Distribution,
}

/// A request in line or on its way.
pub(crate) struct Ticket {
    traffic: Arc<Traffic>,
    key: i16,
    name: &'static str,
    began: Instant,
}

impl Traffic {
    pub(crate) fn new(client_id: &str) -> Arc<Self> {
        describe();
        let labels = Labels::client(client_id);
        Arc::new(Self {
            made: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            apis: [const { OnceLock::new() }; APIS],
            handles: Handles {
                connections: Share::new(&table::CONNECTIONS, &labels),
                made: Counter::new(&table::CONNECTIONS_MADE, &labels),
                failed: Counter::new(&table::CONNECTIONS_FAILED, &labels),
                closed: Counter::new(&table::CONNECTIONS_CLOSED, &labels),
                in_flight: Share::new(&table::REQUESTS_IN_FLIGHT, &labels),
                sent: Counter::new(&table::BYTES_SENT, &labels),
                received: Counter::new(&table::BYTES_RECEIVED, &labels),
            },
            labels,
        })
    }

    pub(crate) fn connected(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
        self.handles.made.add(1);
        self.handles.connections.change(1);
    }

    pub(crate) fn not_connected(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.handles.failed.add(1);
    }

    pub(crate) fn closed(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
        self.handles.closed.add(1);
        self.handles.connections.change(-1);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.handles.sent.add(bytes as u64);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.handles.received.add(bytes as u64);
    }

    /// A request gets in line.
    pub(crate) fn begin<R: Call>(self: &Arc<Self>) -> Ticket {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.handles.in_flight.change(1);
        Ticket {
            traffic: Arc::clone(self),
            key: R::KEY,
            name: R::NAME,
            began: now(),
        }
    }

    /// An answer asked this client to be silent.
    pub(crate) fn throttled<R: Call>(&self, time: Duration) {
        if let Some(api) = self.api(R::KEY, R::NAME) {
            api.metrics().throttled += time;
            api.throttle.some_time(time);
        }
    }

    fn api(&self, key: i16, name: &'static str) -> Option<&Api> {
        let place = self.apis.get(usize::try_from(key).ok()?)?;
        Some(place.get_or_init(|| {
            let labels = self.labels.with("api", name);
            Box::new(Api {
                metrics: Mutex::new(ApiMetrics {
                    api: name,
                    requests: 0,
                    failed: 0,
                    latency: Histogram::default(),
                    throttled: Duration::ZERO,
                }),
                requests: Counter::new(&table::REQUESTS, &labels),
                failed: Counter::new(&table::REQUESTS_FAILED, &labels),
                latency: Distribution::new(&table::REQUEST_LATENCY, &labels),
                throttle: Distribution::new(&table::THROTTLE, &labels),
            })
        }))
    }

    pub(crate) fn snapshot(&self) -> ClientMetrics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // In this order: a connection counts as made before it can be closed.
        let closed = read(&self.closed);
        let made = read(&self.made);
        let apis = self.apis.iter().filter_map(OnceLock::get);
        ClientMetrics {
            connections: made.saturating_sub(closed),
            connections_made: made,
            connections_failed: read(&self.failed),
            connections_closed: closed,
            sent_bytes: read(&self.sent),
            received_bytes: read(&self.received),
            requests_in_flight: read(&self.in_flight),
            requests: apis.map(|api| api.metrics().clone()).collect(),
        }
    }
}

impl Api {
    fn metrics(&self) -> MutexGuard<'_, ApiMetrics> {
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// The request ended. One that was given up before it was sent is dropped instead.
    pub(crate) fn end(self, answered: bool) {
        let Some(api) = self.traffic.api(self.key, self.name) else {
            return;
        };
        let took = now().saturating_duration_since(self.began);
        let mut metrics = api.metrics();
        metrics.requests += 1;
        if answered {
            metrics.latency.add(took);
        } else {
            metrics.failed += 1;
        }
        drop(metrics);
        api.requests.add(1);
        if answered {
            api.latency.time(took);
        } else {
            api.failed.add(1);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.traffic.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.traffic.handles.in_flight.change(-1);
    }
}

impl fmt::Debug for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traffic").finish_non_exhaustive()
    }
}
