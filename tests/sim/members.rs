//! What members of the group do: read in one way or another, commit, seek, pause, ask for lag; and
//! end in order, or not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use ottla::{
    Batches, Client, Consumer, Error, ErrorKind, Event, OffsetReset, OwnedRecord, TopicPartition,
};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep, timeout};

use crate::world::{API, CLOSE, GROUP, Owner, Phase, Place, TOPIC, World};
use crate::{invariants, splits};

const FENCED_INSTANCE_ID: i16 = 82;
const UNRELEASED_INSTANCE_ID: i16 = 111;

/// How a member reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Poll,
    /// With the news of what comes and goes: then it is known exactly what must come next.
    Events,
    Stream,
    /// A task for each partition.
    Split,
}

struct Member {
    world: Arc<World>,
    /// Another one for each life.
    name: String,
    group: &'static str,
    is_static: bool,
    /// Stays away for longer than `max.poll.interval.ms` at times.
    lazy: bool,
    style: Style,
    consumer: Consumer,
    /// What must be handed out next of the partitions assigned, where that is known.
    next: BTreeMap<i32, i64>,
    paused: BTreeSet<i32>,
    /// Offsets after what was handed out last.
    last: BTreeMap<TopicPartition, i64>,
    /// Rebalances up to the last look at positions.
    rebalances: u64,
    /// What was handed out and is not finished.
    held: Vec<(i32, i64)>,
    /// The application has ended with an error.
    failed: bool,
}

pub(crate) async fn consume(
    world: Arc<World>,
    group: &'static str,
    number: usize,
    mut rng: StdRng,
) {
    let mut life = 0;
    while !world.is(Phase::Over) {
        life += 1;
        world.notes().lives += 1;
        let name = match group {
            GROUP => format!("consumer-{number}-{life}"),
            other => format!("{other}-{number}-{life}"),
        };
        let request = world.millis(&mut rng, 2_000..20_000);
        let client = world.client(&name, request, &mut rng);
        if let Some(mut member) = join(&world, &client, name, group, number, &mut rng).await {
            let consumer = member.consumer.handle();
            world.notes().group(group).present.insert(number, consumer);
            member.live(&mut rng).await;
            world.notes().group(group).present.remove(&number);
            member.end(&mut rng).await;
            invariants::commits(&world, group);
        }
        world.close(client).await;
        sleep(world.millis(&mut rng, 0..5_000)).await;
    }
}

async fn join(
    world: &Arc<World>,
    client: &Client,
    name: String,
    group: &'static str,
    number: usize,
    rng: &mut StdRng,
) -> Option<Member> {
    let lazy = rng.random_ratio(1, 8);
    let is_static = rng.random_ratio(1, 6);
    let mut builder = client
        .consumer(group)
        .subscribe([TOPIC])
        .offset_reset(OffsetReset::Earliest)
        .auto_commit(rng.random_ratio(1, 3))
        .auto_commit_interval(world.millis(rng, 500..6_000))
        .fetch_max_wait(world.millis(rng, 10..500))
        .fetch_max_bytes(rng.random_range(1_000..100_000))
        .max_partition_fetch_bytes(rng.random_range(300..20_000))
        .max_poll_records(rng.random_range(1..200))
        .max_poll_interval(if lazy {
            world.millis(rng, 3_000..8_000)
        } else {
            Duration::from_secs(300)
        });
    let assignor = rng.random::<bool>().then_some("range");
    builder = world.protocols.choose(builder, number, assignor);
    if is_static {
        builder = builder.group_instance_id(format!("instance-{number}"));
    }
    let consumer = match builder.build() {
        Ok(consumer) => consumer,
        Err(error) => {
            world.violation(format!("fatal: {name} cannot be built: {error}"));
            return None;
        }
    };
    let styles = [
        Style::Poll,
        Style::Events,
        Style::Events,
        Style::Stream,
        Style::Split,
    ];
    Some(Member {
        world: Arc::clone(world),
        name,
        group,
        is_static,
        lazy,
        style: styles[rng.random_range(0..styles.len())],
        consumer,
        next: BTreeMap::new(),
        paused: BTreeSet::new(),
        last: BTreeMap::new(),
        rebalances: 0,
        held: Vec::new(),
        failed: false,
    })
}

impl Member {
    /// Reads until the run or this life is over.
    async fn live(&mut self, rng: &mut StdRng) {
        let world = Arc::clone(&self.world);
        let polls = rng.random_range(20..2_000);
        for turn in 0.. {
            // In the calm everybody stays.
            if world.is(Phase::Over) || turn >= polls && !world.is(Phase::Mended) {
                break;
            }
            // What a turn hands out is not finished by then.
            let fails = !world.is(Phase::Mended) && rng.random_ratio(1, 150);
            if let Err(error) = self.turn(rng).await {
                world.tell(format_args!("{}: {error}", self.name));
                if !self.survives(&error) {
                    return;
                }
                sleep(world.pace(Duration::from_millis(200))).await;
            }
            if fails && !world.is(Phase::Calm) {
                world.tell(format_args!("the application of {} fails", self.name));
                self.failed = true;
                return;
            }
            if world.is(Phase::Calm) && !self.consumer.paused().is_empty() {
                self.resume();
            }
            self.whims(rng).await;
        }
        self.up_to_date();
    }

    /// Waits for the next thing and takes it in.
    async fn turn(&mut self, rng: &mut StdRng) -> Result<(), Error> {
        let world = Arc::clone(&self.world);
        let patience = world.millis(rng, 1..1_000);
        match self.style {
            Style::Poll => {
                self.finish();
                self.let_go();
                let poll = self.consumer.poll_timeout(patience);
                let polled = world.by(patience, "poll", poll).await;
                if let Some(Some(batches)) = polled.transpose()? {
                    self.take(&batches, false);
                }
            }
            Style::Events => {
                self.finish();
                if let Ok(event) = timeout(patience, self.consumer.next_event()).await
                    && let Some(event) = event?
                {
                    self.event(event, rng).await;
                }
            }
            Style::Stream => {
                self.let_go();
                let mut stream = self.consumer.stream();
                // Records that the application works on for longer.
                let mut kept: Vec<OwnedRecord> = Vec::new();
                for _ in 0..rng.random_range(1..100) {
                    let is_finished = |(partition, offset): &(i32, i64)| {
                        let mut kept = kept.iter().filter(|kept| kept.partition() == *partition);
                        kept.all(|kept| *offset < kept.offset())
                    };
                    let finished = self.held.extract_if(.., |record| is_finished(record));
                    world.notes().group(self.group).finish(finished);
                    let Ok(Some(record)) = timeout(patience, stream.next()).await else {
                        break;
                    };
                    let record = record?;
                    let (partition, offset) = (record.partition(), record.offset());
                    note(
                        &world,
                        self.group,
                        &self.name,
                        partition,
                        offset,
                        text_of(&record),
                    );
                    self.held.push((partition, offset));
                    match rng.random_range(0..8) {
                        0 => kept.push(record),
                        1 => kept.clear(),
                        _ => {}
                    }
                }
            }
            Style::Split => {
                self.let_go();
                // It may go on so for good.
                self.resume();
                splits::read(&world, self.group, &self.name, &mut self.consumer, rng).await?;
            }
        }
        Ok(())
    }

    async fn event(&mut self, event: Event, rng: &mut StdRng) {
        match event {
            Event::Records(batches) => self.take(&batches, true),
            Event::Assigned(partitions) => {
                let assigned = self.consumer.assignment();
                for tp in &partitions {
                    self.forget(tp.partition());
                    // It may be lost already, of which there is another event.
                    if assigned.contains(tp) {
                        self.own(tp.partition());
                    }
                }
            }
            Event::Revoking(revoking) => {
                if rng.random() {
                    sleep(self.world.millis(rng, 0..2_000)).await;
                }
                if rng.random() {
                    self.commit(rng).await;
                }
                for tp in revoking.partitions() {
                    self.disown(tp.partition());
                    self.forget(tp.partition());
                }
                revoking.done();
            }
            Event::Lost(partitions) => {
                for tp in &partitions {
                    self.disown(tp.partition());
                    self.forget(tp.partition());
                }
            }
            _ => {}
        }
    }

    /// The member's id, empty while it is none.
    fn id(&self) -> String {
        self.consumer.group_metadata().member_id().to_owned()
    }

    fn forget(&mut self, partition: i32) {
        self.next.remove(&partition);
        self.paused.remove(&partition);
        self.last.remove(&TopicPartition::new(TOPIC, partition));
    }

    /// Nobody else may have a partition in hand, unless it was thrown out of the group meanwhile.
    fn own(&self, partition: i32) {
        let world = &self.world;
        let me = self.id();
        let Some(membership) = world.membership(self.group, &me) else {
            return;
        };
        let consumer = self.consumer.handle();
        let lost = consumer.metrics().rebalances.lost;
        let owner = Owner {
            name: self.name.clone(),
            id: me.clone(),
            membership,
            lost: world.protocols.are_classic().then_some((consumer, lost)),
        };
        let mut notes = world.notes();
        let former = notes.group(self.group).owners.insert(partition, owner);
        drop(notes);
        if let Some(former) = former
            && former.name != self.name
            && former.id != me
            && world.membership(self.group, &former.id) == Some(former.membership)
            && !former.has_lost()
        {
            world.violation(format!(
                "owners: {partition} is in the hands of {} ({}) and of {} ({me})",
                former.name, former.id, self.name
            ));
        }
    }

    fn disown(&self, partition: i32) {
        let mut notes = self.world.notes();
        let owners = &mut notes.group(self.group).owners;
        if owners
            .get(&partition)
            .is_some_and(|owner| owner.name == self.name)
        {
            owners.remove(&partition);
        }
    }

    /// What was handed out is finished.
    fn finish(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.world.notes().group(self.group).finish(held);
    }

    /// What was handed out is in nobody's hands any more.
    fn let_go(&self) {
        let mut notes = self.world.notes();
        notes
            .group(self.group)
            .owners
            .retain(|_, owner| owner.name != self.name);
    }

    fn take(&mut self, batches: &Batches, exact: bool) {
        self.last.clear();
        for error in batches.errors() {
            self.survives(error);
        }
        for batch in batches {
            let partition = batch.partition();
            for record in batch.records() {
                match record {
                    Ok(record) => {
                        if exact
                            && let Some(next) = self.next.get(&partition)
                            && *next != record.offset()
                        {
                            self.world.violation(format!(
                                "gap: {}: {partition}@{} instead of {next}",
                                self.name,
                                record.offset()
                            ));
                        }
                        let (offset, text) = (record.offset(), text_of(&record.to_owned()));
                        self.next.insert(partition, offset + 1);
                        note(&self.world, self.group, &self.name, partition, offset, text);
                        self.held.push((partition, offset));
                    }
                    Err(error) => self.world.violation(format!("content: {error}")),
                }
            }
            if self.paused.contains(&partition) && exact {
                let what = format!("paused: {}: {partition} was handed out", self.name);
                self.world.violation(what);
            }
            self.own(partition);
            self.last
                .insert(batch.topic_partition().clone(), batch.next_offset());
        }
        self.positions();
    }

    /// How often partitions came and went.
    fn rebalances(&self) -> u64 {
        let counts = self.consumer.metrics().rebalances;
        counts.assigned + counts.revoked + counts.lost
    }

    /// In real time partitions may be lost and come again between two looks.
    fn is_disturbed(&self, since: u64) -> bool {
        self.world.place != Place::Simulated && self.rebalances() != since
    }

    /// Position and lag are those of what was just handed out.
    fn positions(&mut self) {
        let now = self.rebalances();
        let before = std::mem::replace(&mut self.rebalances, now);
        if self.is_disturbed(before) {
            return;
        }
        let lag = self.consumer.lag();
        for (tp, next) in &self.last {
            let position = self.consumer.position(tp);
            if position.is_some_and(|position| position != *next) && !self.is_disturbed(before) {
                self.world.violation(format!(
                    "position: {}: {position:?} of {tp} after {next}",
                    self.name
                ));
            }
            let end = self.world.mock.offsets(TOPIC, tp.partition());
            let end = end.map_or(0, |offsets| offsets.1);
            if let Some(lag) = lag.get(tp).filter(|lag| lag.position.is_some())
                && (lag.end_offset.is_some_and(|seen| seen > end)
                    || lag.records.is_some_and(|behind| behind as i64 > end - next))
            {
                self.world
                    .violation(format!("lag: {}: {lag:?} with an end of {end}", self.name));
            }
        }
    }

    /// In the end everything is handed out, and the member knows it.
    fn up_to_date(&self) {
        if !self.world.is(Phase::Over) {
            return;
        }
        for lag in self.consumer.lag().partitions() {
            if lag.end_offset.is_none() {
                continue; // It came only now, from a member that has ended.
            }
            let end = self
                .world
                .mock
                .offsets(TOPIC, lag.topic_partition.partition());
            let end = end.map(|offsets| offsets.1);
            if lag.end_offset != end || lag.records != Some(0) {
                self.world.violation(format!(
                    "lag: {}: {lag:?} with an end of {end:?}",
                    self.name
                ));
            }
        }
    }

    /// Whether it goes on after an error; some should not be.
    fn survives(&self, error: &Error) -> bool {
        // Another life of the same static member may be in its place.
        let replaced = self.is_static
            && error.code().is_some_and(|code| {
                matches!(code.get(), FENCED_INSTANCE_ID | UNRELEASED_INSTANCE_ID)
            });
        let strange = matches!(
            error.kind(),
            ErrorKind::Fatal
                | ErrorKind::Config
                | ErrorKind::InvalidArgument
                | ErrorKind::Closed
                | ErrorKind::Offset
                | ErrorKind::CorruptRecord
        );
        if (error.is_fatal() || strange) && !replaced {
            let what = format!("fatal: {}: {error}", self.name);
            self.world.violation(what);
        }
        !error.is_fatal()
    }

    /// What members do besides reading.
    async fn whims(&mut self, rng: &mut StdRng) {
        let world = Arc::clone(&self.world);
        if rng.random_ratio(1, 3) {
            self.commit(rng).await;
        }
        if world.is(Phase::Quiet) {
            return;
        }
        if rng.random_ratio(1, 20) {
            sleep(world.millis(rng, 0..2_000)).await;
        }
        if self.lazy && !world.is(Phase::Calm) && rng.random_ratio(1, 60) {
            sleep(world.millis(rng, 0..15_000)).await;
        }
        if rng.random_ratio(1, 60) {
            let asked = self.consumer.fetch_lag();
            let _ = world.by(API, "fetch_lag", asked).await;
        }
        if rng.random_ratio(1, 100) {
            let tps = self.consumer.assignment();
            let asked = self.consumer.end_offsets(&tps);
            let _ = world.by(API, "end_offsets", asked).await;
        }
        let assigned = self.consumer.assignment();
        if assigned.is_empty() || world.is(Phase::Mended) {
            return;
        }
        let tp = &assigned[rng.random_range(0..assigned.len())];
        if rng.random_ratio(1, 60) {
            let mut notes = world.notes();
            let end = notes
                .group(self.group)
                .handed_out
                .get(&tp.partition())
                .copied();
            drop(notes);
            let to = rng.random_range(0..=end.unwrap_or(0));
            if self.consumer.seek(tp, to).is_ok() {
                // Whoever goes past a record has finished it.
                let passed = (0..to).map(|offset| (tp.partition(), offset));
                world.notes().group(self.group).finish(passed);
                self.next.insert(tp.partition(), to);
                self.last.remove(tp);
            }
        }
        if rng.random_ratio(1, 60) && self.consumer.pause(std::slice::from_ref(tp)).is_ok() {
            self.paused.insert(tp.partition());
        }
        if rng.random_ratio(1, 10) {
            self.resume();
        }
    }

    fn resume(&mut self) {
        let paused = self.consumer.paused();
        let _ = self.consumer.resume(&paused);
        self.paused.clear();
    }

    /// Commits in one way or another; what was acknowledged is at the coordinator.
    async fn commit(&mut self, rng: &mut StdRng) {
        let world = Arc::clone(&self.world);
        let rebalances = self.rebalances();
        let assigned = self.consumer.assignment();
        let position = |tp: TopicPartition| Some((tp.clone(), self.consumer.position(&tp)?));
        let mut offsets: Vec<(TopicPartition, i64)> =
            assigned.into_iter().filter_map(position).collect();
        let before = world.membership(self.group, &self.id());
        // That is what asking for a commit says.
        self.finish();
        let done = match rng.random_ratio(1, 3) && !self.last.is_empty() {
            true => {
                offsets.retain(|(tp, _)| self.last.contains_key(tp));
                let offsets = offsets.iter().cloned();
                let offsets = offsets.map(|(tp, at)| (tp, ottla::OffsetAndMetadata::new(at)));
                let commit = self.consumer.commit_offsets(offsets);
                world.by(API, "commit_offsets", commit).await
            }
            false => world.by(API, "commit", self.consumer.commit()).await,
        };
        match done {
            Some(Ok(()))
                if before.is_some()
                    && before == world.membership(self.group, &self.id())
                    && !self.is_disturbed(rebalances) =>
            {
                // What was taken away since then may have been left out, and others are further.
                let assigned = self.consumer.assignment();
                for (tp, offset) in offsets.iter().filter(|(tp, _)| assigned.contains(tp)) {
                    let there = world.committed(self.group, tp.partition());
                    // One that was given up before may come late.
                    if there != Some(*offset) && !world.holds_back.load(Ordering::Relaxed) {
                        world.violation(format!(
                            "commit: {}: {tp} was committed at {offset}, and is at {there:?}",
                            self.name
                        ));
                    }
                }
            }
            Some(Err(error)) => {
                world.tell(format_args!("commit of {}: {error}", self.name));
                self.survives(&error);
            }
            _ => {}
        }
    }

    /// In order, or by dropping the consumer; an application that failed does not finish what it
    /// has in hand.
    async fn end(mut self, rng: &mut StdRng) {
        self.let_go();
        let world = Arc::clone(&self.world);
        if rng.random_ratio(1, 4) {
            return;
        }
        if !self.failed {
            self.finish();
            self.consumer.finish();
        }
        let close = self.consumer.close_timeout(CLOSE);
        let _ = world.by(CLOSE, "closing a consumer", close).await;
    }
}

/// Takes a record in that was handed out.
pub(crate) fn note(
    world: &World,
    group: &'static str,
    member: &str,
    partition: i32,
    offset: i64,
    text: String,
) {
    let quiet = world.is(Phase::Quiet);
    let mut notes = world.notes();
    let notes_of_group = notes.group(group);
    let high = notes_of_group.handed_out.entry(partition).or_default();
    let skipped = (offset > *high).then_some(*high);
    *high = (*high).max(offset + 1);
    notes_of_group
        .finished
        .entry((partition, offset))
        .or_insert(false);
    notes_of_group.seen.push((partition, offset, text));
    if quiet {
        let first = notes_of_group.in_the_quiet.entry((partition, offset));
        first.or_insert_with(Instant::now);
    }
    drop(notes);
    if let Some(high) = skipped {
        world.violation(format!(
            "gap: {member}: {partition}@{offset}, and nobody was given {high}"
        ));
    }
}

/// A record as it is compared.
pub(crate) fn text_of(record: &OwnedRecord) -> String {
    let text =
        |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let headers: Vec<_> = record
        .headers()
        .map(|header| format!("{header:?}"))
        .collect();
    format!(
        "{:?} {:?} {headers:?} {}",
        text(record.value()),
        text(record.key()),
        record.timestamp().as_millis()
    )
}
