//! What an assignor is given about a group and what it answers.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::member::{MemberAssignment, MemberSubscription};
use super::view::ClusterView;
use crate::error::{Error, ErrorKind, Result};
use crate::types::TopicPartition;

/// The members of a group and what each has told about itself, as an
/// [`Assignor`](crate::Assignor) gets them.
///
/// ```
/// use ottla::{GroupSubscription, MemberSubscription};
///
/// let group = GroupSubscription::from_iter([
///     ("a", MemberSubscription::new(["orders", "returns"])),
///     ("b", MemberSubscription::new(["orders"])),
/// ]);
/// assert_eq!(group.subscribers("orders").count(), 2);
/// assert_eq!(group.topics().len(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSubscription {
    members: BTreeMap<Arc<str>, MemberSubscription>,
}

impl GroupSubscription {
    /// All members by id, in order.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (&str, &MemberSubscription)> {
        self.members.iter().map(|(id, member)| (&**id, member))
    }

    /// A member by its id.
    #[must_use]
    pub fn member(&self, id: &str) -> Option<&MemberSubscription> {
        self.members.get(id)
    }

    /// Those that subscribe to a topic, by id, in order.
    pub fn subscribers(&self, topic: &str) -> impl Iterator<Item = (&str, &MemberSubscription)> {
        self.members()
            .filter(move |(_, member)| member.topics.contains(topic))
    }

    /// The topics that anybody subscribes to.
    #[must_use]
    pub fn topics(&self) -> BTreeSet<&str> {
        let members = self.members.values();
        members
            .flat_map(|member| member.topics.iter().map(|topic| &**topic))
            .collect()
    }
}

impl<Id: Into<Arc<str>>, M: Into<MemberSubscription>> FromIterator<(Id, M)> for GroupSubscription {
    fn from_iter<I: IntoIterator<Item = (Id, M)>>(members: I) -> Self {
        let members = members.into_iter();
        Self {
            members: members.map(|(id, m)| (id.into(), m.into())).collect(),
        }
    }
}

/// Who gets what: an [`Assignor`](crate::Assignor)'s answer.
///
/// ```
/// use ottla::{GroupAssignment, GroupSubscription, TopicPartition};
///
/// let group = GroupSubscription::from_iter([("a", ["orders"]), ("b", ["orders"])]);
/// let mut assignment = GroupAssignment::for_group(&group);
/// assignment.assign("a", TopicPartition::new("orders", 0));
/// assert_eq!(assignment.of("a"), [TopicPartition::new("orders", 0)]);
/// assert!(assignment.of("b").is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupAssignment {
    members: BTreeMap<Arc<str>, MemberAssignment>,
}

impl GroupAssignment {
    /// Nothing for anybody in the group.
    #[must_use]
    pub fn for_group(group: &GroupSubscription) -> Self {
        let ids = group.members.keys();
        Self {
            members: ids
                .map(|id| (Arc::clone(id), MemberAssignment::default()))
                .collect(),
        }
    }

    /// Gives a member one more partition.
    pub fn assign(&mut self, member: &str, partition: TopicPartition) {
        self.change(member, |assignment| assignment.partitions.push(partition));
    }

    /// Sends a member something that its assignor reads
    /// ([`Assignor::on_assignment`](crate::Assignor::on_assignment)).
    pub fn set_user_data(&mut self, member: &str, user_data: impl Into<Bytes>) {
        let user_data = Some(user_data.into());
        self.change(member, |assignment| assignment.user_data = user_data);
    }

    /// The partitions of a member; none if it is not in the group.
    #[must_use]
    pub fn of(&self, member: &str) -> &[TopicPartition] {
        let member = self.members.get(member);
        member.map_or(&[], |assignment| &assignment.partitions)
    }

    /// All members by id, in order, with what they get.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (&str, &MemberAssignment)> {
        self.members.iter().map(|(id, member)| (&**id, member))
    }

    /// Refuses to move partitions in one step when members go on reading while the group
    /// rebalances (KIP-429): who has one gives it up in one rebalance, another gets it in the next.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Group`], naming the partition and the members.
    pub(crate) fn check_moves(&self, assignor: &str, group: &GroupSubscription) -> Result<()> {
        // What a member says of an older generation may be another's since.
        let mut owners = HashMap::new();
        for (id, member) in &group.members {
            let owner = (member.generation, id);
            for tp in &member.owned_partitions {
                let known = owners.entry(tp).or_insert(owner);
                *known = owner.max(*known);
            }
        }
        for (id, assignment) in &self.members {
            for tp in &assignment.partitions {
                if let Some((_, owner)) = owners.get(tp).filter(|(_, owner)| *owner != id) {
                    let message = format!(
                        "the assignor '{assignor}' gives '{id}' {tp}, which '{owner}' still has: a \
                         cooperative assignor has it given up first, and gives it away in the next \
                         rebalance (KIP-429)"
                    );
                    return Err(Error::new(ErrorKind::Group, message));
                }
            }
        }
        Ok(())
    }

    fn change(&mut self, member: &str, change: impl FnOnce(&mut MemberAssignment)) {
        if let Some(known) = self.members.get_mut(member) {
            return change(known);
        }
        let mut added = MemberAssignment::default();
        change(&mut added);
        self.members.insert(member.into(), added);
    }

    /// Refuses what members could not act upon, before it is handed out.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Group`] for a member that is not in the group, and for a partition that does
    /// not exist, that its member is not subscribed to, or that somebody else has as well.
    pub(crate) fn check(
        &self,
        assignor: &str,
        cluster: &ClusterView,
        group: &GroupSubscription,
    ) -> Result<()> {
        let wrong = |what: String| {
            let message = format!(
                "the assignor '{assignor}' {what}: correct it, or choose another \
                 (partition.assignment.strategy)"
            );
            Err(Error::new(ErrorKind::Group, message))
        };
        let mut given = HashSet::new();
        for (id, assignment) in &self.members {
            let Some(member) = group.members.get(id) else {
                return wrong(format!("names '{id}', which is not a member of the group"));
            };
            for tp in &assignment.partitions {
                let number = usize::try_from(tp.partition).ok();
                let partitions = cluster.partitions(&tp.topic);
                if number.is_none_or(|number| number >= partitions.len()) {
                    return wrong(format!("gives '{id}' {tp}, which does not exist"));
                }
                if !member.topics.contains(&tp.topic) {
                    return wrong(format!("gives '{id}' {tp}, to which it is not subscribed"));
                }
                if !given.insert(tp) {
                    return wrong(format!("gives {tp} away twice, the second time to '{id}'"));
                }
            }
        }
        Ok(())
    }
}
