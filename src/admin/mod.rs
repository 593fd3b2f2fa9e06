//! Administration: topics, their logs, groups, transactions, configurations and the cluster
//! itself.
//!
//! Every call about several topics, groups or partitions answers for each of them ([`PerKey`]), so
//! that trouble with one hides nothing about the others.

#[cfg(test)]
#[cfg(feature = "mock")]
mod change_tests;
mod configs;
mod group_members;
mod group_offsets;
#[cfg(test)]
#[cfg(feature = "mock")]
mod group_tests;
mod groups;
mod lag;
mod log_offsets;
mod results;
#[cfg(test)]
mod tests;
mod topics;
#[cfg(test)]
#[cfg(feature = "mock")]
mod transaction_tests;
mod transactions;

use std::time::Duration;

use crate::clock::{FOREVER, Instant, now};
use crate::cluster::describe::to_describe;
use crate::cluster::{Cluster, Target};
use crate::error::{Error, Result};
use crate::net::Lane;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse};

pub use crate::cluster::describe::{PartitionDescription, TopicDescription, TopicId};
pub use crate::cluster::per_key::{IntoIter, Iter, PerKey};
pub use configs::{ConfigChange, ConfigEntry, ConfigResource, ConfigSource, ResourceConfig};
pub use group_members::{GroupMember, MembersToRemove};
pub use group_offsets::{ResetGroupOffsets, ResetOffset, ResetTo};
pub use groups::{GroupDescription, GroupListing, MemberDescription};
pub use lag::{GroupLag, GroupPartitionLag};
pub use log_offsets::{ListedOffset, OffsetSpec, RecordsToDelete};
pub use results::{BrokerDescription, ClusterDescription, CreatedTopic, TopicListing};
pub use topics::NewTopic;
pub use transactions::{
    AbortTransaction, FencedProducer, ProducerState, TransactionDescription, TransactionFilter,
    TransactionListing,
};

/// Makes, shows, changes and deletes topics, groups and configurations. Cheap to clone; uses the
/// connections of its client.
///
/// Each call has until `default.api.timeout.ms` (one minute unless set), retries included; see
/// [`with_timeout`](Self::with_timeout). What may pass (a controller that moves, a quota that is
/// used up, a broken connection) is tried again until then.
///
/// ```no_run
/// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
/// use ottla::admin::NewTopic;
///
/// let created = admin
///     .create_topics([
///         NewTopic::new("orders").partitions(6).replication(3),
///         NewTopic::new("customers").config("cleanup.policy", "compact"),
///     ])
///     .await?;
/// for (topic, result) in &created {
///     match result {
///         Ok(topic) => println!("{} has {:?} partitions", topic.name, topic.partitions),
///         Err(error) => eprintln!("{topic}: {error}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Admin {
    cluster: Cluster,
    timeout: Duration,
}

impl Admin {
    pub(crate) fn new(cluster: Cluster) -> Self {
        let timeout = cluster.config().api_timeout;
        Self { cluster, timeout }
    }

    /// The same with another time limit for each call, instead of `default.api.timeout.ms`.
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// use std::time::Duration;
    ///
    /// let topics = admin.with_timeout(Duration::from_secs(5)).list_topics().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self {
            cluster: self.cluster.clone(),
            timeout: timeout.min(FOREVER),
        }
    }

    fn deadline(&self) -> Instant {
        now() + self.timeout.min(FOREVER)
    }

    /// All topics that this principal may see, by name; also internal ones.
    ///
    /// The answer is that of one broker, which may be a moment behind the controller.
    ///
    /// # Errors
    ///
    /// If no broker answered in time.
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// for topic in admin.list_topics().await?.iter().filter(|topic| !topic.internal) {
    ///     println!("{}", topic.name);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn list_topics(&self) -> Result<Vec<TopicListing>> {
        let response = self.metadata(None).await?;
        let mut topics: Vec<_> = response
            .topics
            .into_iter()
            .filter(|topic| topic.error_code == 0)
            .filter_map(|topic| {
                Some(TopicListing {
                    name: topic.name?.to_string(),
                    id: TopicId::known(topic.topic_id),
                    internal: topic.is_internal,
                })
            })
            .collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// Partitions, leaders and replicas of topics, as one broker knows them now. It does not create
    /// topics.
    ///
    /// # Errors
    ///
    /// Of the call, if no broker answered in time. For one topic, among others
    /// [`UnknownTopic`](crate::ErrorKind::UnknownTopic): there is no such topic, or it is so new
    /// that this broker has not heard of it.
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// for topic in admin.describe_topics(["orders"]).await?.all()? {
    ///     for partition in &topic.partitions {
    ///         println!("{}-{}: led by {:?}", topic.name, partition.partition, partition.leader);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn describe_topics(
        &self,
        topics: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<PerKey<String, TopicDescription>> {
        let topics = topics.into_iter().map(Into::into);
        self.cluster.describe_topics(self.deadline(), topics).await
    }

    /// The cluster's id, its brokers and its controller.
    ///
    /// # Errors
    ///
    /// If no broker answered in time.
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// for broker in admin.describe_cluster().await?.brokers {
    ///     println!("{}: {}:{}", broker.id, broker.host, broker.port);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription> {
        // An empty list asks for no topic at all, none for every one.
        let response = self.metadata(Some(Vec::new())).await?;
        ClusterDescription::read(response)
    }

    async fn metadata(&self, topics: Option<Vec<String>>) -> Result<MetadataResponse> {
        let response = self
            .cluster
            .call(Target::Any, Lane::Metadata, self.deadline(), |_| {
                let topics = topics.as_ref().map(to_describe);
                Ok(MetadataRequest::default()
                    .with_topics(topics)
                    .with_allow_auto_topic_creation(false))
            })
            .await?;
        match response.error_code {
            0 => Ok(response),
            code => Err(Error::from_code(code, "asking for metadata")),
        }
    }
}
