//! Idempotent producers and the members of one group.

use std::rc::Rc;
use std::time::Duration;

use ottla::{Certainty, Client, Consumer, Error, OffsetReset, Producer, Record};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::sleep;

use crate::world::{Fate, GROUP, TOPIC, World};

const MAX_BLOCK: Duration = Duration::from_secs(30);
const API: Duration = Duration::from_secs(30);
const CLOSE: Duration = Duration::from_secs(40);

fn millis(rng: &mut StdRng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.random_range(range))
}

fn client(world: &World, name: String, rng: &mut StdRng) -> Client {
    let builder = world
        .mock
        .named_client_builder(name)
        .api_timeout(API)
        .request_timeout(millis(rng, 2_000..20_000))
        .metadata_max_age(millis(rng, 5_000..100_000));
    builder.build().expect("the settings are fine")
}

fn fate_of(error: &Error) -> Fate {
    match error.certainty() {
        Some(Certainty::NotSent) => Fate::NotSent(error.to_string()),
        _ => Fate::MaybeWritten(error.to_string()),
    }
}

pub(crate) async fn produce(world: Rc<World>, number: usize, mut rng: StdRng) {
    let client = client(&world, format!("producer-{number}"), &mut rng);
    let delivery_timeout = Duration::from_secs(rng.random_range(25..120));
    let built = client
        .producer()
        .linger(millis(&mut rng, 0..30))
        .batch_size(rng.random_range(200..5_000))
        .buffer_memory(rng.random_range(10_000..200_000))
        .max_block(MAX_BLOCK)
        .delivery_timeout(delivery_timeout)
        .build()
        .await;
    let producer = built.expect("the settings are fine");
    let mut awaiting = Vec::new();
    for serial in 0..rng.random_range(50..400) {
        let partition = rng.random_range(0..world.partitions);
        let value = format!(
            "{number}-{serial:05}-{}",
            "x".repeat(rng.random_range(0..50))
        );
        let record = Record::to(TOPIC).partition(partition).value(&value);
        let sent = world.by(MAX_BLOCK, "send", producer.send(record)).await;
        match sent {
            Some(Ok(delivery)) => {
                let world = Rc::clone(&world);
                awaiting.push(tokio::task::spawn_local(async move {
                    let end = world.by(delivery_timeout, "a delivery", delivery).await;
                    let fate = match end {
                        Some(Ok(metadata)) => Fate::Acknowledged(metadata.offset.unwrap_or(-1)),
                        Some(Err(error)) => fate_of(&error),
                        None => Fate::MaybeWritten("it did not end".to_owned()),
                    };
                    world.notes.borrow_mut().sent.push((partition, value, fate));
                }));
            }
            Some(Err(error)) => {
                world
                    .notes
                    .borrow_mut()
                    .sent
                    .push((partition, value, fate_of(&error)));
            }
            None => {}
        }
        if rng.random_ratio(1, 4) {
            sleep(millis(&mut rng, 0..4_000)).await;
        }
        if rng.random_ratio(1, 100) {
            let _ = world.by(delivery_timeout, "flush", producer.flush()).await;
        }
    }
    if rng.random() {
        for one in awaiting.drain(..) {
            let _ = one.await;
        }
    }
    close(&world, producer).await;
    for one in awaiting {
        let _ = one.await;
    }
    world.by(API, "closing a client", client.close()).await;
    world.tell(format_args!("producer {number} is done"));
    world.notes.borrow_mut().producers_done += 1;
}

async fn close(world: &World, producer: Producer) {
    let witness = producer.clone();
    world
        .by(CLOSE, "closing a producer", producer.close(CLOSE))
        .await;
    if witness.buffered_bytes() != 0 {
        world.violation(format!(
            "leak: {} bytes are charged after close",
            witness.buffered_bytes()
        ));
    }
}

pub(crate) async fn consume(world: Rc<World>, number: usize, mut rng: StdRng) {
    let mut life = 0;
    while !world.stopped() {
        life += 1;
        let client = client(&world, format!("consumer-{number}-{life}"), &mut rng);
        if let Some(consumer) = member(&world, &client, &mut rng).await {
            one_life(&world, consumer, &mut rng).await;
        }
        world.by(API, "closing a client", client.close()).await;
        sleep(millis(&mut rng, 0..5_000)).await;
    }
}

async fn member(world: &World, client: &Client, rng: &mut StdRng) -> Option<Consumer> {
    let builder = client
        .consumer(GROUP)
        .subscribe([TOPIC])
        .offset_reset(OffsetReset::Earliest)
        .auto_commit(false)
        .fetch_max_wait(millis(rng, 10..500))
        .max_partition_fetch_bytes(rng.random_range(300..20_000))
        .max_poll_records(rng.random_range(1..200));
    let built = world
        .by(API, "building a consumer", builder.build())
        .await?;
    built.ok()
}

/// Reads and commits until the run or this life is over; lives end in order or by being dropped.
async fn one_life(world: &World, mut consumer: Consumer, rng: &mut StdRng) {
    let polls = rng.random_range(20..2_000);
    let patience = Duration::from_secs(1);
    for _ in 0..polls {
        if world.stopped() {
            break;
        }
        match world
            .by(patience, "poll", consumer.poll_timeout(patience))
            .await
        {
            Some(Ok(Some(batches))) => {
                let mut notes = world.notes.borrow_mut();
                for batch in &batches {
                    for record in batch.records() {
                        match record {
                            Ok(record) => {
                                let value =
                                    String::from_utf8_lossy(record.value().unwrap_or_default());
                                notes.seen.push((
                                    batch.partition(),
                                    record.offset(),
                                    value.into_owned(),
                                ));
                            }
                            Err(error) => notes.violations.push(format!("content: {error}")),
                        }
                    }
                }
            }
            Some(Ok(None)) => {}
            Some(Err(error)) if error.is_fatal() => break,
            Some(Err(_)) | None => sleep(Duration::from_millis(200)).await,
        }
        if rng.random_ratio(1, 3) {
            let _ = world.by(API, "commit", consumer.commit()).await;
        }
        if rng.random_ratio(1, 20) {
            sleep(millis(rng, 0..2_000)).await;
        }
    }
    if rng.random_ratio(1, 4) {
        return;
    }
    let _ = world
        .by(CLOSE, "closing a consumer", consumer.close(CLOSE))
        .await;
}
