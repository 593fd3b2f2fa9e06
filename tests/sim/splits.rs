//! Applications with a task for each partition, some of which fail.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use ottla::{Consumer, ConsumerHandle, Error, OffsetAndMetadata, PartitionStream};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep, timeout};

use crate::PLANNED;
use crate::members::{note, text_of};
use crate::world::{API, Phase, World};

struct Worker {
    world: Arc<World>,
    group: &'static str,
    name: String,
    consumer: ConsumerHandle,
    /// It panics or drops its stream, sooner or later.
    fails: bool,
}

/// Reads so for a while, and in the end for good.
pub(crate) async fn read(
    world: &Arc<World>,
    group: &'static str,
    name: &str,
    consumer: &mut Consumer,
    rng: &mut StdRng,
) -> Result<(), Error> {
    let until = Instant::now() + world.millis(rng, 500..60_000);
    let handle = consumer.handle();
    let mut streams = consumer.split_by_partition();
    let (mut workers, mut result) = (Vec::new(), Ok(()));
    while !world.is(Phase::Over) && (Instant::now() < until || world.is(Phase::Mended)) {
        match timeout(world.millis(rng, 1..1_000), streams.next()).await {
            Err(_) => {}
            Ok(Some(Ok((_, stream)))) => {
                let worker = Worker {
                    world: Arc::clone(world),
                    group,
                    name: name.to_owned(),
                    consumer: handle.clone(),
                    fails: !world.is(Phase::Mended) && rng.random_ratio(1, 3),
                };
                let rng = StdRng::seed_from_u64(rng.random());
                workers.push(tokio::spawn(worker.work(stream, rng)));
            }
            Ok(Some(Err(error))) => {
                result = Err(error);
                break;
            }
            Ok(None) => break,
        }
    }
    // With them the streams of the partitions end.
    drop(streams);
    for worker in workers {
        let _ = world.by(API, "the stream of a partition", worker).await;
    }
    result
}

impl Worker {
    async fn work(self, mut stream: PartitionStream, mut rng: StdRng) {
        let world = &self.world;
        let tp = stream.topic_partition().clone();
        let mut held: Vec<(i32, i64)> = Vec::new();
        let mut uncommitted = None;
        loop {
            // Who asks for more has finished what came before.
            world.notes().group(self.group).finish(held.drain(..));
            match timeout(world.millis(&mut rng, 1..1_000), stream.next()).await {
                Err(_) => {}
                Ok(None) => return,
                Ok(Some(Err(error))) => {
                    world.tell(format_args!("{tp} of {}: {error}", self.name));
                    sleep(world.pace(Duration::from_millis(200))).await;
                }
                Ok(Some(Ok(batch))) => {
                    for record in batch.owned_records() {
                        let record = match record {
                            Ok(record) => record,
                            Err(error) => {
                                world.violation(format!("content: {error}"));
                                continue;
                            }
                        };
                        let (partition, offset) = (record.partition(), record.offset());
                        let text = text_of(&record);
                        note(world, self.group, &self.name, partition, offset, text);
                        held.push((partition, offset));
                    }
                    uncommitted = Some(batch.next_offset());
                }
            }
            if self.fails && !held.is_empty() && rng.random_ratio(1, 4) {
                world.tell(format_args!("{tp} of {}: the application fails", self.name));
                match rng.random() {
                    true => panic!("{PLANNED}"),
                    false => return,
                }
            }
            if rng.random_ratio(1, 4) {
                sleep(world.millis(&mut rng, 0..500)).await;
            }
            if let Some(next) = uncommitted
                && rng.random()
            {
                world.notes().group(self.group).finish(held.drain(..));
                let offsets = [(tp.clone(), OffsetAndMetadata::new(next))];
                let commit = self.consumer.commit_offsets(offsets);
                match world.by(API, "commit_offsets", commit).await {
                    Some(Ok(())) => uncommitted = None,
                    Some(Err(error)) => {
                        world.tell(format_args!("commit of {tp} by {}: {error}", self.name));
                    }
                    None => {}
                }
            }
        }
    }
}
