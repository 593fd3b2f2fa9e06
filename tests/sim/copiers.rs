//! Applications that copy the topic in transactions, with the offsets of what they copy: whatever
//! goes wrong, `read_committed` sees of the copies what the group has committed, once and in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ottla::{
    Batches, CommitError, Consumer, Error, Event, IsolationLevel, OffsetReset, Record, Result,
    TopicPartition, Transaction, TransactionOutcome, TransactionalConsumer, TransactionalProducer,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::world::{CLOSE, Phase, TOPIC, World};

pub(crate) const COPIES: &str = "copies";
/// As many as the topic can come to have.
pub(crate) const MOST_PARTITIONS: u32 = 12;
const COPIERS: &str = "copiers";
const COUNT: usize = 2;

/// The transactional id of a copier.
pub(crate) fn id(number: usize) -> String {
    format!("copier-{number}")
}

pub(crate) fn begin(world: &Arc<World>, seed: u64) -> Vec<JoinHandle<()>> {
    let copier = |number| {
        let rng = StdRng::seed_from_u64(seed * 31 + number as u64);
        tokio::spawn(copy(Arc::clone(world), number, rng))
    };
    if !world.copies {
        return Vec::new();
    }
    let mut tasks: Vec<_> = (0..COUNT).map(copier).collect();
    let rng = StdRng::seed_from_u64(seed * 31 + COUNT as u64);
    tasks.push(tokio::spawn(read(Arc::clone(world), rng)));
    tasks
}

/// One life after the other. A producer of an earlier life may be kept, and try to go on.
async fn copy(world: Arc<World>, number: usize, mut rng: StdRng) {
    let mut zombie: Option<TransactionalProducer> = None;
    let mut life = 0;
    while !world.is(Phase::Over) {
        life += 1;
        let request = world.millis(&mut rng, 1_000..10_000);
        let client = world.client(&format!("{}-{life}", id(number)), request, &mut rng);
        let producer = client
            .transactional_producer(id(number))
            .transaction_timeout(world.millis(&mut rng, 8_000..60_000))
            .max_block(world.millis(&mut rng, 5_000..30_000))
            .delivery_timeout(world.millis(&mut rng, 12_000..60_000))
            .linger(world.millis(&mut rng, 0..20))
            .batch_size(rng.random_range(100..2_000));
        let consumer = client
            .consumer(COPIERS)
            .subscribe([TOPIC])
            .auto_commit(false)
            .offset_reset(OffsetReset::Earliest)
            .fetch_max_wait(world.millis(&mut rng, 10..500))
            .max_poll_records(rng.random_range(1..100));
        let consumer = world.protocols.choose(consumer, number, None);
        let built = producer.build().await;
        let as_one = rng.random_ratio(1, 3);
        let built = match built {
            Ok(producer) if as_one => {
                let consumer = TransactionalConsumer::new(consumer, producer);
                together(&world, consumer.expect("the settings are fine"), &mut rng).await;
                world.close(client).await;
                continue;
            }
            built => built,
        };
        match (built, consumer.build()) {
            (Ok(producer), Ok(consumer)) => {
                let mut copier = Copier {
                    world: Arc::clone(&world),
                    name: id(number),
                    producer,
                    consumer,
                };
                if let Some(mut zombie) = zombie.take() {
                    copier.haunt(&mut zombie).await;
                }
                let ended = copier.live(&mut rng).await;
                if let Err(error) = &ended {
                    world.tell(format_args!("{} ends: {error}", copier.name));
                }
                let Copier {
                    producer, consumer, ..
                } = copier;
                match rng.random_range(0..4) {
                    0 => drop((producer, consumer)),
                    1 if !world.is(Phase::Over) => zombie = Some(producer),
                    _ => {
                        let end = producer.close_timeout(CLOSE);
                        let _ = world.by(CLOSE, "closing a copier", end).await;
                        let end = consumer.close_timeout(CLOSE);
                        let _ = world.by(CLOSE, "closing its consumer", end).await;
                    }
                }
            }
            (Err(error), _) => world.tell(format_args!("no producer of {}: {error}", id(number))),
            (_, Err(error)) => world.violation(format!("fatal: a copier's consumer: {error}")),
        }
        if zombie.is_none() {
            world.close(client).await;
        }
        sleep(world.millis(&mut rng, 0..3_000)).await;
    }
}

/// A consumer and a producer that do it together.
async fn together(world: &Arc<World>, mut consumer: TransactionalConsumer, rng: &mut StdRng) {
    loop {
        let calm = world.is(Phase::Calm);
        if world.is(Phase::Over) || !calm && rng.random_ratio(1, 40) {
            break;
        }
        let patience = match calm {
            true => world.pace(Duration::from_secs(2)),
            false => world.millis(rng, 100..3_000),
        };
        let read = match timeout(patience, consumer.poll()).await {
            Err(_) => continue,
            Ok(Ok(Some(read))) => read,
            // The coordinator may be away for longer than max.block.ms.
            Ok(Err(error)) if !error.is_fatal() => continue,
            Ok(_) => break,
        };
        let sent = send(&read, read.batches()).await;
        let patience = world.millis(rng, 0..300);
        let ended = match rng.random_range(0..12) {
            1 if !calm => {
                drop(read);
                Ok(())
            }
            2 if !calm => read.abort().await,
            3 if !calm => match timeout(patience, read.commit()).await {
                Ok(ended) => ended.map(drop),
                Err(_) => Ok(()),
            },
            _ => read.end(sent).await.map(drop),
        };
        if let Err(error) = ended
            && error.is_fatal()
        {
            world.tell(format_args!("a consumer in transactions ends: {error}"));
            break;
        }
    }
    match rng.random_range(0..3) {
        0 => drop(consumer),
        _ => {
            let end = consumer.close_timeout(2 * CLOSE);
            let _ = world
                .by(2 * CLOSE, "closing a consumer in transactions", end)
                .await;
        }
    }
}

struct Copier {
    world: Arc<World>,
    name: String,
    producer: TransactionalProducer,
    consumer: Consumer,
}

impl Copier {
    /// Copies until something ends it, be it chance.
    async fn live(&mut self, rng: &mut StdRng) -> Result<()> {
        while !self.world.is(Phase::Over) {
            let calm = self.world.is(Phase::Calm);
            let wait = self.world.pace(Duration::from_secs(2));
            let Ok(event) = timeout(wait, self.consumer.next_event()).await else {
                continue;
            };
            match event? {
                Some(Event::Records(batches)) if !batches.is_empty() => {
                    self.copy(&batches, calm, rng).await?;
                }
                Some(Event::Revoking(revoking)) => revoking.done(),
                Some(_) => {}
                None => return Ok(()),
            }
            if !calm && rng.random_ratio(1, 40) {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn copy(&mut self, batches: &Batches, calm: bool, rng: &mut StdRng) -> Result<()> {
        let fate = match calm {
            true => 0,
            false => rng.random_range(0..12),
        };
        let group = self.consumer.group_metadata();
        let transaction = self.producer.begin().await?;
        let sent = send(&transaction, batches).await;
        if fate == 5 {
            // Before anything waits for the end of the transaction.
            sleep(self.world.millis(rng, 0..200)).await;
            transaction.abort().await?;
            return self.rewind().await;
        }
        let sent = match sent {
            Ok(()) if fate == 1 => {
                let offsets = transaction.send_offsets(batches.offsets(), &group);
                // Given up: the commit knows of them all the same.
                match timeout(self.world.millis(rng, 0..50), offsets).await {
                    Ok(sent) => sent,
                    Err(_) => Ok(()),
                }
            }
            Ok(()) => transaction.send_offsets(batches.offsets(), &group).await,
            Err(error) => Err(error),
        };
        let committed = match (sent, fate) {
            (Ok(()), 2) => {
                transaction.abort().await?;
                false
            }
            (Ok(()), 3) => {
                drop(transaction);
                false
            }
            (Ok(()), 4) => {
                let patience = self.world.millis(rng, 0..300);
                match timeout(patience, transaction.commit()).await {
                    Ok(ended) => self.outcome(ended).await?,
                    Err(_) => self.settled().await?,
                }
            }
            (Ok(()), _) => {
                let ended = transaction.commit().await;
                self.outcome(ended).await?
            }
            (Err(error), _) if error.is_fatal() => return Err(error),
            (Err(_), _) => {
                transaction.abort().await?;
                false
            }
        };
        match committed {
            true => Ok(()),
            false => self.rewind().await,
        }
    }

    /// Whether it committed.
    async fn outcome(&mut self, ended: Result<(), CommitError>) -> Result<bool> {
        match ended {
            Ok(()) => Ok(true),
            Err(CommitError::Unknown(_)) => self.settled().await,
            Err(error) if error.error().is_fatal() => Err(error.into()),
            Err(_) => Ok(false),
        }
    }

    async fn settled(&mut self) -> Result<bool> {
        let outcome = self.producer.settle().await?;
        Ok(outcome == Some(TransactionOutcome::Committed))
    }

    async fn rewind(&mut self) -> Result<()> {
        let mine = self.consumer.assignment();
        let committed = self.consumer.committed(&mine).await?;
        for tp in mine {
            let offset = committed.get(&tp).map_or(0, |offset| offset.offset());
            // It may have been taken away meanwhile.
            let _ = self.consumer.seek(&tp, offset);
        }
        Ok(())
    }

    /// The producer of an earlier life tries to go on: it must hear that it was shut out, and what
    /// it writes must not be seen.
    async fn haunt(&self, zombie: &mut TransactionalProducer) {
        let world = &self.world;
        let end = world.place.drain();
        let ended = world.by(end, "a zombie", write(zombie)).await;
        match ended {
            Some(Ok(())) => {
                world.violation(format!("fenced: an earlier {} has committed", self.name));
            }
            Some(Err(error)) => world.tell(format_args!("a zombie of {}: {error}", self.name)),
            None => {}
        }
    }
}

async fn write(zombie: &mut TransactionalProducer) -> Result<(), Error> {
    let transaction = zombie.begin().await?;
    let record = Record::to(COPIES)
        .with_partition(0)
        .with_value("a zombie's");
    drop(transaction.enqueue(record).await?);
    Ok(transaction.commit().await?)
}

async fn send(transaction: &Transaction<'_>, batches: &Batches) -> Result<()> {
    for batch in batches {
        for record in batch {
            let record = record?;
            let place = format!("{}@{}", batch.partition(), record.offset());
            let copy = Record::to(COPIES)
                .with_partition(batch.partition())
                .with_value(&place);
            drop(transaction.enqueue(copy).await?);
        }
    }
    Ok(())
}

/// Reads the copies of committed transactions, all the time.
async fn read(world: Arc<World>, mut rng: StdRng) {
    let client = world.client("copies-reader", Duration::from_secs(5), &mut rng);
    let all = (0..MOST_PARTITIONS as i32).map(|partition| TopicPartition::new(COPIES, partition));
    let consumer = client
        .reader()
        .assign(all.clone())
        .isolation_level(IsolationLevel::ReadCommitted)
        .offset_reset(OffsetReset::Earliest)
        .max_partition_fetch_bytes(rng.random_range(300..20_000))
        .fetch_max_wait(world.millis(&mut rng, 10..500));
    let mut consumer = consumer.build().expect("the settings are fine");
    let mut read: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    let mut over: Option<Instant> = None;
    loop {
        let wait = world.pace(Duration::from_secs(1));
        let polled = consumer.poll_timeout(wait).await;
        for batch in polled.iter().flatten().flatten() {
            for record in batch.records().filter_map(Result::ok) {
                let value = record.value().unwrap_or_default();
                let value = String::from_utf8_lossy(value).into_owned();
                read.entry(batch.partition()).or_default().push(value);
            }
        }
        if !world.is(Phase::Over) {
            continue;
        }
        let since = *over.get_or_insert_with(Instant::now);
        let at_end = |tp: &TopicPartition| {
            let end = world
                .mock
                .offsets(COPIES, tp.partition())
                .map(|(_, end)| end);
            consumer.position(tp) >= end || end == Some(0)
        };
        if all.clone().all(|tp| at_end(&tp)) {
            break;
        }
        if since.elapsed() > world.place.drain() {
            let left = all.clone().find(|tp| !at_end(tp));
            world.violation(format!("stall: {left:?} is not read to its end"));
            break;
        }
    }
    for partition in 0..MOST_PARTITIONS as i32 {
        let read = read.remove(&partition).unwrap_or_default();
        let copies = copies(&world, partition);
        if read != copies {
            world.violation(format!(
                "committed: {} records of {COPIES}-{partition} were read, and {} are committed",
                read.len(),
                copies.len()
            ));
        }
    }
    let close = consumer.close_timeout(CLOSE);
    let _ = world.by(CLOSE, "closing the reader of copies", close).await;
    world.close(client).await;
}

fn copies(world: &World, partition: i32) -> Vec<String> {
    let copies = world.mock.committed_records(COPIES, partition);
    let copies = copies.iter().map(|record| {
        let value = record.value().unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    });
    copies.collect()
}

/// Waits until all is copied.
pub(crate) async fn drain(world: &World) {
    if !world.copies {
        return;
    }
    let began = Instant::now();
    let mut left = BTreeMap::new();
    // A transaction that was left open ends by its time-out.
    while began.elapsed() < world.place.drain() + world.pace(Duration::from_secs(120)) {
        left.clear();
        for (partition, end) in world.ends() {
            let committed = world.committed(COPIERS, partition).unwrap_or(0);
            if committed < end {
                left.insert(partition, (committed, end));
            }
        }
        if left.is_empty() {
            return;
        }
        sleep(world.pace(Duration::from_millis(500))).await;
    }
    world.violation(format!("stall: the copiers have not copied {left:?}"));
}

/// What is seen of the copies is what was committed of the topic.
pub(crate) fn check(world: &World) {
    if !world.copies {
        return;
    }
    for (partition, _) in world.ends() {
        let committed = world.committed(COPIERS, partition).unwrap_or(0);
        let expected = (0..committed).map(|offset| format!("{partition}@{offset}"));
        let expected: Vec<_> = expected.collect();
        let copies = copies(world, partition);
        if expected != copies {
            let same = expected.iter().zip(&copies);
            let at = same.take_while(|(one, other)| one == other).count();
            world.violation(format!(
                "exactly once: {} copies of {partition} where {} are committed; at {at} is {:?}",
                copies.len(),
                expected.len(),
                copies.get(at)
            ));
        }
    }
}
