//! AddPartitionsToTxn, AddOffsetsToTxn, TxnOffsetCommit, EndTxn, and InitProducerId of
//! transactional ids.

use std::time::Duration;

use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse, EndTxnRequest, EndTxnResponse, InitProducerIdRequest, ProducerId,
    TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};

use super::super::groups::{Committed, Members};
use super::super::state::State;
use super::super::transactions::{Owner, Place, Transaction};
use super::Context;
use crate::wire::codes;

/// The first versions that are of the second protocol (KIP-890).
const SECOND_END: i16 = 5;
const SECOND_COMMIT: i16 = 5;
pub(super) const SECOND_PRODUCE: i16 = 12;
/// The first version that knows TRANSACTION_ABORTABLE.
const KNOWS_ABORTABLE: i16 = 11;

/// InitProducerId of a transactional id.
pub(super) fn init(
    state: &mut State,
    context: &Context,
    request: &InitProducerIdRequest,
) -> Result<Owner, i16> {
    let id = request.transactional_id.as_ref().map(|id| id.to_string());
    let id = id.unwrap_or_default();
    if id.is_empty() {
        return Err(codes::INVALID_REQUEST);
    }
    let timeout = u64::try_from(request.transaction_timeout_ms).unwrap_or(0);
    let timeout = Duration::from_millis(timeout);
    if timeout.is_zero() || timeout > state.defaults.transaction_max_timeout {
        return Err(codes::INVALID_TRANSACTION_TIMEOUT);
    }
    if let Some(code) = state.not_transaction_coordinator(&id, context.broker) {
        return Err(code);
    }
    let (now, delay) = (state.now(), state.defaults.marker_delay);
    let asked = (request.producer_id.0 >= 0).then_some(Owner {
        id: request.producer_id.0,
        epoch: request.producer_epoch,
    });
    let new_id = state.next_producer_id;
    state.next_producer_id += 1;
    match state.transactions.get_mut(&id) {
        Some(transaction) => transaction.init(asked, timeout, new_id, now, delay),
        None => {
            let owner = Owner {
                id: new_id,
                epoch: 0,
            };
            let transaction = Transaction::new(owner, timeout);
            state.transactions.insert(id, transaction);
            Ok(owner)
        }
    }
}

/// The transaction of an id, if this broker coordinates it.
fn found<'a>(
    state: &'a mut State,
    context: &Context,
    id: &str,
) -> Result<&'a mut Transaction, i16> {
    if let Some(code) = context
        .forced
        .or_else(|| state.not_transaction_coordinator(id, context.broker))
    {
        return Err(code);
    }
    let known = state.transactions.get_mut(id);
    known.ok_or(codes::INVALID_PRODUCER_ID_MAPPING)
}

pub(in super::super) fn add_partitions(
    state: &mut State,
    context: &Context,
    request: &AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let topics = &request.v3_and_below_topics;
    let places = topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|partition| (topic.name.to_string(), *partition))
    });
    let places: Vec<Place> = places.collect();
    let exists = |state: &State, (topic, partition): &Place| {
        let topic = state.topics.get(topic);
        topic.is_some_and(|topic| topic.partition(*partition).is_some())
    };
    let unknown: Vec<bool> = places.iter().map(|place| !exists(state, place)).collect();
    let now = state.now();
    let owner = Owner {
        id: request.v3_and_below_producer_id.0,
        epoch: request.v3_and_below_producer_epoch,
    };
    let any_unknown = unknown.contains(&true);
    let outcome =
        found(state, context, &request.v3_and_below_transactional_id).and_then(|transaction| {
            match any_unknown {
                true => Ok(()),
                false => transaction.add(owner, places.iter().cloned(), now),
            }
        });
    let code = |place: &Place| match outcome {
        Err(code) => code,
        Ok(()) if !any_unknown => codes::NONE,
        Ok(()) => match places.iter().position(|known| known == place) {
            Some(at) if unknown[at] => codes::UNKNOWN_TOPIC_OR_PARTITION,
            _ => codes::OPERATION_NOT_ATTEMPTED,
        },
    };
    let results = topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let place = (topic.name.to_string(), *partition);
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*partition)
                .with_partition_error_code(code(&place))
        });
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(partitions.collect())
    });
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results.collect())
}

pub(in super::super) fn add_offsets(
    state: &mut State,
    context: &Context,
    request: &AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let now = state.now();
    let owner = Owner {
        id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    let added = found(state, context, &request.transactional_id)
        .and_then(|transaction| transaction.add_group(owner, &request.group_id, now));
    AddOffsetsToTxnResponse::default().with_error_code(added.err().unwrap_or(codes::NONE))
}

pub(in super::super) fn commit_offsets(
    state: &mut State,
    context: &Context,
    request: &TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let checked = check_commit(state, context, request);
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let known = state.topics.get(&*topic.name.0);
            let known = known.and_then(|known| known.partition(asked.partition_index));
            let code = match (checked, known) {
                (Err(code), _) => code,
                (Ok(()), None) => codes::UNKNOWN_TOPIC_OR_PARTITION,
                (Ok(()), Some(_)) => {
                    let offset = Committed {
                        offset: asked.committed_offset,
                        leader_epoch: asked.committed_leader_epoch,
                        metadata: asked.committed_metadata.as_deref().unwrap_or("").to_owned(),
                    };
                    let place = (topic.name.to_string(), asked.partition_index);
                    let id = request.transactional_id.to_string();
                    if let Some(transaction) = state.transactions.get_mut(&id) {
                        transaction.hold(&request.group_id, place, offset);
                    }
                    codes::NONE
                }
            };
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(asked.partition_index)
                .with_error_code(code)
        });
        TxnOffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}

fn check_commit(
    state: &mut State,
    context: &Context,
    request: &TxnOffsetCommitRequest,
) -> Result<(), i16> {
    let group_id = request.group_id.to_string();
    if let Some(code) = context.code_or(|| state.not_coordinator(&group_id, context.broker)) {
        return Err(code);
    }
    let owner = Owner {
        id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    let now = state.now();
    let second = context.version >= SECOND_COMMIT;
    let transaction = state.transactions.get_mut(&*request.transactional_id.0);
    let transaction = transaction.ok_or(codes::INVALID_PRODUCER_ID_MAPPING)?;
    match second {
        true => transaction.add_group(owner, &group_id, now)?,
        false => transaction.verify_group(owner, &group_id)?,
    }
    let group = state.groups.entry(group_id).or_default();
    group.expire(now);
    let (member, epoch) = (&*request.member_id, request.generation_id);
    let instance = request.group_instance_id.as_deref();
    if member.is_empty() && instance.is_none() && epoch < 0 {
        return Ok(()); // the group alone
    }
    let checked = match &mut group.members {
        Members::Classic(group) => group.check_commit(member, instance, epoch, now),
        Members::Consumer(group) => group.check_commit(member, epoch),
    };
    checked.or_else(|code| match code {
        codes::STALE_MEMBER_EPOCH => Err(codes::ILLEGAL_GENERATION),
        codes::REBALANCE_IN_PROGRESS => Ok(()),
        code => Err(code),
    })
}

pub(in super::super) fn end(
    state: &mut State,
    context: &Context,
    request: &EndTxnRequest,
) -> EndTxnResponse {
    let (now, delay) = (state.now(), state.defaults.marker_delay);
    let owner = Owner {
        id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    let second = context.version >= SECOND_END;
    let new_id = state.next_producer_id;
    state.next_producer_id += i64::from(owner.epoch >= i16::MAX - 2);
    let ended = found(state, context, &request.transactional_id).and_then(|transaction| {
        transaction.end(owner, request.committed, second, new_id, now, delay)
    });
    let answer = EndTxnResponse::default();
    match ended {
        Ok(owner) if second => answer
            .with_producer_id(ProducerId(owner.id))
            .with_producer_epoch(owner.epoch),
        Ok(_) => answer
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
        Err(code) => answer
            .with_error_code(code)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    }
}

/// Whether a batch of a transaction may be appended: its leader asks the coordinator, and with the
/// second protocol makes the partition part of the transaction.
pub(super) fn verify(
    state: &mut State,
    context: &Context,
    id: &str,
    owner: Owner,
    place: Place,
) -> Result<(), i16> {
    let now = state.now();
    let transaction = state.transactions.get_mut(id);
    let transaction = transaction.ok_or(codes::INVALID_PRODUCER_ID_MAPPING)?;
    let verified = match context.version >= SECOND_PRODUCE {
        true => transaction.add(owner, [place], now),
        false => transaction.verify(owner, &place),
    };
    verified.map_err(|code| match code {
        codes::INVALID_TXN_STATE if context.version >= KNOWS_ABORTABLE => {
            codes::TRANSACTION_ABORTABLE
        }
        codes::PRODUCER_FENCED => codes::INVALID_PRODUCER_EPOCH,
        code => code,
    })
}
