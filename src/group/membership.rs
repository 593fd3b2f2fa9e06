//! A consumer's place in its group, whatever protocol it was got by.

use std::sync::Arc;

use uuid::Uuid;

use super::GroupMembershipOperation;
use super::consumer;
pub(crate) use super::consumer::Settings;
use super::messages::{Effect, GroupResponse, MemberIdentity, Subscription, Token};
use crate::clock::Instant;
use crate::cluster::Snapshot;
use crate::error::Result;

/// The member's machine; the protocols' files say what their members do.
#[derive(Debug)]
pub(crate) enum Membership {
    /// `group.protocol=consumer` (KIP-848).
    Consumer(consumer::Member),
}

impl Membership {
    /// `id` is the member's name for itself, where the protocol lets it choose one.
    pub(crate) fn new(settings: Settings, id: Arc<str>) -> Self {
        Self::Consumer(consumer::Member::new(settings, id))
    }

    /// What is wanted from now on; joins if need be. No topic at all is a subscription, too.
    pub(crate) fn subscribe(&mut self, now: Instant, subscription: Subscription) {
        match self {
            Self::Consumer(member) => member.subscribe(now, subscription),
        }
    }

    /// There is news about topics.
    pub(crate) fn metadata_changed(&mut self) {
        match self {
            Self::Consumer(member) => member.metadata_changed(),
        }
    }

    /// Whether partitions of the topic are assigned, or to be.
    pub(crate) fn knows(&self, topic: Uuid) -> bool {
        match self {
            Self::Consumer(member) => member.knows(topic),
        }
    }

    /// Which membership this is: another one has lost all that this one had.
    pub(crate) fn life(&self) -> u64 {
        match self {
            Self::Consumer(member) => member.life(),
        }
    }

    /// The application polls again after it was absent too long: joins again.
    pub(crate) fn resume(&mut self, now: Instant) {
        match self {
            Self::Consumer(member) => member.resume(now),
        }
    }

    /// The application did not poll in time: leaves, so that others can have its partitions.
    pub(crate) fn absent(&mut self, now: Instant) {
        match self {
            Self::Consumer(member) => member.absent(now),
        }
    }

    /// The application unsubscribed: nothing is taken in or given up any more, nor joined again.
    /// `leave` is to follow when what is owned was given up; whether there is any.
    pub(crate) fn retire(&mut self) -> bool {
        match self {
            Self::Consumer(member) => member.retire(),
        }
    }

    /// Leaves, and says by [`Effect::Left`] when that is over. The partitions must have been given
    /// up before.
    pub(crate) fn leave(&mut self, now: Instant, operation: GroupMembershipOperation) {
        match self {
            Self::Consumer(member) => member.leave(now, operation),
        }
    }

    /// The revocation asked for by [`Effect::Revoke`] is complete.
    pub(crate) fn revoked(&mut self) {
        match self {
            Self::Consumer(member) => member.revoked(),
        }
    }

    /// Whether the member wants to be heard of: joining, in, or leaving.
    pub(crate) fn is_in(&self) -> bool {
        match self {
            Self::Consumer(member) => member.is_in(),
        }
    }

    /// Who to commit as, while there is a valid membership.
    pub(crate) fn identity(&self) -> Option<MemberIdentity> {
        match self {
            Self::Consumer(member) => member.identity(),
        }
    }

    /// An answer, or the failure to get one, to the request of that token.
    pub(crate) fn handle(&mut self, now: Instant, token: Token, answer: Result<GroupResponse>) {
        match self {
            Self::Consumer(member) => {
                let answer = answer.map(|GroupResponse::ConsumerHeartbeat(answer)| answer);
                member.handle_heartbeat(now, token, answer);
            }
        }
    }

    /// What to do next; call until `None`.
    pub(crate) fn poll(&mut self, now: Instant, topics: &Snapshot) -> Option<Effect> {
        match self {
            Self::Consumer(member) => member.poll(now, |id| {
                let topic = topics.topic_by_id(id)?;
                Some(Arc::clone(&topic.name))
            }),
        }
    }

    /// When `poll` has something to do without anything else happening.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        match self {
            Self::Consumer(member) => member.next_timeout(),
        }
    }
}
