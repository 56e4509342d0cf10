//! What may stand in a node's record, and what of a node is only told and never kept.

use api::Registration;
use std::collections::BTreeMap;
use types::{Fault, Liveness, Node, NodeId, NodeResource, Timestamp, node::NO_NEW_WORK};

/// Labels of a node at most.
const MOST_LABELS: usize = 64;
/// Bytes of a label's key.
const LONGEST_KEY: usize = 128;
/// Bytes of a label's value.
const LONGEST_VALUE: usize = 1024;
/// Bytes of everything a heartbeat carries.
const MOST_HEALTH_BYTES: usize = 4096;
/// Characters of a host name (RFC 1035).
const LONGEST_ADDRESS: usize = 253;
/// Characters of an operator's word.
const LONGEST_WORD: usize = 64;

/// The word that ends an override.
const CLEARING: &str = "online";

/// A heartbeat was received: for whoever shows nodes live. Not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeBeat {
    /// Whose.
    pub node: NodeId,
    /// What the agent said of its health.
    pub health: BTreeMap<String, String>,
}

impl bus::Signal for NodeBeat {}

/// What a `PUT` of a status means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Back to what the heartbeats say.
    Clear,
    /// Shown while the node lives.
    Set(String),
}

/// Reads an operator's word. The words that mean something to us are recognised in any case.
pub(super) fn word(field: &str, text: &str) -> Result<Word, Fault> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > LONGEST_WORD || text.chars().any(char::is_control) {
        let detail = format!("must be 1 to {LONGEST_WORD} printable characters, for instance maintenance");
        return Err(Fault::invalid_field(field, detail));
    }
    if text.eq_ignore_ascii_case(CLEARING) {
        return Ok(Word::Clear);
    }
    let known = NO_NEW_WORK.into_iter().find(|word| text.eq_ignore_ascii_case(word));
    Ok(Word::Set(known.unwrap_or(text).to_owned()))
}

/// Checks what an agent or an administrator says of a node.
pub(super) fn registration(registration: &Registration) -> Result<(), Fault> {
    address("ip_address", &registration.ip_address)?;
    labels("metadata", &registration.metadata)
}

/// An address is an IP address or a host name; whether it answers is not asked.
pub(super) fn address(field: &str, text: &str) -> Result<(), Fault> {
    let fits = (1..=LONGEST_ADDRESS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-_[]%".contains(&byte));
    if fits {
        return Ok(());
    }
    let shown = types::id::clip(text);
    Err(Fault::invalid_field(field, format!("{shown:?} is neither an IP address nor a host name")))
}

/// Checks labels: few and short, or the registry's memory would be anybody's to fill.
pub(super) fn labels(field: &str, labels: &BTreeMap<String, String>) -> Result<(), Fault> {
    if labels.len() > MOST_LABELS {
        return Err(Fault::invalid_field(field, format!("has {} entries; at most {MOST_LABELS}", labels.len())));
    }
    for (key, value) in labels {
        if key.is_empty() || key.len() > LONGEST_KEY {
            let shown = types::id::clip(key);
            let detail = format!("the key {shown:?} has {} bytes; use 1 to {LONGEST_KEY}", key.len());
            return Err(Fault::invalid_field(field, detail));
        }
        if value.len() > LONGEST_VALUE {
            let detail = format!("the value has {} bytes; at most {LONGEST_VALUE}", value.len());
            return Err(Fault::invalid_field(format!("{field}.{key}"), detail));
        }
    }
    Ok(())
}

/// Checks what a heartbeat carries.
pub(super) fn health(health: &BTreeMap<String, String>) -> Result<(), Fault> {
    let bytes: usize = health.iter().map(|(key, value)| key.len() + value.len()).sum();
    if health.len() > MOST_LABELS || bytes > MOST_HEALTH_BYTES {
        let detail = format!(
            "has {} entries of {bytes} bytes; at most {MOST_LABELS} of {MOST_HEALTH_BYTES} in all",
            health.len()
        );
        return Err(Fault::invalid_field("health_info", detail));
    }
    Ok(())
}

/// The record of what an agent says now; what it cannot say is kept.
pub(super) fn told(registration: &Registration, word: Option<&Word>, kept: Option<&Node>, now: Timestamp) -> Node {
    Node {
        id: registration.id,
        ip_address: registration.ip_address.clone(),
        port: registration.port,
        http_port: registration.http_port,
        metadata: registration.metadata.clone(),
        liveness: Liveness::Online,
        status_override: match word {
            None => kept.and_then(|kept| kept.status_override.clone()),
            Some(Word::Clear) => None,
            Some(Word::Set(word)) => Some(word.clone()),
        },
        leaving: false,
        registered_at: kept.map_or(now, |kept| kept.registered_at),
        last_heartbeat: now,
    }
}

/// Checks what a node says of its load: numbers that can be added and shown.
pub(super) fn resource(resource: &NodeResource) -> Result<(), Fault> {
    let parts = [
        ("cpu_usage_percent", resource.cpu_usage_percent),
        ("memory_usage_percent", resource.memory_usage_percent),
        ("disk_usage_percent", resource.disk_usage_percent),
        ("load_average_1m", resource.load_average_1m),
        ("load_average_5m", resource.load_average_5m),
        ("load_average_15m", resource.load_average_15m),
    ];
    for (field, value) in parts {
        if !value.is_finite() || value < 0.0 {
            return Err(Fault::invalid_field(field, format!("{value} is not a measure; use 0 or more")));
        }
    }
    let counts = [
        ("total_memory_bytes", resource.total_memory_bytes),
        ("used_memory_bytes", resource.used_memory_bytes),
        ("available_memory_bytes", resource.available_memory_bytes),
        ("total_disk_bytes", resource.total_disk_bytes),
        ("used_disk_bytes", resource.used_disk_bytes),
        ("network_rx_bytes_per_sec", resource.network_rx_bytes_per_sec),
        ("network_tx_bytes_per_sec", resource.network_tx_bytes_per_sec),
    ];
    for (field, value) in counts {
        if value < 0 {
            return Err(Fault::invalid_field(field, format!("{value} is negative; use 0 or more")));
        }
    }
    labels("resource_metadata", &resource.resource_metadata)
}
