//! A Kafka cluster inside the process, for tests and demonstrations.
//!
//! [`MockCluster`] speaks the real protocol, with Kafka's error codes, epochs and offsets: to clients
//! of this crate through memory, and to any client over TCP on the loopback interface. It keeps
//! everything in memory, needs neither Docker nor Java, and starts in no time. What goes wrong in
//! real clusters can be made to go wrong: see [`MockCluster::on`], [`MockCluster::kill`],
//! [`MockCluster::network`] and [`MockCluster::move_leader`].
//!
//! ```
//! use ottla::mock::{Api, MockCluster};
//! use ottla::{OffsetReset, Record};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> ottla::Result<()> {
//! let mock = MockCluster::builder().brokers(3).topic("orders", 6).start().await?;
//! let client = mock.client();
//!
//! // The first attempt is written, and the connection breaks before the answer.
//! mock.on(Api::Produce).times(1).apply_then_drop();
//! let producer = client.producer().build().await?;
//! producer.send(Record::to("orders").with_partition(0).with_value("once")).await?;
//! assert_eq!(mock.records("orders", 0).len(), 1);
//!
//! let mut consumer = client
//!     .consumer("billing")
//!     .subscribe(["orders"])
//!     .offset_reset(OffsetReset::Earliest)
//!     .build()
//!     .await?;
//! let batches = consumer.poll().await?.expect("the consumer is open");
//! assert_eq!(batches.record_count(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! | what goes wrong | how |
//! |---|---|
//! | requests fail, wait, get lost before or after they were done, are answered with garbage | [`on`](MockCluster::on), [`on_any`](MockCluster::on_any), then an action of [`RuleBuilder`] |
//! | a broker dies, comes back, freezes, goes on | [`kill`](MockCluster::kill), [`restart`](MockCluster::restart), [`pause`](MockCluster::pause), [`resume`](MockCluster::resume) |
//! | a partition gets another leader, a group another coordinator | [`move_leader`](MockCluster::move_leader), [`move_coordinator`](MockCluster::move_coordinator) |
//! | the network is slow, cut in one or both directions, resets connections, forgets them | [`network`](MockCluster::network), then [`NetworkControl`] |
//! | time passes: sessions of groups end | [`advance`](MockCluster::advance) |
//! | records are lost, or deleted by retention; partitions are added | [`truncate`](MockCluster::truncate), [`delete_records`](MockCluster::delete_records), [`add_partitions`](MockCluster::add_partitions) |
//!
//! And what there is to look at: [`records`](MockCluster::records), [`offsets`](MockCluster::offsets),
//! [`leader`](MockCluster::leader), [`topics`](MockCluster::topics), [`group`](MockCluster::group),
//! [`coordinator`](MockCluster::coordinator), [`is_alive`](MockCluster::is_alive),
//! [`requests`](MockCluster::requests), [`RuleHandle::hits`].
//!
//! With [`seed`](MockClusterBuilder::seed) and a runtime of one thread whose clock is paused
//! (`#[tokio::test(start_paused = true)]`), hours of time-outs pass in milliseconds, and every run is
//! the same.
//!
//! It offers what Kafka 4.3 does, or less with [`max_version`](MockClusterBuilder::max_version). What it does
//! not have: classic groups, transactions, access control, quotas, TLS and SASL, compaction and retention,
//! log append time; and Unicode classes such as `\p{L}` in the regular expressions of subscriptions. A request
//! that it does not offer ends the connection, as at a broker, with a line in the log (`tracing`, level `warn`).

mod accept;
mod api;
mod assign;
mod broker;
mod builder;
mod codes;
mod control;
#[cfg(test)]
mod doubt_tests;
mod groups;
mod log;
mod network;
mod requests;
mod rules;
mod sequences;
mod sessions;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::client::{Client, ClientBuilder};
use crate::clock::Clock;
use crate::net::connector::Connector;
use crate::tasks::Tasks;

pub use self::builder::MockClusterBuilder;
pub use self::control::{MockGroup, MockGroupMember};
pub use self::network::NetworkControl;
use self::network::{Memory, Network};
pub use self::requests::Api;
pub use self::rules::{RequestInfo, RuleBuilder, RuleHandle};
use self::state::State;

/// A Kafka cluster inside the process. Clones are handles to the same cluster; it ends with the last.
///
/// Brokers have the numbers 1, 2, 3 and so on. Must be used within a tokio runtime.
#[derive(Clone)]
pub struct MockCluster {
    pub(crate) shared: Arc<Shared>,
    _end: Arc<StopOnDrop>,
}

/// What the cluster's tasks and handles share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Something that somebody may wait for has changed.
    changed: Notify,
    network: Network,
    tasks: Tasks,
    /// The tasks of each broker's present life.
    lives: Mutex<BTreeMap<i32, Tasks>>,
}

struct StopOnDrop(Tasks);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks_of(&self, broker: i32) -> Tasks {
        let mut lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        lives
            .entry(broker)
            .or_insert_with(|| self.tasks.child())
            .clone()
    }
}

impl MockCluster {
    /// Starts the description of a cluster: one broker, topics made by whoever uses them.
    pub fn builder() -> MockClusterBuilder {
        MockClusterBuilder::new()
    }

    /// The addresses of the brokers on TCP, as `bootstrap.servers` takes them. Empty if the cluster
    /// is [in memory only](MockClusterBuilder::in_memory).
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let state = self.shared.state();
        let addresses = state
            .brokers
            .values()
            .filter_map(|broker| broker.tcp.as_ref());
        let addresses: Vec<String> = addresses
            .map(|(host, port)| format!("{host}:{port}"))
            .collect();
        addresses.join(",")
    }

    /// A client of this cluster with default settings, connected through memory.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// let mock = ottla::mock::MockCluster::builder().start().await?;
    /// let producer = mock.client().producer().build().await?;
    /// producer.send(ottla::Record::to("new").with_value("v")).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn client(&self) -> Client {
        let (builder, connector, clock) = self.parts(self.next_name());
        // Like any client it is the runtime's on which it is built, if it is built on one.
        let tasks = Tasks::new().unwrap_or_else(|_| self.shared.tasks.apart());
        builder.assemble_on(connector, clock, tasks)
    }

    /// Settings of a client of this cluster, to be connected through memory.
    pub fn client_builder(&self) -> ClientBuilder {
        self.named_client_builder(self.next_name())
    }

    /// The same under a name by which the client's part of the [network](Self::network) is found.
    pub fn named_client_builder(&self, name: impl Into<String>) -> ClientBuilder {
        let (builder, connector, clock) = self.parts(name.into());
        builder.transport(connector, clock)
    }

    fn next_name(&self) -> String {
        let mut state = self.shared.state();
        state.clients += 1;
        format!("client-{}", state.clients)
    }

    fn parts(&self, name: String) -> (ClientBuilder, Arc<dyn Connector>, Clock) {
        let state = self.shared.state();
        let brokers = || state.brokers.keys().copied();
        self.shared.network.add_client(&name, brokers());
        let address = |id| format!("{}:{}", state::memory_host(id), state::MEMORY_PORT);
        let builder = Client::builder()
            .bootstrap(brokers().map(address))
            .client_id(name.as_str());
        let memory = Memory {
            shared: Arc::clone(&self.shared),
            client: name,
        };
        (builder, Arc::new(memory), state.clock.clone())
    }

    /// Starts a rule about requests of a kind.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// use ottla::mock::{Api, MockCluster};
    ///
    /// const NOT_ENOUGH_REPLICAS: i16 = 19;
    /// let mock = MockCluster::builder().topic("orders", 1).start().await?;
    /// let rule = mock.on(Api::Produce).broker(1).times(2).fail(NOT_ENOUGH_REPLICAS);
    /// let producer = mock.client().producer().build().await?;
    /// producer.send(ottla::Record::to("orders").with_value("v")).await?;
    /// assert_eq!(rule.hits(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn on(&self, api: Api) -> RuleBuilder<'_> {
        RuleBuilder::new(self, Some(api))
    }

    /// Starts a rule about requests of every kind.
    pub fn on_any(&self) -> RuleBuilder<'_> {
        RuleBuilder::new(self, None)
    }

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

impl fmt::Debug for MockCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockCluster")
            .field("bootstrap", &self.bootstrap())
            .finish_non_exhaustive()
    }
}
