//! Requests about a transaction, sent where they belong and again until they are answered for good.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, GroupId,
    InitProducerIdRequest, ProducerId, TopicName, TransactionalId, TxnOffsetCommitRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::machine::{Answer, GroupOffsets, Protocol, Refusal, Request};
use super::verdict::{Asked, Verdict, verdict};
use crate::clock::{Instant, now};
use crate::cluster::{Cluster, CoordinatorKey};
use crate::config::producer::ProducerConfig;
use crate::error::classify::{self, Refresh};
use crate::error::{Certainty, Class, Error, ErrorKind, Result};
use crate::net::Lane;
use crate::net::backoff::Backoff;
use crate::producer::identity::Identity;
use crate::types::{OffsetAndMetadata, TopicPartition};
use crate::wire::{Call, codes, str_bytes};

/// The highest versions that do not mean the second protocol (KIP-890).
const V1_END: i16 = 4;
const V1_COMMIT_OFFSETS: i16 = 4;

/// How long the first waits for the end of the transaction before are: markers are written within
/// milliseconds.
const MARKERS: Duration = Duration::from_millis(5);

/// Sends the request of a transactional id until it is answered for good. What belongs to an open
/// transaction is given up after `default.api.timeout.ms`, or when `is_over` says that the
/// transaction is being aborted; the end of one is asked for until it is known.
pub(crate) async fn ask(
    cluster: &Cluster,
    config: &ProducerConfig,
    name: &str,
    request: &Request,
    is_over: &(dyn Fn() -> bool + Send + Sync),
) -> Answer {
    let give_up = match request {
        Request::InitProducerId(_) | Request::End(..) => None,
        _ => Some(now() + cluster.config().api_timeout),
    };
    let asking = Asking {
        cluster,
        name,
        give_up,
        is_over,
    };
    match request {
        Request::InitProducerId(identity) => {
            let timeout = i32::try_from(config.transaction_timeout.as_millis());
            let timeout = timeout.unwrap_or(i32::MAX);
            asking
                .until_answered(
                    Asked::InitProducerId,
                    None,
                    |offered| Ok((offered, init(name, timeout, *identity))),
                    |response| vec![(None, response.error_code)],
                )
                .await
                .identified(|response| (response.producer_id, response.producer_epoch))
        }
        Request::AddPartitions(identity, partitions) => asking
            .until_answered(
                Asked::AddPartitions,
                None,
                |offered| Ok((offered, add_partitions(name, *identity, partitions))),
                |response| {
                    let topics = response.results_by_topic_v3_and_below.iter();
                    let told = topics.flat_map(|topic| {
                        topic.results_by_partition.iter().map(|partition| {
                            let tp = (&*topic.name.0, partition.partition_index);
                            (tp, partition.partition_error_code)
                        })
                    });
                    each(partitions.iter(), &told.collect())
                },
            )
            .await
            .plain(),
        Request::AddOffsets(identity, group) => asking
            .until_answered(
                Asked::AddOffsets,
                None,
                |offered| Ok((offered, add_offsets(name, *identity, group))),
                |response| vec![(None, response.error_code)],
            )
            .await
            .plain(),
        Request::CommitOffsets(identity, protocol, offsets) => asking
            .until_answered(
                Asked::CommitOffsets,
                Some(offsets.group.group_id()),
                |offered| {
                    let version = match protocol {
                        Protocol::V1 => offered.min(V1_COMMIT_OFFSETS),
                        Protocol::V2 => offered,
                    };
                    Ok((version, commit_offsets(name, *identity, offsets)))
                },
                |response| {
                    let told = response.topics.iter().flat_map(|topic| {
                        topic.partitions.iter().map(|partition| {
                            let tp = (&*topic.name.0, partition.partition_index);
                            (tp, partition.error_code)
                        })
                    });
                    each(offsets.offsets.iter().map(|(tp, _)| tp), &told.collect())
                },
            )
            .await
            .plain(),
        Request::End(identity, protocol, commits) => {
            let asked = match commits {
                true => Asked::EndCommit,
                false => Asked::EndAbort,
            };
            asking
                .until_answered(
                    asked,
                    None,
                    |offered| {
                        let version = match protocol {
                            Protocol::V1 => offered.min(V1_END),
                            Protocol::V2 => offered,
                        };
                        Ok((version, end(name, *identity, *commits)))
                    },
                    |response| vec![(None, response.error_code)],
                )
                .await
                .identified(|response| (response.producer_id, response.producer_epoch))
        }
    }
}

/// The code of each partition that was asked about; what an answer leaves out is asked for again.
fn each<'a>(
    asked: impl Iterator<Item = &'a TopicPartition>,
    told: &BTreeMap<(&str, i32), i16>,
) -> Vec<(Option<TopicPartition>, i16)> {
    let code = |tp: &TopicPartition| told.get(&(&*tp.topic, tp.partition)).copied();
    asked
        .map(|tp| (Some(tp.clone()), code(tp).unwrap_or(codes::CORRUPT_MESSAGE)))
        .collect()
}

struct Asking<'a> {
    cluster: &'a Cluster,
    name: &'a str,
    give_up: Option<Instant>,
    is_over: &'a (dyn Fn() -> bool + Send + Sync),
}

/// What came of asking.
struct Outcome<R> {
    result: Result<R, Refusal>,
    unanswered: bool,
}

impl<R> Outcome<R> {
    fn plain(self) -> Answer {
        Answer {
            result: self.result.map(|_| None),
            unanswered: self.unanswered,
        }
    }

    /// With the identity in the response, if it tells one.
    fn identified(self, told: impl Fn(&R) -> (ProducerId, i16)) -> Answer {
        let identity = |response: R| {
            let (id, epoch) = told(&response);
            (id.0 >= 0).then_some(Identity { id: id.0, epoch })
        };
        Answer {
            result: self.result.map(identity),
            unanswered: self.unanswered,
        }
    }
}

impl Asking<'_> {
    fn gives_up(&self) -> bool {
        self.give_up
            .is_some_and(|at| now() >= at || (self.is_over)())
    }

    /// Asks the coordinator of the group, or of the transactional id, until nothing in its answer
    /// can pass. `codes` are what an answer says, by partition where it does so.
    async fn until_answered<R: Call>(
        &self,
        asked: Asked,
        group: Option<&str>,
        build: impl Fn(i16) -> Result<(i16, R)> + Send + Sync,
        codes: impl Fn(&R::Response) -> Vec<(Option<TopicPartition>, i16)> + Send + Sync,
    ) -> Outcome<R::Response> {
        let key = match group {
            Some(group) => CoordinatorKey::Group(group),
            None => CoordinatorKey::Transaction(self.name),
        };
        let cluster = self.cluster;
        let config = cluster.config();
        let mut backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
        let mut markers = Backoff::new(MARKERS, config.retry_backoff);
        let mut unanswered = false;
        let refusal = |verdict, error: Error, code| Refusal {
            verdict,
            error: error.context(format_args!("{} for '{}'", R::NAME, self.name)),
            code,
        };
        loop {
            let deadline = now() + config.request_timeout;
            let answer = cluster
                .ask_coordinator(key, (Lane::Coordinator, Duration::ZERO), deadline, &build)
                .await;
            let (broker, response) = match answer {
                Ok(answered) => answered,
                Err(error) if error.is_retriable() => {
                    unanswered |= error.certainty() == Some(Certainty::MaybeWritten);
                    if self.gives_up() {
                        return Outcome {
                            result: Err(refusal(Verdict::Abort, error, None)),
                            unanswered,
                        };
                    }
                    tracing::debug!(api = R::NAME, %error, "trying again");
                    cluster.pause(backoff.fail(cluster.clock())).await;
                    continue;
                }
                Err(error) => {
                    let found = verdict_of(&error);
                    return Outcome {
                        result: Err(refusal(found, error, None)),
                        unanswered,
                    };
                }
            };
            let said = codes(&response);
            let find = |wanted: &[Verdict]| {
                let is = |code: i16| wanted.contains(&verdict(asked, code));
                said.iter().find(|(_, code)| is(*code))
            };
            // What cannot pass counts before what may; what names its cause before what does not.
            let told = find(&[Verdict::Fenced, Verdict::Fatal]).or_else(|| {
                let abort = |not: i16| {
                    said.iter()
                        .find(|(_, code)| verdict(asked, *code) == Verdict::Abort && *code != not)
                };
                abort(codes::OPERATION_NOT_ATTEMPTED).or_else(|| abort(codes::NONE))
            });
            if let Some((tp, code)) = told {
                let error = told_of(tp.as_ref(), *code);
                return Outcome {
                    result: Err(refusal(verdict(asked, *code), error, Some(*code))),
                    unanswered,
                };
            }
            let Some((tp, code)) = find(&[Verdict::Again]) else {
                return Outcome {
                    result: Ok(response),
                    unanswered,
                };
            };
            let moved = classify::classify(*code).refresh == Refresh::Coordinator;
            if moved || *code == codes::REQUEST_TIMED_OUT {
                cluster.forget_coordinator(key, broker);
            }
            unanswered |= *code == codes::REQUEST_TIMED_OUT;
            if self.gives_up() {
                let error = told_of(tp.as_ref(), *code);
                return Outcome {
                    result: Err(refusal(Verdict::Abort, error, Some(*code))),
                    unanswered,
                };
            }
            tracing::debug!(api = R::NAME, code, "trying again");
            let wait = match *code {
                codes::CONCURRENT_TRANSACTIONS => markers.fail(cluster.clock()),
                _ => backoff.fail(cluster.clock()),
            };
            cluster.pause(wait).await;
        }
    }
}

fn told_of(tp: Option<&TopicPartition>, code: i16) -> Error {
    match tp {
        None => Error::from_code(code, "the coordinator"),
        Some(tp) => Error::from_code(code, tp).with_topic_partition(tp.clone()),
    }
}

/// What an error that is no code in an answer means: that of finding the coordinator, or of a
/// broker that lacks the request.
fn verdict_of(error: &Error) -> Verdict {
    match error.code() {
        Some(code) => verdict(Asked::FindCoordinator, code.get()),
        None if error.class() == Class::Abortable => Verdict::Abort,
        None if error.kind() == ErrorKind::Authorization => Verdict::Abort,
        None => Verdict::Fatal,
    }
}

fn named(topic: &str) -> TopicName {
    TopicName(str_bytes(topic))
}

fn transactional(name: &str) -> TransactionalId {
    TransactionalId(str_bytes(name))
}

fn init(name: &str, timeout_ms: i32, identity: Option<Identity>) -> InitProducerIdRequest {
    let (id, epoch) = identity.map_or((-1, -1), |identity| (identity.id, identity.epoch));
    InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional(name)))
        .with_transaction_timeout_ms(timeout_ms)
        .with_producer_id(ProducerId(id))
        .with_producer_epoch(epoch)
}

fn add_partitions(
    name: &str,
    identity: Identity,
    partitions: &[TopicPartition],
) -> AddPartitionsToTxnRequest {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for tp in partitions {
        topics.entry(&tp.topic).or_default().push(tp.partition);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        AddPartitionsToTxnTopic::default()
            .with_name(named(topic))
            .with_partitions(partitions)
    });
    AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(transactional(name))
        .with_v3_and_below_producer_id(ProducerId(identity.id))
        .with_v3_and_below_producer_epoch(identity.epoch)
        .with_v3_and_below_topics(topics.collect())
}

fn add_offsets(name: &str, identity: Identity, group: &str) -> AddOffsetsToTxnRequest {
    AddOffsetsToTxnRequest::default()
        .with_transactional_id(transactional(name))
        .with_producer_id(ProducerId(identity.id))
        .with_producer_epoch(identity.epoch)
        .with_group_id(GroupId(str_bytes(group)))
}

fn commit_offsets(
    name: &str,
    identity: Identity,
    offsets: &GroupOffsets,
) -> TxnOffsetCommitRequest {
    let mut topics: BTreeMap<&str, Vec<TxnOffsetCommitRequestPartition>> = BTreeMap::new();
    for (tp, offset) in &offsets.offsets {
        let partitions = topics.entry(&tp.topic).or_default();
        partitions.push(offset_of(tp.partition, offset));
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        TxnOffsetCommitRequestTopic::default()
            .with_name(named(topic))
            .with_partitions(partitions)
    });
    let group = &offsets.group;
    let (member, generation) = match crate::planted("offsets-under-no-generation") {
        true => (StrBytes::default(), -1),
        false => (str_bytes(group.member_id()), group.member_epoch()),
    };
    let instance = group.instance_id().filter(|_| generation >= 0);
    TxnOffsetCommitRequest::default()
        .with_transactional_id(transactional(name))
        .with_group_id(GroupId(str_bytes(group.group_id())))
        .with_producer_id(ProducerId(identity.id))
        .with_producer_epoch(identity.epoch)
        .with_generation_id(generation)
        .with_member_id(member)
        .with_group_instance_id(instance.map(str_bytes))
        .with_topics(topics.collect())
}

fn offset_of(partition: i32, offset: &OffsetAndMetadata) -> TxnOffsetCommitRequestPartition {
    TxnOffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset.offset)
        .with_committed_leader_epoch(offset.leader_epoch.unwrap_or(-1))
        .with_committed_metadata(Some(str_bytes(&offset.metadata)))
}

fn end(name: &str, identity: Identity, commits: bool) -> EndTxnRequest {
    EndTxnRequest::default()
        .with_transactional_id(transactional(name))
        .with_producer_id(ProducerId(identity.id))
        .with_producer_epoch(identity.epoch)
        .with_committed(commits)
}
