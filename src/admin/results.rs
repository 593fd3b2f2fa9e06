//! What administration answers.

use std::fmt;

use indexmap::IndexMap;
use kafka_protocol::messages::MetadataResponse;
use kafka_protocol::messages::metadata_response::{
    MetadataResponsePartition, MetadataResponseTopic,
};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::types::BrokerId;

/// A result for each topic of a call, in the order of the call.
///
/// A topic that was named twice is there once.
///
/// ```no_run
/// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
/// let deleted = admin.delete_topics(["a", "b"]).await?;
/// if let Some(Err(error)) = deleted.get("a") {
///     eprintln!("{error}");
/// }
/// for (topic, error) in deleted.errors() {
///     eprintln!("{topic}: {error}");
/// }
/// deleted.all()?; // or the first error
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "each topic has its own result"]
pub struct PerTopic<T>(IndexMap<String, Option<Result<T>>>);

impl<T> PerTopic<T> {
    pub(super) fn awaiting<'a>(names: impl Iterator<Item = &'a String>) -> Self {
        Self(names.map(|name| (name.clone(), None)).collect())
    }

    pub(super) fn put(&mut self, name: String, result: Result<T>) {
        self.0.insert(name, Some(result));
    }

    /// Gives an error to topics that have no result yet.
    pub(super) fn fill<'a>(&mut self, names: impl Iterator<Item = &'a String>, error: &Error) {
        for name in names {
            if let Some(result @ None) = self.0.get_mut(name) {
                *result = Some(Err(error.clone()));
            }
        }
    }

    pub(super) fn is_settled(&self, name: &str) -> bool {
        matches!(self.0.get(name), Some(Some(_)))
    }

    /// The result for one topic; `None` if it was not part of the call.
    #[must_use]
    pub fn get(&self, topic: &str) -> Option<&Result<T>> {
        self.0.get(topic)?.as_ref()
    }

    /// Takes the result for one topic out.
    pub fn remove(&mut self, topic: &str) -> Option<Result<T>> {
        self.0.shift_remove(topic)?
    }

    /// How many topics there are results for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no topic.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Topics with their results.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter(self.0.iter())
    }

    /// The topics that failed, and why.
    pub fn errors(&self) -> impl Iterator<Item = (&str, &Error)> {
        self.iter()
            .filter_map(|(topic, result)| Some((topic, result.as_ref().err()?)))
    }

    /// All values, if every topic succeeded.
    ///
    /// # Errors
    ///
    /// The first topic's error.
    pub fn all(self) -> Result<Vec<T>> {
        self.into_iter().map(|(_, result)| result).collect()
    }
}

impl<'a, T> IntoIterator for &'a PerTopic<T> {
    type Item = (&'a str, &'a Result<T>);
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> IntoIterator for PerTopic<T> {
    type Item = (String, Result<T>);
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter(self.0.into_iter())
    }
}

/// Topics with their results: see [`PerTopic::iter`].
#[derive(Debug)]
pub struct Iter<'a, T>(indexmap::map::Iter<'a, String, Option<Result<T>>>);

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = (&'a str, &'a Result<T>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0
            .by_ref()
            .find_map(|(topic, result)| Some((topic.as_str(), result.as_ref()?)))
    }
}

/// Topics with their results, owned.
#[derive(Debug)]
pub struct IntoIter<T>(indexmap::map::IntoIter<String, Option<Result<T>>>);

impl<T> Iterator for IntoIter<T> {
    type Item = (String, Result<T>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0
            .by_ref()
            .find_map(|(topic, result)| Some((topic, result?)))
    }
}

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
    pub(super) fn known(id: Uuid) -> Option<Self> {
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

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterDescription {
    /// The id that the cluster was set up with.
    pub id: Option<String>,
    /// The broker that takes changes. With KRaft this is any broker: it passes them on to the active
    /// controller, which clients do not talk to.
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

impl TopicDescription {
    pub(super) fn read(topic: MetadataResponseTopic) -> Option<Self> {
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

fn known_broker(id: i32) -> Option<BrokerId> {
    (id >= 0).then_some(BrokerId(id))
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

    #[test]
    fn results_keep_the_order_of_the_call_and_the_first_error() {
        let names = ["b", "a", "c"].map(str::to_owned);
        let mut results: PerTopic<i32> = PerTopic::awaiting(names.iter());
        results.put("a".to_owned(), Ok(1));
        results.put("b".to_owned(), Ok(2));
        let late = Error::new(ErrorKind::Timeout, "late");
        results.fill(names.iter(), &late);
        let order: Vec<&str> = results.iter().map(|(topic, _)| topic).collect();
        assert_eq!(order, ["b", "a", "c"]);
        assert_eq!(results.errors().count(), 1);
        assert_eq!(results.get("a").unwrap().as_ref().unwrap(), &1);
        assert!(results.get("d").is_none());
        assert_eq!(results.clone().all().unwrap_err().to_string(), "late");
        assert!(results.remove("c").unwrap().is_err());
        assert_eq!(results.all().unwrap(), [2, 1]);
    }
}
