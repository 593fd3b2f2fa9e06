//! Between clients and brokers: sees every request and answer, and may change answers or hold them
//! back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ottla_testcontainers::Cluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::support::Result;

pub(crate) const PRODUCE: i16 = 0;
pub(crate) const FETCH: i16 = 1;

/// What an answer answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// The broker, from 1 on.
    pub(crate) broker: i32,
    pub(crate) api: i16,
    pub(crate) version: i16,
}

/// What went over a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) connection: usize,
    pub(crate) at: Instant,
    pub(crate) asked: Asked,
    /// How long an answer to Produce or Fetch asks to be silent; None for a request.
    pub(crate) throttle: Option<Duration>,
}

type Change = Arc<dyn Fn(Asked, &mut [u8]) -> Duration + Send + Sync>;

#[derive(Clone)]
struct Shared {
    /// Real ports of the brokers, and those that clients are told instead.
    ports: Arc<Vec<(u16, u16)>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    change: Change,
}

/// Ends when dropped.
pub(crate) struct Proxy {
    shared: Shared,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// `change` may change each answer, and says how long it is to be held back.
    pub(crate) async fn start(
        cluster: &Cluster,
        change: impl Fn(Asked, &mut [u8]) -> Duration + Send + Sync + 'static,
    ) -> Result<Self> {
        let (mut listeners, mut ports) = (Vec::new(), Vec::new());
        for broker in cluster.brokers() {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let addr = broker.addr();
            let real = addr.rsplit(':').next().ok_or("no port")?.parse()?;
            ports.push((real, listener.local_addr()?.port()));
            listeners.push(listener);
        }
        let shared = Shared {
            ports: Arc::new(ports),
            seen: Arc::default(),
            change: Arc::new(change),
        };
        let mut tasks = JoinSet::new();
        for (index, listener) in listeners.into_iter().enumerate() {
            tasks.spawn(serve(shared.clone(), index, listener));
        }
        Ok(Self {
            shared,
            _tasks: tasks,
        })
    }

    pub(crate) fn bootstrap(&self) -> String {
        let ports = self.shared.ports.iter();
        let addrs: Vec<_> = ports.map(|(_, port)| format!("127.0.0.1:{port}")).collect();
        addrs.join(",")
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }
}

async fn serve(shared: Shared, index: usize, listener: TcpListener) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let connection = index * 10_000 + connections.len();
        let shared = shared.clone();
        connections.spawn(async move {
            let _ = relay(shared, index, connection, client).await;
        });
    }
}

async fn frame(from: &mut (impl AsyncReadExt + Unpin)) -> Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let mut frame = vec![0; 4 + length as usize];
    frame[..4].copy_from_slice(&length.to_be_bytes());
    from.read_exact(&mut frame[4..]).await?;
    Ok(frame)
}

async fn relay(shared: Shared, index: usize, connection: usize, client: TcpStream) -> Result {
    let broker = TcpStream::connect(("127.0.0.1", shared.ports[index].0)).await?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_broker, mut to_broker) = broker.into_split();
    // Answers come in the order of the requests.
    let asked: Mutex<VecDeque<Asked>> = Mutex::default();
    let note = |asked, throttle| {
        let seen = Seen {
            connection,
            at: Instant::now(),
            asked,
            throttle,
        };
        shared.seen.lock().unwrap().push(seen);
    };
    let (queue, mut held) = mpsc::unbounded_channel::<(Instant, Asked, Vec<u8>)>();
    let requests = async {
        loop {
            let frame = frame(&mut from_client).await?;
            let short = |at: usize| i16::from_be_bytes([frame[at], frame[at + 1]]);
            let one = Asked {
                broker: index as i32 + 1,
                api: short(4),
                version: short(6),
            };
            note(one, None);
            asked.lock().unwrap().push_back(one);
            to_broker.write_all(&frame).await?;
        }
        #[allow(unreachable_code)]
        Result::<()>::Ok(())
    };
    let answers = async {
        loop {
            let mut frame = frame(&mut from_broker).await?;
            let one = asked.lock().unwrap().pop_front().ok_or("not asked")?;
            if one.api != FETCH {
                shared.redirect(&mut frame);
            }
            let wait = (shared.change)(one, &mut frame[4..]);
            queue.send((Instant::now() + wait, one, frame))?;
        }
        #[allow(unreachable_code)]
        Result::<()>::Ok(())
    };
    let writing = async {
        while let Some((due, asked, frame)) = held.recv().await {
            sleep_until(due).await;
            // Before the client can have it.
            note(asked, Some(throttle(asked, &frame[4..])));
            to_client.write_all(&frame).await?;
        }
        Result::<()>::Ok(())
    };
    tokio::try_join!(requests, answers, writing).map(drop)
}

/// Of flexible versions: Fetch has it in front, Produce behind.
fn throttle(asked: Asked, answer: &[u8]) -> Duration {
    let at = match asked.api {
        PRODUCE => answer.len() - 5,
        FETCH => 5,
        _ => return Duration::ZERO,
    };
    let millis = answer[at..at + 4].try_into().map_or(0, u32::from_be_bytes);
    Duration::from_millis(millis.into())
}

impl Shared {
    /// Replaces the brokers' ports, which follow their host.
    fn redirect(&self, frame: &mut [u8]) {
        const HOST: &[u8] = b"127.0.0.1";
        for (real, told) in self.ports.iter() {
            let find = [HOST, &u32::from(*real).to_be_bytes()].concat();
            let put = [HOST, &u32::from(*told).to_be_bytes()].concat();
            let mut at = 0;
            while at + find.len() <= frame.len() {
                if frame[at..].starts_with(&find) {
                    frame[at..at + put.len()].copy_from_slice(&put);
                }
                at += 1;
            }
        }
    }
}
