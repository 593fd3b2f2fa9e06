//! How far behind a consumer is, in records and in time.

use std::time::Duration;

use crate::types::{TimeLag, TopicPartition};

/// How far behind the end of a partition's log the consumer is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionLag {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The offset of the next record to be handed out; `None` until it is known.
    pub position: Option<i64>,
    /// What the group has committed, as far as this consumer knows.
    pub committed: Option<i64>,
    /// The end of the log as the last fetch saw it: the high watermark, or for
    /// `read_committed` the last stable offset, as in Java: what an open transaction holds back
    /// does not count, and a consumer that waits for one is caught up. `None` until the first
    /// fetch. [`explain`](super::ConsumerHandle::explain) tells such waiting.
    pub end_offset: Option<i64>,
    /// `end_offset - position`: offsets still to be read, an upper bound of records, since
    /// transaction markers and compacted records have offsets too.
    pub records: Option<u64>,
    /// The age of the first record not handed out yet.
    pub time: TimeLag,
    /// How much younger the log's newest record is than the last one handed out: the difference of
    /// their timestamps, which an idle producer does not make grow.
    /// [`Consumer::fetch_lag`](super::ConsumerHandle::fetch_lag) asks for it; elsewhere it is
    /// unknown unless all is caught up.
    pub behind_newest: TimeLag,
    /// How long ago `end_offset` was learnt; `None` if it was not.
    pub measured: Option<Duration>,
}

/// The lag of every assigned partition at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    pub(crate) partitions: Vec<PartitionLag>,
}

impl Lag {
    /// The partitions, ordered by topic and number.
    #[must_use]
    pub fn partitions(&self) -> &[PartitionLag] {
        &self.partitions
    }

    /// One partition's lag, if it is assigned.
    #[must_use]
    pub fn get(&self, tp: &TopicPartition) -> Option<&PartitionLag> {
        self.partitions
            .iter()
            .find(|lag| lag.topic_partition == *tp)
    }

    /// The sum over the partitions whose lag is known.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.partitions.iter().filter_map(|lag| lag.records).sum()
    }

    /// The largest known age over the partitions; `Unknown` if there are partitions behind and
    /// none of their ages is known.
    #[must_use]
    pub fn time(&self) -> TimeLag {
        TimeLag::worst(self.partitions.iter().map(|lag| lag.time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_age_is_the_largest_that_is_known() {
        let behind = |seconds| TimeLag::Behind(Duration::from_secs(seconds));
        let worst = |ages: &[TimeLag]| TimeLag::worst(ages.iter().copied());
        let (up, unknown) = (TimeLag::CaughtUp, TimeLag::Unknown);
        assert_eq!(worst(&[]), up);
        assert_eq!(worst(&[up, unknown, up]), unknown);
        assert_eq!(worst(&[behind(1), unknown, behind(2), up]), behind(2));
        assert_eq!(worst(&[unknown, behind(1)]), behind(1));
    }
}
