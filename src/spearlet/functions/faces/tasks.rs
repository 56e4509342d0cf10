//! `/tasks`: what is ready to be called on this node. The registry has all tasks, and keeps those unloaded here.

use axum::{extract::State, routing::get};
use net::{
    Problem,
    extract::{Json, Path, Query},
    problem::ProblemBody,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};
use types::{ExecutionStatus, Fault, TaskId, Timestamp, id::clip};
use utoipa::{IntoParams, OpenApi, ToSchema};

use super::{
    super::{Function, State as CallState},
    Faces,
    seen::{Seen, word},
    view::{ExecutionView, TASK_WORDS, TaskView, parameters, task_word},
};

/// Tasks of a page: usually, and at most.
pub(super) const TASKS: (usize, usize) = (100, 1000);
/// Executions of a page: usually, and at most.
pub(super) const EXECUTIONS: (usize, usize) = (50, 500);

/// The routes' part of the OpenAPI document.
#[derive(OpenApi)]
#[openapi(paths(list_tasks, get_task, list_executions, delete_task))]
pub(super) struct Document;

/// The routes.
pub(super) fn router() -> axum::Router<Arc<Faces>> {
    axum::Router::new()
        .route("/tasks", get(list_tasks))
        .route("/tasks/{task_id}", get(get_task).delete(delete_task))
        .route("/tasks/{task_id}/executions", get(list_executions))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PageQuery {
    /// Of a page: 100 tasks, 1000 at most; 50 executions, 500 at most.
    limit: Option<usize>,
    /// So many are left out before it.
    #[serde(default)]
    offset: usize,
    /// Only those with this status.
    status: Option<String>,
}

impl PageQuery {
    fn limit(&self, (usual, most): (usize, usize)) -> Result<usize, Fault> {
        match self.limit.unwrap_or(usual) {
            limit if (1..=most).contains(&limit) => Ok(limit),
            limit => Err(Fault::invalid_field("limit", format!("is {limit}; 1 to {most} are allowed"))),
        }
    }

    fn page<T>(&self, all: Vec<T>, sizes: (usize, usize)) -> Result<(Vec<T>, Page), Fault> {
        let (limit, total) = (self.limit(sizes)?, all.len());
        let page: Vec<T> = all.into_iter().skip(self.offset).take(limit).collect();
        let has_more = self.offset.saturating_add(page.len()) < total;
        Ok((page, Page { total, limit, offset: self.offset, has_more }))
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NodePage)]
struct Page {
    /// All that there are.
    total: usize,
    limit: usize,
    offset: usize,
    has_more: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NodeTaskList)]
struct TaskList {
    tasks: Vec<TaskView>,
    #[serde(flatten)]
    page: Page,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NodeExecutionList)]
struct ExecutionList {
    /// The newest first.
    executions: Vec<ExecutionView>,
    #[serde(flatten)]
    page: Page,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NodeTask)]
struct TaskDetail {
    #[serde(flatten)]
    task: TaskView,
    /// How it is called and was compiled.
    description: String,
    /// What holds for its calls on this node.
    parameters: BTreeMap<&'static str, u64>,
    /// The last call that this node knows of.
    last_execution: Option<ExecutionView>,
}

/// What became of unloading a task.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NodeTaskUnloaded)]
struct Unloaded {
    success: bool,
    task_id: String,
    message: String,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DeleteQuery {
    /// End the calls under way, too.
    #[serde(default)]
    force: bool,
}

/// Why a task is not shown.
pub(super) fn not_here(task: TaskId) -> Fault {
    let message = format!("task {task} is not loaded on this node: it is when it is called; the registry lists all");
    Fault::not_found("TASK_NOT_LOADED", message)
}

impl Faces {
    /// The functions in the order of their tasks, which is that of their registration.
    pub(super) fn functions(&self) -> Vec<Arc<Function>> {
        let mut all = self.functions.all();
        all.sort_by_key(|function| function.task.id);
        all
    }

    /// A function, if it is ready here.
    pub(super) fn function(&self, task: TaskId) -> Option<Arc<Function>> {
        self.functions.read().get(&task).cloned()
    }

    /// When it was called last, about.
    pub(super) fn called(&self, function: &Function) -> Timestamp {
        let ago = self.functions.now().saturating_sub(function.called.load(Ordering::Relaxed));
        Timestamp(self.clock.wall().millis().saturating_sub(i64::try_from(ago).unwrap_or(i64::MAX)))
    }

    /// The calls of a task, or of all, that this node knows of; the newest first.
    pub(super) fn calls(&self, task: Option<TaskId>) -> Vec<Seen> {
        let wanted = |state: &CallState| {
            let of = match state {
                CallState::Running(running) => running.task,
                CallState::Ended(past) => past.task,
            };
            task.is_none_or(|task| task == of)
        };
        let all = self.functions.recent().all().into_iter().filter(|(_, state)| wanted(state));
        all.map(|(id, state)| self.seen(id, &state)).collect()
    }

    /// Unloads a task from this node.
    ///
    /// # Errors
    /// It is not there.
    pub(super) fn unload(&self, task: TaskId, force: bool) -> Result<(), Fault> {
        let function = self.function(task).ok_or_else(|| not_here(task))?;
        self.functions.forget(task);
        if force {
            function.pool.kill_all();
        }
        Ok(())
    }
}

/// List the tasks that are ready on this node.
#[utoipa::path(get, path = "/tasks", operation_id = "list_node_tasks", tag = "functions", params(PageQuery), responses(
    (status = 200, description = "In the order of their registration", body = TaskList),
    (status = 400, description = "A value makes no sense", body = ProblemBody, content_type = "application/problem+json")))]
async fn list_tasks(
    State(faces): State<Arc<Faces>>,
    Query(query): Query<PageQuery>,
) -> Result<Json<TaskList>, Problem> {
    let status = query.status.as_deref().filter(|status| !status.is_empty());
    if let Some(unknown) = status.filter(|status| !TASK_WORDS.contains(status)) {
        let wrong = format!("{:?} is unknown; there are {}", clip(unknown), TASK_WORDS.join(", "));
        return Err(Fault::invalid_field("status", wrong).into());
    }
    let mut all = faces.functions();
    all.retain(|function| status.is_none_or(|status| status == task_word(function)));
    let (all, page) = query.page(all, TASKS)?;
    let tasks = all.iter().map(|function| TaskView::new(function, faces.called(function))).collect();
    Ok(Json(TaskList { tasks, page }))
}

/// A task that is ready on this node.
#[utoipa::path(get, path = "/tasks/{task_id}", operation_id = "get_node_task", tag = "functions",
    params(("task_id" = String, Path, description = "The task", format = Uuid)), responses(
    (status = 200, description = "The task", body = TaskDetail),
    (status = 400, description = "Not an id", body = ProblemBody, content_type = "application/problem+json"),
    (status = 404, description = "Not loaded on this node", body = ProblemBody, content_type = "application/problem+json")))]
async fn get_task(State(faces): State<Arc<Faces>>, Path(task): Path<String>) -> Result<Json<TaskDetail>, Problem> {
    let task: TaskId = task.parse()?;
    let function = faces.function(task).ok_or_else(|| not_here(task))?;
    let last = faces.calls(Some(task)).into_iter().next();
    Ok(Json(TaskDetail {
        task: TaskView::new(&function, faces.called(&function)),
        description: faces.functions.describe(&function),
        parameters: parameters(&function),
        last_execution: last.map(|seen| ExecutionView::new(&seen, false, false)),
    }))
}

fn status_of(text: &str) -> Result<ExecutionStatus, Fault> {
    let named = |status: &ExecutionStatus| {
        text.eq_ignore_ascii_case(word(*status)) || text.eq_ignore_ascii_case(status.as_str())
    };
    ExecutionStatus::ALL.into_iter().find(named).ok_or_else(|| {
        let words = ExecutionStatus::ALL.map(ExecutionStatus::as_str).join(", ");
        Fault::invalid_field("status", format!("{:?} is unknown; there are {words}", clip(text)))
    })
}

/// List the calls of a task that this node knows of.
#[utoipa::path(get, path = "/tasks/{task_id}/executions", operation_id = "list_node_executions", tag = "functions",
    params(("task_id" = String, Path, description = "The task", format = Uuid), PageQuery), responses(
    (status = 200, description = "The newest first", body = ExecutionList),
    (status = 400, description = "A value makes no sense", body = ProblemBody, content_type = "application/problem+json"),
    (status = 404, description = "Neither loaded on this node, nor called lately", body = ProblemBody, content_type = "application/problem+json")))]
async fn list_executions(
    State(faces): State<Arc<Faces>>,
    Path(task): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<ExecutionList>, Problem> {
    let task: TaskId = task.parse()?;
    let status = query.status.as_deref().filter(|status| !status.is_empty()).map(status_of).transpose()?;
    let mut all = faces.calls(Some(task));
    if all.is_empty() && faces.function(task).is_none() {
        return Err(not_here(task).into());
    }
    all.retain(|seen| status.is_none_or(|status| status == seen.status));
    let (all, page) = query.page(all, EXECUTIONS)?;
    Ok(Json(ExecutionList {
        executions: all.iter().map(|seen| ExecutionView::new(seen, false, false)).collect(),
        page,
    }))
}

/// Unload a task from this node.
///
/// Its calls under way end by themselves, unless `force` ends them; the next call loads it again, if the registry still
/// has it.
#[utoipa::path(delete, path = "/tasks/{task_id}", operation_id = "unload_node_task", tag = "functions",
    params(("task_id" = String, Path, description = "The task", format = Uuid), DeleteQuery), responses(
    (status = 200, description = "Unloaded", body = Unloaded),
    (status = 400, description = "Not an id", body = ProblemBody, content_type = "application/problem+json"),
    (status = 404, description = "Not loaded on this node", body = ProblemBody, content_type = "application/problem+json")))]
async fn delete_task(
    State(faces): State<Arc<Faces>>,
    Path(task): Path<String>,
    Query(query): Query<DeleteQuery>,
) -> Result<Json<Unloaded>, Problem> {
    let task: TaskId = task.parse()?;
    faces.unload(task, query.force)?;
    let message = "unloaded from this node; the registry keeps it".to_owned();
    Ok(Json(Unloaded { success: true, task_id: task.to_string(), message }))
}
