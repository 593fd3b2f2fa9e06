//! One connection to one broker for one lane.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::clock::Instant;
use crate::error::{Error, Result};
use crate::types::BrokerId;
use crate::wire::Call;
use crate::wire::produce::ProduceBody;

/// A handle to an open connection whose versions are negotiated. Cheap to clone.
///
/// Requests are written in the order of the `send` calls and may be awaited in any order. A dropped
/// [`Pending`] abandons only the observation: the answer is read and discarded.
#[derive(Clone, Debug)]
pub(crate) struct Link {}

impl Link {
    /// The broker at the other end.
    pub(crate) fn broker(&self) -> BrokerId {
        todo!()
    }

    /// Whether the connection still takes requests. Once false it stays false: ask the cluster for a new link.
    pub(crate) fn is_open(&self) -> bool {
        todo!()
    }

    /// Completes when the connection has ended.
    pub(crate) async fn closed(&self) {
        todo!()
    }

    /// The version to speak for `R`; an error that says so when the broker is too old.
    pub(crate) fn version<R: Call>(&self) -> Result<i16> {
        todo!()
    }

    /// Puts a request in line; its place among the link's requests is fixed when this returns.
    ///
    /// The error of a `Pending` carries [`Certainty`](crate::Certainty): `NotSent` if no byte of the
    /// request left the client. Throttle times in answers are honoured by the link (KIP-219): it
    /// holds back later requests.
    pub(crate) fn send<R: Call>(&self, version: i16, request: &R, deadline: Instant) -> Pending<R> {
        let _ = (version, request, deadline);
        todo!()
    }

    /// Puts a Produce request in line. With `acks` 0 there is no answer: the `Pending` completes
    /// with a default response when the request is written.
    pub(crate) fn send_produce(
        &self,
        version: i16,
        acks: i16,
        timeout_ms: i32,
        transactional_id: Option<&str>,
        body: &ProduceBody,
        deadline: Instant,
    ) -> Pending<kafka_protocol::messages::ProduceRequest> {
        let _ = (version, acks, timeout_ms, transactional_id, body, deadline);
        todo!()
    }
}

/// An answer under way.
#[must_use = "an answer nobody awaits is discarded"]
pub(crate) struct Pending<R: Call>(PhantomData<fn() -> R>);

impl<R: Call> Future for Pending<R> {
    type Output = Result<R::Response, Error>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        todo!()
    }
}
