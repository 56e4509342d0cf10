//! One call of a function: the way of every trigger and every interface of the node.
//!
//! ```text
//!   invoke ─► place on the node ─► function ─► place and instance in its pool ─► guest ─► answer
//!               │ none: busy                     │ queue full or slow: busy          │
//!               └──────── 429, Retry-After ──────┘                                   └► remembered, counted
//! ```
//! A streamed answer goes on in a task of its own: the caller has the outcome when the guest has written its first
//! bytes or ended.

use api::{Body, End, Ended, Invocation, InvokeError, Invoker, Outcome, ReplyHead};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use runtime::{Answer, Lease, LogBuffer, Piece, ReplyReader, Streams, reply};
use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};
use telemetry::trace;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::Instrument;
use types::{ExecutionId, ExecutionStatus, Reason, TaskId, Timestamp};

use super::{
    CallEnd, CallSignal, Function, Functions,
    recent::{MOST_ANSWER, Past, Running},
};

/// What a runtime may take beyond the deadline before it is given up.
const OVERSHOOT: Duration = Duration::from_secs(30);
/// Log bytes of a call that are remembered, per stream.
const MOST_LOG: usize = 64 << 10;

/// A call that has its place.
struct Begun {
    functions: Arc<Functions>,
    function: Arc<Function>,
    execution: ExecutionId,
    begun: Timestamp,
    at: Instant,
    logs: LogBuffer,
    lease: Lease,
    /// Is it known how it ended?
    noted: bool,
    _place: OwnedSemaphorePermit,
}

/// The node's functions as others call them. Cheap to clone.
#[derive(Clone)]
pub struct LocalInvoker(pub(crate) Arc<Functions>);

#[async_trait]
impl Invoker for LocalInvoker {
    async fn invoke(&self, function: TaskId, call: Invocation) -> Result<Outcome, InvokeError> {
        self.0.invoke(function, call).await
    }
}

impl Functions {
    /// Calls a function.
    ///
    /// # Errors
    /// See [`Invoker::invoke`].
    pub(crate) async fn invoke(self: &Arc<Self>, task: TaskId, mut call: Invocation) -> Result<Outcome, InvokeError> {
        let at = Instant::now();
        if self.stopping.is_cancelled() {
            return Err(busy("the node is stopping"));
        }
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| {
            let most = self.config.get().invocations;
            self.refused(busy(format!("{most} calls are under way on this node: it takes no more")))
        })?;
        let function = self.get(task).await?;
        call.deadline = Some(call.deadline.unwrap_or(function.manifest.timeout));
        let waited = Instant::now();
        let lease = match call.fresh {
            true => function.pool.checkout_fresh(&call.cancel).await,
            false => function.pool.checkout(&call.cancel).await,
        };
        let lease = lease.map_err(|error| {
            if error.reason == Reason::Queue {
                function.tally.refused();
            }
            self.refused(error)
        })?;
        self.figures.see(|figures| figures.waited(waited.elapsed(), lease.cold()));
        let execution = call.execution.unwrap_or_default();
        let (sink, logs) = LogBuffer::new(self.clock.clone(), MOST_LOG, 1);
        let begun = self.clock.wall();
        let name = function.name.clone();
        let running = Running { task, name: name.clone(), begun, cancel: call.cancel.clone() };
        if !self.recent.begin(execution, running) {
            return Err(InvokeError::new(Reason::Task, format!("an execution {execution} is under way already")));
        }
        self.bus.emit(CallSignal { execution, task, name, at: begun, ended: None });
        let functions = self.clone();
        let begun = Begun { functions, function, execution, begun, at, logs, lease, noted: false, _place: place };
        // For traces; see the front of a listener.
        let span = tracing::debug_span!("invoke", %execution, task = %task);
        trace::adopt(&span, call.traceparent.as_deref());
        if let Some(context) = trace::of(&span).or_else(|| call.traceparent.clone()) {
            call.env.insert("TRACEPARENT".to_owned(), context);
        }
        let streams = Streams { logs: sink, logs_stdout: false, reply: None };
        if call.streaming {
            begun.streamed(call, streams, span).await
        } else {
            begun.whole(call, streams).instrument(span).await
        }
    }

    /// Counts a call that found no place.
    fn refused(&self, error: InvokeError) -> InvokeError {
        if error.reason == Reason::Queue {
            self.tally.refused();
            self.figures.see(|figures| figures.refused.inc());
        }
        error
    }
}

fn busy(message: impl Into<String>) -> InvokeError {
    InvokeError { retry_after: Some(Duration::from_secs(1)), ..InvokeError::new(Reason::Queue, message) }
}

impl Begun {
    async fn whole(mut self, call: Invocation, streams: Streams) -> Result<Outcome, InvokeError> {
        let execution = self.execution;
        let answered = self.run(call, streams).await;
        self.note(&answered);
        let Answer { head, result, ended } = answered?;
        Ok(Outcome { execution, head, body: Body::Full(result), end: End::Now(ended) })
    }

    async fn streamed(
        mut self,
        call: Invocation,
        streams: Streams,
        span: tracing::Span,
    ) -> Result<Outcome, InvokeError> {
        let execution = self.execution;
        let (writer, mut reader) = reply();
        let streams = Streams { reply: Some(writer), ..streams };
        let (done, ended) = oneshot::channel();
        let scope = self.functions.scope.clone();
        let running = async move {
            let answered = self.run(call, streams).await;
            self.note(&answered);
            let ended = answered.map(|answer| answer.ended);
            // Whoever asked may have gone: that it ended is known all the same.
            let _gone = done.send(ended);
            Ok(())
        };
        scope.spawn_once("call", running.instrument(span));
        let end = async move { ended.await.unwrap_or_else(|_| Err(lost())) };
        match reader.next().await {
            // Over before anything was written: the caller learns at once how it ended.
            None => {
                let ended = end.await?;
                Ok(Outcome { execution, head: ReplyHead::default(), body: Body::EMPTY, end: End::Now(ended) })
            }
            Some(Piece::Head(head)) => {
                Ok(Outcome { execution, head, body: body(None, reader), end: End::Later(end.boxed()) })
            }
            Some(Piece::Bytes(first)) => {
                let head = ReplyHead::default();
                Ok(Outcome { execution, head, body: body(Some(first), reader), end: End::Later(end.boxed()) })
            }
        }
    }

    async fn run(&mut self, call: Invocation, streams: Streams) -> Result<Answer, InvokeError> {
        let deadline =
            call.deadline.unwrap_or(self.function.manifest.timeout).min(self.function.manifest.spec.limits.wall);
        let invoking = AssertUnwindSafe(self.lease.invoke(self.execution, call, streams)).catch_unwind();
        match tokio::time::timeout(deadline.saturating_add(OVERSHOOT), invoking).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_)) => {
                tracing::error!(execution = %self.execution, "a call panicked");
                Err(lost())
            }
            Err(_) => {
                let message = format!("the runtime did not end it at its deadline of {deadline:?}; given up");
                Err(InvokeError::new(Reason::Internal, message))
            }
        }
    }

    /// Remembers and counts how it ended.
    fn note(&mut self, answered: &Result<Answer, InvokeError>) {
        self.noted = true;
        let (ended, failure) = match answered {
            Ok(answer) => (answer.ended, None),
            Err(error) => {
                let ended = Ended { disposition: error.disposition(), exit_code: 0, usage: error.usage };
                (ended, Some(error))
            }
        };
        let status = match failure {
            Some(error) => error.status(),
            None if ended.exit_code == 0 => ExecutionStatus::Completed,
            None => ExecutionStatus::Failed,
        };
        let reason = match failure {
            Some(error) => Some(error.reason),
            None => (ended.exit_code != 0).then_some(Reason::Exit),
        };
        let exited = || match ended.exit_code {
            0 => String::new(),
            code => format!("the guest ended with exit code {code}"),
        };
        let answer = answered.as_ref().ok().map(|answer| answer.result.clone());
        self.functions.ended(&self.function, self.at.elapsed(), status != ExecutionStatus::Completed);
        self.functions.figures.see(|figures| figures.ended(status, reason, self.at.elapsed()));
        let (name, at) = (self.function.name.clone(), self.functions.clock.wall());
        self.functions.bus.emit(CallSignal {
            execution: self.execution,
            task: self.function.task.id,
            name: name.clone(),
            at,
            ended: Some(CallEnd { status, reason, usage: ended.usage }),
        });
        self.functions.recent.end(Past {
            execution: self.execution,
            task: self.function.task.id,
            name,
            begun: self.begun,
            ended: at,
            status,
            reason,
            message: failure.map_or_else(exited, |error| error.message.clone()),
            exit_code: failure.is_none().then_some(ended.exit_code),
            disposition: ended.disposition,
            usage: ended.usage,
            answer: answer.filter(|answer: &Bytes| answer.len() <= MOST_ANSWER),
            logs: self.logs.drain(),
        });
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // A caller that goes away drops what it waits for, and its call ends with that.
        if !self.noted {
            let gone = InvokeError::new(Reason::Cancelled, "nobody waits for the answer any more");
            self.note(&Err(gone));
        }
    }
}

fn lost() -> InvokeError {
    InvokeError::new(Reason::Internal, "the node failed while it ran this; its log has the cause")
}

fn body(first: Option<Bytes>, reader: ReplyReader) -> Body {
    let rest = stream::unfold(reader, async |mut reader| {
        loop {
            match reader.next().await? {
                Piece::Bytes(bytes) => return Some((Ok(bytes), reader)),
                // A head comes first or not at all.
                Piece::Head(_) => {}
            }
        }
    });
    Body::stream(futures_util::StreamExt::chain(stream::iter(first.map(Ok)), rest))
}
