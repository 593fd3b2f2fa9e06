//! Runs the mock cluster as a small server for any Kafka tool, until Ctrl-C.
//!
//! ```text
//! cargo run --release --example mock_server -- --port 9092 --brokers 3 --topic orders:6
//! ```

#[path = "support/logs.rs"]
mod logs;

use std::error::Error;

use clap::Parser;
use ottla::mock::MockCluster;

#[derive(Parser)]
#[command(about = "A Kafka cluster in one small process, with everything in memory")]
struct Options {
    #[arg(long, default_value_t = 1)]
    brokers: u8,
    /// The first broker's port; the others have the next ones
    #[arg(long, default_value_t = 9092)]
    port: u16,
    /// A topic that is there from the start; may be given several times
    #[arg(long = "topic", value_name = "NAME:PARTITIONS", value_parser = topic)]
    topics: Vec<(String, u32)>,
    /// Do not create topics that somebody asks for
    #[arg(long)]
    no_auto_create: bool,
}

fn topic(text: &str) -> Result<(String, u32), String> {
    let (name, partitions) = text.rsplit_once(':').ok_or("write NAME:PARTITIONS")?;
    let partitions = partitions
        .parse()
        .map_err(|error| format!("{partitions}: {error}"))?;
    Ok((name.to_owned(), partitions))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    logs::to_stderr("ottla::mock=warn");
    let options = Options::parse();
    let mut builder = MockCluster::builder()
        .brokers(options.brokers)
        .port(options.port)
        .auto_create(!options.no_auto_create);
    for (name, partitions) in options.topics {
        builder = builder.topic(name, partitions);
    }
    let mock = builder.start().await?;
    println!("{}", mock.bootstrap());
    tokio::signal::ctrl_c().await?;
    println!("{} requests served", mock.requests());
    Ok(())
}
