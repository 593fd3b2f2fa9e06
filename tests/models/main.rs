//! Types that several threads use at once, run by thousands of orders of these threads (shuttle).
//!
//! The sources are the crate's own, compiled here with `sync` replaced: every use of a lock or an
//! atomic is a place where another thread may go on. A thread that waits for ever, because nobody
//! wakes it, is found as a deadlock.
//!
//! `cargo test --test models` runs all, an argument those whose name has it; a failure prints the
//! order, to be run again by `shuttle::replay`.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod sync;

/// None of the bugs that the simulation plants.
pub const fn planted(_: &str) -> bool {
    false
}

/// What the sources need of the crate, as far as they do.
mod error {
    use std::fmt;

    pub use ottla::{Certainty, ErrorKind};

    pub type Result<T, E = Error> = std::result::Result<T, E>;

    #[derive(Clone, Debug)]
    pub struct Error(String);

    impl Error {
        pub fn new(_: ErrorKind, message: impl Into<String>) -> Self {
            Self(message.into())
        }

        pub fn with_source(self, _: impl std::error::Error) -> Self {
            self
        }
    }

    impl fmt::Display for Error {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&self.0)
        }
    }
}

mod types {
    use std::fmt;
    use std::sync::Arc;

    pub use ottla::Timestamp;

    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct TopicPartition {
        pub topic: Arc<str>,
        pub partition: i32,
    }

    impl TopicPartition {
        pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
            let topic = topic.into();
            Self { topic, partition }
        }
    }

    impl fmt::Display for TopicPartition {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}-{}", self.topic, self.partition)
        }
    }
}

#[allow(dead_code, unused_imports, clippy::all)]
#[path = "../../src/producer/budget.rs"]
mod budget;
#[allow(dead_code, unused_imports, clippy::all)]
#[path = "../../src/record/pool.rs"]
mod pool;
mod record {
    pub(crate) use super::pool;
}
#[allow(dead_code, unused_imports, clippy::all)]
#[path = "../../src/producer/delivery.rs"]
mod delivery;

#[allow(dead_code, unused_imports, clippy::all)]
#[path = "../../src/tasks.rs"]
mod tasks;

mod completion;
mod groups;
mod memory;

/// How many orders of each model are tried: at random, and with few changes of the thread.
const ORDERS: usize = 2_000;

const MODELS: &[(&str, fn())] = &[
    ("memory_is_given_to_all_who_wait", memory::all_get_it),
    (
        "memory_is_not_taken_before_those_who_wait",
        memory::nobody_overtakes,
    ),
    (
        "memory_passes_by_who_goes_away",
        memory::who_goes_away_passes_on,
    ),
    (
        "memory_that_is_closed_sends_all_away",
        memory::closing_wakes_all,
    ),
    ("the_end_of_a_group_is_heard_of", groups::idle_is_heard_of),
    ("a_stop_reaches_all_tasks", groups::stop_reaches_all),
    ("a_failure_reaches_all_who_wait", groups::failure_is_told),
    (
        "a_completed_batch_wakes_all_its_deliveries",
        completion::all_are_woken,
    ),
    (
        "a_dropped_delivery_leaves_the_others_awake",
        completion::a_drop_leaves_the_others,
    ),
    (
        "a_delivery_may_move_to_another_task",
        completion::a_moved_delivery_is_woken,
    ),
    (
        "a_split_batch_wakes_the_deliveries_of_its_pieces",
        completion::pieces_wake_theirs,
    ),
];

fn main() {
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    for (name, model) in MODELS {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        shuttle::check_random(model, ORDERS);
        shuttle::check_pct(model, ORDERS, 3);
        println!("model {name} ... ok");
    }
}
