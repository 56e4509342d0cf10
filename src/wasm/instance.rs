//! The async face of a guest: waits for a thread, feeds standard input, watches for the caller to go away.

use async_trait::async_trait;
use futures_util::StreamExt;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::sync::CancellationToken;

use api::{Invocation, Outcome, invocation::Body};
use runtime::{Instance, InstanceSpec, InvokeError, LogSink};
use types::Reason;

use crate::{
    Shared,
    control::Control,
    engine::Loaded,
    guest::{self, Guest},
    host::{self, process::Start},
};

/// How long a stopped guest may take to end before its thread is given up. One long copy inside a host call
/// or a `memory.fill` takes a fraction of it.
const PATIENCE: Duration = Duration::from_secs(15);

/// Nothing runs longer; also keeps sums of moments and durations in range.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Most descriptors of a guest.
pub(crate) const DESCRIPTORS: usize = 256;

/// Bounds of a guest's stack: wasmer's own code needs some, and address space is not endless.
const STACK_BYTES: std::ops::RangeInclusive<usize> = (64 << 10)..=(64 << 20);

/// An instance: every call gets fresh memory.
pub(crate) struct WasmInstance {
    pub(crate) shared: Arc<Shared>,
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) spec: InstanceSpec,
    pub(crate) logs: LogSink,
}

/// Stops the guest when the future that waits for it is dropped.
struct StopOnDrop(Arc<Control>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop(Reason::Cancelled, "nobody waits for the answer any more");
    }
}

#[async_trait]
impl Instance for WasmInstance {
    async fn invoke(&mut self, call: Invocation) -> Result<Outcome, InvokeError> {
        let limits = &self.spec.limits;
        let limit = call.deadline.min(limits.wall).min(LONGEST);
        let deadline = Instant::now() + limit;
        let place = self.place(&call.cancel, limit, deadline).await?;
        let control = Arc::new(Control::default());
        let mut args = vec![self.spec.name.clone()];
        args.extend(call.args);
        let start = Start {
            args,
            env: call.env.into_iter().collect(),
            stdout_bytes: limits.stdout_bytes,
            stderr_bytes: limits.stderr_bytes,
            logs: self.logs.clone(),
            clock: self.shared.clock.clone(),
            grants: Vec::new(),
            descriptors: DESCRIPTORS,
        };
        let guest = Guest {
            loaded: self.loaded.clone(),
            process: host::Process::new(start, control.clone())?,
            control: control.clone(),
            memory_bytes: limits.memory_bytes,
            memory: self.shared.figures.memory.clone(),
            stack_bytes: limits.stack_bytes.clamp(*STACK_BYTES.start(), *STACK_BYTES.end()),
        };
        let _watch = self.shared.watchdog.watch(deadline, limit, control.clone());
        let _stop = StopOnDrop(control.clone());
        let (done, ended) = oneshot::channel();
        let work = move || {
            if done.send(guest::run(guest)).is_err() {
                tracing::debug!("a guest ended after its caller had gone");
            }
        };
        self.shared.threads.run(place, Box::new(work)).map_err(|error| {
            tracing::error!(%error, "no thread for a guest");
            InvokeError::new(Reason::Queue, "the node has no thread for it")
        })?;
        attend(&control, call.body, call.cancel, deadline, ended).await
    }

    async fn stop(self: Box<Self>, _grace: Duration) {
        // `&mut self` of a running call excludes this; between calls nothing is kept.
    }
}

impl WasmInstance {
    /// A place among the guests that may run at once; the wait counts as time of the call.
    async fn place(
        &self,
        cancel: &CancellationToken,
        limit: Duration,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, InvokeError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(InvokeError::new(Reason::Cancelled, "cancelled")),
            place = self.shared.places.clone().acquire_owned() => {
                place.map_err(|_| InvokeError::new(Reason::Internal, "the wasm runtime is closed"))
            }
            () = tokio::time::sleep_until(deadline.into()) => {
                let most = self.shared.concurrency;
                Err(InvokeError::new(Reason::Queue, format!("all {most} places for guests were taken for {limit:?}")))
            }
        }
    }
}

/// Feeds the guest and waits for its end.
async fn attend(
    control: &Control,
    body: Body,
    cancel: CancellationToken,
    deadline: Instant,
    mut ended: oneshot::Receiver<Result<Outcome, InvokeError>>,
) -> Result<Outcome, InvokeError> {
    let feed = feed(control, body);
    tokio::pin!(feed);
    let (mut feeding, mut cancelled) = (true, false);
    let mut give_up = deadline + PATIENCE;
    loop {
        tokio::select! {
            biased;
            end = &mut ended => {
                return end.unwrap_or_else(|_| Err(InvokeError::new(Reason::Internal, "the guest's thread was lost")));
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
