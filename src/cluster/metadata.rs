//! What to ask the cluster, and when: the machine behind the metadata task.
//!
//! Invariants:
//! - Only topics that somebody watches are asked for.
//! - At most one round of requests is under way; wishes that come meanwhile make another round.
//! - A round asks for all topics that are watched if somebody's knowledge proved wrong or it has
//!   aged, and otherwise only for those that were never answered well (KIP-526): new ones, and
//!   those whose last answer left something unresolved (unknown topic, partition without leader, no
//!   broker reached). So the cost of many new topics grows with their number and not with its
//!   square.
//! - Rounds that leave something unresolved follow each other with exponential back-off; the first
//!   question about a topic never waits.

use std::sync::Arc;
use std::time::Duration;

use indexmap::{IndexMap, IndexSet};

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

/// How a round ended.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// No broker answered.
    Failed,
    Answered {
        /// Topics of the round that are still to be asked for.
        left: Vec<Arc<str>>,
    },
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct MetadataMachine {
    topics: IndexMap<Arc<str>, Want>,
    /// Watchers of the list of all topics.
    all: usize,
    max_age: Duration,
    backoff: (Duration, Duration),
    /// A refresh of everything was asked for.
    wanted: bool,
    /// Topics that no answer has resolved, and whether that of the list of all has.
    unresolved: IndexSet<Arc<str>>,
    all_resolved: bool,
    /// Something was never asked for yet: no waiting.
    urgent: bool,
    asking: Option<Asking>,
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
}

/// The round under way.
#[derive(Debug)]
struct Asking {
    everything: bool,
    all: bool,
    /// If it is not about everything.
    topics: Vec<Arc<str>>,
}

impl MetadataMachine {
    pub(crate) fn new(max_age: Duration, backoff: (Duration, Duration)) -> Self {
        Self {
            topics: IndexMap::new(),
            all: 0,
            max_age,
            backoff,
            wanted: true,
            unresolved: IndexSet::new(),
            all_resolved: false,
            urgent: true,
            asking: None,
            streak: 0,
            not_before: None,
            due: None,
        }
    }

    /// One watcher more for a topic.
    pub(crate) fn watch(&mut self, topic: &Arc<str>, auto_create: bool) {
        let want = self.topics.entry(Arc::clone(topic)).or_default();
        if want.watchers == 0 {
            self.unresolved.insert(Arc::clone(topic));
            self.urgent = true;
        }
        want.watchers += 1;
        want.creators += usize::from(auto_create);
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
            self.unresolved.swap_remove(topic);
        }
        last
    }

    /// One watcher more for the list of all topics; the first asks at once.
    pub(crate) fn watch_all(&mut self) {
        if self.all == 0 {
            self.all_resolved = false;
            self.urgent = true;
        }
        self.all += 1;
    }

    pub(crate) fn unwatch_all(&mut self) {
        self.all = self.all.saturating_sub(1);
    }

    pub(crate) fn is_watched(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// Whether a round about everything is under way: what it brings may be older than a wish of
    /// now.
    pub(crate) fn is_asking_everything(&self) -> bool {
        self.asking.as_ref().is_some_and(|asking| asking.everything)
    }

    /// Somebody's knowledge proved wrong.
    pub(crate) fn refresh(&mut self) {
        self.wanted = true;
    }

    /// The next round, if it is time for one.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Ask> {
        let aged = self.due.is_some_and(|due| due <= now);
        let allowed = self.not_before.is_none_or(|at| at <= now);
        let everything = allowed && (self.wanted || aged);
        self.urgent &= self.has_unresolved() || everything;
        let some = self.has_unresolved() && (self.urgent || allowed);
        if self.asking.is_some() || !(everything || some) {
            return None;
        }
        self.urgent = false;
        let all = self.all > 0 && (everything || !self.all_resolved);
        let mut ask = Ask {
            all,
            ..Ask::default()
        };
        let mut add = |topic: &Arc<str>, want: &Want| match want.creators {
            0 => ask.existing.push(Arc::clone(topic)),
            _ => ask.creatable.push(Arc::clone(topic)),
        };
        let mut topics: Vec<_> = std::mem::take(&mut self.unresolved).into_iter().collect();
        if everything {
            self.wanted = false;
            topics.clear();
            for (topic, want) in &self.topics {
                add(topic, want);
            }
        }
        for topic in &topics {
            if let Some(want) = self.topics.get(topic) {
                add(topic, want);
            }
        }
        self.asking = Some(Asking {
            everything,
            all,
            topics,
        });
        Some(ask)
    }

    fn has_unresolved(&self) -> bool {
        !self.unresolved.is_empty() || (self.all > 0 && !self.all_resolved)
    }

    /// The round under way ended; `spread` is a random factor around 1. Whether it was about
    /// everything.
    pub(crate) fn ended(&mut self, now: Instant, ended: Ended, spread: f64) -> bool {
        let Some(asked) = self.asking.take() else {
            return false;
        };
        let resolved = match ended {
            Ended::Answered { left } => {
                self.all_resolved |= asked.all;
                let resolved = left.is_empty();
                self.ask_again(left);
                resolved
            }
            Ended::Failed => {
                self.wanted |= asked.everything;
                self.ask_again(asked.topics);
                false
            }
        };
        self.streak = match resolved {
            true => 0,
            false => self.streak.saturating_add(1),
        };
        let doubled = self
            .backoff
            .0
            .saturating_mul(1 << self.streak.saturating_sub(1).min(16));
        let wait = doubled.min(self.backoff.1).mul_f64(spread);
        self.not_before = Some(now + wait);
        if asked.everything {
            self.due = Some(now + self.max_age);
        }
        asked.everything
    }

    fn ask_again(&mut self, topics: Vec<Arc<str>>) {
        let watched = topics.into_iter();
        let watched = watched.filter(|topic| self.topics.contains_key(topic));
        self.unresolved.extend(watched);
    }

    /// When `poll` is to be called again at the latest.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        match self.wanted || self.has_unresolved() {
            _ if self.asking.is_some() => None,
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
        machine.ended(start, answered(&[]), 1.0);
        (machine, start)
    }

    #[test]
    fn a_new_topic_is_asked_for_at_once_and_alone() {
        let (mut machine, start) = machine();
        for old in ["old", "older"] {
            machine.watch(&old.into(), false);
        }
        assert!(machine.poll(start).is_some());
        machine.ended(start, answered(&[]), 1.0);
        machine.watch(&"a".into(), false);
        machine.watch(&"b".into(), true);
        let ask = machine.poll(start).unwrap();
        assert_eq!(
            (ask.existing, ask.creatable),
            (vec!["a".into()], vec!["b".into()])
        );
        machine.ended(start, answered(&[]), 1.0);
        machine.watch(&"a".into(), false);
        assert_eq!(machine.poll(start), None, "known already");
    }

    fn answered(left: &[&str]) -> Ended {
        Ended::Answered {
            left: left.iter().map(|name| Arc::from(*name)).collect(),
        }
    }

    fn names(ask: Option<Ask>) -> Vec<Arc<str>> {
        ask.map_or_else(Vec::new, |ask| ask.existing)
    }

    #[test]
    fn only_what_an_answer_left_open_is_asked_again() {
        let (mut machine, start) = machine();
        for name in ["a", "b", "c"] {
            machine.watch(&name.into(), false);
        }
        assert_eq!(names(machine.poll(start)).len(), 3);
        machine.ended(start, answered(&["b", "c"]), 1.0);
        machine.unwatch("c", false);
        assert!(machine.poll(start + 99 * MS).is_none());
        let ask = machine.poll(start + 100 * MS);
        assert_eq!(names(ask), ["b".into()]);
        assert!(!machine.ended(start + 100 * MS, Ended::Failed, 1.0));
        let ask = machine.poll(start + 300 * MS);
        assert_eq!(names(ask), ["b".into()]);
        // Somebody's knowledge proves wrong: everything, as soon as there was a pause.
        machine.refresh();
        machine.ended(start + 300 * MS, answered(&[]), 1.0);
        assert!(machine.poll(start + 399 * MS).is_none());
        assert_eq!(names(machine.poll(start + 400 * MS)).len(), 2);
        assert!(machine.is_asking_everything());
        assert!(machine.ended(start + 400 * MS, Ended::Failed, 1.0));
        assert_eq!(names(machine.poll(start + 500 * MS)).len(), 2);
    }

    #[test]
    fn new_topics_do_not_keep_the_rest_from_ageing() {
        let (mut machine, start) = machine();
        machine.watch(&"old".into(), false);
        assert!(machine.poll(start).is_some());
        machine.ended(start, answered(&[]), 1.0);
        machine.watch(&"new".into(), false);
        let time = start + 299_999 * MS;
        assert_eq!(names(machine.poll(time)), ["new".into()]);
        machine.ended(time, answered(&[]), 1.0);
        assert_eq!(machine.next_timeout(), Some(start + 300_000 * MS));
        let later = time + 100 * MS;
        assert_eq!(names(machine.poll(later)).len(), 2);
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
        machine.ended(start + 500 * MS, answered(&[]), 1.0);
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
            machine.ended(time, answered(&["ghost"]), 1.0);
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
        machine.ended(start, answered(&[]), 1.0);
        machine.watch_all();
        assert_eq!(machine.poll(start), None, "known already");
        machine.unwatch_all();
        machine.watch(&"a".into(), false);
        assert!(!machine.poll(start).unwrap().all, "not with a new topic");
        machine.ended(start, answered(&[]), 1.0);
        machine.refresh();
        assert!(machine.poll(start + 100 * MS).unwrap().all);
        machine.ended(start + 100 * MS, Ended::Failed, 1.0);
        assert!(
            machine.poll(start + 200 * MS).unwrap().all,
            "until it is known"
        );
        machine.ended(start + 200 * MS, answered(&[]), 1.0);
        machine.unwatch_all();
        machine.refresh();
        assert!(!machine.poll(start + 300 * MS).unwrap().all);
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
