//! The broker's side of both requests, in all the same versions: for the mock.

use super::*;

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

impl Decodable for OffsetFetchRequest {
    fn decode<B: ByteBuf>(buf: &mut B, version: i16) -> Result<Self> {
        check(version, 6)?;
        let groups = match version {
            MANY_GROUPS.. => array(buf, |buf| {
                let group = asked_of(buf, version)?;
                skip_tags(buf)?;
                Ok(group)
            })?,
            _ => vec![asked_of(buf, version)?],
        };
        let require_stable = version >= STABLE && buf.try_get_u8()? != 0;
        skip_tags(buf)?;
        Ok(Self {
            groups,
            require_stable,
        })
    }
}

/// What is asked of one group.
fn asked_of<B: ByteBuf>(buf: &mut B, version: i16) -> Result<FetchGroup> {
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
    Ok(FetchGroup {
        group_id,
        member,
        topics,
    })
}

impl Encodable for OffsetFetchResponse {
    fn encode<B: ByteBufMut>(&self, buf: &mut B, version: i16) -> Result<()> {
        check(version, 6)?;
        buf.put_i32(self.throttle_time_ms);
        match (version, &self.groups[..]) {
            (MANY_GROUPS.., groups) => put_array(buf, groups, |buf, group| {
                put_text(buf, Some(&group.group_id))?;
                put_found(buf, version, group)?;
                put_no_tags(buf)
            })?,
            (_, [group]) => put_found(buf, version, group)?,
            (_, groups) => bail!("{} groups in version {version}", groups.len()),
        }
        put_no_tags(buf)
    }

    fn compute_size(&self, version: i16) -> Result<usize> {
        size(self, version)
    }
}

fn put_found<B: ByteBufMut>(buf: &mut B, version: i16, answer: &FetchedGroup) -> Result<()> {
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
