//! One run: a cluster, clients, faults, and in the end the reckoning, all from one seed.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ottla::mock::MockCluster;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use crate::{faults, invariants, workload};

pub(crate) const TOPIC: &str = "events";
pub(crate) const GROUP: &str = "readers";
/// How long the group may take to read everything once the faults are over.
const DRAIN: Duration = Duration::from_secs(600);
/// No run takes longer.
const END: Duration = Duration::from_secs(3600);

/// What happened, for comparing and for adding up.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) trace: Vec<String>,
    pub(crate) simulated: Duration,
    pub(crate) faults: usize,
    pub(crate) acknowledged: usize,
    pub(crate) failed: usize,
    pub(crate) consumed: usize,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: &Self) {
        self.simulated += other.simulated;
        self.faults += other.faults;
        self.acknowledged += other.acknowledged;
        self.failed += other.failed;
        self.consumed += other.consumed;
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated.as_secs_f64() / 3600.0;
        write!(
            f,
            "{hours:.1} simulated hours, {} faults, {} records acknowledged, {} failed, {} consumed",
            self.faults, self.acknowledged, self.failed, self.consumed
        )
    }
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Acknowledged(i64),
    NotSent(String),
    MaybeWritten(String),
}

/// What everybody writes down.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) sent: Vec<(i32, String, Fate)>,
    /// Partition, offset, value: as handed out.
    pub(crate) seen: Vec<(i32, i64, String)>,
    pub(crate) violations: Vec<String>,
    pub(crate) faults: usize,
    pub(crate) producers_done: usize,
    pub(crate) stop: bool,
}

/// What a run is about; shared by its tasks.
pub(crate) struct World {
    pub(crate) mock: MockCluster,
    pub(crate) brokers: i32,
    pub(crate) partitions: i32,
    pub(crate) producers: usize,
    pub(crate) notes: RefCell<Notes>,
    pub(crate) trace: Arc<Mutex<Vec<String>>>,
    pub(crate) began: Instant,
}

impl World {
    pub(crate) fn violation(&self, what: String) {
        self.notes.borrow_mut().violations.push(what);
    }

    pub(crate) fn tell(&self, what: impl fmt::Display) {
        let line = format!("{:?} {what}", self.began.elapsed());
        self.trace.lock().unwrap().push(line);
    }

    pub(crate) fn stopped(&self) -> bool {
        self.notes.borrow().stop
    }

    /// Runs an operation that must have ended by its deadline.
    pub(crate) async fn by<T>(
        &self,
        deadline: Duration,
        what: &str,
        operation: impl Future<Output = T>,
    ) -> Option<T> {
        // The client may need a moment to see that time is up.
        let done = timeout(deadline + Duration::from_secs(5), operation).await;
        if done.is_err() {
            self.violation(format!("deadline: {what} did not end within {deadline:?}"));
        }
        done.ok()
    }
}

pub(crate) fn run(seed: u64) -> Result<Outcome, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| error.to_string())?;
    let outcome = LocalSet::new().block_on(&runtime, async {
        let outcome = timeout(END, simulate(seed)).await;
        outcome.unwrap_or_else(|_| Err("stall: the run does not end".to_owned()))
    })?;
    // Tasks that were told to end with the last handle do so at once or never.
    runtime.block_on(async { sleep(Duration::from_secs(60)).await });
    match runtime.metrics().num_alive_tasks() {
        0 => Ok(outcome),
        left => Err(format!(
            "leak: {left} tasks are left after everything was closed"
        )),
    }
}

async fn simulate(seed: u64) -> Result<Outcome, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let brokers = rng.random_range(1..=4);
    let partitions = rng.random_range(1..=6);
    let session = Duration::from_secs(rng.random_range(6..=45));
    let mock = MockCluster::builder()
        .brokers(brokers)
        .topic(TOPIC, partitions)
        .group_timeouts(session, Duration::from_secs(rng.random_range(1..=3)))
        .seed(rng.random())
        .start()
        .await
        .map_err(|error| error.to_string())?;
    let world = Rc::new(World {
        mock: mock.clone(),
        brokers: brokers.into(),
        partitions: partitions as i32,
        producers: rng.random_range(1..=3),
        notes: RefCell::default(),
        trace: Arc::default(),
        began: Instant::now(),
    });
    let (trace, began) = (Arc::clone(&world.trace), world.began);
    mock.on_any()
        .when(move |info| {
            let line = format!(
                "{:?} {} {:?} -> {}",
                began.elapsed(),
                info.client_id,
                info.api,
                info.broker
            );
            trace.lock().unwrap().push(line);
            false
        })
        .delay(Duration::ZERO);

    let mut producers = Vec::new();
    for number in 0..world.producers {
        let rng = StdRng::seed_from_u64(rng.random());
        producers.push(tokio::task::spawn_local(workload::produce(
            Rc::clone(&world),
            number,
            rng,
        )));
    }
    let mut consumers = Vec::new();
    for number in 0..rng.random_range(1..=3) {
        let rng = StdRng::seed_from_u64(rng.random());
        consumers.push(tokio::task::spawn_local(workload::consume(
            Rc::clone(&world),
            number,
            rng,
        )));
    }
    faults::inject(&world, &mut rng).await;
    for producer in producers {
        producer
            .await
            .map_err(|error| format!("panic: a producer: {error}"))?;
    }
    drain(&world).await;
    world.notes.borrow_mut().stop = true;
    for consumer in consumers {
        consumer
            .await
            .map_err(|error| format!("panic: a consumer: {error}"))?;
    }
    invariants::check(&world);
    let notes = world.notes.borrow();
    if let Some(first) = notes.violations.first() {
        return Err(format!("{first} ({} violations)", notes.violations.len()));
    }
    let acknowledged = |fate: &Fate| matches!(fate, Fate::Acknowledged(_));
    let acknowledged = notes
        .sent
        .iter()
        .filter(|(_, _, fate)| acknowledged(fate))
        .count();
    Ok(Outcome {
        trace: std::mem::take(&mut *world.trace.lock().unwrap()),
        simulated: world.began.elapsed(),
        faults: notes.faults,
        acknowledged,
        failed: notes.sent.len() - acknowledged,
        consumed: notes.seen.len(),
    })
}

/// Waits until the group has committed everything.
async fn drain(world: &World) {
    let began = Instant::now();
    let mut left = Vec::new();
    while began.elapsed() < DRAIN {
        let committed = world
            .mock
            .group(GROUP)
            .map(|group| group.offsets)
            .unwrap_or_default();
        left = (0..world.partitions)
            .filter(|partition| {
                let end = world
                    .mock
                    .offsets(TOPIC, *partition)
                    .map_or(0, |offsets| offsets.1);
                let offset = committed
                    .iter()
                    .find(|(tp, _)| tp.partition() == *partition);
                offset.map_or(0, |offset| offset.1) < end
            })
            .collect();
        if left.is_empty() {
            return;
        }
        sleep(Duration::from_millis(500)).await;
    }
    world.violation(format!(
        "stall: the group did not read and commit partitions {left:?}"
    ));
}
