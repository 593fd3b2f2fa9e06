//! Requests to the coordinator of a group, to the wire and back.

use std::time::Duration;

use crate::error::Result;
use crate::wire::Call;

/// A request of a member.
pub(crate) trait GroupCall: Send + Sync {
    /// The message that says it.
    type Wire: Call;
    /// What the coordinator says to it.
    type Answer;

    /// The message in a version.
    fn build(&self, group: &str, version: i16) -> Result<Self::Wire>;

    /// The answer to the message, which was sent in that version.
    fn read(&self, version: i16, response: <Self::Wire as Call>::Response) -> Result<Self::Answer>;

    /// How long the coordinator may wait for other members before it answers.
    fn wait(&self) -> Duration {
        Duration::ZERO
    }
}
