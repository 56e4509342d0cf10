//! The faces as their clients meet them: on sockets, with a registry whose answers are scripted and a runtime that can
//! be held.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::indexing_slicing, reason = "tests")]

mod asynchronous;
mod keyed;
mod original;
mod raw;
mod streams;
mod wire;

use api::{Body, Disposition, Ended, Invocation};
use async_trait::async_trait;
use futures_util::StreamExt;
use runtime::{
    Answer, Artifact, Fingerprint, Instance, InstanceSpec, InvokeError, Piece, Preparation, Prepared, Runtime,
    Runtimes, Streams, fake::Fake,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use store::{Memory, Store};
use supervise::{Budget, Phase, Supervisor};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use types::{LogStream, Reason, SystemClock, TaskId};

use crate::{Addresses, Config, Deps, Spearlet, agent::scripted::Scripted};

/// Programs of the stage.
const OURS: [&str; 7] = ["hold", "say ", "env ", "head ", "exit ", "stop", "refuse"];
const PATIENCE: Duration = Duration::from_secs(20);

/// A runtime. Of its own are: `hold`, which runs until it is released or cancelled; `say TEXT`; `env NAME` and `head NAME`,
/// which write a variable or a header; `exit CODE`, `stop` (by a trap), `refuse`. Before these may stand `begun`, which
/// writes that word first, and `whine`, which writes to standard error. Everything else is the fake's.
#[derive(Clone)]
struct Stage {
    release: watch::Sender<bool>,
    /// Guests that are held now.
    held: watch::Sender<usize>,
    calls: Arc<AtomicUsize>,
    cancelled: watch::Sender<usize>,
}

impl Stage {
    fn new() -> Self {
        Self {
            release: watch::Sender::new(false),
            held: watch::Sender::new(0),
            calls: Arc::default(),
            cancelled: watch::Sender::new(0),
        }
    }

    /// Lets everything end that is held, now and later.
    fn release(&self) {
        self.release.send_replace(true);
    }

    /// Calls that reached a guest.
    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    async fn holds(&self, count: usize) {
        level(&self.held, count).await;
    }

    /// So many held guests were cancelled, or dropped with their call.
    async fn cancels(&self, count: usize) {
        level(&self.cancelled, count).await;
    }
}

async fn level(of: &watch::Sender<usize>, count: usize) {
    let mut seen = of.subscribe();
    let reached = tokio::time::timeout(PATIENCE, seen.wait_for(|now| *now == count)).await;
    assert!(reached.is_ok(), "did not come to {count}: {}", *of.borrow());
}

/// A guest that is held, for as long as this lives.
struct Held<'a>(&'a Stage, bool);

impl<'a> Held<'a> {
    fn new(stage: &'a Stage) -> Self {
        stage.held.send_modify(|held| *held += 1);
        Self(stage, false)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.send_modify(|held| *held -= 1);
        if !self.1 {
            self.0.cancelled.send_modify(|cancelled| *cancelled += 1);
        }
    }
}

struct Actor {
    stage: Stage,
    program: String,
    inner: Box<dyn Instance>,
}

#[async_trait]
impl Runtime for Stage {
    fn kind(&self) -> &'static str {
        "wasm"
    }

    async fn fingerprint(&self) -> Fingerprint {
        Fake::new("wasm").fingerprint().await
    }

    async fn prepare(&self, artifact: &Artifact, asked: &Preparation) -> Result<Prepared, InvokeError> {
        Fake::new("wasm").prepare(artifact, asked).await
    }

    fn describe(&self, prepared: &Prepared) -> String {
        prepared.inner.downcast_ref::<String>().cloned().unwrap_or_default()
    }

    async fn start(&self, prepared: &Prepared, spec: &Arc<InstanceSpec>) -> Result<Box<dyn Instance>, InvokeError> {
        let inner = Fake::new("wasm").start(prepared, spec).await?;
        Ok(Box::new(Actor { stage: self.clone(), program: self.describe(prepared), inner }))
    }
}

/// What of a call a program of ours looks at.
struct Told {
    cancel: CancellationToken,
    deadline: Duration,
    env: BTreeMap<String, String>,
    headers: Vec<(String, String)>,
    body: Body,
}

async fn hold(stage: &Stage, told: &mut Told) -> Result<i32, InvokeError> {
    let mut held = Held::new(stage);
    // As a real runtime does, whether the guest reads or not.
    let fed = async {
        while let Some(piece) = told.body.next().await {
            if piece.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut released = stage.release.subscribe();
    tokio::select! {
        biased;
        () = told.cancel.cancelled() => Err(InvokeError::new(Reason::Cancelled, "cancelled")),
        () = fed => Err(InvokeError::new(Reason::Cancelled, "the input broke off")),
        _ = released.wait_for(|released| *released) => { held.1 = true; Ok(0) }
        () = tokio::time::sleep(told.deadline) => {
            held.1 = true;
            Err(InvokeError::new(Reason::Deadline, "still running at its deadline"))
        }
    }
}

/// What a program says beside what the fake's can.
async fn act(stage: &Stage, program: &str, told: &mut Told) -> Result<(Vec<u8>, i32), InvokeError> {
    let (word, rest) = program.split_once(' ').unwrap_or((program, ""));
    match word {
        "hold" => hold(stage, told).await.map(|code| (b"held".to_vec(), code)),
        "env" => Ok((told.env.get(rest).cloned().unwrap_or_default().into_bytes(), 0)),
        "head" => {
            let values = told.headers.iter().filter(|(name, _)| name == rest).map(|(_, value)| value.clone());
            Ok((values.collect::<Vec<_>>().join("|").into_bytes(), 0))
        }
        "say" => Ok((rest.into(), 0)),
        "exit" => Ok((Vec::new(), rest.parse().unwrap())),
        "stop" => Err(InvokeError::new(Reason::Trap, "trap: unreachable")),
        "refuse" => Err(InvokeError::new(Reason::Task, "it takes (i32), not 2 parameters")),
        other => panic!("unknown program {other}"),
    }
}

#[async_trait]
impl Instance for Actor {
    async fn invoke(&mut self, call: Invocation, streams: Streams) -> Result<Answer, InvokeError> {
        self.stage.calls.fetch_add(1, Ordering::SeqCst);
        let mut program = self.program.as_str();
        let mut result = Vec::new();
        if let Some(rest) = program.strip_prefix("whine ") {
            streams.logs.write(LogStream::Stderr, b"not again\n");
            program = rest;
        }
        if let Some(rest) = program.strip_prefix("begun ") {
            match &streams.reply {
                Some(reply) => reply.send(Piece::Bytes("begun".into())).await.unwrap(),
                None => result.extend_from_slice(b"begun"),
            }
            program = rest;
        }
        if !OURS.iter().any(|word| program.starts_with(word)) {
            return self.inner.invoke(call, streams).await;
        }
        let mut told = Told {
            cancel: call.cancel,
            deadline: call.deadline.unwrap(),
            env: call.env,
            headers: call.head.headers,
            body: call.body,
        };
        let (written, exit_code) = act(&self.stage, program, &mut told).await?;
        match &streams.reply {
            Some(reply) if !written.is_empty() => reply.send(Piece::Bytes(written.into())).await.unwrap(),
            Some(_) => {}
            None => result.extend_from_slice(&written),
        }
        let ended = Ended { disposition: Disposition::of_exit(exit_code), exit_code, ..Ended::default() };
        Ok(Answer { result: result.into(), ended, ..Answer::default() })
    }

    fn reusable(&self) -> bool {
        true
    }

    fn memory_bytes(&self) -> u64 {
        4096
    }

    async fn stop(self: Box<Self>, grace: Duration) {
        self.inner.stop(grace).await;
    }
}

/// A node with both of its listeners.
struct Node {
    _dir: tempfile::TempDir,
    supervisor: Supervisor,
    spearlet: Spearlet,
    registry: Scripted,
    stage: Stage,
    http: SocketAddr,
    grpc: SocketAddr,
    client: reqwest::Client,
}

async fn bind() -> net::Listener {
    net::Sockets::bind("test", "test", "127.0.0.1:0".parse().unwrap()).await.unwrap()
}

impl Node {
    async fn new() -> Self {
        Self::with(Config::default(), true).await
    }

    async fn with(config: Config, registry: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let supervisor = Supervisor::new(Budget { total: Duration::from_secs(10) });
        let store = Store::start(Arc::new(Memory::new()), &supervisor.scope(Phase::Store, "store"));
        let (http, grpc) = (bind().await, bind().await);
        let addresses = Addresses { http: http.local_addr(), grpc: grpc.local_addr() };
        let clock = Arc::new(SystemClock::new());
        let process = net::Process::new(("spearlet", "test"), &[], &supervisor, &net::Readiness::new(), clock.clone());
        let (scripted, stage) = (Scripted::new(), Stage::new());
        let deps = Deps {
            control: registry.then(|| -> Arc<dyn api::Control> { scripted.line() }),
            runtimes: Runtimes::new().with(Arc::new(stage.clone())),
            bus: bus::Bus::start(&store, &supervisor.scope(Phase::Bus, "bus")),
            store,
            clock,
            data_dir: dir.path().to_owned(),
            addresses,
            process,
            config: config.into(),
        };
        let spearlet = Spearlet::start(deps, &supervisor).await.unwrap();
        let scope = supervisor.scope(Phase::Intake, "test");
        for (listener, router) in [(http, spearlet.http()), (grpc, spearlet.grpc().unwrap())] {
            let (access, options) = (net::Access::loopback([""; 0]), net::ServeOptions::default());
            net::serve(listener, router, access, options, &scope, supervisor.stopping());
        }
        let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        Self {
            _dir: dir,
            supervisor,
            spearlet,
            registry: scripted,
            stage,
            http: addresses.http,
            grpc: addresses.grpc,
            client,
        }
    }

    fn task(&self, program: &str) -> TaskId {
        self.registry.task(program, |_| {})
    }

    /// A task with settings.
    fn task_with(&self, program: &str, settings: &[(&str, &str)]) -> TaskId {
        self.registry.task(program, |task| {
            let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            task.config.extend(settings);
        })
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(self.url(path))
    }

    /// A request to the raw route; `more` is its query.
    fn raw(&self, task: TaskId, more: &str) -> reqwest::RequestBuilder {
        self.post(&format!("/functions/{task}/invoke{more}"))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.client.get(self.url(path))).await
    }

    fn channel(&self) -> net::channel::Channel {
        net::channel::connect(&self.grpc.to_string(), None, net::channel::ConnectOptions::default()).unwrap()
    }

    /// Reads a path until the answer is as wanted.
    async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let reading = async {
            loop {
                let (_, answer) = self.get(path).await;
                if wanted(&answer) {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("{path} did not become as wanted"))
    }

    async fn stop(self) {
        let Self { supervisor, spearlet, stage, .. } = self;
        stage.release();
        drop(spearlet);
        supervisor.run(std::future::ready(())).await.unwrap();
    }
}

/// Status and body of an answer.
async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// A header of an answer.
fn header<'a>(response: &'a reqwest::Response, name: &str) -> &'a str {
    response.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}
