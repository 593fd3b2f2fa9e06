//! Records in and out, byte for byte: alone, to Kafka's tools and from them.

use serde_json::{Value, json};

use super::process::{Ended, Tool, run};
use super::promises::{name, named};
use crate::support::{LONG, Result, one, unique};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

async fn produce(bootstrap: &str, topic: &str, lines: &[Value]) -> Result<Ended> {
    let mut tool = Tool::start(
        "roundtrip",
        &["produce", "--bootstrap-server", bootstrap, "--topic", topic],
    )?;
    let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
    tool.input(&input).await?;
    tool.end(LONG).await
}

async fn consume(bootstrap: &str, topic: &str) -> Result<Vec<Value>> {
    let args = ["consume", "--bootstrap-server", bootstrap, "--topic", topic];
    let ended = run(
        "roundtrip",
        &[&args[..], &["--isolation-level", "read_committed"]].concat(),
    )
    .await?;
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    let records: Vec<Value> = named(&ended.events, "record").cloned().collect();
    let done = ended.events.last().ok_or("no events")?;
    assert_eq!(
        (name(done), &done["complete"], &done["count"]),
        ("done", &json!(true), &json!(records.len()))
    );
    Ok(records)
}

/// Every kind of absence and presence: base64 of `k`, `v`, nothing; repeated, empty and null
/// headers.
fn lines(codec: &str, partition: i64) -> Vec<Value> {
    let headers = json!([
        ["a", "MQ=="],
        ["a", "Mg=="],
        ["n", null],
        ["e", ""],
        ["", "AP8="]
    ]);
    let parts = [json!("aw=="), json!(""), Value::Null];
    let mut lines = Vec::new();
    for key in &parts {
        for value in [json!("dg=="), json!(""), Value::Null, json!("AAECA//+")] {
            let headers = if lines.len() % 2 == 0 {
                headers.clone()
            } else {
                json!([])
            };
            let id = partition * 100 + lines.len() as i64;
            lines.push(json!({
                "id": id, "codec": codec, "partition": partition, "timestamp": 1_700_000_000_000 + id,
                "key": key, "value": value, "headers": headers,
            }));
        }
    }
    lines
}

#[tokio::test]
async fn what_goes_in_comes_out() -> Result {
    let (cluster, topic) = (one().await?, unique("roundtrip"));
    let bootstrap = cluster.bootstrap();
    cluster.create_topic(&topic, 5, 1).await?;
    let input: Vec<Value> = CODECS
        .iter()
        .zip(0..)
        .flat_map(|(codec, partition)| lines(codec, partition))
        .collect();
    let produced = produce(&bootstrap, &topic, &input).await?;
    assert_eq!(produced.status, 0, "{}", produced.stderr);
    let records = consume(&bootstrap, &topic).await?;
    assert_eq!(records.len(), input.len());
    for line in &input {
        let event =
            named(&produced.events, "record_produced").find(|event| event["id"] == line["id"]);
        let event = event.ok_or_else(|| format!("no event for {line}"))?;
        assert_eq!(
            (&event["partition"], &event["record_timestamp"]),
            (&line["partition"], &line["timestamp"])
        );
        let record = records.iter().find(|record| {
            (&record["partition"], &record["offset"]) == (&event["partition"], &event["offset"])
        });
        let record = record.ok_or_else(|| format!("no record for {event}"))?;
        for field in ["key", "value", "headers"] {
            assert_eq!(record[field], line[field], "{line}");
        }
        assert_eq!(record["record_timestamp"], line["timestamp"]);
        assert_eq!(record["timestamp_type"], "CreateTime");
    }
    Ok(())
}

#[tokio::test]
async fn kafkas_tools_read_and_write_the_same() -> Result {
    let cluster = one().await?;
    let bootstrap = cluster.bootstrap();
    for codec in CODECS {
        let (there, back) = (unique("there"), unique("back"));
        cluster.create_topic(&there, 1, 1).await?;
        cluster.create_topic(&back, 1, 1).await?;
        // Without bytes that are no text, and without names that the tool's output would hide.
        let mut input = lines(codec, 0);
        input.retain(|line| line["value"] != "AAECA//+");
        assert_eq!(produce(&bootstrap, &there, &input).await?.status, 0);
        let count = input.len().to_string();
        let print = [
            "print.key=true",
            "print.headers=true",
            "key.separator=|",
            "headers.separator=;",
            "null.literal=NULL",
        ];
        let print: Vec<&str> = print
            .iter()
            .flat_map(|property| ["--property", property])
            .collect();
        let args = [
            "--topic",
            &there,
            "--from-beginning",
            "--max-messages",
            &count,
        ];
        let read = cluster
            .tool("kafka-console-consumer.sh", &[&args[..], &print].concat())
            .await?;
        let text = |value: &Value| match value.as_str() {
            Some("aw==") => "k",
            Some("dg==") => "v",
            Some(_) => "",
            None => "NULL",
        };
        let expected: Vec<String> = input
            .iter()
            .map(|line| {
                let headers = if line["headers"] == json!([]) {
                    "NO_HEADERS"
                } else {
                    "a:1;a:2;n:NULL;e:;:\0\u{fffd}"
                };
                format!("{headers}|{}|{}", text(&line["key"]), text(&line["value"]))
            })
            .collect();
        let lines: Vec<&str> = read
            .stdout
            .lines()
            .filter(|line| line.contains('|'))
            .collect();
        assert_eq!(lines, expected, "{codec}");

        let parse = ["parse.key=true", "parse.headers=true", "null.marker=NULL"];
        let parse: Vec<&str> = parse
            .iter()
            .flat_map(|property| ["--property", property])
            .collect();
        let args = ["--topic", &back, "--compression-codec", codec];
        let tool = cluster.tool_command("kafka-console-producer.sh");
        let stdin = "a:1,a:2\tk\tv\na:1\tNULL\tv\na:1\tk\tNULL\na:\tk\t\n";
        tool.args([&args[..], &parse].concat())
            .stdin(stdin)
            .run()
            .await?
            .success()?;
        let records = consume(&bootstrap, &back).await?;
        let parts: Vec<Value> = records
            .iter()
            .map(|record| json!([record["headers"], record["key"], record["value"]]))
            .collect();
        let expected = json!([
            [[["a", "MQ=="], ["a", "Mg=="]], "aw==", "dg=="],
            [[["a", "MQ=="]], null, "dg=="],
            [[["a", "MQ=="]], "aw==", null],
            [[["a", ""]], "aw==", ""],
        ]);
        assert_eq!(Value::from(parts), expected, "{codec}");
    }
    Ok(())
}

#[tokio::test]
async fn a_record_that_cannot_be_sent_fails_alone() -> Result {
    let (cluster, topic) = (one().await?, unique("refused"));
    let bootstrap = cluster.bootstrap();
    cluster
        .create_topic_with(
            &topic,
            1,
            1,
            &[
                ("max.message.bytes", "2000"),
                ("message.timestamp.type", "LogAppendTime"),
            ],
        )
        .await?;
    let line = |id: i64, value: &str, partition: Value, timestamp: Value| json!({"id": id, "codec": "none", "partition": partition, "timestamp": timestamp, "key": null, "value": value, "headers": []});
    let input = [
        line(0, "dg==", Value::Null, Value::Null),
        line(1, &"AAAA".repeat(700), Value::Null, Value::Null), // the topic's limit
        line(2, &"AAAA".repeat(400_000), Value::Null, Value::Null), // the producer's limit
        line(3, "dg==", json!(7), Value::Null),
        line(4, "dg==", Value::Null, json!(-5)),
        line(5, "dg==", json!(0), json!(1)),
    ];
    let produced = produce(&bootstrap, &topic, &input).await?;
    assert_eq!(produced.status, 1);
    let mut failed: Vec<_> = named(&produced.events, "record_error")
        .map(|event| event["id"].to_string())
        .collect();
    failed.sort();
    assert_eq!(failed, ["1", "2", "3", "4"]);
    let done = produced.events.last().ok_or("no events")?;
    assert_eq!((&done["produced"], &done["failed"]), (&json!(2), &json!(4)));
    let records = consume(&bootstrap, &topic).await?;
    assert_eq!(records.len(), 2);
    for (record, event) in records
        .iter()
        .zip(named(&produced.events, "record_produced"))
    {
        assert_eq!(record["timestamp_type"], "LogAppendTime");
        assert_eq!(record["record_timestamp"], event["record_timestamp"]);
    }
    Ok(())
}
