//! Logs on standard error.

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Logs the `usual`, and what `RUST_LOG` asks for on top: a level (`info`), or levels of modules
/// (`warn,ottla::net=debug`).
pub(crate) fn to_stderr(usual: &str) {
    let mut wanted = usual.to_owned();
    if let Ok(asked) = std::env::var("RUST_LOG")
        && !asked.is_empty()
    {
        match asked.parse::<Targets>() {
            Ok(_) => wanted = format!("{usual},{asked}"),
            Err(error) => eprintln!("RUST_LOG={asked} is ignored: {error}"),
        }
    }
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(lines)
        .with(wanted.parse::<Targets>().unwrap_or_default())
        .init();
}
