//! What the codes in answers about a transaction mean for it: one table, after the handlers of
//! Java's `TransactionManager` (4.3).

use crate::error::{Class, Error, classify};
use crate::wire::codes;

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    FindCoordinator,
    InitProducerId,
    AddPartitions,
    AddOffsets,
    CommitOffsets,
    EndCommit,
    EndAbort,
    Produce,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    /// The same again after a while, perhaps elsewhere.
    Again,
    /// The transaction can only be aborted; then the producer goes on.
    Abort,
    /// Another producer has the transactional id by now.
    Fenced,
    /// The producer cannot go on.
    Fatal,
}

/// The error of a record of a transaction: the transaction has to be aborted, or the producer
/// cannot go on. Sending the record again is of no use in either case.
pub(crate) fn of_transaction(error: Error) -> Error {
    let verdict = error.code().map(|code| verdict(Asked::Produce, code.get()));
    error.with_class(match verdict {
        Some(Verdict::Fenced | Verdict::Fatal) => Class::Fatal,
        _ => Class::Abortable,
    })
}

/// The meaning of a code that answers a request.
pub(crate) fn verdict(asked: Asked, code: i16) -> Verdict {
    use Asked as A;
    match code {
        codes::NONE => return Verdict::Done,
        // An old epoch in a log may also be that of a transaction that timed out; who tells for
        // sure is the coordinator, when the transaction is aborted.
        codes::INVALID_PRODUCER_EPOCH if asked == A::Produce => return Verdict::Abort,
        codes::INVALID_PRODUCER_EPOCH | codes::PRODUCER_FENCED => return Verdict::Fenced,
        _ if asked != A::Produce && classify::classify(code).is_retriable() => {
            return Verdict::Again;
        }
        codes::TRANSACTION_ABORTABLE if asked == A::EndAbort => return Verdict::Fatal,
        codes::TRANSACTION_ABORTABLE => return Verdict::Abort,
        codes::TRANSACTIONAL_ID_AUTHORIZATION_FAILED | codes::CLUSTER_AUTHORIZATION_FAILED
            if asked == A::InitProducerId =>
        {
            return Verdict::Abort;
        }
        codes::TRANSACTIONAL_ID_AUTHORIZATION_FAILED | codes::INVALID_PRODUCER_ID_MAPPING => {
            return Verdict::Fatal;
        }
        _ => {}
    }
    let passes = match asked {
        A::Produce => {
            return match code {
                codes::CLUSTER_AUTHORIZATION_FAILED | codes::UNSUPPORTED_VERSION => Verdict::Fatal,
                _ => Verdict::Abort,
            };
        }
        // Whatever it is, other partitions may do.
        A::AddPartitions => code != codes::INVALID_TXN_STATE,
        A::FindCoordinator | A::AddOffsets => matches!(
            code,
            codes::GROUP_AUTHORIZATION_FAILED | codes::UNKNOWN_PRODUCER_ID
        ),
        // The offsets are not this member's to commit any more. Java does not know the codes of
        // epochs here and gives the producer up.
        A::CommitOffsets => matches!(
            code,
            codes::GROUP_AUTHORIZATION_FAILED
                | codes::FENCED_INSTANCE_ID
                | codes::UNKNOWN_MEMBER_ID
                | codes::ILLEGAL_GENERATION
                | codes::STALE_MEMBER_EPOCH
                | codes::FENCED_MEMBER_EPOCH
                | codes::REBALANCE_IN_PROGRESS
                | codes::TOPIC_AUTHORIZATION_FAILED
                | codes::OFFSET_METADATA_TOO_LARGE
                | codes::UNKNOWN_PRODUCER_ID
        ),
        A::EndCommit | A::EndAbort => code == codes::UNKNOWN_PRODUCER_ID,
        A::InitProducerId => false,
    };
    match passes {
        true => Verdict::Abort,
        false => Verdict::Fatal,
    }
}

/// Whether a coordinator that answers a commit so has not carried it out, and will not.
///
/// Brokers of the second protocol say INVALID_TXN_STATE after `transaction.timeout.ms`, when the
/// coordinator has aborted by itself.
pub(crate) fn refuses_commit(verdict: Verdict, code: Option<i16>) -> bool {
    let refuses = |code| {
        matches!(
            code,
            codes::INVALID_TXN_STATE
                | codes::INVALID_PRODUCER_ID_MAPPING
                | codes::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        )
    };
    verdict == Verdict::Fenced || code.is_some_and(refuses)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every code for every request: what Java 4.3 makes of it, read off its handlers.
    #[test]
    fn codes_mean_what_they_mean_to_java() {
        use Asked as A;
        use Verdict as V;
        let all = [
            A::FindCoordinator,
            A::InitProducerId,
            A::AddPartitions,
            A::AddOffsets,
            A::CommitOffsets,
            A::EndCommit,
            A::EndAbort,
        ];
        // COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS,
        // CONCURRENT_TRANSACTIONS, REQUEST_TIMED_OUT, UNKNOWN_TOPIC_OR_PARTITION
        for code in [15, 16, 14, 51, 7, 3] {
            for asked in all {
                assert_eq!(verdict(asked, code), V::Again, "{asked:?} {code}");
            }
        }
        let rows: &[(i16, [V; 7])] = {
            const D: V = V::Fatal;
            const B: V = V::Abort;
            const F: V = V::Fenced;
            &[
                // INVALID_PRODUCER_EPOCH, PRODUCER_FENCED
                (47, [F; 7]),
                (90, [F; 7]),
                // INVALID_TXN_STATE, INVALID_PRODUCER_ID_MAPPING
                (48, [D; 7]),
                (49, [D; 7]),
                // TRANSACTIONAL_ID_AUTHORIZATION_FAILED
                (53, [D, B, D, D, D, D, D]),
                // UNKNOWN_PRODUCER_ID
                (59, [B, D, B, B, B, B, B]),
                // TRANSACTION_ABORTABLE
                (120, [B, B, B, B, B, B, D]),
                // GROUP_AUTHORIZATION_FAILED
                (30, [B, D, B, B, B, D, D]),
                // UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION, FENCED_INSTANCE_ID
                (25, [D, D, B, D, B, D, D]),
                (22, [D, D, B, D, B, D, D]),
                (82, [D, D, B, D, B, D, D]),
                // OPERATION_NOT_ATTEMPTED, TOPIC_AUTHORIZATION_FAILED
                (55, [D, D, B, D, D, D, D]),
                (29, [D, D, B, D, B, D, D]),
                // UNSUPPORTED_VERSION, and a code of the future
                (35, [D, D, B, D, D, D, D]),
                (9999, [D, D, B, D, D, D, D]),
            ]
        };
        for (code, expected) in rows {
            for (asked, expected) in all.into_iter().zip(expected) {
                assert_eq!(verdict(asked, *code), *expected, "{asked:?} {code}");
            }
        }
        for (code, expected) in [
            (0, V::Done),
            // TOPIC_AUTHORIZATION_FAILED, MESSAGE_TOO_LARGE, OUT_OF_ORDER_SEQUENCE_NUMBER,
            // INVALID_PRODUCER_EPOCH, INVALID_TXN_STATE, REQUEST_TIMED_OUT (no time left)
            (29, V::Abort),
            (10, V::Abort),
            (45, V::Abort),
            (47, V::Abort),
            (48, V::Abort),
            (7, V::Abort),
            (120, V::Abort),
            // PRODUCER_FENCED, TRANSACTIONAL_ID_AUTHORIZATION_FAILED, INVALID_PRODUCER_ID_MAPPING,
            // CLUSTER_AUTHORIZATION_FAILED, UNSUPPORTED_VERSION
            (90, V::Fenced),
            (53, V::Fatal),
            (49, V::Fatal),
            (31, V::Fatal),
            (35, V::Fatal),
        ] {
            assert_eq!(verdict(Asked::Produce, code), expected, "{code}");
        }
    }
}
