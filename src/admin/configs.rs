//! Configurations of topics, brokers and groups: what they are, and changing them.

use std::fmt;

use indexmap::IndexMap;
use kafka_protocol::messages as kp;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};

use super::Admin;
use crate::cluster::ask::{Answers, Asking, Key, Operation, Refusal, Route};
use crate::cluster::per_key::PerKey;
use crate::error::Result;
use crate::types::BrokerId;
use crate::wire::str_bytes;

/// What has a configuration.
///
/// ```
/// use ottla::admin::ConfigResource;
///
/// let topic = ConfigResource::topic("orders");
/// assert_eq!(topic.to_string(), "topic 'orders'");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ConfigResource {
    /// A topic, by its name.
    Topic(String),
    /// One broker.
    Broker(BrokerId),
    /// All brokers: what is set for each of them unless it has a value of its own.
    AllBrokers,
    /// The log levels of a broker (KIP-412).
    BrokerLogger(BrokerId),
    /// What clients are asked to report (KIP-714), by the name of the subscription.
    ClientMetrics(String),
    /// A group, by its name (KIP-848, Kafka 4.0).
    Group(String),
}

impl ConfigResource {
    /// A topic.
    pub fn topic(name: impl Into<String>) -> Self {
        Self::Topic(name.into())
    }

    /// A group.
    pub fn group(name: impl Into<String>) -> Self {
        Self::Group(name.into())
    }

    fn to_wire(&self) -> (i8, String) {
        match self {
            Self::Topic(name) => (2, name.clone()),
            Self::Broker(broker) => (4, broker.to_string()),
            Self::AllBrokers => (4, String::new()),
            Self::BrokerLogger(broker) => (8, broker.to_string()),
            Self::ClientMetrics(name) => (16, name.clone()),
            Self::Group(name) => (32, name.clone()),
        }
    }

    fn read(kind: i8, name: &str) -> Option<Self> {
        let broker = || name.parse().ok().map(BrokerId);
        match kind {
            2 => Some(Self::topic(name)),
            4 if name.is_empty() => Some(Self::AllBrokers),
            4 => broker().map(Self::Broker),
            8 => broker().map(Self::BrokerLogger),
            16 => Some(Self::ClientMetrics(name.to_owned())),
            32 => Some(Self::group(name)),
            _ => None,
        }
    }

    /// The broker that alone knows the resource.
    fn broker(&self) -> Option<BrokerId> {
        match self {
            Self::Broker(broker) | Self::BrokerLogger(broker) => Some(*broker),
            _ => None,
        }
    }
}

impl fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic '{name}'"),
            Self::Broker(broker) => write!(f, "broker {broker}"),
            Self::AllBrokers => f.write_str("all brokers"),
            Self::BrokerLogger(broker) => write!(f, "the loggers of broker {broker}"),
            Self::ClientMetrics(name) => write!(f, "client metrics '{name}'"),
            Self::Group(name) => write!(f, "group '{name}'"),
        }
    }
}

impl Key for ConfigResource {
    fn doing(&self, doing: &str) -> String {
        format!("{doing} {self}")
    }
}

/// The configuration of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceConfig {
    entries: Vec<ConfigEntry>,
}

impl ResourceConfig {
    /// All entries, by name.
    #[must_use]
    pub fn entries(&self) -> &[ConfigEntry] {
        &self.entries
    }

    /// One entry, by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ConfigEntry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

/// One configuration of a resource.
///
/// Its `Debug` does not show the values of sensitive ones.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigEntry {
    /// Its name, such as `retention.ms`.
    pub name: String,
    /// Its value; `None` if there is none or if it is sensitive: brokers do not tell passwords.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether it can only be changed in the broker's file.
    pub read_only: bool,
    /// Whether it is a password or the like.
    pub sensitive: bool,
}

impl fmt::Debug for ConfigEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = Some("hidden").filter(|_| self.sensitive && self.value.is_some());
        f.debug_struct("ConfigEntry")
            .field("name", &self.name)
            .field("value", &hidden.or(self.value.as_deref()))
            .field("source", &self.source)
            .field("read_only", &self.read_only)
            .field("sensitive", &self.sensitive)
            .finish()
    }
}

/// Where the value of a configuration comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigSource {
    /// Kafka's default.
    Default,
    /// The broker's file.
    StaticBroker,
    /// Set for all brokers while they run.
    DynamicDefaultBroker,
    /// Set for this broker while it runs.
    DynamicBroker,
    /// Set for the topic.
    Topic,
    /// Set for the loggers of the broker.
    BrokerLogger,
    /// Set for the subscription of client metrics.
    ClientMetrics,
    /// Set for the group.
    Group,
    /// Something that this version of the client does not know.
    Unknown,
}

impl ConfigSource {
    fn read(source: i8) -> Self {
        match source {
            1 => Self::Topic,
            2 => Self::DynamicBroker,
            3 => Self::DynamicDefaultBroker,
            4 => Self::StaticBroker,
            5 => Self::Default,
            6 => Self::BrokerLogger,
            7 => Self::ClientMetrics,
            8 => Self::Group,
            _ => Self::Unknown,
        }
    }
}

/// A change of one configuration (KIP-339).
///
/// Its `Debug` does not show the value, which may be a password.
///
/// ```
/// use ottla::admin::ConfigChange;
///
/// let change = ConfigChange::set("ssl.key.password", "secret");
/// assert!(!format!("{change:?}").contains("secret"));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use]
pub struct ConfigChange {
    name: String,
    operation: Change,
    value: Option<String>,
}

/// What is done to the value, by the numbers on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Set = 0,
    Delete = 1,
    Append = 2,
    Subtract = 3,
}

impl ConfigChange {
    fn new(name: impl Into<String>, operation: Change, value: Option<String>) -> Self {
        Self {
            name: name.into(),
            operation,
            value,
        }
    }

    /// Gives the configuration a value.
    pub fn set(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self::new(name, Change::Set, Some(value.into()))
    }

    /// Takes the resource's own value away, so that the default counts again.
    pub fn delete(name: impl Into<String>) -> Self {
        Self::new(name, Change::Delete, None)
    }

    /// Adds to a list, such as `cleanup.policy`, what it does not have yet; separated by commas.
    pub fn append(name: impl Into<String>, values: impl Into<String>) -> Self {
        Self::new(name, Change::Append, Some(values.into()))
    }

    /// Takes out of a list; separated by commas.
    pub fn subtract(name: impl Into<String>, values: impl Into<String>) -> Self {
        Self::new(name, Change::Subtract, Some(values.into()))
    }
}

impl fmt::Debug for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.operation, self.name)
    }
}

impl Admin {
    /// The configurations of topics, brokers and groups, with defaults.
    ///
    /// # Errors
    ///
    /// Of the call, if nothing is known about any resource. For one, among others
    /// [`UnknownTopic`](crate::ErrorKind::UnknownTopic),
    /// [`Authorization`](crate::ErrorKind::Authorization), or what kept the broker from answering.
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// use ottla::admin::ConfigResource;
    ///
    /// let topic = ConfigResource::topic("orders");
    /// let mut configs = admin.describe_configs([topic.clone()]).await?;
    /// if let Some(config) = configs.remove(&topic) {
    ///     println!("{:?}", config?.get("retention.ms"));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn describe_configs(
        &self,
        resources: impl IntoIterator<Item = ConfigResource>,
    ) -> Result<PerKey<ConfigResource, ResourceConfig>> {
        let resources = PerKey::awaiting(resources);
        let deadline = self.deadline();
        self.cluster.ask_each(&Describe, deadline, resources).await
    }

    /// Changes single configurations and leaves the others as they are; all changes of a resource
    /// are made, or none.
    ///
    /// # Errors
    ///
    /// Of the call, if nothing is known about any resource. For one, among others
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a name or value that there is not,
    /// [`UnknownTopic`](crate::ErrorKind::UnknownTopic),
    /// [`Policy`](crate::ErrorKind::Policy), [`Authorization`](crate::ErrorKind::Authorization).
    ///
    /// ```no_run
    /// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
    /// use ottla::admin::{ConfigChange, ConfigResource};
    ///
    /// let topic = ConfigResource::topic("orders");
    /// admin
    ///     .incremental_alter_configs([
    ///         (topic.clone(), ConfigChange::set("retention.ms", "86400000")),
    ///         (topic, ConfigChange::append("cleanup.policy", "compact")),
    ///     ])
    ///     .await?
    ///     .all()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting and nothing else: a request that was sent is carried
    /// out, so the changes may or may not be made.
    pub async fn incremental_alter_configs(
        &self,
        changes: impl IntoIterator<Item = (ConfigResource, ConfigChange)>,
    ) -> Result<PerKey<ConfigResource, ()>> {
        self.alter(changes, false).await
    }

    /// Checks what [`incremental_alter_configs`](Self::incremental_alter_configs) would do and
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// As `incremental_alter_configs`.
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time; nothing is changed by this call.
    pub async fn validate_configs(
        &self,
        changes: impl IntoIterator<Item = (ConfigResource, ConfigChange)>,
    ) -> Result<PerKey<ConfigResource, ()>> {
        self.alter(changes, true).await
    }

    async fn alter(
        &self,
        changes: impl IntoIterator<Item = (ConfigResource, ConfigChange)>,
        validate_only: bool,
    ) -> Result<PerKey<ConfigResource, ()>> {
        let mut alter = Alter {
            changes: IndexMap::new(),
            validate_only,
        };
        for (resource, change) in changes {
            alter.changes.entry(resource).or_default().push(change);
        }
        let resources = PerKey::awaiting(alter.changes.keys().cloned());
        let deadline = self.deadline();
        self.cluster.ask_each(&alter, deadline, resources).await
    }
}

struct Describe;

impl Operation for Describe {
    type Key = ConfigResource;
    type Request = kp::DescribeConfigsRequest;
    type Value = ResourceConfig;

    const DOING: &'static str = "describing the configuration of";

    fn route<'a>(&'a self, resource: &'a ConfigResource) -> Route<'a> {
        resource.broker().map_or(Route::Any, Route::Broker)
    }

    fn request(&self, resources: &[ConfigResource], _: &Asking<'_>) -> kp::DescribeConfigsRequest {
        let resources = resources.iter().map(|resource| {
            let (kind, name) = resource.to_wire();
            DescribeConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(str_bytes(&name))
                .with_configuration_keys(None)
        });
        kp::DescribeConfigsRequest::default().with_resources(resources.collect())
    }

    fn read(
        &self,
        _: &[ConfigResource],
        _: BrokerId,
        response: kp::DescribeConfigsResponse,
    ) -> Answers<Self> {
        let results = response.results.into_iter();
        let each = results.filter_map(|result| {
            let resource = ConfigResource::read(result.resource_type, &result.resource_name)?;
            let refused = Refusal::check(result.error_code, result.error_message);
            let config = refused.map(|()| {
                let mut entries: Vec<_> = result.configs.into_iter().map(entry).collect();
                entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
                ResourceConfig { entries }
            });
            Some((resource, config))
        });
        each.collect()
    }
}

fn entry(config: DescribeConfigsResourceResult) -> ConfigEntry {
    ConfigEntry {
        name: config.name.to_string(),
        value: config.value.map(|value| value.to_string()),
        source: ConfigSource::read(config.config_source),
        read_only: config.read_only,
        sensitive: config.is_sensitive,
    }
}

struct Alter {
    changes: IndexMap<ConfigResource, Vec<ConfigChange>>,
    validate_only: bool,
}

impl Operation for Alter {
    type Key = ConfigResource;
    type Request = kp::IncrementalAlterConfigsRequest;
    type Value = ();

    const DOING: &'static str = "changing the configuration of";

    fn route<'a>(&'a self, resource: &'a ConfigResource) -> Route<'a> {
        resource.broker().map_or(Route::Controller, Route::Broker)
    }

    fn request(
        &self,
        resources: &[ConfigResource],
        _: &Asking<'_>,
    ) -> kp::IncrementalAlterConfigsRequest {
        let resources = resources.iter().map(|resource| {
            let changes = self.changes.get(resource).into_iter().flatten();
            let configs = changes.map(|change| {
                AlterableConfig::default()
                    .with_name(str_bytes(&change.name))
                    .with_config_operation(change.operation as i8)
                    .with_value(change.value.as_deref().map(str_bytes))
            });
            let (kind, name) = resource.to_wire();
            AlterConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(str_bytes(&name))
                .with_configs(configs.collect())
        });
        kp::IncrementalAlterConfigsRequest::default()
            .with_resources(resources.collect())
            .with_validate_only(self.validate_only)
    }

    fn read(
        &self,
        _: &[ConfigResource],
        _: BrokerId,
        response: kp::IncrementalAlterConfigsResponse,
    ) -> Answers<Self> {
        let responses = response.responses.into_iter();
        let each = responses.filter_map(|result| {
            let resource = ConfigResource::read(result.resource_type, &result.resource_name)?;
            let refused = Refusal::check(result.error_code, result.error_message);
            Some((resource, refused))
        });
        each.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let entry = |sensitive| ConfigEntry {
            name: "ssl.key.password".to_owned(),
            value: Some("secret".to_owned()),
            source: ConfigSource::DynamicBroker,
            read_only: false,
            sensitive,
        };
        assert!(!format!("{:?}", entry(true)).contains("secret"));
        assert!(format!("{:?}", entry(false)).contains("secret"));
        for change in [
            ConfigChange::set("ssl.key.password", "secret"),
            ConfigChange::append("ssl.key.password", "secret"),
        ] {
            let shown = format!("{change:?}");
            assert!(shown.contains("ssl.key.password") && !shown.contains("secret"));
        }
    }

    #[test]
    fn resources_are_told_apart_on_the_wire() {
        for resource in [
            ConfigResource::topic("7"),
            ConfigResource::Broker(BrokerId(7)),
            ConfigResource::AllBrokers,
            ConfigResource::BrokerLogger(BrokerId(7)),
            ConfigResource::ClientMetrics("7".to_owned()),
            ConfigResource::group("7"),
        ] {
            let (kind, name) = resource.to_wire();
            assert_eq!(ConfigResource::read(kind, &name), Some(resource));
        }
        assert_eq!(ConfigResource::read(4, "seven"), None);
        assert_eq!(ConfigResource::read(64, "seven"), None);
    }
}
