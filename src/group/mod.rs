//! Group membership: who owns which partitions.
//!
//! [`Membership`] is what the consumer's control task drives, whatever protocol the member speaks:
//! it sends what [`Effect::Send`] says, hands the answers in, and tells the application what comes
//! and goes. `consumer.rs` is the protocol `consumer` (KIP-848), `classic.rs`
//! the protocol `classic` for members of any kind, and `classic_consumer.rs` a consumer in it.

pub(crate) mod assignor;
mod assignors;
mod call;
mod classic;
mod classic_consumer;
mod consumer;
mod membership;
mod messages;
mod metadata;
pub(crate) mod subscription;

pub(crate) use self::assignors::Assignors;
pub(crate) use self::call::GroupCall;
pub(crate) use self::classic::Settings as ClassicSettings;
pub(crate) use self::classic_consumer::{
    PROTOCOL_TYPE as CONSUMER_PROTOCOL_TYPE, Settings as ClassicConsumerSettings,
};
pub(crate) use self::consumer::Settings as ConsumerSettings;
pub(crate) use self::membership::{Membership, Settings};
pub(crate) use self::messages::{
    Effect, GroupRequest, GroupResponse, MemberIdentity, Subscription, Token, Verdict,
};
pub use self::metadata::GroupMetadata;

/// What becomes of a consumer's place in its group when it is closed (KIP-1092).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupMembershipOperation {
    /// A member with a name of its own (`group.instance.id`) remains, any other leaves.
    #[default]
    Default,
    /// The member leaves for good, whether it has a name or not: others get its partitions at once.
    LeaveGroup,
    /// The place is kept for the session time-out (`group.consumer.session.timeout.ms`, in a
    /// classic group the member's `session.timeout.ms`), so that nothing moves if the application
    /// comes back until then. A member with a name finds its partitions again. One without is not
    /// told off at all: the coordinator throws it out when the time is over, and the consumer that
    /// comes back is another member, to which partitions go only then.
    RemainInGroup,
}
