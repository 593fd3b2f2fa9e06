//! A member of a classic group, and the answers that it waits for.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse, SyncGroupResponse};
use kafka_protocol::protocol::StrBytes;

use crate::clock::Instant;

/// A place for an answer: whoever asked looks there until it has come.
pub(in crate::mock) type Reply<T> = Arc<OnceLock<T>>;

/// How long a new member may wait for the others.
const NEW_MEMBER_TIMEOUT: Duration = Duration::from_secs(300);
/// No time-out is shorter.
pub(super) const TICK: Duration = Duration::from_millis(1);

#[derive(Clone, Debug)]
pub(in crate::mock) struct Member {
    pub(in crate::mock) instance_id: Option<String>,
    pub(in crate::mock) client_id: String,
    pub(in crate::mock) rebalance_timeout: Duration,
    pub(in crate::mock) session_timeout: Duration,
    /// Names with what it says about itself, the best first.
    pub(in crate::mock) protocols: Vec<(String, Bytes)>,
    pub(in crate::mock) assignment: Bytes,
    /// Another one after each joining of somebody new.
    pub(in crate::mock) membership: u64,
    /// The generation that it last asked for its assignment of.
    pub(super) asked: i32,
    /// It was never in a generation.
    pub(super) is_new: bool,
    /// It has not asked for its assignment in this generation.
    pub(super) unsynced: bool,
    pub(super) session_end: Option<Instant>,
    pub(super) join: Option<Reply<JoinGroupResponse>>,
    pub(super) sync: Option<Reply<SyncGroupResponse>>,
}

impl Member {
    /// One that joins.
    pub(super) fn new(
        request: &JoinGroupRequest,
        client_id: &str,
        membership: u64,
        now: Instant,
    ) -> Self {
        Self {
            instance_id: request.group_instance_id.as_deref().map(str::to_owned),
            client_id: client_id.to_owned(),
            rebalance_timeout: Duration::ZERO,
            session_timeout: Duration::ZERO,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            membership,
            asked: -1,
            is_new: true,
            unsynced: false,
            session_end: Some(now + NEW_MEMBER_TIMEOUT),
            join: None,
            sync: None,
        }
    }

    /// One of a group of KIP-848 that becomes a classic one: it is there, and is to join again.
    pub(in crate::mock) fn resumed(
        instance_id: Option<String>,
        client_id: String,
        (rebalance_timeout, session_timeout): (Duration, Duration),
        protocols: Vec<(String, Bytes)>,
        assignment: Bytes,
        membership: u64,
    ) -> Self {
        Self {
            instance_id,
            client_id,
            rebalance_timeout,
            session_timeout,
            protocols,
            assignment,
            membership,
            asked: -1,
            is_new: false,
            unsynced: false,
            session_end: None,
            join: None,
            sync: None,
        }
    }

    pub(super) fn update(&mut self, request: &JoinGroupRequest, reply: &Reply<JoinGroupResponse>) {
        self.protocols = protocols(request);
        self.session_timeout = session_timeout(request);
        let rebalance = u64::try_from(request.rebalance_timeout_ms);
        self.rebalance_timeout = rebalance.map_or(Duration::ZERO, Duration::from_millis);
        self.join = Some(Arc::clone(reply));
    }

    /// Its session begins anew.
    pub(super) fn renew(&mut self, now: Instant) {
        self.session_end = Some(now + self.session_timeout.max(TICK));
    }

    /// What it says about itself in a protocol.
    pub(in crate::mock) fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        let mut protocols = self.protocols.iter();
        let found = protocols.find(|(name, _)| name == protocol);
        found.map(|(_, metadata)| metadata)
    }
}

pub(super) fn protocols(request: &JoinGroupRequest) -> Vec<(String, Bytes)> {
    let protocols = request.protocols.iter();
    protocols
        .map(|protocol| (protocol.name.to_string(), protocol.metadata.clone()))
        .collect()
}

pub(super) fn session_timeout(request: &JoinGroupRequest) -> Duration {
    let millis = u64::try_from(request.session_timeout_ms);
    millis.map_or(Duration::ZERO, Duration::from_millis)
}

/// Answers whoever waits there; false if nobody does.
pub(super) fn answer<T>(waiting: &mut Option<Reply<T>>, what: T) -> bool {
    match waiting.take() {
        Some(reply) => reply.set(what).is_ok(),
        None => false,
    }
}

pub(super) fn join_refused(code: i16, id: &str) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(code)
        .with_protocol_name(None)
        .with_member_id(text(id))
}

pub(super) fn sync_refused(code: i16) -> SyncGroupResponse {
    SyncGroupResponse::default().with_error_code(code)
}

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
