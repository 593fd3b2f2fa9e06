//! How much a broker is asked for at a time, by how long its answers take.

use std::time::Duration;

/// What a broker nearby is asked for at a time: little enough that the bytes of an answer are still
/// in the processor's caches (with those that the kernel copied them from) when they are checked
/// and read. With 2 MiB a byte costs a third more on a processor with 2 MiB per core.
pub(super) const NEAR: usize = 1 << 20;
/// A broker is near if [`NEAR`] bytes of an answer take it less than this. Round trips that are
/// longer would leave less throughput than the longest of a near broker, so it is asked for more at
/// a time; and what becomes wanted meanwhile does not wait for such an answer.
pub(super) const NEAR_UNTIL: Duration = Duration::from_millis(3);
/// A broker that takes as long as this to answer with data is far: a partition is asked for while a
/// whole answer of it waits. An application with 904 ms of work for what a broker 50 ms away has
/// takes 990 ms, and 1,516 ms without (simulated time, `tests/fetching.rs`).
const FAR_AFTER: Duration = Duration::from_millis(20);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct FetchSize(usize);

impl FetchSize {
    pub(super) fn new() -> Self {
        Self(NEAR)
    }

    pub(super) fn get(&self) -> usize {
        self.0
    }

    /// An answer with records came. Doubles what is asked for as long as the broker is not near and
    /// its answers come full, up to `most`.
    pub(super) fn answered(&mut self, bytes: usize, asked: usize, took: Duration, most: usize) {
        let units = u32::try_from(bytes.div_ceil(NEAR)).unwrap_or(u32::MAX);
        let near = took / units.max(1) < NEAR_UNTIL;
        if near && !is_far(took) {
            self.0 = (self.0 / 2).max(NEAR);
        } else if bytes >= asked / 2 {
            self.0 = (self.0 * 2).min(most).max(NEAR);
        }
    }
}

/// Whether a broker is far whose answer with records took so long.
pub(super) fn is_far(took: Duration) -> bool {
    took >= FAR_AFTER
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: usize = 50 * NEAR;

    /// What a broker is asked for after so many answers, all full, of which each takes a round trip
    /// and some time per MiB.
    fn after(answers: usize, round_trip: u64, per_mib: u64) -> Vec<usize> {
        let mut size = FetchSize::new();
        let sizes = (0..answers).map(|_| {
            let bytes = size.get();
            let micros = round_trip + per_mib * bytes as u64 / NEAR as u64;
            size.answered(bytes, bytes, Duration::from_micros(micros), BUDGET);
            size.get() / NEAR
        });
        sizes.collect()
    }

    #[test]
    fn more_is_asked_for_from_further_away() {
        assert_eq!(after(4, 200, 500), [1, 1, 1, 1], "nearby");
        // At 3 ms per MiB the round trip tells no more.
        assert_eq!(after(6, 5_000, 800), [2, 4, 2, 4, 2, 4], "5 ms away");
        assert_eq!(after(8, 50_000, 800), [2, 4, 8, 16, 32, 50, 50, 50], "far");
    }

    #[test]
    fn what_comes_with_less_than_was_asked_for_is_no_reason_to_ask_for_more() {
        let mut size = FetchSize::new();
        let slow = Duration::from_millis(100);
        size.answered(1_000, NEAR, slow, BUDGET);
        assert_eq!(size.get(), NEAR);
        size.answered(NEAR, NEAR, slow, BUDGET);
        assert_eq!(size.get(), 2 * NEAR);
        size.answered(1_000, 2 * NEAR, slow, BUDGET);
        assert_eq!(size.get(), 2 * NEAR);
        size.answered(1_000, 2 * NEAR, Duration::from_millis(1), BUDGET);
        assert_eq!(size.get(), NEAR);
    }
}
