//! `/api/v1/nodes…`, `/api/v1/resources` and `/api/v1/cluster/stats`.

use api::Registration;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use net::{
    Problem,
    extract::{Json, Path, Query},
    problem::ProblemBody,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use types::{Fault, NodeId, NodeResource, node::port};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    records,
    service::{Update, not_found},
    stats::ClusterStats,
    views::{LoadView, NodeView, ResourceView},
};
use crate::{
    Sms,
    page::{MOST, Page},
};

/// The routes of nodes.
pub fn routes() -> OpenApiRouter<Sms> {
    OpenApiRouter::new()
        .routes(routes!(register_node, list_nodes))
        .routes(routes!(get_node, update_node, delete_node))
        .routes(routes!(heartbeat))
        .routes(routes!(update_node_resource, get_node_resource))
        .routes(routes!(get_node_with_resource))
        .routes(routes!(list_resources))
        .routes(routes!(cluster_stats))
}

#[derive(Serialize, ToSchema)]
struct Done {
    success: bool,
    message: &'static str,
}

impl Done {
    fn with(message: &'static str) -> Json<Self> {
        Json(Self { success: true, message })
    }
}

/// A fault with the text that the seed's clients read for an unknown node.
fn problem(fault: Fault) -> Problem {
    let unknown = fault.code == "NODE_NOT_FOUND";
    let problem = Problem::from(fault);
    if unknown { problem.error("Node not found") } else { problem }
}

fn id(text: &str) -> Result<NodeId, Problem> {
    text.parse().map_err(|fault: Fault| {
        let detail = fault.errors.into_iter().next().map_or(fault.message, |error| error.detail);
        Fault::invalid_field("uuid", detail).into()
    })
}

#[derive(Deserialize, ToSchema)]
struct RegisterNodeRequest {
    /// IP address or host name under which others reach it.
    ip_address: String,
    /// Its gRPC port, 0 to 65535.
    #[schema(value_type = u16)]
    port: i64,
    /// Its HTTP port, 0 when unknown.
    #[serde(default)]
    #[schema(value_type = u16)]
    http_port: i64,
    /// Labels: at most 64, keys up to 128 bytes, values up to 1024.
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
}

#[derive(Serialize, ToSchema)]
struct RegisteredNode {
    success: bool,
    message: &'static str,
    #[schema(format = Uuid)]
    node_uuid: String,
}

/// Register a node under a new id.
///
/// The node counts as online until it is silent for the heartbeat timeout.
#[utoipa::path(post, path = "/api/v1/nodes", operation_id = "register_node", tag = "nodes",
    request_body = RegisterNodeRequest,
    responses(
        (status = 201, description = "Registered; Location names it", body = RegisteredNode),
        (status = 400, description = "Not JSON, or a value out of range", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "Body over 2 MiB", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "Not sent as application/json", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A field is missing or of another type", body = ProblemBody, content_type = "application/problem+json"),
        (status = 507, description = "The disk is full", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn register_node(State(sms): State<Sms>, Json(body): Json<RegisterNodeRequest>) -> Result<Response, Problem> {
    let registration = Registration {
        id: NodeId::new(),
        ip_address: body.ip_address,
        port: port("port", body.port)?,
        http_port: port("http_port", body.http_port)?,
        metadata: body.metadata.unwrap_or_default(),
    };
    let node_uuid = sms.nodes.register(registration).await?.id.to_string();
    let mut headers = HeaderMap::new();
    let place = HeaderValue::try_from(format!("/api/v1/nodes/{node_uuid}"));
    headers.insert(header::LOCATION, place.expect("a UUID is a header value"));
    let answer = RegisteredNode { success: true, message: "Node registered successfully", node_uuid };
    Ok((StatusCode::CREATED, headers, Json(answer)).into_response())
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListNodesQuery {
    /// Only nodes that show this status, in any case.
    status: Option<String>,
    /// Nodes on a page, 1 to 1000; 1000 when left out.
    #[param(value_type = Option<u16>)]
    limit: Option<i64>,
    /// Nodes to leave out first.
    #[param(value_type = Option<u64>)]
    offset: Option<i64>,
    /// The `next_cursor` of the page before; instead of `offset`.
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct NodeList {
    success: bool,
    nodes: Vec<NodeView>,
    /// Of all pages.
    total_count: usize,
    /// Where the next page begins; none: this was the last.
    next_cursor: Option<String>,
}

/// List nodes in the order of their registration.
#[utoipa::path(get, path = "/api/v1/nodes", operation_id = "list_nodes", tag = "nodes",
    params(ListNodesQuery),
    responses(
        (status = 200, body = NodeList),
        (status = 400, description = "A parameter makes no sense", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn list_nodes(State(sms): State<Sms>, Query(query): Query<ListNodesQuery>) -> Result<Json<NodeList>, Problem> {
    let page = Page::parse("nodes", (query.limit, query.offset, query.cursor.as_deref()), MOST)?;
    let cut = sms.nodes.list(query.status.as_deref().filter(|status| !status.is_empty()), &page)?;
    let nodes = cut.items.into_iter().map(NodeView::from).collect();
    Ok(Json(NodeList { success: true, nodes, total_count: cut.total, next_cursor: cut.next }))
}

#[derive(Serialize, ToSchema)]
struct OneNode {
    success: bool,
    node: NodeView,
}

/// Get a node.
#[utoipa::path(get, path = "/api/v1/nodes/{uuid}", operation_id = "get_node", tag = "nodes",
    params(("uuid" = String, Path, format = Uuid, description = "Its id")),
    responses(
        (status = 200, body = OneNode),
        (status = 400, description = "Not a UUID", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "Unknown", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn get_node(State(sms): State<Sms>, Path(uuid): Path<String>) -> Result<Json<OneNode>, Problem> {
    let node = sms.nodes.view(id(&uuid)?).map_err(problem)?;
    Ok(Json(OneNode { success: true, node: node.into() }))
}

/// What is left out, or null, stays as it is.
#[derive(Deserialize, ToSchema)]
struct UpdateNodeRequest {
    /// IP address or host name.
    ip_address: Option<String>,
    /// gRPC port, 0 to 65535.
    #[schema(value_type = Option<u16>)]
    port: Option<i64>,
    /// HTTP port, 0 to 65535.
    #[schema(value_type = Option<u16>)]
    http_port: Option<i64>,
    /// A word to show while the node lives; `draining` and `maintenance` keep new work away, `online` takes the
    /// word back.
    status: Option<String>,
    /// Replaces all labels.
    metadata: Option<BTreeMap<String, String>>,
}

/// Change a node.
#[utoipa::path(put, path = "/api/v1/nodes/{uuid}", operation_id = "update_node", tag = "nodes",
    params(("uuid" = String, Path, format = Uuid, description = "Its id")),
    request_body = UpdateNodeRequest,
    responses(
        (status = 200, body = Done),
        (status = 400, description = "Not a UUID, not JSON, or a value out of range", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "Unknown", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "Body over 2 MiB", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "Not sent as application/json", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A field is of another type", body = ProblemBody, content_type = "application/problem+json"),
        (status = 507, description = "The disk is full", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn update_node(
    State(sms): State<Sms>,
    Path(uuid): Path<String>,
    Json(body): Json<UpdateNodeRequest>,
) -> Result<Json<Done>, Problem> {
    let id = id(&uuid)?;
    let update = Update {
        ip_address: body.ip_address,
        port: body.port.map(|value| port("port", value)).transpose()?,
        http_port: body.http_port.map(|value| port("http_port", value)).transpose()?,
        metadata: body.metadata,
        status: body.status.map(|text| records::word("status", &text)).transpose()?,
    };
    sms.nodes.update(id, update).await.map_err(problem)?;
    Ok(Done::with("Node updated successfully"))
}

/// Remove a node.
#[utoipa::path(delete, path = "/api/v1/nodes/{uuid}", operation_id = "delete_node", tag = "nodes",
    params(("uuid" = String, Path, format = Uuid, description = "Its id")),
    responses(
        (status = 200, body = Done),
        (status = 400, description = "Not a UUID", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "Unknown", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn delete_node(State(sms): State<Sms>, Path(uuid): Path<String>) -> Result<Json<Done>, Problem> {
    sms.nodes.delete(id(&uuid)?).await.map_err(problem)?;
    Ok(Done::with("Node deleted successfully"))
}

#[derive(Deserialize, ToSchema)]
struct HeartbeatRequest {
    /// Free words on the node's health, up to 4096 bytes; shown live, not kept.
    #[serde(default)]
    health_info: Option<BTreeMap<String, String>>,
}

#[derive(Serialize, ToSchema)]
struct HeartbeatAnswer {
    success: bool,
    message: &'static str,
    /// When to send the next one.
    next_heartbeat_ms: u64,
}

/// Say that a node lives.
#[utoipa::path(post, path = "/api/v1/nodes/{uuid}/heartbeat", operation_id = "node_heartbeat", tag = "nodes",
    params(("uuid" = String, Path, format = Uuid, description = "Its id")),
    request_body = HeartbeatRequest,
    responses(
        (status = 200, body = HeartbeatAnswer),
        (status = 400, description = "Not a UUID, not JSON, or too much", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "Unknown: register again", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "Body over 2 MiB", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "Not sent as application/json", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A field is of another type", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn heartbeat(
    State(sms): State<Sms>,
    Path(uuid): Path<String>,
    Json(body): Json<HeartbeatRequest>,
) -> Result<Json<HeartbeatAnswer>, Problem> {
    let next = sms.nodes.heartbeat(id(&uuid)?, body.health_info.unwrap_or_default()).await.map_err(problem)?;
    let next_heartbeat_ms = u64::try_from(next.as_millis()).unwrap_or(u64::MAX);
    Ok(Json(HeartbeatAnswer { success: true, message: "Heartbeat received", next_heartbeat_ms }))
}

/// A node's load; what is left out is 0.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
struct UpdateResourceRequest {
    cpu_usage_percent: f64,
    memory_usage_percent: f64,
    total_memory_bytes: u64,
    used_memory_bytes: u64,
    available_memory_bytes: u64,
    disk_usage_percent: f64,
    total_disk_bytes: u64,
    used_disk_bytes: u64,
    network_rx_bytes_per_sec: u64,
    network_tx_bytes_per_sec: u64,
    load_average_1m: f64,
    load_average_5m: f64,
    load_average_15m: f64,
    /// Labels: at most 64, keys up to 128 bytes, values up to 1024.
    resource_metadata: BTreeMap<String, String>,
}

impl UpdateResourceRequest {
    fn into_resource(self) -> Result<NodeResource, Fault> {
        let count = |field: &str, value: u64| {
            i64::try_from(value).map_err(|_| Fault::invalid_field(field, format!("{value} is over {}", i64::MAX)))
        };
        Ok(NodeResource {
            cpu_usage_percent: self.cpu_usage_percent,
            memory_usage_percent: self.memory_usage_percent,
            total_memory_bytes: count("total_memory_bytes", self.total_memory_bytes)?,
            used_memory_bytes: count("used_memory_bytes", self.used_memory_bytes)?,
            available_memory_bytes: count("available_memory_bytes", self.available_memory_bytes)?,
            disk_usage_percent: self.disk_usage_percent,
            total_disk_bytes: count("total_disk_bytes", self.total_disk_bytes)?,
            used_disk_bytes: count("used_disk_bytes", self.used_disk_bytes)?,
            network_rx_bytes_per_sec: count("network_rx_bytes_per_sec", self.network_rx_bytes_per_sec)?,
            network_tx_bytes_per_sec: count("network_tx_bytes_per_sec", self.network_tx_bytes_per_sec)?,
            load_average_1m: self.load_average_1m,
            load_average_5m: self.load_average_5m,
            load_average_15m: self.load_average_15m,
            updated_at: types::Timestamp::default(),
            resource_metadata: self.resource_metadata,
        })
    }
}

/// Tell a node's load.
///
/// Kept in memory: after a restart of the registry it is known again when the node tells it again.
#[utoipa::path(put, path = "/api/v1/nodes/{uuid}/resource", operation_id = "update_node_resource", tag = "resources",
    params(("uuid" = String, Path, format = Uuid, description = "Whose")),
    request_body = UpdateResourceRequest,
    responses(
        (status = 200, body = Done),
        (status = 400, description = "Not a UUID, not JSON, or a value out of range", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such node", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "Body over 2 MiB", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "Not sent as application/json", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A field is of another type", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn update_node_resource(
    State(sms): State<Sms>,
    Path(uuid): Path<String>,
    Json(body): Json<UpdateResourceRequest>,
) -> Result<Json<Done>, Problem> {
    sms.nodes.update_resource(id(&uuid)?, body.into_resource()?).await.map_err(problem)?;
    Ok(Done::with("Resource updated successfully"))
}

/// Get a node's load as last told.
#[utoipa::path(get, path = "/api/v1/nodes/{uuid}/resource", operation_id = "get_node_resource", tag = "resources",
    params(("uuid" = String, Path, format = Uuid, description = "Whose")),
    responses(
        (status = 200, body = ResourceView),
        (status = 400, description = "Not a UUID", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "Unknown, or it has not told yet", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn get_node_resource(State(sms): State<Sms>, Path(uuid): Path<String>) -> Result<Json<ResourceView>, Problem> {
    let id = id(&uuid)?;
    match sms.nodes.resource(id) {
        Some(resource) => Ok(Json((id, resource).into())),
        None if sms.nodes.get(id).is_none() => Err(problem(not_found(id))),
        None => {
            let message = format!("node {id} has not told its load since the registry started");
            Err(Fault::not_found("RESOURCE_NOT_FOUND", message).into())
        }
    }
}

#[derive(Serialize, ToSchema)]
struct NodeWithResource {
    #[serde(flatten)]
    node: NodeView,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<LoadView>,
}

/// Get a node with its load, if it has told that.
#[utoipa::path(get, path = "/api/v1/nodes/{uuid}/with-resource", operation_id = "get_node_with_resource", tag = "resources",
    params(("uuid" = String, Path, format = Uuid, description = "Its id")),
    responses(
        (status = 200, body = NodeWithResource),
        (status = 400, description = "Not a UUID", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "Unknown", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn get_node_with_resource(
    State(sms): State<Sms>,
    Path(uuid): Path<String>,
) -> Result<Json<NodeWithResource>, Problem> {
    let id = id(&uuid)?;
    let node = sms.nodes.view(id).map_err(problem)?.into();
    Ok(Json(NodeWithResource { node, resource: sms.nodes.resource(id).map(LoadView::from) }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListResourcesQuery {
    /// Ids with commas between; what is not a UUID is left out. All nodes when this is left out.
    node_uuids: Option<String>,
    /// Entries on a page, 1 to 1000; 1000 when left out.
    #[param(value_type = Option<u16>)]
    limit: Option<i64>,
    /// Entries to leave out first.
    #[param(value_type = Option<u64>)]
    offset: Option<i64>,
    /// The `next_cursor` of the page before; instead of `offset`.
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct ResourceList {
    resources: Vec<ResourceView>,
    /// Of all pages.
    total_count: usize,
    /// Where the next page begins; none: this was the last.
    next_cursor: Option<String>,
}

/// List the loads of nodes.
#[utoipa::path(get, path = "/api/v1/resources", operation_id = "list_resources", tag = "resources",
    params(ListResourcesQuery),
    responses(
        (status = 200, body = ResourceList),
        (status = 400, description = "A parameter makes no sense", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn list_resources(
    State(sms): State<Sms>,
    Query(query): Query<ListResourcesQuery>,
) -> Result<Json<ResourceList>, Problem> {
    let page = Page::parse("resources", (query.limit, query.offset, query.cursor.as_deref()), MOST)?;
    let of: Option<Vec<NodeId>> = query
        .node_uuids
        .filter(|list| !list.trim().is_empty())
        .map(|list| list.split(',').filter_map(|one| one.trim().parse().ok()).collect());
    let cut = sms.nodes.list_resources(of.as_deref(), &page)?;
    let resources = cut.items.into_iter().map(ResourceView::from).collect();
    Ok(Json(ResourceList { resources, total_count: cut.total, next_cursor: cut.next }))
}

#[derive(Serialize, ToSchema)]
struct ClusterStatsAnswer {
    success: bool,
    stats: ClusterStats,
}

/// The registry's nodes in numbers.
#[utoipa::path(get, path = "/api/v1/cluster/stats", operation_id = "cluster_stats", tag = "nodes",
    responses((status = 200, body = ClusterStatsAnswer)))]
async fn cluster_stats(State(sms): State<Sms>) -> Json<ClusterStatsAnswer> {
    Json(ClusterStatsAnswer { success: true, stats: sms.nodes.stats() })
}
