//! Rules: which requests fare otherwise than they should.

#[cfg(test)]
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::requests::Api;

/// A request, as the predicate of a rule sees it.
#[derive(Debug)]
#[non_exhaustive]
pub struct RequestInfo<'a> {
    /// What is asked for.
    pub api: Api,
    /// The version of the request.
    pub version: i16,
    /// The broker that was asked.
    pub broker: i32,
    /// The client's name (`client.id`).
    pub client_id: &'a str,
    /// The topics that the request names, where it names any.
    pub topics: &'a [String],
    /// The group it concerns, for commits, offset look-ups, and what members ask.
    pub group: Option<&'a str>,
}

pub(super) type Predicate = Arc<dyn Fn(&RequestInfo<'_>) -> bool + Send + Sync>;
#[cfg(test)]
pub(super) type Rewriting = Arc<dyn Fn(&[u8], i16) -> Bytes + Send + Sync>;

/// What a rule does.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Fail(i16),
    Delay(Duration),
    Drop,
    ApplyThenDrop,
    ApplyThenFail(i16),
    Garbage(Bytes),
    FlipBit(usize),
    #[cfg(test)]
    Rewrite(Rewrite),
}

/// Makes another answer of one in this version.
#[cfg(test)]
#[derive(Clone)]
pub(super) struct Rewrite(pub(super) Rewriting);

#[cfg(test)]
impl Rewrite {
    pub(super) fn apply(&self, answer: &[u8], version: i16) -> Bytes {
        (self.0)(answer, version)
    }
}

#[cfg(test)]
impl fmt::Debug for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rewrite")
    }
}

pub(super) struct Rule {
    pub(super) id: u64,
    pub(super) api: Option<Api>,
    pub(super) broker: Option<i32>,
    pub(super) when: Option<Predicate>,
    pub(super) skip: u64,
    pub(super) left: u64,
    pub(super) action: Action,
    pub(super) hits: Arc<AtomicU64>,
}

/// What the rules together do with one request.
#[derive(Debug, Default)]
pub(super) struct RuleOutcome {
    pub(super) delay: Duration,
    pub(super) action: Option<Action>,
}

/// Applies the rules in their order: delays add up, anything else ends the search.
pub(super) fn judge(rules: &mut Vec<Rule>, info: &RequestInfo<'_>) -> RuleOutcome {
    let mut outcome = RuleOutcome::default();
    for rule in rules.iter_mut().filter(|rule| rule.left > 0) {
        let matches = rule.api.is_none_or(|api| api == info.api)
            && rule.broker.is_none_or(|broker| broker == info.broker)
            && rule.when.as_ref().is_none_or(|when| when(info));
        if !matches {
            continue;
        }
        if rule.skip > 0 {
            rule.skip -= 1;
            continue;
        }
        rule.left -= 1;
        rule.hits.fetch_add(1, Ordering::Relaxed);
        match &rule.action {
            Action::Delay(delay) => outcome.delay += *delay,
            action => {
                tracing::debug!(?action, ?info, "a rule of the mock applies");
                outcome.action = Some(action.clone());
                break;
            }
        }
    }
    rules.retain(|rule| rule.left > 0);
    outcome
}
