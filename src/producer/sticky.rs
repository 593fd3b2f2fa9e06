//! Which partition takes the records that have no key.

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

/// The partition that records without a key go to at present (KIP-480, KIP-794).
#[derive(Debug)]
pub(crate) struct Sticky {
    /// -1: choose another.
    partition: AtomicI32,
    /// What went to it so far, counted per batch.
    bytes: AtomicUsize,
    limit: usize,
}

impl Sticky {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            partition: AtomicI32::new(-1),
            bytes: AtomicUsize::new(0),
            limit: limit.max(1),
        }
    }

    pub(crate) fn current(&self) -> Option<i32> {
        let partition = self.partition.load(Ordering::Relaxed);
        (partition >= 0).then_some(partition)
    }

    /// Settles on a partition unless somebody did meanwhile; returns the one that holds.
    pub(crate) fn choose(&self, partition: i32) -> i32 {
        let order = Ordering::Relaxed;
        match self.partition.compare_exchange(-1, partition, order, order) {
            Ok(_) => {
                self.bytes.store(0, order);
                partition
            }
            Err(other) => other,
        }
    }

    /// Stays no longer with this partition.
    pub(crate) fn leave(&self, partition: i32) {
        let order = Ordering::Relaxed;
        let _ = self.partition.compare_exchange(partition, -1, order, order);
    }

    pub(crate) fn filled(&self, partition: i32, bytes: usize) {
        if self.current() == Some(partition)
            && self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= self.limit
        {
            self.leave(partition);
        }
    }
}

/// Partitions that are weighed when another one is chosen: with so many at random a broker that is
/// slow comes off as when all are weighed, and hundreds of partitions cost no more than eight.
pub(crate) const WEIGHED: usize = 8;

/// One of these, each with what it has to send: the likelier the less that is, by Java's rule
/// (KIP-794). `below` draws a number below its argument.
pub(crate) fn weigh(loads: &[(usize, usize)], below: impl FnOnce(usize) -> usize) -> usize {
    let most = loads.iter().map(|(_, load)| *load).max().unwrap_or(0);
    let weight = |load: usize| most + 1 - load;
    let mut at = below(loads.iter().map(|(_, load)| weight(*load)).sum());
    for (index, load) in loads {
        match at.checked_sub(weight(*load)) {
            Some(rest) => at = rest,
            None => return *index,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each partition is chosen among all draws that there are.
    fn shares(loads: &[usize]) -> Vec<usize> {
        let loads: Vec<_> = loads.iter().copied().enumerate().collect();
        let mut draws = 0;
        weigh(&loads, |bound| {
            draws = bound;
            0
        });
        let mut shares = vec![0; loads.len()];
        for draw in 0..draws {
            shares[weigh(&loads, |_| draw)] += 1;
        }
        shares
    }

    #[test]
    fn who_has_less_to_send_is_chosen_more_often() {
        assert_eq!(shares(&[0, 0, 0]), [1, 1, 1]);
        assert_eq!(shares(&[0, 9, 5]), [10, 1, 5]);
        assert_eq!(shares(&[0, 100, 0]), [101, 1, 101]);
        assert_eq!(shares(&[7]), [1]);
    }
}
