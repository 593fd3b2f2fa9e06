//! Bad input, and signals in every phase.

use std::net::TcpListener;
use std::time::Duration;

use super::process::{Tool, executable, run};
use super::promises::{self, consumed, name, owned};
use crate::support::{LONG, Result, one, unique};

/// Nothing listens there.
const NOBODY: &str = "127.0.0.1:1";
/// What an end without a broker may take.
const BOUND: Duration = Duration::from_secs(30);

fn file(name: &str, text: &str) -> Result<String> {
    let path = std::env::temp_dir().join(format!("ottla-{}-{name}", std::process::id()));
    std::fs::write(&path, text)?;
    Ok(path.to_string_lossy().into_owned())
}

#[tokio::test]
async fn without_arguments_there_is_usage() -> Result {
    for tool in [
        "verifiable-producer",
        "verifiable-consumer",
        "lag",
        "roundtrip",
    ] {
        let ended = run(tool, &[]).await?;
        assert_eq!((ended.status, ended.events.len()), (0, 0));
        assert!(ended.stderr.contains("Usage"), "{}", ended.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn bad_input_is_refused_before_anything_is_printed() -> Result {
    let bad = file("bad", "linger.ms=soon")?;
    let fine = file("fine", "linger.ms=7\ncolour=blue\nkey.serializer=x")?;
    let contradiction = file("contradiction", "enable.idempotence=true\nretries=0")?;
    let server = ["--bootstrap-server", NOBODY, "--topic", "t"];
    let group = [&server[..], &["--group-id", "g"]].concat();
    let member = [&group[..], &["--group-protocol", "consumer"]].concat();
    let cases: &[(&str, &[&str], &[&str], &str)] = &[
        ("verifiable-producer", &server, &["--colour"], "--colour"),
        (
            "verifiable-producer",
            &["--topic", "t"],
            &[],
            "--bootstrap-server",
        ),
        ("verifiable-producer", &server, &["--acks", "2"], "acks"),
        (
            "verifiable-producer",
            &server,
            &["--max-messages", "many"],
            "max-messages",
        ),
        (
            "verifiable-producer",
            &server,
            &["--command-config", "/no/such/file"],
            "/no/such/file",
        ),
        (
            "verifiable-producer",
            &server,
            &["--command-config", &bad],
            "linger.ms",
        ),
        (
            "verifiable-producer",
            &server,
            &["--command-config", &contradiction],
            "retries",
        ),
        (
            "verifiable-producer",
            &server,
            &["--command-config", &fine, "--producer.config", &fine],
            "producer.config",
        ),
        (
            "verifiable-producer",
            &["--bootstrap-server", "here", "--topic", "t"],
            &[],
            "here",
        ),
        (
            "verifiable-consumer",
            &group,
            &["--group-remote-assignor", "uniform"],
            "group-remote-assignor",
        ),
        (
            "verifiable-consumer",
            &group,
            &["--assignment-strategy", "org.example.Fair"],
            "org.example.Fair",
        ),
        (
            "verifiable-consumer",
            &group,
            &["--session-timeout", "soon"],
            "session-timeout",
        ),
        (
            "verifiable-consumer",
            &group,
            &["--group-protocol", "modern"],
            "modern",
        ),
        (
            "verifiable-consumer",
            &member,
            &["--session-timeout", "6000"],
            "session-timeout",
        ),
        (
            "verifiable-consumer",
            &member,
            &["--reset-policy", "middle"],
            "middle",
        ),
        (
            "verifiable-consumer",
            &member,
            &["--consumer.config", &bad],
            "linger.ms",
        ),
        ("lag", &group, &["--group-protocol", "modern"], "modern"),
        ("lag", &member, &["--interval-ms=0"], "interval-ms"),
        (
            "roundtrip",
            &["produce", "--topic", "t"],
            &[],
            "--bootstrap-server",
        ),
        (
            "roundtrip",
            &["consume", "--isolation-level=dirty"],
            &server,
            "isolation-level",
        ),
    ];
    for (tool, args, more, about) in cases {
        let args = [*args, *more].concat();
        let ended = run(tool, &args).await?;
        assert_eq!(ended.status, 1, "{tool} {args:?}: {}", ended.stderr);
        assert!(ended.events.is_empty(), "{:?}", ended.events);
        assert!(
            ended.stderr.contains(about),
            "{tool} {args:?}: {}",
            ended.stderr
        );
    }
    // What is not known is told and ignored.
    let args = [
        &server[..],
        &["--command-config", &fine, "--max-messages", "0"],
    ]
    .concat();
    let ended = run("verifiable-producer", &args).await?;
    assert_eq!(ended.status, 0);
    assert!(
        ended.stderr.contains("colour") && ended.stderr.contains("key.serializer"),
        "{}",
        ended.stderr
    );
    Ok(())
}

#[tokio::test]
async fn without_a_broker_signals_end_everything_in_time() -> Result {
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let silent = silent.local_addr()?.to_string();
    let mut tools = Vec::new();
    for server in [NOBODY, &silent, "no.such.host.invalid:9092"] {
        for (signal, status) in [("TERM", 143), ("INT", 130)] {
            let common = ["--bootstrap-server", server, "--topic", "t"];
            let member = [
                &common[..],
                &["--group-id", "g", "--group-protocol", "consumer"],
            ]
            .concat();
            tools.push((
                Tool::start("verifiable-producer", &common)?,
                signal,
                status,
                "startup_complete",
            ));
            tools.push((
                Tool::start("verifiable-consumer", &member)?,
                signal,
                status,
                "startup_complete",
            ));
            tools.push((
                Tool::start("lag", &member)?,
                signal,
                status,
                "startup_complete",
            ));
        }
    }
    for (tool, signal, ..) in &tools {
        tool.wait_for("start", |events| !events.is_empty()).await?;
        tool.signal(signal).await?;
    }
    for (tool, _, status, first) in tools {
        let ended = tool.end(BOUND).await?;
        assert_eq!(ended.status, status, "{ended:?}");
        assert_eq!(name(&ended.events[0]), first);
        assert!(is_over(&ended.events), "{ended:?}");
    }
    let produce = ["produce", "--bootstrap-server", NOBODY, "--topic", "t"];
    let waiting = Tool::start("roundtrip", &produce)?;
    waiting.takes_signals().await?;
    waiting.signal("TERM").await?;
    assert_eq!(waiting.end(BOUND).await?.status, 143);
    Ok(())
}

fn is_over(events: &[serde_json::Value]) -> bool {
    events
        .iter()
        .any(|event| name(event) == "shutdown_complete")
}

#[tokio::test]
async fn signals_end_everything_in_order() -> Result {
    let (cluster, topic, group) = (one().await?, unique("signals"), unique("group"));
    let bootstrap = cluster.bootstrap();
    cluster.create_topic(&topic, 3, 1).await?;
    let common = ["--bootstrap-server", &bootstrap, "--topic", &topic];
    let member = [
        &common[..],
        &["--group-id", &group, "--group-protocol", "consumer"],
    ]
    .concat();
    for (signal, status) in [("TERM", 143), ("INT", 130)] {
        let producer = Tool::start(
            "verifiable-producer",
            &[&common[..], &["--throughput", "2000"]].concat(),
        )?;
        producer
            .wait_for("records", |events| events.len() > 300)
            .await?;
        let consumer = Tool::start("verifiable-consumer", &member)?;
        consumer
            .wait_for("records", |events| consumed(events) > 100)
            .await?;
        // Stopped for a while, it goes on.
        consumer.signal("STOP").await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        consumer.signal("CONT").await?;
        consumer.signal(signal).await?;
        let consumer = consumer.end(BOUND).await?;
        assert_eq!(consumer.status, status, "{}", consumer.stderr);
        promises::consumer(&consumer.events);
        promises::ended(&consumer.events);
        producer.signal(signal).await?;
        let producer = producer.end(BOUND).await?;
        assert_eq!(producer.status, status, "{}", producer.stderr);
        let acked = promises::producer(&producer.events);
        assert_eq!(acked.len() + 3, producer.events.len(), "no record failed");
        // The member left: the next one need not wait for it.
        let next = Tool::start("verifiable-consumer", &member)?;
        next.wait_for("assignment", |events| owned(events) == 3)
            .await?;
        next.signal(signal).await?;
        assert_eq!(next.end(BOUND).await?.status, status);
    }
    Ok(())
}

/// Who cannot report does not live on.
#[tokio::test]
async fn nobody_writes_to_a_closed_pipe_for_long() -> Result {
    let (cluster, topic) = (one().await?, unique("closed"));
    let bootstrap = cluster.bootstrap();
    cluster.create_topic(&topic, 1, 1).await?;
    let common = ["--bootstrap-server", &bootstrap, "--topic", &topic];
    let member = [
        &common[..],
        &["--group-id", "closed", "--group-protocol", "consumer"],
    ]
    .concat();
    let tools = [
        ("verifiable-producer", &common[..]),
        ("verifiable-consumer", &member),
        ("lag", &member),
    ];
    for (tool, args) in tools {
        let mut child = tokio::process::Command::new(executable(tool))
            .args(args)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        drop(child.stdout.take());
        let ended = tokio::time::timeout(BOUND, child.wait_with_output()).await??;
        assert_eq!(ended.status.code(), Some(1), "{tool}");
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    Ok(())
}

#[tokio::test]
async fn unknown_topics_and_failures_do_not_stop_the_tools() -> Result {
    let (cluster, topic, group) = (one().await?, unique("later"), unique("group"));
    let bootstrap = cluster.bootstrap();
    let block = file("block", "max.block.ms=300\nmax.request.size=100")?;
    let common = ["--bootstrap-server", &bootstrap, "--topic", &topic];
    let fails = [
        &common[..],
        &["--max-messages", "3", "--command-config", &block],
    ]
    .concat();
    let failed = run("verifiable-producer", &fails).await?;
    assert_eq!(failed.status, 0);
    assert_eq!(promises::producer(&failed.events).len(), 0);
    assert_eq!(failed.events.len(), 6);
    let member = [
        &common[..],
        &["--group-id", &group, "--group-protocol", "consumer"],
    ]
    .concat();
    let consumer = Tool::start("verifiable-consumer", &member)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.create_topic(&topic, 2, 1).await?;
    run(
        "verifiable-producer",
        &[&common[..], &["--max-messages", "20"]].concat(),
    )
    .await?;
    consumer
        .wait_for("records", |events| consumed(events) == 20)
        .await?;
    consumer.signal("TERM").await?;
    promises::consumer(&consumer.end(LONG).await?.events);
    // Without a start there is no going on.
    let none = [
        &common[..],
        &[
            "--group-id",
            "none",
            "--group-protocol",
            "consumer",
            "--reset-policy",
            "none",
        ],
    ]
    .concat();
    let none = run("verifiable-consumer", &none).await?;
    assert_eq!(none.status, 1, "{}", none.stderr);
    promises::ended(&none.events);
    Ok(())
}
