//! The instances of one function: how many may work, how many may wait, and which are kept warm.
//!
//! ```text
//!   checkout ─► place free? ──yes──► idle instance, else a new one ──► Lease ── invoke ──► idle again
//!                  │ no: fewer than `queue` waiting? ─► waits its turn,        └─ trap, deadline, last use ─► gone
//!                  └ full: refused with a time to come back                         at most `queue_wait`
//! ```
//! Invariants: never more than `concurrency` leases; never more than `queue` waiting; an instance is in one lease or
//! idle, never both. The instance that was used last is used first, so that the others grow old and go.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use types::{ExecutionId, Reason};

use api::Invocation;

use crate::{Answer, Instance, InstanceSpec, InvokeError, Prepared, Runtime, Streams};

/// How the instances of a function are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Calls at a time.
    pub concurrency: usize,
    /// Calls that may wait for a place.
    pub queue: usize,
    /// How long one may wait.
    pub queue_wait: Duration,
    /// Instances that are kept ready, even when nobody calls.
    pub warm_min: usize,
    /// Idle instances that are kept.
    pub warm_max: usize,
    /// An instance above `warm_min` that was idle for so long is given up.
    pub idle: Duration,
    /// Calls after which an instance is replaced.
    pub uses: u64,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            concurrency: 64,
            queue: 256,
            queue_wait: Duration::from_secs(5),
            warm_min: 0,
            warm_max: 16,
            idle: Duration::from_secs(120),
            uses: 1_000_000,
        }
    }
}

/// What an instance does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// Waits for a call.
    Idle,
    /// Works on one.
    Busy,
}

/// An instance as others see it.
#[derive(Clone, Debug)]
pub struct InstanceView {
    /// Its number, unique in this process.
    pub id: u64,
    /// What it does.
    pub state: InstanceState,
    /// The execution it works on.
    pub execution: Option<ExecutionId>,
    /// Calls so far.
    pub uses: u64,
    /// Bytes it held when it was last looked at.
    pub memory_bytes: u64,
    /// When it was made.
    pub made: Instant,
    /// Since when it is in this state.
    pub since: Instant,
}

struct Kept {
    id: u64,
    instance: Box<dyn Instance>,
    uses: u64,
    /// Was it made ready before anybody called?
    warm: bool,
    made: Instant,
    since: Instant,
}

struct Busy {
    view: InstanceView,
    /// Of one that is made by this call.
    memory_to_come: Option<Arc<AtomicU64>>,
    kill: CancellationToken,
}

#[derive(Default)]
struct State {
    idle: Vec<Kept>,
    busy: BTreeMap<u64, Busy>,
    closed: bool,
}

struct Shared {
    runtime: Arc<dyn Runtime>,
    prepared: Prepared,
    spec: Arc<InstanceSpec>,
    settings: PoolSettings,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    next_id: Arc<AtomicU64>,
    state: Mutex<State>,
}

/// The instances of one function. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

/// A place among the waiting ones.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Pool {
    /// For a function; `next_id` numbers the instances of all pools.
    pub fn new(
        runtime: Arc<dyn Runtime>,
        prepared: Prepared,
        spec: InstanceSpec,
        settings: PoolSettings,
        next_id: Arc<AtomicU64>,
    ) -> Self {
        let places = Arc::new(Semaphore::new(settings.concurrency.clamp(1, Semaphore::MAX_PERMITS)));
        Self(Arc::new(Shared {
            runtime,
            prepared,
            spec: Arc::new(spec),
            settings,
            places,
            waiting: AtomicUsize::new(0),
            next_id,
            state: Mutex::default(),
        }))
    }

    /// What its instances are made with.
    pub fn spec(&self) -> &InstanceSpec {
        &self.0.spec
    }

    /// How they are kept.
    pub fn settings(&self) -> &PoolSettings {
        &self.0.settings
    }

    /// Calls that wait for a place.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Acquire)
    }

    /// Calls under way.
    pub fn busy(&self) -> usize {
        self.0.lock().busy.len()
    }

    /// All instances.
    pub fn instances(&self) -> Vec<InstanceView> {
        let state = self.0.lock();
        let idle = state.idle.iter().map(Kept::view);
        let busy = state.busy.values().map(Busy::view);
        idle.chain(busy).collect()
    }

    /// A place and an instance for one call, once there is a place.
    ///
    /// # Errors
    /// [`Reason::Queue`] with a time to come back when too many wait or the wait was too long;
    /// [`Reason::Cancelled`]; those of [`Runtime::start`].
    pub async fn checkout(&self, cancel: &CancellationToken) -> Result<Lease, InvokeError> {
        let place = self.place(cancel).await?;
        self.lease(place).await
    }

    /// The same with an instance that is made for it.
    ///
    /// # Errors
    /// See [`Pool::checkout`].
    pub async fn checkout_fresh(&self, cancel: &CancellationToken) -> Result<Lease, InvokeError> {
        let place = self.place(cancel).await?;
        let kept = self.make().await?;
        Ok(Lease { pool: self.clone(), kept: Some(kept), reusable: false, _place: place })
    }

    async fn place(&self, cancel: &CancellationToken) -> Result<OwnedSemaphorePermit, InvokeError> {
        match self.0.places.clone().try_acquire_owned() {
            Ok(place) => Ok(place),
            Err(_) => self.wait(cancel).await,
        }
    }

    /// The same for one who waits as long as it takes, and does not count as waiting: it has its own queue.
    ///
    /// # Errors
    /// Those of [`Runtime::start`]; [`Reason::Task`] when the function was removed.
    pub async fn checkout_patiently(&self) -> Result<Lease, InvokeError> {
        let place = self.0.places.clone().acquire_owned().await.map_err(|_| removed())?;
        self.lease(place).await
    }

    async fn lease(&self, place: OwnedSemaphorePermit) -> Result<Lease, InvokeError> {
        let idle = self.0.lock().idle.pop();
        let kept = match idle {
            Some(kept) => kept,
            None => self.make().await?,
        };
        Ok(Lease { pool: self.clone(), kept: Some(kept), reusable: false, _place: place })
    }

    async fn wait(&self, cancel: &CancellationToken) -> Result<OwnedSemaphorePermit, InvokeError> {
        let PoolSettings { concurrency, queue, queue_wait, .. } = self.0.settings;
        let busy = |message: String| InvokeError {
            // As good a guess as any: the wait that was too long.
            retry_after: Some(queue_wait.clamp(Duration::from_secs(1), Duration::from_secs(60))),
            ..InvokeError::new(Reason::Queue, message)
        };
        let before = self.0.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(&self.0.waiting);
        if before >= queue {
            return Err(busy(format!("{concurrency} calls are under way and {queue} wait: it takes no more")));
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(InvokeError::new(Reason::Cancelled, "cancelled")),
            place = self.0.places.clone().acquire_owned() => {
                place.map_err(|_| removed())
            }
            () = tokio::time::sleep(queue_wait) => {
                Err(busy(format!("all {concurrency} places were taken for {queue_wait:?}")))
            }
        }
    }

    async fn make(&self) -> Result<Kept, InvokeError> {
        let instance = self.0.runtime.start(&self.0.prepared, &self.0.spec).await?;
        let (id, now) = (self.0.next_id.fetch_add(1, Ordering::Relaxed), Instant::now());
        Ok(Kept { id, instance, uses: 0, warm: false, made: now, since: now })
    }

    /// Ends a call; true when the instance was at work.
    pub fn kill(&self, id: u64) -> bool {
        let mut state = self.0.lock();
        if let Some(busy) = state.busy.get(&id) {
            busy.kill.cancel();
            return true;
        }
        let found = state.idle.iter().position(|kept| kept.id == id);
        let gone = found.map(|index| state.idle.remove(index));
        drop(state);
        gone.is_some()
    }

    /// Gives up what was idle for too long and makes what should be warm. Called now and then.
    ///
    /// # Errors
    /// Those of [`Runtime::start`].
    pub async fn tend(&self) -> Result<(), InvokeError> {
        let settings = &self.0.settings;
        let (gone, missing) = {
            let mut state = self.0.lock();
            let now = Instant::now();
            let mut gone = Vec::new();
            // The longest idle ones lie at the front.
            while state.idle.len() > settings.warm_min
                && state.idle.first().is_some_and(|kept| now.saturating_duration_since(kept.since) >= settings.idle)
            {
                gone.push(state.idle.remove(0));
            }
            let there = state.idle.len() + state.busy.len();
            (gone, if state.closed { 0 } else { settings.warm_min.min(settings.warm_max).saturating_sub(there) })
        };
        drop(gone);
        for _ in 0..missing {
            let mut kept = self.make().await?;
            kept.instance.warm().await?;
            kept.warm = true;
            self.0.keep(kept);
        }
        Ok(())
    }

    /// Nothing new begins; idle instances go, busy ones when they have ended.
    pub fn close(&self) {
        self.0.places.close();
        let mut state = self.0.lock();
        state.closed = true;
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        drop(idle);
    }

    /// Ends every call under way.
    pub fn kill_all(&self) {
        for busy in self.0.lock().busy.values() {
            busy.kill.cancel();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    fn keep(&self, kept: Kept) {
        let mut state = self.lock();
        let gone = if state.closed || state.idle.len() >= self.settings.warm_max {
            Some(kept)
        } else {
            state.idle.push(kept);
            None
        };
        drop(state);
        // Memory is given back without the lock.
        drop(gone);
    }
}

impl Busy {
    fn view(&self) -> InstanceView {
        let told = self.memory_to_come.as_ref().map(|told| told.load(Ordering::Relaxed));
        InstanceView { memory_bytes: told.unwrap_or(self.view.memory_bytes), ..self.view.clone() }
    }
}

impl Kept {
    fn view(&self) -> InstanceView {
        InstanceView {
            id: self.id,
            state: InstanceState::Idle,
            execution: None,
            uses: self.uses,
            memory_bytes: self.instance.memory_bytes(),
            made: self.made,
            since: self.since,
        }
    }
}

fn removed() -> InvokeError {
    InvokeError::new(Reason::Task, "the function was removed or replaced meanwhile")
}

/// A place and an instance for one call.
pub struct Lease {
    pool: Pool,
    kept: Option<Kept>,
    reusable: bool,
    _place: OwnedSemaphorePermit,
}

impl Lease {
    /// Has the call to wait until the instance is made?
    pub fn cold(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.uses == 0 && !kept.warm)
    }

    /// Calls the instance.
    ///
    /// # Errors
    /// How the guest was ended.
    pub async fn invoke(
        &mut self,
        execution: ExecutionId,
        call: Invocation,
        streams: Streams,
    ) -> Result<Answer, InvokeError> {
        let gone = || InvokeError::new(Reason::Internal, "a lease without an instance");
        let kept = self.kept.as_mut().ok_or_else(gone)?;
        kept.uses += 1;
        kept.since = Instant::now();
        let view = InstanceView { state: InstanceState::Busy, execution: Some(execution), ..kept.view() };
        let memory_to_come = (view.memory_bytes == 0).then(|| kept.instance.memory_to_come()).flatten();
        self.pool.0.lock().busy.insert(kept.id, Busy { view, memory_to_come, kill: call.cancel.clone() });
        let answer = kept.instance.invoke(call, streams).await;
        self.reusable = kept.instance.reusable() && kept.uses < self.pool.0.settings.uses;
        answer
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut kept) = self.kept.take() else { return };
        self.pool.0.lock().busy.remove(&kept.id);
        // Not after a call that was given up half-way.
        if self.reusable || kept.uses == 0 {
            kept.since = Instant::now();
            self.pool.0.keep(kept);
        }
    }
}
