//! What the node keeps of an execution, in the form it has on disk.
//!
//! `inbox/<id>`: accepted, perhaps started. `outbox/<id>` with `result/<id>`: ended, not yet acknowledged.
//! `done/<id>`: acknowledged; kept for a while so that a repeated assignment is recognised.

use api::control::ExecutionReport;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use types::{
    ErrorKind, ExecutionId, ExecutionStatus, Fault, Keyed, LogId, NodeId, Reason, TaskId, TaskPriority, Timestamp,
    Usage, id::clip,
};

/// Longest message of a report, characters.
const MOST_MESSAGE: usize = 4096;

/// An accepted execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Accepted {
    pub execution_id: ExecutionId,
    pub attempt: u32,
    pub task_id: TaskId,
    pub priority: TaskPriority,
    /// The registry's log it was accepted from: a registry with another one may have forgotten it.
    pub log_id: LogId,
    /// When its guest was about to begin; none: it has not begun, so it may still be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
}

impl Keyed for Accepted {
    const PREFIX: &'static str = "inbox/";

    fn id(&self) -> String {
        self.execution_id.to_string()
    }
}

/// How an execution ended; its result bytes are a record of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ending {
    pub execution_id: ExecutionId,
    pub attempt: u32,
    pub status: ExecutionStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    pub completed_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

impl Keyed for Ending {
    const PREFIX: &'static str = "outbox/";

    fn id(&self) -> String {
        self.execution_id.to_string()
    }
}

impl Ending {
    /// An ending without a guest's word.
    pub(crate) fn new(
        (execution_id, attempt): (ExecutionId, u32),
        status: ExecutionStatus,
        reason: Reason,
        message: impl Into<String>,
        completed_at: Timestamp,
    ) -> Self {
        let message = cut(message.into());
        let reason = Some(reason);
        Self {
            execution_id,
            attempt,
            status,
            reason,
            message,
            started_at: None,
            completed_at,
            exit_code: None,
            usage: None,
        }
    }

    /// As the registry wants it.
    pub(crate) fn report(&self, node: NodeId, result: Bytes) -> ExecutionReport {
        ExecutionReport {
            execution_id: self.execution_id,
            attempt: self.attempt,
            node_uuid: node,
            status: self.status,
            reason: self.reason,
            message: self.message.clone(),
            started_at: self.started_at,
            completed_at: Some(self.completed_at),
            exit_code: self.exit_code,
            usage: self.usage,
            result,
            progress: None,
        }
    }
}

/// An execution that is over and acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    pub execution_id: ExecutionId,
    pub attempt: u32,
}

impl Keyed for Done {
    const PREFIX: &'static str = "done/";

    fn id(&self) -> String {
        self.execution_id.to_string()
    }
}

/// Key of an execution's result bytes.
pub(crate) fn result_key(id: ExecutionId) -> String {
    format!("{RESULTS}{id}")
}

/// Where results lie.
pub(crate) const RESULTS: &str = "result/";

/// A message that fits into a report.
pub(crate) fn cut(message: String) -> String {
    match message.char_indices().nth(MOST_MESSAGE) {
        Some((end, _)) => format!("{}…", message.get(..end).unwrap_or(&clip(&message))),
        None => message,
    }
}

/// Does an answer of the registry mean that it does not want this attempt's word any more?
pub(crate) fn unwanted(fault: &Fault) -> bool {
    matches!(fault.kind, ErrorKind::NotFound | ErrorKind::Conflict)
}
