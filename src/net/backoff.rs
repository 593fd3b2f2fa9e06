//! Exponential back-off with jitter, as Kafka clients do it (KIP-580).

use std::time::Duration;

use crate::clock::Clock;

/// How long to wait after one failure more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most: most.max(first),
            failures: 0,
        }
    }

    /// Counts a failure and tells how long to wait because of it: doubling, ± 20 %.
    pub(crate) fn fail(&mut self, clock: &Clock) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        clock.jitter(doubled.min(self.most))
    }

    pub(crate) fn succeed(&mut self) {
        self.failures = 0;
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn doubles_up_to_the_most_and_starts_again_after_success() {
        let clock = Clock::seeded(1, 0);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut expected = 50.0;
        for _ in 0..40 {
            let wait = backoff.fail(&clock).as_secs_f64() * 1000.0;
            assert!(
                (0.79 * expected..=1.21 * expected).contains(&wait),
                "{wait} for {expected}"
            );
            expected = (expected * 2.0_f64).min(1000.0);
        }
        backoff.succeed();
        assert!(backoff.fail(&clock) <= Duration::from_millis(60));
    }
}
