//! The record codec alone: appending, sealing, walking. Figures are per batch of about 64 KiB;
//! records per batch are in the names, so nanoseconds per record are the figure divided by them.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ottla::internals::{Decoded, Pool, Writer, decode};
use ottla::{Compression, Header};

const BATCH: usize = 64 << 10;
const KEY: &[u8] = b"key-0042";

/// Text with some repetition and some noise: compresses to about a third.
fn payload(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = [
        "order", "customer", "amount", "paid", "shipped", "\":", "{\"", "null",
    ];
    let mut out = Vec::with_capacity(len + 16);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(words[(state % 8) as usize].as_bytes());
        out.extend_from_slice(&format!("{:03}", state >> 40).as_bytes()[..3]);
    }
    out.truncate(len);
    out
}

fn fill(writer: &mut Writer, values: &[Vec<u8>], headers: &[Header<'_>]) {
    for (at, value) in values.iter().enumerate() {
        writer
            .append(
                1_700_000_000_000 + at as i64 / 8,
                Some(KEY),
                Some(value),
                headers,
            )
            .unwrap();
    }
}

fn batch(
    values: &[Vec<u8>],
    headers: &[Header<'_>],
    compression: Compression,
    pool: &Pool,
) -> Bytes {
    let mut writer = Writer::new(96 << 10);
    fill(&mut writer, values, headers);
    writer.seal(compression, pool).unwrap().stamp(1, 0)
}

fn decoded(bytes: &Bytes, pool: &Pool) -> Decoded {
    decode(bytes.clone(), true, 1 << 30, pool)
        .unwrap()
        .pop()
        .unwrap()
}

fn values(len: usize) -> Vec<Vec<u8>> {
    (0..BATCH / len)
        .map(|at| payload(len, at as u64 + 1))
        .collect()
}

fn append(c: &mut Criterion) {
    let pool = Pool::new(2);
    let mut group = c.benchmark_group("append");
    for len in [100, 1024] {
        let values = values(len);
        let count = values.len();
        group.throughput(Throughput::Elements(count as u64));
        let headers = [
            Header::new("trace", "4bf92f3577b34da6"),
            Header::null("retried"),
        ];
        // A new buffer every time, as for real batches; the allocator gives back the last one, so
        // it is warm.
        group.bench_function(format!("{len}B x{count}"), |b| {
            b.iter(|| {
                let mut writer = Writer::new(96 << 10);
                fill(&mut writer, &values, &[]);
                writer
            });
        });
        group.bench_function(format!("{len}B x{count} + seal + crc"), |b| {
            b.iter(|| batch(&values, &[], Compression::none(), &pool));
        });
        group.bench_function(format!("{len}B x{count} 2 headers"), |b| {
            b.iter(|| {
                let mut writer = Writer::new(96 << 10);
                fill(&mut writer, &values, &headers);
                writer
            });
        });
    }
    group.finish();
}

fn walk(c: &mut Criterion) {
    let pool = Pool::new(2);
    let mut group = c.benchmark_group("walk");
    for len in [100, 1024] {
        let values = values(len);
        let count = values.len();
        group.throughput(Throughput::Elements(count as u64));
        let bytes = batch(&values, &[], Compression::none(), &pool);
        let whole = decoded(&bytes, &pool);
        group.bench_function(format!("{len}B x{count}"), |b| {
            b.iter(|| {
                let mut sum = 0;
                whole
                    .walk(|record| {
                        sum += record.value().map_or(0, <[u8]>::len) + record.offset() as usize
                    })
                    .unwrap();
                sum
            });
        });
        group.bench_function(format!("{len}B x{count} + header + crc"), |b| {
            b.iter(|| {
                let mut sum = 0;
                let batch = decoded(&bytes, &pool);
                batch
                    .walk(|record| {
                        sum += record.value().map_or(0, <[u8]>::len) + record.offset() as usize
                    })
                    .unwrap();
                sum
            });
        });
        group.bench_function(format!("{len}B x{count} to_owned"), |b| {
            b.iter(|| {
                whole
                    .walk(|record| drop(black_box(record.to_owned())))
                    .unwrap()
            });
        });
        let headers = [
            Header::new("trace", "4bf92f3577b34da6"),
            Header::null("retried"),
        ];
        let bytes = batch(&values, &headers, Compression::none(), &pool);
        let whole = decoded(&bytes, &pool);
        group.bench_function(format!("{len}B x{count} 2 headers"), |b| {
            b.iter(|| {
                let mut sum = 0;
                whole
                    .walk(|record| {
                        sum += record
                            .headers()
                            .map(|header| header.name().len())
                            .sum::<usize>()
                    })
                    .unwrap();
                sum
            });
        });
    }
    group.finish();
}

fn codecs(c: &mut Criterion) {
    let pool = Pool::new(2);
    let values = values(1024);
    let all = [
        Compression::none(),
        Compression::gzip(),
        Compression::snappy(),
        Compression::lz4(),
        Compression::zstd(),
    ];
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Bytes(BATCH as u64));
    for compression in all {
        let bytes = batch(&values, &[], compression, &pool);
        println!("{compression}: {} bytes", bytes.len());
        group.bench_function(format!("seal {compression}"), |b| {
            b.iter_batched(
                || {
                    let mut writer = Writer::new(2 * BATCH);
                    fill(&mut writer, &values, &[]);
                    writer
                },
                |writer| writer.seal(compression, &pool).unwrap(),
                BatchSize::LargeInput,
            );
        });
        group.bench_function(format!("decode {compression}"), |b| {
            b.iter(|| decoded(&bytes, &pool))
        });
    }
    group.finish();
}

fn crc(c: &mut Criterion) {
    let mut group = c.benchmark_group("crc32c");
    for len in [1 << 10, 16 << 10, 64 << 10, 1 << 20] {
        let bytes = payload(len, 7);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len}"), |b| {
            b.iter(|| crc_fast::crc32_iscsi(black_box(&bytes)));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).warm_up_time(std::time::Duration::from_millis(300)).measurement_time(std::time::Duration::from_millis(1000));
    targets = append, walk, codecs, crc
}
criterion_main!(benches);
