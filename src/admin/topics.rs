//! Requests about topics: create, delete, describe.

use indexmap::IndexMap;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::driver::{Item, Operation};
use super::{Admin, CreatedTopic, PerTopic, TopicDescription, TopicId};
use crate::cluster::Target;
use crate::error::{Error, ErrorKind, Result};

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
                .with_name(wire(name))
                .with_value(Some(wire(value)))
        });
        CreatableTopic::default()
            .with_name(TopicName(wire(&self.name)))
            .with_num_partitions(partitions)
            .with_replication_factor(replication)
            .with_configs(configs.collect())
    }
}

fn wire(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

struct Create {
    validate_only: bool,
}

impl Operation for Create {
    type Request = CreateTopicsRequest;
    type Ask = NewTopic;
    type Value = CreatedTopic;

    const DOING: &'static str = "creating topic";
    const DONE_ALREADY: Option<(i16, &'static str)> = Some((
        36,
        "the request was repeated, so an earlier attempt may have created it",
    ));

    fn target(&self) -> Target<'static> {
        Target::Controller
    }

    fn request(
        &self,
        _: i16,
        asks: &IndexMap<String, NewTopic>,
        timeout_ms: i32,
    ) -> CreateTopicsRequest {
        CreateTopicsRequest::default()
            .with_topics(asks.values().map(NewTopic::to_wire).collect())
            .with_timeout_ms(timeout_ms)
            .with_validate_only(self.validate_only)
    }

    fn read(&self, response: CreateTopicsResponse) -> Vec<Item<CreatedTopic>> {
        let topics = response.topics.into_iter();
        topics
            .map(|topic| {
                let name = topic.name.to_string();
                Item {
                    code: topic.error_code,
                    message: topic.error_message.map(|message| message.to_string()),
                    value: CreatedTopic {
                        name: name.clone(),
                        // What was only validated gets a random id that no topic will have.
                        id: TopicId::known(topic.topic_id).filter(|_| !self.validate_only),
                        partitions: u32::try_from(topic.num_partitions).ok(),
                        replication: u16::try_from(topic.replication_factor).ok(),
                    },
                    name,
                }
            })
            .collect()
    }
}

pub(super) async fn create(
    admin: &Admin,
    topics: Vec<NewTopic>,
    validate_only: bool,
) -> Result<PerTopic<CreatedTopic>> {
    let mut results = PerTopic::awaiting(topics.iter().map(|topic| &topic.name));
    let mut asks = IndexMap::with_capacity(topics.len());
    for topic in topics {
        let name = topic.name.clone();
        if asks.insert(name.clone(), topic).is_some() {
            // Which of the two is meant? Brokers refuse this as well.
            let text = format!("creating topic '{name}': the call names it twice");
            results.put(name, Err(Error::new(ErrorKind::InvalidArgument, text)));
        }
    }
    asks.retain(|name, _| !results.is_settled(name));
    admin.drive(&Create { validate_only }, asks, results).await
}

struct Delete;

impl Operation for Delete {
    type Request = DeleteTopicsRequest;
    type Ask = ();
    type Value = ();

    const DOING: &'static str = "deleting topic";
    const DONE_ALREADY: Option<(i16, &'static str)> = Some((
        3,
        "the request was repeated, so an earlier attempt may have deleted it",
    ));

    fn target(&self) -> Target<'static> {
        Target::Controller
    }

    fn request(
        &self,
        version: i16,
        asks: &IndexMap<String, ()>,
        timeout_ms: i32,
    ) -> DeleteTopicsRequest {
        let names = asks.keys().map(|name| TopicName(wire(name)));
        let request = DeleteTopicsRequest::default().with_timeout_ms(timeout_ms);
        if version >= 6 {
            let topics = names.map(|name| DeleteTopicState::default().with_name(Some(name)));
            request.with_topics(topics.collect())
        } else {
            request.with_topic_names(names.collect())
        }
    }

    fn read(&self, response: DeleteTopicsResponse) -> Vec<Item<()>> {
        let topics = response.responses.into_iter();
        topics
            .filter_map(|topic| {
                Some(Item {
                    name: topic.name?.to_string(),
                    code: topic.error_code,
                    message: topic.error_message.map(|message| message.to_string()),
                    value: (),
                })
            })
            .collect()
    }
}

pub(super) async fn delete(admin: &Admin, topics: Vec<String>) -> Result<PerTopic<()>> {
    let results = PerTopic::awaiting(topics.iter());
    admin.drive(&Delete, named(topics), results).await
}

struct Describe;

impl Operation for Describe {
    type Request = MetadataRequest;
    type Ask = ();
    type Value = TopicDescription;

    const DOING: &'static str = "describing topic";
    const DONE_ALREADY: Option<(i16, &'static str)> = None;

    fn target(&self) -> Target<'static> {
        Target::Any
    }

    fn request(&self, _: i16, asks: &IndexMap<String, ()>, _: i32) -> MetadataRequest {
        MetadataRequest::default()
            .with_topics(Some(to_describe(asks.keys())))
            .with_allow_auto_topic_creation(false)
    }

    fn read(&self, response: MetadataResponse) -> Vec<Item<TopicDescription>> {
        let topics = response.topics.into_iter();
        topics
            .filter_map(|topic| {
                Some(Item {
                    name: topic.name.as_ref()?.to_string(),
                    code: topic.error_code,
                    message: None,
                    value: TopicDescription::read(topic)?,
                })
            })
            .collect()
    }
}

pub(super) async fn describe(
    admin: &Admin,
    topics: Vec<String>,
) -> Result<PerTopic<TopicDescription>> {
    let results = PerTopic::awaiting(topics.iter());
    admin.drive(&Describe, named(topics), results).await
}

/// Without repetitions: to name a topic twice means no more than once here.
fn named(topics: Vec<String>) -> IndexMap<String, ()> {
    topics.into_iter().map(|name| (name, ())).collect()
}

pub(super) fn to_describe<'a>(
    names: impl IntoIterator<Item = &'a String>,
) -> Vec<MetadataRequestTopic> {
    let names = names.into_iter();
    names
        .map(|name| MetadataRequestTopic::default().with_name(Some(TopicName(wire(name)))))
        .collect()
}
