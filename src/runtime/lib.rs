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
mod grants;
mod instance;
mod limits;
mod logs;
mod pool;
mod reply;

pub use api::InvokeError;
pub use grants::{Directory, Grants, Scratch};
pub use instance::{
    Answer, Artifact, Fingerprint, Instance, InstanceSpec, Preparation, Prepared, Reuse, Runtime, Runtimes, Streams,
};
pub use limits::Limits;
pub use logs::{LogBuffer, LogSink};
pub use pool::{InstanceState, InstanceView, Lease, Pool, PoolSettings};
pub use reply::{Closed, Piece, ReplyReader, ReplyWriter, reply};

#[cfg(test)]
mod tests;
