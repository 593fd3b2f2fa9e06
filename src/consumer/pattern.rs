//! Subscriptions by pattern.

use std::sync::Arc;

use regex_lite::Regex;

use crate::error::{Error, ErrorKind, Result};

/// Which topics a group reads, as a regular expression that has to match the whole name.
///
/// Topics that are made later and match are taken in, and those that are deleted are let go,
/// without a word from the application.
///
/// ```
/// use ottla::TopicPattern;
///
/// let everything_eu = TopicPattern::client_side(r"eu\..*")?;
/// let error = TopicPattern::client_side("(").unwrap_err();
/// assert_eq!(error.kind(), ottla::ErrorKind::InvalidArgument);
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TopicPattern(Matching);

#[derive(Clone, Debug)]
pub(super) enum Matching {
    /// The expression that was given, and the one that matches whole names.
    Client(Arc<str>, Arc<Regex>),
    Broker(Arc<str>),
}

impl TopicPattern {
    /// A pattern that this client matches, as Java's `subscribe(Pattern)`: any broker will do. The
    /// names of all topics are asked for whenever metadata is renewed, at least every
    /// `metadata.max.age.ms`: that is how soon a new topic is noticed. Kafka's own topics are left
    /// out, unless `exclude.internal.topics` is off. The syntax is that of the `regex` crate
    /// without Unicode classes: linear in time, without look-around and back-references.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if the expression cannot be read.
    pub fn client_side(regex: &str) -> Result<Self> {
        let read = |text: &str| {
            Regex::new(text).map_err(|error| {
                let message = format!("the topic pattern '{regex}' cannot be read: {error}");
                Error::new(ErrorKind::InvalidArgument, message)
            })
        };
        // Alone first: what is only an expression within the brackets is none.
        read(regex)?;
        let whole = read(&format!("^(?:{regex})$"))?;
        Ok(Self(Matching::Client(regex.into(), Arc::new(whole))))
    }

    /// A pattern that the group's coordinator matches (KIP-848), as Java's
    /// `subscribe(SubscriptionPattern)`: needs Kafka 4.0. The broker notices new topics within ten
    /// seconds or so. The syntax is that of RE2/J, and the broker judges it: a poll returns
    /// [`ErrorKind::InvalidArgument`] with Kafka's code `INVALID_REGULAR_EXPRESSION` (128), after
    /// which the consumer waits for another subscription.
    #[must_use]
    pub fn broker_side(regex: impl Into<Arc<str>>) -> Self {
        Self(Matching::Broker(regex.into()))
    }

    /// The expression, as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Matching::Client(text, _) | Matching::Broker(text) => text,
        }
    }

    /// Whether the client matches; else the group's coordinator does.
    #[must_use]
    pub fn is_client_side(&self) -> bool {
        matches!(self.0, Matching::Client(..))
    }

    pub(super) fn matching(&self) -> &Matching {
        &self.0
    }
}

impl PartialEq for TopicPattern {
    /// The same expression, matched on the same side.
    fn eq(&self, other: &Self) -> bool {
        self.is_client_side() == other.is_client_side() && self.as_str() == other.as_str()
    }
}

impl Eq for TopicPattern {}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        let pattern = TopicPattern::client_side(pattern).unwrap();
        match pattern.matching() {
            Matching::Client(_, regex) => regex.is_match(name),
            Matching::Broker(_) => false,
        }
    }

    #[test]
    fn a_pattern_matches_whole_names() {
        assert!(matches("orders-.*", "orders-eu"));
        assert!(!matches("orders-.*", "old-orders-eu"));
        assert!(!matches("orders", "orders-eu"));
        // Not only the first alternative that fits.
        assert!(matches("a|ab", "ab"));
        assert!(!matches("a|ab", "abc"));
    }

    #[test]
    fn what_is_no_expression_by_itself_is_refused() {
        for bad in ["(", "a)(?:b", "[z-a]", "a{2,1}"] {
            let error = TopicPattern::client_side(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(bad), "{error}");
        }
    }
}
