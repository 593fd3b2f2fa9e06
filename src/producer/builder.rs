//! Makes producers: every setting, and what they must not be together.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::config::producer::{Acks, ProducerConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::Chain;
use crate::producer::batch_report::BatchReport;
use crate::producer::interceptor::ProducerInterceptor;
use crate::producer::partitioner::{IgnoreKeys, KeyPartitioner, Partitioner};
use crate::producer::report::{OnBatch, ProducerStats};
use crate::producer::shared::{Kind, Shared};
use crate::producer::transaction::{TransactionalProducer, Transactions, driver};
use crate::producer::{Producer, control};
use crate::record::Compression;

/// Settings of a [`Producer`], or of a [`TransactionalProducer`], to be.
///
/// Every setter names the Kafka property that it stands for; defaults are Java's. What contradicts
/// another setting is refused by [`build`](Self::build), which names the properties.
#[must_use = "a builder does nothing until built"]
pub struct ProducerBuilder<P = Producer> {
    cluster: Cluster,
    config: ProducerConfig,
    partitioner: Option<Box<dyn Partitioner>>,
    on_batch: Option<OnBatch>,
    interceptors: Chain<dyn ProducerInterceptor>,
    builds: PhantomData<fn() -> P>,
}

impl ProducerBuilder {
    pub(crate) fn new(cluster: Cluster, config: ProducerConfig) -> Self {
        Self {
            cluster,
            config,
            partitioner: None,
            on_batch: None,
            interceptors: Chain::new(),
            builds: PhantomData,
        }
    }

    /// Makes it one of transactions, with the `transactional.id` of the properties or of
    /// [`transactional_id`](ProducerBuilder::transactional_id).
    pub fn transactional(self) -> ProducerBuilder<TransactionalProducer> {
        ProducerBuilder {
            cluster: self.cluster,
            config: self.config,
            partitioner: self.partitioner,
            on_batch: self.on_batch,
            interceptors: self.interceptors,
            builds: PhantomData,
        }
    }

    /// Checks the settings and starts the producer. It does not wait for a broker.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] names the properties that are wrong.
    pub fn build(self) -> Result<Producer> {
        if self.config.transactional_id.is_some() {
            return Err(Error::new(
                ErrorKind::Config,
                "transactional.id is set: build a transactional producer \
                 (Client::transactional_producer, ProducerBuilder::transactional), or remove it",
            ));
        }
        Ok(Producer::new(self.start(None)?))
    }
}

impl ProducerBuilder<TransactionalProducer> {
    /// The lasting name of the producer (`transactional.id`): who builds one of the same name ends
    /// the transaction that this one left open, and shuts it out.
    pub fn transactional_id(mut self, id: impl Into<String>) -> Self {
        self.config.transactional_id = Some(id.into());
        self
    }

    /// How long a transaction may be open until the coordinator aborts it and shuts the producer
    /// out (`transaction.timeout.ms`). Default: 60 s. At most the broker's
    /// `transaction.max.timeout.ms` (15 minutes).
    pub fn transaction_timeout(mut self, timeout: Duration) -> Self {
        self.config.transaction_timeout = timeout;
        self
    }

    /// Checks the settings, starts the producer, and waits until the coordinator of the
    /// transactional id has given it an identity: the transaction of an earlier owner is then
    /// ended, and that owner is shut out. Java calls it `initTransactions`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] names the properties that are wrong: also a
    /// [time-out](Self::transaction_timeout) that the broker does not allow.
    /// [`ErrorKind::Authorization`] for the id. [`ErrorKind::Timeout`] if there was no answer
    /// within `max.block.ms`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: an identity that nobody uses may be left.
    pub async fn build(self) -> Result<TransactionalProducer> {
        let Some(id) = self
            .config
            .transactional_id
            .clone()
            .filter(|id| !id.is_empty())
        else {
            return Err(Error::new(
                ErrorKind::Config,
                "transactional.id is not set, or empty",
            ));
        };
        let transactions = Transactions::new(id);
        let shared = self.start(Some(Arc::clone(&transactions)))?;
        let driver = driver::run(Arc::clone(&shared), Arc::clone(&transactions));
        shared.tasks.spawn("producer transactions", driver);
        TransactionalProducer::start(Producer::new(shared), transactions).await
    }
}

impl<P> ProducerBuilder<P> {
    /// How many replicas must have a record before it counts as written (`acks`). Default:
    /// [`Acks::All`].
    pub fn acks(mut self, acks: Acks) -> Self {
        self.config.acks = acks;
        self
    }

    /// Whether brokers remove the duplicates that retries make (`enable.idempotence`). Default: on,
    /// unless `acks`, `retries` or `max.in.flight.requests.per.connection` are set so that it
    /// cannot be; when set to `true`, such settings are an error.
    pub fn idempotence(mut self, on: bool) -> Self {
        self.config.idempotence = Some(on);
        self
    }

    /// How long a batch that is not full waits for more records at most (`linger.ms`). Default: 5
    /// ms.
    ///
    /// This is for records that nobody waits for. A batch that somebody waits for, by
    /// [`send`](crate::Producer::send) or by awaiting a [`Delivery`](crate::Delivery), goes at once
    /// if nothing of its partition is under way; else records gather in it, and it goes when what
    /// is under way is answered, when it is full, or when this time is over. So a loop that sends
    /// one record after the other goes as fast as the broker answers, and many tasks that do so
    /// share a request per round trip and partition. A long time does not make these requests
    /// fewer; to write large batches enqueue records, and await their deliveries later or
    /// [`flush`](crate::Producer::flush).
    pub fn linger(mut self, linger: Duration) -> Self {
        self.config.linger = linger;
        self
    }

    /// The size at which a batch is full, in bytes before compression (`batch.size`). Default:
    /// 16384. A larger record gets a batch of its own.
    pub fn batch_size(mut self, bytes: usize) -> Self {
        self.config.batch_size = bytes;
        self
    }

    /// How many bytes of records may be on their way (`buffer.memory`). Default: 33554432. When
    /// they are used up, [`Producer::enqueue`] waits and [`Producer::try_enqueue`] refuses.
    pub fn buffer_memory(mut self, bytes: usize) -> Self {
        self.config.buffer_memory = bytes;
        self
    }

    /// How long [`Producer::enqueue`] waits for metadata and memory (`max.block.ms`). Default: 60
    /// s.
    pub fn max_block(mut self, timeout: Duration) -> Self {
        self.config.max_block = timeout;
        self
    }

    /// The largest request, and so the largest record, in bytes (`max.request.size`). Default:
    /// 1048576. Brokers have a limit of their own (`message.max.bytes`).
    pub fn max_request_size(mut self, bytes: usize) -> Self {
        self.config.max_request_size = bytes;
        self
    }

    /// How long a record may take from its acceptance to its end, retries included
    /// (`delivery.timeout.ms`). Default: 120 s.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.config.delivery_timeout = timeout;
        self
    }

    /// How often a batch is sent again (`retries`). Default: without limit but for
    /// `delivery.timeout.ms`.
    pub fn retries(mut self, retries: u32) -> Self {
        self.config.retries = retries;
        self
    }

    /// How many requests are under way to one broker at once
    /// (`max.in.flight.requests.per.connection`). Default: 5, which is also the most with
    /// idempotence. Without idempotence retries can change the order unless this is 1.
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.config.max_in_flight = requests;
        self
    }

    /// How batches are compressed (`compression.type`, `compression.*.level`). Default: not.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.config.compression = compression;
        self
    }

    /// Chooses partitions as if records had no keys (`partitioner.ignore.keys`). Default: off.
    /// Without effect on a partitioner of one's own.
    pub fn ignore_keys(mut self, ignore: bool) -> Self {
        self.config.ignore_keys = ignore;
        self
    }

    /// Whether records without keys prefer partitions with less to send
    /// (`partitioner.adaptive.partitioning.enable`). Default: on.
    pub fn adaptive_partitioning(mut self, on: bool) -> Self {
        self.config.adaptive_partitioning = on;
        self
    }

    /// How long a broker may take no data although there is some for it until records without keys
    /// go to partitions that other brokers lead (`partitioner.availability.timeout.ms`). Zero, the
    /// default, turns this off; so does [`adaptive_partitioning`](Self::adaptive_partitioning) when
    /// off. Where no broker takes data any partition is as good.
    pub fn availability_timeout(mut self, timeout: Duration) -> Self {
        self.config.availability_timeout = timeout;
        self
    }

    /// How long nothing is sent to a topic until the producer forgets it (`metadata.max.idle.ms`):
    /// its metadata is not kept up to date any more, and asked for again with the next record. So a
    /// producer that sends to ever new topics keeps those of the last minutes alone. At least 5
    /// seconds. Default: 5 minutes.
    pub fn metadata_max_idle(mut self, idle: Duration) -> Self {
        self.config.metadata_max_idle = idle;
        self
    }

    /// Chooses partitions by other means than the key's hash (`partitioner.class`).
    pub fn partitioner(mut self, partitioner: impl Partitioner) -> Self {
        self.partitioner = Some(Box::new(partitioner));
        self
    }

    /// Has a function called with the outcome of every batch: written or failed. This is the
    /// cheapest way to see every record acknowledged: it costs nothing per record. When a
    /// [`Delivery`](crate::Delivery) has ended or [`Producer::flush`] returns, the calls for these
    /// records have been made. That it was called for a failure does not keep `flush` from telling
    /// it too.
    ///
    /// It is called by the tasks that send, without any lock held, so that it may use the producer;
    /// but it must be quick and not block. A panic in it is logged and otherwise ignored. A
    /// function that holds the producer keeps it from closing when it is dropped.
    ///
    /// ```no_run
    /// # async fn example(client: ottla::Client) -> ottla::Result<()> {
    /// use ottla::BatchReport;
    ///
    /// let producer = client
    ///     .producer()
    ///     .on_batch(|batch: &BatchReport| match &batch.error {
    ///         None => println!("{} records in {} at {:?}", batch.records, batch.partition, batch.base_offset),
    ///         Some(error) => eprintln!("{} records of {}: {error}", batch.records, batch.partition),
    ///     })
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_batch(mut self, report: impl Fn(&BatchReport) + Send + Sync + 'static) -> Self {
        self.on_batch = Some(Box::new(report));
        self
    }

    /// Adds an interceptor (`interceptor.classes`), which sees every record on its way out and may
    /// add headers to it. They are called in the order in which they were added; see
    /// [`ProducerInterceptor`].
    pub fn interceptor(mut self, interceptor: impl ProducerInterceptor) -> Self {
        self.interceptors.push(Box::new(interceptor));
        self
    }

    /// How batches of one topic are compressed, other than [`compression`](Self::compression) says
    /// for the rest.
    pub fn topic_compression(mut self, topic: impl Into<String>, compression: Compression) -> Self {
        self.config
            .topic_compression
            .insert(topic.into(), compression);
        self
    }

    fn start(mut self, transactions: Option<Arc<Transactions>>) -> Result<Arc<Shared>> {
        self.config.validate(self.cluster.config())?;
        let partitioner = self.partitioner.unwrap_or_else(|| {
            if self.config.ignore_keys {
                Box::new(IgnoreKeys)
            } else {
                Box::new(KeyPartitioner)
            }
        });
        if self.cluster.tasks().is_stopping() {
            let closed = || Error::new(ErrorKind::Closed, "the client is closed");
            return Err(self.cluster.tasks().failure().unwrap_or_else(closed));
        }
        let client_id = &self.cluster.config().client_id;
        let told = transactions.clone();
        let stats = ProducerStats::new(client_id, self.on_batch, self.interceptors, told);
        let kind = match transactions {
            Some(transactions) => Kind::Transactional(transactions),
            None if self.config.is_idempotent() => Kind::Idempotent,
            None => Kind::Plain,
        };
        let shared = Shared::new(&self.cluster, self.config, kind, partitioner, stats);
        if cfg!(feature = "metrics") {
            let sample = Arc::clone(&shared).sample();
            shared.tasks.spawn("producer metrics", sample);
        }
        shared
            .tasks
            .spawn("producer control", control::run(Arc::clone(&shared)));
        Ok(shared)
    }
}

impl<P> std::fmt::Debug for ProducerBuilder<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProducerBuilder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClientConfig;

    const REQUEST: Duration = Duration::from_secs(30);

    fn check(config: &ProducerConfig, request_timeout: Duration) -> Result<bool> {
        let client = ClientConfig {
            request_timeout,
            ..ClientConfig::default()
        };
        let mut config = config.clone();
        config.validate(&client)?;
        Ok(config.is_idempotent())
    }

    fn refusal(change: impl FnOnce(&mut ProducerConfig)) -> String {
        let mut config = ProducerConfig::default();
        change(&mut config);
        let error = check(&config, REQUEST).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    }

    #[test]
    fn idempotence_is_on_where_it_can_be() {
        let idempotent = |change: fn(&mut ProducerConfig)| {
            let mut config = ProducerConfig::default();
            change(&mut config);
            check(&config, REQUEST).unwrap()
        };
        assert!(idempotent(|_| {}));
        assert!(!idempotent(|config| config.acks = Acks::Leader));
        assert!(!idempotent(|config| config.retries = 0));
        assert!(!idempotent(|config| config.max_in_flight = 6));
        assert!(!idempotent(|config| config.idempotence = Some(false)));
    }

    #[test]
    fn contradictions_name_the_properties() {
        let asked = |change: fn(&mut ProducerConfig)| {
            refusal(|config| {
                config.idempotence = Some(true);
                change(config);
            })
        };
        assert!(asked(|config| config.acks = Acks::None).contains("acks"));
        assert!(asked(|config| config.retries = 0).contains("retries"));
        assert!(asked(|config| config.max_in_flight = 6).contains("max.in.flight"));
        let message = refusal(|config| config.delivery_timeout = REQUEST);
        assert!(message.contains("delivery.timeout.ms") && message.contains("linger.ms"));
        assert!(refusal(|config| config.buffer_memory = 0).contains("buffer.memory"));
    }
}
