//! The bytes that members of the protocol type `consumer` put into the classic group protocol
//! (`ConsumerProtocolAssignment.json`). They come from other clients: whatever they claim, nothing
//! is reserved for it.

use bytes::Buf;

use crate::types::TopicPartition;

/// The partitions in an assignment; None if it is none.
pub(super) fn assigned(mut bytes: &[u8]) -> Option<Vec<TopicPartition>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let _version = bytes.try_get_i16().ok()?;
    let mut found = Vec::new();
    for _ in 0..bytes.try_get_i32().ok()? {
        let topic = text(&mut bytes)?;
        for _ in 0..bytes.try_get_i32().ok()? {
            found.push(TopicPartition::new(topic, bytes.try_get_i32().ok()?));
        }
    }
    Some(found)
}

fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}
