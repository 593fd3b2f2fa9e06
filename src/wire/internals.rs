//! What fuzz targets and memory tests need to reach. Outside of semver.

use bytes::Bytes;

use super::calls;
use super::versions::ApiVersionsAnswer;

/// Every answer that the client decodes: API key, lowest and highest version spoken.
pub const RESPONSES: &[(i16, i16, i16)] = calls::SPOKEN;

/// Decodes an answer's frame (after the correlation id) as a link would. True if it could be read.
///
/// API keys that are not in [`RESPONSES`] are read as ApiVersions.
#[must_use]
pub fn decode_response(key: i16, version: i16, frame: Bytes) -> bool {
    calls::decode_any(key, version, frame.clone())
        .unwrap_or_else(|| ApiVersionsAnswer::decode(frame, version).is_ok())
}
