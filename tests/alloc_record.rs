//! Counts allocations: none per record, neither when appending nor when reading by reference.
#![allow(missing_docs, clippy::unwrap_used)]

use ottla::internals::{Pool, Writer, decode};
use ottla::{Compression, Header};

fn allocations(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).count_total
}

const RECORDS: i64 = 500;

fn fill(writer: &mut Writer) {
    let headers = [Header::new("a", "b"), Header::null("c")];
    for at in 0..RECORDS {
        let headers = if at % 2 == 0 { &headers[..] } else { &[] };
        writer
            .append(at, Some(b"key"), Some(&[b'v'; 100]), headers)
            .unwrap();
    }
}

#[test]
fn appending_allocates_nothing() {
    let mut writer = Writer::new(64 << 10);
    assert_eq!(allocations(|| fill(&mut writer)), 0);
}

#[test]
fn sealing_and_stamping_allocate_for_the_batch_only() {
    let pool = Pool::new(1);
    for compression in [
        Compression::none(),
        Compression::lz4(),
        Compression::snappy(),
    ] {
        for warm in [false, true] {
            let mut writer = Writer::new(64 << 10);
            fill(&mut writer);
            let mut sealed = None;
            let count = allocations(|| {
                let mut batch = writer.seal(compression, &pool).unwrap();
                batch.stamp(1, 0);
                sealed = Some(batch);
            });
            // The compressed buffer and the counter that shares it.
            assert!(!warm || count <= 3, "{compression}: {count}");
        }
    }
}

#[test]
fn reading_allocates_nothing_per_record() {
    let pool = Pool::new(1);
    let mut writer = Writer::new(64 << 10);
    fill(&mut writer);
    let bytes = writer.seal(Compression::none(), &pool).unwrap().stamp(1, 0);
    let batch = decode(bytes, true, 1 << 20, &pool).unwrap().pop().unwrap();
    let mut seen = 0;
    let count = allocations(|| {
        batch
            .walk(|record| seen += record.headers().len() + record.key().map_or(0, <[u8]>::len))
            .unwrap();
    });
    assert_eq!(count, 0);
    assert_eq!(seen, RECORDS as usize / 2 * 2 + RECORDS as usize * 3);
    // An owned record shares the buffer as well.
    let mut last = None;
    let warm = allocations(|| batch.walk(|record| last = Some(record.to_owned())).unwrap());
    assert!(warm <= 1, "{warm}");
}
