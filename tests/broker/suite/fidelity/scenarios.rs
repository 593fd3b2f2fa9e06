//! The list: each scenario is a conversation, and what is compared is written down as text.

use super::wire::{Result, Wire};
use super::{by_id, classic, groups, logs, patterns, topics};

pub(crate) const NAMES: &[&str] = &[
    "topics",
    "metadata",
    "sequences",
    "refused batches",
    "produce by id",
    "offsets by time",
    "epochs",
    "fetch",
    "commits",
    "heartbeats",
    "static members",
    "patterns",
    "conversions",
];

/// Those that brokers before 4.0 know as well.
pub(crate) const CLASSIC: &[&str] = &["classic member", "classic members", "classic statics"];

/// Those that need versions which 4.1 does not offer yet.
pub(crate) const NEWER: &[&str] = &["commits by id"];

/// Runs a scenario with names that begin so; what was answered.
pub(crate) async fn run(name: &str, bootstrap: &str, prefix: &str) -> Result<String> {
    let mut wire = Wire::connect(bootstrap).await?;
    let topic = format!("{prefix}-{}", name.replace(' ', "-"));
    match name {
        "topics" => topics::topics(&mut wire, &topic).await,
        "metadata" => topics::metadata(&mut wire, &topic).await,
        "sequences" => logs::sequences(&mut wire, &topic).await,
        "produce by id" => logs::produce_by_id(&mut wire, &topic).await,
        "refused batches" => logs::refused(&mut wire, &topic).await,
        "offsets by time" => logs::by_time(&mut wire, &topic).await,
        "epochs" => logs::epochs(&mut wire, &topic).await,
        "fetch" => logs::fetch(&mut wire, &topic).await,
        "commits" => groups::commits(&mut wire, &topic).await,
        "heartbeats" => groups::heartbeats(&mut wire, &topic).await,
        "static members" => groups::statics(&mut wire, &topic).await,
        "patterns" => patterns::patterns(&mut wire, &topic).await,
        "conversions" => classic::conversions(bootstrap, &topic).await,
        "classic member" => classic::alone(bootstrap, &topic).await,
        "classic members" => classic::together(bootstrap, &topic).await,
        "classic statics" => classic::statics(bootstrap, &topic).await,
        "commits by id" => by_id::commits(&mut wire, &topic).await,
        other => Err(format!("no scenario {other}").into()),
    }
}
