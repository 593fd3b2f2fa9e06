//! The broker's side of both requests, in all the same versions: for the mock.

use super::*;

/// Asks for committed offsets, from version 8 on of any number of groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OffsetFetchRequests(pub(crate) Vec<OffsetFetchRequest>);

/// The answer, in the order of the request; before version 8 about the only group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OffsetFetchResponses(pub(crate) Vec<(StrBytes, OffsetFetchResponse)>);

flexible!(OffsetFetchRequests, OffsetFetchResponses);

impl Decodable for OffsetCommitRequest {
    fn decode<B: ByteBuf>(buf: &mut B, version: i16) -> Result<Self> {
        check(version, 8)?;
        let request = Self {
            group_id: text(buf)?.unwrap_or_default(),
            member_epoch: buf.try_get_i32()?,
            member_id: text(buf)?.unwrap_or_default(),
            instance_id: text(buf)?,
            topics: array(buf, |buf| {
                let (name, id) = topic(buf, version)?;
                let partitions = array(buf, |buf| {
                    let partition = CommitPartition {
                        partition: buf.try_get_i32()?,
                        offset: buf.try_get_i64()?,
                        leader_epoch: buf.try_get_i32()?,
                        metadata: text(buf)?.unwrap_or_default(),
                    };
                    skip_tags(buf)?;
                    Ok(partition)
                })?;
                skip_tags(buf)?;
                Ok(CommitTopic {
                    name,
                    id,
                    partitions,
                })
            })?,
        };
        skip_tags(buf)?;
        Ok(request)
    }
}

impl Encodable for OffsetCommitResponse {
    fn encode<B: ByteBufMut>(&self, buf: &mut B, version: i16) -> Result<()> {
        check(version, 8)?;
        buf.put_i32(self.throttle_time_ms);
        put_answered(buf, version, &self.topics, |buf, code| {
            buf.put_i16(*code);
            Ok(())
        })?;
        put_no_tags(buf)
    }

    fn compute_size(&self, version: i16) -> Result<usize> {
        size(self, version)
    }
}

impl Decodable for OffsetFetchRequests {
    fn decode<B: ByteBuf>(buf: &mut B, version: i16) -> Result<Self> {
        check(version, 6)?;
        let mut groups = match version {
            MANY_GROUPS.. => array(buf, |buf| {
                let group = asked_of(buf, version)?;
                skip_tags(buf)?;
                Ok(group)
            })?,
            _ => vec![asked_of(buf, version)?],
        };
        let stable = version >= STABLE && buf.try_get_u8()? != 0;
        for group in &mut groups {
            group.require_stable = stable;
        }
        skip_tags(buf)?;
        Ok(Self(groups))
    }
}

/// What is asked of one group.
fn asked_of<B: ByteBuf>(buf: &mut B, version: i16) -> Result<OffsetFetchRequest> {
    let group_id = text(buf)?.unwrap_or_default();
    let mut member = None;
    if version >= WITH_MEMBER {
        let id = text(buf)?;
        let epoch = buf.try_get_i32()?;
        member = id.map(|id| (id, epoch));
    }
    let topics = array_or_null(buf, |buf| {
        let (name, id) = topic(buf, version)?;
        let partitions = array(buf, |buf| Ok(buf.try_get_i32()?))?;
        skip_tags(buf)?;
        Ok(FetchTopic {
            name,
            id,
            partitions,
        })
    })?;
    Ok(OffsetFetchRequest {
        group_id,
        member,
        topics,
        require_stable: false,
    })
}

impl Encodable for OffsetFetchResponses {
    fn encode<B: ByteBufMut>(&self, buf: &mut B, version: i16) -> Result<()> {
        check(version, 6)?;
        let throttle = self
            .0
            .first()
            .map_or(0, |(_, first)| first.throttle_time_ms);
        buf.put_i32(throttle);
        match (version, &self.0[..]) {
            (MANY_GROUPS.., groups) => put_array(buf, groups, |buf, (id, answer)| {
                put_text(buf, Some(id))?;
                put_found(buf, version, answer)?;
                put_no_tags(buf)
            })?,
            (_, [(_, answer)]) => put_found(buf, version, answer)?,
            (_, groups) => bail!("{} groups in version {version}", groups.len()),
        }
        put_no_tags(buf)
    }

    fn compute_size(&self, version: i16) -> Result<usize> {
        size(self, version)
    }
}

fn put_found<B: ByteBufMut>(buf: &mut B, version: i16, answer: &OffsetFetchResponse) -> Result<()> {
    put_answered(buf, version, &answer.topics, |buf, found| {
        buf.put_i64(found.offset);
        buf.put_i32(found.leader_epoch);
        put_text(buf, found.metadata.as_ref())?;
        buf.put_i16(found.error_code);
        Ok(())
    })?;
    buf.put_i16(answer.error_code);
    Ok(())
}

fn put_answered<B: ByteBufMut, T>(
    buf: &mut B,
    version: i16,
    topics: &[Answered<T>],
    put: impl Fn(&mut B, &T) -> Result<()>,
) -> Result<()> {
    put_array(buf, topics, |buf, topic| {
        put_topic(buf, version, &topic.name, topic.id)?;
        put_array(buf, &topic.partitions, |buf, (partition, said)| {
            buf.put_i32(*partition);
            put(buf, said)?;
            put_no_tags(buf)
        })?;
        put_no_tags(buf)
    })
}
