//! Groups: which there are, who is in them, and what they have committed.

use std::collections::BTreeMap;

use kafka_protocol::messages as kp;
use kafka_protocol::messages::consumer_group_describe_response as new;
use kafka_protocol::messages::describe_groups_response as old;

use futures_util::future::try_join_all;

use super::Admin;
use crate::clock::{Instant, now};
use crate::cluster::CoordinatorKey;
use crate::error::{Error, ErrorKind, Result, classify};
use crate::group::subscription::decode_assignment;
use crate::net::Lane;
use crate::net::backoff::Backoff;
use crate::offsets::{self, ask_coordinator};
use crate::types::{BrokerId, OffsetAndMetadata, TopicPartition};
use crate::wire::{Call, str_bytes};

const GROUP_ID_NOT_FOUND: i16 = 69;

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupListing {
    /// Its name (`group.id`).
    pub group: String,
    /// `consumer` (KIP-848), `classic`, `share` or whatever else the broker knows; `None` from
    /// brokers older than Kafka 3.8.
    pub kind: Option<String>,
    /// `Stable`, `Empty` and so on; `None` from brokers older than Kafka 2.6.
    pub state: Option<String>,
}

/// A group and its members.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupDescription {
    /// Its name (`group.id`).
    pub group: String,
    /// `Stable`, `Empty`, `Reconciling` and so on, in Kafka's words.
    pub state: String,
    /// The broker that coordinates it.
    pub coordinator: BrokerId,
    /// How partitions are shared out; empty while nothing is.
    pub assignor: String,
    /// The members, by their ids.
    pub members: Vec<MemberDescription>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberDescription {
    /// The id of this life of the member.
    pub member: String,
    /// The name that it keeps over restarts (`group.instance.id`), if it has one.
    pub instance: Option<String>,
    /// Its `client.id`.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// What is assigned to it at present.
    pub partitions: Vec<TopicPartition>,
}

impl Admin {
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
    /// [`ErrorKind::Group`] with Kafka's code `GROUP_ID_NOT_FOUND` (69) if there is no such group
    /// of consumers; [`Authorization`](crate::ErrorKind::Authorization); or what kept its
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
    /// [`Authorization`](crate::ErrorKind::Authorization), or what kept the group's coordinator
    /// from answering in time.
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

    /// Asks a group's coordinator until it answers for the group or the deadline passes. `code` is
    /// what the answer says about the group.
    async fn of_group<R: Call>(
        &self,
        group: &str,
        deadline: Instant,
        build: impl Fn() -> R + Send + Sync,
        code: impl Fn(&R::Response) -> i16 + Send,
    ) -> Result<(BrokerId, R::Response)> {
        let config = self.cluster.config();
        let mut backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
        loop {
            let asked = ask_coordinator(&self.cluster, group, deadline, |version| {
                Ok((version, build()))
            });
            let error = match asked.await {
                Ok((broker, response)) => {
                    let code = code(&response);
                    let meaning = classify::classify(code);
                    let error =
                        Error::from_code(code, format_args!("asking about group '{group}'"));
                    if code == 0 || !meaning.is_retriable() {
                        return Ok((broker, response));
                    }
                    if meaning.refresh == classify::Refresh::Coordinator {
                        let key = CoordinatorKey::Group(group);
                        self.cluster.forget_coordinator(key, broker);
                    }
                    error
                }
                Err(error) => error,
            };
            let pause = backoff.fail(self.cluster.clock());
            if !error.is_retriable() || now() + pause >= deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    pub(super) async fn describe(
        &self,
        group: &str,
        deadline: Instant,
    ) -> Result<GroupDescription> {
        let described = self.describe_new(group, deadline).await;
        let elsewhere = match &described {
            Ok(None) => true,
            Err(error) => error.kind() == ErrorKind::UnsupportedVersion,
            Ok(Some(_)) => false,
        };
        match (elsewhere, described) {
            (true, _) => self.describe_old(group, deadline).await,
            (_, Ok(Some(described))) => Ok(described),
            (_, Ok(None)) => Err(not_found(group)),
            (_, Err(error)) => Err(error),
        }
    }

    /// `None` if there is no such group of the protocol of KIP-848.
    async fn describe_new(
        &self,
        group: &str,
        deadline: Instant,
    ) -> Result<Option<GroupDescription>> {
        let build = || {
            let id = kp::GroupId(str_bytes(group));
            kp::ConsumerGroupDescribeRequest::default().with_group_ids(vec![id])
        };
        let code = |answer: &kp::ConsumerGroupDescribeResponse| {
            answer.groups.first().map_or(0, |group| group.error_code)
        };
        let (coordinator, response) = self.of_group(group, deadline, build, code).await?;
        let described = only(response.groups, group)?;
        match described.error_code {
            0 => {}
            GROUP_ID_NOT_FOUND => return Ok(None),
            code => return Err(refused(group, code, described.error_message.as_deref())),
        }
        let mut members: Vec<_> = described.members.into_iter().map(new_member).collect();
        members.sort_unstable_by(|a, b| a.member.cmp(&b.member));
        Ok(Some(GroupDescription {
            group: group.to_owned(),
            state: described.group_state.to_string(),
            coordinator,
            assignor: described.assignor_name.to_string(),
            members,
        }))
    }

    async fn describe_old(&self, group: &str, deadline: Instant) -> Result<GroupDescription> {
        let build = || {
            let id = kp::GroupId(str_bytes(group));
            kp::DescribeGroupsRequest::default().with_groups(vec![id])
        };
        let code = |answer: &kp::DescribeGroupsResponse| {
            answer.groups.first().map_or(0, |group| group.error_code)
        };
        let (coordinator, response) = self.of_group(group, deadline, build, code).await?;
        let described = only(response.groups, group)?;
        // Before version 6 a group that does not exist was described as dead.
        match (described.error_code, described.group_state.as_str()) {
            (0, "Dead") | (GROUP_ID_NOT_FOUND, _) => return Err(not_found(group)),
            (0, _) => {}
            (code, _) => return Err(refused(group, code, described.error_message.as_deref())),
        }
        let mut members = described
            .members
            .into_iter()
            .map(|member| old_member(group, member))
            .collect::<Result<Vec<_>>>()?;
        members.sort_unstable_by(|a, b| a.member.cmp(&b.member));
        Ok(GroupDescription {
            group: group.to_owned(),
            state: described.group_state.to_string(),
            coordinator,
            assignor: described.protocol_data.to_string(),
            members,
        })
    }

    pub(super) async fn offsets_of(
        &self,
        group: &str,
        deadline: Instant,
    ) -> Result<BTreeMap<TopicPartition, OffsetAndMetadata>> {
        let config = self.cluster.config();
        let mut backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
        loop {
            let found = offsets::all_committed(&self.cluster, group, deadline).await;
            let error = match found.and_then(|found| offsets::settle(found, group)) {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            let pause = backoff.fail(self.cluster.clock());
            if !error.is_retriable() || now() + pause >= deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The groups that one broker coordinates.
    pub(super) async fn groups_at(
        &self,
        broker: BrokerId,
        deadline: Instant,
    ) -> Result<Vec<GroupListing>> {
        let config = self.cluster.config();
        let mut backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
        loop {
            let error = match self.groups_once(broker, deadline).await {
                Ok(groups) => return Ok(groups),
                Err(error) => error,
            };
            let pause = backoff.fail(self.cluster.clock());
            if !error.is_retriable() || now() + pause >= deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn groups_once(&self, broker: BrokerId, deadline: Instant) -> Result<Vec<GroupListing>> {
        let link = self.cluster.link(broker, Lane::Metadata, deadline).await?;
        let version = link.version::<kp::ListGroupsRequest>()?;
        let request = kp::ListGroupsRequest::default();
        let response = link.ask(version, &request, deadline).await?;
        if response.error_code != 0 {
            let doing = format_args!("listing the groups of broker {broker}");
            return Err(Error::from_code(response.error_code, doing));
        }
        let told = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let groups = response.groups.iter().map(|group| GroupListing {
            group: group.group_id.to_string(),
            kind: told(&group.group_type),
            state: told(&group.group_state),
        });
        Ok(groups.collect())
    }
}

fn not_found(group: &str) -> Error {
    Error::from_code(
        GROUP_ID_NOT_FOUND,
        format_args!("describing group '{group}'"),
    )
}

fn refused(group: &str, code: i16, message: Option<&str>) -> Error {
    let message = message.unwrap_or_default();
    let colon = if message.is_empty() { "" } else { ": " };
    Error::from_code(
        code,
        format_args!("describing group '{group}'{colon}{message}"),
    )
}

fn only<T>(mut groups: Vec<T>, group: &str) -> Result<T> {
    match (groups.pop(), groups.is_empty()) {
        (Some(described), true) => Ok(described),
        _ => {
            let message = format!("the answer is not about group '{group}' alone");
            Err(Error::new(ErrorKind::Protocol, message))
        }
    }
}

fn new_member(member: new::Member) -> MemberDescription {
    let topics = member.assignment.topic_partitions.iter();
    let partitions = topics.flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|partition| TopicPartition::new(topic.topic_name.as_str(), *partition))
    });
    MemberDescription {
        member: member.member_id.to_string(),
        instance: member.instance_id.map(|id| id.to_string()),
        client_id: member.client_id.to_string(),
        host: member.client_host.to_string(),
        partitions: partitions.collect(),
    }
}

fn old_member(group: &str, member: old::DescribedGroupMember) -> Result<MemberDescription> {
    let assignment = decode_assignment(&member.member_assignment).map_err(|_| {
        let message = format!(
            "the assignment of member '{}' of group '{group}' is not that of a consumer",
            member.member_id
        );
        Error::new(ErrorKind::Protocol, message)
    })?;
    Ok(MemberDescription {
        member: member.member_id.to_string(),
        instance: member.group_instance_id.map(|id| id.to_string()),
        client_id: member.client_id.to_string(),
        host: member.client_host.to_string(),
        partitions: assignment.partitions,
    })
}
