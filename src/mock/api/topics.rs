//! CreateTopics, DeleteTopics, CreatePartitions, ListPartitionReassignments.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, ListPartitionReassignmentsResponse, TopicName,
};

use super::super::state::State;
use super::super::topic_config;
use super::{Context, configs, wire};
use crate::wire::codes;

/// No topic of the mock may have more partitions.
const MOST_PARTITIONS: i32 = 100_000;

type Refusal = (i16, String);

/// What Kafka takes as a topic's name.
pub(in super::super) fn is_valid_name(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() <= 249 && name != "." && name != ".." && name.chars().all(fine)
}

pub(in super::super) fn create_topics(
    state: &mut State,
    context: &Context,
    request: &CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for topic in &request.topics {
        if !seen.insert(topic.name.to_string()) {
            twice.insert(topic.name.to_string());
        }
    }
    let mut results = Vec::new();
    for topic in &request.topics {
        let created = match context.forced {
            Some(code) => Err((code, String::new())),
            None if twice.contains(&*topic.name.0) => {
                Err((codes::INVALID_REQUEST, "Duplicate topic name.".to_owned()))
            }
            None => create_topic(state, topic, request.validate_only),
        };
        results.push(match created {
            Ok(result) => result,
            Err((code, why)) => CreatableTopicResult::default()
                .with_name(topic.name.clone())
                .with_error_code(code)
                .with_error_message(Some(wire(why)))
                .with_configs(None)
                .with_num_partitions(-1)
                .with_replication_factor(-1),
        });
    }
    CreateTopicsResponse::default().with_topics(results)
}

fn create_topic(
    state: &mut State,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<CreatableTopicResult, Refusal> {
    let name = topic.name.to_string();
    if !is_valid_name(&name) {
        return Err((
            codes::INVALID_TOPIC_EXCEPTION,
            format!("Topic name is invalid: '{name}'"),
        ));
    }
    if state.topics.contains_key(&name) {
        return Err((
            codes::TOPIC_ALREADY_EXISTS,
            format!("Topic '{name}' already exists."),
        ));
    }
    let settings = settings_of(topic)?;
    let replicas = match topic.assignments.is_empty() {
        true => spread(state, topic)?,
        false => assigned(state, topic)?,
    };
    let mut result = CreatableTopicResult::default()
        .with_name(topic.name.clone())
        .with_num_partitions(replicas.len() as i32)
        .with_replication_factor(replicas.first().map_or(0, Vec::len) as i16);
    let shown = configs::of_topic(&settings).into_iter().map(|config| {
        CreatableTopicConfigs::default()
            .with_name(config.name)
            .with_value(config.value)
            .with_config_source(config.config_source)
    });
    result.configs = Some(shown.collect());
    if !validate_only {
        result.topic_id = state.create_topic(&name, replicas, settings);
    }
    Ok(result)
}

fn settings_of(topic: &CreatableTopic) -> Result<BTreeMap<String, String>, Refusal> {
    let mut settings = BTreeMap::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            return Err((
                codes::INVALID_CONFIG,
                format!(
                    "Null value not supported for topic configs: {}",
                    config.name
                ),
            ));
        };
        topic_config::check(&config.name, value).map_err(|why| (codes::INVALID_CONFIG, why))?;
        settings.insert(config.name.to_string(), value.to_string());
    }
    Ok(settings)
}

fn spread(state: &State, topic: &CreatableTopic) -> Result<Vec<Vec<i32>>, Refusal> {
    let partitions = match topic.num_partitions {
        -1 => state.defaults.partitions,
        count => count,
    };
    if !(1..=MOST_PARTITIONS).contains(&partitions) {
        return Err((
            codes::INVALID_PARTITIONS,
            "Number of partitions was set to an invalid non-positive value.".to_owned(),
        ));
    }
    let replication = match topic.replication_factor {
        -1 => state.defaults.replication,
        factor => factor,
    };
    if replication < 1 {
        return Err((
            codes::INVALID_REPLICATION_FACTOR,
            "Replication factor must be larger than 0, or -1 to use the default value.".to_owned(),
        ));
    }
    let brokers = state.alive().count();
    if usize::try_from(replication).unwrap_or(0) > brokers {
        return Err((
            codes::INVALID_REPLICATION_FACTOR,
            format!(
                "Unable to replicate the partition {replication} time(s): The target replication \
                 factor of {replication} cannot be reached because only {brokers} broker(s) are registered."
            ),
        ));
    }
    Ok(state.spread(partitions, replication, 0))
}

/// The replicas that the request names itself.
fn assigned(state: &State, topic: &CreatableTopic) -> Result<Vec<Vec<i32>>, Refusal> {
    let refuse = |why: &str| Err((codes::INVALID_REPLICA_ASSIGNMENT, why.to_owned()));
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        return Err((
            codes::INVALID_REQUEST,
            "A manual partition assignment was specified, but numPartitions or replicationFactor was not set to -1."
                .to_owned(),
        ));
    }
    let given: BTreeMap<i32, Vec<i32>> = topic
        .assignments
        .iter()
        .map(|one| {
            (
                one.partition_index,
                one.broker_ids.iter().map(|id| id.0).collect(),
            )
        })
        .collect();
    let consecutive = given
        .keys()
        .enumerate()
        .all(|(index, key)| index as i32 == *key);
    if !consecutive || given.len() != topic.assignments.len() {
        return refuse("partitions should be a consecutive 0-based integer sequence");
    }
    let known =
        |ids: &Vec<i32>| !ids.is_empty() && ids.iter().all(|id| state.brokers.contains_key(id));
    if !given.values().all(known) {
        return refuse("The manual partition assignment includes a broker that is not registered.");
    }
    Ok(given.into_values().collect())
}

pub(in super::super) fn delete_topics(
    state: &mut State,
    context: &Context,
    request: &DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let by_name = |name: &TopicName| (Some(name.clone()), uuid::Uuid::nil());
    let asked = match context.version {
        6.. => request
            .topics
            .iter()
            .map(|topic| (topic.name.clone(), topic.topic_id))
            .collect(),
        _ => request.topic_names.iter().map(by_name).collect::<Vec<_>>(),
    };
    let mut responses = Vec::new();
    for (name, id) in asked {
        let found = match &name {
            Some(name) => state
                .topics
                .get_key_value(&*name.0)
                .map(|(name, topic)| (name.clone(), topic.id)),
            None => state
                .topic_by_id(id)
                .map(|(name, topic)| (name.clone(), topic.id)),
        };
        let mut result = DeletableTopicResult::default()
            .with_name(name.clone())
            .with_topic_id(id);
        match (context.forced, found) {
            (Some(code), _) => result.error_code = code,
            (None, None) => {
                result.error_code = match name {
                    Some(_) => codes::UNKNOWN_TOPIC_OR_PARTITION,
                    None => codes::UNKNOWN_TOPIC_ID,
                };
                if context.version >= 5 {
                    result.error_message = Some(wire(match name {
                        Some(_) => "This server does not host this topic-partition.",
                        None => "This server does not host this topic ID.",
                    }));
                }
            }
            (None, Some((found, id))) => {
                state.topics.shift_remove(&found);
                for group in state.groups.values_mut() {
                    group.offsets.retain(|(topic, _), _| *topic != found);
                }
                result.name = Some(super::topic_name(found));
                result.topic_id = id;
            }
        }
        responses.push(result);
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

pub(in super::super) fn create_partitions(
    state: &mut State,
    context: &Context,
    request: &CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut results = Vec::new();
    for topic in &request.topics {
        let result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
        let grown = match context.forced {
            Some(code) => Err((code, String::new())),
            None => grow(state, topic, request.validate_only),
        };
        results.push(match grown {
            Ok(()) => result,
            Err((code, why)) => result
                .with_error_code(code)
                .with_error_message(Some(wire(why))),
        });
    }
    CreatePartitionsResponse::default().with_results(results)
}

fn grow(
    state: &mut State,
    asked: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), Refusal> {
    let name = asked.name.to_string();
    let Some(topic) = state.topics.get(&name) else {
        return Err((
            codes::UNKNOWN_TOPIC_OR_PARTITION,
            "This server does not host this topic-partition.".to_owned(),
        ));
    };
    let present = topic.partitions.len() as i32;
    if asked.count == present {
        return Err((
            codes::INVALID_PARTITIONS,
            format!("Topic already has {present} partition(s)."),
        ));
    }
    if asked.count < present {
        return Err((
            codes::INVALID_PARTITIONS,
            format!(
                "The topic {name} currently has {present} partition(s); {} would not be an increase.",
                asked.count
            ),
        ));
    }
    if asked.count > MOST_PARTITIONS {
        return Err((
            codes::INVALID_PARTITIONS,
            "the mock does not take so many partitions".to_owned(),
        ));
    }
    let replication = topic
        .partitions
        .first()
        .map_or(1, |partition| partition.replicas.len());
    let replicas = match &asked.assignments {
        None => state.spread(asked.count - present, replication as i16, present as usize),
        Some(given) if given.len() as i32 == asked.count - present => {
            let ids = given
                .iter()
                .map(|one| one.broker_ids.iter().map(|id| id.0).collect());
            ids.collect()
        }
        Some(given) => {
            return Err((
                codes::INVALID_REPLICA_ASSIGNMENT,
                format!(
                    "Attempted to add {} additional partition(s), but only {} assignment(s) were specified.",
                    asked.count - present,
                    given.len()
                ),
            ));
        }
    };
    if validate_only {
        return Ok(());
    }
    let added: Vec<_> = replicas
        .into_iter()
        .map(|replicas| state.new_partition(replicas))
        .collect();
    if let Some(topic) = state.topics.get_mut(&name) {
        topic.partitions.extend(added);
    }
    Ok(())
}

/// Nothing is ever being reassigned here.
pub(in super::super) fn reassignments(context: &Context) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default()
        .with_error_code(context.forced.unwrap_or(codes::NONE))
}
