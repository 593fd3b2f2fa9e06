//! Which of the coordinator's answers are believed, and how often they have to come.
//!
//! An answer stands outside of every checksum, and so does the request that it is to. Whatever would end the membership is
//! believed only when it is said again.

use super::HeartbeatAnswer;
use crate::consumer::codes;
use crate::error::{Error, ErrorKind};

/// So often in a row a refusal has to come that ends the membership.
const FINAL: u32 = 3;
/// So often in a row, what no broker says to a heartbeat.
const UNEXPECTED: u32 = 10;

/// Codes by which coordinators refuse members for good, or until somebody allows them.
const REFUSALS: [i16; 11] = [
    codes::INCONSISTENT_GROUP_PROTOCOL,
    codes::INVALID_GROUP_ID,
    codes::TOPIC_AUTHORIZATION_FAILED,
    30, // GROUP_AUTHORIZATION_FAILED
    31, // CLUSTER_AUTHORIZATION_FAILED
    35, // UNSUPPORTED_VERSION
    codes::GROUP_MAX_SIZE_REACHED,
    codes::FENCED_INSTANCE_ID,
    codes::UNRELEASED_INSTANCE_ID,
    codes::UNSUPPORTED_ASSIGNOR,
    codes::INVALID_REGULAR_EXPRESSION,
];

/// What was not believed so far.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// The refusal that came last, and how often in a row.
    refusal: Option<(i16, u32)>,
    /// How many answers in a row contradicted themselves.
    strange: u32,
}

impl Doubts {
    /// The coordinator has taken a heartbeat.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Why an answer cannot be right, given the epoch that the member has; if it goes on, a broker means it so.
    pub(super) fn about(&mut self, answer: &HeartbeatAnswer, epoch: i32) -> Option<&'static str> {
        let why = implausible(answer, epoch)?;
        self.strange += 1;
        (self.strange <= FINAL || answer.code == codes::NONE && answer.member_epoch <= super::JOIN)
            .then_some(why)
    }

    /// Whether an error that is not retriable is true: said often enough, this time included, or found by this client itself.
    pub(super) fn believe(&mut self, error: &Error) -> bool {
        let code = match error.code() {
            Some(code) => code.get(),
            None if is_own(error.kind()) => return true,
            None => codes::NONE,
        };
        let times = match self.refusal {
            Some((last, times)) if last == code => times + 1,
            _ => 1,
        };
        self.refusal = Some((code, times));
        times
            >= match REFUSALS.contains(&code) {
                true => FINAL,
                false => UNEXPECTED,
            }
    }
}

/// What no answer makes: another attempt would end in the same way.
fn is_own(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Authentication
            | ErrorKind::UnsupportedVersion
            | ErrorKind::Config
            | ErrorKind::Closed
            | ErrorKind::Fatal
    )
}

fn implausible(answer: &HeartbeatAnswer, epoch: i32) -> Option<&'static str> {
    if answer.code != codes::NONE {
        // Brokers say nothing else beside an error.
        let beside = answer.member_epoch != 0
            || answer.member_id.is_some()
            || answer.assignment.is_some()
            || !answer.interval.is_zero();
        return beside.then_some("an error beside what only members are told");
    }
    if answer.member_epoch <= super::JOIN {
        return Some("an epoch of those who leave");
    }
    (answer.member_epoch < epoch).then_some("an epoch older than the member's")
}
