//! How an execution stands, wherever that is known from; the views of HTTP and gRPC are made of it.

use api::Disposition;
use bytes::Bytes;
use types::{Execution, ExecutionId, ExecutionStatus, LogLine, Reason, TaskId, Timestamp, Usage};

use super::{
    super::{Past, Running},
    idempotency::Answered,
};

/// An execution.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) execution: ExecutionId,
    pub(super) task: TaskId,
    pub(super) name: String,
    pub(super) instance: Option<u64>,
    pub(super) status: ExecutionStatus,
    pub(super) reason: Option<Reason>,
    pub(super) message: String,
    pub(super) exit_code: Option<i32>,
    pub(super) disposition: Option<Disposition>,
    pub(super) began: Option<Timestamp>,
    pub(super) ended: Option<Timestamp>,
    pub(super) usage: Option<Usage>,
    /// None: not kept, or it has not ended.
    pub(super) output: Option<Bytes>,
    pub(super) logs: Vec<LogLine>,
}

impl Seen {
    fn new(execution: ExecutionId, task: TaskId, status: ExecutionStatus) -> Self {
        Self {
            execution,
            task,
            name: String::new(),
            instance: None,
            status,
            reason: None,
            message: String::new(),
            exit_code: None,
            disposition: None,
            began: None,
            ended: None,
            usage: None,
            output: None,
            logs: Vec::new(),
        }
    }

    pub(super) fn of_past(past: &Past) -> Self {
        Self {
            name: past.name.to_string(),
            reason: past.reason,
            message: past.message.clone(),
            exit_code: past.exit_code,
            disposition: Some(past.disposition),
            began: Some(past.begun),
            ended: Some(past.ended),
            usage: Some(past.usage),
            output: past.answer.clone(),
            logs: past.logs.clone(),
            ..Self::new(past.execution, past.task, past.status)
        }
    }

    pub(super) fn of_running(execution: ExecutionId, running: &Running, instance: Option<u64>) -> Self {
        Self {
            name: running.name.to_string(),
            instance,
            began: Some(running.begun),
            ..Self::new(execution, running.task, ExecutionStatus::Running)
        }
    }

    /// One that the registry keeps.
    pub(super) fn of_record(record: Execution, result: Bytes) -> Self {
        let ended = record.status.terminal();
        Self {
            reason: record.reason,
            disposition: record.exit_code.map(Disposition::of_exit),
            message: record.message,
            exit_code: record.exit_code,
            began: record.started_at,
            ended: record.completed_at,
            usage: record.usage,
            output: ended.then_some(result),
            ..Self::new(record.id, record.task_id, record.status)
        }
    }

    /// One whose answer is here: what is remembered of it, with all of its output.
    pub(super) fn of_answer(task: TaskId, answered: &Answered, past: Option<Self>) -> Self {
        let execution = answered.execution;
        let seen = past.unwrap_or_else(|| match &answered.result {
            Ok(reply) if reply.ended.exit_code == 0 => Self::new(execution, task, ExecutionStatus::Completed),
            Ok(reply) => Self {
                reason: Some(Reason::Exit),
                message: format!("the guest ended with exit code {}", reply.ended.exit_code),
                ..Self::new(execution, task, ExecutionStatus::Failed)
            },
            Err(error) => Self {
                reason: Some(error.reason),
                message: error.message.clone(),
                disposition: Some(error.disposition()),
                usage: Some(error.usage),
                ..Self::new(execution, task, error.status())
            },
        });
        match &answered.result {
            Ok(reply) => Self {
                exit_code: Some(reply.ended.exit_code),
                disposition: Some(reply.ended.disposition),
                usage: Some(reply.ended.usage),
                output: Some(reply.body.clone()),
                ..seen
            },
            Err(_) => seen,
        }
    }

    /// The code of its error, if it has one: the reason in capitals.
    pub(super) fn error(&self) -> Option<(String, String)> {
        if !self.status.terminal() || self.status == ExecutionStatus::Completed {
            return None;
        }
        let word = self.reason.map_or(self.status.as_str(), Reason::as_str);
        Some((word.to_ascii_uppercase(), self.message.clone()))
    }

    /// Its function: the name, or the task where that is not known.
    pub(super) fn function(&self) -> String {
        if self.name.is_empty() { self.task.to_string() } else { self.name.clone() }
    }

    /// Time from its beginning to its end, milliseconds.
    pub(super) fn took_ms(&self) -> Option<u64> {
        match (self.began, self.ended, self.usage) {
            (Some(began), Some(ended), _) => u64::try_from(ended.millis() - began.millis()).ok(),
            (.., Some(usage)) => u64::try_from(usage.wall.as_millis()).ok(),
            _ => None,
        }
    }
}

/// The later original's word for a status.
pub(super) fn word(status: ExecutionStatus) -> &'static str {
    match status {
        ExecutionStatus::Pending => "PENDING",
        ExecutionStatus::Running => "RUNNING",
        ExecutionStatus::Completed => "COMPLETED",
        ExecutionStatus::Failed | ExecutionStatus::Lost => "FAILED",
        ExecutionStatus::Cancelled => "TERMINATED",
        ExecutionStatus::Timeout => "TIMEOUT",
    }
}
