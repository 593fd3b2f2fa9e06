//! The producer.

pub(crate) mod config;

pub use config::Acks;
