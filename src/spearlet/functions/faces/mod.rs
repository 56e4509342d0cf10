//! The faces of the node's functions: HTTP and gRPC, of the original's first and later versions and of our own.
//!
//! ```text
//!   HTTP  POST /functions/{task}/invoke     raw.rs        bytes in, bytes out: the fast way, and the one that streams
//!         POST /functions/execute           http.rs       JSON, the original's
//!         /tasks, /monitoring, /api/v1/…    tasks.rs, watching.rs
//!   gRPC  spearlet.FunctionService          grpc.rs       the original's first versions
//!         Invocation-, Execution-, InstanceService        later.rs
//!                         │
//!                         ▼ Wanted ─► Invocation
//!         whole(): called here and answered at once ── with a key: once, and its answer replayed (idempotency.rs)
//!         durable(): made at the registry, which keeps it, gives it to a node and tells of its end
//! ```
//! None of them knows anything about instances or queues; what a caller is told when a call fails is in refusal.rs.

mod grpc;
mod http;
mod idempotency;
mod later;
mod messages;
mod raw;
mod refusal;
mod seen;
mod tasks;
mod view;
mod wanted;
mod watching;

#[cfg(test)]
mod tests;

pub(crate) use self::grpc::Grpc;
pub(crate) use self::later::Later;

use api::{Created, Invocation, InvokeError, NewExecution, Outcome};
use std::{path::PathBuf, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use types::{Clock, ErrorKind, ExecutionId, Fault, NodeResource, Reason, TaskId};
use utoipa::OpenApi;

use super::{Functions, State};
use crate::{
    agent::{
        Agent,
        connect::{ANSWER, LONG_ANSWER, within},
        load::Load,
    },
    executor::Executor,
};
use idempotency::{Answered, Fingerprint, Recall, Repeats, Reply};
use refusal::Refusal;
use seen::Seen;

/// Longest input that is held in memory as a whole, bytes: what the registry takes, too.
pub(crate) const MOST_INPUT: usize = 8 << 20;
/// Bytes of all such inputs together, beside those of [`SMALL`].
const MOST_INPUTS: usize = 256 << 20;
/// An input that is read at once, and not counted.
const SMALL: usize = 64 << 10;

/// What the faces are made of.
pub(crate) struct Deps {
    pub(crate) functions: Arc<Functions>,
    pub(crate) executor: Arc<Executor>,
    pub(crate) agent: Arc<Agent>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) data_dir: PathBuf,
}

/// What all faces share.
pub(crate) struct Faces {
    functions: Arc<Functions>,
    executor: Arc<Executor>,
    agent: Arc<Agent>,
    clock: Arc<dyn Clock>,
    repeats: Arc<Repeats>,
    /// Units of [`SMALL`] bytes for inputs that are held whole.
    inputs: Arc<Semaphore>,
    load: Load,
}

impl Faces {
    pub(crate) fn new(deps: Deps) -> Arc<Self> {
        Arc::new(Self {
            repeats: Arc::new(Repeats::new(deps.clock.clone())),
            functions: deps.functions,
            executor: deps.executor,
            agent: deps.agent,
            clock: deps.clock,
            inputs: Arc::new(Semaphore::new(MOST_INPUTS / SMALL)),
            load: Load::new(deps.data_dir),
        })
    }

    /// The HTTP routes.
    pub(crate) fn http(self: &Arc<Self>) -> axum::Router {
        axum::Router::new()
            .merge(raw::router())
            .merge(http::router())
            .merge(tasks::router())
            .merge(watching::router())
            .with_state(self.clone())
    }

    /// Their part of the OpenAPI document.
    pub(crate) fn document() -> utoipa::openapi::OpenApi {
        let mut document = raw::Document::openapi();
        for more in [http::Document::openapi(), tasks::Document::openapi(), watching::Document::openapi()] {
            document.merge(more);
        }
        document
    }

    /// Calls a function and waits for all of its answer. Whoever drops this cancels the call.
    async fn whole(&self, task: TaskId, call: Invocation) -> Answered {
        let execution = call.execution.unwrap_or_default();
        let call = Invocation { execution: Some(execution), ..call };
        let result = match self.functions.invoke(task, call).await {
            // It is in memory already, within the limit of the function.
            Ok(outcome) => outcome.whole(usize::MAX).await.map(|(head, body, ended)| Reply { head, body, ended }),
            Err(error) => Err(error),
        };
        Answered { execution, result, replayed: false }
    }

    /// The same for a call with a key and a whole input: it is made once, and goes on when its caller goes away.
    ///
    /// # Errors
    /// The key belongs to another call.
    async fn once(self: &Arc<Self>, task: TaskId, key: &str, call: Invocation) -> Result<Answered, Fault> {
        let input = match &call.body {
            api::Body::Full(input) => input.clone(),
            api::Body::Stream(_) => return Err(Fault::internal("a streamed input cannot be compared")),
        };
        let flight = match self.repeats.recall(task, key, Fingerprint::of(&call, &input))? {
            Recall::Ended(answered) => return Ok(*answered),
            Recall::UnderWay(answer) => {
                return answer.wait().await.map(|answered| Answered { replayed: true, ..answered });
            }
            Recall::New(flight) => flight,
        };
        let (faces, answer) = (self.clone(), flight.answer());
        self.functions.scope.spawn_once("keyed-call", async move {
            flight.land(faces.whole(task, call).await);
            Ok(())
        });
        answer.wait().await
    }

    /// Calls a function and answers with its first bytes. Cancel its token to end it.
    async fn streamed(&self, task: TaskId, call: Invocation) -> Result<Outcome, InvokeError> {
        self.functions.invoke(task, Invocation { streaming: true, ..call }).await
    }

    /// Has the registry run a task.
    ///
    /// # Errors
    /// `NO_REGISTRY`, `TASK_NOT_FOUND`, and whatever else the registry says.
    async fn durable(&self, new: NewExecution) -> Result<Created, Fault> {
        let control = self.functions.control.as_ref().ok_or_else(no_registry)?;
        within(LONG_ANSWER, "execution", control.create_execution(new)).await
    }

    /// What a caller is told of an error; the registry is asked whether there is such a task, where that is not clear.
    async fn refusal(&self, task: TaskId, execution: ExecutionId, error: &InvokeError) -> Refusal {
        let began = self.functions.recent().get(execution).is_some();
        let refusal = Refusal::new(error, began.then_some(execution));
        if error.reason != Reason::Task || began {
            return refusal;
        }
        let Some(control) = &self.functions.control else {
            return refusal.because(ErrorKind::Unavailable, "NO_REGISTRY");
        };
        match within(ANSWER, "task", control.get_task(task)).await {
            Ok(_) => refusal.because(ErrorKind::Conflict, "TASK_NOT_CALLABLE"),
            Err(fault) if fault.kind == ErrorKind::NotFound => refusal.because(ErrorKind::NotFound, "TASK_NOT_FOUND"),
            Err(_) => refusal.because(ErrorKind::Unavailable, "REGISTRY_UNAVAILABLE"),
        }
    }

    /// How an execution stands, on this node or at the registry.
    ///
    /// # Errors
    /// `EXECUTION_NOT_FOUND`, or the registry cannot be asked.
    async fn look(&self, execution: ExecutionId) -> Result<Seen, Fault> {
        if let Some(state) = self.functions.recent().get(execution) {
            return Ok(self.seen(execution, &state));
        }
        let Some(control) = &self.functions.control else { return Err(unknown(execution)) };
        let (record, result) = within(LONG_ANSWER, "execution", control.get_execution(execution)).await?;
        Ok(Seen::of_record(record, result))
    }

    fn seen(&self, execution: ExecutionId, state: &State) -> Seen {
        match state {
            State::Ended(past) => Seen::of_past(past),
            State::Running(running) => {
                let all = self.functions.instances();
                let instance = all.iter().find(|(_, view)| view.execution == Some(execution)).map(|(_, view)| view.id);
                Seen::of_running(execution, running, instance)
            }
        }
    }

    /// Asks an execution to end, waits a little for that, and tells how it stands then; false: it had ended before.
    ///
    /// # Errors
    /// As [`Faces::look`].
    async fn cancel(&self, execution: ExecutionId, reason: &str) -> Result<(bool, Seen), Fault> {
        const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);
        let recent = &self.functions.recent();
        match recent.cancel(execution) {
            Some(asked) => {
                let state = recent.ended(execution, PATIENCE).await.ok_or_else(|| unknown(execution))?;
                Ok((asked, self.seen(execution, &state)))
            }
            None => {
                let control = self.functions.control.as_ref().ok_or_else(|| unknown(execution))?;
                match within(LONG_ANSWER, "execution", control.cancel_execution(execution, reason)).await {
                    Ok(record) => Ok((true, Seen::of_record(record, bytes::Bytes::new()))),
                    Err(fault) if fault.kind == ErrorKind::Conflict => Ok((false, self.look(execution).await?)),
                    Err(fault) => Err(fault),
                }
            }
        }
    }

    /// Room for an input of so many bytes; small ones need none.
    ///
    /// # Errors
    /// `INPUTS_BUSY`.
    fn room(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, Fault> {
        if bytes <= SMALL {
            return Ok(None);
        }
        let units = u32::try_from(bytes.div_ceil(SMALL)).unwrap_or(u32::MAX);
        let busy =
            |_| Fault::new(ErrorKind::Exhausted, "INPUTS_BUSY", "too many large inputs are under way; try again");
        self.inputs.clone().try_acquire_many_owned(units).map(Some).map_err(busy)
    }

    /// How busy the machine is.
    async fn machine(&self) -> NodeResource {
        let read = self.load.read(self.clock.monotonic(), self.clock.wall()).await;
        read.unwrap_or_default()
    }
}

fn no_registry() -> Fault {
    let message = "this agent has no registry, which keeps asynchronous calls: start it with --sms-addr HOST:PORT, or \
        call synchronously";
    Fault::new(ErrorKind::Unavailable, "NO_REGISTRY", message)
}

fn unknown(execution: ExecutionId) -> Fault {
    let message = format!(
        "there is no execution {execution}: neither on this node, which remembers the last ones, nor \
        at its registry"
    );
    Fault::not_found("EXECUTION_NOT_FOUND", message)
}
