//! One error type for the whole client.
//!
//! An [`Error`] answers three questions: what happened ([`Error::kind`]), whose move it is
//! ([`Error::class`]), and, where a write is concerned, whether the write may have happened
//! ([`Error::certainty`]).

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::types::TopicPartition;

pub(crate) mod classify;
mod kind;

pub use classify::BrokerCode;
pub use kind::{Certainty, Class, ErrorKind};

/// The result of an operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. One word in size and cheap to clone, so that every record of a failed batch
/// can have it.
///
/// What an error means for the caller depends on where it comes from:
///
/// | from | what the client has done | what is left to do |
/// |---|---|---|
/// | [`Producer::send`](crate::Producer::send), a [`Delivery`](crate::Delivery) | retried until `delivery.timeout.ms` | [`is_maybe_written`](Self::is_maybe_written): the record may be in the log, and is sent again only if a duplicate is fine; otherwise it is not, and if [`is_retriable`](Self::is_retriable) it may be sent again |
/// | [`enqueue`](crate::Producer::enqueue) and its kin | waited for `max.block.ms`, or not at all; the record was not accepted | [`is_full`](Self::is_full): try again after a while; [`is_retriable`](Self::is_retriable): the same |
/// | [`flush`](crate::Producer::flush), [`close`](crate::Producer::close) of a producer | told of records that failed and nobody heard of | say so, and end with an error |
/// | [`Consumer::poll`](crate::Consumer::poll) and the other ways to read | goes on with this partition by itself, and with all others | poll again, unless [`is_fatal`](Self::is_fatal) |
/// | commits | retried until the deadline | [`is_retriable`](Self::is_retriable): a later commit covers this one; otherwise the partitions may be another member's now |
/// | [`admin`](crate::admin), look-ups of offsets and partitions | retried until the deadline | [`is_retriable`](Self::is_retriable): the same call later |
/// | [`connect`](crate::ClientBuilder::connect), `build` | tried until the deadline what time can mend | [`is_timeout`](Self::is_timeout): the same later; [`is_auth`](Self::is_auth), [`ErrorKind::Config`]: change the settings |
///
/// Wherever it comes from, after [`is_fatal`](Self::is_fatal) the producer, consumer or client is
/// of no use any more.
///
/// It prints one line that says what was being done, what happened, and whether a record may have
/// been written; by `Debug` the same with its kind and class, so that a `main` that returns it
/// ends with a line that can be read. `{:#?}` shows all of its parts.
///
/// ```
/// # fn handle(error: ottla::Error) {
/// if error.is_fatal() {
///     // Build a new producer, or give up.
/// } else if error.is_maybe_written() {
///     // It may be there already: send it again only if a duplicate is fine.
/// } else if error.is_retriable() {
///     // Safe to send again.
/// } else {
///     // The record, the configuration or a permission has to change.
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    class: Class,
    certainty: Option<Certainty>,
    code: Option<BrokerCode>,
    topic_partition: Option<TopicPartition>,
    unreadable: Option<Range<i64>>,
    message: Cow<'static, str>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of a kind, with the kind's usual class.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            class: kind.usual_class(),
            certainty: None,
            code: None,
            topic_partition: None,
            unreadable: None,
            message: message.into(),
            source: None,
        }))
    }

    /// The error that a wire code means, with what was being done.
    pub(crate) fn from_code(code: i16, doing: impl fmt::Display) -> Self {
        let meaning = classify::classify(code);
        let code = BrokerCode::new(code);
        let mut error = Self::new(meaning.kind, format!("{doing}: {code}: {}", meaning.advice));
        let inner = Arc::make_mut(&mut error.0);
        inner.class = meaning.class;
        inner.code = Some(code);
        error
    }

    pub(crate) fn with_class(mut self, class: Class) -> Self {
        Arc::make_mut(&mut self.0).class = class;
        self
    }

    pub(crate) fn with_certainty(mut self, certainty: Certainty) -> Self {
        Arc::make_mut(&mut self.0).certainty = Some(certainty);
        self
    }

    pub(crate) fn without_certainty(mut self) -> Self {
        if self.0.certainty.is_some() {
            Arc::make_mut(&mut self.0).certainty = None;
        }
        self
    }

    pub(crate) fn with_topic_partition(mut self, tp: TopicPartition) -> Self {
        Arc::make_mut(&mut self.0).topic_partition = Some(tp);
        self
    }

    pub(crate) fn with_unreadable(mut self, offsets: Range<i64>) -> Self {
        Arc::make_mut(&mut self.0).unreadable = Some(offsets);
        self
    }

    pub(crate) fn with_source(
        mut self,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Arc::make_mut(&mut self.0).source = Some(Arc::new(source));
        self
    }

    /// Puts what was being done in front of the message.
    pub(crate) fn context(mut self, doing: impl fmt::Display) -> Self {
        let inner = Arc::make_mut(&mut self.0);
        inner.message = format!("{doing}: {}", inner.message).into();
        self
    }

    /// What happened.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whose move it is.
    #[must_use]
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// The offsets that cannot be read, of a consumer's error about damaged records: to leave them
    /// out, [`seek`](crate::ConsumerHandle::seek) to the range's end. Where the damage hides how
    /// far it goes, the range is one offset long, and the next attempt tells of the next one.
    ///
    /// ```no_run
    /// # async fn example(mut consumer: ottla::Consumer) -> ottla::Result<()> {
    /// loop {
    ///     match consumer.poll().await {
    ///         Ok(Some(batches)) => println!("{} records", batches.record_count()),
    ///         Ok(None) => return Ok(()), // closed
    ///         Err(error) if error.is_fatal() => return Err(error),
    ///         Err(error) => {
    ///             eprintln!("{error}");
    ///             if let (Some(partition), Some(offsets)) = (error.topic_partition(), error.unreadable()) {
    ///                 consumer.seek(partition, offsets.end)?;
    ///             }
    ///         }
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn unreadable(&self) -> Option<Range<i64>> {
        self.0.unreadable.clone()
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        self.0.class == Class::Retriable
    }

    /// Whether the producer, consumer or client cannot go on.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.0.class == Class::Fatal
    }

    /// Whether a deadline passed: of the call, or of the record.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.0.kind == ErrorKind::Timeout
    }

    /// Whether the credentials were refused, or what they allow does not suffice.
    #[must_use]
    pub fn is_auth(&self) -> bool {
        let kind = self.0.kind;
        matches!(kind, ErrorKind::Authentication | ErrorKind::Authorization)
    }

    /// Whether a record that failed may be in the log all the same. False for what is no error of a
    /// record, and where it certainly is not there: see [`certainty`](Self::certainty).
    #[must_use]
    pub fn is_maybe_written(&self) -> bool {
        self.0.certainty == Some(Certainty::MaybeWritten)
    }

    /// Whether a call that does not wait found the producer's buffer full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.kind == ErrorKind::BufferFull
    }

    /// For writes: whether the record may be in the log all the same.
    #[must_use]
    pub fn certainty(&self) -> Option<Certainty> {
        self.0.certainty
    }

    /// The broker's error code, where a broker reported one.
    #[must_use]
    pub fn code(&self) -> Option<BrokerCode> {
        self.0.code
    }

    /// The partition concerned, where there is one.
    #[must_use]
    pub fn topic_partition(&self) -> Option<&TopicPartition> {
        self.0.topic_partition.as_ref()
    }
}

impl ErrorKind {
    fn usual_class(self) -> Class {
        match self {
            Self::Connection
            | Self::Timeout
            | Self::NotLeader
            | Self::Coordinator
            | Self::NotEnoughReplicas
            | Self::BufferFull
            | Self::UnknownTopic
            | Self::UnknownPartition
            | Self::Group
            | Self::Broker => Class::Retriable,
            Self::Closed | Self::Fenced | Self::Fatal | Self::Sequence => Class::Fatal,
            Self::Transaction => Class::Abortable,
            Self::Config
            | Self::InvalidArgument
            | Self::Protocol
            | Self::UnsupportedVersion
            | Self::Authentication
            | Self::Authorization
            | Self::InvalidTopic
            | Self::RecordTooLarge
            | Self::InvalidRecord
            | Self::CorruptRecord
            | Self::Offset
            | Self::Policy
            | Self::Purged
            | Self::AlreadyExists => Class::Caller,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tp) = &self.0.topic_partition {
            write!(f, "{tp}: ")?;
        }
        f.write_str(&self.0.message)?;
        let outcome = match self.0.certainty {
            Some(Certainty::MaybeWritten) => " (may have been written)",
            Some(Certainty::NotSent) => " (not written)",
            None => return Ok(()),
        };
        // The message may end with another error's that says so already.
        match self.0.message.ends_with(outcome) {
            true => Ok(()),
            false => f.write_str(outcome),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return write!(f, "{self} [{:?}, {:?}]", self.0.kind, self.0.class);
        }
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("class", &self.0.class)
            .field("certainty", &self.0.certainty)
            .field("code", &self.0.code)
            .field("topic_partition", &self.0.topic_partition)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_and_answers_what_callers_ask() {
        let error = Error::new(ErrorKind::Timeout, "no answer")
            .with_certainty(Certainty::MaybeWritten)
            .with_topic_partition(TopicPartition::new("orders", 1));
        let line = "orders-1: no answer (may have been written)";
        assert_eq!(error.to_string(), line);
        // What a `main` that returns it prints behind "Error: ".
        assert_eq!(format!("{error:?}"), format!("{line} [Timeout, Retriable]"));
        assert!(format!("{error:#?}").contains("certainty: Some("));
        assert!(error.is_timeout() && error.is_retriable() && error.is_maybe_written());
        assert!(!error.is_auth() && !error.is_fatal() && !error.is_full());

        let error = Error::new(ErrorKind::Authorization, "no").with_certainty(Certainty::NotSent);
        assert!(error.is_auth() && !error.is_maybe_written() && !error.is_timeout());
    }
}
