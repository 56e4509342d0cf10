//! `/api/v1/executions…` and `/api/v1/tasks/{task_id}/executions`; logs are in `logs_http`.

use axum::{
    extract::{DefaultBodyLimit, State},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use net::{
    Problem,
    extract::{Body, Json, Path, Query},
    problem::ProblemBody,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use types::{Execution, ExecutionId, ExecutionStatus, Fault, TaskId};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Filter, MOST_INPUT, NewRun,
    idempotency::{Key, answer},
    view::ExecutionView,
};
use crate::{
    Sms,
    page::{cursor_of, key_of, limit_of},
    tasks::http::word,
};

/// Name of these lists in their cursors.
const LIST: &str = "executions";
/// Executions of a page when nothing is asked.
const LIMIT: usize = 100;
/// Bytes of a request to run: the longest input in base64, and the rest.
pub(crate) const MOST_BODY: usize = MOST_INPUT / 3 * 4 + (64 << 10);

/// The routes of executions.
pub fn routes() -> OpenApiRouter<Sms> {
    let run =
        OpenApiRouter::new().routes(routes!(list_task_executions, run_task)).layer(DefaultBodyLimit::max(MOST_BODY));
    OpenApiRouter::new()
        .merge(run)
        .routes(routes!(list_executions))
        .routes(routes!(get_execution))
        .routes(routes!(get_result))
        .routes(routes!(cancel_execution))
        .merge(super::logs_http::routes())
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListExecutionsQuery {
    /// Only executions of this task.
    task_id: Option<String>,
    /// Only executions on this node.
    node_uuid: Option<String>,
    /// `pending`, `running`, `completed`, `failed`, `cancelled`, `timeout` or `lost`.
    status: Option<String>,
    /// Executions of a page, 1 to 1000; default 100.
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct ExecutionList {
    executions: Vec<ExecutionView>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

fn status_word(text: Option<&str>) -> Result<Option<ExecutionStatus>, Fault> {
    let words = ExecutionStatus::ALL.map(ExecutionStatus::as_str);
    word("status", text, ExecutionStatus::from_word, &words)
}

/// A position in a list of executions.
pub(super) fn position(cursor: Option<&str>) -> Result<Option<ExecutionId>, Fault> {
    let Some(cursor) = cursor.filter(|cursor| !cursor.is_empty()) else { return Ok(None) };
    let id = key_of(LIST, cursor)?.parse();
    id.map(Some)
        .map_err(|_| Fault::invalid_field("cursor", "is not one of this list; use a next_cursor as it was given"))
}

/// The cursor after an execution.
pub(super) fn cursor_after(id: ExecutionId) -> String {
    cursor_of(LIST, &id.to_string())
}

async fn page(sms: &Sms, query: &ListExecutionsQuery, filter: Filter) -> Result<Json<ExecutionList>, Problem> {
    let limit = limit_of(query.limit, LIMIT)?;
    let after = position(query.cursor.as_deref())?;
    let (found, next) = sms.executions.list(&filter, after, limit).await?;
    Ok(Json(ExecutionList {
        executions: found.iter().map(|execution| sms.executions.view(execution)).collect(),
        next_cursor: next.map(cursor_after),
    }))
}

/// List executions in the order of their creation.
#[utoipa::path(get, path = "/api/v1/executions", operation_id = "list_executions", tag = "executions",
    params(ListExecutionsQuery),
    responses(
        (status = 200, description = "A page", body = ExecutionList),
        (status = 400, description = "A parameter makes no sense", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn list_executions(
    State(sms): State<Sms>,
    Query(query): Query<ListExecutionsQuery>,
) -> Result<Json<ExecutionList>, Problem> {
    let task_id = query.task_id.as_deref().filter(|text| !text.is_empty());
    let filter = Filter {
        task_id: task_id.map(str::parse).transpose()?,
        node_uuid: crate::tasks::optional_node(query.node_uuid.as_deref())?,
        status: status_word(query.status.as_deref())?,
    };
    page(&sms, &query, filter).await
}

/// List the executions of a task in the order of their creation.
#[utoipa::path(get, path = "/api/v1/tasks/{task_id}/executions", operation_id = "list_task_executions",
    tag = "executions",
    params(("task_id" = String, Path, description = "The task", format = Uuid), ListExecutionsQuery),
    responses(
        (status = 200, description = "A page", body = ExecutionList),
        (status = 400, description = "A parameter makes no sense", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such task", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn list_task_executions(
    State(sms): State<Sms>,
    Path(id): Path<String>,
    Query(query): Query<ListExecutionsQuery>,
) -> Result<Json<ExecutionList>, Problem> {
    let task = sms.executions.task(id.parse()?)?;
    if query.task_id.as_deref().is_some_and(|other| other != task.id.to_string()) {
        return Err(Fault::invalid_field("task_id", "names another task than the path; leave it out").into());
    }
    let filter = Filter {
        task_id: Some(task.id),
        node_uuid: crate::tasks::optional_node(query.node_uuid.as_deref())?,
        status: status_word(query.status.as_deref())?,
    };
    page(&sms, &query, filter).await
}

#[derive(Default, Deserialize, ToSchema)]
struct RunTaskRequest {
    /// `async` (the default) answers at once, `sync` with the result.
    #[serde(default)]
    mode: Option<String>,
    /// Standard input as text.
    #[serde(default)]
    input: Option<String>,
    /// Standard input in base64, instead of `input`.
    #[serde(default)]
    input_base64: Option<String>,
    /// Its time limit, 1 to 86400000; absent: that of the task, else of the node.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    timeout_ms: Option<i64>,
    /// Told of the end by a POST of the execution, at least once; only with `async`, and only to hosts that
    /// `executions.callback_hosts` lists.
    #[serde(default)]
    callback_url: Option<String>,
}

/// An input as text or in base64.
pub(crate) fn input_of(text: Option<String>, base64: Option<String>) -> Result<Bytes, Fault> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(Fault::invalid_field("input_base64", "is given beside input; use one of them")),
        (Some(text), None) => Ok(Bytes::from(text)),
        (None, Some(text)) => STANDARD
            .decode(text)
            .map(Bytes::from)
            .map_err(|error| Fault::invalid_field("input_base64", format!("is not base64: {error}"))),
        (None, None) => Ok(Bytes::new()),
    }
}

impl RunTaskRequest {
    fn parse(self) -> Result<NewRun, Fault> {
        let wait = match self.mode.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("" | "async") => false,
            Some("sync") => true,
            Some(other) => {
                let wrong = types::id::clip(other);
                return Err(Fault::invalid_field("mode", format!("{wrong:?} is neither sync nor async")));
            }
        };
        let input = input_of(self.input, self.input_base64)?;
        let millis = |value: i64| {
            u64::try_from(value).map_err(|_| Fault::invalid_field("timeout_ms", format!("{value} is negative")))
        };
        let timeout_ms = self.timeout_ms.map(millis).transpose()?;
        Ok(NewRun { input, timeout_ms, first: false, wait, callback_url: self.callback_url })
    }
}

/// 202 with the place to look at.
fn accepted(execution: ExecutionView, id: ExecutionId) -> Response {
    let mut headers = HeaderMap::new();
    let place = HeaderValue::try_from(format!("/api/v1/executions/{id}"));
    headers.insert(header::LOCATION, place.expect("a UUID is a header value"));
    (StatusCode::ACCEPTED, headers, Json(execution)).into_response()
}

/// Run a task again.
///
/// `sync` waits for the end as long as its time limit and a while more; a caller that goes away cancels nothing. With
/// an `Idempotency-Key` the request can be sent again, by whoever does not know what became of it: it makes one
/// execution, and every repeat answers with that one, marked `Idempotent-Replayed: true`.
#[utoipa::path(post, path = "/api/v1/tasks/{task_id}/executions", operation_id = "run_task", tag = "executions",
    params(("task_id" = String, Path, description = "The task", format = Uuid),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes one execution of all requests with this key: 1 to 255 visible ASCII characters, best in quotes; kept for 24 h unless set otherwise, and as long as the execution")),
    request_body(content = Option<RunTaskRequest>),
    responses(
        (status = 200, description = "It has ended (`sync`); its status says how", body = ExecutionView,
            headers(("Idempotent-Replayed" = String, description = "`true` when an earlier request with this key made it"))),
        (status = 202, description = "It is under way; Location names it", body = ExecutionView,
            headers(("Idempotent-Replayed" = String, description = "`true` when an earlier request with this key made it"))),
        (status = 400, description = "A value makes no sense", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such task", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The task has nothing to run", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "The input is over 8 MiB", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A field of another type; a key that another request had; a callback to a host that is not listed", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "Too many executions are open, or callbacks pending", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn run_task(
    State(sms): State<Sms>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Problem> {
    let task: TaskId = id.parse()?;
    let key = Key::of(&headers)?;
    let request: RunTaskRequest = match body.iter().all(u8::is_ascii_whitespace) {
        true => RunTaskRequest::default(),
        false => net::extract::parse(&body)?,
    };
    let new = request.parse()?;
    let (execution, replayed) = sms.executions.run(task, &new, key.as_ref()).await.map_err(Problem::of_run)?;
    if !new.wait {
        return Ok(answer(accepted(sms.executions.view(&execution), execution.id), replayed));
    }
    let ended = sms.wait_for_end(&execution).await?;
    Ok(match ended.status.terminal() {
        true => answer(Json(sms.executions.whole(&ended).await?), replayed),
        false => answer(accepted(sms.executions.view(&ended), ended.id), replayed),
    })
}

impl Sms {
    /// Waits for an execution to end, as long as its time limit and `sync_wait`, or until the process stops.
    pub(crate) async fn wait_for_end(&self, execution: &Execution) -> Result<Execution, Fault> {
        let most = execution.timeout().unwrap_or(Duration::ZERO).saturating_add(self.config.get().sync_wait);
        tokio::select! {
            ended = self.executions.ended(execution.id, most) => ended,
            () = self.stopping.cancelled() => self.executions.get(execution.id).await,
        }
    }
}

/// Show an execution.
#[utoipa::path(get, path = "/api/v1/executions/{execution_id}", operation_id = "get_execution", tag = "executions",
    params(("execution_id" = String, Path, description = "Its id", format = Uuid)),
    responses(
        (status = 200, description = "The execution", body = ExecutionView),
        (status = 400, description = "Not an id", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such execution", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn get_execution(State(sms): State<Sms>, Path(id): Path<String>) -> Result<Json<ExecutionView>, Problem> {
    let execution = sms.executions.get(id.parse()?).await?;
    Ok(Json(sms.executions.whole(&execution).await?))
}

/// The bytes that an execution wrote to standard output.
#[utoipa::path(get, path = "/api/v1/executions/{execution_id}/result", operation_id = "get_execution_result",
    tag = "executions",
    params(("execution_id" = String, Path, description = "Its id", format = Uuid)),
    responses(
        (status = 200, description = "The bytes", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 400, description = "Not an id", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such execution", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "It has not ended", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn get_result(State(sms): State<Sms>, Path(id): Path<String>) -> Result<Response, Problem> {
    let execution = sms.executions.get(id.parse()?).await?;
    if !execution.status.terminal() {
        let message = format!("the execution has not ended yet: {}", execution.status);
        return Err(Fault::conflict("EXECUTION_NOT_ENDED", message).into());
    }
    let bytes = if execution.result_bytes > 0 { sms.executions.result(execution.id).await? } else { Bytes::new() };
    // Guests write what they want: a browser must not run it as a page of ours.
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"result\"")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, bytes).into_response())
}

#[derive(Default, Deserialize, ToSchema)]
struct CancelRequest {
    /// Why, for its message.
    #[serde(default)]
    reason: Option<String>,
}

/// Stop an execution.
///
/// One without a node is cancelled at once; otherwise its node is asked, and `cancel_requested` says so until the
/// node has answered. The body may be left out.
#[utoipa::path(post, path = "/api/v1/executions/{execution_id}/cancel", operation_id = "cancel_execution",
    tag = "executions",
    params(("execution_id" = String, Path, description = "Its id", format = Uuid)),
    request_body(content = Option<CancelRequest>),
    responses(
        (status = 200, description = "Cancelled, or asked to", body = ExecutionView),
        (status = 400, description = "Not an id, or a body that is not JSON", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such execution", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "It has ended already; the message has its status", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn cancel_execution(
    State(sms): State<Sms>,
    Path(id): Path<String>,
    Body(body): Body,
) -> Result<Json<ExecutionView>, Problem> {
    let id: ExecutionId = id.parse()?;
    let request: CancelRequest = match body.iter().all(u8::is_ascii_whitespace) {
        true => CancelRequest::default(),
        false => net::extract::parse(&body)?,
    };
    let execution = sms.executions.cancel(id, request.reason.as_deref().unwrap_or_default()).await?;
    Ok(Json(sms.executions.view(&execution)))
}
