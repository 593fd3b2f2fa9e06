//! One producer's transactions, as the coordinator and the application see them (KIP-98, KIP-447,
//! KIP-890).
//!
//! A machine: the driver does what [`TransactionMachine::poll`] asks for and hands answers back;
//! the application begins and ends transactions; senders ask whether a partition's batches may go.
//!
//! Invariants:
//!
//! - One request to a coordinator is under way at a time.
//! - A transaction is committed only if every record and every offset of it was acknowledged: once
//!   one was not, it can only be aborted.
//! - A commit is asked for when all of them are acknowledged, and an abort when nothing of the
//!   transaction can be sent any more: with the first protocol also not before all requests that
//!   carry its batches have ended, since a batch that comes after the marker would begin a
//!   transaction that nobody ends.
//! - Batches of a partition go only once the partition is part of the transaction. With the first
//!   protocol the coordinator is told (AddPartitionsToTxn), with the second (KIP-890) the partition
//!   leader tells it.
//! - The next transaction begins when the last one is over: with the second protocol its end has
//!   given another epoch; with the first the epoch is bumped (KIP-360) if sequence numbers were
//!   lost, or if the next one is to use the second protocol.
//! - What a commit whose answers were lost came to is asked again until the coordinator tells.

use std::collections::{BTreeSet, HashSet, VecDeque};

use crate::error::{Class, Error, ErrorKind, Result};
use crate::group::GroupMetadata;
use crate::producer::identity::Identity;
use crate::types::{OffsetAndMetadata, TopicPartition};
use crate::wire::codes;

use super::verdict::{Verdict, refuses_commit};

/// How transactions are done (`transaction.version` of the cluster).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// The coordinator is told of each partition and group beforehand.
    V1,
    /// KIP-890: partition leaders and group coordinators tell it, and each end gives a new epoch.
    V2,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransactionOutcome {
    /// Its records and offsets are visible, all of them.
    Committed,
    /// None of its records and offsets will be visible to `read_committed` consumers.
    Aborted,
    /// Either; the producer was shut out before the coordinator's answer came.
    Unknown,
}

/// Offsets that a transaction is to commit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GroupOffsets {
    pub(crate) id: u64,
    pub(crate) group: GroupMetadata,
    pub(crate) offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
}

/// A request to a coordinator.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Request {
    /// With the identity whose epoch is to be bumped, if there is one.
    InitProducerId(Option<Identity>),
    AddPartitions(Identity, Vec<TopicPartition>),
    AddOffsets(Identity, String),
    CommitOffsets(Identity, Protocol, GroupOffsets),
    End(Identity, Protocol, bool),
}

/// What the driver is to do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Send it until it is answered, and hand the answer in.
    Send(Request),
    /// Wait for the end of everything accepted, then call `flushed`.
    Flush,
    /// End records that no request has carried, with this error.
    DropUnsent(Error),
    /// End all records that have not ended, with this error; then call `dropped`.
    DropAll(Error),
    /// Wait until no request with batches is under way, then call `drained`.
    Drain,
    /// The offsets of that number are in the transaction, or not.
    Told(u64, Result<()>),
    /// The producer cannot go on.
    Fail(Error),
}

/// Why a request was refused for good.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// [`Verdict::Abort`], [`Verdict::Fenced`] or [`Verdict::Fatal`].
    pub(crate) verdict: Verdict,
    pub(crate) error: Error,
    pub(crate) code: Option<i16>,
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The identity that is told with it, if one is.
    pub(crate) result: Result<Option<Identity>, Refusal>,
    /// Whether an earlier attempt was not answered, and may have been carried out.
    pub(crate) unanswered: bool,
}

#[derive(Debug)]
enum State {
    /// Not initialised, and why the last attempt was refused.
    Refused(Error),
    Starting,
    Ready,
    Open,
    /// It can only be aborted; whether unsent records were dropped.
    Broken(Error, bool),
    Committing(Commit),
    Aborting(Abort),
    /// Over; the epoch is bumped before the next one.
    Bumping,
    Failed(Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commit {
    Begun,
    Flushing,
    Flushed,
    Asked,
}

#[derive(Debug)]
struct Abort {
    step: AbortStep,
    /// Why it is aborted although it was to be committed.
    cause: Option<Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AbortStep {
    Begun,
    Dropping,
    Dropped,
    Draining,
    Drained,
    Asked,
}

/// Whether the coordinator knows of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Started {
    No,
    Maybe,
    Yes,
}

/// How the last transaction ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) number: u64,
    pub(crate) outcome: TransactionOutcome,
    /// Why it was not committed although it was to be.
    pub(crate) cause: Option<Error>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct TransactionMachine {
    name: String,
    state: State,
    identity: Option<Identity>,
    /// What the cluster offers now.
    offered: Protocol,
    /// That of the transaction, or of the last one.
    protocol: Option<Protocol>,
    /// Transactions begun.
    number: u64,
    started: Started,
    wanted: BTreeSet<TopicPartition>,
    registered: HashSet<TopicPartition>,
    /// Groups that the coordinator was told of.
    groups: BTreeSet<String>,
    offsets: VecDeque<GroupOffsets>,
    offset_requests: u64,
    in_flight: bool,
    /// The epoch is to be bumped before the next transaction.
    bump: bool,
    ended: Option<Ended>,
    effects: VecDeque<Effect>,
}

impl TransactionMachine {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            state: State::Starting,
            identity: None,
            offered: Protocol::V1,
            protocol: None,
            number: 0,
            started: Started::No,
            wanted: BTreeSet::new(),
            registered: HashSet::new(),
            groups: BTreeSet::new(),
            offsets: VecDeque::new(),
            offset_requests: 0,
            in_flight: false,
            bump: false,
            ended: None,
            effects: VecDeque::new(),
        }
    }

    // What is there.

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// The number of the transaction that was begun last.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// Why the transaction of that number will not be committed, if that is decided.
    pub(crate) fn cause(&self, number: u64) -> Option<&Error> {
        match &self.state {
            State::Aborting(abort) if number == self.number => abort.cause.as_ref(),
            _ => None,
        }
    }

    /// Whether the first batches of transactions say whom they belong to.
    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol.unwrap_or(self.offered)
    }

    /// Whether nothing is under way: no transaction is open, and none is being ended.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(
            self.state,
            State::Ready | State::Refused(_) | State::Failed(_)
        )
    }

    /// Whether the transaction of that number is to be committed and waits for its records.
    pub(crate) fn is_flushing(&self, number: u64) -> bool {
        let waits = |step| matches!(step, Commit::Begun | Commit::Flushing);
        number == self.number && matches!(self.state, State::Committing(step) if waits(step))
    }

    /// Why there is no identity, or the producer cannot go on.
    pub(crate) fn refusal(&self) -> Option<Error> {
        match &self.state {
            State::Refused(error) | State::Failed(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// Why the producer cannot go on.
    pub(crate) fn failure(&self) -> Option<Error> {
        match &self.state {
            State::Failed(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// Whether the transaction cannot be committed any more.
    pub(crate) fn is_aborting(&self) -> bool {
        matches!(
            self.state,
            State::Broken(..) | State::Aborting(_) | State::Failed(_)
        )
    }

    /// Why the open transaction of that number cannot be committed any more.
    pub(crate) fn broken(&self, number: u64) -> Option<Error> {
        match &self.state {
            State::Broken(error, _) if number == self.number => Some(error.clone()),
            State::Failed(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// Whether records are accepted, and why not.
    pub(crate) fn intake(&self) -> Result<()> {
        match &self.state {
            State::Open => Ok(()),
            State::Broken(error, _) => Err(must_abort(error)),
            State::Failed(error) => Err(error.clone()),
            _ => Err(Error::new(
                ErrorKind::Transaction,
                format!("no transaction of '{}' is open", self.name),
            )),
        }
    }

    // What the application wants.

    /// Tries to get an identity again after that was refused.
    pub(crate) fn start(&mut self) {
        if let State::Refused(_) = self.state {
            self.state = match self.identity {
                Some(_) => State::Bumping,
                None => State::Starting,
            };
        }
    }

    /// Begins a transaction; `None` while the last one is being ended, or there is no identity yet.
    pub(crate) fn begin(&mut self) -> Option<Result<u64>> {
        match &self.state {
            State::Ready => {}
            State::Open | State::Broken(..) => {
                let message = format!(
                    "a transaction of '{}' is open: commit or abort it before another one begins",
                    self.name
                );
                return Some(Err(Error::new(ErrorKind::Transaction, message)));
            }
            State::Refused(error) | State::Failed(error) => return Some(Err(error.clone())),
            _ => return None,
        }
        self.protocol = Some(match (self.protocol, self.offered) {
            // Only after a bump, which its end will bring.
            (Some(Protocol::V1), Protocol::V2) => Protocol::V1,
            (_, offered) => offered,
        });
        self.number += 1;
        self.started = Started::No;
        self.wanted.clear();
        self.registered.clear();
        self.groups.clear();
        self.state = State::Open;
        Some(Ok(self.number))
    }

    /// Takes offsets into the transaction; their number.
    pub(crate) fn send_offsets(
        &mut self,
        group: GroupMetadata,
        offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
    ) -> Result<u64> {
        self.intake()?;
        self.offset_requests += 1;
        let id = self.offset_requests;
        self.offsets.push_back(GroupOffsets { id, group, offsets });
        Ok(id)
    }

    /// The transaction of that number is to be committed, or if it cannot be, aborted.
    pub(crate) fn commit(&mut self, number: u64) {
        if number != self.number {
            return;
        }
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Open => self.state = State::Committing(Commit::Begun),
            State::Broken(error, _) => self.abort_because(Some(error)),
            other => self.state = other,
        }
    }

    /// The transaction of that number is to be aborted.
    pub(crate) fn abort(&mut self, number: u64) {
        if number == self.number && matches!(self.state, State::Open | State::Broken(..)) {
            self.abort_because(None);
        }
    }

    fn abort_because(&mut self, cause: Option<Error>) {
        self.wanted.clear();
        self.state = State::Aborting(Abort {
            step: AbortStep::Begun,
            cause,
        });
    }

    // What happens.

    /// The cluster has another protocol now.
    pub(crate) fn offer(&mut self, offered: Protocol) {
        self.offered = offered;
    }

    /// Whether batches of the partition may be sent. If not yet, the coordinator is told of it.
    pub(crate) fn may_send(&mut self, tp: &TopicPartition) -> bool {
        let sending = matches!(
            self.state,
            State::Open | State::Broken(..) | State::Committing(_) | State::Aborting(_)
        );
        if !sending {
            return false;
        }
        if self.protocol == Some(Protocol::V2) || crate::planted("a-partition-is-not-registered") {
            self.started = self.started.max(Started::Maybe);
            return true;
        }
        if self.registered.contains(tp) {
            return true;
        }
        if matches!(self.state, State::Open | State::Committing(_)) && !self.wanted.contains(tp) {
            self.wanted.insert(tp.clone());
        }
        false
    }

    /// A batch of the transaction failed.
    pub(crate) fn batch_failed(&mut self, verdict: Verdict, error: &Error) {
        match verdict {
            Verdict::Fenced | Verdict::Fatal => self.fail(error.clone(), false),
            _ => {
                self.bump |= self.protocol == Some(Protocol::V1);
                self.break_off(error);
            }
        }
    }

    /// Sequence numbers of a partition are lost, so that nothing can be sent to it under this
    /// epoch.
    pub(crate) fn lost_sequence(&mut self) {
        if self.is_settled() {
            self.bump = true;
            if let State::Ready = self.state {
                self.state = State::Bumping;
            }
            return;
        }
        self.bump |= self.protocol == Some(Protocol::V1);
        self.break_off(&Error::new(
            ErrorKind::Sequence,
            "the sequence numbers of a partition are lost, because a batch before was given up",
        ));
    }

    /// The transaction cannot be committed any more.
    fn break_off(&mut self, error: &Error) {
        if crate::planted("a-commit-after-a-failed-send") {
            return;
        }
        match &self.state {
            State::Open => {
                tracing::debug!(transactional_id = self.name, %error, "to be aborted");
                self.state = State::Broken(error.clone(), false);
            }
            State::Committing(step) if *step != Commit::Asked => {
                self.abort_because(Some(error.clone()));
            }
            _ => {}
        }
    }

    /// Everything that was accepted has ended.
    pub(crate) fn flushed(&mut self) {
        if let State::Committing(step) = &mut self.state
            && *step == Commit::Flushing
        {
            *step = Commit::Flushed;
        }
    }

    /// All records were ended; whether some of them may have been written.
    pub(crate) fn dropped(&mut self, maybe_written: bool) {
        if let State::Aborting(abort) = &mut self.state
            && abort.step == AbortStep::Dropping
        {
            abort.step = AbortStep::Dropped;
            self.bump |= maybe_written && self.protocol == Some(Protocol::V1);
        }
    }

    /// No request with batches is under way any more.
    pub(crate) fn drained(&mut self) {
        if let State::Aborting(abort) = &mut self.state
            && abort.step == AbortStep::Draining
        {
            abort.step = AbortStep::Drained;
        }
    }

    /// The answer to the request under way.
    pub(crate) fn answered(&mut self, request: Request, answer: Answer) {
        self.in_flight = false;
        if let State::Failed(error) = &self.state {
            if let Request::CommitOffsets(_, _, offsets) = request {
                let told = Effect::Told(offsets.id, Err(error.clone()));
                self.effects.push_back(told);
            }
            return;
        }
        let Answer { result, unanswered } = answer;
        match request {
            Request::InitProducerId(_) => self.initialised(result),
            Request::AddPartitions(_, partitions) => {
                self.note_started(result.is_ok(), unanswered);
                match result {
                    Ok(_) => self.registered.extend(partitions),
                    Err(refusal) => self.refused(refusal),
                }
            }
            Request::AddOffsets(_, group) => {
                self.note_started(result.is_ok(), unanswered);
                match result {
                    Ok(_) => drop(self.groups.insert(group)),
                    Err(refusal) => self.refused(refusal),
                }
            }
            Request::CommitOffsets(_, _, offsets) => {
                self.note_started(result.is_ok(), unanswered);
                let told = match result {
                    Ok(_) => Ok(()),
                    Err(refusal) => {
                        let error = refusal.error.clone();
                        self.refused(refusal);
                        Err(must_abort(&error))
                    }
                };
                self.effects.push_back(Effect::Told(offsets.id, told));
            }
            Request::End(_, _, commits) => self.end_answered(commits, result, unanswered),
        }
    }

    fn note_started(&mut self, surely: bool, maybe: bool) {
        let started = match (surely, maybe) {
            (true, _) => Started::Yes,
            (false, true) => Started::Maybe,
            (false, false) => Started::No,
        };
        self.started = self.started.max(started);
    }

    fn initialised(&mut self, result: Result<Option<Identity>, Refusal>) {
        match result {
            Ok(identity) => {
                self.identity = identity;
                self.bump = false;
                if self.protocol == Some(Protocol::V1) {
                    // Under this epoch the coordinator knows of no partitions.
                    self.protocol = None;
                }
                self.state = State::Ready;
            }
            Err(refusal) => match refusal.verdict {
                Verdict::Fenced | Verdict::Fatal => self.fail(refusal.error, false),
                _ => self.state = State::Refused(refusal.error),
            },
        }
    }

    fn refused(&mut self, refusal: Refusal) {
        match refusal.verdict {
            Verdict::Fenced | Verdict::Fatal => self.fail(refusal.error, false),
            _ => {
                self.bump |= self.protocol == Some(Protocol::V1);
                self.break_off(&refusal.error);
            }
        }
    }

    fn end_answered(
        &mut self,
        commits: bool,
        result: Result<Option<Identity>, Refusal>,
        unanswered: bool,
    ) {
        let cause = match &mut self.state {
            State::Aborting(abort) => abort.cause.take(),
            _ => None,
        };
        let outcome = match commits {
            true => TransactionOutcome::Committed,
            false => TransactionOutcome::Aborted,
        };
        let refusal = match result {
            Ok(identity) => {
                if let Some(identity) = identity {
                    self.identity = Some(identity);
                    self.bump = false;
                }
                return self.end(outcome, cause);
            }
            Err(refusal) => refusal,
        };
        match refusal.verdict {
            Verdict::Abort if commits => self.abort_because(Some(refusal.error)),
            // The coordinator has nothing of it.
            Verdict::Abort => {
                self.bump = true;
                self.end(outcome, cause);
            }
            Verdict::Fatal
                if !commits
                    && self.started == Started::Maybe
                    && refusal.code == Some(codes::INVALID_TXN_STATE) =>
            {
                self.end(outcome, cause);
            }
            verdict => {
                let refused = refuses_commit(verdict, refusal.code) && !unanswered;
                let error = match refusal.code {
                    Some(codes::INVALID_TXN_STATE) if commits => refusal.error.context(
                        "the transaction has ended, as it does after transaction.timeout.ms",
                    ),
                    _ => refusal.error,
                };
                self.fail(error, commits && !refused);
            }
        }
    }

    fn end(&mut self, outcome: TransactionOutcome, cause: Option<Error>) {
        self.ended = Some(Ended {
            number: self.number,
            outcome,
            cause,
        });
        let upgrade = self.protocol == Some(Protocol::V1) && self.offered == Protocol::V2;
        let bump = self.bump && !crate::planted("no-bump-after-lost-sequences");
        self.state = match bump || upgrade {
            true => State::Bumping,
            false => State::Ready,
        };
    }

    /// The producer cannot go on. What was not committed by then never will be, unless its commit
    /// had been asked for.
    fn fail(&mut self, error: Error, maybe_committed: bool) {
        let error = error.with_class(Class::Fatal);
        let open = !self.is_settled() && !matches!(self.state, State::Starting | State::Bumping);
        if open {
            let outcome = match maybe_committed {
                true => TransactionOutcome::Unknown,
                false => TransactionOutcome::Aborted,
            };
            self.ended = Some(Ended {
                number: self.number,
                outcome,
                cause: Some(error.clone()),
            });
        }
        for offsets in self.offsets.drain(..) {
            let told = Effect::Told(offsets.id, Err(error.clone()));
            self.effects.push_back(told);
        }
        self.effects.push_back(Effect::Fail(error.clone()));
        self.state = State::Failed(error);
    }

    // What to do.

    /// What is to be done next; call until `None`.
    pub(crate) fn poll(&mut self) -> Option<Effect> {
        if let Some(effect) = self.effects.pop_front() {
            return Some(effect);
        }
        match &mut self.state {
            State::Broken(error, dropped) if !*dropped => {
                *dropped = true;
                return Some(Effect::DropUnsent(aborted(Some(error))));
            }
            State::Committing(step)
                if *step == Commit::Begun
                    && crate::planted("a-commit-does-not-wait-for-records") =>
            {
                *step = Commit::Flushed;
            }
            State::Committing(step) if *step == Commit::Begun => {
                *step = Commit::Flushing;
                return Some(Effect::Flush);
            }
            State::Aborting(abort) if abort.step == AbortStep::Begun => {
                abort.step = AbortStep::Dropping;
                return Some(Effect::DropAll(aborted(abort.cause.as_ref())));
            }
            State::Aborting(abort) if abort.step == AbortStep::Dropped => {
                if self.protocol == Some(Protocol::V2)
                    || crate::planted("an-abort-overtakes-its-batches")
                {
                    abort.step = AbortStep::Drained;
                } else {
                    abort.step = AbortStep::Draining;
                    return Some(Effect::Drain);
                }
            }
            _ => {}
        }
        if let State::Broken(..) | State::Aborting(_) = self.state
            && !self.in_flight
            && let Some(offsets) = self.offsets.pop_front()
        {
            let error = match &self.state {
                State::Broken(error, _) => must_abort(error),
                _ => aborted(None),
            };
            return Some(Effect::Told(offsets.id, Err(error)));
        }
        match self.in_flight {
            true => None,
            false => self.next_request().map(|request| {
                self.in_flight = true;
                Effect::Send(request)
            }),
        }
    }

    fn next_request(&mut self) -> Option<Request> {
        match &self.state {
            State::Starting => return Some(Request::InitProducerId(None)),
            State::Bumping => return Some(Request::InitProducerId(self.identity)),
            _ => {}
        }
        let (identity, protocol) = (self.identity?, self.protocol?);
        match &mut self.state {
            State::Open | State::Committing(_) if !self.wanted.is_empty() => {
                let partitions = std::mem::take(&mut self.wanted);
                let partitions = partitions.into_iter().collect();
                Some(Request::AddPartitions(identity, partitions))
            }
            State::Open | State::Committing(_)
                if !self.offsets.is_empty()
                    && !crate::planted("a-commit-does-not-wait-for-offsets") =>
            {
                let offsets = self.offsets.front()?;
                let group = offsets.group.group_id();
                if protocol == Protocol::V1 && !self.groups.contains(group) {
                    return Some(Request::AddOffsets(identity, group.to_owned()));
                }
                let offsets = self.offsets.pop_front()?;
                Some(Request::CommitOffsets(identity, protocol, offsets))
            }
            State::Committing(step) if *step == Commit::Flushed => match self.started {
                Started::No => {
                    self.end(TransactionOutcome::Committed, None);
                    self.next_request()
                }
                _ => {
                    *step = Commit::Asked;
                    Some(Request::End(identity, protocol, true))
                }
            },
            State::Aborting(abort) if abort.step == AbortStep::Drained => match self.started {
                _ if crate::planted("an-abort-is-not-told") => {
                    self.end(TransactionOutcome::Aborted, None);
                    None
                }
                Started::No => {
                    let cause = abort.cause.take();
                    self.end(TransactionOutcome::Aborted, cause);
                    self.next_request()
                }
                _ => {
                    abort.step = AbortStep::Asked;
                    Some(Request::End(identity, protocol, false))
                }
            },
            _ => None,
        }
    }
}

/// The error of calls in a transaction that can only be aborted.
fn must_abort(error: &Error) -> Error {
    match error.class() {
        Class::Fatal => error.clone(),
        _ => error
            .clone()
            .without_certainty()
            .context("the transaction has to be aborted")
            .with_class(Class::Abortable),
    }
}

/// The error of records that are given up with their transaction.
fn aborted(cause: Option<&Error>) -> Error {
    match cause {
        None => Error::new(ErrorKind::Purged, "the transaction was aborted"),
        Some(cause) => Error::new(
            ErrorKind::Purged,
            format!("the record is given up with its transaction: {cause}"),
        )
        .with_source(cause.clone()),
    }
}
