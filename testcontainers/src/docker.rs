//! The few Docker calls that `testcontainers` does not offer, each with a time-out.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt};
use testcontainers::bollard::models::NetworkCreateRequest;
use testcontainers::bollard::query_parameters::{
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
};
use testcontainers::bollard::{self, Docker as Bollard};
use testcontainers::core::client::docker_client_instance;

use crate::{Error, Result};

/// Set on everything made here; the value is the id of the test process.
pub(crate) const LABEL_PROCESS: &str = "ottla.testcontainers.process";
/// The cluster a container or network belongs to.
pub(crate) const LABEL_CLUSTER: &str = "ottla.testcontainers.cluster";
/// The run of `testcontainers/run` it belongs to, which removes what is left of it at its end.
pub(crate) const LABEL_RUN: &str = "ottla.testcontainers.run";

/// One call to the daemon may take this long.
const CALL: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub(crate) struct Docker(pub(crate) Bollard);

impl Docker {
    /// Connects, and makes sure that a daemon answers.
    pub(crate) async fn connect() -> Result<Self> {
        let client = docker_client_instance()
            .await
            .map_err(|e| Error::NoDocker(e.to_string()))?;
        match tokio::time::timeout(CALL, client.ping()).await {
            Ok(Ok(_)) => Ok(Self(client)),
            Ok(Err(e)) => Err(Error::NoDocker(e.to_string())),
            Err(_) => Err(Error::NoDocker(format!("no answer in {CALL:?}"))),
        }
    }

    pub(crate) async fn has_image(&self, image: &str) -> bool {
        call("look for an image", self.0.inspect_image(image))
            .await
            .is_ok()
    }

    pub(crate) async fn create_network(
        &self,
        name: &str,
        labels: HashMap<String, String>,
    ) -> Result<()> {
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            labels: Some(labels),
            ..Default::default()
        };
        call("create a network", self.0.create_network(request))
            .await
            .map(drop)
    }

    pub(crate) async fn start(&self, container: &str) -> Result<()> {
        call(
            "start a container",
            self.0
                .start_container(container, None::<StartContainerOptions>),
        )
        .await
    }

    /// Ends the container by SIGTERM, or by SIGKILL after `patience`.
    pub(crate) async fn stop(&self, container: &str, patience: Duration) -> Result<()> {
        let seconds = i32::try_from(patience.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let stop = self.0.stop_container(container, Some(options));
        call_within(CALL + patience, "stop a container", stop).await
    }

    /// Sends the signal and waits until the container is down.
    pub(crate) async fn kill(&self, container: &str, signal: &str) -> Result<()> {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        call(
            "kill a container",
            self.0.kill_container(container, Some(options)),
        )
        .await?;
        wait_until(CALL, "a killed container", || async {
            Ok(!self.is_running(container).await?)
        })
        .await
    }

    /// Freezes the container. On cgroup v1 a kernel may fail to stop all threads of a busy process
    /// in time; runc then lets them go on and says so ("unable to freeze"), and it is asked again.
    pub(crate) async fn pause(&self, container: &str) -> Result<()> {
        let action = "pause a container";
        let end = tokio::time::Instant::now() + CALL;
        loop {
            match call(action, self.0.pause_container(container)).await {
                Err(Error::Docker { why, .. })
                    if may_freeze_later(&why) && tokio::time::Instant::now() < end =>
                {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                result => return result,
            }
        }
    }

    pub(crate) async fn unpause(&self, container: &str) -> Result<()> {
        call("unpause a container", self.0.unpause_container(container)).await
    }

    pub(crate) async fn is_running(&self, container: &str) -> Result<bool> {
        let state = call(
            "inspect a container",
            self.0.inspect_container(container, None),
        )
        .await?
        .state;
        Ok(state.and_then(|s| s.running).unwrap_or_default())
    }

    /// The process id, 0 if the container is down.
    pub(crate) async fn pid(&self, container: &str) -> Result<i64> {
        let state = call(
            "inspect a container",
            self.0.inspect_container(container, None),
        )
        .await?
        .state;
        Ok(state.and_then(|s| s.pid).unwrap_or_default())
    }

    /// The exit status, `None` while it runs.
    pub(crate) async fn exit_status(&self, container: &str) -> Result<Option<i64>> {
        let state = call(
            "inspect a container",
            self.0.inspect_container(container, None),
        )
        .await?
        .state;
        Ok(state
            .filter(|s| !s.running.unwrap_or_default())
            .and_then(|s| s.exit_code))
    }

    /// The container's address in each of its networks. It may change when the container is started
    /// again.
    pub(crate) async fn addresses(&self, container: &str) -> Result<Vec<String>> {
        let settings = call(
            "inspect a container",
            self.0.inspect_container(container, None),
        )
        .await?
        .network_settings;
        let networks = settings.and_then(|s| s.networks).unwrap_or_default();
        Ok(networks
            .into_values()
            .filter_map(|n| n.ip_address)
            .filter(|ip| !ip.is_empty())
            .collect())
    }

    /// Standard output and standard error of the container, apart; `tail` is a number of lines or
    /// "all".
    pub(crate) async fn logs(&self, container: &str, tail: &str) -> Result<(String, String)> {
        let options = LogsOptionsBuilder::new()
            .stdout(true)
            .stderr(true)
            .tail(tail)
            .build();
        let collect = self.0.logs(container, Some(options)).try_fold(
            (Vec::new(), Vec::new()),
            |(mut out, mut err), part| async move {
                match part {
                    bollard::container::LogOutput::StdErr { message } => {
                        err.extend_from_slice(&message)
                    }
                    other => out.extend_from_slice(&other.into_bytes()),
                }
                Ok((out, err))
            },
        );
        let (out, err) = call("read a container's log", collect).await?;
        Ok((
            String::from_utf8_lossy(&out).into_owned(),
            String::from_utf8_lossy(&err).into_owned(),
        ))
    }

    /// Removes the containers and the network of a cluster, whatever state they are in.
    pub(crate) async fn remove_cluster(&self, cluster: &str, network: &str) -> Result<()> {
        let filters = HashMap::from([("label", vec![format!("{LABEL_CLUSTER}={cluster}")])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let containers = call("list containers", self.0.list_containers(Some(options))).await?;
        let removals = containers
            .into_iter()
            .filter_map(|c| c.id)
            .map(|id| self.remove(id));
        join_all(removals)
            .await
            .into_iter()
            .collect::<Result<()>>()?;
        call("remove a network", self.0.remove_network(network)).await
    }

    pub(crate) async fn remove(&self, container: String) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        call(
            "remove a container",
            self.0.remove_container(&container, Some(options)),
        )
        .await
    }

    /// Runs a command in a container with this standard input, to its end: its output and exit
    /// status.
    pub(crate) async fn exec(
        &self,
        container: &str,
        command: &[String],
        stdin: &[u8],
    ) -> Result<(Vec<u8>, Vec<u8>, i64)> {
        use testcontainers::bollard::exec::{
            CreateExecOptions, StartExecOptions, StartExecResults,
        };
        use tokio::io::AsyncWriteExt;

        let run = |e| Error::docker(format!("run {command:?} in a container"), e);
        let options = CreateExecOptions {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.to_vec()),
            ..Default::default()
        };
        let exec = self
            .0
            .create_exec(container, options)
            .await
            .map_err(run)?
            .id;
        let started = self
            .0
            .start_exec(&exec, Some(StartExecOptions::default()))
            .await
            .map_err(run)?;
        let StartExecResults::Attached {
            mut output,
            mut input,
        } = started
        else {
            return Err(Error::docker(
                "attach to a command in a container",
                "it was detached",
            ));
        };
        let feed = async {
            // A command that ends without reading all its input is no failure: its status tells.
            let _ = input.write_all(stdin).await;
            let _ = input.shutdown().await;
        };
        let read = async {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            while let Some(part) = output.next().await {
                match part.map_err(run)? {
                    bollard::container::LogOutput::StdErr { message } => {
                        err.extend_from_slice(&message)
                    }
                    other => out.extend_from_slice(&other.into_bytes()),
                }
            }
            Ok((out, err))
        };
        let ((), read) = tokio::join!(feed, read);
        let (out, err) = read?;
        let status = self.0.inspect_exec(&exec).await.map_err(run)?.exit_code;
        Ok((out, err, status.unwrap_or(-1)))
    }
}

fn may_freeze_later(why: &str) -> bool {
    why.contains("unable to freeze")
}

async fn call<T>(
    action: &str,
    future: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T> {
    call_within(CALL, action, future).await
}

async fn call_within<T>(
    after: Duration,
    action: &str,
    future: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T> {
    match tokio::time::timeout(after, future).await {
        Ok(result) => result.map_err(|e| Error::docker(action, e)),
        Err(_) => Err(Error::TimedOut {
            action: action.to_owned(),
            after,
            detail: String::new(),
        }),
    }
}

/// Asks again and again until the answer is yes.
pub(crate) async fn wait_until<F, A>(after: Duration, action: &str, mut ask: F) -> Result<()>
where
    F: FnMut() -> A,
    A: Future<Output = Result<bool>>,
{
    let asking = async {
        while !ask().await? {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    };
    match tokio::time::timeout(after, asking).await {
        Ok(result) => result,
        Err(_) => Err(Error::TimedOut {
            action: action.to_owned(),
            after,
            detail: String::new(),
        }),
    }
}
