//! Committed offsets of groups: looked up, changed, deleted and reset, from outside of the group.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join;
use indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::Admin;
use super::log_offsets::OffsetSpec;
use crate::clock::Instant;
use crate::cluster::ask::{Answers, Asking, Operation, Refusal, Route};
use crate::cluster::per_key::PerKey;
use crate::cluster::{CoordinatorKey, Snapshot};
use crate::config::consumer::IsolationLevel;
use crate::error::{Error, ErrorKind, Result};
use crate::offsets::{self, CommittedOffsets, EARLIEST, Found, GroupsToLookUp, LATEST};
use crate::types::{BrokerId, OffsetAndMetadata, Timestamp, TopicPartition};
use crate::wire::offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse};
use crate::wire::offsets::{
    BY_TOPIC_ID, CommitPartition, CommitTopic, OffsetCommitRequest, OffsetCommitResponse,
};
use crate::wire::{codes, str_bytes};

/// Where the offsets of a group are reset to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetTo {
    /// The beginning of each log.
    Earliest,
    /// The end of each log.
    Latest,
    /// The first record that is not older than the time; the end of the log where there is none.
    Time(Timestamp),
    /// So many offsets on from what is committed, or back if negative.
    ShiftBy(i64),
    /// This offset.
    Offset(i64),
}

/// How the offsets of a group are reset: see [`Admin::reset_group_offsets`].
///
/// ```
/// use ottla::admin::{ResetGroupOffsets, ResetTo};
///
/// let reset = ResetGroupOffsets::new(ResetTo::ShiftBy(-100))
///     .topics(["orders"])
///     .dry_run(true);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ResetGroupOffsets {
    to: ResetTo,
    topics: BTreeSet<String>,
    partitions: BTreeSet<TopicPartition>,
    dry_run: bool,
}

impl ResetGroupOffsets {
    /// Of all partitions that the group has committed for, unless topics or partitions are named.
    pub fn new(to: ResetTo) -> Self {
        Self {
            to,
            topics: BTreeSet::new(),
            partitions: BTreeSet::new(),
            dry_run: false,
        }
    }

    /// All partitions of these topics. Default: none are named.
    pub fn topics(mut self, topics: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// These partitions. Default: none are named.
    pub fn partitions(mut self, partitions: impl IntoIterator<Item = TopicPartition>) -> Self {
        self.partitions.extend(partitions);
        self
    }

    /// Whether nothing is committed, so that the plan alone is returned. Default: false.
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }
}

/// A committed offset that was reset, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResetOffset {
    /// What was committed; `None` if nothing.
    pub before: Option<i64>,
    /// What is committed now.
    pub after: i64,
}

impl Admin {
    /// Everything that several groups have committed, in one pass. Nothing for a group that does
    /// not exist.
    ///
    /// # Errors
    ///
    /// Of the call, if nothing is known about any group; of each group
    /// [`Authorization`](ErrorKind::Authorization), or what kept its coordinator from answering in
    /// time.
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// for (group, offsets) in admin.list_group_offsets(["billing", "mail"]).await? {
    ///     println!("{group}: {} partitions", offsets?.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn list_group_offsets(
        &self,
        groups: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<PerKey<String, BTreeMap<TopicPartition, OffsetAndMetadata>>> {
        let groups = groups.into_iter();
        let groups: GroupsToLookUp = groups.map(|group| (group.into(), None)).collect();
        offsets::committed_of(&self.cluster, groups, self.deadline()).await
    }

    /// Commits offsets for a group from outside. The group must have no members.
    ///
    /// # Errors
    ///
    /// Of the call, if nothing is known about any partition. For one partition, among others
    /// [`Group`](ErrorKind::Group) if the group has members,
    /// [`UnknownTopic`](ErrorKind::UnknownTopic) if there is no such partition,
    /// [`Authorization`](ErrorKind::Authorization). One that may have been committed all the same
    /// says so ([`Error::is_maybe_written`]).
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// use ottla::{OffsetAndMetadata, TopicPartition};
    ///
    /// let first = TopicPartition::new("orders", 0);
    /// let offsets = [(first, OffsetAndMetadata::new(42))];
    /// admin.alter_group_offsets("billing", offsets).await?.all()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting and nothing else: a request that was sent is carried
    /// out, so the offsets may or may not be committed.
    pub async fn alter_group_offsets(
        &self,
        group: &str,
        offsets: impl IntoIterator<Item = (TopicPartition, OffsetAndMetadata)>,
    ) -> Result<PerKey<TopicPartition, ()>> {
        let offsets = offsets.into_iter().collect();
        self.commit_for(group, offsets, self.deadline()).await
    }

    /// Deletes what a group has committed for partitions. No member may be subscribed to their
    /// topics. Nothing committed is a success, too.
    ///
    /// # Errors
    ///
    /// Of the call, if nothing is known about any partition. For one partition, among others
    /// [`Group`](ErrorKind::Group) if a member is subscribed to the topic (Kafka's code
    /// `GROUP_SUBSCRIBED_TO_TOPIC`, 86) or if there is no such group (`GROUP_ID_NOT_FOUND`, 69),
    /// [`UnknownTopic`](ErrorKind::UnknownTopic), [`Authorization`](ErrorKind::Authorization).
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// use ottla::TopicPartition;
    ///
    /// let first = TopicPartition::new("orders", 0);
    /// admin.delete_group_offsets("billing", [first]).await?.all()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting and nothing else: a request that was sent is carried
    /// out, so the offsets may or may not be deleted.
    pub async fn delete_group_offsets(
        &self,
        group: &str,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) -> Result<PerKey<TopicPartition, ()>> {
        let partitions = PerKey::awaiting(partitions);
        let deadline = self.deadline();
        let delete = Delete { group };
        self.cluster.ask_each(&delete, deadline, partitions).await
    }

    /// Resets what a group has committed, as `kafka-consumer-groups.sh --reset-offsets` does: to
    /// the beginning or the end of the logs, a time, an offset, or by a shift. What lies outside of
    /// a log becomes the log's beginning or end. The group must have no members, also for a dry
    /// run.
    ///
    /// # Errors
    ///
    /// Of the call: [`Group`](ErrorKind::Group) if the group has members, or what kept brokers from
    /// telling what is committed and which partitions there are. For one partition, what kept its
    /// offset from being looked up or committed; [`Offset`](ErrorKind::Offset) if a shift finds
    /// nothing committed. Other partitions are reset all the same.
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// use ottla::admin::{ResetGroupOffsets, ResetTo};
    ///
    /// let plan = ResetGroupOffsets::new(ResetTo::Earliest).topics(["orders"]).dry_run(true);
    /// for (partition, reset) in admin.reset_group_offsets("billing", plan.clone()).await? {
    ///     let reset = reset?;
    ///     println!("{partition}: {:?} -> {}", reset.before, reset.after);
    /// }
    /// admin.reset_group_offsets("billing", plan.dry_run(false)).await?.all()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting and nothing else: a request that was sent is carried
    /// out, so the offsets may or may not be reset. A dry run changes nothing.
    pub async fn reset_group_offsets(
        &self,
        group: &str,
        reset: ResetGroupOffsets,
    ) -> Result<PerKey<TopicPartition, ResetOffset>> {
        let deadline = self.deadline();
        let (committed, idle) = join(
            offsets::committed_of(
                &self.cluster,
                GroupsToLookUp::from([(group.to_owned(), None)]),
                deadline,
            ),
            self.must_be_without_members(group, deadline),
        )
        .await;
        let committed = committed?.only()?;
        idle?;
        let partitions = self.to_reset(&reset, &committed, deadline).await?;
        let mut plan = self
            .plan(reset.to, partitions, &committed, deadline)
            .await?;
        if reset.dry_run {
            return Ok(plan);
        }
        let offsets = plan.iter().filter_map(|(tp, reset)| {
            let after = reset.as_ref().ok()?.after;
            Some((tp.clone(), OffsetAndMetadata::new(after)))
        });
        let offsets = offsets.collect();
        for (tp, altered) in self.commit_for(group, offsets, deadline).await? {
            if let Err(error) = altered {
                plan.put(tp, Err(error));
            }
        }
        Ok(plan)
    }

    async fn must_be_without_members(&self, group: &str, deadline: Instant) -> Result<()> {
        let described = self.describe([group.to_owned()], deadline).await?.only();
        match described {
            Ok(described) if !described.members.is_empty() => {
                let count = described.members.len();
                let doing = format_args!("resetting offsets of group '{group}' ({count} members)");
                Err(Error::from_code(codes::NON_EMPTY_GROUP, doing))
            }
            Ok(_) => Ok(()),
            // It may have offsets all the same, or get some.
            Err(error) if is(&error, codes::GROUP_ID_NOT_FOUND) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn to_reset(
        &self,
        reset: &ResetGroupOffsets,
        committed: &CommittedOffsets,
        deadline: Instant,
    ) -> Result<BTreeSet<TopicPartition>> {
        let mut partitions = reset.partitions.clone();
        if reset.topics.is_empty() {
            if partitions.is_empty() {
                partitions.extend(committed.keys().cloned());
            }
            return Ok(partitions);
        }
        let topics = reset.topics.iter().cloned();
        let described = self.cluster.describe_topics(deadline, topics).await?;
        for topic in described.all()? {
            let numbers = topic.partitions.iter().map(|part| part.partition);
            partitions.extend(numbers.map(|number| TopicPartition::new(&*topic.name, number)));
        }
        Ok(partitions)
    }

    /// What would be committed, within the bounds of the logs.
    async fn plan(
        &self,
        to: ResetTo,
        partitions: BTreeSet<TopicPartition>,
        committed: &CommittedOffsets,
        deadline: Instant,
    ) -> Result<PerKey<TopicPartition, ResetOffset>> {
        let level = IsolationLevel::ReadUncommitted;
        let list = |which: i64| {
            let asked: Vec<_> = partitions.iter().map(|tp| (tp.clone(), which)).collect();
            offsets::list_each(&self.cluster, asked, level, deadline)
        };
        let (first, last) = join(list(EARLIEST), list(LATEST)).await;
        let (mut first, mut last) = (first?, last?);
        let mut at_time = match to {
            ResetTo::Time(time) => Some(list(OffsetSpec::Time(time).to_wire()?).await?),
            _ => None,
        };
        let mut plan = PerKey::awaiting([]);
        for tp in partitions {
            let before = committed.get(&tp).map(OffsetAndMetadata::offset);
            let looked_up = [Some(&mut first), Some(&mut last), at_time.as_mut()];
            let looked_up = looked_up.map(|found| found.and_then(|found| found.remove(&tp)));
            let after = after(to, before, looked_up);
            let reset = after
                .map(|after| ResetOffset { before, after })
                .map_err(|error| error.with_topic_partition(tp.clone()));
            plan.put(tp, reset);
        }
        Ok(plan)
    }

    async fn commit_for(
        &self,
        group: &str,
        offsets: IndexMap<TopicPartition, OffsetAndMetadata>,
        deadline: Instant,
    ) -> Result<PerKey<TopicPartition, ()>> {
        let partitions = PerKey::awaiting(offsets.keys().cloned());
        let alter = Alter { group, offsets };
        self.cluster.ask_each(&alter, deadline, partitions).await
    }
}

fn is(error: &Error, code: i16) -> bool {
    error.code().is_some_and(|told| told.get() == code)
}

/// The offset to reset to, given the beginning and the end of the log and what was found at a time.
fn after(
    to: ResetTo,
    before: Option<i64>,
    [first, last, at_time]: [Option<Result<Found>>; 3],
) -> Result<i64> {
    let known = |found: Option<Result<Found>>| {
        let unknown = || Err(Error::new(ErrorKind::Protocol, "the offset was not told"));
        found.unwrap_or_else(unknown).map(|found| found.offset)
    };
    let (first, last) = (known(first)?, known(last)?);
    let wanted = match to {
        ResetTo::Earliest => first,
        ResetTo::Latest => last,
        ResetTo::Offset(offset) => offset,
        ResetTo::ShiftBy(by) => match before {
            Some(before) => before.saturating_add(by),
            None => {
                let message = "nothing is committed that could be shifted";
                return Err(Error::new(ErrorKind::Offset, message));
            }
        },
        ResetTo::Time(_) => match known(at_time)? {
            // Nothing is so young.
            ..0 => last,
            offset => offset,
        },
    };
    // A log that was cut between the look-ups may end before it begins.
    Ok(wanted.min(last).max(first))
}

/// OffsetCommit by somebody who is not in the group.
struct Alter<'g> {
    group: &'g str,
    offsets: IndexMap<TopicPartition, OffsetAndMetadata>,
}

impl Operation for Alter<'_> {
    type Key = TopicPartition;
    type Request = OffsetCommitRequest;
    type Value = ();

    const DOING: &'static str = "committing offsets for group";

    fn route<'a>(&'a self, _: &'a TopicPartition) -> Route<'a> {
        Route::Coordinator(CoordinatorKey::Group(self.group))
    }

    fn doing(&self, _: &TopicPartition) -> String {
        format!("{} '{}'", Self::DOING, self.group)
    }

    /// Topics by the names that were given.
    fn version(&self, offered: i16, _: &[TopicPartition], _: &Snapshot) -> Result<i16> {
        Ok(offered.min(BY_TOPIC_ID - 1))
    }

    fn request(&self, partitions: &[TopicPartition], _: &Asking<'_>) -> OffsetCommitRequest {
        let mut topics: IndexMap<&str, CommitTopic> = IndexMap::new();
        for tp in partitions {
            let Some(offset) = self.offsets.get(tp) else {
                continue;
            };
            let topic = topics.entry(&tp.topic).or_insert_with(|| CommitTopic {
                name: str_bytes(&tp.topic),
                id: Uuid::nil(),
                partitions: Vec::new(),
            });
            topic.partitions.push(CommitPartition {
                partition: tp.partition,
                offset: offset.offset,
                leader_epoch: offset.leader_epoch.unwrap_or(-1),
                metadata: str_bytes(&offset.metadata),
            });
        }
        OffsetCommitRequest {
            group_id: str_bytes(self.group),
            member_epoch: -1,
            member_id: StrBytes::default(),
            instance_id: None,
            topics: topics.into_values().collect(),
        }
    }

    fn read(
        &self,
        _: &[TopicPartition],
        _: BrokerId,
        response: OffsetCommitResponse,
    ) -> Answers<Self> {
        let topics = response.topics.iter();
        let each = topics.flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|(partition, code)| {
                let tp = TopicPartition::new(topic.name.as_str(), *partition);
                // This client did not say that it was a member.
                let why = (*code == codes::UNKNOWN_MEMBER_ID)
                    .then(|| str_bytes("the group has members, which must be stopped first"));
                (tp, Refusal::check(*code, why))
            })
        });
        each.collect()
    }
}

/// OffsetDelete.
struct Delete<'g> {
    group: &'g str,
}

impl Operation for Delete<'_> {
    type Key = TopicPartition;
    type Request = OffsetDeleteRequest;
    type Value = ();

    const DOING: &'static str = "deleting offsets of group";

    fn route<'a>(&'a self, _: &'a TopicPartition) -> Route<'a> {
        Route::Coordinator(CoordinatorKey::Group(self.group))
    }

    fn doing(&self, _: &TopicPartition) -> String {
        format!("{} '{}'", Self::DOING, self.group)
    }

    fn request(&self, partitions: &[TopicPartition], _: &Asking<'_>) -> OffsetDeleteRequest {
        let mut topics: IndexMap<&str, Vec<i32>> = IndexMap::new();
        for tp in partitions {
            topics.entry(&tp.topic).or_default().push(tp.partition);
        }
        let topics = topics.into_iter();
        OffsetDeleteRequest {
            group_id: str_bytes(self.group),
            topics: topics
                .map(|(name, partitions)| (str_bytes(name), partitions))
                .collect(),
        }
    }

    fn read(
        &self,
        _: &[TopicPartition],
        _: BrokerId,
        response: OffsetDeleteResponse,
    ) -> Answers<Self> {
        let topics = response.topics.iter();
        let each = topics.flat_map(|(name, partitions)| {
            partitions.iter().map(|(partition, code)| {
                let tp = TopicPartition::new(name.as_str(), *partition);
                (tp, Refusal::check(*code, None))
            })
        });
        each.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(offset: i64) -> Option<Result<Found>> {
        Some(Ok(Found {
            offset,
            timestamp: -1,
            leader_epoch: -1,
        }))
    }

    #[test]
    fn offsets_are_reset_within_the_log() {
        let reset =
            |to, before, at_time| after(to, before, [found(10), found(20), at_time]).unwrap();
        assert_eq!(reset(ResetTo::Earliest, None, None), 10);
        assert_eq!(reset(ResetTo::Latest, Some(12), None), 20);
        for (offset, expected) in [(-5, 10), (9, 10), (10, 10), (15, 15), (20, 20), (21, 20)] {
            assert_eq!(reset(ResetTo::Offset(offset), None, None), expected);
        }
        for (by, expected) in [
            (0, 15),
            (3, 18),
            (-4, 11),
            (100, 20),
            (-100, 10),
            (i64::MAX, 20),
            (i64::MIN, 10),
        ] {
            assert_eq!(reset(ResetTo::ShiftBy(by), Some(15), None), expected);
        }
        let time = ResetTo::Time(Timestamp::from_millis(7));
        assert_eq!(reset(time, None, found(13)), 13);
        assert_eq!(reset(time, None, found(-1)), 20, "nothing is so young");
        let nothing = after(ResetTo::ShiftBy(1), None, [found(10), found(20), None]);
        assert_eq!(nothing.unwrap_err().kind(), ErrorKind::Offset);
        let failed = Some(Err(Error::new(ErrorKind::Timeout, "late")));
        let failed = after(ResetTo::Latest, None, [failed, found(20), None]);
        assert!(failed.unwrap_err().is_timeout());
    }
}
