//! One request about several topics: repeated for those whose trouble may pass, until the deadline.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use indexmap::IndexMap;

use super::per_topic::PerTopic;
use super::{Cluster, Target};
use crate::clock::{Instant, now};
use crate::error::classify::{self, Refresh};
use crate::error::{Class, Error, ErrorKind, Result};
use crate::net::Lane;
use crate::net::backoff::Backoff;
use crate::wire::Call;

/// What the broker said about one topic.
pub(crate) struct Item<T> {
    pub(crate) name: String,
    pub(crate) code: i16,
    pub(crate) message: Option<String>,
    pub(crate) value: T,
}

/// A kind of request about several topics.
pub(crate) trait Operation: Sync {
    type Request: Call;
    /// What is asked for one topic.
    type Ask: Sync;
    type Value;

    /// What is being done, for messages: `creating topic`.
    const DOING: &'static str;
    /// The code that answers a request for what is done already, and what then may have done it.
    const DONE_ALREADY: Option<(i16, &'static str)>;

    fn target(&self) -> Target<'static>;

    /// The request for some of the topics; `timeout_ms` is for the broker.
    fn request(
        &self,
        version: i16,
        asks: &IndexMap<String, Self::Ask>,
        timeout_ms: i32,
    ) -> Self::Request;

    fn read(&self, response: <Self::Request as Call>::Response) -> Vec<Item<Self::Value>>;
}

impl Cluster {
    /// Asks until every topic has a result that another attempt would not change, or the deadline
    /// is there. It fails as a whole only as long as nothing was heard about any topic.
    ///
    /// `results` awaits each of the topics asked about, and may have results of others already.
    pub(crate) async fn ask_each<O: Operation>(
        &self,
        operation: &O,
        deadline: Instant,
        mut asks: IndexMap<String, O::Ask>,
        mut results: PerTopic<O::Value>,
    ) -> Result<PerTopic<O::Value>> {
        // What changes something waits at the broker until it is done.
        let lane = match O::Request::WRITES {
            true => Lane::Admin,
            false => Lane::Metadata,
        };
        let config = self.config();
        let mut backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
        let attempts = AtomicU32::new(0);
        let mut heard = false;
        while !asks.is_empty() {
            let answer = self
                .call(operation.target(), lane, deadline, |version| {
                    attempts.fetch_add(1, Ordering::Relaxed);
                    let left = deadline.saturating_duration_since(now());
                    let timeout_ms = millis(left.min(config.request_timeout));
                    Ok(operation.request(version, &asks, timeout_ms))
                })
                .await;
            let response = match answer {
                Ok(response) => response,
                // Topics that were told to be tried again keep what was said about them.
                Err(error) if heard => {
                    results.fill(asks.keys(), &error);
                    break;
                }
                Err(error) => return Err(error),
            };
            heard = true;
            let code = O::Request::error_code(&response);
            if code != 0 {
                results.fill(asks.keys(), &Error::from_code(code, O::DOING));
                break;
            }
            let repeated = attempts.load(Ordering::Relaxed) > 1;
            for item in operation.read(response) {
                if !asks.contains_key(&item.name) {
                    continue;
                }
                if item.code == 0 {
                    asks.shift_remove(&item.name);
                    results.put(item.name, Ok(item.value));
                    continue;
                }
                if !may_pass(item.code) {
                    asks.shift_remove(&item.name);
                } else if classify::classify(item.code).refresh != Refresh::Nothing {
                    self.refresh();
                }
                let error = failed::<O, _>(&item, repeated);
                results.put(item.name, Err(error));
            }
            // What an answer leaves out it would leave out again.
            let missing = |name: &&String| !results.is_settled(name);
            let left_out: Vec<String> = asks.keys().filter(missing).cloned().collect();
            for name in left_out {
                asks.shift_remove(&name);
                let text = format!("{} '{name}': the broker's answer leaves it out", O::DOING);
                results.put(name, Err(Error::new(ErrorKind::Protocol, text)));
            }
            let wait = backoff.fail(self.clock());
            if asks.is_empty() || now() + wait >= deadline {
                break;
            }
            tokio::time::sleep(wait).await;
        }
        Ok(results)
    }
}

/// Whether another attempt may go otherwise. That a topic is unknown is an answer here, though for
/// producers and consumers it is a state that passes.
fn may_pass(code: i16) -> bool {
    let meaning = classify::classify(code);
    meaning.is_retriable() && meaning.kind != ErrorKind::UnknownTopic
}

fn failed<O: Operation, T>(item: &Item<T>, repeated: bool) -> Error {
    let (doing, name) = (O::DOING, &item.name);
    let mut text = format!("{doing} '{name}'");
    if let Some(message) = item
        .message
        .as_deref()
        .filter(|message| !message.is_empty())
    {
        text = format!("{text}: {}", message.trim_end_matches('.'));
    }
    match O::DONE_ALREADY {
        Some((code, note)) if code == item.code && repeated => text = format!("{text} ({note})"),
        _ => {}
    }
    let error = Error::from_code(item.code, text);
    if error.is_retriable() && !may_pass(item.code) {
        // It was not tried again, and would not help.
        return error.with_class(Class::Caller);
    }
    error
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
