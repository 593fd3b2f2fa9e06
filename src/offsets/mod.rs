//! Requests about offsets: what is committed, committing, where a log begins and ends, and single
//! records of it.

mod commit;
mod coordinator;
mod fetch;
mod list;
pub(crate) mod peek;

pub(crate) use self::commit::{Offsets, ToCommit, commit, not_a_member};
pub(crate) use self::coordinator::{Identity, ask_coordinator_on};
pub(crate) use self::fetch::{
    CommittedOffsets, GroupsToLookUp, Lookup, committed, committed_of, committed_once, lookup_error,
};
pub(crate) use self::list::{EARLIEST, Found, LATEST, NEWEST, list, list_each, list_once};
pub(crate) use crate::cluster::ask::no_partition;
