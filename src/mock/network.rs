//! The state of the in-memory network: what holds back, damages or loses the bytes between a client
//! and a broker.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Clock;

/// A client's name and a broker.
pub(super) type Ends = (String, i32);

#[derive(Clone, Debug, Default)]
pub(super) struct Edge {
    pub(super) delay: (Duration, Duration),
    pub(super) cut_to_broker: bool,
    pub(super) cut_to_client: bool,
    /// One bit in so many bytes of requests and of answers is flipped; 0: none.
    pub(super) damage_to_broker: usize,
    pub(super) damage_to_client: usize,
    /// Bits flipped so far.
    pub(super) flipped: u64,
    /// The number of new connections.
    pub(super) generation: u64,
    /// Connections with a lower number are reset.
    pub(super) reset: u64,
    /// Connections with a lower number carry nothing any more.
    pub(super) stranded: u64,
}

pub(super) struct Network {
    pub(super) edges: Mutex<BTreeMap<Ends, Edge>>,
    pub(super) changed: Notify,
    pub(super) clock: Clock,
}

impl Network {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            edges: Mutex::default(),
            changed: Notify::new(),
            clock,
        }
    }

    pub(super) fn add_client(&self, name: &str, brokers: impl Iterator<Item = i32>) {
        let mut edges = self.edges();
        for broker in brokers {
            edges.entry((name.to_owned(), broker)).or_default();
        }
    }

    pub(super) fn edges(&self) -> MutexGuard<'_, BTreeMap<Ends, Edge>> {
        self.edges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn edge(&self, ends: &Ends) -> Edge {
        self.edges().get(ends).cloned().unwrap_or_default()
    }

    pub(super) fn delay(&self, edge: &Edge) -> Duration {
        let (least, most) = edge.delay;
        match most > least {
            true => least + (most - least).mul_f64(self.clock.unit()),
            false => least,
        }
    }

    /// Flips one bit in about so many bytes.
    pub(super) fn damage(&self, ends: &Ends, every: usize, bytes: &mut [u8]) {
        if every == 0 || bytes.is_empty() {
            return;
        }
        let more = self.clock.unit() * (every as f64) < (bytes.len() % every) as f64;
        let flips = bytes.len() / every + usize::from(more);
        for _ in 0..flips {
            let at = (self.clock.unit() * bytes.len() as f64) as usize;
            let bit = (self.clock.unit() * 8.0) as u32;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1_u8.wrapping_shl(bit);
            }
        }
        if let Some(edge) = self.edges().get_mut(ends) {
            edge.flipped += flips as u64;
        }
    }
}
