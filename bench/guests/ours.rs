//! Our runtime, by way of the pool of a function.

use anyhow::{Result, anyhow};
use api::Invocation;
use runtime::{Artifact, InstanceSpec, LogBuffer, Pool, PoolSettings, Preparation, Reuse, Runtime, Streams};
use std::{path::Path, sync::Arc, time::Instant};
use types::{Clock, ExecutionId, SystemClock};
use wasm::{Config, Wasm};

use crate::call::Contender;

pub struct Ours {
    pool: Pool,
    clock: Arc<dyn Clock>,
    fresh: bool,
    runtime: tokio::runtime::Runtime,
    _dir: Dir,
}

/// A directory that is removed in the end.
struct Dir(std::path::PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

impl Ours {
    /// `fresh`: an instance for each call.
    pub fn new(program: &Path, module: &[u8], fresh: bool) -> Result<Self> {
        let name = format!("bench-guests-{}-{}", std::process::id(), ExecutionId::new());
        let dir = Dir(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&dir.0)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let path = dir.0.join("module");
        std::fs::write(&path, module)?;
        let pool = runtime.block_on(async {
            let wasm = Wasm::new(Config::new(std::path::absolute(program)?, dir.0.join("cache")))?;
            let artifact =
                Artifact { digest: blake3::hash(module).to_hex().to_string(), path, size: module.len() as u64 };
            let asked = Preparation { artifact_bytes: 64 << 20, compiler: "cranelift".to_owned() };
            let prepared = wasm.prepare(&artifact, &asked).await?;
            let uses = if fresh { 1 } else { u64::MAX };
            let settings = PoolSettings { uses, ..PoolSettings::default() };
            let reuse = if fresh { Reuse::Never } else { Reuse::Clean };
            let spec = InstanceSpec { name: "guest".to_owned(), reuse, ..InstanceSpec::default() };
            Ok::<_, anyhow::Error>(Pool::new(Arc::new(wasm), prepared, spec, settings, Arc::default()))
        })?;
        Ok(Self { pool, clock: Arc::new(SystemClock::new()), fresh, runtime, _dir: dir })
    }
}

impl Contender for Ours {
    fn name(&self) -> String {
        if self.fresh { "spear, fresh instance".to_owned() } else { "spear".to_owned() }
    }

    fn run(&self, input: &[u8], until: Instant) -> Result<u64> {
        let input = bytes::Bytes::copy_from_slice(input);
        let expected = input.len();
        self.runtime.block_on(async {
            let mut calls = 0;
            while Instant::now() < until {
                for _ in 0..16 {
                    let call = Invocation::new(input.clone());
                    let mut lease = self.pool.checkout(&call.cancel).await?;
                    let (logs, _buffer) = LogBuffer::new(self.clock.clone(), 65_536, 1);
                    let streams = Streams { logs, logs_stdout: false, reply: None };
                    let answer = lease.invoke(ExecutionId::new(), call, streams).await?;
                    if answer.result.is_empty() || (answer.result.len() != expected && expected > 5) {
                        // A guest that greets does not echo.
                        if answer.result.is_empty() {
                            return Err(anyhow!("no answer"));
                        }
                    }
                    calls += 1;
                }
            }
            Ok(calls)
        })
    }
}
