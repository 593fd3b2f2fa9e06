//! All members subscribe to the same topics: everybody gets as many partitions, or one more.

use std::collections::VecDeque;

use super::input::Input;

/// By partition who gets it, and the partitions that go from a member that may still own them to
/// another.
pub(super) fn assign(input: &Input<'_>) -> (Vec<Option<usize>>, Vec<usize>) {
    let mut equal = Equal::new(input);
    equal.keep();
    let mut left: Vec<usize> = (0..input.partitions.len())
        .filter(|partition| equal.owners[*partition].is_none())
        .collect();
    if input.racks_matter {
        let near = input.near_counts();
        left.sort_by_key(|partition| near[*partition]);
        left = equal.assign_near(left);
    }
    equal.assign_rest(&left);
    (equal.owners, equal.moving)
}

struct Equal<'a> {
    input: &'a Input<'a>,
    /// What everybody gets at least, and what at most.
    min: usize,
    max: usize,
    /// How many members may still get more than the least. None if all get the same.
    extra: usize,
    /// Members with less than `min`, and members with just that who might get one more.
    below: Vec<usize>,
    at_min: VecDeque<usize>,
    counts: Vec<usize>,
    owners: Vec<Option<usize>>,
    /// By partition: the member that had it and has to give it up.
    revoked: Vec<Option<usize>>,
    moving: Vec<usize>,
}

impl<'a> Equal<'a> {
    fn new(input: &'a Input<'a>) -> Self {
        let (partitions, members) = (input.partitions.len(), input.members.len());
        Self {
            input,
            min: partitions / members,
            max: partitions.div_ceil(members),
            extra: partitions % members,
            below: Vec::new(),
            at_min: VecDeque::new(),
            counts: vec![0; members],
            owners: vec![None; partitions],
            revoked: vec![None; partitions],
            moving: Vec::new(),
        }
    }

    fn take_extra(&mut self) {
        self.extra = self.extra.saturating_sub(1);
        if self.extra == 0 {
            self.at_min.clear();
        }
    }

    /// Everybody keeps of what they had as much as they may have.
    fn keep(&mut self) {
        let mut had: Vec<Vec<usize>> = vec![Vec::new(); self.input.members.len()];
        for (partition, owner) in self.input.owners.iter().enumerate() {
            let Some(member) = *owner else { continue };
            if self.input.is_far(member, partition) {
                self.revoked[partition] = Some(member);
            } else if !self.input.claimed_twice[partition] {
                had[member].push(partition);
            }
        }
        for member in &self.input.hashed {
            let had = &mut had[*member];
            // Partitions of low numbers stay: they come from all topics alike.
            had.sort_by_key(|partition| self.input.partitions[*partition].number);
            let kept = if had.len() < self.min {
                self.below.push(*member);
                had.len()
            } else if had.len() >= self.max && self.extra > 0 {
                self.take_extra();
                self.max
            } else {
                if self.extra > 0 {
                    self.at_min.push_back(*member);
                }
                self.min
            };
            let (kept, revoked) = had.split_at(kept);
            for partition in kept {
                self.owners[*partition] = Some(*member);
            }
            for partition in revoked {
                self.revoked[*partition] = Some(*member);
            }
            self.counts[*member] = kept.len();
        }
        self.below.sort_unstable();
        self.at_min.make_contiguous().sort_unstable();
    }

    /// Gives away in turn what has a replica in the rack of a member that may have more, and
    /// returns the rest.
    fn assign_near(&mut self, left: Vec<usize>) -> Vec<usize> {
        let mut rest = Vec::new();
        let mut turn = 0;
        for partition in left {
            let places = (0..self.below.len()).map(|step| (turn + step) % self.below.len());
            let is_near = |member: usize| self.input.is_near(member, partition);
            let below = places.into_iter().find(|place| is_near(self.below[*place]));
            let member = if let Some(place) = below {
                let member = self.below[place];
                turn = place;
                if self.counts[member] + 1 >= self.min {
                    self.below.remove(place);
                    if self.counts[member] + 1 < self.max && self.extra > 0 {
                        self.at_min.push_back(member);
                    }
                } else {
                    turn += 1;
                }
                turn = turn.checked_rem(self.below.len()).unwrap_or(0);
                member
            } else if let Some(place) = self.at_min.iter().position(|member| is_near(*member)) {
                let member = self.at_min[place];
                self.at_min.remove(place);
                self.take_extra();
                member
            } else {
                rest.push(partition);
                continue;
            };
            self.assign(partition, member);
        }
        rest
    }

    /// Gives away the rest: in turn to those with too little, then one more each to the others.
    fn assign_rest(&mut self, left: &[usize]) {
        let mut turn = 0;
        for partition in left {
            if turn >= self.below.len() {
                turn = 0;
            }
            let member = match self.below.get(turn) {
                Some(member) => *member,
                // There is room for as many as there are partitions.
                None => match self.at_min.pop_front() {
                    Some(member) => member,
                    None => return,
                },
            };
            self.assign(*partition, member);
            if self.counts[member] < self.min {
                turn += 1;
            } else if self.counts[member] == self.min {
                self.below.remove(turn);
                self.at_min.push_back(member);
            }
        }
    }

    fn assign(&mut self, partition: usize, member: usize) {
        self.owners[partition] = Some(member);
        self.counts[member] += 1;
        let revoked = self.revoked[partition].is_some_and(|owner| owner != member);
        if revoked || self.input.claimed_twice[partition] {
            self.moving.push(partition);
        }
    }
}
