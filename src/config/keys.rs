//! The table of settings: one row per property of Kafka's that this client honours.
//!
//! A row is the only place that knows a setting's name, default, range and meaning. Parsing, range
//! checks of the typed builders, and the reference for users are all driven by it.

use std::time::Duration;

use super::consumer::{GroupProtocol, IsolationLevel, OffsetReset};
use super::producer::Acks;
use super::{Settings, values};
use crate::clock::FOREVER;
use crate::record::Compression;

/// Who reads a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Common,
    Producer,
    Consumer,
}

/// One setting.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// What librdkafka calls it, for suggestions; these names are not accepted.
    pub(crate) elsewhere: &'static [&'static str],
    pub(crate) role: Role,
    /// The default as it would be written in a properties file.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a test compares it with the struct's default")
    )]
    pub(crate) default: &'static str,
    pub(crate) field: Field,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a test writes the reference with it")
    )]
    pub(crate) doc: &'static str,
}

/// Where a setting's value is kept, and what it may be.
pub(crate) enum Field {
    Millis(Range, fn(&mut Settings) -> &mut Duration),
    /// -1 for never.
    MillisOrNever(Range, fn(&mut Settings) -> &mut Option<Duration>),
    Size(Range, fn(&mut Settings) -> &mut usize),
    /// -1 for the operating system's choice.
    SizeOrSystem(fn(&mut Settings) -> &mut Option<u32>),
    Count(Range, fn(&mut Settings) -> &mut u32),
    Int(Range, fn(&mut Settings) -> &mut i32),
    Flag(fn(&mut Settings) -> &mut bool),
    /// Any text; empty is the same as not set.
    Text(fn(&mut Settings) -> &mut Option<String>),
    /// Any text but the empty one.
    Named(fn(&mut Settings) -> &mut Option<String>),
    Choice {
        #[cfg_attr(
            not(test),
            expect(dead_code, reason = "a test writes the reference with it")
        )]
        allowed: &'static str,
        set: fn(&mut Settings, &str) -> Result<(), String>,
        #[cfg_attr(
            not(test),
            expect(dead_code, reason = "tests compare what is kept with it")
        )]
        show: fn(&Settings) -> String,
    },
}

/// Inclusive bounds of a number.
#[derive(Clone, Copy)]
pub(crate) struct Range(i64, i64);

const INT: Range = Range(0, i32::MAX as i64);
const POSITIVE_INT: Range = Range(1, i32::MAX as i64);
const LONG: Range = Range(0, i64::MAX);
const POSITIVE_LONG: Range = Range(1, i64::MAX);
const IDLE: Range = Range(5_000, i64::MAX);

impl Range {
    fn check(self, number: i64) -> Result<(), String> {
        if (self.0..=self.1).contains(&number) {
            Ok(())
        } else {
            Err(format!("{number} is not allowed, only {self}"))
        }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self(min, i64::MAX) => write!(f, "{min} or more"),
            Self(min, max) => write!(f, "{min} to {max}"),
        }
    }
}

impl Key {
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Takes a value as a properties file has it.
    pub(crate) fn set(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        let text = text.trim();
        match &self.field {
            Field::Millis(range, at) => {
                *at(settings) = millis(ranged(text, *range)?);
            }
            Field::MillisOrNever(range, at) => {
                *at(settings) = match whole(text)? {
                    -1 => None,
                    number => {
                        range
                            .check(number)
                            .map_err(|error| format!("{error}, or -1 for no limit"))?;
                        Some(millis(number))
                    }
                };
            }
            Field::Size(range, at) => *at(settings) = narrow(ranged(text, *range)?)?,
            Field::SizeOrSystem(at) => {
                *at(settings) = match whole(text)? {
                    -1 => None,
                    number => {
                        INT.check(number).map_err(|error| {
                            format!("{error}, or -1 for the operating system's choice")
                        })?;
                        Some(narrow(number)?)
                    }
                };
            }
            Field::Count(range, at) => *at(settings) = narrow(ranged(text, *range)?)?,
            Field::Int(range, at) => *at(settings) = narrow(ranged(text, *range)?)?,
            Field::Flag(at) => *at(settings) = values::flag(text)?,
            Field::Text(at) => {
                *at(settings) = Some(text.to_owned()).filter(|text| !text.is_empty())
            }
            Field::Named(at) => {
                if text.is_empty() {
                    return Err("must not be empty; leave it out to have none".to_owned());
                }
                *at(settings) = Some(text.to_owned());
            }
            Field::Choice { set, .. } => set(settings, text)?,
        }
        Ok(())
    }

    /// Checks the range of a value that a builder may have set, and brings endless times down to
    /// [`FOREVER`].
    pub(crate) fn check(&self, settings: &mut Settings) -> Result<(), String> {
        match &self.field {
            Field::Millis(range, at) => check_millis(*range, at(settings)),
            Field::MillisOrNever(range, at) => at(settings)
                .as_mut()
                .map_or(Ok(()), |time| check_millis(*range, time)),
            Field::Size(range, at) => range.check(wide(*at(settings))),
            Field::SizeOrSystem(at) => at(settings).map_or(Ok(()), |size| INT.check(wide(size))),
            Field::Count(range, at) => range.check(wide(*at(settings))),
            Field::Int(range, at) => range.check(wide(*at(settings))),
            Field::Named(at) if at(settings).as_deref() == Some("") => {
                Err("must not be empty; leave it out to have none".to_owned())
            }
            Field::Flag(_) | Field::Text(_) | Field::Named(_) | Field::Choice { .. } => Ok(()),
        }
    }

    /// The present value, as a properties file would have it.
    #[cfg(test)]
    pub(crate) fn show(&self, settings: &Settings) -> String {
        let mut copy = settings.clone();
        let settings = &mut copy;
        match &self.field {
            Field::Millis(_, at) => at(settings).as_millis().to_string(),
            Field::MillisOrNever(_, at) => {
                at(settings).map_or_else(|| "-1".to_owned(), |time| time.as_millis().to_string())
            }
            Field::Size(_, at) => at(settings).to_string(),
            Field::SizeOrSystem(at) => {
                at(settings).map_or_else(|| "-1".to_owned(), |size| size.to_string())
            }
            Field::Count(_, at) => at(settings).to_string(),
            Field::Int(_, at) => at(settings).to_string(),
            Field::Flag(at) => at(settings).to_string(),
            Field::Text(at) | Field::Named(at) => at(settings).clone().unwrap_or_default(),
            Field::Choice { show, .. } => show(settings),
        }
    }

    /// What may be set, for the reference.
    #[cfg(test)]
    pub(crate) fn allowed(&self) -> String {
        match &self.field {
            Field::Millis(range, _) => format!("{range} (ms)"),
            Field::MillisOrNever(range, _) => format!("{range} (ms), -1: no limit"),
            Field::Size(range, _) => range.to_string(),
            Field::SizeOrSystem(_) => format!("{INT}, -1: the operating system's choice"),
            Field::Count(range, _) | Field::Int(range, _) => range.to_string(),
            Field::Flag(_) => "true, false".to_owned(),
            Field::Text(_) => "any text".to_owned(),
            Field::Named(_) => "any text that is not empty".to_owned(),
            Field::Choice { allowed, .. } => (*allowed).to_owned(),
        }
    }
}

fn whole(text: &str) -> Result<i64, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a whole number"))
}

fn ranged(text: &str, range: Range) -> Result<i64, String> {
    let number = whole(text).map_err(|error| format!("{error}, only {range} is allowed"))?;
    range.check(number)?;
    Ok(number)
}

fn narrow<T: TryFrom<i64>>(number: i64) -> Result<T, String> {
    T::try_from(number).map_err(|_| format!("{number} is more than this machine can address"))
}

fn wide<T: TryInto<i64>>(number: T) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn millis(number: i64) -> Duration {
    Duration::from_millis(u64::try_from(number).unwrap_or(0)).min(FOREVER)
}

fn check_millis(range: Range, time: &mut Duration) -> Result<(), String> {
    range.check(wide(time.as_millis()))?;
    *time = (*time).min(FOREVER);
    Ok(())
}

fn one_of<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        format!("{text:?} is not allowed, only {}", names.join(", "))
    })
}

/// For settings with one value that this version can do and others that Kafka also has.
fn only(text: &str, available: &str, others: &[&str], why: &str) -> Result<(), String> {
    if text.eq_ignore_ascii_case(available) {
        Ok(())
    } else if others.iter().any(|other| text.eq_ignore_ascii_case(other)) {
        Err(format!("{text} is not available: {why}; use {available}"))
    } else {
        Err(format!("{text:?} is not allowed, only {available}"))
    }
}

const ACKS: &[(&str, Acks)] = &[
    ("all", Acks::All),
    ("-1", Acks::All),
    ("0", Acks::None),
    ("1", Acks::Leader),
];

const ISOLATION: &[(&str, IsolationLevel)] = &[
    ("read_uncommitted", IsolationLevel::ReadUncommitted),
    ("read_committed", IsolationLevel::ReadCommitted),
];

const PROTOCOLS: &[(&str, GroupProtocol)] = &[
    ("auto", GroupProtocol::Auto),
    ("classic", GroupProtocol::Classic),
    ("consumer", GroupProtocol::Consumer),
];

/// Assignors that come with the client, also by the names of Java's classes.
const STRATEGIES: &[(&str, &str)] = &[
    ("range", "RangeAssignor"),
    ("roundrobin", "RoundRobinAssignor"),
    ("sticky", "StickyAssignor"),
    ("cooperative-sticky", "CooperativeStickyAssignor"),
];

/// Names with commas between them, each once.
fn strategies(text: &str) -> Result<Vec<&'static str>, String> {
    let mut chosen = Vec::new();
    for name in text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        let class = name.strip_prefix("org.apache.kafka.clients.consumer.");
        let found = STRATEGIES
            .iter()
            .find(|(short, java)| *short == name || Some(*java) == class);
        let Some((short, _)) = found else {
            return Err(format!(
                "{name:?} is not an assignor of this client, only range, roundrobin, sticky, \
                 cooperative-sticky; give one of your own to the consumer's builder"
            ));
        };
        if !chosen.contains(short) {
            chosen.push(*short);
        }
    }
    match chosen.is_empty() {
        true => Err("names no assignor".to_owned()),
        false => Ok(chosen),
    }
}

const OFFSET_RESETS: &str = "latest, earliest, none, by_duration:PnDTnHnMn.nS";

fn offset_reset(text: &str) -> Result<OffsetReset, String> {
    Ok(match text {
        "latest" => OffsetReset::Latest,
        "earliest" => OffsetReset::Earliest,
        "none" => OffsetReset::None,
        _ => match text.strip_prefix("by_duration:") {
            Some(duration) => OffsetReset::ByDuration(values::iso_duration(duration)?),
            None => return Err(format!("{text:?} is not allowed, only {OFFSET_RESETS}")),
        },
    })
}

fn show_offset_reset(reset: OffsetReset) -> String {
    match reset {
        OffsetReset::Latest => "latest".to_owned(),
        OffsetReset::Earliest => "earliest".to_owned(),
        OffsetReset::None => "none".to_owned(),
        OffsetReset::ByDuration(age) => format!("by_duration:PT{}S", age.as_secs_f64()),
    }
}

fn gzip_level(settings: &mut Settings, text: &str) -> Result<(), String> {
    let level = narrow(whole(text)?)?;
    Compression::gzip()
        .with_level(level)
        .map_err(|error| error.to_string())?;
    settings.levels.gzip = level;
    Ok(())
}

macro_rules! keys {
    ($($role:ident $name:literal $([$($elsewhere:literal),+])? = $default:literal, $field:expr, $doc:literal;)*) => {
        /// Every setting that is honoured: those of all roles first, by name within a role.
        pub(crate) static KEYS: &[Key] = &[$(Key {
            name: $name,
            elsewhere: &[$($($elsewhere),+)?],
            role: Role::$role,
            default: $default,
            field: $field,
            doc: $doc,
        },)*];
    };
}

keys! {
    Common "bootstrap.servers" ["metadata.broker.list"] = "",
        Field::Choice {
            allowed: "host:port[,host:port…], IPv6 addresses in brackets",
            set: |s, text| { s.client.bootstrap = values::addresses(text)?; Ok(()) },
            show: |s| s.client.bootstrap.join(","),
        },
        "Where to find the cluster. A few brokers are enough: the client learns of the others from them, and comes back to these when it has lost all others.";
    Common "client.dns.lookup" = "use_all_dns_ips",
        Field::Choice {
            allowed: "use_all_dns_ips",
            set: |_, text| only(text, "use_all_dns_ips", &["resolve_canonical_bootstrap_servers_only"],
                "it serves Kerberos, which this version does not have"),
            show: |_| "use_all_dns_ips".to_owned(),
        },
        "Every address that a host name stands for is tried in turn.";
    Common "client.id" = "",
        Field::Choice {
            allowed: "any text",
            set: |s, text| { text.clone_into(&mut s.client.client_id); Ok(()) },
            show: |s| s.client.client_id.clone(),
        },
        "A name that brokers show in logs, metrics and quotas.";
    Common "connections.max.idle.ms" = "540000",
        Field::MillisOrNever(POSITIVE_LONG, |s| &mut s.client.connections_max_idle),
        "A connection that carried nothing for this long is closed. Brokers close theirs after ten minutes.";
    Common "default.api.timeout.ms" = "60000",
        Field::Millis(INT, |s| &mut s.client.api_timeout),
        "The deadline of calls that have no own: all requests and retries of a call fit into it.";
    Common "enable.metrics.push" = "false",
        Field::Choice {
            allowed: "false",
            set: |_, text| if values::flag(text)? {
                Err("true is not available: this version sends no metrics to brokers (KIP-714); use false".to_owned())
            } else { Ok(()) },
            show: |_| "false".to_owned(),
        },
        "Whether metrics are sent to the brokers (KIP-714).";
    Common "metadata.max.age.ms" = "300000",
        Field::Millis(LONG, |s| &mut s.client.metadata_max_age),
        "Knowledge of the cluster is refreshed at least this often, also when nothing seems wrong: so new partitions are found.";
    Common "metadata.recovery.rebootstrap.trigger.ms" = "300000",
        Field::Millis(LONG, |s| &mut s.client.rebootstrap_trigger),
        "When no metadata could be had for this long, the client starts again from `bootstrap.servers` (KIP-1102).";
    Common "metadata.recovery.strategy" = "rebootstrap",
        Field::Choice {
            allowed: "rebootstrap, none",
            set: |s, text| {
                s.client.rebootstrap = one_of(&text.to_ascii_lowercase(), &[("rebootstrap", true), ("none", false)])?;
                Ok(())
            },
            show: |s| if s.client.rebootstrap { "rebootstrap" } else { "none" }.to_owned(),
        },
        "What to do when none of the known brokers can be reached: start again from `bootstrap.servers`, or keep trying those known (KIP-899).";
    Common "receive.buffer.bytes" ["socket.receive.buffer.bytes"] = "-1",
        Field::SizeOrSystem(|s| &mut s.client.receive_buffer),
        "The socket's receive buffer (SO_RCVBUF).";
    Common "reconnect.backoff.max.ms" = "1000",
        Field::Millis(LONG, |s| &mut s.client.reconnect_backoff_max),
        "The wait before a broker is tried again grows up to this (plus or minus 20 %).";
    Common "reconnect.backoff.ms" = "50",
        Field::Millis(LONG, |s| &mut s.client.reconnect_backoff),
        "The wait before a broker is tried again after a first failure; doubled by each further one.";
    Common "request.timeout.ms" ["socket.timeout.ms"] = "30000",
        Field::Millis(POSITIVE_INT, |s| &mut s.client.request_timeout),
        "How long one request waits for its answer before the connection is given up and the request is tried again.";
    Common "retry.backoff.max.ms" = "1000",
        Field::Millis(LONG, |s| &mut s.client.retry_backoff_max),
        "The wait before a failed request is repeated grows up to this (plus or minus 20 %).";
    Common "retry.backoff.ms" = "100",
        Field::Millis(LONG, |s| &mut s.client.retry_backoff),
        "The wait before a failed request is repeated the first time; doubled each further time (KIP-580).";
    Common "security.protocol" = "PLAINTEXT",
        Field::Choice {
            allowed: "PLAINTEXT",
            set: |_, text| only(text, "PLAINTEXT", &["SSL", "SASL_PLAINTEXT", "SASL_SSL"],
                "this version has neither TLS nor SASL"),
            show: |_| "PLAINTEXT".to_owned(),
        },
        "How connections are secured.";
    Common "send.buffer.bytes" ["socket.send.buffer.bytes"] = "-1",
        Field::SizeOrSystem(|s| &mut s.client.send_buffer),
        "The socket's send buffer (SO_SNDBUF).";
    Common "socket.connection.setup.timeout.max.ms" = "30000",
        Field::Millis(POSITIVE_LONG, |s| &mut s.client.connection_setup_timeout_max),
        "The time allowed for a connection to be made grows up to this (plus or minus 20 %).";
    Common "socket.connection.setup.timeout.ms" = "10000",
        Field::Millis(POSITIVE_LONG, |s| &mut s.client.connection_setup_timeout),
        "The time allowed for a connection to be made; doubled by each failure in a row.";

    Producer "acks" ["request.required.acks"] = "all",
        Field::Choice {
            allowed: "all, -1, 0, 1",
            set: |s, text| { s.producer.acks = one_of(text, ACKS)?; Ok(()) },
            show: |s| match s.producer.acks { Acks::All => "all", Acks::Leader => "1", Acks::None => "0" }.to_owned(),
        },
        "How many replicas must have a record before it counts as written: all in-sync ones (all, -1), the leader (1), or none (0: no answer, no offsets).";
    Producer "batch.size" ["batch.num.messages"] = "16384",
        Field::Size(INT, |s| &mut s.producer.batch_size),
        "Bytes of records that are gathered for one partition before they are sent without further waiting; 0 sends each record alone.";
    Producer "buffer.memory" ["queue.buffering.max.kbytes", "queue.buffering.max.messages"] = "33554432",
        Field::Size(POSITIVE_LONG, |s| &mut s.producer.buffer_memory),
        "Bytes of records that may wait in the producer; sends beyond it wait for room.";
    Producer "compression.gzip.level" = "-1",
        Field::Choice {
            allowed: "1 to 9, -1: the library's choice",
            set: gzip_level,
            show: |s| s.levels.gzip.to_string(),
        },
        "The level of gzip: 1 is fast, 9 is small (KIP-390).";
    Producer "compression.type" ["compression.codec"] = "none",
        Field::Choice {
            allowed: "none, gzip, snappy, lz4, zstd",
            set: |s, text| {
                s.producer.compression = text.parse::<Compression>().map_err(|error| error.to_string())?;
                Ok(())
            },
            show: |s| s.producer.compression.to_string(),
        },
        "How batches are compressed. Each but none needs the cargo feature of its name.";
    Producer "compression.zstd.level" ["compression.level"] = "3",
        Field::Int(Range(-131_072, 22), |s| &mut s.levels.zstd),
        "The level of zstd: lower is faster, higher is smaller (KIP-390).";
    Producer "delivery.timeout.ms" ["message.timeout.ms"] = "120000",
        Field::Millis(INT, |s| &mut s.producer.delivery_timeout),
        "A record that is not acknowledged within this time of being accepted has failed. At least `linger.ms` plus `request.timeout.ms`; left at its default it is raised to that.";
    Producer "enable.idempotence" = "true",
        Field::Choice {
            allowed: "true, false",
            set: |s, text| { s.producer.idempotence = Some(values::flag(text)?); Ok(()) },
            show: |s| s.producer.idempotence.unwrap_or(true).to_string(),
        },
        "Retries neither duplicate nor reorder records. Needs acks=all, retries of at least 1 and at most 5 requests in flight; where it was not asked for and these are set otherwise, it is off.";
    Producer "linger.ms" ["queue.buffering.max.ms"] = "5",
        Field::Millis(LONG, |s| &mut s.producer.linger),
        "How long a batch that is not full waits for more records at most. One that somebody waits for (`Producer::send`, or a `Delivery` that is awaited) waits only while another batch of its partition is under way: records gather behind that, and go when it is answered.";
    Producer "max.block.ms" = "60000",
        Field::Millis(LONG, |s| &mut s.producer.max_block),
        "How long a send waits for buffer space and for metadata of its topic.";
    Producer "max.in.flight.requests.per.connection" ["max.in.flight"] = "5",
        Field::Size(POSITIVE_INT, |s| &mut s.producer.max_in_flight),
        "How many requests may await their answers from one broker. With more than 1 and without idempotence, retries can reorder records.";
    Producer "max.request.size" ["message.max.bytes"] = "1048576",
        Field::Size(POSITIVE_INT, |s| &mut s.producer.max_request_size),
        "The largest record and the largest request, in bytes; the broker and the topic have limits of their own (`max.message.bytes`).";
    Producer "metadata.max.idle.ms" = "300000",
        Field::Millis(IDLE, |s| &mut s.producer.metadata_max_idle),
        "A topic to which a producer has sent nothing for this long is forgotten, and looked up again when it is used again; looked for every half of this time.";
    Producer "partitioner.adaptive.partitioning.enable" = "true",
        Field::Flag(|s| &mut s.producer.adaptive_partitioning),
        "Records without a key go more often to brokers that are quick (KIP-794).";
    Producer "partitioner.availability.timeout.ms" = "0",
        Field::Millis(LONG, |s| &mut s.producer.availability_timeout),
        "Records without a key avoid brokers that have taken no data for this long although there was some for them (KIP-794); 0 turns this off, and so does `partitioner.adaptive.partitioning.enable=false`.";
    Producer "partitioner.ignore.keys" = "false",
        Field::Flag(|s| &mut s.producer.ignore_keys),
        "Records with a key are spread like those without.";
    Producer "retries" ["message.send.max.retries"] = "2147483647",
        Field::Count(INT, |s| &mut s.producer.retries),
        "How often a batch is sent again. The time allowed for delivery is the better limit.";
    Producer "transaction.timeout.ms" = "60000",
        Field::Millis(POSITIVE_INT, |s| &mut s.producer.transaction_timeout),
        "How long a transaction may be open until the coordinator aborts it; at most the broker's `transaction.max.timeout.ms`.";
    Producer "transactional.id" = "",
        Field::Named(|s| &mut s.producer.transactional_id),
        "The lasting name of a transactional producer: who begins with it ends the transaction that an earlier owner left open, and shuts that owner out (KIP-98).";

    Consumer "allow.auto.create.topics" = "true",
        Field::Flag(|s| &mut s.consumer.allow_auto_create_topics),
        "Subscribing to a topic that does not exist creates it, if the broker allows it (`auto.create.topics.enable`).";
    Consumer "auto.commit.interval.ms" = "5000",
        Field::Millis(POSITIVE_INT, |s| &mut s.consumer.auto_commit_interval),
        "How often positions are committed with `enable.auto.commit`.";
    Consumer "auto.offset.reset" = "latest",
        Field::Choice {
            allowed: OFFSET_RESETS,
            set: |s, text| { s.consumer.offset_reset = offset_reset(text)?; Ok(()) },
            show: |s| show_offset_reset(s.consumer.offset_reset),
        },
        "Where to start in a partition that has no committed offset, or no longer the one committed: at the end, at the beginning, not at all (an error), or at the first record younger than a duration (KIP-1106).";
    Consumer "check.crcs" = "true",
        Field::Flag(|s| &mut s.consumer.check_crcs),
        "Checksums of batches are verified.";
    Consumer "client.rack" = "",
        Field::Text(|s| &mut s.consumer.client_rack),
        "Where this client runs, as brokers name it (`broker.rack`): it then reads from a replica nearby, if the brokers are set up so (KIP-392).";
    Consumer "enable.auto.commit" = "true",
        Field::Flag(|s| &mut s.consumer.auto_commit),
        "Positions are committed in the background.";
    Consumer "exclude.internal.topics" = "true",
        Field::Flag(|s| &mut s.consumer.exclude_internal_topics),
        "Kafka's own topics are left out of what a pattern matches, if the client matches it.";
    Consumer "fetch.max.bytes" = "52428800",
        Field::Int(POSITIVE_INT, |s| &mut s.consumer.fetch_max_bytes),
        "Bytes of records in one answer of a broker; a first batch larger than this comes nevertheless.";
    Consumer "fetch.max.wait.ms" ["fetch.wait.max.ms"] = "500",
        Field::Millis(INT, |s| &mut s.consumer.fetch_max_wait),
        "How long a broker may wait for `fetch.min.bytes` before it answers.";
    Consumer "fetch.min.bytes" = "1",
        Field::Int(INT, |s| &mut s.consumer.fetch_min_bytes),
        "A broker answers once it has this many bytes, or `fetch.max.wait.ms` have passed.";
    Consumer "group.id" = "",
        Field::Named(|s| &mut s.consumer.group_id),
        "The group whose members share the partitions, and under which offsets are committed.";
    Consumer "group.instance.id" = "",
        Field::Named(|s| &mut s.consumer.group_instance_id),
        "A lasting name of this member: a restart within the session time-out gets the same partitions without a rebalance (KIP-345).";
    Consumer "group.protocol" = "auto",
        Field::Choice {
            allowed: "auto, classic, consumer",
            set: |s, text| { s.consumer.group_protocol = one_of(&text.to_ascii_lowercase(), PROTOCOLS)?; Ok(()) },
            show: |s| s.consumer.group_protocol.to_string(),
        },
        "How members and broker agree on who reads what: the broker assigns (`consumer`, KIP-848, Kafka 4.0 or newer), or one of the members does (`classic`). `auto` is `consumer` where the group's coordinator offers it, and `classic` elsewhere or with a setting that is of `classic` alone.";
    Consumer "group.remote.assignor" = "",
        Field::Text(|s| &mut s.consumer.group_remote_assignor),
        "The broker's assignor, `uniform` or `range`, or one that the broker's administrator added; without it the broker chooses.";
    Consumer "heartbeat.interval.ms" = "3000",
        Field::Millis(POSITIVE_INT, |s| &mut s.consumer.heartbeat_interval),
        "How often a member of the protocol `classic` is heard of, so that it learns of rebalances; less than `session.timeout.ms`. With `consumer` the broker decides (`group.consumer.heartbeat.interval.ms`).";
    Consumer "isolation.level" = "read_uncommitted",
        Field::Choice {
            allowed: "read_uncommitted, read_committed",
            set: |s, text| { s.consumer.isolation = one_of(text, ISOLATION)?; Ok(()) },
            show: |s| match s.consumer.isolation {
                IsolationLevel::ReadUncommitted => "read_uncommitted",
                IsolationLevel::ReadCommitted => "read_committed",
            }.to_owned(),
        },
        "Whether records of open and aborted transactions are seen.";
    Consumer "max.partition.fetch.bytes" ["fetch.message.max.bytes"] = "1048576",
        Field::Int(POSITIVE_INT, |s| &mut s.consumer.max_partition_fetch_bytes),
        "Bytes of one partition in one answer; a first batch larger than this comes nevertheless.";
    Consumer "max.poll.interval.ms" = "300000",
        Field::Millis(POSITIVE_INT, |s| &mut s.consumer.max_poll_interval),
        "A member that does not poll for this long is thought dead and loses its partitions.";
    Consumer "max.poll.records" = "500",
        Field::Size(POSITIVE_INT, |s| &mut s.consumer.max_poll_records),
        "How many records one poll returns at most. It does not change what is fetched.";
    Consumer "partition.assignment.strategy" = "range,cooperative-sticky",
        Field::Choice {
            allowed: "range, roundrobin, sticky, cooperative-sticky, or the names of Java's classes; several with commas, the preferred one first",
            set: |s, text| { s.consumer.assignment_strategy = strategies(text)?; Ok(()) },
            show: |s| s.consumer.assignment_strategy.join(","),
        },
        "Who assigns how, with the protocol `classic`: the group uses an assignor that all of its members have. All partitions stop at each rebalance unless all of a member's assignors are cooperative (KIP-429). With `consumer` the broker assigns (`group.remote.assignor`).";
    Consumer "session.timeout.ms" = "45000",
        Field::Millis(POSITIVE_INT, |s| &mut s.consumer.session_timeout),
        "A member of the protocol `classic` that was not heard of for this long is thrown out of its group; between the broker's `group.min.session.timeout.ms` and `group.max.session.timeout.ms`. With `consumer` the broker decides (`group.consumer.session.timeout.ms`).";
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
