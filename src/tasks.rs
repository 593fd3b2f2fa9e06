//! The only place that spawns.
//!
//! Every task of a client is counted here and stopped by its owner's signal. All of them run on the
//! runtime on which the client was built, whoever starts them. A task that panics closes the whole
//! client instead of leaving it half alive, and so does the end of that runtime.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Handle, Mutex, Notify, Ordering, PoisonError};

/// The tasks of one client (or of one producer or consumer: `child`).
#[derive(Clone)]
pub(crate) struct Tasks(Arc<Inner>);

struct Inner {
    runtime: Handle,
    running: AtomicUsize,
    stopping: AtomicBool,
    /// Why everything stops: a panic or the runtime's end; left empty by an orderly stop.
    failure: Mutex<Option<Error>>,
    stop: Notify,
    idle: Notify,
    parent: Option<Tasks>,
}

impl Tasks {
    /// Tasks on the runtime of the caller.
    pub(crate) fn new() -> Result<Self> {
        let runtime = Handle::try_current().map_err(|error| {
            Error::new(
                ErrorKind::Config,
                "there is no tokio runtime here: build the client within one, \
                 for example inside of #[tokio::main]",
            )
            .with_source(error)
        })?;
        Ok(Self::with_parent(runtime, None))
    }

    /// A group of its own, on the same runtime.
    #[cfg(feature = "mock")]
    pub(crate) fn apart(&self) -> Self {
        Self::with_parent(self.0.runtime.clone(), None)
    }

    /// A group that can be stopped alone and that stops with this one.
    pub(crate) fn child(&self) -> Self {
        Self::with_parent(self.0.runtime.clone(), Some(self.clone()))
    }

    fn with_parent(runtime: Handle, parent: Option<Self>) -> Self {
        Self(Arc::new(Inner {
            runtime,
            running: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            failure: Mutex::new(None),
            stop: Notify::new(),
            idle: Notify::new(),
            parent,
        }))
    }

    /// Runs `task` until it ends or the group is stopped; dropping at any await must be safe for
    /// it.
    pub(crate) fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.0.running.fetch_add(1, Ordering::AcqRel);
        let tasks = self.clone();
        let task = Task {
            name,
            stopped: Box::pin(async move { tasks.stopped().await }),
            work: Some(Box::pin(task)),
            tasks: self.clone(),
        };
        drop(self.0.runtime.spawn(task));
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
        let mut notified = pin!(self.0.stop.notified());
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

    /// Why the group stopped, if a task panicked or the runtime ended.
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
            let mut notified = pin!(self.0.idle.notified());
            notified.as_mut().enable();
            if self.running() == 0 {
                return;
            }
            notified.await;
        }
    }

    fn fail(&self, error: Error) {
        let mut failure = self
            .0
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| error.clone());
        drop(failure);
        self.stop();
        if let Some(parent) = &self.0.parent {
            parent.fail(error);
        }
    }
}

/// A task, counted for as long as its future lives, however it ends.
struct Task {
    tasks: Tasks,
    name: &'static str,
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Until it ends.
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.stopped.as_mut().poll(cx).is_pending()
            && let Some(work) = &mut this.work
        {
            match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(())) => {}
                Err(_) => this.tasks.fail(panicked(this.name)),
            }
        }
        this.work = None;
        Poll::Ready(())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // The runtime drops what has not ended when it ends itself, and at once what is started
        // afterwards. The work, when it is dropped, may ask why.
        if let Some(work) = self.work.take() {
            if !self.tasks.is_stopping() {
                self.tasks.fail(runtime_ended());
            }
            drop(work);
        }
        if self.tasks.0.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.tasks.0.idle.notify_waiters();
        }
    }
}

fn panicked(name: &str) -> Error {
    Error::new(
        ErrorKind::Fatal,
        format!("the client's task '{name}' panicked; build a new client and report the panic"),
    )
}

fn runtime_ended() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the tokio runtime on which the client was built has ended, and the client with it: \
         build the client on a runtime that lives as long as the client is used",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stopped_group_ends_its_tasks_and_its_children() {
        let tasks = Tasks::new().unwrap();
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
        let tasks = Tasks::new().unwrap();
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

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().build().unwrap()
    }

    #[test]
    fn outside_of_a_runtime_there_are_no_tasks() {
        let error = Tasks::new().map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("tokio runtime"), "{error}");
    }

    #[test]
    fn the_end_of_the_runtime_fails_the_client_and_wakes_who_waits() {
        /// Notes what it can learn about its end when it is dropped.
        struct Asks(Tasks, Arc<Mutex<Option<Error>>>);
        impl Drop for Asks {
            fn drop(&mut self) {
                *self.1.lock().unwrap() = self.0.failure();
            }
        }
        let first = runtime();
        let told = Arc::default();
        let (tasks, child) = first.block_on(async {
            let tasks = Tasks::new().unwrap();
            let child = tasks.child();
            let asks = Asks(child.clone(), Arc::clone(&told));
            child.spawn("sleeper", async move {
                let _asks = asks;
                std::future::pending().await
            });
            tokio::task::yield_now().await;
            (tasks, child)
        });
        let waiting = std::thread::spawn({
            let tasks = tasks.clone();
            move || runtime().block_on(tasks.stopped())
        });
        assert!(tasks.failure().is_none());
        drop(first);
        waiting.join().unwrap();
        for failure in [
            tasks.failure(),
            child.failure(),
            told.lock().unwrap().take(),
        ] {
            let failure = failure.expect("a reason");
            assert_eq!(failure.kind(), ErrorKind::Closed);
            assert!(failure.to_string().contains("runtime"), "{failure}");
        }
        assert_eq!((tasks.running(), child.running()), (0, 0));
    }

    #[test]
    fn a_task_started_elsewhere_runs_on_the_clients_runtime() {
        let (first, second) = (runtime(), runtime());
        let tasks = first.block_on(async { Tasks::new().unwrap() });
        second.block_on(async { tasks.spawn("sleeper", std::future::pending()) });
        drop(second);
        assert_eq!(tasks.running(), 1);
        assert!(tasks.failure().is_none());
        drop(first);
        assert!(tasks.failure().is_some());
        // One that nobody starts any more.
        let late = runtime().block_on(async { Tasks::new().unwrap() });
        late.spawn("late", std::future::pending());
        assert!(late.failure().is_some() && late.running() == 0);
    }

    #[test]
    fn the_end_of_the_runtime_is_no_failure_of_what_was_stopped() {
        let first = runtime();
        let tasks = first.block_on(async {
            let tasks = Tasks::new().unwrap();
            tasks.spawn("sleeper", std::future::pending());
            tasks.stop();
            tasks
        });
        drop(first);
        assert!(tasks.failure().is_none());
        assert_eq!(tasks.running(), 0);
    }

    /// Tasks are started, end and panic on several threads while the group is stopped and waited
    /// for.
    #[test]
    fn whoever_waits_for_the_end_hears_of_it() {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(4).enable_time().build().unwrap();
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let planted = panic.payload().downcast_ref::<&str>() == Some(&"planted");
            if !planted {
                quiet(panic);
            }
        }));
        for round in 0..3_000 {
            let tasks = runtime.block_on(async { Tasks::new().unwrap() });
            let child = tasks.child();
            let ends = runtime.spawn({
                let (tasks, child) = (tasks.clone(), child.clone());
                async move {
                    child.stopped().await;
                    child.idle().await;
                    tasks.idle().await;
                }
            });
            let starting = std::thread::spawn({
                let (tasks, child) = (tasks.clone(), child.clone());
                move || {
                    for number in 0..6 {
                        let group = if number % 2 == 0 { &tasks } else { &child };
                        group.spawn("sleeper", std::future::pending());
                        group.spawn("worker", tokio::task::yield_now());
                    }
                }
            });
            match round % 3 {
                0 => tasks.stop(),
                1 => child.spawn("doomed", async { panic!("planted") }),
                _ => tasks.spawn("doomed", async { panic!("planted") }),
            }
            starting.join().unwrap();
            runtime.block_on(async {
                let ended = tokio::time::timeout(std::time::Duration::from_secs(60), ends);
                ended.await.expect("somebody waits for ever").unwrap();
            });
            // What is started too late ends by itself.
            runtime.block_on(child.idle());
            runtime.block_on(tasks.idle());
            assert_eq!((tasks.running(), child.running()), (0, 0));
            assert_eq!(tasks.failure().is_some(), round % 3 > 0);
        }
    }
}
