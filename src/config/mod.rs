//! Settings: typed structs that the builders fill, and the same by Kafka's property names.
//!
//! [`keys`] is the one table of names, ranges and defaults; [`validate`] checks what the builders
//! made against it, so that a value is judged alike however it came in.

use std::fmt;
use std::time::Duration;

pub(crate) mod consumer;
pub(crate) mod keys;
pub(crate) mod producer;
pub mod properties;
pub(crate) mod unavailable;
pub(crate) mod validate;
pub(crate) mod values;

use self::consumer::ConsumerConfig;
use self::producer::ProducerConfig;

/// Everything that can be set by Kafka's property names, by role.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) client: ClientConfig,
    pub(crate) producer: ProducerConfig,
    pub(crate) consumer: ConsumerConfig,
    levels: CompressionLevels,
}

/// `compression.gzip.level` and `compression.zstd.level`, which may be set before the codec is.
#[derive(Clone, Copy, Debug)]
struct CompressionLevels {
    gzip: i32,
    zstd: i32,
}

impl Default for CompressionLevels {
    fn default() -> Self {
        Self { gzip: -1, zstd: 3 }
    }
}

/// What connections, metadata and retries need to know; shared by every role of a client.
#[derive(Clone, Debug)]
pub(crate) struct ClientConfig {
    /// `bootstrap.servers`: `host:port` each, as [`values::Address`] parses them.
    pub(crate) bootstrap: Vec<String>,
    /// `client.id`
    pub(crate) client_id: String,
    /// `request.timeout.ms`: how long one request waits for its answer.
    pub(crate) request_timeout: Duration,
    /// `default.api.timeout.ms`: the deadline of a call, retries included.
    pub(crate) api_timeout: Duration,
    /// `retry.backoff.ms`, `retry.backoff.max.ms` (KIP-580)
    pub(crate) retry_backoff: Duration,
    pub(crate) retry_backoff_max: Duration,
    /// `reconnect.backoff.ms`, `reconnect.backoff.max.ms`
    pub(crate) reconnect_backoff: Duration,
    pub(crate) reconnect_backoff_max: Duration,
    /// `socket.connection.setup.timeout.ms`, `….max.ms`
    pub(crate) connection_setup_timeout: Duration,
    pub(crate) connection_setup_timeout_max: Duration,
    /// `connections.max.idle.ms`
    pub(crate) connections_max_idle: Option<Duration>,
    /// `send.buffer.bytes`, `receive.buffer.bytes`; `None`: the system's (Kafka's -1)
    pub(crate) send_buffer: Option<u32>,
    pub(crate) receive_buffer: Option<u32>,
    /// `metadata.max.age.ms`
    pub(crate) metadata_max_age: Duration,
    /// `metadata.recovery.strategy` is `rebootstrap` (KIP-899)
    pub(crate) rebootstrap: bool,
    /// `metadata.recovery.rebootstrap.trigger.ms` (KIP-1102)
    pub(crate) rebootstrap_trigger: Duration,
    /// Largest answer accepted on a lane that carries no record data.
    pub(crate) max_control_frame: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            bootstrap: Vec::new(),
            client_id: String::new(),
            request_timeout: Duration::from_secs(30),
            api_timeout: Duration::from_secs(60),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            reconnect_backoff: Duration::from_millis(50),
            reconnect_backoff_max: Duration::from_secs(1),
            connection_setup_timeout: Duration::from_secs(10),
            connection_setup_timeout_max: Duration::from_secs(30),
            connections_max_idle: Some(Duration::from_secs(540)),
            send_buffer: None,
            receive_buffer: None,
            metadata_max_age: Duration::from_secs(300),
            rebootstrap: true,
            rebootstrap_trigger: Duration::from_secs(300),
            max_control_frame: 32 << 20,
        }
    }
}

/// A password or token: it never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret<T>(T);

#[cfg_attr(
    not(test),
    expect(dead_code, reason = "no setting is secret until there is SASL")
)]
impl<T> Secret<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, named so that every use of it is easy to find.
    pub(crate) fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{:?}", Some(&secret)), "Some([hidden])");
        assert_eq!(secret.expose(), "hunter2");
    }
}
