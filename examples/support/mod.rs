//! What the test executables share: arguments, settings, events on standard output, signals.
#![allow(dead_code)] // each of them uses a part

mod logs;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::exit;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use ottla::properties::{self, Support};
use ottla::{Client, ErrorKind};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;
pub(crate) type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// How long the end may take after a signal, whatever the brokers do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs an executable: its exit status is what the future returns, 1 after an error.
pub(crate) fn run<O, F>(tool: impl FnOnce(O) -> F) -> !
where
    O: Parser,
    F: Future<Output = Result<i32>>,
{
    let options = arguments();
    // A task that panics must not leave a process that does nothing.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        exit(101);
    }));
    logs::to_stderr("warn");
    let outcome = tokio::runtime::Runtime::new()
        .map_err(Failure::from)
        .and_then(|runtime| {
            let outcome = runtime.block_on(tool(options));
            // A read of standard input may still be waiting.
            runtime.shutdown_background();
            outcome
        });
    exit(outcome.unwrap_or_else(|error| {
        eprintln!("{error}");
        1
    }))
}

/// Usage goes to standard error, because standard output is for events alone.
fn arguments<O: Parser>() -> O {
    if std::env::args_os().len() <= 1 {
        eprintln!("{}", O::command().render_help());
        exit(0);
    }
    O::try_parse().unwrap_or_else(|error| {
        eprint!("{error}");
        exit(i32::from(error.use_stderr()))
    })
}

/// Settings by Kafka's names.
pub(crate) struct Settings(BTreeMap<String, String>);

impl Settings {
    /// Those of a file, without what this client does not have.
    pub(crate) fn read(file: Option<&PathBuf>) -> Result<Self> {
        let Some(file) = file else {
            return Ok(Self(BTreeMap::new()));
        };
        let text = read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let mut settings: BTreeMap<_, _> = properties::parse(&text)?.into_iter().collect();
        settings.retain(|name, value| {
            let why = match properties::support(name) {
                // Java's default, and of no effect on what a client does.
                Support::Available if name == "enable.metrics.push" && value == "true" => {
                    "not available".to_owned()
                }
                Support::Available => return true,
                other => other.to_string(),
            };
            eprintln!("{}: {name} is ignored: {why}", file.display());
            false
        });
        Ok(Self(settings))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Sets what wins over the file.
    pub(crate) fn set(&mut self, name: &str, value: &(impl ToString + ?Sized)) {
        self.0.insert(name.to_owned(), value.to_string());
    }

    /// Sets what the file wins over.
    pub(crate) fn set_default(&mut self, name: &str, value: &(impl ToString + ?Sized)) {
        let value = || value.to_string();
        self.0.entry(name.to_owned()).or_insert_with(value);
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Sets the group protocol. What a file says of the classic one is ignored by the other.
    pub(crate) fn set_group_protocol(&mut self, protocol: &str) {
        let classic = [
            "heartbeat.interval.ms",
            "partition.assignment.strategy",
            "session.timeout.ms",
        ];
        if protocol == "consumer" {
            for name in classic {
                if self.0.remove(name).is_some() {
                    eprintln!("{name} is ignored: it is of --group-protocol classic");
                }
            }
        }
        self.set("group.protocol", protocol);
    }

    /// A client, which connects when it has to.
    pub(crate) fn client(&self) -> Result<Client> {
        Ok(Client::from_properties(&self.0)?.build()?)
    }
}

fn read(file: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&std::fs::read(file)?).into_owned())
}

/// The value of `group.protocol`, whatever its case; `auto` is the library's own.
pub(crate) fn group_protocol(protocol: &str) -> Result<String> {
    let protocol = protocol.to_ascii_lowercase();
    match protocol.as_str() {
        "classic" | "consumer" => Ok(protocol),
        _ => Err(format!("--group-protocol {protocol}: only classic and consumer exist").into()),
    }
}

/// Prints why partitions cannot be read; an error if that needs somebody to act.
pub(crate) fn tell(errors: &[ottla::Error]) -> Result {
    for error in errors {
        if matches!(error.kind(), ErrorKind::Offset | ErrorKind::Authorization) {
            return Err(error.clone().into());
        }
        eprintln!("{error}");
    }
    Ok(())
}

pub(crate) fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// Prints an event: one whole line, at once.
pub(crate) fn emit(name: &str, mut fields: Value) -> io::Result<()> {
    fields["timestamp"] = json!(now_millis());
    fields["name"] = json!(name);
    let line = format!("{fields}\n");
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}

/// SIGTERM and SIGINT: the first asks for an end in order, a later one ends the process.
#[derive(Clone)]
pub(crate) struct Signals(watch::Receiver<Option<i32>>);

impl Signals {
    /// Takes the signals from now on; `first` is called at the first.
    pub(crate) fn take(first: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let (tell, told) = watch::channel(None);
        tokio::spawn(async move {
            let mut next = async || {
                tokio::select! {
                    _ = terminate.recv() => 143,
                    _ = interrupt.recv() => 130,
                }
            };
            let status = next().await;
            first();
            tell.send_replace(Some(status));
            // What comes with the first is the same wish: `timeout` and shells signal a process and
            // its group.
            let since = Instant::now();
            loop {
                let status = next().await;
                if since.elapsed() > Duration::from_secs(1) {
                    exit(status);
                }
            }
        });
        Ok(Self(told))
    }

    /// Waits for the first.
    pub(crate) async fn first(&self) {
        // The sender lives as long as the process.
        let _ = self.0.clone().wait_for(Option::is_some).await;
    }

    /// Waits for so long after the first.
    pub(crate) async fn overdue(&self, after: Duration) {
        self.first().await;
        tokio::time::sleep(after).await;
    }

    /// The exit status that a signal asked for.
    pub(crate) fn status(&self) -> Option<i32> {
        *self.0.borrow()
    }
}
