//! Classic groups of a whole cluster: which answers wait, for what, and what there is to look at.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest,
    JoinGroupResponse, RequestHeader, ResponseHeader, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

use super::broker::{self, Outcome};
use super::state::Listener;
use super::{Api, MockCluster, MockClusterBuilder};
use crate::clock::now;
use crate::error::Result;
use crate::types::TopicPartition;
use crate::wire::codes;

fn builder() -> MockClusterBuilder {
    MockCluster::builder().seed(7).topic("t", 2)
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// None if the connection ended.
async fn ask<Q, A>(mock: &MockCluster, api: Api, version: i16, request: &Q) -> Option<A>
where
    Q: Encodable + HeaderVersion,
    A: Decodable + HeaderVersion,
{
    let at = broker::At {
        broker: mock.coordinator("g").unwrap(),
        life: 1,
        listener: Listener::Memory,
    };
    let header = RequestHeader::default()
        .with_request_api_key(api.key())
        .with_request_api_version(version)
        .with_client_id(Some(text("c")));
    let mut frame = BytesMut::new();
    header
        .encode(&mut frame, Q::header_version(version))
        .unwrap();
    request.encode(&mut frame, version).unwrap();
    let outcome = broker::handle(&mock.shared, &at, frame.freeze()).await;
    let Outcome::Answer(mut answer) = outcome else {
        return None;
    };
    answer.advance(4);
    ResponseHeader::decode(&mut answer, A::header_version(version)).unwrap();
    Some(A::decode(&mut answer, version).unwrap())
}

async fn join(mock: &MockCluster, id: &str, metadata: impl Into<Bytes>) -> JoinGroupResponse {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(metadata.into());
    let request = JoinGroupRequest::default()
        .with_group_id(text("g").into())
        .with_member_id(text(id))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
        .with_session_timeout_ms(45_000)
        .with_rebalance_timeout_ms(60_000);
    ask(mock, Api::JoinGroup, 9, &request).await.unwrap()
}

/// Joins with an id that it is given first.
async fn come(mock: &MockCluster) -> JoinGroupResponse {
    let given = join(mock, "", "m").await;
    assert_eq!(given.error_code, codes::MEMBER_ID_REQUIRED);
    join(mock, &given.member_id, "m").await
}

async fn sync(
    mock: &MockCluster,
    joined: &JoinGroupResponse,
    assignments: &[(&str, Bytes)],
) -> SyncGroupResponse {
    let one = |(id, assignment): &(&str, Bytes)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(text(id))
            .with_assignment(assignment.clone())
    };
    let request = SyncGroupRequest::default()
        .with_group_id(text("g").into())
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_protocol_type(joined.protocol_type.clone())
        .with_protocol_name(joined.protocol_name.clone())
        .with_assignments(assignments.iter().map(one).collect());
    ask(mock, Api::SyncGroup, 5, &request).await.unwrap()
}

async fn beat(mock: &MockCluster, joined: &JoinGroupResponse) -> i16 {
    let request = HeartbeatRequest::default()
        .with_group_id(text("g").into())
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone());
    let answer: HeartbeatResponse = ask(mock, Api::Heartbeat, 4, &request).await.unwrap();
    answer.error_code
}

/// An assignment as consumers write it.
fn assignment(topic: &str, partitions: &[i32]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(3);
    bytes.put_i32(1);
    bytes.put_i16(topic.len() as i16);
    bytes.put_slice(topic.as_bytes());
    bytes.put_i32(partitions.len() as i32);
    for partition in partitions {
        bytes.put_i32(*partition);
    }
    bytes.put_i32(-1);
    bytes.freeze()
}

#[tokio::test(start_paused = true)]
async fn joins_wait_for_all_members_and_syncs_for_the_leaders() -> Result<()> {
    let mock = builder().start().await?;
    let a = come(&mock).await;
    sync(&mock, &a, &[]).await;
    let begun = now();
    let (b, a) = tokio::join!(come(&mock), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(beat(&mock, &a).await, codes::REBALANCE_IN_PROGRESS);
        join(&mock, &a.member_id, "m").await
    });
    assert_eq!(now() - begun, Duration::from_secs(5));
    assert_eq!(
        (a.generation_id, b.generation_id, a.members.len()),
        (2, 2, 2)
    );
    let parts = [
        (&*a.member_id, assignment("t", &[1])),
        (&*b.member_id, assignment("t", &[0])),
    ];
    let (synced, _) = tokio::join!(sync(&mock, &b, &[]), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        sync(&mock, &a, &parts).await
    });
    assert_eq!(now() - begun, Duration::from_secs(10));
    assert_eq!(synced.assignment, parts[1].1);
    let group = mock.group("g").unwrap();
    assert_eq!((group.state.as_str(), group.epoch), ("Stable", 2));
    let of = |id: &StrBytes| {
        let mut members = group.members.iter();
        members
            .find(|member| member.id == **id)
            .unwrap()
            .partitions
            .clone()
    };
    assert_eq!(of(&a.member_id), [TopicPartition::new("t", 1)]);
    assert_eq!(of(&b.member_id), [TopicPartition::new("t", 0)]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_with_time() -> Result<()> {
    let delay = Duration::from_secs(3);
    let mock = builder().initial_rebalance_delay(delay).start().await?;
    let begun = now();
    let (a, b) = tokio::join!(come(&mock), come(&mock));
    assert_eq!(now() - begun, 2 * delay, "put off by the second");
    assert_eq!(a.members.len() + b.members.len(), 2);
    sync(&mock, &a, &[]).await;
    let ((), c) = tokio::join!(
        async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            mock.advance(Duration::from_secs(60));
        },
        come(&mock)
    );
    assert_eq!(c.members.len(), 1, "the others did not join again");
    assert_eq!(now() - begun, 2 * delay + Duration::from_secs(1));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn who_waits_at_a_broker_that_coordinates_no_more_is_told() -> Result<()> {
    let mock = builder().brokers(2).start().await?;
    let a = come(&mock).await;
    sync(&mock, &a, &[]).await;
    let other = 3 - mock.coordinator("g").unwrap();
    let (b, moved) = tokio::join!(come(&mock), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        mock.move_coordinator("g", other)
    });
    moved?;
    assert_eq!(b.error_code, codes::NOT_COORDINATOR);
    assert_eq!(beat(&mock, &a).await, codes::NONE, "it is stable again");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_members_say_in_other_bytes_than_a_consumers_is_no_assignment() -> Result<()> {
    let mock = builder().start().await?;
    let huge = assignment("t", &[]).slice(..9);
    let short = assignment("t", &[1, 2]).slice(..15);
    for bytes in [Bytes::from_static(b"\0\0\x7f\xff\xff\xff"), huge, short] {
        let a = come(&mock).await;
        let id = a.member_id.to_string();
        sync(&mock, &a, &[(&id, bytes.clone())]).await;
        let group = mock.group("g").unwrap();
        assert!(group.members[0].partitions.is_empty(), "{bytes:?}");
        mock.advance(Duration::from_secs(60));
        assert_eq!(mock.group("g").unwrap().state, "Empty");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_request_can_be_left_out() -> Result<()> {
    let mock = builder()
        .without(Api::ConsumerGroupHeartbeat)
        .start()
        .await?;
    let request = ApiVersionsRequest::default();
    let offered: ApiVersionsResponse = ask(&mock, Api::ApiVersions, 3, &request).await.unwrap();
    let has = |api: Api| offered.api_keys.iter().any(|key| key.api_key == api.key());
    assert!(has(Api::JoinGroup) && !has(Api::ConsumerGroupHeartbeat));
    let request = ConsumerGroupHeartbeatRequest::default();
    let answer: Option<HeartbeatResponse> =
        ask(&mock, Api::ConsumerGroupHeartbeat, 1, &request).await;
    assert!(answer.is_none(), "the connection ends");
    Ok(())
}

/// What a consumer says that wants `t` and has so many partitions of it.
fn subscription(owned: &[i32]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(1);
    bytes.put_i32(1);
    bytes.put_slice(b"\0\x01t");
    bytes.put_i32(-1);
    // The owned partitions are written as an assignment is.
    let owned = assignment("t", owned);
    bytes.put_slice(&owned[2..owned.len() - 4]);
    bytes.freeze()
}

/// A heartbeat of KIP-848, and the number of partitions that it tells.
async fn modern(mock: &MockCluster, epoch: i32) -> (ConsumerGroupHeartbeatResponse, Option<usize>) {
    let joins = epoch == 0;
    let request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(text("g").into())
        .with_member_id(text("m"))
        .with_member_epoch(epoch)
        .with_rebalance_timeout_ms(if joins { 60_000 } else { -1 })
        .with_subscribed_topic_names(joins.then(|| vec![text("t").into()]))
        .with_topic_partitions(joins.then(Vec::new));
    let api = Api::ConsumerGroupHeartbeat;
    let answer: ConsumerGroupHeartbeatResponse = ask(mock, api, 1, &request).await.unwrap();
    let told = answer.assignment.as_ref().map(|told| {
        let parts = told.topic_partitions.iter();
        parts.map(|part| part.partitions.len()).sum()
    });
    (answer, told)
}

/// A group of one classic member that has both partitions.
async fn alone(mock: &MockCluster) -> JoinGroupResponse {
    let given = join(mock, "", subscription(&[])).await;
    let a = join(mock, &given.member_id, subscription(&[])).await;
    let id = a.member_id.to_string();
    sync(mock, &a, &[(&id, assignment("t", &[0, 1]))]).await;
    a
}

#[tokio::test(start_paused = true)]
async fn a_group_migrates_member_by_member_and_back() -> Result<()> {
    let mock = builder().start().await?;
    let a = alone(&mock).await;
    let (joined, told) = modern(&mock, 0).await;
    assert_eq!(
        (joined.error_code, joined.member_epoch, told),
        (codes::NONE, 2, Some(0))
    );
    assert_eq!(mock.group("g").unwrap().state, "Reconciling");

    // The classic member joins again, gives one partition up, and joins without it.
    assert_eq!(beat(&mock, &a).await, codes::REBALANCE_IN_PROGRESS);
    let a = join(&mock, &a.member_id, subscription(&[0, 1])).await;
    assert_eq!((a.error_code, a.generation_id), (codes::NONE, 1));
    assert_eq!(a.protocol_name.as_deref(), Some("range"));
    let kept = sync(&mock, &a, &[]).await;
    assert_eq!(kept.error_code, codes::NONE);
    let mut ends = kept.assignment.slice(kept.assignment.len() - 8..);
    let partition = ends.get_i32();
    assert_eq!(&kept.assignment[2..], &assignment("t", &[partition])[2..]);
    assert_eq!(modern(&mock, 2).await.1, None, "it is not free yet");
    assert_eq!(beat(&mock, &a).await, codes::REBALANCE_IN_PROGRESS);
    let a = join(&mock, &a.member_id, subscription(&[partition])).await;
    assert_eq!((a.error_code, a.generation_id), (codes::NONE, 2));
    assert_eq!(sync(&mock, &a, &[]).await.assignment, kept.assignment);
    assert_eq!(beat(&mock, &a).await, codes::NONE);
    assert_eq!(modern(&mock, 2).await.1, Some(1));
    assert_eq!(mock.group("g").unwrap().state, "Stable");
    let mut old = a.clone();
    old.generation_id = 1;
    assert_eq!(beat(&mock, &old).await, codes::ILLEGAL_GENERATION);
    assert_eq!(
        sync(&mock, &old, &[]).await.error_code,
        codes::ILLEGAL_GENERATION
    );
    old.protocol_name = Some(text("sticky"));
    old.generation_id = 2;
    let refused = sync(&mock, &old, &[]).await.error_code;
    assert_eq!(refused, codes::INCONSISTENT_GROUP_PROTOCOL);

    let lacking = JoinGroupRequest::default()
        .with_group_id(text("g").into())
        .with_member_id(a.member_id.clone())
        .with_protocol_type(text("connect"))
        .with_session_timeout_ms(45_000);
    let lacking: JoinGroupResponse = ask(&mock, Api::JoinGroup, 9, &lacking).await.unwrap();
    assert_eq!(lacking.error_code, codes::INCONSISTENT_GROUP_PROTOCOL);

    // The last member of KIP-848 goes.
    modern(&mock, -1).await;
    assert_eq!(mock.group("g").unwrap().state, "PreparingRebalance");
    assert_eq!(
        mock.group("g").unwrap().epoch,
        2,
        "as the classic member knows it"
    );
    // As long as it has not joined again, it has what it had: nobody else may get that.
    let group = mock.group("g").unwrap();
    let has = [TopicPartition::new("t", partition)];
    assert_eq!(group.members[0].partitions, has);
    assert_eq!(beat(&mock, &a).await, codes::REBALANCE_IN_PROGRESS);
    let again = join(&mock, &a.member_id, subscription(&[partition])).await;
    assert_eq!(
        (again.generation_id, again.members.len()),
        (a.generation_id + 1, 1)
    );
    assert_eq!(again.leader, a.member_id);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_a_classic_group_that_is_upgraded_is_told_to_join_again() -> Result<()> {
    let mock = builder().start().await?;
    let _ = alone(&mock).await;
    let given = join(&mock, "", subscription(&[])).await;
    let (waiting, joined) = tokio::join!(join(&mock, &given.member_id, subscription(&[])), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        modern(&mock, 0).await.0
    });
    assert_eq!(joined.error_code, codes::NONE);
    assert_eq!(waiting.error_code, codes::REBALANCE_IN_PROGRESS);
    let joined = join(&mock, &given.member_id, subscription(&[])).await;
    assert_eq!(joined.error_code, codes::NONE);
    assert_eq!(mock.group("g").unwrap().members.len(), 3);
    // Neither asks for its assignment in time, and nor does the first one join.
    mock.advance(Duration::from_secs(44));
    modern(&mock, 2).await;
    mock.advance(Duration::from_secs(17));
    assert_eq!(mock.group("g").unwrap().members.len(), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn classic_members_join_a_group_of_kip_848() -> Result<()> {
    let mock = builder().start().await?;
    modern(&mock, 0).await;
    let given = join(&mock, "", subscription(&[])).await;
    assert_eq!(given.error_code, codes::MEMBER_ID_REQUIRED);
    let a = join(&mock, &given.member_id, subscription(&[])).await;
    assert_eq!((a.error_code, a.generation_id), (codes::NONE, 2));
    let none = sync(&mock, &a, &[]).await;
    assert_eq!(
        (none.error_code, &none.assignment[2..6]),
        (codes::NONE, &[0; 4][..])
    );
    assert_eq!(beat(&mock, &a).await, codes::NONE, "it waits for the other");
    let bytes = join(&mock, "", "not what consumers say").await;
    assert_eq!(bytes.error_code, codes::INCONSISTENT_GROUP_PROTOCOL);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn groups_with_members_migrate_only_where_that_is_allowed() -> Result<()> {
    let mock = builder().group_migration(false, false).start().await?;
    alone(&mock).await;
    let (refused, _) = modern(&mock, 0).await;
    assert_eq!(refused.error_code, codes::GROUP_ID_NOT_FOUND);
    let why = refused.error_message.unwrap();
    assert!(
        why.ends_with("the online upgrade is disabled."),
        "{}",
        &*why
    );
    let mock = builder().start().await?;
    come(&mock).await;
    let (refused, _) = modern(&mock, 0).await;
    assert_eq!(
        refused.error_code,
        codes::GROUP_ID_NOT_FOUND,
        "its bytes are no subscription"
    );
    Ok(())
}
