//! What can be done with executions. Every write goes through [`Service::apply`] or [`Service::draft`]; how they are
//! made is in `creation`.

use api::ExecutionReport;
use bus::{Bus, Mirror};
use bytes::Bytes;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use store::{Op, Store, Table};
use supervise::{Live, OnError, Scope};
use telemetry::Slot;
use types::{Clock, ErrorKind, Execution, ExecutionId, ExecutionStatus, Fault, LogLine, Task, TaskId};

use super::{
    callbacks::{self, Callbacks},
    figures::Figures,
    index::{Brief, Filter, Index, LastRun},
    logs::{Appended, Log, Logs, Page, Reach, stale},
    lost::Silence,
    records::{MOST_RESULT, input_key, result_key},
    retention::Swept,
    transition::{self, Event, Step},
};
use crate::{
    Config, nodes,
    tasks::{groups::TaskGroups, placement::Placement},
};

/// Longest reason of a cancellation, bytes.
const MOST_REASON: usize = 1024;

/// What the service is built from.
pub struct Deps<'a> {
    /// Its records.
    pub store: &'a Store,
    /// Follows that store.
    pub bus: &'a Bus,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Settings.
    pub config: Live<Config>,
    /// Where logs lie.
    pub logs: PathBuf,
    /// Who can run them.
    pub nodes: Arc<nodes::Service>,
}

/// Executions.
pub struct Service {
    pub(super) store: Store,
    pub(super) table: Table<Execution>,
    pub(super) bus: Bus,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) config: Live<Config>,
    pub(super) nodes: Arc<nodes::Service>,
    pub(super) tasks: Mirror<Task>,
    task_groups: Arc<Mutex<TaskGroups>>,
    pub(super) index: Index,
    pub(crate) logs: Arc<Logs>,
    pub(super) callbacks: Callbacks,
    pub(super) placement: Placement,
    pub(super) figures: Slot<Figures>,
}

fn locked(groups: &Mutex<TaskGroups>) -> MutexGuard<'_, TaskGroups> {
    groups.lock().unwrap_or_else(|broken| broken.into_inner())
}

fn unknown(id: ExecutionId) -> Fault {
    Fault::not_found("EXECUTION_NOT_FOUND", format!("there is no execution {id}"))
}

/// The pause between restarts of background work.
const RESTART: OnError = OnError::Restart { first: Duration::from_millis(100), most: Duration::from_secs(10) };

impl Service {
    /// Reads what there is and starts the background work: placing, losing, removing.
    ///
    /// # Errors
    /// When the store or the directory of logs cannot be read.
    pub async fn start(deps: Deps<'_>, scope: &Scope) -> Result<Arc<Self>, Fault> {
        let Deps { store, bus, clock, config, logs, nodes } = deps;
        let scope = scope.child("executions");
        let task_groups = Arc::new(Mutex::new(TaskGroups::default()));
        let told = task_groups.clone();
        let told = Arc::new(move |id: &str, task: Option<&Arc<Task>>| {
            if let Ok(id) = id.parse() {
                locked(&told).told(id, task.map(|task| &**task));
            }
        });
        let tasks = bus.mirror_telling::<Task, Arc<Task>>(&scope, |task| task, told).await.map_err(crate::bus_fault)?;
        let logs = Logs::open(logs, config.clone(), clock.clone())?;
        let service = Arc::new(Self {
            table: Table::new(store),
            index: Index::start(bus, (nodes.touched(), &task_groups), &scope).await?,
            callbacks: Callbacks::start(store, bus, config.clone(), (&clock, &scope)).await?,
            placement: Placement::new(nodes.clone()),
            logs: Arc::new(logs),
            store: store.clone(),
            bus: bus.clone(),
            clock,
            config,
            nodes,
            tasks,
            task_groups,
            figures: Slot::default(),
        });
        service.sweep_logs().await?;
        service.clone().spawn(&scope);
        Ok(service)
    }

    /// Starts what runs by itself.
    fn spawn(self: Arc<Self>, scope: &Scope) {
        let service = self.clone();
        scope.spawn("placer", RESTART, move |stop| {
            let service = service.clone();
            async move {
                tokio::select! { () = stop.cancelled() => Ok(()), ended = service.keep_placing() => Ok(ended?) }
            }
        });
        let service = self.clone();
        scope.spawn("lost", RESTART, move |stop| {
            let service = service.clone();
            async move {
                let mut silence = Silence::default();
                tokio::select! { () = stop.cancelled() => Ok(()), ended = service.keep_losing(&mut silence) => Ok(ended?) }
            }
        });
        let service = self.clone();
        scope.spawn("callbacks", RESTART, move |stop| {
            let service = service.clone();
            async move {
                tokio::select! { () = stop.cancelled() => Ok(()), ended = service.keep_telling() => Ok(ended?) }
            }
        });
        let service = self.clone();
        scope.spawn("retention", RESTART, move |stop| {
            let service = service.clone();
            async move {
                let mut swept = Swept::default();
                tokio::select! { () = stop.cancelled() => Ok(()), ended = service.keep_removing(&mut swept) => Ok(ended?) }
            }
        });
        scope.spawn("logs", OnError::StopProcess, move |stop| {
            let service = self.clone();
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    // Ends the process through the store.
                    (path, error) = service.logs.failure() => drop(service.store.unsynced(&path, &error)),
                }
                Ok(())
            }
        });
    }

    /// A live map of the tasks.
    pub(crate) fn tasks(&self) -> &Mirror<Task> {
        &self.tasks
    }

    /// The same tasks, by what lists are filtered by. Not to be locked while something else is, except for the map.
    pub(crate) fn task_groups(&self) -> MutexGuard<'_, TaskGroups> {
        locked(&self.task_groups)
    }

    /// A task.
    ///
    /// # Errors
    /// `TASK_NOT_FOUND`.
    pub(crate) fn task(&self, id: TaskId) -> Result<Arc<Task>, Fault> {
        self.tasks.get(&id.to_string()).ok_or_else(|| crate::tasks::unknown(id))
    }

    /// A task as the store has it: the live map may not show one yet that was made with its first execution.
    pub(crate) async fn fresh_task(&self, id: TaskId) -> Result<Option<Arc<Task>>, Fault> {
        match self.tasks.get(&id.to_string()) {
            Some(task) => Ok(Some(task)),
            None => Ok(Table::<Task>::new(&self.store).get(&id).await?.map(|found| Arc::new(found.record))),
        }
    }

    /// Has a run of the task ever begun, and how did the last one end?
    pub(crate) fn runs(&self, task: TaskId) -> (bool, Option<LastRun>) {
        self.index.runs(task)
    }

    /// The latest executions of a task that completed, newest first.
    pub(crate) fn recent_results(&self, task: TaskId, most: usize) -> Vec<ExecutionId> {
        self.index.completed(task, most)
    }

    /// Applies an event to a record, with what it means for its node, in one batch.
    pub(super) async fn apply(&self, id: ExecutionId, event: &Event<'_>) -> Result<(Execution, Step), Fault> {
        let now = self.clock.wall();
        let mut was = None;
        let changed = self
            .table
            .update(&id, |execution, batch| {
                let before = &*was.insert(execution.clone());
                if transition::apply(execution, event, now)? == Step::Same {
                    return Ok::<_, Fault>(false);
                }
                transition::effects(before, execution, now, batch)?;
                callbacks::begin(before, execution, batch)?;
                if let Event::Report(report) = event
                    && execution.status.terminal()
                    && !report.result.is_empty()
                {
                    batch.ops.push(Op::Put(result_key(id), report.result.clone()));
                }
                Ok(true)
            })
            .await?;
        let (execution, rev) = changed.ok_or_else(|| unknown(id))?;
        match rev {
            Some(rev) => {
                self.index.reached(rev).await;
                if let Some(before) = &was {
                    self.figures.see(|figures| figures.moved(before, &execution));
                }
                Ok((execution, Step::Changed))
            }
            None => Ok((execution, Step::Same)),
        }
    }

    /// One execution.
    ///
    /// # Errors
    /// `EXECUTION_NOT_FOUND`.
    pub(crate) async fn get(&self, id: ExecutionId) -> Result<Execution, Fault> {
        Ok(self.table.get(&id).await?.ok_or_else(|| unknown(id))?.record)
    }

    /// One execution in brief.
    ///
    /// # Errors
    /// `EXECUTION_NOT_FOUND`.
    pub(crate) fn brief(&self, id: ExecutionId) -> Result<Brief, Fault> {
        self.index.get(id).ok_or_else(|| unknown(id))
    }

    /// How the telling of its end goes; none: nobody wants to be told.
    pub(crate) fn callback(&self, execution: &Execution) -> Option<Arc<types::Callback>> {
        self.callbacks.of(execution)
    }

    async fn bytes(&self, key: String) -> Result<Bytes, Fault> {
        Ok(self.store.get(&key).await?.map(|record| record.value).unwrap_or_default())
    }

    /// Its input.
    pub(crate) async fn input(&self, id: ExecutionId) -> Result<Bytes, Fault> {
        self.bytes(input_key(id)).await
    }

    /// Its result; empty before it has one.
    pub(crate) async fn result(&self, id: ExecutionId) -> Result<Bytes, Fault> {
        self.bytes(result_key(id)).await
    }

    /// A page in the order of creation, and where the next one begins.
    pub(crate) async fn list(
        &self,
        filter: &Filter,
        after: Option<ExecutionId>,
        limit: usize,
    ) -> Result<(Vec<Execution>, Option<ExecutionId>), Fault> {
        let mut ids = self.index.select(filter, after, limit.saturating_add(1));
        let more = ids.len() > limit;
        ids.truncate(limit);
        let next = ids.last().copied().filter(|_| more);
        // Those that were removed since the ids were read are left out.
        let found = self.table.get_many(&ids).await?.into_iter().map(|versioned| versioned.record).collect();
        Ok((found, next))
    }

    /// Asks for an execution to stop; without a node it is cancelled at once.
    ///
    /// # Errors
    /// `EXECUTION_NOT_FOUND`; `EXECUTION_ENDED` with its final status.
    pub(crate) async fn cancel(&self, id: ExecutionId, reason: &str) -> Result<Execution, Fault> {
        if reason.len() > MOST_REASON {
            let wrong = format!("has {} bytes; {MOST_REASON} are allowed", reason.len());
            return Err(Fault::invalid_field("reason", wrong));
        }
        let reason = if reason.trim().is_empty() { "cancelled by request" } else { reason };
        Ok(self.apply(id, &Event::Cancel(reason)).await?.0)
    }

    /// Asks every open execution of a task to stop.
    pub(crate) async fn cancel_all(&self, task: TaskId, reason: &str) -> Result<(), Fault> {
        for id in self.index.open_of(task) {
            match self.apply(id, &Event::Cancel(reason)).await {
                Err(fault) if !matches!(fault.kind, ErrorKind::Conflict | ErrorKind::NotFound) => return Err(fault),
                // Ended or removed meanwhile, which is what was wanted.
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes what a node tells of an execution. Repeating is harmless.
    ///
    /// # Errors
    /// `EXECUTION_NOT_FOUND`, `STALE_ATTEMPT`, a result over its limit.
    pub(crate) async fn report(&self, report: &ExecutionReport) -> Result<(), Fault> {
        if report.result.len() > MOST_RESULT {
            let message = format!("result: {} bytes; {MOST_RESULT} are allowed", report.result.len());
            return Err(Fault::new(ErrorKind::TooLarge, "RESULT_TOO_LARGE", message));
        }
        let (execution, step) = self.apply(report.execution_id, &Event::Report(report)).await?;
        if step == Step::Same && execution.status != report.status {
            let (id, told) = (report.execution_id, report.status);
            tracing::debug!(execution = %id, %told, is = %execution.status, "a report came too late");
        }
        Ok(())
    }

    /// Waits for an execution to end, and answers with it as it is then.
    pub(crate) async fn ended(&self, id: ExecutionId, within: Duration) -> Result<Execution, Fault> {
        if let Some(end) = self.index.ended(id) {
            // Whether it ended or time ran out shows in the record.
            drop(tokio::time::timeout(within, end).await);
        }
        self.get(id).await
    }

    /// Resolves when an execution ends; none when it has.
    pub(super) fn end_of(&self, id: ExecutionId) -> Option<tokio::sync::oneshot::Receiver<()>> {
        self.index.ended(id)
    }

    /// Takes lines of a log; they are on disk when this returns.
    ///
    /// # Errors
    /// `EXECUTION_NOT_FOUND`, `STALE_ATTEMPT`, `LOG_GAP`, `LOG_FINISHED`.
    pub(crate) async fn append_logs(
        &self,
        (id, attempt): (ExecutionId, u32),
        lines: Vec<LogLine>,
        finished: bool,
    ) -> Result<Reach, Fault> {
        let mut now = self.brief(id)?.attempt;
        if attempt > now {
            // The index may be a moment behind what a node has been told already.
            now = self.get(id).await?.attempt;
        }
        if attempt != now {
            return Err(stale(attempt, now));
        }
        let (added, reach) = self.logs.append((id, attempt), lines, finished).await?;
        if !added.is_empty() {
            self.bus.emit(Appended { execution_id: id, lines: added.into() });
        }
        Ok(reach)
    }

    /// Up to `limit` lines after a number, and whether there will ever be more.
    pub(crate) async fn read_logs(&self, id: ExecutionId, after: u64, limit: usize) -> Result<(Page, bool), Fault> {
        // Asked before the lines are read: whoever ended before has said everything by then.
        let complete = self.no_more_lines(&self.brief(id)?);
        let page = self.logs.page(id, after, limit).await?;
        let complete = page.end && (complete || page.reach.finished);
        Ok((page, complete))
    }

    /// Has an execution ended in a way that leaves nobody to deliver lines?
    fn no_more_lines(&self, brief: &Brief) -> bool {
        let deliverer = brief.node_uuid.and_then(|node| self.nodes.get(node));
        brief.status.terminal()
            && (brief.status == ExecutionStatus::Lost
                || deliverer.is_none_or(|node| node.liveness == types::Liveness::Offline))
    }

    pub(super) fn log(&self, id: ExecutionId) -> Arc<Log> {
        self.logs.get(id)
    }
}
