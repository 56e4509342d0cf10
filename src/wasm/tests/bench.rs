//! A runtime in a directory of its own, and calls of guests in it.

use runtime::{
    Answer, Artifact, Instance, InstanceSpec, InvokeError, Limits, LogBuffer, LogSink, Preparation, Prepared, Runtime,
    Streams,
};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use types::{LogLine, Reason, SystemClock};
use wasm::{Config, Wasm};

use api::{Body, Invocation};

pub struct Bench {
    pub wasm: Wasm,
    pub dir: TempDir,
}

/// A call that a test may change.
pub struct Setup {
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub body: Body,
    pub deadline: Duration,
    pub cancel: CancellationToken,
    pub limits: Limits,
}

/// How a call ended.
pub struct Ran {
    pub outcome: Result<Answer, InvokeError>,
    pub lines: Vec<LogLine>,
}

impl Ran {
    pub fn ok(self) -> Answer {
        self.outcome.unwrap_or_else(|error| panic!("{:?}: {error}", error.reason))
    }

    pub fn text(self) -> String {
        String::from_utf8(self.ok().result.to_vec()).unwrap()
    }

    /// It ended for this reason; the message.
    #[track_caller]
    pub fn failed(self, reason: Reason) -> String {
        match self.outcome {
            Ok(outcome) => panic!("ended well: {outcome:?}"),
            Err(error) => {
                assert_eq!(error.reason, reason, "{error}");
                assert!(!error.message.contains('\n'), "one line: {error}");
                assert!(error.message.len() < 1000, "short: {error}");
                error.message
            }
        }
    }
}

pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_spear-compile"))
}

pub fn wasm(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).unwrap_or_else(|error| panic!("{error}"))
}

impl Bench {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(program(), dir.path().join("cache"));
        change(&mut config);
        Self { wasm: Wasm::new(config).unwrap(), dir }
    }

    pub fn artifact(&self, module: &[u8]) -> Artifact {
        let digest = blake3::hash(module).to_hex().to_string();
        let path = self.dir.path().join(&digest);
        if !path.exists() {
            // Parallel calls of one module must not see half a file.
            let temporary = tempfile::NamedTempFile::new_in(self.dir.path()).unwrap();
            std::fs::write(temporary.path(), module).unwrap();
            temporary.persist(&path).unwrap();
        }
        Artifact { digest, path, size: module.len() as u64 }
    }

    pub async fn prepare(&self, module: &[u8]) -> Result<(), InvokeError> {
        self.wasm.prepare(&self.artifact(module), &Preparation::from(&Limits::default())).await.map(drop)
    }

    pub async fn call(&self, module: &[u8], change: impl FnOnce(&mut Setup)) -> Ran {
        let mut setup = Setup {
            args: Vec::new(),
            env: BTreeMap::new(),
            body: Body::EMPTY,
            deadline: Duration::from_secs(60),
            cancel: CancellationToken::new(),
            limits: Limits { wall: Duration::from_secs(60), ..Limits::default() },
        };
        change(&mut setup);
        let (sink, buffer) = LogBuffer::new(Arc::new(SystemClock::new()), 1 << 20, 1);
        let work = async {
            let prepared = self.wasm.prepare(&self.artifact(module), &Preparation::from(&setup.limits)).await?;
            let spec =
                Arc::new(InstanceSpec { name: "guest".to_owned(), limits: setup.limits, ..InstanceSpec::default() });
            let mut instance = self.wasm.start(&prepared, &spec).await?;
            let call = Invocation {
                args: setup.args,
                env: setup.env,
                body: setup.body,
                deadline: Some(setup.deadline),
                cancel: setup.cancel,
                ..Invocation::default()
            };
            let outcome = instance.invoke(call, Streams::logged(sink.clone())).await;
            instance.stop(Duration::from_secs(1)).await;
            outcome
        };
        let outcome = work.await;
        sink.close();
        Ran { outcome, lines: buffer.next().await }
    }

    pub async fn wat(&self, wat: &str, change: impl FnOnce(&mut Setup)) -> Ran {
        self.call(&wasm(wat), change).await
    }
}

/// A function whose instance is kept from call to call, as a pool keeps it.
pub struct Function {
    wasm: Wasm,
    prepared: Prepared,
    pub spec: Arc<InstanceSpec>,
    idle: Option<Box<dyn Instance>>,
    logs: LogSink,
    _buffer: LogBuffer,
    /// Instances that were made.
    pub made: usize,
}

impl Bench {
    /// A function of a module; `compiler` as in a task.
    pub async fn function(&self, module: &[u8], compiler: &str, spec: InstanceSpec) -> Result<Function, InvokeError> {
        let asked = Preparation { compiler: compiler.to_owned(), ..Preparation::from(&spec.limits) };
        let prepared = self.wasm.prepare(&self.artifact(module), &asked).await?;
        let (logs, buffer) = LogBuffer::new(Arc::new(SystemClock::new()), 0, 1);
        let (wasm, spec) = (self.wasm.clone(), Arc::new(spec));
        Ok(Function { wasm, prepared, spec, idle: None, logs, _buffer: buffer, made: 0 })
    }
}

impl Function {
    /// Calls the instance that is kept, or a new one.
    pub async fn invoke(&mut self, call: Invocation) -> Result<Answer, InvokeError> {
        let logs = self.logs.clone();
        self.invoke_with(call, Streams { logs, logs_stdout: false, reply: None }).await
    }

    pub async fn invoke_with(&mut self, call: Invocation, streams: Streams) -> Result<Answer, InvokeError> {
        let mut instance = match self.idle.take() {
            Some(instance) => instance,
            None => {
                self.made += 1;
                self.wasm.start(&self.prepared, &self.spec).await?
            }
        };
        let answer = instance.invoke(call, streams).await;
        self.idle = Some(instance).filter(|instance| instance.reusable());
        answer
    }

    /// The next call gets a new instance.
    pub fn forget(&mut self) {
        self.idle = None;
    }

    pub fn keeps_one(&self) -> bool {
        self.idle.is_some()
    }

    pub fn logs(&self) -> LogSink {
        self.logs.clone()
    }
}

/// A call with arguments.
pub fn call<'a>(args: impl IntoIterator<Item = &'a str>) -> Invocation {
    Invocation { args: args.into_iter().map(str::to_owned).collect(), ..Invocation::default() }
}

/// Runs an async test body with its own runtime.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}
