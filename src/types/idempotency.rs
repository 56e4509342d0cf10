//! Requests that bring a key, so that sending them again does nothing twice.

use serde::{Deserialize, Serialize};

use crate::{ExecutionId, TaskId, Timestamp};

/// A request with an idempotency key, and what it made; written in the commit that makes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The task, or `new` where the request made one, a slash, and the sha256 of the key in hexadecimal: keys may be
    /// secrets of their callers, and are not kept.
    pub id: String,
    /// The sha256 of what was asked for, in hexadecimal.
    pub fingerprint: String,
    /// The task that was run or made.
    pub task_id: TaskId,
    /// The execution that was made; none: the task has nothing to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<ExecutionId>,
    /// When.
    pub made_at: Timestamp,
}
