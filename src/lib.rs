//! An async Apache Kafka client.

#[allow(dead_code, unused_imports)]
mod record;

#[cfg(feature = "unstable-internals")]
#[doc(hidden)]
pub use record::internals;
pub use record::{
    Codec, Compression, Header, Headers, InvalidCompression, OwnedRecord, Record, RecordView,
    TimestampType,
};
