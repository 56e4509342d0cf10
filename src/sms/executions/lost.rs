//! What becomes of the work of nodes that stay away.
//!
//! A node that is removed, or offline for longer than `lost_after`, loses its work: what ran there is `lost` (its
//! late report still counts), what had not begun becomes the next attempt and may go elsewhere. Only the
//! liveness in the node's record is looked at, and nothing is given up while the brake of the sweep over heartbeats
//! holds. After either, and after a restart, every node has the full time again.

use futures_util::{StreamExt, stream};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use types::{ErrorKind, ExecutionId, ExecutionStatus, Fault, Liveness, NodeId};

use super::{
    Service,
    transition::{Event, Step},
};

/// Executions given up at a time, so that they share commits.
const TOGETHER: usize = 64;

/// Since when nodes with work are seen offline, by the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Silence {
    since: HashMap<NodeId, Duration>,
}

impl Service {
    /// Looks again whenever nodes change, and from time to time; ends with a failure only.
    pub(super) async fn keep_losing(&self, silence: &mut Silence) -> Result<(), Fault> {
        let mut nodes = self.nodes.watch();
        loop {
            self.give_up(silence).await?;
            let tick = (self.config.get().lost_after / 4).clamp(Duration::from_millis(100), Duration::from_secs(30));
            tokio::select! {
                moved = nodes.changed() => if moved.is_err() { return std::future::pending().await },
                () = tokio::time::sleep(tick) => {}
            }
        }
    }

    /// Looks once.
    pub(super) async fn give_up(&self, silence: &mut Silence) -> Result<(), Fault> {
        let (now, busy) = (self.clock.monotonic(), self.index.busy_nodes());
        let lost_after = self.config.get().lost_after;
        let known: HashSet<_> = busy.iter().map(|(node, _)| *node).collect();
        silence.since.retain(|node, _| known.contains(node));
        let mut given_up = Vec::new();
        for (node, executions) in busy {
            let message = match self.nodes.get(node).map(|record| record.liveness) {
                Some(Liveness::Online) => {
                    silence.since.remove(&node);
                    continue;
                }
                // So many nodes fell silent at once that the fault may be ours.
                Some(Liveness::Offline) if self.nodes.braked() => {
                    silence.since.insert(node, now);
                    continue;
                }
                Some(Liveness::Offline) => {
                    let since = *silence.since.entry(node).or_insert(now);
                    if now.saturating_sub(since) < lost_after {
                        continue;
                    }
                    format!("node {node} has been offline for longer than {lost_after:?}")
                }
                None => format!("node {node} was removed"),
            };
            given_up.extend(executions.into_iter().map(|id| (node, id, message.clone())));
        }
        let mut done = stream::iter(given_up)
            .map(|(node, id, message)| async move { self.give_up_one(node, id, &message).await })
            .buffer_unordered(TOGETHER);
        while let Some(done) = done.next().await {
            match done {
                Err(fault) if matches!(fault.kind, ErrorKind::NotFound | ErrorKind::Conflict) => {}
                other => other?,
            }
        }
        Ok(())
    }

    async fn give_up_one(&self, from: NodeId, id: ExecutionId, message: &str) -> Result<(), Fault> {
        let (execution, moved) = self.apply(id, &Event::Move { from, message }).await?;
        if moved == Step::Changed {
            if execution.status == ExecutionStatus::Pending {
                // The next attempt numbers its lines from 1 again.
                self.logs.remove(id).await?;
            }
            return Ok(());
        }
        self.apply(id, &Event::Lost { from, message }).await?;
        Ok(())
    }
}
