//! Requests of one connection from the queue to their answer: the machine of the link.
//!
//! Invariants:
//! - A broker answers in the order of the requests, so answers are matched by position and the
//!   correlation id is only checked.
//! - A request that was never begun on the wire ends as `NotSent`, any other as `MaybeWritten`.
//! - A request begun on the wire is finished: dropping its observer only abandons the answer.
//! - While muted (KIP-219) nothing new is begun; answers are still read.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::clock::Instant;
use crate::error::{Certainty, Error, ErrorKind, Result};
use crate::wire::codec::Segments;

/// Takes the outcome of one request: the answer's bytes after the correlation id.
pub(crate) trait Observer: Send {
    fn settle(self, outcome: Result<Bytes>);
    /// Whether nobody waits any more.
    fn is_gone(&self) -> bool;
}

/// A request in line.
#[derive(Debug)]
pub(crate) struct Outgoing<O> {
    pub(crate) name: &'static str,
    pub(crate) correlation: i32,
    pub(crate) segments: Segments,
    /// False for a Produce request with acks 0.
    pub(crate) answered: bool,
    /// No answer to it is larger.
    pub(crate) max_answer: usize,
    /// When the broker has let it wait for too long.
    pub(crate) deadline: Instant,
    pub(crate) observer: O,
}

#[derive(Debug)]
struct Waiting<O> {
    name: &'static str,
    correlation: i32,
    max_answer: usize,
    deadline: Instant,
    observer: O,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct InFlight<O> {
    /// Accepted, nothing on the wire yet.
    queued: VecDeque<Outgoing<O>>,
    /// Begun on the wire (or finished), answer outstanding.
    waiting: VecDeque<Waiting<O>>,
    /// Bytes of requests begun, not yet written.
    unwritten: VecDeque<Bytes>,
    unwritten_bytes: usize,
    /// Requests without answer, and where they end in what is written: done when that is out.
    unanswered: VecDeque<(usize, Waiting<O>)>,
    written: usize,
    begun: usize,
    muted_until: Option<Instant>,
    /// No deadline is earlier; recomputed when it passes.
    earliest: Option<Instant>,
}

/// So many bytes are handed to the socket at a time before another request is begun.
const WRITE_AHEAD: usize = 256 * 1024;

impl<O: Observer> InFlight<O> {
    pub(crate) fn new() -> Self {
        Self {
            queued: VecDeque::new(),
            waiting: VecDeque::new(),
            unwritten: VecDeque::new(),
            unwritten_bytes: 0,
            unanswered: VecDeque::new(),
            written: 0,
            begun: 0,
            muted_until: None,
            earliest: None,
        }
    }

    /// Takes a request into the line.
    pub(crate) fn push(&mut self, request: Outgoing<O>) {
        self.earliest = Some(
            self.earliest
                .map_or(request.deadline, |t| t.min(request.deadline)),
        );
        self.queued.push_back(request);
    }

    /// Holds back new requests (KIP-219); a later time wins.
    pub(crate) fn mute(&mut self, until: Instant) {
        self.muted_until = Some(self.muted_until.map_or(until, |t| t.max(until)));
    }

    /// Begins as many queued requests as should be under way, and gives what is to be written.
    pub(crate) fn writable(&mut self, now: Instant) -> &VecDeque<Bytes> {
        if self.muted_until.is_some_and(|until| until <= now) {
            self.muted_until = None;
        }
        while self.muted_until.is_none() && self.unwritten_bytes < WRITE_AHEAD {
            let Some(request) = self.queued.pop_front() else {
                break;
            };
            if request.observer.is_gone() && request.answered {
                // Nobody waits and nothing was sent: the cheapest cancellation.
                continue;
            }
            let bytes: usize = request.segments.iter().map(Bytes::len).sum();
            self.unwritten_bytes += bytes;
            self.begun += bytes;
            self.unwritten.extend(request.segments);
            let waiting = Waiting {
                name: request.name,
                correlation: request.correlation,
                max_answer: request.max_answer,
                deadline: request.deadline,
                observer: request.observer,
            };
            if request.answered {
                self.waiting.push_back(waiting);
            } else {
                self.unanswered.push_back((self.begun, waiting));
            }
        }
        &self.unwritten
    }

    /// So many bytes went to the socket.
    pub(crate) fn wrote(&mut self, mut bytes: usize) {
        self.written += bytes;
        self.unwritten_bytes = self.unwritten_bytes.saturating_sub(bytes);
        while let Some(front) = self.unwritten.front_mut() {
            if bytes < front.len() {
                bytes::Buf::advance(front, bytes);
                break;
            }
            bytes -= front.len();
            self.unwritten.pop_front();
        }
        while self
            .unanswered
            .front()
            .is_some_and(|(end, _)| *end <= self.written)
        {
            if let Some((_, waiting)) = self.unanswered.pop_front() {
                waiting.observer.settle(Ok(Bytes::new()));
            }
        }
    }

    /// The correlation id that the next answer must have; `None` if no answer is due.
    pub(crate) fn due(&self) -> Option<i32> {
        self.waiting.front().map(|waiting| waiting.correlation)
    }

    /// How large the next answer may be.
    pub(crate) fn max_answer(&self) -> Option<usize> {
        self.waiting.front().map(|waiting| waiting.max_answer)
    }

    /// The next answer came.
    pub(crate) fn answer(&mut self, body: Bytes) {
        if let Some(waiting) = self.waiting.pop_front() {
            waiting.observer.settle(Ok(body));
        }
    }

    /// Ends what is past its deadline. An error means that the broker let one pass on the wire (did
    /// not answer, or did not take the bytes of a request that has no answer), so
    /// that the connection is of no use any more.
    pub(crate) fn expire(&mut self, now: Instant) -> Result<()> {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return Ok(());
        }
        if let Some(late) = self.under_way().find(|waiting| waiting.deadline <= now) {
            return Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "no answer to a {} request within its time-out (request.timeout.ms): \
                     the broker is frozen, overloaded or cut off",
                    late.name
                ),
            ));
        }
        let mut kept = VecDeque::with_capacity(self.queued.len());
        for request in self.queued.drain(..) {
            if request.deadline > now {
                kept.push_back(request);
                continue;
            }
            let name = request.name;
            request.observer.settle(Err(Error::new(
                ErrorKind::Timeout,
                format!("a {name} request could not be sent within its time-out"),
            )
            .with_certainty(Certainty::NotSent)));
        }
        self.queued = kept;
        let deadlines = self.queued.iter().map(|request| request.deadline);
        self.earliest = deadlines
            .chain(self.under_way().map(|waiting| waiting.deadline))
            .min();
        Ok(())
    }

    /// The requests that are on the wire, whole or in part, and not done.
    fn under_way(&self) -> impl Iterator<Item = &Waiting<O>> {
        let unanswered = self.unanswered.iter().map(|(_, waiting)| waiting);
        self.waiting.iter().chain(unanswered)
    }

    /// Ends everything: the connection is gone.
    pub(crate) fn fail(&mut self, error: &Error) {
        let unanswered = self.unanswered.drain(..).map(|(_, waiting)| waiting);
        for waiting in self.waiting.drain(..).chain(unanswered) {
            waiting
                .observer
                .settle(Err(error.clone().with_certainty(Certainty::MaybeWritten)));
        }
        for request in self.queued.drain(..) {
            request
                .observer
                .settle(Err(error.clone().with_certainty(Certainty::NotSent)));
        }
        self.unwritten.clear();
        self.unwritten_bytes = 0;
    }

    /// Whether nothing is queued, being written or awaited.
    pub(crate) fn is_idle(&self) -> bool {
        self.queued.is_empty()
            && self.waiting.is_empty()
            && self.unanswered.is_empty()
            && self.unwritten.is_empty()
    }

    /// When something happens by itself: a deadline or the end of a mute.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let unmute = self.muted_until.filter(|_| !self.queued.is_empty());
        self.earliest.into_iter().chain(unmute).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    type Log = Arc<Mutex<Vec<(i32, Result<Bytes>)>>>;

    struct Probe(i32, Log, bool);

    impl Observer for Probe {
        fn settle(self, outcome: Result<Bytes>) {
            self.1.lock().unwrap().push((self.0, outcome));
        }

        fn is_gone(&self) -> bool {
            self.2
        }
    }

    struct Bench {
        machine: InFlight<Probe>,
        log: Log,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                machine: InFlight::new(),
                log: Log::default(),
                start: crate::clock::now(),
            }
        }

        fn at(&self, millis: u64) -> Instant {
            self.start + Duration::from_millis(millis)
        }

        fn push(&mut self, id: i32, answered: bool, deadline: u64) {
            let deadline = self.at(deadline);
            let observer = Probe(id, Arc::clone(&self.log), false);
            self.machine.push(Outgoing {
                name: "Test",
                correlation: id,
                segments: vec![Bytes::from(vec![id as u8; 6]), Bytes::from_static(b"tail")],
                answered,
                max_answer: 1000,
                deadline,
                observer,
            });
        }

        fn write(&mut self, millis: u64, bytes: usize) -> usize {
            let now = self.at(millis);
            let offered = self.machine.writable(now).iter().map(Bytes::len).sum();
            self.machine.wrote(bytes.min(offered));
            offered
        }

        fn outcomes(&self) -> Vec<(i32, Option<Certainty>, bool)> {
            let log = self.log.lock().unwrap();
            log.iter()
                .map(|(id, outcome)| match outcome {
                    Ok(_) => (*id, None, true),
                    Err(error) => (*id, error.certainty(), false),
                })
                .collect()
        }
    }

    #[test]
    fn answers_settle_in_order() {
        let mut bench = Bench::new();
        for id in 1..=3 {
            bench.push(id, true, 1000);
        }
        assert_eq!(bench.write(0, 15), 30);
        assert_eq!(bench.write(0, 15), 15);
        for id in 1..=3 {
            assert_eq!(bench.machine.due(), Some(id));
            bench.machine.answer(Bytes::new());
        }
        assert_eq!(
            bench.outcomes(),
            [(1, None, true), (2, None, true), (3, None, true)]
        );
        assert!(bench.machine.is_idle());
    }

    #[test]
    fn a_lost_connection_tells_what_may_have_arrived() {
        let mut bench = Bench::new();
        bench.push(1, true, 1000);
        bench.push(2, true, 1000);
        bench.write(0, 3);
        let until = bench.at(500);
        bench.machine.mute(until);
        bench.push(3, true, 1000);
        assert_eq!(bench.write(1, 0), 17);
        bench
            .machine
            .fail(&Error::new(ErrorKind::Connection, "cut"));
        assert_eq!(
            bench.outcomes(),
            [
                (1, Some(Certainty::MaybeWritten), false),
                (2, Some(Certainty::MaybeWritten), false),
                (3, Some(Certainty::NotSent), false)
            ]
        );
    }

    #[test]
    fn without_an_answer_a_request_is_done_when_written() {
        let mut bench = Bench::new();
        bench.push(1, false, 1000);
        bench.write(0, 9);
        assert!(bench.outcomes().is_empty());
        bench.write(0, 1);
        assert_eq!(bench.outcomes(), [(1, None, true)]);
        assert_eq!(bench.machine.due(), None);
    }

    #[test]
    fn a_request_without_answer_that_is_not_taken_condemns_the_broker_too() {
        let mut bench = Bench::new();
        bench.push(1, false, 50);
        bench.write(0, 3);
        assert!(bench.machine.expire(bench.at(49)).is_ok());
        let error = bench.machine.expire(bench.at(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        bench.write(50, 7);
        assert!(bench.machine.expire(bench.at(50)).is_ok());
        assert_eq!(bench.machine.next_timeout(), None);
    }

    #[test]
    fn a_mute_holds_back_new_requests_only() {
        let mut bench = Bench::new();
        bench.push(1, true, 9000);
        bench.write(0, 10);
        let until = bench.at(100);
        bench.machine.mute(until);
        bench.push(2, true, 9000);
        assert_eq!(bench.write(99, 0), 0);
        assert_eq!(bench.machine.next_timeout(), Some(until));
        bench.machine.answer(Bytes::new());
        assert_eq!(bench.write(100, 10), 10);
    }

    #[test]
    fn deadlines_end_what_waits_in_line_and_condemn_a_silent_broker() {
        let mut bench = Bench::new();
        bench.push(1, true, 50);
        bench.write(0, 10);
        bench.machine.answer(Bytes::new());
        let until = bench.at(1000);
        bench.machine.mute(until);
        bench.push(2, true, 60);
        bench.push(3, true, 500);
        assert!(bench.machine.expire(bench.at(60)).is_ok());
        assert_eq!(bench.outcomes()[1], (2, Some(Certainty::NotSent), false));
        assert_eq!(bench.machine.next_timeout(), Some(bench.at(500)));
        bench.write(1000, 10);
        let error = bench.machine.expire(bench.at(1000)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }

    #[test]
    fn a_request_nobody_waits_for_is_not_sent() {
        let mut bench = Bench::new();
        let deadline = bench.at(10);
        bench.machine.push(Outgoing {
            name: "Test",
            correlation: 1,
            segments: vec![Bytes::from_static(b"x")],
            answered: true,
            max_answer: 1000,
            deadline,
            observer: Probe(1, Arc::clone(&bench.log), true),
        });
        assert_eq!(bench.write(0, 0), 0);
        assert!(bench.machine.is_idle());
    }
}
