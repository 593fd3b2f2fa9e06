//! Transactions, as administrators see and end them, on the mock cluster.

use std::time::Duration;

use super::{AbortTransaction, Admin, TransactionFilter};
use crate::error::ErrorKind;
use crate::mock::{Api, MockCluster};
use crate::producer::TransactionalProducer;
use crate::{Explanation, IsolationLevel, OffsetReset, Record, TopicPartition};

const SECOND: Duration = Duration::from_secs(1);
const NOT_FOUND: i16 = 105;

async fn mock() -> MockCluster {
    let builder = MockCluster::builder().brokers(3).topic("t", 3);
    builder.in_memory().seed(5).start().await.unwrap()
}

async fn producer(mock: &MockCluster, id: &str) -> TransactionalProducer {
    let client = mock.client();
    client.transactional_producer(id).build().await.unwrap()
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

async fn ids(admin: &Admin, filter: TransactionFilter) -> Vec<String> {
    let listed = admin.list_transactions(filter).await.unwrap();
    listed
        .into_iter()
        .map(|listed| listed.transactional_id)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn transactions_are_listed_and_described() {
    let mock = mock().await;
    let admin = mock.client().admin();
    assert!(ids(&admin, TransactionFilter::all()).await.is_empty());
    let (mut one, mut two) = (producer(&mock, "one").await, producer(&mock, "two").await);
    let _idle = producer(&mock, "three").await;
    let open = one.begin().await.unwrap();
    for partition in [2, 0] {
        let record = Record::to("t").with_partition(partition).with_value("v");
        open.send(record).await.unwrap();
    }
    let ended = two.begin().await.unwrap();
    ended
        .send(Record::to("t").with_partition(0).with_value("v"))
        .await
        .unwrap();
    ended.commit().await.unwrap();
    tokio::time::sleep(30 * SECOND).await;

    let all = TransactionFilter::all;
    assert_eq!(ids(&admin, all()).await, ["one", "three", "two"]);
    assert_eq!(ids(&admin, all().states(["Ongoing"])).await, ["one"]);
    let states = ["Ongoing", "CompleteCommit"];
    assert_eq!(ids(&admin, all().states(states)).await, ["one", "two"]);
    assert_eq!(ids(&admin, all().longer_than(29 * SECOND)).await, ["one"]);
    assert!(ids(&admin, all().longer_than(31 * SECOND)).await.is_empty());
    assert_eq!(ids(&admin, all().id_pattern("t.*")).await, ["three", "two"]);
    let listed = admin.list_transactions(all()).await.unwrap();
    let id = listed[0].producer_id;
    assert_eq!(ids(&admin, all().producer_ids([id])).await, ["one"]);
    let error = admin
        .list_transactions(all().states(["Open"]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("'Open'"), "{error}");

    let described = admin
        .describe_transactions(["one", "two", "four"])
        .await
        .unwrap();
    let one = described.get("one").unwrap().as_ref().unwrap();
    assert_eq!((one.state.as_str(), one.producer_id), ("Ongoing", id));
    assert_eq!(one.partitions, [tp(0), tp(2)]);
    assert_eq!(one.timeout, 60 * SECOND);
    assert!(one.started.is_some());
    let coordinator = mock.transaction_coordinator("one").unwrap();
    assert_eq!(one.coordinator.get(), coordinator);
    let two = described.get("two").unwrap().as_ref().unwrap();
    assert_eq!((two.state.as_str(), two.started), ("CompleteCommit", None));
    let error = described.get("four").unwrap().as_ref().unwrap_err();
    assert_eq!(error.code().unwrap().get(), NOT_FOUND);

    let producers = admin.describe_producers([tp(0), tp(1)]).await.unwrap();
    let known = producers.get(&tp(0)).unwrap().as_ref().unwrap();
    let open: Vec<_> = known.iter().map(|known| known.transaction_start).collect();
    assert_eq!(open, [Some(0), None]);
    assert!(producers.get(&tp(1)).unwrap().as_ref().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn brokers_that_cannot_filter_are_named() {
    let builder = MockCluster::builder().topic("t", 1);
    let builder = builder.max_version(Api::ListTransactions, 0).in_memory();
    let mock = builder.start().await.unwrap();
    let admin = mock.client().admin();
    let all = TransactionFilter::all;
    assert!(ids(&admin, all()).await.is_empty());
    for (filter, why) in [
        (all().longer_than(SECOND), "Kafka 3.8"),
        (all().id_pattern("x"), "Kafka 4.1"),
    ] {
        let error = admin.list_transactions(filter).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedVersion, "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn producers_are_shut_out_and_their_transactions_ended() {
    let mock = mock().await;
    let admin = mock.client().admin();
    let mut producer = producer(&mock, "tx").await;
    let open = producer.begin().await.unwrap();
    open.send(Record::to("t").with_partition(0).with_value("v"))
        .await
        .unwrap();
    let fenced = admin.fence_producers(["tx", "new"]).await.unwrap();
    let tx = *fenced.get("tx").unwrap().as_ref().unwrap();
    let known = mock.transaction("tx").unwrap();
    assert_eq!(known.producer_id, tx.producer_id);
    assert_eq!(known.producer_epoch, tx.producer_epoch);
    assert_eq!(known.state, "Empty");
    assert!(fenced.get("new").unwrap().is_ok());
    let error = open.commit().await.unwrap_err();
    assert_eq!(error.error().kind(), ErrorKind::Fenced, "{error}");
    assert!(mock.committed_records("t", 0).is_empty());
}

#[tokio::test(start_paused = true)]
async fn hanging_transactions_are_found_and_aborted() {
    let mock = mock().await;
    let client = mock.client();
    let admin = client.admin();
    let hour = 3600 * SECOND;
    let hanging = producer(&mock, "hanging").await;
    let transaction = hanging.begin_owned().await.unwrap();
    let record = |value| Record::to("t").with_partition(0).with_value(value);
    transaction.send(record("never seen")).await.unwrap();
    assert!(mock.forget_transaction("hanging"));
    let find = async |longest| {
        let partitions = [tp(0), tp(1)];
        admin.find_hanging_transactions(partitions, longest).await
    };
    // Not yet: it may be one that takes long.
    assert!(find(Duration::MAX).await.unwrap().is_empty());
    assert!(find(SECOND).await.unwrap().is_empty());
    tokio::time::sleep(400 * SECOND).await;
    // No coordinator knows any producer of the partition.
    assert_eq!(find(SECOND).await.unwrap().len(), 1);
    let long = client
        .transactional_producer("long")
        .transaction_timeout(hour / 4);
    let mut long = long.build().await.unwrap();
    let open = long.begin().await.unwrap();
    open.send(record("seen")).await.unwrap();

    let reader = client
        .reader()
        .assign([tp(0)])
        .offset_reset(OffsetReset::Earliest);
    let reader = reader.isolation_level(IsolationLevel::ReadCommitted);
    let mut reader = reader.build().unwrap();
    let nothing = reader.poll_timeout(10 * SECOND).await.unwrap().unwrap();
    assert!(nothing.is_empty());
    let held = reader.explain(&tp(0));
    let told = held.to_string();
    assert!(told.contains("find_hanging_transactions"), "{told}");
    assert!(
        matches!(held, Explanation::OpenTransaction { last_stable: 0, high_watermark: 2, held }
            if held > 5 * SECOND),
        "{held:?}"
    );
    // It is caught up with what may be read.
    assert_eq!(reader.lag().records(), 0);
    tokio::time::sleep(400 * SECOND).await;
    // The other one is as old, and known.
    let found = find(SECOND).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].partition, tp(0));
    // Who looks for it while it is aborted finds nothing.
    let slow = mock.on(Api::ListTransactions).delay(SECOND);
    let abort = async {
        tokio::time::sleep(SECOND / 2).await;
        admin.abort_transaction(found[0].clone()).await
    };
    let (late, aborted) = tokio::join!(find(SECOND), abort);
    aborted.unwrap();
    assert!(late.unwrap().is_empty());
    slow.remove();
    assert!(find(SECOND).await.unwrap().is_empty());
    open.commit().await.unwrap();
    let batches = reader.poll().await.unwrap().unwrap();
    let values: Vec<_> = batches
        .iter()
        .flatten()
        .map(|record| record.unwrap().value().unwrap().to_vec())
        .collect();
    assert_eq!(values, [b"seen".to_vec()]);
    // It is over.
    let producers = admin
        .describe_producers([tp(0)])
        .await
        .unwrap()
        .all()
        .unwrap()
        .concat();
    let error = AbortTransaction::of(tp(0), &producers[0]).unwrap_err();
    assert!(error.to_string().contains("t-0"), "{error}");
    drop(transaction);
}
