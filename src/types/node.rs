//! Nodes: machines that run functions.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::{Fault, NodeId, Timestamp};

/// Metadata key under which an agent tells which runtimes it has: `wasm,process`.
pub const RUNTIMES_KEY: &str = "spear.runtimes";
/// Metadata key under which an agent tells where it lives: the same for every start in one place, another in a copy
/// of it. Also a key of its heartbeats.
pub const BOOT_KEY: &str = "spear.boot_id";
/// Words set by `PUT` that keep new work away from a node.
pub const NO_NEW_WORK: [&str; 2] = ["draining", "maintenance"];

/// Does the node answer? Decided by heartbeats on the monotonic clock; only transitions are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    /// Its last heartbeat is within the timeout.
    #[default]
    Online,
    /// It was silent for longer.
    Offline,
}

impl Liveness {
    /// `online` or `offline`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
        }
    }
}

/// A registered node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id; an agent keeps its own on disk.
    pub id: NodeId,
    /// Address under which others reach it.
    pub ip_address: String,
    /// Its gRPC port, 0-65535.
    pub port: u16,
    /// Its HTTP port, 0 when unknown.
    #[serde(default)]
    pub http_port: u16,
    /// Free labels.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Alive or not.
    #[serde(default)]
    pub liveness: Liveness,
    /// A word set by an operator, shown as status while the node lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_override: Option<String>,
    /// The agent has said that it stops: no new work until it registers again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// When it registered first.
    pub registered_at: Timestamp,
    /// When it was last heard of, as far as it was written (heartbeats are not).
    pub last_heartbeat: Timestamp,
}

impl Node {
    /// The status shown to people: the operator's word while the node lives, `draining` while its agent stops,
    /// else its liveness.
    pub fn status(&self) -> &str {
        match (self.liveness, &self.status_override) {
            (Liveness::Online, Some(word)) => word,
            (Liveness::Online, None) if self.leaving => "draining",
            (liveness, _) => liveness.as_str(),
        }
    }

    /// May new work be placed here?
    pub fn takes_work(&self) -> bool {
        self.liveness == Liveness::Online
            && !self.leaving
            && !self.status_override.as_deref().is_some_and(|word| NO_NEW_WORK.contains(&word))
    }

    /// Has it said that it runs executables of this kind?
    pub fn has_runtime(&self, runtime: &str) -> bool {
        self.runtimes().any(|one| one == runtime)
    }

    /// What it has said that it runs.
    pub fn runtimes(&self) -> impl Iterator<Item = &str> {
        let list = self.metadata.get(RUNTIMES_KEY).map_or("", String::as_str);
        list.split(',').map(str::trim).filter(|one| !one.is_empty())
    }

    /// Its `name` label, or nothing.
    pub fn name(&self) -> &str {
        self.metadata.get("name").map_or("", String::as_str)
    }
}

/// Checks a port from outside (the wire has an `int32`).
pub fn port(field: &str, value: i64) -> Result<u16, Fault> {
    u16::try_from(value).map_err(|_| Fault::invalid_field(field, format!("{value} is not a port; use 0 to 65535")))
}

/// What a node last said of its load. Kept in memory; the last one before a stop is not written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeResource {
    /// Percent of all cores, 0-100.
    pub cpu_usage_percent: f64,
    /// Percent of memory in use, 0-100.
    pub memory_usage_percent: f64,
    /// Bytes of memory in all.
    pub total_memory_bytes: i64,
    /// Bytes of memory in use.
    pub used_memory_bytes: i64,
    /// Bytes of memory a program could get.
    pub available_memory_bytes: i64,
    /// Percent of the data disk in use, 0-100.
    pub disk_usage_percent: f64,
    /// Bytes of the data disk.
    pub total_disk_bytes: i64,
    /// Bytes of the data disk in use.
    pub used_disk_bytes: i64,
    /// Bytes received per second.
    pub network_rx_bytes_per_sec: i64,
    /// Bytes sent per second.
    pub network_tx_bytes_per_sec: i64,
    /// Load average over one minute.
    pub load_average_1m: f64,
    /// Load average over five minutes.
    pub load_average_5m: f64,
    /// Load average over fifteen minutes.
    pub load_average_15m: f64,
    /// When the registry received it.
    pub updated_at: Timestamp,
    /// Free labels.
    pub resource_metadata: BTreeMap<String, String>,
}

impl NodeResource {
    /// Busy enough to be called so: cpu over 80 %, memory over 85 % or a one-minute load over 4.
    pub fn high_load(&self) -> bool {
        self.cpu_usage_percent > 80.0 || self.memory_usage_percent > 85.0 || self.load_average_1m > 4.0
    }
}
