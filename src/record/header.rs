//! The header of a record batch: 61 bytes, all big-endian.
//!
//! | at | field | | at | field |
//! |---|---|---|---|---|
//! | 0 | base offset `i64` | | 27 | base timestamp `i64` |
//! | 8 | length of what follows `i32` | | 35 | max timestamp `i64` |
//! | 12 | partition leader epoch `i32` | | 43 | producer id `i64` |
//! | 16 | magic `i8` | | 51 | producer epoch `i16` |
//! | 17 | CRC-32C `u32` of all from 21 on | | 53 | base sequence `i32` |
//! | 21 | attributes `i16` | | 57 | number of records `i32` |
//! | 23 | last offset delta `i32` | | | |

use bytes::{Buf, BufMut};

use super::TimestampType;
use super::codec_id::Codec;
use super::error::RecordError;

/// Bytes in front of the records.
pub(crate) const HEADER_LEN: usize = 61;
/// Bytes that the length field does not count: the base offset and itself.
pub(super) const LENGTH_OVERHEAD: usize = 12;
/// Where the magic is, in this and in all older formats.
pub(super) const MAGIC_AT: usize = 16;
pub(super) const CRC_AT: usize = 17;
/// From here on the checksum covers everything.
pub(super) const CRC_FROM: usize = 21;
/// The one format written and read here.
pub(super) const MAGIC: i8 = 2;

/// Bits 0 to 2: codec; 3: timestamp type; 4: transactional; 5: control; 6: the base timestamp is a
/// delete horizon.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Attributes(pub(crate) i16);

impl Attributes {
    pub(super) fn new(codec: Codec, transactional: bool) -> Self {
        Self(i16::from(codec.id()) | i16::from(transactional) << 4)
    }

    /// `None` for a codec that Kafka does not have.
    pub(crate) fn codec(self) -> Option<Codec> {
        Codec::from_id(self.codec_id())
    }

    pub(super) fn codec_id(self) -> u8 {
        (self.0 & 7) as u8
    }

    pub(crate) fn timestamp_type(self) -> TimestampType {
        if self.bit(3) {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        }
    }

    pub(crate) fn is_transactional(self) -> bool {
        self.bit(4)
    }

    /// Whether the records are transaction markers and the like, which no application sees.
    pub(crate) fn is_control(self) -> bool {
        self.bit(5)
    }

    /// Whether the base timestamp is the time when the log cleaner may drop the batch's tombstones
    /// (KIP-534). Timestamps of records are differences to it all the same.
    #[cfg(test)]
    pub(crate) fn has_delete_horizon(self) -> bool {
        self.bit(6)
    }

    fn bit(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }
}

/// The header of a batch as it is on the wire; checked by `RecordBatches` for what the rest of this
/// module relies on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BatchHeader {
    pub(crate) base_offset: i64,
    pub(crate) batch_length: i32,
    /// -1 if unknown.
    pub(crate) partition_leader_epoch: i32,
    pub(crate) magic: i8,
    pub(crate) crc: u32,
    pub(crate) attributes: Attributes,
    pub(crate) last_offset_delta: i32,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    /// -1 without idempotence; the same goes for the next two.
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) records_count: i32,
}

impl BatchHeader {
    /// The offset after the last of the batch, including those that compaction has removed: where
    /// to go on reading.
    pub(crate) fn next_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
            .saturating_add(1)
    }

    /// The offset of the last record, removed or not.
    pub(crate) fn last_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
    }

    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut out = &mut bytes[..];
        out.put_i64(self.base_offset);
        out.put_i32(self.batch_length);
        out.put_i32(self.partition_leader_epoch);
        out.put_i8(self.magic);
        out.put_u32(self.crc);
        out.put_i16(self.attributes.0);
        out.put_i32(self.last_offset_delta);
        out.put_i64(self.base_timestamp);
        out.put_i64(self.max_timestamp);
        out.put_i64(self.producer_id);
        out.put_i16(self.producer_epoch);
        out.put_i32(self.base_sequence);
        out.put_i32(self.records_count);
        debug_assert!(out.is_empty());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        let mut input = &bytes[..];
        Self {
            base_offset: input.get_i64(),
            batch_length: input.get_i32(),
            partition_leader_epoch: input.get_i32(),
            magic: input.get_i8(),
            crc: input.get_u32(),
            attributes: Attributes(input.get_i16()),
            last_offset_delta: input.get_i32(),
            base_timestamp: input.get_i64(),
            max_timestamp: input.get_i64(),
            producer_id: input.get_i64(),
            producer_epoch: input.get_i16(),
            base_sequence: input.get_i32(),
            records_count: input.get_i32(),
        }
    }

    /// Refuses numbers that no broker sends and that the arithmetic on offsets would trip over.
    pub(super) fn check(&self) -> Result<(), RecordError> {
        let offset = self.base_offset;
        let what = if self.base_offset < 0 {
            "negative base offset"
        } else if self.last_offset_delta < 0 {
            "negative last offset delta"
        } else if self
            .base_offset
            .checked_add(i64::from(self.last_offset_delta) + 1)
            .is_none()
        {
            "the last offset overflows"
        } else if self.records_count < 0 {
            "negative number of records"
        } else if i64::from(self.records_count) > i64::from(self.last_offset_delta) + 1 {
            "more records than offsets"
        } else {
            return Ok(());
        };
        Err(RecordError::Corrupt { what, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_the_attributes() {
        let plain = Attributes::new(Codec::Zstd, false);
        assert_eq!(plain.0, 4);
        assert_eq!(plain.timestamp_type(), TimestampType::CreateTime);
        assert_eq!(Attributes::new(Codec::None, true).0, 0b1_0000);
        let all = Attributes(0b111_1111);
        assert_eq!(all.codec(), None);
        assert_eq!(all.timestamp_type(), TimestampType::LogAppendTime);
        assert!(all.is_transactional() && all.is_control() && all.has_delete_horizon());
    }
}
