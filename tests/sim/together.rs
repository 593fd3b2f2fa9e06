//! One client that has all roles: readers of a topic where nothing happens, and somebody who asks
//! about everything with little patience. Neither may be in the way of the others.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use ottla::{Client, Error, ErrorKind, TopicPartition};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::world::{CLOSE, Phase, TOPIC, World, drain};

pub(crate) const QUIET_TOPIC: &str = "quiet";
pub(crate) const QUIET_PARTITIONS: u32 = 8;
/// From the acknowledgement of a record until everybody who waits for it has it.
const NEIGHBOURLY: Duration = Duration::from_secs(2);

pub(crate) fn begin(world: &Arc<World>, client: &Client, rng: &mut StdRng) -> Vec<JoinHandle<()>> {
    let readers = rng.random_range(1..=6);
    let mut tasks: Vec<_> = (0..readers)
        .map(|number| tokio::spawn(read(Arc::clone(world), client.clone(), number)))
        .collect();
    let rng = StdRng::seed_from_u64(rng.random());
    tasks.push(tokio::spawn(ask(Arc::clone(world), client.clone(), rng)));
    tasks
}

fn judge(world: &World, what: &str, error: &Error) {
    if error.is_fatal() || matches!(error.kind(), ErrorKind::Config | ErrorKind::Closed) {
        world.violation(format!("fatal: {what}: {error}"));
    }
}

/// Waits for records of a partition that gets none.
async fn read(world: Arc<World>, client: Client, number: i32) {
    let tp = TopicPartition::new(QUIET_TOPIC, number % QUIET_PARTITIONS as i32);
    let built = client.reader().assign([tp]).build();
    let mut consumer = built.expect("the settings are fine");
    let watching = tokio::spawn(
        consumer
            .watch_lag(world.pace(Duration::from_secs(7)))
            .count(),
    );
    while !world.is(Phase::Over) {
        let poll = consumer.poll_timeout(world.pace(Duration::from_secs(1)));
        match poll.await {
            Ok(Some(batches)) if batches.is_empty() => {
                batches
                    .errors()
                    .iter()
                    .for_each(|error| judge(&world, "a reader", error));
            }
            Ok(_) => world.violation(format!("content: reader {number} was given something")),
            Err(error) => {
                judge(&world, "a reader", &error);
                sleep(world.pace(Duration::from_millis(200))).await;
            }
        }
    }
    let _ = world
        .by(CLOSE, "closing a reader", consumer.close_timeout(CLOSE))
        .await;
    let ends = world.by(Duration::from_secs(10), "watch_lag", watching);
    let _ = ends.await;
}

/// Asks for groups, topics and brokers with deadlines that often end before the answer is here.
async fn ask(world: Arc<World>, client: Client, mut rng: StdRng) {
    while !world.is(Phase::Over) {
        sleep(world.millis(&mut rng, 50..2_000)).await;
        let deadline = world.millis(&mut rng, 5..150);
        let admin = client.admin().with_timeout(deadline);
        let group = world.groups()[rng.random_range(0..2)];
        let asked = async {
            match rng.random_range(0..8) {
                0 => admin.list_groups().await.map(drop),
                1 => admin.list_topics().await.map(drop),
                2 => admin.describe_cluster().await.map(drop),
                3 => admin.describe_topics([TOPIC, QUIET_TOPIC]).await.map(drop),
                4 => admin.describe_group(group).await.map(drop),
                5 => admin.group_lag(group).await.map(drop),
                _ => admin.group_offsets(group).await.map(drop),
            }
        };
        if let Some(Err(error)) = world.by(deadline, "an admin call", asked).await {
            judge(&world, "an admin call", &error);
        }
        let metrics = client.metrics();
        if metrics.connections > metrics.connections_made {
            world.violation(format!("leak: {metrics:?}"));
        }
    }
}

/// After everything was read: nobody holds anybody else up, and nobody ends connections.
pub(crate) async fn quiet(world: &World, client: &Client) {
    wait_for(world, |world| world.notes().calm_done).await;
    drain(world).await;
    // By now nearly everybody who had a connection that was reset has noticed.
    let lost = client.metrics().connections_closed;
    // Members that are gone without a word are noticed by their session.
    sleep(world.pace(Duration::from_secs(60))).await;
    world.enter(Phase::Quiet);
    wait_for(world, |world| world.notes().quiet_done).await;
    let _ = timeout(world.pace(Duration::from_secs(60)), drain(world)).await;
    let closed = client.metrics().connections_closed - lost;
    if closed > 0 {
        world.violation(format!(
            "neighbour: {closed} connections ended in the quiet"
        ));
    }
    let mut late = Vec::new();
    let mut notes = world.notes();
    for (partition, offset, acknowledged) in notes.probes.clone() {
        for group in world.groups() {
            let handed_out = notes.group(group).in_the_quiet.get(&(partition, offset));
            let took = handed_out.map(|at| at.saturating_duration_since(acknowledged));
            if took.is_none_or(|took| took > NEIGHBOURLY) {
                late.push(format!("{group} had {partition}@{offset} after {took:?}"));
            }
        }
    }
    drop(notes);
    if let Some(first) = late.first() {
        world.violation(format!("neighbour: {first}, and {} more", late.len() - 1));
    }
}

/// Until all producers have done something.
async fn wait_for(world: &World, done: fn(&World) -> usize) {
    while done(world) < world.producers {
        sleep(world.pace(Duration::from_millis(250))).await;
    }
}
