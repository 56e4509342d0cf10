//! Nodes and their loads as JSON: the seed's shapes.

use serde::Serialize;
use std::collections::BTreeMap;
use types::{Node, NodeId, NodeResource};
use utoipa::ToSchema;

/// A node, as the seed shows it. Times are whole seconds since 1970-01-01 UTC.
#[derive(Serialize, ToSchema)]
#[schema(as = Node)]
pub(crate) struct NodeView {
    /// Its id.
    #[schema(format = Uuid)]
    uuid: String,
    /// IP address or host name under which others reach it.
    ip_address: String,
    /// Its gRPC port.
    port: u16,
    /// Its HTTP port, 0 when unknown.
    http_port: u16,
    /// An operator's word while the node lives, else `online`, `draining` or `offline`.
    status: String,
    /// `online` or `offline`, by its heartbeats alone.
    liveness: &'static str,
    /// When it was heard of last.
    last_heartbeat: i64,
    /// When it registered first.
    registered_at: i64,
    /// Labels.
    metadata: BTreeMap<String, String>,
}

impl From<Node> for NodeView {
    fn from(node: Node) -> Self {
        Self {
            uuid: node.id.to_string(),
            status: node.status().to_owned(),
            liveness: node.liveness.as_str(),
            ip_address: node.ip_address,
            port: node.port,
            http_port: node.http_port,
            last_heartbeat: node.last_heartbeat.seconds(),
            registered_at: node.registered_at.seconds(),
            metadata: node.metadata,
        }
    }
}

/// A node's load without its id.
#[derive(Serialize, ToSchema)]
pub(super) struct LoadView {
    cpu_usage_percent: f64,
    memory_usage_percent: f64,
    total_memory_bytes: i64,
    used_memory_bytes: i64,
    available_memory_bytes: i64,
    disk_usage_percent: f64,
    total_disk_bytes: i64,
    used_disk_bytes: i64,
    network_rx_bytes_per_sec: i64,
    network_tx_bytes_per_sec: i64,
    load_average_1m: f64,
    load_average_5m: f64,
    load_average_15m: f64,
    /// Labels.
    resource_metadata: BTreeMap<String, String>,
    /// When the registry received it, seconds since 1970-01-01 UTC.
    updated_at: i64,
}

impl From<NodeResource> for LoadView {
    fn from(from: NodeResource) -> Self {
        Self {
            cpu_usage_percent: from.cpu_usage_percent,
            memory_usage_percent: from.memory_usage_percent,
            total_memory_bytes: from.total_memory_bytes,
            used_memory_bytes: from.used_memory_bytes,
            available_memory_bytes: from.available_memory_bytes,
            disk_usage_percent: from.disk_usage_percent,
            total_disk_bytes: from.total_disk_bytes,
            used_disk_bytes: from.used_disk_bytes,
            network_rx_bytes_per_sec: from.network_rx_bytes_per_sec,
            network_tx_bytes_per_sec: from.network_tx_bytes_per_sec,
            load_average_1m: from.load_average_1m,
            load_average_5m: from.load_average_5m,
            load_average_15m: from.load_average_15m,
            resource_metadata: from.resource_metadata,
            updated_at: from.updated_at.seconds(),
        }
    }
}

/// A node's load.
#[derive(Serialize, ToSchema)]
#[schema(as = NodeResource)]
pub(super) struct ResourceView {
    /// Whose.
    #[schema(format = Uuid)]
    node_uuid: String,
    #[serde(flatten)]
    load: LoadView,
}

impl From<(NodeId, NodeResource)> for ResourceView {
    fn from((id, resource): (NodeId, NodeResource)) -> Self {
        Self { node_uuid: id.to_string(), load: resource.into() }
    }
}
