//! The coordinators that were found.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::types::BrokerId;

/// Whom a coordinator is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum CoordinatorKey<'a> {
    Group(&'a str),
    Transaction(&'a str),
}

impl<'a> CoordinatorKey<'a> {
    /// The key's type on the wire, and the key.
    pub(super) fn parts(self) -> (i8, &'a str) {
        match self {
            Self::Group(id) => (0, id),
            Self::Transaction(id) => (1, id),
        }
    }

    /// The key of these parts.
    pub(super) fn of((kind, id): &'a (i8, String)) -> Self {
        match kind {
            0 => Self::Group(id),
            _ => Self::Transaction(id),
        }
    }

    pub(super) fn owned(self) -> (i8, String) {
        let (kind, id) = self.parts();
        (kind, id.to_owned())
    }
}

impl std::fmt::Display for CoordinatorKey<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Group(id) => write!(f, "group '{id}'"),
            Self::Transaction(id) => write!(f, "transactional id '{id}'"),
        }
    }
}

/// Coordinators found so far.
#[derive(Debug, Default)]
pub(super) struct Coordinators(pub(super) Mutex<HashMap<(i8, String), BrokerId>>);

/// So many coordinators are remembered.
const MOST: usize = 10_000;

impl Coordinators {
    pub(super) fn get(&self, key: CoordinatorKey<'_>) -> Option<BrokerId> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.get(&key.owned()).copied()
    }

    pub(super) fn put(&self, key: CoordinatorKey<'_>, broker: BrokerId) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if found.len() >= MOST {
            // Whoever looks at so many groups asks again for those that it goes on with.
            found.clear();
        }
        found.insert(key.owned(), broker);
    }
}
