//! Links and pools against a peer whose every byte is scripted, on a paused clock.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{
    ApiVersionsResponse, DeleteTopicsRequest, FetchRequest, FetchResponse, FindCoordinatorRequest,
    ListOffsetsRequest, ListOffsetsResponse,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc::UnboundedReceiver;

use super::link::Link;
use super::pool::{Endpoint, Pool};
use super::scripted::{Far, Scripted, everything};
use super::{Lane, Owner};
use crate::clock::{Clock, Instant, now};
use crate::config::ClientConfig;
use crate::error::{Certainty, Error, ErrorKind, Result};
use crate::tasks::Tasks;
use crate::types::BrokerId;
use crate::wire::produce::ProduceBody;

const SECOND: Duration = Duration::from_secs(1);

struct Bench {
    pool: Arc<Pool>,
    tasks: Tasks,
    accepting: UnboundedReceiver<(String, DuplexStream)>,
}

fn bench() -> Bench {
    bench_with(ClientConfig::default())
}

fn bench_with(config: ClientConfig) -> Bench {
    let (connector, accepting) = Scripted::new();
    let tasks = Tasks::new().unwrap();
    let clock = Clock::seeded(1, 0);
    let pool = Pool::new(Arc::new(config), clock, tasks.clone(), connector);
    Bench {
        pool,
        tasks,
        accepting,
    }
}

fn endpoint() -> Endpoint {
    Endpoint {
        id: BrokerId(1),
        host: "one".into(),
        port: 9092,
    }
}

fn within(seconds: u32) -> Instant {
    now() + seconds * SECOND
}

impl Bench {
    async fn connect(&mut self, serve: impl AsyncFnOnce(&mut Far)) -> (Result<Link>, Far) {
        let (endpoint, pool) = (endpoint(), Arc::clone(&self.pool));
        let link = pool.link(&endpoint, Lane::Admin, Owner::default(), within(60));
        let far = async {
            let mut far = Far::accept(&mut self.accepting).await;
            serve(&mut far).await;
            far
        };
        tokio::join!(link, far)
    }

    async fn connected(&mut self) -> (Link, Far) {
        let (link, far) = self.connect(async |far| far.shake_hands().await).await;
        (link.unwrap(), far)
    }

    /// A connection on which these versions are offered.
    async fn offered(&mut self, offer: ApiVersionsResponse) -> Link {
        let (link, far) = self
            .connect(async |far| {
                let asked = far.asked().await.unwrap();
                far.answer(&asked, &offer).await;
            })
            .await;
        // It stays open at the other end.
        self.tasks.spawn("the peer", async move {
            let mut far = far;
            while far.asked().await.is_some() {}
        });
        link.unwrap()
    }

    /// What a peer that answers the handshake with these bytes is told to be.
    async fn refused(&mut self, bytes: &[u8]) -> Error {
        let (link, _) = self
            .connect(async |far| {
                far.asked().await.unwrap();
                far.stream.write_all(bytes).await.unwrap();
                far.stream.shutdown().await.unwrap();
            })
            .await;
        link.unwrap_err()
    }
}

fn ask(link: &Link) -> super::link::Pending<ListOffsetsRequest> {
    link.send(9, &ListOffsetsRequest::default())
}

fn change(link: &Link) -> super::link::Pending<DeleteTopicsRequest> {
    link.send(6, &DeleteTopicsRequest::default())
}

#[tokio::test(start_paused = true)]
async fn other_servers_are_told_apart() {
    let mut bench = bench();
    let error = bench.refused(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.to_string().contains("HTTP server") && error.to_string().contains("one:9092"));
    let error = bench.refused(&[0x15, 3, 3, 0, 2, 2, 80]).await;
    assert!(error.to_string().contains("TLS"), "{error}");
    let error = bench.refused(b"SSH-2.0-OpenSSH").await;
    assert_eq!(error.kind(), ErrorKind::Protocol);
    let error = bench.refused(&[]).await;
    assert_eq!(error.kind(), ErrorKind::Connection);
    let error = bench.refused(&[0x7f, 0xff, 0xff, 0xff, 1]).await;
    assert!(error.to_string().contains("2147483647"), "{error}");
    let error = bench.refused(&[0, 0, 0, 6, 0, 0, 0, 99, 1, 2]).await;
    assert!(error.to_string().contains("correlation id 99"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_accepts_and_says_nothing_is_given_up_after_the_setup_timeout() {
    let mut bench = bench();
    let start = now();
    let (link, _far) = bench.connect(async |_| {}).await;
    let error = link.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("socket.connection.setup.timeout.ms"),
        "{error}"
    );
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn older_brokers_are_asked_in_the_version_they_name() {
    let mut bench = bench();
    let (link, _far) = bench
        .connect(async |far| {
            far.asked().await.unwrap();
            // UNSUPPORTED_VERSION, in version 0, with the range of ApiVersions: 0 to 3.
            far.answer_raw(4, &[0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 3])
                .await;
            let again = far.asked().await.unwrap();
            assert_eq!((again.key, again.version), (18, 3));
            far.answer(&again, &everything()).await;
        })
        .await;
    assert_eq!(
        link.unwrap().version::<FindCoordinatorRequest>().unwrap(),
        6
    );
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_lacks_a_request_is_named_with_the_versions_of_both() {
    let mut bench = bench();
    let link = bench.offered(ApiVersionsResponse::default()).await;
    // Its offer may be damaged.
    let error = link.version::<ListOffsetsRequest>().unwrap_err();
    assert!(error.is_retriable() && !link.is_open());
    link.closed().await;
    let link = bench.offered(ApiVersionsResponse::default()).await;
    let error = link.version::<ListOffsetsRequest>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
    assert!(!error.is_retriable());
    assert!(error.to_string().contains("does not offer it"), "{error}");
    assert!(
        link.is_open(),
        "others use the connection for what the broker has"
    );
}

#[tokio::test(start_paused = true)]
async fn a_damaged_offer_lasts_until_somebody_misses_something() {
    let mut bench = bench();
    for offer in [everything(), ApiVersionsResponse::default()] {
        let link = bench.offered(offer).await;
        if link.version::<FindCoordinatorRequest>().is_ok() {
            link.close();
        }
        link.closed().await;
    }
    let link = bench.offered(everything()).await;
    assert_eq!(link.version::<FindCoordinatorRequest>().unwrap(), 6);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_contradicts_itself_ends_the_connection() {
    let mut bench = bench();
    let (link, mut far) = bench.connected().await;
    let pending = [ask(&link), ask(&link)];
    for offset in [-7, 7] {
        let asked = far.asked().await.unwrap();
        let part = ListOffsetsPartitionResponse::default().with_offset(offset);
        let topic = ListOffsetsTopicResponse::default().with_partitions(vec![part]);
        let response = ListOffsetsResponse::default().with_topics(vec![topic]);
        far.answer(&asked, &response).await;
    }
    let [first, second] = pending;
    let error = first.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.is_retriable() && !link.is_open(), "{error}");
    assert!(error.to_string().contains("is negative"), "{error}");
    second.await.expect("what is under way ends well");
    link.closed().await;
}

#[tokio::test(start_paused = true)]
async fn requests_keep_their_order_and_answers_may_be_awaited_in_any() {
    let mut bench = bench();
    let (link, mut far) = bench.connected().await;
    let pending = [ask(&link), ask(&link), ask(&link)];
    // All three are on the wire before the first answer.
    let mut asked = Vec::new();
    for _ in 0..3 {
        asked.push(far.asked().await.unwrap());
    }
    assert!(
        asked
            .windows(2)
            .all(|pair| pair[0].correlation < pair[1].correlation)
    );
    for (throttle_ms, asked) in (0..).zip(&asked) {
        let response = ListOffsetsResponse::default().with_throttle_time_ms(-throttle_ms);
        far.answer(asked, &response).await;
    }
    for (index, pending) in pending.into_iter().enumerate().rev() {
        assert_eq!(pending.await.unwrap().throttle_time_ms, -(index as i32));
    }
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_answer_is_read_and_dropped() {
    let mut bench = bench();
    let (link, mut far) = bench.connected().await;
    let abandoned = ask(&link);
    let first = far.asked().await.unwrap();
    drop(abandoned);
    let second = ask(&link);
    let asked = far.asked().await.unwrap();
    far.answer(
        &first,
        &ListOffsetsResponse::default().with_throttle_time_ms(0),
    )
    .await;
    far.answer(&asked, &ListOffsetsResponse::default()).await;
    assert!(second.await.is_ok());
    assert!(link.is_open());
}

#[tokio::test(start_paused = true)]
async fn throttle_times_hold_back_later_requests() {
    let mut bench = bench();
    let (link, mut far) = bench.connected().await;
    let first = ask(&link);
    let asked = far.asked().await.unwrap();
    far.answer(
        &asked,
        &ListOffsetsResponse::default().with_throttle_time_ms(700),
    )
    .await;
    first.await.unwrap();
    let start = now();
    let second = ask(&link);
    let asked = far.asked().await.unwrap();
    assert!(
        (700..720).contains(&start.elapsed().as_millis()),
        "{:?}",
        start.elapsed()
    );
    far.answer(&asked, &ListOffsetsResponse::default()).await;
    second.await.unwrap();
    let traffic = bench.pool.traffic().snapshot();
    let api = traffic.api("ListOffsets").unwrap();
    assert_eq!((api.requests, api.failed), (2, 0));
    assert_eq!(api.throttled, Duration::from_millis(700));
    assert!(api.latency.max() >= Duration::from_millis(700));
    assert_eq!(traffic.requests.len(), 1);
    assert!(traffic.sent_bytes > 0 && traffic.received_bytes > 0);
    assert_eq!((traffic.connections, traffic.requests_in_flight), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_frozen_broker_loses_its_connection_and_all_requests_say_so() {
    let mut bench = bench();
    let (link, mut far) = bench.connected().await;
    let (first, second) = (ask(&link), change(&link));
    far.asked().await.unwrap();
    let error = first.await.unwrap_err();
    // A question has no outcome that could be in doubt.
    assert_eq!(
        (error.kind(), error.certainty()),
        (ErrorKind::Timeout, None)
    );
    assert!(
        error.to_string().contains("(request.timeout.ms)"),
        "{error}"
    );
    let error = second.await.unwrap_err();
    assert_eq!(error.certainty(), Some(Certainty::MaybeWritten));
    assert!(
        error.to_string().ends_with("(may have been written)"),
        "{error}"
    );
    link.closed().await;
    assert!(!link.is_open());
    let traffic = bench.pool.traffic().snapshot();
    let api = traffic.api("ListOffsets").unwrap();
    assert_eq!((api.requests, api.failed), (1, 1));
    let connections = (traffic.connections, traffic.connections_made);
    assert_eq!((connections, traffic.connections_closed), ((0, 1), 1));
    assert_eq!(traffic.requests_in_flight, 0);
    let late = change(&link).await.unwrap_err();
    assert_eq!(late.certainty(), Some(Certainty::NotSent));
    // The pool makes a new connection.
    let (link, _far) = bench.connected().await;
    assert!(link.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_damaged_or_unasked_answer_ends_the_connection() {
    let mut bench = bench();
    let (link, mut far) = bench.connected().await;
    far.answer_raw(1, &[0]).await;
    link.closed().await;
    let (link, mut far) = bench.connected().await;
    let pending = ask(&link);
    let asked = far.asked().await.unwrap();
    far.answer_raw(asked.correlation, &[0, 0xff, 0xff]).await;
    assert_eq!(pending.await.unwrap_err().kind(), ErrorKind::Protocol);
    link.closed().await;
    let (link, mut far) = bench.connected().await;
    let pending = ask(&link);
    far.asked().await.unwrap();
    far.stream
        .write_all(&[0x7f, 0xff, 0xff, 0xff])
        .await
        .unwrap();
    assert_eq!(pending.await.unwrap_err().kind(), ErrorKind::Protocol);
    assert!(!link.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_connection_cut_mid_frame_is_noticed() {
    let mut bench = bench();
    let (link, mut far) = bench.connected().await;
    let pending = ask(&link);
    let asked = far.asked().await.unwrap();
    far.stream.write_all(&[0, 0, 0, 100]).await.unwrap();
    far.stream
        .write_all(&asked.correlation.to_be_bytes())
        .await
        .unwrap();
    drop(far);
    let error = pending.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.certainty()),
        (ErrorKind::Connection, None)
    );
}

#[tokio::test(start_paused = true)]
async fn idle_connections_end_and_busy_ones_do_not() {
    let mut bench = bench();
    let (link, mut far) = bench.connected().await;
    tokio::time::sleep(500 * SECOND).await;
    let pending = ask(&link);
    let asked = far.asked().await.unwrap();
    far.answer(&asked, &ListOffsetsResponse::default()).await;
    pending.await.unwrap();
    let start = now();
    link.closed().await;
    assert_eq!(start.elapsed().as_secs(), 540);
    assert!(far.asked().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn without_acks_a_produce_request_is_done_when_written() {
    let mut bench = bench();
    let (link, mut far) = bench.connected().await;
    let body = ProduceBody::default();
    let pending = link.send_produce(9, 0, 1000, None, &body);
    pending.await.unwrap();
    assert_eq!(far.asked().await.unwrap().key, 0);
    assert!(link.is_open());
}

#[tokio::test(start_paused = true)]
async fn attempts_back_off_and_a_closed_client_connects_no_more() {
    let mut bench = bench();
    let start = now();
    for _ in 0..6 {
        bench.refused(&[]).await;
    }
    // 50, 100, 200, 400, 800 ms between six attempts, each ± 20 %.
    assert!(
        (1240..=1860).contains(&start.elapsed().as_millis()),
        "{:?}",
        start.elapsed()
    );
    bench.tasks.stop();
    let error = bench
        .pool
        .link(&endpoint(), Lane::Admin, Owner::default(), within(1))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_link_to_where_a_broker_was_ends_once_it_is_asked_for_elsewhere() {
    let mut bench = bench();
    let (link, _far) = bench.connected().await;
    let elsewhere = Endpoint {
        port: 9093,
        ..endpoint()
    };
    let asked = bench
        .pool
        .link(&elsewhere, Lane::Admin, Owner::default(), within(1));
    assert!(asked.now_or_never().is_none());
    assert!(!link.is_open());
}

#[tokio::test(start_paused = true)]
async fn stopping_the_client_leaves_nobody_waiting() {
    let mut bench = bench();
    let (link, mut far) = bench.connected().await;
    let pending = change(&link);
    far.asked().await.unwrap();
    bench.tasks.stop();
    let error = pending.await.unwrap_err();
    assert_eq!(error.certainty(), Some(Certainty::MaybeWritten));
    bench.tasks.idle().await;
    let mut rest = Vec::new();
    far.stream.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_caller_leaves_the_connection_to_others() {
    let mut bench = bench();
    let (link, mut far) = bench.connected().await;
    let request = ListOffsetsRequest::default();
    let start = now();
    let (impatient, patient) = (link.ask(9, &request, start + SECOND), ask(&link));
    let error = impatient.await.unwrap_err();
    assert_eq!(
        (start.elapsed().as_secs(), error.kind()),
        (1, ErrorKind::Timeout)
    );
    assert_eq!(error.certainty(), None, "it was a question");
    let told = error.to_string();
    assert!(
        told.contains("deadline of the call") && !told.contains("request.timeout"),
        "{told}"
    );
    let writing = DeleteTopicsRequest::default();
    let error = link.ask(6, &writing, now() + SECOND).await.unwrap_err();
    assert_eq!(error.certainty(), Some(Certainty::MaybeWritten));
    // The broker answers what was asked, in order, whoever is still there.
    for _ in 0..2 {
        let asked = far.asked().await.unwrap();
        far.answer(&asked, &ListOffsetsResponse::default()).await;
    }
    patient.await.unwrap();
    assert!(link.is_open());
}

#[tokio::test(start_paused = true)]
async fn only_answers_with_records_may_be_large() {
    let config = ClientConfig {
        max_control_frame: 1000,
        ..ClientConfig::default()
    };
    let mut bench = bench_with(config);
    let (link, mut far) = bench.connected().await;
    let fetch = link.send(12, &FetchRequest::default());
    let asked = far.asked().await.unwrap();
    let mut large = FetchResponse::default();
    let topic = kafka_protocol::messages::TopicName("t".repeat(5000).into());
    large.responses = vec![
        kafka_protocol::messages::fetch_response::FetchableTopicResponse::default()
            .with_topic(topic),
    ];
    far.answer(&asked, &large).await;
    assert_eq!(fetch.await.unwrap().responses.len(), 1);
    let pending = ask(&link);
    far.asked().await.unwrap();
    far.stream.write_all(&1001_u32.to_be_bytes()).await.unwrap();
    let error = pending.await.unwrap_err();
    assert!(
        error.to_string().contains("allowed are 4 to 1000"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn roles_have_connections_of_their_own_where_requests_wait_and_share_the_others() {
    let mut bench = bench();
    let pool = Arc::clone(&bench.pool);
    let roles = [pool.new_owner(), pool.new_owner()];
    let mut peers = Vec::new();
    let mut links = Vec::new();
    for lane in [
        Lane::Data,
        Lane::Fetch,
        Lane::FetchMore,
        Lane::Coordinator,
        Lane::Metadata,
        Lane::Admin,
        Lane::Log,
    ] {
        let before = pool.traffic().snapshot().connections;
        for role in roles {
            let endpoint = endpoint();
            let link = pool.link(&endpoint, lane, lane.owner(role), within(60));
            let accepting = &mut bench.accepting;
            let far = async {
                let mut far = Far::accept(accepting).await;
                far.shake_hands().await;
                far
            };
            tokio::pin!(link);
            tokio::select! {
                biased;
                link = &mut link => links.push((role, link.unwrap())),
                far = far => {
                    peers.push(far);
                    links.push((role, link.await.unwrap()));
                }
            }
        }
        let shared = matches!(lane, Lane::Metadata | Lane::Admin | Lane::Log);
        let made = pool.traffic().snapshot().connections - before;
        assert_eq!(made, if shared { 1 } else { 2 }, "{lane:?}");
    }
    pool.retire(roles[0]);
    let open = |role: Owner| {
        links
            .iter()
            .filter(|(of, link)| *of == role && link.is_open())
            .count()
    };
    // Those that it shared stay.
    assert_eq!((open(roles[0]), open(roles[1])), (3, 7));
    tokio::time::sleep(SECOND).await;
    assert_eq!(pool.traffic().snapshot().connections, 7);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_away_is_tried_once_for_all() {
    let mut bench = bench();
    let pool = Arc::clone(&bench.pool);
    let endpoint = endpoint();
    let one = || async {
        let owner = pool.new_owner();
        pool.link(&endpoint, Lane::Fetch, owner, within(60)).await
    };
    let hang_up = async |bench: &mut Bench| drop(Far::accept(&mut bench.accepting).await);
    let (first, ()) = tokio::join!(one(), hang_up(&mut bench));
    assert!(first.is_err());
    // Fifty roles are told what one attempt came to, and it is one failure.
    let many = futures::future::join_all((0..50).map(|_| one()));
    let (many, ()) = tokio::join!(many, hang_up(&mut bench));
    assert!(many.iter().all(Result::is_err));
    assert_eq!(pool.traffic().snapshot().connections_failed, 2);
    // Once it is back, everybody gets a connection.
    let serve = async {
        let mut peers = Vec::new();
        for _ in 0..50 {
            let mut far = Far::accept(&mut bench.accepting).await;
            far.shake_hands().await;
            peers.push(far);
        }
        peers
    };
    let many = futures::future::join_all((0..50).map(|_| one()));
    let (many, _peers) = tokio::join!(many, serve);
    assert!(many.iter().all(Result::is_ok));
    assert_eq!(pool.traffic().snapshot().connections, 50);
}
