//! [`PartitionQueue`] against a model of brokers, in thousands of random runs.
//!
//! The model has several brokers that share one log (replication is perfect), a connection to each
//! that keeps order, connections that break with requests on the way (some of which are still
//! processed later: zombies), refusals before and after the append, leader moves and time-outs. It
//! remembers five batches per producer, as a broker does. The topic may be deleted and made anew
//! (requests name it by its id, and those under the old id are refused), the application may purge
//! what it sent, and a broker forgets who has been silent for long.

use std::collections::{BTreeMap, VecDeque};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::sending::{SILENCE, advance};
use super::*;
use crate::clock::now;
use crate::error::Certainty;

#[derive(Clone, Debug)]
struct Batch(Vec<u64>);

impl Payload for Batch {
    fn records(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap()
    }

    fn bytes(&self) -> usize {
        self.0.len() * 10
    }
}

/// The producer state and log of one partition, as its leader has them.
#[derive(Default)]
struct Log {
    /// The topic's id.
    id: u32,
    records: Vec<u64>,
    /// By producer id: the epoch and the last five batches (first and last sequence).
    producers: BTreeMap<i64, (i16, VecDeque<(i32, i32)>)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Appended {
    Written,
    OutOfSequence,
    StaleEpoch,
}

impl Log {
    fn append(&mut self, stamp: Option<Stamp>, records: &[u64]) -> Appended {
        if let Some(Stamp { identity, sequence }) = stamp {
            let last = advance(sequence, u32::try_from(records.len() - 1).unwrap());
            let (epoch, batches) = self
                .producers
                .entry(identity.id)
                .or_insert_with(|| (identity.epoch, VecDeque::new()));
            if identity.epoch < *epoch {
                return Appended::StaleEpoch;
            }
            if identity.epoch == *epoch && batches.contains(&(sequence, last)) {
                return Appended::Written;
            }
            let follows = if identity.epoch > *epoch {
                sequence == 0
            } else {
                batches
                    .back()
                    .is_none_or(|(_, end)| sequence == advance(*end, 1))
            };
            if !follows {
                return Appended::OutOfSequence;
            }
            if identity.epoch > *epoch {
                *epoch = identity.epoch;
                batches.clear();
            }
            batches.push_back((sequence, last));
            if batches.len() > 5 {
                batches.pop_front();
            }
        }
        self.records.extend_from_slice(records);
        Appended::Written
    }
}

struct Request {
    id: BatchId,
    topic: u32,
    stamp: Option<Stamp>,
    records: Vec<u64>,
}

struct World {
    rng: StdRng,
    rules: Rules,
    now: Instant,
    queue: PartitionQueue<Batch, Batch>,
    log: Log,
    /// Of topics deleted.
    old_logs: Vec<Vec<u64>>,
    /// The topic's id as the client knows it.
    topic: u32,
    leader: usize,
    identity: Identity,
    /// Per broker, in order of sending.
    wires: Vec<VecDeque<Request>>,
    /// What brokers read from connections that are lost, and will process whenever they come to it.
    zombies: Vec<(usize, VecDeque<Request>)>,
    /// Answers that were given and not read yet, in order, per broker.
    answers: Vec<VecDeque<(BatchId, Answer)>>,
    next_record: u64,
    compressing: VecDeque<(BatchId, Batch)>,
    acknowledged: Vec<u64>,
    not_sent: Vec<u64>,
    maybe: Vec<u64>,
    calm: bool,
    max_records: usize,
    in_flight_seen: usize,
    silences: usize,
}

impl World {
    fn new(seed: u64, rules: Rules) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let max_records = rng.random_range(1..6);
        let mut queue = PartitionQueue::new();
        queue.set_leader(Some(BrokerId(0)));
        Self {
            rng,
            rules,
            now: now(),
            queue,
            log: Log::default(),
            old_logs: Vec::new(),
            topic: 0,
            leader: 0,
            identity: Identity { id: 1, epoch: 0 },
            wires: (0..3).map(|_| VecDeque::new()).collect(),
            zombies: Vec::new(),
            answers: (0..3).map(|_| VecDeque::new()).collect(),
            next_record: 0,
            compressing: VecDeque::new(),
            acknowledged: Vec::new(),
            not_sent: Vec::new(),
            maybe: Vec::new(),
            calm: false,
            max_records,
            in_flight_seen: 0,
            silences: 0,
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..22 => self.append(),
            22..30 => self.seal_compressed(),
            30..55 => self.send(),
            55..69 => self.process(),
            69..72 => self.process_zombie(),
            72..88 => self.read_answer(),
            88..92 => self.break_connection(),
            92..94 => self.move_leader(),
            94..97 => self.pass_time(),
            97 if self.chance(50) => self.purge(),
            97 if self.chance(50) => self.make_anew(),
            97 => self.be_silent(),
            _ => self.learn_leader(),
        }
    }

    fn append(&mut self) {
        if self.queue.open_mut().is_none() {
            self.queue.set_open(self.now, Batch(Vec::new()));
        }
        let batch = self.queue.open_mut().unwrap();
        batch.0.push(self.next_record);
        self.next_record += 1;
        let full = batch.0.len() >= self.max_records;
        if self.chance(20) {
            self.queue.await_open();
        }
        if full {
            let taken = self.queue.take_open().unwrap();
            self.compressing.push_back(taken);
        }
    }

    fn seal_compressed(&mut self) {
        // In any order: callers compress at their own pace.
        let count = self.compressing.len();
        if count > 0 {
            let index = self.rng.random_range(0..count);
            let (id, batch) = self.compressing.remove(index).unwrap();
            if let Err(purged) = self.queue.seal(id, batch) {
                self.not_sent.extend(purged.0);
            }
        }
    }

    fn purge(&mut self) {
        let mut out = Vec::new();
        let sent = self.chance(50);
        if let Some(open) = self.queue.purge(sent, &mut out) {
            self.not_sent.extend(open.0);
        }
        let certain = |end| matches!(end, BatchOutcome::Failed(Certainty::NotSent, Why::Purged));
        assert!(sent || out.iter().all(|finished| certain(finished.end)));
        self.finish(out);
    }

    fn be_silent(&mut self) {
        self.come_to_rest();
        self.now += SILENCE;
        self.log.producers.clear();
        self.silences += 1;
    }

    /// Nothing fails any more, and everything must come to an end, within the delivery time.
    fn come_to_rest(&mut self) {
        self.calm = true;
        for _ in 0..100_000 {
            if self.queue.is_empty() && self.compressing.is_empty() {
                break;
            }
            match self.rng.random_range(0..6) {
                0 => self.seal_compressed(),
                1 => self.send(),
                2 => self.process(),
                3 => self.read_answer(),
                4 => self.learn_leader(),
                _ if self.chance(10) => self.pass_time(),
                _ => self.process_zombie(),
            }
        }
        assert!(self.queue.is_empty(), "stuck: {:?}", self.queue);
        assert_eq!(self.queue.in_flight(), 0);
        while !self.zombies.is_empty() {
            self.process_zombie();
        }
        self.calm = false;
    }

    fn make_anew(&mut self) {
        let anew = Log {
            id: self.log.id + 1,
            ..Log::default()
        };
        let old = std::mem::replace(&mut self.log, anew);
        self.old_logs.push(old.records);
    }

    fn send(&mut self) {
        // Any sender may ask; only the leader's gets something.
        let broker = self.rng.random_range(0..3);
        for _ in 0..self.rng.random_range(1..7) {
            let due = self.calm;
            let next = self.queue.next(
                &self.rules,
                self.now,
                BrokerId(broker),
                self.rules.idempotent.then_some(self.identity),
                1000,
                due,
            );
            match next {
                Next::Send { id, batch, stamp } => {
                    let records = batch.0.clone();
                    self.wires[usize::try_from(broker).unwrap()].push_back(Request {
                        id,
                        topic: self.topic,
                        stamp,
                        records,
                    });
                }
                Next::SealOpen => {
                    let (id, batch) = self.queue.take_open().unwrap();
                    self.queue.seal(id, batch).unwrap();
                }
                Next::NeedsIdentity(spent) => {
                    let spent = spent.expect("an identity was offered");
                    assert!(spent.identity >= self.identity);
                    self.identity = if spent.fenced {
                        Identity {
                            id: self.identity.id + 1,
                            epoch: 0,
                        }
                    } else {
                        Identity {
                            id: self.identity.id,
                            epoch: spent.identity.epoch + 1,
                        }
                    };
                }
                Next::NoRoom => panic!("there is room"),
                Next::Nothing => break,
            }
            self.in_flight_seen = self.in_flight_seen.max(self.queue.in_flight());
            assert!(self.queue.in_flight() <= self.rules.max_in_flight);
        }
    }

    /// A broker takes the next request from its connection.
    fn process(&mut self) {
        let broker = self.rng.random_range(0..3_usize);
        if let Some(request) = self.wires[broker].pop_front() {
            let answer = self.handle(broker, &request);
            self.answers[broker].push_back((request.id, answer));
        }
    }

    /// A broker takes the next request that it had read from a connection lost meanwhile.
    fn process_zombie(&mut self) {
        let count = self.zombies.len();
        if count > 0 {
            let index = self.rng.random_range(0..count);
            let (broker, requests) = &mut self.zombies[index];
            let broker = *broker;
            match requests.pop_front() {
                Some(request) => drop(self.handle(broker, &request)),
                None => drop(self.zombies.remove(index)),
            }
        }
    }

    fn handle(&mut self, broker: usize, request: &Request) -> Answer {
        let roll = if self.calm {
            100
        } else {
            self.rng.random_range(0..100)
        };
        if request.topic != self.log.id {
            // Such as when the topic is deleted while replicas are waited for.
            Answer::Again(Certainty::MaybeWritten)
        } else if broker != self.leader || roll < 4 {
            Answer::Again(Certainty::NotSent)
        } else if roll < 5 {
            Answer::Refused(Certainty::NotSent)
        } else if roll < 7 && request.records.len() > 1 {
            Answer::TooLarge
        } else {
            match self.log.append(request.stamp, &request.records) {
                // Such as NOT_ENOUGH_REPLICAS_AFTER_APPEND, or the leader moves while replicas are
                // waited for.
                Appended::Written if roll < 14 => Answer::Again(Certainty::MaybeWritten),
                Appended::Written => Answer::Written,
                Appended::OutOfSequence => Answer::OutOfSequence,
                Appended::StaleEpoch => Answer::StaleEpoch,
            }
        }
    }

    fn read_answer(&mut self) {
        let broker = self.rng.random_range(0..3_usize);
        if let Some((id, answer)) = self.answers[broker].pop_front() {
            self.settle(id, answer);
        }
    }

    fn settle(&mut self, id: BatchId, answer: Answer) {
        let mut out = Vec::new();
        let retry_at = self.now + Duration::from_millis(self.rng.random_range(0..3));
        let settled = self
            .queue
            .settle(&self.rules, id, answer, retry_at, &mut out);
        if settled == Settled::Oversized {
            let batch = self.queue.take_oversized(id).unwrap();
            let middle = batch.0.len() / 2;
            let pieces = vec![
                Batch(batch.0[..middle].to_vec()),
                Batch(batch.0[middle..].to_vec()),
            ];
            self.queue.put_pieces(id, pieces, &mut out).unwrap();
        }
        self.finish(out);
    }

    fn finish(&mut self, out: Vec<Finished<Batch>>) {
        for Finished { batch, end } in out {
            match end {
                BatchOutcome::Written => self.acknowledged.extend(batch.0),
                BatchOutcome::Failed(Certainty::NotSent, _) => self.not_sent.extend(batch.0),
                BatchOutcome::Failed(Certainty::MaybeWritten, _) => self.maybe.extend(batch.0),
            }
        }
    }

    /// The client loses a connection: answers not read are lost; requests may never arrive, or
    /// late.
    fn break_connection(&mut self) {
        if self.calm {
            return;
        }
        let broker = self.rng.random_range(0..3_usize);
        let mut lost: Vec<_> = self.answers[broker].drain(..).map(|(id, _)| id).collect();
        let read = self.rng.random_range(0..=self.wires[broker].len());
        let mut requests = std::mem::take(&mut self.wires[broker]);
        lost.extend(requests.iter().map(|request| request.id));
        requests.truncate(read);
        self.zombies.push((broker, requests));
        for id in lost {
            self.settle(id, Answer::Again(Certainty::MaybeWritten));
        }
    }

    fn move_leader(&mut self) {
        if !self.calm {
            self.leader = self.rng.random_range(0..3);
            if self.chance(10) {
                self.queue.set_leader(None);
            }
        }
    }

    fn learn_leader(&mut self) {
        let leader = BrokerId(i32::try_from(self.leader).unwrap());
        if self.topic != self.log.id {
            self.topic = self.log.id;
            self.queue.new_log();
        }
        if self.queue.set_leader(Some(leader)) {
            self.queue.retry_now();
        }
    }

    fn pass_time(&mut self) {
        let millis = if !self.calm && self.chance(20) {
            400
        } else {
            3
        };
        self.now += Duration::from_millis(millis);
        let mut out = Vec::new();
        if let Some(open) = self.queue.expire(&self.rules, self.now, &mut out) {
            self.not_sent.extend(open.0);
        }
        self.finish(out);
        assert!(
            self.queue
                .expires_at(&self.rules)
                .is_none_or(|at| at > self.now)
        );
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
        }
        self.come_to_rest();
    }

    fn check(&self) {
        let ended = self.acknowledged.len() + self.not_sent.len() + self.maybe.len();
        assert_eq!(
            ended,
            usize::try_from(self.next_record).unwrap(),
            "every record ends once"
        );
        let logs = || self.old_logs.iter().chain([&self.log.records]);
        let log: std::collections::BTreeSet<_> = logs().flatten().collect();
        for record in &self.acknowledged {
            assert!(
                log.contains(record),
                "{record} was acknowledged and is lost"
            );
        }
        for record in &self.not_sent {
            assert!(
                !log.contains(record),
                "{record} is there and was called not sent"
            );
        }
        if self.rules.idempotent {
            for pair in logs().flat_map(|records| records.windows(2)) {
                assert!(
                    pair[0] < pair[1],
                    "{} before {}: duplicate or out of order",
                    pair[0],
                    pair[1]
                );
            }
        }
    }
}

fn rules(idempotent: bool, max_in_flight: usize) -> Rules {
    Rules {
        idempotent,
        transactional: false,
        max_in_flight,
        linger: Duration::from_millis(2),
        delivery_timeout: Duration::from_millis(900),
        retries: u32::MAX,
    }
}

#[test]
fn never_duplicates_reorders_or_loses() {
    let (mut acknowledged, mut maybe, mut not_sent, mut pipelined, mut bumped) = (0, 0, 0, 0, 0);
    let mut silences = 0;
    for seed in 0..6000 {
        let steps = if seed % 10 == 0 { 1500 } else { 200 };
        let in_flight = 1 + usize::try_from(seed % 5).unwrap();
        let mut world = World::new(seed, rules(true, in_flight));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            world.run(steps);
            world.check();
        }));
        assert!(outcome.is_ok(), "seed {seed} with {in_flight} in flight");
        acknowledged += world.acknowledged.len();
        maybe += world.maybe.len();
        not_sent += world.not_sent.len();
        pipelined += usize::from(world.in_flight_seen > 2);
        bumped += usize::from(world.identity.epoch > 0);
        silences += world.silences;
    }
    // The runs must have met what they are about.
    assert!(acknowledged > 100_000, "{acknowledged}");
    assert!(maybe > 1000 && not_sent > 1000, "{maybe} {not_sent}");
    assert!(pipelined > 1000 && bumped > 500, "{pipelined} {bumped}");
    assert!(silences > 500, "{silences}");
}

#[test]
fn without_idempotence_nothing_acknowledged_is_lost() {
    for seed in 0..2000 {
        let mut world = World::new(seed, rules(false, 1 + usize::try_from(seed % 5).unwrap()));
        world.run(300);
        world.check();
    }
}

#[test]
fn sequences_wrap_under_load() {
    for seed in 0..1000 {
        let mut world = World::new(seed, rules(true, 5));
        // A producer that has been at it for a long time.
        world.queue.identity = Some(world.identity);
        world.queue.confirmed = true;
        world.queue.next_sequence = i32::MAX - 20;
        world.log.producers.insert(
            world.identity.id,
            (0, VecDeque::from([(i32::MAX - 22, i32::MAX - 21)])),
        );
        world.run(400);
        world.check();
    }
}
