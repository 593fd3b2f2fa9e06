//! The executables of `examples/` that drive the client from outside, beside Kafka's own tools.

mod ends;
mod faults;
mod groups;
mod java;
mod lag;
pub(crate) mod process;
mod promises;
mod roundtrip;
