//! Distributions of a bounded size: durations and sizes in classes of at most an eighth of their
//! width.

use std::fmt;
use std::time::Duration;

/// Counts durations in classes of at most an eighth of their width, from a microsecond to more than
/// an hour.
///
/// ```
/// use std::time::Duration;
/// use ottla::Histogram;
///
/// let mut times = Histogram::default();
/// for millis in 1..=100 {
///     times.add(Duration::from_millis(millis));
/// }
/// assert_eq!(times.count(), 100);
/// let median = times.quantile(0.5).unwrap();
/// assert!(median >= Duration::from_millis(50) && median < Duration::from_millis(57));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// In microseconds.
    classes: Classes,
    sum: Duration,
    max: Duration,
}

/// Counts sizes in bytes, in classes of at most an eighth of their width.
///
/// ```
/// let mut sizes = ottla::SizeHistogram::default();
/// for bytes in [100, 200, 16_384] {
///     sizes.add(bytes);
/// }
/// assert_eq!((sizes.count(), sizes.sum(), sizes.max()), (3, 16_684, 16_384));
/// assert!(sizes.quantile(0.5).is_some_and(|median| (200..=225).contains(&median)));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SizeHistogram {
    classes: Classes,
    sum: u64,
    max: u64,
}

/// How many values there were in each class.
#[derive(Clone, Default, PartialEq, Eq)]
struct Classes {
    /// Grows to the largest class seen: at most [`CLASSES`].
    counts: Vec<u64>,
    count: u64,
}

impl Classes {
    fn add(&mut self, value: u64) {
        let class = class(value);
        if self.counts.len() <= class {
            self.counts.resize(class + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(class) {
            *count += 1;
        }
        self.count += 1;
    }

    /// The end of the class that holds this part of all values.
    fn quantile(&self, part: f64) -> Option<u64> {
        let rank = ((self.count as f64 * part.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map(class_end)
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn add(&mut self, time: Duration) {
        self.classes.add(micros(time));
        self.sum = self.sum.saturating_add(time);
        self.max = self.max.max(time);
    }

    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.classes.count
    }

    /// Their sum.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The longest; zero if there is none.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.max
    }

    /// Their mean; `None` if there are none.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        let nanos = self.sum.as_nanos().checked_div(u128::from(self.count()))?;
        Some(Duration::from_nanos(
            u64::try_from(nanos).unwrap_or(u64::MAX),
        ))
    }

    /// A duration that this part of all (0.5: the median) did not exceed: at most an eighth more
    /// than the exact one. `None` if there are none.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let end = self.classes.quantile(part)?;
        Some(Duration::from_micros(end).min(self.max))
    }
}

impl SizeHistogram {
    /// Counts one size.
    pub fn add(&mut self, bytes: u64) {
        self.classes.add(bytes);
        self.sum = self.sum.saturating_add(bytes);
        self.max = self.max.max(bytes);
    }

    /// How many sizes were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.classes.count
    }

    /// Their sum.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The largest; 0 if there is none.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Their mean; `None` if there are none.
    #[must_use]
    pub fn mean(&self) -> Option<u64> {
        self.sum.checked_div(self.count())
    }

    /// A size that this part of all (0.5: the median) did not exceed: at most an eighth more than
    /// the exact one. `None` if there are none.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<u64> {
        Some(self.classes.quantile(part)?.min(self.max))
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("mean", &self.mean())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max)
            .finish()
    }
}

impl fmt::Debug for SizeHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SizeHistogram")
            .field("count", &self.count())
            .field("mean", &self.mean())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max)
            .finish()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Values below 8 each have a class of their own; from there every doubling has eight.
fn class(value: u64) -> usize {
    let doublings = (63 - value.max(1).leading_zeros()).saturating_sub(3);
    (doublings as usize * 8 + (value >> doublings) as usize).min(CLASSES - 1)
}

/// Where the class ends: the first value of the next one.
fn class_end(class: usize) -> u64 {
    let doublings = (class / 8).saturating_sub(1);
    let base = (class - doublings * 8) as u64 + 1;
    base << doublings
}

const CLASSES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_each_other_and_are_narrow() {
        let mut last = 0;
        for value in 0..100_000_u64 {
            let class = class(value);
            assert!(class == last || class == last + 1, "{value}");
            let end = class_end(class);
            assert!(end > value, "{value}: {end}");
            assert!(end - value <= value / 8 + 1, "{value}");
            last = class;
        }
        assert!(class(micros(Duration::from_secs(3600))) < CLASSES - 1);
        assert_eq!(class(micros(Duration::MAX)), CLASSES - 1);
    }

    #[test]
    fn quantiles_never_exceed_the_longest_and_empty_ones_are_none() {
        let mut times = Histogram::default();
        assert_eq!((times.quantile(0.5), times.mean()), (None, None));
        times.add(Duration::from_millis(3));
        assert_eq!(times.quantile(1.0), Some(Duration::from_millis(3)));
        assert_eq!(times.quantile(f64::NAN), Some(Duration::from_millis(3)));
        times.add(Duration::from_secs(1));
        assert!(times.quantile(0.5).unwrap() < Duration::from_micros(3400));
        assert_eq!(times.max(), Duration::from_secs(1));
    }

    #[test]
    fn sizes_of_any_kind_are_counted() {
        let mut sizes = SizeHistogram::default();
        assert_eq!((sizes.quantile(0.5), sizes.mean()), (None, None));
        for bytes in [0, u64::MAX, 1] {
            sizes.add(bytes);
        }
        assert_eq!((sizes.count(), sizes.max()), (3, u64::MAX));
        assert_eq!(sizes.quantile(0.1), Some(1));
        assert!(sizes.quantile(0.9).is_some_and(|most| most > 1 << 30));
    }
}
