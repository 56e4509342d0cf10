//! What is removed: of each task the oldest ended executions beyond the number to keep, and everything of a task
//! that is gone once it has ended and was left to read for a while. An execution goes with its input, result, log,
//! callback and idempotency key, and not before its callback has come to an end.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use store::{Batch, Guard, Op};
use types::{ExecutionId, Fault, TaskId};

use super::{
    Service,
    records::{input_key, result_key},
};

/// How long the executions of a removed task can still be read.
const KEPT_AFTER_TASK: Duration = Duration::from_secs(3600);
/// Executions removed by one commit.
const TOGETHER: usize = 100;

/// Since when tasks with executions are seen gone, by the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    since: HashMap<TaskId, Duration>,
}

/// What sweeps remember of each other.
#[derive(Debug, Default)]
pub(super) struct Swept {
    orphans: Orphans,
    /// Where the next page of idempotency keys begins.
    keys: Option<String>,
}

impl Service {
    /// Sweeps every now and then; ends with a failure only.
    pub(super) async fn keep_removing(&self, swept: &mut Swept) -> Result<(), Fault> {
        loop {
            self.cancel_abandoned().await?;
            self.remove_old(&mut swept.orphans).await?;
            swept.keys = self.sweep_keys(swept.keys.take()).await?;
            let tick = self.config.get().cleanup_interval;
            let tick = tick.clamp(Duration::from_millis(100), Duration::from_secs(60));
            tokio::time::sleep(tick).await;
        }
    }

    /// Asks open executions of tasks that are gone to stop: those of a removal that a stop cut short, and those
    /// that were made while it was under way.
    pub(crate) async fn cancel_abandoned(&self) -> Result<(), Fault> {
        for task in self.index.tasks() {
            if !self.index.open_of(task).is_empty() && self.fresh_task(task).await?.is_none() {
                self.cancel_all(task, "its task was removed").await?;
            }
        }
        Ok(())
    }

    /// Sweeps once.
    pub(super) async fn remove_old(&self, orphans: &mut Orphans) -> Result<(), Fault> {
        let now = self.clock.monotonic();
        let gone: HashSet<_> =
            self.index.tasks().into_iter().filter(|id| self.tasks.get(&id.to_string()).is_none()).collect();
        orphans.since.retain(|task, _| gone.contains(task));
        for task in gone {
            orphans.since.entry(task).or_insert(now);
        }
        let keep = self.config.get().executions_kept_per_task.max(1);
        let old = self.index.excess(|task| match orphans.since.get(&task) {
            Some(since) if now.saturating_sub(*since) >= KEPT_AFTER_TASK => 0,
            _ => keep,
        });
        let old: Vec<_> = old.into_iter().filter(|id| !self.callbacks.pending(*id)).collect();
        for some in old.chunks(TOGETHER) {
            self.remove(some).await?;
        }
        Ok(())
    }

    async fn remove(&self, ids: &[ExecutionId]) -> Result<(), Fault> {
        let mut batch = Batch::new();
        let mut removed = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(found) = self.table.get(id).await?.filter(|found| found.record.status.terminal()) else {
                continue;
            };
            // The agenda may be a moment behind.
            if self.callbacks.is_pending(&found.record).await? {
                continue;
            }
            let key = store::Table::<types::Execution>::key(id);
            batch.guards.push(Guard::At(key.clone(), found.modified));
            let callback = store::Table::<types::Callback>::key(id);
            batch.ops.extend([key, input_key(*id), result_key(*id), callback].map(Op::Delete));
            self.forget_key(&found.record, &mut batch).await?;
            removed.push(*id);
        }
        if removed.is_empty() {
            return Ok(());
        }
        match self.store.commit(batch).await {
            Ok(rev) => self.index.reached(rev).await,
            // A late report changed one of them: the next sweep takes them.
            Err(store::Error::Conflict(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for id in removed {
            self.logs.remove(id).await?;
        }
        Ok(())
    }

    /// Removes the files of logs whose execution is gone (a crash between the two).
    pub(super) async fn sweep_logs(&self) -> Result<(), Fault> {
        let known: HashSet<_> = self.index.select(&super::Filter::default(), None, usize::MAX).into_iter().collect();
        let removed = self.logs.sweep(move |id| known.contains(&id)).await?;
        if removed > 0 {
            tracing::info!(removed, "removed logs of executions that are no more");
        }
        Ok(())
    }
}
