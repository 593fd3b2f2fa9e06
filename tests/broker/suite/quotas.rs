//! A client over its quota is silent for as long as brokers say (KIP-219). That it is slow proves
//! nothing: the broker reads nothing from it meanwhile. So a proxy looks at what is written when.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla::{Client, OffsetReset, Record};
use tokio::time::{Instant, timeout};

use crate::proxy::{FETCH, PRODUCE, Proxy, Seen};
use crate::support::{LONG, Result, one, partitions, unique};

/// So many times silence is to be seen kept.
const OFTEN: usize = 5;
/// Clocks are read a moment before or after the event.
const SLACK: Duration = Duration::from_millis(2);

/// How often a connection was silent for as long as an answer of this API said. Only for
/// connections with one request at a time: one that was written before the answer came breaks no
/// silence.
fn silences(seen: &[Seen], api: i16) -> usize {
    let mut until: BTreeMap<usize, Instant> = BTreeMap::new();
    let mut kept = 0;
    for one in seen {
        match one.throttle {
            Some(throttle) if throttle.is_zero() || one.asked.api != api => {}
            Some(throttle) => drop(until.insert(one.connection, one.at + throttle)),
            None => {
                let Some(end) = until.remove(&one.connection) else {
                    continue;
                };
                let early = end.saturating_duration_since(one.at + SLACK);
                assert!(early.is_zero(), "{early:?} too early: {one:?}");
                kept += 1;
            }
        }
    }
    kept
}

/// A client with a quota, through a proxy.
async fn limited(name: &str, quota: &str) -> Result<(Proxy, Client)> {
    let cluster = one().await?;
    let args = ["--alter", "--add-config", quota];
    let entity = ["--entity-type", "clients", "--entity-name", name];
    let args = [&args[..], &entity].concat();
    cluster.tool("kafka-configs.sh", &args).await?;
    let proxy = Proxy::start(cluster, |_, _| Duration::ZERO).await?;
    let client = Client::builder().bootstrap([proxy.bootstrap()]);
    let client = client.client_id(name).connect().await?;
    Ok((proxy, client))
}

#[tokio::test]
async fn a_producer_over_its_quota_is_silent_for_as_long_as_it_is_told() -> Result {
    let (topic, name) = (unique("muted"), unique("muted-producer"));
    one().await?.create_topic(&topic, 1, 1).await?;
    let (proxy, client) = limited(&name, "producer_byte_rate=100000").await?;
    let producer = client.producer().max_in_flight(1).batch_size(10_000);
    let producer = producer.build()?;
    let value = [7; 9_000];
    let start = Instant::now();
    // The quota is known to the broker some time after the tool said so.
    while silences(&proxy.seen(), PRODUCE) < OFTEN {
        assert!(start.elapsed() < 2 * LONG, "{:?}", proxy.seen());
        // There is always one more to send.
        let batch = (0..5).map(|_| Record::to(&topic).with_value(&value));
        timeout(LONG, producer.enqueue_all(batch).await?).await??;
    }
    let throttled = client.metrics();
    let throttled = throttled.api("Produce").ok_or("never produced")?.throttled;
    assert!(throttled > Duration::ZERO);
    Ok(())
}

#[tokio::test]
async fn a_consumer_over_its_quota_is_silent_for_as_long_as_it_is_told() -> Result {
    let (topic, name) = (unique("muted"), unique("muted-consumer"));
    let cluster = one().await?;
    cluster.create_topic(&topic, 1, 1).await?;
    let plain = crate::support::client(cluster).await?;
    let producer = plain.producer().build()?;
    let value = vec![7; 10_000];
    let (proxy, client) = limited(&name, "consumer_byte_rate=100000").await?;
    let reader = client.reader().assign(partitions(&topic, 1));
    let reader = reader.offset_reset(OffsetReset::Earliest);
    let mut reader = reader.max_partition_fetch_bytes(50_000).build()?;
    let start = Instant::now();
    while silences(&proxy.seen(), FETCH) < OFTEN {
        assert!(start.elapsed() < 2 * LONG, "{:?}", proxy.seen());
        // There is always more to read.
        let batch = (0..20).map(|_| Record::to(&topic).with_value(&value));
        producer.enqueue_all(batch).await?.await?;
        reader.poll_timeout(Duration::from_secs(1)).await?;
    }
    let throttled = client.metrics();
    let throttled = throttled.api("Fetch").ok_or("never fetched")?.throttled;
    assert!(throttled > Duration::ZERO);
    Ok(())
}
