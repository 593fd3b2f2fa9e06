//! The consumer against scripted brokers, on a paused clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka_protocol::messages as kp;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::protocol::StrBytes;

use super::*;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::config::ClientConfig;
use crate::net::scripted::{Far, Scripted};

const SECOND: Duration = Duration::from_secs(1);

/// Brokers `one`, which leads the empty partition `t-0` and names a follower to read it from, and
/// `two`, that follower.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Vec<String>>>);

impl Script {
    fn start(&self) -> Cluster {
        let (connector, mut accepting) = Scripted::new();
        let script = self.clone();
        tokio::spawn(async move {
            while let Some((host, stream)) = accepting.recv().await {
                tokio::spawn(script.clone().broker(host, Far { stream }));
            }
        });
        let bootstrap = vec![("one".to_owned(), 9092)];
        Cluster::new(
            ClientConfig::default(),
            bootstrap,
            Clock::seeded(5, 0),
            connector,
        )
    }

    /// The hosts that were asked for records, in order.
    fn fetched(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    async fn broker(self, host: String, mut far: Far) {
        far.shake_hands().await;
        while let Some(asked) = far.asked().await {
            match asked.key {
                1 => {
                    self.0.lock().unwrap().push(host.clone());
                    tokio::time::sleep(SECOND / 2).await;
                    let follower = if host == "one" { 2 } else { -1 };
                    far.answer(&asked, &empty(follower)).await;
                }
                2 => far.answer(&asked, &offset_0()).await,
                3 => far.answer(&asked, &metadata()).await,
                other => panic!("api {other}"),
            }
        }
    }
}

fn name() -> kp::TopicName {
    kp::TopicName(StrBytes::from_static_str("t"))
}

fn metadata() -> kp::MetadataResponse {
    let brokers = [(1, "one"), (2, "two")].map(|(id, host)| {
        MetadataResponseBroker::default()
            .with_node_id(id.into())
            .with_host(StrBytes::from_static_str(host))
            .with_port(9092)
    });
    let partition = MetadataResponsePartition::default().with_leader_id(1.into());
    let topic = MetadataResponseTopic::default()
        .with_name(Some(name()))
        .with_topic_id(uuid::Uuid::from_u128(7))
        .with_partitions(vec![partition]);
    kp::MetadataResponse::default()
        .with_brokers(brokers.to_vec())
        .with_topics(vec![topic])
}

fn offset_0() -> kp::ListOffsetsResponse {
    let partition = ListOffsetsPartitionResponse::default().with_offset(0);
    let topic = ListOffsetsTopicResponse::default()
        .with_name(name())
        .with_partitions(vec![partition]);
    kp::ListOffsetsResponse::default().with_topics(vec![topic])
}

fn empty(follower: i32) -> kp::FetchResponse {
    let partition = PartitionData::default().with_preferred_read_replica(follower.into());
    let topic = FetchableTopicResponse::default()
        .with_topic_id(uuid::Uuid::from_u128(7))
        .with_partitions(vec![partition]);
    kp::FetchResponse::default().with_responses(vec![topic])
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_the_leader_names_is_read_from_at_once() {
    let script = Script::default();
    let builder = ConsumerBuilder::new(script.start(), config::ConsumerConfig::default());
    let assigned = [TopicPartition::new("t", 0)];
    let mut consumer = builder.assign(assigned).build().await.unwrap();
    let batches = consumer.poll_timeout(3 * SECOND).await.unwrap();
    assert!(batches.is_some_and(|batches| batches.is_empty()));
    let fetched = script.fetched();
    assert_eq!(fetched[..3], ["one", "two", "two"], "{fetched:?}");
}
