//! The consumer.

mod codes;
pub(crate) mod config;
pub(crate) mod group;
mod lag;
mod positions;
mod session;

pub use config::{IsolationLevel, OffsetReset};
pub use lag::{Lag, PartitionLag, TimeLag};
