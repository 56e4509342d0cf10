//! Runs what the registry asks for: at-least-once start, at most one run per attempt.
//!
//! ```text
//!              commit inbox+cursor      commit "started"        commit outbox (result), inbox gone
//!   assignment ──────────────► Queued ─────────────► Running ──────────────────► Unreported ──► acknowledged: gone
//!   (intake)                     │ cancel               │ deadline, cancel, stop      ▲   (a "done" mark remains)
//!                                └──────────────────────┴─────────────────────────────┘
//!   after a crash: Queued runs, "started" without a result is reported lost, Unreported is delivered
//! ```
//! Invariants: an execution and attempt that is in the inbox, the outbox or among the done is not run again; no
//! more than `concurrency` run and no more than `concurrency + queue` are held, the rest stays with the registry;
//! a record of the inbox is written by intake while it waits and by its run from then on, by nobody else.

mod beside;
mod book;
mod deliver;
mod dispatch;
mod figures;
mod intake;
mod logs;
mod records;
mod restore;
mod run;

#[cfg(test)]
pub(crate) mod bench;
#[cfg(test)]
mod tests;

pub(crate) use intake::Change;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use store::Store;
use supervise::{Live, OnError, Scope, Stop};
use telemetry::Slot;
use tokio::sync::{Notify, watch};
use types::{Clock, ExecutionId, Fault, NodeId, TaskId, TaskPriority};

use crate::{Config, artifacts, functions::Functions};
use book::{Book, Halt};
use figures::Figures;

/// What an executor is built from.
pub struct Deps {
    /// This node.
    pub node: NodeId,
    /// The node's own records: inbox, outbox, done.
    pub store: Store,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where executables come from.
    pub artifacts: Arc<artifacts::Fetcher>,
    /// The functions of the node: what runs executions.
    pub functions: Arc<Functions>,
    /// The registry; none: there is nothing to do.
    pub control: Option<Arc<dyn api::Control>>,
    /// The node's directory; logs that wait for delivery lie in it.
    pub data_dir: PathBuf,
    /// Settings.
    pub config: Live<Config>,
    /// Cancelled as soon as the process begins to stop: nothing new is started then.
    pub stopping: Stop,
    /// Time that running executions get to end by themselves once their phase stops.
    pub drain: Duration,
}

/// Holds, runs and reports the node's executions.
pub struct Executor {
    node: NodeId,
    store: Store,
    clock: Arc<dyn Clock>,
    artifacts: Arc<artifacts::Fetcher>,
    functions: Arc<Functions>,
    control: Option<Arc<dyn api::Control>>,
    logs: PathBuf,
    config: Live<Config>,
    stopping: Stop,
    drain: Duration,
    book: Mutex<Book>,
    /// Moves whenever the book did: dispatcher, deliveries and the work list wait on it.
    changed: watch::Sender<u64>,
    /// The registry is back: pauses between tries end at once.
    retry: Notify,
    /// Priorities of tasks seen lately.
    priorities: Mutex<BTreeMap<TaskId, TaskPriority>>,
    figures: Slot<Figures>,
}

impl Executor {
    /// Takes up what the last process left and starts the work in `work` and the deliveries in `report`.
    ///
    /// # Errors
    /// When the store or the log directory cannot be read.
    pub async fn start(deps: Deps, work: &Scope, report: &Scope) -> Result<Arc<Self>, Fault> {
        let logs = deps.data_dir.join("logs");
        let book = restore::restore(&deps, &logs).await?;
        let executor = Arc::new(Self {
            node: deps.node,
            store: deps.store,
            clock: deps.clock,
            artifacts: deps.artifacts,
            functions: deps.functions,
            control: deps.control,
            logs,
            config: deps.config,
            stopping: deps.stopping,
            drain: deps.drain,
            book: Mutex::new(book),
            changed: watch::Sender::new(0),
            retry: Notify::new(),
            priorities: Mutex::default(),
            figures: Slot::default(),
        });
        if executor.control.is_some() {
            executor.spawn(work, report);
        }
        Ok(executor)
    }

    fn spawn(self: &Arc<Self>, work: &Scope, report: &Scope) {
        let again = OnError::Restart { first: Duration::from_millis(100), most: Duration::from_secs(5) };
        let (executor, scope) = (self.clone(), work.clone());
        work.spawn("dispatch", again, move |stop| dispatch::dispatch(executor.clone(), scope.clone(), stop));
        let (executor, scope) = (self.clone(), report.clone());
        report.spawn("deliver", again, move |stop| deliver::deliveries(executor.clone(), scope.clone(), stop));
        let executor = self.clone();
        work.spawn("settings", again, move |stop| {
            let executor = executor.clone();
            async move { executor.follow_settings(stop).await }
        });
        let store = self.store.clone();
        report.spawn("trim", again, move |stop| dispatch::trim(store.clone(), stop));
    }

    /// Where executables come from.
    pub(crate) fn artifacts(&self) -> &artifacts::Fetcher {
        &self.artifacts
    }

    /// The length of the queue follows the settings; everything else is asked for when it is needed.
    async fn follow_settings(&self, stop: Stop) -> supervise::TaskResult {
        let mut config = self.config.clone();
        loop {
            self.alter(|book| book.limit_queue(config.get().queue));
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = config.changed() => {}
            }
        }
    }

    /// Executions that are being prepared or run.
    pub fn running(&self) -> usize {
        self.book().running()
    }

    /// Executions that wait for a free place.
    pub fn waiting(&self) -> usize {
        self.book().waiting()
    }

    /// The registry can be reached again: what waits for it tries at once.
    pub(crate) fn nudge(&self) {
        self.retry.notify_waiters();
    }

    /// Waits until every result has been delivered, or given up for this process.
    pub(crate) async fn flushed(&self) {
        self.until(Book::flushed).await;
    }

    /// Waits until more work may be taken from the registry.
    pub(crate) async fn room(&self) {
        self.until(Book::room).await;
    }

    /// Moves whenever anything changed here.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What waits or runs here.
    pub(crate) fn held(&self) -> BTreeSet<ExecutionId> {
        self.book().held()
    }

    async fn until(&self, holds: impl Fn(&Book) -> bool) {
        let mut changed = self.changed.subscribe();
        while !holds(&self.book()) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// Alters the book and wakes whoever waits for that.
    fn alter<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        let done = change(&mut self.book());
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
        done
    }

    /// Asks a running execution to end.
    fn halt(&self, id: ExecutionId, why: Halt) {
        self.book().halt(id, why);
    }

    fn registry(&self) -> Result<&Arc<dyn api::Control>, Fault> {
        self.control.as_ref().ok_or_else(|| Fault::unavailable("this agent has no registry"))
    }

    /// Waits before another try at the registry; shorter when it comes back.
    async fn pause(&self, tries: u32) {
        let pause = supervise::backoff(Duration::from_millis(200), crate::agent::connect::SLOWEST, tries);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.retry.notified() => {}
        }
    }
}
