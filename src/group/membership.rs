//! A consumer's place in its group, whatever protocol it was got by.

use std::sync::Arc;

use uuid::Uuid;

use super::GroupMembershipOperation;
use super::classic_consumer::{self, ClassicConsumer};
use super::consumer;
use super::messages::{Effect, GroupResponse, MemberIdentity, Subscription, Token};
use crate::clock::Instant;
use crate::cluster::Snapshot;
use crate::config::consumer::GroupProtocol;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::codes;

/// How to get into a group.
#[derive(Clone, Debug)]
pub(crate) enum Settings {
    /// `group.protocol=consumer`: the settings, and the member's name for itself.
    Consumer(consumer::Settings, Arc<str>),
    /// `group.protocol=classic`.
    Classic(classic_consumer::Settings),
    /// `group.protocol=auto`: as the first, and where the coordinator cannot do that, as the
    /// second.
    Auto(consumer::Settings, Arc<str>, classic_consumer::Settings),
}

/// The member; the protocols' files say what their machines do.
#[derive(Debug)]
pub(crate) struct Membership {
    machine: Machine,
    /// Which protocol is spoken instead if the coordinator does not know the first.
    fallback: Option<Fallback>,
}

#[derive(Debug)]
enum Machine {
    Consumer(Box<consumer::Member>),
    Classic(Box<ClassicConsumer>),
}

#[derive(Debug)]
struct Fallback {
    settings: classic_consumer::Settings,
    subscription: Option<Subscription>,
}

impl Membership {
    pub(crate) fn new(settings: Settings) -> Self {
        let consumer =
            |settings, id| Machine::Consumer(Box::new(consumer::Member::new(settings, id)));
        let (machine, fallback) = match settings {
            Settings::Consumer(settings, id) => (consumer(settings, id), None),
            Settings::Classic(settings) => (
                Machine::Classic(Box::new(ClassicConsumer::new(settings))),
                None,
            ),
            Settings::Auto(settings, id, classic) => {
                let fallback = Fallback {
                    settings: classic,
                    subscription: None,
                };
                (consumer(settings, id), Some(fallback))
            }
        };
        Self { machine, fallback }
    }

    /// The protocol that the member speaks.
    pub(crate) fn protocol(&self) -> GroupProtocol {
        match &self.machine {
            Machine::Consumer(_) => GroupProtocol::Consumer,
            Machine::Classic(_) => GroupProtocol::Classic,
        }
    }

    /// What is wanted from now on; joins if need be. No topic at all is a subscription, too.
    pub(crate) fn subscribe(&mut self, now: Instant, subscription: Subscription) {
        if let Some(fallback) = &mut self.fallback {
            fallback.subscription = Some(subscription.clone());
        }
        match &mut self.machine {
            Machine::Consumer(member) => member.subscribe(now, subscription),
            Machine::Classic(member) => member.subscribe(subscription),
        }
    }

    /// There is news about topics.
    pub(crate) fn metadata_changed(&mut self) {
        match &mut self.machine {
            Machine::Consumer(member) => member.metadata_changed(),
            Machine::Classic(member) => member.metadata_changed(),
        }
    }

    /// Whether partitions of the topic, which the broker chose, are assigned, or to be.
    pub(crate) fn knows(&self, topic: Uuid) -> bool {
        match &self.machine {
            Machine::Consumer(member) => member.knows(topic),
            Machine::Classic(_) => false,
        }
    }

    /// Which membership this is: another one has lost all that this one had.
    pub(crate) fn life(&self) -> u64 {
        match &self.machine {
            Machine::Consumer(member) => member.life(),
            Machine::Classic(member) => member.life(),
        }
    }

    /// The application polls again after it was absent too long: joins again.
    pub(crate) fn resume(&mut self, now: Instant) {
        match &mut self.machine {
            Machine::Consumer(member) => member.resume(now),
            Machine::Classic(member) => member.resume(),
        }
    }

    /// The application did not poll in time: leaves, so that others can have its partitions.
    pub(crate) fn absent(&mut self, now: Instant) {
        match &mut self.machine {
            Machine::Consumer(member) => member.absent(now),
            Machine::Classic(member) => member.absent(),
        }
    }

    /// The application unsubscribed: nothing is taken in or given up any more, nor joined again.
    /// `leave` is to follow when what is owned was given up; whether there is any.
    pub(crate) fn retire(&mut self) -> bool {
        if let Some(fallback) = &mut self.fallback {
            fallback.subscription = None;
        }
        match &mut self.machine {
            Machine::Consumer(member) => member.retire(),
            Machine::Classic(member) => member.retire(),
        }
    }

    /// Leaves, and says by [`Effect::Left`] when that is over. The partitions must have been given
    /// up before.
    pub(crate) fn leave(&mut self, now: Instant, operation: GroupMembershipOperation) {
        match &mut self.machine {
            Machine::Consumer(member) => member.leave(now, operation),
            Machine::Classic(member) => member.leave(operation),
        }
    }

    /// The revocation asked for by [`Effect::Revoke`] is complete.
    pub(crate) fn revoked(&mut self) {
        match &mut self.machine {
            Machine::Consumer(member) => member.revoked(),
            Machine::Classic(member) => member.revoked(),
        }
    }

    /// Whether the member wants to be in the group.
    pub(crate) fn is_in(&self) -> bool {
        match &self.machine {
            Machine::Consumer(member) => member.is_in(),
            Machine::Classic(member) => member.is_in(),
        }
    }

    /// Who to commit as, while there is a valid membership.
    pub(crate) fn identity(&self) -> Option<MemberIdentity> {
        match &self.machine {
            Machine::Consumer(member) => member.identity(),
            Machine::Classic(member) => member.identity(),
        }
    }

    /// An answer, or the failure to get one, to the request of that token.
    pub(crate) fn handle(&mut self, now: Instant, token: Token, answer: Result<GroupResponse>) {
        let refused = is_unsupported(&answer) || self.is_classic_group(&answer);
        if self.is_in() && refused && self.fall_back() {
            return;
        }
        match &mut self.machine {
            Machine::Classic(member) => member.handle(now, token, answer),
            Machine::Consumer(member) => {
                let answer = answer.and_then(|answer| match answer {
                    GroupResponse::ConsumerHeartbeat(answer) => Ok(answer),
                    _ => Err(Error::new(
                        ErrorKind::Protocol,
                        "not the answer to a heartbeat",
                    )),
                });
                member.handle_heartbeat(now, token, answer);
            }
        }
    }

    /// Whether the group has classic members that the broker does not convert: whoever joins by the
    /// other protocol hears that there is no such group.
    fn is_classic_group(&self, answer: &Result<GroupResponse>) -> bool {
        let Ok(GroupResponse::ConsumerHeartbeat(answer)) = answer else {
            return false;
        };
        answer.code == codes::GROUP_ID_NOT_FOUND && self.identity().is_none()
    }

    /// Goes on as a member of the other protocol, if there is one that may do. A pattern that the
    /// broker is to match is beyond it.
    fn fall_back(&mut self) -> bool {
        let by_name = |fallback: &mut Fallback| {
            !matches!(fallback.subscription, Some(Subscription::Regex(_)))
        };
        let Some(fallback) = self.fallback.take_if(by_name) else {
            return false;
        };
        tracing::info!(
            "the coordinator does not offer the group protocol `consumer`, or not for this group: \
             going on with `classic`"
        );
        let mut member = match &mut self.machine {
            Machine::Consumer(before) => {
                ClassicConsumer::after(before.life(), before.end(), fallback.settings)
            }
            Machine::Classic(_) => return false,
        };
        if let Some(subscription) = fallback.subscription {
            member.subscribe(subscription);
        }
        self.machine = Machine::Classic(Box::new(member));
        true
    }

    /// What to do next; call until `None`.
    pub(crate) fn poll(&mut self, now: Instant, topics: &Snapshot) -> Option<Effect> {
        match &mut self.machine {
            Machine::Consumer(member) => member.poll(now, |id| {
                let topic = topics.topic_by_id(id)?;
                Some(Arc::clone(&topic.name))
            }),
            Machine::Classic(member) => member.poll(now, topics),
        }
    }

    /// When `poll` has something to do without anything else happening.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        match &self.machine {
            Machine::Consumer(member) => member.next_timeout(),
            Machine::Classic(member) => member.next_timeout(),
        }
    }
}

/// The coordinator does not know the request, or may not serve it (`group.version`,
/// `group.coordinator.rebalance.protocols`).
fn is_unsupported(answer: &Result<GroupResponse>) -> bool {
    match answer {
        Ok(GroupResponse::ConsumerHeartbeat(answer)) => answer.code == codes::UNSUPPORTED_VERSION,
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::UnsupportedVersion && !error.is_retriable(),
    }
}
