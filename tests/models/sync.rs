//! What `src/sync.rs` has, of shuttle.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

pub use std::sync::{Arc, PoisonError};

use shuttle::future::JoinHandle;
pub use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
pub use shuttle::sync::{Mutex, MutexGuard};

/// Shuttle has none: the standard one, with a place for other threads at each use.
pub struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    used: AtomicUsize,
}

impl<T> OnceLock<T> {
    pub fn new() -> Self {
        Self {
            value: std::sync::OnceLock::new(),
            used: AtomicUsize::new(0),
        }
    }

    pub fn get(&self) -> Option<&T> {
        self.used.load(Ordering::SeqCst);
        self.value.get()
    }

    pub fn set(&self, value: T) -> Result<(), T> {
        self.used.fetch_add(1, Ordering::SeqCst);
        let set = self.value.set(value);
        self.used.fetch_add(1, Ordering::SeqCst);
        set
    }
}

/// Tokio's, as far as it is used: a wait hears of every notification since it was made.
#[derive(Default)]
pub struct Notify(Mutex<(u64, Vec<Waker>)>);

pub struct Notified<'a>(&'a Notify, u64);

impl Notify {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn notified(&self) -> Notified<'_> {
        Notified(self, self.0.lock().unwrap().0)
    }

    pub fn notify_waiters(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 += 1;
        let woken = std::mem::take(&mut state.1);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Notified<'_> {
    pub fn enable(self: Pin<&mut Self>) {}
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.0.lock().unwrap();
        if state.0 != self.1 {
            return Poll::Ready(());
        }
        state.1.push(cx.waker().clone());
        Poll::Pending
    }
}

/// A runtime, which may have ended: then it drops what is started.
#[derive(Clone, Default)]
pub struct Handle(Arc<AtomicBool>);

thread_local! {
    /// All threads of a model are one to the system.
    static LAST: RefCell<Handle> = RefCell::default();
}

impl Handle {
    pub fn try_current() -> Result<Self, std::io::Error> {
        let fresh = Self(Arc::new(AtomicBool::new(false)));
        LAST.with(|last| *last.borrow_mut() = fresh.clone());
        Ok(fresh)
    }

    /// The one that was made last.
    pub fn last() -> Self {
        LAST.with(|last| last.borrow().clone())
    }

    pub fn end(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Option<JoinHandle<()>> {
        let ended = self.0.load(Ordering::SeqCst);
        (!ended).then(|| shuttle::future::spawn(task))
    }
}
