//! Interceptors of consumers: code of the application's that sees every batch on its way in, and
//! every commit.

use crate::error::Error;
use crate::fetched::batch::PartitionBatch;
use crate::hooks::Chain;
use crate::types::{OffsetAndMetadata, TopicPartition};

/// Sees what a consumer hands out and commits. Set by
/// [`ConsumerBuilder::interceptor`](crate::ConsumerBuilder::interceptor).
///
/// Both methods must be quick and not block. One that panics does not harm the consumer; that is
/// logged once.
///
/// This is Java's `ConsumerInterceptor` with one difference: records are looked at, not replaced. A
/// trace context is taken from a record's headers where it is processed
/// (`record.headers().last_named("traceparent")`), since the span of its processing starts there;
/// this trait is for what concerns all records, as counting them:
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use ottla::{ConsumerInterceptor, PartitionBatch};
///
/// #[derive(Default)]
/// struct Traced(AtomicU64);
///
/// impl ConsumerInterceptor for Traced {
///     fn on_consume(&self, batch: &PartitionBatch) {
///         let traced = batch.records().flatten().filter(|record| record.headers().last_named("traceparent").is_some());
///         self.0.fetch_add(traced.count() as u64, Ordering::Relaxed);
///     }
/// }
///
/// # async fn example(client: ottla::Client) -> ottla::Result<()> {
/// let consumer = client.consumer("billing").subscribe(["orders"]).interceptor(Traced::default()).build()?;
/// # Ok(())
/// # }
/// ```
pub trait ConsumerInterceptor: Send + Sync + 'static {
    /// A batch of one partition is about to be handed out, on the task that polls. What a
    /// [`RecordStream`](crate::RecordStream) leaves is handed out again, and seen again.
    fn on_consume(&self, batch: &PartitionBatch) {
        let _ = batch;
    }

    /// A commit of these offsets ended, after all its retries: the application's, an automatic one,
    /// or one before partitions are given up.
    fn on_commit(
        &self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        outcome: Result<(), &Error>,
    ) {
        let _ = (offsets, outcome);
    }
}

impl Chain<dyn ConsumerInterceptor> {
    pub(crate) fn on_consume(&self, batch: &PartitionBatch) {
        self.each((0, "on_consume"), |interceptor| {
            interceptor.on_consume(batch);
        });
    }

    pub(crate) fn on_commit(
        &self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        outcome: Result<(), &Error>,
    ) {
        self.each((1, "on_commit"), |interceptor| {
            interceptor.on_commit(offsets, outcome);
        });
    }
}
