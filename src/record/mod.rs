//! Placeholder until the record codec is merged.

/// Compression of record batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// None.
    None,
}
