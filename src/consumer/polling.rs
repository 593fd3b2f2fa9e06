//! A call of the application that waits for something to hand out, and what it tells: that the
//! application polls (`max.poll.interval.ms`), and what it has finished.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::sync::futures::Notified;

use super::commands::RebalanceEvent;
use super::shared::{Inner, Shared};
use crate::clock::{Instant, now};
use crate::error::Result;
use crate::fetched::batch::Batches;

/// A call of the application that waits for something. Only while it runs it says that the
/// application polls: one that is kept and not looked at says nothing (`max.poll.interval.ms`).
pub(super) struct Polling<'a> {
    shared: &'a Shared,
    began: Instant,
    /// This is the look at the future by which the call began.
    first: bool,
}

impl<'a> Polling<'a> {
    /// `prepare` is done under the lock that is needed in any case.
    pub(super) fn enter(shared: &'a Shared, prepare: impl FnOnce(&mut Inner)) -> Self {
        let began = now();
        let mut inner = shared.lock();
        prepare(&mut inner);
        shared.polls(inner, began);
        Self {
            shared,
            began,
            first: true,
        }
    }

    /// Waits until there may be something. The control task ends waits before the interval is over
    /// ([`Shared::ready`]), so that a task that has nothing to read and runs when it is woken
    /// counts.
    pub(super) async fn wait(&mut self, mut ready: Pin<&mut Notified<'_>>) {
        let mut stopped = pin!(self.shared.tasks.stopped());
        poll_fn(|cx| {
            if ready.as_mut().poll(cx).is_ready() || stopped.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if !std::mem::take(&mut self.first) {
                self.shared.polls(self.shared.lock(), now());
            }
            Poll::Pending
        })
        .await;
    }

    /// The call returns something.
    pub(super) fn leave(self) {
        self.shared.lock().polled_at = now();
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.shared.stats.polled(self.began, now());
    }
}

/// What a wait of the application ended with.
pub(super) enum PollOutcome {
    Records(Batches),
    RebalanceEvent(RebalanceEvent),
    Woken,
    End,
}

/// What comes before records.
fn urgent(shared: &Shared) -> Result<Option<PollOutcome>> {
    let mut inner = shared.lock();
    if let Some(error) = inner.fatal.clone().or_else(|| shared.tasks.failure()) {
        return Err(error);
    }
    if shared.tasks.is_stopping() {
        return Ok(Some(PollOutcome::End));
    }
    if let Some(news) = inner.events.pop_front() {
        if matches!(news, RebalanceEvent::Lost(_)) {
            // It may look up where partitions that came since are to be read from.
            shared.control.notify_one();
        }
        return Ok(Some(PollOutcome::RebalanceEvent(news)));
    }
    Ok(std::mem::take(&mut inner.wakeup).then_some(PollOutcome::Woken))
}

/// Who asks for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Poll,
    /// The application lets go of partitions itself.
    Events,
    /// A stream of records, which knows better what is finished.
    Stream,
}

/// Waits for something to hand out. Cancel safe: what is taken is returned at once.
pub(super) async fn next_turn(shared: &Shared, by: By) -> Result<PollOutcome> {
    let mut polling = Polling::enter(shared, |inner| {
        if by != By::Stream {
            shared.ask(inner);
            inner.listens = by == By::Events;
        }
    });
    // A loop over polls that never have to wait leaves room for other tasks.
    tokio::task::coop::consume_budget().await;
    loop {
        let mut ready = pin!(shared.ready.notified());
        ready.as_mut().enable();
        let turn = match urgent(shared) {
            Ok(None) => Ok(shared.take().map(PollOutcome::Records)),
            urgent => urgent,
        };
        if let Some(turn) = turn.transpose() {
            polling.leave();
            return turn;
        }
        polling.wait(ready).await;
    }
}

/// Polls as `Consumer::poll` does, for callers that have no consumer at hand.
pub(super) async fn poll(shared: &Shared, by: By) -> Result<Option<Batches>> {
    loop {
        match next_turn(shared, by).await? {
            PollOutcome::Records(batches) => return Ok(Some(batches)),
            PollOutcome::RebalanceEvent(RebalanceEvent::Revoking(id, partitions)) => {
                shared.let_go_of(id, &partitions)
            }
            PollOutcome::RebalanceEvent(_) => {}
            PollOutcome::Woken => return Ok(Some(Batches::default())),
            PollOutcome::End => return Ok(None),
        }
    }
}
