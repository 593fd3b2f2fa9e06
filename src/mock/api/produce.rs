//! Produce and InitProducerId.

use std::collections::BTreeSet;

use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};
use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, ProducerId,
};

use super::super::log::{AppendRules, Refused};
use super::super::requests::Api;
use super::super::sequences::Appended;
use super::super::state::{Partition, State};
use super::super::transactions::Owner;
use super::{Context, host_port, transactions, wire};
use crate::record::RecordBatches;
use crate::wire::codes;

/// The answer, and whether anything was refused (without acks that ends the connection).
pub(in super::super) fn produce(
    state: &mut State,
    context: &Context,
    request: &ProduceRequest,
) -> (ProduceResponse, bool) {
    let mut leaders = BTreeSet::new();
    let mut refused = false;
    let mut responses = Vec::new();
    for topic in &request.topic_data {
        let name = match topic.name.is_empty() {
            true => state
                .topic_by_id(topic.topic_id)
                .map(|(name, _)| name.clone()),
            false => Some(topic.name.to_string()),
        };
        let mut partitions = Vec::new();
        for data in &topic.partition_data {
            let mut response = PartitionProduceResponse::default()
                .with_index(data.index)
                .with_base_offset(-1)
                .with_log_append_time_ms(-1)
                .with_log_start_offset(-1);
            let outcome = match (&name, context.forced) {
                (_, Some(code)) => Err(Refused(code, "")),
                (None, _) => Err(Refused(codes::UNKNOWN_TOPIC_ID, "")),
                (Some(name), None) => append(state, context, request, name, data),
            };
            match outcome {
                Ok((appended, start)) => {
                    response.base_offset = appended.base_offset
                        + i64::from(crate::planted("broker-acknowledges-the-wrong-offset"));
                    response.log_append_time_ms = appended.log_append_time;
                    response.log_start_offset = start;
                }
                Err(refusal) => {
                    refused = true;
                    let tells_start = refusal.tells_start() && context.forced.is_none();
                    let Refused(code, why) = refusal;
                    response.error_code = code;
                    if !why.is_empty() {
                        response.error_message = Some(wire(why));
                    }
                    if code == codes::INVALID_RECORD {
                        response.record_errors = vec![BatchIndexAndErrorMessage::default()];
                    }
                    let known = name
                        .as_ref()
                        .and_then(|name| state.topics.get(name)?.partition(data.index));
                    if let (true, Some(known)) = (tells_start, known) {
                        response.log_start_offset = known.log.start();
                    }
                    if let (codes::NOT_LEADER_OR_FOLLOWER, Some(known)) = (code, known)
                        && context.version >= 10
                    {
                        response.current_leader = LeaderIdAndEpoch::default()
                            .with_leader_id(known.leader.into())
                            .with_leader_epoch(known.leader_epoch);
                        leaders.insert(known.leader);
                    }
                }
            }
            partitions.push(response);
        }
        let mut response = TopicProduceResponse::default().with_partition_responses(partitions);
        match context.version {
            13.. => response.topic_id = topic.topic_id,
            _ => response.name = topic.name.clone(),
        }
        responses.push(response);
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
    let response = ProduceResponse::default()
        .with_responses(responses)
        .with_node_endpoints(endpoints);
    (response, refused)
}

fn append(
    state: &mut State,
    context: &Context,
    request: &ProduceRequest,
    name: &str,
    data: &PartitionProduceData,
) -> Result<(Appended, i64), Refused> {
    let code = |code| Refused(code, "");
    let acks = request.acks;
    if !(-1..=1).contains(&acks) {
        return Err(code(codes::INVALID_REQUIRED_ACKS));
    }
    let topic = state
        .topics
        .get(name)
        .ok_or_else(|| code(codes::UNKNOWN_TOPIC_OR_PARTITION))?;
    let partition = state
        .led(name, data.index, context.broker, -1)
        .map_err(code)?;
    let in_sync = partition
        .replicas
        .iter()
        .filter(|id| state.is_alive(**id))
        .count();
    let least: usize = topic.config("min.insync.replicas").parse().unwrap_or(1);
    // More than there are replicas is taken as all of them.
    if acks == -1 && in_sync < least.min(partition.replicas.len()) {
        return Err(code(codes::NOT_ENOUGH_REPLICAS));
    }
    let rules = AppendRules {
        leader_epoch: partition.leader_epoch,
        now_millis: state.wall_millis(),
        max_message_bytes: topic
            .config("max.message.bytes")
            .parse()
            .unwrap_or(1_048_588),
        compacted: topic.config("cleanup.policy").contains("compact"),
    };
    let open = partition_open(partition, data);
    // Before Kafka 3.6 leaders took what came.
    let verifies = state
        .versions(Api::Produce)
        .is_some_and(|(_, high)| high > 9);
    if let Some((owner, false)) = open
        && verifies
    {
        let id = request.transactional_id.as_ref();
        let id = id.map(|id| id.to_string()).unwrap_or_default();
        let place = (name.to_owned(), data.index);
        transactions::verify(state, context, &id, owner, place).map_err(code)?;
    }
    let log = usize::try_from(data.index)
        .ok()
        .and_then(|index| state.topics.get_mut(name)?.partitions.get_mut(index))
        .map(|partition| &mut partition.log)
        .ok_or_else(|| code(codes::UNKNOWN_TOPIC_OR_PARTITION))?;
    let appended = log.append(data.records.clone(), rules, &state.pool)?;
    Ok((appended, log.start()))
}

/// Who writes a batch of a transaction, and whether one of theirs is open in the partition.
fn partition_open(partition: &Partition, data: &PartitionProduceData) -> Option<(Owner, bool)> {
    let mut batches = RecordBatches::new(data.records.clone()?);
    let batch = batches.next()?.ok()?;
    let header = batch.header();
    let owner = Owner {
        id: header.producer_id,
        epoch: header.producer_epoch,
    };
    let open = partition.log.is_open(owner.id, owner.epoch);
    header
        .attributes
        .is_transactional()
        .then_some((owner, open))
}

pub(in super::super) fn init_producer_id(
    state: &mut State,
    context: &Context,
    request: &InitProducerIdRequest,
) -> InitProducerIdResponse {
    let owner = match (context.forced, &request.transactional_id) {
        (Some(code), _) => Err(code),
        (None, Some(_)) => transactions::init(state, context, request),
        (None, None) => {
            state.next_producer_id += 1;
            Ok(Owner {
                id: state.next_producer_id - 1,
                epoch: 0,
            })
        }
    };
    let answer = InitProducerIdResponse::default();
    match owner {
        Ok(owner) => answer
            .with_producer_id(ProducerId(owner.id))
            .with_producer_epoch(owner.epoch),
        Err(code) => answer
            .with_error_code(code)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    }
}
