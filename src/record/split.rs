//! Batches that a broker found too large, made into smaller ones.

use super::Header;
use super::codec::CodecPool;
use super::error::RecordError;
use super::sealed::SealedBatch;
use super::writer::BatchWriter;

impl SealedBatch {
    /// Splits a batch that a broker found too large (MESSAGE_TOO_LARGE) into batches of at most
    /// `max_len` bytes before compression, or of one record. Records keep their order, and their
    /// timestamps; the sum of the counts is the same.
    pub(crate) fn split(
        &self,
        max_len: usize,
        pool: &CodecPool,
    ) -> Result<Vec<BatchWriter>, RecordError> {
        let whole = self.decode(pool)?;
        let capacity = max_len.min(self.uncompressed_len());
        let mut parts = Vec::new();
        let mut part = BatchWriter::new(capacity);
        let mut headers: Vec<Header<'_>> = Vec::new();
        for record in whole.records() {
            let record = record?;
            headers.clear();
            headers.extend(record.headers());
            let size = part.size_of(
                record.timestamp().as_millis(),
                record.key(),
                record.value(),
                &headers,
            )?;
            if !part.is_empty() && part.len().saturating_add(size) > max_len {
                parts.push(std::mem::replace(&mut part, BatchWriter::new(capacity)));
            }
            part.append(
                record.timestamp().as_millis(),
                record.key(),
                record.value(),
                &headers,
            )?;
        }
        parts.push(part);
        Ok(parts)
    }
}
