//! What administration answers.

use kafka_protocol::messages::MetadataResponse;

use crate::cluster::describe::{TopicId, known_broker};
use crate::error::{Error, ErrorKind, Result};
use crate::types::BrokerId;

/// A topic that was created, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedTopic {
    /// Its name.
    pub name: String,
    /// Its id; `None` from brokers older than Kafka 2.8, and if it was only validated.
    pub id: Option<TopicId>,
    /// How many partitions it has; `None` if the principal may not see that (it needs the right to
    /// describe the topic's configuration).
    pub partitions: Option<u32>,
    /// How many replicas each partition has; `None` as for `partitions`.
    pub replication: Option<u16>,
}

/// A topic in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicListing {
    /// Its name.
    pub name: String,
    /// Its id; `None` from brokers older than Kafka 2.8.
    pub id: Option<TopicId>,
    /// Whether it is one of Kafka's own, such as `__consumer_offsets`.
    pub internal: bool,
}

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterDescription {
    /// The id that the cluster was set up with.
    pub id: Option<String>,
    /// The broker that takes changes. With KRaft this is any broker: it passes them on to the
    /// active controller, which clients do not talk to.
    pub controller: Option<BrokerId>,
    /// The live brokers, by id.
    pub brokers: Vec<BrokerDescription>,
}

/// A broker and its address for this client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerDescription {
    /// Its `node.id`.
    pub id: BrokerId,
    /// The host that it advertises.
    pub host: String,
    /// The port that it advertises.
    pub port: u16,
    /// Where it runs (`broker.rack`), if it was told.
    pub rack: Option<String>,
}

impl ClusterDescription {
    pub(super) fn read(response: MetadataResponse) -> Result<Self> {
        let mut brokers = response
            .brokers
            .into_iter()
            .map(|broker| {
                let port = u16::try_from(broker.port).map_err(|_| {
                    let text = format!(
                        "broker {} advertises the impossible port {}",
                        *broker.node_id, broker.port
                    );
                    Error::new(ErrorKind::Protocol, text)
                })?;
                Ok(BrokerDescription {
                    id: BrokerId(*broker.node_id),
                    host: broker.host.to_string(),
                    port,
                    rack: broker.rack.map(|rack| rack.to_string()),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        brokers.sort_by_key(|broker| broker.id);
        Ok(Self {
            id: response.cluster_id.map(|id| id.to_string()),
            controller: known_broker(*response.controller_id),
            brokers,
        })
    }
}
