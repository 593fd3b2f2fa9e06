//! A Kafka cluster inside the process, for tests and demonstrations.
//!
//! [`MockCluster`] speaks the real protocol, with Kafka's error codes, epochs and offsets: to
//! clients of this crate through memory, and to any client over TCP on the loopback interface. It
//! keeps everything in memory, needs neither Docker nor Java, and starts in no time. What goes
//! wrong in real clusters can be made to go wrong: see [`MockCluster::on`], [`MockCluster::kill`],
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
//! let producer = client.producer().build()?;
//! producer.send(Record::to("orders").with_partition(0).with_value("once")).await?;
//! assert_eq!(mock.records("orders", 0).len(), 1);
//!
//! let mut consumer = client
//!     .consumer("billing")
//!     .subscribe(["orders"])
//!     .offset_reset(OffsetReset::Earliest)
//!     .build()?;
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
//! | a partition gets another leader, a group or a transactional id another coordinator | [`move_leader`](MockCluster::move_leader), [`move_coordinator`](MockCluster::move_coordinator), [`move_transaction_coordinator`](MockCluster::move_transaction_coordinator) |
//! | transactions are done otherwise, their ends take time | [`set_transaction_version`](MockCluster::set_transaction_version), [`marker_delay`](MockClusterBuilder::marker_delay) |
//! | the network is slow, cut in one or both directions, resets connections, forgets them | [`network`](MockCluster::network), then [`NetworkControl`] |
//! | time passes: sessions of groups end | [`advance`](MockCluster::advance) |
//! | records are lost, or deleted by retention; partitions are added | [`truncate`](MockCluster::truncate), [`delete_records`](MockCluster::delete_records), [`add_partitions`](MockCluster::add_partitions) |
//!
//! And what there is to look at: [`records`](MockCluster::records),
//! [`committed_records`](MockCluster::committed_records), [`transaction`](MockCluster::transaction),
//! [`offsets`](MockCluster::offsets), [`leader`](MockCluster::leader),
//! [`topics`](MockCluster::topics), [`group`](MockCluster::group),
//! [`coordinator`](MockCluster::coordinator), [`is_alive`](MockCluster::is_alive),
//! [`requests`](MockCluster::requests), [`RuleHandle::hits`].
//!
//! With [`seed`](MockClusterBuilder::seed) and a runtime of one thread whose clock is paused
//! (`#[tokio::test(start_paused = true)]`), hours of time-outs pass in milliseconds, and every run
//! is the same.
//!
//! It offers what Kafka 4.3 does, or less with [`max_version`](MockClusterBuilder::max_version) and
//! [`without`](MockClusterBuilder::without). Groups speak the classic protocol or that of KIP-848,
//! and migrate between them. What it does not have: access control, quotas, TLS and
//! SASL, compaction and retention, log append time; and Unicode classes such as `\p{L}` in the
//! regular expressions of subscriptions. A request that it does not offer ends the connection, as
//! at a broker, with a line in the log (`tracing`, level `warn`).

mod accept;
mod api;
mod assign;
mod broker;
mod builder;
#[cfg(test)]
mod classic_tests;
mod clients;
mod consumer_protocol;
mod control;
#[cfg(test)]
mod doubt_tests;
mod groups;
mod log;
mod memory;
mod network;
mod requests;
mod rule_builder;
mod rules;
mod sequences;
mod sessions;
mod shared;
mod state;
#[cfg(test)]
mod tests;
mod topic_config;
mod transactions;

use std::fmt;
use std::sync::Arc;

use crate::tasks::Tasks;

pub use self::builder::MockClusterBuilder;
pub use self::control::{MockGroup, MockGroupMember, MockTransaction};
pub use self::memory::NetworkControl;
pub use self::requests::Api;
pub use self::rule_builder::{RuleBuilder, RuleHandle};
pub use self::rules::RequestInfo;
use self::shared::Shared;

/// A Kafka cluster inside the process. Clones are handles to the same cluster; it ends with the
/// last.
///
/// Brokers have the numbers 1, 2, 3 and so on. Must be used within a tokio runtime.
#[derive(Clone)]
pub struct MockCluster {
    pub(crate) shared: Arc<Shared>,
    _end: Arc<StopOnDrop>,
}

struct StopOnDrop(Tasks);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl MockCluster {
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
}

impl fmt::Debug for MockCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockCluster")
            .field("bootstrap", &self.bootstrap())
            .finish_non_exhaustive()
    }
}
