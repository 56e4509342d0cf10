//! What comes before a function is warm: its first call when its code lies on the disk, and from its upload to its first
//! answer; and what an instance takes that waits for the next call.

use anyhow::{Context, Result, ensure};
use api::Invocation;
use bench_harness::{
    daemon::{Daemon, resident_kib},
    load,
    results::{keep, median},
};
use runtime::PoolSettings;
use serde::{Deserialize, Serialize};
use std::{path::Path, sync::Arc, time::Instant};

use crate::{http, module, ours, peer::Peer};

const ROUNDS: usize = 9;
/// Idle instances whose memory is looked at.
const INSTANCES: usize = 400;
/// Bytes of the module whose first call is measured, about.
const LARGE: usize = 2_000_000;
/// Bytes of the module that is uploaded, about.
const UPLOADED: usize = 491_000;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    pub module_bytes: usize,
    /// Milliseconds of the first call: by us, and by wasmtime from its own file.
    pub first: f64,
    pub first_peer: f64,
    pub uploaded_bytes: usize,
    /// Milliseconds from the upload to the first answer.
    pub deployed: f64,
    /// KiB of an idle instance.
    pub idle_kib: f64,
}

pub fn run(program: &Path) -> Result<()> {
    let large = wat::parse_str(module::large(LARGE, 0))?;
    let mut figures = Figures { module_bytes: large.len(), ..Figures::default() };
    (figures.first, figures.first_peer) = first(program, &large)?;
    println!(
        "first call, {} bytes of wasm: {:.2} ms, wasmtime {:.2} ms",
        large.len(),
        figures.first,
        figures.first_peer
    );
    (figures.deployed, figures.uploaded_bytes) = tokio::runtime::Runtime::new()?.block_on(deployed(program))?;
    println!("upload of {} bytes to the first answer: {:.1} ms", figures.uploaded_bytes, figures.deployed);
    figures.idle_kib = idle(program)?;
    println!("an idle instance: {:.1} KiB", figures.idle_kib);
    keep("cold", &figures)
}

fn first(program: &Path, module: &[u8]) -> Result<(f64, f64)> {
    let place = ours::Place::new(module)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let kept = place.dir().join("peer");
    Peer::keep(module, &kept)?;
    let (mut mine, mut peers) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        // A runtime that knows nothing: what is there lies on the disk.
        let wasm = Arc::new(place.runtime(program)?);
        let began = Instant::now();
        runtime.block_on(async {
            let pool = place.pool(wasm, PoolSettings::default(), runtime::Reuse::Clean).await?;
            ours::call(&pool, Invocation::new(bytes::Bytes::new())).await
        })?;
        let ours = began.elapsed().as_secs_f64() * 1000.0;
        let began = Instant::now();
        Peer::load(&kept)?.call(&bytes::Bytes::new())?;
        // The first one compiles.
        if round > 0 {
            mine.push(ours);
            peers.push(began.elapsed().as_secs_f64() * 1000.0);
        }
    }
    Ok((median(&mine), median(&peers)))
}

async fn deployed(program: &Path) -> Result<(f64, usize)> {
    let spear = Daemon::all(program)?;
    let (mut times, mut bytes) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        // Another one each time: nothing of it was ever compiled.
        let module = wat::parse_str(module::large(UPLOADED, round + 1))?;
        bytes = module.len();
        let began = Instant::now();
        let task = http::task(&spear, &module, serde_json::json!({})).await?;
        let request = load::send(&format!("/functions/{task}/invoke"), "application/octet-stream", b"");
        let answer = load::exchange(spear.agent(), &request).await.context("the first call")?;
        ensure!(answer.is_empty(), "{} bytes came back", answer.len());
        times.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    Ok((median(&times), bytes))
}

fn idle(program: &Path) -> Result<f64> {
    let place = ours::Place::new(&wat::parse_str(module::echo(2))?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let settings = PoolSettings { concurrency: INSTANCES, warm_max: INSTANCES, ..PoolSettings::default() };
        let pool = place.pool(Arc::new(place.runtime(program)?), settings, runtime::Reuse::Clean).await?;
        let input = bytes::Bytes::from_static(b"hello");
        let own = std::process::id();
        for _ in 0..64 {
            ours::call(&pool, Invocation::new(input.clone())).await?;
        }
        let before = resident_kib(own)?;
        // All at once, so that each has an instance of its own; one after the other to be called.
        let mut leases = Vec::new();
        for _ in 0..INSTANCES {
            leases.push(pool.checkout(&Invocation::default().cancel).await?);
        }
        for lease in &mut leases {
            ours::invoke(lease, Invocation::new(input.clone())).await?;
        }
        drop(leases);
        let after = resident_kib(own)?;
        ensure!(pool.instances().len() == INSTANCES, "{} instances", pool.instances().len());
        Ok((after - before) as f64 / (INSTANCES - 1) as f64)
    })
}
