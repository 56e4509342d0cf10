//! Takes changes of the work list: one local commit of what they mean and of the cursor, then action.

use futures_util::{StreamExt, stream};
use std::collections::BTreeMap;
use store::{Batch, encode};
use types::{ExecutionId, ExecutionStatus, Fault, Keyed, LogId, Reason, TaskId, TaskPriority};

use super::{
    Executor,
    book::{About, Book, Halt, State},
    records::{Accepted, Done, Ending, unwanted},
};
use crate::agent::{
    connect::{ANSWER, LONG_ANSWER, within},
    cursor::Position,
};

/// Tasks whose priority is remembered.
const MOST_PRIORITIES: usize = 1024;
/// Priorities asked for at a time.
const ASKED_TOGETHER: usize = 16;

/// Why an execution fails that the registry has forgotten the end of.
const FORGOTTEN: &str = "it ended before the registry was restored, and its result went with the registry's newer data";

/// One change of the work list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Run it.
    Run { id: ExecutionId, attempt: u32, task: TaskId },
    /// End it.
    Cancel { id: ExecutionId, attempt: u32, task: TaskId },
    /// The registry does not ask for it any more.
    Gone(ExecutionId),
}

/// What a set of changes comes to.
#[derive(Default)]
struct Plan {
    batch: Batch,
    /// Where each touched execution goes when the commit succeeds, and when it fails; none: forgotten.
    moves: BTreeMap<ExecutionId, (Option<State>, Option<State>)>,
    /// Running executions that are to end.
    halts: Vec<(ExecutionId, Halt)>,
    /// Running executions that the registry may not want any more.
    doubtful: Vec<ExecutionId>,
    /// Something did not fit and stays with the registry.
    left_behind: bool,
    /// The registry has another log than before: it may ask for what it was told already.
    renewed: bool,
}

impl Executor {
    /// Takes changes in: when it returns, they and `position` are on disk, and only then they were acted on.
    /// Sets `position.relist` when something was left behind for want of room. `renewed`: the changes are a list of
    /// another log than the position before. Returns the running executions that the registry has taken off its list
    /// without asking to cancel them; see [`Executor::check`].
    pub(crate) async fn take(
        &self,
        changes: Vec<Change>,
        position: &mut Position,
        renewed: bool,
    ) -> Result<Vec<ExecutionId>, Fault> {
        let priorities = self.priorities(&changes).await;
        let mut plan = Plan { left_behind: position.relist, renewed, ..Plan::default() };
        {
            let mut book = self.book();
            for change in changes {
                let task = match change {
                    Change::Run { task, .. } | Change::Cancel { task, .. } => task,
                    Change::Gone(id) => {
                        self.plan_gone(&mut book, &mut plan, id)?;
                        continue;
                    }
                };
                let priority = priorities.get(&task).copied().unwrap_or(TaskPriority::Normal);
                let about = About { task, priority, log_id: position.log_id };
                self.plan(&mut book, &mut plan, change, about)?;
            }
        }
        position.relist = plan.left_behind;
        let batch = plan.batch.put(position.key(), encode(position)?);
        let committed = self.store.commit(batch).await;
        self.alter(|book| {
            for (id, (done, failed)) in plan.moves {
                match if committed.is_ok() { done } else { failed } {
                    Some(state) => book.set(id, state),
                    None => book.remove(id),
                }
            }
            if committed.is_ok() {
                plan.halts.into_iter().for_each(|(id, why)| book.halt(id, why));
            }
        });
        committed?;
        Ok(plan.doubtful)
    }

    fn plan(&self, book: &mut Book, plan: &mut Plan, change: Change, about: About) -> Result<(), Fault> {
        let (Change::Run { id, attempt, .. } | Change::Cancel { id, attempt, .. }) = change else { return Ok(()) };
        if book.done(id).is_some_and(|over| over >= attempt) {
            return if plan.renewed { self.plan_forgotten(book, plan, (id, attempt), about) } else { Ok(()) };
        }
        let known = book.get(id).map(|entry| (entry.attempt, entry.state));
        let cancel = matches!(change, Change::Cancel { .. });
        match known {
            Some((held, State::Queued | State::Arriving)) if held <= attempt && cancel => {
                self.plan_cancelled(book, plan, (id, attempt))?;
            }
            Some((held, State::Running)) if held == attempt && cancel => plan.halts.push((id, Halt::Asked)),
            Some((held, _)) if held >= attempt => {}
            Some((_, State::Queued)) => self.plan_run(book, plan, (id, attempt), about)?,
            // An earlier attempt is still at work or waits for the registry's word: it has to be over first.
            Some((_, state)) => {
                if state == State::Running {
                    plan.halts.push((id, Halt::Withdrawn));
                }
                plan.left_behind = true;
            }
            None if plan.left_behind || !book.fits() => plan.left_behind = true,
            None if cancel => {
                book.insert(id, attempt, about, State::Ending);
                self.plan_cancelled(book, plan, (id, attempt))?;
            }
            None => self.plan_run(book, plan, (id, attempt), about)?,
        }
        Ok(())
    }

    fn plan_run(
        &self,
        book: &mut Book,
        plan: &mut Plan,
        (id, attempt): (ExecutionId, u32),
        about: About,
    ) -> Result<(), Fault> {
        let About { task, priority, log_id } = about;
        let accepted = Accepted { execution_id: id, attempt, task_id: task, priority, log_id, started_at: None };
        plan.batch = std::mem::take(&mut plan.batch).put(accepted.key(), encode(&accepted)?);
        book.insert(id, attempt, about, State::Arriving);
        plan.moves.insert(id, (Some(State::Queued), None));
        self.figures.see(|figures| figures.accepted.inc());
        Ok(())
    }

    /// An execution that never began is over by a word.
    fn plan_cancelled(&self, book: &mut Book, plan: &mut Plan, of: (ExecutionId, u32)) -> Result<(), Fault> {
        let (id, now) = (of.0, self.clock.wall());
        let ending = Ending::new(of, ExecutionStatus::Cancelled, Reason::Cancelled, "cancelled before it began", now);
        let inbox = format!("{}{id}", Accepted::PREFIX);
        plan.batch = std::mem::take(&mut plan.batch).delete(inbox).put(ending.key(), encode(&ending)?);
        self.plan_end(book, plan, id, Some(State::Unreported));
        Ok(())
    }

    /// A registry that was restored asks for what had ended here and was acknowledged before: it is not run again,
    /// and its result is no longer here. Without a word it would stay open for ever.
    fn plan_forgotten(
        &self,
        book: &mut Book,
        plan: &mut Plan,
        of: (ExecutionId, u32),
        about: About,
    ) -> Result<(), Fault> {
        if book.get(of.0).is_some() {
            return Ok(());
        }
        let ending = Ending::new(of, ExecutionStatus::Failed, Reason::NodeLost, FORGOTTEN, self.clock.wall());
        book.insert(of.0, of.1, about, State::Ending);
        plan.batch = std::mem::take(&mut plan.batch).put(ending.key(), encode(&ending)?);
        self.plan_end(book, plan, of.0, Some(State::Unreported));
        Ok(())
    }

    fn plan_gone(&self, book: &mut Book, plan: &mut Plan, id: ExecutionId) -> Result<(), Fault> {
        match book.get(id).map(|entry| (entry.attempt, entry.state)) {
            Some((attempt, State::Queued | State::Arriving)) => {
                tracing::info!(execution = %id, "taken back before it began");
                let mark = Done { execution_id: id, attempt };
                let inbox = format!("{}{id}", Accepted::PREFIX);
                plan.batch = std::mem::take(&mut plan.batch).delete(inbox).put(mark.key(), encode(&mark)?);
                if let Some(old) = book.mark_done(id, attempt) {
                    plan.batch = std::mem::take(&mut plan.batch).delete(format!("{}{old}", Done::PREFIX));
                }
                self.plan_end(book, plan, id, None);
            }
            Some((_, State::Running)) => plan.doubtful.push(id),
            _ => {}
        }
        Ok(())
    }

    /// An execution that waits leaves the queue now; should the commit fail, it goes back to where it was.
    fn plan_end(&self, book: &mut Book, plan: &mut Plan, id: ExecutionId, to: Option<State>) {
        let queued = book.get(id).is_some_and(|entry| entry.state == State::Queued);
        let back = if queued { Some(State::Queued) } else { None };
        book.set(id, State::Ending);
        plan.moves.insert(id, (to, back));
    }

    /// The priorities of the tasks that are to run. One that cannot be learned is the usual one.
    async fn priorities(&self, changes: &[Change]) -> BTreeMap<TaskId, TaskPriority> {
        let mut found = BTreeMap::new();
        let mut unknown = Vec::new();
        {
            let known = self.priorities.lock().unwrap_or_else(|broken| broken.into_inner());
            for change in changes {
                let Change::Run { task, .. } = change else { continue };
                match known.get(task) {
                    Some(priority) => drop(found.insert(*task, *priority)),
                    None => unknown.push(*task),
                }
            }
        }
        unknown.sort_unstable();
        unknown.dedup();
        let Ok(registry) = self.registry() else { return found };
        let asked = stream::iter(unknown).map(|task| async move {
            let told = within(ANSWER, "task", registry.get_task(task)).await;
            told.ok().map(|told| (task, told.priority))
        });
        let learned = asked.buffer_unordered(ASKED_TOGETHER).filter_map(async |told| told).collect::<Vec<_>>();
        let Some(learned) = self.stopping.run_until_cancelled(learned).await else { return found };
        let mut known = self.priorities.lock().unwrap_or_else(|broken| broken.into_inner());
        if known.len() + learned.len() > MOST_PRIORITIES {
            known.clear();
        }
        known.extend(learned.iter().copied().take(MOST_PRIORITIES));
        found.extend(learned);
        found
    }

    /// Finds out whether a running execution is still wanted, and ends it if not. A registry that holds it for
    /// lost still takes its result. One that the registry does not know ends if it came from the log `log`; a registry
    /// that has lost its memory must not stop what runs.
    pub(crate) async fn check(&self, id: ExecutionId, log: Option<LogId>) {
        let mut tries = 0;
        loop {
            let (attempt, unknown_is_over) = match self.book().get(id) {
                Some(entry) if entry.state == State::Running => (entry.attempt, log == Some(entry.about.log_id)),
                _ => return,
            };
            let Ok(registry) = self.registry() else { return };
            match within(LONG_ANSWER, "execution", registry.get_work(id)).await {
                Ok(work) => {
                    let (now, mine) = (&work.execution, work.execution.node_uuid.is_none_or(|node| node == self.node));
                    let open = !now.status.terminal() || now.status == ExecutionStatus::Lost;
                    if now.cancel_requested || now.status == ExecutionStatus::Cancelled {
                        self.halt(id, Halt::Asked);
                    } else if now.attempt != attempt || !open || !mine {
                        tracing::info!(execution = %id, status = %now.status, "no longer wanted here; ending it");
                        self.halt(id, Halt::Withdrawn);
                    }
                    return;
                }
                Err(fault) if unwanted(&fault) => {
                    if unknown_is_over {
                        tracing::info!(execution = %id, error = %fault, "no longer wanted; ending it");
                        self.halt(id, Halt::Withdrawn);
                    }
                    return;
                }
                Err(fault) => tracing::debug!(execution = %id, error = %fault, tries, "cannot ask for it"),
            }
            self.pause(tries).await;
            tries += 1;
        }
    }
}
