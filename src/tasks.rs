//! The only place that spawns.
//!
//! Every task of a client is counted here, stopped by its owner's signal, and a task that panics
//! closes the whole client instead of leaving it half alive.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::error::{Error, ErrorKind};

/// The tasks of one client (or of one producer or consumer: `child`).
#[derive(Clone)]
pub(crate) struct Tasks(Arc<Inner>);

struct Inner {
    running: AtomicUsize,
    stopping: AtomicBool,
    /// Why everything stops: set by a panic, or left empty by an orderly stop.
    failure: Mutex<Option<Error>>,
    stop: Notify,
    idle: Notify,
    parent: Option<Tasks>,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self::with_parent(None)
    }

    /// A group that can be stopped alone and that stops with this one.
    pub(crate) fn child(&self) -> Self {
        Self::with_parent(Some(self.clone()))
    }

    fn with_parent(parent: Option<Self>) -> Self {
        Self(Arc::new(Inner {
            running: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            failure: Mutex::new(None),
            stop: Notify::new(),
            idle: Notify::new(),
            parent,
        }))
    }

    /// Runs `task` until it ends or the group is stopped; dropping at any await must be safe for it.
    #[allow(clippy::disallowed_methods)]
    pub(crate) fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let guard = Running::enter(self.clone(), name);
        tokio::spawn(async move {
            let tasks = guard.tasks.clone();
            tokio::select! {
                biased;
                () = tasks.stopped() => {}
                () = task => {}
            }
            guard.leave();
        });
    }

    /// Completes once the group (or a group above it) is asked to stop.
    pub(crate) async fn stopped(&self) {
        match &self.0.parent {
            None => self.stopped_alone().await,
            Some(parent) => {
                tokio::select! {
                    biased;
                    () = self.stopped_alone() => {}
                    () = Box::pin(parent.stopped()) => {}
                }
            }
        }
    }

    async fn stopped_alone(&self) {
        let notified = self.0.stop.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if !self.0.stopping.load(Ordering::Acquire) {
            notified.await;
        }
    }

    /// Whether the group or one above it was asked to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
            || self.0.parent.as_ref().is_some_and(Self::is_stopping)
    }

    /// Why the group stopped, if a task panicked.
    pub(crate) fn failure(&self) -> Option<Error> {
        let own = self
            .0
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        own.or_else(|| self.0.parent.as_ref().and_then(Self::failure))
    }

    /// Asks every task of the group to stop.
    pub(crate) fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
        self.0.stop.notify_waiters();
    }

    /// How many tasks still run.
    pub(crate) fn running(&self) -> usize {
        self.0.running.load(Ordering::Acquire)
    }

    /// Waits until no task runs.
    pub(crate) async fn idle(&self) {
        loop {
            let notified = self.0.idle.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.running() == 0 {
                return;
            }
            notified.await;
        }
    }

    fn fail(&self, name: &'static str) {
        let error = Error::new(
            ErrorKind::Fatal,
            format!("the client's task '{name}' panicked; build a new client and report the panic"),
        );
        let mut failure = self
            .0
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(error);
        drop(failure);
        self.stop();
        if let Some(parent) = &self.0.parent {
            parent.fail(name);
        }
    }
}

/// Counts a task for as long as its future lives, however it ends.
struct Running {
    tasks: Tasks,
    name: &'static str,
    ended: bool,
}

impl Running {
    fn enter(tasks: Tasks, name: &'static str) -> Self {
        tasks.0.running.fetch_add(1, Ordering::AcqRel);
        Self {
            tasks,
            name,
            ended: false,
        }
    }

    fn leave(mut self) {
        self.ended = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended && std::thread::panicking() {
            self.tasks.fail(self.name);
        }
        if self.tasks.0.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.tasks.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stopped_group_ends_its_tasks_and_its_children() {
        let tasks = Tasks::new();
        let child = tasks.child();
        child.spawn("sleeper", std::future::pending());
        tasks.spawn("sleeper", std::future::pending());
        assert_eq!((tasks.running(), child.running()), (1, 1));
        tasks.stop();
        tasks.idle().await;
        child.idle().await;
        assert!(child.is_stopping());
        assert!(tasks.failure().is_none());
    }

    #[tokio::test]
    async fn a_panic_stops_the_client_and_says_which_task() {
        let tasks = Tasks::new();
        let child = tasks.child();
        child.spawn("doomed", async { panic!("planted") });
        child.idle().await;
        assert!(tasks.is_stopping());
        assert!(
            tasks
                .failure()
                .is_some_and(|error| error.to_string().contains("doomed"))
        );
    }
}
