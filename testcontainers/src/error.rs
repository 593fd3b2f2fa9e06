use std::time::Duration;

/// Why a cluster could not be started or used.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// No Docker daemon answers.
    NoDocker(String),
    /// There is no image for this Kafka version, and none could be pulled.
    NoImage {
        /// The images that were looked for.
        tried: Vec<String>,
        /// What the pull said.
        why: String,
    },
    /// Not a Kafka version this crate knows.
    UnknownVersion(String),
    /// A setting of the cluster or a use of it makes no sense.
    Usage(String),
    /// Docker refused something.
    Docker {
        /// What was asked.
        action: String,
        /// What it said.
        why: String,
    },
    /// Something took longer than its time-out.
    TimedOut {
        /// What did not end.
        action: String,
        /// The time-out.
        after: Duration,
        /// What is known of the reason: the end of a log, most of the time.
        detail: String,
    },
    /// A tool ended with another status than 0.
    Tool {
        /// The tool and its arguments.
        command: String,
        /// Its exit status.
        status: i64,
        /// Its standard output.
        stdout: String,
        /// Its standard error.
        stderr: String,
    },
    /// A certificate could not be made.
    Certificate(String),
}

impl Error {
    pub(crate) fn docker(action: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self::Docker {
            action: action.into(),
            why: why.to_string(),
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoDocker(why) => write!(
                f,
                "no Docker daemon answers ({why}); run the command as `testcontainers/run COMMAND...`, \
                 for example `testcontainers/run cargo test`: it sets up Docker and the Kafka image"
            ),
            Self::NoImage { tried, why } => write!(
                f,
                "Docker has none of the images {}, and pulling failed ({why}); run the command as \
                 `OTTLA_KAFKA_VERSIONS=VERSION testcontainers/run COMMAND...`: it pulls or builds them",
                tried.join(", ")
            ),
            Self::UnknownVersion(version) => write!(
                f,
                "`{version}` is not a Kafka version like 4.3 or 4.3.1 (known: {})",
                crate::version::known()
            ),
            Self::Usage(why) => f.write_str(why),
            Self::Docker { action, why } => write!(f, "could not {action}: {why}"),
            Self::TimedOut {
                action,
                after,
                detail,
            } => {
                write!(f, "{action} took longer than {after:?}")?;
                if detail.is_empty() {
                    Ok(())
                } else {
                    write!(f, "\n{detail}")
                }
            }
            Self::Tool {
                command,
                status,
                stdout,
                stderr,
            } => {
                write!(
                    f,
                    "`{command}` ended with status {status}\n{stdout}{stderr}"
                )
            }
            Self::Certificate(why) => write!(f, "could not make a certificate: {why}"),
        }
    }
}

impl std::error::Error for Error {}
