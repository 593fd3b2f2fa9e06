//! DescribeProducers, DescribeTransactions, ListTransactions and WriteTxnMarkers (KIP-664).

use std::time::Duration;

use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::list_transactions_response::TransactionState as Listing;
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeProducersResponse, DescribeTransactionsRequest,
    DescribeTransactionsResponse, ListTransactionsRequest, ListTransactionsResponse, ProducerId,
    TransactionalId, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};
use regex_lite::Regex;

use super::super::state::{State, transaction_key};
use super::super::transactions::{Phase, Transaction};
use super::{Context, topic_name, wire};
use crate::clock::Instant;
use crate::wire::codes;

const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

fn open_for(transaction: &Transaction, now: Instant) -> Option<Duration> {
    let started = transaction.started()?;
    (transaction.phase == Phase::Ongoing).then(|| now.saturating_duration_since(started))
}

pub(in super::super) fn list(
    state: &mut State,
    context: &Context,
    request: &ListTransactionsRequest,
) -> ListTransactionsResponse {
    let answer = ListTransactionsResponse::default();
    if let Some(code) = context.forced {
        return answer.with_error_code(code);
    }
    let pattern = request.transactional_id_pattern.as_deref().unwrap_or(".*");
    let Ok(pattern) = Regex::new(&format!("^(?:{pattern})$")) else {
        return answer.with_error_code(codes::INVALID_REGULAR_EXPRESSION);
    };
    let filters = request.state_filters.iter();
    let unknown = filters.filter(|filter| !STATES.contains(&filter.as_str()));
    let answer = answer.with_unknown_state_filters(unknown.cloned().collect());
    let now = state.now();
    let ids: Vec<String> = state.transactions.keys().cloned().collect();
    let here = |id: &String| state.coordinator(&transaction_key(id)) == Some(context.broker);
    let here: Vec<String> = ids.into_iter().filter(here).collect();
    let longer = u128::try_from(request.duration_filter).ok();
    let listed = here.iter().filter_map(|id| {
        let transaction = state.transactions.get(id)?;
        let (name, owner) = (transaction.phase.name(), transaction.owner.id);
        let (states, owners) = (&request.state_filters, &request.producer_id_filters);
        let wanted = (states.is_empty() || states.iter().any(|state| state == name))
            && (owners.is_empty() || owners.iter().any(|id| id.0 == owner))
            && pattern.is_match(id)
            && longer.is_none_or(|longer| {
                open_for(transaction, now).is_some_and(|time| time.as_millis() > longer)
            });
        wanted.then(|| {
            Listing::default()
                .with_transactional_id(TransactionalId(wire(id.as_str())))
                .with_producer_id(ProducerId(owner))
                .with_transaction_state(wire(name))
        })
    });
    let listed = listed.collect();
    answer.with_transaction_states(listed)
}

pub(in super::super) fn describe(
    state: &mut State,
    context: &Context,
    request: &DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let (now, time) = (state.now(), state.wall_millis());
    let mut described = Vec::new();
    for id in &request.transactional_ids {
        let answer = TransactionState::default().with_transactional_id(id.clone());
        let refused = context.forced;
        let refused = refused.or_else(|| state.not_transaction_coordinator(id, context.broker));
        let known = match (refused, state.transactions.get(id.as_str())) {
            (None, Some(known)) => known,
            (code, _) => {
                let code = code.unwrap_or(codes::TRANSACTIONAL_ID_NOT_FOUND);
                described.push(answer.with_error_code(code));
                continue;
            }
        };
        let open = open_for(known, now).map(|open| i64::try_from(open.as_millis()).unwrap_or(0));
        let mut topics: Vec<TopicData> = Vec::new();
        for (topic, partition) in &known.partitions {
            match topics
                .last_mut()
                .filter(|last| *last.topic.0 == *topic.as_str())
            {
                Some(last) => last.partitions.push(*partition),
                None => {
                    let topic = TopicData::default().with_topic(topic_name(topic.as_str()));
                    topics.push(topic.with_partitions(vec![*partition]));
                }
            }
        }
        described.push(
            answer
                .with_transaction_state(wire(known.phase.name()))
                .with_transaction_timeout_ms(i32::try_from(known.timeout.as_millis()).unwrap_or(0))
                .with_transaction_start_time_ms(open.map_or(-1, |open| time - open))
                .with_producer_id(ProducerId(known.owner.id))
                .with_producer_epoch(known.owner.epoch)
                .with_topics(topics),
        );
    }
    DescribeTransactionsResponse::default().with_transaction_states(described)
}

pub(in super::super) fn producers(
    state: &State,
    context: &Context,
    request: &DescribeProducersRequest,
) -> DescribeProducersResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|index| {
            let answer = PartitionResponse::default().with_partition_index(*index);
            let led = match context.forced {
                Some(code) => Err(code),
                None => state.led(&topic.name, *index, context.broker, -1),
            };
            match led {
                Ok(partition) => {
                    let producers = partition.log.producers().map(|producer| {
                        ProducerState::default()
                            .with_producer_id(ProducerId(producer.id))
                            .with_producer_epoch(producer.epoch.into())
                            .with_last_sequence(producer.last_sequence)
                            .with_last_timestamp(producer.last_timestamp)
                            .with_coordinator_epoch(if producer.marked { 0 } else { -1 })
                            .with_current_txn_start_offset(producer.open.unwrap_or(-1))
                    });
                    answer.with_active_producers(producers.collect())
                }
                Err(code) => answer.with_error_code(code),
            }
        });
        TopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}

pub(in super::super) fn write_markers(
    state: &mut State,
    context: &Context,
    request: &WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    let time = state.wall_millis();
    let markers = request.markers.iter().map(|marker| {
        let topics = marker.topics.iter().map(|topic| {
            let partitions = topic.partition_indexes.iter().map(|index| {
                let led = match context.forced {
                    Some(code) => Err(code),
                    None => state.led_mut(&topic.name, *index, context.broker),
                };
                let written = led.and_then(|partition| {
                    let epoch = marker.producer_epoch;
                    if partition.log.is_newer(marker.producer_id.0, epoch) {
                        return Err(codes::INVALID_PRODUCER_EPOCH);
                    }
                    let (commits, leader) = (marker.transaction_result, partition.leader_epoch);
                    let log = &mut partition.log;
                    log.mark(marker.producer_id.0, epoch, commits, leader, time);
                    Ok(())
                });
                WritableTxnMarkerPartitionResult::default()
                    .with_partition_index(*index)
                    .with_error_code(written.err().unwrap_or(codes::NONE))
            });
            WritableTxnMarkerTopicResult::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        WritableTxnMarkerResult::default()
            .with_producer_id(marker.producer_id)
            .with_topics(topics.collect())
    });
    WriteTxnMarkersResponse::default().with_markers(markers.collect())
}
