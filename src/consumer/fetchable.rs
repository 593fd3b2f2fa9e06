//! Wakes the fetch tasks: those of one broker where that is known, for each looks at what its
//! broker has under the consumer's lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::types::BrokerId;

/// There may be something to fetch.
#[derive(Debug, Default)]
pub(super) struct Fetchable(Mutex<BTreeMap<BrokerId, Arc<Notify>>>);

impl Fetchable {
    /// What the fetch task of a broker waits for.
    pub(super) fn of(&self, broker: BrokerId) -> Arc<Notify> {
        Arc::clone(self.brokers().entry(broker).or_default())
    }

    /// The broker has no fetch task any more.
    pub(super) fn remove(&self, broker: BrokerId) {
        self.brokers().remove(&broker);
    }

    /// From these brokers. No lock is held while their tasks are woken.
    pub(super) fn wake(&self, brokers: impl IntoIterator<Item = BrokerId>) {
        for broker in brokers {
            let notify = self.brokers().get(&broker).cloned();
            if let Some(notify) = notify {
                notify.notify_waiters();
            }
        }
    }

    /// From whichever broker.
    pub(super) fn notify_waiters(&self) {
        let all: Vec<_> = self.brokers().values().cloned().collect();
        all.iter().for_each(|notify| notify.notify_waiters());
    }

    fn brokers(&self) -> MutexGuard<'_, BTreeMap<BrokerId, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// With so much unread a partition is not asked for more. Half of what an answer may bring is
/// enough to go on with while the next one comes from nearby; from afar it takes a whole one.
pub(super) fn enough(limit: usize, far: bool) -> usize {
    match far {
        true => limit.saturating_add(1),
        false => limit.div_ceil(2),
    }
}
