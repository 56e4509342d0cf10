//! What is told on the bus of every call: worth showing live, and nobody relies on it.

use std::sync::Arc;
use types::{ExecutionId, ExecutionStatus, Reason, TaskId, Timestamp, Usage};

/// A call of a function has begun or ended.
#[derive(Clone, Debug)]
pub struct CallSignal {
    /// Which.
    pub execution: ExecutionId,
    /// Of which task.
    pub task: TaskId,
    /// Its name.
    pub name: Arc<str>,
    /// When.
    pub at: Timestamp,
    /// How it ended; none: it has begun.
    pub ended: Option<CallEnd>,
}

/// How a call ended.
#[derive(Clone, Debug)]
pub struct CallEnd {
    /// Its status.
    pub status: ExecutionStatus,
    /// Why, where it did not end well.
    pub reason: Option<Reason>,
    /// What it used.
    pub usage: Usage,
}

impl bus::Signal for CallSignal {}
