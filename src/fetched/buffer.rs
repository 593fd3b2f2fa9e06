//! Chunks by partition, in turn, and the memory that they keep.
//!
//! Invariants:
//! - Partitions take turns; a partition is in line at most once; data of an older epoch never
//!   leaves.
//! - A frame counts whole while a chunk of it is here, for a slice keeps all of it in memory.
//! - A partition whose batch is decompressed in part goes on before others do: one such batch is
//!   held at a time, whatever the number of partitions.

use std::collections::{BTreeMap, VecDeque};

use indexmap::IndexMap;

use super::chunk::{Chunk, FrameId};
use crate::types::{BrokerId, TopicPartition};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct FetchBuffer {
    parts: IndexMap<TopicPartition, Queue>,
    ready: VecDeque<TopicPartition>,
    /// A partition whose batch is decompressed in part; it is in `ready` too.
    next: Option<TopicPartition>,
    /// How many chunks of each frame are here.
    frames: BTreeMap<u64, usize>,
    last_frame: u64,
    /// Memory: of frames, and of batches that are decompressed in part.
    bytes: usize,
    inflated: usize,
    /// That of frames, by the broker they came from.
    held: BTreeMap<BrokerId, usize>,
}

#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    /// Fetched bytes that were not handed out.
    unread: usize,
    /// Its name is in `ready`.
    queued: bool,
}

/// Whether a chunk may be handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taking {
    Yes,
    /// Its partition is paused.
    Later,
    /// It is stale.
    Never,
}

impl FetchBuffer {
    /// A name for a frame of so many bytes, for its chunks.
    pub(crate) fn frame(&mut self, broker: BrokerId, len: usize) -> FrameId {
        self.last_frame += 1;
        FrameId {
            number: self.last_frame,
            broker,
            len,
        }
    }

    pub(crate) fn push(&mut self, chunk: Chunk) {
        self.put(chunk, false);
    }

    /// Puts the rest of a chunk back in front of its partition, which goes to the end of the line;
    /// but it is the next if its batch is decompressed.
    pub(crate) fn put_back(&mut self, chunk: Chunk) {
        self.put(chunk, true);
    }

    fn put(&mut self, chunk: Chunk, front: bool) {
        let tp = chunk.tp.clone();
        let opened = chunk.inflated() > 0;
        self.count(&chunk);
        let queue = self.parts.entry(tp.clone()).or_default();
        queue.unread += chunk.unread();
        if front {
            queue.chunks.push_front(chunk);
        } else {
            queue.chunks.push_back(chunk);
        }
        if !std::mem::replace(&mut queue.queued, true) {
            self.ready.push_back(tp.clone());
        }
        if opened {
            self.next = Some(tp);
        }
    }

    fn count(&mut self, chunk: &Chunk) {
        self.bytes += chunk.inflated();
        self.inflated += chunk.inflated();
        let FrameId {
            number,
            broker,
            len,
        } = chunk.frame;
        if number != 0 {
            let chunks = self.frames.entry(number).or_default();
            *chunks += 1;
            if *chunks > 1 {
                return;
            }
        }
        self.bytes += len;
        *self.held.entry(broker).or_default() += len;
    }

    fn discount(&mut self, chunk: &Chunk) {
        self.bytes -= chunk.inflated();
        self.inflated -= chunk.inflated();
        let FrameId {
            number,
            broker,
            len,
        } = chunk.frame;
        let last = match self.frames.get_mut(&number) {
            Some(chunks) => {
                *chunks -= 1;
                *chunks == 0
            }
            None => true,
        };
        if last {
            self.frames.remove(&number);
            self.bytes -= len;
            if let Some(held) = self.held.get_mut(&broker) {
                *held -= len;
            }
        }
    }

    /// The oldest chunk of the partition whose turn it is. Partitions that may not be handed out
    /// leave the line until `ready_again`.
    pub(crate) fn take(&mut self, may: impl Fn(&Chunk) -> Taking) -> Option<Chunk> {
        if let Some(tp) = self.next.take()
            && let Some(chunk) = self.take_of(&tp, &may)
        {
            return Some(chunk);
        }
        while let Some(tp) = self.ready.pop_front() {
            if let Some(queue) = self.parts.get_mut(&tp) {
                queue.queued = false;
                if queue.chunks.is_empty() {
                    self.parts.swap_remove(&tp);
                    continue;
                }
            }
            let chunk = self.take_of(&tp, &may);
            if chunk.is_some() {
                self.ready_again(&tp);
                return chunk;
            }
        }
        None
    }

    /// The oldest chunk of this partition.
    pub(crate) fn take_of(
        &mut self,
        tp: &TopicPartition,
        may: impl Fn(&Chunk) -> Taking,
    ) -> Option<Chunk> {
        loop {
            let queue = self.parts.get_mut(tp)?;
            let verdict = may(queue.chunks.front()?);
            if verdict == Taking::Later {
                return None;
            }
            let chunk = queue.chunks.pop_front()?;
            queue.unread -= chunk.unread();
            if queue.chunks.is_empty() && !queue.queued {
                self.parts.swap_remove(tp);
            }
            self.discount(&chunk);
            if verdict == Taking::Yes {
                return Some(chunk);
            }
        }
    }

    /// The partition may be handed out again.
    pub(crate) fn ready_again(&mut self, tp: &TopicPartition) {
        if let Some(queue) = self.parts.get_mut(tp)
            && !queue.chunks.is_empty()
            && !std::mem::replace(&mut queue.queued, true)
        {
            self.ready.push_back(tp.clone());
        }
    }

    /// Drops what is buffered for a partition.
    pub(crate) fn discard(&mut self, tp: &TopicPartition) {
        if let Some(queue) = self.parts.swap_remove(tp) {
            queue.chunks.iter().for_each(|chunk| self.discount(chunk));
            if queue.queued {
                self.ready.retain(|ready| ready != tp);
            }
        }
    }

    /// Gives up what is decompressed in part; it is decompressed again when its turn comes.
    pub(crate) fn close_opened(&mut self) {
        self.change(|chunk| chunk.inflated() > 0, Chunk::close);
    }

    /// The broker left the cluster.
    pub(crate) fn forget(&mut self, broker: BrokerId) {
        if self.held.get(&broker) == Some(&0) {
            self.held.remove(&broker);
        }
    }

    fn change(&mut self, which: impl Fn(&Chunk) -> bool, change: impl Fn(&mut Chunk)) {
        let mut parts = std::mem::take(&mut self.parts);
        for queue in parts.values_mut() {
            for chunk in queue.chunks.iter_mut().filter(|chunk| which(chunk)) {
                queue.unread -= chunk.unread();
                self.discount(chunk);
                change(chunk);
                queue.unread += chunk.unread();
                self.count(chunk);
            }
        }
        self.parts = parts;
    }

    /// The partitions of which something is here.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        let buffered = self.parts.iter();
        buffered.filter_map(|(tp, queue)| (!queue.chunks.is_empty()).then_some(tp))
    }

    /// The partitions whose oldest data here came from this broker.
    pub(crate) fn partitions_from(
        &self,
        broker: BrokerId,
    ) -> impl Iterator<Item = &TopicPartition> {
        let of_broker = move |queue: &Queue| {
            Some(broker) == queue.chunks.front().map(|chunk| chunk.frame.broker)
        };
        let buffered = self.parts.iter();
        buffered.filter_map(move |(tp, queue)| of_broker(queue).then_some(tp))
    }

    /// Fetched bytes of the partition that were not handed out.
    pub(crate) fn unread(&self, tp: &TopicPartition) -> usize {
        self.parts.get(tp).map_or(0, |queue| queue.unread)
    }

    #[cfg(test)]
    pub(super) fn in_line(&self) -> usize {
        self.ready.len()
    }

    /// Memory in all.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Memory of what came from a broker, as it came.
    pub(crate) fn held(&self, broker: BrokerId) -> usize {
        self.held.get(&broker).copied().unwrap_or(0)
    }

    /// How much of it is decompressed.
    pub(crate) fn inflated(&self) -> usize {
        self.inflated
    }

    /// Copies of what is buffered for the partition (sharing its bytes), to be looked into
    /// elsewhere.
    pub(crate) fn chunks_of(&self, tp: &TopicPartition) -> Vec<Chunk> {
        let queue = self.parts.get(tp);
        queue.map_or_else(Vec::new, |queue| queue.chunks.iter().cloned().collect())
    }
}
