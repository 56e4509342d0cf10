//! An instance that lives from call to call, and one call of it on the calling thread.
//!
//! ```text
//!   make: store ─► instance (no guest code runs) ─► stop flag found ─► snapshot
//!   call: fresh process ─► flag armed ─► start function ─► entry ─► disarmed ─► put back, or given up
//! ```

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};
use telemetry::Gauge;
use wasmer::{
    Engine, Extern, FunctionEnv, Instance, InstantiationError, LinkError, Store, TypedFunction, sys::NativeEngineExt,
};

use api::{Disposition, Ended};
use runtime::{Answer, InvokeError, Reuse};
use types::{Reason, Usage};

use crate::{
    abi::{Entry, Guest, How},
    budget::{Budget, InstanceTunables},
    control::Control,
    engine::Loaded,
    host::{Env, Process},
    mapping::Mappings,
    memory::{Handle, Handles},
    scan::INITIALIZE,
    snapshot::Snapshot,
    stack::{self, Guarded},
    stop::{Flag, START},
    touched::Pages,
};

/// What an instance is made with.
pub(crate) struct Make<'a> {
    pub(crate) loaded: &'a Arc<Loaded>,
    pub(crate) memory_bytes: u64,
    pub(crate) stack_bytes: usize,
    /// What all guests have together.
    pub(crate) memory: Gauge,
    /// How touched pages are found; none: it is not put back.
    pub(crate) pages: Option<&'a Arc<Pages>>,
    /// Where its memories come from.
    pub(crate) mappings: &'a Arc<Mappings>,
    /// What becomes of it after a call.
    pub(crate) reuse: Reuse,
}

/// What follows a call.
enum After {
    PutBack(Snapshot, Arc<Pages>),
    Keep,
    Drop,
}

/// A living instance.
pub(crate) struct Live {
    pub(crate) loaded: Arc<Loaded>,
    after: After,
    // Into the store, and therefore dropped before it.
    memories: Vec<Handle>,
    flag: Flag,
    stack_bytes: usize,
    /// What runs before anything else: the start function, and that of a reactor.
    before: Vec<TypedFunction<(), ()>>,
    started: bool,
    entry: Box<dyn Entry>,
    instance: Instance,
    env: FunctionEnv<Env>,
    store: Store,
    budget: Arc<Budget>,
    initial_bytes: u64,
    broken: bool,
}

// SAFETY: between calls no code runs in the store, and nothing in it belongs to a thread: the engine keeps what is
// bound to one (trap handlers, stacks) only while a call is under way, in thread-locals of its own. The parts that
// are not `Send` by themselves are pointers into allocations that the store owns, and hooks, of which there are none.
#[expect(unsafe_code, reason = "an instance is called on one thread after another, never on two")]
unsafe impl Send for Live {}

impl Live {
    /// Makes one. No code of the guest runs.
    ///
    /// # Errors
    /// It does not fit into its limits, or the engine fails.
    pub(crate) fn make(make: &Make<'_>) -> Result<Self, InvokeError> {
        let made = catch_unwind(AssertUnwindSafe(|| Self::try_make(make)));
        made.unwrap_or_else(|panic| Err(panicked(&*panic)))
    }

    fn try_make(make: &Make<'_>) -> Result<Self, InvokeError> {
        let budget = Budget::new(make.memory_bytes, make.memory.clone());
        let loaded = make.loaded;
        // What was touched before would be put back after every call: such an instance begins with untouched pages.
        let puts_back = make.reuse == Reuse::Clean && loaded.facts.puts_back;
        let handles = Handles::new(make.mappings.clone(), puts_back);
        // A clone shares the code; the tunables are this instance's own.
        let mut engine: Engine = loaded.engine().clone();
        engine.set_tunables(InstanceTunables::new(budget.clone(), handles.clone(), stack::length(make.stack_bytes)));
        let mut store = Store::new(engine);
        store.set_trap_handler(Some(stack::handler()));
        let env = FunctionEnv::new(&mut store, Env::default());
        let imports: Vec<Extern> = loaded.links.iter().map(|link| Extern::Function(link(&mut store, &env))).collect();
        let instance = Instance::new_by_index(&mut store, loaded.module(), &imports);
        let instance = instance.map_err(|error| refused(error, &budget))?;
        let memories = handles.take();
        let flag = Flag::find(&mut store).ok_or_else(|| internal("the compiled module has no stop flag"))?;
        env.as_mut(&mut store).memory = instance.exports.get_memory("memory").ok().cloned();
        let mut guest = Guest { store: &mut store, env: &env, instance: &instance };
        let entry = loaded.abi.bind(&mut guest).map_err(|message| internal(&message))?;
        let first = |name| instance.exports.get_typed_function(&store, name).ok();
        let before = [START, INITIALIZE].into_iter().filter_map(first).collect();
        let after = match make.pages {
            _ if make.reuse == Reuse::Kept => After::Keep,
            Some(pages) if puts_back => match Snapshot::take(&mut store, &memories, pages) {
                Ok(snapshot) => After::PutBack(snapshot, pages.clone()),
                Err(error) => {
                    tracing::warn!(%error, "an instance cannot be kept for the next call");
                    After::Drop
                }
            },
            _ => After::Drop,
        };
        let initial_bytes = budget.used();
        let loaded = loaded.clone();
        Ok(Self {
            loaded,
            after,
            memories,
            flag,
            stack_bytes: make.stack_bytes,
            before,
            started: false,
            entry,
            instance,
            env,
            store,
            budget,
            initial_bytes,
            broken: false,
        })
    }

    /// May it be called again?
    pub(crate) fn reusable(&self) -> bool {
        !self.broken && !matches!(self.after, After::Drop)
    }

    /// Bytes of its memories and tables.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.budget.used()
    }

    /// Calls it with a process of its own, to the end, and makes it ready for the next call.
    /// `before`: what this thread had used of the processor; none: it is not asked, and all of the time counts.
    pub(crate) fn call(
        &mut self,
        process: Process,
        control: &Arc<Control>,
        before: Option<Duration>,
    ) -> Result<Answer, InvokeError> {
        let began = Instant::now();
        self.broken = true;
        let called = catch_unwind(AssertUnwindSafe(|| self.run(process, control)));
        let how = called.unwrap_or_else(|panic| Err(panicked(&*panic)));
        // What it was is settled here: a try whose log is handed out must not begin anew.
        let stopped = control.end();
        // Files, buffers and logs of this call go with its process.
        let left = self
            .env
            .as_mut(&mut self.store)
            .process
            .take()
            .map(|process| process.finish(control.overran()))
            .unwrap_or_default();
        let wall = began.elapsed();
        let usage = Usage {
            wall,
            cpu: before.map_or(wall, |before| thread_time().saturating_sub(before)),
            peak_memory_bytes: self.budget.peak(),
            bytes_in: left.read,
            bytes_out: left.written,
        };
        // Whatever the guest made of being stopped, it was stopped.
        let verdict = match stopped {
            Some(stopped) => Err(InvokeError::new(stopped.reason, stopped.message)),
            None => how.and_then(|how| judge(how, &self.budget)),
        };
        match verdict {
            Ok(exit_code) => {
                self.put_back();
                let ended = Ended { disposition: Disposition::of_exit(exit_code), exit_code, usage };
                Ok(Answer { result: left.stdout.into(), ended, ..Answer::default() })
            }
            Err(error) => Err(InvokeError { usage, ..error }),
        }
    }

    fn run(&mut self, process: Process, control: &Arc<Control>) -> Result<How, InvokeError> {
        self.env.as_mut(&mut self.store).process = Some(process);
        let guarded = Guarded::new(self.stack_bytes, self.flag).map_err(|error| {
            tracing::error!(%error, "no stack for a guest");
            internal("the node has no stack for it")
        })?;
        // Disarmed when this returns, also by a panic: the store outlives it.
        let _armed = control.arm(self.flag);
        let how = self.enter();
        Ok(match how {
            How::Trapped(_) if guarded.exhausted() => How::Trapped("call stack exhausted".to_owned()),
            how => {
                if guarded.exhausted() {
                    self.lower_flag();
                }
                how
            }
        })
    }

    /// Has the guest's code run: what comes first, then what was asked for.
    fn enter(&mut self) -> How {
        let keeps_state = matches!(self.after, After::Keep);
        if !(keeps_state && self.started) {
            self.started = true;
            for function in &self.before {
                if let Err(error) = function.call(&mut self.store) {
                    return How::unwound(&error);
                }
            }
        }
        let mut guest = Guest { store: &mut self.store, env: &self.env, instance: &self.instance };
        self.entry.call(&mut guest)
    }

    /// What was raised for the end of the stack is not for the next call.
    #[expect(unsafe_code, reason = "writes into an instance that does not run")]
    fn lower_flag(&self) {
        // SAFETY: it is that of the instance in `self.store`.
        unsafe { self.flag.lower() }
    }

    #[expect(unsafe_code, reason = "writes into an instance that does not run")]
    fn put_back(&mut self) {
        match &self.after {
            After::PutBack(snapshot, pages) => {
                // SAFETY: the instance is in `self.store`, its memories are these, and its call has returned.
                match unsafe { snapshot.put_back(&mut self.memories, pages) } {
                    Ok(()) => {
                        self.budget.put_back(self.initial_bytes);
                        self.broken = false;
                    }
                    Err(error) => tracing::error!(%error, "an instance cannot be put back; it is given up"),
                }
            }
            After::Keep => {
                self.budget.put_back(self.budget.used());
                self.broken = false;
            }
            After::Drop => {}
        }
    }
}

/// Processor time of this thread.
pub(crate) fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn internal(message: &str) -> InvokeError {
    InvokeError::new(Reason::Internal, message)
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> InvokeError {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    tracing::error!(panic = text, "a host function or the engine panicked");
    internal("the engine failed while the guest ran")
}

fn refused(error: InstantiationError, budget: &Budget) -> InvokeError {
    if budget.refused() {
        let message = format!("its memories and tables are larger than the limit of {} bytes", budget.most());
        return InvokeError::new(Reason::Memory, message);
    }
    match error {
        // A segment that does not fit.
        InstantiationError::Start(error) | InstantiationError::Link(LinkError::Trap(error)) => {
            let message = error.message();
            InvokeError::new(Reason::Trap, message.lines().next().unwrap_or("trap"))
        }
        error => {
            tracing::error!(%error, "a guest could not be instantiated");
            internal("the module could not be instantiated on this node")
        }
    }
}

fn judge(how: How, budget: &Budget) -> Result<i32, InvokeError> {
    let starved = |how: &str| {
        let message = format!("it asked for more memory than its limit of {} bytes, then {how}", budget.most());
        Err(InvokeError::new(Reason::Memory, message))
    };
    match how {
        How::Exited(code) if code != 0 && budget.refused() => starved(&format!("ended with exit code {code}")),
        How::Exited(code) => Ok(code),
        How::Trapped(message) if budget.refused() => starved(&format!("trapped: {message}")),
        How::Trapped(message) => Err(InvokeError::new(Reason::Trap, message)),
        How::Refused(message) => Err(InvokeError::new(Reason::Task, message)),
    }
}
