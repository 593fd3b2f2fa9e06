//! What consumers of a classic group write into its messages, versions 0 to 3: Kafka's
//! `ConsumerProtocolSubscription` and `ConsumerProtocolAssignment`.
//!
//! Both begin with their version; each version adds fields at the end. What is newer than 3 is read
//! as 3, as in Java. Strings and lists have lengths of a fixed size. These bytes come from other
//! members of the group, which may be anybody: a length counts only as far as there are bytes for
//! it, and nothing is reserved by it. Fields that are missing at the end count as not told: there
//! are clients that write a version without all of its fields.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};

use super::assignor::{MemberAssignment, MemberSubscription};
use crate::types::TopicPartition;

/// What is written, as by Java's client of today.
const VERSION: i16 = 3;
const NO_GENERATION: i32 = -1;
/// No topic of Kafka has a longer name.
const LONGEST_STRING: usize = i16::MAX as usize;

/// The bytes that a member joins with.
pub(crate) fn encode_subscription(member: &MemberSubscription) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(VERSION);
    let topics = member.topics.iter().filter(|topic| fits(topic));
    put_list(&mut out, topics, |out, topic| put_string(out, topic));
    put_user_data(&mut out, member.user_data.as_ref());
    let mut owned = member.owned_partitions.clone();
    owned.sort_unstable();
    put_partitions(&mut out, &owned);
    out.put_i32(member.generation.unwrap_or(NO_GENERATION));
    match member.rack.as_deref().filter(|rack| fits(rack)) {
        Some(rack) => put_string(&mut out, rack),
        None => out.put_i16(-1),
    }
    out.freeze()
}

/// Reads what a member joined with. Its instance is not in it: the coordinator tells that.
pub(crate) fn decode_subscription(mut bytes: &[u8]) -> Result<MemberSubscription, TryGetError> {
    let mut member = MemberSubscription::default();
    let version = version(&mut bytes)?;
    for _ in 0..count(&mut bytes, 2)? {
        member.topics.insert(string(&mut bytes)?);
    }
    member.user_data = user_data(&mut bytes)?;
    if version >= 1 && bytes.has_remaining() {
        member.owned_partitions = partitions(&mut bytes)?;
    }
    if version >= 2 && bytes.has_remaining() {
        let generation = bytes.try_get_i32()?;
        member.generation = (generation > NO_GENERATION).then_some(generation);
    }
    if version >= 3 && bytes.has_remaining() {
        let rack = string(&mut bytes)?;
        member.rack = Some(rack).filter(|rack| !rack.is_empty());
    }
    Ok(member)
}

/// The bytes that the leader hands out to a member.
pub(crate) fn encode_assignment(assignment: &MemberAssignment) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(VERSION);
    put_partitions(&mut out, &assignment.partitions);
    put_user_data(&mut out, assignment.user_data.as_ref());
    out.freeze()
}

/// Reads what the leader handed out. No bytes at all are no partitions.
pub(crate) fn decode_assignment(mut bytes: &[u8]) -> Result<MemberAssignment, TryGetError> {
    if bytes.is_empty() {
        return Ok(MemberAssignment::default());
    }
    version(&mut bytes)?;
    let mut assignment = MemberAssignment::new(partitions(&mut bytes)?);
    assignment.user_data = user_data(&mut bytes)?;
    Ok(assignment)
}

fn fits(text: &str) -> bool {
    text.len() <= LONGEST_STRING
}

/// Of a text that [`fits`].
pub(super) fn put_string(out: &mut BytesMut, text: &str) {
    out.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
    out.put_slice(text.as_bytes());
}

pub(super) fn put_list<T>(
    out: &mut BytesMut,
    items: impl Iterator<Item = T>,
    mut put: impl FnMut(&mut BytesMut, T),
) {
    let place = out.len();
    out.put_i32(0);
    let mut count = 0_i32;
    for item in items {
        put(out, item);
        count += 1;
    }
    out[place..place + 4].copy_from_slice(&count.to_be_bytes());
}

fn put_user_data(out: &mut BytesMut, user_data: Option<&Bytes>) {
    match user_data {
        Some(data) => {
            out.put_i32(i32::try_from(data.len()).unwrap_or(i32::MAX));
            out.put_slice(data);
        }
        None => out.put_i32(-1),
    }
}

/// Each topic once, where it comes first; its partitions in their order.
pub(super) fn put_partitions(out: &mut BytesMut, partitions: &[TopicPartition]) {
    put_topics(out, &by_topic(partitions));
}

pub(super) type ByTopic<'a> = Vec<(&'a str, Vec<i32>)>;

/// Partitions by topics, in the order in which these come first.
pub(super) fn by_topic(partitions: &[TopicPartition]) -> ByTopic<'_> {
    let mut topics: indexmap::IndexMap<&str, Vec<i32>> = indexmap::IndexMap::new();
    for tp in partitions.iter().filter(|tp| fits(&tp.topic)) {
        topics.entry(&tp.topic).or_default().push(tp.partition);
    }
    topics.into_iter().collect()
}

pub(super) fn put_topics(out: &mut BytesMut, topics: &ByTopic<'_>) {
    put_list(out, topics.iter(), |out, (topic, partitions)| {
        put_string(out, topic);
        put_list(out, partitions.iter(), |out, number| out.put_i32(*number));
    });
}

fn version(bytes: &mut &[u8]) -> Result<i16, TryGetError> {
    bytes.try_get_i16()
}

/// The number of elements of a list, each of which takes at least so many bytes.
fn count(bytes: &mut &[u8], size: usize) -> Result<usize, TryGetError> {
    // A negative count stands for no list.
    let count = usize::try_from(bytes.try_get_i32()?).unwrap_or(0);
    let needed = count.saturating_mul(size);
    if needed > bytes.len() {
        return Err(missing(bytes, needed));
    }
    Ok(count)
}

fn missing(bytes: &[u8], requested: usize) -> TryGetError {
    TryGetError {
        requested,
        available: bytes.len(),
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], TryGetError> {
    let split = bytes.split_at_checked(length);
    let (taken, rest) = split.ok_or_else(|| missing(bytes, length))?;
    *bytes = rest;
    Ok(taken)
}

/// None at all is read as an empty one.
fn string(bytes: &mut &[u8]) -> Result<Arc<str>, TryGetError> {
    let length = usize::try_from(bytes.try_get_i16()?).unwrap_or(0);
    Ok(String::from_utf8_lossy(take(bytes, length)?).into())
}

fn user_data(bytes: &mut &[u8]) -> Result<Option<Bytes>, TryGetError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let Ok(length) = usize::try_from(bytes.try_get_i32()?) else {
        return Ok(None);
    };
    Ok(Some(Bytes::copy_from_slice(take(bytes, length)?)))
}

/// A list of topics with their partitions.
pub(super) fn partitions(bytes: &mut &[u8]) -> Result<Vec<TopicPartition>, TryGetError> {
    let mut partitions = Vec::new();
    for _ in 0..count(bytes, 6)? {
        let topic = string(bytes)?;
        for _ in 0..count(bytes, 4)? {
            let number = bytes.try_get_i32()?;
            partitions.push(TopicPartition::new(Arc::clone(&topic), number));
        }
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests;
