//! Registrations from 64 connections, in windows, each beside the raw rate of group commits on the same disk.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::{path::Path, sync::Arc, time::Instant};
use store::{Batch, DataDir, Redb, Store, redb::Config};
use supervise::{Budget, Phase, Supervisor};
use types::SystemClock;

use bench_harness::{
    daemon::Daemon,
    load,
    results::{keep, median},
};

pub const CONNECTIONS: usize = 64;
const WINDOWS: usize = 20;
const BODY: &str = r#"{"ip_address":"192.168.1.100","port":8080,"metadata":{"region":"us-west-1","zone":"a"}}"#;
/// About the record of such a node.
const RECORD_BYTES: usize = 330;

#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Window {
    pub nodes: usize,
    pub per_second: f64,
    pub raw_per_second: f64,
    pub resident_kib: usize,
    pub cpu_millis_each: f64,
}

#[derive(Serialize, Deserialize)]
pub struct Figures {
    pub idle_kib: usize,
    pub windows: Vec<Window>,
    /// Medians.
    pub of_raw: f64,
    pub second_half_of_first: f64,
    pub raw_second_half_of_first: f64,
    pub bytes_each: usize,
}

pub fn request() -> Vec<u8> {
    load::post("/api/v1/nodes", BODY)
}

pub async fn run(program: &Path, count: usize) -> Result<()> {
    let daemon = Daemon::spear(program)?;
    let raw_dir = tempfile::tempdir_in(daemon.dir())?;
    let supervisor = Supervisor::new(Budget::default());
    let config = Config::new(DataDir::open(raw_dir.path())?, Arc::new(SystemClock::new()));
    let raw = Store::start(Arc::new(Redb::open(config)?), &supervisor.scope(Phase::Store, "store"));
    let (request, idle) = (request(), daemon.resident_kib()?);
    println!(
        "{:>8}  {:>9}  {:>9}  {:>6}  {:>12}  {:>12}  {:>8}",
        "nodes", "nodes/s", "raw/s", "of raw", "resident KiB", "bytes a node", "CPU ms"
    );
    let (mut done, mut windows) = (0, Vec::new());
    for _ in 0..WINDOWS {
        let raw_per_second = commits(&raw, done, count / WINDOWS).await?;
        let (begun, cpu) = (Instant::now(), daemon.cpu_seconds()?);
        done += load::run(daemon.http(), &request, CONNECTIONS, count / WINDOWS, 201).await?;
        let each = (count / WINDOWS) as f64;
        let window = Window {
            nodes: done,
            per_second: each / begun.elapsed().as_secs_f64(),
            raw_per_second,
            resident_kib: daemon.resident_kib()?,
            cpu_millis_each: (daemon.cpu_seconds()? - cpu) * 1000.0 / each,
        };
        let Window { nodes, per_second, raw_per_second: raw, resident_kib, cpu_millis_each } = window;
        let bytes = resident_kib.saturating_sub(idle) * 1024 / nodes;
        let of_raw = per_second / raw;
        println!(
            "{nodes:>8}  {per_second:>9.0}  {raw:>9.0}  {of_raw:>6.2}  {resident_kib:>12}  {bytes:>12}  {cpu_millis_each:>8.3}"
        );
        windows.push(window);
    }
    supervisor.run(async {}).await?;
    let figures = sum_up(idle, windows);
    println!(
        "of raw: {:.2} (median); second half / first half: {:.2}, raw {:.2}; {} bytes a node",
        figures.of_raw, figures.second_half_of_first, figures.raw_second_half_of_first, figures.bytes_each
    );
    keep("nodes", &figures)
}

/// So many group commits of new records from as many writers.
async fn commits(store: &Store, from: usize, count: usize) -> Result<f64> {
    let begun = Instant::now();
    let writers: Vec<_> = (0..CONNECTIONS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in (from + writer..from + count).step_by(CONNECTIONS) {
                    let key = format!("node/{number:036}");
                    store.commit(Batch::new().put(key, vec![b'x'; RECORD_BYTES])).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for writer in writers {
        writer.await??;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

fn sum_up(idle_kib: usize, windows: Vec<Window>) -> Figures {
    let halves = |rate: fn(&Window) -> f64| {
        let rates: Vec<f64> = windows.iter().map(rate).collect();
        let (first, second) = rates.split_at(rates.len() / 2);
        median(second) / median(first)
    };
    let ratios: Vec<f64> = windows.iter().map(|window| window.per_second / window.raw_per_second).collect();
    let last = windows.last().map_or((0, 1), |last| (last.resident_kib, last.nodes));
    Figures {
        idle_kib,
        of_raw: median(&ratios),
        second_half_of_first: halves(|window| window.per_second),
        raw_second_half_of_first: halves(|window| window.raw_per_second),
        bytes_each: last.0.saturating_sub(idle_kib) * 1024 / last.1,
        windows,
    }
}
