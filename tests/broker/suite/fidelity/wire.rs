//! A client so plain that it hides nothing: one request, one answer, over one connection.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> =
    std::result::Result<T, E>;

pub(crate) struct Wire(TcpStream);

impl Wire {
    pub(crate) async fn connect(bootstrap: &str) -> Result<Self> {
        let first = bootstrap.split(',').next().unwrap_or(bootstrap);
        Ok(Self(TcpStream::connect(first).await?))
    }

    pub(crate) async fn ask<Q, A>(&mut self, key: i16, version: i16, request: &Q) -> Result<A>
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        let header = RequestHeader::default()
            .with_request_api_key(key)
            .with_request_api_version(version)
            .with_correlation_id(7)
            .with_client_id(Some(StrBytes::from_static_str("fidelity")));
        let mut body = BytesMut::new();
        header.encode(&mut body, Q::header_version(version))?;
        request.encode(&mut body, version)?;
        let mut answer = self.exchange(body).await?;
        ResponseHeader::decode(&mut answer, A::header_version(version))?;
        Ok(A::decode(&mut answer, version)?)
    }

    /// The same for a request that the generated messages do not have: the bodies, beyond flexible
    /// headers.
    pub(crate) async fn ask_bytes(&mut self, key: i16, version: i16, body: &[u8]) -> Result<Bytes> {
        let mut request = BytesMut::new();
        request.put_i16(key);
        request.put_i16(version);
        // Correlation id; no client id; no tagged fields.
        request.put_i32(7);
        request.put_i16(-1);
        request.put_u8(0);
        request.put_slice(body);
        let mut answer = self.exchange(request).await?;
        answer.advance(5);
        Ok(answer)
    }

    async fn exchange(&mut self, body: BytesMut) -> Result<Bytes> {
        let mut frame = BytesMut::new();
        frame.put_u32(body.len() as u32);
        frame.put(body);
        self.0.write_all(&frame).await?;
        let length = self.0.read_u32().await?;
        let mut answer = vec![0; length as usize];
        self.0.read_exact(&mut answer).await?;
        Ok(Bytes::from(answer))
    }
}

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// What a batch is to have that matters to brokers.
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    pub(crate) producer: i64,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
    pub(crate) count: usize,
    pub(crate) timestamp: i64,
    pub(crate) key: bool,
    pub(crate) control: bool,
    pub(crate) size: usize,
}

pub(crate) const PLAIN: Batch = Batch {
    producer: -1,
    epoch: -1,
    sequence: -1,
    count: 1,
    timestamp: 1_700_000_000_000,
    key: true,
    control: false,
    size: 10,
};

pub(crate) fn batch(batch: Batch) -> Result<Bytes> {
    let record = |number: usize| Record {
        transactional: false,
        control: batch.control,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: batch.producer,
        producer_epoch: batch.epoch,
        timestamp_type: TimestampType::Creation,
        offset: number as i64,
        sequence: match batch.sequence {
            -1 => -1,
            first => first + number as i32,
        },
        timestamp: batch.timestamp + number as i64,
        key: batch.key.then(|| Bytes::from_static(b"key")),
        value: Some(Bytes::from(vec![b'v'; batch.size])),
        headers: Default::default(),
    };
    let records: Vec<Record> = (0..batch.count).map(record).collect();
    let mut buf = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    RecordBatchEncoder::encode(&mut buf, &records, &options)?;
    Ok(buf.freeze())
}
