//! What fetched bytes hold, before anybody touches a record.

use bytes::Bytes;

use crate::record::{BatchHeader, RecordBatches};

/// What the fetched bytes of a partition hold, judged by the headers of the batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survey {
    /// No bytes.
    Empty,
    /// Whole batches (what follows them may be cut off).
    Batches {
        /// The offset after the last whole batch.
        next_offset: i64,
        /// The leader epoch of the last whole batch.
        leader_epoch: i32,
        /// How many records they say to have.
        records: i64,
        /// The checksum of the first one is wrong.
        damaged: bool,
    },
    /// Bytes, but not one whole batch.
    Partial,
    /// The first header cannot be one of a batch.
    Corrupt,
}

/// Judges fetched bytes by their batches' headers and, if asked to, checksums, without touching
/// records; and how many of the bytes are worth keeping.
///
/// The fetch task compares the checksums right after it read the bytes from the socket: they are
/// still in its processor's caches, and the application, which may run on another one, then touches
/// only what it reads. If the first batch is sound, the bytes up to the first damaged batch are
/// kept; the consumer asks for that batch again, because the damage may have happened on its way.
/// If the first batch is damaged, all bytes are kept, and the application gets its error if it
/// comes damaged again.
pub(crate) fn survey(bytes: &Bytes, check_crcs: bool) -> (Survey, usize) {
    if bytes.is_empty() {
        return (Survey::Empty, 0);
    }
    let mut last: Option<BatchHeader> = None;
    let mut records = 0_i64;
    let mut damaged = false;
    let mut batches = RecordBatches::new(bytes.clone());
    let mut sound = 0;
    while let Some(batch) = batches.next() {
        let batch = match batch {
            Ok(batch) => batch,
            Err(_) if last.is_some() => break,
            Err(_) => return (Survey::Corrupt, 0),
        };
        let header = *batch.header();
        // Offsets stand outside of the checksum: that they grow is all that can be seen of them
        // here.
        if last.is_some_and(|last| header.base_offset < last.next_offset()) {
            return (Survey::Corrupt, 0);
        }
        if check_crcs && !damaged && batch.verify_crc().is_err() {
            if last.is_some() {
                break;
            }
            damaged = true;
        }
        records = records.saturating_add(i64::from(header.records_count));
        last = Some(header);
        sound = bytes.len() - batches.remaining_bytes();
    }
    match last {
        Some(header) => {
            let survey = Survey::Batches {
                next_offset: header.next_offset(),
                leader_epoch: header.partition_leader_epoch,
                records,
                damaged,
            };
            (survey, sound)
        }
        None => (Survey::Partial, 0),
    }
}
