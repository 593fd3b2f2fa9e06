//! How far behind a group is, asked from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use uuid::Uuid;

use super::Admin;
use crate::clock::{Instant, now};
use crate::config::consumer::IsolationLevel;
use crate::error::{Class, Error, ErrorKind, Result};
use crate::fetched::Reading;
use crate::net::backoff::Backoff;
use crate::offsets::peek::{self, Peek};
use crate::offsets::{self, EARLIEST, LATEST, NEWEST};
use crate::types::{BrokerId, OffsetAndMetadata, TimeLag, TopicPartition};

const OFFSET_OUT_OF_RANGE: i16 = 1;
/// How often leaders are asked again for what they did not tell.
const ATTEMPTS: usize = 5;

/// How far behind the end of a partition's log a group is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupPartitionLag {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// What the group has committed; `None` if nothing.
    pub committed: Option<OffsetAndMetadata>,
    /// The end of the log (its high watermark); `None` if it could not be learnt, see `error`.
    pub end_offset: Option<i64>,
    /// `end_offset` less the committed offset, 0 where that is beyond the end: offsets still to be
    /// read, an upper bound of records, since transaction markers and compacted records have
    /// offsets too. `None` if nothing is committed or the end is not known.
    pub records: Option<u64>,
    /// The age of the oldest record that the group has not read.
    pub time: TimeLag,
    /// How much younger the log's newest record is than the last one that the group has read: the
    /// difference of their timestamps, which an idle producer does not make grow. Unknown where the
    /// last record read is gone.
    pub behind_newest: TimeLag,
    /// The member that the partition is assigned to.
    pub member: Option<String>,
    /// Why the end is not known: the topic was deleted, or its leader did not answer.
    pub error: Option<Error>,
}

/// How far behind a group is in all partitions that it has committed for or that its members have,
/// at one moment.
#[derive(Clone, Debug)]
pub struct GroupLag {
    partitions: Vec<GroupPartitionLag>,
}

impl GroupLag {
    /// The partitions, ordered by topic and number.
    #[must_use]
    pub fn partitions(&self) -> &[GroupPartitionLag] {
        &self.partitions
    }

    /// One partition's lag.
    #[must_use]
    pub fn get(&self, tp: &TopicPartition) -> Option<&GroupPartitionLag> {
        self.partitions
            .iter()
            .find(|lag| lag.topic_partition == *tp)
    }

    /// The sum over the partitions whose lag is known.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.partitions.iter().filter_map(|lag| lag.records).sum()
    }

    /// The largest known age over the partitions; `Unknown` if there are partitions behind and none
    /// of their ages is known.
    #[must_use]
    pub fn time(&self) -> TimeLag {
        TimeLag::worst(self.partitions.iter().map(|lag| lag.time))
    }
}

/// Where a partition is, as metadata says.
#[derive(Clone, Copy)]
struct Place {
    broker: BrokerId,
    epoch: i32,
    topic_id: Uuid,
}

impl Admin {
    /// How far behind a group is, in records and in time, without joining it: for each partition
    /// that it has committed for, or that one of its members has. Records are those that
    /// `kafka-consumer-groups.sh --describe` tells. A partition that is behind costs two fetches of
    /// a batch, for the ages.
    ///
    /// A partition whose end cannot be learnt (its topic was deleted, it has no leader) is there
    /// with an error; the others are not held back.
    ///
    /// # Errors
    ///
    /// As [`describe_group`](Self::describe_group).
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// let lag = admin.group_lag("billing").await?;
    /// println!("{} records, {:?} behind", lag.records(), lag.time().duration());
    /// for partition in lag.partitions() {
    ///     println!("{}: {:?}", partition.topic_partition, partition.records);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn group_lag(&self, group: &str) -> Result<GroupLag> {
        self.lag_of(group).await
    }

    pub(super) async fn lag_of(&self, group: &str) -> Result<GroupLag> {
        let deadline = self.deadline();
        let committed = self.offsets_of(group, deadline).await?;
        let mut members = BTreeMap::new();
        match self.describe(group, deadline).await {
            Ok(described) => {
                for member in described.members {
                    let id = member.member;
                    let parts = member.partitions.into_iter();
                    members.extend(parts.map(|tp| (tp, id.clone())));
                }
            }
            // Offsets say enough. A group of something else than consumers has them, too.
            Err(error) if !committed.is_empty() => {
                tracing::debug!(%error, "the group's members are not known");
            }
            Err(error) => return Err(error),
        }
        let partitions: BTreeSet<_> = committed.keys().chain(members.keys()).cloned().collect();
        let mut lags: BTreeMap<TopicPartition, GroupPartitionLag> = partitions
            .into_iter()
            .map(|tp| {
                let lag = GroupPartitionLag {
                    committed: committed.get(&tp).cloned(),
                    end_offset: None,
                    records: None,
                    time: TimeLag::Unknown,
                    behind_newest: TimeLag::Unknown,
                    member: members.remove(&tp),
                    error: None,
                    topic_partition: tp.clone(),
                };
                (tp, lag)
            })
            .collect();
        let config = self.cluster.config();
        let mut backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
        for _ in 0..ATTEMPTS {
            self.measure(&mut lags, deadline).await;
            let may_pass = |lag: &GroupPartitionLag| {
                let error = lag.error.as_ref();
                error.is_some_and(|error| error.is_retriable())
            };
            let pause = backoff.fail(self.cluster.clock());
            if !lags.values().any(may_pass) || now() + pause >= deadline {
                break;
            }
            self.cluster.refresh();
            tokio::time::sleep(pause).await;
        }
        Ok(GroupLag {
            partitions: lags.into_values().collect(),
        })
    }

    /// Fills in what is not known yet, all leaders side by side.
    async fn measure(
        &self,
        lags: &mut BTreeMap<TopicPartition, GroupPartitionLag>,
        deadline: Instant,
    ) {
        let left = lags.values_mut().filter(|lag| lag.end_offset.is_none());
        let mut left: Vec<&mut GroupPartitionLag> = left.collect();
        let topics: BTreeSet<Arc<str>> = left
            .iter()
            .map(|lag| Arc::clone(&lag.topic_partition.topic))
            .collect();
        let left_time = deadline.saturating_duration_since(now());
        let described = self
            .with_timeout(left_time)
            .describe_topics(topics.iter().map(|name| &**name))
            .await;
        let mut by_leader: BTreeMap<BrokerId, Vec<(&mut GroupPartitionLag, Place)>> =
            BTreeMap::new();
        for lag in left.drain(..) {
            let tp = &lag.topic_partition;
            let topic = match &described {
                Ok(described) => described.get(&tp.topic),
                Err(error) => {
                    lag.error = Some(error.clone());
                    continue;
                }
            };
            let found = match topic {
                Some(Ok(topic)) => {
                    let mut parts = topic.partitions.iter();
                    let part = parts.find(|part| part.partition == tp.partition);
                    part.map(|part| (part, topic.id))
                        .ok_or_else(|| offsets::no_partition(tp, topic.partitions.len()))
                }
                Some(Err(error)) => Err(error.clone().with_topic_partition(tp.clone())),
                None => Err(unanswered(tp)),
            };
            match found.map(|(part, id)| (part.leader, part.leader_epoch, id)) {
                Ok((Some(broker), epoch, id)) => {
                    let topic_id = id.map_or(Uuid::nil(), |id| Uuid::from_bytes(*id.as_bytes()));
                    let place = Place {
                        broker,
                        epoch,
                        topic_id,
                    };
                    by_leader.entry(broker).or_default().push((lag, place));
                }
                Ok((None, ..)) => {
                    let error = Error::new(ErrorKind::NotLeader, "the partition has no leader");
                    lag.error = Some(error.with_topic_partition(tp.clone()));
                }
                Err(error) => lag.error = Some(error),
            }
        }
        let leaders = by_leader
            .into_iter()
            .map(|(broker, lags)| self.measure_at(broker, lags, deadline));
        join_all(leaders).await;
    }

    async fn measure_at(
        &self,
        broker: BrokerId,
        lags: Vec<(&mut GroupPartitionLag, Place)>,
        deadline: Instant,
    ) {
        let level = IsolationLevel::ReadUncommitted;
        let asked = |which: i64| {
            let asked = lags.iter();
            let asked = asked.map(|(lag, at)| (lag.topic_partition.clone(), at.epoch, which));
            asked.collect::<Vec<_>>()
        };
        let (ends, newest) = (asked(LATEST), asked(NEWEST));
        let (ends, newest) = futures_util::future::join(
            offsets::list_once(&self.cluster, broker, &ends, level, deadline),
            offsets::list_once(&self.cluster, broker, &newest, level, deadline),
        )
        .await;
        let reading = Reading::uncommitted();
        let peek = Peek {
            cluster: &self.cluster,
            reading: &reading,
            level,
            deadline,
        };
        for (lag, at) in lags {
            let tp = &lag.topic_partition;
            let end = match &ends {
                Ok(ends) => match ends.get(tp) {
                    Some(Ok(end)) => Ok(end.offset),
                    Some(Err(code)) => Err(Error::from_code(*code, "looking up the log's end")),
                    None => Err(unanswered(tp)),
                },
                Err(error) => Err(error.clone()),
            };
            let end = match end {
                Ok(end) => end,
                Err(error) => {
                    lag.error = Some(error.with_topic_partition(tp.clone()));
                    continue;
                }
            };
            lag.error = None;
            lag.end_offset = Some(end);
            let Some(committed) = lag.committed.as_ref().map(OffsetAndMetadata::offset) else {
                continue;
            };
            let records = u64::try_from(end.saturating_sub(committed)).unwrap_or(0);
            lag.records = Some(records);
            if records == 0 {
                (lag.time, lag.behind_newest) = (TimeLag::CaughtUp, TimeLag::CaughtUp);
                continue;
            }
            let newest = newest.as_ref().ok().and_then(|newest| newest.get(tp));
            let newest = newest.and_then(|newest| newest.as_ref().ok());
            let newest = newest.map(|newest| newest.timestamp);
            let wall = self.cluster.clock().wall_millis();
            let (first, last) = around(&peek, tp, at, committed).await;
            lag.time = TimeLag::between(first, Some(wall));
            lag.behind_newest = TimeLag::between(last, newest);
        }
    }
}

/// The timestamps of the first record not read, and of the last one read.
async fn around(
    peek: &Peek<'_>,
    tp: &TopicPartition,
    at: Place,
    committed: i64,
) -> (Option<i64>, Option<i64>) {
    let place = |offset| peek::place(tp.clone(), at.topic_id, at.epoch, offset);
    let first = match peek.first(at.broker, &place(committed)).await {
        Err(error)
            if error
                .code()
                .is_some_and(|code| code.get() == OFFSET_OUT_OF_RANGE) =>
        {
            // Retention was faster: what is left begins later.
            match start(peek, tp, at).await {
                Ok(Some(offset)) => peek.first(at.broker, &place(offset)).await,
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            }
        }
        first => first,
    };
    let last = peek.last_before(at.broker, &place(committed)).await;
    let known = |found: Result<Option<i64>>| {
        found.unwrap_or_else(|error| {
            tracing::debug!(partition = %tp, %error, "the age of records is not known");
            None
        })
    };
    (known(first), known(last))
}

/// Where the log begins.
async fn start(peek: &Peek<'_>, tp: &TopicPartition, at: Place) -> Result<Option<i64>> {
    let asked = [(tp.clone(), at.epoch, EARLIEST)];
    let (cluster, level, deadline) = (peek.cluster, peek.level, peek.deadline);
    let found = offsets::list_once(cluster, at.broker, &asked, level, deadline).await?;
    let found = found.get(tp).and_then(|found| found.as_ref().ok());
    Ok(found.map(|found| found.offset))
}

fn unanswered(tp: &TopicPartition) -> Error {
    let error = Error::new(ErrorKind::Protocol, "the broker's answer leaves it out");
    // It may be damaged.
    let error = error.with_class(Class::Retriable);
    error.with_topic_partition(tp.clone())
}
