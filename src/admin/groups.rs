//! Groups: which there are, who is in them, and what they have committed.

use std::collections::BTreeMap;

use kafka_protocol::messages as kp;
use kafka_protocol::messages::consumer_group_describe_response as new;
use kafka_protocol::messages::describe_groups_response as old;

use super::Admin;
use crate::clock::Instant;
use crate::cluster::CoordinatorKey;
use crate::cluster::ask::{Answers, Asking, Operation, Refusal, Route};
use crate::cluster::per_key::PerKey;
use crate::error::{Error, ErrorKind, Result};
use crate::group::subscription::decode_assignment;
use crate::offsets::{self, GroupsToLookUp};
use crate::types::{BrokerId, OffsetAndMetadata, TopicPartition};
use crate::wire::{codes, str_bytes};

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
        let brokers = PerKey::awaiting(brokers.iter().map(|broker| broker.id));
        let lists = self.cluster.ask_each(&List, deadline, brokers).await?;
        let mut groups: Vec<_> = lists.all()?.into_iter().flatten().collect();
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
        let described = self.describe([group.to_owned()], self.deadline()).await?;
        described.only()
    }

    /// Groups and their members, of either protocol: one request to each coordinator, and one more
    /// about groups of the classic protocol.
    ///
    /// # Errors
    ///
    /// Of the call, if nothing is known about any group; of each group as
    /// [`describe_group`](Self::describe_group).
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// for (group, described) in admin.describe_groups(["billing", "mail"]).await? {
    ///     println!("{group}: {:?}", described.map(|described| described.members.len()));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn describe_groups(
        &self,
        groups: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<PerKey<String, GroupDescription>> {
        let groups = groups.into_iter().map(Into::into);
        self.describe(groups, self.deadline()).await
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
        let groups = GroupsToLookUp::from([(group.to_owned(), None)]);
        let deadline = self.deadline();
        offsets::committed_of(&self.cluster, groups, deadline)
            .await?
            .only()
    }

    pub(super) async fn describe(
        &self,
        groups: impl IntoIterator<Item = String>,
        deadline: Instant,
    ) -> Result<PerKey<String, GroupDescription>> {
        let groups = PerKey::awaiting(groups);
        let new = self
            .cluster
            .ask_each(&DescribeNew, deadline, groups.clone());
        let described = match new.await {
            Ok(mut described) => {
                described.take_back(is_elsewhere);
                described
            }
            Err(error) if is_elsewhere(&error) => groups,
            Err(error) => return Err(error),
        };
        self.cluster
            .ask_each(&DescribeOld, deadline, described)
            .await
    }
}

/// Whether the group may be one of the classic protocol.
fn is_elsewhere(error: &Error) -> bool {
    let code = error.code().map(|code| code.get());
    error.kind() == ErrorKind::UnsupportedVersion || code == Some(codes::GROUP_ID_NOT_FOUND)
}

/// The groups that each broker coordinates.
struct List;

impl Operation for List {
    type Key = BrokerId;
    type Request = kp::ListGroupsRequest;
    type Value = Vec<GroupListing>;

    const DOING: &'static str = "listing the groups of broker";

    fn route<'a>(&'a self, broker: &'a BrokerId) -> Route<'a> {
        Route::Broker(*broker)
    }

    fn request(&self, _: &[BrokerId], _: &Asking<'_>) -> kp::ListGroupsRequest {
        kp::ListGroupsRequest::default()
    }

    fn read(
        &self,
        _: &[BrokerId],
        broker: BrokerId,
        response: kp::ListGroupsResponse,
    ) -> Answers<Self> {
        let told = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let groups = response.groups.iter().map(|group| GroupListing {
            group: group.group_id.to_string(),
            kind: told(&group.group_type),
            state: told(&group.group_state),
        });
        vec![(broker, Ok(groups.collect()))]
    }
}

/// Groups of the protocol of KIP-848.
struct DescribeNew;

impl Operation for DescribeNew {
    type Key = String;
    type Request = kp::ConsumerGroupDescribeRequest;
    type Value = GroupDescription;

    const DOING: &'static str = "describing group";

    fn route<'a>(&'a self, group: &'a String) -> Route<'a> {
        Route::Coordinator(CoordinatorKey::Group(group))
    }

    fn request(&self, groups: &[String], _: &Asking<'_>) -> kp::ConsumerGroupDescribeRequest {
        kp::ConsumerGroupDescribeRequest::default().with_group_ids(ids(groups))
    }

    fn read(
        &self,
        _: &[String],
        coordinator: BrokerId,
        response: kp::ConsumerGroupDescribeResponse,
    ) -> Answers<Self> {
        let groups = response.groups.into_iter().map(|described| {
            let group = described.group_id.to_string();
            let refused = Refusal::check(described.error_code, described.error_message);
            let answer = refused.map(|()| GroupDescription {
                group: group.clone(),
                state: described.group_state.to_string(),
                coordinator,
                assignor: described.assignor_name.to_string(),
                members: sorted(described.members.into_iter().map(new_member).collect()),
            });
            (group, answer)
        });
        groups.collect()
    }
}

/// Groups of the classic protocol.
struct DescribeOld;

impl Operation for DescribeOld {
    type Key = String;
    type Request = kp::DescribeGroupsRequest;
    type Value = GroupDescription;

    const DOING: &'static str = "describing group";

    fn route<'a>(&'a self, group: &'a String) -> Route<'a> {
        Route::Coordinator(CoordinatorKey::Group(group))
    }

    fn request(&self, groups: &[String], _: &Asking<'_>) -> kp::DescribeGroupsRequest {
        kp::DescribeGroupsRequest::default().with_groups(ids(groups))
    }

    fn read(
        &self,
        _: &[String],
        coordinator: BrokerId,
        response: kp::DescribeGroupsResponse,
    ) -> Answers<Self> {
        let groups = response.groups.into_iter().map(|described| {
            let group = described.group_id.to_string();
            // Before version 6 a group that does not exist was described as dead.
            let code = match (described.error_code, described.group_state.as_str()) {
                (codes::NONE, "Dead") => codes::GROUP_ID_NOT_FOUND,
                (code, _) => code,
            };
            let refused = Refusal::check(code, described.error_message);
            let answer = refused.and_then(|()| {
                let members = described.members.into_iter();
                let members: Result<_> = members.map(|member| old_member(&group, member)).collect();
                Ok(GroupDescription {
                    group: group.clone(),
                    state: described.group_state.to_string(),
                    coordinator,
                    assignor: described.protocol_data.to_string(),
                    members: sorted(members.map_err(Refusal::Error)?),
                })
            });
            (group, answer)
        });
        groups.collect()
    }
}

fn ids(groups: &[String]) -> Vec<kp::GroupId> {
    let groups = groups.iter();
    groups.map(|group| kp::GroupId(str_bytes(group))).collect()
}

fn sorted(mut members: Vec<MemberDescription>) -> Vec<MemberDescription> {
    members.sort_unstable_by(|a, b| a.member.cmp(&b.member));
    members
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
