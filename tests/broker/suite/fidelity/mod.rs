//! The mock cluster against a real broker: the same conversations, the same answers.

mod scenarios;
mod wire;

use ottla::mock::MockCluster;
use ottla_testcontainers::Cluster;

use crate::support::{Result, unique};

/// What the mock is known to do otherwise would stand here: scenario and reason.
const DIFFERENT: &[(&str, &str)] = &[];

#[tokio::test]
async fn the_mock_answers_as_a_broker_does() -> Result {
    // The release whose protocol the mock speaks. Since 4.3 brokers gather changes of a group for a
    // while before they assign, so that its epochs are others.
    let real = Cluster::builder()
        .version("4.1")
        .config("auto.create.topics.enable", "false")
        .start()
        .await?;
    let mock = MockCluster::builder().auto_create(false).start().await?;
    let mut differences = String::new();
    for name in scenarios::NAMES {
        let prefix = unique("fidelity");
        let by_real = scenarios::run(name, real.bootstrap().as_ref(), &prefix).await?;
        let by_mock = scenarios::run(name, &mock.bootstrap(), &prefix).await?;
        let expected = DIFFERENT.iter().any(|(different, _)| different == name);
        println!(
            "{name}: {} lines, {}",
            by_real.lines().count(),
            if by_real == by_mock {
                "same"
            } else {
                "DIFFERENT"
            }
        );
        if (by_real == by_mock) == expected {
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
