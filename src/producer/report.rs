//! What a producer tells of its batches and requests: reports to a callback, and metrics.
//!
//! Everything is fed once per batch or request, never per record, and no lock of the producer is held meanwhile.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Instant;
use crate::error::Error;
use crate::types::TopicPartition;

/// How a batch of records ended; see [`ProducerBuilder::on_batch`](crate::ProducerBuilder::on_batch).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BatchReport {
    /// Where its records went.
    pub partition: TopicPartition,
    /// The offset of the first record; the others follow it one by one. `None` if the batch failed or the broker did not
    /// say, as with `acks=0`.
    pub base_offset: Option<i64>,
    /// How many records it held.
    pub records: u32,
    /// Its bytes as sent: compressed, with the batch's header.
    pub bytes: usize,
    /// Its bytes before compression, with the batch's header.
    pub uncompressed_bytes: usize,
    /// How many requests carried it: 1 unless it was repeated, 0 if it never was sent.
    pub attempts: u32,
    /// From the acceptance of its first record to its first request; `None` if it never was sent.
    pub queued: Option<Duration>,
    /// From the acceptance of its first record to its end.
    pub latency: Duration,
    /// Why it failed, if it did. [`Error::certainty`] says whether its records may have been written.
    pub error: Option<Error>,
}

/// How a [`Producer`](crate::Producer) has fared since it was built. Batches and records count when they end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerMetrics {
    /// Records that were written (with `acks=0`: sent).
    pub records: u64,
    /// Records whose delivery failed.
    pub failed_records: u64,
    /// Batches that were written.
    pub batches: u64,
    /// Batches that failed.
    pub failed_batches: u64,
    /// Bytes of the batches written, as sent.
    pub bytes: u64,
    /// Bytes of the batches written, before compression.
    pub uncompressed_bytes: u64,
    /// Attempts after the first of batches that have ended.
    pub retries: u64,
    /// Batches that a broker called too large and that were split.
    pub splits: u64,
    /// Produce requests that ended, with an answer or without.
    pub requests: u64,
    /// Produce requests that ended without an answer.
    pub failed_requests: u64,
    /// Answers that refused a batch, whether it was then repeated or failed.
    pub refused_batches: u64,
    /// Calls of `send` that had to wait for `buffer.memory`.
    pub buffer_waits: u64,
    /// Bytes of `buffer.memory` in use now.
    pub buffer_used: usize,
    /// `buffer.memory`.
    pub buffer_total: usize,
    /// How long batches waited from their first record to their first request.
    pub queue_time: Histogram,
    /// How long batches took from their first record to their end.
    pub batch_latency: Histogram,
    /// How long answered requests took.
    pub request_latency: Histogram,
    /// How long brokers, to keep the producer within its quota, asked it to send nothing (KIP-219): one entry for each answer
    /// that did.
    pub throttle_time: Histogram,
}

impl ProducerMetrics {
    /// The mean size of a written batch as sent, in bytes; 0 before the first.
    #[must_use]
    pub fn mean_batch_bytes(&self) -> u64 {
        self.bytes.checked_div(self.batches).unwrap_or(0)
    }

    /// Bytes as sent by bytes before compression: 1 without compression, less with it. `None` before the first batch.
    #[must_use]
    pub fn compression_ratio(&self) -> Option<f64> {
        (self.uncompressed_bytes > 0).then(|| self.bytes as f64 / self.uncompressed_bytes as f64)
    }
}

/// Counts durations in classes of at most an eighth of their width, from a microsecond to more than an hour.
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
    /// Grows to the largest class seen: at most [`CLASSES`].
    counts: Vec<u64>,
    count: u64,
    sum: Duration,
    max: Duration,
}

impl Histogram {
    /// Counts one duration.
    pub fn add(&mut self, time: Duration) {
        let class = class(time);
        if self.counts.len() <= class {
            self.counts.resize(class + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(class) {
            *count += 1;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(time);
        self.max = self.max.max(time);
    }

    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
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
        let nanos = self.sum.as_nanos().checked_div(u128::from(self.count))?;
        Some(Duration::from_nanos(
            u64::try_from(nanos).unwrap_or(u64::MAX),
        ))
    }

    /// A duration that this part of all (0.5: the median) did not exceed: at most an eighth more than the exact one.
    /// `None` if there are none.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let rank = ((self.count as f64 * part.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        for (class, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(class_end(class).min(self.max));
            }
        }
        None
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count)
            .field("mean", &self.mean())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max)
            .finish()
    }
}

/// Microseconds below 8 each have a class of their own; from there every doubling has eight.
fn class(time: Duration) -> usize {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let doublings = (63 - micros.max(1).leading_zeros()).saturating_sub(3);
    (doublings as usize * 8 + (micros >> doublings) as usize).min(CLASSES - 1)
}

/// Where the class ends: the first duration of the next one.
fn class_end(class: usize) -> Duration {
    let doublings = (class / 8).saturating_sub(1);
    let base = (class - doublings * 8) as u64 + 1;
    Duration::from_micros(base << doublings)
}

const CLASSES: usize = 256;

/// What is called for every batch that ended.
pub(crate) type OnBatch = Box<dyn Fn(&BatchReport) + Send + Sync>;

/// Where the batches and requests of one producer are written down.
pub(crate) struct Ledger {
    on_batch: Option<OnBatch>,
    metrics: Mutex<ProducerMetrics>,
    buffer_waits: AtomicU64,
}

/// What is known of a batch besides what is in it.
#[derive(Clone)]
pub(crate) struct BatchLog {
    ledger: Arc<Ledger>,
    opened: Instant,
    first_sent: Option<Instant>,
    attempts: u32,
}

/// What a batch held.
#[derive(Clone, Copy)]
pub(crate) struct Contents {
    pub(crate) records: u32,
    pub(crate) bytes: usize,
    pub(crate) uncompressed_bytes: usize,
}

impl Ledger {
    pub(crate) fn new(on_batch: Option<OnBatch>) -> Arc<Self> {
        Arc::new(Self {
            on_batch,
            metrics: Mutex::default(),
            buffer_waits: AtomicU64::new(0),
        })
    }

    pub(crate) fn open(self: &Arc<Self>, now: Instant) -> BatchLog {
        BatchLog {
            ledger: Arc::clone(self),
            opened: now,
            first_sent: None,
            attempts: 0,
        }
    }

    /// A copy, without what the buffer's owner knows.
    pub(crate) fn snapshot(&self) -> ProducerMetrics {
        ProducerMetrics {
            buffer_waits: self.buffer_waits.load(Ordering::Relaxed),
            ..self.metrics().clone()
        }
    }

    pub(crate) fn waited(&self) {
        self.buffer_waits.fetch_add(1, Ordering::Relaxed);
    }

    /// A request ended; `refused` of its batches were answered with an error, and the broker wants `throttle_ms` of silence.
    pub(crate) fn request(&self, took: Duration, answered: bool, refused: u64, throttle_ms: i32) {
        let mut metrics = self.metrics();
        metrics.requests += 1;
        metrics.refused_batches += refused;
        if let Ok(millis @ 1..) = u64::try_from(throttle_ms) {
            metrics.throttle_time.add(Duration::from_millis(millis));
        }
        if answered {
            metrics.request_latency.add(took);
        } else {
            metrics.failed_requests += 1;
        }
    }

    fn metrics(&self) -> MutexGuard<'_, ProducerMetrics> {
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BatchLog {
    /// When its first record was accepted.
    pub(crate) fn opened(&self) -> Instant {
        self.opened
    }

    /// A request carries the batch.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.first_sent.get_or_insert(now);
        self.attempts += 1;
    }

    /// The batch goes on as several.
    pub(crate) fn split(self) {
        let mut metrics = self.ledger.metrics();
        metrics.splits += 1;
        metrics.retries += u64::from(self.attempts.saturating_sub(1));
    }

    /// For a piece of the batch.
    pub(crate) fn piece(&self) -> Self {
        Self {
            attempts: 0,
            ..self.clone()
        }
    }

    /// The batch ended.
    pub(crate) fn end(
        self,
        now: Instant,
        partition: &TopicPartition,
        contents: Contents,
        end: Result<Option<i64>, &Error>,
    ) {
        let latency = now.saturating_duration_since(self.opened);
        let queued = self
            .first_sent
            .map(|sent| sent.saturating_duration_since(self.opened));
        let records = u64::from(contents.records);
        let mut metrics = self.ledger.metrics();
        if end.is_ok() {
            metrics.records += records;
            metrics.batches += 1;
            metrics.bytes += contents.bytes as u64;
            metrics.uncompressed_bytes += contents.uncompressed_bytes as u64;
        } else {
            metrics.failed_records += records;
            metrics.failed_batches += 1;
        }
        metrics.retries += u64::from(self.attempts.saturating_sub(1));
        metrics.batch_latency.add(latency);
        if let Some(queued) = queued {
            metrics.queue_time.add(queued);
        }
        drop(metrics);
        match end {
            Ok(offset) => {
                tracing::trace!(%partition, ?offset, records, bytes = contents.bytes, ?latency, "a batch was written");
            }
            Err(error) => {
                tracing::debug!(%partition, %error, records, attempts = self.attempts, ?latency, "a batch failed");
            }
        }
        let Some(on_batch) = &self.ledger.on_batch else {
            return;
        };
        let report = BatchReport {
            partition: partition.clone(),
            base_offset: end.ok().flatten(),
            records: contents.records,
            bytes: contents.bytes,
            uncompressed_bytes: contents.uncompressed_bytes,
            attempts: self.attempts,
            queued,
            latency,
            error: end.err().cloned(),
        };
        // A panic of the application's must not keep other batches from ending.
        if catch_unwind(AssertUnwindSafe(|| on_batch(&report))).is_err() {
            tracing::error!(%partition, "the callback for batches panicked");
        }
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

impl fmt::Debug for BatchLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BatchLog({} attempts)", self.attempts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_each_other_and_are_narrow() {
        let mut last = 0;
        for micros in 0..100_000_u64 {
            let time = Duration::from_micros(micros);
            let class = class(time);
            assert!(class == last || class == last + 1, "{micros}");
            let end = class_end(class);
            assert!(end > time, "{micros}: {end:?}");
            assert!(
                end.as_micros() as u64 - micros <= micros / 8 + 1,
                "{micros}"
            );
            last = class;
        }
        assert!(class(Duration::from_secs(3600)) < CLASSES - 1);
        assert_eq!(class(Duration::MAX), CLASSES - 1);
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
}
