//! How executions come to be: drafted into a batch with what they mean for a node, alone or with their task; once for
//! each idempotency key.

use store::{Batch, Guard, Keyed, Op, Rev, Table};
use telemetry::trace;
use types::{ErrorKind, Execution, ExecutionId, ExecutionStatus, Fault, Task, TaskId};

use super::{
    NewRun, Service,
    idempotency::{Fingerprint, Key, Keyring, Recall, Scope},
    records::input_key,
    transition::{self, Event},
};
use crate::tasks::placement::{Choice, Reservation};

/// Executions that may be open at a time; more are refused until some end.
const MOST_OPEN: usize = 100_000;
/// Tries to create an execution while its task is being changed.
const TRIES: usize = 8;

impl Service {
    /// Adds a new execution of a task to a batch, placed if a node is found. The reservation counts it as the
    /// node's load and is held until the batch is committed and seen.
    ///
    /// # Errors
    /// `TASK_NOT_RUNNABLE`, `TOO_MANY_EXECUTIONS`, `TOO_MANY_CALLBACKS`, an input over its limit, a callback that is
    /// refused.
    pub(crate) fn draft(
        &self,
        task: &Task,
        (new, keyring): (&NewRun, Option<&Keyring>),
        batch: &mut Batch,
    ) -> Result<(Execution, Option<Reservation>), Fault> {
        new.check()?;
        if task.executable.is_none() {
            let message = "the task has no executable, so there is nothing to run; register one with an executable";
            return Err(Fault::conflict("TASK_NOT_RUNNABLE", message));
        }
        if self.index.open() >= MOST_OPEN {
            let message = format!("{MOST_OPEN} executions wait or run already");
            return Err(Fault::new(ErrorKind::Exhausted, "TOO_MANY_EXECUTIONS", message));
        }
        if let Some(url) = &new.callback_url {
            self.callbacks.check(url)?;
        }
        let mut execution = self.blank(task.id, new);
        execution.remembered = keyring.map(|keyring| keyring.id().to_owned());
        let now = execution.created_at;
        let span = tracing::info_span!("placement", execution = %execution.id, task = %task.id);
        // What the node does about it is a part of the same trace.
        execution.traceparent = trace::of(&span);
        let choice = span.in_scope(|| self.placement.choose(task, |node| self.index.load(node)));
        let event = match &choice {
            Choice::Node(reserved) => Event::Place(reserved.node()),
            Choice::Wait(reason) => Event::Wait(reason),
        };
        transition::apply(&mut execution, &event, now)?;
        transition::creation(&execution, now, batch)?;
        if !new.input.is_empty() {
            batch.ops.push(Op::Put(input_key(execution.id), new.input.clone()));
        }
        if let Some(keyring) = keyring {
            keyring.remember((task.id, Some(execution.id)), now, batch)?;
        }
        Ok((execution, choice.reservation()))
    }

    fn blank(&self, task_id: TaskId, new: &NewRun) -> Execution {
        let now = self.clock.wall();
        Execution {
            id: ExecutionId::new(),
            task_id,
            node_uuid: None,
            attempt: 1,
            first: new.first,
            status: ExecutionStatus::Pending,
            reason: None,
            message: String::new(),
            created_at: now,
            started_at: None,
            completed_at: None,
            updated_at: now,
            timeout_ms: new.timeout_ms,
            exit_code: None,
            usage: None,
            result_bytes: 0,
            input_bytes: new.input.len() as u64,
            progress: None,
            cancel_requested: false,
            traceparent: None,
            callback_url: new.callback_url.clone(),
            remembered: None,
        }
    }

    /// Runs a task again; with a key, once for all requests that bring it. Was it made by an earlier one?
    ///
    /// # Errors
    /// `TASK_NOT_FOUND`, `IDEMPOTENCY_KEY_REUSED` and those of [`Service::draft`].
    pub(crate) async fn run(&self, task: TaskId, new: &NewRun, key: Option<&Key>) -> Result<(Execution, bool), Fault> {
        let fingerprint = || new.written_to(Fingerprint::new("run"));
        let keyring = key.map(|key| Keyring::new(key, Scope::Task(task), fingerprint()));
        let tasks = Table::<Task>::new(&self.store);
        let mut last = None;
        for _ in 0..TRIES {
            let mut batch = Batch::new();
            if let Some(keyring) = &keyring {
                match self.recall(keyring).await? {
                    Recall::Same(known) => return Ok((self.made(known.record.execution_id).await?, true)),
                    Recall::New(guard) => batch.guards.push(guard),
                }
            }
            let found = tasks.get(&task).await?.ok_or_else(|| crate::tasks::unknown(task))?;
            // An execution of a task that was removed meanwhile must not come to be.
            batch.guards.push(Guard::At(found.record.key(), found.modified));
            let (execution, reserved) = self.draft(&found.record, (new, keyring.as_ref()), &mut batch)?;
            match self.store.commit(batch).await {
                Ok(rev) => {
                    self.created(rev).await;
                    drop(reserved);
                    return Ok((execution, false));
                }
                Err(error @ store::Error::Conflict(_)) => last = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.map_or_else(|| Fault::internal("no try was made"), Fault::from))
    }

    /// What an earlier request made.
    async fn made(&self, id: Option<ExecutionId>) -> Result<Execution, Fault> {
        match id {
            Some(id) => self.get(id).await,
            None => Err(Fault::internal("a run was remembered without its execution")),
        }
    }

    /// An execution that was drafted is in the store by this revision: waits until everybody sees it.
    pub(crate) async fn created(&self, rev: Rev) {
        self.index.reached(rev).await;
        self.figures.see(|figures| figures.created.inc());
    }
}
