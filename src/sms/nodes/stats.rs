//! The nodes in numbers.

use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc};
use types::{Liveness, Node, NodeId, NodeResource};
use utoipa::ToSchema;

/// The registry's nodes in numbers. Counts go by liveness, averages over live nodes that told their load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct ClusterStats {
    /// All.
    pub total_nodes: u64,
    /// Online.
    pub active_nodes: u64,
    /// Offline.
    pub inactive_nodes: u64,
    /// Of the active ones, those that an operator marked `unhealthy`.
    pub unhealthy_nodes: u64,
    /// Of the active ones, those that told their load.
    pub nodes_with_resources: u64,
    /// Percent.
    pub average_cpu_usage: f64,
    /// Percent.
    pub average_memory_usage: f64,
    /// Bytes.
    pub total_memory_bytes: i64,
    /// Bytes.
    pub total_used_memory_bytes: i64,
    /// Of those, busy ones: cpu over 80 %, memory over 85 % or a one-minute load over 4.
    pub high_load_nodes: u64,
    /// So many nodes fell silent at once that nothing is removed and no work is taken away.
    pub expiry_frozen: bool,
}

impl ClusterStats {
    /// Counts and adds up.
    pub(super) fn of(nodes: &[Arc<Node>], resources: &BTreeMap<NodeId, NodeResource>, expiry_frozen: bool) -> Self {
        let mut stats = Self { expiry_frozen, ..Self::default() };
        let (mut cpu, mut memory) = (0.0, 0.0);
        for node in nodes {
            stats.total_nodes += 1;
            if node.liveness == Liveness::Offline {
                stats.inactive_nodes += 1;
                continue;
            }
            stats.active_nodes += 1;
            stats.unhealthy_nodes += u64::from(node.status() == "unhealthy");
            let Some(resource) = resources.get(&node.id) else { continue };
            stats.nodes_with_resources += 1;
            stats.high_load_nodes += u64::from(resource.high_load());
            stats.total_memory_bytes = stats.total_memory_bytes.saturating_add(resource.total_memory_bytes);
            stats.total_used_memory_bytes = stats.total_used_memory_bytes.saturating_add(resource.used_memory_bytes);
            cpu += resource.cpu_usage_percent;
            memory += resource.memory_usage_percent;
        }
        if stats.nodes_with_resources > 0 {
            stats.average_cpu_usage = cpu / stats.nodes_with_resources as f64;
            stats.average_memory_usage = memory / stats.nodes_with_resources as f64;
        }
        stats
    }
}
