//! Delivers what ended: the rest of its log, then its result, until the registry has both or wants neither.

use bytes::Bytes;
use futures_util::FutureExt;
use std::{io, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use store::{Batch, encode};
use supervise::{Scope, Stop, TaskResult};
use types::{ErrorKind, ExecutionId, ExecutionStatus, Fault, Keyed, Reason};

use super::{
    Executor,
    book::State,
    logs::{Shipped, Shipper, path},
    records::{Done, Ending, result_key, unwanted},
};
use crate::agent::connect::{LONG_ANSWER, within};

/// Results that are delivered at a time.
const TOGETHER: usize = 8;
/// Patience with the registry once the process stops.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// Another attempt has followed: neither the log nor the result of this one is wanted.
const STALE: &str = "STALE_ATTEMPT";

/// What a try of a delivery came to.
enum Delivered {
    /// The registry has it.
    Acknowledged,
    /// The registry does not want it, and why.
    Refused(String),
}

/// Runs until told to stop; then every result gets one more try.
pub(crate) async fn deliveries(executor: Arc<Executor>, scope: Scope, stop: Stop) -> TaskResult {
    let mut changed = executor.changes();
    loop {
        loop {
            let Some(id) = executor.book().deliver_next(TOGETHER) else { break };
            let (executor, stop) = (executor.clone(), stop.clone());
            scope.spawn_once("delivery", async move {
                let done = AssertUnwindSafe(executor.deliver(id, &stop)).catch_unwind().await;
                if !matches!(done, Ok(Ok(()))) {
                    // Never lost: it is on disk, and the next process tries again.
                    executor.alter(|book| book.set(id, State::Parked));
                }
                done.unwrap_or_else(|_| Err("a delivery panicked".into()))
            });
        }
        if stop.is_cancelled() && executor.book().flushed() {
            return Ok(());
        }
        tokio::select! {
            changed = changed.changed() => if changed.is_err() { return Ok(()) },
            () = stop.cancelled(), if !stop.is_cancelled() => {}
        }
    }
}

impl Executor {
    async fn deliver(&self, id: ExecutionId, stop: &Stop) -> TaskResult {
        let table = store::Table::<Ending>::new(&self.store);
        let Some(ending) = table.get(&id).await?.map(|found| found.record) else {
            self.alter(|book| book.remove(id));
            return Ok(());
        };
        let result = self.store.get(&result_key(id)).await?.map(|record| record.value).unwrap_or_default();
        let mut tries = 0;
        loop {
            let last = stop.is_cancelled();
            let trying = self.try_deliver(&ending, result.clone());
            let tried = if last {
                tokio::time::timeout(LAST_PATIENCE, trying)
                    .await
                    .unwrap_or_else(|_| Err(Fault::unavailable("no answer")))
            } else {
                // A stop cuts a try short only to begin the last one: repeating is harmless.
                match stop.run_until_cancelled(trying).await {
                    Some(tried) => tried,
                    None => continue,
                }
            };
            let outcome = match &tried {
                Ok(Delivered::Acknowledged) => "acknowledged",
                Ok(Delivered::Refused(_)) => "refused",
                Err(_) => "failed",
            };
            self.figures.see(|figures| figures.deliveries.with([outcome]).inc());
            match tried {
                Ok(Delivered::Acknowledged) => {
                    tracing::debug!(execution = %id, status = %ending.status, "the registry has the result");
                    return self.over(&ending).await;
                }
                Ok(Delivered::Refused(why)) => {
                    tracing::warn!(execution = %id, attempt = ending.attempt, status = %ending.status, why,
                        "the registry does not want this result; dropped");
                    return self.over(&ending).await;
                }
                Err(fault) if last => {
                    tracing::warn!(execution = %id, error = %fault, "the result waits on disk for the next start");
                    self.alter(|book| book.set(id, State::Parked));
                    return Ok(());
                }
                Err(fault) if tries == 0 => {
                    tracing::info!(execution = %id, error = %fault, "the result waits for the registry")
                }
                Err(fault) => tracing::debug!(execution = %id, error = %fault, tries, "the result still waits"),
            }
            stop.run_until_cancelled(self.pause(tries)).await;
            tries += 1;
        }
    }

    /// One try: the log first, so that whoever sees the result can read the log whole.
    async fn try_deliver(&self, ending: &Ending, result: Bytes) -> Result<Delivered, Fault> {
        let (id, registry) = (ending.execution_id, self.registry()?);
        let from = self.book().get(id).map_or(1, |entry| entry.shipped);
        let mut shipper = Shipper::new(&self.logs, (id, ending.attempt), from);
        loop {
            match shipper.step(&**registry, true).await {
                Ok(Shipped::All) => break,
                Ok(Shipped::More) => self.book().shipped(id, shipper.next_seq()),
                Ok(Shipped::Stuck) => {
                    tracing::warn!(execution = %id, "the registry does not take the rest of the log; given up");
                    break;
                }
                Err(fault) if fault.kind == ErrorKind::NotFound || fault.code == STALE => {
                    return Ok(Delivered::Refused(fault.message));
                }
                Err(fault) if is_final(&fault) => {
                    tracing::warn!(execution = %id, error = %fault, "the registry refuses the log; given up");
                    break;
                }
                Err(fault) => return Err(fault),
            }
        }
        let report = ending.report(self.node, result);
        match within(LONG_ANSWER, "report", registry.report_execution(report)).await {
            Ok(()) => Ok(Delivered::Acknowledged),
            Err(fault) if unwanted(&fault) => Ok(Delivered::Refused(fault.message)),
            Err(fault) if is_final(&fault) => self.deliver_refusal(ending, &fault).await,
            Err(fault) => Err(fault),
        }
    }

    /// The registry cannot take the result as it is: it gets to hear that instead.
    async fn deliver_refusal(&self, ending: &Ending, refused: &Fault) -> Result<Delivered, Fault> {
        tracing::error!(execution = %ending.execution_id, error = %refused, "the registry cannot take a result");
        let message = format!("the registry refused the result: {refused}");
        let of = (ending.execution_id, ending.attempt);
        let mut instead = Ending::new(of, ExecutionStatus::Failed, Reason::Internal, message, ending.completed_at);
        (instead.started_at, instead.exit_code, instead.usage) = (ending.started_at, ending.exit_code, ending.usage);
        let report = instead.report(self.node, Bytes::new());
        match within(LONG_ANSWER, "report", self.registry()?.report_execution(report)).await {
            Ok(()) => Ok(Delivered::Acknowledged),
            Err(fault) if unwanted(&fault) || is_final(&fault) => Ok(Delivered::Refused(fault.message)),
            Err(fault) => Err(fault),
        }
    }

    /// The node is done with it: only a mark remains.
    async fn over(&self, ending: &Ending) -> TaskResult {
        let id = ending.execution_id;
        let mark = Done { execution_id: id, attempt: ending.attempt };
        let mut batch = Batch::new().delete(ending.key()).delete(result_key(id)).put(mark.key(), encode(&mark)?);
        if let Some(old) = self.book().mark_done(id, ending.attempt) {
            batch = batch.delete(format!("{}{old}", Done::PREFIX));
        }
        self.commit_patiently(batch).await?;
        self.remove_log(id).await;
        self.alter(|book| book.remove(id));
        Ok(())
    }

    /// Removes an execution's log; what cannot be removed now is swept at the next start.
    pub(super) async fn remove_log(&self, id: ExecutionId) {
        if let Err(error) = tokio::fs::remove_file(path(&self.logs, id)).await
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, execution = %id, "cannot remove a delivered log");
        }
    }
}

/// Will the same call fail again, whatever happens meanwhile?
fn is_final(fault: &Fault) -> bool {
    matches!(fault.kind, ErrorKind::Invalid | ErrorKind::TooLarge | ErrorKind::Unsupported | ErrorKind::Conflict)
}
