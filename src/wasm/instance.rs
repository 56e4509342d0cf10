//! The async face of a guest: decides where a call runs, feeds its input, watches for the caller to go away.
//!
//! ```text
//!   invoke ─► short function, whole input, nothing it could leave behind? ─► tried here, at most TRY
//!                     │ no                                                       │ took longer: stopped, begins anew
//!                     ▼                                                          ▼
//!                 place ─► thread: grants opened ─► instance (kept or made) ─► called ─► kept for the next call
//! ```
//! A try that is stopped leaves no trace: its output and log are held back until it has ended well, and only functions
//! without grants are tried.

use async_trait::async_trait;
use futures_util::StreamExt;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::sync::CancellationToken;

use api::{Body, Invocation};
use runtime::{Answer, Instance, InstanceSpec, InvokeError, Reuse, Streams};
use types::Reason;

use crate::{
    Shared,
    control::Control,
    engine::Loaded,
    grants,
    host::process::{Arguments, Process, Start},
    live::{Live, Make, thread_time},
    modules::Module,
    threads,
    watchdog::{Cpu, Until},
};

/// How long a stopped guest may take to end before its thread is given up. One long copy inside a host call
/// or a `memory.fill` takes a fraction of it.
const PATIENCE: Duration = Duration::from_secs(15);

/// Nothing runs longer; also keeps sums of moments and durations in range.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long a call may hold up the thread it came on.
const TRY: Duration = Duration::from_millis(2);

/// Most descriptors of a guest.
pub(crate) const DESCRIPTORS: usize = 256;

/// Bounds of a guest's stack: wasmer's own code needs some, and address space is not endless.
const STACK_BYTES: std::ops::RangeInclusive<usize> = (64 << 10)..=(64 << 20);

/// An instance.
pub(crate) struct WasmInstance {
    shared: Arc<Shared>,
    module: Arc<Module>,
    spec: Arc<InstanceSpec>,
    arguments: Arc<Arguments>,
    live: Option<Box<Live>>,
    /// Bytes of the one that a call makes, for who looks meanwhile.
    made_bytes: Arc<AtomicU64>,
    reusable: bool,
}

impl WasmInstance {
    /// Of a module. Nothing is made before the first call.
    ///
    /// # Errors
    /// Its arguments or environment cannot be passed.
    pub(crate) fn new(shared: Arc<Shared>, module: Arc<Module>, spec: Arc<InstanceSpec>) -> Result<Self, InvokeError> {
        let arguments = Arc::new(arguments(&spec, None)?);
        Ok(Self { shared, module, spec, arguments, live: None, made_bytes: Arc::default(), reusable: true })
    }
}

/// Those of the function, with those of a call behind and above them.
fn arguments(spec: &InstanceSpec, call: Option<&Invocation>) -> Result<Arguments, InvokeError> {
    let more = call.map(|call| call.args.as_slice()).unwrap_or_default();
    let args = [&spec.name].into_iter().chain(&spec.args).chain(more).map(String::as_str);
    let over = |name: &str| call.is_some_and(|call| call.env.contains_key(name));
    let kept = spec.env.iter().filter(|(name, _)| !over(name));
    let env = kept.chain(call.into_iter().flat_map(|call| &call.env));
    Arguments::new(args, env.map(|(name, value)| (name.as_str(), value.as_str())))
}

/// Stops the guest when the future that waits for it is dropped.
struct StopOnDrop(Arc<Control>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop(Reason::Cancelled, "nobody waits for the answer any more");
    }
}

/// Makes an instance on this thread.
fn make(shared: &Shared, loaded: &Arc<Loaded>, spec: &InstanceSpec) -> Result<Box<Live>, InvokeError> {
    let make = Make {
        loaded,
        memory_bytes: spec.limits.memory_bytes,
        stack_bytes: spec.limits.stack_bytes.clamp(*STACK_BYTES.start(), *STACK_BYTES.end()),
        memory: shared.figures.memory.clone(),
        pages: shared.pages.as_ref(),
        mappings: &shared.mappings,
        reuse: spec.reuse,
    };
    Live::make(&make).map(Box::new)
}

/// Everything that a call takes to its thread.
struct Work {
    shared: Arc<Shared>,
    module: Arc<Module>,
    spec: Arc<InstanceSpec>,
    start: Start,
    control: Arc<Control>,
    live: Option<Box<Live>>,
    made_bytes: Option<Arc<AtomicU64>>,
    until: Until,
}

impl Work {
    /// Runs the call on this thread. What is handed back may be one that is not called again.
    fn run(self) -> Ran {
        let Self { shared, module, spec, mut start, control, live, made_bytes, mut until } = self;
        let scratch = match grants::open(&spec.grants, &shared.scratch) {
            Ok((grants, scratch)) => {
                start.grants = grants;
                scratch
            }
            Err(error) => return (live, Err(error)),
        };
        // What is only tried is short: asking for its processor time would be a good part of it.
        let before = until.cpu.is_some().then(thread_time);
        if let (Some(cpu), Some(before)) = (&mut until.cpu, before) {
            (cpu.thread, cpu.before) = (threads::number(), before);
        }
        let _watch = shared.watchdog.watch(until, control.clone());
        let loaded = module.loaded();
        let mut making = Duration::ZERO;
        // Code may have been replaced by better code.
        let mut live = match live.filter(|live| Arc::ptr_eq(&live.loaded, &loaded)) {
            Some(live) => live,
            None => {
                let began = Instant::now();
                let made = make(&shared, &loaded, &spec);
                making = began.elapsed();
                match made {
                    Ok(live) => {
                        if let Some(told) = made_bytes {
                            told.store(live.memory_bytes(), Ordering::Relaxed);
                        }
                        live
                    }
                    Err(error) => return (None, Err(error)),
                }
            }
        };
        let answer = Process::new(start, control.clone()).and_then(|process| live.call(process, &control, before));
        drop(scratch);
        match &answer {
            _ if control.overran() => loaded.pace.overran(),
            Ok(answer) => loaded.pace.took(making + answer.ended.usage.wall),
            Err(error) => loaded.pace.took(making + error.usage.wall),
        }
        (Some(live), answer)
    }
}

#[async_trait]
impl Instance for WasmInstance {
    async fn invoke(&mut self, mut call: Invocation, streams: Streams) -> Result<Answer, InvokeError> {
        self.reusable = false;
        let spec = self.spec.clone();
        let limits = &spec.limits;
        let limit = call.deadline.unwrap_or(limits.wall).min(limits.wall).min(LONGEST);
        let began = Instant::now();
        let deadline = began + limit;
        let arguments = match call.args.is_empty() && call.env.is_empty() {
            true => self.arguments.clone(),
            false => Arc::new(arguments(&self.spec, Some(&call))?),
        };
        let streams = match self.attempt(&mut call, streams, &arguments, (began, limit)) {
            Tried::Ended(answer) => {
                self.reusable = self.live.is_some();
                return answer;
            }
            Tried::No(streams) => streams,
        };
        let place = self.shared.place(&call.cancel, limit, deadline).await?;
        let control = match &streams.reply {
            Some(reply) => Arc::new(Control::replying(reply.clone())),
            None => Arc::default(),
        };
        let cpu = Cpu { thread: 0, before: Duration::ZERO, limit: limits.cpu };
        let until = Until { deadline, limit, cpu: Some(cpu) };
        let work = self.work(self.start(arguments, streams, false), &control, until);
        let _stop = StopOnDrop(control.clone());
        let (done, ended) = oneshot::channel();
        let run = move || {
            let (live, answer) = work.run();
            // One that is not called again goes after the answer.
            let (kept, gone) = match live {
                Some(live) if live.reusable() => (Some(live), None),
                gone => (None, gone),
            };
            if done.send((kept, answer)).is_err() {
                tracing::debug!("a guest ended after its caller had gone");
            }
            drop(gone);
        };
        self.shared.threads.run(place, Box::new(run)).map_err(|error| no_thread(&error))?;
        let (live, answer) = attend(&control, call.body, call.cancel, deadline, ended).await?;
        self.reusable = live.is_some();
        self.live = live;
        answer
    }

    async fn warm(&mut self) -> Result<(), InvokeError> {
        if self.live.is_some() {
            return Ok(());
        }
        let place = self.shared.place(&CancellationToken::new(), PATIENCE, Instant::now() + PATIENCE).await?;
        let (shared, module, spec) = (self.shared.clone(), self.module.clone(), self.spec.clone());
        let (done, made) = oneshot::channel();
        let run = move || {
            if done.send(make(&shared, &module.loaded(), &spec)).is_err() {
                tracing::debug!("nobody waits for an instance any more");
            }
        };
        self.shared.threads.run(place, Box::new(run)).map_err(|error| no_thread(&error))?;
        let lost = |_| InvokeError::new(Reason::Internal, "the thread of an instance was lost");
        // One that is not put back after a call is good for its first.
        self.live = Some(made.await.map_err(lost)??);
        Ok(())
    }

    fn reusable(&self) -> bool {
        self.reusable
    }

    fn memory_bytes(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.memory_bytes())
    }

    fn memory_to_come(&self) -> Option<Arc<AtomicU64>> {
        self.live.is_none().then(|| self.made_bytes.clone())
    }

    async fn stop(self: Box<Self>, _grace: Duration) {
        // `&mut self` of a running call excludes this; between calls no code of the guest runs.
    }
}

/// What came of a try.
enum Tried {
    Ended(Result<Answer, InvokeError>),
    /// It was none, or it took too long.
    No(Streams),
}

impl WasmInstance {
    fn start(&self, arguments: Arc<Arguments>, streams: Streams, holds_logs: bool) -> Start {
        let limits = &self.spec.limits;
        Start {
            arguments,
            stdout_bytes: limits.stdout_bytes,
            stderr_bytes: limits.stderr_bytes,
            streams,
            holds_logs,
            clock: self.shared.clock.clone(),
            grants: Vec::new(),
            descriptors: DESCRIPTORS,
        }
    }

    fn work(&mut self, start: Start, control: &Arc<Control>, until: Until) -> Work {
        Work {
            shared: self.shared.clone(),
            module: self.module.clone(),
            spec: self.spec.clone(),
            start,
            control: control.clone(),
            made_bytes: self.memory_to_come(),
            live: self.live.take(),
            until,
        }
    }

    /// Runs a call of a short function right here, if that can harm nobody.
    fn attempt(
        &mut self,
        call: &mut Invocation,
        streams: Streams,
        arguments: &Arc<Arguments>,
        (began, limit): (Instant, Duration),
    ) -> Tried {
        let Body::Full(input) = &call.body else { return Tried::No(streams) };
        let spec = &self.spec;
        let alone = streams.reply.is_none() && spec.grants.is_empty() && spec.reuse != Reuse::Kept && !spec.isolated;
        if !alone || !self.module.quick() || call.cancel.is_cancelled() || limit < TRY {
            return Tried::No(streams);
        }
        // Every one that runs counts, wherever it runs.
        let Ok(_place) = self.shared.places.clone().try_acquire_owned() else { return Tried::No(streams) };
        let control: Arc<Control> = Arc::default();
        control.input.fill(input.clone());
        let again = Streams { logs: streams.logs.clone(), logs_stdout: streams.logs_stdout, reply: None };
        let until = Until { deadline: began + TRY, limit: TRY, cpu: None };
        let work = self.work(self.start(arguments.clone(), streams, true), &control, until);
        let (live, answer) = work.run();
        self.live = live.filter(|live| live.reusable());
        if control.overran() { Tried::No(again) } else { Tried::Ended(answer) }
    }
}

impl Shared {
    /// A place among the guests that may run at once; the wait counts as time of the call.
    async fn place(
        &self,
        cancel: &CancellationToken,
        limit: Duration,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, InvokeError> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Ok(place);
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(InvokeError::new(Reason::Cancelled, "cancelled")),
            place = self.places.clone().acquire_owned() => {
                place.map_err(|_| InvokeError::new(Reason::Internal, "the wasm runtime is closed"))
            }
            () = tokio::time::sleep_until(deadline.into()) => {
                let most = self.concurrency;
                Err(InvokeError::new(Reason::Queue, format!("all {most} places for guests were taken for {limit:?}")))
            }
        }
    }
}

fn no_thread(error: &std::io::Error) -> InvokeError {
    tracing::error!(%error, "no thread for a guest");
    InvokeError::new(Reason::Queue, "the node has no thread for it")
}

type Ran = (Option<Box<Live>>, Result<Answer, InvokeError>);

/// Feeds the guest and waits for its end.
async fn attend(
    control: &Control,
    body: Body,
    cancel: CancellationToken,
    deadline: Instant,
    mut ended: oneshot::Receiver<Ran>,
) -> Result<Ran, InvokeError> {
    let feed = feed(control, body);
    tokio::pin!(feed);
    let (mut feeding, mut cancelled) = (true, false);
    let mut give_up = deadline + PATIENCE;
    loop {
        tokio::select! {
            biased;
            end = &mut ended => {
                return end.map_err(|_| InvokeError::new(Reason::Internal, "the guest's thread was lost"));
            }
            () = cancel.cancelled(), if !cancelled => {
                cancelled = true;
                give_up = give_up.min(Instant::now() + PATIENCE);
                control.stop(Reason::Cancelled, "cancelled");
            }
            () = tokio::time::sleep_until(give_up.into()) => {
                tracing::error!("a stopped guest does not end; its thread is given up");
                control.stop(Reason::Deadline, "still running at its deadline");
                let stopped = control.stopped();
                let (reason, message) = stopped.map_or((Reason::Deadline, String::new()), |why| (why.reason, why.message));
                return Err(InvokeError::new(reason, message));
            }
            () = &mut feed, if feeding => feeding = false,
        }
    }
}

async fn feed(control: &Control, mut body: Body) {
    if let Body::Full(bytes) = body {
        return control.input.fill(bytes);
    }
    while let Some(piece) = body.next().await {
        match piece {
            Ok(piece) => control.input.push(piece).await,
            Err(error) => {
                // Half an input must not look like a whole one.
                control.stop(Reason::Cancelled, format!("the input broke off: {error}"));
                return;
            }
        }
    }
    control.input.end();
}
