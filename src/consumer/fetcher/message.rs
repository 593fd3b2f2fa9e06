//! Fetch requests as they are on the wire, and where their answers say that brokers are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use kafka_protocol::messages as kp;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use uuid::Uuid;

use crate::cluster::snapshot::Broker;
use crate::config::consumer::ConsumerConfig;
use crate::consumer::session::Request;
use crate::types::BrokerId;
use crate::wire::{FETCH_BY_ID, str_bytes, topic_name};

/// The request of a session.
pub(super) fn request(
    config: &ConsumerConfig,
    request: Request,
    version: i16,
    max_bytes: i32,
    max_wait: Duration,
) -> kp::FetchRequest {
    let by_id = request.by_id;
    // The broker takes partitions in this order; topics keep the order of their first partition.
    let mut topics: IndexMap<(Arc<str>, Uuid), Vec<FetchPartition>> = IndexMap::new();
    for planned in request.send {
        let partition = FetchPartition::default()
            .with_partition(planned.tp.partition)
            .with_current_leader_epoch(planned.leader_epoch)
            .with_fetch_offset(planned.offset)
            .with_last_fetched_epoch(planned.last_fetched_epoch)
            .with_log_start_offset(planned.log_start)
            .with_partition_max_bytes(config.max_partition_fetch_bytes);
        let topic = (Arc::clone(&planned.tp.topic), planned.topic_id);
        topics.entry(topic).or_default().push(partition);
    }
    let mut forgotten: IndexMap<(Arc<str>, Uuid), Vec<i32>> = IndexMap::new();
    for (tp, id) in request.forget {
        let topic = (Arc::clone(&tp.topic), id);
        forgotten.entry(topic).or_default().push(tp.partition);
    }
    let topics = topics.into_iter().map(|((name, id), partitions)| {
        let topic = FetchTopic::default().with_partitions(partitions);
        match by_id {
            true => topic.with_topic_id(id),
            false => topic.with_topic(topic_name(&name)),
        }
    });
    let forgotten = forgotten.into_iter().map(|((name, id), partitions)| {
        let topic = ForgottenTopic::default().with_partitions(partitions);
        match by_id {
            true => topic.with_topic_id(id),
            false => topic.with_topic(topic_name(&name)),
        }
    });
    debug_assert!((version >= FETCH_BY_ID) == by_id);
    let rack = config.client_rack.as_deref().unwrap_or_default();
    let min_bytes = match max_wait.is_zero() {
        true => 0,
        false => config.fetch_min_bytes,
    };
    kp::FetchRequest::default()
        .with_max_wait_ms(i32::try_from(max_wait.as_millis()).unwrap_or(i32::MAX))
        .with_min_bytes(min_bytes)
        .with_max_bytes(max_bytes)
        .with_isolation_level(config.isolation.code())
        .with_session_id(request.session_id)
        .with_session_epoch(request.session_epoch)
        .with_topics(topics.collect())
        .with_forgotten_topics_data(forgotten.collect())
        .with_rack_id(str_bytes(rack))
}

/// The brokers that an answer names as leaders (KIP-951).
pub(super) fn endpoints(nodes: &[kp::fetch_response::NodeEndpoint]) -> Vec<Broker> {
    let nodes = nodes.iter().filter_map(|node| {
        Some(Broker {
            id: BrokerId(node.node_id.0),
            host: Arc::from(node.host.as_str()),
            port: u16::try_from(node.port).ok()?,
            rack: node.rack.as_ref().map(|rack| Arc::from(rack.as_str())),
        })
    });
    let nodes: BTreeMap<_, _> = nodes.map(|node| (node.id, node)).collect();
    nodes.into_values().collect()
}
