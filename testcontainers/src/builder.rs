use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::try_join_all;
use testcontainers::core::IntoContainerPort;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt};

use crate::docker::{Docker, LABEL_CLUSTER, LABEL_PROCESS, LABEL_RUN};
use crate::security::{BROKER_PEM, CA_PEM, CONTROLLER_PORT, Credentials, INNER_PORT};
use crate::{
    Broker, Cluster, Error, KafkaVersion, Listener, Mechanism, Pki, Result, image, reaper,
};

/// Host ports are taken from here: below the range that outgoing connections use, so that none
/// of those takes one while its broker is down.
const PORTS: std::ops::Range<u16> = 20_000..24_000;
/// How often to try: another process may take a port between our look and Docker's.
const ATTEMPTS: usize = 4;

/// What kind of [`Cluster`] to start.
#[derive(Debug, Clone)]
pub struct ClusterBuilder {
    brokers: u16,
    version: Option<String>,
    image: Option<String>,
    config: BTreeMap<String, String>,
    env: BTreeMap<String, String>,
    tls: bool,
    sasl: bool,
    first_port: Option<u16>,
    racks: Vec<String>,
    start_timeout: Duration,
}

impl Default for ClusterBuilder {
    fn default() -> Self {
        Self {
            brokers: 1,
            version: None,
            image: None,
            config: BTreeMap::new(),
            env: BTreeMap::new(),
            tls: false,
            sasl: false,
            first_port: None,
            racks: Vec::new(),
            start_timeout: Duration::from_secs(120),
        }
    }
}

impl ClusterBuilder {
    /// How many nodes, each a broker and a controller. 1 if not called.
    #[must_use]
    pub fn brokers(mut self, brokers: u16) -> Self {
        self.brokers = brokers;
        self
    }

    /// The Kafka version, such as `3.9` or `4.3.1`. If not called: the environment variable
    /// `OTTLA_KAFKA_VERSION`, else 4.3.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Another image; `{version}` in it stands for the version. It must take its settings from
    /// `KAFKA_*` variables as `apache/kafka` does. The environment variable `OTTLA_KAFKA_IMAGE`
    /// does the same.
    #[must_use]
    pub fn image(mut self, image: impl Into<String>) -> Self {
        self.image = Some(image.into());
        self
    }

    /// A broker setting for every node, such as `auto.create.topics.enable`.
    #[must_use]
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.insert(name.into(), value.into());
        self
    }

    /// An environment variable for every node, such as `KAFKA_HEAP_OPTS` for the JVM.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Adds the listeners [`Listener::Ssl`] and [`Listener::MutualTls`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Adds the listener [`Listener::SaslPlaintext`] and, with [`ClusterBuilder::tls`],
    /// [`Listener::SaslSsl`], for [`Cluster::credentials`] with every [`Mechanism`].
    #[must_use]
    pub fn sasl(mut self) -> Self {
        self.sasl = true;
        self
    }

    /// Turns the standard authorizer on. Clients of [`Listener::Plaintext`] (and the tools) may do
    /// everything; others need an ACL for their principal (`User:alice`, `User:CN=client`).
    #[must_use]
    pub fn authorizer(self) -> Self {
        self.config(
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        )
        .config("super.users", "User:ANONYMOUS")
    }

    /// The rack of each node (`broker.rack`), from node 1 on.
    #[must_use]
    pub fn racks<S: Into<String>>(mut self, racks: impl IntoIterator<Item = S>) -> Self {
        self.racks = racks.into_iter().map(Into::into).collect();
        self
    }

    /// Fixed host ports from this one on, one for each listener of each node, in the order
    /// plaintext of every node, then the others. Free ports are chosen if not called.
    #[must_use]
    pub fn first_port(mut self, port: u16) -> Self {
        self.first_port = Some(port);
        self
    }

    /// How long the cluster may take until every node serves, 120 s if not called (alone on a
    /// machine it takes 2 to 5 s, on a busy one 30 s have been seen).
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// Starts the cluster and waits until all its brokers are alive.
    ///
    /// # Errors
    /// [`Error::NoDocker`] and [`Error::NoImage`] tell what to run; [`Error::TimedOut`] holds the
    /// end of the logs of brokers that did not come up.
    pub async fn start(self) -> Result<Cluster> {
        let version = match &self.version {
            Some(version) => KafkaVersion::new(version)?,
            None => KafkaVersion::from_env()?,
        };
        if self.brokers == 0 || self.brokers > 9 {
            return Err(Error::Usage(format!(
                "a cluster has 1 to 9 brokers, not {}",
                self.brokers
            )));
        }
        let docker = Docker::connect().await?;
        let image = image::find(&docker, &version, self.image.as_deref()).await?;
        reaper::watch();
        let mut attempt = 1;
        loop {
            match self.start_once(&docker, &image, &version).await {
                Err(Error::Docker { why, .. }) if attempt < ATTEMPTS && may_pass(&why) => {
                    attempt += 1;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                result => return result,
            }
        }
    }

    async fn start_once(
        &self,
        docker: &Docker,
        image: &GenericImage,
        version: &KafkaVersion,
    ) -> Result<Cluster> {
        let tag = unique_tag();
        let network = format!("ottla-{tag}");
        let names: Vec<String> = (1..=self.brokers)
            .map(|id| format!("ottla-{tag}-{id}"))
            .collect();
        let listeners = self.listeners();
        let ports = self.ports(&listeners)?;
        let pki = if self.tls {
            Some(Pki::generate(&names)?)
        } else {
            None
        };
        let credentials = self.sasl.then(Credentials::default);
        let settings = self.settings(version, &names, &listeners, credentials.as_ref());
        let labels = labels(&tag);

        docker.create_network(&network, labels.clone()).await?;
        // From here on dropping the cluster removes what is there, also if this future is dropped.
        let mut cluster = Cluster {
            brokers: Vec::new(),
            containers: Vec::new(),
            version: version.clone(),
            image: image.clone(),
            pki,
            credentials,
            labels,
            tag,
            network,
            start_timeout: self.start_timeout,
            docker: docker.clone(),
        };
        let nodes = names
            .iter()
            .zip(&ports)
            .zip(1i32..)
            .map(|((name, ports), id)| {
                let mut settings = settings.clone();
                settings.insert("node.id".to_owned(), id.to_string());
                let rack = usize::try_from(id - 1).ok().and_then(|n| self.racks.get(n));
                if let Some(rack) = rack {
                    settings.insert("broker.rack".to_owned(), rack.clone());
                }
                let advertised = listeners
                    .iter()
                    .zip(ports)
                    .map(|(l, p)| format!("{}://127.0.0.1:{p}", l.name()));
                let advertised = advertised.chain([format!("BROKER://{name}:{INNER_PORT}")]);
                settings.insert("advertised.listeners".to_owned(), join(advertised));
                // Last, so that a test's own settings win.
                settings.extend(self.config.clone());
                (
                    name,
                    id,
                    self.request(image, &cluster, name, &listeners, ports, &settings),
                    ports,
                )
            });
        let (mut requests, mut brokers) = (Vec::new(), Vec::new());
        for (name, id, request, ports) in nodes {
            requests.push(request);
            let ports: HashMap<Listener, u16> = listeners
                .iter()
                .copied()
                .zip(ports.iter().copied())
                .collect();
            brokers.push(Broker::new(
                docker.clone(),
                id,
                name.clone(),
                &names,
                ports,
                self.start_timeout,
            ));
        }
        cluster.containers = start_all(requests, self.start_timeout).await?;
        cluster.brokers = brokers;
        cluster.wait_until_ready().await?;
        cluster.add_scram_users().await?;
        Ok(cluster)
    }

    fn listeners(&self) -> Vec<Listener> {
        use Listener::{MutualTls, Plaintext, SaslPlaintext, SaslSsl, Ssl};
        [Plaintext, Ssl, MutualTls, SaslPlaintext, SaslSsl]
            .into_iter()
            .filter(|l| (self.tls || !l.needs_tls()) && (self.sasl || !l.needs_sasl()))
            .collect()
    }

    /// The host ports of each node, in the order of the listeners.
    fn ports(&self, listeners: &[Listener]) -> Result<Vec<Vec<u16>>> {
        let per_listener: Vec<Vec<u16>> = match self.first_port {
            Some(first) => (0u16..)
                .take(listeners.len())
                .map(|l| {
                    (0..self.brokers)
                        .map(|b| first + l * self.brokers + b)
                        .collect()
                })
                .collect(),
            None => listeners
                .iter()
                .map(|_| {
                    (0..self.brokers)
                        .map(|_| free_port())
                        .collect::<Result<_>>()
                })
                .collect::<Result<_>>()?,
        };
        Ok((0..usize::from(self.brokers))
            .map(|b| per_listener.iter().map(|ports| ports[b]).collect())
            .collect())
    }

    /// The settings that all nodes share.
    fn settings(
        &self,
        version: &KafkaVersion,
        names: &[String],
        listeners: &[Listener],
        credentials: Option<&Credentials>,
    ) -> BTreeMap<String, String> {
        let replication = self.brokers.min(3).to_string();
        let min_isr = if self.brokers >= 3 { "2" } else { "1" };
        let voters = names
            .iter()
            .zip(1..)
            .map(|(name, id)| format!("{id}@{name}:{CONTROLLER_PORT}"));
        let bound = listeners
            .iter()
            .map(|l| format!("{}://:{}", l.name(), l.inner_port()));
        let bound = bound.chain([
            format!("BROKER://:{INNER_PORT}"),
            format!("CONTROLLER://:{CONTROLLER_PORT}"),
        ]);
        let protocols = listeners
            .iter()
            .map(|l| format!("{}:{}", l.name(), l.protocol()));
        let protocols = protocols.chain([
            "BROKER:PLAINTEXT".to_owned(),
            "CONTROLLER:PLAINTEXT".to_owned(),
        ]);
        let mut settings: BTreeMap<String, String> = [
            ("process.roles", "broker,controller"),
            ("controller.quorum.voters", &join(voters)),
            ("controller.listener.names", "CONTROLLER"),
            ("inter.broker.listener.name", "BROKER"),
            ("listeners", &join(bound)),
            ("listener.security.protocol.map", &join(protocols)),
            ("log.dirs", "/var/lib/kafka/data"),
            ("default.replication.factor", "1"),
            ("offsets.topic.replication.factor", &replication),
            ("offsets.topic.num.partitions", "4"),
            ("transaction.state.log.replication.factor", &replication),
            ("transaction.state.log.min.isr", min_isr),
            ("transaction.state.log.num.partitions", "4"),
            ("group.initial.rebalance.delay.ms", "0"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        let mut set = |name: String, value: &str| settings.insert(name, value.to_owned());
        if version.is_at_least(4, 0) {
            set(
                "share.coordinator.state.topic.replication.factor".to_owned(),
                &replication,
            );
            set("share.coordinator.state.topic.min.isr".to_owned(), min_isr);
        } else {
            // KIP-848 is early access there, off by default.
            set(
                "group.coordinator.rebalance.protocols".to_owned(),
                "classic,consumer",
            );
        }
        if self.tls {
            set("ssl.keystore.type".to_owned(), "PEM");
            set("ssl.keystore.location".to_owned(), BROKER_PEM);
            set("ssl.truststore.type".to_owned(), "PEM");
            set("ssl.truststore.location".to_owned(), CA_PEM);
            set("listener.name.mtls.ssl.client.auth".to_owned(), "required");
        }
        if let Some(user) = credentials {
            let all: Vec<&str> = Mechanism::ALL.iter().map(|m| m.name()).collect();
            set("sasl.enabled.mechanisms".to_owned(), &all.join(","));
            for listener in listeners.iter().filter(|l| l.needs_sasl()) {
                for mechanism in Mechanism::ALL {
                    let (listener, name) = (
                        listener.name().to_lowercase(),
                        mechanism.name().to_lowercase(),
                    );
                    set(
                        format!("listener.name.{listener}.{name}.sasl.jaas.config"),
                        &mechanism.broker_jaas(user),
                    );
                }
            }
        }
        settings
    }

    fn request(
        &self,
        image: &GenericImage,
        cluster: &Cluster,
        name: &str,
        listeners: &[Listener],
        ports: &[u16],
        settings: &BTreeMap<String, String>,
    ) -> ContainerRequest<GenericImage> {
        let mut request = ContainerRequest::from(image.clone())
            .with_container_name(name)
            .with_network(&cluster.network)
            .with_labels(&cluster.labels)
            .with_startup_timeout(self.start_timeout)
            .with_env_var("CLUSTER_ID", "5L6g3nShT-eMCtK--X86sw")
            .with_host_config_modifier(publish_on_loopback_only);
        for (listener, port) in listeners.iter().zip(ports) {
            request = request.with_mapped_port(*port, listener.inner_port().tcp());
        }
        for (name, value) in settings {
            request = request.with_env_var(variable(name), value);
        }
        for (name, value) in &self.env {
            request = request.with_env_var(name, value);
        }
        if let Some(pki) = &cluster.pki {
            request = request
                .with_copy_to(BROKER_PEM, pki.broker_pem().into_bytes())
                .with_copy_to(CA_PEM, pki.ca_cert.clone().into_bytes());
        }
        request
    }
}

async fn start_all(
    requests: Vec<ContainerRequest<GenericImage>>,
    after: Duration,
) -> Result<Vec<ContainerAsync<GenericImage>>> {
    let starting = try_join_all(requests.into_iter().map(AsyncRunner::start));
    match tokio::time::timeout(after, starting).await {
        Ok(result) => result.map_err(|e| Error::docker("start a container", chain(&e))),
        Err(_) => Err(Error::TimedOut {
            action: "starting containers".to_owned(),
            after,
            detail: String::new(),
        }),
    }
}

/// An error with its causes: the daemon's own words are among them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// testcontainers publishes on all addresses.
fn publish_on_loopback_only(host: &mut testcontainers::bollard::models::HostConfig) {
    for binding in host
        .port_bindings
        .iter_mut()
        .flat_map(HashMap::values_mut)
        .flatten()
        .flatten()
    {
        binding.host_ip = Some("127.0.0.1".to_owned());
    }
}

pub(crate) fn labels(tag: &str) -> HashMap<String, String> {
    HashMap::from([
        (LABEL_PROCESS.to_owned(), reaper::process().to_owned()),
        (LABEL_CLUSTER.to_owned(), tag.to_owned()),
        (
            LABEL_RUN.to_owned(),
            std::env::var("OTTLA_CONTAINERS_RUN").unwrap_or_else(|_| "none".to_owned()),
        ),
    ])
}

/// The environment variable for a setting, in the convention of the `apache/kafka` image.
fn variable(setting: &str) -> String {
    format!(
        "KAFKA_{}",
        setting
            .replace('_', "__")
            .replace('-', "___")
            .replace('.', "_")
            .to_uppercase()
    )
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

/// Whether another try may succeed. A second daemon on the machine that starts or ends takes the
/// first one's iptables chains away for a moment.
fn may_pass(why: &str) -> bool {
    [
        "port is already allocated",
        "address already in use",
        "iptables failed",
    ]
    .iter()
    .any(|text| why.contains(text))
}

/// A name that no other cluster on this machine has.
fn unique_tag() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .subsec_nanos();
    format!(
        "{:x}-{:x}{:x}",
        std::process::id(),
        nanos,
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A port that is free now and that this process has not given out before. Processes start at
/// different places.
fn free_port() -> Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    for _ in 0..count {
        let step = std::process::id()
            .wrapping_mul(37)
            .wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))
            % count;
        let port = PORTS.start + u16::try_from(step).unwrap_or_default();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::Usage(format!("no port of {PORTS:?} is free")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_variables() {
        assert_eq!(
            variable("auto.create.topics.enable"),
            "KAFKA_AUTO_CREATE_TOPICS_ENABLE"
        );
        assert_eq!(variable("a.b-c_d"), "KAFKA_A_B___C__D");
    }

    #[test]
    fn listeners_depend_on_tls_and_sasl() {
        assert_eq!(ClusterBuilder::default().listeners(), [Listener::Plaintext]);
        assert_eq!(
            ClusterBuilder::default().sasl().listeners(),
            [Listener::Plaintext, Listener::SaslPlaintext]
        );
        assert_eq!(ClusterBuilder::default().tls().sasl().listeners().len(), 5);
    }

    #[test]
    fn fixed_ports_start_with_the_plaintext_ones() {
        let builder = ClusterBuilder::default()
            .brokers(3)
            .tls()
            .first_port(25_001);
        let ports = builder.ports(&builder.listeners()).unwrap();
        assert_eq!(ports[0], [25_001, 25_004, 25_007]);
        assert_eq!(ports[2], [25_003, 25_006, 25_009]);
    }
}
