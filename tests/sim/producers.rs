//! What producers do: send through the storm, with and without idempotence, patient and impatient;
//! and again in the calm, when nothing may fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use ottla::{Acks, Certainty, Compression, Error, ErrorKind, Producer, Purge, Record};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::world::{CLOSE, Fate, Phase, TOPIC, World};

struct Sender {
    world: Arc<World>,
    /// `i` for idempotent ones, and a number: the front of all its values.
    name: String,
    idempotent: bool,
    delivery_timeout: Duration,
    max_block: Duration,
    producer: Producer,
    /// A delivery failed: others may fail in consequence.
    failed: AtomicBool,
    serial: AtomicU32,
}

pub(crate) async fn produce(world: Arc<World>, number: usize, mut rng: StdRng) {
    let patient = rng.random_ratio(1, 2);
    let (request, delivery_timeout) = match patient {
        true => (
            world.millis(&mut rng, 2_000..20_000),
            world.millis(&mut rng, 25_000..120_000),
        ),
        false => (
            world.millis(&mut rng, 500..2_000),
            world.millis(&mut rng, 4_000..10_000),
        ),
    };
    let client = world.client(&world.producer_client(number), request, &mut rng);
    let max_block = world.millis(&mut rng, 2_000..30_000);
    let idempotent = rng.random_ratio(4, 5);
    if idempotent {
        world.notes().idempotent.insert(number);
    }
    let mut builder = client
        .producer()
        .linger(world.millis(&mut rng, 0..30))
        .batch_size(rng.random_range(200..5_000))
        .buffer_memory(rng.random_range(10_000..200_000))
        .max_block(max_block)
        .max_in_flight(rng.random_range(1..=5))
        .compression(compression(&mut rng))
        .delivery_timeout(delivery_timeout);
    if !idempotent {
        builder = match rng.random() {
            true => builder.idempotence(false),
            false => {
                let name = world.producer_client(number);
                world.notes().leader_only.insert(name);
                builder.acks(Acks::Leader)
            }
        };
    }
    let sender = Arc::new(Sender {
        name: format!("{}{number}", if idempotent { 'i' } else { 'n' }),
        idempotent,
        delivery_timeout,
        max_block,
        producer: builder.build().expect("the settings are fine"),
        failed: AtomicBool::new(false),
        serial: AtomicU32::new(0),
        world: Arc::clone(&world),
    });
    let mut deliveries = Vec::new();
    let pause = if rng.random() { 4 } else { 60 };
    for _ in 0..rng.random_range(50..400) {
        if world.began.elapsed() > world.place.storm() {
            break;
        }
        deliveries.extend(sender.send(&mut rng).await);
        if rng.random_ratio(1, pause) {
            sleep(world.millis(&mut rng, 0..4_000)).await;
        }
        if rng.random_ratio(1, 100) {
            let flush = sender.producer.flush();
            let _ = world.by(delivery_timeout, "flush", flush).await;
        }
        // A flush may have lasted until all is mended, when nothing may fail.
        if world.purges && rng.random_ratio(1, 50) && !world.is(Phase::Calm) {
            let what = [Purge::Unsent, Purge::All][rng.random_range(0..2)];
            let dropped = sender.producer.purge(what);
            world.tell(format_args!("{what:?} of {}: {dropped:?}", sender.name));
        }
    }
    world.notes().producers_done += 1;
    world.until(Phase::Calm).await;
    for _ in 0..rng.random_range(5..30) {
        deliveries.extend(sender.send(&mut rng).await);
    }
    let together = world.together.get().is_some();
    if together || rng.random() {
        for one in deliveries.drain(..) {
            let _ = one.await;
        }
    }
    if together {
        sender.probe(&mut rng).await;
    }
    close(&world, sender.producer.clone()).await;
    for one in deliveries {
        let _ = one.await;
    }
    drop(sender);
    world.close(client).await;
    world.tell(format_args!("producer {number} is done"));
}

fn compression(rng: &mut StdRng) -> Compression {
    match rng.random_range(0..6) {
        0 => Compression::gzip(),
        1 => Compression::Lz4,
        2 => Compression::Snappy,
        _ => Compression::None,
    }
}

impl Sender {
    /// Sends a record; what comes of it is written down by the task returned.
    async fn send(self: &Arc<Self>, rng: &mut StdRng) -> Option<JoinHandle<()>> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let stem = format!("{}-{serial:05}", self.name);
        let value = format!("{stem}-{}", "x".repeat(rng.random_range(0..50)));
        let mut record = Record::to(TOPIC).with_value(&value);
        match rng.random_range(0..4) {
            0 => record = record.with_key(&stem),
            1 => {}
            _ => {
                let partition = rng.random_range(0..self.world.partitions);
                record = record
                    .with_partition(partition)
                    .with_key(&stem)
                    .with_header("stem", &stem);
            }
        }
        let send = self.producer.enqueue(record);
        // Those that lose patience are told by the documentation that nothing was accepted.
        let patience = match rng.random_ratio(1, 20) {
            true => self.world.millis(rng, 0..500),
            false => Duration::MAX,
        };
        let sent = self
            .world
            .by(self.max_block, "send", timeout(patience, send))
            .await?;
        match sent {
            Err(_) => self.note(value, Fate::NotSent("cancelled".to_owned())),
            Ok(Err(error)) => {
                self.judge(&error, "send");
                self.note(value, fate_of(&error));
            }
            Ok(Ok(delivery)) => {
                let this = Arc::clone(self);
                return Some(tokio::spawn(async move {
                    let end = this.world.by(this.delivery_timeout, "a delivery", delivery);
                    match end.await {
                        Some(Ok(at)) => {
                            this.note(value, Fate::Acknowledged(at.partition, at.offset));
                        }
                        Some(Err(error)) => {
                            this.judge(&error, "a delivery");
                            this.note(value, fate_of(&error));
                        }
                        None => this.note(value, Fate::MaybeWritten("no end".to_owned())),
                    }
                }));
            }
        }
        None
    }

    /// Sends a few more while everybody else waits for records.
    async fn probe(self: &Arc<Self>, rng: &mut StdRng) {
        let world = &self.world;
        world.notes().calm_done += 1;
        world.until(Phase::Quiet).await;
        for _ in 0..10 {
            sleep(world.millis(rng, 100..1_500)).await;
            let before = world.notes().sent.len();
            if let Some(delivery) = self.send(rng).await {
                let _ = delivery.await;
            }
            let mut notes = world.notes();
            let mine = notes.sent[before..]
                .iter()
                .find_map(|(value, fate)| match fate {
                    Fate::Acknowledged(partition, Some(offset))
                        if value.starts_with(&self.name) =>
                    {
                        Some((*partition, *offset, Instant::now()))
                    }
                    _ => None,
                });
            notes.probes.extend(mine);
        }
        world.notes().quiet_done += 1;
        world.until(Phase::Over).await;
    }

    fn note(&self, value: String, fate: Fate) {
        self.world.notes().sent.push((value, fate));
    }

    /// Whether it may fail now, and for this reason.
    fn judge(&self, error: &Error, what: &str) {
        let world = &self.world;
        world.tell(format_args!("{what} of {}: {error}", self.name));
        if error.is_fatal() {
            world.violation(format!("fatal: {what} of {}: {error}", self.name));
        }
        if world.is(Phase::Calm) {
            world.violation(format!("recovery: {what} of {}: {error}", self.name));
        }
        if error.kind() == ErrorKind::Purged {
            // As was asked. What may have been written is a batch lost to those after it.
            if error.certainty() != Some(Certainty::NotSent) {
                self.failed.store(true, Ordering::Relaxed);
            }
            return;
        }
        let in_time = error.kind() != ErrorKind::Timeout;
        if in_time
            && self.idempotent
            && !self.failed.load(Ordering::Relaxed)
            && !world.is_provoked()
        {
            world.violation(format!("unprovoked: {what} of {}: {error}", self.name));
        }
        self.failed.store(true, Ordering::Relaxed);
    }
}

fn fate_of(error: &Error) -> Fate {
    match error.certainty() {
        Some(Certainty::NotSent) => Fate::NotSent(error.to_string()),
        _ => Fate::MaybeWritten(error.to_string()),
    }
}

async fn close(world: &World, producer: Producer) {
    let witness = producer.clone();
    let end = producer.close_timeout(CLOSE);
    if let Some(Err(error)) = world.by(CLOSE, "closing a producer", end).await
        && error.kind() == ErrorKind::Closed
    {
        world.violation(format!("recovery: closed with {error}"));
    }
    if witness.buffered_bytes() != 0 {
        world.violation(format!(
            "leak: {} bytes are charged after close",
            witness.buffered_bytes()
        ));
    }
}
