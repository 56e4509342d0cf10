//! Starts, watches and stops everything.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Budget, Phase, Scope, ScopeStatus, TaskState, TaskStatus,
    scope::{Crowd, Group, lock},
};

/// The task that ended the process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("task {task} failed: {error}")]
pub struct Failure {
    /// `scope/task`.
    pub task: String,
    /// Its error.
    pub error: String,
}

pub(crate) struct Shared {
    pub(crate) tasks: Mutex<BTreeMap<u64, TaskStatus>>,
    /// By name.
    pub(crate) crowds: Mutex<HashMap<String, Crowd>>,
    failure: watch::Sender<Option<Failure>>,
    ids: AtomicU64,
    ready: AtomicBool,
    stopping: CancellationToken,
    pub(crate) restarts: AtomicU64,
    pub(crate) failures: AtomicU64,
}

/// What went wrong since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tasks that were started again.
    pub restarts: u64,
    /// Tasks that failed or panicked, those started again among them.
    pub failures: u64,
}

impl Shared {
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn fail(&self, task: &str, error: &str) {
        self.failure.send_if_modified(|first| {
            let new = first.is_none();
            if new {
                *first = Some(Failure { task: task.to_owned(), error: error.to_owned() });
            }
            new
        });
    }
}

/// Owner of all scopes. Cheap to clone; one [`Supervisor::run`] ends them all.
#[derive(Clone)]
pub struct Supervisor {
    groups: Arc<[(Phase, Arc<Group>)]>,
    shared: Arc<Shared>,
    budget: Budget,
}

impl Supervisor {
    /// With the time that stopping may take.
    pub fn new(budget: Budget) -> Self {
        let group = |phase| {
            let group = Group { tracker: TaskTracker::new(), token: CancellationToken::new() };
            (phase, Arc::new(group))
        };
        Self {
            groups: Phase::ALL.map(group).into(),
            shared: Arc::new(Shared {
                tasks: Mutex::default(),
                crowds: Mutex::default(),
                failure: watch::Sender::new(None),
                ids: AtomicU64::new(0),
                ready: AtomicBool::new(false),
                stopping: CancellationToken::new(),
                restarts: AtomicU64::new(0),
                failures: AtomicU64::new(0),
            }),
            budget,
        }
    }

    /// A scope of a phase.
    pub fn scope(&self, phase: Phase, name: &str) -> Scope {
        let group = self.groups.iter().find(|(its, _)| *its == phase).map(|(_, group)| group.clone());
        let group = group.expect("every phase has a group");
        Scope { name: name.into(), phase, group, shared: self.shared.clone() }
    }

    /// How long each phase may take to stop.
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// Everything that is supervised, with the failures of what ended badly.
    pub fn tasks(&self) -> Vec<TaskStatus> {
        lock(&self.shared.tasks).values().cloned().collect()
    }

    /// The same by name, with the tasks that run once, such as connections, counted; in the order of stopping.
    pub fn scopes(&self) -> Vec<ScopeStatus> {
        let mut scopes: BTreeMap<(Phase, String), ScopeStatus> = BTreeMap::new();
        let crowds: Vec<ScopeStatus> =
            lock(&self.shared.crowds).iter().map(|(name, crowd)| crowd.status(name)).collect();
        for task in self.tasks().into_iter().map(ScopeStatus::from).chain(crowds) {
            match scopes.entry((task.phase, task.name.clone())) {
                Entry::Vacant(entry) => drop(entry.insert(task)),
                Entry::Occupied(mut entry) => entry.get_mut().add(task),
            }
        }
        scopes.into_values().collect()
    }

    /// How often tasks failed and were started again.
    pub fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts { restarts: read(&self.shared.restarts), failures: read(&self.shared.failures) }
    }

    /// Says that the process can answer; told to systemd too.
    pub fn ready(&self) {
        self.shared.ready.store(true, Ordering::Release);
        notify(&[sd_notify::NotifyState::Ready]);
    }

    /// Tells systemd that settings are read again.
    pub fn reloading(&self) {
        let mut states = vec![sd_notify::NotifyState::Reloading];
        match sd_notify::NotifyState::monotonic_usec_now() {
            Ok(now) => states.push(now),
            Err(error) => tracing::warn!(%error, "the time of a reload is not known"),
        }
        notify(&states);
    }

    /// And that this is over.
    pub fn reloaded(&self) {
        if self.is_ready() {
            notify(&[sd_notify::NotifyState::Ready]);
        }
    }

    /// True from [`Supervisor::ready`] until the process begins to stop.
    pub fn is_ready(&self) -> bool {
        self.shared.ready.load(Ordering::Acquire)
    }

    /// Cancelled as soon as the process begins to stop, before any phase does: streams that would never
    /// end by themselves end on it.
    pub fn stopping(&self) -> CancellationToken {
        self.shared.stopping.clone()
    }

    /// Waits for `signal` or for a task whose failure ends the process, then stops phase by phase.
    ///
    /// # Errors
    /// The task that ended the process.
    pub async fn run(self, signal: impl Future<Output = ()>) -> Result<(), Failure> {
        let mut failure = self.shared.failure.subscribe();
        tokio::select! {
            () = signal => tracing::info!("stopping"),
            failed = failure.wait_for(Option::is_some) => drop(failed),
        }
        self.shared.ready.store(false, Ordering::Release);
        self.shared.stopping.cancel();
        notify(&[sd_notify::NotifyState::Stopping]);
        for (phase, group) in self.groups.iter() {
            self.stop_phase(*phase, group).await;
        }
        let failed = failure.borrow().clone();
        failed.map_or(Ok(()), Err)
    }

    async fn stop_phase(&self, phase: Phase, group: &Group) {
        group.tracker.close();
        group.token.cancel();
        if phase == Phase::Store {
            group.tracker.wait().await;
            return;
        }
        if tokio::time::timeout(self.budget.share(phase), group.tracker.wait()).await.is_err() {
            let left = self.scopes().into_iter().filter(|scope| scope.phase == phase && scope.count > 0);
            let left: Vec<_> = left.map(|scope| scope.name).collect();
            tracing::warn!(?phase, tasks = ?left, running = group.tracker.len(), "abandoned: did not stop in time");
        }
    }

    /// Feeds systemd's watchdog for as long as the process lives, where there is one.
    pub fn watchdog(&self) {
        let Some(every) = sd_notify::watchdog_enabled() else { return };
        self.scope(Phase::Store, "supervise").spawn("watchdog", crate::OnError::Log, move |stop| async move {
            let mut tick = tokio::time::interval((every / 3).max(Duration::from_millis(100)));
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    _ = tick.tick() => notify(&[sd_notify::NotifyState::Watchdog]),
                }
            }
        });
    }
}

impl Crowd {
    fn status(&self, name: &str) -> ScopeStatus {
        let state = if self.running == 0 { TaskState::Ended } else { TaskState::Running };
        let (phase, count, last_error) = (self.phase, self.running, self.last_error.clone());
        ScopeStatus { name: name.to_owned(), phase, state, count, restarts: 0, last_error }
    }
}

impl ScopeStatus {
    /// One more of the same name.
    fn add(&mut self, other: Self) {
        self.state = match (self.state, other.state) {
            (TaskState::Running, _) | (_, TaskState::Running) => TaskState::Running,
            (TaskState::BackingOff, _) | (_, TaskState::BackingOff) => TaskState::BackingOff,
            _ => TaskState::Ended,
        };
        self.count += other.count;
        self.restarts += other.restarts;
        self.last_error = other.last_error.or_else(|| self.last_error.take());
    }
}

impl From<TaskStatus> for ScopeStatus {
    fn from(task: TaskStatus) -> Self {
        let count = u64::from(task.state != TaskState::Ended);
        let TaskStatus { name, phase, state, restarts, last_error } = task;
        Self { name, phase, state, count, restarts, last_error }
    }
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager does not listen");
    }
}
