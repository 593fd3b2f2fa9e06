//! What the scripted brokers of this folder's tests have in common. The first of them leads the
//! partitions of the topic `t` and coordinates groups.

use std::future::Future;
use std::time::Duration;

use kafka_protocol::messages as kp;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::protocol::StrBytes;

use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::config::ClientConfig;
use crate::net::scripted::{Far, Scripted};
use crate::tasks::Tasks;

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A cluster in which every connection, to the host of that name, is served so.
pub(super) fn start<F>(serve: impl Fn(String, Far) -> F + Send + 'static) -> Cluster
where
    F: Future<Output = ()> + Send + 'static,
{
    let (connector, mut accepting) = Scripted::new();
    tokio::spawn(async move {
        while let Some((host, stream)) = accepting.recv().await {
            tokio::spawn(serve(host, Far { stream }));
        }
    });
    let bootstrap = vec![("one".to_owned(), 9092)];
    Cluster::new(
        ClientConfig::default(),
        bootstrap,
        Clock::seeded(5, 0),
        connector,
        Tasks::new().unwrap(),
    )
}

fn name() -> kp::TopicName {
    kp::TopicName(StrBytes::from_static_str("t"))
}

/// Brokers with ids from 1 on, and so many partitions.
pub(super) fn metadata(hosts: &[&'static str], partitions: i32) -> kp::MetadataResponse {
    let brokers = (1..).zip(hosts).map(|(id, host)| {
        MetadataResponseBroker::default()
            .with_node_id(kp::BrokerId(id))
            .with_host(StrBytes::from_static_str(host))
            .with_port(9092)
    });
    let partitions = (0..partitions).map(|partition| {
        MetadataResponsePartition::default()
            .with_partition_index(partition)
            .with_leader_id(1.into())
    });
    let topic = MetadataResponseTopic::default()
        .with_name(Some(name()))
        .with_topic_id(uuid::Uuid::from_u128(7))
        .with_partitions(partitions.collect());
    kp::MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_topics(vec![topic])
}

/// Of the group `g`.
pub(super) fn coordinator() -> kp::FindCoordinatorResponse {
    let coordinator = Coordinator::default()
        .with_key(StrBytes::from_static_str("g"))
        .with_node_id(1.into())
        .with_host(StrBytes::from_static_str("one"))
        .with_port(9092);
    kp::FindCoordinatorResponse::default().with_coordinators(vec![coordinator])
}

/// The same offset for each of so many partitions.
pub(super) fn offset(partitions: i32, offset: i64) -> kp::ListOffsetsResponse {
    let partitions = (0..partitions).map(|partition| {
        ListOffsetsPartitionResponse::default()
            .with_partition_index(partition)
            .with_offset(offset)
    });
    let topic = ListOffsetsTopicResponse::default()
        .with_name(name())
        .with_partitions(partitions.collect());
    kp::ListOffsetsResponse::default().with_topics(vec![topic])
}

pub(super) fn fetched(partitions: Vec<PartitionData>) -> kp::FetchResponse {
    let topic = FetchableTopicResponse::default()
        .with_topic_id(uuid::Uuid::from_u128(7))
        .with_partitions(partitions);
    kp::FetchResponse::default().with_responses(vec![topic])
}
