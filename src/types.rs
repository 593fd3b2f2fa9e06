//! The small vocabulary types that every part of the client shares.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A partition of a topic.
///
/// Cloning is cheap: the topic's name is shared.
///
/// ```
/// let tp = ottla::TopicPartition::new("orders", 3);
/// assert_eq!(tp.to_string(), "orders-3");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
}

impl TopicPartition {
    /// Names a partition.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition's number, from 0.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.partition
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number by which a cluster knows a broker (`node.id`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BrokerId(pub(crate) i32);

impl BrokerId {
    /// The broker's `node.id`.
    #[must_use]
    pub fn get(self) -> i32 {
        self.0
    }
}

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A record's time: milliseconds since the Unix epoch, as Kafka keeps it.
///
/// ```
/// use ottla::Timestamp;
/// let t = Timestamp::from_millis(1_700_000_000_000);
/// assert_eq!(t.as_millis(), 1_700_000_000_000);
/// assert!(t < Timestamp::from(std::time::SystemTime::now()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Milliseconds since the Unix epoch. Brokers refuse negative ones.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch; -1 where the log has none.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The same as a [`SystemTime`]; times before 1970 give 1970.
    #[must_use]
    pub fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(u64::try_from(self.0).unwrap_or(0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A position to commit: the offset of the next record to read, with what Kafka keeps beside it.
///
/// ```
/// let next = ottla::OffsetAndMetadata::new(42).with_metadata("batch 7");
/// assert_eq!(next.offset(), 42);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetAndMetadata {
    pub(crate) offset: i64,
    pub(crate) leader_epoch: Option<i32>,
    pub(crate) metadata: String,
}

impl OffsetAndMetadata {
    /// A position without metadata or leader epoch.
    #[must_use]
    pub fn new(offset: i64) -> Self {
        Self {
            offset,
            leader_epoch: None,
            metadata: String::new(),
        }
    }

    /// Adds the application's own note, kept by the broker beside the offset
    /// (at most `offset.metadata.max.bytes`, 4096 by default).
    #[must_use]
    pub fn with_metadata(mut self, metadata: impl Into<String>) -> Self {
        self.metadata = metadata.into();
        self
    }

    /// Adds the leader epoch of the last record read, by which a truncated log is noticed
    /// (KIP-320).
    #[must_use]
    pub fn with_leader_epoch(mut self, epoch: Option<i32>) -> Self {
        self.leader_epoch = epoch;
        self
    }

    /// The offset of the next record to read.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// The leader epoch of the last record read, if known.
    #[must_use]
    pub fn leader_epoch(&self) -> Option<i32> {
        self.leader_epoch
    }

    /// The application's note.
    #[must_use]
    pub fn metadata(&self) -> &str {
        &self.metadata
    }
}

/// How far behind in time: the age of the first record that was not handed out yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeLag {
    /// Everything up to the end of the log was handed out.
    CaughtUp,
    /// The record at the position has this age (0 if its time is in the future).
    Behind(Duration),
    /// There is more to read, and its time is not known, since none of it is here yet.
    Unknown,
}

impl TimeLag {
    /// The largest known; `Unknown` if there is some and none of it is known.
    pub(crate) fn worst(ages: impl Iterator<Item = Self>) -> Self {
        ages.fold(Self::CaughtUp, |worst, age| match (worst, age) {
            (Self::Behind(a), Self::Behind(b)) => Self::Behind(a.max(b)),
            (Self::Behind(_), _) | (Self::Unknown, Self::CaughtUp) => worst,
            _ => age,
        })
    }

    /// From one timestamp to another, in milliseconds.
    pub(crate) fn between(from: Option<i64>, to: Option<i64>) -> Self {
        let (Some(from), Some(to)) = (from.filter(|at| *at >= 0), to.filter(|at| *at >= 0)) else {
            return Self::Unknown;
        };
        let millis = u64::try_from(to.saturating_sub(from)).unwrap_or(0);
        Self::Behind(Duration::from_millis(millis))
    }

    /// The age; zero when caught up, `None` when unknown.
    #[must_use]
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::CaughtUp => Some(Duration::ZERO),
            Self::Behind(age) => Some(age),
            Self::Unknown => None,
        }
    }
}
