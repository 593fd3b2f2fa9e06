//! Runs the executables of `examples/` and collects the events that they print.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::support::{LONG, Result};

const SIGTERM: u32 = 15;

/// Where an executable is. They are built first, as a part of the whole workspace so that what
/// `cargo test --workspace --all-features` has built serves.
pub(crate) fn executable(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let mut path = std::env::current_exe().expect("the test knows its own place");
        path.pop(); // target/debug/deps
        path.pop();
        let mut cargo = std::process::Command::new(env!("CARGO"));
        cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        cargo.args([
            "build",
            "-q",
            "--workspace",
            "--all-features",
            "--examples",
            "--locked",
        ]);
        if let Some(target) = path.parent() {
            cargo.arg("--target-dir").arg(target);
        }
        if path.ends_with("release") {
            cargo.arg("--release");
        }
        let status = cargo.status().expect("cargo runs");
        assert!(status.success(), "the examples could not be built");
        path.join("examples")
    });
    folder.join(name)
}

/// A running executable. Killed when it is dropped.
pub(crate) struct Tool {
    name: String,
    child: Child,
    events: Arc<Mutex<Vec<Value>>>,
    out: JoinHandle<()>,
    err: JoinHandle<String>,
}

/// What an executable left.
#[derive(Debug)]
pub(crate) struct Ended {
    /// -1 if a signal ended it.
    pub(crate) status: i32,
    pub(crate) events: Vec<Value>,
    pub(crate) stderr: String,
}

impl Tool {
    pub(crate) fn start(name: &str, args: &[&str]) -> Result<Self> {
        let mut child = Command::new(executable(name))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let events = Arc::new(Mutex::new(Vec::new()));
        let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
        let out = tokio::spawn({
            let events = Arc::clone(&events);
            async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    let event = serde_json::from_str(&line).expect(&line);
                    events
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(event);
                }
            }
        });
        let mut stderr = child.stderr.take().ok_or("no stderr")?;
        let err = tokio::spawn(async move {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text).await;
            String::from_utf8_lossy(&text).into_owned()
        });
        Ok(Self {
            name: name.to_owned(),
            child,
            events,
            out,
            err,
        })
    }

    /// Writes its whole standard input.
    pub(crate) async fn input(&mut self, text: &str) -> Result {
        let mut stdin = self.child.stdin.take().ok_or("no stdin")?;
        stdin.write_all(text.as_bytes()).await?;
        Ok(stdin.shutdown().await?)
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until its events satisfy the test.
    pub(crate) async fn wait_for(&self, what: &str, test: impl Fn(&[Value]) -> bool) -> Result {
        let end = Instant::now() + LONG;
        while !test(&self.events()) {
            if Instant::now() > end || self.out.is_finished() && !test(&self.events()) {
                let events = self.events();
                let last = &events[events.len().saturating_sub(5)..];
                return Err(format!(
                    "{}: no {what} after {} events, last {last:?}",
                    self.name,
                    events.len()
                )
                .into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// `TERM`, `INT`, `STOP` …
    pub(crate) async fn signal(&self, signal: &str) -> Result {
        let id = self.child.id().ok_or("it has ended")?.to_string();
        let status = Command::new("kill")
            .args(["-s", signal, &id])
            .status()
            .await?;
        assert!(status.success(), "kill -s {signal}");
        Ok(())
    }

    /// Waits until it takes SIGTERM: what prints nothing at first would be killed by one that comes
    /// too early.
    pub(crate) async fn takes_signals(&self) -> Result {
        let status = format!("/proc/{}/status", self.child.id().ok_or("it has ended")?);
        let end = Instant::now() + LONG;
        loop {
            let status = std::fs::read_to_string(&status)?;
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = u64::from_str_radix(caught.ok_or("no SigCgt")?.trim(), 16)?;
            if caught >> (SIGTERM - 1) & 1 == 1 {
                return Ok(());
            }
            assert!(Instant::now() < end, "{} takes no signals", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for its end. Standard input stays open meanwhile, unless [`Tool::input`] has closed
    /// it.
    pub(crate) async fn end(mut self, within: Duration) -> Result<Ended> {
        let _stdin = self.child.stdin.take();
        let status = timeout(within, self.child.wait()).await;
        let status = status.map_err(|_| format!("{} lives on", self.name))??;
        self.out.await?;
        let events =
            std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Ended {
            status: status.code().unwrap_or(-1),
            events,
            stderr: self.err.await?,
        })
    }
}

/// Runs an executable to its end.
pub(crate) async fn run(name: &str, args: &[&str]) -> Result<Ended> {
    Tool::start(name, args)?.end(LONG).await
}

/// The events in the output of one of Kafka's own tools.
pub(crate) fn parse(output: &str) -> Vec<Value> {
    output
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}
