//! Subscriptions by pattern, on either side, and members that keep their names over restarts.

use std::collections::BTreeSet;
use std::time::Duration;

use ottla::admin::Admin;
use ottla::{Client, Consumer, ErrorKind, OffsetReset, Record, TopicPartition, TopicPattern};
use tokio::time::{Instant, timeout};

use crate::support::{LONG, Result, client, eventually, one, partition_error, text, unique};

const CLOSE: Duration = Duration::from_secs(20);
const UNRELEASED_INSTANCE_ID: i16 = 111;
const INVALID_REGULAR_EXPRESSION: i16 = 128;

async fn create(topic: &str) -> Result {
    Ok(one().await?.create_topic(topic, 2, 1).await?)
}

async fn delete(admin: &Admin, topic: &str) -> Result {
    admin.delete_topics([topic]).await?.all()?;
    Ok(())
}

async fn say(client: &Client, topic: &str, value: &str) -> Result {
    let producer = client.producer().build()?;
    // Brokers hear of a topic a moment after the controller.
    eventually(async || Ok(producer.send(Record::to(topic).with_value(value)).await?)).await?;
    Ok(())
}

/// Polls until what is assigned are all partitions of these topics; collects the values that come.
async fn settle(consumer: &mut Consumer, topics: &[&str], values: &mut Vec<String>) -> Result {
    let wanted: BTreeSet<TopicPartition> = topics
        .iter()
        .flat_map(|topic| [0, 1].map(|partition| TopicPartition::new(*topic, partition)))
        .collect();
    let deadline = Instant::now() + LONG;
    loop {
        let assigned: BTreeSet<_> = consumer.assignment().into_iter().collect();
        if assigned == wanted {
            return Ok(());
        }
        assert!(
            Instant::now() < deadline,
            "{assigned:?} instead of {wanted:?}"
        );
        let batches = consumer.poll_timeout(Duration::from_millis(200)).await?;
        for batch in &batches.ok_or("closed")? {
            for record in batch.records() {
                values.push(text(record?.value()));
            }
        }
    }
}

/// A pattern follows topics that are made and deleted, and no others; at run time it can be
/// another.
async fn follows(pattern: impl Fn(&str) -> Result<TopicPattern>) -> Result {
    let cluster = one().await?;
    let bootstrap = cluster.bootstrap();
    let client = Client::builder()
        .bootstrap(bootstrap.split(','))
        .metadata_max_age(Duration::from_secs(1))
        .connect()
        .await?;
    let (stem, group, admin) = (unique("pattern"), unique("group"), client.admin());
    let topic = |name: &str| format!("{stem}.{name}");
    let (eu_a, eu_b, us) = (topic("eu-a"), topic("eu-b"), topic("us"));
    create(&eu_a).await?;
    create(&us).await?;
    let builder = client
        .consumer(&group)
        .subscribe_pattern(pattern(&format!(r"{stem}\.eu-.*"))?)
        .offset_reset(OffsetReset::Earliest);
    let mut consumer = builder.build()?;
    let mut values = Vec::new();
    settle(&mut consumer, &[&eu_a], &mut values).await?;
    // The rest of the name counts: this one only has it in the middle.
    create(&topic("old.eu-a")).await?;
    create(&eu_b).await?;
    say(&client, &eu_b, "later").await?;
    settle(&mut consumer, &[&eu_a, &eu_b], &mut values).await?;
    while values.is_empty() {
        let batches = timeout(LONG, consumer.poll()).await??.ok_or("closed")?;
        for batch in &batches {
            for record in batch.records() {
                values.push(text(record?.value()));
            }
        }
    }
    assert_eq!(values, ["later"]);
    delete(&admin, &eu_a).await?;
    settle(&mut consumer, &[&eu_b], &mut values).await?;
    consumer.subscribe_pattern(pattern(&format!(r"{stem}\.(us|eu-b)"))?)?;
    settle(&mut consumer, &[&eu_b, &us], &mut values).await?;
    consumer.subscribe([us.clone()])?;
    settle(&mut consumer, &[&us], &mut values).await?;
    assert_eq!(values, ["later"], "nothing twice");
    consumer.close_timeout(CLOSE).await?;
    Ok(())
}

#[tokio::test]
async fn a_pattern_of_the_clients_follows_topics() -> Result {
    follows(|regex| Ok(TopicPattern::client_side(regex)?)).await
}

#[tokio::test]
async fn a_pattern_of_the_brokers_follows_topics() -> Result {
    follows(|regex| Ok(TopicPattern::broker_side(regex))).await
}

#[tokio::test]
async fn kafkas_own_topics_match_only_if_asked_for() -> Result {
    let (cluster, topic) = (one().await?, unique("own"));
    create(&topic).await?;
    let client = client(cluster).await?;
    // There is a topic of committed offsets.
    let first = client.consumer(unique("group"));
    let mut first = first.subscribe([topic.clone()]).build()?;
    settle(&mut first, &[&topic], &mut Vec::new()).await?;
    first.close_timeout(CLOSE).await?;
    let pattern = TopicPattern::client_side(&format!("{topic}|__consumer_offsets"))?;
    let member = |exclude| {
        let builder = client.consumer(unique("group"));
        let builder = builder.exclude_internal_topics(exclude);
        builder.subscribe_pattern(pattern.clone()).build()
    };
    let mut without = member(true)?;
    settle(&mut without, &[&topic], &mut Vec::new()).await?;
    without.close_timeout(CLOSE).await?;
    let mut with = member(false)?;
    let deadline = Instant::now() + LONG;
    while !with
        .assignment()
        .iter()
        .any(|tp| tp.topic() == "__consumer_offsets")
    {
        assert!(Instant::now() < deadline, "{:?}", with.assignment());
        with.poll_timeout(Duration::from_millis(200)).await?;
    }
    with.close_timeout(CLOSE).await?;
    Ok(())
}

#[tokio::test]
async fn a_pattern_that_the_broker_refuses_is_a_typed_error_and_another_goes_on() -> Result {
    let (cluster, topic) = (one().await?, unique("refused"));
    create(&topic).await?;
    let client = client(cluster).await?;
    let builder = client.consumer(unique("group"));
    let builder = builder.subscribe_pattern(TopicPattern::broker_side("("));
    let mut consumer = builder.build()?;
    for _ in 0..2 {
        let error = partition_error(&mut consumer).await?;
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        let code = error.code().map(|code| code.get());
        assert_eq!(code, Some(INVALID_REGULAR_EXPRESSION), "{error}");
        assert!(!error.is_fatal());
        consumer.subscribe([topic.clone()])?;
        settle(&mut consumer, &[&topic], &mut Vec::new()).await?;
        // The same when it is a member already.
        consumer.subscribe_pattern(TopicPattern::broker_side("["))?;
    }
    consumer.close_timeout(CLOSE).await?;
    Ok(())
}

/// A member with a name of its own; polls until it has so many partitions.
async fn named(client: &Client, group: &str, topic: &str, name: &str) -> Result<Consumer> {
    let builder = client.consumer(group).subscribe([topic.to_owned()]);
    Ok(builder.group_instance_id(name).build()?)
}

#[tokio::test]
async fn a_static_member_comes_back_to_what_it_had_and_its_name_is_taken_meanwhile() -> Result {
    let (cluster, topic, group) = (one().await?, unique("static"), unique("group"));
    create(&topic).await?;
    let client = client(cluster).await?;
    let mut first = named(&client, &group, &topic, "first").await?;
    settle(&mut first, &[&topic], &mut Vec::new()).await?;
    let mut second = named(&client, &group, &topic, "second").await?;
    let deadline = Instant::now() + LONG;
    while first.assignment().len() != 1 || second.assignment().len() != 1 {
        assert!(Instant::now() < deadline);
        first.poll_timeout(Duration::from_millis(100)).await?;
        second.poll_timeout(Duration::from_millis(100)).await?;
    }
    let had = first.assignment();

    let mut usurper = named(&client, &group, &topic, "first").await?;
    let error = timeout(LONG, usurper.poll()).await?.unwrap_err();
    let code = error.code().map(|code| code.get());
    assert_eq!(code, Some(UNRELEASED_INSTANCE_ID), "{error}");
    assert!(error.is_fatal());

    first.close_timeout(CLOSE).await?;
    // Its place is kept: nothing goes to the other one.
    let kept = second.assignment();
    for _ in 0..20 {
        second.poll_timeout(Duration::from_millis(200)).await?;
        assert_eq!(second.assignment(), kept);
    }
    let mut back = named(&client, &group, &topic, "first").await?;
    let deadline = Instant::now() + LONG;
    while back.assignment() != had {
        assert!(Instant::now() < deadline, "{:?}", back.assignment());
        back.poll_timeout(Duration::from_millis(100)).await?;
        second.poll_timeout(Duration::from_millis(100)).await?;
        assert_eq!(second.assignment(), kept);
    }
    back.close_timeout(CLOSE).await?;
    second.close_timeout(CLOSE).await?;
    Ok(())
}
