//! Batches that cannot be read, sent by a scripted broker on a paused clock: a typed error that
//! tells what to leave out, the other partition goes on, and so does this one once it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as kp;
use kafka_protocol::messages::fetch_response::PartitionData;

use super::test_brokers::{self, SECOND, fetched, metadata, offset};
use super::*;
use crate::clock::now;
use crate::cluster::Cluster;
use crate::config::consumer::ConsumerConfig;
use crate::error::Error;
use crate::net::scripted::{Far, body};
use crate::record::{BatchWriter, CodecPool, Compression, ProducerStamp};
use crate::types::TopicPartition;

/// Records of a batch.
const COUNT: i64 = 3;

fn batch(base: i64) -> Bytes {
    let mut writer = BatchWriter::new(1000);
    for _ in 0..COUNT {
        writer.append(0, None, Some(&[7; 100]), &[]).unwrap();
    }
    let mut sealed = writer.seal(Compression::None, &CodecPool::new(1)).unwrap();
    let mut bytes = BytesMut::from(&sealed.stamp(ProducerStamp::NONE)[..]);
    bytes[..8].copy_from_slice(&base.to_be_bytes());
    bytes.freeze()
}

/// What stands, as often as it is asked for, in the place of the batch 0..3.
#[derive(Clone)]
struct Poison {
    bytes: Bytes,
    /// So many answers have it, later ones a sound batch.
    answers: Arc<AtomicU32>,
}

impl Poison {
    fn take(&self) -> Bytes {
        let one_less = |left: u32| left.checked_sub(1);
        match self.answers.fetch_update(Relaxed, Relaxed, one_less) {
            Ok(_) => self.bytes.clone(),
            Err(_) => batch(0),
        }
    }
}

/// Partition 0 begins with the poison and goes on with a sound batch; partition 1 has a sound one.
async fn broker(poison: Poison, mut far: Far) {
    far.shake_hands().await;
    while let Some(asked) = far.asked().await {
        match asked.key {
            1 => {
                let request: kp::FetchRequest = body(&asked);
                if request.session_epoch == -1 && request.session_id != 0 {
                    continue;
                }
                let parts = request.topics.iter().flat_map(|topic| &topic.partitions);
                let mut found = Vec::new();
                for part in parts {
                    let records = match (part.partition, part.fetch_offset) {
                        (0, ..COUNT) => [&poison.take()[..], &batch(COUNT)].concat().into(),
                        (0, COUNT) => batch(COUNT),
                        (1, 0) => batch(0),
                        _ => continue,
                    };
                    let part = PartitionData::default()
                        .with_partition_index(part.partition)
                        .with_high_watermark(2 * COUNT)
                        .with_preferred_read_replica((-1).into())
                        .with_records(Some(records));
                    found.push(part);
                }
                if found.is_empty() {
                    tokio::time::sleep(SECOND / 2).await;
                }
                far.answer(&asked, &fetched(found)).await;
            }
            2 => far.answer(&asked, &offset(2, 0)).await,
            3 => far.answer(&asked, &metadata(&["one"], 2)).await,
            other => panic!("api {other}"),
        }
    }
}

fn start(poison: &Poison) -> Cluster {
    let poison = poison.clone();
    test_brokers::start(move |_, far| broker(poison.clone(), far))
}

/// What the poison's error told as unreadable, each time, until the sound batch came.
async fn left_out(poison: Bytes, check_crcs: bool) -> Vec<std::ops::Range<i64>> {
    left_out_of(poison, u32::MAX, check_crcs).await
}

async fn left_out_of(bytes: Bytes, answers: u32, check_crcs: bool) -> Vec<std::ops::Range<i64>> {
    let answers = Arc::new(AtomicU32::new(answers));
    let poison = Poison { bytes, answers };
    let bad = TopicPartition::new("t", 0);
    let builder = ConsumerBuilder::new(start(&poison), ConsumerConfig::default());
    let builder = builder.assign([bad.clone(), TopicPartition::new("t", 1)]);
    let builder = builder.offset_reset(OffsetReset::Earliest);
    let mut consumer = builder.check_crcs(check_crcs).build().unwrap();
    let (mut told, mut offsets, mut repeated) = (Vec::new(), BTreeSet::new(), false);
    for _ in 0..1000 {
        let batches = consumer.poll_timeout(SECOND / 10).await.unwrap().unwrap();
        for batch in &batches {
            for record in batch.records() {
                offsets.insert((batch.partition(), record.unwrap().offset()));
            }
        }
        if offsets.contains(&(0, 2 * COUNT - 1)) {
            break;
        }
        for error in batches.errors() {
            assert_eq!(error.topic_partition(), Some(&bad), "{error}");
            assert!(!error.is_fatal());
            let range = error.unreadable().unwrap();
            assert_eq!(range.start, consumer.position(&bad).unwrap());
            // It comes again until something is done about it.
            if std::mem::replace(&mut repeated, true) {
                consumer.seek(&bad, range.end).unwrap();
                told.push(range);
                repeated = false;
            }
        }
    }
    let lost = |at: &i64| told.iter().any(|range| range.contains(at));
    let of_the_first = (0..2 * COUNT).filter(|at| !lost(at)).map(|at| (0, at));
    let sound = (0..COUNT).map(|offset| (1, offset));
    let sound: BTreeSet<_> = sound.chain(of_the_first).collect();
    assert_eq!(offsets, sound, "all that can be read, told {told:?}");
    told
}

fn with(at: usize, bytes: &[u8]) -> Bytes {
    let mut poison = BytesMut::from(&batch(0)[..]);
    poison[at..at + bytes.len()].copy_from_slice(bytes);
    poison.freeze()
}

#[tokio::test(start_paused = true)]
async fn a_batch_with_a_bad_checksum_is_left_out_as_a_whole() {
    let end = batch(0).len() - 1;
    assert_eq!(left_out(with(end, &[1]), true).await, vec![0..COUNT]);
    assert_eq!(
        left_out(with(17, &[1, 2, 3, 4]), true).await,
        vec![0..COUNT]
    );
}

#[tokio::test(start_paused = true)]
async fn the_stream_of_a_partition_tells_of_its_damage_and_the_others_go_on() {
    let bytes = with(batch(0).len() - 1, &[1]);
    let answers = Arc::new(AtomicU32::new(u32::MAX));
    let cluster = start(&Poison { bytes, answers });
    let builder = ConsumerBuilder::new(cluster, ConsumerConfig::default());
    let builder = builder.assign([0, 1].map(|partition| TopicPartition::new("t", partition)));
    let builder = builder.offset_reset(OffsetReset::Earliest);
    let mut consumer = builder.build().unwrap();

    let mut partitions = consumer.split_by_partition();
    let mut outcomes = BTreeMap::new();
    for _ in 0..2 {
        let next = futures::StreamExt::next(&mut partitions).await;
        let (tp, mut batches) = next.unwrap().unwrap();
        let batch = futures::StreamExt::next(&mut batches).await.unwrap();
        outcomes.insert(tp.partition(), batch);
    }
    let damage = outcomes[&0].as_ref().unwrap_err();
    assert_eq!(damage.unreadable(), Some(0..COUNT), "{damage}");
    let sound = outcomes[&1].as_ref().unwrap();
    assert_eq!(sound.record_count() as i64, COUNT);
    // It is not an error of the whole.
    let more = tokio::time::timeout(10 * SECOND, futures::StreamExt::next(&mut partitions)).await;
    assert!(!matches!(more, Ok(Some(Err(_)))), "{more:?}");
    drop(partitions);

    // One by one: the damage comes, and the records of the other partition too.
    let mut records = consumer.stream();
    let (mut seen, mut told) = (0, 0);
    while seen < COUNT || told == 0 {
        match futures::StreamExt::next(&mut records).await.unwrap() {
            Ok(record) => seen += i64::from(record.partition() == 1),
            Err(error) => {
                assert_eq!(error.unreadable(), Some(0..COUNT), "{error}");
                told += 1;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_damaged_on_its_way_is_asked_for_again() {
    let end = batch(0).len() - 1;
    for answers in 1..=4 {
        let told = left_out_of(with(end, &[1]), answers, true).await;
        assert_eq!(told, [], "{answers} damaged answers");
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_header_does_not_make_more_be_left_out_than_there_is() {
    // The last offset delta says a billion.
    let ranges = left_out(with(23, &1_000_000_000_i32.to_be_bytes()), true).await;
    assert_eq!(ranges, [0..1, 1..2, 2..3]);
}

#[tokio::test(start_paused = true)]
async fn compression_that_cannot_be_undone_is_an_error() {
    // No codec has the number 7; the bytes are neither gzip, snappy, lz4 nor zstd.
    for codec in [7, 1, 2, 3, 4] {
        let ranges = left_out(with(22, &[codec]), false).await;
        assert_eq!(ranges, vec![0..COUNT], "codec {codec}");
    }
}

#[tokio::test(start_paused = true)]
async fn impossible_counts_and_lengths_of_records_are_errors() {
    // More than there are bytes for, and fewer than none: a header that cannot be is no header.
    for count in [i32::MAX, -1] {
        let ranges = left_out(with(57, &count.to_be_bytes()), false).await;
        assert_eq!(ranges, [0..1, 1..2, 2..3], "{count}");
    }
    // The first record says that it is longer than the batch.
    let ranges = left_out(with(61, &[0xfe, 0x7f]), false).await;
    assert_eq!(ranges, vec![0..COUNT]);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_batch_at_all_is_left_out_offset_by_offset() {
    let each: Vec<_> = (0..COUNT).map(|at| at..at + 1).collect();
    for magic in [0, 1, 3, 0xff] {
        assert_eq!(left_out(with(16, &[magic]), true).await, each, "{magic}");
    }
    for length in [-1, i32::MIN, 0, 10] {
        let length: i32 = length;
        let ranges = left_out(with(8, &length.to_be_bytes()), true).await;
        assert_eq!(ranges, each, "length {length}");
    }
}

/// A batch whose checksum is right, although its second record says that it has more bytes than
/// there are.
fn contradictory() -> Bytes {
    let record = (batch(0).len() - 61) / 3;
    // Behind length (2 bytes), attributes, two deltas and the null key comes the length of the
    // value.
    let at = 61 + record + 2 + 1 + 1 + 1 + 1;
    let mut poison = BytesMut::from(&batch(0)[..]);
    assert_eq!(poison[at..at + 2], [0xc8, 0x01], "100");
    poison[at..at + 2].copy_from_slice(&[0xfe, 0x01]);
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &poison[21..]);
    let crc = u32::try_from(crc).unwrap();
    poison[17..21].copy_from_slice(&crc.to_be_bytes());
    poison.freeze()
}

/// The offsets of partition 0 up to the error, and this.
type Told = (Vec<i64>, Error);

async fn told_by_poll(consumer: &mut Consumer) -> Told {
    let mut seen = Vec::new();
    loop {
        for batch in &consumer.poll().await.unwrap().unwrap() {
            for record in batch.records() {
                match record {
                    Ok(record) if record.partition() == 0 => seen.push(record.offset()),
                    Ok(_) => {}
                    Err(error) => return (seen, error),
                }
            }
        }
    }
}

async fn told_by_stream(consumer: &mut Consumer) -> Told {
    let mut stream = consumer.stream();
    let mut seen = Vec::new();
    loop {
        match futures::StreamExt::next(&mut stream).await.unwrap() {
            Ok(record) if record.partition() == 0 => seen.push(record.offset()),
            Ok(_) => {}
            Err(error) => return (seen, error),
        }
    }
}

async fn told_by_split(consumer: &mut Consumer) -> Told {
    let mut partitions = consumer.split_by_partition();
    loop {
        let next = futures::StreamExt::next(&mut partitions).await;
        let (tp, mut batches) = next.unwrap().unwrap();
        if tp.partition() == 0 {
            let batch = futures::StreamExt::next(&mut batches).await;
            let batch = batch.unwrap().unwrap();
            let mut seen = Vec::new();
            for record in &batch {
                match record {
                    Ok(record) => seen.push(record.offset()),
                    Err(error) => return (seen, error),
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_stops_at_a_record_that_cannot_be_read_inside_of_a_sound_batch() {
    let bad = TopicPartition::new("t", 0);
    for way in 0..3 {
        let answers = Arc::new(AtomicU32::new(u32::MAX));
        let bytes = contradictory();
        let poison = Poison { bytes, answers };
        let builder = ConsumerBuilder::new(start(&poison), ConsumerConfig::default());
        let builder = builder.assign([bad.clone(), TopicPartition::new("t", 1)]);
        let builder = builder.offset_reset(OffsetReset::Earliest);
        let mut consumer = builder.build().unwrap();
        let (seen, error) = match way {
            0 => told_by_poll(&mut consumer).await,
            1 => told_by_stream(&mut consumer).await,
            _ => told_by_split(&mut consumer).await,
        };
        assert_eq!(seen, [0]);
        assert_eq!(error.topic_partition(), Some(&bad), "{error}");
        assert_eq!(error.unreadable(), Some(1..COUNT), "way {way}: {error}");
        assert!(!error.is_fatal());
        // Neither automatically nor by hand is anything committed from there on.
        if way < 2 {
            assert_eq!(consumer.position(&bad), Some(1), "way {way}");
        }
        consumer.finish();
        {
            let mut inner = consumer.shared.lock();
            let handed_out = inner.positions.handed_out();
            let behind = |(tp, at): &(_, crate::fetched::Position)| *tp == bad && at.offset > 1;
            assert!(!handed_out.iter().any(behind), "{handed_out:?}");
            inner.positions.ask(&positions::Held::new());
            let finished = inner.positions.uncommitted();
            assert!(!finished.iter().any(behind), "{finished:?}");
        }
        // The error comes again, at most once a second, until something is done about it; the other
        // partition goes on.
        let (began, mut errors) = (now(), 0);
        let mut others = BTreeSet::new();
        while now() < began + 10 * SECOND {
            let batches = consumer.poll_timeout(SECOND / 10).await.unwrap().unwrap();
            for record in batches.iter().flatten() {
                // The stream gave back what it had; that is read again up to the damage.
                let record = match record {
                    Ok(record) => record,
                    Err(error) if way == 2 => {
                        assert_eq!(error.unreadable(), Some(1..COUNT), "{error}");
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                assert!(record.partition() == 1 || way == 2 && record.offset() == 0);
                others.insert(record.offset());
            }
            for error in batches.errors() {
                assert_eq!(error.unreadable(), Some(1..COUNT), "{error}");
                errors += 1;
            }
        }
        assert!((5..=10).contains(&errors), "way {way}: {errors}");
        consumer.seek(&bad, COUNT).unwrap();
        let mut after = Vec::new();
        while after.len() < 3 {
            for record in consumer.poll().await.unwrap().iter().flatten().flatten() {
                after.push(record.unwrap().offset());
            }
        }
        assert_eq!(after, [3, 4, 5], "way {way}");
    }
}
