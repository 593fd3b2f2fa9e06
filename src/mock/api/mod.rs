//! What brokers answer, one file per family of requests. Nothing here waits.

pub(super) mod alter_configs;
pub(super) mod classic;
pub(super) mod cluster;
pub(super) mod commits;
pub(super) mod configs;
pub(super) mod deletions;
pub(super) mod fetch;
pub(super) mod groups;
pub(super) mod offsets;
pub(super) mod produce;
pub(super) mod topics;
pub(super) mod transaction_admin;
pub(super) mod transactions;

use kafka_protocol::messages::{BrokerId, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::state::{Listener, State};

/// Under which circumstances a request came.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) broker: i32,
    pub(super) version: i16,
    pub(super) listener: Listener,
    pub(super) client_id: String,
    /// Every item is to be refused with this code.
    pub(super) forced: Option<i16>,
}

impl Context {
    /// The code that a rule wants, or else what the check says.
    fn code_or(&self, check: impl FnOnce() -> Option<i16>) -> Option<i16> {
        self.forced.or_else(check)
    }
}

pub(super) fn wire(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

fn topic_name(text: impl Into<String>) -> TopicName {
    TopicName(wire(text))
}

fn broker_ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().map(|id| BrokerId(*id)).collect()
}

/// Host and port of a broker as wire types; empty if it is not known.
fn host_port(state: &State, broker: i32, listener: Listener) -> (StrBytes, i32) {
    match state.endpoint(broker, listener) {
        Some((host, port)) => (wire(host), port.into()),
        None => (StrBytes::default(), -1),
    }
}
