//! Connections: one task per broker and lane, requests in order, answers awaited apart.

pub(crate) mod backoff;
pub(crate) mod connector;
pub(crate) mod frame;
mod handshake;
mod inflight;
pub(crate) mod link;
pub(crate) mod pool;
mod recycle;
#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod tests;
pub(crate) mod traffic;

/// What a connection is for. A broker serves one request per connection at a time, so whatever may
/// wait at a broker has a connection that nothing else waits behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Produce, which waits for replicas. One per producer.
    Data,
    /// Fetch, which waits for records. One per consumer.
    Fetch,
    /// Fetches of other partitions meanwhile. One per consumer.
    FetchMore,
    /// Groups and transactions, where joins wait for other members. One per member.
    Coordinator,
    /// JoinGroup and SyncGroup, which wait for other members. One per member of a classic group.
    Join,
    /// What is short: metadata, coordinators, producer ids, what groups are and have committed.
    /// Shared by all roles.
    Metadata,
    /// Administration, which may wait at the broker until it is carried out. Shared by all roles.
    Admin,
    /// What is looked up in a log: offsets, which may wait for remote storage (KIP-405, KIP-1075),
    /// and single batches, which may be large. Shared by all roles.
    Log,
}

/// Whose connection it is: a producer or a consumer, each with a number of its own, or everybody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner(pub(crate) u64);

impl Lane {
    /// Whose connection on this lane serves a role.
    pub(crate) fn owner(self, role: Owner) -> Owner {
        match self {
            Self::Data | Self::Fetch | Self::FetchMore | Self::Coordinator | Self::Join => role,
            Self::Metadata | Self::Admin | Self::Log => Owner::default(),
        }
    }

    /// Whether the task that uses a connection of this lane moves its bytes, too: what is fetched
    /// then comes to the task that looks into it without another one being woken, and while it is
    /// in that processor's caches.
    fn is_driven_by_user(self) -> bool {
        matches!(self, Self::Fetch | Self::FetchMore)
    }
}
