//! The traits every engine implements.

use async_trait::async_trait;
use std::{any::Any, collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};
use types::{ExecutionStatus, Reason};

use api::{Invocation, Outcome, Usage};

use crate::{Limits, LogSink};

/// An executable on this node's disk, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// sha256 of its bytes, hexadecimal: its identity.
    pub digest: String,
    /// Where the bytes lie.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
}

/// Is a runtime usable here, and what can it do?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Usable?
    pub available: bool,
    /// Version of the engine.
    pub version: String,
    /// Why not usable, or anything worth showing.
    pub details: BTreeMap<String, String>,
}

/// An artifact made ready for starting: compiled, pulled, checked. Cheap to clone.
#[derive(Clone)]
pub struct Prepared {
    /// Of what.
    pub artifact: Artifact,
    /// The engine's own form of it.
    pub inner: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("artifact", &self.artifact).finish_non_exhaustive()
    }
}

/// What an instance is made with.
#[derive(Clone, Debug)]
pub struct InstanceSpec {
    /// `argv[0]`, and the name in messages.
    pub name: String,
    /// Its walls.
    pub limits: Limits,
}

/// Why a guest did not end by itself, or could not begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvokeError {
    /// The wall it ran into, or whose fault it is.
    pub reason: Reason,
    /// In a sentence: what happened and, where there is one, the limit.
    pub message: String,
    /// What it had used.
    pub usage: Usage,
}

impl InvokeError {
    /// An error before anything was used.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), usage: Usage::default() }
    }

    /// The status of an execution that ended so.
    pub fn status(&self) -> ExecutionStatus {
        match self.reason {
            Reason::Deadline => ExecutionStatus::Timeout,
            Reason::Cancelled => ExecutionStatus::Cancelled,
            _ => ExecutionStatus::Failed,
        }
    }
}

/// An engine.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// `wasm`, `process` or `container`.
    fn kind(&self) -> &'static str;

    /// Is it usable here, and which version?
    async fn fingerprint(&self) -> Fingerprint;

    /// Slow, cached by digest: verify, compile or pull.
    ///
    /// # Errors
    /// [`Reason::InvalidModule`] or [`Reason::Compile`] when the artifact is to blame.
    async fn prepare(&self, artifact: &Artifact, limits: &Limits) -> Result<Prepared, InvokeError>;

    /// Makes an instance; its output goes to `logs`.
    ///
    /// # Errors
    /// When the limits or the artifact do not allow one.
    async fn start(
        &self,
        prepared: &Prepared,
        spec: &InstanceSpec,
        logs: LogSink,
    ) -> Result<Box<dyn Instance>, InvokeError>;
}

/// Something that can be called.
#[async_trait]
pub trait Instance: Send {
    /// Calls it; returns within the deadline plus a small overshoot, whatever the guest does.
    ///
    /// # Errors
    /// How the guest was ended, when it did not end by itself.
    async fn invoke(&mut self, call: Invocation) -> Result<Outcome, InvokeError>;

    /// Ends it; after `grace` by force.
    async fn stop(self: Box<Self>, grace: Duration);
}

/// The runtimes of a node, by kind.
#[derive(Clone, Default)]
pub struct Runtimes {
    by_kind: BTreeMap<&'static str, Arc<dyn Runtime>>,
}

impl fmt::Debug for Runtimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_kind.keys()).finish()
    }
}

impl Runtimes {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more.
    #[must_use]
    pub fn with(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.by_kind.insert(runtime.kind(), runtime);
        self
    }

    /// The runtime of a kind.
    pub fn get(&self, kind: &str) -> Option<Arc<dyn Runtime>> {
        self.by_kind.get(kind).cloned()
    }

    /// Their kinds.
    pub fn kinds(&self) -> Vec<&'static str> {
        self.by_kind.keys().copied().collect()
    }
}
