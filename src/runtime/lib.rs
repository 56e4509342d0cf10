//! What can run a function: the [`Runtime`] and [`Instance`] traits, their limits, and how a guest's output
//! becomes log lines. Engines live in crates of their own (`wasm`) or in folders here.
//!
//! ```text
//!            prepare                start               invoke
//!   Absent ───────────► Prepared ───────────► Idle ◄──────────────► Busy
//!      │  PrepareError      │  StartError       │ stop                 │ trap, deadline, limit
//!      └──────► Failed ◄────┴───────────────────┴──────► Gone ◄────────┘
//! ```

pub mod conformance;
pub mod fake;
mod instance;
mod limits;
mod logs;

pub use instance::{Artifact, Fingerprint, Instance, InstanceSpec, InvokeError, Prepared, Runtime, Runtimes};
pub use limits::Limits;
pub use logs::{LogBuffer, LogSink};

#[cfg(test)]
mod tests;
