//! Refusals that count when they come again.

use super::{Error, ErrorKind};

/// The codes that brokers sent last, of questions that may be asked as often as one likes. Codes stand outside of every
/// checksum, so what would end a call for good is asked once more.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    last: Option<i16>,
}

impl Refusals {
    /// Whether an error that is not retriable is to be told: it came twice in a row, or it is this client's own finding.
    pub(crate) fn believe(&mut self, error: &Error) -> bool {
        match error.code() {
            Some(code) => self.last.replace(code.get()) == Some(code.get()),
            None => error.kind() != ErrorKind::Protocol || self.last.replace(0) == Some(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_twice_is_believed() {
        let mut refusals = Refusals::default();
        let coded = |code| Error::from_code(code, "asking");
        assert!(!refusals.believe(&coded(29)));
        assert!(!refusals.believe(&coded(30)), "another one");
        assert!(refusals.believe(&coded(30)));
        assert!(!refusals.believe(&Error::new(ErrorKind::Protocol, "damaged")));
        assert!(refusals.believe(&Error::new(ErrorKind::Closed, "closed")));
    }
}
