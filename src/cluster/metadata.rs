//! What to ask the cluster, and when: the machine behind the metadata task.
//!
//! Invariants:
//! - Only topics that somebody watches are asked for.
//! - At most one round of requests is under way; wishes that come meanwhile make another round.
//! - Rounds that leave something unresolved (unknown topic, partition without leader, no broker
//!   reached) follow each other with exponential back-off; the first question about a topic never waits.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use crate::clock::Instant;

/// Topics to ask for in one round, by whether the broker may make them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Asked for with `allow_auto_topic_creation`.
    pub(crate) creatable: Vec<Arc<str>>,
    pub(crate) existing: Vec<Arc<str>>,
    /// And which topics there are at all.
    pub(crate) all: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct MetadataMachine {
    topics: IndexMap<Arc<str>, Want>,
    /// Watchers of the list of all topics.
    all: usize,
    max_age: Duration,
    backoff: (Duration, Duration),
    /// A refresh was asked for.
    wanted: bool,
    /// A topic was never asked for yet: no waiting.
    urgent: bool,
    asking: bool,
    /// Rounds in a row that left something unresolved.
    streak: u32,
    /// When the next round may start, and when it must.
    not_before: Option<Instant>,
    due: Option<Instant>,
}

#[derive(Debug, Default)]
struct Want {
    watchers: usize,
    creators: usize,
    asked: bool,
}

impl MetadataMachine {
    pub(crate) fn new(max_age: Duration, backoff: (Duration, Duration)) -> Self {
        Self {
            topics: IndexMap::new(),
            all: 0,
            max_age,
            backoff,
            wanted: true,
            urgent: true,
            asking: false,
            streak: 0,
            not_before: None,
            due: None,
        }
    }

    /// One watcher more for a topic.
    pub(crate) fn watch(&mut self, topic: &Arc<str>, auto_create: bool) {
        let want = self.topics.entry(Arc::clone(topic)).or_default();
        want.watchers += 1;
        want.creators += usize::from(auto_create);
        self.urgent |= !want.asked;
    }

    /// One watcher less; true if it was the last.
    pub(crate) fn unwatch(&mut self, topic: &str, auto_create: bool) -> bool {
        let Some(want) = self.topics.get_mut(topic) else {
            return false;
        };
        want.watchers = want.watchers.saturating_sub(1);
        want.creators = want.creators.saturating_sub(usize::from(auto_create));
        let last = want.watchers == 0;
        if last {
            self.topics.swap_remove(topic);
        }
        last
    }

    /// One watcher more for the list of all topics; the first asks at once.
    pub(crate) fn watch_all(&mut self) {
        self.urgent |= self.all == 0;
        self.all += 1;
    }

    pub(crate) fn unwatch_all(&mut self) {
        self.all = self.all.saturating_sub(1);
    }

    pub(crate) fn is_watched(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// Whether a round is under way: what it brings may be older than a wish of now.
    pub(crate) fn is_asking(&self) -> bool {
        self.asking
    }

    /// Somebody's knowledge proved wrong.
    pub(crate) fn refresh(&mut self) {
        self.wanted = true;
    }

    /// The next round, if it is time for one.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Ask> {
        let aged = self.due.is_some_and(|due| due <= now);
        let allowed = self.not_before.is_none_or(|at| at <= now);
        if self.asking || !(self.urgent || (allowed && (self.wanted || aged))) {
            return None;
        }
        self.asking = true;
        self.wanted = false;
        self.urgent = false;
        let mut ask = Ask {
            all: self.all > 0,
            ..Ask::default()
        };
        for (topic, want) in &mut self.topics {
            want.asked = true;
            let list = match want.creators {
                0 => &mut ask.existing,
                _ => &mut ask.creatable,
            };
            list.push(Arc::clone(topic));
        }
        Some(ask)
    }

    /// A round ended; `spread` is a random factor around 1.
    pub(crate) fn ended(&mut self, now: Instant, resolved: bool, spread: f64) {
        self.asking = false;
        if resolved {
            self.streak = 0;
        } else {
            self.wanted = true;
            self.streak = self.streak.saturating_add(1);
        }
        let doubled = self
            .backoff
            .0
            .saturating_mul(1 << self.streak.saturating_sub(1).min(16));
        let wait = doubled.min(self.backoff.1).mul_f64(spread);
        self.not_before = Some(now + wait);
        self.due = Some(now + self.max_age);
    }

    /// When `poll` is to be called again at the latest.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        match self.wanted {
            _ if self.asking => None,
            true => self.not_before,
            false => self.due,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn machine() -> (MetadataMachine, Instant) {
        let mut machine = MetadataMachine::new(300_000 * MS, (100 * MS, 1000 * MS));
        let start = crate::clock::now();
        assert_eq!(machine.poll(start), Some(Ask::default()));
        machine.ended(start, true, 1.0);
        (machine, start)
    }

    #[test]
    fn a_new_topic_is_asked_for_at_once_and_the_rest_with_it() {
        let (mut machine, start) = machine();
        machine.watch(&"a".into(), false);
        machine.watch(&"b".into(), true);
        let ask = machine.poll(start).unwrap();
        assert_eq!(
            (ask.existing, ask.creatable),
            (vec!["a".into()], vec!["b".into()])
        );
        machine.ended(start, true, 1.0);
        machine.watch(&"a".into(), false);
        assert_eq!(machine.poll(start), None, "known already");
    }

    #[test]
    fn refreshes_coalesce_and_keep_a_distance() {
        let (mut machine, start) = machine();
        machine.refresh();
        machine.refresh();
        assert_eq!(machine.poll(start + 99 * MS), None);
        assert_eq!(machine.next_timeout(), Some(start + 100 * MS));
        assert!(machine.poll(start + 100 * MS).is_some());
        machine.refresh();
        assert_eq!(machine.poll(start + 500 * MS), None, "one round at a time");
        machine.ended(start + 500 * MS, true, 1.0);
        assert!(
            machine.poll(start + 600 * MS).is_some(),
            "asked for during the round"
        );
    }

    #[test]
    fn what_stays_unresolved_is_asked_again_with_back_off() {
        let (mut machine, mut time) = machine();
        machine.watch(&"ghost".into(), false);
        for expected in [100, 200, 400, 800, 1000, 1000] {
            assert!(machine.poll(time).is_some());
            machine.ended(time, false, 1.0);
            assert_eq!(machine.next_timeout(), Some(time + expected * MS));
            time += expected * MS;
        }
    }

    #[test]
    fn age_alone_is_a_reason() {
        let (mut machine, start) = machine();
        assert_eq!(machine.poll(start + 299_999 * MS), None);
        assert_eq!(machine.next_timeout(), Some(start + 300_000 * MS));
        assert!(machine.poll(start + 300_000 * MS).is_some());
    }

    #[test]
    fn all_topics_are_asked_for_while_somebody_looks() {
        let (mut machine, start) = machine();
        machine.watch_all();
        let ask = machine.poll(start).unwrap();
        assert!(ask.all, "at once");
        machine.ended(start, true, 1.0);
        machine.watch_all();
        assert_eq!(machine.poll(start), None, "known already");
        machine.unwatch_all();
        machine.watch(&"a".into(), false);
        assert!(machine.poll(start).unwrap().all);
        machine.ended(start, true, 1.0);
        machine.unwatch_all();
        machine.watch(&"b".into(), false);
        assert!(!machine.poll(start).unwrap().all);
    }

    #[test]
    fn the_last_watcher_ends_the_interest() {
        let (mut machine, _) = machine();
        machine.watch(&"a".into(), true);
        machine.watch(&"a".into(), false);
        assert!(!machine.unwatch("a", true));
        assert!(machine.is_watched("a"));
        assert!(machine.unwatch("a", false));
        assert!(!machine.is_watched("a"));
    }
}
