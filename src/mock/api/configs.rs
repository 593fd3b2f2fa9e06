//! DescribeConfigs, and the topic configurations that the mock knows.

use std::collections::BTreeMap;

use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::super::state::State;
use super::super::topic_config::{BOOLEAN, INT, STRING, TOPIC, default_of};
use super::{Context, wire};
use crate::wire::codes;

const DYNAMIC_TOPIC: i8 = 1;
const DYNAMIC_BROKER: i8 = 2;
const DYNAMIC_DEFAULT_BROKER: i8 = 3;
const STATIC_BROKER: i8 = 4;
const DEFAULT: i8 = 5;
const DYNAMIC_GROUP: i8 = 8;

pub(super) const TOPIC_RESOURCE: i8 = 2;
pub(super) const BROKER_RESOURCE: i8 = 4;
pub(super) const GROUP_RESOURCE: i8 = 32;

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

/// What was set for a broker or a group.
fn set(
    state: &State,
    kind: i8,
    name: &str,
    source: i8,
) -> impl Iterator<Item = DescribeConfigsResourceResult> {
    let set = state.configs.get(&(kind, name.to_owned()));
    let set = set.into_iter().flatten();
    set.map(move |(name, value)| config(name, value, STRING, source))
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
        GROUP_RESOURCE => Ok(set(state, kind, name, DYNAMIC_GROUP).collect()),
        // What is set for all brokers.
        BROKER_RESOURCE if name.is_empty() => {
            Ok(set(state, kind, name, DYNAMIC_DEFAULT_BROKER).collect())
        }
        BROKER_RESOURCE => {
            let defaults = &state.defaults;
            let mut configs = vec![
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
            ];
            let all = set(state, kind, "", DYNAMIC_DEFAULT_BROKER);
            for dynamic in all.chain(set(state, kind, name, DYNAMIC_BROKER)) {
                configs.retain(|config| config.name != dynamic.name);
                configs.push(dynamic);
            }
            Ok(configs)
        }
        _ => Err((
            codes::INVALID_REQUEST,
            format!("Unsupported resource type: {kind}"),
        )),
    }
}
