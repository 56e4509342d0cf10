//! For tests: one process of an agent with a scripted registry, a runtime that can be held, and a store that
//! outlives the process and can die after any commit.

use api::Invocation;
use async_trait::async_trait;
use runtime::{
    Answer, Artifact, Fingerprint, Instance, InstanceSpec, InvokeError, Preparation, Prepared, Runtime, Runtimes,
    Streams, fake::Fake,
};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use store::{Batch, Change, Conflict, Engine, Error, Memory, Page, Record, Rev, Store};
use supervise::{Budget, Phase, Supervisor};
use tokio::sync::watch;
use types::{Clock, ExecutionStatus, Fault, LogId, LogStream, NodeId, Reason, Timestamp};

use super::{Deps, Executor};
use crate::{
    Addresses, Config, agent,
    agent::scripted::{Line, Scripted},
    artifacts,
    functions::{self, Functions},
};

/// The runtime's own time, so that paused time is paused everywhere.
pub(crate) struct TokioClock(tokio::time::Instant);

impl TokioClock {
    pub(crate) fn new() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Clock for TokioClock {
    fn wall(&self) -> Timestamp {
        Timestamp(1_700_000_000_000 + i64::try_from(self.monotonic().as_millis()).unwrap())
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The fake runtime, watched: `hold <anything>` prints its input and runs until released or halted, `panic`
/// panics, `lines <n>` prints, everything else is the fake's.
#[derive(Clone)]
pub(crate) struct Probe {
    pub(crate) started: Arc<Mutex<Vec<String>>>,
    pub(crate) prepared: Arc<AtomicUsize>,
    pub(crate) running: Arc<AtomicI64>,
    pub(crate) most_running: Arc<AtomicI64>,
    release: watch::Sender<bool>,
}

impl Probe {
    pub(crate) fn new() -> Self {
        Self {
            started: Arc::default(),
            prepared: Arc::default(),
            running: Arc::default(),
            most_running: Arc::default(),
            release: watch::Sender::new(false),
        }
    }

    /// Lets everything end that is held, now and later.
    pub(crate) fn release(&self) {
        self.release.send_replace(true);
    }

    pub(crate) fn starts(&self) -> Vec<String> {
        self.started.lock().unwrap().clone()
    }
}

struct Probed {
    probe: Probe,
    program: String,
    name: String,
    inner: Box<dyn Instance>,
}

#[async_trait]
impl Runtime for Probe {
    fn kind(&self) -> &'static str {
        "wasm"
    }

    async fn fingerprint(&self) -> Fingerprint {
        Fake::new("wasm").fingerprint().await
    }

    async fn prepare(&self, artifact: &Artifact, asked: &Preparation) -> Result<Prepared, InvokeError> {
        self.prepared.fetch_add(1, Ordering::SeqCst);
        Fake::new("wasm").prepare(artifact, asked).await
    }

    async fn start(&self, prepared: &Prepared, spec: &Arc<InstanceSpec>) -> Result<Box<dyn Instance>, InvokeError> {
        let inner = Fake::new("wasm").start(prepared, spec).await?;
        let program = prepared.inner.downcast_ref::<String>().cloned().unwrap_or_default();
        Ok(Box::new(Probed { probe: self.clone(), program, name: spec.name.clone(), inner }))
    }
}

#[async_trait]
impl Instance for Probed {
    async fn invoke(&mut self, call: Invocation, streams: Streams) -> Result<Answer, InvokeError> {
        self.probe.started.lock().unwrap().push(self.name.clone());
        let now = self.probe.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.probe.most_running.fetch_max(now, Ordering::SeqCst);
        let done = if self.program.starts_with("hold") {
            streams.logs.write(LogStream::Stdout, b"holding\n");
            let mut released = self.probe.release.subscribe();
            tokio::select! {
                biased;
                () = call.cancel.cancelled() => Err(InvokeError::new(Reason::Cancelled, "cancelled")),
                _ = released.wait_for(|released| *released) => {
                    streams.logs.write(LogStream::Stdout, b"released\n");
                    Ok(Answer { result: "held".into(), ..Answer::default() })
                }
                () = tokio::time::sleep(call.deadline.unwrap()) => {
                    Err(InvokeError::new(Reason::Deadline, "over its deadline"))
                }
            }
        } else if self.program == "panic" {
            panic!("the runtime is broken")
        } else if let Some(count) = self.program.strip_prefix("lines ") {
            for number in 1..=count.parse::<u64>().unwrap() {
                streams.logs.write(LogStream::Stdout, format!("line {number}\n").as_bytes());
            }
            Ok(Answer::default())
        } else {
            self.inner.invoke(call, streams).await
        };
        self.probe.running.fetch_sub(1, Ordering::SeqCst);
        done
    }

    fn reusable(&self) -> bool {
        !self.program.starts_with("hold")
    }

    fn memory_bytes(&self) -> u64 {
        self.inner.memory_bytes()
    }

    async fn stop(self: Box<Self>, grace: Duration) {
        self.inner.stop(grace).await;
    }
}

/// A disk: what is on it survives the process. It can be told to fail after some commits.
#[derive(Clone)]
pub(crate) struct Disk {
    engine: Arc<Memory>,
    left: Arc<AtomicI64>,
    used: Arc<AtomicI64>,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let (left, used) = (Arc::new(AtomicI64::new(i64::MAX)), Arc::default());
        Self { engine: Arc::new(Memory::new()), left, used }
    }

    /// The process dies at commit number `count` from now: it, and all after it, do not happen.
    pub(crate) fn dies_after(&self, count: i64) {
        self.left.store(count, Ordering::SeqCst);
    }

    /// Commits so far.
    pub(crate) fn commits(&self) -> i64 {
        self.used.load(Ordering::SeqCst)
    }

    pub(crate) fn dead(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }

    /// What the next process finds: the records as they are now.
    pub(crate) async fn after_crash(&self) -> Self {
        let copy = Self::new();
        let found = self.engine.list("", None, usize::MAX).await.unwrap().records;
        let batches = found.into_iter().map(|record| Batch::new().put(record.key, record.value)).collect();
        copy.engine.commit_many(batches).await.unwrap();
        copy
    }

    pub(crate) async fn keys(&self, prefix: &str) -> Vec<String> {
        let found = self.engine.list(prefix, None, usize::MAX).await.unwrap().records;
        found.into_iter().map(|record| record.key).collect()
    }

    pub(crate) async fn value(&self, key: &str) -> Option<serde_json::Value> {
        let found = self.engine.get(key).await.unwrap();
        found.map(|record| serde_json::from_slice(&record.value).unwrap())
    }
}

#[async_trait]
impl Engine for Disk {
    async fn get(&self, key: &str) -> Result<Option<Record>, Error> {
        self.engine.get(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.engine.list(prefix, after, limit).await
    }

    async fn snapshot(&self) -> Result<Box<dyn store::Snapshot>, Error> {
        self.engine.snapshot().await
    }

    async fn commit_many(&self, batches: Vec<Batch>) -> Result<Vec<Result<Rev, Conflict>>, Error> {
        let count = i64::try_from(batches.len()).unwrap();
        if self.left.fetch_sub(count, Ordering::SeqCst) < count {
            return Err(Error::Failed { path: PathBuf::from("disk"), detail: "gone".to_owned() });
        }
        self.used.fetch_add(count, Ordering::SeqCst);
        self.engine.commit_many(batches).await
    }

    async fn changes(&self, after: Rev, limit: usize) -> Result<Vec<Change>, Error> {
        self.engine.changes(after, limit).await
    }

    async fn trim(&self, upto: Rev) -> Result<(), Error> {
        self.engine.trim(upto).await
    }

    async fn floor(&self) -> Result<Rev, Error> {
        self.engine.floor().await
    }

    fn head(&self) -> watch::Receiver<Rev> {
        self.engine.head()
    }

    fn log_id(&self) -> LogId {
        self.engine.log_id()
    }

    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// One process of the agent.
pub(crate) struct Process {
    pub(crate) supervisor: Supervisor,
    pub(crate) executor: Arc<Executor>,
    pub(crate) agent: Arc<agent::Agent>,
    line: Arc<Line>,
}

impl Process {
    /// The process ends without a word, as by `kill -9`.
    pub(crate) fn kill(&self) {
        self.line.cut();
    }

    /// The process stops in order.
    pub(crate) async fn stop(self) {
        self.supervisor.run(async {}).await.unwrap();
    }
}

/// A machine that runs the agent again and again.
pub(crate) struct Machine {
    pub(crate) node: NodeId,
    pub(crate) registry: Scripted,
    pub(crate) probe: Probe,
    pub(crate) disk: Disk,
    pub(crate) config: Config,
    pub(crate) budget: Budget,
    dir: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let config = Config {
            concurrency: 2,
            queue: 8,
            heartbeat_interval: Duration::from_millis(100),
            sms_connect_retry: Duration::from_millis(20),
            default_timeout: Duration::from_secs(60),
            ..Config::default()
        };
        Self {
            node: NodeId::new(),
            registry: Scripted::new(),
            probe: Probe::new(),
            disk: Disk::new(),
            config,
            budget: Budget { total: Duration::from_secs(10) },
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn data(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) async fn start(&self) -> Process {
        self.try_start().await.unwrap()
    }

    pub(crate) async fn try_start(&self) -> Result<Process, Fault> {
        let supervisor = Supervisor::new(self.budget);
        let store = Store::start(Arc::new(self.disk.clone()), &supervisor.scope(Phase::Store, "store"));
        let line = self.registry.line();
        let control: Arc<dyn api::Control> = line.clone();
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
        let config = supervise::Live::from(self.config.clone());
        let runtimes = Runtimes::new().with(Arc::new(self.probe.clone()));
        let fetcher =
            artifacts::Fetcher::open(&self.config.artifacts, self.data().join("artifacts"), Some(control.clone()))
                .await?;
        let artifacts = Arc::new(fetcher);
        let functions = Functions::start(
            functions::Deps {
                clock: clock.clone(),
                runtimes: runtimes.clone(),
                artifacts: artifacts.clone(),
                control: Some(control.clone()),
                config: config.clone(),
                stopping: supervisor.stopping(),
                bus: bus::Bus::start(&store, &supervisor.scope(Phase::Bus, "bus")),
            },
            &supervisor.scope(Phase::Work, "functions"),
        );
        let executor = Executor::start(
            Deps {
                node: self.node,
                store: store.clone(),
                clock: clock.clone(),
                artifacts,
                functions,
                control: Some(control.clone()),
                data_dir: self.data().to_owned(),
                config: config.clone(),
                stopping: supervisor.stopping(),
                drain: self.budget.share(Phase::Work).mul_f64(0.5),
            },
            &supervisor.scope(Phase::Work, "executor"),
            &supervisor.scope(Phase::Report, "outbox"),
        )
        .await?;
        let address = "127.0.0.1:50052".parse().unwrap();
        let agent = agent::Agent::start(
            agent::Deps {
                id: self.node,
                control: Some(control),
                store,
                clock,
                runtimes,
                executor: executor.clone(),
                data_dir: self.data().to_owned(),
                addresses: Addresses { grpc: address, http: address },
                config,
                stopping: supervisor.stopping(),
            },
            &supervisor.scope(Phase::Report, "agent"),
        )
        .await?;
        Ok(Process { supervisor, executor, agent, line })
    }

    /// Waits until something that no registry hears of holds; the test fails when it does not within 20 s.
    pub(crate) async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let waiting = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting)
            .await
            .unwrap_or_else(|_| panic!("did not come to: {what}"));
    }

    /// Nothing is left of any execution but done marks.
    pub(crate) async fn cleared(&self) {
        let empty = async || {
            let mut left = 0;
            for prefix in ["inbox/", "outbox/", "result/"] {
                left += self.disk.keys(prefix).await.len();
            }
            left == 0 && std::fs::read_dir(self.data().join("logs")).unwrap().count() == 0
        };
        self.until("inbox, outbox and logs empty", empty).await;
    }

    /// Runs one execution to its end.
    pub(crate) async fn ends(&self, program: &str, input: &str) -> types::Execution {
        let task = self.registry.task(program, |_| {});
        let id = self.registry.place(self.node, task, input);
        self.registry.ended(id).await
    }
}

/// Status and reason of an execution.
pub(crate) fn how(execution: &types::Execution) -> (ExecutionStatus, Option<Reason>) {
    (execution.status, execution.reason)
}
