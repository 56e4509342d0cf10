//! `/api/v1/tasks…`.

use axum::{
    extract::{DefaultBodyLimit, State},
    response::Response,
};
use http::HeaderMap;
use net::{
    Problem,
    extract::{Body, Json, Path, Query},
    problem::ProblemBody,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use types::{Executable, ExecutableType, Fault, TaskId, TaskPriority, TaskStatus};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    records::{NewTask, Seen, unknown_kind},
    service::Wanted,
};
use crate::{
    Sms,
    executions::{
        NewRun,
        http::{MOST_BODY, input_of},
        idempotency::{Key, answer},
    },
    page::Page,
};

/// Name of this list in its cursors.
const LIST: &str = "tasks";
/// Tasks of a page when nothing is asked.
const LIMIT: usize = 100;

/// The routes of tasks.
pub fn routes() -> OpenApiRouter<Sms> {
    let register = OpenApiRouter::new().routes(routes!(register_task, list_tasks));
    // A task may bring an input for its first execution.
    OpenApiRouter::new()
        .merge(register.layer(DefaultBodyLimit::max(MOST_BODY)))
        .routes(routes!(get_task, unregister_task))
}

/// What a task runs.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = TaskExecutable)]
pub(crate) struct ExecutableView {
    /// `binary`, `script`, `container`, `wasm` or `process`, in any case.
    #[serde(rename = "type")]
    kind: String,
    /// `sms+file://<id>`, `https://…`, `s3://bucket/key` or `minio://bucket/key`.
    uri: String,
    /// Name for people and `argv[0]`.
    #[serde(default)]
    name: Option<String>,
    /// 64 hexadecimal digits; whoever fetches the executable checks them.
    #[serde(default)]
    checksum_sha256: Option<String>,
    /// Arguments after `argv[0]`.
    #[serde(default)]
    args: Option<Vec<String>>,
    /// Environment of the guest.
    #[serde(default)]
    env: Option<BTreeMap<String, String>>,
}

impl From<&Executable> for ExecutableView {
    fn from(from: &Executable) -> Self {
        Self {
            kind: from.kind.as_str().to_owned(),
            uri: from.uri.clone(),
            name: Some(from.name.clone()),
            checksum_sha256: Some(from.checksum_sha256.clone()),
            args: Some(from.args.clone()),
            env: Some(from.env.clone()),
        }
    }
}

impl ExecutableView {
    fn parse(self) -> Result<Executable, Fault> {
        let kind = ExecutableType::from_word(&self.kind).ok_or_else(|| unknown_kind(&self.kind))?;
        Ok(Executable {
            kind,
            uri: self.uri,
            name: self.name.unwrap_or_default(),
            checksum_sha256: self.checksum_sha256.unwrap_or_default(),
            args: self.args.unwrap_or_default(),
            env: self.env.unwrap_or_default(),
        })
    }
}

/// A task. Times are whole seconds since 1970-01-01 UTC, 0 for never.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = Task)]
pub(crate) struct TaskView {
    /// Its id.
    #[schema(format = Uuid)]
    task_id: String,
    /// Name for people; need not be unique.
    name: String,
    /// What it is for.
    description: String,
    /// `registered`, or `active` once an execution has begun.
    status: &'static str,
    /// `low`, `normal`, `high`, `urgent` or `unknown`.
    priority: &'static str,
    /// The node it is bound to, or empty.
    node_uuid: String,
    /// Free text.
    endpoint: String,
    /// Free text.
    version: String,
    /// Free words.
    capabilities: Vec<String>,
    /// When it was registered.
    registered_at: i64,
    /// When it was registered or an execution of it ended, whichever is later.
    last_heartbeat: i64,
    /// Labels.
    metadata: BTreeMap<String, String>,
    /// Settings for the node.
    config: BTreeMap<String, String>,
    /// What it runs, if anything.
    executable: Option<ExecutableView>,
    /// Paths of the latest results, newest first.
    result_uris: Vec<String>,
    /// Path of the result of the execution that ended last, or empty.
    last_result_uri: String,
    /// Status of the execution that ended last, or empty.
    last_result_status: String,
    /// When it ended.
    last_completed_at: i64,
    /// `execution_id`, `result_bytes` and, where there are any, `reason` and `exit_code` of it.
    last_result_metadata: BTreeMap<String, String>,
}

/// Path of an execution's result.
fn result_uri(id: types::ExecutionId) -> String {
    format!("/api/v1/executions/{id}/result")
}

impl Seen {
    /// Paths of the latest results, newest first.
    pub(super) fn result_uris(&self) -> Vec<String> {
        self.results.iter().copied().map(result_uri).collect()
    }

    /// Path and status of the run that ended last; empty when none has.
    pub(super) fn last_result(&self) -> (String, String) {
        self.last.map_or_else(Default::default, |last| {
            let has = last.status == types::ExecutionStatus::Completed;
            (if has { result_uri(last.id) } else { String::new() }, last.status.to_string())
        })
    }

    /// When that was, in seconds.
    pub(super) fn last_completed_at(&self) -> i64 {
        self.last.and_then(|last| last.completed_at).map_or(0, types::Timestamp::seconds)
    }

    /// More of that run.
    pub(super) fn last_metadata(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        if let Some(last) = self.last {
            all.insert("execution_id".to_owned(), last.id.to_string());
            all.insert("result_bytes".to_owned(), last.result_bytes.to_string());
            all.extend(last.reason.map(|reason| ("reason".to_owned(), reason.as_str().to_owned())));
            all.extend(last.exit_code.map(|code| ("exit_code".to_owned(), code.to_string())));
        }
        all
    }
}

impl From<&Seen> for TaskView {
    fn from(seen: &Seen) -> Self {
        let task = &seen.task;
        let (last_result_uri, last_result_status) = seen.last_result();
        Self {
            task_id: task.id.to_string(),
            name: task.name.clone(),
            description: task.description.clone(),
            status: seen.status.as_str(),
            priority: task.priority.as_str(),
            node_uuid: task.node_uuid.map(|id| id.to_string()).unwrap_or_default(),
            endpoint: task.endpoint.clone(),
            version: task.version.clone(),
            capabilities: task.capabilities.clone(),
            registered_at: task.registered_at.seconds(),
            last_heartbeat: task.last_heartbeat.seconds().max(seen.last_completed_at()),
            metadata: task.metadata.clone(),
            config: task.config.clone(),
            executable: task.executable.as_ref().map(ExecutableView::from),
            result_uris: seen.result_uris(),
            last_result_uri,
            last_result_status,
            last_completed_at: seen.last_completed_at(),
            last_result_metadata: seen.last_metadata(),
        }
    }
}

#[derive(Deserialize, ToSchema)]
struct RegisterTaskRequest {
    /// Not empty, up to 256 bytes.
    name: String,
    /// Free text, up to 4096 bytes.
    endpoint: String,
    /// Free text, up to 128 bytes.
    version: String,
    /// Default: `Task: <name>`.
    #[serde(default)]
    description: Option<String>,
    /// `low`, `normal`, `high` or `urgent` in any case; any other word means `normal`.
    #[serde(default)]
    priority: Option<String>,
    /// The node to bind it to; empty or absent: any that fits.
    #[serde(default)]
    node_uuid: Option<String>,
    /// Free words, at most 256.
    #[serde(default)]
    capabilities: Option<Vec<String>>,
    /// Labels, at most 256.
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
    /// Settings for the node: `timeout_ms`, `memory_bytes`, …
    #[serde(default)]
    config: Option<BTreeMap<String, String>>,
    /// What to run; absent: the task is an entry in the registry only.
    #[serde(default)]
    executable: Option<ExecutableView>,
    /// Standard input of its first execution, as text.
    #[serde(default)]
    input: Option<String>,
    /// The same in base64, instead of `input`.
    #[serde(default)]
    input_base64: Option<String>,
    /// Told of the end of its first execution by a POST, at least once; only to hosts that
    /// `executions.callback_hosts` lists.
    #[serde(default)]
    callback_url: Option<String>,
}

impl RegisterTaskRequest {
    fn parse(self) -> Result<(NewTask, NewRun), Fault> {
        let input = input_of(self.input, self.input_base64)?;
        let priority = self.priority.as_deref().and_then(TaskPriority::from_word).unwrap_or(TaskPriority::Normal);
        let executable =
            self.executable.map(|view| view.parse().map_err(|fault| fault.within("executable"))).transpose()?;
        let new = NewTask {
            name: self.name,
            description: self.description.unwrap_or_default(),
            priority,
            node_uuid: crate::tasks::optional_node(self.node_uuid.as_deref())?,
            endpoint: self.endpoint,
            version: self.version,
            capabilities: self.capabilities.unwrap_or_default(),
            metadata: self.metadata.unwrap_or_default(),
            config: self.config.unwrap_or_default(),
            executable,
        };
        Ok((new, NewRun { input, callback_url: self.callback_url, ..NewRun::default() }))
    }
}

#[derive(Serialize, ToSchema)]
struct RegisteredTask {
    success: bool,
    #[schema(format = Uuid)]
    task_id: String,
    message: &'static str,
    /// Its first execution; absent when it has nothing to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = Uuid)]
    execution_id: Option<String>,
}

/// Register a task.
///
/// A task with an executable runs at once: on the node it is bound to, else on the least loaded online node with
/// its runtime. While there is none, its execution is pending and says why. With an `Idempotency-Key` the request can
/// be sent again: it makes one task, and every repeat answers with that one, marked `Idempotent-Replayed: true`.
#[utoipa::path(post, path = "/api/v1/tasks", operation_id = "register_task", tag = "tasks",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes one task of all requests with this key: 1 to 255 visible ASCII characters, best in quotes; kept for 24 h unless set otherwise, and as long as its first execution")),
    request_body = RegisterTaskRequest,
    responses(
        (status = 200, description = "Registered", body = RegisteredTask,
            headers(("Idempotent-Replayed" = String, description = "`true` when an earlier request with this key made it"))),
        (status = 400, description = "Not JSON, or a value that makes no sense", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "The input is over 8 MiB", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "Not sent as application/json", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A field is missing or of another type; a key that another request had; a callback to a host that is not listed", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "Too many executions are open, or callbacks pending", body = ProblemBody, content_type = "application/problem+json"),
        (status = 507, description = "The disk is full", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn register_task(
    State(sms): State<Sms>,
    headers: HeaderMap,
    Json(body): Json<RegisterTaskRequest>,
) -> Result<Response, Problem> {
    let key = Key::of(&headers)?;
    let (new, first) = body.parse()?;
    let made = sms.tasks.register_with(new, first, key.as_ref()).await.map_err(Problem::of_run)?;
    let body = RegisteredTask {
        success: true,
        task_id: made.task.to_string(),
        message: "Task registered successfully",
        execution_id: made.execution.map(|id| id.to_string()),
    };
    Ok(answer(Json(body), made.replayed))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListTasksQuery {
    /// Only tasks bound to this node.
    node_uuid: Option<String>,
    /// `unknown`, `registered`, `active`, `inactive` or `unregistered`.
    status: Option<String>,
    /// `unknown`, `low`, `normal`, `high` or `urgent`.
    priority: Option<String>,
    /// Tasks of a page, 1 to 1000; default 100.
    limit: Option<i64>,
    /// Tasks to skip; not together with `cursor`.
    offset: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct TaskList {
    tasks: Vec<TaskView>,
    /// Tasks that match, on all pages.
    total_count: usize,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A word of a list, or none when it is absent or empty.
pub(crate) fn word<T>(
    field: &str,
    text: Option<&str>,
    parse: fn(&str) -> Option<T>,
    words: &[&str],
) -> Result<Option<T>, Fault> {
    match text {
        None | Some("") => Ok(None),
        Some(text) => parse(text).map(Some).ok_or_else(|| {
            let wrong = types::id::clip(text);
            Fault::invalid_field(field, format!("{wrong:?} is none of {}", words.join(", ")))
        }),
    }
}

/// List tasks in the order of their registration.
#[utoipa::path(get, path = "/api/v1/tasks", operation_id = "list_tasks", tag = "tasks", params(ListTasksQuery),
    responses(
        (status = 200, description = "A page", body = TaskList),
        (status = 400, description = "A parameter makes no sense", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn list_tasks(State(sms): State<Sms>, Query(query): Query<ListTasksQuery>) -> Result<Json<TaskList>, Problem> {
    let wanted = Wanted {
        node_uuid: crate::tasks::optional_node(query.node_uuid.as_deref())?,
        status: word("status", query.status.as_deref(), TaskStatus::from_word, TaskStatus::WORDS)?,
        priority: word("priority", query.priority.as_deref(), TaskPriority::from_word, TaskPriority::WORDS)?,
    };
    let page = Page::parse(LIST, (query.limit, query.offset, query.cursor.as_deref()), LIMIT)?;
    let cut = sms.tasks.list(wanted, &page)?;
    Ok(Json(TaskList {
        tasks: cut.items.iter().map(TaskView::from).collect(),
        total_count: cut.total,
        next_cursor: cut.next,
    }))
}

/// Show a task.
#[utoipa::path(get, path = "/api/v1/tasks/{task_id}", operation_id = "get_task", tag = "tasks",
    params(("task_id" = String, Path, description = "Its id", format = Uuid)),
    responses(
        (status = 200, description = "The task", body = TaskView),
        (status = 400, description = "Not an id", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such task", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn get_task(State(sms): State<Sms>, Path(id): Path<String>) -> Result<Json<TaskView>, Problem> {
    let id: TaskId = id.parse()?;
    Ok(Json(TaskView::from(&sms.tasks.get(id)?)))
}

#[derive(Default, Deserialize, ToSchema)]
struct UnregisterTaskRequest {
    /// Why, for the message of the executions that are cancelled.
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct UnregisteredTask {
    success: bool,
    message: &'static str,
    #[schema(format = Uuid)]
    task_id: String,
}

/// Remove a task and cancel its executions.
///
/// The body may be left out. Executions that have ended can still be read for an hour.
#[utoipa::path(delete, path = "/api/v1/tasks/{task_id}", operation_id = "unregister_task", tag = "tasks",
    params(("task_id" = String, Path, description = "Its id", format = Uuid)),
    request_body(content = Option<UnregisterTaskRequest>),
    responses(
        (status = 200, description = "Removed", body = UnregisteredTask),
        (status = 400, description = "Not an id, or a body that is not JSON", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such task", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A field of another type", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn unregister_task(
    State(sms): State<Sms>,
    Path(id): Path<String>,
    Body(body): Body,
) -> Result<Json<UnregisteredTask>, Problem> {
    let id: TaskId = id.parse()?;
    let request: UnregisterTaskRequest = match body.iter().all(u8::is_ascii_whitespace) {
        true => UnregisterTaskRequest::default(),
        false => net::extract::parse(&body)?,
    };
    sms.tasks.remove(id, request.reason.as_deref().unwrap_or_default()).await?;
    Ok(Json(UnregisteredTask { success: true, message: "Task unregistered successfully", task_id: id.to_string() }))
}
