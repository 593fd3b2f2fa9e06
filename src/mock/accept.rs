//! How connections come in: TCP on loopback, and the in-memory network.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::broker::{At, Outcome, handle};
use super::shared::Shared;
use super::state::Listener;
use crate::net::connector::Stream;
use crate::tasks::Tasks;

/// `socket.request.max.bytes`.
const MOST: usize = 100 << 20;
/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// Takes connections until the broker's life ends.
pub(super) async fn listen(shared: Arc<Shared>, tasks: Tasks, at: At, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                let (shared, at) = (Arc::clone(&shared), at.clone());
                tasks.spawn("mock connection", serve(shared, at, stream));
            }
            Err(error) => {
                tracing::warn!(broker = at.broker, %error, "the mock cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    }
}

/// Serves one connection, one request after the other, as brokers do.
pub(super) async fn serve(shared: Arc<Shared>, at: At, mut stream: impl Stream) {
    let mut buf = BytesMut::new();
    loop {
        let frame = match next_frame(&mut stream, &mut buf).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(why) => {
                tracing::warn!(broker = at.broker, "the mock closes a connection: {why}");
                return;
            }
        };
        match handle(&shared, &at, frame).await {
            Outcome::Answer(bytes) => {
                let written = async {
                    stream.write_all(&bytes).await?;
                    stream.flush().await
                };
                if written.await.is_err() {
                    return;
                }
            }
            Outcome::Silence => {}
            Outcome::Close => return,
        }
    }
}

/// The next frame without its length; `None` when the client is gone.
async fn next_frame(stream: &mut impl Stream, buf: &mut BytesMut) -> Result<Option<Bytes>, String> {
    loop {
        if let Some(prefix) = buf.first_chunk::<4>() {
            let claimed = i32::from_be_bytes(*prefix);
            let length = match usize::try_from(claimed) {
                Ok(length) if length <= MOST => length,
                _ => return Err(format!("a request claims a length of {claimed} bytes")),
            };
            if buf.len() >= 4 + length {
                let frame = buf.split_to(4 + length).freeze();
                return Ok(Some(frame.slice(4..)));
            }
        }
        // Grows with what really comes, not with what is claimed.
        buf.reserve(CHUNK);
        match stream.read_buf(buf).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => {}
        }
    }
}

impl Shared {
    /// Waits while the broker is paused; false if the life of the connection's broker is over.
    pub(super) async fn awake(&self, at: &At) -> bool {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (alive, paused) = match self.state().brokers.get(&at.broker) {
                Some(broker) => (broker.alive && broker.life == at.life, broker.paused),
                None => (false, false),
            };
            if !alive || !paused {
                return alive;
            }
            changed.await;
        }
    }

    /// Starts to listen on TCP where the broker has an address, in its present life.
    pub(super) async fn open(self: &Arc<Self>, broker: i32) -> std::io::Result<()> {
        let (host, port) = match self.state().brokers.get(&broker) {
            Some(known) => known.tcp.clone().unwrap_or_default(),
            None => return Ok(()),
        };
        if host.is_empty() {
            return Ok(());
        }
        let listener = TcpListener::bind((host.as_str(), port)).await?;
        let port = listener.local_addr()?.port();
        let life = {
            let mut state = self.state();
            let Some(known) = state.brokers.get_mut(&broker) else {
                return Ok(());
            };
            known.tcp = Some((host, port));
            known.life
        };
        let at = At {
            broker,
            life,
            listener: Listener::Tcp,
        };
        let tasks = self.tasks_of(broker);
        tasks.spawn(
            "mock listener",
            listen(Arc::clone(self), tasks.clone(), at, listener),
        );
        Ok(())
    }
}
