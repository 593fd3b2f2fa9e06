//! ApiVersions, Metadata, DescribeTopicPartitions, DescribeCluster, FindCoordinator.

use std::collections::BTreeMap;

use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiVersionsResponse, DescribeClusterRequest, DescribeClusterResponse,
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, MetadataRequest, MetadataResponse,
};

use super::super::requests::Api;
use super::super::state::{Partition, State, Topic, transaction_key};
use super::topics::is_valid_name;
use super::{Context, broker_ids, host_port, topic_name, wire};
use crate::wire::codes;

/// `metadata.version` of Kafka 4.1, and the other features whose level clients look at.
const FEATURES: [(&str, i16, i16); 4] = [
    ("metadata.version", 7, 27),
    ("group.version", 0, 1),
    ("kraft.version", 0, 1),
    ("transaction.version", 0, 2),
];

pub(in super::super) fn api_versions(state: &State, context: &Context) -> ApiVersionsResponse {
    let keys = Api::ALL.iter().filter_map(|api| {
        let (low, high) = state.versions(*api)?;
        let key = ApiVersion::default().with_api_key(api.key());
        Some(key.with_min_version(low).with_max_version(high))
    });
    let mut response = ApiVersionsResponse::default()
        .with_error_code(context.forced.unwrap_or(codes::NONE))
        .with_api_keys(keys.collect());
    if context.version >= 3 {
        let supported = FEATURES.iter().map(|(name, low, high)| {
            SupportedFeatureKey::default()
                .with_name(wire(*name))
                // A lowest level of 0 is only told from version 4 on (KIP-1022).
                .with_min_version(if context.version >= 4 {
                    *low
                } else {
                    (*low).max(1)
                })
                .with_max_version(*high)
        });
        let finalized = FEATURES.iter().filter_map(|(name, _, high)| {
            let high = match *name {
                "transaction.version" => &state.transaction_version,
                _ => high,
            };
            (*high > 0).then(|| {
                FinalizedFeatureKey::default()
                    .with_name(wire(*name))
                    .with_min_version_level(*high)
                    .with_max_version_level(*high)
            })
        });
        response = response
            .with_supported_features(supported.collect())
            .with_finalized_features_epoch(state.features_epoch)
            .with_finalized_features(finalized.collect());
    }
    response
}

/// The type of a key that is a transactional id.
const TRANSACTION: i8 = 1;

/// What a broker says to an ApiVersions request that is newer than it knows (KIP-511).
pub(in super::super) fn api_versions_refused() -> ApiVersionsResponse {
    let (low, high) = Api::ApiVersions.versions();
    let own = ApiVersion::default()
        .with_api_key(Api::ApiVersions.key())
        .with_min_version(low)
        .with_max_version(high);
    ApiVersionsResponse::default()
        .with_error_code(codes::UNSUPPORTED_VERSION)
        .with_api_keys(vec![own])
}

pub(in super::super) fn metadata(
    state: &mut State,
    context: &Context,
    request: &MetadataRequest,
) -> MetadataResponse {
    let mut topics = Vec::new();
    match &request.topics {
        None => {
            for (name, topic) in &state.topics {
                topics.push(known_topic(state, context, name, topic));
            }
        }
        Some(asked) => {
            for asked in asked {
                topics.push(match &asked.name {
                    Some(name) => {
                        named_topic(state, context, name, request.allow_auto_topic_creation)
                    }
                    None => match state.topic_by_id(asked.topic_id) {
                        Some((name, topic)) => known_topic(state, context, name, topic),
                        None => MetadataResponseTopic::default()
                            .with_error_code(codes::UNKNOWN_TOPIC_ID)
                            .with_topic_id(asked.topic_id)
                            // Before version 12 a name cannot be null.
                            .with_name((context.version < 12).then(|| topic_name(""))),
                    },
                });
            }
        }
    }
    let brokers = state.alive().map(|id| {
        let (host, port) = host_port(state, id, context.listener);
        MetadataResponseBroker::default()
            .with_node_id(id.into())
            .with_host(host)
            .with_port(port)
    });
    let mut response = MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(wire(state.cluster_id.as_str())))
        .with_controller_id(state.alive().next().unwrap_or(-1).into())
        .with_topics(topics);
    if let Some(code) = context.forced {
        match context.version {
            13.. => response.error_code = code,
            _ => {
                for topic in &mut response.topics {
                    topic.error_code = code;
                    topic.partitions.clear();
                }
            }
        }
    }
    response
}

fn named_topic(
    state: &mut State,
    context: &Context,
    name: &str,
    create: bool,
) -> MetadataResponseTopic {
    if let Some(topic) = state.topics.get(name) {
        return known_topic(state, context, name, topic);
    }
    let code = if !is_valid_name(name) {
        codes::INVALID_TOPIC_EXCEPTION
    } else {
        if create && state.defaults.auto_create && context.forced.is_none() {
            let defaults = state.defaults.clone();
            let replicas = state.spread(defaults.partitions, defaults.replication, 0);
            state.create_topic(name, replicas, BTreeMap::new());
        }
        // Also while it is being created: the next request finds it.
        codes::UNKNOWN_TOPIC_OR_PARTITION
    };
    MetadataResponseTopic::default()
        .with_error_code(code)
        .with_name(Some(topic_name(name)))
}

fn known_topic(state: &State, _: &Context, name: &str, topic: &Topic) -> MetadataResponseTopic {
    let partitions = topic
        .partitions
        .iter()
        .enumerate()
        .map(|(index, partition)| {
            let (in_sync, offline) = replicas(state, partition);
            MetadataResponsePartition::default()
                .with_error_code(leader_code(partition))
                .with_partition_index(index as i32)
                .with_leader_id(partition.leader.into())
                .with_leader_epoch(partition.leader_epoch)
                .with_replica_nodes(broker_ids(&partition.replicas))
                .with_isr_nodes(broker_ids(&in_sync))
                .with_offline_replicas(broker_ids(&offline))
        });
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(name)))
        .with_topic_id(topic.id)
        .with_partitions(partitions.collect())
}

fn leader_code(partition: &Partition) -> i16 {
    match partition.leader {
        -1 => codes::LEADER_NOT_AVAILABLE,
        _ => codes::NONE,
    }
}

/// In sync and offline replicas.
fn replicas(state: &State, partition: &Partition) -> (Vec<i32>, Vec<i32>) {
    let (mut in_sync, offline): (Vec<i32>, Vec<i32>) = partition
        .replicas
        .iter()
        .partition(|id| state.is_alive(**id));
    if in_sync.is_empty() {
        // The last one that was in sync stays so when it goes.
        in_sync.extend(partition.replicas.first());
    }
    (in_sync, offline)
}

pub(in super::super) fn describe_topic_partitions(
    state: &State,
    context: &Context,
    request: &DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let mut names: Vec<String> = request
        .topics
        .iter()
        .map(|topic| topic.name.to_string())
        .collect();
    if names.is_empty() {
        names = state.topics.keys().cloned().collect();
    }
    names.sort_unstable();
    names.dedup();
    let mut first = 0;
    if let Some(cursor) = &request.cursor {
        names.retain(|name| name.as_str() >= &**cursor.topic_name);
        if names
            .first()
            .is_some_and(|name| name.as_str() == &**cursor.topic_name)
        {
            first = usize::try_from(cursor.partition_index).unwrap_or(0);
        }
    }
    let mut left = usize::try_from(request.response_partition_limit)
        .unwrap_or(2000)
        .clamp(1, 2000);
    let mut topics = Vec::new();
    let mut next_cursor = None;
    for name in names {
        let response = DescribeTopicPartitionsResponseTopic::default()
            .with_name(Some(topic_name(name.as_str())));
        let code = match (
            context.forced,
            is_valid_name(&name),
            state.topics.get(&name),
        ) {
            (Some(code), ..) => code,
            (_, false, _) => codes::INVALID_TOPIC_EXCEPTION,
            (_, _, None) => codes::UNKNOWN_TOPIC_OR_PARTITION,
            (None, true, Some(topic)) => {
                let partitions: Vec<_> = topic
                    .partitions
                    .iter()
                    .enumerate()
                    .skip(first)
                    .take(left)
                    .map(|(index, partition)| described_partition(state, index, partition))
                    .collect();
                left -= partitions.len();
                let next = first + partitions.len();
                topics.push(response.with_topic_id(topic.id).with_partitions(partitions));
                first = 0;
                if next < topic.partitions.len() {
                    next_cursor = Some(
                        Cursor::default()
                            .with_topic_name(topic_name(name))
                            .with_partition_index(next as i32),
                    );
                    break;
                }
                continue;
            }
        };
        topics.push(response.with_error_code(code));
    }
    DescribeTopicPartitionsResponse::default()
        .with_topics(topics)
        .with_next_cursor(next_cursor)
}

fn described_partition(
    state: &State,
    index: usize,
    partition: &Partition,
) -> DescribeTopicPartitionsResponsePartition {
    let (in_sync, offline) = replicas(state, partition);
    DescribeTopicPartitionsResponsePartition::default()
        .with_error_code(leader_code(partition))
        .with_partition_index(index as i32)
        .with_leader_id(partition.leader.into())
        .with_leader_epoch(partition.leader_epoch)
        .with_replica_nodes(broker_ids(&partition.replicas))
        .with_isr_nodes(broker_ids(&in_sync))
        .with_eligible_leader_replicas(Some(Vec::new()))
        .with_last_known_elr(Some(Vec::new()))
        .with_offline_replicas(broker_ids(&offline))
}

pub(in super::super) fn describe_cluster(
    state: &State,
    context: &Context,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    let brokers = state.alive().map(|id| {
        let (host, port) = host_port(state, id, context.listener);
        DescribeClusterBroker::default()
            .with_broker_id(id.into())
            .with_host(host)
            .with_port(port)
    });
    let mut response = DescribeClusterResponse::default()
        .with_error_code(context.forced.unwrap_or(codes::NONE))
        .with_cluster_id(wire(state.cluster_id.as_str()))
        .with_controller_id(state.alive().next().unwrap_or(-1).into())
        .with_brokers(brokers.collect());
    if context.version >= 1 {
        response.endpoint_type = request.endpoint_type;
    }
    response
}

pub(in super::super) fn find_coordinator(
    state: &mut State,
    context: &Context,
    request: &FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let find = |state: &mut State, key: &str| {
        let found = match request.key_type {
            TRANSACTION => state.coordinator(&transaction_key(key)),
            _ => state.coordinator(key),
        };
        let code = context.code_or(|| match found {
            Some(_) => None,
            None => Some(codes::COORDINATOR_NOT_AVAILABLE),
        });
        match (code, found) {
            (None, Some(broker)) => Ok((broker, host_port(state, broker, context.listener))),
            (code, _) => Err(code.unwrap_or(codes::COORDINATOR_NOT_AVAILABLE)),
        }
    };
    if context.version < 4 {
        return match find(state, &request.key) {
            Ok((broker, (host, port))) => FindCoordinatorResponse::default()
                .with_node_id(broker.into())
                .with_host(host)
                .with_port(port),
            Err(code) => FindCoordinatorResponse::default()
                .with_error_code(code)
                .with_node_id((-1).into())
                .with_port(-1),
        };
    }
    let coordinators = request.coordinator_keys.iter().map(|key| {
        let coordinator = Coordinator::default().with_key(key.clone());
        match find(state, key) {
            Ok((broker, (host, port))) => coordinator
                .with_node_id(broker.into())
                .with_host(host)
                .with_port(port),
            Err(code) => coordinator
                .with_error_code(code)
                .with_node_id((-1).into())
                .with_port(-1),
        }
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}
