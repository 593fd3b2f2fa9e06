//! `Tasks`: whoever waits for a stop or an end hears of it.

use shuttle::future::{block_on, yield_now};
use shuttle::thread;

use crate::sync::Handle;
use crate::tasks::Tasks;

/// Tasks end by themselves, one after the other, while somebody begins to wait for that.
pub fn idle_is_heard_of() {
    let tasks = Tasks::new().unwrap();
    for _ in 0..2 {
        tasks.spawn("worker", yield_now());
    }
    block_on(tasks.idle());
    assert_eq!(tasks.running(), 0);
    assert!(tasks.failure().is_none());
}

/// Tasks are started in a group and in one below it while it is stopped.
pub fn stop_reaches_all() {
    let tasks = Tasks::new().unwrap();
    let child = tasks.child();
    child.spawn("sleeper", std::future::pending());
    let starting = {
        let (tasks, child) = (tasks.clone(), child.clone());
        thread::spawn(move || {
            tasks.spawn("sleeper", std::future::pending());
            child.spawn("sleeper", std::future::pending());
        })
    };
    tasks.stop();
    starting.join().unwrap();
    block_on(tasks.idle());
    block_on(child.idle());
    assert_eq!((tasks.running(), child.running()), (0, 0));
    assert!(tasks.failure().is_none());
}

/// The runtime ends, as the next task notices, while others begin to wait.
pub fn failure_is_told() {
    let tasks = Tasks::new().unwrap();
    let child = tasks.child();
    let waiting = [tasks.clone(), child.clone()].map(|tasks| {
        thread::spawn(move || {
            block_on(tasks.stopped());
            // The reason is there before the stop is.
            assert!(tasks.failure().is_some());
        })
    });
    Handle::last().end();
    child.spawn("late", std::future::pending());
    for waiting in waiting {
        waiting.join().unwrap();
    }
    block_on(child.idle());
    assert!(tasks.is_stopping());
}
