//! Keeps what happens over and over from flooding the log.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Instant;

/// Lets one event through per period, and counts those it holds back.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    open_at: Option<Instant>,
    held_back: u64,
}

/// How often the same trouble is a warning.
const PERIOD: Duration = Duration::from_secs(30);

impl LogThrottle {
    /// Whether to tell of an event, and of how many since the last one nothing was told.
    pub(crate) fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.open_at.is_some_and(|at| now < at) {
            state.held_back += 1;
            return None;
        }
        state.open_at = Some(now + PERIOD);
        Some(std::mem::take(&mut state.held_back))
    }

    /// The trouble is over: the next one is told at once. Whether any was told.
    pub(crate) fn reset(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.held_back = 0;
        state.open_at.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now;

    #[tokio::test(start_paused = true)]
    async fn one_in_a_period_passes_and_the_others_are_counted() {
        let gate = LogThrottle::default();
        let start = now();
        assert_eq!(gate.pass(start), Some(0));
        for _ in 0..1000 {
            assert_eq!(gate.pass(start + PERIOD - Duration::from_nanos(1)), None);
        }
        assert_eq!(gate.pass(start + PERIOD), Some(1000));
        assert_eq!(gate.pass(start + PERIOD), None);
        assert!(gate.reset());
        assert_eq!(gate.pass(start + PERIOD), Some(0));
        assert!(gate.reset() && !gate.reset());
    }
}
