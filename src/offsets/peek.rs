//! Looking at single records of a log, outside of any fetch session.
//!
//! None of this touches positions, buffers or sessions, so that it can be dropped at any await.

use kafka_protocol::messages as kp;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};

use crate::clock::Instant;
use crate::cluster::Cluster;
use crate::config::consumer::IsolationLevel;
use crate::error::{Error, Result};
use crate::fetched::chunk::Chunk;
use crate::fetched::survey::{Survey, survey};
use crate::fetched::{PartEpoch, PartitionFetch, Position, Reading};
use crate::net::Lane;
use crate::record::CodecPool;
use crate::types::{BrokerId, TopicPartition};
use crate::wire::{FETCH_BY_ID, FETCH_BY_NAME, topic_name};

/// The epoch of a fetch outside of any session (KIP-227).
const SESSIONLESS: i32 = -1;
/// How many batches without a record for the application are looked past.
const ROUNDS: usize = 8;

/// How records are looked at.
pub(crate) struct Peek<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) reading: &'a Reading,
    pub(crate) level: IsolationLevel,
    pub(crate) deadline: Instant,
}

impl Reading {
    /// For those that look at a record now and then.
    pub(crate) fn uncommitted() -> Self {
        Self {
            check_crcs: true,
            read_committed: false,
            pool: CodecPool::new(1),
            damage: std::sync::Arc::default(),
        }
    }
}

/// A place to look at that no consumer reads.
pub(crate) fn place(
    tp: TopicPartition,
    topic_id: uuid::Uuid,
    leader_epoch: i32,
    offset: i64,
) -> PartitionFetch {
    PartitionFetch {
        tp,
        topic_id,
        epoch: PartEpoch::default(),
        offset,
        leader_epoch,
        last_fetched_epoch: -1,
        log_start: -1,
    }
}

impl Peek<'_> {
    /// The timestamp of the first record at or after the place's offset; `None` if there is none so
    /// far.
    pub(crate) async fn first(&self, broker: BrokerId, at: &PartitionFetch) -> Result<Option<i64>> {
        let mut from = at.offset;
        for _ in 0..ROUNDS {
            let Some((mut chunk, next)) = self.chunk(broker, at, from).await? else {
                return Ok(None);
            };
            let found = chunk.record_at(Position::new(from), self.reading);
            if found.is_some() || next <= from {
                return Ok(found.map(|(_, timestamp)| timestamp));
            }
            from = next;
        }
        Ok(None)
    }

    /// The timestamp of the last record before the place's offset; `None` if it is gone, or too
    /// much that is no record (as the markers of transactions) lies between.
    pub(crate) async fn last_before(
        &self,
        broker: BrokerId,
        at: &PartitionFetch,
    ) -> Result<Option<i64>> {
        for back in [1, 2] {
            let from = at.offset - back;
            if from < 0 {
                break;
            }
            let Some((mut chunk, _)) = self.chunk(broker, at, from).await? else {
                break;
            };
            let mut last = None;
            let mut next = from;
            while let Some((offset, timestamp)) = chunk.record_at(Position::new(next), self.reading)
                && offset < at.offset
            {
                last = Some(timestamp);
                next = offset + 1;
            }
            if last.is_some() {
                return Ok(last);
            }
        }
        Ok(None)
    }

    /// The batch that holds an offset, or the first after it, and the offset after what was
    /// fetched.
    async fn chunk(
        &self,
        broker: BrokerId,
        at: &PartitionFetch,
        from: i64,
    ) -> Result<Option<(Chunk, i64)>> {
        let link = self.cluster.link(broker, Lane::Log, self.deadline).await?;
        let newest = link.version::<kp::FetchRequest>()?;
        let by_id = newest >= FETCH_BY_ID && !at.topic_id.is_nil();
        let version = if by_id { newest } else { FETCH_BY_NAME };
        // The limit of one byte still brings one whole batch.
        let partition = FetchPartition::default()
            .with_partition(at.tp.partition)
            .with_current_leader_epoch(at.leader_epoch)
            .with_fetch_offset(from)
            .with_partition_max_bytes(1);
        let topic = FetchTopic::default().with_partitions(vec![partition]);
        let topic = match by_id {
            true => topic.with_topic_id(at.topic_id),
            false => topic.with_topic(topic_name(&at.tp.topic)),
        };
        let request = kp::FetchRequest::default()
            .with_max_bytes(1)
            .with_isolation_level(self.level.code())
            .with_session_epoch(SESSIONLESS)
            .with_topics(vec![topic]);
        let response = link.ask(version, &request, self.deadline).await?;
        let parts = response.responses.into_iter();
        let Some(part) = parts.flat_map(|topic| topic.partitions).next() else {
            return Ok(None);
        };
        for code in [response.error_code, part.error_code] {
            if code != 0 {
                let error = Error::from_code(code, "looking at single records");
                return Err(error.with_topic_partition(at.tp.clone()));
            }
        }
        let records = part.records.unwrap_or_default();
        let (Survey::Batches { next_offset, .. }, _) = survey(&records, false) else {
            return Ok(None);
        };
        let aborted = part.aborted_transactions.unwrap_or_default().into_iter();
        let aborted = aborted.map(|aborted| (aborted.first_offset, aborted.producer_id.0));
        let ends = (part.high_watermark, part.last_stable_offset);
        let chunk = Chunk::new(at.tp.clone(), at.epoch, records, aborted.collect(), ends);
        Ok(Some((chunk, next_offset)))
    }
}
