//! What goes between the machine, the coordinator and the shell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::error::Error;
use crate::types::TopicPartition;

/// Partitions by topic id.
pub(crate) type Parts = BTreeMap<Uuid, BTreeSet<i32>>;

/// With this epoch a member joins.
pub(super) const JOIN: i32 = 0;

/// Names a heartbeat, so that its answer can be told from older ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(pub(super) u64);

/// A ConsumerGroupHeartbeat request; `None` is "unchanged".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    pub(crate) member_id: Arc<str>,
    /// Version 0 lets the broker choose the id; until it did, the one above is only a proposal.
    pub(crate) id_confirmed: bool,
    pub(crate) member_epoch: i32,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) rack: Option<Arc<str>>,
    pub(crate) rebalance_timeout: Option<Duration>,
    pub(crate) topics: Option<Vec<Arc<str>>>,
    /// Empty: there is none any more.
    pub(crate) regex: Option<Arc<str>>,
    pub(crate) assignor: Option<Arc<str>>,
    pub(crate) owned: Option<Parts>,
}

impl Heartbeat {
    /// The member leaves, for a while or for good.
    pub(crate) fn is_farewell(&self) -> bool {
        self.member_epoch < JOIN
    }
}

/// What a member wants to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subscription {
    Names(Vec<Arc<str>>),
    /// What the broker finds to match, by RE2/J.
    Regex(Arc<str>),
}

/// A ConsumerGroupHeartbeat answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeartbeatAnswer {
    pub(crate) code: i16,
    pub(crate) message: Option<String>,
    pub(crate) member_id: Option<Arc<str>>,
    pub(crate) member_epoch: i32,
    pub(crate) interval: Duration,
    pub(crate) assignment: Option<Parts>,
}

/// What the shell is to do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Send the heartbeat; hand its answer in with the token.
    Call(Token, Heartbeat),
    /// Let the application give these up, then call `revoked`.
    Revoke(Vec<TopicPartition>),
    /// These are the member's from now on (none: the assignment was taken in and is empty so far).
    Assign(Vec<(TopicPartition, Uuid)>),
    /// These are gone already: others may own them.
    Lost(Vec<TopicPartition>),
    /// Tell the application; whether the membership is over is the error's class.
    Fail(Error),
    /// There are topics whose name is not known.
    RefreshMetadata,
    /// The coordinator is another one.
    ForgetCoordinator,
    /// The group was left.
    Left,
}
