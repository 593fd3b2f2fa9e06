//! What the types use whose use by several threads is modelled: `tests/models/` compiles their
//! files with others in this place, which try the orders in which threads may run.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

pub(crate) use tokio::runtime::Handle;
pub(crate) use tokio::sync::Notify;
