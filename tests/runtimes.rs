//! Clients and producers that outlive the runtime on which they were built, on real threads.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::future::Future;
use std::time::Duration;

use ottla::mock::{Api, MockCluster};
use ottla::{Client, Error, ErrorKind, Producer, Record};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// No wait here may last so long; all deadlines of the client are longer.
const PATIENCE: Duration = Duration::from_secs(30);

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

/// A cluster on a runtime that lives, and a client of it on one that can be ended.
struct World {
    mock: MockCluster,
    client: Client,
    first: Runtime,
    second: Runtime,
    _cluster: Runtime,
}

impl World {
    fn new() -> Self {
        let (cluster, first, second) = (runtime(), runtime(), runtime());
        let builder = MockCluster::builder().topic("t", 1).in_memory();
        let builder = builder.auto_create(false);
        let mock = cluster.block_on(builder.start()).unwrap();
        let client = {
            let _on = first.enter();
            let builder = mock.client_builder().api_timeout(4 * PATIENCE);
            builder.request_timeout(4 * PATIENCE).build().unwrap()
        };
        Self {
            mock,
            client,
            first,
            second,
            _cluster: cluster,
        }
    }

    /// On the first runtime.
    fn producer(&self) -> Producer {
        let builder = self.client.producer().max_block(4 * PATIENCE);
        let builder = builder.delivery_timeout(8 * PATIENCE).buffer_memory(40_000);
        builder.build().unwrap()
    }

    /// A wait on the second runtime that has begun.
    fn waits<T: Send + 'static>(
        &self,
        wait: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.second.spawn(async {
            timeout(PATIENCE, wait)
                .await
                .expect("the wait ends with the runtime")
        })
    }
}

fn assert_told(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    assert!(error.to_string().contains("tokio runtime"), "{error}");
}

#[test]
fn what_is_called_after_the_runtime_fails_at_once() {
    let world = World::new();
    let producer = world.producer();
    world.first.block_on(async {
        producer
            .send(Record::to("t").with_value("v"))
            .await
            .unwrap();
    });
    let World {
        client,
        first,
        second,
        ..
    } = world;
    drop(first);
    second.block_on(async {
        let all = async {
            assert_told(
                &producer
                    .enqueue(Record::to("t").with_value("v"))
                    .await
                    .unwrap_err(),
            );
            assert_told(
                &producer
                    .try_enqueue(Record::to("new").with_value("v"))
                    .unwrap_err(),
            );
            assert_told(
                &producer
                    .send(Record::to("new").with_value("v"))
                    .await
                    .unwrap_err(),
            );
            assert_told(&producer.flush().await.unwrap_err());
            assert_told(&client.ready(4 * PATIENCE).await.unwrap_err());
            assert_told(&client.admin().list_topics().await.unwrap_err());
            assert_told(&client.producer().build().unwrap_err());
            assert_told(&producer.close().await.unwrap_err());
            client.close().await.unwrap();
        };
        timeout(PATIENCE, all).await.unwrap();
    });
}

#[test]
fn who_waits_is_told_when_the_runtime_ends() {
    let world = World::new();
    let (producer, full) = (world.producer(), world.producer());
    for producer in [&producer, &full] {
        let known = producer.send(Record::to("t").with_value("v"));
        world.first.block_on(known).unwrap();
    }
    let silent = 100 * PATIENCE;
    world.mock.on(Api::Produce).delay(silent);
    world.mock.on(Api::ListGroups).delay(silent);
    let unanswered = {
        let (producer, client) = (producer.clone(), world.client.clone());
        let (flushing, closing) = (producer.clone(), world.producer());
        for producer in [&producer, &closing] {
            let sent = producer.enqueue(Record::to("t").with_value("v"));
            drop(world.first.block_on(sent).unwrap());
        }
        [
            // For the acknowledgement, the topic, all acknowledgements, an answer, the end.
            world.waits({
                let producer = producer.clone();
                async move {
                    let record = Record::to("t").with_value("v");
                    producer.send(record).await.map(drop)
                }
            }),
            world.waits(async move {
                let record = Record::to("missing").with_value("v");
                producer.send(record).await.map(drop)
            }),
            world.waits(async move { flushing.flush().await }),
            world.waits(async move { client.admin().list_groups().await.map(drop) }),
            world.waits(async move { closing.close_timeout(4 * PATIENCE).await.map(drop) }),
        ]
    };
    // For memory.
    let value = vec![1; 15_000];
    let filling = world.waits(async move {
        loop {
            let record = Record::to("t").with_value(&value);
            if let Err(error) = full.enqueue(record).await {
                break Err(error);
            }
        }
    });
    // For the first metadata.
    world.mock.on(Api::Metadata).delay(silent);
    let other = {
        let _on = world.first.enter();
        world.mock.client()
    };
    let ready = world.waits({
        let other = other.clone();
        async move { other.ready(4 * PATIENCE).await }
    });
    let listed = world.waits(async move { other.admin().list_topics().await.map(drop) });
    std::thread::sleep(Duration::from_millis(300));
    let World { first, second, .. } = world;
    let waits = unanswered.into_iter().chain([filling, ready, listed]);
    let waits: Vec<_> = waits.collect();
    for (number, wait) in waits.iter().enumerate() {
        assert!(!wait.is_finished(), "{number} does not wait");
    }
    drop(first);
    for (number, wait) in waits.into_iter().enumerate() {
        let error = second.block_on(wait).unwrap().unwrap_err();
        eprintln!("{number}: {error}");
        assert_told(&error);
    }
}
