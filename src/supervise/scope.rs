//! A scope: a named group of tasks of one phase.

use futures_util::FutureExt;
use std::{
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
    time::Duration,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use crate::{Phase, TaskResult, supervisor::Shared};

/// Tells a task to stop; see [`CancellationToken::cancelled`].
pub type Stop = CancellationToken;

/// What happens when a task fails or panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The process stops in order and ends with exit code 1.
    StopProcess,
    /// The task is started again after a pause that doubles from `first` to `most`, with jitter.
    Restart {
        /// First pause.
        first: Duration,
        /// Longest pause.
        most: Duration,
    },
    /// It is logged.
    Log,
}

/// State of a supervised task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// It runs.
    Running,
    /// It waits to be started again.
    BackingOff,
    /// It has ended.
    Ended,
}

/// What is known of a supervised task.
#[derive(Clone, Debug)]
pub struct TaskStatus {
    /// `scope/task`.
    pub name: String,
    /// Phase in which it stops.
    pub phase: Phase,
    /// State.
    pub state: TaskState,
    /// How often it was started again.
    pub restarts: u64,
    /// Its last error.
    pub last_error: Option<String>,
}

/// All tasks of one name: what `spear status` shows in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeStatus {
    /// `scope/task`.
    pub name: String,
    /// Phase in which they stop.
    pub phase: Phase,
    /// Running when one runs, else waiting to be started again when one does.
    pub state: TaskState,
    /// How many have not ended.
    pub count: u64,
    /// How often they were started again.
    pub restarts: u64,
    /// The last error of one of them.
    pub last_error: Option<String>,
}

impl TaskState {
    /// As people read it: `running`, `backing_off`, `ended`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::BackingOff => "backing_off",
            Self::Ended => "ended",
        }
    }
}

/// Tasks of one name that run once: connections, executions.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) phase: Phase,
    pub(crate) running: u64,
    pub(crate) last_error: Option<String>,
}

/// One of a crowd, counted while it lives.
struct Member {
    shared: Arc<Shared>,
    name: String,
}

impl Member {
    fn failed(&self, error: &str) {
        if let Some(crowd) = lock(&self.shared.crowds).get_mut(&self.name) {
            crowd.last_error = Some(error.to_owned());
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut crowds = lock(&self.shared.crowds);
        let Some(crowd) = crowds.get_mut(&self.name) else { return };
        crowd.running = crowd.running.saturating_sub(1);
        // A crowd that failed stays listed, but not without end.
        if crowd.running == 0 && (crowd.last_error.is_none() || crowds.len() > MOST_LISTED) {
            crowds.remove(&self.name);
        }
    }
}

pub(crate) struct Group {
    pub(crate) tracker: TaskTracker,
    pub(crate) token: CancellationToken,
}

/// A named group of tasks of one phase. Cheap to clone.
#[derive(Clone)]
pub struct Scope {
    pub(crate) name: Arc<str>,
    pub(crate) phase: Phase,
    pub(crate) group: Arc<Group>,
    pub(crate) shared: Arc<Shared>,
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({:?}, {})", self.phase, self.name)
    }
}

/// A task's entry in the supervisor's list; leaves it when dropped, unless the task failed.
struct Entry {
    shared: Arc<Shared>,
    id: u64,
}

impl Entry {
    fn set(&self, change: impl FnOnce(&mut TaskStatus)) {
        if let Some(status) = lock(&self.shared.tasks).get_mut(&self.id) {
            change(status);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut tasks = lock(&self.shared.tasks);
        let failed = tasks.get(&self.id).is_some_and(|status| status.last_error.is_some());
        if failed {
            if let Some(status) = tasks.get_mut(&self.id) {
                status.state = TaskState::Ended;
            }
        } else {
            tasks.remove(&self.id);
        }
        // Failed one-shot tasks stay listed, but not without end.
        while tasks.len() > MOST_LISTED {
            let Some(oldest) = tasks.iter().find(|(_, status)| status.state == TaskState::Ended).map(|(id, _)| *id)
            else {
                break;
            };
            tasks.remove(&oldest);
        }
    }
}

const MOST_LISTED: usize = 4096;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|broken| broken.into_inner())
}

impl Scope {
    /// A scope of the same phase with a longer name.
    pub fn child(&self, name: &str) -> Self {
        Self { name: format!("{}/{name}", self.name).into(), ..self.clone() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Cancelled when the phase stops.
    pub fn stop(&self) -> Stop {
        self.group.token.clone()
    }

    /// Runs `task` until it ends, is told to stop, or fails for good. The closure is called again for each
    /// restart, so it must be able to make the future anew.
    pub fn spawn<F, Fut>(&self, name: &str, on_error: OnError, mut task: F)
    where
        F: FnMut(Stop) -> Fut + Send + 'static,
        Fut: Future<Output = TaskResult> + Send + 'static,
    {
        let full = format!("{}/{name}", self.name);
        let entry = self.enter(&full);
        let (shared, stop) = (self.shared.clone(), self.stop());
        let span = tracing::debug_span!("task", name = %full);
        self.run(
            async move {
                let mut restarts = 0u32;
                loop {
                    let ended = AssertUnwindSafe(async { task(stop.clone()).await }).catch_unwind().await;
                    let error = match ended {
                        Ok(Ok(())) => return,
                        Ok(Err(error)) => chain(error.as_ref()),
                        Err(panic) => format!("panic: {}", panic_text(panic.as_ref())),
                    };
                    entry.set(|status| status.last_error = Some(error.clone()));
                    shared.failures.fetch_add(1, Ordering::Relaxed);
                    if stop.is_cancelled() {
                        tracing::warn!(task = %full, error, "task failed while stopping");
                        return;
                    }
                    match on_error {
                        OnError::Log => {
                            tracing::error!(task = %full, error, "task failed");
                            return;
                        }
                        OnError::StopProcess => {
                            tracing::error!(task = %full, error, "task failed, the process stops");
                            shared.fail(&full, &error);
                            return;
                        }
                        OnError::Restart { first, most } => {
                            let pause = backoff(first, most, restarts);
                            restarts = restarts.saturating_add(1);
                            shared.restarts.fetch_add(1, Ordering::Relaxed);
                            tracing::warn!(task = %full, error, pause_ms = pause.as_millis() as u64, "task failed, starting it again");
                            entry.set(|status| {
                                status.state = TaskState::BackingOff;
                                status.restarts += 1;
                            });
                            tokio::select! {
                                () = stop.cancelled() => return,
                                () = tokio::time::sleep(pause) => {}
                            }
                            entry.set(|status| status.state = TaskState::Running);
                        }
                    }
                }
            }
            .instrument(span),
        );
    }

    /// Runs a future once, for instance one connection or one execution; a failure or panic is logged.
    pub fn spawn_once<Fut>(&self, name: &str, task: Fut)
    where
        Fut: Future<Output = TaskResult> + Send + 'static,
    {
        let member = self.join(format!("{}/{name}", self.name));
        let span = tracing::debug_span!("task", name = %member.name);
        // Not an async block: it would keep the place that the future was captured in beside the one that it runs
        // in, and there may be one of these for every open stream.
        let ended = AssertUnwindSafe(task).catch_unwind().map(move |ended| {
            match ended {
                Ok(Ok(())) => return,
                Ok(Err(error)) => {
                    let error = chain(error.as_ref());
                    tracing::error!(task = %member.name, error, "task failed");
                    member.failed(&error);
                }
                Err(panic) => {
                    let error = panic_text(panic.as_ref());
                    tracing::error!(task = %member.name, error, "task panicked");
                    member.failed(&format!("panic: {error}"));
                }
            }
            member.shared.failures.fetch_add(1, Ordering::Relaxed);
        });
        self.run(ended.instrument(span));
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    fn run(&self, future: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.group.tracker.track_future(future));
    }

    fn join(&self, name: String) -> Member {
        let mut crowds = lock(&self.shared.crowds);
        match crowds.get_mut(&name) {
            Some(crowd) => crowd.running += 1,
            None => {
                crowds.insert(name.clone(), Crowd { phase: self.phase, running: 1, last_error: None });
            }
        }
        drop(crowds);
        Member { shared: self.shared.clone(), name }
    }

    fn enter(&self, full: &str) -> Entry {
        let status = TaskStatus {
            name: full.to_owned(),
            phase: self.phase,
            state: TaskState::Running,
            restarts: 0,
            last_error: None,
        };
        let id = self.shared.next_id();
        lock(&self.shared.tasks).insert(id, status);
        Entry { shared: self.shared.clone(), id }
    }
}

/// The pause before try number `tries` (from 0): doubles from `first` up to `most`, with a jitter of ±25 %.
pub fn backoff(first: Duration, most: Duration, tries: u32) -> Duration {
    let full = first.saturating_mul(1u32.checked_shl(tries.min(16)).unwrap_or(u32::MAX)).min(most);
    // Jitter needs no quality: the low bits of a random hash seed will do, and no dependency.
    let seed = std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), tries);
    let part = u32::try_from(seed % 512).unwrap_or(0);
    full * (768 + part) / 1024
}

/// An error with its causes in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
