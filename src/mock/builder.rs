//! The description of a cluster, and its start.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::api::topics::is_valid_name;
use super::network::Network;
use super::requests::Api;
use super::shared::Shared;
use super::state::{Defaults, State};
use super::{MockCluster, StopOnDrop};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::tasks::Tasks;

/// More brokers than this no mock needs.
const MOST_BROKERS: i32 = 100;

/// A description of a [`MockCluster`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `start`"]
pub struct MockClusterBuilder {
    brokers: i32,
    topics: Vec<(String, i32, BTreeMap<String, String>)>,
    defaults: Defaults,
    tcp: Option<(String, u16)>,
    seed: Option<u64>,
    highest: BTreeMap<Api, Option<i16>>,
    transaction_version: i16,
}

impl MockCluster {
    /// Starts the description of a cluster: one broker, topics made by whoever uses them.
    pub fn builder() -> MockClusterBuilder {
        MockClusterBuilder::new()
    }
}

impl MockClusterBuilder {
    pub(super) fn new() -> Self {
        Self {
            brokers: 1,
            topics: Vec::new(),
            defaults: Defaults {
                auto_create: true,
                partitions: 1,
                replication: -1,
                session_timeout: Duration::from_secs(45),
                heartbeat_interval: Duration::from_secs(5),
                initial_rebalance_delay: Duration::ZERO,
                group_max_size: usize::MAX,
                classic_sessions: (Duration::from_secs(6), Duration::from_secs(30 * 60)),
                migration: (true, true),
                transaction_max_timeout: Duration::from_secs(15 * 60),
                marker_delay: Duration::ZERO,
            },
            transaction_version: 2,
            tcp: Some(("127.0.0.1".to_owned(), 0)),
            seed: None,
            highest: BTreeMap::new(),
        }
    }

    /// How many brokers there are. Default: 1.
    pub fn brokers(mut self, brokers: u8) -> Self {
        self.brokers = brokers.into();
        self
    }

    /// A topic that is there from the start.
    pub fn topic(self, name: impl Into<String>, partitions: u32) -> Self {
        self.topic_with(name, partitions, std::iter::empty::<(String, String)>())
    }

    /// The same with configurations of the topic, such as `max.message.bytes`.
    pub fn topic_with<K: Into<String>, V: Into<String>>(
        mut self,
        name: impl Into<String>,
        partitions: u32,
        configs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let configs = configs
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()));
        let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
        self.topics
            .push((name.into(), partitions, configs.collect()));
        self
    }

    /// Whether asking for a topic makes it (`auto.create.topics.enable`). Default: true.
    pub fn auto_create(mut self, enabled: bool) -> Self {
        self.defaults.auto_create = enabled;
        self
    }

    /// Partitions of topics that do not say (`num.partitions`). Default: 1.
    pub fn default_partitions(mut self, partitions: u16) -> Self {
        self.defaults.partitions = partitions.into();
        self
    }

    /// Replicas of topics that do not say (`default.replication.factor`). Default: 3, or as many as
    /// there are brokers.
    pub fn default_replication(mut self, replicas: u8) -> Self {
        self.defaults.replication = replicas.into();
        self
    }

    /// How long a silent member stays in its group (`group.consumer.session.timeout.ms`), and how
    /// often members are to be heard (`group.consumer.heartbeat.interval.ms`). Default: 45 s, 5 s.
    pub fn group_timeouts(mut self, session: Duration, heartbeat: Duration) -> Self {
        self.defaults.session_timeout = session;
        self.defaults.heartbeat_interval = heartbeat;
        self
    }

    /// How long an empty classic group waits for more members after the first one joined
    /// (`group.initial.rebalance.delay.ms`); each further one puts it off by as much. Default: not
    /// at all, where brokers wait for 3 s.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// use std::time::Duration;
    ///
    /// use ottla::mock::MockCluster;
    ///
    /// let delay = Duration::from_secs(3);
    /// let mock = MockCluster::builder().initial_rebalance_delay(delay).start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn initial_rebalance_delay(mut self, delay: Duration) -> Self {
        self.defaults.initial_rebalance_delay = delay;
        self
    }

    /// How many members a classic group takes (`group.max.size`); further ones are answered
    /// `GROUP_MAX_SIZE_REACHED`. Default: no limit.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// use ottla::mock::MockCluster;
    ///
    /// let mock = MockCluster::builder().group_max_size(2).start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn group_max_size(mut self, members: usize) -> Self {
        self.defaults.group_max_size = members;
        self
    }

    /// The shortest and the longest session time-out that members of classic groups may ask for
    /// (`group.min.session.timeout.ms`, `group.max.session.timeout.ms`); others are answered
    /// `INVALID_SESSION_TIMEOUT`. Default: 6 s and 30 min.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// use std::time::Duration;
    ///
    /// use ottla::mock::MockCluster;
    ///
    /// let (shortest, longest) = (Duration::from_millis(100), Duration::from_secs(60));
    /// let builder = MockCluster::builder().classic_sessions(shortest, longest);
    /// let mock = builder.start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn classic_sessions(mut self, shortest: Duration, longest: Duration) -> Self {
        self.defaults.classic_sessions = (shortest, longest);
        self
    }

    /// Whether groups migrate while they have members (`group.consumer.migration.policy`): a
    /// classic one becomes a group of KIP-848 when a member of that protocol joins (`upgrade`),
    /// and is classic again when the last of these is gone (`downgrade`). Default: both,
    /// `bidirectional`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// use ottla::mock::MockCluster;
    ///
    /// // `disabled`: only empty groups change.
    /// let mock = MockCluster::builder().group_migration(false, false).start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn group_migration(mut self, upgrade: bool, downgrade: bool) -> Self {
        self.defaults.migration = (upgrade, downgrade);
        self
    }

    /// The highest version of a request that the brokers offer, to be like brokers older than Kafka
    /// 4.3. Default: the highest that the mock knows, and never more.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// use ottla::mock::{Api, MockCluster};
    ///
    /// // Commits go by the names of topics, as before Kafka 4.2.
    /// let builder = MockCluster::builder().max_version(Api::OffsetCommit, 9);
    /// let mock = builder.max_version(Api::OffsetFetch, 9).start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_version(mut self, api: Api, version: i16) -> Self {
        self.highest.insert(api, Some(version));
        self
    }

    /// A request that the brokers do not offer at all. ApiVersions does not list it, and whoever
    /// sends it all the same loses the connection.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// use ottla::mock::{Api, MockCluster};
    ///
    /// // Groups of the classic protocol alone, as before Kafka 4.0.
    /// let builder = MockCluster::builder().without(Api::ConsumerGroupHeartbeat);
    /// let mock = builder.without(Api::ConsumerGroupDescribe).start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn without(mut self, api: Api) -> Self {
        self.highest.insert(api, None);
        self
    }

    /// How transactions are done (`transaction.version`): 2 (KIP-890), the default, or 1, as on
    /// clusters that came from before Kafka 4.0. Changes later by
    /// [`set_transaction_version`](MockCluster::set_transaction_version).
    pub fn transaction_version(mut self, version: u8) -> Self {
        self.transaction_version = version.into();
        self
    }

    /// How long after the decision the end of a transaction is written into the logs of its
    /// partitions; until then nothing new can begin (CONCURRENT_TRANSACTIONS). Default: no time.
    pub fn marker_delay(mut self, delay: Duration) -> Self {
        self.defaults.marker_delay = delay;
        self
    }

    /// Listens at this port and the ones that follow, one for each broker. Default: free ports.
    pub fn port(mut self, first: u16) -> Self {
        self.tcp = Some(("127.0.0.1".to_owned(), first));
        self
    }

    /// Opens no sockets: only clients of this process reach the cluster.
    pub fn in_memory(mut self) -> Self {
        self.tcp = None;
        self
    }

    /// Draws everything that is left to chance from one seed, in the cluster and in the clients
    /// made from it, and lets their wall clock start in 2023 and follow tokio's, which a test may
    /// pause. Opens no sockets, since clients from outside would neither have the seed nor the
    /// time.
    pub fn seed(mut self, seed: u64) -> Self {
        self.tcp = None;
        self.seed = Some(seed);
        self
    }

    /// Starts the cluster.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for names and numbers that Kafka would not take, and
    /// [`ErrorKind::Connection`] if a port cannot be had.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a cluster that nobody gets is ended.
    pub async fn start(mut self) -> Result<MockCluster> {
        let invalid = |what: String| Error::new(ErrorKind::InvalidArgument, what);
        if !(1..=MOST_BROKERS).contains(&self.brokers) {
            return Err(invalid(format!(
                "a mock cluster of {} brokers",
                self.brokers
            )));
        }
        if self.defaults.replication < 0 {
            self.defaults.replication = self.brokers.min(3) as i16;
        }
        let clock = match self.seed {
            // 2023-11-14: any fixed time would do.
            Some(seed) => Clock::seeded(seed, 1_700_000_000_000),
            None => Clock::system(),
        };
        let mut state = State::new(clock.clone(), self.defaults.clone(), self.brokers);
        state.highest = self.highest;
        state.transaction_version = self.transaction_version;
        for (name, partitions, configs) in self.topics {
            if !is_valid_name(&name) || !(1..=100_000).contains(&partitions) {
                return Err(invalid(format!(
                    "topic '{name}' with {partitions} partitions"
                )));
            }
            let replicas = state.spread(partitions, state.defaults.replication, 0);
            state.create_topic(&name, replicas, configs);
        }
        if let Some((host, first)) = &self.tcp {
            let mut port = *first;
            for broker in state.brokers.values_mut() {
                broker.tcp = Some((host.clone(), port));
                port = if port == 0 { 0 } else { port.wrapping_add(1) };
            }
        }
        let tasks = Tasks::new()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Notify::new(),
            network: Network::new(clock),
            tasks: tasks.clone(),
            lives: Mutex::default(),
        });
        let mock = MockCluster {
            shared: Arc::clone(&shared),
            _end: Arc::new(StopOnDrop(tasks)),
        };
        for broker in 1..=self.brokers {
            shared.open(broker).await.map_err(|error| {
                let what = format!("broker {broker} of the mock cluster cannot listen: {error}");
                Error::new(ErrorKind::Connection, what).with_source(error)
            })?;
        }
        Ok(mock)
    }
}
