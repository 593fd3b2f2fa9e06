//! Asks a broker for the cluster's live brokers. A connection that is accepted proves nothing:
//! Docker's proxy accepts for a container that does not listen yet.

use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Metadata, version 4 (known to every broker since 0.11), correlation id 7, no client id, no
/// topics, no topics made.
const REQUEST: [u8; 19] = [
    0, 0, 0, 15, 0, 3, 0, 4, 0, 0, 0, 7, 0xff, 0xff, 0, 0, 0, 0, 0,
];
const ANSWER: Duration = Duration::from_secs(5);

/// The ids of the brokers that are alive, as the one at this port sees it.
pub(crate) async fn live_brokers(port: u16) -> Result<Vec<i32>> {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(&REQUEST).await?;
        let length = usize::try_from(stream.read_i32().await?).unwrap_or_default();
        let mut answer = vec![0; length.min(1 << 20)];
        stream.read_exact(&mut answer).await?;
        parse(&answer).ok_or_else(|| Error::from(ErrorKind::InvalidData))
    };
    tokio::time::timeout(ANSWER, ask)
        .await
        .map_err(|_| Error::from(ErrorKind::TimedOut))?
}

fn parse(mut bytes: &[u8]) -> Option<Vec<i32>> {
    let (_correlation, _throttle) = (int32(&mut bytes)?, int32(&mut bytes)?);
    let count = int32(&mut bytes)?;
    (0..count)
        .map(|_| {
            let id = int32(&mut bytes)?;
            skip_string(&mut bytes)?; // host
            int32(&mut bytes)?; // port
            skip_string(&mut bytes)?; // rack
            Some(id)
        })
        .collect()
}

fn int32(bytes: &mut &[u8]) -> Option<i32> {
    let (value, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(i32::from_be_bytes(*value))
}

fn skip_string(bytes: &mut &[u8]) -> Option<()> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(i16::from_be_bytes(*length)).unwrap_or(0); // -1: null
    *bytes = rest.get(length..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_ids_of_an_answer() {
        let mut answer = vec![0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 2];
        answer.extend([0, 0, 0, 1, 0, 1, b'a', 0, 0, 0x23, 0x84, 0xff, 0xff]);
        answer.extend([0, 0, 0, 3, 0, 1, b'b', 0, 0, 0x23, 0x84, 0, 2, b'r', b'1']);
        assert_eq!(parse(&answer), Some(vec![1, 3]));
        assert_eq!(parse(&answer[..20]), None);
    }
}
