//! Dropping what was accepted and is not wanted any more.

use crate::error::Error;
use crate::producer::shared::Shared;
use crate::producer::slot::purged;

/// What [`Producer::purge`](crate::Producer::purge) drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purge {
    /// Records that no request has carried yet. Each of them ends as certainly not written, so that
    /// it is safe to send it again. What was sent goes on to its end.
    Unsent,
    /// Every record that was accepted and has not ended. One that a request has carried may be
    /// written all the same; its error says so
    /// ([`Certainty::MaybeWritten`](crate::Certainty::MaybeWritten)).
    ///
    /// With idempotence a record that is sent afterwards pays for it if the connection is lost
    /// before the request of the dropped one is answered. If its own request was on that connection
    /// too, the broker's refusal of the repetition leaves open whether it was written, and it
    /// fails: [`ErrorKind::Sequence`](crate::ErrorKind::Sequence), maybe written. If it was not yet
    /// sent it waits for another producer identity, and is then written once. This is so behind
    /// every record that ends without its outcome being known, as after `delivery.timeout.ms`.
    All,
}

/// What a [`Producer::purge`](crate::Producer::purge) dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurgeReport {
    /// Records that certainly were not written.
    pub not_sent: u64,
    /// Records that were sent and not acknowledged: they may have been written.
    pub maybe_written: u64,
}

impl Shared {
    pub(crate) fn purge(&self, what: Purge) -> PurgeReport {
        self.drop_records(what == Purge::All, &purged())
    }

    /// Ends with this error what no request has carried, and if `sent`, everything else, too.
    pub(crate) fn drop_records(&self, sent: bool, error: &Error) -> PurgeReport {
        let mut report = PurgeReport {
            not_sent: 0,
            maybe_written: 0,
        };
        for slot in self.slots() {
            let (not_sent, maybe_written) = slot.purge(sent, error);
            report.not_sent += not_sent;
            report.maybe_written += maybe_written;
        }
        report
    }
}
