//! What a partition knows of its idempotent producers: a machine.
//!
//! The rules are those of Kafka's `ProducerStateManager` and `ProducerAppendInfo`: the last five
//! batches of a producer are known again as duplicates; any other batch must follow the last one;
//! a new epoch starts with sequence 0; a producer that is not known may start anywhere.

use std::collections::{BTreeMap, VecDeque};

use crate::record::BatchHeader;
use crate::wire::codes;

/// How many batches of a producer are remembered.
const REMEMBERED: usize = 5;

/// Where a batch is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Appended {
    pub(super) base_offset: i64,
    /// -1, or for a duplicate the batch's largest timestamp, as brokers answer.
    pub(super) log_append_time: i64,
}

#[derive(Debug, Default)]
pub(super) struct Sequences(BTreeMap<i64, Producer>);

#[derive(Debug)]
struct Producer {
    epoch: i16,
    marked: bool,
    batches: VecDeque<Batch>,
}

/// What a partition tells of a producer.
#[derive(Debug)]
pub(super) struct KnownProducer {
    pub(super) id: i64,
    pub(super) epoch: i16,
    /// -1 if nothing of this epoch is there.
    pub(super) last_sequence: i32,
    pub(super) last_timestamp: i64,
    /// A transaction of it has ended here.
    pub(super) marked: bool,
    /// Where its open transaction begins.
    pub(super) open: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
struct Batch {
    first: i32,
    last: i32,
    offset: i64,
    timestamp: i64,
}

impl Sequences {
    /// Where the batch is, if it is one of the producer's last five.
    pub(super) fn duplicate(&self, header: &BatchHeader) -> Option<Appended> {
        let producer = self.0.get(&header.producer_id)?;
        if crate::planted("broker-forgets-duplicates") {
            return None;
        }
        if producer.epoch != header.producer_epoch {
            return None;
        }
        let (first, last) = (header.base_sequence, last_sequence(header));
        let same = |batch: &&Batch| batch.first == first && batch.last == last;
        producer.batches.iter().find(same).map(|batch| Appended {
            base_offset: batch.offset,
            log_append_time: batch.timestamp,
        })
    }

    /// Whether the batch may be appended; the code if not.
    pub(super) fn check(&self, header: &BatchHeader) -> Result<(), i16> {
        if header.producer_id < 0 || crate::planted("broker-checks-no-sequences") {
            return Ok(());
        }
        let Some(producer) = self.0.get(&header.producer_id) else {
            return Ok(());
        };
        if header.producer_epoch < producer.epoch {
            return Err(codes::INVALID_PRODUCER_EPOCH);
        }
        let in_sequence = if header.producer_epoch > producer.epoch {
            header.base_sequence == 0
        } else {
            // Nothing after the end of a transaction that gave another epoch.
            let last = producer.batches.back();
            last.map_or(header.base_sequence == 0, |last| {
                follows(last.last, header.base_sequence)
            })
        };
        match in_sequence {
            true => Ok(()),
            false => Err(codes::OUT_OF_ORDER_SEQUENCE_NUMBER),
        }
    }

    /// The batch, under its final offset, is in the log.
    pub(super) fn appended(&mut self, header: &BatchHeader) {
        if header.producer_id < 0 {
            return;
        }
        let producer = self
            .0
            .entry(header.producer_id)
            .or_insert_with(|| Producer {
                epoch: header.producer_epoch,
                marked: false,
                batches: VecDeque::new(),
            });
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == REMEMBERED {
            producer.batches.pop_front();
        }
        producer.batches.push_back(Batch {
            first: header.base_sequence,
            last: last_sequence(header),
            offset: header.base_offset,
            timestamp: header.max_timestamp,
        });
    }

    pub(super) fn known(&self) -> impl Iterator<Item = KnownProducer> {
        self.0.iter().map(|(id, producer)| {
            let last = producer.batches.back();
            KnownProducer {
                id: *id,
                epoch: producer.epoch,
                last_sequence: last.map_or(-1, |batch| batch.last),
                last_timestamp: last.map_or(-1, |batch| batch.timestamp),
                marked: producer.marked,
                open: None,
            }
        })
    }

    /// The end of a transaction is in the log: its epoch counts from now on.
    pub(super) fn marked(&mut self, header: &BatchHeader) {
        let epoch = header.producer_epoch;
        let producer = self.0.entry(header.producer_id).or_insert(Producer {
            epoch,
            marked: true,
            batches: VecDeque::new(),
        });
        producer.marked = true;
        if epoch > producer.epoch {
            producer.epoch = epoch;
            producer.batches.clear();
        }
    }
}

/// Sequences go from 0 to `i32::MAX` and round again.
fn last_sequence(header: &BatchHeader) -> i32 {
    let last = i64::from(header.base_sequence) + i64::from(header.last_offset_delta);
    match i32::try_from(last) {
        Ok(last) => last,
        Err(_) => (last - i64::from(i32::MAX) - 1) as i32,
    }
}

fn follows(last: i32, next: i32) -> bool {
    next == last.checked_add(1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchWriter, CodecPool, Compression, ProducerStamp, RecordBatches};

    fn header(epoch: i16, sequence: i32, count: usize) -> BatchHeader {
        let mut writer = BatchWriter::new(1000);
        for _ in 0..count {
            writer.append(1, None, Some(b"v"), &[]).unwrap();
        }
        let mut sealed = writer.seal(Compression::None, &CodecPool::new(0)).unwrap();
        let bytes = sealed.stamp(ProducerStamp {
            producer_id: 7,
            producer_epoch: epoch,
            base_sequence: sequence,
            transactional: false,
        });
        *RecordBatches::new(bytes).next().unwrap().unwrap().header()
    }

    fn known(batches: &[(i16, i32, usize)]) -> Sequences {
        let mut sequences = Sequences::default();
        let mut offset = 0;
        for (epoch, sequence, count) in batches {
            let header = header(*epoch, *sequence, *count);
            sequences.check(&header).unwrap();
            sequences.appended(&BatchHeader {
                base_offset: offset,
                ..header
            });
            offset += *count as i64;
        }
        sequences
    }

    #[test]
    fn the_last_five_batches_are_known_again() {
        let sequences = known(&[
            (0, 0, 2),
            (0, 2, 1),
            (0, 3, 1),
            (0, 4, 1),
            (0, 5, 1),
            (0, 6, 1),
        ]);
        assert_eq!(
            sequences.duplicate(&header(0, 2, 1)).unwrap().base_offset,
            2
        );
        assert_eq!(
            sequences.duplicate(&header(0, 6, 1)).unwrap().base_offset,
            6
        );
        assert_eq!(sequences.duplicate(&header(0, 0, 2)), None, "the sixth");
        assert_eq!(sequences.duplicate(&header(0, 5, 2)), None, "another batch");
        assert_eq!(sequences.duplicate(&header(1, 6, 1)), None, "another epoch");
    }

    #[test]
    fn a_batch_must_follow_the_last_one() {
        let sequences = known(&[(3, 0, 2)]);
        assert_eq!(sequences.check(&header(3, 2, 1)), Ok(()));
        for wrong in [0, 1, 3] {
            let refused = sequences.check(&header(3, wrong, 1));
            assert_eq!(refused, Err(codes::OUT_OF_ORDER_SEQUENCE_NUMBER), "{wrong}");
        }
        assert_eq!(
            sequences.check(&header(2, 2, 1)),
            Err(codes::INVALID_PRODUCER_EPOCH)
        );
        assert_eq!(sequences.check(&header(4, 0, 1)), Ok(()));
        assert_eq!(
            sequences.check(&header(4, 2, 1)),
            Err(codes::OUT_OF_ORDER_SEQUENCE_NUMBER)
        );
    }

    #[test]
    fn sequences_go_round() {
        let sequences = known(&[(0, i32::MAX - 1, 2)]);
        assert_eq!(sequences.check(&header(0, 0, 1)), Ok(()));
        let sequences = known(&[(0, i32::MAX, 3)]);
        assert_eq!(sequences.check(&header(0, 2, 1)), Ok(()));
    }
}
