//! One run: a cluster, clients, faults, and in the end the reckoning, all from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use ottla::mock::{Api, MockCluster, MockClusterBuilder, RuleHandle};
use ottla::{Client, ConsumerHandle};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep, timeout};

use crate::protocols::Protocols;
use crate::{copiers, faults, invariants, members, producers, together};

pub(crate) const TOPIC: &str = "events";
pub(crate) const GROUP: &str = "readers";
/// Where one client has all roles, there are two groups.
pub(crate) const OTHER_GROUP: &str = "auditors";
pub(crate) const API: Duration = Duration::from_secs(30);
pub(crate) const CLOSE: Duration = Duration::from_secs(40);
/// From the end of the faults until everything must work: requests that were swallowed time out.
const SETTLE: Duration = Duration::from_secs(30);
/// No run takes longer.
const END: Duration = Duration::from_secs(4 * 3600);

/// Whether one client has all roles in one run of three.
const ONE_CLIENT: bool = true;
const TOGETHER: &str = "together";

/// Where a run takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On one thread with a paused clock, connected through memory: the same every time.
    Simulated,
    /// On four threads in real time, connected through memory.
    Threads,
    /// The same over TCP, where only brokers fail and not the network.
    Tcp,
}

impl Place {
    /// In real time everything is so many times quicker.
    fn hurry(self) -> u32 {
        match self {
            Self::Simulated => 1,
            Self::Threads | Self::Tcp => 16,
        }
    }

    /// After which time producers end the storm, if they did not before.
    pub(crate) fn storm(self) -> Duration {
        match self {
            Self::Simulated => Duration::MAX,
            Self::Threads | Self::Tcp => Duration::from_secs(8),
        }
    }

    /// How much longer than its deadline an operation may take: the client may need a moment to see
    /// that time is up, and in real time other programs want the processor.
    fn patience(self) -> Duration {
        match self {
            Self::Simulated => Duration::from_secs(5),
            Self::Threads | Self::Tcp => Duration::from_secs(30),
        }
    }

    /// How long the group may take to read everything in the calm; sessions of those that are gone
    /// are shorter.
    pub(crate) fn drain(self) -> Duration {
        match self {
            Self::Simulated => Duration::from_secs(180),
            Self::Threads | Self::Tcp => Duration::from_secs(60),
        }
    }

    /// What may happen in real time because the machine is slow.
    fn forgives(self, violation: &str) -> bool {
        self != Self::Simulated
            && (violation.starts_with("recovery: ") || violation.starts_with("neighbour: "))
    }
}

/// What happened, for comparing and for adding up.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) trace: Vec<String>,
    pub(crate) simulated: Duration,
    pub(crate) faults: usize,
    pub(crate) acknowledged: usize,
    pub(crate) not_sent: usize,
    pub(crate) maybe_written: usize,
    pub(crate) consumed: usize,
    pub(crate) lives: usize,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: &Self) {
        self.simulated += other.simulated;
        self.faults += other.faults;
        self.acknowledged += other.acknowledged;
        self.not_sent += other.not_sent;
        self.maybe_written += other.maybe_written;
        self.consumed += other.consumed;
        self.lives += other.lives;
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated.as_secs_f64() / 3600.0;
        write!(
            f,
            "{hours:.1} simulated hours, {} faults, {} records acknowledged, {} not sent, \
             {} maybe written, {} consumed by {} lives of members",
            self.faults,
            self.acknowledged,
            self.not_sent,
            self.maybe_written,
            self.consumed,
            self.lives
        )
    }
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// At a partition, and at an offset unless the broker did not say.
    Acknowledged(i32, Option<i64>),
    NotSent(String),
    MaybeWritten(String),
}

/// What everybody writes down.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) sent: Vec<(String, Fate)>,
    groups: BTreeMap<&'static str, GroupNotes>,
    /// The records sent while everybody else was idle: partition, offset, and when that was
    /// acknowledged.
    pub(crate) probes: Vec<(i32, i64, Instant)>,
    /// Producers that have sent what they had for the calm, or for the quiet, of one client.
    pub(crate) calm_done: usize,
    pub(crate) quiet_done: usize,
    pub(crate) violations: Vec<String>,
    pub(crate) faults: usize,
    pub(crate) lives: usize,
    pub(crate) producers_done: usize,
    /// The numbers of the idempotent producers.
    pub(crate) idempotent: BTreeSet<usize>,
    /// The client names of those with `acks=1`.
    pub(crate) leader_only: BTreeSet<String>,
}

impl Notes {
    pub(crate) fn group(&mut self, group: &'static str) -> &mut GroupNotes {
        self.groups.entry(group).or_default()
    }
}

/// What the members of a group write down.
#[derive(Default)]
pub(crate) struct GroupNotes {
    /// Partition, offset, record: as handed out.
    pub(crate) seen: Vec<(i32, i64, String)>,
    /// When a record was handed out first, in the quiet.
    pub(crate) in_the_quiet: BTreeMap<(i32, i64), Instant>,
    /// By partition the offset after the last record that was handed out to anybody.
    pub(crate) handed_out: BTreeMap<i32, i64>,
    /// What was handed out, and whether an application has finished it.
    pub(crate) finished: BTreeMap<(i32, i64), bool>,
    /// Who has a partition in hand.
    pub(crate) owners: BTreeMap<i32, Owner>,
    /// How many members there are to be.
    size: usize,
    /// Those that live, by their numbers.
    pub(crate) present: BTreeMap<usize, ConsumerHandle>,
}

/// A member that has a partition in hand.
pub(crate) struct Owner {
    /// The name of its life.
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) membership: u64,
    /// A classic member loses what it has when its generation is over, and joins again under the
    /// same id: how often it had lost something before.
    pub(crate) lost: Option<(ConsumerHandle, u64)>,
}

impl Owner {
    /// Whether it has lost what it had.
    pub(crate) fn has_lost(&self) -> bool {
        let mut lost = self.lost.iter();
        lost.any(|(consumer, before)| consumer.metrics().rebalances.lost > *before)
    }
}

impl GroupNotes {
    /// An application has finished these.
    pub(crate) fn finish(&mut self, records: impl IntoIterator<Item = (i32, i64)>) {
        for record in records {
            self.finished.insert(record, true);
        }
    }
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Things break.
    Storm,
    /// Everything was mended.
    Mended,
    /// And that is long enough ago that nothing may fail any more.
    Calm,
    /// Where one client has all roles: everything was read, and from now on everybody waits for new
    /// records.
    Quiet,
    Over,
}

/// What a run is about; shared by its tasks.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) place: Place,
    pub(crate) mock: MockCluster,
    pub(crate) brokers: i32,
    /// How many partitions there were at the start; there may be more by now.
    pub(crate) partitions: i32,
    pub(crate) producers: usize,
    /// The client that has all roles, in one run of three; otherwise everybody has one of its own.
    pub(crate) together: OnceLock<Client>,
    pub(crate) protocols: Protocols,
    /// Producers drop what they have accepted, now and then.
    pub(crate) purges: bool,
    /// The topic is copied in transactions.
    pub(crate) copies: bool,
    pub(crate) phase: Mutex<Phase>,
    /// Requests may be held back and arrive after their connection is gone, as at any broker.
    pub(crate) holds_back: AtomicBool,
    /// Least and most that connections are slow by.
    pub(crate) latency: (u64, u64),
    /// Rules that are to go when everything is mended.
    pub(crate) rules: Mutex<Vec<RuleHandle>>,
    /// Rules that make deliveries fail for good.
    pub(crate) provocations: Mutex<Vec<RuleHandle>>,
    /// One of them has.
    provoked: AtomicBool,
    restarting: tokio::sync::Mutex<()>,
    notes: Mutex<Notes>,
    pub(crate) trace: Arc<Mutex<Vec<String>>>,
    pub(crate) began: Instant,
}

impl World {
    /// Never to be held over an await.
    pub(crate) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap()
    }

    pub(crate) fn violation(&self, what: String) {
        self.tell(&what);
        if !self.place.forgives(&what) {
            self.notes().violations.push(what);
        }
    }

    pub(crate) fn pace(&self, time: Duration) -> Duration {
        time / self.place.hurry()
    }

    pub(crate) fn millis(&self, rng: &mut StdRng, range: std::ops::Range<u64>) -> Duration {
        self.pace(Duration::from_millis(rng.random_range(range)))
    }

    pub(crate) fn tell(&self, what: impl fmt::Display) {
        let line = format!("{:?} {what}", self.began.elapsed());
        tracing::info!("{line}");
        self.trace.lock().unwrap().push(line);
    }

    pub(crate) fn is(&self, phase: Phase) -> bool {
        *self.phase.lock().unwrap() >= phase
    }

    pub(crate) fn enter(&self, phase: Phase) {
        *self.phase.lock().unwrap() = phase;
        self.tell(format_args!("{phase:?}"));
    }

    pub(crate) async fn until(&self, phase: Phase) {
        while !self.is(phase) {
            sleep(self.pace(Duration::from_millis(250))).await;
        }
    }

    /// Whether a delivery may fail for good because a broker was made to say so.
    pub(crate) fn is_provoked(&self) -> bool {
        let rules = self.provocations.lock().unwrap();
        let hit = rules.iter().any(|rule| rule.hits() > 0);
        self.provoked.fetch_or(hit, Ordering::Relaxed) || hit
    }

    /// Runs an operation that must have ended by its deadline.
    pub(crate) async fn by<T>(
        &self,
        deadline: Duration,
        what: &str,
        operation: impl Future<Output = T>,
    ) -> Option<T> {
        let done = timeout(deadline + self.place.patience(), operation).await;
        if done.is_err() {
            self.violation(format!("deadline: {what} did not end within {deadline:?}"));
        }
        done.ok()
    }

    /// The groups that there are.
    pub(crate) fn groups(&self) -> &'static [&'static str] {
        match self.together.get() {
            Some(_) => &[GROUP, OTHER_GROUP],
            None => &[GROUP],
        }
    }

    /// The name of a producer's client.
    pub(crate) fn producer_client(&self, number: usize) -> String {
        match self.together.get() {
            Some(_) => TOGETHER.to_owned(),
            None => format!("producer-{number}"),
        }
    }

    /// The client of everybody, or one whose connections have each a latency of their own.
    pub(crate) fn client(&self, name: &str, request: Duration, rng: &mut StdRng) -> Client {
        if let Some(client) = self.together.get() {
            return client.clone();
        }
        let idle = rng
            .random_ratio(1, 5)
            .then(|| self.millis(rng, 500..10_000));
        self.new_client(name, request, idle, rng)
    }

    /// Closes what [`client`](Self::client) gave.
    pub(crate) async fn close(&self, client: Client) {
        if self.together.get().is_none() {
            self.by(API, "closing a client", client.close()).await;
        }
    }

    fn new_client(
        &self,
        name: &str,
        request: Duration,
        max_idle: Option<Duration>,
        rng: &mut StdRng,
    ) -> Client {
        let builder = match self.place {
            Place::Tcp => Client::builder()
                .bootstrap(self.mock.bootstrap().split(','))
                .client_id(name),
            Place::Simulated | Place::Threads => self.mock.named_client_builder(name),
        };
        let mut builder = builder
            .api_timeout(API)
            .request_timeout(request)
            .metadata_max_age(self.millis(rng, 5_000..100_000));
        if max_idle.is_some() {
            builder = builder.connections_max_idle(max_idle);
        }
        for broker in 1..=self.brokers {
            self.slow_down(name, broker, rng);
        }
        builder.build().expect("the settings are fine")
    }

    /// Draws a usual latency for the connections of a client with a broker.
    pub(crate) fn slow_down(&self, client: &str, broker: i32, rng: &mut StdRng) {
        let least = rng.random_range(0..=self.latency.0);
        let most = least + rng.random_range(0..=self.latency.1);
        let edge = self.mock.network().client(client).broker(broker);
        let (least, most) = (Duration::from_millis(least), Duration::from_millis(most));
        edge.delay(self.pace(least), self.pace(most));
    }

    /// The number of a member's membership at present.
    pub(crate) fn membership(&self, group: &str, member_id: &str) -> Option<u64> {
        let group = self.mock.group(group)?;
        let member = group.members.iter().find(|member| member.id == member_id)?;
        Some(member.membership)
    }

    pub(crate) async fn kill(&self, broker: i32) {
        let _turn = self.restarting.lock().await;
        self.mock.kill(broker);
    }

    /// Killing and restarting go one at a time: two at once would fight for a broker's port.
    pub(crate) async fn restart(&self, broker: i32) {
        let _turn = self.restarting.lock().await;
        let restarted = self.mock.restart(broker).await;
        restarted.expect("nobody else takes its port");
    }

    /// What a group has committed of a partition.
    pub(crate) fn committed(&self, group: &str, partition: i32) -> Option<i64> {
        let group = self.mock.group(group)?;
        let found = group
            .offsets
            .iter()
            .find(|(tp, _)| tp.topic() == TOPIC && tp.partition() == partition)?;
        Some(found.1)
    }

    /// Partitions and their log ends.
    pub(crate) fn ends(&self) -> Vec<(i32, i64)> {
        let end = |partition| Some((partition, self.mock.offsets(TOPIC, partition)?.1));
        (0..).map_while(end).collect()
    }
}

/// A run; `begin_thread` is called in each thread but the caller's.
pub(crate) fn run(
    seed: u64,
    place: Place,
    begin_thread: impl Fn() + Send + Sync + 'static,
) -> Result<Outcome, String> {
    let runtime = match place {
        Place::Simulated => tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build(),
        Place::Threads | Place::Tcp => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .on_thread_start(begin_thread)
            .enable_all()
            .build(),
    };
    let runtime = runtime.map_err(|error| error.to_string())?;
    let outcome = runtime.block_on(async {
        let outcome = timeout(END, simulate(seed, place)).await;
        outcome.unwrap_or_else(|_| Err("stall: the run does not end".to_owned()))
    })?;
    // Tasks that were told to end with the last handle do so at once or never.
    runtime.block_on(async {
        for _ in 0..60 {
            if runtime.metrics().num_alive_tasks() == 0 {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
    });
    match runtime.metrics().num_alive_tasks() {
        0 => Ok(outcome),
        left => Err(format!(
            "leak: {left} tasks are left after everything was closed"
        )),
    }
}

async fn simulate(seed: u64, place: Place) -> Result<Outcome, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let world = begin(seed, place, &mut rng).await?;
    // What is broken may never end.
    let broken = async {
        while world.notes().violations.is_empty() {
            sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        biased;
        outcome = live(Arc::clone(&world), &mut rng) => outcome,
        () = broken => Err(verdict(&world).err().unwrap_or_default()),
    }
}

/// The first violation, if there is any.
fn verdict(world: &World) -> Result<(), String> {
    let notes = world.notes();
    match notes.violations.first() {
        Some(first) => Err(format!("{first} ({} violations)", notes.violations.len())),
        None => Ok(()),
    }
}

async fn live(world: Arc<World>, rng: &mut StdRng) -> Result<Outcome, String> {
    let mut producers = Vec::new();
    for number in 0..world.producers {
        let rng = StdRng::seed_from_u64(rng.random());
        let task = producers::produce(Arc::clone(&world), number, rng);
        producers.push(tokio::spawn(task));
    }
    let mut members = Vec::new();
    for group in world.groups() {
        let size = rng.random_range(1..=3);
        world.notes().group(group).size = size;
        for number in 0..size {
            let rng = StdRng::seed_from_u64(rng.random());
            let task = members::consume(Arc::clone(&world), group, number, rng);
            members.push(tokio::spawn(task));
        }
    }
    if let Some(client) = world.together.get() {
        members.extend(together::begin(&world, client, rng));
    }
    members.extend(copiers::begin(&world, world.seed));
    faults::storm(&world, rng).await;
    world.enter(Phase::Mended);
    sleep(world.pace(SETTLE)).await;
    world.enter(Phase::Calm);
    if let Some(client) = world.together.get() {
        together::quiet(&world, client).await;
        shares(&world).await;
        world.enter(Phase::Over);
    }
    for producer in producers {
        producer.await.map_err(|error| format!("panic: {error}"))?;
    }
    if world.together.get().is_none() {
        drain(&world).await;
        shares(&world).await;
        copiers::drain(&world).await;
        world.enter(Phase::Over);
    }
    for member in members {
        member.await.map_err(|error| format!("panic: {error}"))?;
    }
    if let Some(client) = world.together.get() {
        let closing = client.clone().close();
        world.by(API, "closing a client", closing).await;
    }
    invariants::check(&world);
    copiers::check(&world);
    verdict(&world)?;
    let notes = world.notes();
    let fates = |wanted: fn(&Fate) -> bool| {
        let fates = notes.sent.iter().filter(|(_, fate)| wanted(fate));
        fates.count()
    };
    Ok(Outcome {
        trace: std::mem::take(&mut *world.trace.lock().unwrap()),
        simulated: world.began.elapsed(),
        faults: notes.faults,
        acknowledged: fates(|fate| matches!(fate, Fate::Acknowledged(..))),
        not_sent: fates(|fate| matches!(fate, Fate::NotSent(_))),
        maybe_written: fates(|fate| matches!(fate, Fate::MaybeWritten(_))),
        consumed: notes.groups.values().map(|group| group.seen.len()).sum(),
        lives: notes.lives,
    })
}

async fn begin(seed: u64, place: Place, rng: &mut StdRng) -> Result<Arc<World>, String> {
    let brokers = rng.random_range(1..=4);
    let partitions = rng.random_range(1..=6);
    let session = Duration::from_secs(rng.random_range(6..=45)) / place.hurry();
    // Commits by the names of topics, as before Kafka 4.2, in one run of four. Not drawn: a draw
    // more makes every seed another one.
    let by_name = if seed % 4 == 3 { 9 } else { i16::MAX };
    let builder = MockCluster::builder()
        .max_version(Api::OffsetCommit, by_name)
        .max_version(Api::OffsetFetch, by_name)
        .brokers(brokers)
        .topic(TOPIC, partitions)
        .topic(together::QUIET_TOPIC, together::QUIET_PARTITIONS)
        .group_timeouts(
            session,
            Duration::from_secs(rng.random_range(1..=3)) / place.hurry(),
        );
    // Not drawn either, and not where one client has all roles.
    let copies = seed.is_multiple_of(2) && seed % 3 != 1;
    let builder = match copies {
        true => builder
            .topic(copiers::COPIES, copiers::MOST_PARTITIONS)
            .transaction_version(if seed.is_multiple_of(4) { 1 } else { 2 })
            // As before Kafka 3.6.
            .max_version(
                Api::Produce,
                if seed.is_multiple_of(8) { 9 } else { i16::MAX },
            ),
        false => builder,
    };
    let protocols = Protocols::draw(seed, place.hurry());
    let builder = protocols.prepare(builder);
    let of_the_mock = rng.random();
    let mock = match place {
        Place::Simulated | Place::Threads => builder.seed(of_the_mock).start().await,
        Place::Tcp => over_tcp(builder, seed).await,
    };
    let mock = mock.map_err(|error| error.to_string())?;
    let world = Arc::new(World {
        seed,
        place,
        mock: mock.clone(),
        brokers: brokers.into(),
        partitions: partitions as i32,
        producers: rng.random_range(1..=3),
        together: OnceLock::new(),
        protocols,
        // Not drawn either.
        purges: seed % 8 == 4,
        copies,
        phase: Mutex::new(Phase::Storm),
        holds_back: AtomicBool::new(false),
        latency: (rng.random_range(0..20), rng.random_range(0..60)),
        rules: Mutex::default(),
        provocations: Mutex::default(),
        provoked: AtomicBool::new(false),
        restarting: tokio::sync::Mutex::default(),
        notes: Mutex::default(),
        trace: Arc::default(),
        began: Instant::now(),
    });
    // Nor this.
    if ONE_CLIENT && seed % 3 == 1 {
        let request = world.millis(rng, 500..3_500);
        let client = world.new_client(TOGETHER, request, None, rng);
        let _ = world.together.set(client);
    }
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
    Ok(world)
}

/// At ports that the system gives to nobody while a broker is dead.
async fn over_tcp(builder: MockClusterBuilder, seed: u64) -> ottla::Result<MockCluster> {
    let mut port = (u64::from(std::process::id()) * 64 + seed * 4) % 20_000;
    let mut started = builder.clone().port(10_000 + port as u16).start().await;
    for _ in 0..20 {
        if started.is_ok() {
            break;
        }
        port = (port + 3_001) % 20_000;
        started = builder.clone().port(10_000 + port as u16).start().await;
    }
    started
}

/// Waits until every member of each group has its share again.
async fn shares(world: &World) {
    let began = Instant::now();
    let mut unfair = Vec::new();
    while began.elapsed() < world.place.drain() {
        unfair.clear();
        for group in world.groups() {
            let mut notes = world.notes();
            let notes = notes.group(group);
            let handles = notes.present.values();
            let shares: Vec<_> = handles.map(|handle| handle.assignment()).collect();
            let mut assigned: Vec<i32> = shares.iter().flatten().map(|tp| tp.partition()).collect();
            assigned.sort_unstable();
            let sizes = || shares.iter().map(Vec::len);
            let is_fair = sizes().max().unwrap_or(0) <= sizes().min().unwrap_or(0) + 1;
            let all = world.ends().into_iter().map(|(partition, _)| partition);
            if shares.len() != notes.size || !is_fair || !all.eq(assigned) {
                unfair.push((*group, notes.size, shares));
            }
        }
        if unfair.is_empty() {
            return;
        }
        sleep(world.pace(Duration::from_millis(500))).await;
    }
    world.violation(format!(
        "share: of groups (with so many members) these share partitions unfairly: {unfair:?}"
    ));
}

/// Waits until the groups have committed everything.
pub(crate) async fn drain(world: &World) {
    let began = Instant::now();
    let mut left = Vec::new();
    while began.elapsed() < world.place.drain() {
        left.clear();
        for group in world.groups() {
            let mut of_group = world.ends();
            of_group.retain(|(p, end)| world.committed(group, *p).unwrap_or(0) < *end);
            left.extend(of_group.into_iter().map(|(p, end)| (*group, p, end)));
        }
        if left.is_empty() {
            // The members hear of it.
            sleep(world.pace(Duration::from_secs(5))).await;
            return;
        }
        sleep(world.pace(Duration::from_millis(500))).await;
    }
    let mut notes = world.notes();
    let told: Vec<_> = left
        .iter()
        .map(|(group, p, end)| {
            let handed_out = notes.group(group).handed_out.get(p).copied();
            format!(
                "{group} {p}: {end}, {handed_out:?} handed out, {:?} committed",
                world.committed(group, *p)
            )
        })
        .collect();
    drop(notes);
    world.violation(format!(
        "stall: the groups did not read and commit partitions {told:?}"
    ));
}
