//! Settings by Kafka's names, as they stand in a `.properties` file.
//!
//! ```
//! use ottla::properties::{self, Support};
//!
//! let file = "
//!     # where the cluster is
//!     bootstrap.servers = localhost:9092
//!     linger.ms: 20
//!     colour = blue
//! ";
//! let mut settings = properties::parse(file)?;
//! settings.retain(|(name, _)| match properties::support(name) {
//!     Support::Available => true,
//!     other => {
//!         eprintln!("{name} is left out: {other}");
//!         false
//!     }
//! });
//! assert_eq!(settings.len(), 2);
//! assert_eq!(settings[1], ("linger.ms".to_owned(), "20".to_owned()));
//! # Ok::<(), ottla::Error>(())
//! ```
//!
//! What each setting means, and its default: [`config_reference`](crate::config_reference).

use std::fmt;

use super::Settings;
use super::keys::{KEYS, Key};
use super::unavailable::{UNAVAILABLE, reason};
use crate::error::{Error, ErrorKind, Result};

/// What this version of the client makes of a setting's name.
///
/// ```
/// use ottla::properties::{Support, support};
///
/// assert_eq!(support("linger.ms"), Support::Available);
/// assert!(matches!(support("key.serializer"), Support::Unavailable { .. }));
/// assert!(matches!(support("linger"), Support::Unknown { suggestion: Some("linger.ms"), .. }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Support {
    /// The setting is honoured.
    Available,
    /// Kafka's Java client has this setting and this client does not.
    #[non_exhaustive]
    Unavailable {
        /// Why, and what to do instead.
        reason: &'static str,
    },
    /// No setting of this name is known.
    #[non_exhaustive]
    Unknown {
        /// The name that was probably meant.
        suggestion: Option<&'static str>,
    },
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Available => f.write_str("available"),
            Self::Unavailable { reason } => write!(f, "not available: {reason}"),
            Self::Unknown { suggestion: None } => f.write_str("unknown setting"),
            Self::Unknown {
                suggestion: Some(name),
            } => write!(f, "unknown setting; did you mean {name}?"),
        }
    }
}

/// Whether this version of the client honours a setting.
///
/// Settings that it does not honour are refused when a client is made, because a setting without
/// effect is a trap. A program that reads files made for other clients can use this to leave those
/// out.
#[must_use]
pub fn support(name: &str) -> Support {
    if Key::find(name).is_some() {
        Support::Available
    } else if let Some(reason) = reason(name) {
        Support::Unavailable { reason }
    } else {
        Support::Unknown {
            suggestion: suggest(name),
        }
    }
}

impl Settings {
    /// Settings by Kafka's names; where a name comes twice, the last one counts.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for the first name that is unknown or not available and the first
    /// value that is not allowed. Whether settings fit together is checked when a client is made of
    /// them.
    pub(crate) fn from_properties<K: AsRef<str>, V: AsRef<str>>(
        properties: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self> {
        let mut settings = Self::default();
        for (name, value) in properties {
            settings.set(name.as_ref().trim(), value.as_ref())?;
        }
        Ok(settings)
    }

    /// Sets one setting by Kafka's name.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let Some(key) = Key::find(name) else {
            return Err(bad(name, support(name)));
        };
        key.set(self, value).map_err(|error| bad(name, error))?;
        self.apply_levels();
        Ok(())
    }

    /// Gives the codec its level, whichever of the two was set first.
    fn apply_levels(&mut self) {
        use crate::record::Codec;
        let compression = self.producer.compression;
        let level = match compression.codec() {
            Codec::Gzip => self.levels.gzip,
            Codec::Zstd => self.levels.zstd,
            _ => return,
        };
        // The rows of the levels have the codecs' own ranges, so no level is refused here.
        self.producer.compression = compression.with_level(level).unwrap_or(compression);
    }
}

pub(super) fn bad(name: &str, why: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Config, format!("{name}: {why}"))
}

/// Reads the text of a Java properties file: `key=value`, `key: value` or `key value` a line,
/// comments from `#` or `!`, lines continued by a backslash at their end, `\n`, `\t`, `\u00e9` and
/// the like.
///
/// Blanks around keys and values are dropped (Java keeps those after a value, which nobody wants).
/// Repeated keys are all returned, in order.
///
/// # Errors
///
/// [`ErrorKind::Config`] for a `\u` without four hexadecimal digits, with the number of the line.
///
/// ```
/// let settings = ottla::properties::parse("acks = all\nclient.id=caf\\u00e9 \\\n   au lait")?;
/// assert_eq!(settings[0], ("acks".to_owned(), "all".to_owned()));
/// assert_eq!(settings[1].1, "café au lait");
/// # Ok::<(), ottla::Error>(())
/// ```
pub fn parse(text: &str) -> Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    // A lone carriage return ends a line too.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines = text.split('\n').enumerate();
    while let Some((number, line)) = lines.next() {
        let line = line.trim_start_matches(BLANKS);
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = line.to_owned();
        while ends_in_backslash(&logical) {
            logical.pop();
            match lines.next() {
                Some((_, next)) => logical.push_str(next.trim_start_matches(BLANKS)),
                None => break,
            }
        }
        let (key, value) = split(&logical);
        let unescaped = |part| {
            unescape(part).ok_or_else(|| {
                let problem = "a \\u is followed by other than four hexadecimal digits";
                Error::new(ErrorKind::Config, format!("line {}: {problem}", number + 1))
            })
        };
        pairs.push((unescaped(key)?, unescaped(value)?));
    }
    Ok(pairs)
}

const BLANKS: [char; 3] = [' ', '\t', '\u{c}'];

/// An even number of backslashes is that many halves of escaped ones.
fn ends_in_backslash(line: &str) -> bool {
    line.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1
}

/// A key ends at the first blank, `=` or `:` without a backslash; one `=` or `:` among the blanks
/// after it is part of the separator.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|c| {
        let ends = !escaped && (BLANKS.contains(&c) || c == '=' || c == ':');
        escaped = c == '\\' && !escaped;
        ends
    });
    let (key, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start_matches(BLANKS);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    let value = rest.trim_start_matches(BLANKS);
    let trimmed = value.trim_end_matches(BLANKS);
    // A blank behind a backslash is meant.
    let keep =
        trimmed.len() + usize::from(ends_in_backslash(trimmed) && trimmed.len() < value.len());
    (key, value.get(..keep).unwrap_or(value))
}

fn unescape(text: &str) -> Option<String> {
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some('u') => {
                    // Characters beyond U+FFFF come as two of these, hence the units of UTF-16.
                    let digits: String = chars.by_ref().take(4).collect();
                    let all = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
                    units.push(u16::from_str_radix(&digits, 16).ok().filter(|_| all)?);
                    continue;
                }
                Some(other) => other,
                None => break,
            },
            c => c,
        };
        units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
    }
    Some(String::from_utf16_lossy(&units))
}

/// The setting that a wrong name most likely stands for: librdkafka's name for it, or one that is
/// spelled nearly so.
fn suggest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace(['_', '-'], ".");
    let known = || {
        let others = UNAVAILABLE.iter().map(|(name, _)| *name);
        KEYS.iter()
            .map(|key| key.name)
            .chain(others.filter(|name| !name.ends_with('.')))
    };
    KEYS.iter()
        .find(|key| key.elsewhere.contains(&name.as_str()))
        .map(|key| key.name)
        .or_else(|| {
            known()
                .map(|candidate| (distance(&name, candidate), candidate))
                .min()
                .filter(|(distance, _)| *distance <= 1 + name.len() / 8)
                .map(|(_, candidate)| candidate)
        })
        .or_else(|| {
            // A name without its unit or with a part more, such as `linger` or `session.timeout`.
            known()
                .filter(|candidate| {
                    let rest = candidate.strip_prefix(name.as_str());
                    name.len() >= 4 && rest.is_some_and(|rest| rest.starts_with('.'))
                })
                .min_by_key(|candidate| candidate.len())
        })
}

/// How many letters must be added, dropped or changed to make one text of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.bytes().enumerate() {
            let change = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
#[path = "properties_tests.rs"]
mod tests;
