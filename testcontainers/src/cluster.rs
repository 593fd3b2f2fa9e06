use std::collections::HashMap;
use std::time::{Duration, Instant};

use testcontainers::{ContainerAsync, GenericImage};

use crate::client::JavaClientCommand;
use crate::docker::Docker;
use crate::exec::ToolCommand;
use crate::{
    Broker, ClusterBuilder, Credentials, Error, KafkaVersion, Listener, Mechanism, Output, Pki,
    Result, reaper,
};

/// A running cluster. Dropping it removes its containers and its network.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) brokers: Vec<Broker>,
    pub(crate) containers: Vec<ContainerAsync<GenericImage>>,
    pub(crate) version: KafkaVersion,
    pub(crate) image: GenericImage,
    pub(crate) pki: Option<Pki>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) labels: HashMap<String, String>,
    pub(crate) tag: String,
    pub(crate) network: String,
    pub(crate) start_timeout: Duration,
    pub(crate) docker: Docker,
}

impl Cluster {
    /// What to start can be chosen: number of brokers, version, settings, listeners.
    #[must_use]
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// Starts a cluster of this many brokers and waits until all are alive.
    ///
    /// # Errors
    /// As [`ClusterBuilder::start`].
    pub async fn start(brokers: u16) -> Result<Self> {
        Self::builder().brokers(brokers).start().await
    }

    /// The addresses of all brokers for clients without TLS or SASL: `127.0.0.1:PORT,...`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.brokers
            .iter()
            .map(Broker::addr)
            .collect::<Vec<_>>()
            .join(",")
    }

    /// The addresses of all brokers for a listener.
    ///
    /// # Errors
    /// [`Error::Usage`] if the cluster was started without it.
    pub fn bootstrap_of(&self, listener: Listener) -> Result<String> {
        let addresses = self.brokers.iter().map(|broker| broker.addr_of(listener));
        Ok(addresses.collect::<Result<Vec<_>>>()?.join(","))
    }

    /// The broker of this id; the first one is 1.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn broker(&self, id: i32) -> &Broker {
        match self.brokers.iter().find(|broker| broker.id() == id) {
            Some(broker) => broker,
            #[allow(clippy::panic, reason = "a mistake in the test itself")]
            None => panic!("the cluster has no broker {id}"),
        }
    }

    /// All brokers, in the order of their ids.
    #[must_use]
    pub fn brokers(&self) -> &[Broker] {
        &self.brokers
    }

    /// The Kafka version that runs.
    #[must_use]
    pub fn version(&self) -> &KafkaVersion {
        &self.version
    }

    /// The certificates, if the cluster was started with [`ClusterBuilder::tls`].
    ///
    /// # Errors
    /// [`Error::Usage`] if it was not.
    pub fn pki(&self) -> Result<&Pki> {
        self.pki
            .as_ref()
            .ok_or_else(|| Error::Usage("the cluster was started without .tls()".to_owned()))
    }

    /// The user of the SASL listeners, if the cluster was started with [`ClusterBuilder::sasl`].
    ///
    /// # Errors
    /// [`Error::Usage`] if it was not.
    pub fn credentials(&self) -> Result<&Credentials> {
        self.credentials
            .as_ref()
            .ok_or_else(|| Error::Usage("the cluster was started without .sasl()".to_owned()))
    }

    /// Makes a topic and waits until every running broker knows it.
    ///
    /// # Errors
    /// [`Error::Tool`] if the brokers refuse it.
    pub async fn create_topic(&self, name: &str, partitions: u32, replication: u16) -> Result<()> {
        self.create_topic_with(name, partitions, replication, &[])
            .await
    }

    /// As [`Cluster::create_topic`], with settings such as `("min.insync.replicas", "2")`.
    ///
    /// # Errors
    /// [`Error::Tool`] if the brokers refuse it.
    pub async fn create_topic_with(
        &self,
        name: &str,
        partitions: u32,
        replication: u16,
        config: &[(&str, &str)],
    ) -> Result<()> {
        let (partitions, replication) = (partitions.to_string(), replication.to_string());
        let config: Vec<String> = config
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut args = vec!["--create", "--topic", name, "--partitions", &partitions];
        args.extend(["--replication-factor", &replication]);
        args.extend(config.iter().flat_map(|setting| ["--config", setting]));
        self.tool("kafka-topics.sh", &args).await.map(drop)
    }

    /// Runs one of Kafka's own tools inside a running broker's container and waits for its end, 60
    /// s at most. `--bootstrap-server` is added where the tool has it.
    ///
    /// # Errors
    /// [`Error::Tool`] if its exit status is not 0, [`Error::TimedOut`] if it does not end.
    pub async fn tool(&self, tool: &str, args: &[&str]) -> Result<Output> {
        self.tool_command(tool).args(args).run().await?.success()
    }

    /// As [`Cluster::tool`], with standard input, another time-out, or a chosen broker.
    pub fn tool_command(&self, tool: &str) -> ToolCommand<'_> {
        ToolCommand::new(self, tool)
    }

    /// A tool as a client from outside: a container of its own in the host's network, so that it
    /// uses the same addresses and listeners as a client on this machine. It can run for long, and
    /// be killed.
    pub fn java_client(&self, tool: &str) -> JavaClientCommand<'_> {
        JavaClientCommand::new(self, tool)
    }

    /// Waits until every running broker sees every running broker alive.
    pub(crate) async fn wait_until_ready(&self) -> Result<()> {
        for broker in self.brokers.iter().filter(|broker| broker.is_up()) {
            broker
                .wait_until_alive(&self.running_ids(), self.start_timeout)
                .await?;
        }
        Ok(())
    }

    fn running_ids(&self) -> Vec<i32> {
        self.brokers
            .iter()
            .filter(|broker| broker.is_up())
            .map(Broker::id)
            .collect()
    }

    /// Each mechanism in a command of its own: brokers refuse to change a user twice in a request.
    pub(crate) async fn add_scram_users(&self) -> Result<()> {
        let Some(Credentials { name, password }) = &self.credentials else {
            return Ok(());
        };
        for mechanism in [Mechanism::ScramSha256, Mechanism::ScramSha512] {
            self.add_scram_user(mechanism, name, password).await?;
        }
        Ok(())
    }

    /// Adds or changes a user for one of the SCRAM mechanisms.
    ///
    /// # Errors
    /// [`Error::Tool`] if the brokers refuse it.
    pub async fn add_scram_user(
        &self,
        mechanism: Mechanism,
        name: &str,
        password: &str,
    ) -> Result<()> {
        let value = format!("{}=[password={password}]", mechanism.name());
        let user = ["--entity-type", "users", "--entity-name", name];
        let args = [&["--alter", "--add-config", &value], &user[..]].concat();
        self.tool("kafka-configs.sh", &args).await.map(drop)
    }

    /// Waits until no partition lacks an in-sync replica, as after a restart.
    ///
    /// # Errors
    /// [`Error::TimedOut`] with the partitions that lack one.
    pub async fn wait_until_in_sync(&self, after: Duration) -> Result<()> {
        let end = Instant::now() + after;
        loop {
            let lacking = self
                .tool(
                    "kafka-topics.sh",
                    &["--describe", "--under-replicated-partitions"],
                )
                .await?
                .stdout;
            if lacking.trim().is_empty() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(Error::TimedOut {
                    action: "getting in sync".to_owned(),
                    after,
                    detail: lacking,
                });
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Removed below by label, all at once; their own drop would need a tokio runtime.
        self.containers.drain(..).for_each(std::mem::forget);
        if reaper::keeps() {
            return;
        }
        let (docker, tag, network) = (self.docker.clone(), self.tag.clone(), self.network.clone());
        // A thread, for a drop can neither wait in the runtime it is in nor count on being in one.
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            match runtime {
                Ok(runtime) => runtime.block_on(docker.remove_cluster(&tag, &network)),
                Err(e) => Err(Error::docker("clean up", e)),
            }
        });
        if let Ok(Err(e)) = cleaner.join() {
            eprintln!("a test cluster was not removed: {e}");
        }
    }
}
