//! The Produce request's body, written by hand so that batches are never copied.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::codec::Segments;

/// The batches of one request, grouped by topic.
#[derive(Debug, Default)]
pub(crate) struct ProduceBody {
    pub(crate) topics: Vec<ProduceTopic>,
}

/// The batches for one topic: one per partition.
#[derive(Debug)]
pub(crate) struct ProduceTopic {
    pub(crate) name: Arc<str>,
    /// Used instead of the name from version 13 on (KIP-516); nil when unknown.
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<(i32, Bytes)>,
}

/// The first version that names topics by id.
const BY_TOPIC_ID: i16 = 13;

impl ProduceBody {
    /// The version to use where `highest` is the highest that both ends speak: one with topic ids
    /// needs all of them.
    pub(crate) fn version(&self, highest: i16) -> i16 {
        match self.topics.iter().any(|topic| topic.id.is_nil()) {
            true => highest.min(BY_TOPIC_ID - 1),
            false => highest,
        }
    }

    /// The body in a flexible version (9 and up) as segments, in which the batches are shared, not
    /// copied.
    pub(crate) fn segments(
        &self,
        version: i16,
        acks: i16,
        timeout_ms: i32,
        transactional_id: Option<&str>,
    ) -> Segments {
        let batches: usize = self.topics.iter().map(|topic| topic.partitions.len()).sum();
        let mut segments = Vec::with_capacity(2 * batches + 1);
        let mut buf = BytesMut::with_capacity(32 + 48 * self.topics.len() + 16 * batches);
        match transactional_id {
            None => put_varint(&mut buf, 0),
            Some(id) => put_string(&mut buf, id),
        }
        buf.put_i16(acks);
        buf.put_i32(timeout_ms);
        put_varint(&mut buf, self.topics.len() + 1);
        for topic in &self.topics {
            if version >= BY_TOPIC_ID {
                buf.put_slice(topic.id.as_bytes());
            } else {
                put_string(&mut buf, &topic.name);
            }
            put_varint(&mut buf, topic.partitions.len() + 1);
            for (partition, batch) in &topic.partitions {
                buf.put_i32(*partition);
                put_varint(&mut buf, batch.len() + 1);
                segments.push(buf.split().freeze());
                segments.push(batch.clone());
                put_varint(&mut buf, 0);
            }
            put_varint(&mut buf, 0);
        }
        put_varint(&mut buf, 0);
        segments.push(buf.freeze());
        segments
    }
}

fn put_varint(buf: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        buf.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    buf.put_u8(value as u8);
}

fn put_string(buf: &mut BytesMut, text: &str) {
    put_varint(buf, text.len() + 1);
    buf.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::{ProduceRequest, TopicName, TransactionalId};
    use kafka_protocol::protocol::{Encodable, StrBytes};

    #[test]
    fn the_body_equals_the_generated_one_in_every_version() {
        let id = Uuid::from_u128(77);
        let big = Bytes::from(vec![7; 300]);
        let body = ProduceBody {
            topics: vec![
                ProduceTopic {
                    name: "orders".into(),
                    id,
                    partitions: vec![(0, big.clone()), (7, Bytes::from_static(b"xy"))],
                },
                ProduceTopic {
                    name: "b".into(),
                    id,
                    partitions: vec![(1, big.clone())],
                },
            ],
        };
        for version in 9..=13 {
            for transactional in [None, Some("tx")] {
                let topic = |name: &'static str, partitions: &[(i32, Bytes)]| {
                    let data = partitions
                        .iter()
                        .map(|(index, records)| {
                            PartitionProduceData::default()
                                .with_index(*index)
                                .with_records(Some(records.clone()))
                        })
                        .collect();
                    let topic = TopicProduceData::default().with_partition_data(data);
                    match version {
                        13 => topic.with_topic_id(id),
                        _ => topic.with_name(TopicName(StrBytes::from_static_str(name))),
                    }
                };
                let request = ProduceRequest::default()
                    .with_transactional_id(
                        transactional.map(|id| TransactionalId(StrBytes::from_static_str(id))),
                    )
                    .with_acks(-1)
                    .with_timeout_ms(30_000)
                    .with_topic_data(vec![
                        topic("orders", &body.topics[0].partitions),
                        topic("b", &body.topics[1].partitions),
                    ]);
                assert_eq!(body.version(version), version);
                let mut expected = BytesMut::new();
                request.encode(&mut expected, version).unwrap();
                let written = body.segments(version, -1, 30_000, transactional).concat();
                assert_eq!(written, expected.as_ref(), "version {version}");
            }
        }
    }

    #[test]
    fn a_topic_whose_id_is_not_known_goes_by_its_name() {
        let topic = |id| ProduceTopic {
            name: "t".into(),
            id: Uuid::from_u128(id),
            partitions: Vec::new(),
        };
        let topics = vec![topic(1), topic(0)];
        let body = ProduceBody { topics };
        assert_eq!((body.version(13), body.version(9)), (12, 9));
    }
}
