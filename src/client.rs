//! The shared handle from which producers, consumers and the admin are made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout_at;

use crate::admin::Admin;
use crate::clock::{Clock, FOREVER, now};
use crate::cluster::Cluster;
use crate::config::Settings;
use crate::config::values::Address;
use crate::consumer::ConsumerBuilder;
use crate::error::{Error, ErrorKind, Result};
use crate::net::connector::{Connector, Tcp};
use crate::net::traffic::ClientMetrics;
use crate::producer::{ProducerBuilder, TransactionalProducer};
use crate::tasks::Tasks;

/// A connection to a cluster, shared by everything that is made from it.
///
/// Cloning is cheap. Producers, consumers and the admin of one client share its metadata and, for
/// what brokers answer at once, its connections. Where requests wait at a broker each producer and
/// consumer has connections of its own, which end with it, so that none stands behind another: to a
/// broker, one for producing; for consuming one or, where some partitions have records and others
/// not, two; and one to the coordinator of the group. Background tasks end when the last of them is
/// dropped, or at [`close`](Self::close).
///
/// ```no_run
/// # async fn example() -> ottla::Result<()> {
/// let client = ottla::Client::builder()
///     .bootstrap(["localhost:9092"])
///     .client_id("billing")
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    pub(crate) cluster: Cluster,
    pub(crate) settings: Arc<Settings>,
}

impl Client {
    /// Starts a client with Kafka's defaults.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new(Settings::default())
    }

    /// Starts a client from Kafka's own property names, those of producers and consumers included:
    /// they become the defaults of what this client makes.
    ///
    /// ```
    /// # fn main() -> ottla::Result<()> {
    /// let builder = ottla::Client::from_properties([
    ///     ("bootstrap.servers", "localhost:9092"),
    ///     ("linger.ms", "20"),
    /// ])?;
    /// let error = ottla::Client::from_properties([("linger.msec", "20")]).unwrap_err();
    /// assert!(error.to_string().contains("linger.ms"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) naming the property, for names that Kafka
    /// does not have (with the nearest that it has), for those that this crate does not support,
    /// and for values out of range.
    pub fn from_properties<K, V>(
        properties: impl IntoIterator<Item = (K, V)>,
    ) -> Result<ClientBuilder>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        Ok(ClientBuilder::new(Settings::from_properties(properties)?))
    }

    /// Starts the settings of a producer, with this client's producer properties as defaults.
    ///
    /// ```no_run
    /// # async fn example(client: ottla::Client) -> ottla::Result<()> {
    /// use ottla::Record;
    ///
    /// let producer = client.producer().build()?;
    /// let metadata = producer.send(Record::to("orders").with_key("k").with_value("v")).await?;
    /// println!("written at {:?}", metadata.offset);
    /// # Ok(())
    /// # }
    /// ```
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(self.cluster.clone(), self.settings.producer.clone())
    }

    /// Starts the settings of a producer of transactions (`transactional.id`), with this client's
    /// producer properties as defaults.
    ///
    /// ```no_run
    /// # async fn example(client: ottla::Client) -> ottla::Result<()> {
    /// use ottla::Record;
    ///
    /// let mut producer = client.transactional_producer("orders-1").build().await?;
    /// let transaction = producer.begin().await?;
    /// transaction.enqueue(Record::to("orders").with_value("2 apples")).await?;
    /// transaction.enqueue(Record::to("stock").with_value("-2")).await?;
    /// transaction.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn transactional_producer(
        &self,
        id: impl Into<String>,
    ) -> ProducerBuilder<TransactionalProducer> {
        self.producer().transactional().transactional_id(id)
    }

    /// Starts the settings of a consumer that belongs to a group (`group.id`), with this client's
    /// consumer properties as defaults.
    ///
    /// ```no_run
    /// # async fn example(client: ottla::Client) -> ottla::Result<()> {
    /// let consumer = client.consumer("billing").subscribe(["orders"]).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn consumer(&self, group: impl Into<String>) -> ConsumerBuilder {
        self.reader().group_id(group)
    }

    /// Starts the settings of a consumer without a group (unless the properties have `group.id`),
    /// which reads the partitions that it is assigned.
    ///
    /// ```no_run
    /// # async fn example(client: ottla::Client) -> ottla::Result<()> {
    /// use ottla::{OffsetReset, TopicPartition};
    ///
    /// let first = TopicPartition::new("orders", 0);
    /// let reader = client.reader().assign([first]).offset_reset(OffsetReset::Earliest).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn reader(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(self.cluster.clone(), self.settings.consumer.clone())
    }

    /// Creates, describes, lists and deletes topics.
    ///
    /// ```no_run
    /// # async fn example(client: ottla::Client) -> ottla::Result<()> {
    /// use ottla::admin::NewTopic;
    ///
    /// client.admin().create_topics([NewTopic::new("orders").partitions(6)]).await?.all()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.cluster.clone())
    }

    /// What this client's connections have done so far, for everything that was made from it
    /// together.
    ///
    /// ```no_run
    /// # fn example(client: ottla::Client) {
    /// let metrics = client.metrics();
    /// println!("{} connections", metrics.connections);
    /// for api in &metrics.requests {
    ///     println!("{}: {} requests, p99 {:?}", api.api, api.requests, api.latency.quantile(0.99));
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn metrics(&self) -> ClientMetrics {
        self.cluster.traffic().snapshot()
    }

    /// Waits until the cluster has answered once.
    ///
    /// # Errors
    ///
    /// At once if waiting cannot mend it: no Kafka at that port, TLS expected, a broker that is too
    /// old. With [`ErrorKind::Timeout`](crate::ErrorKind::Timeout), naming the last failure, when
    /// no broker could be reached within `timeout`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the client goes on connecting in the background.
    pub async fn ready(&self, timeout: Duration) -> Result<()> {
        self.cluster.ready(now() + timeout.min(FOREVER)).await
    }

    /// Ends every connection and background task, those of producers and consumers made from this
    /// client included: close these first.
    ///
    /// Waits until the tasks have ended, at most 30 s.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] if tasks still run then: something keeps their runtime's threads.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the tasks have been told to stop when the first await is reached.
    pub async fn close(self) -> Result<()> {
        self.close_timeout(Duration::from_secs(30)).await
    }

    /// As [`close`](Self::close), with another limit.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn close_timeout(self, timeout: Duration) -> Result<()> {
        let deadline = now() + timeout.min(FOREVER);
        let ended = timeout_at(deadline, self.cluster.close()).await;
        ended.map_err(|_elapsed| {
            let message = format!(
                "the client's tasks have not ended within {} ms",
                timeout.as_millis()
            );
            Error::new(ErrorKind::Timeout, message)
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// Settings of a [`Client`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` or `connect`"]
pub struct ClientBuilder {
    settings: Settings,
    /// Instead of TCP and the machine's clock.
    transport: Option<(Arc<dyn Connector>, Clock)>,
}

impl ClientBuilder {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            transport: None,
        }
    }

    /// Connects by this and takes time and chance from there.
    #[cfg(feature = "mock")]
    pub(crate) fn transport(mut self, connector: Arc<dyn Connector>, clock: Clock) -> Self {
        self.transport = Some((connector, clock));
        self
    }

    /// Addresses (`host:port`) of some brokers, by which the rest are found (`bootstrap.servers`).
    pub fn bootstrap<S: Into<String>>(mut self, servers: impl IntoIterator<Item = S>) -> Self {
        self.settings.client.bootstrap = servers.into_iter().map(Into::into).collect();
        self
    }

    /// The name by which brokers log, meter and throttle this client (`client.id`). Default: empty.
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.settings.client.client_id = id.into();
        self
    }

    /// How long one request waits for its answer before its connection is given up
    /// (`request.timeout.ms`). Default: 30 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.settings.client.request_timeout = timeout;
        self
    }

    /// How long a call may take with all its retries (`default.api.timeout.ms`). Default: 60 s.
    pub fn api_timeout(mut self, timeout: Duration) -> Self {
        self.settings.client.api_timeout = timeout;
        self
    }

    /// The first and the longest pause between attempts of a request (`retry.backoff.ms`,
    /// `retry.backoff.max.ms`; KIP-580). Default: 100 ms, 1 s.
    pub fn retry_backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.settings.client.retry_backoff = first;
        self.settings.client.retry_backoff_max = longest;
        self
    }

    /// The first and the longest pause between attempts to connect to a broker
    /// (`reconnect.backoff.ms`, `reconnect.backoff.max.ms`). Default: 50 ms, 1 s.
    pub fn reconnect_backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.settings.client.reconnect_backoff = first;
        self.settings.client.reconnect_backoff_max = longest;
        self
    }

    /// How long a connection may take to be set up, at first and after failures
    /// (`socket.connection.setup.timeout.ms`, `….max.ms`). Default: 10 s, 30 s.
    pub fn connection_setup_timeout(mut self, first: Duration, longest: Duration) -> Self {
        self.settings.client.connection_setup_timeout = first;
        self.settings.client.connection_setup_timeout_max = longest;
        self
    }

    /// How long an unused connection is kept (`connections.max.idle.ms`); `None`: for ever.
    /// Default: 9 minutes.
    pub fn connections_max_idle(mut self, idle: Option<Duration>) -> Self {
        self.settings.client.connections_max_idle = idle;
        self
    }

    /// How old metadata may get without a reason to renew it (`metadata.max.age.ms`). Default: 5
    /// minutes.
    pub fn metadata_max_age(mut self, age: Duration) -> Self {
        self.settings.client.metadata_max_age = age;
        self
    }

    /// Makes the client without waiting: it connects in the background when it is needed.
    ///
    /// The client's tasks run on the tokio runtime on which this is called, and the client works
    /// only as long as that runtime does, also for callers on other runtimes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), naming the setting that cannot be used, or
    /// if this is called outside of a tokio runtime.
    pub fn build(mut self) -> Result<Client> {
        if let Some((connector, clock)) = self.transport.take() {
            return self.build_on(connector, clock);
        }
        let client = &self.settings.client;
        let connector: Arc<dyn Connector> = Arc::new(Tcp {
            send_buffer: client.send_buffer,
            receive_buffer: client.receive_buffer,
        });
        self.build_on(connector, Clock::system())
    }

    /// A client on the transport and with the tasks that were given, with default settings, which
    /// need no check.
    #[cfg(feature = "mock")]
    pub(crate) fn assemble_on(
        self,
        connector: Arc<dyn Connector>,
        clock: Clock,
        tasks: Tasks,
    ) -> Client {
        self.assemble(connector, clock, tasks)
    }

    /// The same on any transport and clock.
    fn build_on(mut self, connector: Arc<dyn Connector>, clock: Clock) -> Result<Client> {
        self.settings.client.validate()?;
        Ok(self.assemble(connector, clock, Tasks::new()?))
    }

    fn assemble(self, connector: Arc<dyn Connector>, clock: Clock, tasks: Tasks) -> Client {
        let client = &self.settings.client;
        let addresses = client
            .bootstrap
            .iter()
            .filter_map(|text| Address::parse(text).ok());
        let addresses = addresses
            .map(|address| (address.host, address.port))
            .collect();
        let cluster = Cluster::new(client.clone(), addresses, clock, connector, tasks);
        Client {
            cluster,
            settings: Arc::new(self.settings),
        }
    }

    /// Makes the client and waits until the cluster has answered, at most for
    /// `default.api.timeout.ms`.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build) and [`Client::ready`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a client that nobody gets is closed.
    pub async fn connect(self) -> Result<Client> {
        let timeout = self.settings.client.api_timeout;
        let client = self.build()?;
        client.ready(timeout).await?;
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn outside_of_a_runtime_a_client_is_an_error() {
        let client = Client::builder().bootstrap(["localhost:1"]).build();
        assert_eq!(client.unwrap_err().kind(), crate::ErrorKind::Config);
    }

    #[tokio::test]
    async fn a_time_without_limit_is_taken() {
        let client = Client::builder().bootstrap(["localhost:1"]).build();
        let client = client.unwrap();
        assert!(client.ready(Duration::MAX).now_or_never().is_none());
    }
}
