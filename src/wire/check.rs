//! Contradictions within one answer, which no sound broker sends, of whatever make: the bytes were
//! damaged on their way.
//!
//! Codes, offsets, ids and epochs stand outside of every checksum. What contradicts itself is an
//! error of the connection and asked for again. Default values beside an error are none: some
//! brokers leave all other fields at 0. What contradicts the request is judged by whoever has that
//! at hand.

/// The generated messages, but for those that are written by hand here.
mod kp {
    pub(super) use crate::wire::offsets::{OffsetCommitResponse, OffsetFetchResponse};
    pub(super) use kafka_protocol::messages::*;
}

type Checked = Result<(), &'static str>;

fn all(mut sound: impl Iterator<Item = bool>, why: &'static str) -> Checked {
    match sound.all(|sound| sound) {
        true => Ok(()),
        false => Err(why),
    }
}

/// Everything is looked up by these.
const NUMBERED: &str = "a partition has a negative number";

pub(super) fn metadata(answer: &kp::MetadataResponse) -> Checked {
    let brokers = answer.brokers.iter();
    let reachable = |port| u16::try_from(port).is_ok();
    all(
        brokers.map(|broker| broker.node_id.0 >= 0 && reachable(broker.port)),
        "a broker has a negative id, or a port that there is not",
    )?;
    all(
        answer
            .topics
            .iter()
            .map(|topic| topic.name.is_some() || !topic.topic_id.is_nil()),
        "a topic has neither a name nor an id",
    )?;
    let topics = answer.topics.iter().filter(|topic| topic.error_code == 0);
    let partitions = || topics.clone().flat_map(|topic| &topic.partitions);
    all(partitions().map(|part| part.partition_index >= 0), NUMBERED)?;
    all(
        partitions().map(|part| part.leader_id.0 >= -1 && part.leader_epoch >= -1),
        "a leader's id or epoch is negative",
    )
}

pub(super) fn produce(answer: &kp::ProduceResponse) -> Checked {
    let parts = || {
        answer
            .responses
            .iter()
            .flat_map(|topic| &topic.partition_responses)
    };
    all(parts().map(|part| part.index >= 0), NUMBERED)?;
    all(
        parts().map(|part| part.error_code != 0 || part.base_offset >= -1),
        "the offset of an acknowledged batch is negative",
    )
}

pub(super) fn fetch(answer: &kp::FetchResponse) -> Checked {
    let parts = || answer.responses.iter().flat_map(|topic| &topic.partitions);
    all(parts().map(|part| part.partition_index >= 0), NUMBERED)?;
    let records = |part: &kp::fetch_response::PartitionData| {
        part.records
            .as_ref()
            .is_some_and(|records| !records.is_empty())
    };
    all(
        parts().map(|part| !records(part) || part.error_code == 0 && answer.error_code == 0),
        "there are records beside an error",
    )?;
    all(
        parts().map(|part| part.error_code != 0 || part.high_watermark >= -1),
        "the end of a log is negative",
    )
}

pub(super) fn list_offsets(answer: &kp::ListOffsetsResponse) -> Checked {
    let parts = || answer.topics.iter().flat_map(|topic| &topic.partitions);
    all(parts().map(|part| part.partition_index >= 0), NUMBERED)?;
    all(
        parts().map(|part| part.error_code != 0 || part.offset >= -1 && part.leader_epoch >= -1),
        "an offset or its epoch is negative",
    )
}

pub(super) fn offset_fetch(answer: &kp::OffsetFetchResponse) -> Checked {
    let topics = || answer.groups.iter().flat_map(|group| &group.topics);
    let parts = || topics().flat_map(|topic| &topic.partitions);
    all(parts().map(|(number, _)| *number >= 0), NUMBERED)?;
    all(
        parts().map(|(_, found)| found.error_code == 0 || found.offset <= 0),
        "there is an offset beside an error",
    )
}

pub(super) fn offset_commit(answer: &kp::OffsetCommitResponse) -> Checked {
    let parts = answer.topics.iter().flat_map(|topic| &topic.partitions);
    all(parts.map(|(number, _)| *number >= 0), NUMBERED)
}

pub(super) fn init_producer_id(answer: &kp::InitProducerIdResponse) -> Checked {
    let given = answer.producer_id.0 >= 0 && answer.producer_epoch >= 0;
    all(
        std::iter::once(answer.error_code != 0 || given),
        "there is neither an identity nor an error",
    )
}

pub(super) fn end_txn(answer: &kp::EndTxnResponse) -> Checked {
    let (id, epoch) = (answer.producer_id.0, answer.producer_epoch);
    // Before version 5 there is neither.
    all(
        std::iter::once((id < 0 && epoch < 0) || (id >= 0 && epoch >= 0)),
        "there is half an identity",
    )
}

pub(super) fn heartbeat(answer: &kp::ConsumerGroupHeartbeatResponse) -> Checked {
    let told = answer.assignment.iter();
    let told = || told.clone().flat_map(|told| &told.topic_partitions);
    all(
        told().map(|_| answer.error_code == 0),
        "there is an assignment beside an error",
    )?;
    all(
        told().map(|topic| !topic.topic_id.is_nil()),
        "a topic that is assigned has no id",
    )?;
    all(
        told()
            .flat_map(|topic| &topic.partitions)
            .map(|number| *number >= 0),
        NUMBERED,
    )
}

pub(super) fn describe_groups(answer: &kp::DescribeGroupsResponse) -> Checked {
    let groups = answer.groups.iter();
    all(
        groups.map(|group| group.error_code == 0 || group.members.is_empty()),
        MEMBERS,
    )
}

pub(super) fn describe_new_groups(answer: &kp::ConsumerGroupDescribeResponse) -> Checked {
    let groups = answer.groups.iter();
    all(
        groups.map(|group| group.error_code == 0 || group.members.is_empty()),
        MEMBERS,
    )
}

const MEMBERS: &str = "there are members beside an error";

pub(super) fn delete_topics(answer: &kp::DeleteTopicsResponse) -> Checked {
    all(
        answer
            .responses
            .iter()
            .map(|topic| topic.name.is_some() || !topic.topic_id.is_nil()),
        "a topic has neither a name nor an id",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kafka_protocol::messages::consumer_group_heartbeat_response as heartbeats;
    use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
    use kafka_protocol::messages::metadata_response as metadatas;

    fn fetched(part: PartitionData) -> Checked {
        let topic = FetchableTopicResponse::default().with_partitions(vec![part]);
        fetch(&kp::FetchResponse::default().with_responses(vec![topic]))
    }

    #[test]
    fn data_and_errors_exclude_each_other() {
        let data = || PartitionData::default().with_records(Some(Bytes::from_static(b"batch")));
        assert_eq!(fetched(data()), Ok(()));
        assert!(fetched(data().with_error_code(6)).is_err());
        assert!(fetched(data().with_partition_index(-3)).is_err());
        let topics = vec![heartbeats::TopicPartitions::default()];
        let told = heartbeats::Assignment::default().with_topic_partitions(topics);
        let answer = kp::ConsumerGroupHeartbeatResponse::default();
        assert!(heartbeat(&answer.with_error_code(16).with_assignment(Some(told))).is_err());
        let nobody = kp::InitProducerIdResponse::default().with_producer_id((-1).into());
        assert!(init_producer_id(&nobody).is_err());
        assert_eq!(init_producer_id(&nobody.with_error_code(14)), Ok(()));
    }

    /// As brokers do that are not Apache's.
    #[test]
    fn defaults_beside_an_error_are_no_data() {
        let refused = PartitionData::default().with_error_code(6);
        assert_eq!(fetched(refused.clone()), Ok(()));
        let empty = refused.with_records(Some(Bytes::new()));
        assert_eq!(fetched(empty.with_high_watermark(0)), Ok(()));
        let none = kp::ConsumerGroupHeartbeatResponse::default().with_error_code(16);
        let nothing = heartbeats::Assignment::default();
        assert_eq!(heartbeat(&none.with_assignment(Some(nothing))), Ok(()));
    }

    #[test]
    fn topics_have_a_name_or_an_id_and_brokers_an_address() {
        let answer = |topic: metadatas::MetadataResponseTopic| {
            metadata(&kp::MetadataResponse::default().with_topics(vec![topic]))
        };
        let nameless = metadatas::MetadataResponseTopic::default().with_name(None);
        assert!(answer(nameless.clone()).is_err());
        assert_eq!(answer(nameless.with_topic_id(uuid::Uuid::max())), Ok(()));
        let nowhere = metadatas::MetadataResponseBroker::default().with_port(1 << 20);
        let answer = kp::MetadataResponse::default().with_brokers(vec![nowhere]);
        assert!(metadata(&answer).is_err());
    }
}
