//! What can be wrong with a batch of records.

use std::fmt;

use super::codec_id::Codec;

/// Why a record or a batch could not be written or read.
///
/// Everything here comes from bytes or from sizes, never from the state of the client, so the same
/// input gives the same error again: reading it once more does not help, fetching it once more may.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum RecordError {
    /// Not record format v2.
    BadMagic { magic: i8 },
    /// The bytes contradict themselves; `offset` is the Kafka offset (of the batch or the record)
    /// nearest to the spot.
    Corrupt { what: &'static str, offset: i64 },
    /// The checksum in the header is not that of the bytes.
    CrcMismatch {
        expected: u32,
        computed: u32,
        base_offset: i64,
    },
    /// More bytes than `limit` allows.
    TooLarge { limit: usize },
    /// A timestamp too far from that of the first record of its batch to be written as a
    /// difference.
    TimestampOutOfRange { timestamp: i64, base_timestamp: i64 },
    /// A batch without records cannot be sent.
    Empty,
    /// The attributes name a compression that Kafka does not define.
    UnknownCodec { id: u8, offset: i64 },
    /// The crate was built without this codec.
    UnsupportedCodec { codec: Codec, feature: &'static str },
    /// The compressed bytes are not what the codec expects.
    Decompress { codec: Codec, message: String },
    /// The codec failed to compress.
    #[cfg_attr(
        not(any(
            feature = "gzip",
            feature = "snappy",
            feature = "lz4",
            feature = "zstd"
        )),
        allow(dead_code)
    )]
    Compress { codec: Codec, message: String },
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadMagic {
                magic: magic @ 0..=1,
            } => write!(
                f,
                "message set of the old format (magic {magic}), which brokers convert only for Fetch requests older than \
                 those this client sends; read it with an older client or let the segment expire"
            ),
            Self::BadMagic { magic } => write!(
                f,
                "unknown record batch format (magic {magic}), only 2 is known"
            ),
            Self::Corrupt { what, offset } => {
                write!(f, "corrupt record batch near offset {offset}: {what}")
            }
            Self::CrcMismatch {
                expected,
                computed,
                base_offset,
            } => write!(
                f,
                "corrupt record batch at offset {base_offset}: its checksum is {expected:#010x}, its bytes give {computed:#010x}"
            ),
            Self::TooLarge { limit } => write!(f, "more than the {limit} bytes allowed"),
            Self::TimestampOutOfRange {
                timestamp,
                base_timestamp,
            } => {
                write!(
                    f,
                    "timestamp {timestamp} is out of range for a batch that starts at {base_timestamp}"
                )
            }
            Self::Empty => f.write_str("a batch without records cannot be sent"),
            Self::UnknownCodec { id, offset } => {
                write!(
                    f,
                    "record batch at offset {offset} has the unknown compression {id}"
                )
            }
            Self::UnsupportedCodec { codec, feature } => {
                write!(
                    f,
                    "{codec} compression is not compiled in: enable the cargo feature `{feature}`"
                )
            }
            Self::Decompress { codec, message } => {
                write!(f, "cannot decompress {codec}: {message}")
            }
            Self::Compress { codec, message } => {
                write!(f, "cannot compress with {codec}: {message}")
            }
        }
    }
}

impl std::error::Error for RecordError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_to_do() {
        let old = RecordError::BadMagic { magic: 1 }.to_string();
        assert!(
            old.contains("magic 1") && old.contains("brokers convert"),
            "{old}"
        );
        let codec = RecordError::UnsupportedCodec {
            codec: Codec::Zstd,
            feature: "zstd",
        }
        .to_string();
        assert!(codec.contains("feature `zstd`"), "{codec}");
        let crc = RecordError::CrcMismatch {
            expected: 1,
            computed: 2,
            base_offset: 7,
        }
        .to_string();
        assert!(
            crc.contains("offset 7") && crc.contains("0x00000001"),
            "{crc}"
        );
    }
}
