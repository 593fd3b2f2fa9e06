//! Records through Kafka's Java tools and back, for every codec, with headers and nulls, on the
//! newest and the oldest broker.

use ottla::{Client, Compression, Header, OffsetReset, Record};
use ottla_testcontainers::Cluster;

use crate::support::{Result, client, old, one, partitions, take, text, unique};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// So many that every codec has something to compress.
const RECORDS: usize = 200;

/// What a record of this number has: key, value, headers.
fn contents(number: usize) -> (Option<String>, Option<String>) {
    let key = (!number.is_multiple_of(5)).then(|| format!("key-{number}"));
    let value =
        (!number.is_multiple_of(7)).then(|| format!("value {number} {}", "x".repeat(number)));
    (key, value)
}

fn or_null(text: Option<&str>) -> &str {
    text.unwrap_or("null")
}

async fn produce(client: &Client, topic: &str, codec: &str) -> Result {
    let producer = client
        .producer()
        .compression(codec.parse::<Compression>()?)
        .build()?;
    let mut deliveries = Vec::new();
    for number in 0..RECORDS {
        let (key, value) = contents(number);
        let mut record = Record::to(topic).with_partition(0);
        if let Some(key) = &key {
            record = record.with_key(key);
        }
        if let Some(value) = &value {
            record = record.with_value(value);
        }
        // The same name twice, and a header without a value.
        record = record
            .with_header("a", "1")
            .with_header("a", "2")
            .push_header(Header::null("n"));
        deliveries.push(producer.enqueue(record).await?);
    }
    for (number, delivery) in deliveries.into_iter().enumerate() {
        assert_eq!(delivery.await?.offset, Some(number as i64), "{codec}");
    }
    Ok(())
}

async fn to_java(cluster: &Cluster) -> Result {
    let client = client(cluster).await?;
    for codec in CODECS {
        let topic = unique("to-java");
        cluster.create_topic(&topic, 1, 1).await?;
        produce(&client, &topic, codec).await?;
        let max = RECORDS.to_string();
        let args = [
            "--topic",
            &topic,
            "--from-beginning",
            "--max-messages",
            &max,
            "--property",
            "print.key=true",
            "--property",
            "print.headers=true",
            "--property",
            "print.offset=true",
            "--property",
            "key.separator=|",
            "--property",
            "headers.separator=;",
            "--property",
            "null.literal=null",
        ];
        let output = cluster.tool("kafka-console-consumer.sh", &args).await?;
        // The tool of some versions has a word of advice to say first.
        let lines: Vec<&str> = output
            .stdout
            .lines()
            .filter(|line| line.starts_with("Offset:"))
            .collect();
        assert_eq!(lines.len(), RECORDS, "{codec}: {}", output.stderr);
        for (number, line) in lines.iter().enumerate() {
            let (key, value) = contents(number);
            let expected = format!(
                "Offset:{number}|a:1;a:2;n:null|{}|{}",
                or_null(key.as_deref()),
                or_null(value.as_deref())
            );
            assert_eq!(*line, expected, "{codec}");
        }
        let dump = format!("/var/lib/kafka/data/{topic}-0/00000000000000000000.log");
        if let Ok(dump) = cluster.tool("kafka-dump-log.sh", &["--files", &dump]).await {
            assert!(
                dump.stdout
                    .to_lowercase()
                    .contains(&format!("compresscodec: {codec}")),
                "{}",
                dump.stdout
            );
        }
    }
    Ok(())
}

async fn from_java(cluster: &Cluster) -> Result {
    let client = client(cluster).await?;
    for codec in CODECS {
        let topic = unique("from-java");
        cluster.create_topic(&topic, 1, 1).await?;
        let lines: String = (0..RECORDS)
            .map(|number| {
                let (key, value) = contents(number);
                format!(
                    "a:1,a:2\t{}\t{}\n",
                    or_null(key.as_deref()),
                    or_null(value.as_deref())
                )
            })
            .collect();
        let args = [
            "--topic",
            &topic,
            "--compression-codec",
            codec,
            "--property",
            "parse.key=true",
            "--property",
            "parse.headers=true",
            "--property",
            "null.marker=null",
        ];
        cluster
            .tool_command("kafka-console-producer.sh")
            .args(args)
            .stdin(lines)
            .run()
            .await?
            .success()?;
        let mut consumer = client
            .reader()
            .assign(partitions(&topic, 1))
            .offset_reset(OffsetReset::Earliest)
            .build()?;
        let records = take(&mut consumer, RECORDS)
            .await?
            .remove(&0)
            .unwrap_or_default();
        for (number, record) in records.iter().enumerate() {
            let (key, value) = contents(number);
            assert_eq!(record.offset(), number as i64, "{codec}");
            assert_eq!(record.key().map(|key| text(Some(key))), key, "{codec}");
            assert_eq!(
                record.value().map(|value| text(Some(value))),
                value,
                "{codec}"
            );
            let headers: Vec<_> = record
                .headers()
                .map(|header| (text(Some(header.name())), text(header.value())))
                .collect();
            assert_eq!(
                headers,
                [("a".into(), "1".into()), ("a".into(), "2".into())],
                "{codec}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn java_reads_what_ottla_writes() -> Result {
    to_java(one().await?).await
}

#[tokio::test]
async fn java_reads_what_ottla_writes_on_the_oldest_broker() -> Result {
    to_java(old().await?).await
}

#[tokio::test]
async fn ottla_reads_what_java_writes() -> Result {
    from_java(one().await?).await
}

#[tokio::test]
async fn ottla_reads_what_java_writes_on_the_oldest_broker() -> Result {
    from_java(old().await?).await
}

#[tokio::test]
async fn keys_go_to_the_partitions_that_java_chooses() -> Result {
    let (cluster, topic) = (one().await?, unique("keys"));
    cluster.create_topic(&topic, 7, 1).await?;
    let client = client(cluster).await?;
    let lines: String = (0..100)
        .map(|number| format!("key-{number}\tjava\n"))
        .collect();
    let args = ["--topic", &topic, "--property", "parse.key=true"];
    cluster
        .tool_command("kafka-console-producer.sh")
        .args(args)
        .stdin(lines)
        .run()
        .await?
        .success()?;
    let producer = client.producer().build()?;
    for number in 0..100 {
        let key = format!("key-{number}");
        drop(
            producer
                .enqueue(Record::to(&topic).with_key(&key).with_value("ottla"))
                .await?,
        );
    }
    producer.flush().await?;
    let mut consumer = client
        .reader()
        .assign(partitions(&topic, 7))
        .offset_reset(OffsetReset::Earliest)
        .build()?;
    let mut homes = std::collections::HashMap::new();
    for (partition, records) in take(&mut consumer, 200).await? {
        for record in records {
            homes
                .entry(text(record.key()))
                .or_insert_with(Vec::new)
                .push(partition);
        }
    }
    assert_eq!(homes.len(), 100);
    assert!(
        homes
            .values()
            .all(|homes| homes.len() == 2 && homes[0] == homes[1]),
        "{homes:?}"
    );
    Ok(())
}
