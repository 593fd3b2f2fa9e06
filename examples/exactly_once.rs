//! Orders become bills, each exactly once, though everything goes wrong: the service fails, its
//! process dies and another one takes over, a broker is restarted.
//!
//! ```text
//! cargo run --release --example exactly_once
//! ```
//!
//! `bill` and `serve` are the service; `main` tries it on a cluster inside of this process.

use std::time::Duration;

use ottla::mock::MockCluster;
use ottla::{Client, OffsetReset, Record, TransactionalBatches, TransactionalConsumer};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Writes a bill for each order. Nothing of it is seen before the transaction is committed.
async fn bill(orders: &TransactionalBatches<'_>) -> Result<(), Error> {
    for record in orders.batches().iter().flatten() {
        let order = record?;
        let number: u64 = std::str::from_utf8(order.value().unwrap_or_default())?.parse()?;
        let text = format!("bill for order {number}");
        let bill = Record::to("bills").with_value(&text);
        orders.enqueue(bill).await?; // the commit waits for it
    }
    Ok(())
}

/// The service, until it has processed so many batches. `fails` is where this example makes it
/// stumble.
async fn serve(
    client: &Client,
    batches: usize,
    fails: impl Fn(usize) -> bool,
) -> Result<(), Error> {
    // Each process that runs at the same time needs an id of its own, which its successor keeps.
    let producer = client.transactional_producer("billing-1").build().await?;
    let consumer = client
        .consumer("billing")
        .subscribe(["orders"])
        .offset_reset(OffsetReset::Earliest)
        .max_poll_records(10);
    let mut consumer = TransactionalConsumer::new(consumer, producer)?;
    for number in 0..batches {
        let wait = Duration::from_secs(10);
        let Ok(polled) = tokio::time::timeout(wait, consumer.poll()).await else {
            break; // nothing more came
        };
        let Some(orders) = polled? else { break };
        let mut outcome = bill(&orders).await;
        if fails(number) {
            outcome = Err("the tax office does not answer".into());
        }
        // Commits the bills with the offsets of the orders, or neither: then they come again.
        if let Err(error) = orders.end(outcome).await {
            println!("batch {number}: {error}, to be done again");
        }
    }
    Ok(()) // dropped without an end, as if the process had died
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mock = MockCluster::builder()
        .brokers(3)
        .topic("orders", 3)
        .topic("bills", 3);
    let mock = mock.start().await?;
    let producer = mock.client().producer().build()?;
    for number in 0..300 {
        let value = number.to_string();
        producer
            .enqueue(Record::to("orders").with_value(&value))
            .await?;
    }
    producer.close().await?;

    for life in 0..4 {
        // The last one finishes the work.
        let batches = if life < 3 { 12 } else { usize::MAX };
        let client = mock.client();
        tokio::select! {
            served = serve(&client, batches, |number| number % 5 == 4 && life < 3) => served?,
            never = restarts(&mock) => never?,
        }
        println!("process {life} has ended");
        if bills(&mock).len() == 300 {
            break;
        }
    }
    let mut bills = bills(&mock);
    let all = bills.len();
    bills.sort();
    bills.dedup();
    println!("300 orders, {all} bills, {} of them different", bills.len());
    assert_eq!((all, bills.len()), (300, 300));
    Ok(())
}

/// Restarts one broker after the other.
async fn restarts(mock: &MockCluster) -> Result<(), Error> {
    for broker in (1..=3).cycle() {
        tokio::time::sleep(Duration::from_millis(300)).await;
        mock.kill(broker);
        tokio::time::sleep(Duration::from_millis(100)).await;
        mock.restart(broker).await?;
    }
    Ok(())
}

/// What `read_committed` consumers see.
fn bills(mock: &MockCluster) -> Vec<String> {
    let records = (0..3).flat_map(|partition| mock.committed_records("bills", partition));
    let value = |record: &ottla::OwnedRecord| record.value().unwrap_or_default().to_vec();
    records
        .map(|record| String::from_utf8_lossy(&value(&record)).into_owned())
        .collect()
}
