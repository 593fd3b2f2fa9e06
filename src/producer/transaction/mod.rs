//! Transactions: several records and offsets that become visible together or not at all (KIP-98,
//! KIP-447, KIP-890).
//!
//! `machine.rs` decides, `driver.rs` does what it says by `requests.rs`, `verdict.rs` is the table
//! of what refusals mean, and `guard.rs` is what applications hold. The batches of a transaction go
//! the way of all others: senders only ask the machine whether a partition is part of it.

pub(super) mod driver;
mod guard;
mod machine;
#[cfg(test)]
mod machine_tests;
#[cfg(test)]
#[cfg(feature = "mock")]
mod mock_tests;
mod requests;
mod state;
mod verdict;

pub use self::guard::{CommitError, Transaction, TransactionTopic, TransactionalProducer};
pub use self::machine::TransactionOutcome;
pub(super) use self::machine::{Protocol, TransactionMachine};
pub(super) use self::state::{Sending, Transactions};
pub(super) use self::verdict::of_transaction;
