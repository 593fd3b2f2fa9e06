//! The mock cluster against a real broker: the same conversations, the same answers.

mod by_id;
mod classic;
mod groups;
mod logs;
mod patterns;
mod scenarios;
mod topics;
mod wire;

use ottla::mock::MockCluster;
use ottla_testcontainers::Cluster;

use crate::support::{Result, unique};

/// What the mock is known to do otherwise would stand here: scenario and reason.
const DIFFERENT: &[(&str, &str)] = &[];

#[tokio::test]
async fn the_mock_answers_as_kafka_4_1_does() -> Result {
    compare("4.1", &[scenarios::NAMES, scenarios::CLASSIC]).await
}

#[tokio::test]
async fn the_mock_answers_as_kafka_4_3_does() -> Result {
    compare(
        "4.3",
        &[scenarios::NAMES, scenarios::CLASSIC, scenarios::NEWER],
    )
    .await
}

#[tokio::test]
async fn the_mock_answers_members_of_classic_groups_as_kafka_3_9_does() -> Result {
    compare("3.9", &[scenarios::CLASSIC]).await
}

async fn compare(version: &str, scenarios: &[&[&str]]) -> Result {
    let real = Cluster::builder()
        .version(version)
        .config("auto.create.topics.enable", "false")
        .config("group.initial.rebalance.delay.ms", "0")
        // Since 4.3 brokers gather changes of a group for a while before they assign, beside the
        // conversation, so that epochs depend on time.
        .config("group.consumer.assignment.interval.ms", "0")
        .config("group.consumer.assignor.offload.enable", "false")
        .start()
        .await?;
    let mock = MockCluster::builder().auto_create(false).start().await?;
    let mut differences = String::new();
    for name in scenarios.iter().copied().flatten() {
        let prefix = unique("fidelity");
        let mut by_real = scenarios::run(name, real.bootstrap().as_ref(), &prefix).await?;
        let mut by_mock = scenarios::run(name, &mock.bootstrap(), &prefix).await?;
        if by_real != by_mock {
            // A broker's own timing shows in few answers: what differs counts if it does so twice.
            println!("{version} {name}: once more, for broker and mock differ:");
            print!("{}", differing(name, &by_real, &by_mock));
            let prefix = unique("fidelity");
            by_real = scenarios::run(name, real.bootstrap().as_ref(), &prefix).await?;
            by_mock = scenarios::run(name, &mock.bootstrap(), &prefix).await?;
        }
        let expected = DIFFERENT.iter().any(|(different, _)| different == name);
        println!(
            "{version} {name}: broker {} lines, mock {} lines, {}",
            by_real.lines().count(),
            by_mock.lines().count(),
            if by_real == by_mock {
                "same"
            } else {
                "DIFFERENT"
            }
        );
        if (by_real == by_mock) == expected {
            differences.push_str(&differing(name, &by_real, &by_mock));
        }
    }
    assert!(differences.is_empty(), "\n{differences}");
    Ok(())
}

fn differing(name: &str, real: &str, mock: &str) -> String {
    let lengths = (real.lines().count(), mock.lines().count());
    let mut out = format!("{name}: {lengths:?} lines\n");
    let lines = real.lines().zip(mock.lines());
    for (real, mock) in lines.filter(|(real, mock)| real != mock) {
        out.push_str(&format!("  broker  {real}\n  mock    {mock}\n"));
    }
    out
}
