//! What the sticky algorithms work on: members, topics and partitions by number, and what of that
//! which members claim to have had counts.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::group::{GroupAssignment, GroupSubscription};
use super::super::member::MemberSubscription;
use super::super::order::{Member, by_id, hash, sort_as_put};
use super::super::view::{ClusterView, PartitionView, racks_matter};
use crate::types::TopicPartition;

/// The generation of those that tell none.
pub(in super::super) const NO_GENERATION: i32 = -1;

/// What a member says that it had, and since which generation of the group.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Claim {
    pub(in super::super) partitions: Vec<TopicPartition>,
    pub(in super::super) generation: Option<i32>,
}

pub(in super::super) struct Input<'a> {
    /// By id. Everything else names a member by its place here.
    pub(in super::super) members: Vec<Member<'a>>,
    /// Members in the order in which Java goes through them.
    pub(super) hashed: Vec<usize>,
    /// By name; only those that exist and have a subscriber.
    pub(super) topics: Vec<Topic<'a>>,
    /// By topic, then by number. Everything else names a partition by its place here.
    pub(in super::super) partitions: Vec<Partition<'a>>,
    /// By member: which of the partitions that there are it says that it had.
    pub(super) claims: Vec<(Vec<usize>, Option<i32>)>,
    /// By partition: who had it last.
    pub(super) owners: Vec<Option<usize>>,
    /// By partition: whether several members claim to have had it in one generation.
    pub(super) claimed_twice: Vec<bool>,
    pub(super) racks_matter: bool,
    by_name: HashMap<&'a str, usize>,
}

pub(super) struct Topic<'a> {
    pub(super) name: &'a Arc<str>,
    /// The place of its first partition.
    pub(super) first: usize,
    pub(super) count: usize,
}

#[derive(Clone, Copy)]
pub(in super::super) struct Partition<'a> {
    pub(super) topic: usize,
    pub(super) number: usize,
    view: &'a PartitionView,
}

impl<'a> Input<'a> {
    pub(in super::super) fn new(
        cluster: &'a ClusterView,
        group: &'a GroupSubscription,
        claim: impl Fn(&MemberSubscription) -> Claim,
    ) -> Self {
        let members = by_id(group);
        let wanted = group.topics();
        let mut topics = Vec::new();
        let mut partitions = Vec::new();
        for (name, views) in cluster
            .named()
            .filter(|(name, _)| wanted.contains(&***name))
        {
            topics.push(Topic {
                name,
                first: partitions.len(),
                count: views.len(),
            });
            let topic = topics.len() - 1;
            let views = views.iter().enumerate();
            partitions.extend(views.map(|(number, view)| Partition {
                topic,
                number,
                view,
            }));
        }
        let mut hashed: Vec<usize> = (0..members.len()).collect();
        sort_as_put(&mut hashed, |place| hash(members[*place].id));
        let racks = members.iter().filter_map(Member::rack);
        let racks_matter = racks_matter(racks, partitions.iter().map(|p| p.view));
        let names = topics.iter().enumerate();
        let mut input = Self {
            by_name: names.map(|(place, topic)| (&**topic.name, place)).collect(),
            owners: vec![None; partitions.len()],
            claimed_twice: vec![false; partitions.len()],
            claims: Vec::new(),
            members,
            hashed,
            topics,
            partitions,
            racks_matter,
        };
        let members = input.members.iter();
        let claims = members.map(|member| {
            let claim = claim(member.subscription);
            let partitions = claim.partitions.iter();
            let known = partitions.filter_map(|tp| input.partition(tp));
            (known.collect(), claim.generation)
        });
        input.claims = claims.collect();
        input.judge_claims();
        input
    }

    /// The place of a partition, if there is one of that name with a subscriber.
    pub(in super::super) fn partition(&self, tp: &TopicPartition) -> Option<usize> {
        let topic = &self.topics[*self.by_name.get(tp.topic())?];
        let number = usize::try_from(tp.partition).ok()?;
        (number < topic.count).then_some(topic.first + number)
    }

    /// Of several claims to a partition the one of the latest generation counts, and none of two
    /// in the same.
    fn judge_claims(&mut self) {
        let mut last: Vec<Option<usize>> = vec![None; self.partitions.len()];
        for member in &self.hashed {
            let (partitions, generation) = &self.claims[*member];
            let generation = generation.unwrap_or(NO_GENERATION);
            for partition in partitions {
                if let Some(other) = last[*partition] {
                    // As Java does, by what its subscription tells, whatever its user data say.
                    let other = self.members[other].subscription.generation;
                    match generation.cmp(&other.unwrap_or(NO_GENERATION)) {
                        std::cmp::Ordering::Less => continue,
                        std::cmp::Ordering::Equal => {
                            self.claimed_twice[*partition] = true;
                            self.owners[*partition] = None;
                        }
                        std::cmp::Ordering::Greater => self.owners[*partition] = Some(*member),
                    }
                } else {
                    self.owners[*partition] = Some(*member);
                }
                last[*partition] = Some(*member);
            }
        }
    }

    pub(super) fn subscribes(&self, member: usize, topic: usize) -> bool {
        let name = self.topics[topic].name;
        self.members[member].subscription.topics.contains(name)
    }

    /// Whether the member has a rack that none of the partition's replicas is in.
    pub(super) fn is_far(&self, member: usize, partition: usize) -> bool {
        let rack = self.members[member].rack().filter(|_| self.racks_matter);
        rack.is_some_and(|rack| !self.partitions[partition].view.is_in(rack))
    }

    /// Whether a replica of the partition is in the member's rack.
    pub(super) fn is_near(&self, member: usize, partition: usize) -> bool {
        let rack = self.members[member].rack().filter(|_| self.racks_matter);
        rack.is_some_and(|rack| self.partitions[partition].view.is_in(rack))
    }

    /// By partition: how many members are in a rack of its replicas.
    pub(super) fn near_counts(&self) -> Vec<usize> {
        let mut in_rack: HashMap<&str, usize> = HashMap::new();
        for rack in self.members.iter().filter_map(Member::rack) {
            *in_rack.entry(rack).or_default() += 1;
        }
        let partitions = self.partitions.iter();
        let racks = partitions.map(|partition| partition.view.racks());
        racks
            .map(|racks| racks.filter_map(|rack| in_rack.get(rack)).sum())
            .collect()
    }

    /// The answer to the group: each member gets what it is the owner of.
    pub(in super::super) fn answer(
        &self,
        group: &GroupSubscription,
        owners: &[Option<usize>],
    ) -> GroupAssignment {
        let mut assignment = GroupAssignment::for_group(group);
        for (partition, owner) in self.partitions.iter().zip(owners) {
            let Some(owner) = owner else { continue };
            let topic = Arc::clone(self.topics[partition.topic].name);
            let number = i32::try_from(partition.number).unwrap_or(i32::MAX);
            let id = self.members[*owner].id;
            assignment.assign(id, TopicPartition::new(topic, number));
        }
        assignment
    }
}
