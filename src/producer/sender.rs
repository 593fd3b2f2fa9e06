//! The task that sends to one broker: takes slots with work, fills requests, and settles the
//! answers in order.
//!
//! Here is the task, what it waits for, and how a request is filled; what is made of an answer is
//! in `sender/answers.rs`.
//!
//! Invariants:
//!
//! - A slot that has work is on its home's ready list or in that sender's `work`; its `queued` flag
//!   says so. The sender clears the flag under the slot's lock after having found nothing to do, so
//!   that no change is missed. A slot that moved is put on the new home's list at once; what the
//!   old sender still holds of it is stale, and dropped when seen.
//! - Looking at a slot takes its cache lines from the threads that append, so a sender does that
//!   only to send and to settle, and neither when a batch is opened nor when its linger ends. A
//!   slot whose linger is over is therefore in `work` without the flag and may be there twice: a
//!   look too many does no harm.
//! - Timers only cause a look. One that comes late or twice does no harm; each slot has one of each
//!   kind. What a slot counts as armed is, or a batch would lie until it expires.
//! - Answers are settled in the order of the requests: a connection answers in that order.
//! - The task holds no state that matters to anyone when it is dropped: what was in flight is still
//!   in the slots.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kafka_protocol::messages::ProduceRequest;
use tokio::time::sleep_until;
use tracing::field::Empty;

use crate::clock::{Instant, now};
use crate::error::{Error, Result};
use crate::net::Lane;
use crate::net::link::{Link, Pending};
use crate::producer::batch::ReadyBatch;
use crate::producer::delivery::Outcome;
use crate::producer::queue::{BatchId, Finished, Next, Payload as _, Stamp};
use crate::producer::ready::{Notice, ReadyList};
use crate::producer::shared::Shared;
use crate::producer::slot::{AfterPoll, Slot};
use crate::producer::transaction::{Protocol, Sending, Transactions};
use crate::record::ProducerStamp;
use crate::types::BrokerId;
use crate::wire::produce::{ProduceBody, ProduceTopic};

mod answers;

/// The highest version that does not mean the second protocol of transactions (KIP-890).
const V1_PRODUCE: i16 = 11;

/// Runs until it is dropped, or its broker has left the cluster and nothing is left for it to do.
pub(crate) async fn run(shared: Arc<Shared>, home: Arc<ReadyList<Slot>>) {
    let mut sender = Sender {
        urges: shared.urges.load(Ordering::Acquire),
        shared,
        home,
        link: None,
        connecting: None,
        connect_after: None,
        work: VecDeque::new(),
        requests: VecDeque::new(),
        finished: Vec::new(),
        ended: Vec::new(),
        notices: Vec::new(),
        lingers: VecDeque::new(),
        timers: BTreeMap::new(),
        timer_count: 0,
    };
    loop {
        sender.turn();
        sender.note_blocked();
        if sender.is_needless() && sender.shared.end_home(&sender.home) {
            return sender.hand_over();
        }
        sender.wait().await;
        // Tasks that the same answers woke, and others that are ready to append, go first: their
        // records share a request.
        tokio::task::yield_now().await;
        sender.take_answers();
    }
}

struct Sender {
    shared: Arc<Shared>,
    home: Arc<ReadyList<Slot>>,
    link: Option<Link>,
    connecting: Option<Connecting>,
    /// Not before then, after a failure.
    connect_after: Option<Instant>,
    work: VecDeque<Arc<Slot>>,
    requests: VecDeque<Request>,
    /// Empty but while an answer is settled.
    finished: Vec<Finished<ReadyBatch>>,
    /// Batches that the answer ended; empty but while an answer is settled.
    ended: Vec<(ReadyBatch, Outcome)>,
    /// Empty but while they are read.
    notices: Vec<Notice<Slot>>,
    /// Timers that were set in the order of their times: the ends of lingers, which are equally
    /// long.
    lingers: VecDeque<(Instant, Arc<Slot>)>,
    /// By time and then by number, so that equal times do not meet.
    timers: BTreeMap<(Instant, u64), (Timer, Arc<Slot>)>,
    timer_count: u64,
    /// The last urge that was followed.
    urges: u64,
}

type Connecting = Pin<Box<dyn Future<Output = Result<Link>> + Send>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Timer {
    /// The end of a linger or back-off.
    Wake,
    Expiry,
}

struct Request {
    pending: Pending<ProduceRequest>,
    parts: Vec<Part>,
    sent: Instant,
    span: tracing::Span,
    /// Of a transactional producer.
    _sending: Option<Sending>,
}

/// One batch of a request.
struct Part {
    slot: Arc<Slot>,
    id: BatchId,
    /// The topic's, as the request names it.
    topic_id: uuid::Uuid,
    settled: bool,
}

impl Sender {
    /// Does all that can be done without waiting.
    fn turn(&mut self) {
        self.fire_timers();
        self.take_in();
        let Some(broker) = self.home.broker else {
            return self.let_lie();
        };
        if self.link.as_ref().is_some_and(|link| !link.is_open()) {
            self.link = None;
        }
        if self.link.is_none() {
            return self.connect(broker);
        }
        while self.requests.len() < self.shared.config.max_in_flight && !self.work.is_empty() {
            if !self.send(broker) {
                break;
            }
        }
    }

    /// Whether the broker has left the cluster, and nothing of it is waited for.
    fn is_needless(&self) -> bool {
        self.home.has_left() && self.requests.is_empty() && self.work.is_empty()
    }

    /// Slots that moved away may still have their batches ended by a timer here.
    fn hand_over(self) {
        for (timer, slot) in self.timers.into_values() {
            if timer == Timer::Expiry {
                slot.hand_over_expiry();
            }
        }
    }

    /// Takes what others put on the ready list. Its batches must end in time even if they are never
    /// sent.
    fn take_in(&mut self) {
        let mut notices = std::mem::take(&mut self.notices);
        self.home.swap(&mut notices);
        let urgent = self.shared.is_urgent();
        for notice in notices.drain(..) {
            match notice {
                Notice::Look { slot, endless } => {
                    if endless {
                        self.arm_expiry(&slot);
                    }
                    self.work.push_back(slot);
                }
                Notice::Linger(at, slot) => {
                    if urgent {
                        self.work.push_back(Arc::clone(&slot));
                    }
                    // In any case: the slot counts on it.
                    self.arm_wake(at, slot);
                }
            }
        }
        self.notices = notices;
    }

    /// What no broker leads only expires.
    fn let_lie(&mut self) {
        while let Some(slot) = self.work.pop_front() {
            let mut state = slot.lock();
            if state.is_at(&self.home) {
                state.queued = false;
            }
        }
    }

    /// Says since when this broker has been handed nothing although there is something, for those
    /// who choose partitions (`partitioner.availability.timeout.ms`).
    fn note_blocked(&self) {
        if self.shared.config.availability_timeout.is_zero() {
            return;
        }
        let since = match self.requests.back() {
            Some(request) => Some(request.sent),
            None if self.work.is_empty() => None,
            None => Some(self.home.blocked_since().unwrap_or_else(now)),
        };
        self.home.set_blocked_since(since);
    }

    fn connect(&mut self, broker: BrokerId) {
        let home = &self.home;
        self.work.retain(|slot| slot.lock().is_at(home));
        if self.work.is_empty() || self.connecting.is_some() || self.connect_after.is_some() {
            return;
        }
        let cluster = self.shared.cluster.clone();
        let deadline = now() + self.shared.cluster.config().request_timeout;
        self.connecting = Some(Box::pin(async move {
            cluster.link(broker, Lane::Data, deadline).await
        }));
    }

    fn connected(&mut self, result: Result<Link>) {
        self.connecting = None;
        match result {
            Ok(link) => self.link = Some(link),
            Err(error) => {
                tracing::debug!(broker = ?self.home.broker, %error, "no connection to produce to");
                self.shared.cluster.refresh();
                self.pause();
                for slot in &self.work {
                    slot.lock().last_error = Some(error.clone());
                }
            }
        }
    }

    // Sending.

    /// Fills one request and sends it. False if nothing more can go now.
    fn send(&mut self, broker: BrokerId) -> bool {
        let Some(link) = self.link.clone() else {
            return false;
        };
        let version = match link.version::<ProduceRequest>() {
            Ok(version) => version,
            Err(error) if error.is_retriable() => {
                self.link = None;
                self.connected(Err(error));
                return false;
            }
            Err(error) => {
                self.refuse(&error);
                return false;
            }
        };
        let transactions = self.shared.transactions.clone();
        let sending = transactions.as_ref().map(Transactions::sending);
        let protocol = transactions
            .as_ref()
            .map(|state| state.machine().protocol());
        let version = match protocol {
            Some(Protocol::V1) => version.min(V1_PRODUCE),
            _ => version,
        };
        let mut identity = self.shared.identity().current();
        if self.shared.rules.idempotent && identity.is_none() {
            // The control task is at it, and wakes every sender when it has one.
            return false;
        }
        let number = self.shared.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let time = now();
        let limit = self.shared.batch_config.max_request_size;
        let mut room = usize::MAX; // the first batch always fits
        let mut total = 0;
        let mut records = 0;
        let mut body = ProduceBody::default();
        let mut parts = Vec::new();
        let mut full = false;
        // Each slot once: a request has one batch per partition.
        for _ in 0..self.work.len() {
            let Some(slot) = self.work.pop_front() else {
                break;
            };
            let mut state = slot.lock();
            if !state.is_at(&self.home) {
                continue;
            }
            if state.request == number {
                // It is here twice.
                drop(state);
                self.work.push_back(slot);
                continue;
            }
            if let Some(transactions) = &transactions
                && !state.queue.is_empty()
                && !transactions.machine().may_send(&slot.tp)
            {
                // The driver is at it, and wakes every sender.
                drop(state);
                transactions.work.notify_one();
                self.work.push_back(slot);
                continue;
            }
            state.looked_at(time);
            let due = self.shared.is_urgent();
            let rules = &self.shared.rules;
            loop {
                match state.queue.next(rules, time, broker, identity, room, due) {
                    Next::Send { id, batch, stamp } => {
                        let bytes = batch
                            .sealed
                            .stamp(producer_stamp(stamp, transactions.is_some()));
                        batch.log.sent(time);
                        records += batch.records();
                        state.request = number;
                        let rest = state.after_sending(rules, time, due);
                        drop(state);
                        total += bytes.len();
                        room = limit.saturating_sub(total);
                        let topic_id = add(&self.shared, &mut body, &slot, bytes);
                        parts.push(Part {
                            slot: Arc::clone(&slot),
                            id,
                            topic_id,
                            settled: false,
                        });
                        match rest {
                            AfterPoll::More => self.work.push_back(slot),
                            AfterPoll::At(at) => self.arm_wake(at, slot),
                            AfterPoll::Nothing => {}
                        }
                        break;
                    }
                    Next::SealOpen => {
                        if !state.seal_open(&slot) {
                            let sealing = state.take_open(&slot);
                            drop(state);
                            if let Some(sealing) = sealing {
                                sealing.seal(&self.shared.codecs);
                            }
                            state = slot.lock();
                        }
                    }
                    Next::NoRoom => {
                        drop(state);
                        // First in line for the next request.
                        self.work.push_front(slot);
                        full = true;
                        break;
                    }
                    Next::NeedsIdentity(spent) => {
                        let mut machine = self.shared.identity();
                        let next = match spent {
                            Some(spent) => machine.replace(spent),
                            None => machine.current(),
                        };
                        drop(machine);
                        if next.is_some() && next != identity {
                            identity = next;
                            continue;
                        }
                        drop(state);
                        self.shared.control.notify_one();
                        if let (Some(_), Some(transactions)) = (spent, &transactions) {
                            transactions.machine().lost_sequence();
                            transactions.work.notify_one();
                        }
                        self.work.push_back(slot);
                        break;
                    }
                    Next::Nothing => {
                        if !state.is_at(&self.home) {
                            break;
                        }
                        let at = state.put_down(rules, time);
                        drop(state);
                        if let Some(at) = at {
                            self.arm_wake(at, slot);
                        }
                        break;
                    }
                }
            }
            if full {
                break;
            }
        }
        if parts.is_empty() {
            return false;
        }
        let timeout = self.shared.cluster.config().request_timeout;
        let pending = link.send_produce(
            body.version(version),
            self.shared.config.acks.code(),
            i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
            self.shared.config.transactional_id.as_deref(),
            &body,
        );
        let span = tracing::debug_span!(
            "produce",
            broker = broker.get(),
            number,
            batches = parts.len(),
            records,
            bytes = total,
            took_ms = Empty,
            refused = Empty,
            error = Empty,
        );
        self.requests.push_back(Request {
            pending,
            parts,
            sent: time,
            span,
            _sending: sending,
        });
        true
    }

    /// No attempt at this broker can go otherwise: what no request has carried ends at once, what
    /// waits to be sent again when its time is over. The link has closed; another one may find
    /// another broker at this address.
    fn refuse(&mut self, error: &Error) {
        self.link = None;
        self.pause();
        for slot in std::mem::take(&mut self.work) {
            let mut state = slot.lock();
            if !state.is_at(&self.home) {
                continue;
            }
            state.queued = false;
            state.last_error = Some(error.clone());
            drop(state);
            slot.purge(false, error);
        }
    }

    /// Holds the next connection back for a while.
    fn pause(&mut self) {
        let pause = self.shared.cluster.config().retry_backoff;
        self.connect_after = Some(now() + self.shared.cluster.clock().jitter(pause));
    }

    // Time.

    fn arm_wake(&mut self, at: Instant, slot: Arc<Slot>) {
        if self.lingers.back().is_none_or(|(last, _)| *last <= at) {
            self.lingers.push_back((at, slot));
        } else {
            self.arm(at, Timer::Wake, slot);
        }
    }

    fn arm(&mut self, at: Instant, timer: Timer, slot: Arc<Slot>) {
        let key = (at, self.timer_count);
        self.timer_count += 1;
        self.timers.insert(key, (timer, slot));
    }

    fn arm_expiry(&mut self, slot: &Arc<Slot>) {
        let mut state = slot.lock();
        let rules = &self.shared.rules;
        // As long as the slot is in the sender's hands nothing tells of a batch opened in it: one
        // opened from now on ends no earlier than this.
        let in_hands = || now() + rules.delivery_timeout;
        let at = state.queue.expires_at(rules);
        if !state.expiry_armed
            && let Some(at) = at.or_else(|| state.queued.then(in_hands))
        {
            state.expiry_armed = true;
            drop(state);
            self.arm(at, Timer::Expiry, Arc::clone(slot));
        }
    }

    fn fire_timers(&mut self) {
        let time = now();
        while self.lingers.front().is_some_and(|(at, _)| *at <= time)
            && let Some((_, slot)) = self.lingers.pop_front()
        {
            self.work.push_back(slot);
        }
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= time
        {
            let (timer, slot) = entry.remove();
            match timer {
                Timer::Wake => self.work.push_back(slot),
                Timer::Expiry => {
                    slot.expire(&self.shared.rules, time);
                    self.arm_expiry(&slot);
                }
            }
        }
        let urges = self.shared.urges.load(Ordering::Acquire);
        if urges != self.urges {
            self.urges = urges;
            // The timers stay: some are back-offs, and a look too many does no harm.
            let wakes = self
                .timers
                .values()
                .filter(|(timer, _)| *timer == Timer::Wake);
            for slot in wakes
                .map(|(_, slot)| slot)
                .chain(self.lingers.iter().map(|(_, slot)| slot))
            {
                slot.lock().schedule(slot);
            }
        }
    }

    /// Waits until something can have changed.
    async fn wait(&mut self) {
        let timer = self.timers.first_key_value().map(|((at, _), _)| *at);
        let linger = self.lingers.front().map(|(at, _)| *at);
        let next = timer
            .into_iter()
            .chain(linger)
            .chain(self.connect_after)
            .min();
        let answer = async {
            match self.requests.front_mut() {
                Some(request) => (&mut request.pending).await,
                None => std::future::pending().await,
            }
        };
        let connection = async {
            match &mut self.connecting {
                Some(connecting) => connecting.await,
                None => std::future::pending().await,
            }
        };
        let time = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = answer => {
                if let Some(request) = self.requests.pop_front() {
                    self.ended(request, answer);
                }
            }
            result = connection => self.connected(result),
            () = self.home.notify.notified() => {}
            () = time => {
                if self.connect_after.is_some_and(|at| at <= now()) {
                    self.connect_after = None;
                }
            }
        }
    }
}

fn producer_stamp(stamp: Option<Stamp>, transactional: bool) -> ProducerStamp {
    match stamp {
        None => ProducerStamp::NONE,
        Some(stamp) => ProducerStamp {
            producer_id: stamp.identity.id,
            producer_epoch: stamp.identity.epoch,
            base_sequence: stamp.sequence,
            transactional,
        },
    }
}

/// Adds a batch to a request; returns the id under which its topic goes.
fn add(shared: &Shared, body: &mut ProduceBody, slot: &Slot, bytes: bytes::Bytes) -> uuid::Uuid {
    let part = (slot.tp.partition, bytes);
    // Slots of a topic tend to come one after the other, but must not be in the request under the
    // same name twice.
    let same = |topic: &&mut ProduceTopic| topic.name == slot.tp.topic;
    match body.topics.iter_mut().rev().find(same) {
        Some(topic) => {
            topic.partitions.push(part);
            topic.id
        }
        None => {
            let id = shared.topic_id(&slot.tp.topic);
            body.topics.push(ProduceTopic {
                name: Arc::clone(&slot.tp.topic),
                id,
                partitions: vec![part],
            });
            id
        }
    }
}
