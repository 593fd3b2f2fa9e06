use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::process::Command;

use crate::docker::{Docker, wait_until};
use crate::{Error, Listener, Result, probe};

const UP: u8 = 0;
const PAUSED: u8 = 1;
const DOWN: u8 = 2;

/// How long a graceful stop may take before it becomes a kill.
const STOP: Duration = Duration::from_secs(60);
const IPTABLES: Duration = Duration::from_secs(20);

/// One node of a [`Cluster`](crate::Cluster). Its port and its data stay the same from start to
/// start.
#[derive(Debug)]
pub struct Broker {
    docker: Docker,
    id: i32,
    container: String,
    peers: Vec<String>,
    ports: HashMap<Listener, u16>,
    state: AtomicU8,
    start_timeout: Duration,
}

impl Broker {
    pub(crate) fn new(
        docker: Docker,
        id: i32,
        container: String,
        names: &[String],
        ports: HashMap<Listener, u16>,
        start_timeout: Duration,
    ) -> Self {
        let peers = names
            .iter()
            .filter(|name| **name != container)
            .cloned()
            .collect();
        Self {
            docker,
            id,
            container,
            peers,
            ports,
            state: AtomicU8::new(UP),
            start_timeout,
        }
    }

    /// The node id.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.id
    }

    /// The name of its container, for the `docker` command.
    #[must_use]
    pub fn container(&self) -> &str {
        &self.container
    }

    /// Its address for clients without TLS or SASL: `127.0.0.1:PORT`.
    #[must_use]
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.plaintext_port())
    }

    /// Its address for a listener.
    ///
    /// # Errors
    /// [`Error::Usage`] if the cluster was started without it.
    pub fn addr_of(&self, listener: Listener) -> Result<String> {
        let port = self.ports.get(&listener);
        port.map(|port| format!("127.0.0.1:{port}")).ok_or_else(|| {
            Error::Usage(format!(
                "the cluster was started without the listener {listener:?}"
            ))
        })
    }

    fn plaintext_port(&self) -> u16 {
        self.ports
            .get(&Listener::Plaintext)
            .copied()
            .unwrap_or_default()
    }

    /// Whether it runs: neither stopped, killed nor paused by this test.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state.load(Ordering::SeqCst) == UP
    }

    /// Ends it at once (SIGKILL).
    ///
    /// # Errors
    /// [`Error::Docker`] if it is down already.
    pub async fn kill(&self) -> Result<()> {
        if self.state.swap(DOWN, Ordering::SeqCst) == PAUSED {
            // A frozen process gets no signal.
            self.docker.unpause(&self.container).await?;
        }
        self.docker.kill(&self.container, "SIGKILL").await
    }

    /// Lets it shut down in order (SIGTERM): it hands over its leaderships first.
    ///
    /// # Errors
    /// [`Error::Docker`] if Docker fails.
    pub async fn stop(&self) -> Result<()> {
        self.state.store(DOWN, Ordering::SeqCst);
        self.docker.stop(&self.container, STOP).await
    }

    /// Starts it after [`Broker::kill`] or [`Broker::stop`] and waits until it serves. A broker
    /// that was killed may have to wait for the end of its old session (9 s) first.
    ///
    /// # Errors
    /// [`Error::TimedOut`] with the end of its log.
    pub async fn start(&self) -> Result<()> {
        self.start_without_waiting().await?;
        self.wait_until_alive(&[self.id], self.start_timeout).await
    }

    /// As [`Broker::start`], without waiting: for nodes that need each other to come up.
    ///
    /// # Errors
    /// [`Error::Docker`] if Docker fails.
    pub async fn start_without_waiting(&self) -> Result<()> {
        self.docker.start(&self.container).await?;
        self.state.store(UP, Ordering::SeqCst);
        Ok(())
    }

    /// Freezes it: connections stay open, and nothing answers.
    ///
    /// # Errors
    /// [`Error::Docker`] if it is not running.
    pub async fn pause(&self) -> Result<()> {
        self.docker.pause(&self.container).await?;
        self.state.store(PAUSED, Ordering::SeqCst);
        Ok(())
    }

    /// Lets it go on after [`Broker::pause`].
    ///
    /// # Errors
    /// [`Error::Docker`] if it is not paused.
    pub async fn unpause(&self) -> Result<()> {
        self.docker.unpause(&self.container).await?;
        self.state.store(UP, Ordering::SeqCst);
        Ok(())
    }

    /// Waits until it answers and sees itself alive.
    ///
    /// # Errors
    /// [`Error::TimedOut`] with the end of its log.
    pub async fn wait_until_ready(&self) -> Result<()> {
        self.wait_until_alive(&[self.id], self.start_timeout).await
    }

    /// The ids of the brokers that are alive, as it sees it.
    ///
    /// # Errors
    /// [`Error::Docker`] if it does not answer.
    pub async fn live_brokers(&self) -> Result<Vec<i32>> {
        let answer = probe::live_brokers(self.plaintext_port()).await;
        answer.map_err(|e| Error::docker(format!("ask broker {} for live brokers", self.id), e))
    }

    /// The end of its log.
    ///
    /// # Errors
    /// [`Error::Docker`] if Docker fails.
    pub async fn log(&self, lines: usize) -> Result<String> {
        let (out, err) = self
            .docker
            .logs(&self.container, &lines.to_string())
            .await?;
        Ok(out + &err)
    }

    /// Waits until it answers and sees these brokers alive.
    pub(crate) async fn wait_until_alive(&self, ids: &[i32], after: Duration) -> Result<()> {
        let waiting = wait_until(after, "", || async {
            let alive = probe::live_brokers(self.plaintext_port())
                .await
                .unwrap_or_default();
            if ids.iter().all(|id| alive.contains(id)) {
                return Ok(true);
            }
            if self.docker.is_running(&self.container).await? {
                return Ok(false);
            }
            Err(Error::docker(
                format!("start broker {}", self.id),
                format!("it ended\n{}", self.log(30).await?),
            ))
        });
        match waiting.await {
            Err(Error::TimedOut { after, .. }) => Err(Error::TimedOut {
                action: format!("the start of broker {}", self.id),
                after,
                detail: self.log(30).await.unwrap_or_default(),
            }),
            result => result,
        }
    }

    /// Cuts it off from another node, silently and both ways; clients still reach both.
    ///
    /// # Errors
    /// [`Error::Docker`] without root, `nsenter` and `iptables` on the machine of the Docker
    /// daemon.
    pub async fn cut(&self, other: &Self) -> Result<()> {
        self.drop_packets_of(&other.container).await
    }

    /// Cuts it off from all other nodes, silently and both ways; clients still reach it.
    ///
    /// # Errors
    /// As [`Broker::cut`].
    pub async fn cut_peers(&self) -> Result<()> {
        for peer in &self.peers {
            self.drop_packets_of(peer).await?;
        }
        Ok(())
    }

    /// Cuts it off from its clients, silently and both ways; other nodes and the tools still reach
    /// it.
    ///
    /// # Errors
    /// As [`Broker::cut`].
    pub async fn cut_clients(&self) -> Result<()> {
        for listener in self.ports.keys() {
            let port = listener.inner_port().to_string();
            self.iptables(&["-I", "INPUT", "-p", "tcp", "--dport", &port, "-j", "DROP"])
                .await?;
            self.iptables(&["-I", "OUTPUT", "-p", "tcp", "--sport", &port, "-j", "DROP"])
                .await?;
        }
        Ok(())
    }

    /// Ends all cuts made at this broker. Starting it anew does so, too.
    ///
    /// # Errors
    /// As [`Broker::cut`].
    pub async fn heal(&self) -> Result<()> {
        self.iptables(&["-F"]).await
    }

    async fn drop_packets_of(&self, container: &str) -> Result<()> {
        for address in self.docker.addresses(container).await? {
            self.iptables(&["-I", "INPUT", "-s", &address, "-j", "DROP"])
                .await?;
            self.iptables(&["-I", "OUTPUT", "-d", &address, "-j", "DROP"])
                .await?;
        }
        Ok(())
    }

    /// Runs iptables in the container's network namespace; the image needs nothing for it.
    async fn iptables(&self, args: &[&str]) -> Result<()> {
        let action = || format!("run `iptables {}` for broker {}", args.join(" "), self.id);
        let pid = self.docker.pid(&self.container).await?;
        if pid == 0 {
            return Err(Error::docker(action(), "it is down"));
        }
        let run = Command::new("nsenter")
            .args(["-t", &pid.to_string(), "-n", "iptables", "-w"])
            .args(args)
            .kill_on_drop(true)
            .output();
        let output = match tokio::time::timeout(IPTABLES, run).await {
            Ok(output) => output.map_err(|e| Error::docker(action(), e))?,
            Err(_) => {
                return Err(Error::TimedOut {
                    action: action(),
                    after: IPTABLES,
                    detail: String::new(),
                });
            }
        };
        if output.status.success() {
            return Ok(());
        }
        Err(Error::docker(
            action(),
            String::from_utf8_lossy(&output.stderr),
        ))
    }
}
