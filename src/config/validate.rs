//! Checks of whole configurations, made when a client, producer or consumer is built.
//!
//! Ranges come from the table in [`keys`](super::keys); here is what concerns two settings at once.

use std::time::Duration;

use super::consumer::{ConsumerConfig, GroupProtocol};
use super::keys::{KEYS, Role};
use super::producer::{Acks, ProducerConfig};
use super::properties::bad;
use super::values::Address;
use super::{ClientConfig, Settings};
use crate::error::Result;

/// More requests in flight than the number of batches whose sequence numbers a broker remembers
/// would let it take a repeated batch for a new one.
const MAX_IN_FLIGHT_IDEMPOTENT: usize = 5;

impl ClientConfig {
    /// Checks what every role needs and brings endless times down to what clocks can add.
    pub(crate) fn validate(&mut self) -> Result<()> {
        with_settings(Role::Common, |settings| {
            std::mem::swap(&mut settings.client, self)
        })?;
        if self.bootstrap.is_empty() {
            return Err(bad(
                "bootstrap.servers",
                "no address given, write host:port[,host:port…]",
            ));
        }
        for address in &self.bootstrap {
            Address::parse(address).map_err(|error| bad("bootstrap.servers", error))?;
        }
        let usual = Self::default();
        raise(
            ("retry.backoff.ms", self.retry_backoff),
            ("retry.backoff.max.ms", &mut self.retry_backoff_max),
            usual.retry_backoff_max,
        )?;
        raise(
            ("reconnect.backoff.ms", self.reconnect_backoff),
            ("reconnect.backoff.max.ms", &mut self.reconnect_backoff_max),
            usual.reconnect_backoff_max,
        )?;
        raise(
            (
                "socket.connection.setup.timeout.ms",
                self.connection_setup_timeout,
            ),
            (
                "socket.connection.setup.timeout.max.ms",
                &mut self.connection_setup_timeout_max,
            ),
            usual.connection_setup_timeout_max,
        )
    }
}

impl ProducerConfig {
    /// Checks a producer's settings, among themselves and against those of its client.
    pub(crate) fn validate(&mut self, client: &ClientConfig) -> Result<()> {
        with_settings(Role::Producer, |settings| {
            std::mem::swap(&mut settings.producer, self);
        })?;
        self.compression
            .check_available()
            .map_err(|error| bad("compression.type", error))?;
        for (topic, compression) in &self.topic_compression {
            compression.check_available().map_err(|error| {
                bad(
                    "compression.type",
                    format_args!("{error} (topic '{topic}')"),
                )
            })?;
        }
        let wants = match (self.idempotence, &self.transactional_id) {
            (Some(false), Some(_)) => {
                return Err(bad(
                    "enable.idempotence",
                    "off, and transactional.id is set",
                ));
            }
            (_, Some(_)) => Some("transactional.id"),
            (Some(true), None) => Some("enable.idempotence=true"),
            _ => None,
        };
        if let Some(wants) = wants
            && let Some((name, why)) = self.contradicts_idempotence()
        {
            return Err(bad(
                name,
                format_args!("{why}, which {wants} does not allow"),
            ));
        }
        let least = self.linger.saturating_add(client.request_timeout);
        if self.delivery_timeout < least {
            if self.delivery_timeout != Self::default().delivery_timeout {
                return Err(bad(
                    "delivery.timeout.ms",
                    format_args!(
                        "{} is less than linger.ms and request.timeout.ms together ({} + {})",
                        self.delivery_timeout.as_millis(),
                        self.linger.as_millis(),
                        client.request_timeout.as_millis(),
                    ),
                ));
            }
            self.delivery_timeout = least;
        }
        Ok(())
    }

    /// Whether records are sent with producer ids and sequence numbers: yes where it was asked for,
    /// and where it was not forbidden and nothing else speaks against it.
    pub(crate) fn is_idempotent(&self) -> bool {
        self.idempotence
            .unwrap_or_else(|| self.contradicts_idempotence().is_none())
    }

    fn contradicts_idempotence(&self) -> Option<(&'static str, &'static str)> {
        if self.acks != Acks::All {
            Some(("acks", "not all"))
        } else if self.retries == 0 {
            Some(("retries", "none"))
        } else if self.max_in_flight > MAX_IN_FLIGHT_IDEMPOTENT {
            Some(("max.in.flight.requests.per.connection", "more than 5"))
        } else {
            None
        }
    }
}

impl ConsumerConfig {
    /// Checks a consumer's settings.
    pub(crate) fn validate(&mut self) -> Result<()> {
        with_settings(Role::Consumer, |settings| {
            std::mem::swap(&mut settings.consumer, self);
        })?;
        if self.group_id.is_none() && self.group_instance_id.is_some() {
            return Err(bad("group.instance.id", "means nothing without group.id"));
        }
        if self.heartbeat_interval >= self.session_timeout {
            let why = "must be less than session.timeout.ms, a third of it at most for safety";
            return Err(bad("heartbeat.interval.ms", why));
        }
        let classic = self.classic_setting();
        let remote = self.group_remote_assignor.is_some();
        match (self.group_protocol, classic) {
            (GroupProtocol::Consumer, Some(name)) => {
                let why = "belongs to the classic group protocol: with group.protocol=consumer the \
                           broker decides; remove one of them";
                Err(bad(name, why))
            }
            (GroupProtocol::Classic, _) | (GroupProtocol::Auto, Some(_)) if remote => {
                let why = "is of group.protocol=consumer, and the classic protocol was asked for: \
                           use partition.assignment.strategy there";
                Err(bad("group.remote.assignor", why))
            }
            _ => Ok(()),
        }?;
        Ok(())
    }
}

/// Runs the range checks of a role over settings that `swap` puts in, and puts them back.
fn with_settings(role: Role, mut swap: impl FnMut(&mut Settings)) -> Result<()> {
    let mut settings = Settings::default();
    swap(&mut settings);
    let checked = KEYS
        .iter()
        .filter(|key| key.role == role)
        .try_for_each(|key| {
            key.check(&mut settings)
                .map_err(|error| bad(key.name, error))
        });
    swap(&mut settings);
    checked
}

/// A first wait above its limit raises the limit, unless that was set to something as well.
fn raise(
    (first_name, first): (&str, Duration),
    (limit_name, limit): (&str, &mut Duration),
    usual: Duration,
) -> Result<()> {
    if first > *limit {
        if *limit != usual {
            return Err(bad(
                first_name,
                format_args!(
                    "{} is more than {limit_name} ({})",
                    first.as_millis(),
                    limit.as_millis()
                ),
            ));
        }
        *limit = first;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FOREVER;

    fn client(properties: &[(&str, &str)]) -> ClientConfig {
        let mut client = Settings::from_properties(properties.iter().copied())
            .unwrap()
            .client;
        client.bootstrap.push("localhost:9092".to_owned());
        client
    }

    fn producer(properties: &[(&str, &str)]) -> Result<ProducerConfig> {
        let mut settings = Settings::from_properties(properties.iter().copied()).unwrap();
        settings.producer.validate(&settings.client)?;
        Ok(settings.producer)
    }

    #[track_caller]
    fn fails<T: std::fmt::Debug>(result: Result<T>, parts: &[&str]) {
        let error = result.unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{error:?} does not contain {part:?}");
        }
    }

    #[test]
    fn settings_of_the_two_group_protocols_exclude_each_other() {
        let consumer = |properties: &[(&str, &str)]| {
            let settings = Settings::from_properties(properties.iter().copied());
            let mut consumer = settings.unwrap().consumer;
            consumer.validate().map(|()| consumer)
        };
        let classic = [
            ("session.timeout.ms", "10000"),
            ("heartbeat.interval.ms", "1000"),
            ("partition.assignment.strategy", "roundrobin"),
        ];
        for one in classic {
            let kept = consumer(&[one]).unwrap();
            assert_eq!(kept.classic_setting(), Some(one.0));
            assert!(consumer(&[one, ("group.protocol", "classic")]).is_ok());
            let both = consumer(&[one, ("group.protocol", "consumer")]);
            fails(both, &[one.0, "group.protocol=consumer"]);
            let remote = ("group.remote.assignor", "range");
            fails(consumer(&[one, remote]), &["group.remote.assignor"]);
        }
        let remote = ("group.remote.assignor", "range");
        assert_eq!(consumer(&[remote]).unwrap().classic_setting(), None);
        fails(
            consumer(&[remote, ("group.protocol", "classic")]),
            &["group.remote.assignor", "partition.assignment.strategy"],
        );
        fails(
            consumer(&[("heartbeat.interval.ms", "45000")]),
            &["heartbeat.interval.ms", "session.timeout.ms"],
        );
    }

    #[test]
    fn defaults_are_valid_but_for_the_address() {
        let mut settings = Settings::default();
        fails(settings.client.validate(), &["bootstrap.servers"]);
        settings.client.bootstrap = vec!["localhost".to_owned()];
        fails(settings.client.validate(), &["bootstrap.servers", "port"]);
        settings.client.bootstrap = vec!["localhost:9092".to_owned()];
        let before = format!("{settings:?}");
        settings.client.validate().unwrap();
        settings.producer.validate(&settings.client).unwrap();
        settings.consumer.validate().unwrap();
        assert_eq!(
            format!("{settings:?}"),
            before,
            "validation keeps what is valid"
        );
    }

    #[test]
    fn builders_are_held_to_the_ranges_of_the_table() {
        let mut settings = Settings::default();
        settings.producer.max_in_flight = 0;
        fails(
            settings.producer.validate(&settings.client),
            &["max.in.flight.requests.per.connection: 0 is not allowed, only 1 to 2147483647"],
        );
        settings.producer.max_in_flight = 1;
        settings.producer.delivery_timeout = Duration::MAX;
        fails(
            settings.producer.validate(&settings.client),
            &["delivery.timeout.ms"],
        );
        settings.consumer.group_id = Some(String::new());
        fails(
            settings.consumer.validate(),
            &["group.id: must not be empty"],
        );
        settings.consumer.group_id = None;
        settings.consumer.fetch_max_bytes = -1;
        fails(settings.consumer.validate(), &["fetch.max.bytes: -1"]);
    }

    #[test]
    fn endless_times_become_ones_that_clocks_can_add() {
        let mut settings = Settings::default();
        settings.producer.max_block = Duration::MAX;
        settings.producer.validate(&settings.client).unwrap();
        assert_eq!(settings.producer.max_block, FOREVER);
        let endless = i64::MAX.to_string();
        let parsed = producer(&[("max.block.ms", &endless)]).unwrap();
        assert_eq!(parsed.max_block, FOREVER);
    }

    #[test]
    fn a_first_back_off_above_its_maximum_raises_a_default_and_contradicts_a_choice() {
        for (first, max) in [
            ("retry.backoff.ms", "retry.backoff.max.ms"),
            ("reconnect.backoff.ms", "reconnect.backoff.max.ms"),
            (
                "socket.connection.setup.timeout.ms",
                "socket.connection.setup.timeout.max.ms",
            ),
        ] {
            let mut raised = client(&[(first, "40000")]);
            raised.validate().unwrap();
            let most = raised
                .retry_backoff_max
                .max(raised.reconnect_backoff_max)
                .max(raised.connection_setup_timeout_max);
            assert_eq!(most, Duration::from_secs(40), "{max}");
            fails(
                client(&[(first, "40000"), (max, "20000")]).validate(),
                &[first, max, "40000", "20000"],
            );
        }
    }

    #[test]
    fn idempotence_yields_to_other_settings_unless_it_was_asked_for() {
        assert!(producer(&[]).unwrap().is_idempotent());
        for (name, value) in [
            ("acks", "1"),
            ("retries", "0"),
            ("max.in.flight.requests.per.connection", "6"),
        ] {
            assert!(
                !producer(&[(name, value)]).unwrap().is_idempotent(),
                "{name}"
            );
            fails(
                producer(&[(name, value), ("enable.idempotence", "true")]),
                &[name, "enable.idempotence"],
            );
        }
        let off = producer(&[("enable.idempotence", "false")]).unwrap();
        assert!(!off.is_idempotent());
    }

    #[test]
    fn the_time_for_delivery_covers_lingering_and_one_request() {
        fails(
            producer(&[("delivery.timeout.ms", "30004")]),
            &["delivery.timeout.ms", "linger.ms", "request.timeout.ms"],
        );
        assert!(producer(&[("delivery.timeout.ms", "30005")]).is_ok());
        let raised = producer(&[("request.timeout.ms", "200000")]).unwrap();
        assert_eq!(raised.delivery_timeout, Duration::from_millis(200_005));
    }

    #[test]
    fn a_codec_that_the_build_lacks_is_named_at_once() {
        let zstd = producer(&[("compression.type", "zstd")]);
        if cfg!(feature = "zstd") {
            assert!(zstd.is_ok());
        } else {
            fails(zstd, &["compression.type", "zstd"]);
        }
    }

    #[test]
    fn a_static_member_needs_a_group() {
        let mut settings = Settings::from_properties([("group.instance.id", "a")]).unwrap();
        fails(
            settings.consumer.validate(),
            &["group.instance.id", "group.id"],
        );
    }
}
