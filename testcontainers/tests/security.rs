//! The listeners with TLS and SASL, tried with Java clients.
//! Run with `testcontainers/run cargo test -p ottla-testcontainers`.

use std::process::{Command, Stdio};
use std::time::Duration;

use ottla_testcontainers::{Cluster, JavaClientCommand, Listener, Mechanism, unsecured_token};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const MINUTE: Duration = Duration::from_secs(60);

/// Whether the client could list the topics.
async fn works(client: JavaClientCommand<'_>) -> Result<bool> {
    let output = client.args(["--list"]).start().await?.wait(MINUTE).await?;
    println!("{output:?}"); // shown if the test fails
    Ok(output.status == 0 && output.stdout.contains("seen"))
}

#[tokio::test]
async fn tls_and_sasl_listeners_let_the_right_clients_in() -> Result {
    let cluster = Cluster::builder().tls().sasl().start().await?;
    cluster.create_topic("seen", 1, 1).await?;
    let client = || {
        let client = cluster.java_client("kafka-topics.sh");
        client
            .property("request.timeout.ms", "10000")
            .property("default.api.timeout.ms", "15000")
    };

    assert!(works(client()).await?, "plaintext");
    assert!(works(client().listener(Listener::Ssl)).await?, "TLS");
    assert!(
        works(client().listener(Listener::MutualTls)).await?,
        "TLS with a client certificate"
    );
    for mechanism in [
        Mechanism::Plain,
        Mechanism::ScramSha256,
        Mechanism::ScramSha512,
        Mechanism::OAuthBearer,
    ] {
        for listener in [Listener::SaslPlaintext, Listener::SaslSsl] {
            assert!(
                works(client().listener(listener).mechanism(mechanism)).await?,
                "{listener:?} {mechanism:?}"
            );
        }
    }

    let strict = [
        "--bootstrap-server".to_owned(),
        cluster.bootstrap_of(Listener::MutualTls)?,
    ];
    let no_certificate = client().listener(Listener::Ssl).args(strict);
    assert!(
        !works(no_certificate).await?,
        "TLS without the certificate asked for"
    );
    let wrong = "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"alice\" password=\"no\";";
    let wrong = client()
        .listener(Listener::SaslSsl)
        .property("sasl.jaas.config", wrong);
    assert!(!works(wrong).await?, "a wrong password");
    Ok(())
}

#[tokio::test]
async fn the_certificate_is_for_loopback_and_by_the_test_authority() -> Result {
    let cluster = Cluster::builder().tls().start().await?;
    let file = std::env::temp_dir().join(format!("ottla-ca-{}.pem", std::process::id()));
    std::fs::write(&file, &cluster.pki()?.ca_cert)?;
    let address = cluster.bootstrap_of(Listener::Ssl)?;
    let output = Command::new("timeout")
        .args([
            "20",
            "openssl",
            "s_client",
            "-verify_return_error",
            "-verify_ip",
            "127.0.0.1",
            "-connect",
            &address,
        ])
        .arg("-CAfile")
        .arg(&file)
        .stdin(Stdio::null())
        .output()?;
    std::fs::remove_file(&file)?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
    Ok(())
}

#[tokio::test]
async fn the_authorizer_asks_for_permission() -> Result {
    let cluster = Cluster::builder().sasl().authorizer().start().await?;
    cluster.create_topic("seen", 1, 1).await?;
    let alice = || {
        cluster
            .java_client("kafka-topics.sh")
            .listener(Listener::SaslPlaintext)
    };
    assert!(!works(alice()).await?, "alice sees nothing yet");
    let acl = [
        "--add",
        "--allow-principal",
        "User:alice",
        "--operation",
        "Describe",
        "--topic",
        "seen",
    ];
    cluster.tool("kafka-acls.sh", &acl).await?;
    assert!(works(alice()).await?, "alice sees the topic");
    Ok(())
}

#[test]
fn tokens_can_be_made_for_other_clients() {
    assert!(unsecured_token("alice", MINUTE).ends_with('.'));
}
