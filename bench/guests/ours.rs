//! Our runtime, by way of the pool of a function.

use anyhow::{Result, ensure};
use api::Invocation;
use bytes::Bytes;
use runtime::{Artifact, InstanceSpec, Lease, LogBuffer, Pool, PoolSettings, Preparation, Reuse, Runtime, Streams};
use std::{path::Path, sync::Arc, time::Instant};
use types::{ExecutionId, SystemClock};
use wasm::{Config, Wasm};

use crate::call::Contender;

/// A module on the disk, beside what is compiled of it.
pub struct Place {
    dir: tempfile::TempDir,
    artifact: Artifact,
}

impl Place {
    pub fn new(module: &[u8]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("module");
        std::fs::write(&path, module)?;
        let digest = blake3::hash(module).to_hex().to_string();
        Ok(Self { dir, artifact: Artifact { digest, path, size: module.len() as u64 } })
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A runtime that begins with what lies on the disk.
    pub fn runtime(&self, program: &Path) -> Result<Wasm> {
        Ok(Wasm::new(Config { concurrency: 1024, ..Config::new(program, self.dir.path().join("cache")) })?)
    }

    pub async fn pool(&self, wasm: Arc<Wasm>, settings: PoolSettings, reuse: Reuse) -> Result<Pool> {
        let asked = Preparation { artifact_bytes: 64 << 20, compiler: "cranelift".to_owned() };
        let prepared = wasm.prepare(&self.artifact, &asked).await?;
        let spec = InstanceSpec { name: "guest".to_owned(), reuse, ..InstanceSpec::default() };
        Ok(Pool::new(wasm, prepared, spec, settings, Arc::default()))
    }
}

/// One call; its answer.
pub async fn call(pool: &Pool, call: Invocation) -> Result<Bytes> {
    let mut lease = pool.checkout(&call.cancel).await?;
    invoke(&mut lease, call).await
}

/// The same with an instance that is there.
pub async fn invoke(lease: &mut Lease, call: Invocation) -> Result<Bytes> {
    let (logs, _buffer) = LogBuffer::new(Arc::new(SystemClock::new()), 65_536, 1);
    let streams = Streams { logs, logs_stdout: false, reply: None };
    Ok(lease.invoke(ExecutionId::new(), call, streams).await?.result)
}

pub struct Ours {
    pool: Pool,
    reuse: Reuse,
    runtime: tokio::runtime::Runtime,
    _place: Place,
}

impl Ours {
    pub fn new(program: &Path, module: &[u8], reuse: Reuse) -> Result<Self> {
        let place = Place::new(module)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let uses = if reuse == Reuse::Never { 1 } else { u64::MAX };
        let settings = PoolSettings { uses, ..PoolSettings::default() };
        let pool = runtime.block_on(async { place.pool(Arc::new(place.runtime(program)?), settings, reuse).await })?;
        Ok(Self { pool, reuse, runtime, _place: place })
    }
}

impl Contender for Ours {
    fn name(&self) -> String {
        if self.reuse == Reuse::Never { "spear, fresh instance".to_owned() } else { "spear".to_owned() }
    }

    fn run(&self, input: &[u8], until: Instant) -> Result<u64> {
        let input = Bytes::copy_from_slice(input);
        self.runtime.block_on(async {
            let mut calls = 0;
            while Instant::now() < until {
                for _ in 0..16 {
                    let answer = call(&self.pool, Invocation::new(input.clone())).await?;
                    ensure!(!answer.is_empty(), "no answer");
                    calls += 1;
                }
            }
            Ok(calls)
        })
    }
}
