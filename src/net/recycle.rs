//! Memory of large frames, used again for the next ones.
//!
//! A fetched frame has megabytes. Fresh memory of that size comes from the system page by page,
//! each zeroed and mapped at first touch, which costs more than everything else that is done with
//! its bytes.
//!
//! Invariants: a buffer is used again only when nobody else holds a slice of it; at most [`KEPT`]
//! are remembered, and none once answers are small again.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// So many frames are in use in turn: one arrives, some wait, some are being read.
const KEPT: usize = 6;
/// Smaller frames are not worth remembering.
pub(super) const LEAST: usize = 256 * 1024;

/// The last frames; see the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Recycler {
    frames: VecDeque<Bytes>,
}

impl Recycler {
    /// Remembers a frame that is given out.
    pub(super) fn keep(&mut self, frame: &Bytes) {
        if frame.len() < LEAST {
            // The stream of large frames is over, or an error was answered: hold nothing back.
            self.frames.clear();
            return;
        }
        if self.frames.len() == KEPT {
            self.frames.pop_front();
        }
        self.frames.push_back(frame.clone());
    }

    /// An empty buffer with room for so many bytes. The oldest that is free and large enough; those
    /// that are free and too small are let go, for frames have become larger.
    pub(super) fn take(&mut self, len: usize) -> BytesMut {
        for _ in 0..self.frames.len() {
            let Some(frame) = self.frames.pop_front() else {
                break;
            };
            match frame.try_into_mut() {
                Ok(mut buffer) => {
                    buffer.clear();
                    if buffer.capacity() >= len {
                        return buffer;
                    }
                }
                Err(held) => self.frames.push_back(held),
            }
        }
        // A little more, so that frames of about the same length fit into each other's memory.
        BytesMut::with_capacity(len.checked_next_multiple_of(LEAST).unwrap_or(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(recycler: &mut Recycler, len: usize) -> Bytes {
        let mut buffer = recycler.take(len);
        buffer.resize(len, 7);
        let frame = buffer.freeze();
        recycler.keep(&frame);
        frame
    }

    #[test]
    fn memory_comes_again_when_the_last_slice_is_gone() {
        let mut recycler = Recycler::default();
        let first = frame(&mut recycler, 2 * LEAST);
        let place = first.as_ptr();
        let slice = first.slice(LEAST..LEAST + 10);
        drop(first);
        let second = frame(&mut recycler, 2 * LEAST);
        assert_ne!(second.as_ptr(), place, "a slice of the first is held");
        drop(slice);
        let third = frame(&mut recycler, LEAST);
        assert_eq!(third.as_ptr(), place);
        drop((second, third));
        assert_eq!(recycler.frames.len(), 2);
    }

    #[test]
    fn a_slice_that_is_held_is_never_written_to() {
        let mut recycler = Recycler::default();
        let held: Vec<_> = (0..10)
            .map(|_| frame(&mut recycler, LEAST).slice(100..200))
            .collect();
        let mut places: Vec<_> = held.iter().map(|slice| slice.as_ptr()).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 10);
        assert_eq!(recycler.frames.len(), KEPT);
    }

    #[test]
    fn small_answers_end_it() {
        let mut recycler = Recycler::default();
        drop(frame(&mut recycler, LEAST));
        assert_eq!(recycler.frames.len(), 1);
        drop(frame(&mut recycler, 100));
        assert_eq!(recycler.frames.len(), 0);
    }
}
