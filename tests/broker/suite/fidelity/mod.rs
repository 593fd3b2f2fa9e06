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
        let by_real = scenarios::run(name, real.bootstrap().as_ref(), &prefix).await?;
        let by_mock = scenarios::run(name, &mock.bootstrap(), &prefix).await?;
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
            let lengths = (by_real.lines().count(), by_mock.lines().count());
            differences.push_str(&format!("{name}: {lengths:?} lines\n"));
            for (real, mock) in by_real
                .lines()
                .zip(by_mock.lines())
                .filter(|(real, mock)| real != mock)
            {
                differences.push_str(&format!("{name}:\n  broker  {real}\n  mock    {mock}\n"));
            }
        }
    }
    assert!(differences.is_empty(), "\n{differences}");
    Ok(())
}
