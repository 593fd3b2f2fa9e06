//! Which compression a producer uses, in Kafka's names and ranges.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::codec_id::Codec;
use super::error::RecordError;

/// How a producer compresses its batches: a codec and, for those that have one, a level (KIP-390).
///
/// Made by the functions named after the codecs, or parsed from Kafka's names. Which codecs a build
/// can write is decided by the cargo features of the same names; a client that asks for one that is
/// missing fails when it is built.
///
/// ```
/// use ottla::Compression;
///
/// let fast = Compression::lz4();
/// let small = Compression::zstd().with_level(9)?;
/// assert_eq!("zstd".parse::<Compression>()?, Compression::zstd());
/// assert_eq!(small.level(), Some(9));
/// assert_eq!(fast.level(), None);
/// # Ok::<(), ottla::InvalidCompression>(())
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Compression {
    /// Records are sent as they are.
    #[default]
    None,
    /// gzip: small, slow. Levels 1 (fast) to 9 (small), or -1, the default, for the library's
    /// choice, which is 6.
    #[non_exhaustive]
    Gzip {
        /// `compression.gzip.level`
        level: i32,
    },
    /// Snappy: fast. It has no levels.
    Snappy,
    /// LZ4: fast. The pure-Rust encoder has one speed, near that of the lowest levels of the C
    /// library, so a level is refused rather than ignored.
    Lz4,
    /// Zstandard: small and fast. Levels -131072 (fast) to 22 (small); the default is 3.
    #[non_exhaustive]
    Zstd {
        /// `compression.zstd.level`
        level: i32,
    },
}

const GZIP_DEFAULT_LEVEL: i32 = -1;
const GZIP_LEVELS: RangeInclusive<i32> = 1..=9;
const ZSTD_DEFAULT_LEVEL: i32 = 3;
const ZSTD_LEVELS: RangeInclusive<i32> = -131_072..=22;

impl Compression {
    /// No compression.
    ///
    /// ```
    /// assert_eq!(ottla::Compression::none(), ottla::Compression::default());
    /// ```
    pub const fn none() -> Self {
        Self::None
    }

    /// gzip at its default level.
    ///
    /// ```
    /// assert_eq!(ottla::Compression::gzip().level(), Some(-1));
    /// ```
    pub const fn gzip() -> Self {
        Self::Gzip {
            level: GZIP_DEFAULT_LEVEL,
        }
    }

    /// Snappy.
    ///
    /// ```
    /// assert_eq!(ottla::Compression::snappy().codec(), ottla::Codec::Snappy);
    /// ```
    pub const fn snappy() -> Self {
        Self::Snappy
    }

    /// LZ4.
    ///
    /// ```
    /// assert_eq!(ottla::Compression::lz4().codec(), ottla::Codec::Lz4);
    /// ```
    pub const fn lz4() -> Self {
        Self::Lz4
    }

    /// Zstandard at its default level.
    ///
    /// ```
    /// assert_eq!(ottla::Compression::zstd().level(), Some(3));
    /// ```
    pub const fn zstd() -> Self {
        Self::Zstd {
            level: ZSTD_DEFAULT_LEVEL,
        }
    }

    /// The same codec at another level.
    ///
    /// # Errors
    ///
    /// If the codec has no such level, or no levels.
    ///
    /// ```
    /// use ottla::Compression;
    ///
    /// assert!(Compression::gzip().with_level(9).is_ok());
    /// assert!(Compression::gzip().with_level(10).is_err());
    /// assert!(Compression::lz4().with_level(9).is_err());
    /// ```
    pub fn with_level(self, level: i32) -> Result<Self, InvalidCompression> {
        match self {
            Self::Gzip { .. } if level == GZIP_DEFAULT_LEVEL || GZIP_LEVELS.contains(&level) => {
                Ok(Self::Gzip { level })
            }
            Self::Zstd { .. } if ZSTD_LEVELS.contains(&level) => Ok(Self::Zstd { level }),
            _ => Err(InvalidCompression(Invalid::Level {
                codec: self.codec(),
                level,
            })),
        }
    }

    /// The codec.
    ///
    /// ```
    /// assert_eq!(ottla::Compression::zstd().codec(), ottla::Codec::Zstd);
    /// ```
    pub const fn codec(self) -> Codec {
        match self {
            Self::None => Codec::None,
            Self::Gzip { .. } => Codec::Gzip,
            Self::Snappy => Codec::Snappy,
            Self::Lz4 => Codec::Lz4,
            Self::Zstd { .. } => Codec::Zstd,
        }
    }

    /// The level, for codecs that have one.
    ///
    /// ```
    /// assert_eq!(ottla::Compression::snappy().level(), None);
    /// ```
    pub const fn level(self) -> Option<i32> {
        match self {
            Self::Gzip { level } | Self::Zstd { level } => Some(level),
            _ => None,
        }
    }

    /// Fails if this build cannot compress so; for builders, so that `BatchWriter::seal` never has
    /// to.
    pub(crate) fn check_available(self) -> Result<(), RecordError> {
        let codec = self.codec();
        if codec.can_compress() {
            return Ok(());
        }
        Err(RecordError::UnsupportedCodec {
            codec,
            feature: codec.name(),
        })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.codec().fmt(f)
    }
}

impl FromStr for Compression {
    type Err = InvalidCompression;

    /// Parses a value of Kafka's `compression.type`.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(match name {
            "none" => Self::None,
            "gzip" => Self::gzip(),
            "snappy" => Self::Snappy,
            "lz4" => Self::Lz4,
            "zstd" => Self::zstd(),
            _ => return Err(InvalidCompression(Invalid::Name(name.to_owned()))),
        })
    }
}

/// A compression that Kafka, or this crate, does not have.
///
/// ```
/// let error = "brotli".parse::<ottla::Compression>().unwrap_err();
/// assert!(error.to_string().contains("brotli"));
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InvalidCompression(Invalid);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Invalid {
    Name(String),
    Level { codec: Codec, level: i32 },
}

impl fmt::Display for InvalidCompression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Invalid::Name(name) => write!(
                f,
                "unknown compression {name:?}: use none, gzip, snappy, lz4 or zstd"
            ),
            Invalid::Level {
                codec: Codec::Gzip,
                level,
            } => {
                write!(
                    f,
                    "gzip has the levels 1 to 9 and -1 for the default, not {level}"
                )
            }
            Invalid::Level {
                codec: Codec::Zstd,
                level,
            } => {
                write!(f, "zstd has the levels -131072 to 22, not {level}")
            }
            Invalid::Level {
                codec: Codec::Lz4,
                level,
            } => {
                write!(
                    f,
                    "the lz4 encoder has one speed and would ignore the level {level}"
                )
            }
            Invalid::Level { codec, level } => {
                write!(f, "compression {codec} has no levels, so not {level}")
            }
        }
    }
}

impl std::error::Error for InvalidCompression {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in ["none", "gzip", "snappy", "lz4", "zstd"] {
            let compression: Compression = name.parse().unwrap();
            assert_eq!(compression.to_string(), name);
            assert_eq!(
                Codec::from_id(compression.codec().id()),
                Some(compression.codec())
            );
        }
        assert!("GZIP".parse::<Compression>().is_err());
        assert_eq!(Codec::from_id(5), None);
    }

    #[test]
    fn levels_have_kafkas_ranges() {
        for level in [-1, 1, 9] {
            assert_eq!(
                Compression::gzip().with_level(level).unwrap().level(),
                Some(level)
            );
        }
        for level in [-2, 0, 10] {
            assert!(Compression::gzip().with_level(level).is_err());
        }
        for level in [-131_072, 0, 22] {
            assert_eq!(
                Compression::zstd().with_level(level).unwrap().level(),
                Some(level)
            );
        }
        for level in [-131_073, 23] {
            assert!(Compression::zstd().with_level(level).is_err());
        }
        for compression in [Compression::None, Compression::Snappy, Compression::Lz4] {
            let error = compression.with_level(1).unwrap_err().to_string();
            assert!(error.contains("level"), "{error}");
        }
    }

    #[test]
    fn missing_features_are_named() {
        let zstd = Compression::zstd().check_available();
        assert_eq!(zstd.is_ok(), cfg!(feature = "zstd"));
        if let Err(error) = zstd {
            assert!(error.to_string().contains("`zstd`"));
        }
    }
}
