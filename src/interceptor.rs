//! Interceptors: code of the application's that sees every record on its way in and out.
//!
//! Invariants: none is called under a lock; a panic in one is caught, told once per interceptor and hook, and changes
//! nothing for the client; without interceptors the paths of records do not know of them.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::consumer::PartitionBatch;
use crate::error::Error;
use crate::producer::BatchReport;
use crate::record::{Header, Record};
use crate::types::{OffsetAndMetadata, TopicPartition};

/// Sees what a producer sends, and what became of it: for trace contexts, audits and the like. Set by
/// [`ProducerBuilder::interceptor`](crate::ProducerBuilder::interceptor).
///
/// Both methods run on the paths of records: they must be quick and not block. One that panics does not harm the
/// producer; that is logged once. What they cost is paid by the records of this producer alone, and only if there are
/// interceptors.
///
/// This is Java's `ProducerInterceptor` with two differences. A record is not replaced, only headers are added to it:
/// the key decides the partition and belongs to the application. And the acknowledgement is told once per batch, not per
/// record: its offsets are `base_offset` and those that follow. That is what tracing and auditing need: a context is put on
/// each record when it is sent, a span or a count of what was written is kept per batch. To see the outcome of one given
/// record, await its [`Delivery`](crate::Delivery).
///
/// A trace context for each record, after W3C's *Trace Context*, which consumers find in the record's headers:
///
/// ```
/// use ottla::{AddedHeaders, BatchReport, ProducerInterceptor, Record};
///
/// struct TraceContext;
///
/// # fn current_trace_parent() -> String { "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned() }
/// impl ProducerInterceptor for TraceContext {
///     fn on_send(&self, record: &Record<'_>, headers: &mut AddedHeaders) {
///         if record.headers().iter().all(|header| header.name() != b"traceparent") {
///             headers.add("traceparent", current_trace_parent());
///         }
///     }
/// }
///
/// # async fn example(client: ottla::Client) -> ottla::Result<()> {
/// let producer = client.producer().interceptor(TraceContext).build().await?;
/// # Ok(())
/// # }
/// ```
pub trait ProducerInterceptor: Send + Sync + 'static {
    /// A record was given to the producer. Called once per call of `send` (and of its kin; per record of `enqueue_all`),
    /// before the partition is chosen and before anything is waited for, on the caller's task: the current span or context
    /// is the caller's. The call may still fail, which the caller alone is told.
    ///
    /// `headers` are put behind those of the record; those of earlier interceptors are in it already.
    fn on_send(&self, record: &Record<'_>, headers: &mut AddedHeaders) {
        let _ = (record, headers);
    }

    /// A batch ended: it was written, or failed. Every record that was accepted is in one. Called by the tasks that send,
    /// before the deliveries end.
    fn on_acknowledgement(&self, batch: &BatchReport) {
        let _ = batch;
    }
}

/// Sees what a consumer hands out and commits. Set by
/// [`ConsumerBuilder::interceptor`](crate::ConsumerBuilder::interceptor).
///
/// Both methods must be quick and not block. One that panics does not harm the consumer; that is logged once.
///
/// This is Java's `ConsumerInterceptor` with one difference: records are looked at, not replaced. A trace context is
/// taken from a record's headers where it is processed (`record.headers().last_named("traceparent")`), since the span of its
/// processing starts there; this trait is for what concerns all records, as counting them:
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
/// let consumer = client.consumer("billing").subscribe(["orders"]).interceptor(Traced::default()).build().await?;
/// # Ok(())
/// # }
/// ```
pub trait ConsumerInterceptor: Send + Sync + 'static {
    /// A batch of one partition is about to be handed out, on the task that polls. What a
    /// [`RecordStream`](crate::RecordStream) leaves is handed out again, and seen again.
    fn on_consume(&self, batch: &PartitionBatch) {
        let _ = batch;
    }

    /// A commit of these offsets ended, after all its retries: the application's, an automatic one, or one before
    /// partitions are given up.
    fn on_commit(
        &self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        outcome: Result<(), &Error>,
    ) {
        let _ = (offsets, outcome);
    }
}

/// The headers that interceptors add to a record, behind its own.
#[derive(Default)]
pub struct AddedHeaders {
    /// Names and values, one after the other.
    bytes: Vec<u8>,
    /// Where a name and its value, if it has one, end.
    ends: Vec<(usize, Option<usize>)>,
}

impl AddedHeaders {
    /// Adds a header. Names may repeat.
    ///
    /// ```
    /// let mut headers = ottla::AddedHeaders::default();
    /// headers.add("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    /// headers.add("hop", [1]);
    /// assert_eq!(headers.iter().map(|header| header.name()).collect::<Vec<_>>(), [&b"traceparent"[..], b"hop"]);
    /// ```
    pub fn add(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.bytes.extend_from_slice(name.as_bytes());
        let name_end = self.bytes.len();
        self.bytes.extend_from_slice(value.as_ref());
        self.ends.push((name_end, Some(self.bytes.len())));
    }

    /// Adds a header whose value is null.
    ///
    /// ```
    /// let mut headers = ottla::AddedHeaders::default();
    /// headers.add_null("retried");
    /// assert!(headers.iter().all(|header| header.value().is_none()));
    /// ```
    pub fn add_null(&mut self, name: &str) {
        self.bytes.extend_from_slice(name.as_bytes());
        self.ends.push((self.bytes.len(), None));
    }

    /// What was added so far.
    pub fn iter(&self) -> impl Iterator<Item = Header<'_>> {
        let mut start = 0;
        self.ends.iter().map(move |(name_end, value_end)| {
            let piece = |from: usize, to: usize| self.bytes.get(from..to).unwrap_or_default();
            let name = piece(start, *name_end);
            let value = value_end.map(|end| piece(*name_end, end));
            start = value_end.unwrap_or(*name_end);
            Header::from_parts(name, value)
        })
    }

    /// The record with these headers behind its own.
    pub(crate) fn put_on<'a>(&'a self, record: &Record<'a>) -> Record<'a> {
        self.iter()
            .fold(record.clone(), |record, header| record.push_header(header))
    }

    fn len(&self) -> (usize, usize) {
        (self.bytes.len(), self.ends.len())
    }

    fn truncate(&mut self, (bytes, ends): (usize, usize)) {
        self.bytes.truncate(bytes);
        self.ends.truncate(ends);
    }
}

impl fmt::Debug for AddedHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Interceptors in the order in which they were set.
pub(crate) struct Chain<T: ?Sized>(Vec<Arc<Member<T>>>);

struct Member<T: ?Sized> {
    interceptor: Box<T>,
    /// By hook, whether its panic was told.
    told: [AtomicBool; 2],
}

/// The place in `told`, and the method's name.
type Hook = (usize, &'static str);
impl<T: ?Sized> Chain<T> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn push(&mut self, interceptor: Box<T>) {
        self.0.push(Arc::new(Member {
            interceptor,
            told: Default::default(),
        }));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Calls one hook of all.
    fn each(&self, (index, method): Hook, mut call: impl FnMut(&T)) {
        for (place, member) in self.0.iter().enumerate() {
            let outcome = catch_unwind(AssertUnwindSafe(|| call(&member.interceptor)));
            if outcome.is_err()
                && let Some(told) = member.told.get(index)
                && !told.swap(true, Ordering::Relaxed)
            {
                tracing::error!(
                    interceptor = place,
                    method,
                    "an interceptor panicked; it is called all the same, and this is not said again"
                );
            }
        }
    }
}

impl Chain<dyn ProducerInterceptor> {
    /// What is to be added to the record. What one added before it panicked does not count.
    pub(crate) fn on_send(&self, record: &Record<'_>) -> AddedHeaders {
        let mut headers = AddedHeaders::default();
        let mut good = headers.len();
        self.each((0, "on_send"), |interceptor| {
            // If the last one came to its end, what it added stays.
            headers.truncate(good);
            interceptor.on_send(record, &mut headers);
            good = headers.len();
        });
        headers.truncate(good);
        headers
    }

    pub(crate) fn on_acknowledgement(&self, batch: &BatchReport) {
        self.each((1, "on_acknowledgement"), |interceptor| {
            interceptor.on_acknowledgement(batch);
        });
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

impl<T: ?Sized> Clone for Chain<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: ?Sized> fmt::Debug for Chain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Adds(&'static str);

    impl ProducerInterceptor for Adds {
        fn on_send(&self, _: &Record<'_>, headers: &mut AddedHeaders) {
            let seen = headers.iter().count().to_string();
            headers.add(self.0, seen);
        }
    }

    struct Panics;

    impl ProducerInterceptor for Panics {
        fn on_send(&self, _: &Record<'_>, headers: &mut AddedHeaders) {
            headers.add("half", "done");
            panic!("planted");
        }

        fn on_acknowledgement(&self, _: &BatchReport) {
            panic!("planted");
        }
    }

    #[test]
    fn they_run_in_order_and_see_what_was_added_before_them() {
        let mut chain = Chain::<dyn ProducerInterceptor>::new();
        chain.push(Box::new(Adds("first")));
        chain.push(Box::new(Adds("second")));
        let record = Record::to("t")
            .with_header("own", "x")
            .with_null_header("null");
        let added = chain.on_send(&record);
        let record = added.put_on(&record);
        let shown: Vec<_> = record.headers().iter().map(|h| format!("{h:?}")).collect();
        assert_eq!(
            shown,
            [
                "\"own\": 1 B",
                "\"null\": null",
                "\"first\": 1 B",
                "\"second\": 1 B"
            ]
        );
        assert_eq!(record.headers()[2].value(), Some(&b"0"[..]));
        assert_eq!(record.headers()[3].value(), Some(&b"1"[..]));
    }

    #[test]
    fn what_a_panicking_one_added_does_not_count_and_the_others_go_on() {
        for place in 0..3 {
            let mut chain = Chain::<dyn ProducerInterceptor>::new();
            for number in 0..3 {
                match number == place {
                    true => chain.push(Box::new(Panics)),
                    false => chain.push(Box::new(Adds("added"))),
                }
            }
            let added = chain.on_send(&Record::to("t"));
            let names: Vec<_> = added
                .iter()
                .map(|header| header.name().to_owned())
                .collect();
            assert_eq!(names, [b"added", b"added"], "{place}");
        }
    }

    #[test]
    fn null_and_empty_values_are_told_apart() {
        let mut headers = AddedHeaders::default();
        headers.add("", "");
        headers.add_null("n");
        headers.add("x", b"\xff");
        let values: Vec<_> = headers.iter().map(|header| header.value()).collect();
        assert_eq!(values, [Some(&b""[..]), None, Some(&b"\xff"[..])]);
    }
}
