//! A cluster of scripted brokers, on a paused clock.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    FindCoordinatorResponse, InitProducerIdRequest, InitProducerIdResponse, MetadataResponse,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tokio::io::DuplexStream;
use tokio::sync::mpsc::UnboundedReceiver;

use super::ask::{Operation, Refusal};
use super::coordinator::Find;
use super::*;
use crate::clock::now;
use crate::net::connector::Connector;
use crate::net::scripted::{Far, Scripted};

const SECOND: Duration = Duration::from_secs(1);

/// Brokers `one` and `two`; what they say can be changed while they run.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Says>>);

#[derive(Default)]
struct Says {
    /// Names of hosts that take connections and never answer.
    frozen: HashSet<String>,
    topics: Vec<&'static str>,
    /// Who is in the cluster.
    brokers: Vec<(i32, &'static str)>,
    coordinator: i32,
    /// Codes for the next InitProducerId answers; 0 after that.
    init_codes: Vec<i16>,
    /// Hosts in the order in which they were asked for InitProducerId.
    asked: Vec<String>,
    metadata_rounds: usize,
}

impl Script {
    fn says(&self) -> MutexGuard<'_, Says> {
        self.0.lock().unwrap()
    }

    fn serve(self, mut accepting: UnboundedReceiver<(String, DuplexStream)>) {
        tokio::spawn(async move {
            while let Some((host, stream)) = accepting.recv().await {
                let far = Far { stream };
                tokio::spawn(self.clone().broker(host, far));
            }
        });
    }

    async fn broker(self, host: String, mut far: Far) {
        far.shake_hands().await;
        while let Some(asked) = far.asked().await {
            if self.says().frozen.contains(&host) {
                continue;
            }
            match asked.key {
                3 => {
                    let response = self.metadata();
                    far.answer(&asked, &response).await;
                }
                10 => {
                    let id = self.says().coordinator;
                    let response = FindCoordinatorResponse::default().with_coordinators(vec![
                        kafka_protocol::messages::find_coordinator_response::Coordinator::default()
                            .with_key(StrBytes::from_static_str("tx"))
                            .with_node_id(id.into())
                            .with_host(StrBytes::from_static_str(if id == 1 {
                                "one"
                            } else {
                                "two"
                            }))
                            .with_port(9092),
                    ]);
                    far.answer(&asked, &response).await;
                }
                22 => {
                    let code = {
                        let mut says = self.says();
                        says.asked.push(host.clone());
                        if says.init_codes.is_empty() {
                            0
                        } else {
                            says.init_codes.remove(0)
                        }
                    };
                    far.answer(
                        &asked,
                        &InitProducerIdResponse::default()
                            .with_error_code(code)
                            .with_producer_id(7.into()),
                    )
                    .await;
                }
                other => panic!("api {other}"),
            }
        }
    }

    fn metadata(&self) -> MetadataResponse {
        let mut says = self.says();
        says.metadata_rounds += 1;
        let brokers = says.brokers.iter().map(|(id, host)| {
            MetadataResponseBroker::default()
                .with_node_id((*id).into())
                .with_host(StrBytes::from_static_str(host))
                .with_port(9092)
        });
        let topics = ["orders", "secret"].map(|name| {
            let topic = MetadataResponseTopic::default()
                .with_name(Some(TopicName(StrBytes::from_static_str(name))));
            match name {
                _ if says.topics.contains(&name) => topic.with_partitions(vec![
                    MetadataResponsePartition::default()
                        .with_leader_id(1.into())
                        .with_leader_epoch(1),
                ]),
                "secret" => topic.with_error_code(29),
                _ => topic.with_error_code(3),
            }
        });
        MetadataResponse::default()
            .with_brokers(brokers.collect())
            .with_controller_id(2.into())
            .with_topics(topics.to_vec())
    }
}

fn cluster(bootstrap: &[&str]) -> (Cluster, Script, Arc<Scripted>) {
    let (connector, accepting) = Scripted::new();
    let script = Script::default();
    script.says().coordinator = 1;
    script.says().brokers = vec![(1, "one"), (2, "two")];
    script.clone().serve(accepting);
    let bootstrap = bootstrap
        .iter()
        .map(|host| ((*host).to_owned(), 9092))
        .collect();
    let transport = Arc::clone(&connector) as Arc<dyn Connector>;
    let cluster = Cluster::new(
        ClientConfig::default(),
        bootstrap,
        Clock::seeded(3, 0),
        transport,
        Tasks::new().unwrap(),
    );
    (cluster, script, connector)
}

fn within(seconds: u32) -> Instant {
    now() + seconds * SECOND
}

async fn init(
    cluster: &Cluster,
    seconds: u32,
) -> Result<kafka_protocol::messages::InitProducerIdResponse> {
    let target = Target::Coordinator(CoordinatorKey::Transaction("tx"));
    cluster
        .call(target, Lane::Coordinator, within(seconds), |_| {
            Ok(InitProducerIdRequest::default())
        })
        .await
}

#[tokio::test(start_paused = true)]
async fn one_living_bootstrap_address_is_enough() {
    let (cluster, script, connector) = cluster(&["dead", "frozen", "one"]);
    connector
        .refused
        .lock()
        .unwrap()
        .push_back("dead".to_owned());
    script.says().frozen.insert("frozen".to_owned());
    cluster.ready(within(5)).await.unwrap();
    assert_eq!(cluster.snapshot().brokers.len(), 2);
    assert_eq!(cluster.snapshot().controller, Some(BrokerId(2)));
}

#[tokio::test(start_paused = true)]
async fn when_nobody_answers_the_last_failure_is_told_at_the_deadline() {
    let (cluster, _, connector) = cluster(&["dead"]);
    connector
        .refused
        .lock()
        .unwrap()
        .push_back("dead".to_owned());
    let start = now();
    let error = cluster.ready(within(7)).await.unwrap_err();
    assert_eq!(
        (error.kind(), start.elapsed().as_secs()),
        (ErrorKind::Timeout, 7)
    );
    assert!(error.to_string().contains("dead refuses"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_awaited_until_it_exists_or_the_deadline_passes() {
    let (cluster, script, _) = cluster(&["one"]);
    let error = cluster.topic("orders", false, within(2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopic);
    let start = now();
    let error = cluster
        .topic("secret", false, within(60))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authorization);
    assert!(
        start.elapsed() < 2 * SECOND,
        "no waiting for what does not change, but for one more round"
    );
    let rounds = script.says().metadata_rounds;
    let later = async {
        tokio::time::sleep(30 * SECOND).await;
        script.says().topics.push("orders");
    };
    let (topic, ()) = tokio::join!(cluster.topic("orders", false, within(60)), later);
    assert_eq!(topic.unwrap().partitions.len(), 1);
    let asked = script.says().metadata_rounds - rounds;
    assert!(
        (25..45).contains(&asked),
        "{asked} rounds in 30 s: back-off, and no spinning"
    );
    // Nobody is interested any more: nothing is asked for, and the topic is forgotten.
    cluster.refresh();
    tokio::time::sleep(5 * SECOND).await;
    assert!(cluster.snapshot().topic("orders").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_is_no_news_means_that_metadata_is_wrong() {
    let (cluster, script, _) = cluster(&["one"]);
    script.says().topics.push("orders");
    let name: Arc<str> = "orders".into();
    let _interest = cluster.watch(std::slice::from_ref(&name), false);
    cluster.topic("orders", false, within(5)).await.unwrap();
    tokio::time::sleep(SECOND).await;
    let rounds = script.says().metadata_rounds;
    // Of another leader in the same epoch: it has one leader only, so one of the two was damaged on
    // its way.
    let hint = |leader_epoch| LeaderHint {
        topic: Arc::clone(&name),
        partition: 0,
        leader: BrokerId(2),
        leader_epoch,
    };
    cluster.learn(&[hint(1)], &[]);
    tokio::time::sleep(SECOND).await;
    assert_eq!(script.says().metadata_rounds, rounds + 1);
    cluster.learn(&[hint(2)], &[]);
    tokio::time::sleep(SECOND).await;
    assert_eq!(script.says().metadata_rounds, rounds + 1, "it is news");
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_without_address_or_beside_an_error_is_asked_for_again() {
    use kafka_protocol::messages::find_coordinator_response::Coordinator;
    let (cluster, _, _) = cluster(&["one"]);
    let keys = [CoordinatorKey::Transaction("tx").owned()];
    let sound = || {
        Coordinator::default()
            .with_key(StrBytes::from_static_str("tx"))
            .with_node_id(1.into())
            .with_host(StrBytes::from_static_str("one"))
            .with_port(9092)
    };
    let read = |found: Coordinator| {
        let answer = FindCoordinatorResponse::default().with_coordinators(vec![found]);
        let mut answers = Find(&cluster).read(&keys, BrokerId(1), answer);
        assert_eq!(answers[0].0, keys[0]);
        answers.remove(0).1
    };
    assert!(matches!(read(sound()), Ok(BrokerId(1))));
    // COORDINATOR_NOT_AVAILABLE
    let nobody = sound().with_error_code(15).with_node_id((-1).into());
    assert!(matches!(read(nobody), Err(Refusal::Code(15, None))));
    for damaged in [
        sound().with_error_code(16),
        sound().with_node_id((-3).into()),
        sound().with_port(1 << 20),
        sound().with_key(StrBytes::from_static_str("tz")),
    ] {
        match read(damaged) {
            Err(Refusal::Error(error)) => assert!(error.is_retriable()),
            _ => panic!("it makes no sense"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_follows_its_coordinator_and_retries_by_class() {
    let (cluster, script, _) = cluster(&["one"]);
    // COORDINATOR_LOAD_IN_PROGRESS, NOT_COORDINATOR: then it lives on two.
    script.says().init_codes = vec![14, 16];
    script.says().coordinator = 1;
    let moving = async {
        while script.says().asked.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        script.says().coordinator = 2;
    };
    let (response, ()) = tokio::join!(init(&cluster, 30), moving);
    assert_eq!(response.unwrap().error_code, 0);
    assert_eq!(script.says().asked.last().unwrap(), "two");
    // A code that no retry mends is the caller's at once.
    script.says().init_codes = vec![53];
    assert_eq!(init(&cluster, 30).await.unwrap().error_code, 53);
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_by_its_deadline_and_says_that_it_may_have_worked() {
    let (cluster, script, _) = cluster(&["one"]);
    init(&cluster, 30).await.unwrap();
    script
        .says()
        .frozen
        .extend(["one".to_owned(), "two".to_owned()]);
    let start = now();
    let error = init(&cluster, 5).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.certainty(), Some(crate::Certainty::MaybeWritten));
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_broker_does_not_hold_back_metadata() {
    let (cluster, script, _) = cluster(&["one", "two"]);
    cluster.ready(within(5)).await.unwrap();
    script.says().topics.push("orders");
    script.says().frozen.insert("one".to_owned());
    let start = now();
    cluster.topic("orders", false, within(20)).await.unwrap();
    assert!(start.elapsed() < 4 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_frozen_broker_does_not_keep_others_from_being_asked_again() {
    let (cluster, script, connector) = cluster(&["one", "two"]);
    script.says().frozen.insert("one".to_owned());
    let refused = || connector.refused.lock().unwrap();
    refused().push_back("two".to_owned());
    let back = async {
        tokio::time::sleep(5 * SECOND).await;
        refused().clear();
    };
    let (ready, ()) = tokio::join!(cluster.ready(within(10)), back);
    ready.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_all_tasks() {
    let (cluster, _, _) = cluster(&["one"]);
    cluster.ready(within(5)).await.unwrap();
    let tasks = cluster.tasks().clone();
    let changes = cluster.changes();
    drop(cluster);
    assert!(!tasks.is_stopping());
    drop(changes);
    tasks.idle().await;
    assert!(tasks.failure().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_whose_known_brokers_are_all_gone_is_found_again() {
    let (cluster, script, connector) = cluster(&["boot"]);
    cluster.ready(within(5)).await.unwrap();
    script.says().brokers = vec![(3, "three")];
    script.says().topics.push("orders");
    // The old brokers vanish, established connections too.
    let refused = ["one", "two"].map(str::to_owned);
    connector.refused.lock().unwrap().extend(refused);
    script
        .says()
        .frozen
        .extend(["one".to_owned(), "two".to_owned()]);
    cluster.topic("orders", false, within(20)).await.unwrap();
    assert_eq!(
        cluster
            .snapshot()
            .brokers
            .keys()
            .copied()
            .collect::<Vec<_>>(),
        [BrokerId(3)]
    );
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_client_ends_waits_for_connections() {
    let (connector, mut accepting) = Scripted::new();
    let cluster = Cluster::new(
        ClientConfig::default(),
        vec![("one".to_owned(), 9092)],
        Clock::seeded(3, 0),
        connector,
        Tasks::new().unwrap(),
    );
    // It takes the connection and says nothing.
    let _far = Far::accept(&mut accepting).await;
    let before = now();
    let link = cluster.link(BrokerId(-1), Lane::Data, within(30));
    let stop = async {
        tokio::time::sleep(SECOND).await;
        cluster.tasks().stop();
    };
    let (link, ()) = tokio::join!(link, stop);
    assert_eq!(link.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(before.elapsed(), SECOND);
}
