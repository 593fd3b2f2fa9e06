//! What must be true at the end, whatever went wrong.

use std::collections::{BTreeMap, BTreeSet};

use crate::world::{Fate, GROUP, TOPIC, World};

pub(crate) fn check(world: &World) {
    let logs: Vec<Vec<(i64, String)>> = (0..world.partitions)
        .map(|partition| {
            let records = world.mock.records(TOPIC, partition);
            let value = |record: &ottla::OwnedRecord| {
                String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned()
            };
            records
                .iter()
                .map(|record| (record.offset(), value(record)))
                .collect()
        })
        .collect();
    producers(world, &logs);
    consumers(world, &logs);
}

fn producers(world: &World, logs: &[Vec<(i64, String)>]) {
    let sent = std::mem::take(&mut world.notes.borrow_mut().sent);
    let mut places: BTreeMap<&str, Vec<(i32, i64)>> = BTreeMap::new();
    for (partition, log) in logs.iter().enumerate() {
        for (offset, value) in log {
            places
                .entry(value)
                .or_default()
                .push((partition as i32, *offset));
        }
        // Producer and serial number are at the front of each value, and of fixed width.
        let mut last: BTreeMap<&str, &str> = BTreeMap::new();
        for (offset, value) in log {
            let mut parts = value.split('-');
            let (producer, serial) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
            if let Some(before) = last.insert(producer, serial)
                && before > serial
            {
                world.violation(format!(
                    "order: {TOPIC}-{partition} offset {offset}: {serial} after {before}"
                ));
            }
        }
    }
    for (value, found) in &places {
        if found.len() > 1 {
            world.violation(format!("twice: {value} is at {found:?}"));
        }
    }
    for (partition, value, fate) in &sent {
        let place = places.get(value.as_str()).and_then(|found| found.first());
        match (fate, place) {
            (Fate::Acknowledged(offset), Some(found)) if *found == (*partition, *offset) => {}
            (Fate::Acknowledged(offset), found) => world.violation(format!(
                "lost: {value} was acknowledged at {partition}@{offset} and is at {found:?}"
            )),
            (Fate::NotSent(error), Some(found)) => {
                world.violation(format!(
                    "certainty: {value} is at {found:?}, but was not sent: {error}"
                ));
            }
            (Fate::NotSent(_), None) | (Fate::MaybeWritten(_), _) => {}
        }
    }
    world.notes.borrow_mut().sent = sent;
}

fn consumers(world: &World, logs: &[Vec<(i64, String)>]) {
    let seen = world.notes.borrow().seen.clone();
    let mut offsets: BTreeSet<(i32, i64)> = BTreeSet::new();
    for (partition, offset, value) in &seen {
        let there = logs[*partition as usize].get(*offset as usize);
        if there != Some(&(*offset, value.clone())) {
            world.violation(format!(
                "content: {partition}@{offset} was read as {value}, is {there:?}"
            ));
        }
        offsets.insert((*partition, *offset));
    }
    let committed = world
        .mock
        .group(GROUP)
        .map(|group| group.offsets)
        .unwrap_or_default();
    for (partition, end) in committed {
        for offset in 0..end {
            if !offsets.contains(&(partition.partition(), offset)) {
                world.violation(format!(
                    "at least once: {partition} offset {offset} is committed and was not read"
                ));
                break;
            }
        }
    }
}
