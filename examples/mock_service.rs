//! How to test a service of your own on the mock cluster: no Docker, no Java, no ports, no waiting.
//!
//! `Totals` is the service: it adds up the orders of each customer. `main` is its test: the service
//! works, and goes on working while a broker dies and its connections break. In your code it would
//! be a function with `#[tokio::test]`.
//!
//! ```text
//! cargo run --example mock_service
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use ottla::mock::{Api, MockCluster};
use ottla::{Client, Consumer, OffsetReset, Producer, Record};

/// Reads `orders` and writes the new total of the customer to `totals` after each.
struct Totals {
    orders: Consumer,
    totals: Producer,
    sums: BTreeMap<String, u64>,
}

impl Totals {
    async fn start(client: &Client) -> ottla::Result<Self> {
        Ok(Self {
            orders: client
                .consumer("totals")
                .subscribe(["orders"])
                .offset_reset(OffsetReset::Earliest)
                .build()?,
            totals: client.producer().build()?,
            sums: BTreeMap::new(),
        })
    }

    /// Handles what has come; how many orders that were.
    async fn step(&mut self) -> Result<usize, Box<dyn Error>> {
        let Some(batches) = self.orders.poll().await? else {
            return Ok(0);
        };
        let mut deliveries = Vec::new();
        for batch in &batches {
            for record in batch.records() {
                let record = record?;
                let customer =
                    String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
                let amount: u64 =
                    std::str::from_utf8(record.value().unwrap_or_default())?.parse()?;
                let sum = self.sums.entry(customer.clone()).or_default();
                *sum += amount;
                let total = sum.to_string();
                let record = Record::to("totals").with_key(&customer).with_value(&total);
                deliveries.push(self.totals.enqueue(record).await?);
            }
        }
        for delivery in deliveries {
            delivery.await?;
        }
        self.orders.commit().await?;
        Ok(batches.record_count())
    }

    async fn stop(self) -> ottla::Result<()> {
        self.totals.close().await?;
        self.orders.close_timeout(Duration::from_secs(10)).await
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let mock = MockCluster::builder()
        .brokers(3)
        .topic("orders", 4)
        .topic("totals", 1)
        .start()
        .await?;
    let client = mock.client();

    let orders = client.producer().build()?;
    for (customer, amount) in [("ann", 3), ("bob", 5), ("ann", 4), ("bob", 1)] {
        let amount = amount.to_string();
        orders
            .send(Record::to("orders").with_key(customer).with_value(&amount))
            .await?;
    }

    // What a rolling restart and a lost answer do to it.
    let lost = mock.on(Api::Produce).times(1).apply_then_drop();
    mock.kill(2);

    let mut service = Totals::start(&client).await?;
    let mut handled = 0;
    while handled < 4 {
        handled += service.step().await?;
    }

    let totals: Vec<(String, String)> = mock
        .records("totals", 0)
        .iter()
        .map(|record| {
            let text = |bytes: Option<&[u8]>| {
                String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
            };
            (text(record.key()), text(record.value()))
        })
        .collect();
    assert_eq!(totals.len(), 4, "each once, though an answer was lost");
    assert!(totals.contains(&("ann".to_owned(), "7".to_owned())));
    assert!(totals.contains(&("bob".to_owned(), "6".to_owned())));
    assert_eq!(lost.hits(), 1);
    let committed: i64 = mock
        .group("totals")
        .map(|group| group.offsets.iter().map(|(_, offset)| offset).sum())
        .unwrap_or_default();
    assert_eq!(committed, 4);

    service.stop().await?;
    orders.close().await?;
    client.close().await?;
    println!("the service passed in {:?}", began.elapsed());
    Ok(())
}
