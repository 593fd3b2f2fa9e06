//! The consumer.

pub(crate) mod config;

pub use config::{IsolationLevel, OffsetReset};
