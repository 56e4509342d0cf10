//! Which node gets an execution.
//!
//! A task that is bound to a node goes there while that node takes work. Any other goes to the node with the
//! fewest open executions among those that are online, take work and have its runtime; between equals the one
//! with the lower load decides, then the id. No node: it waits, and a sentence says for what.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};
use types::{Liveness, NodeId, Task};

use crate::nodes;

/// Placements that are decided and not yet visible in the index.
type Reserved = Mutex<HashMap<NodeId, usize>>;

/// Chooses nodes.
pub(crate) struct Placement {
    nodes: Arc<nodes::Service>,
    reserved: Arc<Reserved>,
}

/// A node's share of load until its execution is committed and counted; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    node: NodeId,
    reserved: Arc<Reserved>,
}

impl Reservation {
    /// The node.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }
}

fn lock(reserved: &Reserved) -> MutexGuard<'_, HashMap<NodeId, usize>> {
    reserved.lock().unwrap_or_else(|broken| broken.into_inner())
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut reserved = lock(&self.reserved);
        if let Some(count) = reserved.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                reserved.remove(&self.node);
            }
        }
    }
}

/// What was decided.
#[derive(Debug)]
pub(crate) enum Choice {
    /// This node.
    Node(Reservation),
    /// None now; why.
    Wait(String),
}

impl Choice {
    /// The reservation, if a node was found.
    pub(crate) fn reservation(self) -> Option<Reservation> {
        match self {
            Self::Node(reservation) => Some(reservation),
            Self::Wait(_) => None,
        }
    }
}

impl Placement {
    /// Among the nodes of a registry.
    pub(crate) fn new(nodes: Arc<nodes::Service>) -> Self {
        Self { nodes, reserved: Arc::default() }
    }

    /// A node for an execution of a task; `load` counts a node's open executions.
    pub(crate) fn choose(&self, task: &Task, load: impl Fn(NodeId) -> usize) -> Choice {
        if let Some(bound) = task.node_uuid {
            return self.bound(bound);
        }
        let runtime = task.executable.as_ref().map_or("wasm", |executable| executable.kind.runtime());
        let candidates = self.nodes.candidates(runtime);
        let mut reserved = lock(&self.reserved);
        let best = candidates.into_iter().min_by_key(|(node, resource)| {
            let open = load(*node) + reserved.get(node).copied().unwrap_or(0);
            let busy = resource.as_ref().map_or(100.0, |told| told.cpu_usage_percent.max(told.memory_usage_percent));
            // Whole percents: finer differences are noise, and floats have no order.
            (open, busy.clamp(0.0, 100.0) as u8, *node)
        });
        match best {
            Some((node, _)) => {
                *reserved.entry(node).or_insert(0) += 1;
                Choice::Node(Reservation { node, reserved: self.reserved.clone() })
            }
            None => Choice::Wait(format!("no online node has the runtime {runtime}")),
        }
    }

    fn bound(&self, node: NodeId) -> Choice {
        let Some(record) = self.nodes.get(node) else {
            return Choice::Wait(format!("node {node} is not registered"));
        };
        if record.liveness == Liveness::Offline {
            return Choice::Wait(format!("node {node} is offline"));
        }
        if !record.takes_work() {
            return Choice::Wait(format!("node {node} takes no new work: it is {}", record.status()));
        }
        *lock(&self.reserved).entry(node).or_insert(0) += 1;
        Choice::Node(Reservation { node, reserved: self.reserved.clone() })
    }
}
