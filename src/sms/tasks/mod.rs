//! Tasks: what is registered, what became of its runs, and which node gets it.
//!
//! ```text
//!   register ─► validate ─► placement ─► one batch: task + first execution (+ assignment) ─► change
//!   remove   ─► task and its own assignment at once, then each open execution is cancelled
//! ```
//! A task's record never changes. Whether it is `active` and how it ended last is computed from its executions
//! when it is read, so the two cannot disagree.

pub(crate) mod groups;
pub mod grpc;
pub mod http;
pub(crate) mod placement;
mod records;
mod service;

pub use service::Service;

#[cfg(test)]
pub(crate) use records::NewTask;

use types::{Fault, NodeId, TaskId};

/// The fault of a task that is not there.
pub(crate) fn unknown(id: TaskId) -> Fault {
    Fault::not_found("TASK_NOT_FOUND", format!("Task not found: {id}"))
}

/// A node id that may be absent or empty.
///
/// # Errors
/// Not a UUID.
pub(crate) fn optional_node(text: Option<&str>) -> Result<Option<NodeId>, Fault> {
    text.filter(|text| !text.is_empty()).map(str::parse).transpose()
}

#[cfg(test)]
mod tests;
