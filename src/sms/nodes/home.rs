//! One place for each node: whoever copies a machine with its agent has two that claim one id, and their work would be
//! done twice. The one that is there stays until it is silent or has left; its own restarts are the same place.

use std::{collections::BTreeMap, time::Duration};
use types::{Fault, Liveness, Node, node::BOOT_KEY};

/// May an agent that says `labels` of itself register as this node? `heard`: how long ago the node was heard of, if it
/// lives.
///
/// # Errors
/// `NODE_ID_IN_USE`.
pub(super) fn may_register(
    node: &Node,
    labels: &BTreeMap<String, String>,
    heard: Option<Duration>,
) -> Result<(), Fault> {
    match heard {
        Some(heard) if differ(node, labels) && node.liveness == Liveness::Online && !node.leaving => {
            Err(in_use(node, heard))
        }
        _ => Ok(()),
    }
}

/// Is a heartbeat that says `health` from the agent that has registered?
///
/// # Errors
/// `NODE_ID_IN_USE`.
pub(super) fn may_beat(node: &Node, health: &BTreeMap<String, String>, heard: Option<Duration>) -> Result<(), Fault> {
    if differ(node, health) { Err(in_use(node, heard.unwrap_or_default())) } else { Ok(()) }
}

/// Do both say where they live, and not the same?
fn differ(node: &Node, labels: &BTreeMap<String, String>) -> bool {
    match (node.metadata.get(BOOT_KEY), labels.get(BOOT_KEY)) {
        (Some(here), Some(there)) => here != there,
        _ => false,
    }
}

fn in_use(node: &Node, heard: Duration) -> Fault {
    let message = format!(
        "node id {} is in use by an agent at {}:{} that was heard of {} s ago; if this machine is a copy of that one, \
         remove the file node-id from its data directory, so that it becomes a node of its own; if that one is gone, \
         try again when it has been silent for the heartbeat timeout",
        node.id,
        node.ip_address,
        node.port,
        heard.as_secs()
    );
    Fault::conflict("NODE_ID_IN_USE", message)
}
