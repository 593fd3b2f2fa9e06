//! What becomes of the batches of a request that was answered or failed.
//!
//! An answer is taken apart partition by partition: the code's meaning (`produce_error.rs`) goes to
//! the slot's queue, which decides done, again or failed; batches end outside of every lock. Hints
//! at new leaders are passed on to the cluster, and what ends the producer to its control task.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use kafka_protocol::messages::ProduceResponse;

use super::{Part, Request, Sender};
use crate::clock::{Instant, now};
use crate::cluster::LeaderHint;
use crate::cluster::snapshot::Broker;
use crate::error::classify::{self, Refresh};
use crate::error::{BrokerCode, Certainty, Class, Error, ErrorKind, Result};
use crate::producer::batch::{ReadyBatch, end_all};
use crate::producer::delivery::Outcome;
use crate::producer::queue::{Answer, Settled, Why};
use crate::producer::slot::unknown_offset;
use crate::producer::transaction::of_transaction;
use crate::producer::{Acks, produce_error};
use crate::types::BrokerId;
use crate::wire::codes;

/// How soon a batch is sent again that came before the end of the transaction before.
const MARKERS: Duration = Duration::from_millis(10);

impl Sender {
    /// Settles what else has been answered meanwhile.
    pub(super) fn take_answers(&mut self) {
        while let Some(request) = self.requests.front_mut()
            && let Some(answer) = (&mut request.pending).now_or_never()
        {
            if let Some(request) = self.requests.pop_front() {
                self.ended(request, answer);
            }
        }
    }

    pub(super) fn ended(&mut self, request: Request, answer: Result<ProduceResponse>) {
        let Request {
            parts, sent, span, ..
        } = request;
        let time = now();
        let took = time.saturating_duration_since(sent);
        let refused = answer.as_ref().map_or(0, |response| {
            let partitions = response.responses.iter().map(|topic| {
                let answers = topic.partition_responses.iter();
                answers.filter(|answer| answer.error_code != 0).count() as u64
            });
            partitions.sum()
        });
        let stats = &self.shared.batch_config.stats;
        let throttled = |response: &ProduceResponse| {
            Duration::from_millis(u64::try_from(response.throttle_time_ms).unwrap_or(0))
        };
        stats.request(took, answer.as_ref().ok().map(throttled), refused);
        span.record("took_ms", took.as_millis());
        span.record("refused", refused);
        if let Err(error) = &answer {
            span.record("error", tracing::field::display(error));
        }
        span.in_scope(|| {
            self.settle(parts, answer, time);
            end_all(&mut self.ended, time);
        });
    }

    fn settle(&mut self, mut parts: Vec<Part>, answer: Result<ProduceResponse>, time: Instant) {
        match answer {
            Ok(response) => {
                if self.shared.config.acks == Acks::None {
                    for part in &parts {
                        self.settle_part(part, Answer::Written, time, &unknown_offset, None);
                    }
                    return;
                }
                self.settle_response(&mut parts, &response, time);
                let silent = Error::new(
                    ErrorKind::Protocol,
                    "the broker's answer does not mention the partition",
                );
                for part in parts.iter().filter(|part| !part.settled) {
                    let answer = Answer::Again(Certainty::MaybeWritten);
                    self.settle_part(part, answer, time, &unknown_offset, Some(&silent));
                }
            }
            Err(error) => {
                let certainty = error.certainty().unwrap_or(Certainty::MaybeWritten);
                tracing::debug!(broker = ?self.home.broker, %error, "a produce request failed");
                self.shared.cluster.refresh();
                let answer = if error.is_retriable() {
                    Answer::Again(certainty)
                } else {
                    Answer::Refused(certainty)
                };
                for part in &parts {
                    self.settle_part(part, answer, time, &unknown_offset, Some(&error));
                }
            }
        }
    }

    fn settle_response(&mut self, parts: &mut [Part], response: &ProduceResponse, time: Instant) {
        let mut hints = Vec::new();
        let mut refresh = false;
        let mut guess = 0;
        for topic in &response.responses {
            for answer in &topic.partition_responses {
                // Answers come in the order of the request; the search is for those that do not.
                let is_it = |part: &Part| {
                    part.slot.tp.partition == answer.index
                        && match topic.name.0.is_empty() {
                            true => part.topic_id == topic.topic_id,
                            false => *part.slot.tp.topic == *topic.name.0,
                        }
                };
                let found = match parts.get(guess) {
                    Some(part) if is_it(part) => Some(guess),
                    _ => parts.iter().position(is_it),
                };
                let Some(index) = found else { continue };
                let Some(part) = parts.get_mut(index) else {
                    continue;
                };
                guess = index + 1;
                part.settled = true;
                let code = answer.error_code;
                let mut outcome =
                    produce_error::classify_produce_error(code, self.shared.config.acks);
                if self.shared.rules.idempotent && contradicts(code, answer.base_offset) {
                    // The broker knows a batch that it has, and tells its offset again.
                    outcome = Answer::Again(Certainty::MaybeWritten);
                }
                let leader = &answer.current_leader;
                if leader.leader_id.0 >= 0 {
                    hints.push(LeaderHint {
                        topic: Arc::clone(&part.slot.tp.topic),
                        partition: answer.index,
                        leader: BrokerId(leader.leader_id.0),
                        leader_epoch: leader.leader_epoch,
                    });
                } else if code != 0 {
                    refresh |= classify::classify(code).refresh != Refresh::Nothing;
                }
                let error = (code != 0).then(|| {
                    let error = Error::from_code(code, "producing");
                    match &answer.error_message {
                        Some(message) => error.context(message),
                        None => error,
                    }
                });
                let written = || Outcome::Written {
                    base_offset: (answer.base_offset >= 0).then_some(answer.base_offset),
                    append_time: (answer.log_append_time_ms >= 0)
                        .then_some(answer.log_append_time_ms),
                };
                self.settle_part(part, outcome, time, &written, error.as_ref());
                if matches!(outcome, Answer::Refused(_))
                    && !self.shared.rules.transactional
                    && produce_error::is_fatal(code, self.shared.rules.idempotent)
                    && let Some(error) = error
                {
                    self.shared
                        .identity()
                        .fail(error.with_class(crate::error::Class::Fatal));
                    self.shared.control.notify_one();
                }
            }
        }
        if !hints.is_empty() {
            let brokers: Vec<_> = response
                .node_endpoints
                .iter()
                .filter_map(|node| {
                    Some(Broker {
                        id: BrokerId(node.node_id.0),
                        host: Arc::from(node.host.as_str()),
                        port: u16::try_from(node.port).ok()?,
                        rack: node.rack.as_ref().map(|rack| Arc::from(rack.as_str())),
                    })
                })
                .collect();
            self.shared.cluster.learn(&hints, &brokers);
        }
        if refresh || !hints.is_empty() {
            self.shared.cluster.refresh();
        }
    }

    fn settle_part(
        &mut self,
        part: &Part,
        answer: Answer,
        time: Instant,
        written: &dyn Fn() -> Outcome,
        error: Option<&Error>,
    ) {
        let slot = &part.slot;
        let urgent = self.shared.is_urgent();
        let mut finished = std::mem::take(&mut self.finished);
        let mut state = slot.lock();
        let code = error.and_then(Error::code).map(BrokerCode::get);
        let retry_at = match answer {
            Answer::Written => time,
            // The transaction before is being completed, which takes milliseconds.
            _ if code == Some(codes::CONCURRENT_TRANSACTIONS) => time + MARKERS,
            _ => time + self.backoff(state.queue.attempts(part.id)),
        };
        if let Some(error) = error {
            state.last_error = Some(error.clone());
        }
        let rules = &self.shared.rules;
        let settled = state
            .queue
            .settle(rules, part.id, answer, retry_at, &mut finished);
        let oversized = match settled {
            Settled::Oversized => state.queue.take_oversized(part.id),
            _ => None,
        };
        slot.note_backlog(&state);
        if urgent || !state.only_lingers(rules, time) {
            state.schedule(slot);
        }
        drop(state);
        if let Some(error) = error {
            match settled {
                Settled::Again => {
                    let stats = &self.shared.batch_config.stats;
                    stats.repeats(now(), &slot.tp, error);
                }
                Settled::Oversized => {
                    tracing::debug!(partition = %slot.tp, "a batch is too large and is split");
                }
                // The log of the batch says so.
                Settled::Done | Settled::Late => {}
            }
        }
        let failed = |_, why| match (why, error) {
            (Why::Gap, _) => of_the_record(Error::new(
                ErrorKind::Sequence,
                "a batch before this one was lost, so that it cannot be told whether this one was written \
                 and it was not sent again",
            )),
            (_, Some(error)) if rules.transactional => of_transaction(error.clone()),
            (_, Some(error)) => of_the_record(error.clone()),
            (_, None) => Error::new(ErrorKind::Fatal, "a batch ended without a reason"),
        };
        slot.sort(finished.drain(..), &mut self.ended, written, failed);
        self.finished = finished;
        if let Some(batch) = oversized {
            self.split(part, batch, error);
        }
    }

    fn split(&self, part: &Part, batch: ReadyBatch, error: Option<&Error>) {
        let slot = &part.slot;
        let mut finished = Vec::new();
        match batch.split(slot.compression(), &self.shared.codecs) {
            Ok(pieces) => {
                let mut state = slot.lock();
                let refused = state.queue.put_pieces(part.id, pieces, &mut finished);
                slot.note_backlog(&state);
                let why = state.why_gone();
                state.schedule(slot);
                drop(state);
                for batch in refused.err().into_iter().flatten() {
                    let error = why().with_certainty(Certainty::NotSent);
                    let error = error.with_topic_partition(slot.tp.clone());
                    batch.end(Outcome::Failed(error), now());
                }
            }
            Err(failure) => {
                let (batch, why) = *failure;
                let mut state = slot.lock();
                // No pieces: the place is given up.
                let _ = state.queue.put_pieces(part.id, Vec::new(), &mut finished);
                state.schedule(slot);
                drop(state);
                let error = match error {
                    Some(error) => error.clone().context(why),
                    None => Error::new(ErrorKind::RecordTooLarge, why.to_string()),
                };
                let error = error
                    .with_certainty(Certainty::NotSent)
                    .with_topic_partition(slot.tp.clone());
                batch.end(Outcome::Failed(error), now());
            }
        }
        slot.finish(finished, now(), unknown_offset, |_, _| {
            of_the_record(Error::new(
                ErrorKind::Sequence,
                "a batch before this one was too large",
            ))
        });
    }

    fn backoff(&self, attempts: u32) -> Duration {
        let config = self.shared.cluster.config();
        let doubled = config
            .retry_backoff
            .saturating_mul(1 << attempts.saturating_sub(1).min(20));
        let most = config.retry_backoff_max.max(config.retry_backoff);
        self.shared.cluster.clock().jitter(doubled.min(most))
    }
}

/// Whether an answer says that a batch was written and no offset, or that it was refused and one.
/// Taking it at its word would acknowledge what is in no log, or give the sequence of a batch that
/// is there to the next one, which the broker would then drop.
fn contradicts(code: i16, base_offset: i64) -> bool {
    match code {
        0 => base_offset < 0,
        // Some brokers fill 0 beside an error.
        _ => base_offset > 0,
    }
}

/// An error about an identity ends the record and not the producer, which goes on under another
/// one.
fn of_the_record(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Sequence | ErrorKind::Fenced if !crate::planted("a-lost-record-is-fatal") => {
            error.with_class(Class::Retriable)
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::contradicts;

    #[test]
    fn an_answer_has_an_offset_or_an_error() {
        const INVALID_RECORD: i16 = 87;
        for (code, base_offset, wrong) in [
            (0, 0, false),
            (0, 7, false),
            (0, -1, true),
            (INVALID_RECORD, -1, false),
            (INVALID_RECORD, 0, false),
            (INVALID_RECORD, 7, true),
        ] {
            assert_eq!(
                contradicts(code, base_offset),
                wrong,
                "{code} {base_offset}"
            );
        }
    }
}
