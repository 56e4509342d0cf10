//! Executions as REST shows them.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use net::usage::UsageView;
use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc};
use types::{Callback, CallbackStatus, Execution, Fault, Task};
use utoipa::ToSchema;

use super::Service;

/// Longest result that is part of the answer; longer ones are fetched by their path.
const MOST_INLINE: usize = 1 << 20;

/// Where the log of an execution lies.
#[derive(Serialize, ToSchema)]
pub(super) struct LogRef {
    /// Always `sms`: the registry keeps it.
    backend: &'static str,
    /// Its path.
    uri_prefix: String,
    /// Always `application/x-ndjson`.
    content_type: &'static str,
    /// Always empty: not compressed.
    compression: &'static str,
}

/// What an execution wrote to standard output.
#[derive(Serialize, ToSchema)]
pub(super) struct ResultView {
    /// Bytes.
    size: u64,
    /// Path of the raw bytes.
    uri: String,
    /// The bytes as text, when they are UTF-8 and at most 1 MiB. Only where one execution is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The bytes in base64, when they are not UTF-8 and at most 1 MiB. Only where one execution is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// How far preparation has come.
#[derive(Serialize, ToSchema)]
pub(super) struct ProgressView {
    /// `fetch`, `compile` or `run`.
    phase: String,
    /// Bytes done.
    done_bytes: u64,
    /// Bytes in all, when known.
    total_bytes: Option<u64>,
}

/// How the telling of an execution's end goes.
#[derive(Serialize, ToSchema)]
#[schema(as = Callback)]
pub(super) struct CallbackView {
    /// Who is told.
    url: String,
    /// `pending`, `delivered` or `failed`.
    status: &'static str,
    /// How often it was tried.
    tries: u32,
    /// Why the last try failed; null when it did not.
    last_error: Option<String>,
    /// When it is tried next; null before the end of the execution and when nothing more is tried.
    next_try_ms: Option<i64>,
}

impl From<Arc<Callback>> for CallbackView {
    fn from(callback: Arc<Callback>) -> Self {
        let next_try_at = callback.next_try_at.filter(|_| callback.status == CallbackStatus::Pending);
        Self {
            url: callback.url.clone(),
            status: callback.status.as_str(),
            tries: callback.tries,
            last_error: callback.last_error.clone(),
            next_try_ms: next_try_at.map(types::Timestamp::millis),
        }
    }
}

/// One run of a task. Times are milliseconds since 1970-01-01 UTC, null for never.
#[derive(Serialize, ToSchema)]
#[schema(as = Execution)]
pub(crate) struct ExecutionView {
    /// Its id.
    #[schema(format = Uuid)]
    execution_id: String,
    /// The same: a call makes one execution.
    #[schema(format = Uuid)]
    invocation_id: String,
    /// Whose run.
    #[schema(format = Uuid)]
    task_id: String,
    /// Name of the executable, or of the task; empty when the task is gone.
    function_name: String,
    /// Where it runs or ran; empty while no node is found.
    node_uuid: String,
    /// Always empty: an execution has an instance of its own.
    instance_id: String,
    /// `pending`, `running`, `completed`, `failed`, `cancelled`, `timeout` or `lost`.
    status: &'static str,
    /// Why it waits or ended: `no_node`, `trap`, `exit`, `memory`, `output`, `compile`, `invalid_module`,
    /// `artifact`, `deadline`, `queue`, `node_lost`, `cancelled`, `runtime`, `task` or `internal`.
    reason: Option<&'static str>,
    /// The reason in a sentence.
    message: String,
    /// Counts the nodes it was given to; a report of an older one is refused.
    attempt: u32,
    /// Was it made with its task?
    first: bool,
    /// What the guest returned.
    exit_code: Option<i32>,
    /// What it used; null before it has ended, and when no guest began.
    usage: Option<UsageView>,
    /// When it was asked for.
    created_at_ms: i64,
    /// When the node began.
    started_at_ms: Option<i64>,
    /// When it ended.
    completed_at_ms: Option<i64>,
    /// When anything of it changed last.
    updated_at_ms: i64,
    /// Its time limit, if one was asked for.
    timeout_ms: Option<u64>,
    /// Bytes of its input.
    input_bytes: u64,
    /// Has somebody asked to stop it?
    cancel_requested: bool,
    /// How far preparation has come.
    progress: Option<ProgressView>,
    /// What it wrote to standard output; null until it has ended.
    result: Option<ResultView>,
    /// Who is told of its end, and how that goes; null: nobody.
    callback: Option<CallbackView>,
    /// Its log.
    log_ref: LogRef,
    /// Labels of its task.
    metadata: BTreeMap<String, String>,
}

impl ExecutionView {
    /// Without the bytes of the result.
    fn new(execution: &Execution, task: Option<&Task>, callback: Option<Arc<Callback>>) -> Self {
        let id = execution.id;
        let name = |task: &Task| match &task.executable {
            Some(executable) if !executable.name.is_empty() => executable.name.clone(),
            _ => task.name.clone(),
        };
        let result = || ResultView {
            size: execution.result_bytes,
            uri: format!("/api/v1/executions/{id}/result"),
            text: None,
            base64: None,
        };
        Self {
            execution_id: id.to_string(),
            invocation_id: id.to_string(),
            task_id: execution.task_id.to_string(),
            function_name: task.map(name).unwrap_or_default(),
            node_uuid: execution.node_uuid.map(|id| id.to_string()).unwrap_or_default(),
            instance_id: String::new(),
            status: execution.status.as_str(),
            reason: execution.reason.map(types::Reason::as_str),
            message: execution.message.clone(),
            attempt: execution.attempt,
            first: execution.first,
            exit_code: execution.exit_code,
            usage: execution.usage.map(UsageView::from),
            created_at_ms: execution.created_at.millis(),
            started_at_ms: execution.started_at.map(types::Timestamp::millis),
            completed_at_ms: execution.completed_at.map(types::Timestamp::millis),
            updated_at_ms: execution.updated_at.millis(),
            timeout_ms: execution.timeout_ms,
            input_bytes: execution.input_bytes,
            cancel_requested: execution.cancel_requested,
            progress: execution.progress.as_ref().map(|progress| ProgressView {
                phase: progress.phase.clone(),
                done_bytes: progress.done_bytes,
                total_bytes: progress.total_bytes,
            }),
            result: execution.status.terminal().then(result),
            callback: callback.map(CallbackView::from),
            log_ref: LogRef {
                backend: "sms",
                uri_prefix: format!("/api/v1/executions/{id}/logs"),
                content_type: "application/x-ndjson",
                compression: "",
            },
            metadata: task.map(|task| task.metadata.clone()).unwrap_or_default(),
        }
    }

    /// With the bytes of the result, as text where they are text.
    fn with_result(mut self, bytes: &Bytes) -> Self {
        if let Some(result) = &mut self.result
            && bytes.len() <= MOST_INLINE
        {
            match std::str::from_utf8(bytes) {
                Ok(text) => result.text = Some(text.to_owned()),
                Err(_) => result.base64 = Some(STANDARD.encode(bytes)),
            }
        }
        self
    }
}

impl Service {
    /// An execution as it is shown.
    pub(crate) fn view(&self, execution: &Execution) -> ExecutionView {
        let task = self.task(execution.task_id).ok();
        ExecutionView::new(execution, task.as_deref(), self.callbacks.of(execution))
    }

    /// With the result, where there is one to show.
    pub(crate) async fn whole(&self, execution: &Execution) -> Result<ExecutionView, Fault> {
        let bytes = if execution.result_bytes > 0 { self.result(execution.id).await? } else { Bytes::new() };
        Ok(self.view(execution).with_result(&bytes))
    }
}
