//! Who a producer is to the brokers: its producer id and epoch (KIP-98, KIP-360).
//!
//! A machine: the control task does what [`IdentityMachine::poll`] asks for and hands the result
//! back; senders read [`IdentityMachine::current`] once per drain.
//!
//! Invariants:
//!
//! - An identity is asked for only by an idempotent producer, and by one request at a time.
//! - A partition that cannot go on under an identity asks for *another than that one*. Several
//!   partitions that lost the same identity cause one bump, not several.
//! - A transactional producer is given its identities by the coordinator's answers
//!   (`transaction/machine.rs`), and never takes one by itself.
//! - Without transactions the next epoch is taken without asking, as Java does; when epochs run
//!   out, or the broker does not accept the producer id any more, a new producer id is asked for.
//! - After a fatal error there is no identity any more, and the error is kept.

use crate::error::{Class, Error, ErrorKind};

/// A producer id with its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// An identity not to be used again in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExhaustedEpoch {
    pub(crate) identity: Identity,
    /// Ask for another producer id instead of the next epoch.
    pub(crate) fenced: bool,
}

/// Keeps one producer's identity.
#[derive(Debug)]
pub(crate) struct IdentityMachine {
    state: State,
}

#[derive(Debug)]
enum State {
    /// Not idempotent: batches carry no identity.
    Unused,
    Wanted,
    Asked,
    Known(Identity),
    /// Of a transactional producer.
    Given(Option<Identity>),
    Failed(Error),
}

impl IdentityMachine {
    pub(crate) fn new(idempotent: bool) -> Self {
        let state = if idempotent {
            State::Wanted
        } else {
            State::Unused
        };
        Self { state }
    }

    /// That of a transactional producer.
    pub(crate) fn transactional() -> Self {
        Self {
            state: State::Given(None),
        }
    }

    /// Takes the identity of a transactional producer; whether it is another one.
    pub(crate) fn give(&mut self, identity: Option<Identity>) -> bool {
        match &mut self.state {
            State::Given(known) => std::mem::replace(known, identity) != identity,
            _ => false,
        }
    }

    /// What new batches are stamped with.
    pub(crate) fn current(&self) -> Option<Identity> {
        match self.state {
            State::Known(identity) => Some(identity),
            State::Given(identity) => identity,
            _ => None,
        }
    }

    /// Why this producer can never send again.
    pub(crate) fn failure(&self) -> Option<&Error> {
        match &self.state {
            State::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Whether an InitProducerId request is to be sent now. Call when anything changed.
    pub(crate) fn poll(&mut self) -> bool {
        let wanted = matches!(self.state, State::Wanted);
        if wanted {
            self.state = State::Asked;
        }
        wanted
    }

    /// A partition cannot go on under `spent`. Returns the identity to go on with, if it is known
    /// already.
    pub(crate) fn replace(&mut self, spent: ExhaustedEpoch) -> Option<Identity> {
        if let State::Known(current) = self.state
            && current.id == spent.identity.id
            && (spent.fenced || current.epoch <= spent.identity.epoch)
        {
            self.state = match spent.identity.epoch.checked_add(1) {
                Some(epoch) if !spent.fenced => State::Known(Identity {
                    id: current.id,
                    epoch,
                }),
                _ => State::Wanted,
            };
        }
        self.current()
    }

    /// The answer to InitProducerId.
    pub(crate) fn answered(&mut self, result: Result<Identity, Error>) {
        if !matches!(self.state, State::Asked) {
            return;
        }
        self.state = match result {
            Ok(identity) => State::Known(identity),
            Err(error) if is_final(&error) => State::Failed(
                error
                    .context("getting a producer id (needed with enable.idempotence)")
                    .with_class(Class::Fatal),
            ),
            Err(_) => State::Wanted,
        };
    }

    /// Ends the producer's life for a reason found elsewhere; the first reason is kept.
    pub(crate) fn fail(&mut self, error: Error) {
        if !matches!(self.state, State::Failed(_)) {
            self.state = State::Failed(error);
        }
    }
}

/// Whether asking again is of no use.
fn is_final(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Authentication
            | ErrorKind::Authorization
            | ErrorKind::UnsupportedVersion
            | ErrorKind::Closed
            | ErrorKind::Fatal
            | ErrorKind::Fenced
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Identity = Identity { id: 7, epoch: 0 };

    fn known(identity: Identity) -> IdentityMachine {
        let mut machine = IdentityMachine::new(true);
        assert!(machine.poll());
        machine.answered(Ok(identity));
        machine
    }

    fn spent(identity: Identity) -> ExhaustedEpoch {
        ExhaustedEpoch {
            identity,
            fenced: false,
        }
    }

    #[test]
    fn asks_once_and_only_if_idempotent() {
        assert!(!IdentityMachine::new(false).poll());
        let mut machine = IdentityMachine::new(true);
        assert_eq!(machine.current(), None);
        assert!(machine.poll());
        assert!(!machine.poll());
        machine.answered(Ok(FIRST));
        assert_eq!(machine.current(), Some(FIRST));
        assert!(!machine.poll());
    }

    #[test]
    fn a_passing_failure_is_asked_again_and_a_final_one_is_kept() {
        let mut machine = IdentityMachine::new(true);
        assert!(machine.poll());
        machine.answered(Err(Error::new(ErrorKind::Timeout, "late")));
        assert!(machine.poll());
        machine.answered(Err(Error::new(ErrorKind::Authorization, "no")));
        assert!(!machine.poll());
        let failure = machine.failure().expect("failed");
        assert_eq!(failure.kind(), ErrorKind::Authorization);
        assert!(failure.is_fatal() && failure.to_string().contains("enable.idempotence"));
    }

    #[test]
    fn partitions_that_lost_the_same_identity_bump_it_once() {
        let mut machine = known(FIRST);
        let next = Identity { id: 7, epoch: 1 };
        assert_eq!(machine.replace(spent(FIRST)), Some(next));
        assert_eq!(machine.replace(spent(FIRST)), Some(next));
        assert_eq!(
            machine.replace(spent(next)),
            Some(Identity { id: 7, epoch: 2 })
        );
        assert!(!machine.poll());
    }

    #[test]
    fn a_new_id_is_asked_for_when_epochs_run_out_or_the_id_is_fenced() {
        let last = Identity {
            id: 7,
            epoch: i16::MAX,
        };
        let mut machine = known(last);
        assert_eq!(machine.replace(spent(last)), None);
        assert!(machine.poll());
        let mut machine = known(FIRST);
        let fenced = ExhaustedEpoch {
            identity: FIRST,
            fenced: true,
        };
        assert_eq!(machine.replace(fenced), None);
        assert!(machine.poll());
        machine.answered(Ok(Identity { id: 8, epoch: 0 }));
        assert_eq!(machine.replace(fenced), Some(Identity { id: 8, epoch: 0 }));
    }
}
