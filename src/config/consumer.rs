//! What a consumer can be told.

use std::fmt;
use std::time::Duration;

/// Where to start when there is no position (`auto.offset.reset`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OffsetReset {
    /// The oldest record that the log still has.
    Earliest,
    /// The end of the log: only records written from now on.
    Latest,
    /// The first record not older than this (KIP-1106: `by_duration:PT1H`).
    ByDuration(Duration),
    /// No start: a typed error for the partition until the application seeks.
    None,
}

/// Which records of transactions are seen (`isolation.level`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IsolationLevel {
    /// All records, those of open and aborted transactions too.
    ReadUncommitted,
    /// Only records of committed transactions and those outside of transactions.
    ReadCommitted,
}

impl IsolationLevel {
    /// The value in requests.
    pub(crate) fn code(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

/// How members of a group and its coordinator agree on who reads what (`group.protocol`).
///
/// ```
/// use ottla::GroupProtocol;
///
/// assert_eq!(GroupProtocol::default().to_string(), "auto");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupProtocol {
    /// [`Consumer`](Self::Consumer) where the group's coordinator offers it (Kafka 4.0 and newer),
    /// [`Classic`](Self::Classic) where it does not, and where a setting was made that only the
    /// classic protocol has: an assignor (`partition.assignment.strategy`), `session.timeout.ms` or
    /// `heartbeat.interval.ms`.
    #[default]
    Auto,
    /// The members assign: one of them, the leader, runs an assignor. All brokers know it.
    Classic,
    /// The coordinator assigns (KIP-848). Kafka 4.0 and newer.
    Consumer,
}

impl fmt::Display for GroupProtocol {
    /// As in `group.protocol`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Classic => "classic",
            Self::Consumer => "consumer",
        })
    }
}

/// Settings of a consumer, by Kafka's names and with Java's defaults.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerConfig {
    /// `group.id`
    pub(crate) group_id: Option<String>,
    /// `group.instance.id`
    pub(crate) group_instance_id: Option<String>,
    /// `group.protocol`
    pub(crate) group_protocol: GroupProtocol,
    /// `session.timeout.ms`, `heartbeat.interval.ms` (classic)
    pub(crate) session_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    /// `partition.assignment.strategy` (classic), by the assignors' names
    pub(crate) assignment_strategy: Vec<&'static str>,
    /// `group.remote.assignor` (KIP-848); `None`: the broker's
    pub(crate) group_remote_assignor: Option<String>,
    /// `client.rack`
    pub(crate) client_rack: Option<String>,
    /// `auto.offset.reset`
    pub(crate) offset_reset: OffsetReset,
    /// `isolation.level`
    pub(crate) isolation: IsolationLevel,
    /// `enable.auto.commit`, `auto.commit.interval.ms`
    pub(crate) auto_commit: bool,
    pub(crate) auto_commit_interval: Duration,
    /// `fetch.min.bytes`, `fetch.max.bytes`, `fetch.max.wait.ms`, `max.partition.fetch.bytes`
    pub(crate) fetch_min_bytes: i32,
    pub(crate) fetch_max_bytes: i32,
    pub(crate) fetch_max_wait: Duration,
    pub(crate) max_partition_fetch_bytes: i32,
    /// `max.poll.records`, `max.poll.interval.ms`
    pub(crate) max_poll_records: usize,
    pub(crate) max_poll_interval: Duration,
    /// `check.crcs`
    pub(crate) check_crcs: bool,
    /// `exclude.internal.topics`
    pub(crate) exclude_internal_topics: bool,
    /// `allow.auto.create.topics`
    pub(crate) allow_auto_create_topics: bool,
}

impl ConsumerConfig {
    /// The first of the settings that only the classic protocol has and that is set to something.
    pub(crate) fn classic_setting(&self) -> Option<&'static str> {
        let usual = Self::default();
        if self.session_timeout != usual.session_timeout {
            Some("session.timeout.ms")
        } else if self.heartbeat_interval != usual.heartbeat_interval {
            Some("heartbeat.interval.ms")
        } else if self.assignment_strategy != usual.assignment_strategy {
            Some("partition.assignment.strategy")
        } else {
            None
        }
    }
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            group_id: None,
            group_instance_id: None,
            group_protocol: GroupProtocol::Auto,
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            assignment_strategy: vec!["range", "cooperative-sticky"],
            group_remote_assignor: None,
            client_rack: None,
            offset_reset: OffsetReset::Latest,
            isolation: IsolationLevel::ReadUncommitted,
            auto_commit: true,
            auto_commit_interval: Duration::from_secs(5),
            fetch_min_bytes: 1,
            fetch_max_bytes: 52_428_800,
            fetch_max_wait: Duration::from_millis(500),
            max_partition_fetch_bytes: 1_048_576,
            max_poll_records: 500,
            max_poll_interval: Duration::from_secs(300),
            check_crcs: true,
            exclude_internal_topics: true,
            allow_auto_create_topics: true,
        }
    }
}
