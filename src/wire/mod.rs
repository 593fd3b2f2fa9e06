//! What is said on the wire: requests (the table of them is in `calls.rs`), their bytes and their
//! error codes.

mod calls;
mod check;
pub(crate) mod codec;
pub(crate) mod codes;
pub(crate) mod guard;
#[cfg(feature = "unstable-internals")]
pub(crate) mod internals;
pub(crate) mod offset_delete;
pub(crate) mod offsets;
pub(crate) mod produce;
pub(crate) mod versions;

use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

/// A request that the client sends, with what every answer has in common.
pub(crate) trait Call: Encodable + HeaderVersion + Send + Sync + 'static {
    /// What the broker answers.
    type Response: Decodable + HeaderVersion + Default + Send + 'static;
    /// The API key.
    const KEY: i16;
    /// The request's name in messages.
    const NAME: &'static str;
    /// Lowest and highest version that this client speaks; each must be fully supported.
    const SPOKEN: (i16, i16);

    /// Whether it changes something at the broker, so that its outcome is in doubt when no answer
    /// comes. A question has no outcome.
    const WRITES: bool;
    /// Whether the answer carries records, so that what was asked for bounds its size.
    const CARRIES_RECORDS: bool;

    /// How long the broker asks the client to be silent (KIP-219), milliseconds.
    fn throttle_ms(response: &Self::Response) -> i32;

    /// The error that concerns the answer as a whole, 0 for none or where there is none.
    fn error_code(response: &Self::Response) -> i16;

    /// What in the answer contradicts itself (`wire/check.rs`).
    fn check(response: &Self::Response) -> Result<(), &'static str>;
}

/// Fetch names topics by id from this version on (KIP-516), by name up to that one.
pub(crate) const FETCH_BY_ID: i16 = 13;
pub(crate) const FETCH_BY_NAME: i16 = 12;

/// Text as requests take it.
pub(crate) fn str_bytes(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// The same for the name of a topic.
pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(str_bytes(name))
}
