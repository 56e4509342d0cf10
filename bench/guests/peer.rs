//! wasmtime with WASI preview 1 and its pooling allocator: as it comes, or tuned to keep memory and reset touched pages.

use anyhow::{Result, anyhow};
use std::time::Instant;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module, PoolingAllocationConfig, Store,
};
use wasmtime_wasi::{
    WasiCtxBuilder,
    p1::{self, WasiP1Ctx},
    p2::pipe::{MemoryInputPipe, MemoryOutputPipe},
};

use crate::Contender;

pub struct Peer {
    engine: Engine,
    pre: InstancePre<WasiP1Ctx>,
    tuned: bool,
}

impl Peer {
    pub fn new(module: &[u8], tuned: bool) -> Result<Self> {
        let mut pooling = PoolingAllocationConfig::default();
        pooling.total_memories(64).total_core_instances(64).total_tables(64).max_memory_size(128 << 20);
        if tuned {
            pooling.pagemap_scan(Enabled::Yes).linear_memory_keep_resident(8 << 20).table_keep_resident(1 << 20);
        }
        let mut config = Config::new();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling)).epoch_interruption(true);
        let engine = Engine::new(&config).map_err(|error| anyhow!("{error:?}"))?;
        let mut linker = Linker::new(&engine);
        p1::add_to_linker_sync(&mut linker, |context: &mut WasiP1Ctx| context).map_err(|error| anyhow!("{error:?}"))?;
        let module = Module::new(&engine, module).map_err(|error| anyhow!("{error:?}"))?;
        let pre = linker.instantiate_pre(&module).map_err(|error| anyhow!("{error:?}"))?;
        Ok(Self { engine, pre, tuned })
    }
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
                let stdout = MemoryOutputPipe::new(1 << 20);
                let context = WasiCtxBuilder::new()
                    .arg("guest")
                    .stdin(MemoryInputPipe::new(input.clone()))
                    .stdout(stdout.clone())
                    .build_p1();
                let mut store = Store::new(&self.engine, context);
                store.set_epoch_deadline(1);
                let instance = self.pre.instantiate(&mut store).map_err(|error| anyhow!("{error:?}"))?;
                let start = instance.get_typed_func::<(), ()>(&mut store, "_start");
                let start = start.map_err(|error| anyhow!("{error:?}"))?;
                match start.call(&mut store, ()) {
                    Ok(()) => {}
                    Err(error) => match error.downcast_ref::<wasmtime_wasi::I32Exit>() {
                        Some(exit) if exit.0 == 0 => {}
                        _ => return Err(anyhow!("{error:?}")),
                    },
                }
                drop(store);
                if stdout.contents().is_empty() {
                    return Err(anyhow!("no answer"));
                }
                calls += 1;
            }
        }
        Ok(calls)
    }
}
