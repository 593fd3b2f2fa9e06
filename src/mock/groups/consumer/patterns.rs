//! Which topics the regular expressions of a group's members stand for: a machine.
//!
//! A coordinator looks for matching topics beside its requests, and does not let a heartbeat wait
//! for it. Here, where nothing runs beside requests, what a heartbeat gives reason to look for is
//! found by the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::Instant;

/// A group's topics are not looked for more often, but for an expression that is new to it.
const PAUSE: Duration = Duration::from_secs(10);

/// The topics that there are.
pub(in crate::mock) struct Catalogue<'a> {
    /// The names that an expression matches as a whole; None if it is no expression.
    pub(in crate::mock) matching: &'a dyn Fn(&str) -> Option<BTreeSet<String>>,
    /// How many topics were made so far.
    pub(in crate::mock) made: usize,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Patterns {
    found: BTreeMap<String, BTreeSet<String>>,
    looked_at: Option<Instant>,
    /// How many topics had been made by then.
    made: usize,
    due: bool,
}

impl Patterns {
    /// The topics of an expression, as far as they were found.
    pub(super) fn topics(&self, regex: &str) -> impl Iterator<Item = &String> {
        self.found.get(regex).into_iter().flatten()
    }

    pub(super) fn is_known(&self, regex: &str) -> bool {
        self.found.contains_key(regex)
    }

    /// Looks, if there is reason to. True if other topics are found than before.
    pub(super) fn look(
        &mut self,
        now: Instant,
        wanted: &BTreeSet<&str>,
        topics: &Catalogue<'_>,
    ) -> bool {
        if !std::mem::take(&mut self.due) {
            return false;
        }
        let found = wanted.iter().map(|regex| {
            let found = (topics.matching)(regex).unwrap_or_default();
            ((*regex).to_owned(), found)
        });
        let found: BTreeMap<_, _> = found.collect();
        let nothing = BTreeSet::new();
        let mut each = found.iter();
        let changed =
            each.any(|(regex, topics)| topics != self.found.get(regex).unwrap_or(&nothing));
        self.found = found;
        self.looked_at = Some(now);
        self.made = topics.made;
        changed
    }

    /// Notes whether the next heartbeat has reason to look. `new`: a member just came with an
    /// expression that nobody else has.
    pub(super) fn plan(&mut self, now: Instant, wanted: &BTreeSet<&str>, new: bool, made: usize) {
        self.found.retain(|regex, _| wanted.contains(&**regex));
        if self.found.is_empty() {
            self.looked_at = None;
        }
        let rested = self.looked_at.is_none_or(|at| now > at + PAUSE);
        let unknown = wanted.len() > self.found.len();
        let reason = new || rested && (unknown || made > self.made);
        self.due |= reason && !wanted.is_empty();
    }
}
