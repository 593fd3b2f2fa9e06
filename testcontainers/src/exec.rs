use std::time::Duration;

use crate::security::INNER_PORT;
use crate::{Broker, Cluster, Error, Result};

/// Tools that have no `--bootstrap-server`.
const WITHOUT_BOOTSTRAP: [&str; 4] = [
    "kafka-dump-log.sh",
    "kafka-storage.sh",
    "kafka-run-class.sh",
    "kafka-producer-perf-test.sh",
];
/// What the tool may need to end after it was killed.
const GRACE: Duration = Duration::from_secs(10);

/// What a tool printed, and its exit status.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Output {
    /// The tool and its arguments.
    pub command: String,
    /// The exit status; 137 and 143 if it was killed.
    pub status: i64,
    /// Standard output.
    pub stdout: String,
    /// Standard error: warnings of the tool's log are there, too.
    pub stderr: String,
}

impl Output {
    /// The output, if the tool ended with status 0.
    ///
    /// # Errors
    /// [`Error::Tool`] otherwise.
    pub fn success(self) -> Result<Self> {
        let Self {
            command,
            status,
            stdout,
            stderr,
        } = self;
        if status == 0 {
            return Ok(Self {
                command,
                status,
                stdout,
                stderr,
            });
        }
        Err(Error::Tool {
            command,
            status,
            stdout,
            stderr,
        })
    }
}

/// A tool to be run inside a broker's container; made by [`Cluster::tool_command`].
#[derive(Debug)]
#[must_use = "it runs when .run() is called"]
pub struct ToolCommand<'a> {
    cluster: &'a Cluster,
    tool: String,
    args: Vec<String>,
    stdin: Vec<u8>,
    timeout: Duration,
    broker: Option<i32>,
}

impl<'a> ToolCommand<'a> {
    pub(crate) fn new(cluster: &'a Cluster, tool: &str) -> Self {
        Self {
            cluster,
            tool: tool.to_owned(),
            args: Vec::new(),
            stdin: Vec::new(),
            timeout: Duration::from_secs(60),
            broker: None,
        }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// What the tool reads on its standard input.
    pub fn stdin(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.stdin = input.into();
        self
    }

    /// The tool is killed after this time, 60 s if not called.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs it in this broker's container. The first running broker's if not called.
    pub fn on(mut self, broker: i32) -> Self {
        self.broker = Some(broker);
        self
    }

    /// Runs the tool to its end.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if it does not end; its exit status is no error here
    /// ([`Output::success`]).
    pub async fn run(self) -> Result<Output> {
        let broker = match self.broker {
            Some(id) => self.cluster.broker(id),
            None => self
                .cluster
                .brokers()
                .iter()
                .find(|broker| broker.is_up())
                .ok_or_else(|| Error::Usage("no broker is up to run a tool in".to_owned()))?,
        };
        let inner = format!("localhost:{INNER_PORT}");
        let tool = command_line(&self.tool, &self.args, &inner);
        let shown = tool.join(" ");
        // The first time-out ends the tool, the second one ends waiting for it.
        let seconds = self.timeout.as_secs().max(1).to_string();
        let mut command: Vec<String> = ["timeout", "-s", "KILL", &seconds]
            .map(str::to_owned)
            .to_vec();
        command.extend(tool);
        let run = self.run_in(broker, &command);
        let (after, action) = (self.timeout, format!("`{shown}`"));
        let timed_out = |detail| Error::TimedOut {
            action,
            after,
            detail,
        };
        let Ok(result) = tokio::time::timeout(self.timeout + GRACE, run).await else {
            return Err(timed_out(String::new()));
        };
        let (stdout, stderr, status) = result?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if status == 137 {
            return Err(timed_out(text(stdout) + &text(stderr)));
        }
        Ok(Output {
            command: shown,
            status,
            stdout: text(stdout),
            stderr: text(stderr),
        })
    }

    async fn run_in(&self, broker: &Broker, command: &[String]) -> Result<(Vec<u8>, Vec<u8>, i64)> {
        self.cluster
            .docker
            .exec(broker.container(), command, &self.stdin)
            .await
    }
}

/// The tool's path in the image (both images have it), its arguments, and where to connect.
pub(crate) fn command_line(tool: &str, args: &[String], bootstrap: &str) -> Vec<String> {
    let mut command = vec![format!("/opt/kafka/bin/{tool}")];
    let has_one = args.iter().any(|arg| arg.starts_with("--bootstrap-server"));
    if !has_one && !WITHOUT_BOOTSTRAP.contains(&tool) {
        command.extend(["--bootstrap-server".to_owned(), bootstrap.to_owned()]);
    }
    command.extend(args.iter().cloned());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_added_where_it_is_wanted() {
        let args = ["--list".to_owned()];
        let line = command_line("kafka-topics.sh", &args, "b:1");
        assert_eq!(
            line,
            [
                "/opt/kafka/bin/kafka-topics.sh",
                "--bootstrap-server",
                "b:1",
                "--list"
            ]
        );
        assert_eq!(command_line("kafka-dump-log.sh", &args, "b:1").len(), 2);
        let own = ["--bootstrap-server=other:1".to_owned()];
        assert_eq!(command_line("kafka-topics.sh", &own, "b:1").len(), 2);
    }
}
