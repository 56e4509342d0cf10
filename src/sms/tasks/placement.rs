//! Which node gets an execution.
//!
//! A task that is bound to a node goes there while that node takes work. Any other goes to the node with the
//! fewest open executions among those that are online, take work and have its runtime; between equals the one
//! with the lower load decides, then the id. No node: it waits, and a sentence says for what.
//!
//! ```text
//!   node record, told load, open executions ─► Touched ─► ranked anew at the next choice ─► the first that fits
//! ```
//! So a choice costs what has changed since the last one, and not a look at every node.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};
use types::{Liveness, NodeId, Task};

use crate::nodes::{self, Touched};

/// Chooses nodes.
pub(crate) struct Placement {
    nodes: Arc<nodes::Service>,
    ranking: Arc<Mutex<Ranking>>,
}

/// Open executions, load in percent, id: the least of all is the best.
type Rank = (usize, u8, NodeId);

/// Where a node stands, and among those of which runtimes.
#[derive(Debug)]
struct Standing {
    rank: Rank,
    runtimes: Vec<Arc<str>>,
}

#[derive(Debug, Default)]
struct Ranking {
    /// Nodes that take work, for each runtime.
    ranks: HashMap<Arc<str>, BTreeSet<Rank>>,
    ranked: HashMap<NodeId, Standing>,
    /// Placements that are decided and not yet visible in the index.
    reserved: HashMap<NodeId, usize>,
}

impl Ranking {
    fn set(&mut self, node: NodeId, standing: Option<Standing>) {
        if let Some(Standing { rank, runtimes }) = self.ranked.remove(&node) {
            for runtime in runtimes {
                if let Some(ranks) = self.ranks.get_mut(&runtime) {
                    ranks.remove(&rank);
                    if ranks.is_empty() {
                        self.ranks.remove(&runtime);
                    }
                }
            }
        }
        if let Some(standing) = standing {
            for runtime in &standing.runtimes {
                self.ranks.entry(runtime.clone()).or_default().insert(standing.rank);
            }
            self.ranked.insert(node, standing);
        }
    }

    /// The name of a runtime in memory that all its nodes share.
    fn shared(&self, runtime: &str) -> Arc<str> {
        self.ranks.get_key_value(runtime).map_or_else(|| runtime.into(), |(known, _)| known.clone())
    }

    fn reserved(&self, node: NodeId) -> usize {
        self.reserved.get(&node).copied().unwrap_or(0)
    }
}

/// A node's share of load until its execution is committed and counted; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    node: NodeId,
    ranking: Arc<Mutex<Ranking>>,
    touched: Arc<Touched>,
}

impl Reservation {
    /// The node.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }
}

fn lock(ranking: &Mutex<Ranking>) -> MutexGuard<'_, Ranking> {
    ranking.lock().unwrap_or_else(|broken| broken.into_inner())
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut ranking = lock(&self.ranking);
        if let Some(count) = ranking.reserved.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                ranking.reserved.remove(&self.node);
            }
        }
        self.touched.add(self.node);
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
        Self { nodes, ranking: Arc::default() }
    }

    /// A node for an execution of a task; `load` counts a node's open executions.
    pub(crate) fn choose(&self, task: &Task, load: impl Fn(NodeId) -> usize) -> Choice {
        if let Some(bound) = task.node_uuid {
            return self.bound(bound);
        }
        let runtime = task.executable.as_ref().map_or("wasm", |executable| executable.kind.runtime());
        let mut ranking = lock(&self.ranking);
        for node in self.nodes.touched().take() {
            let standing = self.nodes.takes_work(node).map(|record| {
                let open = load(node) + ranking.reserved(node);
                let runtimes = record.runtimes().map(|runtime| ranking.shared(runtime)).collect();
                Standing { rank: (open, self.nodes.busy_percent(record.id), node), runtimes }
            });
            ranking.set(node, standing);
        }
        // A record may have changed since it was ranked.
        let fits = |node: NodeId| self.nodes.takes_work(node).is_some_and(|record| record.has_runtime(runtime));
        let ranks = ranking.ranks.get(runtime).into_iter().flatten();
        let best = ranks.map(|(_, _, node)| *node).find(|node| fits(*node));
        match best {
            Some(node) => Choice::Node(self.reserve(&mut ranking, node)),
            None => Choice::Wait(format!("no node that is online and takes work has the runtime {runtime}")),
        }
    }

    fn reserve(&self, ranking: &mut Ranking, node: NodeId) -> Reservation {
        *ranking.reserved.entry(node).or_insert(0) += 1;
        self.nodes.touched().add(node);
        Reservation { node, ranking: self.ranking.clone(), touched: self.nodes.touched().clone() }
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
        Choice::Node(self.reserve(&mut lock(&self.ranking), node))
    }
}
