//! What a partition's error code in a Produce answer means for the batch.

use crate::config::producer::Acks;
use crate::error::Certainty;
use crate::error::classify::{classify, write_certainty};
use crate::producer::queue::Answer;

/// The meaning of a code for the line of batches.
pub(crate) fn classify_produce_error(code: i16, acks: Acks) -> Answer {
    match code {
        NONE | DUPLICATE_SEQUENCE_NUMBER => Answer::Written,
        NOT_LEADER_OR_FOLLOWER if crate::planted("acked-by-a-deposed-leader") => Answer::Written,
        OUT_OF_ORDER_SEQUENCE_NUMBER | UNKNOWN_PRODUCER_ID => Answer::OutOfSequence,
        INVALID_PRODUCER_EPOCH | PRODUCER_FENCED => Answer::StaleEpoch,
        MESSAGE_TOO_LARGE | RECORD_LIST_TOO_LARGE => Answer::TooLarge,
        _ if classify(code).is_retriable() => Answer::Again(certainty(code, acks)),
        _ if REFUSALS.contains(&code) => Answer::Refused(certainty(code, acks)),
        // No broker known today says so to a batch, and nobody knows what became of it. Its
        // sequence must not be used again: a broker that has the batch would take the next one for
        // it.
        _ => Answer::Refused(Certainty::MaybeWritten),
    }
}

/// Codes by which brokers refuse a batch for good, without having appended it.
const REFUSALS: [i16; 14] = [
    17, // INVALID_TOPIC_EXCEPTION
    21, // INVALID_REQUIRED_ACKS
    29, // TOPIC_AUTHORIZATION_FAILED
    CLUSTER_AUTHORIZATION_FAILED,
    32, // INVALID_TIMESTAMP
    35, // UNSUPPORTED_VERSION
    42, // INVALID_REQUEST
    43, // UNSUPPORTED_FOR_MESSAGE_FORMAT
    44, // POLICY_VIOLATION
    48, // INVALID_TXN_STATE
    49, // INVALID_PRODUCER_ID_MAPPING
    53, // TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    76, // UNSUPPORTED_COMPRESSION_TYPE
    87, // INVALID_RECORD
];

/// Whether no batch of an idempotent producer will ever be accepted after this.
pub(crate) fn is_fatal(code: i16, idempotent: bool) -> bool {
    idempotent && code == CLUSTER_AUTHORIZATION_FAILED
}

fn certainty(code: i16, acks: Acks) -> Certainty {
    match code {
        // A leader that is deposed while it waits for replicas answers so as well, with the batch
        // in its log.
        UNKNOWN_TOPIC_OR_PARTITION
        | NOT_LEADER_OR_FOLLOWER
        | UNKNOWN_TOPIC_ID
        | INCONSISTENT_TOPIC_ID
            if acks == Acks::All =>
        {
            Certainty::MaybeWritten
        }
        code => write_certainty(code),
    }
}

const NONE: i16 = 0;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const NOT_LEADER_OR_FOLLOWER: i16 = 6;
const MESSAGE_TOO_LARGE: i16 = 10;
const RECORD_LIST_TOO_LARGE: i16 = 18;
const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const UNKNOWN_PRODUCER_ID: i16 = 59;
const PRODUCER_FENCED: i16 = 90;
const UNKNOWN_TOPIC_ID: i16 = 100;
const INCONSISTENT_TOPIC_ID: i16 = 103;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_brokers_mean_by_them() {
        let again = |code, acks| match classify_produce_error(code, acks) {
            Answer::Again(certainty) => certainty,
            other => panic!("{code}: {other:?}"),
        };
        assert_eq!(classify_produce_error(0, Acks::All), Answer::Written);
        assert_eq!(classify_produce_error(46, Acks::All), Answer::Written);
        assert_eq!(classify_produce_error(45, Acks::All), Answer::OutOfSequence);
        assert_eq!(again(6, Acks::All), Certainty::MaybeWritten);
        assert_eq!(again(6, Acks::Leader), Certainty::NotSent);
        // UNKNOWN_TOPIC_ID
        assert_eq!(again(100, Acks::All), Certainty::MaybeWritten);
        // REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS_AFTER_APPEND
        assert_eq!(again(7, Acks::All), Certainty::MaybeWritten);
        assert_eq!(again(19, Acks::All), Certainty::NotSent);
        assert_eq!(again(20, Acks::All), Certainty::MaybeWritten);
        // TOPIC_AUTHORIZATION_FAILED
        let refused = Answer::Refused(Certainty::NotSent);
        assert_eq!(classify_produce_error(29, Acks::All), refused);
        // OFFSET_OUT_OF_RANGE, which has nothing to do with batches, and a code of the future.
        let unknown = Answer::Refused(Certainty::MaybeWritten);
        assert_eq!(classify_produce_error(1, Acks::All), unknown);
        assert_eq!(classify_produce_error(9999, Acks::All), unknown);
        // UNKNOWN_SERVER_ERROR
        assert_eq!(classify_produce_error(-1, Acks::All), unknown);
    }
}
