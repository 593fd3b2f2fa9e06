//! A child process that removes what this process leaves behind, however it ends.

use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::docker::LABEL_PROCESS;

/// Waits until its standard input is closed, which the system does when this process ends.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
docker ps -aq --filter "label=$1" | xargs -r docker rm -fv
docker network ls -q --filter "label=$1" | xargs -r docker network rm
"#;

/// Tells this process from all others that use the same Docker, also those of other machines.
static PROCESS: LazyLock<String> = LazyLock::new(|| {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!("{}-{:x}", std::process::id(), now.as_nanos())
});
/// Keeps the child's standard input open for the life of this process.
static REAPER: OnceLock<Option<Child>> = OnceLock::new();

/// The value of [`LABEL_PROCESS`].
pub(crate) fn process() -> &'static str {
    &PROCESS
}

/// Whether what is started stays for a look at it.
pub(crate) fn keeps() -> bool {
    std::env::var_os("OTTLA_CONTAINERS_KEEP").is_some_and(|value| !value.is_empty())
}

/// Starts the watcher once a process. Without a `docker` command there is none, and only dropping
/// a cluster removes it.
pub(crate) fn watch() {
    if keeps() {
        return;
    }
    REAPER.get_or_init(|| {
        Command::new("sh")
            .args([
                "-c",
                SCRIPT,
                "sh",
                &format!("{LABEL_PROCESS}={}", process()),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()
    });
}
