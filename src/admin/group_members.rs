//! Deleting groups, and removing their members.

use std::fmt;

use indexmap::IndexSet;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, GroupId, LeaveGroupRequest, LeaveGroupResponse,
};

use super::Admin;
use crate::cluster::CoordinatorKey;
use crate::cluster::ask::{Answers, Asking, Key, Operation, Refusal, Route};
use crate::cluster::per_key::PerKey;
use crate::error::Result;
use crate::net::Lane;
use crate::types::BrokerId;
use crate::wire::{codes, str_bytes};

/// A member of a group: by the name that it keeps over restarts, or by the id of this life of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum GroupMember {
    /// `group.instance.id` (KIP-345).
    Instance(String),
    /// The member id that the coordinator gave, or that the member chose.
    Id(String),
}

impl fmt::Display for GroupMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(name) => write!(f, "instance '{name}'"),
            Self::Id(id) => write!(f, "member '{id}'"),
        }
    }
}

impl Key for GroupMember {
    fn doing(&self, doing: &str) -> String {
        format!("{doing} {self}")
    }
}

/// Which members are removed from a group, and why.
///
/// ```
/// use ottla::admin::{GroupMember, MembersToRemove};
///
/// let all = MembersToRemove::all().reason("the service is gone");
/// let one = MembersToRemove::these([GroupMember::Instance("worker-3".to_owned())]);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct MembersToRemove {
    /// None: all.
    members: Option<IndexSet<GroupMember>>,
    reason: Option<String>,
}

impl MembersToRemove {
    /// All members that the group has when it is asked.
    pub fn all() -> Self {
        Self {
            members: None,
            reason: None,
        }
    }

    /// These members.
    pub fn these(members: impl IntoIterator<Item = GroupMember>) -> Self {
        Self {
            members: Some(members.into_iter().collect()),
            reason: None,
        }
    }

    /// Why, for the log of the coordinator (KIP-800), which takes 255 characters. Default: that
    /// an administrator did it.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }
}

/// The longest reason that brokers take, in characters.
const REASON: usize = 255;

impl Admin {
    /// Deletes groups, with what they have committed. They must have no members.
    ///
    /// # Errors
    ///
    /// Of the call, if nothing is known about any group. For one group, among others
    /// [`Group`](crate::ErrorKind::Group) with Kafka's code `NON_EMPTY_GROUP` (68), or
    /// `GROUP_ID_NOT_FOUND` (69): there is no such group (any more: if the call had to be repeated,
    /// the message says so, since an attempt whose answer was lost may have deleted it).
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// admin.delete_groups(["billing", "mail"]).await?.all()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting and nothing else: a request that was sent is carried
    /// out, so the groups may or may not be deleted.
    pub async fn delete_groups(
        &self,
        groups: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<PerKey<String, ()>> {
        let groups = PerKey::awaiting(groups.into_iter().map(Into::into));
        let deadline = self.deadline();
        self.cluster.ask_each(&Delete, deadline, groups).await
    }

    /// Removes members from a group of the classic protocol, as if they had left; those that still
    /// run join again. Whether members of the protocol of KIP-848 can be removed depends on the
    /// broker; those that cannot be are errors.
    ///
    /// # Errors
    ///
    /// Of the call, if nothing is known about any member, or if all are to be removed and the group
    /// cannot be described. For one member, among others [`Group`](crate::ErrorKind::Group) with
    /// Kafka's code `UNKNOWN_MEMBER_ID` (25): the group has no such member (any more: if the call
    /// had to be repeated, the message says so).
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// use ottla::admin::MembersToRemove;
    ///
    /// let all = MembersToRemove::all().reason("the service is gone");
    /// admin.remove_members_from_group("billing", all).await?.all()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting and nothing else: a request that was sent is carried
    /// out, so the members may or may not be removed.
    pub async fn remove_members_from_group(
        &self,
        group: &str,
        members: MembersToRemove,
    ) -> Result<PerKey<GroupMember, ()>> {
        let deadline = self.deadline();
        let who = match members.members {
            Some(members) => members,
            None => {
                let described = self.describe([group.to_owned()], deadline).await?.only()?;
                let members = described.members.into_iter();
                members
                    .map(|member| match member.instance {
                        Some(instance) => GroupMember::Instance(instance),
                        None => GroupMember::Id(member.member),
                    })
                    .collect()
            }
        };
        let reason = members.reason.map(|reason| format!(": {reason}"));
        let reason = reason.unwrap_or_default();
        let reason = format!("member was removed by an admin{reason}");
        let remove = Remove {
            group,
            reason: reason.chars().take(REASON).collect(),
        };
        let who = PerKey::awaiting(who);
        self.cluster.ask_each(&remove, deadline, who).await
    }
}

struct Delete;

impl Operation for Delete {
    type Key = String;
    type Request = DeleteGroupsRequest;
    type Value = ();

    const DOING: &'static str = "deleting group";
    const DONE_ALREADY: Option<(i16, &'static str)> = Some((
        codes::GROUP_ID_NOT_FOUND,
        "the request was repeated, so an earlier attempt may have deleted it",
    ));

    fn route<'a>(&'a self, group: &'a String) -> Route<'a> {
        Route::Coordinator(CoordinatorKey::Group(group))
    }

    fn request(&self, groups: &[String], _: &Asking<'_>) -> DeleteGroupsRequest {
        let names = groups.iter().map(|group| GroupId(str_bytes(group)));
        DeleteGroupsRequest::default().with_groups_names(names.collect())
    }

    fn read(&self, _: &[String], _: BrokerId, response: DeleteGroupsResponse) -> Answers<Self> {
        let results = response.results.into_iter();
        let each = results.map(|result| {
            let refused = Refusal::check(result.error_code, None);
            (result.group_id.to_string(), refused)
        });
        each.collect()
    }
}

/// LeaveGroup by somebody else.
struct Remove<'g> {
    group: &'g str,
    reason: String,
}

impl Remove<'_> {
    /// The first version of LeaveGroup that says why (KIP-800).
    const WITH_REASON: i16 = 5;
}

impl Operation for Remove<'_> {
    type Key = GroupMember;
    type Request = LeaveGroupRequest;
    type Value = ();

    const DOING: &'static str = "removing";
    const DONE_ALREADY: Option<(i16, &'static str)> = Some((
        codes::UNKNOWN_MEMBER_ID,
        "the request was repeated, so an earlier attempt may have removed it",
    ));
    const LANE: Lane = Lane::Admin;

    fn route<'a>(&'a self, _: &'a GroupMember) -> Route<'a> {
        Route::Coordinator(CoordinatorKey::Group(self.group))
    }

    fn doing(&self, member: &GroupMember) -> String {
        format!("removing {member} from group '{}'", self.group)
    }

    fn request(&self, members: &[GroupMember], asking: &Asking<'_>) -> LeaveGroupRequest {
        let reason = (asking.version >= Self::WITH_REASON).then(|| str_bytes(&self.reason));
        let members = members.iter().map(|member| {
            let identity = MemberIdentity::default().with_reason(reason.clone());
            match member {
                GroupMember::Instance(name) => {
                    identity.with_group_instance_id(Some(str_bytes(name)))
                }
                GroupMember::Id(id) => identity.with_member_id(str_bytes(id)),
            }
        });
        LeaveGroupRequest::default()
            .with_group_id(GroupId(str_bytes(self.group)))
            .with_members(members.collect())
    }

    fn read(&self, _: &[GroupMember], _: BrokerId, response: LeaveGroupResponse) -> Answers<Self> {
        let members = response.members.into_iter();
        let each = members.map(|told: MemberResponse| {
            let who = match told.group_instance_id {
                Some(name) => GroupMember::Instance(name.to_string()),
                None => GroupMember::Id(told.member_id.to_string()),
            };
            (who, Refusal::check(told.error_code, None))
        });
        each.collect()
    }
}
