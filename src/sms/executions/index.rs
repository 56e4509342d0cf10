//! Every execution in brief, in memory: what lists, placement, retention and the task's own status are made of.
//!
//! It follows the change log as a mirror does, and can be waited for: what a caller wrote, it then finds here.
//! About 250 bytes per execution.

use bus::{Bus, Delivery, From};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    hash::{DefaultHasher, Hash, Hasher},
    ops::Bound,
    sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};
use store::Rev;
use supervise::{OnError, Scope};
use tokio::sync::{Notify, oneshot, watch};
use types::{Execution, ExecutionId, ExecutionStatus, Fault, Keyed, NodeId, Reason, TaskId, Timestamp};

use crate::{nodes::Touched, tasks::groups::TaskGroups};

/// An execution in brief.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Brief {
    pub(crate) task_id: TaskId,
    pub(crate) node_uuid: Option<NodeId>,
    pub(crate) status: ExecutionStatus,
    pub(crate) attempt: u32,
}

/// The run of a task that ended last, in the order of the change log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastRun {
    rev: Rev,
    pub(crate) id: ExecutionId,
    pub(crate) status: ExecutionStatus,
    pub(crate) reason: Option<Reason>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) result_bytes: u64,
    pub(crate) completed_at: Option<Timestamp>,
}

/// What the runs of a task come to.
#[derive(Clone, Debug, Default)]
struct Runs {
    ids: BTreeSet<ExecutionId>,
    ended: usize,
    started: bool,
    last: Option<LastRun>,
}

/// What is looked for; nothing given matches all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) task_id: Option<TaskId>,
    pub(crate) node_uuid: Option<NodeId>,
    pub(crate) status: Option<ExecutionStatus>,
}

impl Filter {
    fn matches(&self, brief: &Brief) -> bool {
        self.task_id.is_none_or(|id| id == brief.task_id)
            && self.node_uuid.is_none_or(|id| Some(id) == brief.node_uuid)
            && self.status.is_none_or(|status| status == brief.status)
    }
}

#[derive(Default)]
struct State {
    all: BTreeMap<ExecutionId, Brief>,
    tasks: HashMap<TaskId, Runs>,
    /// Open executions of each node.
    nodes: HashMap<NodeId, BTreeSet<ExecutionId>>,
    /// For lists: all executions of each node, and of each status.
    placed: HashMap<NodeId, BTreeSet<ExecutionId>>,
    statuses: HashMap<ExecutionStatus, BTreeSet<ExecutionId>>,
    /// Open executions without a node, each with a hash of the sentence that says why.
    unplaced: BTreeMap<ExecutionId, u64>,
    /// Of these, those that nobody has looked at since they changed.
    fresh: BTreeSet<ExecutionId>,
    open: usize,
    /// When the pending ones were asked for, in that order.
    pending: BTreeMap<ExecutionId, Timestamp>,
    /// Told of nodes whose number of open executions changes.
    touched: Arc<Touched>,
    /// Told of tasks of which something has run.
    begun: Arc<Mutex<TaskGroups>>,
    /// Those who wait for an end.
    waiters: HashMap<ExecutionId, Vec<oneshot::Sender<()>>>,
}

impl State {
    fn set(&mut self, rev: Rev, execution: &Execution) {
        let id = execution.id;
        self.forget(id);
        let Execution { task_id, node_uuid, status, attempt, .. } = *execution;
        let brief = Brief { task_id, node_uuid, status, attempt };
        self.all.insert(id, brief);
        self.statuses.entry(brief.status).or_default().insert(id);
        if let Some(node) = brief.node_uuid {
            self.placed.entry(node).or_default().insert(id);
        }
        if brief.status == ExecutionStatus::Pending {
            self.pending.insert(id, execution.created_at);
        }
        let runs = self.tasks.entry(brief.task_id).or_default();
        runs.ids.insert(id);
        if !runs.started && execution.started_at.is_some() {
            runs.started = true;
            set_begun(&self.begun, task_id, true);
        }
        if brief.status.terminal() {
            runs.ended += 1;
            if runs.last.is_none_or(|last| last.rev <= rev) {
                runs.last = Some(LastRun {
                    rev,
                    id,
                    status: execution.status,
                    reason: execution.reason,
                    exit_code: execution.exit_code,
                    result_bytes: execution.result_bytes,
                    completed_at: execution.completed_at,
                });
            }
            self.tell(id);
        } else {
            self.open += 1;
            match brief.node_uuid {
                Some(node) => {
                    self.touched.add(node);
                    self.nodes.entry(node).or_default().insert(id)
                }
                None => {
                    self.fresh.insert(id);
                    self.unplaced.insert(id, hash(&execution.message)).is_none()
                }
            };
        }
    }

    /// Takes an execution out of everything but what its task remembers.
    fn forget(&mut self, id: ExecutionId) {
        let Some(brief) = self.all.remove(&id) else { return };
        self.pending.remove(&id);
        if let Some(runs) = self.tasks.get_mut(&brief.task_id) {
            runs.ids.remove(&id);
            runs.ended -= usize::from(brief.status.terminal());
        }
        self.unplaced.remove(&id);
        self.fresh.remove(&id);
        take(&mut self.statuses, brief.status, id);
        if let Some(node) = brief.node_uuid {
            take(&mut self.placed, node, id);
        }
        if !brief.status.terminal() {
            self.open -= 1;
            if let Some(node) = brief.node_uuid {
                self.touched.add(node);
                take(&mut self.nodes, node, id);
            }
        }
    }

    fn remove(&mut self, id: ExecutionId) {
        let task = self.all.get(&id).map(|brief| brief.task_id);
        self.forget(id);
        if let Some(task) = task
            && self.tasks.get(&task).is_some_and(|runs| runs.ids.is_empty())
        {
            self.tasks.remove(&task);
            set_begun(&self.begun, task, false);
        }
        self.tell(id);
    }

    fn tell(&mut self, id: ExecutionId) {
        for waiter in self.waiters.remove(&id).into_iter().flatten() {
            // One that has gone away does not want to know.
            waiter.send(()).ok();
        }
    }
}

fn set_begun(groups: &Mutex<TaskGroups>, task: TaskId, begun: bool) {
    groups.lock().unwrap_or_else(|broken| broken.into_inner()).set_begun(task, begun);
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Takes an id out of its group, and an empty group away.
fn take<K: Eq + Hash>(groups: &mut HashMap<K, BTreeSet<ExecutionId>>, key: K, id: ExecutionId) {
    if let Entry::Occupied(mut group) = groups.entry(key) {
        group.get_mut().remove(&id);
        if group.get().is_empty() {
            group.remove();
        }
    }
}

/// Who is told of changes; see [`State`].
type Told<'a> = (&'a Arc<Touched>, &'a Arc<Mutex<TaskGroups>>);

/// The index.
pub(crate) struct Index {
    state: Arc<RwLock<State>>,
    rev: watch::Receiver<Rev>,
    waiting: Arc<Notify>,
}

impl Index {
    /// Reads what there is and follows it in `scope`.
    pub(crate) async fn start(bus: &Bus, told: Told<'_>, scope: &Scope) -> Result<Self, Fault> {
        let (state, rev) = list(bus, told).await.map_err(crate::bus_fault)?;
        let state = Arc::new(RwLock::new(state));
        let waiting = Arc::new(Notify::new());
        waiting.notify_one();
        let (sender, receiver) = watch::channel(rev);
        let (bus, shared, wake, sender) = (bus.clone(), state.clone(), waiting.clone(), Arc::new(sender));
        let restart = OnError::Restart { first: Duration::from_millis(50), most: Duration::from_secs(5) };
        scope.spawn("index", restart, move |stop| {
            let (bus, state, wake, sender) = (bus.clone(), shared.clone(), wake.clone(), sender.clone());
            async move {
                tokio::select! {
                    () = stop.cancelled() => Ok(()),
                    ended = follow(&bus, &state, &wake, &sender) => match ended {
                        Err(bus::Error::Closed) => Ok(()),
                        other => Ok(other?),
                    },
                }
            }
        });
        Ok(Self { state, rev: receiver, waiting })
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(|broken| broken.into_inner())
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(|broken| broken.into_inner())
    }

    /// Waits until a revision that changed an execution shows here; returns at once when nothing follows any more.
    pub(crate) async fn reached(&self, rev: Rev) {
        // An error means that the follower has stopped.
        drop(self.rev.clone().wait_for(|now| *now >= rev).await);
    }

    /// Woken when an execution waits for a node.
    pub(crate) fn waiting(&self) -> &Notify {
        &self.waiting
    }

    /// One execution.
    pub(crate) fn get(&self, id: ExecutionId) -> Option<Brief> {
        self.read().all.get(&id).copied()
    }

    /// Executions that have not ended.
    pub(crate) fn open(&self) -> usize {
        self.read().open
    }

    /// How many there are of each status, in the order of [`ExecutionStatus::ALL`].
    pub(super) fn counts(&self) -> [usize; ExecutionStatus::ALL.len()] {
        let state = self.read();
        ExecutionStatus::ALL.map(|status| state.statuses.get(&status).map_or(0, BTreeSet::len))
    }

    /// When the oldest pending execution was asked for.
    pub(super) fn oldest_pending(&self) -> Option<Timestamp> {
        self.read().pending.first_key_value().map(|(_, created)| *created)
    }

    /// How many wait for a node.
    pub(super) fn unplaced_count(&self) -> usize {
        self.read().unplaced.len()
    }

    /// Open executions of a node.
    pub(crate) fn load(&self, node: NodeId) -> usize {
        self.read().nodes.get(&node).map_or(0, BTreeSet::len)
    }

    /// Nodes with open executions, and these.
    pub(crate) fn busy_nodes(&self) -> Vec<(NodeId, Vec<ExecutionId>)> {
        self.read().nodes.iter().map(|(node, open)| (*node, open.iter().copied().collect())).collect()
    }

    /// Executions that wait for a node, with their tasks.
    pub(crate) fn unplaced(&self) -> Vec<(ExecutionId, TaskId)> {
        self.write().fresh.clear();
        let state = self.read();
        state.unplaced.keys().filter_map(|id| Some((*id, state.all.get(id)?.task_id))).collect()
    }

    /// Does an execution wait, and say this sentence?
    pub(crate) fn waits_for(&self, id: ExecutionId, why: &str) -> bool {
        self.read().unplaced.get(&id).is_some_and(|told| *told == hash(why))
    }

    /// Of these, those that are new since this or [`Index::unplaced`] was asked for last.
    pub(crate) fn newly_unplaced(&self) -> Vec<(ExecutionId, TaskId)> {
        let mut state = self.write();
        let fresh = std::mem::take(&mut state.fresh);
        fresh.into_iter().filter_map(|id| Some((id, state.all.get(&id)?.task_id))).collect()
    }

    /// Executions of a task that have not ended.
    pub(crate) fn open_of(&self, task: TaskId) -> Vec<ExecutionId> {
        let state = self.read();
        let ids = state.tasks.get(&task).into_iter().flat_map(|runs| &runs.ids);
        ids.filter(|id| state.all.get(id).is_some_and(|brief| !brief.status.terminal())).copied().collect()
    }

    /// Has a run of the task ever begun, and how did the last one end?
    pub(crate) fn runs(&self, task: TaskId) -> (bool, Option<LastRun>) {
        self.read().tasks.get(&task).map_or((false, None), |runs| (runs.started, runs.last))
    }

    /// The latest executions of a task that completed, newest first.
    pub(crate) fn completed(&self, task: TaskId, most: usize) -> Vec<ExecutionId> {
        let state = self.read();
        let ids = state.tasks.get(&task).into_iter().flat_map(|runs| runs.ids.iter().rev());
        let completed =
            |id: &&ExecutionId| state.all.get(id).is_some_and(|brief| brief.status == ExecutionStatus::Completed);
        ids.filter(completed).take(most).copied().collect()
    }

    /// Every task that has executions.
    pub(crate) fn tasks(&self) -> Vec<TaskId> {
        self.read().tasks.keys().copied().collect()
    }

    /// The oldest ended executions of each task beyond the number to keep.
    pub(crate) fn excess(&self, keep: impl Fn(TaskId) -> usize) -> Vec<ExecutionId> {
        let state = self.read();
        let mut found = Vec::new();
        for (task, runs) in &state.tasks {
            let over = runs.ended.saturating_sub(keep(*task));
            let ended = |id: &&ExecutionId| state.all.get(id).is_some_and(|brief| brief.status.terminal());
            found.extend(runs.ids.iter().filter(ended).take(over));
        }
        found
    }

    /// Up to `limit` matching ids after one, in the order of creation.
    pub(crate) fn select(&self, filter: &Filter, after: Option<ExecutionId>, limit: usize) -> Vec<ExecutionId> {
        let state = self.read();
        let from = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let groups = [
            filter.task_id.map(|task| state.tasks.get(&task).map(|runs| &runs.ids)),
            filter.node_uuid.map(|node| state.placed.get(&node)),
            filter.status.map(|status| state.statuses.get(&status)),
        ];
        // The smallest group is walked; only where several are asked for is anything in it left out.
        let Some(smallest) = groups.into_iter().flatten().min_by_key(|group| group.map_or(0, BTreeSet::len)) else {
            return state.all.range(from).map(|(id, _)| *id).take(limit).collect();
        };
        let matches = |id: &&ExecutionId| state.all.get(id).is_some_and(|brief| filter.matches(brief));
        smallest.into_iter().flat_map(|ids| ids.range(from)).filter(matches).copied().take(limit).collect()
    }

    /// Resolves when an execution ends or is removed; none when that has already happened.
    pub(crate) fn ended(&self, id: ExecutionId) -> Option<oneshot::Receiver<()>> {
        let mut state = self.write();
        if state.all.get(&id).is_none_or(|brief| brief.status.terminal()) {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        let waiters = state.waiters.entry(id).or_default();
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(sender);
        Some(receiver)
    }

    #[cfg(test)]
    pub(super) fn waited_for(&self, id: ExecutionId) -> bool {
        self.waiters_of(id) > 0
    }

    #[cfg(test)]
    pub(super) fn waiters_of(&self, id: ExecutionId) -> usize {
        let open = |waiters: &Vec<oneshot::Sender<()>>| waiters.iter().filter(|waiter| !waiter.is_closed()).count();
        self.read().waiters.get(&id).map_or(0, open)
    }
}

async fn list(bus: &Bus, (touched, begun): Told<'_>) -> Result<(State, Rev), bus::Error> {
    let state = State { touched: touched.clone(), begun: begun.clone(), ..State::default() };
    let (mut state, mut broken) = (state, None);
    let rev = bus
        .store()
        .scan(Execution::PREFIX, |record| match store::decode::<Execution>(&record.key, &record.value) {
            Ok(execution) => state.set(record.modified, &execution),
            Err(error) => broken = Some(error),
        })
        .await?;
    match broken {
        Some(error) => Err(error.into()),
        None => Ok((state, rev)),
    }
}

async fn follow(
    bus: &Bus,
    shared: &RwLock<State>,
    wake: &Notify,
    moved: &watch::Sender<Rev>,
) -> Result<(), bus::Error> {
    let write = || -> RwLockWriteGuard<'_, State> { shared.write().unwrap_or_else(|broken| broken.into_inner()) };
    let from = *moved.borrow();
    let mut changes = bus.changes::<Execution>(From::After(from));
    loop {
        match changes.next().await? {
            Delivery::Set { rev, now, .. } => {
                write().set(rev, &now);
                if now.node_uuid.is_none() && !now.status.terminal() {
                    wake.notify_one();
                }
            }
            Delivery::Gone { id, .. } => {
                if let Ok(id) = id.parse() {
                    write().remove(id);
                }
            }
            Delivery::Lagged { .. } => {
                let (touched, begun) = {
                    let state = write();
                    (state.touched.clone(), state.begun.clone())
                };
                let (mut fresh, rev) = list(bus, (&touched, &begun)).await?;
                let mut state = write();
                // Nodes that have lost all their work, and tasks of which nothing is left, too.
                state.nodes.keys().for_each(|node| touched.add(*node));
                let gone = state.tasks.keys().filter(|task| !fresh.tasks.contains_key(task));
                gone.for_each(|task| set_begun(&begun, *task, false));
                fresh.waiters = std::mem::take(&mut state.waiters);
                let over: Vec<_> = fresh.waiters.keys().copied().collect();
                for id in over {
                    if fresh.all.get(&id).is_none_or(|brief| brief.status.terminal()) {
                        fresh.tell(id);
                    }
                }
                *state = fresh;
                drop(state);
                changes.seek(rev);
                wake.notify_one();
            }
        }
        moved.send_replace(changes.cursor());
    }
}
