//! What the handles, senders and the driver of a transactional producer share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout_at;

use super::machine::TransactionMachine;
use super::verdict::{Asked, verdict};
use crate::clock::Instant;
use crate::error::{Error, ErrorKind, Result};

/// The machine behind a lock, and who is told when it moves on.
///
/// A slot's lock may be held when the machine's is taken, never the other way round.
pub(crate) struct Transactions {
    machine: Mutex<TransactionMachine>,
    /// Told to the driver when there may be something to do.
    pub(crate) work: Notify,
    /// Told to callers when the machine has moved on.
    changed: Notify,
    /// Produce requests that are being filled or are under way.
    sending: AtomicUsize,
    sent: Notify,
    /// Who waits for offsets to be in the transaction, by their numbers.
    waiters: Mutex<HashMap<u64, oneshot::Sender<Result<()>>>>,
}

/// Counts as a Produce request under way until it is dropped.
pub(crate) struct Sending(Arc<Transactions>);

impl Transactions {
    pub(crate) fn new(name: String) -> Arc<Self> {
        Arc::new(Self {
            machine: Mutex::new(TransactionMachine::new(name)),
            work: Notify::new(),
            changed: Notify::new(),
            sending: AtomicUsize::new(0),
            sent: Notify::new(),
            waiters: Mutex::default(),
        })
    }

    pub(crate) fn machine(&self) -> MutexGuard<'_, TransactionMachine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine has moved on.
    pub(crate) fn moved(&self) {
        self.changed.notify_waiters();
    }

    /// A batch ended without success.
    pub(crate) fn batch_failed(&self, error: &Error) {
        if error.kind() == ErrorKind::Purged {
            // Given up with the transaction.
            return;
        }
        let code = error.code().map_or(UNTOLD, |code| code.get());
        let verdict = verdict(Asked::Produce, code);
        self.machine().batch_failed(verdict, error);
        self.work.notify_one();
    }

    /// Waits until the machine has what is looked for; `None` if the deadline comes first. Cancel
    /// safe.
    pub(crate) async fn until<T>(
        &self,
        deadline: Instant,
        mut look: impl FnMut(&mut TransactionMachine) -> Option<T>,
    ) -> Option<T> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.machine()) {
                return Some(found);
            }
            timeout_at(deadline, changed).await.ok()?;
        }
    }

    /// Tells when the offsets of that number are in the transaction, or why they are not. To be
    /// called before the driver has a chance to tell.
    pub(crate) fn wait_for_offsets(&self, id: u64) -> oneshot::Receiver<Result<()>> {
        let (sender, receiver) = oneshot::channel();
        self.waiters().insert(id, sender);
        receiver
    }

    pub(crate) fn tell(&self, id: u64, result: Result<()>) {
        if let Some(waiter) = self.waiters().remove(&id) {
            // Whoever gave up waiting hears of it by the commit.
            let _ = waiter.send(result);
        }
    }

    fn waiters(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Result<()>>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a Produce request, before a batch is taken for it.
    pub(crate) fn sending(self: &Arc<Self>) -> Sending {
        self.sending.fetch_add(1, Ordering::AcqRel);
        Sending(Arc::clone(self))
    }

    /// Waits until no Produce request is under way. Cancel safe.
    pub(crate) async fn drained(&self) {
        loop {
            let mut sent = std::pin::pin!(self.sent.notified());
            sent.as_mut().enable();
            if self.sending.load(Ordering::Acquire) == 0 {
                return;
            }
            sent.await;
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if self.0.sending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.sent.notify_waiters();
        }
    }
}

/// In the place of a code where the broker gave none: time passed, or the client gave up.
const UNTOLD: i16 = i16::MIN;
