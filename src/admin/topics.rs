//! Requests that change topics: create, add partitions, delete.

use indexmap::IndexMap;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse,
};

use super::Admin;
use super::results::CreatedTopic;
use crate::cluster::ask::{Answers, Asking, Operation, Refusal, Route};
use crate::cluster::describe::TopicId;
use crate::cluster::per_key::PerKey;
use crate::error::{Error, ErrorKind, Result};
use crate::types::BrokerId;
use crate::wire::{codes, str_bytes, topic_name};

/// A topic to be created.
///
/// ```
/// use ottla::admin::NewTopic;
///
/// let topic = NewTopic::new("orders")
///     .partitions(6)
///     .replication(3)
///     .config("retention.ms", "604800000")
///     .config("cleanup.policy", "compact,delete");
/// assert_eq!(topic.name(), "orders");
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct NewTopic {
    name: String,
    partitions: Option<u32>,
    replication: Option<u16>,
    configs: IndexMap<String, String>,
}

impl NewTopic {
    /// A topic with as many partitions and replicas as the brokers give by default.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            partitions: None,
            replication: None,
            configs: IndexMap::new(),
        }
    }

    /// How many partitions. Default: the brokers' `num.partitions`.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// How many brokers keep each partition. Default: the brokers' `default.replication.factor`.
    pub fn replication(mut self, replicas: u16) -> Self {
        self.replication = Some(replicas);
        self
    }

    /// Sets one of Kafka's topic configurations, such as `cleanup.policy` or `min.insync.replicas`.
    /// The brokers check name and value.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.insert(name.into(), value.into());
        self
    }

    /// The topic's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn to_wire(&self) -> CreatableTopic {
        // -1 asks for the broker's default (KIP-464). What does not fit is more than any cluster
        // takes, and the broker says so.
        let partitions = self
            .partitions
            .map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX));
        let replication = self
            .replication
            .map_or(-1, |n| i16::try_from(n).unwrap_or(i16::MAX));
        let configs = self.configs.iter().map(|(name, value)| {
            CreatableTopicConfig::default()
                .with_name(str_bytes(name))
                .with_value(Some(str_bytes(value)))
        });
        CreatableTopic::default()
            .with_name(topic_name(&self.name))
            .with_num_partitions(partitions)
            .with_replication_factor(replication)
            .with_configs(configs.collect())
    }
}

impl Admin {
    /// Creates topics.
    ///
    /// A success means that the controller has made the topic. The brokers hear of it a moment
    /// later: until then describing it may say that it does not exist, and it may not have leaders.
    /// Producers and consumers of this crate wait for that by themselves.
    ///
    /// # Errors
    ///
    /// Of the call, if nothing is known about any topic: no broker answered in time. For one topic,
    /// among others:
    ///
    /// - [`AlreadyExists`](crate::ErrorKind::AlreadyExists): a topic of that name exists. If the
    ///   call had to be repeated, the message says so, since an attempt whose answer was lost may
    ///   have made it.
    /// - [`InvalidArgument`](crate::ErrorKind::InvalidArgument): partitions, replication or a
    ///   configuration that the cluster cannot do, or a topic named twice in the call.
    /// - [`InvalidTopic`](crate::ErrorKind::InvalidTopic),
    ///   [`Authorization`](crate::ErrorKind::Authorization), [`Policy`](crate::ErrorKind::Policy).
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// use ottla::ErrorKind;
    /// use ottla::admin::NewTopic;
    ///
    /// let mut created = admin.create_topics([NewTopic::new("orders").partitions(6)]).await?;
    /// match created.remove("orders") {
    ///     Some(Err(error)) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
    ///     _ => println!("it is there"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting and nothing else: a request that was sent is carried
    /// out, so the topics may or may not be created.
    pub async fn create_topics(
        &self,
        topics: impl IntoIterator<Item = NewTopic>,
    ) -> Result<PerKey<String, CreatedTopic>> {
        create(self, topics.into_iter().collect(), false).await
    }

    /// Checks what [`create_topics`](Self::create_topics) would do and creates nothing.
    ///
    /// The cluster checks names, numbers, configurations, policies and rights as if it were meant.
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// use ottla::admin::NewTopic;
    ///
    /// let topic = NewTopic::new("orders").config("retention.ms", "604800000");
    /// admin.validate_topics([topic]).await?.all()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As `create_topics`.
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn validate_topics(
        &self,
        topics: impl IntoIterator<Item = NewTopic>,
    ) -> Result<PerKey<String, CreatedTopic>> {
        create(self, topics.into_iter().collect(), true).await
    }

    /// Deletes topics, with all their records.
    ///
    /// A success means that the controller has removed the topic; brokers hear of it a moment later
    /// and delete the files in the background. A consumer that is subscribed, or a producer that
    /// sends to the topic, may make it anew where brokers create topics on their own
    /// (`auto.create.topics.enable`).
    ///
    /// # Errors
    ///
    /// Of the call, if nothing is known about any topic. For one topic, among others
    /// [`UnknownTopic`](crate::ErrorKind::UnknownTopic): there is no such topic (any more: if the
    /// call had to be repeated, the message says so, since an attempt whose answer was lost may
    /// have deleted it).
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// admin.delete_topics(["orders", "customers"]).await?.all()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting and nothing else: a request that was sent is carried
    /// out, so the topics may or may not be deleted.
    pub async fn delete_topics(
        &self,
        topics: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<PerKey<String, ()>> {
        let topics = PerKey::awaiting(topics.into_iter().map(Into::into));
        let deadline = self.deadline();
        self.cluster.ask_each(&Delete, deadline, topics).await
    }
}

impl Admin {
    /// Gives topics more partitions: so many in all. Records with keys that come later may go to
    /// other partitions than before, and consumers hear of new partitions when their metadata is
    /// renewed.
    ///
    /// # Errors
    ///
    /// Of the call, if nothing is known about any topic. For one topic, among others
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) with Kafka's code
    /// `INVALID_PARTITIONS` (37) if it has as many or more already (if the call had to be repeated,
    /// the message says so, since an attempt whose answer was lost may have added them),
    /// [`UnknownTopic`](crate::ErrorKind::UnknownTopic),
    /// [`Authorization`](crate::ErrorKind::Authorization), [`Policy`](crate::ErrorKind::Policy).
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// admin.create_partitions([("orders", 12)]).await?.all()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting and nothing else: a request that was sent is carried
    /// out, so the partitions may or may not be added.
    pub async fn create_partitions(
        &self,
        totals: impl IntoIterator<Item = (impl Into<String>, u32)>,
    ) -> Result<PerKey<String, ()>> {
        self.grow(totals, false).await
    }

    /// Checks what [`create_partitions`](Self::create_partitions) would do and changes nothing.
    ///
    /// # Errors
    ///
    /// As `create_partitions`.
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn validate_partitions(
        &self,
        totals: impl IntoIterator<Item = (impl Into<String>, u32)>,
    ) -> Result<PerKey<String, ()>> {
        self.grow(totals, true).await
    }

    async fn grow(
        &self,
        totals: impl IntoIterator<Item = (impl Into<String>, u32)>,
        validate_only: bool,
    ) -> Result<PerKey<String, ()>> {
        let totals = totals.into_iter();
        let grow = Grow {
            totals: totals.map(|(topic, total)| (topic.into(), total)).collect(),
            validate_only,
        };
        let topics = PerKey::awaiting(grow.totals.keys().cloned());
        let deadline = self.deadline();
        self.cluster.ask_each(&grow, deadline, topics).await
    }
}

struct Create {
    topics: IndexMap<String, NewTopic>,
    validate_only: bool,
}

impl Operation for Create {
    type Key = String;
    type Request = CreateTopicsRequest;
    type Value = CreatedTopic;

    const DOING: &'static str = "creating topic";
    const DONE_ALREADY: Option<(i16, &'static str)> = Some((
        codes::TOPIC_ALREADY_EXISTS,
        "the request was repeated, so an earlier attempt may have created it",
    ));

    fn route<'a>(&'a self, _: &'a String) -> Route<'a> {
        Route::Controller
    }

    fn request(&self, names: &[String], asking: &Asking<'_>) -> CreateTopicsRequest {
        let topics = names.iter().filter_map(|name| self.topics.get(name));
        CreateTopicsRequest::default()
            .with_topics(topics.map(NewTopic::to_wire).collect())
            .with_timeout_ms(asking.timeout_ms)
            .with_validate_only(self.validate_only)
    }

    fn read(&self, _: &[String], _: BrokerId, response: CreateTopicsResponse) -> Answers<Self> {
        let topics = response.topics.into_iter();
        topics
            .map(|topic| {
                let name = topic.name.to_string();
                let created = CreatedTopic {
                    name: name.clone(),
                    // What was only validated gets a random id that no topic will have.
                    id: TopicId::known(topic.topic_id).filter(|_| !self.validate_only),
                    partitions: u32::try_from(topic.num_partitions).ok(),
                    replication: u16::try_from(topic.replication_factor).ok(),
                };
                let refused = Refusal::check(topic.error_code, topic.error_message);
                (name, refused.map(|()| created))
            })
            .collect()
    }
}

async fn create(
    admin: &Admin,
    topics: Vec<NewTopic>,
    validate_only: bool,
) -> Result<PerKey<String, CreatedTopic>> {
    let mut results = PerKey::awaiting(topics.iter().map(|topic| topic.name.clone()));
    let mut asked = IndexMap::with_capacity(topics.len());
    for topic in topics {
        let name = topic.name.clone();
        if asked.insert(name.clone(), topic).is_some() {
            // Which of the two is meant? Brokers refuse this as well.
            let text = format!("creating topic '{name}': the call names it twice");
            results.put(name, Err(Error::new(ErrorKind::InvalidArgument, text)));
        }
    }
    let create = Create {
        topics: asked,
        validate_only,
    };
    let deadline = admin.deadline();
    admin.cluster.ask_each(&create, deadline, results).await
}

struct Delete;

impl Operation for Delete {
    type Key = String;
    type Request = DeleteTopicsRequest;
    type Value = ();

    const DOING: &'static str = "deleting topic";
    const DONE_ALREADY: Option<(i16, &'static str)> = Some((
        codes::UNKNOWN_TOPIC_OR_PARTITION,
        "the request was repeated, so an earlier attempt may have deleted it",
    ));

    fn route<'a>(&'a self, _: &'a String) -> Route<'a> {
        Route::Controller
    }

    fn request(&self, names: &[String], asking: &Asking<'_>) -> DeleteTopicsRequest {
        let names = names.iter().map(|name| topic_name(name));
        let request = DeleteTopicsRequest::default().with_timeout_ms(asking.timeout_ms);
        if asking.version >= 6 {
            let topics = names.map(|name| DeleteTopicState::default().with_name(Some(name)));
            request.with_topics(topics.collect())
        } else {
            request.with_topic_names(names.collect())
        }
    }

    fn read(&self, _: &[String], _: BrokerId, response: DeleteTopicsResponse) -> Answers<Self> {
        let topics = response.responses.into_iter();
        topics
            .filter_map(|topic| {
                let refused = Refusal::check(topic.error_code, topic.error_message);
                Some((topic.name?.to_string(), refused))
            })
            .collect()
    }
}

struct Grow {
    totals: IndexMap<String, u32>,
    validate_only: bool,
}

impl Operation for Grow {
    type Key = String;
    type Request = CreatePartitionsRequest;
    type Value = ();

    const DOING: &'static str = "adding partitions to topic";
    const DONE_ALREADY: Option<(i16, &'static str)> = Some((
        codes::INVALID_PARTITIONS,
        "the request was repeated, so an earlier attempt may have added them",
    ));

    fn route<'a>(&'a self, _: &'a String) -> Route<'a> {
        Route::Controller
    }

    fn request(&self, topics: &[String], asking: &Asking<'_>) -> CreatePartitionsRequest {
        let topics = topics.iter().map(|name| {
            let total = self.totals.get(name).copied().unwrap_or_default();
            CreatePartitionsTopic::default()
                .with_name(topic_name(name))
                .with_count(i32::try_from(total).unwrap_or(i32::MAX))
                .with_assignments(None)
        });
        CreatePartitionsRequest::default()
            .with_topics(topics.collect())
            .with_timeout_ms(asking.timeout_ms)
            .with_validate_only(self.validate_only)
    }

    fn read(&self, _: &[String], _: BrokerId, response: CreatePartitionsResponse) -> Answers<Self> {
        let results = response.results.into_iter();
        let each = results.map(|result| {
            let refused = Refusal::check(result.error_code, result.error_message);
            (result.name.to_string(), refused)
        });
        each.collect()
    }
}
