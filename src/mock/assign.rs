//! The assignors that brokers have for groups of KIP-848: machines.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

/// Partitions by topic id.
pub(super) type Parts = BTreeMap<Uuid, BTreeSet<i32>>;

/// What an assignor sees of a member.
#[derive(Clone, Debug, Default)]
pub(super) struct Subscriber {
    pub(super) topics: BTreeSet<Uuid>,
    /// What it was to have so far.
    pub(super) current: Parts,
}

/// As many partitions for everybody as possible, each where it is if that is fair.
pub(super) fn uniform(
    members: &BTreeMap<String, Subscriber>,
    topics: &BTreeMap<Uuid, i32>,
) -> BTreeMap<String, Parts> {
    let wanted = |id: &Uuid| members.values().any(|member| member.topics.contains(id));
    let total: usize = topics
        .iter()
        .filter(|(id, _)| wanted(id))
        .map(|(_, count)| usize::try_from(*count).unwrap_or(0))
        .sum();
    let quota = total / members.len().max(1);
    let mut extra = total % members.len().max(1);
    let mut given: BTreeMap<String, Parts> = BTreeMap::new();
    let mut taken: BTreeSet<(Uuid, i32)> = BTreeSet::new();
    for (name, member) in members {
        let mine = given.entry(name.clone()).or_default();
        // Of what cannot be shared out evenly, each may have one.
        let (mut left, mut has_extra) = (quota, false);
        for (id, partitions) in &member.current {
            let count = topics.get(id).copied().unwrap_or(0);
            if !member.topics.contains(id) {
                continue;
            }
            for partition in partitions.iter().filter(|partition| **partition < count) {
                if left == 0 && extra > 0 && !has_extra {
                    (left, extra, has_extra) = (1, extra - 1, true);
                }
                if left > 0 && taken.insert((*id, *partition)) {
                    left -= 1;
                    mine.entry(*id).or_default().insert(*partition);
                }
            }
        }
    }
    let open = topics
        .iter()
        .flat_map(|(id, count)| (0..*count).map(|partition| (*id, partition)))
        .filter(|part| !taken.contains(part));
    for (id, partition) in open {
        let least = members
            .iter()
            .filter(|(_, member)| member.topics.contains(&id))
            .min_by_key(|(name, _)| size(given.get(*name)));
        if let Some((name, _)) = least {
            let mine = given.entry(name.clone()).or_default();
            mine.entry(id).or_default().insert(partition);
        }
    }
    given
}

/// Of each topic a run of partitions for every subscriber, in the order of their names.
pub(super) fn range(
    members: &BTreeMap<String, Subscriber>,
    topics: &BTreeMap<Uuid, i32>,
) -> BTreeMap<String, Parts> {
    let mut given: BTreeMap<String, Parts> = members
        .keys()
        .map(|name| (name.clone(), Parts::new()))
        .collect();
    for (id, count) in topics {
        let subscribers: Vec<&String> = members
            .iter()
            .filter(|(_, member)| member.topics.contains(id))
            .map(|(name, _)| name)
            .collect();
        let number = i32::try_from(subscribers.len()).unwrap_or(i32::MAX).max(1);
        let mut next = 0;
        for (index, name) in subscribers.into_iter().enumerate() {
            let more = i32::from((index as i32) < count % number);
            let end = next + count / number + more;
            if let Some(mine) = given.get_mut(name)
                && next < end
            {
                mine.insert(*id, (next..end).collect());
            }
            next = end;
        }
    }
    given
}

fn size(parts: Option<&Parts>) -> usize {
    parts.map_or(0, |parts| parts.values().map(BTreeSet::len).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(names: &[(&str, &[i32])]) -> BTreeMap<String, Subscriber> {
        let subscriber = |current: &[i32]| Subscriber {
            topics: BTreeSet::from([Uuid::from_u128(1)]),
            current: match current {
                [] => Parts::new(),
                some => Parts::from([(Uuid::from_u128(1), some.iter().copied().collect())]),
            },
        };
        names
            .iter()
            .map(|(name, current)| ((*name).to_owned(), subscriber(current)))
            .collect()
    }

    fn of(given: &BTreeMap<String, Parts>, name: &str) -> Vec<i32> {
        given[name].values().flatten().copied().collect()
    }

    #[test]
    fn uniform_is_fair_and_keeps_what_it_can() {
        let topics = BTreeMap::from([(Uuid::from_u128(1), 7)]);
        let given = uniform(
            &members(&[("a", &[0, 1, 2, 3, 4, 5, 6]), ("b", &[]), ("c", &[])]),
            &topics,
        );
        assert_eq!(of(&given, "a"), [0, 1, 2]);
        assert_eq!(of(&given, "b").len() + of(&given, "c").len(), 4);
        let given = uniform(&members(&[("a", &[0, 1, 2]), ("b", &[3, 4])]), &topics);
        assert_eq!((of(&given, "a").len(), of(&given, "b").len()), (4, 3));
        // Two of five are left over when three members have one each.
        let topics = BTreeMap::from([(Uuid::from_u128(1), 5)]);
        let members = members(&[("a", &[1, 2, 4]), ("b", &[0, 3]), ("c", &[])]);
        let given = uniform(&members, &topics);
        let sizes = ["a", "b", "c"].map(|name| of(&given, name).len());
        assert_eq!(sizes, [2, 2, 1]);
    }

    #[test]
    fn range_gives_runs() {
        let topics = BTreeMap::from([(Uuid::from_u128(1), 7)]);
        let given = range(&members(&[("a", &[]), ("b", &[]), ("c", &[])]), &topics);
        assert_eq!(of(&given, "a"), [0, 1, 2]);
        assert_eq!(of(&given, "b"), [3, 4]);
        assert_eq!(of(&given, "c"), [5, 6]);
    }
}
