//! Settings of a consumer.

use std::sync::Arc;
use std::time::Duration;

use super::Consumer;
use super::control;
use super::interceptor::ConsumerInterceptor;
use super::pattern::TopicPattern;
use super::positions::{Positions, Rules};
use super::refresh;
use super::shared::{Shared, by_name};
use super::wanted::Subscription;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::config::ClientConfig;
use crate::config::consumer::{ConsumerConfig, GroupProtocol, IsolationLevel, OffsetReset};
use crate::error::{Error, ErrorKind, Result};
use crate::fetched::Reading;
use crate::group::assignor::Assignor;
use crate::group::{self, Assignors};
use crate::hooks::Chain;
use crate::record::CodecPool;
use crate::types::TopicPartition;

/// Settings of a [`Consumer`], with Kafka's names in parentheses; made by
/// [`Client::consumer`](crate::Client::consumer).
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct ConsumerBuilder {
    cluster: Cluster,
    config: ConsumerConfig,
    topics: Vec<Arc<str>>,
    pattern: Option<TopicPattern>,
    partitions: Vec<TopicPartition>,
    interceptors: Chain<dyn ConsumerInterceptor>,
    assignors: Option<Assignors>,
}

impl ConsumerBuilder {
    pub(crate) fn new(cluster: Cluster, config: ConsumerConfig) -> Self {
        Self {
            cluster,
            config,
            topics: Vec::new(),
            pattern: None,
            partitions: Vec::new(),
            interceptors: Chain::new(),
            assignors: None,
        }
    }

    /// Shares the partitions of these topics with the other members of the group. Topics that do
    /// not exist are waited for.
    pub fn subscribe<T: Into<Arc<str>>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// Shares the partitions of all topics that match a pattern, those made later too.
    ///
    /// ```no_run
    /// # async fn example(client: ottla::Client) -> ottla::Result<()> {
    /// use ottla::TopicPattern;
    ///
    /// let pattern = TopicPattern::client_side(r"eu\..*")?;
    /// let consumer = client.consumer("audit").subscribe_pattern(pattern).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn subscribe_pattern(mut self, pattern: TopicPattern) -> Self {
        self.pattern = Some(pattern);
        self
    }

    /// Whether Kafka's own topics are left out of what a pattern matches
    /// ([client-side](TopicPattern::client_side); `exclude.internal.topics`). Default: yes.
    pub fn exclude_internal_topics(mut self, exclude: bool) -> Self {
        self.config.exclude_internal_topics = exclude;
        self
    }

    /// Reads these partitions, whatever others do. With a group, it starts at the group's committed
    /// offsets and can commit.
    pub fn assign(mut self, partitions: impl IntoIterator<Item = TopicPartition>) -> Self {
        self.partitions.extend(partitions);
        self
    }

    /// The group (`group.id`).
    pub fn group_id(mut self, group: impl Into<String>) -> Self {
        self.config.group_id = Some(group.into());
        self
    }

    /// A name that this instance keeps over restarts (`group.instance.id`): within the group's
    /// session time-out it gets its partitions back without a rebalance. Default: none.
    pub fn group_instance_id(mut self, id: impl Into<String>) -> Self {
        self.config.group_instance_id = Some(id.into());
        self
    }

    /// How members and broker agree on who reads what (`group.protocol`). Default:
    /// [`GroupProtocol::Auto`].
    ///
    /// ```no_run
    /// # fn example(client: ottla::Client) -> ottla::Result<()> {
    /// use ottla::GroupProtocol;
    ///
    /// let consumer = client
    ///     .consumer("audit")
    ///     .subscribe(["orders"])
    ///     .group_protocol(GroupProtocol::Classic) // beside members that know no other
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn group_protocol(mut self, protocol: GroupProtocol) -> Self {
        self.config.group_protocol = protocol;
        self
    }

    /// Who assigns how, the preferred one first (`partition.assignment.strategy`); a group uses an
    /// assignor that all of its members have. Of the protocol `classic` alone
    /// ([`group_protocol`](Self::group_protocol)). Default:
    /// [`RangeAssignor`](crate::RangeAssignor), and `CooperativeStickyAssignor` for groups that are
    /// on their way to it.
    ///
    /// All partitions stop at each rebalance, unless all of these are
    /// [cooperative](crate::RebalanceProtocol::Cooperative) (KIP-429).
    ///
    /// ```no_run
    /// # fn example(client: ottla::Client) -> ottla::Result<()> {
    /// use std::sync::Arc;
    ///
    /// let consumer = client
    ///     .consumer("audit")
    ///     .subscribe(["orders"])
    ///     .partition_assignment_strategy([Arc::new(ottla::RangeAssignor) as _])
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn partition_assignment_strategy(
        mut self,
        assignors: impl IntoIterator<Item = Arc<dyn Assignor>>,
    ) -> Self {
        self.assignors = Some(Assignors::new(assignors));
        self
    }

    /// After how long without a word from it the group gives a member up (`session.timeout.ms`). Of
    /// the protocol `classic` alone; with `consumer` the broker decides. Default: 45 s.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.config.session_timeout = timeout;
        self
    }

    /// How often the member is heard of, so that it learns of rebalances
    /// (`heartbeat.interval.ms`): a third of [`session_timeout`](Self::session_timeout) at most. Of
    /// the protocol `classic` alone; with `consumer` the broker decides. Default: 3 s.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.config.heartbeat_interval = interval;
        self
    }

    /// The broker's assignor (`group.remote.assignor`): `uniform` or `range`. Of the protocol
    /// `consumer` alone (KIP-848). Default: the broker's.
    pub fn group_remote_assignor(mut self, name: impl Into<String>) -> Self {
        self.config.group_remote_assignor = Some(name.into());
        self
    }

    /// Where this consumer is (`client.rack`): brokers may name a replica nearby to read from
    /// (KIP-392). Default: none.
    pub fn client_rack(mut self, rack: impl Into<String>) -> Self {
        self.config.client_rack = Some(rack.into());
        self
    }

    /// Where to start without a committed offset, or with one outside of the log
    /// (`auto.offset.reset`). Default: [`OffsetReset::Latest`].
    pub fn offset_reset(mut self, reset: OffsetReset) -> Self {
        self.config.offset_reset = reset;
        self
    }

    /// Which records of transactions are seen (`isolation.level`). Default:
    /// [`IsolationLevel::ReadUncommitted`].
    pub fn isolation_level(mut self, level: IsolationLevel) -> Self {
        self.config.isolation = level;
        self
    }

    /// Whether finished records (see [`Consumer`]) are committed in the background
    /// (`enable.auto.commit`), also before partitions are given up and at the end. Default: yes, if
    /// there is a group.
    pub fn auto_commit(mut self, on: bool) -> Self {
        self.config.auto_commit = on;
        self
    }

    /// How often (`auto.commit.interval.ms`). Default: 5 s.
    pub fn auto_commit_interval(mut self, interval: Duration) -> Self {
        self.config.auto_commit_interval = interval;
        self
    }

    /// How many bytes a broker gathers before it answers, at most for
    /// [`fetch_max_wait`](Self::fetch_max_wait) (`fetch.min.bytes`). Default: 1.
    pub fn fetch_min_bytes(mut self, bytes: i32) -> Self {
        self.config.fetch_min_bytes = bytes;
        self
    }

    /// How much is fetched ahead, over all brokers (`fetch.max.bytes`). A single larger batch is
    /// read all the same. Default: 50 MiB.
    pub fn fetch_max_bytes(mut self, bytes: i32) -> Self {
        self.config.fetch_max_bytes = bytes;
        self
    }

    /// How long a broker waits for [`fetch_min_bytes`](Self::fetch_min_bytes)
    /// (`fetch.max.wait.ms`). Default: 500 ms.
    pub fn fetch_max_wait(mut self, wait: Duration) -> Self {
        self.config.fetch_max_wait = wait;
        self
    }

    /// How much of one partition a request asks for (`max.partition.fetch.bytes`); less than that
    /// of a partition in memory means that more is fetched. Default: 1 MiB.
    pub fn max_partition_fetch_bytes(mut self, bytes: i32) -> Self {
        self.config.max_partition_fetch_bytes = bytes;
        self
    }

    /// How many records a poll returns at most (`max.poll.records`). Default: 500. What is left of
    /// a fetched batch is neither fetched nor decoded again, so a large number costs only memory.
    pub fn max_poll_records(mut self, records: usize) -> Self {
        self.config.max_poll_records = records;
        self
    }

    /// How long the application may take between polls before the member leaves its group
    /// (`max.poll.interval.ms`). Default: 5 min.
    pub fn max_poll_interval(mut self, interval: Duration) -> Self {
        self.config.max_poll_interval = interval;
        self
    }

    /// Whether checksums of fetched batches are compared (`check.crcs`). Default: yes.
    pub fn check_crcs(mut self, on: bool) -> Self {
        self.config.check_crcs = on;
        self
    }

    /// Whether brokers may create topics that are asked for (`allow.auto.create.topics`), provided
    /// that they are so configured. Default: yes.
    pub fn allow_auto_create_topics(mut self, on: bool) -> Self {
        self.config.allow_auto_create_topics = on;
        self
    }

    /// Adds an interceptor (`interceptor.classes`), which sees every batch that is handed out and
    /// every commit. They are called in the order in which they were added; see
    /// [`ConsumerInterceptor`].
    pub fn interceptor(mut self, interceptor: impl ConsumerInterceptor) -> Self {
        self.interceptors.push(Box::new(interceptor));
        self
    }

    /// Starts the consumer. It joins its group and fetches in the background from now on; brokers
    /// need not be reachable yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] naming the setting that is missing, contradicts another or is out of
    /// range.
    pub fn build(mut self) -> Result<Consumer> {
        self.config.validate()?;
        self.check()?;
        let Self {
            cluster,
            config,
            topics,
            pattern,
            partitions,
            interceptors,
            assignors,
        } = self;
        let membership = membership(&config, cluster.config(), cluster.clock(), assignors);
        let client = cluster.config();
        let rules = Rules {
            reset: config.offset_reset,
            isolation: config.isolation,
            has_group: config.group_id.is_some(),
            backoff: client.retry_backoff,
            backoff_max: client.retry_backoff_max,
            preferred_for: client.metadata_max_age,
        };
        let reading = Reading {
            check_crcs: config.check_crcs,
            read_committed: config.isolation == IsolationLevel::ReadCommitted,
            pool: CodecPool::new(1).keeping(kept_outputs(config.fetch_max_bytes)),
            damage: Arc::default(),
        };
        let mut positions = Positions::new(rules);
        positions.assign(by_name(&partitions));
        let wanted = match pattern {
            Some(pattern) => Subscription::Pattern(pattern),
            None if partitions.is_empty() => Subscription::topics(topics),
            None => Subscription::partitions(partitions),
        };
        let shared = Shared::new(&cluster, config, reading, positions, wanted, interceptors);
        let shared = Arc::new(shared);
        let control = control::run(Arc::clone(&shared), membership);
        shared.tasks.spawn("consumer control", control);
        if cfg!(feature = "metrics") {
            let sample = refresh::sample(Arc::clone(&shared));
            shared.tasks.spawn("consumer metrics", sample);
        }
        Ok(Consumer::new(shared))
    }

    fn check(&self) -> Result<()> {
        let config = &self.config;
        let wrong = |message: &'static str| Err(Error::new(ErrorKind::Config, message));
        if let Some(assignors) = &self.assignors {
            if assignors.is_empty() {
                return wrong("`partition_assignment_strategy` was given no assignor");
            }
            if config.group_protocol == GroupProtocol::Consumer {
                return wrong(
                    "`partition_assignment_strategy` belongs to the classic group protocol: with \
                     group.protocol=consumer the broker assigns",
                );
            }
            if config.group_remote_assignor.is_some() {
                return wrong(
                    "`partition_assignment_strategy` and `group_remote_assignor` exclude each other",
                );
            }
        }
        let group = config.group_id.as_deref();
        if self.pattern.is_some() && !self.topics.is_empty() {
            return wrong("`subscribe` and `subscribe_pattern` exclude each other");
        }
        let subscribes = !self.topics.is_empty() || self.pattern.is_some();
        match (!subscribes, self.partitions.is_empty()) {
            (true, true) => {
                return wrong("nothing to read: neither `subscribe` nor `assign` was called");
            }
            (false, false) => return wrong("`subscribe` and `assign` exclude each other"),
            (false, true) if group.is_none() => {
                return wrong("`subscribe` needs a group: set group.id, or use `assign`");
            }
            _ => {}
        }
        Ok(())
    }
}

/// How to become a member of the group. A member of the protocol `consumer` has an id of its own,
/// which it keeps for the consumer's whole life (KIP-1082).
fn membership(
    config: &ConsumerConfig,
    client: &ClientConfig,
    clock: &Clock,
    assignors: Option<Assignors>,
) -> group::Settings {
    let instance_id: Option<Arc<str>> = config.group_instance_id.as_deref().map(Arc::from);
    let rack: Option<Arc<str>> = config.client_rack.as_deref().map(Arc::from);
    let protocol = match config.group_protocol {
        GroupProtocol::Auto if assignors.is_some() || config.classic_setting().is_some() => {
            GroupProtocol::Classic
        }
        protocol => protocol,
    };
    let consumer = group::ConsumerSettings {
        instance_id: instance_id.clone(),
        rack: rack.clone(),
        assignor: config.group_remote_assignor.as_deref().map(Arc::from),
        rebalance_timeout: config.max_poll_interval,
        backoff: client.retry_backoff,
        backoff_max: client.retry_backoff_max,
    };
    let classic = group::ClassicConsumerSettings {
        classic: group::ClassicSettings {
            instance_id,
            protocol_type: group::CONSUMER_PROTOCOL_TYPE,
            session_timeout: config.session_timeout,
            heartbeat_interval: config.heartbeat_interval,
            rebalance_timeout: config.max_poll_interval,
            backoff: client.retry_backoff,
            backoff_max: client.retry_backoff_max,
        },
        rack,
        assignors: assignors.unwrap_or_else(|| Assignors::named(&config.assignment_strategy)),
    };
    let id = uuid::Builder::from_random_bytes(clock.bits().to_be_bytes());
    let id = Arc::from(id.into_uuid().to_string());
    match protocol {
        GroupProtocol::Classic => group::Settings::Classic(classic),
        GroupProtocol::Consumer => group::Settings::Consumer(consumer, id),
        GroupProtocol::Auto => group::Settings::Auto(consumer, id, classic),
    }
}

/// How much memory of decompressed batches is kept for the next ones: what a large poll takes,
/// within a share of the budget.
fn kept_outputs(fetch_max_bytes: i32) -> usize {
    const MOST: usize = 12 << 20;
    (usize::try_from(fetch_max_bytes).unwrap_or(0) / 4).min(MOST)
}
