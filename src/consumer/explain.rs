//! Why no records of a partition come.

use std::fmt;
use std::time::Duration;

use super::positions::FetchState;
use super::shared::Shared;
use crate::clock::now;
use crate::config::consumer::IsolationLevel;
use crate::error::Error;
use crate::types::{BrokerId, TopicPartition};

/// Why no records of a partition come at this moment; its text says what to do about it. See
/// [`Consumer::explain`](super::ConsumerHandle::explain).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Explanation {
    /// The consumer or its client was closed.
    Closed,
    /// The consumer cannot go on; every poll returns this error.
    Failed(Error),
    /// The partition is not assigned to this consumer.
    NotAssigned,
    /// The partition is about to be given up, which waits for the application.
    Revoking,
    /// The application paused it.
    Paused,
    /// There is no position, and `auto.offset.reset` is `none`.
    NoPosition,
    /// The group's committed offset is being looked up.
    AwaitingCommitted {
        /// Why the last attempt failed, if there was one.
        error: Option<Error>,
    },
    /// Where to start (`auto.offset.reset`, or a seek to an end) is being looked up.
    AwaitingReset {
        /// Why the last attempt failed, if there was one.
        error: Option<Error>,
    },
    /// Records are here: the application has to poll.
    Ready {
        /// How many bytes of them.
        bytes: usize,
    },
    /// Records are here for the partition's stream (see
    /// [`split_by_partition`](super::Consumer::split_by_partition)): its task has to ask for more.
    ReadyForStream {
        /// How many bytes of them.
        bytes: usize,
        /// Which attempt it is; see [`PartitionStream::attempt`](super::PartitionStream::attempt).
        attempt: u32,
    },
    /// The partition's stream was dropped before it had ended, as when its task failed; another one
    /// is offered after a pause.
    StreamDropped {
        /// The offset that the next stream begins with.
        offset: i64,
        /// How many streams were dropped so.
        attempt: u32,
        /// What is left of the pause.
        left: Duration,
    },
    /// The partition waits for its stream to be taken from the
    /// [`PartitionStreams`](super::PartitionStreams).
    StreamOffered,
    /// Metadata names no leader: the topic does not exist (any more), or its replicas are down.
    NoLeader,
    /// The last answer for the partition was an error; it is asked again after a pause.
    BackingOff {
        /// The error.
        error: Option<Error>,
        /// What is left of the pause.
        left: Duration,
    },
    /// The last fetch from the partition's broker failed altogether; it is tried again.
    BrokerFails {
        /// The broker.
        broker: BrokerId,
        /// Why.
        error: Error,
    },
    /// The broker asked to be left alone (a quota).
    Throttled {
        /// The broker.
        broker: BrokerId,
        /// How much longer.
        left: Duration,
    },
    /// So much of other partitions waits for the application that nothing more is fetched.
    BufferFull {
        /// Bytes that wait.
        buffered: usize,
        /// Bytes that may (`fetch.max.bytes`).
        limit: usize,
    },
    /// Everything up to the end of the log was handed out.
    CaughtUp {
        /// The end.
        end: i64,
    },
    /// Everything before the oldest open transaction was handed out, and `read_committed` sees no
    /// further.
    OpenTransaction {
        /// Where that transaction starts (the last stable offset).
        last_stable: i64,
        /// The end of the log.
        high_watermark: i64,
        /// For how long this consumer has known it to stand there.
        held: Duration,
    },
    /// A fetch is under way, or about to be.
    Fetching {
        /// The broker that is asked.
        broker: BrokerId,
        /// The next offset.
        offset: i64,
    },
}

impl Shared {
    pub(super) fn explain(&self, tp: &TopicPartition) -> Explanation {
        let time = now();
        let inner = self.lock();
        if let Some(error) = inner.fatal.clone().or_else(|| self.tasks.failure()) {
            return Explanation::Failed(error);
        }
        if self.tasks.is_stopping() || inner.closing.is_some() {
            return Explanation::Closed;
        }
        let Some(at) = inner.positions.standing(tp) else {
            return Explanation::NotAssigned;
        };
        if at.revoking {
            return Explanation::Revoking;
        }
        if at.paused {
            return Explanation::Paused;
        }
        match at.stage {
            FetchState::NoPosition => return Explanation::NoPosition,
            FetchState::AwaitingCommitted => {
                return Explanation::AwaitingCommitted { error: at.trouble };
            }
            FetchState::AwaitingReset if at.read_from.is_some() => {
                return Explanation::AwaitingReset { error: at.trouble };
            }
            FetchState::AwaitingReset | FetchState::Active => {}
        }
        match inner.split.offers(tp) {
            Some(Some(until)) => {
                return Explanation::StreamDropped {
                    offset: at.position.offset,
                    attempt: at.attempts,
                    left: until.saturating_duration_since(time),
                };
            }
            Some(None) if !at.streamed => return Explanation::StreamOffered,
            _ => {}
        }
        let buffered = inner.buffer.unread(tp);
        if buffered > 0 && at.streamed {
            return Explanation::ReadyForStream {
                bytes: buffered,
                attempt: at.attempts,
            };
        }
        if buffered > 0 {
            return Explanation::Ready { bytes: buffered };
        }
        let Some(broker) = at.read_from else {
            return Explanation::NoLeader;
        };
        if let Some(until) = at.not_before.filter(|until| *until > time) {
            return Explanation::BackingOff {
                error: at.trouble,
                left: until - time,
            };
        }
        if let Some(error) = inner.fetches.trouble(broker) {
            let error = error.clone();
            return Explanation::BrokerFails { broker, error };
        }
        if let Some(until) = inner.fetches.throttled_until(broker)
            && until > time
        {
            let left = until - time;
            return Explanation::Throttled { broker, left };
        }
        let limit = usize::try_from(self.config.fetch_max_bytes).unwrap_or(0);
        let end = match self.config.isolation {
            IsolationLevel::ReadUncommitted => at.high_watermark,
            IsolationLevel::ReadCommitted => at.last_stable,
        };
        let position = at.position.offset;
        if end >= 0 && position >= end {
            return match end < at.high_watermark {
                true => Explanation::OpenTransaction {
                    last_stable: end,
                    high_watermark: at.high_watermark,
                    held: at.held_since.map_or(Duration::ZERO, |since| time - since),
                },
                false => Explanation::CaughtUp { end },
            };
        }
        let buffered = inner.buffer.bytes();
        if at.evicted || buffered >= limit {
            return Explanation::BufferFull { buffered, limit };
        }
        Explanation::Fetching {
            broker,
            offset: position,
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = |f: &mut fmt::Formatter<'_>, error: &Option<Error>| match error {
            Some(error) => write!(f, "; the last attempt failed: {error}"),
            None => Ok(()),
        };
        match self {
            Self::Closed => f.write_str("the consumer is closed"),
            Self::Failed(error) => write!(f, "the consumer cannot go on, make a new one: {error}"),
            Self::NotAssigned => f.write_str(
                "not assigned to this consumer: another member of the group has it, or the group is \
                 still sharing out; keep polling",
            ),
            Self::Revoking => f.write_str(
                "about to be given up: poll again (or finish with the Revoking event) to let go of it",
            ),
            Self::Paused => f.write_str("paused by the application: resume it"),
            Self::NoPosition => f.write_str(
                "no offset to start from, and auto.offset.reset is none: seek to where to start",
            ),
            Self::AwaitingCommitted { error } => {
                f.write_str("looking up the group's committed offset")?;
                after(f, error)
            }
            Self::AwaitingReset { error } => {
                f.write_str("looking up where to start")?;
                after(f, error)
            }
            Self::Ready { bytes } => {
                write!(f, "{bytes} bytes of records are here: poll for them")
            }
            Self::ReadyForStream { bytes, attempt } => write!(
                f,
                "{bytes} bytes of records are here for the partition's stream (attempt \
                 {attempt}): its task is busy with what it has, or does not ask for more"
            ),
            Self::StreamDropped {
                offset,
                attempt,
                left,
            } => write!(
                f,
                "its stream was dropped before it had ended (attempt {attempt}; its task failed \
                 or gave up): offered again from offset {offset} on in {left:?}, to whoever asks \
                 for the next partition"
            ),
            Self::StreamOffered => {
                f.write_str("its stream waits to be taken: ask for the next of the partition streams")
            }
            Self::NoLeader => f.write_str(
                "no broker leads the partition: the topic may not exist (any more), or the brokers \
                 that have it are down",
            ),
            Self::BackingOff { error, left } => {
                write!(f, "the broker refused it, asked again in {left:?}")?;
                after(f, error)
            }
            Self::BrokerFails { broker, error } => {
                write!(f, "broker {broker} cannot be read from, tried again: {error}")
            }
            Self::Throttled { broker, left } => write!(
                f,
                "broker {broker} throttles this client for another {left:?}: its quota is used up"
            ),
            Self::BufferFull { buffered, limit } => write!(
                f,
                "{buffered} bytes of other partitions wait for the application, {limit} may \
                 (fetch.max.bytes): poll faster"
            ),
            Self::CaughtUp { end } => write!(
                f,
                "caught up: nothing was written after offset {end} (the end of the log)"
            ),
            Self::OpenTransaction {
                last_stable,
                high_watermark,
                held,
            } => write!(
                f,
                "a transaction is open at offset {last_stable} and has held back the records up \
                 to {high_watermark} for {held:?} (read_committed): its producer or its time-out \
                 (transaction.timeout.ms) ends it; if neither does it hangs, look at it with \
                 Admin::describe_producers, and end it with Admin::find_hanging_transactions and \
                 abort_transaction (or kafka-transactions.sh)"
            ),
            Self::Fetching { broker, offset } => {
                write!(f, "being fetched from broker {broker} at offset {offset}")
            }
        }
    }
}
