//! What the cluster's tasks and handles share.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::network::Network;
use super::state::State;
use crate::tasks::Tasks;

/// What the cluster's tasks and handles share.
pub(crate) struct Shared {
    pub(super) state: Mutex<State>,
    /// Something that somebody may wait for has changed.
    pub(super) changed: Notify,
    pub(super) network: Network,
    pub(super) tasks: Tasks,
    /// The tasks of each broker's present life.
    pub(super) lives: Mutex<BTreeMap<i32, Tasks>>,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tasks_of(&self, broker: i32) -> Tasks {
        let mut lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        lives
            .entry(broker)
            .or_insert_with(|| self.tasks.child())
            .clone()
    }
}
