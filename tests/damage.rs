//! Answers and requests with flipped bits, on their way: nothing hangs, nothing acknowledged is
//! lost, and when the damage is over everything is as if it had never been.
//!
//! Codes, offsets, epochs, ids and times stand outside of every checksum, so what is told during
//! the damage may be wrong in ways that nobody can see (an offset, say). What must hold all the
//! same: every delivery ends, what was acknowledged is in a log, and once the damage is over all
//! that is sent is written, and read by the group, whose members share the partitions as its
//! coordinator says. A member or a producer that a broker seems to refuse for good ends, as in
//! Java's client, and so does a call; here it is started again, as an application would.
//!
//! Two kinds of worlds: bits are flipped wherever it happens for half a minute, or one bit of one
//! answer.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::ops::Range;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ottla::mock::{Api, MockCluster};
use ottla::{Client, Consumer, ConsumerHandle, Error};
use ottla::{OffsetReset, Producer, Record, TopicPartition};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

const SECOND: Duration = Duration::from_secs(1);
const PARTITIONS: i32 = 4;
/// What recovery may take: a member that nobody is stays in the group until its session ends, 45 s,
/// and a heartbeat tells everything once in a minute.
const RECOVERY: Duration = Duration::from_secs(120);

/// What is damaged in a world: one bit in so many bytes of answers, and of requests.
#[derive(Clone, Copy, Debug)]
struct Damage {
    answers: usize,
    requests: usize,
}

impl Damage {
    /// From a flip in nearly every answer to one in a hundred, on the way back, on both ways, and
    /// on the way there.
    fn of(seed: u64) -> Self {
        let every = [200, 1_000, 3_000, 8_000, 20_000][seed as usize % 5];
        let (answers, requests) = match seed / 5 % 4 {
            0 | 1 => (every, 0),
            2 => (every, every),
            _ => (0, every),
        };
        Self { answers, requests }
    }

    /// How many of a hundred records are acknowledged at least. A request that says something else
    /// than was meant may be refused for good, which is then true.
    fn share(self) -> usize {
        match self.requests {
            0 => 97,
            3_000.. => 95,
            1_000.. => 75,
            _ => 0,
        }
    }
}

#[test]
fn the_world_goes_on_under_damage() {
    for seed in numbers("OTTLA_DAMAGE_SEEDS", 0..24) {
        let damage = Damage::of(seed as u64);
        eprintln!(
            "again: OTTLA_DAMAGE_SEEDS={seed}..{} cargo test --test damage # {damage:?}",
            seed + 1
        );
        simulate(under_damage(seed as u64, damage));
    }
}

async fn under_damage(seed: u64, damage: Damage) {
    let world = World::new(seed).await;
    let network = world.cluster.network();
    network.delay(Duration::from_millis(1), Duration::from_millis(4));
    network.damage_answers(damage.answers);
    network.damage_requests(damage.requests);
    let members = [world.member().await, world.member().await];
    let producer = world.writer.producer().build().unwrap();
    let acknowledged = produce(&producer, 0..400, 30 * SECOND).await;
    let share = acknowledged.len() / 4;
    assert!(
        share >= damage.share(),
        "{share} % acknowledged: damage is no reason to give up"
    );
    let since = Instant::now();
    while network.flipped() == 0 {
        sleep(SECOND).await;
        assert!(since.elapsed() < 1_000 * SECOND, "nothing is damaged");
    }
    let flips = network.flipped();
    network.damage_answers(0);
    network.damage_requests(0);
    if damage.requests > 0 {
        // Nobody can see that a commit said another offset than was meant, if the log comes to have
        // it.
        world.settle(&members).await;
    }
    let took = world
        .recover(&producer, (40, 20 * SECOND), &acknowledged, &members)
        .await;
    eprintln!("{flips} flips; recovered {took:?} after them");
    world.end().await;
}

/// What a bit is flipped in: so many of the first answers of each kind.
const ANSWERS: [(Api, usize); 10] = [
    (Api::ApiVersions, 6),
    (Api::Metadata, 3),
    (Api::FindCoordinator, 1),
    (Api::ConsumerGroupHeartbeat, 8),
    (Api::OffsetFetch, 2),
    (Api::ListOffsets, 2),
    (Api::Fetch, 6),
    (Api::OffsetCommit, 2),
    (Api::InitProducerId, 1),
    (Api::Produce, 3),
];
/// Bits of Metadata by which a broker was at another's address: whoever had a link to there kept
/// it.
const ONCE_WRONG: [(usize, usize); 2] = [(2, 2_736), (1, 2_521)];
/// Larger than any of these answers, in bits.
const BITS: usize = 8 * 400;

#[test]
fn one_bit_of_any_answer() {
    // Of each answer so many bits, all over it. 2999 and 7 have nothing in common.
    let bits = numbers("OTTLA_DAMAGE_BITS", 0..8);
    for (nth, bit) in ONCE_WRONG {
        eprintln!("bit {bit} of answer {nth} to Metadata");
        simulate(one_bit(Api::Metadata, nth, bit));
    }
    for (api, answers) in ANSWERS {
        for nth in 0..answers {
            for bit in bits.clone().map(|bit| bit * 2_999 % BITS) {
                eprintln!("bit {bit} of answer {nth} to {api:?}");
                simulate(one_bit(api, nth, bit));
            }
        }
    }
}

async fn one_bit(api: Api, nth: usize, bit: usize) {
    let world = World::new(7).await;
    let rule = world
        .cluster
        .on(api)
        .skip(nth as u64)
        .times(1)
        .flip_bit(bit);
    let first = world.member().await;
    let producer = world.writer.producer().build().unwrap();
    let mut acknowledged = produce(&producer, 0..8, 3 * SECOND).await;
    let second = world.member().await;
    acknowledged.extend(produce(&producer, 8..24, 8 * SECOND).await);
    assert_eq!(acknowledged.len(), 24, "one bit loses no record");
    assert_eq!(rule.hits(), 1, "there are not so many answers");
    world
        .recover(&producer, (12, 2 * SECOND), &acknowledged, &[first, second])
        .await;
    world.end().await;
}

/// What is asked from outside, and the bit is flipped in the answer to it.
const QUESTIONS: [Api; 8] = [
    Api::ApiVersions,
    Api::Metadata,
    Api::FindCoordinator,
    Api::ListGroups,
    Api::ConsumerGroupDescribe,
    Api::OffsetFetch,
    Api::ListOffsets,
    Api::InitProducerId,
];

#[test]
fn one_bit_of_an_answer_ends_no_more_than_a_call() {
    let bits = numbers("OTTLA_DAMAGE_BITS", 0..16);
    simulate(async {
        let world = World::new(7).await;
        let member = world.member().await;
        let producer = world.writer.producer().build().unwrap();
        produce(&producer, 0..8, 8 * SECOND).await;
        for api in QUESTIONS {
            for bit in bits.clone().map(|bit| bit * 2_999 % BITS) {
                eprintln!("bit {bit} of an answer to {api:?}");
                let rule = world
                    .cluster
                    .on(api)
                    .when(|request| request.client_id == "asks");
                let rule = rule.times(1).flip_bit(bit);
                let client = world.client("asks");
                if let Err(error) = ask_everything(&client).await {
                    eprintln!("ended by it: {error}");
                }
                ask_everything(&client).await.unwrap();
                assert_eq!(rule.hits(), 1);
                client.close().await.unwrap();
            }
        }
        assert!(!member.0.is_finished());
        world.end().await;
    });
}

async fn ask_everything(client: &Client) -> Result<(), Error> {
    let admin = client.admin();
    let described = admin.describe_topics(["t"]).await?;
    described.get("t").unwrap().as_ref().map_err(Clone::clone)?;
    admin.list_topics().await?;
    admin.list_groups().await?;
    admin.describe_group("g").await?;
    admin.group_offsets("g").await?;
    let lag = admin.group_lag("g").await?;
    let mut errors = lag.partitions().iter().filter_map(|lag| lag.error.clone());
    errors.next().map_or(Ok(()), Err)?;
    let all = (0..PARTITIONS).map(|partition| TopicPartition::new("t", partition));
    let all: Vec<_> = all.collect();
    let consumer = client.consumer("h").subscribe(["t"]).build()?;
    consumer.beginning_offsets(&all).await?;
    consumer.end_offsets(&all).await?;
    consumer.committed(&all).await?;
    let producer = client.producer().build()?;
    producer.send(Record::to("t").with_value("x")).await?;
    Ok(())
}

fn numbers(variable: &str, usual: Range<usize>) -> Range<usize> {
    let Ok(asked) = std::env::var(variable) else {
        return usual;
    };
    let (first, end) = asked.split_once("..").unwrap();
    usize::from_str(first).unwrap()..usize::from_str(end).unwrap()
}

/// The levels that `RUST_LOG` asks for: errors alone without it.
fn wanted_logs() -> Targets {
    let wanted = std::env::var("RUST_LOG").unwrap_or_else(|_| "error".to_owned());
    wanted.parse().unwrap()
}

fn simulate(world: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let _ = tracing_subscriber::registry()
        .with(lines)
        .with(wanted_logs())
        .try_init();
    runtime.block_on(world);
}

struct World {
    cluster: MockCluster,
    reader: Client,
    writer: Client,
    seen: Arc<Mutex<BTreeSet<String>>>,
}

/// The task that reads, and the handle of its consumer of the moment.
type Member = (JoinHandle<()>, Arc<Mutex<ConsumerHandle>>);

impl World {
    /// The parts of the network are those of the clients that there are: it is damaged afterwards.
    async fn new(seed: u64) -> Self {
        let cluster = MockCluster::builder()
            .brokers(3)
            .topic("t", PARTITIONS as u32)
            .in_memory()
            .seed(seed);
        let cluster = cluster.start().await.unwrap();
        Self {
            reader: client(&cluster, "reader"),
            writer: client(&cluster, "writer"),
            cluster,
            seen: Arc::default(),
        }
    }

    fn client(&self, name: &str) -> Client {
        client(&self.cluster, name)
    }

    async fn member(&self) -> Member {
        let consumer = consumer(&self.reader).await;
        let handle = Arc::new(Mutex::new(consumer.handle()));
        let (reader, seen) = (self.reader.clone(), Arc::clone(&self.seen));
        let task = read(consumer, reader, Arc::clone(&handle), seen);
        (tokio::spawn(task), handle)
    }

    /// There is no damage any more: what was acknowledged is there, and everything goes on. How
    /// long that took.
    async fn recover(
        &self,
        producer: &Producer,
        (records, time): (usize, Duration),
        acknowledged: &BTreeSet<String>,
        members: &[Member; 2],
    ) -> Duration {
        let over = Instant::now();
        let mut after = produce(producer, 1_000..1_000 + records, time).await;
        if after.is_empty() {
            // It was refused for good: an application makes another one.
            let another = self.writer.producer().build().unwrap();
            after = produce(&another, 1_000..1_000 + records, time).await;
        }
        assert_eq!(after.len(), records, "the producer has recovered");
        let lost: Vec<_> = acknowledged.difference(&self.written()).cloned().collect();
        assert!(lost.is_empty(), "acknowledged and in no log: {lost:?}");
        loop {
            let unread: Vec<_> = after
                .difference(&self.seen.lock().unwrap())
                .cloned()
                .collect();
            for (task, _) in members {
                assert!(!task.is_finished(), "a member's task ended");
            }
            let shared = self.shared(members);
            if unread.is_empty() && shared.is_ok() {
                return over.elapsed();
            }
            assert!(
                over.elapsed() < RECOVERY,
                "{:?} after the damage {unread:?} are not read; {shared:?}\n{}",
                over.elapsed(),
                self.explain(members)
            );
            sleep(SECOND).await;
        }
    }

    /// Waits until the members share the partitions and have read them to their ends.
    async fn settle(&self, members: &[Member; 2]) {
        let since = Instant::now();
        loop {
            let lags = members
                .iter()
                .flat_map(|(_, handle)| handle.lock().unwrap().lag().partitions().to_vec());
            let mut behind = lags.filter(|lag| {
                let (topic, number) =
                    (lag.topic_partition.topic(), lag.topic_partition.partition());
                lag.position != self.cluster.offsets(topic, number).map(|(_, end)| end)
            });
            let shared = self.shared(members);
            if shared.is_ok() && behind.next().is_none() {
                return;
            }
            assert!(
                since.elapsed() < RECOVERY,
                "{shared:?}\n{}",
                self.explain(members)
            );
            sleep(SECOND).await;
        }
    }

    /// Whether each partition is one member's, as the members and the coordinator see it, and both
    /// have some.
    fn shared(&self, members: &[Member; 2]) -> Result<(), String> {
        let sorted = |parts: Vec<Vec<TopicPartition>>| {
            let parts: BTreeSet<BTreeSet<_>> = parts.into_iter().map(BTreeSet::from_iter).collect();
            parts
        };
        let own = members
            .iter()
            .map(|(_, handle)| handle.lock().unwrap().assignment());
        let own = sorted(own.collect());
        let group = self.cluster.group("g").ok_or("there is no group")?;
        let theirs = group.members.into_iter().map(|member| member.partitions);
        let theirs = sorted(theirs.collect());
        let mut all: Vec<_> = own
            .iter()
            .flatten()
            .map(|tp| (tp.topic(), tp.partition()))
            .collect();
        all.sort_unstable();
        let wanted: Vec<_> = (0..PARTITIONS).map(|partition| ("t", partition)).collect();
        match own == theirs
            && all == wanted
            && own.len() == 2
            && own.iter().all(|own| !own.is_empty())
        {
            true => Ok(()),
            false => Err(format!(
                "members have {own:?}, the coordinator says {theirs:?}"
            )),
        }
    }

    fn explain(&self, members: &[Member; 2]) -> String {
        let mut text = format!("{:?}\n", self.cluster.group("g"));
        for (_, handle) in members {
            let handle = handle.lock().unwrap();
            text += &format!("{:?}\n", handle.group_metadata());
            for tp in handle.assignment() {
                text += &format!("{tp}: {}\n", handle.explain(&tp));
            }
        }
        for partition in 0..PARTITIONS {
            let (offsets, leader) = (
                self.cluster.offsets("t", partition),
                self.cluster.leader("t", partition),
            );
            text += &format!("t-{partition}: {offsets:?}, led by {leader:?}\n");
        }
        text
    }

    /// All that was written.
    fn written(&self) -> BTreeSet<String> {
        let records = (0..PARTITIONS).flat_map(|partition| self.cluster.records("t", partition));
        records
            .map(|record| text(record.value().unwrap()))
            .collect()
    }

    async fn end(self) {
        self.reader.close().await.unwrap();
        self.writer.close().await.unwrap();
    }
}

fn client(cluster: &MockCluster, name: &str) -> Client {
    // What was damaged so that it never comes is given up soon.
    let builder = cluster.named_client_builder(name);
    builder.request_timeout(5 * SECOND).build().unwrap()
}

/// Sends these numbers in turn over some time; returns what was acknowledged.
async fn produce(producer: &Producer, numbers: Range<usize>, time: Duration) -> BTreeSet<String> {
    let pause = time / u32::try_from(numbers.len()).unwrap();
    let mut deliveries: Vec<JoinHandle<Result<String, Error>>> = Vec::new();
    for number in numbers {
        let value = number.to_string();
        // By its key it goes to one of the partitions, which all have work so.
        let record = Record::to("t").with_key(&value).with_value(&value);
        if let Ok(delivery) = producer.enqueue(record).await {
            deliveries.push(tokio::spawn(async move { delivery.await.map(|_| value) }));
        }
        sleep(pause).await;
    }
    let mut acknowledged = BTreeSet::new();
    for delivery in deliveries {
        let ended = timeout(200 * SECOND, delivery).await;
        match ended.expect("every delivery ends").unwrap() {
            Ok(value) => drop(acknowledged.insert(value)),
            Err(error) => eprintln!("not acknowledged: {error}"),
        }
    }
    acknowledged
}

async fn consumer(client: &Client) -> Consumer {
    let builder = client.consumer("g").subscribe(["t"]);
    let builder = builder.offset_reset(OffsetReset::Earliest);
    builder.build().unwrap()
}

/// A member that polls whatever happens, and is made anew if it is refused for good.
async fn read(
    mut member: Consumer,
    client: Client,
    handle: Arc<Mutex<ConsumerHandle>>,
    seen: Arc<Mutex<BTreeSet<String>>>,
) {
    loop {
        match member.poll().await {
            Ok(Some(batches)) => {
                for record in batches.iter().flatten() {
                    let record = record.unwrap();
                    seen.lock().unwrap().insert(text(record.value().unwrap()));
                }
            }
            Ok(None) => return,
            Err(error) if error.is_fatal() => {
                eprintln!("a member is started again: {error}");
                sleep(SECOND).await;
                member = consumer(&client).await;
                *handle.lock().unwrap() = member.handle();
            }
            Err(_) => sleep(SECOND / 10).await,
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
