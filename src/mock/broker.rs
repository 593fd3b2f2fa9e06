//! One request of one broker: read it, apply the rules, do it, write the answer.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Encodable, HeaderVersion};
use tokio::time::{sleep, timeout_at};

use super::api::{self, Context};
use super::groups::Reply;
use super::requests::{Api, Request};
use super::rules::{self, Action, RequestInfo, RuleOutcome};
use super::shared::Shared;
use super::state::Listener;
use crate::clock::{now, sleep_at};
use crate::wire::guard::Guarded;

/// What becomes of the connection after a request.
#[derive(Debug)]
pub(super) enum Outcome {
    Answer(Bytes),
    /// There is nothing to answer (Produce without acks).
    Silence,
    Close,
}

/// Where a request came in.
#[derive(Clone, Debug)]
pub(super) struct At {
    pub(super) broker: i32,
    /// The broker's life in which the connection was made.
    pub(super) life: u64,
    pub(super) listener: Listener,
}

impl At {
    /// Refuses in a way that the mock's user can find, as a broker does in its log.
    fn refuse(&self, what: &str, why: &str) -> Outcome {
        tracing::warn!(
            broker = self.broker,
            "the mock closes a connection: {what}: {why}"
        );
        Outcome::Close
    }
}

/// Handles a frame, without its length.
pub(super) async fn handle(shared: &Arc<Shared>, at: &At, frame: Bytes) -> Outcome {
    let mut front = frame.clone();
    let head = (|| {
        Ok::<_, bytes::TryGetError>((
            front.try_get_i16()?,
            front.try_get_i16()?,
            front.try_get_i32()?,
        ))
    })();
    let Ok((key, version, correlation)) = head else {
        return at.refuse("a request", "it is shorter than its header");
    };
    let Some(api) = Api::from_key(key) else {
        return at.refuse("a request", &format!("API key {key} is not offered"));
    };
    let Some((low, high)) = shared.state().versions(api) else {
        return at.refuse("a request", &format!("{api:?} is not offered"));
    };
    if !(low..=high).contains(&version) {
        if api == Api::ApiVersions {
            return encode(at, &api::cluster::api_versions_refused(), 0, correlation);
        }
        let why = format!("version {version} is not offered, only {low} to {high}");
        return at.refuse(&format!("{api:?}"), &why);
    }
    let (header, request) = match Request::decode(api, version, &mut Guarded::new(frame)) {
        Ok(read) => read,
        Err(error) => return at.refuse(&format!("{api:?} v{version}"), &error),
    };
    if !shared.awake(at).await {
        return Outcome::Close;
    }
    tracing::trace!(broker = at.broker, ?request, "the mock takes a request");
    let client_id = header.client_id.as_deref().unwrap_or_default().to_owned();
    let RuleOutcome { delay, action } = {
        let mut state = shared.state();
        state.requests += 1;
        let topics = request.topics(|id| state.topic_by_id(id).map(|(name, _)| name.clone()));
        rules::judge(
            &mut state.rules,
            &RequestInfo {
                api,
                version,
                broker: at.broker,
                client_id: &client_id,
                topics: &topics,
                group: request.group(),
            },
        )
    };
    if !delay.is_zero() {
        sleep(delay).await;
        if !shared.awake(at).await {
            return Outcome::Close;
        }
    }
    let mut context = Context {
        broker: at.broker,
        version,
        listener: at.listener,
        client_id,
        forced: None,
    };
    match action {
        Some(Action::Drop) => return Outcome::Close,
        Some(Action::Garbage(bytes)) => return Outcome::Answer(bytes),
        Some(Action::Fail(code)) => context.forced = Some(code),
        Some(Action::ApplyThenDrop) => {
            apply(shared, at, &context, request, correlation).await;
            return Outcome::Close;
        }
        Some(Action::ApplyThenFail(code)) => {
            let again = request.clone();
            apply(shared, at, &context, request, correlation).await;
            context.forced = Some(code);
            return apply(shared, at, &context, again, correlation).await;
        }
        Some(Action::Delay(_) | Action::FlipBit(_)) | None => {}
        #[cfg(test)]
        Some(Action::Rewrite(_)) => {}
    }
    let mut outcome = apply(shared, at, &context, request, correlation).await;
    #[cfg(test)]
    if let (Some(Action::Rewrite(rewrite)), Outcome::Answer(bytes)) = (&action, &mut outcome) {
        *bytes = rewrite.apply(bytes, version);
    }
    if let (Some(Action::FlipBit(bit)), Outcome::Answer(bytes)) = (action, &mut outcome) {
        let mut damaged = bytes.to_vec();
        let at = (bit / 8) % damaged.len().max(1);
        if let Some(byte) = damaged.get_mut(at) {
            *byte ^= 1 << (bit % 8);
        }
        *bytes = damaged.into();
    }
    match shared.awake(at).await {
        true => outcome,
        false => Outcome::Close,
    }
}

async fn apply(
    shared: &Arc<Shared>,
    at: &At,
    context: &Context,
    request: Request,
    correlation: i32,
) -> Outcome {
    match request {
        Request::Fetch(request) => {
            return fetch(shared, at, context, &request, correlation).await;
        }
        Request::JoinGroup(request) => {
            let reply = {
                let mut state = shared.state();
                match state.lives(at.broker, at.life) {
                    true => api::classic::join(&mut state, context, &request),
                    false => return Outcome::Close,
                }
            };
            return match answer(shared, &request.group_id, reply).await {
                Some(mut joined) => {
                    api::classic::fit_to_version(&mut joined, context.version);
                    encode(at, &joined, context.version, correlation)
                }
                None => at.refuse("JoinGroup", "the member joined again meanwhile, or left"),
            };
        }
        Request::SyncGroup(request) => {
            let reply = {
                let mut state = shared.state();
                match state.lives(at.broker, at.life) {
                    true => api::classic::sync(&mut state, context, &request),
                    false => return Outcome::Close,
                }
            };
            return match answer(shared, &request.group_id, reply).await {
                Some(synced) => encode(at, &synced, context.version, correlation),
                None => at.refuse("SyncGroup", "the member synced again meanwhile, or left"),
            };
        }
        _ => {}
    }
    let outcome = apply_at_once(shared, at, context, request, correlation);
    // Markers that are to be written at once come after the answer.
    shared.state().settle_transactions();
    // Whoever waits for data or another leader looks again.
    shared.changed.notify_waiters();
    outcome
}

fn apply_at_once(
    shared: &Arc<Shared>,
    at: &At,
    context: &Context,
    request: Request,
    correlation: i32,
) -> Outcome {
    let version = context.version;
    let mut state = shared.state();
    let state = &mut *state;
    if !state.lives(at.broker, at.life) {
        return Outcome::Close;
    }
    state.settle_transactions();
    macro_rules! answer {
        ($response:expr) => {
            encode(at, &$response, version, correlation)
        };
    }
    match request {
        Request::Produce(request) => {
            let (response, refused) = api::produce::produce(state, context, &request);
            match (request.acks, refused) {
                (0, true) => at.refuse("Produce without acks", "a batch was refused"),
                (0, false) => Outcome::Silence,
                _ => answer!(response),
            }
        }
        // Handled apart, since they wait.
        Request::Fetch(_) | Request::JoinGroup(_) | Request::SyncGroup(_) => Outcome::Close,
        Request::ListOffsets(request) => answer!(api::offsets::list(state, context, &request)),
        Request::Metadata(request) => answer!(api::cluster::metadata(state, context, &request)),
        Request::OffsetCommit(request) => answer!(api::commits::commit(state, context, &request)),
        Request::OffsetFetch(request) => {
            answer!(api::commits::fetch(state, context, &request))
        }
        Request::FindCoordinator(request) => {
            answer!(api::cluster::find_coordinator(state, context, &request))
        }
        Request::DescribeGroups(request) => {
            answer!(api::classic::describe(state, context, &request))
        }
        Request::Heartbeat(request) => {
            answer!(api::classic::heartbeat(state, context, &request))
        }
        Request::LeaveGroup(request) => answer!(api::classic::leave(state, context, &request)),
        Request::ListGroups(request) => answer!(api::groups::list(state, context, &request)),
        Request::ApiVersions(_) => answer!(api::cluster::api_versions(state, context)),
        Request::CreateTopics(request) => {
            answer!(api::topics::create_topics(state, context, &request))
        }
        Request::DeleteTopics(request) => {
            answer!(api::topics::delete_topics(state, context, &request))
        }
        Request::AddPartitionsToTxn(request) => {
            answer!(api::transactions::add_partitions(state, context, &request))
        }
        Request::AddOffsetsToTxn(request) => {
            answer!(api::transactions::add_offsets(state, context, &request))
        }
        Request::TxnOffsetCommit(request) => {
            answer!(api::transactions::commit_offsets(state, context, &request))
        }
        Request::EndTxn(request) => answer!(api::transactions::end(state, context, &request)),
        Request::WriteTxnMarkers(request) => {
            answer!(api::transaction_admin::write_markers(
                state, context, &request
            ))
        }
        Request::DescribeProducers(request) => {
            answer!(api::transaction_admin::producers(state, context, &request))
        }
        Request::DescribeTransactions(request) => {
            answer!(api::transaction_admin::describe(state, context, &request))
        }
        Request::ListTransactions(request) => {
            answer!(api::transaction_admin::list(state, context, &request))
        }
        Request::InitProducerId(request) => {
            answer!(api::produce::init_producer_id(state, context, &request))
        }
        Request::OffsetForLeaderEpoch(request) => {
            answer!(api::offsets::for_leader_epoch(state, context, &request))
        }
        Request::DescribeConfigs(request) => {
            answer!(api::configs::describe(state, context, &request))
        }
        Request::CreatePartitions(request) => {
            answer!(api::topics::create_partitions(state, context, &request))
        }
        Request::DeleteRecords(request) => {
            answer!(api::deletions::records(state, context, &request))
        }
        Request::OffsetDelete(request) => {
            answer!(api::deletions::offsets(state, context, &request))
        }
        Request::IncrementalAlterConfigs(request) => {
            answer!(api::alter_configs::alter(state, context, &request))
        }
        Request::DeleteGroups(request) => answer!(api::groups::delete(state, context, &request)),
        Request::ListPartitionReassignments(_) => answer!(api::topics::reassignments(context)),
        Request::DescribeCluster(request) => {
            answer!(api::cluster::describe_cluster(state, context, &request))
        }
        Request::ConsumerGroupHeartbeat(request) => {
            answer!(api::groups::heartbeat(state, context, &request))
        }
        Request::ConsumerGroupDescribe(request) => {
            answer!(api::groups::describe(state, context, &request))
        }
        Request::DescribeTopicPartitions(request) => {
            answer!(api::cluster::describe_topic_partitions(
                state, context, &request
            ))
        }
    }
}

/// Looks at the logs, and again whenever something changed, until there is enough or time is up.
async fn fetch(
    shared: &Arc<Shared>,
    at: &At,
    context: &Context,
    request: &kafka_protocol::messages::FetchRequest,
    correlation: i32,
) -> Outcome {
    let begun = api::fetch::begin(&mut shared.state(), context, request);
    let fetching = match begun {
        Ok(fetching) => fetching,
        Err(code) => {
            let response = kafka_protocol::messages::FetchResponse::default().with_error_code(code);
            return encode(at, &response, context.version, correlation);
        }
    };
    let deadline = now() + fetching.max_wait;
    loop {
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let over = now() >= deadline;
        let next = {
            let mut state = shared.state();
            state.settle_transactions();
            let found = fetching.look(&state, context);
            if over || fetching.is_due(&found) {
                let response = fetching.answer(found, &mut state, context);
                return encode(at, &response, context.version, correlation);
            }
            state.next_settlement()
        };
        let _ = timeout_at(next.map_or(deadline, |next| deadline.min(next)), changed).await;
    }
}

/// Waits until a group has an answer; None if there will be none.
async fn answer<T>(shared: &Arc<Shared>, group: &str, mut reply: Reply<T>) -> Option<T> {
    // Others may have got theirs by this request.
    shared.changed.notify_waiters();
    loop {
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let next = {
            let mut state = shared.state();
            let (now, skew) = (state.now(), state.skew);
            state.groups.get_mut(group).and_then(|group| {
                group.expire(now);
                group.next_deadline()?.checked_sub(skew)
            })
        };
        reply = match Arc::try_unwrap(reply) {
            // The group has let go of it, answered or not.
            Ok(answer) => {
                shared.changed.notify_waiters();
                return answer.into_inner();
            }
            Err(reply) => reply,
        };
        tokio::select! {
            () = changed => {}
            () = sleep_at(next) => {}
        }
    }
}

fn encode<T: Encodable + HeaderVersion>(
    at: &At,
    response: &T,
    version: i16,
    correlation: i32,
) -> Outcome {
    let mut buf = BytesMut::with_capacity(256);
    buf.put_i32(0);
    buf.put_i32(correlation);
    if T::header_version(version) >= 1 {
        buf.put_u8(0);
    }
    if let Err(error) = response.encode(&mut buf, version) {
        return at.refuse("an answer cannot be written", &error.to_string());
    }
    let length = u32::try_from(buf.len() - 4).unwrap_or(u32::MAX);
    if let Some(front) = buf.first_chunk_mut::<4>() {
        *front = length.to_be_bytes();
    }
    Outcome::Answer(buf.freeze())
}
