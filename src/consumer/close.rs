//! The end of a consumer.

use std::time::Duration;

use tokio::time::timeout_at;

use super::Consumer;
use super::commands::Closing;
use super::shared::Shared;
use crate::clock::{FOREVER, now};
use crate::error::{Error, ErrorKind, Result};
use crate::group::GroupMembershipOperation;

/// How long a consumer that is dropped may take to commit and to leave its group.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

/// How a consumer ends, for [`Consumer::close_with`]; named as Kafka's (KIP-1092).
///
/// ```
/// use std::time::Duration;
/// use ottla::{CloseOptions, GroupMembershipOperation};
///
/// let options = CloseOptions::new()
///     .timeout(Duration::from_secs(10))
///     .group_membership_operation(GroupMembershipOperation::RemainInGroup);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "it does nothing until it is given to `close_with`"]
pub struct CloseOptions {
    timeout: Duration,
    operation: GroupMembershipOperation,
}

impl CloseOptions {
    /// The defaults: 30 s, and [`GroupMembershipOperation::Default`].
    pub fn new() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            operation: GroupMembershipOperation::Default,
        }
    }

    /// How long it may take. Default: 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// What becomes of the membership. Default: [`GroupMembershipOperation::Default`].
    pub fn group_membership_operation(mut self, operation: GroupMembershipOperation) -> Self {
        self.operation = operation;
        self
    }
}

impl Default for CloseOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl Consumer {
    /// Ends in order: commits what is finished if auto-commit is on, leaves the group (a static
    /// member keeps its place for the session time-out), stops the background tasks. Within 30 s;
    /// [`close_timeout`](Self::close_timeout) takes another time.
    ///
    /// What was handed out last does not count as finished, unlike in Java, where `close` commits
    /// the position: closing a consumer after an error loses nothing, and those records are read
    /// again. An application that has processed them calls [`finish`](Self::finish) or
    /// [`commit`](Self::commit) before:
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use ottla::{Batches, Consumer};
    /// # type Result = std::result::Result<(), Box<dyn std::error::Error>>;
    /// # async fn process(batches: &Batches) -> Result { Ok(()) }
    /// async fn run(consumer: &mut Consumer) -> Result {
    ///     while let Some(batches) = consumer.poll().await? {
    ///         process(&batches).await?; // what it fails with is not committed
    ///         consumer.finish(); // so that `close` commits this, whatever ends the loop
    ///     }
    ///     Ok(())
    /// }
    /// # async fn example(mut consumer: Consumer) -> Result {
    /// let outcome = run(&mut consumer).await;
    /// consumer.close_timeout(Duration::from_secs(30)).await?;
    /// outcome
    /// # }
    /// ```
    ///
    /// Streams of [`split_by_partition`](Self::split_by_partition) that are still in use end when
    /// they are asked for more. Those that have a batch in hand are waited for, for half of the
    /// time at most; what is not finished then is not committed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] if that was not done in time: the tasks are stopped all the same, and
    /// the group notices by the session time-out. [`ErrorKind::Closed`] if the runtime on which the
    /// client was built has ended: nothing could be committed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it goes on in the background.
    pub async fn close(self) -> Result<()> {
        self.close_with(CloseOptions::new()).await
    }

    /// As [`close`](Self::close), within another time.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn close_timeout(self, timeout: Duration) -> Result<()> {
        self.close_with(CloseOptions::new().timeout(timeout)).await
    }

    /// As [`close`](Self::close), with a say in whether the group is left (KIP-1092): so that a
    /// restart does not move partitions, or that a static member goes for good.
    ///
    /// ```no_run
    /// # async fn example(consumer: ottla::Consumer) -> ottla::Result<()> {
    /// use ottla::{CloseOptions, GroupMembershipOperation};
    ///
    /// let for_good = GroupMembershipOperation::LeaveGroup;
    /// consumer.close_with(CloseOptions::new().group_membership_operation(for_good)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`close`](Self::close).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it goes on in the background.
    pub async fn close_with(mut self, options: CloseOptions) -> Result<()> {
        self.closed = true;
        if crate::planted("close-finishes-what-was-handed-out") {
            self.finish();
        }
        let (began, timeout) = (now(), options.timeout.min(FOREVER));
        let deadline = began + timeout;
        self.shared.ask_to_close(Closing {
            deadline,
            patience: began + timeout / 2,
            operation: options.operation,
        });
        let tasks = &self.shared.tasks;
        let ended = async {
            tasks.stopped().await;
            tasks.idle().await;
        };
        // The tasks keep the deadline themselves, if there is a runtime that runs them.
        let ended = timeout_at(deadline, ended).await;
        if let Some(error) = tasks.failure() {
            return Err(error);
        }
        if ended.is_err() || now() >= deadline {
            tasks.stop();
            let message = "the consumer could not commit and leave its group in time";
            return Err(Error::new(ErrorKind::Timeout, message));
        }
        Ok(())
    }
}

impl Shared {
    fn ask_to_close(&self, closing: Closing) {
        self.lock().closing.get_or_insert(closing);
        self.control.notify_one();
    }
}

impl Drop for Consumer {
    /// As [`close`](Consumer::close), in the background and within 5 s; streams of single
    /// partitions are not waited for.
    fn drop(&mut self) {
        if !self.closed {
            let time = now();
            self.shared.ask_to_close(Closing {
                deadline: time + DROP_TIMEOUT,
                patience: time,
                operation: GroupMembershipOperation::Default,
            });
        }
    }
}
