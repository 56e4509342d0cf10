//! Finds a node for executions that wait: when nodes change, and when one begins to wait.

use futures_util::{StreamExt, stream};
use std::cmp::Reverse;
use telemetry::trace;
use types::{ErrorKind, ExecutionId, Fault, TaskId, TaskPriority};

use super::{
    Service,
    transition::{Event, Step},
};
use crate::tasks::placement::Choice;

/// Placements under way at a time, so that they share commits.
const TOGETHER: usize = 64;

impl Service {
    /// Looks again whenever something moved; ends with a failure only.
    ///
    /// Whoever waits, waits for a change of the nodes: only then is everybody looked at. An execution that begins
    /// to wait is looked at alone, or a long queue would be walked for each that joins it.
    pub(super) async fn keep_placing(&self) -> Result<(), Fault> {
        let mut nodes = self.nodes.watch();
        nodes.mark_unchanged();
        let mut waiting = self.index.unplaced();
        loop {
            self.place_all(waiting).await?;
            waiting = tokio::select! {
                biased;
                moved = nodes.changed() => match moved {
                    Ok(()) => self.index.unplaced(),
                    Err(_) => return std::future::pending().await,
                },
                () = self.index.waiting().notified() => self.index.newly_unplaced(),
            };
        }
    }

    /// Looks at these once, the urgent first, then in the order of creation.
    async fn place_all(&self, waiting: Vec<(ExecutionId, TaskId)>) -> Result<(), Fault> {
        let mut waiting: Vec<_> = waiting
            .into_iter()
            .map(|(id, task)| {
                let priority = self.tasks.get(&task.to_string()).map_or(TaskPriority::Unknown, |task| task.priority);
                (Reverse(priority), id, task)
            })
            .collect();
        waiting.sort_unstable();
        let mut placed = stream::iter(waiting).map(|(_, id, task)| self.place(id, task)).buffered(TOGETHER);
        while let Some(done) = placed.next().await {
            match done {
                // Ended or removed meanwhile.
                Err(fault) if matches!(fault.kind, ErrorKind::NotFound | ErrorKind::Conflict) => {}
                other => other?,
            }
        }
        Ok(())
    }

    async fn place(&self, id: ExecutionId, task: TaskId) -> Result<(), Fault> {
        let Some(task) = self.fresh_task(task).await? else {
            self.apply(id, &Event::Cancel("its task was removed")).await?;
            return Ok(());
        };
        let choice = self.placement.choose(&task, |node| self.index.load(node));
        let event = match &choice {
            Choice::Node(reserved) => Event::Place(reserved.node()),
            // Most of those who wait wait for the same as before; their records need not even be read.
            Choice::Wait(reason) if self.index.waits_for(id, reason) => return Ok(()),
            Choice::Wait(reason) => Event::Wait(reason),
        };
        let (execution, step) = self.apply(id, &event).await?;
        if let (Step::Changed, Event::Place(node)) = (step, event) {
            // Made only now, for most looks come to nothing.
            let span = tracing::info_span!("placement", execution = %id, %node, waited = true);
            trace::adopt(&span, execution.traceparent.as_deref());
        }
        Ok(())
    }
}
