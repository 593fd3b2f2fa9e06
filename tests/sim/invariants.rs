//! What must be true at the end, whatever went wrong.

use std::collections::{BTreeMap, BTreeSet};

use ottla::OwnedRecord;

use crate::members::text_of;
use crate::world::{Fate, TOPIC, World};

type Logs = BTreeMap<i32, Vec<OwnedRecord>>;

pub(crate) fn check(world: &World) {
    let logs: Logs = world
        .ends()
        .into_iter()
        .map(|(partition, _)| (partition, world.mock.records(TOPIC, partition)))
        .collect();
    logged(world, &logs);
    producers(world, &logs);
    for group in world.groups() {
        consumers(world, group, &logs);
    }
}

fn value_of(record: &OwnedRecord) -> String {
    String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned()
}

/// Producer and serial number, at the front of each value and of fixed width.
fn stem_of(value: &str) -> &str {
    value.rsplit_once('-').map_or(value, |(stem, _)| stem)
}

/// Key and headers, order, duplicates.
fn logged(world: &World, logs: &Logs) {
    let mut places: BTreeMap<String, (i32, i64)> = BTreeMap::new();
    for (partition, log) in logs {
        let mut last: BTreeMap<String, String> = BTreeMap::new();
        for record in log {
            let value = value_of(record);
            let place = (*partition, record.offset());
            let stem = stem_of(&value);
            let fits = |bytes: Option<&[u8]>| bytes.is_none_or(|bytes| bytes == stem.as_bytes());
            let header = record.headers().next().and_then(|header| header.value());
            if !fits(record.key()) || !fits(header) {
                world.violation(format!("content: {value} at {place:?} is {record:?}"));
            }
            if !value.starts_with('i') {
                continue;
            }
            let (producer, serial) = stem.split_once('-').unwrap_or((stem, ""));
            let before = last.insert(producer.to_owned(), serial.to_owned());
            if let Some(before) = before.filter(|before| before.as_str() > serial) {
                world.violation(format!("order: at {place:?}: {serial} after {before}"));
            }
            if let Some(other) = places.insert(value.clone(), place) {
                world.violation(format!("twice: {value} is at {other:?} and {place:?}"));
            }
        }
    }
}

/// What producers were told is so.
fn producers(world: &World, logs: &Logs) {
    let mut there: BTreeSet<(String, i32, i64)> = BTreeSet::new();
    let mut values: BTreeSet<String> = BTreeSet::new();
    for (partition, record) in logs
        .iter()
        .flat_map(|(p, log)| log.iter().map(move |r| (p, r)))
    {
        there.insert((value_of(record), *partition, record.offset()));
        values.insert(value_of(record));
    }
    let mut violations = Vec::new();
    for (value, fate) in &world.notes().sent {
        match fate {
            Fate::Acknowledged(partition, Some(offset)) => {
                if !there.contains(&(value.clone(), *partition, *offset)) {
                    let at = format!("was acknowledged at {partition}@{offset} and is not there");
                    violations.push(format!("lost: {value} {at}"));
                }
            }
            Fate::Acknowledged(partition, None) => {
                if !values.contains(value) {
                    violations.push(format!("lost: {value}, acknowledged at {partition}"));
                }
            }
            Fate::NotSent(error) if values.contains(value) => {
                violations.push(format!("certainty: {value} was not sent, and is: {error}"));
            }
            Fate::NotSent(_) | Fate::MaybeWritten(_) => {}
        }
    }
    violations
        .into_iter()
        .for_each(|what| world.violation(what));
}

/// What was handed out is what the log has.
fn consumers(world: &World, group: &'static str, logs: &Logs) {
    let mut violations = Vec::new();
    for (partition, offset, text) in &world.notes().group(group).seen {
        let log = logs
            .get(partition)
            .and_then(|log| log.get(*offset as usize));
        let there = log.map(text_of);
        if there.as_ref() != Some(text) {
            violations.push(format!(
                "content: {partition}@{offset} was read as {text}, and is {there:?}"
            ));
        }
    }
    violations
        .into_iter()
        .for_each(|what| world.violation(what));
    commits(world, group);
}

/// What is committed was handed out, and an application has finished it.
pub(crate) fn commits(world: &World, group: &'static str) {
    for (partition, _) in world.ends() {
        let end = world.committed(group, partition).unwrap_or(0);
        let mut notes = world.notes();
        let finished = &notes.group(group).finished;
        let first =
            |wanted| (0..end).find(|offset| finished.get(&(partition, *offset)).copied() == wanted);
        let (not_read, not_finished) = (first(None), first(Some(false)));
        drop(notes);
        if let Some(offset) = not_read {
            world.violation(format!(
                "at least once: {partition}@{offset} is committed up to {end} and was not read"
            ));
        }
        if let Some(offset) = not_finished {
            world.violation(format!(
                "finished: {partition}@{offset} is committed up to {end} and nobody has finished it"
            ));
        }
    }
}
