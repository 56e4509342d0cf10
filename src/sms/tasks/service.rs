//! What can be done with tasks.

use std::{collections::BTreeSet, sync::Arc};
use store::{Batch, Guard, Keyed, Op, Rev, Store, Table, encode};
use types::{
    Assignment, AssignmentKind, Clock, ExecutionId, Fault, NodeId, Remembered, Task, TaskId, TaskPriority, TaskStatus,
};

use super::{
    groups,
    records::{NewTask, Seen},
};
use crate::{
    executions::{
        self, NewRun,
        idempotency::{Fingerprint, Key, Keyring, Recall, Scope},
    },
    page::{Cut, Order, Page},
};

/// Tries to register a task while others bring the same key.
const TRIES: usize = 8;
/// Result addresses shown of a task.
const MOST_RESULTS: usize = 10;

/// Tasks.
pub struct Service {
    store: Store,
    table: Table<Task>,
    clock: Arc<dyn Clock>,
    executions: Arc<executions::Service>,
}

/// Which tasks; nothing given matches all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) node_uuid: Option<NodeId>,
    pub(crate) status: Option<TaskStatus>,
    pub(crate) priority: Option<TaskPriority>,
}

/// What a request to register a task has made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registered {
    pub(crate) task: TaskId,
    /// Its first execution, if it has something to run.
    pub(crate) execution: Option<ExecutionId>,
    /// Had an earlier request with this key made them?
    pub(crate) replayed: bool,
}

/// Refuses what is for an execution where there is none.
fn nothing_for_nobody(task: &Task, run: &NewRun) -> Result<(), Fault> {
    if task.executable.is_some() {
        return Ok(());
    }
    if !run.input.is_empty() {
        let wrong = "is given, but the task has no executable that could read it";
        return Err(Fault::invalid_field("input", wrong));
    }
    match run.callback_url {
        Some(_) => Err(Fault::invalid_field("callback_url", "is given, but the task has no executable that could end")),
        None => Ok(()),
    }
}

impl Service {
    /// On a store; the live map of tasks is that of the executions.
    ///
    /// # Errors
    /// When the work left by a stop cannot be finished.
    pub async fn start(
        store: &Store,
        clock: Arc<dyn Clock>,
        executions: Arc<executions::Service>,
    ) -> Result<Arc<Self>, Fault> {
        let service = Self { store: store.clone(), table: Table::new(store), clock, executions };
        service.executions.cancel_abandoned().await?;
        Ok(Arc::new(service))
    }

    /// Registers a task and, if it has something to run, its first execution, in one batch.
    ///
    /// # Errors
    /// Names the field; those of the store.
    #[cfg(test)]
    pub(crate) async fn register(&self, new: NewTask) -> Result<(Seen, Option<types::Execution>), Fault> {
        let registered = self.register_with(new, NewRun::default(), None).await?;
        let execution = match registered.execution {
            Some(id) => Some(self.executions.get(id).await?),
            None => None,
        };
        Ok((self.get(registered.task)?, execution))
    }

    /// The same with what its first execution is to be; with a key, once for all requests that bring it.
    ///
    /// # Errors
    /// Names the field; `IDEMPOTENCY_KEY_REUSED`; an input or a callback with nothing to run; those of
    /// [`executions::Service::draft`].
    pub(crate) async fn register_with(
        &self,
        new: NewTask,
        first: NewRun,
        key: Option<&Key>,
    ) -> Result<Registered, Fault> {
        let run = NewRun { first: true, ..first };
        let fingerprint = || run.written_to(new.written_to(Fingerprint::new("register")));
        let keyring = key.map(|key| Keyring::new(key, Scope::New, fingerprint()));
        let task = new.into_task(self.clock.wall())?;
        nothing_for_nobody(&task, &run)?;
        let mut last = None;
        for _ in 0..TRIES {
            let mut batch = Batch::new().guard(Guard::Absent(task.key())).put(task.key(), encode(&task)?);
            if let Some(keyring) = &keyring {
                match self.executions.recall(keyring).await? {
                    Recall::Same(known) => return Ok(self.known(&known.record, known.modified).await),
                    Recall::New(guard) => batch.guards.push(guard),
                }
            }
            match self.commit(&task, (&run, keyring.as_ref()), batch).await {
                // Another request with this key was faster.
                Err(error) if error.code == "CONFLICT" && keyring.is_some() => last = Some(error),
                done => return done,
            }
        }
        Err(last.unwrap_or_else(|| Fault::internal("no try was made")))
    }

    /// What an earlier request made.
    async fn known(&self, made: &Remembered, rev: Rev) -> Registered {
        self.executions.tasks().reached(rev).await;
        Registered { task: made.task_id, execution: made.execution_id, replayed: true }
    }

    async fn commit(
        &self,
        task: &Task,
        (run, keyring): (&NewRun, Option<&Keyring>),
        mut batch: Batch,
    ) -> Result<Registered, Fault> {
        let mut first = None;
        if task.executable.is_some() {
            first = Some(self.executions.draft(task, (run, keyring), &mut batch)?);
        } else {
            if let Some(told) = self.telling(task) {
                batch.ops.push(Op::Put(told.key(), encode(&told)?));
            }
            if let Some(keyring) = keyring {
                keyring.remember((task.id, None), task.registered_at, &mut batch)?;
            }
        }
        let rev = self.store.commit(batch).await?;
        self.executions.tasks().reached(rev).await;
        let mut execution = None;
        if let Some((made, reserved)) = first {
            self.executions.created(rev).await;
            drop(reserved);
            execution = Some(made.id);
        }
        Ok(Registered { task: task.id, execution, replayed: false })
    }

    /// A task without anything to run is told to the node it is bound to.
    fn telling(&self, task: &Task) -> Option<Assignment> {
        Some(Assignment {
            node_uuid: task.node_uuid?,
            task_id: task.id,
            execution_id: None,
            attempt: 0,
            kind: AssignmentKind::Create,
            at: task.registered_at,
        })
    }

    /// A task with what its executions make of it, without the list of its results.
    pub(crate) fn brief(&self, task: Arc<Task>) -> Seen {
        let (status, last) = (self.status(&task), self.executions.runs(task.id).1);
        Seen { task, status, last, results: Vec::new() }
    }

    fn status(&self, task: &Task) -> TaskStatus {
        groups::shown(task.status, self.executions.runs(task.id).0)
    }

    fn see(&self, task: Arc<Task>) -> Seen {
        let mut seen = self.brief(task);
        seen.results = self.executions.recent_results(seen.task.id, MOST_RESULTS);
        seen
    }

    /// One task.
    ///
    /// # Errors
    /// `TASK_NOT_FOUND`.
    pub(crate) fn get(&self, id: TaskId) -> Result<Seen, Fault> {
        Ok(self.see(self.executions.task(id)?))
    }

    /// A page of the matching tasks in the order of registration, and how many match in all.
    ///
    /// # Errors
    /// The cursor is of another list.
    pub(crate) fn list(&self, wanted: Wanted, page: &Page) -> Result<Cut<Seen>, Fault> {
        let fits = |task: &Task| {
            wanted.node_uuid.is_none_or(|node| task.node_uuid == Some(node))
                && wanted.priority.is_none_or(|priority| task.priority == priority)
                && wanted.status.is_none_or(|status| self.status(task) == status)
        };
        let cut = {
            let tasks = self.executions.tasks().read();
            let groups = self.executions.task_groups();
            let find = |id: &TaskId| tasks.get(&id.to_string()).cloned();
            let none = BTreeSet::new();
            match groups.smallest(wanted) {
                None => page.of(Order::Rising, &tasks)?.map(|(_, task)| task.clone()),
                Some((group, false)) => page.among(group.unwrap_or(&none), find)?,
                Some((group, true)) => {
                    let group = group.unwrap_or(&none);
                    let found = group.iter().filter_map(|id| Some((id.to_string(), find(id)?)));
                    page.cut(Order::Rising, found.filter(|(_, task)| fits(task)))
                }
            }
        };
        Ok(cut.map(|task| self.see(task)))
    }

    /// Removes a task with what its node was told of it, and asks its open executions to stop.
    ///
    /// # Errors
    /// `TASK_NOT_FOUND`.
    pub(crate) async fn remove(&self, id: TaskId, reason: &str) -> Result<(), Fault> {
        let task = self.executions.task(id)?;
        let mut with = Batch::new();
        if task.executable.is_none()
            && let Some(told) = self.telling(&task)
        {
            with = with.delete(told.key());
        }
        let rev = match self.table.delete(&id, with).await {
            Ok(rev) => rev.ok_or_else(|| super::unknown(id))?,
            // Tasks do not change: somebody else removed it.
            Err(store::Error::Conflict(_)) => return Err(super::unknown(id)),
            Err(error) => return Err(error.into()),
        };
        self.executions.tasks().reached(rev).await;
        let reason = match reason.trim() {
            "" => "its task was removed".to_owned(),
            reason => format!("its task was removed: {}", types::id::clip(reason)),
        };
        self.executions.cancel_all(id, &reason).await
    }
}
