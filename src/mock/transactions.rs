//! What a transaction coordinator knows of its transactional ids: a machine.
//!
//! The rules are those of Kafka's `TransactionCoordinator`: an id has one producer id, whose epoch
//! grows with each owner, and with the second protocol (KIP-890) with each transaction; a
//! transaction is open from its first partition or group on; it ends in two steps, of which the
//! second writes the markers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::groups::Committed;
use crate::clock::Instant;
use crate::wire::codes;

/// A partition of a topic.
pub(super) type Place = (String, i32);

/// Who asks: a producer id and its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Empty,
    Ongoing,
    /// Decided, and the markers are still to be written; whether it is committed.
    Prepare(bool),
    Complete(bool),
}

impl Phase {
    /// By Kafka's names.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::Prepare(true) => "PrepareCommit",
            Self::Prepare(false) => "PrepareAbort",
            Self::Complete(true) => "CompleteCommit",
            Self::Complete(false) => "CompleteAbort",
        }
    }
}

/// One transactional id.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) owner: Owner,
    /// The one before the last bump, if its owner is the same.
    last: Option<Owner>,
    pub(super) timeout: Duration,
    pub(super) phase: Phase,
    pub(super) partitions: BTreeSet<Place>,
    groups: BTreeSet<String>,
    offsets: Vec<(String, Place, Committed)>,
    started: Option<Instant>,
    /// When the markers are written.
    completes: Option<Instant>,
    /// What the markers carry.
    marker: Owner,
}

/// What is to be written when a transaction is complete.
#[derive(Debug)]
pub(super) struct Markers {
    pub(super) owner: Owner,
    pub(super) commits: bool,
    pub(super) partitions: BTreeSet<Place>,
    pub(super) offsets: Vec<(String, Place, Committed)>,
}

impl Transaction {
    pub(super) fn new(owner: Owner, timeout: Duration) -> Self {
        Self {
            owner,
            last: None,
            timeout,
            phase: Phase::Empty,
            partitions: BTreeSet::new(),
            groups: BTreeSet::new(),
            offsets: Vec::new(),
            started: None,
            completes: None,
            marker: owner,
        }
    }

    /// When the open transaction began.
    pub(super) fn started(&self) -> Option<Instant> {
        self.started
    }

    /// InitProducerId: the identity of the owner that comes, or that asks for another epoch.
    pub(super) fn init(
        &mut self,
        asked: Option<Owner>,
        timeout: Duration,
        new_id: i64,
        now: Instant,
        delay: Duration,
    ) -> Result<Owner, i16> {
        if let Some(asked) = asked {
            let repeated = self.last == Some(asked);
            if asked != self.owner && !repeated {
                return Err(codes::PRODUCER_FENCED);
            }
            if repeated && matches!(self.phase, Phase::Empty) {
                return Ok(self.owner);
            }
        }
        match self.phase {
            Phase::Prepare(_) => Err(codes::CONCURRENT_TRANSACTIONS),
            Phase::Ongoing => {
                // The marker's epoch shuts the present owner out.
                self.owner.epoch = self.owner.epoch.saturating_add(1);
                self.last = None;
                self.prepare(false, now, delay);
                Err(codes::CONCURRENT_TRANSACTIONS)
            }
            Phase::Empty | Phase::Complete(_) => {
                let before = self.owner;
                self.bump(new_id);
                self.last = asked.map(|_| before);
                self.timeout = timeout;
                self.phase = Phase::Empty;
                Ok(self.owner)
            }
        }
    }

    fn bump(&mut self, new_id: i64) {
        match self.owner.epoch.checked_add(1) {
            // The last epoch is kept for shutting its owner out.
            Some(epoch) if epoch < i16::MAX => self.owner.epoch = epoch,
            _ => {
                self.owner = Owner {
                    id: new_id,
                    epoch: 0,
                }
            }
        }
    }

    fn check(&self, owner: Owner) -> Result<(), i16> {
        if owner.id != self.owner.id {
            return Err(codes::INVALID_PRODUCER_ID_MAPPING);
        }
        if owner.epoch != self.owner.epoch && !crate::planted("broker-takes-zombies") {
            return Err(codes::PRODUCER_FENCED);
        }
        match self.phase {
            Phase::Prepare(_) => Err(codes::CONCURRENT_TRANSACTIONS),
            _ => Ok(()),
        }
    }

    /// Opens a transaction if none is.
    fn open(&mut self, now: Instant) {
        if self.phase != Phase::Ongoing {
            self.phase = Phase::Ongoing;
            self.started = Some(now);
        }
    }

    /// Makes partitions part of the transaction.
    pub(super) fn add(
        &mut self,
        owner: Owner,
        partitions: impl IntoIterator<Item = Place>,
        now: Instant,
    ) -> Result<(), i16> {
        self.check(owner)?;
        self.open(now);
        self.partitions.extend(partitions);
        Ok(())
    }

    pub(super) fn add_group(&mut self, owner: Owner, group: &str, now: Instant) -> Result<(), i16> {
        self.check(owner)?;
        self.open(now);
        self.groups.insert(group.to_owned());
        Ok(())
    }

    /// Whether a partition that was not registered by its leader is part of the transaction.
    pub(super) fn verify(&self, owner: Owner, place: &Place) -> Result<(), i16> {
        self.check(owner)?;
        match self.phase == Phase::Ongoing && self.partitions.contains(place) {
            true => Ok(()),
            false => Err(codes::INVALID_TXN_STATE),
        }
    }

    pub(super) fn verify_group(&self, owner: Owner, group: &str) -> Result<(), i16> {
        self.check(owner)?;
        match self.phase == Phase::Ongoing && self.groups.contains(group) {
            true => Ok(()),
            false => Err(codes::INVALID_TXN_STATE),
        }
    }

    /// Keeps an offset until the end.
    pub(super) fn hold(&mut self, group: &str, place: Place, offset: Committed) {
        self.offsets.push((group.to_owned(), place, offset));
    }

    /// Whether an offset of the group waits for the end of the transaction.
    pub(super) fn holds(&self, group: &str, place: &Place) -> bool {
        let mut offsets = self.offsets.iter();
        offsets.any(|(of, at, _)| of == group && at == place)
    }

    /// EndTxn; with the second protocol the owner has another epoch then.
    pub(super) fn end(
        &mut self,
        owner: Owner,
        commits: bool,
        second_protocol: bool,
        new_id: i64,
        now: Instant,
        delay: Duration,
    ) -> Result<Owner, i16> {
        if second_protocol && self.last == Some(owner) {
            // Once more, because its answer was lost.
            return match self.phase {
                Phase::Complete(done) if done == commits => Ok(self.owner),
                Phase::Prepare(done) if done == commits => Err(codes::CONCURRENT_TRANSACTIONS),
                _ => Err(codes::PRODUCER_FENCED),
            };
        }
        if owner.id != self.owner.id {
            return Err(codes::INVALID_PRODUCER_ID_MAPPING);
        }
        if owner.epoch != self.owner.epoch && !crate::planted("broker-takes-zombies") {
            return Err(codes::PRODUCER_FENCED);
        }
        match self.phase {
            Phase::Ongoing => {}
            Phase::Complete(done) if done == commits && !second_protocol => return Ok(self.owner),
            Phase::Prepare(done) if done == commits => return Err(codes::CONCURRENT_TRANSACTIONS),
            // Nothing was written, but something may be on its way.
            Phase::Empty | Phase::Complete(_) if second_protocol && !commits => {}
            _ => return Err(codes::INVALID_TXN_STATE),
        }
        if second_protocol {
            let before = self.owner;
            self.bump(new_id);
            self.last = Some(before);
        }
        self.prepare(commits, now, delay);
        if second_protocol && self.marker.id != owner.id {
            // Epochs ran out: the markers still carry the old id.
            self.marker = Owner {
                id: owner.id,
                epoch: i16::MAX,
            };
        }
        Ok(self.owner)
    }

    fn prepare(&mut self, commits: bool, now: Instant, delay: Duration) {
        self.phase = Phase::Prepare(commits);
        self.marker = self.owner;
        self.completes = Some(now + delay);
        self.started = None;
    }

    /// Does what was to happen until now: gives up what is open for too long, and completes what is
    /// decided. The markers are to be written.
    pub(super) fn settle(&mut self, now: Instant, delay: Duration) -> Option<Markers> {
        let late = |started: Instant| now >= started + self.timeout;
        if self.phase == Phase::Ongoing && self.started.is_some_and(late) {
            // The owner is shut out with it.
            self.owner.epoch = self.owner.epoch.saturating_add(1);
            self.last = None;
            self.prepare(false, now, delay);
        }
        let Phase::Prepare(commits) = self.phase else {
            return None;
        };
        self.completes.take_if(|at| *at <= now)?;
        self.phase = Phase::Complete(commits);
        self.groups.clear();
        Some(Markers {
            owner: self.marker,
            commits,
            partitions: std::mem::take(&mut self.partitions),
            offsets: std::mem::take(&mut self.offsets),
        })
    }

    /// When `settle` has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Ongoing => self.started.map(|started| started + self.timeout),
            _ => self.completes,
        }
    }
}

/// The transactional ids of the cluster.
pub(super) type Transactions = BTreeMap<String, Transaction>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now;

    const SOON: Duration = Duration::from_secs(60);

    fn place() -> Place {
        ("t".to_owned(), 0)
    }

    fn owner(epoch: i16) -> Owner {
        Owner { id: 7, epoch }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_owner_ends_what_the_old_one_left_and_shuts_it_out() {
        let mut txn = Transaction::new(owner(0), SOON);
        txn.add(owner(0), [place()], now()).unwrap();
        let init = |txn: &mut Transaction| txn.init(None, SOON, 8, now(), Duration::ZERO);
        assert_eq!(init(&mut txn), Err(codes::CONCURRENT_TRANSACTIONS));
        let markers = txn.settle(now(), Duration::ZERO).unwrap();
        assert_eq!((markers.owner, markers.commits), (owner(1), false));
        assert_eq!(init(&mut txn), Ok(owner(2)));
        assert_eq!(
            txn.add(owner(0), [place()], now()),
            Err(codes::PRODUCER_FENCED)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_answered_again_as_before() {
        for second in [false, true] {
            let mut txn = Transaction::new(owner(0), SOON);
            txn.add(owner(0), [place()], now()).unwrap();
            let end = |txn: &mut Transaction, commits| {
                txn.end(owner(0), commits, second, 8, now(), Duration::ZERO)
            };
            let expected = owner(i16::from(second));
            assert_eq!(end(&mut txn, true), Ok(expected));
            assert_eq!(end(&mut txn, true), Err(codes::CONCURRENT_TRANSACTIONS));
            let markers = txn.settle(now(), Duration::ZERO).unwrap();
            assert_eq!((markers.owner, markers.commits), (expected, true));
            assert_eq!(end(&mut txn, true), Ok(expected));
            assert!(end(&mut txn, false).is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_open_for_too_long_is_given_up_and_its_owner_shut_out() {
        let mut txn = Transaction::new(owner(0), SOON);
        txn.add(owner(0), [place()], now()).unwrap();
        assert!(txn.settle(now(), Duration::ZERO).is_none());
        let later = txn.next_deadline().unwrap();
        let markers = txn.settle(later, Duration::ZERO).unwrap();
        assert_eq!((markers.owner, markers.commits), (owner(1), false));
        assert_eq!(
            txn.end(owner(0), true, true, 8, later, Duration::ZERO),
            Err(codes::PRODUCER_FENCED)
        );
    }
}
