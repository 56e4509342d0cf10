//! The link to the registry: its state, the first connection and the patience of every call.

use std::time::Duration;
use supervise::backoff;
use types::{ErrorKind, Fault};

use super::heartbeat::Presence;

/// The slowest pace of trying again.
pub(crate) const SLOWEST: Duration = Duration::from_secs(7);
/// Patience for a small answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);
/// Patience for an answer that moves an input, a result or a piece of log.
pub(crate) const LONG_ANSWER: Duration = Duration::from_secs(30);

/// How the agent stands with the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// No registry is wanted.
    Alone,
    /// Not registered since the start.
    Connecting {
        /// What the last try said.
        why: Option<String>,
    },
    /// Registered, and the last heartbeat was answered.
    Up,
    /// The last heartbeat was not answered.
    Lost {
        /// When that began, monotonic.
        since: Duration,
    },
    /// Another agent has registered under this node's id, and lives.
    Refused {
        /// What the registry said.
        why: String,
    },
    /// Lost for longer than `reconnect_total_timeout`.
    Away {
        /// What the try that made it so said.
        why: String,
    },
}

/// An answer of the registry, or `Unavailable` when it takes longer than `limit`.
pub(crate) async fn within<T>(
    limit: Duration,
    what: &str,
    answer: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answered) => answered,
        Err(_) => Err(Fault::unavailable(format!("{what}: the registry did not answer within {limit:?}"))),
    }
}

/// May another try, later, succeed without anybody changing a setting?
pub(crate) fn passing(fault: &Fault) -> bool {
    fault.kind.retry() || matches!(fault.kind, ErrorKind::Internal | ErrorKind::OutOfRange)
}

/// The first connection, where the process must not go on without it.
///
/// # Errors
/// What the last try said, with the address and the time that was spent; a refusal at once.
pub(crate) async fn first(presence: &Presence) -> Result<(), Fault> {
    let config = &presence.config.get();
    let registry = match config.sms_address.as_str() {
        "" => "the registry".to_owned(),
        address => format!("the registry at {address}"),
    };
    let limit = config.sms_connect_timeout;
    let (mut tries, mut last) = (0, None);
    let trying = async {
        loop {
            match presence.contact().await {
                Ok(_) => return Ok(()),
                // It answers, and registering is somebody else's business.
                Err(fault) if fault.code == "NODE_NOT_FOUND" && !config.auto_register => return Ok(()),
                Err(fault) if passing(&fault) => {
                    tracing::debug!(error = %fault, tries, "registry not reached yet");
                    last = Some(fault);
                }
                Err(fault) => return Err(fault),
            }
            tokio::time::sleep(backoff(config.sms_connect_retry, SLOWEST, tries)).await;
            tries += 1;
        }
    };
    match tokio::time::timeout(limit, trying).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(mut refused)) => {
            refused.message = format!("{registry} refuses this node: {}", refused.message);
            Err(refused)
        }
        Err(_) => {
            let why = last.map_or_else(|| "no answer".to_owned(), |fault: Fault| fault.message);
            let message = format!("cannot register with {registry} within {limit:?}: {why}");
            Err(Fault::new(ErrorKind::Unavailable, "REGISTRY_UNREACHABLE", message))
        }
    }
}
