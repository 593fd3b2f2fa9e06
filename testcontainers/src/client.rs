use std::collections::BTreeMap;
use std::time::Duration;

use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerRequest, ImageExt};

use crate::docker::{Docker, wait_until};
use crate::exec::command_line;
use crate::{Cluster, Error, Listener, Mechanism, Output, Result};

const PROPERTIES: &str = "/tmp/client.properties";
const START: Duration = Duration::from_secs(60);

/// A tool to be run as a client from outside; made by [`Cluster::java_client`].
#[derive(Debug)]
#[must_use = "it runs when .start() is called"]
pub struct JavaClientCommand<'a> {
    cluster: &'a Cluster,
    tool: String,
    args: Vec<String>,
    listener: Listener,
    mechanism: Mechanism,
    properties: BTreeMap<String, String>,
}

impl<'a> JavaClientCommand<'a> {
    pub(crate) fn new(cluster: &'a Cluster, tool: &str) -> Self {
        Self {
            cluster,
            tool: tool.to_owned(),
            args: Vec::new(),
            listener: Listener::Plaintext,
            mechanism: Mechanism::Plain,
            properties: BTreeMap::new(),
        }
    }

    /// Adds arguments. `--bootstrap-server` and the option for the properties are added by
    /// themselves.
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// The listener to connect to, plaintext if not called. TLS and login are configured for it,
    /// with the client certificate where one is asked for.
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listener = listener;
        self
    }

    /// How to log in at a SASL listener, PLAIN if not called.
    pub fn mechanism(mut self, mechanism: Mechanism) -> Self {
        self.mechanism = mechanism;
        self
    }

    /// A client setting such as `group.protocol`; it wins over those made here.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }

    /// Starts the client and does not wait for anything it does.
    ///
    /// # Errors
    /// [`Error::Docker`] if its container does not start.
    pub async fn start(self) -> Result<JavaClient> {
        let cluster = self.cluster;
        let bootstrap = cluster.bootstrap_of(self.listener)?;
        let mut args = self.args.clone();
        args.extend([config_option(&self.tool).to_owned(), PROPERTIES.to_owned()]);
        let command = command_line(&self.tool, &args, &bootstrap);
        let shown = command.join(" ");
        let request = ContainerRequest::from(cluster.image.clone())
            .with_network("host")
            .with_labels(&cluster.labels)
            .with_startup_timeout(START)
            .with_copy_to(PROPERTIES, self.properties()?.into_bytes())
            .with_cmd(command);
        let container = match tokio::time::timeout(START, request.start()).await {
            Ok(container) => container.map_err(|e| Error::docker(format!("start `{shown}`"), e))?,
            Err(_) => {
                return Err(Error::TimedOut {
                    action: shown,
                    after: START,
                    detail: String::new(),
                });
            }
        };
        let id = container.id().to_owned();
        // Removed by its drop or with the cluster; the container's own drop would need a tokio
        // runtime.
        std::mem::forget(container);
        Ok(JavaClient {
            docker: cluster.docker.clone(),
            id,
            command: shown,
        })
    }

    /// The client's settings, in the form of a properties file.
    fn properties(&self) -> Result<String> {
        let mut settings = BTreeMap::new();
        let mut set = |name: &str, value: &str| settings.insert(name.to_owned(), value.to_owned());
        set("security.protocol", self.listener.protocol());
        // For tools that have no option for it.
        set(
            "bootstrap.servers",
            &self.cluster.bootstrap_of(self.listener)?,
        );
        if self.listener.needs_tls() {
            let pki = self.cluster.pki()?;
            set("ssl.truststore.type", "PEM");
            set("ssl.truststore.certificates", &pki.ca_cert);
            if self.listener == Listener::MutualTls {
                set("ssl.keystore.type", "PEM");
                set("ssl.keystore.certificate.chain", &pki.client_cert);
                set("ssl.keystore.key", &pki.client_key);
            }
        }
        if self.listener.needs_sasl() {
            set("sasl.mechanism", self.mechanism.name());
            set(
                "sasl.jaas.config",
                &self.mechanism.client_jaas(self.cluster.credentials()?),
            );
        }
        settings.extend(self.properties.clone());
        // A value goes on in the next line after a backslash.
        let line = |(name, value): (String, String)| {
            format!("{name}={}\n", value.trim_end().replace('\n', "\\n\\\n"))
        };
        Ok(settings.into_iter().map(line).collect())
    }
}

/// The option that names the file of client settings.
fn config_option(tool: &str) -> &'static str {
    match tool {
        "kafka-console-producer.sh" | "kafka-producer-perf-test.sh" => "--producer.config",
        "kafka-console-consumer.sh" | "kafka-consumer-perf-test.sh" => "--consumer.config",
        "kafka-verifiable-producer.sh" => "--producer.config",
        "kafka-verifiable-consumer.sh" => "--consumer.config",
        _ => "--command-config",
    }
}

/// A running [`JavaClientCommand`]. Dropping it kills and removes it.
#[derive(Debug)]
pub struct JavaClient {
    docker: Docker,
    id: String,
    command: String,
}

impl JavaClient {
    /// What it has printed so far; the status is 0 while it runs.
    ///
    /// # Errors
    /// [`Error::Docker`] if Docker fails.
    pub async fn output(&self) -> Result<Output> {
        let status = self.docker.exit_status(&self.id).await?.unwrap_or_default();
        let (stdout, stderr) = self.docker.logs(&self.id, "all").await?;
        Ok(Output {
            command: self.command.clone(),
            status,
            stdout,
            stderr,
        })
    }

    /// Waits until its output satisfies the test.
    ///
    /// # Errors
    /// [`Error::TimedOut`] with its output, [`Error::Tool`] if it ended before.
    pub async fn wait_for(
        &self,
        after: Duration,
        mut test: impl FnMut(&Output) -> bool,
    ) -> Result<Output> {
        let end = tokio::time::Instant::now() + after;
        loop {
            let ended = self.docker.exit_status(&self.id).await?.is_some();
            let output = self.output().await?;
            if test(&output) {
                return Ok(output);
            }
            let Output {
                command,
                status,
                stdout,
                stderr,
            } = output;
            if ended {
                return Err(Error::Tool {
                    command,
                    status,
                    stdout,
                    stderr,
                });
            }
            if tokio::time::Instant::now() >= end {
                let action = format!("waiting for output of `{command}`");
                return Err(Error::TimedOut {
                    action,
                    after,
                    detail: stdout + &stderr,
                });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`Error::TimedOut`] with its output.
    pub async fn wait(&self, after: Duration) -> Result<Output> {
        let ended = || async { Ok(self.docker.exit_status(&self.id).await?.is_some()) };
        match wait_until(after, &format!("`{}`", self.command), ended).await {
            Err(Error::TimedOut { action, after, .. }) => {
                let Output { stdout, stderr, .. } = self.output().await?;
                Err(Error::TimedOut {
                    action,
                    after,
                    detail: stdout + &stderr,
                })
            }
            Err(e) => Err(e),
            Ok(()) => self.output().await,
        }
    }

    /// Ends it at once (SIGKILL): a group notices by the session's end only.
    ///
    /// # Errors
    /// [`Error::Docker`] if it has ended already.
    pub async fn kill(&self) -> Result<()> {
        self.docker.kill(&self.id, "SIGKILL").await
    }

    /// Lets it end in order (SIGTERM), as by Ctrl-C: a consumer leaves its group.
    ///
    /// # Errors
    /// [`Error::Docker`] if Docker fails.
    pub async fn stop(&self) -> Result<()> {
        self.docker.stop(&self.id, Duration::from_secs(30)).await
    }

    /// Freezes it.
    ///
    /// # Errors
    /// [`Error::Docker`] if it does not run.
    pub async fn pause(&self) -> Result<()> {
        self.docker.pause(&self.id).await
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// [`Error::Docker`] if it is not paused.
    pub async fn unpause(&self) -> Result<()> {
        self.docker.unpause(&self.id).await
    }
}

impl Drop for JavaClient {
    fn drop(&mut self) {
        let (docker, id) = (self.docker.clone(), std::mem::take(&mut self.id));
        // As for a cluster: a drop cannot wait in the runtime it is in. What fails here is removed
        // with the cluster.
        let _ = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime
                .block_on(docker.remove(id))
                .map_err(std::io::Error::other)
        })
        .join();
    }
}
