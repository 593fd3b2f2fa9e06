//! What a producer tells of its batches and requests: reports to a callback, and metrics.
//!
//! Everything is fed once per batch or request, never per record, and no lock of the producer is
//! held meanwhile. The stats's own lock is never held while a recorder's, an interceptor's or a
//! callback's code runs.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Instant;
use crate::error::{Error, ErrorKind};
use crate::hooks::Chain;
use crate::log_throttle::LogThrottle;
use crate::metrics::histogram::{Histogram, SizeHistogram};
use crate::producer::batch_report::BatchReport;
use crate::producer::delivery::BatchDone;
use crate::producer::interceptor::ProducerInterceptor;
use crate::producer::meter::ProducerMeter;
use crate::producer::transaction::Transactions;
use crate::producer::untold::Failures;
use crate::types::TopicPartition;

/// How a [`Producer`](crate::Producer) has fared since it was built. Batches and records count when
/// they end.
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
    /// Calls that had to wait for `buffer.memory`.
    pub buffer_waits: u64,
    /// How long they waited, added up. Calls that still wait, or were given up, are left out.
    pub buffer_wait_time: Duration,
    /// Bytes of `buffer.memory` in use now.
    pub buffer_used: usize,
    /// `buffer.memory`.
    pub buffer_total: usize,
    /// Sizes of the batches written, as sent.
    pub batch_size: SizeHistogram,
    /// How long batches waited from their first record to their first request.
    pub queue_time: Histogram,
    /// How long batches took from their first record to their end.
    pub batch_latency: Histogram,
    /// How long answered requests took.
    pub request_latency: Histogram,
    /// How long brokers, to keep the producer within its quota, asked it to send nothing (KIP-219):
    /// one entry for each answer that did.
    pub throttle_time: Histogram,
}

impl ProducerMetrics {
    /// The mean size of a written batch as sent, in bytes; 0 before the first.
    #[must_use]
    pub fn mean_batch_bytes(&self) -> u64 {
        self.bytes.checked_div(self.batches).unwrap_or(0)
    }

    /// Bytes as sent by bytes before compression: 1 without compression, less with it. `None`
    /// before the first batch.
    #[must_use]
    pub fn compression_ratio(&self) -> Option<f64> {
        (self.uncompressed_bytes > 0).then(|| self.bytes as f64 / self.uncompressed_bytes as f64)
    }
}

/// What is called for every batch that ended.
pub(crate) type OnBatch = Box<dyn Fn(&BatchReport) + Send + Sync>;

/// Where the batches and requests of one producer are written down.
pub(crate) struct ProducerStats {
    on_batch: Option<OnBatch>,
    interceptors: Option<Interceptors>,
    metrics: Mutex<ProducerMetrics>,
    buffer_waits: AtomicU64,
    meter: ProducerMeter,
    /// What failed, for `flush` and `close`.
    pub(crate) failures: Failures,
    /// Keeps batches that fail from filling the log.
    failed: LogThrottle,
    /// Told of each batch that fails.
    transactions: Option<Arc<Transactions>>,
    repeats: LogThrottle,
}

/// The interceptors of a producer, if there are any.
pub(crate) type Interceptors = Arc<Chain<dyn ProducerInterceptor>>;

/// What is known of a batch besides what is in it.
#[derive(Clone)]
pub(crate) struct BatchLog {
    stats: Arc<ProducerStats>,
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

impl ProducerStats {
    pub(crate) fn new(
        client_id: &str,
        on_batch: Option<OnBatch>,
        interceptors: Chain<dyn ProducerInterceptor>,
        transactions: Option<Arc<Transactions>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            on_batch,
            interceptors: (!interceptors.is_empty()).then(|| Arc::new(interceptors)),
            metrics: Mutex::default(),
            buffer_waits: AtomicU64::new(0),
            meter: ProducerMeter::new(client_id),
            failures: Failures::default(),
            failed: LogThrottle::default(),
            transactions,
            repeats: LogThrottle::default(),
        })
    }

    pub(crate) fn interceptors(&self) -> Option<Interceptors> {
        self.interceptors.clone()
    }

    pub(crate) fn open(self: &Arc<Self>, now: Instant) -> BatchLog {
        BatchLog {
            stats: Arc::clone(self),
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

    /// A call begins to wait for memory.
    pub(crate) fn waits(&self) {
        self.buffer_waits.fetch_add(1, Ordering::Relaxed);
    }

    /// It has waited.
    pub(crate) fn waited(&self, time: Duration) {
        self.metrics().buffer_wait_time += time;
        self.meter.buffer_wait.time(time);
    }

    /// How much of `buffer.memory` is in use.
    pub(crate) fn note_buffer(&self, used: usize, total: usize) {
        self.meter.buffer_used.set(used);
        self.meter.buffer_total.set(total);
    }

    /// A request ended, with an answer that asked for so long a silence, or without one; `refused`
    /// of its batches were answered with an error.
    pub(crate) fn request(&self, took: Duration, answer: Option<Duration>, refused: u64) {
        let mut metrics = self.metrics();
        metrics.requests += 1;
        metrics.refused_batches += refused;
        match answer {
            Some(throttled) => {
                metrics.request_latency.add(took);
                if !throttled.is_zero() {
                    metrics.throttle_time.add(throttled);
                }
            }
            None => metrics.failed_requests += 1,
        }
        drop(metrics);
        let meter = &self.meter;
        meter.requests.add(1);
        match answer {
            Some(throttled) => {
                meter.request_latency.time(took);
                meter.throttle.some_time(throttled);
            }
            None => meter.requests_failed.add(1),
        }
        if refused > 0 {
            meter.batches_refused.add(refused);
        }
    }

    /// A batch will be sent again: a warning now and then, so that a broker that is away does not
    /// fill the log.
    pub(crate) fn repeats(&self, now: Instant, partition: &TopicPartition, error: &Error) {
        match self.repeats.pass(now) {
            Some(untold) => {
                tracing::warn!(%partition, %error, untold, "a batch will be sent again");
            }
            None => tracing::debug!(%partition, %error, "a batch will be sent again"),
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
        let mut metrics = self.stats.metrics();
        metrics.splits += 1;
        metrics.retries += u64::from(self.attempts.saturating_sub(1));
        drop(metrics);
        let meter = &self.stats.meter;
        meter.batches_split.add(1);
        meter
            .batches_retried
            .add(u64::from(self.attempts.saturating_sub(1)));
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
        done: &Arc<BatchDone>,
        contents: Contents,
        end: Result<Option<i64>, &Error>,
    ) {
        let partition = done.partition();
        let latency = now.saturating_duration_since(self.opened);
        let queued = self
            .first_sent
            .map(|sent| sent.saturating_duration_since(self.opened));
        let records = u64::from(contents.records);
        let mut metrics = self.stats.metrics();
        if end.is_ok() {
            metrics.records += records;
            metrics.batches += 1;
            metrics.bytes += contents.bytes as u64;
            metrics.uncompressed_bytes += contents.uncompressed_bytes as u64;
            metrics.batch_size.add(contents.bytes as u64);
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
        self.publish(latency, queued, contents, end.is_ok());
        match end {
            Ok(offset) => {
                tracing::trace!(%partition, ?offset, records, bytes = contents.bytes, ?latency, "a batch was written");
            }
            Err(error) => {
                let failures = &self.stats.failures;
                failures.add(done, contents.records, error);
                if let Some(transactions) = &self.stats.transactions {
                    transactions.batch_failed(error);
                }
                self.tell(now, partition, records, error);
            }
        }
        let stats = &self.stats;
        if stats.on_batch.is_none() && stats.interceptors.is_none() {
            return;
        }
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
        if let Some(interceptors) = &stats.interceptors {
            interceptors.on_acknowledgement(&report);
        }
        // A panic of the application's must not keep other batches from ending.
        if let Some(on_batch) = &stats.on_batch
            && catch_unwind(AssertUnwindSafe(|| on_batch(&report))).is_err()
        {
            tracing::error!(%partition, "the callback for batches panicked");
        }
    }

    fn publish(
        &self,
        latency: Duration,
        queued: Option<Duration>,
        contents: Contents,
        written: bool,
    ) {
        let meter = &self.stats.meter;
        let records = u64::from(contents.records);
        if written {
            meter.records_sent.add(records);
            meter.batches_sent.add(1);
            meter.batch_bytes.add(contents.bytes as u64);
            meter
                .uncompressed_bytes
                .add(contents.uncompressed_bytes as u64);
            meter.batch_size.size(contents.bytes);
        } else {
            meter.records_failed.add(records);
            meter.batches_failed.add(1);
        }
        if self.attempts > 1 {
            meter.batches_retried.add(u64::from(self.attempts - 1));
        }
        meter.batch_latency.time(latency);
        if let Some(queued) = queued {
            meter.queue_time.time(queued);
        }
    }

    /// Logs each failed batch once: as a warning or, where many fail, all but one now and then at
    /// debug level.
    fn tell(&self, now: Instant, partition: &TopicPartition, records: u64, error: &Error) {
        let attempts = self.attempts;
        if error.kind() == ErrorKind::Purged {
            // As the application wanted it.
            tracing::debug!(%partition, %error, records, attempts, "a batch was given up");
            return;
        }
        match self.stats.failed.pass(now) {
            Some(untold) => {
                tracing::warn!(%partition, %error, records, attempts, untold, "a batch failed");
            }
            None => tracing::debug!(%partition, %error, records, attempts, "a batch failed"),
        }
    }
}

impl fmt::Debug for ProducerStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducerStats").finish_non_exhaustive()
    }
}

impl fmt::Debug for BatchLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BatchLog({} attempts)", self.attempts)
    }
}
