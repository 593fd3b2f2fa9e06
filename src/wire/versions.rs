//! Which versions both ends speak (KIP-35).

use bytes::{Buf, Bytes};

use super::Call;
use crate::error::{Class, Error, ErrorKind, Result};

/// API keys beyond this are of no interest to a client.
const KEYS: usize = 128;
/// What a broker that lacks a request altogether offers: an empty range.
const NONE: (i16, i16) = (0, -1);

/// The version ranges that a broker offered on a connection.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Versions([(i16, i16); KEYS]);

impl Versions {
    /// The highest version of `R` that both ends speak.
    pub(crate) fn pick<R: Call>(&self) -> Result<i16> {
        let (low, high) = self.offered(R::KEY);
        let version = high.min(R::SPOKEN.1);
        if low <= version && R::SPOKEN.0 <= version {
            return Ok(version);
        }
        let offer = match low <= high {
            true => format!("the broker offers versions {low} to {high}"),
            false => "the broker does not offer it".to_owned(),
        };
        Err(Error::new(
            ErrorKind::UnsupportedVersion,
            format!(
                "{}: this client speaks versions {} to {}, {offer}; Kafka 2.8 or newer is needed",
                R::NAME,
                R::SPOKEN.0,
                R::SPOKEN.1
            ),
        ))
    }

    fn offered(&self, key: i16) -> (i16, i16) {
        usize::try_from(key)
            .ok()
            .and_then(|key| self.0.get(key))
            .copied()
            .unwrap_or(NONE)
    }
}

/// What the cluster as a whole has switched on (KIP-584), as the broker knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    /// Grows with each change; -1 where the broker tells of none.
    pub(crate) epoch: i64,
    /// The finalized `transaction.version`; 0 where there is none.
    pub(crate) transaction_version: i16,
}

impl Features {
    pub(crate) const UNKNOWN: Self = Self {
        epoch: -1,
        transaction_version: 0,
    };

    /// Reads them from the tagged fields of an answer: the epoch is field 1, the features are
    /// field 2.
    fn read(buf: &mut Bytes) -> Result<Self, bytes::TryGetError> {
        let mut features = Self::UNKNOWN;
        for _ in 0..varint(buf)? {
            let tag = varint(buf)?;
            let size = varint(buf)? as usize;
            let mut field = take(buf, size)?;
            match tag {
                1 => features.epoch = field.try_get_i64()?,
                2 => {
                    for _ in 1..varint(&mut field)? {
                        let length = (varint(&mut field)? as usize).saturating_sub(1);
                        let name = take(&mut field, length)?;
                        let level = field.try_get_i16()?;
                        // The lowest finalized level, which no feature uses.
                        field.try_get_i16()?;
                        skip_tags(&mut field)?;
                        if name == "transaction.version" {
                            features.transaction_version = level;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(features)
    }
}

/// An ApiVersions answer, read by hand: it is the one answer that may come in a version that was
/// not asked for (0, when the broker does not know the asked one; KIP-511), and its old versions
/// have fixed-size counts that the guard cannot see.
pub(crate) struct ApiVersionsAnswer {
    pub(crate) error_code: i16,
    pub(crate) versions: Versions,
    pub(crate) features: Features,
}

impl ApiVersionsAnswer {
    /// Reads a body asked for in `version` (the correlation id is already off).
    pub(crate) fn decode(mut body: Bytes, version: i16) -> Result<Self> {
        let unreadable = || {
            Error::new(
                ErrorKind::Protocol,
                "the ApiVersions answer cannot be read: the peer does not speak Kafka's protocol, or its bytes are damaged",
            )
            .with_class(Class::Retriable)
        };
        let damaged = |_: bytes::TryGetError| unreadable();
        let error_code = body.try_get_i16().map_err(damaged)?;
        // A refusal comes in version 0 whatever was asked.
        let flexible = version >= 3 && error_code == 0;
        let count = match flexible {
            true => (varint(&mut body).map_err(damaged)? as usize).saturating_sub(1),
            false => {
                let count = body.try_get_i32().map_err(damaged)?;
                usize::try_from(count).map_err(|_| unreadable())?
            }
        };
        let mut versions = Versions([NONE; KEYS]);
        for _ in 0..count {
            let key = body.try_get_i16().map_err(damaged)?;
            let range = (
                body.try_get_i16().map_err(damaged)?,
                body.try_get_i16().map_err(damaged)?,
            );
            if flexible {
                skip_tags(&mut body).map_err(damaged)?;
            }
            let slot = usize::try_from(key)
                .ok()
                .and_then(|key| versions.0.get_mut(key));
            if let Some(slot) = slot {
                *slot = range;
            }
        }
        let mut features = Features::UNKNOWN;
        if flexible {
            // The throttle time; it does not count on a new connection.
            body.try_get_i32().map_err(damaged)?;
            features = Features::read(&mut body).map_err(damaged)?;
            if body.has_remaining() {
                return Err(unreadable());
            }
        }
        Ok(Self {
            error_code,
            versions,
            features,
        })
    }

    /// The highest ApiVersions version that the broker offers, at most `ours`.
    pub(crate) fn api_versions(&self, ours: i16) -> Option<i16> {
        const KEY: i16 = 18;
        let (low, high) = self.versions.offered(KEY);
        (low <= high)
            .then_some(high.min(ours))
            .filter(|version| *version >= 0)
    }
}

fn varint(buf: &mut Bytes) -> Result<u32, bytes::TryGetError> {
    let mut value = 0;
    for shift in [0, 7, 14, 21, 28] {
        let byte = buf.try_get_u8()?;
        value |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    Ok(value)
}

fn skip_tags(buf: &mut Bytes) -> Result<(), bytes::TryGetError> {
    for _ in 0..varint(buf)? {
        varint(buf)?;
        let size = varint(buf)? as usize;
        take(buf, size)?;
    }
    Ok(())
}

fn take(buf: &mut Bytes, size: usize) -> Result<Bytes, bytes::TryGetError> {
    match size <= buf.len() {
        true => Ok(buf.split_to(size)),
        false => Err(bytes::TryGetError {
            requested: size,
            available: buf.len(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::{CreateTopicsRequest, FetchRequest, MetadataRequest};

    fn answer(version: i16, keys: &[(i16, i16, i16)]) -> Bytes {
        let mut body = vec![0, 0];
        match version {
            3.. => body.push(keys.len() as u8 + 1),
            _ => body.extend_from_slice(&(keys.len() as i32).to_be_bytes()),
        }
        for (key, low, high) in keys {
            for part in [key, low, high] {
                body.extend_from_slice(&part.to_be_bytes());
            }
            if version >= 3 {
                body.push(0);
            }
        }
        body.extend_from_slice(&[0; 5]);
        Bytes::from(body)
    }

    #[test]
    fn picks_the_highest_common_version() {
        for version in [0, 3, 4] {
            let body = answer(version, &[(3, 0, 10), (1, 4, 99), (18, 0, 4), (300, 0, 1)]);
            let answer = ApiVersionsAnswer::decode(body, version).unwrap();
            assert_eq!(answer.versions.pick::<MetadataRequest>().unwrap(), 10);
            assert_eq!(
                answer.versions.pick::<FetchRequest>().unwrap(),
                FetchRequest::SPOKEN.1
            );
            assert_eq!(answer.api_versions(4), Some(4));
            let missing = answer.versions.pick::<CreateTopicsRequest>().unwrap_err();
            assert_eq!(missing.kind(), ErrorKind::UnsupportedVersion);
        }
    }

    #[test]
    fn finalized_features_are_read_and_damaged_ones_end_with_the_bytes() {
        let mut body = answer(3, &[(18, 0, 4)]).to_vec();
        body.pop(); // no tagged fields
        let name = b"transaction.version";
        let mut features = vec![3, 1 + 3];
        features.extend_from_slice(b"abc\0\x09\0\x09\0");
        features.push(1 + name.len() as u8);
        features.extend_from_slice(name);
        features.extend_from_slice(&[0, 2, 0, 2, 0]);
        body.extend_from_slice(&[3, 0, 1, 0]); // an unknown field before them
        body.pop();
        body.extend_from_slice(&[7, 1, 8]);
        body.extend_from_slice(&77_i64.to_be_bytes());
        body.extend_from_slice(&[2, features.len() as u8]);
        body.extend_from_slice(&features);
        let read = |body: &[u8]| ApiVersionsAnswer::decode(Bytes::copy_from_slice(body), 3);
        let expected = Features {
            epoch: 77,
            transaction_version: 2,
        };
        assert_eq!(read(&body).unwrap().features, expected);
        for end in 0..body.len() {
            assert!(read(&body[..end]).is_err(), "{end}");
        }
        let without = read(&answer(3, &[(18, 0, 4)])).unwrap();
        assert_eq!(without.features, Features::UNKNOWN);
    }

    #[test]
    fn a_broker_too_old_is_told_apart() {
        let answer = ApiVersionsAnswer::decode(answer(0, &[(3, 0, 5)]), 0).unwrap();
        let error = answer.versions.pick::<MetadataRequest>().unwrap_err();
        assert!(
            error.to_string().contains("offers versions 0 to 5"),
            "{error}"
        );
    }

    #[test]
    fn a_refusal_is_read_in_version_0() {
        let mut body = vec![0, 35, 0, 0, 0, 1];
        body.extend_from_slice(&[0, 18, 0, 0, 0, 3]);
        let answer = ApiVersionsAnswer::decode(Bytes::from(body), 4).unwrap();
        assert_eq!((answer.error_code, answer.api_versions(4)), (35, Some(3)));
    }

    #[test]
    fn hostile_counts_end_with_the_bytes() {
        for version in [0, 3] {
            let body = Bytes::from_static(&[0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]);
            assert!(ApiVersionsAnswer::decode(body, version).is_err());
        }
    }
}
