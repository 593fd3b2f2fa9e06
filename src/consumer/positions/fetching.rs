//! What to ask a broker next, and what its answers change.

use super::part::State;
use super::{PartitionFetch, Position, Positions};
use crate::clock::Instant;
use crate::config::consumer::OffsetReset;
use crate::error::{Error, ErrorKind};
use crate::fetched::survey::Survey;
use crate::types::{BrokerId, TopicPartition};
use crate::wire::codes;

/// What a broker answered for one partition.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) code: i16,
    pub(crate) high_watermark: i64,
    pub(crate) last_stable: i64,
    pub(crate) log_start: i64,
    /// The log parted from what was read: the largest common epoch and where it ends (KIP-320).
    pub(crate) diverging: Option<(i32, i64)>,
    pub(crate) preferred: Option<BrokerId>,
    pub(crate) data: Survey,
}

/// What to do after an answer.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The answer does not fit what was asked: it is asked for again, in full.
    pub(crate) again: bool,
    /// The bytes belong to the buffer.
    pub(crate) buffer: bool,
    /// What is buffered for the partition is worthless.
    pub(crate) discard: bool,
    /// Metadata proved wrong.
    pub(crate) refresh: bool,
    /// What the next poll returns beside its records.
    pub(crate) error: Option<Error>,
}

impl Positions {
    /// Takes a broker's answer for a partition in.
    pub(crate) fn accept(
        &mut self,
        from: BrokerId,
        asked: &PartitionFetch,
        answer: &Answer,
        now: Instant,
    ) -> Outcome {
        let outcome = self.judge(from, asked, answer, now);
        self.touch(&asked.tp);
        outcome
    }

    fn judge(
        &mut self,
        from: BrokerId,
        asked: &PartitionFetch,
        answer: &Answer,
        now: Instant,
    ) -> Outcome {
        let (base, max, keep) = (
            self.rules.backoff,
            self.rules.backoff_max,
            self.rules.preferred_for,
        );
        let Some(part) = self.current(&asked.tp, asked.epoch) else {
            return Outcome::default();
        };
        if part.revoking || part.state != State::Active || part.fetch.offset != asked.offset {
            return Outcome::default();
        }
        if answer.code != codes::NONE {
            return self.refused(from, asked, answer.code, now);
        }
        if let Some(why) = damage(asked, answer)
            && part.tries_again()
        {
            tracing::debug!(partition = %asked.tp, offset = asked.offset, why, "asking again");
            let message = format!(
                "the answer for offset {} cannot be right: {why}",
                asked.offset
            );
            part.trouble = Some(Error::new(ErrorKind::CorruptRecord, message));
            return Outcome {
                again: true,
                ..Outcome::default()
            };
        }
        if let Some((epoch, end)) = answer.diverging {
            return self.diverged(&asked.tp, epoch, end, now);
        }
        if answer.high_watermark >= 0 {
            part.high_watermark = answer.high_watermark;
        }
        part.held_since = match answer.last_stable {
            stable if stable < 0 || stable >= part.high_watermark => None,
            stable if stable == part.last_stable => part.held_since.or(Some(now)),
            _ => Some(now),
        };
        part.last_stable = answer.last_stable;
        part.log_start = answer.log_start;
        part.measured_at = Some(now);
        if let Some(replica) = answer.preferred {
            part.preferred = Some((replica, now + keep));
        }
        match answer.data {
            Survey::Empty => {
                part.answered();
                Outcome::default()
            }
            Survey::Batches {
                next_offset,
                leader_epoch,
                ..
            } if next_offset > part.fetch.offset => {
                part.answered();
                part.fetch = Position {
                    offset: next_offset,
                    leader_epoch,
                };
                Outcome {
                    buffer: true,
                    ..Outcome::default()
                }
            }
            Survey::Partial => {
                part.back_off(now, base, max);
                Outcome::error(
                    &asked.tp,
                    Error::new(
                        ErrorKind::CorruptRecord,
                        format!(
                            "the broker sends only a part of the batch at offset {}: its length is damaged, or the                              broker does not send batches over max.partition.fetch.bytes whole",
                            asked.offset
                        ),
                    ),
                )
            }
            Survey::Batches { .. } | Survey::Corrupt => {
                part.back_off(now, max, max);
                Outcome::error(
                    &asked.tp,
                    Error::new(
                        ErrorKind::CorruptRecord,
                        format!(
                            "what the broker sent for offset {} is not a batch of records that holds it",
                            asked.offset
                        ),
                    )
                    .with_unreadable(asked.offset..asked.offset.saturating_add(1)),
                )
            }
        }
    }

    fn refused(
        &mut self,
        from: BrokerId,
        asked: &PartitionFetch,
        code: i16,
        now: Instant,
    ) -> Outcome {
        let (base, max) = (self.rules.backoff, self.rules.backoff_max);
        let Some(part) = self.parts.get_mut(&asked.tp) else {
            return Outcome::default();
        };
        let from_follower = part
            .preferred
            .take()
            .is_some_and(|(replica, _)| replica == from);
        match code {
            codes::OFFSET_OUT_OF_RANGE if from_follower => Outcome::default(),
            // What was fetched before that offset is handed out first, and then it is asked for
            // again.
            codes::OFFSET_OUT_OF_RANGE if part.position.offset < asked.offset => {
                part.back_off(now, base, max);
                part.trouble = Some(Error::from_code(code, "fetching"));
                Outcome::default()
            }
            codes::OFFSET_OUT_OF_RANGE if let Some(outside) = part.unproven => {
                self.look_up_again(&asked.tp, outside, now);
                Outcome {
                    discard: true,
                    ..Outcome::default()
                }
            }
            codes::OFFSET_OUT_OF_RANGE => {
                let cause = format!("offset {} is outside the log", asked.offset);
                let reset = self.rules.reset;
                tracing::warn!(partition = %asked.tp, ?reset, "{cause}: auto.offset.reset decides");
                Outcome {
                    discard: true,
                    error: self.reset_by_policy(&asked.tp, &cause),
                    ..Outcome::default()
                }
            }
            codes::NOT_LEADER_OR_FOLLOWER
            | codes::LEADER_NOT_AVAILABLE
            | codes::REPLICA_NOT_AVAILABLE
            | codes::KAFKA_STORAGE_ERROR
            | codes::FENCED_LEADER_EPOCH
            | codes::UNKNOWN_LEADER_EPOCH
            | codes::OFFSET_NOT_AVAILABLE
            | codes::UNKNOWN_TOPIC_OR_PARTITION
            | codes::UNKNOWN_TOPIC_ID
            | codes::INCONSISTENT_TOPIC_ID => {
                part.gone |= matches!(
                    code,
                    codes::UNKNOWN_TOPIC_ID | codes::UNKNOWN_TOPIC_OR_PARTITION
                );
                part.back_off(now, base, max);
                part.trouble = Some(Error::from_code(code, "fetching"));
                Outcome {
                    refresh: true,
                    ..Outcome::default()
                }
            }
            codes::UNKNOWN_SERVER_ERROR | codes::REQUEST_TIMED_OUT | codes::NETWORK_EXCEPTION => {
                part.back_off(now, base, max);
                part.trouble = Some(Error::from_code(code, "fetching"));
                Outcome::default()
            }
            other => {
                let doing = format!("fetching from {} at offset {}", asked.tp, asked.offset);
                let error = Error::from_code(other, doing);
                part.trouble = Some(error.clone());
                part.back_off(now, max, max);
                let mut outcome = Outcome::error(&asked.tp, error);
                outcome.refresh = other == codes::TOPIC_AUTHORIZATION_FAILED;
                outcome
            }
        }
    }

    /// The log was cut behind what was read (KIP-320): what was read beyond is gone.
    fn diverged(&mut self, tp: &TopicPartition, epoch: i32, end: i64, now: Instant) -> Outcome {
        let reset = self.rules.reset;
        let (base, max) = (self.rules.backoff, self.rules.backoff_max);
        let renewed = self.new_epoch();
        let Some(part) = self.parts.get_mut(tp) else {
            return Outcome::default();
        };
        let lost = part.position.offset > end;
        if let Some(outside) = part.unproven.filter(|_| lost) {
            self.look_up_again(tp, outside, now);
            return Outcome {
                discard: true,
                ..Outcome::default()
            };
        }
        if lost && reset == OffsetReset::None {
            let at = part.position.offset;
            part.renew(renewed);
            part.state = State::NoPosition;
            return Outcome {
                discard: true,
                ..Outcome::error(
                    tp,
                    Error::new(
                        ErrorKind::Offset,
                        format!(
                            "the log was truncated: records from offset {end} to {at} that were read are gone (auto.offset.reset is none)"
                        ),
                    ),
                )
            };
        }
        let target = Position {
            offset: part.position.offset.min(end),
            leader_epoch: epoch,
        };
        if lost {
            tracing::warn!(partition = %tp, position = part.position.offset, end, "log truncated behind the position; going back");
        }
        let finished = part.finished;
        part.renew(renewed);
        part.start(target);
        if !lost {
            part.finished = finished;
        }
        part.back_off(now, base, max);
        Outcome {
            discard: true,
            ..Outcome::default()
        }
    }
}

/// What in an answer contradicts itself or what was asked. The first offset of a batch and its
/// leader epoch stand outside of its checksum: one that is wrong would skip records, or have the
/// next request refused.
fn damage(asked: &PartitionFetch, answer: &Answer) -> Option<&'static str> {
    if let Some((epoch, _)) = answer.diverging {
        let beyond = epoch > asked.last_fetched_epoch;
        return beyond.then_some("the log parts from what was read in a later epoch");
    }
    match answer.data {
        Survey::Empty => None,
        Survey::Partial => Some("a part of a batch"),
        Survey::Corrupt => Some("it has no batches in order"),
        Survey::Batches { next_offset, .. } if next_offset <= asked.offset => {
            Some("the batches lie before the offset")
        }
        Survey::Batches { damaged: true, .. } => Some("the checksum is wrong"),
        // A broker looks up the end of the log before it reads, and what came in between it sends.
        // These are records without gaps: nothing was compacted there yet.
        Survey::Batches {
            next_offset,
            records,
            ..
        } if answer.high_watermark >= 0
            && next_offset.saturating_sub(answer.high_watermark) > records =>
        {
            Some("the batches go beyond the end of the log")
        }
        // The leader has accepted the epoch that was asked with.
        Survey::Batches { leader_epoch, .. }
            if asked.leader_epoch >= 0 && leader_epoch > asked.leader_epoch =>
        {
            Some("the batches are of a leader to come")
        }
        Survey::Batches { .. } => None,
    }
}

impl Outcome {
    fn error(tp: &TopicPartition, error: Error) -> Self {
        Self {
            error: Some(error.with_topic_partition(tp.clone())),
            ..Self::default()
        }
    }
}
