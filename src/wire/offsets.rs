//! OffsetCommit and OffsetFetch, written by hand: in version 10 topics go by id, so that a topic
//! made anew does not inherit the offsets of the one before (KIP-848), and the generated messages
//! end at 9.
//!
//! Only flexible versions; field names and order are those of Kafka's `OffsetCommitRequest.json`
//! and its like. Where names and ids are both kept, the version says which of them is on the wire.

use anyhow::{Result, bail};
use bytes::BytesMut;
use kafka_protocol::protocol::buf::{ByteBuf, ByteBufMut};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use uuid::Uuid;

/// The first version of both requests that names topics by id, and by nothing else.
pub(crate) const BY_TOPIC_ID: i16 = 10;
/// The first version of OffsetFetch that can ask for several groups (KIP-709).
pub(crate) const MANY_GROUPS: i16 = 8;
/// The first version of OffsetFetch that tells who asks.
const WITH_MEMBER: i16 = 9;
/// The first version of OffsetFetch that can wait for offsets pending in transactions (KIP-447).
const STABLE: i16 = 7;

/// Commits offsets of one group; versions 8 to 10.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OffsetCommitRequest {
    pub(crate) group_id: StrBytes,
    /// -1 for those that are no members.
    pub(crate) member_epoch: i32,
    pub(crate) member_id: StrBytes,
    pub(crate) instance_id: Option<StrBytes>,
    pub(crate) topics: Vec<CommitTopic>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CommitTopic {
    pub(crate) name: StrBytes,
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<CommitPartition>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CommitPartition {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// -1 where unknown.
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: StrBytes,
}

/// The answer, an error code for each partition.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OffsetCommitResponse {
    pub(crate) throttle_time_ms: i32,
    pub(crate) topics: Vec<Answered<i16>>,
}

/// What is said about the partitions of a topic, which goes by its name or its id.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answered<T> {
    pub(crate) name: StrBytes,
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<(i32, T)>,
}

/// Asks for committed offsets; versions 6 to 10, before 8 of exactly one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OffsetFetchRequest {
    pub(crate) groups: Vec<FetchGroup>,
    pub(crate) require_stable: bool,
}

/// What is asked of one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FetchGroup {
    pub(crate) group_id: StrBytes,
    /// From version 9 on; -1 for those that are no members.
    pub(crate) member: Option<(StrBytes, i32)>,
    /// None: all of the group (which version 10 answers by id).
    pub(crate) topics: Option<Vec<FetchTopic>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FetchTopic {
    pub(crate) name: StrBytes,
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<i32>,
}

/// The answer for each group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OffsetFetchResponse {
    pub(crate) throttle_time_ms: i32,
    pub(crate) groups: Vec<FetchedGroup>,
}

/// What is said about one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FetchedGroup {
    /// Empty before version 8: the answer is about the one group.
    pub(crate) group_id: StrBytes,
    /// Of the group.
    pub(crate) error_code: i16,
    pub(crate) topics: Vec<Answered<FetchedOffset>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FetchedOffset {
    /// -1 if none is committed.
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: Option<StrBytes>,
    pub(crate) error_code: i16,
}

/// The header of every flexible request and answer.
macro_rules! flexible {
    ($request:ident, $response:ident) => {
        impl HeaderVersion for $request {
            fn header_version(_: i16) -> i16 {
                2
            }
        }

        impl HeaderVersion for $response {
            fn header_version(_: i16) -> i16 {
                1
            }
        }
    };
}

flexible!(OffsetCommitRequest, OffsetCommitResponse);
flexible!(OffsetFetchRequest, OffsetFetchResponse);

#[cfg(feature = "mock")]
pub(crate) mod broker;

impl Encodable for OffsetCommitRequest {
    fn encode<B: ByteBufMut>(&self, buf: &mut B, version: i16) -> Result<()> {
        check(version, 8)?;
        put_text(buf, Some(&self.group_id))?;
        buf.put_i32(self.member_epoch);
        put_text(buf, Some(&self.member_id))?;
        put_text(buf, self.instance_id.as_ref())?;
        put_array(buf, &self.topics, |buf, topic| {
            put_topic(buf, version, &topic.name, topic.id)?;
            put_array(buf, &topic.partitions, |buf, partition| {
                buf.put_i32(partition.partition);
                buf.put_i64(partition.offset);
                buf.put_i32(partition.leader_epoch);
                put_text(buf, Some(&partition.metadata))?;
                put_no_tags(buf)
            })?;
            put_no_tags(buf)
        })?;
        put_no_tags(buf)
    }

    fn compute_size(&self, version: i16) -> Result<usize> {
        size(self, version)
    }
}

impl Decodable for OffsetCommitResponse {
    fn decode<B: ByteBuf>(buf: &mut B, version: i16) -> Result<Self> {
        check(version, 8)?;
        let throttle_time_ms = buf.try_get_i32()?;
        let topics = topics(buf, version, |buf| Ok(buf.try_get_i16()?))?;
        skip_tags(buf)?;
        Ok(Self {
            throttle_time_ms,
            topics,
        })
    }
}

impl Encodable for OffsetFetchRequest {
    fn encode<B: ByteBufMut>(&self, buf: &mut B, version: i16) -> Result<()> {
        check(version, 6)?;
        match (version, &self.groups[..]) {
            (MANY_GROUPS.., groups) => put_array(buf, groups, |buf, group| {
                put_group(buf, version, group)?;
                put_no_tags(buf)
            })?,
            (_, [group]) => put_group(buf, version, group)?,
            (_, groups) => bail!("{} groups in version {version}", groups.len()),
        }
        if version >= STABLE {
            buf.put_u8(u8::from(self.require_stable));
        }
        put_no_tags(buf)
    }

    fn compute_size(&self, version: i16) -> Result<usize> {
        size(self, version)
    }
}

impl Decodable for OffsetFetchResponse {
    fn decode<B: ByteBuf>(buf: &mut B, version: i16) -> Result<Self> {
        check(version, 6)?;
        let throttle_time_ms = buf.try_get_i32()?;
        let groups = match version {
            MANY_GROUPS.. => array(buf, |buf| {
                let group_id = text(buf)?.unwrap_or_default();
                let group = fetched(buf, version, group_id)?;
                skip_tags(buf)?;
                Ok(group)
            })?,
            _ => vec![fetched(buf, version, StrBytes::default())?],
        };
        skip_tags(buf)?;
        Ok(Self {
            throttle_time_ms,
            groups,
        })
    }
}

fn put_group<B: ByteBufMut>(buf: &mut B, version: i16, group: &FetchGroup) -> Result<()> {
    put_text(buf, Some(&group.group_id))?;
    if version >= WITH_MEMBER {
        let (id, epoch) = group.member.clone().unzip();
        put_text(buf, id.as_ref())?;
        buf.put_i32(epoch.unwrap_or(-1));
    }
    let Some(topics) = &group.topics else {
        put_varint(buf, 0);
        return Ok(());
    };
    put_array(buf, topics, |buf, topic| {
        put_topic(buf, version, &topic.name, topic.id)?;
        put_array(buf, &topic.partitions, |buf, partition| {
            buf.put_i32(*partition);
            Ok(())
        })?;
        put_no_tags(buf)
    })
}

/// What is said about one group, after its name.
fn fetched<B: ByteBuf>(buf: &mut B, version: i16, group_id: StrBytes) -> Result<FetchedGroup> {
    let topics = topics(buf, version, |buf| {
        Ok(FetchedOffset {
            offset: buf.try_get_i64()?,
            leader_epoch: buf.try_get_i32()?,
            metadata: text(buf)?,
            error_code: buf.try_get_i16()?,
        })
    })?;
    Ok(FetchedGroup {
        group_id,
        error_code: buf.try_get_i16()?,
        topics,
    })
}

/// The versions from `first` on to the last one written here.
fn check(version: i16, first: i16) -> Result<()> {
    if !(first..=BY_TOPIC_ID).contains(&version) {
        bail!("version {version} is not spoken");
    }
    Ok(())
}

fn size(request: &impl Encodable, version: i16) -> Result<usize> {
    let mut buf = BytesMut::new();
    request.encode(&mut buf, version)?;
    Ok(buf.len())
}

fn put_topic<B: ByteBufMut>(buf: &mut B, version: i16, name: &StrBytes, id: Uuid) -> Result<()> {
    if version < BY_TOPIC_ID {
        return put_text(buf, Some(name));
    }
    buf.put_slice(id.as_bytes());
    Ok(())
}

fn put_varint<B: ByteBufMut>(buf: &mut B, mut value: u32) {
    while value >= 0x80 {
        buf.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    buf.put_u8(value as u8);
}

fn put_text<B: ByteBufMut>(buf: &mut B, text: Option<&StrBytes>) -> Result<()> {
    let Some(text) = text else {
        put_varint(buf, 0);
        return Ok(());
    };
    put_varint(buf, u32::try_from(text.len() + 1)?);
    buf.put_slice(text.as_bytes());
    Ok(())
}

fn put_array<B: ByteBufMut, T>(
    buf: &mut B,
    items: &[T],
    mut put: impl FnMut(&mut B, &T) -> Result<()>,
) -> Result<()> {
    put_varint(buf, u32::try_from(items.len() + 1)?);
    items.iter().try_for_each(|item| put(buf, item))
}

fn put_no_tags<B: ByteBufMut>(buf: &mut B) -> Result<()> {
    buf.put_u8(0);
    Ok(())
}

/// Topics with what `read` finds for each of their partitions.
fn topics<B: ByteBuf, T>(
    buf: &mut B,
    version: i16,
    read: impl Fn(&mut B) -> Result<T>,
) -> Result<Vec<Answered<T>>> {
    array(buf, |buf| {
        let (name, id) = topic(buf, version)?;
        let partitions = array(buf, |buf| {
            let partition = buf.try_get_i32()?;
            let found = read(buf)?;
            skip_tags(buf)?;
            Ok((partition, found))
        })?;
        skip_tags(buf)?;
        Ok(Answered {
            name,
            id,
            partitions,
        })
    })
}

/// A topic's name or its id, whichever the version has.
fn topic<B: ByteBuf>(buf: &mut B, version: i16) -> Result<(StrBytes, Uuid)> {
    if version < BY_TOPIC_ID {
        return Ok((text(buf)?.unwrap_or_default(), Uuid::nil()));
    }
    let id = Uuid::from_u128(buf.try_get_u128()?);
    Ok((StrBytes::default(), id))
}

/// Byte by byte, as the guard wants it.
fn varint<B: ByteBuf>(buf: &mut B) -> Result<u32> {
    let mut value = 0;
    for shift in [0, 7, 14, 21, 28] {
        let byte = buf.try_get_u8()?;
        value |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    Ok(value)
}

fn text<B: ByteBuf>(buf: &mut B) -> Result<Option<StrBytes>> {
    let Some(length) = varint(buf)?.checked_sub(1) else {
        return Ok(None);
    };
    Ok(Some(StrBytes::from_utf8(
        buf.try_get_bytes(length as usize)?,
    )?))
}

/// Reserves nothing by the count, which the peer made up: the elements that are there make it grow.
fn array<B: ByteBuf, T>(buf: &mut B, read: impl FnMut(&mut B) -> Result<T>) -> Result<Vec<T>> {
    Ok(array_or_null(buf, read)?.unwrap_or_default())
}

fn array_or_null<B: ByteBuf, T>(
    buf: &mut B,
    mut read: impl FnMut(&mut B) -> Result<T>,
) -> Result<Option<Vec<T>>> {
    match varint(buf)? {
        0 => Ok(None),
        count => (1..count)
            .map(|_| read(buf))
            .collect::<Result<_>>()
            .map(Some),
    }
}

fn skip_tags<B: ByteBuf>(buf: &mut B) -> Result<()> {
    let count = varint(buf)?;
    for _ in 0..count {
        varint(buf)?;
        let size = varint(buf)?;
        buf.try_get_bytes(size as usize)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
