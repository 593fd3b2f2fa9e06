//! Members subscribe to different topics: partitions are moved one by one for as long as that makes
//! the group more balanced.

use super::input::{Input, NO_GENERATION};
use super::movements::Movements;

/// How often all partitions are looked at for one that should move. A few times are enough; moves
/// that take each other back must not go on for ever.
const PASSES: usize = 100;

/// By partition: who gets it.
pub(super) fn assign(input: &Input<'_>) -> Vec<Option<usize>> {
    let mut general = General::new(input);
    let had_any = general.keep();
    let mut left = general.sorted();
    left.retain(|partition| general.owners[*partition].is_none());
    if input.racks_matter {
        for partition in &left {
            general.assign(*partition, true);
        }
    }
    for partition in &left {
        if general.owners[*partition].is_none() {
            general.assign(*partition, false);
        }
    }
    general.balance(&left, had_any);
    general.owners
}

struct General<'a> {
    input: &'a Input<'a>,
    owners: Vec<Option<usize>>,
    counts: Vec<usize>,
    topics: Vec<Subscribers>,
    /// By partition: who had it in an earlier generation.
    earlier: Vec<Option<(usize, i32)>>,
    /// Whether somebody has to give something up in any case.
    revokes: bool,
    movements: Movements,
    /// A topic that was out of balance when one was last looked for.
    unbalanced: usize,
}

/// Who subscribes to a topic, and how many of its partitions each has.
struct Subscribers {
    members: Vec<usize>,
    held: Vec<usize>,
}

impl Subscribers {
    fn change(&mut self, member: usize, change: impl FnOnce(usize) -> usize) {
        if let Ok(place) = self.members.binary_search(&member) {
            self.held[place] = change(self.held[place]);
        }
    }

    /// Whether partitions of it can go to one member or another.
    fn is_shared(&self) -> bool {
        self.members.len() > 1
    }
}

impl<'a> General<'a> {
    fn new(input: &'a Input<'a>) -> Self {
        let everybody = 0..input.members.len();
        let topics = (0..input.topics.len()).map(|topic| {
            let subscribes = |member: &usize| input.subscribes(*member, topic);
            let members: Vec<_> = everybody.clone().filter(subscribes).collect();
            Subscribers {
                held: vec![0; members.len()],
                members,
            }
        });
        Self {
            topics: topics.collect(),
            owners: vec![None; input.partitions.len()],
            counts: vec![0; input.members.len()],
            earlier: earlier_owners(input),
            revokes: false,
            movements: Movements::new(&input.topics),
            unbalanced: 0,
            input,
        }
    }

    fn topic_of(&self, partition: usize) -> usize {
        self.input.partitions[partition].topic
    }

    /// All partitions, of those topics first that the fewest can have.
    fn sorted(&self) -> Vec<usize> {
        let mut topics: Vec<usize> = (0..self.topics.len()).collect();
        topics.sort_by_key(|topic| self.topics[*topic].members.len());
        let topics = topics.iter().map(|topic| &self.input.topics[*topic]);
        topics
            .flat_map(|topic| topic.first..topic.first + topic.count)
            .collect()
    }

    fn give(&mut self, partition: usize, member: usize) {
        let topic = self.topic_of(partition);
        if let Some(before) = self.owners[partition].replace(member) {
            self.counts[before] -= 1;
            self.topics[topic].change(before, |held| held - 1);
        }
        self.counts[member] += 1;
        self.topics[topic].change(member, |held| held + 1);
    }

    /// Everybody keeps what they had, may have, and have nearby. Returns whether that is anything.
    fn keep(&mut self) -> bool {
        let mut any = false;
        for (partition, owner) in self.input.owners.iter().enumerate() {
            let Some(member) = *owner else { continue };
            let subscribes = self.input.subscribes(member, self.topic_of(partition));
            if subscribes && !self.input.is_far(member, partition) {
                self.give(partition, member);
                any = true;
            } else {
                self.revokes = true;
            }
        }
        any
    }

    /// The subscriber of a topic with the least.
    fn least(&self, topic: usize, may: impl Fn(usize) -> bool) -> Option<usize> {
        let members = self.topics[topic].members.iter().copied();
        members
            .filter(|member| may(*member))
            .min_by_key(|member| self.counts[*member])
    }

    fn assign(&mut self, partition: usize, not_far: bool) {
        let may = |member| !not_far || !self.input.is_far(member, partition);
        if let Some(member) = self.least(self.topic_of(partition), may) {
            self.give(partition, member);
        }
    }

    /// Whether a member has so many of other topics' partitions that one of this topic should
    /// better be another's.
    fn is_unbalanced(&self, topic: usize) -> bool {
        let topic = &self.topics[topic];
        let counts = topic.members.iter().map(|member| self.counts[*member]);
        let holding = counts.clone().zip(&topic.held);
        let holding = holding.filter(|(_, held)| **held > 0);
        let most = holding.map(|(count, _)| count).max().unwrap_or(0);
        counts.min().is_some_and(|least| most > least + 1)
    }

    /// Whether no move of one partition makes it better.
    fn is_balanced(&mut self) -> bool {
        let count = self.topics.len();
        let from = self.unbalanced;
        let mut topics = (0..count).map(|step| (from + step) % count);
        match topics.find(|topic| self.is_unbalanced(*topic)) {
            Some(topic) => self.unbalanced = topic,
            None => return true,
        }
        false
    }

    fn balance(&mut self, left: &[usize], had_any: bool) {
        let input = self.input;
        let shared: Vec<bool> = self.topics.iter().map(Subscribers::is_shared).collect();
        let is_shared = |partition: &usize| shared[input.partitions[*partition].topic];
        let only_shared = |partitions: &[usize]| -> Vec<usize> {
            partitions.iter().copied().filter(is_shared).collect()
        };
        let before = (self.owners.clone(), self.counts.clone());
        // Those that nobody had are moved first: that takes nothing from anybody.
        if !self.revokes {
            self.reassign(&only_shared(left));
        }
        let all = only_shared(&self.sorted());
        let moved = self.reassign(&all);
        // Nothing is taken from anybody unless the group as a whole becomes more balanced.
        if had_any && moved && self.score(&self.counts) >= self.score(&before.1) {
            (self.owners, self.counts) = before;
        }
    }

    /// Returns whether anything was moved.
    fn reassign(&mut self, partitions: &[usize]) -> bool {
        let mut moved = false;
        let mut is_balanced = self.is_balanced();
        for _ in 0..PASSES {
            let mut modified = false;
            for partition in partitions {
                if is_balanced {
                    break;
                }
                if self.reassign_one(*partition) {
                    modified = true;
                    is_balanced = self.is_balanced();
                }
            }
            moved |= modified;
            if !modified || is_balanced {
                break;
            }
        }
        moved
    }

    fn reassign_one(&mut self, partition: usize) -> bool {
        let topic = self.topic_of(partition);
        let Some(owner) = self.owners[partition] else {
            return false;
        };
        let has_less = |member: usize| self.counts[owner] > self.counts[member] + 1;
        let earlier = self.earlier[partition].map(|(member, _)| member);
        let earlier = earlier.filter(|member| self.input.subscribes(*member, topic));
        let target = earlier.filter(|member| has_less(*member));
        let target = target.or_else(|| self.least(topic, has_less));
        let Some(target) = target else {
            return false;
        };
        // Another partition of the topic that went the other way comes back instead.
        let actual = self.movements.instead_of(topic, partition, owner, target);
        if let Some(from) = self.owners[actual] {
            self.movements.note(topic, actual, from, target);
        }
        self.give(actual, target);
        true
    }

    /// The sum of the differences between any two members that share a topic with others: 0 if they
    /// all have as much.
    fn score(&self, counts: &[usize]) -> u64 {
        let mut sharing = vec![false; counts.len()];
        for topic in self.topics.iter().filter(|topic| topic.is_shared()) {
            for member in &topic.members {
                sharing[*member] = true;
            }
        }
        let counts = counts.iter().zip(&sharing);
        let mut counts: Vec<usize> = counts
            .filter_map(|(count, shares)| shares.then_some(*count))
            .collect();
        counts.sort_unstable();
        let mut below = 0;
        let mut score = 0;
        for (place, count) in (0_u64..).zip(counts) {
            let count = count as u64;
            score += count * place - below;
            below += count;
        }
        score
    }
}

/// Who had each partition in a generation before the latest: the last of them.
fn earlier_owners(input: &Input<'_>) -> Vec<Option<(usize, i32)>> {
    let mut earlier: Vec<Option<(usize, i32)>> = vec![None; input.partitions.len()];
    let generation = |claim: &(Vec<usize>, Option<i32>)| claim.1.unwrap_or(NO_GENERATION);
    let latest = input.claims.iter().map(generation).max();
    for member in &input.hashed {
        let own = generation(&input.claims[*member]);
        if latest.is_none_or(|latest| own >= latest) {
            continue;
        }
        for partition in &input.claims[*member].0 {
            if earlier[*partition].is_none_or(|(_, generation)| own > generation) {
                earlier[*partition] = Some((*member, own));
            }
        }
    }
    earlier
}
