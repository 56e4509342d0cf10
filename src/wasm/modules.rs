//! From a file to a loaded module, once: memory, then disk, then the compiling child.
//!
//! ```text
//!   get ─► in memory? ─► one at a time per digest ─► in memory? ─► read ─► artifact on disk? ─► scan ─► child
//!                                                        singlepass at once, cranelift behind it ◄────┘
//! ```
//! A caller that goes away takes its child with it; the next one in line compiles. A module that nobody asked a
//! compiler for is compiled in one pass and runs; meanwhile it is optimised, and the better code takes its place.

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, RwLock},
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

use runtime::{Artifact, InvokeError, Preparation};
use supervise::Scope;
use types::Reason;

use crate::{
    cache::{self, Cache},
    compile::{self, CompileArgs},
    engine::{Compiler, Loaded},
    figures::Figures,
    scan,
};

/// Loaded modules kept in memory.
const MOST_LOADED: usize = 128;
/// Bytes of their artifacts.
const MOST_LOADED_BYTES: usize = 512 << 20;

/// Limits of the compiling child.
#[derive(Clone, Debug)]
pub(crate) struct ChildLimits {
    pub(crate) program: PathBuf,
    pub(crate) memory_bytes: u64,
    pub(crate) cpu_base: Duration,
    pub(crate) cpu_per_megabyte: Duration,
}

/// Digest, size, and the compiler that was asked for.
type Key = (String, u64, Option<Compiler>);

/// A module whose code may be replaced by better code.
#[derive(Debug)]
pub(crate) struct Module(RwLock<Arc<Loaded>>);

impl Module {
    pub(crate) fn new(loaded: Loaded) -> Self {
        Self(RwLock::new(Arc::new(loaded)))
    }

    /// The best code there is.
    pub(crate) fn loaded(&self) -> Arc<Loaded> {
        self.0.read().unwrap_or_else(|broken| broken.into_inner()).clone()
    }

    /// Are its calls short?
    pub(crate) fn quick(&self) -> bool {
        self.0.read().unwrap_or_else(|broken| broken.into_inner()).pace.quick()
    }

    fn replace(&self, loaded: Loaded) {
        *self.0.write().unwrap_or_else(|broken| broken.into_inner()) = Arc::new(loaded);
    }
}

#[derive(Default)]
struct State {
    /// Least recently used first.
    loaded: VecDeque<(Key, Arc<Module>)>,
    flights: HashMap<Key, Arc<tokio::sync::Mutex<()>>>,
}

/// All modules.
pub(crate) struct Modules {
    state: Mutex<State>,
    cache: Arc<Cache>,
    child: ChildLimits,
    compiling: Semaphore,
    /// One at a time behind calls, and never in the way of what a caller waits for.
    optimising: Semaphore,
    /// Where optimising goes on behind calls; none: it is done before the first one.
    background: Option<Scope>,
    figures: Figures,
}

impl Modules {
    /// With a cache; at most `concurrency` children that somebody waits for at once.
    pub(crate) fn new(
        cache: Cache,
        child: ChildLimits,
        concurrency: usize,
        background: Option<Scope>,
        figures: Figures,
    ) -> Self {
        Self {
            background,
            state: Mutex::default(),
            cache: Arc::new(cache),
            child,
            compiling: Semaphore::new(concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            optimising: Semaphore::new(1),
            figures,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// The loaded module of an artifact.
    pub(crate) async fn get(
        self: &Arc<Self>,
        artifact: &Artifact,
        asked: &Preparation,
    ) -> Result<Arc<Module>, InvokeError> {
        let compiler = match &*asked.compiler {
            "" | "auto" => None,
            word => Some(Compiler::from_word(word).ok_or_else(|| {
                let word = scan::clip(word);
                InvokeError::new(Reason::Task, format!("compiler: {word} is none of auto, singlepass, cranelift"))
            })?),
        };
        if artifact.size > asked.artifact_bytes {
            return Err(too_large(asked.artifact_bytes));
        }
        let key = (artifact.digest.clone(), artifact.size, compiler);
        if let Some(loaded) = self.remembered(&key) {
            self.figures.modules.with(["memory"]).inc();
            return Ok(loaded);
        }
        let flight = self.lock().flights.entry(key.clone()).or_default().clone();
        let turn = flight.lock().await;
        let made = match self.remembered(&key) {
            Some(loaded) => {
                self.figures.modules.with(["memory"]).inc();
                Ok(loaded)
            }
            None => {
                let made = self.make(artifact, asked.artifact_bytes, compiler).await;
                made.map(|loaded| self.remember(&key, loaded))
            }
        };
        drop(turn);
        if let Err(error) = &made {
            self.figures.failures.with([error.reason.as_str()]).inc();
        }
        let mut state = self.lock();
        // Two owners, the map and we: nobody else waits.
        if Arc::strong_count(&flight) == 2 {
            state.flights.remove(&key);
        }
        drop(state);
        made
    }

    fn remembered(&self, key: &Key) -> Option<Arc<Module>> {
        let mut state = self.lock();
        let index = state.loaded.iter().position(|(known, _)| known == key)?;
        let entry = state.loaded.remove(index)?;
        let loaded = entry.1.clone();
        state.loaded.push_back(entry);
        Some(loaded)
    }

    fn remember(&self, key: &Key, loaded: Arc<Module>) -> Arc<Module> {
        let mut forgotten = Vec::new();
        let mut state = self.lock();
        state.loaded.push_back((key.clone(), loaded.clone()));
        let mut bytes: usize = state.loaded.iter().map(|(_, module)| module.loaded().size).sum();
        while state.loaded.len() > 1 && (state.loaded.len() > MOST_LOADED || bytes > MOST_LOADED_BYTES) {
            let Some((_, oldest)) = state.loaded.pop_front() else { break };
            bytes = bytes.saturating_sub(oldest.loaded().size);
            forgotten.push(oldest);
        }
        drop(state);
        // Unmapping code takes a while: not under the lock.
        drop(forgotten);
        loaded
    }

    async fn make(
        self: &Arc<Self>,
        artifact: &Artifact,
        most_bytes: u64,
        compiler: Option<Compiler>,
    ) -> Result<Arc<Module>, InvokeError> {
        let path = &artifact.path;
        let file = std::path::absolute(path).map_err(|error| unreadable(path, &error))?;
        let (cache, identity) = (self.cache.clone(), cache::identity(artifact));
        let found = blocking(move || {
            if let Some(loaded) = cache.load(identity, compiler.unwrap_or(Compiler::Cranelift)) {
                return Ok(Found::Loaded(loaded));
            }
            let wasm = read(&file, most_bytes)?;
            scan::scan(&wasm)?;
            let hashes = cache::Hashes { identity, module: blake3::hash(&wasm) };
            Ok(Found::Source(Source { path: file, hashes, size: wasm.len() as u64 }))
        });
        let source = match found.await? {
            Found::Source(source) => source,
            Found::Loaded(loaded) => {
                self.figures.modules.with(["disk"]).inc();
                return Ok(Arc::new(Module::new(loaded)));
            }
        };
        let behind = self.background.as_ref().filter(|_| compiler.is_none());
        let first = match behind {
            Some(background) => match self.compile(&source, Compiler::Singlepass, false).await {
                Ok(loaded) => Ok((loaded, Some(background))),
                // What cannot be compiled in one pass (SIMD) is optimised at once.
                Err(_) => self.compile(&source, Compiler::Cranelift, false).await.map(|loaded| (loaded, None)),
            },
            None => {
                let compiler = compiler.unwrap_or(Compiler::Cranelift);
                self.compile(&source, compiler, false).await.map(|loaded| (loaded, None))
            }
        };
        let (loaded, behind) = first?;
        // Once for a module, however often its code is made better.
        self.figures.modules.with(["compiled"]).inc();
        let module = Arc::new(Module::new(loaded));
        if let Some(background) = behind {
            self.optimise(background, source, &module);
        }
        Ok(module)
    }

    /// Has better code made, and put in place, unless the module is forgotten before.
    fn optimise(self: &Arc<Self>, background: &Scope, source: Source, module: &Arc<Module>) {
        let (modules, module, stop) = (self.clone(), Arc::downgrade(module), background.stop());
        background.spawn_once("optimise", async move {
            let compiling = modules.compile(&source, Compiler::Cranelift, true);
            match stop.run_until_cancelled(compiling).await {
                Some(Ok(loaded)) => {
                    if let Some(module) = module.upgrade() {
                        module.replace(loaded);
                    }
                }
                // It runs all the same.
                Some(Err(error)) => tracing::warn!(module = %source.hashes.module, %error, "a module is not optimised"),
                // The node stops; the child goes with this.
                None => {}
            }
            Ok(())
        });
    }

    async fn compile(&self, source: &Source, compiler: Compiler, behind: bool) -> Result<Loaded, InvokeError> {
        let closed = |_| InvokeError::new(Reason::Internal, "the wasm runtime is closed");
        let places = if behind { &self.optimising } else { &self.compiling };
        let place = places.acquire().await.map_err(closed)?;
        let temporary =
            Temporary(self.cache.temporary(source.hashes.identity).map_err(|error| internal(&error.to_string()))?);
        let megabytes = u32::try_from(source.size.div_ceil(1 << 20)).unwrap_or(u32::MAX);
        let cpu = self.child.cpu_base.saturating_add(self.child.cpu_per_megabyte.saturating_mul(megabytes));
        let args = CompileArgs {
            input: source.path.clone(),
            output: temporary.0.clone(),
            identity: source.hashes.identity,
            compiler,
            memory_bytes: self.child.memory_bytes,
            cpu_seconds: cpu.as_secs().max(1),
            behind,
        };
        let started = Instant::now();
        compile::run(&self.child.program, &args).await?;
        self.figures.compile.with([compiler.as_str()]).since(started);
        drop(place);
        let (cache, hashes) = (self.cache.clone(), source.hashes);
        blocking(move || cache.adopt(&temporary.0, hashes, compiler).map_err(|problem| internal(&problem))).await
    }
}

/// The module as it came.
struct Source {
    path: PathBuf,
    hashes: cache::Hashes,
    size: u64,
}

/// What is on this node's disk of a module.
enum Found {
    /// Its code.
    Loaded(Loaded),
    /// The module alone.
    Source(Source),
}

/// A file that is removed when nobody wants it any more; after a rename there is nothing to remove.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.0.display(), %error, "temporary artifact cannot be removed");
            }
            _ => {}
        }
    }
}

fn internal(problem: &str) -> InvokeError {
    tracing::error!(problem, "a module cannot be made ready");
    InvokeError::new(Reason::Internal, "the compiled module could not be stored or loaded on this node")
}

fn unreadable(path: &Path, error: &std::io::Error) -> InvokeError {
    tracing::error!(path = %path.display(), %error, "the artifact cannot be read");
    InvokeError::new(Reason::Artifact, format!("the artifact cannot be read: {}", error.kind()))
}

fn read(path: &Path, most_bytes: u64) -> Result<Vec<u8>, InvokeError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    file.take(most_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > most_bytes {
        return Err(too_large(most_bytes));
    }
    Ok(bytes)
}

fn too_large(most_bytes: u64) -> InvokeError {
    InvokeError::new(Reason::InvalidModule, format!("the module is larger than the limit of {most_bytes} bytes"))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, InvokeError> + Send + 'static,
) -> Result<T, InvokeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => {
            tracing::error!(%error, "looking at a module failed");
            Err(InvokeError::new(Reason::Internal, "looking at the module failed on this node"))
        }
    }
}
