//! What a user sees who points the client at the wrong thing.

use std::time::{Duration, Instant};

use ottla::{Client, ErrorKind};
use ottla_testcontainers::Listener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{Result, client, one};

const DEADLINE: Duration = Duration::from_secs(4);

/// The error of connecting to an address, which must come by the deadline.
async fn refusal(address: &str) -> ottla::Error {
    let start = Instant::now();
    let error = Client::builder()
        .bootstrap([address])
        .api_timeout(DEADLINE)
        .connection_setup_timeout(Duration::from_secs(2), Duration::from_secs(2))
        .connect()
        .await
        .expect_err("nothing here speaks Kafka");
    assert!(
        start.elapsed() < DEADLINE + Duration::from_secs(1),
        "{:?}: {error}",
        start.elapsed()
    );
    error
}

/// A server that answers whatever it gets with these bytes.
async fn server(answer: &'static [u8]) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
            });
        }
    });
    Ok(address)
}

#[tokio::test]
async fn a_client_sees_the_whole_cluster_through_one_address() -> Result {
    let client = client(one().await?).await?;
    client.ready(DEADLINE).await?;
    client.close().await?;
    Ok(())
}

#[tokio::test]
async fn a_tls_port_spoken_to_in_plaintext_is_recognised() -> Result {
    let error = refusal(&one().await?.bootstrap_of(Listener::Ssl)?).await;
    assert!(error.to_string().contains("TLS"), "{error}");
    Ok(())
}

#[tokio::test]
async fn an_http_server_is_recognised_at_once() -> Result {
    let address = server(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await?;
    let start = Instant::now();
    let error = refusal(&address).await;
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(
        error.to_string().contains("HTTP") && error.to_string().contains(&address),
        "{error}"
    );
    assert!(start.elapsed() < Duration::from_secs(2));
    Ok(())
}

#[tokio::test]
async fn garbage_and_oversized_frames_are_refused_without_memory() -> Result {
    for answer in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        &[0x7f, 0xff, 0xff, 0xff, 0, 0],
        &[0, 0, 0, 0],
    ] {
        let error = refusal(&server(answer).await?).await;
        assert!(error.to_string().contains("Kafka"), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_by_the_deadline() -> Result {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let error = refusal(&listener.local_addr()?.to_string()).await;
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(
        error
            .to_string()
            .contains("socket.connection.setup.timeout.ms"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn unknown_hosts_and_closed_ports_are_named() -> Result {
    let error = refusal("no-such-host.invalid:9092").await;
    assert!(
        error.to_string().contains("no-such-host.invalid"),
        "{error}"
    );
    let error = refusal("127.0.0.1:1").await;
    assert!(error.to_string().contains("refused"), "{error}");
    Ok(())
}

#[tokio::test]
async fn one_living_address_among_dead_ones_is_enough() -> Result {
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let silent = silent.local_addr()?.to_string();
    let living = one().await?.bootstrap();
    let start = Instant::now();
    Client::builder()
        .bootstrap(["no-such-host.invalid:9092", "127.0.0.1:1", &silent, &living])
        .connect()
        .await?;
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    Ok(())
}
