//! Administration of a scripted broker, on a paused clock.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;

use bytes::Buf;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    MetadataResponse, TopicName,
};
use kafka_protocol::protocol::{Decodable, StrBytes};

use uuid::Uuid;

use super::*;
use crate::clock::Clock;
use crate::config::ClientConfig;
use crate::error::ErrorKind;
use crate::net::connector::Connector;
use crate::net::scripted::{Asked, Far, Scripted};
use crate::tasks::Tasks;
use crate::types::BrokerId;

const SECOND: Duration = Duration::from_secs(1);

/// A cluster of one broker. Each answer to a change is a list of topics and codes; without one the
/// broker falls silent: that connection says nothing any more.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Says>>);

#[derive(Default)]
struct Says {
    changes: VecDeque<Vec<(&'static str, i16)>>,
    /// Instead of these, every change succeeds.
    willing: bool,
    topics: Vec<(&'static str, i16)>,
    /// Names in the requests for changes, and `validate_only`.
    asked: Vec<(Vec<String>, bool)>,
    timeouts: Vec<i32>,
    metadata_rounds: usize,
}

fn name(name: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(name))
}

impl Script {
    fn says(&self) -> MutexGuard<'_, Says> {
        self.0.lock().unwrap()
    }

    fn change(&self, answer: &[(&'static str, i16)]) {
        self.says().changes.push_back(answer.to_vec());
    }

    async fn broker(self, mut far: Far) {
        far.shake_hands().await;
        while let Some(asked) = far.asked().await {
            match asked.key {
                3 => {
                    let response = self.metadata();
                    far.answer(&asked, &response).await;
                }
                19 => {
                    let request: CreateTopicsRequest = decode(&asked);
                    let names = request.topics.iter().map(|topic| topic.name.to_string());
                    let validate_only = request.validate_only;
                    if let Some(answer) = self.next(names, validate_only, request.timeout_ms) {
                        let topics = answer.into_iter().map(|(topic, code)| {
                            CreatableTopicResult::default()
                                .with_name(name(topic))
                                .with_error_code(code)
                                .with_error_message(
                                    (code != 0).then(|| StrBytes::from_static_str("told so.")),
                                )
                                .with_topic_id(Uuid::from_u128(1))
                                .with_num_partitions(3)
                                .with_replication_factor(1)
                        });
                        let response =
                            CreateTopicsResponse::default().with_topics(topics.collect());
                        far.answer(&asked, &response).await;
                    } else {
                        std::future::pending().await
                    }
                }
                20 => {
                    let request: DeleteTopicsRequest = decode(&asked);
                    let topics = request.topics.iter();
                    let names = topics.map(|topic| topic.name.as_ref().unwrap().to_string());
                    if let Some(answer) = self.next(names, false, request.timeout_ms) {
                        let topics = answer.into_iter().map(|(topic, code)| {
                            DeletableTopicResult::default()
                                .with_name(Some(name(topic)))
                                .with_error_code(code)
                        });
                        let response =
                            DeleteTopicsResponse::default().with_responses(topics.collect());
                        far.answer(&asked, &response).await;
                    } else {
                        std::future::pending().await
                    }
                }
                other => panic!("api {other}"),
            }
        }
    }

    fn next(
        &self,
        names: impl Iterator<Item = String>,
        validate_only: bool,
        timeout_ms: i32,
    ) -> Option<Vec<(&'static str, i16)>> {
        let mut says = self.says();
        let names: Vec<String> = names.collect();
        says.asked.push((names.clone(), validate_only));
        says.timeouts.push(timeout_ms);
        if says.willing {
            let names = names.into_iter();
            return Some(names.map(|name| (&*name.leak(), 0)).collect());
        }
        says.changes.pop_front()
    }

    fn metadata(&self) -> MetadataResponse {
        let mut says = self.says();
        says.metadata_rounds += 1;
        let topics = says.topics.iter().map(|(topic, code)| {
            let partitions = [1, 0].map(|number| {
                MetadataResponsePartition::default()
                    .with_partition_index(number)
                    .with_leader_id((number - 1).into())
                    .with_leader_epoch(7)
                    .with_replica_nodes(vec![0.into(), 1.into()])
                    .with_isr_nodes(vec![0.into()])
            });
            MetadataResponseTopic::default()
                .with_name(Some(name(topic)))
                .with_error_code(*code)
                .with_is_internal(topic.starts_with("__"))
                .with_partitions(partitions.to_vec())
        });
        let broker = MetadataResponseBroker::default()
            .with_node_id(0.into())
            .with_host(StrBytes::from_static_str("zero"))
            .with_rack(Some(StrBytes::from_static_str("r1")))
            .with_port(9092);
        MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_controller_id(0.into())
            .with_cluster_id(Some(StrBytes::from_static_str("the-cluster")))
            .with_topics(topics.collect())
    }
}

/// The body behind the rest of the header (client id, tags).
fn decode<T: Decodable>(asked: &Asked) -> T {
    let mut rest = asked.rest.clone();
    let client_id = rest.get_i16().max(0);
    rest.advance(usize::try_from(client_id).unwrap() + 1);
    T::decode(&mut rest, asked.version).unwrap()
}

fn admin() -> (Admin, Script) {
    let (connector, mut accepting) = Scripted::new();
    let script = Script::default();
    let serving = script.clone();
    tokio::spawn(async move {
        while let Some((_, stream)) = accepting.recv().await {
            tokio::spawn(serving.clone().broker(Far { stream }));
        }
    });
    let transport: Arc<dyn Connector> = connector;
    let bootstrap = vec![("zero".to_owned(), 9092)];
    let config = ClientConfig::default();
    let cluster = Cluster::new(
        config,
        bootstrap,
        Clock::seeded(5, 0),
        transport,
        Tasks::new().unwrap(),
    );
    (Admin::new(cluster), script)
}

fn topics<const N: usize>(names: [&str; N]) -> [NewTopic; N] {
    names.map(NewTopic::new)
}

fn kind<T>(results: &PerKey<String, T>, topic: &str) -> Option<ErrorKind> {
    let result = results.get(topic).unwrap().as_ref();
    result.err().map(Error::kind)
}

#[tokio::test(start_paused = true)]
async fn trouble_with_one_topic_hides_nothing_about_the_others() {
    let (admin, script) = admin();
    script.change(&[("a", 0), ("b", 36), ("c", 38)]);
    let created = admin.create_topics(topics(["c", "a", "b"])).await.unwrap();
    let order: Vec<&str> = created.iter().map(|(topic, _)| &**topic).collect();
    assert_eq!(order, ["c", "a", "b"], "the order of the call");
    let a = created.get("a").unwrap().as_ref().unwrap();
    assert_eq!((a.partitions, a.replication), (Some(3), Some(1)));
    assert_eq!(kind(&created, "b"), Some(ErrorKind::AlreadyExists));
    assert_eq!(
        created.get("c").unwrap().as_ref().unwrap_err().to_string(),
        "creating topic 'c': told so: INVALID_REPLICATION_FACTOR (38): \
         the replication factor must be at least 1 and at most the number of live brokers"
    );
    assert_eq!(
        script.says().asked.len(),
        1,
        "none of this passes by waiting"
    );
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again_for_those_topics_alone() {
    let (admin, script) = admin();
    script.change(&[("a", 0), ("b", 41), ("c", 89)]);
    script.change(&[("b", 0), ("c", 7)]);
    script.change(&[("c", 36)]);
    let rounds = script.says().metadata_rounds;
    let created = admin.create_topics(topics(["a", "b", "c"])).await.unwrap();
    assert_eq!((kind(&created, "a"), kind(&created, "b")), (None, None));
    let c = created.get("c").unwrap().as_ref().unwrap_err();
    assert_eq!(c.kind(), ErrorKind::AlreadyExists);
    assert!(c.to_string().contains("an earlier attempt may have"), "{c}");
    let says = script.says();
    let asked: Vec<usize> = says.asked.iter().map(|(names, _)| names.len()).collect();
    assert_eq!(asked, [3, 2, 1]);
    assert!(
        says.metadata_rounds > rounds,
        "NOT_CONTROLLER asks who it is now"
    );
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_retries_with_what_was_said_last() {
    let (admin, script) = admin();
    for _ in 0..100 {
        script.change(&[("a", 0), ("b", 41)]);
    }
    let start = now();
    let hurried = admin.with_timeout(5 * SECOND);
    let created = hurried.create_topics(topics(["a", "b"])).await.unwrap();
    let took = start.elapsed();
    assert!((4 * SECOND..=5 * SECOND).contains(&took), "{took:?}");
    assert_eq!(kind(&created, "a"), None);
    assert_eq!(
        created
            .get("b")
            .unwrap()
            .as_ref()
            .unwrap_err()
            .code()
            .unwrap()
            .get(),
        41
    );
    let says = script.says();
    assert!(
        (6..16).contains(&says.asked.len()),
        "backs off: {}",
        says.asked.len()
    );
    assert!(
        says.timeouts.iter().all(|ms| (0..=5_000).contains(ms)),
        "{:?}",
        says.timeouts
    );
    assert!(
        says.timeouts.is_sorted_by(|a, b| a >= b),
        "one deadline: {:?}",
        says.timeouts
    );
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_falls_silent_does_not_take_results_away() {
    let (admin, script) = admin();
    script.change(&[("a", 0), ("b", 41)]);
    let created = admin.create_topics(topics(["a", "b"])).await.unwrap();
    assert_eq!(kind(&created, "a"), None);
    assert_eq!(
        created
            .get("b")
            .unwrap()
            .as_ref()
            .unwrap_err()
            .code()
            .unwrap()
            .get(),
        41
    );
    let start = now();
    let error = admin.create_topics(topics(["a"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(start.elapsed() <= 60 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_leaves_a_topic_out_or_adds_one_is_noticed() {
    let (admin, script) = admin();
    script.change(&[("a", 0), ("uninvited", 0)]);
    let created = admin.create_topics(topics(["a", "b"])).await.unwrap();
    assert_eq!(created.len(), 2);
    assert_eq!(kind(&created, "b"), Some(ErrorKind::Protocol));
}

#[tokio::test(start_paused = true)]
async fn a_topic_named_twice_is_created_neither_way() {
    let (admin, script) = admin();
    script.change(&[("b", 0)]);
    let created = admin.create_topics(topics(["a", "b", "a"])).await.unwrap();
    assert_eq!(kind(&created, "a"), Some(ErrorKind::InvalidArgument));
    assert_eq!(kind(&created, "b"), None);
    assert_eq!(script.says().asked[0].0, ["b"]);
    let nothing = admin.create_topics([]).await.unwrap();
    assert!(nothing.is_empty());
    assert_eq!(script.says().asked.len(), 1, "nothing to ask");
}

#[tokio::test(start_paused = true)]
async fn validating_says_so_to_the_broker() {
    let (admin, script) = admin();
    script.change(&[("a", 0)]);
    script.change(&[("a", 0)]);
    let validated = admin.validate_topics(topics(["a"])).await.unwrap();
    assert_eq!(validated.all().unwrap()[0].id, None);
    let created = admin.create_topics(topics(["a"])).await.unwrap();
    assert!(created.all().unwrap()[0].id.is_some());
    let asked: Vec<bool> = script.says().asked.iter().map(|(_, only)| *only).collect();
    assert_eq!(asked, [true, false]);
}

#[tokio::test(start_paused = true)]
async fn deleting_an_unknown_topic_is_an_answer_and_not_a_state_that_passes() {
    let (admin, script) = admin();
    script.change(&[("a", 3), ("b", 0)]);
    let deleted = admin.delete_topics(["a", "b", "b"]).await.unwrap();
    assert_eq!(deleted.len(), 2);
    assert_eq!(kind(&deleted, "a"), Some(ErrorKind::UnknownTopic));
    let error = deleted.errors().next().unwrap().1;
    assert!(!error.is_retriable(), "nobody retried, and nobody should");
    let text = error.to_string();
    assert!(!text.contains("earlier attempt"), "{text}");
    script.change(&[("a", 7)]);
    script.change(&[("a", 3)]);
    let deleted = admin.delete_topics(["a"]).await.unwrap();
    let text = deleted.errors().next().unwrap().1.to_string();
    assert!(text.contains("earlier attempt may have deleted"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn topics_are_described_and_listed_in_order() {
    let (admin, script) = admin();
    script.says().topics = vec![("z", 0), ("__own", 0), ("gone", 3), ("secret", 29)];
    let described = admin
        .describe_topics(["z", "gone", "secret"])
        .await
        .unwrap();
    assert_eq!(kind(&described, "gone"), Some(ErrorKind::UnknownTopic));
    assert_eq!(kind(&described, "secret"), Some(ErrorKind::Authorization));
    let z = described.get("z").unwrap().as_ref().unwrap();
    let leaders: Vec<_> = z
        .partitions
        .iter()
        .map(|p| (p.partition, p.leader))
        .collect();
    assert_eq!(leaders, [(0, None), (1, Some(BrokerId(0)))]);
    assert_eq!(z.partitions[0].replicas, [BrokerId(0), BrokerId(1)]);
    assert_eq!(z.partitions[0].in_sync, [BrokerId(0)]);
    let listed = admin.list_topics().await.unwrap();
    let names: Vec<_> = listed
        .iter()
        .map(|topic| (topic.name.as_str(), topic.internal))
        .collect();
    assert_eq!(names, [("__own", true), ("z", false)]);
    let cluster = admin.describe_cluster().await.unwrap();
    assert_eq!(cluster.id.as_deref(), Some("the-cluster"));
    assert_eq!(cluster.controller, Some(BrokerId(0)));
    assert_eq!(cluster.brokers[0].rack.as_deref(), Some("r1"));
}

#[tokio::test(start_paused = true)]
async fn a_call_can_be_dropped_at_every_await() {
    let (admin, script) = admin();
    let mut polls = 0;
    loop {
        // At first the broker is silent or not ready, so that some are dropped in those waits.
        script.says().willing = polls > 10;
        let mut call = Box::pin(admin.create_topics(topics(["a", "b"])));
        let mut done = false;
        for _ in 0..polls {
            done = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_ready())).await;
            if done {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drop(call);
        if !script.says().willing {
            script.change(&[("a", 0), ("b", 41)]);
        } else if done {
            break;
        }
        polls += 1;
        assert!(polls < 100, "it ends when nobody drops it");
    }
    assert!(polls > 1);
    let created = admin.create_topics(topics(["c"])).await.unwrap();
    assert_eq!(created.all().unwrap()[0].name, "c");
}
