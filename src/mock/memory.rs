//! The in-memory network between clients and brokers: latency, cuts, resets, half-open connections.
//!
//! Bytes of a connection come in order, as TCP's do; what is under way while a direction is cut
//! arrives once it heals. Delays are drawn from the cluster's own generator, so that a seed
//! decides.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::time::{sleep, sleep_until, timeout_at};

use super::MockCluster;
use super::accept::serve;
use super::broker::At;
use super::network::{Edge, Ends};
use super::shared::Shared;
use super::state::{Listener, memory_host};
use crate::clock::{Instant, now};
use crate::error::{Error, ErrorKind, Result};
use crate::net::connector::{BoxStream, Connecting, Connector};

/// What a connection holds in each direction and buffer.
const ROOM: usize = 256 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToBroker,
    ToClient,
}

impl MockCluster {
    /// The in-memory network between clients and brokers.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// use std::time::Duration;
    ///
    /// let mock = ottla::mock::MockCluster::builder().brokers(3).start().await?;
    /// let client = mock.named_client_builder("east").build()?;
    /// mock.network().client("east").delay(Duration::from_millis(20), Duration::from_millis(40));
    /// mock.network().client("east").broker(2).cut();
    /// mock.network().heal();
    /// # Ok(())
    /// # }
    /// ```
    pub fn network(&self) -> NetworkControl {
        NetworkControl::new(Arc::clone(&self.shared))
    }
}

/// Part of the in-memory network, by [`MockCluster::network`](super::MockCluster::network);
/// narrowed by client and broker, and then changed. Clients that come over TCP are not affected.
#[must_use = "it does nothing until `cut`, `heal`, `delay`, `damage_answers`, `damage_requests`, `reset` or `strand`"]
#[derive(Clone)]
pub struct NetworkControl {
    shared: Arc<Shared>,
    client: Option<String>,
    broker: Option<i32>,
}

impl NetworkControl {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            client: None,
            broker: None,
        }
    }

    /// Only connections of the client that was made under this name.
    pub fn client(mut self, name: impl Into<String>) -> Self {
        self.client = Some(name.into());
        self
    }

    /// Only connections to this broker.
    pub fn broker(mut self, broker: i32) -> Self {
        self.broker = Some(broker);
        self
    }

    /// Nothing gets through any more, in either direction; connections stay open.
    pub fn cut(&self) {
        self.change(|edge| (edge.cut_to_broker, edge.cut_to_client) = (true, true));
    }

    /// Requests get through and answers do not.
    pub fn cut_answers(&self) {
        self.change(|edge| edge.cut_to_client = true);
    }

    /// Requests do not get through, answers to earlier ones do.
    pub fn cut_requests(&self) {
        self.change(|edge| edge.cut_to_broker = true);
    }

    /// Everything gets through again, what was held back included.
    pub fn heal(&self) {
        self.change(|edge| (edge.cut_to_broker, edge.cut_to_client) = (false, false));
    }

    /// How long bytes are under way in one direction: somewhere between the two. Default: no time.
    pub fn delay(&self, least: Duration, most: Duration) {
        self.change(|edge| edge.delay = (least, most));
    }

    /// Flips one bit in about so many bytes of answers, wherever it falls, as a broken network card
    /// or proxy does that TCP's checksum does not catch. 0 ends it. Default: none.
    pub fn damage_answers(&self, bytes: usize) {
        self.change(|edge| edge.damage_to_client = bytes);
    }

    /// The same for requests. The cluster does what it reads, as a broker does: it may hear of
    /// topics, groups and members that nobody meant, and what it cannot read ends the connection.
    pub fn damage_requests(&self, bytes: usize) {
        self.change(|edge| edge.damage_to_broker = bytes);
    }

    /// How many bits were flipped so far.
    #[must_use]
    pub fn flipped(&self) -> u64 {
        let edges = self.shared.network.edges();
        let chosen = edges.iter().filter(|(ends, _)| self.is_about(ends));
        chosen.map(|(_, edge)| edge.flipped).sum()
    }

    /// Ends the present connections without letting anything through that is under way.
    pub fn reset(&self) {
        self.change(|edge| {
            edge.generation += 1;
            edge.reset = edge.generation;
        });
    }

    /// Lets the present connections carry nothing any more while both ends think that they are
    /// open, as when a machine is gone without a word or a firewall forgot them (half-open). New
    /// connections work, and [`heal`](Self::heal) does not mend it.
    pub fn strand(&self) {
        self.change(|edge| {
            edge.generation += 1;
            edge.stranded = edge.generation;
        });
    }

    fn change(&self, change: impl Fn(&mut Edge)) {
        let network = &self.shared.network;
        for (ends, edge) in network.edges().iter_mut() {
            if self.is_about(ends) {
                change(edge);
            }
        }
        network.changed.notify_waiters();
    }

    fn is_about(&self, (client, broker): &Ends) -> bool {
        self.client.as_ref().is_none_or(|name| name == client)
            && self.broker.is_none_or(|id| id == *broker)
    }
}

impl fmt::Debug for NetworkControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkControl")
            .field("client", &self.client)
            .field("broker", &self.broker)
            .finish_non_exhaustive()
    }
}

/// One client's way into the network.
pub(super) struct Memory {
    pub(super) shared: Arc<Shared>,
    pub(super) client: String,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({})", self.client)
    }
}

impl Connector for Memory {
    fn connect<'a>(&'a self, host: &'a str, _: u16, deadline: Instant) -> Connecting<'a> {
        Box::pin(async move {
            let broker = host.strip_prefix("mock-").and_then(|id| id.parse().ok());
            let known = broker.filter(|id| memory_host(*id) == host);
            let Some(broker) = known.filter(|id| self.shared.state().brokers.contains_key(id))
            else {
                return Err(failure(host, "there is no such broker in the mock cluster"));
            };
            let ends = (self.client.clone(), broker);
            match timeout_at(deadline, self.reach(&ends)).await {
                Ok(()) => self.open(&ends),
                Err(_) => Err(failure(host, "no answer in time")),
            }
        })
    }
}

impl Memory {
    /// One round trip, once both ways are open.
    async fn reach(&self, ends: &Ends) {
        let network = &self.shared.network;
        loop {
            let changed = network.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let edge = network.edge(ends);
            if !edge.cut_to_broker && !edge.cut_to_client {
                sleep(network.delay(&edge) + network.delay(&edge)).await;
                return;
            }
            changed.await;
        }
    }

    fn open(&self, ends: &Ends) -> Result<BoxStream> {
        let life = match self.shared.state().brokers.get(&ends.1) {
            Some(broker) if broker.alive => broker.life,
            _ => return Err(failure(&memory_host(ends.1), "connection refused")),
        };
        let at = At {
            broker: ends.1,
            life,
            listener: Listener::Memory,
        };
        let (client_end, client_far) = duplex(ROOM);
        let (broker_far, broker_end) = duplex(ROOM);
        let shared = &self.shared;
        let generation = shared.network.edge(ends).generation;
        let (from_client, to_client) = split(client_far);
        let (from_broker, to_broker) = split(broker_far);
        let pump = |direction, from, to| Pump {
            shared: Arc::clone(shared),
            ends: ends.clone(),
            generation,
            direction,
            from,
            to,
        };
        let there = pump(Direction::ToBroker, from_client, to_broker);
        let back = pump(Direction::ToClient, from_broker, to_client);
        shared.tasks.spawn("mock network", there.run());
        shared.tasks.spawn("mock network", back.run());
        let broker = shared.tasks_of(at.broker);
        broker.spawn("mock connection", serve(Arc::clone(shared), at, broker_end));
        Ok(Box::new(client_end))
    }
}

fn failure(host: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::Connection,
        format!("cannot connect to {host}: {why}"),
    )
}

/// Carries the bytes of one direction of one connection.
struct Pump {
    shared: Arc<Shared>,
    ends: Ends,
    generation: u64,
    direction: Direction,
    from: ReadHalf<DuplexStream>,
    to: WriteHalf<DuplexStream>,
}

impl Pump {
    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let network = &shared.network;
        // What is under way; an empty piece is the end of the stream.
        let mut queue: VecDeque<(Instant, Bytes)> = VecDeque::new();
        let mut ended = false;
        let mut last = now();
        let mut buf = BytesMut::new();
        loop {
            let changed = network.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let edge = network.edge(&self.ends);
            if self.generation < edge.reset {
                return;
            }
            if self.generation < edge.stranded {
                match self.swallow(changed).await {
                    true => continue,
                    false => return,
                }
            }
            let cut = match self.direction {
                Direction::ToBroker => edge.cut_to_broker,
                Direction::ToClient => edge.cut_to_client,
            };
            let room = queue.len() < 64 && !ended;
            let due = queue.front().map_or_else(now, |front| front.0);
            buf.reserve(16 << 10);
            tokio::select! {
                biased;
                () = &mut changed => {}
                () = sleep_until(due), if !cut && !queue.is_empty() => {
                    let Some((_, bytes)) = queue.pop_front() else { continue };
                    if bytes.is_empty() {
                        let _ = self.to.shutdown().await;
                        return;
                    }
                    if self.to.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                read = self.from.read_buf(&mut buf), if room => {
                    ended = matches!(read, Ok(0) | Err(_));
                    let damage = match self.direction {
                        Direction::ToBroker => edge.damage_to_broker,
                        Direction::ToClient => edge.damage_to_client,
                    };
                    network.damage(&self.ends, damage, &mut buf);
                    last = last.max(now() + network.delay(&edge));
                    queue.push_back((last, buf.split().freeze()));
                }
            }
        }
    }

    /// Takes what comes and drops it, until this end is closed or there is something new to look
    /// at.
    async fn swallow(&mut self, changed: impl Future<Output = ()>) -> bool {
        tokio::pin!(changed);
        let mut buf = [0; 1024];
        loop {
            tokio::select! {
                biased;
                () = &mut changed => return true,
                read = self.from.read(&mut buf) => match read {
                    Ok(0) | Err(_) => return false,
                    Ok(_) => {}
                },
            }
        }
    }
}
