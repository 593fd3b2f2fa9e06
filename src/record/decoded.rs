//! A batch whose records can be read.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::error::RecordError;
use super::header::BatchHeader;

/// A batch whose records are uncompressed: its header and the bytes of its records, shared with
/// whatever they came from.
///
/// A clone shares everything, at the price of one counter: that is what a record of its own costs.
#[derive(Clone)]
pub(crate) struct DecodedBatch(Arc<Stored>);

struct Stored {
    header: BatchHeader,
    body: Bytes,
    topic: Arc<str>,
    partition: i32,
}

/// The least a record takes: length, attributes, two deltas, key length, value length, number of
/// headers.
const MIN_RECORD_LEN: usize = 7;

impl DecodedBatch {
    pub(super) fn new(
        header: BatchHeader,
        body: Bytes,
        topic: Arc<str>,
        partition: i32,
    ) -> Result<Self, RecordError> {
        if usize::try_from(header.records_count)
            .map_or(true, |count| count > body.len() / MIN_RECORD_LEN)
        {
            return Err(RecordError::Corrupt {
                what: "more records than fit its bytes",
                offset: header.base_offset,
            });
        }
        Ok(Self(Arc::new(Stored {
            header,
            body,
            topic,
            partition,
        })))
    }

    /// The same batch with a share counter of its own, which counts only records taken from this
    /// one.
    pub(crate) fn apart(&self) -> Self {
        let Stored {
            header,
            body,
            topic,
            partition,
        } = &*self.0;
        Self(Arc::new(Stored {
            header: *header,
            body: body.clone(),
            topic: Arc::clone(topic),
            partition: *partition,
        }))
    }

    /// Whether there is a clone of it, such as in an owned record.
    #[inline]
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    #[inline]
    pub(crate) fn header(&self) -> &BatchHeader {
        &self.0.header
    }

    pub(crate) fn topic(&self) -> &str {
        &self.0.topic
    }

    pub(crate) fn partition(&self) -> i32 {
        self.0.partition
    }

    /// The uncompressed records.
    #[inline]
    pub(crate) fn body(&self) -> &Bytes {
        &self.0.body
    }
}

impl fmt::Debug for DecodedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecodedBatch")
            .field("topic", &self.topic())
            .field("partition", &self.partition())
            .field("header", self.header())
            .field("body_len", &self.body().len())
            .finish()
    }
}
