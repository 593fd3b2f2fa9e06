//! The producer.

pub(crate) mod config;
pub(crate) mod identity;
pub(crate) mod queue;

pub use config::Acks;
