//! The wire codes that steer the consumer's machines, by Kafka's names.
//!
//! Their meaning to users is in `error/classify.rs`; here are only those that change a state.

pub(super) const NONE: i16 = 0;
pub(super) const UNKNOWN_SERVER_ERROR: i16 = -1;
pub(super) const OFFSET_OUT_OF_RANGE: i16 = 1;
/// What this client puts where an answer cannot be right.
pub(super) const CORRUPT_MESSAGE: i16 = 2;
pub(super) const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
pub(super) const LEADER_NOT_AVAILABLE: i16 = 5;
pub(super) const NOT_LEADER_OR_FOLLOWER: i16 = 6;
pub(super) const REQUEST_TIMED_OUT: i16 = 7;
pub(super) const REPLICA_NOT_AVAILABLE: i16 = 9;
pub(super) const NETWORK_EXCEPTION: i16 = 13;
pub(super) const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
pub(super) const COORDINATOR_NOT_AVAILABLE: i16 = 15;
pub(super) const NOT_COORDINATOR: i16 = 16;
pub(super) const UNKNOWN_MEMBER_ID: i16 = 25;
pub(super) const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
pub(super) const KAFKA_STORAGE_ERROR: i16 = 56;
pub(super) const GROUP_ID_NOT_FOUND: i16 = 69;
pub(super) const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
pub(super) const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
pub(super) const FENCED_LEADER_EPOCH: i16 = 74;
pub(super) const UNKNOWN_LEADER_EPOCH: i16 = 75;
pub(super) const OFFSET_NOT_AVAILABLE: i16 = 78;
pub(super) const UNSTABLE_OFFSET_COMMIT: i16 = 88;
pub(super) const UNKNOWN_TOPIC_ID: i16 = 100;
pub(super) const INCONSISTENT_TOPIC_ID: i16 = 103;
pub(super) const FETCH_SESSION_TOPIC_ID_ERROR: i16 = 106;
pub(super) const FENCED_MEMBER_EPOCH: i16 = 110;
pub(super) const STALE_MEMBER_EPOCH: i16 = 113;
pub(super) const INVALID_REGULAR_EXPRESSION: i16 = 128;
