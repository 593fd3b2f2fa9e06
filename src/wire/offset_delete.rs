//! OffsetDelete, written by hand (KIP-496): it has no flexible version, so that the guard against
//! hostile lengths does not see its counts. Nothing is reserved by them.

use anyhow::{Result, bail};
use kafka_protocol::protocol::buf::{ByteBuf, ByteBufMut};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

/// Deletes committed offsets of a group; version 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OffsetDeleteRequest {
    pub(crate) group_id: StrBytes,
    /// Topics with their partitions.
    pub(crate) topics: Vec<(StrBytes, Vec<i32>)>,
}

/// The answer, an error code for each partition.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OffsetDeleteResponse {
    /// Of the group.
    pub(crate) error_code: i16,
    pub(crate) throttle_time_ms: i32,
    pub(crate) topics: Vec<(StrBytes, Vec<(i32, i16)>)>,
}

impl HeaderVersion for OffsetDeleteRequest {
    fn header_version(_: i16) -> i16 {
        1
    }
}

impl HeaderVersion for OffsetDeleteResponse {
    fn header_version(_: i16) -> i16 {
        0
    }
}

impl Encodable for OffsetDeleteRequest {
    fn encode<B: ByteBufMut>(&self, buf: &mut B, version: i16) -> Result<()> {
        check(version)?;
        put_text(buf, &self.group_id)?;
        put_topics(buf, &self.topics, |buf, partition| buf.put_i32(*partition))
    }

    fn compute_size(&self, _: i16) -> Result<usize> {
        let topics = self.topics.iter();
        let topics = topics.map(|(name, partitions)| 6 + name.len() + 4 * partitions.len());
        Ok(6 + self.group_id.len() + topics.sum::<usize>())
    }
}

impl Decodable for OffsetDeleteResponse {
    fn decode<B: ByteBuf>(buf: &mut B, version: i16) -> Result<Self> {
        check(version)?;
        Ok(Self {
            error_code: buf.try_get_i16()?,
            throttle_time_ms: buf.try_get_i32()?,
            topics: topics(buf, |buf| Ok((buf.try_get_i32()?, buf.try_get_i16()?)))?,
        })
    }
}

/// The broker's side: for the mock.
#[cfg(feature = "mock")]
mod broker {
    use super::*;

    impl Decodable for OffsetDeleteRequest {
        fn decode<B: ByteBuf>(buf: &mut B, version: i16) -> Result<Self> {
            check(version)?;
            Ok(Self {
                group_id: text(buf)?,
                topics: topics(buf, |buf| Ok(buf.try_get_i32()?))?,
            })
        }
    }

    impl Encodable for OffsetDeleteResponse {
        fn encode<B: ByteBufMut>(&self, buf: &mut B, version: i16) -> Result<()> {
            check(version)?;
            buf.put_i16(self.error_code);
            buf.put_i32(self.throttle_time_ms);
            put_topics(buf, &self.topics, |buf, (partition, code)| {
                buf.put_i32(*partition);
                buf.put_i16(*code);
            })
        }

        fn compute_size(&self, _: i16) -> Result<usize> {
            let topics = self.topics.iter();
            let topics = topics.map(|(name, partitions)| 6 + name.len() + 6 * partitions.len());
            Ok(10 + topics.sum::<usize>())
        }
    }
}

fn check(version: i16) -> Result<()> {
    match version {
        0 => Ok(()),
        version => bail!("version {version} is not spoken"),
    }
}

fn put_text<B: ByteBufMut>(buf: &mut B, text: &str) -> Result<()> {
    buf.put_i16(i16::try_from(text.len())?);
    buf.put_slice(text.as_bytes());
    Ok(())
}

fn put_topics<B: ByteBufMut, T>(
    buf: &mut B,
    topics: &[(StrBytes, Vec<T>)],
    put: impl Fn(&mut B, &T),
) -> Result<()> {
    buf.put_i32(i32::try_from(topics.len())?);
    for (name, partitions) in topics {
        put_text(buf, name)?;
        buf.put_i32(i32::try_from(partitions.len())?);
        partitions.iter().for_each(|partition| put(buf, partition));
    }
    Ok(())
}

fn text<B: ByteBuf>(buf: &mut B) -> Result<StrBytes> {
    let length = usize::try_from(buf.try_get_i16()?)?;
    Ok(StrBytes::from_utf8(buf.try_get_bytes(length)?)?)
}

fn topics<B: ByteBuf, T>(
    buf: &mut B,
    read: impl Fn(&mut B) -> Result<T>,
) -> Result<Vec<(StrBytes, Vec<T>)>> {
    let mut topics = Vec::new();
    for _ in 0..buf.try_get_i32()? {
        let name = text(buf)?;
        let mut partitions = Vec::new();
        for _ in 0..buf.try_get_i32()? {
            partitions.push(read(buf)?);
        }
        topics.push((name, partitions));
    }
    Ok(topics)
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages as kp;
    use kafka_protocol::messages::offset_delete_request as asked;
    use kafka_protocol::messages::offset_delete_response as told;

    use super::*;
    use crate::wire::guard::Guarded;
    use crate::wire::{str_bytes, topic_name};

    fn bytes(message: &impl Encodable) -> Bytes {
        let mut buf = BytesMut::new();
        message.encode(&mut buf, 0).unwrap();
        assert_eq!(message.compute_size(0).unwrap(), buf.len());
        buf.freeze()
    }

    #[test]
    fn requests_and_answers_equal_the_generated_ones() {
        let mine = OffsetDeleteRequest {
            group_id: str_bytes("g"),
            topics: vec![(str_bytes("orders"), vec![1, 2])],
        };
        let partition =
            |index| asked::OffsetDeleteRequestPartition::default().with_partition_index(index);
        let topic = asked::OffsetDeleteRequestTopic::default()
            .with_name(topic_name("orders"))
            .with_partitions(vec![partition(1), partition(2)]);
        let generated = kp::OffsetDeleteRequest::default()
            .with_group_id(kp::GroupId(str_bytes("g")))
            .with_topics(vec![topic]);
        assert_eq!(bytes(&mine), bytes(&generated));
        assert!(mine.encode(&mut BytesMut::new(), 1).is_err());
        let header = kp::OffsetDeleteRequest::header_version(0);
        assert_eq!(OffsetDeleteRequest::header_version(0), header);
        let header = kp::OffsetDeleteResponse::header_version(0);
        assert_eq!(OffsetDeleteResponse::header_version(0), header);

        let partition = told::OffsetDeleteResponsePartition::default()
            .with_partition_index(3)
            .with_error_code(86);
        let topic = told::OffsetDeleteResponseTopic::default()
            .with_name(topic_name("orders"))
            .with_partitions(vec![partition]);
        let generated = kp::OffsetDeleteResponse::default()
            .with_throttle_time_ms(9)
            .with_error_code(15)
            .with_topics(vec![topic]);
        let mine = OffsetDeleteResponse {
            error_code: 15,
            throttle_time_ms: 9,
            topics: vec![(str_bytes("orders"), vec![(3, 86)])],
        };
        let mut guarded = Guarded::new(bytes(&generated));
        assert_eq!(OffsetDeleteResponse::decode(&mut guarded, 0).unwrap(), mine);
        #[cfg(feature = "mock")]
        assert_eq!(bytes(&mine), bytes(&generated));
    }

    #[test]
    fn hostile_counts_end_with_their_bytes() {
        for counts in [
            &[0x7f, 0xff, 0xff, 0xff][..],
            &[0, 0, 0, 1, 0x7f, 0xff, b'a'],
            &[0, 0, 0, 1, 0xff, 0xff],
            &[0, 0, 0, 1, 0, 1, b'a', 0x7f, 0xff, 0xff, 0xff, 0, 0],
        ] {
            let answer = [&[0; 6], counts].concat();
            let mut guarded = Guarded::new(answer.into());
            assert!(OffsetDeleteResponse::decode(&mut guarded, 0).is_err());
        }
    }
}
