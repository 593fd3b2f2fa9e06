//! The one table from a wire code to its meaning; nothing else in the crate interprets a code.
//!
//! The class in the table is the one that holds where nothing more is known. A machine that knows
//! more (an idempotent producer that can bump its epoch, a group member that can rejoin) acts on
//! the code itself and shows the user what is left.

use std::fmt;

use super::kind::{Certainty, Class, ErrorKind};

/// What a wire code means and what the client must refresh because of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meaning {
    pub(crate) kind: ErrorKind,
    pub(crate) class: Class,
    pub(crate) refresh: Refresh,
    /// What it means for the user, and what to do; no full stop.
    pub(crate) advice: &'static str,
}

impl Meaning {
    /// Whether the same request may succeed later.
    pub(crate) fn is_retriable(&self) -> bool {
        self.class == Class::Retriable
    }
}

/// Which cached knowledge an error disproves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refresh {
    Nothing,
    Metadata,
    Coordinator,
    Rebootstrap,
}

/// An error code as a broker reports it.
///
/// It shows Kafka's name and the number: `NOT_LEADER_OR_FOLLOWER (6)`.
///
/// ```
/// # fn log(error: &ottla::Error) {
/// if let Some(code) = error.code() {
///     eprintln!("the broker said {} ({})", code.name(), code.get());
/// }
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BrokerCode(i16);

impl BrokerCode {
    pub(crate) fn new(code: i16) -> Self {
        Self(code)
    }

    /// The number on the wire.
    #[must_use]
    pub fn get(self) -> i16 {
        self.0
    }

    /// The constant's name in Kafka's `Errors`, such as `NOT_LEADER_OR_FOLLOWER`; `UNKNOWN_CODE`
    /// for a number that this version of the client does not know.
    #[must_use]
    pub fn name(self) -> &'static str {
        row(self.0).map_or("UNKNOWN_CODE", |row| row.name)
    }
}

impl fmt::Display for BrokerCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match row(self.0) {
            Some(row) => write!(f, "{} ({})", row.name, self.0),
            None => write!(f, "unknown error code {}", self.0),
        }
    }
}

impl fmt::Debug for BrokerCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The meaning of a code.
///
/// A code that this client does not know is not retried, as in Java, where it becomes
/// `UNKNOWN_SERVER_ERROR`: the broker is newer than the client and has answered, so that repeating
/// the same request would most likely spend the whole deadline on the same answer. Nor does it say
/// that the client cannot go on. `Caller` is the class that claims neither.
pub(crate) fn classify(code: i16) -> Meaning {
    row(code).map_or(
        Meaning {
            kind: ErrorKind::Broker,
            class: Class::Caller,
            refresh: Refresh::Nothing,
            advice: "this client does not know the code; the broker's log may say more, a newer client may know it",
        },
        |row| row.meaning,
    )
}

/// Whether a write that the broker answered with this code may be in the log all the same.
///
/// The leader appends before it waits for replicas, so a time-out and a shortage of replicas after
/// the append leave the record there; and a failure that the broker itself did not foresee, or that
/// this client does not know, may have struck at any moment.
pub(crate) fn write_certainty(code: i16) -> Certainty {
    const UNKNOWN_SERVER_ERROR: i16 = -1;
    const REQUEST_TIMED_OUT: i16 = 7;
    const NETWORK_EXCEPTION: i16 = 13;
    const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
    const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
    const KAFKA_STORAGE_ERROR: i16 = 56;
    match code {
        UNKNOWN_SERVER_ERROR
        | REQUEST_TIMED_OUT
        | NETWORK_EXCEPTION
        | NOT_ENOUGH_REPLICAS_AFTER_APPEND
        | DUPLICATE_SEQUENCE_NUMBER
        | KAFKA_STORAGE_ERROR => Certainty::MaybeWritten,
        code if row(code).is_none() => Certainty::MaybeWritten,
        _ => Certainty::NotSent,
    }
}

#[derive(Debug)]
struct Row {
    code: i16,
    name: &'static str,
    meaning: Meaning,
}

/// Codes have no gaps, so that a row is found by its place.
fn row(code: i16) -> Option<&'static Row> {
    TABLE.get(usize::try_from(i32::from(code) - i32::from(TABLE[0].code)).ok()?)
}

macro_rules! table {
    ($($code:literal $name:ident $kind:ident $class:ident $refresh:ident $advice:literal;)*) => {
        static TABLE: &[Row] = &[$(Row {
            code: $code,
            name: stringify!($name),
            meaning: Meaning {
                kind: ErrorKind::$kind,
                class: Class::$class,
                refresh: Refresh::$refresh,
                advice: $advice,
            },
        },)*];
    };
}

// Code, name, kind, class, what to refresh, advice.
table! {
    -1 UNKNOWN_SERVER_ERROR Broker Caller Nothing "the broker failed in a way it did not foresee; its log says more";
    0 NONE Broker Caller Nothing "no error";
    1 OFFSET_OUT_OF_RANGE Offset Caller Nothing "the log no longer has, or does not yet have, this offset; seek, or set auto.offset.reset";
    2 CORRUPT_MESSAGE CorruptRecord Retriable Nothing "the bytes that arrived fail their checksum or break a rule of the topic (such as a record without key in a compacted topic)";
    3 UNKNOWN_TOPIC_OR_PARTITION UnknownTopic Retriable Metadata "the broker does not have this topic or partition; create it, or check the name";
    4 INVALID_FETCH_SIZE InvalidArgument Caller Nothing "the size to fetch is not allowed; check fetch.max.bytes and max.partition.fetch.bytes";
    5 LEADER_NOT_AVAILABLE NotLeader Retriable Metadata "the partition has no leader at present";
    6 NOT_LEADER_OR_FOLLOWER NotLeader Retriable Metadata "the partition's leader moved to another broker";
    7 REQUEST_TIMED_OUT Timeout Retriable Nothing "the broker could not finish in the time it was given; the effect may still come";
    8 BROKER_NOT_AVAILABLE Broker Caller Nothing "the broker that was asked for is not available";
    9 REPLICA_NOT_AVAILABLE NotLeader Retriable Metadata "the broker does not have the replica that was asked for";
    10 MESSAGE_TOO_LARGE RecordTooLarge Caller Nothing "larger than the topic's max.message.bytes; make the record smaller or raise the limit";
    11 STALE_CONTROLLER_EPOCH Broker Caller Nothing "the controller moved to another broker";
    12 OFFSET_METADATA_TOO_LARGE InvalidArgument Caller Nothing "the note beside the offset is longer than the broker's offset.metadata.max.bytes";
    13 NETWORK_EXCEPTION Connection Retriable Metadata "the connection ended before an answer came";
    14 COORDINATOR_LOAD_IN_PROGRESS Coordinator Retriable Nothing "the coordinator is still reading its log";
    15 COORDINATOR_NOT_AVAILABLE Coordinator Retriable Coordinator "no coordinator is available; on a new cluster its internal topic is just being made";
    16 NOT_COORDINATOR Coordinator Retriable Coordinator "the coordinator moved to another broker";
    17 INVALID_TOPIC_EXCEPTION InvalidTopic Caller Nothing "the topic's name is not allowed (1 to 249 of a-z A-Z 0-9 . _ -), or the topic is internal";
    18 RECORD_LIST_TOO_LARGE RecordTooLarge Caller Nothing "the batch is larger than a segment of the topic (segment.bytes); use a smaller batch.size";
    19 NOT_ENOUGH_REPLICAS NotEnoughReplicas Retriable Nothing "fewer replicas are in sync than the topic's min.insync.replicas; nothing was written";
    20 NOT_ENOUGH_REPLICAS_AFTER_APPEND NotEnoughReplicas Retriable Nothing "written by the leader, but fewer replicas are in sync than min.insync.replicas";
    21 INVALID_REQUIRED_ACKS Config Caller Nothing "acks must be 0, 1 or all";
    22 ILLEGAL_GENERATION Group Caller Nothing "the group has moved on to another generation without this member";
    23 INCONSISTENT_GROUP_PROTOCOL Group Caller Nothing "the group's members have no assignment strategy in common, or use another group protocol";
    24 INVALID_GROUP_ID Config Caller Nothing "the group id is empty or not allowed; check group.id";
    25 UNKNOWN_MEMBER_ID Group Caller Nothing "the group does not know this member (any more): it was too slow to poll or out of touch";
    26 INVALID_SESSION_TIMEOUT Config Caller Nothing "the session time-out is outside the broker's group.min.session.timeout.ms and group.max.session.timeout.ms";
    27 REBALANCE_IN_PROGRESS Group Caller Nothing "the group is being rebalanced; poll, then commit what is still owned";
    28 INVALID_COMMIT_OFFSET_SIZE InvalidArgument Caller Nothing "the commit is too large for one record of the offsets topic; shorten the notes beside the offsets";
    29 TOPIC_AUTHORIZATION_FAILED Authorization Caller Nothing "this principal may not do that with this topic; ask for the ACL";
    30 GROUP_AUTHORIZATION_FAILED Authorization Caller Nothing "this principal may not use this group; ask for the ACL";
    31 CLUSTER_AUTHORIZATION_FAILED Authorization Caller Nothing "this principal may not do that with the cluster; ask for the ACL";
    32 INVALID_TIMESTAMP InvalidRecord Caller Nothing "the record's time is too far from the broker's (message.timestamp.before.max.ms and after.max.ms)";
    33 UNSUPPORTED_SASL_MECHANISM Authentication Caller Nothing "the broker does not offer this sasl.mechanism on this listener";
    34 ILLEGAL_SASL_STATE Authentication Caller Nothing "the listener's security protocol is another than the client's; check security.protocol and the port";
    35 UNSUPPORTED_VERSION UnsupportedVersion Caller Nothing "the broker does not support this request or this use of it";
    36 TOPIC_ALREADY_EXISTS AlreadyExists Caller Nothing "a topic of this name exists";
    37 INVALID_PARTITIONS InvalidArgument Caller Nothing "the number of partitions must be at least 1, and cannot shrink";
    38 INVALID_REPLICATION_FACTOR InvalidArgument Caller Nothing "the replication factor must be at least 1 and at most the number of live brokers";
    39 INVALID_REPLICA_ASSIGNMENT InvalidArgument Caller Nothing "the given replicas name an unknown broker, repeat one, or leave a gap in the partitions";
    40 INVALID_CONFIG InvalidArgument Caller Nothing "a configuration of the topic, broker or group has an unknown name or a bad value";
    41 NOT_CONTROLLER Broker Retriable Metadata "the controller moved to another broker";
    42 INVALID_REQUEST Protocol Caller Nothing "the broker finds the request malformed or contradictory; its log says why";
    43 UNSUPPORTED_FOR_MESSAGE_FORMAT UnsupportedVersion Caller Nothing "the topic's old message format does not support this";
    44 POLICY_VIOLATION Policy Caller Nothing "a policy of the cluster refuses this";
    45 OUT_OF_ORDER_SEQUENCE_NUMBER Sequence Fatal Nothing "a sequence number is missing in the log: an earlier record of this producer was lost";
    46 DUPLICATE_SEQUENCE_NUMBER Sequence Caller Nothing "the log has this sequence number already: the record was written earlier";
    47 INVALID_PRODUCER_EPOCH Fenced Abortable Nothing "the producer's epoch is older than the log's; another producer uses the transactional id, or the transaction timed out";
    48 INVALID_TXN_STATE Transaction Fatal Nothing "the coordinator has the transaction in a state that does not allow this";
    49 INVALID_PRODUCER_ID_MAPPING Transaction Abortable Nothing "the transactional id has lost its producer id: it was unused for transactional.id.expiration.ms";
    50 INVALID_TRANSACTION_TIMEOUT Config Caller Nothing "transaction.timeout.ms is larger than the broker's transaction.max.timeout.ms";
    51 CONCURRENT_TRANSACTIONS Transaction Retriable Nothing "the previous transaction of this id is still being completed";
    52 TRANSACTION_COORDINATOR_FENCED Transaction Caller Nothing "another coordinator has taken over the transactional id";
    53 TRANSACTIONAL_ID_AUTHORIZATION_FAILED Authorization Fatal Nothing "this principal may not use this transactional id; ask for the ACL";
    54 SECURITY_DISABLED Broker Caller Nothing "the cluster runs without an authorizer, so there are no ACLs";
    55 OPERATION_NOT_ATTEMPTED Broker Caller Nothing "not tried, because another part of the same request failed";
    56 KAFKA_STORAGE_ERROR Broker Retriable Metadata "the broker's disk failed; another replica will take over";
    57 LOG_DIR_NOT_FOUND InvalidArgument Caller Nothing "the broker has no such log directory";
    58 SASL_AUTHENTICATION_FAILED Authentication Caller Nothing "the broker did not accept the credentials";
    59 UNKNOWN_PRODUCER_ID Sequence Abortable Nothing "the log has forgotten this producer: all its records were deleted, or it was idle too long";
    60 REASSIGNMENT_IN_PROGRESS Broker Caller Nothing "the partition is being moved; wait for the end of the reassignment or cancel it";
    61 DELEGATION_TOKEN_AUTH_DISABLED Authentication Caller Nothing "the cluster does not use delegation tokens";
    62 DELEGATION_TOKEN_NOT_FOUND Authentication Caller Nothing "the cluster does not know this delegation token";
    63 DELEGATION_TOKEN_OWNER_MISMATCH Authorization Caller Nothing "this principal is neither owner nor renewer of the delegation token";
    64 DELEGATION_TOKEN_REQUEST_NOT_ALLOWED Authentication Caller Nothing "delegation tokens are given only over authenticated connections that do not use such a token themselves";
    65 DELEGATION_TOKEN_AUTHORIZATION_FAILED Authorization Caller Nothing "this principal may not do that with delegation tokens; ask for the ACL";
    66 DELEGATION_TOKEN_EXPIRED Authentication Caller Nothing "the delegation token has expired";
    67 INVALID_PRINCIPAL_TYPE InvalidArgument Caller Nothing "principals of this type are not supported";
    68 NON_EMPTY_GROUP Group Caller Nothing "the group has members; stop them first";
    69 GROUP_ID_NOT_FOUND Group Caller Nothing "there is no group of this id";
    70 FETCH_SESSION_ID_NOT_FOUND Broker Retriable Nothing "the broker has dropped the fetch session; a new one is made";
    71 INVALID_FETCH_SESSION_EPOCH Broker Retriable Nothing "the fetch session is out of step; a new one is made";
    72 LISTENER_NOT_FOUND NotLeader Retriable Metadata "the partition's leader has no listener of the name that this client uses; check the brokers' listeners";
    73 TOPIC_DELETION_DISABLED Policy Caller Nothing "the brokers run with delete.topic.enable=false";
    74 FENCED_LEADER_EPOCH NotLeader Retriable Metadata "the client's knowledge of the partition's leader is out of date";
    75 UNKNOWN_LEADER_EPOCH NotLeader Retriable Nothing "the broker does not yet know that the partition has a newer leader";
    76 UNSUPPORTED_COMPRESSION_TYPE UnsupportedVersion Caller Nothing "the broker and this request's version do not support the compression in use";
    77 STALE_BROKER_EPOCH Broker Caller Nothing "an error between brokers that clients should not see; please report it";
    78 OFFSET_NOT_AVAILABLE Offset Retriable Nothing "the new leader does not know the end of its log yet";
    79 MEMBER_ID_REQUIRED Group Caller Nothing "the coordinator gave a member id and wants the member to join again with it";
    80 PREFERRED_LEADER_NOT_AVAILABLE NotLeader Retriable Metadata "the partition's preferred leader is not available";
    81 GROUP_MAX_SIZE_REACHED Policy Caller Nothing "the group has as many members as the broker's group.max.size allows";
    82 FENCED_INSTANCE_ID Fenced Fatal Nothing "another consumer has joined with the same group.instance.id";
    83 ELIGIBLE_LEADERS_NOT_AVAILABLE NotLeader Retriable Metadata "no replica may become the partition's leader at present";
    84 ELECTION_NOT_NEEDED Broker Caller Metadata "the partition already has the leader that the election was to give it";
    85 NO_REASSIGNMENT_IN_PROGRESS Broker Caller Nothing "the partition is not being moved, so there is nothing to cancel";
    86 GROUP_SUBSCRIBED_TO_TOPIC Group Caller Nothing "the group is subscribed to the topic, so its offsets cannot be deleted; stop its members first";
    87 INVALID_RECORD InvalidRecord Caller Nothing "the broker refuses the record: the topic wants a key, or the batch breaks a rule";
    88 UNSTABLE_OFFSET_COMMIT Transaction Retriable Nothing "offsets committed by a transaction are not settled yet";
    89 THROTTLING_QUOTA_EXCEEDED Policy Retriable Nothing "the quota for changes of topics and partitions is used up for now (controller_mutation_rate)";
    90 PRODUCER_FENCED Fenced Fatal Nothing "a newer producer with the same transactional.id has taken this one's place";
    91 RESOURCE_NOT_FOUND InvalidArgument Caller Nothing "there is no such resource";
    92 DUPLICATE_RESOURCE AlreadyExists Caller Nothing "the resource exists, or is named twice in the request";
    93 UNACCEPTABLE_CREDENTIAL InvalidArgument Caller Nothing "the cluster does not accept this credential (empty name, bad iteration count or salt)";
    94 INCONSISTENT_VOTER_SET Broker Caller Nothing "the controllers do not agree on who may vote";
    95 INVALID_UPDATE_VERSION InvalidArgument Caller Nothing "the feature level is not supported by every broker, or would be a downgrade that is not allowed";
    96 FEATURE_UPDATE_FAILED Broker Caller Nothing "the controller could not update the features; its log says why";
    97 PRINCIPAL_DESERIALIZATION_FAILURE Broker Caller Nothing "the controller cannot read the forwarded principal; check the brokers' principal.builder.class";
    98 SNAPSHOT_NOT_FOUND Broker Caller Nothing "an error between controllers that clients should not see; please report it";
    99 POSITION_OUT_OF_RANGE Broker Caller Nothing "an error between controllers that clients should not see; please report it";
    100 UNKNOWN_TOPIC_ID UnknownTopic Retriable Metadata "the broker does not have a topic of this id: it is new to it, or was deleted";
    101 DUPLICATE_BROKER_REGISTRATION Broker Caller Nothing "an error between brokers that clients should not see; please report it";
    102 BROKER_ID_NOT_REGISTERED InvalidArgument Caller Nothing "the cluster has no broker of this id";
    103 INCONSISTENT_TOPIC_ID UnknownTopic Retriable Metadata "the topic was deleted and made again; the broker's log is of the other one";
    104 INCONSISTENT_CLUSTER_ID Broker Caller Nothing "the broker is part of another cluster";
    105 TRANSACTIONAL_ID_NOT_FOUND Transaction Caller Nothing "the coordinator does not know this transactional id";
    106 FETCH_SESSION_TOPIC_ID_ERROR Broker Retriable Nothing "the fetch session mixes names and ids of topics; a new one is made";
    107 INELIGIBLE_REPLICA Broker Caller Nothing "an error between brokers that clients should not see; please report it";
    108 NEW_LEADER_ELECTED Broker Caller Nothing "an error between brokers that clients should not see; please report it";
    109 OFFSET_MOVED_TO_TIERED_STORAGE Offset Caller Nothing "the offset is only in tiered storage, which this request does not reach";
    110 FENCED_MEMBER_EPOCH Group Caller Nothing "the group has given up this member; its partitions are no longer its own";
    111 UNRELEASED_INSTANCE_ID Group Fatal Nothing "another live consumer uses the same group.instance.id; stop it first";
    112 UNSUPPORTED_ASSIGNOR Config Caller Nothing "the broker does not know the assignor; check group.remote.assignor";
    113 STALE_MEMBER_EPOCH Group Caller Nothing "the group has moved on; the member must first learn its new epoch";
    114 MISMATCHED_ENDPOINT_TYPE InvalidArgument Caller Nothing "a broker was asked what only a controller answers, or the reverse; check the bootstrap addresses";
    115 UNSUPPORTED_ENDPOINT_TYPE InvalidArgument Caller Nothing "the broker does not support endpoints of this type yet";
    116 UNKNOWN_CONTROLLER_ID InvalidArgument Caller Nothing "the cluster has no controller of this id";
    117 UNKNOWN_SUBSCRIPTION_ID Broker Caller Nothing "the subscription to client telemetry is out of date";
    118 TELEMETRY_TOO_LARGE Broker Caller Nothing "the metrics are larger than the broker's telemetry.max.bytes";
    119 INVALID_REGISTRATION Broker Caller Nothing "an error between brokers that clients should not see; please report it";
    120 TRANSACTION_ABORTABLE Transaction Abortable Nothing "the coordinator wants the transaction aborted; abort it and begin again";
    121 INVALID_RECORD_STATE Broker Caller Nothing "the record is no longer this share consumer's to acknowledge";
    122 SHARE_SESSION_NOT_FOUND Broker Retriable Nothing "the broker has dropped the share session; a new one is made";
    123 INVALID_SHARE_SESSION_EPOCH Broker Retriable Nothing "the share session is out of step; a new one is made";
    124 FENCED_STATE_EPOCH Fenced Caller Nothing "the state's epoch is out of date";
    125 INVALID_VOTER_KEY InvalidArgument Caller Nothing "the voter's directory id is not that of the controller";
    126 DUPLICATE_VOTER AlreadyExists Caller Nothing "the controller is one of the voters already";
    127 VOTER_NOT_FOUND InvalidArgument Caller Nothing "the controller is not one of the voters";
    128 INVALID_REGULAR_EXPRESSION InvalidArgument Caller Nothing "the broker cannot read the regular expression (RE2 syntax)";
    129 REBOOTSTRAP_REQUIRED Connection Retriable Rebootstrap "the broker wants the client to start again from bootstrap.servers";
    130 STREAMS_INVALID_TOPOLOGY InvalidArgument Caller Nothing "the group's topology is not valid";
    131 STREAMS_INVALID_TOPOLOGY_EPOCH InvalidArgument Caller Nothing "the topology's epoch is not valid";
    132 STREAMS_TOPOLOGY_FENCED Fenced Fatal Nothing "the group uses a newer topology";
    133 SHARE_SESSION_LIMIT_REACHED Policy Retriable Nothing "the broker has as many share sessions as it allows";
    134 GROUP_DELETION_FAILED Group Caller Nothing "the group could not be deleted";
    135 STREAMS_TOPOLOGY_DESCRIPTION_UPDATE_FAILED Broker Caller Nothing "the broker could not take over the topology's description";
    136 CONTROLLER_ID_NOT_REGISTERED InvalidArgument Caller Nothing "the cluster has no controller of this id";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    /// `code;name;retriable` of `org.apache.kafka.common.protocol.Errors` in kafka-clients 4.4.0,
    /// printed with `Errors.values()` and `exception() instanceof RetriableException`.
    const KAFKA: &str = include_str!("kafka_errors.txt");

    /// Where this client judges otherwise than Java's exception classes, and why.
    const RETRIED_OTHERWISE: &[(i16, bool, &str)] = &[
        (
            84,
            false,
            "the leader is as wanted: asking until the deadline would never change the answer",
        ),
        (
            129,
            true,
            "Java's NetworkClient starts from the bootstrap servers below the level of exceptions",
        ),
    ];

    #[test]
    fn every_code_of_kafka_has_its_name_and_retriability_here() {
        for line in KAFKA.lines() {
            let mut fields = line.split(';');
            let code: i16 = fields.next().unwrap().parse().unwrap();
            let name = fields.next().unwrap();
            let retriable: bool = fields.next().unwrap().parse().unwrap();
            let row = row(code).unwrap_or_else(|| panic!("{name} ({code}) is not in the table"));
            assert_eq!((row.code, row.name), (code, name));
            let expected = RETRIED_OTHERWISE
                .iter()
                .find(|(other, ..)| *other == code)
                .map_or(retriable, |(_, here, why)| {
                    assert_ne!(*here, retriable, "{name} is no exception any more: {why}");
                    *here
                });
            assert_eq!(row.meaning.is_retriable(), expected, "{name}");
        }
        assert_eq!(TABLE.len(), KAFKA.lines().count());
    }

    #[test]
    fn only_what_may_be_repeated_refreshes_where_to_send_it() {
        for row in TABLE {
            let Meaning {
                refresh, advice, ..
            } = row.meaning;
            let election_not_needed = row.code == 84;
            assert!(
                refresh == Refresh::Nothing || row.meaning.is_retriable() || election_not_needed,
                "{}",
                row.name
            );
            assert!(
                !advice.is_empty() && !advice.ends_with('.'),
                "the advice of {} is part of a sentence",
                row.name
            );
        }
        assert_eq!(classify(6).refresh, Refresh::Metadata);
        assert_eq!(classify(16).refresh, Refresh::Coordinator);
        assert_eq!(
            classify(14).refresh,
            Refresh::Nothing,
            "it is loading, and still the right one"
        );
        assert_eq!(classify(129).refresh, Refresh::Rebootstrap);
    }

    #[test]
    fn codes_show_kafkas_name_and_unknown_ones_their_number() {
        assert_eq!(BrokerCode::new(6).to_string(), "NOT_LEADER_OR_FOLLOWER (6)");
        assert_eq!(BrokerCode::new(-1).name(), "UNKNOWN_SERVER_ERROR");
        for code in [i16::MIN, -2, 30_000, i16::MAX] {
            let shown = BrokerCode::new(code).to_string();
            assert_eq!(shown, format!("unknown error code {code}"));
            assert_eq!(BrokerCode::new(code).name(), "UNKNOWN_CODE");
            assert_eq!(classify(code).kind, ErrorKind::Broker);
            assert!(!classify(code).is_retriable());
        }
    }

    #[test]
    fn the_error_of_a_code_says_what_was_done_what_came_and_what_to_do() {
        let error = Error::from_code(41, "creating topics");
        assert_eq!(
            error.to_string(),
            "creating topics: NOT_CONTROLLER (41): the controller moved to another broker"
        );
        assert!(error.is_retriable());
        assert_eq!(error.code().map(BrokerCode::get), Some(41));
    }

    #[test]
    fn a_write_is_certainly_absent_only_where_the_broker_refused_before_the_append() {
        for code in [6, 10, 19, 29, 87] {
            assert_eq!(write_certainty(code), Certainty::NotSent, "{code}");
        }
        for code in [-1, 7, 20, 46, 30_000] {
            assert_eq!(write_certainty(code), Certainty::MaybeWritten, "{code}");
        }
    }
}
