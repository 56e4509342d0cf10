//! Executions: one run of a task, and its state machine.
//!
//! ```text
//!             assign               accept               report
//!   pending ─────────► pending ─────────────► running ─────────► completed | failed | timeout
//!   (no node)          (node)                    │    cancel
//!      └────────────────┴────────────────────────┴─────────────► cancelled
//!                                                │ node gone
//!                                                └─────────────► lost ──► (a late report still counts)
//! ```
//! A terminal status never changes, except that `lost` yields to the late report of the same attempt.

use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

use crate::{ExecutionId, NodeId, TaskId, Timestamp, Usage};

/// Where an execution stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutionStatus {
    /// Waits for a node, or for its node to begin.
    Pending,
    /// The node has it: fetches, compiles or runs.
    Running,
    /// Ended well.
    Completed,
    /// Ended badly; the reason says how.
    Failed,
    /// Stopped by request.
    Cancelled,
    /// Stopped at its deadline.
    Timeout,
    /// Its node went away.
    Lost,
}

impl ExecutionStatus {
    /// Every status.
    pub const ALL: [Self; 7] =
        [Self::Pending, Self::Running, Self::Completed, Self::Failed, Self::Cancelled, Self::Timeout, Self::Lost];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
            Self::Lost => "lost",
        }
    }

    /// The value of a word, in any case.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| word.eq_ignore_ascii_case(status.as_str()))
    }

    /// Has it ended?
    pub fn terminal(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }

    /// May a report move an execution from here to `next`?
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Pending => next != Self::Pending,
            Self::Running => next != Self::Pending,
            Self::Lost => next.terminal() && next != Self::Lost,
            Self::Completed | Self::Failed | Self::Cancelled | Self::Timeout => false,
        }
    }
}

impl fmt::Display for ExecutionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an execution ended, or why it waits; more exact than the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The guest trapped: unreachable code, a bad memory access, a division by zero, stack overflow.
    Trap,
    /// The guest ended with a non-zero exit code.
    Exit,
    /// The guest asked for more memory than it may have and ended because of it.
    Memory,
    /// The guest wrote more than it may.
    Output,
    /// The module could not be compiled within its limits.
    Compile,
    /// The bytes are not a module this node can run.
    InvalidModule,
    /// The artifact could not be fetched, or is not what was promised.
    Artifact,
    /// The deadline passed.
    Deadline,
    /// The queue was full or the wait too long.
    Queue,
    /// The node went away.
    NodeLost,
    /// No node can take it now.
    NoNode,
    /// Stopped by request.
    Cancelled,
    /// The node has no runtime for it, or it is switched off.
    Runtime,
    /// The task is gone or has nothing to run.
    Task,
    /// A defect of Spear; the log has the cause.
    Internal,
}

impl Reason {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Exit => "exit",
            Self::Memory => "memory",
            Self::Output => "output",
            Self::Compile => "compile",
            Self::InvalidModule => "invalid_module",
            Self::Artifact => "artifact",
            Self::Deadline => "deadline",
            Self::Queue => "queue",
            Self::NodeLost => "node_lost",
            Self::NoNode => "no_node",
            Self::Cancelled => "cancelled",
            Self::Runtime => "runtime",
            Self::Task => "task",
            Self::Internal => "internal",
        }
    }

    /// The value of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::Trap,
            Self::Exit,
            Self::Memory,
            Self::Output,
            Self::Compile,
            Self::InvalidModule,
            Self::Artifact,
            Self::Deadline,
            Self::Queue,
            Self::NodeLost,
            Self::NoNode,
            Self::Cancelled,
            Self::Runtime,
            Self::Task,
            Self::Internal,
        ]
        .into_iter()
        .find(|reason| reason.as_str() == word)
    }
}

/// How far preparation has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// `fetch`, `compile` or `run`.
    pub phase: String,
    /// Bytes done.
    #[serde(default)]
    pub done_bytes: u64,
    /// Bytes in all, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
}

/// One run of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// Its id, ordered by creation.
    pub id: ExecutionId,
    /// Whose run.
    pub task_id: TaskId,
    /// Where; none while no node is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_uuid: Option<NodeId>,
    /// 1 for the first; a report for another attempt is not applied.
    pub attempt: u32,
    /// Was it made with its task (and not by a later run)?
    #[serde(default)]
    pub first: bool,
    /// Status.
    pub status: ExecutionStatus,
    /// Why it ended or waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The reason in a sentence.
    #[serde(default)]
    pub message: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When the node began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
    /// When this record changed last.
    pub updated_at: Timestamp,
    /// Its time limit in milliseconds; none: the node's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What the guest returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What its guest used; none: it has not ended, or no guest began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Bytes of result (standard output); the bytes themselves are a record of their own.
    #[serde(default)]
    pub result_bytes: u64,
    /// Bytes of input; the bytes themselves are a record of their own.
    #[serde(default)]
    pub input_bytes: u64,
    /// How far preparation has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Has somebody asked to stop it?
    #[serde(default)]
    pub cancel_requested: bool,
    /// The trace that it belongs to, as W3C's `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Who is told when it has ended; how that goes is a record of its own, [`crate::Callback`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_url: Option<String>,
    /// Id of the [`crate::Remembered`] request that made it, if that brought an idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remembered: Option<String>,
}

impl Execution {
    /// Its time limit.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout_ms.map(Duration::from_millis)
    }
}

/// What a node should do about an execution. A record under the node's own prefix, so that the node's
/// stream is its work list, and listing it again repairs any gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// For which node.
    pub node_uuid: NodeId,
    /// Which task.
    pub task_id: TaskId,
    /// Which run; none: the task has nothing to run, the node is only told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<ExecutionId>,
    /// Which attempt.
    #[serde(default)]
    pub attempt: u32,
    /// What to do.
    pub kind: AssignmentKind,
    /// When it was assigned.
    pub at: Timestamp,
}

/// What a node should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AssignmentKind {
    /// Run it: the task's first execution.
    Create,
    /// Run it again.
    Run,
    /// Stop it.
    Cancel,
}

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output of the guest.
    Stdout,
    /// Standard error of the guest.
    Stderr,
    /// Spear itself.
    System,
}

impl LogStream {
    /// `stdout`, `stderr` or `system`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::System => "system",
        }
    }

    /// The value of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Stdout, Self::Stderr, Self::System].into_iter().find(|stream| stream.as_str() == word)
    }
}

/// One line of an execution's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was written on the node, milliseconds since the epoch.
    pub ts_ms: i64,
    /// Its number within the execution, from 1, without gaps.
    pub seq: u64,
    /// Where it came from.
    pub stream: LogStream,
    /// `info` for output, else the level.
    pub level: String,
    /// The line without its end; bytes that are not UTF-8 are replaced.
    pub message: String,
    /// The bytes of the line without its line feed, in base64, where they are others than those of `message`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_base64: Option<String>,
    /// No line feed follows: the line goes on in the next of its stream, or it was the last.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unterminated: bool,
}
