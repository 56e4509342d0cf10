//! `/functions/execute` and `/functions/executions/{id}`: calls as JSON, as the later original has them.
//!
//! A guest that ends badly is an answer, with `status`, `error` and `success: false`; what kept it from being called,
//! its deadline, and what it refuses to be called with are problems.

use axum::{
    body::HttpBody,
    extract::{DefaultBodyLimit, FromRequest, Request, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use net::{
    Problem,
    extract::{Body, Json, Path, Query, parse},
    idempotency,
    problem::ProblemBody,
};
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};
use telemetry::trace;
use tokio::sync::OwnedSemaphorePermit;
use types::{ExecutionId, Fault, Reason, TaskId, id::clip};
use utoipa::{IntoParams, OpenApi, ToSchema};

use super::{
    Faces, MOST_INPUT,
    idempotency::Answered,
    refusal::{EXECUTION, Refusal, id},
    seen::Seen,
    view::{Cancelled, ExecutionView, status_url},
    wanted::{NOT_DURABLE, Wanted},
};

/// Bytes of a request to execute: the longest input in base64, and the rest.
const MOST_BODY: usize = MOST_INPUT / 3 * 4 + (64 << 10);

/// The routes' part of the OpenAPI document.
#[derive(OpenApi)]
#[openapi(paths(execute, get_execution, cancel_execution))]
pub(super) struct Document;

/// The routes.
pub(super) fn router() -> axum::Router<Arc<Faces>> {
    axum::Router::new()
        .route("/functions/execute", post(execute).layer(DefaultBodyLimit::max(MOST_BODY)))
        .route("/functions/executions/{execution_id}", get(get_execution))
        .route("/functions/executions/{execution_id}/cancel", post(cancel_execution))
}

/// The problem of a fault: as the registry has it, and one that only an agent has.
pub(super) fn problem(fault: Fault) -> Problem {
    match &*fault.code {
        NOT_DURABLE => Problem::new(fault).status(StatusCode::UNPROCESSABLE_ENTITY),
        _ => Problem::of_run(fault),
    }
}

/// A call.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ExecuteFunction)]
struct ExecuteBody {
    /// The task.
    #[schema(format = Uuid)]
    task_id: String,
    /// Which function of a module of plain exports.
    #[serde(default)]
    function_name: Option<String>,
    /// Arguments of a command; of a plain export its parameters.
    #[serde(default)]
    args: Vec<String>,
    /// Any text; comes back with the answer.
    #[serde(default)]
    invocation_id: Option<String>,
    /// The id that the call shall have; a UUID that is new.
    #[serde(default)]
    execution_id: Option<String>,
    /// Told to the function with the rest of `metadata`.
    #[serde(default)]
    session_id: Option<String>,
    /// `sync`, the default, or `async`: the registry keeps the call.
    #[serde(default)]
    mode: Option<String>,
    /// Its time limit, within that of the task; absent or 0: as the task says.
    #[serde(default)]
    timeout_ms: Option<u64>,
    /// Not to be had: 501.
    #[serde(default)]
    force_new_instance: bool,
    #[serde(default)]
    headers: Option<BTreeMap<String, String>>,
    /// Variables, beside those of the task.
    #[serde(default)]
    environment: Option<BTreeMap<String, String>>,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
    /// Standard input.
    #[serde(default)]
    input_base64: Option<String>,
    /// Media type of the input.
    #[serde(default)]
    input_content_type: Option<String>,
    /// Told of the end, with `async`.
    #[serde(default)]
    callback_url: Option<String>,
}

impl ExecuteBody {
    fn asynchronous(&self) -> Result<bool, Fault> {
        match self.mode.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("" | "sync") => Ok(false),
            Some("async") => Ok(true),
            Some(other) => Err(Fault::invalid_field("mode", format!("{:?} is neither sync nor async", clip(other)))),
        }
    }

    fn wanted(self, headers: &HeaderMap) -> Result<Wanted, Fault> {
        let input = match self.input_base64 {
            None => Bytes::new(),
            Some(text) => BASE64_STANDARD
                .decode(text)
                .map_err(|error| Fault::invalid_field("input_base64", format!("is not base64: {error}")))?
                .into(),
        };
        Ok(Wanted {
            task: self.task_id.parse()?,
            function: self.function_name.unwrap_or_default(),
            args: self.args,
            input,
            content_type: self.input_content_type.unwrap_or_default(),
            env: self.environment.unwrap_or_default(),
            headers: self.headers.unwrap_or_default(),
            metadata: self.metadata.unwrap_or_default(),
            timeout_ms: self.timeout_ms,
            session: self.session_id.unwrap_or_default(),
            execution: self.execution_id.unwrap_or_default(),
            fresh: self.force_new_instance,
            callback_url: self.callback_url,
            traceparent: headers.get(trace::HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned),
        })
    }
}

/// Call a function, or have the registry run it.
#[utoipa::path(post, path = "/functions/execute", operation_id = "execute_function", tag = "functions",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes one call of all that bring it: `sync` on this node, in its memory, for 24 h; `async` at the registry, on its disk")),
    request_body = ExecuteBody,
    responses(
        (status = 200, description = "It has ended; its status says how", body = ExecutionView,
            headers(("Idempotent-Replayed" = String, description = "`true` when an earlier request with this key made it"))),
        (status = 202, description = "The registry has it; Location names it", body = ExecutionView),
        (status = 400, description = "A value makes no sense", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such task", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "Not to be called as it is; an id that is taken", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "The input is over 8 MiB", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A field of another type; refused by the function; a key of another call; what an asynchronous call cannot have; a callback to a host that is not allowed", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "No place: Retry-After says when", body = ProblemBody, content_type = "application/problem+json"),
        (status = 501, description = "A fresh instance cannot be asked for; no runtime for it", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The registry is away, or there is none", body = ProblemBody, content_type = "application/problem+json"),
        (status = 504, description = "Its time ran out", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn execute(
    State(faces): State<Arc<Faces>>,
    headers: HeaderMap,
    Sized(body, _room): Sized,
) -> Result<Response, Problem> {
    let key = idempotency::key(&headers)?;
    let (asynchronous, invocation) = (body.asynchronous()?, body.invocation_id.clone());
    let wanted = body.wanted(&headers)?;
    if wanted.input.len() > MOST_INPUT {
        let message = format!("the input has {} bytes; at most {MOST_INPUT} are taken", wanted.input.len());
        return Err(Fault::new(types::ErrorKind::TooLarge, "INPUT_TOO_LARGE", message).into());
    }
    let task = wanted.task;
    if asynchronous {
        let created = faces.durable(wanted.durable(key).map_err(problem)?).await.map_err(problem)?;
        return Ok(accepted(&created, invocation));
    }
    let call = wanted.call(&faces)?;
    let answered = match key {
        Some(key) => faces.once(task, &key, call).await.map_err(problem)?,
        None => faces.whole(task, call).await,
    };
    let replayed = answered.replayed;
    let seen = faces.answer(task, &answered).await.map_err(Refusal::problem);
    let replay = || (idempotency::REPLAYED, HeaderValue::from_static("true"));
    match seen {
        Ok(seen) => {
            let mut view = ExecutionView::new(&seen, true, false);
            if let Some(invocation) = invocation {
                view.invocation_id = invocation;
            }
            let mut response = Json(view).into_response();
            response.headers_mut().insert(EXECUTION, id(seen.execution));
            if replayed {
                response.headers_mut().extend([replay()]);
            }
            Ok(response)
        }
        Err(problem) if replayed => Err(problem.header(replay().0, replay().1)),
        Err(problem) => Err(problem),
    }
}

/// A body with its place among the inputs that are in memory.
struct Sized(ExecuteBody, Option<OwnedSemaphorePermit>);

impl FromRequest<Arc<Faces>> for Sized {
    type Rejection = Problem;

    async fn from_request(request: Request, faces: &Arc<Faces>) -> Result<Self, Problem> {
        let length = request.body().size_hint().exact().and_then(|length| usize::try_from(length).ok());
        let room = faces.room(length.unwrap_or(MOST_BODY).min(MOST_BODY))?;
        let Json(body) = Json::from_request(request, faces).await?;
        Ok(Self(body, room))
    }
}

/// 202 with the place to look at.
pub(super) fn accepted(created: &api::Created, invocation: Option<String>) -> Response {
    let id_of = created.execution.id;
    let mut view = ExecutionView::new(&Seen::of_record(created.execution.clone(), Bytes::new()), false, false);
    if let Some(invocation) = invocation {
        view.invocation_id = invocation;
    }
    let mut response = (StatusCode::ACCEPTED, Json(view)).into_response();
    let headers = response.headers_mut();
    if let Ok(place) = HeaderValue::try_from(status_url(id_of)) {
        headers.insert(header::LOCATION, place);
    }
    headers.insert(EXECUTION, id(id_of));
    if created.replayed {
        headers.insert(idempotency::REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

impl Faces {
    /// How a call that is over is seen by its caller; where it is no answer, why.
    pub(super) async fn answer(&self, task: TaskId, answered: &Answered) -> Result<Seen, Refusal> {
        let past = self.functions.recent().get(answered.execution);
        if let Err(error) = &answered.result {
            let began = past.is_some() || answered.replayed;
            if !began || matches!(error.reason, Reason::Deadline | Reason::Queue | Reason::Task) {
                return Err(self.refusal(task, answered.execution, error).await);
            }
        }
        let past = past.map(|state| self.seen(answered.execution, &state));
        Ok(Seen::of_answer(task, answered, past))
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct GetQuery {
    /// With standard output.
    #[serde(default)]
    include_output: bool,
    /// With standard error.
    #[serde(default)]
    include_logs: bool,
}

/// How a call stands.
///
/// This node remembers the last ones that ended here; what the registry keeps is asked there.
#[utoipa::path(get, path = "/functions/executions/{execution_id}", operation_id = "get_function_execution",
    tag = "functions", params(("execution_id" = String, Path, description = "Its id", format = Uuid), GetQuery),
    responses(
        (status = 200, description = "The execution", body = ExecutionView),
        (status = 400, description = "Not an id", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such execution", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The registry is away", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn get_execution(
    State(faces): State<Arc<Faces>>,
    Path(execution): Path<String>,
    Query(query): Query<GetQuery>,
) -> Result<Json<ExecutionView>, Problem> {
    let seen = faces.look(execution.parse()?).await?;
    Ok(Json(ExecutionView::new(&seen, query.include_output, query.include_logs)))
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = CancelFunction)]
struct CancelBody {
    /// Why; told to the registry where it keeps the execution.
    #[serde(default)]
    reason: Option<String>,
}

/// Ask a call to end. The body may be left out.
#[utoipa::path(post, path = "/functions/executions/{execution_id}/cancel", operation_id = "cancel_function_execution",
    tag = "functions", params(("execution_id" = String, Path, description = "Its id", format = Uuid)),
    request_body(content = Option<CancelBody>),
    responses(
        (status = 200, description = "Asked; or it had ended before, with success false", body = Cancelled),
        (status = 400, description = "Not an id", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such execution", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The registry is away", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn cancel_execution(
    State(faces): State<Arc<Faces>>,
    Path(execution): Path<String>,
    Body(body): Body,
) -> Result<Json<Cancelled>, Problem> {
    let execution: ExecutionId = execution.parse()?;
    let body: CancelBody = if body.iter().all(u8::is_ascii_whitespace) { CancelBody::default() } else { parse(&body)? };
    let (asked, seen) = faces.cancel(execution, body.reason.as_deref().unwrap_or_default()).await?;
    Ok(Json(Cancelled::new(asked, &seen)))
}
