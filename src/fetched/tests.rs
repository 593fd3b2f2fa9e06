use std::sync::Arc;

use super::buffer::{FetchBuffer, Taking};
use super::chunk::{Chunk, Portion, Taken};
use super::survey::{Survey, survey};
use super::{PartEpoch, Position, Reading};
use crate::error::ErrorKind;
use crate::record::{BatchWriter, CodecPool, Compression, ProducerStamp, RecordView};
use crate::types::{BrokerId, TopicPartition};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

static POOL: CodecPool = CodecPool::new(1);

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn epoch() -> PartEpoch {
    PartEpoch(1)
}

fn reading(read_committed: bool) -> Reading {
    Reading {
        check_crcs: true,
        read_committed,
        pool: CodecPool::new(1),
        damage: Arc::default(),
    }
}

/// A batch of values equal to their offsets, as a broker with leader epoch 3 stores it.
fn batch(base: i64, offsets: &[i64], last: i64, compression: Compression) -> Vec<u8> {
    stored(base, offsets, last, compression, ProducerStamp::NONE)
}

fn stored(
    base: i64,
    offsets: &[i64],
    last: i64,
    compression: Compression,
    stamp: ProducerStamp,
) -> Vec<u8> {
    // One record per offset, then those that compaction removed are taken out by hand: simplest is
    // to write records with the wanted deltas, which the writer numbers from 0 on without gaps.
    let mut writer = BatchWriter::new(1024);
    for offset in offsets {
        let value = offset.to_string();
        writer
            .append(1000 + offset, None, Some(value.as_bytes()), &[])
            .unwrap();
    }
    let mut sealed = writer.seal(compression, &POOL).unwrap();
    let mut bytes = sealed.stamp(stamp).to_vec();
    if compression == Compression::None {
        // Each record: length, attributes, timestamp delta, offset delta (one byte each below 64).
        let mut at = 61;
        for offset in offsets {
            let len = usize::from(bytes[at] / 2);
            let delta = u8::try_from(offset - base).unwrap();
            // A timestamp delta of 64 and more takes two bytes.
            let skip = if bytes[at + 2] & 0x80 == 0 { 3 } else { 4 };
            bytes[at + skip] = delta * 2;
            at += 1 + len;
        }
    }
    bytes[..8].copy_from_slice(&base.to_be_bytes());
    bytes[12..16].copy_from_slice(&3_i32.to_be_bytes());
    let delta = i32::try_from(last - base).unwrap();
    bytes[23..27].copy_from_slice(&delta.to_be_bytes());
    seal(bytes)
}

fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc_fast::crc32_iscsi(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn range(from: i64, to: i64) -> Vec<u8> {
    let offsets: Vec<_> = (from..to).collect();
    batch(from, &offsets, to - 1, Compression::None)
}

fn transactional(from: i64, to: i64, producer_id: i64) -> Vec<u8> {
    let offsets: Vec<_> = (from..to).collect();
    let stamp = ProducerStamp {
        producer_id,
        producer_epoch: 0,
        base_sequence: 0,
        transactional: true,
    };
    stored(from, &offsets, to - 1, Compression::None, stamp)
}

/// A transaction marker.
fn marker(at: i64, producer_id: i64, commit: bool) -> Vec<u8> {
    let mut writer = BatchWriter::new(128);
    let key = [0, 0, 0, u8::from(commit)];
    writer.append(0, Some(&key), Some(&[0; 6]), &[]).unwrap();
    let mut bytes = writer
        .seal(Compression::None, &POOL)
        .unwrap()
        .stamp(ProducerStamp {
            producer_id,
            producer_epoch: 0,
            base_sequence: -1,
            transactional: true,
        })
        .to_vec();
    bytes[..8].copy_from_slice(&at.to_be_bytes());
    bytes[22] |= 1 << 5;
    seal(bytes)
}

fn chunk(parts: &[Vec<u8>], aborted: Vec<(i64, i64)>) -> Chunk {
    Chunk::new(
        tp(0),
        epoch(),
        Bytes::from(parts.concat()),
        aborted,
        (100, 100),
    )
}

/// Everything a chunk gives, by polls of `max` records.
fn drain(chunk: &mut Chunk, from: i64, max: usize, reading: &Reading) -> (Vec<i64>, i64) {
    let mut position = Position::new(from);
    let mut offsets = Vec::new();
    loop {
        let taken = chunk.take(&mut up_to(max), position, reading).unwrap();
        assert!(taken.next.offset >= position.offset);
        position = taken.next;
        if let Some(batch) = &taken.batch {
            let before = offsets.len();
            for record in batch.records() {
                let record: RecordView<'_> = record.unwrap();
                assert_eq!(
                    record.value().unwrap(),
                    record.offset().to_string().as_bytes()
                );
                offsets.push(record.offset());
            }
            assert_eq!(offsets.len() - before, batch.record_count());
            assert!(batch.record_count() <= max);
        }
        if chunk.is_done() {
            return (offsets, position.offset);
        }
    }
}

#[test]
fn a_cut_batch_goes_on_where_it_was_cut() {
    for max in [1, 2, 3, 5, 100] {
        let mut chunk = chunk(&[range(0, 5), range(5, 12)], Vec::new());
        let (offsets, next) = drain(&mut chunk, 0, max, &reading(false));
        assert_eq!((offsets, next), ((0..12).collect(), 12));
    }
}

#[test]
fn a_cut_batch_is_not_decoded_again() {
    let bytes = batch(0, &(0..50).collect::<Vec<_>>(), 49, "gzip".parse().unwrap());
    let mut chunk = chunk(&[bytes], Vec::new());
    let reading = reading(false);
    let first = chunk
        .take(&mut up_to(20), Position::new(0), &reading)
        .unwrap();
    let second = chunk.take(&mut up_to(20), first.next, &reading).unwrap();
    let body = |taken: &Taken| {
        taken.batch.as_ref().unwrap().segments[0]
            .batch
            .body()
            .as_ptr()
    };
    assert_eq!(body(&first), body(&second));
}

#[test]
fn a_position_inside_of_a_batch_skips_what_is_before_it() {
    let mut chunk = chunk(&[range(0, 10)], Vec::new());
    let (offsets, next) = drain(&mut chunk, 7, 100, &reading(false));
    assert_eq!((offsets, next), (vec![7, 8, 9], 10));
}

#[test]
fn offsets_that_compaction_removed_are_passed() {
    let parts = [
        batch(0, &[1, 4], 6, Compression::None),
        batch(10, &[12], 19, Compression::None),
    ];
    let mut chunk = chunk(&parts, Vec::new());
    let (offsets, next) = drain(&mut chunk, 0, 1, &reading(false));
    assert_eq!((offsets, next), (vec![1, 4, 12], 20));
}

#[test]
fn control_batches_are_passed_without_a_record() {
    let mut only = chunk(&[marker(5, 9, true)], Vec::new());
    let taken = only
        .take(&mut up_to(10), Position::new(5), &reading(false))
        .unwrap();
    assert!(taken.batch.is_none());
    assert_eq!((taken.next.offset, only.is_done()), (6, true));
}

#[test]
fn read_committed_hides_aborted_records_and_those_only() {
    let log = [
        transactional(0, 3, 7), // aborted at 5
        transactional(3, 4, 8), // committed at 6
        range(4, 5),            // not in a transaction
        marker(5, 7, false),
        marker(6, 8, true),
        transactional(7, 9, 7), // the same producer again, committed at 9
        marker(9, 7, true),
    ];
    let (offsets, next) = drain(&mut chunk(&log, vec![(0, 7)]), 0, 2, &reading(true));
    assert_eq!((offsets, next), (vec![3, 4, 7, 8], 10));
    let (offsets, next) = drain(&mut chunk(&log, vec![(0, 7)]), 0, 2, &reading(false));
    assert_eq!((offsets, next), (vec![0, 1, 2, 3, 4, 7, 8], 10));
}

#[test]
fn a_later_abort_does_not_hide_an_earlier_commit() {
    let log = [
        transactional(0, 2, 7), // committed at 2
        marker(2, 7, true),
        transactional(3, 5, 7), // aborted at 5
        marker(5, 7, false),
    ];
    let (offsets, _) = drain(&mut chunk(&log, vec![(3, 7)]), 0, 100, &reading(true));
    assert_eq!(offsets, [0, 1]);
}

#[test]
fn damage_is_an_error_after_what_is_before_it_and_stays_one() {
    let mut bad = range(3, 6);
    bad[70] ^= 1;
    let mut damaged = chunk(&[range(0, 3), bad.clone(), range(6, 9)], Vec::new());
    let reading = reading(false);
    let taken = damaged
        .take(&mut up_to(100), Position::new(0), &reading)
        .unwrap();
    assert_eq!(taken.next.offset, 3);
    assert!(!damaged.is_done());
    for _ in 0..2 {
        let error = damaged
            .take(&mut up_to(100), taken.next, &reading)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CorruptRecord);
        assert_eq!(error.topic_partition(), Some(&tp(0)));
        assert!(error.to_string().contains("offset 3"), "{error}");
    }
    let unchecked = Reading {
        check_crcs: false,
        ..reading
    };
    let mut unchecked_chunk = chunk(&[bad], Vec::new());
    assert!(
        unchecked_chunk
            .take(&mut up_to(1), Position::new(3), &unchecked)
            .is_ok()
    );
}

#[test]
fn surveys_say_where_to_go_on() {
    let whole = [range(0, 3), range(3, 9)].concat();
    let batches = |next_offset| Survey::Batches {
        next_offset,
        leader_epoch: 3,
        records: next_offset,
        damaged: false,
    };
    assert_eq!(survey(&Bytes::new(), true).0, Survey::Empty);
    assert_eq!(survey(&Bytes::from(whole.clone()), true).0, batches(9));
    let first = range(0, 3).len();
    for cut in 1..whole.len() {
        let expected = if cut < first {
            Survey::Partial
        } else {
            batches(3)
        };
        assert_eq!(
            survey(&Bytes::from(whole[..cut].to_vec()), true).0,
            expected,
            "cut at {cut}"
        );
    }
    let mut old = range(0, 3);
    old[16] = 1;
    assert_eq!(survey(&Bytes::from(old.clone()), true).0, Survey::Corrupt);
    assert_eq!(
        survey(&Bytes::from([range(0, 3), old].concat()), true).0,
        batches(3)
    );
}

#[test]
fn what_has_a_wrong_checksum_is_not_kept_behind_sound_batches() {
    let flipped = |mut bytes: Vec<u8>| {
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    };
    let (first, second, third) = (range(0, 3), range(3, 9), range(9, 12));
    let batches = |next_offset, damaged| Survey::Batches {
        next_offset,
        leader_epoch: 3,
        records: next_offset,
        damaged,
    };
    let later = Bytes::from([&first[..], &flipped(second.clone()), &third].concat());
    assert_eq!(survey(&later, true), (batches(3, false), first.len()));
    assert_eq!(survey(&later, false), (batches(12, false), later.len()));
    let at_once = Bytes::from([&flipped(first), &second[..], &third].concat());
    assert_eq!(survey(&at_once, true), (batches(12, true), at_once.len()));
}

#[test]
fn the_first_buffered_record_tells_the_time() {
    let mut chunk = chunk(&[marker(0, 9, true), range(1, 5)], Vec::new());
    let reading = reading(false);
    assert_eq!(chunk.timestamp_at(Position::new(0), &reading), Some(1001));
    assert_eq!(chunk.timestamp_at(Position::new(3), &reading), Some(1003));
    let (offsets, _) = drain(&mut chunk, 3, 100, &reading);
    assert_eq!(offsets, [3, 4]);
}

fn labelled(partition: i32, bytes: usize) -> Chunk {
    let records = BytesMut::zeroed(bytes).freeze();
    Chunk::new(tp(partition), epoch(), records, Vec::new(), (0, 0))
}

fn order(buffer: &mut FetchBuffer) -> Vec<i32> {
    std::iter::from_fn(|| buffer.take(|_| Taking::Yes))
        .map(|chunk| chunk.tp.partition)
        .collect()
}

#[test]
fn partitions_take_turns() {
    let mut buffer = FetchBuffer::default();
    for partition in [0, 0, 0, 1, 1, 2] {
        buffer.push(labelled(partition, 10));
    }
    assert_eq!((buffer.bytes(), buffer.unread(&tp(0))), (60, 30));
    assert_eq!(order(&mut buffer), [0, 1, 2, 0, 1, 0]);
    assert_eq!((buffer.bytes(), buffer.unread(&tp(0))), (0, 0));
}

#[test]
fn the_line_is_no_longer_than_the_partitions_are_many_and_what_is_empty_is_gone() {
    let mut buffer = FetchBuffer::default();
    for _ in 0..100 {
        // Taken by streams of their own, out of turn.
        for partition in 0..3 {
            buffer.push(labelled(partition, 10));
            assert!(buffer.take_of(&tp(partition), |_| Taking::Yes).is_some());
        }
        assert!(buffer.in_line() <= 3);
    }
    assert!(buffer.take(|_| Taking::Yes).is_none());
    for partition in 0..100 {
        buffer.push(labelled(partition, 10));
        assert_eq!(order(&mut buffer), [partition]);
    }
    assert_eq!((buffer.in_line(), buffer.partitions().count()), (0, 0));
    assert_eq!(buffer.bytes(), 0);
}

#[test]
fn a_rest_put_back_stays_the_first_of_its_partition_and_lets_others_go_before() {
    let mut buffer = FetchBuffer::default();
    buffer.push(labelled(0, 10));
    buffer.push(labelled(0, 20));
    buffer.push(labelled(1, 30));
    let first = buffer.take(|_| Taking::Yes).unwrap();
    buffer.put_back(first);
    let sizes: Vec<_> = std::iter::from_fn(|| buffer.take(|_| Taking::Yes))
        .map(|chunk| chunk.unread())
        .collect();
    assert_eq!(sizes, [30, 10, 20]);
}

#[test]
fn paused_partitions_wait_and_stale_data_goes() {
    let mut buffer = FetchBuffer::default();
    buffer.push(labelled(0, 10));
    buffer.push(labelled(1, 10));
    buffer.push(labelled(2, 10));
    let verdict = |chunk: &Chunk| match chunk.tp.partition {
        0 => Taking::Later,
        1 => Taking::Never,
        _ => Taking::Yes,
    };
    assert_eq!(buffer.take(verdict).unwrap().tp, tp(2));
    assert!(buffer.take(verdict).is_none());
    assert_eq!(buffer.bytes(), 10, "only what is paused is left");
    buffer.ready_again(&tp(0));
    buffer.ready_again(&tp(0));
    assert_eq!(order(&mut buffer), [0]);
    buffer.push(labelled(0, 10));
    buffer.discard(&tp(0));
    assert_eq!((buffer.bytes(), order(&mut buffer)), (0, vec![]));
}

/// A portion of so many records, whatever they take.
fn up_to(records: usize) -> Portion {
    Portion::new(records, usize::MAX)
}

proptest! {
    /// Whatever a Fetch answer holds (data, gaps, control batches, aborted transactions, a cut
    /// end), from whatever position and in whatever portions it is read: every record from the
    /// position on comes once, in order, and the position ends where the next fetch begins.
    #[test]
    fn any_answer_is_read_in_full(
        shape in prop::collection::vec((0..5_u8, 1..8_i64, 0..3_i64), 0..8),
        start in 0..20_i64, max in 1..9_usize, cut in 0..40_usize,
    ) {
        let mut log = Vec::new();
        let mut expected = Vec::new();
        let mut aborted = Vec::new();
        let mut base = 0;
        let mut whole_end = 0;
        for (index, (kind, count, gap)) in shape.iter().enumerate() {
            let last = base + count - 1 + gap;
            let is_last = index + 1 == shape.len();
            let (bytes, offsets): (Vec<u8>, Vec<i64>) = match kind {
                0 => (marker(base, 9, true), vec![]),
                // Aborted at once.
                3 if !is_last => {
                    aborted.push((base, 7));
                    let records = transactional(base, base + count, 7);
                    ([records, marker(base + count, 7, false)].concat(), vec![])
                }
                1 => {
                    let some: Vec<i64> = (base..base + count).filter(|o| o % 2 == 0).collect();
                    if some.is_empty() { continue; }
                    (batch(base, &some, last, Compression::None), some)
                }
                _ => {
                    let all: Vec<i64> = (base..base + count).collect();
                    (batch(base, &all, last, Compression::None), all)
                }
            };
            let last = match kind {
                0 => base,
                3 if !is_last => base + count,
                _ => last,
            };
            let is_cut = is_last && cut > 0 && cut < bytes.len();
            let len = bytes.len();
            log.extend(&bytes[..if is_cut { len - cut } else { len }]);
            if !is_cut {
                expected.extend(offsets);
                whole_end = last + 1;
            }
            base = last + 1;
        }
        let bytes = Bytes::from(log);
        let (survey, keep) = survey(&bytes, true);
        if whole_end == 0 {
            prop_assert!(matches!(survey, Survey::Empty | Survey::Partial));
            return Ok(());
        }
        let Survey::Batches { next_offset, .. } = survey else {
            return Err(TestCaseError::fail(format!("{survey:?}")));
        };
        prop_assert_eq!(next_offset, whole_end);
        let bytes = bytes.slice(..keep);
        let chunk = Chunk::new(tp(0), epoch(), bytes, aborted, (100, 100));
        let mut chunk = chunk.checked(true);
        let (offsets, next) = drain(&mut chunk, start, max, &reading(true));
        expected.retain(|offset| *offset >= start);
        prop_assert_eq!(offsets, expected);
        prop_assert_eq!(next, whole_end.max(start));
    }
}

/// 500 records of 1,000 zeros each.
fn zeros(compression: Compression) -> Bytes {
    let mut writer = BatchWriter::new(1 << 20);
    for _ in 0..500 {
        writer.append(1000, None, Some(&[0; 1000]), &[]).unwrap();
    }
    let mut sealed = writer.seal(compression, &POOL).unwrap();
    Bytes::from(sealed.stamp(ProducerStamp::NONE).to_vec())
}

/// An application that takes a little at a time, of many partitions: what a batch takes
/// decompressed counts, and one is decompressed at a time.
#[test]
fn decompressed_bytes_count_and_one_batch_is_open_at_a_time() {
    for (compression, inflated) in [(Compression::None, 0), (Compression::Lz4, 500 * 1000)] {
        let bytes = zeros(compression);
        let fetched = bytes.len();
        let reading = reading(false);
        let mut buffer = FetchBuffer::default();
        for partition in 0..4 {
            let bytes = bytes.clone();
            let ends = (500, 500);
            buffer.push(Chunk::new(tp(partition), epoch(), bytes, Vec::new(), ends));
        }
        assert_eq!((buffer.bytes(), buffer.inflated()), (4 * fetched, 0));
        let mut at = [0; 4];
        let mut rounds = 0;
        while let Some(mut chunk) = buffer.take(|_| Taking::Yes) {
            let of = chunk.tp.partition as usize;
            let position = Position::new(at[of]);
            at[of] = chunk
                .take(&mut up_to(100), position, &reading)
                .unwrap()
                .next
                .offset;
            if !chunk.is_done() {
                buffer.put_back(chunk);
            }
            rounds += 1;
            // A batch of its own, if any: its records and a few bytes for each of them.
            assert!(
                buffer.inflated() <= inflated + 500 * 20,
                "{}",
                buffer.inflated()
            );
            assert!(buffer.bytes() <= 4 * fetched + buffer.inflated());
            if inflated > 0 && rounds == 1 {
                assert!(buffer.inflated() >= inflated);
                buffer.close_opened();
                assert_eq!(buffer.inflated(), 0, "to be opened again");
            }
        }
        assert_eq!((rounds, at), (20, [500; 4]));
        assert_eq!((buffer.bytes(), buffer.inflated()), (0, 0));
    }
}

/// A poll opens one compressed batch in any case, and others only while its portion lasts.
#[test]
fn a_poll_opens_no_more_batches_than_its_portion_allows() {
    let bytes: Vec<_> = (0..4).map(|_| zeros(Compression::Lz4)).collect();
    for (allowed, batches) in [(0, 1), (1, 1), (600_000, 2), (usize::MAX, 4)] {
        let mut base = 0;
        let log: Vec<_> = bytes
            .iter()
            .map(|bytes| {
                let mut bytes = bytes.to_vec();
                bytes[..8].copy_from_slice(&i64::to_be_bytes(base));
                base += 500;
                bytes
            })
            .collect();
        let mut chunk = chunk(&log, Vec::new());
        let mut portion = Portion::new(10_000, allowed);
        let taken = chunk.take(&mut portion, Position::new(0), &reading(false));
        let taken = taken.unwrap();
        assert_eq!(taken.batch.unwrap().record_count(), batches * 500);
        assert_eq!(taken.next.offset, batches as i64 * 500);
        assert_eq!(portion.is_open(), batches == 4, "{allowed}");
        assert!(portion.given >= batches * 500_000);
    }
}

/// A slice keeps its frame: it counts whole until its last chunk is gone.
#[test]
fn a_frame_counts_as_long_as_a_slice_of_it_is_here() {
    const BROKER: BrokerId = BrokerId(3);
    let small = Bytes::from(range(0, 5));
    let large = zeros(Compression::None);
    let len = small.len() + large.len();
    let memory = Bytes::from([&small[..], &large].concat());
    let mut buffer = FetchBuffer::default();
    let frame = buffer.frame(BROKER, len);
    let cut = [memory.slice(..small.len()), memory.slice(small.len()..)];
    for (partition, records) in (0..).zip(cut) {
        let chunk = Chunk::new(tp(partition), epoch(), records, Vec::new(), (500, 500));
        buffer.push(chunk.in_frame(frame));
    }
    assert_eq!((buffer.bytes(), buffer.held(BROKER)), (len, len));
    let of = |wanted: i32| {
        move |chunk: &Chunk| match chunk.tp.partition == wanted {
            true => Taking::Yes,
            false => Taking::Later,
        }
    };
    drop(buffer.take(of(1)).unwrap());
    assert_eq!((buffer.bytes(), buffer.held(BROKER)), (len, len));
    buffer.ready_again(&tp(0));
    let mut rest = buffer.take(of(0)).unwrap();
    assert_eq!(drain(&mut rest, 0, 10, &reading(false)).0, [0, 1, 2, 3, 4]);
    assert_eq!((buffer.bytes(), buffer.held(BROKER)), (0, 0));
    drop(rest);
    assert!(memory.is_unique(), "the frame can be used again");
}
