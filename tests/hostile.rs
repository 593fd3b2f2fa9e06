//! Damaged and hostile answers: no panic, and memory bounded by the frame's size, for every answer
//! that the client decodes.
//!
//! `OTTLA_HOSTILE_INPUTS` sets how many inputs are tried per answer and version.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};
use ottla::internals::{RESPONSES, decode_response};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

/// Bytes that a decoded answer may take per byte of its frame (an array element of one byte becomes
/// a struct of a few hundred), and what it may take in any case (errors with their text).
const PER_BYTE: u64 = 512;
const AT_LEAST: u64 = 64 << 10;

fn inputs() -> usize {
    std::env::var("OTTLA_HOSTILE_INPUTS").map_or(3_000, |inputs| inputs.parse().unwrap())
}

fn encoded<T: Encodable + HeaderVersion>(response: &T, version: i16) -> Vec<u8> {
    let mut body = BytesMut::new();
    if T::header_version(version) > 0 {
        body.extend_from_slice(&[0]);
    }
    response.encode(&mut body, version).unwrap();
    body.to_vec()
}

fn text() -> StrBytes {
    StrBytes::from_static_str("some-name")
}

fn twice<T: Clone>(item: T) -> Vec<T> {
    vec![item.clone(), item]
}

/// A valid answer of some size.
fn sample(key: i16, version: i16) -> Vec<u8> {
    let name = || TopicName(text());
    match key {
        0 => {
            use produce_response::*;
            let partition = PartitionProduceResponse::default()
                .with_record_errors(twice(BatchIndexAndErrorMessage::default()))
                .with_error_message(Some(text()));
            let topic = TopicProduceResponse::default()
                .with_name(name())
                .with_partition_responses(twice(partition));
            encoded(
                &ProduceResponse::default().with_responses(twice(topic)),
                version,
            )
        }
        1 => {
            use fetch_response::*;
            let partition = PartitionData::default()
                .with_aborted_transactions(Some(twice(AbortedTransaction::default())))
                .with_records(Some(Bytes::from(vec![1; 200])));
            let topic = FetchableTopicResponse::default().with_partitions(twice(partition));
            let topic = if version < 13 {
                topic.with_topic(name())
            } else {
                topic
            };
            encoded(
                &FetchResponse::default().with_responses(twice(topic)),
                version,
            )
        }
        2 => {
            use list_offsets_response::*;
            let topic = ListOffsetsTopicResponse::default()
                .with_name(name())
                .with_partitions(twice(ListOffsetsPartitionResponse::default()));
            encoded(
                &ListOffsetsResponse::default().with_topics(twice(topic)),
                version,
            )
        }
        3 => {
            use metadata_response::*;
            let broker = MetadataResponseBroker::default()
                .with_host(text())
                .with_rack(Some(text()));
            let partition = MetadataResponsePartition::default()
                .with_replica_nodes(twice(1.into()))
                .with_isr_nodes(twice(1.into()));
            let topic = MetadataResponseTopic::default()
                .with_name(Some(name()))
                .with_partitions(twice(partition));
            let response = MetadataResponse::default()
                .with_cluster_id(Some(text()))
                .with_brokers(twice(broker))
                .with_topics(twice(topic));
            encoded(&response, version)
        }
        // Not among the generated ones: as version 9, with ids in the place of the topics' names.
        8 | 9 if version == 10 => {
            let name = [&[6][..], b"topic"].concat();
            let mut sample = sample(key, 9);
            while let Some(at) = sample.windows(6).position(|part| part == name) {
                sample.splice(at..at + 6, [7; 16]);
            }
            sample
        }
        8 => {
            use offset_commit_response::*;
            let topic = OffsetCommitResponseTopic::default()
                .with_name(TopicName(StrBytes::from_static_str("topic")))
                .with_partitions(twice(OffsetCommitResponsePartition::default()));
            encoded(
                &OffsetCommitResponse::default().with_topics(twice(topic)),
                version,
            )
        }
        9 if version >= 8 => {
            use offset_fetch_response::*;
            let partition = OffsetFetchResponsePartitions::default().with_metadata(Some(text()));
            let topic = OffsetFetchResponseTopics::default()
                .with_name(TopicName(StrBytes::from_static_str("topic")))
                .with_partitions(twice(partition));
            let group = OffsetFetchResponseGroup::default().with_topics(twice(topic));
            encoded(
                &OffsetFetchResponse::default().with_groups(vec![group]),
                version,
            )
        }
        9 => {
            use offset_fetch_response::*;
            let partition = OffsetFetchResponsePartition::default().with_metadata(Some(text()));
            let topic = OffsetFetchResponseTopic::default()
                .with_name(name())
                .with_partitions(twice(partition));
            encoded(
                &OffsetFetchResponse::default().with_topics(twice(topic)),
                version,
            )
        }
        10 if version >= 4 => {
            use find_coordinator_response::*;
            let coordinator = Coordinator::default().with_host(text()).with_key(text());
            encoded(
                &FindCoordinatorResponse::default().with_coordinators(twice(coordinator)),
                version,
            )
        }
        10 => encoded(
            &FindCoordinatorResponse::default().with_host(text()),
            version,
        ),
        19 => {
            use create_topics_response::*;
            let config = CreatableTopicConfigs::default().with_name(text());
            let topic = CreatableTopicResult::default()
                .with_name(name())
                .with_configs(Some(twice(config)));
            encoded(
                &CreateTopicsResponse::default().with_topics(twice(topic)),
                version,
            )
        }
        20 => {
            use delete_topics_response::*;
            let topic = DeletableTopicResult::default().with_name(Some(name()));
            encoded(
                &DeleteTopicsResponse::default().with_responses(twice(topic)),
                version,
            )
        }
        22 => encoded(
            &InitProducerIdResponse::default().with_producer_id(7.into()),
            version,
        ),
        23 => {
            use offset_for_leader_epoch_response::*;
            let topic = OffsetForLeaderTopicResult::default()
                .with_topic(name())
                .with_partitions(twice(EpochEndOffset::default()));
            encoded(
                &OffsetForLeaderEpochResponse::default().with_topics(twice(topic)),
                version,
            )
        }
        11 => {
            use join_group_response::*;
            let member = JoinGroupResponseMember::default()
                .with_member_id(text())
                .with_metadata(Bytes::from(vec![1; 50]));
            let response = JoinGroupResponse::default()
                .with_protocol_name(Some(text()))
                .with_leader(text())
                .with_member_id(text());
            encoded(&response.with_members(twice(member)), version)
        }
        12 => encoded(&HeartbeatResponse::default(), version),
        13 => {
            use leave_group_response::*;
            let member = MemberResponse::default()
                .with_member_id(text())
                .with_group_instance_id(Some(text()));
            let response = LeaveGroupResponse::default();
            encoded(&response.with_members(twice(member)), version)
        }
        14 => {
            let assignment = Bytes::from(vec![1; 50]);
            let response = SyncGroupResponse::default();
            encoded(&response.with_assignment(assignment), version)
        }
        15 => {
            use describe_groups_response::*;
            let member = DescribedGroupMember::default()
                .with_member_id(text())
                .with_member_assignment(Bytes::from(vec![1; 50]));
            let group = DescribedGroup::default()
                .with_group_id(GroupId(text()))
                .with_members(twice(member));
            encoded(
                &DescribeGroupsResponse::default().with_groups(twice(group)),
                version,
            )
        }
        16 => {
            use list_groups_response::*;
            let group = ListedGroup::default().with_group_id(GroupId(text()));
            encoded(
                &ListGroupsResponse::default().with_groups(twice(group)),
                version,
            )
        }
        69 => {
            use consumer_group_describe_response::*;
            let topic = TopicPartitions::default()
                .with_topic_name(name())
                .with_partitions(vec![1, 2, 3]);
            let assignment = Assignment::default().with_topic_partitions(twice(topic));
            let member = Member::default()
                .with_member_id(text())
                .with_subscribed_topic_names(twice(name()))
                .with_assignment(assignment);
            let group = DescribedGroup::default()
                .with_group_id(GroupId(text()))
                .with_members(twice(member));
            encoded(
                &ConsumerGroupDescribeResponse::default().with_groups(twice(group)),
                version,
            )
        }
        68 => {
            use consumer_group_heartbeat_response::*;
            let topic = TopicPartitions::default()
                .with_topic_id(Uuid::from_u128(7))
                .with_partitions(vec![1, 2, 3]);
            let assignment = Assignment::default().with_topic_partitions(twice(topic));
            let response = ConsumerGroupHeartbeatResponse::default()
                .with_member_id(Some(text()))
                .with_assignment(Some(assignment));
            encoded(&response, version)
        }
        21 => {
            use delete_records_response::*;
            let topic = DeleteRecordsTopicResult::default()
                .with_name(name())
                .with_partitions(twice(DeleteRecordsPartitionResult::default()));
            encoded(
                &DeleteRecordsResponse::default().with_topics(twice(topic)),
                version,
            )
        }
        24 => {
            use add_partitions_to_txn_response::*;
            let partition = AddPartitionsToTxnPartitionResult::default();
            let topic = AddPartitionsToTxnTopicResult::default()
                .with_name(name())
                .with_results_by_partition(twice(partition));
            encoded(
                &AddPartitionsToTxnResponse::default()
                    .with_results_by_topic_v3_and_below(twice(topic)),
                version,
            )
        }
        25 => encoded(&AddOffsetsToTxnResponse::default(), version),
        26 => encoded(&EndTxnResponse::default(), version),
        27 => {
            use write_txn_markers_response::*;
            let topic = WritableTxnMarkerTopicResult::default()
                .with_name(name())
                .with_partitions(twice(WritableTxnMarkerPartitionResult::default()));
            let marker = WritableTxnMarkerResult::default().with_topics(twice(topic));
            encoded(
                &WriteTxnMarkersResponse::default().with_markers(twice(marker)),
                version,
            )
        }
        61 => {
            use describe_producers_response::*;
            let partition = PartitionResponse::default()
                .with_error_message(Some(text()))
                .with_active_producers(twice(ProducerState::default()));
            let topic = TopicResponse::default()
                .with_name(name())
                .with_partitions(twice(partition));
            encoded(
                &DescribeProducersResponse::default().with_topics(twice(topic)),
                version,
            )
        }
        65 => {
            use describe_transactions_response::*;
            let topic = TopicData::default()
                .with_topic(name())
                .with_partitions(twice(1));
            let state = TransactionState::default()
                .with_transactional_id(TransactionalId(text()))
                .with_transaction_state(text())
                .with_topics(twice(topic));
            encoded(
                &DescribeTransactionsResponse::default().with_transaction_states(twice(state)),
                version,
            )
        }
        66 => {
            use list_transactions_response::*;
            let state = TransactionState::default()
                .with_transactional_id(TransactionalId(text()))
                .with_transaction_state(text());
            encoded(
                &ListTransactionsResponse::default()
                    .with_unknown_state_filters(twice(text()))
                    .with_transaction_states(twice(state)),
                version,
            )
        }
        28 => {
            use txn_offset_commit_response::*;
            let topic = TxnOffsetCommitResponseTopic::default()
                .with_name(name())
                .with_partitions(twice(TxnOffsetCommitResponsePartition::default()));
            encoded(
                &TxnOffsetCommitResponse::default().with_topics(twice(topic)),
                version,
            )
        }
        32 => {
            use describe_configs_response::*;
            let config = DescribeConfigsResourceResult::default()
                .with_name(text())
                .with_value(Some(text()))
                .with_synonyms(twice(DescribeConfigsSynonym::default()));
            let result = DescribeConfigsResult::default()
                .with_resource_name(text())
                .with_configs(twice(config));
            encoded(
                &DescribeConfigsResponse::default().with_results(twice(result)),
                version,
            )
        }
        37 => {
            use create_partitions_response::*;
            let topic = CreatePartitionsTopicResult::default().with_name(name());
            encoded(
                &CreatePartitionsResponse::default().with_results(twice(topic)),
                version,
            )
        }
        42 => {
            use delete_groups_response::*;
            let group = DeletableGroupResult::default().with_group_id(GroupId(text()));
            encoded(
                &DeleteGroupsResponse::default().with_results(twice(group)),
                version,
            )
        }
        44 => {
            use incremental_alter_configs_response::*;
            let resource = AlterConfigsResourceResponse::default()
                .with_error_message(Some(text()))
                .with_resource_name(text());
            encoded(
                &IncrementalAlterConfigsResponse::default().with_responses(twice(resource)),
                version,
            )
        }
        47 => {
            use offset_delete_response::*;
            let topic = OffsetDeleteResponseTopic::default()
                .with_name(name())
                .with_partitions(twice(OffsetDeleteResponsePartition::default()));
            encoded(
                &OffsetDeleteResponse::default().with_topics(twice(topic)),
                version,
            )
        }
        other => panic!("no sample answer for API {other}: add one"),
    }
}

/// One to four wounds: flipped, replaced, inserted and removed bytes, huge varints, a cut.
fn wound(rng: &mut StdRng, sample: &[u8]) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for _ in 0..rng.random_range(1..=4) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..7) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.random()),
            2 => {
                let length = rng.random_range(1..=5);
                let mut varint = vec![0xff; length];
                varint.push(rng.random_range(0..0x80));
                bytes.splice(at..at, varint);
            }
            3 if at < bytes.len() => drop(bytes.remove(at)),
            4 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            _ if at < bytes.len() => bytes[at] = rng.random(),
            _ => {}
        }
    }
    bytes
}

fn check(key: i16, version: i16, input: &[u8]) -> bool {
    let frame = Bytes::copy_from_slice(input);
    let mut read = false;
    let used =
        allocation_counter::measure(|| read = decode_response(key, version, frame)).bytes_max;
    let limit = AT_LEAST + PER_BYTE * input.len() as u64;
    assert!(
        used <= limit,
        "API {key} v{version}: {used} bytes for the frame {input:02x?}"
    );
    read
}

#[test]
fn every_answer_stays_within_memory_whatever_its_bytes() {
    for &(key, low, high) in RESPONSES {
        for version in low..=high {
            let mut rng = StdRng::seed_from_u64(((key as u64) << 16) | version as u64);
            let sample = sample(key, version);
            assert!(
                check(key, version, &sample),
                "API {key} v{version}: the sample itself"
            );
            let mut survived = 0;
            for _ in 0..inputs() {
                survived += usize::from(check(key, version, &wound(&mut rng, &sample)));
            }
            // Wounds that all fail at once would test nothing behind the first field.
            assert!(
                survived > inputs() / 100,
                "API {key} v{version}: {survived} survived"
            );
        }
    }
}

#[test]
fn an_api_versions_answer_stays_within_memory_too() {
    let mut rng = StdRng::seed_from_u64(18);
    for version in 0..=4 {
        for _ in 0..inputs() {
            let length = rng.random_range(0..200);
            let mut input: Vec<u8> = (0..length).map(|_| rng.random()).collect();
            if let Some(code) = input.get_mut(..2) {
                code.fill(0);
            }
            check(18, version, &input);
        }
    }
}
