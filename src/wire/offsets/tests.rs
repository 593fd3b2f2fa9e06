use bytes::{BufMut, Bytes};
use kafka_protocol::messages as kp;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};

use super::*;
use crate::wire::guard::Guarded;

const ID: Uuid = Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn name() -> kp::TopicName {
    kp::TopicName(text("orders"))
}

fn bytes(message: &impl Encodable, version: i16) -> Bytes {
    let mut buf = BytesMut::new();
    message.encode(&mut buf, version).unwrap();
    assert_eq!(message.compute_size(version).unwrap(), buf.len());
    buf.freeze()
}

fn read<T: Decodable>(bytes: Bytes, version: i16) -> Result<T> {
    let mut guarded = Guarded::new(bytes);
    let read = T::decode(&mut guarded, version)?;
    assert_eq!(bytes::Buf::remaining(&guarded), 0, "all of it is read");
    Ok(read)
}

fn commit() -> OffsetCommitRequest {
    let partition = CommitPartition {
        partition: 3,
        offset: 1 << 40,
        leader_epoch: 5,
        metadata: text("note"),
    };
    OffsetCommitRequest {
        group_id: text("g"),
        member_epoch: 7,
        member_id: text("m"),
        instance_id: Some(text("i")),
        topics: vec![CommitTopic {
            name: text("orders"),
            id: ID,
            partitions: vec![partition.clone(), partition],
        }],
    }
}

#[test]
fn commits_equal_the_generated_ones_by_name() {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(3)
        .with_committed_offset(1 << 40)
        .with_committed_leader_epoch(5)
        .with_committed_metadata(Some(text("note")));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name())
        .with_partitions(vec![partition.clone(), partition]);
    let generated = kp::OffsetCommitRequest::default()
        .with_group_id(kp::GroupId(text("g")))
        .with_generation_id_or_member_epoch(7)
        .with_member_id(text("m"))
        .with_group_instance_id(Some(text("i")))
        .with_topics(vec![topic]);
    for version in 8..=9 {
        assert_eq!(bytes(&commit(), version), bytes(&generated, version));
    }
    assert!(commit().encode(&mut BytesMut::new(), 7).is_err());
    assert!(commit().encode(&mut BytesMut::new(), 11).is_err());
}

#[test]
fn version_10_has_the_id_in_the_names_place() {
    let by_name = bytes(&commit(), 9);
    let by_id = bytes(&commit(), 10);
    let at = by_name.windows(6).position(|six| six == b"orders").unwrap();
    assert_eq!(by_id[..at - 1], by_name[..at - 1]);
    assert_eq!(by_id[at - 1..at + 15], *ID.as_bytes());
    assert_eq!(by_id[at + 15..], by_name[at + 6..]);
}

#[test]
fn answers_to_commits_are_read_in_every_version() {
    let partition = OffsetCommitResponsePartition::default()
        .with_partition_index(3)
        .with_error_code(-1);
    let topic = OffsetCommitResponseTopic::default()
        .with_name(name())
        .with_partitions(vec![partition.clone(), partition]);
    let generated = kp::OffsetCommitResponse::default()
        .with_throttle_time_ms(9)
        .with_topics(vec![topic]);
    let expected = |name, id| OffsetCommitResponse {
        throttle_time_ms: 9,
        topics: vec![Answered {
            name,
            id,
            partitions: vec![(3, -1), (3, -1)],
        }],
    };
    for version in 8..=9 {
        let answer: OffsetCommitResponse = read(bytes(&generated, version), version).unwrap();
        assert_eq!(answer, expected(text("orders"), Uuid::nil()));
    }
    let mut by_id = BytesMut::new();
    by_id.put_slice(&[0, 0, 0, 9, 2]);
    by_id.put_slice(ID.as_bytes());
    by_id.put_slice(&[3, 0, 0, 0, 3, 0xff, 0xff, 0, 0, 0, 0, 3, 0xff, 0xff, 0, 0]);
    // A tagged field from the future.
    by_id.put_slice(&[1, 7, 2, b'a', b'b']);
    let answer: OffsetCommitResponse = read(by_id.freeze(), 10).unwrap();
    assert_eq!(answer, expected(text(""), ID));
}

fn fetch() -> OffsetFetchRequest {
    OffsetFetchRequest {
        groups: vec![FetchGroup {
            group_id: text("g"),
            member: Some((text("m"), 7)),
            topics: Some(vec![FetchTopic {
                name: text("orders"),
                id: ID,
                partitions: vec![1, 2],
            }]),
        }],
        require_stable: true,
    }
}

fn fetched(group_id: StrBytes, name: StrBytes, id: Uuid, partition: i32) -> OffsetFetchResponse {
    let found = FetchedOffset {
        offset: 40,
        leader_epoch: 5,
        metadata: Some(text("note")),
        error_code: 88,
    };
    OffsetFetchResponse {
        throttle_time_ms: 9,
        groups: vec![FetchedGroup {
            group_id,
            error_code: 15,
            topics: vec![Answered {
                name,
                id,
                partitions: vec![(partition, found)],
            }],
        }],
    }
}

/// Before version 8 an answer does not name the one group.
fn group_in(version: i16) -> StrBytes {
    text(if version < MANY_GROUPS { "" } else { "g" })
}

#[test]
fn offset_fetches_equal_the_generated_ones_by_name() {
    for version in 6..=9 {
        for all in [false, true] {
            let mut mine = fetch();
            let old = OffsetFetchRequestTopic::default()
                .with_name(name())
                .with_partition_indexes(vec![1, 2]);
            let new = OffsetFetchRequestTopics::default()
                .with_name(name())
                .with_partition_indexes(vec![1, 2]);
            let (old, new) = match all {
                true => (None, None),
                false => (Some(vec![old]), Some(vec![new])),
            };
            if all {
                mine.groups[0].topics = None;
            }
            let group = kp::GroupId(text("g"));
            let generated = match version {
                8.. => {
                    let asked = OffsetFetchRequestGroup::default()
                        .with_group_id(group)
                        .with_topics(new);
                    let asked = match version {
                        9 => asked.with_member_id(Some(text("m"))).with_member_epoch(7),
                        _ => asked,
                    };
                    kp::OffsetFetchRequest::default().with_groups(vec![asked])
                }
                _ => kp::OffsetFetchRequest::default()
                    .with_group_id(group)
                    .with_topics(old),
            };
            let generated = generated.with_require_stable(version >= 7);
            assert_eq!(bytes(&mine, version), bytes(&generated, version));
        }
    }
    let by_name = bytes(&fetch(), 9);
    let by_id = bytes(&fetch(), 10);
    assert_eq!(by_id.len(), by_name.len() + 16 - 7);
    assert!(by_id.windows(16).any(|part| part == ID.as_bytes()));
}

#[test]
fn fetched_offsets_are_read_in_every_version() {
    for version in 6..=9 {
        let old = OffsetFetchResponsePartition::default()
            .with_partition_index(3)
            .with_committed_offset(40)
            .with_committed_leader_epoch(5)
            .with_metadata(Some(text("note")))
            .with_error_code(88);
        let new = OffsetFetchResponsePartitions::default()
            .with_partition_index(3)
            .with_committed_offset(40)
            .with_committed_leader_epoch(5)
            .with_metadata(Some(text("note")))
            .with_error_code(88);
        let generated = match version {
            8.. => {
                let topic = OffsetFetchResponseTopics::default()
                    .with_name(name())
                    .with_partitions(vec![new]);
                let group = OffsetFetchResponseGroup::default()
                    .with_group_id(kp::GroupId(text("g")))
                    .with_error_code(15)
                    .with_topics(vec![topic]);
                kp::OffsetFetchResponse::default().with_groups(vec![group])
            }
            _ => {
                let topic = OffsetFetchResponseTopic::default()
                    .with_name(name())
                    .with_partitions(vec![old]);
                kp::OffsetFetchResponse::default()
                    .with_error_code(15)
                    .with_topics(vec![topic])
            }
        };
        let generated = bytes(&generated.with_throttle_time_ms(9), version);
        let answer: OffsetFetchResponse = read(generated.clone(), version).unwrap();
        let group = group_in(version);
        assert_eq!(answer, fetched(group, text("orders"), Uuid::nil(), 3));
        if version == 9 {
            let at = generated
                .windows(6)
                .position(|six| six == b"orders")
                .unwrap();
            let by_id = [&generated[..at - 1], ID.as_bytes(), &generated[at + 6..]].concat();
            let answer: OffsetFetchResponse = read(by_id.into(), 10).unwrap();
            assert_eq!(answer, fetched(text("g"), text(""), ID, 3));
        }
    }
}

#[test]
fn several_groups_go_into_one_request_where_the_version_can_say_so() {
    let mut mine = OffsetFetchRequest::default();
    let mut generated = kp::OffsetFetchRequest::default();
    let mut answer = kp::OffsetFetchResponse::default();
    for group in ["g", "h"] {
        mine.groups.push(FetchGroup {
            group_id: text(group),
            ..FetchGroup::default()
        });
        let id = kp::GroupId(text(group));
        let asked = OffsetFetchRequestGroup::default().with_group_id(id.clone());
        generated.groups.push(asked.with_topics(None));
        let said = OffsetFetchResponseGroup::default().with_group_id(id);
        answer.groups.push(said);
    }
    for version in 8..=9 {
        assert_eq!(bytes(&mine, version), bytes(&generated, version));
        let read: OffsetFetchResponse = read(bytes(&answer, version), version).unwrap();
        let groups: Vec<_> = read.groups.iter().map(|group| &*group.group_id).collect();
        assert_eq!(groups, ["g", "h"]);
    }
    assert!(mine.encode(&mut BytesMut::new(), 7).is_err());
}

/// What the client writes the mock reads, and the other way round. That the mock writes what
/// brokers do is seen by the tests that compare them.
#[cfg(feature = "mock")]
mod both_sides {
    use super::*;

    #[test]
    fn commits() {
        for version in 8..=10 {
            let mut expected = commit();
            let topic = &mut expected.topics[0];
            match version {
                10 => topic.name = StrBytes::default(),
                _ => topic.id = Uuid::nil(),
            }
            let request: OffsetCommitRequest = read(bytes(&commit(), version), version).unwrap();
            assert_eq!(request, expected);
            let topic = &expected.topics[0];
            let answer = OffsetCommitResponse {
                throttle_time_ms: 9,
                topics: vec![Answered {
                    name: topic.name.clone(),
                    id: topic.id,
                    partitions: vec![(3, -1), (4, 0)],
                }],
            };
            assert_eq!(
                read::<OffsetCommitResponse>(bytes(&answer, version), version).unwrap(),
                answer
            );
        }
    }

    #[test]
    fn offset_fetches() {
        for version in 6..=10 {
            for all in [false, true] {
                let mut sent = fetch();
                if all {
                    sent.groups[0].topics = None;
                }
                let mut expected = sent.clone();
                if version < 9 {
                    expected.groups[0].member = None;
                }
                expected.require_stable = version >= 7;
                for topic in expected.groups[0].topics.iter_mut().flatten() {
                    match version {
                        10 => topic.name = StrBytes::default(),
                        _ => topic.id = Uuid::nil(),
                    }
                }
                let read: OffsetFetchRequest = read(bytes(&sent, version), version).unwrap();
                assert_eq!(read, expected);
            }
            let (name, id) = match version {
                10 => (text(""), ID),
                _ => (text("orders"), Uuid::nil()),
            };
            let answer = fetched(group_in(version), name, id, 3);
            let read: OffsetFetchResponse = read(bytes(&answer, version), version).unwrap();
            assert_eq!(read, answer);
        }
    }

    #[test]
    fn several_groups_only_where_the_version_can_say_so() {
        let group = |group| FetchedGroup {
            group_id: text(group),
            ..FetchedGroup::default()
        };
        let two = OffsetFetchResponse {
            throttle_time_ms: 0,
            groups: vec![group("g"), group("h")],
        };
        assert!(two.encode(&mut BytesMut::new(), 7).is_err());
        let mut generated = kp::OffsetFetchResponse::default();
        for group in ["g", "h"] {
            let group = OffsetFetchResponseGroup::default().with_group_id(kp::GroupId(text(group)));
            generated.groups.push(group);
        }
        assert_eq!(bytes(&two, 9), bytes(&generated, 9));
    }
}
