use crate::{Error, Result};

/// Which patch release stands for a version; the scripts that build the images read it too.
const VERSIONS: &str = include_str!("../image/versions.txt");
/// The environment variable that chooses the version of clusters that do not name one.
const VARIABLE: &str = "OTTLA_KAFKA_VERSION";
const DEFAULT: &str = "4.3";

/// A Kafka version. Versions compare in their order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KafkaVersion([u16; 3]);

impl KafkaVersion {
    /// The version meant by `4.3` (its newest usable patch release) or `4.3.1` (exactly that).
    ///
    /// # Errors
    /// [`Error::UnknownVersion`] for anything else.
    pub fn new(version: &str) -> Result<Self> {
        let unknown = || Error::UnknownVersion(version.to_owned());
        let exact = table()
            .find(|(short, _)| *short == version)
            .map_or(version, |(_, patch)| patch);
        let numbers: Vec<u16> = exact
            .split('.')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| unknown())?;
        numbers.try_into().map(Self).map_err(|_| unknown())
    }

    /// The version named by the environment variable `OTTLA_KAFKA_VERSION`, else 4.3.
    ///
    /// # Errors
    /// [`Error::UnknownVersion`] if the variable holds no version.
    pub fn from_env() -> Result<Self> {
        Self::new(std::env::var(VARIABLE).as_deref().unwrap_or(DEFAULT))
    }

    /// Whether this version is `major.minor` or a later one.
    #[must_use]
    pub fn is_at_least(&self, major: u16, minor: u16) -> bool {
        (self.0[0], self.0[1]) >= (major, minor)
    }
}

impl std::fmt::Display for KafkaVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

fn table() -> impl Iterator<Item = (&'static str, &'static str)> {
    VERSIONS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
}

pub(crate) fn known() -> String {
    table()
        .map(|(short, _)| short)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_versions_stand_for_a_patch_release() {
        assert_eq!(KafkaVersion::new("3.9").unwrap().to_string(), "3.9.2");
        assert_eq!(KafkaVersion::new("4.0.1").unwrap().to_string(), "4.0.1");
        assert!(KafkaVersion::new("3.9").unwrap() < KafkaVersion::new("4.0").unwrap());
        assert!(KafkaVersion::new("4.3").unwrap().is_at_least(4, 3));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["", "4", "2.8", "four", "4.3.1.0"] {
            assert!(KafkaVersion::new(bad).is_err(), "{bad}");
        }
    }
}
