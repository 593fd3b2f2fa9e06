//! One group as its coordinator sees it: what it committed, and its members, which speak the
//! classic protocol or that of KIP-848.

mod classic;
mod consumer;

use std::collections::BTreeMap;
use std::time::Duration;

use self::classic::ClassicGroup;
pub(super) use self::classic::{Asker, Reply};
pub(super) use self::consumer::{Around, Catalogue, ConsumerGroup, Heartbeat, Member};
use crate::clock::Instant;

/// An offset that was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) metadata: String,
}

#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) offsets: BTreeMap<(String, i32), Committed>,
    pub(super) members: Members,
}

/// A group that has nothing but offsets is a classic one.
#[derive(Debug)]
pub(super) enum Members {
    Classic(ClassicGroup),
    Consumer(ConsumerGroup),
}

impl Default for Members {
    fn default() -> Self {
        Self::Classic(ClassicGroup::default())
    }
}

impl Group {
    /// Does what was to happen until now: throws out silent members, ends rebalances.
    pub(super) fn expire(&mut self, now: Instant) {
        match &mut self.members {
            Members::Classic(group) => group.expire(now),
            Members::Consumer(group) => {
                group.expire(now);
                // The last member of KIP-848 may be gone.
                if let Some(classic) = group.downgraded(now) {
                    self.members = Members::Classic(classic);
                }
            }
        }
    }

    /// When to look again for the sake of those who wait for an answer.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match &self.members {
            Members::Classic(group) => group.next_deadline(),
            Members::Consumer(_) => None,
        }
    }

    /// Another broker becomes coordinator: it reads what was written, and gives members time.
    pub(super) fn reload(&mut self, now: Instant, session_timeout: Duration) {
        match &mut self.members {
            Members::Classic(group) => group.reload(now),
            Members::Consumer(group) => group.renew_sessions(now, session_timeout),
        }
    }

    /// The group's state by Kafka's names.
    pub(super) fn state(&self) -> &'static str {
        match &self.members {
            Members::Classic(group) => group.state(),
            Members::Consumer(group) => group.state(),
        }
    }

    /// Whether it has no members; those of a rebalance that is under way count.
    pub(super) fn is_empty(&self) -> bool {
        self.state() == "Empty"
    }

    /// `consumer` for KIP-848, or `classic`.
    pub(super) fn kind(&self) -> &'static str {
        match &self.members {
            Members::Classic(_) => "classic",
            Members::Consumer(_) => "consumer",
        }
    }

    /// What the members do together, by Kafka's names; empty if there were none.
    pub(super) fn protocol_type(&self) -> &str {
        match &self.members {
            Members::Classic(group) => group.protocol_type(),
            Members::Consumer(_) => "consumer",
        }
    }
}
