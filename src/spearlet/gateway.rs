//! The agent's own interfaces, put together: REST with its OpenAPI document, gRPC with health and reflection.

use api::proto::spearlet::{
    execution_service_server::ExecutionServiceServer, function_service_server::FunctionServiceServer,
    instance_service_server::InstanceServiceServer, invocation_service_server::InvocationServiceServer,
    object_service_server::ObjectServiceServer,
};
use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{Redirect, Response},
    routing::get,
};
use futures_util::FutureExt;
use net::extract::Json;
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::timeout};
use tonic::{server::NamedService, service::Routes};
use types::{Clock, ErrorKind, Fault, NodeId};
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Spearlet,
    executor::Executor,
    functions::faces::{Faces, Grpc, Later},
    objects,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "SPEARlet API", description = "The agent of one node: its state, its functions and its objects."),
    tags(
        (name = "agent", description = "State of the agent"),
        (name = "functions", description = "Calls of functions on this node"),
        (name = "objects", description = "Objects of the node")
    )
)]
struct Document;

struct Gateway {
    id: NodeId,
    node_name: Arc<str>,
    clock: Arc<dyn Clock>,
    objects: Arc<objects::Service>,
    executor: Arc<Executor>,
    process: net::Process,
}

/// The process answers.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `healthy`.
    status: &'static str,
    /// RFC 3339.
    timestamp: String,
    /// `spearlet`.
    service: &'static str,
}

/// What the agent has and does.
#[derive(Debug, Serialize, ToSchema)]
struct Status {
    /// `running`.
    status: &'static str,
    /// Name of the node.
    node_name: String,
    /// Id of the node.
    node_uuid: String,
    /// Objects.
    object_count: usize,
    /// Their bytes.
    total_object_size: u64,
    /// Objects that are pinned.
    pinned_object_count: usize,
    /// Executions that run.
    running: usize,
    /// Executions that wait.
    waiting: usize,
}

/// Answers as long as the process does.
#[utoipa::path(get, path = "/health", tag = "agent", responses((status = 200, body = Health)))]
async fn health(State(gateway): State<Arc<Gateway>>) -> Json<Health> {
    Json(Health { status: "healthy", timestamp: gateway.clock.wall().to_string(), service: "spearlet" })
}

/// Objects and executions in numbers.
#[utoipa::path(get, path = "/status", tag = "agent", responses((status = 200, body = Status)))]
async fn status(State(gateway): State<Arc<Gateway>>) -> Json<Status> {
    let stats = gateway.objects.stats();
    Json(Status {
        status: "running",
        node_name: gateway.node_name.to_string(),
        node_uuid: gateway.id.to_string(),
        object_count: stats.objects,
        total_object_size: stats.bytes,
        pinned_object_count: stats.pinned,
        running: gateway.executor.running(),
        waiting: gateway.executor.waiting(),
    })
}

/// The state of the process: version, listeners, readiness, and everything that is supervised in it.
#[utoipa::path(get, path = "/api/v1/status", operation_id = "process_status", tag = "agent",
    responses((status = 200, body = net::status::ProcessStatus)))]
async fn process_status(State(gateway): State<Arc<Gateway>>) -> Json<net::status::ProcessStatus> {
    Json(gateway.process.status())
}

/// REST.
pub(crate) fn http(spearlet: &Spearlet) -> Router {
    let gateway = Arc::new(Gateway {
        id: spearlet.id,
        node_name: spearlet.node_name.clone(),
        clock: spearlet.clock.clone(),
        objects: spearlet.objects.clone(),
        executor: spearlet.executor.clone(),
        process: spearlet.process.clone(),
    });
    let (router, mut document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(health))
        .routes(routes!(status))
        .routes(routes!(process_status))
        .split_for_parts();
    document.merge(Faces::document());
    document.merge(objects::http::Document::openapi());
    let mut router = router.with_state(gateway).merge(spearlet.faces.http());
    router = router.merge(objects::http::router(spearlet.objects.clone()));
    if spearlet.swagger_enabled {
        router = router.merge(net::openapi::swagger(document));
        for path in ["/docs", "/api-docs"] {
            router = router.route(path, get(|| async { Redirect::temporary("/swagger-ui/") }));
        }
    }
    router
}

/// gRPC.
///
/// # Errors
/// When the descriptors compiled in are broken.
pub(crate) fn grpc(spearlet: &Spearlet) -> Result<Router, Fault> {
    type Objects = ObjectServiceServer<objects::grpc::Grpc>;
    type Functions = FunctionServiceServer<Grpc>;
    type Invocations = InvocationServiceServer<Later>;
    type Executions = ExecutionServiceServer<Later>;
    type Instances = InstanceServiceServer<Later>;
    let names = [Objects::NAME, Functions::NAME, Invocations::NAME, Executions::NAME, Instances::NAME];
    let broken = |error: tonic_reflection::server::Error| Fault::internal(format!("gRPC descriptors: {error}"));
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(api::proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health");
        names.into_iter().fold(builder, tonic_reflection::server::Builder::with_service_name)
    };
    let v1 = reflection().with_service_name("grpc.reflection.v1.ServerReflection").build_v1().map_err(broken)?;
    let v1alpha =
        reflection().with_service_name("grpc.reflection.v1alpha.ServerReflection").build_v1alpha().map_err(broken)?;
    let (reporter, health) = tonic_health::server::health_reporter();
    for name in names {
        // Nobody else has the reporter yet, so there is nothing to wait for.
        let told = reporter.set_service_status(name, tonic_health::ServingStatus::Serving).now_or_never();
        told.ok_or_else(|| Fault::internal("the health service is busy at start"))?;
    }
    let objects = Routes::new(objects::grpc::server(spearlet.objects.clone())).into_axum_router().reset_fallback();
    let objects = objects.layer(middleware::from_fn_with_state(Arc::new(Semaphore::new(CALLS)), limit));
    let later = Later::new(&spearlet.faces);
    let functions = Routes::new(Grpc::server(&spearlet.faces))
        .add_service(later.invocations())
        .add_service(later.executions())
        .add_service(later.instances());
    let calls = Arc::new(Semaphore::new(FUNCTION_CALLS));
    let functions = functions.into_axum_router().reset_fallback();
    let functions = functions.layer(middleware::from_fn_with_state(calls, limit_functions));
    let rest = Routes::new(health).add_service(v1).add_service(v1alpha).into_axum_router();
    // The fallback is left to whoever serves it: merged routers may have one only.
    Ok(rest.reset_fallback().merge(objects).merge(functions))
}

/// Calls of the services of functions at a time: each has its input in memory. What they wait for is bounded by the
/// functions themselves.
const FUNCTION_CALLS: usize = 256;

async fn limit_functions(State(calls): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let Ok(_turn) = calls.try_acquire() else {
        let busy = Fault::new(ErrorKind::Exhausted, "CALLS_BUSY", "too many calls are under way; try again");
        return api::wire::retry_after(&net::grpc::status(busy), Duration::from_secs(1)).into_http();
    };
    next.run(request).await
}

/// Calls of the object service at a time: each may have a whole object in memory before a handler sees it.
const CALLS: usize = 32;
/// Longest wait for one's turn.
const TURN: Duration = Duration::from_secs(10);
/// Longest call, with the time a message takes to arrive.
const CALL: Duration = Duration::from_secs(120);

async fn limit(State(calls): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let Ok(Ok(_turn)) = timeout(TURN, calls.acquire()).await else {
        let busy = Fault::new(ErrorKind::Exhausted, "OBJECTS_BUSY", "too many calls are under way; try again");
        return net::grpc::status(busy).into_http();
    };
    timeout(CALL, next.run(request)).await.unwrap_or_else(|_| {
        let text = format!("the call took longer than {} s", CALL.as_secs());
        net::grpc::status(Fault::new(ErrorKind::Deadline, "DEADLINE", text)).into_http()
    })
}
