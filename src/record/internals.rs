//! What benchmarks, fuzz targets and allocation tests need to reach. Outside of semver.

use std::sync::Arc;

use bytes::Bytes;

use super::codec::CodecPool;
use super::compress::Compression;
use super::reader::{DecodeLimits, RecordBatches};
use super::sealed::{ProducerStamp, SealedBatch};
use super::writer::BatchWriter;
use super::{Header, RecordView};

/// A `BatchWriter`.
#[derive(Debug)]
pub struct Writer(BatchWriter);

/// A `SealedBatch`.
#[derive(Debug)]
pub struct Sealed(SealedBatch);

/// A `CodecPool`.
#[derive(Debug)]
pub struct Pool(CodecPool);

/// A `DecodedBatch`.
#[derive(Debug)]
pub struct Decoded(super::DecodedBatch);

impl Pool {
    /// A pool of at most `max_idle` contexts of each kind.
    pub fn new(max_idle: usize) -> Self {
        Self(CodecPool::new(max_idle))
    }
}

impl Writer {
    /// `BatchWriter::new`.
    pub fn new(capacity: usize) -> Self {
        Self(BatchWriter::new(capacity))
    }

    /// `BatchWriter::with_buffer`.
    pub fn with_buffer(buffer: Vec<u8>) -> Self {
        Self(BatchWriter::with_buffer(buffer))
    }

    /// `BatchWriter::append`.
    ///
    /// # Errors
    ///
    /// What it says, as text.
    #[inline]
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<u32, String> {
        self.0
            .append(timestamp, key, value, headers)
            .map_err(|error| error.to_string())
    }

    /// `BatchWriter::len`.
    #[inline]
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// `BatchWriter::seal`.
    ///
    /// # Errors
    ///
    /// What it says, as text.
    pub fn seal(self, compression: Compression, pool: &Pool) -> Result<Sealed, String> {
        self.0
            .seal(compression, &pool.0)
            .map(Sealed)
            .map_err(|error| error.to_string())
    }
}

impl Sealed {
    /// `SealedBatch::stamp`, for the given producer.
    pub fn stamp(&mut self, producer_id: i64, base_sequence: i32) -> Bytes {
        let stamp = ProducerStamp {
            producer_id,
            producer_epoch: 0,
            base_sequence,
            transactional: false,
        };
        self.0.stamp(stamp)
    }
}

/// Every batch in `bytes`, decoded; `check_crc` off lets a fuzzer through to what is behind the
/// checksum.
///
/// # Errors
///
/// The first thing wrong, as text; what came before it is lost.
pub fn decode(
    bytes: Bytes,
    check_crc: bool,
    max_decompressed: usize,
    pool: &Pool,
) -> Result<Vec<Decoded>, String> {
    let topic: Arc<str> = Arc::from("topic");
    let mut batches = RecordBatches::new(bytes);
    let decoded = batches.by_ref().map(|raw| {
        let raw = raw.map_err(|error| error.to_string())?;
        if check_crc {
            raw.verify_crc().map_err(|error| error.to_string())?;
        }
        let limits = DecodeLimits { max_decompressed };
        raw.decode(Arc::clone(&topic), 0, limits, &pool.0)
            .map(Decoded)
            .map_err(|error| error.to_string())
    });
    decoded.collect()
}

impl Decoded {
    /// Calls `each` for every record.
    ///
    /// # Errors
    ///
    /// What ends the walk, as text.
    #[inline]
    pub fn walk(&self, mut each: impl FnMut(RecordView<'_>)) -> Result<(), String> {
        for record in self.0.records() {
            each(record.map_err(|error| error.to_string())?);
        }
        Ok(())
    }

    /// Everything that can be asked of a batch, for fuzzing: walks it twice, once in steps of one
    /// record.
    ///
    /// # Errors
    ///
    /// What ends the walk, as text.
    pub fn exercise(&self) -> Result<usize, String> {
        let _ = self.0.control_type();
        let mut bytes = 0_usize;
        self.walk(|record| {
            let owned = record.to_owned();
            assert_eq!(owned.key(), record.key());
            assert_eq!(owned.value(), record.value());
            assert!(owned.headers().eq(record.headers()));
            assert_eq!(record.headers().count(), record.headers().len());
            assert!(record.offset() < self.0.header().next_offset());
            bytes += record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len);
        })?;
        let mut cursor = super::RecordCursor::default();
        let mut steps = 0;
        loop {
            let mut records = self.0.records_from(cursor);
            let Some(record) = records.next() else { break };
            record.map_err(|error| error.to_string())?;
            cursor = records.cursor();
            steps += 1;
        }
        assert_eq!(steps, self.0.header().records_count);
        Ok(bytes)
    }
}
