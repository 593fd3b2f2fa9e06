//! Real Kafka brokers in containers for the tests of `ottla`.
//!
//! ```no_run
//! # async fn example() -> Result<(), ottla_testcontainers::Error> {
//! use ottla_testcontainers::Cluster;
//!
//! let cluster = Cluster::builder().brokers(3).start().await?;
//! cluster.create_topic("orders", 6, 3).await?;
//! let bootstrap = cluster.bootstrap(); // "127.0.0.1:20511,127.0.0.1:20512,127.0.0.1:20513"
//!
//! cluster.broker(2).kill().await?; // SIGKILL
//! cluster.broker(2).start().await?; // same data, same port, ready
//!
//! let groups = cluster.tool("kafka-consumer-groups.sh", &["--list"]).await?;
//! # Ok(()) }
//! ```
//!
//! Every wait has a time-out. A cluster removes its containers and its network when it is dropped,
//! and a watcher process removes them if the test process ends without dropping it (killed, or the
//! cluster kept in a `static`).
//!
//! Without a running Docker every start fails with [`Error::NoDocker`], which names the command
//! that sets one up: a test never passes by being skipped.

mod broker;
mod builder;
mod client;
mod cluster;
mod docker;
mod error;
mod exec;
mod image;
mod probe;
mod reaper;
mod security;
mod version;

pub use broker::Broker;
pub use builder::ClusterBuilder;
pub use client::{JavaClient, JavaClientCommand};
pub use cluster::Cluster;
pub use error::Error;
pub use exec::{Output, ToolCommand};
pub use security::{Credentials, Listener, Mechanism, Pki, unsecured_token};
pub use version::KafkaVersion;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;
