//! The records of one batch, walked where they lie.
//!
//! Invariants: each record is checked to its last byte before it is handed out, headers included,
//! so that everything a [`RecordView`] gives out later is infallible; the walk ends with an error
//! unless the bytes hold exactly as many records as the header says; after an error there is
//! nothing more.

use std::iter::FusedIterator;

use super::TimestampType;
use super::decoded::DecodedBatch;
use super::error::RecordError;
use super::parse::{Malformed, RawHeaders, check_headers, length, pass, take_bytes};
use super::varint::{take_i32, take_i64};
use super::view::RecordView;

impl DecodedBatch {
    /// All records, in order.
    pub(crate) fn records(&self) -> Records<'_> {
        self.records_from(RecordCursor::default())
    }

    /// The records after those that [`Records::cursor`] had seen, without walking the batch again.
    pub(crate) fn records_from(&self, cursor: RecordCursor) -> Records<'_> {
        let count = u32::try_from(self.header().records_count).unwrap_or(0);
        Records {
            batch: self,
            rest: self.body().get(cursor.pos..).unwrap_or_default(),
            index: cursor.index,
            left: count.saturating_sub(cursor.index),
            done: cursor.done,
        }
    }

    /// How many bytes there are from the cursor on.
    pub(crate) fn remaining_bytes(&self, cursor: RecordCursor) -> usize {
        self.body().len().saturating_sub(cursor.pos)
    }

    /// What a control batch says; `None` for other batches and for control batches emptied by
    /// compaction.
    pub(crate) fn control_type(&self) -> Result<Option<ControlType>, RecordError> {
        if !self.header().attributes.is_control() {
            return Ok(None);
        }
        let Some(record) = self.records().next().transpose()? else {
            return Ok(None);
        };
        // The key is a version, of which only the first is known and later ones must extend it, and
        // a type.
        let kind = match record.key() {
            Some([_, _, high, low, ..]) => i16::from_be_bytes([*high, *low]),
            _ => {
                return Err(RecordError::Corrupt {
                    what: "control record without a type",
                    offset: record.offset(),
                });
            }
        };
        Ok(Some(match kind {
            0 => ControlType::Abort,
            1 => ControlType::Commit,
            other => ControlType::Other(other),
        }))
    }
}

/// The kinds of control batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ControlType {
    /// The producer's open transaction ends here and is void.
    Abort,
    /// The producer's open transaction ends here and counts.
    Commit,
    /// Something between brokers, to be skipped.
    Other(i16),
}

/// A place between two records of a batch. Only of use with the batch it came from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct RecordCursor {
    pos: usize,
    index: u32,
    done: bool,
}

impl RecordCursor {
    /// How many records of the batch are before it.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }
}

/// Iterator over the records of a batch.
#[derive(Clone)]
pub(crate) struct Records<'a> {
    batch: &'a DecodedBatch,
    rest: &'a [u8],
    index: u32,
    left: u32,
    /// The end, or an error, has been reported.
    done: bool,
}

impl<'a> Records<'a> {
    /// Where the next record starts, for [`DecodedBatch::records_from`].
    pub(crate) fn cursor(&self) -> RecordCursor {
        RecordCursor {
            pos: self.batch.body().len().saturating_sub(self.rest.len()),
            index: self.index,
            done: self.done,
        }
    }

    /// Passes over so many records, or to the end, by their lengths: nothing else of them is read.
    pub(crate) fn skip_records(&mut self, count: usize) -> Result<(), RecordError> {
        for _ in 0..count {
            if self.left == 0 || self.done {
                break;
            }
            match pass(self.rest) {
                Ok(rest) => {
                    self.rest = rest;
                    self.left -= 1;
                    self.index += 1;
                }
                Err(what) => return self.fail(what).unwrap_or(Ok(())),
            }
        }
        Ok(())
    }

    #[cold]
    fn fail<T>(&mut self, what: &'static str) -> Option<Result<T, RecordError>> {
        self.done = true;
        let offset = self
            .batch
            .header()
            .base_offset
            .saturating_add(i64::from(self.index));
        Some(Err(RecordError::Corrupt { what, offset }))
    }

    fn end<T>(&mut self) -> Option<Result<T, RecordError>> {
        if self.done || self.rest.is_empty() {
            return None;
        }
        self.fail("bytes after the last record")
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, RecordError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 || self.done {
            return self.end();
        }
        match parse(self.batch, self.rest) {
            Ok((view, rest)) => {
                self.rest = rest;
                self.left -= 1;
                self.index += 1;
                Some(Ok(view))
            }
            Err(what) => self.fail(what),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some((self.left as usize).saturating_add(1)))
    }
}

impl FusedIterator for Records<'_> {}

/// Parses the record in front of `bytes`; gives it and what comes after it.
#[inline(always)]
fn parse<'a>(
    batch: &'a DecodedBatch,
    mut bytes: &'a [u8],
) -> Result<(RecordView<'a>, &'a [u8]), Malformed> {
    let header = batch.header();
    let len = length(take_i32(&mut bytes)?).ok_or("negative record length")?;
    let (mut record, rest) = bytes
        .split_at_checked(len)
        .ok_or("a record goes past the end")?;
    // The attributes of single records are reserved: written as zero, not read by anyone.
    let [_attributes, fields @ ..] = record else {
        return Err("a record without attributes");
    };
    record = fields;
    let timestamp_delta = take_i64(&mut record)?;
    let offset_delta = take_i32(&mut record)?;
    if !(0..=header.last_offset_delta).contains(&offset_delta) {
        return Err("a record's offset is outside of its batch");
    }
    let key = take_bytes(&mut record)?;
    let value = take_bytes(&mut record)?;
    let count = take_i32(&mut record)?;
    let headers = if count == 0 && record.is_empty() {
        RawHeaders::EMPTY
    } else {
        check_headers(record, count)?
    };
    let timestamp = match header.attributes.timestamp_type() {
        TimestampType::CreateTime => header
            .base_timestamp
            .checked_add(timestamp_delta)
            .ok_or("a record's timestamp overflows")?,
        TimestampType::LogAppendTime => header.max_timestamp,
    };
    // Cannot overflow: checked for the last offset of the batch.
    let offset = header.base_offset.wrapping_add(i64::from(offset_delta));
    Ok((
        RecordView::new(batch, offset, timestamp, key, value, headers),
        rest,
    ))
}
