//! Texts of single values: addresses, numbers, flags, ISO-8601 durations.

use std::time::Duration;

/// A broker's address as `bootstrap.servers` has it: `host:port`, IPv6 addresses in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// Like Java, takes a listener prefix (`PLAINTEXT://`) as well.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let address = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("plaintext") => rest,
            Some((scheme, _)) => {
                return Err(format!(
                    "{text:?} asks for {scheme}, and only PLAINTEXT is available"
                ));
            }
        };
        let (host, port) = match address.strip_prefix('[') {
            Some(rest) => rest
                .split_once(']')
                .ok_or_else(|| format!("{text:?} has no closing bracket"))
                .map(|(host, port)| (host, port.strip_prefix(':')))?,
            None => match address.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => {
                    return Err(format!(
                        "{text:?}: an IPv6 address goes in brackets, as in [::1]:9092"
                    ));
                }
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            },
        };
        let port = port
            .filter(|port| !port.is_empty())
            .ok_or_else(|| format!("{text:?} has no port, write host:port as in localhost:9092"))?;
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(format!("{text:?} has no usable host name"));
        }
        let digits = port;
        match digits.parse() {
            Ok(port) if port > 0 && !digits.starts_with('+') => Ok(Self {
                host: host.to_owned(),
                port,
            }),
            _ => Err(format!("{text:?}: the port is a number from 1 to 65535")),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A comma-separated list of addresses; empty entries are skipped and repeated ones dropped.
pub(crate) fn addresses(text: &str) -> Result<Vec<String>, String> {
    let mut list = Vec::new();
    for entry in text.split(',').filter(|entry| !entry.trim().is_empty()) {
        let address = Address::parse(entry)?.to_string();
        if !list.contains(&address) {
            list.push(address);
        }
    }
    if list.is_empty() {
        return Err("no address given, write host:port[,host:port…]".to_owned());
    }
    Ok(list)
}

/// `true` or `false` in any case, as in Java.
pub(crate) fn flag(text: &str) -> Result<bool, String> {
    match text {
        text if text.eq_ignore_ascii_case("true") => Ok(true),
        text if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// A duration as `java.time.Duration` reads it (`PT1H30M`, `P2D`, `pt0.5s`), but never below zero.
pub(crate) fn iso_duration(text: &str) -> Result<Duration, String> {
    parse_iso(text).ok_or_else(|| {
        format!("{text:?} is not an ISO-8601 duration of days, hours, minutes and seconds, such as PT1H30M or P7D")
    })
}

fn parse_iso(text: &str) -> Option<Duration> {
    let text = text.to_ascii_uppercase();
    let (days, time) = match text.strip_prefix('P')?.split_once('T') {
        // A T promises at least one part of a time.
        Some((days, time)) if !time.is_empty() => (days, time),
        Some(_) => return None,
        None => (text.strip_prefix('P')?, ""),
    };
    if days.is_empty() && time.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    if !days.is_empty() {
        total = total.checked_add(whole(days.strip_suffix('D')?, 86_400)?)?;
    }
    let mut rest = time;
    for (unit, seconds) in [('H', 3_600), ('M', 60)] {
        if let Some((number, after)) = rest.split_once(unit) {
            total = total.checked_add(whole(number, seconds)?)?;
            rest = after;
        }
    }
    if !rest.is_empty() {
        let number = rest.strip_suffix('S')?.replace(',', ".");
        let (seconds, fraction) = number.split_once('.').unwrap_or((&number, ""));
        if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let nanos: u64 = format!("{fraction:0<9}").parse().ok()?;
        total = total
            .checked_add(whole(seconds, 1)?)?
            .checked_add(Duration::from_nanos(nanos))?;
    }
    Some(total)
}

fn whole(digits: &str, seconds: u64) -> Option<Duration> {
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for (text, host, port) in [
            ("localhost:9092", "localhost", 9092),
            (" b-1.example.org:1 ", "b-1.example.org", 1),
            ("[::1]:9092", "::1", 9092),
            ("127.0.0.1:65535", "127.0.0.1", 65535),
            ("PLAINTEXT://kafka:9092", "kafka", 9092),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port));
        }
        assert_eq!(
            Address::parse("[::1]:9092").unwrap().to_string(),
            "[::1]:9092"
        );
        for (text, why) in [
            ("localhost", "no port"),
            ("localhost:", "no port"),
            ("[::1]", "no port"),
            ("[::1:9092", "closing bracket"),
            ("::1:9092", "brackets"),
            (":9092", "host name"),
            ("a b:9092", "host name"),
            ("http://a:9092", "PLAINTEXT"),
            ("SSL://a:9093", "SSL"),
            ("a:0", "1 to 65535"),
            ("a:65536", "1 to 65535"),
            ("a:x", "1 to 65535"),
            ("a:+1", "1 to 65535"),
            ("[::1]x:9092", "no port"),
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_list_of_addresses_skips_blanks_and_repetitions() {
        assert_eq!(
            addresses("a:1, b:2,,a:1,").unwrap(),
            ["a:1".to_owned(), "b:2".to_owned()]
        );
        assert!(addresses(" , ").unwrap_err().contains("no address"));
        assert!(addresses("a:1,b").unwrap_err().contains("\"b\""));
    }

    #[test]
    fn durations_are_read_as_java_reads_them() {
        for (text, millis) in [
            ("PT1H30M", 5_400_000),
            ("P1D", 86_400_000),
            ("P1DT1S", 86_401_000),
            ("pt0.5s", 500),
            ("PT1,25S", 1_250),
            ("PT15M0.001S", 900_001),
            ("PT36H", 129_600_000),
            ("PT+3S", 3_000),
            ("PT0S", 0),
        ] {
            assert_eq!(
                iso_duration(text).unwrap(),
                Duration::from_millis(millis),
                "{text}"
            );
        }
        for text in [
            "",
            "P",
            "PT",
            "1H",
            "P1DT",
            "PT-1S",
            "-PT1S",
            "P1W",
            "P1M",
            "PT1M1H",
            "PT1",
            "PT1.5M",
            "PT1S ",
            "PT0.1234567890S",
            "PT99999999999999999999S",
            "P99999999999999999D",
        ] {
            assert!(iso_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn flags_are_true_or_false() {
        assert_eq!(flag("TRUE"), Ok(true));
        assert_eq!(flag("false"), Ok(false));
        assert!(flag("1").is_err() && flag("yes").is_err());
    }
}
