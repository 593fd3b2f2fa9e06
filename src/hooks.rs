//! Chains of interceptors, whatever they intercept.
//!
//! Invariants: none is called under a lock; a panic in one is caught, told once per interceptor and
//! hook, and changes nothing for the client; without interceptors the paths of records do not know
//! of them.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Interceptors in the order in which they were set.
pub(crate) struct Chain<T: ?Sized>(Vec<Arc<Member<T>>>);

struct Member<T: ?Sized> {
    interceptor: Box<T>,
    /// By hook, whether its panic was told.
    told: [AtomicBool; 2],
}

/// The place in `told`, and the method's name.
pub(crate) type Hook = (usize, &'static str);

impl<T: ?Sized> Chain<T> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn push(&mut self, interceptor: Box<T>) {
        self.0.push(Arc::new(Member {
            interceptor,
            told: Default::default(),
        }));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Calls one hook of all.
    pub(crate) fn each(&self, (index, method): Hook, mut call: impl FnMut(&T)) {
        for (place, member) in self.0.iter().enumerate() {
            let outcome = catch_unwind(AssertUnwindSafe(|| call(&member.interceptor)));
            if outcome.is_err()
                && let Some(told) = member.told.get(index)
                && !told.swap(true, Ordering::Relaxed)
            {
                tracing::error!(
                    interceptor = place,
                    method,
                    "an interceptor panicked; it is called all the same, and this is not said again"
                );
            }
        }
    }
}

impl<T: ?Sized> Clone for Chain<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: ?Sized> fmt::Debug for Chain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain({})", self.0.len())
    }
}
