//! The fetch task of one broker: plan, ask, take in, again.
//!
//! Invariants:
//! - What is buffered, what requests under way may bring and what the last poll was given
//!   decompressed stays within the budget (`fetch.max.bytes` over all brokers), of which each
//!   broker has its share. Beyond it goes one oversized batch per request, which brokers send whole
//!   so that it can be read at all; and a broker of which nothing is here may always ask for a
//!   quarter of its share, so that partitions that nobody takes do not hold back other brokers.
//! - A request waits at the broker only if nothing of that broker was left out because enough of it
//!   is buffered. Otherwise it is answered at once, and pauses are made here, where the application
//!   can end them by taking records: a long poll for idle partitions does not hold back busy ones.
//! - No partition is asked for by two requests at a time. A second request, outside of the session
//!   and on a connection of its own, asks for what has become wanted while the first one is under
//!   way for more than [`NEAR_UNTIL`]: a long round trip, or a long poll.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::join;
use kafka_protocol::messages as kp;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;
use tokio::time::sleep_until;
use tracing::Instrument as _;
use tracing::field::Empty;

use self::size::{FetchSize, NEAR_UNTIL, is_far};
use super::fetchable::enough;
use super::positions::{Answer, Plan, Slot};
use super::session::{FetchSession, SessionAction};
use super::shared::{Inner, Shared};
use super::splits::STALLED;
use crate::clock::{Instant, now};
use crate::cluster::{Cluster, LeaderHint};
use crate::error::{Error, Result};
use crate::fetched::PartEpoch;
use crate::fetched::chunk::Chunk;
use crate::fetched::survey::Survey;
use crate::fetched::survey::survey;
use crate::log_throttle::LogThrottle;
use crate::net::Lane;
use crate::net::backoff::Backoff;
use crate::net::link::{Driver, Link};
use crate::tasks::Tasks;
use crate::types::{BrokerId, TopicPartition};
use crate::wire::{FETCH_BY_ID, FETCH_BY_NAME};

mod message;
mod size;

/// The pause after an answer without records while enough of some partitions is buffered: what a
/// partition whose records nobody takes may hold back the others of its broker, which gets a
/// hundred small requests in a second at most (`tests/fetching.rs`).
const PAUSE: Duration = Duration::from_millis(10);
/// The epoch that ends a session (KIP-227).
const FINAL: i32 = -1;
/// An answer with so little is one of few records that came just now, and the application should
/// not wait for the next request to be written before it sees them: that took a tenth of the time
/// from send to receipt.
const LITTLE: usize = 64 << 10;

pub(super) async fn run(shared: Arc<Shared>, broker: BrokerId) {
    let pair = Arc::new(Pair::default());
    let first = Fetcher::new(Arc::clone(&shared), broker, Arc::clone(&pair), Slot::First);
    let second = Fetcher::new(shared, broker, Arc::clone(&pair), Slot::Second);
    let (mut first, mut second) = (pin!(first.run()), pin!(second.run()));
    // Other tasks get their turn: a change is an answer or a request, and a task may read only so
    // much of its sockets in a row (tokio's coop), nor is there room for more than the budget.
    poll_fn(|cx| {
        loop {
            let seen = pair.changes();
            // The second one ends with the first.
            if first.as_mut().poll(cx).is_ready() || second.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if pair.changes() == seen {
                return Poll::Pending;
            }
        }
    })
    .await;
}

/// What the two requests of a broker know of each other. One task polls both in turn for as long as
/// this changes, so that neither has to wake the other, which would wake another thread as well.
#[derive(Debug, Default)]
struct Pair {
    state: Mutex<PairState>,
    /// The last answer with data was long under way.
    far: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default)]
struct PairState {
    /// Since when the first request is under way.
    first_since: Option<Instant>,
    /// Counts what happened to either request.
    changes: u64,
}

impl Pair {
    fn set_first(&self, since: Option<Instant>) {
        let mut state = self.state();
        state.first_since = since;
        state.changes += 1;
    }

    fn second_ended(&self) {
        self.state().changes += 1;
    }

    fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Completes when something happened to either request since `seen`.
    async fn changed(&self, seen: u64) {
        poll_fn(|_| match self.changes() == seen {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
    }

    /// Completes when the first request is under way for [`NEAR_UNTIL`]. The timer is set once per
    /// [`NEAR_UNTIL`], not once per request.
    async fn overlaps(&self) {
        loop {
            let PairState {
                first_since,
                changes,
            } = *self.state();
            match first_since {
                None => self.changed(changes).await,
                Some(since) if since + NEAR_UNTIL > now() => {
                    sleep_until(since + NEAR_UNTIL).await;
                }
                Some(_) => return,
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, PairState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Fetcher {
    shared: Arc<Shared>,
    broker: BrokerId,
    pair: Arc<Pair>,
    slot: Slot,
    session: FetchSession,
    backoff: Backoff,
    /// The last answer had nothing new: the next one had better not be asked for at once.
    idle: bool,
    /// The last answer was that the session is unknown.
    restarted: bool,
    /// The most to ask for at a time.
    size: FetchSize,
    /// The runtime has more than one thread: what is put off here goes on there.
    has_other_threads: bool,
    connection: Option<Connection>,
    /// A partition is to be read from another broker now, whose fetch task does not know.
    moved: bool,
    /// There may be something to fetch from this broker.
    fetchable: Arc<Notify>,
}

/// A connection that this task moves the bytes of.
struct Connection {
    link: Link,
    /// Gone only while this is dropped.
    driver: Option<Driver>,
    tasks: Tasks,
    /// The broker's number of the fetch session on it; 0 for none.
    session: i32,
}

impl Connection {
    /// Waits for something while bytes move.
    async fn drive<F: Future>(&mut self, future: F) -> F::Output {
        match &mut self.driver {
            Some(driver) => driver.drive(future).await,
            None => future.await,
        }
    }

    /// Moves bytes; whether the connection has ended.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let driver = self.driver.as_mut();
        driver.is_none_or(|driver| Pin::new(driver).poll(cx).is_ready())
    }
}

impl Drop for Connection {
    /// Tells the broker that its session is over, so that it need not keep that until another wants
    /// the place. Nobody waits for it.
    fn drop(&mut self) {
        let told = self.session != 0 && self.link.is_open();
        let Some(driver) = self.driver.take().filter(|_| told) else {
            return;
        };
        let Ok(version) = self.link.version::<kp::FetchRequest>() else {
            return;
        };
        let request = kp::FetchRequest::default()
            .with_session_id(self.session)
            .with_session_epoch(FINAL);
        let sent = self.link.send(version, &request);
        self.link.close();
        self.tasks.spawn("end of a fetch session", async move {
            // Only a request that somebody waits for is sure to be written.
            let _ = join(driver, sent).await;
        });
    }
}

/// What to ask now.
struct Allowance {
    max_bytes: i32,
    max_wait: Duration,
    _under_way: UnderWay,
}

/// Gives the reserved bytes and the partitions back, however the request ends.
struct UnderWay {
    shared: Arc<Shared>,
    pair: Arc<Pair>,
    slot: Slot,
    broker: BrokerId,
    bytes: usize,
    /// By the second request.
    asked: Vec<(TopicPartition, PartEpoch)>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.unreserve(self.broker, self.bytes);
        let moved = inner.positions.ended(self.broker, &self.asked, now());
        let starved = std::mem::take(&mut inner.starved);
        drop(inner);
        self.shared.fetchable.wake(starved);
        match self.slot {
            Slot::First => self.pair.set_first(None),
            Slot::Second => self.pair.second_ended(),
        }
        if moved {
            self.shared.fetchable.notify_waiters();
        }
    }
}

/// What to do before the next request.
enum Next {
    Ask(Allowance),
    /// Wait for a change, or until then.
    Wait(Option<Instant>),
    /// The broker left the cluster, and nothing is to be read from it.
    End,
}

impl Fetcher {
    fn new(shared: Arc<Shared>, broker: BrokerId, pair: Arc<Pair>, slot: Slot) -> Self {
        let config = shared.cluster.config();
        Self {
            backoff: Backoff::new(config.retry_backoff, config.retry_backoff_max),
            broker,
            pair,
            slot,
            session: match slot {
                Slot::First => FetchSession::default(),
                Slot::Second => FetchSession::none(),
            },
            idle: false,
            restarted: false,
            size: FetchSize::new(),
            has_other_threads: Handle::try_current()
                .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread),
            connection: None,
            moved: false,
            fetchable: shared.fetchable.of(broker),
            shared,
        }
    }

    /// Until the broker is one that there is nothing to read from any more.
    async fn run(mut self) {
        let failures = LogThrottle::default();
        while let Some(turn) = self.next_driven().await {
            let (broker, shared) = (self.broker, Arc::clone(&self.shared));
            let span = tracing::debug_span!(
                "fetch",
                broker = broker.get(),
                partitions = self.session.len(),
                bytes = Empty,
                took_ms = Empty,
                error = Empty,
            );
            match self.fetch(turn).instrument(span.clone()).await {
                Ok(()) => {
                    self.backoff.succeed();
                    failures.reset();
                }
                Err(error) => {
                    span.record("error", tracing::field::display(&error));
                    span.in_scope(|| match failures.pass(now()) {
                        Some(untold) => tracing::warn!(%broker, %error, untold, "fetch failed"),
                        None => tracing::debug!(%broker, %error, "fetch failed"),
                    });
                    drop(span);
                    self.session.failed();
                    shared.unreachable(broker, error);
                    shared.cluster.refresh();
                    let pause = self.backoff.fail(shared.cluster.clock());
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// The same, while the connection is looked after.
    async fn next_driven(&mut self) -> Option<Allowance> {
        let mut connection = self.connection.take();
        let turn = {
            let mut next = pin!(self.next());
            poll_fn(|cx| {
                // One that has ended is let go at once, which closes its socket.
                connection.take_if(|connection| connection.is_over(cx));
                next.as_mut().poll(cx)
            })
            .await
        };
        if let Some(driver) = connection.as_ref().and_then(|it| it.driver.as_ref()) {
            driver.pause();
        }
        self.connection = connection;
        turn
    }

    /// Waits until there is something to ask.
    async fn next(&mut self) -> Option<Allowance> {
        let (fetchable, pair) = (Arc::clone(&self.fetchable), Arc::clone(&self.pair));
        let mut paused_until = None;
        loop {
            if self.slot == Slot::Second {
                pair.overlaps().await;
            }
            let mut change = pin!(fetchable.notified());
            change.as_mut().enable();
            let seen = pair.changes();
            let next = self.plan(&mut paused_until);
            if std::mem::take(&mut self.moved) {
                self.shared.fetchable.notify_waiters();
            }
            let until = match next {
                Next::Ask(turn) => return Some(turn),
                Next::Wait(until) => until,
                Next::End => return None,
            };
            tokio::select! {
                biased;
                () = change => {}
                () = pair.changed(seen) => {}
                () = wait(until) => {}
            }
        }
    }

    fn plan(&mut self, paused_until: &mut Option<Instant>) -> Next {
        let time = now();
        let shared = Arc::clone(&self.shared);
        let limit = usize::try_from(shared.config.max_partition_fetch_bytes).unwrap_or(0);
        let enough = enough(limit, self.pair.far.load(Ordering::Relaxed));
        let mut inner = shared.lock();
        if self.slot == Slot::First && inner.end_fetcher(&shared, self.broker) {
            return Next::End;
        }
        // A quota holds back the connection it was told on (KIP-219), but it means all of them.
        let throttled = inner.fetches.throttled_until(self.broker);
        if let Some(until) = throttled.filter(|until| *until > time && self.slot == Slot::Second) {
            return Next::Wait(Some(until));
        }
        let Inner {
            positions, buffer, ..
        } = &mut *inner;
        let full = |tp: &TopicPartition| buffer.unread(tp) >= enough;
        let mut plan = positions.plan(self.broker, self.slot, time, full);
        self.moved = plan.moved;
        let mut asked = Vec::new();
        if self.slot == Slot::Second {
            self.session = FetchSession::none();
            let planned = plan
                .changes
                .iter()
                .filter_map(|(_, wanted)| wanted.as_ref());
            asked.extend(planned.map(|planned| (planned.tp.clone(), planned.epoch)));
        }
        for (tp, wanted) in plan.changes.drain(..) {
            self.session.change(tp, wanted);
        }
        let (bytes, max_wait) = match self.admit(&mut inner, &plan, time, paused_until) {
            Ok(admitted) => admitted,
            Err(until) => {
                inner.positions.put_off(self.broker, asked);
                return Next::Wait(until);
            }
        };
        inner.positions.begun(self.broker, &asked);
        drop(inner);
        if self.slot == Slot::First {
            self.pair.set_first(Some(time));
        }
        Next::Ask(Allowance {
            max_bytes: i32::try_from(bytes).unwrap_or(i32::MAX),
            max_wait,
            _under_way: UnderWay {
                shared: Arc::clone(&self.shared),
                pair: Arc::clone(&self.pair),
                slot: self.slot,
                broker: self.broker,
                bytes,
                asked,
            },
        })
    }

    /// How many bytes to ask for and how long the broker may wait, if a request is to be made now;
    /// else until when to wait for a change.
    fn admit(
        &mut self,
        inner: &mut Inner,
        plan: &Plan,
        time: Instant,
        paused_until: &mut Option<Instant>,
    ) -> std::result::Result<(usize, Duration), Option<Instant>> {
        if self.session.len() == 0 {
            return Err(plan.next_at);
        }
        let config = &self.shared.config;
        let max_wait = if plan.full == 0 {
            config.fetch_max_wait
        } else if !self.idle {
            Duration::ZERO
        } else {
            let until = *paused_until.get_or_insert_with(|| time + PAUSE);
            if until > time {
                return Err(Some(plan.next_at.map_or(until, |at| at.min(until))));
            }
            Duration::ZERO
        };
        let limit = usize::try_from(config.max_partition_fetch_bytes).unwrap_or(0);
        let budget = usize::try_from(config.fetch_max_bytes).unwrap_or(0);
        let wish = self.session.len().saturating_mul(limit);
        let wish = wish.min(self.size.get().max(limit));
        if let Some(bytes) = inner.reserve(self.broker, wish, budget) {
            return Ok((bytes, max_wait));
        }
        // Whoever holds the memory may stand still by then.
        let again = inner.is_awaited(self.broker).then(|| time + STALLED);
        Err(again.into_iter().chain(plan.next_at).min())
    }

    /// Suits what is asked for at a time to how long answers take.
    fn measure(&mut self, bytes: usize, asked: usize, took: Duration) {
        if bytes == 0 {
            return;
        }
        let far = is_far(took);
        if self.pair.far.swap(far, Ordering::Relaxed) != far {
            self.shared.lock().positions.recheck(self.broker);
        }
        let budget = usize::try_from(self.shared.config.fetch_max_bytes).unwrap_or(0);
        self.size.answered(bytes, asked, took, budget);
    }

    async fn fetch(&mut self, turn: Allowance) -> Result<()> {
        let mut connection = match self.connection.take() {
            Some(connection) if connection.link.is_open() => connection,
            _ => connect(self.shared.cluster.clone(), self.broker, self.slot).await?,
        };
        let newest = connection.link.version::<kp::FetchRequest>()?;
        let request = self.session.build(newest >= FETCH_BY_ID);
        let version = if request.by_id { newest } else { FETCH_BY_NAME };
        let by_id = request.by_id;
        let config = &self.shared.config;
        let message = message::request(config, request, version, turn.max_bytes, turn.max_wait);
        let asked_at = now();
        let link = connection.link.clone();
        let sent = link.send_waiting(version, &message, turn.max_wait);
        let response = connection.drive(sent).await?;
        if self.slot == Slot::First {
            connection.session = response.session_id;
        }
        self.connection = Some(connection);
        match self
            .session
            .accept(response.error_code, response.session_id)
        {
            SessionAction::Take => {
                self.restarted = false;
                let bytes = self.take_in(response, by_id, asked_at);
                if (1..=LITTLE).contains(&bytes) && self.has_other_threads {
                    let_woken_tasks_go_first().await;
                }
                let asked = usize::try_from(turn.max_bytes).unwrap_or(0);
                self.measure(bytes, asked, now() - asked_at);
            }
            // At once, but not over and over.
            SessionAction::Restart if !std::mem::replace(&mut self.restarted, true) => {}
            SessionAction::Restart | SessionAction::Refresh => {
                self.shared.cluster.refresh();
                let doing = format!("fetching from broker {}", self.broker);
                return Err(Error::from_code(response.error_code, doing));
            }
            SessionAction::Fail(code) => {
                let doing = format!("fetching from broker {}", self.broker);
                return Err(Error::from_code(code, doing));
            }
        }
        Ok(())
    }

    /// Takes an answer in; how many bytes of records it has.
    fn take_in(
        &mut self,
        mut response: kp::FetchResponse,
        by_id: bool,
        asked_at: Instant,
    ) -> usize {
        let check_crcs = self.shared.config.check_crcs;
        let (frame_len, topics) = judge(std::mem::take(&mut response.responses), check_crcs);
        let mut hints = Vec::new();
        let mut refresh = false;
        // What the broker holds of the session is not what it was told.
        let mut unasked = false;
        let time = now();
        let mut news = false;
        let mut bytes = 0;
        let throttle = Duration::from_millis(u64::try_from(response.throttle_time_ms).unwrap_or(0));
        let mut inner = self.shared.lock();
        let frame = inner.buffer.frame(self.broker, frame_len);
        for (topic, parts) in topics {
            let name = match by_id {
                true => self.session.name(&topic.topic_id).cloned(),
                false => Some(Arc::from(topic.topic.as_str())),
            };
            let Some(name) = name else {
                unasked = true;
                continue;
            };
            for (part, data) in parts {
                let tp = TopicPartition::new(Arc::clone(&name), part.partition_index);
                let asked = self.session.asked(&tp);
                let Some(asked) = asked.filter(|asked| !by_id || asked.topic_id == topic.topic_id)
                else {
                    unasked = true;
                    continue;
                };
                let records = part.records.unwrap_or_default();
                bytes += records.len();
                let answer = Answer {
                    code: part.error_code,
                    high_watermark: part.high_watermark,
                    last_stable: part.last_stable_offset,
                    log_start: part.log_start_offset,
                    diverging: (part.diverging_epoch.epoch >= 0
                        && part.diverging_epoch.end_offset >= 0)
                        .then_some((part.diverging_epoch.epoch, part.diverging_epoch.end_offset)),
                    preferred: (part.preferred_read_replica.0 >= 0)
                        .then_some(BrokerId(part.preferred_read_replica.0)),
                    data,
                };
                let leader = part.current_leader;
                if leader.leader_id.0 >= 0 && leader.leader_epoch >= 0 && part.error_code != 0 {
                    hints.push(LeaderHint {
                        topic: Arc::clone(&name),
                        partition: tp.partition,
                        leader: BrokerId(leader.leader_id.0),
                        leader_epoch: leader.leader_epoch,
                    });
                }
                let outcome = inner.positions.accept(self.broker, asked, &answer, time);
                unasked |= outcome.again;
                refresh |= outcome.refresh;
                if answer.preferred.is_some() {
                    // It may be a broker that has no fetch task yet.
                    self.shared.control.notify_one();
                }
                if outcome.discard {
                    inner.buffer.discard(&tp);
                    self.shared.control.notify_one();
                }
                if outcome.buffer {
                    let aborted = part.aborted_transactions.unwrap_or_default();
                    let aborted = aborted
                        .iter()
                        .map(|aborted| (aborted.first_offset, aborted.producer_id.0));
                    let ends = (answer.high_watermark, answer.last_stable);
                    inner.split.wake(&tp);
                    let checked =
                        check_crcs && matches!(data, Survey::Batches { damaged: false, .. });
                    let chunk = Chunk::new(tp, asked.epoch, records, aborted.collect(), ends);
                    inner.buffer.push(chunk.in_frame(frame).checked(checked));
                    news = true;
                }
                if let Some(error) = outcome.error {
                    inner.tell(error);
                    news = true;
                }
            }
        }
        inner
            .fetches
            .answered(self.broker, bytes, (asked_at, time), throttle);
        self.idle = bytes == 0;
        drop(inner);
        if unasked {
            self.session.failed();
        }
        let took = time.saturating_duration_since(asked_at);
        self.shared.stats.fetched(bytes, took, throttle);
        let span = tracing::Span::current();
        span.record("bytes", bytes);
        span.record("took_ms", took.as_millis());
        if news {
            self.shared.ready.notify_waiters();
        }
        if !hints.is_empty() {
            self.shared
                .cluster
                .learn(&hints, &message::endpoints(&response.node_endpoints));
        }
        if refresh {
            self.shared.cluster.refresh();
        }
        bytes
    }
}

async fn connect(cluster: Cluster, broker: BrokerId, slot: Slot) -> Result<Connection> {
    let lane = match slot {
        Slot::First => Lane::Fetch,
        Slot::Second => Lane::FetchMore,
    };
    let deadline = now() + cluster.config().connection_setup_timeout_max;
    let (link, driver) = cluster.driven_link(broker, lane, deadline).await?;
    Ok(Connection {
        link,
        driver: Some(driver),
        tasks: cluster.tasks().clone(),
        session: 0,
    })
}

/// A topic of an answer and, beside the bytes of each of its partitions, what they hold.
type Judged = (FetchableTopicResponse, Vec<(PartitionData, Survey)>);

/// What the bytes of each partition hold, cut to what is worth keeping; and how many bytes there
/// are in all.
fn judge(topics: Vec<FetchableTopicResponse>, check_crcs: bool) -> (usize, Vec<Judged>) {
    let mut len = 0;
    let mut judged = Vec::with_capacity(topics.len());
    for mut topic in topics {
        let mut parts = Vec::with_capacity(topic.partitions.len());
        for mut part in std::mem::take(&mut topic.partitions) {
            let mut data = Survey::Empty;
            if let Some(records) = &mut part.records {
                let keep;
                (data, keep) = survey(records, check_crcs);
                len += records.len();
                records.truncate(keep);
            }
            parts.push((part, data));
        }
        judged.push((topic, parts));
    }
    (len, judged)
}

/// Lets the tasks that were woken go first. Unlike with `yield_now`, which comes back when this
/// thread has nothing else to do, another thread goes on with this task meanwhile, so that the
/// application's work does not hold it up.
async fn let_woken_tasks_go_first() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}
