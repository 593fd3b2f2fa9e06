//! Checks what the events of verifiable producers and consumers promise, whoever printed them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// A partition by its number: each test has one topic.
type Partition = i64;

pub(crate) fn name(event: &Value) -> &str {
    event["name"].as_str().unwrap_or_default()
}

pub(crate) fn named<'a>(events: &'a [Value], wanted: &'a str) -> impl Iterator<Item = &'a Value> {
    events.iter().filter(move |event| name(event) == wanted)
}

pub(crate) fn integer(value: &Value) -> i64 {
    value
        .as_i64()
        .unwrap_or_else(|| panic!("{value} is not an integer"))
}

fn list(value: &Value) -> &[Value] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("{value} is not a list"))
}

fn partitions(event: &Value) -> Vec<Partition> {
    list(&event["partitions"])
        .iter()
        .map(|at| integer(&at["partition"]))
        .collect()
}

/// Of a verifiable producer: what was acknowledged, by value, with partition and offset.
pub(crate) fn producer(events: &[Value]) -> BTreeMap<String, (Partition, i64)> {
    assert_eq!(name(&events[0]), "startup_complete");
    let (shutdown, tool_data) = (&events[events.len() - 2], &events[events.len() - 1]);
    assert_eq!(
        (name(shutdown), name(tool_data)),
        ("shutdown_complete", "tool_data")
    );
    let mut fates = BTreeSet::new();
    let mut acked = BTreeMap::new();
    let mut last: BTreeMap<Partition, i64> = BTreeMap::new();
    for event in &events[1..events.len() - 2] {
        let value = event["value"].as_str().expect("a value").to_owned();
        assert!(fates.insert(value.clone()), "two fates of {value}");
        match name(event) {
            "producer_send_success" => {
                let (partition, offset) = (integer(&event["partition"]), integer(&event["offset"]));
                let before = last.insert(partition, offset);
                assert!(
                    before < Some(offset) || offset == -1,
                    "{before:?} before {event}"
                );
                acked.insert(value, (partition, offset));
            }
            "producer_send_error" => {
                assert!(
                    event["exception"].is_string() && event["message"].is_string(),
                    "{event}"
                );
            }
            _ => panic!("unexpected: {event}"),
        }
    }
    assert_eq!(integer(&tool_data["sent"]), fates.len() as i64);
    assert_eq!(integer(&tool_data["acked"]), acked.len() as i64);
    assert!(tool_data["avg_throughput"].is_number());
    acked
}

/// Of a verifiable consumer: the offsets consumed, in order of their consumption, by partition.
pub(crate) fn consumer(events: &[Value]) -> BTreeMap<Partition, Vec<i64>> {
    let mut owned = BTreeSet::new();
    let mut positions: BTreeMap<Partition, i64> = BTreeMap::new();
    let mut reported: BTreeMap<Partition, i64> = BTreeMap::new();
    let mut consumed: BTreeMap<Partition, Vec<i64>> = BTreeMap::new();
    assert_eq!(name(&events[0]), "startup_complete");
    for event in &events[1..] {
        assert!(event["timestamp"].is_i64(), "{event}");
        match name(event) {
            "partitions_assigned" => {
                for partition in partitions(event) {
                    assert!(owned.insert(partition), "owned already: {event}");
                    positions.remove(&partition);
                }
            }
            "partitions_revoked" => {
                for partition in partitions(event) {
                    assert!(owned.remove(&partition), "not owned: {event}");
                }
            }
            "records_consumed" => {
                let mut sum = 0;
                for part in list(&event["partitions"]) {
                    let partition = integer(&part["partition"]);
                    let (min, max) = (integer(&part["minOffset"]), integer(&part["maxOffset"]));
                    let count = integer(&part["count"]);
                    assert!(owned.contains(&partition), "not owned: {event}");
                    let next = positions.insert(partition, max + 1);
                    assert!(
                        next.is_none_or(|next| next == min),
                        "{next:?} was next: {event}"
                    );
                    assert_eq!(max - min + 1, count, "{event}");
                    let furthest = reported.entry(partition).or_default();
                    *furthest = (*furthest).max(max + 1);
                    consumed.entry(partition).or_default().extend(min..=max);
                    sum += count;
                }
                assert!(integer(&event["count"]) >= sum, "{event}");
            }
            "offsets_committed" => {
                for at in list(&event["offsets"]) {
                    let furthest = reported.get(&integer(&at["partition"]));
                    assert!(
                        furthest >= Some(&integer(&at["offset"])),
                        "beyond {furthest:?}: {event}"
                    );
                }
                let success = event["success"].as_bool().expect("success");
                assert_eq!(event["error"].is_string(), !success, "{event}");
            }
            "record_data" | "shutdown_requested" | "shutdown_complete" => {}
            _ => panic!("unexpected: {event}"),
        }
    }
    consumed
}

/// Of a consumer that ended in order.
pub(crate) fn ended(events: &[Value]) {
    let last = events
        .iter()
        .rev()
        .find(|event| name(event) != "shutdown_requested");
    assert_eq!(last.map(name), Some("shutdown_complete"));
    let given: usize = named(events, "partitions_assigned")
        .map(|event| partitions(event).len())
        .sum();
    let taken: usize = named(events, "partitions_revoked")
        .map(|event| partitions(event).len())
        .sum();
    assert_eq!(given, taken, "everything given was taken back");
}

/// Of all members of a group: no partition has two owners at a time, by the events' own clock.
pub(crate) fn group(members: &[&[Value]]) {
    let mut spans: BTreeMap<Partition, Vec<(i64, i64)>> = BTreeMap::new();
    for events in members {
        let mut since = BTreeMap::new();
        for event in *events {
            let time = integer(&event["timestamp"]);
            match name(event) {
                "partitions_assigned" => {
                    since.extend(partitions(event).into_iter().map(|at| (at, time)))
                }
                "partitions_revoked" => {
                    for partition in partitions(event) {
                        if let Some(start) = since.remove(&partition) {
                            spans.entry(partition).or_default().push((start, time));
                        }
                    }
                }
                _ => {}
            }
        }
        for (partition, start) in since {
            spans.entry(partition).or_default().push((start, i64::MAX));
        }
    }
    for (partition, mut spans) in spans {
        spans.sort_unstable();
        for pair in spans.windows(2) {
            assert!(
                pair[0].1 <= pair[1].0,
                "partition {partition} had two owners: {pair:?}"
            );
        }
    }
}

/// How many partitions a member owns after these events.
pub(crate) fn owned(events: &[Value]) -> usize {
    let count = |what| {
        named(events, what)
            .map(|event| partitions(event).len())
            .sum::<usize>()
    };
    count("partitions_assigned") - count("partitions_revoked")
}

/// How many records a member has consumed.
pub(crate) fn consumed(events: &[Value]) -> i64 {
    let parts = named(events, "records_consumed").flat_map(|event| list(&event["partitions"]));
    parts.map(|part| integer(&part["count"])).sum()
}

/// The fields of each event and their types.
pub(crate) fn shape(events: &[Value]) -> BTreeMap<String, BTreeSet<String>> {
    let mut shapes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for event in events {
        fields("", event, shapes.entry(name(event).to_owned()).or_default());
    }
    shapes
}

fn fields(path: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields_) => {
            for (name, value) in fields_ {
                fields(&format!("{path}.{name}"), value, found);
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| fields(&format!("{path}[]"), item, found)),
        Value::String(_) => _ = found.insert(format!("{path}: string")),
        Value::Bool(_) => _ = found.insert(format!("{path}: bool")),
        Value::Null => _ = found.insert(format!("{path}: null")),
        Value::Number(number) if number.is_f64() => _ = found.insert(format!("{path}: number")),
        Value::Number(_) => _ = found.insert(format!("{path}: int")),
    }
}
