//! Numbers for operations: snapshots that can be asked for, and the same through the `metrics`
//! facade (feature `metrics`).
//!
//! - `histogram.rs`: distributions of a bounded size
//! - `table.rs`: every metric with its unit, labels and meaning; `REFERENCE.md` is made from it
//! - `handle.rs`: handles of the facade, which are nothing without the feature
//!
//! What is counted is counted where it happens: connections and requests in `net/traffic.rs`, the
//! rest in `producer/report.rs` and `consumer/metrics.rs`, which feed the handles of `meter.rs`
//! beside them.
//!
//! Invariants: everything is fed once per batch, request, poll or commit, never per record; handles
//! are made once; no handle is used under a lock, since a recorder is the application's code.

pub(crate) mod handle;
pub(crate) mod histogram;
pub(crate) mod table;
#[cfg(test)]
#[cfg(all(feature = "metrics", feature = "mock"))]
mod tests;

use std::time::Duration;

/// How often gauges are brought up to date that nothing tells of, such as lag.
pub(crate) const SAMPLE: Duration = Duration::from_secs(5);
