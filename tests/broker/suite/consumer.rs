//! The consumer where it is easily wrong: cancelled polls, handing back, absence, small limits.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use ottla::{Client, Event, OffsetReset, Record, TopicPartition};
use tokio::time::{sleep, timeout};

use crate::support::{LONG, Result, client, one, partitions, take, text, unique};

const CLOSE: Duration = Duration::from_secs(20);

async fn produce(client: &Client, topic: &str, count: usize, size: usize) -> Result {
    let producer = client.producer().build()?;
    for number in 0..count {
        let value = format!("{number:0size$}");
        let key = number.to_string();
        let record = Record::to(topic).with_key(&key).with_value(&value);
        drop(producer.enqueue(record).await?);
    }
    producer.flush().await?;
    let _ = producer.close_timeout(CLOSE).await;
    Ok(())
}

#[tokio::test]
async fn polls_given_up_at_any_moment_lose_nothing() -> Result {
    let (cluster, topic) = (one().await?, unique("cancelled"));
    cluster.create_topic(&topic, 3, 1).await?;
    let client = client(cluster).await?;
    produce(&client, &topic, 3000, 1).await?;
    let mut consumer = client
        .reader()
        .assign(partitions(&topic, 3))
        .offset_reset(OffsetReset::Earliest)
        .max_poll_records(7)
        .build()?;
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    let mut seen = 0;
    let all = async {
        while seen < 3000 {
            let Ok(batches) = timeout(Duration::from_micros(300), consumer.poll()).await else {
                continue;
            };
            for batch in &batches?.ok_or("closed")? {
                assert!(batch.record_count() <= 7);
                for record in batch.records() {
                    let at = next.entry(batch.partition()).or_default();
                    assert_eq!(record?.offset(), *at);
                    *at += 1;
                    seen += 1;
                }
            }
        }
        Result::<_, Box<dyn std::error::Error + Send + Sync>>::Ok(())
    };
    timeout(LONG, all).await??;
    assert_eq!(next.values().sum::<i64>(), 3000);
    consumer.close_timeout(CLOSE).await?;
    Ok(())
}

#[tokio::test]
async fn a_dropped_stream_hands_back_and_pauses_hold() -> Result {
    let (cluster, topic) = (one().await?, unique("stream"));
    cluster.create_topic(&topic, 1, 1).await?;
    let client = client(cluster).await?;
    produce(&client, &topic, 100, 1).await?;
    let tp = TopicPartition::new(topic.as_str(), 0);
    let mut consumer = client
        .reader()
        .assign([tp.clone()])
        .offset_reset(OffsetReset::Earliest)
        .build()?;
    let mut stream = consumer.stream();
    for expected in 0..10 {
        let record = timeout(LONG, stream.next()).await?.ok_or("ended")??;
        assert_eq!(record.offset(), expected);
    }
    drop(stream);
    consumer.finish();
    assert_eq!(consumer.position(&tp), Some(10));
    consumer.pause(std::slice::from_ref(&tp))?;
    let nothing = consumer.poll_timeout(Duration::from_secs(2)).await?;
    assert!(nothing.ok_or("closed")?.is_empty());
    consumer.resume(std::slice::from_ref(&tp))?;
    let rest = take(&mut consumer, 90).await?;
    assert_eq!(rest[&0][0].offset(), 10);
    consumer.close_timeout(CLOSE).await?;
    Ok(())
}

#[tokio::test]
async fn limits_smaller_than_a_batch_still_make_progress() -> Result {
    let (cluster, topic) = (one().await?, unique("oversized"));
    cluster.create_topic(&topic, 3, 1).await?;
    let client = client(cluster).await?;
    produce(&client, &topic, 200, 5000).await?;
    let mut consumer = client
        .reader()
        .assign(partitions(&topic, 3))
        .offset_reset(OffsetReset::Earliest)
        .max_partition_fetch_bytes(1)
        .fetch_max_bytes(1)
        .build()?;
    take(&mut consumer, 200).await?;
    consumer.close_timeout(CLOSE).await?;
    Ok(())
}

#[tokio::test]
async fn one_that_does_not_poll_loses_its_place_and_comes_back() -> Result {
    let (cluster, topic, group) = (one().await?, unique("absent"), unique("group"));
    cluster.create_topic(&topic, 1, 1).await?;
    let client = client(cluster).await?;
    produce(&client, &topic, 10, 1).await?;
    let mut consumer = client
        .consumer(group)
        .subscribe([topic.as_str()])
        .offset_reset(OffsetReset::Earliest)
        .auto_commit(false)
        .max_poll_interval(Duration::from_secs(3))
        .build()?;
    let mut events = Vec::new();
    let mut records = 0;
    let mut absent = false;
    while !absent || records < 15 {
        let event = timeout(LONG, consumer.next_event()).await??;
        match event.ok_or("closed")? {
            Event::Assigned(partitions) if !partitions.is_empty() => events.push("assigned"),
            Event::Lost(_) => events.push("lost"),
            Event::Records(batches) => {
                records += batches.record_count();
                if !absent {
                    let tp = TopicPartition::new(topic.as_str(), 0);
                    let half = ottla::OffsetAndMetadata::new(5);
                    consumer.commit_offsets([(tp, half)]).await?;
                    sleep(Duration::from_secs(6)).await;
                    absent = true;
                }
            }
            _ => {}
        }
    }
    assert_eq!(events, ["assigned", "lost", "assigned"]);
    assert_eq!(records, 15, "5 of the 10 again, from the committed offset");
    consumer.close_timeout(CLOSE).await?;
    Ok(())
}

#[tokio::test]
async fn a_revocation_waits_for_its_guard_and_the_commit_made_under_it() -> Result {
    let (cluster, topic, group) = (one().await?, unique("guarded"), unique("group"));
    cluster.create_topic(&topic, 2, 1).await?;
    let client = client(cluster).await?;
    produce(&client, &topic, 50, 1).await?;
    let settings = || {
        let builder = client.consumer(group.as_str()).subscribe([topic.as_str()]);
        builder
            .offset_reset(OffsetReset::Earliest)
            .auto_commit(false)
    };
    let mut first = settings().build()?;
    let mut seen = Vec::new();
    while seen.len() < 50 {
        if let Some(Event::Records(batches)) = timeout(LONG, first.next_event()).await?? {
            for batch in &batches {
                for record in batch.records() {
                    seen.push(text(record?.value()));
                }
            }
        }
    }
    let mut second = settings().build()?;
    let other = tokio::spawn(async move {
        let got = timeout(Duration::from_secs(30), async {
            loop {
                match second.next_event().await {
                    Ok(Some(Event::Assigned(partitions))) if !partitions.is_empty() => {
                        return Ok(partitions);
                    }
                    Ok(Some(Event::Records(batches))) => panic!("read again: {batches:?}"),
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("closed"),
                    Err(error) => return Err(error),
                }
            }
        });
        (got.await, second)
    });
    let revoking = loop {
        match timeout(LONG, first.next_event()).await??.ok_or("closed")? {
            Event::Revoking(revoking) => break revoking,
            other => assert!(!matches!(other, Event::Lost(_)), "{other:?}"),
        }
    };
    sleep(Duration::from_secs(3)).await;
    assert!(!other.is_finished(), "given away before the guard was done");
    first.commit().await?;
    let given: Vec<_> = revoking.partitions().to_vec();
    revoking.done();
    let polling = tokio::spawn(async move {
        let _ = first.poll_timeout(Duration::from_secs(15)).await;
        first
    });
    let (got, mut second) = other.await?;
    assert_eq!(got??, given);
    let nothing = second.poll_timeout(Duration::from_secs(2)).await?;
    assert!(
        nothing.ok_or("closed")?.is_empty(),
        "what was committed came again"
    );
    second.close_timeout(CLOSE).await?;
    polling.await?.close_timeout(CLOSE).await?;
    Ok(())
}

#[tokio::test]
async fn a_task_per_partition_goes_on_beside_a_slow_one_and_ends_on_revocation() -> Result {
    let (cluster, topic, group) = (one().await?, unique("split"), unique("group"));
    cluster.create_topic(&topic, 4, 1).await?;
    let client = client(cluster).await?;
    produce(&client, &topic, 20_000, 200).await?;
    let settings = || {
        let builder = client.consumer(group.as_str()).subscribe([topic.as_str()]);
        builder
            .offset_reset(OffsetReset::Earliest)
            .max_partition_fetch_bytes(100_000)
            .fetch_max_bytes(1_000_000)
    };
    let mut first = settings().build()?;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let (let_go, slow) = tokio::sync::watch::channel(false);
    let splitting = tokio::spawn(async move {
        let mut streams = first.split_by_partition();
        let mut tasks = Vec::new();
        while let Some(next) = streams.next().await {
            let (tp, mut batches) = next?;
            let (tell, mut slow) = (tell.clone(), slow.clone());
            tasks.push(tokio::spawn(async move {
                let mut next = None;
                while let Some(batch) = batches.next().await {
                    let batch = batch?;
                    for record in batch.records() {
                        let offset = record?.offset();
                        assert!(next.is_none_or(|next| next == offset), "{next:?} {offset}");
                        next = Some(offset + 1);
                    }
                    if tp.partition() == 0 {
                        let _ = slow.wait_for(|go| *go).await;
                    }
                    let _ = tell.send((tp.partition(), batch.record_count()));
                }
                let _ = tell.send((tp.partition(), 0));
                Result::<Option<i64>>::Ok(next)
            }));
            if tasks.len() == 6 {
                break; // all four, and two that came back
            }
        }
        drop(streams);
        for task in tasks {
            task.await??;
        }
        first.close_timeout(CLOSE).await?;
        Result::<()>::Ok(())
    });
    let ends = {
        let wanted = partitions(&topic, 4);
        let asking = client.reader().assign(wanted.clone()).build()?;
        asking.end_offsets(&wanted).await?
    };
    let others: i64 = ends
        .iter()
        .filter(|(tp, _)| tp.partition() > 0)
        .map(|(_, end)| end)
        .sum();
    let mut seen = 0;
    while seen < others {
        let (partition, count) = timeout(LONG, told.recv()).await?.ok_or("ended")?;
        assert_ne!(partition, 0, "that one is slow");
        assert!(count > 0);
        seen += count as i64;
    }
    // Another member takes two of them, once their tasks have let go.
    let mut second = settings().build()?;
    let_go.send(true)?;
    let mut mine = Vec::new();
    let deadline = tokio::time::Instant::now() + LONG;
    while second.assignment().len() != 2 {
        assert!(tokio::time::Instant::now() < deadline);
        for batch in &second
            .poll_timeout(Duration::from_millis(200))
            .await?
            .ok_or("closed")?
        {
            mine.push(batch.partition());
        }
    }
    let mut ended = Vec::new();
    while ended.len() < 2 {
        let (partition, count) = timeout(LONG, told.recv()).await?.ok_or("ended")?;
        if count == 0 {
            ended.push(partition);
        }
    }
    let taken: Vec<i32> = second
        .assignment()
        .iter()
        .map(TopicPartition::partition)
        .collect();
    assert!(
        ended.iter().all(|partition| taken.contains(partition)),
        "{ended:?} {taken:?}"
    );
    assert!(
        mine.iter().all(|partition| *partition == 0),
        "read again: {mine:?}"
    );
    second.close_timeout(CLOSE).await?;
    timeout(LONG, splitting).await???;
    Ok(())
}

#[tokio::test]
async fn what_is_read_can_be_changed_under_way() -> Result {
    let (cluster, group) = (one().await?, unique("group"));
    let (one, two) = (unique("change"), unique("change"));
    let client = client(cluster).await?;
    for topic in [&one, &two] {
        cluster.create_topic(topic, 1, 1).await?;
        produce(&client, topic, 10, 1).await?;
    }
    let mut member = client
        .consumer(group)
        .subscribe([one.as_str()])
        .offset_reset(OffsetReset::Earliest)
        .build()?;
    take(&mut member, 10).await?;
    assert!(member.assign(partitions(&two, 1)).is_err());
    member.subscribe([two.as_str()])?;
    take(&mut member, 10).await?;
    assert_eq!(member.assignment(), partitions(&two, 1));
    member.subscribe([one.as_str(), two.as_str()])?;
    produce(&client, &one, 5, 1).await?;
    take(&mut member, 5).await?;
    member.close_timeout(CLOSE).await?;

    let mut reader = client
        .reader()
        .assign(partitions(&one, 1))
        .offset_reset(OffsetReset::Earliest)
        .build()?;
    take(&mut reader, 15).await?;
    reader.assign([partitions(&one, 1), partitions(&two, 1)].concat())?;
    take(&mut reader, 10).await?;
    reader.assign(partitions(&two, 1))?;
    assert_eq!(reader.assignment(), partitions(&two, 1));
    produce(&client, &one, 5, 1).await?;
    produce(&client, &two, 5, 1).await?;
    take(&mut reader, 5).await?;
    assert!(reader.subscribe([one.as_str()]).is_err());
    reader.close_timeout(CLOSE).await?;
    Ok(())
}
