//! How bytes reach a broker: the trait, and TCP.
//!
//! TLS wraps what a connector gives; an in-memory network is another connector.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout_at;

use crate::clock::{Instant, now};
use crate::error::{Error, ErrorKind, Result};

/// A two-way stream of bytes to a broker.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(crate) type BoxStream = Box<dyn Stream>;
pub(crate) type Connecting<'a> = Pin<Box<dyn Future<Output = Result<BoxStream>> + Send + 'a>>;

/// Opens streams to brokers.
pub(crate) trait Connector: Send + Sync + fmt::Debug {
    /// Tries every address of the name, until one answers or the deadline passes.
    fn connect<'a>(&'a self, host: &'a str, port: u16, deadline: Instant) -> Connecting<'a>;
}

/// TCP sockets.
#[derive(Clone, Debug)]
pub(crate) struct Tcp {
    pub(crate) send_buffer: Option<u32>,
    pub(crate) receive_buffer: Option<u32>,
}

/// The system probes a silent connection after this long.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// However many addresses a name has, each gets at least this long to answer.
const LEAST_PER_ADDRESS: Duration = Duration::from_millis(500);

impl Connector for Tcp {
    fn connect<'a>(&'a self, host: &'a str, port: u16, deadline: Instant) -> Connecting<'a> {
        Box::pin(async move {
            let addresses = resolve(host, port, deadline).await?;
            let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
            let mut failure = None;
            for address in addresses {
                let remaining = deadline.saturating_duration_since(now());
                let share = (remaining / left.max(1))
                    .max(LEAST_PER_ADDRESS)
                    .min(remaining);
                left = left.saturating_sub(1);
                match timeout_at(now() + share, self.open(address)).await {
                    Ok(Ok(stream)) => return Ok(Box::new(stream) as BoxStream),
                    Ok(Err(error)) => {
                        failure = Some(unreachable(host, address, &error).with_source(error));
                    }
                    Err(_) => {
                        failure = Some(Error::new(
                            ErrorKind::Connection,
                            format!(
                                "cannot connect to {host} ({address}): no answer within {} ms \
                                 (socket.connection.setup.timeout.ms); is a firewall in between?",
                                share.as_millis()
                            ),
                        ));
                    }
                }
            }
            Err(failure.unwrap_or_else(|| unresolved(host, "the name has no address")))
        })
    }
}

impl Tcp {
    async fn open(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(bytes) = self.send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
        Ok(stream)
    }
}

async fn resolve(host: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>> {
    match timeout_at(deadline, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(unresolved(host, &error).with_source(error)),
        Err(_) => Err(unresolved(host, "the name service did not answer in time")),
    }
}

fn unresolved(host: &str, why: impl fmt::Display) -> Error {
    Error::new(
        ErrorKind::Connection,
        format!(
            "cannot resolve the host name '{host}': {why}; check bootstrap.servers and the brokers' advertised.listeners"
        ),
    )
}

fn unreachable(host: &str, address: SocketAddr, error: &std::io::Error) -> Error {
    Error::new(
        ErrorKind::Connection,
        format!("cannot connect to {host} ({address}): {error}"),
    )
}
