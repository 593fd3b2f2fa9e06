//! One request, sent where it belongs and again until it works or the deadline passes.

use super::{Cluster, Endpoint, Target};
use crate::clock::{Instant, now};
use crate::error::classify::{self, Refresh};
use crate::error::{Certainty, Error, ErrorKind, Result};
use crate::net::Lane;
use crate::net::backoff::Backoff;
use crate::net::link::Link;
use crate::types::BrokerId;
use crate::wire::Call;

impl Cluster {
    /// Sends one request where it belongs and retries by the class of the error until the
    /// deadline: connection failures, and answers whose top-level code is retriable (metadata or
    /// coordinator are refreshed as the code says). An answer with another top-level code, and
    /// item-level codes, are the caller's.
    ///
    /// Cancel safe: nothing is left but an answer that nobody reads.
    pub(crate) async fn call<R: Call>(
        &self,
        target: Target<'_>,
        lane: Lane,
        deadline: Instant,
        build: impl Fn(i16) -> Result<R> + Send + Sync,
    ) -> Result<R::Response> {
        let mut backoff =
            Backoff::new(self.config().retry_backoff, self.config().retry_backoff_max);
        // Once an attempt to write may have been carried out, no later failure can take that back.
        let mut maybe_done = false;
        loop {
            let build = |version| Ok((version, build(version)?));
            let error = match self.attempt(target, lane, deadline, &build).await {
                Ok((_, response)) => return Ok(response),
                Err(error) => error,
            };
            maybe_done |= error.certainty() == Some(Certainty::MaybeWritten);
            let wait = backoff.fail(self.clock());
            let ended = self.inner.tasks.is_stopping();
            if !error.is_retriable() || now() + wait >= deadline || ended {
                let error = match ended {
                    true if error.is_retriable() => self.closed(),
                    _ => error,
                };
                return Err(match maybe_done {
                    true => error.with_certainty(Certainty::MaybeWritten),
                    false => error,
                }
                .context(R::NAME));
            }
            tracing::debug!(api = R::NAME, %error, "trying again");
            self.is_over(std::future::pending(), now() + wait).await;
        }
    }

    /// One attempt, which tells who answered. `build` may choose a lower version than it is
    /// offered.
    pub(super) async fn attempt<R: Call>(
        &self,
        target: Target<'_>,
        lane: Lane,
        deadline: Instant,
        build: &(impl Fn(i16) -> Result<(i16, R)> + Send + Sync),
    ) -> Result<(BrokerId, R::Response)> {
        let link = self.route(target, lane, deadline).await.inspect_err(|_| {
            // The broker may have moved; the coordinator may live elsewhere by now.
            self.refresh();
        })?;
        let (version, request) = build(link.version::<R>()?)?;
        let answer = link.ask(version, &request, deadline).await;
        let response = answer.inspect_err(|_| self.doubt(target, link.broker()))?;
        let code = R::error_code(&response);
        let meaning = classify::classify(code);
        if code == 0 || !meaning.is_retriable() {
            return Ok((link.broker(), response));
        }
        match meaning.refresh {
            Refresh::Nothing => {}
            Refresh::Metadata | Refresh::Rebootstrap => self.refresh(),
            Refresh::Coordinator => self.doubt(target, link.broker()),
        }
        Err(Error::from_code(code, format_args!("{link:?}")))
    }

    /// A broker did not serve what it was thought to be responsible for.
    fn doubt(&self, target: Target<'_>, broker: BrokerId) {
        if let Target::Coordinator(key) = target {
            self.forget_coordinator(key, broker);
        }
        self.refresh();
    }

    async fn route(&self, target: Target<'_>, lane: Lane, deadline: Instant) -> Result<Link> {
        match target {
            Target::Coordinator(key) => {
                // Boxed: finding the coordinator is itself a call.
                let broker = Box::pin(self.coordinator(key, deadline)).await?;
                self.link(broker, lane, deadline)
                    .await
                    .inspect_err(|_| self.doubt(target, broker))
            }
            Target::Controller => {
                self.ready(deadline).await?;
                let controller = self.snapshot().controller.ok_or_else(|| {
                    Error::new(
                        ErrorKind::NotLeader,
                        "the cluster has no controller at present",
                    )
                })?;
                self.link(controller, lane, deadline).await
            }
            Target::Broker(broker) => self.link(broker, lane, deadline).await,
            Target::Any => {
                self.ready(deadline).await?;
                let broker = self.any(lane).ok_or_else(|| {
                    Error::new(ErrorKind::Connection, "no broker of the cluster is known")
                })?;
                self.link_to(&broker, lane, deadline).await
            }
        }
    }

    /// A broker that is connected on the lane, or else one that may be tried.
    fn any(&self, lane: Lane) -> Option<Endpoint> {
        let snapshot = self.snapshot();
        let time = now();
        let best = snapshot.brokers.keys().min_by_key(|id| {
            let connected = self.is_connected(**id, lane);
            let retry_at = self.inner.pool.retry_at(**id).filter(|at| *at > time);
            (!connected, retry_at, self.clock().below(1 << 20))
        })?;
        self.endpoint(*best)
    }
}
