//! Offsets of logs: looking them up, and deleting the records before them.

use indexmap::IndexMap;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::Admin;
use crate::cluster::ask::{Answers, Asking, Operation, Refusal, Route};
use crate::cluster::per_key::PerKey;
use crate::config::consumer::IsolationLevel;
use crate::error::{Error, ErrorKind, Result, classify};
use crate::offsets::{self, EARLIEST, Found, LATEST, NEWEST};
use crate::types::{BrokerId, Timestamp, TopicPartition};
use crate::wire::topic_name;

/// Which offset of a log is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OffsetSpec {
    /// The first that the log still has.
    Earliest,
    /// That of the next record to be written: the high watermark, or for `read_committed` the last
    /// stable offset.
    Latest,
    /// That of the record with the largest timestamp (KIP-734, Kafka 3.0).
    MaxTimestamp,
    /// That of the first record that is not older.
    Time(Timestamp),
}

impl OffsetSpec {
    /// Its timestamp on the wire, where negative ones have meanings of their own.
    pub(super) fn to_wire(self) -> Result<i64> {
        match self {
            Self::Earliest => Ok(EARLIEST),
            Self::Latest => Ok(LATEST),
            Self::MaxTimestamp => Ok(NEWEST),
            Self::Time(time) if time.as_millis() < 0 => Err(Error::new(
                ErrorKind::InvalidArgument,
                "the time is negative",
            )),
            Self::Time(time) => Ok(time.as_millis()),
        }
    }
}

/// An offset that was looked up in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedOffset {
    /// The offset; `None` if the log has no such record.
    pub offset: Option<i64>,
    /// The record's timestamp; `None` for [`OffsetSpec::Earliest`] and [`OffsetSpec::Latest`].
    pub timestamp: Option<Timestamp>,
    /// The epoch of the leader that wrote the record; `None` if the broker does not say.
    pub leader_epoch: Option<i32>,
}

impl ListedOffset {
    fn read(found: Found) -> Self {
        Self {
            offset: (found.offset >= 0).then_some(found.offset),
            timestamp: (found.timestamp >= 0).then(|| Timestamp::from_millis(found.timestamp)),
            leader_epoch: (found.leader_epoch >= 0).then_some(found.leader_epoch),
        }
    }
}

/// Up to where the records of a partition are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordsToDelete {
    /// All records with smaller offsets.
    Before(i64),
    /// All records up to the high watermark.
    All,
}

impl Admin {
    /// Offsets of logs: where they begin and end, where their newest record is, and where a time is
    /// in them. Java's default for the level is
    /// [`ReadUncommitted`](IsolationLevel::ReadUncommitted).
    ///
    /// # Errors
    ///
    /// Of the call, if nothing is known about any partition. For one partition, among others
    /// [`UnknownTopic`](ErrorKind::UnknownTopic) (after the whole time limit, since it may just be
    /// created), [`UnknownPartition`](ErrorKind::UnknownPartition),
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a negative time,
    /// [`UnsupportedVersion`](ErrorKind::UnsupportedVersion) for `MaxTimestamp` before Kafka 3.0, or
    /// what kept its leader from answering.
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// use ottla::admin::OffsetSpec;
    /// use ottla::{IsolationLevel, TopicPartition};
    ///
    /// let wanted = [0, 1, 2].map(|n| (TopicPartition::new("orders", n), OffsetSpec::Latest));
    /// for (partition, end) in admin.list_offsets(wanted, IsolationLevel::ReadUncommitted).await? {
    ///     println!("{partition} ends at {:?}", end?.offset);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn list_offsets(
        &self,
        wanted: impl IntoIterator<Item = (TopicPartition, OffsetSpec)>,
        level: IsolationLevel,
    ) -> Result<PerKey<TopicPartition, ListedOffset>> {
        let wanted: IndexMap<_, _> = wanted.into_iter().collect();
        let mut listed = PerKey::awaiting(wanted.keys().cloned());
        let mut asked = Vec::new();
        for (tp, spec) in wanted {
            match spec.to_wire() {
                Ok(which) => asked.push((tp, which)),
                Err(error) => {
                    let error = error.with_topic_partition(tp.clone());
                    listed.put(tp, Err(error));
                }
            }
        }
        let found = offsets::list_each(&self.cluster, asked, level, self.deadline()).await?;
        for (tp, found) in found {
            listed.put(tp, found.map(ListedOffset::read));
        }
        Ok(listed)
    }

    /// Deletes the records before an offset, of several partitions; tells where each log begins
    /// then. Replicas that are down delete them when they are back.
    ///
    /// # Errors
    ///
    /// Of the call, if nothing is known about any partition. For one partition, among others
    /// [`Offset`](ErrorKind::Offset) if the offset is beyond the high watermark,
    /// [`Policy`](ErrorKind::Policy) if the topic is only compacted,
    /// [`Authorization`](ErrorKind::Authorization),
    /// [`UnknownPartition`](ErrorKind::UnknownPartition). One that may have been carried out all the
    /// same says so ([`Error::is_maybe_written`]).
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// use ottla::TopicPartition;
    /// use ottla::admin::RecordsToDelete;
    ///
    /// let first = TopicPartition::new("orders", 0);
    /// let deleted = admin.delete_records([(first, RecordsToDelete::Before(1000))]).await?;
    /// println!("the log begins at {:?}", deleted.all()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting and nothing else: a request that was sent is carried
    /// out, so the records may or may not be deleted.
    pub async fn delete_records(
        &self,
        records: impl IntoIterator<Item = (TopicPartition, RecordsToDelete)>,
    ) -> Result<PerKey<TopicPartition, i64>> {
        let delete = Delete(records.into_iter().collect());
        let asked = PerKey::awaiting(delete.0.keys().cloned());
        let deadline = self.deadline();
        self.cluster.ask_each(&delete, deadline, asked).await
    }
}

struct Delete(IndexMap<TopicPartition, RecordsToDelete>);

impl Operation for Delete {
    type Key = TopicPartition;
    type Request = DeleteRecordsRequest;
    type Value = i64;

    const DOING: &'static str = "deleting records";

    fn route<'a>(&'a self, tp: &'a TopicPartition) -> Route<'a> {
        Route::Leader(tp)
    }

    fn request(&self, partitions: &[TopicPartition], asking: &Asking<'_>) -> DeleteRecordsRequest {
        let mut topics: IndexMap<&str, Vec<DeleteRecordsPartition>> = IndexMap::new();
        for tp in partitions {
            // -1 stands for the high watermark.
            let offset = match self.0.get(tp) {
                Some(RecordsToDelete::Before(offset)) => *offset,
                Some(RecordsToDelete::All) | None => -1,
            };
            let partition = DeleteRecordsPartition::default()
                .with_partition_index(tp.partition)
                .with_offset(offset);
            topics.entry(&tp.topic).or_default().push(partition);
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            DeleteRecordsTopic::default()
                .with_name(topic_name(name))
                .with_partitions(partitions)
        });
        DeleteRecordsRequest::default()
            .with_topics(topics.collect())
            .with_timeout_ms(asking.timeout_ms)
    }

    fn read(
        &self,
        _: &[TopicPartition],
        _: BrokerId,
        response: DeleteRecordsResponse,
    ) -> Answers<Self> {
        let topics = response.topics.iter();
        let each = topics.flat_map(|topic| {
            topic.partitions.iter().map(|part| {
                let tp = TopicPartition::new(topic.name.as_str(), part.partition_index);
                let refused = Refusal::check(part.error_code, None);
                (tp, refused.map(|()| part.low_watermark))
            })
        });
        each.collect()
    }

    /// The leader may not have heard of a new topic.
    fn may_pass(&self, code: i16) -> bool {
        classify::classify(code).is_retriable()
    }
}
