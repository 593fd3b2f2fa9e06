//! Administration: topics, groups and the cluster itself.
//!
//! Every call about several topics answers for each of them ([`PerTopic`]), so that trouble with one
//! hides nothing about the others.

#[cfg(test)]
#[cfg(feature = "mock")]
mod group_tests;
mod groups;
mod lag;
mod results;
#[cfg(test)]
mod tests;
mod topics;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::try_join_all;

use crate::clock::{FOREVER, Instant, now};
use crate::cluster::describe::to_describe;
use crate::cluster::{Cluster, Target};
use crate::error::{Error, Result};
use crate::net::Lane;
use crate::types::{OffsetAndMetadata, TopicPartition};
use kafka_protocol::messages::{MetadataRequest, MetadataResponse};

pub use crate::cluster::describe::{PartitionDescription, TopicDescription, TopicId};
pub use crate::cluster::per_topic::{IntoIter, Iter, PerTopic};
pub use groups::{GroupDescription, GroupListing, MemberDescription};
pub use lag::{GroupLag, GroupPartitionLag};
pub use results::{BrokerDescription, ClusterDescription, CreatedTopic, TopicListing};
pub use topics::NewTopic;

/// Makes, shows and deletes topics. Cheap to clone; uses the connections of its client.
///
/// Each call has until `default.api.timeout.ms` (one minute unless set), retries included; see
/// [`with_timeout`](Self::with_timeout). What may pass (a controller that moves, a quota that is used up,
/// a broken connection) is tried again until then.
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

    /// Creates topics.
    ///
    /// A success means that the controller has made the topic. The brokers hear of it a moment later:
    /// until then describing it may say that it does not exist, and it may not have leaders. Producers
    /// and consumers of this crate wait for that by themselves.
    ///
    /// # Errors
    ///
    /// Of the call, if nothing is known about any topic: no broker answered in time. For one topic,
    /// among others:
    ///
    /// - [`AlreadyExists`](crate::ErrorKind::AlreadyExists): a topic of that name exists. If the call had
    ///   to be repeated, the message says so, since an attempt whose answer was lost may have made it.
    /// - [`InvalidArgument`](crate::ErrorKind::InvalidArgument): partitions, replication or a
    ///   configuration that the cluster cannot do, or a topic named twice in the call.
    /// - [`InvalidTopic`](crate::ErrorKind::InvalidTopic), [`Authorization`](crate::ErrorKind::Authorization),
    ///   [`Policy`](crate::ErrorKind::Policy).
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// use ottla::ErrorKind;
    /// use ottla::admin::NewTopic;
    ///
    /// let mut created = admin.create_topics([NewTopic::new("orders").partitions(6)]).await?;
    /// match created.remove("orders") {
    ///     Some(Err(error)) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
    ///     _ => println!("it is there"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting and nothing else: a request that was sent is carried out,
    /// so the topics may or may not be created.
    pub async fn create_topics(
        &self,
        topics: impl IntoIterator<Item = NewTopic>,
    ) -> Result<PerTopic<CreatedTopic>> {
        topics::create(self, topics.into_iter().collect(), false).await
    }

    /// Checks what [`create_topics`](Self::create_topics) would do and creates nothing.
    ///
    /// The cluster checks names, numbers, configurations, policies and rights as if it were meant.
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// use ottla::admin::NewTopic;
    ///
    /// let topic = NewTopic::new("orders").config("retention.ms", "604800000");
    /// admin.validate_topics([topic]).await?.all()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As `create_topics`.
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn validate_topics(
        &self,
        topics: impl IntoIterator<Item = NewTopic>,
    ) -> Result<PerTopic<CreatedTopic>> {
        topics::create(self, topics.into_iter().collect(), true).await
    }

    /// Deletes topics, with all their records.
    ///
    /// A success means that the controller has removed the topic; brokers hear of it a moment later and
    /// delete the files in the background. A consumer that is subscribed, or a producer that sends to the
    /// topic, may make it anew where brokers create topics on their own (`auto.create.topics.enable`).
    ///
    /// # Errors
    ///
    /// Of the call, if nothing is known about any topic. For one topic, among others
    /// [`UnknownTopic`](crate::ErrorKind::UnknownTopic): there is no such topic (any more: if the call had
    /// to be repeated, the message says so, since an attempt whose answer was lost may have deleted it).
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// admin.delete_topics(["orders", "customers"]).await?.all()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting and nothing else: a request that was sent is carried out,
    /// so the topics may or may not be deleted.
    pub async fn delete_topics(
        &self,
        topics: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<PerTopic<()>> {
        topics::delete(self, topics.into_iter().map(Into::into).collect()).await
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

    /// Partitions, leaders and replicas of topics, as one broker knows them now. It does not create topics.
    ///
    /// # Errors
    ///
    /// Of the call, if no broker answered in time. For one topic, among others
    /// [`UnknownTopic`](crate::ErrorKind::UnknownTopic): there is no such topic, or it is so new that this
    /// broker has not heard of it.
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
    ) -> Result<PerTopic<TopicDescription>> {
        let topics = topics.into_iter().map(Into::into).collect();
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

    /// All groups of the cluster that this principal may see, by name.
    ///
    /// # Errors
    ///
    /// If a broker did not answer in time: each knows only the groups that it coordinates.
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// for group in admin.list_groups().await? {
    ///     println!("{}: {:?}", group.group, group.state);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>> {
        let deadline = self.deadline();
        let brokers = self.describe_cluster().await?.brokers;
        let lists = brokers
            .iter()
            .map(|broker| self.groups_at(broker.id, deadline));
        let mut groups: Vec<_> = try_join_all(lists).await?.into_iter().flatten().collect();
        groups.sort_unstable_by(|a, b| a.group.cmp(&b.group));
        // A group whose coordinator has just moved may be listed by both.
        groups.dedup_by(|a, b| a.group == b.group);
        Ok(groups)
    }

    /// A group and its members, of either protocol.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Group`](crate::ErrorKind::Group) with Kafka's code `GROUP_ID_NOT_FOUND` (69) if there is
    /// no such group of consumers; [`Authorization`](crate::ErrorKind::Authorization); or what kept its
    /// coordinator from answering in time.
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// for member in admin.describe_group("billing").await?.members {
    ///     println!("{} at {}: {:?}", member.client_id, member.host, member.partitions);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription> {
        self.describe(group, self.deadline()).await
    }

    /// Everything that a group has committed. Empty for a group that does not exist.
    ///
    /// # Errors
    ///
    /// [`Authorization`](crate::ErrorKind::Authorization), or what kept the group's coordinator from
    /// answering in time.
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn group_offsets(
        &self,
        group: &str,
    ) -> Result<BTreeMap<TopicPartition, OffsetAndMetadata>> {
        self.offsets_of(group, self.deadline()).await
    }

    /// How far behind a group is, in records and in time, without joining it: for each partition that it has
    /// committed for, or that one of its members has. Records are those that `kafka-consumer-groups.sh
    /// --describe` tells. A partition that is behind costs two fetches of a batch, for the ages.
    ///
    /// A partition whose end cannot be learnt (its topic was deleted, it has no leader) is there with an
    /// error; the others are not held back.
    ///
    /// # Errors
    ///
    /// As [`describe_group`](Self::describe_group).
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// let lag = admin.group_lag("billing").await?;
    /// println!("{} records, {:?} behind", lag.records(), lag.time().duration());
    /// for partition in lag.partitions() {
    ///     println!("{}: {:?}", partition.topic_partition, partition.records);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn group_lag(&self, group: &str) -> Result<GroupLag> {
        self.lag_of(group).await
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
