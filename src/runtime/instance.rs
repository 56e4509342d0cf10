//! The traits every engine implements.

use async_trait::async_trait;
use bytes::Bytes;
use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use api::{Ended, Invocation, InvokeError, ReplyHead};

use crate::{Grants, Limits, LogSink, ReplyWriter};

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

/// What is asked of a preparation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preparation {
    /// Most bytes of an artifact.
    pub artifact_bytes: u64,
    /// Which compiler, where the runtime has several; empty or `auto`: its choice.
    pub compiler: String,
}

impl From<&Limits> for Preparation {
    fn from(limits: &Limits) -> Self {
        Self { artifact_bytes: limits.artifact_bytes, compiler: String::new() }
    }
}

/// What an instance is made with: everything that is the same in each of its calls.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct InstanceSpec {
    /// `argv[0]`, and the name in messages.
    pub name: String,
    /// `argv[1..]`; those of a call follow.
    pub args: Vec<String>,
    /// Variables; those of a call replace them.
    pub env: BTreeMap<String, String>,
    /// Its walls.
    pub limits: Limits,
    /// What it may reach.
    pub grants: Grants,
    /// What a call finds that is not the first.
    pub reuse: Reuse,
    /// Are its calls never made on the thread they came on?
    pub isolated: bool,
}

/// What becomes of an instance after a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// The next call finds it as it was made, or finds a new one where that cannot be.
    #[default]
    Clean,
    /// The next call finds what this one left behind.
    Kept,
    /// The next call finds a new one.
    Never,
}

impl fmt::Debug for InstanceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its environment may hold secrets.
        f.debug_struct("InstanceSpec").field("name", &self.name).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Where the output of a call goes.
#[derive(Debug)]
pub struct Streams {
    /// Lines of its log.
    pub logs: LogSink,
    /// Is standard output part of the log, too?
    pub logs_stdout: bool,
    /// Takes the answer as it comes; none: it is gathered.
    pub reply: Option<ReplyWriter>,
}

impl Streams {
    /// Everything into the log, the answer gathered.
    pub fn logged(logs: LogSink) -> Self {
        Self { logs, logs_stdout: true, reply: None }
    }
}

/// What a guest that ended by itself left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// What comes with the result; sent before it when that was streamed.
    pub head: ReplyHead,
    /// Its standard output; empty when that was streamed.
    pub result: Bytes,
    /// How it ended.
    pub ended: Ended,
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
    /// [`types::Reason::InvalidModule`] or [`types::Reason::Compile`] when the artifact is to blame.
    async fn prepare(&self, artifact: &Artifact, asked: &Preparation) -> Result<Prepared, InvokeError>;

    /// What was prepared, in a few words for people: how it is called, how it was compiled.
    fn describe(&self, _prepared: &Prepared) -> String {
        String::new()
    }

    /// Makes an instance. None of its own code has run when this returns.
    ///
    /// # Errors
    /// When the limits or the artifact do not allow one.
    async fn start(&self, prepared: &Prepared, spec: &Arc<InstanceSpec>) -> Result<Box<dyn Instance>, InvokeError>;
}

/// Something that can be called.
#[async_trait]
pub trait Instance: Send {
    /// Calls it; returns within the deadline plus a small overshoot, whatever the guest does.
    ///
    /// # Errors
    /// How the guest was ended, when it did not end by itself.
    async fn invoke(&mut self, call: Invocation, streams: Streams) -> Result<Answer, InvokeError>;

    /// Does beforehand what its first call would have to wait for. None of its own code runs.
    ///
    /// # Errors
    /// When the limits or the node do not allow it.
    async fn warm(&mut self) -> Result<(), InvokeError> {
        Ok(())
    }

    /// May it be called again? Not after a trap, a deadline, or an end by force.
    fn reusable(&self) -> bool;

    /// Bytes that it holds now.
    fn memory_bytes(&self) -> u64;

    /// Where it will tell them, when its first call has made it; none: it holds them already.
    fn memory_to_come(&self) -> Option<Arc<AtomicU64>> {
        None
    }

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
