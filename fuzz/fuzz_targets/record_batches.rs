//! Parses, decompresses and walks whatever it gets as the record bytes of a Fetch answer, without
//! checking the checksum, which nothing but a lucky input would pass. To be run with
//! `-rss_limit_mb=512`: output is limited to 4 MiB.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ottla::internals::{Pool, decode};

static POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new(1));

fuzz_target!(|data: &[u8]| {
    if let Ok(batches) = decode(Bytes::copy_from_slice(data), false, 4 << 20, &POOL) {
        for batch in batches {
            let _ = batch.exercise();
        }
    }
});
