//! Transactions: which there are, what a partition knows of them, and ending them from outside
//! (KIP-664).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use indexmap::IndexMap;
use kafka_protocol::messages as kp;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};

use super::Admin;
use crate::cluster::ask::{Answers, Asking, Operation, Refusal, Route};
use crate::cluster::per_key::PerKey;
use crate::cluster::{CoordinatorKey, Snapshot};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{BrokerId, Timestamp, TopicPartition};
use crate::wire::{codes, str_bytes, topic_name};

/// A transactional id in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionListing {
    /// The `transactional.id`.
    pub transactional_id: String,
    /// The producer id that it has at present.
    pub producer_id: i64,
    /// `Ongoing`, `CompleteCommit` and so on, in Kafka's words.
    pub state: String,
}

/// A transactional id, and its transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionDescription {
    /// The broker that coordinates it.
    pub coordinator: BrokerId,
    /// `Ongoing`, `CompleteCommit` and so on, in Kafka's words.
    pub state: String,
    /// The producer id of its owner.
    pub producer_id: i64,
    /// The epoch of its owner: a producer with an earlier one is shut out.
    pub producer_epoch: i16,
    /// After so long the coordinator gives an open transaction up (`transaction.timeout.ms`).
    pub timeout: Duration,
    /// When the open transaction began; `None` if none is open.
    pub started: Option<Timestamp>,
    /// The partitions that are part of it.
    pub partitions: Vec<TopicPartition>,
}

/// What a partition knows of a producer, be it of transactions or idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerState {
    /// Its producer id.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i32,
    /// The sequence number of its last record; `None` if the partition has none.
    pub last_sequence: Option<i32>,
    /// The timestamp of its last record.
    pub last_timestamp: Option<Timestamp>,
    /// The epoch of the coordinator that ended its last transaction here; `None` if none did.
    pub coordinator_epoch: Option<i32>,
    /// Where its open transaction begins here; `None` if none is open.
    pub transaction_start: Option<i64>,
}

/// Which transactional ids are listed.
///
/// ```
/// use std::time::Duration;
/// use ottla::admin::TransactionFilter;
///
/// let long = TransactionFilter::all().states(["Ongoing"]).longer_than(Duration::from_secs(60));
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct TransactionFilter {
    states: Vec<String>,
    producer_ids: Vec<i64>,
    longer_than: Option<Duration>,
    id_pattern: Option<String>,
}

impl TransactionFilter {
    /// All.
    pub fn all() -> Self {
        Self::default()
    }

    /// Only those in one of these states, by Kafka's names: `Empty`, `Ongoing`, `PrepareCommit`,
    /// `PrepareAbort`, `CompleteCommit`, `CompleteAbort`, `PrepareEpochFence`, `Dead`.
    pub fn states<S: Into<String>>(mut self, states: impl IntoIterator<Item = S>) -> Self {
        self.states.extend(states.into_iter().map(Into::into));
        self
    }

    /// Only those of one of these producer ids.
    pub fn producer_ids(mut self, ids: impl IntoIterator<Item = i64>) -> Self {
        self.producer_ids.extend(ids);
        self
    }

    /// Only those whose transaction has been open for longer (KIP-994, Kafka 3.8).
    pub fn longer_than(mut self, time: Duration) -> Self {
        self.longer_than = Some(time);
        self
    }

    /// Only those whose `transactional.id` matches an RE2/J pattern (KIP-1152, Kafka 4.1).
    pub fn id_pattern(mut self, pattern: impl Into<String>) -> Self {
        self.id_pattern = Some(pattern.into());
        self
    }

    /// The first version of the request that can say it, and why.
    fn needs(&self) -> (i16, &'static str) {
        match (&self.id_pattern, self.longer_than) {
            (Some(_), _) => (2, "a pattern of ids needs Kafka 4.1"),
            (None, Some(_)) => (1, "a duration needs Kafka 3.8"),
            (None, None) => (0, ""),
        }
    }
}

/// A producer that was shut out, by the identity that was given to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FencedProducer {
    /// The producer id that the `transactional.id` has now.
    pub producer_id: i64,
    /// The epoch that it has now: a producer with an earlier one is shut out.
    pub producer_epoch: i16,
}

/// An open transaction of a partition that is to be aborted there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AbortTransaction {
    /// The partition.
    pub partition: TopicPartition,
    /// The producer id of the transaction.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// The epoch of the coordinator, as the partition knows it.
    pub coordinator_epoch: i32,
}

impl AbortTransaction {
    /// That of a producer, as [`Admin::describe_producers`] has told of it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if it has none open there.
    pub fn of(partition: TopicPartition, producer: &ProducerState) -> Result<Self> {
        let epoch = i16::try_from(producer.producer_epoch).ok();
        let (Some(producer_epoch), Some(_)) = (epoch, producer.transaction_start) else {
            let message = format!(
                "producer {} has no transaction open there",
                producer.producer_id
            );
            let error = Error::new(ErrorKind::InvalidArgument, message);
            return Err(error.with_topic_partition(partition));
        };
        Ok(Self {
            partition,
            producer_id: producer.producer_id,
            producer_epoch,
            coordinator_epoch: producer.coordinator_epoch.unwrap_or(0),
        })
    }
}

/// Java waits for so much longer than `transaction.max.timeout.ms`, too, before it calls a
/// transaction hanging: a coordinator looks for those that are over from time to time only.
const MARGIN: Duration = Duration::from_secs(5 * 60);

impl Admin {
    /// The transactional ids that this principal may see, by name.
    ///
    /// # Errors
    ///
    /// If a broker did not answer in time: each knows only those that it coordinates.
    /// [`ErrorKind::UnsupportedVersion`] if brokers are too old for the filter (Kafka 3.0 has this
    /// call), [`ErrorKind::InvalidArgument`] if one does not know a state.
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// use ottla::admin::TransactionFilter;
    ///
    /// for transaction in admin.list_transactions(TransactionFilter::all()).await? {
    ///     println!("{}: {}", transaction.transactional_id, transaction.state);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn list_transactions(
        &self,
        filter: TransactionFilter,
    ) -> Result<Vec<TransactionListing>> {
        let deadline = self.deadline();
        let brokers = self.describe_cluster().await?.brokers;
        let brokers = PerKey::awaiting(brokers.iter().map(|broker| broker.id));
        let lists = self
            .cluster
            .ask_each(&List(filter), deadline, brokers)
            .await?;
        let mut ids: Vec<_> = lists.all()?.into_iter().flatten().collect();
        ids.sort_unstable_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
        // One whose coordinator has just moved may be listed by both.
        ids.dedup_by(|a, b| a.transactional_id == b.transactional_id);
        Ok(ids)
    }

    /// Transactional ids and their transactions, as their coordinators know them.
    ///
    /// # Errors
    ///
    /// Of the call, if nothing is known about any id. For one id, among others
    /// [`ErrorKind::Transaction`] with Kafka's code `TRANSACTIONAL_ID_NOT_FOUND` (105).
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// for (id, described) in admin.describe_transactions(["billing-1"]).await? {
    ///     println!("{id}: {:?}", described?.partitions);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn describe_transactions(
        &self,
        ids: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<PerKey<String, TransactionDescription>> {
        let ids = PerKey::awaiting(ids.into_iter().map(Into::into));
        let deadline = self.deadline();
        self.cluster.ask_each(&Describe, deadline, ids).await
    }

    /// The producers that the leaders of partitions know, and where their open transactions begin:
    /// the first of these holds `read_committed` consumers back.
    ///
    /// # Errors
    ///
    /// Of the call, if nothing is known about any partition. For one partition, among others
    /// [`ErrorKind::UnknownPartition`], [`ErrorKind::Authorization`], or what kept its leader from
    /// answering.
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// use ottla::TopicPartition;
    ///
    /// let partitions = [TopicPartition::new("orders", 0)];
    /// for producer in admin.describe_producers(partitions).await?.all()?.concat() {
    ///     println!("{}: open from {:?}", producer.producer_id, producer.transaction_start);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn describe_producers(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) -> Result<PerKey<TopicPartition, Vec<ProducerState>>> {
        let partitions = PerKey::awaiting(partitions);
        let deadline = self.deadline();
        self.cluster
            .ask_each(&DescribeProducers, deadline, partitions)
            .await
    }

    /// Shuts out the producers that own transactional ids, and ends their open transactions, as a
    /// new owner of the id would.
    ///
    /// # Errors
    ///
    /// Of the call, if nothing is known about any id. For one id, among others
    /// [`ErrorKind::Authorization`], or what kept its coordinator from answering.
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// admin.fence_producers(["billing-1"]).await?.all()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting and nothing else: a request that was sent is carried
    /// out, so the producers may or may not be shut out.
    pub async fn fence_producers(
        &self,
        ids: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<PerKey<String, FencedProducer>> {
        let ids = PerKey::awaiting(ids.into_iter().map(Into::into));
        let deadline = self.deadline();
        self.cluster.ask_each(&Fence, deadline, ids).await
    }

    /// Aborts a transaction in one partition, without its coordinator: for one that
    /// [hangs](Self::find_hanging_transactions). One that its coordinator knows ends by itself, or
    /// by [`fence_producers`](Self::fence_producers).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Authorization`] (the right to alter the cluster is needed),
    /// [`ErrorKind::Fenced`] if the transaction is another one by now, or what kept the partition's
    /// leader from answering. If it may have been done all the same, it says so
    /// ([`Error::is_maybe_written`]).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting and nothing else: a request that was sent is carried
    /// out.
    pub async fn abort_transaction(&self, transaction: AbortTransaction) -> Result<()> {
        let partition = PerKey::awaiting([transaction.partition.clone()]);
        let deadline = self.deadline();
        let operation = Abort(transaction);
        self.cluster
            .ask_each(&operation, deadline, partition)
            .await?
            .only()
    }

    /// Looks for transactions that nobody will end: open in one of these partitions for longer than
    /// `transaction.max.timeout.ms` of the brokers (and five minutes), and not known to any
    /// coordinator. A `read_committed` consumer does not get past them. They can be
    /// [aborted](Self::abort_transaction). Kafka's tool for it is `kafka-transactions.sh
    /// find-hanging`.
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// use std::time::Duration;
    /// use ottla::TopicPartition;
    ///
    /// let longest = Duration::from_secs(15 * 60); // transaction.max.timeout.ms
    /// let partitions = [TopicPartition::new("orders", 0)];
    /// for hanging in admin.find_hanging_transactions(partitions, longest).await? {
    ///     admin.abort_transaction(hanging).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If a partition, or a coordinator, could not be asked.
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn find_hanging_transactions(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
        longest: Duration,
    ) -> Result<Vec<AbortTransaction>> {
        let began = self.cluster.clock().wall_millis();
        let old = longest.saturating_add(MARGIN).as_millis();
        let old = i64::try_from(old).unwrap_or(i64::MAX);
        let before = began.saturating_sub(old);
        let mut candidates = Vec::new();
        for (tp, producers) in self.describe_producers(partitions).await? {
            for producer in producers? {
                let last = producer.last_timestamp.map_or(0, Timestamp::as_millis);
                if producer.transaction_start.is_some() && last < before {
                    candidates.push((tp.clone(), producer));
                }
            }
        }
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let ids = candidates.iter().map(|(_, producer)| producer.producer_id);
        let filter = TransactionFilter::all().producer_ids(ids);
        let known = self.list_transactions(filter).await?;
        let known: BTreeMap<i64, String> = known
            .into_iter()
            .map(|listing| (listing.producer_id, listing.transactional_id))
            .collect();
        let described = self.describe_transactions(known.values()).await?;
        let described: BTreeMap<_, _> = described.into_iter().collect();
        let mut hanging = Vec::new();
        for (tp, producer) in candidates {
            let id = known.get(&producer.producer_id);
            let its_own = match id.and_then(|id| described.get(id)) {
                None => false,
                Some(Ok(known)) => {
                    known.producer_id == producer.producer_id && known.partitions.contains(&tp)
                }
                Some(Err(error)) if error.code().is_some_and(|code| code.get() == NOT_FOUND) => {
                    false
                }
                Some(Err(error)) => return Err(error.clone()),
            };
            if !its_own {
                hanging.push((tp, producer));
            }
        }
        // One that ended meanwhile does not hang, and its producer may have begun another.
        let again: BTreeSet<_> = hanging.iter().map(|(tp, _)| tp.clone()).collect();
        let mut still = BTreeSet::new();
        for (tp, producers) in self.describe_producers(again).await? {
            for now in producers? {
                still.insert((tp.clone(), now.producer_id, now.transaction_start));
            }
        }
        hanging.retain(|(tp, was)| {
            still.contains(&(tp.clone(), was.producer_id, was.transaction_start))
        });
        let hanging = hanging.into_iter();
        hanging
            .map(|(tp, producer)| AbortTransaction::of(tp, &producer))
            .collect()
    }
}

const NOT_FOUND: i16 = codes::TRANSACTIONAL_ID_NOT_FOUND;

/// Where -1 stands for nothing.
fn known<T: PartialOrd + Default>(value: T) -> Option<T> {
    (value >= T::default()).then_some(value)
}

fn time(millis: i64) -> Option<Timestamp> {
    known(millis).map(Timestamp::from_millis)
}

/// The transactional ids that each broker coordinates.
struct List(TransactionFilter);

impl Operation for List {
    type Key = BrokerId;
    type Request = kp::ListTransactionsRequest;
    type Value = Vec<TransactionListing>;

    const DOING: &'static str = "listing the transactions of broker";

    fn route<'a>(&'a self, broker: &'a BrokerId) -> Route<'a> {
        Route::Broker(*broker)
    }

    fn version(&self, offered: i16, _: &[BrokerId], _: &Snapshot) -> Result<i16> {
        let (least, why) = self.0.needs();
        match offered >= least {
            true => Ok(offered),
            false => Err(Error::new(ErrorKind::UnsupportedVersion, why)),
        }
    }

    fn request(&self, _: &[BrokerId], _: &Asking<'_>) -> kp::ListTransactionsRequest {
        let states = self.0.states.iter().map(|state| str_bytes(state));
        let ids = self.0.producer_ids.iter().map(|id| kp::ProducerId(*id));
        let request = kp::ListTransactionsRequest::default()
            .with_state_filters(states.collect())
            .with_producer_id_filters(ids.collect());
        let request = match self.0.longer_than {
            Some(time) => {
                request.with_duration_filter(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
            }
            None => request,
        };
        match &self.0.id_pattern {
            Some(pattern) => request.with_transactional_id_pattern(Some(str_bytes(pattern))),
            None => request,
        }
    }

    fn read(
        &self,
        _: &[BrokerId],
        broker: BrokerId,
        response: kp::ListTransactionsResponse,
    ) -> Answers<Self> {
        if let Some(state) = response.unknown_state_filters.first() {
            let message = format!("broker {broker} knows no state '{state}' of transactions");
            let error = Error::new(ErrorKind::InvalidArgument, message);
            return vec![(broker, Err(Refusal::Error(error)))];
        }
        let listings = response.transaction_states.iter();
        let listings = listings.map(|listing| TransactionListing {
            transactional_id: listing.transactional_id.to_string(),
            producer_id: listing.producer_id.0,
            state: listing.transaction_state.to_string(),
        });
        vec![(broker, Ok(listings.collect()))]
    }
}

struct Describe;

impl Operation for Describe {
    type Key = String;
    type Request = kp::DescribeTransactionsRequest;
    type Value = TransactionDescription;

    const DOING: &'static str = "describing the transaction of";

    fn route<'a>(&'a self, id: &'a String) -> Route<'a> {
        Route::Coordinator(CoordinatorKey::Transaction(id))
    }

    fn request(&self, ids: &[String], _: &Asking<'_>) -> kp::DescribeTransactionsRequest {
        let ids = ids.iter().map(|id| kp::TransactionalId(str_bytes(id)));
        kp::DescribeTransactionsRequest::default().with_transactional_ids(ids.collect())
    }

    fn read(
        &self,
        _: &[String],
        coordinator: BrokerId,
        response: kp::DescribeTransactionsResponse,
    ) -> Answers<Self> {
        let states = response.transaction_states.into_iter().map(|state| {
            let refused = Refusal::check(state.error_code, None);
            let partitions = state.topics.iter().flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|partition| TopicPartition::new(topic.topic.as_str(), *partition))
            });
            let timeout = u64::try_from(state.transaction_timeout_ms).unwrap_or(0);
            let described = TransactionDescription {
                coordinator,
                state: state.transaction_state.to_string(),
                producer_id: state.producer_id.0,
                producer_epoch: state.producer_epoch,
                timeout: Duration::from_millis(timeout),
                started: time(state.transaction_start_time_ms),
                partitions: partitions.collect(),
            };
            let id = state.transactional_id.to_string();
            (id, refused.map(|()| described))
        });
        states.collect()
    }
}

struct DescribeProducers;

impl Operation for DescribeProducers {
    type Key = TopicPartition;
    type Request = kp::DescribeProducersRequest;
    type Value = Vec<ProducerState>;

    const DOING: &'static str = "describing producers";

    fn route<'a>(&'a self, tp: &'a TopicPartition) -> Route<'a> {
        Route::Leader(tp)
    }

    fn request(
        &self,
        partitions: &[TopicPartition],
        _: &Asking<'_>,
    ) -> kp::DescribeProducersRequest {
        let mut topics: IndexMap<&str, Vec<i32>> = IndexMap::new();
        for tp in partitions {
            topics.entry(&tp.topic).or_default().push(tp.partition);
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            TopicRequest::default()
                .with_name(topic_name(name))
                .with_partition_indexes(partitions)
        });
        kp::DescribeProducersRequest::default().with_topics(topics.collect())
    }

    fn read(
        &self,
        _: &[TopicPartition],
        _: BrokerId,
        response: kp::DescribeProducersResponse,
    ) -> Answers<Self> {
        let topics = response.topics.into_iter();
        let each = topics.flat_map(|topic| {
            let name = topic.name;
            topic.partitions.into_iter().map(move |part| {
                let tp = TopicPartition::new(name.as_str(), part.partition_index);
                let refused = Refusal::check(part.error_code, part.error_message);
                let producers = part.active_producers.iter().map(|producer| ProducerState {
                    producer_id: producer.producer_id.0,
                    producer_epoch: producer.producer_epoch,
                    last_sequence: known(producer.last_sequence),
                    last_timestamp: time(producer.last_timestamp),
                    coordinator_epoch: known(producer.coordinator_epoch),
                    transaction_start: known(producer.current_txn_start_offset),
                });
                (tp, refused.map(|()| producers.collect()))
            })
        });
        each.collect()
    }
}

/// InitProducerId, one id at a time.
struct Fence;

impl Operation for Fence {
    type Key = String;
    type Request = kp::InitProducerIdRequest;
    type Value = FencedProducer;

    const DOING: &'static str = "shutting out the producer of";
    const MANY_KEYS: i16 = i16::MAX;

    fn route<'a>(&'a self, id: &'a String) -> Route<'a> {
        Route::Coordinator(CoordinatorKey::Transaction(id))
    }

    fn request(&self, ids: &[String], asking: &Asking<'_>) -> kp::InitProducerIdRequest {
        let id = ids.first().map(|id| kp::TransactionalId(str_bytes(id)));
        // Nobody will write under it; the time must not be longer than the broker's longest.
        kp::InitProducerIdRequest::default()
            .with_transactional_id(id)
            .with_transaction_timeout_ms(asking.timeout_ms.clamp(1, 60_000))
            .with_producer_id(kp::ProducerId(-1))
            .with_producer_epoch(-1)
    }

    fn read(
        &self,
        ids: &[String],
        _: BrokerId,
        response: kp::InitProducerIdResponse,
    ) -> Answers<Self> {
        let fenced = FencedProducer {
            producer_id: response.producer_id.0,
            producer_epoch: response.producer_epoch,
        };
        let refused = Refusal::check(response.error_code, None);
        let answer = refused.map(|()| fenced);
        ids.first()
            .cloned()
            .map(|id| (id, answer))
            .into_iter()
            .collect()
    }
}

struct Abort(AbortTransaction);

impl Operation for Abort {
    type Key = TopicPartition;
    type Request = kp::WriteTxnMarkersRequest;
    type Value = ();

    const DOING: &'static str = "aborting a transaction";

    fn route<'a>(&'a self, tp: &'a TopicPartition) -> Route<'a> {
        Route::Leader(tp)
    }

    fn request(&self, _: &[TopicPartition], _: &Asking<'_>) -> kp::WriteTxnMarkersRequest {
        let aborted = &self.0;
        let topic = WritableTxnMarkerTopic::default()
            .with_name(topic_name(&aborted.partition.topic))
            .with_partition_indexes(vec![aborted.partition.partition]);
        let marker = WritableTxnMarker::default()
            .with_producer_id(kp::ProducerId(aborted.producer_id))
            .with_producer_epoch(aborted.producer_epoch)
            .with_coordinator_epoch(aborted.coordinator_epoch)
            .with_transaction_result(false)
            .with_topics(vec![topic]);
        kp::WriteTxnMarkersRequest::default().with_markers(vec![marker])
    }

    fn read(
        &self,
        _: &[TopicPartition],
        _: BrokerId,
        response: kp::WriteTxnMarkersResponse,
    ) -> Answers<Self> {
        let topics = response.markers.iter().flat_map(|marker| &marker.topics);
        let each = topics.flat_map(|topic| {
            topic.partitions.iter().map(|part| {
                let tp = TopicPartition::new(topic.name.as_str(), part.partition_index);
                (tp, Refusal::check(part.error_code, None))
            })
        });
        each.collect()
    }
}
