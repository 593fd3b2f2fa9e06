//! Empty buffers of batches that ended, for those to come: fresh memory costs a page fault for
//! every 4 KiB, as much again as encoding what goes there.
//!
//! A buffer comes back by hand and serves what is a little smaller, for its batch is charged for
//! all of its capacity. Other memory that is used again is lent as slices and comes back when
//! nobody has one any more. It has pools of its own, for nobody knows beforehand how long the
//! output of a decompression is (`codec/`), and frames belong to one task that needs no lock
//! (`net/recycle.rs`).

use std::ops::RangeInclusive;

use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Smaller compressed batches are not worth a buffer that has been used.
pub(crate) const LEAST_ROUNDED: usize = 16 << 10;
/// So many buffers of one size are looked at for one that fits, the last ones first: they are warm.
const LOOKED_AT: usize = 8;

/// A bounded number of bytes of empty buffers.
#[derive(Debug)]
pub(crate) struct BufferPool {
    most: usize,
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    /// By the power of two that holds them. Larger ones than 2 GiB are not kept.
    sizes: [Vec<Vec<u8>>; 32],
    bytes: usize,
}

impl BufferPool {
    /// A pool that keeps so many bytes at most.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            idle: Mutex::default(),
        }
    }

    /// An empty buffer for so many bytes: a used one if there is one that is not much larger. Those
    /// of the same size serve each other, so whoever asks rounds to few sizes.
    pub(crate) fn take(&self, bytes: usize) -> Vec<u8> {
        let mut idle = self.idle();
        let found = idle.take(bytes);
        drop(idle);
        match found {
            Some(buffer) if fit(bytes).contains(&buffer.capacity()) => buffer,
            // One that does not fit is let go here, outside of the lock.
            _ => Vec::with_capacity(bytes),
        }
    }

    /// Keeps buffers that are not needed any more.
    pub(crate) fn keep(&self, buffers: impl IntoIterator<Item = Vec<u8>>) {
        let mut idle = self.idle();
        for mut buffer in buffers {
            let bytes = idle.bytes + buffer.capacity();
            if bytes <= self.most
                && let Some(same) = idle.sizes.get_mut(size(buffer.capacity()))
            {
                buffer.clear();
                same.push(buffer);
                idle.bytes = bytes;
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    /// A buffer that fits so many bytes. If there is none, one that does not and has become
    /// useless, to be let go.
    fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let same = self.sizes.get_mut(size(bytes))?;
        let fit = fit(bytes);
        let index = (0..same.len())
            .rev()
            .take(LOOKED_AT)
            .find(|&index| {
                same.get(index)
                    .is_some_and(|buffer| fit.contains(&buffer.capacity()))
            })
            .unwrap_or(0);
        let buffer = (index < same.len()).then(|| same.swap_remove(index))?;
        self.bytes -= buffer.capacity();
        Some(buffer)
    }
}

/// The power of two that holds so many bytes.
fn size(bytes: usize) -> usize {
    (usize::BITS - bytes.saturating_sub(1).leading_zeros()) as usize
}

/// Which capacities serve for so many bytes.
fn fit(bytes: usize) -> RangeInclusive<usize> {
    bytes..=bytes + bytes / 4
}

/// The size of a buffer for so many compressed bytes: one of few, that they may serve each other,
/// and an eighth more at most.
pub(crate) fn rounded(len: usize) -> usize {
    match len {
        ..LEAST_ROUNDED => len,
        _ => len.next_multiple_of(len.next_power_of_two() / 16),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_buffers_serve_what_they_fit_and_useless_ones_go() {
        let pool = BufferPool::new(8 << 10);
        for capacity in [1100, 1900, 2000] {
            pool.keep([Vec::with_capacity(capacity)]);
        }
        // Not the last one, which is warmer but much larger than what was asked for.
        assert_eq!(pool.take(1050).capacity(), 1100);
        assert_eq!(pool.idle().bytes, 3900);
        assert_eq!(pool.take(1200).capacity(), 1200, "fresh");
        assert_eq!(pool.idle().bytes, 1900, "one of the others made room");
        assert_eq!(pool.take(1700).capacity(), 1900);
        assert_eq!(pool.take(1200).capacity(), 1200);
        assert_eq!(pool.idle().bytes, 0);
        pool.keep([Vec::with_capacity((8 << 10) + 1)]);
        assert_eq!(pool.idle().bytes, 0, "no more than it may keep");
    }

    #[test]
    fn lengths_are_rounded_to_few_sizes() {
        let sizes: std::collections::BTreeSet<_> = (LEAST_ROUNDED..4 * LEAST_ROUNDED)
            .map(|len| {
                let size = rounded(len);
                assert!((len..=len + len / 8).contains(&size), "{len}: {size}");
                size
            })
            .collect();
        assert_eq!(sizes.len(), 1 + 8 + 8);
        assert_eq!(rounded(LEAST_ROUNDED - 1), LEAST_ROUNDED - 1);
    }
}
