//! One connection to one broker for one lane: the driver that owns the socket, and the handle to
//! it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::IoSlice;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::protocol::StrBytes;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Sleep, sleep_until, timeout_at};

use super::Lane;
use super::connector::BoxStream;
use super::frame::{self, Front, Peer};
use super::inflight::{InFlight, Observer, Outgoing};
use super::recycle::{LEAST, Recycler};
use super::traffic::{Ticket, Traffic};
use crate::clock::{Instant, now};
use crate::error::{Certainty, Class, Error, ErrorKind, Result};
use crate::log_throttle::LogThrottle;
use crate::types::BrokerId;
use crate::wire::Call;
use crate::wire::codec::{self, Segments};
use crate::wire::produce::ProduceBody;
use crate::wire::versions::Versions;

/// Room for answers, until a frame asks for more.
const READ_BUFFER: usize = 64 * 1024;
/// So many reads or writes in a row before other tasks get their turn.
const TURNS: usize = 32;
/// Segments per system call.
const SLICES: usize = 256;

/// A handle to an open connection whose versions are negotiated. Cheap to clone.
///
/// Requests are written in the order of the `send` calls and may be awaited in any order. A dropped
/// [`Pending`] abandons only the observation: the answer is read and discarded.
#[derive(Clone)]
pub(crate) struct Link(Arc<Shared>);

/// What a link is told when it is opened.
pub(crate) struct LinkConfig {
    pub(crate) broker: BrokerId,
    pub(crate) peer: Peer,
    pub(crate) lane: Lane,
    pub(crate) client_id: StrBytes,
    /// The largest answer without records; one with records is bounded by what it was asked for.
    pub(crate) max_frame: usize,
    /// `request.timeout.ms`: how long a broker may let a request wait that need not wait there.
    pub(crate) request_timeout: Duration,
    pub(crate) max_idle: Option<Duration>,
    pub(crate) traffic: Arc<Traffic>,
    /// The connection before this one was offered the same versions by the broker.
    pub(crate) confirmed: bool,
    /// Keeps a broker that always hangs up from filling the log.
    pub(crate) losses: Arc<LogThrottle>,
}

struct Shared {
    config: LinkConfig,
    versions: Versions,
    correlation: AtomicI32,
    inbox: Mutex<Inbox>,
    closed: Notify,
}

/// What handles leave for the task.
struct Inbox {
    requests: Vec<Outgoing<Reply>>,
    mute: Option<Instant>,
    /// Why the link takes no more requests.
    closed: Option<Error>,
    /// An orderly end was asked for: finish what is under way, take no more.
    closing: bool,
    waker: Option<Waker>,
}

/// The task's end of a [`Pending`].
struct Reply {
    sender: oneshot::Sender<Result<Bytes>>,
    ticket: Ticket,
}

impl Observer for Reply {
    fn settle(self, outcome: Result<Bytes>) {
        self.ticket.end(outcome.is_ok());
        // Nobody waiting is fine: the observation was abandoned.
        let _ = self.sender.send(outcome);
    }

    fn is_gone(&self) -> bool {
        self.sender.is_closed()
    }
}

impl Link {
    /// Wraps a stream whose handshake is done; bytes move while the driver is polled.
    pub(crate) fn open(
        stream: BoxStream,
        versions: Versions,
        config: LinkConfig,
    ) -> (Self, Driver) {
        let link = Self(Arc::new(Shared {
            config,
            versions,
            correlation: AtomicI32::new(100),
            inbox: Mutex::new(Inbox {
                requests: Vec::new(),
                mute: None,
                closed: None,
                closing: false,
                waker: None,
            }),
            closed: Notify::new(),
        }));
        link.0.config.traffic.connected();
        let driver = Driver(Connection {
            shared: Arc::clone(&link.0),
            stream,
            machine: InFlight::new(),
            incoming: Vec::new(),
            buffer: BytesMut::with_capacity(READ_BUFFER),
            recycler: Recycler::default(),
            timer: Box::pin(sleep_until(now())),
            active: now(),
            ended: false,
        });
        (link, driver)
    }

    /// The broker at the other end.
    pub(crate) fn broker(&self) -> BrokerId {
        self.0.config.broker
    }

    /// Whether the connection still takes requests. Once false it stays false: ask the cluster for
    /// a new link.
    pub(crate) fn is_open(&self) -> bool {
        let inbox = self.0.inbox();
        inbox.closed.is_none() && !inbox.closing
    }

    /// Completes when the connection has ended.
    #[cfg(test)]
    pub(crate) async fn closed(&self) {
        let closed = pin!(self.0.closed.notified());
        let mut closed = closed;
        closed.as_mut().enable();
        if self.0.inbox().closed.is_none() {
            closed.await;
        }
    }

    /// Takes no more requests and ends when those under way are answered.
    pub(crate) fn close(&self) {
        self.0.close();
    }

    /// The version to speak for `R`; an error that says so when the broker does not offer one.
    ///
    /// The connection stays, for others use it for what the broker has. But an offer that was made
    /// for the first time may be damaged, or the broker was replaced: then the next connection
    /// negotiates again, and whoever tries again uses that.
    pub(crate) fn version<R: Call>(&self) -> Result<i16> {
        let config = &self.0.config;
        self.0.versions.pick::<R>().map_err(|error| {
            let error = config.peer.name(error);
            if config.confirmed {
                return error;
            }
            self.close();
            error.with_class(Class::Retriable)
        })
    }

    /// Puts a request in line; its place among the link's requests is fixed when this returns.
    ///
    /// A broker that has not answered within `request.timeout.ms` is frozen, and the connection is
    /// given up. A caller with less time than that drops its `Pending`, which leaves the connection
    /// to others (see [`ask`](Self::ask)). The error of a write carries [`Certainty`]: `NotSent` if
    /// no byte of the request left the client. Throttle times in answers are honoured by the link
    /// (KIP-219): it holds back later requests.
    pub(crate) fn send<R: Call>(&self, version: i16, request: &R) -> Pending<R> {
        self.send_waiting(version, request, Duration::ZERO)
    }

    /// The same for a request that waits at the broker for up to `wait` before it is answered.
    pub(crate) fn send_waiting<R: Call>(
        &self,
        version: i16,
        request: &R,
        wait: Duration,
    ) -> Pending<R> {
        self.enqueue(version, true, wait, |correlation, client_id| {
            codec::encode(request, version, correlation, client_id)
        })
    }

    /// Sends a request and waits for its answer until the caller's deadline, which does not
    /// concern the connection. Cancel safe: nothing is left but an answer that nobody reads.
    pub(crate) async fn ask<R: Call>(
        &self,
        version: i16,
        request: &R,
        deadline: Instant,
    ) -> Result<R::Response> {
        self.ask_waiting(version, request, Duration::ZERO, deadline)
            .await
    }

    /// The same for a request that waits at the broker for up to `wait`.
    pub(crate) async fn ask_waiting<R: Call>(
        &self,
        version: i16,
        request: &R,
        wait: Duration,
        deadline: Instant,
    ) -> Result<R::Response> {
        let pending = self.send_waiting(version, request, wait);
        let answer = timeout_at(deadline, pending).await;
        if answer.is_err() && crate::planted("an-impatient-caller-ends-the-connection") {
            self.close();
        }
        answer.unwrap_or_else(|_| Err(self.too_late::<R>()))
    }

    /// A caller's time is over before the broker's.
    fn too_late<R: Call>(&self) -> Error {
        let message = format!(
            "no answer to a {} request by the deadline of the call \
             (default.api.timeout.ms, or the time-out that it was given)",
            R::NAME
        );
        let error = self
            .0
            .config
            .peer
            .name(Error::new(ErrorKind::Timeout, message));
        match R::WRITES {
            true => error.with_certainty(Certainty::MaybeWritten),
            false => error,
        }
    }

    /// Puts a Produce request in line. With `acks` 0 there is no answer: the `Pending` completes
    /// with a default response when the request is written.
    pub(crate) fn send_produce(
        &self,
        version: i16,
        acks: i16,
        timeout_ms: i32,
        transactional_id: Option<&str>,
        body: &ProduceBody,
    ) -> Pending<ProduceRequest> {
        let wait = Duration::ZERO;
        self.enqueue(version, acks != 0, wait, |correlation, client_id| {
            let body = body.segments(version, acks, timeout_ms, transactional_id);
            codec::encode_segments::<ProduceRequest>(body, version, correlation, client_id)
        })
    }

    fn enqueue<R: Call>(
        &self,
        version: i16,
        answered: bool,
        wait: Duration,
        encode: impl FnOnce(i32, &StrBytes) -> Result<Segments>,
    ) -> Pending<R> {
        let (reply, answer) = oneshot::channel();
        let reply = Reply {
            sender: reply,
            ticket: self.0.config.traffic.begin::<R>(),
        };
        let correlation = self.0.correlation.fetch_add(1, Ordering::Relaxed);
        match encode(correlation, &self.0.config.client_id) {
            Err(error) => reply.settle(Err(error.with_certainty(Certainty::NotSent))),
            Ok(segments) => self.0.push(Outgoing {
                name: R::NAME,
                correlation,
                segments,
                answered,
                max_answer: match R::CARRIES_RECORDS {
                    true => codec::MAX_FRAME,
                    false => self.0.config.max_frame,
                },
                deadline: now() + self.0.config.request_timeout + wait,
                observer: reply,
            }),
        }
        Pending {
            answer,
            link: Arc::clone(&self.0),
            version,
            answered,
            request: PhantomData,
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({})", self.0.config.peer)
    }
}

impl Shared {
    fn close(&self) {
        let mut inbox = self.inbox();
        inbox.closing = true;
        inbox.wake();
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, request: Outgoing<Reply>) {
        let mut inbox = self.inbox();
        let refusal = match &inbox.closed {
            Some(error) => error.clone(),
            None if inbox.closing => self.ended("this client closed the connection"),
            None => {
                inbox.requests.push(request);
                inbox.wake();
                return;
            }
        };
        drop(inbox);
        request
            .observer
            .settle(Err(refusal.with_certainty(Certainty::NotSent)));
    }

    /// Holds requests back for as long as the broker says (KIP-219), at most `request.timeout.ms`:
    /// it mutes the connection by itself, and one damaged answer must not silence the client for
    /// weeks.
    fn mute<R: Call>(&self, response: &R::Response) {
        let Ok(millis @ 1..) = u64::try_from(R::throttle_ms(response)) else {
            return;
        };
        let time = Duration::from_millis(millis);
        self.config.traffic.throttled::<R>(time);
        let mut inbox = self.inbox();
        let until = now() + time.min(self.config.request_timeout);
        inbox.mute = Some(inbox.mute.map_or(until, |earlier| earlier.max(until)));
        inbox.wake();
    }

    fn ended(&self, why: impl fmt::Display) -> Error {
        Error::new(
            ErrorKind::Connection,
            format!("{}: {why}", self.config.peer),
        )
    }
}

impl Inbox {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// An answer under way.
#[must_use = "an answer nobody awaits is discarded"]
pub(crate) struct Pending<R: Call> {
    answer: oneshot::Receiver<Result<Bytes>>,
    link: Arc<Shared>,
    version: i16,
    answered: bool,
    request: PhantomData<fn() -> R>,
}

impl<R: Call> Future for Pending<R> {
    type Output = Result<R::Response, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.answer).poll(cx));
        let outcome = outcome.unwrap_or_else(|_| {
            // The task was dropped with the runtime or the client.
            let ended = self.link.ended("the client was shut down");
            Err(ended.with_certainty(Certainty::MaybeWritten))
        });
        let body = outcome.map_err(outcome_of::<R>)?;
        if !self.answered {
            return Poll::Ready(Ok(R::Response::default()));
        }
        let response = codec::decode::<R>(body, self.version).map_err(|error| {
            // Requests may have come damaged as well, and what the broker keeps of them.
            self.link.close();
            let error = damaged(self.link.config.peer.name(error));
            outcome_of::<R>(error.with_certainty(Certainty::MaybeWritten))
        })?;
        self.link.mute::<R>(&response);
        Poll::Ready(Ok(response))
    }
}

/// Whether a request was carried out is a question only for one that changes something.
fn outcome_of<R: Call>(error: Error) -> Error {
    match R::WRITES {
        true => error,
        false => error.without_certainty(),
    }
}

/// A peer that has answered the handshake speaks Kafka's protocol: what cannot be read afterwards
/// was damaged on its way, and is asked for again.
fn damaged(error: Error) -> Error {
    error.with_class(Class::Retriable)
}

/// Moves the bytes of a connection while it is polled, and ends with it: a task of its own, or part
/// of the one that takes the answers, to which they then come without another task being woken.
pub(crate) struct Driver(Connection);

impl Driver {
    /// Completes with `future`, for which bytes move meanwhile. Cancel safe if `future` is.
    pub(crate) async fn drive<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        let output = poll_fn(|cx| {
            let _ = Pin::new(&mut *self).poll(cx);
            future.as_mut().poll(cx)
        })
        .await;
        self.pause();
        output
    }

    /// The driver is not polled for a while: what is put in line until then need not wake the task
    /// that will poll it.
    pub(crate) fn pause(&self) {
        self.0.shared.inbox().waker = None;
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let connection = &mut self.0;
        if !connection.ended {
            let reason = ready!(connection.poll(cx));
            connection.tell(&reason);
            connection.end(&reason);
        }
        Poll::Ready(())
    }
}

/// The driver's side: the socket and the machine.
struct Connection {
    shared: Arc<Shared>,
    stream: BoxStream,
    machine: InFlight<Reply>,
    incoming: Vec<Outgoing<Reply>>,
    buffer: BytesMut,
    recycler: Recycler,
    timer: Pin<Box<Sleep>>,
    /// When bytes last moved.
    active: Instant,
    /// The connection is over, and whoever waited has been told.
    ended: bool,
}

impl Connection {
    /// Moves everything that can move; ready with the reason when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        match self.turn(cx) {
            Ok(false) => Poll::Pending,
            Ok(true) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Err(reason) => Poll::Ready(reason),
        }
    }

    /// True if there is more to do at once.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool> {
        self.take_inbox(cx);
        // Answers first: they free requests, and a mute in them concerns what is written next.
        let more_to_read = self.read(cx)?;
        let time = now();
        let more_to_write = self.write(cx, time)?;
        self.machine
            .expire(time)
            .map_err(|error| self.shared.config.peer.name(error))?;
        self.check_end(time)?;
        let due = self
            .machine
            .next_timeout()
            .into_iter()
            .chain(self.idle_end())
            .min();
        // What is due later than the timer is looked at again when that fires: most requests are
        // answered long before, and then the timer is set once for many of them.
        if let Some(due) = due {
            if due < self.timer.deadline() || self.timer.deadline() <= time {
                self.timer.as_mut().reset(due);
            }
            if self.timer.as_mut().poll(cx).is_ready() {
                return Ok(true);
            }
        }
        Ok(more_to_read || more_to_write)
    }

    fn take_inbox(&mut self, cx: &Context<'_>) {
        let mut inbox = self.shared.inbox();
        std::mem::swap(&mut inbox.requests, &mut self.incoming);
        let mute = inbox.mute.take();
        match &inbox.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => inbox.waker = Some(cx.waker().clone()),
        }
        drop(inbox);
        if let Some(until) = mute {
            self.machine.mute(until);
        }
        for request in self.incoming.drain(..) {
            self.machine.push(request);
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool> {
        let shared = &self.shared;
        for _ in 0..TURNS {
            if self.buffer.capacity() == self.buffer.len() {
                self.buffer.reserve(READ_BUFFER);
            }
            let read = match pin!(self.stream.read_buf(&mut self.buffer)).poll(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Err(error)) => {
                    return Err(shared
                        .ended(format_args!("the connection failed: {error}"))
                        .with_source(error));
                }
                Poll::Ready(Ok(read)) => read,
            };
            if read == 0 {
                return Err(shared.ended("the broker closed the connection"));
            }
            self.active = now();
            shared.config.traffic.received(read);
            let peer = &shared.config.peer;
            loop {
                let max = self.machine.max_answer().unwrap_or(shared.config.max_frame);
                let front = frame::split(&mut self.buffer, max, peer);
                let frame = match front.map_err(damaged)? {
                    Front::Frame(frame) => frame,
                    Front::Part(len) => {
                        make_room(&mut self.buffer, len, &mut self.recycler);
                        break;
                    }
                };
                let Some(due) = self.machine.due() else {
                    let message = "an answer came that no request asked for";
                    return Err(damaged(peer.name(Error::new(ErrorKind::Protocol, message))));
                };
                self.recycler.keep(&frame);
                if frame.len() >= LEAST {
                    leave(&mut self.buffer);
                }
                let answer = frame::body(frame, due, peer).map_err(damaged)?;
                self.machine.answer(answer);
            }
        }
        Ok(true)
    }

    fn write(&mut self, cx: &mut Context<'_>, time: Instant) -> Result<bool> {
        for _ in 0..TURNS {
            let unwritten = self.machine.writable(time);
            if unwritten.is_empty() {
                return self.flush(cx);
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = unwritten.len().min(SLICES);
            for (slice, bytes) in slices.iter_mut().zip(unwritten) {
                *slice = IoSlice::new(bytes);
            }
            let slices = slices.get(..count).unwrap_or_default();
            match Pin::new(&mut self.stream).poll_write_vectored(cx, slices) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(written @ 1..)) => {
                    self.shared.config.traffic.sent(written);
                    self.machine.wrote(written);
                }
                Poll::Ready(Ok(0)) => {
                    return Err(self.shared.ended("the connection takes no more bytes"));
                }
                Poll::Ready(Err(error)) => {
                    return Err(self
                        .shared
                        .ended(format_args!("the connection failed: {error}"))
                        .with_source(error));
                }
            }
            self.active = time;
        }
        Ok(true)
    }

    /// Layers such as TLS may hold bytes back until told.
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<bool> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Err(error)) => Err(self
                .shared
                .ended(format_args!("the connection failed: {error}"))
                .with_source(error)),
            _ => Ok(false),
        }
    }

    /// The orderly ends: asked for, or idle too long. Under the inbox's lock, so that a request is
    /// either taken before or refused after.
    fn check_end(&self, time: Instant) -> Result<()> {
        if !self.machine.is_idle() {
            return Ok(());
        }
        let idle = self.idle_end().is_some_and(|end| end <= time);
        let mut inbox = self.shared.inbox();
        if !inbox.requests.is_empty() || !(idle || inbox.closing) {
            return Ok(());
        }
        let reason = match idle {
            true => "idle for connections.max.idle.ms",
            false => "this client closed the connection",
        };
        let reason = self.shared.ended(reason);
        inbox.closed = Some(reason.clone());
        Err(reason)
    }

    fn idle_end(&self) -> Option<Instant> {
        let idle = self
            .shared
            .config
            .max_idle
            .filter(|_| self.machine.is_idle())?;
        Some(self.active + idle)
    }

    /// An end that nobody here wanted is for the operator to know, but not over and over.
    fn tell(&self, reason: &Error) {
        let config = &self.shared.config;
        let orderly = self.shared.inbox().closed.is_some();
        let untold = match orderly {
            true => None,
            false => config.losses.pass(now()),
        };
        let (peer, lane) = (&config.peer, config.lane);
        match untold {
            Some(untold) => tracing::info!(%peer, ?lane, %reason, untold, "connection lost"),
            None => tracing::debug!(%peer, ?lane, %reason, "connection ended"),
        }
    }

    fn end(&mut self, reason: &Error) {
        self.ended = true;
        let mut inbox = self.shared.inbox();
        inbox.closed.get_or_insert_with(|| reason.clone());
        let late = std::mem::take(&mut inbox.requests);
        drop(inbox);
        for request in late {
            self.machine.push(request);
        }
        self.machine.fail(reason);
        self.shared.closed.notify_waiters();
    }
}

/// Sees to it that a frame of so many bytes fits behind the start of the buffer.
fn make_room(buffer: &mut BytesMut, len: usize, recycler: &mut Recycler) {
    if buffer.capacity() >= len {
        return;
    }
    if len < LEAST {
        buffer.reserve(len - buffer.len());
        return;
    }
    let mut larger = recycler.take(len);
    larger.extend_from_slice(buffer);
    *buffer = larger;
}

/// Lets go of the memory of a large frame that was taken off, so that it can be used again. What
/// was read beyond it is the little that fitted behind it.
fn leave(buffer: &mut BytesMut) {
    if buffer.len() <= READ_BUFFER {
        let mut fresh = BytesMut::with_capacity(READ_BUFFER);
        fresh.extend_from_slice(buffer);
        *buffer = fresh;
    }
}

impl Drop for Connection {
    /// The task was stopped: nobody may wait for ever.
    fn drop(&mut self) {
        let reason = self.shared.ended("the client was closed");
        self.end(&reason);
        self.shared.config.traffic.closed();
    }
}
