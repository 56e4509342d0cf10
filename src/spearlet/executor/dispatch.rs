//! Starts executions as places become free, and keeps the node's change log short.

use std::{sync::Arc, time::Duration};
use store::Store;
use supervise::{Scope, Stop, TaskResult};

use super::{Executor, run};

/// Nobody follows the node's own change log: this much of it is plenty.
const LOG_KEPT: u64 = 1000;
/// Pause between two trims.
const TRIM_PACE: Duration = Duration::from_secs(60);

/// Runs until the process begins to stop. Each execution is a task of its own in `scope`.
pub(crate) async fn dispatch(executor: Arc<Executor>, scope: Scope, stop: Stop) -> TaskResult {
    let mut changed = executor.changes();
    loop {
        while !executor.stopping.is_cancelled() && !stop.is_cancelled() {
            let Some(job) = executor.book().start_next() else { break };
            scope.spawn_once("run", run::run(executor.clone(), job, stop.clone()));
        }
        tokio::select! {
            () = executor.stopping.cancelled() => return Ok(()),
            () = stop.cancelled() => return Ok(()),
            changed = changed.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

/// Trims the change log of the node's store now and then.
pub(crate) async fn trim(store: Store, stop: Stop) -> TaskResult {
    while stop.run_until_cancelled(tokio::time::sleep(TRIM_PACE)).await.is_some() {
        let head = *store.head().borrow();
        if head - store.floor().await? > 2 * LOG_KEPT {
            store.trim(head - LOG_KEPT).await?;
        }
    }
    Ok(())
}
