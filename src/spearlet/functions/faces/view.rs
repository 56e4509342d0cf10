//! Executions, tasks and instances as HTTP shows them.

use base64::{Engine, prelude::BASE64_STANDARD};
use net::usage::UsageView;
use serde::Serialize;
use std::collections::BTreeMap;
use types::{LogLine, Timestamp};
use utoipa::ToSchema;

use super::{
    super::Function,
    seen::{Seen, word},
};

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorView {
    /// `EXIT`, `TRAP`, `MEMORY`, `OUTPUT`, `DEADLINE`, `CANCELLED`, …
    code: String,
    message: String,
}

/// A line of a log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LineView {
    /// Milliseconds since 1970-01-01 UTC.
    ts_ms: i64,
    /// `stdout`, `stderr` or `system`.
    stream: &'static str,
    level: String,
    message: String,
}

/// A call of a function, or a run of a task at the registry.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FunctionExecution)]
pub(super) struct ExecutionView {
    /// Has it not failed so far?
    success: bool,
    /// As the caller gave it, else that of the execution.
    pub(super) invocation_id: String,
    execution_id: String,
    task_id: String,
    /// Name of the function.
    function_name: String,
    /// The instance that runs it; empty when none does.
    instance_id: String,
    /// `PENDING`, `RUNNING`, `COMPLETED`, `FAILED`, `TERMINATED` or `TIMEOUT`.
    status: &'static str,
    /// Standard output in base64; null when not asked for, not kept (streamed, or over 64 KiB) or not there yet.
    pub(super) output_base64: Option<String>,
    error: Option<ErrorView>,
    /// RFC 3339.
    started_at: Option<String>,
    /// RFC 3339.
    completed_at: Option<String>,
    /// Of a guest that ended by itself.
    exit_code: Option<i32>,
    /// What the guest says to its caller: `ok`, `retry` or `reject`.
    disposition: Option<&'static str>,
    usage: Option<UsageView>,
    /// What it wrote to standard error; where asked for, and kept on this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) logs: Option<Vec<LineView>>,
    /// Where to look how it stands.
    pub(super) status_url: String,
}

/// Where to look how an execution stands.
pub(super) fn status_url(execution: types::ExecutionId) -> String {
    format!("/functions/executions/{execution}")
}

fn moment(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}

impl From<&LogLine> for LineView {
    fn from(line: &LogLine) -> Self {
        let (level, message) = (line.level.clone(), line.message.clone());
        Self { ts_ms: line.ts_ms, stream: line.stream.as_str(), level, message }
    }
}

impl ExecutionView {
    /// With its output and its log where they are wanted.
    pub(super) fn new(seen: &Seen, output: bool, logs: bool) -> Self {
        let execution_id = seen.execution.to_string();
        let error = seen.error().map(|(code, message)| ErrorView { code, message });
        Self {
            success: error.is_none(),
            invocation_id: execution_id.clone(),
            task_id: seen.task.to_string(),
            function_name: seen.name.clone(),
            instance_id: seen.instance.map(|id| id.to_string()).unwrap_or_default(),
            status: word(seen.status),
            output_base64: seen.output.as_ref().filter(|_| output).map(|bytes| BASE64_STANDARD.encode(bytes)),
            error,
            started_at: moment(seen.began),
            completed_at: moment(seen.ended),
            exit_code: seen.exit_code,
            disposition: seen.disposition.map(api::Disposition::as_str),
            usage: seen.usage.map(UsageView::from),
            logs: logs.then(|| seen.logs.iter().map(LineView::from).collect()),
            status_url: status_url(seen.execution),
            execution_id,
        }
    }
}

/// What became of asking a call to end.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Cancelled {
    /// Had it not ended before?
    pub(super) success: bool,
    pub(super) execution_id: String,
    /// How it stands now.
    pub(super) final_status: &'static str,
    pub(super) message: String,
}

impl Cancelled {
    pub(super) fn new(asked: bool, seen: &Seen) -> Self {
        let message = match (asked, seen.status.terminal()) {
            (false, _) => "it had ended before",
            (true, true) => "it has ended",
            (true, false) => "it was asked to end",
        };
        let (final_status, message) = (word(seen.status), message.to_owned());
        Self { success: asked, execution_id: seen.execution.to_string(), final_status, message }
    }
}

/// A task that is ready to be called on this node.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TaskView {
    task_id: String,
    function_name: String,
    /// `active` while a call is under way or waits, else `idle`.
    status: &'static str,
    /// When it was registered, seconds since 1970-01-01 UTC.
    created_at: i64,
    /// When it was last called here, seconds since 1970-01-01 UTC.
    updated_at: i64,
    /// Calls and runs that have ended here since it was made ready.
    execution_count: u64,
}

/// The words for the state of a task on a node.
pub(super) const TASK_WORDS: [&str; 2] = ["active", "idle"];

/// Is a function at work?
pub(super) fn task_word(function: &Function) -> &'static str {
    if function.pool.busy() + function.pool.waiting() > 0 { "active" } else { "idle" }
}

impl TaskView {
    pub(super) fn new(function: &Function, called: Timestamp) -> Self {
        Self {
            task_id: function.task.id.to_string(),
            function_name: function.name.to_string(),
            status: task_word(function),
            created_at: function.task.registered_at.seconds(),
            updated_at: called.seconds(),
            execution_count: function.tally.read().calls,
        }
    }
}

/// What holds for the calls of a function, once the node's own limits have been applied.
pub(super) fn parameters(function: &Function) -> BTreeMap<&'static str, u64> {
    let (limits, pool) = (&function.manifest.spec.limits, &function.manifest.pool);
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    BTreeMap::from([
        ("timeout_ms", millis(function.manifest.timeout)),
        ("cpu_ms", millis(limits.cpu)),
        ("memory_bytes", limits.memory_bytes),
        ("stdout_bytes", limits.stdout_bytes as u64),
        ("stderr_bytes", limits.stderr_bytes as u64),
        ("concurrency", pool.concurrency as u64),
        ("queue", pool.queue as u64),
        ("queue_wait_ms", millis(pool.queue_wait)),
        ("warm_min", pool.warm_min as u64),
        ("warm_max", pool.warm_max as u64),
        ("idle_ms", millis(pool.idle)),
        ("max_uses", pool.uses),
    ])
}
