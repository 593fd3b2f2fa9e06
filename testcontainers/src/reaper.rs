//! A child process that removes what this process leaves behind, however it ends.

use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::docker::LABEL_PROCESS;

/// Waits until its standard input is closed, which the system does when this process ends.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
docker ps -aq --filter "label=$1" | xargs -r docker rm -fv
docker network ls -q --filter "label=$1" | xargs -r docker network rm
"#;

/// Keeps the child's standard input open for the life of this process.
static REAPER: OnceLock<Option<Child>> = OnceLock::new();

/// Starts the watcher once a process. Without a `docker` command there is none, and only dropping
/// a cluster removes it.
pub(crate) fn watch() {
    REAPER.get_or_init(|| {
        Command::new("sh")
            .args([
                "-c",
                SCRIPT,
                "sh",
                &format!("{LABEL_PROCESS}={}", std::process::id()),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()
    });
}
