//! The configurations of topics: names, types, defaults.

pub(super) const BOOLEAN: i8 = 1;
pub(super) const STRING: i8 = 2;
pub(super) const INT: i8 = 3;
pub(super) const LONG: i8 = 5;
pub(super) const DOUBLE: i8 = 6;
pub(super) const LIST: i8 = 7;

/// Name, type and default of every topic configuration of Kafka 4.
pub(super) const TOPIC: &[(&str, i8, &str)] = &[
    ("cleanup.policy", LIST, "delete"),
    ("compression.gzip.level", INT, "-1"),
    ("compression.lz4.level", INT, "9"),
    ("compression.type", STRING, "producer"),
    ("compression.zstd.level", INT, "3"),
    ("delete.retention.ms", LONG, "86400000"),
    ("file.delete.delay.ms", LONG, "60000"),
    ("flush.messages", LONG, "9223372036854775807"),
    ("flush.ms", LONG, "9223372036854775807"),
    ("follower.replication.throttled.replicas", LIST, ""),
    ("index.interval.bytes", INT, "4096"),
    ("leader.replication.throttled.replicas", LIST, ""),
    ("local.retention.bytes", LONG, "-2"),
    ("local.retention.ms", LONG, "-2"),
    ("max.compaction.lag.ms", LONG, "9223372036854775807"),
    ("max.message.bytes", INT, "1048588"),
    ("message.timestamp.after.max.ms", LONG, "3600000"),
    (
        "message.timestamp.before.max.ms",
        LONG,
        "9223372036854775807",
    ),
    ("message.timestamp.type", STRING, "CreateTime"),
    ("min.cleanable.dirty.ratio", DOUBLE, "0.5"),
    ("min.compaction.lag.ms", LONG, "0"),
    ("min.insync.replicas", INT, "1"),
    ("preallocate", BOOLEAN, "false"),
    ("remote.log.copy.disable", BOOLEAN, "false"),
    ("remote.log.delete.on.disable", BOOLEAN, "false"),
    ("remote.storage.enable", BOOLEAN, "false"),
    ("retention.bytes", LONG, "-1"),
    ("retention.ms", LONG, "604800000"),
    ("segment.bytes", INT, "1073741824"),
    ("segment.index.bytes", INT, "10485760"),
    ("segment.jitter.ms", LONG, "0"),
    ("segment.ms", LONG, "604800000"),
    ("unclean.leader.election.enable", BOOLEAN, "false"),
];

/// Kafka's default of a topic configuration; empty for names that it does not have.
pub(super) fn default_of(name: &str) -> &'static str {
    row(name).map_or("", |row| row.2)
}

fn row(name: &str) -> Option<&'static (&'static str, i8, &'static str)> {
    TOPIC.iter().find(|row| row.0 == name)
}

/// Whether the configuration is a list, to which values can be added.
pub(super) fn is_list(name: &str) -> bool {
    row(name).is_some_and(|row| row.1 == LIST)
}

/// Whether Kafka has this configuration and takes this value for it.
pub(super) fn check(name: &str, value: &str) -> Result<(), String> {
    let Some((_, kind, _)) = row(name) else {
        return Err(format!("Unknown topic config name: {name}"));
    };
    let number = |what: &str| {
        format!("Invalid value {value} for configuration {name}: Not a number of type {what}")
    };
    match *kind {
        BOOLEAN if !matches!(value, "true" | "false") => Err(format!(
            "Invalid value {value} for configuration {name}: Expected value to be either true or false"
        )),
        INT if value.trim().parse::<i32>().is_err() => Err(number("INT")),
        LONG if value.trim().parse::<i64>().is_err() => Err(number("LONG")),
        DOUBLE if value.trim().parse::<f64>().is_err() => Err(number("DOUBLE")),
        _ => match (name, value) {
            ("cleanup.policy", "delete" | "compact" | "delete,compact" | "compact,delete" | "")
            | ("message.timestamp.type", "CreateTime")
            | (
                "compression.type",
                "uncompressed" | "zstd" | "lz4" | "snappy" | "gzip" | "producer",
            ) => Ok(()),
            ("cleanup.policy" | "message.timestamp.type" | "compression.type", _) => {
                Err(format!("Invalid value {value} for configuration {name}"))
            }
            _ => Ok(()),
        },
    }
}
