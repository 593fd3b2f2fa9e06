//! Time and chance, the only place that reads them.
//!
//! Machines take `now` as an argument and shells read it here, so that a paused clock and one seed
//! make a whole run repeatable.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
pub(crate) use tokio::time::Instant;

/// Longer than any client lives and short enough to be added to any clock. Java's idiom for
/// "without limit" is `Long.MAX_VALUE`, which comes down to this.
pub(crate) const FOREVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The monotonic clock (tokio's, so a paused runtime pauses it too).
#[allow(clippy::disallowed_methods)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Until that time; for ever if there is none.
pub(crate) async fn sleep_at(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Where wall time and random numbers come from. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    wall: Wall,
    rng: Arc<Mutex<StdRng>>,
}

#[derive(Clone, Debug)]
enum Wall {
    /// The machine's clock.
    System,
    /// Milliseconds at a monotonic instant: moves with the (possibly paused) runtime.
    #[cfg_attr(not(any(test, feature = "mock")), allow(dead_code))]
    Anchored { at: Instant, millis: i64 },
}

impl Clock {
    /// The machine's clock and the operating system's entropy.
    pub(crate) fn system() -> Self {
        Self {
            wall: Wall::System,
            rng: Arc::new(Mutex::new(StdRng::from_rng(&mut rand::rng()))),
        }
    }

    /// Wall time derived from the runtime's clock, randomness from one seed.
    #[cfg_attr(not(any(test, feature = "mock")), allow(dead_code))]
    pub(crate) fn seeded(seed: u64, wall_millis: i64) -> Self {
        Self {
            wall: Wall::Anchored {
                at: now(),
                millis: wall_millis,
            },
            rng: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
        }
    }

    /// Milliseconds since the Unix epoch.
    #[allow(clippy::disallowed_methods)]
    pub(crate) fn wall_millis(&self) -> i64 {
        match self.wall {
            Wall::System => SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0)),
            Wall::Anchored { at, millis } => {
                millis.saturating_add(i64::try_from(at.elapsed().as_millis()).unwrap_or(0))
            }
        }
    }

    /// A random number in `[0, 1)`.
    pub(crate) fn unit(&self) -> f64 {
        self.with_rng(|rng| rng.random())
    }

    /// A random number below `bound` (0 for a bound of 0).
    pub(crate) fn below(&self, bound: usize) -> usize {
        self.with_rng(|rng| match bound {
            0 => 0,
            bound => rng.random_range(0..bound),
        })
    }

    /// 128 random bits, for member and instance ids.
    pub(crate) fn bits(&self) -> u128 {
        self.with_rng(|rng| rng.random())
    }

    /// `base` ± 20 %, as Kafka spreads its back-offs (KIP-580).
    pub(crate) fn jitter(&self, base: Duration) -> Duration {
        base.mul_f64(0.8 + 0.4 * self.unit())
    }

    fn with_rng<T>(&self, f: impl FnOnce(&mut StdRng) -> T) -> T {
        f(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
