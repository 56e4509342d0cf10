//! wasmtime with WASI preview 1 and its pooling allocator: as it comes, or tuned to keep memory and reset touched pages.

use anyhow::{Result, anyhow, bail};
use std::{path::Path, time::Instant};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module, PoolingAllocationConfig, Store,
};
use wasmtime_wasi::{
    WasiCtxBuilder,
    p1::{self, WasiP1Ctx},
    p2::pipe::{MemoryInputPipe, MemoryOutputPipe},
};

use crate::call::Contender;

/// Guests without imports have no process.
type Data = Option<WasiP1Ctx>;

pub struct Peer {
    engine: Engine,
    pre: InstancePre<Data>,
    imports: bool,
    tuned: bool,
}

fn shown(error: wasmtime::Error) -> anyhow::Error {
    anyhow!("{error:?}")
}

impl Peer {
    pub fn new(module: &[u8], tuned: bool) -> Result<Self> {
        let engine = engine(tuned)?;
        let module = Module::new(&engine, module).map_err(shown)?;
        Self::of(engine, &module, tuned)
    }

    /// From what [`Peer::keep`] has kept.
    #[expect(unsafe_code, reason = "code from a file of our own")]
    pub fn load(file: &Path) -> Result<Self> {
        let engine = engine(true)?;
        // SAFETY: nobody else writes to the directory of the measurement.
        let module = unsafe { Module::deserialize_file(&engine, file) }.map_err(shown)?;
        Self::of(engine, &module, true)
    }

    /// Compiles a module into a file.
    pub fn keep(module: &[u8], file: &Path) -> Result<()> {
        let module = Module::new(&engine(true)?, module).map_err(shown)?;
        Ok(std::fs::write(file, module.serialize().map_err(shown)?)?)
    }

    fn of(engine: Engine, module: &Module, tuned: bool) -> Result<Self> {
        let mut linker: Linker<Data> = Linker::new(&engine);
        p1::add_to_linker_sync(&mut linker, |data: &mut Data| data.as_mut().expect("a guest with imports has one"))
            .map_err(shown)?;
        let pre = linker.instantiate_pre(module).map_err(shown)?;
        Ok(Self { engine, pre, imports: module.imports().len() > 0, tuned })
    }

    /// For a server, whose threads must not wait: host functions are async, and a guest has a stack of its own.
    pub fn serving(module: &[u8], tuned: bool) -> Result<Self> {
        let engine = engine(tuned)?;
        let module = Module::new(&engine, module).map_err(shown)?;
        let mut linker: Linker<Data> = Linker::new(&engine);
        p1::add_to_linker_async(&mut linker, |data: &mut Data| data.as_mut().expect("a guest with imports has one"))
            .map_err(shown)?;
        let pre = linker.instantiate_pre(&module).map_err(shown)?;
        Ok(Self { engine, pre, imports: module.imports().len() > 0, tuned })
    }

    /// Calls a fresh instance from such a server.
    pub async fn answer(&self, input: bytes::Bytes) -> Result<Vec<u8>> {
        let stdout = MemoryOutputPipe::new(1 << 20);
        let process = || {
            let stdin = MemoryInputPipe::new(input.clone());
            WasiCtxBuilder::new().arg("guest").stdin(stdin).stdout(stdout.clone()).build_p1()
        };
        let mut store = Store::new(&self.engine, self.imports.then(process));
        store.set_epoch_deadline(1);
        let instance = self.pre.instantiate_async(&mut store).await.map_err(shown)?;
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start").map_err(shown)?;
        start.call_async(&mut store, ()).await.map_err(shown)?;
        drop(store);
        Ok(stdout.contents().to_vec())
    }

    /// Calls a fresh instance.
    pub fn call(&self, input: &bytes::Bytes) -> Result<Vec<u8>> {
        let stdout = MemoryOutputPipe::new(1 << 20);
        let process = || {
            let stdin = MemoryInputPipe::new(input.clone());
            WasiCtxBuilder::new().arg("guest").stdin(stdin).stdout(stdout.clone()).build_p1()
        };
        let mut store = Store::new(&self.engine, self.imports.then(process));
        store.set_epoch_deadline(1);
        let instance = self.pre.instantiate(&mut store).map_err(shown)?;
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start").map_err(shown)?;
        if let Err(error) = start.call(&mut store, ()) {
            match error.downcast_ref::<wasmtime_wasi::I32Exit>() {
                Some(exit) if exit.0 == 0 => {}
                _ => bail!("{error:?}"),
            }
        }
        drop(store);
        Ok(stdout.contents().to_vec())
    }
}

fn engine(tuned: bool) -> Result<Engine> {
    let mut pooling = PoolingAllocationConfig::default();
    pooling.total_memories(64).total_core_instances(64).total_tables(64).total_stacks(64).max_memory_size(128 << 20);
    if tuned {
        pooling.pagemap_scan(Enabled::Yes).linear_memory_keep_resident(8 << 20).table_keep_resident(1 << 20);
    }
    let mut config = Config::new();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling)).epoch_interruption(true);
    Engine::new(&config).map_err(shown)
}

impl Contender for Peer {
    fn name(&self) -> String {
        if self.tuned { "wasmtime, tuned".to_owned() } else { "wasmtime".to_owned() }
    }

    fn run(&self, input: &[u8], until: Instant) -> Result<u64> {
        let input = bytes::Bytes::copy_from_slice(input);
        let mut calls = 0;
        while Instant::now() < until {
            for _ in 0..16 {
                if self.call(&input)?.is_empty() {
                    bail!("no answer");
                }
                calls += 1;
            }
        }
        Ok(calls)
    }
}
