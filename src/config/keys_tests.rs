use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::*;
use crate::config::unavailable::{UNAVAILABLE, reason};

/// `role;name;type;default;validator` of ProducerConfig, ConsumerConfig and AdminClientConfig in
/// kafka-clients 4.4.0 without the internal ones and those of TLS and SASL, printed from their
/// `ConfigDef`s.
const KAFKA: &str = include_str!("kafka_settings.txt");

/// Where the default is not Java's, and why.
const OTHER_DEFAULTS: &[(&str, &str)] = &[
    ("enable.metrics.push", "not available"),
    (
        "group.protocol",
        "what the coordinator offers is found out, so that both protocols go without a setting",
    ),
    (
        "partition.assignment.strategy",
        "the same assignors as Java's, by their short names",
    ),
    (
        "receive.buffer.bytes",
        "the operating system sizes it to the connection",
    ),
    (
        "send.buffer.bytes",
        "the operating system sizes it to the connection",
    ),
];

/// Where another range than Java's is enforced, and why.
const OTHER_RANGES: &[(&str, &str)] = &[
    ("auto.commit.interval.ms", "0 would commit without pause"),
    ("fetch.max.bytes", "0 would fetch a batch at a time"),
    (
        "max.partition.fetch.bytes",
        "0 would fetch a batch at a time",
    ),
    ("buffer.memory", "0 would let no record in"),
    (
        "transaction.timeout.ms",
        "Java takes any number; brokers refuse 0 and less",
    ),
    (
        "connections.max.idle.ms",
        "Java takes any number; 0 would close every connection at once",
    ),
    (
        "heartbeat.interval.ms",
        "Java takes any number; 0 would send heartbeats without pause",
    ),
    (
        "session.timeout.ms",
        "Java takes any number; 0 would throw every member out at once",
    ),
    ("max.request.size", "0 would let no record out"),
    ("request.timeout.ms", "0 would let no request be answered"),
    (
        "socket.connection.setup.timeout.max.ms",
        "Java takes any number; 0 lets no connection be made",
    ),
    (
        "socket.connection.setup.timeout.ms",
        "Java takes any number; 0 lets no connection be made",
    ),
];

struct Kafka {
    role: &'static str,
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    validator: &'static str,
}

fn kafka() -> impl Iterator<Item = Kafka> {
    KAFKA.lines().map(|line| {
        let fields: Vec<&str> = line.splitn(5, ';').collect();
        let (role, name, default) = (fields[0], fields[1], fields[3]);
        let default = if ["null", "[]", "REQUIRED"].contains(&default) {
            ""
        } else {
            default
        };
        Kafka {
            role,
            name,
            kind: fields[2],
            default,
            validator: fields[4],
        }
    })
}

#[test]
fn every_setting_of_kafka_is_honoured_or_explained() {
    for setting in kafka() {
        let name = setting.name;
        assert!(
            Key::find(name).is_some() != reason(name).is_some(),
            "{name} must be in exactly one of the two tables"
        );
    }
    let names: BTreeSet<&str> = kafka().map(|setting| setting.name).collect();
    for key in KEYS {
        assert!(
            names.contains(key.name),
            "{} is not a setting of Kafka's",
            key.name
        );
    }
}

#[test]
fn defaults_are_javas_but_for_a_list() {
    for setting in kafka() {
        // An admin client has its own default for some; here it uses the connections of its client.
        if let (Some(key), true) = (Key::find(setting.name), setting.role != "A") {
            let differs = OTHER_DEFAULTS.iter().any(|(name, _)| *name == key.name);
            assert_eq!(key.default != setting.default, differs, "{}", key.name);
        }
    }
}

#[test]
fn ranges_are_javas_but_for_a_list() {
    for setting in kafka() {
        let Some(key) = Key::find(setting.name) else {
            continue;
        };
        let range = match &key.field {
            Field::Millis(range, _)
            | Field::MillisOrNever(range, _)
            | Field::Size(range, _)
            | Field::Count(range, _)
            | Field::Int(range, _) => *range,
            Field::SizeOrSystem(_) => Range(-1, i64::from(i32::MAX)),
            _ => continue,
        };
        let java = setting
            .validator
            .trim_matches(['[', ']'])
            .replace("...", "");
        let (min, max) = java.split_once(',').unwrap_or(("", ""));
        let min = min.parse::<i64>().ok();
        let max = max.trim_start_matches(',').parse().ok();
        let widest = if setting.kind == "INT" {
            i64::from(i32::MAX)
        } else {
            i64::MAX
        };
        let agrees = min == Some(range.0) && max.unwrap_or(widest) == range.1;
        let differs = OTHER_RANGES.iter().any(|(name, _)| *name == key.name);
        assert_eq!(!agrees, differs, "{}: {}", key.name, setting.validator);
    }
}

#[test]
fn the_table_says_what_the_structs_have() {
    let defaults = Settings::default();
    let mut seen = BTreeSet::new();
    for key in KEYS {
        assert!(seen.insert(key.name), "{} is in the table twice", key.name);
        assert_eq!(key.show(&defaults), key.default, "{}", key.name);
        let mut settings = Settings::default();
        let optional = matches!(key.field, Field::Named(_)) || key.name == "bootstrap.servers";
        if !optional {
            key.set(&mut settings, key.default)
                .unwrap_or_else(|error| panic!("{}: {error}", key.name));
        }
        assert_eq!(key.show(&settings), key.default, "{}", key.name);
        assert!(key.doc.ends_with('.') && key.doc.len() > 20, "{}", key.name);
    }
}

#[test]
fn each_row_sets_what_it_shows_and_nothing_else() {
    for key in KEYS {
        let value = match &key.field {
            Field::Millis(..)
            | Field::MillisOrNever(..)
            | Field::Size(..)
            | Field::SizeOrSystem(_) => "54321",
            Field::Count(..) => "17",
            Field::Int(..) => "19",
            Field::Flag(_) if key.default == "true" => "false",
            Field::Flag(_) => "true",
            Field::Text(_) | Field::Named(_) => "something",
            Field::Choice { .. } => match key.name {
                "bootstrap.servers" => "there:1",
                "client.id" => "someone",
                "metadata.recovery.strategy" => "none",
                "acks" => "1",
                "compression.gzip.level" => "2",
                "compression.type" => "gzip",
                "enable.idempotence" => "false",
                "auto.offset.reset" => "by_duration:PT90S",
                "isolation.level" => "read_committed",
                _ => key.default,
            },
        };
        let mut settings = Settings::default();
        settings.set(key.name, value).unwrap();
        for other in KEYS {
            let expected = if other.name == key.name {
                value
            } else {
                other.default
            };
            assert_eq!(
                other.show(&settings),
                expected,
                "{} after {}={value}",
                other.name,
                key.name
            );
        }
    }
}

/// The reference that users read is this table: set `OTTLA_WRITE_REFERENCE=1` to write it anew.
#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/REFERENCE.md");
    let expected = reference();
    if std::env::var_os("OTTLA_WRITE_REFERENCE").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "src/config/REFERENCE.md is not what the table says; run the tests once with OTTLA_WRITE_REFERENCE=1"
    );
}

fn reference() -> String {
    let mut text = "\
The settings of a client, by Kafka's names. Times are in milliseconds, sizes in bytes. Where the default\n\
is not that of Kafka's Java client, Java's is named.\n"
        .to_owned();
    for (role, title) in [
        (Role::Common, "Every client"),
        (Role::Producer, "Producers"),
        (Role::Consumer, "Consumers"),
    ] {
        let head = "| setting | default | allowed | meaning |\n|---|---|---|---|\n";
        write!(text, "\n## {title}\n\n{head}").unwrap();
        for key in KEYS.iter().filter(|key| key.role == role) {
            let default = match key.default {
                "" => "not set".to_owned(),
                default => format!("`{default}`"),
            };
            let java = OTHER_DEFAULTS
                .iter()
                .find(|(name, _)| *name == key.name)
                .map(|_| java_default(key.name))
                .unwrap_or_default();
            let (name, doc) = (key.name, key.doc);
            writeln!(
                text,
                "| `{name}` | {default}{java} | {} | {doc} |",
                key.allowed()
            )
            .unwrap();
        }
    }
    let head = "| setting | what to do |\n|---|---|\n";
    write!(
        text,
        "\n## Settings of Kafka's that are not available\n\nThey are refused, because a setting without effect is a trap.\n\n{head}"
    )
    .unwrap();
    for (name, reason) in UNAVAILABLE {
        let more = if name.ends_with('.') { "*" } else { "" };
        writeln!(text, "| `{name}{more}` | {reason} |").unwrap();
    }
    text
}

fn java_default(name: &str) -> String {
    let defaults: BTreeSet<&str> = kafka()
        .filter(|setting| setting.name == name && setting.role != "A")
        .map(|setting| setting.default)
        .collect();
    let defaults: Vec<&str> = defaults.into_iter().collect();
    format!(" (Java: `{}`)", defaults.join("`, `"))
}
