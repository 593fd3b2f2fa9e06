//! How long large groups take: `cargo test --release --lib speed_tests -- --ignored --nocapture`.

use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::types::TopicPartition;

const PARTITIONS: usize = 10_000;

#[test]
#[ignore = "measures"]
fn large_groups() {
    for (topics, members) in [
        (1, 100),
        (100, 100),
        (1000, 100),
        (10_000, 100),
        (100, 1000),
    ] {
        for racks in [0, 3] {
            let cluster = cluster(topics, racks);
            for equal in [true, false] {
                let group = group(topics, members, racks, equal);
                let mut times = String::new();
                time(&RangeAssignor, &cluster, &group, &mut times);
                time(&RoundRobinAssignor, &cluster, &group, &mut times);
                time(&StickyAssignor, &cluster, &group, &mut times);
                // Everything with a tenth of the members, then with nobody new but one.
                let first = CooperativeStickyAssignor.assign(&cluster, &group);
                for new in [1, members * 9 / 10] {
                    let group = with_history(&group, &first, new);
                    time(&CooperativeStickyAssignor, &cluster, &group, &mut times);
                }
                println!("{topics} topics, {members} members, {racks} racks, {equal}:{times}");
            }
        }
    }
}

fn time(
    assignor: &dyn Assignor,
    cluster: &ClusterView,
    group: &GroupSubscription,
    times: &mut String,
) {
    let start = Instant::now();
    let assignment = assignor.assign(cluster, group);
    let took = start.elapsed();
    assignment.check("it", cluster, group).unwrap();
    *times += &format!(" {} {took:.1?}", assignor.name());
}

fn cluster(topics: usize, racks: usize) -> ClusterView {
    let mut cluster = ClusterView::new();
    for number in 0..topics {
        let topic: Arc<str> = format!("t{number}").into();
        let partitions = PARTITIONS / topics;
        cluster = cluster.with_topic(Arc::clone(&topic), partitions);
        for partition in 0..partitions {
            let racks = (0..racks.min(2)).map(|r| format!("r{}", (r + partition + number) % racks));
            cluster = cluster.with_racks(&topic, partition, racks.collect::<Vec<_>>());
        }
    }
    cluster
}

fn group(topics: usize, members: usize, racks: usize, equal: bool) -> GroupSubscription {
    let members = (0..members).map(|member| {
        // Neighbours share topics, and the first has all of them.
        let wanted = (0..topics).filter(|topic| {
            let distance = (topic * members / topics + members - member) % members;
            equal || member == 0 || distance < members / 4
        });
        let wanted = wanted.map(|topic| format!("t{topic}"));
        let mut subscription = MemberSubscription::new(wanted);
        if racks > 0 {
            subscription.rack = Some(format!("r{}", member % racks).into());
        }
        (format!("consumer-{member}"), subscription)
    });
    members.collect()
}

/// What members had is what the first of them are given, doubled up: the last have nothing.
fn with_history(
    group: &GroupSubscription,
    assignment: &GroupAssignment,
    new: usize,
) -> GroupSubscription {
    let old = group.members().len() - new;
    let mut owned: Vec<Vec<TopicPartition>> = vec![Vec::new(); old];
    for (place, (_, member)) in assignment.members().enumerate() {
        owned[place % old].extend(member.partitions.iter().cloned());
    }
    let members = group.members().enumerate().map(|(place, (id, member))| {
        let owned = owned.get(place).cloned().unwrap_or_default();
        let generation = (place < old).then_some(3);
        (id.to_owned(), member.clone().with_owned(owned, generation))
    });
    members.collect()
}
