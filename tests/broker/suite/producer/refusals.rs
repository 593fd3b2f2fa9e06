//! What brokers refuse or hold back: permissions, bad records, quotas.

use ottla::{Acks, Certainty, Class, Client, ErrorKind, Record};
use ottla_testcontainers::Cluster;
use tokio::time::{Instant, timeout};

use crate::support::{LONG, Result, client, eventually, one, unique};

/// Everybody is `User:ANONYMOUS` and may do what no ACL forbids.
#[tokio::test]
async fn what_is_not_permitted_fails_alone_and_at_once() -> Result {
    let cluster = Cluster::builder()
        .config(
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        )
        .config("allow.everyone.if.no.acl.found", "true")
        .config("super.users", "User:nobody")
        .start()
        .await?;
    for topic in ["open", "read-only", "hidden"] {
        cluster.create_topic(topic, 1, 1).await?;
    }
    let acl = async |change: &[&str]| {
        let args = [&["--add"], change].concat();
        cluster.tool("kafka-acls.sh", &args).await.map(drop)
    };
    let (allow, deny) = ("--allow-principal", "--deny-principal");
    let who = "User:ANONYMOUS";
    let on = |topic| ["--topic", topic];
    let describe = [allow, who, "--operation", "Describe"];
    acl(&[&describe[..], &on("read-only")].concat()).await?;
    acl(&[&[deny, who, "--operation", "All"][..], &on("hidden")].concat()).await?;

    let client = client(&cluster).await?;
    let producer = client.producer().build()?;
    let deliver = |topic| timeout(LONG, producer.send(Record::to(topic).with_value("v")));
    deliver("open").await??;
    for topic in ["read-only", "hidden"] {
        let error = eventually(async || match deliver(topic).await? {
            Ok(written) => Err(format!("the ACL is not known yet: {written:?}").into()),
            Err(error) => Ok(error),
        })
        .await?;
        assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
        assert_eq!(error.class(), Class::Caller, "{error}");
        assert_eq!(error.certainty(), Some(Certainty::NotSent), "{error}");
        assert!(error.to_string().contains(topic), "{error}");
    }
    // The same producer goes on, in order, with what it may do.
    let first = deliver("open").await??.offset;
    let second = deliver("open").await??.offset;
    assert_eq!((first, second), (Some(1), Some(2)));
    assert_eq!(producer.metrics().retries, 0);

    // Permission to write anything at all is what a producer id takes (KIP-679).
    let cluster_wide = ["--cluster"];
    acl(&[&[allow, who, "--operation", "All"][..], &cluster_wide].concat()).await?;
    let idempotent = [deny, who, "--operation", "IdempotentWrite"];
    acl(&[&idempotent[..], &cluster_wide].concat()).await?;
    acl(&[&[deny, who, "--operation", "Write"][..], &on("*")].concat()).await?;
    let error = eventually(async || {
        let producer = client.producer().build()?;
        match timeout(LONG, producer.send(Record::to("open").with_value("v"))).await? {
            Err(error) if error.is_fatal() => {
                // It says so to everybody from then on.
                let again = producer.try_enqueue(Record::to("open")).unwrap_err();
                assert_eq!(again.kind(), error.kind(), "{again}");
                Ok(error)
            }
            other => Err(format!("the ACL is not known yet: {other:?}").into()),
        }
    })
    .await?;
    assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
    assert!(error.to_string().contains("enable.idempotence"), "{error}");
    assert_eq!(error.certainty(), Some(Certainty::NotSent));
    // Without idempotence it is the topic's affair.
    let plain = client.producer().acks(Acks::Leader).build()?;
    let delivery = plain.send(Record::to("open").with_value("v"));
    let error = timeout(LONG, delivery).await?.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
    assert_eq!(error.class(), Class::Caller, "{error}");
    Ok(())
}

#[tokio::test]
async fn a_record_that_breaks_the_topics_rules_fails_and_those_after_it_are_written() -> Result {
    let (cluster, topic) = (one().await?, unique("compacted"));
    cluster
        .create_topic_with(&topic, 1, 1, &[("cleanup.policy", "compact")])
        .await?;
    let client = client(cluster).await?;
    let producer = client.producer().build()?;
    let keyed = || Record::to(&topic).with_key("k").with_value("v");
    assert_eq!(producer.send(keyed()).await?.offset, Some(0));
    let error = producer
        .send(Record::to(&topic).with_value("no key"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRecord, "{error}");
    assert_eq!(error.certainty(), Some(Certainty::NotSent), "{error}");
    assert_eq!(producer.send(keyed()).await?.offset, Some(1));
    assert_eq!(producer.send(keyed()).await?.offset, Some(2));
    Ok(())
}

#[tokio::test]
async fn a_producer_over_its_quota_is_slower_fails_nothing_and_says_so() -> Result {
    let (cluster, topic, name) = (one().await?, unique("quota"), unique("over-quota"));
    cluster.create_topic(&topic, 1, 1).await?;
    let quota = ["--alter", "--add-config", "producer_byte_rate=100000"];
    let entity = ["--entity-type", "clients", "--entity-name", &name];
    let args = [&quota[..], &entity].concat();
    cluster.tool("kafka-configs.sh", &args).await?;
    let client = Client::builder()
        .bootstrap(cluster.bootstrap().split(','))
        .client_id(&name)
        .connect()
        .await?;
    let producer = client.producer().build()?;
    let value = [7; 10_000];
    // The quota is known to the broker some time after the tool said so.
    let start = Instant::now();
    while producer.metrics().throttle_time.count() == 0 {
        assert!(start.elapsed() < LONG, "never throttled");
        producer.send(Record::to(&topic).with_value(&value)).await?;
    }
    let (before, start) = (producer.metrics(), Instant::now());
    let all = (0..40).map(|_| Record::to(&topic).with_value(&value));
    assert_eq!(producer.enqueue_all(all).await?.await?, 40);
    producer.flush().await?;
    let (after, took) = (producer.metrics(), start.elapsed());
    assert!(after.throttle_time.count() > before.throttle_time.count());
    assert!(took > before.throttle_time.max() / 2, "{took:?} {before:?}");
    assert_eq!((after.failed_records, after.failed_requests), (0, 0));
    assert_eq!(after.retries, 0);
    Ok(())
}
