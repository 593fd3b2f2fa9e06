//! IncrementalAlterConfigs.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::super::state::State;
use super::super::topic_config;
use super::configs::{BROKER_RESOURCE, GROUP_RESOURCE, TOPIC_RESOURCE};
use super::{Context, wire};
use crate::wire::codes;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

type Refusal = (i16, String);

pub(in super::super) fn alter(
    state: &mut State,
    context: &Context,
    request: &IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::new();
    for resource in &request.resources {
        let altered = match context.forced {
            Some(code) => Err((code, String::new())),
            None => alter_one(state, resource, request.validate_only),
        };
        let (code, why) = altered.err().unwrap_or_default();
        responses.push(
            AlterConfigsResourceResponse::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone())
                .with_error_code(code)
                .with_error_message((code != codes::NONE).then(|| wire(why))),
        );
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

fn alter_one(
    state: &mut State,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refusal> {
    let name = &*resource.resource_name;
    let mut seen = BTreeSet::new();
    if !resource
        .configs
        .iter()
        .all(|config| seen.insert(&config.name))
    {
        let why = "Error due to duplicate config keys".to_owned();
        return Err((codes::INVALID_REQUEST, why));
    }
    let kind = resource.resource_type;
    let before = match kind {
        TOPIC_RESOURCE => match state.topics.get(name) {
            Some(topic) => topic.configs.clone(),
            None => {
                let why = format!("The topic '{name}' does not exist.");
                return Err((codes::UNKNOWN_TOPIC_OR_PARTITION, why));
            }
        },
        BROKER_RESOURCE | GROUP_RESOURCE => {
            let key = (kind, name.to_owned());
            state.configs.get(&key).cloned().unwrap_or_default()
        }
        _ => {
            let why = format!("Unsupported resource type: {kind}");
            return Err((codes::INVALID_REQUEST, why));
        }
    };
    let mut after = before;
    for config in &resource.configs {
        change(&mut after, kind, config)?;
    }
    if validate_only {
        return Ok(());
    }
    match (kind, state.topics.get_mut(name)) {
        (TOPIC_RESOURCE, Some(topic)) => topic.configs = after,
        _ => drop(state.configs.insert((kind, name.to_owned()), after)),
    }
    Ok(())
}

fn change(
    configs: &mut BTreeMap<String, String>,
    kind: i8,
    config: &AlterableConfig,
) -> Result<(), Refusal> {
    let name = config.name.to_string();
    let value = config.value.as_deref();
    let missing = || {
        let why = format!("Null value not supported for : {name}");
        (codes::INVALID_REQUEST, why)
    };
    let current = || {
        let own = configs.get(&name).map(String::as_str);
        let list = own.unwrap_or_else(|| topic_config::default_of(&name));
        let items = list.split(',').filter(|item| !item.is_empty());
        items.map(str::to_owned).collect::<Vec<_>>()
    };
    let listed = |value: &str| value.split(',').map(str::to_owned).collect::<Vec<_>>();
    let value = match config.config_operation {
        DELETE => {
            configs.remove(&name);
            return Ok(());
        }
        SET => value.ok_or_else(missing)?.to_owned(),
        APPEND | SUBTRACT if kind == TOPIC_RESOURCE && !topic_config::is_list(&name) => {
            let why = format!("Can't append or subtract: {name} is not a list.");
            return Err((codes::INVALID_CONFIG, why));
        }
        APPEND => {
            let mut items = current();
            for item in listed(value.ok_or_else(missing)?) {
                if !items.contains(&item) {
                    items.push(item);
                }
            }
            items.join(",")
        }
        SUBTRACT => {
            let gone = listed(value.ok_or_else(missing)?);
            let mut items = current();
            items.retain(|item| !gone.contains(item));
            items.join(",")
        }
        other => {
            let why = format!("Unknown operation type {other}");
            return Err((codes::INVALID_REQUEST, why));
        }
    };
    if kind == TOPIC_RESOURCE {
        topic_config::check(&name, &value).map_err(|why| (codes::INVALID_CONFIG, why))?;
    }
    configs.insert(name, value);
    Ok(())
}
