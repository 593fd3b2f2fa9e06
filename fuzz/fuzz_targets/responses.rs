//! Every answer that the client decodes, from arbitrary bytes: no panic, and no memory beyond what
//! the frame's size allows (run with `-malloc_limit_mb` and `-rss_limit_mb`).
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ottla::internals::{RESPONSES, decode_response};

fuzz_target!(|data: &[u8]| {
    let [which, version, frame @ ..] = data else {
        return;
    };
    let (key, low, high) = match RESPONSES.get(usize::from(*which) % (RESPONSES.len() + 1)) {
        Some(response) => *response,
        None => (18, 0, 4),
    };
    let version = low + i16::from(*version) % (high - low + 1);
    let _ = decode_response(key, version, Bytes::copy_from_slice(frame));
});
