//! Interceptors of producers: code of the application's that sees every record on its way out.

use std::fmt;

use crate::hooks::Chain;
use crate::producer::batch_report::BatchReport;
use crate::record::{Header, Record};

/// Sees what a producer sends, and what became of it: for trace contexts, audits and the like. Set
/// by [`ProducerBuilder::interceptor`](crate::ProducerBuilder::interceptor).
///
/// Both methods run on the paths of records: they must be quick and not block. One that panics does
/// not harm the producer; that is logged once. What they cost is paid by the records of this
/// producer alone, and only if there are interceptors.
///
/// This is Java's `ProducerInterceptor` with two differences. It adds headers to a record and does
/// not replace it: the key decides the partition and belongs to the application. And it hears of
/// acknowledgements once per batch, not per record: the offsets are `base_offset` and those that
/// follow. Tracing and auditing need no more: they put a context on each record when it is sent,
/// and keep a span or a count of what was written per batch. To see the outcome of one given
/// record, await its [`Delivery`](crate::Delivery).
///
/// A trace context for each record, after W3C's *Trace Context*, which consumers find in the
/// record's headers:
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
/// let producer = client.producer().interceptor(TraceContext).build()?;
/// # Ok(())
/// # }
/// ```
pub trait ProducerInterceptor: Send + Sync + 'static {
    /// The application gave the producer a record. The producer calls this once per call of `send`
    /// (and of its kin; per record of `enqueue_all`), before it chooses the partition and before it
    /// waits for anything, on the caller's task: the current span or context is the caller's. The
    /// call may still fail, and only the caller gets that error.
    ///
    /// `headers` are put behind those of the record; those of earlier interceptors are in it
    /// already.
    fn on_send(&self, record: &Record<'_>, headers: &mut AddedHeaders) {
        let _ = (record, headers);
    }

    /// A batch ended: it was written, or failed. Every record that was accepted is in one. Called
    /// by the tasks that send, before the deliveries end.
    fn on_acknowledgement(&self, batch: &BatchReport) {
        let _ = batch;
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
