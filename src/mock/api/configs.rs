//! DescribeConfigs, and the topic configurations that the mock knows.

use std::collections::BTreeMap;

use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::super::state::State;
use super::{Context, wire};
use crate::wire::codes;

const BOOLEAN: i8 = 1;
const STRING: i8 = 2;
const INT: i8 = 3;
const LONG: i8 = 5;
const DOUBLE: i8 = 6;
const LIST: i8 = 7;

const DYNAMIC_TOPIC: i8 = 1;
const STATIC_BROKER: i8 = 4;
const DEFAULT: i8 = 5;

const TOPIC_RESOURCE: i8 = 2;
const BROKER_RESOURCE: i8 = 4;

/// Name, type and default of every topic configuration of Kafka 4.
const TOPIC: &[(&str, i8, &str)] = &[
    ("cleanup.policy", LIST, "delete"),
    ("compression.gzip.level", INT, "-1"),
    ("compression.lz4.level", INT, "9"),
    ("compression.type", STRING, "producer"),
    ("compression.zstd.level", INT, "3"),
    ("delete.retention.ms", LONG, "86400000"),
    ("file.delete.delay.ms", LONG, "60000"),
    ("flush.messages", LONG, "9223372036854775807"),
    ("flush.ms", LONG, "9223372036854775807"),
    ("follower.replication.throttled.replicas", LIST, ""),
    ("index.interval.bytes", INT, "4096"),
    ("leader.replication.throttled.replicas", LIST, ""),
    ("local.retention.bytes", LONG, "-2"),
    ("local.retention.ms", LONG, "-2"),
    ("max.compaction.lag.ms", LONG, "9223372036854775807"),
    ("max.message.bytes", INT, "1048588"),
    ("message.timestamp.after.max.ms", LONG, "3600000"),
    (
        "message.timestamp.before.max.ms",
        LONG,
        "9223372036854775807",
    ),
    ("message.timestamp.type", STRING, "CreateTime"),
    ("min.cleanable.dirty.ratio", DOUBLE, "0.5"),
    ("min.compaction.lag.ms", LONG, "0"),
    ("min.insync.replicas", INT, "1"),
    ("preallocate", BOOLEAN, "false"),
    ("remote.log.copy.disable", BOOLEAN, "false"),
    ("remote.log.delete.on.disable", BOOLEAN, "false"),
    ("remote.storage.enable", BOOLEAN, "false"),
    ("retention.bytes", LONG, "-1"),
    ("retention.ms", LONG, "604800000"),
    ("segment.bytes", INT, "1073741824"),
    ("segment.index.bytes", INT, "10485760"),
    ("segment.jitter.ms", LONG, "0"),
    ("segment.ms", LONG, "604800000"),
    ("unclean.leader.election.enable", BOOLEAN, "false"),
];

/// Kafka's default of a topic configuration; empty for names that it does not have.
pub(in super::super) fn default_of(name: &str) -> &'static str {
    row(name).map_or("", |row| row.2)
}

fn row(name: &str) -> Option<&'static (&'static str, i8, &'static str)> {
    TOPIC.iter().find(|row| row.0 == name)
}

/// Whether Kafka has this configuration and takes this value for it.
pub(super) fn check(name: &str, value: &str) -> Result<(), String> {
    let Some((_, kind, _)) = row(name) else {
        return Err(format!("Unknown topic config name: {name}"));
    };
    let number = |what: &str| {
        format!("Invalid value {value} for configuration {name}: Not a number of type {what}")
    };
    match *kind {
        BOOLEAN if !matches!(value, "true" | "false") => Err(format!(
            "Invalid value {value} for configuration {name}: Expected value to be either true or false"
        )),
        INT if value.trim().parse::<i32>().is_err() => Err(number("INT")),
        LONG if value.trim().parse::<i64>().is_err() => Err(number("LONG")),
        DOUBLE if value.trim().parse::<f64>().is_err() => Err(number("DOUBLE")),
        _ => match (name, value) {
            ("cleanup.policy", "delete" | "compact" | "delete,compact" | "compact,delete" | "")
            | ("message.timestamp.type", "CreateTime")
            | (
                "compression.type",
                "uncompressed" | "zstd" | "lz4" | "snappy" | "gzip" | "producer",
            ) => Ok(()),
            ("cleanup.policy" | "message.timestamp.type" | "compression.type", _) => {
                Err(format!("Invalid value {value} for configuration {name}"))
            }
            _ => Ok(()),
        },
    }
}

/// All configurations of a topic, those set for it marked so.
pub(super) fn of_topic(set: &BTreeMap<String, String>) -> Vec<DescribeConfigsResourceResult> {
    let shown = TOPIC.iter().map(|(name, kind, default)| {
        let own = set.get(*name);
        let value = own.map_or(*default, String::as_str);
        config(
            name,
            value,
            *kind,
            if own.is_some() {
                DYNAMIC_TOPIC
            } else {
                DEFAULT
            },
        )
    });
    shown.collect()
}

fn config(name: &str, value: &str, kind: i8, source: i8) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult::default()
        .with_name(wire(name))
        .with_value(Some(wire(value)))
        .with_config_source(source)
        .with_config_type(kind)
}

pub(in super::super) fn describe(
    state: &State,
    context: &Context,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let results = request.resources.iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let found = match context.forced {
            Some(code) => Err((code, String::new())),
            None => describe_one(state, resource.resource_type, &resource.resource_name),
        };
        match found {
            Ok(mut configs) => {
                if let Some(wanted) = &resource.configuration_keys {
                    configs.retain(|config| wanted.contains(&config.name));
                }
                result.with_configs(configs)
            }
            Err((code, why)) => result
                .with_error_code(code)
                .with_error_message(Some(wire(why))),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe_one(
    state: &State,
    kind: i8,
    name: &str,
) -> Result<Vec<DescribeConfigsResourceResult>, (i16, String)> {
    match kind {
        TOPIC_RESOURCE => match state.topics.get(name) {
            Some(topic) => Ok(of_topic(&topic.configs)),
            None => Err((
                codes::UNKNOWN_TOPIC_OR_PARTITION,
                "This server does not host this topic-partition.".to_owned(),
            )),
        },
        BROKER_RESOURCE => {
            let defaults = &state.defaults;
            Ok(vec![
                config(
                    "auto.create.topics.enable",
                    &defaults.auto_create.to_string(),
                    BOOLEAN,
                    STATIC_BROKER,
                ),
                config(
                    "default.replication.factor",
                    &defaults.replication.to_string(),
                    INT,
                    STATIC_BROKER,
                ),
                config(
                    "message.max.bytes",
                    default_of("max.message.bytes"),
                    INT,
                    DEFAULT,
                ),
                config(
                    "min.insync.replicas",
                    default_of("min.insync.replicas"),
                    INT,
                    DEFAULT,
                ),
                config("node.id", name, INT, STATIC_BROKER),
                config(
                    "num.partitions",
                    &defaults.partitions.to_string(),
                    INT,
                    STATIC_BROKER,
                ),
            ])
        }
        _ => Err((
            codes::INVALID_REQUEST,
            format!("Unsupported resource type: {kind}"),
        )),
    }
}
