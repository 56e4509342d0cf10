//! Puts the faces together: REST with its OpenAPI document, made of the very handlers, and gRPC with health and
//! reflection.

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use net::extract::Json;
use serde::Serialize;
use supervise::{Scope, Stop};
use tonic::{server::NamedService, service::Routes};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};
use types::Fault;
use utoipa::{
    ToSchema,
    openapi::{InfoBuilder, LicenseBuilder, OpenApiBuilder, tag::TagBuilder},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use api::proto::{
    DESCRIPTORS,
    sms::{node_service_server::NodeServiceServer, task_service_server::TaskServiceServer},
    v1::{agent_service_server::AgentServiceServer, execution_service_server::ExecutionServiceServer},
};

use crate::{Sms, agent, backup, events, executions, files, nodes, status, tasks};

/// Bytes of one message that this side reads: an input or a result of an execution fits.
const MOST_MESSAGE: usize = 16 << 20;

/// What the tags of the document mean.
const TAGS: [(&str, &str); 8] = [
    ("nodes", "Machines that run functions"),
    ("resources", "How loaded they are"),
    ("tasks", "What to run"),
    ("executions", "Runs of tasks, their results and logs"),
    ("files", "Bytes that tasks are made of"),
    ("events", "What changes, as it changes"),
    ("backup", "All of it, to keep elsewhere"),
    ("health", "Is the registry well?"),
];

fn document() -> utoipa::openapi::OpenApi {
    let info = InfoBuilder::new()
        .title("SPEAR Metadata Server API")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Nodes, tasks, executions and files of a Spear registry. Errors are problems (RFC 9457) whose `code` is \
             stable. Off loopback every request carries `Authorization: Bearer <token>`.",
        ))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
        .build();
    let tags = TAGS.map(|(name, text)| TagBuilder::new().name(name).description(Some(text)).build());
    OpenApiBuilder::new().info(info).tags(Some(tags)).build()
}

fn routes() -> OpenApiRouter<Sms> {
    OpenApiRouter::with_openapi(document())
        .merge(nodes::http::routes())
        .merge(tasks::http::routes())
        .merge(executions::http::routes())
        .merge(files::http::routes())
        .merge(events::http::routes())
        .merge(backup::http::routes())
        .routes(routes!(status::process_status))
        .routes(routes!(health))
}

pub(crate) fn http(sms: &Sms) -> Router {
    let (router, openapi) = routes().split_for_parts();
    let router = router.with_state(sms.clone());
    if sms.config.get().enable_swagger { router.merge(net::openapi::swagger(openapi)) } else { router }
}

pub(crate) fn grpc(sms: &Sms) -> Result<Router, Fault> {
    let broken = |error: tonic_reflection::server::Error| Fault::internal(format!("broken descriptors: {error}"));
    // The descriptors also have the services of the agent: only those that are here are listed.
    let reflection = |version: &str| {
        let listed = [HEALTH, version].into_iter().chain(SERVICES);
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        listed.fold(builder, |builder, name| builder.with_service_name(name))
    };
    let executions =
        ExecutionServiceServer::new(executions::grpc::Grpc::new(sms)).max_decoding_message_size(MOST_MESSAGE);
    let agents = AgentServiceServer::new(agent::grpc::Grpc::new(sms)).max_decoding_message_size(MOST_MESSAGE);
    let routes = Routes::new(NodeServiceServer::new(nodes::grpc::Grpc::new(sms)))
        .add_service(TaskServiceServer::new(tasks::grpc::Grpc::new(sms)))
        .add_service(executions)
        .add_service(agents)
        .add_service(HealthServer::new(HealthService::from_health_reporter(sms.health.clone())))
        .add_service(reflection("grpc.reflection.v1.ServerReflection").build_v1().map_err(broken)?)
        .add_service(reflection("grpc.reflection.v1alpha.ServerReflection").build_v1alpha().map_err(broken)?);
    // Unknown services are answered by `net::serve`, in the form the caller speaks; and a router that keeps a
    // fallback of its own could not be merged with another.
    Ok(routes.into_axum_router().reset_fallback())
}

/// Names of our services, for reflection and health.
const SERVICES: [&str; 4] = [
    <NodeServiceServer<nodes::grpc::Grpc> as NamedService>::NAME,
    <TaskServiceServer<tasks::grpc::Grpc> as NamedService>::NAME,
    <ExecutionServiceServer<executions::grpc::Grpc> as NamedService>::NAME,
    <AgentServiceServer<agent::grpc::Grpc> as NamedService>::NAME,
];
/// And of the one that tells health.
const HEALTH: &str = "grpc.health.v1.Health";

/// The source of `grpc.health.v1`: serving until the process begins to stop or the store fails.
pub(crate) async fn health_reporter(scope: &Scope, stopping: Stop, store: store::Store) -> HealthReporter {
    let reporter = HealthReporter::new();
    tell(&reporter, ServingStatus::Serving).await;
    let told = reporter.clone();
    scope.spawn("health", supervise::OnError::Log, move |stop| {
        let (reporter, stopping, store) = (told.clone(), stopping.clone(), store.clone());
        async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = stopping.cancelled() => {}
                () = failed(&store) => {}
            }
            tell(&reporter, ServingStatus::NotServing).await;
            Ok(())
        }
    });
    reporter
}

async fn tell(reporter: &HealthReporter, status: ServingStatus) {
    // The empty name is the process.
    for service in SERVICES.into_iter().chain([""]) {
        reporter.set_service_status(service, status).await;
    }
}

/// Ends when the store has failed.
async fn failed(store: &store::Store) {
    let mut tick = tokio::time::interval(std::time::Duration::from_secs(1));
    while store.failure().is_none() {
        tick.tick().await;
    }
}

#[derive(Serialize, ToSchema)]
struct Health {
    /// `healthy` or `unhealthy`.
    status: &'static str,
    /// RFC 3339.
    timestamp: String,
    service: &'static str,
    /// What is wrong, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Is the registry well: can it write, and do its events flow?
#[utoipa::path(get, path = "/health", operation_id = "health", tag = "health",
    responses(
        (status = 200, description = "It is", body = Health),
        (status = 503, description = "It is not", body = Health),
    ))]
async fn health(State(sms): State<Sms>) -> Response {
    let reason = ailment(&sms).await;
    let well = reason.is_none();
    let answer = Health {
        status: if well { "healthy" } else { "unhealthy" },
        timestamp: sms.clock.wall().to_string(),
        service: "sms",
        reason,
    };
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(answer)).into_response()
}

async fn ailment(sms: &Sms) -> Option<String> {
    if sms.stopping.is_cancelled() {
        return Some("the process is stopping".to_owned());
    }
    if let Some(error) = sms.bus.store().failure() {
        tracing::debug!(%error, "asked for health while the store has failed");
        return Some("the store has failed".to_owned());
    }
    sms.files.is_there().await.err().map(|error| format!("the directory of files: {error}"))
}
