//! What holds of the results of all assignors whatever members say.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::*;
use crate::types::TopicPartition;
use proptest::prelude::*;

const ASSIGNORS: [&dyn Assignor; 4] = [
    &RangeAssignor,
    &RoundRobinAssignor,
    &StickyAssignor,
    &CooperativeStickyAssignor,
];
const TOPICS: [&str; 5] = ["a", "b", "c", "d", "missing"];
const RACKS: [&str; 3] = ["x", "y", "z"];

fn tp(topic: &str, partition: usize) -> TopicPartition {
    TopicPartition::new(topic, i32::try_from(partition).unwrap())
}

/// Four topics, of some partitions each, in some racks.
fn clusters() -> impl Strategy<Value = ClusterView> {
    let racks = prop::collection::vec(prop::collection::vec(0..3_usize, 0..3), 0..12);
    prop::collection::vec(racks, 4).prop_map(|topics| {
        let mut cluster = ClusterView::new();
        for (topic, partitions) in TOPICS.iter().zip(topics) {
            cluster = cluster.with_topic(*topic, partitions.len());
            for (number, racks) in partitions.iter().enumerate() {
                let racks = racks.iter().map(|rack| RACKS[*rack]);
                cluster = cluster.with_racks(topic, number, racks);
            }
        }
        cluster
    })
}

/// Members that say anything at all.
fn members() -> impl Strategy<Value = MemberSubscription> {
    let owned = (0..5_usize, -1..14_i32);
    let owned = owned.prop_map(|(topic, number)| TopicPartition::new(TOPICS[topic], number));
    let claims = prop::collection::vec(owned, 0..12);
    let user_data = prop_oneof![
        Just(None),
        prop::collection::vec(any::<u8>(), 0..30).prop_map(Some),
        (claims.clone(), -1..5_i32).prop_map(|(claims, generation)| {
            let assignment = MemberAssignment::new(claims);
            let view = MemberView::new(&[]).with_assignment(&assignment, generation);
            let data = StickyAssignor.subscription_user_data(&view);
            data.map(|data| data.to_vec())
        }),
    ];
    (
        prop::collection::vec(prop::sample::select(&TOPICS[..]), 0..5),
        user_data,
        claims,
        prop::option::of(-1..5_i32),
        prop::option::of(prop::sample::select(&["i", "j", "k"][..])),
        prop::option::of(prop::sample::select(&["", "x", "y", "z", "elsewhere"][..])),
    )
        .prop_map(|(topics, user_data, owned, generation, instance, rack)| {
            let mut member = MemberSubscription::new(topics).with_owned(owned, generation);
            member.user_data = user_data.map(Into::into);
            member.instance_id = instance.map(Into::into);
            member.rack = rack.map(Into::into);
            member
        })
}

fn groups() -> impl Strategy<Value = GroupSubscription> {
    prop::collection::btree_map("[a-z]{1,3}", members(), 0..8)
        .prop_map(|members| members.into_iter().collect())
}

/// The same members, all with the same topics.
fn all_alike(group: &GroupSubscription) -> GroupSubscription {
    let topics: BTreeMap<_, _> = group.members().collect();
    let topics = topics.values().next().map(|member| member.topics.clone());
    let members = group.members().map(|(id, member)| {
        let mut member = member.clone();
        member.topics = topics.clone().unwrap_or_default();
        (id.to_owned(), member)
    });
    members.collect()
}

/// Everything that can be assigned.
fn wanted(cluster: &ClusterView, group: &GroupSubscription) -> HashSet<TopicPartition> {
    let topics = group.topics();
    let known = cluster.topics().filter(|(topic, _)| topics.contains(topic));
    let partitions = known.flat_map(|(topic, all)| (0..all.len()).map(move |p| tp(topic, p)));
    partitions.collect()
}

fn given(assignment: &GroupAssignment) -> HashMap<TopicPartition, String> {
    let members = assignment.members();
    let all = members.flat_map(|(id, member)| {
        let partitions = member.partitions.iter();
        partitions.map(move |tp| (tp.clone(), id.to_owned()))
    });
    all.collect()
}

fn counts(assignment: &GroupAssignment) -> Vec<usize> {
    let members = assignment.members();
    members.map(|(_, member)| member.partitions.len()).collect()
}

/// What a group tells when it joins the next time.
fn with_history(
    group: &GroupSubscription,
    assignment: &GroupAssignment,
    generation: i32,
) -> GroupSubscription {
    let members = group.members().map(|(id, member)| {
        let got = assignment.of(id);
        let mut member = member.clone().with_owned(got.to_vec(), generation);
        let got = MemberAssignment::new(got.to_vec());
        let view = MemberView::new(&[]).with_assignment(&got, generation);
        member.user_data = StickyAssignor.subscription_user_data(&view);
        (id.to_owned(), member)
    });
    members.collect()
}

proptest! {
    #[test]
    fn every_partition_has_one_subscriber(cluster in clusters(), group in groups()) {
        for assignor in ASSIGNORS {
            for group in [group.clone(), all_alike(&group)] {
                let name = assignor.name();
                let assignment = assignor.assign(&cluster, &group);
                assignment.check(name, &cluster, &group).unwrap();
                prop_assert_eq!(assignment.members().len(), group.members().len(), "{}", name);
                let given: HashSet<_> = given(&assignment).into_keys().collect();
                let left: Vec<_> = wanted(&cluster, &group).into_iter().collect();
                let left = left.iter().filter(|tp| !given.contains(tp));
                for tp in left {
                    // A cooperative one may leave out what somebody says to own.
                    let mut members = group.members();
                    let is_owned = members.any(|(_, member)| member.owned_partitions.contains(tp));
                    let cooperative = assignor.rebalance_protocol();
                    prop_assert!(is_owned, "{}: {} has nobody", name, tp);
                    prop_assert_eq!(cooperative, RebalanceProtocol::Cooperative, "{}", name);
                }
            }
        }
    }

    #[test]
    fn equal_subscriptions_get_equal_parts(cluster in clusters(), group in groups()) {
        let group = all_alike(&group);
        let assignors: [&dyn Assignor; 2] = [&RoundRobinAssignor, &StickyAssignor];
        for assignor in assignors {
            let counts = counts(&assignor.assign(&cluster, &group));
            let range = counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0);
            prop_assert!(range <= 1, "{}: {:?}", assignor.name(), counts);
        }
        // Range does so by topic.
        let assignment = RangeAssignor.assign(&cluster, &group);
        for topic in TOPICS {
            let counts = group.members().map(|(id, _)| {
                assignment.of(id).iter().filter(|tp| tp.topic() == topic).count()
            });
            let counts: Vec<_> = counts.collect();
            let range = counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0);
            prop_assert!(range <= 1, "{}: {:?}", topic, counts);
        }
    }

    #[test]
    fn what_was_assigned_stays_assigned(cluster in clusters(), group in groups()) {
        // Racks can make it move once more.
        let members = group.members().map(|(id, member)| {
            let mut member = member.clone();
            member.rack = None;
            (id.to_owned(), member)
        });
        let group: GroupSubscription = members.collect();
        for group in [group.clone(), all_alike(&group)] {
            let first = StickyAssignor.assign(&cluster, &group);
            let again = with_history(&group, &first, 9);
            prop_assert_eq!(&StickyAssignor.assign(&cluster, &again), &first);
            prop_assert_eq!(&CooperativeStickyAssignor.assign(&cluster, &again), &first);
        }
    }

    #[test]
    fn a_member_that_joins_or_leaves_moves_no_more_than_it_must(
        cluster in clusters(),
        count in 2..8_usize,
    ) {
        let member = || MemberSubscription::new(["a", "b", "c", "d"]);
        let group: GroupSubscription =
            (0..count).map(|place| (format!("m{place}"), member())).collect();
        let first = StickyAssignor.assign(&cluster, &group);
        let before = given(&first);
        let told = with_history(&group, &first, 9);

        // One leaves: what the others have stays with them.
        let staying = told.members().skip(1).map(|(id, member)| (id.to_owned(), member.clone()));
        let fewer: GroupSubscription = staying.collect();
        let after = given(&StickyAssignor.assign(&cluster, &fewer));
        let moved = before.iter().filter(|(tp, owner)| after[*tp] != **owner);
        prop_assert_eq!(moved.count(), first.of("m0").len());

        // One joins: what moves goes to it, and it gets no more than its part.
        let all = told.members().map(|(id, member)| (id.to_owned(), member.clone()));
        let more: GroupSubscription = all.chain([("new".to_owned(), member())]).collect();
        let assignment = StickyAssignor.assign(&cluster, &more);
        let after = given(&assignment);
        let moved = before.iter().filter(|(tp, owner)| after[*tp] != **owner);
        let moved: Vec<_> = moved.map(|(tp, _)| after[tp].as_str()).collect();
        prop_assert!(moved.iter().all(|owner| *owner == "new"), "{:?}", moved);
        prop_assert_eq!(moved.len(), before.len() / (count + 1));
    }

    #[test]
    fn cooperatively_no_partition_has_two_owners_and_a_few_rounds_are_enough(
        cluster in clusters(),
        old in groups(),
        new in groups(),
    ) {
        let first = StickyAssignor.assign(&cluster, &old);
        // Members of the old group that are in the new one keep what they own.
        let members = new.members().map(|(id, member)| {
            let generation = old.member(id).map(|_| 1);
            let member = member.clone().with_owned(first.of(id).to_vec(), generation);
            let mut member = member;
            member.user_data = None;
            (id.to_owned(), member)
        });
        let group: GroupSubscription = members.collect();
        let round = CooperativeStickyAssignor.assign(&cluster, &group);
        let owned_before = given(&first);
        for (tp, owner) in given(&round) {
            if let Some(before) = owned_before.get(&tp).filter(|id| new.member(id).is_some()) {
                prop_assert_eq!(&owner, before, "{} is still owned", tp);
            }
        }
        let mut last = round;
        let mut left = usize::MAX;
        for generation in 2..5 {
            let again = with_history(&group, &last, generation);
            let next = CooperativeStickyAssignor.assign(&cluster, &again);
            left = wanted(&cluster, &group).len() - given(&next).len();
            last = next;
        }
        prop_assert_eq!(left, 0);
    }
}
