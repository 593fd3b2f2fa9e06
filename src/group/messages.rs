//! What goes between a member's machine and the task that drives it.

use std::sync::Arc;

use uuid::Uuid;

use super::classic::{Code, Heartbeat, JoinAnswer, JoinGroup, LeaveGroup, SyncAnswer, SyncGroup};
use super::consumer::{Heartbeat as ConsumerHeartbeat, HeartbeatAnswer};
use crate::config::consumer::GroupProtocol;
use crate::error::Error;
use crate::types::TopicPartition;
use crate::wire::codes;

/// Names a request, so that its answer can be told from older ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(pub(super) u64);

/// What a member wants to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subscription {
    Names(Vec<Arc<str>>),
    /// What the broker finds to match, by RE2/J.
    Regex(Arc<str>),
}

/// A request to the coordinator of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GroupRequest {
    ConsumerHeartbeat(ConsumerHeartbeat),
    Join(JoinGroup),
    Sync(SyncGroup),
    Heartbeat(Heartbeat),
    Leave(LeaveGroup),
}

impl GroupRequest {
    /// The member leaves, for a while or for good.
    pub(crate) fn is_farewell(&self) -> bool {
        match self {
            Self::ConsumerHeartbeat(heartbeat) => heartbeat.is_farewell(),
            Self::Leave(_) => true,
            Self::Join(_) | Self::Sync(_) | Self::Heartbeat(_) => false,
        }
    }

    /// Whether the coordinator must not hear of it before it has answered the one before.
    pub(crate) fn keeps_order(&self) -> bool {
        matches!(self, Self::ConsumerHeartbeat(_))
    }

    /// The coordinator answers when other members have done something, too, so that nothing may
    /// have to wait behind it.
    pub(crate) fn waits_for_others(&self) -> bool {
        matches!(self, Self::Join(_) | Self::Sync(_))
    }
}

/// The coordinator's answer.
#[derive(Clone, Debug)]
pub(crate) enum GroupResponse {
    ConsumerHeartbeat(HeartbeatAnswer),
    Join(JoinAnswer),
    Sync(SyncAnswer),
    Heartbeat(Code),
    Leave,
}

/// Who a member is to the coordinator, for the requests that are made in its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberIdentity {
    pub(crate) protocol: GroupProtocol,
    pub(crate) id: Arc<str>,
    /// Its epoch (KIP-848), or the generation that it is in (`group.protocol=classic`).
    pub(crate) epoch: i32,
}

/// What the coordinator's refusal of a commit, or of a question for offsets, says about the
/// membership in whose name it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The member is behind: after its next heartbeat the same request may work.
    Behind,
    /// The group rebalances (`group.protocol=classic`): what the member still owns then can be
    /// committed.
    Rebalancing,
    /// The membership is over, and what it had may be another member's.
    Lost,
    /// It has nothing to do with the membership.
    Other,
}

impl Verdict {
    pub(crate) fn of(code: i16) -> Self {
        match code {
            // A rebalance may have ended of which the member is about to hear. If it was thrown
            // out, it hears that as soon.
            codes::STALE_MEMBER_EPOCH | codes::ILLEGAL_GENERATION => Self::Behind,
            codes::UNKNOWN_MEMBER_ID | codes::FENCED_MEMBER_EPOCH | codes::FENCED_INSTANCE_ID => {
                Self::Lost
            }
            codes::REBALANCE_IN_PROGRESS => Self::Rebalancing,
            _ => Self::Other,
        }
    }
}

/// What the control task is to do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Send the request; hand its answer in with the token.
    Send(Token, GroupRequest),
    /// Let the application give these up, then call `revoked`.
    Revoke(Vec<TopicPartition>),
    /// These are the member's from now on (none: the assignment was taken in and is empty so far).
    Assign(Vec<(TopicPartition, Uuid)>),
    /// These are gone already: others may own them.
    Lost(Vec<TopicPartition>),
    /// Tell the application; whether the membership is over is the error's class.
    Fail(Error),
    /// Keep metadata of these topics, to which members of the group subscribe, besides those that
    /// this one reads; none: only those.
    WatchGroup(Vec<Arc<str>>),
    /// There are topics whose name is not known.
    RefreshMetadata,
    /// The group was left.
    Left,
}
