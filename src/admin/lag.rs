//! How far behind a group is, asked from outside.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::{join, join_all};
use uuid::Uuid;

use super::Admin;
use super::groups::GroupDescription;
use crate::clock::Instant;
use crate::cluster::per_key::PerKey;
use crate::config::consumer::IsolationLevel;
use crate::error::{Error, ErrorKind, Result};
use crate::fetched::Reading;
use crate::offsets::peek::{self, Peek};
use crate::offsets::{self, CommittedOffsets, EARLIEST, LATEST, NEWEST};
use crate::types::{BrokerId, OffsetAndMetadata, TimeLag, TopicPartition};
use crate::wire::codes;

/// How far behind the end of a partition's log a group is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupPartitionLag {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// What the group has committed; `None` if nothing.
    pub committed: Option<OffsetAndMetadata>,
    /// The end of the log; `None` if it could not be learnt, see `error`. It is the high watermark,
    /// as that of `kafka-consumer-groups.sh`, since nobody can tell from outside whether the group
    /// reads committed records only: one that does stays behind while a transaction is open, and
    /// its own [`Consumer::lag`](crate::ConsumerHandle::lag) does not count what that holds back.
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
        self.lags_of(&[group.to_owned()]).await?.only()
    }

    /// How far behind several groups are, in one pass: the coordinators and leaders are asked about
    /// all of them at once, and a partition that several of them read is looked up once.
    ///
    /// # Errors
    ///
    /// Of the call, if nothing is known about any group; of each group as
    /// [`group_lag`](Self::group_lag).
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// for (group, lag) in admin.group_lags(["billing", "mail"]).await? {
    ///     println!("{group}: {} records", lag?.records());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn group_lags(
        &self,
        groups: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<PerKey<String, GroupLag>> {
        let groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        self.lags_of(&groups).await
    }

    async fn lags_of(&self, groups: &[String]) -> Result<PerKey<String, GroupLag>> {
        let deadline = self.deadline();
        let all = groups.iter().map(|group| (group.clone(), None)).collect();
        let (committed, described) = join(
            offsets::committed_of(&self.cluster, all, deadline),
            self.describe(groups.iter().cloned(), deadline),
        )
        .await;
        let mut committed = committed?;
        let (mut described, failure) = match described {
            Ok(described) => (described, None),
            Err(error) => (PerKey::awaiting([]), Some(error)),
        };
        let mut lags = PerKey::awaiting(groups.iter().cloned());
        for group in groups {
            let (Some(committed), described) = (committed.remove(group), described.remove(group))
            else {
                continue; // named twice
            };
            let described = described.or_else(|| failure.clone().map(Err));
            lags.put(group.clone(), unmeasured(committed, described));
        }
        self.measure(&mut lags, deadline).await;
        Ok(lags)
    }

    /// Fills in the ends of logs and ages of records, all leaders side by side.
    async fn measure(&self, lags: &mut PerKey<String, GroupLag>, deadline: Instant) {
        let partitions: BTreeSet<TopicPartition> = lags
            .iter()
            .filter_map(|(_, lag)| lag.as_ref().ok())
            .flat_map(|lag| lag.partitions.iter().map(|lag| lag.topic_partition.clone()))
            .collect();
        let places = self.places(partitions, deadline).await;
        let wanted = |which: i64| {
            let places = places.iter().filter(|(_, place)| place.is_ok());
            places.map(move |(tp, _)| (tp.clone(), which))
        };
        let level = IsolationLevel::ReadUncommitted;
        let (ends, newest) = join(
            offsets::list_each(&self.cluster, wanted(LATEST), level, deadline),
            offsets::list_each(&self.cluster, wanted(NEWEST), level, deadline),
        )
        .await;
        let mut by_leader: BTreeMap<BrokerId, Vec<(&mut GroupPartitionLag, Place)>> =
            BTreeMap::new();
        let lags = lags.values_mut().flat_map(|lag| &mut lag.partitions);
        for lag in lags {
            let tp = &lag.topic_partition;
            let place = match places.get(tp) {
                Some(Ok(place)) => *place,
                Some(Err(error)) => {
                    lag.error = Some(error.clone());
                    continue;
                }
                None => continue,
            };
            match ends.as_ref().map(|ends| ends.get(tp)) {
                Ok(Some(Ok(end))) => lag.end_offset = Some(end.offset),
                Ok(Some(Err(error))) | Err(error) => {
                    lag.error = Some(error.clone().with_topic_partition(tp.clone()));
                }
                Ok(None) => {}
            }
            let committed = lag.committed.as_ref().map(OffsetAndMetadata::offset);
            let (Some(end), Some(committed)) = (lag.end_offset, committed) else {
                continue;
            };
            let records = u64::try_from(end.saturating_sub(committed)).unwrap_or(0);
            lag.records = Some(records);
            match records {
                0 => (lag.time, lag.behind_newest) = (TimeLag::CaughtUp, TimeLag::CaughtUp),
                _ => by_leader
                    .entry(place.broker)
                    .or_default()
                    .push((lag, place)),
            }
        }
        let reading = Reading::uncommitted();
        let peek = &Peek {
            cluster: &self.cluster,
            reading: &reading,
            level,
            deadline,
        };
        let newest = &newest;
        let leaders = by_leader.into_values().map(|lags| async move {
            for (lag, at) in lags {
                let tp = &lag.topic_partition;
                let committed = lag.committed.as_ref().map_or(0, OffsetAndMetadata::offset);
                let newest = newest.as_ref().ok().and_then(|newest| newest.get(tp));
                let newest = newest.and_then(|newest| newest.as_ref().ok());
                let wall = peek.cluster.clock().wall_millis();
                let (first, last) = around(peek, tp, at, committed).await;
                lag.time = TimeLag::between(first, Some(wall));
                lag.behind_newest = TimeLag::between(last, newest.map(|newest| newest.timestamp));
            }
        });
        join_all(leaders).await;
    }

    /// Who leads the partitions, or why nobody does.
    async fn places(
        &self,
        partitions: BTreeSet<TopicPartition>,
        deadline: Instant,
    ) -> BTreeMap<TopicPartition, Result<Place>> {
        let topics: BTreeSet<&str> = partitions.iter().map(|tp| &*tp.topic).collect();
        let topics = topics.into_iter().map(str::to_owned);
        let described = self.cluster.describe_topics(deadline, topics).await;
        let place = |tp: &TopicPartition| {
            let described = described.as_ref().map_err(Error::clone)?;
            let topic = match described.get(&*tp.topic) {
                Some(topic) => topic.as_ref().map_err(Error::clone)?,
                None => return Err(Error::new(ErrorKind::UnknownTopic, "it is not described")),
            };
            let mut parts = topic.partitions.iter();
            let part = parts
                .find(|part| part.partition == tp.partition)
                .ok_or_else(|| offsets::no_partition(tp, topic.partitions.len()))?;
            let broker = part
                .leader
                .ok_or_else(|| Error::new(ErrorKind::NotLeader, "the partition has no leader"))?;
            Ok(Place {
                broker,
                epoch: part.leader_epoch,
                topic_id: topic
                    .id
                    .map_or(Uuid::nil(), |id| Uuid::from_bytes(*id.as_bytes())),
            })
        };
        let places = partitions.iter().map(|tp| {
            let place = place(tp).map_err(|error| error.with_topic_partition(tp.clone()));
            (tp.clone(), place)
        });
        places.collect()
    }
}

/// What is known of a group before its partitions are looked at.
fn unmeasured(
    committed: Result<CommittedOffsets>,
    described: Option<Result<GroupDescription>>,
) -> Result<GroupLag> {
    let committed = committed?;
    let mut members = BTreeMap::new();
    match described {
        Some(Ok(described)) => {
            for member in described.members {
                let id = member.member;
                let parts = member.partitions.into_iter();
                members.extend(parts.map(|tp| (tp, id.clone())));
            }
        }
        // Offsets say enough. A group of something else than consumers has them, too.
        Some(Err(error)) if !committed.is_empty() => {
            tracing::debug!(%error, "the group's members are not known");
        }
        Some(Err(error)) => return Err(error),
        None => {}
    }
    let partitions: BTreeSet<_> = committed.keys().chain(members.keys()).cloned().collect();
    let partitions = partitions.into_iter().map(|tp| GroupPartitionLag {
        committed: committed.get(&tp).cloned(),
        end_offset: None,
        records: None,
        time: TimeLag::Unknown,
        behind_newest: TimeLag::Unknown,
        member: members.remove(&tp),
        error: None,
        topic_partition: tp,
    });
    Ok(GroupLag {
        partitions: partitions.collect(),
    })
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
                .is_some_and(|code| code.get() == codes::OFFSET_OUT_OF_RANGE) =>
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
