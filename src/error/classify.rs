//! The one table from a wire code to its meaning.

use std::fmt;

use super::{Class, ErrorKind};

/// What a wire code means and what the client must refresh because of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meaning {
    pub(crate) kind: ErrorKind,
    pub(crate) class: Class,
    pub(crate) refresh: Refresh,
    pub(crate) advice: &'static str,
}

/// Which cached knowledge an error disproves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refresh {
    Nothing,
    Metadata,
    Coordinator,
    Rebootstrap,
}

/// An error code as a broker reports it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BrokerCode(i16);

impl BrokerCode {
    pub(crate) fn new(code: i16) -> Self {
        Self(code)
    }

    /// The number on the wire.
    #[must_use]
    pub fn get(self) -> i16 {
        self.0
    }
}

impl fmt::Display for BrokerCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {}", self.0)
    }
}

impl fmt::Debug for BrokerCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The meaning of a code; codes that this client does not know are retriable broker errors of unknown effect.
pub(crate) fn classify(code: i16) -> Meaning {
    let _ = code;
    todo!()
}

impl Meaning {
    pub(crate) fn is_retriable(&self) -> bool {
        self.class == Class::Retriable
    }
}
