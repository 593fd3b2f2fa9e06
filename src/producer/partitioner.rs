//! Which partition a record goes to.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cluster::Topic;
use crate::record::Record;

/// Chooses the partition of records that do not name one.
///
/// It is called for every record, on the task that sends it: it must be fast and must not block. It
/// sees which partitions have a leader at present. Without one of its own a producer uses
/// [`KeyPartitioner`].
///
/// ```
/// use ottla::{Choice, Partitioner, Record, TopicView};
///
/// /// Everything of one kind in the first partition.
/// struct ByKind;
///
/// impl Partitioner for ByKind {
///     fn partition(&self, record: &Record<'_>, topic: &TopicView<'_>) -> Choice {
///         match record.key() {
///             Some(b"audit") => Choice::Partition(0),
///             _ if topic.partitions() > 1 => Choice::Partition(1),
///             _ => Choice::Sticky,
///         }
///     }
/// }
/// ```
pub trait Partitioner: Send + Sync + 'static {
    /// The choice for a record.
    fn partition(&self, record: &Record<'_>, topic: &TopicView<'_>) -> Choice;
}

/// What a [`Partitioner`] decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Choice {
    /// This partition. One that does not exist is an error of the call.
    Partition(i32),
    /// Whichever partition is being filled at present: it changes after `batch.size` bytes, prefers
    /// partitions with less to send, and avoids those without a leader (KIP-480, KIP-794). This
    /// makes the fullest batches.
    Sticky,
}

/// A topic as a [`Partitioner`] sees it.
#[derive(Clone, Copy)]
pub struct TopicView<'a> {
    pub(crate) topic: &'a Arc<Topic>,
}

impl TopicView<'_> {
    /// The topic's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.topic.name
    }

    /// The number of partitions, at least 1. They are numbered from 0.
    #[must_use]
    pub fn partitions(&self) -> i32 {
        i32::try_from(self.topic.partitions.len()).unwrap_or(i32::MAX)
    }

    /// Whether a partition has a leader at present.
    #[must_use]
    pub fn is_available(&self, partition: i32) -> bool {
        usize::try_from(partition)
            .ok()
            .and_then(|index| self.topic.partitions.get(index))
            .is_some_and(|partition| partition.leader.is_some())
    }
}

impl fmt::Debug for TopicView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicView({}, {})", self.name(), self.partitions())
    }
}

/// The default: the key's hash (murmur2, as in Java's client) decides, so that equal keys share a
/// partition with each other and with records of other clients; records without a key go to the
/// sticky partition.
///
/// ```
/// use ottla::KeyPartitioner;
///
/// // Where Java puts this key in a topic of 100 partitions.
/// assert_eq!(KeyPartitioner::partition_of(b"foobar", 100), 66);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct KeyPartitioner;

impl KeyPartitioner {
    /// The partition of a key in a topic with so many partitions.
    #[must_use]
    pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
        (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
    }
}

impl Partitioner for KeyPartitioner {
    fn partition(&self, record: &Record<'_>, topic: &TopicView<'_>) -> Choice {
        match record.key() {
            Some(key) => Choice::Partition(Self::partition_of(key, topic.partitions())),
            None => Choice::Sticky,
        }
    }
}

/// One record after the other to the next available partition, whatever its key.
///
/// Spreads evenly even a few records, at the price of small batches.
///
/// ```
/// let spread = ottla::RoundRobin::default();
/// # let _ = spread;
/// ```
#[derive(Debug, Default)]
pub struct RoundRobin {
    next: AtomicU32,
}

impl Partitioner for RoundRobin {
    fn partition(&self, _: &Record<'_>, topic: &TopicView<'_>) -> Choice {
        let partitions = topic.partitions().unsigned_abs().max(1);
        let turn = || {
            let turn = self.next.fetch_add(1, Ordering::Relaxed) % partitions;
            i32::try_from(turn).unwrap_or(0)
        };
        let first = turn();
        let mut choice = first;
        // Once around at most: with no leader anywhere any is as good.
        for _ in 1..partitions.min(64) {
            if topic.is_available(choice) {
                return Choice::Partition(choice);
            }
            choice = turn();
        }
        Choice::Partition(if topic.is_available(choice) {
            choice
        } else {
            first
        })
    }
}

/// `partitioner.ignore.keys`: as if no record had a key.
pub(crate) struct IgnoreKeys;

impl Partitioner for IgnoreKeys {
    fn partition(&self, _: &Record<'_>, _: &TopicView<'_>) -> Choice {
        Choice::Sticky
    }
}

/// The hash of Kafka's Java client (`Utils.murmur2`).
fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // Java's array lengths are ints, so a longer key cannot occur there.
    let mut hash = SEED ^ (data.len() as u32);
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (shift, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * shift);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ (hash >> 15)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::snapshot::Partition;
    use crate::types::BrokerId;

    fn topic(leaders: &[bool]) -> Arc<Topic> {
        let partitions = leaders
            .iter()
            .map(|led| Partition {
                leader: led.then_some(BrokerId(1)),
                leader_epoch: 0,
                replicas: Vec::new(),
                isr: Vec::new(),
                offline: Vec::new(),
            })
            .collect();
        Arc::new(Topic {
            name: "t".into(),
            id: uuid::Uuid::nil(),
            internal: false,
            partitions,
        })
    }

    #[test]
    fn hashes_are_those_of_java() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn keys_decide_and_the_rest_sticks() {
        let topic = topic(&[true; 7]);
        let view = TopicView { topic: &topic };
        let keyed = Record::to("t").with_key("abc");
        let expected = Choice::Partition(479_470_107 % 7);
        assert_eq!(KeyPartitioner.partition(&keyed, &view), expected);
        assert_eq!(
            KeyPartitioner.partition(&Record::to("t"), &view),
            Choice::Sticky
        );
        assert_eq!(IgnoreKeys.partition(&keyed, &view), Choice::Sticky);
    }

    #[test]
    fn round_robin_goes_around_those_with_a_leader() {
        let topic = topic(&[true, false, true]);
        let view = TopicView { topic: &topic };
        let spread = RoundRobin::default();
        let turns: Vec<_> = (0..4)
            .map(|_| spread.partition(&Record::to("t"), &view))
            .collect();
        assert_eq!(turns, [0, 2, 0, 2].map(Choice::Partition));
    }
}
