//! The functions of this node: tasks that are called, each made ready once and kept with its instances.
//!
//! ```text
//!   task id ─► known and fresh? ─────────────────────────────────────────────► Function ─► Pool
//!                 │ no: one at a time per task                                    ▲
//!                 └► registry: the task ─► manifest ─► fetch ─► prepare ──────────┘
//! ```
//! A function is known by its task and by what the task says: when that changes, or the artifact does, the next call
//! finds a new one and the old one goes when its last call has ended. A task is asked for again every few seconds; until
//! the answer is there the old one serves, also when the registry is away.

pub(crate) mod faces;
mod figures;
mod invoke;
pub(crate) mod manifest;
mod recent;
mod signals;
mod tally;

pub use invoke::LocalInvoker;
pub use manifest::Policy;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use manifest::fuzzing;
pub(crate) use recent::{Past, Recent, Running, State};
pub use signals::{CallEnd, CallSignal};
pub(crate) use tally::{Counted, Tally};

use runtime::{InstanceView, InvokeError, Pool, PoolSettings, Prepared, Runtimes};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use supervise::{Live, OnError, Scope, Stop};
use telemetry::Slot;
use tokio::sync::Semaphore;
use types::{Clock, ErrorKind, Fault, Reason, Task, TaskId};

use crate::{
    Config,
    agent::connect::{ANSWER, within},
    artifacts::{Fetcher, Held},
};
use figures::Figures;
use manifest::Manifest;

/// How long the registry's word on a task is taken for granted.
const FRESH: Duration = Duration::from_secs(5);
/// Functions kept.
const MOST: usize = 1024;
/// Pace at which pools are tended.
const TEND: Duration = Duration::from_secs(1);
/// A function without any call is forgotten after that time; its artifact stays in the cache.
const FORGET: Duration = Duration::from_secs(3600);

/// How functions are pooled, and the most that a task may ask for.
pub type Settings = PoolSettings;

/// What the functions are built from.
pub(crate) struct Deps {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) runtimes: Runtimes,
    pub(crate) artifacts: Arc<Fetcher>,
    pub(crate) control: Option<Arc<dyn api::Control>>,
    pub(crate) config: Live<Config>,
    /// Cancelled as soon as the process begins to stop: nothing new is begun then.
    pub(crate) stopping: Stop,
    /// Hears of every call.
    pub(crate) bus: bus::Bus,
}

/// A task that is ready to be called.
pub(crate) struct Function {
    pub(crate) task: Task,
    pub(crate) name: Arc<str>,
    pub(crate) manifest: Manifest,
    pub(crate) pool: Pool,
    /// How it is called and was compiled, for people.
    prepared: Prepared,
    // The file stays while it is in use.
    _artifact: Held,
    /// When the registry was last asked, and when it was last called: milliseconds since `Functions::began`.
    asked: AtomicU64,
    called: AtomicU64,
    pub(crate) tally: Tally,
}

/// All functions of the node. It is the node's [`api::Invoker`].
pub struct Functions {
    clock: Arc<dyn Clock>,
    runtimes: Runtimes,
    artifacts: Arc<Fetcher>,
    control: Option<Arc<dyn api::Control>>,
    config: Live<Config>,
    stopping: Stop,
    /// What runs beside calls: streamed answers, looking after tasks.
    scope: Scope,
    began: Instant,
    known: RwLock<HashMap<TaskId, Arc<Function>>>,
    flights: Mutex<HashMap<TaskId, Arc<tokio::sync::Mutex<()>>>>,
    /// Calls of this node at a time.
    places: Arc<Semaphore>,
    next_instance: Arc<AtomicU64>,
    recent: Recent,
    /// Of all functions, those that are gone too.
    tally: Tally,
    bus: bus::Bus,
    figures: Slot<Figures>,
}

impl Functions {
    /// Starts to look after them in `scope`.
    pub(crate) fn start(deps: Deps, scope: &Scope) -> Arc<Self> {
        let places = deps.config.get().invocations.clamp(1, Semaphore::MAX_PERMITS);
        let functions = Arc::new(Self {
            clock: deps.clock,
            runtimes: deps.runtimes,
            artifacts: deps.artifacts,
            control: deps.control,
            config: deps.config,
            stopping: deps.stopping,
            scope: scope.clone(),
            began: Instant::now(),
            known: RwLock::default(),
            flights: Mutex::default(),
            places: Arc::new(Semaphore::new(places)),
            next_instance: Arc::new(AtomicU64::new(1)),
            recent: Recent::default(),
            tally: Tally::default(),
            bus: deps.bus,
            figures: Slot::default(),
        });
        let tended = functions.clone();
        let again = OnError::Restart { first: Duration::from_millis(100), most: Duration::from_secs(5) };
        scope.spawn("functions", again, move |stop| {
            let functions = tended.clone();
            async move { functions.tend(stop).await }
        });
        functions
    }

    /// What is known of calls, running and ended.
    pub(crate) fn recent(&self) -> &Recent {
        &self.recent
    }

    /// What all functions together have done.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// A call of a function has ended, whoever asked for it.
    pub(crate) fn ended(&self, function: &Function, took: Duration, failed: bool) {
        function.tally.ended(took, failed);
        self.tally.ended(took, failed);
    }

    /// All functions that are ready.
    pub(crate) fn all(&self) -> Vec<Arc<Function>> {
        self.read().values().cloned().collect()
    }

    /// Their instances.
    pub(crate) fn instances(&self) -> Vec<(Arc<Function>, InstanceView)> {
        let all = self.all();
        all.into_iter()
            .flat_map(|function| function.pool.instances().into_iter().map(move |view| (function.clone(), view)))
            .collect()
    }

    /// Ends an instance, with its call if it has one; false when there is none of that number.
    pub(crate) fn kill(&self, instance: u64) -> bool {
        self.all().iter().any(|function| function.pool.kill(instance))
    }

    /// How a function is called and was compiled, for people.
    pub(crate) fn describe(&self, function: &Function) -> String {
        let runtime = self.runtimes.get(function.manifest.executable.kind.runtime());
        runtime.map(|runtime| runtime.describe(&function.prepared)).unwrap_or_default()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<TaskId, Arc<Function>>> {
        self.known.read().unwrap_or_else(|broken| broken.into_inner())
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<TaskId, Arc<Function>>> {
        self.known.write().unwrap_or_else(|broken| broken.into_inner())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The function of a task, ready to be called.
    async fn get(self: &Arc<Self>, task: TaskId) -> Result<Arc<Function>, InvokeError> {
        let known = self.read().get(&task).cloned();
        if let Some(function) = known {
            let (now, fresh) = (self.now(), u64::try_from(FRESH.as_millis()).unwrap_or(u64::MAX));
            function.called.store(now, Ordering::Relaxed);
            let asked = function.asked.load(Ordering::Relaxed);
            // Who moves the mark is the one who asks.
            if now.saturating_sub(asked) > fresh
                && function.asked.compare_exchange(asked, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            {
                let (functions, old) = (self.clone(), function.clone());
                self.scope.spawn_once("refresh", async move {
                    functions.refresh(&old).await;
                    Ok(())
                });
            }
            return Ok(function);
        }
        let flight = {
            let mut flights = self.flights.lock().unwrap_or_else(|broken| broken.into_inner());
            flights.entry(task).or_default().clone()
        };
        let turn = flight.lock().await;
        let known = self.read().get(&task).cloned();
        let made = match known {
            Some(function) => Ok(function),
            None => self.fetch(task).await,
        };
        drop(turn);
        let mut flights = self.flights.lock().unwrap_or_else(|broken| broken.into_inner());
        // Two owners, the map and we: nobody else waits.
        if Arc::strong_count(&flight) == 2 {
            flights.remove(&task);
        }
        drop(flights);
        made
    }

    async fn fetch(&self, task: TaskId) -> Result<Arc<Function>, InvokeError> {
        let control = self.control.as_ref().ok_or_else(|| {
            InvokeError::new(Reason::Task, "this agent has no registry to learn a task from: give it --sms-addr")
        })?;
        let task = within(ANSWER, "task", control.get_task(task)).await.map_err(unknown)?;
        self.ready(&task).await
    }

    /// Makes a task ready, or finds it so.
    ///
    /// # Errors
    /// Whatever is wrong with the task, its artifact or its module.
    pub(crate) async fn ready(&self, task: &Task) -> Result<Arc<Function>, InvokeError> {
        let config = self.config.get();
        let manifest = Manifest::of(&config, task).map_err(wrong)?;
        let nothing = |_| {};
        let artifact = self.artifacts.fetch(&manifest.executable, manifest.spec.limits.artifact_bytes, &nothing).await;
        let artifact = artifact.map_err(|fault| InvokeError::new(Reason::Artifact, fault.message))?;
        self.adopt(task, manifest, artifact).await
    }

    /// A function of a task whose artifact is there.
    pub(crate) async fn adopt(
        &self,
        task: &Task,
        manifest: Manifest,
        artifact: Held,
    ) -> Result<Arc<Function>, InvokeError> {
        let same = |known: &Function| known.manifest == manifest && known.prepared.artifact == *artifact;
        let known = self.read().get(&task.id).filter(|known| same(known)).cloned();
        if let Some(function) = known {
            return Ok(function);
        }
        let kind = manifest.executable.kind.runtime();
        let runtime = self.runtimes.get(kind).ok_or_else(|| {
            let there = self.runtimes.kinds();
            let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
            let wanted = manifest.executable.kind.as_str();
            let message = format!("a {wanted} executable needs the {kind} runtime; this node has: {there}");
            InvokeError::new(Reason::Runtime, message)
        })?;
        let prepared = runtime.prepare(&artifact, &manifest.preparation).await?;
        let (spec, settings) = (manifest.spec.clone(), manifest.pool.clone());
        let pool = Pool::new(runtime, prepared.clone(), spec, settings, self.next_instance.clone());
        let now = AtomicU64::new(self.now());
        let function = Arc::new(Function {
            task: task.clone(),
            name: task.name.as_str().into(),
            manifest,
            pool,
            prepared,
            _artifact: artifact,
            called: AtomicU64::new(self.now()),
            asked: now,
            tally: Tally::default(),
        });
        self.insert(function.clone());
        Ok(function)
    }

    fn insert(&self, function: Arc<Function>) {
        let mut known = self.write();
        let old = known.insert(function.task.id, function);
        let extra = (known.len() > MOST).then(|| {
            let oldest = known.values().min_by_key(|function| function.called.load(Ordering::Relaxed));
            let oldest = oldest.map(|function| function.task.id)?;
            known.remove(&oldest)
        });
        drop(known);
        // Whoever has begun goes on; nobody begins any more.
        for gone in old.into_iter().chain(extra.flatten()) {
            gone.pool.close();
        }
    }

    /// Looks whether a task has changed since it was made ready.
    async fn refresh(&self, old: &Function) {
        let Some(control) = &self.control else { return };
        match within(ANSWER, "task", control.get_task(old.task.id)).await {
            Ok(task) if task.config == old.task.config && task.executable == old.task.executable => {}
            Ok(task) => {
                if let Err(error) = self.ready(&task).await {
                    tracing::warn!(task = %task.id, %error, "a changed task cannot be made ready; the old one is gone");
                    self.forget(old.task.id);
                }
            }
            Err(fault) if fault.kind == ErrorKind::NotFound => self.forget(old.task.id),
            Err(fault) => tracing::debug!(task = %old.task.id, error = %fault, "the registry does not tell of a task"),
        }
    }

    fn forget(&self, task: TaskId) {
        let gone = self.write().remove(&task);
        if let Some(function) = gone {
            function.pool.close();
        }
    }

    /// Keeps warm what should be, and lets go what nobody calls.
    async fn tend(&self, stop: Stop) -> supervise::TaskResult {
        while stop.run_until_cancelled(tokio::time::sleep(TEND)).await.is_some() {
            let (now, forget) = (self.now(), u64::try_from(FORGET.as_millis()).unwrap_or(u64::MAX));
            for function in self.all() {
                if let Err(error) = function.pool.tend().await {
                    tracing::warn!(task = %function.task.id, %error, "no instance can be kept warm");
                }
                let called = function.called.load(Ordering::Relaxed);
                if now.saturating_sub(called) > forget
                    && function.pool.busy() == 0
                    && function.manifest.pool.warm_min == 0
                {
                    self.forget(function.task.id);
                }
            }
        }
        for function in self.all() {
            function.pool.close();
        }
        Ok(())
    }
}

fn wrong(fault: Fault) -> InvokeError {
    InvokeError::new(Reason::Task, format!("the task's settings are wrong: {fault}"))
}

fn unknown(fault: Fault) -> InvokeError {
    match fault.kind {
        ErrorKind::NotFound => InvokeError::new(Reason::Task, fault.message),
        _ => InvokeError {
            retry_after: Some(Duration::from_secs(1)),
            ..InvokeError::new(Reason::NoNode, format!("the registry does not tell of the task: {}", fault.message))
        },
    }
}
