//! A call as the original's interfaces describe it, and what becomes of it: an invocation here, or an execution at the
//! registry.

use api::{Body, Head, Invocation, NewExecution};
use bytes::Bytes;
use std::{collections::BTreeMap, time::Duration};
use telemetry::trace;
use types::{ErrorKind, ExecutionId, Fault, FieldError, TaskId};

use super::{super::State, Faces};

/// Names that mean the usual entry of a module; every other becomes the first argument, which plain exports take as the
/// name of a function.
const USUAL: [&str; 3] = ["", "_start", "__spear_default_entry__"];
/// An asynchronous call has something that only a synchronous one can.
pub(super) const NOT_DURABLE: &str = "ASYNC_UNSUPPORTED";

/// What is wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) task: TaskId,
    /// Which of a module's functions.
    pub(super) function: String,
    pub(super) args: Vec<String>,
    pub(super) input: Bytes,
    pub(super) content_type: String,
    pub(super) env: BTreeMap<String, String>,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) metadata: BTreeMap<String, String>,
    /// None, or 0: as the task says.
    pub(super) timeout_ms: Option<u64>,
    pub(super) session: String,
    /// Empty: a new one.
    pub(super) execution: String,
    /// On an instance that nobody has called yet.
    pub(super) fresh: bool,
    pub(super) callback_url: Option<String>,
    /// W3C trace context, where no trace of ours is under way.
    pub(super) traceparent: Option<String>,
}

impl Wanted {
    fn timeout(&self) -> Option<Duration> {
        self.timeout_ms.filter(|millis| *millis > 0).map(Duration::from_millis)
    }

    /// A call of this node.
    ///
    /// # Errors
    /// Something that it cannot do; an execution that there is.
    pub(super) fn call(self, faces: &Faces) -> Result<Invocation, Fault> {
        if self.callback_url.is_some() {
            let wrong = "is for asynchronous calls: a synchronous one is told of the end by its answer";
            return Err(Fault::invalid_field("callback_url", wrong));
        }
        let deadline = self.timeout();
        let execution = faces.new_execution(&self.execution)?;
        let named = Some(self.function.clone()).filter(|name| !USUAL.contains(&name.as_str()));
        let mut headers: Vec<(String, String)> =
            self.headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        if !self.content_type.is_empty() {
            headers.push(("content-type".to_owned(), self.content_type));
        }
        let mut metadata = self.metadata;
        if !self.session.is_empty() {
            metadata.entry("session_id".to_owned()).or_insert(self.session);
        }
        Ok(Invocation {
            execution: Some(execution),
            head: Head { method: String::new(), subject: self.function, headers, metadata },
            args: named.into_iter().chain(self.args).collect(),
            env: self.env,
            body: Body::Full(self.input),
            deadline,
            traceparent: trace::current().or(self.traceparent),
            fresh: self.fresh,
            ..Invocation::default()
        })
    }

    /// A run that the registry keeps. It has the arguments, the environment and the settings of its task.
    ///
    /// # Errors
    /// [`NOT_DURABLE`] names what it cannot have.
    pub(super) fn durable(self, key: Option<String>) -> Result<NewExecution, Fault> {
        let given = [
            ("function_name", !USUAL.contains(&self.function.as_str())),
            ("args", !self.args.is_empty()),
            ("environment", !self.env.is_empty()),
            ("headers", !self.headers.is_empty()),
            ("metadata", !self.metadata.is_empty()),
            ("execution_id", !self.execution.is_empty()),
            ("force_new_instance", self.fresh),
        ];
        if let Some((field, _)) = given.into_iter().find(|(_, given)| *given) {
            return Err(not_durable(field));
        }
        Ok(NewExecution {
            task_id: self.task,
            timeout: self.timeout(),
            input: self.input,
            idempotency_key: key,
            callback_url: self.callback_url,
            traceparent: trace::current().or(self.traceparent),
        })
    }
}

/// An asynchronous call cannot have that.
pub(super) fn not_durable(field: &str) -> Fault {
    let detail = "an asynchronous call is run by the registry with what its task says; it takes an input, a time limit, \
        a key and a callback only";
    let mut fault = Fault::new(ErrorKind::Invalid, NOT_DURABLE, format!("{field}: {detail}"));
    fault.errors.push(FieldError { field: field.to_owned(), detail: detail.to_owned() });
    fault
}

impl Faces {
    /// The execution that a call will be: a new one, or the one its caller has named, unless there is one already.
    ///
    /// # Errors
    /// It is not an id; `EXECUTION_EXISTS`.
    pub(super) fn new_execution(&self, named: &str) -> Result<ExecutionId, Fault> {
        if named.is_empty() {
            return Ok(ExecutionId::new());
        }
        let id: ExecutionId = named.parse()?;
        let word = match self.functions.recent().get(id) {
            None => return Ok(id),
            Some(State::Running(_)) => "is under way",
            Some(State::Ended(_)) => "has ended",
        };
        let message = format!("execution {id} {word}: give every call an id of its own, or none");
        Err(Fault::conflict("EXECUTION_EXISTS", message))
    }
}
