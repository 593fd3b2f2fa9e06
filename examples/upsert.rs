//! A table of customers kept up to date from a topic, exactly once without transactions of Kafka:
//! the database keeps, with the rows, up to where each partition was read.
//!
//! ```text
//! cargo run --release --example upsert
//! ```
//!
//! `Database` stands for one of yours. What matters is that rows and offsets change in one of *its*
//! transactions, and that reading goes on where the database says, not where the group committed.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla::mock::MockCluster;
use ottla::{Batches, Client, Event, Record, TopicPartition};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Default)]
struct Database {
    /// `create table customers (id text primary key, name text, changes integer)`
    customers: BTreeMap<String, (String, u64)>,
    /// `create table offsets (topic text, part integer, next bigint, primary key (topic, part))`
    offsets: BTreeMap<TopicPartition, i64>,
}

impl Database {
    /// `begin; ... commit;`: all of a batch or nothing.
    fn apply(&mut self, batches: &Batches) -> Result<(), Error> {
        let mut rows = Vec::new();
        for batch in batches {
            let next = self.offsets.get(batch.topic_partition());
            for record in batch {
                let record = record?;
                // `where offsets.next <= ...`: what was applied before, by whomever, is passed.
                if next.is_some_and(|next| record.offset() < *next) {
                    continue;
                }
                let id = String::from_utf8(record.key().unwrap_or_default().to_vec())?;
                let name = String::from_utf8(record.value().unwrap_or_default().to_vec())?;
                rows.push((id, name));
            }
        }
        for (id, name) in rows {
            // `insert ... on conflict (id) do update set name = ..., changes = changes + 1`
            let row = self.customers.entry(id).or_default();
            *row = (name, row.1 + 1);
        }
        for (tp, next) in batches.offsets() {
            // `insert ... on conflict (topic, part) do update set next = greatest(next, ...)`
            let known = self.offsets.entry(tp).or_default();
            *known = next.offset().max(*known);
        }
        Ok(())
    }
}

/// The service, until `enough`.
async fn serve(
    client: &Client,
    database: &mut Database,
    enough: impl Fn(&Database) -> bool,
) -> Result<(), Error> {
    let consumer = client.consumer("customers").subscribe(["customers"]);
    let consumer = consumer.auto_commit(false).max_poll_records(50);
    let mut consumer = consumer
        .offset_reset(ottla::OffsetReset::Earliest)
        .build()?;
    while !enough(database) {
        match consumer.next_event().await? {
            Some(Event::Assigned(partitions)) => {
                for tp in partitions {
                    if let Some(next) = database.offsets.get(&tp) {
                        consumer.seek(&tp, *next)?;
                    }
                }
            }
            Some(Event::Records(batches)) => database.apply(&batches)?,
            Some(_) => {}
            None => break,
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mock = MockCluster::builder().topic("customers", 4).start().await?;
    let producer = mock.client().producer().build()?;
    for number in 0..1_000 {
        let (id, name) = (format!("c{}", number % 100), format!("name {number}"));
        let record = Record::to("customers").with_key(&id).with_value(&name);
        producer.enqueue(record).await?;
    }
    producer.close().await?;

    let mut database = Database::default();
    let changes = |database: &Database| database.customers.values().map(|row| row.1).sum::<u64>();
    // Two processes end in the middle; the last one finishes the work.
    for some in [300, 600, 1_000] {
        let enough = |database: &Database| changes(database) >= some;
        let client = mock.client();
        let served = serve(&client, &mut database, enough);
        tokio::time::timeout(Duration::from_secs(60), served).await??;
        println!("a process has ended after {} changes", changes(&database));
    }
    assert_eq!(changes(&database), 1_000);
    assert_eq!(database.customers["c7"], ("name 907".to_owned(), 10));
    println!(
        "1000 records, {} changes of {} rows",
        changes(&database),
        database.customers.len()
    );
    Ok(())
}
