//! What an error is about, whose move it is, and what may have happened.

/// What an [`Error`](crate::Error) is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is unknown, has a bad value, or contradicts another.
    Config,
    /// An argument of the call cannot be right whatever the cluster says.
    InvalidArgument,
    /// The producer, consumer or client was closed.
    Closed,
    /// A connection could not be made, or ended while an answer was awaited.
    Connection,
    /// The operation's deadline passed.
    Timeout,
    /// The peer does not speak Kafka's protocol, or its bytes are damaged.
    Protocol,
    /// The broker does not offer a version of the request that this client speaks.
    UnsupportedVersion,
    /// The broker did not accept the credentials.
    Authentication,
    /// The principal may not do this.
    Authorization,
    /// The topic does not exist (and was not made automatically), or was deleted.
    UnknownTopic,
    /// The topic exists and has no partition of that number.
    UnknownPartition,
    /// The topic's name is not allowed.
    InvalidTopic,
    /// The partition has no leader at present, or it moved.
    NotLeader,
    /// The group or transaction coordinator is moving, loading or unknown.
    Coordinator,
    /// The record or batch is larger than a limit of the client, topic or broker.
    RecordTooLarge,
    /// The broker or the client refuses the record as malformed.
    InvalidRecord,
    /// Fetched bytes are damaged: bad checksum, impossible length, undecodable compression.
    CorruptRecord,
    /// The producer's buffer is full (only from calls that do not wait).
    BufferFull,
    /// The application dropped the record before it was acknowledged
    /// ([`Producer::purge`](crate::Producer::purge)), or gave it up with its transaction.
    Purged,
    /// Fewer in-sync replicas than `min.insync.replicas`.
    NotEnoughReplicas,
    /// A sequence number was refused: the log and the producer disagree.
    Sequence,
    /// A newer producer, member or leader has taken this one's place.
    Fenced,
    /// A transaction is in a state that does not allow this.
    Transaction,
    /// The group changed, or this member is no longer part of it.
    Group,
    /// No position: the offset is outside the log, or none is committed and the reset policy is
    /// `none`.
    Offset,
    /// A quota or policy of the cluster refuses this.
    Policy,
    /// The thing to be made exists already.
    AlreadyExists,
    /// Any other error that a broker reported; see [`Error::code`](crate::Error::code).
    Broker,
    /// The client itself failed (a bug: please report it).
    Fatal,
}

/// Whose move it is after an [`Error`](crate::Error).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// The same call may succeed later. Calls with a deadline have been retried until then; a
    /// consumer goes on by itself when it is polled.
    Retriable,
    /// The transaction must be aborted; then work can go on.
    Abortable,
    /// This producer, consumer or client cannot go on: build a new one.
    Fatal,
    /// Repeating it changes nothing: the call, the record, the configuration, a permission or the
    /// data in the log would have to be another one.
    Caller,
}

/// Whether a write that failed may nevertheless be in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Certainty {
    /// Certainly not written: it never left the client, or the broker refused it.
    NotSent,
    /// It left the client and no answer settled it: it may be in the log.
    MaybeWritten,
}
