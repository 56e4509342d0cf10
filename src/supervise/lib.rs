//! Who runs what: every task of the process has an owner, a name, a failure policy and a stop phase.
//!
//! ```text
//!   Supervisor ── scope(Phase::Intake, "sms/http") ── spawn("accept", StopProcess, |stop| …)
//!              └─ scope(Phase::Store, "store")     ── spawn("commit", StopProcess, |stop| …)
//!   stop: Intake ► Work ► Report ► Bus ► Store, each within its own share of the time
//! ```
//! A panic counts as an error. A task that outlives its phase is abandoned and named; the store never is.

mod live;
mod phase;
mod scope;
mod signal;
mod supervisor;

pub use live::{Changer, Live};
pub use phase::{Budget, Phase};
pub use scope::{OnError, Scope, ScopeStatus, Stop, TaskState, TaskStatus, backoff};
pub use signal::{reload_signal, stop_signal, stop_signals};
pub use supervisor::{Counts, Failure, Supervisor};

/// What a supervised task returns: an error is told to its policy.
pub type TaskResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

#[cfg(test)]
mod tests;
