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

/// Why a connection exists. A broker serves one request per connection at a time, so a long poll
/// must not share with produce requests or heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Produce.
    Data,
    /// Fetch: long polls.
    Fetch,
    /// Fetches of other partitions meanwhile.
    FetchMore,
    /// Groups and transactions.
    Coordinator,
    /// Metadata, offsets, admin: everything short.
    Admin,
}
