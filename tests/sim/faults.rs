//! What goes wrong, for how long, and that it is mended in the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ottla::mock::{Api, NetworkControl, RuleHandle};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use crate::copiers;
use crate::world::{GROUP, TOPIC, World};

/// Codes that brokers give for a while without doing anything, by what was asked.
const REFUSALS: &[(Api, &[i16])] = &[
    (Api::Produce, &[3, 5, 6, 19, 56, 72, 100]),
    (Api::Fetch, &[70, 71, 56]),
    (Api::Metadata, &[5]),
    (Api::ListOffsets, &[3, 6, 78]),
    (Api::InitProducerId, &[14, 15]),
    (Api::FindCoordinator, &[15]),
    (Api::OffsetCommit, &[7, 14, 15, 16]),
    (Api::OffsetFetch, &[14, 15, 16, 88]),
    (Api::ConsumerGroupHeartbeat, &[14, 15, 16, 25, 110]),
];

/// The same of classic members. 27 tells that a rebalance begins, and may be a lie.
const CLASSIC_REFUSALS: &[(Api, &[i16])] = &[
    (Api::JoinGroup, &[14, 15, 16, 25]),
    (Api::SyncGroup, &[14, 15, 16, 22, 25, 27]),
    (Api::Heartbeat, &[15, 16, 22, 25, 27]),
    (Api::LeaveGroup, &[15, 16, 25]),
];

/// The same of those that copy in transactions.
const COPIERS_REFUSALS: &[(Api, &[i16])] = &[
    (Api::InitProducerId, &[14, 15, 16, 51]),
    (Api::AddPartitionsToTxn, &[14, 15, 16, 51]),
    (Api::AddOffsetsToTxn, &[14, 15, 16, 51]),
    (Api::TxnOffsetCommit, &[7, 14, 15, 16]),
    (Api::EndTxn, &[14, 15, 16, 51]),
    (Api::Produce, &[51]),
];

/// Codes with which a leader answers although the batch is in its log.
const WRITTEN_ALL_THE_SAME: &[i16] = &[6, 7, 20];

/// Codes after which a producer has to give a batch up, take another identity, or split. Without
/// INVALID_PRODUCER_EPOCH: a broker says so to a stranger only, and after a lie the next identity
/// is one that does not fence requests still under way.
const FINAL: &[i16] = &[-1, 2, 10, 29, 45, 59, 87, 9999];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    KillAll,
    Restart,
    Freeze,
    MoveLeader,
    MoveAllLeaders,
    MoveCoordinator,
    Cut,
    Strand,
    Reset,
    Slow,
    DropRequests,
    DelayRequests,
    Garbage,
    LoseAcknowledgement,
    LoseAnswer,
    Refuse,
    RefuseWritten,
    RefuseForGood,
    JumpClock,
    Grow,
}

const KINDS: &[Kind] = &[
    Kind::Kill,
    Kind::KillAll,
    Kind::Restart,
    Kind::Freeze,
    Kind::MoveLeader,
    Kind::MoveAllLeaders,
    Kind::MoveCoordinator,
    Kind::Cut,
    Kind::Strand,
    Kind::Reset,
    Kind::Slow,
    Kind::DropRequests,
    Kind::DelayRequests,
    Kind::Garbage,
    Kind::LoseAcknowledgement,
    Kind::LoseAnswer,
    Kind::Refuse,
    Kind::RefuseWritten,
    Kind::RefuseForGood,
    Kind::JumpClock,
    Kind::Grow,
];

/// Breaks things until all producers are done, and mends everything. Which kinds of faults there
/// are, how many at once and how often, is another mixture in each run.
pub(crate) async fn storm(world: &Arc<World>, rng: &mut StdRng) {
    let kinds: Vec<Kind> = KINDS
        .iter()
        .copied()
        .filter(|_| rng.random_ratio(2, 5))
        .collect();
    let holds_back = [Kind::DelayRequests, Kind::Freeze, Kind::Cut];
    let holds_back = kinds.iter().any(|kind| holds_back.contains(kind));
    world.holds_back.store(holds_back, Ordering::Relaxed);
    world.tell(format_args!("faults: {kinds:?}"));
    let busy = rng.random_range(200..8_000);
    let mut fronts = Vec::new();
    for _ in 0..rng.random_range(1..=3) {
        let (world, kinds) = (Arc::clone(world), kinds.clone());
        let rng = StdRng::seed_from_u64(rng.random());
        let front = front(world, kinds, busy, rng);
        fronts.push(tokio::spawn(front));
    }
    for front in fronts {
        front.await.expect("it does not panic");
    }
    mend(world, rng).await;
}

/// One fault after the other.
async fn front(world: Arc<World>, kinds: Vec<Kind>, busy: u64, mut rng: StdRng) {
    for _ in 0..300 {
        sleep(world.millis(&mut rng, 10..busy)).await;
        if world.notes().producers_done == world.producers {
            return;
        }
        if !kinds.is_empty() {
            let kind = kinds[rng.random_range(0..kinds.len())];
            one(&world, kind, &mut rng).await;
        }
    }
}

async fn mend(world: &World, rng: &mut StdRng) {
    let mock = &world.mock;
    world.is_provoked();
    let rules = std::mem::take(&mut *world.rules.lock().unwrap());
    let provocations = std::mem::take(&mut *world.provocations.lock().unwrap());
    let rules = rules.into_iter().chain(provocations);
    rules.for_each(RuleHandle::remove);
    mock.network().heal();
    // A connection that carries nothing any more is noticed by a time-out only.
    mock.network().reset();
    mock.network().delay(
        world.pace(Duration::from_millis(world.latency.0 / 2)),
        world.pace(Duration::from_millis(world.latency.0 + world.latency.1 / 2)),
    );
    for broker in 1..=world.brokers {
        mock.resume(broker);
        if rng.random_ratio(1, 4) || !mock.is_alive(broker) {
            world.restart(broker).await;
        }
    }
}

/// The connections of everybody or of one client, with a broker.
fn somewhere(world: &World, broker: i32, rng: &mut StdRng) -> NetworkControl {
    let part = world.mock.network().broker(broker);
    match rng.random() {
        true => part,
        false => {
            let number = rng.random_range(0..world.producers);
            part.client(world.producer_client(number))
        }
    }
}

async fn one(world: &Arc<World>, kind: Kind, rng: &mut StdRng) {
    let mock = &world.mock;
    let broker = rng.random_range(1..=world.brokers);
    let partition = rng.random_range(0..world.partitions);
    let pause = world.millis(rng, 1..10_000);
    let times = rng.random_range(1..4);
    let skip = rng.random_range(0..6);
    world.notes().faults += 1;
    world.tell(format_args!(
        "{kind:?} broker {broker} partition {partition} for {pause:?}"
    ));
    let rule = |rule: RuleHandle| world.rules.lock().unwrap().push(rule);
    match kind {
        Kind::Kill => {
            world.kill(broker).await;
            sleep(pause).await;
            world.restart(broker).await;
        }
        Kind::KillAll => {
            for broker in 1..=world.brokers {
                world.kill(broker).await;
            }
            sleep(pause).await;
            for broker in 1..=world.brokers {
                world.restart(broker).await;
            }
        }
        Kind::Restart => world.restart(broker).await,
        Kind::Freeze => {
            mock.pause(broker);
            sleep(pause).await;
            mock.resume(broker);
        }
        // Not to one that is dead at the moment.
        Kind::MoveLeader => drop(mock.move_leader(TOPIC, partition, broker)),
        Kind::MoveAllLeaders => {
            for (partition, _) in world.ends() {
                drop(mock.move_leader(TOPIC, partition, broker));
            }
        }
        Kind::MoveCoordinator => {
            drop(mock.move_coordinator(GROUP, broker));
            for number in 0..2 {
                let id = copiers::id(number);
                drop(mock.move_transaction_coordinator(&id, broker));
            }
        }
        Kind::Cut => {
            let part = somewhere(world, broker, rng);
            match rng.random_range(0..3) {
                0 => part.cut(),
                1 => part.cut_answers(),
                _ => part.cut_requests(),
            }
            sleep(pause).await;
            if rng.random() {
                // What was held back is lost, as when the other end is gone.
                part.reset();
            }
            part.heal();
        }
        Kind::Strand => somewhere(world, broker, rng).strand(),
        Kind::Reset => somewhere(world, broker, rng).reset(),
        Kind::Slow => {
            let number = rng.random_range(0..world.producers);
            let name = world.producer_client(number);
            let edge = mock.network().client(name.as_str()).broker(broker);
            let (least, most) = (Duration::from_millis(200), Duration::from_millis(1_500));
            edge.delay(world.pace(least), world.pace(most));
            sleep(pause).await;
            world.slow_down(&name, broker, rng);
        }
        Kind::DropRequests => rule(mock.on_any().broker(broker).times(times).drop_connection()),
        Kind::DelayRequests => rule(mock.on_any().broker(broker).times(times).delay(pause)),
        Kind::Garbage => {
            let bytes = vec![rng.random(), 0xff, 3, 200, 1, 2, 3, 4];
            rule(mock.on_any().broker(broker).times(times).garbage(bytes));
        }
        Kind::LoseAcknowledgement => {
            let produce = mock.on(Api::Produce).skip(skip).times(times);
            rule(produce.apply_then_drop());
        }
        Kind::LoseAnswer => {
            let mut apis = vec![
                Api::OffsetCommit,
                Api::ConsumerGroupHeartbeat,
                Api::Fetch,
                Api::InitProducerId,
            ];
            if world.protocols.are_classic() {
                apis.extend(CLASSIC_REFUSALS.iter().map(|(api, _)| *api));
            }
            if world.copies {
                apis.extend(COPIERS_REFUSALS.iter().map(|(api, _)| *api));
            }
            let api = apis[rng.random_range(0..apis.len())];
            rule(mock.on(api).times(1).apply_then_drop());
        }
        Kind::Refuse => {
            let mut refusals = match world.protocols.are_classic() {
                true => [REFUSALS, CLASSIC_REFUSALS].concat(),
                false => REFUSALS.to_vec(),
            };
            if world.copies {
                refusals.extend(COPIERS_REFUSALS);
            }
            let (api, codes) = refusals[rng.random_range(0..refusals.len())];
            let code = codes[rng.random_range(0..codes.len())];
            world.tell(format_args!("{api:?} fails with {code}"));
            rule(mock.on(api).skip(skip).times(times).fail(code));
        }
        Kind::RefuseWritten => {
            let code = WRITTEN_ALL_THE_SAME[rng.random_range(0..WRITTEN_ALL_THE_SAME.len())];
            let leader_only = world.notes().leader_only.clone();
            let produce = mock.on(Api::Produce).skip(skip).times(times);
            // A leader that waits for nobody has no reason to.
            let produce = produce.when(move |info| !leader_only.contains(info.client_id));
            rule(produce.apply_then_fail(code));
        }
        Kind::RefuseForGood => refuse_for_good(world, skip, rng),
        Kind::JumpClock => mock.advance(world.millis(rng, 1_000..60_000)),
        Kind::Grow => {
            let present = world.ends().len() as u32;
            if present < 10 {
                drop(mock.add_partitions(TOPIC, present + 1));
            }
        }
    }
}

/// One of several batches under way fails.
fn refuse_for_good(world: &World, skip: u64, rng: &mut StdRng) {
    let code = FINAL[rng.random_range(0..FINAL.len())];
    let number = rng.random_range(0..world.producers);
    let idempotent = match world.together.get() {
        // The rule is about all of them.
        Some(_) => world.notes().idempotent.len() == world.producers,
        None => world.notes().idempotent.contains(&number),
    };
    if matches!(code, 45 | 59) && !idempotent {
        return; // No broker says so to a producer without sequences.
    }
    world.tell(format_args!("Produce of {number} fails with {code}"));
    let name = world.producer_client(number);
    let produce = || {
        let name = name.clone();
        let produce = world.mock.on(Api::Produce);
        let produce = produce.when(move |info| info.client_id == name);
        produce.skip(skip).times(1)
    };
    // Where nobody can tell whether it was written, it may have been.
    let rule = match code {
        -1 | 9999 if rng.random() => produce().apply_then_fail(code),
        _ => produce().fail(code),
    };
    world.provocations.lock().unwrap().push(rule);
}
