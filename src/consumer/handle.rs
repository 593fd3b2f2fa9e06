//! Looking at and steering a consumer from other tasks.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::explain::Explanation;
use super::lag::Lag;
use super::metrics::ConsumerMetrics;
use super::positions::ResetTo;
use super::refresh::{self, LagStream};
use super::shared::Shared;
use super::wanted::Subscription;
use crate::clock::{Instant, now};
use crate::error::{Error, ErrorKind, Result};
use crate::fetched::Position;
use crate::offsets::{self, EARLIEST, Found, Identity, LATEST};
use crate::types::{OffsetAndMetadata, Timestamp, TopicPartition};

/// A cloneable handle to a [`Consumer`](super::Consumer).
#[derive(Clone)]
pub struct ConsumerHandle {
    shared: Arc<Shared>,
}

impl ConsumerHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Makes the poll under way, or else the next one, return at once with what there is.
    pub fn wakeup(&self) {
        self.shared.lock().wakeup = true;
        self.shared.ready.notify_waiters();
    }

    /// As [`Consumer::pause`](super::Consumer::pause). A poll under way may still return records.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if a partition is not assigned.
    pub fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.shared.set_paused(partitions, true)
    }

    /// As [`Consumer::resume`](super::Consumer::resume).
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause).
    pub fn resume(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.shared.set_paused(partitions, false)
    }

    /// As [`Consumer::seek`](super::Consumer::seek).
    ///
    /// # Errors
    ///
    /// As [`Consumer::seek`](super::Consumer::seek).
    pub fn seek(&self, tp: &TopicPartition, offset: i64) -> Result<()> {
        self.shared.seek(tp, Position::new(offset))
    }

    /// As [`Consumer::seek_to_offset`](super::Consumer::seek_to_offset).
    ///
    /// # Errors
    ///
    /// As [`Consumer::seek`](super::Consumer::seek).
    pub fn seek_to_offset(&self, tp: &TopicPartition, to: &OffsetAndMetadata) -> Result<()> {
        let to = Position {
            offset: to.offset,
            leader_epoch: to.leader_epoch.unwrap_or(-1),
        };
        self.shared.seek(tp, to)
    }

    /// As [`Consumer::seek_to_beginning`](super::Consumer::seek_to_beginning).
    ///
    /// ```no_run
    /// # fn example(consumer: &ottla::Consumer) -> ottla::Result<()> {
    /// let handle = consumer.handle();
    /// // From another task, such as one that serves an operator: all of it once more.
    /// handle.seek_to_beginning(handle.assignment())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if a partition is not assigned.
    pub fn seek_to_beginning(
        &self,
        partitions: impl IntoIterator<Item = impl Borrow<TopicPartition>>,
    ) -> Result<()> {
        let mut partitions = partitions.into_iter();
        partitions.try_for_each(|tp| self.shared.seek_to(tp.borrow(), ResetTo::Earliest))
    }

    /// As [`Consumer::seek_to_end`](super::Consumer::seek_to_end).
    ///
    /// # Errors
    ///
    /// As [`seek_to_beginning`](Self::seek_to_beginning).
    pub fn seek_to_end(
        &self,
        partitions: impl IntoIterator<Item = impl Borrow<TopicPartition>>,
    ) -> Result<()> {
        let mut partitions = partitions.into_iter();
        partitions.try_for_each(|tp| self.shared.seek_to(tp.borrow(), ResetTo::Latest))
    }

    /// As [`Consumer::position`](super::Consumer::position).
    #[must_use]
    pub fn position(&self, tp: &TopicPartition) -> Option<i64> {
        let inner = self.shared.lock();
        let late = i64::from(crate::planted("the-position-is-told-too-late"));
        inner.positions.position(tp).map(|at| at.offset - late)
    }

    /// As [`Consumer::paused`](super::Consumer::paused).
    #[must_use]
    pub fn paused(&self) -> Vec<TopicPartition> {
        self.shared.lock().positions.paused().cloned().collect()
    }

    /// As [`Consumer::committed`](super::Consumer::committed).
    ///
    /// # Errors
    ///
    /// As [`Consumer::committed`](super::Consumer::committed).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn committed(
        &self,
        partitions: impl IntoIterator<Item = impl Borrow<TopicPartition>>,
    ) -> Result<BTreeMap<TopicPartition, OffsetAndMetadata>> {
        let identity = Identity {
            group: self.shared.group()?,
            instance_id: None,
            member: None,
        };
        let partitions: Vec<_> = owned(partitions).collect();
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let deadline = self.deadline();
        offsets::committed(&self.shared.cluster, &identity, &partitions, deadline).await
    }

    /// As [`Consumer::beginning_offsets`](super::Consumer::beginning_offsets).
    ///
    /// # Errors
    ///
    /// As [`Consumer::beginning_offsets`](super::Consumer::beginning_offsets).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn beginning_offsets(
        &self,
        partitions: impl IntoIterator<Item = impl Borrow<TopicPartition>>,
    ) -> Result<BTreeMap<TopicPartition, i64>> {
        self.bounds(partitions, EARLIEST).await
    }

    /// As [`Consumer::end_offsets`](super::Consumer::end_offsets).
    ///
    /// # Errors
    ///
    /// As [`Consumer::beginning_offsets`](super::Consumer::beginning_offsets).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn end_offsets(
        &self,
        partitions: impl IntoIterator<Item = impl Borrow<TopicPartition>>,
    ) -> Result<BTreeMap<TopicPartition, i64>> {
        self.bounds(partitions, LATEST).await
    }

    async fn bounds(
        &self,
        partitions: impl IntoIterator<Item = impl Borrow<TopicPartition>>,
        which: i64,
    ) -> Result<BTreeMap<TopicPartition, i64>> {
        let wanted = owned(partitions).map(|tp| (tp, which)).collect();
        let found = self.list(wanted).await?;
        let found = found.into_iter().map(|(tp, found)| (tp, found.offset));
        Ok(found.collect())
    }

    /// As [`Consumer::offsets_for_times`](super::Consumer::offsets_for_times).
    ///
    /// # Errors
    ///
    /// As [`Consumer::beginning_offsets`](super::Consumer::beginning_offsets).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn offsets_for_times(
        &self,
        times: impl IntoIterator<Item = (TopicPartition, Timestamp)>,
    ) -> Result<BTreeMap<TopicPartition, (i64, Timestamp)>> {
        let mut wanted = Vec::new();
        for (tp, time) in times {
            if time.as_millis() < 0 {
                let error = Error::new(ErrorKind::InvalidArgument, "negative timestamp");
                return Err(error.with_topic_partition(tp));
            }
            wanted.push((tp, time.as_millis()));
        }
        let found = self.list(wanted).await?.into_iter();
        let found = found.filter(|(_, found)| found.offset >= 0);
        Ok(found
            .map(|(tp, found)| (tp, (found.offset, Timestamp::from_millis(found.timestamp))))
            .collect())
    }

    async fn list(
        &self,
        wanted: Vec<(TopicPartition, i64)>,
    ) -> Result<BTreeMap<TopicPartition, Found>> {
        let level = self.shared.config.isolation;
        offsets::list(&self.shared.cluster, wanted, level, self.deadline()).await
    }

    fn deadline(&self) -> Instant {
        now() + self.shared.cluster.config().api_timeout
    }

    /// As [`Consumer::commit_offsets`](super::Consumer::commit_offsets), from any task: such as one that has
    /// finished a batch of its partition.
    ///
    /// # Errors
    ///
    /// As [`Consumer::commit`](super::Consumer::commit).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the commit, once begun, goes on in the background.
    pub async fn commit_offsets(
        &self,
        offsets: impl IntoIterator<Item = (TopicPartition, OffsetAndMetadata)>,
    ) -> Result<()> {
        self.shared.commit_offsets(offsets).await
    }

    /// The partitions assigned at present.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.shared.lock().positions.assigned().cloned().collect()
    }

    /// As [`Consumer::subscription`](super::Consumer::subscription).
    #[must_use]
    pub fn subscription(&self) -> Subscription {
        self.shared.lock().wanted.clone()
    }

    /// As [`Consumer::lag`](super::Consumer::lag).
    #[must_use]
    pub fn lag(&self) -> Lag {
        self.shared.lag()
    }

    /// As [`Consumer::fetch_lag`](super::Consumer::fetch_lag).
    ///
    /// # Errors
    ///
    /// As [`Consumer::end_offsets`](super::Consumer::end_offsets).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn fetch_lag(&self) -> Result<Lag> {
        let assigned = self.assignment().into_iter();
        let wanted = assigned.map(|tp| (tp, LATEST)).collect::<Vec<_>>();
        if !wanted.is_empty() {
            let deadline = self.deadline();
            let began = now();
            let found = self.list(wanted).await?;
            for (tp, found) in &found {
                let positions = &mut self.shared.lock().positions;
                positions.note_end(tp, found.offset, began, now());
            }
            // Takes timestamps from what is buffered; the others are asked for.
            drop(self.shared.lag());
            refresh::heads(&self.shared, deadline).await;
            let mut lag = self.shared.lag();
            refresh::newest(&self.shared, &mut lag, deadline).await;
            return Ok(lag);
        }
        Ok(self.shared.lag())
    }

    /// As [`Consumer::watch_lag`](super::Consumer::watch_lag).
    #[must_use]
    pub fn watch_lag(&self, interval: Duration) -> LagStream {
        LagStream::new(Arc::clone(&self.shared), interval)
    }

    /// As [`Consumer::explain`](super::Consumer::explain).
    #[must_use]
    pub fn explain(&self, tp: &TopicPartition) -> Explanation {
        self.shared.explain(tp)
    }

    /// As [`Consumer::metrics`](super::Consumer::metrics).
    #[must_use]
    pub fn metrics(&self) -> ConsumerMetrics {
        self.shared.metrics()
    }

    /// As [`Consumer::group_metadata`](super::Consumer::group_metadata).
    #[must_use]
    pub fn group_metadata(&self) -> GroupMetadata {
        GroupMetadata::of(&self.shared)
    }
}

fn owned(
    partitions: impl IntoIterator<Item = impl Borrow<TopicPartition>>,
) -> impl Iterator<Item = TopicPartition> {
    let partitions = partitions.into_iter();
    partitions.map(|tp| tp.borrow().clone())
}

impl fmt::Debug for ConsumerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerHandle").finish_non_exhaustive()
    }
}

/// Who a consumer is in its group: what a transaction needs to commit the consumer's offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    pub(crate) group_id: String,
    /// Empty where the consumer is not (yet) a member.
    pub(crate) member_id: String,
    /// The member's epoch or generation; -1 where it is not a member.
    pub(crate) epoch: i32,
    pub(crate) instance_id: Option<String>,
}

impl GroupMetadata {
    pub(super) fn of(shared: &Shared) -> Self {
        let member = shared.lock().member.clone();
        let (member_id, epoch) = member.map_or_else(
            || (String::new(), -1),
            |(id, epoch)| (id.to_string(), epoch),
        );
        Self {
            group_id: shared.config.group_id.clone().unwrap_or_default(),
            member_id,
            epoch,
            instance_id: shared.config.group_instance_id.clone(),
        }
    }

    /// The group's name (`group.id`).
    #[must_use]
    pub fn group_id(&self) -> &str {
        &self.group_id
    }

    /// The member's id; empty where the consumer is not a member.
    #[must_use]
    pub fn member_id(&self) -> &str {
        &self.member_id
    }
    /// The epoch that the member has reached (KIP-848), -1 where the consumer is not a member. Java calls it
    /// `generationId`.
    #[must_use]
    pub fn member_epoch(&self) -> i32 {
        self.epoch
    }

    /// The name that the member keeps over restarts (`group.instance.id`), if it has one.
    #[must_use]
    pub fn instance_id(&self) -> Option<&str> {
        self.instance_id.as_deref()
    }
}
