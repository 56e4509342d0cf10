//! Thousands of agents that only pretend, beating at their pace: what they cost, and whether one is ever taken for
//! gone that is not.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{io::AsyncReadExt, process::Command};

use bench_harness::{
    daemon::{Daemon, cpu_seconds},
    load,
    results::{keep, median},
};

const EVERY: Duration = Duration::from_secs(10);

#[derive(Clone, Serialize, Deserialize)]
pub struct Sample {
    pub seconds: f64,
    /// Processors in use since the last sample.
    pub cores: f64,
    pub resident_kib: usize,
    pub online: u64,
    pub offline: u64,
}

#[derive(Serialize, Deserialize)]
pub struct Figures {
    pub nodes: usize,
    pub minutes: f64,
    pub idle_kib: usize,
    /// Over the whole run, beginning included.
    pub cores: f64,
    /// Median of the samples after the first minute.
    pub steady_cores: f64,
    /// Nodes found silent though every one of them went on.
    pub false_expiries: usize,
    pub bytes_each: usize,
    pub simulator_cores: f64,
    /// As the simulator says.
    pub summary: Value,
    pub samples: Vec<Sample>,
}

pub async fn run(program: &Path, nodes: usize, minutes: f64, connections: usize) -> Result<()> {
    let daemon = Daemon::spear(program)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = daemon.resident_kib()?;
    let (begun, cpu) = (Instant::now(), daemon.cpu_seconds()?);
    let mut simulator = Command::new(program)
        .args(["simulate", "--output", "json", "--interval", "10s"])
        .args(["--nodes", &nodes.to_string(), "--connections", &connections.to_string()])
        .args(["--sms-grpc-addr", &daemon.grpc().to_string(), "--sms-http-addr", &daemon.http().to_string()])
        .args(["--duration", &format!("{}s", (minutes * 60.0) as u64)])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let pid = simulator.id().context("it runs")?;
    let (mut samples, mut simulator_cpu) = (Vec::<Sample>::new(), 0.0);
    let (mut last, mut tick) = ((begun, cpu), tokio::time::interval_at(tokio::time::Instant::now() + EVERY, EVERY));
    println!("{:>8} {:>6} {:>12} {:>8} {:>8}", "seconds", "cores", "resident KiB", "online", "offline");
    let ended = loop {
        tokio::select! {
            ended = simulator.wait() => break ended?,
            _ = tick.tick() => {}
        }
        let answer: Value = serde_json::from_slice(&load::body(daemon.http(), "/api/v1/cluster/stats").await?)?;
        let (now, used) = (Instant::now(), daemon.cpu_seconds()?);
        let count = |field: &str| answer["stats"][field].as_u64().unwrap_or(0);
        let sample = Sample {
            seconds: begun.elapsed().as_secs_f64(),
            cores: (used - last.1) / (now - last.0).as_secs_f64(),
            resident_kib: daemon.resident_kib()?,
            online: count("active_nodes"),
            offline: count("inactive_nodes"),
        };
        last = (now, used);
        simulator_cpu = cpu_seconds(pid).unwrap_or(simulator_cpu);
        let Sample { seconds, cores, resident_kib, online, offline } = sample;
        println!("{seconds:>8.0} {cores:>6.3} {resident_kib:>12} {online:>8} {offline:>8}");
        samples.push(sample);
    };
    ensure!(ended.success(), "the simulator ended with {ended}");
    let took = begun.elapsed().as_secs_f64();
    let cores = (daemon.cpu_seconds()? - cpu) / took;
    let mut text = String::new();
    simulator.stdout.take().context("stdout is piped")?.read_to_string(&mut text).await?;
    let steady: Vec<f64> = samples.iter().filter(|sample| sample.seconds > 60.0).map(|sample| sample.cores).collect();
    let resident = samples.iter().map(|sample| sample.resident_kib).max().unwrap_or(idle);
    let figures = Figures {
        nodes,
        minutes: took / 60.0,
        idle_kib: idle,
        cores,
        steady_cores: median(&steady),
        false_expiries: daemon.silent(),
        bytes_each: resident.saturating_sub(idle) * 1024 / nodes,
        simulator_cores: simulator_cpu / took,
        summary: serde_json::from_str(&text)?,
        samples,
    };
    println!("{}", figures.summary);
    println!(
        "{:.3} cores ({:.3} once all are there), {} false expiries, {} bytes a node",
        figures.cores, figures.steady_cores, figures.false_expiries, figures.bytes_each
    );
    keep("heartbeats", &figures)
}
