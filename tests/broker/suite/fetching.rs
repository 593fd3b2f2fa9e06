//! Reading on while logs are cut, topics made anew, leaders moved and brokers frozen; transactions,
//! compacted logs, and replicas nearby.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla::{Client, Consumer, ErrorKind, IsolationLevel, OffsetReset, Record, TopicPartition};
use ottla_testcontainers::Cluster;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{LONG, Result, client, one, partition_error, partitions, take, text, unique};

const CLOSE: Duration = Duration::from_secs(20);
const SECOND: Duration = Duration::from_secs(1);

fn reader(client: &Client, partitions: Vec<TopicPartition>) -> ottla::ConsumerBuilder {
    let builder = client.reader().assign(partitions);
    builder.offset_reset(OffsetReset::Earliest)
}

/// Sends `numbers` to partition 0 and waits until they are written.
async fn produce(client: &Client, topic: &str, numbers: std::ops::Range<usize>) -> Result {
    let producer = client.producer().build()?;
    for number in numbers {
        let value = number.to_string();
        drop(
            producer
                .enqueue(Record::to(topic).with_partition(0).with_value(&value))
                .await?,
        );
    }
    producer.close_timeout(LONG).await.unwrap();
    Ok(())
}

/// A topic of one partition with these replicas, the first of them its leader.
async fn placed(cluster: &Cluster, topic: &str, replicas: &str, settings: &[&str]) -> Result {
    let create = [
        "--create",
        "--topic",
        topic,
        "--replica-assignment",
        replicas,
    ];
    let settings = settings.iter().flat_map(|setting| ["--config", setting]);
    let args: Vec<&str> = create.into_iter().chain(settings).collect();
    cluster.tool("kafka-topics.sh", &args).await?;
    Ok(())
}

/// (offset, value) of the next records, which must be of partition 0.
async fn pairs(consumer: &mut Consumer, count: usize) -> Result<Vec<(i64, String)>> {
    let mut records = take(consumer, count).await?;
    let records = records.remove(&0).unwrap_or_default().into_iter();
    Ok(records
        .map(|record| (record.offset(), text(record.value())))
        .collect())
}

fn numbered(range: std::ops::Range<i64>, shift: i64) -> Vec<(i64, String)> {
    range.map(|n| (n, (n + shift).to_string())).collect()
}

#[tokio::test]
async fn a_log_cut_by_an_unclean_election_is_noticed_and_read_from_the_cut_on() -> Result {
    let cluster = Cluster::builder().brokers(3).start().await?;
    let topic = "cut";
    let unclean = [
        "unclean.leader.election.enable=true",
        "min.insync.replicas=1",
    ];
    placed(&cluster, topic, "2:3", &unclean).await?;
    let client = client(&cluster).await?;
    produce(&client, topic, 0..100).await?;
    let mut goes_back = reader(&client, partitions(topic, 1)).build()?;
    let mut is_told = reader(&client, partitions(topic, 1))
        .offset_reset(OffsetReset::None)
        .build()?;
    let tp = TopicPartition::new(topic, 0);
    is_told.seek(&tp, 0)?;
    cluster.broker(3).kill().await?;
    produce(&client, topic, 100..200).await?;
    for consumer in [&mut goes_back, &mut is_told] {
        assert_eq!(pairs(consumer, 200).await?, numbered(0..200, 0));
    }
    // The one that lacks the second hundred becomes the leader.
    cluster.broker(2).kill().await?;
    cluster.broker(3).start_without_waiting().await?;
    let elect = [
        "--election-type",
        "unclean",
        "--topic",
        topic,
        "--partition",
        "0",
    ];
    let deadline = Instant::now() + LONG;
    loop {
        let described = cluster
            .tool_command("kafka-topics.sh")
            .args(["--describe", "--topic", topic])
            .on(1)
            .run()
            .await?;
        if described.stdout.contains("Leader: 3") {
            break;
        }
        assert!(Instant::now() < deadline, "{described:?}");
        let elected = cluster
            .tool_command("kafka-leader-election.sh")
            .args(elect)
            .on(1);
        let _ = elected.run().await;
        sleep(SECOND).await;
    }
    produce(&client, topic, 1000..1050).await?;
    assert_eq!(pairs(&mut goes_back, 50).await?, numbered(100..150, 900));
    let error = partition_error(&mut is_told).await?;
    assert_eq!(
        (error.kind(), error.topic_partition()),
        (ErrorKind::Offset, Some(&tp)),
        "{error}"
    );
    is_told.seek(&tp, 100)?;
    assert_eq!(pairs(&mut is_told, 50).await?, numbered(100..150, 900));
    Ok(())
}

#[tokio::test]
async fn positions_of_a_deleted_topic_are_not_those_of_its_successor() -> Result {
    let (cluster, topic, group) = (one().await?, unique("anew"), unique("group"));
    cluster.create_topic(&topic, 1, 1).await?;
    let client = client(cluster).await?;
    produce(&client, &topic, 0..100).await?;
    let mut assigned = reader(&client, partitions(&topic, 1)).build()?;
    let mut member = client
        .consumer(group)
        .subscribe([topic.as_str()])
        .offset_reset(OffsetReset::Earliest)
        .auto_commit_interval(Duration::from_millis(100))
        .build()?;
    for consumer in [&mut assigned, &mut member] {
        assert_eq!(pairs(consumer, 100).await?, numbered(0..100, 0));
    }
    let _ = member.poll_timeout(SECOND).await?;
    cluster
        .tool("kafka-topics.sh", &["--delete", "--topic", &topic])
        .await?;
    cluster.create_topic(&topic, 1, 1).await?;
    produce(&client, &topic, 500..650).await?;
    for consumer in [&mut assigned, &mut member] {
        assert_eq!(pairs(consumer, 150).await?, numbered(0..150, 500));
    }
    // Nor after a while in which there is none.
    cluster
        .tool("kafka-topics.sh", &["--delete", "--topic", &topic])
        .await?;
    for consumer in [&mut assigned, &mut member] {
        let nothing = consumer.poll_timeout(5 * SECOND).await?;
        assert!(nothing.ok_or("closed")?.is_empty());
    }
    cluster.create_topic(&topic, 1, 1).await?;
    produce(&client, &topic, 700..900).await?;
    for consumer in [&mut assigned, &mut member] {
        assert_eq!(pairs(consumer, 200).await?, numbered(0..200, 700));
    }
    member.close_timeout(CLOSE).await?;
    assigned.close_timeout(CLOSE).await?;
    Ok(())
}

const MOVED: usize = 30_000;

#[tokio::test]
async fn every_record_comes_once_and_in_order_while_leaders_move() -> Result {
    let cluster = Cluster::builder().brokers(3).start().await?;
    let topic = "moving";
    cluster.create_topic(topic, 6, 3).await?;
    let client = client(&cluster).await?;
    let mut consumer = reader(&client, partitions(topic, 6)).build()?;
    let producer = client.producer().build()?;
    let produce = async {
        for number in 0..MOVED {
            let value = number.to_string();
            let record = Record::to(topic)
                .with_partition((number % 6) as i32)
                .with_value(&value);
            drop(producer.enqueue(record).await?);
            if number % 100 == 0 {
                sleep(Duration::from_millis(50)).await;
            }
        }
        producer.flush().await?;
        Result::<()>::Ok(())
    };
    let consume = async {
        let mut next = [0_usize, 1, 2, 3, 4, 5];
        let mut seen = 0;
        while seen < MOVED {
            let polled = timeout(LONG, consumer.poll())
                .await
                .map_err(|_| format!("{seen} of {MOVED} came"))?;
            for batch in &polled?.ok_or("closed")? {
                let expected = &mut next[batch.partition() as usize];
                for record in batch.records() {
                    assert_eq!(text(record?.value()), expected.to_string());
                    *expected += 6;
                    seen += 1;
                }
            }
        }
        Result::<()>::Ok(())
    };
    let move_leaders = async {
        for id in 1..=3 {
            sleep(2 * SECOND).await;
            match id {
                2 => cluster.broker(id).kill().await?,
                _ => cluster.broker(id).stop().await?,
            }
            cluster.broker(id).start().await?;
            let preferred = ["--election-type", "preferred", "--all-topic-partitions"];
            let _ = cluster.tool("kafka-leader-election.sh", &preferred).await;
        }
        Result::<()>::Ok(())
    };
    tokio::try_join!(produce, consume, move_leaders)?;
    consumer.close_timeout(CLOSE).await?;
    Ok(())
}

/// The longest time between two records of each partition, while `during` runs.
async fn gaps(consumer: &mut Consumer, during: Duration) -> Result<BTreeMap<i32, Duration>> {
    let start = Instant::now();
    let mut last: BTreeMap<i32, Instant> = (0..3).map(|partition| (partition, start)).collect();
    let mut longest: BTreeMap<i32, Duration> = BTreeMap::new();
    while start.elapsed() < during {
        let Ok(polled) = timeout(during, consumer.poll()).await else {
            break;
        };
        let now = Instant::now();
        for batch in &polled?.ok_or("closed")? {
            let since = now - last.insert(batch.partition(), now).unwrap_or(now);
            let gap = longest.entry(batch.partition()).or_default();
            *gap = since.max(*gap);
        }
    }
    Ok(longest)
}

#[tokio::test]
async fn a_broker_that_freezes_or_is_cut_off_does_not_slow_the_others_partitions() -> Result {
    let cluster = Cluster::builder().brokers(3).start().await?;
    let topic = "frozen";
    placed(&cluster, topic, "1,2,3", &[]).await?;
    let client = client(&cluster).await?;
    let mut consumer = reader(&client, partitions(topic, 3)).build()?;
    let producers = (0..3).map(|partition| {
        let client = client.clone();
        tokio::spawn(async move {
            let builder = client.producer();
            let producer = builder.linger(Duration::ZERO).build()?;
            loop {
                let record = Record::to("frozen")
                    .with_partition(partition)
                    .with_value(b"tick");
                drop(producer.enqueue(record).await?);
                sleep(Duration::from_millis(10)).await;
            }
            #[allow(unreachable_code)]
            Result::<()>::Ok(())
        })
    });
    let producers: Vec<_> = producers.collect();
    gaps(&mut consumer, 3 * SECOND).await?;
    let calm = gaps(&mut consumer, 5 * SECOND).await?;
    cluster.broker(3).pause().await?;
    let frozen = gaps(&mut consumer, 10 * SECOND).await?;
    cluster.broker(3).unpause().await?;
    gaps(&mut consumer, 5 * SECOND).await?;
    cluster.broker(3).cut_clients().await?;
    let cut = gaps(&mut consumer, 10 * SECOND).await?;
    cluster.broker(3).heal().await?;
    let healed = gaps(&mut consumer, 15 * SECOND).await?;
    producers.iter().for_each(|task| task.abort());
    eprintln!("longest gaps: calm {calm:?}, frozen {frozen:?}, cut {cut:?}, healed {healed:?}");
    for partition in 0..2 {
        for gaps in [&frozen, &cut] {
            assert!(gaps[&partition] < 2 * SECOND, "{gaps:?}");
        }
    }
    assert!(healed.contains_key(&2), "it goes on with the third");
    Ok(())
}

#[tokio::test]
async fn committed_records_only_whatever_transactions_hang_or_abort() -> Result {
    let (cluster, topic) = (one().await?, unique("transactions"));
    cluster.create_topic(&topic, 1, 1).await?;
    let client = client(cluster).await?;
    produce(&client, &topic, 0..10).await?;
    let in_transaction = |id: &'static str, records: &'static str, lasting: &'static str| {
        let topic = topic.clone();
        async move {
            let args = [
                "--topic",
                &topic,
                "--num-records",
                records,
                "--record-size",
                "20",
                "--throughput",
                "100",
                "--transactional-id",
                id,
                "--transaction-duration-ms",
                lasting,
                "--producer-props",
                "bootstrap.servers=localhost:9094",
                "linger.ms=0",
                "transaction.timeout.ms=20000",
            ];
            let tool = cluster.tool_command("kafka-producer-perf-test.sh");
            // Killed in the middle of it, if it lasts.
            tool.args(args).timeout(10 * SECOND).run().await
        }
    };
    in_transaction("commits", "50", "1").await?.success()?;
    let mut committed = reader(&client, partitions(&topic, 1))
        .isolation_level(IsolationLevel::ReadCommitted)
        .build()?;
    assert_eq!(take(&mut committed, 60).await?[&0].len(), 60);
    let killed = in_transaction("hangs", "100000", "600000").await;
    assert!(killed.is_err(), "{killed:?}");
    produce(&client, &topic, 10..20).await?;
    let tp = TopicPartition::new(topic.as_str(), 0);
    let mut all = reader(&client, vec![tp.clone()]).build()?;
    let high_watermark = all.end_offsets([&tp]).await?[&tp];
    let stable = committed.end_offsets([&tp]).await?[&tp];
    assert!(stable < high_watermark - 10, "{stable} {high_watermark}");
    let nothing = committed.poll_timeout(2 * SECOND).await?.ok_or("closed")?;
    assert!(nothing.is_empty(), "{nothing:?}");
    let lag = committed.fetch_lag().await?;
    assert_eq!(lag.records(), 0, "{lag:?}");
    // The coordinator aborts it after its time-out.
    let after = pairs(&mut committed, 10).await?;
    let values: Vec<_> = after.iter().map(|(_, value)| value.as_str()).collect();
    let expected: Vec<String> = (10..20).map(|n| n.to_string()).collect();
    assert_eq!(values, expected);
    let mut seen = 0;
    while all.position(&tp).is_none_or(|at| at <= after[9].0) {
        let polled = timeout(LONG, all.poll()).await??.ok_or("closed")?;
        seen += polled.record_count();
    }
    assert!(seen > 80, "records of the aborted transaction too: {seen}");
    let _ = committed.poll_timeout(2 * SECOND).await?;
    let lag = committed.fetch_lag().await?;
    assert_eq!(
        lag.records(),
        0,
        "markers at the end count as read: {lag:?}"
    );
    Ok(())
}

#[tokio::test]
async fn compacted_logs_are_read_over_their_holes() -> Result {
    let (cluster, topic) = (one().await?, unique("compacted"));
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "200"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("min.compaction.lag.ms", "0"),
    ];
    cluster.create_topic_with(&topic, 1, 1, &settings).await?;
    let client = client(cluster).await?;
    let producer = client
        .producer()
        .compression(ottla::Compression::Lz4)
        .build()?;
    let mut sent = 0_i64;
    for round in 0..6 {
        for number in 0..500 {
            let (key, value) = ((number % 25).to_string(), format!("{round}-{number}"));
            drop(
                producer
                    .enqueue(Record::to(topic.as_str()).with_key(&key).with_value(&value))
                    .await?,
            );
            sent += 1;
            if number % 40 == 0 {
                producer.flush().await?;
            }
        }
        sleep(SECOND / 2).await;
    }
    producer.flush().await?;
    let tp = TopicPartition::new(topic.as_str(), 0);
    let deadline = Instant::now() + LONG;
    loop {
        let mut consumer = reader(&client, vec![tp.clone()]).build()?;
        let mut offsets = Vec::new();
        let mut latest: BTreeMap<String, String> = BTreeMap::new();
        while consumer.position(&tp).is_none_or(|at| at < sent) {
            let polled = timeout(LONG, consumer.poll()).await??;
            for batch in &polled.ok_or("closed")? {
                for record in batch.records() {
                    let record = record?;
                    offsets.push(record.offset());
                    latest.insert(text(record.key()), text(record.value()));
                }
            }
        }
        assert!(offsets.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(latest.len(), 25);
        for (key, value) in &latest {
            let number = 475 + key.parse::<usize>()?;
            assert_eq!(*value, format!("5-{number}"), "key {key}");
        }
        let holes = sent as usize - offsets.len();
        let lag = consumer.fetch_lag().await?;
        assert_eq!(lag.records(), 0, "{lag:?}");
        // From within a hole.
        consumer.seek(&tp, 3)?;
        let polled = timeout(LONG, consumer.poll()).await??.ok_or("closed")?;
        let first = polled.iter().next().ok_or("no batch")?;
        let first = first.records().next().ok_or("no record")??.offset();
        assert!(first >= 3 && offsets.contains(&first));
        consumer.close_timeout(CLOSE).await?;
        if holes > 1000 {
            return Ok(());
        }
        assert!(Instant::now() < deadline, "only {holes} records compacted");
        sleep(2 * SECOND).await;
    }
}

/// Brokers 1, 2 and 3 in racks a, b and c, which send readers to the replica in their own
/// (KIP-392).
async fn three_racks() -> Result<Cluster> {
    let cluster = Cluster::builder()
        .brokers(3)
        .racks(["a", "b", "c"])
        .config(
            "replica.selector.class",
            "org.apache.kafka.common.replica.RackAwareReplicaSelector",
        )
        .start()
        .await?;
    Ok(cluster)
}

/// Two members in two racks: whatever is assigned to whom, each reads from the replica in its own.
#[tokio::test]
async fn members_of_a_group_read_from_the_replicas_in_their_racks() -> Result {
    let cluster = three_racks().await?;
    let topic = "racks";
    // Four partitions, led by brokers 1 and 3, with replicas on both.
    placed(&cluster, topic, "1:3,1:3,3:1,3:1", &[]).await?;
    let client = client(&cluster).await?;
    let member = |rack: &'static str| {
        let builder = client.consumer("racks").subscribe([topic]);
        let builder = builder.offset_reset(OffsetReset::Earliest);
        builder.client_rack(rack).build()
    };
    let mut members = [(1, member("a")?), (3, member("c")?)];
    let deadline = Instant::now() + LONG;
    while members.iter().any(|(_, one)| one.assignment().len() != 2) {
        assert!(Instant::now() < deadline, "not shared");
        for (_, member) in &mut members {
            member.poll_timeout(SECOND / 10).await?;
        }
    }
    let producer = client.producer().build()?;
    let (mut sent, mut seen) = (0, 0);
    // Both have asked the leaders of all that they have where to read, and read there.
    for _ in 0..20 {
        for number in 0..40 {
            let record = Record::to(topic)
                .with_partition(number % 4)
                .with_value(b"v");
            drop(producer.enqueue(record).await?);
            sent += 1;
        }
        producer.flush().await?;
        let deadline = Instant::now() + LONG;
        while seen < sent {
            assert!(Instant::now() < deadline, "{seen} of {sent}");
            for (_, member) in &mut members {
                let batches = member.poll_timeout(SECOND / 10).await?;
                seen += batches.ok_or("closed")?.record_count();
            }
        }
    }
    for (near, member) in members {
        let metrics = member.metrics();
        let brokers = metrics.brokers.iter();
        let with_data = brokers.filter(|broker| broker.bytes > 0);
        let from: Vec<_> = with_data.map(|broker| broker.broker.get()).collect();
        assert_eq!(from, [near], "{metrics:?}");
        member.close_timeout(CLOSE).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_replica_in_the_same_rack_is_read_from_and_the_leader_when_it_dies() -> Result {
    let cluster = three_racks().await?;
    let topic = "racks";
    placed(&cluster, topic, "1:3", &["min.insync.replicas=1"]).await?;
    let client = client(&cluster).await?;
    produce(&client, topic, 0..100).await?;
    let mut consumer = reader(&client, partitions(topic, 1))
        .client_rack("c")
        .build()?;
    assert_eq!(pairs(&mut consumer, 100).await?, numbered(0..100, 0));
    produce(&client, topic, 100..200).await?;
    assert_eq!(pairs(&mut consumer, 100).await?, numbered(100..200, 0));
    let bytes = |consumer: &Consumer, id: i32| {
        let metrics = consumer.metrics();
        let broker = metrics
            .brokers
            .iter()
            .find(|broker| broker.broker.get() == id);
        broker.map_or(0, |broker| broker.bytes)
    };
    let from_leader = bytes(&consumer, 1);
    assert_eq!(from_leader, 0, "{:?}", consumer.metrics());
    assert!(bytes(&consumer, 3) > 0);
    cluster.broker(3).kill().await?;
    let start = Instant::now();
    produce(&client, topic, 200..300).await?;
    assert_eq!(pairs(&mut consumer, 100).await?, numbered(200..300, 0));
    eprintln!("from the leader again after {:?}", start.elapsed());
    assert!(bytes(&consumer, 1) > 0);
    cluster.broker(3).start().await?;
    cluster.wait_until_in_sync(LONG).await?;
    let before = bytes(&consumer, 3);
    for round in 0.. {
        produce(&client, topic, 300 + round * 10..310 + round * 10).await?;
        pairs(&mut consumer, 10).await?;
        if bytes(&consumer, 3) > before {
            break;
        }
        assert!(round < 60, "never back to the replica nearby");
        sleep(SECOND / 2).await;
    }
    Ok(())
}

/// CURRENT-OFFSET, LOG-END-OFFSET and LAG of each partition, as Kafka's tool tells them.
async fn described(cluster: &Cluster, group: &str, topic: &str) -> Result<Vec<[String; 3]>> {
    let args = ["--describe", "--group", group];
    let output = cluster.tool("kafka-consumer-groups.sh", &args).await?;
    let mut rows: Vec<(i32, [String; 3])> = Vec::new();
    for line in output.stdout.lines() {
        let columns: Vec<&str> = line.split_whitespace().collect();
        if columns.get(1) == Some(&topic) {
            let row = [columns[3], columns[4], columns[5]].map(str::to_owned);
            rows.push((columns[2].parse()?, row));
        }
    }
    rows.sort();
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

#[tokio::test]
async fn lag_is_what_kafkas_tool_says_while_consuming_paused_and_idle() -> Result {
    let (cluster, topic, group) = (one().await?, unique("lagging"), unique("group"));
    cluster.create_topic(&topic, 2, 1).await?;
    let client = client(cluster).await?;
    let start = ottla::Timestamp::from(std::time::SystemTime::now()).as_millis();
    produce(&client, &topic, 0..1000).await?;
    let mut consumer = client
        .consumer(group.as_str())
        .subscribe([topic.as_str()])
        .offset_reset(OffsetReset::Earliest)
        .auto_commit(false)
        .max_poll_records(100)
        .build()?;
    // Each time all that was handed out is committed, so that both speak of the same offset.
    let mut read = 0;
    for phase in ["consuming", "paused", "idle"] {
        match phase {
            "consuming" => read += take(&mut consumer, 300).await?.len(),
            "paused" => {
                let all = consumer.assignment();
                consumer.pause(&all)?;
                produce(&client, &topic, 1000..1500).await?;
                let nothing = consumer.poll_timeout(SECOND).await?;
                assert!(nothing.ok_or("closed")?.is_empty());
            }
            _ => {
                let all = consumer.assignment();
                consumer.resume(&all)?;
                take(&mut consumer, 1200).await?;
            }
        }
        consumer.commit().await?;
        let lag = consumer.fetch_lag().await?;
        let theirs = described(cluster, &group, &topic).await?;
        for (number, row) in theirs.iter().enumerate().take(1) {
            let tp = TopicPartition::new(topic.as_str(), number as i32);
            let mine = lag.get(&tp).ok_or("not in the lag")?;
            let told = [
                mine.position,
                mine.end_offset,
                mine.records.map(|records| records as i64),
            ];
            let told = told.map(|value| value.map_or_else(String::new, |value| value.to_string()));
            assert_eq!(told, *row, "{phase}");
            if let Some(age) = mine.time.duration().filter(|age| !age.is_zero()) {
                let now = ottla::Timestamp::from(std::time::SystemTime::now()).as_millis();
                assert!((age.as_millis() as i64) <= now - start, "{phase}: {age:?}");
            }
            assert_eq!(mine.records == Some(0), phase == "idle");
            assert_ne!(mine.time, ottla::TimeLag::Unknown, "{phase}");
        }
    }
    assert!(read > 0);
    consumer.close_timeout(CLOSE).await?;
    Ok(())
}

#[tokio::test]
async fn the_age_of_the_first_unread_record_is_known_without_having_fetched() -> Result {
    use futures::StreamExt;
    let (cluster, topic) = (one().await?, unique("unfetched"));
    cluster.create_topic(&topic, 1, 1).await?;
    let client = client(cluster).await?;
    let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    let producer = client.producer().build()?;
    for number in 0..10 {
        let at = ottla::Timestamp::from(hour_ago + number * Duration::from_secs(60));
        let record = Record::to(topic.as_str())
            .with_partition(0)
            .with_value(b"v");
        drop(producer.enqueue(record.with_timestamp(at)).await?);
    }
    producer.flush().await?;
    let tp = TopicPartition::new(topic.as_str(), 0);
    let mut consumer = reader(&client, vec![tp.clone()]).build()?;
    consumer.pause(std::slice::from_ref(&tp))?;
    consumer.seek(&tp, 5)?;
    let mut lags = consumer.watch_lag(SECOND);
    let lag = loop {
        let lag = timeout(LONG, lags.next()).await?.ok_or("ended")?;
        if lag.records() > 0 {
            break lag;
        }
    };
    let age = lag.time().duration().ok_or("unknown")?;
    let expected = Duration::from_secs(55 * 60);
    assert!(age >= expected && age < expected + LONG, "{age:?}");
    assert_eq!(lag.records(), 5);
    assert!(matches!(consumer.explain(&tp), ottla::Explanation::Paused));
    consumer.resume(std::slice::from_ref(&tp))?;
    assert_eq!(take(&mut consumer, 5).await?[&0].len(), 5);
    let lag = timeout(LONG, lags.next()).await?.ok_or("ended")?;
    assert_eq!((lag.records(), lag.time()), (0, ottla::TimeLag::CaughtUp));
    let _ = consumer.poll_timeout(SECOND).await?;
    let why = consumer.explain(&tp);
    assert!(
        matches!(why, ottla::Explanation::CaughtUp { end: 10 }),
        "{why}"
    );
    consumer.close_timeout(CLOSE).await?;
    assert!(timeout(LONG, lags.next()).await?.is_none());
    Ok(())
}

/// Zeros, which take a thousandth of their room on the wire: an application that stalls and takes
/// little at a time is given, and has buffered for it, no more than the budget and a batch.
#[tokio::test]
async fn memory_is_bounded_however_well_data_is_compressed() -> Result {
    const BUDGET: usize = 4 << 20;
    const BATCH: usize = 1 << 20;
    const PARTITIONS: i32 = 3;
    const RECORDS: usize = 600;
    let (cluster, topic) = (one().await?, unique("zeros"));
    cluster.create_topic(&topic, PARTITIONS as u32, 1).await?;
    let client = client(cluster).await?;
    let producer = client
        .producer()
        .batch_size(BATCH)
        .linger(SECOND)
        .compression(ottla::Compression::Lz4)
        .build()?;
    let value = vec![0; 10_000];
    for partition in 0..PARTITIONS {
        let record = || {
            Record::to(&topic)
                .with_partition(partition)
                .with_value(&value[..])
        };
        let records = (0..RECORDS).map(|_| record());
        producer.enqueue_all(records).await?.await?;
    }
    let mut consumer = reader(&client, partitions(&topic, PARTITIONS))
        .fetch_max_bytes(BUDGET as i32)
        .max_poll_records(100_000)
        .build()?;
    let (mut seen, mut most) = (0, 0);
    while seen < RECORDS * PARTITIONS as usize {
        let batches = timeout(LONG, consumer.poll()).await??.ok_or("closed")?;
        let mut bytes = 0;
        for record in batches.iter().flatten() {
            bytes += record?.value().map_or(0, <[u8]>::len);
            seen += 1;
        }
        most = most.max(bytes);
        sleep(SECOND / 20).await;
        let metrics = consumer.metrics();
        let held = metrics.buffered_bytes + metrics.requested_bytes;
        assert!(held <= (BUDGET + BATCH) as u64, "{metrics:?}");
    }
    assert!(most <= BUDGET + BATCH, "{most} bytes in one poll");
    assert!(most > BATCH, "{most}: polls are not cut short without need");
    consumer.close_timeout(CLOSE).await?;
    Ok(())
}
