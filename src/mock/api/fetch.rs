//! Fetch: sessions, reading, and when an answer is due.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint,
    PartitionData,
};
use kafka_protocol::messages::{FetchRequest, FetchResponse, ProducerId};

use super::super::sessions::{Asked, Place, Wanted};
use super::super::state::State;
use super::{Context, host_port, topic_name};
use crate::wire::codes;

/// A Fetch that was taken in and waits for data.
#[derive(Debug)]
pub(in super::super) struct Fetching {
    asked: Asked,
    min_bytes: usize,
    max_bytes: usize,
    read_committed: bool,
    /// For how long the client would wait.
    pub(in super::super) max_wait: Duration,
}

/// What looking at the logs came to.
#[derive(Debug)]
pub(in super::super) struct Found {
    partitions: Vec<(Place, PartitionData)>,
    bytes: usize,
    failed: bool,
}

/// Takes the request in; an error is the code for the answer as a whole.
pub(in super::super) fn begin(
    state: &mut State,
    context: &Context,
    request: &FetchRequest,
) -> Result<Fetching, i16> {
    if let Some(code) = context.forced {
        return Err(code);
    }
    let broker = state
        .brokers
        .get_mut(&context.broker)
        .ok_or(codes::INVALID_REQUEST)?;
    Ok(Fetching {
        asked: broker.sessions.ask(request)?,
        min_bytes: usize::try_from(request.min_bytes).unwrap_or(0),
        max_bytes: usize::try_from(request.max_bytes).unwrap_or(0),
        read_committed: request.isolation_level == 1,
        max_wait: Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)),
    })
}

impl Fetching {
    /// Reads what is there.
    pub(in super::super) fn look(&self, state: &State, context: &Context) -> Found {
        let mut found = Found {
            partitions: Vec::new(),
            bytes: 0,
            failed: false,
        };
        for (place, wanted) in &self.asked.partitions {
            let left = self.max_bytes.saturating_sub(found.bytes);
            let data = read(
                state,
                context,
                place,
                wanted,
                left,
                found.bytes == 0,
                self.read_committed,
            );
            found.failed |= data.error_code != codes::NONE || diverges(&data);
            found.bytes += data.records.as_ref().map_or(0, Bytes::len);
            found.partitions.push((place.clone(), data));
        }
        found
    }

    /// Whether the answer need not wait any longer.
    pub(in super::super) fn is_due(&self, found: &Found) -> bool {
        found.failed || found.bytes >= self.min_bytes || self.asked.partitions.is_empty()
    }

    /// The answer; what it says is remembered in the session.
    pub(in super::super) fn answer(
        self,
        found: Found,
        state: &mut State,
        context: &Context,
    ) -> FetchResponse {
        let mut leaders = BTreeSet::new();
        let mut topics: Vec<FetchableTopicResponse> = Vec::new();
        for (place, data) in found.partitions {
            let told = (data.high_watermark, data.log_start_offset);
            let has_data = data
                .records
                .as_ref()
                .is_some_and(|records| !records.is_empty());
            let before = self
                .asked
                .partitions
                .get(&place)
                .and_then(|wanted| wanted.told);
            let refused = data.error_code != codes::NONE || diverges(&data);
            let news = has_data || refused || before != Some(told);
            if self.asked.incremental && !news {
                continue;
            }
            if let Some(broker) = state.brokers.get_mut(&context.broker) {
                broker
                    .sessions
                    .told(self.asked.session, &place, told, has_data);
            }
            if data.current_leader.leader_id.0 >= 0 {
                leaders.insert(data.current_leader.leader_id.0);
            }
            match topics.last_mut() {
                Some(last) if *last.topic == *place.topic && last.topic_id == place.id => {
                    last.partitions.push(data);
                }
                _ => topics.push(
                    FetchableTopicResponse::default()
                        .with_topic(topic_name(place.topic))
                        .with_topic_id(place.id)
                        .with_partitions(vec![data]),
                ),
            }
        }
        let endpoints = leaders
            .into_iter()
            .filter(|leader| state.is_alive(*leader))
            .map(|leader| {
                let (host, port) = host_port(state, leader, context.listener);
                NodeEndpoint::default()
                    .with_node_id(leader.into())
                    .with_host(host)
                    .with_port(port)
            });
        let endpoints = endpoints.collect();
        FetchResponse::default()
            .with_session_id(self.asked.session)
            .with_responses(topics)
            .with_node_endpoints(endpoints)
    }
}

fn diverges(data: &PartitionData) -> bool {
    data.diverging_epoch.epoch >= 0
}

fn read(
    state: &State,
    context: &Context,
    place: &Place,
    wanted: &Wanted,
    left: usize,
    at_least_one: bool,
    read_committed: bool,
) -> PartitionData {
    let empty = PartitionData::default()
        .with_partition_index(place.partition)
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        .with_aborted_transactions(read_committed.then(Vec::new))
        .with_records(Some(Bytes::new()));
    let name = match context.version {
        13.. => state.topic_by_id(place.id).map(|(name, _)| name.as_str()),
        _ => Some(place.topic.as_str()),
    };
    let Some(name) = name else {
        return empty.with_error_code(codes::UNKNOWN_TOPIC_ID);
    };
    let partition = match state.led(name, place.partition, context.broker, wanted.leader_epoch) {
        Ok(partition) => partition,
        Err(code) => {
            let known = state
                .topics
                .get(name)
                .and_then(|topic| topic.partition(place.partition));
            let mut refused = empty.with_error_code(code);
            if let Some(known) = known
                && matches!(
                    code,
                    codes::NOT_LEADER_OR_FOLLOWER | codes::FENCED_LEADER_EPOCH
                )
                && context.version >= 16
            {
                refused.current_leader = LeaderIdAndEpoch::default()
                    .with_leader_id(known.leader.into())
                    .with_leader_epoch(known.leader_epoch);
            }
            return refused;
        }
    };
    let log = &partition.log;
    let told = empty
        .with_high_watermark(log.end())
        .with_last_stable_offset(log.last_stable())
        .with_log_start_offset(log.start());
    let out_of_range = || {
        let told = told.clone().with_error_code(codes::OFFSET_OUT_OF_RANGE);
        told.with_high_watermark(-1)
            .with_last_stable_offset(-1)
            .with_log_start_offset(-1)
    };
    if wanted.last_epoch >= 0 {
        // KIP-595: who read what is in this log no more is told where its epoch ends here.
        let (epoch, end) = log.end_of_epoch(wanted.last_epoch);
        if epoch < 0 || end < 0 {
            return out_of_range();
        }
        if epoch < wanted.last_epoch || end < wanted.offset {
            let diverging = EpochEndOffset::default()
                .with_epoch(epoch)
                .with_end_offset(end);
            return told.with_diverging_epoch(diverging);
        }
    }
    if wanted.offset < log.start() || wanted.offset > log.end() {
        return out_of_range();
    }
    let end = match read_committed {
        true => log.last_stable(),
        false => log.end(),
    };
    let records = log.read(wanted.offset, end, wanted.max_bytes.min(left), at_least_one);
    let aborted = || {
        let aborted = log.aborted(wanted.offset, end).into_iter();
        let told = aborted.map(|(producer, first)| {
            AbortedTransaction::default()
                .with_producer_id(ProducerId(producer))
                .with_first_offset(first)
        });
        told.collect()
    };
    told.with_aborted_transactions(read_committed.then(aborted))
        .with_records(Some(records))
}
