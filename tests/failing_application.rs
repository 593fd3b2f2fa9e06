//! What is committed when the application fails: never what it has not finished, whatever it reads
//! by and however it ends; and all of that where it ends cleanly. A table of ways to read and ways
//! to end, against the mock cluster on a paused clock; `--nocapture` prints it.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use ottla::mock::MockCluster;
use ottla::{
    Batches, Client, CloseOptions, Consumer, ConsumerHandle, Event, GroupMembershipOperation,
    OffsetAndMetadata, OffsetReset, PartitionBatch, PartitionStream, Record, TopicPartition,
};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);
const PARTITIONS: i32 = 2;
/// Records of each partition, stored in batches of `STORED`, of which a poll takes at most `POLL`
/// records in all.
const RECORDS: i64 = 40;
const STORED: i64 = 4;
const POLL: usize = 10;
/// Where the application fails, once.
const BAD: (i32, i64) = (1, 17);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Poll,
    Events,
    Stream,
    /// A stream whose records are worked on side by side.
    Unordered,
    /// A task for each partition.
    Split,
    /// Partitions by `assign`, commits to a group.
    Assigned,
}

const READINGS: [Reading; 6] = [
    Reading::Poll,
    Reading::Events,
    Reading::Stream,
    Reading::Unordered,
    Reading::Split,
    Reading::Assigned,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All is processed.
    Clean,
    CleanRemaining,
    /// An error, and then the consumer is closed, or its member remains in the group.
    Close,
    Remain,
    /// An error, and then the consumer is dropped.
    Drop,
    /// A panic while a record is processed.
    Panic,
    /// The stream is dropped at the bad record, and another one goes on; polls go on after the
    /// error.
    Again,
    /// An error, and then something else is read.
    Unsubscribe,
    /// An error, and then the client is closed.
    Client,
    /// An error, and then the broker is gone.
    Broker,
    /// An error, and then the runtime of the client is gone.
    Runtime,
}

const ENDS: [End; 11] = [
    End::Clean,
    End::CleanRemaining,
    End::Close,
    End::Remain,
    End::Drop,
    End::Panic,
    End::Again,
    End::Unsubscribe,
    End::Client,
    End::Broker,
    End::Runtime,
];

impl End {
    fn is_clean(self, reading: Reading) -> bool {
        let streams = matches!(
            reading,
            Reading::Stream | Reading::Unordered | Reading::Split
        );
        match self {
            Self::Clean | Self::CleanRemaining => true,
            // Polls after an error say that what was handed out before is finished, so nobody does
            // that here.
            Self::Again => streams,
            _ => false,
        }
    }
}

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// What the application has processed, which alone is finished.
struct App {
    end: End,
    done: Mutex<BTreeSet<(i32, i64)>>,
    failed: Mutex<bool>,
    commits: bool,
}

impl App {
    /// Processes a record; some take longer than those behind them.
    async fn work(&self, partition: i32, offset: i64) -> Result {
        sleep(MILLI * u32::try_from(offset * 7 % 5).unwrap()).await;
        let fails = !matches!(self.end, End::Clean | End::CleanRemaining);
        if fails && (partition, offset) == BAD {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            if !std::mem::replace(&mut *failed, true) {
                drop(failed);
                assert_ne!(self.end, End::Panic, "as planned");
                return Err("the database is away".into());
            }
        }
        self.done.lock().unwrap().insert((partition, offset));
        Ok(())
    }

    async fn all(&self, batch: &PartitionBatch) -> Result {
        for record in batch.records() {
            self.work(batch.partition(), record?.offset()).await?;
        }
        Ok(())
    }

    /// The first offset that is not processed.
    fn next(&self, partition: i32) -> i64 {
        let done = self.done.lock().unwrap();
        let mut offsets = 0..RECORDS;
        let next = offsets.find(|offset| !done.contains(&(partition, *offset)));
        next.unwrap_or(RECORDS)
    }

    fn is_done(&self) -> bool {
        (0..PARTITIONS).all(|partition| self.next(partition) == RECORDS)
    }

    async fn finished(&self) {
        while !self.is_done() {
            sleep(MILLI).await;
        }
    }

    /// By hand, what is processed without gaps.
    async fn commit(&self, handle: &ConsumerHandle) -> Result {
        if self.commits {
            let offsets = (0..PARTITIONS).map(|partition| {
                let next = OffsetAndMetadata::new(self.next(partition));
                (TopicPartition::new("t", partition), next)
            });
            handle.commit_offsets(offsets).await?;
        }
        Ok(())
    }
}

/// Reads until all is processed or that fails.
async fn read(reading: Reading, consumer: &mut Consumer, app: &Arc<App>) -> Result {
    match reading {
        Reading::Poll | Reading::Assigned => {
            while !app.is_done() {
                let batches = consumer.poll().await?.ok_or("closed")?;
                take(consumer, app, &batches).await?;
            }
            consumer.finish();
        }
        Reading::Events => {
            while !app.is_done() {
                if let Event::Records(batches) = consumer.next_event().await?.ok_or("closed")? {
                    take(consumer, app, &batches).await?;
                }
            }
            consumer.finish();
        }
        Reading::Stream => {
            while let Err(error) = stream(consumer, app).await {
                if app.end != End::Again {
                    return Err(error);
                }
            }
            consumer.finish();
        }
        Reading::Unordered => {
            while let Err(error) = unordered(consumer, app).await {
                if app.end != End::Again {
                    return Err(error);
                }
            }
        }
        Reading::Split => split(consumer, app).await?,
    }
    Ok(())
}

async fn take(consumer: &mut Consumer, app: &App, batches: &Batches) -> Result {
    for batch in batches {
        app.all(batch).await?;
    }
    if app.commits {
        consumer.commit().await?;
    }
    Ok(())
}

async fn stream(consumer: &mut Consumer, app: &App) -> Result {
    let handle = consumer.handle();
    let mut records = consumer.stream();
    while !app.is_done() {
        let record = records.next().await.ok_or("closed")??;
        app.work(record.partition(), record.offset()).await?;
        app.commit(&handle).await?;
    }
    Ok(())
}

async fn unordered(consumer: &mut Consumer, app: &App) -> Result {
    let handle = consumer.handle();
    let records = consumer.stream();
    let work = records.map(|record| async {
        let record = record?;
        app.work(record.partition(), record.offset()).await
    });
    let mut work = std::pin::pin!(work.buffer_unordered(7));
    loop {
        tokio::select! {
            biased;
            outcome = work.next() => outcome.ok_or("closed")??,
            () = app.finished() => return Ok(()),
        }
        app.commit(&handle).await?;
    }
}

async fn split(consumer: &mut Consumer, app: &Arc<App>) -> Result {
    let handle = consumer.handle();
    let mut partitions = consumer.split_by_partition();
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(ended) = tasks.join_next() => match ended {
                Err(panic) if panic.is_panic() => std::panic::resume_unwind(panic.into_panic()),
                Err(error) => return Err(error.into()),
                Ok(Err(error)) if app.end != End::Again => return Err(error),
                Ok(_) => {}
            },
            next = partitions.next() => {
                let (_, batches) = next.ok_or("closed")??;
                tasks.spawn(partition(batches, Arc::clone(app), handle.clone()));
            }
            () = app.finished() => break,
        }
    }
    tasks.detach_all();
    Ok(())
}

async fn partition(mut batches: PartitionStream, app: Arc<App>, handle: ConsumerHandle) -> Result {
    while let Some(batch) = batches.next().await {
        app.all(&batch?).await?;
        app.commit(&handle).await?;
    }
    Ok(())
}

async fn cluster() -> MockCluster {
    let mock = MockCluster::builder().topic("t", PARTITIONS as u32);
    let mock = mock.in_memory().seed(4).start().await.unwrap();
    let client = mock.client();
    let producer = client.producer().build().unwrap();
    for _ in 0..RECORDS / STORED {
        for partition in 0..PARTITIONS {
            for _ in 0..STORED {
                let record = Record::to("t").with_partition(partition).with_value("v");
                drop(producer.enqueue(record).await.unwrap());
            }
        }
        producer.flush().await.unwrap();
    }
    producer.close_timeout(SECOND).await.unwrap();
    mock
}

async fn consumer(client: &Client, reading: Reading, auto: bool) -> Consumer {
    let all = (0..PARTITIONS).map(|partition| TopicPartition::new("t", partition));
    let builder = match reading {
        Reading::Assigned => client.reader().group_id("g").assign(all),
        _ => client.consumer("g").subscribe(["t"]),
    };
    let builder = builder
        .auto_commit(auto)
        .auto_commit_interval(10 * MILLI)
        .max_poll_records(POLL)
        .offset_reset(OffsetReset::Earliest);
    builder.build().unwrap()
}

fn committed(mock: &MockCluster, partition: i32) -> i64 {
    let group = mock.group("g");
    let offsets = group.map(|group| group.offsets).unwrap_or_default();
    let tp = TopicPartition::new("t", partition);
    let found = offsets.iter().find(|(at, _)| *at == tp);
    found.map_or(0, |(_, offset)| *offset)
}

fn app(end: End, auto: bool) -> Arc<App> {
    Arc::new(App {
        end,
        done: Mutex::default(),
        failed: Mutex::default(),
        commits: !auto,
    })
}

/// Reads in that way up to the error, or until all is processed. Whether it was the latter; an
/// error if it panicked.
async fn reads(
    client: &Client,
    (reading, auto): (Reading, bool),
    app: &Arc<App>,
) -> Result<(bool, Consumer), tokio::task::JoinError> {
    let mut consumer = consumer(client, reading, auto).await;
    let app = Arc::clone(app);
    let reader = tokio::spawn(async move {
        let outcome = timeout(600 * SECOND, read(reading, &mut consumer, &app)).await;
        // Records that never come are as bad as an error.
        let is_ok = outcome.is_ok_and(|outcome| outcome.is_ok());
        (is_ok, consumer)
    });
    reader.await
}

fn outcome(mock: &MockCluster, app: &App) -> Vec<(i64, i64)> {
    let partitions = 0..PARTITIONS;
    partitions
        .map(|partition| (committed(mock, partition), app.next(partition)))
        .collect()
}

/// Reads in that way up to that end. Returns of each partition what is committed and what was
/// finished, and whether reading ended as it should.
async fn run(reading: Reading, end: End, auto: bool) -> (Vec<(i64, i64)>, bool) {
    let mock = cluster().await;
    let client = mock.client();
    let app = app(end, auto);
    let mut as_it_should = true;
    match reads(&client, (reading, auto), &app).await {
        Ok((is_ok, mut consumer)) => {
            as_it_should = is_ok == end.is_clean(reading);
            let remain = CloseOptions::new();
            let remain = remain.group_membership_operation(GroupMembershipOperation::RemainInGroup);
            match end {
                End::Clean | End::Close | End::Again => {
                    consumer.close_timeout(5 * SECOND).await.unwrap()
                }
                End::Remain | End::CleanRemaining => consumer.close_with(remain).await.unwrap(),
                End::Drop => drop(consumer),
                End::Unsubscribe => {
                    consumer.unsubscribe();
                    consumer.close_timeout(5 * SECOND).await.unwrap();
                }
                End::Client => client.clone().close().await.unwrap(),
                End::Broker => {
                    mock.kill(1);
                    let _ = consumer.close_timeout(2 * SECOND).await;
                    mock.restart(1).await.unwrap();
                }
                End::Panic | End::Runtime => unreachable!("{end:?}"),
            }
        }
        Err(panic) => assert!(end == End::Panic && panic.is_panic(), "{panic:?}"),
    }
    // What is left in the background may end.
    sleep(10 * SECOND).await;
    let outcome = outcome(&mock, &app);
    next_member_goes_on(&mock, &outcome).await;
    (outcome, as_it_should)
}

/// The same where the runtime of the client and of the cluster ends: what was committed is known,
/// and whoever goes on with the consumer is told.
fn run_without_runtime(reading: Reading, auto: bool) -> (Vec<(i64, i64)>, bool) {
    let first = runtime();
    let app = app(End::Runtime, auto);
    let (mock, is_ok, mut consumer) = first.block_on(async {
        let mock = cluster().await;
        let reads = reads(&mock.client(), (reading, auto), &app).await;
        let (is_ok, consumer) = reads.unwrap();
        (mock, is_ok, consumer)
    });
    drop(first);
    let told = runtime().block_on(async {
        let polled = timeout(SECOND, consumer.poll()).await;
        let closed = timeout(SECOND, consumer.close_timeout(60 * SECOND)).await;
        polled.is_ok_and(|polled| polled.is_err()) && closed.is_ok_and(|closed| closed.is_err())
    });
    (outcome(&mock, &app), told && !is_ok)
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap()
}

/// Another member of the group reads from there on, and to the end.
async fn next_member_goes_on(mock: &MockCluster, outcome: &[(i64, i64)]) {
    let client = mock.client();
    let mut other = consumer(&client, Reading::Poll, true).await;
    let mut next: Vec<i64> = outcome.iter().map(|(committed, _)| *committed).collect();
    while next.iter().any(|next| *next < RECORDS) {
        let polled = timeout(300 * SECOND, other.poll()).await.unwrap();
        for record in polled.unwrap().unwrap().iter().flatten() {
            let record = record.unwrap();
            let next = &mut next[usize::try_from(record.partition()).unwrap()];
            assert_eq!(record.offset(), *next);
            *next += 1;
        }
    }
    client.close().await.unwrap();
}

/// A panic that is planned says nothing.
fn quiet_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<String>();
        if !text.is_some_and(|text| text.contains("as planned")) {
            usual(panic);
        }
    }));
}

#[test]
fn what_was_not_finished_is_never_committed() {
    quiet_panics();
    let (mut table, mut wrong) = (String::new(), String::new());
    write!(table, "\n{:20}", "committed/finished").unwrap();
    for end in ENDS {
        write!(table, "{:>16}", format!("{end:?}")).unwrap();
    }
    for reading in READINGS {
        for auto in [true, false] {
            let commits = if auto { "auto" } else { "by hand" };
            let row = format!("{reading:?}, {commits}");
            write!(table, "\n{row:20}").unwrap();
            for end in ENDS {
                let (outcome, as_it_should) = match end {
                    End::Runtime => run_without_runtime(reading, auto),
                    _ => runtime().block_on(run(reading, end, auto)),
                };
                // A stream knows exactly, and could still say so.
                let gone = matches!(end, End::Client | End::Broker | End::Runtime);
                let exact = end.is_clean(reading) || reading == Reading::Stream && !gone;
                let is_right = outcome.iter().all(|(committed, finished)| match exact {
                    true => committed == finished,
                    false => committed <= finished,
                });
                let cell = outcome.iter().map(|(a, b)| format!("{a}/{b}"));
                let cell = cell.collect::<Vec<_>>().join(" ");
                write!(table, "{cell:>16}").unwrap();
                if !is_right || !as_it_should {
                    writeln!(wrong, "{row}, {end:?}: {cell}").unwrap();
                }
            }
        }
    }
    println!("{table}");
    assert!(wrong.is_empty(), "{table}\nwrong:\n{wrong}");
}
