//! What the node does: `/monitoring/…` as the later original has it, and `/api/v1/functions`, `/api/v1/instances` for
//! `spear top` and `spear instance`.

use axum::{
    extract::State,
    routing::{delete, get},
};
use net::{
    Problem,
    extract::{Json, Path},
    problem::ProblemBody,
};
use runtime::{InstanceState, InstanceView};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};
use types::{Fault, id::clip};
use utoipa::{OpenApi, ToSchema};

use super::{
    super::{Counted, Function},
    Faces,
};

/// The routes' part of the OpenAPI document.
#[derive(OpenApi)]
#[openapi(paths(stats, health, list_functions, list_instances, kill_instance))]
pub(super) struct Document;

/// The routes.
pub(super) fn router() -> axum::Router<Arc<Faces>> {
    axum::Router::new()
        .route("/monitoring/stats", get(stats))
        .route("/monitoring/health", get(health))
        .route("/api/v1/functions", get(list_functions))
        .route("/api/v1/instances", get(list_instances))
        .route("/api/v1/instances/{instance_id}", delete(kill_instance))
}

/// The node in numbers, since its process began.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = NodeStats)]
pub(super) struct Stats {
    /// Calls, and runs that the registry asked for, that have ended.
    pub(super) total_executions: u64,
    pub(super) successful_executions: u64,
    pub(super) failed_executions: u64,
    /// Under way.
    pub(super) active_executions: usize,
    /// Calls that wait for a place.
    pub(super) queue_size: usize,
    /// The same, and runs that the registry asked for and that wait.
    pub(super) pending_executions: usize,
    /// Tasks that are ready.
    pub(super) task_count: usize,
    /// Their artifacts.
    pub(super) artifact_count: usize,
    /// Their instances.
    pub(super) instance_count: usize,
    pub(super) average_response_time_ms: f64,
    /// Calls that found no place.
    pub(super) refused_executions: u64,
    /// Bytes of all instances.
    pub(super) memory_bytes: u64,
}

impl Faces {
    pub(super) fn stats(&self) -> Stats {
        let (all, counted) = (self.functions.all(), self.functions.tally().read());
        let instances: Vec<InstanceView> = all.iter().flat_map(|function| function.pool.instances()).collect();
        let queue_size = all.iter().map(|function| function.pool.waiting()).sum();
        let artifacts: BTreeSet<&str> = all.iter().map(|function| &*function.prepared.artifact.digest).collect();
        Stats {
            total_executions: counted.calls,
            successful_executions: counted.calls.saturating_sub(counted.failures),
            failed_executions: counted.failures,
            active_executions: self.functions.recent().running() + self.executor.running(),
            queue_size,
            pending_executions: queue_size + self.executor.waiting(),
            task_count: all.len(),
            artifact_count: artifacts.len(),
            instance_count: instances.len(),
            average_response_time_ms: milliseconds(counted.mean()),
            refused_executions: counted.refused,
            memory_bytes: instances.iter().map(|view| view.memory_bytes).sum(),
        }
    }

    /// Time since the process began.
    pub(super) fn uptime(&self) -> Duration {
        self.functions.began.elapsed()
    }

    /// Why the node is not as it should be, if it is not.
    pub(super) fn degraded(&self) -> Option<String> {
        self.agent.not_ready()
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The node in numbers.
#[utoipa::path(get, path = "/monitoring/stats", operation_id = "node_stats", tag = "functions",
    responses((status = 200, description = "Since its process began", body = Stats)))]
async fn stats(State(faces): State<Arc<Faces>>) -> Json<Stats> {
    Json(faces.stats())
}

/// Is the node as it should be?
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NodeHealth)]
struct Health {
    /// `healthy` or `degraded`.
    status: &'static str,
    /// RFC 3339.
    timestamp: String,
    details: HealthDetails,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NodeHealthDetails)]
struct HealthDetails {
    /// Why it is degraded.
    reason: Option<String>,
    uptime_seconds: u64,
    active_executions: usize,
    pending_executions: usize,
    task_count: usize,
    instance_count: usize,
    memory_bytes: u64,
    /// Kinds of executables' runtimes that it has.
    runtimes: Vec<&'static str>,
    /// Of the machine.
    cpu_usage_percent: f64,
    /// Of the machine.
    memory_usage_percent: f64,
}

/// Is the node as it should be?
#[utoipa::path(get, path = "/monitoring/health", operation_id = "node_health", tag = "functions",
    responses((status = 200, description = "Also when it is degraded; readiness is /readyz", body = Health)))]
async fn health(State(faces): State<Arc<Faces>>) -> Json<Health> {
    let (stats, machine, reason) = (faces.stats(), faces.machine().await, faces.degraded());
    Json(Health {
        status: if reason.is_none() { "healthy" } else { "degraded" },
        timestamp: faces.clock.wall().to_string(),
        details: HealthDetails {
            reason,
            uptime_seconds: faces.uptime().as_secs(),
            active_executions: stats.active_executions,
            pending_executions: stats.pending_executions,
            task_count: stats.task_count,
            instance_count: stats.instance_count,
            memory_bytes: stats.memory_bytes,
            runtimes: faces.functions.runtimes.kinds(),
            cpu_usage_percent: machine.cpu_usage_percent,
            memory_usage_percent: machine.memory_usage_percent,
        },
    })
}

/// What a function does, and has done since it was made ready.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NodeFunction)]
struct FunctionView {
    task_id: String,
    name: String,
    /// How it is called and was compiled.
    description: String,
    /// Calls and runs that have ended. This and what follows only grows; when it is smaller than before, the function
    /// was made ready anew.
    calls: u64,
    /// Those of them that did not complete.
    failures: u64,
    /// Calls that found no place.
    refused: u64,
    /// Time of all calls together, waiting included.
    total_us: u64,
    /// Calls by their time: the largest of a bucket in microseconds, and how many. At most a quarter too large.
    latency_us: Vec<(u64, u64)>,
    in_flight: usize,
    waiting: usize,
    /// Calls that may be under way at once.
    concurrency: usize,
    idle_instances: usize,
    busy_instances: usize,
    /// Bytes of its instances.
    memory_bytes: u64,
}

impl FunctionView {
    fn new(faces: &Faces, function: &Function) -> Self {
        let Counted { calls, failures, refused, time, buckets } = function.tally.read();
        let instances = function.pool.instances();
        let idle_instances = instances.iter().filter(|view| view.state == InstanceState::Idle).count();
        Self {
            task_id: function.task.id.to_string(),
            name: function.name.to_string(),
            description: faces.functions.describe(function),
            calls,
            failures,
            refused,
            total_us: u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
            latency_us: buckets,
            in_flight: function.pool.busy(),
            waiting: function.pool.waiting(),
            concurrency: function.pool.settings().concurrency,
            idle_instances,
            busy_instances: instances.len() - idle_instances,
            memory_bytes: instances.iter().map(|view| view.memory_bytes).sum(),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NodeFunctionList)]
struct FunctionList {
    functions: Vec<FunctionView>,
    /// Time since the process began, milliseconds, at this reading.
    at_ms: u64,
    /// All of them together.
    node: Stats,
}

/// What every function on this node does, and has done.
#[utoipa::path(get, path = "/api/v1/functions", operation_id = "list_functions", tag = "functions",
    responses((status = 200, description = "In the order of their registration", body = FunctionList)))]
async fn list_functions(State(faces): State<Arc<Faces>>) -> Json<FunctionList> {
    let functions = faces.functions().iter().map(|function| FunctionView::new(&faces, function)).collect();
    let at_ms = u64::try_from(faces.uptime().as_millis()).unwrap_or(u64::MAX);
    Json(FunctionList { functions, at_ms, node: faces.stats() })
}

/// An instance of a function.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NodeInstance)]
struct InstanceRow {
    /// Unique in this process.
    instance_id: String,
    task_id: String,
    function_name: String,
    /// `idle` or `busy`.
    status: &'static str,
    /// What it works on.
    execution_id: Option<String>,
    /// Calls so far.
    uses: u64,
    memory_bytes: u64,
    /// Time since it was made.
    age_ms: u64,
    /// Time in this status.
    since_ms: u64,
}

impl InstanceRow {
    fn new(function: &Function, view: &InstanceView, now: Instant) -> Self {
        let since = |moment| u64::try_from(now.saturating_duration_since(moment).as_millis()).unwrap_or(u64::MAX);
        Self {
            instance_id: view.id.to_string(),
            task_id: function.task.id.to_string(),
            function_name: function.name.to_string(),
            status: if view.state == InstanceState::Idle { "idle" } else { "busy" },
            execution_id: view.execution.map(|id| id.to_string()),
            uses: view.uses,
            memory_bytes: view.memory_bytes,
            age_ms: since(view.made),
            since_ms: since(view.since),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NodeInstanceList)]
struct InstanceList {
    instances: Vec<InstanceRow>,
}

/// List the instances of all functions on this node.
#[utoipa::path(get, path = "/api/v1/instances", operation_id = "list_instances", tag = "functions",
    responses((status = 200, description = "In the order in which they were made", body = InstanceList)))]
async fn list_instances(State(faces): State<Arc<Faces>>) -> Json<InstanceList> {
    let (mut all, now) = (faces.functions.instances(), Instant::now());
    all.sort_by_key(|(_, view)| view.id);
    Json(InstanceList { instances: all.iter().map(|(function, view)| InstanceRow::new(function, view, now)).collect() })
}

/// What was done to an instance.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NodeInstanceKilled)]
struct Killed {
    success: bool,
    instance_id: String,
    message: String,
}

impl Faces {
    /// Ends an instance, with its call if it has one; what is told of that.
    ///
    /// # Errors
    /// There is none of that id.
    pub(super) fn kill(&self, instance: &str) -> Result<&'static str, Fault> {
        let id: u64 = instance
            .parse()
            .map_err(|_| Fault::invalid_field("instance_id", format!("{:?} is not a whole number", clip(instance))))?;
        let all = self.functions.instances();
        let busy = all.iter().any(|(_, view)| view.id == id && view.state == InstanceState::Busy);
        match self.functions.kill(id) {
            true if busy => Ok("asked to end, with its call"),
            true => Ok("ended"),
            false => {
                let message = format!("there is no instance {id} on this node; idle ones go by themselves");
                Err(Fault::not_found("INSTANCE_NOT_FOUND", message))
            }
        }
    }
}

/// End an instance, with its call if it has one.
#[utoipa::path(delete, path = "/api/v1/instances/{instance_id}", operation_id = "kill_instance", tag = "functions",
    params(("instance_id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "Ended, or asked to", body = Killed),
    (status = 400, description = "Not an id", body = ProblemBody, content_type = "application/problem+json"),
    (status = 404, description = "No such instance", body = ProblemBody, content_type = "application/problem+json")))]
async fn kill_instance(State(faces): State<Arc<Faces>>, Path(instance): Path<String>) -> Result<Json<Killed>, Problem> {
    let message = faces.kill(&instance)?.to_owned();
    Ok(Json(Killed { success: true, instance_id: instance, message }))
}

/// How many tasks there are of each kind of executable, and how many calls of each function.
pub(super) fn counts(functions: &[Arc<Function>]) -> (BTreeMap<&'static str, i32>, BTreeMap<String, i32>) {
    let (mut kinds, mut calls) = (BTreeMap::new(), BTreeMap::new());
    for function in functions {
        *kinds.entry(function.manifest.executable.kind.as_str()).or_insert(0) += 1;
        let counted = i32::try_from(function.tally.read().calls).unwrap_or(i32::MAX);
        let sum: &mut i32 = calls.entry(function.name.to_string()).or_insert(0);
        *sum = sum.saturating_add(counted);
    }
    (kinds, calls)
}
