//! The producer's control task: gets its identity, follows the cluster, looks up topics in the
//! background, and closes the producer when its last handle is gone.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};
use tokio::time::sleep_until;

use crate::clock::{Instant, now};
use crate::cluster::{Cluster, Interest, Target};
use crate::error::{Error, Result};
use crate::log_throttle::LogThrottle;
use crate::net::Lane;
use crate::net::backoff::Backoff;
use crate::producer::identity::Identity;
use crate::producer::shared::Shared;

/// How long a producer whose handles are all gone goes on delivering.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Runs until the producer is closed. However it ends, nothing accepted is left without an end.
pub(crate) fn run(shared: Arc<Shared>) -> impl Future<Output = ()> + Send {
    // Made here, not in the future: the task may be stopped before it is polled once.
    let guard = FailRest(Arc::clone(&shared));
    async move {
        let _guard = guard;
        follow(shared).await;
    }
}

async fn follow(shared: Arc<Shared>) {
    let config = shared.cluster.config();
    let mut control = Control {
        backoff: Backoff::new(config.retry_backoff, config.retry_backoff_max),
        asking: None,
        ask_after: None,
        interests: Vec::new(),
        failed: false,
        failures: LogThrottle::default(),
        look_for_idle: now() + shared.config.metadata_max_idle,
        shared,
    };
    let mut changes = control.shared.cluster.changes();
    control.shared.apply();
    loop {
        if control.shared.abandoned.load(Ordering::Acquire) {
            let shared = Arc::clone(&control.shared);
            let mut closing = std::pin::pin!(shared.close(LAST_WORDS));
            // The rest goes on meanwhile: leaders may move, an identity may be missing.
            loop {
                tokio::select! {
                    biased;
                    _ = &mut closing => return,
                    () = control.turn(&mut changes) => {}
                }
            }
        }
        control.turn(&mut changes).await;
    }
}

/// Ends what is left when the task ends, be it by a panic elsewhere or the end of the client.
struct FailRest(Arc<Shared>);

impl Drop for FailRest {
    fn drop(&mut self) {
        self.0.fail_all(&self.0.end());
        self.0.cluster.end_role();
    }
}

struct Control {
    shared: Arc<Shared>,
    asking: Option<Asking>,
    ask_after: Option<Instant>,
    backoff: Backoff,
    /// Topics looked for on behalf of calls that do not wait, and until when.
    interests: Vec<(Arc<str>, Instant, Interest)>,
    /// Whether everything was ended because the producer cannot go on.
    failed: bool,
    failures: LogThrottle,
    /// When to forget topics that are idle then.
    look_for_idle: Instant,
}

type Asking = Pin<Box<dyn Future<Output = Result<Identity>> + Send>>;

impl Control {
    /// Does what is due, waits for one event, and takes it in.
    ///
    /// Cancel safe: what an event brought is taken in without waiting.
    async fn turn(&mut self, changes: &mut crate::cluster::Changes) {
        self.ask();
        self.look_for_topics();
        let failure = self.shared.identity().failure().cloned();
        if let Some(failure) = failure
            && !std::mem::replace(&mut self.failed, true)
        {
            tracing::error!(error = %failure, "the producer cannot go on");
            self.shared.fail_all(&failure);
        }
        let asking = async {
            match &mut self.asking {
                Some(asking) => asking.await,
                None => std::future::pending().await,
            }
        };
        let next = self
            .interests
            .iter()
            .map(|(_, until, _)| *until)
            .chain(self.ask_after)
            .fold(self.look_for_idle, Instant::min);
        tokio::select! {
            biased;
            result = asking => self.answered(result),
            _ = changes.changed() => self.shared.apply(),
            () = self.shared.control.notified() => {}
            () = sleep_until(next) => {
                if self.look_for_idle <= now() {
                    let idle = self.shared.config.metadata_max_idle;
                    self.shared.forget_idle(idle);
                    // So none is kept for more than one and a half times as long.
                    self.look_for_idle = now() + idle / 2;
                }
                if self.ask_after.is_some_and(|at| at <= now()) {
                    self.ask_after = None;
                }
            }
        }
    }

    fn ask(&mut self) {
        if self.asking.is_none() && self.ask_after.is_none() && self.shared.identity().poll() {
            let cluster = self.shared.cluster.clone();
            self.asking = Some(Box::pin(async move { init_producer_id(&cluster).await }));
        }
    }

    fn answered(&mut self, result: Result<Identity>) {
        self.asking = None;
        match &result {
            Ok(identity) => {
                self.failures.reset();
                tracing::debug!(?identity, "got a producer id");
                self.backoff.succeed();
            }
            Err(error) => {
                match self.failures.pass(now()) {
                    Some(untold) => tracing::warn!(%error, untold, "no producer id yet"),
                    None => tracing::debug!(%error, "no producer id yet"),
                }
                self.ask_after = Some(now() + self.backoff.fail(self.shared.cluster.clock()));
            }
        }
        self.shared.identity().answered(result);
        self.shared.wake_senders();
    }

    fn look_for_topics(&mut self) {
        let wanted = self.shared.take_wanted();
        if wanted.is_empty() && self.interests.is_empty() {
            return;
        }
        let time = now();
        let until = time + self.shared.config.max_block;
        for name in wanted {
            if !self.interests.iter().any(|(known, _, _)| *known == name) {
                let interest = self.shared.cluster.watch(std::slice::from_ref(&name), true);
                self.interests.push((name, until, interest));
            }
        }
        let snapshot = self.shared.cluster.snapshot();
        let shared = &self.shared;
        self.interests.retain(|(name, until, _)| {
            let found = snapshot.topic(name);
            if let Some(topic) = found {
                shared.add_topic(topic);
            }
            let over = found.is_some() || *until <= time;
            if over {
                shared.found(name);
            }
            !over
        });
    }
}

async fn init_producer_id(cluster: &Cluster) -> Result<Identity> {
    let deadline = now() + cluster.config().api_timeout;
    let build = |_version| {
        Ok(InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(i32::MAX)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1))
    };
    let response = cluster
        .call(Target::Any, Lane::Metadata, deadline, build)
        .await?;
    if response.error_code != 0 {
        return Err(Error::from_code(response.error_code, "InitProducerId"));
    }
    Ok(Identity {
        id: response.producer_id.0,
        epoch: response.producer_epoch,
    })
}
