//! Descriptions of topics, for whoever wants them: administration, producers, consumers.

use std::fmt;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use uuid::Uuid;

use super::Cluster;
use super::ask::{Answers, Asking, Operation, Refusal, Route};
use super::per_key::PerKey;
use crate::clock::{FOREVER, Instant, now};
use crate::error::Result;
use crate::types::BrokerId;
use crate::wire::str_bytes;

/// What tells a topic from another of the same name that was there before or will be (KIP-516).
///
/// It shows itself as Kafka's tools do.
///
/// ```no_run
/// # fn example(topic: &ottla::admin::TopicListing) {
/// if let Some(id) = topic.id {
///     println!("{} is {id}", topic.name); // orders is 3HSHxGaZSNWVJtnHjqAnFA
/// }
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(Uuid);

impl TopicId {
    /// Brokers that have no topic ids send zeros.
    pub(crate) fn known(id: Uuid) -> Option<Self> {
        (!id.is_nil()).then_some(Self(id))
    }

    /// The sixteen bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for TopicId {
    /// Base64 with the alphabet for URLs and without padding.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        // 22 digits of 6 bits: the last one has 2 bits of the id and 4 zeros.
        let bits = self.0.as_u128();
        let text: String = (0..22_u32)
            .map(|digit| match 122_i32 - 6 * digit.cast_signed() {
                shift @ 0.. => bits >> shift,
                shift => bits << -shift,
            })
            .map(|bits| char::from(ALPHABET[(bits & 63) as usize]))
            .collect();
        f.pad(&text)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A topic with its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its id; `None` from brokers older than Kafka 2.8.
    pub id: Option<TopicId>,
    /// Whether it is one of Kafka's own, such as `__consumer_offsets`.
    pub internal: bool,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionDescription>,
}

/// A partition and where it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionDescription {
    /// Its number, from 0.
    pub partition: i32,
    /// The broker that takes writes; `None` while there is none.
    pub leader: Option<BrokerId>,
    /// How many leaders there have been, -1 if the broker does not say.
    pub leader_epoch: i32,
    /// The brokers that keep it, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// Those of the replicas that are in sync with the leader.
    pub in_sync: Vec<BrokerId>,
    /// Those of the replicas that are down.
    pub offline: Vec<BrokerId>,
}

impl TopicDescription {
    pub(crate) fn read(topic: MetadataResponseTopic) -> Option<Self> {
        let mut partitions: Vec<_> = topic
            .partitions
            .into_iter()
            .map(PartitionDescription::read)
            .collect();
        partitions.sort_by_key(|partition| partition.partition);
        Some(Self {
            name: topic.name?.to_string(),
            id: TopicId::known(topic.topic_id),
            internal: topic.is_internal,
            partitions,
        })
    }
}

impl PartitionDescription {
    fn read(partition: MetadataResponsePartition) -> Self {
        let ids = |ids: Vec<kafka_protocol::messages::BrokerId>| {
            ids.into_iter().map(|id| BrokerId(*id)).collect()
        };
        Self {
            partition: partition.partition_index,
            leader: known_broker(*partition.leader_id),
            leader_epoch: partition.leader_epoch,
            replicas: ids(partition.replica_nodes),
            in_sync: ids(partition.isr_nodes),
            offline: ids(partition.offline_replicas),
        }
    }
}

pub(crate) fn known_broker(id: i32) -> Option<BrokerId> {
    (id >= 0).then_some(BrokerId(id))
}

struct Describe;

impl Operation for Describe {
    type Key = String;
    type Request = MetadataRequest;
    type Value = TopicDescription;

    const DOING: &'static str = "describing topic";

    fn route<'a>(&'a self, _: &'a String) -> Route<'a> {
        Route::Any
    }

    fn request(&self, topics: &[String], _: &Asking<'_>) -> MetadataRequest {
        MetadataRequest::default()
            .with_topics(Some(to_describe(topics)))
            .with_allow_auto_topic_creation(false)
    }

    fn read(&self, _: &[String], _: BrokerId, response: MetadataResponse) -> Answers<Self> {
        let topics = response.topics.into_iter();
        topics
            .filter_map(|topic| {
                let name = topic.name.as_ref()?.to_string();
                let answer = match topic.error_code {
                    0 => Ok(TopicDescription::read(topic)?),
                    code => Err(Refusal::Code(code, None)),
                };
                Some((name, answer))
            })
            .collect()
    }
}

impl Cluster {
    pub(crate) async fn describe_topics(
        &self,
        deadline: Instant,
        topics: impl IntoIterator<Item = String>,
    ) -> Result<PerKey<String, TopicDescription>> {
        let topics = PerKey::awaiting(topics);
        self.ask_each(&Describe, deadline, topics).await
    }

    /// What producers and consumers tell of one topic.
    pub(crate) async fn partitions_for(&self, topic: &str) -> Result<Vec<PartitionDescription>> {
        let deadline = now() + self.config().api_timeout.min(FOREVER);
        let topics = [topic.to_owned()];
        let described = self.describe_topics(deadline, topics).await?;
        Ok(described.only()?.partitions)
    }
}

pub(crate) fn to_describe<'a>(
    names: impl IntoIterator<Item = &'a String>,
) -> Vec<MetadataRequestTopic> {
    let names = names.into_iter();
    names
        .map(|name| MetadataRequestTopic::default().with_name(Some(TopicName(str_bytes(name)))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_ids_look_as_in_kafkas_tools() {
        // Printed by org.apache.kafka.common.Uuid.
        for (id, shown) in [
            (1, "AAAAAAAAAAAAAAAAAAAAAQ"),
            (u128::MAX, "_____________________w"),
            (
                0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
                "AQIDBAUGBwgJCgsMDQ4PEA",
            ),
        ] {
            let id = TopicId::known(Uuid::from_u128(id)).unwrap();
            assert_eq!(id.to_string(), shown);
        }
        assert_eq!(TopicId::known(Uuid::nil()), None);
    }
}
