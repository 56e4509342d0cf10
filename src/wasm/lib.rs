//! The runtime for WebAssembly, on wasmer; the only crate that names it.
//!
//! ```text
//!   prepare:  read ─► scan (valid? sane? imports known?) ─► compile in a limited child ─► verified artifact ─► loaded
//!   invoke:   place ─► thread ─► fresh store + instance ─► flag armed ─► _start ─► verdict
//!                        ▲ feeds stdin, watches cancel        ▲ raised by the watchdog at the deadline
//! ```
//! What holds, whatever a guest does: it ends within its deadline and a small overshoot; it takes no more
//! memory, output or places than its limits; it cannot end the process. The parts, one file each:
//!
//! | file | what |
//! |---|---|
//! | `scan.rs` | what is refused before anything is compiled |
//! | `compile.rs`, `cache.rs`, `modules.rs` | the compiling child, artifacts on disk, once per digest |
//! | `engine.rs`, `stop.rs`, `budget.rs` | wasmer's settings, the stop flag, the memory limit |
//! | `instance.rs`, `pace.rs`, `threads.rs` | a call as the async side sees it: where it runs |
//! | `live.rs`, `abi/`, `grants.rs` | a call on its thread: the instance, the convention, the directories |
//! | `mapping.rs`, `memory.rs`, `snapshot.rs`, `image.rs`, `touched.rs` | how an instance becomes clean again |
//! | `control.rs`, `watchdog.rs`, `input.rs` | stopping, deadlines, standard input |
//! | `stack.rs` | the end of a guest's stack |
//! | `host/` | WASI preview 1 |

mod abi;
mod budget;
mod bulk;
mod cache;
mod compile;
mod control;
mod engine;
mod figures;
#[cfg(test)]
#[path = "tests/generate.rs"]
mod generate;
#[cfg(test)]
mod generated;
mod grants;
mod host;
mod image;
mod input;
mod instance;
mod live;
mod mapping;
mod memory;
mod modules;
mod pace;
mod scan;
mod selftest;
mod snapshot;
mod stack;
mod stop;
mod threads;
mod touched;
mod watchdog;

use async_trait::async_trait;
use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc, time::Duration};
use telemetry::Metrics;
use tokio::sync::Semaphore;
use types::{Clock, Reason, SystemClock};

use runtime::{Artifact, Fingerprint, Instance, InstanceSpec, InvokeError, Preparation, Prepared, Runtime};
use supervise::Scope;

pub use compile::{COMPILE_COMMAND, CompileArgs, compile_child};
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing {
    //! What fuzz targets drive.
    pub use crate::{
        host::fuzzing::{Group, Room},
        scan::fuzzing::judge,
    };
}

pub use engine::{Compiler, version as engine_version};
pub use scan::{Facts, scan};

use crate::{
    figures::Figures,
    instance::WasmInstance,
    mapping::Mappings,
    modules::{Module, Modules},
    threads::Threads,
    touched::Pages,
    watchdog::Watchdog,
};

/// How the runtime is set up.
#[derive(Clone)]
pub struct Config {
    /// The program that is run as `compile-module` child: the daemon's own.
    pub program: PathBuf,
    /// Where compiled artifacts are kept; made private.
    pub cache_dir: PathBuf,
    /// Most bytes of artifacts kept there.
    pub cache_bytes: u64,
    /// Most guests at once; each has a thread.
    pub concurrency: usize,
    /// Most compiling children at once.
    pub compile_concurrency: usize,
    /// Address space of a compiling child, bytes.
    pub compile_memory_bytes: u64,
    /// Processor time of a compiling child for any module.
    pub compile_cpu_base: Duration,
    /// And for each begun megabyte of it.
    pub compile_cpu_per_megabyte: Duration,
    /// Wall-clock time that guests see.
    pub clock: Arc<dyn Clock>,
    /// Where its figures go.
    pub metrics: Metrics,
    /// Where scratch directories of calls are made; what is in it at the start is removed.
    pub scratch_dir: PathBuf,
    /// Where modules are optimised behind their first calls; none: before.
    pub background: Option<Scope>,
}

impl Config {
    /// The defaults: 1.5 GB and 5 s + 2 s per MB for a compilation, 64 guests at once.
    pub fn new(program: impl Into<PathBuf>, cache_dir: impl Into<PathBuf>) -> Self {
        let cache_dir = cache_dir.into();
        Self {
            program: program.into(),
            scratch_dir: cache_dir.join("scratch"),
            background: None,
            cache_dir,
            cache_bytes: 4 << 30,
            concurrency: 64,
            compile_concurrency: std::thread::available_parallelism().map_or(1, usize::from),
            compile_memory_bytes: 1_500_000_000,
            compile_cpu_base: Duration::from_secs(5),
            compile_cpu_per_megabyte: Duration::from_secs(2),
            clock: Arc::new(SystemClock::new()),
            metrics: Metrics::default(),
        }
    }
}

/// Why the runtime cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory for compiled artifacts.
    #[error("{path}: the directory for compiled modules cannot be used")]
    Cache {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system gives no thread.
    #[error("no thread for the watchdog of guests")]
    Thread(#[source] io::Error),
    /// Guests could not be stopped.
    #[error("the self-test of the wasm runtime failed: {0}")]
    SelfTest(String),
}

pub(crate) struct Shared {
    modules: Arc<Modules>,
    threads: Threads,
    places: Arc<Semaphore>,
    concurrency: usize,
    watchdog: Watchdog,
    clock: Arc<dyn Clock>,
    /// How touched pages are found; none: instances are made anew for each call.
    pages: Option<Arc<Pages>>,
    /// Memories of guests that are gone, for the next ones.
    mappings: Arc<Mappings>,
    scratch: PathBuf,
    figures: Figures,
}

/// The runtime; its kind is `wasm`. Cheap to clone.
#[derive(Clone)]
pub struct Wasm {
    shared: Arc<Shared>,
}

impl Wasm {
    /// Makes the cache directory, starts the watchdog and tests that an endless loop is stopped (about 50 ms).
    ///
    /// # Errors
    /// When one of these does not work.
    pub fn new(config: Config) -> Result<Self, Error> {
        let cache = cache::Cache::open(&config.cache_dir, config.cache_bytes)
            .map_err(|source| Error::Cache { path: config.cache_dir.clone(), source })?;
        let child = modules::ChildLimits {
            program: config.program,
            memory_bytes: config.compile_memory_bytes,
            cpu_base: config.compile_cpu_base,
            cpu_per_megabyte: config.compile_cpu_per_megabyte,
        };
        let concurrency = config.concurrency.clamp(1, Semaphore::MAX_PERMITS);
        let pages = Pages::open().map(Arc::new);
        let pages = pages.inspect_err(|error| {
            tracing::warn!(%error, "this kernel does not tell touched pages: each call gets a new instance, which is slower");
        });
        let pages = pages.ok();
        match std::fs::remove_dir_all(&config.scratch_dir) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Cache { path: config.scratch_dir, source });
            }
            _ => {}
        }
        stack::know_own_code()
            .map_err(|error| Error::SelfTest(format!("guests cannot be told from the program: {error}")))?;
        let figures = Figures::new(&config.metrics);
        let shared = Shared {
            modules: Arc::new(Modules::new(
                cache,
                child,
                config.compile_concurrency,
                config.background,
                figures.clone(),
            )),
            threads: Threads::default(),
            places: Arc::new(Semaphore::new(concurrency)),
            concurrency,
            watchdog: Watchdog::start().map_err(Error::Thread)?,
            clock: config.clock,
            mappings: Mappings::new(pages.clone()),
            pages,
            scratch: config.scratch_dir,
            figures,
        };
        selftest::run(&shared).map_err(Error::SelfTest)?;
        let wasm = Self { shared: Arc::new(shared) };
        wasm.sample(&config.metrics);
        Ok(wasm)
    }
}

#[async_trait]
impl Runtime for Wasm {
    fn kind(&self) -> &'static str {
        "wasm"
    }

    async fn fingerprint(&self) -> Fingerprint {
        let details = [
            ("engine", "wasmer".to_owned()),
            ("compiler", "singlepass, then cranelift".to_owned()),
            ("wasi", host::MODULES.join(", ")),
            ("settings", engine::settings(Compiler::Cranelift)),
        ];
        let details: BTreeMap<_, _> = details.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Fingerprint { available: true, version: engine::version().to_owned(), details }
    }

    async fn prepare(&self, artifact: &Artifact, asked: &Preparation) -> Result<Prepared, InvokeError> {
        let module = self.shared.modules.get(artifact, asked).await?;
        Ok(Prepared { artifact: artifact.clone(), inner: module })
    }

    fn describe(&self, prepared: &Prepared) -> String {
        let Ok(module) = prepared.inner.clone().downcast::<Module>() else { return String::new() };
        let loaded = module.loaded();
        format!("{}, {}", loaded.abi.name(), loaded.compiler.as_str())
    }

    async fn start(&self, prepared: &Prepared, spec: &Arc<InstanceSpec>) -> Result<Box<dyn Instance>, InvokeError> {
        let module = prepared
            .inner
            .clone()
            .downcast::<Module>()
            .map_err(|_| InvokeError::new(Reason::Internal, "prepared by another runtime"))?;
        let (needs, most) = (module.loaded().initial_bytes(), spec.limits.memory_bytes);
        if needs > most {
            let message = format!("its memories and tables begin with {needs} bytes; the limit is {most} bytes");
            return Err(InvokeError::new(Reason::Memory, message));
        }
        Ok(Box::new(WasmInstance::new(self.shared.clone(), module, spec.clone())?))
    }
}
