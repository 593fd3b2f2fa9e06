//! Starts a cluster around a command, or until it is told to end.
//!
//! ```text
//! kafka-cluster --brokers 3 --version 4.3 -- COMMAND ARGUMENTS...
//! ```
//!
//! `{bootstrap}` in the command's arguments is replaced by the brokers' addresses, which the
//! command also finds in the environment variable `OTTLA_BOOTSTRAP`. The exit status is the
//! command's. Without a command it prints the addresses and runs until it gets Ctrl-C or SIGTERM.

use std::process::ExitCode;

use clap::Parser;
use ottla_testcontainers::{Cluster, Error, Listener};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// Starts Kafka brokers in containers around a command.
#[derive(Parser)]
struct Options {
    /// How many brokers.
    #[arg(long, default_value_t = 1)]
    brokers: u16,
    /// The Kafka version, such as 3.9 or 4.3.1; else OTTLA_KAFKA_VERSION, else 4.3.
    #[arg(long)]
    version: Option<String>,
    /// Fixed ports from this one on instead of free ones.
    #[arg(long)]
    port: Option<u16>,
    /// Adds listeners with TLS.
    #[arg(long)]
    tls: bool,
    /// Adds listeners with SASL.
    #[arg(long)]
    sasl: bool,
    /// A broker setting; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    config: Vec<(String, String)>,
    /// The command and its arguments.
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("not NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options).await {
        Ok(status) => status,
        Err(e) => {
            eprintln!("kafka-cluster: {e}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<ExitCode, Error> {
    let failed = |e: std::io::Error| Error::Usage(format!("cannot wait for signals: {e}"));
    // From here on a signal no longer ends this process, so that the cluster is removed in any
    // case.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let told_to_end = async {
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
        }
    };
    tokio::pin!(told_to_end);

    let mut builder = Cluster::builder().brokers(options.brokers);
    if let Some(version) = &options.version {
        builder = builder.version(version);
    }
    if let Some(port) = options.port {
        builder = builder.first_port(port);
    }
    if options.tls {
        builder = builder.tls();
    }
    if options.sasl {
        builder = builder.sasl();
    }
    for (name, value) in &options.config {
        builder = builder.config(name, value);
    }
    let cluster = tokio::select! {
        cluster = builder.start() => cluster?,
        () = &mut told_to_end => return Ok(ExitCode::FAILURE),
    };
    let bootstrap = cluster.bootstrap();
    eprintln!("kafka-cluster: Kafka {} at {bootstrap}", cluster.version());

    let Some((program, arguments)) = options.command.split_first() else {
        for listener in [
            Listener::Plaintext,
            Listener::Ssl,
            Listener::MutualTls,
            Listener::SaslPlaintext,
            Listener::SaslSsl,
        ] {
            if let Ok(addresses) = cluster.bootstrap_of(listener) {
                println!("{listener:?} {addresses}");
            }
        }
        told_to_end.await;
        return Ok(ExitCode::SUCCESS);
    };
    let mut child = Command::new(program)
        .args(
            arguments
                .iter()
                .map(|argument| argument.replace("{bootstrap}", &bootstrap)),
        )
        .env("OTTLA_BOOTSTRAP", &bootstrap)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| Error::Usage(format!("cannot run {program}: {e}")))?;
    let ended = tokio::select! {
        ended = child.wait() => ended,
        // The command has got the signal, too, if it came from the terminal; dropping kills it.
        () = &mut told_to_end => return Ok(ExitCode::FAILURE),
    };
    let status = ended.map_err(|e| Error::Usage(format!("cannot wait for {program}: {e}")))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
