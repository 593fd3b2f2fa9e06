//! The machine against a model of a coordinator, over random orders of sends, answers, losses,
//! refusals and fences; and single steps.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::machine::*;
use super::verdict::Verdict;
use crate::error::{Error, ErrorKind};
use crate::group::GroupMetadata;
use crate::producer::identity::Identity;
use crate::types::{OffsetAndMetadata, TopicPartition};

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn error(text: &'static str) -> Error {
    Error::new(ErrorKind::Authorization, text)
}

fn refusal(verdict: Verdict) -> Result<Option<Identity>, Refusal> {
    Err(Refusal {
        verdict,
        error: error("refused"),
        code: None,
    })
}

/// What the coordinator and the logs have.
#[derive(Default)]
struct Coordinator {
    epoch: i16,
    open: bool,
    partitions: BTreeSet<i32>,
    groups: BTreeSet<String>,
    /// What the last end of the present epoch was, for repetitions.
    last_end: Option<(i16, bool)>,
    committed: BTreeMap<u64, bool>,
    /// Records in the logs by transaction: all of it must be acknowledged before a commit.
    written: BTreeMap<u64, usize>,
    fenced: bool,
}

struct World {
    machine: TransactionMachine,
    rng: StdRng,
    coordinator: Coordinator,
    offered: Protocol,
    asked: Option<Request>,
    flushing: bool,
    draining: bool,
    /// Batches not sent yet, and those under way, by partition.
    unsent: Vec<i32>,
    under_way: Vec<(i32, u64)>,
    /// Of the open transaction: accepted, acknowledged, failed.
    accepted: usize,
    acknowledged: usize,
    failed: bool,
    offsets: BTreeMap<u64, bool>,
    outcomes: BTreeMap<u64, TransactionOutcome>,
    wanted: BTreeMap<u64, bool>,
    told_fatal: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let offered = match rng.random_bool(0.5) {
            true => Protocol::V1,
            false => Protocol::V2,
        };
        Self {
            machine: TransactionMachine::new("tx".to_owned()),
            rng,
            coordinator: Coordinator::default(),
            offered,
            asked: None,
            flushing: false,
            draining: false,
            unsent: Vec::new(),
            under_way: Vec::new(),
            accepted: 0,
            acknowledged: 0,
            failed: false,
            offsets: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            wanted: BTreeMap::new(),
            told_fatal: false,
        }
    }

    fn number(&self) -> u64 {
        self.machine.number()
    }

    fn drive(&mut self) {
        self.machine.offer(self.offered);
        while let Some(effect) = self.machine.poll() {
            match effect {
                Effect::Send(request) => {
                    assert!(self.asked.is_none(), "two requests at once");
                    self.check(&request);
                    self.asked = Some(request);
                }
                Effect::Flush => self.flushing = true,
                Effect::Drain => self.draining = true,
                Effect::DropUnsent(error) => {
                    assert_eq!(error.kind(), ErrorKind::Purged);
                    self.unsent.clear();
                }
                Effect::DropAll(_) => {
                    self.unsent.clear();
                    self.flushing = false;
                    // What is under way stays so; its records have ended.
                    self.machine.dropped(!self.under_way.is_empty());
                }
                Effect::Told(id, result) => {
                    let known = self.offsets.insert(id, result.is_ok());
                    assert_eq!(known, None, "told twice");
                }
                Effect::Fail(error) => {
                    assert!(error.is_fatal());
                    self.told_fatal = true;
                }
            }
        }
        if self.flushing && self.unsent.is_empty() && self.under_way.is_empty() {
            self.flushing = false;
            self.machine.flushed();
            self.drive();
        }
        if self.draining && self.under_way.is_empty() {
            self.draining = false;
            self.machine.drained();
            self.drive();
        }
        let number = self.number();
        if let Some(ended) = self.machine.ended() {
            let known = self.outcomes.insert(ended.number, ended.outcome);
            assert!(known.is_none_or(|known| known == ended.outcome));
            if ended.number == number {
                let committed = self.coordinator.committed.get(&number).copied();
                match ended.outcome {
                    TransactionOutcome::Committed => {
                        let empty = self.accepted == 0 && !self.has_offsets();
                        assert!(committed == Some(true) || empty, "{committed:?}");
                        assert!(!self.failed, "committed after a failure");
                    }
                    TransactionOutcome::Aborted => assert_ne!(committed, Some(true)),
                    TransactionOutcome::Unknown => assert!(self.told_fatal),
                }
            }
        }
    }

    fn has_offsets(&self) -> bool {
        self.offsets.values().any(|taken| *taken)
    }

    /// What must hold when a request goes.
    fn check(&mut self, request: &Request) {
        match request {
            Request::End(_, protocol, true) => {
                assert!(self.unsent.is_empty() && self.under_way.is_empty());
                assert!(!self.failed, "a commit although something failed");
                assert_eq!(self.accepted, self.acknowledged);
                let all = self.offsets.values().all(|taken| *taken);
                assert!(all, "a commit although offsets were refused");
                let _ = protocol;
            }
            Request::End(_, protocol, false) => {
                assert!(self.unsent.is_empty());
                if *protocol == Protocol::V1 {
                    assert!(
                        self.under_way.is_empty(),
                        "a batch may come after the marker"
                    );
                }
            }
            Request::AddPartitions(_, partitions) => {
                assert_eq!(self.machine.protocol(), Protocol::V1);
                assert!(!partitions.is_empty());
            }
            Request::AddOffsets(..) => assert_eq!(self.machine.protocol(), Protocol::V1),
            _ => {}
        }
    }

    /// The coordinator carries a request out.
    fn carry_out(&mut self, request: &Request) -> Result<Option<Identity>, Refusal> {
        let number = self.number();
        let c = &mut self.coordinator;
        let current = |identity: &Identity| identity.epoch == c.epoch;
        match request {
            Request::InitProducerId(None) => {
                c.epoch += 1;
                Ok(Some(Identity {
                    id: 1,
                    epoch: c.epoch,
                }))
            }
            Request::InitProducerId(Some(identity)) => {
                assert!(!c.open, "a bump within a transaction fences its owner");
                if !current(identity) && identity.epoch + 1 != c.epoch {
                    return refusal(Verdict::Fenced);
                }
                c.epoch = identity.epoch + 1;
                Ok(Some(Identity {
                    id: 1,
                    epoch: c.epoch,
                }))
            }
            Request::AddPartitions(identity, partitions) => {
                assert!(current(identity));
                c.open = true;
                c.partitions
                    .extend(partitions.iter().map(|tp| tp.partition));
                Ok(None)
            }
            Request::AddOffsets(identity, group) => {
                assert!(current(identity));
                c.open = true;
                c.groups.insert(group.clone());
                Ok(None)
            }
            Request::CommitOffsets(identity, protocol, offsets) => {
                assert!(current(identity));
                if *protocol == Protocol::V1 {
                    assert!(c.groups.contains(offsets.group.group_id()));
                }
                c.open = true;
                Ok(None)
            }
            Request::End(identity, protocol, commits) => {
                let bumps = *protocol == Protocol::V2;
                let epoch = identity.epoch;
                let again = c.last_end == Some((epoch, *commits));
                if !again {
                    assert!(current(identity));
                    if !c.open && *protocol == Protocol::V1 {
                        return Err(Refusal {
                            verdict: Verdict::Fatal,
                            error: error("INVALID_TXN_STATE"),
                            code: Some(crate::wire::codes::INVALID_TXN_STATE),
                        });
                    }
                    c.committed.insert(number, *commits);
                    c.open = false;
                    c.partitions.clear();
                    c.groups.clear();
                    c.epoch += i16::from(bumps);
                    c.last_end = bumps.then_some((epoch, *commits));
                }
                Ok(bumps.then_some(Identity {
                    id: 1,
                    epoch: c.epoch,
                }))
            }
        }
    }

    fn answer(&mut self, calm: bool) {
        let Some(request) = self.asked.take() else {
            return;
        };
        let trouble = match calm {
            true => 0,
            false => self.rng.random_range(0..20),
        };
        let answer = match trouble {
            // Carried out, the answer lost, and asked again.
            1..4 => {
                let _ = self.carry_out(&request);
                Answer {
                    result: self.carry_out(&request),
                    unanswered: true,
                }
            }
            4 if !matches!(
                request,
                Request::InitProducerId(_) | Request::End(_, _, false)
            ) =>
            {
                Answer {
                    result: refusal(Verdict::Abort),
                    unanswered: false,
                }
            }
            // Another owner: it aborts what is open.
            5 if self.rng.random_bool(0.2) => {
                self.coordinator.fenced = true;
                Answer {
                    result: refusal(Verdict::Fenced),
                    unanswered: false,
                }
            }
            _ => Answer {
                result: self.carry_out(&request),
                unanswered: false,
            },
        };
        if answer.result.is_err() && !matches!(request, Request::InitProducerId(_)) {
            self.failed = true;
        }
        self.machine.answered(request, answer);
        self.drive();
    }

    /// A sender looks at what is to be sent.
    fn send(&mut self) {
        let number = self.number();
        let mut left = Vec::new();
        for partition in std::mem::take(&mut self.unsent) {
            if !self.machine.may_send(&tp(partition)) {
                left.push(partition);
                continue;
            }
            let c = &mut self.coordinator;
            match self.machine.protocol() {
                Protocol::V1 => assert!(c.partitions.contains(&partition), "not registered"),
                Protocol::V2 => c.open = true,
            }
            *c.written.entry(number).or_default() += 1;
            self.under_way.push((partition, number));
        }
        self.unsent = left;
        self.drive();
    }

    fn batch_answer(&mut self, calm: bool) {
        if self.under_way.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.under_way.len());
        let (_, number) = self.under_way.swap_remove(at);
        let fails = !calm && self.rng.random_bool(0.1);
        if number == self.number() {
            if fails {
                self.failed = true;
                let verdict = match self.rng.random_range(0..20) {
                    0 => Verdict::Fatal,
                    _ => Verdict::Abort,
                };
                self.machine.batch_failed(verdict, &error("a batch"));
            } else {
                self.acknowledged += 1;
            }
        }
        self.drive();
    }

    fn step(&mut self) {
        match self.rng.random_range(0..12) {
            0 => {
                if let Some(Ok(number)) = self.machine.begin() {
                    self.accepted = 0;
                    self.acknowledged = 0;
                    self.failed = false;
                    self.offsets.clear();
                    self.wanted.insert(number, true);
                    assert!(self.unsent.is_empty(), "records of the last transaction");
                }
                self.drive();
            }
            1..4 => {
                if self.machine.intake().is_ok() {
                    let partition = self.rng.random_range(0..4);
                    self.unsent.push(partition);
                    self.accepted += 1;
                }
            }
            4 => {
                let offsets = vec![(tp(0), OffsetAndMetadata::new(7))];
                let _ = self
                    .machine
                    .send_offsets(GroupMetadata::of_group("g"), offsets);
                self.drive();
            }
            5 if self.rng.random_bool(0.5) => {
                let number = self.number();
                match self.rng.random_bool(0.7) {
                    true => self.machine.commit(number),
                    false => self.machine.abort(number),
                }
                self.drive();
            }
            6 if self.rng.random_bool(0.05) => {
                self.offered = Protocol::V2;
                self.drive();
            }
            7..9 => self.send(),
            9 => self.batch_answer(false),
            _ => self.answer(false),
        }
    }

    /// Whatever happened, it comes to an end.
    fn finish(&mut self) {
        let number = self.number();
        self.machine.commit(number);
        self.drive();
        for _ in 0..200 {
            self.send();
            self.batch_answer(true);
            self.answer(true);
        }
        assert!(self.machine.is_settled(), "{:?}", self.machine);
        if number > 0 {
            assert!(self.outcomes.contains_key(&number), "{:?}", self.machine);
        }
        assert_eq!(self.machine.failure().is_some(), self.told_fatal);
    }
}

#[test]
fn every_order_of_answers_losses_and_fences_keeps_the_promises() {
    let mut committed = 0;
    let mut aborted = 0;
    for seed in 0..3000 {
        let mut world = World::new(seed);
        world.drive();
        for _ in 0..150 {
            world.step();
        }
        world.finish();
        for outcome in world.outcomes.values() {
            match outcome {
                TransactionOutcome::Committed => committed += 1,
                TransactionOutcome::Aborted => aborted += 1,
                TransactionOutcome::Unknown => {}
            }
        }
    }
    assert!(committed > 3000 && aborted > 3000, "{committed} {aborted}");
}

fn ready(protocol: Protocol) -> TransactionMachine {
    let mut machine = TransactionMachine::new("tx".to_owned());
    machine.offer(protocol);
    let Some(Effect::Send(request)) = machine.poll() else {
        panic!("no InitProducerId")
    };
    assert!(machine.begin().is_none(), "not before there is an identity");
    machine.answered(request, given(0));
    machine
}

fn given(epoch: i16) -> Answer {
    Answer {
        result: Ok(Some(Identity { id: 1, epoch })),
        unanswered: false,
    }
}

fn done() -> Answer {
    Answer {
        result: Ok(None),
        unanswered: false,
    }
}

fn request(machine: &mut TransactionMachine) -> Request {
    match machine.poll() {
        Some(Effect::Send(request)) => request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_transaction_without_anything_asks_nothing() {
    for protocol in [Protocol::V1, Protocol::V2] {
        let mut machine = ready(protocol);
        let number = machine.begin().unwrap().unwrap();
        machine.commit(number);
        assert!(matches!(machine.poll(), Some(Effect::Flush)));
        machine.flushed();
        assert!(machine.poll().is_none());
        let ended = machine.ended().unwrap();
        assert_eq!(
            (ended.number, ended.outcome),
            (1, TransactionOutcome::Committed)
        );
        assert_eq!(machine.begin().unwrap().unwrap(), 2);
    }
}

#[test]
fn partitions_of_one_moment_share_a_request() {
    let mut machine = ready(Protocol::V1);
    let _ = machine.begin();
    assert!(!machine.may_send(&tp(0)));
    assert!(!machine.may_send(&tp(1)));
    let asked = request(&mut machine);
    assert!(matches!(&asked, Request::AddPartitions(_, two) if two.len() == 2));
    assert!(!machine.may_send(&tp(2)) && machine.poll().is_none());
    machine.answered(asked, done());
    assert!(machine.may_send(&tp(0)) && machine.may_send(&tp(1)));
    let next = request(&mut machine);
    assert!(matches!(&next, Request::AddPartitions(_, one) if *one == [tp(2)]));
}

#[test]
fn begin_twice_is_an_error_and_a_begin_after_an_end_waits_for_it() {
    let mut machine = ready(Protocol::V2);
    let number = machine.begin().unwrap().unwrap();
    let error = machine.begin().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transaction);
    assert!(machine.may_send(&tp(0)));
    machine.abort(number);
    assert!(machine.begin().is_none());
    assert!(matches!(machine.poll(), Some(Effect::DropAll(_))));
    machine.dropped(true);
    let end = request(&mut machine);
    assert!(matches!(end, Request::End(_, Protocol::V2, false)));
    machine.answered(end, given(1));
    assert!(
        machine.poll().is_none(),
        "the end gave another epoch: no bump"
    );
    assert_eq!(machine.identity(), Some(Identity { id: 1, epoch: 1 }));
    assert!(machine.begin().unwrap().is_ok());
}

#[test]
fn a_cluster_that_moves_to_the_second_protocol_costs_one_bump() {
    let mut machine = ready(Protocol::V1);
    let number = machine.begin().unwrap().unwrap();
    machine.offer(Protocol::V2);
    assert!(!machine.may_send(&tp(0)), "it goes on as it began");
    let add = request(&mut machine);
    machine.answered(add, done());
    machine.commit(number);
    assert!(matches!(machine.poll(), Some(Effect::Flush)));
    machine.flushed();
    let end = request(&mut machine);
    assert!(matches!(end, Request::End(_, Protocol::V1, true)));
    machine.answered(end, done());
    let bump = request(&mut machine);
    assert!(matches!(bump, Request::InitProducerId(Some(_))));
    machine.answered(bump, given(1));
    let _ = machine.begin().unwrap().unwrap();
    assert_eq!(machine.protocol(), Protocol::V2);
}

#[test]
fn lost_sequences_cost_an_abort_and_a_bump_with_the_first_protocol() {
    let mut machine = ready(Protocol::V1);
    let number = machine.begin().unwrap().unwrap();
    assert!(!machine.may_send(&tp(0)));
    let add = request(&mut machine);
    machine.answered(add, done());
    machine.batch_failed(Verdict::Abort, &error("lost"));
    assert!(matches!(machine.poll(), Some(Effect::DropUnsent(_))));
    let refused = machine.intake().unwrap_err();
    assert_eq!(refused.class(), crate::Class::Abortable);
    assert_eq!(refused.kind(), ErrorKind::Authorization);
    machine.commit(number);
    assert!(machine.cause(number).is_some(), "known at once");
    assert!(matches!(machine.poll(), Some(Effect::DropAll(_))));
    machine.dropped(false);
    assert!(matches!(machine.poll(), Some(Effect::Drain)));
    machine.drained();
    let end = request(&mut machine);
    assert!(matches!(end, Request::End(_, Protocol::V1, false)));
    machine.answered(end, done());
    let bump = request(&mut machine);
    assert!(matches!(bump, Request::InitProducerId(Some(_))));
    machine.answered(bump, given(1));
    assert!(machine.begin().unwrap().is_ok());
}

/// A coordinator that refuses a commit has not committed, unless it was asked before and not heard.
#[test]
fn a_refused_commit_is_unknown_only_if_it_may_have_been_carried_out() {
    const INVALID_TXN_STATE: Option<i16> = Some(48);
    const UNKNOWN_SERVER_ERROR: Option<i16> = Some(-1);
    for (verdict, code, unanswered, outcome) in [
        (Verdict::Fenced, None, true, TransactionOutcome::Unknown),
        (Verdict::Fenced, None, false, TransactionOutcome::Aborted),
        // With the second protocol, after `transaction.timeout.ms`.
        (
            Verdict::Fatal,
            INVALID_TXN_STATE,
            true,
            TransactionOutcome::Unknown,
        ),
        (
            Verdict::Fatal,
            INVALID_TXN_STATE,
            false,
            TransactionOutcome::Aborted,
        ),
        (
            Verdict::Fatal,
            UNKNOWN_SERVER_ERROR,
            false,
            TransactionOutcome::Unknown,
        ),
    ] {
        let mut machine = ready(Protocol::V2);
        let number = machine.begin().unwrap().unwrap();
        assert!(machine.may_send(&tp(0)));
        machine.commit(number);
        assert!(matches!(machine.poll(), Some(Effect::Flush)));
        machine.flushed();
        let end = request(&mut machine);
        let error = error("refused");
        let answer = Answer {
            result: Err(Refusal {
                verdict,
                error,
                code,
            }),
            unanswered,
        };
        machine.answered(end, answer);
        let ended = machine.ended().unwrap();
        assert_eq!(ended.outcome, outcome, "{code:?} {unanswered}");
        let says = ended.cause.as_ref().unwrap().to_string();
        assert_eq!(
            says.contains("transaction.timeout.ms"),
            code == INVALID_TXN_STATE
        );
        assert!(machine.begin().unwrap().unwrap_err().is_fatal());
    }
}

#[test]
fn a_refused_identity_is_asked_for_again() {
    let mut machine = TransactionMachine::new("tx".to_owned());
    let asked = request(&mut machine);
    let answer = Answer {
        result: refusal(Verdict::Abort),
        unanswered: false,
    };
    machine.answered(asked, answer);
    assert!(machine.begin().unwrap().is_err() && machine.poll().is_none());
    machine.start();
    assert!(machine.begin().is_none());
    assert!(matches!(
        request(&mut machine),
        Request::InitProducerId(None)
    ));
}
