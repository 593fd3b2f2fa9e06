//! The bytes that members of the protocol type `consumer` put into the classic group protocol
//! (`ConsumerProtocolSubscription.json`, `ConsumerProtocolAssignment.json`). They come from other
//! clients: whatever they claim, nothing is reserved for it.

use std::collections::BTreeSet;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::types::TopicPartition;

/// What a member says when it joins.
#[derive(Debug, PartialEq)]
pub(super) struct Subscription {
    pub(super) topics: Vec<String>,
    pub(super) owned: Vec<TopicPartition>,
    pub(super) rack: Option<String>,
}

/// The partitions in an assignment; None if it is none.
pub(super) fn assigned(mut bytes: &[u8]) -> Option<Vec<TopicPartition>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let _version = bytes.try_get_i16().ok()?;
    partitions(&mut bytes)
}

/// A subscription of any version, of which what is newer than version 3 is left out; None if it is
/// none.
pub(super) fn subscription(mut bytes: &[u8]) -> Option<Subscription> {
    let version = bytes.try_get_i16().ok()?;
    let mut topics = Vec::new();
    for _ in 0..bytes.try_get_i32().ok()? {
        topics.push(text(&mut bytes)??.to_owned());
    }
    let user_data = usize::try_from(bytes.try_get_i32().ok()?).unwrap_or(0);
    bytes = bytes.get(user_data..)?;
    let owned = match version {
        1.. => partitions(&mut bytes)?,
        _ => Vec::new(),
    };
    if version >= 2 {
        let _generation = bytes.try_get_i32().ok()?;
    }
    let rack = match version {
        3.. => text(&mut bytes)?.map(str::to_owned),
        _ => None,
    };
    (version >= 0).then_some(Subscription {
        topics,
        owned,
        rack,
    })
}

/// An assignment in the version of a subscription.
pub(super) fn assignment<'a>(
    subscription: &[u8],
    topics: impl Iterator<Item = (&'a str, &'a BTreeSet<i32>)>,
) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_slice(subscription.get(..2).unwrap_or(&[0, 0]));
    let topics: Vec<_> = topics.collect();
    bytes.put_i32(topics.len() as i32);
    for (topic, partitions) in topics {
        bytes.put_i16(topic.len() as i16);
        bytes.put_slice(topic.as_bytes());
        bytes.put_i32(partitions.len() as i32);
        for partition in partitions {
            bytes.put_i32(*partition);
        }
    }
    // No user data.
    bytes.put_i32(-1);
    bytes.freeze()
}

fn partitions(bytes: &mut &[u8]) -> Option<Vec<TopicPartition>> {
    let mut found = Vec::new();
    for _ in 0..bytes.try_get_i32().ok()? {
        let topic = text(bytes)??;
        for _ in 0..bytes.try_get_i32().ok()? {
            found.push(TopicPartition::new(topic, bytes.try_get_i32().ok()?));
        }
    }
    Some(found)
}

/// A text that may be null.
fn text<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a str>> {
    let length = bytes.try_get_i16().ok()?;
    if length < 0 {
        return Some(None);
    }
    let (text, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    std::str::from_utf8(text).ok().map(Some)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::ConsumerProtocolSubscription;
    use kafka_protocol::messages::consumer_protocol_subscription::TopicPartition as Owned;
    use kafka_protocol::protocol::{Encodable, StrBytes};

    use super::*;

    #[test]
    fn subscriptions_of_all_versions_are_read_and_parts_of_them_are_none() {
        let text = StrBytes::from_static_str;
        let owned = Owned::default()
            .with_topic(text("a").into())
            .with_partitions(vec![1, 2]);
        for version in 0..=3 {
            let mut said = ConsumerProtocolSubscription::default()
                .with_topics(vec![text("a"), text("b")])
                .with_user_data(Some(Bytes::from_static(b"own")));
            if version >= 1 {
                said.owned_partitions = vec![owned.clone()];
            }
            if version >= 3 {
                said.rack_id = Some(text("r"));
            }
            let mut bytes = BytesMut::new();
            bytes.put_i16(version);
            said.encode(&mut bytes, version).unwrap();
            let read = subscription(&bytes).unwrap();
            assert_eq!(read.topics, ["a", "b"]);
            let parts = [TopicPartition::new("a", 1), TopicPartition::new("a", 2)];
            assert_eq!(read.owned, if version >= 1 { &parts[..] } else { &[] });
            assert_eq!(read.rack.as_deref(), (version >= 3).then_some("r"));
            for length in 0..bytes.len() {
                assert_eq!(
                    subscription(&bytes[..length]),
                    None,
                    "{version}: {length} bytes"
                );
            }
        }
    }
}
