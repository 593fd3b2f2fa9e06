//! What the control task has before it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use indexmap::IndexMap;

use crate::clock::Instant;
use crate::cluster::snapshot::Listed;
use crate::cluster::{AllTopics, Changes, Interest};
use crate::consumer::positions::ResetAsk;
use crate::consumer::shared::Shared;
use crate::consumer::unsent::Waiter;
use crate::consumer::wanted::Subscription;
use crate::error::{Error, Result};
use crate::fetched::PartEpoch;
use crate::group::{self, GroupResponse, Membership, Token};
use crate::offsets::{Found, Lookup, Offsets};
use crate::types::TopicPartition;

/// Something that was waited for.
pub(super) enum Answer {
    Group(Token, Result<GroupResponse>),
    Committed(
        Vec<(TopicPartition, PartEpoch)>,
        Result<BTreeMap<TopicPartition, Lookup>>,
    ),
    Listed(
        Vec<ResetAsk>,
        Result<IndexMap<TopicPartition, Result<Found, i16>>>,
    ),
    Commit(Vec<Waiter>, Offsets, Result<()>),
    Exists(Option<Error>),
}

pub(super) type Answers = Vec<Pin<Box<dyn Future<Output = Answer> + Send>>>;

pub(super) struct Control {
    pub(super) shared: Arc<Shared>,
    pub(super) group: Option<Arc<str>>,
    /// What the application wants, as far as it was taken up.
    pub(super) wanted: Subscription,
    pub(super) interest: Interest,
    /// Topics of earlier subscriptions, as long as partitions of them are assigned.
    pub(super) former: Option<Interest>,
    /// For subscriptions by pattern, and the topics that were matched last.
    pub(super) all: Option<AllTopics>,
    pub(super) matched: Option<Arc<[Listed]>>,
    /// The existence of assigned partitions is being looked at; true: and is to be, again.
    pub(super) checking: Option<bool>,
    pub(super) changes: Changes,
    /// Of consumers that subscribed at some time.
    pub(super) membership: Option<Membership>,
    pub(super) membership_settings: group::Settings,
    /// What members of the group subscribe to, while this one leads it.
    pub(super) group_interest: Option<Interest>,
    pub(super) group_sender: GroupSender,
    /// When those who wait in a poll were last woken, to say that they are still there.
    pub(super) woken_at: Instant,
    pub(super) answers: Answers,
    /// A commit is under way.
    pub(super) committing: bool,
    /// When the next automatic commit is due; `None` without any.
    pub(super) next_commit: Option<Instant>,
    /// An automatic commit was asked for and is not over.
    pub(super) at_interval: bool,
    /// The revocation under way: its partitions, and whether its commit was made.
    pub(super) revoking: Option<Revoking>,
    /// Topics of whose absence there was a word in the log.
    pub(super) missed: Vec<Arc<str>>,
    /// How far the end of the subscription is, and that of the consumer.
    pub(super) unsubscribing: Option<Unsubscribing>,
    pub(super) end: CloseState,
}

pub(super) struct Revoking {
    pub(super) id: u64,
    pub(super) partitions: Vec<TopicPartition>,
    pub(super) committing: bool,
}

/// At most one request is under way, beside one that waits for other members: if the leave overtook
/// the join, the coordinator would keep a ghost member until its session expires.
#[derive(Default)]
pub(super) struct GroupSender {
    /// JoinGroup or SyncGroup, which wait for other members at the coordinator.
    pub(super) waiting: Option<Pin<Box<dyn Future<Output = Answer> + Send>>>,
    pub(super) under_way: Option<Pin<Box<dyn Future<Output = Answer> + Send>>>,
    /// A broker may have heard of this member.
    pub(super) heard_of: Arc<AtomicBool>,
}

/// The application unsubscribed (`subscription.rs` says what it did itself).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsubscribing {
    /// For the application, which has not let go, or for the commit.
    Waiting,
    Committed,
    Leaving,
}

/// The consumer is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseState {
    NotYet,
    /// For streams of single partitions that have something in hand.
    Waiting,
    Committing,
    Leaving,
    Over,
}
